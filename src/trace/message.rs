//! One `TraceWrapper`, as records that a decoder fills and a timeline reads.

use super::{Address, Connection, Fact, Limited, Nanos, Place, Records, TimeError, UnknownFields};
use crate::untrusted;

/// Which field of `TraceWrapper.trace` is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TraceKind {
    /// `http_buffered_trace` = 1.
    HttpBuffered,
    /// `http_streamed_trace_segment` = 2.
    HttpStreamed,
    /// `socket_buffered_trace` = 3.
    SocketBuffered,
    /// `socket_streamed_trace_segment` = 4.
    SocketStreamed,
}

impl TraceKind {
    /// All kinds, by field number.
    pub const ALL: [Self; 4] = [Self::HttpBuffered, Self::HttpStreamed, Self::SocketBuffered, Self::SocketStreamed];

    /// The field's name in `TraceWrapper`.
    #[must_use]
    pub fn field_name(self) -> &'static str {
        match self {
            Self::HttpBuffered => "http_buffered_trace",
            Self::HttpStreamed => "http_streamed_trace_segment",
            Self::SocketBuffered => "socket_buffered_trace",
            Self::SocketStreamed => "socket_streamed_trace_segment",
        }
    }

    /// The message's name, without its package.
    #[must_use]
    pub fn message_name(self) -> &'static str {
        match self {
            Self::HttpBuffered => "HttpBufferedTrace",
            Self::HttpStreamed => "HttpStreamedTraceSegment",
            Self::SocketBuffered => "SocketBufferedTrace",
            Self::SocketStreamed => "SocketStreamedTraceSegment",
        }
    }

    /// The kind that a field number of `TraceWrapper` stands for.
    #[must_use]
    pub fn from_field_number(number: u32) -> Option<Self> {
        let index = usize::try_from(number.checked_sub(1)?).ok()?;
        Self::ALL.get(index).copied()
    }

    /// Whether the trace comes from the HTTP tap filter.
    #[must_use]
    pub fn is_http(self) -> bool {
        matches!(self, Self::HttpBuffered | Self::HttpStreamed)
    }
}

/// Where a payload's bytes are: in the window that the message was decoded from, or, if they had to be unescaped or
/// decoded, in the message's own scratch space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    start: usize,
    len: usize,
    in_scratch: bool,
}

impl Span {
    /// `len` bytes from offset `start` of the window, which may begin before the message.
    #[inline]
    #[must_use]
    pub fn in_window(start: usize, len: usize) -> Self {
        Self { start, len, in_scratch: false }
    }

    /// The number of bytes.
    #[inline]
    #[must_use]
    pub fn len(self) -> usize {
        self.len
    }

    /// Whether it holds nothing.
    #[inline]
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.len == 0
    }

    /// The first `count` bytes, or all if there are fewer, and the rest.
    #[must_use]
    pub fn split(self, count: usize) -> (Self, Self) {
        let count = count.min(self.len);
        (Self { len: count, ..self }, Self { start: self.start + count, len: self.len - count, ..self })
    }
}

/// `SocketEvent.event_selector`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EventKind {
    /// Nothing is set, as in the overwritten connection segment of a streamed JSON_BODY_AS_STRING trace.
    #[default]
    Absent,
    /// Envoy received bytes from the peer.
    Read,
    /// Envoy sent bytes to the peer.
    Write,
    /// The connection ended.
    Closed,
}

/// `envoy.data.tap.v3.Body`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Body {
    /// The bytes that the trace has.
    pub payload: Span,
    /// Some bytes are missing: Envoy cut the body, or the source ends inside it.
    pub truncated: bool,
    /// The payload came as `as_string` rather than `as_bytes`, in which Envoy replaces binary data.
    pub as_string: bool,
}

