//! Where the times of events come from.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use prost_types::Timestamp;

/// A source of times. Injected, so that traces can be made again to the byte.
pub trait Clock: Send + Sync {
    /// Time since the Unix epoch.
    fn now(&self) -> Duration;
}

/// The system's clock in microsecond steps, which is what Envoy's traces of today hold.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        // A clock set before 1970 gives traces that start in 1970.
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
        // 2^64 nanoseconds end in the year 2554; there the clock stops.
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

/// `now` as a trace holds it.
pub(super) fn timestamp(clock: &dyn Clock) -> Timestamp {
    let now = clock.now();
    Timestamp {
        // A Duration's seconds reach further than an i64's; such a clock is broken, and its times end there.
        seconds: i64::try_from(now.as_secs()).unwrap_or(i64::MAX),
        // Below 1,000,000,000.
        nanos: now.subsec_nanos().cast_signed(),
    }
}
