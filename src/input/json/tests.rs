use std::str::FromStr;

use proptest::{collection::vec, option, prelude::*};
use prost::Message as _;
use prost_reflect::{DeserializeOptions, DynamicMessage, MessageDescriptor, SerializeOptions};
use prost_types::Timestamp;

use super::{
    JsonDecoder,
    fast::{self, FastJson},
    times::Times,
};
use crate::{
    input::{
        decode::{Decode, Step},
        http_tests::{self, SeenPiece},
    },
    proto::{
        DESCRIPTORS,
        envoy::config::core::v3::{self as core, address, envoy_internal_address, socket_address},
        tap::{self, body::BodyType, socket_event::EventSelector, socket_streamed_trace_segment::MessagePiece},
    },
    tap::TraceFormat,
    trace::{
        Address, Code, Connection, EventKind, FieldId, HttpPart, HttpSide, Message, MessageView, Nanos, TimeError,
        TraceKind, nanos_from_timestamp,
    },
};

const TRACES: [&[u8]; 6] = [
    include_bytes!("../../../testdata/envoy/1.40.0/h1trunc_str_JSON_BODY_AS_STRING_118.json"),
    include_bytes!("../../../testdata/envoy/1.40.0/h1up_str_JSON_BODY_AS_BYTES_103.json"),
    include_bytes!("../../../testdata/envoy/1.40.0/h2_buf_JSON_BODY_AS_STRING_31.json"),
    include_bytes!("../../../testdata/envoy/1.40.0/trunc_buf_JSON_BODY_AS_BYTES_5.json"),
    include_bytes!("../../../testdata/envoy/1.40.0/filterrec_buf_JSON_BODY_AS_BYTES_6224311659921112257.json"),
    include_bytes!("../../../testdata/envoy/1.40.0/filter_str_JSON_BODY_AS_STRING_9002359885677870521.json"),
];

/// An event with its bytes.
#[derive(Clone, Debug, Default, PartialEq)]
struct Event {
    time: Option<Nanos>,
    kind: EventKind,
    payload: Vec<u8>,
    truncated: bool,
    as_string: bool,
    end_stream: bool,
    seq_num: u64,
    connection: Option<Connection>,
}

/// A decoded message, independent of the windows it came in.
#[derive(Clone, Debug, Default, PartialEq)]
struct Decoded {
    kind: Option<TraceKind>,
    trace_id: u64,
    connection: Option<Connection>,
    upstream_connection: Option<Connection>,
    http: Vec<SeenPiece>,
    events: Vec<Event>,
    read_truncated: bool,
    write_truncated: bool,
    cut: bool,
    bad_time: Option<TimeError>,
    /// Its offset in the source, code and detail.
    fault: Option<(usize, Code, String)>,
}

impl Decoded {
    fn new(message: &Message, window: &[u8], fault: Option<(usize, Code, String)>) -> Self {
        let view = MessageView::new(message, window);
        let events = message.events.iter().map(|event| Event {
            time: event.time,
            kind: event.kind,
            payload: view.bytes(event.body.payload).to_vec(),
            truncated: event.body.truncated,
            as_string: event.body.as_string,
            end_stream: event.end_stream,
            seq_num: event.seq_num,
            connection: event.connection.map(|index| message.event_connections[index as usize].clone()),
        });
        Self {
            kind: message.kind,
            trace_id: message.trace_id,
            connection: message.connection.clone(),
            upstream_connection: message.upstream_connection.clone(),
            http: http_tests::seen(view),
            events: events.collect(),
            read_truncated: message.read_truncated,
            write_truncated: message.write_truncated,
            cut: message.cut,
            bad_time: message.bad_time,
            fault,
        }
    }
}

/// Adds text around messages, which may come in pieces, as if it were one damaged message.
fn skipped(decoded: &mut Vec<Decoded>, at: usize, len: usize) {
    match decoded.last_mut().and_then(|last| last.fault.as_mut()) {
        Some((start, Code::TextAround, words)) => *words = format!("{} bytes", at + len - *start),
        _ => {
            let fault = Some((at, Code::TextAround, format!("{len} bytes")));
            decoded.push(Decoded { fault, ..Decoded::default() });
        }
    }
}

/// Decodes a source that arrives `piece` bytes at a time, and checks that the decoder keeps the contract of [`Decode`].
fn decode_in_pieces(source: &[u8], piece: usize) -> (Vec<Decoded>, Message) {
    let (mut decoder, mut out) = (JsonDecoder::default(), Message::default());
    let (mut start, mut end) = (0, piece.min(source.len()));
    // If everything arrives at once, so does the end.
    let mut at_end = piece >= source.len();
    let mut decoded = Vec::new();
    loop {
        out.clear();
        let window = &source[start..end];
        match decoder.step(window, at_end, &mut out) {
            Step::Message { start: from, end: to } => {
                assert!(from < to && to <= window.len(), "no progress");
                decoded.push(Decoded::new(&out, &window[from..], None));
                start += to;
            }
            Step::Damaged { start: from, end: to, fault } => {
                assert!(from < to && to <= window.len(), "no progress");
                assert!((from..=window.len()).contains(&fault.at), "fault outside of the window");
                decoded.push(Decoded::new(&out, &window[from..], Some(fault.told(start))));
                start += to;
            }
            Step::Skipped { start: from, end: to } | Step::Zeros { start: from, end: to } => {
                assert!(from < to && to <= window.len(), "no progress");
                skipped(&mut decoded, start + from, to - from);
                start += to;
            }
            Step::Switch { .. } => panic!("another encoding"),
            Step::NeedMore { skip, wanted } => {
                assert!(!at_end && skip <= window.len() && wanted > window.len() - skip, "wants what it has");
                at_end = end == source.len();
                end = source.len().min((end + piece).max(start + skip + wanted));
                start += skip;
            }
            Step::End => {
                assert!(at_end, "stops early");
                return (decoded, out);
            }
        }
    }
}

/// Decodes a source with the fast path and without it, step by step, in windows that grow by each of `pieces` in turn.
/// Returns the number of messages.
fn assert_fast_and_general_agree(source: &[u8], pieces: &[usize]) -> usize {
    let mut fast = (JsonDecoder::default(), Message::default());
    let mut general = (JsonDecoder { only_general: true, ..JsonDecoder::default() }, Message::default());
    let mut pieces = pieces.iter().cycle();
    let (mut start, mut end, mut messages) = (0, 0, 0);
    loop {
        let (window, at_end) = (&source[start..end], end == source.len());
        let mut outcomes = [&mut fast, &mut general].map(|(decoder, out)| {
            out.clear();
            let step = decoder.step(window, at_end, out);
            (step, Decoded::new(out, window, None), format!("{:?}", out.unknown))
        });
        assert_eq!(outcomes[0], outcomes[1], "in {:?}", window.escape_ascii().to_string());
        match std::mem::replace(&mut outcomes[0].0, Step::End) {
            Step::Skipped { end, .. } | Step::Zeros { end, .. } => start += end,
            Step::Message { end, .. } | Step::Damaged { end, .. } => {
                start += end;
                messages += 1;
            }
            Step::NeedMore { skip, .. } => {
                start += skip;
                end = source.len().min(end.saturating_add(*pieces.next().expect("endless")));
            }
            Step::Switch { .. } => panic!("another encoding"),
            Step::End => return messages,
        }
    }
}

fn decode(source: &[u8]) -> Vec<Decoded> {
    decode_in_pieces(source, usize::MAX).0
}

/// The only message of a sound source.
fn decode_one(source: &str) -> Decoded {
    let mut all = decode(source.as_bytes());
    assert_eq!(all.len(), 1, "{all:?}");
    let one = all.remove(0);
    assert_eq!(one.fault, None);
    one
}

