//! JSON around traces: arrays, and objects that hold a trace somewhere.
//!
//! Everything that is no trace becomes spaces, so that offsets stay what they are. Values without any trace, and text
//! between values, are noted as text that was skipped. A trace needs a brace before its key and one after its value; they
//! take the place of the bytes there. Only what a trace without `TraceWrapper` gets is longer than what it replaces:
//! offsets are larger by that until the next bytes that are no trace.

use std::io::{self, Read};

use super::{MAX_HEAD, Match, Rewound, lines, met::Met};
use crate::{
    input::{
        around::{holds_quoted_name, names_trace},
        decode::BYTE_ORDER_MARK,
        outline::{InString, MAX_LOOK, Outline, Stop, bare, is_space, scalar, wrapper, wrapper_key},
        skipped::SkippedText,
    },
    trace::{Place, TraceKind},
};

/// Bytes per read.
const READ: usize = 64 * 1024;

/// How deep the JSON around traces may be. What opens more than this is text with many braces.
const MOST_DEPTH: usize = 64;

/// No number is longer.
const MAX_SCALAR: usize = 400;

/// Whether `head` begins with JSON that holds traces and is none itself. If that takes more than [`MAX_HEAD`] to tell,
/// [`Envelope::seek`] tells.
pub(super) fn matches(head: &[u8]) -> Match {
    // A log has one object after the other, or a trace in a string: its lines are looked at.
    let is_log = |values: usize| values > 0 || holds_quoted_name(head);
    let undecided = |values| match head.len() < MAX_HEAD {
        true => Match::Unknown,
        false if is_log(values) => Match::No,
        false => Match::Yes { skip: 0 },
    };
    // Objects and arrays that are over.
    let mut values = 0;
    let mut start = 0;
    let mut outline = Outline::default();
    let mut at = if head.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 };
    let mut begun = false;
    while let Some(byte) = head.get(at) {
        if let Some((len, is_scalar)) = scalar(&head[at..]) {
            if !outline.wants_value() {
                return Match::No;
            }
            if at + len == head.len() {
                return if len < MAX_SCALAR { undecided(values) } else { Match::No };
            }
            if !is_scalar {
                return Match::No;
            }
            outline.value();
            at += len;
            continue;
        }
        match byte {
            b'"' => {
                if outline.at_key() {
                    match wrapper_key(&head[at..]) {
                        // A trace, whatever is in it.
                        Ok(()) if outline.depth() == 1 => return Match::No,
                        Err(Stop::More) => return undecided(values),
                        _ => {}
                    }
                    match wrapper(&head[at..]) {
                        Ok(()) => return Match::Yes { skip: 0 },
                        Err(Stop::More) if head.len() - at < MAX_LOOK => return undecided(values),
                        Err(_) => {}
                    }
                }
                if !outline.string() {
                    return Match::No;
                }
                match InString::default().end(&head[at + 1..]) {
                    Some(len) if head[at + len] == b'"' => at += 1 + len,
                    Some(_) => return Match::No,
                    None => return undecided(values),
                }
                continue;
            }
            b'{' if outline.at_object() => {
                match bare(&head[at..]) {
                    Ok(_) => return Match::Yes { skip: 0 },
                    Err(Stop::More) if head.len() - at < MAX_LOOK => return undecided(values),
                    Err(_) => {}
                }
                outline.byte(*byte);
                if outline.depth() > MOST_DEPTH {
                    return Match::No;
                }
            }
            byte => {
                if !outline.byte(*byte) || outline.depth() > MOST_DEPTH {
                    return Match::No;
                }
                if matches!(byte, b'}' | b']') && outline.depth() == 0 {
                    values += 1;
                    // A record of a live log must not wait for more of them.
                    if lines::may_hold(&head[start..=at]) {
                        return Match::No;
                    }
                    start = at + 1;
                }
            }
        }
        begun |= !is_space(*byte);
        at += 1;
    }
    // A long run of blanks says nothing.
    if begun || head.len() < MAX_HEAD { undecided(values) } else { Match::No }
}

