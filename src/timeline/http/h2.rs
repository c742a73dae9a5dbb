//! HTTP/2 (RFC 9113): the greeting of both sides, then one stream.
//!
//! Later, `synth/multiplex.rs` turns exchanges of one recorded connection into streams of one connection: it numbers
//! them and leaves out all greetings but the first. So an entry ends where a frame ends, and no field block refers to
//! another.
//!
//! Windows are as large as possible, so that flow control rarely matters. Frames are no larger than every receiver must
//! accept.

use std::{borrow::Cow, collections::HashSet, mem};

use loona_hpack::Encoder;
use memchr::memchr3;

use super::{
    grpc::Messages,
    h1::{Escaped, Names, is_token, value},
    head::{MessageHead, Pseudo},
    out::{BodyChunk, LARGE, Missing},
    sink::HttpSink,
};
use crate::{
    timeline::PREFACE,
    trace::{HttpSide, MadeUpField, ReplayNote, UnfitFields},
};

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

/// The largest window (RFC 9113 section 6.9.1).
const MAX_WINDOW: u32 = 0x7fff_ffff;

/// The largest payload of a frame, unless SETTINGS_MAX_FRAME_SIZE says otherwise (RFC 9113 section 4.2).
const MAX_FRAME: usize = 16_384;

/// The length of a frame's header.
const FRAME_HEAD: usize = 9;

/// The window of a connection before the first update (RFC 9113 section 6.9.2).
const FIRST_WINDOW: u32 = 65_535;

/// After this many bytes, the receiver opens its windows again.
const UPDATE_AFTER: u32 = 1 << 30;

/// The only stream, which is the first that a client opens.
const STREAM: u32 = 1;

/// How many bytes of a body are framed before the windows are checked again; fewer than [`UPDATE_AFTER`].
const MAX_AT_ONCE: usize = 1 << 29;

/// How many missing bytes frames are written for. More would need too many packets with nothing in them.
const MAX_MISSING: u64 = 16 * MAX_FRAME as u64;

#[derive(Debug, Default)]
struct Http2Side {
    has_head: bool,
    content_length: Option<u64>,
    /// How many body bytes were sent, including the missing ones.
    sent: u64,
    /// How many of these were sent since the other side last opened its window.
    in_window: u32,
    ended: bool,
    /// Bytes of a gRPC-Web body in base64 that wait until they fill a frame.
    text: Option<Base64Text>,
    /// Where the messages of a gRPC body begin and end.
    messages: Option<Messages>,
}

/// Bytes of gRPC-Web in base64. The recorded parts end anywhere, but Wireshark decodes each frame by itself. So frames
/// are filled, and no group of four characters is split between two of them.
#[derive(Debug, Default)]
struct Base64Text {
    waiting: Vec<u8>,
    truncated: bool,
    as_string: bool,
}

pub(super) struct Http2 {
    encoder: Encoder<'static>,
    halves: [Http2Side; 2],
    head_request: bool,
    block: Vec<u8>,
}

impl Default for Http2 {
    /// The encoder has no dynamic table, so its field blocks refer to the static table only. The decoder may add fields
    /// to its own table, but no block ever refers to them, because the encoder chooses the references (RFC 7541 section
    /// 1.1). So the field blocks of several exchanges can come in any order on one connection.
    fn default() -> Self {
        let mut encoder = Encoder::new();
        encoder.set_max_table_size(0);
        Self { encoder, halves: <[Http2Side; 2]>::default(), head_request: false, block: Vec::new() }
    }
}

impl std::fmt::Debug for Http2 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Http2").field("halves", &self.halves).finish_non_exhaustive()
    }
}

impl Http2 {
    /// Writes the greeting: what both sides send before the first request.
    pub(super) fn greet(&mut self, sink: &mut HttpSink<'_>) {
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
        settings(client, &[(ENABLE_PUSH, 0), (INITIAL_WINDOW_SIZE, MAX_WINDOW)]);
        let server = sink.bytes(HttpSide::Response);
        settings(server, &[(INITIAL_WINDOW_SIZE, MAX_WINDOW)]);
        frame(server, 0, SETTINGS, ACK, 0);
        frame(sink.bytes(HttpSide::Request), 0, SETTINGS, ACK, 0);
    }

