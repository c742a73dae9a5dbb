//! gzip and Zstandard.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::GzDecoder;

use super::Rewound;

/// RFC 1952, section 2.3.1.
pub(super) const GZIP: &[u8] = b"\x1f\x8b";

/// RFC 8878, section 3.1.1.
pub(super) const ZSTANDARD: &[u8] = b"\x28\xb5\x2f\xfd";

pub(super) fn gzip(packed: Rewound) -> Box<dyn Read + Send> {
    // A read of a few bytes makes the decoder take all input there is, and its next read waits for more before it gives
    // out the rest. So it is read in large pieces, that a live stream does not wait.
    Box::new(BufReader::with_capacity(PIECE, Gzip(Some(GzDecoder::new(BufReader::new(packed))))))
}

/// Twice what DEFLATE's decoder holds back.
const PIECE: usize = 64 * 1024;

/// A gzip file may consist of several members (RFC 1952, section 2.2), and zeros may fill up its last block, which gzip
/// itself ignores.
struct Gzip(Option<GzDecoder<BufReader<Rewound>>>);

impl Read for Gzip {
    #[inline]
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(decoder) = &mut self.0 {
            let count = decoder.read(buffer)?;
            if count > 0 || buffer.is_empty() {
                return Ok(count);
            }
            self.next_member()?;
        }
        Ok(0)
    }
}

impl Gzip {
    #[cold]
    fn next_member(&mut self) -> io::Result<()> {
        let Some(decoder) = self.0.take() else { return Ok(()) };
        let mut packed = decoder.into_inner();
        loop {
            let bytes = match packed.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                bytes => bytes?,
            };
            let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
            match bytes.get(zeros) {
                None if zeros == 0 => return Ok(()),
                None => packed.consume(zeros),
                Some(0x1f) => {
                    packed.consume(zeros);
                    self.0 = Some(GzDecoder::new(packed));
                    return Ok(());
                }
                Some(_) => {
                    let text = "what follows the gzip data is not gzip";
                    return Err(io::Error::new(io::ErrorKind::InvalidData, text));
                }
            }
        }
    }
}

#[cfg(not(feature = "zstd"))]
pub(super) fn zstandard(_packed: Rewound) -> io::Result<Box<dyn Read + Send>> {
    Err(io::Error::other("this build of tap2pcap lacks Zstandard; unpack it first with zstd -d"))
}

#[cfg(feature = "zstd")]
pub(super) fn zstandard(packed: Rewound) -> io::Result<Box<dyn Read + Send>> {
    let mut decoder = zstd::Decoder::new(packed)?;
    decoder.window_log_max(ZSTANDARD_WINDOW_LOG)?;
    Ok(Box::new(Zstandard(decoder)))
}

/// The base-2 logarithm of the largest window that a Zstandard frame may ask for. RFC 8878 recommends supporting 8 MiB;
/// `zstd` itself accepts 128 MiB by default.
#[cfg(feature = "zstd")]
const ZSTANDARD_WINDOW_LOG: u32 = 27;

/// Replaces the library's error for a larger window with one that says what to do.
#[cfg(feature = "zstd")]
struct Zstandard<R: io::BufRead>(zstd::Decoder<'static, R>);

#[cfg(feature = "zstd")]
impl<R: io::BufRead> Read for Zstandard<R> {
    #[inline]
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|error| {
            // The library's functions return ZSTD_error_frameParameter_windowTooLarge, which is 16 in its stable
            // interface, as a negative number.
            let too_large = zstd::zstd_safe::get_error_name(16_usize.wrapping_neg());
            if error.to_string() == too_large {
                let mebibytes = 1 << (ZSTANDARD_WINDOW_LOG - 20);
                io::Error::other(format!(
                    "a window of more than {mebibytes} MiB; unpack it first with zstd -d --long=31"
                ))
            } else {
                error
            }
        })
    }
}
