//! `PROTO_TEXT`: `TraceWrapper` messages in the protobuf text format, one field of the oneof after another.
//!
//! Nothing marks where one wrapper ends and the next starts. But each holds one field of the oneof, so each such field
//! is a message. It counts as complete at its closing brace, because on a live stream the next one may come much later.
//! Other fields at the top level belong to the message before them, but say nothing that matters, and are skipped. What
//! is no field is text around the messages.

mod fast;
mod lane;
mod lexer;
mod split;
#[cfg(test)]
#[cfg(feature = "record")]
mod tests;
mod unescape;

use memchr::memchr;

use self::{
    fast::FastText,
    lexer::{Lexer, LexerStop, Parse, StringContents, kind_of, word_end},
    split::Split,
};
use super::{
    around::{self, Found as InText},
    decode::{BYTE_ORDER_MARK, Decode, Fault, Step, control_bytes},
    detect::Encoding,
    schema::{Cursor, Element, EventParts, MessageEnd, Parts, SchemaFields, SchemaRecord, Type},
};
use crate::trace::{Body, CutIn, Event, Message, Span, TraceKind};

/// The longest field at the top level that this version does not know. What is longer is text.
const MOST_FIELD: usize = 64 * 1024;

/// Decodes `PROTO_TEXT`.
#[derive(Debug, Default)]
pub(crate) struct TextDecoder {
    /// The user has said that the source is in this encoding, and there was no message yet.
    is_given: bool,
    /// The search for the end of a field that crosses the end of the window.
    split: Option<Split>,
    /// The search found an end, which may be wrong.
    found: bool,
    /// Bytes to wait for before decoding is tried again, after the search found a wrong end.
    patience: usize,
    /// Bytes after which decoding is tried again whatever the search says, for a field whose end it may miss.
    limit: Option<usize>,
    /// The window starts inside a comment between fields.
    in_comment: bool,
    /// A field ended before the window, so a separator may follow.
    after_field: bool,
    /// The search for the end of a message that is passed over.
    over: Option<Split>,
    /// The start of the source, where a byte order mark may be, was passed.
    begun: bool,
    /// The search for the next message, in text around messages.
    around: Option<around::Search>,
    /// The window will not grow, so a search must not ask for more.
    hurry: bool,
    /// Unknown fields up to this offset in the field were counted by an earlier attempt to decode it.
    counted: usize,
    /// The last step has found a whole message.
    after_whole: bool,
    /// A line has ended since.
    on_new_line: bool,
    /// Turns the fast path off, for tests that compare the two.
    #[cfg(test)]
    only_general: bool,
}

