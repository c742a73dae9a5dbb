//! What a tap remembers of one connection, and the messages it makes of it.

use std::{io, mem, sync::Arc};

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
    /// A segment for each event as it happens, rather than one message when the connection ends.
    pub streaming: bool,
    /// Bytes of reads that are kept: of each event when streaming, of the whole connection otherwise.
    pub max_buffered_rx_bytes: u32,
    /// The same for writes.
    pub max_buffered_tx_bytes: u32,
    /// Streaming only: collect events until they hold this many bytes. Envoy then keeps every byte, whatever the two
    /// limits say, and so does this tap.
    pub min_streamed_sent_bytes: Option<u32>,
    /// Streaming only: every event carries the connection.
    pub set_connection_per_event: bool,
    /// Whether a half-close without bytes gets a `write` event of its own, empty and with `end_stream`. Envoy records
    /// a half-close only where it travels with the last bytes, so this is off by default.
    pub record_bare_half_close: bool,
}

impl TapSettings {
    /// Envoy's default for `max_buffered_rx_bytes` and `max_buffered_tx_bytes`.
    pub const DEFAULT_MAX_BUFFERED_BYTES: u32 = 1024;
    /// Envoy takes no smaller `min_streamed_sent_bytes`: it answers 0 with segments of at least nine bytes.
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

/// A tap: opens a [`Recorder`] for each connection.
#[derive(Clone)]
pub struct Tap {
    settings: Arc<TapSettings>,
    sink: Arc<dyn Sink>,
    clock: Arc<dyn Clock>,
    on_error: Arc<dyn Fn(io::Error) + Send + Sync>,
}

impl Tap {
    /// A tap that takes its times from `clock` and hands its traces to `sink`.
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

    /// Starts the trace of a connection. `connection` lacks its local address where the socket is not connected yet.
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
                State::Streamed { next_seq_num: 1, collected: Vec::new(), collected_bytes: 0 }
            } else {
                State::Buffered {
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
    /// `None` once closed, or once a message could not be written.
    output: Option<Box<dyn TraceSink>>,
    connection: Connection,
    state: State,
}

enum State {
    Streamed {
        /// One counter for both directions: the position of the next byte, from 1.
        next_seq_num: u64,
        /// What `min_streamed_sent_bytes` holds back.
        collected: Vec<SocketEvent>,
        collected_bytes: usize,
    },
    Buffered {
        events: Vec<SocketEvent>,
        rx: Quota,
        tx: Quota,
    },
}

/// What is left of a buffered trace's limit for one direction.
struct Quota {
    left: usize,
    /// An event was cut. It was the last one of its direction.
    exceeded: bool,
}

impl Quota {
    fn new(limit: u32) -> Self {
        Self { left: limit as usize, exceeded: false }
    }

    /// `None` where the direction is no longer recorded.
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
enum Direction {
    Read,
    Write { end_stream: bool },
}

impl Recorder {
    /// The id in the trace and in its file's name.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The socket is connected: events, and a buffered trace, carry this address from now on.
    pub fn set_local_address(&mut self, address: Option<Address>) {
        self.connection.local_address = address;
    }

    /// Bytes came from the peer.
    pub fn read(&mut self, data: &[u8]) {
        self.data(Direction::Read, data);
    }

    /// Bytes went to the peer. `end_stream`: they are the last ones.
    pub fn write(&mut self, data: &[u8], end_stream: bool) {
        self.data(Direction::Write { end_stream }, data);
    }

    /// The write side ended without bytes.
    pub fn half_close(&mut self) {
        if self.settings.record_bare_half_close {
            self.write(&[], true);
        }
    }

    fn data(&mut self, direction: Direction, data: &[u8]) {
        if self.output.is_none() {
            return;
        }
        let settings = &self.settings;
        let (body, seq_num) = match &mut self.state {
            State::Streamed { next_seq_num, .. } => {
                let limit = match (settings.min_streamed_sent_bytes, direction) {
                    (Some(_), _) => usize::MAX,
                    (None, Direction::Read) => settings.max_buffered_rx_bytes as usize,
                    (None, Direction::Write { .. }) => settings.max_buffered_tx_bytes as usize,
                };
                let seq_num = *next_seq_num;
                *next_seq_num += data.len() as u64;
                (body(data, limit), seq_num)
            }
            State::Buffered { rx, tx, .. } => {
                let quota = if matches!(direction, Direction::Read) { rx } else { tx };
                match quota.take(data) {
                    Some(body) => (body, 0),
                    None => return,
                }
            }
        };
        let data = Some(body);
        let selector = match direction {
            Direction::Read => EventSelector::Read(Read { data }),
            Direction::Write { end_stream } => EventSelector::Write(Write { data, end_stream }),
        };
        self.event(selector, seq_num);
    }

    /// The connection ended. Later events are not recorded.
    pub fn close(&mut self) {
        if self.output.is_none() {
            return;
        }
        match &mut self.state {
            State::Streamed { next_seq_num, .. } => {
                // The close takes one number of its own, like a FIN.
                let seq_num = *next_seq_num + 1;
                self.event(EventSelector::Closed(Closed {}), seq_num);
                self.flush();
            }
            State::Buffered { events, rx, tx } => {
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
            State::Buffered { events, .. } => return events.push(event),
            State::Streamed { collected, collected_bytes, .. } => {
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

    /// Sends what `min_streamed_sent_bytes` held back.
    fn flush(&mut self) {
        if let State::Streamed { collected, collected_bytes, .. } = &mut self.state
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
