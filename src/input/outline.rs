//! The outline of JSON text: where its strings, keys, objects and arrays are, without their values.
//!
//! It tells whether an object is a trace by its keys, and never by a name inside of a string.

use memchr::memchr3;

use crate::trace::TraceKind;

/// How many objects and arrays a trace may be inside of, itself included. An envelope has up to four levels of names,
/// and each may hold a list.
pub(super) const MAX_DEPTH: usize = 9;

/// The most bytes of an object that are looked at to tell whether it is a trace.
pub(super) const MAX_LOOK: usize = 16 * 1024;

/// Where the next byte is in the text.
#[derive(Debug)]
pub(super) struct Outline {
    /// Whether each open object or array is an object, the outermost first, down to [`MAX_DEPTH`].
    is_object: [bool; MAX_DEPTH],
    /// How many are open.
    depth: usize,
    want: Want,
}

/// What should come next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    Value,
    Key,
    Colon,
    Comma,
}

impl Default for Outline {
    fn default() -> Self {
        Self { is_object: [false; MAX_DEPTH], depth: 0, want: Want::Value }
    }
}

impl Outline {
    pub(super) fn depth(&self) -> usize {
        self.depth
    }

    /// Whether a string that comes next is a key of an object that may be a trace.
    pub(super) fn at_key(&self) -> bool {
        self.want == Want::Key && (1..=MAX_DEPTH).contains(&self.depth)
    }

    /// Whether an object that comes next may be a trace.
    pub(super) fn at_object(&self) -> bool {
        self.want == Want::Value && self.depth < MAX_DEPTH
    }

    /// Goes on after a byte outside of strings, and returns whether JSON may have it there. Bytes of numbers and
    /// literals do not count: [`Outline::value`] goes on after those.
    pub(super) fn byte(&mut self, byte: u8) -> bool {
        match byte {
            b'{' | b'[' => {
                let fits = self.want == Want::Value;
                if let Some(is_object) = self.is_object.get_mut(self.depth) {
                    *is_object = byte == b'{';
                }
                self.depth += 1;
                self.want = if byte == b'{' { Want::Key } else { Want::Value };
                fits
            }
            b'}' | b']' => {
                let fits = self.depth > 0;
                self.depth = self.depth.saturating_sub(1);
                self.value();
                fits
            }
            b',' => {
                let fits = self.want == Want::Comma || self.is_deep();
                let innermost = self.depth.checked_sub(1).and_then(|index| self.is_object.get(index));
                self.want = if innermost == Some(&true) { Want::Key } else { Want::Value };
                fits
            }
            b':' => {
                let fits = self.want == Want::Colon || self.is_deep();
                self.want = Want::Value;
                fits
            }
            byte => is_space(byte),
        }
    }

    /// Goes on after a string.
    pub(super) fn string(&mut self) -> bool {
        match self.want {
            Want::Key => self.want = Want::Colon,
            Want::Value => self.value(),
            Want::Colon | Want::Comma => return self.is_deep(),
        }
        self.depth > 0
    }

    /// Whether it is not known what is open. Keys then look like values.
    fn is_deep(&self) -> bool {
        self.depth > MAX_DEPTH
    }

    /// Goes on after a value.
    pub(super) fn value(&mut self) {
        self.want = if self.depth == 0 { Want::Value } else { Want::Comma };
    }

    pub(super) fn wants_value(&self) -> bool {
        self.want == Want::Value && self.depth > 0
    }
}

pub(super) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// The length of the number or literal that the text begins with, and whether JSON, or Python's JSON, has it. If it
/// goes on to the end of the text, that is not known yet.
pub(super) fn scalar(text: &[u8]) -> Option<(usize, bool)> {
    let is_part = |byte: &&u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
    let len = text.iter().take_while(is_part).count();
    let scalar = text[..len].first().map(|_| &text[..len])?;
    let is_literal = matches!(scalar, b"true" | b"false" | b"null" | b"NaN" | b"Infinity" | b"-Infinity");
    // Rust also parses words like `inf`.
    let is_number = scalar.last().is_some_and(u8::is_ascii_digit)
        && str::from_utf8(scalar).is_ok_and(|scalar| scalar.parse::<f64>().is_ok());
    Some((len, is_literal || is_number))
}