/// The traces, with spaces for everything else.
pub(super) struct Envelope {
    inside: Rewound,
    /// Room for a read, cleared once: the layer below may give a few bytes at a time.
    room: Box<[u8]>,
    /// What was read and not looked at begins at `at`.
    window: Vec<u8>,
    at: usize,
    at_end: bool,
    outline: Outline,
    state: State,
    /// Spaces to give out before `ready`.
    blanks: u64,
    ready: Vec<u8>,
    given: usize,
    /// Bytes that were added, and for which that many spaces will be left out.
    debt: u64,
    met: Met,
    /// Where the next byte of the window is in what was read.
    offset: u64,
    /// Traces so far.
    traces: u64,
    /// What was passed over since the outermost value began, unless there is a trace in it.
    skipped: SkippedText,
    /// There is a trace in the outermost value.
    holds_trace: bool,
}

/// Where the next byte of the window is.
#[derive(Debug)]
enum State {
    Outside,
    /// In a string outside of traces.
    String(InString),
    /// In a trace, at this depth.
    Trace {
        depth: usize,
        string: Option<InString>,
    },
}

impl Envelope {
    pub(super) fn new(inside: Rewound, met: Met) -> Self {
        Self {
            inside,
            room: vec![0; READ].into_boxed_slice(),
            window: Vec::new(),
            at: 0,
            at_end: false,
            outline: Outline::default(),
            state: State::Outside,
            blanks: 0,
            ready: Vec::new(),
            given: 0,
            debt: 0,
            met,
            offset: 0,
            traces: 0,
            skipped: SkippedText::default(),
            holds_trace: false,
        }
    }

