//! `tap2pcap tables`: three tables of each trace, read once. Their lines are those of the three commands that have them.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use rustix::process::Signal;
use serde_json::Value;
use tap2pcap::proto::tap::{
    TraceWrapper, http_streamed_trace_segment::MessagePiece as HttpPiece, socket_streamed_trace_segment::MessagePiece,
};

use crate::{
    batch::{Running, client, conversation, fifo, numbered, paths, temporaries, tree, write_overlapping},
    fixture::{self, Dress, TIME, closed, downstream, read, segment, streamed, write},
    http,
    protocols::client_hello,
    util::{Dir, ROOT, Run, on_all_cores, tap2pcap},
    wait::{handles_signals, wait_until, wait_until_idle},
};

const KEY: &str = "0123456789abcdeffedcba98765432101032547698badcfeefcdab8967452301\n";

const NAMES: [&str; 3] = ["connections", "requests", "findings"];

fn testdata(name: &str) -> PathBuf {
    Path::new(ROOT).join("testdata").join(name)
}

/// Runs `tables` on inputs.
fn tables(options: &[&str], inputs: &[&Path], output: &Path) -> Run {
    let command = tap2pcap().args(&["tables", "-q"]).args(options);
    inputs.iter().fold(command, |command, input| command.arg(input)).arg(output).run().expect_no_panic()
}

/// The tables in a directory.
fn written(directory: &Path) -> [String; 3] {
    NAMES.map(|name| fs::read_to_string(directory.join(format!("{name}.ndjson"))).unwrap())
}

/// What the three commands print, with the status of the last of them.
fn printed(options: &[&str], inputs: &[&Path], stdin: &[u8]) -> ([String; 3], i32) {
    let run = |command: &str| {
        let command = tap2pcap().args(&[command, "--json", "-q"]).args(options).stdin(stdin);
        inputs.iter().fold(command, |command, input| command.arg(input)).run().expect_no_panic()
    };
    let runs = ["info", "http", "validate"].map(run);
    let statuses = [0, 1, 2].map(|index: usize| runs[index].status.code());
    assert!(statuses.iter().all(|status| *status == statuses[0]), "{runs:?}");
    (runs.each_ref().map(|run| run.stdout_text().to_owned()), statuses[0].unwrap())
}

/// The tables that the lines of one stream are.
fn of_stream(stream: &str) -> [String; 3] {
    NAMES.map(|name| {
        let prefix = format!("{{\"table\":\"{name}\",");
        stream.lines().filter_map(|line| line.strip_prefix(&prefix)).map(|line| format!("{{{line}\n")).collect()
    })
}

