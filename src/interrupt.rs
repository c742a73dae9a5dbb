//! SIGINT and SIGTERM end a conversion in an orderly way. The first signal sets a flag and wakes a read of standard
//! input; a second one ends the process at once.
//!
//! A thread that writes to a pipe may block, in `open` or in `write`, because the reader never reads. A flag cannot end
//! that, and standard output cannot be made non-blocking, because other processes share it. So such a thread calls
//! [`waiting`] first, and a watchdog thread ends the process if a wait lasts too long after a signal.

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
    event::{PollFd, PollFlags, Timespec, poll},
    fs::OFlags,
};
use signal_hook::{
    SigId,
    consts::{SIGINT, SIGTERM},
    flag, low_level,
};

static SIGNAL: LazyLock<Arc<AtomicUsize>> = LazyLock::new(Arc::default);

/// Becomes readable with the first signal.
static WAKE: OnceLock<UnixStream> = OnceLock::new();

/// The actions by which a second signal ends the process.
static LAST_WORDS: Mutex<Vec<SigId>> = Mutex::new(Vec::new());

/// Installs handlers for the two signals.
///
/// # Errors
/// The operating system refused.
pub(crate) fn install() -> io::Result<()> {
    let (read, write) = UnixStream::pair()?;
    let again = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // The actions of a signal run in the order of their registration, so the first one sees `again` only on a
        // second signal, of either kind. It exits with the status that a shell reports for the signal.
        let ends = flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&again))?;
        lock(&LAST_WORDS).push(ends);
        flag::register(signal, Arc::clone(&again))?;
        flag::register_usize(signal, Arc::clone(&SIGNAL), signal.unsigned_abs() as usize)?;
        low_level::pipe::register(signal, write.try_clone()?)?;
    }
    // This fails only if `install` ran before, and then the first stream serves as well.
    let _ = WAKE.set(read);
    Ok(())
}

/// The signal that arrived, if one did.
#[inline]
#[must_use]
pub(crate) fn signal() -> Option<u8> {
    u8::try_from(SIGNAL.load(Ordering::Relaxed)).ok().filter(|signal| *signal != 0)
}

/// Becomes readable when a signal arrives, and stays so. For those who wait in ways of their own.
#[cfg(feature = "live")]
#[must_use]
pub(crate) fn wake() -> Option<std::os::fd::BorrowedFd<'static>> {
    WAKE.get().map(AsFd::as_fd)
}

/// From now on, a second signal does not end this process. Each signal yields a byte instead, and [`signal`] tells the
/// latest: it is to be passed on to another program, or what it means depends on how many came.
///
/// # Errors
/// The operating system refused.
pub(crate) fn pass_on() -> io::Result<UnixStream> {
    let (read, write) = UnixStream::pair()?;
    for signal in [SIGINT, SIGTERM] {
        low_level::pipe::register(signal, write.try_clone()?)?;
    }
    for ends in lock(&LAST_WORDS).drain(..) {
        low_level::unregister(ends);
    }
    Ok(read)
}

/// Whether the reader of this pipe, socket or terminal is gone.
#[must_use]
pub(crate) fn is_unread(pipe: impl AsFd) -> bool {
    // Without any events, poll tells of an end alone: ERR for a pipe, HUP for the others.
    let mut fds = [PollFd::new(&pipe, PollFlags::empty())];
    poll(&mut fds, Some(&Timespec::default())).is_ok() && fds[0].revents().intersects(PollFlags::ERR | PollFlags::HUP)
}

/// Standard input that ends when a signal arrives.
pub(crate) fn stdin() -> impl Read + Send {
    // This does not read through io::stdin(), because its buffer would hide bytes from poll.
    Interruptible(io::stdin())
}

/// Opens a file without blocking: opening a named pipe would otherwise wait for a writer.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(path)
}

/// A pipe or a device, whose reads may block. It ends when a signal arrives.
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
                // Another reader of the same file took the bytes first.
                Err(rustix::io::Errno::AGAIN) => {}
                result => return Ok(result?),
            }
        }
    }
}

/// How long a write may block after a signal. tshark takes most of this time to start.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);

/// How often blocked writes are looked for.
pub(crate) const INTERVAL: Duration = Duration::from_millis(50);

/// When each of the current waits began, by the number in its [`Waiting`].
static WAITS: Mutex<BTreeMap<u64, Instant>> = Mutex::new(BTreeMap::new());

/// The temporary names of unfinished files.
static UNFINISHED: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic cannot leave the value half changed, so a poisoned lock is as good as any.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Held while a thread may block on the other end of a pipe.
#[must_use]
pub(crate) struct Waiting(u64);

/// Declares that this thread may block on a reader from now on, until the result is dropped.
pub(crate) fn waiting() -> Waiting {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    static WATCH: Once = Once::new();
    // The watchdog starts only now, because most runs write to files alone and need none.
    WATCH.call_once(|| {
        if let Some(wake) = WAKE.get() {
            // If the thread cannot be started, a second signal still ends the process.
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

/// Whether a thread has been blocked for too long. Its wait counts from `signalled`, the time of the signal, at the
/// earliest.
pub(crate) fn is_stuck(signalled: Instant) -> bool {
    lock(&WAITS).values().any(|since| (*since).max(signalled).elapsed() >= PATIENCE)
}

/// Ends the process if it is stuck after the first signal, and removes its unfinished files.
fn watch(wake: &UnixStream) {
    while poll(&mut [PollFd::new(wake, PollFlags::IN)], None).is_err() {}
    let signalled = Instant::now();
    while !is_stuck(signalled) {
        thread::sleep(INTERVAL);
    }
    abandon(128 + i32::from(signal().unwrap_or(0)));
}

/// Ends the process at once with this status, and removes its unfinished files.
pub(crate) fn abandon(status: i32) -> ! {
    for path in &*lock(&UNFINISHED) {
        // This fails if the file was completed and renamed in the meantime.
        let _ = fs::remove_file(path);
    }
    low_level::exit(status)
}

/// The temporary name of a file, which is removed if the process has to be ended.
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

/// A stream whose reader, a person or a program, may stop reading.
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
