//! The protobuf wire format of a `TraceWrapper`, scanned by hand.
//!
//! This is the hot path of the binary encodings: a generated decoder spends most of its time on allocations that a
//! trace of small events does not need. Payloads stay where they are, as spans. The slow twin is prost with the
//! messages of [`crate::proto`]; a property test holds the two together.
//!
//! A scanner is either strict, or lax for a message that the source cut off: a field that claims more bytes than are
//! left then gets what is there, and [`Message::cut`] is set.

mod fast;
#[cfg(test)]
#[cfg(feature = "record")]
pub(super) mod tests;

pub(super) use fast::{Framing, run};

use thiserror::Error;

use super::parts::{self, Ends, EventParts, HttpParts, Time};
use crate::trace::{Address, Body, Event, EventKind, Header, HttpPart, HttpSide, Message, Span, TraceKind};

/// Groups may nest as deep as protobuf's own parsers allow.
const MAX_DEPTH: u32 = 100;

/// Protobuf messages are smaller than 2 GiB.
pub(crate) const MAX_LEN: u64 = (1 << 31) - 1;

/// Why bytes are not a message, and where.
#[derive(Debug, PartialEq, Eq, Error)]
#[error("{reason}")]
pub(crate) struct WireError {
    /// Offset in the window.
    pub at: usize,
    /// What is wrong there.
    pub reason: Reason,
}

#[derive(Debug, PartialEq, Eq, Error)]
pub(crate) enum Reason {
    #[error("the message ends inside a field")]
    EndInField,
    #[error("a number of more than ten bytes")]
    LongVarint,
    #[error("a field number of 0")]
    FieldZero,
    #[error("wire type {0} does not exist")]
    WireType(u8),
    #[error("a field of {len} bytes where {available} are left")]
    Overlong { len: u64, available: usize },
    #[error("groups nested deeper than {MAX_DEPTH}")]
    Depth,
    #[error("a group that ends without having begun")]
    StrayEndGroup,
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
    /// The byte behind the message; at most the window's length.
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
    fn error(&self, reason: Reason) -> Box<WireError> {
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

    /// A number of several bytes. Looks beyond the message's end, because nearly always there are more bytes in the
    /// window, and then checks that it stayed inside.
    #[inline]
    fn long_varint(&mut self) -> Result<u64> {
        if let Some(bytes) = self.window.get(self.at..).and_then(<[u8]>::first_chunk::<8>) {
            let word = u64::from_le_bytes(*bytes);
            // The byte that ends the number is the first without its high bit.
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
            // The tenth byte holds one bit; like protobuf's own parsers, the rest of it is dropped.
            value |= u64::from(byte & 0x7f) << (7 * index);
            if *byte < 0x80 {
                self.at += index + 1;
                return Ok(value);
            }
        }
        let reason = if rest.len() < 10 { Reason::EndInField } else { Reason::LongVarint };
        Err(self.error(reason))
    }

    #[inline(always)]
    pub(crate) fn tag(&mut self) -> Result<Tag> {
        let before = self.at;
        if before < self.end {
            // Fields up to 15 have tags of one byte, and so have all that a trace holds today.
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
            return Err(Box::new(WireError { at: before, reason: Reason::FieldZero }));
        }
        Ok(Tag { field: (key >> 3) as u32, wire_type: (key & 7) as u8 })
    }

    /// The bytes of a length-delimited field, as a scanner of their own.
    #[inline(always)]
    pub(crate) fn delimited(&mut self, out: &mut Message) -> Result<Self> {
        let before = self.at;
        let len = self.varint()?;
        let start = self.at;
        let left = self.left();
        if len <= left as u64 {
            // No more than there is, so it fits.
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

    /// A string field. Protobuf promises UTF-8; what is not becomes replacement characters.
    fn text(self) -> String {
        String::from_utf8_lossy(&self.window[self.at..self.end]).into_owned()
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
                    return Err(before.error(Reason::Overlong { len, available: left }));
                }
                Ok(())
            }
            START_GROUP if depth == MAX_DEPTH => Err(self.error(Reason::Depth)),
            START_GROUP => loop {
                let inner = self.tag()?;
                if inner.wire_type == END_GROUP {
                    return if inner.field == tag.field { Ok(()) } else { Err(self.error(Reason::StrayEndGroup)) };
                }
                self.skip_nested(inner, depth + 1)?;
            },
            END_GROUP => Err(self.error(Reason::StrayEndGroup)),
            other => Err(self.error(Reason::WireType(other))),
        }
    }

