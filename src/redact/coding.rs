//! Content codings, taken off while bytes come.

/// Takes the content codings off one body.
#[derive(Debug)]
pub(crate) struct ContentDecoder {}

/// The bytes are not what the coding says, or too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadCoding;

impl ContentDecoder {
    /// For the values of `content-encoding`. `None` if there is no coding to take off; an error if one is unknown.
    pub(crate) fn new<'a>(_values: impl Iterator<Item = &'a [u8]>) -> Option<Result<Self, BadCoding>> {
        None
    }

    /// Takes coded bytes, and appends what they stand for.
    ///
    /// # Errors
    /// They cannot be decoded, or stand for too many bytes. What was appended before is good.
    pub(crate) fn data(&mut self, _bytes: &[u8], _out: &mut Vec<u8>) -> Result<(), BadCoding> {
        Ok(())
    }

    /// The body has ended.
    ///
    /// # Errors
    /// As [`ContentDecoder::data`].
    pub(crate) fn end(&mut self, _out: &mut Vec<u8>) -> Result<(), BadCoding> {
        Ok(())
    }
}
