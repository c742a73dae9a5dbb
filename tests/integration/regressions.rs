//! What once was wrong, each test named after its bug.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use tap2pcap::{
    input::{Advance, Encoding, Source, SourceOptions},
    proto::tap::{
        Connection, HttpBufferedTrace, SocketEvent, TraceWrapper, http_buffered_trace,
        http_streamed_trace_segment::MessagePiece,
        socket_event::{EventSelector, Read},
        trace_wrapper::Trace,
    },
    trace::{Code, Finding, Findings},
};

use crate::{
    fixture::{Dress, TIME, closed, downstream, pipe, read, socket, streamed},
    http, tshark,
    util::{Dir, PROGRAM, convert, run_command, tap2pcap},
};

/// A short trace with nothing wrong.
fn sound() -> Vec<TraceWrapper> {
    streamed(1, downstream(), [read(TIME, b"hello"), closed(TIME + 1)])
}

fn create(dir: &Dir, name: &str, messages: &[TraceWrapper]) -> PathBuf {
    dir.create(name, Dress::Binary.file(messages))
}

#[test]
fn a_panic_where_nobody_reads_standard_error() {
    let dir = Dir::new("regressions-stderr");
    let (input, output) = (create(&dir, "path_0.pb", &sound()), dir.join("out.pcapng"));
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    let mut command = Command::new(PROGRAM);
    command.arg("-v").args([&input, &output]).stdin(Stdio::null()).stderr(writer);
    assert_eq!(command.status().unwrap().code(), Some(0));
    assert!(output.exists());
}

#[test]
fn lost_bytes_beyond_64_bits() {
    let dir = Dir::new("regressions-lost-bytes");
    let events = [1, u64::MAX, 1, u64::MAX, 1, u64::MAX].map(|seq_num| SocketEvent { seq_num, ..read(TIME, b"x") });
    let input = create(&dir, "path_0.pb", &streamed(1, downstream(), events));
    convert(&[], &input, &dir.join("out.pcapng")).run().expect_status(0);
    let run = tap2pcap().args(&["info", "--json"]).arg(&input).run().expect_status(0);
    assert!(run.stdout_text().contains("\"lost\":18446744073709551615"), "{run:?}");
}

#[test]
fn the_acknowledgement_of_an_abandoned_connection_goes_back_in_time() {
    let dir = Dir::new("regressions-abandoned");
    let mut messages = streamed(1, downstream(), [read(TIME, b"first")]);
    let other = Connection { remote_address: socket("192.0.2.8", 50_124), ..downstream() };
    messages.extend(streamed(2, other, [read(TIME + 5, b"later"), closed(TIME + 6)]));
    let output = dir.join("out.pcapng");
    convert(&[], &create(&dir, "path_0.pb", &messages), &output).run().expect_status(0);
    assert!(tshark::read(&output).is_sorted_by_key(|frame| frame.time));
}

#[test]
fn strict_fails_without_a_word() {
    let dir = Dir::new("regressions-strict");
    let input = create(&dir, "path_0.pb", &streamed(1, downstream(), [read(TIME, b"never closed")]));
    let run = convert(&["--strict"], &input, &dir.join("out.pcapng")).run().expect_status(1);
    run.expect_stderr("ends without its closed event");
    convert(&[], &input, &dir.join("out.pcapng")).run().expect_status(0).expect_clean();
}

