//! `--where`: what an expression keeps, in each command that has it.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tap2pcap::proto::envoy::config::core::v3::HeaderValue;
use tap2pcap::proto::tap::{Connection, TraceWrapper, http_buffered_trace::Message};

use crate::{
    fixture::{self, Dress, closed, read, socket, streamed, write},
    http::{buffered, headers},
    manifest::{Format, samples},
    tshark,
    util::{Dir, Run, convert, tap2pcap},
};

fn message(headers: Vec<HeaderValue>) -> Message {
    Message { headers, ..Message::default() }
}

/// Three connections at once: two requests of which one fails, a request that succeeds, and one that is not HTTP.
fn trace() -> Vec<TraceWrapper> {
    let from = |port| Connection { local_address: socket("10.0.0.2", 8080), remote_address: socket("10.1.0.1", port) };
    let request = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: shop.example\r\nx-tenant: blue\r\n\r\n");
    let answer = |code: u32| format!("HTTP/1.1 {code} X\r\ncontent-length: 2\r\n\r\nok");
    let first = [
        read(1000, request("/a").as_bytes()),
        write(2000, answer(200).as_bytes()),
        read(3000, request("/b").as_bytes()),
        write(4000, answer(503).as_bytes()),
        closed(5000),
    ];
    let second = [read(1500, request("/c").as_bytes()), write(9500, answer(200).as_bytes()), closed(9600)];
    let third = [read(1600, b"\x16\x03\x01\x02\x00\x01\x00"), write(1700, b"\x16\x03\x03\x00\x00"), closed(9700)];
    let mut messages = streamed(1, from(1001), first);
    messages.extend(streamed(2, from(1002), second));
    messages.extend(streamed(3, from(1003), third));
    messages
}

fn file(dir: &Dir) -> PathBuf {
    dir.create("trace.pb_length_delimited", Dress::Delimited.file(&trace()))
}

