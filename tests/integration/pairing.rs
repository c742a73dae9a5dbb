//! `--pair`: which exchanges with upstreams belong to which exchange with a client, told by both taps of one Envoy.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;
use tap2pcap::proto::tap::{Connection, TraceWrapper};

use crate::{
    fixture::{Dress, TIME, closed, downstream, read, socket, streamed, write},
    util::{Dir, ROOT, Run, tap2pcap},
};

const MS: u64 = 1_000_000;

fn testdata(name: &str) -> PathBuf {
    Path::new(ROOT).join("testdata").join(name)
}

fn head(path: &str, fields: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: shop.example\r\n{fields}\r\n")
}

fn answer(code: u16) -> String {
    format!("HTTP/1.1 {code} X\r\ncontent-length: 2\r\n\r\nok")
}

/// A client's request at this time, and its answer.
fn asked(id: u64, head: &str, code: u16, [from, to]: [u64; 2]) -> Vec<TraceWrapper> {
    let [from, to] = [from, to].map(|ms| TIME + ms * MS);
    streamed(id, downstream(), [read(from, head.as_bytes()), write(to, answer(code).as_bytes()), closed(to)])
}

/// A request to an upstream at this time, and its answer.
fn passed_on(id: u64, head: &str, code: u16, [from, to]: [u64; 2]) -> Vec<TraceWrapper> {
    let [from, to] = [from, to].map(|ms| TIME + ms * MS);
    let connection =
        Connection { local_address: socket("10.0.0.1", 40_000 + id as u32), remote_address: socket("10.0.0.9", 9000) };
    streamed(id, connection, [write(from, head.as_bytes()), read(to, answer(code).as_bytes()), closed(to)])
}

/// One file of all of these.
fn traces(dir: &Dir, traces: &[Vec<TraceWrapper>]) -> std::path::PathBuf {
    let path = dir.join("traces.json");
    let all: Vec<TraceWrapper> = traces.concat();
    fs::write(&path, Dress::Json.file(&all)).unwrap();
    path
}

fn http(dir: &Dir, options: &[&str], given: &[Vec<TraceWrapper>]) -> Run {
    let path = traces(dir, given);
    tap2pcap().args(&["http", "--json", "-q"]).args(options).arg(&path).run().expect_no_panic()
}

/// The line of the connection with this id.
fn line(run: &Run, id: u64) -> Value {
    let lines = run.stdout_text().lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.into_iter().find(|line| line["connection"]["id"] == id).unwrap()
}

#[test]
fn both_sides_of_a_request_tell_what_envoy_took_of_its_time() {
    let dir = Dir::new("pairing-sides");
    let id = "x-request-id: 5c0d6f6e-0a7b-4c9b-8d2e-2f6f0f3c8f11\r\n";
    let given = [
        asked(1, &head("/a", id), 200, [0, 30]),
        passed_on(2, &head("/a", id), 503, [2, 5]),
        passed_on(3, &head("/a", id), 200, [10, 27]),
        asked(4, &head("/b", ""), 200, [100, 130]),
        passed_on(5, &head("/b", ""), 200, [101, 129]),
        asked(6, &head("/c", ""), 404, [200, 201]),
    ];
    let run = http(&dir, &["--pair"], &given).expect_status(0);
    let retried = line(&run, 1);
    assert_eq!(retried["pairing"], "certain");
    let upstream =
        serde_json::json!({ "address": "10.0.0.9:9000", "connection": { "id": 3 }, "request_attempt_count": 2 });
    assert_eq!(retried["upstream"], upstream);
    assert_eq!(retried["envoy"], serde_json::json!({ "request_latency": "0.002s", "response_latency": "0.003s" }));
    assert_eq!(line(&run, 2)["envoy"], serde_json::json!({ "request_latency": "0.002s" }));
    assert_eq!(line(&run, 3)["envoy"], serde_json::json!({ "response_latency": "0.003s" }));
    assert_eq!(line(&run, 4)["pairing"], "likely");
    assert_eq!(line(&run, 5)["upstream"]["connection"]["id"], 5);
    let alone = line(&run, 6);
    assert_eq!((&alone["pairing"], &alone["upstream"]), (&Value::from("none"), &Value::Null));
}

