//! Where a capture goes. A file appears under its name only when it is complete; a pipe gets the bytes as they come.
//!
//! A thread writes full chunks while the next one is filled, and gives their memory back. The first full chunk starts
//! it, so that small captures, of which there may be thousands, need no thread.

mod access;
mod disk;
mod pack;
mod place;

use std::{
    fmt,
    fs::{File, Metadata, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread::JoinHandle,
};

use tempfile::TempPath;
use thiserror::Error;

pub use self::{access::Access, pack::OutputPacking};
#[cfg(feature = "record")]
pub(crate) use access::create_folders;
pub(crate) use disk::sync_outputs;

use self::{pack::Encoder, place::OutputPlace};
use super::PacketBuffer;
use crate::interrupt;

/// How many chunks may be on their way to the destination at once.
const CHUNKS: usize = 4;

/// How a capture's temporary name begins. The dot hides the file. Its suffix, `.tmp`, is not that of a trace or a
/// capture.
pub(super) const TEMPORARY_PREFIX: &str = ".tap2pcap-";

/// A capture's destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Standard output.
    Stdout,
    /// A file, or a device or pipe with a name.
    File(PathBuf),
}

impl Destination {
    /// What a name on the command line stands for: `-` is standard output.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        if path == Path::new("-") { Self::Stdout } else { Self::File(path.to_owned()) }
    }

    /// The name on the command line.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Stdout => Path::new("-"),
            Self::File(path) => path,
        }
    }

    /// The path, unless this is standard output.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::Stdout => None,
            Self::File(path) => Some(path),
        }
    }

    /// Whether this is a directory, in which each input gets an output of its own. As for cp, it exists or its name
    /// ends in a slash.
    pub(crate) fn is_directory(&self) -> bool {
        self.file().is_some_and(|path| path.is_dir() || path.as_os_str().as_encoded_bytes().ends_with(b"/"))
    }

    /// Whether the destination gets the bytes as they come: standard output under any name, a pipe, a device.
    #[must_use]
    pub fn is_stream(&self) -> bool {
        match self {
            Self::Stdout => true,
            Self::File(path) => OutputPlace::of(path).is_ok_and(|place| !place.is_file()),
        }
    }
}

/// How an output is created and written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutputOptions {
    /// Who may read it.
    pub access: Access,
    /// How it is packed.
    pub packing: OutputPacking,
    /// Whether a read-only file is replaced.
    pub force: bool,
    /// Whether this is one of many outputs in a directory. The caller waits for the disk once, when all are complete,
    /// so that each output need not.
    pub many: bool,
    /// Whether the output's directory is new, so that nothing can be in its place. That saves a look, which takes as
    /// long as the writing of a small capture.
    pub in_new_directory: bool,
}

/// The destination is a read-only file, and [`OutputOptions::force`] is not set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the file is read-only")]
pub(crate) struct ReadOnlyOutput;

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
    /// The reason without the path.
    #[must_use]
    pub fn into_io(self) -> io::Error {
        self.source
    }

    /// Whether the destination's disk or quota is full, or its file system is read-only.
    #[must_use]
    pub fn is_out_of_space(&self) -> bool {
        use io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
        matches!(self.source.kind(), StorageFull | QuotaExceeded | ReadOnlyFilesystem)
    }

    /// Whether the reader of a pipe has closed it, which is no fault.
    #[must_use]
    pub fn is_broken_pipe(&self) -> bool {
        self.source.kind() == io::ErrorKind::BrokenPipe
    }
}

pub(crate) struct Output {
    /// The path as the user typed it, for errors.
    path: PathBuf,
    /// `None` while the writing thread has it, and after an error of that thread.
    sink: Option<PackedFile>,
    unfinished: Option<UnfinishedFile>,
    writer: Option<WriterThread>,
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output").field("path", &self.path).field("unfinished", &self.unfinished).finish_non_exhaustive()
    }
}

struct WriterThread {
    full: SyncSender<PacketBuffer>,
    empty: Receiver<PacketBuffer>,
    thread: JoinHandle<io::Result<PackedFile>>,
}

/// A packed or plain destination.
struct PackedFile(Encoder<Target>);