    pub(super) fn headers(&mut self, sink: &mut HttpSink<'_>, side: HttpSide, head: &MessageHead<'_>, last: bool) {
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
            half.text = head.is_grpc_web_text().then(Base64Text::default);
            half.messages = head.has_grpc_messages().then(Messages::default);
        }
        self.block(sink, side, head, true, last && !informational);
    }

    pub(super) fn trailers(&mut self, sink: &mut HttpSink<'_>, side: HttpSide, head: &MessageHead<'_>) {
        self.write_text(sink, side, false);
        self.halves[side.index()].ended = true;
        self.block(sink, side, head, false, true);
    }

    /// Writes a field block (RFC 9113 section 8.2), pseudo-headers first.
    fn block(
        &mut self,
        sink: &mut HttpSink<'_>,
        side: HttpSide,
        head: &MessageHead<'_>,
        of_head: bool,
        end_stream: bool,
    ) {
        let mut escaped = Escaped::default();
        let mut left_out = LeftOut::default();
        let nominated = nominated(head);
        self.block.clear();
        let encoder = &mut self.encoder;
        let mut encode = |name: &[u8], text: &[u8]| {
            encoder.encode_header_into((name, text), &mut self.block).expect("writing to memory cannot fail");
        };
        if of_head {
            for (name, text) in made_up(sink, side, head) {
                encode(name, text);
            }
        }
        for pseudo in [true, false] {
            for (index, field) in head.fields.iter().enumerate() {
                let (key, text) = head.field(field);
                if (key.first() == Some(&b':')) != pseudo {
                    continue;
                }
                if pseudo && !(of_head && head.is_pseudo(index, side)) {
                    left_out.names.add(key);
                    continue;
                }
                if !pseudo && !left_out.keeps(key, text, &nominated) {
                    continue;
                }
                encode(&field_name(key), &field_value(text, key, &mut escaped));
            }
        }
        let out = sink.bytes(side);
        let mut rest = self.block.as_slice();
        let mut kind = HEADERS;
        let mut flags = if end_stream { END_STREAM } else { 0 };
        loop {
            let (part, after) = rest.split_at(rest.len().min(MAX_FRAME));
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
        left_out.report(sink, side);
    }

    /// Writes a part of a body. `next` is the part after it, if that is known.
    pub(super) fn body(
        &mut self,
        sink: &mut HttpSink<'_>,
        side: HttpSide,
        chunk: BodyChunk<'_>,
        next: Option<&[u8]>,
        last: bool,
    ) {
        sink.begin_part();
        let half = &mut self.halves[side.index()];
        half.ended |= last;
        if let Some(messages) = &mut half.messages {
            let begin = messages.take(chunk.bytes);
            let is_cut = chunk.truncated || chunk.as_string && next.is_none();
            let missing = if is_cut { messages.cut(next) } else { Missing::Nothing };
            if let Missing::Bytes(_) | Missing::Unknown = missing {
                let (whole, cut) = chunk.split(begin);
                if begin > 0 {
                    self.data(sink, side, BodyChunk { truncated: false, as_string: false, ..whole }, false);
                }
                return self.cut_frame(sink, side, cut, missing, last);
            }
        }
        let half = &mut self.halves[side.index()];
        let Some(text) = &mut half.text else { return self.data(sink, side, chunk, last) };
        text.waiting.extend_from_slice(chunk.bytes);
        text.truncated |= chunk.truncated;
        text.as_string |= chunk.as_string;
        // One byte or more waits, because the last frame may have to end the stream.
        let full = text.waiting.len().saturating_sub(1) / MAX_FRAME * MAX_FRAME;
        if last {
            self.write_text(sink, side, true);
        } else if full > 0 {
            let rest = text.waiting.split_off(full);
            let frames = mem::replace(&mut text.waiting, rest);
            let whole = BodyChunk { bytes: &frames, span: None, truncated: false, as_string: false };
            self.data(sink, side, whole, false);
        }
    }

    /// Writes the bytes that wait for the rest of their frame.
    fn write_text(&mut self, sink: &mut HttpSink<'_>, side: HttpSide, last: bool) {
        let Some(text) = self.halves[side.index()].text.as_mut().map(mem::take) else { return };
        let Base64Text { waiting, truncated, as_string } = text;
        if truncated {
            // A cut frame is not decoded. A whole one might end inside a group of four characters, which no dissector
            // can read.
            let chunk = BodyChunk { bytes: &waiting, span: None, truncated, as_string };
            self.cut_frame(sink, side, chunk, Missing::Unknown, last);
        } else if !waiting.is_empty() || last {
            self.data(sink, side, BodyChunk { bytes: &waiting, span: None, truncated, as_string }, last);
        }
    }

    /// Writes DATA frames for the bytes that are there, which a dissector shows, and for a known number of missing
    /// bytes.
    fn data(&mut self, sink: &mut HttpSink<'_>, side: HttpSide, chunk: BodyChunk<'_>, last: bool) {
        let missing = self.missing(sink, side, &chunk, last);
        let lost = if let Missing::Bytes(bytes) = missing { bytes } else { 0 };
        let present = chunk.bytes.len();
        let half = &mut self.halves[side.index()];
        half.sent = half.sent.saturating_add(present as u64).saturating_add(lost);
        // An empty frame is needed only to end the stream, or if bytes are missing.
        if present == 0 && lost == 0 && missing == Missing::Nothing && !last {
            return;
        }
        let flags = |is_end: bool| if last && is_end { END_STREAM } else { 0 };
        let mut rest = chunk;
        loop {
            let large = chunk.span.is_some() && rest.bytes.len() >= LARGE;
            let len = rest.bytes.len().min(if large { MAX_AT_ONCE } else { MAX_FRAME });
            let (part, after) = rest.split(len);
            rest = after;
            let ends = rest.bytes.is_empty() && lost == 0;
            self.open_window(sink, side, len as u32);
            let unframed = ends && missing == Missing::Unframed;
            match part.span {
                Some(span) if large => {
                    let head = if last && ends { last_data_head } else { data_head };
                    sink.frames(side, part, span, MAX_FRAME, head, unframed);
                }
                _ if len > 0 || lost == 0 => {
                    frame(sink.bytes_together(side, FRAME_HEAD + len), len, DATA, flags(ends), STREAM);
                    sink.body(side, part, if unframed { missing } else { Missing::Nothing });
                }
                _ => {}
            }
            if rest.bytes.is_empty() {
                break;
            }
        }
        self.lost_frames(sink, side, rest, lost, last);
    }

    /// Writes DATA frames whose payload is missing. `nothing` is an empty part of the body.
    fn lost_frames(
        &mut self,
        sink: &mut HttpSink<'_>,
        side: HttpSide,
        nothing: BodyChunk<'_>,
        mut left: u64,
        last: bool,
    ) {
        while left > 0 {
            let len = left.min(MAX_FRAME as u64);
            left -= len;
            self.open_window(sink, side, len as u32);
            let flags = if last && left == 0 { END_STREAM } else { 0 };
            // The missing bytes end the run, which must not end between them and their frame's header.
            frame(sink.bytes_together(side, FRAME_HEAD + 1), len as usize, DATA, flags, STREAM);
            sink.body(side, nothing, Missing::Bytes(len));
        }
    }

    /// Writes a gRPC message that is cut, in a frame whose last bytes are missing: a dissector does not begin to
    /// reassemble that. If more of the message is there than one frame holds, whole frames precede it.
    fn cut_frame(
        &mut self,
        sink: &mut HttpSink<'_>,
        side: HttpSide,
        chunk: BodyChunk<'_>,
        missing: Missing,
        last: bool,
    ) {
        let (whole, part) = chunk.split(chunk.bytes.len() / MAX_FRAME * MAX_FRAME);
        if !whole.bytes.is_empty() {
            self.data(sink, side, BodyChunk { truncated: false, as_string: false, ..whole }, false);
        }
        let half = &self.halves[side.index()];
        let sent = half.sent.saturating_add(part.bytes.len() as u64);
        let by_length = half.content_length.filter(|length| last && *length > sent).map(|length| length - sent);
        let missing = match (by_length, missing) {
            (Some(rest), _) | (None, Missing::Bytes(rest)) if rest <= MAX_MISSING => Missing::Bytes(rest),
            (Some(rest), _) | (None, Missing::Bytes(rest)) => {
                sink.note(ReplayNote::NoFrameOfMessage { side, bytes: rest });
                Missing::Unknown
            }
            _ => Missing::Unknown,
        };
        // One lost byte stands for an unknown number.
        let lost = if let Missing::Bytes(bytes) = missing { bytes } else { 1 };
        let here = lost.min((MAX_FRAME - part.bytes.len()) as u64);
        let half = &mut self.halves[side.index()];
        half.sent = half.sent.saturating_add(part.bytes.len() as u64).saturating_add(lost);
        let len = part.bytes.len() + here as usize;
        self.open_window(sink, side, len as u32);
        let flags = if last && here == lost { END_STREAM } else { 0 };
        frame(sink.bytes_together(side, FRAME_HEAD + part.bytes.len().max(1)), len, DATA, flags, STREAM);
        sink.body(side, part, if missing == Missing::Unknown { missing } else { Missing::Bytes(here) });
        let (_, nothing) = part.split(part.bytes.len());
        self.lost_frames(sink, side, nothing, lost - here, last);
    }

    /// What is missing after a part of the body, which is the `last` one if that is known.
    fn missing(&self, sink: &mut HttpSink<'_>, side: HttpSide, chunk: &BodyChunk<'_>, last: bool) -> Missing {
        let half = &self.halves[side.index()];
        let sent = half.sent.saturating_add(chunk.bytes.len() as u64);
        let rest = half.content_length.filter(|_| last).map_or(0, |length| length.saturating_sub(sent));
        match rest {
            1..=MAX_MISSING if chunk.truncated || chunk.as_string => Missing::Bytes(rest),
            1.. if chunk.truncated || chunk.as_string => {
                sink.note(ReplayNote::NoFrame { side, bytes: rest });
                Missing::Unframed
            }
            _ if chunk.truncated => Missing::Unframed,
            _ => Missing::Nothing,
        }
    }

    /// Counts `len` bytes against the windows. The other side opens its windows again before they are used up.
    fn open_window(&mut self, sink: &mut HttpSink<'_>, side: HttpSide, len: u32) {
        let half = &mut self.halves[side.index()];
        half.in_window += len;
        if half.in_window < UPDATE_AFTER {
            return;
        }
        let other = match side {
            HttpSide::Request => HttpSide::Response,
            HttpSide::Response => HttpSide::Request,
        };
        // The bytes before this frame were received, so they are credited.
        let credit = half.in_window - len;
        half.in_window = len;
        for stream in [0, STREAM] {
            let out = sink.bytes(other);
            frame(out, 4, WINDOW_UPDATE, 0, stream);
            out.extend_from_slice(&credit.to_be_bytes());
        }
    }

    /// Ends this side, because the exchange is over.
    pub(super) fn finish(&mut self, sink: &mut HttpSink<'_>, side: HttpSide, complete: bool) {
        let half = &self.halves[side.index()];
        if !half.has_head || half.ended {
            return;
        }
        if complete {
            let nothing = BodyChunk { bytes: &[], span: None, truncated: false, as_string: false };
            self.body(sink, side, nothing, None, true);
        } else {
            self.write_text(sink, side, false);
        }
    }
}

