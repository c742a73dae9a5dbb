//! What is known of one exchange: a request and its response.

use std::{borrow::Cow, collections::HashMap, sync::Arc};

use crate::{
    pairing::Certainty,
    timeline::{Opening, Role, TimesFrom},
    trace::{Address, Connection, HttpSide, Nanos, Place},
};

/// Header or trailer fields, in their order, with names as they were sent. Pseudo-headers are not among them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields {
    /// All names and values, one after the other: a list costs two allocations, whatever its length.
    bytes: Vec<u8>,
    lens: Vec<(usize, usize)>,
}

impl Fields {
    /// An empty list with room for this many fields of this many bytes together.
    #[must_use]
    pub fn with_capacity(fields: usize, bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), lens: Vec::with_capacity(fields) }
    }

    /// Adds a field.
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(value);
        self.lens.push((name.len(), value.len()));
    }

    /// The fields: name and value.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut rest = self.bytes.as_slice();
        self.lens.iter().map(move |(name, value)| {
            let (field, after) = rest.split_at(name + value);
            rest = after;
            field.split_at(*name)
        })
    }

    /// The values of all fields with this name, which is compared without regard to case.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.iter().filter(move |(key, _)| key.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value)
    }

    /// The value of the first field with this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.iter().find(|(key, _)| key.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value)
    }

    /// The fields by their lower-case names, in the order of their first values; further values follow after commas.
    #[must_use]
    pub fn merged(&self) -> Vec<(Vec<u8>, Cow<'_, [u8]>)> {
        /// From so many fields on, a hash table finds those with the same name.
        const MANY: usize = 32;
        let mut merged: Vec<(Vec<u8>, Cow<'_, [u8]>)> = Vec::with_capacity(self.len());
        let mut places: HashMap<Vec<u8>, usize> = HashMap::new();
        for (name, value) in self.iter() {
            let place = if self.len() < MANY {
                merged.iter().position(|(before, _)| before.eq_ignore_ascii_case(name))
            } else {
                let next = merged.len();
                let place = *places.entry(name.to_ascii_lowercase()).or_insert(next);
                (place < next).then_some(place)
            };
            match place {
                Some(place) => {
                    let values = merged[place].1.to_mut();
                    values.push(b',');
                    values.extend_from_slice(value);
                }
                None => merged.push((name.to_ascii_lowercase(), Cow::Borrowed(value))),
            }
        }
        merged
    }

    /// The number of bytes of all names and values: what Envoy calls the size of headers, without compression.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// The number of fields.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lens.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lens.is_empty()
    }

    /// How much memory the list takes, roughly.
    pub(super) fn held(&self) -> usize {
        self.bytes.len() + self.lens.len() * size_of::<(usize, usize)>()
    }
}

const TRANSFER_ENCODING: &str = "transfer-encoding";

/// A request or a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpMessage {
    /// Its header fields. Of a response, those of the final one, not of informational ones.
    pub fields: Fields,
    /// Its trailer fields.
    pub trailers: Fields,
    /// Its body without the transfer coding, as far as it is kept: it ends at the first byte that is missing from the
    /// trace, or at the limit.
    pub body: Vec<u8>,
    /// How many bytes the body had with its content codings, if they were taken off it.
    pub coded_len: Option<usize>,
    /// When its first byte came.
    pub began: Option<Nanos>,
    /// When its last byte came; `None` if that is not in the trace.
    pub ended: Option<Nanos>,
    /// Whether there is a head, or a part of one.
    pub has_head: bool,
    /// Whether the message is whole in the trace: nothing of it is missing.
    pub complete: bool,
    /// How many fields could not be told, because bytes before them are missing from the trace.
    pub unknown_fields: u64,
    /// The bytes of pseudo-headers, or of what stands for them in a start line.
    pub(super) pseudo_size: u64,
    /// How many bytes of the body crossed the wire, as far as is known.
    pub(super) body_size: u64,
    /// Whether bytes of the body are missing, and how many is not known.
    pub(super) size_unknown: bool,
    pub(super) content_length: Option<u64>,
    /// Whether anything is missing so far.
    pub(super) damaged: bool,
    /// Fields of the head are missing, which may say what the body is.
    pub(crate) is_partial_head: bool,
    /// The body is from JSON_BODY_AS_STRING, and nothing tells how long it was, so that a binary one may have taken in
    /// what follows it.
    pub(crate) as_string: bool,
    /// Whether the kept body ends here, whatever follows.
    pub(super) body_ends: bool,
}

impl HttpMessage {
    pub(super) fn new() -> Self {
        Self {
            fields: Fields::default(),
            trailers: Fields::default(),
            body: Vec::new(),
            coded_len: None,
            began: None,
            ended: None,
            has_head: false,
            complete: false,
            unknown_fields: 0,
            pseudo_size: 0,
            body_size: 0,
            size_unknown: false,
            content_length: None,
            damaged: false,
            is_partial_head: false,
            as_string: false,
            body_ends: false,
        }
    }

