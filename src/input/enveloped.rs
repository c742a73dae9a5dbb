//! Traces inside other protobuf messages: a request to a tap server, an `Any`, a list.
//!
//! Detection finds the path of field numbers that leads to the traces. Everything else in the messages around them is
//! skipped without being held in memory, so neither their size nor their number matters.

use super::{
    binary::{Frame, cut_off, frame, too_long, undecodable, zeros},
    decode::{Decode, Fault, Step},
    detect::FieldPath,
    wire::{self, MAX_LEN, Scanner, Tag, WireError, WireFraming},
};
use crate::trace::{CutIn, Message, TraceKind, WireFault};

/// Decodes traces at one path in messages of any type. There may be one `TraceWrapper`, or several back to back.
#[derive(Debug)]
pub(crate) struct EnvelopedDecoder {
    framing: WireFraming,
    path: FieldPath,
    /// Offset in the source of the window's first byte.
    base: u64,
    /// Where the messages end that the window begins in, the outermost first.
    ends: Vec<u64>,
    /// Bytes to come of a field that is of no interest.
    skip: u64,
    /// What the last step wanted. The source may pass over that much instead.
    wanted: usize,
    /// The framing is lost, so nothing more can be read.
    lost: bool,
}

impl EnvelopedDecoder {
    pub(crate) fn new(framing: WireFraming, path: FieldPath) -> Self {
        Self { framing, path, base: 0, ends: Vec::new(), skip: 0, wanted: 0, lost: false }
    }
}

impl Decode for EnvelopedDecoder {
    fn step(&mut self, window: &[u8], at_end: bool, out: &mut Message) -> Step {
        if self.lost {
            return Step::End;
        }
        let mut at = 0;
        let step = loop {
            if let Some(step) = self.field(window, &mut at, at_end, out) {
                break step;
            }
        };
        match step {
            Step::Message { end, .. }
            | Step::Damaged { end, .. }
            | Step::Skipped { end, .. }
            | Step::Zeros { end, .. } => self.base += end as u64,
            Step::NeedMore { skip, wanted } => {
                self.base += skip as u64;
                self.wanted = wanted;
            }
            Step::Switch { .. } | Step::End => {}
        }
        step
    }

    fn pass_over(&mut self) -> bool {
        self.base += self.wanted as u64;
        true
    }
}

impl EnvelopedDecoder {
    /// Looks at what begins at `window[*at]`: the length of a message, or a field. `None` if it is no trace.
    fn field(&mut self, window: &[u8], at: &mut usize, at_end: bool, out: &mut Message) -> Option<Step> {
        // At most the window's length, so it fits.
        let skipped = self.skip.min((window.len() - *at) as u64);
        self.skip -= skipped;
        *at += skipped as usize;
        let here = self.base + *at as u64;
        while self.ends.pop_if(|end| *end <= here).is_some() {}
        if *at == window.len() {
            return Some(self.exhausted(*at, at_end, out));
        }
        if self.ends.is_empty() && window[*at] == 0 {
            return Some(Step::Zeros { start: *at, end: *at + zeros(&window[*at..]) });
        }
        let is_length = self.ends.is_empty() && self.framing == WireFraming::Delimited;
        let left = self.ends.last().map(|end| end - here);
        let whole = left.is_some_and(|left| left <= (window.len() - *at) as u64);
        // If the message ends in the window, its length fits.
        let end = left.filter(|_| whole).map_or(window.len(), |left| *at + left as usize);
        let mut scan = Scanner::new(window, *at, end, false);
        let header = if is_length {
            scan.varint().map(|len| (Tag { field: 0, wire_type: wire::LEN }, len))
        } else {
            scan.tag().and_then(|tag| {
                let len = if tag.wire_type == wire::LEN { scan.varint()? } else { scan.skip(tag).map(|()| 0)? };
                Ok((tag, len))
            })
        };
        let (tag, len) = match header {
            Ok(header) => header,
            Err(error) => return Some(self.broken(&error, window, *at, whole, at_end, out)),
        };
        let body = scan.position();
        let field_end = (self.base + body as u64).saturating_add(len);
        if let Some(parent) = self.ends.last().filter(|parent| field_end > **parent) {
            let available = usize::try_from(parent - (self.base + body as u64)).unwrap_or(usize::MAX);
            let fault = Fault::undecodable(*at, WireFault::Overlong { len, available });
            return Some(self.damaged(window, *at, fault));
        }
        if len > MAX_LEN {
            return Some(self.damaged(window, *at, too_long(*at, len)));
        }
        let depth = self.ends.len().saturating_sub(usize::from(self.framing == WireFraming::Delimited));
        let is_leaf = !is_length && depth == self.path.numbers().len();
        if let Some(kind) = TraceKind::from_field_number(tag.field).filter(|_| is_leaf && tag.wire_type == wire::LEN) {
            return Some(self.trace(kind, window, *at, (body, len), at_end, out));
        }
        *at = body;
        if tag.wire_type != wire::LEN {
            return None;
        }
        if is_length || self.path.numbers().get(depth) == Some(&tag.field) {
            self.ends.push(field_end);
        } else {
            self.skip = len;
        }
        None
    }

