//! Writes one exchange: decides the order of its parts, their times and the HTTP version.

use super::{
    HttpOpening, Track, VersionChoice,
    h1::Http1,
    h2::Http2,
    head::MessageHead,
    out::{BodyChunk, MadeKind, Sending},
    sink::{Env, HttpSink},
};
use crate::{
    timeline::{Direction, Opening, TimesFrom},
    trace::{ExchangeFact, Fact, Finding, HttpPart, HttpPiece, HttpSide, MessageView, Nanos, Place},
};

/// The time between parts whose time is made up.
const STEP: Nanos = 1_000;

/// The resolution of a date header.
const SECOND: Nanos = 1_000_000_000;

#[derive(Debug)]
enum Framer {
    One(Http1),
    Two(Box<Http2>),
}

/// An exchange that is being written.
#[derive(Debug)]
pub(super) struct Exchange {
    index: usize,
    trace_id: u64,
    buffered: bool,
    origin: Place,
    client: Direction,
    /// Present until the connection is open.
    opening: Option<Box<Opening>>,
    framer: Option<Framer>,
    last_time: Option<Nanos>,
    order_reported: bool,
}

impl Exchange {
    pub(super) fn new(index: usize, opening: Opening) -> Self {
        Self {
            index,
            trace_id: opening.trace_id,
            buffered: opening.buffered,
            origin: opening.place,
            client: opening.role.client_direction(),
            opening: Some(Box::new(opening)),
            framer: None,
            last_time: None,
            order_reported: false,
        }
    }

    pub(super) fn report(&self, env: &mut Env<'_>, fact: ExchangeFact) {
        let fact = Fact::Exchange { trace_id: self.trace_id, fact };
        env.findings.push(Finding::new(self.origin, fact));
    }

    /// Writes the parts in `view`. `in_window` says that its bytes stay in place until the entries were read. `ends`
    /// says that these are the last parts of the exchange.
    pub(super) fn write(
        &mut self,
        env: &mut Env<'_>,
        view: MessageView<'_>,
        tracks: &[Track; 2],
        in_window: bool,
        ends: bool,
    ) {
        let message = view.message();
        let mut order: Vec<&HttpPiece> = message.http.iter().collect();
        self.sort(env, &mut order, tracks, ends);
        self.open(env, view, &order, tracks);
        let last_of = |side| ends.then(|| order.iter().rposition(|piece| piece.side == side)).flatten();
        let last = [last_of(HttpSide::Request), last_of(HttpSide::Response)];
        for (position, piece) in order.iter().enumerate() {
            let is_last = last[piece.side.index()] == Some(position);
            // The tracks of a buffered trace come from this message, those of a streamed one from several.
            let known = tracks[piece.side.index()].last_head().filter(|_| self.buffered);
            let head = (piece.part == HttpPart::Headers).then(|| MessageHead::with(view, piece, known));
            let time = self.next_time(env, piece, head.as_ref());
            let origin = if self.buffered || ends { self.origin } else { message.place() };
            let track = ends.then_some(&tracks[piece.side.index()]);
            let mut sink = self.sink(env, time, origin);
            let Some(framer) = &mut self.framer else { continue };
            match piece.part {
                HttpPart::Headers => {
                    let head = head.unwrap_or_else(|| MessageHead::read(view, piece));
                    match framer {
                        Framer::One(one) => one.headers(&mut sink, piece.side, &head, track, is_last),
                        Framer::Two(two) => two.headers(&mut sink, piece.side, &head, is_last),
                    }
                }
                HttpPart::Body => {
                    let body = piece.body;
                    let chunk = BodyChunk {
                        bytes: view.bytes(body.payload),
                        span: in_window.then_some(body.payload),
                        truncated: body.truncated,
                        as_string: body.as_string,
                    };
                    match framer {
                        Framer::One(one) => one.body(&mut sink, piece.side, chunk, is_last),
                        Framer::Two(two) => {
                            let cut = body.truncated || body.as_string;
                            let mut after = order[position + 1..].iter().filter(|_| cut);
                            let next = after.find(|next| (next.side, next.part) == (piece.side, HttpPart::Body));
                            let next = next.map(|next| view.bytes(next.body.payload));
                            two.body(&mut sink, piece.side, chunk, next, is_last);
                        }
                    }
                }
                HttpPart::Trailers => {
                    let head = MessageHead::read(view, piece);
                    match framer {
                        Framer::One(one) => one.trailers(&mut sink, piece.side, &head),
                        Framer::Two(two) => two.trailers(&mut sink, piece.side, &head),
                    }
                }
            }
        }
        env.shared.out.flush();
    }

