//! One walk over a trace for all printers. It knows the fields and their order, and which of them are present even if
//! they hold the default.

use prost_types::Timestamp;

use crate::proto::{
    envoy::{
        config::core::v3::{
            Address, EnvoyInternalAddress, HeaderMap, HeaderValue, Pipe, SocketAddress, address,
            envoy_internal_address::AddressNameSpecifier, socket_address,
        },
        r#type::v3::{FractionalPercent, fractional_percent::DenominatorType},
    },
    tap::{
        Body, Connection, HttpBufferedTrace, HttpStreamedTraceSegment, SocketBufferedTrace, SocketEvent, SocketEvents,
        SocketStreamedTraceSegment, TraceWrapper, body::BodyType, http_buffered_trace,
        http_streamed_trace_segment::MessagePiece as HttpPiece, socket_event::EventSelector,
        socket_streamed_trace_segment::MessagePiece as SocketPiece, trace_wrapper::Trace,
    },
};

/// Whether a field that holds its type's default can be told from an absent one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    /// It cannot. The text format leaves defaults out, and Envoy's JSON spells every default out.
    Implicit,
    /// It can: the field is a member of a oneof, and set.
    Explicit,
}
use Presence::{Explicit, Implicit};

/// Whether `as_bytes` is printed under its own name or as `as_string`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Bodies {
    AsTheyAre,
    AsString,
}

