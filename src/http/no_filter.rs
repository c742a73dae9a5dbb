//! What stands in for filters in a program that is built without the feature `where`: there are none, so that nothing has
//! to ask whether it could be given one.

use super::{ExchangeRecord, HttpConnectionEnd};

/// Why an expression cannot be used. No place in it is to blame, so the words name none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct FilterError {
    /// Where in the expression, from 1, in characters.
    pub column: usize,
    /// What is wrong.
    pub message: String,
}

/// An expression that an exchange, or a connection, matches or not. Without the feature `where`, none can be made.
#[derive(Debug)]
pub enum Filter {}

impl Filter {
    /// Refuses an expression.
    ///
    /// # Errors
    /// Always.
    pub fn parse(_text: &str) -> Result<Self, FilterError> {
        let message = "this build of tap2pcap lacks filters; build it with the feature `where`";
        Err(FilterError { column: 1, message: message.to_owned() })
    }

    /// The expression as it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        match *self {}
    }

    /// Whether the expression names an attribute that only the end of a connection tells.
    #[must_use]
    pub fn needs_end(&self) -> bool {
        match *self {}
    }

    /// Whether the expression names an attribute that only pairing tells.
    #[must_use]
    pub fn needs_pairing(&self) -> bool {
        match *self {}
    }

    /// Whether an exchange matches.
    ///
    /// # Errors
    /// None, because there is no filter.
    pub fn holds(&self, _record: ExchangeRecord<'_>) -> Result<bool, String> {
        match *self {}
    }

    /// Whether a connection without exchanges matches.
    ///
    /// # Errors
    /// As [`Filter::holds`].
    pub fn holds_without_exchange(&self, _record: ExchangeRecord<'_>) -> Result<bool, String> {
        match *self {}
    }

    /// What the expression needs of an exchange, as bytes, until the end of its connection comes.
    #[must_use]
    pub fn keep(&self, _record: ExchangeRecord<'_>) -> Vec<u8> {
        match *self {}
    }

    /// Whether an exchange matches, of which these bytes were kept.
    ///
    /// # Errors
    /// As [`Filter::holds`].
    pub fn holds_for_kept(&self, _kept: &[u8], _end: &HttpConnectionEnd) -> Result<bool, String> {
        match *self {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_is_refused_with_what_to_do() {
        let error = Filter::parse("true").map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("the feature `where`"), "{error}");
    }
}
