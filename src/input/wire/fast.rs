//! A fast path for the one shape that nearly every event has.
//!
//! The general scanner looks up the field of each tag, which is most of the work for small events. Envoy writes the
//! fields of an event in the order of their numbers, so the fast path only checks that each byte is the expected one.
//! It also reads consecutive segments as one batch, which spreads the cost of a message over many events.
//!
//! The fields that a newer Envoy adds to an event have higher numbers, so they follow all that this version knows, and
//! are counted. At any other byte, the fast path gives up and leaves the message unchanged. The general scanner, which
//! is the reference implementation, then reads it; property tests compare the two.

use super::{Scanner, join_groups};
use crate::{
    input::schema::{EventParts, SchemaFields},
    trace::{Body, Event, EventKind, MAX_BATCH, Message, Nanos, Span, TraceKind},
};

/// Bytes that must follow the start of an event. They are more than come before its payload (seven lengths of up to 3
/// bytes, three numbers of up to 8, nine tags), so reading those need not check at each step whether the window ends.
const HEAD: usize = 64;

/// How each `TraceWrapper` is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::input) enum WireFraming {
    /// PROTO_BINARY: not at all.
    Bare,
    /// PROTO_BINARY_LENGTH_DELIMITED: by its length before it.
    Delimited,
}

/// Reads the segments at the start of `window` into `out`, which must be cleared. Returns where the
/// last one ends, or `None` if the first one does not have this shape.
pub(in crate::input) fn run(framing: WireFraming, window: &[u8], out: &mut Message) -> Option<usize> {
    let mut at = 0;
    let mut second = Second::default();
    // The message would drop events beyond its limit.
    let most = MAX_BATCH.min(out.events.limit());
    while out.events.len() < most {
        let Some((event, end)) = segment(framing, window, at, &mut second, out) else { break };
        out.events.push(event);
        at = end;
    }
    if at == 0 {
        out.trace_id = 0;
        return None;
    }
    out.kind = Some(TraceKind::SocketStreamed);
    out.set_messages_per_event();
    Some(at)
}

/// Reads a `TraceWrapper` that holds a streamed segment with one such event. Returns the event, and where the
/// `TraceWrapper` ends.
#[inline(always)]
fn segment(
    framing: WireFraming,
    window: &[u8],
    start: usize,
    second: &mut Second,
    out: &mut Message,
) -> Option<(Event, usize)> {
    let mut head = EventHead { bytes: window.get(start..)?.first_chunk()?, at: 0 };
    let wrapper_end = if framing == WireFraming::Delimited { head.end()? } else { 0 };
    // socket_streamed_trace_segment = 4
    head.expect(0x22)?;
    let end = head.end()?;
    // trace_id = 1
    head.expect(0x08)?;
    let trace_id = head.varint()?;
    if start == 0 {
        out.trace_id = trace_id;
    }
    // event = 3
    head.expect(0x1a)?;
    if head.end()? != end || (framing == WireFraming::Delimited && wrapper_end != end) {
        return None;
    }
    let mut event = event_after(head, window, start, end, second, out)?;
    // A batch is far shorter than 4 GiB, because each of its `MAX_BATCH` messages is not much longer than 2 MiB.
    event.segment = start as u32;
    event.trace_id = trace_id;
    Some((event, start + end))
}

/// Reads `SocketEvent { timestamp { seconds, nanos }, read or write { data { as_bytes } }, seq_num }` from
/// `window[start..end]`, which must be a whole event.
#[inline]
pub(super) fn event(window: &[u8], start: usize, end: usize, out: &mut Message) -> Option<Event> {
    let head = EventHead { bytes: window.get(start..)?.first_chunk()?, at: 0 };
    event_after(head, window, start, end.checked_sub(start)?, &mut Second::default(), out)
}