fn buffered(events: &str) -> String {
    format!(r#"{{"socket_buffered_trace":{{"trace_id":"7","events":[{events}]}}}}"#)
}

fn read_event(body: &str) -> String {
    format!(r#"{{"timestamp":"1970-01-01T00:00:01Z","read":{{"data":{body}}}}}"#)
}

fn payload_of(body: &str) -> Vec<u8> {
    decode_one(&buffered(&read_event(body))).events.remove(0).payload
}

fn wrapper_descriptor() -> MessageDescriptor {
    DESCRIPTORS.get_message_by_name("envoy.data.tap.v3.TraceWrapper").unwrap()
}

/// What a prost message means in the model.
fn expected(wrapper: &tap::TraceWrapper) -> Decoded {
    let http = wrapper.trace.as_ref().map(http_tests::expected).unwrap_or_default();
    let mut decoded = Decoded { http, ..Decoded::default() };
    match &wrapper.trace {
        None => {}
        Some(tap::trace_wrapper::Trace::HttpBufferedTrace(trace)) => {
            decoded.kind = Some(TraceKind::HttpBuffered);
            decoded.connection = trace.downstream_connection.as_ref().map(connection);
            decoded.upstream_connection = trace.upstream_connection.as_ref().map(connection);
        }
        Some(tap::trace_wrapper::Trace::HttpStreamedTraceSegment(segment)) => {
            decoded.kind = Some(TraceKind::HttpStreamed);
            decoded.trace_id = segment.trace_id;
        }
        Some(tap::trace_wrapper::Trace::SocketBufferedTrace(trace)) => {
            decoded.kind = Some(TraceKind::SocketBuffered);
            decoded.trace_id = trace.trace_id;
            decoded.connection = trace.connection.as_ref().map(connection);
            decoded.read_truncated = trace.read_truncated;
            decoded.write_truncated = trace.write_truncated;
            add_events(&mut decoded, &trace.events);
        }
        Some(tap::trace_wrapper::Trace::SocketStreamedTraceSegment(segment)) => {
            decoded.kind = Some(TraceKind::SocketStreamed);
            decoded.trace_id = segment.trace_id;
            match &segment.message_piece {
                None => {}
                Some(MessagePiece::Connection(end)) => decoded.connection = Some(connection(end)),
                Some(MessagePiece::Event(event)) => add_events(&mut decoded, std::slice::from_ref(event)),
                Some(MessagePiece::Events(events)) => add_events(&mut decoded, &events.events),
            }
        }
    }
    decoded
}

fn add_events(decoded: &mut Decoded, events: &[tap::SocketEvent]) {
    for event in events {
        let mut is = Event { seq_num: event.seq_num, ..Event::default() };
        is.connection = event.connection.as_ref().map(connection);
        if let Some(time) = &event.timestamp {
            match nanos_from_timestamp(time.seconds, time.nanos.into()) {
                Ok(time) => is.time = Some(time),
                Err(error) => decoded.bad_time = decoded.bad_time.or(Some(error)),
            }
        }
        let body = match &event.event_selector {
            None => None,
            Some(EventSelector::Closed(_)) => {
                is.kind = EventKind::Closed;
                None
            }
            Some(EventSelector::Read(read)) => {
                is.kind = EventKind::Read;
                read.data.as_ref()
            }
            Some(EventSelector::Write(write)) => {
                is.kind = EventKind::Write;
                is.end_stream = write.end_stream;
                write.data.as_ref()
            }
        };
        if let Some(body) = body {
            is.truncated = body.truncated;
            match &body.body_type {
                None => {}
                Some(BodyType::AsBytes(bytes)) => is.payload = bytes.clone(),
                Some(BodyType::AsString(text)) => {
                    is.payload = text.clone().into_bytes();
                    is.as_string = true;
                }
            }
        }
        decoded.events.push(is);
    }
}

fn connection(connection: &tap::Connection) -> Connection {
    let address = |address: &Option<core::Address>| match address.as_ref()?.address.as_ref()? {
        address::Address::SocketAddress(socket) => Some(Address::Socket {
            address: socket.address.clone(),
            port: match socket.port_specifier {
                Some(socket_address::PortSpecifier::PortValue(port)) => Some(port),
                _ => None,
            },
        }),
        address::Address::Pipe(pipe) => Some(Address::Pipe(pipe.path.clone())),
        address::Address::EnvoyInternalAddress(internal) => Some(Address::Internal {
            listener: match &internal.address_name_specifier {
                Some(envoy_internal_address::AddressNameSpecifier::ServerListenerName(name)) => name.clone(),
                None => String::new(),
            },
            endpoint: internal.endpoint_id.clone(),
        }),
    };
    Connection { local: address(&connection.local_address), remote: address(&connection.remote_address) }
}

// Real traces.

#[test]
fn real_traces_mean_what_prost_reflect_reads() {
    let options = DeserializeOptions::new().deny_unknown_fields(false);
    for trace in TRACES {
        let mut rest = trace;
        let mut all = Vec::new();
        while !rest.trim_ascii().is_empty() {
            let mut json = serde_json::Deserializer::from_slice(rest);
            let message = DynamicMessage::deserialize_with_options(wrapper_descriptor(), &mut json, &options).unwrap();
            all.push(expected(&message.transcode_to().unwrap()));
            rest = &rest[json.into_iter::<serde::de::IgnoredAny>().byte_offset()..];
        }
        let (decoded, out) = decode_in_pieces(trace, usize::MAX);
        assert_eq!(decoded, all);
        assert_eq!(out.unknown.total(), 0);
    }
}

#[test]
fn real_traces_decode_alike_in_any_pieces() {
    for trace in TRACES {
        let whole = decode(trace);
        for piece in [1, 2, 3, 7, 100, 1021, 4096] {
            assert_eq!(decode_in_pieces(trace, piece).0, whole, "{piece} bytes at a time");
        }
    }
}

#[test]
fn the_overwritten_connection_segment_is_an_absent_event() {
    let first = &decode(TRACES[0])[0];
    assert_eq!(first.kind, Some(TraceKind::SocketStreamed));
    assert_eq!((first.trace_id, &first.connection), (118, &None));
    assert_eq!(first.events, [Event::default()]);
    let bare = decode_one(r#"{"socket_streamed_trace_segment":{"trace_id":"1","event":{}}}"#);
    assert_eq!(bare.events, [Event::default()]);
}

#[test]
fn an_upstream_trace_starts_without_a_local_address() {
    let first = &decode(TRACES[1])[0];
    let remote = Address::Socket { address: "127.0.0.1".into(), port: Some(21004) };
    assert_eq!(first.connection, Some(Connection { local: None, remote: Some(remote) }));
    assert_eq!(first.events, []);
}

// Forms.

#[test]
fn both_spellings_of_names_and_any_order_are_read() {
    let snake = r#"{"socket_buffered_trace":{"write_truncated":true,"read_truncated":true,"events":[{"seq_num":"5",
        "write":{"end_stream":true,"data":{"truncated":true,"as_bytes":"AAEC"}},"timestamp":"1970-01-01T00:00:01.5Z"}],
        "connection":{"remote_address":{"envoy_internal_address":{"endpoint_id":"e","server_listener_name":"l"}},
        "local_address":{"socket_address":{"port_value":80,"address":"::1"}}},"trace_id":"9"}}"#;
    let camel = r#"{"socketBufferedTrace":{"writeTruncated":true,"readTruncated":true,"events":[{"seqNum":5,
        "write":{"endStream":true,"data":{"truncated":true,"asBytes":"AAEC"}},"timestamp":"1970-01-01T00:00:01.500Z"}],
        "connection":{"remoteAddress":{"envoyInternalAddress":{"endpointId":"e","serverListenerName":"l"}},
        "localAddress":{"socketAddress":{"portValue":"80","address":"::1"}}},"traceId":9}}"#;
    let event = Event {
        time: Some(1_500_000_000),
        kind: EventKind::Write,
        payload: vec![0, 1, 2],
        truncated: true,
        end_stream: true,
        seq_num: 5,
        ..Event::default()
    };
    let message = Decoded {
        kind: Some(TraceKind::SocketBuffered),
        trace_id: 9,
        connection: Some(Connection {
            local: Some(Address::Socket { address: "::1".into(), port: Some(80) }),
            remote: Some(Address::Internal { listener: "l".into(), endpoint: "e".into() }),
        }),
        events: vec![event],
        read_truncated: true,
        write_truncated: true,
        ..Decoded::default()
    };
    assert_eq!(decode_one(snake), message);
    assert_eq!(decode_one(camel), message);
}

