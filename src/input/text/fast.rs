//! A fast path for the one shape that nearly every event has.
//!
//! The parser looks at each token and the blanks around it, and looks up the field of each name. For small events, that
//! is most of the work. Envoy prints an event in one way only, so the fast path compares its frame in long pieces, and
//! only parses the numbers and the payload in it.
//!
//! The fields that a newer Envoy adds to an event follow all that this version knows; those with simple values are
//! skipped and counted. At any other byte, the fast path gives up and leaves the message unchanged. The parser, which
//! is the reference implementation, then reads the event; property tests compare the two.

use memchr::{memchr, memchr2};

use super::unescape::unescape;
use crate::{
    input::{
        line::Line,
        schema::{EventParts, SchemaFields},
    },
    trace::{Body, Event, EventKind, Message, Nanos, Span, TraceKind, nanos_from_timestamp},
};

/// The outcome of the fast path.
pub(super) enum FastText<T> {
    /// What was read, where it ends in the window, and where the fields of a newer Envoy begin, if it has any.
    Read(T, usize, Option<usize>),
    /// So far the text is as expected, but the window ends inside the literal that starts here.
    Cut(usize),
    /// The text has another shape, and is left to the parser. The message is unchanged.
    Other,
}

/// How many messages are open at the payload of a segment.
pub(super) const DEPTH: usize = 4;

/// Reads a streamed segment with one event, which reads or writes bytes, into `out`, which must be cleared.
#[inline]
pub(super) fn segment(window: &[u8], start: usize, out: &mut Message) -> FastText<()> {
    let mut line = Line { rest: window.get(start..).unwrap_or_default() };
    let Some(trace_id) = before_event(&mut line) else { return FastText::Other };
    match event(window, window.len() - line.rest.len(), out) {
        FastText::Read(event, end, newer) => {
            if !window[end..].starts_with(b"\n}") {
                out.scratch().clear();
                return FastText::Other;
            }
            out.kind = Some(TraceKind::SocketStreamed);
            out.trace_id = trace_id;
            out.events.push(event);
            FastText::Read((), end + 2, newer)
        }
        FastText::Cut(at) => FastText::Cut(at),
        FastText::Other => FastText::Other,
    }
}

#[inline(always)]
fn before_event(line: &mut Line<'_>) -> Option<u64> {
    line.expect(b"socket_streamed_trace_segment {\n  trace_id: ")?;
    let trace_id = line.number()?;
    line.expect(b"\n  event {")?;
    Some(trace_id)
}

/// Reads an event that reads or writes bytes, from after its opening brace to after the closing one. A payload with
/// escapes goes to the scratch space of `out`. Events have the same indentation in buffered traces and in segments.
#[inline]
pub(super) fn event(window: &[u8], at: usize, out: &mut Message) -> FastText<Event> {
    let Some((time, kind, rest)) = before_payload(&window[at..]) else { return FastText::Other };
    let start = window.len() - rest.len();
    // A literal cannot contain a line feed.
    let Some(len) = memchr(b'\n', rest) else { return FastText::Cut(start - 1) };
    let (literal, rest) = rest.split_at(len);
    let [literal @ .., b'"'] = literal else { return FastText::Other };
    let Some((truncated, end_stream, seq_num, newer, rest)) = after_payload(rest, kind) else {
        return FastText::Other;
    };
    let payload = match memchr2(b'\\', b'"', literal) {
        None => Span::in_window(start, literal.len()),
        Some(plain) => {
            let scratch = out.scratch();
            let begin = scratch.len();
            scratch.extend_from_slice(&literal[..plain]);
            match unescape(window, b'"', start + plain, scratch) {
                Ok(Some(end)) if end == start + len => out.scratch_span(begin),
                _ => {
                    scratch.truncate(begin);
                    return FastText::Other;
                }
            }
        }
    };
    let body = Body { payload, truncated, as_string: false };
    let event = Event { time: Some(time), kind, body, end_stream, seq_num, connection: None, segment: 0, trace_id: 0 };
    FastText::Read(event, window.len() - rest.len(), newer.map(|newer| window.len() - newer))
}

