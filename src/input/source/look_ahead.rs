//! The current message, and the next one where it was decoded ahead of its turn.

use std::mem;

use crate::{
    input::decode::Step,
    trace::{Message, UnknownFields},
};

/// Two messages that change places when the next one becomes the current one.
pub(super) struct LookAhead {
    current: Box<Message>,
    next: Box<Message>,
    /// What decoding ahead came to; never [`Step::NeedMore`].
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

    /// The message that comes next, where one was decoded.
    pub(super) fn next(&self) -> Option<&Message> {
        matches!(self.ahead, Some(Step::Message { .. })).then_some(&*self.next)
    }

    /// Whether decoding ahead came to something.
    #[inline]
    pub(super) fn is_ahead(&self) -> bool {
        self.ahead.is_some()
    }

    /// The current message is over: goes to what decoding ahead came to.
    #[inline]
    pub(super) fn advance(&mut self) -> Option<Step> {
        let step = self.ahead.take()?;
        mem::swap(&mut self.current, &mut self.next);
        Some(step)
    }

    /// Decodes ahead. [`Step::NeedMore`] is answered, and nothing is ahead then.
    #[inline]
    pub(super) fn decode(&mut self, decode: impl FnOnce(&mut Message) -> Step) -> Option<(usize, usize)> {
        self.next.clear();
        // The count goes on in the message that is being decoded.
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

    /// Adds the message that was decoded ahead to the batch of the current one, if it may share it. Answers where it
    /// ends in its window, which begins `at` bytes after the start of the current one's; that one's message begins after
    /// `before` bytes of it.
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
