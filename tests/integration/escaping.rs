//! The content of a trace and the name of a file may be written by an attacker.

use std::{collections::BTreeSet, fs, path::Path};

use serde_json::Value;
use tap2pcap::{
    capture::{Capture, CaptureFormat, Destination},
    proto::tap::Connection,
    synth::{Packet, PacketSink as _},
    timeline::Direction,
};

use crate::{
    batch::{contains, numbered},
    fixture::{Dress, TIME, closed, downstream, internal, pipe, read, socket, streamed, write},
    tshark,
    util::{CAPINFOS, Dir, Run, TCPDUMP, TSHARK, convert, tap2pcap},
    wire,
};

/// Clears the screen, sets the title, goes back to the start of the line, reverses text and hides it.
const EVIL: &str = "\x1b[2J\x1b]0;owned\x07\r\u{9b}31m\u{202e}fdp.exe\u{2066}\u{200b}\u{7f}\u{feff}";

/// Expects that no character that acts on a terminal is there unescaped.
#[track_caller]
fn expect_harmless(what: &str, bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let harmful = |char: char| {
        (char.is_control() && char != '\n')
            || matches!(char, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    let found: BTreeSet<_> = text.chars().filter(|char| harmful(*char)).collect();
    assert!(found.is_empty(), "{what}: {found:?} in {text:?}");
}

#[track_caller]
fn expect_run_harmless(what: &str, run: &Run) {
    expect_harmless(what, run.stderr.as_bytes());
    expect_harmless(what, &run.stdout);
}

fn talk(connection: Connection) -> Vec<u8> {
    let events = numbered(vec![read(TIME, b"question"), write(TIME + 1, b"answer"), closed(TIME + 2)]);
    Dress::Binary.file(&streamed(1, connection, events))
}

/// Connections with something evil in the place of an address.
fn evil_connections() -> [(&'static str, Connection); 4] {
    let with = |local| Connection { local_address: local, ..downstream() };
    [
        ("path", with(pipe(EVIL))),
        ("abstract", with(pipe(&format!("@{EVIL}")))),
        ("listener", with(internal(EVIL, EVIL))),
        ("address", with(socket(EVIL, 80))),
    ]
}

#[test]
fn socket_names_are_escaped_on_the_way_to_a_terminal() {
    let dir = Dir::new("evil-sockets");
    for (kind, connection) in evil_connections() {
        let trace = dir.create(&format!("{kind}.pb"), talk(connection));
        let output = dir.join("out.pcapng");
        let run = convert(&["-v"], &trace, &output).run().expect_no_panic();
        expect_run_harmless(kind, &run);
        for args in [&["info"][..], &["info", "--json"], &["validate"], &["validate", "--json"]] {
            let run = tap2pcap().args(args).arg(&trace).run().expect_no_panic();
            expect_run_harmless(&format!("{kind}, {args:?}"), &run);
            // People still recognise the name, and programs get it whole.
            let text = String::from_utf8_lossy(&run.stdout).into_owned();
            assert!(text.is_empty() || text.contains("fdp.exe"), "{run:?}");
            if args == ["info", "--json"] && kind == "path" {
                let line: Value = serde_json::from_str(&text).unwrap();
                assert_eq!(line["local"]["trace"], EVIL);
            }
        }
        // The capture does not hold it either, in comments or in names.
        let capture = fs::read(&output).unwrap();
        for part in ["\x1b[2J", "\u{202e}", "\u{9b}31m"] {
            assert!(!contains(&capture, part.as_bytes()), "{kind}: {part:?} in the capture");
        }
        assert!(contains(&capture, b"fdp.exe"), "{kind}: the name is lost");
        let frames = tshark::read(&output);
        expect_harmless(kind, frames.iter().map(|frame| frame.comments.concat()).collect::<String>().as_bytes());
    }
}

#[test]
fn file_names_are_escaped() {
    let dir = Dir::new("evil-files");
    let folder = dir.fresh();
    let name = format!("evil\n{EVIL}").replace(']', "");
    let trace = folder.join(format!("{name}.pb"));
    fs::write(&trace, talk(downstream())).unwrap();
    let bad = folder.join(format!("{name}-bad.pb"));
    fs::write(&bad, "what is this?").unwrap();
    let out = dir.fresh();
    let check = |what: &str, run: &Run, lines: usize| {
        expect_run_harmless(what, run);
        assert_eq!(run.stderr.lines().count(), lines, "{what}{run:?}");
    };
    let run = convert(&["-v"], &folder, &out).run().expect_status(1);
    check("mirror", &run, 3);
    let all = dir.join("all.pcapng");
    check("merge", &convert(&["-v"], &folder, &all).run().expect_status(1), 3);
    let capture = fs::read(&all).unwrap();
    assert!(!contains(&capture, b"\x1b[2J") && !contains(&capture, "\u{202e}".as_bytes()), "the interface's name");
    expect_harmless("interface", tshark::read(&all)[0].interface.as_bytes());
    for args in [&["info"][..], &["info", "--json"], &["validate"], &["validate", "--json"]] {
        let run = tap2pcap().args(args).arg(&folder).run().expect_status(1);
        expect_run_harmless(&format!("{args:?}"), &run);
    }
    // Outputs, and inputs that do not exist.
    let unwritable = folder.join(format!("{name}/x.pcapng"));
    let run = convert(&[], &trace, &unwritable).run().expect_status(2);
    check("output", &run, 1);
    let run = convert(&[], &folder.join(EVIL), &all).run().expect_status(2);
    check("missing", &run, 1);
    let empty = dir.join(EVIL.replace(']', "x"));
    fs::create_dir(&empty).unwrap();
    check("empty", &convert(&[], &empty, &all).run().expect_status(2), 1);
    let run = convert(&[], &trace, &trace).run().expect_status(2);
    check("same", &run, 1);
}

#[test]
fn field_names_of_a_hostile_trace_are_escaped() {
    let dir = Dir::new("evil-fields");
    let name = EVIL.replace('\x1b', "\\u001b").replace('\r', "\\r").replace('\x07', "\\u0007");
    let json = format!(
        "{{\"socket_buffered_trace\": {{\"{name}\": 1, \"trace_id\": \"1\", \"connection\": {{\"local_address\": \
         {{\"socket_address\": {{\"address\": \"{name}\", \"port_value\": 1}}}}}}, \"events\": []}}}}"
    );
    let trace = dir.create("fields.json", json);
    for args in [&["info"][..], &["info", "--json"], &["validate"], &["validate", "--json"]] {
        let run = tap2pcap().args(args).arg(&trace).run().expect_no_panic();
        expect_run_harmless(&format!("{args:?}"), &run);
    }
    let run = convert(&["-v"], &trace, &dir.join("out.pcapng")).run().expect_no_panic();
    expect_run_harmless("convert", &run);
}

/// A name of a megabyte and a thousand findings make neither comments nor lines longer than their bounds.
#[test]
fn comments_names_and_lines_are_capped() {
    let dir = Dir::new("long-names");
    let long = "é".repeat(500_000);
    let both = |make: &dyn Fn(&str) -> Connection| make(&long);
    let connections = [
        both(&|name| Connection { local_address: pipe(name), remote_address: pipe(&format!("{name}2")) }),
        both(&|name| Connection { local_address: socket(name, 80), ..downstream() }),
        both(&|name| Connection { local_address: internal(name, name), ..downstream() }),
    ];
    for connection in connections {
        let trace = dir.create("long.pb", talk(connection));
        let output = dir.join("long.pcapng");
        let run = convert(&["-v"], &trace, &output).run().expect_no_panic();
        assert!(run.stderr.lines().all(|line| line.len() < 3000), "a line of {} bytes", run.stderr.len());
        let capture = fs::metadata(&output).unwrap().len();
        assert!(capture < 100_000, "{capture} bytes");
        let frames = tshark::read(&output);
        assert!(frames.iter().all(|frame| frame.comments.iter().all(|comment| comment.len() < 65_535)));
        assert!(frames.iter().any(|frame| frame.comments.concat().contains('…')), "nothing says that it was cut");
        TCPDUMP.run([Path::new("-n"), Path::new("-r"), &output], &[]);
        for command in ["info", "validate"] {
            let run = tap2pcap().arg(command).arg(&trace).run().expect_no_panic();
            assert!(run.stdout_text().lines().all(|line| line.len() < 3000), "{command}");
        }
    }
    // Of a thousand flaws in one file, some are printed, and then the number of the others.
    let mut bytes = Dress::Delimited.file(&streamed(1, downstream(), [read(TIME, b"x")]));
    for _ in 0..1000 {
        bytes.extend([3, 0x0f, 0x0f, 0x0f]);
        bytes.extend(&Dress::Delimited.file(&streamed(1, downstream(), [read(TIME, b"x")]))[..]);
    }
    let (input, output) = (dir.create("flaws.pb_length_delimited", bytes), dir.join("flaws.pcapng"));
    let run = convert(&[], &input, &output).run().expect_status(1).expect_stderr("980 more findings like these");
    assert_eq!(run.stderr.lines().count(), 21, "{run:?}");
    // Thousands of different unknown fields.
    let message =
        wire::rewrite(&Dress::Binary.file(&streamed(1, downstream(), [])), wire::Node::Wrapper, &|node, mut bytes| {
            if node == wire::Node::Connection {
                (100..5000).for_each(|number| wire::append_field(&mut bytes, number, b"x"));
            }
            bytes
        });
    let trace = dir.create("fields.pb", message);
    let run = tap2pcap().args(&["validate", "--json"]).arg(&trace).run().expect_status(0);
    let lines: Vec<Value> = run.stdout_text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let unknown: Vec<_> = lines.iter().filter(|line| line["code"] == "unknown-field").collect();
    assert!(unknown.len() < 100, "{}", unknown.len());
    let times = |line: &&Value| match line["detail"].as_str().unwrap().rsplit(' ').collect::<Vec<_>>()[..] {
        ["once", ..] => 1,
        ["times", number, ..] => number.parse::<u64>().unwrap(),
        _ => panic!("{line}"),
    };
    assert_eq!(unknown.iter().map(times).sum::<u64>(), 4900, "all are counted");
}

/// Comments and names of any content and length give a capture that readers read whole, with nothing unescaped in it.
#[test]
fn any_comment_and_name_gives_a_capture_that_is_read_whole() {
    let dir = Dir::new("any-comment");
    let path = dir.join("any.pcapng");
    let mut texts: Vec<String> = [1, 3, 4_090, 16_384, 32_767, 65_530, 65_535, 65_536, 70_000, 1_000_000]
        .into_iter()
        .flat_map(|length| ["x".repeat(length), "é".repeat(1 + length / 2), EVIL.repeat(1 + length / EVIL.len())])
        .collect();
    texts.push(format!("two\nlines {EVIL}"));
    let mut capture = Capture::create(&Destination::File(path.clone()), CaptureFormat::Pcapng).unwrap();
    for text in &texts {
        let interface = capture.add_interface(text);
        capture.add_names(&[([198, 18, 0, 1].into(), text.clone())]);
        let (headers, payload, direction) = (&[0; 54], b"payload", Direction::Inbound);
        let packet = Packet { time: TIME, direction, headers, payload, payload_len: 7, comment: text };
        capture.interface(interface).packet(&packet).unwrap();
    }
    capture.finish().unwrap();
    let bytes = fs::read(&path).unwrap();
    for part in ["\x1b[", "\u{202e}", "\u{9b}3", "\u{feff}", "\r\u{9b}"] {
        assert!(!contains(&bytes, part.as_bytes()), "{part:?} in the capture");
    }
    CAPINFOS.run([&path], &[]);
    TCPDUMP.run([Path::new("-n"), Path::new("-r"), &path], &[]);
    let fields = ["-T", "json", "-e", "frame.comment", "-e", "frame.interface_name", "-e", "frame.cap_len"];
    let run = TSHARK.run(["-r", path.to_str().unwrap()].into_iter().chain(fields), &[]);
    let frames: Vec<Value> = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!(frames.len(), texts.len());
    for (frame, text) in frames.iter().zip(&texts) {
        let field = |name: &str| frame["_source"]["layers"][name][0].as_str().unwrap();
        assert_eq!(field("frame.cap_len"), "61");
        let (comment, interface) = (field("frame.comment"), field("frame.interface_name"));
        assert!(comment == text || comment.ends_with('…') || text.contains(EVIL), "{} bytes", text.len());
        expect_harmless("comment", comment.as_bytes());
        expect_harmless("interface", interface.as_bytes());
        assert!(!interface.contains('\n'));
    }
    // The text is escaped once, and keeps its lines.
    let last = frames[texts.len() - 1]["_source"]["layers"]["frame.comment"][0].as_str().unwrap();
    assert!(last.starts_with("two\nlines \\u{1b}[2J\\u{1b}]0;owned\\u{7}"), "{last}");
}

/// Only the program adds lines to a comment.
#[test]
fn a_file_name_adds_no_line_to_a_comment() {
    let dir = Dir::new("forged-line");
    let name = "forged.pb, trace_id 1\nsynthesized: nothing\u{1b}.pb";
    let trace = dir.create(name, talk(downstream()));
    let output = dir.join("out.pcapng");
    convert(&[], &trace, &output).run().expect_clean();
    let comment = tshark::read(&output)[0].comments.concat();
    assert!(comment.contains("trace forged.pb, trace_id 1\\u{a}synthesized: nothing\\u{1b}.pb, "), "{comment}");
    assert_eq!(comment.matches("\nsynthesized").count(), 1, "{comment}");
}

/// JSON may go to a terminal as well, and its escapes still mean the same.
#[test]
fn json_is_printed_in_printable_ascii() {
    let dir = Dir::new("json-escapes");
    let name = "\u{9b}31m\u{202e}\u{e0041}\u{7f}";
    let connection = Connection { local_address: pipe(&format!("/run/{name}")), ..downstream() };
    let input = dir.create(&format!("{name}.pb"), Dress::Binary.file(&streamed(1, connection, [read(TIME, b"x")])));
    for command in ["info", "validate"] {
        let run = tap2pcap().args(&[command, "--json"]).arg(&input).run().expect_status(0);
        assert!(run.stdout_text().bytes().all(|byte| matches!(byte, b'\n' | b' '..=b'~')), "{run:?}");
        let object: serde_json::Value = serde_json::from_str(run.stdout_text().lines().next().unwrap()).unwrap();
        assert_eq!(object["path"].as_str(), input.to_str());
    }
}
