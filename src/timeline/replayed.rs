//! Entries of HTTP traces: what the replay makes, on the connections of the source.

use super::{
    ConnectionId, EntryKind, TimelineOptions,
    http::{BytesPlace, HttpReplay, Made, MadeKind},
    sockets::{PayloadPlace, PendingEntry},
    start::Start,
    table::ConnectionTable,
};
use crate::{
    input::Source,
    trace::{Findings, Place},
};

/// The replay of a source's HTTP traces, and what of it the current entry needs.
#[derive(Debug, Default)]
pub(super) struct Replayed {
    /// Made with the first HTTP trace.
    replay: Option<Box<HttpReplay>>,
    /// By the replay's streams.
    connections: Vec<ConnectionId>,
    /// Place and note of the current entry, if it is the replay's.
    current: Option<(Place, String)>,
    /// About exchanges that end with the source, or that a wait of it begins: it is told after their entries.
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
            let mut note = String::new();
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
                    note = std::mem::take(&mut data.note);
                    let place = match data.payload {
                        BytesPlace::Own(start, end) => PayloadPlace::Replay(start, end),
                        BytesPlace::Message(span) => PayloadPlace::Message(span),
                    };
                    EntryKind::Data(data.with(place, ()))
                }
                // The replay hands these on as data.
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
            self.current = Some((origin, note));
            return Some(PendingEntry { connection: self.connections[stream], time, kind });
        }
    }

    /// The entry that [`Replayed::next`] gave last is not the current one any more.
    #[inline]
    pub(super) fn forget_current(&mut self) {
        self.current = None;
    }

    /// Where the message begins that the current entry comes from, if it is the replay's.
    pub(super) fn place(&self) -> Option<Place> {
        self.current.as_ref().map(|(place, _)| *place)
    }

    /// The note of the current entry.
    #[inline]
    pub(super) fn note(&self) -> &str {
        self.current.as_ref().map_or("", |(_, note)| note)
    }

    /// The bytes of an entry that are not in the message.
    pub(super) fn bytes(&self, start: usize, end: usize) -> &[u8] {
        self.replay.as_ref().map_or(&[][..], |replay| replay.bytes(start, end))
    }

    /// The source waits for input: on a live stream, nothing else may. Answers whether there is a replay.
    pub(super) fn wait(&mut self) -> bool {
        self.replay.as_mut().map(|replay| replay.wait(&mut self.late)).is_some()
    }

    /// The source has ended, and every exchange with it.
    pub(super) fn end(&mut self) {
        if let Some(replay) = &mut self.replay {
            replay.end(&mut self.late);
        }
    }
}
