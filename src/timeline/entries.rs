//! Timelines as their users go through them: entry by entry.

use super::{ConnectionId, Entry, EntryKind, Opening, Record, Summaries, Summary, TimelineOptions, Timelines};
use crate::{
    input::{Advance, Source},
    trace::{Finding, Findings, Nanos},
};

/// The entries of a source's connections, in the order of the trace, each with what is known of its connection.
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
    /// What is known of the connection from the start.
    pub opening: &'a Opening,
    /// With the connection's last entry, what there was in it.
    pub summary: Option<&'a Summary>,
}

/// An entry that owns its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedEntry {
    /// Which connection.
    pub connection: ConnectionId,
    /// When, in nanoseconds since the Unix epoch.
    pub time: Nanos,
    /// What.
    pub kind: EntryKind<Record<Vec<u8>, String>>,
}

impl Entry<'_> {
    /// A copy that stays.
    #[must_use]
    pub fn into_owned(self) -> OwnedEntry {
        let Self { connection, time, kind } = self;
        OwnedEntry {
            connection,
            time,
            kind: kind.map(|data| {
                let (payload, note) = (data.payload.to_vec(), data.note.to_owned());
                data.with(payload, note)
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

    /// The next entry, or `None` at the end. It reads on where it must, and may block then.
    ///
    /// The bytes of an entry lie in the source's window until the next call; [`Entry::into_owned`] copies them, and
    /// [`Entries::owned`] gives copies alone.
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

    /// The rest of the entries, each with bytes of its own.
    pub fn owned(&mut self) -> impl Iterator<Item = OwnedEntry> + use<'_> {
        std::iter::from_fn(|| self.next_entry().map(|view| view.entry.into_owned()))
    }

    /// Takes what was wrong or remarkable since the last call.
    pub fn take_findings(&mut self) -> Vec<Finding> {
        self.findings.take()
    }

    /// The timelines, for what is rarely asked of them.
    #[must_use]
    pub fn timelines(&self) -> &Timelines {
        &self.timelines
    }
}