/// Reads the event that begins at `head` and ends before `window[start + end]`; positions in `head` count from `start`.
/// Fields of a newer Envoy are counted in `out`.
#[inline(always)]
fn event_after(
    mut head: EventHead<'_>,
    window: &[u8],
    start: usize,
    end: usize,
    second: &mut Second,
    out: &mut Message,
) -> Option<Event> {
    // timestamp = 1, of which seconds = 1 and nanos = 2
    head.expect(0x0a)?;
    let time_end = head.end()?;
    head.expect(0x08)?;
    let seconds = head.seconds(second)?;
    let nanos = if head.at < time_end {
        head.expect(0x10)?;
        head.varint()?
    } else {
        0
    };
    if head.at != time_end || nanos >= 1_000_000_000 {
        return None;
    }
    // read = 2 or write = 3
    let kind = match head.byte()? {
        0x12 => EventKind::Read,
        0x1a => EventKind::Write,
        _ => return None,
    };
    let selector_end = head.end()?;
    // data = 1, of which as_bytes = 1
    head.expect(0x0a)?;
    let data_end = head.end()?;
    head.expect(0x0a)?;
    let payload_end = head.end()?;
    if data_end != payload_end || selector_end != payload_end || payload_end > end {
        return None;
    }
    // seq_num = 6
    let seq_num = if payload_end < end {
        let mut tail = EventHead { bytes: window.get(start + payload_end..)?.first_chunk::<9>()?, at: 0 };
        match tail.expect(0x30).and_then(|()| tail.varint()) {
            Some(seq_num) if payload_end + tail.at == end => seq_num,
            Some(seq_num) => {
                count_newer(window, start + payload_end + tail.at, start + end, out)?;
                seq_num
            }
            None => {
                count_newer(window, start + payload_end, start + end, out)?;
                0
            }
        }
    } else if start + end <= window.len() {
        0
    } else {
        return None;
    };
    Some(Event {
        time: Some(seconds + nanos),
        kind,
        body: Body {
            payload: Span::in_window(start + head.at, payload_end - head.at),
            truncated: false,
            as_string: false,
        },
        end_stream: false,
        seq_num,
        connection: None,
        segment: 0,
        trace_id: 0,
    })
}

/// Whether all of `window[at..end]` consists of event fields that this version does not know.
fn is_newer(window: &[u8], at: usize, end: usize) -> bool {
    if at > end || end > window.len() {
        return false;
    }
    let mut scan = Scanner::new(window, at, end, false);
    while !scan.is_empty() {
        let Ok(tag) = scan.tag() else { return false };
        let is_known = EventParts::has(tag.field, true) || EventParts::has(tag.field, false);
        if is_known || scan.skip(tag).is_err() {
            return false;
        }
    }
    true
}

/// Counts the fields of `window[at..end]` if all of them are [newer](is_newer), else none.
#[cold]
#[inline(never)]
fn count_newer(window: &[u8], at: usize, end: usize, out: &mut Message) -> Option<()> {
    if !is_newer(window, at, end) {
        return None;
    }
    let mut scan = Scanner::new(window, at, end, false);
    while !scan.is_empty() {
        // `is_newer` has skipped the same fields without an error.
        if scan.tag().and_then(|tag| scan.unknown(tag, EventParts::MESSAGE, out)).is_err() {
            break;
        }
    }
    Some(())
}

/// The seconds of the previous event, because most events happen in the same second.
#[derive(Debug, Default)]
struct Second {
    /// The seconds as encoded, in `len` bytes.
    encoded: u64,
    mask: u64,
    len: usize,
    nanos: Nanos,
}

/// The first bytes of an event, and how many of them were read.
struct EventHead<'a, const LEN: usize = HEAD> {
    bytes: &'a [u8; LEN],
    at: usize,
}

impl<const LEN: usize> EventHead<'_, LEN> {
    #[inline(always)]
    fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    #[inline(always)]
    fn expect(&mut self, expected: u8) -> Option<()> {
        (self.byte()? == expected).then_some(())
    }

    /// Reads a length and returns where the bytes that it counts end. A length of 2 MiB or more takes over three bytes,
    /// and is left to the general scanner, which is fast enough for so large a message.
    #[inline(always)]
    fn end(&mut self) -> Option<usize> {
        let [first, second, third] = *self.bytes.get(self.at..)?.first_chunk::<3>()?;
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
        Some(self.at + len)
    }

    #[inline(always)]
    fn word(&self) -> Option<u64> {
        Some(u64::from_le_bytes(*self.bytes.get(self.at..)?.first_chunk::<8>()?))
    }

    /// A number of up to eight bytes.
    #[inline(always)]
    fn varint(&mut self) -> Option<u64> {
        let word = self.word()?;
        if word & 0x80 == 0 {
            self.at += 1;
            return Some(word & 0x7f);
        }
        let ends = !word & 0x8080_8080_8080_8080;
        if ends == 0 {
            return None;
        }
        self.at += ends.trailing_zeros() as usize / 8 + 1;
        Some(join_groups(word & (ends ^ (ends - 1))))
    }

    /// Whole seconds as nanoseconds. More than 32 bits of seconds are left to the general scanner.
    #[inline(always)]
    fn seconds(&mut self, second: &mut Second) -> Option<Nanos> {
        let word = self.word()?;
        if second.len > 0 && word & second.mask == second.encoded {
            self.at += second.len;
            return Some(second.nanos);
        }
        let before = self.at;
        let seconds = u32::try_from(self.varint()?).ok()?;
        let len = self.at - before;
        let mask = u64::MAX >> (64 - 8 * len);
        *second = Second { encoded: word & mask, mask, len, nanos: Nanos::from(seconds) * 1_000_000_000 };
        Some(second.nanos)
    }
}