#[test]
fn base64_of_either_alphabet_with_or_without_padding_is_read() {
    for text in ["+/8=", "-_8=", "+/8", "-_8", "\\u002b\\/8="] {
        assert_eq!(payload_of(&format!(r#"{{"as_bytes":"{text}"}}"#)), [0xfb, 0xff], "{text}");
    }
    assert_eq!(payload_of(r#"{"as_bytes":""}"#), b"");
    assert_eq!(payload_of(r#"{"as_bytes":null}"#), b"");
}

#[test]
fn strings_are_unescaped() {
    assert_eq!(payload_of(r#"{"as_string":"plain"}"#), b"plain");
    assert_eq!(payload_of(r#"{"as_string":"a\r\n\u0000\ud83d\ude00\"\\"}"#), "a\r\n\0😀\"\\".as_bytes());
}

#[test]
fn numbers_may_be_strings_fractions_or_exponents() {
    for (text, number) in [("7", 7), ("\"7\"", 7), ("7.0", 7), ("\"7e2\"", 700), ("null", 0), ("-0", 0)] {
        let source = format!(r#"{{"socket_streamed_trace_segment":{{"trace_id":{text}}}}}"#);
        assert_eq!(decode_one(&source).trace_id, number, "{text}");
    }
    let largest = r#"{"socket_streamed_trace_segment":{"trace_id":"18446744073709551615"}}"#;
    assert_eq!(decode_one(largest).trace_id, u64::MAX);
    for text in ["-1", "1.5", "\"\"", "\"x\"", "1e30", "\"18446744073709551616\"", "\"nan\"", "\"inf\"", "true", "[]"] {
        let source = format!(r#"{{"socket_streamed_trace_segment":{{"trace_id":{text}}}}}"#);
        assert!(decode(source.as_bytes())[0].fault.is_some(), "{text}");
    }
}

#[test]
fn a_port_beyond_32_bits_is_the_largest_number() {
    let port = |text: &str| {
        let source = format!(
            r#"{{"socket_streamed_trace_segment":{{"connection":{{"local_address":{{"socket_address":{{{text}}}}}}}}}}}"#
        );
        match decode_one(&source).connection.unwrap().local.unwrap() {
            Address::Socket { port, .. } => port,
            other => panic!("{other}"),
        }
    };
    assert_eq!(port(r#""port_value":65536"#), Some(65_536));
    assert_eq!(port(r#""port_value":4294967296"#), Some(u32::MAX));
    assert_eq!(port(r#""port_value":"99999999999999999999""#), Some(u32::MAX));
    assert_eq!(port(r#""port_value":1e40"#), Some(u32::MAX));
    assert_eq!(port(r#""port_value":0"#), Some(0));
    assert_eq!(port(r#""named_port":"http""#), None);
    assert_eq!(port(r#""port_value":null"#), None);
}

#[test]
fn null_is_the_default_and_the_last_of_equal_keys_wins() {
    let nulls = r#"{"http_buffered_trace":null,"socket_streamed_trace_segment":{"trace_id":null,"connection":null,
        "event":{"timestamp":null,"read":{"data":{"as_bytes":"AAEC","as_string":null,"truncated":null}},"write":null,
        "closed":null,"seq_num":null,"connection":null},"events":null}}"#;
    let message = decode_one(nulls);
    assert_eq!((message.kind, message.trace_id, message.connection), (Some(TraceKind::SocketStreamed), 0, None));
    let event = Event { kind: EventKind::Read, payload: vec![0, 1, 2], ..Event::default() };
    assert_eq!(message.events, [event]);

    let twice = r#"{"socket_buffered_trace":{"trace_id":"1","events":[{},{}]},"socket_buffered_trace":{"trace_id":"2",
        "trace_id":"3","events":[{}],"events":[{"closed":{}}]}}"#;
    let message = decode_one(twice);
    assert_eq!(message.trace_id, 3);
    assert_eq!(message.events, [Event { kind: EventKind::Closed, ..Event::default() }]);
}

#[test]
fn the_last_member_of_a_oneof_counts() {
    let read = r#""read":{"data":{"as_bytes":"AAEC"}}"#;
    let event = |fields: &str| decode_one(&buffered(&format!("{{{fields}}}"))).events.remove(0);
    let write = Event { kind: EventKind::Write, ..Event::default() };
    assert_eq!(event(&format!(r#"{read},"write":{{}}"#)), write);
    assert_eq!(event(&format!(r#""write":{{"end_stream":true}},{read}"#)).payload, [0, 1, 2]);
    assert_eq!(event(&format!(r#"{read},"write":null"#)).payload, [0, 1, 2]);
    let body = |fields: &str| event(&format!(r#""read":{{"data":{{{fields}}}}}"#));
    let both = body(r#""as_bytes":"AAEC","as_string":"x""#);
    assert_eq!((both.payload, both.as_string), (b"x".to_vec(), true));
    let segment = |fields: &str| decode_one(&format!(r#"{{"socketStreamedTraceSegment":{{{fields}}}}}"#));
    let time = r#""timestamp":"yesterday""#;
    let last = segment(&format!(r#""event":{{{time}}},"connection":{{}}"#));
    assert_eq!((last.events, last.connection, last.bad_time), (vec![], Some(Connection::default()), None));
    let last = segment(r#""connection":{},"events":{"events":[{"closed":{}}]}"#);
    assert_eq!((last.events.len(), last.connection), (1, None));
    let http =
        r#"{"http_streamed_trace_segment":{"request_headers":{"headers":[{"key":"a"}]},"response_body_chunk":{}}}"#;
    let parts: Vec<_> = decode_one(http).http.iter().map(|piece| (piece.side, piece.part)).collect();
    assert_eq!(parts, [(HttpSide::Response, HttpPart::Body)]);
}

#[test]
fn the_last_of_equal_keys_wins_alone_in_either_spelling() {
    let source = r#"{"http_buffered_trace":{
        "request":{"headers":[{"key":"gone"}],"body":{"as_bytes":"AAEC"}},
        "request":{"trailers":[{"key":"t"}],"headers":[{"key":"a"},{"key":"b"}],"headersReceivedTime":"1970-01-01T00:00:09Z",
            "headers":[{"key":"c"}],"headers_received_time":"1970-01-01T00:00:01Z","body":{"truncated":true},"body":{}},
        "downstream_connection":{"local_address":{"pipe":{"path":"x"}}},"downstreamConnection":{}}}"#;
    let message = decode_one(source);
    assert_eq!(message.connection, Some(Connection::default()));
    let parts: Vec<_> = message.http.iter().map(|piece| (piece.part, piece.headers.len(), piece.truncated)).collect();
    assert_eq!(parts, [(HttpPart::Headers, 1, false), (HttpPart::Body, 0, false), (HttpPart::Trailers, 1, false)]);
    assert_eq!((message.http[0].headers[0].0.as_slice(), message.http[0].time), (&b"c"[..], Some(1_000_000_000)));
    let time = r#""timestamp":"yesterday","timestamp":"1970-01-01T00:00:01Z","seq_num":1,"seqNum":2"#;
    let message = decode_one(&buffered(&format!("{{{time}}}")));
    assert_eq!((message.events[0].time, message.events[0].seq_num, message.bad_time), (Some(1_000_000_000), 2, None));
}

/// `jq -S` sorts them by name, for example.
#[test]
fn the_keys_of_an_exchange_may_stand_in_any_order() {
    let part =
        |key: &str| format!(r#"{{"body":{{"as_bytes":"AAEC"}},"headers":[{{"key":"{key}"}}],"trailers":[{{}}]}}"#);
    let source = format!(r#"{{"http_buffered_trace":{{"response":{},"request":{}}}}}"#, part("a"), part("b"));
    let http = decode_one(&source).http;
    let parts: Vec<_> = http.iter().map(|piece| (piece.side, piece.part)).collect();
    let sides = [HttpSide::Request, HttpSide::Response];
    let kinds = [HttpPart::Headers, HttpPart::Body, HttpPart::Trailers];
    let all: Vec<_> = sides.into_iter().flat_map(|side| kinds.map(|kind| (side, kind))).collect();
    assert_eq!(parts, all);
    assert_eq!((http[0].headers[0].0.as_slice(), http[3].headers[0].0.as_slice()), (&b"b"[..], &b"a"[..]));
}

#[test]
fn several_events_of_a_segment_are_read() {
    let source = r#"{"socketStreamedTraceSegment":{"events":{"events":[{"read":{}},{"connection":{"remote_address":
        {"pipe":{"path":"@p","mode":0}}},"write":{}},{"closed":{}}]}}}"#;
    let events = decode_one(source).events;
    let kinds: Vec<_> = events.iter().map(|event| event.kind).collect();
    assert_eq!(kinds, [EventKind::Read, EventKind::Write, EventKind::Closed]);
    let connection = Connection { local: None, remote: Some(Address::Pipe("@p".into())) };
    assert_eq!(events[1].connection, Some(connection));
}

#[test]
fn both_spellings_of_http_traces_are_read() {
    for (buffered, received, streamed, headers) in [
        ("http_buffered_trace", "headers_received_time", "http_streamed_trace_segment", "request_headers"),
        ("httpBufferedTrace", "headersReceivedTime", "httpStreamedTraceSegment", "requestHeaders"),
    ] {
        let fields = r#"[{"key":"a","value":null,"raw_value":"AP8="},{"key":"b","rawValue":"AP8=","value":"c"},{}]"#;
        let body = r#"{"as_bytes":"AAEC","truncated":true}"#;
        let source = format!(
            r#"{{"{buffered}":{{"request":{{"{received}":"1970-01-01T00:00:01Z","body":{body},"trailers":{fields}}},
            "response":null}}}} {{"{streamed}":{{"trace_id":"1","{headers}":{{"headers":{fields}}}}}}}
            {{"{streamed}":{{"{headers}":{{}}}}}}"#
        );
        let (decoded, out) = decode_in_pieces(source.as_bytes(), usize::MAX);
        assert_eq!(out.unknown.total(), 0);
        let kinds: Vec<_> = decoded.iter().map(|decoded| (decoded.kind.unwrap(), decoded.trace_id)).collect();
        let all = [(TraceKind::HttpBuffered, 0), (TraceKind::HttpStreamed, 1), (TraceKind::HttpStreamed, 0)];
        assert_eq!(kinds, all);
        let parts: Vec<_> = decoded[0].http.iter().map(|piece| (piece.part, piece.time, piece.payload.len())).collect();
        let (part, time) = (HttpPart::Headers, Some(1_000_000_000));
        assert_eq!(parts, [(part, time, 0), (HttpPart::Body, None, 3), (HttpPart::Trailers, None, 0)]);
        let pair = |key: &[u8], value: &[u8]| (key.to_vec(), value.to_vec());
        assert_eq!(decoded[1].http[0].headers, [pair(b"a", b"\0\xff"), pair(b"b", b"c"), pair(b"", b"")]);
        assert_eq!(decoded[1].http[0].headers, decoded[0].http[2].headers);
        assert_eq!((decoded[2].http.len(), decoded[2].http[0].headers.len()), (1, 0));
    }
}

#[test]
fn an_object_without_a_trace_is_a_message_of_no_kind() {
    assert_eq!(decode_one("{}"), Decoded::default());
    assert_eq!(decode_one(r#"{"configured_sample_rate":{"numerator":1,"denominator":"HUNDRED"}}"#), Decoded::default());
}

#[test]
fn unknown_fields_are_counted_once_however_the_source_arrives() {
    let body = r#"{"as_bytes":"AAEC","codec":{"a":[1,{"b":null}]}}"#;
    let event = format!(r#"{{"span":"x","read":{{"data":{body},"more":1}},"closed":{{"why":""}},"span":2}}"#);
    let source = format!(r#"{{"later":[],"socket_buffered_trace":{{"events":[{event}],"note":true}}}}"#);
    for piece in [1, 2, 5, 50, usize::MAX] {
        let (decoded, out) = decode_in_pieces(source.as_bytes(), piece);
        assert_eq!(decoded.len(), 1);
        let mut counts: Vec<_> =
            out.unknown.fields().iter().map(|it| (it.message, it.field.clone(), it.count)).collect();
        counts.sort_by_key(|(message, ..)| *message);
        let name = |name: &str| FieldId::Name(name.to_owned());
        let all = [
            ("Body", name("codec"), 1),
            ("Closed", name("why"), 1),
            ("Read", name("more"), 1),
            ("SocketBufferedTrace", name("note"), 1),
            ("SocketEvent", name("span"), 2),
            ("TraceWrapper", name("later"), 1),
        ];
        assert_eq!(counts, all, "{piece} bytes at a time");
    }
}

#[test]
fn an_unreadable_time_is_no_damage() {
    let times = |text: &str| {
        let message = decode_one(&buffered(&format!(r#"{{"timestamp":"{text}","closed":{{}}}}"#)));
        (message.events[0].time, message.bad_time)
    };
    assert_eq!(times("2026-11-22T19:15:48.776883Z"), (Some(1_795_374_948_776_883_000), None));
    assert_eq!(times("2026-11-22T20:15:48.776883+01:00"), (Some(1_795_374_948_776_883_000), None));
    assert_eq!(times("yesterday"), (None, Some(TimeError::Unreadable)));
    assert_eq!(times("2026-02-30T00:00:00Z"), (None, Some(TimeError::Unreadable)));
    assert_eq!(times("1969-12-31T23:59:59Z"), (None, Some(TimeError::OutOfRange(-1))));
}

#[test]
fn a_byte_order_mark_is_skipped_at_the_start_only() {
    let source = "\u{feff}{\"socket_streamed_trace_segment\":{\"trace_id\":\"1\"}}";
    for piece in [1, 2, 3, 4, usize::MAX] {
        let (decoded, _) = decode_in_pieces(source.as_bytes(), piece);
        assert_eq!(decoded.len(), 1);
        assert_eq!((decoded[0].trace_id, &decoded[0].fault), (1, &None));
    }
    assert!(decode("{}\u{feff}{}".as_bytes())[1].fault.is_some());
}

#[test]
fn white_space_holds_nothing() {
    for source in ["", " ", "\r\n\t ", "\u{feff}", "\u{feff}\n"] {
        for piece in [1, usize::MAX] {
            assert_eq!(decode_in_pieces(source.as_bytes(), piece).0, [], "{source:?}");
        }
    }
    let mut decoder = JsonDecoder::default();
    let step = decoder.step(b" \n ", false, &mut Message::default());
    assert_eq!(step, Step::NeedMore { skip: 3, wanted: 1 });
}

#[test]
fn nesting_without_end_is_damage() {
    let deep = "[".repeat(1_000_000);
    for source in [
        deep.clone(),
        "{".repeat(1_000_000),
        r#"{"a":"#.repeat(200_000),
        format!(r#"{{"x":{deep}"#),
        format!(r#"{{"socket_buffered_trace":{deep}"#),
        buffered(&deep),
    ] {
        let decoded = decode(source.as_bytes());
        assert!(decoded.iter().all(|it| it.fault.is_some()));
        assert_eq!(decode_in_pieces(source.as_bytes(), 65_536).0.len(), decoded.len());
    }
}

#[test]
fn what_follows_a_message_does_not_depend_on_the_pieces_it_arrives_in() {
    let message = r#"{"socket_streamed_trace_segment":{"trace_id":"1"}}"#;
    for after in [
        "\n{\n \"socket_stream},\n ace\": {\n \"time\": \"1\0\0\"\"\"\0Z\"\n }\n}\n",
        "\nwords\0\"more\": 1\n",
        "\0\"a\": 1}",
    ] {
        let source = format!("{message}{after}");
        let whole = decode(source.as_bytes());
        for piece in [1, 2, 3, 20] {
            assert_eq!(decode_in_pieces(source.as_bytes(), piece).0, whole, "{piece} bytes at a time: {after:?}");
        }
    }
}

// Damage.

/// `source` has damage at `at`; messages with the trace ids `after` follow it.
fn assert_damage(source: &str, at: usize, detail: &str, after: &[u64]) -> Decoded {
    let mut all = decode(source.as_bytes());
    for piece in [1, 3, 20, 300] {
        assert_eq!(decode_in_pieces(source.as_bytes(), piece).0, all, "{piece} bytes at a time");
    }
    let damaged = all.remove(0);
    assert_eq!(damaged.fault, Some((at, Code::Undecodable, detail.to_owned())), "{source}");
    assert!(!damaged.cut);
    assert!(all.iter().all(|message| message.fault.is_none()), "{all:?}");
    assert_eq!(all.iter().map(|message| message.trace_id).collect::<Vec<_>>(), after, "{source}");
    damaged
}

const NEXT: &str = "{\n \"socket_streamed_trace_segment\": {\n  \"trace_id\": \"8\"\n }\n}\n";

#[test]
fn a_wrong_type_damages_one_message_and_keeps_the_events_before() {
    let good = read_event(r#"{"as_bytes":"AAEC"}"#);
    let source = buffered(&format!(r#"{good},{{"read":5}},{good}"#)) + NEXT + NEXT;
    let at = source.find("5}").unwrap();
    let detail = "invalid type: integer `5`, expected an object (Read)";
    let damaged = assert_damage(&source, at, detail, &[8, 8]);
    assert_eq!((damaged.kind, damaged.trace_id), (Some(TraceKind::SocketBuffered), 7));
    assert_eq!(damaged.events.len(), 1);
    assert_eq!(damaged.events[0].payload, [0, 1, 2]);
}

#[test]
fn bad_base64_is_shown_at_the_byte() {
    for (text, bad) in [("AA*C", 2), ("AAECA", 5), ("AA=C", 2), ("A===", 1), ("AA C", 2)] {
        let source = buffered(&read_event(&format!(r#"{{"as_bytes":"{text}"}}"#))) + NEXT;
        let at = source.find(text).unwrap() + bad;
        assert_damage(&source, at, "invalid base64", &[8]);
    }
}

#[test]
fn a_syntax_error_is_shown_at_the_byte() {
    let source = format!("{{\n \"socket_buffered_trace\": {{\n  \"trace_id\" \"7\"\n }}\n}}\n{NEXT}");
    assert_damage(&source, source.find("\"7\"").unwrap(), "expected `:`", &[8]);
    assert_damage(&format!("\n}}\n{NEXT}"), 1, "expected an object, found `}`", &[8]);
}

#[test]
fn an_object_that_lost_its_end_does_not_take_the_next_one_along() {
    let lost_brace = format!("{{\n \"socket_buffered_trace\": {{\n  \"trace_id\": \"7\"\n }}\n{NEXT}{NEXT}");
    assert_damage(&lost_brace, lost_brace.find(NEXT).unwrap(), "expected `,` or `}`", &[8, 8]);

    let lost_quote = format!("{{\n \"socket_buffered_trace\": {{\n  \"trace_id\": \"7\n }}\n}}\n{NEXT}{NEXT}");
    let detail = "control character (\\u0000-\\u001F) found while parsing a string";
    assert_damage(&lost_quote, lost_quote.find("\"7\n").unwrap() + 2, detail, &[8, 8]);

    let in_body = format!("{}\n{NEXT}{NEXT}", buffered(&read_event("{\"as_bytes\":\"AAEC\n}")));
    assert_damage(&in_body, in_body.find("AAEC\n").unwrap() + 4, "invalid base64", &[8, 8]);
}

#[test]
fn damage_of_compact_objects_ends_with_the_object() {
    let source = r#"{"socket_streamed_trace_segment":{"trace_id":[1,{"a":"}\"{"}]}} {"socketStreamedTraceSegment":{"trace_id":2}}"#;
    let at = source.find('[').unwrap();
    assert_damage(source, at, "invalid type: sequence, expected a whole number that is not negative", &[2]);
}

#[test]
fn garbage_between_objects_is_one_damage() {
    for (garbage, shown) in [("}", "`}`"), ("\"", "`\"`"), (":{ text\n", "`:`")] {
        let detail = format!("expected an object, found {shown}");
        assert_damage(&format!("{garbage}{NEXT}"), 0, &detail, &[8]);
        assert_damage(&format!("{garbage}\n {NEXT}"), 0, &detail, &[8]);
    }
    let tail_of_another = format!("\"AA==\"\n    }},\n    \"connection\": {{\n    }}\n   }}\n }}\n}}\n{NEXT}");
    assert_damage(&tail_of_another, 0, "expected an object, found `\"`", &[8]);
}

/// The source as messages and text, whatever pieces it arrives in.
fn decode_text(source: &str) -> Vec<Decoded> {
    let all = decode(source.as_bytes());
    for piece in [1, 3, 20, 90, 300] {
        assert_eq!(decode_in_pieces(source.as_bytes(), piece).0, all, "{piece} bytes at a time: {source}");
    }
    all
}

#[test]
fn text_around_messages_is_skipped() {
    let long = "x { y } z\n".repeat(100);
    let members = format!("{{\"a\": {{\"b\": [\"}}\", {}1]}}}}\n", "{\"c\": \"\\\"\"},".repeat(40));
    for text in [
        "$ cat trace.json\n",
        "$ ",
        "  0     0    0     0    0     0      0      0 --:--:-- --:--:-- --:--:--     0\r  1 ",
        "\u{1b}[32mroot@pod\u{1b}[0m:/# ",
        "```json\n",
        "# a comment\n",
        "some { text\n",
        "{ not json }\n",
        "{not json}\n",
        "{\n  int x;\n}\n",
        "{{ template }}\n",
        "{\"level\":\"info\",\"msg\":\"{\\\"socket_buffered_trace\\\": {}}\"}\n",
        "{\n \"level\": \"info\",\n \"n\": [1, {\"socket\": {}}]\n}\n",
        "{\"level\":\"info\",\"msg\":\"cut",
        "{\"level\": [\n",
        "[",
        ",",
        "]\n",
        &long,
        &members,
    ] {
        // What is cut ends where the next object begins a line.
        let text = if text.ends_with(['t', '[']) && text.len() > 1 { format!("{text}\n") } else { text.to_owned() };
        for source in [format!("{text}{NEXT}"), format!("{NEXT}{text}{NEXT}"), format!("{NEXT}\n{text}{NEXT}{text}")] {
            let all = decode_text(&source);
            let (skipped, messages): (Vec<_>, Vec<_>) = all.into_iter().partition(|it| it.fault.is_some());
            let code = |it: &Decoded| it.fault.as_ref().map(|fault| fault.1);
            assert!(skipped.iter().all(|it| code(it) == Some(Code::TextAround)), "{source}: {skipped:?}");
            assert_eq!(messages.len(), source.matches(NEXT).count(), "{source}");
            let bytes =
                |it: &Decoded| it.fault.as_ref().unwrap().2.split(' ').next().unwrap().parse::<usize>().unwrap();
            let all: usize = skipped.iter().map(bytes).sum();
            assert!(all >= text.trim().len() * source.matches(text.trim()).count(), "{source}: {skipped:?}");
        }
    }
    assert_eq!(decode_text("no trace at all").len(), 1);
}

#[test]
fn a_prompt_after_the_last_brace_is_text() {
    let source = format!("{}istio-proxy@app-0:/$ ", NEXT.trim_end());
    let all = decode_text(&source);
    assert_eq!((all[0].trace_id, &all[0].fault, all.len()), (8, &None, 2));
    assert_eq!(all[1].fault, Some((NEXT.len() - 1, Code::TextAround, "21 bytes".to_owned())));
}

#[test]
fn a_quotation_of_a_trace_is_no_message() {
    for (before, after) in [("let x = r#\"", "\"#;"), ("f('", "')"), ("{\"a\": ", "}"), ("`", "`")] {
        let all = decode_text(&format!("{NEXT}text {before}{}{after}\n", NEXT.trim_end()));
        assert_eq!(all.len(), 2, "{all:?}");
    }
}

#[test]
fn a_damaged_name_of_a_trace_is_no_text() {
    for name in ["socket_streamed_trace_segmen", "socket_str\u{e9}amed_trace_segment", "xtp_streamed_trace_segment"] {
        let source = format!("{{\n \"{name}\": {{\n  \"trace_id\": \"7\"\n }}\n}}\n{NEXT}");
        assert_damage(&source, 0, "an object with none of a tap trace's fields", &[8]);
    }
    let unquoted = format!("{{\n socket_streamed_trace_segment\": {{\n  \"trace_id\": \"7\"\n }}\n}}\n{NEXT}");
    assert_damage(&unquoted, 3, "key must be a string", &[8]);
}

#[test]
fn much_damage_takes_linear_time() {
    for unit in
        ["{1}", "{\"a\"\n{", "}{", "x\n{", "{\"socket_buffered_trace\":5}", "{\"socket_buffered_trace\":{\"x\":"]
    {
        let source = unit.repeat(300_000 / unit.len());
        decode(source.as_bytes());
        decode_in_pieces(source.as_bytes(), 65_536);
    }
}

#[test]
fn details_stay_short() {
    let source = buffered(&format!(r#"{{"seq_num":"{}"}}"#, "é".repeat(10_000)));
    let (_, _, detail) = decode(source.as_bytes()).remove(0).fault.unwrap();
    assert!(detail.chars().count() < 200, "{detail}");
}

// Cuts.

/// What `source` decodes to if it is cut at `len`: the messages before the cut, and the cut one.
fn decode_cut(source: &[u8], len: usize) -> (Vec<Decoded>, Option<Decoded>) {
    let mut all = decode(&source[..len]);
    assert_eq!(decode_in_pieces(&source[..len], 1500).0, all);
    let cut = all.pop_if(|last| last.fault.is_some());
    assert!(all.iter().all(|message| message.fault.is_none()));
    if let Some(cut) = &cut {
        assert!(cut.cut);
        assert_eq!(cut.fault.as_ref().map(|(at, code, _)| (*at, *code)), Some((len, Code::CutOff)));
    }
    (all, cut)
}

/// Checks that `left` is the start of `all`, and that at most its last event is cut.
fn assert_left_over(left: &[Event], all: &[Event], complete: usize) {
    assert_eq!(&left[..complete], &all[..complete]);
    assert!(left.len() <= complete + 1);
    if let Some(partial) = left.get(complete) {
        let whole = &all[complete];
        assert!(partial.truncated && !partial.payload.is_empty() && whole.payload.starts_with(&partial.payload));
        assert_eq!((partial.time, partial.kind), (whole.time, whole.kind));
        assert!(partial.time.is_some() && matches!(partial.kind, EventKind::Read | EventKind::Write));
    }
}

#[test]
fn a_cut_anywhere_keeps_the_events_before_it() {
    let bodies = [
        r#"{"as_bytes":"AAECAwQFBgc=","truncated":false}"#,
        r#"{ "truncated" : true, "as_string": "a\r\u00e9é😀\ud83d\ude00\"" }"#,
        r#"{"as_bytes":"\/\/8","codec":[{"a":"}"}]}"#,
    ];
    let mut source = r#"{"socket_buffered_trace":{"trace_id":"7","events":["#.to_owned();
    let mut ends = Vec::new();
    for body in bodies {
        source += &read_event(body);
        ends.push(source.len());
        source.push_str(", ");
        source += r#"{"timestamp":"1970-01-01T00:00:01Z","closed":{},"connection":{"local_address":{}}}"#;
        ends.push(source.len());
        source.push_str(" , ");
    }
    source += "{}]}}";
    let whole = decode_one(&source);
    let source = source.as_bytes();
    let mut partial_payloads = std::collections::BTreeSet::new();
    for len in 1..source.len() {
        let (before, cut) = decode_cut(source, len);
        assert_eq!(before, []);
        let left = cut.unwrap().events;
        let complete = ends.iter().filter(|end| **end <= len).count();
        if complete == ends.len() {
            assert!(left.len() >= complete && left[..complete] == whole.events[..complete]);
            continue;
        }
        assert_left_over(&left, &whole.events, complete);
        partial_payloads.extend(left.get(complete).map(|event| event.payload.clone()));
    }
    let text = "a\réé😀😀\"";
    let starts = text.char_indices().map(|(at, char)| text.as_bytes()[..at + char.len_utf8()].to_vec());
    let bytes = [vec![0, 1, 2], vec![0, 1, 2, 3, 4, 5], vec![0, 1, 2, 3, 4, 5, 6, 7], vec![255, 255]];
    assert_eq!(partial_payloads, starts.chain(bytes).collect());
}

#[test]
fn a_cut_event_needs_its_time_and_kind() {
    let late_time = r#"{"socket_buffered_trace":{"events":[{"read":{"data":{"as_bytes":"AAEC"#;
    let (_, cut) = decode_cut(late_time.as_bytes(), late_time.len());
    assert_eq!(cut.unwrap().events, []);
    let other_string =
        r#"{"socket_buffered_trace":{"events":[{"timestamp":"1970-01-01T00:00:01Z","read":{"as_bytes":"AAEC"#;
    let (_, cut) = decode_cut(other_string.as_bytes(), other_string.len());
    assert_eq!(cut.unwrap().events, []);
}

#[test]
fn a_cut_before_the_list_of_header_fields_leaves_no_part() {
    let source = r#"{"http_streamed_trace_segment":{"trace_id":"1","request_headers":{"headers":[{"key":"a"}"#;
    for (len, parts) in [(source.find("\"headers\"").unwrap(), 0), (source.len(), 1)] {
        assert_eq!(decode_cut(source.as_bytes(), len).1.unwrap().http.len(), parts);
    }
}

#[test]
fn an_http_body_that_is_cut_is_kept_whatever_stands_before_it() {
    let response = r#""response":{"body":{"as_bytes":"AAEC"},"headers":[{"key":"a"}]}"#;
    let request = r#""request":{"headers_received_time":"1970-01-01T00:00:01Z","body":{"as_bytes":"AAECAwQF"#;
    let source = format!(r#"{{"http_buffered_trace":{{{response},{request}"#);
    let http = decode_cut(source.as_bytes(), source.len()).1.unwrap().http;
    let parts: Vec<_> =
        http.iter().map(|piece| (piece.side, piece.part, piece.payload.len(), piece.truncated)).collect();
    let (request, response) = (HttpSide::Request, HttpSide::Response);
    assert_eq!(
        parts,
        [
            (request, HttpPart::Headers, 0, false),
            (request, HttpPart::Body, 6, true),
            (response, HttpPart::Headers, 0, false),
            (response, HttpPart::Body, 3, false)
        ]
    );
}

#[test]
fn real_traces_can_be_cut_anywhere() {
    for trace in TRACES {
        let whole = decode(trace);
        for len in 0..trace.len() {
            let (before, cut) = decode_cut(trace, len);
            assert_eq!(before, whole[..before.len()]);
            if let Some(cut) = cut {
                let from = &whole[before.len()];
                assert!(cut.kind.is_none() || cut.kind == from.kind);
                let complete = cut.events.iter().zip(&from.events).take_while(|(left, whole)| left == whole).count();
                assert_left_over(&cut.events, &from.events, complete);
            }
        }
    }
}

#[test]
fn the_fast_path_reads_what_envoy_writes() {
    let mut reads = 0;
    for trace in [
        include_bytes!("../../../testdata/envoy/1.40.0/h1up_str_JSON_BODY_AS_BYTES_103.json").as_slice(),
        include_bytes!("../../../testdata/envoy/1.40.0/trunc_str_JSON_BODY_AS_BYTES_98.json"),
        include_bytes!("../../../testdata/envoy/1.36.2/h1_str_JSON_BODY_AS_BYTES_97.json"),
    ] {
        let mut at = 0;
        for _ in 0..assert_fast_and_general_agree(trace, &[usize::MAX]) {
            let (mut decoder, mut out) = (JsonDecoder::default(), Message::default());
            let Step::Message { start, end } = decoder.step(&trace[at..], true, &mut out) else { panic!("damaged") };
            let has_payload = out.events.iter().any(|event| matches!(event.kind, EventKind::Read | EventKind::Write));
            let text = &trace[at + start..];
            at += end;
            let mut out = Message::default();
            match fast::segment(text, &mut out, &mut Times::default()) {
                FastJson::Segment(len) => {
                    assert_eq!(len, end - start);
                    reads += 1;
                }
                _ => assert!(!has_payload, "{}", text[..end - start].escape_ascii()),
            }
        }
    }
    assert!(reads > 10, "{reads}");
}

#[test]
fn the_fast_path_leaves_damage_to_the_general_decoder() {
    let before = "{\n \"socket_streamed_trace_segment\": {\n  \"trace_id\": \"1\",\n  \"event\": {\n   \"timestamp\": \
        \"2026-11-22T19:15:50.620482Z\",\n   \"read\": {\n    \"data\": {\n     \"as_bytes\": \"";
    let after = "\",\n     \"truncated\": false\n    }\n   },\n   \"seq_num\": \"1\"\n  }\n }\n}\n".repeat(2);
    for payload in
        ["AA\\q", "AA\\/A", "AA\\\"AA", "A?AA", "AA", "AA==", "AAA=A", "\\u0041AAA", "AA\nAA", "AA\u{7f}", "A\u{e9}A"]
    {
        let source = format!("{before}{payload}{after}");
        for cut in 1..source.len() {
            assert_fast_and_general_agree(source.as_bytes(), &[cut, usize::MAX]);
            assert_fast_and_general_agree(&source.as_bytes()[..cut], &[usize::MAX]);
        }
    }
}

#[test]
fn the_fast_path_counts_the_members_of_a_newer_envoy() {
    let object = |more: &str| {
        format!(
            "{{\n \"socket_streamed_trace_segment\": {{\n  \"trace_id\": \"1\",\n  \"event\": {{\n   \"timestamp\": \
             \"2026-11-22T19:15:50.620482Z\",\n   \"read\": {{\n    \"data\": {{\n     \"as_bytes\": \"YWJj\",\n     \
             \"truncated\": false\n    }}\n   }},\n   \"seq_num\": \"1\"{more}\n  }}\n }}\n}}"
        )
    };
    let more = ",\n   \"later\": 1,\n   \"is_it\": true,\n   \"a b\": \"c d\"";
    let is_fast = |text: &str, total| {
        let mut out = Message::default();
        let outcome = fast::segment(text.as_bytes(), &mut out, &mut Times::default());
        matches!(outcome, FastJson::Segment(len) if len == text.len()) && out.unknown.total() == total
    };
    assert!(is_fast(&object(more), 3));
    // The fast path leaves known fields and other kinds of values to the general decoder.
    let others = ["\"seq_num\": \"2\"", "\"seqNum\": 2", "\"a\": 1.5", "\"a\": \"\\n\"", "\"a\\n\": 1", "\"a\": []"];
    for other in others.map(|other| format!(",\n   {other}")) {
        assert!(!is_fast(&object(&other), 1), "{other}");
        let text = [object(more), object(&other), object(more)].join("\n");
        for cut in 1..text.len() {
            assert_fast_and_general_agree(text.as_bytes(), &[cut, usize::MAX]);
        }
    }
    let text = object(more);
    for at in 0..more.len() {
        for to in *b"\0\n\"\\ :a1.{}[],-" {
            let mut changed = [text.as_str(), &text].join("\n").into_bytes();
            let begin = text.find(",\n   \"later").unwrap();
            changed[begin + at] = to;
            assert_fast_and_general_agree(&changed, &[usize::MAX]);
        }
    }
}

#[test]
fn a_fraction_has_up_to_nine_digits() {
    for len in 0..=9 {
        let digits = &"123456789"[..len];
        let text = format!("1970-01-01T00:01:02{}{digits}Z", if len > 0 { "." } else { "" });
        let nanos = format!("{digits:0<9}").parse().unwrap();
        for after in ["", "\"", "\",\n   \"read\": {"] {
            let read =
                Times::default().read_utc(format!("{text}{after}").as_bytes()).map(|(s, n, rest)| (s, n, rest.len()));
            assert_eq!(read, Some((62, nanos, after.len())), "{text}{after}");
        }
    }
    for text in
        ["1970-01-01T00:01:02.Z", "1970-01-01T00:01:02.1234567890Z", "1970-01-01T00:01:02.12", "1970-01-01T00:01:02"]
    {
        assert_eq!(Times::default().read_utc(text.as_bytes()), None, "{text}");
    }
}

// Properties.

/// Segments as Envoy writes them. Nearly all have the one shape that the fast path knows.
fn any_envoy_source() -> BoxedStrategy<Vec<u8>> {
    let body = (vec(any::<u8>(), 0..120), prop::bool::weighted(0.1))
        .prop_map(|(bytes, truncated)| Some(tap::Body { body_type: Some(BodyType::AsBytes(bytes)), truncated }));
    let selector = prop_oneof![
        body.clone().prop_map(|data| EventSelector::Read(tap::socket_event::Read { data })),
        (body, prop::bool::weighted(0.1))
            .prop_map(|(data, end_stream)| EventSelector::Write(tap::socket_event::Write { data, end_stream })),
    ];
    let number = || prop_oneof![1..200_000_u64, any::<u64>()];
    let event = (any_timestamp(), selector, number()).prop_map(|(timestamp, selector, seq_num)| tap::SocketEvent {
        timestamp: Some(timestamp),
        event_selector: Some(selector),
        connection: None,
        seq_num,
    });
    let segment = (number(), prop_oneof![9 => event, 1 => any_event()]).prop_map(|(trace_id, event)| {
        let message_piece = Some(MessagePiece::Event(event));
        let segment = tap::SocketStreamedTraceSegment { trace_id, message_piece };
        let trace = Some(tap::trace_wrapper::Trace::SocketStreamedTraceSegment(segment));
        let mut source = Vec::new();
        TraceFormat::JsonBodyAsBytes.encode(&tap::TraceWrapper { trace, configured_sample_rate: None }, &mut source);
        source
    });
    vec(segment, 1..5).prop_map(|segments| segments.concat()).boxed()
}

fn any_timestamp() -> BoxedStrategy<Timestamp> {
    // RFC 3339 has the years 1 to 9999; the times of a capture end in 2554.
    let seconds = prop_oneof![1_700_000_000..1_800_000_000_i64, -62_135_596_800..=253_402_300_799_i64];
    let nanos = prop_oneof![Just(0), (0..1_000_000).prop_map(|micros| micros * 1000), 0..1_000_000_000];
    (seconds, nanos).prop_map(|(seconds, nanos)| Timestamp { seconds, nanos }).boxed()
}

fn any_address() -> BoxedStrategy<core::Address> {
    use socket_address::PortSpecifier;
    let port = prop_oneof![
        (0..=65_535_u32).prop_map(PortSpecifier::PortValue),
        any::<u32>().prop_map(PortSpecifier::PortValue),
        any::<String>().prop_map(PortSpecifier::NamedPort),
    ];
    let socket = (any::<String>(), option::of(port), 0..2).prop_map(|(address, port_specifier, protocol)| {
        address::Address::SocketAddress(core::SocketAddress { address, port_specifier, protocol, ..Default::default() })
    });
    let pipe =
        (any::<String>(), any::<u32>()).prop_map(|(path, mode)| address::Address::Pipe(core::Pipe { path, mode }));
    let internal = (option::of(any::<String>()), any::<String>()).prop_map(|(name, endpoint_id)| {
        let address_name_specifier = name.map(envoy_internal_address::AddressNameSpecifier::ServerListenerName);
        address::Address::EnvoyInternalAddress(core::EnvoyInternalAddress { address_name_specifier, endpoint_id })
    });
    option::of(prop_oneof![4 => socket, 1 => pipe, 1 => internal]).prop_map(|address| core::Address { address }).boxed()
}

fn any_connection() -> BoxedStrategy<tap::Connection> {
    (option::of(any_address()), option::of(any_address()))
        .prop_map(|(local_address, remote_address)| tap::Connection { local_address, remote_address })
        .boxed()
}

fn any_event() -> BoxedStrategy<tap::SocketEvent> {
    let body_type =
        prop_oneof![vec(any::<u8>(), 0..80).prop_map(BodyType::AsBytes), any::<String>().prop_map(BodyType::AsString),];
    let body = (option::of(body_type), any::<bool>())
        .prop_map(|(body_type, truncated)| tap::Body { body_type, truncated })
        .boxed();
    let selector = prop_oneof![
        option::of(body.clone()).prop_map(|data| EventSelector::Read(tap::socket_event::Read { data })),
        (option::of(body), any::<bool>())
            .prop_map(|(data, end_stream)| EventSelector::Write(tap::socket_event::Write { data, end_stream })),
        Just(EventSelector::Closed(tap::socket_event::Closed {})),
    ];
    (option::of(any_timestamp()), option::of(selector), option::of(any_connection()), any::<u64>())
        .prop_map(|(timestamp, event_selector, connection, seq_num)| tap::SocketEvent {
            timestamp,
            event_selector,
            connection,
            seq_num,
        })
        .boxed()
}

fn any_wrapper() -> BoxedStrategy<tap::TraceWrapper> {
    use tap::trace_wrapper::Trace;
    let buffered = (any::<u64>(), option::of(any_connection()), vec(any_event(), 0..4), any::<bool>(), any::<bool>())
        .prop_map(|(trace_id, connection, events, read_truncated, write_truncated)| {
            Trace::SocketBufferedTrace(tap::SocketBufferedTrace {
                trace_id,
                connection,
                events,
                read_truncated,
                write_truncated,
            })
        });
    let piece = prop_oneof![
        any_connection().prop_map(MessagePiece::Connection),
        any_event().prop_map(MessagePiece::Event),
        vec(any_event(), 0..4).prop_map(|events| MessagePiece::Events(tap::SocketEvents { events })),
    ];
    let streamed = (any::<u64>(), option::of(piece)).prop_map(|(trace_id, message_piece)| {
        Trace::SocketStreamedTraceSegment(tap::SocketStreamedTraceSegment { trace_id, message_piece })
    });
    let http = http_tests::any_trace(any_connection());
    option::weighted(0.95, prop_oneof![2 => buffered, 2 => streamed, 1 => http])
        .prop_map(|trace| tap::TraceWrapper { trace, configured_sample_rate: None })
        .boxed()
}

/// How JSON may be printed.
#[derive(Clone, Copy, Debug)]
struct Layout {
    snake_case: bool,
    defaults: bool,
    pretty: bool,
}

fn any_layout() -> BoxedStrategy<Layout> {
    any::<[bool; 3]>().prop_map(|[snake_case, defaults, pretty]| Layout { snake_case, defaults, pretty }).boxed()
}

fn print(wrapper: &tap::TraceWrapper, layout: Layout) -> Vec<u8> {
    let options = SerializeOptions::new().use_proto_field_name(layout.snake_case).skip_default_fields(!layout.defaults);
    let message = DynamicMessage::decode(wrapper_descriptor(), wrapper.encode_to_vec().as_slice()).unwrap();
    let mut json = Vec::new();
    if layout.pretty {
        let mut serializer = serde_json::Serializer::pretty(&mut json);
        message.serialize_with_options(&mut serializer, &options).unwrap();
    } else {
        let mut serializer = serde_json::Serializer::new(&mut json);
        message.serialize_with_options(&mut serializer, &options).unwrap();
    }
    json.push(b'\n');
    json
}

fn any_source() -> BoxedStrategy<(Vec<tap::TraceWrapper>, Vec<u8>)> {
    (vec(any_wrapper(), 0..4), any_layout())
        .prop_map(|(wrappers, layout)| {
            let source = wrappers.iter().flat_map(|wrapper| print(wrapper, layout)).collect();
            (wrappers, source)
        })
        .boxed()
}

/// Replaces, inserts or removes single bytes, or cuts the source off.
fn mutated(mut source: Vec<u8>, changes: &[(prop::sample::Index, i32, u8)]) -> Vec<u8> {
    for (index, change, byte) in changes {
        if source.is_empty() {
            break;
        }
        let at = index.index(source.len());
        match change {
            0 => source[at] = *byte,
            1 => source.insert(at, *byte),
            2 => drop(source.remove(at)),
            _ => source.truncate(at),
        }
    }
    source
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn any_printed_trace_decodes_to_what_it_was((wrappers, source) in any_source(), piece in 1..300_usize) {
        let all: Vec<_> = wrappers.iter().map(expected).collect();
        prop_assert_eq!(&decode(&source), &all);
        let (decoded, out) = decode_in_pieces(&source, piece);
        prop_assert_eq!(&decoded, &all);
        prop_assert_eq!(out.unknown.total(), 0);
    }

    #[test]
    fn mutations_make_progress_and_do_not_depend_on_the_pieces(
        (_, source) in any_source(),
        changes in vec((any::<prop::sample::Index>(), 0..4, prop_oneof![any::<u8>(), prop::sample::select(&b"{}[]\",:\\\n 0-eu"[..])]), 1..6),
        piece in 1..300_usize,
    ) {
        let source = mutated(source, &changes);
        prop_assert_eq!(decode_in_pieces(&source, piece).0, decode(&source));
    }

    #[test]
    fn the_fast_path_reads_what_the_general_decoder_reads(source in any_envoy_source(), pieces in vec(1..700_usize, 1..4)) {
        assert_fast_and_general_agree(&source, &[usize::MAX]);
        assert_fast_and_general_agree(&source, &pieces);
    }

    #[test]
    fn the_fast_path_and_the_general_decoder_see_the_same_damage(
        source in any_envoy_source(),
        changes in vec((any::<prop::sample::Index>(), 0..4, prop_oneof![any::<u8>(), prop::sample::select(&b"{}[]\",:\\\n 0-eZ=/+"[..])]), 1..4),
        pieces in vec(1..700_usize, 1..4),
    ) {
        let source = mutated(source, &changes);
        assert_fast_and_general_agree(&source, &[usize::MAX]);
        assert_fast_and_general_agree(&source, &pieces);
    }

    #[test]
    fn any_bytes_make_progress(source in vec(any::<u8>(), 0..200), piece in 1..50_usize) {
        prop_assert_eq!(decode_in_pieces(&source, piece).0, decode(&source));
    }

    #[test]
    fn any_text_like_json_makes_progress(
        source in r#"([{}\[\],:\n ]|"socket_buffered_trace"|"events"|"read"|"data"|"as_bytes"|"AAEC"|"x|1|null){0,40}"#,
        piece in 1..50_usize,
    ) {
        prop_assert_eq!(decode_in_pieces(source.as_bytes(), piece).0, decode(source.as_bytes()));
    }

    #[test]
    fn cuts_keep_what_was_complete((wrappers, source) in any_source(), cut in any::<prop::sample::Index>()) {
        let len = cut.index(source.len() + 1);
        let all: Vec<_> = wrappers.iter().map(expected).collect();
        let (before, cut) = decode_cut(&source, len);
        prop_assert_eq!(&before[..], &all[..before.len()]);
        if let Some(cut) = cut {
            let whole = &all[before.len()].events;
            let complete = cut.events.iter().zip(whole).take_while(|(left, whole)| left == whole).count();
            assert_left_over(&cut.events, whole, complete);
            http_tests::check_cut(&cut.http, &all[before.len()].http);
        }
    }

    #[test]
    fn base64_of_any_bytes_is_read(bytes in vec(any::<u8>(), 0..300)) {
        let base64 = base64_simd::STANDARD.encode_to_string(&bytes);
        prop_assert_eq!(payload_of(&format!(r#"{{"as_bytes":"{base64}"}}"#)), &bytes[..]);
        let other = base64.trim_end_matches('=').replace('+', "-").replace('/', "_");
        prop_assert_eq!(payload_of(&format!(r#"{{"as_bytes":"{other}"}}"#)), &bytes[..]);
    }

    #[test]
    fn times_are_what_prost_types_reads(
        texts in vec("[0-9]{4}-[01][0-9]-[0-3][0-9][Tt ][0-2][0-9]:[0-6][0-9]:[0-6][0-9](\\.[0-9]{0,11})?(Z|z|[+-]0[0-9]:00|)", 1..4),
        sound in vec(any_timestamp(), 1..4),
    ) {
        let mut times = Times::default();
        for text in texts.iter().cloned().chain(sound.iter().map(Timestamp::to_string)) {
            let reference = Timestamp::from_str(&text)
                .map_err(|_| TimeError::Unreadable)
                .and_then(|time| nanos_from_timestamp(time.seconds, time.nanos.into()));
            let (read, mut out) = (times.read(&text), Message::default());
            prop_assert_eq!(read.finish(&mut out).ok_or_else(|| out.bad_time.unwrap()), reference, "{}", text);
        }
    }
}
