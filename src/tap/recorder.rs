//! Records one connection: it collects the events and makes trace messages of them.

use std::{
    io, mem,
    sync::Arc,
    task::{Context, Poll},
};

use super::{Clock, Sink, TraceSink, clock::timestamp};
use crate::proto::{
    envoy::config::core::v3::Address,
    tap::{
        Body, Connection, SocketBufferedTrace, SocketEvent, SocketEvents, SocketStreamedTraceSegment, TraceWrapper,
        body::BodyType,
        socket_event::{Closed, EventSelector, Read, Write},
        socket_streamed_trace_segment::MessagePiece,
        trace_wrapper::Trace,
    },
};

/// What `envoy.config.tap.v3.OutputConfig` and `SocketTapConfig` can ask of a tap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TapSettings {
    /// Whether each event is a segment of its own, as it happens. Otherwise, the whole connection is one message.
    pub streaming: bool,
    /// How many bytes of reads are kept: per event when streaming, per connection otherwise.
    pub max_buffered_rx_bytes: u32,
    /// The same for writes.
    pub max_buffered_tx_bytes: u32,
    /// Streaming only: events are collected until they hold this many bytes. Envoy then keeps every byte, whatever the
    /// two limits say, and so does this tap.
    pub min_streamed_sent_bytes: Option<u32>,
    /// Streaming only: whether every event carries the connection.
    pub set_connection_per_event: bool,
    /// Whether a half-close without bytes gets a `write` event of its own, empty and with `end_stream`. Envoy records a
    /// half-close only if it comes with the last bytes, so this is off by default.
    pub record_bare_half_close: bool,
}

impl TapSettings {
    /// Envoy's default for `max_buffered_rx_bytes` and `max_buffered_tx_bytes`.
    pub const DEFAULT_MAX_BUFFERED_BYTES: u32 = 1024;
    /// Envoy does not go below this `min_streamed_sent_bytes`: with 0, its segments hold at least nine bytes.
    const LEAST_MIN_STREAMED_SENT_BYTES: u32 = 9;
}

impl Default for TapSettings {
    fn default() -> Self {
        Self {
            streaming: false,
            max_buffered_rx_bytes: Self::DEFAULT_MAX_BUFFERED_BYTES,
            max_buffered_tx_bytes: Self::DEFAULT_MAX_BUFFERED_BYTES,
            min_streamed_sent_bytes: None,
            set_connection_per_event: false,
            record_bare_half_close: false,
        }
    }
}

/// A tap, which opens a [`Recorder`] for each connection.
#[derive(Clone)]
pub struct Tap {
    settings: Arc<TapSettings>,
    sink: Arc<dyn Sink>,
    clock: Arc<dyn Clock>,
    on_error: Arc<dyn Fn(io::Error) + Send + Sync>,
}

impl Tap {
    /// A tap that takes its times from `clock` and passes its traces to `sink`.
    #[must_use]
    pub fn new(settings: TapSettings, sink: Arc<dyn Sink>, clock: Arc<dyn Clock>) -> Self {
        Self { settings: Arc::new(settings), sink, clock, on_error: Arc::new(|_| {}) }
    }

    /// Calls `on_error` for each connection whose trace cannot be written. A failing tap does not stop the traffic.
    #[must_use]
    pub fn on_error(mut self, on_error: impl Fn(io::Error) + Send + Sync + 'static) -> Self {
        self.on_error = Arc::new(on_error);
        self
    }

    /// Starts the trace of a connection. `connection` has no local address if the socket is not connected yet.
    #[must_use]
    pub fn open(&self, id: u64, connection: Connection) -> Recorder {
        let mut recorder = Recorder {
            id,
            settings: Arc::clone(&self.settings),
            clock: Arc::clone(&self.clock),
            on_error: Arc::clone(&self.on_error),
            output: Some(self.sink.open(id)),
            connection,
            state: if self.settings.streaming {
                RecorderState::Streamed { next_seq_num: 1, collected: Vec::new(), collected_bytes: 0 }
            } else {
                RecorderState::Buffered {
                    events: Vec::new(),
                    rx: Quota::new(self.settings.max_buffered_rx_bytes),
                    tx: Quota::new(self.settings.max_buffered_tx_bytes),
                }
            },
        };
        if self.settings.streaming {
            recorder.submit_segment(MessagePiece::Connection(recorder.connection.clone()));
        }
        recorder
    }
}

