//! Content codings, taken off while bytes come.

use std::{
    fmt,
    io::{self, Write},
};

use brotli_decompressor::DecompressorWriter;
use flate2::write::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};

use crate::http::{MAX_CODINGS, codings};

/// How many bytes may come out of one coding for each byte that went in, besides [`ALWAYS`].
const MAX_RATIO: u64 = 1000;

/// So many bytes may come out of any number of bytes.
const ALWAYS: u64 = 1 << 20;

/// How many bytes may come out of one coding at most.
const MAX_DECODED: u64 = 64 << 20;

/// How many bytes go into a coding at once.
const SLICE: usize = 4 << 10;

/// Takes the content codings off one body.
pub(crate) struct ContentDecoder {
    /// The coding that was applied last comes first.
    stages: Vec<Stage>,
    failed: bool,
}

impl fmt::Debug for ContentDecoder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ContentDecoder").field("stages", &self.stages.len()).finish_non_exhaustive()
    }
}

/// The bytes are not what the coding says, or too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadCoding;

impl ContentDecoder {
    /// For the values of `content-encoding`. `None` if there is no coding to take off; an error if one is unknown.
    pub(crate) fn new<'a>(values: impl Iterator<Item = &'a [u8]>) -> Option<Result<Self, BadCoding>> {
        let codings = codings(values);
        if codings.is_empty() {
            return None;
        }
        if codings.len() > MAX_CODINGS {
            return Some(Err(BadCoding));
        }
        let stages: Option<_> = codings.iter().rev().map(|coding| Stage::new(coding)).collect();
        Some(stages.map(|stages| Self { stages, failed: false }).ok_or(BadCoding))
    }

    /// Takes coded bytes, and appends what they stand for. Bytes after the end of what is coded are an error.
    ///
    /// # Errors
    /// They cannot be decoded, or stand for too many bytes. What was appended before is good.
    pub(crate) fn data(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), BadCoding> {
        if self.failed {
            return Err(BadCoding);
        }
        for slice in bytes.chunks(SLICE) {
            let result = pass(&mut self.stages, slice, out);
            self.failed |= result.is_err();
            result?;
        }
        Ok(())
    }

    /// The body has ended. It may have been cut: then what can be decoded is what there is.
    ///
    /// # Errors
    /// As [`ContentDecoder::data`].
    pub(crate) fn end(&mut self, out: &mut Vec<u8>) -> Result<(), BadCoding> {
        // All that can be decoded came out at once.
        self.data(&[], out)
    }
}

/// Passes bytes through the first of these codings, and what comes out through the others.
fn pass(stages: &mut [Stage], bytes: &[u8], out: &mut Vec<u8>) -> Result<(), BadCoding> {
    let Some((first, rest)) = stages.split_first_mut() else {
        out.extend_from_slice(bytes);
        return Ok(());
    };
    let result = first.write(bytes);
    let decoded = std::mem::take(&mut first.sink().decoded);
    let mut rest_result = Ok(());
    for slice in decoded.chunks(SLICE) {
        rest_result = pass(rest, slice, out);
        if rest_result.is_err() {
            break;
        }
    }
    result.and(rest_result)
}

