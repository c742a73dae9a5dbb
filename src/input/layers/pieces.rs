//! The buffers of a layer that changes text as it comes.

use std::io::{self, Read};

/// Bytes that are read at once.
const READ: usize = 64 * 1024;

/// What was read and not used, and what is given out.
pub(super) struct Pieces {
    inside: Box<dyn Read + Send>,
    /// Room for a read, cleared once: the layer below may give a few bytes at a time.
    room: Box<[u8]>,
    raw: Vec<u8>,
    out: Vec<u8>,
    out_at: usize,
    ended: bool,
}

impl Pieces {
    pub(super) fn new(inside: Box<dyn Read + Send>) -> Self {
        let room = vec![0; READ].into_boxed_slice();
        Self { inside, room, raw: Vec::new(), out: Vec::new(), out_at: 0, ended: false }
    }

    pub(super) fn wants_more(&self) -> bool {
        self.out_at == self.out.len() && !self.ended
    }

    /// What is there after one more read, and whether that is all.
    pub(super) fn fill(&mut self) -> io::Result<(Vec<u8>, bool)> {
        let count = loop {
            match self.inside.read(&mut self.room) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // What waits is passed on first.
                Err(error) if !self.raw.is_empty() => {
                    self.inside = Box::new(super::Failed(Some(error)));
                    return Ok((std::mem::take(&mut self.raw), true));
                }
                count => break count?,
            }
        };
        self.ended = count == 0;
        self.raw.extend_from_slice(&self.room[..count]);
        Ok((std::mem::take(&mut self.raw), self.ended))
    }

    /// An empty buffer for what is to be given out.
    pub(super) fn take_out(&mut self) -> Vec<u8> {
        self.out.clear();
        self.out_at = 0;
        std::mem::take(&mut self.out)
    }

    /// Takes the buffers back. The first `used` bytes of `raw` are not needed any more.
    pub(super) fn put_back(&mut self, mut raw: Vec<u8>, used: usize, out: Vec<u8>) {
        raw.drain(..used);
        (self.raw, self.out) = (raw, out);
    }

    pub(super) fn give(&mut self, buffer: &mut [u8]) -> usize {
        let given = &self.out[self.out_at..];
        let count = given.len().min(buffer.len());
        buffer[..count].copy_from_slice(&given[..count]);
        self.out_at += count;
        count
    }
}
