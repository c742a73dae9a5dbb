//! `tap2pcap info`: what is in traces, and the command that opens them.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use serde_json::{Value, json};
use tap2pcap::proto::tap::{Connection, TraceWrapper};

use crate::{
    batch::{Running, cut, numbered},
    fixture::{Dress, TIME, buffered, closed, downstream, pipe, read, socket, streamed, write},
    manifest::{Format, Sample, sample, socket_samples, socket_samples_of},
    oracle::{self, Kind},
    util::{Dir, PROGRAM, Run, convert, tap2pcap},
};

pub fn info(paths: &[&Path]) -> Vec<Value> {
    let mut command = tap2pcap().args(&["info", "--json"]);
    for path in paths {
        command = command.arg(path);
    }
    let run = command.run().expect_clean();
    run.stdout_text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

pub fn text(path: &Path) -> String {
    tap2pcap().arg("info").arg(path).run().expect_clean().stdout_text().to_owned()
}

/// Runs a printed command as a user would, with the program in the PATH.
pub fn shell(command: &str) -> Run {
    let mut shell = Command::new("sh");
    let folder = Path::new(PROGRAM).parent().unwrap().display().to_string();
    shell.env("PATH", format!("{folder}:{}", std::env::var("PATH").unwrap())).args(["-c", command]);
    Running::of(shell).finish().expect_status(0)
}

#[test]
fn info_shows_every_field() {
    let dir = Dir::new("info");
    let events = vec![
        read(TIME, b"GET / HTTP/1.1\r\n\r\n"),
        write(TIME + 1_000, &[b'x'; 300]),
        write(TIME + 2_000_000_000, b"more"),
        closed(TIME + 3_000_000_000),
    ];
    let mut events = numbered(events);
    events[1] = cut(events[1].clone(), 100);
    // 50 bytes before the last write are in no event.
    events[2].seq_num += 50;
    events[3].seq_num += 50;
    let upstream = Connection { local_address: pipe("/run/envoy.sock"), remote_address: None };
    let messages = [
        streamed(11, downstream(), events),
        vec![buffered(12, upstream, [write(TIME, b"hello"), read(TIME + 7, b"")])],
        streamed(13, downstream(), [cut(write(TIME, b"whole"), 2)]),
    ]
    .concat();
    let path = dir.create("trace.pb_length_delimited", Dress::Delimited.file(&messages));
    let lines = info(&[&path]);
    assert_eq!(lines.len(), 3);
    let open = format!("tap2pcap {} - | tshark -r -", path.display());
    let expected = json!({
        "path": path, "format": "delimited", "layers": [], "mode": "streamed", "role": "downstream", "trace_id": 11,
        "local": { "address": "10.0.0.1", "port": 8080, "trace": "10.0.0.1:8080" },
        "remote": { "address": "192.0.2.7", "port": 50123, "trace": "192.0.2.7:50123" },
        "first": "2026-01-31T12:00:00.123456789Z", "last": "2026-01-31T12:00:03.123456789Z",
        "read": { "events": 1, "bytes": 18, "lost": 0, "open_ended": 0 },
        "write": { "events": 2, "bytes": 104, "lost": 250, "open_ended": 0 },
        "closed": true, "protocol": "http1", "open": open,
        "trace": { "file": path, "offset": 0 },
        "source": { "address": "192.0.2.7:50123", "port": 50123 },
        "destination": { "address": "10.0.0.1:8080", "port": 8080 },
        "connection": {
            "id": 11, "time": "2026-01-31T12:00:00.123456789Z", "duration": "3s", "protocol": "http/1.1",
            "received_bytes": 18, "sent_bytes": 354, "side": "downstream",
        },
    });
    assert_eq!(lines[0], expected);
    let second = &lines[1];
    assert_eq!(
        (&second["mode"], &second["trace_id"], &second["role"]),
        (&json!("buffered"), &json!(12), &json!("upstream"))
    );
    assert_eq!(second["local"]["trace"], "/run/envoy.sock");
    assert_eq!(second["remote"]["trace"], Value::Null);
    assert_eq!((&second["source"], &second["destination"]), (&json!({ "address": "/run/envoy.sock" }), &Value::Null));
    assert!(second["local"]["address"].as_str().unwrap().starts_with("198.1"), "{second}");
    assert_eq!((&second["read"]["events"], &second["read"]["bytes"]), (&json!(1), &json!(0)));
    assert_eq!((&second["closed"], &second["protocol"]), (&json!(true), &json!("unknown")));
    let third = &lines[2];
    assert_eq!((&third["closed"], &third["write"]["open_ended"]), (&json!(false), &json!(1)));
    assert_eq!(third["write"]["bytes"], 2);

    let text = text(&path);
    let paragraphs: Vec<_> = text.lines().collect();
    let first = [
        format!("{}: delimited, streamed, trace_id 11, downstream, http1, closed", path.display()),
        "  192.0.2.7:50123 -> 10.0.0.1:8080".to_owned(),
        "  2026-01-31T12:00:00.123456789Z to 2026-01-31T12:00:03.123456789Z".to_owned(),
        "  read 18 bytes in 1 event; wrote 104 bytes in 2 events, 250 lost".to_owned(),
    ];
    assert_eq!(paragraphs[..4], first);
    assert!(paragraphs[4].ends_with("trace_id 12, upstream, unknown, closed"), "{text}");
    assert!(paragraphs[5].contains(" (/run/envoy.sock) -> "), "{text}");
    assert!(
        paragraphs[8].ends_with("trace_id 13, upstream, unknown, not closed") || paragraphs[8].ends_with("not closed")
    );
    assert!(paragraphs[11].ends_with("wrote 2 bytes in 1 event, how many are lost is not known"), "{text}");
    assert_eq!(paragraphs[12], format!("  open: {open}"));
    assert_eq!(paragraphs.len(), 13);
}

#[test]
fn info_shows_the_true_bytes_and_addresses_of_real_traces() {
    let samples: Vec<Sample> = socket_samples();
    let paths: Vec<_> = samples.iter().map(|sample| sample.path.as_path()).collect();
    let lines = info(&paths);
    assert_eq!(lines.len(), samples.len());
    let by_path: BTreeMap<_, _> = lines.iter().map(|line| (line["path"].as_str().unwrap(), line)).collect();
    for sample in &samples {
        let (line, trace) = (by_path[sample.path.to_str().unwrap()], oracle::trace(sample));
        let name = &sample.name;
        let format = match sample.format {
            Format::Binary => "binary",
            Format::Delimited => "delimited",
            Format::Text => "text",
            Format::JsonBytes | Format::JsonString => "json",
        };
        assert_eq!(line["format"], format, "{name}");
        assert_eq!(line["mode"], if sample.streaming { "streamed" } else { "buffered" }, "{name}");
        assert_eq!(line["trace_id"], trace.trace_id, "{name}");
        // Without addresses, the role cannot be known.
        if sample.format != Format::JsonString || !sample.streaming {
            assert_eq!(line["role"], if sample.upstream { "upstream" } else { "downstream" }, "{name}");
        }
        assert_eq!(line["closed"], true, "{name}");
        for (side, kind) in [("read", Kind::Read), ("write", Kind::Write)] {
            let events: Vec<_> = trace.data().filter(|event| event.kind == kind).collect();
            let lost: u64 =
                events.iter().map(|event| event.true_len.map_or(0, |len| len - event.payload.len() as u64)).sum();
            assert_eq!(line[side]["events"], events.len(), "{name}, {side}");
            assert_eq!(line[side]["bytes"], trace.bytes(kind).len(), "{name}, {side}");
            assert_eq!(line[side]["lost"], lost, "{name}, {side}");
        }
        if let Some(local) = oracle::socket(trace.connection.local_address.as_ref()) {
            assert_eq!(line["local"]["address"], local.ip().to_string(), "{name}");
            assert_eq!(line["local"]["port"], local.port(), "{name}");
        }
        let protocol = match sample.kind.trim_end_matches("up").trim_end_matches("trunc") {
            "h1" | "h1trunc" => Some("http1"),
            "h2" => Some("http2"),
            _ => None,
        };
        assert!(protocol.is_none_or(|protocol| line["protocol"] == protocol), "{name}: {line}");
    }
}

/// A connection with one question of the client and one answer of the server.
fn talk(connection: Connection, question: &[u8], answer: &[u8]) -> Vec<TraceWrapper> {
    streamed(1, connection, numbered(vec![read(TIME, question), write(TIME + 1, answer), closed(TIME + 2)]))
}

#[test]
fn a_protocol_is_told_by_its_first_bytes() {
    let dir = Dir::new("protocols");
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let grpc = [PREFACE, b"\0\0\x12\x01\x04\0\0\0\x01", b"\x5f\x10application/grpc"].concat();
    let hello = b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00";
    let cases: [(&str, &[u8], &[u8]); 8] = [
        ("http1", b"GET / HTTP/1.1\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n"),
        ("http1", b"", b"HTTP/1.0 200 OK\r\n\r\n"),
        ("http2", PREFACE, b"\0\0\0\x04\0\0\0\0\0"),
        ("grpc", &grpc, b"\0\0\0\x04\0\0\0\0\0"),
        ("tls", hello, b"\x16\x03\x03\x00\x05\x02\x00\x00\x01\x00"),
        ("ssh", b"SSH-2.0-x\r\n", b"SSH-2.0-y\r\n"),
        ("unknown", b"GETTING", b"HTTPS"),
        ("unknown", b"", b""),
    ];
    for (protocol, question, answer) in cases {
        for dress in [Dress::Binary, Dress::Json] {
            let bytes = dress.file(&talk(downstream(), question, answer));
            let path = dir.create("trace", bytes);
            assert_eq!(info(&[&path])[0]["protocol"], protocol, "{question:?}");
            assert!(text(&path).lines().next().unwrap().contains(&format!(", {protocol}, ")));
        }
    }
}

/// The printed command works unchanged, and shows HTTP/2 on ports where Wireshark would not.
#[test]
fn the_printed_command_dissects_http2() {
    let dir = Dir::new("printed-command");
    let samples = socket_samples_of("1.40.0/h2_");
    let paths: Vec<_> = samples.iter().map(|sample| sample.path.as_path()).collect();
    for line in info(&paths) {
        assert!(line["open"].as_str().unwrap().ends_with(",http"), "{line}");
    }
    // Each run of tshark takes long, so there are three samples.
    for name in ["1.36.2/h2_str_PROTO_TEXT_", "1.40.0/h2_buf_JSON_BODY_AS_BYTES_17", "1.40.0/h2_str_PROTO_BINARY_143"] {
        let sample = &socket_samples_of(name)[0];
        // A name that a shell would take apart.
        let path = dir.join(format!("it's $HOME; {}", sample.file_name()));
        fs::copy(&sample.path, &path).unwrap();
        let text = text(&path);
        let command = text.lines().last().unwrap().strip_prefix("  open: ").unwrap();
        assert_eq!(info(&[&path])[0]["open"], command);
        assert!(command.contains(" -d tcp.port==") && command.ends_with(",http"), "{command}");
        let run = shell(&format!("{command} -Y http2.headers.method -T fields -e http2.headers.method"));
        assert!(run.stdout_text().contains("GET") || run.stdout_text().contains("POST"), "{}{run:?}", sample.name);
        // Without the option, tshark shows no HTTP/2.
        let bare = command.split(" -d ").next().unwrap();
        assert_eq!(shell(&format!("{bare} -Y http2.headers.method")).stdout, b"", "{}", sample.name);

        // convert prints the command for the capture it wrote, as its last line.
        let capture = dir.join("it's a capture.pcapng");
        let run = convert(&[], &path, &capture).run().expect_status(0);
        let command = run.stderr.lines().last().unwrap().strip_prefix("note: to see it dissected: ").unwrap();
        let run = shell(&format!("{command} -Y http2.headers.method"));
        assert!(!run.stdout.is_empty(), "{command}");
        // The command is not printed with -q, nor beside a capture on standard output.
        let quiet = convert(&["-q"], &path, &capture).run().expect_status(0);
        assert_eq!(quiet.stderr, "");
        assert_eq!(convert(&[], &path, Path::new("-")).run().expect_status(0).stderr, "");
    }
    // Wireshark recognises HTTP/1 by itself, so no option is printed.
    let http1 = sample("1.40.0/h1_str_PROTO_BINARY_133");
    let run = convert(&[], &http1.path, &dir.join("http1.pcapng")).run().expect_status(0);
    assert_eq!(run.stderr, "");
    assert!(!text(&http1.path).contains(" -d "));
}

/// One option is enough for any number of ports, also in the command for a directory.
#[test]
fn one_option_is_enough_for_many_ports() {
    let dir = Dir::new("ports");
    let traces = dir.fresh();
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    for number in 0..40_u32 {
        let port = [10_000, 50_051, 15_006][number as usize % 3];
        let connection = Connection { local_address: socket("10.0.0.1", port), ..crate::batch::client(number) };
        let bytes = Dress::Binary.file(&talk(connection, PREFACE, b"\0\0\0\x04\0\0\0\0\0"));
        fs::write(traces.join(format!("{number}.pb")), bytes).unwrap();
    }
    let expected = "-d tcp.port==1-65535,http";
    for jobs in ["1", "8"] {
        let all = dir.join("all.pcapng");
        let run = convert(&["-j", jobs], &traces, &all).run().expect_status(0);
        let last = run.stderr.lines().last().unwrap();
        assert_eq!(last, format!("note: to see it dissected: tshark -r {} {expected}", all.display()));
        let run = convert(&["-j", jobs], &traces, &dir.fresh()).run().expect_status(0);
        let last = run.stderr.lines().last().unwrap();
        assert_eq!(last, format!("note: to see it dissected: tshark -r CAPTURE {expected}"));
    }
    // A thousand traces have a port each, and the command can still be run.
    let traces = dir.fresh();
    for number in 0..1000_u32 {
        let connection =
            Connection { local_address: socket("10.0.0.1", 10_000 + number), ..crate::batch::client(number) };
        let bytes = Dress::Binary.file(&talk(connection, PREFACE, b"\0\0\0\x04\0\0\0\0\0"));
        fs::write(traces.join(format!("{number}.pb")), bytes).unwrap();
    }
    let all = dir.join("all.pcapng");
    let run = convert(&[], &traces, &all).run().expect_status(0);
    let command = run.stderr.lines().last().unwrap().strip_prefix("note: to see it dissected: ").unwrap();
    assert!(shell(&format!("{command} -c 20")).stdout_text().contains("HTTP2"), "{command}");
}

#[test]
fn a_damaged_trace_is_shown_up_to_its_damage() {
    let dir = Dir::new("info-damaged");
    let good = dir.create("good.pb", Dress::Binary.file(&talk(downstream(), b"a", b"b")));
    let bad = dir.create("bad.pb", "what is this?");
    let bytes = fs::read(&good).unwrap();
    let cut = dir.create("cut.pb", &bytes[..bytes.len() - 24]);
    let run = tap2pcap().args(&["info", "--json"]).arg(&bad).arg(&cut).arg(&good).run().expect_status(1);
    assert_eq!(run.stdout_text().lines().count(), 2);
    let run = run.expect_stderr("bad.pb: byte 0").expect_stderr("cut.pb: byte ");
    let lines: Vec<Value> = run.stdout_text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&lines[0]["closed"], &lines[1]["closed"]), (&json!(false), &json!(true)));
    tap2pcap().arg("info").arg(&bad).run().expect_status(2).expect_stderr("bad.pb: byte 0");
    // The role that was given is shown.
    let run = tap2pcap().args(&["info", "--role", "upstream", "--json"]).arg(&good).run().expect_clean();
    assert!(run.stdout_text().contains("\"role\":\"upstream\""), "{run:?}");
}

