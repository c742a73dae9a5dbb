//! What each connection of a source came to, and what is wrong with it.

use super::{
    ConnectionId, Data, Entry, EntryKind, Opening, PerConnection, Preface, Protocol, Sniffer, Timelines, TrueLength,
};
use crate::{
    trace::{Code, Finding, Nanos},
    words::{bytes_are, count_of},
};

/// One direction of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Side {
    /// Reads or writes.
    pub events: u64,
    /// Bytes in the trace.
    pub bytes: u64,
    /// Bytes known to be missing.
    pub lost: u64,
    /// Events of which more is missing, and nobody knows how much.
    pub open_ended: u64,
    /// Events that Envoy cut to its limit.
    pub truncated: u64,
    /// Bytes of these that are known to be missing.
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
    pub sides: [Side; 2],
    /// Whether it ended within the trace.
    pub closed: bool,
    /// What was in it.
    pub protocol: Protocol,
    /// How that began, if it was HTTP/2.
    pub preface: Preface,
    sniffer: Sniffer,
    truncated: Count,
    destroyed: Count,
    /// What the event before was, if a gap behind it is more of it.
    open_event: Option<OpenEvent>,
}

/// An event that may have had more bytes than are known when it comes.
#[derive(Clone, Copy, Debug)]
enum OpenEvent {
    /// So many lost bytes stand for all.
    Truncated { stand_in: u64 },
    /// JSON_BODY_AS_STRING: with binary data in it, it was longer.
    AsString { place: (u64, u64) },
}

/// How often something was seen, and where first.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    times: u64,
    bytes: u64,
    offset: u64,
    message: u64,
}

impl Count {
    fn add(&mut self, bytes: u64, (offset, message): (u64, u64)) {
        if self.times == 0 {
            (self.offset, self.message) = (offset, message);
        }
        self.times += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }

    fn finding(&self, code: Code, detail: String) -> Finding {
        Finding { code, offset: self.offset, message: self.message, detail }
    }
}

impl Summary {
    /// Counts an event of which bytes are missing, or may be.
    #[cold]
    fn incomplete(&mut self, place: (u64, u64), data: &Data<'_>) {
        let present = data.payload.len() as u64;
        let side = &mut self.sides[data.direction.index()];
        let lost = match data.length {
            TrueLength::Known(length) => length - present,
            TrueLength::MoreThan(_) | TrueLength::Unframed(_) => {
                side.open_ended += 1;
                0
            }
        };
        // Positions are whatever the trace claims.
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
            let count = if data.as_string && !data.truncated { &mut self.destroyed } else { &mut self.truncated };
            count.add(lost, place);
        }
    }
}

#[cold]
fn backwards(by: Nanos, (offset, message): (u64, u64)) -> Finding {
    Finding {
        code: Code::TimeBackwards,
        offset,
        message,
        detail: format!("an event is {by} ns older than the one before it on its connection"),
    }
}

/// Which address is missing where the trace has the other one.
fn missing_address(opening: &Opening) -> Option<&'static str> {
    if opening.is_unconnected_cluster() {
        return Some(
            "Envoy's own address is missing: it is not known yet when a streamed tap of a cluster begins; with \
             socket_tap_config.set_connection_per_event every event has it",
        );
    }
    match (&opening.connection.local, &opening.connection.remote) {
        (None, Some(_)) => Some("Envoy's own address is missing"),
        (Some(_), None) => Some("the peer's address is missing"),
        _ => None,
    }
}

/// Follows the entries of one source.
#[derive(Debug, Default)]
pub struct Summaries {
    open: PerConnection<Summary>,
    findings: Vec<Finding>,
}

impl Summaries {
    /// Whether there are findings to take.
    #[inline]
    #[must_use]
    pub fn has_findings(&self) -> bool {
        !self.findings.is_empty()
    }

    /// Takes the findings since the last call.
    pub fn take_findings(&mut self) -> Vec<Finding> {
        std::mem::take(&mut self.findings)
    }

    /// Looks at the current entry of `timelines`. Answers the connection's summary with its last entry.
    #[inline(always)]
    pub fn entry(&mut self, timelines: &Timelines, entry: &Entry<'_>) -> Option<Summary> {
        if let EntryKind::Data(data) = &entry.kind {
            self.data(timelines, entry.connection, entry.time, data);
            None
        } else {
            self.other(timelines, entry)
        }
    }

    #[inline(always)]
    fn data(&mut self, timelines: &Timelines, connection: ConnectionId, time: Nanos, data: &Data<'_>) {
        let Some(summary) = self.open.get_mut(connection) else { return };
        if time < summary.last {
            self.findings.push(backwards(summary.last - time, timelines.place()));
        }
        summary.last = time;
        summary.sniffer.look(data.direction, data.payload);
        let present = data.payload.len() as u64;
        let side = &mut summary.sides[data.direction.index()];
        side.events += 1 + u64::from(data.joined.is_some());
        side.bytes += present;
        summary.open_event = None;
        if data.length != TrueLength::Known(present) || data.as_string {
            summary.incomplete(timelines.place(), data);
        }
    }

