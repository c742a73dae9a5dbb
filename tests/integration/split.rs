//! `--split`: several captures that hold together what one would.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use tap2pcap::proto::tap::{Connection, TraceWrapper};

use crate::{
    batch::{Running, client, conversation, numbered, paths, temporaries},
    fixture::{self, Dress, TIME, closed, pipe, read},
    tshark::{self, Frame},
    util::{CAPINFOS, Dir, EDITCAP, ROOT, Run, convert, tap2pcap},
    wait::wait_until,
};

const SECOND: u64 = 1_000_000_000;

/// `count` connections, one second after each other, of 100 seconds each: all of them are open at once. Their messages
/// alternate.
fn interleaved(count: u32, rounds: u64) -> Vec<u8> {
    let mut messages: Vec<(u64, TraceWrapper)> = Vec::new();
    for number in 0..count {
        let start = TIME + u64::from(number) * SECOND;
        let conversation = conversation(number, rounds, start, start + 100 * SECOND);
        // The first message has the addresses, and the last event is the end.
        let step = 100 * SECOND / (2 * rounds + 1);
        let last = 2 * rounds + 1;
        let time = |at: u64| if at == last { start + 100 * SECOND } else { start + at.saturating_sub(1) * step };
        messages.extend(conversation.into_iter().zip(0..).map(|(message, at)| (time(at), message)));
    }
    messages.sort_by_key(|(time, _)| *time);
    let messages: Vec<_> = messages.into_iter().map(|(_, message)| message).collect();
    Dress::Delimited.file(&messages)
}

fn split(dir: &Dir, what: &str, input: &Path, output: &Path) -> Vec<PathBuf> {
    convert(&["-q", "--split", what], input, output).run().expect_clean();
    let folder = output.parent().unwrap();
    assert_eq!(temporaries(folder), Vec::<String>::new());
    assert!(folder.starts_with(dir.path()));
    paths(folder).into_iter().filter(|name| name.contains("-0")).map(|name| folder.join(name)).collect()
}

/// What must be the same in one capture and in many. Streams are numbered in each file.
fn content(frame: &Frame) -> Frame {
    Frame { stream: 0, ..frame.clone() }
}

/// The packet alone: what Wireshark says of it depends on those before it in the file. Of several sections in one file,
/// tshark names the interfaces of the first.
fn alone(frame: &Frame) -> Frame {
    Frame { window: 0, analysis: false, expert: Vec::new(), interface: String::new(), ..content(frame) }
}

fn packets(capture: &Path) -> Vec<Frame> {
    tshark::read(capture).iter().map(content).collect()
}

#[test]
fn each_connection_has_a_capture_in_the_order_in_which_they_begin() {
    let dir = Dir::new("split-connections");
    let trace = dir.create("trace.pb_length_delimited", interleaved(30, 4));
    for suffix in ["pcapng", "pcap"] {
        let whole = dir.join(format!("whole.{suffix}"));
        convert(&["-q"], &trace, &whole).run().expect_clean();
        let all = tshark::read(&whole);
        let parts = split(&dir, "connection", &trace, &dir.fresh().join(format!("one.{suffix}")));
        let names: Vec<_> = parts.iter().map(|part| part.file_name().unwrap().to_str().unwrap()).collect();
        let expected: Vec<_> = (1..=30).map(|number| format!("one-{number:05}.{suffix}")).collect();
        assert_eq!(names, expected);
        for (index, part) in parts.iter().enumerate() {
            // Wireshark numbers streams in the order of their first packets.
            let of_whole: Vec<_> = all.iter().filter(|frame| frame.stream == index as u32).map(content).collect();
            assert!(packets(part) == of_whole, "{}", part.display());
        }
    }
}

