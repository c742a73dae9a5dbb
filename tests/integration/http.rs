//! HTTP tap traces: a dissector shows what is in them, and nothing in them breaks the framing.

use std::{
    fs,
    path::{Path, PathBuf},
};

use prost::Message as _;
use prost_reflect::{DeserializeOptions, DynamicMessage};
use serde::de::IgnoredAny;
use serde_json::Value;
use tap2pcap::proto::{
    DESCRIPTORS,
    envoy::config::core::v3::HeaderValue,
    tap::{
        Body, Connection, HttpBufferedTrace, HttpStreamedTraceSegment, TraceWrapper, body::BodyType,
        http_buffered_trace::Message, http_streamed_trace_segment::MessagePiece, trace_wrapper::Trace,
    },
};

pub use tap2pcap::proto::envoy::config::core::v3::HeaderMap;

use crate::{
    fixture::{Dress, TIME, downstream, socket, timestamp},
    manifest::{Format, Sample, samples},
    oracle,
    tshark::{self, Frame},
    util::{Dir, ROOT, TSHARK, convert, on_all_cores},
};

/// One half of an exchange, as a trace has it or as a dissector shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Half {
    /// Method and path, or the status.
    first: Vec<String>,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

/// Request and response.
type Exchange = [Half; 2];

pub fn header(key: &str, value: &str) -> HeaderValue {
    HeaderValue { key: key.into(), value: value.into(), raw_value: Vec::new() }
}

pub fn headers(pairs: &[(&str, &str)]) -> Vec<HeaderValue> {
    pairs.iter().map(|(key, value)| header(key, value)).collect()
}

pub fn body(bytes: impl AsRef<[u8]>) -> Body {
    Body { body_type: Some(BodyType::AsBytes(bytes.as_ref().to_vec())), truncated: false }
}

pub fn cut(bytes: impl AsRef<[u8]>) -> Body {
    Body { truncated: true, ..body(bytes) }
}

fn wrap(trace: Trace) -> TraceWrapper {
    TraceWrapper { trace: Some(trace), configured_sample_rate: None }
}

pub fn buffered(request: Message, response: Message) -> TraceWrapper {
    wrap(Trace::HttpBufferedTrace(HttpBufferedTrace {
        request: Some(request),
        response: Some(response),
        ..Default::default()
    }))
}

pub fn segment(trace_id: u64, piece: MessagePiece) -> TraceWrapper {
    wrap(Trace::HttpStreamedTraceSegment(HttpStreamedTraceSegment { trace_id, message_piece: Some(piece) }))
}

pub fn map(pairs: &[(&str, &str)]) -> HeaderMap {
    HeaderMap { headers: headers(pairs) }
}

/// The segments of the exchange that a buffered trace holds.
fn segments(trace_id: u64, trace: &TraceWrapper, chunk: usize) -> Vec<TraceWrapper> {
    let Some(Trace::HttpBufferedTrace(trace)) = &trace.trace else { panic!("not buffered") };
    let mut out = Vec::new();
    let sides = [trace.request.as_ref(), trace.response.as_ref()];
    for (message, request) in sides.into_iter().zip([true, false]) {
        let Some(message) = message else { continue };
        let fields = |headers: &[HeaderValue]| HeaderMap { headers: headers.to_vec() };
        let pick = |request_piece: MessagePiece, response_piece: MessagePiece| {
            segment(trace_id, if request { request_piece } else { response_piece })
        };
        let head = fields(&message.headers);
        out.push(pick(MessagePiece::RequestHeaders(head.clone()), MessagePiece::ResponseHeaders(head)));
        if let Some(Body { body_type: Some(BodyType::AsBytes(bytes)), truncated }) = &message.body {
            let count = bytes.len().div_ceil(chunk).max(1);
            for index in 0..count {
                let part = &bytes[(index * chunk).min(bytes.len())..((index + 1) * chunk).min(bytes.len())];
                let part = Body { truncated: *truncated && index + 1 == count, ..body(part) };
                out.push(pick(MessagePiece::RequestBodyChunk(part.clone()), MessagePiece::ResponseBodyChunk(part)));
            }
        }
        if !message.trailers.is_empty() {
            let trailers = fields(&message.trailers);
            out.push(pick(MessagePiece::RequestTrailers(trailers.clone()), MessagePiece::ResponseTrailers(trailers)));
        }
    }
    out
}