    /// Ends the exchange and its connection.
    pub(super) fn end(&mut self, env: &mut Env<'_>, tracks: &[Track; 2], complete: bool) {
        if self.framer.is_none() {
            // The trace records only that there was an exchange.
            self.open(env, MessageView::new(&crate::trace::Message::default(), &[]), &[], tracks);
        }
        let time = self.last_time.unwrap_or_default();
        let origin = self.origin;
        let mut sink = self.sink(env, time, origin);
        for side in [HttpSide::Request, HttpSide::Response] {
            let truncated = tracks[side.index()].truncated;
            match &mut self.framer {
                Some(Framer::One(one)) => one.finish(&mut sink, side, complete, truncated),
                Some(Framer::Two(two)) => two.finish(&mut sink, side, complete),
                None => {}
            }
        }
        let at = sink.at(HttpSide::Request);
        env.shared.out.flush();
        let last = matches!(&self.framer, Some(Framer::One(one)) if one.is_last());
        env.shared.out.push(at, MadeKind::Ended { complete, last });
    }

    fn sink<'e>(&self, env: &'e mut Env<'_>, time: Nanos, origin: Place) -> HttpSink<'e> {
        let at = Sending { stream: self.index, origin, direction: self.client, time };
        HttpSink::new(env, at, self.client, self.trace_id)
    }

    /// Sorts parts into the order in which they were sent. A buffered trace always needs this, because its fields do
    /// not tell the order. A streamed trace needs it if its parts cannot have been sent as they came.
    fn sort(&mut self, env: &mut Env<'_>, order: &mut [&HttpPiece], tracks: &[Track; 2], ends: bool) {
        let tunnel = tracks.iter().any(|track| track.tunnel);
        let key = |piece: &HttpPiece| {
            // After an upgrade, both heads come first; then both sides may send in any order.
            let tunnelled = tunnel && piece.part != HttpPart::Headers;
            (tunnelled, piece.side.index(), piece.part)
        };
        if self.buffered {
            if !order.is_sorted_by_key(|piece| key(piece)) {
                order.sort_by_key(|piece| key(piece));
            }
            return;
        }
        let request = order.iter().position(|piece| (piece.side, piece.part) == (HttpSide::Request, HttpPart::Headers));
        let early =
            request.is_some_and(|request| order[..request].iter().any(|piece| piece.side == HttpSide::Response));
        if !early && !tracks.iter().any(|track| track.out_of_order) {
            return;
        }
        if !self.order_reported {
            self.order_reported = true;
            self.report(env, ExchangeFact::SegmentsOutOfOrder);
        }
        if ends {
            order.sort_by_key(|piece| key(piece));
        }
    }

