//! Redaction, against secrets that are planted wherever a trace may have them: none of them, in any form, may be in any
//! output. Without redaction all of them are found, so that the search is known to find them.

mod addresses;
mod corpus;
mod cuts;
mod differences;
mod finder;
mod http1;
mod http2;
mod limits;
mod opaque;
mod outputs;
mod random;
mod secrets;
mod taps;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
};

use self::{
    corpus::{Conversation, Corpus, Events, Grade, corpus, interleaved, traces},
    finder::Finder,
    outputs::{Found, REDACT, capture, in_capture, in_json},
    secrets::Secret,
};
use crate::{
    fixture::{self, Dress},
    util::{Dir, on_all_cores, tap2pcap},
};

/// The secrets with their kinds and places, for a message.
fn names(secrets: &[Secret], indexes: impl IntoIterator<Item = usize>) -> String {
    let line = |index: usize| {
        let secret = &secrets[index];
        format!("\n  {} in {}: {}", secret.kind, secret.place, secret.text)
    };
    indexes.into_iter().map(line).collect()
}

#[track_caller]
fn expect_none(what: &str, secrets: &[Secret], found: &BTreeSet<usize>) {
    assert!(found.is_empty(), "{what} has {} secrets:{}", found.len(), names(secrets, found.iter().copied()));
}

#[track_caller]
fn expect_all(what: &str, secrets: &[Secret], expected: impl IntoIterator<Item = usize>, found: &BTreeSet<usize>) {
    let missing: Vec<_> = expected.into_iter().filter(|index| !found.contains(index)).collect();
    assert!(missing.is_empty(), "{what} lacks {} secrets:{}", missing.len(), names(secrets, missing.iter().copied()));
}

impl Corpus {
    fn finder(&self) -> Finder {
        Finder::new(&self.secrets)
    }

    /// The secrets of conversations.
    fn of(&self, wanted: impl Fn(&Conversation) -> bool) -> Vec<usize> {
        self.conversations.iter().filter(|conversation| wanted(conversation)).flat_map(|c| c.secrets.clone()).collect()
    }

    /// One trace with all conversations at once.
    fn trace(&self, events: Events) -> Vec<u8> {
        Dress::Delimited.file(&interleaved(traces(&self.conversations, events)))
    }

    fn is_text(conversation: &Conversation) -> bool {
        conversation.pieces.iter().all(|piece| std::str::from_utf8(&piece.bytes).is_ok())
    }
}

#[test]
fn the_corpus_has_every_kind_of_secret() {
    let corpus = corpus();
    let texts: BTreeSet<&str> = corpus.secrets.iter().map(|secret| secret.text.as_str()).collect();
    assert!(texts.len() == corpus.secrets.len() && texts.len() >= 200, "{}", texts.len());
    let mut kinds: BTreeMap<&str, BTreeMap<&str, usize>> = BTreeMap::new();
    for secret in &corpus.secrets {
        assert!(!secret.place.is_empty(), "{secret:?}");
        *kinds.entry(secret.place).or_default().entry(&secret.kind).or_default() += 1;
    }
    for (place, kinds) in &kinds {
        let kinds: Vec<_> = kinds.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        println!("{place}: {}", kinds.join(", "));
    }
    println!("{} secrets, {} conversations", texts.len(), corpus.conversations.len());
}

