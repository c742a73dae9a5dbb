//! Redaction never panics, never loses count of bytes, and never writes a planted secret, however the bytes are cut into
//! events, cut off and lost.
//!
//! The first byte says what the rest is. Arbitrary events, as in `exchanges`, must only not panic. A script of exchanges
//! has the marker wherever a secret can be; its bytes say how the connection is cut into events, and what is missing.

#![no_main]

use std::{io::Cursor, path::Path, sync::Arc};

use libfuzzer_sys::fuzz_target;
use prost::Message as _;
use tap2pcap::{
    input::{Advance, Encoding, Source, SourceOptions},
    proto::tap::{
        Body, SocketEvent, SocketStreamedTraceSegment, TraceWrapper,
        body::BodyType,
        socket_event::{EventSelector, Read, Write},
        socket_streamed_trace_segment::MessagePiece,
        trace_wrapper::Trace,
    },
    redact::{RedactStage, Redaction},
    timeline::{EntryKind, TimelineOptions, Timelines},
    trace::Findings,
};

/// The secret.
const MARKER: &str = "q7Zk2Wv9Xr4Tb6Ny1Lp8";

/// So many bytes of it in a row are a leak.
const LEAK: usize = 8;

struct Event {
    is_write: bool,
    bytes: Vec<u8>,
    /// How many bytes of the event are there.
    present: usize,
    /// The event is not in the trace at all.
    lost: bool,
}

fn trace(events: &[Event]) -> Vec<u8> {
    let (mut out, mut seq_num) = (Vec::new(), 1_u64);
    for Event { is_write, bytes, present, lost } in events {
        let number = seq_num;
        seq_num += bytes.len() as u64;
        if *lost {
            continue;
        }
        let present = (*present).min(bytes.len());
        let body_type = Some(BodyType::AsBytes(bytes[..present].to_vec()));
        let data = Some(Body { truncated: present < bytes.len(), body_type });
        let selector = match is_write {
            true => EventSelector::Write(Write { data, end_stream: false }),
            false => EventSelector::Read(Read { data }),
        };
        let event = SocketEvent { event_selector: Some(selector), seq_num: number, ..SocketEvent::default() };
        let segment = SocketStreamedTraceSegment { trace_id: 7, message_piece: Some(MessagePiece::Event(event)) };
        let wrapper =
            TraceWrapper { trace: Some(Trace::SocketStreamedTraceSegment(segment)), ..TraceWrapper::default() };
        wrapper.encode_length_delimited(&mut out).expect("a Vec grows");
    }
    out
}

/// Events of any bytes.
fn arbitrary(mut data: &[u8]) -> Vec<Event> {
    let mut events = Vec::new();
    while let [control, len, rest @ ..] = data {
        let len = usize::from(*len) << if control & 0x80 == 0 { 0 } else { 4 };
        let (bytes, after) = rest.split_at(len.min(rest.len()));
        data = after;
        let present = if control & 2 != 0 { bytes.len() / 2 } else { bytes.len() };
        events.push(Event { is_write: control & 1 != 0, bytes: bytes.to_vec(), present, lost: control & 4 != 0 });
    }
    events
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut encoder, bytes).expect("a Vec grows");
    encoder.finish().expect("a Vec grows")
}

