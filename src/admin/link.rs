//! A connection to the admin endpoint, for ureq: TCP or a unix socket, with deadlines, that ends on a signal.

use std::{
    fmt,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream, ToSocketAddrs},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::{Errno, FdFlags, fcntl_setfd, ioctl_fionbio},
    net::{AddressFamily, SocketAddrUnix, SocketType, connect, socket, sockopt},
};
use thiserror::Error;
use ureq::{
    config::Config,
    unversioned::{
        resolver::{ResolvedSocketAddrs, Resolver},
        transport::{Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport},
    },
};

use super::Endpoint;

/// Bytes that ureq may need at once: a head, or the line of a chunk's size.
const INPUT: usize = super::http::MAX_HEAD + 1024;
/// Bytes that may arrive and lead to nothing. It is more than what one read takes.
const MAX_IDLE: usize = 4 * INPUT;
const OUTPUT: usize = 16 * 1024;
/// When a peer that says nothing is asked whether it is still there, how often, and how many times.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(30), Duration::from_secs(10), 3);

/// Why a connection ended that the operating system has nothing against. It travels through ureq inside an
/// [`io::Error`].
#[derive(Debug, Error)]
pub(crate) enum LinkError {
    #[error("interrupted")]
    Interrupted,
    #[error("a part of it does not end")]
    Endless,
    #[error("{0}")]
    Late(String),
    #[error(transparent)]
    Connect(io::Error),
}

impl LinkError {
    /// What a [`Link`] reported, if this error comes from one.
    pub(crate) fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }

    fn into_ureq(self) -> ureq::Error {
        ureq::Error::Io(io::Error::other(self))
    }
}

/// What the other side may take: time, and bytes that lead to nothing. A connection and those who read from it share
/// this.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bounds(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// Until when, and for what. `None` is forever.
    deadline: Mutex<Option<(Instant, String)>>,
    /// Bytes that arrived since something came of them.
    idle: AtomicUsize,
}

impl Bounds {
    pub(crate) fn set_deadline(&self, after: Duration, what: &str) {
        let what = format!("{what}: more than {}", humantime::format_duration(after));
        *self.deadline() = Some((Instant::now() + after, what));
    }

    pub(crate) fn clear_deadline(&self) {
        *self.deadline() = None;
    }

    fn deadline(&self) -> MutexGuard<'_, Option<(Instant, String)>> {
        self.0.deadline.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time that is left.
    fn left(&self) -> Result<Option<Duration>, LinkError> {
        match &*self.deadline() {
            None => Ok(None),
            Some((at, what)) => match at.checked_duration_since(Instant::now()) {
                Some(left) if !left.is_zero() => Ok(Some(left)),
                _ => Err(LinkError::Late(what.clone())),
            },
        }
    }

    /// Something came of what arrived, so that as much may arrive again.
    pub(crate) fn progress(&self) {
        self.0.idle.store(0, Ordering::Relaxed);
    }

    /// Trailers, for example, may go on forever, and no part of a body comes of them.
    fn arrived(&self, count: usize) -> Result<(), LinkError> {
        if self.0.idle.fetch_add(count, Ordering::Relaxed) > MAX_IDLE { Err(LinkError::Endless) } else { Ok(()) }
    }
}

/// Waits until `fd` can be read or written, the deadline passes, or a signal arrives.
fn wait(fd: impl AsFd, flags: PollFlags, wake: Option<BorrowedFd<'_>>, bounds: &Bounds) -> io::Result<()> {
    loop {
        let left = match bounds.left() {
            Ok(left) => {
                left.map(|left| Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() })
            }
            Err(late) => return Err(io::Error::other(late)),
        };
        let fd = fd.as_fd();
        let mut fds =
            [PollFd::from_borrowed_fd(fd, flags), PollFd::from_borrowed_fd(wake.unwrap_or(fd), PollFlags::IN)];
        let count = if wake.is_some() { 2 } else { 1 };
        match poll(&mut fds[..count], left.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if wake.is_some() && !fds[1].revents().is_empty() {
            return Err(io::Error::other(LinkError::Interrupted));
        }
        if !fds[0].revents().is_empty() {
            return Ok(());
        }
    }
}

/// Opens connections for ureq.
#[derive(Debug)]
pub(crate) struct Links {
    pub(crate) endpoint: Endpoint,
    /// Becomes readable when a signal arrives.
    pub(crate) wake: Option<BorrowedFd<'static>>,
    pub(crate) bounds: Bounds,
    /// The deadline of the answer's head, which begins when the connection is there.
    pub(crate) head: Duration,
}

impl Links {
    fn open(&self) -> io::Result<OwnedFd> {
        match &self.endpoint {
            Endpoint::Unix(path) => {
                let fd = nonblocking_socket(AddressFamily::UNIX)?;
                connect(&fd, &unix_address(path)?)?;
                Ok(fd)
            }
            Endpoint::Tcp { host, port } => {
                let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
                for address in self.resolve(host, *port)? {
                    match self.open_tcp(address) {
                        Ok(fd) => return Ok(fd),
                        Err(error) if LinkError::of(&error).is_some() => return Err(error),
                        Err(error) => last = error,
                    }
                }
                Err(last)
            }
        }
    }