    fn skip_bytes(&mut self, count: usize) -> Result<()> {
        if self.left() < count {
            return Err(self.error(Reason::EndInField));
        }
        self.at += count;
        Ok(())
    }

    /// Skips a field that `message` is not known to have, and counts it.
    #[cold]
    fn unknown(&mut self, tag: Tag, message: &'static str, out: &mut Message) -> Result<()> {
        self.skip(tag)?;
        // Not before: bytes that are no field are none of a newer Envoy's either.
        out.unknown.count_number(message, tag.field);
        Ok(())
    }
}

#[cold]
fn overlong(at: usize, len: u64, available: usize) -> Box<WireError> {
    Box::new(WireError { at, reason: Reason::Overlong { len, available } })
}

/// Joins the low seven bits of each byte into one number, without a loop over the bytes.
#[inline]
fn join_groups(word: u64) -> u64 {
    let sevens = word & 0x7f7f_7f7f_7f7f_7f7f;
    let fourteens = (sevens & 0x007f_007f_007f_007f) | ((sevens & 0x7f00_7f00_7f00_7f00) >> 1);
    let twenty_eights = (fourteens & 0x0000_3fff_0000_3fff) | ((fourteens & 0x3fff_0000_3fff_0000) >> 2);
    (twenty_eights & 0x0fff_ffff) | ((twenty_eights & 0x0fff_ffff_0000_0000) >> 4)
}

/// Scans the fields of one `TraceWrapper` that was framed from outside.
pub(crate) fn wrapper(mut scan: Scanner<'_>, out: &mut Message) -> Result<()> {
    let mut parts = Parts::default();
    let result = wrapper_fields(&mut scan, &mut parts, out);
    parts.finish(out);
    result
}

fn wrapper_fields<'a>(scan: &mut Scanner<'a>, parts: &mut Parts<'a>, out: &mut Message) -> Result<()> {
    while !scan.is_empty() {
        let tag = scan.tag()?;
        match (TraceKind::from_field_number(tag.field), tag.wire_type) {
            (Some(kind), LEN) => {
                let field = scan.delimited(out)?;
                if out.kind.is_some_and(|before| before != kind) {
                    *parts = Parts::default();
                    out.clear();
                }
                trace_fields(kind, field, parts, out)?;
            }
            _ => wrapper_extra(scan, tag, out)?,
        }
    }
    Ok(())
}

/// Skips a field of `TraceWrapper` that is not its oneof.
pub(crate) fn wrapper_extra(scan: &mut Scanner<'_>, tag: Tag, out: &mut Message) -> Result<()> {
    match (tag.field, tag.wire_type) {
        // configured_sample_rate
        (5, LEN) => scan.skip(tag),
        _ => scan.unknown(tag, "TraceWrapper", out),
    }
}

/// Scans one field of the oneof `TraceWrapper.trace`.
pub(crate) fn trace(kind: TraceKind, scan: Scanner<'_>, out: &mut Message) -> Result<()> {
    let mut parts = Parts::default();
    let result = trace_fields(kind, scan, &mut parts, out);
    parts.finish(out);
    result
}

#[inline]
fn trace_fields<'a>(kind: TraceKind, scan: Scanner<'a>, parts: &mut Parts<'a>, out: &mut Message) -> Result<()> {
    out.kind = Some(kind);
    match kind {
        TraceKind::SocketBuffered => socket_buffered_trace(scan, parts, out),
        TraceKind::SocketStreamed => socket_streamed_trace_segment(scan, parts, out),
        TraceKind::HttpBuffered => http_buffered_trace(scan, parts, out),
        TraceKind::HttpStreamed => http_streamed_trace_segment(scan, parts, out),
    }
}

/// The submessages of a trace that are complete only where it ends.
#[derive(Debug, Default)]
struct Parts<'a> {
    connection: Option<Ends>,
    upstream_connection: Option<Ends>,
    http: [HttpParts; 2],
    /// The last member of a streamed segment's oneof, by its number.
    member: Option<u32>,
    /// The segment's event, where the fast reader took it: not yet as parts.
    fast_event: Option<Scanner<'a>>,
    /// The segment's event, and whether enough of it is there to keep it.
    event: Option<(EventParts, bool)>,
}

