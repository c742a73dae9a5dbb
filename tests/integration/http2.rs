//! The example of Envoy's documentation of the tap: an HTTP/2 connection, dissected from its first frame to its last.

use std::{fs, path::Path, process::Command};

use crate::{
    fixture::{Dress, TIME, buffered, closed, cut, end_stream, positions, read, socket, streamed, timestamp, write},
    manifest::sample,
    tshark,
    util::{Dir, PROGRAM, Run, convert, run_command, tap2pcap},
};
use tap2pcap::proto::tap::{
    Connection, SocketEvent, TraceWrapper, body::BodyType, socket_event::EventSelector, trace_wrapper::Trace,
};

/// A frame (RFC 9113 section 4.1): 24 bits of length, type, flags, stream, payload.
fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    [&(payload.len() as u32).to_be_bytes()[1..], &[kind, flags, 0, 0, 0, stream], payload].concat()
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const WINDOW_UPDATE: u8 = 8;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// The bytes of the connection in six events, as Envoy would log them.
pub fn events() -> [(bool, Vec<u8>); 6] {
    // MAX_CONCURRENT_STREAMS 100, INITIAL_WINDOW_SIZE 1 MiB; then the connection's window.
    let settings = frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100, 0, 4, 0, 0x10, 0, 0]);
    let settings_ack = frame(SETTINGS, ACK, 0, &[]);
    let window = frame(WINDOW_UPDATE, 0, 0, &[0, 0x0f, 0, 1]);
    // RFC 7541 appendix A: :method GET, :scheme http, :path /; :authority is a literal that is not indexed.
    let request = [&[0x82, 0x86, 0x84, 0x01, 15], b"localhost:10000".as_slice()].concat();
    // :status 200; content-type (index 31) text/plain.
    let response = [&[0x88, 0x0f, 0x10, 10], b"text/plain".as_slice()].concat();
    [
        (
            true,
            [
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
                settings.clone(),
                window.clone(),
                frame(HEADERS, END_STREAM | END_HEADERS, 1, &request),
            ]
            .concat(),
        ),
        (false, [settings, settings_ack.clone(), window].concat()),
        (true, settings_ack),
        (false, frame(HEADERS, END_HEADERS, 1, &response)),
        (false, frame(DATA, 0, 1, b"hello, ")),
        (false, frame(DATA, END_STREAM, 1, b"world\n")),
    ]
}

#[test]
fn the_documented_example_is_dissected_to_the_last_frame() {
    let dir = Dir::new("http2");
    let events = events();
    let connection =
        Connection { local_address: socket("127.0.0.1", 10_000), remote_address: socket("127.0.0.1", 53_288) };
    let trace = buffered(
        1,
        connection,
        events
            .iter()
            .zip(TIME..)
            .map(|((inbound, bytes), time)| if *inbound { read(time, bytes) } else { write(time, bytes) }),
    );
    for dress in Dress::ALL {
        let input = dir.create("trace_1", dress.file(std::slice::from_ref(&trace)));
        for suffix in ["pcap", "pcapng"] {
            let output = dir.join(format!("out.{suffix}"));
            convert(&["--tcp", "bare"], &input, &output).run().expect_clean();
            let frames = tshark::read(&output);
            let lengths: Vec<_> = frames.iter().map(|frame| frame.len as usize).collect();
            assert_eq!(lengths, events.each_ref().map(|(_, bytes)| bytes.len() + 54), "{dress:?}");
            let lines = tshark::lines(&output, &["-d", "tcp.port==10000,http2", "-P"]);
            assert_eq!(lines.len(), 6, "{lines:#?}");
            for (line, words) in lines.iter().zip([
                "Magic, SETTINGS[0], WINDOW_UPDATE[0], HEADERS[1]: GET /",
                "SETTINGS[0], SETTINGS[0], WINDOW_UPDATE[0]",
                "SETTINGS[0]",
                "HEADERS[1]: 200 OK",
                "DATA[1]",
                "DATA[1] (text/plain)",
            ]) {
                assert!(line.contains(" HTTP2 ") && line.ends_with(words), "{lines:#?}");
            }
        }
    }
}

