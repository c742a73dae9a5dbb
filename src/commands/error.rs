//! Why a command was not done.

use std::{
    io,
    path::{Path, PathBuf},
};

use thiserror::Error;

use super::Status;
#[cfg(feature = "live")]
use crate::admin::AdminError;
#[cfg(feature = "record")]
use crate::tap::{EndpointError, TlsError};
use crate::{access_log::LogError, capture::OutputError, input::InputError};

/// Why a command was not done, or stopped before its end.
#[derive(Debug, Error)]
pub(crate) enum Error {
    /// An output cannot be written.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// The report of what was taken out cannot be written.
    #[error("{path}: cannot write the report", path = .0.display())]
    Report(PathBuf, #[source] io::Error),
    /// A table cannot be written.
    #[error("{path}: cannot write the table", path = .0.display())]
    Table(PathBuf, #[source] io::Error),
    /// An access log cannot be read.
    #[error(transparent)]
    AccessLog(#[from] LogError),
    /// An input cannot be read.
    #[error(transparent)]
    Input(#[from] InputError),
    /// Standard output cannot be written, or the operating system refused something else.
    #[error(transparent)]
    System(#[from] io::Error),
    /// Another job has failed, and its error is the one to tell.
    #[error("another job has failed")]
    Stopped,
    /// SIGINT or SIGTERM.
    #[error("ended by signal {0}")]
    Signal(u8),
    /// Writing would destroy this input.
    #[error("{path}: is both input and output", path = .0.display())]
    Overwrite(PathBuf),
    /// The arguments do not say what to do, or contradict each other.
    #[error("{0}")]
    Arguments(String),
    /// Envoy cannot be tapped.
    #[cfg(feature = "live")]
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// Another program cannot be started.
    #[error("{0}")]
    Program(String),
    /// An address given to `record` is not valid.
    #[cfg(feature = "record")]
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// `record` cannot set up TLS as it was told to.
    #[cfg(feature = "record")]
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Something else failed in `record`.
    #[cfg(feature = "record")]
    #[error("{what}")]
    Because {
        /// What could not be done, or the file that it was to be done with.
        what: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Error {
    /// The status that the program ends with. An error that people must be told of stays an error.
    pub(super) fn into_status(self) -> anyhow::Result<Status> {
        match self {
            Self::Signal(signal) => Ok(Status::Signal(signal)),
            // The reader of a pipe may stop when it has seen enough.
            Self::Output(error) if error.is_broken_pipe() => Ok(Status::Done),
            Self::System(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Status::Done),
            // A table in a directory, even if it is a pipe, is missed when it is not complete.
            Self::Table(path, error) if path == Path::new("-") && error.kind() == io::ErrorKind::BrokenPipe => {
                Ok(Status::Done)
            }
            error => Err(error.into()),
        }
    }

    /// An output at `path` cannot be written.
    pub(super) fn output(path: &Path, source: io::Error) -> Self {
        Self::Output(OutputError { path: path.to_owned(), source })
    }

    /// Whether only one output failed, so that the others of the same run can still be written.
    pub(super) fn spares_other_outputs(&self) -> bool {
        matches!(self, Self::Output(error) if !error.is_out_of_space())
    }
}

/// Says what an error was about.
#[cfg(feature = "record")]
pub(super) trait Because<T> {
    /// Puts `what` before the error.
    fn because<D: std::fmt::Display>(self, what: impl FnOnce() -> D) -> Result<T, Error>;
}

#[cfg(feature = "record")]
impl<T, E: Into<Box<dyn std::error::Error + Send + Sync>>> Because<T> for Result<T, E> {
    fn because<D: std::fmt::Display>(self, what: impl FnOnce() -> D) -> Result<T, Error> {
        self.map_err(|error| Error::Because { what: what().to_string(), source: error.into() })
    }
}
