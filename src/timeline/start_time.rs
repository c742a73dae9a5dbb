//! Start times for events that have no time and follow no event with one.

use std::time::UNIX_EPOCH;

use super::{TimelineOptions, http::head};
use crate::{
    input::{self, Advance, Reopen, Source},
    trace::{Findings, MessageView, Nanos},
};

/// Where a connection's start time comes from, and in a replayed exchange all times that the trace lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimesFrom {
    /// The trace has the time, or at least one time of a replayed exchange.
    Recorded,
    /// The response's date header.
    Date,
    /// The user.
    Given,
    /// The last time before it in the trace.
    Before,
    /// The first time after it in the trace.
    Next,
    /// The earliest time of the other traces in the capture.
    Neighbours,
    /// When the parts arrived, from a source that is live.
    Arrival,
    /// The file's modification time.
    Modified,
    /// Nothing, so times count from the Unix epoch.
    Nothing,
}

/// How many reads search a file for its first time. Together they are 8 MiB of unpacked data: the first four are small,
/// and the others have 256 KiB.
const MAX_READS: u32 = 36;

/// Chooses the start time.
#[derive(Clone, Debug)]
pub(super) struct Start {
    given: Option<Nanos>,
    neighbours: Option<Nanos>,
    latest: Nanos,
    file: Option<(Reopen, input::SourceOptions)>,
    found: Option<(Nanos, TimesFrom)>,
}

impl Start {
    pub(super) fn new(source: &Source, options: &TimelineOptions) -> Self {
        Self {
            given: options.start_time,
            neighbours: options.neighbours,
            latest: options.latest.unwrap_or(Nanos::MAX),
            file: options.reread.map(|options| (source.reopen(), options)),
            found: None,
        }
    }

    /// Tells that `time` is the next time in the source.
    pub(super) fn set_next(&mut self, time: Nanos) {
        self.found.get_or_insert((time, TimesFrom::Next));
    }

    /// Whether the start time is known without looking ahead.
    pub(super) fn is_known(&self) -> bool {
        self.given.is_some() || self.found.is_some()
    }

    /// The start time, and where it comes from.
    #[cold]
    pub(super) fn get(&mut self) -> (Nanos, TimesFrom) {
        if let Some(given) = self.given {
            return (given, TimesFrom::Given);
        }
        if let Some(found) = self.found {
            return found;
        }
        let next = self.next_in_file().map(|time| (time, TimesFrom::Next));
        let found = next
            .or(self.neighbours.map(|time| (time, TimesFrom::Neighbours)))
            .or_else(|| self.modified().map(|time| (time, TimesFrom::Modified)))
            .unwrap_or((0, TimesFrom::Nothing));
        *self.found.insert(found)
    }

    /// The first time in the file. The file is read again for this, so that no event has to be held back.
    fn next_in_file(&self) -> Option<Nanos> {
        let (file, options) = self.file.as_ref()?;
        let mut source = file.open(input::SourceOptions { read_size: None, ..*options }).ok()?;
        // These findings are dropped, because the main pass over the file reports them.
        let mut findings = Findings::default();
        let mut reads = 0;
        loop {
            match source.advance(&mut findings) {
                Advance::Message => {
                    if let Some(time) = self.first_of(source.message()) {
                        return Some(time);
                    }
                }
                Advance::NeedInput if reads < MAX_READS => {
                    source.fill(&mut findings);
                    reads += 1;
                }
                Advance::NeedInput | Advance::End => return None,
            }
            drop(findings.take());
        }
    }

    fn first_of(&self, view: MessageView<'_>) -> Option<Nanos> {
        let message = view.message();
        let events = message.events.iter().filter_map(|event| event.time);
        let pieces = message.http.iter().filter_map(|piece| piece.time);
        events.chain(pieces).chain(head::date(view)).find(|time| *time <= self.latest)
    }

    fn modified(&self) -> Option<Nanos> {
        let (file, _) = self.file.as_ref()?;
        let modified = file.modified()?.duration_since(UNIX_EPOCH).ok()?;
        Nanos::try_from(modified.as_nanos()).ok().filter(|time| *time <= self.latest)
    }
}
