//! What is wrong or remarkable in a trace, with its place.

use super::{Fact, Place};

/// How much a [`Finding`] matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing; nothing is lost.
    Note,
    /// Something is missing or made up; the trace is sound otherwise.
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
    /// Bytes that do not decode as a message.
    Undecodable,
    /// The file ends inside a message.
    CutOff,
    /// The source could not be read any further.
    ReadFailed,
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
    /// Bytes after the last message that do not decode as one.
    TrailingBytes,
    /// Zeros between or after messages.
    ZeroPadding,
    /// Text before, between or after the messages.
    TextAround,
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
    /// Whole events are missing, as `seq_num` shows.
    LostBytes,
    /// Bodies were cut to a size limit.
    TruncatedBody,
    /// JSON_BODY_AS_STRING replaced binary data with spaces.
    BinaryDestroyed,
    /// An HTTP exchange without its request or response, or with less body than its content-length.
    IncompleteExchange,
    /// Parts of an HTTP exchange in an order in which HTTP does not send them.
    OutOfOrder,
    /// A content-length that is not a number, or that the body contradicts.
    LengthMismatch,
    /// An HTTP head without its method, path or status; or a body or trailers without a head.
    MissingHeader,
    /// A header with bytes that would break the framing.
    EscapedHeader,
    /// Bytes of an HTTP connection that are no message.
    HttpSkipped,
    /// Bytes that are not the HTTP that they should be.
    HttpInvalid,
    /// HTTP that cannot be told because bytes are missing.
    HttpIncomplete,
    /// HTTP beyond the limits of what is read.
    HttpTooLarge,
    /// A message whose length two servers may understand differently.
    HttpAmbiguous,
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
            Self::BadPort => "bad-port",
            Self::BadAddress => "bad-address",
            Self::BadTime => "bad-time",
            Self::TooLarge => "too-large",
            Self::TooManyConnections => "too-many-connections",
            Self::TrailingBytes => "trailing-bytes",
            Self::ZeroPadding => "zero-padding",
            Self::TextAround => "text-around",
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
            Self::HttpSkipped => "http-skipped",
            Self::HttpInvalid => "http-invalid",
            Self::HttpIncomplete => "http-incomplete",
            Self::HttpTooLarge => "http-too-large",
            Self::HttpAmbiguous => "http-ambiguous",
            Self::UnknownField => "unknown-field",
        }
    }

    /// The severity of every finding with this code.
    #[must_use]
    pub fn severity(self) -> Severity {
        match self {
            Self::Undecodable
            | Self::CutOff
            | Self::ReadFailed
            | Self::BadPort
            | Self::BadAddress
            | Self::BadTime
            | Self::TooLarge
            | Self::TooManyConnections
            | Self::TrailingBytes => Severity::Error,
            Self::ZeroPadding
            | Self::TextAround
            | Self::MixedKinds
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
            | Self::EscapedHeader
            | Self::HttpSkipped
            | Self::HttpInvalid
            | Self::HttpIncomplete
            | Self::HttpTooLarge
            | Self::HttpAmbiguous => Severity::Warning,
            Self::UnknownField => Severity::Note,
        }
    }
}

/// One finding: what was found, and where in the source. Whoever reports it adds the source's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Where.
    pub place: Place,
    /// What.
    pub fact: Fact,
    /// How many findings after it were dropped because the list was full.
    pub more: u64,
}

impl Finding {
    /// A finding that stands for itself alone, not for dropped ones.
    #[must_use]
    pub fn new(place: Place, fact: Fact) -> Self {
        Self { place, fact, more: 0 }
    }

    /// Its kind.
    #[must_use]
    pub fn code(&self) -> Code {
        self.fact.code()
    }
}

/// Findings that wait to be taken.
///
/// A hostile trace can cause a finding every few bytes, so at most [`Findings::LIMIT`] are kept, plus one that counts
/// those that were dropped.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    list: Vec<Finding>,
    /// The first finding beyond the limit. It counts those after it.
    beyond: Option<Finding>,
}

impl Findings {
    /// The most findings that are kept. One read of 256 KiB stays below it, even with a finding every two bytes.
    pub const LIMIT: usize = 1 << 18;

    /// Adds a finding.
    pub fn push(&mut self, finding: Finding) {
        match &mut self.beyond {
            None if self.list.len() < Self::LIMIT => self.list.push(finding),
            None => self.beyond = Some(finding),
            Some(beyond) => beyond.more += 1,
        }
    }

    /// Whether there are none to take.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Takes all findings, in the order in which they were added.
    pub fn take(&mut self) -> Vec<Finding> {
        let Self { mut list, beyond } = std::mem::take(self);
        list.extend(beyond);
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
    use crate::trace::WireFault;

    #[test]
    fn findings_beyond_the_list_are_counted() {
        let mut findings = Findings::default();
        let finding = |offset| {
            Finding::new(Place { offset, ..Place::default() }, Fact::Undecodable(WireFault::EndInField.into()))
        };
        findings.extend((0..Findings::LIMIT as u64 + 1000).map(finding));
        let taken = findings.take();
        assert_eq!((taken.len(), taken[7].place.offset), (Findings::LIMIT + 1, 7));
        let last = taken.last().unwrap();
        assert_eq!((last.place.offset, last.more), (Findings::LIMIT as u64, 999));
        assert!(findings.is_empty() && findings.take().is_empty());
    }
}
