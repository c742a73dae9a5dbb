//! Writes the bytes of connections again without their secrets: entries in, entries out.
//!
//! The HTTP of a connection is read by [`HttpStage`], which records what each byte is. A byte that it did not record is
//! not written. The bytes of heads and header blocks that came in pieces are written with the last piece.

use std::sync::Arc;

use super::{Counts, Redaction, connection::Connection, limits::Limits, out::Out};
use crate::{
    http::{HttpStage, HttpStageOptions},
    timeline::{Entry, EntryKind, PerConnection, Timelines},
    trace::Findings,
};

/// What a written entry is.
#[derive(Clone, Copy, Debug)]
enum Written {
    /// The segment of this number.
    Segment(usize),
    /// The entry as it is.
    Same,
}

/// Rewrites the connections of one source.
#[derive(Debug)]
pub struct RedactStage {
    redaction: Arc<Redaction>,
    http: HttpStage,
    open: PerConnection<Box<Connection>>,
    out: Out,
    limits: Limits,
    written: Vec<Written>,
    /// What was taken out of connections that ended: their `trace_id` and the counts.
    ended: Vec<(u64, Counts)>,
}

impl RedactStage {
    /// A stage that has seen nothing yet.
    #[must_use]
    pub fn new(redaction: Arc<Redaction>) -> Self {
        let options = HttpStageOptions { max_body: 0, ..HttpStageOptions::default() };
        Self {
            redaction,
            http: HttpStage::recording(options),
            open: PerConnection::default(),
            out: Out::default(),
            limits: Limits::default(),
            written: Vec::new(),
            ended: Vec::new(),
        }
    }

    /// Takes the entry that `timelines` has advanced to.
    pub fn entry(&mut self, timelines: &Timelines) {
        self.out.clear();
        self.written.clear();
        let Some(entry) = timelines.entry() else { return };
        // Whoever reads the trace for its findings reports what is wrong with its HTTP.
        let mut findings = Findings::default();
        self.http.begin_entry();
        while self.http.next_item(timelines, &mut findings).is_some() {}
        if let EntryKind::Opened = entry.kind {
            let opening = timelines.opening(entry.connection);
            let trace_id = opening.map_or(0, |opening| opening.trace_id);
            let is_buffered = opening.is_some_and(|opening| opening.buffered && opening.http.is_none());
            self.open.insert(entry.connection, Box::new(Connection::new(trace_id, is_buffered)));
        }
        if let (Some(connection), Some(wire)) = (self.open.get_mut(entry.connection), self.http.wire()) {
            let is_gap = matches!(entry.kind, EntryKind::Gap { .. });
            if let EntryKind::Data(data) = &entry.kind {
                connection.as_string |= connection.is_buffered && data.as_string;
                self.limits.come(data.payload.len());
            }
            connection.take(wire, &self.redaction, is_gap, &self.limits, &mut self.out);
            wire.clear();
        }
        if let EntryKind::Data(data) = &entry.kind {
            self.out.end_event(data);
            if data.truncated
                && let Some(connection) = self.open.get_mut(entry.connection)
            {
                connection.cut_body(data.direction);
            }
            self.limits.written(self.out.bytes());
        }
        self.written.extend((0..self.out.len()).map(Written::Segment));
        if !matches!(entry.kind, EntryKind::Data(_)) {
            self.written.push(Written::Same);
        }
        if matches!(entry.kind, EntryKind::Closed { .. } | EntryKind::Abandoned)
            && let Some(connection) = self.open.take(entry.connection)
        {
            self.ended.push((connection.trace_id, connection.counts));
        }
    }

    /// How many entries stand for the one that was taken.
    #[must_use]
    pub fn len(&self) -> usize {
        self.written.len()
    }

    /// Whether nothing stands for it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.written.is_empty()
    }

    /// One of the entries that stand for `entry`.
    #[must_use]
    pub fn written<'a>(&'a self, index: usize, entry: Entry<'a>) -> Option<Entry<'a>> {
        match self.written.get(index)? {
            Written::Same => Some(entry),
            Written::Segment(number) => {
                let data = match &entry.kind {
                    EntryKind::Data(data) => Some(data),
                    _ => None,
                };
                let data = self.out.data(*number, data)?;
                Some(Entry { kind: EntryKind::Data(data), ..entry })
            }
        }
    }

    /// Takes what is known of the connections that ended since the last call: their `trace_id`, and what was taken out.
    pub(crate) fn take_ended(&mut self) -> Vec<(u64, Counts)> {
        std::mem::take(&mut self.ended)
    }
}
