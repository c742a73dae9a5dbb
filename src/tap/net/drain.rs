//! Reads as Envoy does: until no more bytes are available.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Transport;

/// Fills the reader's buffer as far as it can without waiting. So bytes that arrived together are one event, and an end
/// that arrived with them is known at once.
pub(crate) struct Drain<S> {
    inner: S,
    /// What stopped a read. The bytes before it are delivered first.
    stopped: Option<ReadStop>,
}

enum ReadStop {
    End,
    Failed(io::Error),
}

impl<S> Drain<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self { inner, stopped: None }
    }

    /// Whether no bytes will follow those that were read.
    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.stopped, Some(ReadStop::End))
    }
}

impl<S: Transport> Drain<S> {
    pub(crate) fn reset_on_drop(&self) {
        self.inner.reset_on_drop();
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Drain<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let start = buf.filled().len();
        while this.stopped.is_none() && buf.remaining() > 0 {
            let before = buf.filled().len();
            match Pin::new(&mut this.inner).poll_read(cx, buf) {
                Poll::Pending if before == start => return Poll::Pending,
                Poll::Pending => break,
                Poll::Ready(Ok(())) if buf.filled().len() > before => {}
                Poll::Ready(Ok(())) => this.stopped = Some(ReadStop::End),
                // A TLS peer has closed the socket without a close_notify alert. Bytes may be missing, but an error
                // would tell the relay's other peer no more than the end does.
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    this.stopped = Some(ReadStop::End);
                }
                Poll::Ready(Err(error)) => this.stopped = Some(ReadStop::Failed(error)),
            }
        }
        if buf.filled().len() == start
            && matches!(this.stopped, Some(ReadStop::Failed(_)))
            && let Some(ReadStop::Failed(error)) = this.stopped.replace(ReadStop::End)
        {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Drain<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}
