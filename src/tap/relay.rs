//! A TCP relay with taps on both sides. It stands for Envoy's listener, `tcp_proxy` filter and cluster.

use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    Recorder, Tap, TapStream,
    net::{
        Connecting, Drain, Endpoint, Listener, Socket, Transport,
        tls::{TlsClient, TlsServer},
    },
};
use crate::proto::tap::Connection;

/// One listener and the cluster that it leads to.
#[derive(Clone)]
pub struct Route {
    /// Where connections are accepted.
    pub listen: Endpoint,
    /// TLS on the accepted side.
    pub downstream_tls: Option<TlsServer>,
    /// Taps on the accepted side.
    pub downstream_taps: Vec<Tap>,
    /// Where connections are relayed to.
    pub upstream: Endpoint,
    /// TLS on the upstream side.
    pub upstream_tls: Option<TlsClient>,
    /// Taps on the upstream side.
    pub upstream_taps: Vec<Tap>,
    /// How long an upstream connection may take to set up, TLS handshake included.
    pub connect_timeout: Duration,
}

impl Route {
    /// Envoy's default for [`Route::connect_timeout`].
    pub const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

    /// A route without TLS and without taps.
    #[must_use]
    pub fn new(listen: Endpoint, upstream: Endpoint) -> Self {
        Self {
            listen,
            downstream_tls: None,
            downstream_taps: Vec::new(),
            upstream,
            upstream_tls: None,
            upstream_taps: Vec::new(),
            connect_timeout: Self::DEFAULT_CONNECT_TIMEOUT,
        }
    }
}

/// What a relay reports while it runs.
#[derive(Debug)]
pub enum Notice<'a> {
    /// A connection to this upstream could not be made, so the downstream connection was closed.
    ConnectFailed(&'a Endpoint, &'a io::Error),
    /// The TLS handshake with this peer failed.
    HandshakeFailed(&'a Endpoint, &'a io::Error),
    /// This listener can accept no connection at the moment. It tries again soon.
    AcceptFailed(&'a Endpoint, &'a io::Error),
}

/// Routes whose listeners are bound.
pub struct Relay {
    listeners: Vec<(Listener, Arc<Route>)>,
    shared: Arc<RelayShared>,
}

struct RelayShared {
    /// The id of the next connection. Both sides of all routes share this counter, as in Envoy.
    next_id: AtomicU64,
    notify: Box<dyn Fn(Notice<'_>) + Send + Sync>,
}

impl Relay {
    /// How long to wait if a connection cannot be accepted, for instance because no file descriptor is left.
    const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