/// A body with the marker, and the fields that say what it is.
fn body(choice: u8) -> (String, Vec<u8>) {
    let (kind, bytes) = match choice % 6 {
        0 => ("application/json", format!(r#"{{"a":[1,{{"password":"{MARKER}"}}],"b":"x"}}"#)),
        1 => ("application/x-www-form-urlencoded", format!("a=b&api_key={MARKER}&c=d")),
        2 => ("text/plain", format!("hello\npassword: {MARKER}\nbye")),
        3 => (
            "multipart/form-data; boundary=xyz",
            format!("--xyz\r\ncontent-disposition: form-data; name=\"password\"\r\n\r\n{MARKER}\r\n--xyz--\r\n"),
        ),
        4 => ("application/json", format!(r#"{{"token":{{"x":["{MARKER}"]}}}}"#)),
        _ => ("application/json", format!(r#"{{"clientSecret" : "a\"{MARKER}"}}"#)),
    };
    let bytes = bytes.into_bytes();
    if choice & 0x40 != 0 {
        return (format!("content-type: {kind}\r\ncontent-encoding: gzip\r\n"), gzip(&bytes));
    }
    (format!("content-type: {kind}\r\n"), bytes)
}

/// A field with the marker.
fn field(choice: u8) -> String {
    match choice % 7 {
        0 => format!("Authorization: Bearer {MARKER}\r\n"),
        1 => format!("cookie: a={MARKER}; b=c\r\n"),
        2 => format!("referer: https://h.example/?x=y&token={MARKER}\r\n"),
        3 => format!("x-auth-token:{MARKER}\r\n"),
        4 => format!("location: https://user:{MARKER}@h.example/\r\n"),
        5 => format!("X-Forwarded-Client-Cert: Hash={MARKER};URI=spiffe://a\r\n"),
        _ => String::new(),
    }
}

/// The bytes of both directions of an HTTP/1 connection.
fn exchanges(script: &mut &[u8]) -> [Vec<u8>; 2] {
    let mut sides = [Vec::new(), Vec::new()];
    for _ in 0..8 {
        let Some(([head, fields, coding], rest)) = script.split_first_chunk().map(|(chunk, rest)| (*chunk, rest)) else { break };
        *script = rest;
        let side = usize::from(head & 1);
        let (kind, bytes) = body(head >> 1);
        let mut message = match side {
            0 => format!("POST /p?api_key={MARKER}&q=1 HTTP/1.1\r\nhost: h\r\n"),
            _ => String::from("HTTP/1.1 200 OK\r\n"),
        };
        message += &field(fields);
        message += &kind;
        message += &field(fields >> 3);
        let framed = match coding % 3 {
            0 => {
                message += &format!("content-length: {}\r\n\r\n", bytes.len());
                bytes
            }
            _ => {
                message += "transfer-encoding: chunked\r\n\r\n";
                let mut framed = Vec::new();
                for chunk in bytes.chunks(usize::from(coding / 3) + 1) {
                    framed.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                    framed.extend_from_slice(chunk);
                    framed.extend_from_slice(b"\r\n");
                }
                framed.extend_from_slice(format!("0\r\nx-auth-token: {MARKER}\r\n\r\n").as_bytes());
                framed
            }
        };
        sides[side].extend_from_slice(message.as_bytes());
        sides[side].extend_from_slice(&framed);
        // The other side answers, so that messages find each other.
        if side == 0 {
            sides[1].extend_from_slice(b"HTTP/1.1 204 No Content\r\n\r\n");
        }
    }
    sides
}

/// The same as frames of HTTP/2, with the fields as literals that are added to the table, or references to them.
fn streams(script: &mut &[u8]) -> [Vec<u8>; 2] {
    let mut sides = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec(), b"\0\0\0\x04\0\0\0\0\0".to_vec()];
    let frame = |kind: u8, flags: u8, stream: u32, payload: &[u8]| {
        [&(payload.len() as u32).to_be_bytes()[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    };
    let literal = |first: u8, name: &str, value: &str| {
        [&[first, name.len() as u8], name.as_bytes(), &[value.len() as u8], value.as_bytes()].concat()
    };
    let mut added = false;
    for stream in (1..16).step_by(2) {
        let Some(([first, second], rest)) = script.split_first_chunk().map(|(chunk, rest)| (*chunk, rest)) else { break };
        *script = rest;
        let second = second & 0x3f;
        let mut block = vec![0x83, 0x86];
        block.extend(literal(0, ":path", &format!("/?token={MARKER}")));
        if added && first & 1 != 0 {
            block.push(0xbe);
        } else {
            block.extend(literal(0x40, "authorization", MARKER));
            added = true;
        }
        let (_, bytes) = body(second);
        let kind = ["application/json", "application/x-www-form-urlencoded", "text/plain"];
        if second % 6 < 3 {
            block.extend(literal(0x10, "content-type", kind[usize::from(second % 6)]));
        } else {
            block.extend(literal(0x10, "content-type", "multipart/form-data; boundary=xyz"));
        }
        let split = usize::from(first >> 1).min(block.len());
        sides[0].extend(frame(1, 0, stream, &block[..split]));
        sides[0].extend(frame(9, 4, stream, &block[split..]));
        let cut = usize::from(second).min(bytes.len());
        sides[0].extend(frame(0, 0, stream, &bytes[..cut]));
        sides[0].extend(frame(0, 1, stream, &bytes[cut..]));
        sides[1].extend(frame(1, 4, stream, &[&[0x88][..], &literal(0x10, "set-cookie", MARKER)].concat()));
        sides[1].extend(frame(0, 1, stream, format!(r#"{{"secret":"{MARKER}"}}"#).as_bytes()));
    }
    sides
}

/// Cuts both directions into events as the script says.
fn cut(sides: [Vec<u8>; 2], mut script: &[u8]) -> Vec<Event> {
    let mut events = Vec::new();
    let mut rest = sides.map(std::collections::VecDeque::from);
    while !(rest[0].is_empty() && rest[1].is_empty()) {
        let (control, size) = match script {
            [control, size, after @ ..] => {
                script = after;
                (*control, usize::from(*size) + 1)
            }
            _ => (u8::from(rest[0].is_empty()), usize::MAX),
        };
        let is_write = control & 1 != 0;
        let side = &mut rest[usize::from(is_write)];
        let bytes: Vec<u8> = side.drain(..size.min(side.len())).collect();
        if bytes.is_empty() {
            continue;
        }
        let present = if control & 6 == 2 { bytes.len() * usize::from(control >> 3) / 32 } else { bytes.len() };
        // Nobody can tell a lost event after a cut one from more of the cut one.
        let may_be_lost = events.last().is_none_or(|event: &Event| event.present == event.bytes.len());
        events.push(Event { is_write, bytes, present, lost: may_be_lost && control & 6 == 4 && control > 0xf0 });
    }
    events
}

fuzz_target!(|data: &[u8]| {
    let Some((first, rest)) = data.split_first() else { return };
    let mut rest = rest;
    let (events, has_marker) = match first & 3 {
        0 | 1 => {
            let sides = if first & 1 == 0 { exchanges(&mut rest) } else { streams(&mut rest) };
            (cut(sides, rest), true)
        }
        _ => (arbitrary(rest), false),
    };
    let trace = trace(&events);
    if trace.is_empty() {
        return;
    }
    let options = SourceOptions { encoding: Some(Encoding::Delimited), ..SourceOptions::default() };
    let source = Source::from_reader(Path::new("path_0"), Box::new(Cursor::new(trace)), options).expect("not empty");
    let mut timelines = Timelines::new(source, TimelineOptions::default());
    let redaction = Redaction { bodies: first & 0x40 != 0, keep_unknown: !has_marker && first & 0x80 != 0, ..Redaction::default() };
    let mut stage = RedactStage::new(Arc::new(redaction));
    let mut findings = Findings::default();
    let mut written = [Vec::new(), Vec::new()];
    loop {
        match timelines.advance(&mut findings) {
            Advance::Message => {}
            Advance::NeedInput => {
                timelines.fill(&mut findings);
                continue;
            }
            Advance::End => break,
        }
        let Some(entry) = timelines.entry() else { continue };
        stage.entry(&timelines);
        for index in 0..stage.len() {
            let entry = stage.written(index, entry).expect("as many as it says");
            if let EntryKind::Data(data) = entry.kind {
                written[data.direction.index()].extend_from_slice(data.payload);
            }
        }
    }
    if has_marker {
        for piece in MARKER.as_bytes().windows(LEAK) {
            for side in &written {
                assert!(
                    !side.windows(LEAK).any(|bytes| bytes == piece),
                    "{} is in {}",
                    piece.escape_ascii(),
                    side.escape_ascii()
                );
            }
        }
    }
});
