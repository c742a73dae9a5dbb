//! More that a trace may be wrapped in: strings under any key, journald's records, colours, fields of a line, YAML, HTML,
//! zlib, and text before a binary trace.

use std::{fmt::Write as _, fs, io::Write as _, path::Path};

use flate2::{
    Compression,
    write::{DeflateEncoder, ZlibEncoder},
};
use serde_json::{Value, json};

use crate::{
    archives::{tar_of, zstandard},
    surroundings::{BUFFERED_TEXT, Judge, LINES, PRETTY, STREAMED, TEXT, all_traces},
    tshark,
    util::{Dir, ROOT, convert, tap2pcap},
};

type Wrap = (&'static str, fn(&str) -> String);

fn each_line(text: &str, wrap: impl Fn(&str) -> String) -> String {
    text.lines().map(|line| wrap(line) + "\n").collect()
}

fn quoted(text: &str) -> String {
    json!(text).to_string()
}

fn lines(text: &str) -> Vec<&str> {
    text.lines().collect()
}

/// Expects that each of the traces is read through each of the wraps.
fn expect_read(name: &str, wraps: &[Wrap], traces: &[&str]) {
    let mut judge = Judge::new(name);
    for (what, wrap) in wraps {
        for trace in traces {
            judge.expect_same(what, trace, wrap(trace).as_bytes(), None);
        }
    }
    // What all are compared with has what tshark finds in it.
    let input = judge.dir.create("plain", PRETTY.as_bytes());
    let output = judge.dir.join("plain.pcap");
    convert(&[], &input, &output).run().expect_status(0);
    assert_eq!(tshark::lines(&output, &["-Y", "http.request || http.response"]).len(), 4);
}

/// Expects that what is cut or damaged is never read as a whole trace.
fn expect_damage_told(name: &str, wraps: &[Wrap]) {
    let judge = Judge::new(name);
    let damaged = PRETTY.replacen("\"headers\": [", "\"headers\": 5, [", 1);
    for (what, wrap) in wraps {
        for text in [damaged.as_str(), &PRETTY[..PRETTY.len() - 200]] {
            let (_, status, said) = judge.capture(wrap(text).as_bytes());
            assert_ne!(status, 0, "{what}: {said}");
        }
    }
}

fn config_map(text: &str) -> Value {
    let applied = json!({"data": {"tap.json": text}}).to_string();
    let annotations = json!({"kubectl.kubernetes.io/last-applied-configuration": applied});
    let metadata = json!({"name": "tap", "namespace": "default", "annotations": annotations});
    json!({"apiVersion": "v1", "kind": "List", "items": [{"data": {"tap.json": text}, "metadata": metadata}]})
}

fn loki(text: &str) -> Value {
    let values: Vec<_> = text.lines().map(|line| json!(["1700000000000000000", line])).collect();
    json!({"status": "success", "data": {"result": [{"stream": {"app": "x"}, "values": values}]}})
}

const STRINGS: [Wrap; 14] = [
    ("kubectl get cm -o json", |text| format!("{:#}\n", config_map(text))),
    ("the same on one line", |text| config_map(text).to_string()),
    ("Loki", |text| loki(text).to_string()),
    ("Loki over lines", |text| format!("{:#}", loki(text))),
    ("Loki's tail", |text| each_line(text, |line| json!({"streams": [{"values": [["17", line]]}]}).to_string())),
    ("CloudWatch Insights", |text| {
        let row = |line: &str| json!([{"field": "@timestamp", "value": "2024"}, {"field": "@message", "value": line}]);
        format!("{:#}", json!({"results": text.lines().map(row).collect::<Vec<_>>()}))
    }),
    ("CloudWatch events", |text| {
        let events: Vec<_> = text.lines().map(|line| json!({"timestamp": 1, "message": line})).collect();
        json!({"events": events}).to_string()
    }),
    ("Splunk HEC", |text| each_line(text, |line| json!({"time": 1, "host": "h", "event": line}).to_string())),
    ("a string", quoted),
    ("strings", |text| each_line(text, quoted)),
    ("an array of lines", |text| format!("{:#}\n", json!(lines(text)))),
    ("an array of one", |text| json!([text]).to_string()),
    ("three levels", |text| json!({"a": json!({"b": json!({"c": text}).to_string()}).to_string()}).to_string()),
    ("three levels on each line", |text| {
        each_line(text, |line| {
            let inner = json!({"log": json!({"msg": line}).to_string()}).to_string();
            json!({"log": inner + "\n", "stream": "stdout"}).to_string()
        })
    }),
];

#[test]
fn a_trace_in_a_string_is_read_whatever_its_key() {
    expect_read("any-key", &STRINGS, &all_traces());
    expect_damage_told("any-key-damaged", &STRINGS);
}

#[test]
fn strings_that_only_mention_a_trace_are_refused() {
    let dir = Dir::new("mention");
    let trace = LINES.lines().next().unwrap();
    for (at, value) in [
        json!({"description": format!("the answer is {trace}"), "x": 1}),
        json!({"a": "{\"http_buffered_trace\": {\"$ref\": \"#/x\"}}"}),
        json!({"log": {"version": "1.2", "entries": [{"response": {"content": {"text": trace}}}]}}),
        json!({"source": format!("let x = {};", quoted(trace))}),
        json!(["http_buffered_trace", {"a": "{"}]),
        json!("see socket_buffered_trace {"),
    ]
    .into_iter()
    .enumerate()
    {
        for text in [value.to_string(), format!("{value:#}\n"), format!("{value}\n{value}\n")] {
            let input = dir.create(&format!("{at}.json"), text);
            for command in ["validate", "info"] {
                tap2pcap().arg(command).arg(&input).run().expect_status(2);
            }
        }
    }
}

fn journal(line: &str, as_bytes: bool) -> Value {
    let message = if as_bytes { json!(line.as_bytes()) } else { json!(line) };
    json!({"__CURSOR": "s=1;i=2", "_PID": "77", "_HOSTNAME": "h", "MESSAGE": message})
}

/// As `journalctl -o json-pretty` lays it out.
fn pretty_journal(line: &str, as_bytes: bool) -> String {
    let text = format!("{:#}", journal(line, as_bytes));
    text.replace("\n  ", "\n\t").replace("\n\t\"MESSAGE\":", "\n\t\"MESSAGE\" :")
}

const JOURNAL: [Wrap; 5] = [
    ("-o json", |text| each_line(text, |line| journal(line, false).to_string())),
    ("bytes", |text| each_line(text, |line| journal(line, true).to_string())),
    ("some bytes", |text| each_line(text, |line| journal(line, line.len() % 3 == 0).to_string())),
    ("-o json-pretty", |text| each_line(text, |line| pretty_journal(line, false))),
    ("bytes in -o json-pretty", |text| each_line(text, |line| pretty_journal(line, line.len() % 2 == 0))),
];

#[test]
fn journals_in_json_are_read_with_messages_as_strings_and_as_bytes() {
    expect_read("journal", &JOURNAL, &all_traces());
    expect_damage_told("journal-damaged", &JOURNAL);
}

/// As jq prints it in colours.
fn coloured(value: &Value, indent: Option<usize>, out: &mut String) {
    let line = |extra: usize| indent.map_or(String::new(), |indent| format!("\n{}", "  ".repeat(indent + extra)));
    let inner = indent.map(|indent| indent + 1);
    match value {
        Value::Object(members) => {
            out.push_str("\x1b[1;39m{");
            for (index, (key, value)) in members.iter().enumerate() {
                let comma = if index == 0 { "" } else { "\x1b[1;39m," };
                write!(out, "{comma}{}\x1b[0m\x1b[34;1m{}\x1b[0m\x1b[1;39m: \x1b[0m", line(1), quoted(key)).unwrap();
                coloured(value, inner, out);
            }
            write!(out, "\x1b[1;39m{}\x1b[1;39m}}\x1b[0m", line(0)).unwrap();
        }
        Value::Array(values) => {
            out.push_str("\x1b[1;39m[");
            for (index, value) in values.iter().enumerate() {
                write!(out, "{}{}", if index == 0 { "" } else { "\x1b[1;39m," }, line(1)).unwrap();
                coloured(value, inner, out);
            }
            write!(out, "\x1b[1;39m{}\x1b[1;39m]\x1b[0m", line(0)).unwrap();
        }
        value => write!(out, "\x1b[0;32m{value}\x1b[0m").unwrap(),
    }
}

fn jq(indent: Option<usize>) -> String {
    LINES.lines().fold(String::new(), |mut out, line| {
        coloured(&serde_json::from_str(line).unwrap(), indent, &mut out);
        out + "\n"
    })
}

#[test]
fn colours_and_record_separators_in_json_are_taken_off() {
    let mut judge = Judge::new("colours");
    let separated = each_line(&LINES, |line| format!("\x1e{line}"));
    let records = each_line(&LINES, |line| format!("\x1e{}", json!({"message": line})));
    let grep = |text: &str| text.replace("ffered", "\x1b[01;31m\x1b[Kffered\x1b[m\x1b[K");
    for (what, text) in [
        ("jq -C", jq(Some(0))),
        ("jq -cC", jq(None)),
        ("after a prompt", format!("\x1b[32muser\x1b[0m$ jq -C . x\n{}", jq(Some(0)))),
        ("RFC 7464", separated),
        ("records of RFC 7464", records),
        ("both", each_line(&jq(None), |line| format!("\x1e{line}"))),
        ("grep", grep(&PRETTY)),
    ] {
        judge.expect_same(what, &LINES, text.as_bytes(), None);
    }
    judge.expect_same("grep in text", &BUFFERED_TEXT, grep(&BUFFERED_TEXT).as_bytes(), None);
    for cut in [jq(Some(0)), jq(None)] {
        let (_, status, said) = judge.capture(&cut.as_bytes()[..cut.len() - 300]);
        assert_eq!(status, 1, "{said}");
    }
}

fn csv(text: &str, separator: char) -> String {
    let row = |line: &str| format!("2024{separator}\"a\"{separator}\"{}\"", line.replace('"', "\"\""));
    format!("time{separator}pod{separator}message\r\n{}", each_line(text, row))
}

fn escaped(text: &str, quote: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', quote)
}

const FIELDS: [Wrap; 10] = [
    ("logfmt", |text| each_line(text, |line| format!("level=info msg={} caller=x.go:1", quoted(line)))),
    ("logfmt, whole", |text| format!("level=info ts=1 trace={}\n", quoted(text))),
    ("logfmt, bare values", |text| {
        let value = |line: &str| if line.contains([' ', '"']) { quoted(line) } else { line.to_owned() };
        each_line(text, |line| format!("level=info pod=a msg={}", value(line)))
    }),
    ("zap's console", |text| {
        each_line(text, |line| format!("2024-05-01T10:00:00.000Z\tINFO\tmain.go:12\tgot\t{}", json!({"trace": line})))
    }),
    ("CSV", |text| csv(text, ',')),
    ("CSV with semicolons", |text| csv(text, ';')),
    ("CSV with tabs", |text| csv(text, '\t')),
    ("a column of several lines", |text| format!("a,b\r\n\"{}\",x\r\n", text.replace('"', "\"\""))),
    ("HTML", |text| format!("<html><pre>\n{}</pre></html>\n", escaped(text, "&quot;"))),
    ("numbers in HTML", |text| format!("<code>\n{}</code>\n", escaped(text, "&#34;"))),
];

#[test]
fn fields_of_a_line_and_entities_are_unquoted() {
    expect_read("fields", &FIELDS, &all_traces());
    let mut judge = Judge::new("zap");
    let nested = |line: &str| format!("2024-05-01T10:00:00.000Z\tINFO\tgot\t{{\"n\": 1, \"trace\": {line}}}");
    judge.expect_same("an object", &LINES, each_line(&LINES, nested).as_bytes(), None);
    expect_damage_told("fields-damaged", &FIELDS);
}

fn indented(text: &str, by: &str) -> String {
    each_line(text, |line| format!("{by}{line}"))
}

const BLOCKS: [Wrap; 6] = [
    ("a block scalar", |text| format!("kind: x\ndata:\n  tap: |\n{}meta:\n  a: b\n", indented(text, "    "))),
    ("without the last line break", |text| format!("data: |-\n{}kind: x\n", indented(text, "  "))),
    ("with a quoted key", |text| format!("data:\n  # c\n  \"tap\": |+\n{}", indented(text, "      "))),
    ("a list", |text| format!("traces:\n- |\n{}- name: b\n", indented(text, "  "))),
    ("a quoted scalar", |text| format!("data:\n  tap: {}\nkind: x\n", quoted(text))),
    ("a fence in a list", |text| format!("- item\n\n  ```\n{}  ```\n", indented(text, "  "))),
];

#[test]
fn traces_in_yaml_and_lists_are_read() {
    expect_read("blocks", &BLOCKS, &all_traces());
    expect_damage_told("blocks-damaged", &BLOCKS);
    let mut judge = Judge::new("tabs");
    for trace in [&**TEXT, &**BUFFERED_TEXT] {
        let tabs = trace.replace("  ", "\t");
        judge.expect_same("tabs", trace, tabs.as_bytes(), None);
        judge.expect_same("tabs before", trace, format!("x y\n{}", indented(&tabs, "\t")).as_bytes(), None);
        judge.expect_same("a list", trace, format!("- {}", &indented(trace, "  ")[2..]).as_bytes(), None);
    }
}

fn zlib(bytes: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::new(level));
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn skippable(first: u8, size: u32) -> Vec<u8> {
    let mut frame = vec![first, 0x2a, 0x4d, 0x18];
    frame.extend_from_slice(&size.to_le_bytes());
    frame.resize(8 + size as usize, 1);
    frame
}

fn sample(name: &str) -> Vec<u8> {
    fs::read(Path::new(ROOT).join("testdata/envoy/1.40.0").join(name)).unwrap()
}

#[test]
fn zlib_and_skippable_frames_are_unpacked() {
    let mut judge = Judge::new("zlib");
    let head = "HTTP/1.1 200 OK\r\ncontent-encoding: deflate\r\n\r\n".as_bytes();
    for trace in all_traces() {
        let bytes = trace.as_bytes();
        for level in [0, 1, 6, 9] {
            judge.expect_same("zlib", trace, &zlib(bytes, level), Some(false));
        }
        judge.expect_same("in a response", trace, &[head, &zlib(bytes, 6)].concat(), Some(false));
        judge.expect_same("raw in a response", trace, &[head, &deflate(bytes)].concat(), Some(false));
        judge.expect_same("unpacked already", trace, &[head, bytes].concat(), Some(false));
        judge.expect_same("pzstd", trace, &[skippable(0x50, 4), zstandard(bytes)].concat(), Some(false));
        let two = [skippable(0x5f, 0), skippable(0x53, 300), zstandard(bytes)].concat();
        judge.expect_same("two frames", trace, &two, Some(false));
    }
    let whole = zlib(PRETTY.as_bytes(), 6);
    for bad in [&whole[..whole.len() / 2], &[&whole[..], b"more"].concat(), b"x^2 + y^2\n", &whole[..2]] {
        assert_ne!(judge.capture(bad).1, 0);
    }
    let mut changed = whole.clone();
    changed[whole.len() / 2] ^= 0xff;
    assert_ne!(judge.capture(&changed).1, 0);
    // What comes long before the damage is read.
    let mut changed = zlib(PRETTY.repeat(50).as_bytes(), 6);
    let middle = changed.len() / 2;
    changed[middle] ^= 0xff;
    let (capture, status, said) = judge.capture(&changed);
    assert!(status == 1 && !capture.is_empty(), "{said}");
}

#[test]
fn a_binary_trace_after_text_or_before_a_line_feed_is_read() {
    let judge = Judge::new("binary");
    for name in ["h1_str_PROTO_BINARY_133.pb"] {
        let trace = sample(name);
        let (expected, status, _) = judge.capture(&trace);
        assert_eq!(status, 0);
        for text in [
            "Defaulted container \"envoy\" out of: envoy, app\n",
            "ready\n",
            "\nhello\r\n",
            &"Warning: Permanently added '10.0.0.7' (ED25519) to the list of known hosts.\n".repeat(5),
        ] {
            for end in ["", "\n", "\r\n"] {
                let all = [text.as_bytes(), &trace, end.as_bytes()].concat();
                let (capture, status, said) = judge.capture(&all);
                assert!(status == 0 && capture == expected, "{text}{said}");
                assert_eq!(said.matches("warning").count(), 1, "{said}");
                let len = text.trim_start().len() + end.len();
                assert!(said.contains(&format!("{len} bytes of text around")), "{said}");
            }
        }
        let (capture, status, said) = judge.capture(&[&trace[..], b"\n"].concat());
        assert!(status == 0 && capture == expected && said.contains("white space after the messages"), "{said}");
        let cut = [b"Defaulted container\n", &trace[..trace.len() - 9]].concat();
        assert_eq!(judge.capture(&cut).1, 1);
        // Without the end of its line, the text cannot be told from the trace.
        assert_ne!(judge.capture(&[b"Defaulted container", &trace[..]].concat()).1, 0);
    }
}

#[test]
fn an_archive_on_standard_input_is_opened_by_one_command_and_equal_names_are_told() {
    let dir = Dir::new("equal-names");
    let members = [("a.json", PRETTY.as_bytes()), ("b.json", PRETTY.as_bytes())];
    let run = tap2pcap().args(&["info", "-"]).stdin(tar_of(&members)).run().expect_status(0);
    assert_eq!(run.stdout_text().matches("open: tap2pcap - - | tshark").count(), 1, "{run:?}");
    let archive = dir.create("x.tar", tar_of(&[("d/a.json", STREAMED.as_bytes()), ("d/a.json", STREAMED.as_bytes())]));
    let run = convert(&[], &archive, &dir.fresh()).run().expect_status(0);
    assert!(run.stderr.contains("note: 1 input with the name of another one, told apart by numbers: "), "{run:?}");
    let run = convert(&["-q"], &archive, &dir.fresh()).run().expect_status(0);
    assert!(!run.stderr.contains("told apart"), "{run:?}");
}
