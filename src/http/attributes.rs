//! The attributes of an exchange: Envoy's names and types, in one table that all outputs share.

use std::borrow::Cow;

use super::{Exchange, Fields, HttpConnectionEnd, HttpMessage, Pairing, coding};
use crate::{
    timeline::Role,
    trace::{Address, HttpSide, Nanos},
};

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// `string`. It may hold any bytes, as header fields may.
    Text(Cow<'a, [u8]>),
    /// `int` or `uint`.
    Number(u64),
    /// `bool`
    Flag(bool),
    /// `timestamp`
    Time(Nanos),
    /// `duration`
    Duration(Nanos),
    /// `bytes`
    Bytes(Cow<'a, [u8]>),
    /// `map(string, string)`
    Map(Cow<'a, Fields>),
}

/// An exchange and what belongs to it elsewhere.
#[derive(Clone, Copy, Debug)]
pub struct ExchangeRecord<'a> {
    /// The exchange.
    pub exchange: &'a Exchange,
    /// The end of its connection, if that has come.
    pub end: Option<&'a HttpConnectionEnd>,
    /// What is known of the other exchanges of the same request, if somebody has looked for them.
    pub pairing: Option<&'a Pairing>,
    /// The trace file.
    pub file: &'a str,
    /// How many bytes of a body count, once it is decoded.
    pub max_body: usize,
}

/// An attribute.
#[derive(Clone, Copy, Debug)]
pub struct Attribute {
    /// Its name, in parts with dots between them.
    pub name: &'static str,
    /// Whether it is known only when the connection has ended.
    pub of_end: bool,
    get: for<'a> fn(ExchangeRecord<'a>) -> Option<Value<'a>>,
}

impl Attribute {
    /// All attributes. Those with the same first part are together, and those that only the end of a connection tells
    /// are the last.
    pub const ALL: &'static [Self] = ALL;

    /// The attribute with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        Self::ALL.iter().find(|attribute| attribute.name == name)
    }

    /// The first part of the name, and what follows it, which may be nothing.
    #[must_use]
    pub fn parts(&self) -> (&'static str, &'static str) {
        self.name.split_once('.').unwrap_or((self.name, ""))
    }

    /// Whether only pairing tells it.
    #[must_use]
    pub fn is_of_pair(&self) -> bool {
        matches!(self.parts().0, "upstream" | "envoy" | "pairing")
    }

    /// Whether its values are maps.
    #[must_use]
    pub fn is_map(&self) -> bool {
        matches!(self.parts().1, "headers" | "trailers")
    }

    /// Its value, unless it is absent.
    #[must_use]
    pub fn of<'a>(&self, record: ExchangeRecord<'a>) -> Option<Value<'a>> {
        (self.get)(record)
    }
}