impl Decode for TextDecoder {
    fn step(&mut self, window: &[u8], at_end: bool, out: &mut Message) -> Step {
        let mut start = 0;
        if let Some(over) = &mut self.over {
            match over.find(window, at_end) {
                Some(end) => {
                    start = end;
                    self.begin(true);
                }
                None if at_end => return Step::End,
                None => {
                    let skip = over.abandon(window);
                    return Step::NeedMore { skip, wanted: window.len() - skip + 1 };
                }
            }
        }
        if self.around.is_some() {
            match self.search(window, start, at_end) {
                Some(step) => return step,
                None => self.around = None,
            }
        }
        if !self.begun {
            if window.len() < BYTE_ORDER_MARK.len() && BYTE_ORDER_MARK.starts_with(window) && !at_end {
                return Step::NeedMore { skip: 0, wanted: BYTE_ORDER_MARK.len() };
            }
            self.begun = true;
            if window.starts_with(BYTE_ORDER_MARK) {
                start = BYTE_ORDER_MARK.len();
            }
        }
        let blank = start;
        start = self.skip_between(window, start);
        self.on_new_line |= self.after_whole && window[blank..start].contains(&b'\n');
        loop {
            if start == window.len() {
                return if at_end { Step::End } else { Step::NeedMore { skip: start, wanted: 1 } };
            }
            if self.split.is_none() && matches!(window[start], 0 | 0x04 | 0x1a) {
                return control_bytes(window, start);
            }
            if !at_end && self.is_pending(window) {
                return self.more(window, start);
            }
            match self.segment(window, start, out) {
                FastText::Read((), end, newer) => {
                    if let Some(newer) = newer {
                        count_newer(window, newer, start, &mut self.counted, out);
                    }
                    self.begin(true);
                    return Step::Message { start, end };
                }
                FastText::Cut(at) if !at_end => {
                    let split = Split::to_end(at, fast::DEPTH, true);
                    return self.wait_for_end(split, true, self.counted, window, start, out);
                }
                FastText::Cut(_) | FastText::Other => {}
            }
            if self.split.is_none() {
                let may_be_rest = !(self.after_whole && self.on_new_line);
                match other(window, start, at_end || self.hurry, may_be_rest) {
                    Other::No => {}
                    Other::Text => {
                        if let Some(step) = self.search(window, start, at_end) {
                            return step;
                        }
                    }
                    Other::Unknown => {
                        let len = window.len() - start;
                        return Step::NeedMore { skip: start, wanted: len + 1 + len / 64 };
                    }
                }
            }
            let mut parser = Parser::new(window, start, at_end, self.counted);
            #[cfg(test)]
            {
                parser.only_general = self.only_general;
            }
            let outcome = parser.top_level(out);
            let Parser { lex, counted, .. } = parser;
            match outcome {
                Ok(()) => {
                    self.begin(true);
                    self.after_whole = out.kind.is_some();
                    if out.kind.is_some() {
                        return Step::Message { start, end: lex.pos };
                    }
                    start = self.skip_between(window, lex.pos);
                }
                Err(LexerStop::End) if at_end => {
                    self.begin(false);
                    out.cut = true;
                    let fault = Fault::cut_off(window.len(), CutIn::Text);
                    return Step::Damaged { start, end: window.len(), fault };
                }
                Err(LexerStop::End) => {
                    let is_message = out.kind.is_some();
                    let split = Split::to_end(lex.pos, lex.depth, is_message);
                    return self.wait_for_end(split, is_message, counted, window, start, out);
                }
                Err(LexerStop::Bad) => {
                    let mut split = Split::to_next(lex.pos, lex.depth);
                    let Some(end) = split.find(window, at_end).or(at_end.then_some(window.len())) else {
                        self.limit = None;
                        self.wait(split, counted, start, out);
                        return self.more(window, start);
                    };
                    self.begin(false);
                    let (at, fault) = lex.fault.expect("reading stops there only after the lexer has set its fault");
                    return Step::Damaged { start, end, fault: Fault::undecodable(at, fault) };
                }
            }
        }
    }

    fn look_again(&mut self) {
        self.split = None;
        self.patience = 0;
        self.hurry = true;
    }

    fn pass_over(&mut self) -> bool {
        self.begin(false);
        self.over = Some(Split::to_end(0, 0, false));
        true
    }
}

impl TextDecoder {
    /// A decoder of a source that the user has said to be in this encoding.
    pub(super) fn given() -> Self {
        Self { is_given: true, ..Self::default() }
    }

    /// Searches for the next message in the text at `start`. `None` says that the next field begins there.
    #[cold]
    fn search(&mut self, window: &[u8], start: usize, at_end: bool) -> Option<Step> {
        let text = &window[start..];
        let around = self.around.get_or_insert_with(|| around::Search::for_next(Encoding::Text, self.is_given));
        let len = match around.find(text, at_end, self.hurry) {
            InText::Message(Encoding::Json, 0) => return Some(Step::Switch { start, encoding: Encoding::Json }),
            InText::Message(_, len) | InText::Binary(len) => {
                self.begin(false);
                len
            }
            InText::Nothing(0) if at_end => return Some(Step::End),
            InText::Nothing(0) => return Some(Step::NeedMore { skip: start, wanted: text.len() + 1 }),
            InText::Nothing(len) => {
                self.hurry = false;
                len
            }
        };
        (len > 0).then_some(Step::Skipped { start, end: start + len })
    }

