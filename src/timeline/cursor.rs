//! Where in a message of a socket trace its timelines are.

use super::{ConnectionId, Direction, hold::first_missing};
use crate::{
    input::{Peek, Source},
    trace::{Event, EventKind, Nanos, Place, TraceKind},
};

/// Events of a buffered trace that are looked at to tell who is the client.
const OPENING_EVENTS: usize = 16;

/// Goes through the events of the source's current message.
#[derive(Debug, Default)]
pub(super) struct MessageCursor {
    /// There may be more events.
    pub(super) in_message: bool,
    /// The index of the next one.
    pub(super) next: usize,
    /// The message is a buffered trace, and this its connection.
    pub(super) buffered: Option<ConnectionId>,
    /// That has an event for its end, which Envoy does not write there.
    pub(super) buffered_closed: bool,
}

impl MessageCursor {
    /// A message begins.
    pub(super) fn begin(&mut self, buffered: Option<ConnectionId>) {
        *self = Self { in_message: true, next: 0, buffered, buffered_closed: false };
    }

    /// The next event.
    pub(super) fn event(&self, source: &Source) -> Option<Event> {
        source.records().events.get(self.next).copied()
    }

    /// Where the message begins that the event being read comes from.
    pub(super) fn place(&self, source: &Source) -> Place {
        source.records().place_of(self.next.saturating_sub(1))
    }

    /// The position of the event after the one being read, if it is in the same message.
    pub(super) fn following_seq_num(&self, source: &Source) -> Option<u64> {
        let following = source.records().events.get(self.next)?;
        Some(first_missing(following)).filter(|seq_num| *seq_num != 0)
    }

    /// The first readable time after the next event: in this message, or else in the one after it.
    pub(super) fn following_time(
        &self,
        source: &mut Source,
        readable: impl Fn(&Event) -> Option<Nanos>,
    ) -> Result<Option<Nanos>, MoreInput> {
        let rest = source.records().events.iter().skip(self.next + 1);
        if let Some(time) = rest.into_iter().find_map(&readable) {
            return Ok(Some(time));
        }
        match source.peek() {
            Peek::NeedInput => Err(MoreInput),
            Peek::Nothing => Ok(None),
            Peek::Message(message) => Ok(message.events.iter().find_map(readable)),
        }
    }

    /// Whether `event`, the next one, is whole and the one after it on its connection continues it and is cut.
    pub(super) fn is_cut_next(&self, source: &mut Source, event: &Event) -> Result<bool, MoreInput> {
        let len = event.body.payload.len() as u64;
        if len == 0 || event.body.truncated || event.end_stream {
            return Ok(false);
        }
        let continues = |next: &Event| {
            let follows = event.seq_num == 0 || next.seq_num == event.seq_num.saturating_add(len);
            next.kind == event.kind && next.body.truncated && follows
        };
        let message = source.records();
        if let Some(next) = message.events.get(self.next + 1) {
            return Ok(continues(next));
        }
        if self.buffered.is_some() {
            return Ok(false);
        }
        let trace_id = message.trace_id;
        match source.peek() {
            Peek::NeedInput => Err(MoreInput),
            Peek::Nothing => Ok(false),
            Peek::Message(next) => {
                let same = next.kind == Some(TraceKind::SocketStreamed)
                    && next.trace_id == trace_id
                    && next.connection.is_none();
                Ok(same && next.events.first().is_some_and(continues))
            }
        }
    }

    /// What is said, from the event that is being read on. A buffered trace has it all at hand; of a streamed one only
    /// this event is looked at, because how many more are at hand depends on its encoding.
    pub(super) fn said<'a>(
        &self,
        source: &'a Source,
    ) -> Option<impl Iterator<Item = (Direction, &'a [u8])> + Clone + use<'a>> {
        if !self.in_message {
            return None;
        }
        let message = source.message();
        let events = source.records().events.get(self.next.checked_sub(1)?..)?;
        let said = events.iter().filter_map(move |event| {
            let direction = match event.kind {
                EventKind::Read => Direction::Inbound,
                EventKind::Write => Direction::Outbound,
                EventKind::Closed | EventKind::Absent => return None,
            };
            Some((direction, message.bytes(event.body.payload)))
        });
        Some(said.take(if self.buffered.is_some() { OPENING_EVENTS } else { 1 }))
    }
}

/// More of the source must be read before this can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MoreInput;
