//! HTTP/1.0 and HTTP/1.1 (RFC 9112), read from the bytes of both directions as they come.

use std::{collections::VecDeque, ops::Range};

use httparse::{EMPTY_HEADER, Header, ParserConfig, Status};
use memchr::memchr;

use super::{
    Context, Loss,
    exchange::{Exchange, Fields, HttpMessage, WebSocket},
    grpc,
    sniff::{self, head_end},
    web_socket::Frames,
    wire::WireKind,
};
use crate::trace::{HttpFact, HttpSide, Nanos, Place};

/// The longest head that is read. Envoy's own limit is 60 KiB unless it is raised.
pub(super) const MAX_HEAD: usize = 256 << 10;

/// The most fields of a head, as many as fit with a name of one letter each.
const MAX_FIELDS: usize = MAX_HEAD / 4;

/// The longest line with the size of a chunk. Its extensions count as well.
const MAX_CHUNK_LINE: usize = 4096;

/// How many bytes of a client may wait for the answer to an upgrade.
const MAX_EARLY: usize = 64 << 10;

/// How many requests may wait for their responses.
const MAX_WAITING: usize = 4096;

const SIDES: [HttpSide; 2] = [HttpSide::Request, HttpSide::Response];

/// An exchange that is not over.
#[derive(Debug)]
struct Open {
    exchange: Box<Exchange>,
    /// Whether the request and the response are over.
    done: [bool; 2],
    grpc: Option<Box<grpc::Reader>>,
    /// What the request asks for besides HTTP.
    wish: Wish,
}

/// What may follow a request on its connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Wish {
    #[default]
    Nothing,
    /// CONNECT: bytes of anything.
    Tunnel,
    WebSocket,
    /// HTTP/2 without TLS.
    H2c,
    /// Some other upgrade.
    Other,
}

/// What is read next in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// A head, whose beginning may be in the buffer.
    #[default]
    Head,
    /// This many bytes of a body.
    Body(u64),
    Chunk(Chunk),
    /// A body that the connection's end ends.
    UntilClose,
    /// Bytes of another protocol.
    Tunnel,
    /// The client has asked for another protocol. What it sends before the answer is in the buffer.
    Await,
    /// Bytes are missing or cannot be read, so the next message must be found. If `open`, it ends the current one, and so
    /// does the last chunk of a `chunked` body.
    Lost {
        open: bool,
        chunked: bool,
    },
}

/// Where in a chunked body (RFC 9112 section 7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chunk {
    /// The line with the size, whose beginning may be in the buffer.
    Size,
    Data(u64),
    /// The line's end after the data.
    End,
    /// The trailer section, whose beginning may be in the buffer.
    Trailers,
}

#[derive(Debug, Default)]
struct Side {
    state: State,
    buffer: Vec<u8>,
    /// When and where the head in the buffer began.
    began: (Nanos, Place),
    /// How many bytes were passed over since the last message.
    skipped: u64,
    /// The first line in the buffer is whole, and is one of HTTP.
    has_line: bool,
    /// When the last bytes came.
    last: Nanos,
}

/// Where the response belongs that is being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    /// To the oldest request that waits.
    First,
    /// To a request that is not in the trace.
    Orphan,
}

/// The connection goes on as HTTP/2.
pub(super) struct Switch {
    /// The request that asked for it, which is stream 1 (RFC 7540 section 3.2).
    pub(super) exchange: Box<Exchange>,
    /// How many of the bytes were still HTTP/1.
    pub(super) read: usize,
    /// What the client has sent after the request, before it had the answer.
    pub(super) early: Vec<u8>,
}

/// A connection that speaks HTTP/1.
#[derive(Debug, Default)]
pub(super) struct Http1 {
    sides: [Side; 2],
    /// Requests whose exchange is not over, oldest first.
    open: VecDeque<Open>,
    /// The number of the first of them, counted over the connection.
    first: u64,
    /// The number of the request that is being read.
    request: Option<u64>,
    response: Option<Target>,
    orphan: Option<Open>,
    tunnel: Option<Tunnel>,
    /// Responses are missing from the trace.
    missed_responses: bool,
    /// Heads may be missing from the trace, so that a response may not be that to the request it seems to answer.
    is_doubtful: bool,
    /// Set when a response accepts an upgrade to HTTP/2.
    switch: Option<Box<Exchange>>,
}

/// Another protocol after an upgrade or CONNECT.
#[derive(Debug)]
struct Tunnel {
    web_socket: Option<[Frames; 2]>,
}

/// How long a message's body is (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// There is none.
    None,
    /// So many bytes.
    Length(u64),
    /// It comes in chunks.
    Chunked,
    /// The connection's end ends it.
    UntilClose,
    /// The head contradicts itself, so nobody can tell.
    Unknown,
}

impl Http1 {
    /// Whether a WebSocket was opened.
    pub(super) fn is_web_socket(&self) -> bool {
        self.tunnel.as_ref().is_some_and(|tunnel| tunnel.web_socket.is_some())
    }

    /// Whether bytes of a body come next.
    pub(super) fn is_in_body(&self, side: HttpSide) -> bool {
        matches!(self.sides[side.index()].state, State::Body(_) | State::Chunk(Chunk::Data(_)) | State::UntilClose)
    }

    /// Whether a head of this side has begun, and has not ended.
    pub(super) fn is_in_head(&self, side: HttpSide) -> bool {
        let side = &self.sides[side.index()];
        side.state == State::Head && !side.buffer.is_empty()
    }

