//! HTTP/1.1 (RFC 9112): heads, bodies of known length or in chunks, trailers, and the bytes after an upgrade.

use std::io::Write as _;

use memchr::memchr3;

use super::{
    Track,
    head::{MessageHead, Pseudo},
    out::{BodyChunk, Missing},
    sink::HttpSink,
};
use crate::trace::{ExchangeFact, FieldNames, HttpSide, MadeUpField, Quote, ReplayNote, UnfitFields};

/// How the body of one side is framed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum BodyFraming {
    /// There was no head, so the bytes are not framed.
    #[default]
    Headless,
    /// No body may follow.
    Nothing,
    /// The body has this content-length.
    Length(u64),
    Chunked,
    /// The bytes are another protocol's.
    Tunnel,
}

#[derive(Clone, Copy, Debug, Default)]
struct Http1Side {
    framing: BodyFraming,
    /// The recorded content-length, unless the message has no body in spite of it.
    content_length: Option<u64>,
    /// How many body bytes were sent, including the missing ones.
    sent: u64,
    /// This side is complete.
    ended: bool,
    mismatch_reported: bool,
}

#[derive(Debug, Default)]
pub(super) struct Http1 {
    halves: [Http1Side; 2],
    head_request: bool,
    connect: bool,
    closes: bool,
}

