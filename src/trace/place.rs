//! A position in a source.

/// A position in a source: where a message begins, or where reading it stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Byte offset in the (decompressed) source.
    pub offset: u64,
    /// Index of the message, from 0.
    pub message: u64,
}
