//! Archives: tar and ZIP, packed or not, whose members are read as traces.
//!
//! A member must be readable more than once and beside others, because a merge writes all packets in the order of time.
//! In an archive that is a file and not packed, a member is a part of that file. Of any other archive, the members that
//! are traces are copied into one temporary file, because a packed stream has no other way back than from its start.

mod extent;
mod member;
mod spool;
mod tar;
#[cfg(test)]
mod tests;
mod zip;

use std::{
    ffi::OsStr,
    io::{self, Cursor, Read},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::Arc,
};

pub(super) use self::{extent::Extent, member::Member};
use self::{
    spool::{Spool, SpoolError},
    tar::TarMember,
};
use super::{
    InputError, InputPath, SourceOptions,
    discover::{Discovered, Input, Unreadable, counts_as_trace, is_of_macos},
    layers::{Inside, Layers, Rewound},
    source::{Begun, Source},
};
use crate::interrupt;

/// How deep archives are opened that are in archives.
const MAX_DEPTH: usize = 4;

/// The most traces of all archives, and the most bytes of their names. Each takes some memory for the whole run.
const MAX_MEMBERS: usize = 65_536;
const MAX_NAMES: usize = 4 << 20;

/// The longest name of a member, which is what systems accept as a path.
const MAX_NAME: usize = 4096;

/// The most members of each archive whose faults are told one by one.
const MAX_TOLD: usize = 100;

/// The bytes of a member that are looked at before it is copied: what detection sees of a trace, packed.
const LOOK: usize = 128 << 10;

/// The kinds of archives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Tar,
    Zip,
}

impl Kind {
    /// The kind that bytes begin with.
    pub(super) fn of(head: &[u8]) -> Option<Self> {
        if tar::is_header(head) {
            Some(Self::Tar)
        } else {
            // The header of a member, or the end of an archive without any.
            (head.starts_with(b"PK\x03\x04") || head.starts_with(b"PK\x05\x06")).then_some(Self::Zip)
        }
    }

    /// Whether more bytes may show that `head` begins an archive. A live trace must not wait for them.
    fn may_follow(head: &[u8]) -> bool {
        b"PK\x03\x04".starts_with(head) || b"PK\x05\x06".starts_with(head) || tar::may_follow(head)
    }
}

/// Takes the layers off, and tells whether an archive is inside.
pub(super) fn look(reader: Inside, layers: Layers) -> Result<(Begun, Option<Kind>), super::layers::Refused> {
    let mut begun = Begun::new(reader, layers)?;
    let mut head = Vec::new();
    let mut buffer = [0; 512];
    let kind = loop {
        let kind = Kind::of(&head);
        if kind.is_some() || !Kind::may_follow(&head) {
            break kind;
        }
        match begun.inside.read(&mut buffer) {
            Ok(0) => break None,
            Ok(count) => head.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // The source meets it again after what could be read.
            Err(error) => {
                begun.inside = Box::new(Failing(Some(error)));
                break None;
            }
        }
    };
    begun.inside = Box::new(Rewound::new(head, begun.inside));
    Ok((begun, kind))
}

/// Fails once, and is at its end then.
struct Failing(Option<io::Error>);

impl Read for Failing {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        self.0.take().map_or(Ok(0), Err)
    }
}

/// Where an archive, or a member of one, is.
#[derive(Clone, Debug)]
pub(super) struct Spot {
    /// The file that holds everything.
    pub(super) place: InputPath,
    /// The name for people: the names of the archives and of the member, with a colon between two.
    pub(super) path: PathBuf,
    /// The path below the outermost archive, with only names in it. An archive itself has none.
    pub(super) relative: PathBuf,
    /// The path of a capture in a mirrored tree, without its suffix.
    pub(super) mirrored: PathBuf,
    /// How many archives it is in.
    pub(super) depth: usize,
}

impl Spot {
    /// The spot of a member.
    fn member(&self, name: &[u8]) -> Self {
        let mut path = self.path.clone().into_os_string();
        path.push(":");
        path.push(OsStr::from_bytes(name.strip_prefix(b"./").unwrap_or(name)));
        let safe = safe(name);
        Self {
            place: self.place.clone(),
            path: path.into(),
            relative: self.relative.join(&safe),
            mirrored: self.mirrored.join(&safe),
            depth: self.depth + 1,
        }
    }
}

