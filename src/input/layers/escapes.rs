//! What stands between the tokens of text: the colours of a terminal, and the separators of RFC 7464.
//!
//! jq and the like print colours into the middle of JSON, and grep into the middle of a word. Between tokens they become
//! spaces, so that offsets stay; in a string or a word they are left out.

use memchr::{memchr2, memchr3, memrchr};

use super::{prefix::escape_len, rewritten::Rewrite};
use crate::input::around;

/// The record separator of RFC 7464, section 2.2.
const SEPARATOR: u8 = 0x1e;

const ESCAPE: u8 = 0x1b;

/// The most bytes of sequences in a row that are looked at.
const MOST: usize = 256;

/// Takes colours off, once there is one beside a token of JSON or in a word. Those before that, as of a prompt, stay.
pub(super) struct Escapes {
    state: State,
    line: Line,
    in_string: bool,
    after_backslash: bool,
    /// The last byte that is no part of a sequence.
    last: u8,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// There was no colour of JSON yet.
    Looking,
    TakesOff,
    /// This is no text, and nothing is changed.
    Binary,
}

/// What the line has so far.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Line {
    Blank,
    Json,
    Other,
}

impl Rewrite for Escapes {
    fn rewrite(&mut self, raw: &[u8], at_end: bool, out: &mut Vec<u8>) -> usize {
        let mut at = 0;
        while at < raw.len() {
            let len = memchr2(ESCAPE, SEPARATOR, &raw[at..]).unwrap_or(raw.len() - at);
            let text = &raw[at..at + len];
            if self.state == State::Looking && !around::is_text(text) {
                self.state = State::Binary;
            }
            if self.state == State::Binary {
                out.extend_from_slice(&raw[at..]);
                return raw.len();
            }
            out.extend_from_slice(text);
            self.pass(text);
            at += len;
            let rest = &raw[at..];
            match rest.first() {
                None => break,
                Some(&SEPARATOR) if !self.in_string => {
                    out.push(b' ');
                    at += 1;
                    continue;
                }
                Some(_) => {}
            }
            let run = colours(rest);
            let next = rest.get(run);
            let is_open = run < MOST && next.is_none_or(|next| *next == ESCAPE && rest.len() - run < 40);
            if is_open && !at_end && rest[0] == ESCAPE {
                return at;
            }
            if run == 0 {
                out.push(rest[0]);
                at += 1;
                continue;
            }
            let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
            let in_word = is_word(self.last) && next.is_some_and(|next| is_word(*next));
            let begins = self.line == Line::Blank && matches!(next, Some(b'"' | b'{' | b'['));
            if self.in_string || in_word || begins || matches!(self.last, b'{' | b'[') {
                self.state = State::TakesOff;
            }
            match self.state {
                State::TakesOff if self.in_string || in_word => {}
                // What grep prints also erases the rest of the line.
                State::TakesOff
                    if self.line == Line::Json
                        || self.line == Line::Blank && begins_json(&rest[run..])
                        || rest[..run].contains(&b'K') =>
                {
                    out.resize(out.len() + run, b' ');
                }
                // The prefix of a line has colours of its own, which must be alike on all lines.
                State::TakesOff | State::Looking | State::Binary => out.extend_from_slice(&rest[..run]),
            }
            at += run;
        }
        at
    }
}

impl Escapes {
    pub(super) fn new() -> Self {
        Self { state: State::Looking, line: Line::Blank, in_string: false, after_backslash: false, last: b'\n' }
    }

    /// Goes on after text without sequences.
    fn pass(&mut self, text: &[u8]) {
        let Some(last) = text.last() else { return };
        self.last = *last;
        let mut rest = text;
        let start = memrchr(b'\n', text).map_or(0, |at| at + 1);
        if start > 0 {
            self.line = Line::Blank;
        }
        if self.line == Line::Blank && !text[start..].trim_ascii().is_empty() {
            self.line = if begins_json(text[start..].trim_ascii_start()) { Line::Json } else { Line::Other };
        }
        if self.line == Line::Other && text[start..].iter().any(|byte| matches!(byte, b'{' | b'[' | b'"')) {
            self.line = Line::Json;
        }
        if let Some(at) = memrchr(b'\n', text) {
            (self.in_string, self.after_backslash) = (false, false);
            rest = &text[at + 1..];
        }
        if std::mem::take(&mut self.after_backslash) {
            rest = rest.get(1..).unwrap_or_default();
        }
        while let Some(at) = memchr3(b'"', b'\\', b'\r', rest) {
            let mut len = at + 1;
            match rest[at] {
                b'"' => self.in_string = !self.in_string,
                b'\\' if self.in_string => {
                    len += 1;
                    self.after_backslash = len > rest.len();
                }
                _ => {}
            }
            rest = rest.get(len..).unwrap_or_default();
        }
    }
}

/// Whether a token of JSON is here, or white space before one.
fn begins_json(text: &[u8]) -> bool {
    let is_token = |byte: &u8| b"{}[]\",:-0123456789 \t\r\n".contains(byte);
    text.first().is_none_or(is_token) || [&b"true"[..], b"false", b"null"].iter().any(|word| text.starts_with(word))
}

/// The length of the sequences for colours at the start of the bytes.
fn colours(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(len) = escape_len(&bytes[at..]).filter(|_| at < MOST) {
        if !matches!(bytes[at + len - 1], b'm' | b'K') {
            break;
        }
        at += len;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::layers::tests::expect_rewritten;

    #[track_caller]
    fn expect(text: &str, expected: &str) {
        expect_rewritten(Escapes::new, text, expected);
    }

    #[test]
    fn colours_between_tokens_become_spaces_and_those_in_words_are_left_out() {
        expect("\x1b[1;39m{\x1b[0m\x1b[34;1m\"a\"\x1b[0m:", "       {           \"a\"    :");
        expect("{\"x\x1b[31m\x1b[Ky\x1b[m\x1b[K_z\\\"\x1b[1m\": 1\x1b[0m}", "{\"xy_z\\\"\": 1    }");
        // Those of a prefix stay, because they must be alike on all lines.
        expect("a\x1b[1mb\x1b[0m {", "ab\x1b[0m {");
        expect("\x1e{\"a\": 1}\n\x1e[]", " {\"a\": 1}\n []");
    }

    #[test]
    fn other_sequences_and_text_stay() {
        for text in [
            "\x1b[31mred\x1b[0m $ x\n",
            "\x1b[?2004hroot@a:/# x\n\x1b[?2004l\r",
            "\x1b]0;title\x07",
            "\x1b",
            "x\x1b[",
            "x\x1b[12;",
            "\0\x1b[1m{\x1b[0m\"a\"",
        ] {
            expect(text, text);
        }
        let long = "\x1b[1m".repeat(1000);
        expect(&format!("a {long}b"), &format!("a {long}b"));
    }
}