/// The trace of one connection while it is open. Dropping it closes it.
pub struct Recorder {
    id: u64,
    settings: Arc<TapSettings>,
    clock: Arc<dyn Clock>,
    on_error: Arc<dyn Fn(io::Error) + Send + Sync>,
    /// `None` after the trace is closed, or after a message could not be written.
    output: Option<Box<dyn TraceSink>>,
    connection: Connection,
    state: RecorderState,
}

enum RecorderState {
    Streamed {
        /// The position of the next byte, from 1. Both directions share this counter.
        next_seq_num: u64,
        /// Events held back because of `min_streamed_sent_bytes`.
        collected: Vec<SocketEvent>,
        collected_bytes: usize,
    },
    Buffered {
        events: Vec<SocketEvent>,
        rx: Quota,
        tx: Quota,
    },
}

/// How much of a buffered trace's limit is left for one direction.
struct Quota {
    left: usize,
    /// Whether an event was cut, which is then the last one of its direction.
    exceeded: bool,
}

impl Quota {
    fn new(limit: u32) -> Self {
        Self { left: limit as usize, exceeded: false }
    }

    /// The body of the next event. `None` if the direction is no longer recorded.
    fn take(&mut self, data: &[u8]) -> Option<Body> {
        if self.exceeded {
            return None;
        }
        let body = body(data, self.left);
        self.exceeded = body.truncated;
        self.left = self.left.saturating_sub(data.len());
        Some(body)
    }
}

#[derive(Clone, Copy)]
enum Operation {
    Read,
    Write { end_stream: bool },
}