fn values(lines: &str) -> Vec<Value> {
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Every file of the test data by itself, so that those that are refused are among them.
fn every_file() -> Vec<PathBuf> {
    let all = walkdir::WalkDir::new(testdata("")).sort_by_file_name().into_iter().map(Result::unwrap);
    all.filter(|entry| entry.file_type().is_file()).map(walkdir::DirEntry::into_path).collect()
}

#[test]
fn tables_are_what_three_commands_print() {
    let dir = Dir::new("tables-all");
    let files = every_file();
    let lines = on_all_cores(&files, |file| {
        let (expected, status) = printed(&[], &[file], b"");
        let out = dir.fresh().join("out");
        let run = tables(&[], &[file], &out);
        assert_eq!(run.status.code(), Some(status), "{run:?}");
        if status == 2 {
            assert!(!out.exists(), "{run:?}");
            // A pipe cannot be taken back.
            let run = tables(&[], &[file], Path::new("-"));
            assert_eq!((run.status.code(), of_stream(run.stdout_text())), (Some(2), expected), "{run:?}");
            return [0; 3];
        }
        let found = written(&out);
        assert_eq!(found, expected, "{run:?}");
        found.map(|table| table.lines().count())
    });
    let sum = |index: usize| lines.iter().map(|lines| lines[index]).sum::<usize>();
    assert!(sum(0) > 200 && sum(1) > 200 && sum(2) > 150, "{:?}", [0, 1, 2].map(sum));
}

#[test]
fn directories_archives_and_streams_are_inputs() {
    let dir = Dir::new("tables-inputs");
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_dir_all("tap", testdata("tap")).unwrap();
    let archive = archive.into_inner().unwrap();
    let file = dir.create("traces.tar", &archive);
    let inputs = [testdata("envoy"), testdata("inputs"), testdata("http"), file.clone()];
    let inputs: Vec<_> = inputs.iter().map(PathBuf::as_path).collect();
    let (expected, status) = printed(&[], &inputs, b"");
    for jobs in ["1", "2", "7"] {
        // It is made, with those that lead to it.
        let out = dir.fresh().join("a/b");
        tables(&["--jobs", jobs], &inputs, &out).expect_status(status);
        assert_eq!(written(&out), expected, "{jobs}");
        assert_eq!(paths(&out).len(), 3);
        let run = tables(&["--jobs", jobs], &inputs, Path::new("-")).expect_status(status);
        assert_eq!(of_stream(run.stdout_text()), expected, "{jobs}");
        assert_eq!(
            run.stdout_text().lines().count(),
            expected.iter().map(|table| table.lines().count()).sum::<usize>()
        );
    }
    let (expected, status) = printed(&[], &[Path::new("-")], &archive);
    let stdin = |options: &[&str]| {
        let run = tap2pcap().args(&["tables", "-q"]).args(options).args(&["-", "-"]).stdin(archive.clone()).run();
        of_stream(run.expect_status(status).stdout_text())
    };
    assert_eq!(stdin(&[]), expected);
    // Its name is as long as one that is no text, and stands for what was in the archive as well.
    let named = stdin(&["--stdin-name", file.to_str().unwrap()]);
    assert_eq!(named, printed(&[], &[&file], b"").0);
}

/// A name may come from whoever put an object into a bucket.
#[test]
fn standard_input_has_a_name() {
    let trace = fs::read(testdata("envoy/1.40.0/h1trunc_str_PROTO_BINARY_137.pb")).unwrap();
    let name = "s3a://bucket/\"a\\\u{1b}[2J\n\u{202e}b.pb";
    let run = tap2pcap().args(&["tables", "-q", "--stdin-name", name, "-", "-"]).stdin(trace).run().expect_status(0);
    assert!(run.stdout.is_ascii() && !run.stdout.contains(&0x1b), "{run:?}");
    let [connections, requests, findings] = of_stream(run.stdout_text()).map(|table| values(&table));
    assert!(!connections.is_empty() && !requests.is_empty() && !findings.is_empty());
    for line in connections.iter().chain(&requests) {
        assert_eq!(line["trace"]["file"], name);
    }
    assert!(connections.iter().chain(&findings).all(|line| line["path"] == name));
    let run = tap2pcap().args(&["tables", "--stdin-name", name, "-", "-"]).stdin("no trace").run().expect_status(2);
    assert_eq!(values(&of_stream(run.stdout_text())[2])[0]["path"], name);
}

/// The rows of two tables can be joined, whatever the connection was tapped by.
#[test]
fn a_request_says_of_its_connection_what_the_connection_says() {
    let dir = Dir::new("tables-join");
    tables(&[], &[&testdata("")], dir.path());
    let [connections, requests, _] = written(dir.path()).map(|table| values(&table));
    let objects = |line: &Value| ["connection", "source", "destination"].map(|name| line[name].clone());
    let key = |line: &Value| (line["trace"]["file"].to_string(), line["connection"]["id"].to_string());
    let mut by_key = std::collections::HashMap::<_, Vec<_>>::new();
    connections.iter().for_each(|line| by_key.entry(key(line)).or_default().push(objects(line)));
    let mut protocols = std::collections::BTreeSet::new();
    for request in &requests {
        assert!(by_key[&key(request)].contains(&objects(request)), "{request}");
        protocols.insert(request["connection"]["protocol"].to_string());
    }
    assert!(protocols.len() >= 4, "{protocols:?}");
}

#[test]
fn packed_tables_are_the_same_in_every_run() {
    let dir = Dir::new("tables-zst");
    let (envoy, tap) = (testdata("envoy"), testdata("tap"));
    let inputs = [envoy.as_path(), &tap];
    let plain = dir.fresh();
    tables(&[], &inputs, &plain);
    let [one, four] = ["1", "4"].map(|jobs| {
        let out = dir.fresh();
        tables(&["--zst", "-j", jobs], &inputs, &out);
        tree(&out)
    });
    assert_eq!(one, four);
    for (name, bytes) in tree(&plain) {
        let packed = &one[&format!("{name}.zst")];
        assert_eq!(zstd::decode_all(packed.as_slice()).unwrap(), bytes, "{name}");
        // The frame has a checksum (RFC 8878 section 3.1.1.1.1.6).
        assert!(packed[4] & 4 != 0 && (bytes.is_empty() || packed.len() < bytes.len() / 2), "{name}");
    }
    let stream = |options: &[&str]| tables(options, &inputs, Path::new("-")).stdout;
    let packed = stream(&["--zst", "-j1"]);
    assert_eq!(packed, stream(&["--zst", "-j4"]));
    assert_eq!(zstd::decode_all(packed.as_slice()).unwrap(), stream(&[]));
}

#[test]
fn where_keeps_requests_and_their_connections() {
    let dir = Dir::new("tables-where");
    let (all, traces) = (dir.fresh(), testdata(""));
    tables(&[], &[&traces], &all);
    let [_, _, findings] = written(&all);
    for expression in [
        "response.code >= 500",
        "connection.duration > duration('40ms') && request.method == 'GET'",
        "connection.protocol == 'grpc'",
        "connection.protocol == 'tls' || connection.received_bytes > 5000",
        "source.address.startsWith('127.0.0.1')",
        "true",
        "false",
    ] {
        let out = dir.fresh();
        tables(&["--where", expression], &[&traces], &out);
        let found = written(&out);
        let select = |command: &str| {
            let run = tap2pcap().args(&[command, "--json", "-q", "--where", expression]).arg(&traces).run();
            run.stdout_text().to_owned()
        };
        assert_eq!(found[0], select("info"), "{expression}");
        assert_eq!(found[1], select("http"), "{expression}");
        assert_eq!(found[2], findings, "{expression}");
        assert_eq!(found[0].is_empty(), expression == "false");
    }
}

#[test]
fn tables_appear_together_or_not_at_all() {
    let dir = Dir::new("tables-whole");
    let bad = dir.create("bad.pb", "what is this?");
    let good = testdata("envoy/1.40.0/h1_str_PROTO_BINARY_133.pb");
    let out = dir.fresh();
    let older = |expected: &[&str]| {
        assert_eq!(paths(&out).into_iter().collect::<Vec<_>>(), expected);
        assert!(tree(&out).values().all(|bytes| bytes == b"older"));
    };
    for name in NAMES {
        fs::write(out.join(format!("{name}.ndjson")), "older").unwrap();
    }
    let names = ["connections.ndjson", "findings.ndjson", "requests.ndjson"];
    tables(&[], &[&bad], &out).expect_status(2).expect_stderr("not an Envoy tap trace");
    older(&names);
    tables(&[], &[&out], &out).expect_status(2);
    older(&names);
    let run = tables(&[], &[&good, &out.join("findings.ndjson")], &out).expect_status(2);
    run.expect_stderr("findings.ndjson: is both input and output");
    older(&names);
    // A file is no directory, and nothing is read to say so.
    let run = tables(&[], &[Path::new("-")], &bad).expect_status(2).expect_stderr("bad.pb: is not a directory");
    assert_eq!(run.stderr.lines().count(), 1, "{run:?}");
    let run = tables(&["--where", "("], &[&good], &dir.join("usage")).expect_status(2);
    assert!(!dir.join("usage").exists(), "{run:?}");
    // One of the tables cannot have its place.
    fs::remove_file(out.join("requests.ndjson")).unwrap();
    fs::create_dir_all(out.join("requests.ndjson/x")).unwrap();
    tables(&[], &[&good], &out).expect_status(2).expect_stderr("requests.ndjson: cannot write the table");
    fs::remove_dir_all(out.join("requests.ndjson")).unwrap();
    older(&["connections.ndjson", "findings.ndjson"]);
    tables(&[], &[&good, &bad], &out).expect_status(1);
    assert_eq!(written(&out)[1].lines().count(), 3);
    assert_eq!(paths(&out).len(), 3);
}

/// The last table cannot get its name when the two before it have replaced older ones.
#[test]
fn older_tables_are_back_if_one_cannot_be_replaced() {
    let dir = Dir::new("tables-back");
    let out = dir.fresh();
    for name in ["connections", "requests"] {
        fs::write(out.join(format!("{name}.ndjson")), "older").unwrap();
    }
    let mut running = Running::start(["tables".as_ref(), "-".as_ref(), out.as_os_str()]);
    running.send(&Dress::Delimited.file(&conversation(1, 2, TIME, TIME + 1000)));
    wait_until("it is at work", || temporaries(&out).len() == 3);
    fs::create_dir_all(out.join("findings.ndjson/x")).unwrap();
    running.finish().expect_status(2).expect_stderr("findings.ndjson: cannot write the table");
    fs::remove_dir_all(out.join("findings.ndjson")).unwrap();
    let left = tree(&out);
    assert_eq!(left.keys().collect::<Vec<_>>(), ["connections.ndjson", "requests.ndjson"]);
    assert!(left.values().all(|bytes| bytes == b"older"), "{left:?}");
}

#[test]
fn no_table_is_a_link_to_another_output() {
    let dir = Dir::new("tables-links");
    let good = testdata("envoy/1.40.0/h1_str_PROTO_BINARY_133.pb");
    let out = dir.fresh();
    symlink("c", out.join("connections.ndjson")).unwrap();
    symlink("connections.ndjson", out.join("requests.ndjson")).unwrap();
    let run = tables(&[], &[&good], &out).expect_status(2);
    run.expect_stderr("requests.ndjson: is a link to another output");
    let out = dir.fresh();
    symlink(out.join("findings.ndjson"), dir.join("report")).unwrap();
    let report = dir.join("report");
    let run = tables(&["--redact", "--redact-report", report.to_str().unwrap()], &[&good], &out).expect_status(2);
    run.expect_stderr("report: is a link to another output");
    assert!(paths(&out).is_empty());
}

#[test]
fn directories_that_were_there_stay() {
    let dir = Dir::new("tables-made");
    let there = dir.join("there");
    fs::create_dir(&there).unwrap();
    tables(&[], &[Path::new("none.pb")], &dir.join("new/../there")).expect_status(2);
    assert!(there.exists() && !dir.join("new").exists());
}

#[test]
fn without_room_there_is_no_table() {
    let dir = Dir::new("tables-full");
    let traces = dir.join("traces");
    write_overlapping(&traces, 200, 60);
    let (new, old) = (dir.join("new/tables"), dir.fresh());
    fs::write(old.join("requests.ndjson"), "older").unwrap();
    for (output, packs) in [(&new, false), (&old, false), (&new, true)] {
        // The limit is in blocks of 512 bytes. Without SIGXFSZ, a write beyond it fails with an error.
        let script = "trap '' XFSZ; ulimit -f 4; exec \"$0\" tables \"$@\"";
        let mut command = Command::new("sh");
        command.args(["-c", script, crate::util::PROGRAM]).args(packs.then_some("--zst")).arg(&traces).arg(output);
        let run = Running::of(command).finish().expect_status(2).expect_stderr(".ndjson");
        assert!(run.stderr.contains("cannot write the table") && run.stderr.lines().count() == 1, "{run:?}");
        assert!(!dir.join("new").exists());
        assert_eq!(tree(&old).into_iter().collect::<Vec<_>>(), [("requests.ndjson".to_owned(), b"older".to_vec())]);
    }
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$0\" tables \"$1\" - > /dev/full", crate::util::PROGRAM]).arg(&traces);
    let run = Running::of(command).finish().expect_status(2);
    run.expect_stderr("-: cannot write the table: No space left on device");
}

