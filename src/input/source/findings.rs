//! What is wrong with a source, as far as it shows while messages are taken from it.

use std::mem;

use crate::trace::{Code, Finding, Findings, Message, TraceKind};

/// The findings that wait to be taken, and what decides about others.
#[derive(Default)]
pub(super) struct SourceFindings {
    list: Findings,
    /// Bytes that are no message: what comes next tells whether they are the last ones.
    suspect: Option<Finding>,
    /// The kinds of messages that were seen.
    kinds: [bool; TraceKind::ALL.len()],
}

impl SourceFindings {
    pub(super) fn push(&mut self, finding: Finding) {
        self.list.push(finding);
    }

    pub(super) fn take(&mut self) -> Vec<Finding> {
        self.list.take()
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Adds a finding about bytes that are no message; it waits for what comes next.
    pub(super) fn suspect(&mut self, finding: Finding) {
        self.suspect = Some(finding);
    }

    /// Something comes after what was suspected.
    #[inline]
    pub(super) fn release_suspect(&mut self) {
        self.list.extend(self.suspect.take());
    }

    /// Nothing comes after it.
    pub(super) fn end(&mut self, any_message: bool) {
        if any_message && let Some(suspect) = &mut self.suspect {
            suspect.code = Code::TrailingBytes;
            suspect.detail.insert_str(0, "what follows the last message is none: ");
        }
        self.release_suspect();
    }

    /// Says what is wrong with a message that has its place.
    #[inline]
    pub(super) fn look_at(&mut self, message: &mut Message) {
        let (offset, index) = (message.offset, message.index);
        let mut find = |code, detail| self.list.push(Finding { code, offset, message: index, detail });
        if let Some(detail) = message.describe_bad_times() {
            find(Code::BadTime, detail);
        }
        if let Some(detail) = message.beyond_limits() {
            find(Code::TooLarge, detail);
        }
        if let Some(len) = message.cap_names() {
            find(Code::TooLarge, format!("an address of {len} bytes; only its beginning is kept"));
        }
        if let Some(kind) = message.kind {
            let new = !mem::replace(&mut self.kinds[kind as usize], true);
            if new && self.kinds.iter().filter(|seen| **seen).count() > 1 {
                find(Code::MixedKinds, format!("{} in a source that began with another kind", kind.field_name()));
            }
        }
    }
}