/// The file under the encoder.
struct Target {
    file: File,
    /// A stream's reader may keep the writer waiting.
    is_stream: bool,
    /// Discards all further bytes: an encoder that is dropped ends its data, which would make a cut file look complete.
    abandoned: bool,
}

impl PackedFile {
    fn new(file: File, is_stream: bool, packing: OutputPacking) -> io::Result<Self> {
        Encoder::new(packing, Target { file, is_stream, abandoned: false }).map(Self)
    }

    fn write_chunk(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)?;
        // A pipe's reader is waiting for these bytes.
        if self.0.get_mut().is_stream { self.0.flush() } else { Ok(()) }
    }

    fn finish(self) -> io::Result<File> {
        self.0.finish().map(|target| target.file)
    }

    fn abandon(mut self) {
        self.0.get_mut().abandoned = true;
    }
}

impl Write for Target {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        /// As much as a pipe holds. Each piece shows `interrupt` that a slow reader still reads.
        const PIECE: usize = 64 * 1024;
        if self.abandoned {
            return Ok(bytes.len());
        }
        if !self.is_stream {
            return self.file.write(bytes);
        }
        let _waiting = interrupt::waiting();
        self.file.write(&bytes[..bytes.len().min(PIECE)])
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Output {
    pub(crate) fn create(destination: &Destination, options: OutputOptions) -> Result<Self, OutputError> {
        let path = destination.path().to_owned();
        let opened = match destination {
            Destination::Stdout => place::duplicate(&path, 1).map(|file| (file, None)),
            Destination::File(path) => open(path, options),
        };
        let created = opened.and_then(|(file, unfinished)| {
            let sink = PackedFile::new(file, unfinished.is_none(), options.packing)?;
            Ok(Self { path: path.clone(), sink: Some(sink), unfinished, writer: None })
        });
        created.map_err(|source| OutputError { path, source })
    }

    /// Another handle for the pipe or device that the bytes go to, before the first of them.
    #[cfg(feature = "live")]
    pub(super) fn pipe(&mut self) -> Option<std::os::fd::OwnedFd> {
        let target = self.sink.as_mut()?.0.get_mut();
        // Without it, the end of the reader shows with the next write.
        target.is_stream.then(|| target.file.try_clone().map(Into::into).ok()).flatten()
    }

    /// Whether the destination gets the bytes as they come.
    pub(crate) fn is_stream(&self) -> bool {
        self.unfinished.is_none()
    }

    /// The path as the user typed it.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Adds the path to an error.
    pub(crate) fn error(&self, source: io::Error) -> OutputError {
        OutputError { path: self.path.clone(), source }
    }

    /// Takes the bytes of `buffer` and leaves it empty.
    pub(crate) fn write(&mut self, buffer: &mut PacketBuffer) -> Result<(), OutputError> {
        let sent = self.writer().map_or_else(Err, |writer| {
            let fresh = writer.empty.recv().unwrap_or_default();
            let full = std::mem::replace(buffer, fresh);
            // The thread hangs up only after an error, which `join` returns.
            Ok(writer.full.send(full).is_ok())
        });
        match sent {
            Ok(true) => Ok(()),
            Ok(false) => self.join(),
            Err(error) => Err(self.error(error)),
        }
    }

    /// Writes the bytes of `buffer` in this thread, and leaves it empty. It takes longer than [`Self::write`], but tells at
    /// once that the reader of a pipe is gone.
    pub(crate) fn write_here(&mut self, buffer: &mut PacketBuffer) -> Result<(), OutputError> {
        self.join()?;
        let written = match &mut self.sink {
            Some(sink) => sink.write_chunk(buffer.as_bytes()),
            None => Err(io::Error::other("an earlier write failed")),
        };
        buffer.clear();
        written.map_err(|source| self.error(source))
    }

    fn writer(&mut self) -> io::Result<&mut WriterThread> {
        if self.writer.is_none() {
            let Some(mut sink) = self.sink.take() else {
                return Err(io::Error::other("an earlier write failed"));
            };
            let (full, incoming) = sync_channel::<PacketBuffer>(CHUNKS);
            let (outgoing, empty) = sync_channel(CHUNKS);
            for _ in 0..CHUNKS {
                // This cannot fail: the receiver is in this function.
                let _ = outgoing.send(PacketBuffer::default());
            }
            let thread = std::thread::Builder::new().name("capture writer".into()).spawn(move || {
                for mut chunk in incoming {
                    sink.write_chunk(chunk.as_bytes())?;
                    chunk.clear();
                    // The other side hangs up when it needs no more chunks.
                    let _ = outgoing.send(chunk);
                }
                Ok(sink)
            })?;
            self.writer = Some(WriterThread { full, empty, thread });
        }
        Ok(self.writer.as_mut().expect("set above"))
    }

    /// Does nothing: the thread writes each chunk at once.
    pub(crate) fn flush(&mut self) -> Result<(), OutputError> {
        Ok(())
    }

    fn join(&mut self) -> Result<(), OutputError> {
        let Some(WriterThread { full, empty, thread }) = self.writer.take() else { return Ok(()) };
        drop(full);
        drop(empty);
        match thread.join() {
            Ok(Ok(sink)) => self.sink = Some(sink),
            Ok(Err(error)) => return Err(self.error(error)),
            Err(_) => return Err(self.error(io::Error::other("the writing thread failed"))),
        }
        Ok(())
    }

    /// Writes the last bytes and puts the file in its place.
    pub(crate) fn finish(self, rest: &PacketBuffer) -> Result<(), OutputError> {
        self.complete(rest)?.put_in_place()
    }

    /// Writes the last bytes.
    pub(crate) fn complete(mut self, rest: &PacketBuffer) -> Result<CompleteOutput, OutputError> {
        self.join()?;
        let unfinished = self.unfinished.take();
        let written = match self.sink.take() {
            Some(mut sink) => sink.write_chunk(rest.as_bytes()).and_then(|()| sink.finish()),
            None => Err(io::Error::other("an earlier write failed")),
        };
        match written.and_then(|file| unfinished.map(|unfinished| unfinished.complete(&file)).transpose()) {
            Ok(file) => Ok(CompleteOutput { path: std::mem::take(&mut self.path), file }),
            Err(error) => Err(self.error(error)),
        }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        // The thread must not outlive the file that it writes to. Its errors no longer matter.
        let _ = self.join();
        if let Some(sink) = self.sink.take() {
            sink.abandon();
        }
    }
}

/// The name of a temporary file, whose bytes an [`Output`] writes; dropping it deletes the file.
#[derive(Debug)]
struct UnfinishedFile {
    temporary: TempPath,
    target: PathBuf,
    many: bool,
    _registered: interrupt::TemporaryPath,
}

impl UnfinishedFile {
    fn create(target: PathBuf, existing: Option<&Metadata>, options: OutputOptions) -> io::Result<(File, Self)> {
        if let Some(metadata) = existing
            && !options.force
            && access::is_read_only(&target, metadata)
        {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, ReadOnlyOutput));
        }
        let mut builder = tempfile::Builder::new();
        builder.prefix(TEMPORARY_PREFIX).suffix(".tmp");
        let mode = options.access.at_creation(existing.is_some());
        let mut reason = None;
        let created = builder.make_in(folder(&target), |path| {
            let opened = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
            opened.inspect_err(|error| reason = error.raw_os_error())
        });
        // Only the system's reason is kept: `tempfile` adds the temporary name, which the user does not know.
        let temporary = created.map_err(|error| reason.map_or(error, io::Error::from_raw_os_error))?;
        let replaced = existing.map(|metadata| (&*target, metadata));
        access::apply(options.access, temporary.as_file(), replaced)?;
        let registered = interrupt::TemporaryPath::new(temporary.path());
        let (file, temporary) = temporary.into_parts();
        Ok((file, Self { temporary, target, many: options.many, _registered: registered }))
    }

    /// The bytes of the file reach the disk before it has its name: after a power cut, either the old file is there or
    /// the whole new one.
    fn complete(self, file: &File) -> io::Result<CompleteFile> {
        let Self { temporary, target, many, _registered } = self;
        if !many {
            file.sync_all()?;
        }
        Ok(CompleteFile { temporary, target, many, _registered })
    }
}