const fn of(name: &'static str, get: for<'a> fn(ExchangeRecord<'a>) -> Option<Value<'a>>) -> Attribute {
    Attribute { name, of_end: false, get }
}

const fn of_end(name: &'static str, get: for<'a> fn(ExchangeRecord<'a>) -> Option<Value<'a>>) -> Attribute {
    Attribute { name, of_end: true, get }
}

#[rustfmt::skip]
const ALL: &[Attribute] = &[
    of("trace.file", |record| Some(Value::Text(Cow::Borrowed(record.file.as_bytes())))),
    of("trace.offset", |record| Some(Value::Number(record.exchange.place.offset))),
    of("source.address", |record| address(record.exchange.connection.source.as_ref())),
    of("source.port", |record| port(record.exchange.connection.source.as_ref())),
    of("destination.address", |record| address(record.exchange.connection.destination.as_ref())),
    of("destination.port", |record| port(record.exchange.connection.destination.as_ref())),
    of("request.time", |record| record.exchange.request.began.map(Value::Time)),
    of("request.duration", |record| record.exchange.duration().map(Value::Duration)),
    of("request.method", |record| text(record.exchange.method.as_deref())),
    of("request.scheme", |record| text(record.exchange.scheme.as_deref())),
    of("request.host", |record| text(record.exchange.host.as_deref())),
    of("request.path", |record| text(record.exchange.path.as_deref())),
    of("request.url_path", |record| text(record.exchange.url_path())),
    of("request.query", |record| text(record.exchange.query())),
    of("request.protocol", |record| text(record.exchange.protocol.map(str::as_bytes))),
    of("request.id", |record| text(record.exchange.request.fields.get("x-request-id"))),
    of("request.useragent", |record| text(record.exchange.request.fields.get("user-agent"))),
    of("request.referer", |record| text(record.exchange.request.fields.get("referer"))),
    of("request.headers", |record| map(&record.exchange.request, &record.exchange.request.fields)),
    of("request.size", |record| record.exchange.request.size().map(Value::Number)),
    of("request.total_size", |record| record.exchange.request.total_size().map(Value::Number)),
    of("request.body", |record| body(record, HttpSide::Request)),
    of("request.complete", |record| Some(Value::Flag(record.exchange.request.complete))),
    of("response.code", |record| record.exchange.code.map(|code| Value::Number(code.into()))),
    of("response.grpc_status", |record| {
        record.exchange.grpc.as_ref()?.status.map(|status| Value::Number(status.into()))
    }),
    of("response.headers", |record| map(&record.exchange.response, &record.exchange.response.fields)),
    of("response.trailers", |record| {
        let trailers = &record.exchange.response.trailers;
        (!trailers.is_empty()).then_some(Value::Map(Cow::Borrowed(trailers)))
    }),
    of("response.size", |record| record.exchange.response.size().map(Value::Number)),
    of("response.total_size", |record| record.exchange.response.total_size().map(Value::Number)),
    of("response.backend_latency", |record| record.exchange.backend_latency().map(Value::Duration)),
    of("response.time_to_first_byte", |record| record.exchange.time_to_first_byte().map(Value::Duration)),
    of("response.body", |record| body(record, HttpSide::Response)),
    of("response.complete", |record| Some(Value::Flag(record.exchange.response.complete))),
    of("upstream.address", |record| address(record.pairing?.upstream_address.as_deref())),
    of("upstream.connection.id", |record| record.pairing?.upstream_connection.map(Value::Number)),
    of("upstream.request_attempt_count", |record| record.pairing?.attempts.map(Value::Number)),
    of("envoy.request_latency", |record| record.pairing?.request_latency.map(Value::Duration)),
    of("envoy.response_latency", |record| record.pairing?.response_latency.map(Value::Duration)),
    of("pairing", |record| {
        let word = record.pairing?.certainty.map_or("none", |certainty| certainty.word());
        text(Some(word.as_bytes()))
    }),
    of("connection.id", |record| Some(Value::Number(record.exchange.connection.trace_id))),
    of("connection.time", |record| record.exchange.connection.began.map(Value::Time)),
    of("connection.side", |record| {
        let connection = &record.exchange.connection;
        // The filter's traces without addresses do not tell the side.
        let known = !connection.http_tap || connection.source.is_some() || connection.destination.is_some();
        known.then(|| Value::Text(Cow::Borrowed(side(connection.role).as_bytes())))
    }),
    of_end("connection.protocol", |record| record.end?.value("protocol")),
    of_end("connection.duration", |record| record.end?.value("duration")),
    of_end("connection.received_bytes", |record| record.end?.value("received_bytes")),
    of_end("connection.sent_bytes", |record| record.end?.value("sent_bytes")),
];

impl HttpConnectionEnd {
    /// The value of an attribute `connection.NAME` that only the end tells.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<Value<'_>> {
        match name {
            "protocol" => text(self.protocol.map(str::as_bytes)),
            "duration" => self.duration.map(Value::Duration),
            "received_bytes" => self.received.map(Value::Number),
            "sent_bytes" => self.sent.map(Value::Number),
            _ => None,
        }
    }
}

fn text(bytes: Option<&[u8]>) -> Option<Value<'_>> {
    bytes.map(|bytes| Value::Text(Cow::Borrowed(bytes)))
}

fn map<'a>(message: &HttpMessage, fields: &'a Fields) -> Option<Value<'a>> {
    message.has_head.then_some(Value::Map(Cow::Borrowed(fields)))
}

fn body(record: ExchangeRecord<'_>, side: HttpSide) -> Option<Value<'_>> {
    let message = record.exchange.message(side);
    (message.has_head && !message.body.is_empty()).then(|| Value::Bytes(coding::decoded(message, record.max_body)))
}

fn address(address: Option<&Address>) -> Option<Value<'static>> {
    address.map(|address| Value::Text(Cow::Owned(address.to_string().into_bytes())))
}

fn port(address: Option<&Address>) -> Option<Value<'static>> {
    match address {
        Some(Address::Socket { port, .. }) => port.map(|port| Value::Number(port.into())),
        _ => None,
    }
}

fn side(role: Role) -> &'static str {
    match role {
        Role::Downstream => "downstream",
        Role::Upstream => "upstream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_of_one_object_are_together_and_those_of_the_end_last() {
        let mut objects: Vec<_> = Attribute::ALL.iter().map(|attribute| attribute.parts().0).collect();
        objects.dedup();
        assert_eq!(
            objects,
            ["trace", "source", "destination", "request", "response", "upstream", "envoy", "pairing", "connection"]
        );
        assert!(Attribute::ALL.is_sorted_by_key(|attribute| attribute.of_end));
        assert_eq!(Attribute::named("response.code").unwrap().parts(), ("response", "code"));
    }
}
