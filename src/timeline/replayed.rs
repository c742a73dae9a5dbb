//! Entries of HTTP traces: takes what the replay makes, and gives it connections of the source.

use super::{
    ConnectionId, EntryKind, TimelineOptions,
    http::{HttpReplay, Made, MadeKind},
    sockets::PendingEntry,
    start_time::Start,
    table::ConnectionTable,
};
use crate::{
    input::Source,
    trace::{Findings, Place, ReplayNote},
};

/// The replay of a source's HTTP traces, and the parts of it that the current entry needs.
#[derive(Debug, Default)]
pub(super) struct Replayed {
    /// Created for the first HTTP trace.
    replay: Option<Box<HttpReplay>>,
    /// The connection of each stream of the replay, by the stream's index.
    connections: Vec<ConnectionId>,
    /// The place and notes of the current entry, if it is the replay's.
    current: Option<(Place, Vec<ReplayNote>)>,
    /// Findings about exchanges that are written because the source ends or waits. They are reported after the entries.
    late: Findings,
}

impl Replayed {
    /// Takes the source's current message. All entries before it must have been read.
    pub(super) fn message(
        &mut self,
        source: &Source,
        options: &TimelineOptions,
        start: &Start,
        findings: &mut Findings,
    ) {
        let replay = self.replay.get_or_insert_with(|| Box::new(HttpReplay::new(options, start.clone())));
        replay.message(source.message(), findings);
    }

    /// The next entry, if there is one.
    pub(super) fn next(
        &mut self,
        source: &Source,
        table: &mut ConnectionTable,
        findings: &mut Findings,
    ) -> Option<PendingEntry> {
        let replay = self.replay.as_mut()?;
        loop {
            let Some(Made { stream, time, origin, kind }) = replay.next(source.message()) else {
                findings.extend(self.late.take());
                return None;
            };
            let mut notes = Vec::new();
            let kind = match kind {
                MadeKind::Opened(opening) => {
                    let connection = table.add(*opening);
                    if self.connections.len() <= stream {
                        self.connections.resize(stream + 1, connection);
                    }
                    self.connections[stream] = connection;
                    EntryKind::Opened
                }
                MadeKind::Data(mut data) => {
                    notes = std::mem::take(&mut data.notes);
                    let payload = data.payload;
                    EntryKind::Data(data.with(payload, ()))
                }
                // `HttpReplay::next` turns these into data.
                MadeKind::Frames(_) => continue,
                MadeKind::Gap { direction, bytes } => EntryKind::Gap { direction, bytes, certain: true },
                MadeKind::Ended { complete, last } => {
                    let opening = &mut table.state(self.connections[stream]).opening;
                    if let (true, Some(http)) = (last, &mut opening.http) {
                        http.last = true;
                    }
                    if complete { EntryKind::Closed { recorded: false } } else { EntryKind::Abandoned }
                }
            };
            self.current = Some((origin, notes));
            return Some(PendingEntry { connection: self.connections[stream], time, kind });
        }
    }

    /// Tells that the last entry of [`Replayed::next`] is no longer the current one.
    #[inline]
    pub(super) fn forget_current(&mut self) {
        self.current = None;
    }

    /// Where the current entry's message begins, if the entry is the replay's.
    pub(super) fn place(&self) -> Option<Place> {
        self.current.as_ref().map(|(place, _)| *place)
    }

    /// The notes on the current entry.
    #[inline]
    pub(super) fn notes(&self) -> &[ReplayNote] {
        self.current.as_ref().map_or(&[], |(_, notes)| notes)
    }

    /// Bytes of an entry that are in the replay's buffer.
    pub(super) fn bytes(&self, start: usize, end: usize) -> &[u8] {
        self.replay.as_ref().map_or(&[][..], |replay| replay.bytes(start, end))
    }

    /// Writes what is held, because a live source waits for input and its readers must not. Returns whether there is a
    /// replay.
    pub(super) fn wait(&mut self) -> bool {
        self.replay.as_mut().map(|replay| replay.wait(&mut self.late)).is_some()
    }

    /// Ends all exchanges, because the source has ended.
    pub(super) fn end(&mut self) {
        if let Some(replay) = &mut self.replay {
            replay.end(&mut self.late);
        }
    }
}
