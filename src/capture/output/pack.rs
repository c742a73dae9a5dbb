//! Captures that are packed as they are written.
//!
//! The C library packs Zstandard. The program links it for reading anyway. It can flush in the middle of a frame, which
//! a packed pipe needs, and it writes the checksum of the contents. The encoders in pure Rust write whole frames only.
//! Replacing the library changes [`Encoder`] alone.

use std::io::{self, Write};

use flate2::{Compression, write::GzEncoder};

/// How an output is packed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutputPacking {
    /// Not at all.
    #[default]
    None,
    /// gzip.
    Gzip,
    /// Zstandard.
    Zstd,
}

impl OutputPacking {
    /// The packing that a file's suffix, without its dot, stands for.
    #[must_use]
    pub fn of_suffix(suffix: &str) -> Option<Self> {
        [("gz", Self::Gzip), ("zst", Self::Zstd)]
            .into_iter()
            .find_map(|(name, packing)| suffix.eq_ignore_ascii_case(name).then_some(packing))
    }
}

/// Packs what is written to it, and writes the result to `W`.
pub(super) enum Encoder<W: Write> {
    None(W),
    Gzip(GzEncoder<W>),
    #[cfg(feature = "zstd")]
    Zstd(zstd::Encoder<'static, W>),
}

impl<W: Write> Encoder<W> {
    pub(super) fn new(packing: OutputPacking, inner: W) -> io::Result<Self> {
        Ok(match packing {
            OutputPacking::None => Self::None(inner),
            // The header has no time and no name, so that the same input gives the same bytes.
            OutputPacking::Gzip => Self::Gzip(GzEncoder::new(inner, Compression::default())),
            #[cfg(not(feature = "zstd"))]
            OutputPacking::Zstd => return Err(io::Error::other("this build of tap2pcap lacks Zstandard")),
            #[cfg(feature = "zstd")]
            OutputPacking::Zstd => {
                let mut encoder = zstd::Encoder::new(inner, zstd::DEFAULT_COMPRESSION_LEVEL)?;
                encoder.include_checksum(true)?;
                Self::Zstd(encoder)
            }
        })
    }

    pub(super) fn get_mut(&mut self) -> &mut W {
        match self {
            Self::None(inner) => inner,
            Self::Gzip(encoder) => encoder.get_mut(),
            #[cfg(feature = "zstd")]
            Self::Zstd(encoder) => encoder.get_mut(),
        }
    }

    /// Writes the end of the packed data, with its checksum.
    pub(super) fn finish(self) -> io::Result<W> {
        match self {
            Self::None(inner) => Ok(inner),
            Self::Gzip(encoder) => encoder.finish(),
            #[cfg(feature = "zstd")]
            Self::Zstd(encoder) => encoder.finish(),
        }
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::None(inner) => inner.write(bytes),
            Self::Gzip(encoder) => encoder.write(bytes),
            #[cfg(feature = "zstd")]
            Self::Zstd(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::None(inner) => inner.flush(),
            Self::Gzip(encoder) => encoder.flush(),
            #[cfg(feature = "zstd")]
            Self::Zstd(encoder) => encoder.flush(),
        }
    }
}
