//! The interface between a source and the decoder of its encoding.

use super::detect::Encoding;
use crate::trace::{CutIn, DecodeFault, Fact, Message};

/// What editors write before text in UTF-8. JSON does not allow it.
pub(super) const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Decodes one encoding from a window that slides over the source. Every offset is relative to the window of the call.
pub(crate) trait Decode {
    /// Decodes the first message of `window` into `out`, which the caller has cleared.
    ///
    /// `at_end` says that no bytes will follow the window. Until the decoder gives up bytes, the window only grows at
    /// its end, so the decoder may remember how far it has looked.
    fn step(&mut self, window: &[u8], at_end: bool, out: &mut Message) -> Step;

    /// Tells the decoder that the window will not grow any more, because its first message has reached the size limit.
    /// The next step must look at the whole window, whatever the decoder remembers about it.
    fn look_again(&mut self) {}

    /// Gives up the message at the start of the window, because it is over the size limit. Returns false if its end
    /// cannot be found. Otherwise, in an encoding with lengths, the caller passes over the bytes that the decoder
    /// wanted; in the other encodings, the next steps find the end.
    fn pass_over(&mut self) -> bool;
}

/// The outcome of one [`Decode::step`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// `window[start..end]` is a message; the next step starts after it.
    Message { start: usize, end: usize },
    /// The message in `window[start..end]` is damaged. `out` holds what was readable, which may be nothing. The next
    /// step starts after it, and returns `End` if the decoder cannot find another message.
    Damaged { start: usize, end: usize, fault: Fault },
    /// `window[start..end]` is text around messages, not a damaged message. The next step starts after it.
    Skipped { start: usize, end: usize },
    /// The message at `start` is in this encoding. Its decoder takes the next step there.
    Switch { start: usize, encoding: Encoding },
    /// The first `skip` bytes hold nothing. After them, the decoder needs at least `wanted` bytes, more than there are
    /// now. In an encoding with lengths, `wanted` is the length of the whole message. Never returned when `at_end`.
    NeedMore { skip: usize, wanted: usize },
    /// `window[start..end]` is zeros, and so is padding. The next step starts after it.
    Zeros { start: usize, end: usize },
    /// Nothing is left, or the framing of what follows is lost.
    End,
}

/// Passes over control bytes between messages of text: zeros are padding, and the others end a text at a terminal and in
/// files of DOS.
#[cold]
pub(crate) fn control_bytes(window: &[u8], start: usize) -> Step {
    match window[start..].iter().take_while(|byte| **byte == 0).count() {
        0 => Step::Skipped { start, end: start + 1 },
        zeros => Step::Zeros { start, end: start + zeros },
    }
}

/// Why a message is damaged.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Offset in the window where reading stopped.
    pub at: usize,
    /// What is wrong there.
    pub reason: FaultReason,
}

impl Fault {
    /// The source ends inside a message.
    pub(crate) fn cut_off(at: usize, place: CutIn) -> Self {
        Self { at, reason: FaultReason::CutOff(place) }
    }

    /// The bytes are not a message.
    pub(crate) fn undecodable(at: usize, fault: impl Into<DecodeFault>) -> Self {
        Self { at, reason: FaultReason::Undecodable(fault.into()) }
    }

    /// Whether the source ends inside a message.
    pub(crate) fn is_cut_off(&self) -> bool {
        matches!(self.reason, FaultReason::CutOff(_))
    }

    /// The fact for a finding.
    pub(crate) fn into_fact(self) -> Fact {
        match self.reason {
            FaultReason::CutOff(place) => Fact::CutOff(place),
            FaultReason::Undecodable(fault) => Fact::Undecodable(fault),
        }
    }
}

#[cfg(test)]
#[cfg(feature = "record")]
impl Fault {
    /// Its offset in a source whose byte `start` begins the window, its code, and what people read about it.
    pub(crate) fn told(self, start: usize) -> (usize, crate::trace::Code, String) {
        let at = start + self.at;
        let finding = crate::trace::Finding::new(crate::trace::Place::default(), self.into_fact());
        (at, finding.code(), crate::describe(&finding))
    }
}

/// What is wrong. It is smaller than a [`Fact`], because every [`Step`] has room for one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum FaultReason {
    /// The source ends too early.
    CutOff(CutIn),
    /// The bytes are wrong.
    Undecodable(DecodeFault),
}
