//! Bounds that keep a hostile trace from taking all memory or time, and what happens at each.

use std::{fs, io::Write as _, path::Path};

use flate2::{Compression, write::GzEncoder};
use tap2pcap::proto::tap::{
    Connection, HttpBufferedTrace, TraceWrapper, http_buffered_trace,
    http_streamed_trace_segment::MessagePiece as HttpPiece, socket_streamed_trace_segment::MessagePiece,
    trace_wrapper::Trace,
};

use crate::{
    batch::Running,
    fixture::{self, Dress, TIME, buffered, downstream, internal, pipe, read, segment, socket, streamed},
    http, tshark,
    util::{Dir, Run, convert, tap2pcap},
    wire::{append_field, append_varint},
};

/// A trace of three events, the second of which is the largest.
fn with_a_large_one(dress: Dress) -> Vec<u8> {
    let events = [read(TIME, b"before"), read(TIME + 1, &[b'x'; 20_000]), read(TIME + 2, b"after")];
    dress.file(&fixture::streamed(1, downstream(), events))
}

#[test]
fn a_message_over_the_limit_is_passed_over() {
    let dir = Dir::new("max-message");
    for dress in [Dress::Binary, Dress::Delimited] {
        // The event is longer than one read, so its length is known before all of it is there.
        let events = [read(TIME, b"before"), read(TIME + 1, &vec![b'x'; 2 << 20]), read(TIME + 2, b"after")];
        let trace = dress.file(&fixture::streamed(1, downstream(), events));
        let input = dir.fresh().join("trace");
        fs::write(&input, trace).unwrap();
        let output = dir.fresh().join("out.pcapng");
        let options = ["--tcp", "bare", "--max-message", "1048576"];
        convert(&options, &input, &output)
            .run()
            .expect_status(1)
            .expect_stderr("message 2: a message of 2097")
            .expect_stderr("--max-message allows 1048576 bytes");
        let payloads: Vec<_> = tshark::read(&output).into_iter().map(|frame| frame.payload).collect();
        assert_eq!(payloads, [b"before".to_vec(), b"after".to_vec()], "{dress:?}");
    }
}

#[test]
fn without_lengths_the_message_alone_is_passed_over_too() {
    let dir = Dir::new("max-message-text");
    for dress in [Dress::Text, Dress::Json] {
        let events = [read(TIME, b"before"), read(TIME + 1, &vec![b'x'; 2 << 20]), read(TIME + 2, b"after")];
        let trace = dress.file(&fixture::streamed(1, downstream(), events));
        let input = dir.fresh().join("trace");
        fs::write(&input, trace).unwrap();
        let output = dir.fresh().join("out.pcapng");
        convert(&["--tcp", "bare", "--max-message", "1048576"], &input, &output)
            .run()
            .expect_status(1)
            .expect_stderr("message 2: a message of 1048577 bytes or more is passed over; --max-message allows");
        let payloads: Vec<_> = tshark::read(&output).into_iter().map(|frame| frame.payload).collect();
        assert_eq!(payloads, [b"before".to_vec(), b"after".to_vec()], "{dress:?}");
    }
}

#[test]
fn a_message_within_the_default_limit_is_converted() {
    let dir = Dir::new("max-message-default");
    for dress in Dress::ALL {
        let input = dir.fresh().join("trace");
        fs::write(&input, with_a_large_one(dress)).unwrap();
        convert(&["--tcp", "bare"], &input, &dir.fresh().join("out.pcapng")).run().expect_clean();
    }
}

#[test]
fn beyond_the_limit_the_oldest_connections_are_given_up() {
    let dir = Dir::new("max-connections");
    let messages: Vec<_> =
        (1..=10).flat_map(|id| fixture::streamed(id, downstream(), [read(TIME + id, b"hello")])).collect();
    let input = dir.create("trace.pb", Dress::Binary.file(&messages));
    let output = dir.join("out.pcapng");
    convert(&["--tcp", "bare", "--max-connections", "3"], &input, &output)
        .run()
        .expect_status(1)
        .expect_stderr("open at once than the 3 that --max-connections allows; the oldest are given up");
    assert_eq!(tshark::read(&output).len(), 10, "every event is converted all the same");
    convert(&["--tcp", "bare", "--max-connections", "10"], &input, &output).run().expect_clean();
}

