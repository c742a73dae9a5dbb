//! When the bytes of a live source arrived.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::trace::Nanos;

/// How many arrivals are remembered that nobody has asked for. Of more, the later of two neighbours stays.
const MAX_REMEMBERED: usize = 1 << 16;

/// When the bytes of a live source arrived, in nanoseconds since the Unix epoch. The thread that receives them notes
/// it, because they may wait for a long time until they are converted.
#[derive(Debug, Default)]
pub(crate) struct Arrivals(Mutex<VecDeque<Arrival>>);

/// Bytes that arrived together.
#[derive(Clone, Copy, Debug)]
struct Arrival {
    /// The offset in the source of the byte after them.
    end: u64,
    time: Nanos,
}

impl Arrivals {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Arrival>> {
        // A panic cannot leave the list half changed, so a poisoned lock is as good as any.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that all bytes before offset `end` are there.
    pub(crate) fn note(&self, end: u64, time: Nanos) {
        let mut arrivals = self.lock();
        match arrivals.back_mut() {
            // The clock may have been set back.
            Some(last) if last.time >= time => last.end = end,
            _ => arrivals.push_back(Arrival { end, time }),
        }
        if arrivals.len() > MAX_REMEMBERED {
            let mut left = arrivals.len();
            arrivals.retain(|_| {
                left -= 1;
                left.is_multiple_of(2)
            });
        }
    }

    /// When the last of the bytes before offset `end` arrived. Offsets must not go back from call to call.
    pub(crate) fn time(&self, end: u64) -> Option<Nanos> {
        let mut arrivals = self.lock();
        while arrivals.len() > 1 && arrivals[0].end < end {
            arrivals.pop_front();
        }
        arrivals.front().map(|arrival| arrival.time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_arrived_when_the_last_of_them_did() {
        let arrivals = Arrivals::default();
        assert_eq!(arrivals.time(1), None);
        arrivals.note(10, 100);
        arrivals.note(20, 200);
        arrivals.note(25, 200);
        // The clock was set back.
        arrivals.note(30, 150);
        assert_eq!(arrivals.time(5), Some(100));
        assert_eq!(arrivals.time(10), Some(100));
        assert_eq!(arrivals.time(11), Some(200));
        assert_eq!(arrivals.time(30), Some(200));
        assert_eq!(arrivals.time(99), Some(200));
    }

    #[test]
    fn what_nobody_asks_for_has_a_bound_and_no_byte_gets_a_time_before_its_own() {
        let arrivals = Arrivals::default();
        let many = 5 * MAX_REMEMBERED as u64;
        for index in 1..=many {
            arrivals.note(index * 10, index * 1000);
        }
        assert!(arrivals.lock().len() <= MAX_REMEMBERED);
        for index in (1..=many).step_by(997) {
            let time = arrivals.time(index * 10).unwrap();
            assert!(time >= index * 1000, "{index}: {time}");
        }
        assert_eq!(arrivals.time(many * 10), Some(many * 1000));
    }
}