#[test]
fn among_many_inputs_a_bad_one_does_not_say_why() {
    let dir = Dir::new("regressions-many-bad");
    let traces = dir.fresh();
    for number in 0..40 {
        fs::write(traces.join(format!("{number}.pb")), Dress::Binary.file(&sound())).unwrap();
    }
    // Recognised by its first bytes, and then nothing in it can be read.
    fs::write(traces.join("bad.json"), br#"{"socket_streamed_trace_segment":[]}"#).unwrap();
    let run = convert(&[], &traces, &dir.join("out.pcapng")).run().expect_status(1);
    run.expect_stderr("bad.json: byte").expect_stderr("40 of 41 traces converted");
}

#[test]
fn among_many_inputs_a_pipe_is_empty() {
    let dir = Dir::new("regressions-many-pipe");
    let input = create(&dir, "path_0.pb", &sound());
    let fifo = dir.join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let mut command = tap2pcap();
    for _ in 0..40 {
        command = command.arg(&input);
    }
    let writer = std::thread::spawn({
        let fifo = fifo.clone();
        move || fs::write(fifo, Dress::Binary.file(&sound())).unwrap()
    });
    command.arg(&fifo).arg(dir.join("out.pcapng")).run().expect_status(0).expect_stderr("41 of 41 traces converted");
    writer.join().unwrap();
}

#[test]
fn validate_passes_addresses_that_a_conversion_reports() {
    let dir = Dir::new("regressions-validate-addresses");
    let connection = Connection { local_address: socket("db.example", 70_000), ..downstream() };
    let input = create(&dir, "path_0.pb", &streamed(1, connection, [read(TIME, b"x"), closed(TIME)]));
    convert(&[], &input, &dir.join("out.pcapng")).run().expect_status(1);
    let run = tap2pcap().args(&["validate", "--json"]).arg(&input).run().expect_status(1);
    for code in ["bad-address", "bad-port"] {
        assert!(run.stdout_text().contains(&format!("\"code\":\"{code}\"")), "{code}{run:?}");
    }
}

#[test]
fn json_steers_a_terminal() {
    let dir = Dir::new("regressions-json-escapes");
    let name = "\u{9b}31m\u{202e}\u{e0041}\u{7f}";
    let connection = Connection { local_address: pipe(&format!("/run/{name}")), ..downstream() };
    let input = create(&dir, &format!("{name}.pb"), &streamed(1, connection, [read(TIME, b"x")]));
    for command in ["info", "validate"] {
        let run = tap2pcap().args(&[command, "--json"]).arg(&input).run().expect_status(0);
        assert!(run.stdout_text().bytes().all(|byte| matches!(byte, b'\n' | b' '..=b'~')), "{run:?}");
        let object: serde_json::Value = serde_json::from_str(run.stdout_text().lines().next().unwrap()).unwrap();
        assert_eq!(object["path"].as_str(), input.to_str());
    }
}

#[test]
fn a_directory_called_dash_takes_standard_output() {
    let dir = Dir::new("regressions-dash");
    create(&dir, "path_0.pb", &sound());
    fs::create_dir(dir.join("-")).unwrap();
    let mut command = Command::new(PROGRAM);
    let output = command.args(["path_0.pb", "-"]).current_dir(dir.path()).stdin(Stdio::null()).output().unwrap();
    assert!(output.stdout.starts_with(b"\x0a\x0d\x0d\x0a"), "{output:?}");
}

#[test]
fn a_truncated_body_among_other_connections_counts_as_lost_events() {
    let dir = Dir::new("regressions-interleaved");
    let mut cut = SocketEvent { seq_num: 1, ..read(TIME, b"four") };
    if let Some(EventSelector::Read(Read { data: Some(body) })) = &mut cut.event_selector {
        body.truncated = true;
    }
    let end = SocketEvent { seq_num: 102, ..closed(TIME + 2) };
    let mut messages = streamed(1, downstream(), [cut, end]);
    let other = Connection { remote_address: socket("192.0.2.8", 50_124), ..downstream() };
    let at = messages.len() - 1;
    messages.splice(at..at, streamed(2, other, [read(TIME + 1, b"between"), closed(TIME + 1)]));
    let input = create(&dir, "path_0.pb", &messages);
    let run = tap2pcap().arg("validate").arg(&input).run().expect_status(0);
    assert!(run.stdout_text().contains("1 body is truncated, 96 bytes are missing"), "{run:?}");
    assert!(!run.stdout_text().contains("lost-bytes"), "{run:?}");
    let output = dir.join("out.pcapng");
    convert(&[], &input, &output).run().expect_status(0);
    let comments: Vec<_> = tshark::read(&output).into_iter().flat_map(|frame| frame.comments).collect();
    assert!(comments.iter().any(|comment| comment.contains("95 bytes are missing here: more of the event before")));
}

#[test]
fn a_made_up_time_is_not_marked() {
    let dir = Dir::new("regressions-made-up-time");
    let event = SocketEvent { timestamp: None, ..read(TIME, b"x") };
    let output = dir.join("out.pcapng");
    convert(&[], &create(&dir, "path_0.pb", &streamed(1, downstream(), [event])), &output).run().expect_status(1);
    let comments = tshark::read(&output).remove(0).comments.join("\n");
    assert!(comments.contains("no time for the beginning of this connection"), "{comments}");
}

#[test]
fn a_mapped_host_name_still_fails() {
    let dir = Dir::new("regressions-mapped-host");
    let connection = Connection { local_address: socket("db.example", 5432), ..downstream() };
    let input = create(&dir, "path_0.pb", &streamed(1, connection, [read(TIME, b"x"), closed(TIME)]));
    let output = dir.join("out.pcapng");
    for map in ["db.example=192.0.2.1", "db.example:5432=192.0.2.1"] {
        convert(&["--map", map], &input, &output).run().expect_clean();
        assert_eq!(tshark::read(&output)[0].dst, Some("192.0.2.1:5432".parse().unwrap()), "{map}");
    }
}

#[test]
fn one_time_beyond_pcap_stops_the_batch() {
    let dir = Dir::new("regressions-pcap-2106");
    let traces = dir.fresh();
    let late = streamed(1, downstream(), [read(TIME, b"one"), read(7_300_000_000_000_000_000, b"two")]);
    fs::write(traces.join("a.pb"), Dress::Binary.file(&late)).unwrap();
    fs::write(traces.join("b.pb"), Dress::Binary.file(&sound())).unwrap();
    for output in ["all.pcap", "each/"] {
        let run = convert(&["-F", "pcap"], &traces, &dir.join(output)).run().expect_status(1);
        run.expect_stderr("after the year 2106").expect_stderr("2 of 2 traces converted");
    }
    let frames = tshark::read(&dir.join("each/a.pb.pcap"));
    assert_eq!(frames.iter().map(|frame| frame.time).max(), Some(TIME));
    convert(&[], &traces, &dir.join("all.pcapng")).run().expect_status(0);
}

/// A name resolution record without a name made readers refuse the whole capture.
#[test]
fn an_empty_address_breaks_the_name_block() {
    let dir = Dir::new("regressions-empty-name");
    let connection = Connection { local_address: socket("", 80), ..downstream() };
    let input = create(&dir, "path_0.pb", &streamed(1, connection, [read(TIME, b"hello")]));
    let output = dir.join("out.pcapng");
    convert(&[], &input, &output).run().expect_status(1);
    assert!(tshark::read(&output).iter().any(|frame| frame.payload == b"hello"));
    let blocks = fs::read(&output).unwrap();
    let mut reader = pcap_file::pcapng::PcapNgReader::new(blocks.as_slice()).unwrap();
    while let Some(block) = reader.next_block() {
        block.unwrap();
    }
}

/// What is said of a source that comes in pieces of so many bytes.
fn findings_by_pieces(encoding: Encoding, bytes: &[u8], size: usize) -> Vec<Finding> {
    read_by_pieces(encoding, bytes, size).0
}

/// How many messages it has.
fn messages_by_pieces(encoding: Encoding, bytes: &[u8], size: usize) -> u64 {
    read_by_pieces(encoding, bytes, size).1
}

fn read_by_pieces(encoding: Encoding, bytes: &[u8], size: usize) -> (Vec<Finding>, u64) {
    struct Pieces(io::Cursor<Vec<u8>>, usize);
    impl io::Read for Pieces {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let most = buffer.len().min(self.1);
            self.0.read(&mut buffer[..most])
        }
    }
    let reader = Box::new(Pieces(io::Cursor::new(bytes.to_owned()), size));
    let options = SourceOptions { encoding: Some(encoding), ..SourceOptions::default() };
    let mut source = Source::from_reader(Path::new("path_0"), reader, options).unwrap();
    let mut findings = Findings::default();
    loop {
        match source.advance(&mut findings) {
            Advance::Message => {}
            Advance::NeedInput => source.fill(&mut findings),
            Advance::End => return (findings.take(), source.decoded()),
        }
    }
}