    /// Looks for the first trace, and returns whether there is one. What comes before it takes no memory.
    pub(super) fn seek(&mut self) -> io::Result<bool> {
        while self.ready.is_empty() {
            let is_short = self.advance();
            if self.ready.is_empty() && is_short && !self.fill()? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Reads more, and returns whether there is something to go on with.
    fn fill(&mut self) -> io::Result<bool> {
        if self.at_end {
            return Ok(false);
        }
        self.window.drain(..self.at);
        self.at = 0;
        let count = loop {
            match self.inside.read(&mut self.room) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                count => break count?,
            }
        };
        self.window.extend_from_slice(&self.room[..count]);
        self.at_end = count == 0;
        // At the end, what waited for more bytes is looked at once more.
        Ok(true)
    }

    /// Passes over `count` bytes that become spaces.
    fn blank(&mut self, count: usize) {
        let text = &self.window[self.at..self.at + count];
        let place = Place { offset: self.offset, message: self.traces };
        if !self.holds_trace {
            if self.skipped.bytes > 0 || !text.iter().copied().all(is_space) {
                self.skipped.add(place, text);
            }
        } else if matches!(self.state, State::String(_)) && text.starts_with(b"{") && names_trace(text) {
            let mut skipped = SkippedText::default();
            skipped.add(place, text);
            self.met.skipped(skipped);
        }
        self.at += count;
        self.offset += count as u64;
        let left_out = self.debt.min(count as u64);
        self.debt -= left_out;
        self.blanks += count as u64 - left_out;
    }

    /// Begins a trace, of which `before` is to be added.
    fn begin(&mut self, before: &str) {
        self.ready.extend_from_slice(before.as_bytes());
        self.debt += before.len() as u64;
        if self.blanks > 0 {
            self.blanks -= 1;
            self.debt -= 1;
        }
        self.state = State::Trace { depth: 0, string: None };
        self.skipped = SkippedText::default();
        self.holds_trace = true;
        self.traces += 1;
    }

    /// Notes what was passed over, if an outermost value or text between two of them is over.
    fn end_outermost(&mut self) {
        if self.outline.depth() == 0 {
            self.met.skipped(std::mem::take(&mut self.skipped));
            self.holds_trace = false;
        }
    }

    /// Goes on until there is something to give out, or the window is too short, as the answer says.
    fn advance(&mut self) -> bool {
        while self.ready.is_empty() || matches!(self.state, State::Trace { .. }) {
            if self.at == self.window.len() {
                return true;
            }
            let is_short = match &mut self.state {
                State::Outside => self.outside(),
                State::String(string) => {
                    let rest = &self.window[self.at..];
                    let end = string.end(rest);
                    self.blank(end.unwrap_or(rest.len()));
                    if end.is_some() {
                        self.state = State::Outside;
                    }
                    false
                }
                State::Trace { .. } => {
                    self.trace();
                    false
                }
            };
            if is_short {
                return true;
            }
        }
        false
    }

    /// Looks at one byte outside of traces. Returns whether that takes more bytes.
    fn outside(&mut self) -> bool {
        if matches!(self.window[self.at], b'{' | b'[') {
            self.end_outermost();
        }
        let rest = &self.window[self.at..];
        let may_wait = !self.at_end && rest.len() < MAX_LOOK;
        match rest[0] {
            b'"' => {
                if self.outline.at_key() {
                    match wrapper(rest) {
                        Ok(()) => {
                            self.begin("{");
                            return false;
                        }
                        Err(Stop::More) if may_wait => return true,
                        Err(_) => {}
                    }
                }
                self.outline.string();
                self.state = State::String(InString::default());
                self.blank(1);
            }
            b'{' => {
                if self.outline.at_object() {
                    match bare(rest) {
                        Ok(kind) => {
                            self.begin(key_of(kind));
                            return false;
                        }
                        Err(Stop::More) if may_wait => return true,
                        Err(_) => {}
                    }
                }
                self.outline.byte(b'{');
                self.blank(1);
            }
            byte @ (b'}' | b'[' | b']' | b',' | b':') => {
                self.outline.byte(byte);
                self.blank(1);
                if matches!(byte, b'}' | b']') {
                    self.end_outermost();
                }
            }
            _ => {
                let is_plain = |byte: &u8| !matches!(byte, b'"' | b'{' | b'}' | b'[' | b']' | b',' | b':');
                let len = rest.iter().take_while(|byte| is_plain(byte)).count();
                if rest[..len].iter().any(|byte| !is_space(*byte)) && self.outline.wants_value() {
                    self.outline.value();
                }
                self.blank(len);
            }
        }
        false
    }

    /// Copies a trace up to its end or that of the window.
    fn trace(&mut self) {
        let State::Trace { depth, string } = &mut self.state else { return };
        let rest = &self.window[self.at..];
        let mut at = 0;
        let mut ended = false;
        while at < rest.len() && !ended {
            if let Some(open) = string {
                match open.end(&rest[at..]) {
                    Some(len) => {
                        at += len;
                        *string = None;
                    }
                    None => at = rest.len(),
                }
                continue;
            }
            match rest[at] {
                b'"' => *string = Some(InString::default()),
                b'{' | b'[' => *depth += 1,
                b'}' | b']' => {
                    *depth = depth.saturating_sub(1);
                    ended = *depth == 0;
                }
                _ => {}
            }
            at += 1;
        }
        self.ready.extend_from_slice(&rest[..at]);
        self.at += at;
        self.offset += at as u64;
        if ended {
            self.ready.push(b'}');
            self.debt += 1;
            self.outline.value();
            self.state = State::Outside;
            self.end_outermost();
        }
    }
}

/// What makes an object the value of its key in `TraceWrapper`.
fn key_of(kind: TraceKind) -> &'static str {
    match kind {
        TraceKind::HttpBuffered => "{\"http_buffered_trace\":",
        TraceKind::HttpStreamed => "{\"http_streamed_trace_segment\":",
        TraceKind::SocketBuffered => "{\"socket_buffered_trace\":",
        TraceKind::SocketStreamed => "{\"socket_streamed_trace_segment\":",
    }
}

