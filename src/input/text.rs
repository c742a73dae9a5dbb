//! `PROTO_TEXT`: `TraceWrapper` messages in the protobuf text format, one field of the oneof after another.
//!
//! Nothing marks where one wrapper ends and the next starts, but each holds one field of the oneof, so each such field
//! is a message, complete with its closing brace: on a live stream the next one may be long in coming. What else stands
//! at the top level belongs to the message before it, says nothing of it, and is skipped.

mod fast;
mod lexer;
mod split;
#[cfg(test)]
#[cfg(feature = "record")]
mod tests;
mod unescape;

use memchr::memchr;

use self::{
    fast::Outcome,
    lexer::{Lexer, Parse, Stop, Text},
    split::{Split, kind_of},
};
use super::{
    decode::{Decode, Fault, Step},
    parts::{self, Ends, EventParts, HttpParts, Time},
};
use crate::trace::{Address, Body, Code, Event, EventKind, Header, HttpPart, HttpSide, Message, Span, TraceKind};

/// Decodes `PROTO_TEXT`.
#[derive(Debug, Default)]
pub(crate) struct TextDecoder {
    /// The search for the end of a field that crossed the end of the window.
    split: Option<Split>,
    /// The search found an end that may be none.
    found: bool,
    /// Bytes to wait for before decoding is tried again, where the search found an end that was none.
    patience: usize,
    /// Bytes after which decoding is tried again whatever the search says, where it does not know every end.
    limit: Option<usize>,
    /// The window starts inside a comment between fields.
    in_comment: bool,
    /// A field ended before the window, so a separator may follow.
    after_field: bool,
    /// The search for the end of a message that is passed over.
    over: Option<Split>,
    /// Unknown fields of the field that start before this were counted when decoding it was first tried.
    counted: usize,
    /// What the fast path is held against.
    #[cfg(test)]
    only_general: bool,
}

impl Decode for TextDecoder {
    fn step(&mut self, window: &[u8], at_end: bool, out: &mut Message) -> Step {
        let mut start = 0;
        if let Some(over) = &mut self.over {
            match over.find(window, at_end) {
                Some(end) => {
                    start = end;
                    self.begin(true);
                }
                None if at_end => return Step::End,
                None => {
                    let skip = over.give_up(window);
                    return Step::NeedMore { skip, wanted: window.len() - skip + 1 };
                }
            }
        }
        start = self.skip_between(window, start);
        loop {
            if start == window.len() {
                return if at_end { Step::End } else { Step::NeedMore { skip: start, wanted: 1 } };
            }
            if !at_end && self.is_pending(window) {
                return self.more(window, start);
            }
            match self.segment(window, start, out) {
                Outcome::Read((), end) => {
                    self.begin(true);
                    return Step::Message { start, end };
                }
                Outcome::Cut(at) if !at_end => {
                    let split = Split::to_end(at, fast::DEPTH, true);
                    return self.wait_for_end(split, true, self.counted, window, start, out);
                }
                Outcome::Cut(_) | Outcome::Other => {}
            }
            let mut parser = Parser::new(window, start, at_end, self.counted, out);
            #[cfg(test)]
            {
                parser.only_general = self.only_general;
            }
            let outcome = parser.field();
            let Parser { lex, counted, .. } = parser;
            match outcome {
                Ok(()) => {
                    self.begin(true);
                    if out.kind.is_some() {
                        return Step::Message { start, end: lex.pos };
                    }
                    start = self.skip_between(window, lex.pos);
                }
                Err(Stop::End) if at_end => {
                    self.begin(false);
                    out.cut = true;
                    let detail = "the text ends inside a message".into();
                    let fault = Fault { at: window.len(), code: Code::CutOff, detail };
                    return Step::Damaged { start, end: window.len(), fault };
                }
                Err(Stop::End) => {
                    let is_message = out.kind.is_some();
                    let split = Split::to_end(lex.pos, lex.depth, is_message);
                    return self.wait_for_end(split, is_message, counted, window, start, out);
                }
                Err(Stop::Bad) => {
                    let mut split = Split::to_next(lex.pos, lex.depth);
                    let Some(end) = split.find(window, at_end).or(at_end.then_some(window.len())) else {
                        self.limit = None;
                        self.wait(split, counted, start, out);
                        return self.more(window, start);
                    };
                    self.begin(false);
                    let (at, detail) = lex.fault;
                    return Step::Damaged { start, end, fault: Fault { at, code: Code::Undecodable, detail } };
                }
            }
        }
    }