/// `envoy.data.tap.v3.SocketEvent`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// `timestamp`; `None` where absent.
    pub time: Option<Nanos>,
    /// What happened.
    pub kind: EventKind,
    /// The bytes of a read or write.
    pub body: Body,
    /// `write.end_stream`: Envoy closed its direction.
    pub end_stream: bool,
    /// Position of the first byte in the counter of both directions, from 1; 0 where absent.
    pub seq_num: u64,
    /// Index of this event's own `connection` in [`Message::event_connections`].
    pub connection: Option<u32>,
    /// Where the event's segment begins, in bytes from the start of the first segment of its [batch](Message::count).
    pub segment: u32,
    /// The `trace_id` of the event's segment, if that is in a batch: see [`Message::trace_id_of`].
    pub trace_id: u64,
}

impl Event {
    /// Every capture format can hold times below this many seconds, up to the year 2106.
    const SECONDS: Nanos = 1 << 32;

    /// Whether the event is a read or write of unaltered bytes and nothing else, at a time that every capture can hold.
    /// Such an event means the same in a batch as in a message of its own.
    #[inline]
    #[must_use]
    pub fn is_plain(&self) -> bool {
        let Self { time, kind, body, end_stream, seq_num: _, connection, segment: _, trace_id: _ } = self;
        time.is_some_and(|time| time < Self::SECONDS * 1_000_000_000)
            && matches!(kind, EventKind::Read | EventKind::Write)
            && !(body.truncated | body.as_string | end_stream)
            && connection.is_none()
    }
}

/// Which half of an HTTP exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HttpSide {
    /// From the client.
    Request,
    /// From the server.
    Response,
}

impl HttpSide {
    /// The word that people read.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Response => "response",
        }
    }

    /// 0 for the request, 1 for the response: the index in arrays with one element per side.
    #[inline]
    #[must_use]
    pub fn index(self) -> usize {
        self as usize
    }
}

/// Which part of a request or response, in the order in which they are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HttpPart {
    /// Header fields, pseudo-headers included.
    Headers,
    /// The body or a chunk of it.
    Body,
    /// Trailer fields.
    Trailers,
}

/// `envoy.config.core.v3.HeaderValue`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// `key`.
    pub key: Span,
    /// `value`, or `raw_value` where that is empty.
    pub value: Span,
}

/// A part of an HTTP exchange as one message holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpPiece {
    /// Request or response.
    pub side: HttpSide,
    /// Which part of it.
    pub part: HttpPart,
    /// The range of its fields in [`Message::headers`]: the first, and the one after the last.
    pub headers: (usize, usize),
    /// The bytes of a body.
    pub body: Body,
    /// `headers_received_time`; `None` where absent, as in every streamed segment.
    pub time: Option<Nanos>,
}

/// The default limit of events per message. A buffered trace has all events of a connection in one message.
pub const MAX_EVENTS: usize = 1 << 20;

/// The default limit of header and trailer fields per message. Envoy's own default is 100.
pub const MAX_HEADERS: usize = 1 << 16;

/// The most parts of an HTTP exchange per message. Envoy writes at most six.
const MAX_PARTS: usize = 1024;

/// The most messages in a batch: enough to spread the cost of a message, few enough to stay in a core's cache.
pub const MAX_BATCH: usize = 128;

/// The longest payload that is copied into a batch. Copying a longer one costs more than a message of its own.
const MAX_COPY: usize = 1024;

/// The most bytes of an address or name that are kept. A host name has at most 253 (RFC 1035), a socket's path 107.
const MAX_NAME: usize = 1024;

