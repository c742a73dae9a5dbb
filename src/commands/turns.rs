//! Workers read inputs at the same time, and what they write comes in the order of the inputs.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::error::Error;

/// The most workers: each has a trace open.
const MAX_JOBS: usize = 32;

/// What workers share, and whose turn it is to write.
#[derive(Debug)]
pub(super) struct Turns<T> {
    state: Mutex<State<T>>,
    /// Wakes those who wait for their turn.
    turned: Condvar,
}

#[derive(Debug)]
struct State<T> {
    /// The next input that is read.
    next: usize,
    /// The input that may be written.
    turn: usize,
    failed: Option<Error>,
    shared: T,
}

impl<T> Turns<T> {
    pub(super) fn new(shared: T) -> Self {
        Self { state: Mutex::new(State { next: 0, turn: 0, failed: None, shared }), turned: Condvar::new() }
    }

    /// Runs `work` in this many threads, this one among them, but in no more than there are inputs.
    pub(super) fn run(&self, jobs: usize, inputs: usize, work: impl Fn() + Sync)
    where
        T: Send,
    {
        let work = || {
            let _ends_others = FailsInPanic(self);
            work();
        };
        std::thread::scope(|scope| {
            for _ in 1..jobs.min(inputs).min(MAX_JOBS) {
                // If another thread cannot be started, the others do the work.
                if std::thread::Builder::new().spawn_scoped(scope, work).is_err() {
                    break;
                }
            }
            work();
        });
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next input that a worker should read, with its index; `None` if there is none, or after a failure.
    pub(super) fn next<'a, I>(&self, inputs: &'a [I]) -> Option<(usize, &'a I)> {
        let mut state = self.lock();
        let index = state.next;
        let input = inputs.get(index).filter(|_| state.failed.is_none())?;
        state.next += 1;
        Some((index, input))
    }

    /// Does the work of one worker: one input after another. An error of `work` ends all work; otherwise the turn passes
    /// on after it.
    pub(super) fn each<'a, I>(&self, inputs: &'a [I], mut work: impl FnMut(usize, &'a I) -> Result<(), Error>) {
        while let Some((index, input)) = self.next(inputs) {
            if let Err(error) = work(index, input) {
                self.fail(error);
            }
            self.pass(index);
        }
    }

    /// Uses what is shared, whosever turn it is.
    pub(super) fn with<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        change(&mut self.lock().shared)
    }

    /// Uses what is shared at the turn of an input. If it is not yet its turn, waits for it or, if it must not `wait`,
    /// does nothing. Returns whether it was its turn.
    ///
    /// # Errors
    /// Those of `write`; [`Error::Stopped`] after a failure, when nobody is interested any more.
    pub(super) fn at_turn(
        &self,
        index: usize,
        wait: bool,
        write: impl FnOnce(&mut T) -> Result<(), Error>,
    ) -> Result<bool, Error> {
        let mut state = self.lock();
        while state.turn != index && state.failed.is_none() {
            if !wait {
                return Ok(false);
            }
            state = self.turned.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.failed.is_some() {
            return Err(Error::Stopped);
        }
        write(&mut state.shared).map(|()| true)
    }

    /// Lets the next input be written, once this one is.
    pub(super) fn pass(&self, index: usize) {
        let mut state = self.lock();
        while state.turn != index && state.failed.is_none() {
            state = self.turned.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.turn = index + 1;
        drop(state);
        self.turned.notify_all();
    }

    /// Ends the work. Only the first failure is reported.
    pub(super) fn fail(&self, error: Error) {
        self.lock().failed.get_or_insert(error);
        self.turned.notify_all();
    }

    /// What was shared.
    ///
    /// # Errors
    /// Why the work has failed.
    pub(super) fn finish(self) -> Result<T, Error> {
        let State { failed, shared, .. } = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        failed.map_or(Ok(shared), Err)
    }
}

/// Ends the work if the thread that has it panics, because the others would wait for its turn to pass.
struct FailsInPanic<'a, T>(&'a Turns<T>);

impl<T> Drop for FailsInPanic<'_, T> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail(Error::Stopped);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
        sync::atomic::{AtomicUsize, Ordering},
    };

    use super::*;

    #[test]
    fn nobody_waits_for_a_worker_that_panicked() {
        let turns = Turns::new(());
        let (next, stopped) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let run = || {
            turns.run(3, 3, || match next.fetch_add(1, Ordering::Relaxed) {
                0 => resume_unwind(Box::new("the first one")),
                index => {
                    let result = turns.at_turn(index, true, |()| Ok(()));
                    stopped.fetch_add(usize::from(matches!(result, Err(Error::Stopped))), Ordering::Relaxed);
                    turns.pass(index);
                }
            });
        };
        assert!(catch_unwind(AssertUnwindSafe(run)).is_err());
        assert_eq!(stopped.into_inner(), 2);
    }
}
