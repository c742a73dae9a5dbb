//! Text that a layer changes as it comes.

use std::io::{self, Read};

use super::Failed;

/// Bytes that are read at once.
const READ: usize = 64 * 1024;

/// Changes text piece by piece.
pub(super) trait Rewrite {
    /// Changes `raw` into what is added to `out`, and returns how much of it is done. The rest comes once more, with what
    /// follows it, unless this is the end.
    fn rewrite(&mut self, raw: &[u8], at_end: bool, out: &mut Vec<u8>) -> usize;
}

/// What a [`Rewrite`] makes of what is inside.
pub(super) struct Rewritten<T> {
    inside: Box<dyn Read + Send>,
    rewrite: T,
    /// Room for a read, cleared once: the layer below may give a few bytes at a time.
    room: Box<[u8]>,
    /// What was read and is not done.
    raw: Vec<u8>,
    /// What is given out, from `out_at` on.
    out: Vec<u8>,
    out_at: usize,
    ended: bool,
}

impl<T: Rewrite> Rewritten<T> {
    pub(super) fn new(inside: Box<dyn Read + Send>, rewrite: T) -> Self {
        let room = vec![0; READ].into_boxed_slice();
        Self { inside, rewrite, room, raw: Vec::new(), out: Vec::new(), out_at: 0, ended: false }
    }

    /// Reads once more.
    fn fill(&mut self) -> io::Result<()> {
        let count = loop {
            match self.inside.read(&mut self.room) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // What waits is passed on first.
                Err(error) if !self.raw.is_empty() => {
                    self.inside = Box::new(Failed(Some(error)));
                    break None;
                }
                count => break Some(count?),
            }
        };
        self.ended = count == Some(0);
        self.raw.extend_from_slice(&self.room[..count.unwrap_or(0)]);
        self.out.clear();
        self.out_at = 0;
        let at_end = self.ended || count.is_none();
        let done = self.rewrite.rewrite(&self.raw, at_end, &mut self.out);
        self.raw.drain(..done);
        Ok(())
    }
}

impl<T: Rewrite> Read for Rewritten<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.out_at == self.out.len() && !self.ended {
            self.fill()?;
        }
        let count = (&self.out[self.out_at..]).read(buffer)?;
        self.out_at += count;
        Ok(count)
    }
}