    /// The size of the body: what crossed the wire, or the content-length if the trace does not tell that. `None` if
    /// neither is known.
    #[must_use]
    pub fn size(&self) -> Option<u64> {
        match (self.has_head || self.body_size > 0, self.size_unknown) {
            (false, _) => None,
            (true, false) => Some(self.body_size),
            (true, true) => self.content_length.filter(|length| *length >= self.body_size),
        }
    }

    /// The size with header and trailer fields, as Envoy counts it: the bytes of names and values, not those of the
    /// framing or of a compressed form.
    #[must_use]
    pub fn total_size(&self) -> Option<u64> {
        // Envoy takes the transfer coding off before it counts.
        let coding = |value: &[u8]| (TRANSFER_ENCODING.len() + value.len()) as u64;
        let fields = self.fields.size() - self.fields.all(TRANSFER_ENCODING).map(coding).sum::<u64>();
        Some(self.size()?.saturating_add(self.pseudo_size + fields + self.trailers.size()))
    }

    /// Bytes of the body that are not in the trace.
    pub(super) fn lose_body(&mut self, bytes: Option<u64>) {
        match bytes {
            Some(bytes) => self.body_size = self.body_size.saturating_add(bytes),
            None => self.size_unknown = true,
        }
        self.damaged = true;
        self.body_ends = true;
    }
}

/// What an exchange's connection is known to be from its beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpConnection {
    /// A number that no other connection of the same source has.
    pub number: u64,
    /// The trace's `trace_id`.
    pub trace_id: u64,
    /// The time of the first event; `None` if the trace has none.
    pub began: Option<Nanos>,
    /// Which side of Envoy it is on.
    pub role: Role,
    /// The end that opened the connection.
    pub source: Option<Address>,
    /// The other end.
    pub destination: Option<Address>,
    /// Whether its traffic was recorded by the HTTP tap filter, not by the tap transport socket.
    pub http_tap: bool,
    /// Envoy's connection with the upstream, if the HTTP tap filter recorded it.
    pub upstream: Option<Box<Connection>>,
    /// Where the first message about it begins.
    pub place: Place,
}

impl HttpConnection {
    /// A connection that opened at this time.
    #[must_use]
    pub fn new(number: u64, opening: &Opening, time: Nanos) -> Self {
        let (local, remote) = (opening.connection.local.clone(), opening.connection.remote.clone());
        let (source, destination) = match opening.role {
            Role::Downstream => (remote, local),
            Role::Upstream => (local, remote),
        };
        Self {
            number,
            trace_id: opening.trace_id,
            began: (opening.times == TimesFrom::Recorded).then_some(time),
            role: opening.role,
            source,
            destination,
            http_tap: opening.http.is_some(),
            upstream: None,
            place: opening.place,
        }
    }
}

/// What is known of the other exchanges that Envoy had for the same request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pairing {
    /// How sure it is; `None` if there is no other exchange.
    pub certainty: Option<Certainty>,
    /// The address of the upstream whose response the client got or, if it got none, that was tried last.
    pub upstream_address: Option<Arc<Address>>,
    /// The `trace_id` of the connection with it.
    pub upstream_connection: Option<u64>,
    /// How many upstreams were tried.
    pub attempts: Option<u64>,
    /// From the first byte of the client's request to the first one that Envoy passed on.
    pub request_latency: Option<Nanos>,
    /// From the first byte of the upstream's response to the first one that the client got.
    pub response_latency: Option<Nanos>,
}

/// What is known of a connection at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpConnectionEnd {
    /// The connection.
    pub connection: Arc<HttpConnection>,
    /// Whether it had exchanges.
    pub had_exchanges: bool,
    /// Time from the first event to the last one.
    pub duration: Option<Nanos>,
    /// When it was closed, if that is in the trace.
    pub closed: Option<Nanos>,
    /// What it carried; `None` if the trace does not say.
    pub protocol: Option<&'static str>,
    /// How many bytes Envoy read; `None` if that is not recorded.
    pub received: Option<u64>,
    /// How many bytes Envoy wrote.
    pub sent: Option<u64>,
}

/// What gRPC adds to an exchange.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grpc {
    /// The messages of the request and of the response.
    pub messages: [GrpcMessages; 2],
    /// `grpc-status`.
    pub status: Option<u32>,
    /// `grpc-message`, as it was sent: percent-encoded.
    pub message: Option<Vec<u8>>,
}

/// The gRPC messages of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GrpcMessages {
    /// How many were whole.
    pub count: u64,
    /// How many bytes they had together, without their prefixes.
    pub bytes: u64,
    /// Whether there were more, which could not be counted because bytes are missing or are not gRPC.
    pub uncounted: bool,
}

