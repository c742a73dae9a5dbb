//! `tap2pcap validate`: a trace for every flaw, with that flaw alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use serde_json::Value;
use tap2pcap::proto::tap::{
    Connection, TraceWrapper, body::BodyType, socket_streamed_trace_segment::MessagePiece, trace_wrapper,
};

use crate::{
    batch::{body, cut, numbered},
    fixture::{Dress, TIME, as_strings, buffered, closed, downstream, read, segment, socket, streamed, write},
    manifest::{Format, socket_samples},
    packed::gzip,
    util::{Dir, ROOT, Run, convert, tap2pcap},
    wire,
};

/// A connection without a flaw: three messages before the closed event.
fn sound() -> Vec<TraceWrapper> {
    streamed(1, downstream(), numbered(vec![read(TIME, b"question"), write(TIME + 10, b"answer"), closed(TIME + 20)]))
}

fn delimited(messages: &[TraceWrapper]) -> Vec<u8> {
    Dress::Delimited.file(messages)
}

/// A file, the flaw it has, and where.
struct Flaw {
    code: &'static str,
    severity: &'static str,
    bytes: Vec<u8>,
    /// The option with the limit that makes it a flaw.
    options: &'static [&'static str],
    /// The message that has it.
    message: u64,
    /// A part of the finding's text.
    detail: &'static str,
}

