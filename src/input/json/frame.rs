//! Finds where objects begin and end, without decoding them.

use memchr::{memchr, memchr_iter, memchr2};

use super::is_space;

/// Finds the end of the object at the start of a text, which may grow between calls.
#[derive(Debug, Default)]
struct Splitter {
    looked: usize,
    depth: usize,
    in_string: bool,
    after_backslash: bool,
}

impl Splitter {
    /// The offset after the closing brace. `text` is what the last call saw, plus the bytes that have arrived since.
    fn find_end(&mut self, text: &[u8]) -> Option<usize> {
        while self.looked < text.len() {
            if self.in_string && !self.after_backslash {
                match memchr2(b'"', b'\\', &text[self.looked..]) {
                    Some(skipped) => self.looked += skipped,
                    None => {
                        self.looked = text.len();
                        return None;
                    }
                }
            }
            let byte = text[self.looked];
            self.looked += 1;
            if self.in_string {
                self.in_string = self.after_backslash || byte != b'"';
                self.after_backslash = !self.after_backslash && byte == b'\\';
                continue;
            }
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == 0 {
                        return Some(self.looked);
                    }
                }
                _ => {}
            }
        }
        None
    }
}

/// What a [`Search`] finds first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// The end of the object.
    End(usize),
    /// What looks like the start of another object.
    Next(usize),
}

impl Found {
    /// The offset where reading can go on.
    pub(super) fn offset(self) -> usize {
        match self {
            Self::End(offset) | Self::Next(offset) => offset,
        }
    }
}

/// The search for the end of an object, or for the next object: a line that starts with a brace, or a brace before a
/// field of `TraceWrapper`. It finds the next object even if a lost quote makes the splitter take strings for
/// structure. Such a brace is hardly ever inside a sound trace, because Envoy indents nested objects, and a JSON string
/// contains neither line breaks nor bare quotes.
#[derive(Debug)]
pub(super) struct Search {
    /// `None` between objects.
    splitter: Option<Splitter>,
    /// How far the search for the next object got.
    looked: usize,
    /// The byte before the text is a line break.
    after_line_break: bool,
    /// The object is not known to be damaged, so a brace that starts a line does not start another object.
    is_sound: bool,
}

impl Search {
    /// The search for the end and the search for the next object take turns of this many bytes. If one ran far ahead of
    /// the other, much damage in one window would cost quadratic time.
    const STRIDE: usize = 64;

    /// A search that starts in an object. The next object is not before `from`.
    pub(super) fn in_object(from: usize) -> Self {
        Self { splitter: Some(Splitter::default()), looked: from.max(1), after_line_break: false, is_sound: false }
    }

    /// A search that starts in an object that is passed over, so only its end matters.
    pub(super) fn over_object() -> Self {
        Self { is_sound: true, ..Self::in_object(1) }
    }

    /// A search that starts between objects, at a byte that starts no object.
    pub(super) fn in_garbage() -> Self {
        Self { splitter: None, looked: 1, after_line_break: false, is_sound: false }
    }

    /// Goes on searching. `text` is what the last call saw, without the bytes that [`Search::abandon`] gave up, plus
    /// those that have arrived since.
    pub(super) fn find(&mut self, text: &[u8], at_end: bool) -> Option<Found> {
        loop {
            let until = text.len().min(self.looked.saturating_add(Self::STRIDE));
            let next = self.next_object(text, until, at_end);
            let sure = next.map_or(until, |(offset, _)| offset);
            if let Some(end) = self.find_end(&text[..sure]) {
                return Some(Found::End(end));
            }
            self.looked = sure;
            match next {
                Some((offset, true)) => return Some(Found::Next(offset)),
                Some((_, false)) => return None,
                None if until == text.len() => return None,
                None => {}
            }
        }
    }

    /// Goes on searching for the end of the object only.
    pub(super) fn find_end(&mut self, text: &[u8]) -> Option<usize> {
        self.splitter.as_mut()?.find_end(text)
    }

    /// Forgets the part of `text` that was searched, and returns how long it is. The next text starts after it.
    pub(super) fn abandon(&mut self, text: &[u8]) -> usize {
        let seen = std::mem::take(&mut self.looked);
        if let Some(last) = seen.checked_sub(1) {
            self.after_line_break = text[last] == b'\n';
        }
        if let Some(splitter) = &mut self.splitter {
            splitter.looked = splitter.looked.saturating_sub(seen);
        }
        seen
    }

