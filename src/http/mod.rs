//! HTTP read out of the bytes of connections: entries in, exchanges out.
//!
//! [`HttpStage`] follows every connection of a source. What a connection speaks is decided by its bytes, never by its
//! ports. Exchanges come out as they end; when a connection ends, what only a whole connection tells comes out too.
//! The exchanges of HTTP tap traces are taken as they were recorded, without being replayed, so that no made-up framing
//! is counted.
//!
//! ```
//! use tap2pcap::{
//!     http::{HttpItem, HttpStage, HttpStageOptions},
//!     input::{Advance, Source, SourceOptions},
//!     timeline::{HttpTaps, TimelineOptions, Timelines},
//!     trace::Findings,
//! };
//!
//! let path = "testdata/envoy/1.40.0/h1_str_PROTO_BINARY_133.pb".as_ref();
//! let source = Source::open(path, SourceOptions::default())?;
//! let mut timelines = Timelines::new(source, TimelineOptions { http_taps: HttpTaps::Unreplayed, ..TimelineOptions::default() });
//! let mut stage = HttpStage::new(HttpStageOptions::default());
//! let mut findings = Findings::default();
//! let mut codes = Vec::new();
//! loop {
//!     let advance = timelines.advance(&mut findings);
//!     match advance {
//!         Advance::Message => stage.begin_entry(),
//!         Advance::NeedInput => timelines.fill(&mut findings),
//!         Advance::End => stage.end(&mut findings),
//!     }
//!     while let Some(item) = stage.next_item(&timelines, &mut findings) {
//!         if let HttpItem::Exchange(exchange) = item {
//!             codes.push(exchange.code);
//!         }
//!     }
//!     if advance == Advance::End {
//!         break;
//!     }
//! }
//! # assert!(!codes.is_empty() && codes.iter().all(|code| *code == Some(200)));
//! # Ok::<(), tap2pcap::input::InputError>(())
//! ```
//!
//! What is held has bounds: [`HttpStageOptions`], and those of the parsers. Bytes that cannot be told are passed over and
//! reported; nothing is made up in their place.

mod attributes;
mod coding;
mod conversation;
mod exchange;
#[cfg(feature = "where")]
mod filter;
#[cfg(not(feature = "where"))]
#[path = "no_filter.rs"]
mod filter;
mod grpc;
mod h1;
mod h2;
mod sniff;
mod tap;
#[cfg(test)]
mod tests;
mod web_socket;
mod wire;

use std::{collections::VecDeque, sync::Arc};

pub(crate) use self::coding::{MAX_CODINGS, codings, decode_all};
pub use self::exchange::{
    Exchange, Fields, Grpc, GrpcMessages, HttpConnection, HttpConnectionEnd, HttpMessage, Pairing, WebSocket,
    WebSocketFrame, WebSocketFrames,
};
pub use self::{
    attributes::{Attribute, ExchangeRecord, Value},
    coding::decoded,
    filter::{Filter, FilterError},
};
use self::{conversation::Conversation, tap::TapExchanges};
pub(crate) use self::{
    h1::{Framing, HeadSpans},
    h2::{
        LAST_STATIC, MAX_TABLE,
        frame::{self, FrameHead},
    },
    web_socket::{FrameEvent, Frames},
    wire::{BlockField, BlockFrame, FieldForm, HeaderBlock, Representation, Wire, WireKind, WirePart},
};
use crate::{
    timeline::{Direction, Entry, EntryKind, PerConnection, Room, Timelines, TrueLength},
    trace::{Fact, Finding, Findings, HttpFact, HttpSide, Nanos, Place},
};

/// The default of [`HttpStageOptions::max_body`].
pub const MAX_BODY: usize = 64 << 10;

/// How exchanges are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpStageOptions {
    /// How many bytes of each body are kept.
    pub max_body: usize,
    /// How many bytes of all exchanges of a source are held at once. Beyond that, bodies are kept no more.
    pub max_held: usize,
    /// Whether the ends of connections without exchanges come out as well.
    pub all_connections: bool,
    /// Whether the heads of requests come out as well, before their exchanges are over.
    pub requests: bool,
}

