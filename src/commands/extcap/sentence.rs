//! What Wireshark reads: one line each, `kind {key=value}{key=value}`.

use std::borrow::Cow;

use crate::untrusted::escape;

/// A sentence. No value of it can end a value or a sentence.
pub(super) struct Sentence(String);

impl Sentence {
    pub(super) fn new(kind: &str) -> Self {
        Self(format!("{kind} "))
    }

    #[must_use]
    pub(super) fn with(mut self, key: &str, value: &str) -> Self {
        self.0.push_str(&format!("{{{key}={}}}", plain(value)));
        self
    }

    /// Adds it to an answer.
    pub(super) fn end(self, answer: &mut String) {
        answer.push_str(&self.0);
        answer.push('\n');
    }
}

/// Wireshark has no escapes: a value ends with the first brace that is followed by another one, a space or the end.
fn plain(value: &str) -> Cow<'_, str> {
    match escape(value) {
        value if value.contains(['{', '}']) => value.replace('{', "(").replace('}', ")").into(),
        value => value,
    }
}

/// Whether Wireshark reads exactly this out of a sentence.
pub(super) fn is_plain(value: &str) -> bool {
    plain(value) == value
}
