//! Input that is damaged or no trace at all: the program says so, converts everything that can be read, and never
//! panics.

use std::{fs, path::Path};

use crate::{
    fixture::{self, Dress, TIME, buffered, closed, downstream, read, socket, streamed, write},
    manifest::{Format, Sample, sample},
    oracle,
    tshark::{self, Frame},
    util::{Dir, Run, TCPDUMP, convert, on_all_cores, tap2pcap},
    wire,
};
use tap2pcap::proto::tap::{
    Connection, TraceWrapper, socket_streamed_trace_segment::MessagePiece, trace_wrapper::Trace,
};

/// Expects that an input that is no trace gives status 2, a message that names the file, and no output.
#[track_caller]
fn expect_refused(bytes: &[u8], reason: &str) {
    let dir = Dir::new("refused");
    let input = dir.create("input.pb", bytes);
    for options in [&[][..], &["-q"]] {
        let run = convert(options, &input, &dir.join("out.pcapng")).run_within(256).expect_status(2);
        let run = run.expect_stderr(&format!("{}: ", input.display())).expect_stderr(reason);
        assert!(run.stderr.starts_with("error: "), "{run:?}");
        assert!(run.stdout.is_empty(), "{run:?}");
        assert_eq!(dir.names(), ["input.pb"], "{run:?}");
    }
    let run = tap2pcap().args(&["-", "-"]).stdin(bytes).run_within(256).expect_status(2);
    assert!(run.stdout.is_empty() && run.stderr.contains(reason), "{run:?}");
    // An older capture stays what it was.
    let output = dir.create("out.pcapng", "an older file");
    convert(&[], &input, &output).run().expect_status(2);
    assert_eq!(fs::read(output).unwrap(), b"an older file");
}

