//! What every encoding's decoder looks like to the source that feeds it.

use crate::trace::{Code, Message};

/// Decodes one encoding from a window that slides over the source. Every offset is relative to the window of the call.
pub(crate) trait Decode {
    /// Decodes the first message of `window` into `out`, which is clear.
    ///
    /// `at_end` says that no bytes will follow the window. The window only ever grows at its end until the decoder
    /// gives bytes up, so a decoder may remember how far it has looked.
    fn step(&mut self, window: &[u8], at_end: bool, out: &mut Message) -> Step;

    /// The window will not grow any more, because the message that it begins with may not be larger: the next step looks
    /// at all of it, whatever was learnt of it.
    fn look_again(&mut self) {}

    /// Gives up the message that the window begins with, because it is larger than any may be. Says false where its end
    /// cannot be found. Else the caller passes over as many bytes as were wanted, where a length says how long it is; in
    /// the other encodings, the next steps pass over it.
    fn pass_over(&mut self) -> bool;
}

/// The outcome of one [`Decode::step`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A message stands in `window[start..end]`; the next step starts after it.
    Message { start: usize, end: usize },
    /// The message in `window[start..end]` is damaged. `out` holds what was readable (it may be nothing). The next
    /// step starts after it; a decoder that cannot find the next message answers it with `End`.
    Damaged { start: usize, end: usize, fault: Fault },
    /// The first `skip` bytes hold nothing; after them, at least `wanted` bytes are needed to go on (more than there
    /// are now). Never answered when `at_end`. Where a length says how long the message is, `wanted` is
    /// all of it.
    NeedMore { skip: usize, wanted: usize },
    /// Nothing is left, or nothing that follows can be framed.
    End,
}

/// Why a message is damaged.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Offset in the window where reading stopped.
    pub at: usize,
    /// [`Code::CutOff`] where the source ended too early, else [`Code::Undecodable`].
    pub code: Code,
    /// For people: what and why.
    pub detail: String,
}