    fn look_again(&mut self) {
        self.split = None;
        self.patience = 0;
    }

    fn pass_over(&mut self) -> bool {
        self.begin(false);
        self.over = Some(Split::to_end(0, 0, false));
        true
    }
}

impl TextDecoder {
    /// Skips white space, comments and the separator that may stand between two fields.
    fn skip_between(&mut self, window: &[u8], from: usize) -> usize {
        let mut at = from;
        loop {
            if self.in_comment {
                let Some(newline) = memchr(b'\n', &window[at..]) else { return window.len() };
                at += newline;
                self.in_comment = false;
            }
            match window.get(at) {
                Some(b' ' | b'\n' | b'\t' | b'\r' | 0x0b | 0x0c) => at += 1,
                Some(b'#') => self.in_comment = true,
                Some(b',' | b';') if self.after_field => {
                    self.after_field = false;
                    at += 1;
                }
                _ => return at,
            }
        }
    }

    /// Whether decoding the field at the start of the window is not worth another try yet.
    fn is_pending(&mut self, window: &[u8]) -> bool {
        let Some(split) = &mut self.split else { return false };
        self.found = window.len() >= self.patience && split.find(window, false).is_some();
        !self.found && self.limit.is_none_or(|limit| window.len() < limit)
    }

    /// Starts over behind a field or behind damage.
    fn begin(&mut self, after_field: bool) {
        *self = Self {
            after_field,
            #[cfg(test)]
            only_general: self.only_general,
            ..Self::default()
        };
    }

    #[inline]
    fn segment(&mut self, window: &[u8], start: usize, out: &mut Message) -> Outcome<()> {
        #[cfg(test)]
        if self.only_general {
            return Outcome::Other;
        }
        fast::segment(window, start, out)
    }

    /// Asks for the rest of a field that crosses the end of the window.
    fn wait_for_end(
        &mut self,
        split: Split,
        is_message: bool,
        counted: usize,
        window: &[u8],
        start: usize,
        out: &mut Message,
    ) -> Step {
        let twice = (window.len() - start) * 2;
        // The search takes a value for a name and a list's element for a field, so one that found an end too early may
        // do so again and again.
        self.patience = if self.found { twice } else { 0 };
        // A field of the oneof ends with a brace. Of others the search does not know every end, and waiting for the
        // next message would collect them.
        self.limit = (!is_message).then_some(twice);
        self.wait(split, counted, start, out);
        self.more(window, start)
    }

    /// Keeps what was learnt of a field that has to be decoded again. The next window starts at the field.
    fn wait(&mut self, mut split: Split, counted: usize, start: usize, out: &mut Message) {
        split.shift(start);
        self.split = Some(split);
        self.counted = counted;
        out.clear();
    }

    fn more(&self, window: &[u8], start: usize) -> Step {
        Step::NeedMore { skip: start, wanted: self.patience.max(window.len() - start + 1) }
    }
}

/// What a streamed socket segment holds, by its oneof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Member {
    Connection,
    Event,
    Events,
}

/// The member that counts, which is complete only where the segment ends.
#[derive(Debug, Default)]
struct Piece {
    member: Option<Member>,
    connection: Option<Ends>,
    /// Before the event that the fast reader took: position and depth.
    fast_event: Option<(usize, usize)>,
    /// The event, and whether enough of it is there to keep it.
    event: Option<(EventParts, bool)>,
}

