//! Where in a source something is.

/// Where in a source something is: where its message begins, or where in that reading stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Byte offset in the (decompressed) source.
    pub offset: u64,
    /// Index of the message, from 0.
    pub message: u64,
}
