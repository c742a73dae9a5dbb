//! Text around messages: shell prompts, program output, Markdown, log lines. Finds where a message begins in it.
//!
//! A search gives up what it has seen, so it needs no memory however much text there is. What begins a message must be
//! there in full: the name of a trace as a key of an object or as a field, and the brace of its value. A quotation of a
//! trace in source code has a quote, a bracket or an assignment before it, and is none.

use std::sync::LazyLock;

use memchr::{memchr, memchr2, memchr3, memmem};

use super::detect::Encoding;
use crate::trace::TraceKind;

/// How many bytes before a brace are looked at. The longest name of a trace has 29.
const CONTEXT: usize = 64;

/// How much white space may stand between two tokens at the start of a message. A line prefix that was blanked may be
/// as long as this.
const MOST_SPACE: usize = 1024;

/// The longest key that is read. Longer ones are not a trace's.
const MOST_KEY: usize = 64;

/// How far into an object a trace's key is searched. A newer Envoy may write other keys before it.
const MOST_OBJECT: usize = 64 * 1024;

/// The keys that hold a trace, in both spellings of JSON.
const KEYS: [&[u8]; 8] = [
    b"http_buffered_trace",
    b"http_streamed_trace_segment",
    b"socket_buffered_trace",
    b"socket_streamed_trace_segment",
    b"httpBufferedTrace",
    b"httpStreamedTraceSegment",
    b"socketBufferedTrace",
    b"socketStreamedTraceSegment",
];

/// Whether `byte` is in no text. Text may be in any superset of ASCII, and hold what a terminal acts on, or the record
/// separator of RFC 7464.
pub(super) fn is_binary(byte: u8) -> bool {
    matches!(byte, 0..=6 | 0x10..=0x1a | 0x1c..=0x1d | 0x1f | 0x7f)
}

/// Where the first byte is that is in no text.
fn find_binary(text: &[u8]) -> Option<usize> {
    // A fold that does not stop early checks many bytes at once.
    let chunk = text.chunks(256).position(|chunk| chunk.iter().fold(false, |any, byte| any | is_binary(*byte)))?;
    let start = chunk * 256;
    text[start..].iter().position(|byte| is_binary(*byte)).map(|at| start + at)
}

/// Whether there may be a trace in text that begins like this.
pub(super) fn is_text(head: &[u8]) -> bool {
    find_binary(head).is_none()
}

/// What a [`Search`] finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A message in this encoding begins at the offset.
    Message(Encoding, usize),
    /// The text ends before the byte at the offset, which is in no text.
    Binary(usize),
    /// Neither is there yet. The first bytes, as many as this, may be given up.
    Nothing(usize),
}

/// The search for the next message in text.
#[derive(Debug)]
pub(super) struct Search {
    /// The encoding of the messages before. In another one, or where nothing came before, only what the search finds shows
    /// that there is a trace at all, so it must not be a quotation of one.
    known: Option<Encoding>,
    /// The user has said that the first message has the known encoding.
    is_given: bool,
    /// The text before this offset was searched.
    looked: usize,
    /// The text begins where a line or a message could.
    is_fresh: bool,
    /// An object without a trace's key that is being passed over.
    object: Option<Object>,
}

impl Search {
    /// A search for the first message of a source.
    pub(super) fn for_first() -> Self {
        Self { known: None, is_given: false, looked: 0, is_fresh: true, object: None }
    }

    /// A search for the next message after one in this encoding. It may be in another one, as where traces of several
    /// taps were put together, unless the user has named this one.
    pub(super) fn for_next(encoding: Encoding, is_given: bool) -> Self {
        Self { known: Some(encoding), is_given, ..Self::for_first() }
    }

    fn may_find(&self, encoding: Encoding) -> bool {
        !self.is_given || !self.is_strict(encoding)
    }

    fn is_strict(&self, encoding: Encoding) -> bool {
        self.known != Some(encoding)
    }

