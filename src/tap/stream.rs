//! The tap itself: a stream that records what passes through it.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Recorder;

/// Wraps another stream and records what passes. Each successful read or write is an event. The close is recorded when
/// the stream is dropped, or at [`TapStream::close`].
///
/// Around a TLS stream, it records plain text, as Envoy's tap transport socket does.
pub struct TapStream<S> {
    inner: S,
    recorders: Vec<Recorder>,
    end: WriteEnd,
}

/// How far the write side is from its end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum WriteEnd {
    Open,
    /// What is written next is the last, and its event will carry `end_stream`.
    Announced,
    /// The trace has the end.
    Recorded,
}

impl<S> TapStream<S> {
    /// Taps `inner`.
    pub fn new(inner: S, recorder: Recorder) -> Self {
        Self::with_recorders(inner, vec![recorder])
    }

    /// Taps `inner` for several recorders at once, for instance two files with different limits. If there are none, the
    /// stream passes everything and records nothing.
    pub fn with_recorders(inner: S, recorders: Vec<Recorder>) -> Self {
        Self { inner, recorders, end: WriteEnd::Open }
    }

    /// The wrapped stream.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The wrapped stream. Reads and writes on it are not recorded.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// Declares that what is written from now on is the last before the half-close, so its events carry `end_stream`.
    /// Envoy learns of the end together with the last bytes, but a tokio stream learns of it later, at shutdown.
    pub fn announce_end(&mut self) {
        if self.end == WriteEnd::Open {
            self.end = WriteEnd::Announced;
        }
    }

    /// Records the close now, rather than when the stream is dropped.
    pub fn close(&mut self) {
        for recorder in &mut self.recorders {
            recorder.close();
        }
    }

    /// Waits until all recorders have room, because bytes may pass only as fast as they are recorded.
    fn poll_recorders(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        for recorder in &mut self.recorders {
            ready!(recorder.poll_ready(cx));
        }
        Poll::Ready(())
    }

    fn wrote(&mut self, data: &[u8]) {
        if self.end == WriteEnd::Announced {
            self.end = WriteEnd::Recorded;
        }
        for recorder in &mut self.recorders {
            recorder.write(data, self.end == WriteEnd::Recorded);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for TapStream<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_recorders(cx));
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.inner).poll_read(cx, buf))?;
        let data = &buf.filled()[before..];
        if !data.is_empty() {
            for recorder in &mut this.recorders {
                recorder.read(data);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for TapStream<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_recorders(cx));
        let written = ready!(Pin::new(&mut this.inner).poll_write(cx, buf))?;
        if written > 0 {
            this.wrote(&buf[..written]);
        }
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(Pin::new(&mut this.inner).poll_shutdown(cx))?;
        if this.end != WriteEnd::Recorded {
            for recorder in &mut this.recorders {
                recorder.half_close();
            }
        }
        this.end = WriteEnd::Recorded;
        Poll::Ready(Ok(()))
    }
}
