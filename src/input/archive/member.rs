//! One member of an archive.

use std::{
    io::{self, BufReader, Read},
    time::SystemTime,
};

use super::{LOOK, extent::Extent};

/// The bytes of a member, and how they are packed by the archive itself.
#[derive(Clone, Debug)]
pub(in crate::input) struct Member {
    pub(super) extent: Extent,
    pub(super) packing: Packing,
    /// When it was modified, by what the archive says.
    pub(super) modified: Option<SystemTime>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Packing {
    /// As it is.
    None,
    /// In a ZIP archive.
    Zip { deflated: bool, size: u64, crc: u32 },
}

impl Member {
    /// Something that no archive packs.
    pub(super) fn plain(extent: Extent) -> Self {
        Self { extent, packing: Packing::None, modified: None }
    }

    /// Reads it. This can be done more than once, and at the same time.
    pub(in crate::input) fn open(&self) -> Box<dyn Read + Send> {
        let packed = self.extent.reader();
        match self.packing {
            Packing::None => Box::new(packed),
            Packing::Zip { deflated: false, size, crc } => Box::new(Checked::new(packed, size, crc)),
            Packing::Zip { deflated: true, size, crc } => {
                let inside = flate2::bufread::DeflateDecoder::new(BufReader::new(packed));
                Box::new(Checked::new(inside, size, crc))
            }
        }
    }

    /// What keeps its first bytes from being unpacked. A short member is read to its end, where its checksum tells.
    pub(super) fn damage(&self) -> Option<io::Error> {
        match self.packing {
            Packing::None => None,
            Packing::Zip { .. } => io::copy(&mut self.open().take(LOOK as u64 + 1), &mut io::sink()).err(),
        }
    }

    /// Its bytes, if they are the archive's own.
    pub(super) fn as_extent(&self) -> Option<&Extent> {
        match self.packing {
            Packing::None | Packing::Zip { deflated: false, .. } => Some(&self.extent),
            Packing::Zip { deflated: true, .. } => None,
        }
    }

    pub(in crate::input) fn modified(&self) -> Option<SystemTime> {
        self.modified
    }

    /// The bytes that it takes in the archive.
    pub(in crate::input) fn packed_len(&self) -> u64 {
        self.extent.len()
    }
}

/// Compares what was read with the size and the checksum that a ZIP archive gives.
struct Checked<R> {
    inside: R,
    crc: flate2::Crc,
    read: u64,
    size: u64,
    expected: u32,
}

impl<R> Checked<R> {
    fn new(inside: R, size: u64, expected: u32) -> Self {
        Self { inside, crc: flate2::Crc::new(), read: 0, size, expected }
    }
}

impl<R: Read> Read for Checked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inside.read(buffer)?;
        self.crc.update(&buffer[..count]);
        self.read += count as u64;
        if count > 0 || buffer.is_empty() {
            return Ok(count);
        }
        let Self { read, size, .. } = *self;
        if read != size {
            Err(damaged(format!("it holds {read} bytes, but the archive says {size}")))
        } else if self.crc.sum() != self.expected {
            Err(damaged("its checksum is wrong".to_owned()))
        } else {
            Ok(0)
        }
    }
}

fn damaged(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
