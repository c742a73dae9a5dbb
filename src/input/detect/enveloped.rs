//! Finds traces inside other protobuf messages.
//!
//! A message that only has bytes where a trace would be says nothing. An envelope is recognised by a trace in it that
//! has what only a trace has, and nothing that speaks against one.

use std::fmt;

use super::evidence::Evidence;
use crate::input::{
    binary::{BinaryDecoder, zeros},
    wire::{LEN, Scanner, WireFraming},
};

/// How deep a trace may be in other messages.
const MAX_DEPTH: usize = 4;

/// The numbers of the fields that lead to a message inside other messages, the outermost first.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct FieldPath {
    numbers: [u32; MAX_DEPTH],
    len: usize,
}

impl FieldPath {
    /// The numbers.
    #[must_use]
    pub fn numbers(&self) -> &[u32] {
        &self.numbers[..self.len]
    }

    /// The path of a field in the message at this path; `None` if that is too deep.
    fn with(mut self, number: u32) -> Option<Self> {
        *self.numbers.get_mut(self.len)? = number;
        self.len += 1;
        Some(self)
    }
}

impl fmt::Debug for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.numbers().fmt(f)
    }
}

/// Where an envelope's traces are, and where the first message ends that holds one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) path: FieldPath,
    pub(super) at: usize,
}

/// Looks for traces in the messages of `head`. If `more` bytes may come, a message that is not complete says nothing
/// yet.
pub(super) fn find(framing: WireFraming, head: &[u8], more: bool) -> Option<Found> {
    let mut at = 0;
    while at < head.len() {
        if head[at] == 0 {
            at += zeros(&head[at..]);
            continue;
        }
        let (path, part) = match framing {
            WireFraming::Bare => {
                let field = Part::field(head, at, head.len(), true)?;
                // Not LEN: without content.
                (FieldPath::default().with(field.number), field)
            }
            WireFraming::Delimited => (Some(FieldPath::default()), Part::message(head, at)?),
        };
        if part.is_cut && more {
            return None;
        }
        if let Some(path) = path.filter(|_| part.is_delimited).and_then(|path| search(head, part, path)) {
            return Some(Found { path, at: part.end });
        }
        at = part.end;
    }
    None
}

/// Whether these bytes, which may be cut, are a trace or hold one.
pub(in crate::input) fn holds_trace(bytes: &[u8], is_cut: bool) -> bool {
    search(bytes, Part::whole(bytes, is_cut), FieldPath::default()).is_some()
}

/// The path of the first trace in `part`, whose own path is `path`.
fn search(head: &[u8], part: Part, path: FieldPath) -> Option<FieldPath> {
    let content = &head[part.start..part.end];
    // A `TraceWrapper` begins with one of the first four fields.
    if matches!(content, [0x0a | 0x12 | 0x1a | 0x22, _, ..]) {
        let evidence = Evidence::of(&mut BinaryDecoder::default(), content, false);
        if evidence.found_at().is_some() && !evidence.is_contradicted() {
            return Some(path);
        }
    }
    path.with(0)?;
    let mut fields = Vec::new();
    let mut at = part.start;
    while at < part.end {
        let field = match Part::field(head, at, part.end, part.is_cut) {
            Some(field) => field,
            None if part.is_cut => break,
            None => return None,
        };
        if field.is_delimited && field.start < field.end {
            fields.push(field);
        }
        at = field.end;
    }
    fields.into_iter().find_map(|field| search(head, field, path.with(field.number)?))
}

/// A field, or a message with a length before it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub(super) number: u32,
    pub(super) is_delimited: bool,
    /// Its content.
    pub(super) start: usize,
    pub(super) end: usize,
    /// The content goes on after the head.
    pub(super) is_cut: bool,
}

impl Part {
    /// All of these bytes.
    pub(super) fn whole(bytes: &[u8], is_cut: bool) -> Self {
        Self { number: 0, is_delimited: true, start: 0, end: bytes.len(), is_cut }
    }

    /// The field at `head[at]`, in a message that ends at `end`. `None` if there is none.
    pub(super) fn field(head: &[u8], at: usize, end: usize, may_be_cut: bool) -> Option<Self> {
        let mut scan = Scanner::new(head, at, end, false);
        let tag = scan.tag().ok()?;
        if tag.wire_type == LEN {
            return Self::delimited(scan, tag.field, end, may_be_cut);
        }
        scan.skip(tag).ok()?;
        let end = scan.position();
        Some(Self { number: tag.field, is_delimited: false, start: end, end, is_cut: false })
    }

    /// The message at `head[at]`, after its length.
    fn message(head: &[u8], at: usize) -> Option<Self> {
        Self::delimited(Scanner::new(head, at, head.len(), false), 0, head.len(), true)
    }

    fn delimited(mut scan: Scanner<'_>, number: u32, end: usize, may_be_cut: bool) -> Option<Self> {
        let len = scan.varint().ok()?;
        let start = scan.position();
        match usize::try_from(len).ok().and_then(|len| start.checked_add(len)) {
            Some(field_end) if field_end <= end => {
                Some(Self { number, is_delimited: true, start, end: field_end, is_cut: false })
            }
            Some(field_end) if may_be_cut && field_end < 1 << 31 => {
                Some(Self { number, is_delimited: true, start, end, is_cut: true })
            }
            _ => None,
        }
    }
}
