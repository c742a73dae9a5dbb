//! Writes the traces that `scripts/bench` converts: deterministic, of any size, in Envoy's formats.
//!
//! `cargo run --release --example generate -- FORMAT[:CONNECTIONS] EVENT_BYTES TOTAL_BYTES OUT`
//! `cargo run --release --example generate -- http-buffered|http-streamed BODY_BYTES TOTAL_BYTES OUT`
//! `cargo run --release --example generate -- many COUNT TRACE_BYTES DIRECTORY`

use std::{
    error::Error,
    fs::{self, File},
    io::{self, BufWriter, Write},
    ops::Range,
    path::Path,
};

use prost::Message as _;
use tap2pcap::proto::{
    envoy::config::core::v3 as core,
    tap::{
        Body, Connection, HttpBufferedTrace, HttpStreamedTraceSegment, SocketEvent, SocketStreamedTraceSegment,
        TraceWrapper,
        body::BodyType,
        http_buffered_trace::Message as HttpMessage,
        http_streamed_trace_segment::MessagePiece as HttpPiece,
        socket_event::{Closed, EventSelector, Read, Write as WriteEvent},
        socket_streamed_trace_segment::MessagePiece,
        trace_wrapper::Trace,
    },
};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [format, first, second, out] = args.as_slice() else {
        return Err(
            "usage: generate FORMAT EVENT_BYTES TOTAL_BYTES OUT | generate many COUNT TRACE_BYTES DIRECTORY".into()
        );
    };
    if format == "many" {
        let (count, size) = (first.parse::<u64>()?, second.parse::<u64>()?);
        fs::create_dir_all(out)?;
        for id in 0..count {
            let path = Path::new(out).join(format!("tap_{id}.pb_length_delimited"));
            // All traces are from one busy second, so they overlap.
            let (event, start) = (1024.min(size / 4), id * 1_000_000_000 / count);
            write_trace(Format::Delimited, &Shape { event, total: size, ids: id..id + 1, start }, &path)?;
        }
        return Ok(());
    }
    if let Some(shape) = format.strip_prefix("http-") {
        return Ok(write_http(shape == "buffered", first.parse()?, second.parse()?, Path::new(out))?);
    }
    let (format, connections) = format.split_once(':').unwrap_or((format, "1"));
    let format = match format {
        "binary" => Format::Binary,
        "delimited" => Format::Delimited,
        "text" => Format::Text,
        "json" => Format::Json,
        other => return Err(format!("unknown format {other}").into()),
    };
    let ids = 1..1 + connections.parse::<u64>()?;
    let shape = Shape { event: first.parse()?, total: second.parse()?, ids, start: 0 };
    write_trace(format, &shape, Path::new(out))?;
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Binary,
    Delimited,
    Text,
    Json,
}

/// What a trace of socket taps holds.
struct Shape {
    /// Bytes of payload in an event.
    event: u64,
    /// Bytes of the whole trace, of which the ends of the connections are left out.
    total: u64,
    /// The connections. Each of them has one event in turn, as in a busy admin stream.
    ids: Range<u64>,
    /// Nanoseconds after the first trace's beginning.
    start: u64,
}

/// Writes connections, each of two reads, then a write, and so on, until the file holds the whole trace.
fn write_trace(format: Format, shape: &Shape, path: &Path) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let mut random = shape.ids.start.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut payload = vec![0; shape.event as usize];
    let mut written = 0;
    for id in shape.ids.clone() {
        written += write_segment(format, &mut out, &connection(id))?;
    }
    let mut time = 1_700_000_000_000_000_000 + shape.start;
    let mut round = 0_u64;
    while written < shape.total {
        for id in shape.ids.clone() {
            fill(&mut payload, &mut random);
            time += 10_000;
            let selector = if round % 3 < 2 {
                EventSelector::Read(Read { data: Some(body(&payload)) })
            } else {
                EventSelector::Write(WriteEvent { data: Some(body(&payload)), end_stream: false })
            };
            written += write_segment(format, &mut out, &segment(id, time, selector, 1 + round * shape.event))?;
        }
        round += 1;
    }
    for id in shape.ids.clone() {
        let closed = EventSelector::Closed(Closed {});
        write_segment(format, &mut out, &segment(id, time, closed, 2 + round * shape.event))?;
    }
    out.flush()
}

fn fill(payload: &mut [u8], random: &mut u64) {
    for byte in payload {
        // xorshift
        *random ^= *random << 13;
        *random ^= *random >> 7;
        *random ^= *random << 17;
        *byte = *random as u8;
    }
}