/// The paths of the requests that match.
fn paths(trace: &Path, expression: &str) -> Vec<String> {
    let run = tap2pcap().args(&["http", "--json", "--where", expression]).arg(trace).run().expect_status(0);
    let lines = run.stdout_text().lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.map(|line| line["request"]["path"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn har_has_the_exchanges_of_taps_that_match() {
    let dir = Dir::new("filter-har-tap");
    let exchange = |path: &str, code: &str| {
        let request = headers(&[(":method", "GET"), (":path", path), (":authority", "a")]);
        buffered(message(request), message(headers(&[(":status", code)])))
    };
    // Buffered exchanges have no trace_id to tell them apart.
    let messages = [exchange("/a", "200"), exchange("/b", "500"), exchange("/c", "200")];
    let trace = dir.create("trace.pb_length_delimited", Dress::Delimited.file(&messages));
    let har = dir.join("some.har");
    let run = convert(&["--where", "response.code == 500"], &trace, &har).run().expect_status(0);
    run.expect_stderr("1 of 3 exchanges in 1 trace match");
    let har: Value = serde_json::from_slice(&std::fs::read(har).unwrap()).unwrap();
    let urls: Vec<_> = har["log"]["entries"].as_array().unwrap().iter().map(|entry| &entry["request"]["url"]).collect();
    assert_eq!(urls.len(), 1);
    assert!(urls[0].as_str().unwrap().ends_with("/b"), "{urls:?}");
}

#[test]
fn http_lists_the_requests_that_match() {
    let dir = Dir::new("filter-http");
    let trace = file(&dir);
    assert_eq!(paths(&trace, "response.code >= 500"), ["/b"]);
    assert_eq!(paths(&trace, "request.headers['x-tenant'] == 'blue' && request.path != '/a'"), ["/b", "/c"]);
    // Only the end of the connection tells.
    assert_eq!(paths(&trace, "connection.received_bytes > 100"), ["/a", "/b"]);
    assert_eq!(paths(&trace, "connection.sent_bytes > 0 && response.code == 200"), ["/a", "/c"]);
    assert_eq!(paths(&trace, "request.host == 'no.example'"), [""; 0]);
}

/// The client ports in a capture.
fn ports(capture: &Path) -> Vec<String> {
    let mut ports = tshark::lines(
        capture,
        &["-Y", "tcp.flags.syn == 1 && tcp.flags.ack == 0", "-T", "fields", "-e", "tcp.srcport"],
    );
    ports.sort();
    ports
}

#[test]
fn a_conversion_keeps_whole_connections_with_a_match() {
    let dir = Dir::new("filter-convert");
    let trace = file(&dir);
    let keep = |expression: &str| {
        let capture = dir.fresh().join("out.pcapng");
        convert(&["--where", expression], &trace, &capture).run().expect_status(0);
        ports(&capture)
    };
    assert_eq!(keep("response.code >= 500"), ["1001"]);
    assert_eq!(keep("request.method == 'GET'"), ["1001", "1002"]);
    assert_eq!(keep("connection.protocol == 'tls'"), ["1003"]);
    assert_eq!(keep("source.port > 1001"), ["1002", "1003"]);
    assert_eq!(keep("connection.protocol == 'http/1.1' && response.code == 503"), ["1001"]);
    // As tcpdump's, a capture in which nothing matches is empty, and sound.
    assert_eq!(keep("response.code == 404"), [""; 0]);
    // Both requests of the connection are there, and what belongs to it is the same as without the others.
    let whole = dir.join("whole.pcapng");
    convert(&["--where", "response.code >= 500"], &trace, &whole)
        .run()
        .expect_status(0)
        .expect_stderr("1 of 3 connections");
    assert_eq!(tshark::lines(&whole, &["-Y", "http.request", "-d", "tcp.port==8080,http"]).len(), 2);
}

#[test]
fn an_expression_that_always_holds_changes_nothing() {
    let dir = Dir::new("filter-all");
    let all = samples();
    let samples = all.iter().filter(|sample| sample.format == Format::Binary);
    for sample in samples {
        let [all, kept] = ["all.pcapng", "kept.pcapng"].map(|name| dir.join(name));
        let all_run = convert(&["-q"], &sample.path, &all).run();
        let kept_run = convert(&["-q", "--where", "true"], &sample.path, &kept).run();
        assert_eq!((all_run.status.code(), all_run.stderr), (kept_run.status.code(), kept_run.stderr));
        assert_eq!(std::fs::read(&all).unwrap(), std::fs::read(&kept).unwrap(), "{}", sample.name);
    }
}

#[test]
fn a_pipe_is_selected_from_as_well() {
    let dir = Dir::new("filter-pipe");
    let bytes = Dress::Delimited.file(&trace());
    let capture = dir.join("out.pcapng");
    let run = tap2pcap().args(&["--where", "response.code == 503", "-"]).arg(&capture).stdin(bytes).run();
    run.expect_status(0);
    assert_eq!(ports(&capture), ["1001"]);
}

#[test]
fn exchanges_of_http_taps_are_selected_by_what_was_recorded() {
    let dir = Dir::new("filter-tap");
    let exchange = |path: &str, code: &str| {
        let request = headers(&[(":method", "GET"), (":path", path), (":authority", "a.example")]);
        buffered(message(request), message(headers(&[(":status", code)])))
    };
    let messages = [exchange("/a", "200"), exchange("/b", "503"), exchange("/c", "200")];
    let trace = dir.create("trace.pb_length_delimited", Dress::Delimited.file(&messages));
    assert_eq!(paths(&trace, "response.code == 503"), ["/b"]);
    let capture = dir.join("out.pcapng");
    convert(&["--where", "response.code == 503"], &trace, &capture).run().expect_status(0);
    assert_eq!(tshark::lines(&capture, &["-Y", "http.request", "-T", "fields", "-e", "http.request.uri"]), ["/b"]);
}

#[test]
fn info_shows_the_connections_that_match() {
    let dir = Dir::new("filter-info");
    let trace = file(&dir);
    let run = tap2pcap().args(&["info", "--json", "--where", "response.code == 503"]).arg(&trace).run();
    let ids: Vec<Value> = run
        .expect_status(0)
        .stdout_text()
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["trace_id"].clone())
        .collect();
    assert_eq!(ids, [1]);
}

#[test]
fn a_directory_gets_captures_of_traces_with_a_match_alone() {
    let dir = Dir::new("filter-mirror");
    std::fs::create_dir(dir.join("in")).unwrap();
    file(&dir);
    std::fs::rename(dir.join("trace.pb_length_delimited"), dir.join("in/a.pb_length_delimited")).unwrap();
    let other = [streamed(9, fixture::downstream(), [read(1, b"hello"), closed(2)])].concat();
    std::fs::write(dir.join("in/b.pb_length_delimited"), Dress::Delimited.file(&other)).unwrap();
    let out = dir.join("out/");
    convert(&["--where", "response.code == 503"], &dir.join("in"), &out).run().expect_status(0);
    let names: Vec<_> = std::fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["a.pb_length_delimited.pcapng"]);
}

fn refused(expression: &str) -> Run {
    tap2pcap().args(&["http", "--where", expression, "no-such-file"]).run().expect_status(2)
}

#[test]
fn a_wrong_expression_is_a_usage_error_that_points_at_its_column() {
    refused("response.cod == 1").expect_stderr("column 1: no attribute \"response.cod\"; did you mean response.code?");
    refused("response.code >=").expect_stderr("column 17:");
    refused("response.code == 1 && foo(1)").expect_stderr("no function \"foo\"");
}

#[test]
fn what_cannot_be_decided_is_no_match_and_is_said_once() {
    let dir = Dir::new("filter-doubt");
    let trace = file(&dir);
    let run = tap2pcap().args(&["http", "--where", "response.code > 'x'"]).arg(&trace).run().expect_status(0);
    assert_eq!(run.stdout_text(), "");
    assert_eq!(run.stderr.matches("--where").count(), 1, "{}", run.stderr);
}

#[test]
fn exchanges_wait_for_the_end_of_their_connection_in_bounded_memory() {
    let dir = Dir::new("filter-memory");
    let body = "x".repeat(20_000);
    let mut events = Vec::new();
    for number in 0..3000 {
        let head = format!("POST /{number} HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", body.len());
        events.push(read(1000 + number, (head + &body).as_bytes()));
        events.push(write(1001 + number, b"HTTP/1.1 204 No Content\r\n\r\n"));
    }
    events.push(closed(9000));
    let trace =
        dir.create("long.pb_length_delimited", Dress::Delimited.file(&streamed(1, fixture::downstream(), events)));
    let expression = "size(request.body) == 20000 && connection.received_bytes > 60000000";
    let run =
        tap2pcap().args(&["http", "--json", "--max-body", "20000", "--where", expression]).arg(&trace).run_within(120);
    assert_eq!(run.expect_status(0).stdout_text().lines().count(), 3000);
}