/// Writes a frame's header (RFC 9113 section 4.1). `len` is at most [`MAX_FRAME`].
fn frame(out: &mut Vec<u8>, len: usize, kind: u8, flags: u8, stream: u32) {
    let len = (len as u32).to_be_bytes();
    out.extend_from_slice(&[len[1], len[2], len[3], kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
}

fn data_head(out: &mut Vec<u8>, len: usize, _is_last: bool) {
    frame(out, len, DATA, 0, STREAM);
}

fn last_data_head(out: &mut Vec<u8>, len: usize, is_last: bool) {
    frame(out, len, DATA, if is_last { END_STREAM } else { 0 }, STREAM);
}

/// Fields that were left out, because HTTP/2 does not allow them.
#[derive(Debug, Default)]
struct LeftOut {
    of_connection: Names,
    names: Names,
}

impl LeftOut {
    /// Whether the field stays. Fields of an HTTP/1 connection do not, nor those that its Connection field names (RFC
    /// 9113 section 8.2.2). Names must be tokens (section 8.2.1).
    fn keeps(&mut self, key: &[u8], text: &[u8], nominated: &HashSet<Cow<'_, [u8]>>) -> bool {
        let is = |name: &[u8]| key.eq_ignore_ascii_case(name);
        let of_connection = match key.len() {
            2 if is(b"te") => !text.trim_ascii().eq_ignore_ascii_case(b"trailers"),
            7 => is(b"upgrade"),
            10 => is(b"connection") || is(b"keep-alive"),
            16 => is(b"proxy-connection"),
            17 => is(b"transfer-encoding"),
            _ => false,
        };
        if of_connection || (!nominated.is_empty() && !is(b"te") && nominated.contains(&*field_name(key))) {
            self.of_connection.add(key);
            return false;
        }
        if key.is_empty() || !key.iter().all(|byte| is_token(*byte)) {
            self.names.add(key);
            return false;
        }
        true
    }

    fn report(self, sink: &mut HttpSink<'_>, side: HttpSide) {
        if let Some(names) = self.of_connection.list() {
            sink.note(ReplayNote::ConnectionFields(side, names));
        }
        if let Some(names) = self.names.list() {
            sink.unfit(UnfitFields::LeftOut(side, names));
        }
    }
}

/// The names in a Connection field, in lower case. This is a set, because there may be very many names and fields.
fn nominated<'a>(head: &MessageHead<'a>) -> HashSet<Cow<'a, [u8]>> {
    let is_connection =
        |key: &[u8]| key.eq_ignore_ascii_case(b"connection") || key.eq_ignore_ascii_case(b"proxy-connection");
    let lists = head.fields.iter().map(|field| head.field(field)).filter(|(key, _)| is_connection(key));
    lists.flat_map(|(_, list)| list.split(|byte| *byte == b',')).map(|name| field_name(name.trim_ascii())).collect()
}

