//! The tokens of the protobuf text format, and the values that need no schema.
//!
//! `pos` moves only after whole tokens. So when reading stops, a [`Split`](super::split::Split) can go on from `pos`
//! and from `depth`.

use memchr::{memchr, memchr3};

use super::unescape::{BadLiteral, unescape};
use crate::trace::{TextFault, TextItem, TraceKind};

/// The deepest nesting of messages. Protobuf's own parsers have the same limit.
pub(super) const MAX_DEPTH: usize = 100;
/// The most bytes of the text that a fault quotes.
const QUOTED: usize = 20;
const SPACES: u64 = u64::from_ne_bytes([b' '; 8]);

/// Why reading stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LexerStop {
    /// The window ends.
    End,
    /// The text is wrong; [`Lexer::fault`] says where and how.
    Bad,
}

pub(super) type Parse<T> = Result<T, LexerStop>;

/// The contents of a string.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct StringContents {
    /// Where they start, in the window or in the scratch space.
    pub(super) start: usize,
    /// Their length in the window. In the scratch space, they go to its end.
    pub(super) len: usize,
    pub(super) in_scratch: bool,
    /// The window ended before the closing quote.
    pub(super) open: bool,
}

/// An integer of any width.
#[derive(Clone, Copy, Debug)]
pub(super) struct Integer {
    at: usize,
    pub(super) negative: bool,
    /// `None` if it needs more than 64 bits.
    pub(super) magnitude: Option<u64>,
}

impl Integer {
    /// As a signed number, or the nearest one.
    pub(super) fn saturate_i64(self) -> i64 {
        let magnitude = self.magnitude.unwrap_or(u64::MAX);
        if self.negative { 0i64.saturating_sub_unsigned(magnitude) } else { 0i64.saturating_add_unsigned(magnitude) }
    }

    /// As a port. A number that does not fit becomes the largest one, which is not a valid port either.
    pub(super) fn saturate_u32(self) -> u32 {
        match self.magnitude {
            Some(0) => 0,
            Some(value) if !self.negative => u32::try_from(value).unwrap_or(u32::MAX),
            _ => u32::MAX,
        }
    }
}