#[test]
fn a_reader_may_close_the_stream_early() {
    let dir = Dir::new("tables-closed");
    let traces = dir.join("traces");
    write_overlapping(&traces, 400, 60);
    for jobs in ["-j1", "-j4"] {
        let mut child = Command::new(crate::util::PROGRAM)
            .args(["tables", jobs])
            .arg(&traces)
            .arg("-")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdout.take().unwrap().read_exact(&mut [0; 10]).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), b"".as_slice()));
    }
}

/// It ends with the first connection, though its source goes on.
#[test]
fn a_live_stream_ends_when_its_reader_is_gone() {
    let trace = open_at_once(1);
    let pipes = ["tables - -", "http --json -"].map(|args| {
        let mut command = Command::new(crate::util::PROGRAM);
        command.args(args.split(' ')).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        (args, command)
    });
    for (args, mut command) in pipes {
        let mut child = command.spawn().unwrap();
        drop(child.stdout.take());
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(&trace).unwrap();
        wait_until(&format!("{args} ends"), || child.try_wait().unwrap().is_some());
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), b"".as_slice()), "{args}");
    }
}

/// Whoever reads a table in a directory misses the others, which are not written then.
#[test]
fn a_table_in_a_directory_whose_reader_leaves_is_an_error() {
    let dir = Dir::new("tables-left");
    let trace = testdata("envoy/1.40.0/h1_str_PROTO_BINARY_133.pb");
    for name in NAMES {
        let out = dir.fresh();
        let pipe = out.join(format!("{name}.ndjson"));
        fifo(&pipe);
        // Findings have no line in this trace, and are written even so with an input that is refused.
        let bad = dir.create("bad.pb", "what is this?");
        let running = Running::start(["tables".as_ref(), trace.as_os_str(), bad.as_os_str(), out.as_os_str()]);
        drop(fs::File::open(&pipe).unwrap());
        let run = running.end().expect_status(2).expect_stderr("cannot write the table: Broken pipe");
        assert!(run.stderr.contains(&format!("{name}.ndjson: ")), "{run:?}");
        assert_eq!(fs::read_dir(&out).unwrap().count(), 1, "{run:?}");
    }
}

