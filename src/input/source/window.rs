//! The window that slides over a source: the bytes that were read and are still needed.

use std::{
    io::{self, Read},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// The default of bytes per read: several times what a pipe holds, and little enough for a core's cache.
const READ: usize = 256 * 1024;

/// The first read of a source asks for no more than this, because most of ten thousand traces are small, and to clear
/// the memory of a large read takes longer than to convert such a trace.
const FIRST_READ: usize = 16 * 1024;

/// A reader, and a buffer of a few hundred KiB or of the largest message.
pub(super) struct Window {
    reader: Box<dyn Read + Send>,
    /// If the reader unpacks a file, counts the bytes read from the file itself.
    packed: Option<Arc<AtomicU64>>,
    buffer: Vec<u8>,
    /// The window is `buffer[start..end]`.
    start: usize,
    end: usize,
    /// Offset in the source of `buffer[start]`.
    offset: u64,
    at_end: bool,
    /// The most bytes per read.
    read_size: usize,
    /// Bytes of the next read. It doubles when a read has filled it.
    next_read: usize,
    /// The most bytes that the window may have to hold at once.
    most: usize,
}

impl Window {
    /// An empty window. A read asks for `read_size` bytes, and the window may have to hold up to `most`.
    pub(super) fn new(reader: Box<dyn Read + Send>, read_size: Option<usize>, most: usize) -> Self {
        // Less would leave no room for a read.
        let read_size = read_size.unwrap_or(READ).max(64);
        Self {
            reader,
            packed: None,
            buffer: Vec::new(),
            start: 0,
            end: 0,
            offset: 0,
            at_end: false,
            read_size,
            next_read: read_size.min(FIRST_READ),
            most,
        }
    }

    /// Sets the counter of bytes read from the file that the reader unpacks.
    pub(super) fn count_packed(&mut self, count: Arc<AtomicU64>) {
        self.packed = Some(count);
    }

    #[inline]
    pub(super) fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether nothing follows the window.
    #[inline]
    pub(super) fn at_end(&self) -> bool {
        self.at_end
    }

    /// Offset in the source of the window's first byte.
    #[inline]
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Bytes read so far. For a packed file, they are counted before unpacking.
    pub(super) fn bytes_read(&self) -> u64 {
        let unpacked = || self.offset + self.len() as u64;
        self.packed.as_ref().map_or_else(unpacked, |count| count.load(Ordering::Relaxed))
    }

    /// Whether the window has the bytes of a full read, or all that are left of the source.
    pub(super) fn holds_a_read(&self) -> bool {
        self.at_end || self.len() >= self.read_size
    }

    /// Gives up the first `count` bytes.
    #[inline]
    pub(super) fn consume(&mut self, count: usize) {
        self.start += count;
        self.offset += count as u64;
    }

    /// Ends the source after the bytes in the window, because it cannot be read any further.
    pub(super) fn end_here(&mut self) {
        self.at_end = true;
    }

    /// Makes room, and appends the bytes of one read.
    pub(super) fn read(&mut self) -> io::Result<()> {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        // The buffer grows with the bytes that have arrived, not with the length that a message claims.
        let size = self.next_read;
        if self.buffer.len() - self.end < size / 2 {
            let most = self.most.saturating_add(size);
            self.buffer.resize((self.end * 2).min(most).max(self.end + size), 0);
        }
        // However much room there is, no more bytes are read: if all of them are damaged, each few bytes add a finding.
        let room = self.buffer.len().min(self.end + size);
        loop {
            match self.reader.read(&mut self.buffer[self.end..room]) {
                Ok(0) => {
                    self.at_end = true;
                    self.reader = Box::new(io::empty());
                }
                Ok(count) => {
                    self.end += count;
                    if self.end == room {
                        self.next_read = (2 * size).min(self.read_size);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            return Ok(());
        }
    }
}