    /// Takes the bytes of one side.
    pub(super) fn data(&mut self, context: &mut Context<'_>, side: HttpSide, bytes: &[u8]) -> Option<Switch> {
        self.sides[side.index()].last = context.time;
        let mut rest = bytes;
        while !rest.is_empty() {
            let read = match self.sides[side.index()].state {
                State::Head => self.head(context, side, rest),
                State::Body(left) => self.body(context, side, rest, left),
                State::Chunk(chunk) => self.chunk(context, side, rest, chunk),
                State::UntilClose => {
                    self.add_body(context, side, rest);
                    rest.len()
                }
                State::Tunnel => {
                    self.tunnelled(context, side, rest);
                    rest.len()
                }
                State::Await => self.early(context, rest),
                State::Lost { open, chunked } => self.search(context, side, rest, open, chunked),
            };
            rest = &rest[read..];
            if let Some(exchange) = self.switch.take() {
                let early = std::mem::take(&mut self.sides[0].buffer);
                return Some(Switch { exchange, read: bytes.len() - rest.len(), early });
            }
        }
        None
    }

    /// Bytes of one side that are not in the trace.
    pub(super) fn lose(&mut self, context: &mut Context<'_>, side: HttpSide, loss: Loss) {
        let stays_inside = match (self.sides[side.index()].state, loss) {
            (State::Body(left) | State::Chunk(Chunk::Data(left)), Loss::Exactly(bytes)) => bytes <= left,
            (State::UntilClose | State::Tunnel, _) => true,
            _ => false,
        };
        self.is_doubtful |= !stays_inside;
        let lost = |open, chunked| State::Lost { open, chunked };
        match (self.sides[side.index()].state, loss) {
            (State::Head, _) => {
                if !self.sides[side.index()].buffer.is_empty() {
                    self.cut_head(context, side);
                }
                self.sides[side.index()].state = lost(false, false);
            }
            (State::Body(left), Loss::Exactly(bytes)) if bytes <= left => {
                self.lose_body(context, side, Some(bytes));
                self.sides[side.index()].state = State::Body(left - bytes);
                if left == bytes {
                    self.end(context, side, true);
                }
            }
            (State::Body(left), Loss::Exactly(_)) => {
                self.lose_body(context, side, Some(left));
                self.end(context, side, false);
                self.sides[side.index()].state = lost(false, false);
            }
            (State::Chunk(Chunk::Data(left)), Loss::Exactly(bytes)) if bytes <= left => {
                self.lose_body(context, side, Some(bytes));
                let chunk = if left == bytes { Chunk::End } else { Chunk::Data(left - bytes) };
                self.sides[side.index()].state = State::Chunk(chunk);
            }
            (State::Body(_), Loss::Unknown) => {
                self.lose_body(context, side, None);
                self.sides[side.index()].state = lost(true, false);
            }
            (State::Chunk(_), _) => {
                self.lose_body(context, side, None);
                self.drop_buffer(context, side);
                self.sides[side.index()].state = lost(true, true);
            }
            (State::UntilClose, loss) => self.lose_body(context, side, loss.exactly()),
            (State::Tunnel, loss) => {
                if let Some(open) = self.open.front_mut() {
                    open.exchange.message_mut(side).lose_body(loss.exactly());
                }
                if let Some(Tunnel { web_socket: Some(frames) }) = &mut self.tunnel
                    && let Some(open) = self.open.front_mut()
                    && let Some(web_socket) = &mut open.exchange.web_socket
                {
                    frames[side.index()].lose(loss, &mut web_socket.sides[side.index()]);
                }
            }
            (State::Await, _) => self.drop_buffer(context, side),
            (State::Lost { .. }, _) => {}
        }
        // The heads of other responses may be among the missing bytes. One that began before them answers the request that
        // has waited longest.
        self.missed_responses |= side == HttpSide::Response && !stays_inside;
    }

    /// One side sends no more.
    pub(super) fn end_side(&mut self, context: &mut Context<'_>, side: HttpSide) {
        match self.sides[side.index()].state {
            State::UntilClose => {
                // The body's last byte came before the end of the connection did.
                let now = std::mem::replace(&mut context.time, self.sides[side.index()].last);
                self.end(context, side, true);
                context.time = now;
            }
            State::Head if !self.sides[side.index()].buffer.is_empty() => self.cut_head(context, side),
            _ => {}
        }
    }

    /// The connection is over; `closed` says that the trace shows it.
    pub(super) fn finish(&mut self, context: &mut Context<'_>, closed: bool) {
        for side in SIDES {
            if closed {
                self.end_side(context, side);
            } else if let State::Head = self.sides[side.index()].state
                && !self.sides[side.index()].buffer.is_empty()
            {
                self.cut_head(context, side);
            }
            self.report_skipped(context, side);
            self.drop_buffer(context, side);
        }
        if let (Some(_), Some(open)) = (&self.tunnel, self.open.front_mut()) {
            for side in SIDES {
                let message = open.exchange.message_mut(side);
                message.complete = closed && !message.damaged;
            }
        }
        if let Some(orphan) = self.orphan.take() {
            emit(context, orphan);
        }
        for open in std::mem::take(&mut self.open) {
            emit(context, open);
        }
    }

    /// What waits for more bytes gets none.
    pub(super) fn drop_held(&mut self, context: &mut Context<'_>, side: HttpSide) {
        // What a client sends before the answer to its upgrade waits for that.
        if self.sides[side.index()].state != State::Await {
            self.drop_buffer(context, side);
        }
    }

    /// What is in a side's buffer cannot be read any more.
    fn drop_buffer(&mut self, context: &mut Context<'_>, side: HttpSide) {
        let buffer = &mut self.sides[side.index()].buffer;
        context.record_unreadable(side, buffer.len());
        buffer.clear();
    }