    /// Skips white space, comments and the optional separator between two fields.
    fn skip_between(&mut self, window: &[u8], from: usize) -> usize {
        let mut at = from;
        loop {
            if self.in_comment {
                let Some(newline) = memchr(b'\n', &window[at..]) else { return window.len() };
                at += newline;
                self.in_comment = false;
            }
            match window.get(at) {
                Some(b' ' | b'\n' | b'\t' | b'\r' | 0x0b | 0x0c) => at += 1,
                Some(b'#') => self.in_comment = true,
                Some(b',' | b';') if self.after_field => {
                    self.after_field = false;
                    at += 1;
                }
                _ => return at,
            }
        }
    }

    /// Whether it is too early to try again to decode the field at the start of the window.
    fn is_pending(&mut self, window: &[u8]) -> bool {
        let Some(split) = &mut self.split else { return false };
        self.found = window.len() >= self.patience && split.find(window, false).is_some();
        !self.found && self.limit.is_none_or(|limit| window.len() < limit)
    }

    /// Resets the decoder after a field or after damage.
    fn begin(&mut self, after_field: bool) {
        *self = Self {
            after_field,
            after_whole: after_field,
            begun: true,
            #[cfg(test)]
            only_general: self.only_general,
            ..Self::default()
        };
    }

    #[inline]
    fn segment(&mut self, window: &[u8], start: usize, out: &mut Message) -> FastText<()> {
        #[cfg(test)]
        if self.only_general {
            return FastText::Other;
        }
        fast::segment(window, start, out)
    }

    /// Asks for the rest of a field that crosses the end of the window.
    fn wait_for_end(
        &mut self,
        split: Split,
        is_message: bool,
        counted: usize,
        window: &[u8],
        start: usize,
        out: &mut Message,
    ) -> Step {
        let twice = (window.len() - start) * 2;
        // The search can mistake a value for a name, or a list's element for a field. If it found an end too early, it
        // may do so again and again.
        self.patience = if self.found { twice } else { 0 };
        // A field of the oneof ends with a brace. The search may miss the end of any other field, and the window would
        // grow until the next message.
        self.limit = (!is_message).then_some(twice);
        self.wait(split, counted, start, out);
        self.more(window, start)
    }

    /// Keeps what was learnt about a field that has to be decoded again. The next window starts at the field.
    fn wait(&mut self, mut split: Split, counted: usize, start: usize, out: &mut Message) {
        split.shift(start);
        self.split = Some(split);
        self.counted = counted;
        out.clear();
    }

    fn more(&self, window: &[u8], start: usize) -> Step {
        Step::NeedMore { skip: start, wanted: self.patience.max(window.len() - start + 1) }
    }
}

/// Whether something at the top level is text around messages.
enum Other {
    No,
    Text,
    /// Too few bytes follow to tell.
    Unknown,
}

/// Whether `window[start..]`, which is not empty, begins with text around messages, and not with a field. A brace or a
/// quote `may_be_rest` of a damaged message.
fn other(window: &[u8], start: usize, at_end: bool, may_be_rest: bool) -> Other {
    let end = word_end(window, start);
    let word = &window[start..end];
    if end == window.len() {
        // The end of the source may cut the name of a field.
        let is_part = |name: &str| name.as_bytes().starts_with(word);
        let is_known =
            TraceKind::ALL.iter().any(|kind| is_part(kind.field_name())) || is_part("configured_sample_rate");
        return match at_end {
            true if is_known => Other::No,
            true => Other::Text,
            false if word.len() > MOST_FIELD => Other::Text,
            false => Other::Unknown,
        };
    }
    let is_number = || {
        let after = window[end..].trim_ascii_start();
        !word.is_empty() && word.iter().all(u8::is_ascii_digit) && matches!(after, [b':' | b'{' | b'<' | b'[', ..])
    };
    if !may_be_rest && matches!(window[start], b'}' | b'"') {
        return Other::Text;
    }
    if Parts::named(word, false).is_some() || is_number() || is_damage(window[start]) {
        return Other::No;
    }
    // It is a field of a newer Envoy if it has the syntax of one, and ends with its line or before another field.
    let mut parser = Parser::new(window, start, at_end, 0);
    let outcome = parser.top_level(&mut Message::default());
    let end = parser.lex.pos;
    match outcome {
        Ok(()) if end - start > MOST_FIELD => Other::Text,
        Ok(()) => {
            let blank = window[end..].iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\r')).count();
            let next = end + blank;
            match window.get(next) {
                Some(b'\n' | b'#' | b',' | b';') => Other::No,
                None if at_end => Other::No,
                None => Other::Unknown,
                Some(_) => {
                    let word = word_end(window, next);
                    match kind_of(&window[next..word]) {
                        _ if word == window.len() && !at_end => Other::Unknown,
                        Some(_) => Other::No,
                        None => Other::Text,
                    }
                }
            }
        }
        Err(LexerStop::End) if !at_end && window.len() - start <= MOST_FIELD => Other::Unknown,
        Err(LexerStop::End | LexerStop::Bad) => Other::Text,
    }
}

