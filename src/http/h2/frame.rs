//! The head of an HTTP/2 frame (RFC 9113 section 4.1), and how to tell one from other bytes.

/// The bytes of a frame's head.
pub(crate) const HEAD: usize = 9;

/// The longest frame that a peer may send unless it was allowed more (RFC 9113 section 4.2).
pub(crate) const DEFAULT_MAX_LEN: u32 = 1 << 14;

/// How many heads in a row are looked at. So many cannot be there by chance.
const MAX_CHAIN: usize = 64;

/// How far into a payload frames are looked for.
const MAX_OFFSET: usize = 256 << 10;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH_PROMISE: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;
/// RFC 9218 section 7.1.
pub(crate) const PRIORITY_UPDATE: u8 = 0x10;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
pub(crate) const PADDED: u8 = 8;
pub(crate) const PRIORITIZED: u8 = 0x20;

/// The head of a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FrameHead {
    pub(crate) len: u32,
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    /// Without the reserved bit.
    pub(crate) stream: u32,
    reserved: bool,
}

impl FrameHead {
    /// No frame that a peer sends.
    pub(super) const NOTHING: Self = Self { len: 0, kind: 0xff, flags: 0, stream: 0, reserved: false };

    pub(super) fn parse(head: [u8; HEAD]) -> Self {
        let [a, b, c, kind, flags, stream @ ..] = head;
        let stream = u32::from_be_bytes(stream);
        Self {
            len: u32::from_be_bytes([0, a, b, c]),
            kind,
            flags,
            stream: stream & (u32::MAX >> 1),
            reserved: stream >> 31 != 0,
        }
    }

    /// A head without the reserved bit.
    pub(crate) fn new(len: u32, kind: u8, flags: u8, stream: u32) -> Self {
        Self { len, kind, flags, stream, reserved: false }
    }

    /// The head as it is sent.
    pub(crate) fn to_bytes(self) -> [u8; HEAD] {
        let [_, a, b, c] = self.len.to_be_bytes();
        let [d, e, f, g] = (self.stream | u32::from(self.reserved) << 31).to_be_bytes();
        [a, b, c, self.kind, self.flags, d, e, f, g]
    }

    pub(crate) fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Whether the frame is on the kind of stream, and of a length, that its kind needs.
    pub(crate) fn is_sound(self) -> bool {
        let on_stream = self.stream != 0;
        match self.kind {
            DATA | CONTINUATION => on_stream,
            HEADERS => on_stream && self.len > 0,
            PRIORITY => on_stream && self.len == 5,
            RST_STREAM => on_stream && self.len == 4,
            SETTINGS => !on_stream && self.len.is_multiple_of(6) && !(self.has(1) && self.len > 0),
            PUSH_PROMISE => on_stream && self.len >= 4,
            PING => !on_stream && self.len == 8,
            GOAWAY => !on_stream && self.len >= 8,
            WINDOW_UPDATE => self.len == 4,
            _ => true,
        }
    }

    /// Whether a sound peer would send this frame: no unknown kind, no unknown flag.
    pub(super) fn is_plausible(self, max_len: u32) -> bool {
        let flags = match self.kind {
            DATA => END_STREAM | PADDED,
            HEADERS => END_STREAM | END_HEADERS | PADDED | PRIORITIZED,
            SETTINGS | PING => 1,
            PUSH_PROMISE => END_HEADERS | PADDED,
            CONTINUATION => END_HEADERS,
            PRIORITY | RST_STREAM | GOAWAY | WINDOW_UPDATE => 0,
            _ => return false,
        };
        self.len <= max_len && self.flags & !flags == 0 && !self.reserved && self.is_sound()
    }

    /// Whether this is not something else that was taken for a frame. Without a loss, it may be of a kind that is not known.
    pub(super) fn may_be_one(self, max_len: u32, after_loss: bool) -> bool {
        let is_known = self.kind <= CONTINUATION;
        self.is_plausible(max_len) || (!after_loss && !is_known && self.len <= max_len && !self.reserved)
    }

