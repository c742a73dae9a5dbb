//! tar.

use std::{
    cell::Cell,
    io::{self, Chain, Cursor, Read, Seek, SeekFrom},
    rc::Rc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tar::{Archive, Entries, Entry, EntryType, Header};

use super::{Extent, Member, Scope, Spot};
use crate::input::{
    discover::has_trace_suffix,
    layers::{Inside, begins_trace},
};

/// Bytes of a header.
const BLOCK: usize = 512;

/// The most bytes of the headers before one member: long names, and maps of sparse files.
const MAX_HEADERS: u64 = 1 << 20;

/// The most bytes of the holes of a sparse file, which are copied as zeros.
const MAX_HOLES: u64 = 256 << 20;

/// Whether bytes begin with the header of a member. Its checksum tells, as `file` does it, because only newer formats
/// have a magic number.
pub(super) fn is_header(head: &[u8]) -> bool {
    let Some(block) = head.first_chunk::<BLOCK>() else { return false };
    let own = 148..156;
    // Nearly everything that is no archive is told by this.
    if !block[own.clone()].iter().all(|byte| matches!(byte, b'0'..=b'7' | b' ' | 0)) {
        return false;
    }
    let own = |at: usize| own.contains(&at);
    let sum = block.iter().enumerate().map(|(at, byte)| if own(at) { 32 } else { u32::from(*byte) }).sum::<u32>();
    block[0] != 0 && Header::from_byte_slice(block).cksum().is_ok_and(|cksum| cksum == sum)
}

/// Whether more bytes may make the header of a member: a name, and zeros after it.
pub(super) fn may_follow(head: &[u8]) -> bool {
    // The length of the name's field. JSON does not begin with a name, nor does a message of protobuf text on one line.
    let field = &head[..head.len().min(100)];
    let name = field.iter().take_while(|byte| **byte != 0).count();
    let is_name = field[..name].iter().all(|byte| *byte >= b' ' && *byte != 0x7f);
    let is_trace = matches!(field, [b'{', b'"' | b' ' | b'}', ..]) || begins_trace(field, false);
    let is_padded = field[name..].iter().all(|byte| *byte == 0);
    head.len() < BLOCK && is_name && !is_trace && is_padded && (name > 0 || head.is_empty())
}

/// A regular file in an archive that comes by.
pub(super) struct TarMember<'a> {
    entry: Entry<'a, Metered<Coming>>,
    read: u64,
    /// The error that ended it. It is met again by whoever reads on.
    failed: Option<(io::ErrorKind, String)>,
}

impl TarMember<'_> {
    pub(super) fn modified(&mut self) -> Option<SystemTime> {
        modified(&mut self.entry)
    }

    fn failure(&self) -> Option<io::Error> {
        self.failed.as_ref().map(|(kind, text)| io::Error::new(*kind, text.clone()))
    }
}

impl Read for TarMember<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(error) = self.failure() {
            return Err(error);
        }
        match self.entry.read(buffer) {
            Ok(count) => {
                self.read += count as u64;
                Ok(count)
            }
            Err(error) => {
                if error.kind() != io::ErrorKind::Interrupted {
                    self.failed = Some((error.kind(), error.to_string()));
                }
                Err(error)
            }
        }
    }
}

/// Reads archives that are a file, one behind the other. Their members are parts of that file.
pub(super) fn walk_file(extent: &Extent, scope: &mut Scope<'_>) {
    let mut start = 0;
    while let Some(end) = walk_part(&extent.part(start, u64::MAX), scope) {
        start += end;
        let mut rest = extent.part(start, u64::MAX).reader();
        match behind(&mut rest, start, scope) {
            Some((skipped, _)) => start += skipped,
            None => return,
        }
    }
}

