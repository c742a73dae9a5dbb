//! Turns the events of socket traces into entries, in the order of the source.

use std::{collections::VecDeque, mem};

use super::{
    ConnectionId, Direction, EntryKind, MAX_CONNECTIONS, Opening, Record, Role, RoleChoice, TimelineOptions, TimesFrom,
    TrueLength,
    clock::EventClock,
    cursor::{MessageCursor, MoreInput},
    entry::PayloadPlace,
    hold::{HeldEvent, Holding, Released, first_missing, true_length},
    role,
    table::ConnectionTable,
};
use crate::{
    input::Source,
    trace::{Connection, Event, EventKind, Fact, Finding, Findings, Nanos, TraceKind},
};

/// An entry without its bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct PendingEntry {
    pub(super) connection: ConnectionId,
    pub(super) time: Nanos,
    pub(super) kind: EntryKind<Record<PayloadPlace, ()>>,
}

/// The entry that is being read, and entries after it that are already known.
#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) current: Option<PendingEntry>,
    waiting: VecDeque<PendingEntry>,
}

impl Queue {
    /// Adds an entry. It becomes the current one if there is none, which is the usual case.
    #[inline]
    pub(super) fn push(&mut self, entry: PendingEntry) {
        if self.current.is_none() {
            self.current = Some(entry);
        } else {
            self.waiting.push_back(entry);
        }
    }

    /// Goes to the next entry.
    pub(super) fn advance(&mut self) {
        self.current = self.waiting.pop_front();
    }
}

/// Turns the events of socket traces into entries.
#[derive(Debug)]
pub(super) struct Sockets {
    options: TimelineOptions,
    pub(super) table: ConnectionTable,
    pub(super) queue: Queue,
    pub(super) cursor: MessageCursor,
    pub(super) clock: EventClock,
    pub(super) holding: Holding,
    /// Whether too many open connections were already reported.
    crowded: bool,
}

impl Sockets {
    pub(super) fn new(source: &Source, options: TimelineOptions) -> Self {
        Self {
            table: ConnectionTable::new(options.max_connections.unwrap_or(MAX_CONNECTIONS)),
            queue: Queue::default(),
            cursor: MessageCursor::default(),
            clock: EventClock::new(source, &options),
            holding: Holding::default(),
            options,
            crowded: false,
        }
    }

    #[inline]
    fn push(&mut self, connection: ConnectionId, time: Nanos, kind: EntryKind<Record<PayloadPlace, ()>>) {
        self.queue.push(PendingEntry { connection, time, kind });
    }

    /// The fast path for most entries: bytes that directly follow those that came before on an open connection, in the
    /// same batch as the entry before. It does what [`Sockets::next_in_message`] would do, and leaves all other events to
    /// that.
    #[inline]
    pub(super) fn next_plain(&mut self, source: &Source) -> bool {
        let message = source.records();
        let index = self.cursor.next;
        // The last event is left out, because a cut event in the next message may have to be joined to it.
        if message.count() == 1 || !self.cursor.in_message || index + 1 >= message.events.len() {
            return false;
        }
        let event = message.events[index];
        let Some(connection) = self.table.find_recent(event.trace_id) else { return false };
        let (Some(time), Some(state)) = (event.time, self.table.get_mut(connection)) else { return false };
        let plain = state.opened
            && state.open_ended.is_none()
            && (event.seq_num == state.expected || event.seq_num == 0)
            && time <= self.clock.latest
            && self.queue.waiting.is_empty()
            && self.holding.is_idle()
            && self.cursor.buffered.is_none();
        if !plain {
            return false;
        }
        let len = event.body.payload.len() as u64;
        if event.seq_num != 0 {
            state.expected = event.seq_num.saturating_add(len);
        }
        state.last_time = Some(time);
        self.clock.last = Some(time);
        self.cursor.next = index + 1;
        let direction = if event.kind == EventKind::Read { Direction::Inbound } else { Direction::Outbound };
        let record = Record::whole(direction, PayloadPlace::Message(event.body.payload), len);
        self.queue.current = Some(PendingEntry { connection, time, kind: EntryKind::Data(record) });
        true
    }