#[test]
fn captures_that_follow_each_other_hold_what_one_holds() {
    let dir = Dir::new("split-size");
    fs::create_dir(dir.join("in")).unwrap();
    let (one, two) = (
        dir.create("in/one.pb_length_delimited", interleaved(20, 6)),
        dir.create("in/two.pb_length_delimited", interleaved(25, 3)),
    );
    let inputs = one.parent().unwrap();
    assert!(two.starts_with(inputs));
    let whole = dir.join("whole.pcapng");
    convert(&["-q"], inputs, &whole).run().expect_clean();
    let all: Vec<_> = tshark::read(&whole).iter().map(alone).collect();
    for size in [1, 500, 3000, 20_000, 10_000_000_u64] {
        let parts = split(&dir, &format!("size={size}"), inputs, &dir.fresh().join("part.pcapng"));
        let split: Vec<Vec<Frame>> =
            tshark::read_many(&dir, &parts).iter().map(|part| part.iter().map(alone).collect()).collect();
        let split_all = split.concat();
        assert_eq!(split_all.len(), all.len(), "{size}");
        let differs = split_all.iter().zip(&all).find(|(split, all)| split != all);
        assert!(differs.is_none(), "{size}: {differs:?}");
        for (part, frames) in parts.iter().zip(&split) {
            let len = fs::metadata(part).unwrap().len();
            assert!(len <= size || frames.len() == 1, "{}: {len} bytes, {} packets", part.display(), frames.len());
        }
        CAPINFOS.run(&parts, &[]);
        // Each says which traces its packets are from.
        if parts.len() < 30 {
            let of_parts = parts.iter().flat_map(|part| tshark::read(part)).map(|frame| frame.interface);
            assert!(of_parts.eq(tshark::read(&whole).into_iter().map(|frame| frame.interface)), "{size}");
        }
        // As much as fits is in one.
        assert!(parts.len() as u64 <= 2 * fs::metadata(&whole).unwrap().len() / size + 1 || size < 3000);
    }
}

#[test]
fn slices_of_time_are_those_of_editcap() {
    let dir = Dir::new("split-time");
    let trace = dir.create("trace.pb_length_delimited", interleaved(12, 5));
    let whole = dir.join("whole.pcapng");
    convert(&["-q"], &trace, &whole).run().expect_clean();
    for (time, seconds) in [("7s", "7"), ("30s", "30"), ("1min", "60"), ("1h", "3600")] {
        let parts = split(&dir, &format!("time={time}"), &trace, &dir.fresh().join("part.pcapng"));
        let judged = dir.fresh().join("slice.pcapng");
        EDITCAP.run([Path::new("-i"), Path::new(seconds), &whole, &judged], &[]);
        let folder = judged.parent().unwrap();
        let slices: Vec<_> = paths(folder).into_iter().map(|name| packets(&folder.join(name))).collect();
        // A slice without packets has no capture here.
        let slices: Vec<_> = slices.into_iter().filter(|slice| !slice.is_empty()).collect();
        let parts: Vec<_> = parts.iter().map(|part| packets(part)).collect();
        let lens = |parts: &[Vec<Frame>]| parts.iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(lens(&parts), lens(&slices), "{time}");
        assert!(parts == slices, "{time}");
    }
}

#[test]
fn a_mirror_splits_each_capture() {
    let dir = Dir::new("split-mirror");
    fs::create_dir_all(dir.join("in/a")).unwrap();
    dir.create("in/a/x.pb", Dress::Binary.file(&conversation(1, 3, TIME, TIME + SECOND)));
    dir.create("in/y.pb_length_delimited", interleaved(3, 2));
    let out = dir.join("out");
    let run = convert(&["--split", "connection"], &dir.join("in"), &out.join("")).run().expect_status(0);
    let expected = [
        "a/x.pb-00001.pcapng",
        "y.pb_length_delimited-00001.pcapng",
        "y.pb_length_delimited-00002.pcapng",
        "y.pb_length_delimited-00003.pcapng",
    ];
    assert_eq!(paths(&out), expected.map(str::to_owned).into());
    run.expect_stderr("4 captures written");
    let again = dir.join("again");
    convert(&["-q", "-j", "1", "--split", "connection"], &dir.join("in"), &again.join("")).run().expect_clean();
    for name in paths(&out) {
        assert_eq!(fs::read(out.join(&name)).unwrap(), fs::read(again.join(&name)).unwrap(), "{name}");
    }
}