#[test]
fn a_filter_over_a_pair_needs_no_option_and_other_commands_refuse_it() {
    let dir = Dir::new("pairing-filter");
    let given = [
        asked(4, &head("/b", ""), 200, [100, 130]),
        passed_on(5, &head("/b", ""), 200, [101, 129]),
        asked(6, &head("/c", ""), 404, [200, 201]),
    ];
    let filter = "pairing == 'likely' && upstream.connection.id == 5u && envoy.request_latency == duration('1ms')";
    let run = http(&dir, &["--where", filter], &given).expect_status(0);
    assert_eq!(run.stdout_text().lines().count(), 2);
    let none = http(&dir, &["--where", "pairing == 'none'"], &given).expect_status(0);
    assert_eq!(line(&none, 6)["response"]["code"], 404);
    let path = dir.join("traces.json");
    let refused = tap2pcap().args(&["tables", "--where", filter]).arg(&path).arg(dir.join("tables")).run();
    refused.expect_status(2).expect_stderr("known to conversions, open, http and report alone");
}

#[test]
fn an_access_log_makes_a_pair_certain_and_says_what_it_cannot_read() {
    let dir = Dir::new("pairing-log");
    let given = [asked(4, &head("/b", ""), 200, [100, 130]), passed_on(5, &head("/b", ""), 200, [101, 129])];
    let log = dir.join("access.log");
    let line_of_log = r#"{"connection_id": 4, "upstream_connection_id": 5, "method": "GET", "path": "/b"}"#;
    fs::write(&log, format!("{line_of_log}\nnothing of the kind\n")).unwrap();
    let path = traces(&dir, &given);
    let run = tap2pcap().args(&["http", "--json", "--access-log"]).arg(&log).arg(&path).run().expect_status(0);
    assert_eq!(line(&run, 4)["pairing"], "certain");
    run.expect_stderr("1 line in no known format, first line 2");
    let absent = tap2pcap().args(&["http", "--access-log", "/nonexistent/log"]).arg(&path).run().expect_status(2);
    absent.expect_stderr("/nonexistent/log");
}

#[test]
fn redaction_replaces_the_upstream_as_it_replaces_it_elsewhere() {
    let dir = Dir::new("pairing-redact");
    let key = dir.join("key");
    fs::write(&key, "0123456789abcdeffedcba98765432101032547698badcfeefcdab8967452301\n").unwrap();
    let given = [asked(4, &head("/b", ""), 200, [100, 130]), passed_on(5, &head("/b", ""), 200, [101, 129])];
    let path = traces(&dir, &given);
    let run = tap2pcap()
        .args(&["http", "--json", "--pair", "--redact", "--redact-addresses"])
        .arg(&key)
        .arg(&path)
        .run()
        .expect_status(0);
    assert!(!run.stdout_text().contains("10.0.0.9"));
    assert_eq!(line(&run, 4)["upstream"]["address"], line(&run, 5)["destination"]["address"]);
}

