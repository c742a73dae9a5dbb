//! Content codings of bodies (RFC 9110 section 8.4.1).

use std::{
    borrow::Cow,
    io::{self, Read},
};

use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};

use super::HttpMessage;

/// How many codings one body may have.
pub(crate) const MAX_CODINGS: usize = 4;

/// The body of a message without its content coding, at most `limit` bytes of it. A body with a coding that is not known,
/// or that the bytes contradict, stays as it is. Of a cut body, what can be decoded is.
#[must_use]
pub fn decoded(message: &HttpMessage, limit: usize) -> Cow<'_, [u8]> {
    let kept = &message.body[..message.body.len().min(limit)];
    if message.coded_len.is_some() {
        return Cow::Borrowed(kept);
    }
    decode_all(message.fields.all("content-encoding"), kept, limit).map_or(Cow::Borrowed(kept), Cow::Owned)
}

/// A body without the codings in these values of `content-encoding`, at most `limit` bytes of it. `None` if there are no
/// codings, one is not known, or the bytes contradict them.
pub(crate) fn decode_all<'a>(values: impl Iterator<Item = &'a [u8]>, body: &[u8], limit: usize) -> Option<Vec<u8>> {
    let codings = codings(values);
    if codings.is_empty() || codings.len() > MAX_CODINGS || body.is_empty() {
        return None;
    }
    let mut decoded = Cow::Borrowed(body);
    for coding in codings.iter().rev() {
        decoded = Cow::Owned(decode(coding, &decoded, limit)?);
    }
    Some(decoded.into_owned())
}

/// The codings in these values of `content-encoding`, the last applied one last, in lower case. There may be one more than
/// [`MAX_CODINGS`].
pub(crate) fn codings<'a>(values: impl Iterator<Item = &'a [u8]>) -> Vec<Vec<u8>> {
    values
        .flat_map(|value| value.split(|byte| *byte == b','))
        .map(|coding| coding.trim_ascii().to_ascii_lowercase())
        .filter(|coding| !coding.is_empty() && coding != b"identity")
        .take(MAX_CODINGS + 1)
        .collect()
}

fn decode(coding: &[u8], body: &[u8], limit: usize) -> Option<Vec<u8>> {
    match coding {
        b"gzip" | b"x-gzip" => read(MultiGzDecoder::new(body), limit),
        // The coding is zlib's format, but some senders leave its head out.
        b"deflate" => read(ZlibDecoder::new(body), limit).or_else(|| read(DeflateDecoder::new(body), limit)),
        b"br" => read(brotli_decompressor::Decompressor::new(body, 4096), limit),
        #[cfg(feature = "zstd")]
        b"zstd" => {
            let mut decoder = zstd::stream::read::Decoder::new(body).ok()?;
            // RFC 8878 section 7.2 lets a receiver limit the window; RFC 9659 asks for 8 MiB.
            decoder.window_log_max(23).ok()?;
            read(decoder, limit)
        }
        _ => None,
    }
}

/// What a decoder gives until its first error; `None` if that is nothing.
fn read(mut decoder: impl Read, limit: usize) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut buffer = [0; 4096];
    while out.len() < limit {
        match decoder.read(&mut buffer) {
            Ok(0) => return Some(out),
            Ok(count) => out.extend_from_slice(&buffer[..count.min(limit - out.len())]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return (!out.is_empty()).then_some(out),
        }
    }
    Some(out)
}