    fn other(&mut self, timelines: &Timelines, entry: &Entry<'_>) -> Option<Summary> {
        if let EntryKind::Opened = entry.kind {
            self.open(entry.connection, entry.time, timelines.opening(entry.connection)?);
            return None;
        }
        let summary = self.open.get_mut(entry.connection)?;
        if entry.time < summary.last {
            self.findings.push(backwards(summary.last - entry.time, timelines.place()));
        }
        // An abandoned connection ends with its source, but nothing of it happened then.
        if !matches!(entry.kind, EntryKind::Abandoned) {
            summary.last = entry.time;
        }
        match entry.kind {
            // Both were looked at.
            EntryKind::Opened | EntryKind::Data(_) => None,
            EntryKind::Gap { direction, bytes, certain } => {
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
                let place = timelines.place();
                self.findings.push(Finding {
                    code: Code::LostBytes,
                    offset: place.0,
                    message: place.1,
                    detail: format!("before this event, {} missing, by seq_num", bytes_are(bytes)),
                });
                None
            }
            EntryKind::Closed { .. } => self.end(entry.connection, true),
            EntryKind::Abandoned => self.end(entry.connection, false),
        }
    }

    fn open(&mut self, connection: ConnectionId, time: Nanos, opening: &Opening) {
        if opening.connection.is_empty() {
            self.findings.push(Finding {
                code: Code::MissingConnection,
                offset: opening.offset,
                message: opening.message,
                detail: format!(
                    "trace_id {} has no addresses; a capture gets made-up ones{}",
                    opening.trace_id,
                    match (&opening.http, opening.buffered) {
                        (None, _) => "",
                        (Some(_), true) => "; the tap filter's record_downstream_connection records them",
                        (Some(_), false) => {
                            "; a streamed HTTP trace never has any: buffered ones do with the tap filter's \
                             record_downstream_connection, and taps of a socket always"
                        }
                    }
                ),
            });
        } else if let Some(missing) = missing_address(opening) {
            self.findings.push(Finding {
                code: Code::MissingAddress,
                offset: opening.offset,
                message: opening.message,
                detail: format!("trace_id {}: {missing}; a capture gets a made-up one", opening.trace_id),
            });
        }
        let summary = Summary {
            opening: opening.clone(),
            first: time,
            last: time,
            sides: [Side::default(); 2],
            closed: false,
            protocol: Protocol::Unknown,
            preface: Preface::default(),
            sniffer: Sniffer::default(),
            truncated: Count::default(),
            destroyed: Count::default(),
            open_event: None,
        };
        self.open.insert(connection, summary);
    }

    fn end(&mut self, connection: ConnectionId, closed: bool) -> Option<Summary> {
        let mut summary = self.open.take(connection)?;
        summary.closed = closed;
        summary.protocol = summary.sniffer.protocol();
        summary.preface = summary.sniffer.preface();
        let trace_id = summary.opening.trace_id;
        if summary.truncated.times > 0 {
            let Count { times, bytes, .. } = summary.truncated;
            let open_ended: u64 = summary.sides.iter().map(|side| side.open_ended).sum();
            let missing = match open_ended {
                0 => format!("{} missing", bytes_are(bytes)),
                _ if bytes == 0 => "how many bytes are missing is not known".to_owned(),
                _ => format!("more than {} missing", bytes_are(bytes)),
            };
            let bodies = count_of(times, "body is", "bodies are");
            let detail = format!("trace_id {trace_id}: {bodies} truncated, {missing}");
            self.findings.push(summary.truncated.finding(Code::TruncatedBody, detail));
        }
        if summary.destroyed.times > 0 {
            let Count { times, bytes, .. } = summary.destroyed;
            let (bodies, missing) = (count_of(times, "body", "bodies"), bytes_are(bytes));
            let detail = format!(
                "trace_id {trace_id}: JSON_BODY_AS_STRING destroyed binary data in {bodies}, {missing} missing"
            );
            self.findings.push(summary.destroyed.finding(Code::BinaryDestroyed, detail));
        }
        if !closed {
            self.findings.push(Finding {
                code: Code::MissingClose,
                offset: summary.opening.offset,
                message: summary.opening.message,
                detail: match summary.opening.http {
                    Some(_) => {
                        format!("trace_id {trace_id}: the exchange is not complete, so its connection stays open")
                    }
                    None => format!("trace_id {trace_id} ends without its closed event"),
                },
            });
        }
        Some(summary)
    }
}
