//! The bytes of replayed exchanges and the entries that are made of them.
//!
//! What one side sends without an answer in between is one run of bytes, as long as it fits one packet: a head and
//! its body stand together, which also lets a dissector show both where the body is cut.

use std::collections::VecDeque;

use crate::{
    timeline::{Direction, Opening, TrueLength},
    trace::{Nanos, Span},
};

/// Bytes of a run; less than the payload of one IP packet.
const MAX_RUN: usize = 60_000;

/// A body of at least so many bytes stays where it is; copying a small one costs less than a packet of its own.
const LARGE: usize = 32_000;

/// Where the bytes of an entry are.
#[derive(Clone, Copy, Debug)]
pub(in crate::timeline) enum Place {
    /// In the replay's own buffer, from and to.
    Own(usize, usize),
    /// In the current message.
    Message(Span),
}

#[derive(Debug)]
pub(in crate::timeline) struct MadeData {
    pub(in crate::timeline) direction: Direction,
    pub(in crate::timeline) place: Place,
    pub(in crate::timeline) length: TrueLength,
    /// Bytes of it that are no body.
    pub(in crate::timeline) framing: u64,
    pub(in crate::timeline) truncated: bool,
    pub(in crate::timeline) as_string: bool,
    /// For people who read the capture.
    pub(in crate::timeline) note: String,
}

#[derive(Debug)]
pub(in crate::timeline) enum MadeKind {
    Opened(Box<Opening>),
    Data(MadeData),
    Gap { direction: Direction, bytes: u64 },
    Closed,
    Abandoned,
}

/// An entry of a timeline, before it has a slot there.
#[derive(Debug)]
pub(in crate::timeline) struct Made {
    pub(in crate::timeline) stream: usize,
    pub(in crate::timeline) time: Nanos,
    /// Offset and index of the message it comes from.
    pub(in crate::timeline) origin: (u64, u64),
    pub(in crate::timeline) kind: MadeKind,
}

/// What is missing behind the bytes that are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    Nothing,
    Bytes(u64),
    /// At least one byte, and nobody knows how many.
    Unknown,
}

/// Bytes of a body.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chunk<'a> {
    pub(super) bytes: &'a [u8],
    /// Where they are in the current message, if they are there.
    pub(super) span: Option<Span>,
    pub(super) truncated: bool,
    pub(super) as_string: bool,
}

impl<'a> Chunk<'a> {
    /// The first `count` bytes, and the rest.
    pub(super) fn split(self, count: usize) -> (Self, Self) {
        let (first, rest) = self.bytes.split_at(count);
        let spans = self.span.map(|span| span.split(count));
        (
            Chunk { bytes: first, span: spans.map(|(first, _)| first), ..self },
            Chunk { bytes: rest, span: spans.map(|(_, rest)| rest), ..self },
        )
    }
}

/// Who sends, when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct At {
    pub(super) stream: usize,
    pub(super) origin: (u64, u64),
    pub(super) direction: Direction,
    pub(super) time: Nanos,
}

#[derive(Debug)]
struct Run {
    at: At,
    start: usize,
    body: usize,
    truncated: bool,
    as_string: bool,
    note: String,
}

#[derive(Debug, Default)]
pub(super) struct Out {
    buffer: Vec<u8>,
    queue: VecDeque<Made>,
    run: Option<Run>,
}

impl Out {
    pub(super) fn next(&mut self) -> Option<Made> {
        self.queue.pop_front()
    }

    pub(super) fn bytes(&self, start: usize, end: usize) -> &[u8] {
        &self.buffer[start..end]
    }

    /// Forgets bytes of entries that were read.
    pub(super) fn forget(&mut self) {
        if self.queue.is_empty() && self.run.is_none() {
            self.buffer.clear();
        }
    }

    /// Goes on in this direction; the bytes follow in the buffer.
    pub(super) fn begin(&mut self, at: At) -> &mut Vec<u8> {
        let goes_on = self.run.as_ref().is_some_and(|run| {
            run.at.direction == at.direction && run.at.stream == at.stream && self.buffer.len() - run.start < MAX_RUN
        });
        if !goes_on {
            self.flush();
            let start = self.buffer.len();
            self.run = Some(Run { at, start, body: 0, truncated: false, as_string: false, note: String::new() });
        }
        &mut self.buffer
    }

    /// Body bytes, and what is missing behind them.
    pub(super) fn body(&mut self, at: At, chunk: Chunk<'_>, missing: Missing) {
        if let Some(span) = chunk.span
            && chunk.bytes.len() >= LARGE
        {
            let note = self.run.as_mut().filter(|run| run.start == self.buffer.len());
            let note = note.map(|run| std::mem::take(&mut run.note)).unwrap_or_default();
            self.flush();
            let present = chunk.bytes.len() as u64;
            let Chunk { truncated, as_string, .. } = chunk;
            let length = true_length(present, missing);
            let direction = at.direction;
            let data =
                MadeData { direction, place: Place::Message(span), length, framing: 0, truncated, as_string, note };
            self.push(at, MadeKind::Data(data));
            return;
        }
        let room = self.run.as_ref().map_or(MAX_RUN, |run| MAX_RUN.saturating_sub(self.buffer.len() - run.start));
        if chunk.bytes.len() > room {
            self.flush();
        }
        self.begin(at).extend_from_slice(chunk.bytes);
        if let Some(run) = &mut self.run {
            run.body += chunk.bytes.len();
            run.truncated |= chunk.truncated;
            run.as_string |= chunk.as_string;
        }
        if missing != Missing::Nothing {
            self.close(missing);
        }
    }

    /// Says something of the bytes that are being written.
    pub(super) fn note(&mut self, note: &str) {
        if let Some(run) = &mut self.run {
            if !run.note.is_empty() {
                run.note.push('\n');
            }
            run.note.push_str(note);
        }
    }

    pub(super) fn flush(&mut self) {
        self.close(Missing::Nothing);
    }

    fn close(&mut self, missing: Missing) {
        let Some(Run { at, start, body, truncated, as_string, note }) = self.run.take() else { return };
        let end = self.buffer.len();
        if start == end && missing == Missing::Nothing {
            return;
        }
        let present = (end - start) as u64;
        self.push(
            at,
            MadeKind::Data(MadeData {
                direction: at.direction,
                place: Place::Own(start, end),
                length: true_length(present, missing),
                framing: present - body as u64,
                truncated,
                as_string,
                note,
            }),
        );
    }

    pub(super) fn push(&mut self, at: At, kind: MadeKind) {
        let At { stream, origin, time, .. } = at;
        self.queue.push_back(Made { stream, time, origin, kind });
    }

    /// The opening of a stream, while nobody has read it.
    pub(super) fn opening(&mut self, stream: usize) -> Option<&mut Opening> {
        self.queue.iter_mut().rev().find_map(|made| match &mut made.kind {
            MadeKind::Opened(opening) if made.stream == stream => Some(&mut **opening),
            _ => None,
        })
    }
}

fn true_length(present: u64, missing: Missing) -> TrueLength {
    match missing {
        Missing::Nothing => TrueLength::Known(present),
        Missing::Bytes(bytes) => TrueLength::Known(present.saturating_add(bytes)),
        Missing::Unknown => TrueLength::MoreThan(present),
    }
}
