//! `tap2pcap report`: a page about traces, in one file.

use std::{
    fs,
    path::{Path, PathBuf},
};

use tap2pcap::proto::tap::{Connection, TraceWrapper};

use crate::{
    batch::temporaries,
    fixture::{Dress, TIME, closed, downstream, read, socket, streamed, write},
    util::{Dir, ROOT, Run, tap2pcap},
};

const MS: u64 = 1_000_000;

fn testdata(name: &str) -> PathBuf {
    Path::new(ROOT).join("testdata").join(name)
}

fn report(options: &[&str], inputs: &[&Path], output: &Path) -> Run {
    let command = tap2pcap().args(&["report", "-q"]).args(options);
    inputs.iter().fold(command, |command, input| command.arg(input)).arg(output).run().expect_no_panic()
}

/// What stands on standard output.
fn page(options: &[&str], inputs: &[&Path]) -> String {
    report(options, inputs, Path::new("-")).expect_status(0).stdout_text().to_owned()
}

/// A client's request at this time, and the answer 8 ms later.
fn asked(id: u64, head: &str, code: u16, time: u64) -> Vec<TraceWrapper> {
    let answer = format!("HTTP/1.1 {code} X\r\nserver: envoy\r\ncontent-length: 2\r\n\r\nno");
    let events = [read(time, head.as_bytes()), write(time + 8 * MS, answer.as_bytes()), closed(time + 9 * MS)];
    streamed(id, downstream(), events)
}

/// The same request to an upstream, with its answer.
fn passed_on(id: u64, head: &str, code: u16, time: u64) -> Vec<TraceWrapper> {
    let connection =
        Connection { local_address: socket("10.0.0.1", 40_000 + id as u32), remote_address: socket("10.0.0.9", 9000) };
    let answer = format!("HTTP/1.1 {code} X\r\ncontent-length: 2\r\n\r\nno");
    let events = [write(time, head.as_bytes()), read(time + 4 * MS, answer.as_bytes()), closed(time + 9 * MS)];
    streamed(id, connection, events)
}

fn head(path: &str, fields: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: shop.example\r\n{fields}\r\n")
}

#[test]
fn a_page_has_the_requests_whatever_the_number_of_jobs() {
    let dir = Dir::new("report-jobs");
    let inputs = [testdata("envoy"), testdata("http"), testdata("faults")];
    let inputs: Vec<_> = inputs.iter().map(PathBuf::as_path).collect();
    let [one, eight] = ["1", "8"].map(|jobs| {
        let out = dir.join(format!("{jobs}.html"));
        report(&["-j", jobs], &inputs, &out).expect_status(1);
        fs::read(out).unwrap()
    });
    assert!(one == eight);
    let text = String::from_utf8(one).unwrap();
    assert!(text.starts_with("<!doctype html>") && text.contains("h1_str_PROTO_BINARY_133.pb"));
    // What was not read is told as well.
    assert!(text.contains("bad-time"));
}

#[test]
fn standard_input_and_a_directory_give_pages() {
    let trace = fs::read(testdata("envoy/1.40.0/h1_str_PROTO_BINARY_133.pb")).unwrap();
    let run = tap2pcap().args(&["report", "-q", "-", "-"]).stdin(trace).run().expect_status(0);
    assert!(run.stdout_text().contains("</html>") && run.stderr.is_empty(), "{run:?}");
    assert!(page(&[], &[&testdata("envoy/1.40.0")]).contains("</html>"));
}

#[test]
fn hostile_text_stays_text() {
    let dir = Dir::new("report-hostile");
    let script = "<script>alert(1)</script>";
    let fields = format!("x-{}: </script>{script}\r\n", "<b>");
    let messages = asked(1, &head(&format!("/{script}?q='\"><img/onerror=x>"), &fields), 503, TIME);
    let input = dir.create("<img src=x onerror=alert(1)>.pb", Dress::Binary.file(&messages));
    let text = page(&[], &[&input]);
    for harmful in ["<script>alert", "</script><script", "<img", "'\"><img"] {
        assert!(!text.contains(harmful), "{harmful}");
    }
    assert!(text.contains("alert(1)"));
}

