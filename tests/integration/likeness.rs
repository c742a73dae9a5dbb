//! What is no trace is named for what it is, with what to do, and never becomes one.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::json;

use crate::{
    fixture::{Dress, TIME, downstream, read, streamed, write},
    util::{Dir, EDITCAP, PROTOC, ROOT, Run, TCPDUMP, TSHARK, convert, run_command, tap2pcap},
};

fn testdata(name: &str) -> PathBuf {
    Path::new(ROOT).join("testdata").join(name)
}

/// Expects that every command refuses a file, with these words.
#[track_caller]
fn expect_refused(dir: &Dir, name: &str, bytes: &[u8], words: &str) {
    let input = dir.fresh().join(name);
    fs::write(&input, bytes).unwrap();
    let output = dir.join("out.pcapng");
    convert(&[], &input, &output).run().expect_status(2).expect_stderr(words);
    assert!(!output.exists());
    // JSON escapes quotes.
    let commands = [&["info"][..], &["validate"], &["validate", "--json"]];
    for command in &commands[..if words.contains('"') { 2 } else { 3 }] {
        let run = tap2pcap().args(command).arg(&input).run().expect_status(2);
        let text = format!("{}{}", run.stderr, run.stdout_text());
        assert!(text.contains(words), "{words}{run:?}");
    }
}

/// A binary trace, as Envoy writes it.
fn binary() -> Vec<u8> {
    fs::read(testdata("envoy/1.40.0/h1_str_PROTO_BINARY_133.pb")).unwrap()
}

fn of_command(program: &str, args: &[&str]) -> Vec<u8> {
    let mut command = Command::new(program);
    command.args(args);
    run_command(command).expect_status(0).stdout
}

