//! WebSocket messages (RFC 6455), whose payload is a body each.

use super::{Body, Counts, Kind, Redaction, mask};
use crate::{
    http::{FrameEvent, Frames},
    trace::HttpSide,
};

/// Opcodes (RFC 6455 section 5.2).
const CONTINUATION: u8 = 0;
const CONTROL: u8 = 8;

/// The bit that permessage-deflate sets on the first frame of a compressed message (RFC 7692 section 6).
const COMPRESSED: u8 = 0x40;
const MASKED: u8 = 0x80;

/// One direction of a WebSocket.
#[derive(Debug)]
pub(super) struct WebSocketWriter {
    frames: Frames,
    /// Bytes of a head that is not whole.
    head: Vec<u8>,
    /// The message whose frames come; `None` if it cannot be read.
    message: Option<Body>,
    /// The payload of the current control frame.
    control: Option<Body>,
    is_control: bool,
    /// The client's key (RFC 6455 section 5.3), and how many bytes of the payload it was applied to.
    key: Option<[u8; 4]>,
    at: usize,
}

impl WebSocketWriter {
    pub(super) fn new(side: HttpSide) -> Self {
        Self {
            frames: Frames::new(side),
            head: Vec::new(),
            message: None,
            control: None,
            is_control: false,
            key: None,
            at: 0,
        }
    }

    /// Appends what is written in the place of the next bytes, and returns how many of the last ones are not understood.
    pub(super) fn data(
        &mut self,
        redaction: &Redaction,
        bytes: &[u8],
        counts: &mut Counts,
        out: &mut Vec<u8>,
    ) -> usize {
        let mut rest = bytes;
        while !rest.is_empty() {
            let (taken, event) = self.frames.step(rest);
            let (piece, after) = rest.split_at(taken.min(rest.len()));
            match event {
                FrameEvent::PartOfHead => self.head.extend_from_slice(piece),
                FrameEvent::Head => {
                    self.head.extend_from_slice(piece);
                    self.begin_frame(redaction, out);
                }
                FrameEvent::Payload => self.payload(piece, counts, out),
                FrameEvent::Adrift => return std::mem::take(&mut self.head).len() + rest.len(),
            }
            rest = after;
        }
        0
    }

    /// Bytes are missing. Returns how many that were held cannot be written.
    pub(super) fn lose(&mut self, bytes: u64) -> usize {
        self.frames.skip(Some(bytes).filter(|bytes| *bytes > 0));
        self.at = self.at.wrapping_add(usize::try_from(bytes).unwrap_or_default());
        let body = if self.is_control { &mut self.control } else { &mut self.message };
        body.iter_mut().for_each(Body::lose);
        std::mem::take(&mut self.head).len()
    }

    fn begin_frame(&mut self, redaction: &Redaction, out: &mut Vec<u8>) {
        let mut head = std::mem::take(&mut self.head);
        let (Some(first), Some(second)) = (head.first().copied(), head.get(1).copied()) else { return };
        let opcode = first & 0x0f;
        self.is_control = opcode >= CONTROL;
        self.at = 0;
        self.key = (second & MASKED != 0).then(|| head.last_chunk().copied()).flatten();
        // A payload that is not inflated cannot be read. Asterisks in its place are not compressed.
        let compressed = first & COMPRESSED != 0;
        let body = || (!compressed).then(|| Body::new(redaction, None));
        if self.is_control {
            self.control = body();
        } else if opcode != CONTINUATION {
            self.message = body();
        }
        if let Some(first) = head.first_mut() {
            *first &= !COMPRESSED;
        }
        out.extend_from_slice(&head);
        head.clear();
        self.head = head;
    }

    fn payload(&mut self, bytes: &[u8], counts: &mut Counts, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(bytes);
        let written = &mut out[start..];
        self.apply_key(written);
        match if self.is_control { &mut self.control } else { &mut self.message } {
            Some(body) => body.data(written, counts),
            None => {
                if self.at == 0 {
                    counts.add(Kind::Body, 1);
                }
                mask(written);
            }
        }
        self.apply_key(written);
        self.at = self.at.wrapping_add(bytes.len());
    }

    fn apply_key(&self, bytes: &mut [u8]) {
        if let Some(key) = self.key {
            let keys = key.iter().cycle().skip(self.at % key.len());
            bytes.iter_mut().zip(keys).for_each(|(byte, key)| *byte ^= key);
        }
    }
}
