//! The position in the current message of a socket trace.

use super::{ConnectionId, Direction, hold::first_missing};
use crate::{
    input::{Peek, Source},
    trace::{Event, EventKind, Nanos, Place, TraceKind},
};

/// How many events of a buffered trace are inspected to find out which side is the client.
const OPENING_EVENTS: usize = 16;

/// Goes through the events of the source's current message.
#[derive(Debug, Default)]
pub(super) struct MessageCursor {
    /// Whether the message may have more events.
    pub(super) in_message: bool,
    /// The index of the next event.
    pub(super) next: usize,
    /// The connection, if the message is a buffered trace.
    pub(super) buffered: Option<ConnectionId>,
    /// Whether the buffered trace has an event for its end. Envoy writes none there.
    pub(super) buffered_closed: bool,
}

impl MessageCursor {
    /// Starts a message.
    pub(super) fn begin(&mut self, buffered: Option<ConnectionId>) {
        *self = Self { in_message: true, next: 0, buffered, buffered_closed: false };
    }

    /// The next event.
    pub(super) fn event(&self, source: &Source) -> Option<Event> {
        source.records().events.get(self.next).copied()
    }

    /// Where the message of the event being read begins.
    pub(super) fn place(&self, source: &Source) -> Place {
        source.records().place_of(self.next.saturating_sub(1))
    }

    /// The `seq_num` at which the event after the one being read starts, if it is in the same message.
    pub(super) fn following_seq_num(&self, source: &Source) -> Option<u64> {
        let following = source.records().events.get(self.next)?;
        Some(first_missing(following)).filter(|seq_num| *seq_num != 0)
    }

    /// The first readable time after the next event, in this message or else in the following one.
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

    /// Whether `event`, the next one, is whole, and a cut event continues it on the same connection.
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
            // No event of a batch is cut, so these are of a buffered trace, which has one connection.
            return Ok(continues(next));
        }
        if self.buffered.is_some() {
            return Ok(false);
        }
        let trace_id = message.trace_id_of(self.next);
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

    /// The payloads from the event being read on, to tell client and server apart. A streamed trace gives only this one
    /// event, because its encoding decides how many more are in the message.
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

/// More input must be read before the answer is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MoreInput;