    /// The next object that starts before `until`. The flag is false if the text ends too early to be sure of it.
    fn next_object(&self, text: &[u8], until: usize, at_end: bool) -> Option<(usize, bool)> {
        memchr_iter(b'{', text.get(self.looked..until)?).map(|brace| self.looked + brace).find_map(|brace| {
            let starts_line = brace.checked_sub(1).map_or(self.after_line_break, |before| text[before] == b'\n');
            if starts_line && !self.is_sound {
                return Some((brace, true));
            }
            match is_wrapper(&text[brace + 1..]) {
                Some(true) => Some((brace, true)),
                Some(false) => None,
                None => (!at_end).then_some((brace, false)),
            }
        })
    }
}

/// Whether the text after a brace starts with a field of `TraceWrapper`; `None` if it is too short to tell.
fn is_wrapper(text: &[u8]) -> Option<bool> {
    const FIELDS: [&[u8]; 10] = [
        b"\"http_buffered_trace\"",
        b"\"httpBufferedTrace\"",
        b"\"http_streamed_trace_segment\"",
        b"\"httpStreamedTraceSegment\"",
        b"\"socket_buffered_trace\"",
        b"\"socketBufferedTrace\"",
        b"\"socket_streamed_trace_segment\"",
        b"\"socketStreamedTraceSegment\"",
        b"\"configured_sample_rate\"",
        b"\"configuredSampleRate\"",
    ];
    // No layout has more white space than this, even after a line prefix that was blanked. Following more would only
    // make the search slow.
    const MOST_SPACE: usize = 128;
    let space = text.iter().take(MOST_SPACE).take_while(|byte| is_space(**byte)).count();
    let name = &text[space..];
    if FIELDS.iter().any(|field| name.starts_with(field)) {
        Some(true)
    } else if FIELDS.iter().any(|field| field.starts_with(name)) {
        None
    } else {
        Some(false)
    }
}

/// Closes the object in `text`, which the end of the source cuts: after the last value that is surely whole, or, if the
/// cut goes through a body, after the body's last whole character. The flag says whether it goes through a body.
pub(super) fn close(text: &[u8]) -> (Vec<u8>, bool) {
    let mut closers = Vec::new();
    let mut whole = 0;
    let mut is_value = false;
    let (mut key, mut last_string): (&[u8], &[u8]) = (b"", b"");
    let mut at = 0;
    let mut cut_string = None;
    while let Some(byte) = text.get(at) {
        at += 1;
        match byte {
            b'{' | b'[' => {
                closers.push(if *byte == b'{' { b'}' } else { b']' });
                whole = at;
                is_value = false;
            }
            b'}' | b']' => {
                closers.pop();
                whole = at;
            }
            b',' => {
                whole = at - 1;
                is_value = false;
            }
            b':' => {
                key = last_string;
                is_value = true;
            }
            b'"' => {
                let string = &text[at..];
                let Some(len) = string_len(string) else {
                    cut_string = Some(string);
                    break;
                };
                last_string = &string[..len];
                at += len + 1;
                if is_value {
                    whole = at;
                }
            }
            _ => {}
        }
    }
    let cut_body =
        cut_string.filter(|_| is_value && matches!(key, b"as_bytes" | b"asBytes" | b"as_string" | b"asString"));
    let mut closed = match cut_body {
        Some(body) => [&text[..text.len() - body.len() + whole_characters(body)], b"\""].concat(),
        None => text[..whole].to_vec(),
    };
    closed.extend(closers.iter().rev());
    (closed, cut_body.is_some())
}

/// The length of a string's contents, if its closing quote is in `text`.
fn string_len(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        at += memchr2(b'"', b'\\', text.get(at..)?)?;
        if text[at] == b'"' {
            return Some(at);
        }
        at += 2;
    }
}

/// The length of `string` without an incomplete escape or UTF-8 sequence at its end.
fn whole_characters(string: &[u8]) -> usize {
    let end = match std::str::from_utf8(string) {
        Err(error) if error.error_len().is_none() => error.valid_up_to(),
        _ => string.len(),
    };
    let mut at = 0;
    while let Some(plain) = memchr(b'\\', &string[at..end]) {
        at += plain;
        let escape = &string[at..end];
        let len = match escape {
            // The first half of a surrogate pair: the second one must follow.
            [_, b'u', b'd' | b'D', b'8' | b'9' | b'a' | b'b' | b'A' | b'B', ..] => 12,
            [_, b'u', ..] => 6,
            _ => 2,
        };
        if escape.len() < len {
            return at;
        }
        at += len;
    }
    end
}
