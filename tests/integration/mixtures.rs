//! Traces among other things that look like them: quotations, schemas, log records, lines of the same writer. What is not
//! read is told, and nothing that says nothing becomes a connection.

use std::{
    fs,
    io::{Read, Write, copy, sink},
    path::Path,
    process::{Command, Stdio},
};

use crate::{
    batch::conversation,
    fixture::{Dress, TIME},
    surroundings::{container, docker, prefixed},
    util::{Dir, PROGRAM, ROOT, convert, tap2pcap},
};

/// A trace of a connection, in two parts. The first one has two messages.
fn parts(dress: Dress) -> [Vec<u8>; 2] {
    let messages = conversation(1, 2, TIME, TIME + 1000);
    [dress.file(&messages[..2]), dress.file(&messages[2..])]
}

fn trace() -> String {
    let [first, second] = parts(Dress::Json);
    String::from_utf8([first, second].concat()).unwrap()
}

/// The capture, the status and what was said.
fn converted(dir: &Dir, bytes: impl AsRef<[u8]>) -> (Vec<u8>, i32, String) {
    let own = dir.fresh();
    let (input, output) = (own.join("tap"), own.join("tap.pcap"));
    fs::write(&input, bytes).unwrap();
    let run = convert(&[], &input, &output).run().expect_no_panic();
    (fs::read(output).unwrap_or_default(), run.status.code().unwrap(), run.stderr)
}

/// Expects the capture of the plain trace, and no error. Returns what was said.
#[track_caller]
fn expect_same(dir: &Dir, plain: &[u8], bytes: impl AsRef<[u8]>) -> String {
    let (capture, status, said) = converted(dir, &bytes);
    let start = bytes.as_ref()[..bytes.as_ref().len().min(300)].escape_ascii();
    assert_eq!(status, 0, "{said}\n{start}");
    assert!(capture == plain, "another capture: {said}\n{start}");
    said
}

/// Between the values of an envelope there may be records of a log, other values and text.
#[test]
fn what_stands_between_json_envelopes_is_told() {
    let dir = Dir::new("between");
    let trace = trace();
    let line = trace.lines().collect::<String>();
    let values: Vec<_> = serde_json::Deserializer::from_str(&line).into_iter::<serde_json::Value>().collect();
    let array = |range: std::ops::Range<usize>| {
        let values: Vec<_> = values[range].iter().map(|value| value.as_ref().unwrap().clone()).collect();
        serde_json::to_string(&serde_json::json!({ "alert": "x", "taps": values })).unwrap()
    };
    let (first, rest) = (array(0..1), array(1..values.len()));
    let (plain, ..) = converted(&dir, &trace);
    let quoted = serde_json::to_string(&line).unwrap();
    for (between, told) in [
        ("\n".to_owned(), None),
        ("\n{\"level\":\"info\"}\n".to_owned(), Some("16 bytes of text around")),
        ("\n{\"level\":\"info\"}\n[1,\n\"a\"]\n".to_owned(), Some("24 bytes of text around")),
        ("\n$ cat more.json\n".to_owned(), Some("its first line is \"$ cat more.json\"")),
        (format!("\n{{\"log\":{quoted}}}\n"), Some("it holds the name of a trace")),
        (format!("\n[{quoted}]\n"), Some("it holds the name of a trace")),
    ] {
        let said = expect_same(&dir, &plain, format!("{first}{between}{rest}\n"));
        match told {
            Some(words) => assert!(said.contains(words) && said.matches("text around").count() == 1, "{said}"),
            None => assert!(!said.contains("text around"), "{said}"),
        }
    }
    // Beside a trace, what an envelope says of it is not told, but another trace in a string is.
    let beside = format!("{},\"log\":{quoted}}}", first.strip_suffix('}').unwrap());
    let (_, status, said) = converted(&dir, format!("{beside}\n{rest}\n"));
    assert_eq!(status, 0, "{said}");
    assert!(said.contains("it holds the name of a trace"), "{said}");
}