/// One pass over one field of the top level: a method for each message type, which reads from behind the opening brace to behind
/// the closing one.
struct Parser<'w, 'm> {
    lex: Lexer<'w>,
    out: &'m mut Message,
    /// Where the field starts in the window.
    start: usize,
    /// See [`TextDecoder::counted`].
    counted: usize,
    #[cfg(test)]
    only_general: bool,
}

impl<'w, 'm> Parser<'w, 'm> {
    fn new(window: &'w [u8], start: usize, at_end: bool, counted: usize, out: &'m mut Message) -> Self {
        Self {
            lex: Lexer::new(window, start, at_end),
            out,
            start,
            counted,
            #[cfg(test)]
            only_general: false,
        }
    }

    /// One field of the top level.
    fn field(&mut self) -> Parse<()> {
        let name = self.lex.name()?;
        match kind_of(name) {
            Some(kind) => {
                self.out.kind = Some(kind);
                self.trace(kind)
            }
            None if name == b"configured_sample_rate" => self.lex.skip_message(),
            None => self.unknown("TraceWrapper", name),
        }
    }

    fn trace(&mut self, kind: TraceKind) -> Parse<()> {
        let close = self.lex.open()?;
        match kind {
            TraceKind::HttpBuffered => self.http_buffered_trace(close),
            TraceKind::HttpStreamed => self.http_streamed_trace_segment(close),
            TraceKind::SocketBuffered => self.socket_buffered_trace(close),
            TraceKind::SocketStreamed => self.socket_streamed_trace_segment(close),
        }
    }

    fn http_buffered_trace(&mut self, close: u8) -> Parse<()> {
        let mut http = [HttpParts::default(); 2];
        let (mut downstream, mut upstream) = (None, None);
        let outcome = self.http_buffered_fields(close, &mut http, &mut downstream, &mut upstream);
        for (side, parts) in [HttpSide::Request, HttpSide::Response].into_iter().zip(http) {
            if let Some(time) = parts.time.and_then(|time| time.finish(self.out)) {
                self.out.set_http_time(side, Some(time));
            }
        }
        self.out.order_http();
        self.out.connection = downstream.map(|ends| ends.finish(self.out));
        self.out.upstream_connection = upstream.map(|ends| ends.finish(self.out));
        outcome
    }

    fn http_buffered_fields(
        &mut self,
        close: u8,
        [request, response]: &mut [HttpParts; 2],
        downstream: &mut Option<Ends>,
        upstream: &mut Option<Ends>,
    ) -> Parse<()> {
        while let Some(name) = self.lex.next(close)? {
            match name {
                b"request" => self.http_message(HttpSide::Request, request)?,
                b"response" => self.http_message(HttpSide::Response, response)?,
                b"downstream_connection" => self.connection(downstream)?,
                b"upstream_connection" => self.connection(upstream)?,
                _ => self.unknown("HttpBufferedTrace", name)?,
            }
        }
        Ok(())
    }

    fn http_message(&mut self, side: HttpSide, parts: &mut HttpParts) -> Parse<()> {
        let close = self.lex.open()?;
        while let Some(name) = self.lex.next(close)? {
            match name {
                b"headers" => self.each(|this, close| {
                    let header = this.header_value(close)?;
                    this.out.push_header_of(side, HttpPart::Headers, header);
                    Ok(())
                })?,
                b"body" => match parts.body {
                    Some(index) => self.more_of_body(index)?,
                    None => {
                        let before = self.out.http.len();
                        let outcome = self.http_body(side);
                        parts.body = (self.out.http.len() > before).then_some(before);
                        outcome?;
                    }
                },
                b"trailers" => self.each(|this, close| {
                    let header = this.header_value(close)?;
                    this.out.push_header_of(side, HttpPart::Trailers, header);
                    Ok(())
                })?,
                b"headers_received_time" => self.timestamp(&mut parts.time)?,
                _ => self.unknown("Message", name)?,
            }
        }
        Ok(())
    }