impl Parts<'_> {
    #[inline]
    fn finish(self, out: &mut Message) {
        let Self { connection, upstream_connection, http, event, .. } = self;
        if let Some(ends) = connection {
            out.connection = Some(ends.finish(out));
        }
        if let Some(ends) = upstream_connection {
            out.upstream_connection = Some(ends.finish(out));
        }
        for (side, parts) in [HttpSide::Request, HttpSide::Response].into_iter().zip(http) {
            if let Some(time) = parts.time.and_then(|time| time.finish(out)) {
                out.set_http_time(side, Some(time));
            }
        }
        out.order_http();
        if let Some((event, true)) = event {
            event.finish(out);
        }
    }

    /// Goes to a member of a streamed segment's oneof: the last one counts. Answers whether it is more of the one before.
    fn select(&mut self, member: u32, out: &mut Message) -> bool {
        match self.member.replace(member) {
            None => false,
            Some(before) if before == member => true,
            Some(_) => {
                *self = Parts { member: Some(member), ..Parts::default() };
                out.clear_piece();
                false
            }
        }
    }
}

fn http_buffered_trace(mut scan: Scanner<'_>, parts: &mut Parts<'_>, out: &mut Message) -> Result<()> {
    while !scan.is_empty() {
        let tag = scan.tag()?;
        match (tag.field, tag.wire_type) {
            (1, LEN) => http_message(scan.delimited(out)?, HttpSide::Request, parts, out)?,
            (2, LEN) => http_message(scan.delimited(out)?, HttpSide::Response, parts, out)?,
            (3, LEN) => connection(scan.delimited(out)?, parts.connection.get_or_insert_default(), out)?,
            (4, LEN) => connection(scan.delimited(out)?, parts.upstream_connection.get_or_insert_default(), out)?,
            _ => scan.unknown(tag, "HttpBufferedTrace", out)?,
        }
    }
    Ok(())
}

fn http_message(mut scan: Scanner<'_>, side: HttpSide, parts: &mut Parts<'_>, out: &mut Message) -> Result<()> {
    let parts = &mut parts.http[side.index()];
    while !scan.is_empty() {
        let tag = scan.tag()?;
        match (tag.field, tag.wire_type) {
            (1 | 3, LEN) => {
                let part = if tag.field == 1 { HttpPart::Headers } else { HttpPart::Trailers };
                if let Some(header) = header_value(scan.delimited(out)?, out)? {
                    out.push_header_of(side, part, header);
                }
            }
            (2, LEN) => {
                let field = scan.delimited(out)?;
                match parts.body {
                    Some(index) => more_of_body(field, index, out)?,
                    None => {
                        let before = out.http.len();
                        let result = http_body(field, side, out);
                        parts.body = (out.http.len() > before).then_some(before);
                        result?;
                    }
                }
            }
            (4, LEN) => timestamp(scan.delimited(out)?, parts.time.get_or_insert_default(), out)?,
            _ => scan.unknown(tag, "Message", out)?,
        }
    }
    Ok(())
}

fn http_streamed_trace_segment(mut scan: Scanner<'_>, parts: &mut Parts<'_>, out: &mut Message) -> Result<()> {
    while !scan.is_empty() {
        let tag = scan.tag()?;
        let (side, part) = match (tag.field, tag.wire_type) {
            (1, VARINT) => {
                out.trace_id = scan.varint()?;
                continue;
            }
            (2, LEN) => (HttpSide::Request, HttpPart::Headers),
            (3, LEN) => (HttpSide::Request, HttpPart::Body),
            (4, LEN) => (HttpSide::Request, HttpPart::Trailers),
            (5, LEN) => (HttpSide::Response, HttpPart::Headers),
            (6, LEN) => (HttpSide::Response, HttpPart::Body),
            (7, LEN) => (HttpSide::Response, HttpPart::Trailers),
            _ => {
                scan.unknown(tag, "HttpStreamedTraceSegment", out)?;
                continue;
            }
        };
        let field = scan.delimited(out)?;
        let more = parts.select(tag.field, out);
        match (part, more && !out.http.is_empty()) {
            (HttpPart::Body, false) => http_body(field, side, out)?,
            (HttpPart::Body, true) => more_of_body(field, 0, out)?,
            (_, more) => {
                if !more {
                    out.push_http(side, part);
                }
                header_map(field, out)?;
            }
        }
    }
    Ok(())
}

