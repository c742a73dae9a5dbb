//! What people should know of replayed HTTP, as data. The comments of packets and the findings put it into words.

use super::HttpSide;

/// What was made up, escaped or left out, or is missing, where an exchange was replayed.
///
/// Its `Display` is a line for people. The line quotes the trace only in printable ASCII.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReplayNote {
    /// Something that HTTP requires is missing and was made up.
    MadeUp(MadeUpField),
    /// A field was added that the framing needs.
    Added {
        /// The side that it was added to.
        side: HttpSide,
        /// The field line.
        field: &'static str,
    },
    /// Fields could not be written as they are.
    Unfit(UnfitFields),
    /// Fields of an HTTP/1 connection were left out, because HTTP/2 has none.
    ConnectionFields(HttpSide, FieldNames),
    /// A content-length was left out, because the body is in chunks.
    LengthOfChunks {
        /// The side that it was left out of.
        side: HttpSide,
        /// The length.
        length: u64,
    },
    /// A pseudo-header was left out of a request, because HTTP/1.1 has no place for it.
    NoPlace {
        /// The method is the reason: the first line of CONNECT has the authority only.
        connect: bool,
        /// The name of the pseudo-header.
        name: &'static str,
        /// Its value.
        value: Quote,
    },
    /// By the content-length, bytes are missing, and no chunk stands for them.
    NoChunk {
        /// The side whose bytes are missing.
        side: HttpSide,
        /// How many.
        bytes: u64,
    },
    /// By the content-length, bytes are missing, and no frame stands for them.
    NoFrame {
        /// The side whose bytes are missing.
        side: HttpSide,
        /// How many.
        bytes: u64,
    },
    /// By the length of a gRPC message, bytes of it are missing, and no frame stands for them.
    NoFrameOfMessage {
        /// The side whose bytes are missing.
        side: HttpSide,
        /// How many.
        bytes: u64,
    },
    /// There is more to say, for which a comment has no room.
    More,
}

impl ReplayNote {
    /// The note with an asterisk in the place of a value that it quotes. Names stay.
    pub(crate) fn without_values(&self) -> Self {
        let asterisk = || Quote::new(b"*");
        match self {
            Self::NoPlace { connect, name, .. } => Self::NoPlace { connect: *connect, name, value: asterisk() },
            Self::MadeUp(MadeUpField::StatusDigits(Some(_))) => {
                Self::MadeUp(MadeUpField::StatusDigits(Some(asterisk())))
            }
            other => other.clone(),
        }
    }

    /// How much memory it takes, roughly.
    pub(crate) fn size(&self) -> usize {
        let quotes = match self {
            Self::MadeUp(MadeUpField::StatusDigits(value)) => value.as_ref().map_or(0, Quote::size),
            Self::Unfit(UnfitFields::Escaped(_, names) | UnfitFields::LeftOut(_, names))
            | Self::ConnectionFields(_, names) => names.size(),
            Self::NoPlace { value, .. } => value.size(),
            Self::MadeUp(MadeUpField::Method | MadeUpField::Path | MadeUpField::Status)
            | Self::Added { .. }
            | Self::LengthOfChunks { .. }
            | Self::NoChunk { .. }
            | Self::NoFrame { .. }
            | Self::NoFrameOfMessage { .. }
            | Self::More => 0,
        };
        size_of::<Self>() + quotes
    }
}

/// A pseudo-header that HTTP requires, and that the trace lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MadeUpField {
    /// The request has no method.
    Method,
    /// The request has no path.
    Path,
    /// The response has no status, which HTTP/2 requires.
    Status,
    /// The response has no status of three digits, which HTTP/1.1 requires. If it has another, this is its value.
    StatusDigits(Option<Quote>),
}

/// Fields that could not be written as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UnfitFields {
    /// Their names or values were escaped.
    Escaped(HttpSide, FieldNames),
    /// They were left out, because HTTP/2 has no such names there.
    LeftOut(HttpSide, FieldNames),
}

/// The names of some fields as the trace spells them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldNames {
    /// The first ones, at most [`FieldNames::MOST`].
    pub names: Vec<Quote>,
    /// How many there are besides.
    pub more: usize,
}

impl FieldNames {
    /// The most names that are kept.
    pub const MOST: usize = 8;

    /// Adds a name, or counts it.
    pub(crate) fn add(&mut self, name: &[u8]) {
        if self.names.len() < Self::MOST {
            self.names.push(Quote::new(name));
        } else {
            self.more += 1;
        }
    }

    fn size(&self) -> usize {
        self.names.iter().map(Quote::size).sum()
    }
}

/// A short piece of a trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quote {
    /// The whole text, or its first [`Quote::LONGEST`] bytes and its last one.
    kept: Box<[u8]>,
}

impl Quote {
    /// The most bytes that are shown.
    pub const LONGEST: usize = 64;

    /// Quotes `text`.
    #[must_use]
    pub fn new(text: &[u8]) -> Self {
        let kept = match text.get(..Self::LONGEST) {
            Some(first) if text.len() > Self::LONGEST => [first, &text[text.len() - 1..]].concat().into(),
            _ => text.into(),
        };
        Self { kept }
    }

    /// The bytes that are shown.
    #[must_use]
    pub fn shown(&self) -> &[u8] {
        &self.kept[..self.kept.len().min(Self::LONGEST)]
    }

    /// Whether the text has more bytes.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.kept.len() > Self::LONGEST
    }

    /// Whether a reader sees where the text begins and ends: it is not empty, and has no blanks at either end.
    #[must_use]
    pub fn has_clear_ends(&self) -> bool {
        !self.kept.is_empty() && self.kept.trim_ascii().len() == self.kept.len()
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.kept.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quote_is_short_and_knows_the_ends_of_its_text() {
        let long = |last: u8| [&[b'x'; 1000][..], &[last]].concat();
        for (text, shown, is_cut, has_clear_ends) in [
            (b"".to_vec(), 0, false, false),
            (b"a".to_vec(), 1, false, true),
            (b"a ".to_vec(), 2, false, false),
            (vec![b'x'; 64], 64, false, true),
            (vec![b'x'; 65], 64, true, true),
            (long(b'y'), 64, true, true),
            (long(b' '), 64, true, false),
        ] {
            let quote = Quote::new(&text);
            let found = (quote.shown().len(), quote.is_cut(), quote.has_clear_ends());
            assert_eq!(found, (shown, is_cut, has_clear_ends), "{} bytes", text.len());
            assert!(text.starts_with(quote.shown()) && quote.size() < 100);
        }
    }
}
