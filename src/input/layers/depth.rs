//! How deep the lines of a trace are in its braces.

/// Counts the braces and brackets of JSON or of protobuf's text format, outside of strings and comments.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Depth {
    depth: usize,
    /// The quote of the string that is open.
    quote: Option<u8>,
    after_backslash: bool,
    in_comment: bool,
    /// The format has comments, and strings in single quotes.
    is_text: bool,
}

impl Depth {
    pub(super) fn new(is_text: bool) -> Self {
        Self { is_text, ..Self::default() }
    }

    /// Whether a trace is open.
    pub(super) fn is_open(&self) -> bool {
        self.depth > 0
    }

    pub(super) fn in_string(&self) -> bool {
        self.quote.is_some()
    }

    /// Goes on with `text`, and returns where the last open brace is closed.
    pub(super) fn pass(&mut self, text: &[u8]) -> Option<usize> {
        let mut at = 0;
        while at < text.len() {
            if let (Some(quote), false) = (self.quote, self.after_backslash) {
                // Strings are most of a trace.
                match memchr::memchr3(quote, b'\\', b'\n', &text[at..]) {
                    Some(plain) => at += plain,
                    None => return None,
                }
            }
            let byte = text[at];
            at += 1;
            if byte == b'\n' {
                // Neither a string nor a comment goes on after its line.
                (self.quote, self.after_backslash, self.in_comment) = (None, false, false);
            } else if self.after_backslash {
                self.after_backslash = false;
            } else if let Some(quote) = self.quote {
                self.after_backslash = byte == b'\\';
                if byte == quote {
                    self.quote = None;
                }
            } else if !self.in_comment {
                match byte {
                    b'"' => self.quote = Some(byte),
                    b'\'' if self.is_text => self.quote = Some(byte),
                    b'#' if self.is_text => self.in_comment = true,
                    b'{' | b'[' => self.depth += 1,
                    b'<' if self.is_text => self.depth += 1,
                    b'}' | b']' => {
                        self.depth = self.depth.saturating_sub(1);
                        if self.depth == 0 {
                            return Some(at);
                        }
                    }
                    b'>' if self.is_text => self.depth = self.depth.saturating_sub(1),
                    _ => {}
                }
            }
        }
        None
    }
}
