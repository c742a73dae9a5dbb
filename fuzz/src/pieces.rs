//! A reader that gives its bytes in pieces, as files, pipes and slow networks do.

use std::io::{self, Read};

/// The sizes of the pieces.
#[derive(Clone, Copy, Debug)]
pub enum Pieces {
    /// As much as is asked for.
    Whole,
    /// At most so many bytes.
    Of(usize),
    /// Between 1 and 64 bytes, by a generator that starts here.
    Mixed(u64),
}

impl Pieces {
    /// Of one byte each for a short input, else a few hundred of them.
    pub fn small(data: &[u8]) -> Self {
        Self::Of(data.len() / 256 + 1)
    }
}

/// Bytes that come in pieces.
pub struct InPieces {
    data: Vec<u8>,
    at: usize,
    pieces: Pieces,
}

impl InPieces {
    /// Reads `data`.
    pub fn new(data: &[u8], pieces: Pieces) -> Box<Self> {
        Box::new(Self { data: data.to_owned(), at: 0, pieces })
    }
}

impl Read for InPieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = match &mut self.pieces {
            Pieces::Whole => usize::MAX,
            Pieces::Of(size) => *size,
            Pieces::Mixed(state) => {
                // Knuth's MMIX generator; its upper bits are the better ones.
                *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                1 + (*state >> 58) as usize
            }
        };
        let count = buffer.len().min(most).min(self.data.len() - self.at);
        buffer[..count].copy_from_slice(&self.data[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}