/// The connection as a trace, with the client's first bytes cut into pieces of these lengths.
fn connection(client_port: u32, pieces: &[usize]) -> TraceWrapper {
    let ends =
        Connection { local_address: socket("127.0.0.1", 10_000), remote_address: socket("127.0.0.1", client_port) };
    let mut all: Vec<SocketEvent> = Vec::new();
    for ((inbound, bytes), time) in events().iter().zip((TIME..).step_by(1_000_000)) {
        let mut rest = bytes.as_slice();
        for len in pieces.iter().copied().filter(|_| all.is_empty()).collect::<Vec<_>>() {
            let (piece, after) = rest.split_at(len);
            all.push(read(time, piece));
            rest = after;
        }
        all.push(if *inbound { read(time, rest) } else { write(time, rest) });
    }
    buffered(1, ends, all)
}

/// The HTTP/2 frames that this `-d` shows, packet by packet: client port, whether the client sent them, and their
/// types.
fn http2_frames(capture: &Path, decode_as: &str) -> Vec<(u32, bool, Vec<String>)> {
    let fields = ["-Y", "http2", "-T", "fields", "-e", "tcp.srcport", "-e", "tcp.dstport", "-e", "http2.type"];
    let lines = tshark::lines(capture, &[["-d", decode_as].as_slice(), &fields].concat());
    lines.iter().map(|line| row(line)).collect()
}

fn row(line: &str) -> (u32, bool, Vec<String>) {
    let fields: Vec<_> = line.split('\t').collect();
    let [source, destination] = [0, 1].map(|index| fields[index].parse::<u32>().unwrap());
    // The server's port is below.
    let from_client = source > destination;
    let types = fields[2].split(',').filter(|kind| !kind.is_empty()).map(str::to_owned).collect();
    (source.max(destination), from_client, types)
}

/// The types of all frames of one connection: the client's and the server's.
fn types_of(frames: &[(u32, bool, Vec<String>)], client: u32) -> [Vec<String>; 2] {
    [true, false].map(|side| {
        let own = frames.iter().filter(|(port, from_client, _)| (*port, *from_client) == (client, side));
        own.flat_map(|(_, _, types)| types.clone()).collect()
    })
}

/// Wireshark's HTTP dissector passes HTTP/2 on and also shows HTTP/1 on the same port, which the HTTP/2 dissector does
/// not. It loses the client's side if the packet with the preface ends inside a frame, so the preface has a packet of
/// its own.
#[test]
fn one_option_dissects_both_protocols_of_a_port() {
    let dir = Dir::new("mixed-port");
    // Whole, and cut inside SETTINGS, inside HEADERS, right after the preface, and inside the preface.
    let cuts: [&[usize]; 9] = [&[], &[30], &[24], &[24, 10], &[75], &[10], &[23, 5], &[1, 17, 6], &[1; 24]];
    let mut messages: Vec<_> = (40_000..).zip(cuts).map(|(port, pieces)| connection(port, pieces)).collect();
    messages.push(buffered(
        9,
        Connection { local_address: socket("127.0.0.1", 10_000), remote_address: socket("127.0.0.1", 41_000) },
        [read(TIME + 500, b"GET /plain HTTP/1.1\r\n\r\n"), write(TIME + 900, b"HTTP/1.1 204 No Content\r\n\r\n")],
    ));
    let bytes = Dress::Delimited.file(&messages);
    let input = dir.create("trace_1.pb", &bytes);
    let expect_all = |output: &Path, what: &str| {
        let frames = http2_frames(output, "tcp.port==10000,http");
        for (port, pieces) in (40_000..).zip(cuts) {
            let all_types = [vec!["4", "8", "1", "4"], vec!["4", "4", "8", "1", "0", "0"]];
            assert_eq!(types_of(&frames, port), all_types, "{pieces:?} {what} {frames:#?}");
        }
        let requests = ["-d", "tcp.port==10000,http", "-Y", "http.request", "-T", "fields", "-e", "http.request.uri"];
        assert!(tshark::lines(output, &requests).contains(&"/plain".to_owned()), "{what}");
    };
    let output = dir.join("out.pcapng");
    for options in [&["--mss", "1"][..], &["--mss", "7"], &["--mss", "24"], &["--mss", "40"], &[]] {
        let run = convert(options, &input, &output).run().expect_status(0);
        assert!(run.stderr.ends_with(" -d tcp.port==10000,http\n"), "{run:?}");
        expect_all(&output, &format!("{options:?}"));
    }
    let frames = tshark::read(&output);
    frames.iter().for_each(|frame| frame.expect_sound(&"mixed port"));
    let marked = |comment: &String| comment.contains("the preface of HTTP/2 is in a packet of its own");
    let marked: Vec<_> = frames.iter().filter(|frame| frame.comments.iter().any(marked)).collect();
    assert_eq!(marked.len(), cuts.iter().filter(|pieces| pieces.first() != Some(&24)).count());
    assert!(marked.iter().all(|frame| frame.payload.starts_with(b"PRI * ") && frame.tcp_len == 24));
    // A live conversion gives the same.
    let live = tap2pcap().args(&["-", "-"]).stdin(bytes).run().expect_status(0);
    fs::write(&output, live.stdout).unwrap();
    expect_all(&output, "live");
    // One packet per event, and nothing else.
    convert(&["--tcp", "bare"], &input, &output).run().expect_status(0);
    let events = cuts.iter().map(|pieces| 6 + pieces.len()).sum::<usize>() + 2;
    assert_eq!(tshark::read(&output).len(), events);
}