#[test]
fn the_words_about_a_field_that_is_too_long_depend_on_the_reads() {
    let mut bytes = Dress::Binary.file(&sound());
    // Field 100 with a length of eight bytes, then bytes that a large read has there and a small one has not.
    bytes.extend_from_slice(b"\xa2\x06\xff\xff\xff\xff\xff\xff\xff\x7f and more");
    let whole = findings_by_pieces(Encoding::Binary, &bytes, usize::MAX);
    assert!(whole.iter().any(|finding| finding.to_string().contains("protobuf allows")), "{whole:?}");
    assert_eq!(whole, findings_by_pieces(Encoding::Binary, &bytes, 1));
}

#[test]
fn a_number_whose_exponent_comes_with_the_next_read_is_damage() {
    let json = br#"{"socket_streamed_trace_segment": {"event": {"closed": {}}, "newer": 1e5}}"#;
    for size in 1..=json.len() {
        let findings = findings_by_pieces(Encoding::Json, json, size);
        assert_eq!(findings, [], "in pieces of {size} bytes");
    }
}

#[test]
fn a_closed_json_object_that_ends_the_source_is_cut_off() {
    let json = br#"{"socket_streamed_trace_segment": {"event": {"closed": {}}}}{"\u"}"#;
    let whole = findings_by_pieces(Encoding::Json, json, usize::MAX);
    assert_eq!(whole.iter().map(|finding| finding.code()).collect::<Vec<_>>(), [Code::TrailingBytes]);
    for size in 1..=json.len() {
        assert_eq!(findings_by_pieces(Encoding::Json, json, size), whole, "in pieces of {size} bytes");
    }
}

