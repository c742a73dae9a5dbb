//! The same messages give the same capture, whatever the format they come in.

use std::{fs, path::Path};

use prost::Message;
use serde_json::{Value, json};

use crate::{
    fixture::{self, Dress},
    manifest::{Format, Sample, socket_samples, socket_samples_of},
    oracle, tshark,
    util::{Dir, convert, on_all_cores},
    wire::{self, Node},
};

/// Traces whose messages a plain protobuf decoder reads, so that they can be written in other formats.
fn binary_samples() -> Vec<Sample> {
    let binary = |sample: &Sample| matches!(sample.format, Format::Binary | Format::Delimited);
    let samples: Vec<_> = socket_samples().into_iter().filter(binary).collect();
    assert!(samples.len() > 60);
    samples
}

/// Writes `bytes` under `name` in a directory of its own, and converts it.
fn capture(dir: &Dir, options: &[&str], name: &str, bytes: &[u8], suffix: &str) -> Vec<u8> {
    let own = dir.fresh();
    let (input, output) = (own.join(name), own.join(format!("out.{suffix}")));
    fs::write(&input, bytes).unwrap();
    convert(options, &input, &output).run().expect_clean();
    fs::read(output).unwrap()
}

#[track_caller]
pub fn expect_same(dir: &Dir, what: &str, first: &[u8], second: &[u8], suffix: &str) {
    if first != second {
        let list = |name: &str, bytes: &[u8]| {
            let path = dir.fresh().join(format!("{name}.{suffix}"));
            fs::write(&path, bytes).unwrap();
            format!("{:#?}", tshark::read(&path))
        };
        panic!("{what}: captures differ\n{}\n\n{}", list("first", first), list("second", second));
    }
}

/// The inputs have the same name, because pcapng says which file a packet comes from.
#[test]
fn every_format_gives_the_same_capture() {
    let dir = Dir::new("formats");
    on_all_cores(&binary_samples(), |sample| {
        let messages = oracle::messages(&sample.bytes(), sample.format);
        let files = Dress::ALL.map(|dress| (dress, dress.file(&messages)));
        for (options, suffix) in [(&[][..], "pcapng"), (&["--tcp", "bare"], "pcap")] {
            let first = capture(&dir, options, sample.stem(), &sample.bytes(), suffix);
            for (dress, file) in &files {
                let other = capture(&dir, options, sample.stem(), file, suffix);
                expect_same(&dir, &format!("{} as {dress:?}", sample.name), &first, &other, suffix);
            }
        }
    });
}

/// The inputs have the names that Envoy gives. pcap does not show names.
#[test]
fn every_format_gives_the_same_pcap_under_its_own_name() {
    let dir = Dir::new("format-names");
    on_all_cores(&binary_samples(), |sample| {
        let messages = oracle::messages(&sample.bytes(), sample.format);
        let first = capture(&dir, &[], sample.file_name(), &sample.bytes(), "pcap");
        for dress in [Dress::Binary, Dress::Delimited, Dress::Text, Dress::Json] {
            let name = format!("{}.{}", sample.stem(), dress.suffix());
            let other = capture(&dir, &[], &name, &dress.file(&messages), "pcap");
            expect_same(&dir, &format!("{} as {dress:?}", sample.name), &first, &other, "pcap");
        }
    });
}

#[test]
fn strings_give_the_same_capture_as_bytes() {
    let dir = Dir::new("strings");
    for sample in socket_samples_of("1.40.0/h1_").into_iter().chain(socket_samples_of("1.36.2/h1_")) {
        if !matches!(sample.format, Format::Binary | Format::Delimited | Format::Text) {
            continue;
        }
        let messages = oracle::messages(&sample.bytes(), sample.format);
        let file = Dress::Json.file(&fixture::as_strings(&messages));
        // A streamed trace has lost its addresses.
        let trace = oracle::trace(&sample);
        let address = |name, address| format!("{name}={}", oracle::socket(address).unwrap());
        let local = address("local", trace.connection.local_address.as_ref());
        let remote = address("remote", trace.connection.remote_address.as_ref());
        let map: &[&str] = if sample.streaming { &["--map", &local, "--map", &remote] } else { &[] };
        let (bytes, none) = (sample.bytes(), &[][..]);
        let both = [(&bytes, none), (&file, map)];
        let [first, other] = both.map(|(file, options)| capture(&dir, options, sample.stem(), file, "pcap"));
        expect_same(&dir, &sample.name, &first, &other, "pcap");
        let [first, other] = both.map(|(file, options)| {
            let bytes = capture(&dir, options, sample.stem(), file, "pcapng");
            let path = dir.fresh().join("out.pcapng");
            fs::write(&path, bytes).unwrap();
            let mut frames = tshark::read(&path);
            if sample.streaming {
                // The comment says that the addresses were missing, which is true of one of the two only.
                frames[0].comments.clear();
                frames[0].expert.clear();
            }
            frames
        });
        assert_eq!(first, other, "{}", sample.name);
    }
}

#[test]
fn nanoseconds_survive_in_every_format() {
    let dir = Dir::new("nanoseconds");
    let times = [1, 2, 10, 999_999_999].map(|step| fixture::TIME + step);
    let events = times.map(|time| fixture::read(time, b"x"));
    let messages = fixture::streamed(3, fixture::downstream(), events);
    for dress in Dress::ALL {
        for suffix in ["pcap", "pcapng"] {
            let bytes = capture(&dir, &["--tcp", "bare"], "trace_3", &dress.file(&messages), suffix);
            let path = dir.fresh().join(format!("out.{suffix}"));
            fs::write(&path, bytes).unwrap();
            let found: Vec<_> = tshark::read(&path).iter().map(|frame| frame.time).collect();
            assert_eq!(found, times, "{dress:?} to {suffix}");
        }
    }
}

