//! Timelines of one source: messages in, entries of connections out, one at a time.
//!
//! A source may interleave many connections, which their `trace_id` tells apart. A connection is forgotten when it
//! closes. Only an event that waits for the next one, to learn its true length, is copied.

#[cfg(feature = "live")]
use std::sync::Arc;

#[cfg(feature = "live")]
use super::OpenRequests;
use super::{
    ConnectionId, Entry, EntryKind, HttpTaps, Opening, Record, TimelineOptions,
    entry::PayloadPlace,
    replayed::Replayed,
    sockets::{PendingEntry, Sockets},
};
#[cfg(feature = "live")]
use crate::input::Arrivals;
use crate::{
    input::{Advance, Source},
    trace::{Fact, Finding, Findings, MessageView, Nanos, Place, TraceKind},
};

/// The timelines of one source, entry by entry, in the order of the trace.
#[derive(Debug)]
pub struct Timelines {
    source: Source,
    options: TimelineOptions,
    sockets: Sockets,
    replayed: Replayed,
    ended: bool,
    /// How many messages of HTTP traces were passed on.
    exchanges: u64,
    /// When the source's bytes arrived, if it is live.
    #[cfg(feature = "live")]
    arrivals: Option<Arc<Arrivals>>,
    /// The requests on tapped sockets whose HTTP may be tapped too.
    #[cfg(feature = "live")]
    requests: OpenRequests,
}

impl Timelines {
    /// Assembles the timelines of `source`.
    #[must_use]
    pub fn new(source: Source, options: TimelineOptions) -> Self {
        let sockets = Sockets::new(&source, options);
        Self {
            source,
            options,
            sockets,
            replayed: Replayed::default(),
            ended: false,
            exchanges: 0,
            #[cfg(feature = "live")]
            arrivals: None,
            #[cfg(feature = "live")]
            requests: OpenRequests::default(),
        }
    }

    /// Gives what has no time of its own the time of its arrival.
    #[cfg(feature = "live")]
    pub(crate) fn set_arrivals(&mut self, arrivals: Arc<Arrivals>) {
        self.arrivals = Some(arrivals);
    }

    /// When the current message arrived, if the source is live.
    #[cfg(feature = "live")]
    pub(crate) fn arrived(&self) -> Option<Nanos> {
        self.sockets.clock.arrived
    }

    /// The requests whose addresses segments of HTTP traces get, if they are the same. The caller adds them.
    #[cfg(feature = "live")]
    pub(crate) fn requests(&self) -> OpenRequests {
        self.requests.clone()
    }

    /// Gives a message what another source than itself tells of it.
    #[cfg(feature = "live")]
    fn complete_message(&mut self) {
        if let Some(arrivals) = &self.arrivals {
            let time = arrivals.time(self.source.offset()).map(|time| time.min(self.sockets.clock.latest));
            self.sockets.clock.arrived = time;
            if let Some(time) = time {
                self.source.set_time_of_arrival(time);
            }
            if let Some(ends) = self.requests.take(self.source.message(), time.unwrap_or_default()) {
                self.source.set_connection(ends);
            }
        }
    }

    #[cfg(not(feature = "live"))]
    fn complete_message(&mut self) {}

    /// The source of the timelines.
    #[must_use]
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// Reads more input after [`Advance::NeedInput`], like [`Source::fill`]. It may block.
    pub fn fill(&mut self, findings: &mut Findings) {
        self.source.fill(findings);
    }

