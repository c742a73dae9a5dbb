//! Traces as people have them: in terminal sessions, in the output of programs, in log files of every kind. What stands
//! around the messages, and around each of their lines, changes no packet.

use std::{
    fmt::Write as _,
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::LazyLock,
};

use proptest::{
    collection::vec,
    prelude::{Strategy, proptest},
    sample::select,
};
use serde_json::json;
use tap2pcap::{
    input::{Encoding, InputError, Source, SourceOptions},
    trace::{Code, Findings},
};

use crate::{
    tshark,
    util::{Dir, ROOT, convert, tap2pcap},
};

fn testdata(name: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join("testdata").join(name)).unwrap()
}

/// Two HTTP traces as Envoy prints them, in one file.
pub static PRETTY: LazyLock<String> = LazyLock::new(|| testdata("inputs/two_exchanges.json"));

/// The same, one on each line.
pub static LINES: LazyLock<String> = LazyLock::new(|| {
    let values = serde_json::Deserializer::from_str(&PRETTY).into_iter::<serde_json::Value>();
    values.map(|value| format!("{}\n", value.unwrap())).collect()
});

/// Socket traces: streamed in JSON, streamed in text, buffered in text.
pub static STREAMED: LazyLock<String> = LazyLock::new(|| testdata("tap/http1_str_JSON_BODY_AS_BYTES_15.json"));
pub static TEXT: LazyLock<String> = LazyLock::new(|| testdata("tap/http1_str_PROTO_TEXT_19.pb_text"));
pub static BUFFERED_TEXT: LazyLock<String> = LazyLock::new(|| testdata("tap/http1_buf_PROTO_TEXT_14.pb_text"));

pub fn all_traces() -> [&'static str; 5] {
    [&PRETTY, &LINES, &STREAMED, &TEXT, &BUFFERED_TEXT]
}

/// A directory with the captures of plain traces, to compare others with.
pub struct Judge {
    pub dir: Dir,
    plain: Vec<(String, Vec<u8>)>,
}

impl Judge {
    pub fn new(name: &str) -> Self {
        Self { dir: Dir::new(name), plain: Vec::new() }
    }

    /// The capture of a file with these contents, the status of its conversion, and what was said.
    pub fn capture(&self, bytes: &[u8]) -> (Vec<u8>, i32, String) {
        let own = self.dir.fresh();
        // The names of a trace and of its capture are in it.
        let (input, output) = (own.join("tap"), own.join("tap.pcap"));
        fs::write(&input, bytes).unwrap();
        let run = convert(&[], &input, &output).run_within(512).expect_no_panic();
        (fs::read(output).unwrap_or_default(), run.status.code().unwrap(), run.stderr)
    }

    /// Expects that a trace is read from `wrapped` as if it were plain, and whether text around it is told.
    #[track_caller]
    pub fn expect_same(&mut self, what: &str, plain: &str, wrapped: &[u8], around: Option<bool>) {
        if !self.plain.iter().any(|(trace, _)| trace == plain) {
            let (capture, status, said) = self.capture(plain.as_bytes());
            assert_eq!(status, 0, "{said}");
            self.plain.push((plain.to_owned(), capture));
        }
        let (_, expected) = self.plain.iter().find(|(trace, _)| trace == plain).unwrap();
        let (capture, status, said) = self.capture(wrapped);
        let start = wrapped[..wrapped.len().min(300)].escape_ascii();
        assert_eq!(status, 0, "{what}: {said}\n{start}");
        assert!(capture == *expected, "{what}: another capture: {said}\n{start}");
        let told = said.matches("of text around the messages skipped; its first line is \"").count();
        match around {
            Some(around) => assert_eq!(told, usize::from(around), "{what}: {said}\n{start}"),
            None => assert!(told <= 1, "{what}: {said}\n{start}"),
        }
    }
}

