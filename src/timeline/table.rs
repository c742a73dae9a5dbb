//! The open connections of a source, and which of them an event belongs to.

use std::collections::{HashMap, VecDeque};

use super::{ConnectionId, Direction, Opening, PerConnection, Role, TrueLength};
use crate::trace::Nanos;

/// A connection between its first entry and its last.
#[derive(Debug)]
pub(super) struct ConnectionState {
    pub(super) opening: Opening,
    /// The role that the connection's first message shows.
    pub(super) shown_role: Option<Role>,
    pub(super) opened: bool,
    pub(super) last_time: Option<Nanos>,
    /// The `seq_num` of the next event if nothing is missing. It is 0 while unknown, for example in a source that
    /// starts in the middle of a connection.
    pub(super) expected: u64,
    /// The direction of the event before, if its length is unknown.
    pub(super) open_ended: Option<Direction>,
    /// How many connections the source had before this one.
    number: u64,
    /// The connection's last entry was pushed and is still to be read.
    ending: bool,
}

impl ConnectionState {
    /// Counts an event. `unsure` says that it may have had more bytes than `length`.
    pub(super) fn count(&mut self, seq_num: u64, length: TrueLength, direction: Direction, unsure: bool) {
        let (bytes, open_ended) = match length {
            TrueLength::Known(bytes) => (bytes, unsure.then_some(direction)),
            // One lost byte stands for the unknown number.
            TrueLength::MoreThan(bytes) => (bytes + 1, Some(direction)),
            TrueLength::Unframed(bytes) => (bytes, Some(direction)),
        };
        self.open_ended = open_ended;
        if seq_num != 0 {
            self.expected = seq_num.saturating_add(bytes);
        }
    }

    /// How many bytes are missing before an event at `seq_num`. A number that goes back says nothing about loss.
    pub(super) fn missing_before(&self, seq_num: u64) -> u64 {
        if seq_num == 0 || self.expected == 0 { 0 } else { seq_num.saturating_sub(self.expected) }
    }
}

/// How many connections of recent events are remembered: more than are usually open in one source, and few enough to
/// stay in a core's cache.
const RECENT: usize = 128;

/// Where a connection is remembered. Envoy counts connections up, so that those of a source have neighbouring numbers.
#[inline]
fn slot(trace_id: u64) -> usize {
    trace_id as usize % RECENT
}

/// The open connections of one source. An event names its connection by `trace_id`. Once a connection has ended, an
/// event with the same `trace_id` belongs to another one.
#[derive(Debug)]
pub(super) struct ConnectionTable {
    states: PerConnection<ConnectionState>,
    free: Vec<ConnectionId>,
    by_trace_id: HashMap<u64, ConnectionId>,
    /// Connections of recent events, each in the slot of its `trace_id`. They save lookups in `by_trace_id`, whose
    /// hash is slow because it resists hostile traces.
    recent: Box<[Option<(u64, ConnectionId)>; RECENT]>,
    /// How many connections there were so far.
    pub(super) opened: u64,
    /// Streamed connections in the order they were opened, including some that have ended.
    oldest: VecDeque<(u64, ConnectionId)>,
    /// How many streamed connections may be open at once.
    pub(super) limit: usize,
}

