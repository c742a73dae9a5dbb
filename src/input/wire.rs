//! The protobuf wire format of a `TraceWrapper`, scanned by hand.
//!
//! This is the hot path of the binary encodings: a generated decoder spends most of its time on allocations that a
//! trace of small events does not need. Payloads stay in the window, as spans. The reference implementation is prost
//! with the messages of [`crate::proto`]; property tests compare the two.
//!
//! A scanner is strict, or lax for a message that the source cuts off. If a field claims more bytes than are left, a
//! lax scanner gives it those that are left, and sets [`Message::cut`].

mod fast;
#[cfg(test)]
#[cfg(feature = "record")]
pub(super) mod tests;

pub(super) use fast::{WireFraming, run};

use super::schema::{
    Cursor, Element, HttpBuffered, HttpStreamed, MessageEnd, Parts, SchemaFields, SchemaRecord, SocketBuffered,
    SocketStreamed, Type,
};
use crate::trace::{Body, Event, Message, Span, TraceKind, WireFault};

/// Groups may nest as deep as protobuf's own parsers allow.
const MAX_DEPTH: u32 = 100;

/// Protobuf messages are smaller than 2 GiB.
pub(crate) const MAX_LEN: u64 = (1 << 31) - 1;

/// Why bytes are not a message, and where.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct WireError {
    /// Offset in the window.
    pub at: usize,
    /// What is wrong there.
    pub reason: WireFault,
}

/// The error is boxed so that a result travels in registers.
type Result<T> = std::result::Result<T, Box<WireError>>;

/// A field's number and wire type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tag {
    pub field: u32,
    pub wire_type: u8,
}

const VARINT: u8 = 0;
const FIXED64: u8 = 1;
pub(crate) const LEN: u8 = 2;
const START_GROUP: u8 = 3;
const END_GROUP: u8 = 4;
const FIXED32: u8 = 5;

/// Walks the fields of one message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scanner<'a> {
    window: &'a [u8],
    /// The next byte.
    at: usize,
    /// The byte after the message; at most the window's length.
    end: usize,
    lax: bool,
    /// The field claimed more bytes than there are.
    clamped: bool,
}

impl<'a> Scanner<'a> {
    /// Scans `window[start..end]`, or as much of it as there is; the offsets of errors and spans count from the start
    /// of `window`.
    pub(crate) fn new(window: &'a [u8], start: usize, end: usize, lax: bool) -> Self {
        Self { window, at: start, end: end.min(window.len()), lax, clamped: false }
    }

    #[inline]
    pub(crate) fn position(&self) -> usize {
        self.at
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.at >= self.end
    }

    #[inline]
    fn left(&self) -> usize {
        self.end.saturating_sub(self.at)
    }

    #[cold]
    fn error(&self, reason: WireFault) -> Box<WireError> {
        Box::new(WireError { at: self.at, reason })
    }

    #[inline(always)]
    pub(crate) fn varint(&mut self) -> Result<u64> {
        if self.at < self.end {
            let byte = self.window[self.at];
            if byte < 0x80 {
                self.at += 1;
                return Ok(u64::from(byte));
            }
        }
        self.long_varint()
    }

    /// A number of several bytes. Reads eight bytes at once, even beyond the message's end, because the window nearly
    /// always has them, and then checks that the number ends inside the message.
    #[inline]
    fn long_varint(&mut self) -> Result<u64> {
        if let Some(bytes) = self.window.get(self.at..).and_then(<[u8]>::first_chunk::<8>) {
            let word = u64::from_le_bytes(*bytes);
            // The first byte without its high bit ends the number.
            let ends = !word & 0x8080_8080_8080_8080;
            let len = ends.trailing_zeros() as usize / 8 + 1;
            if ends != 0 && len <= self.left() {
                self.at += len;
                return Ok(join_groups(word & (ends ^ (ends - 1))));
            }
        }
        self.longest_varint()
    }

    #[cold]
    fn longest_varint(&mut self) -> Result<u64> {
        let rest = self.window.get(self.at..self.end).unwrap_or_default();
        let mut value = 0_u64;
        for (index, byte) in rest.iter().enumerate().take(10) {
            // Only one bit of the tenth byte counts. Like protobuf's own parsers, this drops the rest of it.
            value |= u64::from(byte & 0x7f) << (7 * index);
            if *byte < 0x80 {
                self.at += index + 1;
                return Ok(value);
            }
        }
        let reason = if rest.len() < 10 { WireFault::EndInField } else { WireFault::LongVarint };
        Err(self.error(reason))
    }

    #[inline(always)]
    pub(crate) fn tag(&mut self) -> Result<Tag> {
        let before = self.at;
        if before < self.end {
            // Fields up to 15 have tags of one byte. A trace has no higher ones today.
            let key = self.window[before];
            if (8..0x80).contains(&key) {
                self.at += 1;
                return Ok(Tag { field: u32::from(key >> 3), wire_type: key & 7 });
            }
        }
        self.long_tag()
    }