/// Reads up to and including the opening quote of the payload.
#[inline(always)]
fn before_payload(text: &[u8]) -> Option<(Nanos, EventKind, &[u8])> {
    let mut line = Line { rest: text };
    line.expect(b"\n    timestamp {\n      seconds: ")?;
    let seconds = line.number()?;
    let nanos = if line.has(b"\n      nanos: ") { line.number()? } else { 0 };
    let time = nanos_from_timestamp(seconds.cast_signed(), nanos.cast_signed()).ok()?;
    let kind = if line.has(b"\n    }\n    read {\n      data {\n        as_bytes: \"") {
        EventKind::Read
    } else {
        line.expect(b"\n    }\n    write {\n      data {\n        as_bytes: \"")?;
        EventKind::Write
    };
    Some((time, kind, line.rest))
}

/// The text after the last field of an event.
const END: &[u8; 4] = b"\n  }";

/// Reads from the line feed after the payload to after the closing brace of the event. The fourth value is how many
/// bytes before the end of the text the fields of a newer Envoy begin. Envoy does not print fields that are false or 0.
#[inline(always)]
#[expect(clippy::type_complexity, reason = "taken apart where it is called")]
fn after_payload(text: &[u8], kind: EventKind) -> Option<(bool, bool, u64, Option<usize>, &[u8])> {
    let mut line = Line { rest: text };
    let truncated = line.has(b"\n        truncated: true");
    line.expect(b"\n      }")?;
    let end_stream = kind == EventKind::Write && line.has(b"\n      end_stream: true");
    line.expect(b"\n    }")?;
    let seq_num = if line.has(b"\n    seq_num: ") { line.number()? } else { 0 };
    let mut newer = None;
    if !line.has(END) {
        newer = Some(line.rest.len());
        line = after_newer(line)?;
    }
    Some((truncated, end_stream, seq_num, newer, line.rest))
}

/// Steps over the fields of a newer Envoy, to after the closing brace of the event.
#[inline(never)]
fn after_newer(mut line: Line<'_>) -> Option<Line<'_>> {
    while !line.has(END) {
        let (name, _) = newer_field(&mut line)?;
        if EventParts::named(name.as_bytes(), false).is_some() {
            return None;
        }
    }
    Some(line)
}

/// The fields of a newer Envoy that begin at `window[at]`: the name of each, and where the name ends.
pub(super) fn newer(window: &[u8], at: usize) -> impl Iterator<Item = (&str, usize)> {
    let mut line = Line { rest: &window[at..] };
    std::iter::from_fn(move || newer_field(&mut line)).map(|(name, left)| (name, window.len() - left))
}

/// Steps over a field with a value that is neither a list nor a message. Returns its name, and how many bytes follow
/// the name.
#[inline]
fn newer_field<'a>(line: &mut Line<'a>) -> Option<(&'a str, usize)> {
    line.expect(b"\n    ")?;
    let name = word(line)?;
    let left = line.rest.len();
    line.expect(b": ")?;
    if line.has(b"\"") {
        let (string, rest) = line.rest.split_at(memchr(b'"', line.rest)?);
        if string.iter().any(|byte| !matches!(byte, b' '..=b'~') || *byte == b'\\') {
            return None;
        }
        line.rest = &rest[1..];
    } else if word(line).is_none() {
        line.number()?;
    }
    Some((name, left))
}

/// Steps over a name, such as that of a field or of a value of an enumeration.
#[inline]
fn word<'a>(line: &mut Line<'a>) -> Option<&'a str> {
    let len = line.rest.iter().position(|byte| !(byte.is_ascii_alphanumeric() || *byte == b'_'))?;
    let (word, rest) = line.rest.split_at(len);
    if !word.first()?.is_ascii_alphabetic() {
        return None;
    }
    line.rest = rest;
    str::from_utf8(word).ok()
}
