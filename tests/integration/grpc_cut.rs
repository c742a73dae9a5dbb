//! gRPC bodies that the tap cut: the length before the message says how much of it is missing.

use tap2pcap::proto::tap::{
    Body, TraceWrapper, body::BodyType, http_buffered_trace::Message, http_streamed_trace_segment::MessagePiece,
};

use crate::{
    fixture::Dress,
    http::{GRPC_REQUEST, GRPC_RESPONSE, body, buffered, cut, grpc_message, headers, map, segment},
    tshark,
    util::{Dir, convert, tap2pcap},
};

const TRAILERS: [(&str, &str); 1] = [("grpc-status", "0")];

/// A gRPC message of a protobuf message with one string; `len` bytes in all, with its prefix.
fn message(len: usize) -> Vec<u8> {
    let text = len - 5 - 3;
    let bytes = [&[0x0a, text as u8 | 0x80, (text >> 7) as u8], vec![b'x'; text].as_slice()].concat();
    grpc_message(&bytes)
}

fn exchange(request: &[u8], response: &[u8]) -> TraceWrapper {
    let half = |fields: &[(&str, &str)], bytes| Message {
        headers: headers(fields),
        body: Some(cut(bytes)),
        ..Message::default()
    };
    let request = half(&GRPC_REQUEST, request);
    let response = Message { trailers: headers(&TRAILERS), ..half(&GRPC_RESPONSE, response) };
    buffered(request, response)
}

/// What became of a trace: the sizes of the gRPC messages that tshark dissects, and the DATA bytes on the wire of each
/// side.
struct Shown {
    messages: usize,
    data: [u64; 2],
    comments: String,
}

#[track_caller]
fn show(what: &str, options: &[&str], messages: &[TraceWrapper], live: bool) -> Shown {
    let dir = Dir::new("grpc-cut");
    let bytes = Dress::Delimited.file(messages);
    let input = dir.create("trace_1.pb", &bytes);
    let mut output = dir.join("out.pcapng");
    if live {
        output = dir.create("live.pcapng", tap2pcap().args(options).args(&["-", "-"]).stdin(bytes).run().stdout);
    } else {
        convert(options, &input, &output).run().expect_status(0);
    }
    let frames = tshark::read(&output);
    for frame in &frames {
        frame.expect_sound(&what);
        assert!(!frame.protocols.contains("malformed"), "{what}: {frame:?}");
    }
    let decode = ["-d", "tcp.port==1-65535,http"];
    let fields =
        ["-Y", "http2.type == 0", "-T", "fields", "-e", "tcp.dstport", "-e", "http2.type", "-e", "http2.length"];
    let lines = tshark::lines(&output, &[decode.as_slice(), &fields].concat());
    let server = frames[0].dst.unwrap().port().to_string();
    let mut data = [0; 2];
    for line in &lines {
        let [port, types, lengths] = line.split('\t').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let of_data = types.split(',').zip(lengths.split(',')).filter(|(kind, _)| *kind == "0");
        data[usize::from(port != server)] += of_data.map(|(_, length)| length.parse::<u64>().unwrap()).sum::<u64>();
    }
    // No dissector reports anything wrong.
    let wrong = [decode.as_slice(), &["-Y", "_ws.malformed or _ws.expert.severity >= warning"]].concat();
    assert_eq!(tshark::lines(&output, &wrong), Vec::<String>::new(), "{what}");
    // The trailers follow all that is missing.
    let status = ["-Y", "http2.headers.status", "-T", "fields", "-e", "tcp.stream"];
    assert!(!tshark::lines(&output, &[decode.as_slice(), &status].concat()).is_empty(), "{what}");
    let whole = [decode.as_slice(), &["-Y", "grpc", "-T", "fields", "-e", "grpc.message_length"]].concat();
    let whole = tshark::lines(&output, &whole).iter().map(|line| line.split(',').count()).sum();
    let comments = frames.into_iter().flat_map(|frame| frame.comments).collect::<Vec<_>>().join("\n");
    Shown { messages: whole, data, comments }
}