    /// The exchange that a side's current message belongs to.
    fn current(&mut self, side: HttpSide) -> Option<&mut Open> {
        match (side, self.response) {
            (HttpSide::Request, _) => self.open.get_mut(usize::try_from(self.request?.checked_sub(self.first)?).ok()?),
            (HttpSide::Response, Some(Target::First)) => self.open.front_mut(),
            (HttpSide::Response, Some(Target::Orphan)) => self.orphan.as_mut(),
            (HttpSide::Response, None) => None,
        }
    }

    /// Reads a head, or a part of it, and returns how many bytes belong to it.
    fn head(&mut self, context: &mut Context<'_>, side: HttpSide, bytes: &[u8]) -> usize {
        let state = &mut self.sides[side.index()];
        let before = state.buffer.len();
        if before == 0 {
            state.has_line = false;
            // Empty lines before a message have no meaning (RFC 9112 section 2.2).
            let blank = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
            if blank > 0 {
                context.record(side, WireKind::Framing, &bytes[..blank]);
                return blank;
            }
            state.began = (context.time, context.place);
            if !sniff::may_begin(side, bytes) {
                context.report(HttpFact::NoMessage(side));
                state.state = State::Lost { open: false, chunked: false };
                return 0;
            }
            if let Some(end) = head_end(bytes, 0).filter(|end| *end <= MAX_HEAD) {
                self.begin(context, side, &bytes[..end], false);
                return end;
            }
        }
        let taken = bytes.len().min(MAX_HEAD - before);
        state.buffer.extend_from_slice(&bytes[..taken]);
        if !state.has_line && (before <= 64 || memchr(b'\n', &bytes[..taken]).is_some()) {
            state.has_line = memchr(b'\n', &state.buffer).is_some();
            if sniff::may_begin(side, &state.buffer) {
                return self.head_goes_on(context, side, before, taken);
            }
            context.report(HttpFact::NoMessage(side));
            context.record_unknown(side, &state.buffer[..before]);
            state.skipped += before as u64;
            state.buffer.clear();
            state.state = State::Lost { open: false, chunked: false };
            return 0;
        }
        self.head_goes_on(context, side, before, taken)
    }

    /// Looks for the end of the head in the buffer, of which `before` bytes were there, and returns how many of the
    /// `taken` bytes belong to it.
    fn head_goes_on(&mut self, context: &mut Context<'_>, side: HttpSide, before: usize, taken: usize) -> usize {
        let state = &mut self.sides[side.index()];
        if let Some(end) = head_end(&state.buffer, before.saturating_sub(3)) {
            let mut buffer = std::mem::take(&mut state.buffer);
            self.begin(context, side, &buffer[..end], false);
            buffer.clear();
            // What came before an upgrade was answered is in the new buffer.
            let state = &mut self.sides[side.index()];
            if state.buffer.is_empty() && buffer.capacity() <= MAX_CHUNK_LINE {
                state.buffer = buffer;
            }
            return end - before;
        }
        if state.buffer.len() == MAX_HEAD {
            context.report(HttpFact::LongHead { side, limit: MAX_HEAD });
            self.cut_head(context, side);
            self.sides[side.index()].state = State::Lost { open: false, chunked: false };
        }
        taken
    }

    /// Takes the head in the buffer, whose rest cannot be read: of its lines, the last one may be cut.
    fn cut_head(&mut self, context: &mut Context<'_>, side: HttpSide) {
        let mut buffer = std::mem::take(&mut self.sides[side.index()].buffer);
        match memchr::memrchr(b'\n', &buffer) {
            Some(line) => {
                let rest = buffer.len() - line - 1;
                buffer.truncate(line + 1);
                buffer.extend_from_slice(b"\r\n");
                self.begin(context, side, &buffer, true);
                context.record_unreadable(side, rest);
            }
            None => {
                context.record_unreadable(side, buffer.len());
                // Of the start line, only what is certain counts.
                self.open_message(context, side);
                if let Some(open) = self.current(side)
                    && side == HttpSide::Request
                {
                    open.exchange.method = memchr(b' ', &buffer).map(|end| buffer[..end].to_vec());
                }
                self.cut_message(context, side);
            }
        }
    }

    /// Ends a message whose head is not whole: how long its body is may be unknown.
    fn cut_message(&mut self, context: &mut Context<'_>, side: HttpSide) {
        self.end_in_head(context, side, HttpFact::CutHead(side));
    }

    /// Ends a message whose head does not tell where its body ends.
    fn end_in_head(&mut self, context: &mut Context<'_>, side: HttpSide, fact: HttpFact) {
        context.report(fact);
        if let Some(open) = self.current(side) {
            let message = open.exchange.message_mut(side);
            message.has_head = true;
            message.lose_body(None);
        }
        self.end(context, side, false);
    }

