//! What a message may have at most, and what becomes of one that has more.

use super::{SourceOptions, window::Window};
use crate::{
    input::{decode::Decode, detect::Encoding},
    trace::{Fact, MAX_EVENTS, MAX_HEADERS, Message},
};

/// The largest message unless [`SourceOptions::max_message`] says otherwise: far more than a tap with sensible limits writes,
/// and little enough that two of them fit the memory of any machine that such a trace is opened on.
pub const MAX_MESSAGE: usize = 512 << 20;

/// The least that [`SourceOptions::max_message`] may be: less would not hold what stands around a message's bytes.
pub const LEAST_MAX_MESSAGE: usize = 64;

/// The limits, and how much of the next message the window must hold.
pub(super) struct Limits {
    max_message: usize,
    max_events: usize,
    max_headers: usize,
    /// The encoding writes a message's length before it.
    is_framed: bool,
    /// Bytes of the next message that are needed to get on.
    wanted: usize,
    /// The decoder was told that nothing follows the window, or that the window does not grow.
    told_all: bool,
    /// The next message is larger than it may be.
    too_large: bool,
    /// Bytes to pass over.
    discard: usize,
}

impl Limits {
    pub(super) fn new(options: &SourceOptions) -> Self {
        Self {
            max_message: options.max_message.unwrap_or(MAX_MESSAGE).max(LEAST_MAX_MESSAGE),
            max_events: options.max_events.unwrap_or(MAX_EVENTS),
            max_headers: options.max_headers.unwrap_or(MAX_HEADERS),
            is_framed: false,
            wanted: 1,
            told_all: false,
            too_large: false,
            discard: 0,
        }
    }

    pub(super) fn set_encoding(&mut self, encoding: Encoding) {
        self.is_framed = matches!(encoding, Encoding::Binary | Encoding::Delimited);
    }

    /// Bytes of the largest message.
    pub(super) fn max_message(&self) -> usize {
        self.max_message
    }

    /// A message that keeps no more than it may have.
    pub(super) fn message(&self) -> Message {
        Message::with_limits(self.max_events, self.max_headers)
    }

    /// Bytes of the next message that are needed to get on.
    pub(super) fn wanted(&self) -> usize {
        self.wanted
    }

    /// Whether the message after `taken` bytes needs more than the window holds.
    #[inline]
    pub(super) fn needs_input(&self, window: &Window, taken: usize) -> bool {
        window.len() - taken < self.wanted && !window.at_end()
    }

    /// The bytes of the message after `taken` bytes, and whether the source ends where they do. A decoder sees no more
    /// than one message may have, so that the limit holds wherever the reads' edges fall. For the same reason, one that
    /// knows a message's length tells it before it learns that the source ends earlier.
    #[inline]
    pub(super) fn view<'w>(&self, window: &'w Window, taken: usize) -> (&'w [u8], bool) {
        let until = window.len().min(taken.saturating_add(self.max_message));
        let at_end = window.at_end() && until == window.len() && (self.told_all || !self.is_framed);
        (&window.bytes()[taken..until], at_end)
    }

    /// Notes how much the message that begins after `taken` bytes needs, after `skip` bytes of none.
    pub(super) fn want(
        &mut self,
        window: &Window,
        decoder: &mut dyn Decode,
        taken: usize,
        (skip, wanted): (usize, usize),
    ) {
        let until = window.len().min(taken.saturating_add(self.max_message));
        self.wanted = wanted.max(1);
        if self.is_framed {
            self.too_large = self.wanted > self.max_message;
            self.told_all = window.at_end();
        } else if skip > 0 || until - taken < self.max_message {
            // Where no length is written before a message, what it wants is only a guess.
            self.wanted = self.wanted.min(self.max_message);
            self.told_all = false;
        } else if !self.told_all {
            decoder.look_again();
            self.told_all = true;
            self.wanted = 1;
        } else {
            // One byte more tells a message that goes on from one that the source cuts.
            self.too_large = until < window.len();
            self.wanted = self.max_message + 1;
        }
    }

    /// A message was taken: of the next one, nothing is known.
    #[inline]
    pub(super) fn begin_next(&mut self) {
        self.wanted = 1;
        self.told_all = false;
    }

    /// Whether the next message, or what is next of it, is passed over.
    #[inline]
    pub(super) fn passes_over(&self) -> bool {
        self.discard > 0 || self.too_large
    }

    /// Whether the message that the window begins with is too large.
    #[inline]
    pub(super) fn is_too_large(&self) -> bool {
        self.too_large
    }

    /// Gives up what is to be passed over of the window.
    #[inline]
    pub(super) fn discard_from(&mut self, window: &mut Window) {
        if self.discard > 0 {
            let count = self.discard.min(window.len());
            window.consume(count);
            self.discard -= count;
        }
    }

    /// Gives up the message that the window begins with, which is too large, and says so.
    pub(super) fn pass_over(&mut self, decoder: &mut dyn Decode) -> Fact {
        let (size, limit) = (self.wanted, self.max_message);
        self.discard = match (decoder.pass_over(), self.is_framed) {
            (true, true) => self.wanted,
            (true, false) => 0,
            (false, _) => usize::MAX,
        };
        let with_rest = self.discard == usize::MAX;
        self.too_large = false;
        self.begin_next();
        Fact::LargeMessage { size, limit, with_rest }
    }
}
