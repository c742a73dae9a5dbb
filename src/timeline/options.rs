//! How timelines are assembled.

use super::{HttpOptions, RoleChoice};
use crate::{input, trace::Nanos};

/// How timelines are assembled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimelineOptions {
    /// Who opened the connections.
    pub role: RoleChoice,
    /// The time of events before the first that has one, whatever the trace shows: nanoseconds since the Unix epoch.
    pub start_time: Option<Nanos>,
    /// The same where the trace has no time at all: that of other traces in the capture.
    pub neighbours: Option<Nanos>,
    /// The source is a file of this kind at its path. Its beginning is read once more where its first event has no
    /// time, to find the first that has one, and without any the file's modification time stands for it.
    pub reread: Option<input::SourceOptions>,
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

/// The limit unless [`TimelineOptions::max_connections`] says otherwise.
pub const MAX_CONNECTIONS: usize = 100_000;