#[test]
fn events_and_fields_beyond_their_limits_are_passed_over() {
    let dir = Dir::new("max-events");
    let events = [read(TIME, b"one"), read(TIME + 1, b"two"), read(TIME + 2, b"three")];
    for dress in Dress::ALL {
        let first = buffered(1, downstream(), [read(TIME, b"zero")]);
        let trace = dress.file(&[first, buffered(2, downstream(), events.clone())]);
        let input = dir.create(&format!("trace.{}", dress.suffix()), trace);
        let output = dir.join("out.pcapng");
        convert(&["--tcp", "bare", "--max-events", "3"], &input, &output).run().expect_clean();
        assert_eq!(tshark::read(&output).len(), 4, "{dress:?}");
        let run = convert(&["--tcp", "bare", "--max-events", "2"], &input, &output).run().expect_status(1);
        let run =
            run.expect_stderr("message 1: a message of 3 events; the last 1 are passed over, --max-events allows 2");
        assert!(run.stderr.contains(&format!("{}: byte ", input.display())), "{run:?}");
        assert_eq!(tshark::read(&output).len(), 3, "{dress:?}");
        let run = tap2pcap().args(&["validate", "--json", "--max-events", "2"]).arg(&input).run().expect_status(1);
        assert!(run.stdout_text().contains("\"code\":\"too-large\""), "{run:?}");
    }
    for name in [
        "filter_buf_JSON_BODY_AS_BYTES_6464080477012765834.json",
        "filter_str_PROTO_TEXT_12765611462414302121.pb_text",
        "filter_buf_PROTO_BINARY_14876904119277855790.pb",
    ] {
        let input = Path::new(crate::util::ROOT).join("testdata/envoy/1.40.0").join(name);
        for output in [dir.join("out.pcapng"), dir.join("out.har")] {
            convert(&["--max-headers", "100"], &input, &output).run().expect_status(0);
            let run = convert(&["--max-headers", "2"], &input, &output).run().expect_status(1);
            run.expect_stderr("header fields; the last").expect_stderr("--max-headers allows 2");
        }
    }
}

/// Runs a conversion, HAR, `validate` and `info` on one input, each in so many MiB of address space.
fn all_within(dir: &Dir, mebibytes: u64, options: &[&str], input: &Path) -> [Run; 4] {
    let output = |name: &str| tap2pcap().args(options).arg(input).arg(dir.join(name)).run_within(mebibytes);
    let inspect = |command: &str| tap2pcap().args(&[command]).args(options).arg(input).run_within(mebibytes);
    [output("out.pcapng"), output("out.har"), inspect("validate"), inspect("info")].map(Run::expect_no_panic)
}

fn field(number: u64, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    append_field(&mut out, number, bytes);
    out
}

/// `HttpBufferedTrace.request` with these fields.
fn request(fields: &[(&str, &[u8])]) -> Vec<u8> {
    let fields = fields.iter().flat_map(|(key, value)| field(1, &[field(1, key.as_bytes()), field(2, value)].concat()));
    field(1, &field(1, &fields.collect::<Vec<u8>>()))
}

