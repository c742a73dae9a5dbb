//! Request targets and URLs.

use super::{Counts, Redaction};

impl Redaction {
    /// Takes the secrets out of a request target, or of `:path`. Its length changes only with `addresses`.
    pub(crate) fn target(&self, _target: &mut Vec<u8>, _counts: &mut Counts) {}
}