/// Takes what comes out of a coding, up to a limit.
#[derive(Default)]
struct Sink {
    decoded: Vec<u8>,
    total: u64,
    limit: u64,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let total = self.total.saturating_add(bytes.len() as u64);
        if total > self.limit {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.total = total;
        self.decoded.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Stage {
    taken: u64,
    decoder: Decoder,
}

enum Decoder {
    Gzip(Box<MultiGzDecoder<Sink>>),
    /// The coding is zlib's format, but some senders leave its head out. Its first byte, once it is there.
    Deflate(Option<u8>, Sink),
    Zlib(Box<ZlibDecoder<Sink>>),
    RawDeflate(Box<DeflateDecoder<Sink>>),
    Brotli(Box<DecompressorWriter<Sink>>),
    #[cfg(feature = "zstd")]
    Zstd(Box<zstd::stream::write::Decoder<'static, Sink>>),
}

impl Stage {
    fn new(coding: &[u8]) -> Option<Self> {
        let sink = Sink::default();
        let decoder = match coding {
            b"gzip" | b"x-gzip" => Decoder::Gzip(Box::new(MultiGzDecoder::new(sink))),
            b"deflate" => Decoder::Deflate(None, sink),
            b"br" => Decoder::Brotli(Box::new(DecompressorWriter::new(sink, SLICE))),
            #[cfg(feature = "zstd")]
            b"zstd" => {
                let mut decoder = zstd::stream::write::Decoder::new(sink).ok()?;
                // As in `http`.
                decoder.window_log_max(23).ok()?;
                Decoder::Zstd(Box::new(decoder))
            }
            _ => return None,
        };
        Some(Self { taken: 0, decoder })
    }

    fn sink(&mut self) -> &mut Sink {
        match &mut self.decoder {
            Decoder::Gzip(decoder) => decoder.get_mut(),
            Decoder::Deflate(_, sink) => sink,
            Decoder::Zlib(decoder) => decoder.get_mut(),
            Decoder::RawDeflate(decoder) => decoder.get_mut(),
            Decoder::Brotli(decoder) => decoder.get_mut(),
            #[cfg(feature = "zstd")]
            Decoder::Zstd(decoder) => decoder.get_mut(),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), BadCoding> {
        self.taken = self.taken.saturating_add(bytes.len() as u64);
        let limit = self.taken.saturating_mul(MAX_RATIO).saturating_add(ALWAYS).min(MAX_DECODED);
        self.sink().limit = limit;
        let held = self.choose_deflate(bytes);
        let decoder: &mut dyn Write = match &mut self.decoder {
            Decoder::Deflate(..) => return Ok(()),
            Decoder::Gzip(decoder) => decoder,
            Decoder::Zlib(decoder) => decoder,
            Decoder::RawDeflate(decoder) => decoder,
            Decoder::Brotli(decoder) => decoder,
            #[cfg(feature = "zstd")]
            Decoder::Zstd(decoder) => decoder,
        };
        let written = decoder.write_all(held.as_slice()).and_then(|()| decoder.write_all(bytes));
        // What is before an error is good, and still in the decoder.
        let flushed = decoder.flush();
        written.and(flushed).map_err(|_| BadCoding)
    }

    /// Tells the two kinds of deflate apart by the two bytes that zlib's format begins with (RFC 1950 section 2.2), and
    /// returns the byte that waited for that.
    fn choose_deflate(&mut self, bytes: &[u8]) -> Vec<u8> {
        let Decoder::Deflate(held, sink) = &mut self.decoder else { return Vec::new() };
        let mut head = held.iter().chain(bytes);
        let (Some(first), second) = (head.next().copied(), head.next().copied()) else { return Vec::new() };
        let Some(second) = second else {
            *held = Some(first);
            return Vec::new();
        };
        let waited = held.iter().copied().collect();
        let sink = std::mem::take(sink);
        let is_zlib = first & 0x0f == 8 && u16::from_be_bytes([first, second]).is_multiple_of(31);
        self.decoder = if is_zlib {
            Decoder::Zlib(Box::new(ZlibDecoder::new(sink)))
        } else {
            Decoder::RawDeflate(Box::new(DeflateDecoder::new(sink)))
        };
        waited
    }
}

#[cfg(test)]
mod tests {
    use flate2::{
        Compression,
        write::{DeflateEncoder, GzEncoder, ZlibEncoder},
    };
    use proptest::prelude::*;

    use super::*;

    fn decoder(coding: &str) -> ContentDecoder {
        ContentDecoder::new([coding.as_bytes()].into_iter()).unwrap().unwrap()
    }

    fn coded(coding: &str, bytes: &[u8]) -> Vec<u8> {
        let level = Compression::default();
        match coding {
            "gzip" | "x-gzip" => {
                let mut encoder = GzEncoder::new(Vec::new(), level);
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
            "deflate" => {
                let mut encoder = ZlibEncoder::new(Vec::new(), level);
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
            "raw" => {
                let mut encoder = DeflateEncoder::new(Vec::new(), level);
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
            #[cfg(feature = "zstd")]
            "zstd" => zstd::encode_all(bytes, 3).unwrap(),
            other => panic!("no coder for {other}"),
        }
    }

    fn decoded(coding: &str, bytes: &[u8], step: usize) -> Vec<u8> {
        let (mut decoder, mut out) = (decoder(coding), Vec::new());
        for piece in bytes.chunks(step) {
            decoder.data(piece, &mut out).unwrap();
        }
        decoder.end(&mut out).unwrap();
        out
    }

    const CODINGS: &[(&str, &str)] = &[
        ("gzip", "gzip"),
        ("X-GZip", "x-gzip"),
        ("deflate", "deflate"),
        ("deflate", "raw"),
        #[cfg(feature = "zstd")]
        ("zstd", "zstd"),
    ];

    #[test]
    fn nothing_to_take_off() {
        for values in [&[][..], &[b"identity".as_slice()], &[b" , ", b""]] {
            assert!(ContentDecoder::new(values.iter().copied()).is_none());
        }
        for value in [b"gzip, compress".as_slice(), b"gzip, gzip, gzip, gzip, gzip", b"x"] {
            assert!(ContentDecoder::new([value].into_iter()).unwrap().is_err());
        }
    }

    #[test]
    fn pieces_of_any_size() {
        let text = b"{\"a\": \"0123456789\", \"b\": [1, 2, 3]}\n".repeat(1000);
        for (coding, coder) in CODINGS {
            let coded = coded(coder, &text);
            for step in [1, 7, coded.len()] {
                assert_eq!(decoded(coding, &coded, step), text, "{coding} by {step}");
            }
        }
        // `printf hello | brotli`
        assert_eq!(decoded("br", b"\x0b\x02\x80hello\x03", 1), b"hello");
        let stacked = coded("gzip", &coded("deflate", &text));
        assert_eq!(decoded("deflate, gzip", &stacked, 5), text);
        // One member after another.
        let members = [coded("gzip", b"ab"), coded("gzip", b"cd")].concat();
        assert_eq!(decoded("gzip", &members, 3), b"abcd");
    }

    #[test]
    fn what_can_be_decoded_comes_at_once() {
        let text: Vec<u8> = (0..80_000_u32).flat_map(|number| number.to_string().into_bytes()).collect();
        for (coding, coder) in CODINGS {
            let coded = coded(coder, &text);
            let out = decoded(coding, &coded[..coded.len() * 3 / 4], 100);
            assert!(text.starts_with(&out) && out.len() > text.len() / 4, "{coding}: {}", out.len());
        }
    }

    #[test]
    fn bombs() {
        for (coding, size) in [
            ("gzip", 66 << 20),
            #[cfg(feature = "zstd")]
            ("zstd", 20 << 20),
        ] {
            let coded = coded(coding, &vec![0; size]);
            let (mut decoder, mut out) = (decoder(coding), Vec::new());
            assert_eq!(decoder.data(&coded, &mut out), Err(BadCoding), "{coding}");
            assert!(out.len() as u64 <= MAX_DECODED);
            let before = out.len();
            assert_eq!(decoder.data(&coded, &mut out), Err(BadCoding));
            assert_eq!(decoder.end(&mut out), Err(BadCoding));
            assert_eq!(out.len(), before);
        }
        let nested = coded("gzip", &coded("gzip", &vec![0; 2 << 20]));
        let mut out = Vec::new();
        let _ = decoder("gzip, gzip").data(&nested, &mut out);
        assert!(out.len() as u64 <= MAX_DECODED);
    }

    #[test]
    fn other_bytes() {
        for coding in ["gzip", "deflate", "br"] {
            let (mut decoder, mut out) = (decoder(coding), Vec::new());
            assert_eq!(decoder.data(&[0xff; 100], &mut out), Err(BadCoding), "{coding}");
        }
        let mut out = Vec::new();
        let trailing = [coded("gzip", b"ab"), b"<html>not found</html>".to_vec()].concat();
        assert_eq!(decoder("gzip").data(&trailing, &mut out), Err(BadCoding));
        assert_eq!(out, b"ab");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
        #[test]
        fn any_bytes(coding in "gzip|deflate|br|zstd|br, gzip", bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Some(Ok(mut decoder)) = ContentDecoder::new([coding.as_bytes()].into_iter()) {
                let mut out = Vec::new();
                let _ = decoder.data(&bytes, &mut out);
                let _ = decoder.end(&mut out);
            }
        }
    }
}
