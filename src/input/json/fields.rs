//! The messages of a trace, field by field. Names are proto3 JSON's: the field's own, and its lowerCamelCase form.
//!
//! A name that stands twice in one object, in either form, means what nearly every reader of JSON takes it for: the last
//! value, alone. Of the members of a oneof the last one that is not null counts, as in protobuf's other encodings.
//! Protobuf's own JSON parsers refuse both, and so would lose the message.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::values::{Context, Flag, Name, Number, Payload, Text, TextPayload, Time};
use crate::trace::{
    Address, Body, Connection, Event, EventKind, Header, HttpPart, HttpSide, Nanos, Span, TimeError, TraceKind,
};

/// A protobuf message that is read from a JSON object.
pub(super) trait Record {
    /// Without the package, as unknown fields are counted.
    const MESSAGE: &'static str;

    /// Called once where the object begins.
    fn begin(_context: &mut Context<'_>) {}

    /// Reads the value of a field, or says false where the message has none of that name, and leaves the value unread.
    fn field<'de, A: MapAccess<'de>>(
        &mut self,
        _name: &str,
        _map: &mut A,
        _context: &mut Context<'_>,
    ) -> Result<bool, A::Error> {
        Ok(false)
    }
}

/// Implements [`Record`] by the names of the fields, and what to do with the value of each.
macro_rules! record {
    (
        $record:ident, |$this:ident, $map:ident, $context:ident| { $($names:pat => $read:expr,)* }
        $(, begin $begin:expr)?
    ) => {
        impl Record for $record {
            const MESSAGE: &'static str = stringify!($record);

            $(
                fn begin(context: &mut Context<'_>) {
                    $begin(context);
                }
            )?

            #[inline]
            fn field<'de, A: MapAccess<'de>>(
                &mut $this,
                name: &str,
                $map: &mut A,
                $context: &mut Context<'_>,
            ) -> Result<bool, A::Error> {
                match name {
                    $($names => $read,)*
                    _ => return Ok(false),
                }
                Ok(true)
            }
        }
    };
}

/// Fills a record from an object. Says false, and leaves the record alone, where there is null instead.
pub(super) struct Fill<'r, 'c, 'a, R> {
    pub(super) record: &'r mut R,
    pub(super) context: &'c mut Context<'a>,
}

impl<'de, R: Record> DeserializeSeed<'de> for Fill<'_, '_, '_, R> {
    type Value = bool;

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, R: Record> Visitor<'de> for Fill<'_, '_, '_, R> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object ({})", R::MESSAGE)
    }

    fn visit_unit<E>(self) -> Result<bool, E> {
        Ok(false)
    }

    #[inline]
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
        R::begin(self.context);
        while let Some(name) = map.next_key_seed(Name)? {
            if !self.record.field(&name, &mut map, self.context)? {
                self.context.count_unknown(R::MESSAGE, &name);
                skip(&mut map)?;
            }
        }
        Ok(true)
    }
}

/// A field that is a message. None stands for null.
#[inline]
fn message<'de, R, A>(map: &mut A, context: &mut Context<'_>) -> Result<Option<R>, A::Error>
where
    R: Record + Default,
    A: MapAccess<'de>,
{
    let mut record = R::default();
    let is_set = map.next_value_seed(Fill { record: &mut record, context })?;
    Ok(is_set.then_some(record))
}

/// A field of no interest.
fn skip<'de, A: MapAccess<'de>>(map: &mut A) -> Result<(), A::Error> {
    map.next_value::<IgnoredAny>().map(drop)
}

/// A `uint64`.
#[inline]
fn number<'de, A: MapAccess<'de>>(map: &mut A) -> Result<u64, A::Error> {
    Ok(map.next_value_seed(Number { saturate: false })?.unwrap_or(0))
}

/// A `string`.
fn text<'de, A: MapAccess<'de>>(map: &mut A) -> Result<String, A::Error> {
    Ok(map.next_value_seed(Text)?.unwrap_or_default())
}

/// The object that a trace consists of.
pub(super) struct TraceWrapper;

record!(TraceWrapper, |self, map, context| {
    "http_buffered_trace" | "httpBufferedTrace" => message::<HttpBufferedTrace, A>(map, context).map(drop)?,
    "http_streamed_trace_segment" | "httpStreamedTraceSegment" => {
        message::<HttpStreamedTraceSegment, A>(map, context).map(drop)?;
    },
    "socket_buffered_trace" | "socketBufferedTrace" => {
        message::<SocketBufferedTrace, A>(map, context).map(drop)?;
    },
    "socket_streamed_trace_segment" | "socketStreamedTraceSegment" => {
        message::<SocketStreamedTraceSegment, A>(map, context).map(drop)?;
    },
    "configured_sample_rate" | "configuredSampleRate" => skip(map)?,
});

