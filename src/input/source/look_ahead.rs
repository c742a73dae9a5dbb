//! The current message, and the next one if it was decoded ahead.

use std::mem;

use crate::{
    input::decode::Step,
    trace::{Message, UnknownFields},
};

/// Two messages that take turns as the current one.
pub(super) struct LookAhead {
    messages: [Message; 2],
    current: usize,
    /// The outcome of decoding ahead; never [`Step::NeedMore`].
    ahead: Option<Step>,
}

impl LookAhead {
    pub(super) fn new(messages: [Message; 2]) -> Self {
        Self { messages, current: 0, ahead: None }
    }

    #[inline]
    pub(super) fn current(&self) -> &Message {
        &self.messages[self.current]
    }

    #[inline]
    pub(super) fn current_mut(&mut self) -> &mut Message {
        &mut self.messages[self.current]
    }

    /// The message that was decoded ahead, if any.
    pub(super) fn next(&self) -> Option<&Message> {
        matches!(self.ahead, Some(Step::Message { .. })).then(|| &self.messages[self.current ^ 1])
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
        self.current ^= 1;
        Some(step)
    }

    /// Decodes ahead. If the decoder needs more bytes, nothing is ahead, and the fields of [`Step::NeedMore`] are
    /// returned.
    #[inline]
    pub(super) fn decode(&mut self, decode: impl FnOnce(&mut Message) -> Step) -> Option<(usize, usize)> {
        let next = &mut self.messages[self.current ^ 1];
        next.clear();
        // The decoder goes on counting in the message that it fills.
        self.hand_unknown_on();
        match decode(&mut self.messages[self.current ^ 1]) {
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
        let [first, second] = &mut self.messages;
        let (current, next) = if self.current == 0 { (first, second) } else { (second, first) };
        if !current.append(next, at, at + start - before) {
            return None;
        }
        mem::swap(&mut current.unknown, &mut next.unknown);
        self.ahead = None;
        Some(end)
    }

    #[inline]
    fn hand_unknown_on(&mut self) {
        let [first, second] = &mut self.messages;
        mem::swap(&mut first.unknown, &mut second.unknown);
    }

    /// Unknown fields so far.
    pub(super) fn unknown_fields(&self) -> &UnknownFields {
        &self.messages[self.current ^ usize::from(self.is_ahead())].unknown
    }
}