impl Http1 {
    /// Writes a head. `track` describes all parts of this side, if they are known.
    pub(super) fn headers(
        &mut self,
        sink: &mut HttpSink<'_>,
        side: HttpSide,
        head: &MessageHead<'_>,
        track: Option<&Track>,
        last: bool,
    ) {
        let mut escaped = Escaped::default();
        let added = match side {
            HttpSide::Request => self.request_head(sink, head, track, &mut escaped),
            HttpSide::Response => self.response_head(sink, head, track),
        };
        self.closes |= head.closes() || head.has_bad_length();
        if head.has_bad_length() {
            sink.report(ExchangeFact::BadLength);
        }
        // RFC 9112 section 6.2: content-length must not accompany transfer-encoding.
        let without_length = added == Added::Chunked;
        if let (true, Some(length)) = (without_length, head.content_length()) {
            sink.note(ReplayNote::LengthOfChunks { side, length });
        }
        fields(sink.bytes(side), head, Some(side), without_length, &mut escaped);
        let out = sink.bytes(side);
        let field = match added {
            Added::Nothing => None,
            Added::Chunked => Some("transfer-encoding: chunked"),
            Added::NoContent => Some("content-length: 0"),
        };
        if let Some(field) = field {
            out.extend_from_slice(field.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"\r\n");
        if let Some(field) = field {
            sink.note(ReplayNote::Added { side, field });
        }
        escaped.report(sink, side);
        if last {
            self.end(sink, side);
        }
    }

    fn request_head(
        &mut self,
        sink: &mut HttpSink<'_>,
        head: &MessageHead<'_>,
        track: Option<&Track>,
        escaped: &mut Escaped,
    ) -> Added {
        let method = head.method().filter(|method| !method.is_empty());
        self.head_request = method == Some(b"HEAD");
        self.connect = method == Some(b"CONNECT");
        let authority = head.pseudo(Pseudo::Authority);
        let path = head.pseudo(Pseudo::Path).filter(|path| !path.is_empty());
        // RFC 9112 section 3.2.3: the target of CONNECT is the authority.
        let target = if self.connect { authority.or(path) } else { path };
        if let (true, Some(_), Some(path)) = (self.connect, authority, path) {
            sink.note(ReplayNote::NoPlace { connect: true, name: ":path", value: Quote::new(path) });
        }
        let out = sink.bytes(HttpSide::Request);
        token(out, method.unwrap_or(b"GET"), escaped, b":method");
        out.push(b' ');
        request_target(out, target.unwrap_or(b"/"), escaped);
        out.extend_from_slice(b" HTTP/1.1\r\n");
        if let Some(authority) = authority {
            out.extend_from_slice(b"Host: ");
            value(out, authority, escaped, b":authority");
            out.extend_from_slice(b"\r\n");
        }
        if method.is_none() {
            sink.made_up(MadeUpField::Method);
        }
        if target.is_none() {
            sink.made_up(MadeUpField::Path);
        }
        for (name, pseudo) in [(":scheme", Pseudo::Scheme), (":protocol", Pseudo::Protocol)] {
            if let Some(text) = head.pseudo(pseudo) {
                sink.note(ReplayNote::NoPlace { connect: false, name, value: Quote::new(text) });
            }
        }
        let (framing, added) = if head.opens_tunnel() {
            (BodyFraming::Tunnel, Added::Nothing)
        } else {
            let may_have_body = matches!(method, Some(b"POST" | b"PUT" | b"PATCH"));
            body_framing(sink, head, track, |track| match track {
                // RFC 9112 section 6.3: a request whose fields announce no body has none.
                Some(track) => track.has_body || track.has_trailers,
                None => may_have_body,
            })
        };
        self.begin(HttpSide::Request, framing, head.content_length());
        added
    }

    fn response_head(&mut self, sink: &mut HttpSink<'_>, head: &MessageHead<'_>, track: Option<&Track>) -> Added {
        let status = head.status();
        let out = sink.bytes(HttpSide::Response);
        // Writing to a Vec cannot fail.
        let _ = write!(out, "HTTP/1.1 {:03} {}\r\n", status.unwrap_or(0), status.map_or("", reason_phrase));
        if status.is_none() {
            sink.made_up(MadeUpField::StatusDigits(head.pseudo(Pseudo::Status).map(Quote::new)));
        }
        if head.is_informational() {
            return Added::Nothing;
        }
        let accepted = status.is_some_and(|status| (200..300).contains(&status));
        let no_body = self.head_request || head.is_bodiless();
        let (framing, added, length) = if status == Some(101) || (self.connect && accepted) {
            (BodyFraming::Tunnel, Added::Nothing, None)
        } else if no_body {
            (BodyFraming::Nothing, Added::Nothing, None)
        } else {
            let length = head.content_length();
            let empty = track.is_some_and(|track| !track.has_body && !track.has_trailers);
            if empty && length.is_none() && !head.is_chunked() {
                (BodyFraming::Nothing, Added::NoContent, None)
            } else {
                let (framing, added) = body_framing(sink, head, track, |_| true);
                (framing, added, length)
            }
        };
        self.begin(HttpSide::Response, framing, length);
        added
    }

    fn begin(&mut self, side: HttpSide, framing: BodyFraming, content_length: Option<u64>) {
        self.halves[side.index()] = Http1Side { framing, content_length, ..Http1Side::default() };
    }

    pub(super) fn body(&mut self, sink: &mut HttpSink<'_>, side: HttpSide, chunk: BodyChunk<'_>, last: bool) {
        sink.begin_part();
        let half = &mut self.halves[side.index()];
        let (missing, unframed) = half.missing(&chunk, last);
        if unframed > 0 {
            sink.note(ReplayNote::NoChunk { side, bytes: unframed });
        }
        let lost = match missing {
            Missing::Nothing | Missing::Unframed => 0,
            Missing::Bytes(bytes) => bytes,
            Missing::Unknown => 1,
        };
        let len = (chunk.bytes.len() as u64).saturating_add(lost);
        half.sent = half.sent.saturating_add(len);
        let too_long = match half.framing {
            BodyFraming::Nothing => len > 0,
            BodyFraming::Length(length) => half.sent > length,
            _ => half.ended,
        };
        if too_long && !half.mismatch_reported {
            half.mismatch_reported = true;
            sink.report(ExchangeFact::ExtraBody(side));
        }
        if half.framing != BodyFraming::Chunked || len == 0 {
            sink.body(side, chunk, missing);
        } else {
            // Empty parts are not written here, because a chunk of length 0 ends the body.
            let out = sink.bytes(side);
            let _ = write!(out, "{len:x}\r\n");
            sink.body(side, chunk, missing);
            sink.bytes(side).extend_from_slice(b"\r\n");
        }
        if last {
            self.end(sink, side);
        }
    }

    /// Whether no other exchange can follow on the connection: one side closes it, the server has accepted an upgrade
    /// or CONNECT, or the end of a body is not clear.
    pub(super) fn is_last(&self) -> bool {
        let tunnel = self.halves[HttpSide::Response.index()].framing == BodyFraming::Tunnel;
        tunnel || self.closes || self.halves.iter().any(|half| half.mismatch_reported)
    }

    pub(super) fn trailers(&mut self, sink: &mut HttpSink<'_>, side: HttpSide, head: &MessageHead<'_>) {
        let half = &mut self.halves[side.index()];
        let mut escaped = Escaped::default();
        match half.framing {
            BodyFraming::Chunked if !half.ended => sink.bytes(side).extend_from_slice(b"0\r\n"),
            BodyFraming::Headless => {}
            _ => {
                sink.report(ExchangeFact::MisplacedTrailers(head.fields.len()));
                return;
            }
        }
        half.ended = true;
        fields(sink.bytes(side), head, None, false, &mut escaped);
        sink.bytes(side).extend_from_slice(b"\r\n");
        escaped.report(sink, side);
    }

    /// Ends this side, all of whose parts were written.
    fn end(&mut self, sink: &mut HttpSink<'_>, side: HttpSide) {
        let half = &mut self.halves[side.index()];
        if half.ended {
            return;
        }
        half.ended = true;
        match half.framing {
            BodyFraming::Chunked => sink.bytes(side).extend_from_slice(b"0\r\n\r\n"),
            BodyFraming::Length(length) if length > half.sent => {
                let rest = length - half.sent;
                half.sent = length;
                let nothing = BodyChunk { bytes: &[], span: None, truncated: true, as_string: false };
                sink.body(side, nothing, Missing::Bytes(rest));
            }
            _ => {}
        }
    }

    /// Ends this side because the exchange is over. Only a truncated body gets a gap for its missing bytes.
    pub(super) fn finish(&mut self, sink: &mut HttpSink<'_>, side: HttpSide, complete: bool, truncated: bool) {
        let half = &mut self.halves[side.index()];
        if half.ended {
            return;
        }
        match half.framing {
            BodyFraming::Chunked if complete => self.end(sink, side),
            BodyFraming::Length(length) if length > half.sent && truncated => {
                half.ended = true;
                sink.gap(side, length - half.sent);
            }
            _ => {}
        }
    }
}

impl Http1Side {
    /// What is missing after a part of the body, which is the `last` one if that is known. The number counts missing
    /// bytes that have no place in the framing.
    fn missing(&self, chunk: &BodyChunk<'_>, last: bool) -> (Missing, u64) {
        let sent = self.sent.saturating_add(chunk.bytes.len() as u64);
        let rest = self.content_length.filter(|_| last).map_or(0, |length| length.saturating_sub(sent));
        match self.framing {
            // Chunk sizes are made up anyway, so no chunk is cut: a dissector shows a body only if all chunks are
            // whole.
            BodyFraming::Chunked if chunk.truncated || (chunk.as_string && rest > 0) => (Missing::Unframed, rest),
            BodyFraming::Length(_) if rest > 0 => (Missing::Bytes(rest), 0),
            // The end of the body counts all missing bytes.
            BodyFraming::Length(_) if chunk.truncated => (Missing::Unframed, 0),
            BodyFraming::Headless | BodyFraming::Tunnel | BodyFraming::Nothing if chunk.truncated => {
                (Missing::Unknown, 0)
            }
            _ => (Missing::Nothing, 0),
        }
    }
}

/// A field that the replay needs and the trace lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Added {
    Nothing,
    Chunked,
    NoContent,
}