#[test]
fn what_is_no_trace_is_refused_by_name() {
    expect_refused(b"", "empty");
    expect_refused(b" \n\n ", "white space");
    expect_refused(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\x01\0\0\0\x01\0\x08\x06\0\0\0", "image");
    expect_refused(b"<!DOCTYPE html>\n<html><head><title>502 Bad Gateway</title></head></html>\n", "HTML");
    expect_refused(b"<html>\r\n<head><title>404 Not Found</title></head>", "HTML");
    expect_refused(b"upstream connect error or disconnect/reset before headers", "text");
    expect_refused(b"\xd4\xc3\xb2\xa1\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\x04\0\x01\0\0\0", "capture already");
    expect_refused(
        b"\x0a\x0d\x0d\x0a\x1c\0\0\0\x4d\x3c\x2b\x1a\x01\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff\x1c\0\0\0",
        "capture already",
    );
    expect_refused(&[0; 4096], "");
    expect_refused(&[0xff; 4096], "");
}

/// The part of a line of standard error that says where: byte offset and message index.
fn places(run: &Run, path: &Path) -> Vec<(u64, u64)> {
    let start = format!("error: {}: byte ", path.display());
    run.stderr
        .lines()
        .filter_map(|line| {
            let (offset, rest) = line.strip_prefix(&start)?.split_once(", message ")?;
            let (index, why) = rest.split_once(": ")?;
            assert!(!why.is_empty(), "{run:?}");
            Some((offset.parse().ok()?, index.parse().ok()?))
        })
        .collect()
}

/// Expects that a damaged input gives status 1, one place in the messages, and a capture.
#[track_caller]
fn expect_damaged(dir: &Dir, name: &str, bytes: &[u8], reason: &str) -> ((u64, u64), Vec<Frame>) {
    let own = dir.fresh();
    let (input, output) = (own.join(name), own.join("out.pcapng"));
    fs::write(&input, bytes).unwrap();
    let run = convert(&["--tcp", "bare"], &input, &output).run_within(256).expect_status(1).expect_stderr(reason);
    let [place] = places(&run, &input)[..] else { panic!("not one place{run:?}") };
    assert!(place.0 <= bytes.len() as u64, "{run:?}");
    TCPDUMP.run(["-n", "-r", output.to_str().unwrap()], &[]);
    (place, tshark::read(&output))
}

/// For each message, where it ends in the file and how many data events it holds.
fn message_ends(sample: &Sample, bytes: &[u8]) -> Vec<(usize, usize)> {
    let messages = oracle::messages(bytes, sample.format);
    let data = |message: &TraceWrapper| oracle::traces(std::slice::from_ref(message))[0].data().count();
    let events: Vec<_> = messages.iter().map(data).collect();
    let whole = |part: &[u8]| part.as_ptr_range().end as usize - bytes.as_ptr() as usize;
    let ends: Vec<usize> = match sample.format {
        Format::Binary => wire::split_binary(bytes).into_iter().map(whole).collect(),
        Format::Delimited => wire::split_delimited(bytes).into_iter().map(whole).collect(),
        _ => line_ends(bytes, &["}"]),
    };
    assert_eq!(ends.len(), events.len());
    ends.into_iter().zip(events).collect()
}

/// Ends of the lines that are one of `lines`.
fn line_ends(bytes: &[u8], lines: &[&str]) -> Vec<usize> {
    let text = std::str::from_utf8(bytes).unwrap();
    let found = text.lines().filter(|line| lines.contains(line));
    found
        .map(|line| line.trim_end_matches(',').as_bytes().as_ptr_range().end as usize - text.as_ptr() as usize)
        .collect()
}

/// Where each event of a buffered trace ends.
fn event_ends(sample: &Sample, bytes: &[u8]) -> Vec<usize> {
    match sample.format {
        Format::Binary | Format::Delimited => {
            let whole = |part: &[u8]| part.as_ptr_range().end as usize - bytes.as_ptr() as usize;
            let message = match sample.format {
                Format::Binary => bytes,
                _ => wire::split_delimited(bytes)[0],
            };
            let trace = wire::fields(message)[0].content.unwrap();
            wire::fields(trace).iter().filter(|field| field.number == 3).map(|field| whole(field.raw)).collect()
        }
        Format::Text => {
            let text = std::str::from_utf8(bytes).unwrap();
            let first = text.find("\n  events {").unwrap();
            line_ends(bytes, &["  }"]).into_iter().filter(|end| *end > first).collect()
        }
        Format::JsonBytes | Format::JsonString => {
            let text = std::str::from_utf8(bytes).unwrap();
            let first = text.find("\"events\": [").unwrap();
            line_ends(bytes, &["   }", "   },"]).into_iter().filter(|end| *end > first).collect()
        }
    }
}

/// One trace of each format, buffered and streamed, with bodies that are there in full.
fn cut_samples() -> Vec<Sample> {
    ["tcp_buf_PROTO_BINARY_3", "tcp_buf_PROTO_BINARY_LENGTH", "tcp_buf_PROTO_TEXT", "tcp_buf_JSON_BODY_AS_BYTES"]
        .into_iter()
        .chain(["tcp_str_PROTO_BINARY_1", "tcp_str_PROTO_BINARY_LENGTH", "tcp_str_PROTO_TEXT"])
        .chain(["tcp_str_JSON_BODY_AS_BYTES", "h1_buf_JSON_BODY_AS_STRING", "h1_str_JSON_BODY_AS_STRING"])
        .map(|name| sample(&format!("1.40.0/{name}")))
        .collect()
}

/// A file may be cut anywhere. Everything before the cut is converted, and the event that the cut hit in part at most.
#[test]
fn a_file_that_was_cut_gives_what_came_before() {
    let dir = Dir::new("cut");
    let mut seen = [0; 3];
    for sample in cut_samples() {
        let bytes = sample.bytes();
        let messages = message_ends(&sample, &bytes);
        let events = if sample.streaming {
            messages.iter().flat_map(|(end, events)| vec![*end; *events]).collect()
        } else {
            event_ends(&sample, &bytes)
        };
        let trace = oracle::trace(&sample);
        assert_eq!(events.len(), trace.data().count(), "{}", sample.name);

        let mut cuts: Vec<usize> = (1..32).map(|part| bytes.len() * part / 32).collect();
        cuts.extend([1, 2, 3, 7, bytes.len() - 3, bytes.len() - 2]);
        cuts.extend(events.iter().flat_map(|end| [end - 1, *end, end + 1, end + 2, end + 7]));
        cuts.retain(|cut| *cut < bytes.len());
        let results = on_all_cores(&cuts, |cut| {
            let own = dir.fresh();
            let (input, output) = (own.join(sample.file_name()), own.join("out.pcapng"));
            fs::write(&input, &bytes[..*cut]).unwrap();
            let run = convert(&["--tcp", "bare"], &input, &output).run().expect_no_panic();
            check_cut_run(&sample, &messages, *cut, &input, &output, &run);
            (run.status.code().unwrap(), output, *cut)
        });
        for (status, ..) in &results {
            seen[*status as usize] += 1;
        }
        let captures: Vec<_> = results.iter().filter(|result| result.0 < 2).map(|result| result.1.clone()).collect();
        let cuts = results.iter().filter(|result| result.0 < 2).map(|result| result.2);
        for (cut, frames) in cuts.zip(tshark::read_many(&dir, &captures)) {
            let whole = events.iter().filter(|end| **end <= cut).count();
            let what = format!("{} cut at {cut}: {whole} events are whole, {} packets", sample.name, frames.len());
            assert!((whole..=whole + 1).contains(&frames.len()), "{what}");
            for (event, frame) in trace.data().zip(&frames) {
                assert_eq!(frame.time, event.time, "{what}");
            }
            for (event, frame) in trace.data().zip(&frames[..whole]) {
                assert_eq!((&frame.payload, frame.tcp_len as usize), (&event.payload, event.payload.len()), "{what}");
            }
            if let Some(part) = frames.get(whole) {
                let event = trace.data().nth(whole).unwrap();
                assert!(event.payload.starts_with(&part.payload), "{what}");
                assert!(
                    part.payload.len() == event.payload.len() || part.tcp_len as usize > part.payload.len(),
                    "{what}"
                );
            }
        }
    }
    assert!(seen[0] > 0 && seen[1] > 300 && seen[2] > 10, "statuses {seen:?}");
}

fn check_cut_run(sample: &Sample, messages: &[(usize, usize)], cut: usize, input: &Path, output: &Path, run: &Run) {
    let name = &sample.name;
    let whole = messages.iter().filter(|(end, _)| *end <= cut).count();
    match run.status.code() {
        // Nothing shows that more should follow.
        Some(0) => {
            let end = messages[..whole].last().map_or(0, |(end, _)| *end);
            assert!(whole > 0 && (end..=end + 1).contains(&cut), "{name} cut at {cut}{run:?}");
            assert!(run.stderr.is_empty(), "{name} cut at {cut}{run:?}");
        }
        Some(1) => {
            // The address that the cut hit may be an error as well.
            let [(offset, index), rest @ ..] = &places(run, input)[..] else {
                panic!("{name} cut at {cut}: no place{run:?}")
            };
            let (offset, index) = (*offset, *index);
            assert!(rest.is_empty() || (whole == 0 && run.stderr.contains("address")), "{name} cut at {cut}{run:?}");
            assert_eq!(index, whole as u64, "{name} cut at {cut}{run:?}");
            assert!(offset <= cut as u64 && offset + 8 > cut as u64, "{name} cut at {cut}{run:?}");
        }
        _ => {
            assert!(!output.exists(), "{name} cut at {cut}{run:?}");
            assert!(run.stderr.contains(&input.display().to_string()), "{name} cut at {cut}{run:?}");
            assert_eq!(messages[..whole].len(), 0, "{name} cut at {cut}{run:?}");
        }
    }
}

/// A length is only a claim, so it must not allocate 2^63 bytes, nor two gigabytes.
#[test]
fn a_length_beyond_all_measure_takes_no_memory() {
    let dir = Dir::new("lengths");
    let whole = Dress::Delimited.file(&streamed(1, downstream(), [read(TIME, b"one"), read(TIME + 1, b"two")]));
    for (length, index) in [(1 << 63, 3), (u64::MAX, 3), (1 << 31, 3), ((1 << 31) - 1, 3), (1 << 30, 3)] {
        let mut prefix = Vec::new();
        wire::append_varint(&mut prefix, length);
        let mut bytes = whole.clone();
        bytes.extend_from_slice(&prefix);
        bytes.extend_from_slice(&Dress::Binary.file(&[fixture::segment(1, MessagePiece::Event(closed(TIME)))]));
        let ((_, at), frames) = expect_damaged(&dir, "trace.pb_length_delimited", &bytes, "");
        assert_eq!((at, frames.len()), (index, 2), "{length}");

        // At the very beginning, and as a field of PROTO_BINARY.
        let own = dir.fresh();
        for (name, start) in [("a.pb_length_delimited", vec![]), ("a.pb", vec![0x22])] {
            fs::write(own.join(name), [&start, prefix.as_slice(), &[0x08, 1, 0x1a, 3, 0x32, 1, 7]].concat()).unwrap();
            let run = convert(&[], &own.join(name), &own.join("out.pcap")).run_within(256).expect_no_panic();
            assert!(run.status.code() != Some(0), "{length}{run:?}");
        }
    }
    // Ten bytes that all say "more follows", and no end.
    let bytes = [whole.as_slice(), &[0xff; 20]].concat();
    let ((offset, at), frames) = expect_damaged(&dir, "trace.pb_length_delimited", &bytes, "");
    assert_eq!((at, frames.len()), (3, 2));
    assert!(offset >= whole.len() as u64);
}

/// The nesting is deeper than any stack.
#[test]
fn nesting_without_end_is_damage() {
    let dir = Dir::new("nested");
    let whole = streamed(1, downstream(), [read(TIME, b"one"), read(TIME + 1, b"two")]);
    for depth in [10_000, 1_000_000] {
        let braces = format!("{}{}", "a {".repeat(depth), "}".repeat(depth));
        let brackets = format!("a: {}1{}", "[".repeat(depth), "]".repeat(depth));
        let known = "socket_streamed_trace_segment { event {".repeat(depth);
        for nested in [braces, brackets, known] {
            let nested = format!("socket_streamed_trace_segment {{ {nested} }}\n");
            let bytes = [Dress::Text.file(&whole), nested.into_bytes()].concat();
            let ((_, at), frames) = expect_damaged(&dir, "trace.pb_text", &bytes, "");
            assert_eq!((at, frames.len()), (3, 2));
        }
        let objects = format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
        let arrays = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        // An unknown field may hold anything, and nothing of it is kept.
        for nested in [objects, arrays] {
            let nested = format!("{{\"socket_streamed_trace_segment\": {{\"more\": {nested}}}}}\n");
            let bytes = [Dress::Json.file(&whole), nested.into_bytes()].concat();
            let (input, output) = (dir.create("trace.json", bytes), dir.join("out.pcapng"));
            let run = convert(&["--tcp", "bare"], &input, &output).run_within(256).expect_no_panic();
            assert!(run.status.code() == Some(1) || run.stderr.contains("1 field of a newer Envoy"), "{run:?}");
            assert_eq!(tshark::read(&output).len(), 2);
        }
        for nested in ["[{\"a\":".repeat(depth), "{\"a\":[".repeat(depth)] {
            let nested = format!("{{\"socket_streamed_trace_segment\": {{\"more\": {nested}}}}}\n");
            let bytes = [Dress::Json.file(&whole), nested.into_bytes()].concat();
            let ((_, at), frames) = expect_damaged(&dir, "trace.json", &bytes, "");
            assert_eq!((at, frames.len()), (3, 2));
        }
        // Groups within groups, without end.
        let mut event = Vec::new();
        event.extend(vec![0x7b; depth]);
        let mut segment = Vec::new();
        wire::append_field(&mut segment, 3, &event);
        let mut message = Vec::new();
        wire::append_field(&mut message, 4, &segment);
        let bytes = [Dress::Binary.file(&whole), message].concat();
        let ((_, at), frames) = expect_damaged(&dir, "trace.pb", &bytes, "");
        assert_eq!((at, frames.len()), (3, 2));
    }
}

#[test]
fn an_event_without_a_time_takes_that_of_the_event_before() {
    let dir = Dir::new("no-time");
    let mut messages =
        streamed(1, downstream(), [read(TIME, b"one"), write(TIME + 1, b"two"), read(TIME + 2, b"three")]);
    if let Some(Trace::SocketStreamedTraceSegment(segment)) = &mut messages[2].trace
        && let Some(MessagePiece::Event(event)) = &mut segment.message_piece
    {
        event.timestamp = None;
    }
    for dress in Dress::ALL {
        let name = format!("trace.{}", dress.suffix());
        let ((_, at), frames) = expect_damaged(&dir, &name, &dress.file(&messages), "time");
        assert_eq!(at, 2, "{dress:?}");
        let times: Vec<_> = frames.iter().map(|frame| frame.time - TIME).collect();
        assert_eq!(times, [0, 0, 2], "{dress:?}");
    }
}

/// Times that no capture can hold: before 1970, after 2554, more nanoseconds than a second has.
#[test]
fn a_time_that_no_capture_holds_is_reported() {
    let dir = Dir::new("bad-times");
    for (seconds, nanos) in [(-1, 0), (i64::MAX, 0), (18_446_744_074, 0), (5, -1), (5, 1_000_000_000), (5, i32::MAX)] {
        let mut messages = streamed(1, downstream(), [read(TIME, b"one"), write(TIME + 1, b"two")]);
        if let Some(Trace::SocketStreamedTraceSegment(segment)) = &mut messages[2].trace
            && let Some(MessagePiece::Event(event)) = &mut segment.message_piece
        {
            event.timestamp = Some(prost_types::Timestamp { seconds, nanos });
        }
        for dress in [Dress::Binary, Dress::Delimited, Dress::Text] {
            let name = format!("trace.{}", dress.suffix());
            let ((_, at), frames) = expect_damaged(&dir, &name, &dress.file(&messages), "");
            assert_eq!((at, frames.len()), (2, 2), "{seconds} {nanos} {dress:?}");
            assert_eq!(frames[1].payload, b"two");
        }
    }
}

#[test]
fn ports_above_65535_and_host_names_are_reported() {
    let dir = Dir::new("bad-addresses");
    for (local, remote, reason) in [
        (socket("10.0.0.1", 65_536), socket("192.0.2.7", 50_000), "65536"),
        (socket("10.0.0.1", 80), socket("192.0.2.7", u32::MAX), "4294967295"),
        (socket("backend.example.com", 80), socket("192.0.2.7", 50_000), "backend.example.com"),
        (socket("10.0.0.1", 80), socket("10.0.0.256", 50_000), "10.0.0.256"),
        (socket("10.0.0.1", 80), socket("", 50_000), "not an IP address"),
    ] {
        let connection = Connection { local_address: local, remote_address: remote };
        let messages = streamed(1, connection, [read(TIME, b"one"), write(TIME + 1, b"two")]);
        for dress in Dress::ALL {
            let name = format!("trace.{}", dress.suffix());
            let ((_, at), frames) = expect_damaged(&dir, &name, &dress.file(&messages), reason);
            assert_eq!((at, frames.len()), (0, 2), "{dress:?}");
            assert_eq!(frames[0].src, frames[1].dst, "{dress:?}");
        }
    }
}

/// A message in the middle is damaged, and its neighbours are not.
#[test]
fn damage_in_one_message_leaves_the_others() {
    let dir = Dir::new("middle");
    let messages = streamed(1, downstream(), [read(TIME, b"one"), read(TIME + 1, b"two"), read(TIME + 2, b"three")]);
    let damage: [(Dress, &[u8], &[u8]); 4] = [
        (Dress::Delimited, b"\x12\x03two", b"\x12\x7ftwo"),
        (Dress::Binary, b"\x12\x03two", b"\x12\x7ftwo"),
        (Dress::Text, b"\"two\"", b"\"two\\q\""),
        (Dress::Json, b"\"dHdv\"", b"\"dH!v\""),
    ];
    for (dress, old, new) in damage {
        let mut bytes = dress.file(&messages);
        // "two" is the body's field 1 in binary.
        let old = if matches!(dress, Dress::Binary | Dress::Delimited) { b"\x0a\x03two".as_slice() } else { old };
        let new = if matches!(dress, Dress::Binary | Dress::Delimited) { b"\x0a\x7ftwo".as_slice() } else { new };
        let at = bytes.windows(old.len()).position(|part| part == old).unwrap();
        bytes.splice(at..at + old.len(), new.iter().copied());
        let ((offset, index), frames) = expect_damaged(&dir, &format!("trace.{}", dress.suffix()), &bytes, "");
        assert_eq!(index, 2, "{dress:?}");
        assert!(offset as usize + 40 > at && offset as usize <= at + new.len() + 40, "{dress:?}: {offset} for {at}");
        let payloads: Vec<_> = frames.iter().map(|frame| frame.payload.clone()).collect();
        assert!(payloads.len() >= 2, "{dress:?}");
        assert_eq!((&*payloads[0], &**payloads.last().unwrap()), (&b"one"[..], &b"three"[..]), "{dress:?}");
    }
}

/// A disk or a network may change, lose or add bytes anywhere.
#[test]
fn changed_bytes_give_a_sound_capture_or_an_error() {
    let dir = Dir::new("changed");
    // A fixed sequence (Knuth's MMIX constants), so that a failure can be reproduced.
    let mut state = 1_u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let mut statuses = [0; 3];
    for sample in cut_samples() {
        let bytes = sample.bytes();
        let changed: Vec<Vec<u8>> = (0..60)
            .map(|_| {
                let mut bytes = bytes.clone();
                for _ in 0..=random(3) {
                    let at = random(bytes.len());
                    match random(4) {
                        0 => bytes[at] ^= 1 << random(8),
                        1 => bytes[at] = random(256) as u8,
                        2 => drop(bytes.splice(at..(at + random(40)).min(bytes.len()), [])),
                        _ => drop(bytes.splice(at..at, vec![b"{}[]\"\\\0\xff"[random(8)]; random(5)])),
                    }
                    if bytes.is_empty() {
                        bytes.push(0);
                    }
                }
                bytes
            })
            .collect();
        let runs = on_all_cores(&changed, |bytes| {
            let own = dir.fresh();
            let (input, output) = (own.join(sample.file_name()), own.join("out.pcap"));
            fs::write(&input, bytes).unwrap();
            let run = convert(&[], &input, &output).run_within(512).expect_no_panic();
            let status = run.status.code().unwrap();
            assert_eq!(status != 2, output.exists(), "{run:?}");
            assert_eq!(status != 0, run.stderr.contains("error: "), "{run:?}");
            (status, output)
        });
        let captures: Vec<_> = runs.iter().filter(|run| run.0 < 2).map(|run| run.1.clone()).collect();
        for frame in tshark::read_many(&dir, &captures).concat() {
            assert!(!frame.checksums.contains(&tshark::Checksum::Bad), "{frame:?}");
        }
        for (status, _) in runs {
            statuses[status as usize] += 1;
        }
    }
    assert!(statuses.iter().all(|count| *count > 10), "statuses {statuses:?}");
}

/// Random bytes follow each beginning that detection knows.
#[test]
fn noise_gives_a_capture_or_an_error() {
    let dir = Dir::new("noise");
    let mut state = 7_u64;
    let mut noise = |len: usize| -> Vec<u8> {
        (0..len)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 56) as u8
            })
            .collect()
    };
    for start in ["", "{", "{\"socket_buffered_trace\":", "socket_buffered_trace {", "\"\x04", "\x1a\x50"] {
        for len in [1, 10, 100, 5000] {
            for from in ["auto", "binary", "delimited", "text", "json"] {
                let bytes = [start.as_bytes(), &noise(len)].concat();
                let input = dir.create("input", bytes);
                let run = convert(&["--from", from], &input, &dir.join("out.pcap")).run_within(256).expect_no_panic();
                assert!(run.status.code() == Some(2) || dir.join("out.pcap").exists(), "{run:?}");
                let _ = fs::remove_file(dir.join("out.pcap"));
            }
        }
    }
}

