//! Timelines of one source: messages in, entries of connections out, one at a time.
//!
//! A source may interleave many connections; a `trace_id` tells them apart, and a connection is forgotten when it
//! closes. Nothing is copied but an event whose true length only the next one tells.

use std::collections::{HashMap, VecDeque};

use super::{
    Direction, HttpOpening, HttpOptions, Role, RoleChoice, TimesFrom,
    http::{Made, MadeKind, Place, Replay},
    role::{role_from_first_words, role_from_ports},
    start::Start,
};
use crate::{
    input::{self, Advance, Peek, Source},
    trace::{Address, Code, Connection, Event, EventKind, Finding, Nanos, Span, TraceKind},
};

/// How timelines are assembled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Who opened the connections.
    pub role: RoleChoice,
    /// The time of events before the first that has one, whatever the trace shows: nanoseconds since the Unix epoch.
    pub start_time: Option<Nanos>,
    /// The same where the trace has no time at all: that of other traces in the capture.
    pub neighbours: Option<Nanos>,
    /// The source is a file of this kind at its path. Its beginning is read once more where its first event has no
    /// time, to find the first that has one, and without any the file's modification time stands for it.
    pub reread: Option<input::Options>,
    /// Never wait for the next event, even where only that one tells how long this one was: for live streams.
    pub eager: bool,
    /// Join a cut event to the whole one right before it, of the same direction. A dissector that was promised more by
    /// the first one cannot reassemble it with a cut segment, and would show neither.
    pub join: bool,
    /// The latest time that the capture can hold, where that is not all of [`Nanos`].
    pub latest: Option<Nanos>,
    /// Connections that may be open at once; with one more, the oldest is taken to have stopped.
    pub max_connections: Option<usize>,
    /// How HTTP traces are replayed.
    pub http: HttpOptions,
}

/// Events of a buffered trace that are looked at to tell who is the client.
const OPENING_EVENTS: usize = 16;

/// The limit unless [`Options::max_connections`] says otherwise.
pub const MAX_CONNECTIONS: usize = 100_000;

/// How many bytes an event really had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrueLength {
    /// Exactly this many.
    Known(u64),
    /// More than this many; Envoy did not record how many.
    MoreThan(u64),
    /// The same for a replayed body. The framing is made up and ends with these bytes: nothing stands for the others.
    Unframed(u64),
}

/// Bytes that crossed the tapped socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Data<'a> {
    /// Which way.
    pub direction: Direction,
    /// The bytes that are there: the first ones of the event.
    pub payload: &'a [u8],
    /// How many there were, [`Data::payload`] included.
    pub length: TrueLength,
    /// Envoy cut the event to a size limit.
    pub truncated: bool,
    /// JSON_BODY_AS_STRING: what is missing is not the end but runs of bytes that became spaces, anywhere.
    pub as_string: bool,
    /// Envoy closed its direction after these bytes.
    pub end_stream: bool,
    /// Buffered trace: recording of this direction stopped here, whatever followed.
    pub recording_stopped: bool,
    /// Two events in one: see [`Options::join`].
    pub joined: Option<Joined>,
    /// Replayed HTTP: bytes of the payload that are no body.
    pub framing: u64,
    /// Replayed HTTP: what people should know of these bytes, in lines that are safe for terminals; empty for most.
    pub note: &'a str,
}

/// How a cut event was joined to the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Joined {
    /// Bytes of the first event, which is whole; the entry has its time.
    pub first: u64,
    /// The time of the second event, which is cut.
    pub time: Nanos,
}

/// One entry of a connection's timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Which connection: dense, and used again after the connection's last entry.
    pub slot: usize,
    /// When, in nanoseconds since the Unix epoch.
    pub time: Nanos,
    /// What.
    pub kind: EntryKind<'a>,
}

/// What an [`Entry`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind<'a> {
    /// The connection's first entry; [`Timelines::opening`] tells about it.
    Opened,
    /// Bytes.
    Data(Data<'a>),
    /// Bytes that were there and of which the trace has nothing. Where `certain`, they are more of the event before,
    /// whose length was not known when it came; else they may as well have gone the other way.
    Gap {
        /// Which way, as far as known.
        direction: Direction,
        /// How many.
        bytes: u64,
        /// Whether the direction is known.
        certain: bool,
    },
    /// The last entry of a connection that ended. `recorded` is false where a buffered trace implies it.
    Closed {
        /// Whether the trace has an event for it.
        recorded: bool,
    },
    /// The last entry of a connection whose trace stops before it ended.
    Abandoned,
}

/// What is known of a connection when its first entry comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    /// `trace_id`.
    pub trace_id: u64,
    /// A buffered trace rather than a streamed one.
    pub buffered: bool,
    /// The two ends.
    pub connection: Connection,
    /// Who opened it.
    pub role: Role,
    /// Whether the role was given by the user.
    pub role_given: bool,
    /// Byte offset in the source of the message that brought the connection.
    pub offset: u64,
    /// Index of that message.
    pub message: u64,
    /// Where the time of the connection's beginning comes from.
    pub times: TimesFrom,
    /// An HTTP trace: the bytes are replayed.
    pub http: Option<HttpOpening>,
}

