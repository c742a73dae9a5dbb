//! What is wrong or remarkable in a trace, with its place.

use std::fmt;

/// How much a [`Finding`] matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing; nothing is lost.
    Note,
    /// Something is missing or made up; `--strict` makes it count as an error.
    Warning,
    /// The trace is damaged: status 1.
    Error,
}

impl Severity {
    /// The word that people and machines read.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// The kind of a [`Finding`]: a stable code, one severity each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Code {
    /// Bytes that are not the message they should be.
    Undecodable,
    /// The file ends inside a message.
    CutOff,
    /// The source could not be read on.
    ReadFailed,
    /// A socket trace where an HTTP tap trace is needed.
    SocketTrace,
    /// A port outside 0 to 65535.
    BadPort,
    /// An address that is neither IPv4 nor IPv6.
    BadAddress,
    /// An event without a time, or with one that no capture can hold.
    BadTime,
    /// A message beyond the size limit.
    TooLarge,
    /// More connections open at once than the limit allows.
    TooManyConnections,
    /// Bytes behind the last message that are none.
    TrailingBytes,
    /// Socket and HTTP traces, or buffered and streamed ones, in one source.
    MixedKinds,
    /// No address of either side.
    MissingConnection,
    /// The address of one side alone.
    MissingAddress,
    /// Both ends have the same address and port.
    SameAddress,
    /// A streamed trace without its `closed` event.
    MissingClose,
    /// An event is older than the one before it.
    TimeBackwards,
    /// Whole events are missing, by `seq_num`.
    LostBytes,
    /// Bodies were cut to a size limit.
    TruncatedBody,
    /// JSON_BODY_AS_STRING replaced binary data by spaces.
    BinaryDestroyed,
    /// An HTTP exchange without its request or response, or with less body than its content-length.
    IncompleteExchange,
    /// Parts of an HTTP exchange in an order in which HTTP does not send them.
    OutOfOrder,
    /// A content-length that is none, or that the body contradicts.
    LengthMismatch,
    /// An HTTP head without its method, path or status; or a body or trailers without a head.
    MissingHeader,
    /// A header with bytes that would break the framing.
    EscapedHeader,
    /// A field of a newer Envoy.
    UnknownField,
}

impl Code {
    /// The name that scripts rely on.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Undecodable => "undecodable",
            Self::CutOff => "cut-off",
            Self::ReadFailed => "read-failed",
            Self::SocketTrace => "socket-trace",
            Self::BadPort => "bad-port",
            Self::BadAddress => "bad-address",
            Self::BadTime => "bad-time",
            Self::TooLarge => "too-large",
            Self::TooManyConnections => "too-many-connections",
            Self::TrailingBytes => "trailing-bytes",
            Self::MixedKinds => "mixed-kinds",
            Self::MissingConnection => "missing-connection",
            Self::MissingAddress => "missing-address",
            Self::SameAddress => "same-address",
            Self::MissingClose => "missing-close",
            Self::TimeBackwards => "time-backwards",
            Self::LostBytes => "lost-bytes",
            Self::TruncatedBody => "truncated-body",
            Self::BinaryDestroyed => "binary-destroyed",
            Self::IncompleteExchange => "incomplete-exchange",
            Self::OutOfOrder => "out-of-order",
            Self::LengthMismatch => "length-mismatch",
            Self::MissingHeader => "missing-header",
            Self::EscapedHeader => "escaped-header",
            Self::UnknownField => "unknown-field",
        }
    }

    /// Every finding of one code is of one severity.
    #[must_use]
    pub fn severity(self) -> Severity {
        match self {
            Self::Undecodable
            | Self::CutOff
            | Self::ReadFailed
            | Self::SocketTrace
            | Self::BadPort
            | Self::BadAddress
            | Self::BadTime
            | Self::TooLarge
            | Self::TooManyConnections
            | Self::TrailingBytes => Severity::Error,
            Self::MixedKinds
            | Self::MissingConnection
            | Self::MissingAddress
            | Self::SameAddress
            | Self::MissingClose
            | Self::TimeBackwards
            | Self::LostBytes
            | Self::TruncatedBody
            | Self::BinaryDestroyed
            | Self::IncompleteExchange
            | Self::OutOfOrder
            | Self::LengthMismatch
            | Self::MissingHeader
            | Self::EscapedHeader => Severity::Warning,
            Self::UnknownField => Severity::Note,
        }
    }
}

/// One finding: what, and where in the source. The source's name is its holder's business.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What kind.
    pub code: Code,
    /// Byte offset in the (decompressed) source.
    pub offset: u64,
    /// Index of the message, from 0.
    pub message: u64,
    /// What and why, for people. May quote the trace, so escape it before it reaches a terminal.
    pub detail: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "byte {}, message {}: {}", self.offset, self.message, self.detail)
    }
}

/// Findings that wait to be taken.
///
/// A hostile trace can bring up one for every few bytes, so there may be [`Findings::LIMIT`]; the rest is counted, and
/// the last one says how many there were.
#[derive(Clone, Debug, Default)]
pub(crate) struct Findings {
    list: Vec<Finding>,
    /// The first one for which there was no room, and how many came after it.
    beyond: Option<(Finding, u64)>,
}

impl Findings {
    /// How many may wait: more than two bytes each in one read of a source bring up.
    pub(crate) const LIMIT: usize = 1 << 18;

    /// Adds a finding.
    pub(crate) fn push(&mut self, finding: Finding) {
        match &mut self.beyond {
            None if self.list.len() < Self::LIMIT => self.list.push(finding),
            None => self.beyond = Some((finding, 0)),
            Some((_, more)) => *more += 1,
        }
    }

    /// Whether there is none to take.
    #[inline]
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Takes them, in the order in which they came.
    pub(crate) fn take(&mut self) -> Vec<Finding> {
        let Self { mut list, beyond } = std::mem::take(self);
        if let Some((mut finding, more)) = beyond {
            if more > 0 {
                finding.detail.push_str(&format!("; and {more} more findings close behind it"));
            }
            list.push(finding);
        }
        list
    }
}

impl Extend<Finding> for Findings {
    fn extend<T: IntoIterator<Item = Finding>>(&mut self, findings: T) {
        findings.into_iter().for_each(|finding| self.push(finding));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_without_end_are_counted() {
        let mut findings = Findings::default();
        let finding = |offset| Finding { code: Code::Undecodable, offset, message: 0, detail: "garbage".into() };
        findings.extend((0..Findings::LIMIT as u64 + 1000).map(finding));
        let taken = findings.take();
        assert_eq!((taken.len(), taken[7].offset), (Findings::LIMIT + 1, 7));
        let last = taken.last().unwrap();
        assert_eq!(last.offset, Findings::LIMIT as u64);
        assert_eq!(last.detail, "garbage; and 999 more findings close behind it");
        assert!(findings.is_empty() && findings.take().is_empty());
    }
}