/// A line of a log that only seems to hold a trace counts once.
#[test]
fn text_is_counted_once() {
    let dir = Dir::new("once");
    let trace = trace();
    let (plain, ..) = converted(&dir, &trace);
    let line = "2024-05-01T10:00:00Z info {\"a\": {\"http_buffered_trace\": {\"x\": 1}}}\n";
    let said = expect_same(&dir, &plain, format!("{line}{trace}"));
    assert!(said.contains(&format!(": {} bytes of text around", line.len())), "{said}");
}

#[test]
fn a_message_in_quotes_among_others_is_told() {
    let dir = Dir::new("among");
    let trace = trace();
    let first = serde_json::Deserializer::from_str(&trace).into_iter::<serde_json::Value>().next().unwrap().unwrap();
    let line = first.to_string();
    for text in [
        format!("x = {line}\n{trace}"),
        format!("`{line}`\n{trace}"),
        format!("{trace}'{line}'\n{trace}"),
        format!("{trace}x = \"{}\"\n", line.replace('"', "\\\"")),
    ] {
        let (_, status, said) = converted(&dir, &text);
        assert_eq!(status, 0, "{said}");
        assert!(said.contains("it holds the name of a trace"), "{said}\n{text}");
    }
    let (_, status, said) = converted(&dir, format!("$ cat trace of a socket_buffered_trace\n{trace}"));
    assert!(status == 0 && said.contains("text around") && !said.contains("name of a trace"), "{said}");
}

/// Source code, schemas and documents have the names of traces, whose values are empty or of another kind there.
#[test]
fn a_trace_in_text_must_say_something() {
    let dir = Dir::new("say");
    let empty = "{\"http_buffered_trace\": {\"request\": {}}}";
    for text in [
        format!("def trace():\n    return (\n{empty}\n)\n"),
        format!("// a test\nconst char* trace =\nR\"(\n{empty}\n)\";\n"),
        "A test:\n\n    {\n      \"socket_buffered_trace\": {\"events\": [{}]}\n    }\n".to_owned(),
        "trace = parse(\n{\"socket_streamed_trace_segment\": {\"event\": event}}\n)\n".to_owned(),
        "The message:\nhttp_buffered_trace {\n  request {\n  }\n}\n".to_owned(),
        "Schema:\n{\"socket_buffered_trace\": {\"connection\": {\"type\": \"object\", \"properties\": {}}}}\n"
            .to_owned(),
        "@@ -1 +1 @@\n-{\"http_buffered_trace\": {}}\n+{\"http_streamed_trace_segment\": {\"trace_id\": 5}}\n"
            .to_owned(),
    ] {
        let path = dir.create("text", &text);
        let run = tap2pcap().args(&["info"]).arg(&path).run().expect_status(2);
        assert!(run.stderr.contains("not an Envoy tap trace"), "{run:?}\n{text}");
        // What follows is read, and the names are told.
        let (_, status, said) = converted(&dir, format!("{text}\n{}", trace()));
        let is_damaged = text.contains("event}");
        assert_eq!(status, i32::from(is_damaged), "{said}\n{text}");
        assert!(is_damaged || said.contains("it holds the name of a trace"), "{said}\n{text}");
    }
}

