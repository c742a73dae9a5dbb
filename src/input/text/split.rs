//! Finds where a message ends, or where the next one starts, without decoding anything.
//!
//! Messages are usually decoded in one pass without a search. Only a message that crosses the end of the window, and
//! the rest of a damaged one, are searched first, and no byte is searched twice.

use memchr::{memchr, memchr2};

use super::lexer::{is_word, kind_of, word_end};

/// The longest name in [`TraceKind::ALL`](crate::trace::TraceKind::ALL); a longer word cannot be one.
const LONGEST: usize = 29;

/// The state of a search.
#[derive(Debug)]
pub(super) struct Split {
    at: usize,
    /// Open braces and angle brackets. Square brackets do not matter, because the text in them is balanced.
    depth: usize,
    /// The message's own oneof field begins before `at`, so the next one is the next message.
    begun: bool,
    /// Whether the brace that closes the field is the end. After damage, braces cannot be trusted.
    to_end: bool,
    inside: Inside,
}

#[derive(Clone, Copy, Debug)]
enum Inside {
    Tokens,
    Comment,
    /// `body` is the first byte after the opening quote.
    String {
        quote: u8,
        body: usize,
    },
}

impl Split {
    /// Searches for the end of the field, from the start of a token at `at`, `depth` messages deep in it.
    pub(super) fn to_end(at: usize, depth: usize, begun: bool) -> Self {
        Self { at, depth, begun, to_end: true, inside: Inside::Tokens }
    }

    /// Searches for the next message after damage at `at`, `depth` messages deep.
    pub(super) fn to_next(at: usize, depth: usize) -> Self {
        Self { at, depth, begun: true, to_end: false, inside: Inside::Tokens }
    }

    /// Adjusts all offsets after the first `by` bytes of the window are given up.
    pub(super) fn shift(&mut self, by: usize) {
        self.at -= by;
        if let Inside::String { body, .. } = &mut self.inside {
            *body -= by;
        }
    }

    /// Forgets the part of `window` that was searched, and returns how long it is. The next window starts after it.
    pub(super) fn abandon(&mut self, window: &[u8]) -> usize {
        let keep_from = match &mut self.inside {
            // The byte before is kept, because it tells whether a line starts.
            Inside::Tokens => self.at.saturating_sub(1),
            Inside::Comment => self.at,
            Inside::String { body, .. } => {
                // Whether the next byte is escaped depends on how many backslashes stand before it.
                let escapes = window[*body..self.at].iter().rev().take_while(|&&byte| byte == b'\\').count();
                *body = self.at - escapes % 2;
                *body
            }
        };
        self.shift(keep_from);
        keep_from
    }

    /// Where the next message starts, or, for [`Split::to_end`], where this field ends if that comes first. A message
    /// starts with one of the four names, outside all braces or at the start of a line. Envoy indents nested lines, so
    /// the second rule finds a message after a lost closing brace.
    pub(super) fn find(&mut self, window: &[u8], at_end: bool) -> Option<usize> {
        loop {
            match self.inside {
                Inside::Tokens => {
                    if let Some(found) = self.tokens(window, at_end)? {
                        return Some(found);
                    }
                }
                Inside::Comment => {
                    let Some(newline) = memchr(b'\n', &window[self.at..]) else {
                        self.at = window.len();
                        return None;
                    };
                    self.at += newline;
                    self.inside = Inside::Tokens;
                }
                Inside::String { quote, body } => {
                    // A string cannot hold a line feed, so one that does was damaged and ends there.
                    let Some(stop) = memchr2(quote, b'\n', &window[self.at..]) else {
                        self.at = window.len();
                        return None;
                    };
                    self.at += stop;
                    let is_newline = window[self.at] == b'\n';
                    let escapes = window[body..self.at].iter().rev().take_while(|&&byte| byte == b'\\').count();
                    if is_newline || escapes % 2 == 0 {
                        self.inside = Inside::Tokens;
                    }
                    // The line feed itself is not skipped, so that the next token is known to start a line.
                    self.at += usize::from(!is_newline);
                }
            }
        }
    }