/// Reads the archive that a file, or the rest of one, begins with, and returns where its end is, if it is sound.
fn walk_part(extent: &Extent, scope: &mut Scope<'_>) -> Option<u64> {
    let allowance = Rc::new(Cell::new(MAX_HEADERS));
    let mut archive = Archive::new(Metered { inside: extent.reader(), at: 0, left: Rc::clone(&allowance) });
    let mut entries = match archive.entries_with_seek() {
        Ok(entries) => entries,
        Err(error) => {
            scope.fault(None, error);
            return None;
        }
    };
    loop {
        let (mut entry, spot) = match next(&mut entries, &allowance, 0, scope) {
            Next::Member(entry, spot) => (entry, spot),
            Next::Other(_) => continue,
            Next::End => return Some(archive.into_inner().at),
            Next::Stop => return None,
        };
        let modified = modified(&mut entry);
        if entry.header().entry_type().is_gnu_sparse() {
            // Its holes are not in the file.
            allowance.set(u64::MAX);
            if let Some(copied) = scope.copy(Some(&spot), &mut entry) {
                scope.look_into(&spot, Member { modified, ..Member::plain(copied) });
            }
            continue;
        }
        let part = extent.part(entry.raw_file_position(), entry.size());
        if part.len() < entry.size() {
            scope.fault(Some(&spot), cut(part.len(), entry.size()));
        }
        scope.look_into(&spot, Member { modified, ..Member::plain(part) });
    }
}

/// Archives that come by, behind the first bytes of one that were read to find it.
type Coming = Chain<Cursor<Vec<u8>>, Inside>;

/// Reads archives that come by, one behind the other. Members that are traces are copied.
pub(super) fn walk_stream(inside: Inside, scope: &mut Scope<'_>) {
    let (mut head, mut inside, mut start) = (Vec::new(), inside, 0);
    while let Some((end, rest)) = walk_coming(Cursor::new(head).chain(inside), start, scope) {
        (start, inside) = (end, rest);
        match behind(&mut inside, start, scope) {
            Some((skipped, header)) => (start, head) = (start + skipped, header.to_vec()),
            None => return,
        }
    }
}

/// Reads the archive that comes next, and returns where its end is, if it is sound, and what comes behind it.
fn walk_coming(inside: Coming, start: u64, scope: &mut Scope<'_>) -> Option<(u64, Inside)> {
    let allowance = Rc::new(Cell::new(MAX_HEADERS));
    let mut archive = Archive::new(Metered { inside, at: start, left: Rc::clone(&allowance) });
    let mut entries = match archive.entries() {
        Ok(entries) => entries,
        Err(error) => {
            scope.fault(None, error);
            return None;
        }
    };
    // Bytes of the member before that are still to be passed over.
    let mut left = 0;
    loop {
        let (entry, spot) = match next(&mut entries, &allowance, left, scope) {
            Next::Member(entry, spot) => (entry, spot),
            Next::Other(size) => {
                left = size;
                continue;
            }
            Next::End => break,
            Next::Stop => return None,
        };
        allowance.set(u64::MAX);
        let (size, stored) = (entry.size(), entry.header().entry_size().unwrap_or_default());
        let is_sparse = entry.header().entry_type().is_gnu_sparse();
        let mut member = TarMember { entry, read: 0, failed: None };
        let told = scope.faults();
        scope.look_into_stream(&spot, &mut member);
        left = if is_sparse {
            // The holes would have to be read as zeros, as many as the header says.
            stored
        } else {
            let _ = io::copy(&mut member, &mut io::sink());
            0
        };
        if let Some(error) = member.failure() {
            if scope.faults() == told {
                scope.fault(Some(&spot), error);
            }
            return None;
        }
        if !is_sparse && member.read < size {
            scope.fault(Some(&spot), cut(member.read, size));
            return None;
        }
    }
    let Metered { inside, at, .. } = archive.into_inner();
    Some((at, inside.into_inner().1))
}

/// Passes over the zeros behind an archive. If another one follows, as `cat` or a loop over several pods puts it there,
/// returns how many bytes of zeros there were, and its header, which was read. `start` is where the archive ends.
fn behind(rest: &mut dyn Read, start: u64, scope: &mut Scope<'_>) -> Option<(u64, [u8; BLOCK])> {
    let mut skipped = 0;
    loop {
        if scope.is_over() {
            return None;
        }
        let mut block = Vec::new();
        if let Err(error) = (&mut *rest).take(BLOCK as u64).read_to_end(&mut block) {
            scope.fault(None, error);
            return None;
        }
        if block.is_empty() {
            return None;
        }
        let Some(other) = block.iter().position(|byte| *byte != 0) else {
            skipped += block.len() as u64;
            continue;
        };
        if is_header(&block) {
            return Some((skipped, block.try_into().ok()?));
        }
        let at = start + skipped + other as u64;
        let text = format!("what follows the end of the tar archive, at byte {at}, is no archive, and is not read");
        scope.fault(None, io::Error::new(io::ErrorKind::InvalidData, text));
        return None;
    }
}