/// A decoded message, or a batch of several. Decoders call [`Message::clear`] and fill it again, which reuses its
/// memory.
///
/// Consecutive streamed segments share a batch, which spreads the cost of a message over many events: see
/// [`Message::append`]. They may be of several connections, as in an admin stream.
#[derive(Debug, Default)]
pub struct Message {
    /// Byte offset of the message in its source. For a batch, that of its first message.
    pub offset: u64,
    /// Index of the message in its source, from 0. For a batch, that of its first message.
    pub index: u64,
    /// How many messages follow the first one in this batch. If there are any, each message has one event.
    further: usize,
    /// `None` until a member of the oneof is seen.
    pub kind: Option<TraceKind>,
    /// `trace_id`, 0 where absent. For a batch, that of its first message.
    pub trace_id: u64,
    /// The connection of the whole trace (buffered) or of this segment (streamed). In an HTTP trace, it is
    /// `downstream_connection`.
    pub connection: Option<Connection>,
    /// `upstream_connection` of an HTTP trace.
    pub upstream_connection: Option<Connection>,
    /// Events in the order of the trace.
    pub events: Records<Event>,
    /// Connections of single events (`set_connection_per_event`).
    pub event_connections: Records<Connection>,
    /// Parts of an HTTP exchange, in the order of the trace.
    pub http: Records<HttpPiece>,
    /// The header and trailer fields of [`Message::http`].
    pub headers: Records<Header>,
    /// Buffered: recording of reads stopped at the limit.
    pub read_truncated: bool,
    /// Buffered: recording of writes stopped at the limit.
    pub write_truncated: bool,
    /// The source ends inside this message. The records are complete, or marked as truncated.
    pub cut: bool,
    /// The parts of the HTTP exchange have no times of their own, but those of their arrival.
    pub arrived: bool,
    /// [`Message::connection`] is not recorded in an HTTP trace, but that of the tapped socket that carried the exchange.
    pub connection_of_socket: bool,
    /// What is wrong with the first time that no capture can hold.
    pub bad_time: Option<TimeError>,
    /// How many such times there are.
    pub bad_times: u64,
    /// Unknown fields of the whole source so far; [`Message::clear`] keeps them.
    pub unknown: UnknownFields,
    scratch: Vec<u8>,
    /// Decoders fill this in place of a part beyond the limit.
    dropped: Option<HttpPiece>,
}

impl Message {
    /// Whether it says anything of a connection or an exchange: an address, an event, a header field or a part of a body.
    #[must_use]
    pub(crate) fn holds_anything(&self) -> bool {
        let mut own = self.connection.iter().chain(&self.upstream_connection);
        // The first segment of an upstream connection has no address yet.
        own.any(|connection| self.trace_id != 0 || !connection.is_empty())
            || self.events.iter().any(|event| event.time.is_some() || event.kind != EventKind::Absent)
            || self.http.iter().any(|piece| piece.headers.0 < piece.headers.1 || !piece.body.payload.is_empty())
    }

    /// A message that keeps at most this many events and header fields. [`Message::beyond_limits`] tells what it drops.
    #[must_use]
    pub fn with_limits(events: usize, headers: usize) -> Self {
        Self {
            events: Records::with_limit(events),
            event_connections: Records::with_limit(events),
            http: Records::with_limit(MAX_PARTS),
            headers: Records::with_limit(headers),
            ..Self::default()
        }
    }

    /// The records that were dropped because of a limit, if any.
    #[inline]
    #[must_use]
    pub fn beyond_limits(&self) -> Option<Fact> {
        let beyond = self.events.beyond() | self.headers.beyond() | self.http.beyond();
        if beyond == 0 { None } else { Some(self.many_records()) }
    }

    #[cold]
    fn many_records(&self) -> Fact {
        let Self { events, headers, http, .. } = self;
        let (records, limit, beyond) = if events.beyond() > 0 {
            (Limited::Events, events.limit(), events.beyond())
        } else if headers.beyond() > 0 {
            (Limited::Headers, headers.limit(), headers.beyond())
        } else {
            (Limited::Parts, http.limit(), http.beyond())
        };
        Fact::ManyRecords { records, limit, beyond }
    }

