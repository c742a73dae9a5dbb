//! Why a source gives nothing at all.

use std::{
    io,
    path::{Path, PathBuf},
};

use thiserror::Error;

use super::Likeness;

/// A source that cannot be opened or recognised. What is wrong inside a recognised source is a
/// [`Finding`](crate::trace::Finding) instead, because what came before it is kept.
#[derive(Debug, Error)]
pub enum InputError {
    /// The file cannot be opened or read.
    #[error("{path}: cannot read", path = path.display())]
    Read {
        /// The file, `-` for standard input.
        path: PathBuf,
        /// The operating system's reason.
        #[source]
        source: io::Error,
    },
    /// Nothing in it.
    #[error("{path}: empty, not an Envoy tap trace", path = path.display())]
    Empty {
        /// The file, `-` for standard input.
        path: PathBuf,
    },
    /// Recognised, and yet no connection or exchange could be read from it.
    #[error("{path}: holds no trace that can be read", path = path.display())]
    NothingReadable {
        /// The file, `-` for standard input.
        path: PathBuf,
    },
    /// None of the five encodings.
    #[error("{path}: byte 0, message 0: not an Envoy tap trace: {looks_like}", path = path.display())]
    Unrecognised {
        /// The file, `-` for standard input.
        path: PathBuf,
        /// What it is instead, as far as its first bytes tell.
        looks_like: Likeness,
    },
}

impl InputError {
    /// The source, as it was named.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Read { path, .. }
            | Self::Empty { path }
            | Self::NothingReadable { path }
            | Self::Unrecognised { path, .. } => path,
        }
    }

    /// The name that scripts rely on, as of a finding.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Read { .. } => "unreadable",
            Self::Empty { .. } => "empty",
            Self::NothingReadable { .. } => "nothing-readable",
            Self::Unrecognised { .. } => "not-a-trace",
        }
    }

    /// Whether it is a JSON file of some other kind: directories of traces hold such files too.
    #[must_use]
    pub fn is_other_json(&self) -> bool {
        matches!(self, Self::Unrecognised { looks_like: Likeness::OtherJson, .. })
    }
}
