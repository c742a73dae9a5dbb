//! HTTP tap traces as connections: recorded exchanges are replayed as HTTP/1.1 or HTTP/2 bytes.
//!
//! An HTTP tap records fields and bodies, not the bytes on the wire. This module makes the bytes that a client and a
//! server would have sent, in entries like those of a tapped socket, so that later stages see no difference.
//!
//! A streamed exchange arrives in segments, and late segments decide how the start is written: trailers need HTTP/2 or
//! chunks, a missing content-length needs chunks. So the segments are held until the exchange is over or too large, or
//! a live stream has no more input for now.

mod exchange;
mod grpc;
mod h1;
mod h2;
pub(super) mod head;
mod open_exchanges;
#[cfg(feature = "live")]
mod open_requests;
mod out;
mod sink;
mod track;

use std::collections::VecDeque;

use clap::ValueEnum;

#[cfg(feature = "live")]
pub(crate) use self::open_requests::{OpenRequest, OpenRequests};
pub(super) use self::out::{Made, MadeKind};
pub use self::track::Track;
use self::{
    exchange::Exchange,
    out::Out,
    sink::{Env, ReplayShared},
};
pub(crate) use self::{h1::reason_phrase, open_exchanges::OpenExchanges, track::Completeness};
use super::{Opening, Role, TimelineOptions, TimesFrom, start_time::Start};
use crate::trace::{Connection, ExchangeFact, Findings, HttpPart, MessageView, Nanos, Place, ReplayNote, TraceKind};

/// How many bytes of one exchange may be held.
const MAX_HELD: usize = 256 << 10;

/// How many bytes of all exchanges of a source may be held.
const MAX_HELD_TOGETHER: usize = 32 << 20;

/// How many exchanges may be open. Nothing marks the end of a streamed exchange, so one more ends the exchange that has
/// been silent for longest.
const MAX_OPEN: usize = 8192;

/// How many exchanges that look complete are kept open, because trailers may follow even a body of known length.
const MAX_COMPLETE: usize = 64;

/// Which version of HTTP an exchange is replayed in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum VersionChoice {
    /// Chosen by what the exchange shows.
    #[default]
    Auto,
    /// HTTP/1.1.
    #[value(name = "1")]
    One,
    /// HTTP/2.
    #[value(name = "2")]
    Two,
}

/// Which connection is replayed if the trace has both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum SideChoice {
    /// The client's connection to Envoy, or Envoy's connection to the server if only that one is recorded.
    #[default]
    #[value(help = "The client's connection to Envoy")]
    Downstream,
    /// Envoy's connection to the server.
    Upstream,
}

/// How HTTP traces are replayed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HttpOptions {
    /// The HTTP version.
    pub version: VersionChoice,
    /// Which connection is replayed.
    pub side: SideChoice,
}

/// What is known of a connection whose bytes are replayed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpOpening {
    /// The HTTP version, 1 or 2.
    pub version: u8,
    /// The end of the exchange is assumed: in a streamed trace, only trailers mark it.
    pub end_assumed: bool,
    /// The addresses are those of a tapped socket, which carried the same request at the same time.
    pub of_socket: bool,
    /// No other exchange can follow on the connection. This is known once the exchange is over.
    pub last: bool,
    /// What else was made up, escaped or left out.
    pub notes: Vec<ReplayNote>,
}

/// Replays the HTTP exchanges of one source.
#[derive(Debug)]
pub(super) struct HttpReplay {
    shared: ReplayShared,
    eager: bool,
    max_open: usize,
    open: OpenExchanges<Option<Exchange>>,
    held_together: usize,
    /// The slots and origins of streams that hold segments; used for live sources only.
    waiting: VecDeque<(usize, Place)>,
}

