//! Traces that no Envoy wrote, put together in memory and written in any of the five formats.

use prost::Message;
use prost_reflect::{DynamicMessage, SerializeOptions, text_format::FormatOptions};
use serde::Serialize;
use tap2pcap::proto::{
    DESCRIPTORS,
    envoy::config::core::v3::{
        Address, EnvoyInternalAddress, Pipe, SocketAddress, address, envoy_internal_address::AddressNameSpecifier,
        socket_address::PortSpecifier,
    },
    tap::{
        Body, Connection, SocketBufferedTrace, SocketEvent, SocketStreamedTraceSegment, TraceWrapper,
        body::BodyType,
        socket_event::{Closed, EventSelector, Read, Write},
        socket_streamed_trace_segment::MessagePiece,
        trace_wrapper,
    },
};

use crate::oracle;

/// 2026-01-31T12:00:00.123456789Z: a lost digit would show.
pub const TIME: u64 = 1_769_860_800_123_456_789;

pub fn socket(ip: &str, port: u32) -> Option<Address> {
    Some(Address {
        address: Some(address::Address::SocketAddress(SocketAddress {
            address: ip.to_owned(),
            port_specifier: Some(PortSpecifier::PortValue(port)),
            ..SocketAddress::default()
        })),
    })
}

pub fn pipe(path: &str) -> Option<Address> {
    Some(Address { address: Some(address::Address::Pipe(Pipe { path: path.to_owned(), mode: 0 })) })
}

pub fn internal(listener: &str, endpoint: &str) -> Option<Address> {
    Some(Address {
        address: Some(address::Address::EnvoyInternalAddress(EnvoyInternalAddress {
            address_name_specifier: Some(AddressNameSpecifier::ServerListenerName(listener.to_owned())),
            endpoint_id: endpoint.to_owned(),
        })),
    })
}

/// A client that calls a listener.
pub fn downstream() -> Connection {
    Connection { local_address: socket("10.0.0.1", 8080), remote_address: socket("192.0.2.7", 50_123) }
}

pub fn timestamp(time: u64) -> Option<prost_types::Timestamp> {
    let (seconds, nanos) = (time / 1_000_000_000, time % 1_000_000_000);
    Some(prost_types::Timestamp { seconds: seconds as i64, nanos: nanos as i32 })
}

fn body(bytes: &[u8]) -> Option<Body> {
    Some(Body { body_type: Some(BodyType::AsBytes(bytes.to_vec())), truncated: false })
}

fn event(time: u64, selector: EventSelector) -> SocketEvent {
    SocketEvent { timestamp: timestamp(time), event_selector: Some(selector), ..SocketEvent::default() }
}

pub fn read(time: u64, bytes: &[u8]) -> SocketEvent {
    event(time, EventSelector::Read(Read { data: body(bytes) }))
}

pub fn write(time: u64, bytes: &[u8]) -> SocketEvent {
    event(time, EventSelector::Write(Write { data: body(bytes), end_stream: false }))
}

pub fn closed(time: u64) -> SocketEvent {
    event(time, EventSelector::Closed(Closed {}))
}

/// The event as Envoy logs it when it kept only the first bytes.
pub fn cut(mut event: SocketEvent) -> SocketEvent {
    body_of(&mut event).expect("bytes to cut").truncated = true;
    event
}

/// The event with its bytes as text.
pub fn as_text(mut event: SocketEvent) -> SocketEvent {
    string_body(&mut event);
    event
}

/// An event that half-closes: these are the last bytes that Envoy writes.
pub fn end_stream(mut event: SocketEvent) -> SocketEvent {
    let Some(EventSelector::Write(write)) = &mut event.event_selector else { panic!("only writes end a stream") };
    write.end_stream = true;
    event
}

/// Gives events their positions, as Envoy has done since 1.37. Each event comes with its true number of bytes, which
/// counts those that it shows and those that it lacks.
pub fn positions(events: impl IntoIterator<Item = (SocketEvent, u64)>) -> Vec<SocketEvent> {
    let mut next = 1;
    let place = |(mut event, length): (SocketEvent, u64)| {
        // Envoy counts one more before it numbers `closed`.
        let closed = matches!(event.event_selector, Some(EventSelector::Closed(_)));
        event.seq_num = next + u64::from(closed);
        next += length;
        event
    };
    events.into_iter().map(place).collect()
}

pub fn segment(trace_id: u64, piece: MessagePiece) -> TraceWrapper {
    TraceWrapper {
        trace: Some(trace_wrapper::Trace::SocketStreamedTraceSegment(SocketStreamedTraceSegment {
            trace_id,
            message_piece: Some(piece),
        })),
        configured_sample_rate: None,
    }
}