/// A path that leads nowhere else than below the directory that it is joined to.
fn safe(name: &[u8]) -> PathBuf {
    let parts = name.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b"." | b".."));
    let mut path = PathBuf::new();
    for part in parts {
        let part: Vec<u8> = part.iter().map(|byte| if *byte == 0 { b'_' } else { *byte }).collect();
        path.push(OsStr::from_bytes(&part));
    }
    if path.as_os_str().is_empty() { PathBuf::from("unnamed") } else { path }
}

/// Opens the archives among the inputs of a command line.
#[derive(Debug, Default)]
pub(super) struct Archives {
    spool: Spool,
    /// Whether every trace is read in an encoding that was asked for, so that nothing that has a trace's name is refused.
    accepts_names: bool,
    members: usize,
    names: usize,
    full: bool,
}

/// One archive that is being read.
struct Scope<'a> {
    archives: &'a mut Archives,
    found: &'a mut Discovered,
    spot: &'a Spot,
    /// How many of its faults were told.
    told: usize,
    /// Faults that were only counted.
    untold: usize,
}

impl Archives {
    pub(super) fn new(options: SourceOptions) -> Self {
        Self { accepts_names: options.encoding.is_some(), ..Self::default() }
    }

    /// Adds the members of an archive that are traces to what was found, in the order of their names.
    pub(super) fn expand(
        &mut self,
        spot: &Spot,
        kind: Kind,
        begun: Begun,
        again: Option<Extent>,
        found: &mut Discovered,
    ) {
        let before = found.inputs.len();
        self.open(spot, kind, begun, again, found);
        // The order in which a directory is walked.
        found.inputs[before..].sort_by(|a, b| a.mirrored.cmp(&b.mirrored));
    }

    fn open(&mut self, spot: &Spot, kind: Kind, begun: Begun, again: Option<Extent>, found: &mut Discovered) {
        let mut scope = Scope { archives: self, found, spot, told: 0, untold: 0 };
        if spot.depth >= MAX_DEPTH {
            scope.fault(None, io::Error::other(format!("an archive within {MAX_DEPTH} archives; unpack it first")));
            return;
        }
        // What is packed cannot be read from the middle.
        let again = again.filter(|_| begun.layers.is_empty());
        match (kind, again) {
            (Kind::Tar, Some(extent)) => tar::walk_file(&extent, &mut scope),
            (Kind::Tar, None) => tar::walk_stream(begun.inside, &mut scope),
            (Kind::Zip, Some(extent)) => zip::walk(&extent, &mut scope),
            (Kind::Zip, None) => {
                let mut inside = begun.inside;
                // The directory of a ZIP archive is at its end.
                if let Some(extent) = scope.copy(None, &mut inside) {
                    zip::walk(&extent, &mut scope);
                }
            }
        }
        scope.end();
    }
}