    /// Makes room for a message that begins.
    fn open_message(&mut self, context: &mut Context<'_>, side: HttpSide) {
        self.report_skipped(context, side);
        let (time, place) = self.sides[side.index()].began;
        let new = |context: &Context<'_>| {
            let exchange = Box::new(Exchange::new(context.connection.clone(), place));
            Open { exchange, done: [false; 2], grpc: None, wish: Wish::Nothing }
        };
        if side == HttpSide::Request {
            if self.open.len() >= MAX_WAITING || (context.shared.is_crowded() && !self.open.is_empty()) {
                context.report(HttpFact::ManyOpen { limit: self.open.len() });
                self.give_up_first(context);
            }
            self.request = Some(self.first + self.open.len() as u64);
            self.open.push_back(new(context));
            context.shared.opened();
        } else {
            // A client that does not pipeline sends a request only after the response to the one before. So of several
            // that wait, all but the last had their responses where bytes are missing.
            if std::mem::take(&mut self.missed_responses) {
                while self.open.len() > 1 && self.open[0].done[0] && !self.open[0].done[1] {
                    self.give_up_first(context);
                }
            }
            let waits = self.open.front().is_some_and(|open| !open.done[1]);
            self.response = Some(if waits { Target::First } else { Target::Orphan });
            if !waits {
                let orphan = Open { done: [true, false], ..new(context) };
                context.shared.opened();
                self.orphan = Some(orphan);
            }
        }
        if let Some(open) = self.current(side) {
            open.exchange.message_mut(side).began = Some(time);
        }
    }

    /// Ends the oldest exchange without its response.
    fn give_up_first(&mut self, context: &mut Context<'_>) {
        if let Some(open) = self.open.pop_front() {
            self.first += 1;
            if self.response == Some(Target::First) {
                self.response = None;
            }
            emit(context, open);
        }
    }

    /// Takes a whole head, or, if it is `cut`, the whole lines of one.
    fn begin(&mut self, context: &mut Context<'_>, side: HttpSide, head: &[u8], cut: bool) {
        if cut {
            context.record(side, WireKind::CutHead, &head[..head.len().saturating_sub(2)]);
        }
        match side {
            HttpSide::Request => self.begin_request(context, head, cut),
            HttpSide::Response => self.begin_response(context, head, cut),
        }
    }

    fn begin_request(&mut self, context: &mut Context<'_>, head: &[u8], cut: bool) {
        let side = HttpSide::Request;
        self.open_message(context, side);
        let Some(open) = self.current(side) else { return };
        let Some(parsed) = parse(side, head, &mut open.exchange) else {
            self.bad_head(context, side, head.len(), cut);
            return;
        };
        context.hold_fields(&mut open.exchange, side);
        let is_connect = open.exchange.method.as_deref() == Some(b"CONNECT");
        open.wish = if is_connect { Wish::Tunnel } else { upgrade(&open.exchange.request.fields) };
        open.grpc = grpc::Reader::of(&mut open.exchange, side).or(open.grpc.take());
        let (framing, fact) = parsed.framing(&mut open.exchange.request, side, is_connect);
        if cut {
            self.cut_message(context, side);
            return;
        }
        context.request(&open.exchange);
        if let Some(fact) = fact {
            context.report(fact);
        }
        // Only a response may end with the connection.
        let framing = if framing == Framing::UntilClose { Framing::None } else { framing };
        context.record(side, WireKind::Head(framing), head);
        self.begin_body(context, side, framing);
    }

    fn begin_response(&mut self, context: &mut Context<'_>, head: &[u8], cut: bool) {
        let side = HttpSide::Response;
        if let Some(100 | 102..=199) = status(head) {
            // An informational response; the final one follows (RFC 9110 section 15.2), even if this one is cut.
            if !cut {
                context.record(side, WireKind::Head(Framing::None), head);
            }
            return;
        }
        self.open_message(context, side);
        // A response to HEAD has no body, whatever its fields say, and what follows is another head.
        let is_doubtful = self.is_doubtful || self.response == Some(Target::Orphan);
        let Some(open) = self.current(side) else { return };
        let Some(parsed) = parse(side, head, &mut open.exchange) else {
            self.bad_head(context, side, head.len(), cut);
            return;
        };
        context.hold_fields(&mut open.exchange, side);
        open.grpc = open.grpc.take().or_else(|| grpc::Reader::of(&mut open.exchange, side));
        if let Some(reader) = &mut open.grpc {
            reader.response_head(&mut open.exchange);
        }
        let (code, wish) = (open.exchange.code.unwrap_or(0), open.wish);
        let bodiless = open.exchange.method.as_deref() == Some(b"HEAD") || matches!(code, 204 | 304);
        let (framing, fact) = parsed.framing(&mut open.exchange.response, side, bodiless);
        if cut {
            self.cut_message(context, side);
            return;
        }
        if code == 101 || (wish == Wish::Tunnel && (200..300).contains(&code)) {
            context.record(side, WireKind::Head(Framing::None), head);
            self.switch_protocols(context, wish);
            return;
        }
        if let Some(fact) = fact {
            context.report(fact);
        }
        open.wish = Wish::Nothing;
        open.exchange.is_doubtful = is_doubtful;
        // Only the request tells a tunnel from a body that the connection's end ends, unless this head says what it is.
        let may_be_tunnel = framing == Framing::UntilClose
            && open.exchange.method.as_deref().is_none_or(|method| method == b"CONNECT")
            && open.exchange.response.fields.get("content-type").is_none();
        let recorded =
            if may_be_tunnel || (is_doubtful && framing != Framing::None) { Framing::Unknown } else { framing };
        context.record(side, WireKind::Head(recorded), head);
        self.begin_body(context, side, framing);
        if wish != Wish::Nothing {
            self.resume(context);
        }
    }

    /// A head that is none: its lines tell no more than the start line.
    fn bad_head(&mut self, context: &mut Context<'_>, side: HttpSide, bytes: usize, cut: bool) {
        if !cut {
            context.record_unreadable(side, bytes);
        }
        self.end_in_head(context, side, HttpFact::BadHead(side));
        self.sides[side.index()].state = State::Lost { open: false, chunked: false };
    }

    fn begin_body(&mut self, context: &mut Context<'_>, side: HttpSide, framing: Framing) {
        self.sides[side.index()].state = match framing {
            Framing::None | Framing::Length(0) => {
                self.end(context, side, true);
                return;
            }
            Framing::Length(length) => State::Body(length),
            Framing::Chunked => State::Chunk(Chunk::Size),
            Framing::UntilClose => State::UntilClose,
            Framing::Unknown => {
                self.lose_body(context, side, None);
                State::Lost { open: true, chunked: false }
            }
        };
    }

    fn add_body(&mut self, context: &mut Context<'_>, side: HttpSide, bytes: &[u8]) {
        context.record(side, WireKind::Body, bytes);
        if let Some(open) = self.current(side) {
            if let Some(reader) = &mut open.grpc {
                reader.data(&mut open.exchange, side, bytes);
            }
            context.add_body(open.exchange.message_mut(side), bytes);
        }
    }

    fn lose_body(&mut self, _: &mut Context<'_>, side: HttpSide, bytes: Option<u64>) {
        if let Some(open) = self.current(side) {
            if let Some(reader) = &mut open.grpc {
                reader.lose(&mut open.exchange, side, bytes);
            }
            open.exchange.message_mut(side).lose_body(bytes);
        }
    }

    fn body(&mut self, context: &mut Context<'_>, side: HttpSide, bytes: &[u8], left: u64) -> usize {
        let taken = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
        self.add_body(context, side, &bytes[..taken]);
        let left = left - taken as u64;
        self.sides[side.index()].state = State::Body(left);
        if left == 0 {
            self.end(context, side, true);
        }
        taken
    }

    fn chunk(&mut self, context: &mut Context<'_>, side: HttpSide, bytes: &[u8], chunk: Chunk) -> usize {
        match chunk {
            Chunk::Size => {
                let state = &mut self.sides[side.index()];
                let before = state.buffer.len();
                let line = memchr(b'\n', bytes);
                let taken = line.map_or(bytes.len(), |line| line + 1);
                if before + taken > MAX_CHUNK_LINE {
                    self.drop_buffer(context, side);
                    context.record_unreadable(side, taken);
                    self.bad_chunk(context, side);
                    return taken;
                }
                let size = match (line, before) {
                    (None, _) => {
                        state.buffer.extend_from_slice(bytes);
                        return taken;
                    }
                    (Some(line), 0) => {
                        let size = chunk_size(&bytes[..line]);
                        context.record_chunk_line(side, size, &bytes[..taken]);
                        size
                    }
                    (Some(line), _) => {
                        state.buffer.extend_from_slice(&bytes[..taken]);
                        let size = chunk_size(&state.buffer[..before + line]);
                        context.record_chunk_line(side, size, &state.buffer);
                        state.buffer.clear();
                        size
                    }
                };
                match size {
                    Some(0) => state.state = State::Chunk(Chunk::Trailers),
                    Some(size) => state.state = State::Chunk(Chunk::Data(size)),
                    None => self.bad_chunk(context, side),
                }
                taken
            }
            Chunk::Data(left) => {
                let taken = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
                self.add_body(context, side, &bytes[..taken]);
                let left = left - taken as u64;
                self.sides[side.index()].state = State::Chunk(if left == 0 { Chunk::End } else { Chunk::Data(left) });
                taken
            }
            Chunk::End => {
                let is_end = matches!(bytes[0], b'\r' | b'\n');
                context.record(side, if is_end { WireKind::Framing } else { WireKind::Unknown }, &bytes[..1]);
                match bytes[0] {
                    b'\r' => {}
                    b'\n' => self.sides[side.index()].state = State::Chunk(Chunk::Size),
                    _ => self.bad_chunk(context, side),
                }
                1
            }
            Chunk::Trailers => self.trailers(context, side, bytes),
        }
    }

    fn trailers(&mut self, context: &mut Context<'_>, side: HttpSide, bytes: &[u8]) -> usize {
        let state = &mut self.sides[side.index()];
        let before = state.buffer.len();
        let taken = bytes.len().min(MAX_HEAD - before);
        state.buffer.extend_from_slice(&bytes[..taken]);
        let end = match state.buffer.as_slice() {
            [b'\n', ..] => Some(1),
            [b'\r', b'\n', ..] => Some(2),
            section => head_end(section, before.saturating_sub(3)),
        };
        let Some(end) = end else {
            if state.buffer.len() == MAX_HEAD {
                context.report(HttpFact::LongHead { side, limit: MAX_HEAD });
                context.record_unreadable(side, MAX_HEAD);
                state.buffer.clear();
                self.lose_body(context, side, Some(0));
                self.sides[side.index()].state = State::Lost { open: true, chunked: true };
            }
            return taken;
        };
        let mut buffer = std::mem::take(&mut state.buffer);
        context.record(side, WireKind::Trailers, &buffer[..end]);
        if let Some(open) = self.current(side) {
            if end > 2 {
                match fields_of(&buffer[..end]) {
                    Some(fields) => {
                        open.exchange.message_mut(side).trailers = fields;
                        context.hold_fields(&mut open.exchange, side);
                    }
                    None => {
                        open.exchange.message_mut(side).damaged = true;
                        context.report(HttpFact::BadHead(side));
                    }
                }
            }
            if let (Some(reader), HttpSide::Response) = (&mut open.grpc, side) {
                reader.response_trailers(&mut open.exchange);
            }
        }
        buffer.clear();
        self.sides[side.index()].buffer = buffer;
        self.end(context, side, true);
        end - before
    }

    fn bad_chunk(&mut self, context: &mut Context<'_>, side: HttpSide) {
        context.report(HttpFact::BadChunk(side));
        self.drop_buffer(context, side);
        self.lose_body(context, side, None);
        self.sides[side.index()].state = State::Lost { open: true, chunked: true };
    }

    /// Looks for the next message, and returns how many bytes are not it.
    fn search(&mut self, context: &mut Context<'_>, side: HttpSide, bytes: &[u8], open: bool, chunked: bool) -> usize {
        let found = sniff::find(side, bytes);
        let skipped = found.unwrap_or(bytes.len());
        context.record_unknown(side, &bytes[..skipped]);
        if open {
            // These bytes may be framing as well as body, so none of them is kept or counted.
            let ends = chunked && found.is_none() && (bytes.ends_with(b"\r\n0\r\n\r\n") || bytes == b"0\r\n\r\n");
            if ends || found.is_some() {
                self.end(context, side, ends);
            }
        } else {
            self.sides[side.index()].skipped += skipped as u64;
        }
        if found.is_some() {
            self.sides[side.index()].state = State::Head;
        }
        skipped
    }

    fn report_skipped(&mut self, context: &mut Context<'_>, side: HttpSide) {
        let bytes = std::mem::take(&mut self.sides[side.index()].skipped);
        if bytes > 0 {
            context.report(HttpFact::Skipped { side, bytes });
        }
    }

    /// Ends a side's current message. `seen` says that its last byte is known.
    fn end(&mut self, context: &mut Context<'_>, side: HttpSide, seen: bool) {
        let time = context.time;
        context.record(side, WireKind::MessageEnd, &[]);
        let mut next = State::Head;
        if let Some(open) = self.current(side) {
            if let Some(reader) = &mut open.grpc {
                reader.end(&mut open.exchange, side);
            }
            let message = open.exchange.message_mut(side);
            if seen {
                message.ended = Some(time);
            }
            message.complete = seen && message.has_head && !message.damaged;
            open.done[side.index()] = true;
            if side == HttpSide::Request && open.wish != Wish::Nothing && !open.done[1] {
                next = State::Await;
            }
        }
        self.sides[side.index()].state = next;
        match side {
            HttpSide::Request => self.request = None,
            HttpSide::Response => {
                self.response = None;
                if let Some(orphan) = self.orphan.take() {
                    emit(context, orphan);
                }
            }
        }
        while self.open.front().is_some_and(|open| open.done == [true; 2])
            && let Some(open) = self.open.pop_front()
        {
            self.first += 1;
            emit(context, open);
        }
    }

    /// A response has come that accepts another protocol.
    fn switch_protocols(&mut self, context: &mut Context<'_>, wish: Wish) {
        if wish == Wish::H2c && self.response == Some(Target::First) {
            if let Some(mut open) = self.open.pop_front() {
                self.first += 1;
                self.response = None;
                self.request = None;
                // The response to the request comes on stream 1; this one only says so.
                open.exchange.response = HttpMessage::new();
                open.exchange.code = None;
                self.switch = Some(open.exchange);
                // No response in HTTP/1 follows.
                while let Some(open) = self.open.pop_front() {
                    emit(context, open);
                }
            }
            return;
        }
        if self.response != Some(Target::First) {
            // The request is not in the trace, so what was asked for is not known either.
            self.end(context, HttpSide::Response, true);
            self.sides[1].state = State::Tunnel;
            return;
        }
        if let Some(open) = self.open.front_mut() {
            open.exchange.response.ended = Some(context.time);
            if wish == Wish::WebSocket {
                open.exchange.web_socket = Some(Box::new(WebSocket::default()));
            }
        }
        let web_socket = (wish == Wish::WebSocket).then(|| [HttpSide::Request, HttpSide::Response].map(Frames::new));
        self.tunnel = Some(Tunnel { web_socket });
        let early = std::mem::take(&mut self.sides[0].buffer);
        self.sides[0].state = State::Tunnel;
        self.sides[1].state = State::Tunnel;
        self.tunnelled(context, HttpSide::Request, &early);
    }

    /// Bytes of another protocol.
    fn tunnelled(&mut self, context: &mut Context<'_>, side: HttpSide, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let kind = if self.is_web_socket() { WireKind::WebSocket } else { WireKind::Unknown };
        context.record(side, kind, bytes);
        let (Some(tunnel), Some(open)) = (&mut self.tunnel, self.open.front_mut()) else { return };
        let message = open.exchange.message_mut(side);
        message.ended = Some(context.time);
        context.add_body(message, bytes);
        if let (Some(frames), Some(web_socket)) = (&mut tunnel.web_socket, &mut open.exchange.web_socket) {
            frames[side.index()].data(context.time, bytes, web_socket);
        }
    }

    /// Bytes of a client that has asked for another protocol and has no answer yet.
    fn early(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> usize {
        let state = &mut self.sides[0];
        let room = MAX_EARLY - state.buffer.len().min(MAX_EARLY);
        if state.buffer.is_empty() && sniff::begins(HttpSide::Request, bytes) || bytes.len() > room {
            // The client goes on with HTTP/1, or sends too much to be kept.
            state.state = State::Head;
            let early = std::mem::take(&mut state.buffer);
            if !early.is_empty() {
                self.data(context, HttpSide::Request, &early);
            }
            return 0;
        }
        state.buffer.extend_from_slice(bytes);
        bytes.len()
    }

    /// A response has refused an upgrade: what came since is HTTP/1.
    fn resume(&mut self, context: &mut Context<'_>) {
        if self.sides[0].state == State::Await {
            self.sides[0].state = State::Head;
            let early = std::mem::take(&mut self.sides[0].buffer);
            if !early.is_empty() {
                self.data(context, HttpSide::Request, &early);
            }
        }
    }
}

