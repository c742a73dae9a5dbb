//! The bytes of replayed exchanges, and the entries made of them.
//!
//! What one side sends without an answer in between is one run of bytes, if it fits one packet. So a head and its body
//! are in one packet, and a dissector can show both even if the body is cut.

use std::collections::VecDeque;

use crate::{
    timeline::{Direction, Opening, Record, TrueLength, entry::PayloadPlace},
    trace::{MessageView, Nanos, Place, ReplayNote, Span},
};

/// The most bytes of a run; fewer than the payload of one IP packet.
const MAX_RUN: usize = 60_000;

/// A body of at least this many bytes is not copied. A smaller one is, because a packet of its own costs more.
pub(super) const LARGE: usize = 32_000;

/// How much memory the notes on one run may take. Notes for which a comment has room take less.
const MAX_NOTES: usize = 32 << 10;

#[derive(Debug)]
pub(in crate::timeline) enum MadeKind {
    Opened(Box<Opening>),
    Data(Record<PayloadPlace, Vec<ReplayNote>>),
    /// A large body, which becomes several entries with data when they are read.
    Frames(Frames),
    Gap {
        direction: Direction,
        bytes: u64,
    },
    /// The exchange is over. If it is the `last`, no other one can follow on its connection.
    Ended {
        complete: bool,
        last: bool,
    },
}

/// A body in frames of one size. They are put together only when they are read, so that a body of any size is in memory
/// once.
#[derive(Debug)]
pub(in crate::timeline) struct Frames {
    direction: Direction,
    /// The rest of the body, in the current message.
    span: Span,
    size: usize,
    /// Writes a frame's header, given the length of its payload and whether it is the last frame.
    head: fn(&mut Vec<u8>, usize, bool),
    truncated: bool,
    as_string: bool,
    /// The end of the body is missing, and nothing stands for it.
    ends_early: bool,
    notes: Vec<ReplayNote>,
}

impl Frames {
    /// Writes as many whole frames as one run holds. Returns how many of the bytes are framing.
    fn take_run(&mut self, view: MessageView<'_>, out: &mut Vec<u8>) -> u64 {
        let start = out.len();
        let mut body = 0;
        while !self.span.is_empty() && (body == 0 || out.len() - start + self.size <= MAX_RUN) {
            let (part, rest) = self.span.split(self.size);
            self.span = rest;
            (self.head)(out, part.len(), rest.is_empty());
            out.extend_from_slice(view.bytes(part));
            body += part.len();
        }
        (out.len() - start - body) as u64
    }
}

/// An entry of the replay, before it has a connection of the source.
#[derive(Debug)]
pub(in crate::timeline) struct Made {
    pub(in crate::timeline) stream: usize,
    pub(in crate::timeline) time: Nanos,
    /// Where the entry's message begins.
    pub(in crate::timeline) origin: Place,
    pub(in crate::timeline) kind: MadeKind,
}

/// What is missing after the bytes that are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    Nothing,
    Bytes(u64),
    /// An unknown number of bytes, at least one.
    Unknown,
    /// An unknown number of bytes. The framing ends with the bytes that are there, so that a dissector shows them.
    Unframed,
}

/// Bytes of a body.
#[derive(Clone, Copy, Debug)]
pub(super) struct BodyChunk<'a> {
    pub(super) bytes: &'a [u8],
    /// Where the bytes are in the current message, if they are in it.
    pub(super) span: Option<Span>,
    pub(super) truncated: bool,
    pub(super) as_string: bool,
}

impl<'a> BodyChunk<'a> {
    /// The first `count` bytes, and the rest.
    pub(super) fn split(self, count: usize) -> (Self, Self) {
        let (first, rest) = self.bytes.split_at(count);
        let spans = self.span.map(|span| span.split(count));
        (
            BodyChunk { bytes: first, span: spans.map(|(first, _)| first), ..self },
            BodyChunk { bytes: rest, span: spans.map(|(_, rest)| rest), ..self },
        )
    }
}

/// Which side of which exchange sends, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sending {
    pub(super) stream: usize,
    pub(super) origin: Place,
    pub(super) direction: Direction,
    pub(super) time: Nanos,
}

#[derive(Debug)]
struct Run {
    at: Sending,
    /// Where its bytes begin in [`Out::buffer`].
    start: usize,
    body: usize,
    ends_early: bool,
    record: Record<(), Vec<ReplayNote>>,
}