impl Opening {
    /// A streamed socket trace with a remote address and no local one: a cluster's connection that is not connected
    /// yet when its trace begins.
    pub(super) fn is_unconnected_cluster(&self) -> bool {
        !self.buffered && self.http.is_none() && self.connection.local.is_none() && self.connection.remote.is_some()
    }
}

#[derive(Debug)]
struct State {
    opening: Opening,
    /// What the message that brought the connection says of who opened it.
    shown_role: Option<Role>,
    opened: bool,
    last_time: Option<Nanos>,
    /// The position that the next event has if nothing is missing; 0 while unknown, as in a source that starts in the
    /// middle of a connection.
    expected: u64,
    /// The direction of the event before, if its length is unknown.
    open_ended: Option<Direction>,
    /// How many connections the source had before it.
    number: u64,
    /// Its last entry is on its way.
    ending: bool,
}

/// Where the payload of a pending entry is.
#[derive(Clone, Copy, Debug)]
enum PayloadPlace {
    Message(Span),
    Held,
    /// In the replay of HTTP traces, from and to.
    Replay(usize, usize),
}

#[derive(Clone, Copy, Debug)]
struct PendingData {
    direction: Direction,
    place: PayloadPlace,
    length: TrueLength,
    truncated: bool,
    as_string: bool,
    end_stream: bool,
    recording_stopped: bool,
    joined: Option<Joined>,
    framing: u64,
}

#[derive(Clone, Copy, Debug)]
enum PendingKind {
    Opened,
    Data(PendingData),
    Gap { direction: Direction, bytes: u64, certain: bool },
    Closed { recorded: bool },
    Abandoned,
}

#[derive(Clone, Copy, Debug)]
struct Pending {
    slot: usize,
    time: Nanos,
    kind: PendingKind,
}

/// An event whose true length the next one tells.
#[derive(Debug)]
struct Held {
    slot: usize,
    time: Nanos,
    direction: Direction,
    seq_num: u64,
    as_string: bool,
    truncated: bool,
    end_stream: bool,
    joined: Option<Joined>,
    /// Offset and index of its message.
    place: (u64, u64),
}

/// A whole event that waits for the cut one after it; its bytes are in `held_bytes`.
#[derive(Clone, Copy, Debug)]
struct First {
    time: Nanos,
    len: u64,
}

/// The timelines of one source, entry by entry, in the order of the trace.
#[derive(Debug)]
pub struct Timelines {
    source: Source,
    options: Options,
    slots: Vec<Option<State>>,
    free: Vec<usize>,
    by_trace_id: HashMap<u64, usize>,
    /// The connection of the event before: most traces hold only one.
    last: Option<(u64, usize)>,
    /// Slot of the buffered trace that is being read.
    buffered_slot: Option<usize>,
    /// It has an event for its end, which Envoy does not write there.
    buffered_closed: bool,
    next_event: usize,
    in_message: bool,
    last_time: Option<Nanos>,
    start: Start,
    pending: VecDeque<Pending>,
    current: Option<Pending>,
    held: Option<Held>,
    first: Option<First>,
    held_bytes: Vec<u8>,
    /// The bytes of the held event that `pending` or `current` refers to.
    released_bytes: Vec<u8>,
    released_place: (u64, u64),
    /// Made with the first HTTP trace.
    replay: Option<Box<Replay>>,
    /// Slots of the replay's streams.
    replay_slots: Vec<usize>,
    /// Place and note of the current entry, if it is the replay's.
    replayed: Option<((u64, u64), String)>,
    ended: bool,
    opened: u64,
    /// Slots of streamed connections in the order they were opened; those that ended are still in it.
    oldest: VecDeque<(u64, usize)>,
    crowded: bool,
}

impl Timelines {
    /// Assembles the timelines of `source`.
    #[must_use]
    pub fn new(source: Source, options: Options) -> Self {
        let start = Start::new(&source, &options);
        Self {
            source,
            options,
            start,
            slots: Vec::new(),
            free: Vec::new(),
            by_trace_id: HashMap::new(),
            last: None,
            buffered_slot: None,
            buffered_closed: false,
            next_event: 0,
            in_message: false,
            last_time: None,
            pending: VecDeque::new(),
            current: None,
            held: None,
            first: None,
            held_bytes: Vec::new(),
            released_bytes: Vec::new(),
            released_place: (0, 0),
            replay: None,
            replay_slots: Vec::new(),
            replayed: None,
            ended: false,
            opened: 0,
            oldest: VecDeque::new(),
            crowded: false,
        }
    }

    /// The source.
    #[must_use]
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// The source, to fill it and to take its findings.
    pub fn source_mut(&mut self) -> &mut Source {
        &mut self.source
    }