fn emit(context: &mut Context<'_>, open: Open) {
    context.emit(open.exchange);
}

/// What a head says about its message.
struct Parsed {
    http10: bool,
}

/// Parses a head into its exchange. `None` if it is not HTTP; the exchange then has what the start line tells.
fn parse(side: HttpSide, head: &[u8], exchange: &mut Exchange) -> Option<Parsed> {
    let mut few = [EMPTY_HEADER; 64];
    match parse_with(side, head, exchange, &mut few) {
        Err(httparse::Error::TooManyHeaders) => {
            let lines = memchr::memchr_iter(b'\n', head).count().min(MAX_FIELDS);
            let mut many = vec![EMPTY_HEADER; lines];
            parse_with(side, head, exchange, &mut many).ok().flatten()
        }
        parsed => parsed.ok().flatten(),
    }
}

fn parse_with<'h>(
    side: HttpSide,
    head: &'h [u8],
    exchange: &mut Exchange,
    headers: &mut [Header<'h>],
) -> Result<Option<Parsed>, httparse::Error> {
    let config = parser_config();
    let (version, status) = match side {
        HttpSide::Request => {
            let mut request = httparse::Request::new(headers);
            let status = config.parse_request(&mut request, head);
            exchange.method = request.method.map(|method| method.as_bytes().to_vec());
            if let Some(target) = request.path {
                take_target(exchange, target.as_bytes());
            }
            if let Ok(Status::Complete(_)) = status {
                exchange.request.fields = fields_from(request.headers);
            }
            (request.version, status)
        }
        HttpSide::Response => {
            let mut response = httparse::Response::new(headers);
            let status = config.parse_response(&mut response, head);
            exchange.code = response.code;
            if let Ok(Status::Complete(_)) = status {
                exchange.response.fields = fields_from(response.headers);
            }
            (response.version, status)
        }
    };
    if side == HttpSide::Request || exchange.protocol.is_none() {
        exchange.protocol = version.map(|version| if version == 0 { "HTTP/1.0" } else { "HTTP/1.1" });
    }
    if status?.is_partial() {
        return Ok(None);
    }
    let message = exchange.message_mut(side);
    message.has_head = true;
    match side {
        HttpSide::Request => {
            if exchange.host.is_none() {
                exchange.host = exchange.request.fields.get("host").map(<[u8]>::to_vec);
            }
            let sizes = [(":method", &exchange.method), (":path", &exchange.path)];
            let size = sizes.iter().filter_map(|(name, value)| Some(name.len() + value.as_ref()?.len())).sum::<usize>();
            // To Envoy, the field is the pseudo-header with the longer name.
            let host = exchange.request.fields.get("host").map_or(0, |_| ":authority".len() - "host".len());
            exchange.request.pseudo_size = (size + host) as u64;
        }
        HttpSide::Response => message.pseudo_size = (":status".len() + "200".len()) as u64,
    }
    Ok(Some(Parsed { http10: version == Some(0) }))
}