impl Read for Envelope {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            // The last space may still become the brace before a trace.
            let kept = u64::from(self.ready.is_empty() && !self.at_end);
            if self.blanks > kept {
                let count = usize::try_from(self.blanks - kept).unwrap_or(usize::MAX).min(buffer.len());
                buffer[..count].fill(b' ');
                self.blanks -= count as u64;
                return Ok(count);
            }
            if self.given < self.ready.len() {
                let count = (&self.ready[self.given..]).read(buffer)?;
                self.given += count;
                if self.given == self.ready.len() {
                    self.ready.clear();
                    self.given = 0;
                }
                return Ok(count);
            }
            if self.advance() && self.ready.is_empty() && !self.fill()? {
                self.end_outermost();
                if self.blanks > 0 {
                    continue;
                }
                let is_cut = self.outline.depth() > 0 && !matches!(self.state, State::Trace { .. });
                return if is_cut { Err(cut()) } else { Ok(0) };
            }
        }
    }
}

fn cut() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the JSON around the traces is cut off")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives so many bytes at a time.
    struct Pieces(Vec<u8>, usize);

    impl Read for Pieces {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.1.min(buffer.len()).min(self.0.len());
            buffer[..count].copy_from_slice(&self.0[..count]);
            self.0.drain(..count);
            Ok(count)
        }
    }

    fn read(text: &str, piece: usize) -> (String, bool) {
        let rest = Box::new(Pieces(text.as_bytes().to_vec(), piece));
        let mut envelope = Envelope::new(Rewound { head: Vec::new(), at: 0, rest }, Met::default());
        let mut out = Vec::new();
        let is_whole = envelope.read_to_end(&mut out).is_ok();
        (String::from_utf8(out).unwrap(), is_whole)
    }

    #[test]
    fn what_is_no_trace_becomes_spaces_of_the_same_length() {
        let trace = r#""socket_buffered_trace": {"trace_id": "7", "x": "}]\"{"}"#;
        let texts = [
            format!("[{{{trace}}}, 5]"),
            format!("\u{feff}{{\"a\": [1, {{ {trace} }}, \"é\"]}}\n{{\"b\": {{\"n\": null, {trace}, \"z\": {{}}}}}}\n"),
            format!("{{{trace}}}"),
        ];
        for text in texts {
            let (whole, is_whole) = read(&text, 1 << 20);
            assert!(is_whole);
            assert_eq!(whole.len(), text.len(), "{whole}");
            for (at, _) in text.match_indices(trace) {
                assert_eq!(&whole[at..at + trace.len()], trace);
                assert!(whole[..at].ends_with('{') && whole[at + trace.len()..].starts_with('}'), "{whole}");
            }
            let rest = whole.replace(trace, "").replace("{}", "");
            assert!(rest.bytes().all(|byte| byte == b' '), "{whole}");
            for piece in [1, 2, 7, 100] {
                assert_eq!(read(&text, piece), (whole.clone(), true), "{piece}");
            }
        }
    }

    #[test]
    fn a_trace_without_its_wrapper_gets_one() {
        let trace = r#"{"request": {"headers": [{"key": ":method"}]}}"#;
        let text = format!("[{trace}, {trace}, {}]", " ".repeat(100));
        let (whole, _) = read(&text, 1 << 20);
        assert_eq!(whole.len(), text.len());
        assert_eq!(whole.matches(&format!("{{\"http_buffered_trace\":{trace}}}")).count(), 2, "{whole}");
        for piece in [1, 3, 50] {
            assert_eq!(read(&text, piece), (whole.clone(), true), "{piece}");
        }
    }

    #[test]
    fn an_envelope_without_end_is_told() {
        for text in ["[", "[{\"a\": \"b", "{\"a\": {\"socket_buffered_trace\": {\"trace_id\": 1}}"] {
            assert!(!read(text, 5).1, "{text}");
        }
        // The decoder tells that this one is cut.
        assert!(read("[{\"socket_buffered_trace\": {\"trace_id\": 1", 5).1);
        let deep = "{\"a\":[".repeat(100_000);
        assert!(!read(&deep, 1 << 20).1);
        // Text with many braces is no envelope.
        assert_eq!(matches(deep.as_bytes()), Match::No);
        assert_eq!(matches(&vec![b' '; MAX_HEAD]), Match::No);
    }
}