    /// Goes on searching. `text` is what the last call saw, without the bytes that were given up, plus those that have
    /// arrived since. With `hurry`, some bytes are given up in any case, because there is no room for more.
    pub(super) fn find(&mut self, text: &[u8], at_end: bool, hurry: bool) -> Found {
        loop {
            if let Some(object) = &mut self.object {
                match object.pass(text, at_end) {
                    Passed::Trace(start) => {
                        self.object = None;
                        return Found::Message(Encoding::Json, start);
                    }
                    Passed::Until(at) => {
                        self.looked = at;
                        self.object = None;
                    }
                    Passed::Nothing => return self.nothing(text, at_end, hurry),
                }
                continue;
            }
            let rest = text.get(self.looked..).unwrap_or_default();
            let len = memchr(b'{', rest).unwrap_or(rest.len());
            if let Some(binary) = find_binary(&rest[..len]) {
                return Found::Binary(self.looked + binary);
            }
            self.looked += len;
            if self.looked == text.len() {
                return self.nothing(text, at_end, hurry);
            }
            match self.judge(text, at_end || hurry && self.looked == 0) {
                Start::Message(encoding, start) => return Found::Message(encoding, start),
                Start::Object => self.object = Some(Object::new(self.looked)),
                Start::Other => self.looked += 1,
                Start::Unknown => return self.nothing(text, false, hurry),
            }
        }
    }

    /// Goes on after the start of the message that was found, because it is none.
    pub(super) fn pass_over(&mut self) {
        self.looked += 1;
    }

    /// Gives up what is not needed any more.
    fn nothing(&mut self, text: &[u8], all: bool, hurry: bool) -> Found {
        let held = self.object.as_ref().map_or(self.looked, |object| object.start.unwrap_or(object.at));
        let skip = match held.saturating_sub(CONTEXT) {
            _ if all => text.len(),
            0 if hurry && held > 0 => held,
            0 if hurry => text.len(),
            skip => skip,
        };
        if skip > 0 {
            self.is_fresh = false;
            self.looked = self.looked.saturating_sub(skip);
            if let Some(object) = &mut self.object {
                object.give_up(&text[..skip]);
            }
        }
        Found::Nothing(skip)
    }

    /// What the brace at `looked` starts.
    fn judge(&self, text: &[u8], at_end: bool) -> Start {
        let at = self.looked;
        let before = &text[at.saturating_sub(CONTEXT)..at];
        let after = &text[at + 1..];
        let from_start = at < CONTEXT && self.is_fresh;
        if self.may_find(Encoding::Text)
            && let Some(found) = self.text_message(before, after, from_start, at_end)
        {
            return match found {
                Some(back) => Start::Message(Encoding::Text, at - back),
                None => Start::Unknown,
            };
        }
        if !self.may_find(Encoding::Json) {
            return Start::Other;
        }
        let line = line_before(before);
        let starts_line = line.trim_ascii().is_empty();
        if !starts_line && (is_quoted(line) || self.is_strict(Encoding::Json) && is_quotation(line)) {
            return Start::Other;
        }
        match first_key(after, at_end) {
            Key::Unknown => Start::Unknown,
            Key::Trace => Start::Message(Encoding::Json, at),
            // Damaged messages in the text format have such lines, too.
            Key::Other if starts_line && self.known != Some(Encoding::Text) => Start::Object,
            Key::Other | Key::None => Start::Other,
        }
    }