/// Two bytes of a trace make an event, a header field or a cookie, which must not take a hundred bytes each.
#[test]
fn millions_of_tiny_records_take_little_memory() {
    const SIZE: usize = 2 << 20;
    // The program itself takes a third of it in a build without optimization.
    const MEBIBYTES: u64 = 80;
    let dir = Dir::new("tiny-records");
    let repeated = |part: &[u8]| part.repeat(SIZE / part.len());
    let line = [(":method", &b"GET"[..]), (":path", b"/")];
    let messages = [
        ("buffered events", field(3, &repeated(&[0x1a, 0])), true),
        ("streamed events", field(4, &[&[8, 1][..], &field(4, &repeated(&[0x0a, 0]))].concat()), true),
        ("connections of events", field(3, &repeated(&[0x1a, 2, 0x2a, 0])), true),
        ("fields", field(1, &field(1, &repeated(&[0x0a, 0]))), true),
        ("parts", field(1, &field(1, &repeated(&[0x0a, 0, 0x1a, 0]))), true),
        ("cookies", request(&[line[0], line[1], ("cookie", &repeated(b"a;"))]), false),
        ("parameters", request(&[line[0], (":path", &[b"/?", repeated(b"a&").as_slice()].concat())]), false),
        ("escaped bytes", request(&[line[0], line[1], ("x", &repeated(b"\0"))]), false),
    ];
    for (what, message, is_beyond) in messages {
        let input = dir.create("trace.pb", message);
        for run in all_within(&dir, MEBIBYTES, &["--from", "binary", "--max-events", "65536"], &input) {
            let text = format!("{}{}", run.stderr, String::from_utf8_lossy(&run.stdout));
            assert_eq!(text.contains(" are passed over, "), is_beyond, "{what}: {run:?}");
        }
    }
}

/// After a large message the window has room for a million damaged ones.
#[test]
fn millions_of_findings_take_little_memory() {
    const SIZE: usize = 1 << 20;
    let dir = Dir::new("findings");
    let mut bytes = Dress::Delimited.file(&streamed(1, downstream(), [read(TIME, &vec![b'x'; SIZE])]));
    // A message of one byte, a field with the number 0.
    bytes.extend([1, 0].repeat(SIZE / 2));
    let input = dir.create("trace.pb_length_delimited", bytes);
    let [run, _, validate, _] = all_within(&dir, 64, &[], &input);
    run.expect_status(1).expect_stderr("524268 more findings like these");
    // Each of them is printed.
    assert_eq!(validate.stdout.iter().filter(|byte| **byte == b'\n').count(), 524_288 + 1);
}

/// Several stages keep the addresses of a connection for as long as it is open.
#[test]
fn long_addresses_take_little_memory() {
    const CONNECTIONS: u64 = 150;
    let dir = Dir::new("long-addresses");
    let long = "a".repeat(256 << 10);
    let connection = |id: u64| match id % 3 {
        0 => Connection { local_address: pipe(&long), remote_address: pipe(&long) },
        1 => Connection { local_address: socket(&long, 80), remote_address: None },
        _ => Connection { local_address: internal(&long, &long), remote_address: None },
    };
    let messages: Vec<_> = (0..CONNECTIONS).map(|id| segment(id, MessagePiece::Connection(connection(id)))).collect();
    let input = dir.create("trace.pb", Dress::Binary.file(&messages));
    let [run, _, validate, info] = all_within(&dir, 48, &[], &input);
    run.expect_status(1).expect_stderr("message 0: an address of 262144 bytes; only its beginning is kept");
    assert_eq!(validate.stdout_text().matches(" error ").count(), 0, "each is one line");
    assert_eq!(validate.stdout_text().matches("only its beginning is kept").count() as u64, CONNECTIONS);
    assert!(info.stdout_text().lines().count() as u64 >= CONNECTIONS);
    // An address of the greatest length that is allowed is kept whole.
    let name = "n".repeat(1024);
    let whole = streamed(1, Connection { local_address: pipe(&name), ..downstream() }, [read(TIME, b"x")]);
    let run = tap2pcap().args(&["info", "--json"]).arg(dir.create("whole.pb", Dress::Binary.file(&whole))).run();
    assert!(run.expect_clean().stdout_text().contains(&format!("\"{name}\"")));
}

/// Each of many HTTP exchanges holds a large body for a moment.
#[test]
fn large_bodies_of_many_exchanges_take_little_memory() {
    const EXCHANGES: u64 = 32;
    let dir = Dir::new("many-bodies");
    let part = |id: u64, number: u64, part: &[u8]| {
        let mut id_field = vec![8];
        append_varint(&mut id_field, id);
        field(2, &[id_field, field(number, part)].concat())
    };
    let head = |id| part(id, 2, &field(1, &[field(1, b":method"), field(2, b"POST")].concat()));
    let body = field(1, &vec![b'x'; 2 << 20]);
    let mut bytes: Vec<u8> = (0..EXCHANGES).flat_map(head).collect();
    (0..EXCHANGES).for_each(|id| bytes.extend(part(id, 3, &body)));
    let input = dir.create("trace.pb", bytes);
    // HAR needs both halves of an exchange whole, so it holds as much as one message may have.
    let options = ["--max-message", "4194304"];
    for (run, status) in all_within(&dir, 64, &options, &input).into_iter().zip([0, 0, 0, 0]) {
        run.expect_status(status);
    }
}