/// The place in a string, whose end may not have been read yet.
#[derive(Debug, Default)]
pub(super) struct InString {
    after_backslash: bool,
}

impl InString {
    /// The number of bytes up to and including the closing quote, if it is there. A line break ends a string too,
    /// because JSON allows none in it: a quote is missing.
    pub(super) fn end(&mut self, text: &[u8]) -> Option<usize> {
        let mut at = 0;
        if std::mem::take(&mut self.after_backslash) {
            if text.is_empty() {
                self.after_backslash = true;
                return None;
            }
            at = 1;
        }
        loop {
            at += memchr3(b'"', b'\\', b'\n', text.get(at..)?)?;
            if text[at] != b'\\' {
                return Some(at + 1);
            }
            at += 2;
            if at > text.len() {
                self.after_backslash = true;
                return None;
            }
        }
    }
}

/// Why a look at text ends early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// It is something else.
    Other,
    /// The text ends too early to tell.
    More,
}

type Look<T> = Result<T, Stop>;

/// The fields of `TraceWrapper` that hold a trace, in both spellings of JSON.
pub(super) const WRAPPERS: [&str; 8] = [
    "http_buffered_trace",
    "http_streamed_trace_segment",
    "socket_buffered_trace",
    "socket_streamed_trace_segment",
    "httpBufferedTrace",
    "httpStreamedTraceSegment",
    "socketBufferedTrace",
    "socketStreamedTraceSegment",
];

/// The fields of the four traces, in snake_case.
const FIELDS: [&str; 16] = [
    "connection",
    "downstream_connection",
    "event",
    "events",
    "read_truncated",
    "request",
    "request_body_chunk",
    "request_headers",
    "request_trailers",
    "response",
    "response_body_chunk",
    "response_headers",
    "response_trailers",
    "trace_id",
    "upstream_connection",
    "write_truncated",
];

/// Whether `name` is the key `snake`, in either spelling.
fn is_key(name: &[u8], snake: &str) -> bool {
    let mut snake = snake.bytes();
    let mut name = name.iter().copied();
    loop {
        match (name.next(), snake.next()) {
            (None, None) => return true,
            (Some(found), Some(wanted)) if found == wanted => {}
            (Some(found @ b'A'..=b'Z'), Some(b'_')) if snake.next() == Some(found.to_ascii_lowercase()) => {}
            _ => return false,
        }
    }
}

fn is_one_of(name: &[u8], snakes: &[&str]) -> bool {
    snakes.iter().any(|snake| is_key(name, snake))
}

/// Whether the text begins with a key of `TraceWrapper` and a colon.
pub(super) fn wrapper_key(text: &[u8]) -> Look<()> {
    Peek { text, at: 0 }.wrapper_key()
}

/// Whether the text begins with a key of `TraceWrapper` whose value begins like such a trace.
pub(super) fn wrapper(text: &[u8]) -> Look<()> {
    let mut peek = Peek { text, at: 0 };
    peek.wrapper_key()?;
    let field = peek.first_key()?;
    if is_one_of(field, &FIELDS) { Ok(()) } else { Err(Stop::Other) }
}