    fn http_streamed_trace_segment(&mut self, close: u8) -> Parse<()> {
        let mut member = None;
        while let Some(name) = self.lex.next(close)? {
            let (side, part) = match name {
                b"trace_id" => {
                    self.out.trace_id = self.lex.uint64()?;
                    continue;
                }
                b"request_headers" => (HttpSide::Request, HttpPart::Headers),
                b"request_body_chunk" => (HttpSide::Request, HttpPart::Body),
                b"request_trailers" => (HttpSide::Request, HttpPart::Trailers),
                b"response_headers" => (HttpSide::Response, HttpPart::Headers),
                b"response_body_chunk" => (HttpSide::Response, HttpPart::Body),
                b"response_trailers" => (HttpSide::Response, HttpPart::Trailers),
                _ => {
                    self.unknown("HttpStreamedTraceSegment", name)?;
                    continue;
                }
            };
            let more = self.select(&mut member, (side, part)) && !self.out.http.is_empty();
            match (part, more) {
                (HttpPart::Body, false) => self.http_body(side)?,
                (HttpPart::Body, true) => self.more_of_body(0)?,
                (_, more) => self.header_map(side, part, more)?,
            }
        }
        Ok(())
    }

    /// Goes to a member of a streamed segment's oneof: the last one counts. Answers whether it is more of the one before.
    fn select<M: PartialEq>(&mut self, member: &mut Option<M>, next: M) -> bool {
        match member {
            None => {
                *member = Some(next);
                false
            }
            Some(before) if *before == next => true,
            Some(before) => {
                *before = next;
                self.out.clear_piece();
                false
            }
        }
    }

    fn header_map(&mut self, side: HttpSide, part: HttpPart, more: bool) -> Parse<()> {
        let close = self.lex.open()?;
        if !more {
            self.out.push_http(side, part);
        }
        while let Some(name) = self.lex.next(close)? {
            match name {
                b"headers" => self.each(|this, close| {
                    let header = this.header_value(close)?;
                    this.out.push_header(header);
                    Ok(())
                })?,
                _ => self.unknown("HeaderMap", name)?,
            }
        }
        Ok(())
    }

    fn header_value(&mut self, close: u8) -> Parse<Header> {
        let (mut header, mut raw_value) = (Header::default(), Span::default());
        while let Some(name) = self.lex.next(close)? {
            match name {
                b"key" => self.span(&mut header.key)?,
                b"value" => self.span(&mut header.value)?,
                b"raw_value" => self.span(&mut raw_value)?,
                _ => self.unknown("HeaderValue", name)?,
            }
        }
        if header.value.is_empty() {
            header.value = raw_value;
        }
        Ok(header)
    }

    fn http_body(&mut self, side: HttpSide) -> Parse<()> {
        let mut body = Body::default();
        let outcome = self.body(&mut body);
        // Of a body that the end of the source cuts, a payload is worth having.
        let half = outcome == Err(Stop::End) && self.lex.at_end && !body.payload.is_empty();
        if outcome.is_ok() || half {
            self.out.push_http(side, HttpPart::Body).body = body;
        }
        outcome
    }

    /// Merges more of a body with what was there of it.
    fn more_of_body(&mut self, index: usize) -> Parse<()> {
        let mut body = self.out.http.get(index).map(|piece| piece.body).unwrap_or_default();
        let outcome = self.body(&mut body);
        if let Some(piece) = self.out.http.get_mut(index) {
            piece.body = body;
        }
        outcome
    }

    fn socket_buffered_trace(&mut self, close: u8) -> Parse<()> {
        let mut ends = None;
        let outcome = self.socket_buffered_fields(close, &mut ends);
        self.out.connection = ends.map(|ends| ends.finish(self.out));
        outcome
    }

    fn socket_buffered_fields(&mut self, close: u8, ends: &mut Option<Ends>) -> Parse<()> {
        while let Some(name) = self.lex.next(close)? {
            match name {
                b"trace_id" => self.out.trace_id = self.lex.uint64()?,
                b"connection" => self.connection(ends)?,
                b"events" => self.each(Self::socket_event)?,
                b"read_truncated" => self.out.read_truncated = self.lex.boolean()?,
                b"write_truncated" => self.out.write_truncated = self.lex.boolean()?,
                _ => self.unknown("SocketBufferedTrace", name)?,
            }
        }
        Ok(())
    }

