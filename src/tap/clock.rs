//! The source of the events' times.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use prost_types::Timestamp;

/// A source of times. It is injected, so that traces can be reproduced byte for byte.
pub trait Clock: Send + Sync {
    /// Time since the Unix epoch.
    fn now(&self) -> Duration;
}

/// The system's clock in microsecond steps, the precision of current Envoy traces.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        // If the clock is set before 1970, the times are 1970-01-01.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Duration::new(now.as_secs(), now.subsec_micros() * 1_000)
    }
}

/// A clock that stands still until it is set.
#[derive(Debug, Default)]
pub struct ManualClock {
    nanos: AtomicU64,
}

impl ManualClock {
    /// A clock that stands at `time` since the Unix epoch.
    #[must_use]
    pub fn at(time: Duration) -> Self {
        let clock = Self::default();
        clock.advance(time);
        clock
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        // The clock stops in the year 2554, after 2^64 nanoseconds.
        let by = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        let now = self.nanos.load(Ordering::Relaxed).saturating_add(by);
        self.nanos.store(now, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Duration {
        Duration::from_nanos(self.nanos.load(Ordering::Relaxed))
    }
}

/// The clock's time in the form that a trace has.
pub(super) fn timestamp(clock: &dyn Clock) -> Timestamp {
    let now = clock.now();
    Timestamp {
        // A Duration can have more seconds than an i64 holds, but only if the clock is broken.
        seconds: i64::try_from(now.as_secs()).unwrap_or(i64::MAX),
        // The cast is safe: the value is below 1,000,000,000.
        nanos: now.subsec_nanos().cast_signed(),
    }
}