impl Default for HttpStageOptions {
    fn default() -> Self {
        Self { max_body: MAX_BODY, max_held: 24 << 20, all_connections: false, requests: false }
    }
}

/// The head of a request whose exchange is under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHead {
    /// The connection.
    pub connection: Arc<HttpConnection>,
    /// [`Exchange::place`] of its exchange.
    pub place: Place,
    /// The method.
    pub method: Vec<u8>,
    /// As [`Exchange::host`].
    pub host: Option<Vec<u8>>,
    /// As [`Exchange::path`].
    pub path: Vec<u8>,
    /// The header fields.
    pub fields: Fields,
}

/// What comes out of the stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HttpItem {
    /// An exchange is over.
    Exchange(Box<Exchange>),
    /// The head of a request was read: see [`HttpStageOptions::requests`].
    Request(Box<RequestHead>),
    /// A connection is over that had exchanges, or any: see [`HttpStageOptions::all_connections`]. No more of it follow.
    ConnectionEnd(HttpConnectionEnd),
}

/// How many bytes are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loss {
    Exactly(u64),
    Unknown,
}

impl Loss {
    fn exactly(self) -> Option<u64> {
        match self {
            Self::Exactly(bytes) => Some(bytes),
            Self::Unknown => None,
        }
    }
}

/// What all connections of a source share.
#[derive(Debug)]
struct Shared {
    options: HttpStageOptions,
    /// How many bytes of bodies are held.
    held: usize,
    done: VecDeque<HttpItem>,
    /// How many connections there were.
    connections: u64,
    /// How many exchanges are open.
    open: usize,
    /// How many bytes their fields take.
    fields: usize,
    /// Room for what tells other protocols.
    room: Room,
    /// What the bytes are, if somebody writes them again.
    wire: Option<Wire>,
    /// Whether bytes after a loss count only if they prove what they are.
    is_strict: bool,
}

/// How many exchanges of a source may be open. With more, connections that have several give up their oldest.
const MAX_OPEN: usize = 1 << 17;

/// How many bytes the fields of open exchanges may take before connections that have several give up their oldest. With
/// twice as many, no more are kept.
const MAX_FIELDS: usize = 16 << 20;

/// How many bytes of a payload are read before the exchanges that they end are handed on.
const PIECE: usize = 64 << 10;

impl Shared {
    fn opened(&mut self) {
        self.open += 1;
    }

    fn closed(&mut self) {
        self.open = self.open.saturating_sub(1);
    }

    /// An exchange is handed on. Until then it takes memory, even if it is over.
    fn release(&mut self, exchange: &Exchange) {
        self.fields = self.fields.saturating_sub(exchange.held_fields);
        let bodies = exchange.request.body.len() + exchange.response.body.len();
        self.held = self.held.saturating_sub(bodies);
    }

    /// Whether what the bytes are is recorded.
    fn records(&self) -> bool {
        self.wire.is_some()
    }

    fn is_crowded(&self) -> bool {
        self.open >= MAX_OPEN || self.fields >= MAX_FIELDS
    }
}

/// What a parser needs besides the bytes.
struct Context<'a> {
    time: Nanos,
    place: Place,
    connection: &'a Arc<HttpConnection>,
    /// The direction of the client's bytes.
    client: Direction,
    /// The bytes are from JSON_BODY_AS_STRING, and nothing tells how many there were.
    as_string: bool,
    /// Whether the connection had an exchange.
    emitted: &'a mut bool,
    /// How many facts the connection may still report.
    reports: &'a mut u32,
    shared: &'a mut Shared,
    findings: &'a mut Findings,
}

/// How many findings one connection may have. A hostile one could have one every few bytes.
const MAX_REPORTS: u32 = 1000;