    fn socket_streamed_trace_segment(&mut self, close: u8) -> Parse<()> {
        let mut piece = Piece::default();
        let outcome = self.socket_streamed_fields(close, &mut piece);
        self.out.connection = piece.connection.map(|ends| ends.finish(self.out));
        if let Some((event, true)) = piece.event {
            event.finish(self.out);
        }
        outcome
    }

    fn socket_streamed_fields(&mut self, close: u8, piece: &mut Piece) -> Parse<()> {
        while let Some(name) = self.lex.next(close)? {
            match name {
                b"trace_id" => self.out.trace_id = self.lex.uint64()?,
                b"connection" => {
                    self.select_piece(piece, Member::Connection);
                    self.connection(&mut piece.connection)?;
                }
                b"event" => {
                    let more = self.select_piece(piece, Member::Event);
                    self.segment_event(piece, more)?;
                }
                b"events" => {
                    self.select_piece(piece, Member::Events);
                    let close = self.lex.open()?;
                    self.socket_events(close)?;
                }
                _ => self.unknown("SocketStreamedTraceSegment", name)?,
            }
        }
        Ok(())
    }

    fn select_piece(&mut self, piece: &mut Piece, member: Member) -> bool {
        let more = self.select(&mut piece.member, member);
        if !more {
            *piece = Piece { member: Some(member), ..Piece::default() };
        }
        more
    }

    /// The event of a segment, or more of it.
    fn segment_event(&mut self, piece: &mut Piece, more: bool) -> Parse<()> {
        let before = (self.lex.pos, self.lex.depth);
        let close = self.lex.open()?;
        if !more && let Some(event) = self.fast_event(close) {
            self.out.events.push(event);
            piece.fast_event = Some(before);
            return Ok(());
        }
        if let Some((pos, depth)) = piece.fast_event.take() {
            self.out.events.clear();
            let mut event = EventParts::default();
            let after = (self.lex.pos, self.lex.depth);
            (self.lex.pos, self.lex.depth) = (pos, depth);
            let close = self.lex.open()?;
            self.socket_event_fields(close, &mut event)?;
            (self.lex.pos, self.lex.depth) = after;
            piece.event = Some((event, true));
        }
        let (event, is_kept) = piece.event.get_or_insert_default();
        let outcome = self.socket_event_fields(close, event);
        *is_kept |= self.keeps(event, outcome);
        outcome
    }

    /// Whether an event is worth having: of one that the end of the source cuts, a payload is.
    fn keeps(&self, event: &EventParts, outcome: Parse<()>) -> bool {
        let half = outcome == Err(Stop::End) && self.lex.at_end && !event.event.body.payload.is_empty();
        outcome.is_ok() || half
    }

    fn socket_events(&mut self, close: u8) -> Parse<()> {
        while let Some(name) = self.lex.next(close)? {
            match name {
                b"events" => self.each(Self::socket_event)?,
                _ => self.unknown("SocketEvents", name)?,
            }
        }
        Ok(())
    }

    fn socket_event(&mut self, close: u8) -> Parse<()> {
        if let Some(event) = self.fast_event(close) {
            self.out.events.push(event);
            return Ok(());
        }
        let mut event = EventParts::default();
        let outcome = self.socket_event_fields(close, &mut event);
        if self.keeps(&event, outcome) {
            event.finish(self.out);
        }
        outcome
    }

    #[inline]
    fn fast_event(&mut self, close: u8) -> Option<Event> {
        #[cfg(test)]
        if self.only_general {
            return None;
        }
        if close != b'}' {
            return None;
        }
        let Outcome::Read(event, end) = fast::event(self.lex.window, self.lex.pos, self.out) else { return None };
        self.lex.close_at(end);
        Some(event)
    }