type Prefix = (&'static str, fn(usize) -> String);

fn seconds(line: usize) -> String {
    format!("10:{:02}:{:02}", line / 60 % 60, line % 60)
}

/// Prefixes as programs write them, for each line.
const PREFIXES: [Prefix; 38] = [
    ("kubectl logs --prefix", |_| "[pod/envoy-7d4f/istio-proxy] ".to_owned()),
    // Go leaves out zeros at the end of a fraction.
    ("kubectl logs --timestamps", |line| match line % 3 {
        0 => format!("2024-05-01T{}Z ", seconds(line)),
        1 => format!("2024-05-01T{}.1Z ", seconds(line)),
        _ => format!("2024-05-01T{}.123456789Z ", seconds(line)),
    }),
    ("kubectl logs with both", |line| format!("[pod/envoy-7d4f/istio-proxy] 2024-05-01T{}.{line:03}Z ", seconds(line))),
    ("docker compose logs", |_| "envoy-1  | ".to_owned()),
    ("docker-compose logs", |_| "envoy_1   | ".to_owned()),
    ("docker compose logs in colours", |_| "\x1b[36menvoy-1  | \x1b[0m".to_owned()),
    ("docker compose logs --timestamps", |line| format!("envoy-1  | 2024-05-01T{}.{line:09}Z ", seconds(line))),
    ("stern", |_| "app-7d4f-x2x istio-proxy ".to_owned()),
    ("stern in colours", |_| "\x1b[38;5;2mapp-7d4f\x1b[0m \x1b[38;5;3mistio-proxy\x1b[0m ".to_owned()),
    ("Go's log", |line| format!("2024/05/01 {} ", seconds(line))),
    ("Go's log with microseconds", |line| format!("2024/05/01 {}.{line:06} ", seconds(line))),
    ("Go's log with the file", |line| format!("2024/05/01 {} main.go:23: ", seconds(line))),
    ("Go's log with a prefix", |line| format!("tap: 2024/05/01 {} ", seconds(line))),
    ("journalctl", |line| format!("Nov 26 {} host envoy[123]: ", seconds(line))),
    ("journalctl over midnight", |line| format!("Nov {:2} {} host envoy[1]: ", 9 + line / 30, seconds(line))),
    ("journalctl over the end of a month", |line| match line {
        0..30 => format!("Nov 30 {} host envoy[1]: ", seconds(line)),
        _ => format!("Dec  1 {} host envoy[1]: ", seconds(line)),
    }),
    ("journalctl -o short-iso", |line| format!("2024-11-26T{}+0100 host envoy[123]: ", seconds(line))),
    ("journalctl -o short-iso-precise", |line| {
        format!("2024-11-26T{}.{line:06}+01:00 host envoy[123]: ", seconds(line))
    }),
    ("journalctl -o short-monotonic", |line| format!("[{:5}.{line:06}] host envoy[123]: ", 95 + line)),
    ("journalctl -o short-full", |line| format!("Tue 2024-11-26 {} UTC host envoy[123]: ", seconds(line))),
    ("RFC 3164", |line| format!("<134>Nov  6 {} host envoy[123]: ", seconds(line))),
    ("RFC 5424", |line| format!("<134>1 2024-11-26T{}.{line:03}Z host envoy 123 ID47 - ", seconds(line))),
    ("RFC 5424 with data", |line| {
        format!("<134>1 2024-11-26T{}.{line:03}Z host envoy 123 - [x@32473 iut=\"3\" a=\"b\"] ", seconds(line))
    }),
    ("docker logs --timestamps", |line| format!("2024-05-01T{}.{line:09}Z ", seconds(line))),
    ("grep -n", |line| format!("{}:", line + 95)),
    ("grep -Hn", |line| format!("dir/tap_1.json:{}:", line + 1)),
    ("grep -H", |_| "dir/tap_1.json:".to_owned()),
    ("cat -n", |line| format!("{:6}\t", line + 1)),
    ("a quotation", |_| "> ".to_owned()),
    ("a quotation of a quotation", |_| "> > ".to_owned()),
    ("diff -u", |_| "+".to_owned()),
    ("diff", |_| "< ".to_owned()),
    ("ts", |line| format!("Nov 26 {} ", seconds(line))),
    ("ts -i", |line| format!("00:00:{:02} ", line % 60)),
    ("Python's logging", |line| format!("2024-05-01 {},{line:03} INFO tap: ", seconds(line))),
    ("brackets", |line| format!("[2024-05-01 {},{line:03}] [INFO] [tap] ", seconds(line))),
    ("a Heroku app", |line| format!("2024-05-01T{}.{line:06}+00:00 app[web.1]: ", seconds(line))),
    ("blanks", |_| "        ".to_owned()),
];

pub fn prefixed(prefix: fn(usize) -> String, text: &str) -> String {
    text.lines().enumerate().map(|(index, line)| format!("{}{line}\n", prefix(index))).collect()
}

#[test]
fn a_prefix_of_each_line_changes_nothing() {
    let mut judge = Judge::new("prefixes");
    for (what, prefix) in PREFIXES {
        for trace in all_traces() {
            judge.expect_same(what, trace, prefixed(prefix, trace).as_bytes(), (trace != &**LINES).then_some(false));
        }
        let all = format!("starting {{\nready {{\"a\": 1}}\n{}between\n{}the end {{\n", &**STREAMED, &**STREAMED);
        let plain = format!("{}{}", &**STREAMED, &**STREAMED);
        judge.expect_same(what, &plain, prefixed(prefix, &all).as_bytes(), Some(true));
        let crlf = prefixed(prefix, &PRETTY).replace('\n', "\r\n");
        judge.expect_same(what, &PRETTY, crlf.as_bytes(), Some(false));
    }
}

/// Joins lines of two texts in turns.
fn in_turns(first: &str, second: &str) -> String {
    let (mut first, mut second) = (first.split_inclusive('\n'), second.split_inclusive('\n'));
    let mut all = String::new();
    loop {
        let (one, other) = (first.next(), second.next());
        if one.is_none() && other.is_none() {
            return all;
        }
        all.extend(one.into_iter().chain(other));
    }
}

#[test]
fn lines_of_other_writers_do_not_break_a_trace() {
    let mut judge = Judge::new("writers");
    let compose = |_| "envoy-1  | ".to_owned();
    let trace = prefixed(compose, &PRETTY);
    let other = prefixed(|_| "app-1    | ".to_owned(), &"GET / {200}\n".repeat(40));
    judge.expect_same("another service", &PRETTY, in_turns(&trace, &other).as_bytes(), Some(true));
    judge.expect_same("no prefix", &PRETTY, in_turns(&trace, &"a line {\n".repeat(40)).as_bytes(), Some(true));
    judge.expect_same("the first line", &PRETTY, format!("Attaching to envoy-1\n{trace}").as_bytes(), Some(true));
}

/// The lines of two pods alternate, and each of the two has a trace.
#[test]
fn traces_of_two_pods_are_put_together_from_alternating_lines() {
    let dir = Dir::new("two-pods");
    let (first, second) = PRETTY.split_at(PRETTY.find("\n}\n").unwrap() + 3);
    for (one, other) in [("[pod/envoy-7d4/tap] ", "[pod/envoy-9c1/tap] "), ("envoy-1  | ", "envoy-2  | ")] {
        let lines = |prefix: &str, text: &str| text.lines().map(|line| format!("{prefix}{line}\n")).collect::<String>();
        let input = dir.create("tap", in_turns(&lines(one, first), &lines(other, second)));
        let output = dir.join("tap.pcapng");
        convert(&["--force"], &input, &output).run().expect_status(0);
        assert_eq!(tshark::lines(&output, &["-Y", "http.request"]).len(), 2);
        assert_eq!(tshark::lines(&output, &["-Y", "http.response"]).len(), 2);
    }
}

#[test]
fn a_prefix_that_changes_is_damage_and_no_other_trace_is_lost() {
    let judge = Judge::new("changes");
    let lines: Vec<_> = STREAMED.lines().collect();
    for at in [1, 3, 5, 9] {
        let mut text = String::new();
        for (index, line) in lines.iter().enumerate() {
            let prefix = if index == at { "other | " } else { "envoy | " };
            writeln!(text, "{prefix}{line}").unwrap();
        }
        let (capture, status, said) = judge.capture(text.as_bytes());
        assert!(status == 1 || said.contains("text around"), "{said}");
        assert!(!capture.is_empty(), "{said}");
    }
}

type Record = (&'static str, fn(usize, &str) -> serde_json::Value);

/// Records of log pipelines with a line in them.
const RECORDS: [Record; 15] = [
    ("Fluent Bit", |_, line| json!({"@timestamp": "2024", "kubernetes": {"pod_name": "a", "labels": {}}, "log": line})),
    ("Filebeat", |_, line| json!({"@timestamp": "2024", "message": line, "host": {"name": "h"}})),
    ("zap", |index, line| json!({"level": "info", "ts": 1.5 + index as f64, "caller": "main.go:9", "msg": line})),
    ("ids", |index, line| json!({"level": "info", "seq": index, "id": format!("{:08x}", index * 77_777), "msg": line})),
    ("Loki", |_, line| json!({"labels": {"app": "x"}, "line": line, "timestamp": "2024"})),
    ("Cloud Logging", |index, line| json!({"insertId": format!("x{index}"), "resource": {}, "textPayload": line})),
    ("Cloud Logging's jsonPayload", |_, line| json!({"jsonPayload": {"message": line}, "timestamp": "2024"})),
    ("OpenTelemetry", |index, line| json!({"timeUnixNano": index, "body": {"stringValue": line}})),
    ("body", |_, line| json!({"body": line, "severity": "INFO"})),
    (
        "journalctl -o json",
        |index, line| json!({"__CURSOR": format!("s={:x};i={index:x}", index * 99), "_PID": "123", "MESSAGE": line, "_HOSTNAME": "h"}),
    ),
    ("Elasticsearch", |index, line| json!({"_index": "x", "_id": format!("a{index}"), "_source": {"message": line}})),
    ("Splunk", |_, line| json!({"preview": false, "result": {"_raw": line, "_time": "2024"}})),
    ("CloudWatch", |index, line| json!({"timestamp": index, "message": line, "ingestionTime": index})),
    ("three deep", |_, line| json!({"a": {"b": {"message": line}}})),
    ("Datadog", |_, line| json!({"id": "x", "content": {"attributes": {}, "message": line}})),
];

fn recorded(record: fn(usize, &str) -> serde_json::Value, text: &str) -> String {
    text.lines().enumerate().map(|(index, line)| format!("{}\n", record(index, line))).collect()
}

#[test]
fn records_of_log_pipelines_are_unquoted() {
    let mut judge = Judge::new("records");
    for (what, record) in RECORDS {
        for trace in all_traces() {
            judge.expect_same(what, trace, recorded(record, trace).as_bytes(), Some(false));
            // The whole trace in one string.
            let whole = record(0, trace);
            judge.expect_same(what, trace, format!("{whole}\n").as_bytes(), Some(false));
            judge.expect_same(what, trace, format!("{whole:#}\n").as_bytes(), Some(false));
        }
        let whole: String = LINES.lines().map(|line| format!("{:#}\n", record(1, line))).collect();
        judge.expect_same(what, &LINES, whole.as_bytes(), Some(false));
        let around = format!("starting\n{{\"x\":1}}\n{}the end {{\n", &**LINES);
        judge.expect_same(what, &LINES, recorded(record, &around).as_bytes(), Some(true));
        // Records of a container, and after the prefix of a container.
        judge.expect_same(what, &LINES, container(&recorded(record, &LINES), "stdout").as_bytes(), None);
        let compose = prefixed(|_| "envoy-1  | ".to_owned(), &recorded(record, &LINES));
        judge.expect_same(what, &LINES, compose.as_bytes(), None);
    }
    let source = |line: &str| json!({"_id": "1", "_source": {"message": line}});
    let hits: Vec<_> = LINES.lines().map(source).collect();
    let answer = json!({"took": 1, "hits": {"total": 2, "hits": hits}});
    judge.expect_same("an answer of Elasticsearch", &LINES, format!("{answer}\n").as_bytes(), Some(false));
    judge.expect_same("the same over lines", &LINES, format!("{answer:#}\n").as_bytes(), Some(false));
}

/// Docker's json-file, in pieces of `most` bytes.
pub fn docker(text: &str, stream: &str, most: usize) -> String {
    let mut log = String::new();
    for (index, mut line) in text.split_inclusive('\n').enumerate() {
        while !line.is_empty() {
            let (piece, rest) = line.split_at(line.floor_char_boundary(most));
            let record = json!({"log": piece, "stream": stream, "time": format!("2024-05-01T{}Z", seconds(index))});
            writeln!(log, "{record}").unwrap();
            line = rest;
        }
    }
    log
}

/// Lines that Kubernetes writes for a container.
pub fn container(text: &str, stream: &str) -> String {
    text.lines()
        .enumerate()
        .map(|(index, line)| format!("2024-05-01T{}.{index:09}Z {stream} F {line}\n", seconds(index)))
        .collect()
}

/// The same, with lines in pieces of `most` bytes.
fn container_in_pieces(text: &str, most: usize) -> String {
    let mut log = String::new();
    for mut line in text.lines() {
        while line.len() > most {
            let (piece, rest) = line.split_at(line.floor_char_boundary(most));
            writeln!(log, "2024-05-01T10:00:00.1+02:00 stdout P {piece}").unwrap();
            line = rest;
        }
        writeln!(log, "2024-05-01T10:00:00.1+02:00 stdout F {line}").unwrap();
    }
    log
}

#[test]
fn logs_of_containers_are_read() {
    let mut judge = Judge::new("containers");
    for trace in all_traces() {
        for most in [usize::MAX, 200] {
            judge.expect_same("docker", trace, docker(trace, "stdout", most).as_bytes(), Some(false));
            let around = (trace != &**LINES || most == 200).then_some(false);
            judge.expect_same("CRI", trace, container_in_pieces(trace, most).as_bytes(), around);
        }
        let in_docker = container(&docker(trace, "stdout", usize::MAX), "stdout");
        judge.expect_same("both", trace, in_docker.as_bytes(), None);
    }
    let around = format!("[2024-05-01 10:00:00.000][1][info] starting {{\n{}between\n", &**PRETTY);
    judge.expect_same("docker", &PRETTY, docker(&around, "stdout", usize::MAX).as_bytes(), Some(true));
    judge.expect_same("CRI", &PRETTY, container(&around, "stdout").as_bytes(), Some(true));
    // The other stream's lines are between those of the trace.
    let errors = "[warning] x {\n".repeat(60);
    let mixed = in_turns(&docker(&PRETTY, "stdout", usize::MAX), &docker(&errors, "stderr", usize::MAX));
    judge.expect_same("docker's streams", &PRETTY, mixed.as_bytes(), Some(true));
    let mixed = in_turns(&container(&PRETTY, "stdout"), &container(&errors, "stderr"));
    judge.expect_same("streams of CRI", &PRETTY, mixed.as_bytes(), Some(true));
    // Each line of the log has a prefix of its own.
    let prefix = prefixed(|line| format!("2024/05/01 {} ", seconds(line)), &PRETTY);
    judge.expect_same("a prefix in docker", &PRETTY, docker(&prefix, "stdout", usize::MAX).as_bytes(), Some(false));
    judge.expect_same("a prefix in CRI", &PRETTY, container(&prefix, "stdout").as_bytes(), Some(false));
}

/// What stands before and after a message.
const AROUND: [(&str, &str); 30] = [
    ("$ cat x.json\n", "$ exit\n"),
    ("root@a:/# cat x.json\n", "root@a:/# "),
    ("$ ", ""),
    ("\x1b[01;32muser@host\x1b[00m:\x1b[01;34m~\x1b[00m$ ", "\x1b[01;32muser@host\x1b[00m:\x1b[01;34m~\x1b[00m$ "),
    ("\x1b[?2004hroot@a:/# cat x\n\x1b[?2004l\r", "\x1b[?2004hroot@a:/# exit\n\x1b[?2004l\rexit\n"),
    ("\x1b]0;root@a: /\x07root@a:/# cat x\r\n", "\x1b]0;root@a: /\x07root@a:/# "),
    ("\r  0     0    0     0      0 --:--:-- --:--:-- --:--:--     0\r100  1924    0  1924 --:--:--  9620", "\n"),
    ("  % Total    % Received\n\r  0     0 --:--:--     0\r", "\r100  1924 --:--:--  9620\n"),
    ("> POST /tap HTTP/1.1\n> \n< HTTP/1.1 200 OK\n< \n{ [1924 bytes data]\n", "* Connection #0 left intact\n"),
    ("Defaulted container \"istio-proxy\" out of: istio-proxy, istio-init (init)\n", ""),
    ("Unable to use a TTY - input is not a terminal or the right kind of file\n", ""),
    ("# Report\n\nHere `{\"a\": 1}`:\n\n```json\n", "```\n\nThanks\n"),
    ("~~~\n", "~~~\n"),
    ("// trace\n", ""),
    ("---\n", "---\n"),
    ("==> tap_1.json <==\n", "\n"),
    ("{\"level\":\"info\",\"msg\":\"x\"}\n{\"level\":\"info\"}\n", "{\"level\":\"info\",\"trace_id\":\"abc\"}\n"),
    ("{\n  \"level\": \"info\",\n  \"x\": {\"y\": [1]}\n}\n", "{\n  \"level\": \"info\"\n}\n"),
    ("{\"level\":\"inf\n", "{\"level\":\n"),
    ("[2024-05-01T10:00:00.000Z] \"GET / HTTP/1.1\" 200 - 0 5 1 0 \"-\" \"curl\"\n", "[2024-05-01T10:00:00Z] x\n"),
    ("Gr\u{f6}\u{df}e: 5\n", ""),
    ("Script started on 2024-05-01 [TERM=\"xterm\"]\n", "\nScript done on 2024-05-01 [EXIT=\"0\"]\n"),
    ("PS C:\\> cat x\r\n", "\r\nPS C:\\> "),
    ("% ", "%\n"),
    ("\u{279c}  ~ cat x\n", "\u{279c}  ~ "),
    ("java.lang.X: {\n  at a.b(C.java:1)\n}\n", "Traceback (most recent call last):\n"),
    ("int main() {\n  printf(\"{\");\n}\n", "fn f() { x }\n"),
    ("INFO tap: ", ""),
    ("level=info msg=", ""),
    ("waiting...\rwaiting...\r", ""),
];

/// The payloads in a capture. Addresses that stand in for missing ones depend on the input's name.
fn payloads(capture: &Path) -> Vec<Vec<u8>> {
    let mut payloads: Vec<_> = tshark::read(capture).into_iter().map(|frame| frame.payload).collect();
    payloads.retain(|payload| !payload.is_empty());
    payloads.sort();
    payloads
}

#[test]
fn traces_in_json_and_in_text_may_follow_each_other_in_one_file() {
    let dir = Dir::new("surroundings-both-encodings");
    for (first, second) in
        [(&STREAMED, &BUFFERED_TEXT), (&BUFFERED_TEXT, &STREAMED), (&TEXT, &PRETTY), (&PRETTY, &TEXT)]
    {
        let merged = dir.join("merged.pcap");
        let parts = [("first", first), ("second", second)].map(|(name, trace)| dir.create(name, trace.as_bytes()));
        tap2pcap().arg(&parts[0]).arg(&parts[1]).arg(&merged).run().expect_status(0);
        let expected = payloads(&merged);
        for between in ["", "\n", "$ kubectl exec api-2 -- cat /tmp/tap_1\n", "\n==> tap_2 <==\n"] {
            // A message in the text format begins a line.
            let end = if between.is_empty() && !first.ends_with('\n') { "\n" } else { between };
            let (capture, status, said) = Judge::new("surroundings-both-encodings-joined")
                .capture(format!("{}{end}{}", first.as_str(), second.as_str()).as_bytes());
            assert_eq!(status, 0, "{between:?}: {said}");
            assert_eq!(said.is_empty(), between.trim().is_empty(), "{between:?}: {said}");
            assert!(payloads(&dir.create("joined.pcap", capture)) == expected, "{between:?}");
        }
    }
}

#[test]
fn text_around_messages_changes_nothing() {
    let mut judge = Judge::new("around");
    for (before, after) in AROUND {
        for trace in all_traces() {
            judge.expect_same("around", trace, format!("{before}{trace}{after}").as_bytes(), None);
            let without_end = format!("{before}{}{after}", trace.trim_end());
            judge.expect_same("without a line break", trace, without_end.as_bytes(), None);
            let after_plain = format!("{trace}{before}{after}");
            judge.expect_same("after a plain trace", trace, after_plain.as_bytes(), None);
        }
        let twice = format!("{before}{0}{after}{before}{0}{after}", &**PRETTY);
        judge.expect_same("twice", &PRETTY.repeat(2), twice.as_bytes(), None);
    }
}

#[test]
fn text_around_is_told_once_and_is_no_error() {
    let judge = Judge::new("told");
    let text = format!("\n \x1b[31mfirst\u{202e} line\n{}second\n{}third", &**PRETTY, &**PRETTY);
    let (_, status, said) = judge.capture(text.as_bytes());
    assert_eq!(status, 0, "{said}");
    let told: Vec<_> = said.lines().filter(|line| line.contains("text around")).collect();
    let words = "31 bytes of text around the messages skipped; its first line is \"\\u{1b}[31mfirst\\u{202e} line\"";
    assert!(told.len() == 1 && told[0].starts_with("warning: ") && told[0].contains(words), "{said}");
    assert!(told[0].contains("byte 2, message 0"), "{said}");
    // It is a warning for validate, too, with a code for scripts.
    let input = judge.dir.create("tap", &text);
    let run = tap2pcap().args(&["validate", "--json"]).arg(&input).run().expect_status(0);
    assert_eq!(run.stdout_text().matches("\"code\":\"text-around\"").count(), 1, "{run:?}");
    tap2pcap().args(&["validate", "--strict"]).arg(&input).run().expect_status(1);
}

#[test]
fn a_damaged_message_in_text_is_an_error() {
    let judge = Judge::new("damaged");
    let damaged = PRETTY.replacen("\"headers\": [", "\"headers\": 5, [", 1);
    let cut = &PRETTY[..PRETTY.len() - 200];
    for text in [damaged.as_str(), cut] {
        for (before, after) in [("", ""), ("$ cat x\n", "$ "), ("{\"level\":\"info\"}\n", "")] {
            let (capture, status, said) = judge.capture(format!("{before}{text}{after}").as_bytes());
            assert_eq!(status, 1, "{said}");
            assert!(!capture.is_empty());
        }
        for (what, prefix) in PREFIXES {
            let (_, status, said) = judge.capture(prefixed(prefix, text).as_bytes());
            assert_eq!(status, 1, "{what}: {said}");
        }
        for (what, record) in RECORDS {
            let (_, status, said) = judge.capture(recorded(record, text).as_bytes());
            assert_eq!(status, 1, "{what}: {said}");
        }
    }
}

/// A log that was cut at its start begins in the middle of a message.
#[test]
fn the_rest_of_a_message_whose_start_is_lost_is_an_error() {
    let judge = Judge::new("cut-at-start");
    let words = "the text begins inside a message, whose start is missing";
    for (trace, lost) in [(&STREAMED, 3), (&STREAMED, 30), (&TEXT, 5), (&TEXT, 20)] {
        let rest: String = trace.split_inclusive('\n').skip(lost).collect();
        for (before, prefix) in [("", PREFIXES[1].1), ("$ kubectl logs --tail=100\n", PREFIXES[4].1)] {
            for text in [format!("{before}{rest}"), prefixed(prefix, &rest), format!("{}{before}{rest}", **trace)] {
                let (capture, status, said) = judge.capture(text.as_bytes());
                // What is left of an event looks like fields of a newer Envoy, until a brace closes it.
                let is_brace =
                    rest.starts_with("    timestamp {") && said.contains("expected a field name, found \"}\"");
                let is_told = said.contains(words) || is_brace;
                assert!(status == 1 && !capture.is_empty() && is_told, "{lost}: {said}\n{text:.300}");
            }
        }
    }
}

/// The inputs that people have sent, or could have.
#[test]
fn inputs_as_people_have_them_are_read() {
    let dir = Dir::new("people");
    for (name, requests, responses) in [
        ("kubectl_exec_session.txt", 1, 1),
        ("program_output_before.txt", 2, 2),
        ("kubectl_prefix.log", 1, 1),
        ("compose_prefix.log", 1, 1),
        ("compose_prefix_ndjson.log", 2, 2),
        ("docker_json_file.log", 1, 1),
        ("markdown_fence.md", 1, 1),
        ("log_pipeline_message.json", 1, 1),
        ("exec_stderr_before.txt", 1, 1),
    ] {
        let input = Path::new(ROOT).join("testdata/inputs").join(name);
        let output = dir.join(format!("{name}.pcapng"));
        convert(&[], &input, &output).run().expect_status(0);
        assert_eq!(tshark::lines(&output, &["-Y", "http.request"]).len(), requests, "{name}");
        assert_eq!(tshark::lines(&output, &["-Y", "http.response"]).len(), responses, "{name}");
        for command in ["validate", "info"] {
            tap2pcap().arg(command).arg(&input).run().expect_status(0);
        }
    }
    let mut judge = Judge::new("mark");
    let marked = format!("\u{feff}{}", &**BUFFERED_TEXT);
    judge.expect_same("a byte order mark", &BUFFERED_TEXT, marked.as_bytes(), Some(false));
}

/// A trace is found however much text stands before it, in little memory.
#[test]
fn a_trace_after_much_text_is_found() {
    let mut judge = Judge::new("much");
    for line in
        ["a line of a log {x}\n", "a line {\n", "{\"level\":\"info\",\"msg\":\"x\"}\n", "{\n", "{\"a\":\n", "[\n"]
    {
        let text = line.repeat(400_000 / line.len());
        judge.expect_same("before", &PRETTY, format!("{text}{}", &**PRETTY).as_bytes(), Some(true));
        judge.expect_same(
            "between",
            &PRETTY,
            PRETTY.replacen("\n}\n", &format!("\n}}\n{text}"), 1).as_bytes(),
            Some(true),
        );
    }
    let line = prefixed(|_| "envoy-1  | ".to_owned(), "a line of a log {\n").repeat(10_000);
    let all = format!("{line}{}", prefixed(|_| "envoy-1  | ".to_owned(), &PRETTY));
    judge.expect_same("prefixed", &PRETTY, all.as_bytes(), Some(true));
    let line = docker("a line of a log {\n", "stdout", usize::MAX).repeat(3_000);
    let all = format!("{line}{}", docker(&PRETTY, "stdout", usize::MAX));
    judge.expect_same("docker", &PRETTY, all.as_bytes(), Some(true));
}

/// Whether the library takes a file for a trace.
fn is_taken(path: &Path) -> Result<(), InputError> {
    Source::open(path, SourceOptions::default()).map(drop)
}

/// Source code quotes traces, and is none. Nor is any document of this project that has no trace in it.
#[test]
fn no_file_of_the_source_code_is_a_trace() {
    let mut seen = 0;
    for root in ["src", "tests", "fuzz/src", "fuzz/fuzz_targets", "benches", "examples", "scripts", "docs", "proto"] {
        for entry in walkdir::WalkDir::new(Path::new(ROOT).join(root)) {
            let entry = entry.unwrap();
            let path = entry.path();
            let suffix = path.extension().and_then(|suffix| suffix.to_str());
            if !entry.file_type().is_file() || matches!(suffix, Some("pb" | "json" | "pb_text")) {
                continue;
            }
            seen += 1;
            assert!(is_taken(path).is_err(), "{} is taken for a trace", path.display());
        }
    }
    assert!(seen > 200, "{seen}");
}

#[test]
fn what_only_quotes_a_trace_is_refused() {
    let dir = Dir::new("quotes");
    let trace = LINES.lines().next().unwrap();
    let quoted = serde_json::to_string(trace).unwrap();
    for text in [
        format!("let x = {quoted};\n"),
        format!("let x = r#\"{trace}\"#;\n"),
        format!("const x = {trace};\n"),
        format!("x = [{trace}]\n"),
        format!("f({trace})\n"),
        format!("see `{trace}`\n"),
        format!("'{trace}'\n"),
        format!("{{\"log\": {{\"entries\": [{{\"text\": {quoted}}}]}}}}\n"),
        format!("{{\"schema\": {{\"properties\": {trace}}}}}\n"),
        "my_socket_buffered_trace {\n  trace_id: 1\n}\n".to_owned(),
        "a \"socket_buffered_trace {\n  trace_id: 1\n}\"\n".to_owned(),
        "socket_buffered_trace\n".to_owned(),
        "{\"socket_buffered_trace\"}\n".to_owned(),
    ] {
        let path = dir.create("quote.txt", format!("A text.\n{text}"));
        assert!(is_taken(&path).is_err(), "{text}");
    }
}

/// The layers that the library names.
fn layers(bytes: &[u8], dir: &Dir) -> String {
    let path: PathBuf = dir.create("layers", bytes);
    let source = Source::open(&path, SourceOptions::default()).unwrap();
    source.layers().iter().map(|layer| format!("{layer}\n")).collect()
}

#[test]
fn the_source_names_what_stood_around_its_lines() {
    let dir = Dir::new("layers");
    let prefix = prefixed(|_| "> ".to_owned(), &PRETTY);
    assert_eq!(layers(PRETTY.as_bytes(), &dir), "");
    assert_eq!(layers(format!("$ {}", &**PRETTY).as_bytes(), &dir), "");
    assert_eq!(layers(prefix.as_bytes(), &dir), "line-prefix\n");
    assert_eq!(layers(docker(&PRETTY, "stdout", usize::MAX).as_bytes(), &dir), "log-records\n");
    let both = docker(&prefix, "stdout", usize::MAX);
    assert_eq!(layers(both.as_bytes(), &dir), "log-records\nline-prefix\n");
}

/// Bytes that come in pieces of these sizes, over and over.
struct Pieces(Vec<u8>, Vec<usize>);

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.1.rotate_left(1);
        let count = self.1[0].min(buffer.len()).min(self.0.len());
        buffer[..count].copy_from_slice(&self.0[..count]);
        self.0.drain(..count);
        Ok(count)
    }
}