/// Scans the fields of a `HeaderMap` into the last part.
fn header_map(mut scan: Scanner<'_>, out: &mut Message) -> Result<()> {
    while !scan.is_empty() {
        let tag = scan.tag()?;
        if (tag.field, tag.wire_type) == (1, LEN) {
            if let Some(header) = header_value(scan.delimited(out)?, out)? {
                out.push_header(header);
            }
        } else {
            scan.unknown(tag, "HeaderMap", out)?;
        }
    }
    Ok(())
}

/// `None` where the source ends within it: half a name or value is none.
#[inline]
fn header_value(mut scan: Scanner<'_>, out: &mut Message) -> Result<Option<Header>> {
    let mut header = Header::default();
    let mut raw_value = Span::default();
    let mut clamped = scan.clamped;
    while !scan.is_empty() {
        let tag = scan.tag()?;
        match (tag.field, tag.wire_type) {
            (1..=3, LEN) => {
                let field = scan.delimited(out)?;
                clamped |= field.clamped;
                match tag.field {
                    1 => header.key = field.span(),
                    2 => header.value = field.span(),
                    _ => raw_value = field.span(),
                }
            }
            _ => scan.unknown(tag, "HeaderValue", out)?,
        }
    }
    if header.value.is_empty() {
        header.value = raw_value;
    }
    Ok((!clamped).then_some(header))
}

/// Scans a body and keeps it, unless the source ended before its first byte.
fn http_body(scan: Scanner<'_>, side: HttpSide, out: &mut Message) -> Result<()> {
    let clamped = scan.clamped;
    let mut bytes = Body::default();
    let result = body(scan, &mut bytes, out);
    if !(clamped || result.is_err()) || !bytes.payload.is_empty() {
        out.push_http(side, HttpPart::Body).body = bytes;
    }
    result
}

/// Merges more of a body with what was there of it.
fn more_of_body(scan: Scanner<'_>, index: usize, out: &mut Message) -> Result<()> {
    let Some(piece) = out.http.get(index) else { return Ok(()) };
    let mut bytes = piece.body;
    let result = body(scan, &mut bytes, out);
    if let Some(piece) = out.http.get_mut(index) {
        piece.body = bytes;
    }
    result
}

fn socket_buffered_trace(mut scan: Scanner<'_>, parts: &mut Parts<'_>, out: &mut Message) -> Result<()> {
    while !scan.is_empty() {
        let tag = scan.tag()?;
        match (tag.field, tag.wire_type) {
            (1, VARINT) => out.trace_id = scan.varint()?,
            (2, LEN) => connection(scan.delimited(out)?, parts.connection.get_or_insert_default(), out)?,
            (3, LEN) => {
                let field = scan.delimited(out)?;
                socket_event(field, out)?;
            }
            (4, VARINT) => out.read_truncated = scan.varint()? != 0,
            (5, VARINT) => out.write_truncated = scan.varint()? != 0,
            _ => scan.unknown(tag, "SocketBufferedTrace", out)?,
        }
    }
    Ok(())
}

fn socket_streamed_trace_segment<'a>(mut scan: Scanner<'a>, parts: &mut Parts<'a>, out: &mut Message) -> Result<()> {
    while !scan.is_empty() {
        let tag = scan.tag()?;
        match (tag.field, tag.wire_type) {
            (1, VARINT) => out.trace_id = scan.varint()?,
            (2, LEN) => {
                let field = scan.delimited(out)?;
                parts.select(2, out);
                connection(field, parts.connection.get_or_insert_default(), out)?;
            }
            (3, LEN) => {
                let field = scan.delimited(out)?;
                if parts.select(3, out) {
                    more_of_event(field, parts, out)?;
                } else if let Some(event) = fast_event(field) {
                    out.events.push(event);
                    parts.fast_event = Some(field);
                } else {
                    let (event, is_kept) = parts.event.insert((EventParts::default(), false));
                    general_socket_event(field, event, is_kept, out)?;
                }
            }
            (4, LEN) => {
                let mut events = scan.delimited(out)?;
                parts.select(4, out);
                while !events.is_empty() {
                    let tag = events.tag()?;
                    if (tag.field, tag.wire_type) == (1, LEN) {
                        let field = events.delimited(out)?;
                        socket_event(field, out)?;
                    } else {
                        events.unknown(tag, "SocketEvents", out)?;
                    }
                }
            }
            _ => scan.unknown(tag, "SocketStreamedTraceSegment", out)?,
        }
    }
    Ok(())
}