#[derive(Debug, Default)]
pub(super) struct Out {
    buffer: Vec<u8>,
    /// Where in `buffer` the frames of the entry being read begin.
    frames: Option<usize>,
    queue: VecDeque<Made>,
    run: Option<Run>,
}

impl Out {
    /// The next entry. `view` is the message that spans refer to.
    pub(super) fn next(&mut self, view: MessageView<'_>) -> Option<Made> {
        let Some(Made { stream, time, origin, kind: MadeKind::Frames(frames) }) = self.queue.front_mut() else {
            return self.queue.pop_front();
        };
        let (stream, time, origin, direction) = (*stream, *time, *origin, frames.direction);
        let start = *self.frames.get_or_insert(self.buffer.len());
        self.buffer.truncate(start);
        let framing = frames.take_run(view, &mut self.buffer);
        let end = self.buffer.len();
        let is_last = frames.span.is_empty();
        let present = (end - start) as u64;
        let ends_early = is_last && frames.ends_early;
        let data = Record {
            length: if ends_early { TrueLength::Unframed(present) } else { TrueLength::Known(present) },
            framing,
            truncated: is_last && frames.truncated,
            as_string: frames.as_string,
            notes: std::mem::take(&mut frames.notes),
            ..Record::whole(direction, PayloadPlace::Replay(start, end), present)
        };
        if is_last {
            self.queue.pop_front();
        }
        Some(Made { stream, time, origin, kind: MadeKind::Data(data) })
    }

    pub(super) fn bytes(&self, start: usize, end: usize) -> &[u8] {
        &self.buffer[start..end]
    }

    /// Frees the bytes of entries that were read.
    pub(super) fn forget(&mut self) {
        if self.queue.is_empty() && self.run.is_none() {
            self.buffer.clear();
            self.frames = None;
        }
    }

    /// Continues the run in this direction, or begins a new one. The caller appends its bytes to the buffer.
    pub(super) fn begin(&mut self, at: Sending) -> &mut Vec<u8> {
        if let Some(start) = self.frames.take() {
            self.buffer.truncate(start);
        }
        let goes_on = self.run.as_ref().is_some_and(|run| {
            run.at.direction == at.direction && run.at.stream == at.stream && self.buffer.len() - run.start < MAX_RUN
        });
        if !goes_on {
            self.flush();
            let start = self.buffer.len();
            self.run = Some(Run { at, start, body: 0, ends_early: false, record: Record::whole(at.direction, (), 0) });
        }
        &mut self.buffer
    }

    /// Makes the next `len` bytes fit in one run.
    pub(super) fn together(&mut self, len: usize) {
        if self.run.as_ref().is_some_and(|run| self.buffer.len() - run.start + len > MAX_RUN) {
            self.flush();
        }
    }

    /// Takes the notes of the run, if the run has no bytes yet.
    fn take_notes(&mut self) -> Vec<ReplayNote> {
        let run = self.run.as_mut().filter(|run| run.start == self.buffer.len());
        run.map(|run| std::mem::take(&mut run.record.notes)).unwrap_or_default()
    }

    /// Adds a large body in frames of `size` bytes.
    pub(super) fn frames(
        &mut self,
        at: Sending,
        chunk: BodyChunk<'_>,
        span: Span,
        size: usize,
        head: fn(&mut Vec<u8>, usize, bool),
        ends_early: bool,
    ) {
        let notes = self.take_notes();
        self.flush();
        let BodyChunk { truncated, as_string, .. } = chunk;
        let frames = Frames { direction: at.direction, span, size, head, truncated, as_string, ends_early, notes };
        self.push(at, MadeKind::Frames(frames));
    }

    /// Ends the bytes that are being written if a part of the body in them was cut: what is missing is missing there, and
    /// not inside of an entry.
    pub(super) fn end_cut(&mut self) {
        if self.run.as_ref().is_some_and(|run| run.ends_early) {
            self.flush();
        }
    }

