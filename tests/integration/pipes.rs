//! Standard input and output: a stream is converted as it comes, for hours.

use std::{
    fs,
    io::{Read as _, Write as _},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Instant,
};

use flate2::{Compression, write::GzEncoder};
use tap2pcap::proto::tap::{SocketEvent, TraceWrapper, socket_streamed_trace_segment::MessagePiece};

use crate::{
    batch::{self, Running, client, conversation, cut, last_line, paths, small_batch, streams},
    fixture::{Dress, TIME, buffered, closed, downstream, read, segment, sound, streamed, write},
    memory::{file_pages, peak},
    tshark,
    util::{Dir, PROGRAM, convert, tap2pcap},
};

/// Sends messages one by one, each only after the packet of the one before has arrived. A conversion that waits for
/// more input never ends.
#[track_caller]
fn expect_live(what: &str, messages: impl Iterator<Item = (Vec<u8>, Vec<u8>)>) {
    let mut running = Running::start(["-", "-"]);
    let mut sent = 0;
    for (bytes, mark) in messages {
        running.send(&bytes);
        running.wait_for(&mark);
        sent += 1;
    }
    running.finish().expect_status(0);
    assert!(sent >= 8, "{what}: {sent} messages");
}

/// The messages of a stream of eight events: the connection and the first event at once, then one event at a time.
fn stream_of(make: impl Fn(u64, &[u8]) -> TraceWrapper) -> Vec<(Vec<TraceWrapper>, Vec<u8>)> {
    (0..8_u64)
        .map(|index| {
            let mark = format!("<message {index}>").into_bytes();
            let mut messages = Vec::new();
            if index == 0 {
                messages.push(segment(1, MessagePiece::Connection(downstream())));
            }
            messages.push(make(index, &mark));
            (messages, mark)
        })
        .collect()
}

/// The event is whole, or cut so that only the next one tells its length, or a string that may have lost bytes.
#[test]
fn a_message_is_on_standard_output_before_the_next_one_is_sent() {
    let event = |index: u64, mut event: SocketEvent| {
        event.seq_num = 1 + index * 1000;
        segment(1, MessagePiece::Event(event))
    };
    let whole = |index: u64, mark: &[u8]| {
        let time = TIME + index;
        event(index, if index.is_multiple_of(2) { read(time, mark) } else { write(time, mark) })
    };
    let truncated = |index: u64, mark: &[u8]| {
        let long = [mark, &[0; 983]].concat();
        event(index, cut(read(TIME + index, &long), mark.len()))
    };
    let unnumbered = |index: u64, mark: &[u8]| segment(1, MessagePiece::Event(read(TIME + index, mark)));
    for dress in Dress::ALL {
        for (kind, messages) in
            [("whole", stream_of(whole)), ("truncated", stream_of(truncated)), ("no seq_num", stream_of(unnumbered))]
        {
            let what = format!("{dress:?}, {kind}");
            expect_live(&what, messages.into_iter().map(|(messages, mark)| (dress.file(&messages), mark)));
        }
    }
    // JSON_BODY_AS_STRING.
    let strings = stream_of(whole)
        .into_iter()
        .map(|(messages, mark)| (Dress::Json.file(&crate::fixture::as_strings(&messages)), mark));
    expect_live("strings", strings);
    // Buffered traces, of one connection each.
    let whole_traces = (0..8_u32).map(|index| {
        let mark = format!("<trace {index}>").into_bytes();
        let trace = buffered(u64::from(index), client(index), [read(TIME + u64::from(index), &mark)]);
        (Dress::Delimited.file(&[trace]), mark)
    });
    expect_live("buffered", whole_traces);
}

/// With `curl --compressed` and the like, the server flushes what it packs.
#[test]
fn a_packed_stream_is_live_too() {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    let mut zstandard = zstd::Encoder::new(Vec::new(), 3).unwrap();
    let messages = stream_of(|index, mark| segment(1, MessagePiece::Event(read(TIME + index, mark))));
    let (mut gzipped, mut zstandards) = (Vec::new(), Vec::new());
    for (messages, mark) in &messages {
        let bytes = Dress::Delimited.file(messages);
        encoder.write_all(&bytes).unwrap();
        encoder.flush().unwrap();
        gzipped.push((std::mem::take(encoder.get_mut()), mark.clone()));
        zstandard.write_all(&bytes).unwrap();
        zstandard.flush().unwrap();
        zstandards.push((std::mem::take(zstandard.get_mut()), mark.clone()));
    }
    gzipped.push((encoder.finish().unwrap(), Vec::new()));
    zstandards.push((zstandard.finish().unwrap(), Vec::new()));
    expect_live("gzip", gzipped.into_iter());
    expect_live("Zstandard", zstandards.into_iter());
}

