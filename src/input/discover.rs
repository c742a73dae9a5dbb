//! Finds the trace files that the inputs of a command line stand for.

use std::{
    ffi::OsStr,
    fmt, fs,
    io::{self, Write as _},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use walkdir::WalkDir;

use super::{
    InputError, InputPath, Layers, Source, SourceOptions,
    archive::{self, Archives, Extent, Member, Spot, look},
    layers::Refused,
    reader,
    source::Begun,
};
use crate::interrupt;

/// The suffixes that Envoy gives to trace files.
const SUFFIXES: [&str; 4] = ["pb", "pb_length_delimited", "pb_text", "json"];

/// The suffixes of packed files. Only the first two are unpacked here; what has another one is surely refused, but as a
/// trace that cannot be read, not as a file that has nothing to do with traces.
const PACKED: [&str; 11] = ["gz", "zst", "xz", "bz2", "lz4", "lz", "lzma", "br", "sz", "Z", "7z"];

/// The most files that are not traces that are told one by one.
const MAX_PASSED_OVER: usize = 1000;

/// One trace to read.
#[derive(Clone, Debug)]
pub(crate) struct Input {
    /// The file that it is in.
    pub place: InputPath,
    /// Its path below the directory on the command line or in its archive, or its file name.
    pub relative: PathBuf,
    /// Where it goes in a mirrored tree, without the suffix of a capture.
    pub mirrored: PathBuf,
    /// It was found in a directory or an archive, not named on the command line itself.
    pub is_found: bool,
    /// Which of all inputs it is. Several members of an archive may have the same path.
    pub index: usize,
    pub(super) content: Content,
    path: PathBuf,
}

/// How an input is read.
#[derive(Clone, Debug)]
pub(super) enum Content {
    /// By its place.
    File,
    /// As a member of the archive at its place.
    Member(Arc<Member>),
    /// From a copy of what can be read only once.
    Copy(PathBuf),
    /// By what was begun to see whether it is an archive. It can be read only once.
    Begun(Once),
}

/// A source that was begun.
#[derive(Clone)]
pub(super) struct Once(Arc<Mutex<Option<Result<Begun, Refused>>>>);

impl Once {
    fn new(begun: Result<Begun, Refused>) -> Self {
        Self(Arc::new(Mutex::new(Some(begun))))
    }

    pub(super) fn take(&self) -> Option<Result<Begun, Refused>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl fmt::Debug for Once {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Once").finish_non_exhaustive()
    }
}

impl Input {
    /// A file, or standard input. `relative` is its path below the directory on the command line, or its file name.
    #[must_use]
    pub(crate) fn new(place: InputPath, relative: PathBuf, is_found: bool) -> Self {
        let path = place.path().to_owned();
        Self { place, mirrored: relative.clone(), relative, is_found, index: 0, content: Content::File, path }
    }

    /// A member of an archive.
    pub(super) fn member(spot: &Spot, member: Member) -> Self {
        Self {
            place: spot.place.clone(),
            relative: spot.relative.clone(),
            mirrored: spot.mirrored.clone(),
            is_found: true,
            index: 0,
            content: Content::Member(Arc::new(member)),
            path: spot.path.clone(),
        }
    }

    /// The path as messages show it; `-` for standard input.
    #[must_use]
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Its file name, for people.
    #[must_use]
    pub(crate) fn name(&self) -> String {
        let name = match self.content {
            Content::Member(_) => &self.relative,
            Content::File | Content::Begun(_) | Content::Copy(_) => &self.path,
        };
        name.file_name().unwrap_or(name.as_os_str()).to_string_lossy().into_owned()
    }

    /// Its name without suffixes that only say how it is packed and encoded.
    #[must_use]
    pub(crate) fn stem(&self) -> String {
        trace_stem(match self.content {
            Content::Member(_) => &self.relative,
            Content::File | Content::Begun(_) | Content::Copy(_) => &self.path,
        })
    }

    /// The directory that it is in, or its archive and the directory in it.
    #[must_use]
    pub(crate) fn directory(&self) -> PathBuf {
        let parent = |path: &Path| path.parent().map(Path::to_owned).unwrap_or_default();
        match self.content {
            Content::Member(_) => {
                let (path, name) = (self.path.as_os_str().as_bytes(), self.relative.file_name().unwrap_or_default());
                let archive = path.strip_suffix(name.as_bytes()).unwrap_or(path);
                PathBuf::from(OsStr::from_bytes(archive))
            }
            Content::File | Content::Begun(_) | Content::Copy(_) => parent(&self.path),
        }
    }

    /// Whether it is standard input, and is read as it arrives.
    #[must_use]
    pub(crate) fn is_stdin(&self) -> bool {
        self.is_from_stdin() && !self.is_member()
    }

    /// Whether it came from standard input, even if all of it is here by now.
    #[must_use]
    pub(crate) fn is_from_stdin(&self) -> bool {
        self.place == InputPath::Stdin
    }

    fn is_member(&self) -> bool {
        matches!(self.content, Content::Member(_))
    }

    /// Whether it can be read more than once.
    #[must_use]
    pub(crate) fn is_rereadable(&self) -> bool {
        self.is_member() || self.place.is_regular()
    }

    /// The bytes that are read of it, before they are unpacked. Those of a pipe are not known.
    #[must_use]
    pub(crate) fn len(&self) -> Option<u64> {
        match &self.content {
            Content::Member(member) => Some(member.packed_len()),
            Content::File | Content::Begun(_) | Content::Copy(_) => {
                fs::metadata(self.place.file()?).ok().filter(fs::Metadata::is_file).map(|file| file.len())
            }
        }
    }
}

/// What the inputs of a command line stand for.
#[derive(Debug, Default)]
pub(crate) struct Discovered {
    /// What to read as traces.
    pub inputs: Vec<Input>,
    /// Copies of inputs that can be read only once.
    copies: Vec<tempfile::TempPath>,
    /// Files, directories and members of archives that could not be read.
    pub unreadable: Vec<Unreadable>,
    /// Files in directories and archives that do not look like traces, and why: the first thousand.
    pub passed_over: Vec<InputError>,
    /// How many there are.
    pub count_passed_over: usize,
}

impl Discovered {
    /// Copies inputs that can be read only once to temporary files, because they are to be read twice.
    ///
    /// # Errors
    /// An input cannot be read to its end, or there is no room for its copy.
    pub(crate) fn copy_pipes(&mut self) -> Result<(), InputError> {
        for input in self.inputs.iter_mut().filter(|input| !input.is_rereadable()) {
            let failed = |source| InputError::Read { path: input.path().to_owned(), source };
            let mut pipe = match &input.place {
                InputPath::Stdin => reader::stdin(),
                // Whoever reads it tells that it is not there.
                InputPath::File(path) if !path.exists() => continue,
                InputPath::File(path) => Box::new(fs::File::open(path).map_err(failed)?),
            };
            let mut copy = tempfile::NamedTempFile::new().map_err(failed)?;
            io::copy(&mut pipe, &mut copy).and_then(|_| copy.flush()).map_err(failed)?;
            let path = copy.into_temp_path();
            input.content = Content::Copy(path.to_path_buf());
            self.copies.push(path);
        }
        Ok(())
    }

    /// Calls standard input by this name instead of `-`.
    pub(crate) fn name_stdin(&mut self, name: &Path) {
        self.inputs.iter_mut().filter(|input| input.is_from_stdin()).for_each(|input| input.path = name.to_owned());
    }

    /// If the only input is standard input or a pipe with a name, waits for its first bytes. Returns whether they begin an
    /// archive, whose traces are the inputs then. The output must be open by now, because whoever reads it may be who
    /// makes the input come. Several inputs do not wait for each other, so an archive is not recognised among them.
    pub(crate) fn look_into_pipe(&mut self, options: SourceOptions) -> bool {
        let [input] = &mut self.inputs[..] else { return false };
        if input.is_rereadable() {
            return false;
        }
        let reader = match (&input.content, &input.place) {
            (Content::Copy(copy), _) => reader::open(copy),
            (_, InputPath::Stdin) => Ok(reader::stdin()),
            (_, InputPath::File(path)) => reader::open(path),
        };
        match reader.map_err(Refused::Read).and_then(|reader| look(reader, options.layers)) {
            Ok((begun, Some(kind))) => {
                let mirrored = if input.is_stdin() { PathBuf::from("stdin") } else { input.mirrored.clone() };
                let spot = Spot { path: input.path().to_owned(), ..archive(input.place.clone(), mirrored) };
                self.inputs.clear();
                Archives::new(options).expand(&spot, kind, begun, None, self);
                self.number();
                true
            }
            _ if matches!(input.content, Content::Copy(_)) => false,
            other => {
                input.content = Content::Begun(Once::new(other.map(|(begun, _)| begun)));
                false
            }
        }
    }

    fn number(&mut self) {
        self.inputs.iter_mut().enumerate().for_each(|(index, input)| input.index = index);
    }

    /// Adds a file that does not look like a trace.
    pub(super) fn pass_over(&mut self, error: InputError) {
        self.count_passed_over += 1;
        if self.passed_over.len() < MAX_PASSED_OVER {
            self.passed_over.push(error);
        }
    }
}

/// A file or directory that could not be read.
#[derive(Debug)]
pub(crate) struct Unreadable {
    /// The file or directory.
    pub path: PathBuf,
    /// Why.
    pub error: io::Error,
}

impl Unreadable {
    /// Whether its name is that of a trace, rather than of a directory that may hold some.
    #[must_use]
    pub(crate) fn is_trace(&self) -> bool {
        has_trace_suffix(&self.path)
    }

    /// As an error for people.
    #[must_use]
    pub(crate) fn as_input_error(&self) -> InputError {
        let source = io::Error::new(self.error.kind(), self.error.to_string());
        InputError::Read { path: self.path.clone(), source }
    }
}

/// Expands `paths`: a file stands for itself, an archive for the traces in it, `-` for standard input, and a directory
/// for the traces and archives below it, in the order of their names. Symbolic links are followed, but those in archives
/// are not. The name of an archive, a colon and the path of a member or a directory in it stand for that.
///
/// In a directory or an archive, a file with the suffix of a trace counts as one, so that damage to it is reported. For
/// any other file, its first bytes decide. `options` are those of the sources: the
/// layers that are asked for are taken off files, and an encoding is that of every trace.
#[must_use]
pub(crate) fn discover(paths: &[PathBuf], options: SourceOptions) -> Discovered {
    let mut found = Discovered::default();
    let layers = options.layers;
    let mut archives = Archives::new(options);
    for path in paths {
        let place = InputPath::new(path);
        if place.file().is_some_and(Path::is_dir) {
            walk(path, &mut found, &mut archives);
        } else if place.is_regular() {
            file(path, layers, &mut found, &mut archives);
        } else if !members(path, layers, &mut found, &mut archives) {
            found.inputs.push(named(place));
        }
    }
    found.number();
    found
}

/// Opens all traces that a path stands for, as the program does, and counts what could not be read. This is for the fuzz
/// targets, which know nothing of the program's commands.
#[doc(hidden)]
#[must_use]
pub fn open_all(path: &Path, options: SourceOptions) -> (Vec<Result<Source, InputError>>, usize) {
    let mut found = discover(&[path.to_owned()], options);
    found.look_into_pipe(options);
    (found.inputs.iter().map(|input| Source::of(input, options)).collect(), found.unreadable.len())
}

/// An input that was named on the command line.
fn named(place: InputPath) -> Input {
    let path = place.path();
    let relative = PathBuf::from(path.file_name().unwrap_or(path.as_os_str()));
    Input::new(place, relative, false)
}

/// A file that is named on the command line.
fn file(path: &Path, layers: Layers, found: &mut Discovered, archives: &mut Archives) {
    let looked = reader::open(path).ok().and_then(|reader| look(reader, layers).ok());
    match (looked, Extent::of_file(path)) {
        (Some((begun, Some(kind))), Ok(extent)) => {
            let mirrored = PathBuf::from(path.file_name().unwrap_or(path.as_os_str()));
            archives.expand(&archive(InputPath::File(path.to_owned()), mirrored), kind, begun, Some(extent), found);
        }
        // What is wrong with it is found when it is read.
        _ => found.inputs.push(named(InputPath::File(path.to_owned()))),
    }
}

/// Some members of an archive, and returns whether `path` stands for any.
fn members(path: &Path, layers: Layers, found: &mut Discovered, archives: &mut Archives) -> bool {
    let Some(outer) = archive::split(path).find(|outer| outer.is_file()) else { return false };
    let mut all = Discovered::default();
    file(outer, layers, &mut all, archives);
    let wanted = path.as_os_str().as_bytes();
    let is_wanted = |path: &Path| {
        let rest = path.as_os_str().as_bytes().strip_prefix(wanted);
        rest.is_some_and(|rest| matches!(rest, [] | [b'/' | b':', ..]))
    };
    all.inputs.retain(|input| input.is_member() && is_wanted(input.path()));
    found.unreadable.append(&mut all.unreadable);
    let any = !all.inputs.is_empty();
    for mut input in all.inputs {
        input.is_found = input.path() != path;
        found.inputs.push(input);
    }
    any
}

/// An archive that is no member of another.
fn archive(place: InputPath, mirrored: PathBuf) -> Spot {
    let path = place.path().to_owned();
    Spot { place, path, relative: PathBuf::new(), mirrored, depth: 0 }
}

fn walk(root: &Path, found: &mut Discovered, archives: &mut Archives) {
    for entry in WalkDir::new(root).follow_links(true).sort_by_file_name() {
        if interrupt::signal().is_some() {
            return;
        }
        match entry {
            // Reading a pipe or socket could wait forever.
            Ok(entry) if entry.file_type().is_file() && !is_unfinished(entry.file_name()) => {
                let path = entry.path();
                // walkdir yields nothing outside the root, so this always strips it.
                let relative = path.strip_prefix(root).unwrap_or(path).to_owned();
                match if has_trace_suffix(path) { Ok(()) } else { look_into(path) } {
                    Ok(()) => found.inputs.push(Input::new(InputPath::File(path.to_owned()), relative, true)),
                    Err(error) if error.is_archive() => walk_archive(path, relative, error, found, archives),
                    Err(error) => found.pass_over(error),
                }
            }
            Ok(_) => {}
            Err(error) => {
                let path = error.path().unwrap_or(root).to_owned();
                let is_loop = error.loop_ancestor().is_some();
                if !is_loop && !has_trace_suffix(&path) && path.is_symlink() {
                    // The link's target is missing or cannot be accessed, and its name is not a trace's. A missing
                    // target is not even reported.
                    let gone = error.io_error().is_some_and(|error| error.kind() == io::ErrorKind::NotFound);
                    if !gone {
                        let source = error.into_io_error().unwrap_or_else(unknown_reason);
                        found.pass_over(InputError::Read { path, source });
                    }
                    continue;
                }
                let error = match error.loop_ancestor() {
                    Some(ancestor) => {
                        io::Error::other(format!("a symbolic link that leads back to {}", ancestor.display()))
                    }
                    None => error.into_io_error().unwrap_or_else(unknown_reason),
                };
                found.unreadable.push(Unreadable { path, error });
            }
        }
    }
}

/// An archive that was found in a directory. If nothing in it is a trace, it counts as one file.
fn walk_archive(path: &Path, relative: PathBuf, error: InputError, found: &mut Discovered, archives: &mut Archives) {
    let before = (found.inputs.len(), found.passed_over.len(), found.count_passed_over);
    let looked = reader::open(path).ok().and_then(|reader| look(reader, Layers::default()).ok());
    if let (Some((begun, Some(kind))), Ok(extent)) = (looked, Extent::of_file(path)) {
        archives.expand(&archive(InputPath::File(path.to_owned()), relative), kind, begun, Some(extent), found);
    }
    if found.inputs.len() == before.0 {
        found.passed_over.truncate(before.1);
        found.count_passed_over = before.2;
        found.pass_over(error);
    }
}

/// The error if the reason is not known.
fn unknown_reason() -> io::Error {
    io::Error::other("cannot be searched")
}

/// Bytes per read when only the start of a file is needed.
const LOOK: usize = 16 << 10;

/// Checks that a file's first bytes are those of a trace. The error says why they are not.
fn look_into(path: &Path) -> Result<(), InputError> {
    Source::look_into(path, SourceOptions { read_size: Some(LOOK), ..SourceOptions::default() })
}

/// Whether it is a temporary file of this program: output that is still being written, or was left by a killed run.
fn is_unfinished(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    name.starts_with(b".tap2pcap-") && name.ends_with(b".tmp")
}

/// The path without the suffix of a packed file.
pub(super) fn unpacked(path: &Path) -> PathBuf {
    let packed = |suffix: &OsStr| PACKED.iter().any(|packed| suffix == *packed);
    if path.extension().is_some_and(packed) { path.with_extension("") } else { path.to_owned() }
}

/// Whether the name is that of a trace. macOS adds files with the attributes of others to archives, under their names.
pub(super) fn counts_as_trace(path: &Path) -> bool {
    has_trace_suffix(path) && !is_of_macos(path)
}

/// Whether the name is that of such a file with attributes.
pub(super) fn is_of_macos(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_bytes().starts_with(b"._"))
}

