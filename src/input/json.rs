//! JSON traces (`JSON_BODY_AS_BYTES`, `JSON_BODY_AS_STRING`): objects back to back, without an array around them.
//!
//! serde_json reads each object straight into a [`Message`], so what comes before an error is kept. If an object is not
//! complete yet, a splitter that remembers how far it looked decides when it is parsed again.

mod cursor;
mod fast;
mod frame;
mod times;

#[cfg(test)]
#[cfg(feature = "record")]
mod tests;

use memchr::memchr_iter;
use serde::de::{DeserializeSeed, IgnoredAny};
use serde_json::{Deserializer, Error};

use self::{
    cursor::{Context, Fill},
    fast::FastJson,
    frame::{Found, Search, close},
    times::Times,
};
use super::{
    around::{self, Found as InText, begins_other_object},
    decode::{BYTE_ORDER_MARK, Decode, Fault, Step, control_bytes},
    detect::Encoding,
    schema::Parts,
};
use crate::trace::{CutIn, EventKind, HttpPart, HttpSide, JsonFault, Message, UnknownFields};

/// Decodes JSON objects back to back, each a `TraceWrapper`.
#[derive(Debug, Default)]
pub(crate) struct JsonDecoder {
    /// The user has said that the source is JSON, and there was no message yet.
    is_given: bool,
    /// The start of the source, where a byte order mark may be, was passed.
    begun: bool,
    /// The object at the start of the window is not complete yet.
    pending: Option<PendingObject>,
    /// The search for the end of damage, or of an object that is passed over.
    lost: Option<Search>,
    /// The search for the next message, in text around messages.
    around: Option<around::Search>,
    /// The search has found that the window begins with a message.
    is_message: bool,
    /// The last step has found a whole message.
    after_whole: bool,
    /// A line has ended since, or text was skipped.
    on_new_line: bool,
    /// The window will not grow, so the search must not ask for more.
    hurry: bool,
    times: Times,
    /// Turns the fast path off, for tests that compare the two.
    #[cfg(test)]
    only_general: bool,
}

impl Decode for JsonDecoder {
    fn step(&mut self, window: &[u8], at_end: bool, out: &mut Message) -> Step {
        let mut start = 0;
        if let Some(lost) = &mut self.lost {
            match lost.find(window, at_end) {
                Some(found) => start = found.offset(),
                None if at_end => return Step::End,
                None => {
                    let skip = lost.abandon(window);
                    return Step::NeedMore { skip, wanted: window.len() - skip + 1 };
                }
            }
            self.lost = None;
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
        if self.around.is_some() {
            // The window begins in text, so `start` is 0.
            return self.search(&window[start..], start, at_end, out);
        }
        let blank = start;
        start += window[start..].iter().take_while(|byte| is_space(**byte)).count();
        self.on_new_line |= window[blank..start].contains(&b'\n');
        match &window[start..] {
            [] if at_end => Step::End,
            [] => Step::NeedMore { skip: start, wanted: 1 },
            text @ [b'{', ..] => {
                let step = self.object(text, start, at_end, out);
                out.order_http();
                step
            }
            [0 | 0x04 | 0x1a, ..] => control_bytes(window, start),
            // The rest of a damaged message begins like this, but a line after a whole message is text.
            text @ [b'}' | b'"' | b':', ..] if self.after_whole && self.on_new_line => {
                self.search(text, start, at_end, out)
            }
            text @ [b'}' | b'"' | b':', ..] => self.garbage(text, start, at_end),
            text => self.search(text, start, at_end, out),
        }
    }

    fn look_again(&mut self) {
        self.pending = None;
        self.hurry = true;
    }

    fn pass_over(&mut self) -> bool {
        self.pending = None;
        self.is_message = false;
        self.lost = Some(Search::over_object());
        true
    }
}

impl JsonDecoder {
    /// A decoder of a source that the user has said to be JSON.
    pub(super) fn given() -> Self {
        Self { is_given: true, ..Self::default() }
    }

    /// Forgets the object at the start of the window, because the next step starts after it.
    #[inline]
    fn begin(&mut self) {
        self.pending = None;
        self.is_message = false;
        self.hurry = false;
        self.after_whole = true;
        self.is_given = false;
        self.on_new_line = false;
    }

    /// Searches for the next message in `text`, which begins at `start` of the window.
    #[cold]
    fn search(&mut self, text: &[u8], start: usize, at_end: bool, out: &mut Message) -> Step {
        let around = self.around.get_or_insert_with(|| around::Search::for_next(Encoding::Json, self.is_given));
        let hurry = std::mem::take(&mut self.hurry);
        let len = match around.find(text, at_end, hurry) {
            InText::Message(encoding, len) => {
                self.around = None;
                match (encoding, len) {
                    (Encoding::Json, 0) => {
                        self.is_message = true;
                        return self.object(text, start, at_end, out);
                    }
                    (Encoding::Json, _) => self.is_message = true,
                    (_, 0) => return Step::Switch { start, encoding },
                    _ => {}
                }
                len
            }
            InText::Binary(len) => {
                self.around = None;
                if len == 0 {
                    return self.garbage(text, start, at_end);
                }
                len
            }
            InText::Nothing(0) if at_end => return Step::End,
            InText::Nothing(0) => return Step::NeedMore { skip: start, wanted: text.len() + 1 },
            InText::Nothing(len) => len,
        };
        // What follows text begins on no line of a message.
        self.on_new_line = true;
        Step::Skipped { start, end: start + len }
    }

