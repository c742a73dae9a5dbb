//! The entries that timelines consist of.

use super::{Direction, HttpOpening, Role, TimesFrom};
use crate::trace::{Connection, Nanos, Place, ReplayNote, Span};

/// One connection of a source: a small number, which a later connection may get after this one's last entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(usize);

impl ConnectionId {
    /// The number.
    #[inline]
    #[must_use]
    pub fn index(self) -> usize {
        self.0
    }
}

/// One value for each open connection of a source.
#[derive(Debug)]
pub(crate) struct PerConnection<T>(Vec<Option<T>>);

impl<T> Default for PerConnection<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> PerConnection<T> {
    /// The connection's value.
    #[inline]
    #[must_use]
    pub(crate) fn get(&self, connection: ConnectionId) -> Option<&T> {
        self.0.get(connection.0)?.as_ref()
    }

    /// The connection's value.
    #[inline]
    #[must_use]
    pub(crate) fn get_mut(&mut self, connection: ConnectionId) -> Option<&mut T> {
        self.0.get_mut(connection.0)?.as_mut()
    }

    /// Gives the connection its value, which replaces the one before.
    pub(crate) fn insert(&mut self, connection: ConnectionId, value: T) {
        if self.0.len() <= connection.0 {
            self.0.resize_with(connection.0 + 1, || None);
        }
        self.0[connection.0] = Some(value);
    }

    /// Takes the connection's value.
    #[must_use]
    pub(crate) fn take(&mut self, connection: ConnectionId) -> Option<T> {
        self.0.get_mut(connection.0)?.take()
    }

    /// A number that no connection has had.
    pub(super) fn next_id(&self) -> ConnectionId {
        ConnectionId(self.0.len())
    }

    /// Every connection that has a value.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (ConnectionId, &T)> {
        self.0.iter().enumerate().filter_map(|(index, value)| Some((ConnectionId(index), value.as_ref()?)))
    }
}

/// How many bytes an event really had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrueLength {
    /// Exactly this many.
    Known(u64),
    /// More than this many; Envoy did not record how many.
    MoreThan(u64),
    /// More than this many, in a replayed body. The made-up framing ends with these bytes, and nothing stands for the
    /// missing ones.
    Unframed(u64),
}

impl TrueLength {
    /// Changes the number, but not how much is known of it.
    #[must_use]
    pub(crate) fn map(self, change: impl FnOnce(u64) -> u64) -> Self {
        match self {
            Self::Known(length) => Self::Known(change(length)),
            Self::MoreThan(length) => Self::MoreThan(change(length)),
            Self::Unframed(length) => Self::Unframed(change(length)),
        }
    }
}

/// Where the bytes of an entry are.
#[derive(Clone, Copy, Debug)]
pub(in crate::timeline) enum PayloadPlace {
    /// In the current message.
    Message(Span),
    /// In the buffer of the held event that was released.
    Held,
    /// Start and end in the buffer of the HTTP replay.
    Replay(usize, usize),
}

/// What is known of bytes that crossed the tapped socket. `P` is the bytes or their place, `N` the notes on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<P, N> {
    /// The direction of the bytes.
    pub direction: Direction,
    /// The bytes in the trace, which are the first ones of the event.
    pub payload: P,
    /// How many bytes the event really had, [`Record::payload`] included.
    pub length: TrueLength,
    /// Envoy cut the event to a size limit.
    pub truncated: bool,
    /// The body is from JSON_BODY_AS_STRING: bytes may be missing anywhere, because it turns runs of binary data into
    /// spaces.
    pub as_string: bool,
    /// Envoy closed this direction after these bytes.
    pub end_stream: bool,
    /// A buffered trace stopped recording this direction here, whatever followed.
    pub recording_stopped: bool,
    /// Set if these are two events: see [`TimelineOptions::join`](super::TimelineOptions::join).
    pub joined: Option<JoinedEvents>,
    /// How many bytes of the payload are made-up framing of replayed HTTP.
    pub framing: u64,
    /// How many of the missing bytes the trace has, but were taken out of what is shared.
    pub withheld: u64,
    /// What people should know of replayed HTTP; mostly empty.
    pub notes: N,
}

