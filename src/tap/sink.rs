//! The destinations of traces.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    task::{Context, Poll},
};

use super::TraceFormat;
use crate::proto::tap::TraceWrapper;

/// Receives the traces of all connections of one tap.
///
/// [`FilePerTap`] writes files as Envoy does, and [`PipeSink`](super::PipeSink) feeds a capture that is written while
/// the tap runs. Implement this trait for anything else that wants every [`TraceWrapper`] as it comes.
pub trait Sink: Send + Sync {
    /// Opens the trace of the connection with this id.
    fn open(&self, id: u64) -> Box<dyn TraceSink>;
}

/// Receives the trace of one connection.
pub trait TraceSink: Send {
    /// Whether there is room for the next read or write. While there is none, the tapped stream neither reads nor
    /// writes. [`TraceSink::submit`] may be called without room, for instance to close the trace.
    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    /// Takes one message: the only one of a buffered trace, or the next segment of a streamed one.
    ///
    /// # Errors
    /// The message could not be kept. The trace is given up: no further messages are submitted.
    fn submit(&mut self, trace: &TraceWrapper) -> io::Result<()>;
}

/// `envoy.config.tap.v3.FilePerTapSink`: `<path_prefix>_<id>.<suffix>`.
#[derive(Clone, Debug)]
pub struct FilePerTap {
    path_prefix: PathBuf,
    format: TraceFormat,
    mode: Option<u32>,
}

impl FilePerTap {
    /// The folders in `path_prefix` must exist. Only the owner can read the files, because they hold decrypted traffic.
    pub fn new(path_prefix: impl Into<PathBuf>, format: TraceFormat) -> Self {
        Self { path_prefix: path_prefix.into(), format, mode: None }
    }

    /// Gives the files these permissions, whatever the umask.
    #[must_use]
    pub fn with_mode(self, mode: u32) -> Self {
        Self { mode: Some(mode), ..self }
    }

    /// The id to begin with, so that no file of an earlier run has it: one more than the highest id in the name of a
    /// file with this prefix, in any format.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn next_id(&self) -> io::Result<u64> {
        let Some(prefix) = self.path_prefix.file_name() else { return Ok(0) };
        let folder = match self.path_prefix.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        let mut next = 0;
        for entry in fs::read_dir(folder)? {
            next = next.max(id_of(&entry?.file_name(), prefix).map_or(0, |id| id.saturating_add(1)));
        }
        Ok(next)
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

/// The id in the name of a trace, `<prefix>_<id>.<suffix>` or `<prefix>_<id>-<number>.<suffix>`, packed or not.
fn id_of(name: &OsStr, prefix: &OsStr) -> Option<u64> {
    let rest = name.as_encoded_bytes().strip_prefix(prefix.as_encoded_bytes())?.strip_prefix(b"_")?;
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    // A number that is too long for an id is not one that a trace file has.
    let id = std::str::from_utf8(&rest[..digits]).ok()?.parse().ok()?;
    matches!(rest.get(digits), Some(b'.' | b'-')).then_some(id)
}

impl Sink for FilePerTap {
    fn open(&self, id: u64) -> Box<dyn TraceSink> {
        let (path, format, mode) = (self.path(id), self.format, self.mode);
        Box::new(TraceFile { path, format, mode, file: None, encoded: Vec::new() })
    }
}

/// One trace file. Like Envoy's, it is created with the first message. Unlike Envoy's, it never replaces an older one,
/// and each message is written at once, so that a streamed trace can be read while it grows.
#[derive(Debug)]
struct TraceFile {
    path: PathBuf,
    mode: Option<u32>,
    format: TraceFormat,
    file: Option<File>,
    encoded: Vec<u8>,
}

impl TraceFile {
    /// The most memory that is kept for encoding between two messages. Otherwise 2,000 idle connections would each hold
    /// the size of their largest message.
    const KEPT: usize = 4 * 1024;
}

/// Creates the file. If there is one of that name already, a number is added to the name.
fn create(path: &mut PathBuf, mode: Option<u32>) -> io::Result<File> {
    let (stem, suffix) =
        (path.file_stem().unwrap_or_default().to_owned(), path.extension().unwrap_or_default().to_owned());
    let mut number = 1_u32;
    loop {
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&*path) {
            Ok(file) => {
                if let Some(mode) = mode {
                    file.set_permissions(Permissions::from_mode(mode))?;
                }
                return Ok(file);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < u32::MAX => {
                number += 1;
                let mut name = stem.clone();
                name.push(format!("-{number}."));
                name.push(&suffix);
                path.set_file_name(name);
            }
            Err(error) => return Err(error),
        }
    }
}

impl TraceSink for TraceFile {
    fn submit(&mut self, trace: &TraceWrapper) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            missing => {
                let created = create(&mut self.path, self.mode);
                missing.insert(
                    created
                        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", self.path.display())))?,
                )
            }
        };
        self.encoded.clear();
        self.encoded.shrink_to(Self::KEPT);
        self.format.encode(trace, &mut self.encoded);
        file.write_all(&self.encoded)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", self.path.display())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_go_on_after_the_highest_of_earlier_traces() {
        let folder = tempfile::tempdir().unwrap();
        let sink = FilePerTap::new(folder.path().join("tap"), TraceFormat::ProtoBinary);
        assert_eq!(sink.next_id().unwrap(), 0);
        for name in ["tap_3.pb", "tap_12.json.gz", "tap_7-2.pb", "tap_99", "tap_x.pb", "other_70.pb", "tap_70x.pb"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        assert_eq!(sink.next_id().unwrap(), 13);
        fs::write(folder.path().join("tap_20.pb"), "older").unwrap();
        let mut trace = sink.open(20);
        trace.submit(&TraceWrapper::default()).unwrap();
        assert_eq!(fs::read(sink.path(20)).unwrap(), b"older");
        let new = folder.path().join("tap_20-2.pb");
        assert_eq!(fs::metadata(new).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