impl Scope<'_> {
    /// Whether the rest of the archive is not to be read.
    fn is_over(&self) -> bool {
        self.archives.full || interrupt::signal().is_some() && self.spot.place != InputPath::Stdin
    }

    /// Tells what is wrong with a member, or with the archive.
    fn fault(&mut self, member: Option<&Spot>, error: io::Error) {
        // The user's signal has cut the stream, or ends the whole run. That is not damage.
        if interrupt::signal().is_some() {
            return;
        }
        if self.told == MAX_TOLD {
            self.untold += 1;
            return;
        }
        self.told += 1;
        self.found.unreadable.push(Unreadable { path: member.unwrap_or(self.spot).path.clone(), error });
    }

    fn faults(&self) -> usize {
        self.told + self.untold
    }

    fn end(self) {
        if self.untold > 0 {
            let error = io::Error::other(format!("{} more members cannot be read", self.untold));
            self.found.unreadable.push(Unreadable { path: self.spot.path.clone(), error });
        }
    }

    /// The spot of a member, unless its name is too long.
    fn member(&mut self, name: &[u8]) -> Option<Spot> {
        if name.len() > MAX_NAME {
            let error = format!("a member's name has {} bytes, and {MAX_NAME} are allowed", name.len());
            self.fault(None, io::Error::other(error));
            return None;
        }
        Some(self.spot.member(name))
    }

    /// Looks into a member, and takes it if it is a trace or an archive.
    fn look_into(&mut self, spot: &Spot, member: Member) {
        if counts_as_trace(&spot.relative) {
            return self.take(spot, member);
        }
        match look(member.open(), Layers::default()) {
            Ok((begun, Some(kind))) => {
                let again = member.as_extent().cloned();
                self.archives.open(spot, kind, begun, again, self.found);
            }
            Ok((begun, None)) => match Source::begun(&spot.path, begun, looking()) {
                Ok(_) => self.take(spot, member),
                Err(error) => self.refuse(spot, &member, error),
            },
            Err(refused) => self.refuse(spot, &member, refused.of(&spot.path)),
        }
    }

    /// Passes over a member that is no trace, unless it is damaged, so that nobody can see what it is.
    fn refuse(&mut self, spot: &Spot, member: &Member, error: InputError) {
        match member.damage().filter(|_| !is_of_macos(&spot.relative)) {
            Some(damage) => self.fault(Some(spot), damage),
            None => self.found.pass_over(error),
        }
    }

    /// Looks into a member that comes by, and copies it if it is a trace or an archive.
    fn look_into_stream(&mut self, spot: &Spot, entry: &mut TarMember<'_>) {
        let mut head = Vec::new();
        // What fails here fails again when the rest is read.
        let _ = entry.take(LOOK as u64).read_to_end(&mut head);
        let copy: Arc<[u8]> = head.as_slice().into();
        let refused = match look(Box::new(Cursor::new(copy)), Layers::default()) {
            Ok((_, Some(_))) => None,
            Ok((begun, None)) => Source::begun(&spot.path, begun, looking()).err(),
            Err(refused) => Some(refused.of(&spot.path)),
        };
        let modified = entry.modified();
        let named = counts_as_trace(&spot.relative);
        let copied = match refused {
            Some(_) if named && self.archives.accepts_names => self.copy(Some(spot), &mut head.as_slice().chain(entry)),
            None => self.copy(Some(spot), &mut head.as_slice().chain(entry)),
            // It is refused for the same reason when its turn comes, and its rest may be long.
            Some(_) if named => self.copy(Some(spot), &mut head.as_slice()),
            Some(error) => return self.found.pass_over(error),
        };
        if let Some(extent) = copied {
            self.look_into(spot, Member { modified, ..Member::plain(extent) });
        }
    }

    /// Copies all that `reader` holds, as far as it can be read.
    fn copy(&mut self, member: Option<&Spot>, reader: &mut dyn Read) -> Option<Extent> {
        match self.archives.spool.add(reader) {
            Ok(extent) => Some(extent),
            Err(SpoolError::Read(extent, error)) => {
                self.fault(member, error);
                Some(extent)
            }
            Err(SpoolError::Write(error)) => {
                self.fault(member, error);
                self.archives.full = true;
                None
            }
        }
    }

    /// Takes a member that is a trace.
    fn take(&mut self, spot: &Spot, member: Member) {
        let Archives { members, names, .. } = self.archives;
        if *members == MAX_MEMBERS || *names >= MAX_NAMES {
            let error = format!("more than {members} traces in archives; unpack it first", members = *members);
            self.archives.full = true;
            return self.fault(None, io::Error::other(error));
        }
        *members += 1;
        *names += spot.path.as_os_str().len();
        self.found.inputs.push(Input::member(spot, member));
    }

    /// Passes over a member without looking into it.
    fn pass_over(&mut self, spot: &Spot, why: &str) {
        let source = io::Error::other(why.to_owned());
        self.found.pass_over(InputError::Read { path: spot.path.clone(), source });
    }
}

/// How a member is read to see what it is.
fn looking() -> SourceOptions {
    SourceOptions { read_size: Some(16 << 10), ..SourceOptions::default() }
}

/// What may be the path of an archive before the path of a member.
pub(super) fn split(path: &Path) -> impl Iterator<Item = &Path> {
    let bytes = path.as_os_str().as_bytes();
    memchr::memchr_iter(b':', bytes).map(|at| Path::new(OsStr::from_bytes(&bytes[..at])))
}