    pub(super) fn begin_message(&mut self, source: &Source, findings: &mut Findings) {
        let message = source.records();
        match message.kind {
            Some(TraceKind::SocketBuffered) => {
                self.release_held(None);
                let connection = source.records().connection.clone().unwrap_or_default();
                let opening = Self::opening_of_message(source, 0, true, connection);
                self.cursor.begin(Some(self.table.add(opening)));
            }
            Some(TraceKind::SocketStreamed) => {
                let trace_id = message.trace_id;
                let brings_connection = message.connection.is_some();
                if let Some(held) = self.holding.held_connection()
                    && (brings_connection || !self.table.is_of(held, trace_id))
                {
                    self.release_held(None);
                }
                if brings_connection {
                    self.begin_streamed(source, trace_id, findings);
                }
                self.cursor.begin(None);
            }
            Some(TraceKind::HttpBuffered | TraceKind::HttpStreamed) | None => {}
        }
    }

    /// Handles a connection segment. It begins a new connection, unless the one with this `trace_id` has no entries
    /// yet.
    fn begin_streamed(&mut self, source: &Source, trace_id: u64, findings: &mut Findings) {
        let before = self.table.find(trace_id);
        let fresh = before.filter(|connection| !self.table.state(*connection).opened);
        if let (Some(before), None) = (before, fresh) {
            self.end_connection(source, before, EntryKind::Abandoned);
        }
        let connection = fresh.unwrap_or_else(|| self.open_streamed(source, 0, findings));
        let ends = source.records().connection.clone().unwrap_or_default();
        let state = self.table.state(connection);
        state.shown_role = role::role_from_first_segment(&ends);
        state.opening.connection = ends;
        // If there was a connection before, it may have got events of this one, whose first `seq_num` is then unknown.
        state.expected = u64::from(before.is_none());
        self.table.note_recent(trace_id, connection);
    }

    /// The opening of a new connection, from the current message or that of the event with this index in a batch.
    fn opening_of_message(source: &Source, event: usize, buffered: bool, connection: Connection) -> Opening {
        let message = source.records();
        Opening {
            trace_id: message.trace_id_of(event),
            buffered,
            connection,
            role: Role::Downstream,
            role_given: false,
            place: message.place_of(event),
            times: TimesFrom::Recorded,
            http: None,
        }
    }

    fn open_streamed(&mut self, source: &Source, event: usize, findings: &mut Findings) -> ConnectionId {
        while let Some(oldest) = self.table.oldest_of_too_many() {
            if !mem::replace(&mut self.crowded, true) {
                findings.push(self.found(source, Fact::ManyConnections { limit: self.table.limit }));
            }
            self.end_connection(source, oldest, EntryKind::Abandoned);
        }
        let opening = Self::opening_of_message(source, event, false, Connection::default());
        self.table.add_streamed(opening)
    }

    /// The connection of the streamed event being read. It is opened if the source starts in the middle of it.
    fn streamed_connection(&mut self, source: &Source, findings: &mut Findings) -> ConnectionId {
        let event = self.cursor.next.saturating_sub(1);
        let trace_id = source.records().trace_id_of(event);
        let connection = self.table.find(trace_id).unwrap_or_else(|| self.open_streamed(source, event, findings));
        self.table.note_recent(trace_id, connection);
        connection
    }

    pub(super) fn next_in_message(&mut self, source: &mut Source, findings: &mut Findings) -> Result<(), MoreInput> {
        let Some(event) = self.cursor.event(source) else {
            self.end_message(source);
            return Ok(());
        };
        // An absent event needs no time, and there may be millions before one that does.
        if self.clock.last.is_none() && event.kind != EventKind::Absent {
            self.look_for_time(source, &event)?;
        }
        let direction = match event.kind {
            EventKind::Read => Direction::Inbound,
            EventKind::Write => Direction::Outbound,
            EventKind::Closed => {
                self.cursor.next += 1;
                self.closed(source, &event, findings);
                return Ok(());
            }
            // JSON_BODY_AS_STRING overwrote a connection segment, or the segment is empty. It says only that the
            // connection exists.
            EventKind::Absent => {
                self.cursor.next += 1;
                if self.cursor.buffered.is_none() {
                    self.streamed_connection(source, findings);
                }
                return Ok(());
            }
        };
        let is_first = self.options.join && !self.holding.awaits_joined() && self.cursor.is_cut_next(source, &event)?;
        self.cursor.next += 1;
        if is_first {
            self.begin_joined(source, &event, direction, findings);
        } else {
            self.data(source, &event, direction, findings);
        }
        Ok(())
    }