pub(super) struct Lexer<'a> {
    pub(super) window: &'a [u8],
    pub(super) pos: usize,
    pub(super) depth: usize,
    /// No bytes will follow the window.
    pub(super) at_end: bool,
    /// The reason for [`LexerStop::Bad`]: an offset in the window, and what is wrong there.
    pub(super) fault: Option<(usize, TextFault)>,
    /// A message was opened and no field of it read yet, so a separator is not allowed.
    fresh: bool,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(window: &'a [u8], pos: usize, at_end: bool) -> Self {
        Self { window, pos, depth: 0, at_end, fault: None, fresh: true }
    }

    #[cold]
    pub(super) fn bad<T>(&mut self, at: usize, fault: TextFault) -> Parse<T> {
        self.fault = Some((at, fault));
        Err(LexerStop::Bad)
    }

    #[cold]
    pub(super) fn expected<T>(&mut self, wanted: TextItem) -> Parse<T> {
        self.expected_at(self.pos, wanted)
    }

    /// Quotes the token at `at`, or as much of it as a fault should show.
    #[cold]
    fn expected_at<T>(&mut self, at: usize, wanted: TextItem) -> Parse<T> {
        let end = word_end(self.window, at).clamp(at + 1, at + QUOTED).min(self.window.len());
        self.bad(at, TextFault::Expected { wanted, found: self.window[at.min(end)..end].into() })
    }

    /// The first byte of the next token.
    #[inline]
    pub(super) fn peek(&mut self) -> Parse<u8> {
        self.skip_blank()?;
        self.window.get(self.pos).copied().ok_or(LexerStop::End)
    }

    /// Skips white space and comments.
    #[inline]
    pub(super) fn skip_blank(&mut self) -> Parse<()> {
        while let Some(&byte) = self.window.get(self.pos) {
            match byte {
                b' ' => {
                    // Skips Envoy's indentation up to eight blanks at a time.
                    self.pos += match self.window[self.pos..].first_chunk() {
                        Some(chunk) => (u64::from_le_bytes(*chunk) ^ SPACES).trailing_zeros() as usize / 8,
                        None => 1,
                    };
                }
                b'\n' | b'\t' | b'\r' | 0x0b | 0x0c => self.pos += 1,
                b'#' => match memchr(b'\n', &self.window[self.pos..]) {
                    Some(newline) => self.pos += newline + 1,
                    None if self.at_end => self.pos = self.window.len(),
                    None => return Err(LexerStop::End),
                },
                _ => break,
            }
        }
        Ok(())
    }

    /// Checks that the token before `end` is whole. One that touches the end of the window may go on after it. If
    /// nothing follows the window, it is whole only outside all messages: inside one, the closing brace is missing
    /// anyway.
    #[inline]
    fn whole(&self, end: usize) -> Parse<()> {
        if end == self.window.len() && !(self.at_end && self.depth == 0) { Err(LexerStop::End) } else { Ok(()) }
    }

    /// The next field's name within a message that `close` ends, or `None` after `close`.
    #[inline]
    pub(super) fn next(&mut self, close: u8) -> Parse<Option<&'a [u8]>> {
        let mut byte = self.peek()?;
        if matches!(byte, b',' | b';') && !self.fresh {
            self.pos += 1;
            byte = self.peek()?;
        }
        self.fresh = false;
        if byte == close {
            self.pos += 1;
            self.depth -= 1;
            return Ok(None);
        }
        if is_word(byte) || byte == b'[' {
            return self.name().map(Some);
        }
        self.expected(TextItem::FieldNameOrEnd { angle: close == b'>' })
    }

    /// A field's name: a word, `[an.extension]`, or the number by which a printer names a field it does not know.
    #[inline]
    pub(super) fn name(&mut self) -> Parse<&'a [u8]> {
        let byte = self.peek()?;
        if !is_word(byte) {
            return if byte == b'[' { self.extension_name() } else { self.expected(TextItem::FieldName) };
        }
        let end = word_end(self.window, self.pos);
        if end == self.window.len() {
            return Err(LexerStop::End);
        }
        let name = &self.window[self.pos..end];
        if byte.is_ascii_digit() && !name.iter().all(u8::is_ascii_digit) {
            return self.expected(TextItem::FieldName);
        }
        self.pos = end;
        Ok(name)
    }

    fn extension_name(&mut self) -> Parse<&'a [u8]> {
        // Names of extensions have dots. Names of Any types also have other characters of a URL.
        let inner = &self.window[self.pos + 1..];
        let is_part = |&byte: &u8| {
            is_word(byte) || byte.is_ascii_whitespace() || matches!(byte, b'.' | b'/' | b'-' | b'%' | b'~' | b'+')
        };
        let len = inner.iter().take_while(|byte| is_part(byte)).count();
        let end = self.pos + 1 + len;
        match inner.get(len) {
            None => Err(LexerStop::End),
            Some(b']') if inner[..len].iter().any(|&byte| is_word(byte)) => {
                let name = &self.window[self.pos..=end];
                self.pos = end + 1;
                Ok(name)
            }
            Some(_) => self.expected_at(end, TextItem::ExtensionName),
        }
    }

    /// Opens the message that is a field's value, and returns the byte that will close it.
    #[inline]
    pub(super) fn open(&mut self) -> Parse<u8> {
        if self.peek()? == b':' {
            self.pos += 1;
        }
        self.open_bare()
    }

    /// Opens a message without a colon before it.
    #[inline]
    pub(super) fn open_bare(&mut self) -> Parse<u8> {
        let close = match self.peek()? {
            b'{' => b'}',
            b'<' => b'>',
            _ => return self.expected(TextItem::Message),
        };
        if self.depth == MAX_DEPTH {
            return self.bad(self.pos, TextFault::Depth { limit: MAX_DEPTH });
        }
        self.pos += 1;
        self.depth += 1;
        self.fresh = true;
        Ok(close)
    }

    /// Goes on at `end`, after a message that the fast path has read.
    #[inline]
    pub(super) fn step_over(&mut self, end: usize) {
        self.pos = end;
        self.fresh = false;
    }

    /// Steps to the next element of a list in square brackets, or after its end. Returns whether there is another one.
    pub(super) fn element(&mut self, first: bool) -> Parse<bool> {
        match self.peek()? {
            b']' => {
                self.pos += 1;
                Ok(false)
            }
            _ if first => Ok(true),
            b',' => {
                self.pos += 1;
                if self.peek()? == b']' { self.expected(TextItem::Value) } else { Ok(true) }
            }
            _ => self.expected(TextItem::CommaOrEnd),
        }
    }

    #[inline]
    pub(super) fn colon(&mut self) -> Parse<()> {
        if self.peek()? != b':' {
            return self.expected(TextItem::Colon);
        }
        self.pos += 1;
        Ok(())
    }

    /// An integer: decimal, octal after `0`, hexadecimal after `0x`.
    #[inline]
    pub(super) fn integer(&mut self) -> Parse<Integer> {
        let negative = self.peek()? == b'-';
        let at = self.pos;
        if negative {
            self.pos += 1;
            self.peek()?;
        }
        let end = word_end(self.window, self.pos);
        self.whole(end)?;
        let word = &self.window[self.pos..end];
        let (digits, radix) = match word {
            [b'0', b'x' | b'X', digits @ ..] => (digits, 16),
            [b'0', digits @ ..] if !digits.is_empty() => (digits, 8),
            digits => (digits, 10),
        };
        let is_digit = |byte: &u8| char::from(*byte).is_digit(radix);
        if digits.is_empty() || !digits.iter().all(is_digit) || self.window.get(end) == Some(&b'.') {
            return self.expected(TextItem::Integer);
        }
        let magnitude = digits.iter().try_fold(0u64, |value, &digit| {
            value.checked_mul(u64::from(radix))?.checked_add(u64::from(char::from(digit).to_digit(radix)?))
        });
        self.pos = end;
        Ok(Integer { at, negative, magnitude })
    }

    /// The value of a `uint64` field.
    #[inline]
    pub(super) fn uint64(&mut self) -> Parse<u64> {
        self.colon()?;
        let integer = self.integer()?;
        match integer.magnitude {
            Some(0) => Ok(0),
            Some(value) if !integer.negative => Ok(value),
            _ => self.bad(integer.at, TextFault::Unsigned(self.quote_number(integer))),
        }
    }

    fn quote_number(&self, integer: Integer) -> Box<[u8]> {
        let end = self.pos.min(integer.at + QUOTED);
        self.window[integer.at..end].into()
    }

    /// The value of a `bool` field.
    pub(super) fn boolean(&mut self) -> Parse<bool> {
        self.colon()?;
        self.peek()?;
        let end = word_end(self.window, self.pos);
        self.whole(end)?;
        let value = match &self.window[self.pos..end] {
            b"true" | b"True" | b"t" => true,
            b"false" | b"False" | b"f" => false,
            [b'0'..=b'9', ..] => {
                let at = self.pos;
                let integer = self.integer()?;
                return match integer.magnitude {
                    Some(0) => Ok(false),
                    Some(1) => Ok(true),
                    _ => self.bad(at, TextFault::Bool(self.quote_number(integer))),
                };
            }
            _ => return self.expected(TextItem::Bool),
        };
        self.pos = end;
        Ok(value)
    }

    /// Reads the value of a `string` or `bytes` field. Even after an error, `text` is what was readable.
    #[inline]
    pub(super) fn string(&mut self, scratch: &mut Vec<u8>, text: &mut StringContents) -> Parse<()> {
        self.colon()?;
        self.peek()?;
        self.literals(scratch, text)
    }

    /// Reads one or more literals, which make one string.
    fn literals(&mut self, scratch: &mut Vec<u8>, text: &mut StringContents) -> Parse<()> {
        let Some(&quote @ (b'"' | b'\'')) = self.window.get(self.pos) else {
            return self.expected(TextItem::String);
        };
        let body = self.pos + 1;
        *text = StringContents { start: body, len: 0, in_scratch: false, open: true };
        let Some(len) = memchr3(quote, b'\\', b'\n', &self.window[body..]) else {
            text.len = self.window.len() - body;
            return Err(LexerStop::End);
        };
        text.len = len;
        if self.window[body + len] == quote {
            self.pos = body + len + 1;
        } else {
            self.move_to_scratch(scratch, text);
            self.pos = self.unescape(quote, body + len, scratch)?;
        }
        text.open = false;
        loop {
            self.skip_blank()?;
            match self.window.get(self.pos) {
                Some(&quote @ (b'"' | b'\'')) => {
                    self.move_to_scratch(scratch, text);
                    text.open = true;
                    self.pos = self.unescape(quote, self.pos + 1, scratch)?;
                    text.open = false;
                }
                Some(_) => return Ok(()),
                None => return self.whole(self.pos),
            }
        }
    }

    fn move_to_scratch(&self, scratch: &mut Vec<u8>, text: &mut StringContents) {
        if !text.in_scratch {
            let start = scratch.len();
            scratch.extend_from_slice(&self.window[text.start..text.start + text.len]);
            *text = StringContents { start, in_scratch: true, ..*text };
        }
    }

    fn unescape(&mut self, quote: u8, from: usize, scratch: &mut Vec<u8>) -> Parse<usize> {
        match unescape(self.window, quote, from, scratch) {
            Ok(Some(end)) => Ok(end),
            Ok(None) => Err(LexerStop::End),
            Err(BadLiteral { at, fault }) => self.bad(at, fault),
        }
    }

    /// Skips the value of a scalar field that is known but not needed.
    pub(super) fn skip_field(&mut self) -> Parse<()> {
        self.colon()?;
        self.peek()?;
        self.skip_scalar()
    }

    /// Skips the value of a message field that is known but not needed.
    pub(super) fn skip_message(&mut self) -> Parse<()> {
        let close = self.open()?;
        self.skip_fields(close)
    }

    /// Skips a field's value of any type.
    pub(super) fn skip_value(&mut self) -> Parse<()> {
        let colon = self.peek()? == b':';
        if colon {
            self.pos += 1;
        }
        if self.peek()? != b'[' {
            return self.skip_element(colon);
        }
        self.pos += 1;
        let mut first = true;
        while self.element(first)? {
            self.skip_element(colon)?;
            first = false;
        }
        Ok(())
    }

    fn skip_element(&mut self, colon: bool) -> Parse<()> {
        match self.peek()? {
            b'{' | b'<' => {
                let close = self.open_bare()?;
                self.skip_fields(close)
            }
            _ if colon => self.skip_scalar(),
            _ => self.expected(TextItem::ColonOrMessage),
        }
    }

    fn skip_fields(&mut self, close: u8) -> Parse<()> {
        while let Some(name) = self.next(close)? {
            self.refuse_top_level(name)?;
            self.skip_value()?;
        }
        Ok(())
    }

    /// Refuses the name of a trace in the first column inside a message. Envoy indents the fields of a message, so such
    /// a name shows that the message before it was never closed. If it passed for a field of that message, the rest of
    /// the source would be swallowed.
    pub(super) fn refuse_top_level(&mut self, name: &[u8]) -> Parse<()> {
        let at = self.pos - name.len();
        let first_column = at.checked_sub(1).is_none_or(|before| self.window[before] == b'\n');
        if self.depth == 0 || !first_column || kind_of(name).is_none() {
            return Ok(());
        }
        self.pos = at;
        self.expected(TextItem::EndOfMessage)
    }

    fn skip_scalar(&mut self) -> Parse<()> {
        match self.window.get(self.pos) {
            Some(b'"' | b'\'') => return self.skip_literals(),
            Some(b'-') => {
                self.pos += 1;
                self.peek()?;
            }
            _ => {}
        }
        let end = scalar_end(self.window, self.pos);
        self.whole(end)?;
        let word = &self.window[self.pos..end];
        let fine = match word.first() {
            Some(b'0'..=b'9' | b'.') => is_number(word),
            Some(_) => word.iter().all(|&byte| is_word(byte)),
            None => false,
        };
        if !fine {
            return self.expected(TextItem::Value);
        }
        self.pos = end;
        Ok(())
    }

    fn skip_literals(&mut self) -> Parse<()> {
        // This unescapes contents that nobody needs, but unknown fields are rare.
        self.literals(&mut Vec::new(), &mut StringContents::default())
    }
}