#[test]
fn behind_damage_a_widely_indented_json_object_is_lost_to_the_reads() {
    let json = format!(r#"|{{{}"socket_streamed_trace_segment": {{"event": {{"closed": {{}}}}}}}}"#, " ".repeat(16));
    let whole = findings_by_pieces(Encoding::Json, json.as_bytes(), usize::MAX);
    // The `|`, and nothing of what follows it.
    assert_eq!(whole.iter().map(|finding| finding.place.message).collect::<Vec<_>>(), [0]);
    assert_eq!(messages_by_pieces(Encoding::Json, json.as_bytes(), usize::MAX), 1);
    for size in 1..json.len() {
        assert_eq!(messages_by_pieces(Encoding::Json, json.as_bytes(), size), 1, "in pieces of {size} bytes");
    }
}

#[test]
fn a_text_literal_goes_on_where_digits_follow_its_end() {
    for end in ["\"", "\n"] {
        let rest = " ".repeat(80);
        let text = format!("socket_buffered_trace {{ local: \"a\" \"b{end}127\" }}{rest}");
        let whole = findings_by_pieces(Encoding::Text, text.as_bytes(), usize::MAX);
        let place = text.find("127").unwrap() as u64;
        // At the literal's end or right after it, and not at the end of the text.
        assert!(whole[0].place.offset.abs_diff(place) <= 3, "{whole:?}");
        assert_eq!(whole, findings_by_pieces(Encoding::Text, text.as_bytes(), 1));
    }
}

/// A conversion that seems to hang is ended, and fails: where each item is held against each other, those below take
/// minutes.
fn converts(name: &str, messages: &[TraceWrapper]) {
    let dir = Dir::new(name);
    let input = dir.create("path_0.pb_length_delimited", Dress::Delimited.file(messages));
    let output = dir.join("out.pcapng");
    let mut command = Command::new("timeout");
    command.args(["60", PROGRAM, "-q"]).args([&input, &output]);
    run_command(command).expect_no_panic();
    assert!(output.exists());
}

#[test]
fn each_field_is_held_against_each_name_in_a_connection_field() {
    let mut fields = http::headers(&[(":method", "GET"), (":path", "/"), ("te", "trailers")]);
    fields.push(http::header("connection", &"a,".repeat(60_000)));
    fields.extend(std::iter::repeat_n(http::header("b", ""), 60_000));
    let head = MessagePiece::RequestHeaders(http::HeaderMap { headers: fields });
    converts("regressions-nominated", &[http::segment(1, head)]);
}

#[test]
fn buffered_exchanges_of_one_connection_try_the_ports_of_all_before_them() {
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
    converts("regressions-one-trace-id", &vec![exchange; 12_000]);
}

#[test]
fn each_line_break_in_a_field_counts_as_a_field() {
    let dir = Dir::new("regressions-line-breaks");
    let mut fields = http::headers(&[(":method", "GET"), (":path", "/")]);
    fields.extend((0..10).map(|index| http::header(&format!("x-{index}"), &"\r\n".repeat(1000))));
    let head = MessagePiece::RequestHeaders(http::HeaderMap { headers: fields });
    let input = dir.create("path_0.pb_length_delimited", Dress::Delimited.file(&[http::segment(1, head)]));
    let run = tap2pcap().arg("validate").arg(&input).run();
    assert!(run.stdout_text().contains("x-6, x-7 and 2 more"), "{run:?}");
}
