//! Traces of real Envoys, written again.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{RedactStage, Redaction};
use crate::{
    input::{Advance, Source, SourceOptions},
    timeline::{EntryKind, TimelineOptions, Timelines},
    trace::Findings,
};

/// Bytes of each connection and direction, with a question mark for each missing byte.
type Streams = BTreeMap<(usize, usize), Vec<u8>>;

fn add(streams: &mut Streams, number: usize, kind: &EntryKind<crate::timeline::Data<'_>>) {
    if let EntryKind::Data(data) = kind {
        let stream = streams.entry((number, data.direction.index())).or_default();
        stream.extend_from_slice(data.payload);
        if let crate::timeline::TrueLength::Known(length) = data.length {
            stream.resize(stream.len() + (length as usize).saturating_sub(data.payload.len()), b'?');
        }
    }
}

/// The bytes of a trace before and after.
fn rewritten(path: &Path, redaction: Redaction) -> (Streams, Streams) {
    let (mut before, mut after) = (Streams::new(), Streams::new());
    let Ok(source) = Source::open(path, SourceOptions::default()) else { return (before, after) };
    let mut timelines = Timelines::new(source, TimelineOptions::default());
    let mut stage = RedactStage::new(Arc::new(redaction));
    let mut findings = Findings::default();
    let mut numbers = BTreeMap::new();
    let mut count = 0;
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
        if let EntryKind::Opened = entry.kind {
            numbers.insert(entry.connection, count);
            count += 1;
        }
        let number = numbers[&entry.connection];
        add(&mut before, number, &entry.kind);
        stage.entry(&timelines);
        for index in 0..stage.len() {
            add(&mut after, number, &stage.written(index, entry).unwrap().kind);
        }
    }
    (before, after)
}

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

#[test]
fn bytes_without_secrets_stay() {
    let mut found = Vec::new();
    traces(Path::new(&std::env::var("TRACES").unwrap_or("testdata/envoy".into())), &mut found);
    let mut same = 0;
    for path in found {
        let (before, after) = rewritten(&path, Redaction { keep_unknown: true, ..Redaction::default() });
        for (key, bytes) in &before {
            if bytes.is_empty() {
                continue;
            }
            let written = after.get(key).map_or(&[][..], Vec::as_slice);
            if written == bytes {
                same += 1;
                continue;
            }
            let at = written.iter().zip(bytes).position(|(a, b)| a != b);
            eprintln!("{} {key:?}: {} {} at {at:?}", path.display(), bytes.len(), written.len());
        }
    }
    eprintln!("{same}");
}