#[test]
fn without_redaction_every_secret_is_found() {
    let dir = Dir::new("redact-off");
    let corpus = corpus();
    let finder = corpus.finder();
    let input = dir.create("trace_1.pb_length_delimited", corpus.trace(Events::Whole));
    let found = Found::in_all(&dir, &finder, &[], &input);
    let all = || corpus.of(|_| true);
    expect_all("pcapng", &corpus.secrets, all(), &found.pcapng);
    expect_all("pcap", &corpus.secrets, all(), &found.pcap);
    // What is packed or in pieces is in no single packet.
    let dumped = corpus.of(|conversation| conversation.grade != Grade::Packed);
    expect_all("tshark -V -x", &corpus.secrets, dumped, &found.dissection);
    let in_exchanges = |secret: &usize| !NOT_IN_EXCHANGES.contains(&corpus.secrets[*secret].kind.as_str());
    let understood = || corpus.of(|conversation| conversation.grade != Grade::Opaque).into_iter().filter(in_exchanges);
    expect_all("HAR", &corpus.secrets, understood(), &found.har);
    // Trailers of requests are no attribute.
    let no_trailers = ["trailer", "authorization trailer", "h2 request trailer", "tap request trailer"];
    let attribute = |secret: &usize| !no_trailers.contains(&corpus.secrets[*secret].kind.as_str());
    expect_all("http --json", &corpus.secrets, understood().filter(attribute), &found.json);
    expect_all("tables", &corpus.secrets, understood().filter(attribute), &found.tables);
    let targets = ["query", "h2 query", "h2 indexed path", "h2 promised path"];
    let in_table = |secret: &usize| {
        let kind = corpus.secrets[*secret].kind.as_str();
        targets.contains(&kind) || (kind.starts_with("query ") && !kind.contains("percent"))
    };
    expect_all("http", &corpus.secrets, all().into_iter().filter(in_table), &found.table);

    let input = dir.create("taps_1.pb_length_delimited", Dress::Delimited.file(&corpus.taps));
    let found = Found::in_all(&dir, &finder, &[], &input);
    for (output, found) in &found.each()[..4] {
        let packed = |secret: &usize| *output != "tshark -V -x" || corpus.secrets[*secret].kind != "tap gzip";
        expect_all(output, &corpus.secrets, corpus.tap_secrets.clone().filter(packed), found);
    }
    expect_all("http --json", &corpus.secrets, corpus.tap_secrets.clone().filter(attribute), &found.json);
}

/// What is of no request or response: of the connection, of messages after an upgrade, or lost on the way.
const NOT_IN_EXCHANGES: [&str; 9] = [
    "chunk extension",
    "last chunk extension",
    "100 header",
    "103 link",
    "103 set-cookie",
    "websocket close reason",
    "h2 103 link",
    "h2 103 set-cookie",
    "h2c switch",
];

#[test]
fn no_secret_is_in_any_output() {
    let dir = Dir::new("redact-on");
    let corpus = corpus();
    let finder = corpus.finder();
    let sockets = corpus.trace(Events::Whole);
    for (what, trace) in [("sockets", sockets), ("HTTP taps", Dress::Delimited.file(&corpus.taps))] {
        let input = dir.create("trace_1.pb_length_delimited", trace);
        let found = Found::in_all(&dir, &finder, &REDACT, &input);
        let leaks: Vec<_> = found.each().into_iter().filter(|(_, found)| !found.is_empty()).collect();
        let text: String = leaks
            .iter()
            .map(|(output, found)| format!("\n{output}:{}", names(&corpus.secrets, found.iter().copied())))
            .collect();
        assert!(leaks.is_empty(), "{what}:{text}");
    }
}

/// Each connection alone, so that nothing of one hides what is wrong with another.
#[test]
fn no_secret_is_in_the_capture_of_any_conversation() {
    let dir = Dir::new("redact-each");
    let corpus = corpus();
    let finder = corpus.finder();
    let leaks = on_all_cores(&corpus.conversations, |conversation| {
        let trace = traces(std::slice::from_ref(conversation), Events::Whole).concat();
        in_capture(&finder, &outputs::redacted(&dir, &REDACT, &Dress::Delimited.file(&trace)))
    });
    expect_none("a capture", &corpus.secrets, &leaks.into_iter().flatten().collect());
}