/// Messages arrive in pieces, and several at once.
#[test]
fn pieces_of_messages_wait_for_their_rest_only() {
    let messages = conversation(1, 3, TIME, TIME + 1000);
    for dress in [Dress::Binary, Dress::Delimited, Dress::Json, Dress::DenseText] {
        let bytes = dress.file(&messages);
        let mut running = Running::start(["-", "-"]);
        for piece in bytes.chunks(bytes.len() / 9) {
            running.send(piece);
            // Each piece arrives alone, as it may from a network.
            running.wait_until_read();
        }
        running.wait_for(b"answer 2 for connection 1");
        let run = running.finish().expect_clean();
        let whole = tap2pcap().args(&["-", "-"]).stdin(bytes).run().expect_clean();
        assert!(run.stdout == whole.stdout, "{dress:?}: pieces give another capture");
    }
}

/// There are as many connections as come in hours, each closed before the next one opens.
#[test]
fn closed_connections_are_forgotten() {
    const CONNECTIONS: u32 = 200_000;
    // Without the pages of the program itself.
    const MOST_KIB: u64 = 12 * 1024;
    let mut child = Command::new(PROGRAM)
        .args(["-", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let writer = thread::spawn(move || {
        let mut batch = Vec::new();
        for number in 0..CONNECTIONS {
            let time = TIME + u64::from(number) * 1000;
            // Every second question is cut, and every third connection lacks its end, so there are findings that must
            // be forgotten as well.
            let question = read(time, b"a question that is longer than what the tap kept");
            let question = if number % 2 == 0 { cut(question, 10) } else { question };
            let mut events = vec![question, closed(time + 10)];
            (events[0].seq_num, events[1].seq_num) = (1, 50);
            let mut messages = streamed(u64::from(number % 1000), client(number), events);
            if number % 3 == 0 {
                messages.pop();
            }
            batch.extend(Dress::Delimited.file(&messages));
            if batch.len() > 1 << 16 {
                stdin.write_all(&batch).unwrap();
                batch.clear();
            }
        }
        stdin.write_all(&batch).unwrap();
        stdin
    });
    let mut stdout = child.stdout.take().unwrap();
    let reader = thread::spawn(move || std::io::copy(&mut stdout, &mut std::io::sink()).unwrap());
    let start = Instant::now();
    let stdin = writer.join().unwrap();
    let of_program = file_pages(child.id()).expect("it waits for more");
    let highest = peak(child.id()).expect("it waits for more") - of_program;
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    // Each connection has a handshake and one segment at least.
    let written = reader.join().unwrap();
    assert!(written > u64::from(CONNECTIONS) * 4 * (54 + 32), "{written}");
    assert!(highest > 1024 && highest <= MOST_KIB, "{highest} KiB resident");
    println!("{highest} KiB resident in {:?}", start.elapsed());
}

#[test]
fn a_reader_may_leave_early() {
    let dir = Dir::new("early");
    let traces = dir.join("traces");
    batch::write_overlapping(&traces, 2000, 5);
    let stream: Vec<u8> = paths(&traces).iter().flat_map(|name| fs::read(traces.join(name)).unwrap()).collect();
    for (input, bytes) in [(traces.as_path(), &[][..]), (Path::new("-"), &stream[..])] {
        let mut child = Command::new(PROGRAM)
            .arg(input)
            .arg("-")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        thread::scope(|scope| {
            scope.spawn(move || {
                // The program need not read all of it.
                let _ = stdin.write_all(bytes);
            });
            let mut first = [0; 100];
            stdout.read_exact(&mut first).unwrap();
            drop(stdout);
        });
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), &*stderr), (Some(0), ""), "{}", input.display());
    }
    // A reader that reads nothing of `info` and `validate`.
    for command in ["info", "validate"] {
        let script = "\"$0\" \"$1\" --json \"$2\" | true; exit \"${PIPESTATUS[0]}\"";
        let mut shell = Command::new("bash");
        shell.args(["-c", script, PROGRAM, command]).arg(&traces);
        let run = Running::of(shell).finish().expect_status(0);
        assert_eq!(run.stderr.replace("note: 2000 traces: 0 errors, 0 warnings, 0 notes\n", ""), "", "{command}");
    }
}