/// Writes exchanges of the HTTP tap filter, length-delimited: a POST and its response, each with a body of `body_len`
/// bytes.
fn write_http(buffered: bool, body_len: u64, total: u64, path: &Path) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let mut random = 1;
    let mut payload = vec![0; body_len as usize];
    let header =
        |key: &str, value: &str| core::HeaderValue { key: key.into(), value: value.into(), ..Default::default() };
    let length = body_len.to_string();
    let request = vec![
        header(":method", "POST"),
        header(":path", "/v1/items?page=7"),
        header(":authority", "shop.example:8080"),
        header(":scheme", "http"),
        header("user-agent", "curl/8.5.0"),
        header("content-type", "application/octet-stream"),
        header("content-length", &length),
        header("x-request-id", "6f3c2a10-7c1e-4f4b-9d55-0f6f9c6f1a2b"),
    ];
    let response = vec![
        header(":status", "200"),
        header("content-type", "application/octet-stream"),
        header("content-length", &length),
        header("date", "Tue, 14 Nov 2023 22:13:20 GMT"),
        header("server", "envoy"),
    ];
    let (mut written, mut id) = (0, 0_u64);
    while written < total {
        id += 1;
        let mut bodies = [None, None];
        for slot in &mut bodies {
            fill(&mut payload, &mut random);
            *slot = Some(body(&payload));
        }
        let [asked, answered] = bodies;
        let traces = if buffered {
            let time = 1_700_000_000_000_000_000 + id * 50_000;
            let message = |headers: &[core::HeaderValue], body, time: u64| {
                let seconds = (time / 1_000_000_000) as i64;
                let at = prost_types::Timestamp { seconds, nanos: (time % 1_000_000_000) as i32 };
                Some(HttpMessage {
                    headers: headers.to_vec(),
                    body,
                    trailers: Vec::new(),
                    headers_received_time: Some(at),
                })
            };
            let TraceWrapper { trace: Some(Trace::SocketStreamedTraceSegment(opening)), .. } = connection(id) else {
                unreachable!("`connection` makes such a segment")
            };
            let Some(MessagePiece::Connection(downstream)) = opening.message_piece else {
                unreachable!("`connection` makes such a piece")
            };
            vec![Trace::HttpBufferedTrace(HttpBufferedTrace {
                request: message(&request, asked, time),
                response: message(&response, answered, time + 20_000),
                downstream_connection: Some(downstream),
                upstream_connection: None,
            })]
        } else {
            let headers = |headers: &[core::HeaderValue]| core::HeaderMap { headers: headers.to_vec() };
            let pieces = [
                Some(HttpPiece::RequestHeaders(headers(&request))),
                asked.map(HttpPiece::RequestBodyChunk),
                Some(HttpPiece::ResponseHeaders(headers(&response))),
                answered.map(HttpPiece::ResponseBodyChunk),
            ];
            let segment = |piece| HttpStreamedTraceSegment { trace_id: id, message_piece: Some(piece) };
            pieces.into_iter().flatten().map(|piece| Trace::HttpStreamedTraceSegment(segment(piece))).collect()
        };
        for trace in traces {
            let wrapper = TraceWrapper { trace: Some(trace), configured_sample_rate: None };
            written += write_segment(Format::Delimited, &mut out, &wrapper)?;
        }
    }
    out.flush()
}

fn connection(id: u64) -> TraceWrapper {
    let address = |address: String, port: u32| {
        Some(core::Address {
            address: Some(core::address::Address::SocketAddress(core::SocketAddress {
                address,
                port_specifier: Some(core::socket_address::PortSpecifier::PortValue(port)),
                ..Default::default()
            })),
        })
    };
    let piece = MessagePiece::Connection(Connection {
        local_address: address("10.0.0.1".into(), 8443),
        remote_address: address(client(id).0, client(id).1),
    });
    wrap(SocketStreamedTraceSegment { trace_id: id, message_piece: Some(piece) })
}

fn segment(id: u64, time: u64, selector: EventSelector, seq_num: u64) -> TraceWrapper {
    let timestamp =
        prost_types::Timestamp { seconds: (time / 1_000_000_000) as i64, nanos: (time % 1_000_000_000) as i32 };
    let event = SocketEvent { timestamp: Some(timestamp), event_selector: Some(selector), connection: None, seq_num };
    wrap(SocketStreamedTraceSegment { trace_id: id, message_piece: Some(MessagePiece::Event(event)) })
}

fn wrap(segment: SocketStreamedTraceSegment) -> TraceWrapper {
    TraceWrapper { trace: Some(Trace::SocketStreamedTraceSegment(segment)), configured_sample_rate: None }
}

fn body(payload: &[u8]) -> Body {
    Body { body_type: Some(BodyType::AsBytes(payload.to_vec())), truncated: false }
}

fn write_segment(format: Format, out: &mut impl Write, wrapper: &TraceWrapper) -> io::Result<u64> {
    let bytes = match format {
        Format::Binary => wrapper.encode_to_vec(),
        Format::Delimited => wrapper.encode_length_delimited_to_vec(),
        Format::Text => text(wrapper),
        Format::Json => json(wrapper),
    };
    out.write_all(&bytes)?;
    Ok(bytes.len() as u64)
}

