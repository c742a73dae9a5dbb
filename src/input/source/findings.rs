//! Finds what is wrong with a source while messages are read from it.

use std::mem;

use crate::{
    input::{detect::Encoding, inside::Inside, skipped::SkippedText},
    trace::{DecodeFault, Fact, Finding, Findings, JsonFault, Message, Place, TextFault, TextItem, TraceKind},
};

/// State for the findings that depend on more than one message.
#[derive(Default)]
pub(super) struct Watch {
    /// A finding about bytes that are not a message. It waits for what follows, because the last such bytes of a source
    /// have a code of their own.
    suspect: Option<Finding>,
    /// Zeros between messages, in one finding however many they are.
    zeros: Option<Zeros>,
    /// Text around the messages so far.
    around: SkippedText,
    /// What the text since the last message holds.
    inside: Inside,
    /// The kinds of messages that were seen.
    kinds: [bool; TraceKind::ALL.len()],
}

/// Zeros that were passed over.
struct Zeros {
    /// The first of them.
    place: Place,
    bytes: u64,
    runs: u64,
    /// Where the last run ended, which may go on.
    end: u64,
}

impl Watch {
    /// Notes text around messages. It is reported once, at the end of the source.
    #[cold]
    pub(super) fn skipped(&mut self, place: Place, text: &[u8]) {
        self.around.add(place, text);
        self.inside.add(place, text);
    }

    /// Notes text that layers skipped around the messages.
    pub(super) fn skipped_before(&mut self, text: SkippedText) {
        self.around.merge(text);
    }

    /// Whether there was any text around messages.
    pub(super) fn has_skipped(&self) -> bool {
        self.around.bytes > 0
    }

    /// Reports the text around messages. If there is no message, it is not around anything.
    fn tell_around(&mut self, any_message: bool, encoding: Encoding, findings: &mut Findings) {
        let SkippedText { place, bytes, first, names_trace, .. } = mem::take(&mut self.around);
        if bytes == 0 {
            return;
        }
        let fault = |first: &[u8]| match encoding {
            Encoding::Json if first.starts_with(b"{") => DecodeFault::Json(JsonFault::OtherObject),
            Encoding::Json => DecodeFault::Json(JsonFault::NoObject(first.first().copied().unwrap_or(b' '))),
            _ => {
                let found = first[..first.len().min(20)].into();
                DecodeFault::Text(TextFault::Expected { wanted: TextItem::FieldName, found })
            }
        };
        let fact = if any_message {
            let first = String::from_utf8_lossy(first.trim_ascii_end()).into_owned();
            Fact::TextAround { bytes, first, names_trace }
        } else {
            Fact::Undecodable(fault(&first))
        };
        findings.push(Finding::new(place, fact));
    }

    /// Keeps a finding about bytes that are not a message until it is known what follows them.
    pub(super) fn suspect(&mut self, finding: Finding) {
        self.suspect = Some(finding);
    }

    /// Reports the suspect as it is, because something follows it.
    #[inline]
    pub(super) fn release_suspect(&mut self, findings: &mut Findings) {
        findings.extend(self.suspect.take());
    }

    /// Reports text since the last message that is the inside of one. `is_followed` by a message.
    #[inline]
    fn tell_inside(&mut self, is_followed: bool, findings: &mut Findings) {
        if let Some(place) = self.inside.take(is_followed) {
            findings.push(Finding::new(place, Fact::Undecodable(DecodeFault::Inside)));
        }
    }

    /// Counts zeros that were passed over.
    pub(super) fn zeros(&mut self, place: Place, bytes: u64) {
        let zeros = self.zeros.get_or_insert(Zeros { place, bytes: 0, runs: 0, end: 0 });
        zeros.runs += u64::from(zeros.runs == 0 || zeros.end != place.offset);
        zeros.bytes += bytes;
        zeros.end = place.offset + bytes;
    }

    /// Reports the suspect at the end of the source: after a message, it is about trailing bytes.
    pub(super) fn end(&mut self, any_message: bool, encoding: Encoding, findings: &mut Findings) {
        if any_message
            && let Some(Finding { fact, .. }) = &mut self.suspect
            && let Fact::Undecodable(fault) = fact
        {
            *fact = Fact::TrailingBytes(fault.clone());
        }
        self.release_suspect(findings);
        if let Some(Zeros { place, bytes, runs, .. }) = self.zeros.take() {
            findings.push(Finding::new(place, Fact::Zeros { bytes, runs }));
        }
        if any_message {
            self.tell_inside(false, findings);
        }
        self.tell_around(any_message, encoding, findings);
    }

    /// Adds what is wrong with a message, whose place must be set.
    #[inline]
    pub(super) fn look_at(&mut self, message: &mut Message, findings: &mut Findings) {
        self.tell_inside(true, findings);
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