#[test]
fn interrupted_files_leave_nothing_and_a_stream_is_completed() {
    let dir = Dir::new("tables-signals");
    let trace = Dress::Delimited.file(&conversation(1, 2, TIME, TIME + 1000));
    let slow = dir.join("slow.pb");
    fifo(&slow);
    for (signal, status) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let out = dir.fresh().join("out");
        let running = Running::start(["tables".as_ref(), slow.as_os_str(), out.as_os_str()]);
        let mut writer = fs::OpenOptions::new().write(true).open(&slow).unwrap();
        writer.write_all(&trace[..trace.len() - 3]).unwrap();
        wait_until("it is at work", || out.exists() && temporaries(&out).len() == 3);
        wait_until("the program handles signals", || handles_signals(running.id()));
        wait_until_idle(running.id());
        running.signal(signal);
        let run = running.end();
        assert_eq!(run.status.code(), Some(status), "{run:?}");
        assert!(!out.exists(), "{run:?}");
        drop(writer);

        let mut running = Running::start(["tables".as_ref(), "-".as_ref(), out.as_os_str()]);
        running.send(&trace[..trace.len() - 3]);
        running.wait_until_read();
        wait_until("it is at work", || out.exists() && temporaries(&out).len() == 3);
        wait_until_idle(running.id());
        running.signal(signal);
        running.end().expect_status(0);
        assert_eq!(written(&out).map(|table| table.lines().count()), [1, 0, 0]);
    }
}

