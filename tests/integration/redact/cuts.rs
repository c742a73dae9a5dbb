//! Traces that end, begin or lack bytes in the middle of a secret.

use std::collections::{BTreeMap, BTreeSet};

use tap2pcap::proto::tap::{SocketEvent, socket_event::EventSelector};

use super::{
    corpus::{Conversation, Corpus, Events, Piece, corpus},
    finder::Finder,
    names,
    outputs::{self, REDACT, in_capture},
};
use crate::{
    fixture::{Dress, cut, read, streamed, write},
    util::{Dir, on_all_cores},
};

/// So many bytes after a secret.
const AFTER: usize = 3;

/// So many bytes before a secret, where most names begin.
const NAME: usize = 24;

/// The places at which a conversation is cut: a piece, and a byte of it.
fn places(finder: &Finder, conversation: &Conversation, before: usize) -> Vec<(usize, usize)> {
    let mut seen = BTreeSet::new();
    let mut places = Vec::new();
    for (index, piece) in conversation.pieces.iter().enumerate() {
        for hit in finder.hits(&piece.bytes) {
            seen.insert(hit.secret);
            let range = hit.bytes.start.saturating_sub(before)..=(hit.bytes.end + AFTER).min(piece.bytes.len());
            places.extend(range.map(|byte| (index, byte)));
        }
    }
    // Secrets that no single piece shows are packed, in pieces, or an index: they may be anywhere.
    if conversation.secrets.clone().any(|secret| !seen.contains(&secret)) || conversation.name == "http2 dynamic table"
    {
        let all = conversation.pieces.iter().enumerate();
        places.extend(all.flat_map(|(index, piece)| (0..=piece.bytes.len()).map(move |byte| (index, byte))));
    }
    places.sort_unstable();
    places.dedup();
    places
}

/// A variant of a conversation, and its events.
type Variant = fn(&Conversation, usize, usize, usize) -> Vec<SocketEvent>;

#[track_caller]
fn expect_no_leak(test: &str, before: usize, variant: Variant) {
    let dir = Dir::new(test);
    let corpus = corpus();
    let finder = corpus.finder();
    let variants: Vec<(usize, usize, usize)> = corpus
        .conversations
        .iter()
        .enumerate()
        .flat_map(|(index, conversation)| {
            places(&finder, conversation, before).into_iter().map(move |(piece, byte)| (index, piece, byte))
        })
        .collect();
    println!("{} traces", variants.len());
    let parts: Vec<_> = variants.chunks(1000).collect();
    let found = on_all_cores(&parts, |part| leaks(&dir, &corpus, &finder, part, variant));
    // One trace for each secret that was found.
    let mut examples: BTreeMap<usize, String> = BTreeMap::new();
    for (part, found) in parts.iter().zip(found) {
        for secret in found {
            examples.entry(secret).or_insert_with(|| {
                let mut part = *part;
                while let [_, _, ..] = part {
                    let (one, other) = part.split_at(part.len() / 2);
                    part = if leaks(&dir, &corpus, &finder, one, variant).contains(&secret) { one } else { other };
                }
                format!("{}{}", names(&corpus.secrets, [secret]), example(&dir, &corpus, &finder, part[0], variant))
            });
        }
    }
    assert!(examples.is_empty(), "{}", examples.into_values().collect::<String>());
}

/// What was cut where, and what was written.
fn example(dir: &Dir, corpus: &Corpus, finder: &Finder, place: (usize, usize, usize), variant: Variant) -> String {
    let (conversation, piece, byte) = place;
    let bytes = &corpus.conversations[conversation].pieces[piece].bytes;
    let (before, after) = (&bytes[byte.saturating_sub(20)..byte], &bytes[byte..bytes.len().min(byte + 50)]);
    let mut out = format!(", piece {piece}, byte {byte}: {} | {}", before.escape_ascii(), after.escape_ascii());
    let trace = trace(corpus, &[place], variant);
    for stream in outputs::streams(&outputs::redacted(dir, &REDACT, &trace)) {
        if let Some(hit) = finder.hits(&stream).first() {
            let (start, end) = (hit.bytes.start.saturating_sub(60), stream.len().min(hit.bytes.end + 30));
            out.push_str(&format!("\n    written: {}", stream[start..end].escape_ascii()));
        }
    }
    out
}

