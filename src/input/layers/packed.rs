//! gzip and Zstandard.

use std::io::{self, BufReader, Read};

use super::Rewound;

/// RFC 1952, section 2.3.1.
pub(super) const GZIP: &[u8] = b"\x1f\x8b";

/// RFC 8878, section 3.1.1.
pub(super) const ZSTANDARD: &[u8] = b"\x28\xb5\x2f\xfd";

pub(super) fn gzip(packed: Rewound) -> Box<dyn Read + Send> {
    // Multi: a gzip file may consist of several members (RFC 1952, section 2.2).
    Box::new(flate2::bufread::MultiGzDecoder::new(BufReader::new(packed)))
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