fn fields_from(headers: &[Header<'_>]) -> Fields {
    let bytes = headers.iter().map(|header| header.name.len() + header.value.len()).sum();
    let mut fields = Fields::with_capacity(headers.len(), bytes);
    headers.iter().for_each(|header| fields.push(header.name.as_bytes(), header.value));
    fields
}

/// Splits a request target (RFC 9112 section 3.2). An absolute one names scheme and host, and that of CONNECT the host.
fn take_target(exchange: &mut Exchange, target: &[u8]) {
    if exchange.method.as_deref() == Some(b"CONNECT") {
        exchange.host = Some(target.to_vec());
        return;
    }
    let absolute = (!target.starts_with(b"/")).then(|| memchr::memmem::find(target, b"://")).flatten();
    let Some(colon) = absolute else {
        exchange.path = Some(target.to_vec());
        return;
    };
    let (scheme, rest) = (&target[..colon], &target[colon + 3..]);
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#')).unwrap_or(rest.len());
    exchange.scheme = Some(scheme.to_ascii_lowercase());
    exchange.host = Some(rest[..end].to_vec());
    exchange.path = Some(match &rest[end..] {
        [] => b"/".to_vec(),
        path if path[0] == b'/' => path.to_vec(),
        query => [b"/", query].concat(),
    });
}

/// The code of a status line, if it has one.
fn status(head: &[u8]) -> Option<u16> {
    let code = head.get(9..12)?;
    if sniff::begins(HttpSide::Response, head) { str::from_utf8(code).ok()?.parse().ok() } else { None }
}

/// Where the values of a head are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct HeadSpans {
    /// The method of a request.
    pub method: Option<Range<usize>>,
    /// The target of a request.
    pub target: Option<Range<usize>>,
    /// The reason phrase of a response.
    pub reason: Option<Range<usize>>,
    /// The names and values of the fields.
    pub fields: Vec<(Range<usize>, Range<usize>)>,
    /// Whether the version is 1.0.
    pub is_http10: bool,
}

