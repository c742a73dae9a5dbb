//! The part of the protobuf wire format that the tests need to take traces apart without the program's own reader.

/// One field of a message: its number, and for length-delimited ones the bytes inside.
#[derive(Clone, Copy, Debug)]
pub struct Field<'a> {
    pub number: u64,
    pub content: Option<&'a [u8]>,
    /// The whole field, key included.
    pub raw: &'a [u8],
}

/// Reads a varint. Panics if there is none, because the tests' own data is sound.
pub fn varint(bytes: &[u8]) -> (u64, &[u8]) {
    let len = bytes.iter().position(|byte| *byte < 0x80).unwrap() + 1;
    let value = bytes[..len].iter().rev().fold(0, |value, byte| value << 7 | u64::from(byte & 0x7f));
    (value, &bytes[len..])
}

pub fn append_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a length-delimited field.
pub fn append_field(out: &mut Vec<u8>, number: u64, content: &[u8]) {
    append_varint(out, number << 3 | 2);
    append_varint(out, content.len() as u64);
    out.extend_from_slice(content);
}

/// The fields of a message, in order.
pub fn fields(mut bytes: &[u8]) -> Vec<Field<'_>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let (key, rest) = varint(bytes);
        let (content, rest) = match key & 7 {
            0 => (None, varint(rest).1),
            1 => (None, &rest[8..]),
            2 => {
                let (len, rest) = varint(rest);
                let (content, rest) = rest.split_at(len as usize);
                (Some(content), rest)
            }
            5 => (None, &rest[4..]),
            other => panic!("wire type {other}"),
        };
        fields.push(Field { number: key >> 3, content, raw: &bytes[..bytes.len() - rest.len()] });
        bytes = rest;
    }
    fields
}

/// PROTO_BINARY: one message starts at each field of the oneof, which has the numbers 1 to 4.
pub fn split_binary(bytes: &[u8]) -> Vec<&[u8]> {
    let mut messages: Vec<(usize, usize)> = Vec::new();
    let mut at = 0;
    for field in fields(bytes) {
        let end = at + field.raw.len();
        match messages.last_mut() {
            Some(last) if field.number > 4 => last.1 = end,
            _ => messages.push((at, end)),
        }
        at = end;
    }
    messages.into_iter().map(|(start, end)| &bytes[start..end]).collect()
}

/// PROTO_BINARY_LENGTH_DELIMITED.
pub fn split_delimited(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut messages = Vec::new();
    while !bytes.is_empty() {
        let (len, rest) = varint(bytes);
        let (message, rest) = rest.split_at(len as usize);
        messages.push(message);
        bytes = rest;
    }
    messages
}

/// The messages inside a trace that tests change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Node {
    Wrapper,
    Buffered,
    Streamed,
    Events,
    Event,
    Connection,
}

impl Node {
    fn child(self, field: u64) -> Option<Self> {
        Some(match (self, field) {
            (Self::Wrapper, 3) => Self::Buffered,
            (Self::Wrapper, 4) => Self::Streamed,
            (Self::Buffered | Self::Streamed, 2) | (Self::Event, 5) => Self::Connection,
            (Self::Buffered | Self::Streamed, 3) | (Self::Events, 1) => Self::Event,
            (Self::Streamed, 4) => Self::Events,
            _ => return None,
        })
    }
}

/// Puts a message together again, from the inside out, with `edit` applied to each part.
pub fn rewrite(bytes: &[u8], node: Node, edit: &impl Fn(Node, Vec<u8>) -> Vec<u8>) -> Vec<u8> {
    let mut out = Vec::new();
    for field in fields(bytes) {
        match (field.content, node.child(field.number)) {
            (Some(content), Some(child)) => append_field(&mut out, field.number, &rewrite(content, child, edit)),
            _ => out.extend_from_slice(field.raw),
        }
    }
    edit(node, out)
}