    /// Binds all listeners. This needs a running tokio runtime.
    ///
    /// # Errors
    /// The first address that cannot be bound, and why.
    pub fn bind(
        routes: Vec<Route>,
        notify: impl Fn(Notice<'_>) + Send + Sync + 'static,
    ) -> Result<Self, (Endpoint, io::Error)> {
        let listeners = routes.into_iter().map(|route| match Listener::bind(&route.listen) {
            Ok(listener) => Ok((listener, Arc::new(route))),
            Err(error) => Err((route.listen, error)),
        });
        let shared = Arc::new(RelayShared { next_id: AtomicU64::new(0), notify: Box::new(notify) });
        Ok(Self { listeners: listeners.collect::<Result<_, _>>()?, shared })
    }

    /// Where each route listens. If a port was 0, this is the one that the system chose.
    #[must_use]
    pub fn endpoints(&self) -> Vec<Endpoint> {
        self.listeners
            .iter()
            .map(|(listener, route)| listener.endpoint().unwrap_or_else(|_| route.listen.clone()))
            .collect()
    }

    /// Numbers connections from `id` instead of 0, because files of an earlier run may have the lower ids.
    #[must_use]
    pub fn starting_at(self, id: u64) -> Self {
        self.shared.next_id.store(id, Ordering::Relaxed);
        self
    }

    /// Relays until `shutdown` completes, then closes all connections. When it returns, all traces are written.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let (stop, stopped) = watch::channel(());
        let mut tasks = JoinSet::new();
        for (listener, route) in self.listeners {
            tasks.spawn(listen(listener, route, Arc::clone(&self.shared), stopped.clone()));
        }
        drop(stopped);
        shutdown.await;
        drop(stop);
        while tasks.join_next().await.is_some() {}
    }
}

/// Completes when the relay stops.
async fn stopping(mut stopped: watch::Receiver<()>) {
    // Nothing is ever sent. The sender is dropped when the relay stops.
    while stopped.changed().await.is_ok() {}
}

async fn listen(listener: Listener, route: Arc<Route>, shared: Arc<RelayShared>, stopped: watch::Receiver<()>) {
    let mut connections = JoinSet::new();
    let stop = stopping(stopped.clone());
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((socket, local, remote)) => {
                    let ends = Connection { local_address: Some((&local).into()), remote_address: Some((&remote).into()) };
                    let stopped = stopped.clone();
                    let connection = connection(Arc::clone(&route), Arc::clone(&shared), socket, remote, &ends);
                    connections.spawn(async move {
                        tokio::select! {
                            () = connection => {}
                            () = stopping(stopped) => {}
                        }
                    });
                }
                Err(error) => {
                    (shared.notify)(Notice::AcceptFailed(&route.listen, &error));
                    sleep(Relay::ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Relays one downstream connection and the upstream one made for it. Both traces start now, before the future is first
/// polled, so that ids are in the order of acceptance. Recorders close their traces when they are dropped, so the
/// traces are complete however the future ends, even if it is cancelled.
fn connection(
    route: Arc<Route>,
    shared: Arc<RelayShared>,
    socket: Socket,
    peer: Endpoint,
    ends: &Connection,
) -> impl Future<Output = ()> + use<> {
    let open = |taps: &[Tap], connection: &Connection| -> Vec<Recorder> {
        let id = shared.next_id.fetch_add(1, Ordering::Relaxed);
        taps.iter().map(|tap| tap.open(id, connection.clone())).collect()
    };
    let downstream_recorders = open(&route.downstream_taps, ends);
    let toward = Connection { local_address: None, remote_address: Some((&route.upstream).into()) };
    let upstream_recorders = open(&route.upstream_taps, &toward);
    async move { serve(&route, &shared, socket, &peer, downstream_recorders, upstream_recorders).await }
}

async fn serve(
    route: &Route,
    shared: &RelayShared,
    socket: Socket,
    peer: &Endpoint,
    downstream_recorders: Vec<Recorder>,
    upstream_recorders: Vec<Recorder>,
) {
    // As in Envoy, nothing is read from downstream before upstream is connected.
    let mut upstream = match timeout(route.connect_timeout, connect(route, upstream_recorders)).await {
        Ok(Ok(upstream)) => upstream,
        Ok(Err(error)) => return (shared.notify)(Notice::ConnectFailed(&route.upstream, &error)),
        Err(_) => return (shared.notify)(Notice::ConnectFailed(&route.upstream, &io::ErrorKind::TimedOut.into())),
    };
    let downstream: Box<dyn Transport> = match &route.downstream_tls {
        None => Box::new(socket),
        Some(tls) => match tls.accept(socket).await {
            Ok(stream) => stream,
            Err(error) => return (shared.notify)(Notice::HandshakeFailed(peer, &error)),
        },
    };
    let mut downstream = TapStream::with_recorders(Drain::new(downstream), downstream_recorders);
    if exchange(&mut downstream, &mut upstream).await == Ending::Reset {
        // One of the two has been reset already. Resetting it again does nothing.
        upstream.get_ref().reset_on_drop();
        downstream.get_ref().reset_on_drop();
    }
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// Both sides are done, or one is lost.
    Closed,
    /// A peer reset the connection.
    Reset,
}

/// Relays until both directions are done.
async fn exchange(downstream: &mut RelaySocket, upstream: &mut RelaySocket) -> Ending {
    let (mut request, mut response) = (RelayedDirection::default(), RelayedDirection::default());
    let failed: io::Result<()> = poll_fn(|cx| {
        let requests = request.poll(cx, downstream, upstream)?;
        let responses = response.poll(cx, upstream, downstream)?;
        if requests.is_ready() && responses.is_ready() { Poll::Ready(Ok(())) } else { Poll::Pending }
    })
    .await;
    let errors = [failed.err(), request.refused, response.refused];
    let is_reset = |error: &io::Error| error.kind() == io::ErrorKind::ConnectionReset;
    if errors.iter().flatten().any(is_reset) { Ending::Reset } else { Ending::Closed }
}

async fn connect(route: &Route, mut recorders: Vec<Recorder>) -> io::Result<RelaySocket> {
    let connecting = Connecting::start(&route.upstream)?;
    if let Some(local) = connecting.local() {
        for recorder in &mut recorders {
            recorder.set_local_address(Some((&local).into()));
        }
    }
    let socket = connecting.finish().await?;
    let stream: Box<dyn Transport> = match &route.upstream_tls {
        None => Box::new(socket),
        Some(tls) => tls.connect(socket).await?,
    };
    Ok(TapStream::with_recorders(Drain::new(stream), recorders))
}

type RelaySocket = TapStream<Drain<Box<dyn Transport>>>;

/// How many bytes are read at once. This is also the size of the largest event, and what a connection whose peer does
/// not read holds in memory per direction.
const READ_AT_ONCE: usize = 64 * 1024;

thread_local! {
    /// Reads go here first. Only what the other side does not take at once is kept with the connection, so that an idle
    /// connection has no buffer.
    static READ_BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_AT_ONCE].into_boxed_slice());
}

/// One direction of a connection.
#[derive(Default)]
struct RelayedDirection {
    /// Bytes that were read. Those from `written` on have not been written yet.
    pending: Vec<u8>,
    written: usize,
    state: FlowState,
    /// Why the receiving side accepts no more. It may still send: a peer that has what it wanted may close while its
    /// own last bytes are still in flight. So the other direction goes on until it ends, too.
    refused: Option<io::Error>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum FlowState {
    #[default]
    Open,
    /// No more will be read. The pending bytes and the end have not been passed on yet.
    Ending,
    Done,
}

impl RelayedDirection {
    /// Moves bytes as long as neither side blocks. It is ready when the end was passed on, or when `to` accepts no
    /// more, and it fails if `from` fails.
    fn poll(&mut self, cx: &mut Context<'_>, from: &mut RelaySocket, to: &mut RelaySocket) -> Poll<io::Result<()>> {
        while self.state != FlowState::Done {
            if let Err(error) = ready!(self.poll_deliver(cx, to)) {
                self.refuse(error);
            } else if self.state == FlowState::Ending {
                self.state = FlowState::Done;
            } else {
                ready!(READ_BUFFER.with_borrow_mut(|buffer| self.poll_transfer(cx, from, to, buffer)))?;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Passes on the pending bytes, and the end.
    fn poll_deliver(&mut self, cx: &mut Context<'_>, to: &mut RelaySocket) -> Poll<io::Result<()>> {
        while self.written < self.pending.len() {
            self.written += ready!(Pin::new(&mut *to).poll_write(cx, &self.pending[self.written..]))?;
        }
        (self.pending, self.written) = (Vec::new(), 0);
        ready!(Pin::new(&mut *to).poll_flush(cx))?;
        if self.state == FlowState::Ending {
            ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Reads once, and tries to write what was read.
    fn poll_transfer(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut RelaySocket,
        to: &mut RelaySocket,
        buffer: &mut [u8],
    ) -> Poll<io::Result<()>> {
        let mut buffer = ReadBuf::new(buffer);
        ready!(Pin::new(&mut *from).poll_read(cx, &mut buffer))?;
        let data = buffer.filled();
        if from.get_ref().has_ended() {
            self.state = FlowState::Ending;
            to.announce_end();
        }
        if !data.is_empty() {
            match Pin::new(&mut *to).poll_write(cx, data) {
                Poll::Ready(Ok(written)) => self.pending.extend_from_slice(&data[written..]),
                Poll::Ready(Err(error)) => self.refuse(error),
                Poll::Pending => self.pending.extend_from_slice(data),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn refuse(&mut self, error: io::Error) {
        self.pending = Vec::new();
        self.state = FlowState::Done;
        self.refused = Some(error);
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    /// The end of a peer that accepts no bytes.
    struct Deaf {
        inner: DuplexStream,
        error: io::ErrorKind,
    }

    impl AsyncRead for Deaf {
        fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.get_mut().inner).poll_read(cx, buf)
        }
    }

    impl AsyncWrite for Deaf {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Err(self.error.into()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Err(self.error.into()))
        }
    }

    impl Transport for Deaf {
        fn reset_on_drop(&self) {}
    }

    impl Transport for DuplexStream {
        fn reset_on_drop(&self) {}
    }

    fn side(transport: impl Transport + 'static) -> RelaySocket {
        TapStream::with_recorders(Drain::new(Box::new(transport)), Vec::new())
    }

    #[tokio::test]
    async fn a_client_that_no_longer_reads_is_still_heard_to_its_end() {
        for (error, ending) in
            [(io::ErrorKind::BrokenPipe, Ending::Closed), (io::ErrorKind::ConnectionReset, Ending::Reset)]
        {
            let (mut client, here) = duplex(1 << 20);
            let (mut server, there) = duplex(1000);
            client.write_all(&vec![b'c'; 500_000]).await.unwrap();
            drop(client);
            let relay =
                tokio::spawn(async move { exchange(&mut side(Deaf { inner: here, error }), &mut side(there)).await });
            server.write_all(b"nobody wants this").await.unwrap();
            let mut heard = Vec::new();
            server.read_to_end(&mut heard).await.unwrap();
            assert_eq!(heard, vec![b'c'; 500_000]);
            assert_eq!(relay.await.unwrap(), ending);
        }
    }

    #[tokio::test]
    async fn bytes_and_ends_pass_both_ways() {
        let ((mut client, here), (mut server, there)) = (duplex(10), duplex(10));
        let relay = tokio::spawn(async move { exchange(&mut side(here), &mut side(there)).await });
        let talk = async |peer: &mut DuplexStream, word: u8| {
            let (mut reader, mut writer) = tokio::io::split(peer);
            let say = async {
                writer.write_all(&vec![word; 200_000]).await.unwrap();
                writer.shutdown().await.unwrap();
            };
            let mut heard = Vec::new();
            let ((), read) = tokio::join!(say, reader.read_to_end(&mut heard));
            read.unwrap();
            heard
        };
        let (from_server, from_client) = tokio::join!(talk(&mut client, b'c'), talk(&mut server, b's'));
        assert_eq!((from_client, from_server), (vec![b'c'; 200_000], vec![b's'; 200_000]));
        assert_eq!(relay.await.unwrap(), Ending::Closed);
    }
}