/// The same frames of both sides as with HTTP/2's own dissector, in what real Envoys wrote.
#[test]
fn real_http2_connections_dissect_through_http() {
    let dir = Dir::new("real-http2");
    for name in ["1.40.0/h2_buf_JSON_BODY_AS_BYTES_17", "1.40.0/h2_str_PROTO_BINARY_143"] {
        let sample = sample(name);
        for options in [&[][..], &["--mss", "50"]] {
            let output = dir.join("out.pcapng");
            convert(options, &sample.path, &output).run().expect_status(0);
            let [through_http, own] = ["http", "http2"].map(|name| {
                let frames = http2_frames(&output, &format!("tcp.port==1-65535,{name}"));
                assert!(!frames.is_empty(), "{}", sample.name);
                frames
            });
            assert_eq!(through_http, own, "{} {options:?}", sample.name);
        }
    }
}

fn ends(client: u32) -> Connection {
    Connection { local_address: socket("127.0.0.1", 10_000), remote_address: socket("127.0.0.1", client) }
}

/// Time, whether it came from the client, and bytes of each packet with payload.
fn payloads(capture: &Path) -> Vec<(u64, bool, Vec<u8>)> {
    let frames = tshark::read(capture);
    frames.iter().for_each(|frame| frame.expect_sound(&capture.display()));
    let with_payload = frames.into_iter().filter(|frame| frame.tcp_len > 0);
    with_payload.map(|frame| (frame.time, frame.dst.unwrap().port() == 10_000, frame.payload)).collect()
}

#[test]
fn a_preface_in_pieces_is_one_packet_when_its_last_byte_comes() {
    let dir = Dir::new("preface-pieces");
    let events = [
        read(TIME, b"PRI * HTTP/2.0\r\n"),
        read(TIME + 5, b"\r\nSM"),
        read(TIME + 9, b"\r\n\r\n\0\0\0\x04\0\0\0\0\0"),
        write(TIME + 12, b"\0\0\0\x04\0\0\0\0\0"),
    ];
    let bytes = Dress::Binary.file(&streamed(1, ends(40_000), events));
    let input = dir.create("trace_1.pb", &bytes);
    let output = dir.join("out.pcapng");
    convert(&[], &input, &output).run().expect_status(0);
    let settings = b"\0\0\0\x04\0\0\0\0\0".to_vec();
    let expected = [
        (TIME + 9, true, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec()),
        (TIME + 9, true, settings.clone()),
        (TIME + 12, false, settings),
    ];
    assert_eq!(payloads(&output), expected);
    let came = format!("it came in 3 pieces, the first at {}.{:09}", TIME / 1_000_000_000, TIME % 1_000_000_000);
    let frames = tshark::read(&output);
    assert!(frames.iter().any(|frame| frame.comments.iter().any(|comment| comment.contains(&came))), "{frames:#?}");
    let live = tap2pcap().args(&["-", "-"]).stdin(bytes).run().expect_status(0);
    fs::write(&output, live.stdout).unwrap();
    assert_eq!(payloads(&output), expected);
}

