//! Text around messages that was skipped, as one finding tells it.

use crate::trace::Place;

use super::around::names_trace;

/// The most bytes of a line that are quoted.
const QUOTED: usize = 100;

/// More bytes than the name of a trace has, with what shows that one begins after it.
const TAIL: usize = 40;

/// Text that was skipped, of which only this is kept.
#[derive(Clone, Debug, Default)]
pub(super) struct SkippedText {
    /// Where it begins.
    pub(super) place: Place,
    /// Its length.
    pub(super) bytes: u64,
    /// The first line that is not blank, until it ends or is long enough.
    pub(super) first: Vec<u8>,
    first_ended: bool,
    /// Whether a trace seems to begin in it.
    pub(super) names_trace: bool,
    /// Offset of the end of the last piece.
    end: u64,
    /// The last bytes of that piece.
    tail: Vec<u8>,
}

impl SkippedText {
    /// Adds a piece of text, which need not follow the last one.
    pub(super) fn add(&mut self, place: Place, text: &[u8]) {
        if self.bytes == 0 {
            self.place = place;
        }
        let follows = place.offset == self.end;
        self.bytes += text.len() as u64;
        self.end = place.offset + text.len() as u64;
        self.look_for_names(text, follows);
        // A message stands between the two pieces.
        self.first_ended |= !follows && !self.first.is_empty();
        for byte in text {
            if self.first_ended {
                break;
            }
            match byte {
                b'\n' | b'\r' => self.first_ended = !self.first.is_empty(),
                _ if self.first.len() == QUOTED => self.first_ended = true,
                byte if self.first.is_empty() && byte.is_ascii_whitespace() => {}
                byte => self.first.push(*byte),
            }
        }
    }

    fn look_for_names(&mut self, text: &[u8], follows: bool) {
        if self.names_trace {
            return;
        }
        if !follows {
            self.tail.clear();
        }
        self.names_trace = names_trace(text);
        if !self.tail.is_empty() {
            self.tail.extend_from_slice(&text[..text.len().min(TAIL)]);
            self.names_trace |= names_trace(&self.tail);
        }
        if text.len() >= TAIL {
            self.tail.clear();
            self.tail.extend_from_slice(&text[text.len() - TAIL..]);
        } else if self.tail.is_empty() {
            self.tail.extend_from_slice(text);
        } else {
            self.tail.drain(..self.tail.len().saturating_sub(TAIL));
        }
    }

    /// Adds what was skipped elsewhere.
    pub(super) fn merge(&mut self, other: Self) {
        if other.bytes == 0 {
            return;
        }
        let is_earlier = self.bytes == 0 || other.place.offset < self.place.offset;
        self.bytes += other.bytes;
        self.names_trace |= other.names_trace;
        if is_earlier {
            (self.place, self.first, self.first_ended) = (other.place, other.first, true);
        }
    }
}
