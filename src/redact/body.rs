//! Bodies, whose bytes come in pieces.

use super::{Counts, Redaction};

/// Takes the secrets out of one body.
#[derive(Debug)]
pub(crate) struct Body {}

impl Body {
    /// A body of this `content-type`.
    pub(crate) fn new(_redaction: &Redaction, _content_type: Option<&[u8]>) -> Self {
        Self {}
    }

    /// Takes the next bytes, whose number stays the same.
    pub(crate) fn data(&mut self, _bytes: &mut [u8], _counts: &mut Counts) {}

    /// Bytes are missing. What follows cannot be read any more.
    pub(crate) fn lose(&mut self) {}
}
