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

/// The most that the kernel allows by default, so that a burst of connections is not refused.
const BACKLOG: i32 = 4096;

impl Listener {
    pub(crate) fn bind(endpoint: &Endpoint) -> io::Result<Self> {
        match endpoint {
            Endpoint::Tcp(address) => {
                let socket = socket2::Socket::new(Domain::for_address(*address), Type::STREAM, Some(Protocol::TCP))?;
                socket.set_reuse_address(true)?;
                if address.is_ipv6() {
                    // Envoy does this without `ipv4_compat`. Otherwise IPv4 peers would have mapped addresses.
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
                        // An earlier run may have left its socket. A file of another kind is not ours to remove.
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

    /// Where it listens. If the port was 0, this is the one that the system chose.
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
                // A client's end has no name of its own. Envoy shows the listener's name on both sides.
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
            // If this fails, the next run removes the file.
            let _ = fs::remove_file(path);
        }
    }
}

/// A socket that is being connected.
pub(crate) struct Connecting {
    socket: Socket,
    peer: SockAddr,
    local: Option<SocketAddr>,
    attempt: Result<(), Errno>,
}

impl Connecting {
    /// How long to wait if the queue of the peer's unix socket is full.
    const QUEUE_PAUSE: Duration = Duration::from_millis(5);

    /// Starts to connect. This does not use tokio's `connect`, because the local address must be known before the
    /// outcome: the trace of a refused connection has it, too.
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
                    // No event tells when the queue has room again.
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
    // The errors of connect always have an errno.
    socket.connect(peer).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

impl Transport for Socket {
    fn reset_on_drop(&self) {
        if let Self::Tcp(stream) = self {
            // If this fails, the socket is closed already.
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
        // Only the kernel buffers what is written.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