#[test]
fn secrets_do_not_reach_the_page() {
    let dir = Dir::new("report-redact");
    let fields = "authorization: Bearer s3cr3t-one\r\ncookie: sid=s3cr3t-two\r\n";
    let messages = asked(1, &head("/login/s?password=s3cr3t-three&x=1", fields), 503, TIME);
    let both = [messages, passed_on(2, &head("/login/s?password=s3cr3t-three&x=1", fields), 503, TIME + MS)].concat();
    let input = dir.create("a.pb", Dress::Binary.file(&both));
    assert!(page(&[], &[&input]).contains("s3cr3t-one"));
    let filter = "request.headers['cookie'] == 'sid=s3cr3t-two'";
    for options in [&["--redact"][..], &["--redact", "--where", filter]] {
        let text = page(options, &[&input]);
        assert!(text.contains("/login/s") && !text.contains("s3cr3t"), "{options:?}");
    }
    let key = dir.create("key", "0123456789abcdeffedcba98765432101032547698badcfeefcdab8967452301\n");
    let text = page(&["--redact-addresses", key.to_str().unwrap()], &[&input]);
    assert!(!text.contains("192.0.2.7") && !text.contains("10.0.0.9"));
    let text = page(&["--redact-addresses", key.to_str().unwrap(), "--redact-names"], &[&input]);
    assert!(!text.contains("a.pb") && !text.contains("shop.example"));
}

#[test]
fn both_sides_of_a_request_are_one() {
    let dir = Dir::new("report-pairs");
    let id = "x-request-id: 9a8b7c6d-0000-4000-8000-123456789abc\r\n";
    let messages = [
        asked(1, &head("/a", id), 503, TIME),
        passed_on(2, &head("/a", id), 503, TIME + 2 * MS),
        asked(3, &head("/b", ""), 404, TIME + 50 * MS),
    ]
    .concat();
    let input = dir.create("both.pb", Dress::Binary.file(&messages));
    let text = page(&[], &[&input]);
    assert!(text.contains("The upstream answered with the same status"));
    assert!(text.contains("10.0.0.9:9000"));
    assert!(text.contains("connection.id == 1 || connection.id == 2"));
    // The log knows better.
    let log = dir.create(
        "access.log",
        r#"{"start_time":"2020-01-01T00:00:00Z","path":"/x","request_id":"x"}
not a line
{"path":"/a","request_id":"9a8b7c6d-0000-4000-8000-123456789abc","response_code":503,"response_flags":"UO"}"#,
    );
    let command = tap2pcap().args(&["report", "--access-log"]).arg(&log).arg(&input).arg("-").run().expect_status(0);
    assert!(command.stdout_text().contains("circuit breaker"));
    assert!(
        command.stderr.contains("access.log: 2 lines of requests, 1 line in no known format, first line 2"),
        "{command:?}"
    );
}

#[test]
fn where_selects_requests() {
    let text = page(&["--where", "response.code == 599"], &[&testdata("envoy/1.40.0")]);
    assert!(text.contains("response.code == 599"));
    let run = report(&["--where", "nonsense.x == 1"], &[&testdata("envoy")], Path::new("-"));
    assert_eq!(run.status.code(), Some(2));
}

#[test]
fn what_was_said_in_attempts_is_told() {
    let traces = testdata("pairing/known/traces");
    let text = page(&[], &[&traces]);
    // Three upstreams answered /failing/5 with the same status.
    for attempt in 1..=3 {
        assert!(text.contains(&format!("Response of attempt {attempt}")), "{attempt}");
    }
    // Envoy's upstreams see what clients do not send.
    assert!(text.contains("x-envoy-expected-rq-timeout-ms"));
    let redacted = page(&["--redact", "--redact-header", "x-envoy-expected-rq-timeout-ms"], &[&traces]);
    let shown = |text: &str| text.matches("x-envoy-expected-rq-timeout-ms</span>: ").count();
    let timeout = "x-envoy-expected-rq-timeout-ms</span>: 15000";
    assert!(text.contains(timeout) && !redacted.contains(timeout));
    assert_eq!(shown(&redacted), shown(&text));
}