#[test]
fn text_that_is_no_trace_is_named() {
    let dir = Dir::new("other-text");
    let decoded = "1 {\n  1: 7\n  2 {\n    1 {\n      2: \"10.0.0.1\"\n    }\n  }\n}\n";
    let config = "admin:\n  address:\n    socket_address: { address: 127.0.0.1, port_value: 9901 }\nstatic_resources:\n  \
                  listeners:\n  - name: a\n";
    let request = "config_id: tap\ntap_config:\n  match_config:\n    any_match: true\n  output_config:\n    sinks:\n    - \
                   streaming_admin: {}\n";
    let yaml = "http_buffered_trace:\n  request:\n    headers:\n      - key: :method\n        value: GET\n";
    let log = "[2024-05-01 10:00:00.000][1][info][main] [source/server/server.cc:404] initializing epoch 0\n";
    let access =
        "[2024-05-01T10:00:00.000Z] \"GET / HTTP/1.1\" 200 - 0 5 3 2 \"-\" \"curl/8\" \"9e8\" \"a\" \"10.0.0.1:80\"\n";
    let tcp_access = "[2024-05-01T10:00:00.000Z] \"- - -\" 0 UH - \"-\" 0 0 0 - \"-\" \"-\" - - 10.0.0.1:80\n";
    let prometheus = "# TYPE envoy_cluster_upstream_cx_total counter\nenvoy_cluster_upstream_cx_total{a=\"b\"} 12\n";
    let rust = "TraceWrapper { trace: Some(HttpBufferedTrace(HttpBufferedTrace { request: None })) }";
    let go = "&tapv3.TraceWrapper{state:impl.MessageState{}, Trace:(*tapv3.TraceWrapper_HttpBufferedTrace)(0xc00010)}";
    let cases = [
        ("", "empty, not an Envoy tap trace"),
        ("\n", "it holds only white space"),
        (" \r\n\t\n", "it holds only white space"),
        (config, "it is Envoy's configuration"),
        (request, "it is the request for a tap, not its answer"),
        (yaml, "it is a trace as YAML; convert it to JSON first: yq -o=json"),
        ("a: 1\nb:\n  - c\n  - d: 2\n", "it is YAML"),
        ("---\nkind: Pod\nmetadata:\n  name: x\n", "it is YAML"),
        (access, "it is an Envoy access log"),
        (tcp_access, "it is an Envoy access log"),
        (log, "it is Envoy's own log"),
        ("cluster.a.upstream_cx_total: 12\nhttp.b.rq: P0(nan,1)\n", "admin endpoint /stats"),
        (prometheus, "admin endpoint /stats"),
        (
            "Unknown config id 'x'. No extension has registered with this id.",
            "it is the text of an error message instead of a trace",
        ),
        (
            "An attached /tap admin stream already exists. Detach it.",
            "it is the text of an error message instead of a trace",
        ),
        ("/tap requires a JSON/YAML body", "it is the text of an error message instead of a trace"),
        ("curl: (7) Failed to connect to localhost port 9901", "it is the text of an error message instead of a trace"),
        (
            "error: unable to upgrade connection: container not found",
            "it is the text of an error message instead of a trace",
        ),
        (decoded, "protoc --decode_raw"),
        (rust, "what a program in Go or Rust prints"),
        ("TraceWrapper {\n    trace: Some(\n        HttpBufferedTrace(\n", "what a program in Go or Rust prints"),
        (go, "what a program in Go or Rust prints"),
        ("{'http_buffered_trace': {'request': {'headers': []}}}", "a dictionary as Python prints it"),
        ("b'\\n\\x1c\\n\\n:authority'\n", "bytes as Python prints them"),
        ("b\"\\n\\x1c'\\n:authority\"", "bytes as Python prints them"),
        ("<!DOCTYPE html><html></html>", "it is an HTML page"),
        ("<?xml version=\"1.0\"?><a/>", "it is an XML document"),
        ("-----BEGIN CERTIFICATE-----\nMIIB\n", "it is a PEM file"),
        ("-----BEGIN PGP MESSAGE-----\n\nhQEM\n", "it is encrypted (PGP)"),
        ("#!/bin/sh\necho\n", "it is a program"),
        ("a,b\n1,2\n", "it is text, but neither JSON nor protobuf text: it begins 61 2c 62 0a"),
        ("[package]\nname = \"a\"\n", "it is text, but neither"),
        ("[2024-05-01 10:00:00] hello", "it is text, but neither"),
        (
            "\u{1b}[31msay \"no\"\u{1b}[0m and more",
            "1b 5b 33 31 6d 73 61 79 20 22 6e 6f 22 1b 5b 30 \".[31msay \"no\".[0\"",
        ),
    ];
    for (text, words) in cases {
        expect_refused(&dir, "input", text.as_bytes(), words);
        if !text.is_empty() {
            expect_refused(&dir, "trace.json", text.as_bytes(), words);
        }
    }
}