/// The bytes of an entry.
pub type Data<'a> = Record<&'a [u8], &'a [ReplayNote]>;

impl<P, N: Default> Record<P, N> {
    /// A record of bytes that are complete and need no notes.
    #[inline(always)]
    pub(crate) fn whole(direction: Direction, payload: P, bytes: u64) -> Self {
        Self {
            direction,
            payload,
            length: TrueLength::Known(bytes),
            truncated: false,
            as_string: false,
            end_stream: false,
            recording_stopped: false,
            joined: None,
            framing: 0,
            withheld: 0,
            notes: N::default(),
        }
    }
}

impl<P, N> Record<P, N> {
    /// Replaces the bytes and the notes.
    #[inline(always)]
    pub(in crate::timeline) fn with<Q, M>(self, payload: Q, notes: M) -> Record<Q, M> {
        let Self {
            direction,
            length,
            truncated,
            as_string,
            end_stream,
            recording_stopped,
            joined,
            framing,
            withheld,
            ..
        } = self;
        Record {
            direction,
            payload,
            length,
            truncated,
            as_string,
            end_stream,
            recording_stopped,
            joined,
            framing,
            withheld,
            notes,
        }
    }
}

/// How a cut event was joined to the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JoinedEvents {
    /// How many bytes the first event has. It is whole, and the entry has its time.
    pub first: u64,
    /// The time of the second event, which is cut.
    pub time: Nanos,
}

/// One entry of a connection's timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The connection.
    pub connection: ConnectionId,
    /// The time in nanoseconds since the Unix epoch.
    pub time: Nanos,
    /// What happened.
    pub kind: EntryKind<Data<'a>>,
}

/// The kinds of an [`Entry`]. `D` is [`Data`], or a form of it without the bytes or with a copy of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind<D> {
    /// The connection's first entry. [`Timelines::opening`](super::Timelines::opening) describes the connection.
    Opened,
    /// Bytes in one direction.
    Data(D),
    /// Bytes that crossed the socket and are not in the trace. If `certain`, they belong to the event before, whose
    /// length was unknown when it came. Otherwise, they may have gone in the other direction.
    Gap {
        /// The direction, or a guess if not `certain`.
        direction: Direction,
        /// How many bytes are missing.
        bytes: u64,
        /// Whether the direction is known.
        certain: bool,
    },
    /// The last entry of a connection that ended.
    Closed {
        /// Whether the trace has an event for the end. A buffered trace only implies it.
        recorded: bool,
    },
    /// The last entry of a connection whose trace stops before it ended.
    Abandoned,
}

impl<D> EntryKind<D> {
    /// Whether this is the connection's last entry.
    pub(super) fn is_last(&self) -> bool {
        matches!(self, Self::Closed { .. } | Self::Abandoned)
    }

    #[inline(always)]
    pub(super) fn map<E>(self, data: impl FnOnce(D) -> E) -> EntryKind<E> {
        match self {
            Self::Opened => EntryKind::Opened,
            Self::Data(record) => EntryKind::Data(data(record)),
            Self::Gap { direction, bytes, certain } => EntryKind::Gap { direction, bytes, certain },
            Self::Closed { recorded } => EntryKind::Closed { recorded },
            Self::Abandoned => EntryKind::Abandoned,
        }
    }
}

/// What is known of a connection when its first entry comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    /// The trace's `trace_id`.
    pub trace_id: u64,
    /// Whether the trace is buffered, not streamed.
    pub buffered: bool,
    /// The two ends.
    pub connection: Connection,
    /// Who opened it.
    pub role: Role,
    /// Whether the role was given by the user.
    pub role_given: bool,
    /// Where the connection's first message begins.
    pub place: Place,
    /// Where the time of the connection's beginning comes from.
    pub times: TimesFrom,
    /// Set for an HTTP trace, whose bytes are replayed.
    pub http: Option<HttpOpening>,
}

impl Opening {
    /// Whether this is a streamed socket trace with a remote address and no local one. That is a cluster's connection,
    /// which is not connected yet when its trace begins.
    pub(super) fn is_unconnected_cluster(&self) -> bool {
        !self.buffered && self.http.is_none() && self.connection.local.is_none() && self.connection.remote.is_some()
    }
}