    /// Reports bytes that begin no object and are no text.
    #[cold]
    fn garbage(&mut self, text: &[u8], start: usize, at_end: bool) -> Step {
        self.after_whole = false;
        self.damaged(text, start, at_end, Search::in_garbage(), 0, JsonFault::NoObject(text[0]))
    }

    /// Decodes the object that `text` starts with. `start` is the offset of `text` in the window.
    fn object(&mut self, text: &[u8], start: usize, at_end: bool, out: &mut Message) -> Step {
        let need_more = Step::NeedMore { skip: start, wanted: text.len() + 1 };
        let mut complete = false;
        if let Some(pending) = &mut self.pending {
            complete = pending.is_complete(text);
            if !complete && !at_end && !pending.is_due(text) {
                return need_more;
            }
        }
        match self.fast(text, out) {
            FastJson::Segment(len) => {
                self.begin();
                return Step::Message { start, end: start + len };
            }
            FastJson::Cut if !at_end => {
                self.pending.get_or_insert_with(|| PendingObject::new(text)).tried = text.len();
                return need_more;
            }
            FastJson::Cut | FastJson::Other => {}
        }
        if self.pending.is_none() && !self.is_message {
            match begins_other_object(&text[1..], at_end) {
                Some(false) => {}
                Some(true) => {
                    return self.search(text, start, at_end, out);
                }
                None => return need_more,
            }
        }
        let attempt = self.parse(text, out, None);
        let error = match attempt.outcome {
            Ok(len) => {
                self.begin();
                if out.kind.is_none() && attempt.unknown_before.is_some() {
                    // Its unknown fields are not a newer Envoy's, because nothing else in it is Envoy's.
                    self.after_whole = false;
                    attempt.undo(out);
                    let fault = Fault::undecodable(start, JsonFault::OtherObject);
                    return Step::Damaged { start, end: start + len, fault };
                }
                return Step::Message { start, end: start + len };
            }
            Err(ref error) => error,
        };
        let at = attempt.fault_at.unwrap_or_else(|| offset_of(error, text));
        // A number at the end of the window may go on after it, so an error there may go away with more bytes.
        let is_open = error.is_eof() || at + 1 >= text.len();
        if is_open && !complete && !at_end {
            attempt.undo(out);
            self.pending.get_or_insert_with(|| PendingObject::new(text)).tried = text.len();
            return need_more;
        }
        // The parser may report an early end for an object whose braces are all closed, as in `{"\u"}`.
        let complete = complete || (error.is_eof() && PendingObject::new(text).is_complete(text));
        self.begin();
        self.after_whole = false;
        if error.is_eof() && !complete && at_end {
            self.read_cut_body(text, out, attempt);
            out.cut = true;
            let end = start + text.len();
            return Step::Damaged { start, end, fault: Fault::cut_off(end, CutIn::Object) };
        }
        let fault = if attempt.bad_base64 { JsonFault::Base64 } else { JsonFault::Parser(message_of(error)) };
        self.damaged(text, start, at_end, Search::in_object(at), at, fault)
    }

    #[inline]
    fn fast(&mut self, text: &[u8], out: &mut Message) -> FastJson {
        #[cfg(test)]
        if self.only_general {
            return FastJson::Other;
        }
        fast::segment(text, out, &mut self.times)
    }

    /// Reports damage at `text[at]`. `search` finds where reading can go on, now or in a later step.
    fn damaged(
        &mut self,
        text: &[u8],
        start: usize,
        at_end: bool,
        mut search: Search,
        at: usize,
        fault: JsonFault,
    ) -> Step {
        self.is_given = false;
        let end = match search.find(text, at_end) {
            Some(found) => found.offset(),
            None if at_end => text.len(),
            None => {
                let seen = search.abandon(text);
                self.lost = Some(search);
                seen
            }
        };
        Step::Damaged { start, end: start + end, fault: Fault::undecodable(start + at, fault) }
    }