#[test]
fn json_that_is_no_trace_is_named() {
    let dir = Dir::new("other-json");
    let in_string = r#"{"socket_buffered_trace": {"trace_id": 1}}"#;
    let har = json!({"log": {"version": "1.2", "creator": {"name": "x"}, "entries": [{
        "request": {"method": "GET", "headers": [{"name": "socket_buffered_trace", "value": in_string}]}, "response": {}}]}});
    let dump =
        json!({"configs": [{"@type": "type.googleapis.com/envoy.admin.v3.BootstrapConfigDump", "bootstrap": {}}]});
    let request = json!({"config_id": "a", "tap_config": {"match": {"any_match": true}}});
    let access =
        json!({"start_time": "x", "response_code": 200, "response_flags": "-", "upstream_host": "10.0.0.1:80"});
    let encoded = base64_of(&binary());
    let cases = [
        (har, "it is an HTTP archive (HAR)"),
        (dump, "it is Envoy's configuration"),
        (json!({"static_resources": {"listeners": []}}), "it is Envoy's configuration"),
        (request, "it is the request for a tap"),
        (access, "it is an Envoy access log"),
        (json!({"stats": [{"name": "a", "value": 1}]}), "admin endpoint /stats"),
        (json!({"message": {"id": "1", "data": encoded}}), "it is JSON with a trace in base64"),
        (json!({"message": {"id": "1", "data": base64_of(&[7; 100])}}), "it is JSON, but holds none"),
        (json!({"name": "package", "version": "1.0.0"}), "it is JSON, but holds none"),
        (json!({"x": [[[[[[[[[[[{"a": 1, "b": {"c": 2, "d": 3}}]]]]]]]]]]]}), "it is JSON, but holds none"),
        (json!([1, 2, {"a": null}]), "it is a JSON array without tap traces"),
    ];
    for (value, words) in cases {
        for text in [value.to_string(), serde_json::to_string_pretty(&value).unwrap()] {
            expect_refused(&dir, "input", text.as_bytes(), words);
        }
    }
    // In a directory, such files are passed over, whatever their suffix.
    let traces = dir.fresh();
    fs::write(traces.join("array.json"), "[1]").unwrap();
    fs::write(traces.join("config.json"), "{\"static_resources\": {}}").unwrap();
    fs::write(traces.join("large.json"), format!("[{}1]", "{\"a\": [1, 2]}, ".repeat(20_000))).unwrap();
    fs::write(traces.join("trace.pb"), binary()).unwrap();
    let run = convert(&[], &traces, &dir.join("out.pcapng")).run().expect_status(0);
    run.expect_stderr("note: 3 files that are not traces were passed over");
}

fn base64_of(bytes: &[u8]) -> String {
    base64_simd::STANDARD.encode_to_string(bytes)
}

#[test]
fn archives_programs_and_encrypted_files_are_named() {
    let dir = Dir::new("other-binary");
    let zeros = vec![0; 100_000];
    let cases: [(&[u8], &str); 16] = [
        (b"7z\xbc\xaf\x27\x1c\0\x04", "it is a 7z archive; unpack it first: 7z x"),
        (b"\xfd7zXZ\0\0\x04", "it is xz data; unpack it first: xz -d"),
        (b"BZh91AY&SY", "it is bzip2 data; unpack it first: bzip2 -d"),
        (b"\x04\x22\x4d\x18\x64", "it is LZ4 data; unpack it first: lz4 -d"),
        (b"Rar!\x1a\x07\x01\0", "it is a RAR archive"),
        (b"\x7fELF\x02\x01\x01\0", "it is a program"),
        (b"Salted__\x01\x02\x03\x04\x05\x06\x07\x08", "it is encrypted (openssl enc)"),
        (b"age-encryption.org/v1\n-> X25519", "it is encrypted (age)"),
        (b"\x8c\x0d\x04\x09\x03\x08", "it is encrypted (PGP)"),
        (b"SQLite format 3\0", "it is an SQLite database"),
        (b"\x89PNG\r\n\x1a\n", "it is an image"),
        (b"%PDF-1.7\n", "it is a PDF document"),
        (b"GMBU\0\x02", "it is a capture of Network Monitor"),
        (b"snoop\0\0\0\0\0\0\x02", "it is a snoop capture"),
        (&zeros, "it holds only zeros"),
        (b"\xee\xf1\x80\"\x01", "none of Envoy's five formats fits its first bytes: ee f1 80 22 01 \"...\".\""),
    ];
    for (bytes, words) in cases {
        expect_refused(&dir, "input", bytes, words);
        expect_refused(&dir, "input.pb", bytes, words);
    }
}

