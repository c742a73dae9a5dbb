//! The bytes that HTTP tap traces are replayed as, one exchange after another, and HTTP traces that break the rules of
//! HTTP.

use serde_json::Value;
use tap2pcap::proto::tap::{
    Connection, HttpBufferedTrace, TraceWrapper, http_buffered_trace::Message,
    http_streamed_trace_segment::MessagePiece, trace_wrapper::Trace,
};

use crate::{
    batch::{Running, contains},
    fixture::{self, Dress, TIME, downstream, socket, timestamp},
    http::{HeaderMap, body, buffered, cut, header, headers, map, segment},
    tshark::{self, Frame},
    util::{Dir, Run, convert, tap2pcap},
    wire::append_field,
};

fn message(fields: &[(&str, &str)], bytes: &str, trailers: &[(&str, &str)]) -> Message {
    Message {
        headers: headers(fields),
        body: (!bytes.is_empty()).then(|| body(bytes)),
        trailers: headers(trailers),
        headers_received_time: None,
    }
}

const GET: [(&str, &str); 3] = [(":method", "GET"), (":path", "/"), (":authority", "example.com")];
const OK: [(&str, &str); 1] = [(":status", "200")];

/// The head that [`GET`] is replayed as.
const GET_HEAD: &str = "GET / HTTP/1.1\r\nHost: example.com\r\n\r\n";

struct Shown {
    run: Run,
    frames: Vec<Frame>,
}

impl Shown {
    fn payload(&self, from_client: bool) -> Vec<u8> {
        let client = self.frames[0].src;
        let own = self.frames.iter().filter(|frame| (frame.src == client) == from_client);
        own.flat_map(|frame| frame.payload.clone()).collect()
    }

    fn comments(&self) -> String {
        self.frames.iter().flat_map(|frame| frame.comments.clone()).collect::<Vec<_>>().join("\n")
    }

    #[track_caller]
    fn expect_sound(self) -> Self {
        self.frames.iter().for_each(|frame| frame.expect_sound(&"replay"));
        self
    }
}

/// Converts a trace and reads the capture.
#[track_caller]
fn show(options: &[&str], messages: &[TraceWrapper]) -> Shown {
    show_with_status(0, options, messages)
}

#[track_caller]
fn show_with_status(status: i32, options: &[&str], messages: &[TraceWrapper]) -> Shown {
    let dir = Dir::new("http-replay");
    let input = dir.create("trace_1.pb_length_delimited", Dress::Delimited.file(messages));
    let output = dir.join("out.pcapng");
    let run = convert(options, &input, &output).run().expect_status(status);
    Shown { run, frames: tshark::read(&output) }
}

/// Expects the bytes that client and server send in an exchange without findings.
#[track_caller]
fn expect_bytes(options: &[&str], messages: &[TraceWrapper], client: &str, server: &str) {
    let shown = show(options, messages).expect_sound();
    assert_eq!(shown.run.stderr, "");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    assert_eq!(text(shown.payload(true)), client);
    assert_eq!(text(shown.payload(false)), server);
}

#[test]
fn bodies_are_framed_so_that_a_dissector_reads_them() {
    let exchange = |request, response| [buffered(request, response)];
    let get = || message(&GET, "", &[]);
    // A correct content-length stays.
    expect_bytes(
        &[],
        &exchange(get(), message(&[(":status", "200"), ("content-length", "2")], "hi", &[])),
        GET_HEAD,
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi",
    );
    // Without a content-length, the body is chunked, or there is none.
    expect_bytes(
        &[],
        &exchange(get(), message(&OK, "hi", &[])),
        GET_HEAD,
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    );
    expect_bytes(
        &[],
        &exchange(get(), message(&OK, "", &[])),
        GET_HEAD,
        "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
    );
    let post = [(":method", "POST"), (":path", "/p"), ("transfer-encoding", "chunked")];
    expect_bytes(
        &[],
        &exchange(message(&post, "0123456789abcdef", &[]), message(&[(":status", "204")], "", &[])),
        "POST /p HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n10\r\n0123456789abcdef\r\n0\r\n\r\n",
        "HTTP/1.1 204 No Content\r\n\r\n",
    );
    // Trailers need chunks, even with a content-length.
    let announced = [(":status", "200"), ("content-length", "2")];
    expect_bytes(
        &["--http", "1"],
        &exchange(get(), message(&announced, "hi", &[("checksum", "77")])),
        GET_HEAD,
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nchecksum: 77\r\n\r\n",
    );
}

#[test]
fn responses_without_a_body_end_with_their_head() {
    let head = [(":method", "HEAD"), (":path", "/big"), (":authority", "x")];
    expect_bytes(
        &[],
        &[buffered(message(&head, "", &[]), message(&[(":status", "200"), ("content-length", "100")], "", &[]))],
        "HEAD /big HTTP/1.1\r\nHost: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n",
    );
    expect_bytes(
        &[],
        &[buffered(message(&GET, "", &[]), message(&[(":status", "304"), ("content-length", "100")], "", &[]))],
        GET_HEAD,
        "HTTP/1.1 304 Not Modified\r\ncontent-length: 100\r\n\r\n",
    );
    // An informational response comes before the final one.
    let pieces = [
        MessagePiece::RequestHeaders(map(&GET)),
        MessagePiece::ResponseHeaders(map(&[(":status", "103"), ("link", "</style.css>")])),
        MessagePiece::ResponseHeaders(map(&[(":status", "200"), ("content-length", "2")])),
        MessagePiece::ResponseBodyChunk(body("h")),
        MessagePiece::ResponseBodyChunk(body("i")),
    ];
    expect_bytes(
        &[],
        &pieces.map(|piece| segment(5, piece)),
        GET_HEAD,
        "HTTP/1.1 103 Early Hints\r\nlink: </style.css>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi",
    );
}

