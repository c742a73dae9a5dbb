//! tcptrace and tcpflow follow TCP by code of their own.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use crate::{
    conversation::Skips,
    fixture::{TIME, closed, cut, downstream, positions, read, streamed, write},
    oracle::Kind,
    real_traces::Converted,
    tcp::{all, capture, follow},
    util::{Dir, TCPFLOW, TCPTRACE, convert, on_all_cores},
};

/// What tcptrace prints about a connection: one value, or one for each side.
fn tcptrace(capture: &Path) -> BTreeMap<String, Vec<String>> {
    let run = TCPTRACE.run(["-l", "-n", capture.to_str().unwrap()], &[]);
    assert!(run.stdout_text().contains("\n1 TCP connection traced:"), "{run:?}");
    let mut values: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in run.stdout_text().lines() {
        let line = line.replace('\t', "     ");
        let mut rest = line.trim();
        // The line is "key: value    key: value". A value may have several words, and the gaps are wide.
        while let Some((key, after)) = rest.split_once(':') {
            let after = after.trim_start();
            let value = after.split("  ").next().unwrap();
            values.entry(key.trim().to_owned()).or_default().push(value.trim().to_owned());
            rest = after[value.len()..].trim_start();
        }
    }
    values
}

/// The numbers of both sides: first the client's, which sent the first packet, and then the server's.
fn both(values: &BTreeMap<String, Vec<String>>, key: &str) -> [u64; 2] {
    let values = values.get(key).unwrap_or_else(|| panic!("no '{key}' in {values:#?}"));
    let [client, server] = values.as_slice() else { panic!("{key}: {values:?}") };
    [client, server].map(|value| value.split(' ').next().unwrap().parse().unwrap())
}

fn convert_all(dir: &Dir, all: &'static [Converted]) -> Vec<(&'static Converted, PathBuf)> {
    let own = dir.fresh();
    let work = |converted: &&'static Converted| {
        let sample = &converted.sample;
        let capture = own.join(format!("{}-{}.pcap", sample.version, sample.file_name()));
        convert(&[], &sample.path, &capture).run().expect_clean();
        (*converted, capture)
    };
    on_all_cores(&all.iter().collect::<Vec<_>>(), work)
}

#[test]
fn tcptrace_finds_every_connection_complete() {
    let dir = Dir::new("tcptrace");
    let captures = convert_all(&dir, all());
    on_all_cores(&captures, |(converted, capture)| {
        let name = &converted.sample.name;
        let values = tcptrace(capture);
        assert_eq!(values["complete conn"], ["yes"], "{name}");
        for key in ["rexmt data pkts", "rexmt data bytes", "outoforder pkts", "missed data", "zero win adv"] {
            assert_eq!(both(&values, key), [0, 0], "{name}: {key}");
        }
        // tcptrace counts the bytes and FINs that were sent.
        let conversation = follow(converted, Skips::Never);
        let [client, server] = conversation.halves.clone().map(|half| half.bytes());
        assert_eq!(both(&values, "unique bytes sent"), [client, server], "{name}");
        assert_eq!(both(&values, "actual data bytes"), [client, server], "{name}");
        assert_eq!(both(&values, "ttl stream length"), [client, server], "{name}");
        assert_eq!(values["SYN/FIN pkts sent"], ["1/1", "1/1"], "{name}");
        // tcptrace reads at most 65,535 bytes of a packet, and a frame of the largest segment is a few bytes longer.
        if converted.frames.iter().all(|frame| frame.cap_len < 65_536) {
            let lost =
                |from| conversation.data(from).into_iter().map(|frame| u64::from(frame.len - frame.cap_len)).sum();
            let lost: [u64; 2] = [lost(conversation.client), lost(conversation.server)];
            assert_eq!(both(&values, "truncated data"), lost, "{name}");
            assert!(converted.sample.limited || converted.sample.kind == "h2" || lost == [0, 0], "{name}: {lost:?}");
        }
    });
}

