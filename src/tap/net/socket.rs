//! TCP and unix domain sockets as one type.

use std::{
    fs, io,
    net::SocketAddr,
    os::unix::{fs::FileTypeExt, net as unix},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use rustix::io::Errno;
use socket2::{Domain, Protocol, SockAddr, SockRef, Type};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    time::sleep,
};

use super::{Endpoint, Transport, abstract_name};

/// A connected socket.
pub(crate) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A socket that listens.
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, String),
}

/// As many as the kernel allows by default; a burst of connections shall not see refusals.
const BACKLOG: i32 = 4096;

impl Listener {
    pub(crate) fn bind(endpoint: &Endpoint) -> io::Result<Self> {
        match endpoint {
            Endpoint::Tcp(address) => {
                let socket = socket2::Socket::new(Domain::for_address(*address), Type::STREAM, Some(Protocol::TCP))?;
                socket.set_reuse_address(true)?;
                if address.is_ipv6() {
                    // As Envoy without `ipv4_compat`: otherwise IPv4 peers would show up with mapped addresses.
                    socket.set_only_v6(true)?;
                }
                socket.bind(&SockAddr::from(*address))?;
                socket.listen(BACKLOG)?;
                socket.set_nonblocking(true)?;
                Ok(Self::Tcp(TcpListener::from_std(socket.into())?))
            }
            Endpoint::Unix(path) => {
                let listener = match path.strip_prefix('@') {
                    Some(name) => abstract_name::bind(name)?,
                    None => {
                        // What an earlier run left; a file of another kind is not ours to remove.
                        if fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
                            fs::remove_file(path)?;
                        }
                        unix::UnixListener::bind(path)?
                    }
                };
                listener.set_nonblocking(true)?;
                Ok(Self::Unix(UnixListener::from_std(listener)?, path.clone()))
            }
        }
    }

    /// Where it listens: with the port that the system chose, if it was asked to.
    pub(crate) fn endpoint(&self) -> io::Result<Endpoint> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(Endpoint::Tcp),
            Self::Unix(_, path) => Ok(Endpoint::Unix(path.clone())),
        }
    }

    /// The next connection, and its local and remote ends.
    pub(crate) async fn accept(&self) -> io::Result<(Socket, Endpoint, Endpoint)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, remote) = listener.accept().await?;
                stream.set_nodelay(true)?;
                let local = stream.local_addr()?;
                Ok((Socket::Tcp(stream), Endpoint::Tcp(local), Endpoint::Tcp(remote)))
            }
            Self::Unix(listener, path) => {
                let (stream, _) = listener.accept().await?;
                // A client's end has no name of its own; Envoy shows the listener's on both sides.
                let end = Endpoint::Unix(path.clone());
                Ok((Socket::Unix(stream), end.clone(), end))
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Self::Unix(_, path) = self
            && !path.starts_with('@')
        {
            // The next run removes it if this cannot.
            let _ = fs::remove_file(path);
        }
    }
}

/// A socket on its way to its peer.
pub(crate) struct Connecting {
    socket: Socket,
    peer: SockAddr,
    local: Option<SocketAddr>,
    attempt: Result<(), Errno>,
}

impl Connecting {
    /// How long to wait where a unix socket's queue of connections is full.
    const QUEUE_PAUSE: Duration = Duration::from_millis(5);

    /// Starts to connect. Not by tokio's own `connect`, because the local address is wanted before the outcome: it is
    /// in the trace of a connection that was refused, too.
    pub(crate) fn start(endpoint: &Endpoint) -> io::Result<Self> {
        let (socket, peer) = match endpoint {
            Endpoint::Tcp(address) => {
                let socket = socket2::Socket::new(Domain::for_address(*address), Type::STREAM, Some(Protocol::TCP))?;
                socket.set_tcp_nodelay(true)?;
                (socket, SockAddr::from(*address))
            }
            Endpoint::Unix(path) => {
                let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
                let peer = match path.strip_prefix('@') {
                    Some(name) => abstract_name::address(name)?,
                    None => SockAddr::unix(path)?,
                };
                (socket, peer)
            }
        };
        socket.set_nonblocking(true)?;
        let attempt = attempt(&socket, &peer);
        let local = socket.local_addr().ok().and_then(|local| local.as_socket());
        let socket = match endpoint {
            Endpoint::Tcp(_) => Socket::Tcp(TcpStream::from_std(socket.into())?),
            Endpoint::Unix(_) => Socket::Unix(UnixStream::from_std(socket.into())?),
        };
        Ok(Self { socket, peer, local, attempt })
    }

    /// The local end, unless it is a unix socket, which has none.
    pub(crate) fn local(&self) -> Option<Endpoint> {
        self.local.map(Endpoint::Tcp)
    }

    /// Waits for the outcome.
    pub(crate) async fn finish(mut self) -> io::Result<Socket> {
        match &self.socket {
            Socket::Tcp(stream) => match self.attempt {
                Ok(()) => {}
                Err(Errno::INPROGRESS) => {
                    stream.writable().await?;
                    if let Some(error) = stream.take_error()? {
                        return Err(error);
                    }
                }
                Err(error) => return Err(error.into()),
            },
            Socket::Unix(stream) => {
                while self.attempt == Err(Errno::AGAIN) {
                    // No event tells when there is room again.
                    sleep(Self::QUEUE_PAUSE).await;
                    self.attempt = attempt(&SockRef::from(stream), &self.peer);
                }
                self.attempt?;
            }
        }
        Ok(self.socket)
    }
}

fn attempt(socket: &socket2::Socket, peer: &SockAddr) -> Result<(), Errno> {
    // What connect answers is always an errno.
    socket.connect(peer).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

impl Transport for Socket {
    fn reset_on_drop(&self) {
        if let Self::Tcp(stream) = self {
            // A socket that refuses is closed already.
            let _ = stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Nothing is held back above the kernel.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