    #[cold]
    fn long_tag(&mut self) -> Result<Tag> {
        let before = self.at;
        let key = self.varint()?;
        if key < 8 || key > u64::from(u32::MAX) {
            return Err(Box::new(WireError { at: before, reason: WireFault::FieldNumber }));
        }
        Ok(Tag { field: (key >> 3) as u32, wire_type: (key & 7) as u8 })
    }

    /// A scanner for the bytes of a length-delimited field.
    #[inline(always)]
    pub(crate) fn delimited(&mut self, out: &mut Message) -> Result<Self> {
        let before = self.at;
        let len = self.varint()?;
        let start = self.at;
        let left = self.left();
        if len <= left as u64 {
            // At most `left`, so it fits.
            self.at += len as usize;
            return Ok(Self { at: start, end: self.at, clamped: false, ..*self });
        }
        if self.lax {
            out.cut = true;
            self.at = self.end;
            return Ok(Self { at: start, clamped: true, ..*self });
        }
        Err(overlong(before, len, left))
    }

    #[inline]
    fn span(&self) -> Span {
        Span::in_window(self.at, self.left())
    }

    pub(crate) fn skip(&mut self, tag: Tag) -> Result<()> {
        self.skip_nested(tag, 0)
    }

    fn skip_nested(&mut self, tag: Tag, depth: u32) -> Result<()> {
        match tag.wire_type {
            VARINT => self.varint().map(drop),
            FIXED64 => self.skip_bytes(8),
            FIXED32 => self.skip_bytes(4),
            LEN => {
                let before = *self;
                let len = self.varint()?;
                let left = self.left();
                if len <= left as u64 {
                    self.at += len as usize;
                } else if self.lax {
                    self.at = self.end;
                } else {
                    return Err(before.error(WireFault::Overlong { len, available: left }));
                }
                Ok(())
            }
            START_GROUP if depth == MAX_DEPTH => Err(self.error(WireFault::Depth { limit: MAX_DEPTH })),
            START_GROUP => loop {
                let inner = self.tag()?;
                if inner.wire_type == END_GROUP {
                    return if inner.field == tag.field { Ok(()) } else { Err(self.error(WireFault::StrayEndGroup)) };
                }
                self.skip_nested(inner, depth + 1)?;
            },
            END_GROUP => Err(self.error(WireFault::StrayEndGroup)),
            other => Err(self.error(WireFault::WireType(other))),
        }
    }

    fn skip_bytes(&mut self, count: usize) -> Result<()> {
        if self.left() < count {
            return Err(self.error(WireFault::EndInField));
        }
        self.at += count;
        Ok(())
    }

    /// Skips a field that `message` is not known to have, and counts it.
    #[cold]
    fn unknown(&mut self, tag: Tag, message: &'static str, out: &mut Message) -> Result<()> {
        self.skip(tag)?;
        // Counted only after skipping succeeds, because damaged bytes are not a field of a newer Envoy.
        out.unknown.count_number(message, tag.field);
        Ok(())
    }
}

#[cold]
fn overlong(at: usize, len: u64, available: usize) -> Box<WireError> {
    Box::new(WireError { at, reason: WireFault::Overlong { len, available } })
}

/// Joins the low seven bits of each byte into one number, without a loop over the bytes.
#[inline]
fn join_groups(word: u64) -> u64 {
    let sevens = word & 0x7f7f_7f7f_7f7f_7f7f;
    let fourteens = (sevens & 0x007f_007f_007f_007f) | ((sevens & 0x7f00_7f00_7f00_7f00) >> 1);
    let twenty_eights = (fourteens & 0x0000_3fff_0000_3fff) | ((fourteens & 0x3fff_0000_3fff_0000) >> 2);
    (twenty_eights & 0x0fff_ffff) | ((twenty_eights & 0x0fff_ffff_0000_0000) >> 4)
}

/// Scans the fields of one `TraceWrapper` whose end is known from its length.
pub(crate) fn wrapper(mut scan: Scanner<'_>, out: &mut Message) -> Result<()> {
    let mut parts = Parts::default();
    let result = scan.fields(&mut parts, out);
    parts.finish(out);
    out.order_http();
    result
}

/// Skips a field of `TraceWrapper` that is not in its oneof.
pub(crate) fn wrapper_extra(scan: &mut Scanner<'_>, tag: Tag, out: &mut Message) -> Result<()> {
    if Parts::has(tag.field, tag.wire_type == LEN) { scan.skip(tag) } else { scan.unknown(tag, Parts::MESSAGE, out) }
}

/// Scans one field of the oneof `TraceWrapper.trace`.
pub(crate) fn trace(kind: TraceKind, mut scan: Scanner<'_>, out: &mut Message) -> Result<()> {
    let mut parts = Parts::default();
    let (result, _) = match kind {
        TraceKind::HttpBuffered => scan.record(&mut HttpBuffered(&mut parts), out),
        TraceKind::HttpStreamed => scan.record(&mut HttpStreamed(&mut parts), out),
        TraceKind::SocketBuffered => scan.record(&mut SocketBuffered(&mut parts), out),
        TraceKind::SocketStreamed => scan.record(&mut SocketStreamed(&mut parts), out),
    };
    parts.finish(out);
    out.order_http();
    result
}

