//! A trace in HTML or XML, where entities stand for its quotes, and for the marks of a mail that quotes it.

use memchr::{memchr, memrchr};

use super::rewritten::Rewrite;
use crate::input::around;

/// No entity is longer that stands for a character of JSON.
const MOST: usize = 10;

/// How far the name of a trace and its quotes reach.
const MOST_NAME: usize = 64;

/// The most bytes of a line that are kept.
const MOST_LINE: usize = 128;

/// Replaces entities from the first one on that is the quote of a trace's name, or of a field in the text format. Before
/// that, only those that stand for a `>` at the start of a line are replaced: the prefix of a trace is the same on all of
/// its lines, and the first of them may be long before the first quote.
pub(super) struct Entities {
    state: State,
    /// The beginning of the line so far.
    line: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Looking,
    Replaces,
    Binary,
}

impl Rewrite for Entities {
    fn rewrite(&mut self, raw: &[u8], at_end: bool, out: &mut Vec<u8>) -> usize {
        let mut at = 0;
        while at < raw.len() {
            let len = memchr(b'&', &raw[at..]).unwrap_or(raw.len() - at);
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
            let needed = if self.state == State::Looking { MOST_NAME } else { MOST };
            if rest.is_empty() || rest.len() < needed && !at_end {
                return at;
            }
            let found = entity(rest);
            if self.state == State::Looking && found.is_some_and(|(char, _)| char == '"') && self.begins(rest) {
                self.state = State::Replaces;
            }
            let is_mark = |(char, _): &(char, usize)| *char == '>' && self.after_marks().is_empty();
            match found.filter(|found| self.state == State::Replaces || is_mark(found)) {
                Some((char, len)) => {
                    let mut buffer = [0; 4];
                    let char = char.encode_utf8(&mut buffer).as_bytes();
                    out.extend_from_slice(char);
                    self.pass(char);
                    at += len;
                }
                None => {
                    out.push(b'&');
                    self.pass(b"&");
                    at += 1;
                }
            }
        }
        at
    }
}

impl Entities {
    pub(super) fn new() -> Self {
        Self { state: State::Looking, line: Vec::new() }
    }

    fn pass(&mut self, text: &[u8]) {
        if self.state == State::Replaces {
            return;
        }
        let mut rest = text;
        if let Some(at) = memrchr(b'\n', text) {
            self.line.clear();
            rest = &text[at + 1..];
        }
        let room = MOST_LINE - self.line.len();
        self.line.extend_from_slice(&rest[..rest.len().min(room)]);
    }

    /// The line so far, without the marks of a quotation before it.
    fn after_marks(&self) -> &[u8] {
        let marks = self.line.iter().take_while(|byte| matches!(byte, b'>' | b' ' | b'\t')).count();
        &self.line[marks..]
    }

    /// Whether a trace's name is quoted here, or a value in the text format.
    fn begins(&self, rest: &[u8]) -> bool {
        let Some((_, len)) = entity(rest) else { return false };
        let name = &rest[len..];
        let end = name.iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count();
        let is_key = around::is_key(&name[..end]) && entity(&name[end..]).is_some_and(|(char, _)| char == '"');
        let field = self.after_marks().strip_suffix(b": ");
        is_key
            || field.is_some_and(|field| {
                !field.is_empty() && field.iter().all(|byte| byte.is_ascii_lowercase() || *byte == b'_')
            })
    }
}

/// The character that an entity at the start of the bytes stands for, and its length.
fn entity(bytes: &[u8]) -> Option<(char, usize)> {
    let name = bytes.strip_prefix(b"&")?;
    let end = name.iter().take(MOST).position(|byte| *byte == b';')?;
    let number = |digits: &[u8], radix| u32::from_str_radix(str::from_utf8(digits).ok()?, radix).ok();
    let char = match &name[..end] {
        b"quot" => '"',
        b"amp" => '&',
        b"lt" => '<',
        b"gt" => '>',
        b"apos" => '\'',
        b"nbsp" => ' ',
        [b'#', b'x' | b'X', digits @ ..] => char::from_u32(number(digits, 16)?)?,
        [b'#', digits @ ..] => char::from_u32(number(digits, 10)?)?,
        _ => return None,
    };
    Some((char, end + 2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::layers::tests::expect_rewritten;

    #[track_caller]
    fn expect(text: &str, expected: &str) {
        expect_rewritten(Entities::new, text, expected);
    }

    #[test]
    fn entities_are_replaced_from_a_traces_name_on() {
        expect(
            "a &amp; b <pre>{&quot;http_buffered_trace&quot;: {&#34;x&#x22;: &quot;&amp;quot;&lt;&nbsp;&foo;&#39;",
            "a &amp; b <pre>{\"http_buffered_trace\": {\"x\": \"&quot;< &foo;'",
        );
        expect(
            "socket_buffered_trace {\n  address: &quot;a&quot;\n  x: &#34;b&",
            "socket_buffered_trace {\n  address: \"a\"\n  x: \"b&",
        );
    }

    #[test]
    fn the_marks_of_a_quotation_are_replaced_from_the_start() {
        expect(
            "&gt; socket_buffered_trace {\n&gt; &gt;  x: &quot;a&gt;&quot;\n&gt; }\n",
            "> socket_buffered_trace {\n> >  x: \"a>\"\n> }\n",
        );
        expect("&gt; a &gt; b\n&gt;&gt;c\na&gt;", "> a &gt; b\n>>c\na&gt;");
    }

    #[test]
    fn other_entities_stay() {
        for text in [
            "&quot;a&quot;",
            "{&quot;http_buffered_traces&quot;: {}}",
            "the &quot;http_buffered_trace&quot",
            "\0{&quot;http_buffered_trace&quot;: {}}",
            "&",
            "&#xffffffff; &#99999999; &#; &#x;",
            "He said: &quot;no&quot;",
        ] {
            expect(text, text);
        }
    }
}