/// Before Envoy 1.28, `local_address` was 2 and `remote_address` 3.
#[test]
fn the_old_layout_gives_the_same_capture() {
    let dir = Dir::new("old-layout");
    let samples = binary_samples();
    assert!(samples.iter().any(|sample| sample.kind == "perevent") && samples.iter().any(|sample| sample.upstream));
    on_all_cores(&samples, |sample| {
        let messages: Vec<_> = oracle::messages(&sample.bytes(), sample.format)
            .iter()
            .map(|message| {
                wire::rewrite(&message.encode_to_vec(), Node::Wrapper, &|node, message| {
                    if node != Node::Connection {
                        return message;
                    }
                    let mut old = Vec::new();
                    for field in wire::fields(&message) {
                        wire::append_field(&mut old, field.number + 1, field.content.unwrap());
                    }
                    old
                })
            })
            .collect();
        let old = file_of(sample.format, &messages);
        assert_ne!(old, sample.bytes(), "{}: nothing rewritten", sample.name);
        let [first, second] =
            [&sample.bytes(), &old].map(|file| capture(&dir, &[], sample.file_name(), file, "pcapng"));
        expect_same(&dir, &sample.name, &first, &second, "pcapng");
    });
}

fn file_of(format: Format, messages: &[Vec<u8>]) -> Vec<u8> {
    let mut file = Vec::new();
    for message in messages {
        if format == Format::Delimited {
            wire::append_varint(&mut file, message.len() as u64);
        }
        file.extend_from_slice(message);
    }
    file
}

/// A newer Envoy may write more fields. They are skipped, and the user is told.
#[test]
fn unknown_fields_are_skipped_and_counted() {
    let dir = Dir::new("unknown-fields");
    for prefix in ["1.40.0/tcp_buf", "1.40.0/tcp_str", "1.40.0/minsent", "1.40.0/perevent_310"] {
        for sample in socket_samples_of(prefix) {
            let (file, count) = with_unknown_fields(&sample);
            let own = dir.fresh();
            let input = own.join(sample.file_name());
            let [first, second] = ["first.pcapng", "second.pcapng"].map(|name| own.join(name));
            convert(&[], &sample.path, &first).run().expect_clean();
            fs::write(&input, file).unwrap();
            let run = convert(&[], &input, &second).run().expect_status(0);
            assert!(count > 0);
            let run = run.expect_stderr(&format!("{}: {count} fields of a newer Envoy skipped", input.display()));
            assert_eq!(run.stderr.lines().count(), 1, "{run:?}");
            expect_same_files(&dir, &sample.name, &first, &second);
        }
    }
}

fn expect_same_files(dir: &Dir, what: &str, first: &Path, second: &Path) {
    expect_same(dir, what, &fs::read(first).unwrap(), &fs::read(second).unwrap(), "pcapng");
}

/// Adds an unknown field of each kind to every event. Returns how many there are in all.
fn with_unknown_fields(sample: &Sample) -> (Vec<u8>, u64) {
    let bytes = sample.bytes();
    let events = oracle::trace(sample).events.len() as u64;
    match sample.format {
        Format::Binary | Format::Delimited => {
            let messages = oracle::messages(&bytes, sample.format);
            let add = |node, mut message: Vec<u8>| {
                if node == Node::Event {
                    // A number, eight bytes, bytes, four bytes, and a group with a number inside.
                    wire::append_varint(&mut message, 900 << 3);
                    wire::append_varint(&mut message, u64::MAX);
                    wire::append_varint(&mut message, 901 << 3 | 1);
                    message.extend_from_slice(&[7; 8]);
                    wire::append_field(&mut message, 902, b"\x0a\xff\xff\xff");
                    wire::append_varint(&mut message, 903 << 3 | 5);
                    message.extend_from_slice(&[7; 4]);
                    for key in [904 << 3 | 3, 1 << 3, 5, 904 << 3 | 4] {
                        wire::append_varint(&mut message, key);
                    }
                }
                message
            };
            let messages: Vec<_> =
                messages.iter().map(|message| wire::rewrite(&message.encode_to_vec(), Node::Wrapper, &add)).collect();
            (file_of(sample.format, &messages), events * 5)
        }
        Format::Text => {
            let text = String::from_utf8(bytes).unwrap();
            let more =
                "shiny: \"a } \\\" b\" # }\nnested < list: [1, 2.5, -inf] inner { x: TRUE } >\n[ext.name] { a: 'b' }\n";
            let text = text.replace("timestamp {", &format!("{more}timestamp {{"));
            (text.into_bytes(), events * 3)
        }
        Format::JsonBytes | Format::JsonString => {
            let mut out = Vec::new();
            for message in serde_json::Deserializer::from_slice(&bytes).into_iter::<Value>() {
                let mut message = message.unwrap();
                add_to_events(&mut message);
                out.extend_from_slice(&serde_json::to_vec_pretty(&message).unwrap());
                out.push(b'\n');
            }
            (out, events * 3)
        }
    }
}

fn add_to_events(value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.values_mut().for_each(add_to_events);
            if object.contains_key("timestamp") {
                object.insert("shiny".into(), json!("a } \" \\ b"));
                object.insert("nested".into(), json!({"list": [1, 2.5, null, {"x": [[]]}], "event": {"seq_num": "7"}}));
                object.insert("aaa".into(), json!(null));
            }
        }
        Value::Array(array) => array.iter_mut().for_each(add_to_events),
        _ => {}
    }
}