    /// The trace in the field at `window[start]`.
    fn trace(
        &mut self,
        kind: TraceKind,
        window: &[u8],
        start: usize,
        (body, len): (usize, u64),
        at_end: bool,
        out: &mut Message,
    ) -> Step {
        match frame(window, body, len, at_end) {
            Frame::Whole(end) => match wire::trace(kind, Scanner::new(window, body, end, false), out) {
                Ok(()) => Step::Message { start, end },
                Err(error) => Step::Damaged { start, end, fault: undecodable(&error) },
            },
            Frame::NeedMore(wanted) => Step::NeedMore { skip: start, wanted: wanted - start },
            Frame::Cut { missing } => {
                self.lost = true;
                // `out` keeps what was readable. The error is ignored, because the cut explains it.
                let _ = wire::trace(kind, Scanner::new(window, body, window.len(), true), out);
                out.cut = true;
                Step::Damaged { start, end: window.len(), fault: cut_off(window.len(), missing) }
            }
            Frame::TooLong => self.damaged(window, start, too_long(start, len)),
        }
    }

    /// Nothing is left of the window.
    fn exhausted(&mut self, at: usize, at_end: bool, out: &mut Message) -> Step {
        let here = self.base + at as u64;
        let missing = self.skip.max(self.ends.first().map_or(0, |end| end - here));
        match missing {
            _ if !at_end => Step::NeedMore { skip: at, wanted: 1 },
            0 => Step::End,
            _ => {
                self.lost = true;
                out.cut = true;
                Step::Damaged { start: at, end: at, fault: cut_off(at, missing) }
            }
        }
    }

    /// The header at `window[at]` cannot be read. `whole` says that the message around it ends in the window.
    fn broken(
        &mut self,
        error: &WireError,
        window: &[u8],
        at: usize,
        whole: bool,
        at_end: bool,
        out: &mut Message,
    ) -> Step {
        if whole || !matches!(error.reason, WireFault::EndInField | WireFault::Overlong { .. }) {
            return self.damaged(window, at, undecodable(error));
        }
        if !at_end {
            return Step::NeedMore { skip: at, wanted: window.len() - at + 1 };
        }
        self.lost = true;
        out.cut = true;
        Step::Damaged { start: at, end: window.len(), fault: Fault::cut_off(error.at, CutIn::Field) }
    }

    /// Gives up the outermost message, whose end is known. Outside of any message, the framing is lost.
    fn damaged(&mut self, window: &[u8], at: usize, fault: Fault) -> Step {
        let Some(end) = self.ends.first() else {
            self.lost = true;
            return Step::Damaged { start: at, end: window.len(), fault };
        };
        self.skip = end - (self.base + at as u64);
        self.ends.clear();
        Step::Damaged { start: at, end: at, fault }
    }
}