/// Whether a byte at the top level shows that a message is damaged.
fn is_damage(byte: u8) -> bool {
    matches!(byte, b'}' | b'"') || around::is_binary(byte)
}

/// Counts the event fields of a newer Envoy that begin at `window[at]`, except those that an earlier attempt to decode
/// the field at `start` has counted.
#[cold]
fn count_newer(window: &[u8], at: usize, start: usize, counted: &mut usize, out: &mut Message) {
    for (name, end) in fast::newer(window, at) {
        let end = end - start;
        if end > *counted {
            *counted = end;
            out.unknown.count_name(EventParts::MESSAGE, name);
        }
    }
}

/// One pass over one top-level field. Messages are read from after the opening brace to after the closing one.
struct Parser<'w> {
    lex: Lexer<'w>,
    /// Where the field starts in the window.
    start: usize,
    /// See [`TextDecoder::counted`].
    counted: usize,
    #[cfg(test)]
    only_general: bool,
}

impl<'w> Parser<'w> {
    fn new(window: &'w [u8], start: usize, at_end: bool, counted: usize) -> Self {
        Self {
            lex: Lexer::new(window, start, at_end),
            start,
            counted,
            #[cfg(test)]
            only_general: false,
        }
    }

    /// Reads one top-level field.
    fn top_level(&mut self, out: &mut Message) -> Parse<()> {
        let name = self.lex.name()?;
        let Some(number) = Parts::named(name, false) else { return self.unknown(Parts::MESSAGE, name, out) };
        // The name alone makes it a message, even if its braces are damaged.
        out.kind = TraceKind::from_field_number(number);
        let mut parts = Parts::default();
        let outcome = parts.field(number, self, out);
        parts.finish(out);
        out.order_http();
        outcome
    }

    /// Reads a message from after its opening brace.
    #[inline]
    fn record<R: SchemaRecord>(&mut self, close: u8, record: &mut R, out: &mut Message) -> (Parse<()>, MessageEnd) {
        record.begin(Self::REPLACES, out);
        let outcome = self.fields(close, record.fields(), out);
        let cut = outcome == Err(LexerStop::End) && self.lex.at_end;
        let end = MessageEnd { whole: outcome.is_ok(), cut, framed: false };
        record.end(end, out);
        (outcome, end)
    }

    #[inline]
    fn fields<F: SchemaFields>(&mut self, close: u8, fields: &mut F, out: &mut Message) -> Parse<()> {
        while let Some(name) = self.lex.next(close)? {
            match F::named(name, false) {
                Some(number) => fields.field(number, self, out)?,
                None => self.unknown(F::MESSAGE, name, out)?,
            }
        }
        Ok(())
    }

    fn element<E: Element>(&mut self, to: E::To, out: &mut Message) -> Parse<()> {
        if E::plain(self, out) {
            return Ok(());
        }
        let close = self.lex.open_bare()?;
        let mut element = E::default();
        let (outcome, end) = self.record(close, &mut element, out);
        element.done(end, to, out);
        outcome
    }

