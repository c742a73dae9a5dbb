//! The tap itself: a stream that records what passes through it.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Recorder;

/// Wraps another stream and records what passes: each successful read and write is an event, and the end of the
/// stream (when it is dropped, or at [`TapStream::close`]) is the close.
///
/// Wrapped around a TLS stream, it records plain text, as Envoy's tap transport socket does.
pub struct TapStream<S> {
    inner: S,
    recorders: Vec<Recorder>,
    end: WriteEnd,
}

/// How far the write side is from its end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum WriteEnd {
    Open,
    /// What is written from now on is the last, and says so.
    Announced,
    /// The trace says so.
    Recorded,
}

impl<S> TapStream<S> {
    /// Taps `inner`.
    pub fn new(inner: S, recorder: Recorder) -> Self {
        Self::with_recorders(inner, vec![recorder])
    }

    /// Taps `inner` for several recorders at once, for instance two files with different limits. Without any, the
    /// stream passes everything and records nothing.
    pub fn with_recorders(inner: S, recorders: Vec<Recorder>) -> Self {
        Self { inner, recorders, end: WriteEnd::Open }
    }

    /// The wrapped stream.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The wrapped stream. What is read or written there is not recorded.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// From now on, what is written is the last before the half-close: its events carry `end_stream`. Envoy learns of
    /// an end together with the last bytes; a tokio stream learns of it later, at shutdown.
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
