//! Which trace files the inputs of a command line stand for.

use std::{
    ffi::OsStr,
    io,
    path::{Path, PathBuf},
};

use walkdir::WalkDir;

use super::InputError;

/// The suffixes that Envoy gives to trace files.
const SUFFIXES: [&str; 4] = ["pb", "pb_length_delimited", "pb_text", "json"];

/// The suffixes of packed files.
const PACKED: [&str; 2] = ["gz", "zst"];

/// One trace file to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// Where it is.
    pub path: PathBuf,
    /// Its place below the directory that was named, or its own name.
    pub relative: PathBuf,
    /// It was found in a directory rather than named.
    pub found: bool,
}

/// What could not be read on the way.
#[derive(Debug)]
pub struct Unreadable {
    /// The file or directory.
    pub path: PathBuf,
    /// Why.
    pub error: io::Error,
}

impl Unreadable {
    /// Whether it is a trace by its name, rather than a directory that may hold some.
    #[must_use]
    pub fn is_trace(&self) -> bool {
        has_trace_suffix(&self.path)
    }

    /// As an error for people.
    #[must_use]
    pub fn as_input_error(&self) -> InputError {
        let source = io::Error::new(self.error.kind(), self.error.to_string());
        InputError::Read { path: self.path.clone(), source }
    }
}

/// Expands `paths`: a file stands for itself, `-` for standard input, and a directory for the files with a trace
/// suffix below it, symbolic links followed, in the order of their names.
#[must_use]
pub fn discover(paths: &[PathBuf]) -> (Vec<Input>, Vec<Unreadable>) {
    let (mut inputs, mut unreadable) = (Vec::new(), Vec::new());
    for path in paths {
        if path != Path::new("-") && path.is_dir() {
            walk(path, &mut inputs, &mut unreadable);
        } else {
            let relative = PathBuf::from(path.file_name().unwrap_or(path.as_os_str()));
            inputs.push(Input { path: path.clone(), relative, found: false });
        }
    }
    (inputs, unreadable)
}

fn walk(root: &Path, inputs: &mut Vec<Input>, unreadable: &mut Vec<Unreadable>) {
    for entry in WalkDir::new(root).follow_links(true).sort_by_file_name() {
        match entry {
            Ok(entry) if entry.file_type().is_file() && has_trace_suffix(entry.path()) => inputs.push(Input {
                path: entry.path().to_owned(),
                // walkdir gives only what is below the root.
                relative: entry.path().strip_prefix(root).unwrap_or(entry.path()).to_owned(),
                found: true,
            }),
            Ok(_) => {}
            Err(error) => {
                let path = error.path().unwrap_or(root).to_owned();
                let gone = error.io_error().is_some_and(|error| error.kind() == io::ErrorKind::NotFound);
                if gone && !has_trace_suffix(&path) {
                    // A symbolic link to nothing, and by its name no trace.
                    continue;
                }
                let error = match error.loop_ancestor() {
                    Some(ancestor) => {
                        io::Error::other(format!("a symbolic link that leads back to {}", ancestor.display()))
                    }
                    None => error.into_io_error().unwrap_or_else(|| io::Error::other("cannot be walked")),
                };
                unreadable.push(Unreadable { path, error });
            }
        }
    }
}

/// The path without the suffix of a packed file.
pub(super) fn unpacked(path: &Path) -> PathBuf {
    let packed = |suffix: &OsStr| PACKED.iter().any(|packed| suffix == *packed);
    if path.extension().is_some_and(packed) { path.with_extension("") } else { path.to_owned() }
}

fn has_trace_suffix(path: &Path) -> bool {
    unpacked(path).extension().is_some_and(|suffix| SUFFIXES.iter().any(|known| suffix == *known))
}

/// The name of a trace file without the suffixes that only tell how it is packed and encoded, so that the same
/// messages give the same packets in every encoding.
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
    fn trace_suffixes() {
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