    /// Opens the connection, if it is not open.
    fn open(&mut self, env: &mut Env<'_>, view: MessageView<'_>, order: &[&HttpPiece], tracks: &[Track; 2]) {
        let Some(mut opening) = self.opening.take() else { return };
        let late = order.iter().any(|piece| piece.time.is_some_and(|time| time > env.shared.latest));
        if late {
            self.report(env, ExchangeFact::LateTime);
        }
        let recorded = order
            .iter()
            .enumerate()
            .find_map(|(index, piece)| Some((index as u64, piece.time.filter(|time| *time <= env.shared.latest)?)));
        let date = || {
            let mut heads =
                order.iter().filter(|piece| (piece.side, piece.part) == (HttpSide::Response, HttpPart::Headers));
            heads.find_map(|piece| MessageHead::read(view, piece).date())
        };
        let (time, times) = match (recorded, env.shared.start_time) {
            // Parts before the first one with a time were sent earlier.
            (Some((_, time)), _) if view.message().arrived => (time, TimesFrom::Arrival),
            (Some((before, time)), _) => (time.saturating_sub(before.saturating_mul(STEP)), TimesFrom::Recorded),
            (None, Some(start)) => (after_clock(env.shared.clock, start), TimesFrom::Given),
            (None, None) => match date().filter(|date| *date <= env.shared.latest) {
                Some(date) => (within_second(env.shared.clock, date), TimesFrom::Date),
                None => {
                    let (start, from) = env.shared.start.get();
                    let from =
                        if env.shared.clock.is_some() && from == TimesFrom::Next { TimesFrom::Before } else { from };
                    (after_clock(env.shared.clock, start), from)
                }
            },
        };
        let time = time.min(env.shared.latest);
        if times != TimesFrom::Recorded {
            env.shared.clock = Some(time);
        }
        let two = match env.shared.options.version {
            VersionChoice::One => false,
            VersionChoice::Two => true,
            VersionChoice::Auto => {
                let tunnel = tracks.iter().any(|track| track.tunnel);
                !tunnel && tracks.iter().any(|track| track.wants_http2 || track.has_trailers)
            }
        };
        self.framer = Some(if two { Framer::Two(Box::default()) } else { Framer::One(Http1::default()) });
        opening.times = times;
        opening.http = Some(HttpOpening {
            version: if two { 2 } else { 1 },
            end_assumed: !opening.buffered && !tracks[1].has_trailers,
            of_socket: view.message().connection_of_socket,
            last: false,
            notes: Vec::new(),
        });
        // The first part gets the time of the opening.
        self.last_time = Some(time);
        let at = Sending { stream: self.index, origin: self.origin, direction: self.client, time };
        env.shared.out.push(at, MadeKind::Opened(opening));
        if let Some(Framer::Two(framer)) = &mut self.framer {
            let mut sink = HttpSink::new(env, at, self.client, self.trace_id);
            framer.greet(&mut sink);
        }
    }

    fn next_time(&mut self, env: &mut Env<'_>, piece: &HttpPiece, head: Option<&MessageHead<'_>>) -> Nanos {
        let last = self.last_time.unwrap_or_default();
        let time = match piece.time.filter(|time| *time <= env.shared.latest) {
            Some(time) => time.max(last),
            None => {
                let mut time = last.saturating_add(STEP);
                // What is later in the trace is later in the capture, unless the clock is a second or more ahead.
                if let Some(clock) = env.shared.clock
                    && (last..last.saturating_add(SECOND)).contains(&clock)
                {
                    time = clock.saturating_add(STEP);
                }
                // On a live stream, the date is known only after the request was written.
                if env.shared.start_time.is_none()
                    && piece.side == HttpSide::Response
                    && let Some(date) = head.and_then(MessageHead::date).filter(|date| *date <= env.shared.latest)
                {
                    time = time.max(date);
                }
                // The clock stops at the latest time that the capture can hold.
                let time = time.min(env.shared.latest);
                env.shared.clock = Some(time);
                time
            }
        };
        self.last_time = Some(time);
        time
    }
}

/// A time from `start` on, and after the clock.
fn after_clock(clock: Option<Nanos>, start: Nanos) -> Nanos {
    clock.filter(|clock| *clock >= start).map_or(start, |clock| clock.saturating_add(STEP))
}

/// A time in the second that begins at `date`, and after the clock if the clock is in that second.
fn within_second(clock: Option<Nanos>, date: Nanos) -> Nanos {
    let same_second = clock.filter(|clock| (date..date.saturating_add(SECOND)).contains(clock));
    same_second.map_or(date, |clock| clock.saturating_add(STEP))
}