/// A streamed trace: the connection, then each event.
pub fn streamed(
    trace_id: u64,
    connection: Connection,
    events: impl IntoIterator<Item = SocketEvent>,
) -> Vec<TraceWrapper> {
    let mut messages = vec![segment(trace_id, MessagePiece::Connection(connection))];
    messages.extend(events.into_iter().map(|event| segment(trace_id, MessagePiece::Event(event))));
    messages
}

pub fn buffered(trace_id: u64, connection: Connection, events: impl IntoIterator<Item = SocketEvent>) -> TraceWrapper {
    TraceWrapper {
        trace: Some(trace_wrapper::Trace::SocketBufferedTrace(SocketBufferedTrace {
            trace_id,
            connection: Some(connection),
            events: events.into_iter().collect(),
            ..SocketBufferedTrace::default()
        })),
        configured_sample_rate: None,
    }
}

fn body_of(event: &mut SocketEvent) -> Option<&mut Body> {
    match event.event_selector.as_mut()? {
        EventSelector::Read(read) => read.data.as_mut(),
        EventSelector::Write(write) => write.data.as_mut(),
        EventSelector::Closed(_) => None,
    }
}

/// The notation of a trace file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dress {
    Binary,
    Delimited,
    /// As Google's printer writes it, which is Envoy's.
    Text,
    /// As prost-reflect writes it, on as few lines as possible.
    DenseText,
    /// As Envoy writes it.
    Json,
    /// Names in camelCase, no white space, defaults left out: JSON that other printers write.
    DenseJson,
}

impl Dress {
    pub const ALL: [Self; 6] =
        [Self::Binary, Self::Delimited, Self::Text, Self::DenseText, Self::Json, Self::DenseJson];

    pub fn suffix(self) -> &'static str {
        match self {
            Self::Binary => "pb",
            Self::Delimited => "pb_length_delimited",
            Self::Text | Self::DenseText => "pb_text",
            Self::Json | Self::DenseJson => "json",
        }
    }

    /// The bytes of a trace file with these messages.
    pub fn file(self, messages: &[TraceWrapper]) -> Vec<u8> {
        let each = |encode: &dyn Fn(&TraceWrapper) -> Vec<u8>| messages.iter().flat_map(encode).collect();
        match self {
            Self::Binary => each(&Message::encode_to_vec),
            Self::Delimited => each(&Message::encode_length_delimited_to_vec),
            Self::Text => oracle::print_text(messages),
            Self::DenseText => each(&|message| {
                let text = dynamic(message).to_text_format_with_options(&FormatOptions::new());
                format!("{text} ").into_bytes()
            }),
            Self::Json => each(&|message| {
                let options = SerializeOptions::new().use_proto_field_name(true).skip_default_fields(false);
                let mut out = Vec::new();
                let formatter = serde_json::ser::PrettyFormatter::with_indent(b" ");
                let mut serializer = serde_json::Serializer::with_formatter(&mut out, formatter);
                dynamic(message).serialize_with_options(&mut serializer, &options).unwrap();
                out.push(b'\n');
                out
            }),
            Self::DenseJson => each(&|message| {
                let mut out = Vec::new();
                dynamic(message).serialize(&mut serde_json::Serializer::new(&mut out)).unwrap();
                out
            }),
        }
    }
}

fn dynamic(message: &TraceWrapper) -> DynamicMessage {
    let descriptor = DESCRIPTORS.get_message_by_name("envoy.data.tap.v3.TraceWrapper").unwrap();
    DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice()).unwrap()
}

/// Changes messages as JSON_BODY_AS_STRING does: bodies become strings, and the connection segment of a streamed trace
/// becomes an event with nothing in it.
pub fn as_strings(messages: &[TraceWrapper]) -> Vec<TraceWrapper> {
    let mut messages = messages.to_vec();
    for message in &mut messages {
        match message.trace.as_mut().unwrap() {
            trace_wrapper::Trace::SocketBufferedTrace(trace) => trace.events.iter_mut().for_each(string_body),
            trace_wrapper::Trace::SocketStreamedTraceSegment(segment) => {
                match segment.message_piece.as_mut().unwrap() {
                    piece @ MessagePiece::Connection(_) => *piece = MessagePiece::Event(SocketEvent::default()),
                    MessagePiece::Event(event) => string_body(event),
                    MessagePiece::Events(events) => events.events.iter_mut().for_each(string_body),
                }
            }
            _ => panic!("an HTTP trace"),
        }
    }
    messages
}

fn string_body(event: &mut SocketEvent) {
    let Some(body) = body_of(event) else { return };
    if let Some(BodyType::AsBytes(bytes)) = &body.body_type {
        let text = String::from_utf8(bytes.clone()).expect("a text body");
        body.body_type = Some(BodyType::AsString(text));
    }
}

/// A short trace without a flaw.
pub fn sound() -> Vec<TraceWrapper> {
    streamed(1, downstream(), [read(TIME, b"hello"), closed(TIME + 1)])
}