    /// Connections seen so far.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.opened
    }

    /// What is known of the connection in `slot`; valid while an entry of it is the current one.
    #[must_use]
    pub fn opening(&self, slot: usize) -> Option<&Opening> {
        self.slots.get(slot)?.as_ref().map(|state| &state.opening)
    }

    /// Adds what is wrong with the addresses of the connection in `slot`, which has just been opened.
    pub fn find_faults(&mut self, slot: usize, faults: &[(Code, String)]) {
        // Where the source was cut off inside an address, the cut is the fault.
        if faults.is_empty() || self.source.records().cut {
            return;
        }
        let Some((offset, message)) = self.opening(slot).map(|opening| (opening.offset, opening.message)) else {
            return;
        };
        for (code, detail) in faults {
            self.source.add_finding(Finding { code: *code, offset, message, detail: detail.clone() });
        }
    }

    /// The entry that the last [`Timelines::advance`] reached.
    #[inline(always)]
    #[must_use]
    pub fn entry(&self) -> Option<Entry<'_>> {
        let Pending { slot, time, kind } = self.current?;
        let kind = match kind {
            PendingKind::Opened => EntryKind::Opened,
            PendingKind::Gap { direction, bytes, certain } => EntryKind::Gap { direction, bytes, certain },
            PendingKind::Closed { recorded } => EntryKind::Closed { recorded },
            PendingKind::Abandoned => EntryKind::Abandoned,
            PendingKind::Data(data) => EntryKind::Data(Data {
                direction: data.direction,
                payload: match data.place {
                    PayloadPlace::Message(span) => self.source.message().bytes(span),
                    PayloadPlace::Held => &self.released_bytes,
                    PayloadPlace::Replay(start, end) => {
                        self.replay.as_ref().map_or(&[][..], |replay| replay.bytes(start, end))
                    }
                },
                length: data.length,
                truncated: data.truncated,
                as_string: data.as_string,
                end_stream: data.end_stream,
                recording_stopped: data.recording_stopped,
                joined: data.joined,
                framing: data.framing,
                note: self.replayed.as_ref().map_or("", |(_, note)| note),
            }),
        };
        Some(Entry { slot, time, kind })
    }

    /// The time of the current entry.
    #[inline]
    #[must_use]
    pub fn time(&self) -> Option<Nanos> {
        self.current.as_ref().map(|entry| entry.time)
    }

    /// Most events come to one entry, which need not queue.
    #[inline]
    fn push(&mut self, entry: Pending) {
        if self.current.is_none() {
            self.current = Some(entry);
        } else {
            self.pending.push_back(entry);
        }
    }

    /// Goes to the next entry. [`Advance::NeedInput`]: fill the source and call again.
    #[inline]
    pub fn advance(&mut self) -> Advance {
        if self.next_plain() { Advance::Message } else { self.advance_any() }
    }

    /// The short way for what most entries are: bytes right behind those of the entry before, by every sign, in the
    /// same run of one open connection. It looks at nothing that [`Timelines::advance_any`] would not come to the same
    /// answer about, and leaves everything else to it.
    #[inline]
    fn next_plain(&mut self) -> bool {
        let message = self.source.records();
        let index = self.next_event;
        // Of the last event, the next message may say that it is to be joined to a cut one.
        if !message.run || !self.in_message || index + 1 >= message.events.len() {
            return false;
        }
        let event = message.events[index];
        let Some((trace_id, slot)) = self.last else { return false };
        let (Some(time), Some(Some(state))) = (event.time, self.slots.get_mut(slot)) else { return false };
        let plain = trace_id == message.trace_id
            && state.opened
            && state.open_ended.is_none()
            && (event.seq_num == state.expected || event.seq_num == 0)
            && time <= self.options.latest.unwrap_or(Nanos::MAX)
            && self.pending.is_empty()
            && self.held.is_none()
            && self.first.is_none()
            && self.buffered_slot.is_none();
        if !plain {
            return false;
        }
        let len = event.body.payload.len() as u64;
        if event.seq_num != 0 {
            state.expected = event.seq_num.saturating_add(len);
        }
        state.last_time = Some(time);
        self.last_time = Some(time);
        self.next_event = index + 1;
        let data = PendingData {
            direction: if event.kind == EventKind::Read { Direction::Inbound } else { Direction::Outbound },
            place: PayloadPlace::Message(event.body.payload),
            length: TrueLength::Known(len),
            truncated: false,
            as_string: false,
            end_stream: false,
            recording_stopped: false,
            joined: None,
            framing: 0,
        };
        self.current = Some(Pending { slot, time, kind: PendingKind::Data(data) });
        true
    }

    fn advance_any(&mut self) -> Advance {
        if let Some(Pending { slot, kind: PendingKind::Closed { .. } | PendingKind::Abandoned, .. }) = self.current {
            self.forget(slot);
        }
        self.current = self.pending.pop_front();
        self.replayed = None;
        loop {
            if self.current.is_some() {
                return Advance::Message;
            }
            if self.in_message {
                if self.next_in_message() == Needs::Input {
                    return Advance::NeedInput;
                }
                continue;
            }
            if self.next_replayed() {
                continue;
            }
            if self.ended {
                return Advance::End;
            }
            match self.source.advance() {
                Advance::Message => self.begin_message(),
                Advance::NeedInput => {
                    if let (true, Some(replay)) = (self.options.eager, &mut self.replay) {
                        replay.wait();
                        if self.next_replayed() {
                            continue;
                        }
                    }
                    return Advance::NeedInput;
                }
                Advance::End => {
                    self.release_held(None);
                    self.ended = true;
                    self.abandon_open();
                    if let Some(replay) = &mut self.replay {
                        replay.end();
                    }
                }
            }
        }
    }

    /// A connection whose last entry was read gives its slot back.
    fn forget(&mut self, slot: usize) {
        if let Some(state) = self.slots[slot].take()
            && self.by_trace_id.get(&state.opening.trace_id) == Some(&slot)
        {
            self.by_trace_id.remove(&state.opening.trace_id);
        }
        self.last = self.last.filter(|(_, last)| *last != slot);
        self.free.push(slot);
    }

    /// Streamed connections that the source leaves open end in the order they came.
    fn abandon_open(&mut self) {
        let mut open: Vec<_> = self
            .slots
            .iter()
            .enumerate()
            .filter_map(|(slot, state)| Some((state.as_ref()?, slot)))
            // The replay ends its own.
            .filter(|(state, _)| state.opening.http.is_none())
            .map(|(state, slot)| (state.opening.message, slot))
            .collect();
        open.sort_unstable();
        for (_, slot) in open {
            self.end_connection(slot, PendingKind::Abandoned);
        }
    }

    fn begin_message(&mut self) {
        let message = self.source.records();
        match message.kind {
            Some(TraceKind::SocketBuffered) => {
                self.release_held(None);
                let slot = self.open_slot(true);
                self.buffered_slot = Some(slot);
                self.next_event = 0;
                self.in_message = true;
            }
            Some(TraceKind::SocketStreamed) => {
                let trace_id = message.trace_id;
                let brings_connection = message.connection.is_some();
                if self.held.as_ref().is_some_and(|held| !self.is_slot_of(held.slot, trace_id) || brings_connection) {
                    self.release_held(None);
                }
                if brings_connection {
                    self.begin_streamed(trace_id);
                }
                self.buffered_slot = None;
                self.next_event = 0;
                self.in_message = true;
            }
            Some(TraceKind::HttpBuffered | TraceKind::HttpStreamed) => {
                let (options, start) = (&self.options, &self.start);
                let replay = self.replay.get_or_insert_with(|| Box::new(Replay::new(options, start.clone())));
                replay.message(self.source.message());
                if replay.has_findings() {
                    replay.take_findings().into_iter().for_each(|finding| self.source.add_finding(finding));
                }
            }
            None => {}
        }
    }

    /// Takes the next entry of the replay, if there is one.
    fn next_replayed(&mut self) -> bool {
        let Some(replay) = &mut self.replay else { return false };
        let Some(made) = replay.next(self.source.message()) else {
            if replay.has_findings() {
                replay.take_findings().into_iter().for_each(|finding| self.source.add_finding(finding));
            }
            return false;
        };
        let Made { stream, time, origin, kind } = made;
        let mut note = String::new();
        let kind = match kind {
            MadeKind::Opened(opening) => {
                let slot = self.add_slot(*opening);
                if self.replay_slots.len() <= stream {
                    self.replay_slots.resize(stream + 1, 0);
                }
                self.replay_slots[stream] = slot;
                PendingKind::Opened
            }
            MadeKind::Data(data) => {
                note = data.note;
                PendingKind::Data(PendingData {
                    direction: data.direction,
                    place: match data.place {
                        Place::Own(start, end) => PayloadPlace::Replay(start, end),
                        Place::Message(span) => PayloadPlace::Message(span),
                    },
                    length: data.length,
                    truncated: data.truncated,
                    as_string: data.as_string,
                    end_stream: false,
                    recording_stopped: false,
                    joined: None,
                    framing: data.framing,
                })
            }
            // The replay hands these on as data.
            MadeKind::Frames(_) => return true,
            MadeKind::Gap { direction, bytes } => PendingKind::Gap { direction, bytes, certain: true },
            MadeKind::Ended { complete, last } => {
                let slot = self.replay_slots[stream];
                if let (true, Some(http)) = (last, &mut self.state(slot).opening.http) {
                    http.last = true;
                }
                if complete { PendingKind::Closed { recorded: false } } else { PendingKind::Abandoned }
            }
        };
        self.replayed = Some((origin, note));
        self.push(Pending { slot: self.replay_slots[stream], time, kind });
        true
    }

    fn is_slot_of(&self, slot: usize, trace_id: u64) -> bool {
        self.slots[slot].as_ref().is_some_and(|state| state.opening.trace_id == trace_id)
    }

    /// A connection segment: a new connection, unless the one before it under this id has shown nothing yet.
    fn begin_streamed(&mut self, trace_id: u64) {
        // Before it, this connection may have shown events already, so where they started is not known.
        let expected = u64::from(!self.by_trace_id.contains_key(&trace_id));
        let fresh = match self.by_trace_id.get(&trace_id) {
            Some(slot) if self.slots[*slot].as_ref().is_some_and(|state| state.opened) => {
                self.end_connection(*slot, PendingKind::Abandoned);
                None
            }
            Some(slot) => Some(*slot),
            None => None,
        };
        let slot = fresh.unwrap_or_else(|| self.open_slot(false));
        let connection = self.source.records().connection.clone().unwrap_or_default();
        if let Some(state) = &mut self.slots[slot] {
            state.shown_role = role_from_first_segment(&connection);
            state.opening.connection = connection;
            state.expected = expected;
        }
        self.by_trace_id.insert(trace_id, slot);
        self.last = Some((trace_id, slot));
    }

    /// Makes room for one more connection where a trace, by accident or design, leaves too many open.
    fn make_room(&mut self) {
        let limit = self.options.max_connections.unwrap_or(MAX_CONNECTIONS).max(1);
        while self.by_trace_id.len() >= limit {
            let Some((number, slot)) = self.oldest.pop_front() else { return };
            let open = |state: &State| state.number == number && !state.ending;
            if !self.slots[slot].as_ref().is_some_and(open) {
                continue;
            }
            if !std::mem::replace(&mut self.crowded, true) {
                let detail = format!(
                    "more connections are open at once than the {limit} that --max-connections allows; the oldest are \
                     given up"
                );
                self.find(Code::TooManyConnections, detail);
            }
            self.end_connection(slot, PendingKind::Abandoned);
        }
        // Without a limit to reach, the list still must not outgrow what is open.
        if self.oldest.len() > 2 * self.by_trace_id.len() + 64 {
            let slots = &self.slots;
            self.oldest.retain(|(number, slot)| {
                slots[*slot].as_ref().is_some_and(|state| state.number == *number && !state.ending)
            });
        }
    }

    fn open_slot(&mut self, buffered: bool) -> usize {
        if !buffered {
            self.make_room();
        }
        let message = self.source.records();
        let connection = if buffered { message.connection.clone().unwrap_or_default() } else { Connection::default() };
        let slot = self.add_slot(Opening {
            trace_id: message.trace_id,
            buffered,
            connection,
            role: Role::Downstream,
            role_given: false,
            offset: message.offset,
            message: message.index,
            times: TimesFrom::Recorded,
            http: None,
        });
        if !buffered {
            let number = self.state(slot).number;
            self.oldest.push_back((number, slot));
        }
        slot
    }

    fn add_slot(&mut self, opening: Opening) -> usize {
        let state = State {
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
        self.opened += 1;
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.slots[slot] = Some(state);
        slot
    }

    /// The slot of a streamed event. A source may start in the middle of a connection.
    fn streamed_slot(&mut self, trace_id: u64) -> usize {
        if let Some((last_id, slot)) = self.last
            && last_id == trace_id
        {
            return slot;
        }
        let slot = match self.by_trace_id.get(&trace_id) {
            Some(slot) => *slot,
            None => {
                let slot = self.open_slot(false);
                self.by_trace_id.insert(trace_id, slot);
                slot
            }
        };
        self.last = Some((trace_id, slot));
        slot
    }

    fn next_in_message(&mut self) -> Needs {
        let message = self.source.records();
        let Some(event) = message.events.get(self.next_event).copied() else {
            self.end_message();
            return Needs::Nothing;
        };
        // An absent event needs no time, and there may be millions before one that does.
        if self.last_time.is_none() && event.kind != EventKind::Absent && !self.look_for_time(&event) {
            return Needs::Input;
        }
        let direction = match event.kind {
            EventKind::Read => Some(Direction::Inbound),
            EventKind::Write => Some(Direction::Outbound),
            EventKind::Closed | EventKind::Absent => None,
        };
        if self.options.join && direction.is_some() && self.first.is_none() {
            match self.is_cut_next(&event) {
                None => return Needs::Input,
                Some(false) => {}
                Some(true) => {
                    self.next_event += 1;
                    self.begin_joined(&event, direction);
                    return Needs::Nothing;
                }
            }
        }
        self.next_event += 1;
        match (direction, event.kind) {
            (Some(direction), _) => self.data(event, direction),
            (None, EventKind::Closed) => self.closed(event),
            // What is left of a connection segment that JSON_BODY_AS_STRING overwrote, or nothing at all: the
            // connection exists, and that is all it says.
            (None, _) => {
                if self.buffered_slot.is_none() {
                    let trace_id = self.source.records().trace_id;
                    self.streamed_slot(trace_id);
                }
            }
        }
        Needs::Nothing
    }

    /// Where the source's first event has no time, it gets that of the next one that has: within this message, and
    /// one message ahead where that does not keep anybody waiting. `false`: more input is needed first.
    #[cold]
    fn look_for_time(&mut self, event: &Event) -> bool {
        let latest = self.options.latest.unwrap_or(Nanos::MAX);
        let readable = |event: &Event| event.time.filter(|time| *time <= latest);
        if readable(event).is_some() || self.options.eager || self.start.is_known() {
            return true;
        }
        let events = &self.source.records().events;
        let mut next = events.iter().skip(self.next_event + 1).find_map(readable);
        if next.is_none() {
            next = match self.source.peek() {
                Peek::NeedInput => return false,
                Peek::Nothing => None,
                Peek::Message(message) => message.events.iter().find_map(readable),
            };
        }
        if let Some(next) = next {
            self.start.set_next(next);
        }
        true
    }

    /// Whether this event is whole and the next one on its connection continues it and is cut. `None`: that cannot be
    /// told before more input is read.
    fn is_cut_next(&mut self, event: &Event) -> Option<bool> {
        let len = event.body.payload.len() as u64;
        if len == 0 || event.body.truncated || event.end_stream {
            return Some(false);
        }
        let continues = |next: &Event| {
            let follows = event.seq_num == 0 || next.seq_num == event.seq_num.saturating_add(len);
            next.kind == event.kind && next.body.truncated && follows
        };
        let message = self.source.records();
        if let Some(next) = message.events.get(self.next_event + 1) {
            return Some(continues(next));
        }
        if self.buffered_slot.is_some() {
            return Some(false);
        }
        let trace_id = message.trace_id;
        match self.source.peek() {
            Peek::NeedInput => None,
            Peek::Nothing => Some(false),
            Peek::Message(next) => {
                let same = next.kind == Some(TraceKind::SocketStreamed)
                    && next.trace_id == trace_id
                    && next.connection.is_none();
                Some(same && next.events.first().is_some_and(continues))
            }
        }
    }

    /// Keeps a whole event until the cut one after it comes, which is the next thing to come.
    fn begin_joined(&mut self, event: &Event, direction: Option<Direction>) {
        let slot = self.slot_of_event(event);
        let time = self.time_of(event, slot);
        self.begin_event(slot, time, event.seq_num, direction);
        let len = event.body.payload.len() as u64;
        if let Some(direction) = direction {
            self.count(slot, event.seq_num, TrueLength::Known(len), direction, false);
        }
        let payload = self.source.message().bytes(event.body.payload);
        self.held_bytes.clear();
        self.held_bytes.extend_from_slice(payload);
        self.first = Some(First { time, len });
    }

    fn end_message(&mut self) {
        self.in_message = false;
        if let Some(slot) = self.buffered_slot.take() {
            let cut = self.source.records().cut;
            let recorded = std::mem::take(&mut self.buffered_closed);
            let kind = if cut { PendingKind::Abandoned } else { PendingKind::Closed { recorded } };
            self.end_connection(slot, kind);
        }
    }

    fn slot_of_event(&mut self, event: &Event) -> usize {
        let message = self.source.records();
        let slot = match self.buffered_slot {
            Some(slot) => slot,
            None => self.streamed_slot(message.trace_id),
        };
        if let Some(index) = event.connection {
            self.merge_event_connection(slot, index as usize);
        }
        slot
    }

    /// A `connection` of a single event supplies what the connection segment lacked.
    fn merge_event_connection(&mut self, slot: usize, index: usize) {
        let message = self.source.records();
        if let (Some(more), Some(state)) = (message.event_connections.get(index), &mut self.slots[slot]) {
            let known = &mut state.opening.connection;
            if known.local.is_none() {
                known.local.clone_from(&more.local);
            }
            if known.remote.is_none() {
                known.remote.clone_from(&more.remote);
            }
        }
    }

    fn state(&mut self, slot: usize) -> &mut State {
        self.slots[slot].as_mut().expect("a slot holds its state until its last entry was read")
    }

    fn time_of(&mut self, event: &Event, slot: usize) -> Nanos {
        let latest = self.options.latest.unwrap_or(Nanos::MAX);
        let known = event.time.filter(|time| *time <= latest);
        if known != event.time {
            let detail = "a time after the year 2106 does not fit pcap, pcapng has room for it; the time of the event \
                          before is used";
            self.find(Code::BadTime, detail.into());
        } else if known.is_none() && self.source.records().bad_time.is_none() {
            let detail = "an event without a time; that of the event before it is used, or where there is none, of the \
                          next one";
            self.find(Code::BadTime, detail.into());
        }
        let time = match known {
            Some(time) => time,
            None => self.made_up_time(slot),
        };
        let state = self.state(slot);
        state.last_time = Some(time);
        self.last_time = Some(time);
        time
    }

    /// The time of what has none.
    #[cold]
    fn made_up_time(&mut self, slot: usize) -> Nanos {
        let before = self.state(slot).last_time.or(self.last_time).map(|time| (time, TimesFrom::Before));
        let (time, times) = before.unwrap_or_else(|| self.start.get());
        let state = self.state(slot);
        if !state.opened {
            state.opening.times = times;
        }
        time
    }

    fn data(&mut self, event: Event, direction: Direction) {
        let slot = self.slot_of_event(&event);
        let time = self.time_of(&event, slot);
        self.begin_event(slot, time, event.seq_num, Some(direction));
        let len = event.body.payload.len() as u64;
        let unsure = event.body.truncated || (event.body.as_string && event.seq_num != 0);
        let mut length = if event.body.truncated { TrueLength::MoreThan(len) } else { TrueLength::Known(len) };
        if unsure && event.seq_num != 0 {
            match self.next_seq_num_in_message() {
                Some(next) => length = true_length(event.seq_num, next, len, event.body.truncated),
                None if !self.options.eager && self.buffered_slot.is_none() => {
                    self.hold(slot, time, direction, &event);
                    return;
                }
                None => {}
            }
        }
        if self.first.is_some() {
            self.hold(slot, time, direction, &event);
            self.release_as(length);
            return;
        }
        self.count(slot, event.seq_num, length, direction, event.body.truncated || event.body.as_string);
        let data = PendingData {
            direction,
            place: PayloadPlace::Message(event.body.payload),
            length,
            truncated: event.body.truncated,
            as_string: event.body.as_string,
            end_stream: event.end_stream,
            recording_stopped: event.body.truncated && self.buffered_slot.is_some(),
            joined: None,
            framing: 0,
        };
        self.push(Pending { slot, time, kind: PendingKind::Data(data) });
    }

    fn closed(&mut self, event: Event) {
        let slot = self.slot_of_event(&event);
        let time = self.time_of(&event, slot);
        self.begin_event(slot, time, first_missing(&event), None);
        if self.buffered_slot.is_some() {
            // More events may follow in the message, and with it the connection ends in any case.
            self.buffered_closed = true;
        } else {
            self.end_connection(slot, PendingKind::Closed { recorded: true });
        }
    }

    /// Begins an event at `seq_num`: what waited for it goes first, then the connection's opening, then a gap if
    /// bytes are missing in between.
    fn begin_event(&mut self, slot: usize, time: Nanos, seq_num: u64, direction: Option<Direction>) {
        if self.held.is_some() {
            self.release_held((seq_num != 0).then_some(seq_num));
        }
        if !self.state(slot).opened {
            self.open(slot, time, direction);
        }
        let state = self.state(slot);
        if seq_num == 0 || state.expected == 0 {
            return;
        }
        // A position that goes back says nothing about loss.
        let bytes = seq_num.saturating_sub(state.expected);
        if bytes > 0 {
            let certain = state.open_ended.is_some();
            let direction = state.open_ended.or(direction).unwrap_or(Direction::Outbound);
            self.push(Pending { slot, time, kind: PendingKind::Gap { direction, bytes, certain } });
        }
    }

    fn count(&mut self, slot: usize, seq_num: u64, length: TrueLength, direction: Direction, unsure: bool) {
        let state = self.state(slot);
        let (bytes, open_ended) = match length {
            TrueLength::Known(bytes) => (bytes, unsure.then_some(direction)),
            // One lost byte stands for all where the number is not known.
            TrueLength::MoreThan(bytes) => (bytes + 1, Some(direction)),
            TrueLength::Unframed(bytes) => (bytes, Some(direction)),
        };
        state.open_ended = open_ended;
        if seq_num != 0 {
            state.expected = seq_num.saturating_add(bytes);
        }
    }

    fn next_seq_num_in_message(&self) -> Option<u64> {
        let next = self.source.records().events.get(self.next_event)?;
        Some(first_missing(next)).filter(|seq_num| *seq_num != 0)
    }

    fn hold(&mut self, slot: usize, time: Nanos, direction: Direction, event: &Event) {
        let first = self.first.take();
        let payload = self.source.message().bytes(event.body.payload);
        if first.is_none() {
            self.held_bytes.clear();
        }
        self.held_bytes.extend_from_slice(payload);
        self.held = Some(Held {
            slot,
            time: first.map_or(time, |first| first.time),
            direction,
            seq_num: event.seq_num,
            as_string: event.body.as_string,
            truncated: event.body.truncated,
            end_stream: event.end_stream,
            joined: first.map(|first| Joined { first: first.len, time }),
            place: self.source_place(),
        });
    }

    /// Byte offset and index of the message that the event being read comes from.
    fn source_place(&self) -> (u64, u64) {
        self.source.records().place_of(self.next_event.saturating_sub(1))
    }

    /// Adds a finding about the event being read.
    fn find(&mut self, code: Code, detail: String) {
        let (offset, message) = self.source_place();
        self.source.add_finding(Finding { code, offset, message, detail });
    }

    /// Byte offset and index of the message that the current entry comes from.
    #[must_use]
    pub fn place(&self) -> (u64, u64) {
        match (self.current, &self.replayed) {
            (_, Some((place, _))) => *place,
            (Some(Pending { kind: PendingKind::Data(PendingData { place: PayloadPlace::Held, .. }), .. }), _) => {
                self.released_place
            }
            _ => self.source_place(),
        }
    }

    /// Lets the held event go. `next` is the position of the event that follows it on its connection, where known.
    fn release_held(&mut self, next: Option<u64>) {
        let Some(held) = &self.held else { return };
        let len = self.held_bytes.len() as u64 - held.joined.map_or(0, |joined| joined.first);
        let length = match next {
            Some(next) => true_length(held.seq_num, next, len, held.truncated),
            None if held.truncated => TrueLength::MoreThan(len),
            None => TrueLength::Known(len),
        };
        self.release_as(length);
    }

    /// Lets the held event go; `length` is its own, without an event that it was joined to.
    fn release_as(&mut self, length: TrueLength) {
        let Some(held) = self.held.take() else { return };
        std::mem::swap(&mut self.held_bytes, &mut self.released_bytes);
        self.released_place = held.place;
        self.count(held.slot, held.seq_num, length, held.direction, held.truncated || held.as_string);
        let first = held.joined.map_or(0, |joined| joined.first);
        let length = match length {
            TrueLength::Known(length) => TrueLength::Known(length.saturating_add(first)),
            TrueLength::MoreThan(length) => TrueLength::MoreThan(length.saturating_add(first)),
            TrueLength::Unframed(length) => TrueLength::Unframed(length.saturating_add(first)),
        };
        let data = PendingData {
            direction: held.direction,
            place: PayloadPlace::Held,
            length,
            truncated: held.truncated,
            as_string: held.as_string,
            end_stream: held.end_stream,
            recording_stopped: held.truncated && self.buffered_slot.is_some(),
            joined: held.joined,
            framing: 0,
        };
        self.push(Pending { slot: held.slot, time: held.time, kind: PendingKind::Data(data) });
    }

    /// The first entry of a connection, when all that can be known of it is known.
    #[cold]
    fn open(&mut self, slot: usize, time: Nanos, first: Option<Direction>) {
        let choice = self.options.role;
        if self.state(slot).opened {
            return;
        }
        let spoken = if choice == RoleChoice::Auto { self.role_from_payloads() } else { None };
        let state = self.state(slot);
        state.opened = true;
        state.opening.role_given = matches!(choice, RoleChoice::Always(_));
        state.opening.role = match choice {
            RoleChoice::Always(role) | RoleChoice::Known(role) => role,
            RoleChoice::Auto => {
                let shown = state.shown_role;
                // That Envoy has an address from the start proves nothing where its ports or words say otherwise: a
                // cluster may bind its sockets to one before they connect.
                let certain = shown.filter(|role| *role == Role::Upstream);
                let by_ports = || role_from_addresses(&state.opening.connection);
                certain.or(spoken).or_else(by_ports).or(shown).unwrap_or(match first {
                    Some(Direction::Outbound) => Role::Upstream,
                    Some(Direction::Inbound) | None => Role::Downstream,
                })
            }
        };
        self.push(Pending { slot, time, kind: PendingKind::Opened });
    }

    /// Who is the client by what is said, from the event that is being read on. A buffered trace has it all at hand;
    /// of a streamed one only this event is looked at, because how many more are at hand depends on its encoding.
    fn role_from_payloads(&self) -> Option<Role> {
        if !self.in_message {
            return None;
        }
        let message = self.source.message();
        let events = self.source.records().events.get(self.next_event.checked_sub(1)?..)?;
        let said = events.iter().filter_map(|event| {
            let direction = match event.kind {
                EventKind::Read => Direction::Inbound,
                EventKind::Write => Direction::Outbound,
                EventKind::Closed | EventKind::Absent => return None,
            };
            Some((direction, message.bytes(event.body.payload)))
        });
        role_from_first_words(said.take(if self.buffered_slot.is_some() { OPENING_EVENTS } else { 1 }))
    }

    fn end_connection(&mut self, slot: usize, kind: PendingKind) {
        let source_time = self.last_time;
        let state = self.state(slot);
        state.ending = true;
        let time = match (kind, state.last_time) {
            // It stops where the source is by now: what it still gets must not go back behind other connections.
            (PendingKind::Abandoned, Some(time)) => source_time.map_or(time, |source| source.max(time)),
            (_, Some(time)) => time,
            (_, None) => self.made_up_time(slot),
        };
        let state = self.state(slot);
        let trace_id = state.opening.trace_id;
        self.open(slot, time, None);
        self.push(Pending { slot, time, kind });
        // What comes under this id from now on is another connection, even before the entry was read.
        if self.by_trace_id.get(&trace_id) == Some(&slot) {
            self.by_trace_id.remove(&trace_id);
        }
        self.last = self.last.filter(|(_, last)| *last != slot);
    }
}