impl Recorder {
    /// The id in the trace and in its file's name.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Whether the sink has room: see [`TraceSink::poll_ready`].
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.output.as_mut().map_or(Poll::Ready(()), |output| output.poll_ready(cx))
    }

    /// Sets the local address, once the socket is connected. Later events and a buffered trace carry it.
    pub fn set_local_address(&mut self, address: Option<Address>) {
        self.connection.local_address = address;
    }

    /// Records bytes that came from the peer.
    pub fn read(&mut self, data: &[u8]) {
        self.data(Operation::Read, data);
    }

    /// Records bytes that went to the peer. With `end_stream`, they are the last ones.
    pub fn write(&mut self, data: &[u8], end_stream: bool) {
        self.data(Operation::Write { end_stream }, data);
    }

    /// Records that the write side ended without bytes, if the settings ask for that.
    pub fn half_close(&mut self) {
        if self.settings.record_bare_half_close {
            self.write(&[], true);
        }
    }

    fn data(&mut self, direction: Operation, data: &[u8]) {
        if self.output.is_none() {
            return;
        }
        let settings = &self.settings;
        let (body, seq_num) = match &mut self.state {
            RecorderState::Streamed { next_seq_num, .. } => {
                let limit = match (settings.min_streamed_sent_bytes, direction) {
                    (Some(_), _) => usize::MAX,
                    (None, Operation::Read) => settings.max_buffered_rx_bytes as usize,
                    (None, Operation::Write { .. }) => settings.max_buffered_tx_bytes as usize,
                };
                let seq_num = *next_seq_num;
                *next_seq_num += data.len() as u64;
                (body(data, limit), seq_num)
            }
            RecorderState::Buffered { rx, tx, .. } => {
                let quota = if matches!(direction, Operation::Read) { rx } else { tx };
                match quota.take(data) {
                    Some(body) => (body, 0),
                    None => return,
                }
            }
        };
        let data = Some(body);
        let selector = match direction {
            Operation::Read => EventSelector::Read(Read { data }),
            Operation::Write { end_stream } => EventSelector::Write(Write { data, end_stream }),
        };
        self.event(selector, seq_num);
    }

    /// Ends the trace, because the connection has ended. Later events are not recorded.
    pub fn close(&mut self) {
        if self.output.is_none() {
            return;
        }
        match &mut self.state {
            RecorderState::Streamed { next_seq_num, .. } => {
                // The close takes one number of its own, like a FIN.
                let seq_num = *next_seq_num + 1;
                self.event(EventSelector::Closed(Closed {}), seq_num);
                self.flush();
            }
            RecorderState::Buffered { events, rx, tx } => {
                let trace = SocketBufferedTrace {
                    trace_id: self.id,
                    connection: Some(self.connection.clone()),
                    events: mem::take(events),
                    read_truncated: rx.exceeded,
                    write_truncated: tx.exceeded,
                };
                self.submit(Trace::SocketBufferedTrace(trace));
            }
        }
        self.output = None;
    }

    fn event(&mut self, selector: EventSelector, seq_num: u64) {
        let bytes = match &selector {
            EventSelector::Read(Read { data }) | EventSelector::Write(Write { data, .. }) => {
                data.as_ref().map_or(0, len)
            }
            EventSelector::Closed(_) => 0,
        };
        let mut event = SocketEvent {
            timestamp: Some(timestamp(&*self.clock)),
            event_selector: Some(selector),
            connection: None,
            seq_num,
        };
        let is_full = match &mut self.state {
            RecorderState::Buffered { events, .. } => return events.push(event),
            RecorderState::Streamed { collected, collected_bytes, .. } => {
                if self.settings.set_connection_per_event {
                    event.connection = Some(self.connection.clone());
                }
                match self.settings.min_streamed_sent_bytes {
                    None => return self.submit_segment(MessagePiece::Event(event)),
                    Some(least) => {
                        let least = least.max(TapSettings::LEAST_MIN_STREAMED_SENT_BYTES);
                        collected.push(event);
                        *collected_bytes += bytes;
                        *collected_bytes >= least as usize
                    }
                }
            }
        };
        if is_full {
            self.flush();
        }
    }

    /// Sends the events held back because of `min_streamed_sent_bytes`.
    fn flush(&mut self) {
        if let RecorderState::Streamed { collected, collected_bytes, .. } = &mut self.state
            && !collected.is_empty()
        {
            let events = mem::take(collected);
            *collected_bytes = 0;
            self.submit_segment(MessagePiece::Events(SocketEvents { events }));
        }
    }

    fn submit_segment(&mut self, piece: MessagePiece) {
        let segment = SocketStreamedTraceSegment { trace_id: self.id, message_piece: Some(piece) };
        self.submit(Trace::SocketStreamedTraceSegment(segment));
    }

    fn submit(&mut self, trace: Trace) {
        let trace = TraceWrapper { trace: Some(trace), configured_sample_rate: None };
        if let Some(output) = &mut self.output
            && let Err(error) = output.submit(&trace)
        {
            self.output = None;
            (self.on_error)(error);
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.close();
    }
}

fn body(data: &[u8], limit: usize) -> Body {
    let kept = &data[..data.len().min(limit)];
    Body { body_type: Some(BodyType::AsBytes(kept.to_vec())), truncated: kept.len() < data.len() }
}