/// Whether each byte belongs to a word. It is a table, because words are most of the text outside payloads.
static WORD: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 128u8 {
        table[byte as usize] = byte.is_ascii_alphanumeric() || byte == b'_';
        byte += 1;
    }
    table
};

/// The oneof field of `TraceWrapper` with this name. Each starts a message.
pub(super) fn kind_of(name: &[u8]) -> Option<TraceKind> {
    TraceKind::ALL.into_iter().find(|kind| kind.field_name().as_bytes() == name)
}

/// Letters, digits and `_`.
#[inline]
pub(super) fn is_word(byte: u8) -> bool {
    WORD[usize::from(byte)]
}

/// The end of the word that starts at `from`; `from` itself if there is none.
#[inline]
pub(super) fn word_end(window: &[u8], from: usize) -> usize {
    let mut end = from;
    while window.get(end).is_some_and(|&byte| is_word(byte)) {
        end += 1;
    }
    end
}

/// The end of a number or word, with the dot and the exponent's sign that a number may have.
fn scalar_end(window: &[u8], from: usize) -> usize {
    let is_number = window.get(from).is_some_and(|byte| byte.is_ascii_digit() || *byte == b'.');
    if !is_number {
        return word_end(window, from);
    }
    let is_hex = matches!(window.get(from + 1), Some(b'x' | b'X'));
    let mut end = from;
    while let Some(&byte) = window.get(end) {
        let signed = !is_hex && end > from && matches!(window[end - 1], b'e' | b'E');
        if !(is_word(byte) || byte == b'.' || signed && matches!(byte, b'+' | b'-')) {
            break;
        }
        end += 1;
    }
    end
}

/// Whether `word` is a valid unsigned number: an integer, or a float such as `1.5e-3f`.
fn is_number(word: &[u8]) -> bool {
    if let [b'0', b'x' | b'X', digits @ ..] = word {
        return !digits.is_empty() && digits.iter().all(u8::is_ascii_hexdigit);
    }
    let run = |from: usize| word[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let whole = run(0);
    let mut at = whole;
    let mut digits = whole;
    if word.get(at) == Some(&b'.') {
        let fraction = run(at + 1);
        at += 1 + fraction;
        digits += fraction;
    }
    if digits == 0 {
        return false;
    }
    if matches!(word.get(at), Some(b'e' | b'E')) {
        at += 1 + usize::from(matches!(word.get(at + 1), Some(b'+' | b'-')));
        let exponent = run(at);
        if exponent == 0 {
            return false;
        }
        at += exponent;
    }
    if matches!(word.get(at), Some(b'f' | b'F')) {
        at += 1;
    }
    // A leading zero makes an integer octal, and is not allowed in a float.
    let octal = whole < 2 || word[0] != b'0' || at == whole && word[..whole].iter().all(|digit| *digit < b'8');
    at == word.len() && octal
}
