//! What is wrong with a source, as far as it shows while messages are taken from it.

use std::mem;

use crate::trace::{Fact, Finding, Findings, Message, TraceKind};

/// What decides about findings that one message alone does not bring up.
#[derive(Default)]
pub(super) struct Watch {
    /// Bytes that are no message: what comes next tells whether they are the last ones.
    suspect: Option<Finding>,
    /// The kinds of messages that were seen.
    kinds: [bool; TraceKind::ALL.len()],
}

impl Watch {
    /// Keeps a finding about bytes that are no message; it waits for what comes next.
    pub(super) fn suspect(&mut self, finding: Finding) {
        self.suspect = Some(finding);
    }

    /// Something comes after what was suspected.
    #[inline]
    pub(super) fn release_suspect(&mut self, findings: &mut Findings) {
        findings.extend(self.suspect.take());
    }

    /// Nothing comes after it.
    pub(super) fn end(&mut self, any_message: bool, findings: &mut Findings) {
        if any_message
            && let Some(Finding { fact, .. }) = &mut self.suspect
            && let Fact::Undecodable(detail) = fact
        {
            *fact = Fact::TrailingBytes(mem::take(detail));
        }
        self.release_suspect(findings);
    }

    /// Adds what is wrong with a message that has its place.
    #[inline]
    pub(super) fn look_at(&mut self, message: &mut Message, findings: &mut Findings) {
        let place = message.place();
        if let Some(fact) = message.unreadable_times() {
            findings.push(Finding::new(place, fact));
        }
        if let Some(fact) = message.beyond_limits() {
            findings.push(Finding::new(place, fact));
        }
        if let Some(len) = message.cap_names() {
            findings.push(Finding::new(place, Fact::LongAddress { len }));
        }
        if let Some(kind) = message.kind {
            let new = !mem::replace(&mut self.kinds[kind as usize], true);
            if new && self.kinds.iter().filter(|seen| **seen).count() > 1 {
                findings.push(Finding::new(place, Fact::MixedKinds(kind)));
            }
        }
    }
}
