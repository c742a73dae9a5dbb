//! Bytes that Envoy did not record show as lost, and every byte that it recorded stands at its true place.

use std::{fmt::Write as _, fs, net::SocketAddr, path::Path};

use tap2pcap::proto::tap::{
    Connection, SocketEvent, TraceWrapper,
    socket_event::{EventSelector, Read},
    socket_streamed_trace_segment::MessagePiece,
    trace_wrapper::Trace,
};

use crate::{
    conversation::{Conversation, Skips, expect_transcript, streams},
    fixture::{
        Dress, TIME, as_text, buffered, closed, cut, downstream, positions, read, segment, socket, streamed, write,
    },
    manifest::{Format, Sample, socket_samples, socket_samples_of},
    oracle::{self, Kind},
    real_traces::{Converted, convert_samples},
    tcp::{Shown, all, capture, follow, frames_of, shown},
    tshark::{self, Frame},
    util::{Dir, convert, tap2pcap},
};

const KINDS: [Kind; 2] = [Kind::Read, Kind::Write];

const NOT_KNOWN: &str = "how many there were is not known";
const STOPPED: &str = "recording of this direction stopped here";

/// Streamed traces whose events were cut, with positions that tell the true lengths.
fn numbered() -> Vec<Sample> {
    let samples: Vec<_> = socket_samples()
        .into_iter()
        .filter(|sample| sample.limited && sample.streaming && sample.version == "1.40.0")
        .collect();
    assert_eq!(samples.len(), 9);
    samples
}

/// The sender of the bytes that Envoy read or wrote.
fn source(converted: &Converted, kind: Kind) -> Option<SocketAddr> {
    converted.of(kind).first()?.src
}

/// Expects the places and lengths that the trace itself gives its events.
fn expect_places(converted: &Converted, conversation: &Conversation<'_>, zero: bool) {
    let name = &converted.sample.name;
    for kind in KINDS {
        let source = source(converted, kind).unwrap();
        // The bytes of this direction, with `None` for a lost byte.
        let mut bytes: Vec<Option<u8>> = Vec::new();
        for event in converted.trace.data().filter(|event| event.kind == kind) {
            bytes.extend(event.payload.iter().copied().map(Some));
            let lost = event.true_len.unwrap() - event.payload.len() as u64;
            bytes.resize(bytes.len() + lost as usize, None);
        }
        assert_eq!(conversation.half(source).bytes(), bytes.len() as u64, "{name}: {kind:?}");
        if let Some(truth) = converted.truth() {
            let truth = if kind == Kind::Read { &truth.read } else { &truth.write };
            assert_eq!(bytes.len() as u64, truth.len, "{name}: {kind:?}");
            for (byte, truth) in bytes.iter().zip(truth.bytes.as_ref().expect("logged in full")) {
                assert!(byte.is_none_or(|byte| byte == *truth), "{name}: the tests place it wrong");
            }
        }
        let mut found = vec![None; bytes.len()];
        for (place, piece) in conversation.captured(source) {
            for (byte, slot) in piece.into_iter().zip(&mut found[place as usize..]) {
                *slot = Some(byte);
            }
        }
        if zero {
            bytes.iter_mut().for_each(|byte| *byte = byte.or(Some(0)));
        }
        assert!(found == bytes, "{name}: {kind:?} {found:?}, expected {bytes:?}");
    }
}

#[test]
fn every_byte_stands_at_its_true_place() {
    let dir = Dir::new("true-place");
    for mss in [None, Some("100")] {
        for (mode, skips) in [("snap", Skips::Never), ("gap", Skips::Allowed), ("zero", Skips::Never)] {
            let mut options = vec!["--truncated", mode];
            options.extend(mss.into_iter().flat_map(|mss| ["--mss", mss]));
            for converted in convert_samples(&dir, numbered(), &options, "pcapng") {
                let name = format!("{} {options:?}", converted.sample.name);
                let conversation = follow(&converted, skips);
                conversation.expect_all_acknowledged(&name);
                expect_places(&converted, &conversation, mode == "zero");
                let cut = converted.frames.iter().filter(|frame| frame.len != frame.cap_len).count();
                assert_eq!(cut > 0, mode == "snap", "{name}");
                // Wireshark must notice skipped sequence numbers, and has no reason to doubt the others.
                let doubts = converted.frames.iter().filter(|frame| frame.analysis).count();
                assert_eq!(doubts > 0, mode == "gap", "{name}");
                if mode != "gap" {
                    converted.frames.iter().for_each(|frame| frame.expect_sound(&name));
                }
            }
        }
    }
}