    /// Whether a brace belongs to a message in the text format, and how many bytes before it that begins. `Some(None)`
    /// says that more bytes will tell.
    #[expect(clippy::option_option, reason = "taken apart where it is called")]
    fn text_message(&self, before: &[u8], after: &[u8], from_start: bool, at_end: bool) -> Option<Option<usize>> {
        let head = before.trim_ascii_end();
        let head = head.strip_suffix(b":").unwrap_or(head).trim_ascii_end();
        let kind = TraceKind::ALL.into_iter().find(|kind| head.ends_with(kind.field_name().as_bytes()))?;
        let head = &head[..head.len() - kind.field_name().len()];
        let back = before.len() - head.len();
        let line = line_before(head);
        let in_first_column = line.is_empty() && (!head.is_empty() || from_start);
        let last = if ends_in_escape(line) { b' ' } else { line.last().copied().unwrap_or(b' ') };
        let is_strict = self.is_strict(Encoding::Text);
        if in_first_column || !is_strict && !last.is_ascii_alphanumeric() && last != b'_' && !is_quoted(line) {
            return Some(Some(back));
        }
        // Elsewhere, only Envoy's layout counts: the first field is on the next line, indented.
        if last.is_ascii_alphabetic() || last == b'_' || is_quotation(line) {
            return None;
        }
        let mut rest = after;
        for wanted in [&b"\n"[..], b" \t"] {
            let blank = rest.iter().take_while(|byte| wanted == b"\n" && matches!(byte, b' ' | b'\r')).count();
            rest = &rest[blank..];
            match rest.first() {
                None if at_end => return None,
                None => return Some(None),
                Some(byte) if !wanted.contains(byte) => return None,
                Some(_) => rest = &rest[1..],
            }
        }
        let name = rest.trim_ascii_start();
        match name.first() {
            None if at_end || rest.len() > MOST_SPACE => None,
            None => Some(None),
            Some(byte) => (byte.is_ascii_lowercase() || *byte == b'}').then_some(Some(back)),
        }
    }
}

/// How a trace begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opening {
    Json,
    Text,
}

/// Whether `text`, which may have white space before it, begins with a trace, as far as it is there.
pub(super) fn opening(text: &[u8]) -> Option<Opening> {
    let text = text.trim_ascii_start();
    if let Some(after) = text.strip_prefix(b"{") {
        let name = key_name(after).ok().filter(|(name, _)| is_name(name));
        return name.map(|_| Opening::Json);
    }
    let end = text.iter().take(MOST_KEY).take_while(|byte| byte.is_ascii_lowercase() || **byte == b'_').count();
    let is_name = TraceKind::ALL.iter().any(|kind| kind.field_name().as_bytes() == &text[..end]);
    let after = text[end..].trim_ascii_start();
    let after = after.strip_prefix(b":").unwrap_or(after).trim_ascii_start();
    (is_name && after.starts_with(b"{")).then_some(Opening::Text)
}

/// Where the name of a trace begins in a line of the text format that ends with its brace.
pub(super) fn text_name(line: &[u8]) -> Option<usize> {
    let head = line.strip_suffix(b"{")?.trim_ascii_end();
    let head = head.strip_suffix(b":").unwrap_or(head).trim_ascii_end();
    let kind = TraceKind::ALL.into_iter().find(|kind| head.ends_with(kind.field_name().as_bytes()))?;
    let start = head.len() - kind.field_name().len();
    let before = &head[..start];
    let is_whole = before.last().is_none_or(|byte| !byte.is_ascii_alphanumeric() && *byte != b'_');
    (is_whole || ends_in_escape(before)).then_some(start)
}

/// Whether the line begins with a trace's key, as a member of an object.
pub(super) fn is_member(line: &[u8]) -> bool {
    let member = line.trim_ascii_start().strip_prefix(b"\"");
    member.and_then(|key| Some(&key[..memchr(b'"', key)?])).is_some_and(|key| KEYS.contains(&key))
}

/// Whether the name is a key that holds a trace.
pub(super) fn is_key(name: &[u8]) -> bool {
    KEYS.contains(&name)
}

/// Whether the name of a trace is in the text as a key.
pub(super) fn holds_name(text: &[u8]) -> bool {
    names_before(text, &[b"\""])
}