#[test]
fn lines_of_the_same_writer_in_the_middle_of_a_trace_do_not_damage_it() {
    let dir = Dir::new("same-writer");
    let noise = [
        "[2024-05-01 10:00:00.000][15][info][main] [source/server/server.cc:988] starting main dispatch loop",
        "GET / HTTP/1.1",
        "{\"level\":\"info\",\"msg\":\"listening\"}",
        "2024-05-01T10:00:00Z info ready",
        "127.0.0.1 - - [01/May/2024:10:00:00 +0000] \"GET / HTTP/1.1\" 200 5",
        "panic: no",
    ];
    let read = |name: &str| fs::read_to_string(Path::new(ROOT).join("testdata").join(name)).unwrap();
    for plain in [read("inputs/two_exchanges.json"), read("tap/http1_str_PROTO_TEXT_19.pb_text")] {
        let (expected, status, said) = converted(&dir, &plain);
        assert_eq!(status, 0, "{said}");
        for every in [1, 3, 7] {
            let mut text = String::new();
            for (index, line) in plain.lines().enumerate() {
                text += line;
                text.push('\n');
                if index % every == 0 {
                    let noise = noise[index / every % noise.len()];
                    // In text, this line is a field.
                    if !(plain.starts_with("socket") && noise.starts_with("panic")) {
                        text += noise;
                        text.push('\n');
                    }
                }
            }
            for wrapped in [
                prefixed(|_| "[pod/envoy-7d4f/istio-proxy] ".to_owned(), &text),
                prefixed(|_| "envoy-1  | ".to_owned(), &text),
                docker(&text, "stdout", usize::MAX),
                container(&text, "stdout"),
            ] {
                let said = expect_same(&dir, &expected, wrapped);
                assert!(said.contains("text around"), "{every}: {said}");
            }
        }
    }
}

#[test]
fn control_bytes_between_messages_of_text_lose_none() {
    let dir = Dir::new("control");
    for dress in [Dress::Json, Dress::Text] {
        let [first, second] = parts(dress);
        let (expected, ..) = converted(&dir, [&*first, &second].concat());
        for control in [&b"\0"[..], b"\0\0\0\0", b"\x04", b"\x1a", b"\r\n\x1a", b"\0\n\0"] {
            for bytes in [[&*first, control, &second].concat(), [&*first, &second, control].concat()] {
                expect_same(&dir, &expected, &bytes);
                let run = tap2pcap().args(&["validate", "--json", "-"]).stdin(bytes).run();
                let codes = run.stdout_text();
                assert!(
                    codes.contains("\"zero-padding\"") || codes.contains("\"text-around\""),
                    "{control:?}: {codes}"
                );
            }
        }
    }
}

