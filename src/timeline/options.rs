//! Options of timelines.

use super::{HttpOptions, RoleChoice};
use crate::{input, trace::Nanos};

/// How timelines are assembled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimelineOptions {
    /// Who opened the connections.
    pub role: RoleChoice,
    /// The time of events before the first one with a time, in nanoseconds since the Unix epoch. It overrides what the
    /// trace shows.
    pub start_time: Option<Nanos>,
    /// The time of events in a trace without any time: the earliest time of the other traces in the capture.
    pub neighbours: Option<Nanos>,
    /// Set if the source's path may be a file that can be read again, with these options. If its first event has no time,
    /// the file's beginning is read again to find the first time. Without one, the file's modification time stands for it.
    pub reread: Option<input::SourceOptions>,
    /// Whether to release each event at once, even if only the next event tells its length. Live streams need this.
    pub eager: bool,
    /// Whether to join a cut event to the whole one right before it in the same direction. A dissector that waits for
    /// the rest of the first event cannot reassemble it from a cut segment, and would show neither.
    pub join: bool,
    /// The latest time that the capture can hold; `None` for any time.
    pub latest: Option<Nanos>,
    /// How many connections may be open at once. One more abandons the oldest.
    pub max_connections: Option<usize>,
    /// How HTTP traces are replayed.
    pub http: HttpOptions,
    /// What becomes of the messages of HTTP traces.
    pub http_taps: HttpTaps,
}

/// What becomes of the messages of HTTP traces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HttpTaps {
    /// They are replayed as entries.
    #[default]
    Replayed,
    /// [`Timelines::unreplayed`](super::Timelines::unreplayed) gives them, and there are no entries of them.
    Unreplayed,
    /// [`Timelines::unreplayed`](super::Timelines::unreplayed) gives them, and then they are replayed as entries.
    Both,
}

impl HttpTaps {
    /// Whether the messages are given out as they are.
    #[must_use]
    pub fn are_given(self) -> bool {
        self != Self::Replayed
    }
}

/// The default of [`TimelineOptions::max_connections`].
pub const MAX_CONNECTIONS: usize = 100_000;
