//! The times of a source's events, and made-up times for events without one.

use super::{TimelineOptions, TimesFrom, start_time::Start};
use crate::{
    input::Source,
    trace::{Event, Nanos},
};

/// The time of the last event, and the start time before there is one.
#[derive(Debug)]
pub(super) struct EventClock {
    /// The latest time that the capture can hold.
    pub(super) latest: Nanos,
    /// The time of the last event, recorded or made up.
    pub(super) last: Option<Nanos>,
    pub(super) start: Start,
    /// When the current message arrived, if the source is live.
    pub(super) arrived: Option<Nanos>,
}

impl EventClock {
    pub(super) fn new(source: &Source, options: &TimelineOptions) -> Self {
        let latest = options.latest.unwrap_or(Nanos::MAX);
        Self { latest, last: None, start: Start::new(source, options), arrived: None }
    }

    /// The event's time, if it has one that the capture can hold.
    pub(super) fn readable(&self, event: &Event) -> Option<Nanos> {
        event.time.filter(|time| *time <= self.latest)
    }

    /// Makes up a time. `before` is the last time on the same connection.
    #[cold]
    pub(super) fn make_up(&mut self, before: Option<Nanos>) -> (Nanos, TimesFrom) {
        match (before.or(self.last), self.arrived) {
            (before, Some(arrived)) => (before.map_or(arrived, |before| before.max(arrived)), TimesFrom::Arrival),
            (Some(time), None) => (time, TimesFrom::Before),
            (None, None) => self.start.get(),
        }
    }
}
