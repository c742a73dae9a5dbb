//! HTTP/2's header blocks, encoded again. A secret value never enters a table (RFC 7541 section 7.1.3), neither do the
//! asterisks in its place, so the table of this side has fewer entries than the recorded one. All other fields keep their
//! representation, as far as the table allows.

use std::fmt;

use httlib_hpack::{Encoder, EncoderInput};

use super::{Counts, Redaction};
use crate::http::{
    BlockField, BlockFrame, FieldForm, LAST_STATIC, MAX_TABLE, Representation,
    frame::{CONTINUATION, DEFAULT_MAX_LEN, END_HEADERS},
};

/// The longest payload of a frame that is made up.
const MAX_FRAME: usize = DEFAULT_MAX_LEN as usize;

/// Encodes the header blocks of one direction.
#[derive(Default)]
pub(super) struct BlockEncoder {
    encoder: Encoder<'static>,
}

impl fmt::Debug for BlockEncoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockEncoder").finish_non_exhaustive()
    }
}

impl BlockEncoder {
    /// Appends a field with another value if that is `Some`. The fields of a block that is cut stay out of the table,
    /// because a reader cannot read such a block.
    pub(super) fn field(&mut self, field: BlockField<'_>, changed: Option<Vec<u8>>, is_cut: bool, out: &mut Vec<u8>) {
        let FieldForm { representation, index, huffman } = field.form;
        if let Representation::TableSize(size) = representation {
            if is_cut {
                return;
            }
            // The encoder's own buffer takes any size; a failure leaves the table as it is.
            let _ = self.encoder.update_max_dynamic_size(size.min(MAX_TABLE), out);
            return;
        }
        let (Some(name), Some(value)) = (field.name, field.value) else { return };
        let is_static = (1..=LAST_STATIC).contains(&index);
        let mut flags = match representation {
            _ if changed.is_some() => Encoder::NEVER_INDEXED,
            Representation::Added if !is_cut => Encoder::WITH_INDEXING,
            Representation::Never => Encoder::NEVER_INDEXED,
            Representation::Added
            | Representation::Literal
            | Representation::Indexed
            | Representation::TableSize(_) => 0,
        };
        for (is_set, flag) in huffman.into_iter().zip([Encoder::HUFFMAN_NAME, Encoder::HUFFMAN_VALUE]) {
            flags |= if is_set && changed.is_none() { flag } else { 0 };
        }
        let value = match changed {
            None if representation == Representation::Indexed && is_static => None,
            changed => Some(changed.unwrap_or_else(|| value.to_vec())),
        };
        let input = match value {
            None => EncoderInput::Indexed(index),
            Some(value) if is_static => EncoderInput::IndexedName(index, value, flags),
            // To look for a name in the table takes longer than to write it.
            Some(value) if index == 0 || flags & Encoder::NEVER_INDEXED != 0 => {
                EncoderInput::Literal(name.to_vec(), value, flags)
            }
            // The index of an entry may be another one than it was.
            Some(value) => EncoderInput::Literal(name.to_vec(), value, flags | Encoder::BEST_FORMAT),
        };
        let start = out.len();
        if self.encoder.encode(input, out).is_err() {
            out.truncate(start);
        }
    }
}

/// Appends the frames of a header block. `missing` bytes of the last one are not there.
pub(super) fn frames(frames: &[BlockFrame], block: &[u8], missing: Option<u32>, out: &mut Vec<u8>) {
    let mut rest = block;
    for (index, frame) in frames.iter().enumerate() {
        let is_last = index + 1 == frames.len();
        let room = MAX_FRAME.saturating_sub(frame.prefix.len() + frame.padding);
        let wanted = if is_last { rest.len() } else { frame.fragment.min(rest.len()) };
        let (fragment, after) = rest.split_at(wanted.min(room));
        rest = after;
        let goes_on = is_last && !rest.is_empty();
        let mut head = frame.head;
        let ends = head.has(END_HEADERS);
        if goes_on {
            head.flags &= !END_HEADERS;
        }
        let missing_here = if is_last && !goes_on { missing.unwrap_or_default() } else { 0 };
        head.len = (frame.prefix.len() + fragment.len() + frame.padding) as u32 + missing_here;
        out.extend_from_slice(&head.to_bytes());
        out.extend_from_slice(&frame.prefix);
        out.extend_from_slice(fragment);
        out.resize(out.len() + frame.padding, 0);
        if !goes_on {
            continue;
        }
        while !rest.is_empty() {
            let (fragment, after) = rest.split_at(rest.len().min(MAX_FRAME));
            rest = after;
            let mut head = frame.head;
            (head.kind, head.flags) = (CONTINUATION, if rest.is_empty() && ends { END_HEADERS } else { 0 });
            head.len = fragment.len() as u32 + if rest.is_empty() { missing.unwrap_or_default() } else { 0 };
            out.extend_from_slice(&head.to_bytes());
            out.extend_from_slice(fragment);
        }
    }
}

/// The value of a field without its secrets, if it has any.
pub(super) fn redacted(redaction: &Redaction, name: &[u8], value: &[u8], counts: &mut Counts) -> Option<Vec<u8>> {
    let mut changed = value.to_vec();
    if name == b":path" {
        redaction.target(&mut changed, counts);
    } else {
        redaction.field(name, &mut changed, counts);
    }
    (changed != value).then_some(changed)
}
