//! PROTO_BINARY_LENGTH_DELIMITED: each `TraceWrapper` after its length as a varint.

use super::{
    binary::{Frame, cut_off, frame, is_line_break, too_long, undecodable, zeros},
    decode::{Decode, Fault, Step},
    wire::{self, Scanner},
};
use crate::trace::{CutIn, Message, WireFault};

/// This many zeros are padding. Fewer may be empty messages, which lose nothing either way.
const PADDING: usize = 8;

/// Decodes PROTO_BINARY_LENGTH_DELIMITED.
#[derive(Debug, Default)]
pub(crate) struct DelimitedDecoder {
    /// The framing is lost, so nothing more can be read.
    lost: bool,
    /// The last step has passed over padding, which may go on.
    in_padding: bool,
}

impl Decode for DelimitedDecoder {
    fn step(&mut self, window: &[u8], at_end: bool, out: &mut Message) -> Step {
        if self.lost || (window.is_empty() && at_end) {
            return Step::End;
        }
        if let Some(end) = wire::run(wire::WireFraming::Delimited, window, out) {
            self.in_padding = false;
            return Step::Message { start: 0, end };
        }
        if window.first() == Some(&0) {
            match zeros(window) {
                len if len >= PADDING || self.in_padding => {
                    self.in_padding = true;
                    return Step::Zeros { start: 0, end: len };
                }
                len if len == window.len() && !at_end => return Step::NeedMore { skip: 0, wanted: PADDING },
                _ => {}
            }
        }
        self.in_padding &= window.is_empty();
        // A length of ten or thirteen that nothing follows.
        if at_end && is_line_break(window) {
            return Step::Skipped { start: 0, end: window.len() };
        }
        let mut scan = Scanner::new(window, 0, window.len(), false);
        let len = match scan.varint() {
            Ok(len) => len,
            Err(error) if error.reason == WireFault::EndInField => {
                if !at_end {
                    return Step::NeedMore { skip: 0, wanted: window.len() + 1 };
                }
                self.lost = true;
                out.cut = true;
                let fault = Fault::cut_off(window.len(), CutIn::Length);
                return Step::Damaged { start: 0, end: window.len(), fault };
            }
            Err(error) => {
                self.lost = true;
                return Step::Damaged { start: 0, end: window.len(), fault: undecodable(&error) };
            }
        };
        let body = scan.position();
        match frame(window, body, len, at_end) {
            Frame::Whole(end) => match wire::wrapper(Scanner::new(window, body, end, false), out) {
                Ok(()) => Step::Message { start: 0, end },
                Err(error) => Step::Damaged { start: 0, end, fault: undecodable(&error) },
            },
            Frame::NeedMore(wanted) => Step::NeedMore { skip: 0, wanted },
            Frame::Cut { missing } => {
                self.lost = true;
                // `out` keeps what was readable. The error is ignored, because the cut explains it.
                let _ = wire::wrapper(Scanner::new(window, body, window.len(), true), out);
                out.cut = true;
                Step::Damaged { start: 0, end: window.len(), fault: cut_off(window.len(), missing) }
            }
            Frame::TooLong => {
                self.lost = true;
                Step::Damaged { start: 0, end: window.len(), fault: too_long(0, len) }
            }
        }
    }

    fn pass_over(&mut self) -> bool {
        true
    }
}