#[test]
fn no_secret_is_in_captures_of_any_format() {
    let dir = Dir::new("redact-formats");
    let corpus = corpus();
    let finder = corpus.finder();
    let mut runs: Vec<(String, Vec<u8>)> = Vec::new();
    let whole = interleaved(traces(&corpus.conversations, Events::Whole));
    for dress in Dress::ALL {
        runs.push((format!("{dress:?}"), dress.file(&[whole.as_slice(), &corpus.taps].concat())));
    }
    // Bodies as strings.
    let text: Vec<_> = corpus.conversations.iter().filter(|c| Corpus::is_text(c)).cloned().collect();
    let strings = fixture::as_strings(&interleaved(traces(&text, Events::Whole)));
    runs.push(("strings".into(), Dress::Json.file(&strings)));
    for events in [Events::Of(1), Events::Of(7), Events::Random(1), Events::Random(1000)] {
        runs.push((format!("{events:?}"), corpus.trace(events)));
    }
    for (dress, events) in
        [(Dress::Binary, Events::Of(3)), (Dress::DenseText, Events::Of(7)), (Dress::DenseJson, Events::Of(7))]
    {
        let messages = interleaved(traces(&corpus.conversations, events));
        runs.push((format!("{dress:?} {events:?}"), dress.file(&messages)));
    }
    for kept in [1, 30, 64, 100, 150] {
        runs.push((format!("cut at {kept}"), corpus.trace(Events::Cut(kept))));
    }
    // One event each, buffered.
    let buffered: Vec<_> = corpus
        .conversations
        .iter()
        .enumerate()
        .map(|(index, conversation)| {
            fixture::buffered(
                index as u64 + 1,
                conversation.connection(index),
                conversation.events(index, Events::Whole),
            )
        })
        .collect();
    runs.push(("buffered".into(), Dress::Delimited.file(&buffered)));
    let leaks = on_all_cores(&runs, |(what, trace)| {
        let found = in_capture(&finder, &outputs::redacted(&dir, &REDACT, trace));
        (!found.is_empty()).then(|| format!("\n{what}:{}", names(&corpus.secrets, found)))
    });
    let leaks: String = leaks.into_iter().flatten().collect();
    assert!(leaks.is_empty(), "{leaks}");
}

#[test]
fn all_bodies_are_taken_out_on_request() {
    let dir = Dir::new("redact-bodies");
    let mut builder = corpus::Builder::new(23);
    builder.http1(
        "bodies",
        Grade::Plain,
        &[
            "> POST /1 HTTP/1.1\nHost: a\nContent-Type: text/plain\nContent-Length: LEN\n\nhello ‹plain text›",
            "< HTTP/1.1 200 OK\nContent-Type: application/octet-stream\nTransfer-Encoding: chunked\n\nhello ‹octets› \
         hello ‹octets›",
            "> POST /2 HTTP/1.1\nHost: a\nContent-Type: application/json\nContent-Length: LEN\n\n{\"comment\": \"‹json \
         comment›\", \"‹json name›\": [\"‹json item›\"]}",
            "< HTTP/1.1 200 OK\nContent-Type: application/x-www-form-urlencoded\nContent-Length: LEN\n\ncomment=‹form \
         comment›&‹form name›=1",
            "> POST /3 HTTP/1.1\nHost: a\nContent-Encoding: gzip\nContent-Length: LEN\n\n‹gzip text› and more text",
            "< HTTP/1.0 200 OK\nContent-Type: image/png\n\n‹until the end›",
        ],
    );
    let mut pieces = [
        "> GET /c HTTP/1.1\nHost: a\nConnection: Upgrade\nUpgrade: websocket\nSec-WebSocket-Version: \
                       13\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\n\n",
        "< HTTP/1.1 101 Switching Protocols\nUpgrade: websocket\nConnection: Upgrade\nSec-WebSocket-Accept: \
         s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\n\n",
    ]
    .map(|template| builder.piece(template))
    .to_vec();
    let mut of = |template: &str| builder.planter.expand(template).into_bytes();
    pieces.push(corpus::client(http1::ws_frame(0x81, Some([1, 2, 3, 4]), &of("hello ‹websocket text›"))));
    pieces.push(corpus::server(http1::ws_frame(0x82, None, &of("hello ‹websocket octets›"))));
    pieces.push(corpus::server(http1::ws_frame(0x89, None, &of("‹websocket ping›"))));
    builder.add("websocket bodies", Grade::Plain, pieces);
    let mut h2 = http2::H2::new();
    let mut of = |template: &str| builder.planter.expand(template).into_bytes();
    h2.post(1, "/s.S/M", &[("content-type", "application/grpc", 0)]);
    let text = of("‹grpc message›");
    h2.data(true, 1, &[&[0, 0, 0, 0, 22, 0x0a, 20], text.as_slice()].concat(), true);
    h2.respond(1, &[("content-type", "text/html", 0)], false);
    h2.data(false, 1, &of("<p>‹h2 html› <p>‹h2 html›"), true);
    builder.add("http2 bodies", Grade::Plain, h2.pieces);

    let (secrets, conversations) = (builder.planter.secrets, builder.conversations);
    let finder = Finder::new(&secrets);
    let trace = Dress::Delimited.file(&interleaved(traces(&conversations, Events::Whole)));
    let input = dir.create("trace_1.pb_length_delimited", trace);
    let all = Found::in_all(&dir, &finder, &[], &input);
    expect_all("pcapng", &secrets, 0..secrets.len(), &all.pcapng);
    let found = Found::in_all(&dir, &finder, &["--redact", "--redact-bodies"], &input);
    for (output, found) in found.each() {
        expect_none(output, &secrets, found);
    }
    for events in [Events::Of(1), Events::Of(7), Events::Cut(100)] {
        let trace = Dress::Delimited.file(&interleaved(traces(&conversations, events)));
        let capture = outputs::redacted(&dir, &["--redact", "--redact-bodies"], &trace);
        expect_none(&format!("{events:?}"), &secrets, &in_capture(&finder, &capture));
    }
}