/// Prints a format that has field names. Fields come in the order of their numbers.
pub(super) trait Printer {
    fn message(&mut self, name: &'static str, fields: impl FnOnce(&mut Self));
    fn list<T>(&mut self, name: &'static str, items: &[T], fields: impl Fn(&mut Self, &T));
    fn bool(&mut self, name: &'static str, value: bool);
    fn uint32(&mut self, name: &'static str, value: u32, presence: Presence);
    fn uint64(&mut self, name: &'static str, value: u64);
    /// `label` is `None` for a number that the schema does not name.
    fn enumeration(&mut self, name: &'static str, value: i32, label: Option<&'static str>);
    fn bytes(&mut self, name: &'static str, value: &[u8], presence: Presence);
    /// The value is not a `str`, because a string made from a body may hold any bytes.
    fn string(&mut self, name: &'static str, value: &[u8], presence: Presence);
    fn timestamp(&mut self, name: &'static str, value: &Timestamp);

    fn optional<T>(&mut self, name: &'static str, value: Option<&T>, fields: impl FnOnce(&mut Self, &T)) {
        if let Some(value) = value {
            self.message(name, |printer| fields(printer, value));
        }
    }
}

pub(super) fn trace(p: &mut impl Printer, wrapper: &TraceWrapper, bodies: Bodies) {
    match &wrapper.trace {
        Some(Trace::HttpBufferedTrace(trace)) => p.message("http_buffered_trace", |p| http_buffered(p, trace, bodies)),
        Some(Trace::HttpStreamedTraceSegment(trace)) => {
            p.message("http_streamed_trace_segment", |p| http_streamed(p, trace, bodies));
        }
        Some(Trace::SocketBufferedTrace(trace)) => {
            p.message("socket_buffered_trace", |p| socket_buffered(p, trace, bodies));
        }
        Some(Trace::SocketStreamedTraceSegment(trace)) => {
            p.message("socket_streamed_trace_segment", |p| socket_streamed(p, trace, bodies));
        }
        None => {}
    }
    p.optional("configured_sample_rate", wrapper.configured_sample_rate.as_ref(), percent);
}

fn socket_buffered(p: &mut impl Printer, trace: &SocketBufferedTrace, bodies: Bodies) {
    p.uint64("trace_id", trace.trace_id);
    p.optional("connection", trace.connection.as_ref(), connection);
    p.list("events", &trace.events, |p, item| event(p, item, bodies));
    p.bool("read_truncated", trace.read_truncated);
    p.bool("write_truncated", trace.write_truncated);
}

fn socket_streamed(p: &mut impl Printer, trace: &SocketStreamedTraceSegment, bodies: Bodies) {
    p.uint64("trace_id", trace.trace_id);
    match &trace.message_piece {
        Some(SocketPiece::Connection(value)) => p.message("connection", |p| connection(p, value)),
        Some(SocketPiece::Event(value)) => p.message("event", |p| event(p, value, bodies)),
        Some(SocketPiece::Events(SocketEvents { events })) => {
            p.message("events", |p| p.list("events", events, |p, item| event(p, item, bodies)));
        }
        None => {}
    }
}

fn event(p: &mut impl Printer, event: &SocketEvent, bodies: Bodies) {
    if let Some(time) = &event.timestamp {
        p.timestamp("timestamp", time);
    }
    match &event.event_selector {
        Some(EventSelector::Read(read)) => {
            p.message("read", |p| p.optional("data", read.data.as_ref(), |p, data| body(p, data, bodies)));
        }
        Some(EventSelector::Write(write)) => p.message("write", |p| {
            p.optional("data", write.data.as_ref(), |p, data| body(p, data, bodies));
            p.bool("end_stream", write.end_stream);
        }),
        Some(EventSelector::Closed(_)) => p.message("closed", |_| {}),
        None => {}
    }
    p.optional("connection", event.connection.as_ref(), connection);
    p.uint64("seq_num", event.seq_num);
}

fn body(p: &mut impl Printer, body: &Body, bodies: Bodies) {
    match &body.body_type {
        Some(BodyType::AsBytes(bytes)) if bodies == Bodies::AsString => p.string("as_string", bytes, Explicit),
        Some(BodyType::AsBytes(bytes)) => p.bytes("as_bytes", bytes, Explicit),
        Some(BodyType::AsString(string)) => p.string("as_string", string.as_bytes(), Explicit),
        None => {}
    }
    p.bool("truncated", body.truncated);
}

fn connection(p: &mut impl Printer, connection: &Connection) {
    p.optional("local_address", connection.local_address.as_ref(), address);
    p.optional("remote_address", connection.remote_address.as_ref(), address);
}

fn address(p: &mut impl Printer, address: &Address) {
    match &address.address {
        Some(address::Address::SocketAddress(address)) => p.message("socket_address", |p| socket_address(p, address)),
        Some(address::Address::Pipe(Pipe { path, mode })) => p.message("pipe", |p| {
            p.string("path", path.as_bytes(), Implicit);
            p.uint32("mode", *mode, Implicit);
        }),
        Some(address::Address::EnvoyInternalAddress(address)) => {
            p.message("envoy_internal_address", |p| internal_address(p, address));
        }
        None => {}
    }
}

fn socket_address(p: &mut impl Printer, address: &SocketAddress) {
    let protocol = socket_address::Protocol::try_from(address.protocol).ok();
    p.enumeration("protocol", address.protocol, protocol.map(|protocol| protocol.as_str_name()));
    p.string("address", address.address.as_bytes(), Implicit);
    match &address.port_specifier {
        Some(socket_address::PortSpecifier::PortValue(port)) => p.uint32("port_value", *port, Explicit),
        Some(socket_address::PortSpecifier::NamedPort(port)) => p.string("named_port", port.as_bytes(), Explicit),
        None => {}
    }
    p.string("resolver_name", address.resolver_name.as_bytes(), Implicit);
    p.bool("ipv4_compat", address.ipv4_compat);
    p.string("network_namespace_filepath", address.network_namespace_filepath.as_bytes(), Implicit);
}

fn internal_address(p: &mut impl Printer, address: &EnvoyInternalAddress) {
    if let Some(AddressNameSpecifier::ServerListenerName(name)) = &address.address_name_specifier {
        p.string("server_listener_name", name.as_bytes(), Explicit);
    }
    p.string("endpoint_id", address.endpoint_id.as_bytes(), Implicit);
}

fn percent(p: &mut impl Printer, percent: &FractionalPercent) {
    p.uint32("numerator", percent.numerator, Implicit);
    let denominator = DenominatorType::try_from(percent.denominator).ok();
    p.enumeration("denominator", percent.denominator, denominator.map(|denominator| denominator.as_str_name()));
}

fn http_buffered(p: &mut impl Printer, trace: &HttpBufferedTrace, bodies: Bodies) {
    p.optional("request", trace.request.as_ref(), |p, message| http_message(p, message, bodies));
    p.optional("response", trace.response.as_ref(), |p, message| http_message(p, message, bodies));
    p.optional("downstream_connection", trace.downstream_connection.as_ref(), connection);
    p.optional("upstream_connection", trace.upstream_connection.as_ref(), connection);
}

fn http_message(p: &mut impl Printer, message: &http_buffered_trace::Message, bodies: Bodies) {
    p.list("headers", &message.headers, header);
    p.optional("body", message.body.as_ref(), |p, data| body(p, data, bodies));
    p.list("trailers", &message.trailers, header);
    if let Some(time) = &message.headers_received_time {
        p.timestamp("headers_received_time", time);
    }
}

fn http_streamed(p: &mut impl Printer, trace: &HttpStreamedTraceSegment, bodies: Bodies) {
    p.uint64("trace_id", trace.trace_id);
    match &trace.message_piece {
        Some(HttpPiece::RequestHeaders(map)) => p.message("request_headers", |p| headers(p, map)),
        Some(HttpPiece::RequestBodyChunk(chunk)) => p.message("request_body_chunk", |p| body(p, chunk, bodies)),
        Some(HttpPiece::RequestTrailers(map)) => p.message("request_trailers", |p| headers(p, map)),
        Some(HttpPiece::ResponseHeaders(map)) => p.message("response_headers", |p| headers(p, map)),
        Some(HttpPiece::ResponseBodyChunk(chunk)) => p.message("response_body_chunk", |p| body(p, chunk, bodies)),
        Some(HttpPiece::ResponseTrailers(map)) => p.message("response_trailers", |p| headers(p, map)),
        None => {}
    }
}

fn headers(p: &mut impl Printer, map: &HeaderMap) {
    p.list("headers", &map.headers, header);
}

fn header(p: &mut impl Printer, header: &HeaderValue) {
    p.string("key", header.key.as_bytes(), Implicit);
    p.string("value", header.value.as_bytes(), Implicit);
    p.bytes("raw_value", &header.raw_value, Implicit);
}