/// How a body is framed (RFC 9112 section 6.3). `has_body` decides if the headers do not.
fn body_framing(
    sink: &mut HttpSink<'_>,
    head: &MessageHead<'_>,
    track: Option<&Track>,
    has_body: impl FnOnce(Option<&Track>) -> bool,
) -> (BodyFraming, Added) {
    if head.is_chunked() {
        return (BodyFraming::Chunked, Added::Nothing);
    }
    match head.content_length() {
        Some(length) => {
            let too_long = track.is_some_and(|track| track.body > length);
            if too_long {
                sink.report(ExchangeFact::LongBody);
            }
            // Trailers need chunks, which take precedence over content-length.
            let trailers = track.is_some_and(|track| track.has_trailers);
            if too_long || trailers {
                (BodyFraming::Chunked, Added::Chunked)
            } else {
                (BodyFraming::Length(length), Added::Nothing)
            }
        }
        None if has_body(track) => (BodyFraming::Chunked, Added::Chunked),
        None => (BodyFraming::Nothing, Added::Nothing),
    }
}

/// Writes field lines. Those of a head leave out the pseudo-headers, which the first line and Host have.
fn fields(
    out: &mut Vec<u8>,
    head: &MessageHead<'_>,
    head_of: Option<HttpSide>,
    without_length: bool,
    escaped: &mut Escaped,
) {
    for (index, field) in head.fields.iter().enumerate() {
        let (key, text) = head.field(field);
        if key.first() == Some(&b':') && head_of.is_some_and(|side| head.is_pseudo(index, side)) {
            continue;
        }
        if without_length && key.eq_ignore_ascii_case(b"content-length") {
            continue;
        }
        token(out, key, escaped, key);
        out.extend_from_slice(b": ");
        value(out, text, escaped, key);
        out.extend_from_slice(b"\r\n");
    }
}