impl Context<'_> {
    fn report(&mut self, fact: HttpFact) {
        if *self.reports > 0 {
            *self.reports -= 1;
            let fact = Fact::Http { trace_id: self.connection.trace_id, fact };
            self.findings.push(Finding::new(self.place, fact));
        }
    }

    /// Whether what the bytes are is recorded.
    fn records(&self) -> bool {
        self.shared.wire.is_some()
    }

    /// Records what bytes are.
    fn record(&mut self, side: HttpSide, kind: WireKind, bytes: &[u8]) {
        if let Some(wire) = &mut self.shared.wire {
            let direction = if side == HttpSide::Request { self.client } else { self.client.reverse() };
            wire.add(direction, side, kind, bytes);
        }
    }

    /// Records the line before a chunk, if it has a size.
    fn record_chunk_line(&mut self, side: HttpSide, size: Option<u64>, line: &[u8]) {
        match size {
            Some(_) => self.record(side, WireKind::ChunkLine, line),
            None => self.record_unreadable(side, line.len()),
        }
    }

    /// Records bytes that can be neither read nor written.
    fn record_unreadable(&mut self, side: HttpSide, bytes: usize) {
        if bytes > 0 {
            self.record(side, WireKind::Unreadable(bytes as u64), &[]);
        }
    }

    /// Records bytes that nobody understands.
    fn record_unknown(&mut self, side: HttpSide, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.record(side, WireKind::Unknown, bytes);
        }
    }

    /// Adds bytes to a body, as far as there is room.
    fn add_body(&mut self, message: &mut HttpMessage, bytes: &[u8]) {
        message.body_size = message.body_size.saturating_add(bytes.len() as u64);
        message.as_string |= self.as_string;
        if message.body_ends {
            return;
        }
        let own = self.shared.options.max_body.saturating_sub(message.body.len());
        let room = own.min(self.shared.options.max_held.saturating_sub(self.shared.held));
        let taken = bytes.len().min(room);
        message.body.extend_from_slice(&bytes[..taken]);
        message.body_ends = taken < bytes.len();
        self.shared.held += taken;
    }

    /// Counts the fields of an exchange, after those of a message were read.
    fn hold_fields(&mut self, exchange: &mut Exchange, side: HttpSide) {
        let held = exchange.fields_held();
        let others = self.shared.fields.saturating_sub(exchange.held_fields);
        if others.saturating_add(held) <= 2 * MAX_FIELDS {
            self.shared.fields = others + held;
            exchange.held_fields = held;
            return;
        }
        if side == HttpSide::Request {
            (exchange.method, exchange.scheme, exchange.host, exchange.path) = (None, None, None, None);
        }
        let message = exchange.message_mut(side);
        (message.fields, message.trailers) = (Fields::default(), Fields::default());
        message.damaged = true;
        message.is_partial_head = true;
        exchange.held_fields = exchange.fields_held();
        self.shared.fields = others + exchange.held_fields;
        self.report(HttpFact::LongList { side, limit: 2 * MAX_FIELDS });
    }

    /// The head of a request is there.
    fn request(&mut self, exchange: &Exchange) {
        if self.shared.options.requests
            && let (Some(method), Some(path)) = (&exchange.method, &exchange.path)
        {
            self.shared.done.push_back(HttpItem::Request(Box::new(RequestHead {
                connection: Arc::clone(&exchange.connection),
                place: exchange.place,
                method: method.clone(),
                host: exchange.host.clone(),
                path: path.clone(),
                fields: exchange.request.fields.clone(),
            })));
        }
    }

    /// An exchange is over.
    fn emit(&mut self, exchange: Box<Exchange>) {
        *self.emitted = true;
        self.shared.closed();
        self.shared.done.push_back(HttpItem::Exchange(exchange));
    }
}

/// Reads the HTTP of one source's connections.
#[derive(Debug)]
pub struct HttpStage {
    open: PerConnection<Box<Conversation>>,
    tap: TapExchanges,
    shared: Shared,
    /// Where the payload of the current entry is to be read from.
    unread_from: Option<usize>,
}