#[test]
fn a_cut_message_is_as_long_as_its_prefix_says() {
    let (long, short) = (message(3000), message(100));
    let both = [short.clone(), long.clone()].concat();
    let compressed = [&[1][..], &long[1..]].concat();
    for (what, present, messages, data) in [
        ("in its text", long[..1024].to_vec(), 0, 3000),
        ("one byte short", long[..2999].to_vec(), 0, 3000),
        ("after a whole one", both[..1024].to_vec(), 1, 3100),
        ("compressed", compressed[..1024].to_vec(), 0, 3000),
        ("after its prefix", long[..5].to_vec(), 0, 3000),
        // The length is unknown, so one byte stands for the rest.
        ("in its prefix", long[..3].to_vec(), 0, 4),
        ("in a later prefix", both[..103].to_vec(), 1, 104),
        // Nothing need follow, so no byte stands for it.
        ("between two", short.clone(), 1, 100),
        // The missing bytes do not all fit into the frame.
        ("far beyond a frame", message(16_000).into_iter().chain(*b"\0\0\x01\0\0").collect(), 1, 16_000 + 65_541),
    ] {
        let buffered = [exchange(&present, &present)];
        let streamed = [
            MessagePiece::RequestHeaders(map(&GRPC_REQUEST)),
            MessagePiece::RequestBodyChunk(cut(&present)),
            MessagePiece::ResponseHeaders(map(&GRPC_RESPONSE)),
            MessagePiece::ResponseBodyChunk(cut(&present)),
            MessagePiece::ResponseTrailers(map(&TRAILERS)),
        ]
        .map(|piece| segment(1, piece));
        for (trace, mode, live) in [(&buffered[..], "buffered", false), (&streamed, "live", true)] {
            let what = format!("{what}, {mode}");
            let shown = show(&what, &[], trace, live);
            assert_eq!((shown.messages, shown.data), (2 * messages, [data; 2]), "{what}: {}", shown.comments);
        }
    }
    let shown = show("comment", &[], &[exchange(&both[..1024], b"")], false);
    assert!(shown.comments.contains("1024 of the 3100 body bytes that Envoy read are here"), "{}", shown.comments);
}

/// A streamed trace goes on after a cut, with the rest of the message or with the next one.
#[test]
fn a_stream_goes_on_after_a_cut_message() {
    let (long, short) = (message(3000), message(100));
    let pieces = |chunks: Vec<MessagePiece>| {
        let mut pieces = vec![MessagePiece::RequestHeaders(map(&GRPC_REQUEST))];
        pieces.push(MessagePiece::ResponseHeaders(map(&GRPC_RESPONSE)));
        pieces.extend(chunks);
        pieces.push(MessagePiece::ResponseTrailers(map(&TRAILERS)));
        pieces.into_iter().map(|piece| segment(1, piece)).collect::<Vec<_>>()
    };
    let cut = |bytes: &[u8]| MessagePiece::ResponseBodyChunk(cut(bytes));
    let whole = |bytes: &[u8]| MessagePiece::ResponseBodyChunk(body(bytes));
    let cases = [
        ("another message", vec![cut(&long[..1024]), whole(&short), cut(&short[..50])], 1, 3000 + 200),
        // The first cut is inside the message, so one byte stands for its rest, and one for the rest of the second.
        ("its rest", vec![cut(&long[..1024]), cut(&long[2000..2500]), whole(&short)], 1, 1025 + 501 + 100),
    ];
    for (what, chunks, messages, data) in cases {
        let shown = show(what, &[], &pieces(chunks), false);
        assert_eq!((shown.messages, shown.data[1]), (messages, data), "{what}: {}", shown.comments);
    }
}

/// So many bytes are missing that no number of frames should stand for them.
#[test]
fn the_missing_bytes_of_a_gigabyte_message_are_counted() {
    let present = [&[0, 0x40, 0, 0, 0][..], &message(1000)[5..]].concat();
    let shown = show("huge", &[], &[exchange(&present, &present)], false);
    assert_eq!(shown.data, [1001; 2]);
    assert!(shown.comments.contains("by its length, 1073740829 bytes of a message of the request are missing"));
}

/// gRPC-Web, which only `--http 2` replays as gRPC frames, and JSON_BODY_AS_STRING.
#[test]
fn other_forms_of_grpc_are_cut_alike() {
    let half = |content_type, bytes: &[u8]| {
        let request = [(":method", "POST"), (":path", "/s.S/M"), (":scheme", "http"), ("content-type", content_type)];
        let response = [(":status", "200"), ("content-type", content_type)];
        let message = |fields: &[(&str, &str)]| Message {
            headers: headers(fields),
            body: Some(cut(bytes)),
            trailers: headers(&[]),
            ..Message::default()
        };
        [buffered(message(&request), message(&response))]
    };
    let long = message(3000);
    let shown = show("grpc-web", &["--http", "2"], &half("application/grpc-web+proto", &long[..1024]), false);
    assert_eq!(shown.data, [3000; 2]);
    let text = base64_simd::STANDARD.encode_to_string(&long);
    let cut_text = half("application/grpc-web-text", &text.as_bytes()[..1022]);
    assert_eq!(show("grpc-web-text", &["--http", "2"], &cut_text, false).data, [1023; 2]);
    // A message as text has lost its binary data, but the bytes of the prefix are text and still give its length.
    let as_string = |bytes: &[u8]| {
        Some(Body { body_type: Some(BodyType::AsString(String::from_utf8(bytes.to_vec()).unwrap())), truncated: false })
    };
    let half = |fields: &[(&str, &str)]| Message {
        headers: headers(fields),
        body: as_string(&message(100)[..60].iter().map(|byte| byte & 0x7f).collect::<Vec<_>>()),
        ..Message::default()
    };
    let response = Message { trailers: headers(&TRAILERS), ..half(&GRPC_RESPONSE) };
    let trace = [buffered(half(&GRPC_REQUEST), response)];
    assert_eq!(show("JSON_BODY_AS_STRING", &[], &trace, false).data, [100; 2]);
}
