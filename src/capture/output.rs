//! Where a capture goes. A file appears under its name only when it is complete; a pipe gets the bytes as they come.
//!
//! Writing overlaps with the work before it: a thread of its own takes full chunks, and gives their memory back. It is
//! started by the first full chunk, so that small captures, of which there may be thousands, go without.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread::JoinHandle,
};

use tempfile::NamedTempFile;
use thiserror::Error;

use super::Chunk;

/// Chunks on their way to the destination at any time.
const CHUNKS: usize = 4;

/// How unfinished captures are called until they are complete; hidden, and no suffix of a trace or capture.
pub const TEMPORARY_PREFIX: &str = ".tap2pcap-";

/// A capture's destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Standard output.
    Stdout,
    /// A file, or a device or pipe with a name.
    File(PathBuf),
}

/// The destination cannot be written.
#[derive(Debug, Error)]
#[error("{path}: cannot write the capture", path = path.display())]
pub struct OutputError {
    /// The destination, `-` for standard output.
    pub path: PathBuf,
    /// The operating system's reason.
    #[source]
    pub source: io::Error,
}

impl OutputError {
    /// The reason alone.
    #[must_use]
    pub fn into_io(self) -> io::Error {
        self.source
    }

    /// Whether the destination's disk or quota is full, or it cannot be written at all.
    #[must_use]
    pub fn is_out_of_space(&self) -> bool {
        use io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
        matches!(self.source.kind(), StorageFull | QuotaExceeded | ReadOnlyFilesystem)
    }

    /// Whether the reader of a pipe has gone, which is its right.
    #[must_use]
    pub fn is_broken_pipe(&self) -> bool {
        self.source.kind() == io::ErrorKind::BrokenPipe
    }
}

#[derive(Debug)]
pub(crate) struct Output {
    path: PathBuf,
    file: File,
    /// The file under its temporary name; dropping it deletes it.
    temporary: Option<(NamedTempFile, PathBuf)>,
    writer: Option<Writer>,
}

#[derive(Debug)]
struct Writer {
    full: SyncSender<Chunk>,
    empty: Receiver<Chunk>,
    thread: JoinHandle<io::Result<()>>,
}

impl Output {
    pub(crate) fn create(destination: &Destination) -> Result<Self, OutputError> {
        let path = match destination {
            Destination::Stdout => PathBuf::from("-"),
            Destination::File(path) => path.clone(),
        };
        let opened = match destination {
            // Not io::stdout(): that one looks for line ends.
            Destination::Stdout => io::stdout().as_fd().try_clone_to_owned().map(|fd| (File::from(fd), None)),
            Destination::File(path) => open(path),
        };
        match opened {
            Ok((file, temporary)) => Ok(Self { path, file, temporary, writer: None }),
            Err(source) => Err(OutputError { path, source }),
        }
    }

    fn error(&self, source: io::Error) -> OutputError {
        OutputError { path: self.path.clone(), source }
    }

    /// Takes the bytes of `buffer` and leaves it empty.
    pub(crate) fn write(&mut self, buffer: &mut Chunk) -> Result<(), OutputError> {
        let sent = self.writer().map_or_else(Err, |writer| {
            let fresh = writer.empty.recv().unwrap_or_default();
            let full = std::mem::replace(buffer, fresh);
            // The thread hangs up only after an error, which joining it tells.
            Ok(writer.full.send(full).is_ok())
        });
        match sent {
            Ok(true) => Ok(()),
            Ok(false) => self.join(),
            Err(error) => Err(self.error(error)),
        }
    }

    fn writer(&mut self) -> io::Result<&mut Writer> {
        if self.writer.is_none() {
            let mut file = self.file.try_clone()?;
            let (full, incoming) = sync_channel::<Chunk>(CHUNKS);
            let (outgoing, empty) = sync_channel(CHUNKS);
            for _ in 0..CHUNKS {
                // Its receiver is in this function.
                let _ = outgoing.send(Chunk::default());
            }
            let thread = std::thread::Builder::new().name("capture writer".into()).spawn(move || {
                for mut chunk in incoming {
                    file.write_all(chunk.as_bytes())?;
                    chunk.clear();
                    // The other side hangs up when it needs no more chunks.
                    let _ = outgoing.send(chunk);
                }
                Ok(())
            })?;
            self.writer = Some(Writer { full, empty, thread });
        }
        Ok(self.writer.as_mut().expect("set above"))
    }

    /// Nothing waits here: the thread writes what it is given at once.
    pub(crate) fn flush(&mut self) -> Result<(), OutputError> {
        Ok(())
    }

    fn join(&mut self) -> Result<(), OutputError> {
        let Some(Writer { full, empty, thread }) = self.writer.take() else { return Ok(()) };
        drop(full);
        drop(empty);
        match thread.join() {
            Ok(result) => result.map_err(|error| self.error(error)),
            Err(_) => Err(self.error(io::Error::other("the writing thread failed"))),
        }
    }

    /// Writes the last bytes and puts the file in its place.
    pub(crate) fn finish(mut self, rest: &Chunk) -> Result<(), OutputError> {
        self.join()?;
        let mut file = &self.file;
        file.write_all(rest.as_bytes()).map_err(|error| self.error(error))?;
        if let Some((temporary, target)) = self.temporary.take() {
            temporary.persist(target).map_err(|error| self.error(error.error))?;
        }
        Ok(())
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        // The thread must not outlive the file it writes to, and nobody wants to hear of its errors any more.
        let _ = self.join();
    }
}

type Opened = (File, Option<(NamedTempFile, PathBuf)>);

fn open(path: &Path) -> io::Result<Opened> {
    match fs::metadata(path) {
        // Devices and pipes are written to as they are; so are files that a rename would tear from their name.
        Ok(metadata) if !metadata.is_file() => {
            if metadata.is_dir() {
                return Err(io::ErrorKind::IsADirectory.into());
            }
            Ok((OpenOptions::new().write(true).open(path)?, None))
        }
        // A symbolic link stays one: the file behind it is replaced.
        Ok(_) => temporary(&fs::canonicalize(path)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => temporary(path),
        Err(error) => Err(error),
    }
}

fn temporary(target: &Path) -> io::Result<Opened> {
    let directory = match target.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let name = target.file_name().map(|_| target.to_owned()).ok_or(io::ErrorKind::InvalidInput)?;
    let mut builder = tempfile::Builder::new();
    builder.prefix(TEMPORARY_PREFIX).suffix(".tmp");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // What the umask leaves of it, as for any new file.
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    let temporary = builder.tempfile_in(directory)?;
    let file = temporary.as_file().try_clone()?;
    Ok((file, Some((temporary, name))))
}
