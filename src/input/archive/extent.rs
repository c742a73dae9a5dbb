//! Bytes that can be read again: a file, a part of one, or a part of the temporary file.

use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::FileExt,
    path::Path,
    sync::Arc,
};

use crate::{input::reader::Slot, interrupt};

/// Bytes that are next to each other in a file. However many extents there are, those of the temporary file share one
/// descriptor, and of the others only a few are open at once.
#[derive(Clone, Debug)]
pub(in crate::input) struct Extent {
    store: Store,
    start: u64,
    len: u64,
}

#[derive(Clone, Debug)]
enum Store {
    Path(Arc<Path>),
    /// The temporary file, which has no name.
    Open(Arc<File>),
}

impl Extent {
    /// A whole file.
    pub(in crate::input) fn of_file(path: &Path) -> io::Result<Self> {
        Ok(Self { store: Store::Path(path.into()), start: 0, len: fs::metadata(path)?.len() })
    }

    /// A part of a file that has no name.
    pub(super) fn of_open(file: Arc<File>, start: u64, len: u64) -> Self {
        Self { store: Store::Open(file), start, len }
    }

    pub(in crate::input) fn len(&self) -> u64 {
        self.len
    }

    /// A part of it, as far as it reaches.
    pub(super) fn part(&self, start: u64, len: u64) -> Self {
        let start = start.min(self.len);
        Self { store: self.store.clone(), start: self.start + start, len: len.min(self.len - start) }
    }

    /// Reads it from its start.
    pub(super) fn reader(&self) -> ExtentReader {
        ExtentReader { extent: self.clone(), at: 0, file: None }
    }

    /// The same bytes for the reader of the ZIP format. The file stays open.
    pub(super) fn opened(&self) -> io::Result<OpenExtent> {
        let file = match &self.store {
            Store::Path(path) => Arc::new(interrupt::open(path)?),
            Store::Open(file) => Arc::clone(file),
        };
        Ok(OpenExtent { file, start: self.start, len: self.len })
    }
}

/// Reads an extent. Between two reads, its file may be closed.
pub(super) struct ExtentReader {
    extent: Extent,
    at: u64,
    file: Option<(File, Slot)>,
}

impl Read for ExtentReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.extent.len.saturating_sub(self.at);
        let room = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let (buffer, at) = (&mut buffer[..room], self.extent.start + self.at);
        let count = match (&self.extent.store, &self.file) {
            (Store::Open(file), _) => file.read_at(buffer, at)?,
            (Store::Path(_), Some((file, _))) => file.read_at(buffer, at)?,
            (Store::Path(path), None) => {
                let file = interrupt::open(path)?;
                let count = file.read_at(buffer, at)?;
                self.file = Slot::take().map(|slot| (file, slot));
                count
            }
        };
        self.at += count as u64;
        Ok(count)
    }
}

impl Seek for ExtentReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.extent.len.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

/// An extent whose file is open.
pub(super) struct OpenExtent {
    file: Arc<File>,
    start: u64,
    len: u64,
}

impl rawzip::ReaderAt for OpenExtent {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let left = usize::try_from(self.len.saturating_sub(offset)).unwrap_or(usize::MAX);
        let room = left.min(buffer.len());
        if room == 0 { Ok(0) } else { self.file.read_at(&mut buffer[..room], self.start + offset) }
    }
}