/// The comments of the first packet of each connection in a capture.
fn comments(capture: &std::path::Path) -> Vec<String> {
    let shown = std::process::Command::new("tshark")
        .arg("-r")
        .arg(capture)
        .args(["-Y", "tcp.flags.syn == 1 && tcp.flags.ack == 0", "-T", "fields", "-e", "frame.comment"])
        .output()
        .unwrap();
    String::from_utf8(shown.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn a_paired_capture_keeps_both_connections_and_says_so() {
    let dir = Dir::new("pairing-capture");
    let given = [
        asked(4, &head("/b", ""), 503, [100, 130]),
        passed_on(5, &head("/b", ""), 503, [101, 129]),
        asked(6, &head("/c", ""), 404, [200, 201]),
    ];
    let path = traces(&dir, &given);
    let convert = |options: &[&str], out: &str| {
        let out = dir.join(out);
        tap2pcap().arg(&path).args(options).arg(&out).run().expect_status(0);
        out
    };
    // The client's connection matches, and the upstream's comes with it.
    let both = ["--pair", "--where", "response.code == 503 && connection.side == 'downstream'"];
    let found = comments(&convert(&both, "both.pcapng"));
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].contains("paired (likely): 1 request went on to the upstream on the connection with trace_id 5"));
    assert!(found[1].contains("paired (likely): 1 request came from the client on the connection with trace_id 4"));
    // An expression over pairs asks for it by itself.
    let found = comments(&convert(&["--where", "pairing == 'none'"], "none.pcapng"));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("trace_id 6") && !found[0].contains("paired"), "{found:?}");
    // HAR has the exchanges that match, and no others.
    let har = convert(&["--where", "pairing == 'likely' && connection.side == 'upstream'"], "out.har");
    let har: Value = serde_json::from_slice(&fs::read(har).unwrap()).unwrap();
    assert_eq!(har["log"]["entries"].as_array().unwrap().len(), 1);
}

#[test]
fn nothing_is_written_over_an_access_log() {
    let dir = Dir::new("pairing-log-kept");
    let log = fs::read(testdata("pairing/known/access.log")).unwrap();
    let refused = |name: &str, options: &[&str], input: &Path, output: &Path| {
        let path = if output.is_dir() { output.join(name) } else { dir.join(name) };
        fs::write(&path, &log).unwrap();
        let run = tap2pcap().args(&["--access-log"]).arg(&path).args(options);
        let run = if options.is_empty() { run } else { run.arg(&path) };
        let run = run.arg(input).arg(output).run().expect_status(2);
        assert!(run.stderr.contains("is both input and output"), "{name}: {run:?}");
        assert_eq!(fs::read(&path).unwrap(), log, "{name}");
    };
    let traces = testdata("pairing/known/traces");
    refused("log.pcapng", &[], &traces, &dir.join("log.pcapng"));
    refused("log.har", &[], &traces, &dir.join("log.har"));
    refused("log.txt", &["--redact", "--redact-report"], &traces, &dir.join("other.pcapng"));
    // A capture in a directory may have the log's name as well.
    let (inputs, outputs) = (dir.join("inputs"), dir.join("outputs"));
    fs::create_dir_all(&inputs).unwrap();
    fs::create_dir_all(&outputs).unwrap();
    fs::copy(testdata("envoy/1.40.0/h1_str_PROTO_BINARY_133.pb"), inputs.join("a.pb")).unwrap();
    refused("a.pb.pcapng", &[], &inputs, &outputs);
}

/// The real Envoy with both taps, and the truth about what it did. See testdata/pairing/README.md.
#[test]
fn a_real_envoy_is_told_the_truth_about() {
    for (set, with_log, certain) in
        [("known", false, "certain"), ("known", true, "certain"), ("none", false, "likely"), ("none", true, "certain")]
    {
        let folder = testdata("pairing").join(set);
        let truth: Vec<Value> = serde_json::from_slice(&fs::read(folder.join("truth.json")).unwrap()).unwrap();
        let run = tap2pcap().args(&["http", "--pair", "--json"]);
        let run = if with_log { run.args(&["--access-log"]).arg(folder.join("access.log")) } else { run };
        let run = run.arg(folder.join("traces")).run();
        let mut told = 0;
        for line in run.stdout_text().lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            let Some(number) = line["request"]["headers"]["x-truth"].as_str() else { continue };
            let truth = truth.iter().find(|truth| truth["truth"] == number).unwrap();
            let upstream = &line["upstream"]["connection"]["id"];
            if !upstream.is_null() {
                assert_eq!(*upstream, truth["upstream_connection_id"], "{set} {number}");
                told += usize::from(line["pairing"] == certain);
            }
        }
        assert!(told > truth.len() / 2, "{set} {with_log}: {told} of {}", truth.len());
    }
}
