//! What each byte of a connection is, for a stage that writes the bytes again. Parsers record it while they read, so that
//! such a stage never has another opinion than they have.
//!
//! Every byte that a connection's entries have is in exactly one part, or is still held by a parser, which waits for more.
//! Bytes that nobody recorded cannot be written.

use std::ops::Range;

use super::{
    h1::Framing,
    h2::frame::{FrameHead, HEAD as FRAME_HEAD},
};
use crate::{timeline::Direction, trace::HttpSide};

/// What the bytes of a part are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum WireKind {
    /// Framing that holds no value of anybody: blank lines, the end of a chunk, HTTP/2's preface, padding.
    Framing,
    /// The header of the PROXY protocol.
    Proxy,
    /// A whole head of HTTP/1, and how the body after it is framed.
    Head(Framing),
    /// The whole lines of an HTTP/1 head whose rest is missing.
    CutHead,
    /// The line before a chunk.
    ChunkLine,
    /// A trailer section of HTTP/1, with its blank line.
    Trailers,
    /// Bytes of the body of the current HTTP/1 message.
    Body,
    /// The current HTTP/1 message ends here. It has no bytes.
    MessageEnd,
    /// Bytes of a WebSocket after its handshake in HTTP/1.
    WebSocket,
    /// The payload of a whole HTTP/2 frame that is not DATA and has no header block; its head is not among the bytes.
    Frame(FrameHead),
    /// A header block of HTTP/2, out of all of its frames. It has no bytes but those of the lists.
    HeaderBlock(Box<HeaderBlock>),
    /// The head of a DATA frame. It has no bytes.
    DataHead(FrameHead),
    /// Bytes of a body in a DATA frame.
    Data(FrameHead),
    /// The byte that says how much padding a DATA frame has.
    PadLength,
    /// Padding of a DATA frame.
    Padding,
    /// A DATA frame ends here. It has no bytes.
    DataEnd(FrameHead),
    /// Bytes are not in the trace here: how many, 0 if nobody knows. If `adrift`, they may have been of any message.
    Lost { bytes: u64, adrift: bool },
    /// So many bytes of something that is only partly there, and can be neither read nor written.
    Unreadable(u64),
    /// Bytes that nobody understands.
    Unknown,
}

/// A header block of HTTP/2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HeaderBlock {
    /// Whether the fields could be decoded, up to the one that is cut.
    pub is_sound: bool,
    /// Set if it is cut: of the last frame, so many bytes are not there.
    pub cut: Option<u32>,
    /// Its frames.
    pub frames: Vec<BlockFrame>,
    fields: Range<usize>,
}

/// A frame with a part of a header block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct BlockFrame {
    pub head: FrameHead,
    /// What comes before the fragment: the length of the padding, a promised stream, a priority.
    pub prefix: Vec<u8>,
    /// How long the fragment is.
    pub fragment: usize,
    /// How many bytes of padding follow.
    pub padding: usize,
}

impl BlockFrame {
    /// How many bytes of the frame were there.
    pub(super) fn bytes(&self) -> usize {
        FRAME_HEAD + self.prefix.len() + self.fragment + self.padding
    }
}

/// How a field was represented (RFC 7541 section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Representation {
    /// By an index.
    Indexed,
    /// As a literal that is added to the table.
    Added,
    /// As a literal that is not.
    Literal,
    /// As a literal that nobody may ever add to a table.
    Never,
    /// It is no field, but the table's new size.
    TableSize(u32),
}

/// One field of a header block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockField<'a> {
    /// `None` if bytes are missing that would tell it.
    pub name: Option<&'a [u8]>,
    /// As `name`.
    pub value: Option<&'a [u8]>,
    pub form: FieldForm,
}

/// How a field was encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FieldForm {
    pub representation: Representation,
    /// The index of the field or of its name; 0 stands for a name in the field.
    pub index: u32,
    /// Whether the name and the value were in Huffman code.
    pub huffman: [bool; 2],
}

impl BlockField<'_> {
    /// Whether it is one that HTTP/2 allows: its name is a token in lower case, and its value has no control characters
    /// (RFC 9113 section 8.2.1).
    pub(super) fn is_valid(&self) -> bool {
        let is_name = |name: &[u8]| {
            let name = name.strip_prefix(b":").unwrap_or(name);
            !name.is_empty()
                && name.iter().all(|byte| matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'0'..=b'9' | b'^'..=b'z' | b'|' | b'~'))
        };
        let is_value = |value: &[u8]| value.iter().all(|byte| *byte == b'\t' || !byte.is_ascii_control());
        self.name.is_none_or(is_name) && self.value.is_none_or(is_value)
    }
}

#[derive(Clone, Copy, Debug)]
struct FieldPlace {
    start: usize,
    /// The end of the name and of the value, if they are known.
    name: Option<usize>,
    value: Option<usize>,
    form: FieldForm,
}

/// Some of a connection's bytes.
#[derive(Clone, Debug)]
pub(crate) struct WirePart {
    pub direction: Direction,
    pub side: HttpSide,
    pub kind: WireKind,
    bytes: Range<usize>,
}

/// What was recorded since it was cleared.
#[derive(Debug, Default)]
pub(crate) struct Wire {
    parts: Vec<WirePart>,
    bytes: Vec<u8>,
    fields: Vec<FieldPlace>,
}

impl Wire {
    pub(crate) fn clear(&mut self) {
        self.parts.clear();
        self.bytes.clear();
        self.fields.clear();
    }

    /// The parts, in the order in which the bytes came.
    pub(crate) fn parts(&self) -> &[WirePart] {
        &self.parts
    }

    /// The bytes of a part.
    pub(crate) fn bytes(&self, part: &WirePart) -> &[u8] {
        self.bytes.get(part.bytes.clone()).unwrap_or_default()
    }

    /// The fields of a header block.
    pub(crate) fn fields(&self, block: &HeaderBlock) -> impl Iterator<Item = BlockField<'_>> {
        let places = self.fields.get(block.fields.clone()).unwrap_or_default();
        places.iter().map(|place| {
            let FieldPlace { start, name, value, form } = *place;
            let middle = name.unwrap_or(start);
            BlockField {
                name: name.and_then(|end| self.bytes.get(start..end)),
                value: value.and_then(|end| self.bytes.get(middle..end)),
                form,
            }
        })
    }

    pub(super) fn add(&mut self, direction: Direction, side: HttpSide, kind: WireKind, bytes: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        self.parts.push(WirePart { direction, side, kind, bytes: start..self.bytes.len() });
    }

    /// Adds a field to the header block that is being decoded.
    pub(super) fn add_field(&mut self, field: BlockField<'_>) {
        let start = self.bytes.len();
        let mut end_of = |bytes: Option<&[u8]>| {
            bytes.map(|bytes| {
                self.bytes.extend_from_slice(bytes);
                self.bytes.len()
            })
        };
        let name = end_of(field.name);
        let value = end_of(field.value);
        self.fields.push(FieldPlace { start, name, value, form: field.form });
    }

    /// How many fields there are.
    pub(super) fn field_count(&self) -> usize {
        self.fields.len()
    }
}

impl HeaderBlock {
    /// A block whose fields are those from number `first` on.
    pub(super) fn new(wire: &Wire, first: usize, frames: Vec<BlockFrame>, is_sound: bool, cut: Option<u32>) -> Self {
        Self { is_sound, cut, frames, fields: first..wire.fields.len() }
    }
}