/// What reading the next event takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Needs {
    Nothing,
    Input,
}

/// The position up to which bytes must have come before this event; 0 where the trace has no positions. Envoy counts
/// one more before it numbers `closed`.
fn first_missing(event: &Event) -> u64 {
    match event.kind {
        EventKind::Closed => event.seq_num.saturating_sub(1),
        _ => event.seq_num,
    }
}

/// The length of an event that starts at `seq_num`, when the next one starts at `next`.
fn true_length(seq_num: u64, next: u64, present: u64, truncated: bool) -> TrueLength {
    match next.checked_sub(seq_num) {
        Some(length) if length >= present => TrueLength::Known(length),
        // The positions contradict the bytes: the bytes are there.
        _ if truncated => TrueLength::MoreThan(present),
        _ => TrueLength::Known(present),
    }
}

/// What the `connection` segment of a streamed trace shows. Envoy writes it when its transport socket is made: a
/// listener's is connected by then, and a cluster's has no address of its own yet.
fn role_from_first_segment(connection: &Connection) -> Option<Role> {
    match (&connection.local, &connection.remote) {
        (None, Some(_)) => Some(Role::Upstream),
        (Some(_), Some(_)) => Some(Role::Downstream),
        _ => None,
    }
}

fn role_from_addresses(connection: &Connection) -> Option<Role> {
    let port = |address: &Option<Address>| match address {
        Some(Address::Socket { port: Some(port), .. }) => u16::try_from(*port).ok(),
        _ => None,
    };
    role_from_ports(port(&connection.local)?, port(&connection.remote)?)
}