/// Bytes that begin like the preface but differ from it, or are not all there, keep their packets, order and times.
#[test]
fn bytes_that_only_begin_like_a_preface_stay_as_they_came() {
    let dir = Dir::new("no-preface");
    let first = [read(TIME, b"PRI"), read(TIME + 1, b" * HT")];
    let then = |events: &[SocketEvent]| [&first, events].concat();
    let cases = [
        ("another word", then(&[read(TIME + 5, b"ML is not it"), closed(TIME + 9)])),
        ("an answer", then(&[write(TIME + 5, b"what?"), read(TIME + 6, b"TP/2.0\r\n"), closed(TIME + 9)])),
        ("a cut answer", then(&[cut(write(TIME + 5, b"wh")), closed(TIME + 9)])),
        ("the end", then(&[closed(TIME + 9)])),
        ("no end", then(&[])),
        ("the server's end", then(&[end_stream(write(TIME + 5, b"")), closed(TIME + 9)])),
        ("a piece with nothing in it", then(&[read(TIME + 2, b""), read(TIME + 5, b"X"), closed(TIME + 9)])),
        ("a gap", positions([(first[0].clone(), 3), (first[1].clone(), 9), (read(TIME + 5, b"TP/2"), 4)])),
    ];
    for (what, events) in cases {
        let expected: Vec<_> = events
            .iter()
            .filter_map(|event| match event.event_selector.as_ref()? {
                EventSelector::Read(read) => Some((true, read.data.clone()?)),
                EventSelector::Write(write) => Some((false, write.data.clone()?)),
                EventSelector::Closed(_) => None,
            })
            .filter_map(|(is_client, body)| match body.body_type? {
                BodyType::AsBytes(bytes) if !bytes.is_empty() => Some((is_client, bytes)),
                _ => None,
            })
            .collect();
        let bytes = Dress::Binary.file(&streamed(1, ends(40_000), events));
        let input = dir.create("trace_1.pb", &bytes);
        let output = dir.join("out.pcapng");
        convert(&[], &input, &output).run();
        let live = tap2pcap().args(&["-", "-"]).stdin(bytes).run();
        let live = dir.create("live.pcapng", live.stdout);
        for output in [&output, &live] {
            let found = payloads(output);
            assert!(found.is_sorted_by_key(|(time, ..)| *time), "{what}: {found:?}");
            assert_eq!((found[0].0, found[1].0), (TIME, TIME + 1), "{what}");
            let found = found.into_iter().map(|(_, is_client, bytes)| (is_client, bytes));
            assert_eq!(found.filter(|(_, bytes)| !bytes.is_empty()).collect::<Vec<_>>(), expected, "{what}");
        }
    }
}

/// The last line of a conversion, with more options for its tshark.
fn run_hint(run: &Run, options: &[&str]) -> Vec<String> {
    let command = run.stderr.lines().last().unwrap().strip_prefix("note: to see it dissected: ").unwrap();
    shell_lines(&format!("{command} {}", options.join(" ")))
}

fn shell_lines(command: &str) -> Vec<String> {
    let mut shell = Command::new("sh");
    let path = format!("{}:{}", Path::new(PROGRAM).parent().unwrap().display(), std::env::var("PATH").unwrap());
    shell.args(["-c", command]).env("PATH", path);
    let run = run_command(shell).expect_status(0);
    run.stdout_text().lines().map(str::to_owned).collect()
}

const TYPES: [&str; 10] = ["-Y", "http2", "-T", "fields", "-e", "tcp.srcport", "-e", "tcp.dstport", "-e", "http2.type"];

/// The connection of the documented example; its server may speak first.
fn example(client: u32, server_first: bool, pieces: &[usize]) -> TraceWrapper {
    let mut trace = connection(client, pieces);
    if let (true, Some(Trace::SocketBufferedTrace(trace))) = (server_first, &mut trace.trace) {
        let server =
            trace.events.iter().position(|event| matches!(event.event_selector, Some(EventSelector::Write(_))));
        trace.events[..=server.unwrap()].rotate_right(1);
        for (event, time) in trace.events.iter_mut().zip((TIME..).step_by(1_000_000)) {
            event.timestamp = timestamp(time);
        }
    }
    trace
}