/// What a live stream has brought is seen at once.
#[test]
fn a_stream_is_seen_as_it_comes() {
    let mut running = Running::start(["tables", "-", "-"]);
    for number in 1..=3 {
        running.send(&Dress::Delimited.file(&conversation(number, 2, TIME, TIME + 1000)));
        running.wait_for(format!("\"trace_id\":{number},").as_bytes());
    }
    running.finish().expect_status(0);
}

/// HTTP over this many connections that are all open at once, each with requests that wait for its end.
fn open_at_once(connections: u32) -> Vec<u8> {
    let mut messages: Vec<TraceWrapper> = Vec::new();
    for number in 1..=connections {
        let id = u64::from(number);
        let request = format!("GET /{number} HTTP/1.1\r\nhost: a.example\r\nx-padding: {}\r\n\r\n", "x".repeat(300));
        messages.push(segment(id, MessagePiece::Connection(client(number))));
        messages.push(segment(id, MessagePiece::Event(read(TIME + id, request.as_bytes()))));
        let response = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi";
        messages.push(segment(id, MessagePiece::Event(write(TIME + id + 1, response))));
    }
    messages.extend(
        (1..=u64::from(connections)).map(|id| segment(id, MessagePiece::Event(closed(TIME + 1_000_000_000 + id)))),
    );
    Dress::Delimited.file(&messages)
}