/// The parts of an event segment that the two text formats print. Otherwise it is the beginning of the connection with
/// this `trace_id`.
fn event_of(wrapper: &TraceWrapper) -> Result<(u64, &SocketEvent), u64> {
    let Some(Trace::SocketStreamedTraceSegment(segment)) = &wrapper.trace else { return Err(0) };
    match &segment.message_piece {
        Some(MessagePiece::Event(event)) => Ok((segment.trace_id, event)),
        _ => Err(segment.trace_id),
    }
}

/// The address and port of a connection's client.
fn client(id: u64) -> (String, u32) {
    (format!("10.1.{}.{}", id >> 8 & 0xff, id & 0xff), 40_000 + (id % 20_000) as u32)
}

fn payload_of(event: &SocketEvent) -> Option<(&'static str, &[u8])> {
    let (name, data) = match event.event_selector.as_ref()? {
        EventSelector::Read(read) => ("read", read.data.as_ref()),
        EventSelector::Write(write) => ("write", write.data.as_ref()),
        EventSelector::Closed(_) => return None,
    };
    match data?.body_type.as_ref()? {
        BodyType::AsBytes(bytes) => Some((name, bytes)),
        BodyType::AsString(text) => Some((name, text.as_bytes())),
    }
}

fn text(wrapper: &TraceWrapper) -> Vec<u8> {
    let (id, event) = match event_of(wrapper) {
        Ok(event) => event,
        Err(id) => {
            let (address, port) = client(id);
            return format!(
                "socket_streamed_trace_segment {{\n  trace_id: {id}\n  connection {{\n    local_address {{\n      \
                 socket_address {{\n        address: \"10.0.0.1\"\n        port_value: 8443\n      }}\n    }}\n    \
                 remote_address {{\n      socket_address {{\n        address: \"{address}\"\n        port_value: {port}\n      \
                 }}\n    }}\n  }}\n}}\n"
            )
            .into_bytes();
        }
    };
    let time = event.timestamp.unwrap_or_default();
    let mut out = format!(
        "socket_streamed_trace_segment {{\n  trace_id: {id}\n  event {{\n    timestamp {{\n      seconds: {}\n      \
         nanos: {}\n    }}\n",
        time.seconds, time.nanos
    )
    .into_bytes();
    match payload_of(event) {
        Some((name, payload)) => {
            out.extend(format!("    {name} {{\n      data {{\n        as_bytes: \"").bytes());
            for byte in payload {
                match byte {
                    b'\n' => out.extend(b"\\n"),
                    b'\r' => out.extend(b"\\r"),
                    b'\t' => out.extend(b"\\t"),
                    b'"' | b'\'' | b'\\' => out.extend([b'\\', *byte]),
                    0x20..0x7f => out.push(*byte),
                    _ => out.extend([b'\\', b'0' + (byte >> 6), b'0' + (byte >> 3 & 7), b'0' + (byte & 7)]),
                }
            }
            out.extend(b"\"\n      }\n    }\n");
        }
        None => out.extend(b"    closed {\n    }\n"),
    }
    out.extend(format!("    seq_num: {}\n  }}\n}}\n", event.seq_num).bytes());
    out
}

fn json(wrapper: &TraceWrapper) -> Vec<u8> {
    let (id, event) = match event_of(wrapper) {
        Ok(event) => event,
        Err(id) => {
            let (address, port) = client(id);
            return format!(
                "{{\n \"socket_streamed_trace_segment\": {{\n  \"trace_id\": \"{id}\",\n  \"connection\": {{\n   \
                 \"local_address\": {{\n    \"socket_address\": {{\n     \"protocol\": \"TCP\",\n     \"address\": \
                 \"10.0.0.1\",\n     \"port_value\": 8443\n    }}\n   }},\n   \"remote_address\": {{\n    \
                 \"socket_address\": {{\n     \"protocol\": \"TCP\",\n     \"address\": \"{address}\",\n     \
                 \"port_value\": {port}\n    }}\n   }}\n  }}\n }}\n}}\n"
            )
            .into_bytes();
        }
    };
    let time = event.timestamp.unwrap_or_default();
    let mut out = format!(
        "{{\n \"socket_streamed_trace_segment\": {{\n  \"trace_id\": \"{id}\",\n  \"event\": {{\n   \"timestamp\": \
         \"{time}\",\n"
    );
    match payload_of(event) {
        Some((name, payload)) => {
            out.push_str(&format!("   \"{name}\": {{\n    \"data\": {{\n     \"as_bytes\": \""));
            base64_simd::STANDARD.encode_append(payload, &mut out);
            out.push_str("\",\n     \"truncated\": false\n    }");
            out.push_str(if name == "write" { ",\n    \"end_stream\": false\n   },\n" } else { "\n   },\n" });
        }
        None => out.push_str("   \"closed\": {},\n"),
    }
    out.push_str(&format!("   \"seq_num\": \"{}\"\n  }}\n }}\n}}\n", event.seq_num));
    out.into_bytes()
}