    fn socket_event_fields(&mut self, close: u8, parts: &mut EventParts) -> Parse<()> {
        while let Some(name) = self.lex.next(close)? {
            match name {
                b"timestamp" => self.timestamp(&mut parts.time)?,
                b"read" => {
                    parts.select(EventKind::Read);
                    let close = self.lex.open()?;
                    self.read(close, &mut parts.event)?;
                }
                b"write" => {
                    parts.select(EventKind::Write);
                    let close = self.lex.open()?;
                    self.write(close, &mut parts.event)?;
                }
                b"closed" => {
                    parts.select(EventKind::Closed);
                    let close = self.lex.open()?;
                    self.closed(close)?;
                }
                b"connection" => self.connection(&mut parts.connection)?,
                b"seq_num" => parts.event.seq_num = self.lex.uint64()?,
                _ => self.unknown("SocketEvent", name)?,
            }
        }
        Ok(())
    }

    fn read(&mut self, close: u8, event: &mut Event) -> Parse<()> {
        while let Some(name) = self.lex.next(close)? {
            match name {
                b"data" => self.body(&mut event.body)?,
                _ => self.unknown("Read", name)?,
            }
        }
        Ok(())
    }

    fn write(&mut self, close: u8, event: &mut Event) -> Parse<()> {
        while let Some(name) = self.lex.next(close)? {
            match name {
                b"data" => self.body(&mut event.body)?,
                b"end_stream" => event.end_stream = self.lex.boolean()?,
                _ => self.unknown("Write", name)?,
            }
        }
        Ok(())
    }

    fn closed(&mut self, close: u8) -> Parse<()> {
        while let Some(name) = self.lex.next(close)? {
            self.unknown("Closed", name)?;
        }
        Ok(())
    }

    fn body(&mut self, body: &mut Body) -> Parse<()> {
        let close = self.lex.open()?;
        while let Some(name) = self.lex.next(close)? {
            match name {
                b"as_bytes" => self.payload(body, false)?,
                b"as_string" => self.payload(body, true)?,
                b"truncated" => body.truncated = self.lex.boolean()?,
                _ => self.unknown("Body", name)?,
            }
        }
        Ok(())
    }

    fn payload(&mut self, body: &mut Body, as_string: bool) -> Parse<()> {
        let (outcome, open) = self.string(&mut body.payload);
        body.as_string = as_string;
        body.truncated |= open;
        outcome
    }

    fn span(&mut self, span: &mut Span) -> Parse<()> {
        self.string(span).0
    }

    /// The value of a `string` or `bytes` field, where it is or unescaped. Whatever the outcome, the span is of what
    /// was readable; the flag says that it is not closed.
    fn string(&mut self, span: &mut Span) -> (Parse<()>, bool) {
        let mut text = Text::default();
        let outcome = self.lex.string(self.out.scratch(), &mut text);
        *span = if text.in_scratch { self.out.scratch_span(text.start) } else { Span::in_window(text.start, text.len) };
        (outcome, text.open)
    }

    fn timestamp(&mut self, time: &mut Option<Time>) -> Parse<()> {
        let close = self.lex.open()?;
        let mut read = time.unwrap_or_default();
        while let Some(name) = self.lex.next(close)? {
            match name {
                b"seconds" => read.seconds = self.signed()?,
                b"nanos" => read.nanos = self.signed()?,
                _ => self.unknown("Timestamp", name)?,
            }
        }
        *time = Some(read);
        Ok(())
    }

    /// The nearest number is enough: one that does not fit makes no time either.
    fn signed(&mut self) -> Parse<i64> {
        self.lex.colon()?;
        Ok(self.lex.integer()?.saturate_i64())
    }

    /// A connection, or more of it.
    fn connection(&mut self, ends: &mut Option<Ends>) -> Parse<()> {
        let close = self.lex.open()?;
        let mut read = ends.take().unwrap_or_default();
        while let Some(name) = self.lex.next(close)? {
            match name {
                b"local_address" => self.address(&mut read.first)?,
                b"remote_address" => self.address(&mut read.second)?,
                _ => self.unknown("Connection", name)?,
            }
        }
        *ends = Some(read);
        Ok(())
    }