    /// `None`: the window ends. `Some(None)`: a string or a comment starts. Otherwise, the offset that was searched
    /// for.
    #[expect(clippy::option_option, reason = "lets `find` leave with `?`")]
    fn tokens(&mut self, window: &[u8], at_end: bool) -> Option<Option<usize>> {
        while let Some(&byte) = window.get(self.at) {
            match byte {
                b'{' | b'<' => self.depth += 1,
                b'}' | b'>' => {
                    let was_open = self.depth > 0;
                    self.depth = self.depth.saturating_sub(1);
                    if self.to_end && was_open && self.depth == 0 {
                        self.at += 1;
                        return Some(Some(self.at));
                    }
                }
                b'#' => {
                    self.inside = Inside::Comment;
                    return Some(None);
                }
                b'"' | b'\'' => {
                    self.at += 1;
                    self.inside = Inside::String { quote: byte, body: self.at };
                    return Some(None);
                }
                _ if is_word(byte) && (self.depth == 0 || self.at == 0 || window[self.at - 1] == b'\n') => {
                    let end = word_end(window, self.at);
                    if end == window.len() && !at_end {
                        // More of the word may follow. If it is too long already, only enough of it to tell is kept.
                        self.at = self.at.max(end.saturating_sub(LONGEST + 1));
                        return None;
                    }
                    if kind_of(&window[self.at..end]).is_some() {
                        if self.begun {
                            return Some(Some(self.at));
                        }
                        self.begun = true;
                    }
                    self.at = end;
                    continue;
                }
                _ => {}
            }
            self.at += 1;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::TraceKind;

    #[test]
    fn longest_is_the_longest_name() {
        assert_eq!(TraceKind::ALL.iter().map(|kind| kind.field_name().len()).max(), Some(LONGEST));
    }

    /// Searches `text` at once and byte by byte, which must give the same result.
    fn find(text: &[u8], split: impl Fn() -> Split) -> Option<usize> {
        let whole = split().find(text, true);
        let mut split = split();
        let found = (0..=text.len()).find_map(|end| split.find(&text[..end], end == text.len()));
        assert_eq!(found, whole, "{}", text.escape_ascii());
        whole
    }

    #[test]
    fn the_next_message_is_found_however_the_bytes_arrive() {
        let texts: [&[u8]; 6] = [
            b" { a: \"}\\\"{\" # { \n b: '\\\\' } x: 1 socket_buffered_trace",
            b" { a { b <\nsocket_streamed_trace_segment {",
            b" { a: \"not closed\n} socket_buffered_trace {",
            b" { a: \"\\\nsocket_buffered_trace {",
            b" {}} aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaasocket_buffered_trace http_buffered_trace",
            b"x { socket_buffered_trace {} } { } http_buffered_trace {}",
        ];
        for text in texts {
            let last = text.windows(6).rposition(|six| six == b"socket" || six == b"http_b");
            assert_eq!(find(text, || Split::to_next(0, 0)), last, "{}", text.escape_ascii());
        }
    }

    #[test]
    fn the_end_is_found_however_the_bytes_arrive() {
        let texts: [(&[u8], &[u8]); 5] = [
            (b"socket_buffered_trace { a: \"}\\\"{\" # { \n b: '\\\\' }", b" socket_buffered_trace { }"),
            (b"socket_buffered_trace < a { b <> > >", b"}"),
            (b"socket_buffered_trace ", b"http_buffered_trace {}"),
            (b"socket_buffered_trace { a {\n", b"socket_buffered_trace {}"),
            (b"x { socket_buffered_trace {} }", b" { } http_buffered_trace {}"),
        ];
        for (field, rest) in texts {
            let text = [field, rest].concat();
            assert_eq!(find(&text, || Split::to_end(0, 0, false)), Some(field.len()), "{}", text.escape_ascii());
        }
    }
}