/// What a source has: for each message, what it is, without its place; and the codes of its findings.
fn messages(bytes: &[u8], pieces: &[usize], options: SourceOptions) -> (Vec<String>, Vec<Code>) {
    let reader = Box::new(Pieces(bytes.to_vec(), pieces.to_vec()));
    let mut source = Source::from_reader(Path::new("tap"), reader, options).unwrap();
    let mut findings = Findings::default();
    let mut seen = Vec::new();
    while let Some(view) = source.next_message(&mut findings) {
        let message = view.message();
        // Events that arrive together come as one message.
        for event in &message.events {
            seen.push(format!("{} {:?} {:?}", message.trace_id, event.time, view.bytes(event.body.payload)));
        }
        let mut text = format!("{:?} {}", message.kind, message.trace_id);
        for piece in &message.http {
            let headers = view.headers(piece).iter().map(|header| view.bytes(header.value).to_vec());
            write!(text, " {:?} {:?}", headers.collect::<Vec<_>>(), view.bytes(piece.body.payload)).unwrap();
        }
        if message.events.is_empty() {
            seen.push(text);
        }
    }
    (seen, findings.take().iter().map(|finding| finding.code()).collect())
}

/// Any text that a terminal or a log may have, and that begins no message and closes none.
fn any_text() -> impl Strategy<Value = String> {
    let pieces = select(
        &[
            "$ ",
            "\n",
            "\r",
            "\r\n",
            " ",
            "a",
            "0",
            ":",
            "{",
            "[",
            "(",
            "\"",
            "'",
            "\\",
            ",",
            "#",
            "```",
            "\x1b[0m",
            "{\"a\":1}",
            "{\"a\": {\"b\": [\n",
            "{}",
            "x {\n",
            "envoy-1 | ",
            "> ",
            "as_bytes",
            "trace",
            "\u{e9}",
            "true",
            "2024-05-01T10:00:00Z ",
            "{\"log\":\"{\\n\",\"stream\":\"stdout\"}\n",
            "name: value\n",
            "http_buffered",
            "<",
        ][..],
    );
    vec(pieces, 0..20).prop_map(|pieces| pieces.concat())
}