/// Whether the name of a trace is in a string of an object, as a key or as a field of the text format.
pub(super) fn holds_quoted_name(object: &[u8]) -> bool {
    // Each string around it has doubled the backslashes.
    names_before(object, &[b"\\", b" {", b"{"])
}

/// Whether a trace seems to begin in the text, which may be a quotation of one.
pub(super) fn names_trace(text: &[u8]) -> bool {
    names_before(text, &[b"\"", b"\\", b" {", b"{"])
}

/// Where a trace begins in the text, if one does.
pub(super) fn opening_in(text: &[u8]) -> Option<usize> {
    match Search::for_first().find(text, true, false) {
        Found::Message(_, start) => Some(start),
        Found::Binary(_) | Found::Nothing(_) => None,
    }
}

/// Whether the name of a trace is in the text before one of these.
fn names_before(text: &[u8], after: &[&[u8]]) -> bool {
    /// How the names end.
    const ENDS: [&[u8]; 3] = [b"trace", b"Trace", b"egment"];
    // Many texts are short, and to prepare a search takes longer than they do.
    static SEARCHES: LazyLock<[memmem::Finder<'static>; 3]> = LazyLock::new(|| ENDS.map(memmem::Finder::new));
    SEARCHES.iter().any(|search| {
        search.find_iter(text).any(|at| {
            let (before, rest) = text.split_at(at + search.needle().len());
            after.iter().any(|after| rest.starts_with(after)) && KEYS.iter().any(|key| before.ends_with(key))
        })
    })
}

fn is_name(name: &[u8]) -> bool {
    KEYS.contains(&name) || matches!(name, b"configured_sample_rate" | b"configuredSampleRate")
}

/// What a brace starts.
enum Start {
    /// A message, which begins at the offset.
    Message(Encoding, usize),
    /// An object whose first key is not a trace's.
    Object,
    Other,
    /// Too few bytes follow to tell.
    Unknown,
}

/// The part of `before` that is on the line of what follows it. A carriage return begins a line too: progress meters
/// draw over their line.
fn line_before(before: &[u8]) -> &[u8] {
    let start = memchr::memrchr2(b'\n', b'\r', before).map_or(0, |at| at + 1);
    &before[start..]
}

/// Whether the line ends in a terminal's escape sequence, as for colours.
fn ends_in_escape(line: &[u8]) -> bool {
    let escape = memchr::memrchr(b'\x1b', line).map(|at| &line[at + 1..]);
    matches!(escape, Some([b'[', parameters @ .., b'A'..=b'z'])
        if parameters.iter().all(|byte| matches!(byte, 0x20..=0x3f)))
}

/// Whether what follows `line` is inside of quotes, or the value of a member of an object.
fn is_quoted(line: &[u8]) -> bool {
    let line = line.trim_ascii_end();
    // Chats take a fence and the text after it on one line.
    if line.trim_ascii_start() == b"```" {
        return false;
    }
    matches!(line, [.., b'"' | b'\'', b':'] | [.., b'"' | b'\'' | b'`' | b'\\'])
}

/// Whether what follows `line` is that, or the value of a variable, or an argument.
fn is_quotation(line: &[u8]) -> bool {
    let last = line.trim_ascii_end().last();
    // Where there are braces before it, it is in the middle of something.
    is_quoted(line)
        || memchr2(b'{', b'}', line).is_some()
        || last.is_some_and(|last| b"([,&".contains(last))
        || line.trim_ascii_end().ends_with(b"=>")
        || line.ends_with(b"= ")
}

/// The first key of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    /// It is a trace's, before a value that may be one.
    Trace,
    /// It is another one.
    Other,
    /// There is none.
    None,
    /// The text ends too early.
    Unknown,
}

/// How many bytes after a brace are searched for parts of a trace's name.
const NEAR: usize = 96;