#[test]
fn many_open_connections_take_little_memory() {
    const CONNECTIONS: u32 = 10_000;
    let dir = Dir::new("tables-memory");
    let input = dir.create("many.pb_length_delimited", open_at_once(CONNECTIONS));
    for options in [&[][..], &["--where", "connection.duration > duration('0s')"]] {
        let out = dir.fresh();
        tap2pcap().arg("tables").args(options).arg(&input).arg(&out).run_within(96).expect_clean();
        let [connections, requests, _] = written(&out);
        assert_eq!([connections, requests].map(|table| table.lines().count()), [CONNECTIONS as usize; 2]);
    }
}

/// All lines of a connection come at its end. A body that is packed well makes them far longer than the trace.
#[test]
fn one_connection_with_many_requests_takes_little_memory() {
    const REQUESTS: u64 = 1_500;
    let dir = Dir::new("tables-long");
    let mut body = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    body.write_all(&[b'x'; 64 << 10]).unwrap();
    let body = body.finish().unwrap();
    let head = format!("HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n", body.len());
    let response = [head.as_bytes(), &body].concat();
    let events = (0..REQUESTS).flat_map(|number| {
        let time = TIME + number * 1000;
        [read(time, b"GET / HTTP/1.1\r\nhost: a.example\r\n\r\n"), write(time + 1, &response)]
    });
    let trace = streamed(1, client(1), numbered(events.chain([closed(TIME + REQUESTS * 1000)]).collect()));
    let input = dir.create("long.pb_length_delimited", Dress::Delimited.file(&trace));
    let out = dir.fresh();
    tap2pcap().arg("tables").arg(&input).arg(&out).run_within(80).expect_clean();
    let [_, requests, _] = written(&out);
    assert_eq!(requests.lines().count() as u64, REQUESTS);
    assert!(requests.len() > 90 << 20);
}

/// Nothing marks the end of a streamed exchange, so that its line waits until the trace is over, or another one ends it.
#[test]
fn open_exchanges_of_http_taps_have_their_lines_too() {
    let dir = Dir::new("tables-taps");
    let exchange = fs::read_to_string(testdata("http/grpc_unary_streamed.json")).unwrap();
    let input = dir.create("taps.json", (0..200).map(|_| exchange.as_str()).collect::<String>());
    let few = ["--max-connections", "2"];
    for options in [&[][..], &few] {
        let (expected, status) = printed(options, &[&input], b"");
        let out = dir.fresh();
        tables(options, &[&input], &out).expect_status(status);
        assert_eq!(written(&out), expected);
        let selected = dir.fresh();
        tables(&[options, &["--where", "connection.protocol == 'grpc'"]].concat(), &[&input], &selected);
        assert_eq!(written(&selected)[1], expected[1]);
    }
}

/// Messages that no connection is made of, or only at the end, take no memory.
#[test]
fn hostile_http_taps_take_little_memory() {
    let dir = Dir::new("tables-hostile");
    // Buffered exchanges without anything in them, in length-delimited encoding.
    let empty = dir.create("empty.pb_length_delimited", [4, 0x0a, 2, 0x12, 0].repeat(2_000));
    // Streamed ones that the replay gives up long before.
    let mut open = Vec::new();
    for id in 1..=70_000_u64 {
        let head = HttpPiece::RequestHeaders(http::map(&[(":method", "GET"), (":path", "/")]));
        open.push(http::segment(id, head));
    }
    let open = dir.create("open.pb_length_delimited", Dress::Delimited.file(&open));
    for (options, input) in [(&[][..], &empty), (&["--max-connections", "2"], &open)] {
        let out = dir.fresh();
        let run = tap2pcap().args(&["tables", "-q", "-j1"]).args(options).arg(input).arg(&out).run_within(96);
        run.expect_status(0);
        assert_eq!(written(&out)[0].lines().count(), if input == &empty { 2_000 } else { 70_000 });
    }
}