/// Merges more of a segment's event with what was there of it.
#[cold]
fn more_of_event<'a>(scan: Scanner<'a>, parts: &mut Parts<'a>, out: &mut Message) -> Result<()> {
    if let Some(first) = parts.fast_event.take() {
        out.events.clear();
        let mut event = EventParts::default();
        // The fast reader takes no event with unknown fields, so none is counted twice.
        socket_event_fields(first, &mut event, out)?;
        parts.event = Some((event, true));
    }
    let (event, is_kept) = parts.event.get_or_insert_default();
    general_socket_event(scan, event, is_kept, out)
}

#[inline]
fn fast_event(scan: Scanner<'_>) -> Option<Event> {
    if scan.clamped { None } else { fast::event(scan.window, scan.at, scan.end) }
}

/// Scans an event and keeps it if it is complete, or if the source ended after part of its payload.
#[inline]
fn socket_event(scan: Scanner<'_>, out: &mut Message) -> Result<()> {
    if let Some(event) = fast_event(scan) {
        out.events.push(event);
        return Ok(());
    }
    whole_socket_event(scan, out)
}

fn whole_socket_event(scan: Scanner<'_>, out: &mut Message) -> Result<()> {
    let (mut event, mut is_kept) = (EventParts::default(), false);
    let result = general_socket_event(scan, &mut event, &mut is_kept, out);
    if is_kept {
        event.finish(out);
    }
    result
}

fn general_socket_event(
    scan: Scanner<'_>,
    parts: &mut EventParts,
    is_kept: &mut bool,
    out: &mut Message,
) -> Result<()> {
    let clamped = scan.clamped;
    let result = socket_event_fields(scan, parts, out);
    let whole = result.is_ok() && !clamped;
    let readable = clamped
        && match parts.event.kind {
            EventKind::Absent => false,
            EventKind::Read | EventKind::Write => !parts.event.body.payload.is_empty(),
            EventKind::Closed => true,
        };
    *is_kept |= whole || readable;
    result
}

#[inline]
fn socket_event_fields(mut scan: Scanner<'_>, parts: &mut EventParts, out: &mut Message) -> Result<()> {
    while !scan.is_empty() {
        let tag = scan.tag()?;
        match (tag.field, tag.wire_type) {
            (1, LEN) => timestamp(scan.delimited(out)?, parts.time.get_or_insert_default(), out)?,
            (2, LEN) => {
                parts.select(EventKind::Read);
                let mut read = scan.delimited(out)?;
                while !read.is_empty() {
                    let tag = read.tag()?;
                    if (tag.field, tag.wire_type) == (1, LEN) {
                        let field = read.delimited(out)?;
                        body(field, &mut parts.event.body, out)?;
                    } else {
                        read.unknown(tag, "Read", out)?;
                    }
                }
            }
            (3, LEN) => {
                parts.select(EventKind::Write);
                let mut write = scan.delimited(out)?;
                while !write.is_empty() {
                    let tag = write.tag()?;
                    match (tag.field, tag.wire_type) {
                        (1, LEN) => {
                            let field = write.delimited(out)?;
                            body(field, &mut parts.event.body, out)?;
                        }
                        (2, VARINT) => parts.event.end_stream = write.varint()? != 0,
                        _ => write.unknown(tag, "Write", out)?,
                    }
                }
            }
            (4, LEN) => {
                parts.select(EventKind::Closed);
                let mut closed = scan.delimited(out)?;
                while !closed.is_empty() {
                    let tag = closed.tag()?;
                    closed.unknown(tag, "Closed", out)?;
                }
            }
            (5, LEN) => connection(scan.delimited(out)?, parts.connection.get_or_insert_default(), out)?,
            (6, VARINT) => parts.event.seq_num = scan.varint()?,
            _ => scan.unknown(tag, "SocketEvent", out)?,
        }
    }
    Ok(())
}

