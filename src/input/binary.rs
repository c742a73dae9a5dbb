//! PROTO_BINARY: `TraceWrapper` messages back to back with nothing between them.
//!
//! An ordinary parser would merge them all into one. But each wrapper starts with a field of its oneof, so each such
//! field at the top level starts a message. Any other field belongs to the message before it.

use super::{
    decode::{Decode, Fault, Step},
    wire::{self, MAX_LEN, Scanner, Tag, WireError},
};
use crate::trace::{CutIn, Message, TraceKind, WireFault};

/// Decodes PROTO_BINARY.
#[derive(Debug, Default)]
pub(crate) struct BinaryDecoder {
    /// The framing is lost, so nothing more can be read.
    lost: bool,
    /// It is not known where the field at the start of the window ends.
    open_ended: bool,
}

/// A top-level field whose tag and length are complete.
struct TopLevelField {
    tag: Tag,
    /// Where the bytes of a length-delimited field start.
    body: usize,
    /// How many they are.
    len: u64,
}

impl Decode for BinaryDecoder {
    fn step(&mut self, window: &[u8], at_end: bool, out: &mut Message) -> Step {
        if self.lost {
            return Step::End;
        }
        if let Some(end) = wire::run(wire::WireFraming::Bare, window, out) {
            return Step::Message { start: 0, end };
        }
        let mut start = 0;
        while start < window.len() {
            let error = match head(window, start) {
                Ok(field) => match TraceKind::from_field_number(field.tag.field) {
                    Some(kind) if field.tag.wire_type == wire::LEN => {
                        return self.trace(kind, &field, window, start, at_end, out);
                    }
                    _ => {
                        let mut scan = Scanner::new(window, start, window.len(), false);
                        // `head` has just read the same tag without an error.
                        match scan.tag().and_then(|tag| wire::wrapper_extra(&mut scan, tag, out)) {
                            Ok(()) => {
                                start = scan.position();
                                continue;
                            }
                            Err(error) => error,
                        }
                    }
                },
                // No field has the number 0, so these are no bytes of a message.
                Err(_) if window[start] == 0 => return Step::Zeros { start, end: start + zeros(&window[start..]) },
                Err(error) => error,
            };
            let incomplete = match error.reason {
                WireFault::EndInField => true,
                WireFault::Overlong { len, .. } => len <= MAX_LEN,
                _ => false,
            };
            if incomplete && at_end && is_line_break(&window[start..]) {
                return Step::Skipped { start, end: window.len() };
            }
            if incomplete && !at_end {
                let end = match (&error.reason, head(window, start)) {
                    (WireFault::Overlong { .. }, Ok(field)) if field.tag.wire_type == wire::LEN => {
                        // `incomplete` means that the length is at most `MAX_LEN`, so the sum fits.
                        Some(field.body + field.len as usize)
                    }
                    _ => None,
                };
                self.open_ended = end.is_none();
                return Step::NeedMore { skip: start, wanted: end.unwrap_or(window.len() + 1) - start };
            }
            self.lost = true;
            out.cut = incomplete;
            let fault = match error.reason {
                _ if incomplete => Fault::cut_off(error.at, CutIn::Field),
                // How many bytes are left in the window says nothing about the source.
                WireFault::Overlong { len, .. } => {
                    Fault::undecodable(error.at, WireFault::LongField { len, limit: MAX_LEN })
                }
                _ => undecodable(&error),
            };
            return Step::Damaged { start, end: window.len(), fault };
        }
        if at_end { Step::End } else { Step::NeedMore { skip: start, wanted: 1 } }
    }

    fn pass_over(&mut self) -> bool {
        !self.open_ended
    }
}

impl BinaryDecoder {
    fn trace(
        &mut self,
        kind: TraceKind,
        field: &TopLevelField,
        window: &[u8],
        start: usize,
        at_end: bool,
        out: &mut Message,
    ) -> Step {
        let scan = |end, lax| Scanner::new(window, field.body, end, lax);
        match frame(window, field.body, field.len, at_end) {
            Frame::Whole(end) => match wire::trace(kind, scan(end, false), out) {
                Ok(()) => Step::Message { start, end },
                Err(error) => Step::Damaged { start, end, fault: undecodable(&error) },
            },
            Frame::NeedMore(wanted) => {
                self.open_ended = false;
                Step::NeedMore { skip: start, wanted: wanted - start }
            }
            Frame::Cut { missing } => {
                self.lost = true;
                // `out` keeps what was readable. The error is ignored, because the cut explains it.
                let _ = wire::trace(kind, scan(window.len(), true), out);
                out.cut = true;
                Step::Damaged { start, end: window.len(), fault: cut_off(window.len(), missing) }
            }
            Frame::TooLong => {
                self.lost = true;
                Step::Damaged { start, end: window.len(), fault: too_long(start, field.len) }
            }
        }
    }
}

fn head(window: &[u8], start: usize) -> Result<TopLevelField, Box<WireError>> {
    let mut scan = Scanner::new(window, start, window.len(), false);
    let tag = scan.tag()?;
    let len = if tag.wire_type == wire::LEN { scan.varint()? } else { 0 };
    Ok(TopLevelField { tag, body: scan.position(), len })
}

/// Whether the rest of a source is what a shell or an editor adds to it.
pub(super) fn is_line_break(rest: &[u8]) -> bool {
    matches!(rest, b"\n" | b"\r\n")
}

/// How many zeros `bytes` begins with. A preallocated file and a datagram of fixed size are padded with them.
pub(super) fn zeros(bytes: &[u8]) -> usize {
    bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len())
}

/// Whether the window holds all bytes of a message.
pub(super) enum Frame {
    /// It does, and the message ends here.
    Whole(usize),
    /// The window must reach this far.
    NeedMore(usize),
    /// The source ends this many bytes earlier.
    Cut { missing: u64 },
    /// No protobuf message is that long.
    TooLong,
}

pub(super) fn frame(window: &[u8], body: usize, len: u64, at_end: bool) -> Frame {
    if len > MAX_LEN {
        return Frame::TooLong;
    }
    let available = (window.len() - body) as u64;
    // `len` is at most `MAX_LEN`, so the sum fits.
    let end = body + len as usize;
    if available >= len {
        Frame::Whole(end)
    } else if at_end {
        Frame::Cut { missing: len - available }
    } else {
        Frame::NeedMore(end)
    }
}

pub(super) fn undecodable(error: &WireError) -> Fault {
    Fault::undecodable(error.at, error.reason)
}

pub(super) fn cut_off(at: usize, missing: u64) -> Fault {
    Fault::cut_off(at, CutIn::Message { missing })
}

pub(super) fn too_long(at: usize, len: u64) -> Fault {
    Fault::undecodable(at, WireFault::LongMessage { len, limit: MAX_LEN })
}