    /// Adds bytes of a body, and what is missing after them.
    pub(super) fn body(&mut self, at: Sending, chunk: BodyChunk<'_>, missing: Missing) {
        if let Some(span) = chunk.span
            && chunk.bytes.len() >= LARGE
        {
            let notes = self.take_notes();
            self.flush();
            let present = chunk.bytes.len() as u64;
            let BodyChunk { truncated, as_string, .. } = chunk;
            let data = Record {
                length: true_length(present, missing),
                truncated,
                as_string,
                notes,
                ..Record::whole(at.direction, PayloadPlace::Message(span), present)
            };
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
            run.record.truncated |= chunk.truncated;
            run.record.as_string |= chunk.as_string;
            run.ends_early |= missing == Missing::Unframed;
        }
        if !matches!(missing, Missing::Nothing | Missing::Unframed) {
            self.close(missing);
        }
    }

    /// Adds a note on the bytes that are being written.
    pub(super) fn note(&mut self, note: ReplayNote) {
        if let Some(run) = &mut self.run {
            add_note(&mut run.record.notes, note);
        }
    }

    pub(super) fn flush(&mut self) {
        self.close(Missing::Nothing);
    }

    fn close(&mut self, missing: Missing) {
        let Some(Run { at, start, body, ends_early, mut record }) = self.run.take() else { return };
        let end = self.buffer.len();
        let missing = if ends_early && missing == Missing::Nothing { Missing::Unframed } else { missing };
        if start == end && missing == Missing::Nothing {
            return;
        }
        let present = (end - start) as u64;
        record.length = true_length(present, missing);
        record.framing = present - body as u64;
        let notes = std::mem::take(&mut record.notes);
        self.push(at, MadeKind::Data(record.with(PayloadPlace::Replay(start, end), notes)));
    }

    pub(super) fn push(&mut self, at: Sending, kind: MadeKind) {
        let Sending { stream, origin, time, .. } = at;
        self.queue.push_back(Made { stream, time, origin, kind });
    }

    /// The opening of a stream, if it was not read yet.
    pub(super) fn opening(&mut self, stream: usize) -> Option<&mut Opening> {
        self.queue.iter_mut().rev().find_map(|made| match &mut made.kind {
            MadeKind::Opened(opening) if made.stream == stream => Some(&mut **opening),
            _ => None,
        })
    }
}

/// Adds a note, if there is room for it.
pub(super) fn add_note(notes: &mut Vec<ReplayNote>, note: ReplayNote) {
    if notes.last() == Some(&ReplayNote::More) {
        return;
    }
    let size = notes.iter().map(ReplayNote::size).sum::<usize>() + note.size();
    notes.push(if size < MAX_NOTES { note } else { ReplayNote::More });
}

fn true_length(present: u64, missing: Missing) -> TrueLength {
    match missing {
        Missing::Nothing => TrueLength::Known(present),
        Missing::Bytes(bytes) => TrueLength::Known(present.saturating_add(bytes)),
        Missing::Unknown => TrueLength::MoreThan(present),
        Missing::Unframed => TrueLength::Unframed(present),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::{FieldNames, HttpSide, UnfitFields};

    /// The most memory for the fewest letters: names of one letter.
    fn shortest_names() -> ReplayNote {
        let mut names = FieldNames::default();
        (0..FieldNames::MOST).for_each(|_| names.add(b"a"));
        ReplayNote::Unfit(UnfitFields::Escaped(HttpSide::Request, names))
    }

    #[test]
    fn notes_take_bounded_memory_and_say_that_there_are_more() {
        let mut names = FieldNames::default();
        (0..1000).for_each(|_| names.add(&[b'x'; 1 << 20]));
        let long = ReplayNote::ConnectionFields(HttpSide::Request, names);
        let added = ReplayNote::Added { side: HttpSide::Request, field: ":scheme http" };
        for note in [long, added, shortest_names()] {
            let mut notes = Vec::new();
            (0..10_000).for_each(|_| add_note(&mut notes, note.clone()));
            let size: usize = notes.iter().map(ReplayNote::size).sum();
            assert!(size < MAX_NOTES + size_of::<ReplayNote>(), "{size} bytes");
            assert_eq!(notes.iter().filter(|note| **note == ReplayNote::More).count(), 1);
            assert_eq!(notes.last(), Some(&ReplayNote::More));
        }
    }

    #[test]
    fn no_note_is_left_out_for_which_a_comment_has_room() {
        const ROOM: usize = 8 << 10;
        let mut notes = Vec::new();
        while notes.last() != Some(&ReplayNote::More) {
            add_note(&mut notes, shortest_names());
        }
        let words: usize = notes.iter().map(|note| note.to_string().len() + 1).sum();
        assert!(words > ROOM, "{words} bytes");
    }
}