impl ConnectionTable {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            states: PerConnection::default(),
            free: Vec::new(),
            by_trace_id: HashMap::new(),
            recent: Box::new([None; RECENT]),
            opened: 0,
            oldest: VecDeque::new(),
            limit: limit.max(1),
        }
    }

    pub(super) fn get(&self, connection: ConnectionId) -> Option<&ConnectionState> {
        self.states.get(connection)
    }

    #[inline]
    pub(super) fn get_mut(&mut self, connection: ConnectionId) -> Option<&mut ConnectionState> {
        self.states.get_mut(connection)
    }

    /// The state of a connection whose last entry was not read yet.
    pub(super) fn state(&mut self, connection: ConnectionId) -> &mut ConnectionState {
        self.states.get_mut(connection).expect("a connection has its state until its last entry was read")
    }

    pub(super) fn is_of(&self, connection: ConnectionId, trace_id: u64) -> bool {
        self.get(connection).is_some_and(|state| state.opening.trace_id == trace_id)
    }

    /// Adds a connection.
    pub(super) fn add(&mut self, opening: Opening) -> ConnectionId {
        let state = ConnectionState {
            shown_role: (opening.connection.local.is_none() && opening.connection.remote.is_some())
                .then_some(Role::Upstream),
            opening,
            opened: false,
            last_time: None,
            expected: 0,
            open_ended: None,
            number: self.opened,
            ending: false,
        };
        let connection = self.free.pop().unwrap_or_else(|| self.states.next_id());
        self.opened += 1;
        self.states.insert(connection, state);
        connection
    }

    /// Adds a connection of a streamed trace, which [`ConnectionTable::find`] finds by its `trace_id`.
    pub(super) fn add_streamed(&mut self, opening: Opening) -> ConnectionId {
        let (number, trace_id) = (self.opened, opening.trace_id);
        let connection = self.add(opening);
        self.oldest.push_back((number, connection));
        self.by_trace_id.insert(trace_id, connection);
        connection
    }

    /// The open streamed connection with this `trace_id`.
    #[inline]
    pub(super) fn find(&self, trace_id: u64) -> Option<ConnectionId> {
        self.find_recent(trace_id).or_else(|| self.by_trace_id.get(&trace_id).copied())
    }

    /// The open streamed connection with this `trace_id`, if it had an event recently.
    #[inline]
    pub(super) fn find_recent(&self, trace_id: u64) -> Option<ConnectionId> {
        self.recent[slot(trace_id)].filter(|(recent, _)| *recent == trace_id).map(|(_, connection)| connection)
    }

    /// Notes that an open streamed connection has an event.
    #[inline]
    pub(super) fn note_recent(&mut self, trace_id: u64, connection: ConnectionId) {
        self.recent[slot(trace_id)] = Some((trace_id, connection));
    }

    /// The oldest streamed connection, if so many are open that there is no room for another one.
    pub(super) fn oldest_of_too_many(&mut self) -> Option<ConnectionId> {
        let open = |states: &PerConnection<ConnectionState>, (number, connection): (u64, ConnectionId)| {
            states.get(connection).is_some_and(|state| state.number == number && !state.ending)
        };
        while self.by_trace_id.len() >= self.limit {
            let oldest = self.oldest.pop_front()?;
            if open(&self.states, oldest) {
                return Some(oldest.1);
            }
        }
        // Below the limit too, the list must not keep growing with connections that have ended.
        if self.oldest.len() > 2 * self.by_trace_id.len() + 64 {
            let states = &self.states;
            self.oldest.retain(|oldest| open(states, *oldest));
        }
        None
    }

    /// Marks a connection whose last entry was pushed: from now on, its `trace_id` belongs to another connection.
    pub(super) fn end(&mut self, connection: ConnectionId) {
        let state = self.state(connection);
        state.ending = true;
        let trace_id = state.opening.trace_id;
        self.unlink(connection, trace_id);
    }

    /// Forgets a connection whose last entry was read, and reuses its number.
    pub(super) fn forget(&mut self, connection: ConnectionId) {
        if let Some(state) = self.states.take(connection) {
            self.unlink(connection, state.opening.trace_id);
        }
        self.free.push(connection);
    }

    fn unlink(&mut self, connection: ConnectionId, trace_id: u64) {
        if self.by_trace_id.get(&trace_id) == Some(&connection) {
            self.by_trace_id.remove(&trace_id);
        }
        let recent = &mut self.recent[slot(trace_id)];
        *recent = recent.filter(|(_, recent)| *recent != connection);
    }

    /// The open connections of socket traces, in the order they came. The HTTP replay ends its own connections.
    pub(super) fn open_in_order(&self) -> Vec<ConnectionId> {
        let of_sockets = self.states.iter().filter(|(_, state)| state.opening.http.is_none());
        let mut open: Vec<_> =
            of_sockets.map(|(connection, state)| (state.opening.place.message, connection)).collect();
        open.sort_unstable();
        open.into_iter().map(|(_, connection)| connection).collect()
    }
}
