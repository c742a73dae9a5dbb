//! The totals of each connection of a source, and what is wrong with it.

use super::{
    ConnectionId, Data, Entry, EntryKind, Opening, PerConnection, Room, Sniffer, Speech, Timelines, TrueLength,
};
use crate::trace::{Fact, Finding, Findings, Nanos, Owner, Place};

/// The totals of one direction of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DirectionTotals {
    /// How many reads or writes there were.
    pub events: u64,
    /// How many bytes are in the trace.
    pub bytes: u64,
    /// How many bytes are known to be missing.
    pub lost: u64,
    /// How many events lack an unknown number of bytes.
    pub open_ended: u64,
    /// How many events Envoy cut to its limit.
    pub truncated: u64,
    /// How many bytes of these cut events are known to be missing.
    pub truncated_bytes: u64,
}

/// One connection from its first entry to its last.
#[derive(Clone, Debug)]
pub struct Summary {
    /// What was known when it opened.
    pub opening: Opening,
    /// The time of the first entry.
    pub first: Nanos,
    /// The time of the last entry.
    pub last: Nanos,
    /// Inbound and outbound.
    pub sides: [DirectionTotals; 2],
    /// Whether it ended within the trace.
    pub closed: bool,
    /// The application protocol, and what else its first bytes tell.
    pub speech: Speech,
    sniffer: Sniffer,
    truncated: Count,
    destroyed: Count,
    /// The event before, if a gap after it would belong to it.
    open_event: Option<OpenEvent>,
}

/// An event that may have had more bytes than were known when it came.
#[derive(Clone, Copy, Debug)]
enum OpenEvent {
    /// Envoy cut it. `stand_in` lost bytes stand for all missing ones.
    Truncated { stand_in: u64 },
    /// It is from JSON_BODY_AS_STRING, and was longer if it had binary data.
    AsString { place: Place },
}

/// How often bytes were missing, how many in all, and where first.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    times: u64,
    bytes: u64,
    first: Place,
}