#[test]
fn secrets_are_in_no_table() {
    let dir = Dir::new("tables-redact");
    let key = dir.create("key", KEY);
    let addresses = ["--redact-addresses", key.to_str().unwrap()];
    let names = [addresses[0], addresses[1], "--redact-names"];
    // Where something is wrong, a finding quotes it.
    let quoted = dir.create("quoted.pb_text", "socket_streamed_trace_segment { trace_id: hunter2 }\nhunter2 { }\n");
    let text = dir.create("text.txt", "hunter2 is a password\n");
    let address = {
        let connection = tap2pcap::proto::tap::Connection {
            remote_address: fixture::socket("db.internal.example", 80),
            ..downstream()
        };
        let messages = streamed(77_001, connection, [read(TIME, b"GET / HTTP/1.1\r\nhost: shop.example\r\n\r\n")]);
        dir.create("named_77001.pb", Dress::Binary.file(&messages))
    };
    let inputs = [quoted.as_path(), &text, &address];
    let said = |options: &[&str]| tables(options, &inputs, Path::new("-")).stdout_text().to_owned();
    let plain = said(&[]);
    for part in ["hunter2", "db.internal.example", "shop.example", "10.0.0.1", "77001"] {
        assert!(plain.contains(part), "{part}: {plain}");
    }
    assert!(!said(&["--redact"]).contains("hunter2"));
    assert!(said(&["--redact"]).contains("db.internal.example"));
    let replaced = said(&addresses);
    assert!(!replaced.contains("10.0.0.1") && replaced.contains("77001"), "{replaced}");
    let hidden = said(&names);
    for part in ["hunter2", "db.internal.example", "shop.example", "10.0.0.1", "77001", "named", "quoted"] {
        assert!(!hidden.contains(part), "{part}: {hidden}");
    }
    // The rows can be joined all the same.
    let [connections, requests, findings] = of_stream(&hidden).map(|table| values(&table));
    assert_eq!(connections[0]["connection"], requests[0]["connection"]);
    assert_eq!(connections[0]["path"], requests[0]["trace"]["file"]);
    assert!(findings.iter().any(|finding| finding["path"] == connections[0]["path"]));
}

/// A capture has nothing of it either.
#[test]
fn what_a_client_of_tls_asks_for_is_taken_out() {
    let dir = Dir::new("tables-tls");
    let key = dir.create("key", KEY);
    let messages = streamed(1, downstream(), [read(TIME, &client_hello())]);
    let trace = dir.create("tls_1.pb", Dress::Binary.file(&messages));
    let shown = |options: &[&str]| {
        let run = tables(options, &[&trace], Path::new("-")).expect_status(0);
        values(&of_stream(run.stdout_text())[0])[0]["tls"]["server_name"].clone()
    };
    assert_eq!(shown(&[]), "db.example");
    assert_eq!(shown(&["--redact"]), Value::Null);
    assert_eq!(shown(&["--redact-keep-unknown"]), "db.example");
    let names = ["--redact-keep-unknown", "--redact-names", "--redact-addresses", key.to_str().unwrap()];
    assert!(shown(&names).as_str().unwrap().starts_with("host-"));
}

#[test]
fn redacted_requests_are_those_of_http() {
    let dir = Dir::new("tables-redact-http");
    let key = dir.create("key", KEY);
    let http = testdata("http");
    for options in [&["--redact"][..], &["--redact-bodies"], &["--redact-addresses", key.to_str().unwrap()]] {
        let [of_tables, of_http] = ["tables.report", "http.report"].map(|name| dir.join(name));
        let run = tap2pcap().args(&["http", "--json"]).args(options).arg("--redact-report").arg(&of_http).arg(&http);
        let expected = run.run().expect_status(0);
        let out = dir.fresh();
        let run = tap2pcap().arg("tables").args(options).arg("--redact-report").arg(&of_tables).arg(&http).arg(&out);
        run.run().expect_status(0);
        assert_eq!(written(&out)[1], expected.stdout_text());
        assert_eq!(fs::read(of_tables).unwrap(), fs::read(of_http).unwrap());
    }
}
