//! The current message, and the next one if it was decoded ahead.

use std::mem;

use crate::{
    input::decode::Step,
    trace::{Message, UnknownFields},
};

/// Two messages that change places when the next one becomes the current one.
pub(super) struct LookAhead {
    current: Box<Message>,
    next: Box<Message>,
    /// The outcome of decoding ahead; never [`Step::NeedMore`].
    ahead: Option<Step>,
}

impl LookAhead {
    pub(super) fn new([current, next]: [Message; 2]) -> Self {
        Self { current: Box::new(current), next: Box::new(next), ahead: None }
    }

    #[inline]
    pub(super) fn current(&self) -> &Message {
        &self.current
    }

    #[inline]
    pub(super) fn current_mut(&mut self) -> &mut Message {
        &mut self.current
    }

    /// The message that was decoded ahead, if any.
    pub(super) fn next(&self) -> Option<&Message> {
        matches!(self.ahead, Some(Step::Message { .. })).then_some(&*self.next)
    }

    /// Whether the next step was decoded ahead, whatever its outcome.
    #[inline]
    pub(super) fn is_ahead(&self) -> bool {
        self.ahead.is_some()
    }

    /// Makes the message that was decoded ahead the current one, and returns the outcome of decoding it.
    #[inline]
    pub(super) fn advance(&mut self) -> Option<Step> {
        let step = self.ahead.take()?;
        mem::swap(&mut self.current, &mut self.next);
        Some(step)
    }

    /// Decodes ahead. If the decoder needs more bytes, nothing is ahead, and the fields of [`Step::NeedMore`] are
    /// returned.
    #[inline]
    pub(super) fn decode(&mut self, decode: impl FnOnce(&mut Message) -> Step) -> Option<(usize, usize)> {
        self.next.clear();
        // The decoder goes on counting in the message that it fills.
        self.hand_unknown_on();
        match decode(&mut self.next) {
            Step::NeedMore { skip, wanted } => {
                self.hand_unknown_on();
                Some((skip, wanted))
            }
            step => {
                self.ahead = Some(step);
                None
            }
        }
    }

    /// Adds the message that was decoded ahead to the current batch if it may share it, and returns where it ends in
    /// its own window. That window begins `at` bytes after the current one; the current message begins `before` bytes
    /// after the start of the current window.
    #[inline]
    pub(super) fn append(&mut self, at: usize, before: usize) -> Option<usize> {
        let Some(Step::Message { start, end }) = self.ahead else { return None };
        if !self.current.append(&self.next, at, at + start - before) {
            return None;
        }
        self.hand_unknown_on();
        self.ahead = None;
        Some(end)
    }

    #[inline]
    fn hand_unknown_on(&mut self) {
        mem::swap(&mut self.current.unknown, &mut self.next.unknown);
    }

    /// Unknown fields so far.
    pub(super) fn unknown_fields(&self) -> &UnknownFields {
        if self.is_ahead() { &self.next.unknown } else { &self.current.unknown }
    }
}
