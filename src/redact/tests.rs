//! Traces, written again: what is no secret stays, whatever the events are.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::Cursor,
    path::{Path, PathBuf},
    sync::Arc,
};

use proptest::prelude::*;

use super::{RedactStage, Redaction};
use crate::{
    input::{Advance, Source, SourceOptions},
    timeline::{Data, Direction, EntryKind, TimelineOptions, Timelines, TrueLength},
    trace::Findings,
};

/// Bytes of each connection and direction, with a question mark for each missing byte.
type Streams = BTreeMap<(usize, usize), Vec<u8>>;

fn add(streams: &mut Streams, number: usize, kind: &EntryKind<Data<'_>>) {
    match kind {
        EntryKind::Data(data) => {
            let stream = streams.entry((number, data.direction.index())).or_default();
            stream.extend_from_slice(data.payload);
            let (TrueLength::Known(length) | TrueLength::MoreThan(length) | TrueLength::Unframed(length)) = data.length;
            stream.resize(stream.len() + (length as usize).saturating_sub(data.payload.len()), b'?');
        }
        EntryKind::Gap { direction, bytes, .. } => {
            let stream = streams.entry((number, direction.index())).or_default();
            stream.resize(stream.len() + *bytes as usize, b'?');
        }
        EntryKind::Opened | EntryKind::Closed { .. } | EntryKind::Abandoned => {}
    }
}

/// The bytes of a trace before and after.
fn rewritten(source: Source, redaction: Redaction) -> (Streams, Streams) {
    let (mut before, mut after) = (Streams::new(), Streams::new());
    let mut timelines = Timelines::new(source, TimelineOptions::default());
    let mut stage = RedactStage::new(Arc::new(redaction));
    let mut findings = Findings::default();
    let mut numbers = BTreeMap::new();
    loop {
        match timelines.advance(&mut findings) {
            Advance::Message => {}
            Advance::NeedInput => {
                timelines.fill(&mut findings);
                continue;
            }
            Advance::End => break,
        }
        let Some(entry) = timelines.entry() else { continue };
        let count = numbers.len();
        if let EntryKind::Opened = entry.kind {
            numbers.insert(entry.connection, count);
        }
        let number = numbers[&entry.connection];
        add(&mut before, number, &entry.kind);
        stage.entry(&timelines);
        for index in 0..stage.len() {
            let written = stage.written(index, entry).unwrap();
            assert_eq!((written.time, written.connection), (entry.time, entry.connection));
            add(&mut after, number, &written.kind);
        }
    }
    (before, after)
}

/// The traces below a directory.
fn traces(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            traces(&path, found);
        } else {
            found.push(path);
        }
    }
}

fn real_streams() -> Vec<(PathBuf, Streams, Streams)> {
    let mut found = Vec::new();
    traces(Path::new("testdata/envoy"), &mut found);
    found.sort();
    let read = |path: PathBuf| {
        let source = Source::open(&path, SourceOptions::default()).ok()?;
        let (before, after) = rewritten(source, lenient());
        Some((path, before, after))
    };
    found.into_iter().filter_map(read).collect()
}

/// Keeps everything but secrets.
fn lenient() -> Redaction {
    Redaction { keep_unknown: true, ..Redaction::default() }
}

#[test]
fn traces_without_secrets_stay_as_they_are() {
    let mut same = 0;
    for (path, before, after) in real_streams() {
        for (key, bytes) in before.iter().filter(|(_, bytes)| !bytes.is_empty()) {
            assert!(after.get(key) == Some(bytes), "{} {key:?}", path.display());
            same += 1;
        }
    }
    assert!(same > 50, "{same}");
}

/// A streamed trace of one connection.
fn trace(events: &[(Direction, &[u8], usize)]) -> Source {
    let mut text = String::from(
        r#"{"socket_streamed_trace_segment": {"trace_id": "7", "connection": {
            "local_address": {"socket_address": {"address": "10.0.0.2", "port_value": 8080}},
            "remote_address": {"socket_address": {"address": "10.0.0.1", "port_value": 50000}}}}}"#,
    );
    let mut seq_num = 1;
    for (direction, bytes, cut) in events {
        let kind = if *direction == Direction::Inbound { "read" } else { "write" };
        let body = base64_simd::STANDARD.encode_to_string(&bytes[..bytes.len() - cut]);
        let truncated = *cut > 0;
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            r#"{{"socket_streamed_trace_segment": {{"trace_id": "7", "event": {{"seq_num": "{seq_num}",
                "timestamp": "2026-01-31T12:00:00Z",
                "{kind}": {{"data": {{"as_bytes": "{body}", "truncated": {truncated}}}}}}}}}}}"#
        );
        seq_num += bytes.len();
    }
    Source::from_reader("x".as_ref(), Box::new(Cursor::new(text.into_bytes())), SourceOptions::default()).unwrap()
}