/// A gibibyte of zeros is packed in a mebibyte. It is read to its end in little memory, or refused at once.
#[test]
fn a_compression_bomb_takes_no_memory() {
    let dir = Dir::new("bomb");
    let mut start = Dress::Delimited.file(&fixture::streamed(1, downstream(), [read(TIME, b"hello")]));
    // A message that claims 2 GiB less one byte follows.
    start.extend([0xff, 0xff, 0xff, 0xff, 0x07, 0x22]);
    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    gzip.write_all(&start).unwrap();
    let zeros = vec![0; 1 << 20];
    for _ in 0..1024 {
        gzip.write_all(&zeros).unwrap();
    }
    let input = dir.create("bomb.pb.gz", gzip.finish().unwrap());
    let output = dir.join("out.pcapng");
    tap2pcap()
        .arg(&input)
        .arg(&output)
        .run_within(256)
        .expect_status(1)
        .expect_stderr("message 2: a message of 2147483652 bytes or more is passed over");
    assert!(tshark::read(&output).iter().any(|frame| frame.payload == b"hello"));
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// With a window of 2 to the power of `window_log` bytes.
fn zstandard(bytes: &[u8], window_log: u32) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 3).unwrap();
    encoder.window_log(window_log).unwrap();
    encoder.include_contentsize(false).unwrap();
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Other compression bombs, with every command.
#[test]
fn no_packing_makes_memory_grow() {
    const LIMIT: [&str; 2] = ["--max-message", "1048576"];
    let dir = Dir::new("bombs");
    let start = Dress::Delimited.file(&streamed(1, downstream(), [read(TIME, b"hello")]));
    // A sound message of 8 MiB.
    let huge = Dress::Delimited.file(&streamed(1, downstream(), [read(TIME, &vec![0; 8 << 20])]));
    let zeros = vec![0; 8 << 20];
    let bombs = [
        ("huge.pb_length_delimited.gz", gzip(&huge)),
        ("huge.pb_length_delimited.zst", zstandard(&huge, 20)),
        ("zeros.pb_length_delimited.gz", gzip(&[&start[..], &zeros].concat())),
        ("zeros.pb_length_delimited.zst", zstandard(&[&start[..], &zeros].concat(), 20)),
        (
            "members.pb.gz",
            [gzip(&Dress::Binary.file(&streamed(1, downstream(), []))), gzip(b"").repeat(20_000)].concat(),
        ),
        (
            "frames.pb.zst",
            [zstandard(&Dress::Binary.file(&streamed(1, downstream(), [])), 20), zstandard(b"", 20).repeat(20_000)]
                .concat(),
        ),
    ];
    for (name, bytes) in bombs {
        assert!(bytes.len() < 1 << 20, "{name}: no bomb");
        let input = dir.create(name, bytes);
        let [run, _, validate, info] = all_within(&dir, 48, &LIMIT, &input);
        let is_huge = name.starts_with("huge");
        if is_huge {
            run.expect_stderr("message 1: a message of 838").expect_stderr("--max-message allows 1048576 bytes");
            assert!(validate.stdout_text().contains("too-large"), "{validate:?}");
        }
        assert!(!info.stdout.is_empty(), "{name}: {info:?}");
    }
    // What is packed six times is read, and no more than that is unpacked.
    let mut bytes = start;
    for depth in 1..=7 {
        bytes = if depth % 2 == 0 { zstandard(&bytes, 20) } else { gzip(&bytes) };
        let input = dir.create("packed", &bytes);
        for run in all_within(&dir, 64, &LIMIT, &input).into_iter().skip(usize::from(depth < 7) * 2) {
            let text = format!("{}{}", run.stderr, String::from_utf8_lossy(&run.stdout));
            assert_eq!(text.contains("it is gzip data"), depth == 7, "{run:?}");
            run.expect_status(if depth == 7 { 2 } else { 0 });
        }
    }
}