/// Whether the text begins with an object that is a trace without its `TraceWrapper`. The names of the fields alone
/// would be too little evidence for that: HAR has requests and responses too.
pub(super) fn bare(text: &[u8]) -> Look<TraceKind> {
    /// Keys that may come before the one that tells.
    const MOST: usize = 4;
    let mut peek = Peek { text, at: 0 };
    let mut name = peek.first_key()?;
    for _ in 0..MOST {
        peek.byte(b':')?;
        if is_one_of(name, &["request", "response"]) {
            return peek.http_message().map(|()| TraceKind::HttpBuffered);
        } else if is_one_of(name, &["downstream_connection", "upstream_connection"]) {
            return peek.connection().map(|()| TraceKind::HttpBuffered);
        } else if is_one_of(name, &["request_headers", "request_trailers", "response_headers", "response_trailers"]) {
            let list = peek.first_key()?;
            peek.byte(b':')?;
            return if list == b"headers" { peek.headers() } else { Err(Stop::Other) }
                .map(|()| TraceKind::HttpStreamed);
        } else if is_one_of(name, &["request_body_chunk", "response_body_chunk"]) {
            return peek.body().map(|()| TraceKind::HttpStreamed);
        } else if name == b"connection" {
            let mut whole = peek;
            peek.connection()?;
            // Nothing else is in the segment that begins a connection, unless its keys were sorted.
            whole.value()?;
            let is_segment = match whole.next_key() {
                Ok(next) => next == b"event" || is_key(next, "trace_id"),
                Err(Stop::Other) => true,
                Err(Stop::More) => return Err(Stop::More),
            };
            return Ok(if is_segment { TraceKind::SocketStreamed } else { TraceKind::SocketBuffered });
        } else if name == b"event" {
            return peek.event().map(|()| TraceKind::SocketStreamed);
        } else if name == b"events" {
            return match peek.byte(b'[') {
                Ok(()) => peek.event().map(|()| TraceKind::SocketBuffered),
                Err(Stop::Other) => {
                    let list = peek.first_key()?;
                    peek.byte(b':')?;
                    peek.byte(b'[')?;
                    peek.event()?;
                    if list == b"events" { Ok(TraceKind::SocketStreamed) } else { Err(Stop::Other) }
                }
                Err(Stop::More) => Err(Stop::More),
            };
        } else if !is_key(name, "trace_id") {
            return Err(Stop::Other);
        }
        peek.value()?;
        name = peek.next_key()?;
    }
    Err(Stop::Other)
}

