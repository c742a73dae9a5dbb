//! Where the messages of a gRPC body begin and end. A flag and the message's length precede each message.
//!
//! If the tap cuts a body inside a message, the message's length tells how much is missing. A dissector that has begun
//! to reassemble such a message fails at the end of the stream. So the message is written in a frame that is cut
//! itself.

use super::out::Missing;

/// The length of the prefix before a message: a flag for compression, and the message's length.
const PREFIX: usize = 5;

/// The longest message that is plausible where the bytes may be inside another message. gRPC's own limit is 4 MiB.
const MOST: u32 = 1 << 24;

#[derive(Debug, Default)]
pub(super) struct Messages {
    prefix: [u8; PREFIX],
    /// How many bytes of the prefix were read. It is 0 between two messages.
    prefix_len: usize,
    /// How many bytes of the message are still to come.
    left: u64,
    /// The offset of the next bytes in their message is unknown, because bytes before them are missing.
    adrift: bool,
    /// The body is not gRPC, whatever its content-type says.
    other: bool,
}

impl Messages {
    /// Takes the next bytes of the body. Returns where in them the incomplete message at their end begins: 0 if it
    /// began earlier or its start is unknown, and the number of bytes if no message is incomplete.
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

    /// What is missing after a cut. `next` are the next bytes of the body, if there are any.
    pub(super) fn cut(&mut self, next: Option<&[u8]>) -> Missing {
        let goes_on = next.is_some_and(|next| !begins(next));
        let missing = match self {
            Self { other: true, .. } => return Missing::Unframed,
            Self { adrift: true, .. } => Missing::Unknown,
            // The body is cut between two messages, so nothing tells how much is missing.
            Self { prefix_len: 0, .. } if !goes_on => return Missing::Unframed,
            Self { prefix_len: PREFIX, left, .. } if !goes_on => Missing::Bytes(*left),
            _ => Missing::Unknown,
        };
        *self = Self { adrift: true, ..Self::default() };
        missing
    }
}

/// Whether this is a message's flag. gRPC-Web sends its trailers in a message whose flag has the highest bit set.
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

    /// Two messages, of 3 bytes and of 300.
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
        // This is not gRPC.
        assert_eq!(messages.take(b"{\"error\": 1}"), 0);
        assert_eq!(messages.cut(None), Missing::Unknown);
        let mut messages = Messages::default();
        assert_eq!(messages.take(b"{\"error\": 1}"), 0);
        assert_eq!(messages.cut(None), Missing::Unframed);
    }
}