impl HttpReplay {
    pub(super) fn new(options: &TimelineOptions, start: Start) -> Self {
        let shared = ReplayShared {
            options: options.http,
            start_time: options.start_time,
            start,
            latest: options.latest.unwrap_or(Nanos::MAX),
            clock: None,
            out: Out::default(),
        };
        Self {
            shared,
            eager: options.eager,
            max_open: options.max_connections.unwrap_or(MAX_OPEN).clamp(1, MAX_OPEN),
            open: OpenExchanges::default(),
            held_together: 0,
            waiting: VecDeque::new(),
        }
    }

    /// The next entry. `view` is the message that was taken last.
    pub(super) fn next(&mut self, view: MessageView<'_>) -> Option<Made> {
        self.shared.out.next(view)
    }

    /// Bytes of an entry that are in the replay's buffer.
    pub(super) fn bytes(&self, start: usize, end: usize) -> &[u8] {
        self.shared.out.bytes(start, end)
    }

    /// Takes the next message of the source. All entries before it must have been read.
    pub(super) fn message(&mut self, view: MessageView<'_>, findings: &mut Findings) {
        self.shared.out.forget();
        match view.message().kind {
            Some(TraceKind::HttpBuffered) => self.buffered(view, findings),
            Some(TraceKind::HttpStreamed) => self.streamed(view, findings),
            _ => {}
        }
    }

    fn buffered(&mut self, view: MessageView<'_>, findings: &mut Findings) {
        let message = view.message();
        let mut tracks = <[Track; 2]>::default();
        for piece in &message.http {
            tracks[piece.side.index()].add(view, piece);
        }
        let index = self.open.reserve();
        let opening = opening(view, true, self.shared.options.side);
        let mut exchange = Exchange::new(index, opening);
        let complete = !message.cut && completeness(&tracks) == Completeness::Complete;
        let env = &mut Env { shared: &mut self.shared, findings };
        report_incomplete(env, &exchange, &tracks, message.cut);
        exchange.write(env, view, &tracks, true, true);
        exchange.end(env, &tracks, complete);
        self.open.release(index);
    }

    fn streamed(&mut self, view: MessageView<'_>, findings: &mut Findings) {
        let message = view.message();
        if message.http.is_empty() {
            return;
        }
        let index = self.open.of(view);
        let stream = self.open.get(index);
        for piece in &message.http {
            stream.tracks[piece.side.index()].add(view, piece);
        }
        let ended = message.http.iter().any(|piece| piece.part == HttpPart::Trailers && piece.side.index() == 1);
        if let Some(exchange) = &mut stream.state {
            let env = &mut Env { shared: &mut self.shared, findings };
            exchange.write(env, view, &stream.tracks, true, false);
        } else {
            let before = stream.held_bytes;
            stream.hold(view);
            let held = stream.held_bytes;
            self.held_together += held - before;
            if self.eager && before == 0 {
                self.waiting.push_back((index, stream.origin));
            }
            if !ended && (held > MAX_HELD || self.held_together > MAX_HELD_TOGETHER) {
                self.begin(index, findings);
            }
        }
        if ended {
            self.finish(index, findings);
        } else {
            let stream = self.open.get(index);
            if completeness(&stream.tracks) == Completeness::Complete && stream.tracks[1].has_known_end() {
                self.open.note_complete(index);
            }
        }
        while let Some(index) = self.open.next_to_end(self.max_open, MAX_COMPLETE) {
            self.finish(index, findings);
        }
    }

    /// Writes the held segments of a stream that may go on.
    fn begin(&mut self, index: usize, findings: &mut Findings) {
        let stream = self.open.get(index);
        let Some(held) = stream.take_held() else { return };
        self.held_together -= held.bytes;
        let view = held.view();
        let opening = Opening { place: stream.origin, ..opening(view, false, self.shared.options.side) };
        let exchange = stream.state.get_or_insert_with(|| Exchange::new(index, opening));
        let env = &mut Env { shared: &mut self.shared, findings };
        exchange.write(env, view, &stream.tracks, false, false);
        self.open.give_back(held);
    }

