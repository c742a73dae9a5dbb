//! Where traces go.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
};

use super::Format;
use crate::proto::tap::TraceWrapper;

/// Receives the traces of all connections of one tap.
///
/// [`FilePerTap`] writes files as Envoy does. Anything else that wants every [`TraceWrapper`] as it comes, such as a
/// capture written while the tap runs, is another implementation.
pub trait Sink: Send + Sync {
    /// A connection with this id is tapped from now on.
    fn open(&self, id: u64) -> Box<dyn TraceSink>;
}

/// Receives the trace of one connection.
pub trait TraceSink: Send {
    /// Takes one message: the only one of a buffered trace, or the next segment of a streamed one.
    ///
    /// # Errors
    /// The message, and those after it, are not kept.
    fn submit(&mut self, trace: &TraceWrapper) -> io::Result<()>;
}

/// `envoy.config.tap.v3.FilePerTapSink`: `<path_prefix>_<id>.<suffix>`.
#[derive(Clone, Debug)]
pub struct FilePerTap {
    path_prefix: PathBuf,
    format: Format,
}

impl FilePerTap {
    /// Folders in `path_prefix` must exist.
    pub fn new(path_prefix: impl Into<PathBuf>, format: Format) -> Self {
        Self { path_prefix: path_prefix.into(), format }
    }

    /// The file of the connection with this id.
    #[must_use]
    pub fn path(&self, id: u64) -> PathBuf {
        let mut path = OsString::from(&self.path_prefix);
        path.push(format!("_{id}.{}", self.format.suffix()));
        path.into()
    }

    /// What the paths start with.
    #[must_use]
    pub fn path_prefix(&self) -> &Path {
        &self.path_prefix
    }
}

impl Sink for FilePerTap {
    fn open(&self, id: u64) -> Box<dyn TraceSink> {
        Box::new(TraceFile { path: self.path(id), format: self.format, file: None, encoded: Vec::new() })
    }
}

/// One trace file. Like Envoy's, it comes into being with the first message, and replaces an older one. Unlike
/// Envoy's, each message is written at once, so that a streamed trace can be read while it grows.
#[derive(Debug)]
struct TraceFile {
    path: PathBuf,
    format: Format,
    file: Option<File>,
    encoded: Vec<u8>,
}

impl TraceFile {
    /// Above this, the room for the encoded message is given back: 2,000 idle connections shall not hold on to the
    /// size of their largest message.
    const KEPT: usize = 4 * 1024;
}

impl TraceSink for TraceFile {
    fn submit(&mut self, trace: &TraceWrapper) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(
                File::create(&self.path)
                    .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", self.path.display())))?,
            ),
        };
        self.encoded.clear();
        self.encoded.shrink_to(Self::KEPT);
        self.format.encode(trace, &mut self.encoded);
        file.write_all(&self.encoded)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", self.path.display())))
    }
}