/// The messages of a sample.
fn messages(sample: &Sample) -> Vec<TraceWrapper> {
    let bytes = sample.bytes();
    if !matches!(sample.format, Format::JsonBytes | Format::JsonString) {
        return oracle::messages(&bytes, sample.format);
    }
    let descriptor = DESCRIPTORS.get_message_by_name("envoy.data.tap.v3.TraceWrapper").unwrap();
    let options = DeserializeOptions::new();
    let mut rest = bytes.as_slice();
    let mut out = Vec::new();
    while !rest.trim_ascii().is_empty() {
        let mut json = serde_json::Deserializer::from_slice(rest);
        let message = DynamicMessage::deserialize_with_options(descriptor.clone(), &mut json, &options).unwrap();
        out.push(TraceWrapper::decode(message.encode_to_vec().as_slice()).unwrap());
        rest = &rest[json.into_iter::<IgnoredAny>().byte_offset()..];
    }
    out
}

/// The exchange that these messages record.
fn recorded(messages: &[TraceWrapper]) -> Exchange {
    let mut exchange = Exchange::default();
    let mut fields = |side: usize, headers: &[HeaderValue]| {
        for header in headers {
            let half = &mut exchange[side];
            match header.key.as_str() {
                ":method" | ":path" | ":status" => half.first.push(header.value.clone()),
                ":scheme" => {}
                ":authority" => half.headers.push(("Host".into(), header.value.clone())),
                key => half.headers.push((key.into(), header.value.clone())),
            }
        }
    };
    let mut bodies = [Vec::new(), Vec::new()];
    for message in messages {
        let mut chunk = |side: usize, body: &Body| match body.body_type.as_ref().unwrap() {
            BodyType::AsBytes(bytes) => bodies[side].extend_from_slice(bytes),
            BodyType::AsString(text) => bodies[side].extend_from_slice(text.as_bytes()),
        };
        match message.trace.as_ref().unwrap() {
            Trace::HttpBufferedTrace(trace) => {
                for (side, message) in [&trace.request, &trace.response].into_iter().enumerate() {
                    let message = message.as_ref().unwrap();
                    fields(side, &message.headers);
                    message.body.iter().for_each(|body| chunk(side, body));
                }
            }
            Trace::HttpStreamedTraceSegment(segment) => match segment.message_piece.as_ref().unwrap() {
                MessagePiece::RequestHeaders(map) => fields(0, &map.headers),
                MessagePiece::ResponseHeaders(map) => fields(1, &map.headers),
                MessagePiece::RequestBodyChunk(body) => chunk(0, body),
                MessagePiece::ResponseBodyChunk(body) => chunk(1, body),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }
    for (half, body) in exchange.iter_mut().zip(bodies) {
        half.body = body;
        half.first.sort();
        half.headers.sort();
    }
    exchange
}

/// Layers of the frames that pass a filter, as tshark prints them with the bytes after each field.
fn layers(capture: &Path, filter: &str, options: &[&str]) -> Vec<Value> {
    let args = ["-r", capture.to_str().unwrap(), "-Y", filter, "-T", "json", "-x", "--no-duplicate-keys"];
    let run = TSHARK.run(args.iter().chain(options), &[]);
    let packets: Vec<Value> = serde_json::from_slice(&run.stdout).unwrap();
    packets.into_iter().map(|mut packet| packet["_source"]["layers"].take()).collect()
}

/// The same for many captures, with one tshark.
fn layers_of_many(dir: &Dir, captures: &[PathBuf], filter: &str, options: &[&str]) -> Vec<Vec<Value>> {
    let joined = dir.fresh().join("joined.pcapng");
    fs::write(&joined, captures.iter().flat_map(|path| fs::read(path).unwrap()).collect::<Vec<u8>>()).unwrap();
    let mut all = vec![Vec::new(); captures.len()];
    for layers in layers(&joined, filter, options) {
        let section: usize = layers["frame"]["frame.section_number"].as_str().unwrap().parse().unwrap();
        all[section - 1].push(layers);
    }
    all
}

/// Options that give the connection of each sample a client of its own, because requests of one kept-alive connection
/// are separate traces.
fn own_client(index: usize) -> String {
    format!("127.0.0.1={}", std::net::Ipv4Addr::from(0x0a00_0001 + index as u32))
}

/// All values of a field, at any depth.
fn values(layers: &Value, field: &str) -> Vec<String> {
    let mut out = Vec::new();
    collect(layers, field, &mut out);
    out
}

fn collect(value: &Value, field: &str, out: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                if key == field {
                    match value {
                        Value::Array(several) => {
                            out.extend(several.iter().filter_map(Value::as_str).map(str::to_owned))
                        }
                        other => out.extend(other.as_str().map(str::to_owned)),
                    }
                } else {
                    collect(value, field, out);
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, field, out)),
        _ => {}
    }
}

