//! gzip, zlib and Zstandard.

use std::io::{self, BufRead, BufReader, Read};

use flate2::{
    Decompress, FlushDecompress,
    bufread::{DeflateDecoder, GzDecoder, ZlibDecoder},
};

use super::{MAX_HEAD, Match, Rewound};

/// RFC 1952, section 2.3.1.
pub(super) const GZIP: &[u8] = b"\x1f\x8b";

/// RFC 8878, section 3.1.1.
pub(super) const ZSTANDARD: &[u8] = b"\x28\xb5\x2f\xfd";

/// A skippable frame of Zstandard, but for its first byte, which is 0x50 to 0x5f (RFC 8878, section 3.1.2).
const SKIPPABLE: &[u8] = b"\x2a\x4d\x18";

/// Whether `head` begins with a Zstandard frame, perhaps after skippable ones, as `pzstd` writes them.
pub(super) fn is_zstandard(head: &[u8]) -> Match {
    let mut at = 0;
    loop {
        let frame = head.get(at..).unwrap_or_default();
        if frame.len() < 4 {
            let begins = frame.first().is_none_or(|first| (0x50..=0x5f).contains(first))
                && SKIPPABLE.starts_with(frame.get(1..).unwrap_or_default());
            let may_begin = at < MAX_HEAD && (begins || ZSTANDARD.starts_with(frame));
            return if may_begin { Match::Unknown } else { Match::No };
        }
        if frame.starts_with(ZSTANDARD) {
            return Match::Yes { skip: 0 };
        }
        if !(0x50..=0x5f).contains(&frame[0]) || frame[1..4] != *SKIPPABLE {
            return Match::No;
        }
        let Some(size) = frame.get(4..8) else { return Match::Unknown };
        let size = size.iter().rev().fold(0, |size, byte| size << 8 | usize::from(*byte));
        at += 8 + size;
    }
}

/// Whether `head` begins with a zlib stream (RFC 1950). Its two bytes may be text, so what follows them must be DEFLATE.
pub(super) fn is_zlib(head: &[u8]) -> Match {
    // The window is that of 32 KiB in practice, and a dictionary would have to be known.
    match head {
        [] | [0x78] => Match::Unknown,
        [0x78, 0x01 | 0x5e | 0x9c | 0xda, ..] => inflates(head, true),
        _ => Match::No,
    }
}

/// How many bytes of DEFLATE show that it is that, if they unpack to nothing yet.
const ENOUGH: usize = 512;

/// Whether `head` begins with DEFLATE (RFC 1951), in a zlib stream or without. What comes later may be damaged.
pub(super) fn inflates(head: &[u8], in_zlib: bool) -> Match {
    let head = &head[..head.len().min(ENOUGH)];
    let mut unpacked = [0; 64];
    let mut state = Decompress::new(in_zlib);
    match state.decompress(head, &mut unpacked, FlushDecompress::None) {
        Ok(_) if state.total_out() > 0 || head.len() >= ENOUGH => Match::Yes { skip: 0 },
        Ok(_) => Match::Unknown,
        Err(_) => Match::No,
    }
}

/// `is_raw` says that DEFLATE is not in a zlib stream, as some servers send it.
pub(super) fn zlib(packed: Rewound, is_raw: bool) -> Box<dyn Read + Send> {
    let packed = BufReader::new(packed);
    let decoder =
        if is_raw { Inflate::Raw(DeflateDecoder::new(packed)) } else { Inflate::Zlib(ZlibDecoder::new(packed)) };
    Box::new(BufReader::with_capacity(PIECE, decoder))
}

/// One stream, which zeros or a line feed may follow.
enum Inflate {
    Zlib(ZlibDecoder<BufReader<Rewound>>),
    Raw(DeflateDecoder<BufReader<Rewound>>),
}

impl Read for Inflate {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = match self {
            Self::Zlib(decoder) => decoder.read(buffer)?,
            Self::Raw(decoder) => decoder.read(buffer)?,
        };
        if count > 0 || buffer.is_empty() {
            return Ok(count);
        }
        let packed = match self {
            Self::Zlib(decoder) => decoder.get_mut(),
            Self::Raw(decoder) => decoder.get_mut(),
        };
        loop {
            let bytes = match packed.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                bytes => bytes?,
            };
            match bytes.iter().position(|byte| !matches!(byte, 0 | b'\r' | b'\n')) {
                None if bytes.is_empty() => return Ok(0),
                None => {
                    let len = bytes.len();
                    packed.consume(len);
                }
                Some(_) => {
                    let text = "what follows the zlib data is not zlib";
                    return Err(io::Error::new(io::ErrorKind::InvalidData, text));
                }
            }
        }
    }
}

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