#[test]
fn many_traces_are_a_summary_and_a_line_for_each_connection() {
    let dir = Dir::new("info-many");
    let sizes = [10, 3000, 200];
    for (index, size) in sizes.into_iter().enumerate() {
        let time = TIME + index as u64 * 1_000_000_000;
        let question = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(size));
        let mut events =
            vec![read(time, question.as_bytes()), write(time + 5_000_000, b"HTTP/1.1 204 No Content\r\n\r\n")];
        // The last one is not closed.
        if index < 2 {
            events.push(closed(time + 10_000_000));
        }
        dir.create(&format!("t{index}.pb_length_delimited"), Dress::Delimited.file(&streamed(7, downstream(), events)));
    }
    let table = |options: &[&str]| {
        let run = tap2pcap().arg("info").args(options).arg(dir.path()).run().expect_status(0);
        run.stdout_text().to_owned()
    };
    let text = table(&[]);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[0], "3 traces, 3 connections (1 not closed)");
    assert!(lines[1].starts_with("2026-01-31T12:00:00.123456789Z to 2026-01-31T12:00:02"), "{text}");
    assert!(lines[1].ends_with("read 3264 bytes, wrote 81 bytes"), "{text}");
    assert_eq!(lines[2], "protocols: http1 3");
    let order = |text: &str| -> Vec<String> {
        let rows = text.lines().filter(|line| line.starts_with("2026-01-31 "));
        rows.map(|line| line.split_whitespace().last().unwrap()[..2].to_owned()).collect()
    };
    assert_eq!(order(&text), ["t0", "t1", "t2"]);
    assert_eq!(order(&table(&["--sort", "bytes"])), ["t0", "t2", "t1"]);
    assert_eq!(order(&table(&["--sort", "duration", "--top", "2"])), ["t0", "t1"]);
    assert!(lines.last().unwrap().contains("tshark -r CAPTURE"), "{text}");
    // All of each with -v, as of one trace.
    let long = table(&["-v"]);
    assert_eq!((long.matches("trace_id 7").count(), long.matches("open: ").count()), (3, 3), "{long}");
}