    /// Finds a time for the source's first event if it has none: the next time in this message or the following one. A
    /// live stream does not look ahead, because it would have to wait.
    #[cold]
    fn look_for_time(&mut self, source: &mut Source, event: &Event) -> Result<(), MoreInput> {
        let Self { clock, cursor, .. } = self;
        if clock.readable(event).is_some() || self.options.eager || clock.start.is_known() {
            return Ok(());
        }
        if let Some(next) = cursor.following_time(source, |event| clock.readable(event))? {
            clock.start.set_next(next);
        }
        Ok(())
    }

    /// Keeps a whole event until the cut one after it, which comes next.
    fn begin_joined(&mut self, source: &Source, event: &Event, direction: Direction, findings: &mut Findings) {
        let connection = self.connection_of(source, event, findings);
        let time = self.time_of(source, event, connection, findings);
        self.begin_event(source, connection, time, event.seq_num, Some(direction));
        let payload = source.message().bytes(event.body.payload);
        let length = TrueLength::Known(payload.len() as u64);
        self.table.state(connection).count(event.seq_num, length, direction, false);
        self.holding.begin_joined(time, payload);
    }

    fn end_message(&mut self, source: &Source) {
        self.cursor.in_message = false;
        if let Some(connection) = self.cursor.buffered.take() {
            let recorded = mem::take(&mut self.cursor.buffered_closed);
            let cut = source.records().cut;
            let kind = if cut { EntryKind::Abandoned } else { EntryKind::Closed { recorded } };
            self.end_connection(source, connection, kind);
        }
    }

    fn connection_of(&mut self, source: &Source, event: &Event, findings: &mut Findings) -> ConnectionId {
        let connection = self.cursor.buffered.unwrap_or_else(|| self.streamed_connection(source, findings));
        // A `connection` of a single event supplies what the connection segment lacked.
        let more = event.connection.and_then(|index| source.records().event_connections.get(index as usize));
        if let Some(more) = more {
            let known = &mut self.table.state(connection).opening.connection;
            if known.local.is_none() {
                known.local.clone_from(&more.local);
            }
            if known.remote.is_none() {
                known.remote.clone_from(&more.remote);
            }
        }
        connection
    }

    fn time_of(&mut self, source: &Source, event: &Event, connection: ConnectionId, findings: &mut Findings) -> Nanos {
        let known = self.clock.readable(event);
        if known != event.time {
            findings.push(self.found(source, Fact::LateTime));
        } else if known.is_none() && source.records().bad_time.is_none() {
            findings.push(self.found(source, Fact::NoTime));
        }
        let time = known.unwrap_or_else(|| self.made_up_time(connection));
        self.table.state(connection).last_time = Some(time);
        self.clock.last = Some(time);
        time
    }

    /// Makes up a time on this connection.
    fn made_up_time(&mut self, connection: ConnectionId) -> Nanos {
        let state = self.table.state(connection);
        let (time, times) = self.clock.make_up(state.last_time);
        if !state.opened {
            state.opening.times = times;
        }
        time
    }

    fn data(&mut self, source: &Source, event: &Event, direction: Direction, findings: &mut Findings) {
        let connection = self.connection_of(source, event, findings);
        let time = self.time_of(source, event, connection, findings);
        self.begin_event(source, connection, time, event.seq_num, Some(direction));
        let body = event.body;
        let len = body.payload.len() as u64;
        let unsure = body.truncated || (body.as_string && event.seq_num != 0);
        let mut record = Record {
            length: if body.truncated { TrueLength::MoreThan(len) } else { TrueLength::Known(len) },
            truncated: body.truncated,
            as_string: body.as_string,
            end_stream: event.end_stream,
            recording_stopped: body.truncated && self.cursor.buffered.is_some(),
            ..Record::whole(direction, PayloadPlace::Message(body.payload), len)
        };
        if unsure && event.seq_num != 0 {
            match self.cursor.following_seq_num(source) {
                Some(next) => record.length = true_length(event.seq_num, next, len, body.truncated),
                None if !self.options.eager && self.cursor.buffered.is_none() => {
                    self.hold(source, connection, time, event, record);
                    return;
                }
                None => {}
            }
        }
        if self.holding.awaits_joined() {
            self.hold(source, connection, time, event, record);
            let released = self.holding.release_as(record.length);
            self.push_released(released);
            return;
        }
        let unsure = body.truncated || body.as_string;
        self.table.state(connection).count(event.seq_num, record.length, direction, unsure);
        self.push(connection, time, EntryKind::Data(record));
    }

