//! The times of events for which the trace has no time.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};

use tap2pcap::proto::tap::{SocketEvent, TraceWrapper};

use crate::{
    batch::client,
    fixture::{Dress, TIME, buffered, closed, downstream, read, sound, streamed, write},
    tshark,
    util::{Dir, ROOT, convert, tap2pcap},
};

fn without_time(mut event: SocketEvent) -> SocketEvent {
    event.timestamp = None;
    event
}

fn timeless() -> Vec<TraceWrapper> {
    streamed(1, downstream(), [read(0, b"q"), write(0, b"a"), closed(0)].map(without_time))
}

fn set_modified(path: &Path, time: u64) {
    File::options().write(true).open(path).unwrap().set_modified(UNIX_EPOCH + Duration::from_nanos(time)).unwrap();
}

fn times(path: &Path) -> Vec<u64> {
    tshark::read(path).iter().map(|frame| frame.time).collect()
}

fn first_comment(path: &Path) -> String {
    tshark::lines(path, &["-T", "fields", "-e", "frame.comment"])[0].clone()
}

const EXCHANGE: &str = r#"{"http_buffered_trace": {"request": {"headers": [{"key": ":method", "value": "GET"},
    {"key": ":path", "value": "/"}, {"key": ":authority", "value": "a"}]},
    "response": {"headers": [{"key": ":status", "value": "204"}]}}}"#;

const DATED: &str = r#"{"http_buffered_trace": {"request": {"headers": [{"key": ":method", "value": "GET"},
    {"key": ":path", "value": "/"}, {"key": ":authority", "value": "a"}]},
    "response": {"headers": [{"key": ":status", "value": "204"},
    {"key": "date", "value": "Sat, 31 Jan 2026 11:00:00 GMT"}]}}}"#;
const DATE: u64 = 1_769_857_200_000_000_000;

#[test]
fn a_trace_without_any_time_begins_when_its_file_was_modified() {
    let dir = Dir::new("modified");
    let socket = dir.create("socket.pb", Dress::Binary.file(&timeless()));
    let http = dir.create("http.json", EXCHANGE);
    let modified = TIME - 1_000_000_000;
    for input in [&socket, &http] {
        set_modified(input, modified);
        let (output, captures) = (dir.join("out.pcapng"), dir.fresh());
        let run = convert(&[], input, &output).run();
        assert!(run.status.code() < Some(2), "{run:?}");
        assert!(times(&output).iter().all(|time| (modified..modified + 1_000_000).contains(time)), "{input:?}");
        assert!(first_comment(&output).contains("made up, from the file's modification time on"), "{input:?}");
        // With a capture for each trace, the result is the same.
        convert(&[], input, &captures).run();
        let name = format!("{}.pcapng", input.file_name().unwrap().to_str().unwrap());
        assert_eq!(fs::read(captures.join(name)).unwrap(), fs::read(&output).unwrap());
        convert(&["--start-time", "2026-01-31T12:00:00.123456789Z"], input, &output).run();
        assert_eq!(times(&output)[0], TIME);
        assert!(first_comment(&output).contains("from --start-time on"));
    }
    // A stream has no modification time, and the comment says so.
    let output = dir.join("out.pcapng");
    tap2pcap().args(&["-"]).arg(&output).stdin(fs::read(&http).unwrap()).run().expect_status(0);
    assert_eq!(times(&output)[0], 0);
    assert!(first_comment(&output).contains("from the Unix epoch on"));
}

/// There are few traces, which all stay open, or many.
#[test]
fn a_trace_without_any_time_goes_where_its_neighbours_are() {
    let dir = Dir::new("neighbours");
    for count in [3, 40] {
        let traces = dir.fresh();
        let mut paths: Vec<PathBuf> = Vec::new();
        for number in 0..count {
            let time = TIME + 1_000 * u64::from(number);
            let messages = streamed(7, client(number), [read(time, b"q"), closed(time + 10)]);
            paths.push(traces.join(format!("tap_{number}.pb")));
            fs::write(&paths[number as usize], Dress::Binary.file(&messages)).unwrap();
        }
        fs::write(traces.join("a_without.pb"), Dress::Binary.file(&timeless())).unwrap();
        fs::write(traces.join("z_without.json"), EXCHANGE).unwrap();
        let output = dir.join("all.pcapng");
        let run = convert(&[], &traces, &output).run().expect_status(1);
        assert_eq!(run.stderr.lines().filter(|line| line.contains("without a time")).count(), 3, "{run:?}");
        let frames = tshark::read(&output);
        assert!(frames.is_sorted_by_key(|frame| frame.time));
        assert_eq!(frames[0].time, TIME);
        assert!(frames.last().unwrap().time < TIME + 1_000_000, "{}", frames.last().unwrap().time - TIME);
        let comments = tshark::lines(&output, &["-T", "fields", "-e", "frame.comment"]).join("\n");
        assert_eq!(comments.matches("from the earliest time of the other traces on").count(), 2, "{comments}");
        let again = dir.join("again.pcapng");
        convert(&[], &traces, &again).run();
        assert_eq!(fs::read(&output).unwrap(), fs::read(&again).unwrap());
    }
}

#[test]
fn an_event_before_the_first_time_gets_that_time() {
    let dir = Dir::new("first-bad");
    let output = dir.join("out.pcapng");
    let expect = |name: &str, bytes: &[u8], time: u64| {
        let input = dir.create(name, bytes);
        convert(&[], &input, &output).run();
        assert_eq!(times(&output)[0], time, "{name}");
        assert!(first_comment(&output).contains("from the first time after it in the trace on"), "{name}");
    };
    let real = fs::read(Path::new(ROOT).join("testdata/faults/firstbad.pb")).unwrap();
    expect("firstbad.pb", &real, 1_700_000_000_000_000_000);
    // From a pipe, one message ahead is read.
    tap2pcap().arg("-").arg(&output).stdin(real).run().expect_status(1);
    assert_eq!(times(&output)[0], 1_700_000_000_000_000_000);
    // Any number of events without a time may come before it, in any format.
    let mut events: Vec<_> = (0..50).map(|_| without_time(read(0, b"q"))).collect();
    events.push(write(TIME, b"a"));
    for dress in [Dress::Binary, Dress::Json] {
        let name = format!("trace.{}", dress.suffix());
        expect(&name, &dress.file(&streamed(1, downstream(), events.clone())), TIME);
        expect(&name, &dress.file(&[buffered(1, downstream(), events.clone())]), TIME);
    }
    expect("http.json", format!("{EXCHANGE}\n{DATED}").as_bytes(), DATE);
}

#[test]
fn a_made_up_time_is_marked() {
    let dir = Dir::new("made-up-time");
    let event = SocketEvent { timestamp: None, ..read(TIME, b"x") };
    let output = dir.join("out.pcapng");
    convert(&[], &dir.create("path_0.pb", Dress::Binary.file(&streamed(1, downstream(), [event]))), &output)
        .run()
        .expect_status(1);
    let comments = tshark::read(&output).remove(0).comments.join("\n");
    assert!(comments.contains("no time for the beginning of this connection"), "{comments}");
}

/// pcap holds 32 bits of seconds, up to the year 2106; pcapng holds more.
#[test]
fn a_time_beyond_pcap_costs_its_packet_alone() {
    let dir = Dir::new("pcap-2106");
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