/// What Wireshark dissects of the head of each message of an HTTP/1 connection, in order.
fn http(capture: &Path, options: &[&str]) -> Vec<String> {
    let fields = "-Y http.request||http.response -T fields -e http.request.method -e http.request.uri -e \
                  http.response.code -e http.content_length_header";
    let args: Vec<_> = options.iter().copied().chain(fields.split_whitespace()).collect();
    tshark::lines(capture, &args).iter().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

const MESSAGES: [&str; 6] = ["GET /text?n=5000", "200 5000", "POST /echo 3000", "200 3000", "GET /text?n=90", "200 90"];

#[test]
fn http_messages_with_a_cut_body_and_after_one_are_dissected() {
    let dir = Dir::new("h1trunc");
    let samples = socket_samples_of("1.40.0/h1trunc_str");
    assert_eq!(samples.len(), 5);
    for sample in samples {
        let mut messages = oracle::messages(&sample.bytes(), sample.format);
        for version in ["1.40", "1.36"] {
            if version == "1.36" {
                messages.iter_mut().flat_map(events).for_each(|event| event.seq_num = 0);
            }
            let name = format!("{} as {version} writes it", sample.name);
            let snap = capture(&dir, &[], &messages);
            assert_eq!(http(&snap, &[]), MESSAGES, "{name}");
            if sample.format != Format::Binary {
                continue;
            }
            let lines = tshark::lines(&snap, &["-Y", "_ws.malformed || _ws.expert.severity >= 0x600000"]);
            assert!(lines.is_empty(), "{name}: {lines:?}");
            // Wireshark shows a head only when the whole announced body is there, unless it is told otherwise.
            let gap = capture(&dir, &["--truncated", "gap"], &messages);
            assert_eq!(http(&gap, &["-o", "http.desegment_body:FALSE"]), MESSAGES, "{name}, gap");
            if version == "1.40" {
                let zero = capture(&dir, &["--truncated", "zero"], &messages);
                assert_eq!(http(&zero, &[]), MESSAGES, "{name}, zero");
            }
        }
    }
}

fn events(message: &mut TraceWrapper) -> &mut [SocketEvent] {
    match message.trace.as_mut().unwrap() {
        Trace::SocketBufferedTrace(trace) => &mut trace.events,
        Trace::SocketStreamedTraceSegment(segment) => match segment.message_piece.as_mut().unwrap() {
            MessagePiece::Event(event) => std::slice::from_mut(event),
            MessagePiece::Events(events) => &mut events.events,
            MessagePiece::Connection(_) => &mut [],
        },
        _ => panic!("an HTTP trace"),
    }
}

/// The comment of a cut packet says how many of its bytes are there. A whole packet has no comment.
#[test]
fn cut_packets_say_how_much_is_there() {
    let (mut known, mut unknown, mut joined) = (0, 0, 0);
    for converted in all() {
        let name = &converted.sample.name;
        for kind in KINDS {
            let verb = if kind == Kind::Read { "read" } else { "wrote" };
            let frames = converted.of(kind).into_iter().filter(|frame| frame.tcp_len > 0);
            let of_preface = |comment: &String| comment.starts_with("the preface of HTTP/2 is in a packet of its own");
            let frames = frames.filter(|frame| !frame.comments.iter().any(of_preface));
            let mut frames = frames.filter(|frame| !frame.comments.is_empty() || frame.len != frame.cap_len);
            for Shown { time, payload, event, first, .. } in shown(&converted.trace).iter().filter(|s| s.kind == kind) {
                let present = event.payload.len() as u64;
                let mut expected = match event.true_len {
                    Some(length) if length == present => continue,
                    Some(length) => format!("{present} of the {length} bytes that Envoy {verb} are here"),
                    None if event.truncated => format!(
                        "{present} of the bytes that Envoy {verb} are here; {NOT_KNOWN}; one lost byte stands for the \
                         rest"
                    ),
                    None => continue,
                };
                if *first > 0 {
                    let (seconds, nanos) = (event.time / 1_000_000_000, event.time % 1_000_000_000);
                    write!(expected, "; they came at {seconds}.{nanos:09} and are joined to the {first} bytes before")
                        .unwrap();
                    joined += 1;
                }
                let frame = frames.next().unwrap_or_else(|| panic!("{name}: no packet for {expected}"));
                let [comment] = frame.comments.as_slice() else { panic!("{name}: {frame:?}") };
                assert!(comment.starts_with(&expected), "{name}: '{comment}', expected '{expected}'");
                assert!(frame.cap_len < frame.len, "{name}: {frame:?}");
                // The preface is in a packet of its own, before this one.
                let rest = payload.strip_prefix(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").filter(|rest| !rest.is_empty());
                let payload = rest.unwrap_or(payload);
                assert_eq!((frame.time, frame.payload.as_slice()), (*time, payload), "{name}: {frame:?}");
                let stopped = event.truncated && !converted.sample.streaming;
                assert_eq!(comment.contains(STOPPED), stopped, "{name}: {comment}");
                assert_eq!(comment.contains("JSON_BODY_AS_STRING"), !event.truncated, "{name}: {comment}");
                if event.true_len.is_some() {
                    known += 1;
                } else {
                    // One byte stands for all lost ones.
                    assert_eq!(frame.tcp_len as usize, payload.len() + 1, "{name}: {frame:?}");
                    unknown += 1;
                }
            }
            assert_eq!(frames.next(), None, "{name}");
        }
    }
    assert!(known > 40 && unknown > 40 && joined > 3, "{known} {unknown} {joined}");
}

/// Before 1.37, nothing tells how long an event was. The recorded bytes stand in order, and two pieces are adjacent
/// only if they really were.
#[test]
fn unknown_lengths_keep_pieces_apart() {
    let traces = all().iter().filter(|c| c.sample.limited && c.sample.streaming && c.sample.version == "1.36.2");
    let mut count = 0;
    for converted in traces {
        count += 1;
        let name = &converted.sample.name;
        let conversation = follow(converted, Skips::Never);
        let truth = converted.truth().expect("logged");
        for (kind, truth) in [(Kind::Read, &truth.read), (Kind::Write, &truth.write)] {
            let pieces = conversation.captured(source(converted, kind).unwrap());
            let cuts = converted.trace.data().filter(|event| event.kind == kind && event.truncated).count();
            assert!(pieces.len() >= cuts && cuts > 0, "{name}: {kind:?}");
            let truth = truth.bytes.as_ref().expect("logged in full");
            let mut at = 0;
            for (_, piece) in &pieces {
                let found = truth[at..].windows(piece.len()).position(|bytes| bytes == piece);
                at += found.unwrap_or_else(|| panic!("{name}: {kind:?} lacks {piece:?}")) + piece.len();
            }
        }
    }
    assert_eq!(count, 4);
}

#[test]
fn lost_segments_are_headers_only() {
    let dir = Dir::new("headers-only");
    let events = positions([
        (cut(read(TIME, b"0123456789")), 4500),
        (write(TIME + 1000, b"answer"), 6),
        (cut(read(TIME + 2000, b"")), 70_000),
        (closed(TIME + 3000), 0),
    ]);
    let messages = streamed(1, downstream(), events);
    let frames = frames_of(&dir, &["--mss", "2000"], &messages[..3]);
    expect_transcript(
        &frames,
        "0 > SYN 0+0
        0 < SYN ACK 0+0 ack 1
        0 > ACK 1+0 ack 1
        0 > ACK 1+2000 ack 1 captured 10
        0 > ACK 2001+2000 ack 1 captured 0
        0 < ACK 1+0 ack 4001
        0 > PSH ACK 4001+500 ack 1 captured 0
        1 < PSH ACK 1+6 ack 4501
        1 > ACK 4501+0 ack 7",
    );
    assert!(frames[4..].iter().step_by(2).all(|frame| frame.cap_len == 54), "{frames:#?}");
    let tail = "1 < PSH ACK 1+6 ack 4501
        2 > ACK 4501+65495 ack 7 captured 0
        2 > PSH ACK 69996+4505 ack 7 captured 0
        3 > FIN ACK 74501+0 ack 7
        3 < FIN ACK 7+0 ack 74502
        3 > ACK 74502+0 ack 8";
    let head = "0 > SYN 0+0
        0 < SYN ACK 0+0 ack 1
        0 > ACK 1+0 ack 1\n";
    let frames = frames_of(&dir, &[], &messages);
    expect_transcript(&frames, &format!("{head}0 > PSH ACK 1+4500 ack 1 captured 10\n{tail}"));
    frames.iter().for_each(|frame| frame.expect_sound(&"headers only"));
    let frames = frames_of(&dir, &["--truncated", "zero"], &messages);
    expect_transcript(&frames, &format!("{head}0 > PSH ACK 1+4500 ack 1\n{}", tail.replace(" captured 0", "")));
    frames.iter().for_each(|frame| frame.expect_sound(&"zero"));
    assert!(frames[3].payload == [b"0123456789".to_vec(), vec![0; 4490]].concat());
    let frames = frames_of(&dir, &["--truncated", "gap"], &messages);
    expect_transcript(
        &frames,
        &format!(
            "{head}0 > PSH ACK 1+10 ack 1
            1 < PSH ACK 1+6 ack 4501
            3 > FIN ACK 74501+0 ack 7
            3 < FIN ACK 7+0 ack 74502
            3 > ACK 74502+0 ack 8"
        ),
    );
    // Each mode that writes a packet for the event says that it is cut.
    for mode in ["snap", "gap", "zero"] {
        let frames = frames_of(&dir, &["--truncated", mode], &messages);
        assert_eq!(frames[3].comments, ["10 of the 4500 bytes that Envoy read are here"], "{mode}");
    }
}

/// A buffered trace has one limit for a whole direction. Later bytes are not in it at all, and nothing says how many
/// there were. The other direction goes on.
#[test]
fn a_buffered_direction_that_was_cut_did_not_go_silent() {
    let dir = Dir::new("buffered-cut");
    let events = [
        read(TIME, b"request"),
        cut(write(TIME + 1000, b"resp")),
        read(TIME + 2000, b"next"),
        cut(read(TIME + 3000, b"")),
    ];
    let frames = frames_of(&dir, &[], &[buffered(1, downstream(), events)]);
    expect_transcript(
        &frames,
        "0 > SYN 0+0
        0 < SYN ACK 0+0 ack 1
        0 > ACK 1+0 ack 1
        0 > PSH ACK 1+7 ack 1
        1 < PSH ACK 1+5 ack 8 captured 4
        2 > PSH ACK 8+5 ack 6 captured 4
        3 > FIN ACK 13+0 ack 6
        3 < FIN ACK 6+0 ack 14
        3 > ACK 14+0 ack 7",
    );
    for (frame, start) in
        [(&frames[4], "4 of the bytes that Envoy wrote"), (&frames[5], "0 of the bytes that Envoy read")]
    {
        let [comment] = frame.comments.as_slice() else { panic!("{frame:?}") };
        assert!(comment.starts_with(start) && comment.contains(NOT_KNOWN) && comment.ends_with(STOPPED), "{comment}");
    }
    frames.iter().for_each(|frame| frame.expect_sound(&"buffered cut"));

    // In real traces, there is a comment in every direction that was cut, and in no other.
    let mut stopped = 0;
    for converted in all().iter().filter(|converted| converted.sample.limited && !converted.sample.streaming) {
        for kind in KINDS {
            let cuts = converted.trace.data().filter(|event| event.kind == kind && event.truncated).count();
            let frames = converted.of(kind);
            let comments = frames.iter().flat_map(|frame| &frame.comments).filter(|text| text.contains(STOPPED));
            assert_eq!(comments.count(), cuts, "{}: {kind:?}", converted.sample.name);
            stopped += cuts;
        }
    }
    assert!(stopped > 10, "{stopped}");
}

/// Each run of bytes that are no text became one space, and `truncated` stays false. Positions tell the true length.
#[test]
fn binary_data_that_became_spaces_counts_as_lost() {
    let dir = Dir::new("as-string");
    let events = positions([
        (as_text(read(TIME, b"a b")), 40),
        (as_text(read(TIME + 1000, b"pure")), 4),
        (as_text(write(TIME + 2000, b" ")), 100),
        (as_text(write(TIME + 3000, b"text")), 4),
        (closed(TIME + 4000), 0),
    ]);
    let frames = frames_of(&dir, &[], &streamed(1, downstream(), events));
    expect_transcript(
        &frames,
        "0 > SYN 0+0
        0 < SYN ACK 0+0 ack 1
        0 > ACK 1+0 ack 1
        0 > PSH ACK 1+40 ack 1 captured 3
        1 > PSH ACK 41+4 ack 1
        2 < PSH ACK 1+100 ack 45 captured 1
        3 < PSH ACK 101+4 ack 45
        4 > FIN ACK 45+0 ack 105
        4 < FIN ACK 105+0 ack 46
        4 > ACK 46+0 ack 106",
    );
    for (frame, present, length) in [(&frames[3], 3, 40), (&frames[5], 1, 100)] {
        let [comment] = frame.comments.as_slice() else { panic!("{frame:?}") };
        assert!(comment.starts_with(&format!("{present} of the {length} bytes")), "{comment}");
        assert!(comment.contains("JSON_BODY_AS_STRING replaced runs of binary data by spaces"), "{comment}");
    }
    for whole in [&frames[4], &frames[6]] {
        assert!(whole.comments.is_empty() && whole.len == whole.cap_len, "{whole:?}");
    }

    // HTTP/2 is binary, so hardly a frame survives, and yet every event begins at its true place.
    let mut count = 0;
    let strings = |converted: &&Converted| {
        let sample = &converted.sample;
        sample.kind == "h2" && sample.format == Format::JsonString && sample.streaming && sample.version == "1.40.0"
    };
    for converted in all().iter().filter(strings) {
        let conversation = follow(converted, Skips::Never);
        expect_places(converted, &conversation, false);
        let lost: u64 = converted.trace.data().map(|event| event.true_len.unwrap() - event.payload.len() as u64).sum();
        assert!(lost > 10, "{}: {lost}", converted.sample.name);
        count += 1;
    }
    assert_eq!(count, 2);
}

fn missing_comment(frames: &[Frame], bytes: u64) -> &Frame {
    let mut with = frames.iter().filter(|frame| frame.comments.iter().any(|text| text.contains("are missing here")));
    let frame = with.next().unwrap_or_else(|| panic!("{frames:#?}"));
    assert_eq!(with.next(), None);
    assert!(frame.comments[0].starts_with(&format!("{bytes} bytes are missing here")), "{frame:?}");
    frame
}

#[test]
fn missing_events_are_a_gap() {
    let dir = Dir::new("missing-events");
    let events = positions([
        (read(TIME, b"one"), 3),
        (read(TIME + 1000, b"missing"), 7),
        (read(TIME + 2000, b"three"), 5),
        (write(TIME + 3000, b"four"), 4),
        (closed(TIME + 4000), 0),
    ]);
    let without = |index: usize| {
        let there = events.iter().enumerate().filter(|(at, _)| *at != index).map(|(_, event)| event.clone());
        streamed(1, downstream(), there)
    };
    let head = "0 > SYN 0+0
        0 < SYN ACK 0+0 ack 1
        0 > ACK 1+0 ack 1\n";
    let tail = "2 > PSH ACK 11+5 ack 1
        3 < PSH ACK 1+4 ack 16
        4 > FIN ACK 16+0 ack 5
        4 < FIN ACK 5+0 ack 17
        4 > ACK 17+0 ack 6";
    let frames = frames_of(&dir, &[], &without(1));
    let lost = "0 > PSH ACK 1+3 ack 1
        2 > PSH ACK 4+7 ack 1 captured 0";
    expect_transcript(&frames, &format!("{head}{lost}\n{tail}"));
    frames.iter().for_each(|frame| frame.expect_sound(&"missing"));
    // Nothing tells which side sent the missing bytes.
    assert!(missing_comment(&frames, 7).comments[0].contains("not known"), "{frames:#?}");
    let frames = frames_of(&dir, &["--truncated", "zero"], &without(1));
    expect_transcript(&frames, &format!("{head}{}\n{tail}", lost.replace(" captured 0", "")));
    assert_eq!(missing_comment(&frames, 7).payload, [0; 7]);
    let frames = frames_of(&dir, &["--truncated", "gap"], &without(1));
    expect_transcript(&frames, &format!("{head}0 > PSH ACK 1+3 ack 1\n{tail}"));

    // The first event is missing. The trace begins with the connection, and positions begin with 1.
    let frames = frames_of(&dir, &[], &without(0));
    missing_comment(&frames, 3);
    expect_transcript(
        &frames,
        &format!("{head}0 > PSH ACK 1+3 ack 1 captured 0\n0 > PSH ACK 4+7 ack 1\n{tail}")
            .replace("\n2", "\n1")
            .replace("\n        3 <", "\n        2 <")
            .replace("\n        4 ", "\n        3 "),
    );
    // The last event before `closed` is missing.
    let frames = frames_of(&dir, &[], &without(3));
    missing_comment(&frames, 4);
    let both = Conversation::follow("last", &frames, Skips::Never);
    assert_eq!(both.halves[0].bytes() + both.halves[1].bytes(), 3 + 7 + 5 + 4);
    // Nothing shows what a trace lacks that begins in the middle.
    let frames = frames_of(&dir, &[], &without(0)[1..]);
    assert!(frames.iter().all(|frame| frame.len == frame.cap_len), "{frames:#?}");
    assert_eq!(streams(&frames).len(), 1);
}

/// An event of a real trace is removed. All other bytes are there, and the number of missing ones is right.
#[test]
fn any_event_of_a_real_trace_may_be_missing() {
    let dir = Dir::new("any-event");
    let sample = &socket_samples_of("1.40.0/trunc_str_PROTO_BINARY_1")[0];
    let messages = oracle::messages(&sample.bytes(), sample.format);
    let total: u64 = sample.truths[0].read.len + sample.truths[0].write.len;
    let captures: Vec<_> = (1..messages.len() - 1)
        .map(|missing| {
            let mut messages = messages.clone();
            messages.remove(missing);
            // Each has a port of its own, so that Wireshark does not remark that a port is used again.
            let client = sample.truths[0].client.unwrap();
            let map = format!("{client}={}:{}", client.ip(), 50_000 + missing);
            capture(&dir, &["--map", &map], &messages)
        })
        .collect();
    assert!(captures.len() >= 10);
    for (missing, frames) in (1..).zip(tshark::read_many(&dir, &captures)) {
        let name = format!("{} without {missing}", sample.name);
        let conversation = Conversation::follow(&name, &frames, Skips::Never);
        conversation.expect_all_acknowledged(&name);
        assert_eq!(conversation.halves[0].bytes() + conversation.halves[1].bytes(), total, "{name}");
        frames.iter().for_each(|frame| frame.expect_sound(&name));
    }
}

/// The admin endpoint interleaves connections, so an event is written before the next one of its connection tells its
/// length. The missing bytes follow as soon as the length is known, and their comment does not call them a missing
/// event.
#[test]
fn interleaved_connections_get_their_lost_bytes_later() {
    let dir = Dir::new("interleaved-cut");
    let [one, two] = [1, 2].map(|id| {
        let time = TIME + id * 1000;
        positions([
            (cut(read(time, b"begin")), 500 * id),
            (write(time + 10_000, b"middle"), 6),
            (cut(write(time + 20_000, b"end")), 30),
            (closed(time + 30_000), 0),
        ])
        .into_iter()
        .map(move |event| segment(id, MessagePiece::Event(event)))
        .collect::<Vec<_>>()
    });
    let connection = |port| {
        MessagePiece::Connection(tap2pcap::proto::tap::Connection {
            remote_address: socket("192.0.2.7", port),
            ..downstream()
        })
    };
    let mut messages = vec![segment(1, connection(50_001)), segment(2, connection(50_002))];
    messages.extend(one.into_iter().zip(two).flat_map(|(one, two)| [one, two]));
    let frames = frames_of(&dir, &[], &messages);
    let streams = streams(&frames);
    assert_eq!(streams.len(), 2);
    for (stream, read) in streams.into_iter().zip([500, 1000]) {
        let conversation = Conversation::follow("interleaved", stream.iter().copied(), Skips::Never);
        conversation.expect_all_acknowledged("interleaved");
        assert_eq!(conversation.halves.map(|half| half.bytes()), [read, 36]);
        let comments: Vec<_> = stream[1..].iter().flat_map(|frame| &frame.comments).collect();
        let rests: Vec<_> = comments.iter().filter(|text| !text.contains("are here")).collect();
        assert_eq!(rests.len(), 2, "{comments:?}");
        assert!(rests[0].starts_with(&format!("{} bytes are missing here", read - 6)), "{comments:?}");
        assert!(rests.iter().all(|text| text.contains("more of the event before")), "{comments:?}");
    }
    frames.iter().for_each(|frame| frame.expect_sound(&"interleaved"));
}

/// A hostile trace can claim any number of lost bytes. The capture stays small, and the next byte is still at its true
/// place.
#[test]
fn a_claim_of_terabytes_stays_small() {
    let dir = Dir::new("claim");
    for (claim, mode) in [(10 << 40, "snap"), (10 << 40, "zero"), (u64::MAX / 2, "snap"), (u64::MAX / 2, "gap")] {
        let events = positions([(cut(read(TIME, b"x")), claim), (read(TIME + 1000, b"y"), 1)]);
        let messages = streamed(1, downstream(), events);
        let path = capture(&dir, &["--truncated", mode], &messages);
        let most = if mode == "zero" { 70 << 20 } else { 1 << 20 };
        assert!(fs::metadata(&path).unwrap().len() < most, "{claim} {mode}");
        let lines = tshark::lines(
            &path,
            &[
                "-o",
                "tcp.desegment_tcp_streams:FALSE",
                "-Y",
                "tcp.len > 0",
                "-T",
                "fields",
                "-e",
                "tcp.seq_raw",
                "-e",
                "tcp.len",
            ],
        );
        let packets: Vec<Vec<u32>> =
            lines.iter().map(|line| line.split('\t').map(|value| value.parse().unwrap()).collect()).collect();
        let (&[x, _], &[y, 1]) = (&packets[0][..], &packets[packets.len() - 1][..]) else { panic!("{lines:?}") };
        assert_eq!(y.wrapping_sub(x), claim as u32, "{claim} {mode}");
    }
}

/// Positions that go back or repeat mean nothing, and no recorded byte is lost.
#[test]
fn positions_that_contradict_the_bytes_lose_none() {
    let dir = Dir::new("contradiction");
    let mut events =
        [read(TIME, b"hundred"), cut(read(TIME + 1000, b"two")), read(TIME + 2000, b"three"), closed(TIME + 3000)];
    for (event, seq_num) in events.iter_mut().zip([1, 8, 9, 3]) {
        event.seq_num = seq_num;
    }
    assert!(matches!(events[3].event_selector, Some(EventSelector::Closed(_))));
    let frames = frames_of(&dir, &[], &streamed(1, downstream(), events));
    let conversation = Conversation::follow("contradiction", &frames, Skips::Never);
    conversation.expect_all_acknowledged("contradiction");
    let bytes: Vec<u8> = conversation.data(conversation.client).into_iter().flat_map(|f| f.payload.clone()).collect();
    assert_eq!(bytes, b"hundredtwothree");
    frames.iter().for_each(|frame| frame.expect_sound(&"contradiction"));
}

/// Positions may be made up by an attacker, so that the lost bytes add up to more than 64 bits hold.
#[test]
fn a_count_of_lost_bytes_stops_at_the_largest_number() {
    let dir = Dir::new("lost-bytes");
    let events = [1, u64::MAX, 1, u64::MAX, 1, u64::MAX].map(|seq_num| SocketEvent { seq_num, ..read(TIME, b"x") });
    let input = dir.create("path_0.pb", Dress::Binary.file(&streamed(1, downstream(), events)));
    convert(&[], &input, &dir.join("out.pcapng")).run().expect_status(0);
    let run = tap2pcap().args(&["info", "--json"]).arg(&input).run().expect_status(0);
    assert!(run.stdout_text().contains("\"lost\":18446744073709551615"), "{run:?}");
}

/// Events of another connection come between a cut body and the event whose position tells its length.
#[test]
fn a_truncated_body_among_other_connections_is_not_a_lost_event() {
    let dir = Dir::new("interleaved");
    let mut cut = SocketEvent { seq_num: 1, ..read(TIME, b"four") };
    if let Some(EventSelector::Read(Read { data: Some(body) })) = &mut cut.event_selector {
        body.truncated = true;
    }
    let end = SocketEvent { seq_num: 102, ..closed(TIME + 2) };
    let mut messages = streamed(1, downstream(), [cut, end]);
    let other = Connection { remote_address: socket("192.0.2.8", 50_124), ..downstream() };
    let at = messages.len() - 1;
    messages.splice(at..at, streamed(2, other, [read(TIME + 1, b"between"), closed(TIME + 1)]));
    let input = dir.create("path_0.pb", Dress::Binary.file(&messages));
    let run = tap2pcap().arg("validate").arg(&input).run().expect_status(0);
    assert!(run.stdout_text().contains("1 body is truncated, 96 bytes are missing"), "{run:?}");
    assert!(!run.stdout_text().contains("lost-bytes"), "{run:?}");
    let output = dir.join("out.pcapng");
    convert(&[], &input, &output).run().expect_status(0);
    let comments: Vec<_> = tshark::read(&output).into_iter().flat_map(|frame| frame.comments).collect();
    assert!(comments.iter().any(|comment| comment.contains("95 bytes are missing here: more of the event before")));
}