/// Whether what follows a brace is text, and not a message, even a damaged one. `None` says that more bytes will tell.
pub(super) fn begins_other_object(after: &[u8], at_end: bool) -> Option<bool> {
    /// A damaged name still has one of them.
    const PARTS: [&[u8]; 13] = [
        b"http_buffered",
        b"http_streamed",
        b"socket_buffered",
        b"socket_streamed",
        b"buffered_trace",
        b"streamed_trace",
        b"_trace_segment",
        b"httpBuffered",
        b"httpStreamed",
        b"socketBuffered",
        b"socketStreamed",
        b"BufferedTrace",
        b"StreamedTrace",
    ];
    // Nearly every message has one of Envoy's layouts.
    if let [b'\n', b' ', b'"', name @ ..] | [b'"', name @ ..] = after
        && KEYS.iter().any(|key| name.starts_with(key) && name.get(key.len()) == Some(&b'"'))
    {
        return Some(false);
    }
    match key_name(after) {
        Ok((name, _)) if is_name(name) => return Some(false),
        Err(Key::Unknown) => return at_end.then_some(false),
        Err(Key::None) if after.trim_ascii_start().starts_with(b"}") => return Some(false),
        Ok(_) | Err(_) => {}
    }
    let space = after.iter().take(MOST_SPACE).take_while(|byte| byte.is_ascii_whitespace()).count();
    let near = &after[space..after.len().min(space + NEAR)];
    let brace = memchr2(b'{', b'}', near);
    let near = &near[..brace.unwrap_or(near.len())];
    if PARTS.iter().any(|part| memmem::find(near, part).is_some()) {
        return Some(false);
    }
    (at_end || brace.is_some() || near.len() == NEAR).then_some(true)
}

/// The name of the first key after a brace, and what follows its closing quote.
fn key_name(after: &[u8]) -> Result<(&[u8], &[u8]), Key> {
    let space = after.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
    let key = match &after[space..] {
        _ if space > MOST_SPACE => return Err(Key::None),
        [] => return Err(Key::Unknown),
        [b'"', key @ ..] => key,
        _ => return Err(Key::None),
    };
    let looked = &key[..key.len().min(MOST_KEY)];
    match looked.iter().position(|byte| matches!(byte, b'"' | b'\\') || *byte < b' ') {
        Some(len) if key[len] == b'"' => Ok((&key[..len], &key[len + 1..])),
        Some(len) if key[len] == b'\\' => Err(Key::Other),
        Some(_) => Err(Key::None),
        None if looked.len() < MOST_KEY => Err(Key::Unknown),
        None => Err(Key::Other),
    }
}

fn first_key(after: &[u8], at_end: bool) -> Key {
    let key = key_name(after).and_then(|(name, rest)| value_of(name, rest));
    match key {
        Ok(key) => key,
        Err(Key::Unknown) if at_end => Key::None,
        Err(key) => key,
    }
}

/// What the key `name` before `rest` says.
fn value_of(name: &[u8], rest: &[u8]) -> Result<Key, Key> {
    let mut rest = rest;
    for wanted in [b':', b'{'] {
        let space = rest.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        match rest.get(space) {
            _ if space > MOST_SPACE => return Err(Key::None),
            None => return Err(Key::Unknown),
            Some(byte) if *byte == wanted => rest = &rest[space + 1..],
            Some(_) if wanted == b'{' => return Ok(Key::Other),
            Some(_) => return Err(Key::None),
        }
        if !KEYS.contains(&name) {
            return Ok(Key::Other);
        }
    }
    Ok(Key::Trace)
}

/// An object without a trace's key so far. It is passed over as a whole: its members, and what is in its strings, are
/// not messages.
#[derive(Debug)]
struct Object {
    /// Where it begins, unless that was given up.
    start: Option<usize>,
    /// What follows was not looked at yet.
    at: usize,
    depth: usize,
    /// The byte before the text is a line break.
    after_line_break: bool,
    /// The quote of the string that is open.
    string: Option<usize>,
    expects: Expects,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expects {
    Key,
    Colon,
    Value,
}

/// How far an object was passed over.
enum Passed {
    /// It holds a trace after other members, and begins at the offset.
    Trace(usize),
    /// It ends at the offset, or is no object from there on.
    Until(usize),
    /// It goes on after the text.
    Nothing,
}

impl Object {
    fn new(start: usize) -> Self {
        Self {
            start: Some(start),
            at: start + 1,
            depth: 1,
            after_line_break: false,
            string: None,
            expects: Expects::Key,
        }
    }

