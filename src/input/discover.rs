//! Finds the trace files that the inputs of a command line stand for.

use std::{
    ffi::OsStr,
    io,
    path::{Path, PathBuf},
};

use walkdir::WalkDir;

use super::{InputError, InputPath, Source, SourceOptions};
use crate::interrupt;

/// The suffixes that Envoy gives to trace files.
const SUFFIXES: [&str; 4] = ["pb", "pb_length_delimited", "pb_text", "json"];

/// The suffixes of packed files.
const PACKED: [&str; 2] = ["gz", "zst"];

/// One trace file to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Input {
    /// Where it is.
    pub place: InputPath,
    /// Its path below the directory on the command line, or its file name.
    pub relative: PathBuf,
    /// It was found in a directory on the command line, not named there itself.
    pub is_found: bool,
}

impl Input {
    /// The path as messages show it; `-` for standard input.
    #[must_use]
    pub(crate) fn path(&self) -> &Path {
        self.place.path()
    }

    /// Whether it is standard input.
    #[must_use]
    pub(crate) fn is_stdin(&self) -> bool {
        self.place == InputPath::Stdin
    }
}

/// What the inputs of a command line stand for.
#[derive(Debug, Default)]
pub(crate) struct Discovered {
    /// The files to read as traces.
    pub inputs: Vec<Input>,
    /// Files and directories that could not be read.
    pub unreadable: Vec<Unreadable>,
    /// Files in directories that do not look like traces, and why.
    pub passed_over: Vec<InputError>,
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

/// Expands `paths`: a file stands for itself, `-` for standard input, and a directory for the traces below it, in the
/// order of their names. Symbolic links are followed.
///
/// In a directory, a file with the suffix of a trace counts as one, so that damage to it is reported. For any other
/// file, its first bytes decide.
#[must_use]
pub(crate) fn discover(paths: &[PathBuf]) -> Discovered {
    let mut found = Discovered::default();
    for path in paths {
        let place = InputPath::new(path);
        if place.file().is_some_and(Path::is_dir) {
            walk(path, &mut found);
        } else {
            let relative = PathBuf::from(path.file_name().unwrap_or(path.as_os_str()));
            found.inputs.push(Input { place, relative, is_found: false });
        }
    }
    found
}

fn walk(root: &Path, found: &mut Discovered) {
    for entry in WalkDir::new(root).follow_links(true).sort_by_file_name() {
        if interrupt::signal().is_some() {
            return;
        }
        match entry {
            // Reading a pipe or socket could wait forever.
            Ok(entry) if entry.file_type().is_file() && !is_unfinished(entry.file_name()) => {
                let path = entry.path();
                match if has_trace_suffix(path) { Ok(()) } else { look_into(path) } {
                    Ok(()) => found.inputs.push(Input {
                        place: InputPath::File(path.to_owned()),
                        // walkdir yields nothing outside the root, so this always strips it.
                        relative: path.strip_prefix(root).unwrap_or(path).to_owned(),
                        is_found: true,
                    }),
                    Err(error) => found.passed_over.push(error),
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
                        found.passed_over.push(InputError::Read { path, source });
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

fn has_trace_suffix(path: &Path) -> bool {
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
            ("a.pcapng", false),
            ("a.gz", false),
            ("pb", false),
        ] {
            assert_eq!(has_trace_suffix(Path::new(name)), expected, "{name}");
        }
    }
}
