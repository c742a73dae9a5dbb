//! Waiting for a condition. A test that slept for a fixed time instead would fail on a busy machine and waste time on an
//! idle one, so the only pause between two looks is the one in this module.

use std::{
    fs,
    os::fd::AsFd,
    thread,
    time::{Duration, Instant},
};

/// Longer than anything takes that is not stuck.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The pause between two looks at a condition.
const PAUSE: Duration = Duration::from_millis(2);

/// Looks until there is a result, or returns `None` after `bound`.
pub fn within<T>(bound: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    loop {
        match look() {
            None if start.elapsed() < bound => thread::sleep(PAUSE),
            result => return result,
        }
    }
}

/// Waits until a condition holds.
#[track_caller]
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    assert!(within(PATIENCE, || holds().then_some(())).is_some(), "waited in vain: {what}");
}

/// Waits until a process has nothing to do, because it waits for input, for a reader or for a signal.
#[track_caller]
pub fn wait_until_idle(process: u32) {
    let mut idle = Idle::of(process);
    wait_until("the process waits", || idle.look());
}

/// Tells whether a process has nothing to do.
pub struct Idle {
    process: u32,
    switches: Option<u64>,
    quiet_looks: u32,
}

impl Idle {
    /// A thread that waits for another thread or for a disk may be quiet for a few looks, so more are needed.
    const QUIET_LOOKS: u32 = 20;

    pub fn of(process: u32) -> Self {
        Self { process, switches: None, quiet_looks: 0 }
    }

    /// Whether no thread has run since the last looks.
    pub fn look(&mut self) -> bool {
        let switches = context_switches(self.process);
        let is_quiet = switches.is_some() && switches == self.switches;
        self.quiet_looks = if is_quiet { self.quiet_looks + 1 } else { 0 };
        self.switches = switches;
        self.quiet_looks >= Self::QUIET_LOOKS
    }
}

/// The context switches of all threads of a process, or `None` while one of them runs.
fn context_switches(process: u32) -> Option<u64> {
    let mut switches = 0;
    for thread in fs::read_dir(format!("/proc/{process}/task")).ok()? {
        let status = fs::read_to_string(thread.ok()?.path().join("status")).ok()?;
        for line in status.lines() {
            match line.split_once(":\t") {
                // Neither asleep nor a zombie.
                Some(("State", state)) if !state.starts_with(['S', 'Z']) => return None,
                Some((name, count)) if name.ends_with("voluntary_ctxt_switches") => {
                    switches += count.parse::<u64>().ok()?;
                }
                _ => {}
            }
        }
    }
    Some(switches)
}

/// Whether a process handles SIGINT.
pub fn handles_signals(process: u32) -> bool {
    const SIGINT: u64 = 1 << 1;
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:\t")).unwrap();
    u64::from_str_radix(caught, 16).unwrap() & SIGINT != 0
}

/// How many bytes wait in a pipe or socket to be read.
pub fn unread(pipe: impl AsFd) -> u64 {
    rustix::io::ioctl_fionread(pipe).unwrap()
}
