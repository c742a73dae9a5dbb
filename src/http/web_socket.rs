//! WebSocket frames (RFC 6455 section 5.2), counted. Their payload is neither unmasked nor inflated.

use super::{
    Loss,
    exchange::{WebSocket, WebSocketFrame, WebSocketFrames},
};
use crate::trace::{HttpSide, Nanos};

/// How many frames of a connection are listed.
const MAX_LISTED: usize = 1024;

/// The longest head of a frame: two bytes, eight of length, four of the mask.
const MAX_HEAD: usize = 14;

/// What the next bytes of a direction are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FrameEvent {
    /// Bytes of a head that is not whole yet.
    PartOfHead,
    /// The last bytes of a head.
    Head,
    /// Bytes of a payload.
    Payload,
    /// Frames can no longer be told apart.
    Adrift,
}

/// Reads the frames of one direction.
#[derive(Debug)]
pub(crate) struct Frames {
    side: HttpSide,
    head: [u8; MAX_HEAD],
    have: usize,
    /// Bytes of payload that are still to come, once the head is whole.
    left: Option<u64>,
    length: u64,
    /// The frames can no longer be told apart.
    adrift: bool,
}

impl Frames {
    pub(crate) fn new(side: HttpSide) -> Self {
        Self { side, head: [0; MAX_HEAD], have: 0, left: None, length: 0, adrift: false }
    }

    /// Takes bytes.
    pub(super) fn data(&mut self, time: Nanos, mut bytes: &[u8], out: &mut WebSocket) {
        while !bytes.is_empty() {
            let (taken, event) = self.step(bytes);
            bytes = &bytes[taken..];
            if event == FrameEvent::Adrift {
                out.sides[self.side.index()].uncounted = true;
                return;
            }
            if self.left == Some(0) {
                self.end(time, out);
            }
        }
    }

    /// Takes the first of these bytes, which are not empty: how many, and what they are.
    pub(crate) fn step(&mut self, bytes: &[u8]) -> (usize, FrameEvent) {
        if self.adrift {
            return (bytes.len(), FrameEvent::Adrift);
        }
        if self.left == Some(0) {
            (self.have, self.left) = (0, None);
        }
        if let Some(left) = self.left {
            let taken = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
            self.left = Some(left - taken as u64);
            return (taken, FrameEvent::Payload);
        }
        for (index, byte) in bytes.iter().enumerate() {
            self.head[self.have] = *byte;
            self.have += 1;
            if self.have < self.head_len() {
                continue;
            }
            let length = self.payload_len();
            // A length has 63 bits.
            if length >> 63 != 0 {
                self.adrift = true;
                return (index + 1, FrameEvent::Adrift);
            }
            (self.length, self.left) = (length, Some(length));
            return (index + 1, FrameEvent::Head);
        }
        (bytes.len(), FrameEvent::PartOfHead)
    }

    /// Bytes are missing. Returns whether frames can still be told apart.
    pub(crate) fn skip(&mut self, loss: Option<u64>) -> bool {
        match (loss, self.left) {
            // A frame must end with bytes that are there, so that it can be counted.
            (Some(bytes), Some(left)) if bytes < left => self.left = Some(left - bytes),
            _ => self.adrift = true,
        }
        !self.adrift
    }

    /// Bytes that are not in the trace.
    pub(super) fn lose(&mut self, loss: Loss, out: &mut WebSocketFrames) {
        out.uncounted |= !self.skip(loss.exactly());
    }

    fn head_len(&self) -> usize {
        if self.have < 2 {
            return 2;
        }
        let length = match self.head[1] & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        2 + length + if self.head[1] & 0x80 == 0 { 0 } else { 4 }
    }

    fn payload_len(&self) -> u64 {
        let [_, second, rest @ ..] = self.head;
        match second & 0x7f {
            126 => u64::from(u16::from_be_bytes([rest[0], rest[1]])),
            127 => u64::from_be_bytes([rest[0], rest[1], rest[2], rest[3], rest[4], rest[5], rest[6], rest[7]]),
            short => u64::from(short),
        }
    }

    fn end(&mut self, time: Nanos, out: &mut WebSocket) {
        let (opcode, last) = (self.head[0] & 0x0f, self.head[0] & 0x80 != 0);
        let counts = &mut out.sides[self.side.index()];
        counts.frames += 1;
        counts.messages += u64::from(last && opcode < 8);
        counts.bytes = counts.bytes.saturating_add(self.length);
        if out.frames.len() < MAX_LISTED {
            out.frames.push(WebSocketFrame { side: self.side, time, opcode, last, bytes: self.length });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_counted_however_they_are_cut() {
        let mut bytes = vec![0x81, 0x85, 1, 2, 3, 4, b'h', b'e', b'l', b'l', b'o'];
        bytes.extend([0x02, 126, 1, 0]);
        bytes.extend([0; 256]);
        bytes.extend([0x80, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
        bytes.extend([0; 65_536]);
        bytes.extend([0x88, 0x00]);
        for size in [1, 7, 100_000] {
            let (mut frames, mut out) = (Frames::new(HttpSide::Request), WebSocket::default());
            bytes.chunks(size).for_each(|piece| frames.data(7, piece, &mut out));
            let counts = out.sides[0];
            assert_eq!((counts.frames, counts.messages, counts.bytes), (4, 2, 5 + 256 + 65_536), "{size}");
            let listed: Vec<_> = out.frames.iter().map(|frame| (frame.opcode, frame.last, frame.bytes)).collect();
            assert_eq!(listed, [(1, true, 5), (2, false, 256), (0, true, 65_536), (8, true, 0)]);
        }
    }

    #[test]
    fn a_frame_may_lose_payload_but_not_its_head() {
        let (mut frames, mut out) = (Frames::new(HttpSide::Response), WebSocket::default());
        frames.data(0, &[0x82, 10, 0], &mut out);
        frames.lose(Loss::Exactly(8), &mut out.sides[1]);
        frames.data(0, &[0, 0x82, 1], &mut out);
        assert_eq!((out.sides[1].frames, out.sides[1].uncounted), (1, false));
        frames.lose(Loss::Exactly(2), &mut out.sides[1]);
        frames.data(0, &[0x82, 0], &mut out);
        assert_eq!((out.sides[1].frames, out.sides[1].uncounted), (1, true));
    }

    #[test]
    fn a_length_of_64_bits_ends_the_count() {
        let (mut frames, mut out) = (Frames::new(HttpSide::Request), WebSocket::default());
        frames.data(0, &[0x82, 127, 0xff, 0, 0, 0, 0, 0, 0, 0, 0x82, 0], &mut out);
        assert_eq!((out.sides[0].frames, out.sides[0].uncounted), (0, true));
    }
}