/// A Zstandard frame asks for a window. It gets up to 128 MiB, as much as `zstd` itself allows.
#[test]
fn a_window_beyond_what_zstandard_allows_is_refused() {
    let dir = Dir::new("window");
    let trace = Dress::Binary.file(&streamed(1, downstream(), [read(TIME, b"hello")]));
    let output = dir.join("out.pcapng");
    convert(&["--tcp", "bare"], &dir.create("allowed.pb.zst", zstandard(&trace, 27)), &output).run().expect_clean();
    for window_log in [28, 31] {
        let input = dir.create("wide.pb.zst", zstandard(&trace, window_log));
        for run in all_within(&dir, 96, &[], &input) {
            let run = run.expect_status(2);
            let text = format!("{}{}", run.stderr, String::from_utf8_lossy(&run.stdout));
            assert!(text.contains("wide.pb.zst: cannot read: "), "{run:?}");
            assert!(text.contains("a window of more than 128 MiB; unpack it first with zstd -d --long=31"), "{run:?}");
        }
    }
}

/// The zeros that stand for lost bytes are in memory once, not once for each connection that lost some.
#[test]
fn zeros_of_many_connections_take_the_memory_of_one() {
    let dir = Dir::new("zeros");
    let connections = (1..=600).flat_map(|id| {
        let lossy = [(fixture::cut(read(TIME + id, b"x")), 1 << 20), (read(TIME + id + 1, b"y"), 1)];
        let events = fixture::positions(lossy).into_iter().map(MessagePiece::Event);
        std::iter::once(MessagePiece::Connection(downstream()))
            .chain(events)
            .map(move |piece| segment(id, piece))
            .collect::<Vec<_>>()
    });
    let input = dir.create("trace.pb", Dress::Binary.file(&connections.collect::<Vec<_>>()));
    let run = tap2pcap()
        .args(&["--quiet", "--truncated", "zero", "--format", "pcapng"])
        .arg(&input)
        .arg("/dev/null")
        .run_within(96);
    // The traces have no closed event, which is only a warning.
    run.expect_status(0);
}

/// Converts messages and fails after a minute. Those of the tests below would take several minutes if each item were
/// compared with each other item.
fn convert_in_time(name: &str, messages: &[TraceWrapper]) {
    let dir = Dir::new(name);
    let input = dir.create("path_0.pb_length_delimited", Dress::Delimited.file(messages));
    let output = dir.join("out.pcapng");
    Running::start([Path::new("-q"), &input, &output]).finish().expect_no_panic();
    assert!(output.exists());
}

#[test]
fn many_names_in_a_connection_field_take_linear_time() {
    let mut fields = http::headers(&[(":method", "GET"), (":path", "/"), ("te", "trailers")]);
    fields.push(http::header("connection", &"a,".repeat(60_000)));
    fields.extend(std::iter::repeat_n(http::header("b", ""), 60_000));
    let head = HttpPiece::RequestHeaders(http::HeaderMap { headers: fields });
    convert_in_time("nominated", &[http::segment(1, head)]);
}

#[test]
fn many_buffered_exchanges_of_one_connection_take_linear_time() {
    let half = |pairs: &[(&str, &str)]| {
        Some(http_buffered_trace::Message { headers: http::headers(pairs), ..Default::default() })
    };
    let exchange = TraceWrapper {
        trace: Some(Trace::HttpBufferedTrace(HttpBufferedTrace {
            request: half(&[(":method", "GET"), (":path", "/"), ("te", "trailers")]),
            response: half(&[(":status", "200")]),
            downstream_connection: Some(downstream()),
            upstream_connection: None,
        })),
        configured_sample_rate: None,
    };
    convert_in_time("one-trace-id", &vec![exchange; 12_000]);
}
