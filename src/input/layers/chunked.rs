//! HTTP's chunked coding (RFC 9112, section 7.1), as curl leaves it on demand.

use std::io::{self, BufReader, Read};

use super::{Found, Layer, MAX_HEAD, Match, Rewound, look};

/// Bytes of a chunk's first line, with its extensions.
const MAX_LINE: usize = 4096;

/// The most fields of a trailer.
const MAX_TRAILER: usize = 256;

/// Whether `head` begins with the size of a chunk, on a line of its own. No trace begins with hexadecimal digits and a
/// carriage return: protobuf begins with a tag or a length and a tag, text with a letter beyond `f`, JSON with a brace.
/// If the carriage returns were lost when the text was copied, the size must fit as well.
pub(super) fn matches(head: &[u8]) -> Match {
    let digits = head.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    match &head[digits..] {
        _ if digits > 8 => Match::No,
        [] | [b'\r'] => Match::Unknown,
        [b'\r', b'\n', ..] if digits > 0 => Match::Yes { skip: 0 },
        [b'\n', rest @ ..] if digits > 0 => fits(&head[..digits], rest),
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

/// Whether a chunk of this size ends where another one begins. What is copied is text.
fn fits(digits: &[u8], rest: &[u8]) -> Match {
    let size = str::from_utf8(digits).ok().and_then(|digits| usize::from_str_radix(digits, 16).ok());
    let is_text = rest.iter().all(|byte| matches!(byte, b'\t' | b'\r' | b'\n' | b' '..));
    let Some(size) = size.filter(|size| (1..MAX_HEAD).contains(size) && is_text) else { return Match::No };
    match rest.get(size..) {
        None | Some([]) => Match::Unknown,
        Some([b'\n', next @ ..]) => {
            let digits = next.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
            match next.get(digits) {
                Some(b'\n') if digits > 0 => Match::Yes { skip: 0 },
                None if digits <= 8 => Match::Unknown,
                _ => Match::No,
            }
        }
        Some(_) => Match::No,
    }
}

/// The bytes of the chunks. If other responses follow, their chunks too.
pub(super) struct Chunked {
    inside: Rewound,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The size of the next chunk comes, after the line break that ends the chunk before.
    Size { is_first: bool },
    /// This many bytes of a chunk are still to come.
    Chunk(u64),
    /// The last chunk has ended. What follows is none of the coding's business.
    After,
    /// The source has ended.
    Ended,
}

impl Chunked {
    pub(super) fn new(inside: Rewound) -> Self {
        let inside = Rewound::new(Vec::new(), Box::new(BufReader::new(inside)));
        Self { inside, state: State::Size { is_first: true } }
    }

    /// Reads a line with its line break. An empty one at the end of the source is answered as `None`.
    fn line(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        let mut byte = [0];
        while !line.ends_with(b"\n") {
            match self.inside.read(&mut byte) {
                Ok(0) if line.is_empty() => return Ok(None),
                Ok(0) => return Err(cut()),
                Ok(_) => line.push(byte[0]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            if line.len() > MAX_LINE {
                return Err(damaged());
            }
        }
        Ok(Some(line))
    }

    /// Reads the lines before the next chunk, and after the last one the trailer.
    fn next_chunk(&mut self, is_first: bool) -> io::Result<State> {
        if !is_first && self.line()?.is_some_and(|line| !line.trim_ascii().is_empty()) {
            return Err(damaged());
        }
        // curl may have been ended, as tap streams have no end of their own.
        let Some(mut line) = self.line()? else { return Ok(State::Ended) };
        if !line.ends_with(b"\r\n") {
            line.splice(line.len() - 1.., *b"\r\n");
        }
        match httparse::parse_chunk_size(&line) {
            Ok(httparse::Status::Complete((_, 0))) => self.after(),
            Ok(httparse::Status::Complete((_, size))) => Ok(State::Chunk(size)),
            Ok(httparse::Status::Partial) | Err(_) => Err(damaged()),
        }
    }

    /// Reads the trailer, and the head of another response if there is one, as for several URLs on curl's command line.
    fn after(&mut self) -> io::Result<State> {
        for _ in 0..MAX_TRAILER {
            match self.line() {
                Ok(Some(line)) if line.trim_ascii().is_empty() => break,
                Ok(Some(line)) if is_field(&line) => {}
                Ok(Some(line)) => {
                    self.inside.push_back(line, 0);
                    break;
                }
                Ok(None) | Err(_) => return Ok(State::Ended),
            }
        }
        for layer in [Layer::HttpResponse, Layer::Chunked] {
            let (mut head, mut late) = (Vec::new(), None);
            let found = look(&mut self.inside, &mut head, &mut late, &[layer], false)?;
            let skip = if let Found::Layer(_, skip) = found { Some(skip) } else { None };
            self.inside.push_back(head, skip.unwrap_or(0));
            if let Some(late) = late {
                return Err(late);
            }
            if skip.is_none() {
                return Ok(State::After);
            }
        }
        Ok(State::Size { is_first: true })
    }
}

impl Read for Chunked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.state {
                State::Size { is_first } => self.state = self.next_chunk(is_first)?,
                State::Chunk(0) => self.state = State::Size { is_first: false },
                State::Chunk(left) => {
                    let room = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
                    let count = self.inside.read(&mut buffer[..room])?;
                    // What is cut inside a chunk ends there: the decoder says where that leaves its message.
                    let ended = count == 0 && room > 0;
                    self.state = if ended { State::Ended } else { State::Chunk(left - count as u64) };
                    return Ok(count);
                }
                State::After => return self.inside.read(buffer),
                State::Ended => return Ok(0),
            }
        }
    }
}

/// Whether a line is a header field.
fn is_field(line: &[u8]) -> bool {
    let name = line.iter().take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')).count();
    name > 0 && line.get(name) == Some(&b':')
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the chunked coding is damaged: the size of a chunk should stand here")
}

fn cut() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the chunked coding is cut off in the size of a chunk")
}