    /// Writes what is held, because a live source waits for input and its readers must not.
    pub(super) fn wait(&mut self, findings: &mut Findings) {
        self.shared.out.forget();
        for _ in 0..self.waiting.len() {
            let Some((index, origin)) = self.waiting.pop_front() else { break };
            let Some(stream) = self.open.find(index) else { continue };
            // The slot may belong to another stream by now, which has its own place in the queue.
            if stream.origin != origin || stream.held_bytes == 0 || stream.state.is_some() {
                continue;
            }
            // A head that announces a body is kept, because a dissector shows it only with the body, and of a cut body
            // shows only the bytes in the head's packet.
            if stream.announces_body() {
                self.waiting.push_back((index, origin));
            } else {
                self.begin(index, findings);
            }
        }
    }

    /// Ends all exchanges, because the source has ended.
    pub(super) fn end(&mut self, findings: &mut Findings) {
        self.shared.out.forget();
        for index in self.open.in_order() {
            self.finish(index, findings);
        }
    }

    fn finish(&mut self, index: usize, findings: &mut Findings) {
        let Some(mut stream) = self.open.remove(index) else { return };
        let completeness = completeness(&stream.tracks);
        let held = stream.take_held();
        if let Some(held) = &held {
            self.held_together -= held.bytes;
            let origin = stream.origin;
            let exchange = stream.state.get_or_insert_with(|| {
                let opening = opening(held.view(), false, self.shared.options.side);
                Exchange::new(index, Opening { place: origin, ..opening })
            });
            let env = &mut Env { shared: &mut self.shared, findings };
            report_incomplete(env, exchange, &stream.tracks, false);
            exchange.write(env, held.view(), &stream.tracks, false, true);
        }
        if let Some(exchange) = &mut stream.state {
            let env = &mut Env { shared: &mut self.shared, findings };
            if held.is_none() {
                report_incomplete(env, exchange, &stream.tracks, false);
            }
            exchange.end(env, &stream.tracks, completeness == Completeness::Complete);
        }
        if let Some(held) = held {
            self.open.give_back(held);
        }
        self.open.release(index);
    }
}

/// Whether both halves of an exchange are there.
fn completeness(tracks: &[Track; 2]) -> Completeness {
    let [request, response] = tracks;
    let is_head = request.is_head_request();
    request.completeness(false).max(response.completeness(is_head))
}

fn report_incomplete(env: &mut Env<'_>, exchange: &Exchange, tracks: &[Track; 2], cut: bool) {
    // The cut of the source has a finding of its own.
    if cut {
        return;
    }
    if tracks.iter().any(|track| !track.is_empty() && !track.has_head) {
        exchange.report(env, ExchangeFact::Headless);
    }
    let missing = match completeness(tracks) {
        Completeness::Complete => return,
        Completeness::Unfinished => ExchangeFact::ShortBody,
        Completeness::Headless if tracks[0].is_empty() => ExchangeFact::NoRequest,
        Completeness::Headless if tracks[1].is_empty() => ExchangeFact::NoResponse,
        Completeness::Headless => return,
    };
    exchange.report(env, missing);
}

/// What is known of the connection of an exchange.
fn opening(view: MessageView<'_>, buffered: bool, side: SideChoice) -> Opening {
    let message = view.message();
    let (connection, role) = match (side, &message.connection, &message.upstream_connection) {
        (SideChoice::Upstream, _, upstream) => (upstream.clone(), Role::Upstream),
        (SideChoice::Downstream, None, Some(upstream)) => (Some(upstream.clone()), Role::Upstream),
        (SideChoice::Downstream, downstream, _) => (downstream.clone(), Role::Downstream),
    };
    Opening {
        trace_id: message.trace_id,
        buffered,
        connection: connection.unwrap_or_else(Connection::default),
        role,
        role_given: false,
        place: message.place(),
        times: TimesFrom::Recorded,
        http: None,
    }
}