/// What a WebSocket connection carried after its handshake.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WebSocket {
    /// The frames from the client and from the server.
    pub sides: [WebSocketFrames; 2],
    /// The first frames of both, in the order in which they ended.
    pub frames: Vec<WebSocketFrame>,
}

/// The WebSocket frames of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WebSocketFrames {
    /// How many frames there were, control frames included.
    pub frames: u64,
    /// How many of them ended a text or binary message.
    pub messages: u64,
    /// How many bytes of payload they had together, without being inflated.
    pub bytes: u64,
    /// Whether there were more, which could not be counted because bytes are missing.
    pub uncounted: bool,
}

/// One WebSocket frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WebSocketFrame {
    /// Who sent it.
    pub side: HttpSide,
    /// When its last byte came.
    pub time: Nanos,
    /// Its opcode (RFC 6455 section 5.2).
    pub opcode: u8,
    /// Whether it is the last of its message.
    pub last: bool,
    /// How many bytes of payload it has.
    pub bytes: u64,
}

/// A request and its response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// The connection.
    pub connection: Arc<HttpConnection>,
    /// Where the message of the trace begins that has the first byte.
    pub place: Place,
    /// The request's method.
    pub method: Option<Vec<u8>>,
    /// The request's scheme. HTTP/1 sends it only with an absolute target.
    pub scheme: Option<Vec<u8>>,
    /// `:authority`, or the host of the target or of the `host` field.
    pub host: Option<Vec<u8>>,
    /// The path with the query.
    pub path: Option<Vec<u8>>,
    /// `HTTP/1.0`, `HTTP/1.1` or `HTTP/2`.
    pub protocol: Option<&'static str>,
    /// The status code of the final response.
    pub code: Option<u16>,
    /// The request.
    pub request: HttpMessage,
    /// The response.
    pub response: HttpMessage,
    /// Set for gRPC and gRPC-Web.
    pub grpc: Option<Box<Grpc>>,
    /// Set once the connection speaks WebSocket.
    pub web_socket: Option<Box<WebSocket>>,
    /// The server pushed the response without being asked.
    pub pushed: bool,
    /// The request may be another one than that of the response.
    pub(crate) is_doubtful: bool,
    /// How much memory its fields take, roughly.
    pub(super) held_fields: usize,
}

impl Exchange {
    /// How much memory its header and trailer fields take, roughly, and what else its heads tell.
    pub(super) fn fields_held(&self) -> usize {
        let own = [&self.method, &self.scheme, &self.host, &self.path];
        let own: usize = own.into_iter().flatten().map(Vec::len).sum();
        let of_messages =
            [&self.request, &self.response].map(|message| message.fields.held() + message.trailers.held());
        own + of_messages.iter().sum::<usize>()
    }

    /// An exchange that nothing is known of yet.
    #[must_use]
    pub fn new(connection: Arc<HttpConnection>, place: Place) -> Self {
        Self {
            connection,
            place,
            method: None,
            scheme: None,
            host: None,
            path: None,
            protocol: None,
            code: None,
            request: HttpMessage::new(),
            response: HttpMessage::new(),
            grpc: None,
            web_socket: None,
            pushed: false,
            is_doubtful: false,
            held_fields: 0,
        }
    }

    /// One of its two messages.
    #[must_use]
    pub fn message(&self, side: HttpSide) -> &HttpMessage {
        match side {
            HttpSide::Request => &self.request,
            HttpSide::Response => &self.response,
        }
    }

    pub(super) fn message_mut(&mut self, side: HttpSide) -> &mut HttpMessage {
        match side {
            HttpSide::Request => &mut self.request,
            HttpSide::Response => &mut self.response,
        }
    }

    /// The path without the query.
    #[must_use]
    pub fn url_path(&self) -> Option<&[u8]> {
        let path = self.path.as_deref()?;
        Some(memchr::memchr(b'?', path).map_or(path, |at| &path[..at]))
    }

    /// The query without the question mark, empty if there is none; a fragment does not belong to it.
    #[must_use]
    pub fn query(&self) -> Option<&[u8]> {
        let path = self.path.as_deref()?;
        let query = memchr::memchr(b'?', path).map_or(&[][..], |at| &path[at + 1..]);
        Some(memchr::memchr(b'#', query).map_or(query, |at| &query[..at]))
    }

    /// From the first byte of the request to the last byte of the response.
    #[must_use]
    pub fn duration(&self) -> Option<Nanos> {
        self.response.ended?.checked_sub(self.request.began?)
    }

    /// From the last byte of the request to the first byte of the response. `None` too if the response began earlier.
    #[must_use]
    pub fn time_to_first_byte(&self) -> Option<Nanos> {
        self.response.began?.checked_sub(self.request.ended?)
    }

    /// On the upstream side, from the first byte that Envoy sent to the last byte that it received.
    #[must_use]
    pub fn backend_latency(&self) -> Option<Nanos> {
        if self.connection.role == Role::Upstream { self.duration() } else { None }
    }
}