    /// Parses one object into `out`, which must be cleared. `cut_payload` is the index of the body that was cut, and
    /// that [`close`] has closed.
    fn parse(&mut self, text: &[u8], out: &mut Message, cut_payload: Option<usize>) -> Attempt {
        let mut context = Context::new(text, &mut self.times, cut_payload);
        let mut parts = Parts::default();
        let mut json = Deserializer::from_slice(text);
        let outcome = Fill { record: &mut parts, context: &mut context, out: &mut *out }.deserialize(&mut json);
        let Context { fault_at, bad_base64, unknown_before, payloads, .. } = context;
        parts.finish(out);
        let outcome = outcome.map(|()| json.into_iter::<IgnoredAny>().byte_offset());
        Attempt { outcome, fault_at, bad_base64, unknown_before, payloads }
    }

    /// Closes a message that the end of the source cut, and parses it again, to keep the payload that the cut went
    /// through.
    fn read_cut_body(&mut self, text: &[u8], out: &mut Message, first: Attempt) {
        let (events, connections, headers) = (out.events.len(), out.event_connections.len(), out.headers.len());
        let parts: Vec<_> = out.http.iter().map(|piece| (piece.side, piece.part)).collect();
        let payloads = first.payloads;
        first.undo(out);
        let (text, in_body) = close(text);
        let is_readable = self.parse(&text, out, in_body.then_some(payloads)).outcome.is_ok();
        if let Some(event) = out.events.get_mut(events)
            && is_readable
            && matches!(event.kind, EventKind::Read | EventKind::Write)
            && event.time.is_some()
            && !event.body.payload.is_empty()
        {
            event.body.truncated = true;
        } else {
            out.events.truncate(events);
            out.event_connections.truncate(connections);
        }
        // The first attempt read all complete fields. Another one now may have half a name or value.
        out.headers.truncate(headers);
        for piece in &mut out.http {
            piece.headers = (piece.headers.0.min(headers), piece.headers.1.min(headers));
        }
        for side in [HttpSide::Request, HttpSide::Response] {
            for part in [HttpPart::Headers, HttpPart::Body, HttpPart::Trailers] {
                let cut = out.http.iter_mut().find(|piece| (piece.side, piece.part) == (side, part));
                match cut.filter(|_| !parts.contains(&(side, part))) {
                    Some(piece) if is_readable && part == HttpPart::Body && !piece.body.payload.is_empty() => {
                        piece.body.truncated = true;
                    }
                    Some(_) => out.remove_http(side, Some(part)),
                    None => {}
                }
            }
        }
    }
}

/// An object whose end was not in the window when it was parsed.
#[derive(Debug)]
struct PendingObject {
    search: Search,
    /// The search met what looks like another object: a sign of damage in this one.
    is_suspect: bool,
    /// The length of the window at the last attempt.
    tried: usize,
}

impl PendingObject {
    fn new(text: &[u8]) -> Self {
        Self { search: Search::in_object(text.len()), is_suspect: false, tried: text.len() }
    }

    /// Whether the object's end is in sight.
    fn is_complete(&mut self, text: &[u8]) -> bool {
        if !self.is_suspect {
            match self.search.find(text, false) {
                Some(Found::Next(_)) => self.is_suspect = true,
                found => return found.is_some(),
            }
        }
        self.search.find_end(text).is_some()
    }

    /// Whether to parse again before the end is in sight, because a lost quote may hide it. Each attempt parses the
    /// whole text, so the text must have doubled since the last one.
    fn is_due(&self, text: &[u8]) -> bool {
        self.is_suspect && text.len() / 2 >= self.tried
    }
}

/// The result of parsing one object.
struct Attempt {
    /// The object's length.
    outcome: Result<usize, Error>,
    /// Where the error is, if this is known more exactly than serde_json tells.
    fault_at: Option<usize>,
    /// The error is that a value is not base64.
    bad_base64: bool,
    /// The unknown fields before the attempt, if it found any.
    unknown_before: Option<UnknownFields>,
    /// Bodies whose bytes were read.
    payloads: usize,
}

impl Attempt {
    /// Takes back what the attempt wrote, so that another one does not count unknown fields twice.
    fn undo(self, out: &mut Message) {
        out.clear();
        if let Some(unknown) = self.unknown_before {
            out.unknown = unknown;
        }
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// Converts serde_json's place of an error to an offset in `text`. Lines count from 1. The column is the number of
/// bytes in the line up to and including the wrong one; it is 0 if the line break before the line is wrong.
fn offset_of(error: &Error, text: &[u8]) -> usize {
    let line_start = match error.line() {
        0 | 1 => 0,
        line => memchr_iter(b'\n', text).nth(line - 2).map_or(0, |newline| newline + 1),
    };
    (line_start + error.column()).saturating_sub(1).min(text.len())
}

/// serde_json's message without the place at its end, which counts from the start of the window, not of the source. The
/// message is shortened, because it may quote a whole payload.
fn message_of(error: &Error) -> String {
    const LONGEST: usize = 160;
    let mut message = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    if let Some(without) = message.strip_suffix(&place) {
        message.truncate(without.len());
    }
    if let Some((end, _)) = message.char_indices().nth(LONGEST) {
        message.truncate(end);
        message.push('…');
    }
    message
}