/// Each in the form that the tool itself prints.
#[test]
fn what_tools_print_is_named() {
    let dir = Dir::new("tools");
    let trace = testdata("envoy/1.40.0/h1_str_PROTO_BINARY_133.pb");
    let capture = dir.join("capture.pcapng");
    convert(&[], &trace, &capture).run().expect_clean();
    let (path, trace) = (capture.to_str().unwrap(), trace.to_str().unwrap());
    let pcap = dir.join("capture.pcap");
    EDITCAP.run(["-F", "pcap", path, pcap.to_str().unwrap()], b"");
    let tshark = |args: &[&str]| TSHARK.run([&["-r", path][..], args].concat(), b"").stdout;
    let raw = PROTOC.run(["--decode_raw"], &binary()).stdout;
    let hex: String = binary().iter().map(|byte| format!("{byte:02x}")).collect();
    let url = "Ci8SLQorCAESDwoNEgkxMjcuMC4wLjEY-_Ag\nAhIMCgoSCDEyNy4wLjAuMRjR_w0\n";
    let xxd = "00000000: 0a4c 0a4a 2068 656c 6c6f 2077 6f72 6c64  .L.J hello world\n00000010: 2074 6869 7320 6973              \
               this is\n";
    let hexdump = "00000000  0a 4c 0a 4a 20 68 65 6c  6c 6f 20 77 6f 72 6c 64  |.L.J hello world|\n*\n00000028\n";
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("pcapng", fs::read(&capture).unwrap(), "it is a pcapng capture already"),
        ("pcap", fs::read(&pcap).unwrap(), "it is a pcap capture already"),
        ("tshark", tshark(&[]), "a list of packets as tcpdump or tshark prints them"),
        ("tshark -T json", tshark(&["-T", "json"]), "packets as tshark prints them in JSON"),
        ("tshark -T ek", tshark(&["-T", "ek"]), "packets as tshark prints them in JSON"),
        ("tshark -T pdml", tshark(&["-T", "pdml"]), "it is an XML document"),
        ("tshark -x", tshark(&["-x"]), "it is a hex dump"),
        ("tcpdump", TCPDUMP.run(["-n", "-r", path], b"").stdout, "a list of packets as tcpdump or tshark prints them"),
        ("tcpdump -X", TCPDUMP.run(["-n", "-X", "-r", path], b"").stdout, "a list of packets"),
        ("od", of_command("od", &[trace]), "it is a hex dump that cannot be turned back as it is"),
        ("od -c", of_command("od", &["-c", trace]), "it is a hex dump"),
        ("od -x", of_command("od", &["-A", "x", "-t", "x1z", trace]), "it is a hex dump"),
        ("xxd", xxd.into(), "it is a hex dump; turn it back into bytes first: xxd -r"),
        ("hexdump", hexdump.into(), "it is a hex dump of hexdump -C"),
        ("hexadecimal", hex.into(), "it is hexadecimal digits; turn them into bytes first: xxd -r -p"),
        ("base64", of_command("base64", &[trace]), "it is base64; decode it first: base64 -d"),
        ("base64 -w0", of_command("base64", &["-w0", trace]), "it is base64; decode it first: base64 -d"),
        ("base64url", url.into(), "it is base64 for URLs; decode it first: tr _- /+ <FILE | base64 -d"),
        ("protoc --decode_raw", raw, "it is what protoc --decode_raw prints"),
    ];
    for (what, bytes, words) in cases {
        assert!(bytes.len() > 20, "{what}");
        expect_refused(&dir, "input", &bytes, words);
    }
}

