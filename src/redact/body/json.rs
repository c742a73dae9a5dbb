//! Secrets in JSON.
//!
//! The tokens are looked at, not the grammar: any string that a colon follows is a name. What no JSON has makes all that
//! follows doubtful, since strings and what is between them may have changed places.

use std::ops::Range;

use super::text::{CLASS, Class, Mode, Out, Text, is_of_token, may_be_scheme, may_be_token};
use crate::redact::{
    Counts, Kind, mask,
    names::{self, MAX_NAME},
};

/// How deep arrays and objects are followed. What is deeper is doubtful.
const MAX_DEPTH: u32 = 128;

/// A buffer that has grown larger is given back.
const KEPT_CAPACITY: usize = 256;

/// What is being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Between,
    String(Literal),
    /// A number, `true`, `false`, `null`, or a name without quotation marks. Where it begins, if it is in this piece.
    Bare(Option<usize>),
    /// After a solidus, which may begin a comment.
    Solidus,
    LineComment,
    /// Whether an asterisk was the last byte.
    BlockComment(bool),
    /// Nothing is known any more.
    Doubt,
    /// It is text of another kind.
    Text,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Literal {
    mark: u8,
    masked: bool,
    /// Its text is needed.
    kept: bool,
    /// The scanner for text has seen a part of it.
    scanned: bool,
    escape: Escape,
}

/// How much of an escape is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Escape {
    None,
    Solidus,
    /// So many digits, and their value.
    Hex(u8, u16),
}

/// The last token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Last {
    /// An opening bracket, a comma, or nothing.
    Start,
    Colon,
    /// A string, which may be a name.
    Name,
    /// A number, `true`, `false`, `null`, or a name without quotation marks.
    Word,
    Value,
}

/// A member whose value is secret.
#[derive(Clone, Copy, Debug)]
struct Secret {
    depth: u32,
    counted: bool,
}

/// Takes the secrets out of JSON.
#[derive(Debug)]
pub(super) struct Json {
    /// It is known to be JSON, if it is anything.
    strict: bool,
    /// What it is if it is not JSON.
    other: Mode,
    state: State,
    last: Last,
    name: Vec<u8>,
    depth: u32,
    /// For each depth, the innermost last, whether it is an object.
    objects: u128,
    /// For each depth, whether a member `name` says that the member `value` is secret.
    pairs: u128,
    secret: Option<Secret>,
    /// The value is the name of a sibling.
    names_sibling: bool,
    text: Text,
}

impl Json {
    pub(super) fn new(strict: bool, other: Mode) -> Self {
        Self {
            strict,
            other,
            state: State::Between,
            last: Last::Start,
            name: Vec::new(),
            depth: 0,
            objects: 0,
            pairs: 0,
            secret: None,
            names_sibling: false,
            text: Text::new(Mode::Json, Kind::Json),
        }
    }

    pub(super) fn data(&mut self, bytes: &mut [u8], counts: &mut Counts) {
        let mut at = 0;
        let escaped = matches!(self.state, State::String(Literal { escape: Escape::Solidus, .. }));
        let mut out = Out { bytes, counts, json: true, escaped };
        while at < out.bytes.len() {
            at = match self.state {
                State::Between => self.between(at, &mut out),
                State::String(literal) if literal.masked => self.masked_string(at, literal, &mut out),
                State::String(literal) => self.string(at, literal, &mut out),
                State::Bare(start) => self.bare(at, start, &mut out),
                State::Solidus | State::LineComment | State::BlockComment(_) => self.comment(at, &mut out),
                State::Doubt => {
                    mask(&mut out.bytes[at..]);
                    out.bytes.len()
                }
                State::Text => {
                    self.text.data(&mut out.bytes[at..], out.counts);
                    out.bytes.len()
                }
            };
        }
        self.end_piece(&mut out);
    }

    fn end_piece(&mut self, out: &mut Out) {
        let end = out.bytes.len();
        if let State::String(literal) = self.state
            && literal.scanned
        {
            self.text.end_piece(end, out);
        }
        if self.name.capacity() > KEPT_CAPACITY && self.name.len() <= KEPT_CAPACITY {
            self.name.shrink_to(KEPT_CAPACITY);
        }
    }

    fn count(&mut self, out: &mut Out) {
        if let Some(secret) = &mut self.secret
            && !std::mem::replace(&mut secret.counted, true)
        {
            out.counts.add(Kind::Json, 1);
        }
    }