/// The bytes after a field.
fn bytes_of(layers: &Value, field: &str) -> Vec<Vec<u8>> {
    let mut raw = Vec::new();
    collect_raw(layers, &format!("{field}_raw"), &mut raw);
    raw
}

fn collect_raw(value: &Value, field: &str, out: &mut Vec<Vec<u8>>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                if key == field {
                    let items = value.as_array().unwrap();
                    let several = items.first().is_some_and(Value::is_array);
                    let items = if several { items.iter().collect() } else { vec![value] };
                    out.extend(items.iter().map(|item| hex(item[0].as_str().unwrap())));
                } else {
                    collect_raw(value, field, out);
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect_raw(item, field, out)),
        _ => {}
    }
}

fn hex(text: &str) -> Vec<u8> {
    let digit = |digit: u8| (digit as char).to_digit(16).unwrap() as u8;
    text.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What tshark shows of an HTTP/1.1 message.
fn shown_http1(layers: &Value) -> (usize, Half) {
    let request = values(layers, "http.request.method");
    let lines = if request.is_empty() { "http.response.line" } else { "http.request.line" };
    let mut first: Vec<_> = [request.clone(), values(layers, "http.request.uri"), values(layers, "http.response.code")]
        .into_iter()
        .flatten()
        .collect();
    first.sort();
    let mut headers: Vec<_> = bytes_of(layers, lines)
        .iter()
        .map(|line| {
            let line = text(line);
            let (name, value) = line.trim_end().split_once(": ").unwrap_or((line.trim_end().trim_end_matches(':'), ""));
            (name.to_owned(), value.to_owned())
        })
        .collect();
    headers.sort();
    let body = bytes_of(layers, "http.file_data").into_iter().next().unwrap_or_default();
    (usize::from(request.is_empty()), Half { first, headers, body })
}

/// Converts files, and returns the capture of each.
fn captures<T: Sync>(dir: &Dir, options: &[&str], files: &[T], path: impl Fn(&T) -> PathBuf + Sync) -> Vec<PathBuf> {
    on_all_cores(files, |file| {
        let output = dir.fresh().join("out.pcapng");
        convert(options, &path(file), &output).run().expect_clean();
        output
    })
}

/// The same for samples, with a client of its own for each, so that one tshark can read all of them.
fn captures_apart(dir: &Dir, options: &[&str], samples: &[Sample]) -> Vec<PathBuf> {
    let indexes: Vec<usize> = (0..samples.len()).collect();
    on_all_cores(&indexes, |index| {
        let output = dir.fresh().join("out.pcapng");
        let map = own_client(*index);
        let options: Vec<&str> = options.iter().copied().chain(["--map", &map]).collect();
        let run = convert(&options, &samples[*index].path, &output).run().expect_status(0);
        // Many have no address that could be rewritten, and some have bodies that were cut.
        let words = ["warning: --map ", "warning: Envoy's limit cut ", "note: to see it dissected: "];
        let expected = |line: &str| words.iter().any(|words| line.starts_with(words));
        assert!(run.stderr.lines().all(expected), "{run:?}");
        output
    })
}

fn http_samples() -> Vec<Sample> {
    let samples: Vec<_> = samples().into_iter().filter(Sample::is_http).collect();
    assert_eq!(samples.len(), 60);
    samples
}

/// Expects one connection that opens and closes, and about which Wireshark has no warning.
#[track_caller]
fn expect_sound(frames: &[Frame], what: &str) {
    frames.iter().for_each(|frame| frame.expect_sound(&what));
    assert!(frames.windows(2).all(|pair| pair[0].time <= pair[1].time), "{what}: time goes back");
    assert_eq!(frames.iter().filter(|frame| frame.flags & 3 == 2).count(), 2, "{what}: SYN and its answer");
    assert_eq!(frames.iter().filter(|frame| frame.flags & 1 == 1).count(), 2, "{what}: FIN both ways");
    let first = frames.iter().find(|frame| !frame.comments.is_empty()).expect("a comment");
    assert!(first.comments[0].contains("replayed from an HTTP tap trace"), "{what}: {first:?}");
}

#[test]
fn every_filter_trace_is_one_request_and_one_response() {
    let dir = Dir::new("http-filter");
    let samples = http_samples();
    let captures = captures_apart(&dir, &[], &samples);
    let frames = tshark::read_many(&dir, &captures);
    let shown = layers_of_many(&dir, &captures, "http", &[]);
    for ((sample, frames), shown) in samples.iter().zip(frames).zip(shown) {
        expect_sound(&frames, &sample.name);
        let shown: Vec<_> = shown.iter().map(shown_http1).collect();
        let [(0, request), (1, response)] = &shown[..] else { panic!("{}: {shown:?}", sample.name) };
        assert_eq!([request.clone(), response.clone()], recorded(&messages(sample)), "{}", sample.name);
    }
}

/// What tshark shows of an HTTP/2 message, with the names that [`recorded`] uses.
fn shown_http2(layers: &Value) -> Half {
    let names = values(layers, "http2.header.name");
    let pairs = names.into_iter().zip(values(layers, "http2.header.value"));
    let mut half = Half::default();
    for (name, value) in pairs {
        match name.as_str() {
            ":method" | ":path" | ":status" => half.first.push(value),
            ":scheme" => {}
            ":authority" => half.headers.push(("Host".into(), value)),
            _ => half.headers.push((name, value)),
        }
    }
    half.first.sort();
    half.headers.sort();
    half.body = bytes_of(layers, "http2.data.data").concat();
    half
}

#[test]
fn every_filter_trace_can_be_http2() {
    let dir = Dir::new("http-filter2");
    let samples: Vec<_> = http_samples().into_iter().filter(|sample| sample.version == "1.40.0").collect();
    let captures = captures_apart(&dir, &["--http", "2"], &samples);
    let frames = tshark::read_many(&dir, &captures);
    // The ports of Envoy's listeners.
    let decode_as = ["-d", "tcp.port==21000-21100,http2"];
    let shown = layers_of_many(&dir, &captures, "http2.type == 1", &decode_as);
    for ((sample, frames), shown) in samples.iter().zip(frames).zip(shown) {
        expect_sound(&frames, &sample.name);
        let shown: Vec<_> = shown.iter().map(shown_http2).collect();
        assert_eq!(shown, recorded(&messages(sample)), "{}", sample.name);
    }
}

/// The same exchange in every format, buffered and streamed, gives the same application layer.
#[test]
fn formats_and_modes_give_the_same_dissection() {
    let post = [(":method", "POST"), (":path", "/echo"), (":authority", "example.com"), ("content-length", "11")];
    let ok = [(":status", "200"), ("date", "Sun, 22 Nov 2026 19:15:49 GMT"), ("content-type", "text/plain")];
    let plain = buffered(
        Message { headers: headers(&post), body: Some(body("hello world")), ..Message::default() },
        Message { headers: headers(&ok), body: Some(body("chunk by chunk by chunk")), ..Message::default() },
    );
    let truncated = buffered(
        Message { headers: headers(&[(":method", "GET"), (":path", "/big")]), ..Message::default() },
        Message {
            headers: headers(&[(":status", "200"), ("content-length", "100000")]),
            body: Some(cut("the start of it")),
            ..Message::default()
        },
    );
    for (name, trace) in [("plain", plain), ("truncated", truncated), ("grpc", grpc(b"ping", b"pong", "0"))] {
        let dir = Dir::new("http-same");
        let mut files = Vec::new();
        for dress in Dress::ALL {
            files
                .push(dir.create(&format!("b_{dress:?}.{}", dress.suffix()), dress.file(std::slice::from_ref(&trace))));
            for chunk in [1_000_000, 7] {
                let file = dress.file(&segments(9, &trace, chunk));
                files.push(dir.create(&format!("s{chunk}_{dress:?}.{}", dress.suffix()), file));
            }
        }
        let captures = captures(&dir, &[], &files, Clone::clone);
        let shown: Vec<Vec<(String, Half)>> = on_all_cores(&captures, |capture| {
            layers(capture, "http || http2.headers", &[])
                .iter()
                .map(|layers| {
                    let protocols = values(layers, "frame.protocols").concat();
                    let half = if protocols.contains("http2") {
                        let grpc = bytes_of(layers, "grpc.message_data").concat();
                        Half { body: grpc, ..shown_http2(layers) }
                    } else {
                        shown_http1(layers).1
                    };
                    (protocols, half)
                })
                .collect()
        });
        assert_eq!(shown[0].len(), 2, "{name}: {:?}", shown[0]);
        assert!(!shown[0][1].1.body.is_empty(), "{name}: {:?}", shown[0]);
        for (file, other) in files.iter().zip(&shown) {
            assert_eq!(*other, shown[0], "{name}, {}", file.display());
        }
    }
}

/// A gRPC message: not compressed, its length, its bytes.
pub fn grpc_message(bytes: &[u8]) -> Vec<u8> {
    [&[0], &(bytes.len() as u32).to_be_bytes()[..], bytes].concat()
}

pub const GRPC_REQUEST: [(&str, &str); 6] = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/echo.Echo/Say"),
    (":authority", "echo.example:50051"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
];
pub const GRPC_RESPONSE: [(&str, &str); 2] = [(":status", "200"), ("content-type", "application/grpc")];

/// A protobuf message with one string, in field 1.
fn echo(text: &[u8]) -> Vec<u8> {
    [&[0x0a, text.len() as u8], text].concat()
}

fn grpc(request: &[u8], response: &[u8], status: &str) -> TraceWrapper {
    buffered(
        Message {
            headers: headers(&GRPC_REQUEST),
            body: Some(body(grpc_message(&echo(request)))),
            headers_received_time: timestamp(TIME),
            ..Message::default()
        },
        Message {
            headers: headers(&GRPC_RESPONSE),
            body: Some(body(grpc_message(&echo(response)))),
            trailers: headers(&[("grpc-status", status), ("grpc-message", "as it is")]),
            headers_received_time: timestamp(TIME + 1_500_000),
        },
    )
}

/// Messages of request and response take turns, and the status is not 0.
fn grpc_streaming(trace_id: u64) -> Vec<TraceWrapper> {
    let mut out = vec![segment(trace_id, MessagePiece::RequestHeaders(map(&GRPC_REQUEST)))];
    for index in 0..3_u8 {
        let message = |text: &str| body(grpc_message(&echo(format!("{text} {index}").as_bytes())));
        out.push(segment(trace_id, MessagePiece::RequestBodyChunk(message("ping"))));
        if index == 0 {
            out.push(segment(trace_id, MessagePiece::ResponseHeaders(map(&GRPC_RESPONSE))));
        }
        out.push(segment(trace_id, MessagePiece::ResponseBodyChunk(message("pong"))));
    }
    let trailers = map(&[("grpc-status", "8"), ("grpc-message", "enough")]);
    out.push(segment(trace_id, MessagePiece::ResponseTrailers(trailers)));
    out
}

/// The fixtures in testdata/http are what this code makes. `UPDATE_GOLDEN=1` writes them.
fn grpc_fixtures() -> Vec<(PathBuf, Vec<u8>)> {
    let trailers_only = buffered(
        Message {
            headers: headers(&GRPC_REQUEST),
            body: Some(body(grpc_message(&echo(b"who?")))),
            ..Message::default()
        },
        Message {
            headers: headers(&[GRPC_RESPONSE[0], GRPC_RESPONSE[1], ("grpc-status", "5"), ("grpc-message", "nobody")]),
            ..Message::default()
        },
    );
    let unary = grpc(b"ping", b"pong", "0");
    let with_connections = |trace: &TraceWrapper| {
        let mut trace = trace.clone();
        if let Some(Trace::HttpBufferedTrace(http)) = &mut trace.trace {
            http.downstream_connection = Some(downstream());
            let (local_address, remote_address) = (socket("10.0.0.1", 40_000), socket("10.0.0.9", 50_051));
            http.upstream_connection = Some(Connection { local_address, remote_address });
        }
        trace
    };
    let files = [
        ("grpc_unary_buffered.json", Dress::Json.file(&[with_connections(&unary)])),
        ("grpc_unary_streamed.json", Dress::Json.file(&segments(11, &unary, 1000))),
        ("grpc_streaming.pb_text", Dress::Text.file(&grpc_streaming(12))),
        ("grpc_trailers_only.pb", Dress::Binary.file(&[trailers_only])),
    ];
    let directory = Path::new(ROOT).join("testdata/http");
    files
        .into_iter()
        .map(|(name, bytes)| {
            let path = directory.join(name);
            if std::env::var_os("UPDATE_GOLDEN").is_some() {
                fs::write(&path, &bytes).unwrap();
            }
            (path, bytes)
        })
        .collect()
}

#[test]
fn grpc_dissects_as_grpc_with_its_status() {
    let dir = Dir::new("http-grpc");
    let fixtures = grpc_fixtures();
    for (path, bytes) in &fixtures {
        assert_eq!(fs::read(path).unwrap_or_default(), *bytes, "{}: UPDATE_GOLDEN=1 writes it", path.display());
    }
    let captures = captures(&dir, &[], &fixtures, |(path, _)| path.clone());
    let frames = tshark::read_many(&dir, &captures);
    let decode_as = ["-d", "tcp.port==8080,http2"];
    let expected: [(&[&str], &str); 4] =
        [(&["ping", "pong"], "0"), (&["ping", "pong"], "0"), (&[], "8"), (&["who?"], "5")];
    for (((path, _), capture), (frames, (words, status))) in
        fixtures.iter().zip(&captures).zip(frames.iter().zip(expected))
    {
        let name = path.file_name().unwrap().to_str().unwrap();
        expect_sound(frames, name);
        let shown = layers(capture, "http2", &decode_as);
        let all: Vec<String> =
            shown.iter().flat_map(|layers| bytes_of(layers, "grpc.message_data")).map(|b| text(&b)).collect();
        let streamed = ["ping 0", "pong 0", "ping 1", "pong 1", "ping 2", "pong 2"];
        let words = if words.is_empty() { &streamed[..] } else { words };
        assert_eq!(all.len(), words.len(), "{name}: {all:?}");
        assert!(all.iter().zip(words).all(|(message, word)| message.ends_with(word)), "{name}: {all:?}");
        let fields: Vec<(String, String)> = shown
            .iter()
            .flat_map(|layers| {
                values(layers, "http2.header.name").into_iter().zip(values(layers, "http2.header.value"))
            })
            .collect();
        assert!(fields.contains(&("grpc-status".into(), status.into())), "{name}: {fields:?}");
        // Both sides end the stream.
        let ends: usize = shown
            .iter()
            .map(|layers| values(layers, "http2.flags.end_stream").iter().filter(|end| *end == "1").count())
            .sum();
        assert_eq!(ends, 2, "{name}");
    }
}