#[test]
fn packed_captures_are_split_and_where_selects_before() {
    let dir = Dir::new("split-packed");
    let trace = dir.create("trace.pb_length_delimited", interleaved(5, 3));
    let parts = split(&dir, "connection", &trace, &dir.fresh().join("part.pcapng.gz"));
    assert_eq!(parts.len(), 5);
    for part in &parts {
        assert!(fs::read(part).unwrap().starts_with(&[0x1f, 0x8b]));
        assert_eq!(packets(part).iter().map(|frame| frame.stream).collect::<BTreeSet<_>>().len(), 1);
    }
    let output = dir.fresh().join("some.pcapng");
    let chosen = ["-q", "--split", "connection", "--where", "connection.id == 2 || connection.id == 4"];
    convert(&chosen, &trace, &output).run().expect_clean();
    assert_eq!(paths(output.parent().unwrap()).len(), 2);
}

#[test]
fn names_of_made_up_addresses_are_in_each_capture() {
    let dir = Dir::new("split-names");
    let ends = Connection { local_address: pipe("/run/envoy.sock"), remote_address: pipe("@client") };
    let events =
        numbered((0..10).map(|at| read(TIME + at * SECOND, b"words")).chain([closed(TIME + 20 * SECOND)]).collect());
    let trace = dir.create("trace.pb", Dress::Binary.file(&fixture::streamed(7, ends, events)));
    for what in ["size=600", "time=2s", "connection"] {
        for part in split(&dir, what, &trace, &dir.fresh().join("part.pcapng")) {
            let bytes = fs::read(&part).unwrap();
            let has = |name: &[u8]| bytes.windows(name.len()).any(|window| window == name);
            assert!(has(b"/run/envoy.sock"), "{what}: {}", part.display());
        }
    }
}

#[test]
fn a_failure_leaves_no_capture() {
    let dir = Dir::new("split-fails");
    let trace = dir.create("trace.pb_length_delimited", interleaved(5, 3));
    // The third capture cannot replace a directory.
    let output = dir.fresh().join("part.pcapng");
    let folder = output.parent().unwrap();
    fs::create_dir(folder.join("part-00003.pcapng")).unwrap();
    fs::write(folder.join("part-00001.pcapng"), "older").unwrap();
    for what in ["connection", "size=2000", "time=20s"] {
        let run: Run = convert(&["--split", what], &trace, &output).run().expect_status(2);
        run.expect_stderr("part-00003.pcapng: cannot write the capture");
        assert_eq!(fs::read(folder.join("part-00001.pcapng")).unwrap(), b"older");
        assert_eq!(paths(folder), ["part-00001.pcapng".to_owned()].into());
    }
    let run = convert(&["--split", "connection"], &dir.create("no.pb", "words"), &dir.join("none.pcapng")).run();
    run.expect_status(2);
    assert!(!dir.names().iter().any(|name| name.starts_with("none")));
}

#[test]
fn what_was_readable_of_a_damaged_trace_is_split_and_read_as_http() {
    let dir = Dir::new("split-damaged");
    let whole = fs::read(Path::new(ROOT).join("testdata/envoy/1.40.0/h1_str_PROTO_BINARY_133.pb")).unwrap();
    let cut = dir.create("cut.pb", &whole[..whole.len() - 100]);
    let huge = [&[0xff, 0xff, 0xff, 0xff, 0xff, 0x7f][..], &whole[..50]].concat();
    let refused = [dir.create("empty.pb", ""), dir.create("huge.pb", huge), dir.create("words.pb", "hello world\n")];
    let commands: [(&[&str], &str); 4] = [
        (&["--split", "connection"], "x.pcapng"),
        (&["--split", "size=1000"], "x.pcapng"),
        (&["--where", "response.code >= 200"], "x.pcapng"),
        (&[], "x.har"),
    ];
    for (options, output) in commands {
        let folder = dir.fresh();
        let run = convert(options, &cut, &folder.join(output)).run().expect_status(1);
        run.expect_stderr("cut.pb: byte ").expect_stderr(": cut off");
        let written = paths(&folder);
        assert!(!written.is_empty(), "{options:?}");
        if output.ends_with("pcapng") {
            CAPINFOS.run(written.iter().map(|name| folder.join(name)), &[]);
        }
        for trace in &refused {
            let folder = dir.fresh();
            let run = convert(options, trace, &folder.join(output)).run().expect_status(2);
            let run = run.expect_stderr("error: ");
            assert!(run.stderr.contains(trace.file_name().unwrap().to_str().unwrap()), "{run:?}");
            assert_eq!(paths(&folder), BTreeSet::new(), "{options:?} {}", trace.display());
        }
    }
    for options in [&["http"][..], &["http", "--stats"], &["http", "--json", "--where", "request.method == 'GET'"]] {
        let run = tap2pcap().args(options).arg(&cut).run().expect_status(1);
        run.expect_stderr("cut.pb: byte ").expect_stderr(": cut off");
        for trace in &refused {
            let run = tap2pcap().args(options).arg(trace).run().expect_status(2);
            assert!(run.stdout.is_empty() && run.stderr.contains("not an Envoy tap trace"), "{run:?}");
        }
    }
}

