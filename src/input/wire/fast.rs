//! The one shape that nearly every event has, read in a straight line.
//!
//! The general scanner looks at each tag and asks which field it is. Envoy writes the fields of an event in the order
//! of their numbers, so for small events, where that asking is most of the work, this asks only whether the next byte
//! is the expected one. And what comes in one piece is handed on in one piece: the segments of a connection that
//! follow each other become one message, a run, so that what a message costs is shared by many events. On any other
//! byte it gives up without a trace, and the general scanner, its slow twin, reads the message; property tests hold the
//! two together.

use super::join_groups;
use crate::trace::{Body, Event, EventKind, Message, Span, TraceKind, nanos_from_timestamp};

/// Events of a run at most: enough to share the cost of a message, few enough to stay in a core's cache.
pub(super) const RUN: usize = 128;

/// What stands around one `TraceWrapper` after another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::input) enum Framing {
    /// PROTO_BINARY: nothing.
    Bare,
    /// PROTO_BINARY_LENGTH_DELIMITED: its length before it.
    Delimited,
}

/// Reads the run of segments that `window` begins with into `out`, which is clear, and answers where it ends; nothing
/// where the first segment is not of this shape.
#[inline]
pub(in crate::input) fn run(framing: Framing, window: &[u8], out: &mut Message) -> Option<usize> {
    let mut at = 0;
    while out.events.len() < RUN {
        let Some((trace_id, event, end)) = segment(framing, window, at) else { break };
        if at == 0 {
            out.trace_id = trace_id;
        } else if trace_id != out.trace_id {
            break;
        }
        out.events.push(event);
        at = end;
    }
    if at == 0 {
        return None;
    }
    out.kind = Some(TraceKind::SocketStreamed);
    out.run = true;
    Some(at)
}

/// Reads a `TraceWrapper` that holds a streamed segment with one such event, and answers its trace_id and where it ends
/// with it.
#[inline(always)]
fn segment(framing: Framing, window: &[u8], at: usize) -> Option<(u64, Event, usize)> {
    let mut line = Line { window, at };
    let wrapper_len = if framing == Framing::Delimited { line.length()? } else { 0 };
    let wrapper = line.at;
    // socket_streamed_trace_segment = 4
    line.expect(0x22)?;
    let segment_len = line.length()?;
    let end = line.at + segment_len;
    if framing == Framing::Delimited && wrapper + wrapper_len != end {
        return None;
    }
    // trace_id = 1
    line.expect(0x08)?;
    let trace_id = line.varint()?;
    // event = 3
    line.expect(0x1a)?;
    let event_len = line.length()?;
    if line.at + event_len != end {
        return None;
    }
    let mut event = event(window, line.at, end)?;
    // Runs are far shorter than 4 GiB, as all their lengths are below 2 MiB.
    event.segment = at as u32;
    Some((trace_id, event, end))
}

/// Reads `SocketEvent { timestamp { seconds, nanos }, read or write { data { as_bytes } }, seq_num }` from
/// `window[at..end]`: a whole event, or nothing.
#[inline(always)]
pub(super) fn event(window: &[u8], at: usize, end: usize) -> Option<Event> {
    let mut line = Line { window, at };
    // timestamp = 1, of which seconds = 1 and nanos = 2
    line.expect(0x0a)?;
    let time_len = line.length()?;
    let time_end = line.at + time_len;
    line.expect(0x08)?;
    let seconds = line.varint()?;
    let nanos = if line.at < time_end {
        line.expect(0x10)?;
        line.varint()?
    } else {
        0
    };
    if line.at != time_end {
        return None;
    }
    // Beyond 32 bits, the general scanner knows what to do.
    let time = nanos_from_timestamp(i64::from(u32::try_from(seconds).ok()?), i64::from(u32::try_from(nanos).ok()?));
    // read = 2 or write = 3
    let kind = match line.byte()? {
        0x12 => EventKind::Read,
        0x1a => EventKind::Write,
        _ => return None,
    };
    let selector_len = line.length()?;
    let selector_end = line.at + selector_len;
    // data = 1, of which as_bytes = 1
    line.expect(0x0a)?;
    let data_len = line.length()?;
    let data_end = line.at + data_len;
    line.expect(0x0a)?;
    let len = line.length()?;
    let start = line.at;
    let payload_end = start + len;
    if data_end != payload_end || selector_end != payload_end || payload_end > end {
        return None;
    }
    line.at = payload_end;
    // seq_num = 6
    let seq_num = if line.at < end {
        line.expect(0x30)?;
        line.varint()?
    } else {
        0
    };
    if line.at != end || end > window.len() {
        return None;
    }
    Some(Event {
        time: Some(time.ok()?),
        kind,
        body: Body { payload: Span::in_window(start, len), truncated: false, as_string: false },
        end_stream: false,
        seq_num,
        connection: None,
        segment: 0,
    })
}

struct Line<'a> {
    window: &'a [u8],
    at: usize,
}

impl Line<'_> {
    #[inline(always)]
    fn byte(&mut self) -> Option<u8> {
        let byte = *self.window.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    #[inline(always)]
    fn expect(&mut self, expected: u8) -> Option<()> {
        (self.byte()? == expected).then_some(())
    }

    /// A length below 2 MiB: more than three bytes of it are not worth the speed.
    #[inline(always)]
    fn length(&mut self) -> Option<usize> {
        let [first, second, third] = *self.window.get(self.at..)?.first_chunk::<3>()?;
        let (len, bytes) = if first < 0x80 {
            (usize::from(first), 1)
        } else if second < 0x80 {
            (usize::from(first & 0x7f) | usize::from(second) << 7, 2)
        } else if third < 0x80 {
            (usize::from(first & 0x7f) | usize::from(second & 0x7f) << 7 | usize::from(third) << 14, 3)
        } else {
            return None;
        };
        self.at += bytes;
        Some(len)
    }

    #[inline(always)]
    fn varint(&mut self) -> Option<u64> {
        let word = u64::from_le_bytes(*self.window.get(self.at..)?.first_chunk::<8>()?);
        let ends = !word & 0x8080_8080_8080_8080;
        if ends == 0 {
            return None;
        }
        self.at += ends.trailing_zeros() as usize / 8 + 1;
        Some(join_groups(word & (ends ^ (ends - 1))))
    }
}