/// An output that has all its bytes, but not its name. Dropping it deletes it.
#[derive(Debug)]
pub(crate) struct CompleteOutput {
    path: PathBuf,
    /// A stream needs no name.
    file: Option<CompleteFile>,
}

impl CompleteOutput {
    /// Gives a file its name.
    pub(super) fn put_in_place(self) -> Result<(), OutputError> {
        let Self { path, file } = self;
        file.map_or(Ok(()), CompleteFile::put_in_place).map_err(|source| OutputError { path, source })
    }
}

/// Gives files their names, all of them or none. If one cannot get its name, those before it lose theirs, and what they
/// have replaced is back.
pub(crate) fn put_all_in_place(outputs: Vec<CompleteOutput>) -> Result<(), OutputError> {
    let mut placed = Vec::new();
    for output in outputs {
        let replaced = output.file.as_ref().map(Replaced::keep);
        let result = output.put_in_place();
        if result.is_err() {
            // Their own errors would add nothing.
            placed.into_iter().rev().flatten().for_each(Replaced::put_back);
            return result;
        }
        placed.push(replaced);
    }
    Ok(())
}

/// What was in the place of an output.
enum Replaced {
    /// A file, which has this name too until this is dropped.
    File(PathBuf, TempPath),
    /// A file, on a file system without hard links or of somebody whose files nobody else may link.
    Unkept,
    Nothing(PathBuf),
}