#[test]
fn captures_of_a_stream_appear_when_they_are_complete() {
    let dir = Dir::new("split-stream");
    let output = dir.fresh().join("live.pcapng");
    let folder = output.parent().unwrap().to_owned();
    let mut running = Running::start([Path::new("--split"), Path::new("time=10s"), Path::new("-"), &output]);
    running.send(&interleaved(3, 8));
    wait_until("the first capture is there", || folder.join("live-00001.pcapng").exists());
    assert!(!packets(&folder.join("live-00001.pcapng")).is_empty());
    running.finish();
    assert_eq!(temporaries(&folder), Vec::<String>::new());
}

#[test]
fn an_input_is_never_one_of_the_captures() {
    let dir = Dir::new("split-over");
    let trace = dir.create("x-00002.pcapng", interleaved(3, 2));
    let before = fs::read(&trace).unwrap();
    for (input, output) in [(trace.clone(), dir.join("x.pcapng")), (dir.path().to_owned(), dir.join("x.pcapng"))] {
        let run = convert(&["--split", "connection"], &input, &output).run().expect_status(2);
        run.expect_stderr("x-00002.pcapng: is both input and output");
    }
    let twin = dir.create("x", interleaved(2, 2));
    let run = tap2pcap().args(&["--split", "connection"]).arg(&trace).arg(&twin).arg(dir.path()).run().expect_status(2);
    run.expect_stderr("x-00002.pcapng: is both input and output");
    assert_eq!(fs::read(&trace).unwrap(), before);
}

#[test]
fn what_cannot_be_split_is_refused() {
    let dir = Dir::new("split-refused");
    let trace = dir.create("trace.pb", Dress::Binary.file(&conversation(1, 1, TIME, TIME + 1000)));
    for what in
        ["", "connections", "connection=3", "size", "size=", "size=0", "size=-1", "size=1x", "time=0s", "time=soon"]
    {
        let run = convert(&["--split", what], &trace, &dir.join("out.pcapng")).run().expect_status(2);
        run.expect_stderr("--split");
    }
    for output in [Path::new("-"), &dir.join("out.har"), Path::new("/dev/null")] {
        let run = convert(&["--split", "connection"], &trace, output).run().expect_status(2);
        run.expect_stderr("--split is for captures in files");
    }
    assert_eq!(dir.names(), ["trace.pb"]);
}

/// Thousands of connections that are open at once need no file and no buffer each: 3,000 of them, with 60 MB of payload.
#[test]
fn many_open_connections_take_little_memory() {
    let dir = Dir::new("split-memory");
    let payload = vec![b'x'; 10_000];
    let mut messages = Vec::new();
    for round in 0..2 {
        for number in 0..3000 {
            let time = TIME + u64::from(number) * 1000 + round * SECOND;
            let mut event = read(time, &payload);
            event.seq_num = 1 + round * payload.len() as u64;
            let events = fixture::streamed(u64::from(number), client(number), [event]);
            messages.extend(events.into_iter().skip(usize::from(round > 0)));
        }
    }
    let trace = dir.create("trace.pb_length_delimited", Dress::Delimited.file(&messages));
    let output = dir.fresh().join("part.pcapng");
    convert(&["-q", "--split", "connection"], &trace, &output).run_within(300).expect_status(0);
    let parts = paths(output.parent().unwrap());
    assert_eq!(parts.len(), 3000);
    let last = packets(&output.parent().unwrap().join("part-03000.pcapng"));
    assert_eq!(last.iter().map(|frame| frame.payload.len()).sum::<usize>(), 20_000);
}