/// What the options say is kept, is kept, and what they say is secret is not.
#[test]
fn options_change_what_is_secret() {
    let dir = Dir::new("redact-options");
    let corpus = corpus();
    let finder = corpus.finder();
    let trace = corpus.trace(Events::Whole);
    let found = |options: &[&str]| in_capture(&finder, &outputs::redacted(&dir, options, &trace));
    let of_kind = |kind: &str| {
        let index = corpus.secrets.iter().position(|secret| secret.kind == kind);
        index.unwrap_or_else(|| panic!("no {kind}"))
    };
    let usual = found(&["--redact"]);
    let added: BTreeSet<_> = (0..corpus.secrets.len())
        .filter(|index| corpus.secrets[*index].kind.ends_with("added header") && !corpus.tap_secrets.contains(index))
        .collect();
    assert_eq!(usual, added, "{}", names(&corpus.secrets, usual.clone()));
    let kept = found(&[&REDACT[..], &["--keep-header", "X-Api-Key"]].concat());
    expect_all("kept", &corpus.secrets, [of_kind("x-api-key")], &kept);
    assert!(!kept.contains(&of_kind("bearer")) && !kept.contains(&of_kind("cookie")));
    let unknown = found(&[&REDACT[..], &["--redact-keep-unknown"]].concat());
    let kinds = ["unknown protocol client", "redis password", "client in a tunnel", "TLS client data"];
    expect_all("unknown", &corpus.secrets, kinds.map(of_kind), &unknown);
    assert!(!unknown.contains(&of_kind("bearer")));
}

#[test]
fn the_report_counts_without_values() {
    let dir = Dir::new("redact-report");
    let corpus = corpus();
    let finder = corpus.finder();
    let input = dir.create("trace_1.pb_length_delimited", corpus.trace(Events::Whole));
    let report = dir.join("report.json");
    let options = [&REDACT[..], &["--redact-report", report.to_str().unwrap()]].concat();
    capture(&options, &[input], &dir.join("out.pcapng"));
    let text = fs::read(&report).unwrap();
    assert!(text.len() > 500, "{}", String::from_utf8_lossy(&text));
    let mut found = in_json(&finder, &text);
    finder.search(&text, &mut found);
    expect_none("the report", &corpus.secrets, &found);
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let dir = Dir::new("redact-same");
    let corpus = corpus();
    let inputs: Vec<PathBuf> = (0..4)
        .map(|part| {
            let conversations: Vec<_> = corpus.conversations.iter().skip(part).step_by(4).cloned().collect();
            let trace = interleaved(traces(&conversations, Events::Random(part as u64)));
            dir.create(&format!("trace_{part}.pb_length_delimited"), Dress::Delimited.file(&trace))
        })
        .collect();
    for suffix in ["pcapng", "pcap", "har"] {
        let outputs = ["1", "1", "4"].map(|jobs| {
            let output = dir.fresh().join(format!("out.{suffix}"));
            capture(&[&REDACT[..], &["--jobs", jobs]].concat(), &inputs, &output);
            fs::read(output).unwrap()
        });
        assert!(outputs[0] == outputs[1] && outputs[0] == outputs[2], "{suffix}");
    }
    let lines = ["1", "1", "4"].map(|jobs| {
        let command = tap2pcap().args(&["http", "--json", "--jobs", jobs]).args(&REDACT);
        inputs.iter().fold(command, |command, input| command.arg(input)).run().expect_no_panic().stdout
    });
    assert!(lines[0] == lines[1] && lines[0] == lines[2]);
}