    fn give_up(&mut self, given_up: &[u8]) {
        let skip = given_up.len();
        self.after_line_break = given_up.last() == Some(&b'\n');
        self.at = self.at.saturating_sub(skip);
        self.start = self.start.and_then(|start| start.checked_sub(skip));
        // Only whether there is one matters then.
        self.string = self.string.map(|quote| quote.saturating_sub(skip));
    }

    fn pass(&mut self, text: &[u8], at_end: bool) -> Passed {
        loop {
            if self.start.is_some_and(|start| self.at > start + MOST_OBJECT) {
                self.start = None;
            }
            if self.string.is_some() {
                match self.pass_string(text, at_end) {
                    Some(Ok(())) => {}
                    Some(Err(passed)) => return passed,
                    None => return Passed::Nothing,
                }
            }
            let Some(&byte) = text.get(self.at) else { return Passed::Nothing };
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' => {}
                b'"' if self.depth > 1 || self.expects != Expects::Colon => self.string = Some(self.at),
                b'{' if self.at.checked_sub(1).map_or(self.after_line_break, |before| text[before] == b'\n') => {
                    // Nothing indents less than this, so the object was cut.
                    match first_key(&text[self.at + 1..], at_end) {
                        Key::Trace => return Passed::Until(self.at),
                        Key::Unknown => return Passed::Nothing,
                        Key::Other | Key::None => self.depth += 1,
                    }
                }
                b'{' | b'[' if self.depth > 1 || self.expects == Expects::Value => self.depth += 1,
                b'}' | b']' => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        return Passed::Until(self.at + 1);
                    }
                }
                _ if self.depth > 1 => {
                    if !(byte.is_ascii_alphanumeric() || matches!(byte, b',' | b':' | b'-' | b'+' | b'.')) {
                        return Passed::Until(self.at);
                    }
                }
                b':' if self.expects == Expects::Colon => self.expects = Expects::Value,
                b',' if self.expects == Expects::Value => self.expects = Expects::Key,
                b'-' | b'+' | b'.' | b'0'..=b'9' | b'a'..=b'z' | b'E' | b'N' | b'I'
                    if self.expects == Expects::Value => {}
                _ => return Passed::Until(self.at),
            }
            self.at += 1;
        }
    }

    /// Goes on in a string. `None` says that the text ends in it, or too early to tell what follows it.
    fn pass_string(&mut self, text: &[u8], at_end: bool) -> Option<Result<(), Passed>> {
        loop {
            let Some(len) = memchr3(b'"', b'\\', b'\n', text.get(self.at..)?) else {
                self.at = text.len();
                return None;
            };
            match text[self.at + len] {
                b'"' => {
                    let (quote, end) = (self.string?, self.at + len);
                    if self.depth == 1 && self.expects == Expects::Key {
                        if let Some(start) = self.start {
                            let key = text.get(quote + 1..end).unwrap_or_default();
                            match value_of(key, &text[end + 1..]) {
                                Ok(Key::Trace) => return Some(Err(Passed::Trace(start))),
                                Err(Key::Unknown) if !at_end => return None,
                                _ => {}
                            }
                        }
                        self.expects = Expects::Colon;
                    }
                    self.string = None;
                    self.at = end + 1;
                    return Some(Ok(()));
                }
                b'\\' if self.at + len + 1 < text.len() => self.at += len + 2,
                b'\\' => return None,
                _ => return Some(Err(Passed::Until(self.at + len))),
            }
        }
    }
}
