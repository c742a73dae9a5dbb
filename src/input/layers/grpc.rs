//! gRPC's framing of messages (`Length-Prefixed-Message` in its protocol over HTTP/2), as a server or a capture of one
//! leaves it: a byte of flags, four bytes of length, the message.

use std::io::{self, Read};

use super::{MAX_HEAD, Match, Rewound};
use crate::input::detect::holds_trace;

/// Bytes before a message.
const HEADER: usize = 5;

/// The flag of a compressed message. Which compression it is stands in HTTP/2's headers, which are not here; gzip is
/// what nearly all use.
const COMPRESSED: u8 = 1;

/// The flag of gRPC-Web's trailers, which are no message.
const TRAILERS: u8 = 0x80;

/// The most bytes of a compressed message, packed and unpacked: its length must be known before the first of its bytes.
const MAX_COMPRESSED: u64 = 16 << 20;

/// Whether `head` begins with a frame whose message is a trace or holds one. No trace begins with a zero or a one: a
/// tag is larger, and so is the length of a message.
pub(super) fn matches(head: &[u8]) -> Match {
    let [flag @ (0 | COMPRESSED), rest @ ..] = head else {
        return if head.is_empty() { Match::Unknown } else { Match::No };
    };
    let Some((len, rest)) = rest.split_first_chunk() else { return Match::Unknown };
    let len = u32::from_be_bytes(*len) as usize;
    if len == 0 || len >= 1 << 31 {
        return Match::No;
    }
    let is_cut = rest.len() < len;
    if is_cut && head.len() < MAX_HEAD {
        return Match::Unknown;
    }
    let message = &rest[..len.min(rest.len())];
    let is_trace = if *flag == COMPRESSED {
        let mut unpacked = Vec::new();
        let mut reader = flate2::read::MultiGzDecoder::new(message).take(MAX_HEAD as u64);
        // A cut gives what comes before it.
        let cut = reader.read_to_end(&mut unpacked).is_err() || unpacked.len() == MAX_HEAD;
        holds_trace(&unpacked, cut)
    } else {
        holds_trace(message, is_cut)
    };
    if is_trace { Match::Yes { skip: 0 } } else { Match::No }
}

/// The messages in the framing of PROTO_BINARY_LENGTH_DELIMITED. Each length takes as many bytes as gRPC's header, so
/// that offsets stay the same as long as no message is compressed.
pub(super) struct Grpc {
    inside: Rewound,
    /// Bytes of the current message that are still to come.
    left: u64,
    /// They are no message.
    dropped: bool,
    /// Bytes that were made and not given out yet.
    out: Vec<u8>,
    at: usize,
    ended: bool,
}

impl Grpc {
    pub(super) fn new(inside: Rewound) -> Self {
        Self { inside, left: 0, dropped: false, out: Vec::new(), at: 0, ended: false }
    }

    /// Reads as many bytes as there are, up to `header.len()`.
    fn header(&mut self, header: &mut [u8; HEADER]) -> io::Result<usize> {
        let mut count = 0;
        while count < HEADER {
            match self.inside.read(&mut header[count..]) {
                Ok(0) => break,
                Ok(more) => count += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(count)
    }

    fn next_frame(&mut self) -> io::Result<()> {
        self.out.clear();
        self.at = 0;
        self.dropped = false;
        let mut header = [0; HEADER];
        match self.header(&mut header)? {
            HEADER => {}
            count => {
                self.ended = true;
                // Zeros may be padding.
                return if header[..count].iter().all(|byte| *byte == 0) { Ok(()) } else { Err(cut()) };
            }
        }
        let [flag, length @ ..] = header;
        let len = u32::from_be_bytes(length);
        match flag {
            0 => {
                self.out.extend_from_slice(&padded_length(len));
                self.left = len.into();
            }
            COMPRESSED => self.unpack(len.into())?,
            TRAILERS => {
                self.left = len.into();
                self.dropped = true;
            }
            _ => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "the header of a gRPC message should stand here",
                ));
            }
        }
        Ok(())
    }

    fn unpack(&mut self, len: u64) -> io::Result<()> {
        let too_long = || {
            let limit = MAX_COMPRESSED >> 20;
            io::Error::other(format!("a compressed gRPC message of more than {limit} MiB; unpack it first"))
        };
        if len > MAX_COMPRESSED {
            return Err(too_long());
        }
        let mut packed = Vec::new();
        (&mut self.inside).take(len).read_to_end(&mut packed)?;
        if (packed.len() as u64) < len {
            return Err(cut());
        }
        self.out.resize(HEADER, 0);
        flate2::read::MultiGzDecoder::new(&*packed).take(MAX_COMPRESSED + 1).read_to_end(&mut self.out)?;
        match u32::try_from(self.out.len() - HEADER) {
            Ok(len) if u64::from(len) <= MAX_COMPRESSED => self.out[..HEADER].copy_from_slice(&padded_length(len)),
            _ => return Err(too_long()),
        }
        Ok(())
    }
}

