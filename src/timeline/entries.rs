//! Entries of a source, with a call that reads input when it must.

use super::{ConnectionId, Entry, EntryKind, Opening, Record, Summaries, Summary, TimelineOptions, Timelines};
use crate::{
    input::{Advance, Source},
    trace::{Finding, Findings, Nanos, ReplayNote},
};

/// The entries of a source's connections, in the order of the trace, each with its connection's opening.
#[derive(Debug)]
pub struct Entries {
    timelines: Timelines,
    summaries: Summaries,
    summary: Option<Summary>,
    findings: Findings,
}

/// An entry and its connection.
#[derive(Clone, Copy, Debug)]
pub struct EntryView<'a> {
    /// What happened, when, on which connection.
    pub entry: Entry<'a>,
    /// What was known of the connection when it opened.
    pub opening: &'a Opening,
    /// The connection's totals; present with its last entry.
    pub summary: Option<&'a Summary>,
}

/// An entry that owns its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedEntry {
    /// The connection.
    pub connection: ConnectionId,
    /// The time in nanoseconds since the Unix epoch.
    pub time: Nanos,
    /// What happened.
    pub kind: EntryKind<Record<Vec<u8>, Vec<ReplayNote>>>,
}

impl Entry<'_> {
    /// Copies the entry's bytes, so that it outlives the next call.
    #[must_use]
    pub fn into_owned(self) -> OwnedEntry {
        let Self { connection, time, kind } = self;
        OwnedEntry {
            connection,
            time,
            kind: kind.map(|data| {
                let (payload, notes) = (data.payload.to_vec(), data.notes.to_vec());
                data.with(payload, notes)
            }),
        }
    }
}

impl Entries {
    /// The entries of `source`.
    #[must_use]
    pub fn new(source: Source, options: TimelineOptions) -> Self {
        Self {
            timelines: Timelines::new(source, options),
            summaries: Summaries::default(),
            summary: None,
            findings: Findings::default(),
        }
    }

    /// The next entry, or `None` at the end. It reads more input if it must, and may block then.
    ///
    /// The bytes of an entry are in the source's window, which the next call may overwrite. [`Entry::into_owned`]
    /// copies them; [`Entries::owned`] gives only copies.
    pub fn next_entry(&mut self) -> Option<EntryView<'_>> {
        loop {
            match self.timelines.advance(&mut self.findings) {
                Advance::Message => break,
                Advance::NeedInput => self.timelines.fill(&mut self.findings),
                Advance::End => return None,
            }
        }
        let entry = self.timelines.entry()?;
        self.summary = self.summaries.entry(&self.timelines, &entry, &mut self.findings);
        let opening = self.timelines.opening(entry.connection)?;
        Some(EntryView { entry, opening, summary: self.summary.as_ref() })
    }

    /// The remaining entries, each with a copy of its bytes.
    pub fn owned(&mut self) -> impl Iterator<Item = OwnedEntry> + use<'_> {
        std::iter::from_fn(|| self.next_entry().map(|view| view.entry.into_owned()))
    }

    /// Takes the findings since the last call.
    pub fn take_findings(&mut self) -> Vec<Finding> {
        self.findings.take()
    }

    /// The underlying timelines.
    #[must_use]
    pub fn timelines(&self) -> &Timelines {
        &self.timelines
    }
}