/// Pseudo-headers that HTTP/2 requires (RFC 9113 section 8.3) and the trace lacks.
fn made_up(sink: &mut HttpSink<'_>, side: HttpSide, head: &MessageHead<'_>) -> Vec<(&'static [u8], &'static [u8])> {
    let mut out: Vec<(&[u8], &[u8])> = Vec::new();
    let absent = |pseudo| head.pseudo(pseudo).is_none();
    match side {
        HttpSide::Request => {
            if absent(Pseudo::Method) {
                sink.made_up(MadeUpField::Method);
                out.push((b":method", b"GET"));
            }
            // RFC 9113 section 8.5: CONNECT has neither :path nor :scheme.
            let connect = head.method() == Some(b"CONNECT") && absent(Pseudo::Protocol);
            if absent(Pseudo::Path) && !connect {
                sink.made_up(MadeUpField::Path);
                out.push((b":path", b"/"));
            }
            if absent(Pseudo::Scheme) && !connect {
                sink.note(ReplayNote::Added { side, field: ":scheme http" });
                out.push((b":scheme", b"http"));
            }
        }
        HttpSide::Response => {
            if absent(Pseudo::Status) {
                sink.made_up(MadeUpField::Status);
                out.push((b":status", b"000"));
            }
        }
    }
    out
}

/// The name in lower case (RFC 9113 section 8.2). No note tells of the change, because case does not matter in names
/// (RFC 9110 section 5.1), and Envoy records names in lower case anyway.
fn field_name(key: &[u8]) -> Cow<'_, [u8]> {
    if key.iter().any(u8::is_ascii_uppercase) { Cow::Owned(key.to_ascii_lowercase()) } else { Cow::Borrowed(key) }
}

/// The value without line breaks, NUL, and blanks at either end (RFC 9113 section 8.2.1).
fn field_value<'a>(text: &'a [u8], key: &[u8], escaped: &mut Escaped) -> Cow<'a, [u8]> {
    let text = trim_blanks(text);
    if memchr3(b'\r', b'\n', 0, text).is_none() {
        return Cow::Borrowed(text);
    }
    let mut out = Vec::with_capacity(text.len() + 1);
    value(&mut out, text, escaped, key);
    Cow::Owned(out)
}

fn trim_blanks(text: &[u8]) -> &[u8] {
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = text.iter().take_while(|byte| is_blank(byte)).count();
    let end = text[start..].iter().rev().take_while(|byte| is_blank(byte)).count();
    &text[start..text.len() - end]
}