impl Read for Grpc {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.at < self.out.len() {
                let count = (&self.out[self.at..]).read(buffer)?;
                self.at += count;
                return Ok(count);
            }
            if self.ended || buffer.is_empty() {
                return Ok(0);
            }
            if self.left == 0 {
                self.next_frame()?;
                continue;
            }
            let room = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
            let count = self.inside.read(&mut buffer[..room])?;
            self.left -= count as u64;
            // The decoder says where a cut leaves its message.
            self.ended |= count == 0;
            if !self.dropped {
                return Ok(count);
            }
        }
    }
}

/// `len` as a varint of [`HEADER`] bytes.
fn padded_length(len: u32) -> [u8; HEADER] {
    std::array::from_fn(|index| {
        let group = (len >> (7 * index)) as u8 & 0x7f;
        if index < HEADER - 1 { group | 0x80 } else { group }
    })
}

fn cut() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "cut off in the header of a gRPC message, or in a compressed one")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_takes_as_many_bytes_as_the_header() {
        for len in [0, 1, 127, 128, 300, 1 << 20, u32::MAX] {
            let bytes = padded_length(len);
            let value = bytes.iter().rev().fold(0, |value, byte| value << 7 | u64::from(byte & 0x7f));
            assert_eq!(value, u64::from(len));
            assert!(bytes[..4].iter().all(|byte| byte & 0x80 != 0) && bytes[4] < 0x80);
        }
    }

    #[test]
    fn frames_that_are_cut_or_damaged_end_with_an_error() {
        let read = |bytes: &[u8]| {
            let rest = Box::new(io::Cursor::new(bytes.to_vec()));
            let mut out = Vec::new();
            let error = Grpc::new(Rewound { head: Vec::new(), at: 0, rest }).read_to_end(&mut out).err();
            (out, error.map(|error| error.to_string()))
        };
        let framed = [&[0, 0, 0, 0, 2][..], b"ab"].concat();
        let inside = [&padded_length(2)[..], b"ab"].concat();
        assert_eq!(read(&framed), (inside.clone(), None));
        // Zeros may be padding, and trailers are no message.
        assert_eq!(read(&[&framed[..], &[0; 3]].concat()), (inside.clone(), None));
        assert_eq!(read(&[&framed[..], &[0x80, 0, 0, 0, 1, b'x']].concat()), (inside.clone(), None));
        for (tail, words) in [
            (&[0, 0, 7][..], "cut off in the header"),
            (&[7, 0, 0, 0, 1, 1], "should stand here"),
            (&[1, 0, 0, 0, 9, 1], "cut off"),
            (&[1, 0xff, 0, 0, 9, 1], "more than 16 MiB"),
        ] {
            let (out, error) = read(&[&framed[..], tail].concat());
            assert_eq!(out, inside);
            assert!(error.unwrap().contains(words), "{words}");
        }
    }

    #[test]
    fn a_message_that_unpacks_to_more_than_memory_is_refused() {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        io::copy(&mut io::repeat(0).take(20 << 20), &mut encoder).unwrap();
        let packed = encoder.finish().unwrap();
        let framed = [&[COMPRESSED][..], &(packed.len() as u32).to_be_bytes(), &packed].concat();
        let rest = Box::new(io::Cursor::new(framed));
        let error = Grpc::new(Rewound { head: Vec::new(), at: 0, rest }).read_to_end(&mut Vec::new()).unwrap_err();
        assert!(error.to_string().contains("more than 16 MiB"));
    }
}