#[test]
fn other_protocols_go_through_tunnels_as_they_are() {
    let connect = [(":method", "CONNECT"), (":authority", "db.example:5432")];
    expect_bytes(
        &[],
        &[buffered(message(&connect, "hello", &[]), message(&OK, "welcome", &[]))],
        "CONNECT db.example:5432 HTTP/1.1\r\nHost: db.example:5432\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\n\r\nwelcome",
    );
    // RFC 6455 section 5.7: a masked and an unmasked text message.
    let upgrade = [
        (":method", "GET"),
        (":path", "/chat"),
        (":authority", "example.com"),
        ("upgrade", "websocket"),
        ("connection", "upgrade"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-version", "13"),
    ];
    let switched = [
        (":status", "101"),
        ("upgrade", "websocket"),
        ("connection", "upgrade"),
        ("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
    ];
    let [mut request, mut response] = [message(&upgrade, "", &[]), message(&switched, "", &[])];
    request.body = Some(body(b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"));
    response.body = Some(body(b"\x81\x05Hello"));
    let shown = show(&[], &[buffered(request, response)]).expect_sound();
    assert!(shown.payload(false).starts_with(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n"));
    let websocket = shown.frames.iter().filter(|frame| frame.protocols.ends_with("websocket:data-text-lines"));
    assert_eq!(websocket.count(), 2, "{:#?}", shown.frames);
    // A refused request stays plain HTTP.
    let refused = [(":status", "403"), ("content-length", "2")];
    let shown = show(&[], &[buffered(message(&connect, "", &[]), message(&refused, "no", &[]))]).expect_sound();
    assert_eq!(shown.payload(false), b"HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno");
}

#[test]
fn header_values_never_break_the_framing() {
    let evil = Message {
        headers: vec![
            header(":method", "GET"),
            header(":path", "/a b\r\nx-injected: 1"),
            header("x-evil", "1\r\nx-injected: 2\0end"),
            header("x-colon: x-injected", "3"),
            header("", "4"),
            tap2pcap::proto::envoy::config::core::v3::HeaderValue {
                key: "x-raw".into(),
                value: String::new(),
                raw_value: b"\xff\n\xfe".to_vec(),
            },
        ],
        ..Message::default()
    };
    let response = || message(&[(":status", "200"), ("content-length", "0")], "", &[]);
    let shown = show(&["-v"], &[buffered(evil.clone(), response())]).expect_sound();
    assert_eq!(
        shown.payload(true),
        b"GET /a%20b%0D%0Ax-injected:%201 HTTP/1.1\r\nx-evil: 1\\r\\nx-injected: 2\\0end\r\n\
          x-colon%3A%20x-injected: 3\r\n-: 4\r\nx-raw: \xff\\n\xfe\r\n\r\n"
    );
    assert!(shown.comments().contains("escaped in the request: :path, x-evil, x-colon: x-injected, \"\", x-raw"));
    let run = shown.run.expect_stderr("warning: ").expect_stderr("escaped in the request");
    assert!(run.stderr.contains("x-evil"), "{run:?}");
    // HTTP/2 has no lines to break, but its readers show lines.
    let dir = Dir::new("http-evil2");
    let input = dir.create("trace_1.pb", Dress::Delimited.file(&[buffered(evil, response())]));
    let output = dir.join("out.pcapng");
    convert(&["-v", "--http", "2"], &input, &output).run().expect_status(0).expect_stderr("escaped in the request");
    let values = tshark::lines(&output, &["-T", "fields", "-e", "http2.header.value"]).concat();
    assert!(values.contains("\\r\\nx-injected: 2\\0end"), "{values}");
}

/// Converts a trace that breaks the rules of HTTP. Expects a finding that says why, and a capture of what there is. The
/// status is 1 if the trace is damaged, and 0 if it is only unusual. The encoding is given, because some of these
/// messages could be any protobuf.
#[track_caller]
fn expect_finding(status: i32, messages: &[TraceWrapper], reason: &str) -> Shown {
    let dir = Dir::new("http-warning2");
    let input = dir.create("trace_1.pb", Dress::Binary.file(messages));
    convert(&["--from", "binary", "--http", "2"], &input, &dir.join("out.pcapng")).run().expect_no_panic();
    let dir = Dir::new("http-warning");
    let input = dir.create("trace_1.pb", Dress::Binary.file(messages));
    let strict = ["--from", "binary", "--strict"];
    convert(&strict, &input, &dir.join("out.pcapng")).run().expect_status(1).expect_stderr(reason);
    convert(&strict, &input, &dir.join("out.har")).run().expect_no_panic();
    let run = tap2pcap().args(&["validate", "--json", "--from", "binary"]).arg(&input).run().expect_status(status);
    assert!(run.stdout_text().contains(reason), "{run:?}");
    tap2pcap().args(&["info", "--from", "binary"]).arg(&input).run().expect_status(status);
    let word = if status == 0 { "warning: " } else { "error: " };
    let options = ["--from", "delimited", "-v"];
    let shown = show_with_status(status, if status == 0 { &options } else { &options[..2] }, messages);
    let said = shown.run.stderr.lines().any(|line| line.starts_with(word) && line.contains(reason));
    assert!(said, "{:?}", shown.run);
    shown
}

#[test]
fn a_missing_path_method_or_status_is_made_up() {
    let shown = expect_finding(
        0,
        &[buffered(message(&[(":authority", "x")], "", &[]), message(&[("server", "envoy")], "", &[]))],
        "the request has no :path; / is made up",
    );
    assert_eq!(shown.payload(true), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(shown.payload(false), b"HTTP/1.1 000 \r\nserver: envoy\r\ncontent-length: 0\r\n\r\n");
    let comments = shown.comments();
    for word in [":method; GET is made up", ":path; / is made up", ":status of three digits; 000 is made up"] {
        assert!(comments.contains(word), "{comments}");
    }
}

#[test]
fn a_body_without_headers_is_replayed_alone() {
    let trace = segment(1, MessagePiece::RequestBodyChunk(body("lost")));
    let shown = expect_finding(0, &[trace], "have no headers");
    assert_eq!(shown.payload(true), b"lost");
    let trace = Message { body: Some(body("lost")), ..Message::default() };
    let shown = expect_finding(0, &[buffered(message(&GET, "", &[]), trace)], "have no headers");
    assert_eq!((shown.payload(true), shown.payload(false)), (GET_HEAD.into(), b"lost".to_vec()));
}

#[test]
fn segments_out_of_order_are_replayed_in_the_order_of_http() {
    let piece = |piece| segment(1, piece);
    let length = [(":status", "200"), ("content-length", "4")];
    let shown = expect_finding(
        0,
        &[
            piece(MessagePiece::ResponseBodyChunk(body("ab"))),
            piece(MessagePiece::ResponseHeaders(map(&length))),
            piece(MessagePiece::RequestHeaders(map(&GET))),
            piece(MessagePiece::ResponseBodyChunk(body("cd"))),
        ],
        "not in the order in which HTTP sends them",
    );
    assert_eq!(shown.payload(true), GET_HEAD.as_bytes());
    assert_eq!(shown.payload(false), b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nabcd");
}

#[test]
fn trailers_that_come_first_are_replayed_last() {
    let piece = |piece| segment(1, piece);
    let trailers = map(&[("grpc-status", "0")]);
    let shown = expect_finding(
        0,
        &[
            piece(MessagePiece::RequestTrailers(trailers.clone())),
            piece(MessagePiece::RequestHeaders(map(&GET))),
            piece(MessagePiece::ResponseTrailers(trailers)),
            piece(MessagePiece::ResponseHeaders(map(&OK))),
        ],
        "not in the order in which HTTP sends them",
    );
    assert!(shown.payload(true).starts_with(b"PRI * HTTP/2.0\r\n"));
}

#[test]
fn a_wrong_content_length_is_reported() {
    let shown = expect_finding(
        0,
        &[buffered(message(&GET, "", &[]), message(&[(":status", "200"), ("content-length", "2")], "hello", &[]))],
        "longer than its content-length",
    );
    assert_eq!(shown.payload(false), b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
    let several = [(":status", "200"), ("content-length", "2"), ("content-length", "3")];
    expect_finding(
        0,
        &[buffered(message(&GET, "", &[]), message(&several, "hello", &[]))],
        "content-length is not a number",
    );
    // The body is shorter than announced, and not marked as truncated. So the rest is missing, and the exchange has no
    // end.
    let shown = expect_finding(
        0,
        &[buffered(message(&GET, "", &[]), message(&[(":status", "200"), ("content-length", "9")], "hello", &[]))],
        "ends before its content-length",
    );
    assert!(shown.comments().contains("5 of the 9 body bytes that Envoy wrote are here"), "{}", shown.comments());
    assert!(shown.frames.iter().all(|frame| frame.flags & 1 == 0), "{:#?}", shown.frames);
}

#[test]
fn a_thousand_header_fields_are_replayed() {
    let mut request = message(&GET, "", &[]);
    request.headers.extend((0..1000).map(|index| header(&format!("x-{index}"), &"v".repeat(100))));
    let response = || message(&[(":status", "200"), ("content-length", "0")], "", &[]);
    let shown = show(&[], &[buffered(request.clone(), response())]).expect_sound();
    let text = String::from_utf8(shown.payload(true)).unwrap();
    assert_eq!(text.lines().count(), 1003);
    assert!(text.ends_with(&format!("x-999: {}\r\n\r\n", "v".repeat(100))));
    let shown = show(&["--http", "2"], &[buffered(request, response())]);
    // All fields are there in HTTP/2 as well.
    let payload = shown.payload(true);
    assert!(payload.len() > 100_000, "{}", payload.len());
}

#[test]
fn a_body_of_a_hundred_megabytes_is_replayed_whole() {
    let dir = Dir::new("http-large");
    let bytes = vec![b'x'; 100_000_000];
    let length = bytes.len().to_string();
    let mut response = message(&[(":status", "200"), ("content-length", &length)], "", &[]);
    response.body = Some(body(&bytes));
    let trace = buffered(message(&GET, "", &[]), response);
    let input = dir.create("trace_1.pb", Dress::Delimited.file(&[trace]));
    for version in ["1", "2"] {
        let output = dir.join("out.pcapng");
        convert(&["--http", version], &input, &output).run().expect_clean();
        let fields = ["-T", "fields", "-e", "tcp.len", "-e", "tcp.srcport", "-e", "_ws.expert.severity"];
        let mut sent = 0_u64;
        for line in tshark::lines(&output, &fields) {
            let values: Vec<_> = line.split('\t').collect();
            if values[1] == "80" {
                sent += values[0].parse::<u64>().unwrap();
            }
            let worst = values[2].split(',').filter_map(|severity| severity.parse::<u32>().ok()).max();
            assert!(worst.is_none_or(|worst| worst < tshark::WARNING), "{line}");
        }
        // Nine bytes before each frame.
        let framing = if version == "1" { 0 } else { 100_000_000_u64.div_ceil(16_384) * 9 };
        assert!((100_000_000..100_000_500).contains(&(sent - framing)), "{sent}");
        std::fs::remove_file(&output).unwrap();
    }
    convert(&[], &input, &dir.join("out.har")).run().expect_clean();
}

#[test]
fn truncated_bodies_have_their_true_size() {
    let response = Message {
        headers: headers(&[(":status", "200"), ("content-length", "1000")]),
        body: Some(cut("0123456789")),
        ..Message::default()
    };
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n";
    let trace = [buffered(message(&GET, "", &[]), response.clone())];
    let snap = show(&[], &trace).expect_sound();
    let cut_frame = snap.frames.iter().find(|frame| frame.cap_len < frame.len).unwrap();
    assert_eq!(cut_frame.tcp_len as usize, head.len() + 1000);
    assert_eq!(cut_frame.payload, format!("{head}0123456789").as_bytes());
    assert_eq!(cut_frame.comments, ["10 of the 1000 body bytes that Envoy wrote are here"]);
    let zero = show(&["--truncated", "zero"], &trace).expect_sound().payload(false);
    assert_eq!(zero.len(), head.len() + 1000);
    assert!(zero[head.len() + 10..].iter().all(|byte| *byte == 0));
    let gap = show(&["--truncated", "gap"], &trace);
    let fin = gap.frames.iter().rfind(|frame| frame.flags & 1 == 1 && frame.src == cut_frame.src).unwrap();
    assert_eq!(fin.seq.wrapping_sub(gap.frames[1].seq) as usize, head.len() + 1000 + 1);
    // One of several chunks is cut, and its packet says so. A dissector shows the bytes that are there, and nothing stands
    // for the rest.
    let pieces = [
        MessagePiece::RequestHeaders(map(&GET)),
        MessagePiece::ResponseHeaders(map(&OK)),
        MessagePiece::ResponseBodyChunk(cut("abc")),
        MessagePiece::ResponseBodyChunk(body("def")),
    ];
    let pieces = pieces.map(|piece| segment(1, piece));
    for mode in ["snap", "gap", "zero"] {
        let shown = show(&["--truncated", mode], &pieces).expect_sound();
        let sent = shown.payload(false);
        assert!(sent.ends_with(b"\r\n\r\n3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n"), "{}", sent.escape_ascii());
        let comments = shown.comments();
        assert!(
            comments.contains("3 of the body bytes that Envoy wrote are here; how many there were is not"),
            "{comments}"
        );
    }
    // With a known length, all missing bytes count as missing.
    let pieces = [
        MessagePiece::RequestHeaders(map(&GET)),
        MessagePiece::ResponseHeaders(map(&[(":status", "200"), ("content-length", "20")])),
        MessagePiece::ResponseBodyChunk(cut("abc")),
        MessagePiece::ResponseBodyChunk(cut("def")),
    ];
    let shown = show(&["--truncated", "zero"], &pieces.map(|piece| segment(1, piece))).expect_sound();
    let sent = shown.payload(false);
    assert!(sent.ends_with(b"\r\n\r\nabcdef\0\0\0\0\0\0\0\0\0\0\0\0\0\0"), "{}", sent.escape_ascii());
}

#[test]
fn times_and_connections_are_recorded_or_made_up_and_marked() {
    let (mut request, mut response) = (message(&GET, "", &[]), message(&OK, "hi", &[]));
    request.headers_received_time = timestamp(TIME);
    response.headers_received_time = timestamp(TIME + 5_000_000);
    let recorded = |connections: bool| {
        let upstream =
            Connection { local_address: socket("10.0.0.1", 40_000), remote_address: socket("10.0.0.9", 9000) };
        TraceWrapper {
            trace: Some(Trace::HttpBufferedTrace(HttpBufferedTrace {
                request: Some(request.clone()),
                response: Some(response.clone()),
                downstream_connection: connections.then(downstream),
                upstream_connection: connections.then_some(upstream),
            })),
            configured_sample_rate: None,
        }
    };
    let shown = show(&[], &[recorded(true)]).expect_sound();
    let payload_times: Vec<_> = shown.frames.iter().filter(|f| !f.payload.is_empty()).map(|f| f.time).collect();
    assert_eq!(payload_times, [TIME, TIME + 5_000_000]);
    let ends = |shown: &Shown| [shown.frames[0].src, shown.frames[0].dst].map(|end| end.unwrap().to_string());
    assert_eq!(ends(&shown), ["192.0.2.7:50123", "10.0.0.1:8080"]);
    assert_eq!(shown.frames[0].direction, Some(1));
    assert!(!shown.comments().contains("no time"), "{}", shown.comments());
    let shown = show(&["--side", "upstream"], &[recorded(true)]).expect_sound();
    assert_eq!(ends(&shown), ["10.0.0.1:40000", "10.0.0.9:9000"]);
    assert_eq!(shown.frames[0].direction, Some(2));
    assert!(shown.comments().contains("upstream (Envoy opened the connection)"));
    let shown = show(&[], &[recorded(false)]).expect_sound();
    assert!(ends(&shown).iter().all(|end| end.starts_with("198.1")), "{:?}", ends(&shown));
    assert!(shown.comments().contains("remote address missing in the trace, made up"));

    // Streams without times get a client port each, a microsecond between pieces, and start in the second of the date
    // header.
    let date = 1_795_374_949_000_000_000;
    let dated = [(":status", "200"), ("date", "Sun, 22 Nov 2026 19:15:49 GMT"), ("content-length", "0")];
    let stream = |id| {
        let [request, response] = [MessagePiece::RequestHeaders(map(&GET)), MessagePiece::ResponseHeaders(map(&dated))];
        [segment(id, request), segment(id, response)]
    };
    let [[a1, a2], [b1, b2]] = [stream(7), stream(8)];
    let both = [a1, b1, a2, b2];
    let shown = show(&[], &both).expect_sound();
    let clients: std::collections::BTreeSet<_> =
        shown.frames.iter().filter(|frame| frame.flags & 0x12 == 2).map(|frame| frame.src).collect();
    assert_eq!(clients.len(), 2);
    let times: Vec<_> = shown.frames.iter().filter(|f| !f.payload.is_empty()).map(|f| f.time - date).collect();
    assert!(times.windows(2).all(|pair| pair[0] < pair[1]) && times[3] < 100_000, "{times:?}");
    assert!(shown.comments().contains("from the response's date header on"), "{}", shown.comments());
    let shown = show(&["--start-time", "2030-01-01T00:00:00Z"], &both).expect_sound();
    assert_eq!(shown.frames[0].time / 1_000_000_000, 1_893_456_000);
    assert!(shown.comments().contains("from --start-time on"), "{}", shown.comments());
}

/// On a pipe, each piece is in the capture before the next one is sent.
#[test]
fn live_streams_are_converted_piece_by_piece() {
    let mut running = Running::start(["--from", "delimited", "-F", "pcap", "-", "-"]);
    for (piece, replayed) in [
        (MessagePiece::RequestHeaders(map(&GET)), GET_HEAD),
        (MessagePiece::ResponseHeaders(map(&OK)), "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"),
        (MessagePiece::ResponseBodyChunk(body("tick")), "4\r\ntick\r\n"),
        (MessagePiece::ResponseBodyChunk(body("tock")), "4\r\ntock\r\n"),
    ] {
        running.send(&Dress::Delimited.file(&[segment(3, piece)]));
        running.wait_for(replayed.as_bytes());
    }
    let run = running.finish().expect_status(0);
    assert!(contains(&run.stdout, b"0\r\n\r\n"), "{run:?}");
}

/// An exchange that outgrows the buffer is written as it comes, and many such exchanges take little memory.
#[test]
fn long_streams_are_not_held() {
    let dir = Dir::new("http-long");
    let mut messages =
        vec![segment(1, MessagePiece::RequestHeaders(map(&GET))), segment(1, MessagePiece::ResponseHeaders(map(&OK)))];
    let chunk = "x".repeat(1 << 20);
    messages.extend((0..64).map(|_| segment(1, MessagePiece::ResponseBodyChunk(body(&chunk)))));
    // Streams without an end.
    for id in 2..1_000 {
        messages.push(segment(id, MessagePiece::RequestHeaders(map(&GET))));
    }
    let input = dir.create("trace_1.pb", Dress::Delimited.file(&messages));
    let output = dir.join("out.pcapng");
    let options = ["-v", "--max-connections", "100"];
    let run = tap2pcap().args(&options).arg(&input).arg(&output).run_within(256).expect_status(0);
    assert!(run.stderr.contains("there is no response"), "{run:?}");
    let statistics = tshark::lines(&output, &["-q", "-z", "conv,tcp"]);
    assert_eq!(statistics.iter().filter(|line| line.contains("<->")).count(), 999, "{statistics:#?}");
    assert!(std::fs::metadata(&output).unwrap().len() > 64 << 20);
}

#[test]
fn har_is_what_the_trace_says() {
    let dir = Dir::new("har");
    let mut request = message(
        &[
            (":method", "POST"),
            (":path", "/a?b=c&d=e f"),
            (":authority", "example.com"),
            (":scheme", "https"),
            ("cookie", "id=1; theme=dark"),
            ("content-type", "application/json"),
        ],
        "{\"a\": 1}",
        &[],
    );
    request.headers_received_time = timestamp(TIME);
    let mut response =
        message(&[(":status", "404"), ("set-cookie", "id=2; Path=/; HttpOnly"), ("location", "/x")], "", &[]);
    response.body = Some(cut(b"\0\xffbinary"));
    response.headers_received_time = timestamp(TIME + 2_500_000);
    let input = dir.create("trace_1.pb", Dress::Binary.file(&[buffered(request, response)]));
    let output = dir.join("out.har");
    convert(&["-v"], &input, &output).run().expect_status(0).expect_stderr("truncated");
    let har: Value = serde_json::from_slice(&std::fs::read(&output).unwrap()).unwrap();
    let entry = &har["log"]["entries"][0];
    assert_eq!(entry["startedDateTime"], "2026-01-31T12:00:00.123456789Z");
    assert_eq!((&entry["time"], &entry["timings"]["wait"]), (&2.5.into(), &2.5.into()));
    assert_eq!(entry["request"]["url"], "https://example.com/a?b=c&d=e%20f");
    assert_eq!(entry["request"]["queryString"][1]["value"], "e f");
    assert_eq!(entry["request"]["cookies"][1]["name"], "theme");
    assert_eq!(entry["request"]["postData"]["text"], "{\"a\": 1}");
    assert_eq!(entry["response"]["status"], 404);
    assert_eq!(entry["response"]["cookies"][0]["httpOnly"], true);
    assert_eq!(entry["response"]["redirectURL"], "/x");
    let content = &entry["response"]["content"];
    assert_eq!((&content["text"], &content["encoding"]), (&"AP9iaW5hcnk=".into(), &"base64".into()));
    assert!(content["comment"].as_str().unwrap().contains("truncated"));
    // Standard output with --format, and every request of a stream.
    let run = tap2pcap().args(&["-F", "har", "-", "-"]).stdin(std::fs::read(&input).unwrap()).run().expect_status(0);
    let other: Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!(other["log"]["entries"][0]["request"], entry["request"]);
}

/// The clock for made-up times stops at the latest time that the format holds.
#[test]
fn made_up_times_never_go_back_at_the_end_of_time() {
    let dir = Dir::new("end-of-time");
    for (format, latest) in [("pcapng", u64::MAX), ("pcap", u64::from(u32::MAX) * 1_000_000_000 + 999_999_999)] {
        for before in [0, 999, 1_000, 1_001] {
            let mut request = message(&GET, "", &[]);
            request.headers_received_time = timestamp(latest - before);
            let messages =
                [buffered(request, message(&OK, "hi", &[])), buffered(message(&GET, "", &[]), message(&OK, "hi", &[]))];
            let input = dir.create("late_1.pb", Dress::Delimited.file(&messages));
            let output = dir.join(format!("out.{format}"));
            convert(&[], &input, &output).run().expect_status(0);
            let times: Vec<_> = tshark::read(&output).iter().map(|frame| frame.time).collect();
            let first = &times[..times.len() / 2];
            assert!(first.is_sorted() && first[0] == latest - before, "{format} {before}: {times:?}");
            assert!(times.iter().all(|time| *time <= latest), "{format} {before}: {times:?}");
        }
    }
    let start = "2554-07-21T23:34:33.709551615Z";
    let trace = [buffered(message(&GET, "", &[]), message(&OK, "hi", &[]))];
    let shown = show(&["--start-time", start], &trace);
    assert!(shown.frames.iter().all(|frame| frame.time == u64::MAX), "{:#?}", shown.frames);
}

/// The body that tshark shows for each message: of HTTP/1 whole, of HTTP/2 in pieces.
fn bodies(capture: &std::path::Path) -> Vec<String> {
    let fields = ["-T", "fields", "-e", "http.file_data", "-e", "http2.data.data"];
    let lines = tshark::lines(capture, &[["-d", "tcp.port==1-65535,http"].as_slice(), &fields].concat());
    lines.into_iter().filter(|line| !line.trim().is_empty()).collect()
}

/// Wireshark shows the recorded bytes of a body that the tap cut, in every mode and version.
#[test]
fn a_body_of_unknown_length_that_was_cut_is_dissected() {
    let dir = Dir::new("cut-unknown");
    let json = std::path::Path::new(crate::util::ROOT).join("testdata/inputs/truncated_no_content_length.json");
    let html = "<html><head>";
    // The same for a streamed request in two parts, the first of which is cut as well.
    let post = [(":method", "POST"), (":path", "/p"), (":authority", "a"), (":scheme", "http")];
    let pieces = [
        MessagePiece::RequestHeaders(map(&post)),
        MessagePiece::RequestBodyChunk(cut(html)),
        MessagePiece::RequestBodyChunk(cut("the rest")),
        MessagePiece::ResponseHeaders(map(&OK)),
        MessagePiece::ResponseBodyChunk(cut(html)),
    ];
    let streamed = dir.create("trace_1.pb", Dress::Delimited.file(&pieces.map(|piece| segment(1, piece))));
    for (input, count) in [(&json, 1), (&streamed, 2)] {
        for version in ["1", "2"] {
            for mode in ["snap", "gap", "zero"] {
                // pcap holds the same packets.
                for format in ["pcapng", "pcap"].into_iter().take(if mode == "snap" { 2 } else { 1 }) {
                    let output = dir.join(format!("out.{format}"));
                    convert(&["--http", version, "--truncated", mode], input, &output).run().expect_status(0);
                    let what = format!("{} {version} {mode} {format}", input.display());
                    tshark::read(&output).iter().for_each(|frame| frame.expect_sound(&what));
                    let shown = bodies(&output).join("\n");
                    let hex: String = html.bytes().map(|byte| format!("{byte:02x}")).collect();
                    let found = shown.matches(html).count() + shown.matches(&hex).count();
                    assert!(found >= count, "{what}: {shown}");
                }
            }
        }
    }
}

/// A content-length may be any number, so no number of packets should stand for what the tap did not keep.
#[test]
fn lost_bytes_of_a_huge_body_are_skipped_in_one_step() {
    let dir = Dir::new("cut-huge");
    let json = std::path::Path::new(crate::util::ROOT).join("testdata/inputs/truncated_content_length.json");
    for version in ["1", "2"] {
        for mode in ["snap", "gap"] {
            let output = dir.join("out.pcapng");
            convert(&["--http", version, "--truncated", mode], &json, &output).run().expect_status(0);
            let frames = tshark::read(&output);
            assert!(frames.len() <= 12, "{version} {mode}: {}", frames.len());
            let errors =
                frames.iter().flat_map(|frame| &frame.expert).filter(|(severity, _)| *severity > tshark::WARNING);
            assert_eq!(errors.count(), 0, "{version} {mode}: {frames:#?}");
            if mode == "snap" {
                assert_eq!(bodies(&output).len(), 1, "{version}");
            }
        }
    }
    convert(&[], &json, &dir.join("out.pcapng")).run().expect_status(0);
    let comments: Vec<_> = tshark::read(&dir.join("out.pcapng")).into_iter().flat_map(|frame| frame.comments).collect();
    let skipped = "1015 of the 1000000115 body bytes that Envoy wrote are here; 999934778 of the missing bytes have no \
                   packets, only sequence numbers";
    assert!(comments.iter().any(|comment| comment == skipped), "{comments:#?}");
    // Missing bytes that fit into a few packets are not skipped, so Wireshark has no doubt about a sequence number.
    let response = Message {
        headers: headers(&[(":status", "200"), ("content-length", "500000")]),
        body: Some(cut("0123456789")),
        ..Message::default()
    };
    show(&[], &[buffered(message(&GET, "", &[]), response)]).expect_sound();
}

/// RFC 9113 section 8.2.2 forbids the fields of an HTTP/1 connection, and section 8.2.1 wants names to be tokens.
#[test]
fn http2_has_no_fields_of_a_connection() {
    let dir = Dir::new("h2-fields");
    let input = std::path::Path::new(crate::util::ROOT).join("testdata/faults/h2conn.pb");
    let output = dir.join("out.pcapng");
    convert(&["--http", "2"], &input, &output).run().expect_status(0);
    let names = tshark::lines(&output, &["-T", "fields", "-e", "http2.header.name"]).join(",");
    let names: Vec<_> = names.split([',', '\n']).filter(|name| !name.is_empty()).collect();
    assert_eq!(names, [":method", ":path", ":authority", ":scheme", "host", "x-utf", ":status"]);
    let comments = tshark::read(&output).into_iter().flat_map(|frame| frame.comments).collect::<Vec<_>>().join("\n");
    for words in [
        "left out of the request, because they are fields of an HTTP/1 connection: connection, transfer-encoding, \
         keep-alive, upgrade\n",
        "left out of the request, because HTTP/2 has no such names there: bad name",
        "left out of the response, because they are fields of an HTTP/1 connection: connection, transfer-encoding",
    ] {
        assert!(comments.contains(words), "{words}: {comments}");
    }
    // Names without a visible character are quoted.
    let fields = [&GET[..], &[(" ", "1"), ("", "2")]].concat();
    let shown = show_with_status(0, &["--http", "2"], &[buffered(message(&fields, "", &[]), message(&OK, "", &[]))]);
    let words = "because HTTP/2 has no such names there: \" \", \"\"\n";
    assert!(format!("{}\n", shown.comments()).contains(words), "{}", shown.comments());
    // The fields that Connection names go as well. Of te, only trailers stays. HTTP/1 keeps all of them.
    let fields = [
        (":method", "GET"),
        (":path", "/"),
        (":scheme", "http"),
        ("Connection", "te, X-Hop , close"),
        ("x-hop", "1"),
        ("te", "trailers"),
        ("te", "gzip"),
        ("Proxy-Connection", "close"),
        ("x-kept", "  blanks  "),
        (":status", "200"),
    ];
    let trace = [buffered(message(&fields, "", &[]), message(&OK, "", &[]))];
    let input = dir.create("trace_1.pb", Dress::Delimited.file(&trace));
    convert(&["--http", "2"], &input, &output).run().expect_status(0);
    let lines = tshark::lines(&output, &["-T", "fields", "-e", "http2.header.name", "-e", "http2.header.value"]);
    assert!(lines.contains(&":method,:path,:scheme,te,x-kept\tGET,/,http,trailers,blanks".to_owned()), "{lines:?}");
    convert(&["--http", "1"], &input, &output).run().expect_status(0);
    let sent: Vec<u8> = tshark::read(&output).into_iter().flat_map(|frame| frame.payload).collect();
    assert!(String::from_utf8_lossy(&sent).contains("Connection: te, X-Hop , close\r\nx-hop: 1\r\n"));
}

/// No SETTINGS_MAX_FRAME_SIZE is announced, so no frame may be larger than the default.
#[test]
fn http2_frames_are_no_larger_than_every_receiver_takes_them() {
    for size in [16_384, 16_385, 31_999, 32_000, 1_000_000] {
        let mut request = message(&GET, "", &[]);
        // Values without a pattern, which Huffman coding does not shorten.
        request.headers.extend((0..600).map(|index| header(&format!("x-{index}"), &"~^".repeat(40))));
        let mut response = message(&[(":status", "200")], "", &[("x-end", "1")]);
        let bytes: Vec<u8> = (0..size).map(|index: u32| (index % 251) as u8).collect();
        response.body = Some(body(&bytes));
        let trace = [buffered(request, response)];
        let shown = show(&["--http", "2"], &trace).expect_sound();
        let mut types = Vec::new();
        let mut data = Vec::new();
        let client = shown.payload(true);
        for (side, mut rest) in [(true, &client[24..]), (false, &shown.payload(false))] {
            while let Some((head, after)) = rest.split_first_chunk::<9>() {
                let len = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
                assert!(len <= 16_384, "{size}: {head:?}");
                let (payload, after) = after.split_at(len);
                rest = after;
                types.push((side, head[3]));
                if head[3] == 0 {
                    data.extend_from_slice(payload);
                }
                // SETTINGS_MAX_FRAME_SIZE is 5.
                assert!(head[3] != 4 || payload.chunks(6).all(|setting| setting[..2] != [0, 5]));
            }
            assert!(rest.is_empty());
        }
        assert_eq!(data, bytes, "{size}");
        assert!(types.contains(&(true, 9)), "{types:?}");
    }
}

/// gRPC-Web is made for HTTP/1.1. Over HTTP/2, which the user may ask for, Wireshark reads it frame by frame.
#[test]
fn grpc_web_is_dissected_as_grpc_web() {
    let dir = Dir::new("grpc-web");
    let grpc = b"\0\0\0\0\x07\n\x05hello";
    let trailers = b"\x80\0\0\0\x0fgrpc-status:0\r\n";
    let text = "AAAAAAcKBWhlbGxvgAAAAA9ncnBjLXN0YXR1czowDQo=".as_bytes();
    let raw = [grpc.as_slice(), trailers].concat();
    // A message that needs two frames.
    let large = [b"\0\0\0\x75\x30".as_slice(), &[0x0a, 0xac, 0xea, 0x01], &[b'x'; 29_996]].concat();
    let large = base64_simd::STANDARD.encode_to_string(&large).into_bytes();
    let cases: [(&str, Vec<&[u8]>); 4] = [
        ("application/grpc-web-text", vec![&text[..5], &text[5..23], &text[23..]]),
        ("application/grpc-web-text+proto", vec![&large[..7], &large[7..20_001], &large[20_001..]]),
        ("application/grpc-web+proto", vec![&raw[..3], &raw[3..20], &raw[20..]]),
        ("application/grpc-web; charset=utf-8", vec![&raw]),
    ];
    for (content_type, chunks) in cases {
        let post = [(":method", "POST"), (":path", "/s.S/M"), (":scheme", "http"), ("content-type", content_type)];
        let ok = [(":status", "200"), ("content-type", content_type)];
        let mut pieces = vec![MessagePiece::RequestHeaders(map(&post))];
        pieces.extend(chunks.iter().map(|chunk| MessagePiece::RequestBodyChunk(body(chunk))));
        pieces.push(MessagePiece::ResponseHeaders(map(&ok)));
        pieces.extend(chunks.iter().map(|chunk| MessagePiece::ResponseBodyChunk(body(chunk))));
        let messages: Vec<_> = pieces.into_iter().map(|piece| segment(1, piece)).collect();
        let input = dir.create("trace_1.pb", Dress::Delimited.file(&messages));
        for (options, version) in [(&[][..], "HTTP/1.1 replayed"), (&["--http", "2"], "HTTP/2 replayed")] {
            let output = dir.join("out.pcapng");
            convert(options, &input, &output).run().expect_status(0);
            let frames = tshark::read(&output);
            assert!(frames[0].comments[0].contains(version), "{content_type}: {:?}", frames[0].comments);
            frames.iter().for_each(|frame| frame.expect_sound(&content_type));
            let dissected = frames.iter().filter(|frame| frame.protocols.contains(":grpc")).count();
            assert!(dissected >= 2, "{content_type} {options:?}: {frames:#?}");
        }
    }
}

/// Names and values of a trace are escaped once in comments, and no comment outgrows its option.
#[test]
fn comments_of_replayed_exchanges_are_escaped_and_bounded() {
    let dir = Dir::new("comments");
    let mut pieces = vec![MessagePiece::RequestHeaders(map(&[
        (":method", "GET"),
        (":path", "/"),
        (":scheme", "x\u{202e}\x1b[2J\nsynthesized: nothing"),
        ("te", "trailers"),
    ]))];
    let chunk = "x".repeat(60_000);
    pieces.extend((0..6).map(|_| MessagePiece::RequestBodyChunk(body(&chunk))));
    pieces.extend((0..40).map(|head| {
        let fields = (0..8).map(|field| header(&format!("{head}-{field}{}", "\r".repeat(100)), "1"));
        let headers = std::iter::once(header(":status", "103")).chain(fields).collect();
        MessagePiece::ResponseHeaders(tap2pcap::proto::envoy::config::core::v3::HeaderMap { headers })
    }));
    let mut messages: Vec<_> = pieces.into_iter().map(|piece| segment(1, piece)).collect();
    let input = dir.create("trace_1.pb", Dress::Delimited.file(&messages));
    for version in ["auto", "1", "2"] {
        let output = dir.join("out.pcapng");
        convert(&["--http", version], &input, &output).run().expect_status(0);
        let frames = tshark::read(&output);
        let sent: usize = frames.iter().map(|frame| frame.payload.len()).sum();
        assert!(sent > 6 * 60_000, "{version}: the capture ends early, after {sent} bytes");
        let comments: Vec<_> = frames.iter().flat_map(|frame| &frame.comments).collect();
        assert!(comments.iter().all(|comment| comment.len() < 20_000), "{version}");

        let all = comments.iter().map(|comment| comment.as_str()).collect::<String>();
        assert!(!all.contains(['\u{202e}', '\x1b']), "{version}: {all}");
        let bytes = std::fs::read(&output).unwrap();
        assert!(!bytes.windows(20).any(|window| window == b"\nsynthesized: nothin"), "{version}: a line is forged");
    }
    // All heads are in the first packets, so what there is to say about them does not fit.
    messages[1..].rotate_left(6);
    let input = dir.create("trace_2.pb", Dress::Delimited.file(&messages));
    let output = dir.join("out.pcapng");
    convert(&[], &input, &output).run().expect_status(0);
    let comments = tshark::read(&output).into_iter().flat_map(|frame| frame.comments).collect::<Vec<_>>().join("\n");
    assert!(comments.contains("more notes do not fit in this comment"), "{comments}");
}

/// Notes about forty heads in one segment would be longer than the 65,535 bytes that an option of pcapng holds.
#[test]
fn many_heads_in_one_segment_give_a_sound_capture() {
    let dir = Dir::new("heads-in-one");
    let request = [(":method", "POST"), (":path", "/"), (":authority", "x"), (":scheme", "http"), ("te", "trailers")];
    let chunk = "x".repeat(60_000);
    let mut messages = vec![segment(1, MessagePiece::RequestHeaders(map(&request)))];
    messages.extend((0..6).map(|_| segment(1, MessagePiece::RequestBodyChunk(body(&chunk)))));
    let mut heads = vec![8, 1];
    for head in 0..40 {
        let fields = (0..8).map(|field| header(&format!("{head}-{field}{}", "\0".repeat(70)), "1"));
        let headers = std::iter::once(header(":status", "103")).chain(fields).collect();
        let map = tap2pcap::proto::envoy::config::core::v3::HeaderMap { headers };
        append_field(&mut heads, 5, &prost::Message::encode_to_vec(&map));
    }
    let mut bytes = Dress::Binary.file(&messages);
    append_field(&mut bytes, 2, &heads);
    bytes.extend(Dress::Binary.file(&[segment(1, MessagePiece::ResponseHeaders(map(&[(":status", "200")])))]));
    let input = dir.create("trace_1.pb", bytes);
    for version in ["auto", "1", "2"] {
        let output = dir.join("out.pcapng");
        convert(&["--http", version], &input, &output).run().expect_status(0);
        let frames = tshark::read(&output);
        assert!(frames.last().unwrap().flags & 0x10 != 0 && frames.len() > 15, "{version}: {} packets", frames.len());
    }
}

/// An exchange of the connection from this client port, from `start` nanoseconds after [`TIME`], for `length`.
fn kept_alive(port: u32, path: &str, start: u64, length: u64) -> TraceWrapper {
    let mut request = message(&[(":method", "GET"), (":path", path), (":scheme", "http")], "", &[]);
    let mut response = message(&[(":status", "200"), ("content-length", "2")], "hi", &[]);
    request.headers_received_time = timestamp(TIME + start);
    response.headers_received_time = timestamp(TIME + start + length);
    TraceWrapper {
        trace: Some(Trace::HttpBufferedTrace(HttpBufferedTrace {
            request: Some(request),
            response: Some(response),
            downstream_connection: Some(Connection { remote_address: socket("192.0.2.7", port), ..downstream() }),
            upstream_connection: None,
        })),
        configured_sample_rate: None,
    }
}

/// The client ports of the handshakes, and Wireshark's remarks about ports that are used again.
#[track_caller]
fn expect_connections(capture: &std::path::Path, ports: &[u16], options: &[&str]) -> Vec<Frame> {
    let frames = tshark::read(capture);
    let handshakes = frames.iter().filter(|frame| frame.flags & 0x12 == 2).map(|frame| frame.src.unwrap().port());
    let mut handshakes: Vec<_> = handshakes.map(|port| if ports.contains(&port) { port } else { 0 }).collect();
    handshakes.sort_unstable();
    assert_eq!(handshakes, ports, "{options:?}");
    for frame in &frames {
        frame.expect_sound(&"kept alive");
        let again = frame.expert.iter().any(|(_, text)| text.contains("numbers reused") || text.contains("same ports"));
        assert!(!again, "{frame:#?}");
    }
    let fins = frames.iter().filter(|frame| frame.flags & 1 == 1).count();
    assert_eq!(fins, 2 * ports.len(), "every connection ends once");
    frames
}

/// RFC 9112 section 9.6: after a close, the next exchange needs another connection. So does one an hour later.
#[test]
fn no_exchange_follows_a_close_or_an_hour_of_silence() {
    let dir = Dir::new("closed");
    let hour = 3_600_000_000_000;
    let mut closing = kept_alive(50_001, "/a", 0, 1_000_000);
    if let Some(Trace::HttpBufferedTrace(trace)) = &mut closing.trace {
        trace.response.as_mut().unwrap().headers.push(header("connection", "close"));
    }
    let next = |start| kept_alive(50_001, "/b", start, 1_000_000);
    let cases = [
        (closing, next(5_000_000), 2),
        (kept_alive(50_001, "/a", 0, 1_000_000), next(hour / 2), 1),
        (kept_alive(50_001, "/a", 0, 1_000_000), next(2 * hour), 2),
    ];
    for (index, (first, second, connections)) in cases.into_iter().enumerate() {
        let input = dir.create("trace_1.pb", Dress::Delimited.file(&[first, second]));
        let output = dir.join("out.pcapng");
        convert(&[], &input, &output).run().expect_status(0);
        let frames = tshark::read(&output);
        let count = |flags| frames.iter().filter(|frame| frame.flags & 0x13 == flags).count();
        assert_eq!((count(2), count(0x11)), (connections, 2 * connections), "case {index}: {frames:#?}");
    }
}

/// A recorded socket connection keeps its ports, even if an exchange was given them a day before.
#[test]
fn a_kept_connection_gives_way_to_a_recorded_one() {
    let dir = Dir::new("gives-way");
    let day = 86_400_000_000_000;
    let peer = Connection { remote_address: socket("192.0.2.7", 50_001), ..downstream() };
    let later = [fixture::read(TIME + day, b"hello"), fixture::closed(TIME + day + 1)];
    let traces = dir.fresh();
    let exchange = Dress::Binary.file(&[kept_alive(50_001, "/a", 0, 1_000_000)]);
    std::fs::write(traces.join("tap_1.pb"), exchange).unwrap();
    std::fs::write(traces.join("tap_2.pb"), Dress::Binary.file(&fixture::streamed(7, peer, later))).unwrap();
    let output = dir.join("out.pcapng");
    convert(&[], &traces, &output).run().expect_status(0);
    let frames = tshark::read(&output);
    let syns: Vec<_> = frames.iter().filter(|frame| frame.flags == 2).map(|frame| frame.src.unwrap().port()).collect();
    assert_eq!(syns, [50_001, 50_001]);
    assert_eq!(frames.iter().filter(|frame| frame.flags & 1 == 1).count(), 4, "both end once");
    assert!(!frames.iter().any(|frame| frame.comments.concat().contains("client port made up")));
}

/// Exchanges that follow each other on one HTTP/1 connection are one TCP connection, in one trace or in several.
#[test]
fn exchanges_of_one_connection_are_one_connection() {
    let dir = Dir::new("kept-alive");
    let exchanges = [
        kept_alive(50_001, "/a", 0, 1_000_000),
        kept_alive(50_002, "/other", 500_000, 1_000_000),
        kept_alive(50_001, "/b", 5_000_000, 1_000_000),
        kept_alive(50_001, "/c", 9_000_000, 1_000_000),
    ];
    let uris = |capture: &std::path::Path| {
        let fields = ["-Y", "http.request", "-T", "fields", "-e", "tcp.srcport", "-e", "http.request.uri"];
        tshark::lines(capture, &fields)
    };
    // All in one, and each in its own file as Envoy writes them.
    let one = dir.create("all_1.pb", Dress::Delimited.file(&exchanges));
    let several = dir.fresh();
    for (number, exchange) in exchanges.iter().enumerate() {
        let bytes = Dress::Binary.file(std::slice::from_ref(exchange));
        std::fs::write(several.join(format!("tap_{}.pb", 9 - number)), bytes).unwrap();
    }
    for input in [&one, &several] {
        for options in [&[][..], &["--mss", "20"]] {
            let output = dir.join("out.pcapng");
            convert(options, input, &output).run().expect_status(0);
            let frames = expect_connections(&output, &[50_001, 50_002], options);
            let shown = uris(&output);
            assert_eq!(shown.len(), 4, "{options:?} {} {shown:?} {frames:#?}", input.display());
            assert!(shown.contains(&"50001\t/c".into()), "{shown:?}");
            // A single source is written in its own order.
            assert!(input == &one || frames.windows(2).all(|pair| pair[0].time <= pair[1].time), "{options:?}");
            let goes_on = frames.iter().filter(|frame| {
                frame.comments.iter().any(|comment| comment.contains("continues the connection of the one before"))
            });
            assert_eq!(goes_on.count(), 2);
        }
    }
    convert(&["--tcp", "bare"], &several, &dir.join("bare.pcap")).run().expect_status(0);
    assert_eq!(uris(&dir.join("bare.pcap")).len(), 4);
    // With a capture for each file, there is nothing to join.
    convert(&[], &several, &dir.fresh()).run().expect_status(0);
}

/// The number includes the packets that end connections. These wait until the capture ends, because another exchange
/// may follow.
#[test]
fn verbose_numbers_are_those_of_all_packets() {
    let dir = Dir::new("verbose-packets");
    let traces = dir.fresh();
    for (index, port) in [50_001, 50_001, 50_002].into_iter().enumerate() {
        let exchange = kept_alive(port, "/a", index as u64 * 5_000_000, 1_000_000);
        std::fs::write(traces.join(format!("tap_{index}.pb")), Dress::Binary.file(&[exchange])).unwrap();
    }
    let output = dir.join("out.pcapng");
    for input in [traces.clone(), traces.join("tap_0.pb")] {
        let run = convert(&["-v"], &input, &output).run().expect_status(0);
        let words: Vec<_> = run.stderr.split_whitespace().collect();
        let numbers = words.windows(2).filter(|pair| pair[1].starts_with("packet"));
        let told: usize = numbers.map(|pair| pair[0].parse::<usize>().unwrap()).sum();
        assert_eq!(told, tshark::read(&output).len(), "{run:?}");
    }
    let captures = dir.fresh();
    let run = convert(&["-v"], &traces, &captures).run().expect_status(0);
    for index in 0..3 {
        let frames = tshark::read(&captures.join(format!("tap_{index}.pb.pcapng"))).len();
        assert!(run.stderr.contains(&format!("tap_{index}.pb: binary, 1 connection, {frames} packets\n")), "{run:?}");
    }
}

/// An HTTP/1 connection carries one exchange at a time. So exchanges that overlap are separate connections, and no tool
/// takes them for one. As HTTP/2, they are streams of one connection.
#[test]
fn exchanges_that_cannot_be_joined_get_ports_of_their_own() {
    let dir = Dir::new("not-joined");
    let overlapping = [
        kept_alive(50_001, "/a", 0, 5_000_000),
        kept_alive(50_001, "/b", 1_000_000, 1_000_000),
        kept_alive(50_001, "/c", 9_000_000, 1_000_000),
    ];
    for (options, made_up) in [(&[][..], 1), (&["--http", "2"], 0)] {
        for separate in [false, true] {
            let input = dir.fresh();
            let files: Vec<&[TraceWrapper]> =
                if separate { overlapping.chunks(1).collect() } else { vec![&overlapping[..]] };
            for (number, messages) in files.into_iter().enumerate() {
                std::fs::write(input.join(format!("tap_{number}.pb")), Dress::Delimited.file(messages)).unwrap();
            }
            let output = dir.join("out.pcapng");
            convert(options, &input, &output).run().expect_status(0);
            let frames = tshark::read(&output);
            let clients: std::collections::BTreeSet<_> =
                frames.iter().filter(|frame| frame.flags & 0x12 == 2).map(|frame| frame.src.unwrap().port()).collect();
            assert_eq!(clients.len(), made_up + 1, "{options:?} {clients:?}");
            assert!(clients.contains(&50_001), "{clients:?}");
            let marked = frames.iter().flat_map(|frame| &frame.comments);
            let marked = marked.filter(|comment| comment.contains("this exchange cannot be joined to another one"));
            assert_eq!(marked.count(), made_up);
            let again = frames.iter().flat_map(|frame| &frame.expert).any(|(_, text)| text.contains("same ports"));
            assert!(!again, "{options:?} {separate}");
        }
    }
}

/// After CONNECT, a connection carries another protocol, so an exchange with its addresses is another connection.
#[test]
fn no_exchange_follows_a_tunnel_on_its_connection() {
    let dir = Dir::new("after-tunnel");
    let tunnel = |taken: bool| {
        let mut trace = kept_alive(50_001, "/", 0, 1_000_000);
        if let Some(Trace::HttpBufferedTrace(trace)) = &mut trace.trace {
            let request = trace.request.as_mut().unwrap();
            request.headers = headers(&[(":method", "CONNECT"), (":authority", "db.example:5432")]);
            let status = if taken { "200" } else { "403" };
            trace.response.as_mut().unwrap().headers = headers(&[(":status", status), ("content-length", "2")]);
        }
        trace
    };
    for (taken, connections) in [(true, 2), (false, 1)] {
        let exchanges = [tunnel(taken), kept_alive(50_001, "/b", 5_000_000, 1_000_000)];
        let input = dir.create("all_1.pb", Dress::Delimited.file(&exchanges));
        let output = dir.join("out.pcapng");
        convert(&[], &input, &output).run().expect_status(0);
        let frames = tshark::read(&output);
        assert_eq!(frames.iter().filter(|frame| frame.flags & 0x12 == 2).count(), connections, "{frames:#?}");
        let shown = tshark::lines(&output, &["-Y", "http.response", "-T", "fields", "-e", "http.response.code"]);
        assert_eq!(shown.len(), 2, "{shown:?}");
    }
}

/// The number of connections that are kept open for more exchanges is bounded.
#[test]
fn connections_kept_for_more_exchanges_are_bounded() {
    let dir = Dir::new("kept-bound");
    let many: Vec<_> =
        (0..5_000).map(|number| kept_alive(1_000 + number, "/", u64::from(number) * 10_000, 1_000)).collect();
    let input = dir.create("many_1.pb", Dress::Delimited.file(&many));
    let output = dir.join("out.pcapng");
    convert(&[], &input, &output).run().expect_status(0);
    let frames = tshark::read(&output);
    let fins: Vec<_> = frames.iter().enumerate().filter(|(_, frame)| frame.flags & 1 == 1).map(|(at, _)| at).collect();
    assert_eq!(fins.len(), 10_000);
    let before_last_handshake = frames.iter().rposition(|frame| frame.flags & 0x12 == 2).unwrap();
    assert!(fins[0] < before_last_handshake, "the oldest are closed to make room");
    assert!(frames.windows(2).all(|pair| pair[0].time <= pair[1].time));
}

/// The advice about made-up addresses depends on the kind of trace.
#[test]
fn missing_addresses_of_http_traces_come_with_advice() {
    let dir = Dir::new("advice");
    let streamed = [
        segment(1, MessagePiece::RequestHeaders(map(&GET))),
        segment(1, MessagePiece::ResponseHeaders(map(&[(":status", "200"), ("content-length", "0")]))),
    ];
    for (messages, advice) in [
        (&streamed[..], "a streamed HTTP trace never has any: buffered ones have them with the tap filter's"),
        (&[buffered(message(&GET, "", &[]), message(&OK, "", &[]))], "record_downstream_connection records them"),
    ] {
        let input = dir.create("trace_1.pb", Dress::Delimited.file(messages));
        let run = tap2pcap().args(&["validate"]).arg(&input).run().expect_status(0);
        assert!(run.stdout_text().contains(advice), "{run:?}");
    }
}

#[test]
fn a_field_with_many_line_breaks_counts_once() {
    let dir = Dir::new("line-breaks");
    let mut fields = headers(&[(":method", "GET"), (":path", "/")]);
    fields.extend((0..10).map(|index| header(&format!("x-{index}"), &"\r\n".repeat(1000))));
    let head = MessagePiece::RequestHeaders(HeaderMap { headers: fields });
    let input = dir.create("path_0.pb_length_delimited", Dress::Delimited.file(&[segment(1, head)]));
    let run = tap2pcap().arg("validate").arg(&input).run();
    assert!(run.stdout_text().contains("x-6, x-7 and 2 more"), "{run:?}");
}