/// Starts over: of the fields of a oneof, the last one counts.
fn begin_trace(kind: TraceKind, context: &mut Context<'_>) {
    context.out.clear();
    context.out.kind = Some(kind);
}

#[derive(Default)]
struct HttpBufferedTrace;

record!(HttpBufferedTrace, |self, map, context| {
    "request" => http_message(HttpSide::Request, map, context)?,
    "response" => http_message(HttpSide::Response, map, context)?,
    "downstream_connection" | "downstreamConnection" => context.out.connection = message(map, context)?,
    "upstream_connection" | "upstreamConnection" => context.out.upstream_connection = message(map, context)?,
}, begin |context| begin_trace(TraceKind::HttpBuffered, context));

/// `HttpBufferedTrace.Message`.
struct HttpMessage(HttpSide);

fn http_message<'de, A: MapAccess<'de>>(
    side: HttpSide,
    map: &mut A,
    context: &mut Context<'_>,
) -> Result<(), A::Error> {
    context.out.remove_http(side, None);
    map.next_value_seed(Fill { record: &mut HttpMessage(side), context }).map(drop)
}

impl Record for HttpMessage {
    const MESSAGE: &'static str = "Message";

    fn field<'de, A: MapAccess<'de>>(
        &mut self,
        name: &str,
        map: &mut A,
        context: &mut Context<'_>,
    ) -> Result<bool, A::Error> {
        let Self(side) = *self;
        match name {
            "headers" => headers(side, HttpPart::Headers, map, context)?,
            "body" => {
                context.out.remove_http(side, Some(HttpPart::Body));
                http_body(side, map, context)?;
            }
            "trailers" => headers(side, HttpPart::Trailers, map, context)?,
            "headers_received_time" | "headersReceivedTime" => match map.next_value_seed(Time(context))? {
                Some(Ok(time)) => context.out.set_http_time(side, Some(time)),
                Some(Err(error)) => {
                    context.out.take_http_time(side);
                    context.out.note_bad_time(error);
                }
                None => drop(context.out.take_http_time(side)),
            },
            _ => return Ok(false),
        }
        Ok(true)
    }
}

fn http_body<'de, A: MapAccess<'de>>(side: HttpSide, map: &mut A, context: &mut Context<'_>) -> Result<(), A::Error> {
    if let Some(body) = message::<Body, A>(map, context)? {
        context.out.push_http(side, HttpPart::Body).body = body;
    }
    Ok(())
}

/// The fields or trailers of a buffered trace.
fn headers<'de, A: MapAccess<'de>>(
    side: HttpSide,
    part: HttpPart,
    map: &mut A,
    context: &mut Context<'_>,
) -> Result<(), A::Error> {
    // It may have come before the fields.
    let time = if part == HttpPart::Headers { context.out.take_http_time(side) } else { None };
    context.out.remove_http(side, Some(part));
    map.next_value_seed(Headers { side, part, context: &mut *context })?;
    if time.is_some() {
        context.out.set_http_time(side, time);
    }
    Ok(())
}

/// A chunk of a streamed trace, in the place of the member of its oneof before.
fn body_chunk<'de, A: MapAccess<'de>>(side: HttpSide, map: &mut A, context: &mut Context<'_>) -> Result<(), A::Error> {
    if let Some(body) = message::<Body, A>(map, context)? {
        context.out.clear_piece();
        context.out.push_http(side, HttpPart::Body).body = body;
    }
    Ok(())
}

#[derive(Default)]
struct HttpStreamedTraceSegment;

record!(HttpStreamedTraceSegment, |self, map, context| {
    "trace_id" | "traceId" => context.out.trace_id = number(map)?,
    "request_headers" | "requestHeaders" => {
        header_map(HttpSide::Request, HttpPart::Headers, map, context)?;
    },
    "request_body_chunk" | "requestBodyChunk" => body_chunk(HttpSide::Request, map, context)?,
    "request_trailers" | "requestTrailers" => {
        header_map(HttpSide::Request, HttpPart::Trailers, map, context)?;
    },
    "response_headers" | "responseHeaders" => {
        header_map(HttpSide::Response, HttpPart::Headers, map, context)?;
    },
    "response_body_chunk" | "responseBodyChunk" => body_chunk(HttpSide::Response, map, context)?,
    "response_trailers" | "responseTrailers" => {
        header_map(HttpSide::Response, HttpPart::Trailers, map, context)?;
    },
}, begin |context| begin_trace(TraceKind::HttpStreamed, context));

struct HeaderMap {
    side: HttpSide,
    part: HttpPart,
    begun: bool,
}