/// Reads tokens from the start of a text.
#[derive(Clone, Copy)]
struct Peek<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Peek<'a> {
    fn peek(&mut self) -> Look<u8> {
        while self.text.get(self.at).copied().is_some_and(is_space) {
            self.at += 1;
        }
        self.text.get(self.at).copied().ok_or(Stop::More)
    }

    fn byte(&mut self, byte: u8) -> Look<()> {
        if self.peek()? == byte {
            self.at += 1;
            Ok(())
        } else {
            Err(Stop::Other)
        }
    }

    /// A string, without unescaping it.
    fn string(&mut self) -> Look<&'a [u8]> {
        self.byte(b'"')?;
        let rest = &self.text[self.at..];
        let len = InString::default().end(rest).ok_or(Stop::More)?;
        self.at += len;
        Ok(&rest[..len - 1])
    }

    fn wrapper_key(&mut self) -> Look<()> {
        self.byte(b'"')?;
        let rest = &self.text[self.at..];
        let Some(name) = WRAPPERS.iter().find(|name| {
            let len = name.len().min(rest.len());
            rest[..len] == name.as_bytes()[..len] && rest.get(len).is_none_or(|byte| *byte == b'"')
        }) else {
            return Err(Stop::Other);
        };
        if rest.len() <= name.len() {
            return Err(Stop::More);
        }
        self.at += name.len() + 1;
        self.byte(b':')
    }

    /// The first key of an object.
    fn first_key(&mut self) -> Look<&'a [u8]> {
        self.byte(b'{')?;
        self.string()
    }

    /// The next key of an object, after a value.
    fn next_key(&mut self) -> Look<&'a [u8]> {
        self.byte(b',')?;
        self.string()
    }

    /// Passes over a value.
    fn value(&mut self) -> Look<()> {
        let mut depth = 0;
        loop {
            match self.peek()? {
                b'"' => drop(self.string()?),
                b'{' | b'[' => {
                    depth += 1;
                    self.at += 1;
                    continue;
                }
                b'}' | b']' if depth > 0 => {
                    depth -= 1;
                    self.at += 1;
                }
                b',' | b':' if depth > 0 => {
                    self.at += 1;
                    continue;
                }
                b',' | b':' | b'}' | b']' => return Err(Stop::Other),
                _ => {
                    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
                    let len = self.text[self.at..].iter().position(|byte| !is_part(byte)).ok_or(Stop::More)?;
                    self.at += len;
                    if len == 0 {
                        return Err(Stop::Other);
                    }
                }
            }
            if depth == 0 {
                return Ok(());
            }
        }
    }

    /// `HttpBufferedTrace.Message`
    fn http_message(&mut self) -> Look<()> {
        let mut name = self.first_key()?;
        loop {
            self.byte(b':')?;
            if name == b"headers" {
                return self.headers();
            }
            if name == b"body" {
                let mut body = *self;
                match body.body() {
                    Err(Stop::Other) => {}
                    told => return told,
                }
            } else if !is_one_of(name, &["trailers", "headers_received_time"]) {
                return Err(Stop::Other);
            }
            self.value()?;
            name = self.next_key()?;
        }
    }

    /// A list of `HeaderValue`. Envoy's heads begin with a pseudo-header.
    fn headers(&mut self) -> Look<()> {
        self.byte(b'[')?;
        let mut name = self.first_key()?;
        loop {
            self.byte(b':')?;
            if name == b"key" {
                return if self.string()?.starts_with(b":") { Ok(()) } else { Err(Stop::Other) };
            }
            if !is_one_of(name, &["value", "raw_value"]) {
                return Err(Stop::Other);
            }
            self.value()?;
            name = self.next_key()?;
        }
    }

    fn body(&mut self) -> Look<()> {
        let name = self.first_key()?;
        if is_one_of(name, &["as_bytes", "as_string"]) { Ok(()) } else { Err(Stop::Other) }
    }

    fn connection(&mut self) -> Look<()> {
        if !is_one_of(self.first_key()?, &["local_address", "remote_address"]) {
            return Err(Stop::Other);
        }
        self.byte(b':')?;
        let member = self.first_key()?;
        let is_address = is_one_of(member, &["socket_address", "pipe", "envoy_internal_address"]);
        if is_address { Ok(()) } else { Err(Stop::Other) }
    }

    fn event(&mut self) -> Look<()> {
        let mut name = self.first_key()?;
        loop {
            self.byte(b':')?;
            if is_one_of(name, &["read", "write"]) {
                let inside = self.first_key()?;
                return if is_one_of(inside, &["data", "end_stream"]) { Ok(()) } else { Err(Stop::Other) };
            }
            if name == b"closed" {
                return self.byte(b'{');
            }
            if !is_one_of(name, &["timestamp", "connection", "seq_num"]) {
                return Err(Stop::Other);
            }
            self.value()?;
            name = self.next_key()?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_known_in_both_spellings() {
        for (name, snake, expected) in [
            ("trace_id", "trace_id", true),
            ("traceId", "trace_id", true),
            ("request_body_chunk", "request_body_chunk", true),
            ("requestBodyChunk", "request_body_chunk", true),
            ("traceid", "trace_id", false),
            ("trace_", "trace_id", false),
            ("trace", "trace_id", false),
            ("trace_ids", "trace_id", false),
            ("trace_Id", "trace_id", false),
        ] {
            assert_eq!(is_key(name.as_bytes(), snake), expected, "{name}");
        }
    }

    /// A text that is cut anywhere says the same, or that more is needed.
    #[test]
    fn traces_are_told_by_their_fields() {
        use TraceKind::{HttpBuffered, HttpStreamed, SocketBuffered, SocketStreamed};
        let connection = r#"{"local_address": {"socket_address": {"address": "10.0.0.1"}}}"#;
        let event = r#"{"timestamp": {"seconds": 1}, "seq_num": "1", "read": {"data": {}}}"#;
        let texts = [
            (r#"{"request": {"headers": [{"key": ":method"}]}}"#.to_owned(), Ok(HttpBuffered)),
            (r#"{"response": {"body": {}, "headers": [{"value": "a", "key": ":status"}]}}"#.into(), Ok(HttpBuffered)),
            (r#"{"response":{"body":{"asBytes":"eA=="}}}"#.into(), Ok(HttpBuffered)),
            (format!(r#"{{"downstreamConnection": {connection}}}"#), Ok(HttpBuffered)),
            (r#"{"traceId": "7", "requestHeaders": {"headers": [{"key": ":path"}]}}"#.into(), Ok(HttpStreamed)),
            (r#"{"trace_id": 7, "request_body_chunk": {"as_string": ""}}"#.into(), Ok(HttpStreamed)),
            (format!(r#"{{"trace_id": 7, "connection": {connection}, "events": []}}"#), Ok(SocketBuffered)),
            (format!(r#"{{"trace_id": 7, "connection": {connection}}}"#), Ok(SocketStreamed)),
            (format!(r#"{{"connection": {connection}, "trace_id": 7}}"#), Ok(SocketStreamed)),
            (format!(r#"{{"trace_id": 7, "event": {event}}}"#), Ok(SocketStreamed)),
            (format!(r#"{{"events": {{"events": [{event}]}}}}"#), Ok(SocketStreamed)),
            (format!(r#"{{"events": [{event}]}}"#), Ok(SocketBuffered)),
            // HAR
            (r#"{"request": {"method": "GET", "headers": [{"name": "a"}]}}"#.into(), Err(Stop::Other)),
            (r#"{"request": {"headers": [{"name": "a", "value": "b"}]}}"#.into(), Err(Stop::Other)),
            (r#"{"request": {"headers": [{"key": "Host"}]}}"#.into(), Err(Stop::Other)),
            (r#"{"request": {"headers": {"host": "a"}}}"#.into(), Err(Stop::Other)),
            (r#"{"connection": {"local_address": "10.0.0.1:80"}}"#.into(), Err(Stop::Other)),
            (r#"{"events": [{"timestamp": 1, "message": "closed"}]}"#.into(), Err(Stop::Other)),
            (r#"{"event": "closed"}"#.into(), Err(Stop::Other)),
            (r#"{"trace_id": "7", "span_id": "8"}"#.into(), Err(Stop::Other)),
            ("{}".into(), Err(Stop::Other)),
            ("[]".into(), Err(Stop::Other)),
        ];
        for (text, expected) in texts {
            assert_eq!(bare(text.as_bytes()), expected, "{text}");
            for len in 0..text.len() {
                let cut = bare(&text.as_bytes()[..len]);
                assert!(cut == expected || cut == Err(Stop::More), "{}: {cut:?}", &text[..len]);
            }
        }
        let wrapped = br#""http_buffered_trace" : {"request""#;
        assert_eq!((wrapper(wrapped), wrapper_key(wrapped)), (Ok(()), Ok(())));
        for (text, is_key) in [
            (&br#""http_buffered_trace": {"$ref": 1}"#[..], true),
            (br#""http_buffered_trace": null"#, true),
            (br#""http_buffered_trace", "request""#, false),
            (br#""http_buffered_traces": {"request": 1}"#, false),
            (br#""http": {"request": 1}"#, false),
        ] {
            assert_eq!(wrapper(text), Err(Stop::Other));
            assert_eq!(wrapper_key(text).is_ok(), is_key);
        }
    }

    #[test]
    fn a_string_ends_at_its_quote_however_it_arrives() {
        let text = br#"a\"b\\" x"#;
        for split in 0..=7 {
            let mut string = InString::default();
            let first = string.end(&text[..split]);
            let end = first.or_else(|| string.end(&text[split..]).map(|end| split + end));
            assert_eq!(end, Some(7), "{split}");
        }
        assert_eq!(InString::default().end(b"a\nb\""), Some(2));
    }
}
