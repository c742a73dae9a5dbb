//! The example of Envoy's documentation of the tap: an HTTP/2 connection, dissected from its first frame to its last.

use crate::{
    fixture::{Dress, TIME, buffered, read, socket, write},
    tshark,
    util::{Dir, convert},
};
use tap2pcap::proto::tap::Connection;

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