    /// What is at `at` is not JSON.
    fn doubt(&mut self, at: usize, out: &mut Out) -> usize {
        let in_secret = self.secret.is_some() || matches!(self.state, State::String(_)) && self.text.is_in_secret();
        if self.strict || in_secret {
            self.state = State::Doubt;
            out.counts.add(Kind::Json, 1);
        } else {
            self.text = Text::new(self.other, Kind::Text);
            // A name may end here.
            self.text.data(&mut self.name.clone(), &mut Counts::default());
            self.state = State::Text;
        }
        self.name = Vec::new();
        at
    }

    fn in_object(&self) -> bool {
        self.depth > 0 && self.objects & 1 == 1
    }

    /// Whether the string or the word that begins here may be a name.
    fn is_name(&self) -> bool {
        match self.last {
            Last::Colon => false,
            Last::Start => self.in_object() || self.depth == 0,
            Last::Name | Last::Word | Last::Value => self.depth == 0,
        }
    }

    /// Whether a token may follow that is no separator.
    fn may_begin(&self) -> bool {
        // At the top, one text may follow another.
        self.depth == 0 || matches!(self.last, Last::Start | Last::Colon)
    }

    fn between(&mut self, at: usize, out: &mut Out) -> usize {
        let byte = out.bytes[at];
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' => {}
            b',' => self.comma(),
            b':' => {
                if !matches!(self.last, Last::Name | Last::Word) {
                    return self.doubt(at, out);
                }
                self.colon();
            }
            b'{' | b'[' => {
                if !self.may_begin() || self.depth >= MAX_DEPTH {
                    return self.doubt(at, out);
                }
                self.depth += 1;
                self.objects = self.objects << 1 | u128::from(byte == b'{');
                self.pairs <<= 1;
                self.last = Last::Start;
                self.names_sibling = false;
            }
            b'}' | b']' => {
                if self.depth == 0 || self.in_object() != (byte == b'}') {
                    return self.doubt(at, out);
                }
                self.close();
            }
            b'"' | b'\'' => {
                if !self.may_begin() {
                    return self.doubt(at, out);
                }
                self.begin_string(byte);
            }
            b'/' => self.state = State::Solidus,
            _ => {
                if !self.may_begin() && self.secret.is_none() {
                    return self.doubt(at, out);
                }
                // Texts that follow each other are no two words, so this is none. The word may say that what follows is
                // secret, as in `[section]` before `password = x`, or as a scheme.
                let is_text = match self.last {
                    Last::Word => !is_literal(&self.name),
                    Last::Name => byte == b'=',
                    Last::Start | Last::Colon | Last::Value => false,
                };
                if self.depth == 0 && is_text {
                    self.name.push(b' ');
                    return self.doubt(at, out);
                }
                self.name.clear();
                self.state = State::Bare(Some(at));
                return at;
            }
        }
        at + 1
    }

    fn comma(&mut self) {
        if self.secret.is_some_and(|secret| secret.depth >= self.depth) {
            self.secret = None;
        }
        self.last = Last::Start;
    }

    fn close(&mut self) {
        if self.secret.is_some_and(|secret| secret.depth >= self.depth) {
            self.secret = None;
        }
        self.depth -= 1;
        self.objects >>= 1;
        self.pairs >>= 1;
        self.last = Last::Value;
        if self.depth == 0 {
            (self.objects, self.pairs) = (0, 0);
        }
    }

    fn colon(&mut self) {
        self.last = Last::Colon;
        if self.secret.is_none() {
            let is_long = self.name.len() > MAX_NAME;
            if is_long || names::is_secret(&self.name) || self.pairs & 1 == 1 && names::is_named_by_sibling(&self.name)
            {
                self.secret = Some(Secret { depth: self.depth, counted: false });
            }
            self.names_sibling = self.depth > 0 && names::names_sibling(&self.name);
        }
    }

    fn begin_string(&mut self, mark: u8) {
        let is_name = self.is_name();
        let masked = self.secret.is_some() && !is_name;
        let kept = is_name || self.names_sibling;
        if kept {
            self.name.clear();
        }
        let literal = Literal { mark, masked, kept, scanned: false, escape: Escape::None };
        self.state = State::String(literal);
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = (MAX_NAME + 1).saturating_sub(self.name.len());
        self.name.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn keep_range(&mut self, range: Range<usize>, out: &Out) {
        self.keep(out.bytes.get(range).unwrap_or_default());
    }

    fn end_string(&mut self, literal: Literal) {
        let is_name = self.is_name();
        if std::mem::take(&mut self.names_sibling) && self.last == Last::Colon && literal.kept {
            let is_long = self.name.len() > MAX_NAME;
            self.pairs = self.pairs & !1 | u128::from(is_long || names::is_secret(&self.name));
        }
        self.last = if is_name { Last::Name } else { Last::Value };
        self.state = State::Between;
    }

    fn masked_string(&mut self, at: usize, mut literal: Literal, out: &mut Out) -> usize {
        if literal.escape != Escape::None {
            literal.escape = Escape::None;
            mask(&mut out.bytes[at..=at]);
            self.state = State::String(literal);
            return at + 1;
        }
        let length = memchr::memchr2(literal.mark, b'\\', &out.bytes[at..]).unwrap_or(out.bytes.len() - at);
        let end = at + length;
        let last = out.bytes.get(end).copied();
        let masked_end = if last == Some(b'\\') { end + 1 } else { end };
        if masked_end > at {
            mask(&mut out.bytes[at..masked_end]);
            self.count(out);
        }
        if last == Some(b'\\') {
            literal.escape = Escape::Solidus;
            self.state = State::String(literal);
        } else if last.is_some() {
            self.end_string(literal);
        }
        end + usize::from(last.is_some())
    }

    fn string(&mut self, at: usize, mut literal: Literal, out: &mut Out) -> usize {
        if literal.escape != Escape::None {
            return self.escape(at, literal, out);
        }
        let (end, is_plain) = plain_end(&out.bytes[at..], literal.mark);
        let end = at + end;
        let last = out.bytes.get(end).copied();
        if literal.kept {
            self.keep_range(at..end, out);
        }
        if last != Some(literal.mark) || literal.scanned || !is_plain {
            self.scan(at..end, &mut literal, out);
        }
        match last {
            Some(b'\n') => {
                self.state = State::String(literal);
                return self.doubt(end, out);
            }
            Some(b'\\') => {
                literal.escape = Escape::Solidus;
                self.state = State::String(literal);
            }
            Some(_) => {
                if literal.scanned {
                    self.text.finish(end, out);
                }
                self.end_string(literal);
            }
            None => self.state = State::String(literal),
        }
        end + usize::from(last.is_some())
    }

    fn scan(&mut self, range: Range<usize>, literal: &mut Literal, out: &mut Out) {
        if !std::mem::replace(&mut literal.scanned, true) {
            self.text.reset();
        }
        self.text.span(range, out);
    }

    /// A byte of an escape after its reverse solidus.
    fn escape(&mut self, at: usize, mut literal: Literal, out: &mut Out) -> usize {
        let byte = out.bytes[at];
        let decoded = match (literal.escape, byte) {
            (Escape::Solidus, b'u') => {
                literal.escape = Escape::Hex(0, 0);
                None
            }
            (Escape::Solidus, b'n') => Some(b'\n'),
            (Escape::Solidus, b't') => Some(b'\t'),
            (Escape::Solidus, b'r') => Some(b'\r'),
            (Escape::Solidus, b'b' | b'f') => Some(b' '),
            (Escape::Solidus, _) => Some(byte),
            (Escape::Hex(digits, value), _) => match (byte as char).to_digit(16) {
                Some(digit) => {
                    let value = value << 4 | u16::try_from(digit).unwrap_or_default();
                    literal.escape = Escape::Hex(digits + 1, value);
                    // A character that is not ASCII is a part of a word.
                    (digits == 3).then(|| u8::try_from(value).unwrap_or(0x80))
                }
                None => return self.doubt(at, out),
            },
            (Escape::None, _) => None,
        };
        let Some(decoded) = decoded else {
            // A digit may be all that is left of a secret byte in this piece.
            if self.text.is_in_secret() && literal.scanned {
                self.hide_escape(at, out);
            }
            self.state = State::String(literal);
            return at + 1;
        };
        let length = if matches!(literal.escape, Escape::Hex(..)) { 6 } else { 2 };
        literal.escape = Escape::None;
        if literal.kept {
            self.keep(&[decoded]);
        }
        if !std::mem::replace(&mut literal.scanned, true) {
            self.text.reset();
        }
        self.text.byte(decoded, (at + 1).saturating_sub(length)..at + 1, out);
        self.state = State::String(literal);
        at + 1
    }

    /// The piece ends in an escape that may stand for a secret byte.
    fn hide_escape(&mut self, at: usize, out: &mut Out) {
        if at + 1 < out.bytes.len() {
            return;
        }
        let from = memchr::memrchr(b'\\', &out.bytes[at.saturating_sub(5)..at])
            .map_or(0, |from| at.saturating_sub(5) + from + 1);
        for (index, byte) in out.bytes[from..=at].iter_mut().enumerate() {
            *byte = if index == 0 && *byte == b'u' { b'/' } else { b'*' };
        }
    }

    fn bare(&mut self, at: usize, start: Option<usize>, out: &mut Out) -> usize {
        let is_end = |byte: &u8| {
            matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b',' | b':' | b'{' | b'}' | b'[' | b']' | b'"' | b'\'' | b'/')
        };
        let length = out.bytes[at..].iter().position(is_end).unwrap_or(out.bytes.len() - at);
        let end = at + length;
        let is_word =
            |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | b'+' | b'-' | b'.' | 0x80..);
        let is_name = self.is_name();
        self.keep_range(at..end, out);
        if self.secret.is_some() && !is_name {
            match start.filter(|_| end < out.bytes.len()) {
                Some(start) => self.mask_bare(start..end, out),
                // The beginning is in the piece before, or the end in the next. No secret can be told from `null`.
                None if b"null".starts_with(&self.name) => {}
                None => {
                    mask(&mut out.bytes[at..end]);
                    self.count(out);
                }
            }
        } else if let Some(other) = out.bytes[at..end].iter().position(|byte| !is_word(byte)).or_else(|| {
            // A JSON Web Token is text.
            memchr::memchr(b'.', &out.bytes[at..end]).filter(|_| self.may_have_token())
        }) {
            self.name.truncate(self.name.len().saturating_sub(length - other));
            return self.doubt(at + other, out);
        }
        match out.bytes.get(end) {
            None => {
                self.state = State::Bare(None);
                return end;
            }
            Some(b'"' | b'\'') if self.depth > 0 => return self.doubt(end, out),
            Some(_) => {}
        }
        self.names_sibling = false;
        self.last = if is_name { Last::Word } else { Last::Value };
        self.state = State::Between;
        end
    }

    /// Whether a JSON Web Token may begin in the word.
    fn may_have_token(&self) -> bool {
        let mut seconds = memchr::memchr2_iter(b'y', b'w', &self.name);
        self.name.len() > MAX_NAME || seconds.any(|second| may_be_token(&self.name, second))
    }

    /// Masks a number or a word, so that the JSON stays JSON.
    fn mask_bare(&mut self, range: Range<usize>, out: &mut Out) {
        let Some(token) = out.bytes.get_mut(range) else { return };
        match token {
            [] => return,
            _ if token == b"null" => return,
            [digit] => *digit = b'0',
            [first, between @ .., last] => {
                (*first, *last) = (b'"', b'"');
                mask(between);
            }
        }
        self.count(out);
    }

    /// Comments are no JSON, but many readers allow them. They are masked.
    fn comment(&mut self, at: usize, out: &mut Out) -> usize {
        let byte = out.bytes[at];
        match (self.state, byte) {
            (State::Solidus, b'/') => self.state = State::LineComment,
            (State::Solidus, b'*') => self.state = State::BlockComment(false),
            (State::Solidus, _) => {
                self.name.clear();
                return self.doubt(at, out);
            }
            (State::LineComment, b'\r' | b'\n') => self.state = State::Between,
            (State::BlockComment(true), b'/') => self.state = State::Between,
            (State::BlockComment(_), b'*') => self.state = State::BlockComment(true),
            _ => {
                out.bytes[at] = b'*';
                if matches!(self.state, State::BlockComment(_)) {
                    self.state = State::BlockComment(false);
                }
            }
        }
        at + 1
    }
}

/// Whether a word is a JSON text by itself.
fn is_literal(word: &[u8]) -> bool {
    matches!(word, b"true" | b"false" | b"null" | [b'0'..=b'9' | b'-', ..])
}

/// Where the plain bytes of a string end: at its end, an escape or a line's end. And whether there is no sign of a secret
/// among them.
fn plain_end(bytes: &[u8], mark: u8) -> (usize, bool) {
    let (mut is_plain, mut at) = (true, 0);
    while let Some(plain) = bytes[at..].iter().position(|byte| CLASS[usize::from(*byte)] != Class::Plain) {
        at += plain;
        let byte = bytes[at];
        match CLASS[usize::from(byte)] {
            Class::End if byte == mark || matches!(byte, b'\\' | b'\n') => return (at, is_plain),
            Class::Sign => is_plain = false,
            Class::Scheme => is_plain &= !may_be_scheme(&bytes[at..]),
            Class::Token => is_plain &= !is_of_token(bytes, at),
            Class::End | Class::Plain => {}
        }
        at += 1;
    }
    (bytes.len(), is_plain)
}