/// tcptrace reports a connection that is not complete.
#[test]
fn tcptrace_tells_what_is_not_complete() {
    let dir = Dir::new("tcptrace-wrong");
    let events = positions([
        (read(TIME, b"one"), 3),
        (cut(read(TIME + 1000, b"two")), 300),
        (write(TIME + 2000, b"three"), 5),
        (read(TIME + 3000, b"four"), 4),
        (closed(TIME + 4000), 0),
    ]);
    let messages = streamed(1, downstream(), events);
    let stops = tcptrace(&capture(&dir, &[], &messages[..3]));
    assert!(stops["complete conn"][0].starts_with("no"), "{stops:#?}");
    let skips = tcptrace(&capture(&dir, &["--truncated", "gap"], &messages));
    assert_eq!(both(&skips, "missed data"), [297, 0]);
    let snap = tcptrace(&capture(&dir, &[], &messages));
    assert_eq!(both(&snap, "missed data"), [0, 0]);
    assert_eq!(both(&snap, "truncated data"), [297, 0]);
    assert_eq!(both(&snap, "ttl stream length"), [307, 5]);
}

/// The files of tcpflow by the port of the sending side. Their names contain both sides.
fn tcpflow(dir: &Dir, capture: &Path) -> BTreeMap<u16, Vec<u8>> {
    let out = dir.fresh();
    TCPFLOW.run(["-q", "-r", capture.to_str().unwrap(), "-o", out.to_str().unwrap()], &[]);
    let mut flows = BTreeMap::new();
    for entry in fs::read_dir(&out).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if name == "report.xml" {
            continue;
        }
        let (from, _) = name.split_once('-').unwrap_or_else(|| panic!("{name}"));
        let port = from.rsplit_once('.').unwrap().1.parse().unwrap();
        assert_eq!(flows.insert(port, fs::read(&path).unwrap()), None, "{name}");
    }
    flows
}

#[test]
fn tcpflow_extracts_what_was_logged() {
    let dir = Dir::new("tcpflow");
    let whole = |(converted, _): &(&Converted, PathBuf)| converted.frames.iter().all(|f| f.len == f.cap_len);
    let captures: Vec<_> = convert_all(&dir, all()).into_iter().filter(whole).collect();
    assert!(captures.len() > 130, "{}", captures.len());
    let logged = on_all_cores(&captures, |(converted, capture)| {
        let name = &converted.sample.name;
        let flows = tcpflow(&dir, capture);
        for kind in [Kind::Read, Kind::Write] {
            let expected = converted.trace.bytes(kind);
            let port = converted.of(kind)[0].src.unwrap().port();
            let bytes = flows.get(&port).cloned().unwrap_or_default();
            assert!(bytes == expected, "{name}: {kind:?}: {} bytes, {} expected", bytes.len(), expected.len());
            if let (false, Some(truth)) = (converted.sample.limited, converted.truth()) {
                assert!(if kind == Kind::Read { &truth.read } else { &truth.write }.are(&bytes), "{name}: {kind:?}");
            }
        }
        converted.truth().is_some()
    });
    assert!(logged.iter().filter(|logged| **logged).count() > 60);
}

/// Zeros stand for lost bytes, and all other bytes are at their true places.
#[test]
fn tcpflow_extracts_zeros_for_lost_bytes() {
    let dir = Dir::new("tcpflow-zero");
    let truncated: Vec<_> = all()
        .iter()
        .filter(|c| c.sample.kind == "trunc" && c.sample.streaming && c.sample.version == "1.40.0")
        .collect();
    assert_eq!(truncated.len(), 4);
    for converted in truncated {
        let name = &converted.sample.name;
        let output = dir.fresh().join("out.pcap");
        convert(&["--truncated", "zero"], &converted.sample.path, &output).run().expect_clean();
        let flows = tcpflow(&dir, &output);
        let truth = converted.truth().unwrap();
        for (kind, truth) in [(Kind::Read, &truth.read), (Kind::Write, &truth.write)] {
            let bytes = &flows[&converted.of(kind)[0].src.unwrap().port()];
            let truth = truth.bytes.as_ref().unwrap();
            assert_eq!(bytes.len(), truth.len(), "{name}: {kind:?}");
            assert!(bytes.iter().zip(truth).all(|(byte, truth)| *byte == 0 || byte == truth), "{name}: {kind:?}");
            let kept = bytes.iter().filter(|byte| **byte != 0).count();
            assert!(kept + 50 > converted.trace.bytes(kind).len(), "{name}: {kind:?} {kept}");
        }
    }
}
