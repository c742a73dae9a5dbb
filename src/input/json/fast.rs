//! The one shape that nearly every event has, read in a straight line.
//!
//! serde asks at each name which field it is, checks that it is UTF-8, and looks for white space around every token;
//! for small events, that is nearly all of the work. Envoy prints an event in one way only, so this compares its frame
//! in long pieces and looks at nothing but the numbers, the time and the payload in it. What a newer Envoy writes more
//! of an event stands after all that this version knows; of that, simple values are skipped and counted. On any other
//! byte this gives up without a trace, and the general decoder, which is the reference implementation, reads the object;
//! a property test holds the two together.

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

/// What became of a text.
pub(super) enum FastJson {
    /// A segment with an event, of so many bytes.
    Segment(usize),
    /// So far it is one, but the text ends inside its payload.
    Cut,
    /// The general decoder may know what it is. The message is still clear.
    Other,
}

/// Reads a `TraceWrapper` that holds a streamed segment with one event, which reads or writes bytes, into `out`, which
/// is clear.
#[inline]
pub(super) fn segment(text: &[u8], out: &mut Message, times: &mut Times) -> FastJson {
    let Some((trace_id, time, kind, payload)) = before_payload(text, times) else { return FastJson::Other };
    let Some(len) = memchr(b'"', payload) else {
        // After a backslash, more than the payload's end may be wrong.
        return if memchr(b'\\', payload).is_none() { FastJson::Cut } else { FastJson::Other };
    };
    let (base64, rest) = payload.split_at(len);
    let Some((truncated, end_stream, seq_num, newer, rest)) = behind_payload(rest, kind) else {
        return FastJson::Other;
    };
    let scratch = out.scratch();
    // The decoder grows the space by exactly what it needs, which would copy all of it for every event.
    scratch.reserve(STANDARD.estimated_decoded_length(base64.len()));
    if STANDARD.decode_append(base64, scratch).is_err() {
        scratch.clear();
        return FastJson::Other;
    }
    let body = Body { payload: out.scratch_span(0), truncated, as_string: false };
    out.kind = Some(TraceKind::SocketStreamed);
    out.trace_id = trace_id;
    out.events.push(Event { time: Some(time), kind, body, end_stream, seq_num, connection: None, segment: 0 });
    if let Some(newer) = newer {
        count_newer(newer, out);
    }
    FastJson::Segment(text.len() - rest.len())
}

/// Up to the first digit of the payload.
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

/// What stands after the last member of an event.
const END: &[u8; 9] = b"\n  }\n }\n}";

/// From the quote after the payload up to the end of the object, and where the members of a newer Envoy begin. Before
/// 1.37, Envoy knew no seq_num.
#[inline(always)]
#[expect(clippy::type_complexity, reason = "taken apart where it is called")]
fn behind_payload(text: &[u8], kind: EventKind) -> Option<(bool, bool, u64, Option<Line<'_>>, &[u8])> {
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
        line = behind_newer(line)?;
    }
    Some((truncated, end_stream, seq_num, newer, line.rest))
}

/// From after the last member that this version knows up to the end of the object.
#[inline(never)]
fn behind_newer(mut line: Line<'_>) -> Option<Line<'_>> {
    while !line.has(END) {
        let name = newer_member(&mut line)?;
        if EventParts::named(name.as_bytes(), true).is_some() {
            return None;
        }
    }
    Some(line)
}

/// Counts the members that [`behind_newer`] stepped over.
#[inline(never)]
fn count_newer(mut line: Line<'_>, out: &mut Message) {
    while let Some(name) = newer_member(&mut line) {
        out.unknown.count_name(EventParts::MESSAGE, name);
    }
}

/// Steps over a member with a value that is neither a list nor an object, and answers its name.
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