    /// Shortens addresses and names to `MAX_NAME` bytes. Returns how long the longest was, if any was shortened.
    #[inline]
    pub fn cap_names(&mut self) -> Option<usize> {
        if self.connection.is_none() && self.upstream_connection.is_none() && self.event_connections.is_empty() {
            return None;
        }
        let own = self.connection.iter_mut().chain(&mut self.upstream_connection);
        let connections = own.chain(&mut self.event_connections);
        let addresses = connections.flat_map(|connection| connection.local.iter_mut().chain(&mut connection.remote));
        let names = addresses.flat_map(Address::names_mut).filter(|name| name.len() > MAX_NAME);
        names.map(|name| std::mem::replace(name, untrusted::cap(name, MAX_NAME).into_owned()).len()).max()
    }

    /// Forgets the message, but keeps the memory for the next one.
    pub fn clear(&mut self) {
        self.further = 0;
        self.kind = None;
        self.trace_id = 0;
        self.connection = None;
        self.upstream_connection = None;
        self.events.clear();
        self.event_connections.clear();
        self.http.clear();
        self.headers.clear();
        self.read_truncated = false;
        self.write_truncated = false;
        self.cut = false;
        self.arrived = false;
        self.connection_of_socket = false;
        self.forget_bad_times();
        self.scratch.clear();
    }

    /// Forgets the member of a streamed segment's oneof, because a later one replaces it.
    pub fn clear_piece(&mut self) {
        self.connection = None;
        self.events.clear();
        self.event_connections.clear();
        self.http.clear();
        self.headers.clear();
        self.forget_bad_times();
    }

    /// Notes a time that no capture can hold.
    #[cold]
    pub fn note_bad_time(&mut self, error: TimeError) {
        self.bad_time.get_or_insert(error);
        self.bad_times += 1;
    }

    /// Forgets the bad times, because the records that they belong to are replaced.
    #[inline]
    pub fn forget_bad_times(&mut self) {
        self.bad_time = None;
        self.bad_times = 0;
    }

    /// What is wrong with the message's times, if anything.
    #[must_use]
    pub fn unreadable_times(&self) -> Option<Fact> {
        self.bad_time.map(|first| Fact::BadTimes { first, times: self.bad_times })
    }

    /// How many messages of the source are in this batch. If there are several, each has one event, which
    /// [is plain](Event::is_plain).
    #[inline]
    #[must_use]
    pub fn count(&self) -> u64 {
        self.further as u64 + 1
    }

    /// Where the message begins. For a batch, where its first message does.
    #[must_use]
    pub fn place(&self) -> Place {
        Place { offset: self.offset, message: self.index }
    }

    /// Where the message that holds the event with this index begins.
    #[must_use]
    pub fn place_of(&self, event: usize) -> Place {
        let segment = self.events.get(event).map_or(0, |event| event.segment);
        let Place { offset, message } = self.place();
        Place { offset: offset + u64::from(segment), message: message + event.min(self.further) as u64 }
    }

    /// The `trace_id` of the message that holds the event with this index.
    #[inline]
    #[must_use]
    pub fn trace_id_of(&self, event: usize) -> u64 {
        match self.events.get(event) {
            Some(event) if self.further > 0 => event.trace_id,
            _ => self.trace_id,
        }
    }

    /// Notes that each event came in a message of its own, whose `trace_id` it has.
    #[inline]
    pub fn set_messages_per_event(&mut self) {
        self.further = self.events.len().saturating_sub(1);
    }