#[inline]
fn timestamp(mut scan: Scanner<'_>, time: &mut Time, out: &mut Message) -> Result<()> {
    time.cut |= scan.clamped;
    while !scan.is_empty() {
        let tag = scan.tag()?;
        match (tag.field, tag.wire_type) {
            (1, VARINT) => time.seconds = scan.varint()?.cast_signed(),
            // int32 on the wire is sign-extended to 64 bits and truncated by parsers.
            (2, VARINT) => time.nanos = i64::from(scan.varint()? as i32),
            _ => scan.unknown(tag, "Timestamp", out)?,
        }
    }
    Ok(())
}

#[inline]
fn body(mut scan: Scanner<'_>, body: &mut Body, out: &mut Message) -> Result<()> {
    while !scan.is_empty() {
        let tag = scan.tag()?;
        match (tag.field, tag.wire_type) {
            (1 | 2, LEN) => {
                let field = scan.delimited(out)?;
                body.payload = field.span();
                body.as_string = tag.field == 2;
                body.truncated |= field.clamped;
            }
            (3, VARINT) => body.truncated = scan.varint()? != 0,
            _ => scan.unknown(tag, "Body", out)?,
        }
    }
    Ok(())
}

fn connection(mut scan: Scanner<'_>, ends: &mut Ends, out: &mut Message) -> Result<()> {
    while !scan.is_empty() {
        let tag = scan.tag()?;
        match (tag.field, tag.wire_type) {
            (1, LEN) => address(scan.delimited(out)?, &mut ends.first, out)?,
            (2, LEN) => address(scan.delimited(out)?, &mut ends.second, out)?,
            (3, LEN) => address(scan.delimited(out)?, &mut ends.third, out)?,
            _ => scan.unknown(tag, "Connection", out)?,
        }
    }
    Ok(())
}

fn address(mut scan: Scanner<'_>, address: &mut Option<Address>, out: &mut Message) -> Result<()> {
    while !scan.is_empty() {
        let tag = scan.tag()?;
        match (tag.field, tag.wire_type) {
            (1, LEN) => socket_address(scan.delimited(out)?, parts::socket(address), out)?,
            (2, LEN) => pipe(scan.delimited(out)?, parts::pipe(address), out)?,
            (3, LEN) => internal_address(scan.delimited(out)?, parts::internal(address), out)?,
            _ => scan.unknown(tag, "Address", out)?,
        }
    }
    Ok(())
}

fn socket_address(
    mut scan: Scanner<'_>,
    (address, port): (&mut String, &mut Option<u32>),
    out: &mut Message,
) -> Result<()> {
    while !scan.is_empty() {
        let tag = scan.tag()?;
        match (tag.field, tag.wire_type) {
            (2, LEN) => *address = scan.delimited(out)?.text(),
            (3, VARINT) => *port = Some(u32::try_from(scan.varint()?).unwrap_or(u32::MAX)),
            // named_port: the other side of the oneof that holds the port.
            (4, LEN) => {
                *port = None;
                scan.skip(tag)?;
            }
            // protocol, resolver_name, ipv4_compat, network_namespace_filepath: known, of no use here.
            (1 | 6, VARINT) | (5 | 7, LEN) => scan.skip(tag)?,
            _ => scan.unknown(tag, "SocketAddress", out)?,
        }
    }
    Ok(())
}

fn pipe(mut scan: Scanner<'_>, path: &mut String, out: &mut Message) -> Result<()> {
    while !scan.is_empty() {
        let tag = scan.tag()?;
        match (tag.field, tag.wire_type) {
            (1, LEN) => *path = scan.delimited(out)?.text(),
            // mode
            (2, VARINT) => scan.skip(tag)?,
            _ => scan.unknown(tag, "Pipe", out)?,
        }
    }
    Ok(())
}

fn internal_address(
    mut scan: Scanner<'_>,
    (listener, endpoint): (&mut String, &mut String),
    out: &mut Message,
) -> Result<()> {
    while !scan.is_empty() {
        let tag = scan.tag()?;
        match (tag.field, tag.wire_type) {
            (1, LEN) => *listener = scan.delimited(out)?.text(),
            (2, LEN) => *endpoint = scan.delimited(out)?.text(),
            _ => scan.unknown(tag, "EnvoyInternalAddress", out)?,
        }
    }
    Ok(())
}