/// The bytes are there, but not as they were. The cause and what to do are told.
#[test]
fn binary_traces_that_a_terminal_or_an_editor_changed_are_refused_by_name() {
    let dir = Dir::new("changed");
    let ok = "HTTP/1.1 200 OK\r\n\r\n";
    let sockets = streamed(7, downstream(), [read(TIME, b"GET / HTTP/1.1\r\n\r\n"), write(TIME + 1, ok.as_bytes())]);
    let http = fs::read_dir(testdata("envoy/1.40.0")).unwrap().map(|entry| entry.unwrap().path());
    let http = http
        .filter(|path| path.to_string_lossy().contains("filter_buf_PROTO_BINARY_"))
        .map(|path| fs::read(path).unwrap());
    let mut traces: Vec<Vec<u8>> = http.collect();
    assert!(!traces.is_empty());
    traces.extend([binary(), Dress::Binary.file(&sockets), Dress::Delimited.file(&sockets)]);
    for trace in traces {
        let terminal: Vec<u8> = trace
            .iter()
            .flat_map(|byte| if *byte == b'\n' { b"\r\n" } else { std::slice::from_ref(byte) })
            .copied()
            .collect();
        let words = "a terminal turned each line feed of a binary trace into CR LF; copy it again with kubectl exec without -t, or \
                     with kubectl cp";
        expect_refused(&dir, "trace.pb", &terminal, words);
        let words = "binary data went through a text editor or a conversion to UTF-8";
        expect_refused(&dir, "trace.pb", String::from_utf8_lossy(&trace).as_bytes(), words);
        let latin: String = trace.iter().copied().map(char::from).collect();
        expect_refused(&dir, "trace.pb", latin.as_bytes(), words);
    }
    let words = "a terminal turned each line feed";
    expect_refused(&dir, "tty_damage.pb", &fs::read(testdata("inputs/tty_damage.pb")).unwrap(), words);
}

#[test]
fn traces_of_2018_and_2019_that_cannot_be_read_are_refused_by_name() {
    let dir = Dir::new("old");
    let words = "it is a capture of 2018 (envoy.data.tap.v2alpha.Trace";
    let capture = fs::read(testdata("inputs/capture_2018.pb")).unwrap();
    expect_refused(&dir, "capture_2018.pb", &capture, words);
    expect_refused(&dir, "cut", &capture[..200], words);
    expect_refused(&dir, "capture_2018.pb_text", &fs::read(testdata("inputs/capture_2018.pb_text")).unwrap(), words);
    let words = "it is a binary trace of early 2019";
    let mut wrapped = Vec::new();
    crate::wire::append_field(&mut wrapped, 2, &capture);
    expect_refused(&dir, "trace.pb", &wrapped, words);
}

/// The project's own files speak of traces everywhere.
#[test]
fn no_file_of_the_project_is_a_trace() {
    let listed = |folder: &str| {
        let files = walkdir::WalkDir::new(Path::new(ROOT).join(folder)).into_iter().map(Result::unwrap);
        files.filter(|entry| entry.file_type().is_file()).map(|entry| entry.into_path()).collect::<Vec<_>>()
    };
    let mut files: Vec<_> =
        ["src", "tests", "docs", "examples", "benches", "proto", "scripts"].into_iter().flat_map(listed).collect();
    let top = fs::read_dir(ROOT).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    files.extend(top);
    files.extend(listed("fuzz/fuzz_targets"));
    assert!(files.len() > 200);
    let mut command = tap2pcap().arg("validate");
    for file in &files {
        command = command.arg(file);
    }
    let run: Run = command.run().expect_status(2);
    let refused = run.stdout_text().matches("not an Envoy tap trace").count()
        + run.stderr.matches("not an Envoy tap trace").count();
    assert_eq!(refused, files.len(), "{run:?}");
}

/// A gibibyte of JSON that is no trace is refused without being held.
#[test]
fn a_long_string_before_a_trace_takes_no_memory() {
    let dir = Dir::new("long-string");
    let input = dir.join("long.json");
    let mut file = std::io::BufWriter::new(fs::File::create(&input).unwrap());
    file.write_all(b"{\"blob\": \"").unwrap();
    let block = vec![b'x'; 1 << 20];
    (0..48).for_each(|_| file.write_all(&block).unwrap());
    file.write_all(b"\", \"trace\": ").unwrap();
    file.write_all(&Dress::Json.file(&streamed(7, downstream(), [read(TIME, b"x")])[..1])).unwrap();
    file.write_all(b"}").unwrap();
    drop(file);
    let output = dir.join("out.pcapng");
    convert(&[], &input, &output).run_within(96).expect_status(0);
    assert!(output.exists());
}