    /// Whether the message may share a batch, or does so already: it is a streamed segment with one plain event, and
    /// there is nothing else in it and nothing to report about it.
    #[inline]
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.further > 0
            || (self.kind == Some(TraceKind::SocketStreamed)
                && self.events.len() == 1
                && self.events[0].is_plain()
                && self.events.beyond() == 0
                && self.connection.is_none()
                && self.event_connections.is_empty()
                && self.bad_times == 0
                && !self.cut)
    }

    /// Whether this batch has room for the next message, if that turns out to fit.
    #[inline]
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.events.len() < MAX_BATCH.min(self.events.limit()) && self.is_plain() && self.is_cheap_to_copy()
    }

    /// Whether the last event's payload need not be copied into a batch, or is short enough for it.
    fn is_cheap_to_copy(&self) -> bool {
        self.events
            .iter()
            .rev()
            .take(1)
            .all(|event| !event.body.payload.in_scratch || event.body.payload.len <= MAX_COPY)
    }

    /// Adds the events of the next message to this batch if they may share it, and returns whether they do. The window
    /// of `next` begins `at` bytes after the window of this batch, and `next` itself begins `segment` bytes after the
    /// first message of this batch.
    #[inline]
    pub fn append(&mut self, next: &Self, at: usize, segment: usize) -> bool {
        let Ok(segment) = u32::try_from(segment) else { return false };
        let len = self.events.len() + next.events.len();
        let fits = next.is_plain()
            && len <= MAX_BATCH.min(self.events.limit())
            && next.events.last().is_some_and(|last| last.segment.checked_add(segment).is_some());
        if !fits || !next.is_cheap_to_copy() {
            return false;
        }
        if self.further == 0 {
            self.events[0].trace_id = self.trace_id;
        }
        for (index, event) in next.events.iter().enumerate() {
            let Span { start, len, in_scratch } = event.body.payload;
            let payload = if in_scratch {
                self.copy(&next.scratch[start..start + len])
            } else {
                Span::in_window(start + at, len)
            };
            // The last event's sum is the largest, and was checked above.
            self.events.push(Event {
                body: Body { payload, ..event.body },
                segment: event.segment + segment,
                trace_id: next.trace_id_of(index),
                ..*event
            });
        }
        self.further = len - 1;
        true
    }

    /// Adds a part of an HTTP exchange, still without fields. [`Message::push_header`] adds those.
    pub fn push_http(&mut self, side: HttpSide, part: HttpPart) -> &mut HttpPiece {
        let from = self.headers.len();
        let piece = HttpPiece { side, part, headers: (from, from), body: Body::default(), time: None };
        self.http.push(piece);
        if self.http.beyond() > 0 {
            return self.dropped.insert(piece);
        }
        self.http.last_mut().expect("just pushed")
    }

    /// Adds a field to the last part.
    #[inline]
    pub fn push_header(&mut self, header: Header) {
        // The part that the field belongs to was dropped.
        if self.http.beyond() > 0 {
            return;
        }
        self.headers.push(header);
        if let Some(piece) = self.http.last_mut() {
            piece.headers.1 = self.headers.len();
        }
    }

    /// Adds a field to a part of a buffered trace. Such a part has no message of its own, so its first field starts it.
    #[inline]
    pub fn push_header_of(&mut self, side: HttpSide, part: HttpPart, header: Header) {
        if self.http.last().is_none_or(|last| (last.side, last.part) != (side, part)) {
            self.push_http(side, part);
        }
        self.push_header(header);
    }

    /// Notes when the header fields of a buffered trace's request or response were received.
    pub fn set_http_time(&mut self, side: HttpSide, time: Option<Nanos>) {
        let part = HttpPart::Headers;
        match self.http.iter_mut().rfind(|piece| (piece.side, piece.part) == (side, part)) {
            Some(piece) => piece.time = time,
            None => self.push_http(side, part).time = time,
        }
    }

    /// Forgets the parts of one side, or only those of one kind, because later ones replace them.
    pub fn remove_http(&mut self, side: HttpSide, part: Option<HttpPart>) {
        let is_replaced = |piece: &HttpPiece| piece.side == side && part.is_none_or(|part| piece.part == part);
        if !self.http.iter().any(is_replaced) {
            return;
        }
        let mut kept = 0;
        for index in 0..self.http.len() {
            if !is_replaced(&self.http[index]) {
                self.http.swap(kept, index);
                kept += 1;
            }
        }
        self.http.truncate(kept);
    }

    /// Sorts the parts of a buffered exchange into the order in which HTTP sends them, and joins the pieces of each.
    /// Protobuf fields and JSON keys may come in any order, so the pieces of several parts may be interleaved.
    pub fn order_http(&mut self) {
        let key = |piece: &HttpPiece| (piece.side.index(), piece.part);
        if self.kind != Some(TraceKind::HttpBuffered) || self.http.windows(2).all(|two| key(&two[0]) < key(&two[1])) {
            return;
        }
        self.http.sort_by_key(key);
        let mut headers = Vec::with_capacity(self.headers.len());
        let mut kept = 0_usize;
        for index in 0..self.http.len() {
            let mut piece = self.http[index];
            let from = headers.len();
            headers.extend_from_slice(&self.headers[piece.headers.0..piece.headers.1]);
            piece.headers = (from, headers.len());
            match kept.checked_sub(1).map(|last| &mut self.http[last]) {
                Some(last) if key(last) == key(&piece) => {
                    last.headers.1 = headers.len();
                    last.time = piece.time.or(last.time);
                    last.body = piece.body;
                }
                _ => {
                    self.http[kept] = piece;
                    kept += 1;
                }
            }
        }
        self.http.truncate(kept);
        // No field is in two parts, so there are no more fields than before.
        self.headers[..headers.len()].copy_from_slice(&headers);
        self.headers.truncate(headers.len());
    }

    /// Appends copies of the parts of another message's exchange, and takes over its connections if this message has
    /// none.
    pub fn append_http(&mut self, other: MessageView<'_>) {
        let message = other.message();
        self.kind = message.kind;
        self.trace_id = message.trace_id;
        (self.offset, self.index) = (message.offset, message.index);
        self.arrived |= message.arrived;
        self.connection_of_socket |= message.connection_of_socket;
        for (mine, theirs) in
            [(&mut self.connection, &message.connection), (&mut self.upstream_connection, &message.upstream_connection)]
        {
            if mine.is_none() {
                mine.clone_from(theirs);
            }
        }
        for piece in &message.http {
            let payload = self.copy(other.bytes(piece.body.payload));
            let copied = self.push_http(piece.side, piece.part);
            copied.body = Body { payload, ..piece.body };
            copied.time = piece.time;
            for header in other.headers(piece) {
                let (key, value) = (self.copy(other.bytes(header.key)), self.copy(other.bytes(header.value)));
                self.push_header(Header { key, value });
            }
        }
    }

    /// The memory that the parts of an exchange take in this message.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.scratch.len() + size_of_val(&*self.http) + size_of_val(&*self.headers)
    }

    fn copy(&mut self, bytes: &[u8]) -> Span {
        let start = self.scratch.len();
        self.scratch.extend_from_slice(bytes);
        self.scratch_span(start)
    }

    /// Where decoders put bytes that had to be unescaped or decoded.
    pub fn scratch(&mut self) -> &mut Vec<u8> {
        &mut self.scratch
    }

    /// The span of all scratch bytes from `start` on.
    #[must_use]
    pub fn scratch_span(&self, start: usize) -> Span {
        Span { start, len: self.scratch.len() - start, in_scratch: true }
    }
}

