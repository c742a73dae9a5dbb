//! SIGINT and SIGTERM: they end a conversion in order. The first one sets a flag and wakes a read of standard input;
//! the second one ends the process at once.
//!
//! Whoever writes to a pipe may wait for a reader that never reads, in `open` or in `write`. No flag ends that, and
//! writing without waiting is not to be had for standard output, which other processes share. So whoever may wait says so
//! with `waiting`, and a thread of its own ends the process where that takes too long after a signal.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::{
        fd::AsFd,
        unix::{fs::OpenOptionsExt, net::UnixStream},
    },
    path::{Path, PathBuf},
    sync::{
        Arc, LazyLock, Mutex, MutexGuard, Once, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::OFlags,
};
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    flag, low_level,
};

static SIGNAL: LazyLock<Arc<AtomicUsize>> = LazyLock::new(Arc::default);

/// Becomes readable with the first signal.
static WAKE: OnceLock<UnixStream> = OnceLock::new();

/// Takes over the two signals.
///
/// # Errors
/// Where the operating system refuses.
pub(crate) fn install() -> io::Result<()> {
    let (read, write) = UnixStream::pair()?;
    let again = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In the order of registration: a second signal, of either kind, exits with the status that a shell gives it.
        flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&again))?;
        flag::register(signal, Arc::clone(&again))?;
        flag::register_usize(signal, Arc::clone(&SIGNAL), signal.unsigned_abs() as usize)?;
        low_level::pipe::register(signal, write.try_clone()?)?;
    }
    // Only set here, and a second call would be of no use.
    let _ = WAKE.set(read);
    Ok(())
}

/// The signal that arrived, if one did.
#[inline]
#[must_use]
pub(crate) fn signal() -> Option<u8> {
    u8::try_from(SIGNAL.load(Ordering::Relaxed)).ok().filter(|signal| *signal != 0)
}

/// Standard input that ends when a signal arrives.
pub(crate) fn stdin() -> impl Read + Send {
    // Not read through io::stdin(): its buffer would hide bytes from poll.
    Interruptible(io::stdin())
}

/// Opens a file without waiting, as a pipe with a name would until somebody writes to it.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(path)
}

/// A pipe or a device, which may keep its reader waiting: it ends when a signal arrives.
pub(crate) struct Interruptible<F>(pub F);

impl<F: AsFd> Read for Interruptible<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let input = PollFd::new(&self.0, PollFlags::IN);
            match WAKE.get() {
                Some(wake) => {
                    let mut fds = [input, PollFd::new(wake, PollFlags::IN)];
                    poll(&mut fds, None)?;
                    if !fds[1].revents().is_empty() {
                        return Ok(0);
                    }
                }
                None => {
                    poll(&mut [input], None)?;
                }
            }
            match rustix::io::read(&self.0, &mut *buffer) {
                // Somebody else was faster.
                Err(rustix::io::Errno::AGAIN) => {}
                result => return Ok(result?),
            }
        }
    }
}

/// How long a reader may do nothing after a signal. tshark takes most of it to start.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);

/// How often that is looked at.
pub(crate) const INTERVAL: Duration = Duration::from_millis(50);

/// Since when each of those waits that are in [`waiting`].
static WAITS: Mutex<BTreeMap<u64, Instant>> = Mutex::new(BTreeMap::new());

/// Files under their temporary names.
static UNFINISHED: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that can panic leaves one half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Held while a thread may wait for whoever is at the other end of a pipe.
#[must_use]
pub(crate) struct Waiting(u64);

/// Says that this thread may wait for a reader.
pub(crate) fn waiting() -> Waiting {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    static WATCH: Once = Once::new();
    // Not before: most runs write to files alone.
    WATCH.call_once(|| {
        if let Some(wake) = WAKE.get() {
            // Where there is no room for another thread, a second signal ends the process.
            let _ = thread::Builder::new().name("signals".into()).spawn(move || watch(wake));
        }
    });
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    lock(&WAITS).insert(number, Instant::now());
    Waiting(number)
}

impl Drop for Waiting {
    fn drop(&mut self) {
        lock(&WAITS).remove(&self.0);
    }
}

/// Whether somebody has been waiting for too long, since the signal that came at `signalled` or later.
pub(crate) fn is_stuck(signalled: Instant) -> bool {
    lock(&WAITS).values().any(|since| (*since).max(signalled).elapsed() >= PATIENCE)
}

/// Ends the process where the first signal cannot: nothing unfinished is left.
fn watch(wake: &UnixStream) {
    while poll(&mut [PollFd::new(wake, PollFlags::IN)], None).is_err() {}
    let signalled = Instant::now();
    while !is_stuck(signalled) {
        thread::sleep(INTERVAL);
    }
    for path in &*lock(&UNFINISHED) {
        // It may be complete and have its name by now.
        let _ = fs::remove_file(path);
    }
    low_level::exit(128 + i32::from(signal().unwrap_or(0)));
}

/// A file under its temporary name, which shall not stay when the process has to be ended.
#[derive(Debug)]
pub(crate) struct TemporaryPath(PathBuf);

impl TemporaryPath {
    pub(crate) fn new(path: &Path) -> Self {
        lock(&UNFINISHED).insert(path.to_owned());
        Self(path.to_owned())
    }
}

impl Drop for TemporaryPath {
    fn drop(&mut self) {
        lock(&UNFINISHED).remove(&self.0);
    }
}

/// A stream that people or other programs read, and may stop reading.
pub(crate) struct Watched<W>(pub W);

impl<W: Write> Write for Watched<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _waiting = waiting();
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        let _waiting = waiting();
        self.0.flush()
    }
}