fn header_map<'de, A: MapAccess<'de>>(
    side: HttpSide,
    part: HttpPart,
    map: &mut A,
    context: &mut Context<'_>,
) -> Result<(), A::Error> {
    let record = &mut HeaderMap { side, part, begun: false };
    if map.next_value_seed(Fill { record, context })? && !record.begun {
        record.begin_part(context);
    }
    Ok(())
}

impl HeaderMap {
    /// In the place of the member of the oneof before, or of the same one's list before.
    fn begin_part(&mut self, context: &mut Context<'_>) {
        self.begun = true;
        context.out.clear_piece();
        context.out.push_http(self.side, self.part);
    }
}

impl Record for HeaderMap {
    const MESSAGE: &'static str = "HeaderMap";

    fn field<'de, A: MapAccess<'de>>(
        &mut self,
        name: &str,
        map: &mut A,
        context: &mut Context<'_>,
    ) -> Result<bool, A::Error> {
        if name != "headers" {
            return Ok(false);
        }
        self.begin_part(context);
        map.next_value_seed(Headers { side: self.side, part: self.part, context })?;
        Ok(true)
    }
}

/// A list of `HeaderValue`.
struct Headers<'c, 'a> {
    side: HttpSide,
    part: HttpPart,
    context: &'c mut Context<'a>,
}

impl<'de> DeserializeSeed<'de> for Headers<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Headers<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of header fields")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Self { side, part, context } = self;
        loop {
            let mut header = HeaderValue::default();
            if seq.next_element_seed(Fill { record: &mut header, context })?.is_none() {
                return Ok(());
            }
            let HeaderValue { key, value, raw_value } = header;
            let value = if value.is_empty() { raw_value } else { value };
            context.out.push_header_of(side, part, Header { key, value });
        }
    }
}

#[derive(Default)]
struct HeaderValue {
    key: Span,
    value: Span,
    raw_value: Span,
}

record!(HeaderValue, |self, map, context| {
    "key" => self.key = map.next_value_seed(TextPayload(context))?.unwrap_or_default(),
    "value" => self.value = map.next_value_seed(TextPayload(context))?.unwrap_or_default(),
    "raw_value" | "rawValue" => self.raw_value = map.next_value_seed(Payload(context))?.unwrap_or_default(),
});

#[derive(Default)]
struct SocketBufferedTrace;

record!(SocketBufferedTrace, |self, map, context| {
    "trace_id" | "traceId" => context.out.trace_id = number(map)?,
    "connection" => context.out.connection = message(map, context)?,
    "events" => map.next_value_seed(Events(context))?,
    "read_truncated" | "readTruncated" => context.out.read_truncated = map.next_value_seed(Flag)?,
    "write_truncated" | "writeTruncated" => context.out.write_truncated = map.next_value_seed(Flag)?,
}, begin |context| begin_trace(TraceKind::SocketBuffered, context));

#[derive(Default)]
struct SocketStreamedTraceSegment;

record!(SocketStreamedTraceSegment, |self, map, context| {
    "trace_id" | "traceId" => context.out.trace_id = number(map)?,
    "connection" => {
        if let Some(connection) = message(map, context)? {
            context.out.clear_piece();
            context.out.connection = Some(connection);
        }
    },
    "event" => {
        if let Some(event) = message::<SocketEvent, A>(map, context)? {
            context.out.clear_piece();
            event.push(context);
        }
    },
    "events" => message::<SocketEvents, A>(map, context).map(drop)?,
}, begin |context| begin_trace(TraceKind::SocketStreamed, context));

#[derive(Default)]
struct SocketEvents;

record!(SocketEvents, |self, map, context| {
    "events" => map.next_value_seed(Events(context))?,
}, begin |context: &mut Context<'_>| context.out.clear_piece());

/// A list of `SocketEvent`.
struct Events<'c, 'a>(&'c mut Context<'a>);

impl<'de> DeserializeSeed<'de> for Events<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Events<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of events")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        clear_events(self.0);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Self(context) = self;
        clear_events(context);
        loop {
            let mut event = SocketEvent::default();
            if seq.next_element_seed(Fill { record: &mut event, context })?.is_none() {
                return Ok(());
            }
            event.push(context);
        }
    }
}

/// For a list of events that takes the place of the one before.
fn clear_events(context: &mut Context<'_>) {
    context.out.events.clear();
    context.out.event_connections.clear();
    context.out.forget_bad_times();
}

#[derive(Default)]
struct SocketEvent {
    event: Event,
    time: Option<Result<Nanos, TimeError>>,
    connection: Option<Connection>,
}