/// A live log comes through the layers line by line: `kubectl logs -f --prefix | tap2pcap - -`.
#[test]
fn a_live_log_flows_through_layers() {
    type Wrap = fn(&str) -> String;
    let record = |key: &str, line: &str| format!("{{\"{key}\":{}}}\n", serde_json::to_string(line).unwrap());
    let wraps: [(&str, Wrap); 5] = [
        ("prefix", |text| prefixed(|_| "[pod/envoy-7d4f/istio-proxy] ".to_owned(), text)),
        ("compose", |text| prefixed(|_| "envoy-1  | ".to_owned(), text)),
        ("times", |text| prefixed(|_| "2024-05-01T10:00:00.123Z ".to_owned(), text)),
        ("docker", |text| docker(text, "stdout", usize::MAX)),
        ("cri", |text| container(text, "stdout")),
    ];
    let [first, second] = parts(Dress::Json).map(|bytes| String::from_utf8(bytes).unwrap());
    let mut cases: Vec<(&str, String, String)> =
        wraps.iter().map(|(what, wrap)| (*what, wrap(&first), wrap(&second))).collect();
    let compact = |text: &str| text.lines().map(str::trim_start).collect::<String>();
    cases.push(("message", record("message", &compact(&first)), record("message", &compact(&second))));
    for noise in ["", "[2024-05-01 10:00:00.000][15][info][main] ready\n"] {
        for (what, first, second) in &cases {
            let mut child = Command::new(PROGRAM)
                .args(["-", "-"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
            stdin.write_all(noise.as_bytes()).unwrap();
            stdin.write_all(first.as_bytes()).unwrap();
            // More than the blocks at the start of a capture: this waits for packets.
            let mut packets = [0; 400];
            stdout.read_exact(&mut packets).unwrap_or_else(|error| panic!("{what}: {error}"));
            stdin.write_all(second.as_bytes()).unwrap();
            drop(stdin);
            copy(&mut stdout, &mut sink()).unwrap();
            assert_eq!(child.wait().unwrap().code(), Some(0), "{what}");
        }
    }
}

/// An editor on Windows writes a byte order mark before whatever it saves.
#[test]
fn a_byte_order_mark_before_wrapped_traces_changes_nothing() {
    let dir = Dir::new("mark");
    let trace = trace();
    let (plain, ..) = converted(&dir, &trace);
    let values: Vec<serde_json::Value> =
        serde_json::Deserializer::from_str(&trace).into_iter().collect::<Result<_, _>>().unwrap();
    let records: Vec<_> = values.iter().map(|value| serde_json::json!({ "message": value.to_string() })).collect();
    let strings: Vec<_> = values.iter().map(ToString::to_string).collect();
    for text in [
        prefixed(|_| "[pod/a/tap] ".to_owned(), &trace),
        container(&trace, "stdout"),
        serde_json::to_string_pretty(&records).unwrap(),
        serde_json::to_string(&records).unwrap(),
        serde_json::to_string(&strings).unwrap(),
        serde_json::to_string(&serde_json::json!({ "taps": values })).unwrap(),
    ] {
        expect_same(&dir, &plain, &text);
        expect_same(&dir, &plain, format!("\u{feff}{text}"));
    }
}

/// Ansible prints an output as a string and as a list of lines.
#[test]
fn an_output_that_is_there_twice_is_read_once() {
    let dir = Dir::new("twice");
    let trace = trace();
    let (plain, ..) = converted(&dir, &trace);
    let lines: Vec<_> = trace.lines().collect();
    let result = serde_json::json!({ "rc": 0, "stdout": trace, "stdout_lines": lines });
    expect_same(&dir, &plain, result.to_string());
    expect_same(&dir, &plain, serde_json::to_string_pretty(&result).unwrap());
    expect_same(&dir, &plain, serde_json::json!({ "stdout_lines": lines }).to_string());
}

#[test]
fn the_prefix_of_lines_in_records_may_begin_with_a_bracket() {
    let dir = Dir::new("bracket");
    let trace = trace();
    let (plain, ..) = converted(&dir, &trace);
    let inner: [fn(usize) -> String; 2] =
        [|_| "[tap] ".to_owned(), |_| "[2024-05-06 07:08:09.123][12][info][tap] [x.cc:9] ".to_owned()];
    for prefix in inner {
        let lines = prefixed(prefix, &trace);
        expect_same(&dir, &plain, docker(&lines, "stdout", usize::MAX));
        expect_same(&dir, &plain, container(&lines, "stdout"));
    }
}

/// Each of many beginnings of a trace could be read to the end of the text. A test that takes long shows that they are.
#[test]
fn many_beginnings_of_a_trace_take_linear_time() {
    let dir = Dir::new("beginnings");
    for line in ["a: socket_buffered_trace {\n", "socket_buffered_trace {\n  x {\n", "{\"socket_buffered_trace\": {\n"]
    {
        let (_, status, said) = converted(&dir, line.repeat(200_000));
        assert_eq!(status, 2, "{said}");
    }
}

/// A line after a whole message is text, whatever it begins with. What follows on the message's own line is damage.
#[test]
fn a_line_after_a_message_may_begin_with_a_quote_or_a_brace() {
    let dir = Dir::new("quote");
    for dress in [Dress::Json, Dress::Text] {
        let [first, second] = parts(dress).map(|bytes| String::from_utf8(bytes).unwrap().trim_end().to_owned());
        let (plain, ..) = converted(&dir, format!("{first}\n{second}\n"));
        for line in ["\"quoted\" note", "}", "} else {", "\"", "  }\n", ": x"] {
            for text in [format!("{first}\n{line}\n{second}\n"), format!("{first}\n{second}\n{line}\n")] {
                let said = expect_same(&dir, &plain, text);
                assert!(said.contains("text around"), "{dress:?} {line}: {said}");
            }
        }
        let (_, status, said) = converted(&dir, format!("{first}}}\n{second}\n"));
        assert_eq!(status, 1, "{dress:?}: {said}");
    }
}