impl Scanner<'_> {
    /// Scans all of this scanner's bytes as one message.
    #[inline]
    fn record<R: SchemaRecord>(&mut self, record: &mut R, out: &mut Message) -> (Result<()>, MessageEnd) {
        record.begin(Self::REPLACES, out);
        let result = self.fields(record.fields(), out);
        let end = MessageEnd { whole: result.is_ok() && !self.clamped, cut: self.clamped, framed: true };
        record.end(end, out);
        (result, end)
    }

    #[inline]
    fn fields<F: SchemaFields>(&mut self, fields: &mut F, out: &mut Message) -> Result<()> {
        while !self.is_empty() {
            let tag = self.tag()?;
            let is_delimited = tag.wire_type == LEN;
            if (is_delimited || tag.wire_type == VARINT) && F::has(tag.field, is_delimited) {
                fields.field(tag.field, self, out)?;
            } else {
                self.unknown(tag, F::MESSAGE, out)?;
            }
        }
        Ok(())
    }
}

impl Cursor for Scanner<'_> {
    type Stop = Box<WireError>;

    #[inline]
    fn uint64(&mut self) -> Result<u64> {
        self.varint()
    }

    #[inline]
    fn int64(&mut self) -> Result<i64> {
        self.varint().map(u64::cast_signed)
    }

    /// Writers sign-extend an `int32` to 64 bits, and parsers truncate it.
    #[inline]
    fn int32(&mut self) -> Result<i64> {
        Ok(i64::from(self.varint()? as i32))
    }

    #[inline]
    fn boolean(&mut self) -> Result<bool> {
        Ok(self.varint()? != 0)
    }

    fn port(&mut self) -> Result<Option<u32>> {
        Ok(Some(u32::try_from(self.varint()?).unwrap_or(u32::MAX)))
    }

    fn text(&mut self, out: &mut Message) -> Result<String> {
        let field = self.delimited(out)?;
        Ok(String::from_utf8_lossy(&self.window[field.at..field.end]).into_owned())
    }

    #[inline]
    fn span(&mut self, _ty: Type, span: &mut Span, out: &mut Message) -> Result<()> {
        let field = self.delimited(out)?;
        // If a name or value is cut, so is the message that holds it.
        self.clamped |= field.clamped;
        *span = field.span();
        Ok(())
    }

    #[inline]
    fn payload(&mut self, ty: Type, body: &mut Body, out: &mut Message) -> Result<()> {
        let field = self.delimited(out)?;
        body.payload = field.span();
        body.as_string = ty == Type::String;
        body.truncated |= field.clamped;
        Ok(())
    }

    fn ignore(&mut self, ty: Type) -> Result<bool> {
        self.skip(Tag { field: 0, wire_type: if ty.is_delimited() { LEN } else { VARINT } })?;
        Ok(true)
    }

    #[inline]
    fn message<R: SchemaRecord>(&mut self, record: &mut R, out: &mut Message) -> Result<()> {
        self.delimited(out)?.record(record, out).0
    }

    #[inline]
    fn each<E: Element>(&mut self, to: E::To, out: &mut Message) -> Result<()> {
        if E::plain(self, out) {
            return Ok(());
        }
        let mut element = E::default();
        let (result, end) = self.delimited(out)?.record(&mut element, out);
        element.done(end, to, out);
        result
    }

    fn is_header_value(&self) -> bool {
        let mut scan = *self;
        let Ok(len) = scan.varint() else { return false };
        // What is cut is not looked at, because its second field may be missing.
        let Some(end) = scan.at.checked_add(len as usize).filter(|end| *end <= scan.end) else { return false };
        scan.end = end;
        let mut field = |number| {
            let tag = Tag { field: number, wire_type: LEN };
            let is_here = scan.tag().is_ok_and(|found| found == tag);
            let start = scan.at;
            (is_here && scan.skip(tag).is_ok()).then(|| &scan.window[start..scan.at])
        };
        // The length is a byte, because no name is longer.
        let is_name = |field: &[u8]| {
            let part = |part: &[u8]| !part.is_empty() && part.iter().all(u8::is_ascii_alphanumeric);
            field.len() > 3 && field[1..].split(|byte| *byte == b'-').all(part) && field[1..].contains(&b'-')
        };
        // A body has one field, and may be long: its bytes are looked at last.
        let (name, value) = (field(1), field(2));
        value.is_some() && scan.is_empty() && name.is_some_and(is_name)
    }

    #[inline]
    fn plain_event(&mut self, out: &mut Message) -> Option<Event> {
        let mut after = *self;
        let len = after.varint().ok()?;
        if len > after.left() as u64 {
            return None;
        }
        let end = after.at + len as usize;
        let event = fast::event(self.window, after.at, end, out)?;
        self.at = end;
        Some(event)
    }
}