    fn address(&mut self, address: &mut Option<Address>) -> Parse<()> {
        let close = self.lex.open()?;
        while let Some(name) = self.lex.next(close)? {
            match name {
                b"socket_address" => self.socket_address(parts::socket(address))?,
                b"pipe" => self.pipe(parts::pipe(address))?,
                b"envoy_internal_address" => self.envoy_internal_address(parts::internal(address))?,
                _ => self.unknown("Address", name)?,
            }
        }
        Ok(())
    }

    fn socket_address(&mut self, (address, port): (&mut String, &mut Option<u32>)) -> Parse<()> {
        let close = self.lex.open()?;
        while let Some(name) = self.lex.next(close)? {
            match name {
                b"address" => *address = self.text()?,
                b"port_value" => {
                    self.lex.colon()?;
                    *port = Some(self.lex.integer()?.saturate_u32());
                }
                b"named_port" => {
                    // The other side of the oneof that holds the port.
                    *port = None;
                    self.lex.skip_field()?;
                }
                b"protocol" | b"resolver_name" | b"ipv4_compat" | b"network_namespace_filepath" => {
                    self.lex.skip_field()?;
                }
                _ => self.unknown("SocketAddress", name)?,
            }
        }
        Ok(())
    }

    fn pipe(&mut self, path: &mut String) -> Parse<()> {
        let close = self.lex.open()?;
        while let Some(name) = self.lex.next(close)? {
            match name {
                b"path" => *path = self.text()?,
                b"mode" => self.lex.skip_field()?,
                _ => self.unknown("Pipe", name)?,
            }
        }
        Ok(())
    }

    fn envoy_internal_address(&mut self, (listener, endpoint): (&mut String, &mut String)) -> Parse<()> {
        let close = self.lex.open()?;
        while let Some(name) = self.lex.next(close)? {
            match name {
                b"server_listener_name" => *listener = self.text()?,
                b"endpoint_id" => *endpoint = self.text()?,
                _ => self.unknown("EnvoyInternalAddress", name)?,
            }
        }
        Ok(())
    }

    /// The value of a `string` field that is no payload.
    fn text(&mut self) -> Parse<String> {
        let mut text = Text::default();
        self.lex.string(self.out.scratch(), &mut text)?;
        if !text.in_scratch {
            return Ok(String::from_utf8_lossy(&self.lex.window[text.start..text.start + text.len]).into_owned());
        }
        let scratch = self.out.scratch();
        let value = String::from_utf8_lossy(&scratch[text.start..]).into_owned();
        scratch.truncate(text.start);
        Ok(value)
    }

    /// The messages of a repeated field, which may stand in a short list.
    fn each(&mut self, message: impl Fn(&mut Self, u8) -> Parse<()>) -> Parse<()> {
        if self.lex.peek()? == b':' {
            self.lex.pos += 1;
        }
        if self.lex.peek()? != b'[' {
            let close = self.lex.open_bare()?;
            return message(self, close);
        }
        self.lex.pos += 1;
        let mut first = true;
        while self.lex.element(first)? {
            let close = self.lex.open_bare()?;
            message(self, close)?;
            first = false;
        }
        Ok(())
    }

    /// Skips a field that this version does not know, and counts it.
    #[cold]
    fn unknown(&mut self, message: &'static str, name: &[u8]) -> Parse<()> {
        self.lex.refuse_top_level(name)?;
        let end = self.lex.pos - self.start;
        if end > self.counted {
            self.counted = end;
            let number = str::from_utf8(name).ok().and_then(|name| name.parse().ok());
            match number {
                Some(number) => self.out.unknown.count_number(message, number),
                None => self.out.unknown.count_name(message, &String::from_utf8_lossy(name)),
            }
        }
        self.lex.skip_value()
    }
}
