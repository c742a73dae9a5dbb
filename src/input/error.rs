//! Why nothing at all can be read from a source.

use std::{
    io,
    path::{Path, PathBuf},
};

use thiserror::Error;

use super::{Layer, Likeness};

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
    /// It holds no bytes.
    #[error("{path}: empty, not an Envoy tap trace", path = path.display())]
    Empty {
        /// The file, `-` for standard input.
        path: PathBuf,
    },
    /// It was recognised, but no connection or exchange could be read from it.
    #[error("{path}: holds no trace that can be read", path = path.display())]
    NothingReadable {
        /// The file, `-` for standard input.
        path: PathBuf,
    },
    /// It is in none of the five encodings.
    #[error("{path}: byte 0, message 0: not an Envoy tap trace: {looks_like}", path = path.display())]
    Unrecognised {
        /// The file, `-` for standard input.
        path: PathBuf,
        /// What its first bytes look like instead.
        looks_like: Likeness,
    },
    /// A layer was asked for that it does not have.
    #[error("{path}: byte 0: not {layer}{}", inside(within), path = path.display())]
    Unfit {
        /// The file, `-` for standard input.
        path: PathBuf,
        /// The layer.
        layer: Layer,
        /// The layers around it that were asked for and fit.
        within: Vec<Layer>,
    },
}

fn inside(layers: &[Layer]) -> String {
    let names: Vec<_> = layers.iter().map(|layer| layer.name()).collect();
    if names.is_empty() { String::new() } else { format!(" within {}", names.join(", ")) }
}

impl InputError {
    /// The source's name.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Read { path, .. }
            | Self::Empty { path }
            | Self::NothingReadable { path }
            | Self::Unfit { path, .. }
            | Self::Unrecognised { path, .. } => path,
        }
    }

    /// The name that scripts rely on, like that of a finding's code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Read { .. } => "unreadable",
            Self::Empty { .. } => "empty",
            Self::NothingReadable { .. } => "nothing-readable",
            Self::Unrecognised { .. } | Self::Unfit { .. } => "not-a-trace",
        }
    }

    /// Whether it is an archive, which may hold traces.
    pub(super) fn is_archive(&self) -> bool {
        matches!(self, Self::Unrecognised { looks_like: Likeness::Tar | Likeness::Zip, .. })
    }

    /// Whether it is a JSON file of some other kind: directories of traces hold such files too.
    #[must_use]
    pub fn is_other_json(&self) -> bool {
        matches!(self, Self::Unrecognised { looks_like, .. } if looks_like.is_other_json())
    }
}
