//! Events that wait for the next one: it tells their length, or is joined to them.

use super::{ConnectionId, JoinedEvents, Record, TrueLength};
use crate::trace::{Event, Nanos, Place};

/// An event that waits for the next one, which tells its true length. Its bytes are in [`Holding::bytes`].
#[derive(Debug)]
pub(super) struct HeldEvent {
    pub(super) connection: ConnectionId,
    pub(super) time: Nanos,
    pub(super) seq_num: u64,
    /// Where its message begins.
    pub(super) place: Place,
    /// The length in it counts only the event's own bytes until more is known.
    pub(super) record: Record<(), ()>,
}

/// A held event that was released. Its bytes are in [`Holding::released`].
#[derive(Debug)]
pub(super) struct Released {
    pub(super) held: HeldEvent,
    /// The event's own length, without that of an event it was joined to.
    pub(super) length: TrueLength,
}

/// A whole event that waits for the cut one after it. Its bytes are in [`Holding::bytes`].
#[derive(Clone, Copy, Debug)]
struct First {
    time: Nanos,
    len: u64,
}

/// The event of a source that waits, or the two that are joined.
#[derive(Debug, Default)]
pub(super) struct Holding {
    held: Option<HeldEvent>,
    first: Option<First>,
    bytes: Vec<u8>,
    released: Vec<u8>,
    released_place: Place,
}

impl Holding {
    /// Whether no event waits.
    #[inline]
    pub(super) fn is_idle(&self) -> bool {
        self.held.is_none() && self.first.is_none()
    }

    /// The connection of the event that waits for its length.
    pub(super) fn held_connection(&self) -> Option<ConnectionId> {
        self.held.as_ref().map(|held| held.connection)
    }

    /// Whether a whole event waits for the cut one after it, which comes next.
    pub(super) fn awaits_joined(&self) -> bool {
        self.first.is_some()
    }

    /// The bytes of the event that was released last.
    #[inline]
    pub(super) fn released(&self) -> &[u8] {
        &self.released
    }

    /// Where the message of the event that was released last begins.
    pub(super) fn released_place(&self) -> Place {
        self.released_place
    }

    /// Keeps a whole event until the cut one after it comes.
    pub(super) fn begin_joined(&mut self, time: Nanos, payload: &[u8]) {
        self.bytes.clear();
        self.bytes.extend_from_slice(payload);
        self.first = Some(First { time, len: payload.len() as u64 });
    }

    /// Keeps an event. If a whole event waits for it, the two are joined.
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

    /// Releases the held event. `next` is the `seq_num` at which the next event of its connection starts, if known.
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

    /// Releases the held event, whose own length is `length`.
    pub(super) fn release_as(&mut self, length: TrueLength) -> Option<Released> {
        let mut held = self.held.take()?;
        std::mem::swap(&mut self.bytes, &mut self.released);
        self.released_place = held.place;
        let first = held.record.joined.map_or(0, |joined| joined.first);
        held.record.length = length.map(|own| own.saturating_add(first));
        Some(Released { held, length })
    }
}

/// The `seq_num` up to which all bytes must have come before this event, or 0 if the trace has no `seq_num`. That of
/// `closed` is one too high, because Envoy adds one before it writes it.
pub(super) fn first_missing(event: &Event) -> u64 {
    match event.kind {
        crate::trace::EventKind::Closed => event.seq_num.saturating_sub(1),
        _ => event.seq_num,
    }
}

/// The length of an event that starts at `seq_num` when the next one starts at `next`.
pub(super) fn true_length(seq_num: u64, next: u64, present: u64, truncated: bool) -> TrueLength {
    match next.checked_sub(seq_num) {
        Some(length) if length >= present => TrueLength::Known(length),
        // If the numbers contradict the bytes, the bytes count, because they are there.
        _ if truncated => TrueLength::MoreThan(present),
        _ => TrueLength::Known(present),
    }
}