impl Count {
    fn add(&mut self, bytes: u64, place: Place) {
        if self.times == 0 {
            self.first = place;
        }
        self.times += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

impl Summary {
    /// Counts an event that lacks bytes, or may lack some.
    #[cold]
    fn incomplete(&mut self, place: Place, data: &Data<'_>) {
        let present = data.payload.len() as u64;
        let side = &mut self.sides[data.direction.index()];
        let lost = match data.length {
            TrueLength::Known(length) => length - present,
            TrueLength::MoreThan(_) | TrueLength::Unframed(_) => {
                side.open_ended += 1;
                0
            }
        };
        // Saturating, because a trace can claim any `seq_num`.
        side.lost = side.lost.saturating_add(lost);
        if data.truncated {
            side.truncated += 1;
            side.truncated_bytes = side.truncated_bytes.saturating_add(lost);
        }
        self.open_event = match data.length {
            TrueLength::MoreThan(_) => Some(OpenEvent::Truncated { stand_in: 1 }),
            TrueLength::Unframed(_) => Some(OpenEvent::Truncated { stand_in: 0 }),
            TrueLength::Known(_) => data.as_string.then_some(OpenEvent::AsString { place }),
        };
        if data.length != TrueLength::Known(present) {
            self.sniffer.lose(data.direction);
            let count = if data.as_string && !data.truncated { &mut self.destroyed } else { &mut self.truncated };
            count.add(lost, place);
        }
    }
}

#[cold]
fn backwards(by: Nanos, place: Place) -> Finding {
    Finding::new(place, Fact::TimeBackwards { by })
}

/// Which of a connection's addresses are missing.
fn missing_address(opening: &Opening) -> Option<Fact> {
    let trace_id = opening.trace_id;
    let owner = match (&opening.connection.local, &opening.connection.remote) {
        (Some(_), Some(_)) => return None,
        (None, None) => {
            let http_buffered = opening.http.is_some().then_some(opening.buffered);
            return Some(Fact::MissingConnection { trace_id, http_buffered });
        }
        (None, Some(_)) => Owner::Local,
        (Some(_), None) => Owner::Remote,
    };
    Some(Fact::MissingAddress { trace_id, owner, unconnected: opening.is_unconnected_cluster() })
}

/// Follows the entries of one source.
#[derive(Debug, Default)]
pub struct Summaries {
    open: PerConnection<Summary>,
    room: Room,
}

impl Summaries {
    /// Counts the current entry of `timelines`, and reports what is wrong with it. Returns the connection's summary at
    /// its last entry.
    #[inline(always)]
    pub fn entry(&mut self, timelines: &Timelines, entry: &Entry<'_>, findings: &mut Findings) -> Option<Summary> {
        if let EntryKind::Data(data) = &entry.kind {
            self.data(timelines, entry.connection, entry.time, data, findings);
            None
        } else {
            self.other(timelines, entry, findings)
        }
    }

    #[inline(always)]
    fn data(
        &mut self,
        timelines: &Timelines,
        connection: ConnectionId,
        time: Nanos,
        data: &Data<'_>,
        findings: &mut Findings,
    ) {
        let Some(summary) = self.open.get_mut(connection) else { return };
        if time < summary.last {
            findings.push(backwards(summary.last - time, timelines.place()));
        }
        summary.last = time;
        summary.sniffer.look(data.direction, data.payload, &mut self.room);
        let present = data.payload.len() as u64;
        let side = &mut summary.sides[data.direction.index()];
        side.events += 1 + u64::from(data.joined.is_some());
        side.bytes += present;
        summary.open_event = None;
        if data.length != TrueLength::Known(present) || data.as_string {
            summary.incomplete(timelines.place(), data);
        }
    }

    fn other(&mut self, timelines: &Timelines, entry: &Entry<'_>, findings: &mut Findings) -> Option<Summary> {
        if let EntryKind::Opened = entry.kind {
            self.open(entry.connection, entry.time, timelines.opening(entry.connection)?, findings);
            return None;
        }
        let summary = self.open.get_mut(entry.connection)?;
        if entry.time < summary.last {
            findings.push(backwards(summary.last - entry.time, timelines.place()));
        }
        // The entry of an abandoned connection has the time when its source ended, but the connection had no event
        // then.
        if !matches!(entry.kind, EntryKind::Abandoned) {
            summary.last = entry.time;
        }
        match entry.kind {
            // These were handled above.
            EntryKind::Opened | EntryKind::Data(_) => None,
            EntryKind::Gap { direction, bytes, certain } => {
                summary.sniffer.lose(direction);
                if !certain {
                    summary.sniffer.lose(direction.reverse());
                }
                let side = &mut summary.sides[direction.index()];
                match summary.open_event.take().filter(|_| certain) {
                    Some(OpenEvent::Truncated { stand_in }) => {
                        let bytes = bytes.saturating_add(stand_in);
                        side.lost = side.lost.saturating_add(bytes);
                        side.open_ended = side.open_ended.saturating_sub(1);
                        side.truncated_bytes = side.truncated_bytes.saturating_add(bytes);
                        summary.truncated.bytes = summary.truncated.bytes.saturating_add(bytes);
                        return None;
                    }
                    Some(OpenEvent::AsString { place }) => {
                        side.lost = side.lost.saturating_add(bytes);
                        summary.destroyed.add(bytes, place);
                        return None;
                    }
                    None => side.lost = side.lost.saturating_add(bytes),
                }
                findings.push(Finding::new(timelines.place(), Fact::LostBytes { bytes }));
                None
            }
            EntryKind::Closed { .. } => self.end(entry.connection, true, findings),
            EntryKind::Abandoned => self.end(entry.connection, false, findings),
        }
    }

    fn open(&mut self, connection: ConnectionId, time: Nanos, opening: &Opening, findings: &mut Findings) {
        if let Some(missing) = missing_address(opening) {
            findings.push(Finding::new(opening.place, missing));
        }
        let summary = Summary {
            opening: opening.clone(),
            first: time,
            last: time,
            sides: [DirectionTotals::default(); 2],
            closed: false,
            speech: Speech::default(),
            sniffer: Sniffer::default(),
            truncated: Count::default(),
            destroyed: Count::default(),
            open_event: None,
        };
        self.open.insert(connection, summary);
    }

    fn end(&mut self, connection: ConnectionId, closed: bool, findings: &mut Findings) -> Option<Summary> {
        let mut summary = self.open.take(connection)?;
        summary.closed = closed;
        summary.speech = std::mem::take(&mut summary.sniffer).finish(&mut self.room);
        let trace_id = summary.opening.trace_id;
        let Count { times: bodies, bytes, first } = summary.truncated;
        if bodies > 0 {
            let open_ended = summary.sides.iter().any(|side| side.open_ended > 0);
            let fact = Fact::TruncatedBodies { trace_id, bodies, bytes, open_ended };
            findings.push(Finding::new(first, fact));
        }
        let Count { times: bodies, bytes, first } = summary.destroyed;
        if bodies > 0 {
            findings.push(Finding::new(first, Fact::DestroyedBodies { trace_id, bodies, bytes }));
        }
        if !closed {
            let http = summary.opening.http.is_some();
            findings.push(Finding::new(summary.opening.place, Fact::MissingClose { trace_id, http }));
        }
        Some(summary)
    }
}