impl HttpStage {
    /// A stage that has seen nothing yet.
    #[must_use]
    pub fn new(options: HttpStageOptions) -> Self {
        Self {
            open: PerConnection::default(),
            tap: TapExchanges::default(),
            unread_from: None,
            shared: Shared {
                options,
                held: 0,
                done: VecDeque::new(),
                connections: 0,
                open: 0,
                fields: 0,
                room: Room::default(),
                wire: None,
                is_strict: false,
            },
        }
    }

    /// A stage that also records what each byte is.
    #[must_use]
    pub(crate) fn recording(options: HttpStageOptions) -> Self {
        let mut stage = Self::new(options);
        stage.shared.wire = Some(Wire::default());
        stage.be_strict();
        stage
    }

    /// From now on, bytes after a loss count only if they prove what they are. More of them are passed over, but nothing
    /// is taken for what it is not.
    pub(crate) fn be_strict(&mut self) {
        self.shared.is_strict = true;
    }

    /// What was recorded since it was cleared.
    pub(crate) fn wire(&mut self) -> Option<&mut Wire> {
        self.shared.wire.as_mut()
    }

    /// The timelines have advanced: to an entry or, with
    /// [`TimelineOptions::http_taps`](crate::timeline::TimelineOptions::http_taps), to a message of an HTTP tap. It is
    /// read by [`HttpStage::next_item`], until that returns `None`.
    pub fn begin_entry(&mut self) {
        self.unread_from = Some(0);
    }

    /// Reads the next piece of what `timelines` has advanced to.
    fn read_piece(&mut self, timelines: &Timelines, findings: &mut Findings) {
        let Some(from) = self.unread_from.take() else { return };
        let Some(mut entry) = timelines.entry() else {
            if let Some(view) = timelines.unreplayed() {
                self.tap.message(view, &mut self.shared, findings);
            }
            return;
        };
        if let EntryKind::Data(data) = &mut entry.kind {
            // A few bytes may be a whole exchange, so that those of a large payload would take many times its memory.
            let rest = data.payload.get(from..).unwrap_or_default();
            data.length = data.length.map(|length| length.saturating_sub(from as u64));
            data.payload = rest;
            if let Some(piece) = rest.get(..PIECE).filter(|piece| piece.len() < rest.len()) {
                (data.payload, data.length) = (piece, TrueLength::Known(piece.len() as u64));
                (data.truncated, data.end_stream) = (false, false);
                self.unread_from = Some(from + piece.len());
            }
        }
        self.entry(timelines, &entry, findings);
    }

    fn entry(&mut self, timelines: &Timelines, entry: &Entry<'_>, findings: &mut Findings) {
        if let EntryKind::Opened = entry.kind {
            let Some(opening) = timelines.opening(entry.connection) else { return };
            if opening.http.is_some() && timelines.gives_unreplayed() {
                // Its message has been read.
                return;
            }
            let number = self.shared.connections;
            self.shared.connections += 1;
            self.open.insert(entry.connection, Box::new(Conversation::new(number, opening, entry.time)));
            return;
        }
        let Some(conversation) = self.open.get_mut(entry.connection) else { return };
        conversation.entry(entry, || timelines.place(), &mut self.shared, findings);
        if matches!(entry.kind, EntryKind::Closed { .. } | EntryKind::Abandoned) {
            drop(self.open.take(entry.connection));
        }
    }

    /// Ends the exchanges of HTTP taps, whose end nothing marks, because the source has ended.
    pub fn end(&mut self, findings: &mut Findings) {
        self.tap.end(&mut self.shared, findings);
    }

    /// The next item of what `timelines` has advanced to, if there is one.
    pub fn next_item(&mut self, timelines: &Timelines, findings: &mut Findings) -> Option<HttpItem> {
        while self.shared.done.is_empty() && self.unread_from.is_some() {
            self.read_piece(timelines, findings);
        }
        let item = self.shared.done.pop_front();
        if let Some(HttpItem::Exchange(exchange)) = &item {
            self.shared.release(exchange);
        }
        item
    }
}
