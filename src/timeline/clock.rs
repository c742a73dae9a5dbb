//! The times of a source's events, and of those that have none.

use super::{TimelineOptions, TimesFrom, start::Start};
use crate::{
    input::Source,
    trace::{Event, Nanos},
};

/// What the time of the last event was, and where times begin.
#[derive(Debug)]
pub(super) struct EventClock {
    /// The latest time that the capture can hold.
    pub(super) latest: Nanos,
    /// Of the last event, made up or not.
    pub(super) last: Option<Nanos>,
    pub(super) start: Start,
}

impl EventClock {
    pub(super) fn new(source: &Source, options: &TimelineOptions) -> Self {
        let latest = options.latest.unwrap_or(Nanos::MAX);
        Self { latest, last: None, start: Start::new(source, options) }
    }

    /// The time of an event, if the capture can hold it.
    pub(super) fn readable(&self, event: &Event) -> Option<Nanos> {
        event.time.filter(|time| *time <= self.latest)
    }

    /// A time for what has none, after `before` on its connection.
    #[cold]
    pub(super) fn make_up(&mut self, before: Option<Nanos>) -> (Nanos, TimesFrom) {
        match before.or(self.last) {
            Some(time) => (time, TimesFrom::Before),
            None => self.start.get(),
        }
    }
}
