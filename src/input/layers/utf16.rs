//! Text in UTF-16, as PowerShell's redirection writes it.

use std::{
    char,
    io::{self, Read},
};

use super::{Match, Rewound};

/// Bytes that are read at once.
const READ: usize = 8192;

/// Whether `head` begins with a byte order mark, or with two characters of ASCII in two bytes each. In protobuf, that
/// would be two fields with numbers that no trace has.
pub(super) fn matches(head: &[u8]) -> Match {
    let is_text = |byte: &u8| byte.is_ascii_graphic() || matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
    match head {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => Match::Yes { skip: 0 },
        [first, 0, second, 0, ..] | [0, first, 0, second, ..] if first.is_ascii_graphic() && is_text(second) => {
            Match::Yes { skip: 0 }
        }
        [] | [0xff | 0xfe | 0] => Match::Unknown,
        [first] | [first, 0] | [0, first] | [first, 0, _] | [0, first, 0] if first.is_ascii_graphic() => Match::Unknown,
        _ => Match::No,
    }
}

/// The text in UTF-8. What is no character becomes U+FFFD.
pub(super) struct Utf16 {
    inside: Rewound,
    big_endian: Option<bool>,
    /// Bytes of a character that is not complete.
    rest: Vec<u8>,
    out: Vec<u8>,
    at: usize,
    ended: bool,
}

impl Utf16 {
    pub(super) fn new(inside: Rewound) -> Self {
        Self { inside, big_endian: None, rest: Vec::new(), out: Vec::new(), at: 0, ended: false }
    }

    fn fill(&mut self) -> io::Result<()> {
        let start = self.rest.len();
        self.rest.resize(start + READ, 0);
        let count = self.inside.read(&mut self.rest[start..]);
        self.rest.truncate(start + *count.as_ref().unwrap_or(&0));
        self.ended = count? == 0;
        if self.big_endian.is_none() {
            let [first, second, ..] = self.rest[..] else { return Ok(()) };
            self.big_endian = Some(first == 0xfe || first == 0);
            if matches!([first, second], [0xff, 0xfe] | [0xfe, 0xff]) {
                self.rest.drain(..2);
            }
        }
        let big_endian = self.big_endian == Some(true);
        let mut units = self
            .rest
            .as_chunks()
            .0
            .iter()
            .map(|unit| if big_endian { u16::from_be_bytes(*unit) } else { u16::from_le_bytes(*unit) });
        let mut len = self.rest.len() / 2;
        // The first half of a pair waits for the second one.
        if !self.ended && units.clone().next_back().is_some_and(|unit| (0xd800..0xdc00).contains(&unit)) {
            len -= 1;
        }
        (self.at, self.out) = (0, std::mem::take(&mut self.out));
        self.out.clear();
        let text = char::decode_utf16(units.by_ref().take(len)).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER));
        for char in text {
            self.out.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
        }
        self.rest.drain(..2 * len);
        Ok(())
    }
}

impl Read for Utf16 {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.out.len() && !self.ended {
            self.fill()?;
        }
        let count = (&self.out[self.at..]).read(buffer)?;
        self.at += count;
        Ok(count)
    }
}
