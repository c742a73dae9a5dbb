//! Events that wait: for the next one, which tells how long they were, or to be joined to it.

use super::{ConnectionId, JoinedEvents, Record, TrueLength};
use crate::trace::{Event, Nanos, Place};

/// An event whose true length the next one tells. Its bytes are in [`Holding::bytes`].
#[derive(Debug)]
pub(super) struct HeldEvent {
    pub(super) connection: ConnectionId,
    pub(super) time: Nanos,
    pub(super) seq_num: u64,
    /// Where its message begins.
    pub(super) place: Place,
    /// Its length is that of its own bytes, until more is known.
    pub(super) record: Record<(), ()>,
}

/// A held event that goes on its way; its bytes are in [`Holding::released`].
#[derive(Debug)]
pub(super) struct Released {
    pub(super) held: HeldEvent,
    /// Its own length, without that of an event which it was joined to.
    pub(super) length: TrueLength,
}

/// A whole event that waits for the cut one after it. Its bytes are in [`Holding::bytes`].
#[derive(Clone, Copy, Debug)]
struct First {
    time: Nanos,
    len: u64,
}

/// What waits of one source, which is one event at most, or two that are joined.
#[derive(Debug, Default)]
pub(super) struct Holding {
    held: Option<HeldEvent>,
    first: Option<First>,
    bytes: Vec<u8>,
    released: Vec<u8>,
    released_place: Place,
}

impl Holding {
    /// Nothing waits.
    #[inline]
    pub(super) fn is_idle(&self) -> bool {
        self.held.is_none() && self.first.is_none()
    }

    /// The connection of the event that waits to be told its length.
    pub(super) fn held_connection(&self) -> Option<ConnectionId> {
        self.held.as_ref().map(|held| held.connection)
    }

    /// A whole event waits for the cut one after it, which comes next.
    pub(super) fn awaits_joined(&self) -> bool {
        self.first.is_some()
    }

    /// The bytes of the event that was released last.
    #[inline]
    pub(super) fn released(&self) -> &[u8] {
        &self.released
    }

    /// Where its message begins.
    pub(super) fn released_place(&self) -> Place {
        self.released_place
    }

    /// Keeps a whole event until the cut one after it comes.
    pub(super) fn begin_joined(&mut self, time: Nanos, payload: &[u8]) {
        self.bytes.clear();
        self.bytes.extend_from_slice(payload);
        self.first = Some(First { time, len: payload.len() as u64 });
    }

    /// Keeps an event, joined to the one that waits for it if there is one.
    pub(super) fn hold(&mut self, mut held: HeldEvent, payload: &[u8]) {
        match self.first.take() {
            Some(First { time, len }) => {
                held.record.joined = Some(JoinedEvents { first: len, time: held.time });
                held.time = time;
            }
            None => self.bytes.clear(),
        }
        self.bytes.extend_from_slice(payload);
        self.held = Some(held);
    }

    /// Lets the held event go. `next` is the position of the event that follows it on its connection, where known.
    pub(super) fn release(&mut self, next: Option<u64>) -> Option<Released> {
        let held = self.held.as_ref()?;
        let len = self.bytes.len() as u64 - held.record.joined.map_or(0, |joined| joined.first);
        let length = match next {
            Some(next) => true_length(held.seq_num, next, len, held.record.truncated),
            None if held.record.truncated => TrueLength::MoreThan(len),
            None => TrueLength::Known(len),
        };
        self.release_as(length)
    }

    /// Lets the held event go; `length` is its own.
    pub(super) fn release_as(&mut self, length: TrueLength) -> Option<Released> {
        let mut held = self.held.take()?;
        std::mem::swap(&mut self.bytes, &mut self.released);
        self.released_place = held.place;
        let first = held.record.joined.map_or(0, |joined| joined.first);
        held.record.length = length.map(|own| own.saturating_add(first));
        Some(Released { held, length })
    }
}

/// The position up to which bytes must have come before this event; 0 where the trace has no positions. Envoy counts
/// one more before it numbers `closed`.
pub(super) fn first_missing(event: &Event) -> u64 {
    match event.kind {
        crate::trace::EventKind::Closed => event.seq_num.saturating_sub(1),
        _ => event.seq_num,
    }
}

/// The length of an event that starts at `seq_num`, when the next one starts at `next`.
pub(super) fn true_length(seq_num: u64, next: u64, present: u64, truncated: bool) -> TrueLength {
    match next.checked_sub(seq_num) {
        Some(length) if length >= present => TrueLength::Known(length),
        // The positions contradict the bytes: the bytes are there.
        _ if truncated => TrueLength::MoreThan(present),
        _ => TrueLength::Known(present),
    }
}