fn http1(client: u32, server: u32) -> TraceWrapper {
    let ends = Connection { local_address: socket("127.0.0.1", server), remote_address: socket("127.0.0.1", client) };
    let request = read(TIME + 500, b"GET /plain HTTP/1.1\r\nhost: a\r\n\r\n");
    buffered(9, ends, [request, write(TIME + 900, b"HTTP/1.1 204 No Content\r\n\r\n")])
}

/// If the server speaks before the preface, or `--tcp bare` leaves a packet that ends inside a frame, the hint is a
/// different one, and still shows every frame.
#[test]
fn the_hint_shows_every_frame() {
    let dir = Dir::new("every-frame");
    let all_types = [vec!["4", "8", "1", "4"], vec!["4", "4", "8", "1", "0", "0"]];
    let first = [example(40_000, true, &[]), example(40_001, false, &[]), example(40_002, true, &[24])];
    let mixed = [first.as_slice(), &[http1(41_000, 10_000)]].concat();
    let split = [example(40_000, false, &[30]), example(40_001, true, &[75]), example(40_002, false, &[])];
    for (what, messages, options, hint) in [
        ("server first", first.as_slice(), &[][..], "tshark -r {} -d tcp.port==10000,http2"),
        ("server first, mixed", &mixed, &[], "tshark -2 -r {} -d tcp.port==10000,http"),
        ("bare, server first", &first, &["--tcp", "bare"], "tshark -r {} -d tcp.port==10000,http2"),
        ("bare, split", &split, &["--tcp", "bare"], "tshark -r {} -d tcp.port==10000,http2"),
        ("split", &split[..1], &[], "tshark -r {} -d tcp.port==10000,http"),
    ] {
        let input = dir.create("trace_1.pb", Dress::Delimited.file(messages));
        let output = dir.join("out.pcapng");
        let run = convert(options, &input, &output).run().expect_status(0);
        let hint = hint.replace("{}", output.to_str().unwrap());
        assert!(run.stderr.ends_with(&format!(" {hint}\n")), "{what}: {run:?}");
        let frames: Vec<_> = run_hint(&run, &TYPES).iter().map(|line| row(line)).collect();
        let clients = frames.iter().map(|(client, ..)| *client).collect::<std::collections::BTreeSet<_>>();
        assert_eq!(clients.len(), messages.len().min(3), "{what}");
        for client in clients {
            assert_eq!(types_of(&frames, client), all_types, "{what}: {client} {frames:#?}");
        }
        if what.contains("mixed") {
            assert_eq!(run_hint(&run, &["-Y", "http", "-T", "fields", "-e", "http.request.uri"])[0], "/plain");
            // tshark cannot read a pipe twice.
            let info = tap2pcap().arg("info").arg(&input).run().expect_status(0);
            let command = info.stdout_text().lines().last().unwrap().strip_prefix("  open: ").unwrap().to_owned();
            let in_dir = format!("cd {} && {command} {}", dir.path().display(), TYPES.join(" "));
            assert_eq!(shell_lines(&in_dir).len(), frames.len(), "{command}");
        }
    }
}

/// HTTP/1 needs no option, except on ports that Wireshark assigns to other protocols.
#[test]
fn http1_is_hinted_at_on_ports_that_another_dissector_claims() {
    let dir = Dir::new("claimed-port");
    let messages = [http1(41_000, 6001), http1(41_000, 7000), http1(41_000, 9092)];
    let output = dir.join("out.pcapng");
    let uris = ["-Y", "http.request", "-T", "fields", "-e", "http.request.uri"];
    for (count, options) in [(1, " -d tcp.port==6001,http\n"), (3, " -d tcp.port==1-65535,http\n")] {
        let input = dir.create("trace_1.pb", Dress::Delimited.file(&messages[..count]));
        let run = convert(&[], &input, &output).run().expect_status(0);
        assert!(run.stderr.ends_with(options), "{run:?}");
        assert_eq!(run_hint(&run, &uris).len(), count);
        assert_eq!(tshark::lines(&output, &uris), Vec::<String>::new());
    }
    let input = dir.create("trace_1.pb", Dress::Delimited.file(&[http1(41_000, 10_000)]));
    let run = convert(&[], &input, &output).run().expect_status(0);
    assert_eq!(run.stderr, "");
    assert_eq!(tshark::lines(&output, &uris).len(), 1);
}
