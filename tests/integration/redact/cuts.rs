//! Traces that end, begin or lack bytes in the middle of a secret.

use std::collections::BTreeSet;

use super::{
    corpus::{Conversation, Corpus, Events, connection, corpus},
    expect_none,
    finder::Finder,
    outputs::{self, REDACT, in_capture},
};
use crate::{
    fixture::{Dress, cut, streamed},
    util::{Dir, on_all_cores},
};

/// So many bytes around a secret.
const AROUND: usize = 3;

/// The places at which a conversation is cut: a piece, and a byte of it.
fn places(finder: &Finder, conversation: &Conversation) -> Vec<(usize, usize)> {
    let mut seen = BTreeSet::new();
    let mut places = Vec::new();
    for (index, piece) in conversation.pieces.iter().enumerate() {
        for hit in finder.hits(&piece.bytes) {
            seen.insert(hit.secret);
            let range = hit.bytes.start.saturating_sub(AROUND)..=(hit.bytes.end + AROUND).min(piece.bytes.len());
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
type Variant = fn(&Conversation, usize, usize, usize) -> Vec<tap2pcap::proto::tap::SocketEvent>;

#[track_caller]
fn expect_no_leak(test: &str, variant: Variant) {
    let dir = Dir::new(test);
    let corpus = corpus();
    let finder = corpus.finder();
    let variants: Vec<(usize, usize, usize)> = corpus
        .conversations
        .iter()
        .enumerate()
        .flat_map(|(index, conversation)| {
            places(&finder, conversation).into_iter().map(move |(piece, byte)| (index, piece, byte))
        })
        .collect();
    println!("{} traces", variants.len());
    let parts: Vec<_> = variants.chunks(1000).collect();
    let found = on_all_cores(&parts, |part| leaks(&dir, &corpus, &finder, part, variant));
    expect_none("a capture", &corpus.secrets, &found.into_iter().flatten().collect());
}

fn leaks(
    dir: &Dir,
    corpus: &Corpus,
    finder: &Finder,
    part: &[(usize, usize, usize)],
    variant: Variant,
) -> BTreeSet<usize> {
    let mut trace = Vec::new();
    for (index, (conversation, piece, byte)) in part.iter().enumerate() {
        let events = variant(&corpus.conversations[*conversation], index, *piece, *byte);
        trace.extend(streamed(index as u64 + 1, connection(index), events));
    }
    in_capture(finder, &outputs::redacted(dir, &REDACT, &Dress::Delimited.file(&trace)))
}

#[test]
fn a_trace_may_end_at_any_byte_of_a_secret() {
    expect_no_leak("redact-ends", |conversation, index, piece, byte| {
        let mut events = conversation.before(piece, byte).events(index, Events::Whole);
        // No close.
        events.pop();
        events
    });
}

/// What follows is there, and says how many bytes are missing.
#[test]
fn an_event_may_be_cut_at_any_byte_of_a_secret() {
    expect_no_leak("redact-cut", |conversation, index, piece, byte| {
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
    expect_no_leak("redact-begins", |conversation, index, piece, byte| {
        conversation.after(piece, byte).events(index, Events::Whole)
    });
}

/// Two events with the cut between them.
#[test]
fn a_secret_may_be_in_two_events() {
    expect_no_leak("redact-two", |conversation, index, piece, byte| {
        let mut two = conversation.clone();
        let rest = two.pieces[piece].bytes.split_off(byte);
        let client = two.pieces[piece].client;
        two.pieces.insert(piece + 1, super::corpus::Piece { client, bytes: rest });
        two.events(index, Events::Whole)
    });
}