    /// How many connections were opened so far.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.sockets.table.opened
    }

    /// What is known of a connection. Call this while one of its entries is the current one.
    #[must_use]
    pub fn opening(&self, connection: ConnectionId) -> Option<&Opening> {
        self.sockets.table.get(connection).map(|state| &state.opening)
    }

    /// Reports what is wrong with the addresses of a connection that was just opened.
    pub fn report_faults(&self, connection: ConnectionId, faults: &[Fact], findings: &mut Findings) {
        // If the source ends inside an address, the cut is reported instead.
        if faults.is_empty() || self.source.records().cut {
            return;
        }
        let Some(place) = self.opening(connection).map(|opening| opening.place) else { return };
        findings.extend(faults.iter().map(|fault| Finding::new(place, fault.clone())));
    }

    /// The entry that the last [`Timelines::advance`] reached.
    #[inline(always)]
    #[must_use]
    pub fn entry(&self) -> Option<Entry<'_>> {
        let PendingEntry { connection, time, kind } = self.sockets.queue.current?;
        let kind = match kind {
            // Not by `EntryKind::map`: its closure is not inlined, and small events take a fifth longer with the copies.
            EntryKind::Data(record) => {
                EntryKind::Data(record.with(self.payload(record.payload), self.replayed.notes()))
            }
            EntryKind::Opened => EntryKind::Opened,
            EntryKind::Gap { direction, bytes, certain } => EntryKind::Gap { direction, bytes, certain },
            EntryKind::Closed { recorded } => EntryKind::Closed { recorded },
            EntryKind::Abandoned => EntryKind::Abandoned,
        };
        Some(Entry { connection, time, kind })
    }

    #[inline(always)]
    fn payload(&self, place: PayloadPlace) -> &[u8] {
        match place {
            PayloadPlace::Message(span) => self.source.message().bytes(span),
            PayloadPlace::Held => self.sockets.holding.released(),
            PayloadPlace::Replay(start, end) => self.replayed.bytes(start, end),
        }
    }

    /// The message of an HTTP trace that the last [`Timelines::advance`] reached, if it reached no entry.
    #[must_use]
    pub fn unreplayed(&self) -> Option<MessageView<'_>> {
        let is_http = self.source.records().kind.is_some_and(TraceKind::is_http);
        (self.sockets.queue.current.is_none() && is_http).then(|| self.source.message())
    }

    /// Whether the messages of HTTP traces are given out as they are, so that entries of them are only repetitions.
    #[must_use]
    pub fn gives_unreplayed(&self) -> bool {
        self.options.http_taps.are_given()
    }

    /// How many messages of HTTP traces were given out as they are.
    #[must_use]
    pub fn unreplayed_messages(&self) -> u64 {
        self.exchanges
    }

    /// The time of the current entry.
    #[inline]
    #[must_use]
    pub fn time(&self) -> Option<Nanos> {
        self.sockets.queue.current.as_ref().map(|entry| entry.time)
    }

    /// Where the current entry's message begins.
    #[must_use]
    pub fn place(&self) -> Place {
        if let Some(place) = self.replayed.place() {
            return place;
        }
        match self.sockets.queue.current {
            Some(PendingEntry { kind: EntryKind::Data(Record { payload: PayloadPlace::Held, .. }), .. }) => {
                self.sockets.holding.released_place()
            }
            _ => self.sockets.cursor.place(&self.source),
        }
    }

    /// Goes to the next entry, and reports what is wrong on the way. After [`Advance::NeedInput`], call
    /// [`Timelines::fill`], then this again.
    #[inline]
    pub fn advance(&mut self, findings: &mut Findings) -> Advance {
        if self.sockets.next_plain(&self.source) { Advance::Message } else { self.advance_any(findings) }
    }

    /// Kept out of [`Timelines::advance`], which is short because nearly every entry needs no more.
    #[inline(never)]
    fn advance_any(&mut self, findings: &mut Findings) -> Advance {
        if let Some(PendingEntry { connection, kind, .. }) = self.sockets.queue.current
            && kind.is_last()
        {
            self.sockets.table.forget(connection);
        }
        self.sockets.queue.advance();
        self.replayed.forget_current();
        loop {
            if self.sockets.queue.current.is_some() {
                return Advance::Message;
            }
            if self.sockets.cursor.in_message {
                if self.sockets.next_in_message(&mut self.source, findings).is_err() {
                    return Advance::NeedInput;
                }
                continue;
            }
            if self.next_replayed(findings) {
                continue;
            }
            if self.ended {
                return Advance::End;
            }
            let advance = self.source.advance(findings);
            if advance == Advance::Message {
                self.complete_message();
            }
            match advance {
                Advance::Message => match self.source.records().kind {
                    Some(TraceKind::HttpBuffered | TraceKind::HttpStreamed) => {
                        if self.options.http_taps != HttpTaps::Unreplayed {
                            self.replayed.message(&self.source, &self.options, &self.sockets.clock.start, findings);
                        }
                        if self.options.http_taps.are_given() {
                            self.exchanges += 1;
                            return Advance::Message;
                        }
                    }
                    _ => self.sockets.begin_message(&self.source, findings),
                },
                Advance::NeedInput => {
                    if self.options.eager && self.replayed.wait() && self.next_replayed(findings) {
                        continue;
                    }
                    return Advance::NeedInput;
                }
                Advance::End => {
                    self.sockets.release_held(None);
                    self.ended = true;
                    for connection in self.sockets.table.open_in_order() {
                        self.sockets.end_connection(&self.source, connection, EntryKind::Abandoned);
                    }
                    self.replayed.end();
                }
            }
        }
    }

    fn next_replayed(&mut self, findings: &mut Findings) -> bool {
        match self.replayed.next(&self.source, &mut self.sockets.table, findings) {
            Some(entry) => {
                self.sockets.queue.push(entry);
                true
            }
            None => false,
        }
    }
}
