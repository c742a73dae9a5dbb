//! The example of Envoy's documentation of the tap: an HTTP/2 connection, dissected from its first frame to its last.

use std::{fs, path::Path};

use crate::{
    fixture::{Dress, TIME, buffered, read, socket, streamed, write},
    manifest::sample,
    tshark,
    util::{Dir, convert, tap2pcap},
};
use tap2pcap::proto::tap::{Connection, SocketEvent, TraceWrapper};

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

/// What crosses the wire in six events, as Envoy would log them.
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

/// The events as one side's, with the client's first bytes cut into pieces of these lengths.
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

/// Client port, side and types of the HTTP/2 frames that this `-d` shows, packet by packet.
fn http2_frames(capture: &Path, decode_as: &str) -> Vec<(u32, bool, Vec<String>)> {
    let fields = ["-Y", "http2", "-T", "fields", "-e", "tcp.srcport", "-e", "tcp.dstport", "-e", "http2.type"];
    let lines = tshark::lines(capture, &[["-d", decode_as].as_slice(), &fields].concat());
    let row = |line: &String| {
        let fields: Vec<_> = line.split('\t').collect();
        let [source, destination] = [0, 1].map(|index| fields[index].parse::<u32>().unwrap());
        // The server's port is below.
        let from_client = source > destination;
        let types = fields[2].split(',').filter(|kind| !kind.is_empty()).map(str::to_owned).collect();
        (source.max(destination), from_client, types)
    };
    lines.iter().map(row).collect()
}

/// The types of all frames of one connection: the client's and the server's.
fn types_of(frames: &[(u32, bool, Vec<String>)], client: u32) -> [Vec<String>; 2] {
    [true, false].map(|side| {
        let own = frames.iter().filter(|(port, from_client, _)| (*port, *from_client) == (client, side));
        own.flat_map(|(_, _, types)| types.clone()).collect()
    })
}

/// Wireshark's HTTP dissector hands HTTP/2 on, and shows HTTP/1 on the same port, which HTTP/2's own does not. It loses
/// the client's side if the packet with the preface ends inside a frame: so the preface is in a packet of its own.
#[test]
fn one_option_dissects_both_protocols_of_a_port() {
    let dir = Dir::new("mixed-port");
    // Whole, and cut inside SETTINGS, inside HEADERS and right after the preface.
    let cuts: [&[usize]; 5] = [&[], &[30], &[24], &[24, 10], &[75]];
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
    for options in [&["--mss", "24"][..], &["--mss", "40"], &[]] {
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
    // What waits for nothing does the same.
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

/// A client may send the preface in pieces. Bytes are never held back for it.
#[test]
fn a_preface_in_pieces_stays_in_pieces() {
    let dir = Dir::new("preface-pieces");
    let ends =
        || Connection { local_address: socket("127.0.0.1", 10_000), remote_address: socket("127.0.0.1", 40_000) };
    let events = [read(TIME, b"PRI * HTTP/2.0\r\n"), read(TIME + 5, b"\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")];
    let input = dir.create("trace_1.pb", Dress::Binary.file(&streamed(1, ends(), events)));
    let output = dir.join("out.pcapng");
    convert(&[], &input, &output).run().expect_status(0);
    let payloads: Vec<_> =
        tshark::read(&output).into_iter().map(|frame| frame.payload).filter(|payload| !payload.is_empty()).collect();
    let expected: [&[u8]; 3] = [b"PRI * HTTP/2.0\r\n", b"\r\nSM\r\n\r\n", b"\0\0\0\x04\0\0\0\0\0"];
    assert_eq!(payloads, expected);
    // Not the preface after all.
    let events = [read(TIME, b"PRI * HTTP/2.0\r\n"), read(TIME + 5, b"\r\nSMTP and more of it")];
    let input = dir.create("trace_2.pb", Dress::Binary.file(&streamed(1, ends(), events)));
    convert(&[], &input, &output).run().expect_status(0);
    let payloads = tshark::read(&output).into_iter().filter(|frame| !frame.payload.is_empty()).count();
    assert_eq!(payloads, 2);
}