#[test]
fn where_selects_requests_with_an_attempt_that_matches() {
    let traces = testdata("pairing/known/traces");
    let filter = r#"connection.side == "upstream" && response.code == 503"#;
    let rows = |filter: &str| {
        let text = page(&["--where", filter], &[&traces]);
        let number = |label: &str| text.matches(label).count();
        (number("/flaky/3"), number("/failing/5"), number("/ok/0"), text)
    };
    let (flaky, failing, ok, text) = rows(filter);
    assert!(flaky > 0 && failing > 0 && ok == 0, "{flaky} {failing} {ok}");
    // The attempts themselves are no requests: two are shown.
    assert!(text.contains("1 ok, 0 client errors, 1 failed"));
    // What decides when its connection ends selects the same.
    let end = format!("{filter} && connection.duration >= duration(\"0s\")");
    let (flaky_again, failing_again, ok_again, _) = rows(&end);
    assert!(flaky_again > 0 && failing_again > 0 && ok_again == 0);
}

#[test]
fn more_requests_than_memory_has_room_for_wait_for_the_end_of_their_connection() {
    let dir = Dir::new("report-waiting");
    // What decides is kept of each request: its path, 7 MiB in all, of which 4 wait in memory.
    let (requests, path) = (900, "p".repeat(8 << 10));
    let exchange = |number: u64| {
        let time = TIME + number * 2 * MS;
        let (ask, answer) = (head(&format!("/{number}/{path}"), ""), "HTTP/1.1 200 X\r\ncontent-length: 0\r\n\r\n");
        [read(time, ask.as_bytes()), write(time + MS, answer.as_bytes())]
    };
    let events = (0..requests).flat_map(exchange).chain([closed(TIME + 4 * requests * MS)]);
    let input = dir.create("a.pb", Dress::Binary.file(&streamed(1, downstream(), events)));
    let ended = "connection.duration > duration(\"1s\")";
    for (filter, shown) in [
        (format!("{ended} && request.path.startsWith(\"/\")"), requests),
        (format!("{ended} && request.path.startsWith(\"/{}/\")", requests - 1), 1),
    ] {
        let text = page(&["--where", &filter], &[&input]);
        assert!(text.contains(&format!("{shown} ok, 0 client errors, 0 failed")), "{filter}");
    }
}

#[test]
fn bad_inputs_are_told_and_leave_no_page() {
    let dir = Dir::new("report-bad");
    let bad = dir.create("bad.pb", "no trace");
    let (out, good) = (dir.join("out.html"), testdata("envoy/1.40.0/h1_str_PROTO_BINARY_133.pb"));
    let run = report(&[], &[&bad], &out);
    assert_eq!(run.status.code(), Some(2));
    assert!(run.stderr.contains("bad.pb: byte 0, message 0: not an Envoy tap trace"), "{run:?}");
    assert!(!out.exists() && temporaries(dir.path()).is_empty());
    fs::write(&out, "older").unwrap();
    report(&[], &[&dir.join("absent.pb")], &out).expect_status(2);
    assert_eq!(fs::read_to_string(&out).unwrap(), "older");
    let run = report(&[], &[&bad, &good, &dir.join("absent.pb")], &out).expect_status(1);
    assert!(run.stderr.contains("absent.pb"), "{run:?}");
    let text = fs::read_to_string(&out).unwrap();
    assert!(text.contains("bad.pb") && text.contains("absent.pb"));
}

#[test]
fn an_output_that_is_none_is_refused() {
    let dir = Dir::new("report-output");
    let trace = fs::read(testdata("envoy/1.40.0/h1_str_PROTO_BINARY_133.pb")).unwrap();
    let input = dir.create("trace.html", &trace);
    for (output, why) in [
        (dir.join("page.pdf"), "the name of a page ends in .html or .htm"),
        (dir.path().to_owned(), "is a directory"),
        (input.clone(), "is both input and output"),
    ] {
        report(&[], &[&input], &output).expect_status(2).expect_stderr(why);
    }
    assert_eq!(fs::read(&input).unwrap(), trace);
    let log = dir.create("log.html", "{}");
    report(&["--access-log", log.to_str().unwrap()], &[&input], &log).expect_status(2).expect_stderr("both input");
    report(&["--access-log", "absent.log"], &[&input], Path::new("-")).expect_status(2).expect_stderr("absent.log");
    let run = tap2pcap().args(&["report"]).arg(&input).run().expect_status(2);
    assert!(run.stderr.contains("<OUTPUT.html>"), "{run:?}");
    report(&[], &[&input], &dir.join("page.HTM")).expect_status(0);
}