impl Replaced {
    /// Keeps the file that `new` will replace.
    fn keep(new: &CompleteFile) -> Self {
        let target = &new.target;
        if target.symlink_metadata().is_err() {
            return Self::Nothing(target.clone());
        }
        let mut builder = tempfile::Builder::new();
        builder.prefix(TEMPORARY_PREFIX).suffix(".tmp");
        match builder.make_in(folder(target), |path| std::fs::hard_link(target, path)) {
            Ok(kept) => Self::File(target.clone(), kept.into_temp_path()),
            Err(_) => Self::Unkept,
        }
    }

    fn put_back(self) {
        let _ = match self {
            Self::File(target, kept) => kept.persist(target).map_err(|error| error.error),
            // The new file is better than none.
            Self::Unkept => Ok(()),
            Self::Nothing(target) => std::fs::remove_file(target),
        };
    }
}

/// A closed file under its temporary name.
#[derive(Debug)]
struct CompleteFile {
    temporary: TempPath,
    target: PathBuf,
    many: bool,
    _registered: interrupt::TemporaryPath,
}

impl CompleteFile {
    fn put_in_place(self) -> io::Result<()> {
        self.temporary.persist(&self.target).map_err(|error| error.error)?;
        if !self.many {
            disk::sync_names(folder(&self.target));
        }
        Ok(())
    }
}

/// The file that an output to `path` would be, whichever links lead to it; `None` if it is no file.
pub(crate) fn file_at(path: &Path) -> Option<PathBuf> {
    match OutputPlace::of(path).ok()? {
        OutputPlace::File(target, _) => Some(folder(&target).canonicalize().ok()?.join(target.file_name()?)),
        OutputPlace::Descriptor(..) | OutputPlace::Stream(_) => None,
    }
}

/// The directory that a path is in.
pub(crate) fn folder(target: &Path) -> &Path {
    match target.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

fn open(path: &Path, options: OutputOptions) -> io::Result<(File, Option<UnfinishedFile>)> {
    let place = match options.in_new_directory {
        true => OutputPlace::File(path.to_owned(), None),
        false => OutputPlace::of(path)?,
    };
    match place {
        OutputPlace::Descriptor(path, number) => Ok((place::duplicate(&path, number)?, None)),
        OutputPlace::Stream(path) => {
            let _waiting = interrupt::waiting();
            Ok((place::open_stream(&path)?, None))
        }
        OutputPlace::File(target, existing) => {
            let (file, unfinished) = UnfinishedFile::create(target, existing.as_ref(), options)?;
            Ok((file, Some(unfinished)))
        }
    }
}