impl HeadSpans {
    /// Finds them as the parser does. `None` if it is no head.
    pub(crate) fn of_head(side: HttpSide, head: &[u8]) -> Option<Self> {
        let lines = memchr::memchr_iter(b'\n', head).count().min(MAX_FIELDS);
        let mut headers = vec![EMPTY_HEADER; lines];
        let config = parser_config();
        let ([method, target, reason], version, status) = match side {
            HttpSide::Request => {
                let mut request = httparse::Request::new(&mut headers);
                let status = config.parse_request(&mut request, head);
                let status = status.map(|status| (status, request.headers.len()));
                ([request.method, request.path, None], request.version, status)
            }
            HttpSide::Response => {
                let mut response = httparse::Response::new(&mut headers);
                let status = config.parse_response(&mut response, head);
                let status = status.map(|status| (status, response.headers.len()));
                ([None, None, response.reason], response.version, status)
            }
        };
        let Ok((Status::Complete(_), count)) = status else { return None };
        let [method, target, reason] =
            [method, target, reason].map(|text| text.map(|text| span_in(head, text.as_bytes())));
        let fields = spans_in(head, &headers[..count]);
        Some(Self { method, target, reason, fields, is_http10: version == Some(0) })
    }

    /// Finds them in a trailer section as the parser does.
    pub(crate) fn of_trailers(section: &[u8]) -> Option<Self> {
        let lines = memchr::memchr_iter(b'\n', section).count().min(MAX_FIELDS);
        let mut headers = vec![EMPTY_HEADER; lines];
        match httparse::parse_headers(section, &mut headers) {
            Ok(Status::Complete((_, headers))) => Some(Self { fields: spans_in(section, headers), ..Self::default() }),
            _ => None,
        }
    }
}

