//! The traces of all connections as one stream of bytes, to be converted while they are recorded.

use std::{
    collections::HashMap,
    io::{self, Read},
    mem,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use super::{Sink, TraceFormat, TraceSink};
use crate::proto::tap::TraceWrapper;

/// How many bytes may wait for the reader before the tapped streams have to wait, too.
const ROOM: usize = 1 << 20;

/// A sink that writes [`TraceFormat::ProtoBinaryLengthDelimited`], and the reader that gets it.
///
/// Streams that are tapped into a full pipe wait until it is read, so it holds little more than a mebibyte and nothing
/// is lost. After the reader is dropped, no stream waits, and nothing is kept.
#[must_use]
pub fn pipe() -> (PipeSink, PipeReader) {
    let pipe = Arc::new(Pipe::default());
    (PipeSink(Arc::clone(&pipe)), PipeReader { pipe, bytes: Vec::new(), at: 0 })
}

#[derive(Default)]
struct Pipe {
    state: Mutex<PipeState>,
    /// Signals that bytes or the end have arrived.
    arrived: Condvar,
}

#[derive(Default)]
struct PipeState {
    bytes: Vec<u8>,
    /// No more bytes will come.
    ended: bool,
    /// Nobody will read any more.
    abandoned: bool,
    /// The wakers of waiting streams, by connection. A stream that is polled again replaces its waker.
    waiting: HashMap<u64, Waker>,
}

impl Pipe {
    fn lock(&self) -> MutexGuard<'_, PipeState> {
        // A panic cannot leave the state half changed, so a poisoned lock is as good as any.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The end of a [`pipe`] that taps write to.
#[derive(Clone)]
pub struct PipeSink(Arc<Pipe>);

impl PipeSink {
    /// Ends the stream: the reader gets the bytes that are left, and then the end.
    pub fn end(&self) {
        self.0.lock().ended = true;
        self.0.arrived.notify_all();
    }
}

impl Sink for PipeSink {
    fn open(&self, id: u64) -> Box<dyn TraceSink> {
        Box::new(PipeTrace { id, pipe: Arc::clone(&self.0) })
    }
}

struct PipeTrace {
    id: u64,
    pipe: Arc<Pipe>,
}

impl TraceSink for PipeTrace {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.pipe.lock();
        if state.bytes.len() < ROOM || state.abandoned {
            return Poll::Ready(());
        }
        state.waiting.insert(self.id, cx.waker().clone());
        Poll::Pending
    }

    fn submit(&mut self, trace: &TraceWrapper) -> io::Result<()> {
        let mut state = self.pipe.lock();
        if state.abandoned || state.ended {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        TraceFormat::ProtoBinaryLengthDelimited.encode(trace, &mut state.bytes);
        drop(state);
        self.pipe.arrived.notify_one();
        Ok(())
    }
}

impl Drop for PipeTrace {
    fn drop(&mut self) {
        self.pipe.lock().waiting.remove(&self.id);
    }
}

/// The end of a [`pipe`] that is read. A read blocks until there are bytes.
pub struct PipeReader {
    pipe: Arc<Pipe>,
    /// Bytes taken out of the pipe. They have been read up to `at`.
    bytes: Vec<u8>,
    at: usize,
}

impl Read for PipeReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.bytes.len() {
            self.bytes.clear();
            self.at = 0;
            let state = self.pipe.lock();
            let nothing = |state: &mut PipeState| state.bytes.is_empty() && !state.ended;
            let mut state = self.pipe.arrived.wait_while(state, nothing).unwrap_or_else(PoisonError::into_inner);
            mem::swap(&mut self.bytes, &mut state.bytes);
            let waiting = mem::take(&mut state.waiting);
            drop(state);
            waiting.into_values().for_each(Waker::wake);
        }
        let count = (&self.bytes[self.at..]).read(buffer)?;
        self.at += count;
        Ok(count)
    }
}

impl Drop for PipeReader {
    fn drop(&mut self) {
        let mut state = self.pipe.lock();
        state.abandoned = true;
        state.bytes = Vec::new();
        let waiting = mem::take(&mut state.waiting);
        drop(state);
        waiting.into_values().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        thread,
        time::{Duration, Instant},
    };

    use prost::Message as _;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, duplex},
        runtime,
    };

    use super::*;
    use crate::{
        proto::tap::Connection,
        tap::{SystemClock, Tap, TapSettings, TapStream},
    };

    fn tap(sink: &PipeSink) -> Tap {
        let settings = TapSettings { streaming: true, max_buffered_rx_bytes: u32::MAX, ..TapSettings::default() };
        Tap::new(settings, Arc::new(sink.clone()), Arc::new(SystemClock))
    }

    fn waiting(sink: &PipeSink) -> usize {
        sink.0.lock().bytes.len()
    }

    #[track_caller]
    fn wait_until_full(sink: &PipeSink) {
        let start = Instant::now();
        while waiting(sink) < ROOM {
            assert!(start.elapsed() < Duration::from_secs(60), "the pipe does not fill");
            thread::yield_now();
        }
    }

    #[test]
    fn a_full_pipe_holds_the_stream_up_and_loses_nothing() {
        const LEN: usize = 8 << 20;
        let (sink, mut reader) = pipe();
        let (mut peer, tapped) = duplex(64 * 1024);
        let recorder = tap(&sink).open(7, Connection::default());
        let runtime = runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.spawn(async move { peer.write_all(&vec![7; LEN]).await });
        let heard = runtime.spawn(async move {
            let mut tapped = TapStream::new(tapped, recorder);
            let mut heard = Vec::new();
            tapped.read_to_end(&mut heard).await.map(|_| heard.len())
        });
        wait_until_full(&sink);
        assert!(!heard.is_finished());
        let reading = thread::spawn(move || {
            let mut bytes = Vec::new();
            reader.read_to_end(&mut bytes).unwrap();
            bytes
        });
        assert_eq!(runtime.block_on(heard).unwrap().unwrap(), LEN);
        assert!(sink.0.lock().bytes.capacity() < 4 * ROOM);
        sink.end();
        let bytes = reading.join().unwrap();
        assert!(bytes.len() > LEN);
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            TraceWrapper::decode_length_delimited(&mut rest).unwrap();
        }
    }

    #[test]
    fn nobody_waits_for_a_reader_that_is_gone() {
        let (sink, reader) = pipe();
        let (mut peer, tapped) = duplex(64 * 1024);
        let recorder = tap(&sink).open(7, Connection::default());
        let runtime = runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.spawn(async move { peer.write_all(&vec![7; 2 * ROOM]).await });
        let heard = runtime.spawn(async move {
            let mut tapped = TapStream::new(tapped, recorder);
            tapped.read_to_end(&mut Vec::new()).await
        });
        wait_until_full(&sink);
        drop(reader);
        assert_eq!(runtime.block_on(heard).unwrap().unwrap(), 2 * ROOM);
        assert_eq!(waiting(&sink), 0);
    }
}