/// A trace with each variant.
fn trace(corpus: &Corpus, part: &[(usize, usize, usize)], variant: Variant) -> Vec<u8> {
    let mut trace = Vec::new();
    for (index, (conversation, piece, byte)) in part.iter().enumerate() {
        let conversation = &corpus.conversations[*conversation];
        let events = variant(conversation, index, *piece, *byte);
        trace.extend(streamed(index as u64 + 1, conversation.connection(index), events));
    }
    Dress::Delimited.file(&trace)
}

fn leaks(
    dir: &Dir,
    corpus: &Corpus,
    finder: &Finder,
    part: &[(usize, usize, usize)],
    variant: Variant,
) -> BTreeSet<usize> {
    in_capture(finder, &outputs::redacted(dir, &REDACT, &trace(corpus, part, variant)))
}

#[test]
fn a_trace_may_end_at_any_byte_of_a_secret() {
    expect_no_leak("redact-ends", 3, |conversation, index, piece, byte| {
        let mut events = conversation.before(piece, byte).events(index, Events::Whole);
        // No close.
        events.pop();
        events
    });
}

/// What follows is there, and says how many bytes are missing.
#[test]
fn an_event_may_be_cut_at_any_byte_of_a_secret() {
    expect_no_leak("redact-cut", 3, |conversation, index, piece, byte| {
        let mut events = conversation.events(index, Events::Whole);
        // Without the bytes, an event says nothing.
        let kept = conversation.before(piece, byte).events(index, Events::Whole);
        if let [.., last, _] = kept.as_slice()
            && kept.len() == piece + 2
        {
            let mut last = cut(last.clone());
            last.seq_num = events[piece].seq_num;
            events[piece] = last;
        }
        events
    });
}

#[test]
fn a_trace_may_begin_at_any_byte_of_a_secret() {
    expect_no_leak("redact-begins", NAME, |conversation, index, piece, byte| {
        conversation.after(piece, byte).events(index, Events::Whole)
    });
}

/// Two events with the cut between them.
#[test]
fn a_secret_may_be_in_two_events() {
    expect_no_leak("redact-two", 3, |conversation, index, piece, byte| {
        let mut two = conversation.clone();
        let rest = two.pieces[piece].bytes.split_off(byte);
        let client = two.pieces[piece].client;
        two.pieces.insert(piece + 1, Piece { client, bytes: rest });
        two.events(index, Events::Whole)
    });
}

/// The bytes go on after a hole, with the rest of a name or of a secret.
#[test]
fn bytes_may_be_missing_before_and_in_a_secret() {
    expect_no_leak("redact-holes", NAME, |conversation, index, piece, byte| {
        let mut two = conversation.clone();
        let client = two.pieces[piece].client;
        let rest = two.pieces[piece].bytes.split_off(byte);
        let missing = rest.len().min(1 + byte % 9);
        let kept = two.pieces[piece].bytes.clone();
        // What is missing is in the first of the events, for the positions to count it.
        two.pieces[piece].bytes.extend(&rest[..missing]);
        two.pieces.insert(piece + 1, Piece { client, bytes: rest[missing..].to_vec() });
        let mut events = two.events(index, Events::Whole);
        let whole = &mut events[piece];
        let event = match whole.event_selector {
            Some(EventSelector::Write(_)) => write(0, &kept),
            _ => read(0, &kept),
        };
        *whole = SocketEvent { timestamp: whole.timestamp, seq_num: whole.seq_num, ..cut(event) };
        // Envoy has numbered events since 1.37 only.
        if index % 2 == 1 {
            events.iter_mut().for_each(|event| event.seq_num = 0);
        }
        events
    });
}