fn spans_in(head: &[u8], headers: &[Header<'_>]) -> Vec<(Range<usize>, Range<usize>)> {
    headers.iter().map(|header| (span_in(head, header.name.as_bytes()), span_in(head, header.value))).collect()
}

/// Where a part of `bytes` is in them.
fn span_in(bytes: &[u8], part: &[u8]) -> Range<usize> {
    if part.is_empty() {
        return 0..0;
    }
    // A difference of addresses, not of pointers: no pointer is made of it.
    let start = (part.as_ptr() as usize).saturating_sub(bytes.as_ptr() as usize);
    start..start + part.len()
}

/// How lenient the parser is.
fn parser_config() -> ParserConfig {
    let mut config = ParserConfig::default();
    config.allow_obsolete_multiline_headers_in_responses(true).allow_spaces_after_header_name_in_responses(true);
    config
}

/// The fields of a trailer section.
pub(super) fn fields_of(section: &[u8]) -> Option<Fields> {
    let lines = memchr::memchr_iter(b'\n', section).count().min(MAX_FIELDS);
    let mut headers = vec![EMPTY_HEADER; lines];
    match httparse::parse_headers(section, &mut headers) {
        Ok(Status::Complete((_, headers))) => Some(fields_from(headers)),
        _ => None,
    }
}

/// What a request asks for with `upgrade`, if it does.
fn upgrade(fields: &Fields) -> Wish {
    let asks = |name, wanted: &str| {
        let values = fields.all(name).flat_map(|value| value.split(|byte| *byte == b','));
        values.map(<[u8]>::trim_ascii).any(|value| value.eq_ignore_ascii_case(wanted.as_bytes()))
    };
    if fields.get("upgrade").is_none() || !asks("connection", "upgrade") {
        Wish::Nothing
    } else if asks("upgrade", "websocket") {
        Wish::WebSocket
    } else if asks("upgrade", "h2c") {
        Wish::H2c
    } else {
        Wish::Other
    }
}

/// The size on a chunk's line, without its extensions.
fn chunk_size(line: &[u8]) -> Option<u64> {
    let end = line.iter().position(|byte| !byte.is_ascii_hexdigit()).unwrap_or(line.len());
    let after = line[end..].trim_ascii_start();
    let digits = str::from_utf8(&line[..end]).ok()?;
    if end == 0 || !(after.is_empty() || after.starts_with(b";")) {
        return None;
    }
    u64::from_str_radix(digits, 16).ok()
}

impl Parsed {
    /// How long the body of the message is that was just parsed.
    fn framing(&self, message: &mut HttpMessage, side: HttpSide, bodiless: bool) -> (Framing, Option<HttpFact>) {
        let mut length = Ok(None);
        for value in message.fields.all("content-length").flat_map(|value| value.split(|byte| *byte == b',')) {
            length = match (length, digits(value.trim_ascii())) {
                (Ok(None), Some(value)) => Ok(Some(value)),
                (Ok(Some(before)), Some(value)) if before == value => Ok(Some(before)),
                _ => Err(()),
            };
        }
        let codings = message.fields.all("transfer-encoding").flat_map(|value| value.split(|byte| *byte == b','));
        let last = codings.map(<[u8]>::trim_ascii).filter(|coding| !coding.is_empty()).last();
        let chunked = last.map(|coding| coding.eq_ignore_ascii_case(b"chunked"));
        message.content_length = length.unwrap_or_default();
        if bodiless {
            return (Framing::None, None);
        }
        match (chunked, length) {
            (Some(true), length) => {
                // Transfer-encoding overrides content-length, but two servers may disagree (RFC 9112 section 6.3).
                let both = length != Ok(None);
                message.content_length = None;
                let fact = if both {
                    Some(HttpFact::BothLengths(side))
                } else {
                    self.http10.then_some(HttpFact::BadCoding(side))
                };
                (Framing::Chunked, fact)
            }
            (Some(false), _) if side == HttpSide::Response => (Framing::UntilClose, None),
            (Some(false), _) => (Framing::Unknown, Some(HttpFact::BadCoding(side))),
            (None, Err(())) => (Framing::Unknown, Some(HttpFact::BadLength(side))),
            (None, Ok(Some(length))) => (Framing::Length(length), None),
            (None, Ok(None)) => (Framing::UntilClose, None),
        }
    }
}

fn digits(value: &[u8]) -> Option<u64> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    str::from_utf8(value).ok()?.parse().ok()
}