    /// Reads the value of a `string` or `bytes` field, which stays in the window if it has no escapes. Even after an
    /// error, the span has what was readable; the flag says that the closing quote is missing.
    fn string(&mut self, span: &mut Span, out: &mut Message) -> (Parse<()>, bool) {
        let mut text = StringContents::default();
        let outcome = self.lex.string(out.scratch(), &mut text);
        *span = if text.in_scratch { out.scratch_span(text.start) } else { Span::in_window(text.start, text.len) };
        (outcome, text.open)
    }

    /// Skips a field that this version does not know, and counts it.
    #[cold]
    fn unknown(&mut self, message: &'static str, name: &[u8], out: &mut Message) -> Parse<()> {
        self.lex.refuse_top_level(name)?;
        let end = self.lex.pos - self.start;
        if end > self.counted {
            self.counted = end;
            let number = str::from_utf8(name).ok().and_then(|name| name.parse().ok());
            match number {
                Some(number) => out.unknown.count_number(message, number),
                None => out.unknown.count_name(message, &String::from_utf8_lossy(name)),
            }
        }
        self.lex.skip_value()
    }
}

impl Cursor for Parser<'_> {
    type Stop = LexerStop;

    fn uint64(&mut self) -> Parse<u64> {
        self.lex.uint64()
    }

    /// A number that does not fit becomes the nearest one, which is not a valid time either.
    fn int64(&mut self) -> Parse<i64> {
        self.lex.colon()?;
        Ok(self.lex.integer()?.saturate_i64())
    }

    fn boolean(&mut self) -> Parse<bool> {
        self.lex.boolean()
    }

    fn port(&mut self) -> Parse<Option<u32>> {
        self.lex.colon()?;
        Ok(Some(self.lex.integer()?.saturate_u32()))
    }

    fn text(&mut self, out: &mut Message) -> Parse<String> {
        let mut text = StringContents::default();
        let scratch = out.scratch();
        self.lex.string(scratch, &mut text)?;
        let bytes = if text.in_scratch { &scratch[text.start..] } else { &self.lex.window[text.start..][..text.len] };
        let value = String::from_utf8_lossy(bytes).into_owned();
        if text.in_scratch {
            scratch.truncate(text.start);
        }
        Ok(value)
    }

    fn span(&mut self, _ty: Type, span: &mut Span, out: &mut Message) -> Parse<()> {
        self.string(span, out).0
    }

    fn payload(&mut self, ty: Type, body: &mut Body, out: &mut Message) -> Parse<()> {
        let (outcome, open) = self.string(&mut body.payload, out);
        body.as_string = ty == Type::String;
        body.truncated |= open;
        outcome
    }

    fn ignore(&mut self, ty: Type) -> Parse<bool> {
        if ty == Type::Message {
            self.lex.skip_message()?
        } else {
            self.lex.skip_field()?
        }
        Ok(true)
    }

    #[inline]
    fn message<R: SchemaRecord>(&mut self, record: &mut R, out: &mut Message) -> Parse<()> {
        let close = self.lex.open()?;
        self.record(close, record, out).0
    }

    /// One message, or a list of them in square brackets.
    fn each<E: Element>(&mut self, to: E::To, out: &mut Message) -> Parse<()> {
        if self.lex.peek()? == b':' {
            self.lex.pos += 1;
        }
        if self.lex.peek()? != b'[' {
            return self.element::<E>(to, out);
        }
        self.lex.pos += 1;
        let mut first = true;
        while self.lex.element(first)? {
            self.element::<E>(to, out)?;
            first = false;
        }
        Ok(())
    }

    #[inline]
    fn plain_event(&mut self, out: &mut Message) -> Option<Event> {
        #[cfg(test)]
        if self.only_general {
            return None;
        }
        if self.lex.peek() != Ok(b'{') {
            return None;
        }
        let FastText::Read(event, end, newer) = fast::event(self.lex.window, self.lex.pos + 1, out) else {
            return None;
        };
        if let Some(newer) = newer {
            count_newer(self.lex.window, newer, self.start, &mut self.counted, out);
        }
        self.lex.step_over(end);
        Some(event)
    }
}