    /// The system's resolver cannot be interrupted, so it works in a thread of its own, which may outlive the wait.
    fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        if let Ok(address) = host.parse() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        let (done, signal) = UnixStream::pair()?;
        let host = host.to_owned();
        let resolver = thread::Builder::new().name("resolver".into()).spawn(move || {
            // Its end closes the pair.
            let _signal = signal;
            Ok((host.as_str(), port).to_socket_addrs()?.collect())
        })?;
        wait(&done, PollFlags::IN, self.wake, &self.bounds)?;
        resolver.join().unwrap_or_else(|_| Err(io::Error::other("the resolver ended")))
    }

    fn open_tcp(&self, address: SocketAddr) -> io::Result<OwnedFd> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let fd = nonblocking_socket(family)?;
        match connect(&fd, &address) {
            Ok(()) => {}
            Err(Errno::INPROGRESS) => {
                wait(&fd, PollFlags::OUT, self.wake, &self.bounds)?;
                sockopt::socket_error(&fd)??;
            }
            Err(error) => return Err(error.into()),
        }
        let (idle, interval, count) = KEEPALIVE;
        sockopt::set_socket_keepalive(&fd, true)?;
        // Not every system can set these; the system's own are longer.
        let _ = sockopt::set_tcp_keepidle(&fd, idle);
        let _ = sockopt::set_tcp_keepintvl(&fd, interval);
        let _ = sockopt::set_tcp_keepcnt(&fd, count);
        let _ = sockopt::set_tcp_nodelay(&fd, true);
        Ok(fd)
    }
}

/// A socket on which nothing blocks.
fn nonblocking_socket(family: AddressFamily) -> io::Result<OwnedFd> {
    let fd = socket(family, SocketType::STREAM, None)?;
    fcntl_setfd(&fd, FdFlags::CLOEXEC)?;
    ioctl_fionbio(&fd, true)?;
    Ok(fd)
}

fn unix_address(path: &Path) -> io::Result<SocketAddrUnix> {
    #[cfg(target_os = "linux")]
    if let Some(name) = path.to_str().and_then(|path| path.strip_prefix('@')) {
        return Ok(SocketAddrUnix::new_abstract_name(name.as_bytes())?);
    }
    Ok(SocketAddrUnix::new(path)?)
}

impl Connector for Links {
    type Out = Link;

    fn connect(&self, _: &ConnectionDetails, _: Option<()>) -> Result<Option<Link>, ureq::Error> {
        let stream = self.open().map(|fd| match self.endpoint {
            Endpoint::Tcp { .. } => Stream::Tcp(TcpStream::from(fd)),
            Endpoint::Unix(_) => Stream::Unix(UnixStream::from(fd)),
        });
        let stream = stream.map_err(|error| match LinkError::of(&error) {
            Some(_) => ureq::Error::Io(error),
            None => LinkError::Connect(error).into_ureq(),
        })?;
        self.bounds.set_deadline(self.head, "no head of an answer");
        let buffers = LazyBuffers::new(INPUT, OUTPUT);
        Ok(Some(Link { stream, buffers, wake: self.wake, bounds: self.bounds.clone() }))
    }
}

/// Tells ureq nothing: [`Links`] knows where to connect.
#[derive(Debug)]
pub(crate) struct NoResolver;

impl Resolver for NoResolver {
    fn resolve(&self, _: &ureq::http::Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        Ok(self.empty())
    }
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

impl Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        }
    }
}

/// A connection.
pub(crate) struct Link {
    stream: Stream,
    buffers: LazyBuffers,
    wake: Option<BorrowedFd<'static>>,
    bounds: Bounds,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Link")
    }
}

impl Transport for Link {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, _: NextTimeout) -> Result<(), ureq::Error> {
        let mut sent = 0;
        while sent < amount {
            wait(&self.stream, PollFlags::OUT, self.wake, &self.bounds)?;
            match self.stream.write(&self.buffers.output()[sent..amount]) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
                Ok(count) => sent += count,
                Err(error) if is_momentary(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn await_input(&mut self, _: NextTimeout) -> Result<bool, ureq::Error> {
        loop {
            if self.buffers.input_append_buf().is_empty() {
                // What ureq waits for the end of is larger than all that it may hold.
                return Err(LinkError::Endless.into_ureq());
            }
            wait(&self.stream, PollFlags::IN, self.wake, &self.bounds)?;
            match self.stream.read(self.buffers.input_append_buf()) {
                Ok(count) => {
                    self.bounds.arrived(count).map_err(LinkError::into_ureq)?;
                    self.buffers.input_appended(count);
                    return Ok(count > 0);
                }
                Err(error) if is_momentary(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn is_open(&mut self) -> bool {
        // Connections are used once.
        false
    }
}

fn is_momentary(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
