//! Bytes of a capture that go to the destination together.

use std::io;

/// The size of the first allocation. It fits the capture of a small trace; a run may write thousands of those.
const SMALL: usize = 16 * 1024;

/// A buffer that hands out slices to fill. A `Vec` would check its capacity for each field of a packet; this checks it
/// once for the whole packet.
#[derive(Debug, Default)]
pub(crate) struct PacketBuffer {
    /// The bytes after `len` are initialised leftovers.
    bytes: Vec<u8>,
    len: usize,
}

impl PacketBuffer {
    /// Appends `len` bytes, which hold leftovers until the caller fills them.
    #[inline(always)]
    pub(super) fn extend(&mut self, len: usize) -> &mut [u8] {
        if self.bytes.len() - self.len < len {
            self.grow(len);
        }
        let start = self.len;
        self.len += len;
        &mut self.bytes[start..start + len]
    }

    #[cold]
    fn grow(&mut self, len: usize) {
        let size = (self.len + len).max(2 * self.bytes.len()).max(SMALL);
        self.bytes.resize(size, 0);
    }

    /// Adds `bytes`.
    pub(crate) fn append(&mut self, bytes: &[u8]) {
        self.extend(bytes.len()).copy_from_slice(bytes);
    }

    #[inline(always)]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Removes the bytes but keeps the memory.
    pub(super) fn clear(&mut self) {
        self.len = 0;
    }
}

impl io::Write for PacketBuffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.append(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_buffer_holds_what_was_appended(pieces: Vec<Vec<u8>>, large in 0..40_000_usize) {
            let (mut chunk, mut vec) = (PacketBuffer::default(), Vec::new());
            for _ in 0..2 {
                for piece in &pieces {
                    chunk.append(piece);
                    vec.extend_from_slice(piece);
                }
                chunk.write_all(&vec![7; large]).unwrap();
                vec.resize(vec.len() + large, 7);
                prop_assert_eq!(chunk.as_bytes(), &vec);
                prop_assert_eq!((chunk.len(), chunk.is_empty()), (vec.len(), vec.is_empty()));
                chunk.clear();
                vec.clear();
            }
        }
    }
}
