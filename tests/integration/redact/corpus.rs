//! Conversations with planted secrets, in every place that redaction knows.

use std::ops::Range;

use tap2pcap::proto::tap::{Connection, SocketEvent, TraceWrapper};

use super::secrets::{Planter, Secret};
use crate::fixture::{self, TIME, closed, positions, read, socket, streamed, write};

/// What one side says at once.
#[derive(Clone, Debug)]
pub struct Piece {
    pub client: bool,
    pub bytes: Vec<u8>,
}

pub fn client(bytes: impl Into<Vec<u8>>) -> Piece {
    Piece { client: true, bytes: bytes.into() }
}

pub fn server(bytes: impl Into<Vec<u8>>) -> Piece {
    Piece { client: false, bytes: bytes.into() }
}

/// How much of a conversation a reader of HTTP understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grade {
    /// All of it.
    Plain,
    /// All of it, and bodies are packed, so that their redaction changes lengths and codings.
    Packed,
    /// A part, or nothing.
    Opaque,
}

#[derive(Clone, Debug)]
pub struct Conversation {
    pub name: &'static str,
    pub grade: Grade,
    pub pieces: Vec<Piece>,
    /// Envoy opened the connection, so that its client writes.
    pub upstream: bool,
    /// The indexes of its secrets.
    pub secrets: Range<usize>,
}

pub struct Corpus {
    pub secrets: Vec<Secret>,
    pub conversations: Vec<Conversation>,
    /// Traces of HTTP taps, which have no bytes of a connection.
    pub taps: Vec<TraceWrapper>,
    pub tap_secrets: Range<usize>,
}

/// Puts a corpus together.
pub struct Builder {
    pub planter: Planter,
    pub conversations: Vec<Conversation>,
}

impl Builder {
    pub fn new(seed: u64) -> Self {
        Self { planter: Planter::new(seed), conversations: Vec::new() }
    }

    pub fn add(&mut self, name: &'static str, grade: Grade, pieces: Vec<Piece>) {
        let secrets = self.planter.place(name);
        let upstream = self.conversations.len() % 3 == 2;
        self.conversations.push(Conversation { name, grade, pieces, upstream, secrets });
    }

    /// Adds a conversation of HTTP/1 messages. A template begins with `> ` or `< `, the direction.
    pub fn http1(&mut self, name: &'static str, grade: Grade, templates: &[&str]) {
        let pieces = templates.iter().map(|template| self.piece(template)).collect();
        self.add(name, grade, pieces);
    }

    pub fn piece(&mut self, template: &str) -> Piece {
        let (direction, template) = template.split_at(2);
        let bytes = super::http1::message(&self.planter.expand(template));
        Piece { client: direction == "> ", bytes }
    }
}

/// All conversations.
pub fn corpus() -> Corpus {
    let mut builder = Builder::new(17);
    super::http1::plant(&mut builder);
    super::http2::plant(&mut builder);
    super::opaque::plant(&mut builder);
    let taps = super::taps::plant(&mut builder.planter);
    let tap_secrets = builder.planter.place("HTTP taps");
    Corpus { secrets: builder.planter.secrets, conversations: builder.conversations, taps, tap_secrets }
}

/// How the bytes of a conversation are divided into events.
#[derive(Clone, Copy, Debug)]
pub enum Events {
    /// One for each piece.
    Whole,
    /// Each of this many bytes.
    Of(usize),
    /// Of random lengths.
    Random(u64),
    /// One for each piece, of which Envoy kept only so many bytes.
    Cut(usize),
}

impl Conversation {
    /// The events, and the end of the connection.
    pub fn events(&self, index: usize, events: Events) -> Vec<SocketEvent> {
        let mut planter = Planter::new(if let Events::Random(seed) = events { seed + index as u64 } else { 0 });
        let mut out = Vec::new();
        for piece in &self.pieces {
            let event =
                |bytes: &[u8], time| if piece.client == self.upstream { write(time, bytes) } else { read(time, bytes) };
            let mut rest = piece.bytes.as_slice();
            while !rest.is_empty() {
                let time = TIME + (out.len() as u64 + 1) * 1000 + index as u64;
                let len = match events {
                    Events::Whole | Events::Cut(_) => rest.len(),
                    Events::Of(len) => len.min(rest.len()),
                    Events::Random(_) => (1 + planter.below(40)).min(rest.len()),
                };
                let (bytes, after) = rest.split_at(len);
                out.push(match events {
                    Events::Cut(kept) if kept < len => (fixture::cut(event(&bytes[..kept], time)), len as u64),
                    _ => (event(bytes, time), len as u64),
                });
                rest = after;
            }
        }
        let end = TIME + (out.len() as u64 + 1) * 1000 + index as u64;
        positions(out.into_iter().chain([(closed(end), 0)]))
    }

    /// The ends of the connection, different ones for each index.
    pub fn connection(&self, index: usize) -> Connection {
        let client_ip = format!("192.0.{}.{}", index / 50_000 / 250, 1 + index / 50_000 % 250);
        let client = socket(&client_ip, 10_000 + u32::try_from(index % 50_000).unwrap());
        let server = socket("10.0.0.1", 8080);
        match self.upstream {
            true => Connection { local_address: client, remote_address: server },
            false => Connection { local_address: server, remote_address: client },
        }
    }

    /// A streamed trace.
    pub fn trace(&self, index: usize, events: Events) -> Vec<TraceWrapper> {
        streamed(index as u64 + 1, self.connection(index), self.events(index, events))
    }

    /// The pieces up to a byte of one of them.
    pub fn before(&self, piece: usize, byte: usize) -> Self {
        let mut pieces = self.pieces[..=piece].to_vec();
        pieces[piece].bytes.truncate(byte);
        Self { pieces, ..self.clone() }
    }

    /// The pieces from a byte of one of them.
    pub fn after(&self, piece: usize, byte: usize) -> Self {
        let mut pieces = self.pieces[piece..].to_vec();
        pieces[0].bytes.drain(..byte);
        Self { pieces, ..self.clone() }
    }
}

/// A streamed trace for each conversation, one after another.
pub fn traces(conversations: &[Conversation], events: Events) -> Vec<Vec<TraceWrapper>> {
    conversations.iter().enumerate().map(|(index, conversation)| conversation.trace(index, events)).collect()
}

/// The messages of several traces, taking turns.
pub fn interleaved(traces: Vec<Vec<TraceWrapper>>) -> Vec<TraceWrapper> {
    let mut traces: Vec<_> = traces.into_iter().map(Vec::into_iter).collect();
    let mut out = Vec::new();
    while !traces.is_empty() {
        traces.retain_mut(|trace| trace.next().map(|message| out.push(message)).is_some());
    }
    out
}