    fn closed(&mut self, source: &Source, event: &Event, findings: &mut Findings) {
        let connection = self.connection_of(source, event, findings);
        let time = self.time_of(source, event, connection, findings);
        self.begin_event(source, connection, time, first_missing(event), None);
        if self.cursor.buffered.is_some() {
            // More events may follow in the message. The connection ends with the message anyway.
            self.cursor.buffered_closed = true;
        } else {
            self.end_connection(source, connection, EntryKind::Closed { recorded: true });
        }
    }

    /// Begins an event at `seq_num`. A held event goes first, then the connection's opening, then a gap if bytes are
    /// missing before this event.
    fn begin_event(
        &mut self,
        source: &Source,
        connection: ConnectionId,
        time: Nanos,
        seq_num: u64,
        direction: Option<Direction>,
    ) {
        self.release_held((seq_num != 0).then_some(seq_num));
        self.open(source, connection, time, direction);
        let state = self.table.state(connection);
        let bytes = state.missing_before(seq_num);
        if bytes > 0 {
            let certain = state.open_ended.is_some();
            let direction = state.open_ended.or(direction).unwrap_or(Direction::Outbound);
            self.push(connection, time, EntryKind::Gap { direction, bytes, certain });
        }
    }

    fn hold(
        &mut self,
        source: &Source,
        connection: ConnectionId,
        time: Nanos,
        event: &Event,
        record: Record<PayloadPlace, ()>,
    ) {
        let place = self.cursor.place(source);
        let held = HeldEvent { connection, time, seq_num: event.seq_num, place, record: record.with((), ()) };
        self.holding.hold(held, source.message().bytes(event.body.payload));
    }

    /// Releases the held event. `next` is the `seq_num` at which the next event of its connection starts, if known.
    pub(super) fn release_held(&mut self, next: Option<u64>) {
        let released = self.holding.release(next);
        self.push_released(released);
    }

    fn push_released(&mut self, released: Option<Released>) {
        let Some(Released { held, length }) = released else { return };
        let HeldEvent { connection, time, seq_num, record, .. } = held;
        let unsure = record.truncated || record.as_string;
        self.table.state(connection).count(seq_num, length, record.direction, unsure);
        self.push(connection, time, EntryKind::Data(record.with(PayloadPlace::Held, ())));
    }

    /// A finding about the event being read.
    fn found(&self, source: &Source, fact: Fact) -> Finding {
        Finding::new(self.cursor.place(source), fact)
    }

    /// Pushes the connection's first entry, once its first event has shown all that the opening needs.
    fn open(&mut self, source: &Source, connection: ConnectionId, time: Nanos, first: Option<Direction>) {
        let state = self.table.state(connection);
        if state.opened {
            return;
        }
        state.opened = true;
        let choice = self.options.role;
        state.opening.role_given = matches!(choice, RoleChoice::Always(_));
        state.opening.role = match choice {
            RoleChoice::Always(role) | RoleChoice::Known(role) => role,
            RoleChoice::Auto => {
                let spoken = self.cursor.said(source).and_then(role::role_from_first_words);
                role::decide(state.shown_role, spoken, &state.opening.connection, first)
            }
        };
        self.push(connection, time, EntryKind::Opened);
    }

    pub(super) fn end_connection(
        &mut self,
        source: &Source,
        connection: ConnectionId,
        kind: EntryKind<Record<PayloadPlace, ()>>,
    ) {
        let time = match (kind, self.table.state(connection).last_time) {
            // It stops at the source's current time, so that its last packets are not earlier than other connections'.
            (EntryKind::Abandoned, Some(time)) => self.clock.last.map_or(time, |source| source.max(time)),
            (_, Some(time)) => time,
            (_, None) => self.made_up_time(connection),
        };
        self.open(source, connection, time, None);
        self.push(connection, time, kind);
        self.table.end(connection);
    }
}
