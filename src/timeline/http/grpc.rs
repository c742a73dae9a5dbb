//! Where the messages of a gRPC body begin and end: each has a flag and its length before it.
//!
//! A tap that cuts a body cuts a message, whose length says how much of it is missing. A dissector that has begun to put
//! such a message together fails at the end of the stream, so it is written in a frame that is cut itself.

use super::out::Missing;

/// The bytes before a message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// The longest message that is believed where another part of one may stand: gRPC's own limit is 4 MiB.
const MOST: u32 = 1 << 24;

#[derive(Debug, Default)]
pub(super) struct Messages {
    prefix: [u8; PREFIX],
    /// How much of it is there. 0 between two messages.
    prefix_len: usize,
    /// Bytes of the message that are still to come.
    left: u64,
    /// Nobody knows where the next bytes stand in their message: bytes before them are missing.
    adrift: bool,
    /// It is no gRPC, whatever its content-type says.
    other: bool,
}

impl Messages {
    /// Takes the next bytes of the body, and answers where in them their last message begins that is not whole.
    pub(super) fn take(&mut self, bytes: &[u8]) -> usize {
        if self.adrift && begins(bytes) {
            *self = Self::default();
        }
        if self.adrift || self.other {
            return 0;
        }
        let (mut at, mut begin) = (0, 0);
        loop {
            let body = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len() - at);
            at += body;
            self.left -= body as u64;
            if self.prefix_len == PREFIX && self.left == 0 {
                self.prefix_len = 0;
            }
            if self.prefix_len == 0 {
                begin = at;
            }
            if at == bytes.len() {
                return begin;
            }
            let len = (PREFIX - self.prefix_len).min(bytes.len() - at);
            self.prefix[self.prefix_len..][..len].copy_from_slice(&bytes[at..at + len]);
            self.prefix_len += len;
            at += len;
            let [flag, length @ ..] = self.prefix;
            if !is_flag(flag) {
                self.other = true;
                return 0;
            }
            if self.prefix_len == PREFIX {
                self.left = u32::from_be_bytes(length).into();
            }
        }
    }

    /// What is missing after a cut; `next` are the next bytes of the body, where there are any.
    pub(super) fn cut(&mut self, next: Option<&[u8]>) -> Missing {
        let goes_on = next.is_some_and(|next| !begins(next));
        let missing = match self {
            Self { other: true, .. } => return Missing::Unframed,
            Self { adrift: true, .. } => Missing::Unknown,
            // The cut bytes may be whole messages, of which nothing is known, or the beginning of this one.
            Self { prefix_len: 0, .. } if !goes_on => return Missing::Unframed,
            Self { prefix_len: PREFIX, left, .. } if !goes_on => Missing::Bytes(*left),
            _ => Missing::Unknown,
        };
        *self = Self { adrift: true, ..Self::default() };
        missing
    }
}

/// gRPC-Web has its trailers in a message with the highest bit set.
fn is_flag(byte: u8) -> bool {
    byte & 0x7f <= 1
}

/// Whether a message may begin here.
fn begins(bytes: &[u8]) -> bool {
    match bytes {
        [flag, a, b, c, d, ..] => is_flag(*flag) && u32::from_be_bytes([*a, *b, *c, *d]) < MOST,
        [flag, ..] => is_flag(*flag),
        [] => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two messages: of 3 bytes, and of 300.
    fn body() -> Vec<u8> {
        [&[0, 0, 0, 0, 3, 1, 2, 3, 1, 0, 0, 1, 44][..], &[7; 300]].concat()
    }

    #[test]
    fn messages_end_where_their_length_says_however_the_body_comes() {
        for step in [1, 2, 5, 8, 13, 1000] {
            let mut messages = Messages::default();
            let mut begins = Vec::new();
            for (index, chunk) in body().chunks(step).enumerate() {
                let begin = messages.take(chunk);
                begins.push(index * step + begin);
            }
            assert!(begins.contains(&body().len()), "{step}: {begins:?}");
            assert_eq!(messages.cut(None), Missing::Unframed, "{step}");
        }
    }

    #[test]
    fn a_cut_is_as_long_as_the_message_says() {
        for (present, begin, missing) in [
            (313, 313, Missing::Unframed),
            (312, 8, Missing::Bytes(1)),
            (13, 8, Missing::Bytes(300)),
            (12, 8, Missing::Unknown),
            (8, 8, Missing::Unframed),
            (7, 0, Missing::Bytes(1)),
            (0, 0, Missing::Unframed),
        ] {
            let mut messages = Messages::default();
            assert_eq!(messages.take(&body()[..present]), begin, "{present}");
            assert_eq!(messages.cut(None), missing, "{present}");
        }
        // The rest of the message follows, or another one does.
        let mut messages = Messages::default();
        messages.take(&body()[..20]);
        assert_eq!(messages.cut(Some(&[7; 20])), Missing::Unknown);
        assert_eq!(messages.take(&[7; 20]), 0);
        assert_eq!(messages.cut(None), Missing::Unknown);
        assert_eq!(messages.take(&body()[..20]), 8);
        assert_eq!(messages.cut(Some(&body())), Missing::Bytes(293));
        // No gRPC at all.
        assert_eq!(messages.take(b"{\"error\": 1}"), 0);
        assert_eq!(messages.cut(None), Missing::Unknown);
        let mut messages = Messages::default();
        assert_eq!(messages.take(b"{\"error\": 1}"), 0);
        assert_eq!(messages.cut(None), Missing::Unframed);
    }
}