/// The user names a format that the input does not have.
#[test]
fn a_wrong_format_option_is_an_error() {
    let dir = Dir::new("wrong-format");
    for sample in cut_samples() {
        let right = match sample.format {
            Format::Binary => "binary",
            Format::Delimited => "delimited",
            Format::Text => "text",
            Format::JsonBytes | Format::JsonString => "json",
        };
        for from in ["binary", "delimited", "text", "json"] {
            let output = dir.fresh().join("out.pcapng");
            let run = convert(&["--from", from], &sample.path, &output).run_within(256).expect_no_panic();
            assert_eq!(run.status.code() == Some(0), from == right, "{} as {from}{run:?}", sample.name);
        }
    }
}

#[test]
fn files_that_cannot_be_read_or_written_are_named() {
    let dir = Dir::new("files");
    let input = dir.create("trace.pb", Dress::Binary.file(&[buffered(1, downstream(), [read(TIME, b"one")])]));
    let missing = dir.join("missing.pb");
    let run = convert(&[], &missing, &dir.join("out.pcap")).run().expect_status(2);
    run.expect_stderr(&missing.display().to_string()).expect_stderr("No such file");
    let nowhere = dir.join("nowhere/out.pcap");
    let run = convert(&[], &input, &nowhere).run().expect_status(2);
    run.expect_stderr(&nowhere.display().to_string()).expect_stderr("No such file");
    let run = convert(&["-F", "pcap"], &input, Path::new("/dev/full")).run().expect_status(2);
    run.expect_stderr("/dev/full").expect_stderr("No space left");
    // A conversion onto its own input would destroy the input before it is read.
    convert(&[], &input, &input).run().expect_status(2).expect_stderr("both input and output");
    assert_eq!(dir.names(), ["trace.pb"]);
    convert(&["--bogus"], &input, &dir.join("out.pcap")).run().expect_status(2).expect_stderr("--bogus");
    tap2pcap().arg(&input).run().expect_status(2);
    tap2pcap().run().expect_status(2);
}

/// A trace may hold escape sequences for the terminal of the person who reads the message.
#[test]
fn a_message_cannot_steer_a_terminal() {
    let dir = Dir::new("terminal");
    let connection =
        Connection { local_address: socket("\x1b]0;x\x07\u{202e}", 80), remote_address: socket("192.0.2.7", 1) };
    let messages = streamed(1, connection, [read(TIME, b"one")]);
    for dress in Dress::ALL {
        let input = dir.create("trace", dress.file(&messages));
        let run = convert(&[], &input, &dir.join("out.pcapng")).run().expect_status(1);
        assert!(!run.stderr.contains(['\x1b', '\x07', '\u{202e}']), "{run:?}");
        for frame in tshark::read(&dir.join("out.pcapng")) {
            assert!(!frame.comments.concat().contains("\\x1b"), "{frame:?}");
        }
    }
}
