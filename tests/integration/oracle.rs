//! A second reader of traces, which shares nothing with the program's own: it uses prost's generated types for the
//! binary formats, protoc for text, and serde_json for JSON.

use std::{fs, net::SocketAddr};

use prost::Message;
use serde_json::Value;
use tap2pcap::proto::{
    envoy::config::core::v3::{Address, Pipe, SocketAddress, address, socket_address::PortSpecifier},
    tap::{
        Body, Connection, SocketBufferedTrace, SocketEvent, SocketEvents, SocketStreamedTraceSegment, TraceWrapper,
        body::BodyType,
        socket_event::{Closed, EventSelector, Read, Write},
        socket_streamed_trace_segment::MessagePiece,
        trace_wrapper,
    },
};

use crate::{
    manifest::{Format, Sample},
    util::{Dir, PROTOC, ROOT},
    wire,
};

/// One connection of a trace.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    pub trace_id: u64,
    /// The connection as the trace introduces it.
    pub connection: Connection,
    /// The connection of the first event that has one of its own.
    pub event_connection: Option<Connection>,
    pub events: Vec<Event>,
}

/// The direction of the bytes, or the end of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Read,
    Write,
    Closed,
}

/// One event, with its true number of bytes.
#[derive(Clone, Debug)]
pub struct Event {
    pub time: u64,
    pub kind: Kind,
    pub payload: Vec<u8>,
    pub truncated: bool,
    pub seq_num: u64,
    /// The true length by the position of the next event, or `None` if no event follows.
    pub true_len: Option<u64>,
}

impl Trace {
    /// The events that read or wrote bytes.
    pub fn data(&self) -> impl Iterator<Item = &Event> {
        self.events.iter().filter(|event| event.kind != Kind::Closed)
    }

    /// The bytes of one direction that are in the trace.
    pub fn bytes(&self, kind: Kind) -> Vec<u8> {
        self.events.iter().filter(|event| event.kind == kind).flat_map(|event| event.payload.clone()).collect()
    }
}

/// The address of a socket; `None` for a pipe.
pub fn socket(address: Option<&Address>) -> Option<SocketAddr> {
    let Some(address::Address::SocketAddress(socket)) = &address?.address else { return None };
    let Some(PortSpecifier::PortValue(port)) = socket.port_specifier else { return None };
    Some(SocketAddr::new(socket.address.parse().unwrap(), u16::try_from(port).unwrap()))
}

/// The single connection of a sample.
pub fn trace(sample: &Sample) -> Trace {
    let traces = traces(&messages(&sample.bytes(), sample.format));
    assert_eq!(traces.len(), 1, "{}", sample.name);
    traces.into_iter().next().unwrap()
}

/// Connections in order of appearance.
pub fn traces(messages: &[TraceWrapper]) -> Vec<Trace> {
    let mut traces: Vec<Trace> = Vec::new();
    for message in messages {
        match message.trace.as_ref().unwrap() {
            trace_wrapper::Trace::SocketBufferedTrace(trace) => traces.push(Trace {
                trace_id: trace.trace_id,
                connection: trace.connection.clone().unwrap_or_default(),
                event_connection: None,
                events: trace.events.iter().filter_map(event).collect(),
            }),
            trace_wrapper::Trace::SocketStreamedTraceSegment(segment) => {
                let id = segment.trace_id;
                let index = traces.iter().position(|trace| trace.trace_id == id).unwrap_or_else(|| {
                    traces.push(Trace { trace_id: id, ..Trace::default() });
                    traces.len() - 1
                });
                add_segment(&mut traces[index], segment);
            }
            _ => panic!("an HTTP trace"),
        }
    }
    for trace in &mut traces {
        for index in 0..trace.events.len() {
            let next = trace
                .events
                .get(index + 1)
                .map_or(0, |next| next.seq_num.saturating_sub(u64::from(next.kind == Kind::Closed)));
            let event = &mut trace.events[index];
            event.true_len = (next > 0 && event.kind != Kind::Closed).then(|| next - event.seq_num);
        }
    }
    traces
}