/// A message together with the bytes it was decoded from.
#[derive(Clone, Copy, Debug)]
pub struct MessageView<'a> {
    message: &'a Message,
    window: &'a [u8],
}

impl<'a> MessageView<'a> {
    /// `window` must be the one that the message was decoded from, because spans count from its first byte.
    #[inline]
    #[must_use]
    pub fn new(message: &'a Message, window: &'a [u8]) -> Self {
        Self { message, window }
    }

    /// The records.
    #[inline]
    #[must_use]
    pub fn message(self) -> &'a Message {
        self.message
    }

    /// The fields of a part of an HTTP exchange.
    #[inline]
    #[must_use]
    pub fn headers(self, piece: &HttpPiece) -> &'a [Header] {
        &self.message.headers[piece.headers.0..piece.headers.1]
    }

    /// The bytes of a span of this message.
    #[inline]
    #[must_use]
    pub fn bytes(self, span: Span) -> &'a [u8] {
        let all = if span.in_scratch { self.message.scratch.as_slice() } else { self.window };
        &all[span.start..span.start + span.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(trace_id: u64, payload: &[u8], in_scratch: bool) -> Message {
        let mut message = Message { kind: Some(TraceKind::SocketStreamed), trace_id, ..Message::default() };
        message.scratch.extend_from_slice(if in_scratch { payload } else { b"" });
        let payload = Span { start: 0, len: payload.len(), in_scratch };
        let body = Body { payload, ..Body::default() };
        message.events.push(Event { time: Some(5), kind: EventKind::Read, body, ..Event::default() });
        message
    }

    #[test]
    fn the_events_of_a_batch_keep_their_bytes_and_places() {
        let place = |offset, message| Place { offset, message };
        let mut batch = segment(1, b"abc", true);
        (batch.offset, batch.index) = (1000, 10);
        assert_eq!((batch.count(), batch.place_of(0), batch.place_of(1)), (1, place(1000, 10), place(1000, 10)));
        assert!(batch.append(&segment(1, b"de", true), 20, 21));
        assert!(batch.append(&segment(1, b"fgh", false), 3, 42));
        assert_eq!(batch.count(), 3);
        assert_eq!([0, 1, 2].map(|event| batch.place_of(event)), [place(1000, 10), place(1021, 11), place(1042, 12)]);
        let view = MessageView::new(&batch, b"123fgh");
        let payloads = batch.events.iter().map(|event| view.bytes(event.body.payload)).collect::<Vec<_>>();
        assert_eq!(payloads, [b"abc".as_slice(), b"de", b"fgh"]);
        batch.clear();
        assert_eq!((batch.count(), batch.is_plain()), (1, false));
    }

    /// A message is not added to a batch if that changed its meaning or hid a finding about it.
    #[test]
    fn only_plain_segments_share_a_batch() {
        let plain = || segment(1, b"abc", false);
        assert!(plain().has_room() && plain().append(&plain(), 10, 10));
        let changes: [fn(&mut Message); 14] = [
            |message| message.kind = Some(TraceKind::SocketBuffered),
            |message| message.connection = Some(Connection::default()),
            |message| message.event_connections.push(Connection::default()),
            |message| message.note_bad_time(TimeError::Unreadable),
            |message| message.cut = true,
            |message| message.events.push(Event::default()),
            |message| message.events.clear(),
            |message| message.events[0].time = None,
            |message| message.events[0].time = Some(1 << 62),
            |message| message.events[0].kind = EventKind::Closed,
            |message| message.events[0].body.truncated = true,
            |message| message.events[0].body.as_string = true,
            |message| message.events[0].end_stream = true,
            |message| message.events[0].connection = Some(0),
        ];
        for (index, change) in changes.into_iter().enumerate() {
            let mut other = plain();
            change(&mut other);
            assert!(!other.has_room() && !plain().append(&other, 10, 10), "{index}");
        }
        let mut batch = plain();
        assert!(batch.append(&segment(2, b"abc", false), 10, 10) && batch.append(&plain(), 20, 20));
        assert_eq!([0, 1, 2].map(|event| batch.trace_id_of(event)), [1, 2, 1]);
        // The distance from the first message does not fit `Event::segment`.
        assert!(!plain().append(&plain(), 10, 1 << 32));
        let mut full = Message::with_limits(1, 1);
        full.kind = Some(TraceKind::SocketStreamed);
        full.events.push(plain().events[0]);
        assert!(!full.has_room());
    }
}
