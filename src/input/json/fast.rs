//! A fast path for the one shape that nearly every event has.
//!
//! The general decoder looks up the field of each name, checks that names are UTF-8, and looks for white space around
//! every token. For small events, that is nearly all of the work. Envoy prints an event in one way only, so the fast
//! path compares its frame in long pieces, and only parses the numbers, the time and the payload in it.
//!
//! The fields that a newer Envoy adds to an event follow all that this version knows; those with simple values are
//! skipped and counted. At any other byte, the fast path gives up and leaves the message unchanged. The general
//! decoder, which is the reference implementation, then reads the object; property tests compare the two.

use base64_simd::STANDARD;
use memchr::memchr;

use super::times::Times;
use crate::{
    input::{
        line::Line,
        schema::{EventParts, SchemaFields},
    },
    trace::{Body, Event, EventKind, Message, Nanos, TraceKind, nanos_from_timestamp},
};

/// The outcome of the fast path.
pub(super) enum FastJson {
    /// A segment with an event was read; its length in bytes.
    Segment(usize),
    /// So far the text is as expected, but it ends inside the payload.
    Cut,
    /// The text has another shape, and is left to the general decoder. The message is still empty.
    Other,
}

/// Reads a `TraceWrapper` that holds a streamed segment with one event, which reads or writes bytes, into `out`, which
/// must be cleared.
#[inline]
pub(super) fn segment(text: &[u8], out: &mut Message, times: &mut Times) -> FastJson {
    let Some((trace_id, time, kind, payload)) = before_payload(text, times) else { return FastJson::Other };
    let Some(len) = memchr(b'"', payload) else {
        // Base64 has no backslash, so more bytes alone would not make this a plain payload.
        return if memchr(b'\\', payload).is_none() { FastJson::Cut } else { FastJson::Other };
    };
    let (base64, rest) = payload.split_at(len);
    let Some((truncated, end_stream, seq_num, newer, rest)) = after_payload(rest, kind) else {
        return FastJson::Other;
    };
    let scratch = out.scratch();
    // By itself, the base64 decoder grows the space by exactly what it needs, and so would copy all of it for every
    // event.
    scratch.reserve(STANDARD.estimated_decoded_length(base64.len()));
    if STANDARD.decode_append(base64, scratch).is_err() {
        scratch.clear();
        return FastJson::Other;
    }
    let body = Body { payload: out.scratch_span(0), truncated, as_string: false };
    out.kind = Some(TraceKind::SocketStreamed);
    out.trace_id = trace_id;
    out.events.push(Event {
        time: Some(time),
        kind,
        body,
        end_stream,
        seq_num,
        connection: None,
        segment: 0,
        trace_id: 0,
    });
    if let Some(newer) = newer {
        count_newer(newer, out);
    }
    FastJson::Segment(text.len() - rest.len())
}

/// Reads up to the first base64 digit of the payload.
#[inline(always)]
fn before_payload<'a>(text: &'a [u8], times: &mut Times) -> Option<(u64, Nanos, EventKind, &'a [u8])> {
    let mut line = Line { rest: text };
    line.expect(b"{\n \"socket_streamed_trace_segment\": {\n  \"trace_id\": \"")?;
    let trace_id = line.number()?;
    line.expect(b"\",\n  \"event\": {\n   \"timestamp\": \"")?;
    let (seconds, nanos, rest) = times.read_utc(line.rest)?;
    let time = nanos_from_timestamp(seconds, nanos).ok()?;
    line.rest = rest;
    line.expect(b"\",\n   \"")?;
    let kind = if line.has(b"read\": {\n    \"data\": {\n     \"as_bytes\": \"") {
        EventKind::Read
    } else if line.has(b"write\": {\n    \"data\": {\n     \"as_bytes\": \"") {
        EventKind::Write
    } else {
        return None;
    };
    Some((trace_id, time, kind, line.rest))
}

/// The text after the last member of an event.
const END: &[u8; 9] = b"\n  }\n }\n}";

/// Reads from the quote after the payload to the end of the object. The fourth value is where the members of a newer
/// Envoy begin. Envoy before 1.37 does not write `seq_num`.
#[inline(always)]
#[expect(clippy::type_complexity, reason = "taken apart where it is called")]
fn after_payload(text: &[u8], kind: EventKind) -> Option<(bool, bool, u64, Option<Line<'_>>, &[u8])> {
    let mut line = Line { rest: text };
    line.expect(b"\",\n     \"truncated\": ")?;
    let truncated = flag(&mut line)?;
    line.expect(b"\n    }")?;
    let mut end_stream = false;
    if kind == EventKind::Write {
        line.expect(b",\n    \"end_stream\": ")?;
        end_stream = flag(&mut line)?;
    }
    let mut seq_num = 0;
    if line.has(b"\n   },\n   \"seq_num\": \"") {
        seq_num = line.number()?;
        line.expect(b"\"")?;
    } else {
        line.expect(b"\n   }")?;
    }
    let mut newer = None;
    if !line.has(END) {
        newer = Some(line);
        line = after_newer(line)?;
    }
    Some((truncated, end_stream, seq_num, newer, line.rest))
}

/// Steps over the members of a newer Envoy, to the end of the object.
#[inline(never)]
fn after_newer(mut line: Line<'_>) -> Option<Line<'_>> {
    while !line.has(END) {
        let name = newer_member(&mut line)?;
        if EventParts::named(name.as_bytes(), true).is_some() {
            return None;
        }
    }
    Some(line)
}

/// Counts the members that [`after_newer`] stepped over.
#[inline(never)]
fn count_newer(mut line: Line<'_>, out: &mut Message) {
    while let Some(name) = newer_member(&mut line) {
        out.unknown.count_name(EventParts::MESSAGE, name);
    }
}

/// Steps over a member with a value that is neither a list nor an object, and returns its name.
#[inline]
fn newer_member<'a>(line: &mut Line<'a>) -> Option<&'a str> {
    line.expect(b",\n   \"")?;
    let name = string(line)?;
    line.expect(b": ")?;
    if line.has(b"\"") {
        string(line)?;
    } else if !(line.has(b"true") || line.has(b"false") || line.has(b"null")) {
        line.number()?;
    }
    Some(name)
}

/// Steps over a string of plain characters, from after its opening quote to after the closing one.
#[inline]
fn string<'a>(line: &mut Line<'a>) -> Option<&'a str> {
    let (string, rest) = line.rest.split_at(memchr(b'"', line.rest)?);
    if string.iter().any(|byte| !matches!(byte, b' '..=b'~') || *byte == b'\\') {
        return None;
    }
    line.rest = &rest[1..];
    str::from_utf8(string).ok()
}

#[inline(always)]
fn flag(line: &mut Line<'_>) -> Option<bool> {
    if line.has(b"false") { Some(false) } else { line.expect(b"true").map(|()| true) }
}