fn add_segment(trace: &mut Trace, segment: &SocketStreamedTraceSegment) {
    let events = match segment.message_piece.as_ref() {
        Some(MessagePiece::Connection(connection)) => {
            trace.connection = connection.clone();
            return;
        }
        Some(MessagePiece::Event(event)) => std::slice::from_ref(event),
        Some(MessagePiece::Events(events)) => &events.events,
        None => return,
    };
    for event in events {
        if trace.event_connection.is_none() {
            trace.event_connection.clone_from(&event.connection);
        }
    }
    trace.events.extend(events.iter().filter_map(event));
}

fn event(event: &SocketEvent) -> Option<Event> {
    let (kind, body) = match event.event_selector.as_ref()? {
        EventSelector::Read(read) => (Kind::Read, read.data.as_ref()),
        EventSelector::Write(write) => (Kind::Write, write.data.as_ref()),
        EventSelector::Closed(Closed {}) => (Kind::Closed, None),
    };
    let time = event.timestamp.unwrap();
    Some(Event {
        time: u64::try_from(time.seconds).unwrap() * 1_000_000_000 + u64::try_from(time.nanos).unwrap(),
        kind,
        payload: match body.and_then(|body| body.body_type.as_ref()) {
            Some(BodyType::AsBytes(bytes)) => bytes.clone(),
            Some(BodyType::AsString(text)) => text.clone().into_bytes(),
            None => Vec::new(),
        },
        truncated: body.is_some_and(|body| body.truncated),
        seq_num: event.seq_num,
        true_len: None,
    })
}

/// The messages of a trace file.
pub fn messages(bytes: &[u8], format: Format) -> Vec<TraceWrapper> {
    let decode =
        |messages: Vec<&[u8]>| messages.into_iter().map(|bytes| TraceWrapper::decode(bytes).unwrap()).collect();
    match format {
        Format::Binary => decode(wire::split_binary(bytes)),
        Format::Delimited => decode(wire::split_delimited(bytes)),
        Format::Text => text_messages(std::str::from_utf8(bytes).unwrap()),
        Format::JsonBytes | Format::JsonString => serde_json::Deserializer::from_slice(bytes)
            .into_iter::<Value>()
            .map(|message| json_message(&message.unwrap()))
            .collect(),
    }
}

/// protoc reads one message per run, so all messages become fields of one.
const ALL_PROTO: &str = "syntax = \"proto3\";
import \"envoy/data/tap/v3/wrapper.proto\";
message All { repeated envoy.data.tap.v3.TraceWrapper message = 1; }
";

/// Debian's protoc has the well-known types in a separate package that it only recommends.
const TIMESTAMP_PROTO: &str = "syntax = \"proto3\";
package google.protobuf;
message Timestamp { int64 seconds = 1; int32 nanos = 2; }
";

fn text_messages(text: &str) -> Vec<TraceWrapper> {
    let mut all = String::new();
    for line in text.lines() {
        // Each message starts with a field of the oneof, at the beginning of a line; the sample rate may follow.
        if line.starts_with("socket_") || line.starts_with("http_") {
            all.push_str(if all.is_empty() { "message {\n" } else { "}\nmessage {\n" });
        }
        all.push_str(line);
        all.push('\n');
    }
    all.push('}');
    let binary = protoc("--encode", "All", all.as_bytes());
    wire::fields(&binary).iter().map(|field| TraceWrapper::decode(field.content.unwrap()).unwrap()).collect()
}

/// Text format as Google's own printer writes it, one message after another.
pub fn print_text(messages: &[TraceWrapper]) -> Vec<u8> {
    let mut all = Vec::new();
    for message in messages {
        wire::append_field(&mut all, 1, &message.encode_to_vec());
    }
    let text = String::from_utf8(protoc("--decode", "All", &all)).unwrap();
    let lines = text.lines().filter_map(|line| line.strip_prefix("  "));
    lines.flat_map(|line| [line, "\n"]).collect::<String>().into_bytes()
}