/// One connection of a real trace, cut into events.
fn cut_up() -> impl Strategy<Value = (Vec<(Direction, Vec<u8>)>, bool)> {
    let streams: Vec<_> = real_streams()
        .into_iter()
        // JSON_BODY_AS_STRING destroys HTTP/2.
        .filter(|(path, ..)| !path.to_string_lossy().contains("STRING"))
        .filter_map(|(_, before, _)| {
            let half = |index: usize| before.get(&(0, index)).cloned().unwrap_or_default();
            let (read, written) = (half(0), half(1));
            let is_http2 = read.starts_with(b"PRI") || written.starts_with(b"PRI");
            (read.len() + written.len() > 0 && !read.contains(&b'?')).then_some((read, written, is_http2))
        })
        .collect();
    let sizes = || proptest::collection::vec(prop_oneof![Just(1_usize), 1..9_usize, 1..2000_usize], 1..200);
    (proptest::sample::select(streams), sizes(), sizes()).prop_map(|((read, written, is_http2), reads, writes)| {
        let cut = |direction, bytes: &[u8], sizes: Vec<usize>| {
            let mut pieces = Vec::new();
            let mut rest = bytes;
            for size in sizes {
                let (piece, after) = rest.split_at(size.min(rest.len()));
                rest = after;
                pieces.push((direction, piece.to_vec()));
            }
            pieces.push((direction, rest.to_vec()));
            pieces.retain(|(_, piece)| !piece.is_empty());
            pieces
        };
        // A response without its request has no body that can be told.
        let is_upstream = read.starts_with(b"HTTP/") || written.starts_with(b"PRI");
        let mut halves = [cut(Direction::Inbound, &read, reads), cut(Direction::Outbound, &written, writes)];
        if is_upstream {
            halves.reverse();
        }
        (halves.concat(), is_http2)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn however_bytes_are_cut_into_events_they_stay((events, _) in cut_up()) {
        let events: Vec<_> = events.iter().map(|(direction, bytes)| (*direction, bytes.as_slice(), 0)).collect();
        let (before, after) = rewritten(trace(&events), lenient());
        for (key, bytes) in &before {
            let written = after.get(key).map_or(&[][..], Vec::as_slice);
            let at = written.iter().zip(bytes).position(|(a, b)| a != b);
            prop_assert!(written == bytes, "{key:?}: {} and {} bytes, first at {at:?}\n{}\n{}\nEVENTS {:?}", bytes.len(), written.len(), bytes.escape_ascii(), written.escape_ascii(), events.iter().map(|e| (e.0, e.1.len())).collect::<Vec<_>>());
        }
    }

    #[test]
    fn every_byte_is_written_or_counted(
        (mut events, is_http2) in cut_up(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cuts in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..4),
    ) {
        for (event, at, byte) in changes {
            let (_, bytes) = event.get_mut(&mut events);
            *at.get_mut(bytes) = byte;
        }
        let mut missing = vec![0; events.len()];
        for (event, count) in cuts {
            let event = event.index(events.len());
            missing[event] = count.index(events[event].1.len());
        }
        let events: Vec<_> = events.iter().zip(&missing).map(|((direction, bytes), cut)| (*direction, bytes.as_slice(), *cut)).collect();
        for keep_unknown in [false, true] {
            let (before, after) = rewritten(trace(&events), Redaction { keep_unknown, ..Redaction::default() });
            // Header blocks may change their length.
            if !is_http2 {
                let lens = |streams: &Streams| streams.iter().map(|(key, bytes)| (*key, bytes.len())).collect::<Vec<_>>();
                prop_assert_eq!(lens(&before), lens(&after), "EVENTS {:?}", events.iter().map(|e| (e.0, e.1.len(), e.2, e.1[..e.1.len().min(60)].escape_ascii().to_string())).collect::<Vec<_>>());
            }
        }
    }
}
