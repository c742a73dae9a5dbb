//! The one shape that nearly every event has, read in a straight line.
//!
//! The general scanner looks at each tag and asks which field it is. Envoy writes the fields of an event in the order
//! of their numbers, so for small events, where that asking is most of the work, this asks only whether the next byte
//! is the expected one: it takes a third of the instructions. On any other byte it gives up without a trace, and the
//! general scanner, its slow twin, reads the event; a property test holds the two together.

use super::join_groups;
use crate::trace::{Body, Event, EventKind, Span, nanos_from_timestamp};

/// Reads a `TraceWrapper` that holds a streamed segment with one such event from `window[at..end]`, and answers its
/// trace_id with it.
#[inline]
pub(super) fn segment(window: &[u8], at: usize, end: usize) -> Option<(u64, Event)> {
    let mut line = Line { window, at };
    // socket_streamed_trace_segment = 4
    line.expect(0x22)?;
    let segment_len = line.length()?;
    if line.at + segment_len != end {
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
    Some((trace_id, event(window, line.at, end)?))
}

/// Reads `SocketEvent { timestamp { seconds, nanos }, read or write { data { as_bytes } }, seq_num }` from
/// `window[at..end]`: a whole event, or nothing.
#[inline]
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
    (line.at == end).then_some(Event {
        time: Some(time.ok()?),
        kind,
        body: Body { payload: Span::in_window(start, len), truncated: false, as_string: false },
        end_stream: false,
        seq_num,
        connection: None,
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
