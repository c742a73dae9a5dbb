//! What is written in the place of an entry's bytes.

use std::ops::Range;

use crate::{
    timeline::{Data, Direction, TrueLength},
    trace::ReplayNote,
};

/// Bytes of one direction, and how many missing ones follow them.
#[derive(Clone, Debug)]
struct Segment {
    direction: Direction,
    bytes: Range<usize>,
    missing: u64,
    /// How many of the missing ones were taken out.
    withheld: u64,
    /// Whether it ends the entry.
    is_last: bool,
}

/// The bytes that stand for those of an entry.
#[derive(Debug, Default)]
pub(super) struct Out {
    bytes: Vec<u8>,
    segments: Vec<Segment>,
    /// Whether the bytes are one segment, as long as those of the entry.
    same: bool,
    /// The notes of the entry, without values.
    notes: Vec<ReplayNote>,
}

impl Out {
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.segments.clear();
        self.same = false;
        self.notes.clear();
    }

    /// How many segments there are.
    pub(super) fn len(&self) -> usize {
        self.segments.len()
    }

    /// How many bytes there are.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Room for bytes of a direction, at the end of the buffer.
    pub(super) fn room(&mut self, direction: Direction, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        write(&mut self.bytes);
        let end = self.bytes.len();
        if end <= start {
            return;
        }
        match self.segments.last_mut() {
            Some(last) if last.direction == direction && last.missing == 0 => last.bytes.end = end,
            _ => {
                let bytes = start..end;
                self.segments.push(Segment { direction, bytes, missing: 0, withheld: 0, is_last: false });
            }
        }
    }

    pub(super) fn write(&mut self, direction: Direction, bytes: &[u8]) {
        self.room(direction, |out| out.extend_from_slice(bytes));
    }

    /// Bytes that are not in the trace.
    pub(super) fn miss(&mut self, direction: Direction, bytes: u64) {
        self.leave_out(direction, bytes, 0);
    }

    /// Bytes that are taken out.
    pub(super) fn withhold(&mut self, direction: Direction, bytes: u64) {
        self.leave_out(direction, bytes, bytes);
    }

    fn leave_out(&mut self, direction: Direction, bytes: u64, withheld: u64) {
        if bytes == 0 {
            return;
        }
        let end = self.bytes.len();
        match self.segments.last_mut() {
            Some(last) if last.direction == direction => {
                last.missing = last.missing.saturating_add(bytes);
                last.withheld = last.withheld.saturating_add(withheld);
            }
            _ => self.segments.push(Segment { direction, bytes: end..end, missing: bytes, withheld, is_last: false }),
        }
    }

    /// All bytes of an event were written. What the event says besides belongs to the last segment of its direction.
    pub(super) fn end_event(&mut self, data: &Data<'_>) {
        self.notes.extend(data.notes.iter().map(ReplayNote::without_values));
        let says_more = data.end_stream
            || data.recording_stopped
            || !data.notes.is_empty()
            || !matches!(data.length, TrueLength::Known(_));
        if let Some(last) = self.segments.iter_mut().rev().find(|segment| segment.direction == data.direction) {
            last.is_last = true;
        } else if says_more {
            let end = self.bytes.len();
            let direction = data.direction;
            self.segments.push(Segment { direction, bytes: end..end, missing: 0, withheld: 0, is_last: true });
        }
        self.same =
            matches!(self.segments.as_slice(), [one] if one.withheld == 0 && one.bytes.len() == data.payload.len());
    }

    /// A segment as the bytes of an entry; `event` is the one that it was made of.
    pub(super) fn data<'a>(&'a self, number: usize, event: Option<&Data<'a>>) -> Option<Data<'a>> {
        let Segment { direction, bytes, missing, withheld, is_last } = self.segments.get(number)?;
        let payload = self.bytes.get(bytes.clone())?;
        if let (true, Some(event)) = (self.same, event) {
            return Some(Data { payload, notes: &self.notes, ..*event });
        }
        let known = (payload.len() as u64).saturating_add(*missing);
        let mut data = Data::whole(*direction, payload, known);
        data.withheld = *withheld;
        if let (true, Some(event)) = (*is_last, event) {
            data.truncated = event.truncated;
            data.end_stream = event.end_stream;
            data.recording_stopped = event.recording_stopped;
            data.notes = &self.notes;
            match event.length {
                TrueLength::Known(_) => {}
                TrueLength::MoreThan(_) => data.length = TrueLength::MoreThan(known),
                TrueLength::Unframed(_) => data.length = TrueLength::Unframed(known),
            }
        }
        Some(data)
    }
}