/// What an archive holds next.
#[expect(clippy::large_enum_variant, reason = "nearly all values are of the large variant")]
enum Next<'a, R: Read> {
    Member(Entry<'a, R>, Spot),
    /// Something that is no regular file, and its bytes.
    Other(u64),
    /// The archive is at its end.
    End,
    /// The rest cannot be read, which was told, or is not wanted any more.
    Stop,
}

/// Finds the next member. `left` bytes of the one before are passed over first.
fn next<'a, R: Read>(
    entries: &mut Entries<'a, R>,
    allowance: &Cell<u64>,
    left: u64,
    scope: &mut Scope<'_>,
) -> Next<'a, R> {
    if scope.is_over() {
        return Next::Stop;
    }
    allowance.set(left.saturating_add(MAX_HEADERS));
    let mut entry = match entries.next() {
        Some(Ok(entry)) => entry,
        None => return Next::End,
        Some(Err(error)) => {
            scope.fault(None, io::Error::new(error.kind(), format!("the tar archive is damaged or cut off: {error}")));
            return Next::Stop;
        }
    };
    let other = Next::Other(entry.size());
    let kind = entry.header().entry_type();
    let name = entry.path_bytes().into_owned();
    let is_link = matches!(kind, EntryType::Link | EntryType::Symlink);
    let is_file = matches!(kind, EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse);
    if !is_link && (!is_file || name.ends_with(b"/")) {
        return other;
    }
    let Some(spot) = scope.member(&name) else { return other };
    if is_link {
        if has_trace_suffix(&spot.relative) {
            scope.pass_over(&spot, "it is a link, and links in archives are not followed");
        }
        return other;
    }
    let holes = entry.size().saturating_sub(entry.header().entry_size().unwrap_or_default());
    let fault = if is_sparse_by_pax(&mut entry) {
        "a sparse file in a format that is not read; unpack it first"
    } else if kind == EntryType::GNUSparse && holes > MAX_HOLES {
        "a sparse file with too large holes; unpack it first"
    } else {
        return Next::Member(entry, spot);
    };
    if has_trace_suffix(&spot.relative) {
        scope.fault(Some(&spot), io::Error::other(fault));
    }
    // Of a sparse file, this is what is stored.
    if kind == EntryType::GNUSparse { Next::Other(entry.header().entry_size().unwrap_or_default()) } else { other }
}

/// Whether its holes are described in the way of GNU tar's POSIX format.
fn is_sparse_by_pax<R: Read>(entry: &mut Entry<'_, R>) -> bool {
    let Ok(Some(fields)) = entry.pax_extensions() else { return false };
    fields.flatten().any(|field| field.key_bytes().starts_with(b"GNU.sparse."))
}

/// When a member was modified. PAX headers tell it to the nanosecond.
fn modified<R: Read>(entry: &mut Entry<'_, R>) -> Option<SystemTime> {
    let fields = entry.pax_extensions().ok().flatten();
    let precise = fields.and_then(|fields| fields.flatten().find(|field| field.key_bytes() == b"mtime"));
    let since = precise
        .and_then(|field| nanoseconds(field.value().ok()?))
        .or_else(|| Some(Duration::from_secs(entry.header().mtime().ok()?)))?;
    UNIX_EPOCH.checked_add(since)
}

/// Seconds with a fraction.
fn nanoseconds(text: &str) -> Option<Duration> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let fraction: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    Some(Duration::new(seconds.parse().ok()?, fraction.parse().ok()?))
}

fn cut(read: u64, size: u64) -> io::Error {
    let text = format!("the archive is cut off: {read} of this member's {size} bytes are there");
    io::Error::new(io::ErrorKind::UnexpectedEof, text)
}

/// Reads no more than it is allowed to: the parser keeps long names in memory, however long they are said to be.
struct Metered<R> {
    inside: R,
    /// Where it is.
    at: u64,
    left: Rc<Cell<u64>>,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.left.get();
        if left == 0 && !buffer.is_empty() {
            return Err(io::Error::other(format!("more than {MAX_HEADERS} bytes of headers before a member")));
        }
        let room = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.inside.read(&mut buffer[..room])?;
        self.left.set(left - count as u64);
        self.at += count as u64;
        Ok(count)
    }
}

impl<R: Seek> Seek for Metered<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.at = self.inside.seek(to)?;
        Ok(self.at)
    }
}
