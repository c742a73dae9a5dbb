//! The bytes of a source that were read and are not done with: a window that slides over it.

use std::{
    io::{self, Read},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// Bytes that one read asks for: what a pipe holds several times over, and what fits a core's cache.
const READ: usize = 256 * 1024;

/// A reader, and a buffer of a few hundred KiB or of the largest message.
pub(super) struct Window {
    reader: Box<dyn Read + Send>,
    /// Bytes that were read of the file itself.
    packed: Option<Arc<AtomicU64>>,
    buffer: Vec<u8>,
    /// The window is `buffer[start..end]`.
    start: usize,
    end: usize,
    /// Offset in the source of `buffer[start]`.
    offset: u64,
    at_end: bool,
    /// Bytes that one read asks for.
    read_size: usize,
    /// Bytes that the window may have to hold at once.
    most: usize,
}

impl Window {
    /// A window that is empty. `read_size` is what one read asks for, and `most` what the window may have to hold.
    pub(super) fn new(reader: Box<dyn Read + Send>, read_size: Option<usize>, most: usize) -> Self {
        Self {
            reader,
            packed: None,
            buffer: Vec::new(),
            start: 0,
            end: 0,
            offset: 0,
            at_end: false,
            // Less would leave no room for a read.
            read_size: read_size.unwrap_or(READ).max(64),
            most,
        }
    }

    /// The reader unpacks a file, of which so many bytes were read.
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

    /// Bytes that were read; of a packed file, as they lie there.
    pub(super) fn bytes_read(&self) -> u64 {
        let unpacked = || self.offset + self.len() as u64;
        self.packed.as_ref().map_or_else(unpacked, |count| count.load(Ordering::Relaxed))
    }

    /// Whether one read's worth of bytes, or all that there are, are in the window.
    pub(super) fn holds_a_read(&self) -> bool {
        self.at_end || self.len() >= self.read_size
    }

    /// Slides over so many bytes.
    #[inline]
    pub(super) fn consume(&mut self, count: usize) {
        self.start += count;
        self.offset += count as u64;
    }

    /// The source cannot be read on.
    pub(super) fn end_here(&mut self) {
        self.at_end = true;
    }

    /// One read after the bytes that are there, after making room for it.
    pub(super) fn read(&mut self) -> io::Result<()> {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        // Growing with what really arrived, not with what a message claims: a length is only a claim.
        if self.buffer.len() - self.end < self.read_size / 2 {
            let most = self.most.saturating_add(self.read_size);
            self.buffer.resize((self.end * 2).min(most).max(self.end + self.read_size), 0);
        }
        // No more than one read brings, however much room there is: what is in the window may all be damage.
        let room = self.buffer.len().min(self.end + self.read_size);
        loop {
            match self.reader.read(&mut self.buffer[self.end..room]) {
                Ok(0) => {
                    self.at_end = true;
                    self.reader = Box::new(io::empty());
                }
                Ok(count) => self.end += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            return Ok(());
        }
    }
}
