//! Limits on the size of a message, and how messages over the limit are passed over.

use super::{SourceOptions, window::Window};
use crate::{
    input::{decode::Decode, detect::Encoding},
    trace::{Fact, MAX_EVENTS, MAX_HEADERS, Message},
};

/// The default of [`SourceOptions::max_message`]: far more than a tap with sensible limits writes, and little enough
/// for two such messages to fit in memory.
pub const MAX_MESSAGE: usize = 512 << 20;

/// The smallest [`SourceOptions::max_message`]: less would not even hold the fields around a message's bytes.
pub const LEAST_MAX_MESSAGE: usize = 64;

/// The limits, and how much of the next message the window must hold.
pub(super) struct Limits {
    max_message: usize,
    max_events: usize,
    max_headers: usize,
    /// The encoding writes a message's length before it.
    is_framed: bool,
    /// Bytes of the next message that the decoder needs to go on.
    wanted: usize,
    /// The decoder was told that nothing follows the window, or that the window will not grow.
    told_all: bool,
    /// The next message is larger than it may be.
    too_large: bool,
    /// Bytes that are still to be passed over.
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

    /// The largest message, in bytes.
    pub(super) fn max_message(&self) -> usize {
        self.max_message
    }

    /// An empty message with these limits on its records.
    pub(super) fn message(&self) -> Message {
        Message::with_limits(self.max_events, self.max_headers)
    }

    /// Bytes of the next message that the decoder needs to go on.
    pub(super) fn wanted(&self) -> usize {
        self.wanted
    }

    /// Whether the message after `taken` bytes needs more than the window holds.
    #[inline]
    pub(super) fn needs_input(&self, window: &Window, taken: usize) -> bool {
        window.len() - taken < self.wanted && !window.at_end()
    }

    /// The bytes that the decoder sees, from offset `taken` on, and whether the source ends with them. The decoder sees
    /// no more than one message may have, so that it does not matter for the limit where reads end. For the same
    /// reason, in an encoding with lengths, the decoder asks for the whole message before it learns that the source
    /// ends.
    #[inline]
    pub(super) fn view<'w>(&self, window: &'w Window, taken: usize) -> (&'w [u8], bool) {
        let until = window.len().min(taken.saturating_add(self.max_message));
        let at_end = window.at_end() && until == window.len() && (self.told_all || !self.is_framed);
        (&window.bytes()[taken..until], at_end)
    }

    /// Notes that the decoder has skipped `skip` bytes and needs `wanted` bytes of the message at offset `taken`.
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
            // Without a length before the message, `wanted` is only a guess.
            self.wanted = self.wanted.min(self.max_message);
            self.told_all = false;
        } else if !self.told_all {
            decoder.look_again();
            self.told_all = true;
            self.wanted = 1;
        } else {
            // One more byte tells whether the message goes on or the source ends there.
            self.too_large = until < window.len();
            self.wanted = self.max_message + 1;
        }
    }

    /// Starts over for the next message, about which nothing is known.
    #[inline]
    pub(super) fn begin_next(&mut self) {
        self.wanted = 1;
        self.told_all = false;
    }

    /// Whether the next message, or the rest of it, is to be passed over.
    #[inline]
    pub(super) fn passes_over(&self) -> bool {
        self.discard > 0 || self.too_large
    }

    /// Whether the message at the start of the window is too large.
    #[inline]
    pub(super) fn is_too_large(&self) -> bool {
        self.too_large
    }

    /// Gives up the bytes in the window that are to be passed over.
    #[inline]
    pub(super) fn discard_from(&mut self, window: &mut Window) {
        if self.discard > 0 {
            let count = self.discard.min(window.len());
            window.consume(count);
            self.discard -= count;
        }
    }

    /// Gives up the message at the start of the window, which is too large, and returns the fact to report.
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