fn flaws() -> Vec<Flaw> {
    let flaw =
        |code, severity, bytes: Vec<u8>, message, detail| Flaw { code, severity, bytes, options: &[], message, detail };
    let change = |index: usize, with: &dyn Fn(&mut TraceWrapper)| {
        let mut messages = sound();
        with(&mut messages[index]);
        delimited(&messages)
    };
    let without = |index: usize| {
        let mut messages = sound();
        messages.remove(index);
        delimited(&messages)
    };
    let ends = |connection: Connection| {
        delimited(&streamed(1, connection, numbered(vec![read(TIME, b"question"), closed(TIME)])))
    };
    let connection = |local: &str, port: u32| ends(Connection { local_address: socket(local, port), ..downstream() });
    let cluster = ends(Connection { local_address: None, ..downstream() });
    let twice = ends(Connection { local_address: downstream().remote_address, ..downstream() });
    let mut undecodable = delimited(&sound()[..1]);
    // Wire type 7 does not exist.
    undecodable.extend([3, 0x0f, 0x0f, 0x0f]);
    undecodable.extend(delimited(&sound()[1..]));
    let mut cut_off = delimited(&sound());
    cut_off.extend(&delimited(&sound()[..1])[..3]);
    let mut wrong_checksum = gzip(&delimited(&sound()));
    let at = wrong_checksum.len() - 5;
    wrong_checksum[at] ^= 0xff;
    let mut too_large = sound();
    // Without `seq_num`, nothing shows that bytes are missing.
    too_large.insert(1, segment(1, MessagePiece::Event(read(TIME, &[7; 600_000]))));
    let too_large = delimited(&too_large);
    let mut trailing = delimited(&sound());
    trailing.extend([3, 0x0f, 0x0f, 0x0f]);
    let mut mixed = sound();
    mixed.push(buffered(2, downstream(), [read(TIME + 50, b"question")]));
    // 100 bytes between the question and the answer are in no event.
    let mut lost = vec![read(TIME, b"question"), write(TIME + 10, b"answer"), closed(TIME + 20)];
    (lost[0].seq_num, lost[1].seq_num, lost[2].seq_num) = (1, 109, 116);
    let mut long = numbered(vec![read(TIME, &[7; 900]), write(TIME + 10, b"answer"), closed(TIME + 20)]);
    long[0] = cut(long[0].clone(), 100);
    // Two runs of five and three bytes became one space each.
    let mut destroyed = streamed(
        1,
        downstream(),
        numbered(vec![read(TIME, b"question"), write(TIME + 10, b"seven bytes and five more"), closed(TIME + 20)]),
    );
    destroyed = as_strings(&destroyed);
    if let Some(trace_wrapper::Trace::SocketStreamedTraceSegment(segment)) = &mut destroyed[2].trace
        && let Some(MessagePiece::Event(event)) = &mut segment.message_piece
    {
        body(event).unwrap().body_type = Some(BodyType::AsString("seven bytes and five".into()));
    }
    // The connection is added, because JSON_BODY_AS_STRING loses that as well.
    destroyed[0] = sound().remove(0);
    let unknown: Vec<u8> = sound()
        .iter()
        .flat_map(|message| {
            let bytes = wire::rewrite(&delimited_body(message), wire::Node::Wrapper, &|node, mut bytes| {
                if node == wire::Node::Event {
                    wire::append_field(&mut bytes, 99, b"from the future");
                }
                bytes
            });
            let mut out = Vec::new();
            wire::append_varint(&mut out, bytes.len() as u64);
            out.extend(bytes);
            out
        })
        .collect();
    let mut backwards = sound();
    backwards[2] = segment(
        1,
        MessagePiece::Event({
            let mut event = write(TIME - 5, b"answer");
            event.seq_num = 9;
            event
        }),
    );
    // Two connections at once, and messages of different sizes.
    let mut crowded = sound()[..1].to_vec();
    crowded.extend(streamed(2, downstream(), numbered(vec![closed(TIME + 5)])));
    vec![
        Flaw { options: &["--max-message", "300000"], ..flaw("too-large", "error", too_large, 1, "--max-message") },
        Flaw {
            options: &["--max-connections", "1"],
            ..flaw("too-many-connections", "error", delimited(&crowded), 1, "--max-connections")
        },
        flaw("undecodable", "error", undecodable, 1, "wire type"),
        flaw("cut-off", "error", cut_off, 4, ""),
        flaw("read-failed", "error", wrong_checksum, 4, "cannot read on"),
        flaw("bad-port", "error", connection("10.0.0.1", 70_000), 0, "70000"),
        flaw("bad-address", "error", connection("db.example", 80), 0, "db.example"),
        flaw("bad-time", "error", change(2, &|message| edit_event(message, |event| event.timestamp = None)), 2, "time"),
        flaw("trailing-bytes", "error", trailing, 4, ""),
        flaw("zero-padding", "warning", [delimited(&sound()), vec![0; 100]].concat(), 4, "100 zero bytes"),
        flaw("text-around", "warning", [&b"$ cat\n"[..], &Dress::Text.file(&sound())].concat(), 0, "\"$ cat\""),
        flaw("mixed-kinds", "warning", delimited(&mixed), 4, "socket_buffered_trace"),
        flaw("missing-connection", "warning", without(0), 0, "trace_id 1"),
        flaw("missing-address", "warning", cluster, 0, "set_connection_per_event"),
        flaw("same-address", "warning", twice, 0, "192.0.2.7:50123"),
        flaw("missing-close", "warning", without(3), 0, "trace_id 1"),
        flaw("time-backwards", "warning", delimited(&backwards), 2, "5 ns older"),
        flaw("lost-bytes", "warning", delimited(&streamed(1, downstream(), lost)), 2, "100 bytes"),
        flaw("truncated-body", "warning", delimited(&streamed(1, downstream(), long)), 1, "800 bytes are missing"),
        flaw("binary-destroyed", "warning", Dress::Json.file(&destroyed), 2, "5 bytes are missing"),
        flaw("unknown-field", "note", unknown, 0, "SocketEvent.99 is unknown to this version, 3 times"),
        flaw("missing-header", "warning", http(r#"{"key":":method","value":"GET"}"#, OK), 0, "no :path"),
        flaw("incomplete-exchange", "warning", http(GET, ""), 0, "there is no response"),
        flaw("length-mismatch", "warning", http(GET, &OK.replace("\"2\"", "\"two\"")), 0, "content-length"),
        flaw("escaped-header", "warning", http(GET, &format!(r#"{OK},{{"key":"x","value":"a\r\nb"}}"#)), 0, "escaped"),
        flaw("out-of-order", "warning", out_of_order(), 0, "order"),
        flaw("empty", "error", Vec::new(), 0, "empty"),
        flaw("not-a-trace", "error", b"what is this?".to_vec(), 0, "text"),
    ]
}

const GET: &str =
    r#"{"key":":method","value":"GET"},{"key":":path","value":"/"},{"key":":authority","value":"a.test"}"#;
const OK: &str = r#"{"key":":status","value":"200"},{"key":"content-length","value":"2"}"#;

/// A buffered HTTP trace of a request without a body and, if it has headers, a response of two bytes.
fn http(request: &str, response: &str) -> Vec<u8> {
    let time = r#""headers_received_time":"2026-01-31T12:00:00Z""#;
    let address = |ip: &str, port: u32| format!(r#"{{"socket_address":{{"address":"{ip}","port_value":{port}}}}}"#);
    let response = if response.is_empty() {
        String::new()
    } else {
        format!(r#""response":{{"headers":[{response}],"body":{{"as_bytes":"b2s="}},{time}}},"#)
    };
    let (local, remote) = (address("10.0.0.1", 8080), address("192.0.2.7", 50_123));
    format!(
        r#"{{"http_buffered_trace":{{"request":{{"headers":[{request}],{time}}},{response}
        "downstream_connection":{{"local_address":{local},"remote_address":{remote}}}}}}}"#
    )
    .into_bytes()
}

/// The segments of an exchange, and then its request's headers once more.
fn out_of_order() -> Vec<u8> {
    let request = format!(r#""request_headers":{{"headers":[{GET}]}}"#);
    let response = format!(r#""response_headers":{{"headers":[{OK}]}}"#);
    [&request, &response, r#""response_body_chunk":{"as_bytes":"b2s="}"#, &request]
        .map(|piece| format!(r#"{{"http_streamed_trace_segment":{{"trace_id":"1",{piece}}}}}"#))
        .concat()
        .into_bytes()
}

fn delimited_body(message: &TraceWrapper) -> Vec<u8> {
    prost::Message::encode_to_vec(message)
}

fn edit_event(message: &mut TraceWrapper, with: impl Fn(&mut tap2pcap::proto::tap::SocketEvent)) {
    let Some(trace_wrapper::Trace::SocketStreamedTraceSegment(segment)) = &mut message.trace else { panic!() };
    let Some(MessagePiece::Event(event)) = &mut segment.message_piece else { panic!("not an event") };
    with(event);
}

fn json(options: &[&str], paths: &[&Path]) -> (Run, Vec<Value>) {
    let mut command = tap2pcap().args(&["validate", "--json"]).args(options);
    for path in paths {
        command = command.arg(path);
    }
    let run = command.run().expect_no_panic();
    let lines = run.stdout_text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    (run, lines)
}

/// The codes that the program can print, from its source.
fn codes_in_source() -> BTreeMap<String, String> {
    let source = fs::read_to_string(Path::new(ROOT).join("src/trace/finding.rs")).unwrap();
    let names = source.lines().filter_map(|line| {
        let (variant, name) = line.trim().strip_prefix("Self::")?.split_once(" => \"")?;
        Some((variant.to_owned(), name.strip_suffix("\",")?.to_owned()))
    });
    let mut codes: BTreeMap<_, _> =
        names.filter(|(variant, _)| !["Note", "Warning", "Error"].contains(&&**variant)).collect();
    let source = fs::read_to_string(Path::new(ROOT).join("src/input/error.rs")).unwrap();
    codes.extend(source.lines().filter_map(|line| {
        let (variant, name) = line.trim().strip_prefix("Self::")?.split_once(" { .. } => \"")?;
        Some((variant.to_owned(), name.strip_suffix("\",")?.to_owned()))
    }));
    assert!(codes.len() >= 19, "{codes:?}");
    codes
}

#[test]
fn a_trace_without_a_flaw_has_no_finding() {
    let dir = Dir::new("sound");
    for dress in Dress::ALL {
        let path = dir.create(&format!("sound.{}", dress.suffix()), dress.file(&sound()));
        let (run, lines) = json(&["--strict"], &[&path]);
        run.expect_clean();
        assert_eq!(lines, [Value::Null; 0], "{dress:?}");
    }
}

#[test]
fn every_flaw_is_found_alone() {
    let dir = Dir::new("flaws");
    for Flaw { code, severity, bytes, options, message, detail } in flaws() {
        let path = dir.create(code, &bytes);
        let (run, lines) = json(options, &[&path]);
        let codes: Vec<_> = lines.iter().map(|line| line["code"].as_str().unwrap()).collect();
        // A connection that was given up has no close, and streamed HTTP never has addresses. No other flaw has a
        // consequence.
        let expected = match code {
            "too-many-connections" | "incomplete-exchange" => vec![code, "missing-close"],
            "out-of-order" => vec!["missing-connection", code],
            _ => vec![code],
        };
        assert_eq!(codes, expected, "{run:?}");
        let at = codes.iter().position(|found| *found == code).unwrap();
        let line = &lines[at];
        assert_eq!(line["severity"], severity, "{run:?}");
        assert_eq!(line["path"], path.to_str().unwrap(), "{run:?}");
        assert_eq!(line["message"], message, "{run:?}");
        assert!(line["detail"].as_str().unwrap().contains(detail), "{run:?}");
        let offset = line["offset"].as_u64().unwrap();
        let keys: BTreeSet<_> = line.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, BTreeSet::from(["code", "detail", "message", "offset", "path", "severity"]));
        // The offset is where the message begins, or that of the wrong byte in it.
        if !matches!(code, "read-failed" | "binary-destroyed" | "empty" | "not-a-trace") {
            let mut rest = &bytes[..];
            for _ in 0..message {
                let (len, body) = wire::varint(rest);
                rest = &body[len as usize..];
            }
            let start = (bytes.len() - rest.len()) as u64;
            let end = bytes.len() as u64;
            assert!((start..=end).contains(&offset), "{code}: {offset} is not in {start}..={end}");
            if severity == "warning" {
                assert!(offset <= start + 2, "{code}: {offset} is not at {start}");
            }
        }

        // The table shows the same.
        let table = tap2pcap().arg("validate").args(options).arg(&path).run();
        let rows: Vec<_> = table.stdout_text().lines().collect();
        assert_eq!(rows.len(), lines.len(), "{table:?}");
        let words: Vec<_> = rows[at].split_whitespace().collect();
        assert_eq!(words[..2], [severity, code], "{table:?}");
        assert!(rows[at].contains(path.to_str().unwrap()) && rows[at].contains(detail), "{table:?}");
        let nothing_read = matches!(code, "empty" | "not-a-trace");
        if !nothing_read {
            assert!(rows[at].contains(&format!("byte {offset}, message {message}: ")), "{table:?}");
        }
        let count = |word: &str| lines.iter().filter(|line| line["severity"] == word).count();
        let read = u8::from(!nothing_read);
        let (errors, warnings, notes) = (count("error"), count("warning"), count("note"));
        let many = |number: usize, noun: &str| format!("{number} {noun}{}", if number == 1 { "" } else { "s" });
        let counts = [many(errors, "error"), many(warnings, "warning"), many(notes, "note")].join(", ");
        let summary = format!("note: {}: {counts}\n", many(usize::from(read), "trace"));
        assert_eq!(table.stderr, summary, "{table:?}");

        // The status shows the worst severity.
        let status = |strict: &[&str]| {
            tap2pcap()
                .arg("validate")
                .args(options)
                .args(strict)
                .arg(&path)
                .run()
                .expect_no_panic()
                .status
                .code()
                .unwrap()
        };
        let expected = match severity {
            _ if nothing_read => [2, 2],
            "error" => [1, 1],
            "warning" => [0, 1],
            _ => [0, 0],
        };
        assert_eq!([status(&[]), status(&["--strict"])], expected, "{code}");
    }
}

#[test]
fn unreadable_files_are_findings() {
    let dir = Dir::new("validate-unreadable");
    let missing = dir.join("missing.pb");
    let (run, lines) = json(&[], &[&missing]);
    assert_eq!(run.status.code(), Some(2), "{run:?}");
    assert_eq!(lines.len(), 1);
    assert_eq!((&lines[0]["code"], &lines[0]["severity"]), (&"unreadable".into(), &"error".into()));
    assert_eq!(lines[0]["path"], missing.to_str().unwrap());
    // Beside a readable trace, it is an error like others.
    let sound = dir.create("sound.pb", Dress::Binary.file(&sound()));
    let (run, lines) = json(&[], &[&sound, &missing]);
    assert_eq!((run.status.code(), lines.len()), (Some(1), 1), "{run:?}");
}

/// Every code has a flaw above and a place in the documentation.
#[test]
fn every_code_is_tested_and_documented() {
    let codes: BTreeSet<_> = codes_in_source().into_values().collect();
    let mut tested: BTreeSet<_> = flaws().iter().map(|flaw| flaw.code.to_owned()).collect();
    tested.insert("unreadable".to_owned());
    // inputs.rs tests it with every command.
    tested.insert("nothing-readable".to_owned());
    // `http` and HAR alone read what these are about; the tests of the stage have them.
    tested.extend(codes.iter().filter(|code| code.starts_with("http-")).cloned());
    assert_eq!(tested, codes);
    let page = fs::read_to_string(Path::new(ROOT).join("docs/findings.md")).unwrap();
    let rows: BTreeMap<_, _> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .map(|line| {
            let cells: Vec<_> = line.split('|').map(str::trim).collect();
            assert!(cells.len() == 5 && cells[2].len() > 20 && cells[3].len() > 10, "too little in: {line}");
            (cells[0].trim_end_matches('`').to_owned(), cells[1].to_owned())
        })
        .collect();
    assert_eq!(rows.keys().cloned().collect::<BTreeSet<_>>(), codes);
    for flaw in flaws() {
        assert_eq!(rows[flaw.code], flaw.severity, "{}", flaw.code);
    }
}

/// Not only the first flaw is printed, nor only those of the first file.
#[test]
fn every_finding_of_every_file_is_printed() {
    let dir = Dir::new("all-findings");
    let root = dir.fresh();
    let mut flaws = flaws();
    flaws.retain(|flaw| flaw.options.is_empty());
    for flaw in &flaws {
        fs::write(root.join(format!("{}.pb", flaw.code)), &flaw.bytes).unwrap();
    }
    fs::write(root.join("sound.pb"), Dress::Binary.file(&sound())).unwrap();
    let (run, lines) = json(&[], &[&root]);
    assert_eq!(run.status.code(), Some(1), "{run:?}");
    let found: BTreeSet<_> = lines.iter().map(|line| line["code"].as_str().unwrap()).collect();
    assert_eq!(found, flaws.iter().map(|flaw| flaw.code).collect());
    // Two of them have a second finding as a consequence.
    assert_eq!(lines.len(), flaws.len() + 2);

    // There are many findings in one file, far more than a conversion prints.
    let mut events = Vec::new();
    for index in 0..100_u64 {
        let mut event = read(TIME + index, b"x");
        event.seq_num = 1 + index * 10;
        events.push(event);
    }
    let path = dir.create("lossy.pb", Dress::Binary.file(&streamed(1, downstream(), events)));
    let (_, lines) = json(&[], &[&path]);
    let lost: Vec<_> = lines.iter().filter(|line| line["code"] == "lost-bytes").collect();
    assert_eq!(lost.len(), 99);
    assert!(lost.iter().all(|line| line["detail"].as_str().unwrap().contains("9 bytes")));
    let messages: Vec<_> = lost.iter().map(|line| line["message"].as_u64().unwrap()).collect();
    assert_eq!(messages, (2..=100).collect::<Vec<_>>());
    assert_eq!(lines.last().unwrap()["code"], "missing-close");
    assert_eq!(lines.len(), 100);
}

/// The findings count the bytes that were cut or destroyed, and unknown fields.
#[test]
fn losses_are_counted() {
    let dir = Dir::new("counts");
    // Three of four bodies are cut, and the length of the last one is unknown.
    let mut events = vec![read(TIME, &[1; 500]), write(TIME + 1, &[2; 600]), read(TIME + 2, b"whole")];
    events.push(read(TIME + 3, &[3; 70]));
    events = numbered(events);
    for index in [0, 1, 3] {
        events[index] = cut(events[index].clone(), 10);
    }
    let path = dir.create("cut.pb", Dress::Binary.file(&streamed(5, downstream(), events)));
    let (_, lines) = json(&[], &[&path]);
    let detail = lines.iter().find(|line| line["code"] == "truncated-body").unwrap()["detail"].as_str().unwrap();
    assert_eq!(detail, "trace_id 5: 3 bodies are truncated, more than 1080 bytes are missing");
    // Two kinds of unknown fields, each with its number and count.
    let event = &streamed(1, downstream(), numbered(vec![read(TIME, b"x"), closed(TIME)]));
    let bytes: Vec<u8> = event
        .iter()
        .flat_map(|message| {
            wire::rewrite(&delimited_body(message), wire::Node::Wrapper, &|node, mut bytes| {
                match node {
                    wire::Node::Streamed => wire::append_field(&mut bytes, 50, b"new"),
                    wire::Node::Connection => (0..4).for_each(|_| wire::append_field(&mut bytes, 51, b"newer")),
                    _ => {}
                }
                bytes
            })
        })
        .collect();
    let (_, lines) = json(&[], &[&dir.create("new.pb", bytes)]);
    let details: BTreeSet<_> = lines.iter().map(|line| line["detail"].as_str().unwrap()).collect();
    let expected = [
        "SocketStreamedTraceSegment.50 is unknown to this version, 3 times",
        "Connection.51 is unknown to this version, 4 times",
    ];
    assert_eq!(details, BTreeSet::from(expected));
}

/// A real trace has no flaw except what Envoy was told to leave out.
#[test]
fn real_traces_have_no_findings_but_of_what_envoy_left_out() {
    let samples = socket_samples();
    let paths: Vec<_> = samples.iter().map(|sample| sample.path.as_path()).collect();
    let (run, lines) = json(&[], &paths);
    assert_eq!(run.status.code(), Some(0), "{run:?}");
    for sample in &samples {
        let path = sample.path.to_str().unwrap();
        let codes: BTreeSet<_> =
            lines.iter().filter(|line| line["path"] == path).map(|line| line["code"].as_str().unwrap()).collect();
        let trace = crate::oracle::trace(sample);
        let mut expected = BTreeSet::new();
        if trace.data().any(|event| event.truncated) {
            expected.insert("truncated-body");
        }
        // A streamed tap of a cluster, without set_connection_per_event.
        let knows = |end: &Option<_>| end.is_some();
        let ends = [knows(&trace.connection.local_address), knows(&trace.connection.remote_address)];
        let per_event = sample.kind.starts_with("perevent");
        expected.extend((ends == [false, true] && !per_event).then_some("missing-address"));
        if sample.format == Format::JsonString {
            let cut = |event: &crate::oracle::Event| event.true_len.is_some_and(|len| len > event.payload.len() as u64);
            expected.extend(trace.data().any(|event| !event.truncated && cut(event)).then_some("binary-destroyed"));
            expected.extend(sample.streaming.then_some("missing-connection"));
        }
        assert_eq!(codes, expected, "{}", sample.name);
    }
}

#[test]
fn validate_changes_nothing_and_may_be_quiet() {
    let dir = Dir::new("validate-quiet");
    let path = dir.create("x.pb", Dress::Binary.file(&sound()[..2]));
    let before = dir.names();
    let run = tap2pcap().args(&["validate", "-q"]).arg(&path).run().expect_status(0);
    assert_eq!(run.stderr, "");
    assert_eq!(run.stdout_text().lines().count(), 1);
    assert_eq!(dir.names(), before);
    // As a stream, under the name that was given.
    let stream = tap2pcap().args(&["validate", "--json", "-"]).stdin(fs::read(&path).unwrap()).run().expect_status(0);
    let line: Value = serde_json::from_str(stream.stdout_text()).unwrap();
    assert_eq!((&line["path"], &line["code"]), (&"-".into(), &"missing-close".into()));
    // Read in the encoding that was given.
    let run = tap2pcap().args(&["validate", "--from", "json"]).arg(&path).run();
    assert_ne!(run.status.code(), Some(0));
}

#[test]
fn validate_reports_the_addresses_that_a_conversion_reports() {
    let dir = Dir::new("validate-addresses");
    let connection = Connection { local_address: socket("db.example", 70_000), ..downstream() };
    let input = dir.create("path_0.pb", Dress::Binary.file(&streamed(1, connection, [read(TIME, b"x"), closed(TIME)])));
    convert(&[], &input, &dir.join("out.pcapng")).run().expect_status(1);
    let run = tap2pcap().args(&["validate", "--json"]).arg(&input).run().expect_status(1);
    for code in ["bad-address", "bad-port"] {
        assert!(run.stdout_text().contains(&format!("\"code\":\"{code}\"")), "{code}{run:?}");
    }
}