/// A window that may not grow gives up text, and does not take it for a message that is too large.
#[test]
fn text_is_no_large_message() {
    for (message, encoding) in [
        ("{\"socket_streamed_trace_segment\":{\"trace_id\":7}}\n", Encoding::Json),
        ("socket_streamed_trace_segment { trace_id: 7 }\n", Encoding::Text),
    ] {
        for text in ["text { x } ", "{\"a\": {\"b\": \"c\"}} ", "{\"a\": [", "name: {", "      {      \"      "] {
            let text = text.repeat(2000 / text.len());
            let all = format!("{message}{text}\n{message}{text}\n{message}");
            for given in [None, Some(encoding)] {
                let options = SourceOptions { encoding: given, max_message: Some(80), ..SourceOptions::default() };
                for pieces in [[1], [13], [100_000]] {
                    let (seen, codes) = messages(all.as_bytes(), &pieces, options);
                    assert_eq!((seen.len(), codes), (3, vec![Code::TextAround]), "{encoding:?} {pieces:?} {text:.30}");
                }
            }
        }
    }
}

proptest! {
    /// A trace has the same messages with any text around it: on lines of its own, before it, between and after.
    #[test]
    fn any_text_around_leaves_the_messages_as_they_are(
        before in any_text(),
        between in any_text(),
        after in any_text(),
        pieces in vec(1..200_usize, 1..5),
    ) {
        for trace in [&**PRETTY, &**STREAMED, &**BUFFERED_TEXT] {
            let all = |text: &str, pieces: &[usize]| messages(text.as_bytes(), pieces, SourceOptions::default());
            let (alone, _) = all(&trace.repeat(2), &[1 << 20]);
            let text = format!("start\n{before}\n{trace}text {between}\n{trace}text {after}");
            // Empty objects count as messages of no kind.
            let (around, codes) = all(&text, &[1 << 20]);
            proptest::prop_assert_eq!(all(&text, &pieces), (around.clone(), codes), "{:?}", text);
            let around: Vec<_> = around.into_iter().filter(|message| !message.starts_with("None")).collect();
            proptest::prop_assert_eq!(around, alone, "{:?}", text);
        }
    }
}