    /// How many heads there are if frames begin here, and whether the last of them ends with the bytes.
    fn chain(mut bytes: &[u8], max_len: u32) -> Option<(usize, bool)> {
        let mut heads = 0;
        while let Some((head, rest)) = bytes.split_first_chunk() {
            let head = Self::parse(*head);
            if !head.is_plausible(max_len) {
                return None;
            }
            heads += 1;
            match rest.get(head.len as usize..) {
                Some(after) if heads < MAX_CHAIN => bytes = after,
                Some(_) => return Some((heads, true)),
                None => return Some((heads, false)),
            }
        }
        Some((heads, bytes.is_empty()))
    }

    /// Whether the bytes are frames from their first byte on, of which at least one is whole.
    pub(in crate::http) fn are_frames(bytes: &[u8]) -> bool {
        matches!(Self::chain(bytes, DEFAULT_MAX_LEN), Some((1, true) | (2.., _)))
    }

    /// Whether the bytes may be the beginning of a server's first frame, SETTINGS.
    pub(in crate::http) fn may_be_settings(bytes: &[u8]) -> bool {
        let first =
            [0, bytes.get(1).copied().unwrap_or(0), bytes.get(2).copied().unwrap_or(0), SETTINGS, 0, 0, 0, 0, 0];
        let len = bytes.len().min(HEAD);
        bytes[..len] == first[..len]
            && Self::parse(first).is_sound()
            && bytes.len() < HEAD + Self::parse(first).len as usize
    }

    /// Where frames begin in bytes that follow a loss.
    pub(super) fn find(bytes: &[u8], max_len: u32) -> Option<usize> {
        let last = bytes.len().checked_sub(HEAD)?.min(MAX_OFFSET);
        (0..=last).find(|offset| match (offset, Self::chain(&bytes[*offset..], max_len)) {
            // Whoever writes frames begins a write with one.
            (0, Some((1.., _))) | (_, Some((1, true) | (2.., _))) => true,
            _ => false,
        })
    }
}

impl FrameHead {
    /// Where frames begin that end with the bytes: nothing but whole frames follows.
    pub(super) fn find_to_the_end(bytes: &[u8], max_len: u32) -> Option<usize> {
        // For each offset, how many frames there are from there to the end, counted from the end, so that each head is
        // looked at once.
        let mut counts = vec![0_u8; bytes.len() + 1];
        let mut found = None;
        for offset in (0..bytes.len()).rev() {
            let Some((head, rest)) = bytes[offset..].split_first_chunk() else { continue };
            let head = Self::parse(*head);
            if !head.is_plausible(max_len) || head.len as usize > rest.len() {
                continue;
            }
            let end = offset + HEAD + head.len as usize;
            if end < bytes.len() && counts[end] == 0 {
                continue;
            }
            counts[offset] = counts[end].saturating_add(1);
            if counts[offset] > 1 || offset == 0 {
                found = Some(offset);
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let len = (payload.len() as u32).to_be_bytes();
        [&len[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    }

    #[test]
    fn frames_are_found_after_other_bytes() {
        let frames = [frame(PING, 0, 0, b"12345678"), frame(DATA, 1, 7, b"abc")].concat();
        assert!(FrameHead::are_frames(&frames));
        assert_eq!(FrameHead::find(&[b"rest of a body".as_slice(), &frames].concat(), DEFAULT_MAX_LEN), Some(14));
        assert_eq!(FrameHead::find(b"nothing but the rest of a body, and no frame", DEFAULT_MAX_LEN), None);
    }

    #[test]
    fn a_frame_that_no_peer_sends_is_none() {
        for frames in [frame(PING, 0, 1, b"12345678"), frame(SETTINGS, 0, 0, b"12345"), frame(DATA, 0, 0, b"x")] {
            assert!(!FrameHead::are_frames(&frames));
        }
        assert!(!FrameHead::are_frames(b"\0\0\0\x0a8.0.36\0"));
    }
}
