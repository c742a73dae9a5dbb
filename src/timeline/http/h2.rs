//! HTTP/2 (RFC 9113): the greeting of both sides, then one stream.
//!
//! Settings and windows are as large as they can be, so that a field block is one frame, a body few, and flow control
//! never stands in the way.

use std::borrow::Cow;

use loona_hpack::Encoder;
use memchr::memchr3;

use super::{
    exchange::Sink,
    h1::{Escaped, value},
    head::Head,
    out::{Chunk, Missing},
};
use crate::trace::HttpSide;

/// RFC 9113 section 3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Frame types and flags (RFC 9113 section 6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// Settings (RFC 9113 section 6.5.2).
const ENABLE_PUSH: u16 = 2;
const INITIAL_WINDOW_SIZE: u16 = 4;
const MAX_FRAME_SIZE: u16 = 5;

/// The largest values that they may have.
const MAX_WINDOW: u32 = 0x7fff_ffff;
const MAX_FRAME: u32 = 0x00ff_ffff;

/// The window of a connection before the first update (RFC 9113 section 6.9.2).
const FIRST_WINDOW: u32 = 65_535;

/// Bytes after which a window is opened again.
const UPDATE_AFTER: u32 = 1 << 30;

/// The only stream: the first that a client opens.
const STREAM: u32 = 1;

/// Missing bytes that frames are written for. A hostile content-length can claim any number.
const MAX_MISSING: u64 = 64 << 20;

#[derive(Clone, Copy, Debug, Default)]
struct Half {
    has_head: bool,
    content_length: Option<u64>,
    /// Body bytes, with those that are missing.
    sent: u64,
    /// Of these, how many since the other side opened its window again.
    in_window: u32,
    ended: bool,
}

#[derive(Default)]
pub(super) struct Http2 {
    encoders: [Encoder<'static>; 2],
    halves: [Half; 2],
    head_request: bool,
    block: Vec<u8>,
}

impl std::fmt::Debug for Http2 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Http2").field("halves", &self.halves).finish_non_exhaustive()
    }
}

impl Http2 {
    /// What both sides say before the first request.
    pub(super) fn greet(&mut self, sink: &mut Sink<'_>) {
        let settings = |out: &mut Vec<u8>, settings: &[(u16, u32)]| {
            frame(out, 6 * settings.len(), SETTINGS, 0, 0);
            for (id, value) in settings {
                out.extend_from_slice(&id.to_be_bytes());
                out.extend_from_slice(&value.to_be_bytes());
            }
            frame(out, 4, WINDOW_UPDATE, 0, 0);
            out.extend_from_slice(&(MAX_WINDOW - FIRST_WINDOW).to_be_bytes());
        };
        let client = sink.bytes(HttpSide::Request);
        client.extend_from_slice(PREFACE);
        settings(client, &[(ENABLE_PUSH, 0), (INITIAL_WINDOW_SIZE, MAX_WINDOW), (MAX_FRAME_SIZE, MAX_FRAME)]);
        let server = sink.bytes(HttpSide::Response);
        settings(server, &[(INITIAL_WINDOW_SIZE, MAX_WINDOW), (MAX_FRAME_SIZE, MAX_FRAME)]);
        frame(server, 0, SETTINGS, ACK, 0);
        frame(sink.bytes(HttpSide::Request), 0, SETTINGS, ACK, 0);
    }

    pub(super) fn headers(&mut self, sink: &mut Sink<'_>, side: HttpSide, head: &Head<'_>, last: bool) {
        let informational = side == HttpSide::Response && head.is_informational();
        if side == HttpSide::Request {
            self.head_request = head.method() == Some(b"HEAD");
        }
        if !informational {
            let no_body = side == HttpSide::Response && (self.head_request || head.is_bodiless());
            let half = &mut self.halves[side.index()];
            half.has_head = true;
            half.content_length = head.content_length().filter(|_| !no_body);
            half.ended |= last;
        }
        self.block(sink, side, head, last && !informational);
    }

    pub(super) fn trailers(&mut self, sink: &mut Sink<'_>, side: HttpSide, head: &Head<'_>) {
        self.halves[side.index()].ended = true;
        self.block(sink, side, head, true);
    }

    /// A field block (RFC 9113 section 8.2), pseudo-headers first.
    fn block(&mut self, sink: &mut Sink<'_>, side: HttpSide, head: &Head<'_>, end_stream: bool) {
        let mut escaped = Escaped::default();
        self.block.clear();
        let encoder = &mut self.encoders[side.index()];
        for pseudo in [true, false] {
            for field in head.fields {
                let (key, text) = head.field(field);
                if (key.first() == Some(&b':')) != pseudo {
                    continue;
                }
                let name = field_name(key, &mut escaped);
                let text = field_value(text, key, &mut escaped);
                encoder.encode_header_into((&name, &text), &mut self.block).expect("writing to memory cannot fail");
            }
        }
        let out = sink.bytes(side);
        let mut rest = self.block.as_slice();
        let mut kind = HEADERS;
        let mut flags = if end_stream { END_STREAM } else { 0 };
        loop {
            let (part, after) = rest.split_at(rest.len().min(MAX_FRAME as usize));
            if after.is_empty() {
                flags |= END_HEADERS;
            }
            frame(out, part.len(), kind, flags, STREAM);
            out.extend_from_slice(part);
            if after.is_empty() {
                break;
            }
            (rest, kind, flags) = (after, CONTINUATION, 0);
        }
        escaped.report(sink, side);
    }