#[test]
fn a_pipeline_into_tshark_shows_every_event() {
    let bytes = Dress::Json.file(&conversation(1, 2, TIME, TIME + 1000));
    let mut shell = Command::new("sh");
    shell.args(["-c", "\"$0\" - - | tshark -r - -Y tcp.len -T fields -e tcp.payload 2>/dev/null", PROGRAM]);
    let mut running = Running::of(shell);
    running.send(&bytes);
    let run = running.finish().expect_status(0);
    assert_eq!(run.stdout_text().lines().filter(|line| !line.is_empty()).count(), 4, "{run:?}");
}

#[test]
fn standard_input_is_an_input_like_others() {
    let dir = Dir::new("stdin-among");
    let traces = small_batch(&dir, 3);
    let stream = Dress::Delimited.file(&conversation(9, 2, TIME + 1_000_000, TIME + 1_500_000));
    let all = dir.join("all.pcapng");
    let run = tap2pcap().arg("-").arg(&traces).arg(&all).stdin(stream.clone()).run().expect_status(0);
    assert_eq!(last_line(&run), "note: 4 of 4 traces converted");
    let frames = tshark::read(&all);
    batch::expect_in_order(&frames);
    assert_eq!(streams(&frames), 4);
    // The same with more files than the program keeps open.
    let many = dir.join("many");
    batch::write_overlapping(&many, 60, 1);
    let run = tap2pcap().arg(&many).arg("-").arg(&all).stdin(stream.clone()).run().expect_status(0);
    assert_eq!(last_line(&run), "note: 61 of 61 traces converted");
    batch::expect_in_order(&tshark::read(&all));
    // In a directory, the capture of standard input needs a name.
    let out = dir.fresh();
    tap2pcap().arg(&traces).arg("-").arg(&out).stdin(stream.clone()).run().expect_status(0);
    let expected = ["stdin.pcapng", "tap_0.pb.pcapng", "tap_1.pb.pcapng", "tap_2.pb.pcapng"];
    assert_eq!(paths(&out), expected.map(str::to_owned).into());
    // Standard input can be read only once.
    for args in [&["-", "-", "-"][..], &["info", "-", "-"], &["validate", "-", "-"]] {
        let run = tap2pcap().args(args).stdin(stream.clone()).run().expect_status(2);
        run.expect_stderr("standard input can be read only once");
    }
    for command in ["info", "validate"] {
        let run = tap2pcap().args(&[command, "-", "--json"]).stdin(stream.clone()).run().expect_status(0);
        assert_eq!(run.stdout_text().lines().count(), usize::from(command == "info"), "{run:?}");
    }
    // Standard input may be empty.
    tap2pcap().args(&["-", "-"]).run().expect_status(2).expect_stderr("-: empty");
    let run = tap2pcap().arg("-").arg(&traces).arg(&all).run().expect_status(1).expect_stderr("-: empty");
    assert_eq!(last_line(&run), "note: 3 of 4 traces converted");
}

/// Messages of any kind go to standard error.
#[test]
fn standard_output_carries_the_capture_alone() {
    let dir = Dir::new("alone");
    let traces = small_batch(&dir, 3);
    fs::write(traces.join("bad.pb"), "what is this?").unwrap();
    let run = convert(&["-v", "--progress", "always"], &traces, Path::new("-")).run().expect_status(1);
    let file = dir.join("all.pcapng");
    convert(&["-q"], &traces, &file).run().expect_status(1);
    assert!(run.stdout == fs::read(file).unwrap(), "{run:?}");
    assert!(run.stderr.contains("bad.pb") && run.stderr.contains("3 of 4"), "{run:?}");
}

/// Printing to a closed pipe fails, which must not end the conversion.
#[test]
fn nobody_needs_to_read_standard_error() {
    let dir = Dir::new("stderr");
    let (input, output) = (dir.create("path_0.pb", Dress::Binary.file(&sound())), dir.join("out.pcapng"));
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = Command::new(PROGRAM);
    command.arg("-v").args([&input, &output]).stdin(Stdio::null()).stderr(writer);
    assert_eq!(command.status().unwrap().code(), Some(0));
    assert!(output.exists());
}