fn protoc(mode: &str, message: &str, input: &[u8]) -> Vec<u8> {
    let dir = Dir::new("protoc");
    dir.create("all.proto", ALL_PROTO);
    fs::create_dir_all(dir.join("google/protobuf")).unwrap();
    dir.create("google/protobuf/timestamp.proto", TIMESTAMP_PROTO);
    let own = format!("--proto_path={}", dir.path().display());
    PROTOC.run([&*format!("{mode}={message}"), &own, &format!("--proto_path={ROOT}/proto"), "all.proto"], input).stdout
}

/// JSON as Envoy writes it, taken apart by name.
fn json_message(message: &Value) -> TraceWrapper {
    let trace = if let Some(trace) = message.get("socket_buffered_trace") {
        trace_wrapper::Trace::SocketBufferedTrace(SocketBufferedTrace {
            trace_id: json_number(&trace["trace_id"]),
            connection: json_connection(&trace["connection"]),
            events: json_events(trace),
            read_truncated: trace["read_truncated"] == true,
            write_truncated: trace["write_truncated"] == true,
        })
    } else {
        let segment = &message["socket_streamed_trace_segment"];
        let piece = if segment.get("connection").is_some() {
            json_connection(&segment["connection"]).map(MessagePiece::Connection)
        } else if segment.get("events").is_some() {
            Some(MessagePiece::Events(SocketEvents { events: json_events(&segment["events"]) }))
        } else {
            Some(MessagePiece::Event(json_event(&segment["event"])))
        };
        let trace_id = json_number(&segment["trace_id"]);
        trace_wrapper::Trace::SocketStreamedTraceSegment(SocketStreamedTraceSegment { trace_id, message_piece: piece })
    };
    TraceWrapper { trace: Some(trace), configured_sample_rate: None }
}

fn json_number(value: &Value) -> u64 {
    value.as_str().map_or(0, |text| text.parse().unwrap())
}

fn json_events(value: &Value) -> Vec<SocketEvent> {
    value["events"].as_array().into_iter().flatten().map(json_event).collect()
}

fn json_event(value: &Value) -> SocketEvent {
    let data = |value: &Value| {
        let body_type = match (&value["data"]["as_bytes"], &value["data"]["as_string"]) {
            (Value::String(text), _) => Some(BodyType::AsBytes(base64_simd::STANDARD.decode_to_vec(text).unwrap())),
            (_, Value::String(text)) => Some(BodyType::AsString(text.clone())),
            _ => None,
        };
        Some(Body { body_type, truncated: value["data"]["truncated"] == true })
    };
    let event_selector = if let Some(read) = value.get("read") {
        Some(EventSelector::Read(Read { data: data(read) }))
    } else if let Some(write) = value.get("write") {
        Some(EventSelector::Write(Write { data: data(write), end_stream: write["end_stream"] == true }))
    } else {
        value.get("closed").map(|_| EventSelector::Closed(Closed {}))
    };
    SocketEvent {
        timestamp: value["timestamp"].as_str().map(|time| time.parse().unwrap()),
        event_selector,
        connection: json_connection(&value["connection"]),
        seq_num: json_number(&value["seq_num"]),
    }
}

fn json_connection(value: &Value) -> Option<Connection> {
    value.as_object()?;
    let address = |value: &Value| {
        let address = if let Some(socket) = value.get("socket_address") {
            let port = u32::try_from(socket["port_value"].as_u64().unwrap()).unwrap();
            address::Address::SocketAddress(SocketAddress {
                address: socket["address"].as_str().unwrap().to_owned(),
                port_specifier: Some(PortSpecifier::PortValue(port)),
                ..SocketAddress::default()
            })
        } else {
            let path = value.get("pipe")?["path"].as_str().unwrap().to_owned();
            address::Address::Pipe(Pipe { path, mode: 0 })
        };
        Some(Address { address: Some(address) })
    };
    Some(Connection {
        local_address: address(&value["local_address"]),
        remote_address: address(&value["remote_address"]),
    })
}