    pub(super) fn body(&mut self, sink: &mut Sink<'_>, side: HttpSide, chunk: Chunk<'_>, last: bool) {
        let missing = self.missing(sink, side, &chunk, last);
        let lost = match missing {
            Missing::Nothing => 0,
            Missing::Bytes(bytes) => bytes,
            Missing::Unknown => 1,
        };
        let half = &mut self.halves[side.index()];
        half.ended |= last;
        let mut left = (chunk.bytes.len() as u64).saturating_add(lost);
        half.sent = half.sent.saturating_add(left);
        // An empty frame says nothing, unless it is the end.
        if left == 0 && !last {
            return;
        }
        let mut rest = chunk;
        loop {
            let present = rest.bytes.len() as u64;
            // A frame of what is there and one of what is missing: a dissector shows the first.
            let len = if present > 0 { present } else { left }.min(u64::from(MAX_FRAME));
            left -= len;
            self.open_window(sink, side, len as u32);
            let flags = if last && left == 0 { END_STREAM } else { 0 };
            frame(sink.bytes(side), len as usize, DATA, flags, STREAM);
            let (part, after) = rest.split(present.min(len) as usize);
            rest = after;
            let missing = match (present, missing) {
                (0, Missing::Bytes(_)) => Missing::Bytes(len),
                (0, Missing::Unknown) => Missing::Unknown,
                _ => Missing::Nothing,
            };
            sink.body(side, part, missing);
            if left == 0 {
                break;
            }
        }
    }

    /// What is missing behind a part of the body, `last` if it is known to be the last one.
    fn missing(&self, sink: &mut Sink<'_>, side: HttpSide, chunk: &Chunk<'_>, last: bool) -> Missing {
        let half = &self.halves[side.index()];
        let sent = half.sent.saturating_add(chunk.bytes.len() as u64);
        let rest = half.content_length.map_or(0, |length| length.saturating_sub(sent));
        let cut = chunk.truncated || chunk.as_string;
        if last && cut && rest > 0 && rest <= MAX_MISSING {
            return Missing::Bytes(rest);
        }
        if last && cut && rest > MAX_MISSING {
            sink.note(&format!(
                "by its content-length, {rest} bytes of the body are missing; one byte stands for them"
            ));
            return Missing::Unknown;
        }
        if chunk.truncated { Missing::Unknown } else { Missing::Nothing }
    }

    /// The other side opens its windows before they close.
    fn open_window(&mut self, sink: &mut Sink<'_>, side: HttpSide, len: u32) {
        let half = &mut self.halves[side.index()];
        half.in_window += len;
        if half.in_window < UPDATE_AFTER {
            return;
        }
        let other = match side {
            HttpSide::Request => HttpSide::Response,
            HttpSide::Response => HttpSide::Request,
        };
        // What was counted before this frame was sent.
        let credit = half.in_window - len;
        half.in_window = len;
        for stream in [0, STREAM] {
            let out = sink.bytes(other);
            frame(out, 4, WINDOW_UPDATE, 0, stream);
            out.extend_from_slice(&credit.to_be_bytes());
        }
    }

    /// The exchange is over.
    pub(super) fn finish(&mut self, sink: &mut Sink<'_>, side: HttpSide, complete: bool) {
        let half = &self.halves[side.index()];
        if half.has_head && !half.ended && complete {
            let nothing = Chunk { bytes: &[], span: None, truncated: false, as_string: false };
            self.body(sink, side, nothing, true);
        }
    }
}

/// A frame's header (RFC 9113 section 4.1). A length is at most [`MAX_FRAME`].
fn frame(out: &mut Vec<u8>, len: usize, kind: u8, flags: u8, stream: u32) {
    let len = (len as u32).to_be_bytes();
    out.extend_from_slice(&[len[1], len[2], len[3], kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
}

/// RFC 9113 section 8.2: names are in lower case, and hold no control character.
fn field_name<'a>(key: &'a [u8], escaped: &mut Escaped) -> Cow<'a, [u8]> {
    if memchr3(b'\r', b'\n', 0, key).is_none() {
        if key.iter().any(u8::is_ascii_uppercase) {
            return Cow::Owned(key.to_ascii_lowercase());
        }
        return Cow::Borrowed(key);
    }
    let mut name = Vec::with_capacity(key.len() + 1);
    value(&mut name, &key.to_ascii_lowercase(), escaped, key);
    Cow::Owned(name)
}

/// RFC 9113 section 8.2.1.
fn field_value<'a>(text: &'a [u8], key: &[u8], escaped: &mut Escaped) -> Cow<'a, [u8]> {
    if memchr3(b'\r', b'\n', 0, text).is_none() {
        return Cow::Borrowed(text);
    }
    let mut out = Vec::with_capacity(text.len() + 1);
    value(&mut out, text, escaped, key);
    Cow::Owned(out)
}
