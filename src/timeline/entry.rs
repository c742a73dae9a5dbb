//! What a timeline is made of: entries of connections.

use super::{Direction, HttpOpening, Role, TimesFrom};
use crate::trace::{Connection, Nanos, Place};

/// One connection of a source: a small number, which another connection gets after the last entry of this one.
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

    /// A connection that has never had one.
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
    /// The same for a replayed body. The framing is made up and ends with these bytes: nothing stands for the others.
    Unframed(u64),
}

impl TrueLength {
    /// As much known of another length, which `change` makes of this one.
    #[must_use]
    pub(crate) fn map(self, change: impl FnOnce(u64) -> u64) -> Self {
        match self {
            Self::Known(length) => Self::Known(change(length)),
            Self::MoreThan(length) => Self::MoreThan(change(length)),
            Self::Unframed(length) => Self::Unframed(change(length)),
        }
    }
}

/// What is known of bytes that crossed the tapped socket. `P` is the bytes or where they are, `N` a note about them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<P, N> {
    /// Which way.
    pub direction: Direction,
    /// The bytes that are there: the first ones of the event.
    pub payload: P,
    /// How many there were, [`Record::payload`] included.
    pub length: TrueLength,
    /// Envoy cut the event to a size limit.
    pub truncated: bool,
    /// JSON_BODY_AS_STRING: what is missing is not the end but runs of bytes that became spaces, anywhere.
    pub as_string: bool,
    /// Envoy closed its direction after these bytes.
    pub end_stream: bool,
    /// Buffered trace: recording of this direction stopped here, whatever followed.
    pub recording_stopped: bool,
    /// Two events in one: see [`TimelineOptions::join`](super::TimelineOptions::join).
    pub joined: Option<JoinedEvents>,
    /// Replayed HTTP: bytes of the payload that are no body.
    pub framing: u64,
    /// Replayed HTTP: what people should know of these bytes, in lines that are safe for terminals; empty for most.
    pub note: N,
}

/// Bytes that crossed the tapped socket, as an entry has them.
pub type Data<'a> = Record<&'a [u8], &'a str>;

impl<P, N: Default> Record<P, N> {
    /// Bytes that are whole, and of which there is nothing to say.
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
            note: N::default(),
        }
    }
}

impl<P, N> Record<P, N> {
    /// The same with other bytes and another note.
    #[inline(always)]
    pub(in crate::timeline) fn with<Q, M>(self, payload: Q, note: M) -> Record<Q, M> {
        let Self { direction, length, truncated, as_string, end_stream, recording_stopped, joined, framing, .. } = self;
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
            note,
        }
    }
}

/// How a cut event was joined to the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JoinedEvents {
    /// Bytes of the first event, which is whole; the entry has its time.
    pub first: u64,
    /// The time of the second event, which is cut.
    pub time: Nanos,
}

/// One entry of a connection's timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Which connection.
    pub connection: ConnectionId,
    /// When, in nanoseconds since the Unix epoch.
    pub time: Nanos,
    /// What.
    pub kind: EntryKind<Data<'a>>,
}

/// What an [`Entry`] says. `D` is [`Data`], or what becomes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind<D> {
    /// The connection's first entry; [`Timelines::opening`](super::Timelines::opening) tells about it.
    Opened,
    /// Bytes.
    Data(D),
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

impl<D> EntryKind<D> {
    /// The connection's last entry.
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
    /// Where the message begins that brought the connection.
    pub place: Place,
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
