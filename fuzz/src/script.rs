//! HTTP traces by a small script, so that a few bytes of input make many parts and large ones: what a replay holds, and
//! where it stops holding, lies beyond the length of an input.

use prost::Message as _;
use tap2pcap::proto::{
    envoy::config::core::v3::{Address, HeaderMap, HeaderValue, SocketAddress, address, socket_address::PortSpecifier},
    tap::{
        Body, Connection, HttpBufferedTrace, HttpStreamedTraceSegment, TraceWrapper, body::BodyType,
        http_buffered_trace::Message, http_streamed_trace_segment::MessagePiece, trace_wrapper::Trace,
    },
};

/// Parts of a trace, and the bytes of all.
const MAX_PARTS: usize = 256;
const MAX_BYTES: usize = 1 << 20;

/// Field names and values that decide something, and some that are none.
const NAMES: [&str; 16] = [
    ":method",
    ":path",
    ":status",
    ":scheme",
    ":authority",
    ":protocol",
    "te",
    "content-length",
    "content-type",
    "transfer-encoding",
    "connection",
    "upgrade",
    "date",
    "x\r\n",
    "\u{202e}",
    "",
];
const VALUES: [&str; 16] = [
    "GET",
    "POST",
    "HEAD",
    "CONNECT",
    "/",
    "200",
    "103",
    "204",
    "101",
    "trailers",
    "chunked",
    "300000",
    "1000000000",
    "application/grpc-web-text",
    "application/grpc",
    "\r\n\0",
];

/// Length-delimited messages. A step of the script is four bytes: which part of which exchange, or a buffered one of
/// which connection, how often, and what is in it, twice.
pub fn trace(script: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut parts = 0;
    for &[what, repeat, first, second] in script.as_chunks::<4>().0 {
        let trace = if what & 8 == 0 {
            Trace::HttpStreamedTraceSegment(HttpStreamedTraceSegment {
                trace_id: u64::from(what >> 6),
                message_piece: Some(piece(what, first, second)),
            })
        } else {
            Trace::HttpBufferedTrace(exchange(what, first, second))
        };
        let wrapper = TraceWrapper { trace: Some(trace), configured_sample_rate: None };
        let bytes = wrapper.encode_length_delimited_to_vec();
        for _ in 0..=repeat & 63 {
            if parts == MAX_PARTS || out.len() + bytes.len() > MAX_BYTES {
                return out;
            }
            parts += 1;
            out.extend_from_slice(&bytes);
        }
    }
    out
}

fn piece(what: u8, first: u8, second: u8) -> MessagePiece {
    match what & 7 {
        0 | 6 => MessagePiece::RequestHeaders(fields(first, second, "GET")),
        1 => MessagePiece::RequestBodyChunk(body(first, second)),
        2 => MessagePiece::RequestTrailers(fields(first, second, "")),
        3 | 7 => MessagePiece::ResponseHeaders(fields(first, second, "200")),
        4 => MessagePiece::ResponseBodyChunk(body(first, second)),
        _ => MessagePiece::ResponseTrailers(fields(first, second, "")),
    }
}

/// A whole exchange of a connection whose addresses are known: exchanges that follow each other there are joined.
fn exchange(what: u8, first: u8, second: u8) -> HttpBufferedTrace {
    let half = |first, second, pseudo| Message {
        headers: fields(first, second, pseudo).headers,
        body: (what & 16 != 0).then(|| body(second, first)),
        trailers: if what & 32 != 0 { fields(second, first, "").headers } else { Vec::new() },
        headers_received_time: None,
    };
    HttpBufferedTrace {
        request: (what & 7 != 1).then(|| half(first, second, "GET")),
        response: (what & 7 != 2).then(|| half(second, first, "200")),
        downstream_connection: Some(Connection {
            local_address: socket("192.0.2.1", 80),
            remote_address: socket("192.0.2.2", 50_000 + u32::from(what >> 6)),
        }),
        upstream_connection: None,
    }
}

fn socket(ip: &str, port: u32) -> Option<Address> {
    let port_specifier = Some(PortSpecifier::PortValue(port));
    let socket = SocketAddress { address: ip.to_owned(), port_specifier, ..SocketAddress::default() };
    Some(Address { address: Some(address::Address::SocketAddress(socket)) })
}

/// A field that the bytes pick; more of them, and longer ones, where the upper bits say so.
fn fields(first: u8, second: u8, pseudo: &str) -> HeaderMap {
    let name = NAMES[usize::from(first & 15)];
    let value = VALUES[usize::from(second & 15)];
    let count = 1 << (first >> 4 & 7);
    let longer = "\r~".repeat(usize::from(second >> 4) * 64);
    let mut headers = Vec::new();
    if first & 128 == 0 && !pseudo.is_empty() {
        let key = if pseudo == "GET" { ":method" } else { ":status" };
        headers.push(HeaderValue { key: key.into(), value: pseudo.into(), ..HeaderValue::default() });
    }
    headers.extend((0..count).map(|index| HeaderValue {
        key: if index == 0 { name.to_owned() } else { format!("{name}{index}{longer}") },
        value: if index == 0 { value.to_owned() } else { format!("{value}{longer}") },
        ..HeaderValue::default()
    }));
    HeaderMap { headers }
}

/// From nothing to 60,000 bytes and more, around the sizes at which something changes.
fn body(first: u8, second: u8) -> Body {
    const SIZES: [usize; 8] = [0, 1, 1_000, 16_384, 32_000, 60_000, 65_495, 200_000];
    let len = (SIZES[usize::from(first & 7)] + usize::from(second & 7)).saturating_sub(3);
    let bytes = vec![b'A' + (first >> 3); len];
    let body_type = if second & 8 == 0 {
        BodyType::AsBytes(bytes)
    } else {
        BodyType::AsString(String::from_utf8(bytes).expect("ASCII"))
    };
    Body { body_type: Some(body_type), truncated: second & 16 != 0 }
}