/// Writes a token (RFC 9110 section 5.6.2). Any other byte is escaped, because it would end the name or the line.
fn token(out: &mut Vec<u8>, name: &[u8], escaped: &mut Escaped, key: &[u8]) {
    if !name.is_empty() && name.iter().all(|byte| is_token(*byte)) {
        out.extend_from_slice(name);
        return;
    }
    escaped.add(key);
    if name.is_empty() {
        out.push(b'-');
    }
    percent(out, name, is_token);
}

/// Writes a request target, which must not have blanks or control characters (RFC 9112 section 3.2).
fn request_target(out: &mut Vec<u8>, target: &[u8], escaped: &mut Escaped) {
    if target.iter().all(|byte| is_target(*byte)) {
        out.extend_from_slice(target);
        return;
    }
    escaped.add(b":path");
    percent(out, target, is_target);
}

fn percent(out: &mut Vec<u8>, text: &[u8], is_plain: fn(u8) -> bool) {
    for byte in text {
        if is_plain(*byte) {
            out.push(*byte);
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

fn is_target(byte: u8) -> bool {
    byte > b' ' && byte != 0x7f
}

/// The bytes of tokens. This is a table for speed, because field names are a good part of a trace.
static TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 128_u8 {
        table[byte as usize] = byte.is_ascii_alphanumeric();
        byte += 1;
    }
    let marks = b"!#$%&'*+-.^_`|~";
    let mut index = 0;
    while index < marks.len() {
        table[marks[index] as usize] = true;
        index += 1;
    }
    table
};

pub(super) fn is_token(byte: u8) -> bool {
    TOKEN[usize::from(byte)]
}

/// Writes a field value. CR, LF and NUL are escaped, because they would end the line or the text (RFC 9110 section
/// 5.5).
pub(super) fn value(out: &mut Vec<u8>, text: &[u8], escaped: &mut Escaped, key: &[u8]) {
    // Nearly every value is short and has none of them. A fold that does not stop early checks many bytes at once.
    if !text.iter().fold(false, |found, byte| found | matches!(byte, b'\r' | b'\n' | 0)) {
        out.extend_from_slice(text);
        return;
    }
    escaped.add(key);
    let mut rest = text;
    while let Some(at) = memchr3(b'\r', b'\n', 0, rest) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(match rest[at] {
            b'\r' => b"\\r",
            b'\n' => b"\\n",
            _ => b"\\0",
        });
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
}

/// Field names for a note.
#[derive(Debug, Default)]
pub(super) struct Names {
    names: FieldNames,
    /// The last name. Equal names in a row count once, and so do the name and value of one field.
    last: Vec<u8>,
}

impl Names {
    #[cold]
    pub(super) fn add(&mut self, key: &[u8]) {
        if !self.names.names.is_empty() && self.last == key {
            return;
        }
        key.clone_into(&mut self.last);
        self.names.add(key);
    }

    /// The list, unless it is empty.
    pub(super) fn list(self) -> Option<FieldNames> {
        (!self.names.names.is_empty()).then_some(self.names)
    }
}

/// Fields that could not be written as they were recorded.
#[derive(Debug, Default)]
pub(super) struct Escaped(Names);

impl Escaped {
    #[cold]
    pub(super) fn add(&mut self, key: &[u8]) {
        self.0.add(key);
    }

    pub(super) fn report(self, sink: &mut HttpSink<'_>, side: HttpSide) {
        if let Some(names) = self.0.list() {
            sink.unfit(UnfitFields::Escaped(side, names));
        }
    }
}

/// The reason phrase of a status (RFC 9110 section 15). No tool needs it, but people expect it.
#[must_use]
pub(crate) fn reason_phrase(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        103 => "Early Hints",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        206 => "Partial Content",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        422 => "Unprocessable Content",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "",
    }
}