fn len(body: &Body) -> usize {
    match &body.body_type {
        Some(BodyType::AsBytes(bytes)) => bytes.len(),
        Some(BodyType::AsString(string)) => string.len(),
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Mutex, PoisonError,
            atomic::{AtomicUsize, Ordering},
        },
        time::Duration,
    };

    use super::*;
    use crate::tap::{ManualClock, TraceFormat};

    /// Keeps traces as text, or fails from the `failing`th message on.
    #[derive(Clone)]
    struct Memory {
        text: Arc<Mutex<Vec<u8>>>,
        failing: usize,
    }

    impl Sink for Memory {
        fn open(&self, _: u64) -> Box<dyn TraceSink> {
            Box::new(self.clone())
        }
    }

    impl TraceSink for Memory {
        fn submit(&mut self, trace: &TraceWrapper) -> io::Result<()> {
            if self.failing == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.failing -= 1;
            TraceFormat::ProtoText.encode(trace, &mut self.text.lock().unwrap_or_else(PoisonError::into_inner));
            Ok(())
        }
    }

    /// What a tap with these settings records of `events`: one line per message, without times and some field names.
    fn recorded(settings: TapSettings, events: impl FnOnce(&mut Recorder)) -> Vec<String> {
        let memory = Memory { text: Arc::default(), failing: usize::MAX };
        let clock = Arc::new(ManualClock::at(Duration::from_secs(1)));
        let tap = Tap::new(settings, Arc::new(memory.clone()), clock);
        events(&mut tap.open(3, Connection::default()));
        let text = String::from_utf8(memory.text.lock().unwrap().clone()).unwrap();
        let messages = text.split_inclusive("\n}\n").map(|message| {
            let message = message.split_whitespace().collect::<Vec<_>>().join(" ");
            let message = message
                .replace("timestamp { seconds: 1 } ", "")
                .replace("data { as_bytes: ", "")
                .replace("trace_id: 3 ", "");
            message.replace("socket_streamed_trace_segment", "S").replace("socket_buffered_trace", "B")
        });
        messages.collect()
    }

    fn streaming() -> TapSettings {
        TapSettings { streaming: true, ..TapSettings::default() }
    }

    #[test]
    fn a_direction_ends_with_the_event_that_exceeds_its_limit() {
        let settings = TapSettings { max_buffered_rx_bytes: 3, max_buffered_tx_bytes: 4, ..TapSettings::default() };
        let trace = recorded(settings, |recorder| {
            recorder.read(b"abc");
            recorder.write(b"12345", false);
            recorder.read(b"d");
            recorder.write(b"6", true);
            recorder.read(b"e");
        });
        assert_eq!(
            trace,
            ["B { connection { } events { read { \"abc\" } } } events { write { \"1234\" truncated: true } } } \
              events { read { \"\" truncated: true } } } read_truncated: true write_truncated: true }"]
        );
    }

    #[test]
    fn a_limit_cuts_each_streamed_event_alone_and_seq_nums_count_true_bytes() {
        let settings = TapSettings { max_buffered_rx_bytes: 2, max_buffered_tx_bytes: 0, ..streaming() };
        let trace = recorded(settings, |recorder| {
            recorder.read(b"abc");
            recorder.write(b"12345", true);
            recorder.read(b"de");
        });
        assert_eq!(
            trace,
            [
                "S { connection { } }",
                "S { event { read { \"ab\" truncated: true } } seq_num: 1 } }",
                "S { event { write { \"\" truncated: true } end_stream: true } seq_num: 4 } }",
                "S { event { read { \"de\" } } seq_num: 9 } }",
                "S { event { closed { } seq_num: 12 } }",
            ]
        );
    }

    #[test]
    fn events_are_held_back_until_there_are_nine_bytes_at_least_and_the_close_ends_that() {
        let settings = TapSettings { min_streamed_sent_bytes: Some(0), max_buffered_rx_bytes: 0, ..streaming() };
        let trace = recorded(settings, |recorder| {
            recorder.read(b"12345678");
            recorder.write(b"9", false);
            recorder.read(b"0");
        });
        assert_eq!(
            trace,
            [
                "S { connection { } }",
                "S { events { events { read { \"12345678\" } } seq_num: 1 } events { write { \"9\" } } seq_num: 9 } } }",
                "S { events { events { read { \"0\" } } seq_num: 10 } events { closed { } seq_num: 12 } } }",
            ]
        );
    }

    #[test]
    fn a_bare_half_close_is_recorded_only_where_it_is_asked_for() {
        let half_close = |settings| recorded(settings, Recorder::half_close).len();
        assert_eq!(half_close(streaming()), 2);
        assert_eq!(half_close(TapSettings { record_bare_half_close: true, ..streaming() }), 3);
    }

    #[test]
    fn a_trace_that_cannot_be_written_is_reported_once_and_given_up() {
        let reports = Arc::new(AtomicUsize::new(0));
        let memory = Memory { text: Arc::default(), failing: 1 };
        let counter = Arc::clone(&reports);
        let tap =
            Tap::new(streaming(), Arc::new(memory.clone()), Arc::new(ManualClock::default())).on_error(move |_| {
                counter.fetch_add(1, Ordering::Relaxed);
            });
        let mut recorder = tap.open(3, Connection::default());
        recorder.read(b"lost");
        recorder.read(b"lost, too");
        drop(recorder);
        assert_eq!(reports.load(Ordering::Relaxed), 1);
        let text = String::from_utf8(memory.text.lock().unwrap().clone()).unwrap();
        assert!(text.contains("connection") && !text.contains("read"), "{text}");
    }
}
