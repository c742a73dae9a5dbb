//! SIGINT and SIGTERM: they end a conversion in order. The first one sets a flag and wakes a read of standard input;
//! the second one ends the process at once.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read},
    os::{
        fd::AsFd,
        unix::{fs::OpenOptionsExt, net::UnixStream},
    },
    path::Path,
    sync::{
        Arc, LazyLock, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
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
pub fn install() -> io::Result<()> {
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
pub fn signal() -> Option<u8> {
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