pub(super) fn has_trace_suffix(path: &Path) -> bool {
    unpacked(path).extension().is_some_and(|suffix| SUFFIXES.iter().any(|known| suffix == *known))
}

/// The name of a trace file without the suffixes of its packing and encoding, so that the same messages give the same
/// packets in every encoding.
#[must_use]
pub fn trace_stem(path: &Path) -> String {
    let unpacked = unpacked(Path::new(path.file_name().unwrap_or(path.as_os_str())));
    let stem = if has_trace_suffix(&unpacked) { unpacked.with_extension("") } else { unpacked };
    stem.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stem_is_the_same_in_every_encoding() {
        for name in ["tap_0.pb", "dir/tap_0.pb_length_delimited", "tap_0.pb_text.gz", "/a/tap_0.json.zst", "tap_0"] {
            assert_eq!(trace_stem(Path::new(name)), "tap_0", "{name}");
        }
        assert_eq!(trace_stem(Path::new("notes.txt")), "notes.txt");
        assert_eq!(trace_stem(Path::new("-")), "-");
    }

    #[test]
    fn the_suffix_of_a_trace_is_known() {
        for (name, expected) in [
            ("a.pb", true),
            ("a.json.gz", true),
            ("a.pb_text.zst", true),
            ("a.pb_text.xz", true),
            ("a.pb_length_delimited.lz4", true),
            ("a.pcap.xz", false),
            ("a.xz", false),
            ("a.pcapng", false),
            ("a.gz", false),
            ("pb", false),
        ] {
            assert_eq!(has_trace_suffix(Path::new(name)), expected, "{name}");
        }
    }
}