impl SocketEvent {
    /// Adds the event to the message, now that it is complete.
    #[inline]
    fn push(mut self, context: &mut Context<'_>) {
        let out = &mut *context.out;
        match self.time {
            None => {}
            Some(Ok(time)) => self.event.time = Some(time),
            Some(Err(error)) => out.note_bad_time(error),
        }
        if let Some(connection) = self.connection {
            self.event.connection = u32::try_from(out.event_connections.len()).ok();
            out.event_connections.push(connection);
        }
        out.events.push(self.event);
    }

    #[inline]
    fn select(&mut self, kind: EventKind, body: Body, end_stream: bool) {
        self.event.kind = kind;
        self.event.body = body;
        self.event.end_stream = end_stream;
    }
}

record!(SocketEvent, |self, map, context| {
    "timestamp" => self.time = map.next_value_seed(Time(context))?,
    "read" => {
        if let Some(Read { data }) = message(map, context)? {
            self.select(EventKind::Read, data, false);
        }
    },
    "write" => {
        if let Some(Write { data, end_stream }) = message(map, context)? {
            self.select(EventKind::Write, data, end_stream);
        }
    },
    "closed" => {
        if let Some(Closed) = message(map, context)? {
            self.select(EventKind::Closed, Body::default(), false);
        }
    },
    "connection" => self.connection = message(map, context)?,
    "seq_num" | "seqNum" => self.event.seq_num = number(map)?,
});

#[derive(Default)]
struct Read {
    data: Body,
}

record!(Read, |self, map, context| {
    "data" => self.data = message(map, context)?.unwrap_or_default(),
});

#[derive(Default)]
struct Write {
    data: Body,
    end_stream: bool,
}

record!(Write, |self, map, context| {
    "data" => self.data = message(map, context)?.unwrap_or_default(),
    "end_stream" | "endStream" => self.end_stream = map.next_value_seed(Flag)?,
});

#[derive(Default)]
struct Closed;

impl Record for Closed {
    const MESSAGE: &'static str = "Closed";
}

record!(Body, |self, map, context| {
    "as_bytes" | "asBytes" => {
        if let Some(payload) = map.next_value_seed(Payload(context))? {
            self.payload = payload;
            self.as_string = false;
        }
    },
    "as_string" | "asString" => {
        if let Some(payload) = map.next_value_seed(TextPayload(context))? {
            self.payload = payload;
            self.as_string = true;
        }
    },
    "truncated" => self.truncated = map.next_value_seed(Flag)?,
});

record!(Connection, |self, map, context| {
    "local_address" | "localAddress" => {
        self.local = message(map, context)?.and_then(|OneAddress(address)| address);
    },
    "remote_address" | "remoteAddress" => {
        self.remote = message(map, context)?.and_then(|OneAddress(address)| address);
    },
});

/// `Address`; None while nothing of its oneof was seen.
#[derive(Default)]
struct OneAddress(Option<Address>);

impl Record for OneAddress {
    const MESSAGE: &'static str = "Address";

    fn field<'de, A: MapAccess<'de>>(
        &mut self,
        name: &str,
        map: &mut A,
        context: &mut Context<'_>,
    ) -> Result<bool, A::Error> {
        let address = match name {
            "socket_address" | "socketAddress" => {
                message(map, context)?.map(|SocketAddress { address, port }| Address::Socket { address, port })
            }
            "pipe" => message(map, context)?.map(|Pipe { path }| Address::Pipe(path)),
            "envoy_internal_address" | "envoyInternalAddress" => message(map, context)?
                .map(|EnvoyInternalAddress { listener, endpoint }| Address::Internal { listener, endpoint }),
            _ => return Ok(false),
        };
        if address.is_some() {
            self.0 = address;
        }
        Ok(true)
    }
}

#[derive(Default)]
struct SocketAddress {
    address: String,
    port: Option<u32>,
}

record!(SocketAddress, |self, map, _context| {
    "address" => self.address = text(map)?,
    "port_value" | "portValue" => {
        if let Some(port) = map.next_value_seed(Number { saturate: true })? {
            self.port = Some(u32::try_from(port).unwrap_or(u32::MAX));
        }
    },
    "named_port" | "namedPort" => {
        if map.next_value_seed(Text)?.is_some() {
            self.port = None;
        }
    },
    "protocol" | "resolver_name" | "resolverName" | "ipv4_compat" | "ipv4Compat"
    | "network_namespace_filepath" | "networkNamespaceFilepath" => skip(map)?,
});

#[derive(Default)]
struct Pipe {
    path: String,
}

record!(Pipe, |self, map, _context| {
    "path" => self.path = text(map)?,
    "mode" => skip(map)?,
});

#[derive(Default)]
struct EnvoyInternalAddress {
    listener: String,
    endpoint: String,
}

record!(EnvoyInternalAddress, |self, map, _context| {
    "server_listener_name" | "serverListenerName" => self.listener = text(map)?,
    "endpoint_id" | "endpointId" => self.endpoint = text(map)?,
});
