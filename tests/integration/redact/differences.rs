//! What is not secret stays as it is, and the capture stays sound.

use std::path::PathBuf;

use super::{
    corpus::{Conversation, Events, Grade, corpus, interleaved, traces},
    finder::Finder,
    outputs::{REDACT, capture},
};
use crate::{
    fixture::Dress,
    tshark,
    util::{Dir, TSHARK},
};

const DECODE: [&str; 2] = ["-d", "tcp.port==8080,http"];

/// Fields with several values each, and what each packet is.
const FIELDS: [&str; 26] = [
    "tcp.stream",
    "tcp.srcport",
    "frame.time_epoch",
    "tcp.flags",
    "_ws.col.Protocol",
    "http.request.method",
    "http.request.version",
    "http.host",
    "http.response.code",
    "http.response.phrase",
    "http.request.line",
    "http.response.line",
    "http.request.uri",
    "http2.type",
    "http2.streamid",
    "http2.flags",
    "http2.header.name",
    "http2.header.value",
    "http2.data.data",
    "websocket.opcode",
    "websocket.payload",
    "json.key",
    "json.value.string",
    "urlencoded-form.key",
    "urlencoded-form.value",
    "grpc.message_length",
];

const BETWEEN: char = '\u{1f}';

fn rows(capture: &std::path::Path) -> Vec<Vec<Vec<String>>> {
    let aggregator = format!("aggregator={BETWEEN}");
    let mut args = vec!["-r", capture.to_str().unwrap(), "-T", "fields", "-E", "separator=/t", "-E", &aggregator];
    args.extend(DECODE);
    args.extend(FIELDS.iter().flat_map(|field| ["-e", field]));
    let run = TSHARK.run(&args, &[]);
    let values = |cell: &str| cell.split(BETWEEN).map(str::to_owned).collect();
    run.stdout_text().lines().map(|line| line.split('\t').map(values).collect()).collect()
}

/// The captures of conversations without and with redaction.
fn captures(dir: &Dir, conversations: &[Conversation], events: Events) -> [PathBuf; 2] {
    // A role that shows in the first bytes alone does not show in a few of them.
    let downstream = |conversation: &Conversation| Conversation { upstream: false, ..conversation.clone() };
    let conversations: Vec<_> = conversations.iter().map(downstream).collect();
    let trace = Dress::Delimited.file(&interleaved(traces(&conversations, events)));
    let input = dir.create("trace_1.pb_length_delimited", trace);
    [("before", &[][..]), ("after", &REDACT[..])].map(|(name, options)| {
        let output = dir.fresh().join(format!("{name}.pcapng"));
        capture(options, std::slice::from_ref(&input), &output);
        output
    })
}

fn of(grades: &[Grade]) -> (Finder, Vec<Conversation>) {
    let corpus = corpus();
    let wanted = |conversation: &Conversation| grades.contains(&conversation.grade);
    (corpus.finder(), corpus.conversations.iter().filter(|conversation| wanted(conversation)).cloned().collect())
}

/// Whether a value may have changed: it has a secret, or its bytes do.
fn is_secret(finder: &Finder, value: &str) -> bool {
    let mut found = std::collections::BTreeSet::new();
    finder.search(value.as_bytes(), &mut found);
    finder.search_hex(value.as_bytes(), &mut found);
    !found.is_empty()
}

#[test]
fn nothing_but_secrets_changes() {
    let dir = Dir::new("redact-differences");
    let (finder, conversations) = of(&[Grade::Plain]);
    let [before, after] = captures(&dir, &conversations, Events::Whole).map(|capture| rows(&capture));
    assert_eq!(before.len(), after.len(), "the numbers of frames differ");
    let mut changed = 0;
    for (number, (before, after)) in before.iter().zip(&after).enumerate() {
        for ((field, before), after) in FIELDS.iter().zip(before).zip(after) {
            // A number becomes a string of the same length, which JSON wants.
            let is_number = |value: &String| *field == "json.value.string" && *value == "*".repeat(18);
            let after: Vec<_> = after.iter().filter(|value| !is_number(value)).collect();
            assert_eq!(before.len(), after.len(), "frame {}: {field}: {before:?} {after:?}", number + 1);
            for (before, after) in before.iter().zip(after).filter(|(before, after)| before != after) {
                changed += 1;
                assert!(is_secret(&finder, before), "frame {}: {field}: {before:?} became {after:?}", number + 1);
            }
        }
    }
    assert!(changed >= 150, "{changed}");
}

/// The expert items that tshark has for one capture.
fn doubts(capture: &std::path::Path) -> Vec<String> {
    let mut args = DECODE.to_vec();
    args.extend(["-Y", "_ws.malformed or _ws.expert.severity >= warning", "-T", "fields"]);
    args.extend(["-e", "tcp.stream", "-e", "frame.number", "-e", "_ws.expert.message", "-e", "frame.protocols"]);
    tshark::lines(capture, &args)
}

#[test]
fn redacted_captures_are_clean() {
    let dir = Dir::new("redact-clean");
    let (_, mut conversations) = of(&[Grade::Plain, Grade::Packed]);
    // Not every Wireshark knows Zstandard.
    conversations.retain(|conversation| conversation.name != "http1 zstd");
    for events in [Events::Whole, Events::Of(7), Events::Random(5)] {
        let [before, after] = captures(&dir, &conversations, events);
        let (before, after) = (doubts(&before), doubts(&after));
        // Wireshark cannot put together chunks and pipelined requests out of such small packets.
        let known: Vec<_> = before.iter().map(|line| line.split('\t').next()).collect();
        let new: Vec<_> = after.iter().filter(|line| !known.contains(&line.split('\t').next())).collect();
        assert!(
            new.is_empty() && known.len() <= if matches!(events, Events::Whole) { 0 } else { 3 },
            "{before:#?} {after:#?}"
        );
    }
}

/// Each frame of HTTP/2 is there, in its stream.
#[test]
fn http2_dissects_to_the_last_frame() {
    let dir = Dir::new("redact-last-frame");
    for (grade, events, with_data) in [
        (Grade::Plain, Events::Whole, true),
        (Grade::Plain, Events::Of(7), true),
        (Grade::Packed, Events::Whole, false),
        (Grade::Packed, Events::Of(7), false),
    ] {
        let (_, conversations) = of(&[grade]);
        let [before, after] = captures(&dir, &conversations, events);
        let frames = |capture: &std::path::Path| {
            let fields =
                ["-Y", "http2", "-T", "fields", "-e", "tcp.stream", "-e", "http2.type", "-e", "http2.streamid"];
            let mut streams: std::collections::BTreeMap<String, String> = std::collections::BTreeMap::new();
            for line in tshark::lines(capture, &[&DECODE[..], &fields].concat()) {
                let (stream, frames) = line.split_once('\t').unwrap();
                let (types, ids) = frames.split_once('\t').unwrap();
                // Bodies without their coding may have another number of frames.
                for (kind, id) in types.split(',').zip(ids.split(',')).filter(|(kind, _)| with_data || *kind != "0") {
                    streams.entry(stream.to_owned()).or_default().push_str(&format!("{kind}[{id}] "));
                }
            }
            streams
        };
        let (before, after) = (frames(&before), frames(&after));
        assert!(before.len() >= if with_data { 9 } else { 1 }, "{before:#?}");
        assert_eq!(before, after, "{events:?}");
    }
}
