//! Standard input or a file.

use std::path::{Path, PathBuf};

/// Where a trace comes from. A file may have any name, even `-`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InputPath {
    /// Standard input.
    Stdin,
    /// A file, or a device or pipe with a name.
    File(PathBuf),
}

impl InputPath {
    /// What a name on the command line stands for: `-` is standard input.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        if path == Path::new("-") { Self::Stdin } else { Self::File(path.to_owned()) }
    }

    /// The name on the command line.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Stdin => Path::new("-"),
            Self::File(path) => path,
        }
    }

    /// The file, if it is one.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::Stdin => None,
            Self::File(path) => Some(path),
        }
    }

    /// Whether it is a regular file, which can be read more than once.
    #[must_use]
    pub fn is_regular(&self) -> bool {
        self.file().is_some_and(Path::is_file)
    }

    /// The file's absolute path without symbolic links, to tell whether two names are the same file.
    pub(crate) fn canonical(&self) -> Option<PathBuf> {
        self.file()?.canonicalize().ok()
    }
}
