//! HTTP's chunked coding, as `curl --raw` leaves it.

use std::io::{self, Read};

use super::{Match, Rewound};

/// Bytes of a chunk's first line, with its extensions.
const MAX_LINE: usize = 4096;

/// Whether `head` begins with the size of a chunk, on a line of its own. No trace begins with hexadecimal digits and a
/// carriage return: protobuf begins with a tag or a length and a tag, text with a letter beyond `f`, JSON with a brace.
pub(super) fn matches(head: &[u8]) -> Match {
    let digits = head.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    match &head[digits..] {
        _ if digits > 8 => Match::No,
        [] | [b'\r'] => Match::Unknown,
        [b'\r', b'\n', ..] if digits > 0 => Match::Yes { skip: 0 },
        extension @ [b';', ..] if digits > 0 => match memchr::memmem::find(extension, b"\r\n") {
            Some(len) if extension[..len].iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~')) => {
                Match::Yes { skip: 0 }
            }
            None if extension.len() < MAX_LINE => Match::Unknown,
            Some(_) | None => Match::No,
        },
        _ => Match::No,
    }
}

/// The bytes of the chunks.
pub(super) struct Chunked {
    inside: io::BufReader<Rewound>,
    /// Bytes of the current chunk that are still to come.
    left: u64,
    /// A chunk has ended, and the line break after it is still to come.
    in_chunk: bool,
    ended: bool,
}

impl Chunked {
    pub(super) fn new(inside: Rewound) -> Self {
        Self { inside: io::BufReader::new(inside), left: 0, in_chunk: false, ended: false }
    }

    /// Reads a line without its line break. An empty one at the end of the source is answered as `None`.
    fn line(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        let mut byte = [0];
        while !line.ends_with(b"\n") {
            if self.inside.read(&mut byte)? == 0 {
                return if line.is_empty() { Ok(None) } else { Err(cut()) };
            }
            line.push(byte[0]);
            if line.len() > MAX_LINE {
                return Err(damaged());
            }
        }
        Ok(Some(line))
    }

    /// Reads the line before the next chunk, and after the last one the trailer.
    fn next_chunk(&mut self) -> io::Result<()> {
        if self.in_chunk && self.line()?.is_some_and(|line| !line.trim_ascii().is_empty()) {
            return Err(damaged());
        }
        let Some(line) = self.line()? else {
            // curl may have been ended, as tap streams have no end of their own.
            self.ended = true;
            return Ok(());
        };
        let Ok(httparse::Status::Complete((_, size))) = httparse::parse_chunk_size(&line) else {
            return Err(damaged());
        };
        (self.left, self.in_chunk) = (size, true);
        if size == 0 {
            self.ended = true;
            // What follows is the trailer, of which no field is of interest.
        }
        Ok(())
    }
}

impl Read for Chunked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.left == 0 && !self.ended {
            self.next_chunk()?;
        }
        let room = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.inside.read(&mut buffer[..room])?;
        self.left -= count as u64;
        // What is cut inside a chunk ends there: the decoder says where that leaves its message.
        self.ended |= count == 0 && room > 0;
        Ok(count)
    }
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the chunked coding is damaged: the size of a chunk should stand here")
}

fn cut() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the chunked coding is cut off in the size of a chunk")
}
