//! Reads the lines of a text, and takes off what a log wrote around each line of a trace: a prefix, or an object in
//! which the line is a string.
//!
//! Text is passed on as it is, because the decoder skips it. Only where a trace begins are its lines looked for: those
//! with the same prefix, or in records of the same writer. Lines of other writers between them are kept until the trace
//! is over, so that it comes in one piece; if one of them begins another trace, that is put together meanwhile.
//!
//! A prefix is blanked, so that offsets stay. A record is replaced by what it holds.

use std::{
    io::{self, Read},
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
};

use memchr::{memchr, memchr2, memmem};

use super::{Layer, Match, depth::Depth, log_record, prefix::Prefix};
use crate::input::around::{self, Opening};

/// Bytes that are read at once.
const READ: usize = 64 * 1024;

/// The longest line that is looked at.
const MOST_LINE: usize = 8 << 20;

/// The most bytes that wait for traces to be over.
const MOST_HELD: usize = 8 << 20;

/// The most traces whose lines may alternate.
const MOST_TRACES: usize = 16;

/// How many other lines may stand between the first two lines of a trace.
const MOST_BETWEEN: usize = 64;

/// How many times lines are looked through.
pub(super) const STAGES: usize = 3;

/// How many bytes show that a head is text. A binary trace has a byte among them that no text has.
const ENOUGH: usize = 64;

/// Whether `head` is text, and not a trace that begins at once.
pub(super) fn matches(head: &[u8], at_end: bool) -> Match {
    let text = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start();
    if !around::is_text(head) || around::opening(text).is_some() {
        return Match::No;
    }
    let is_open = match text.strip_prefix(b"{") {
        Some(after) => around::begins_other_object(after, false).is_none(),
        None => text.iter().all(|byte| byte.is_ascii_lowercase() || *byte == b'_' || *byte == b' '),
    };
    if (is_open || head.len() < ENOUGH) && !at_end { Match::Unknown } else { Match::Yes { skip: 0 } }
}

/// What was taken off so far, as bits.
#[derive(Clone, Debug, Default)]
pub(in crate::input) struct Used(Arc<AtomicU8>);

impl Used {
    const PREFIX: u8 = 1;
    const RECORD: u8 = 2;

    fn note(&self, what: &View) {
        let bit = match what {
            View::Prefix(_) => Self::PREFIX,
            View::Json(_) | View::Cri(_) => Self::RECORD,
        };
        self.0.fetch_or(bit, Ordering::Relaxed);
    }

    /// The layers that were met so far.
    pub(in crate::input) fn layers(&self) -> impl Iterator<Item = Layer> {
        let used = self.0.load(Ordering::Relaxed);
        let all = [(Self::RECORD, Layer::LogRecords), (Self::PREFIX, Layer::LinePrefix)];
        all.into_iter().filter(move |(bit, _)| used & bit != 0).map(|(_, layer)| layer)
    }
}

/// How the lines of a trace are recognised.
#[derive(Debug, PartialEq)]
enum View {
    /// They begin with a prefix.
    Prefix(Prefix),
    /// They are strings in JSON of this writer.
    Json(u64),
    /// They are lines of this stream.
    Cri(u64),
}

/// What a line holds, from some view.
enum Held<'a> {
    /// What follows this many bytes, which are to be blanked.
    After(usize),
    /// The bytes of a string, and whether the next one continues it.
    Text(&'a [u8], bool),
}

/// A trace whose lines are looked for.
#[derive(Debug)]
struct Trace {
    view: View,
    depth: Depth,
    is_text: bool,
    /// What was taken off its lines, unless that is passed on at once.
    out: Vec<u8>,
    /// Its first line as it is, until the second one shows that it is a trace.
    first: Option<Vec<u8>>,
    /// Other lines since the first one.
    between: usize,
}

/// A trace that nothing is taken off from, or text.
#[derive(Debug)]
enum Plain {
    /// Lines are looked at.
    No,
    /// A trace or another object is passed on until it is over.
    Open(Depth),
    /// An object whose lines are kept, because one of its strings may be a trace.
    Object(Depth, Vec<u8>),
    /// A line that is too long is passed on.
    Line,
}

pub(super) struct Lines {
    inside: Box<dyn Read + Send>,
    used: Used,
    /// What was read, from `at` on.
    raw: Vec<u8>,
    at: usize,
    /// How much of an incomplete line has no line break.
    looked: usize,
    ended: bool,
    out: Vec<u8>,
    out_at: usize,
    plain: Plain,
    /// The first of them is passed on line by line.
    traces: Vec<Trace>,
    /// What follows the first trace.
    later: Vec<u8>,
}

impl Read for Lines {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.out_at == self.out.len() && !self.ended {
            self.out.clear();
            self.out_at = 0;
            self.fill()?;
        }
        let count = (&self.out[self.out_at..]).read(buffer)?;
        self.out_at += count;
        Ok(count)
    }
}

impl Lines {
    pub(super) fn new(inside: Box<dyn Read + Send>, used: Used) -> Self {
        Self {
            inside,
            used,
            raw: Vec::new(),
            at: 0,
            looked: 0,
            ended: false,
            out: Vec::new(),
            out_at: 0,
            plain: Plain::No,
            traces: Vec::new(),
            later: Vec::new(),
        }
    }

    fn fill(&mut self) -> io::Result<()> {
        self.raw.drain(..self.at);
        self.at = 0;
        let start = self.raw.len();
        self.raw.resize(start + READ, 0);
        let count = match self.inside.read(&mut self.raw[start..]) {
            Ok(count) => count,
            Err(error) => {
                self.raw.truncate(start);
                if error.kind() == io::ErrorKind::Interrupted {
                    return Ok(());
                }
                // What came before the error is passed on first.
                if !self.raw.is_empty() || !self.traces.is_empty() {
                    self.inside = Box::new(Failed(Some(error)));
                    self.finish();
                    return Ok(());
                }
                return Err(error);
            }
        };
        self.raw.truncate(start + count);
        let raw = std::mem::take(&mut self.raw);
        self.lines(&raw);
        self.raw = raw;
        if count == 0 {
            self.finish();
            self.ended = true;
        } else if self.raw.len() - self.at > MOST_LINE {
            self.give_up();
            self.out.extend_from_slice(&self.raw[self.at..]);
            (self.at, self.looked) = (self.raw.len(), 0);
            self.plain = Plain::Line;
        }
        Ok(())
    }

    /// Handles what was read, as far as it consists of whole lines or need not.
    fn lines(&mut self, raw: &[u8]) {
        loop {
            let rest = &raw[self.at..];
            if rest.is_empty() {
                return;
            }
            match &mut self.plain {
                Plain::Open(depth) => {
                    let end = pass_object(depth, rest);
                    if end.is_some() {
                        self.plain = Plain::No;
                    }
                    let end = end.unwrap_or(rest.len());
                    self.out.extend_from_slice(&rest[..end]);
                    self.at += end;
                    continue;
                }
                Plain::Line => {
                    let end = memchr(b'\n', rest).map(|at| at + 1);
                    if end.is_some() {
                        self.plain = Plain::No;
                    }
                    let end = end.unwrap_or(rest.len());
                    self.out.extend_from_slice(&rest[..end]);
                    self.at += end;
                    continue;
                }
                Plain::No | Plain::Object(..) => {}
            }
            // A trace with nothing around its lines does not wait for their ends.
            if matches!(self.plain, Plain::No) && self.traces.is_empty() && self.opens_plain(rest) {
                continue;
            }
            let Some(len) = memchr(b'\n', &rest[self.looked..]) else {
                self.looked = rest.len();
                return;
            };
            let end = self.looked + len + 1;
            self.looked = 0;
            self.at += end;
            self.line(&rest[..end]);
        }
    }

    /// Passes on what is left at the end.
    fn finish(&mut self) {
        let rest = self.raw.split_off(self.at);
        (self.at, self.looked) = (0, 0);
        self.raw.clear();
        if !rest.is_empty() {
            self.line(&rest);
        }
        self.give_up();
    }

    /// Whether a plain trace begins here.
    fn opens_plain(&mut self, rest: &[u8]) -> bool {
        let is_text = match around::opening(rest) {
            Some(Opening::Json) => false,
            Some(Opening::Text) => true,
            None => return false,
        };
        self.plain = Plain::Open(Depth::new(is_text));
        true
    }

    /// Handles a line, with its line break if it has one.
    fn line(&mut self, line: &[u8]) {
        if let Plain::Object(..) = self.plain {
            return self.object_line(line);
        }
        if !self.traces.is_empty() && self.line_of_trace(line) {
            return;
        }
        if memchr2(b'{', b'[', line).is_some() && self.first_line(line) {
            return;
        }
        self.text(line);
    }

    /// Passes on a line that is of no trace.
    fn text(&mut self, line: &[u8]) {
        if self.traces.is_empty() {
            self.out.extend_from_slice(line);
            return;
        }
        self.later.extend_from_slice(line);
        self.wait();
    }

    /// Gives up traces for which too much waits.
    fn wait(&mut self) {
        let mut index = 0;
        while index < self.traces.len() {
            let trace = &mut self.traces[index];
            trace.between += 1;
            if trace.first.is_some() && trace.between > MOST_BETWEEN {
                self.end(index);
            } else {
                index += 1;
            }
        }
        let held: usize = self.traces.iter().map(|trace| trace.out.len()).sum();
        if held + self.later.len() > MOST_HELD {
            self.give_up();
        }
    }

    /// Passes on everything that waits.
    fn give_up(&mut self) {
        if let Plain::Object(_, lines) = &mut self.plain {
            let lines = std::mem::take(lines);
            self.plain = Plain::No;
            self.text(&lines);
        }
        while !self.traces.is_empty() {
            self.end(0);
        }
    }

    /// Ends the trace at `index`, whether it is whole or not.
    fn end(&mut self, index: usize) {
        let trace = self.traces.remove(index);
        let mut own = trace.first.unwrap_or_default();
        own.extend_from_slice(&trace.out);
        if index > 0 {
            self.later.extend_from_slice(&own);
            return;
        }
        self.out.extend_from_slice(&own);
        self.out.append(&mut self.later);
        // The next one is passed on line by line from now on.
        if let Some(next) = self.traces.first_mut().filter(|next| next.first.is_none()) {
            self.out.append(&mut next.out);
        }
    }

    /// Whether the line belongs to a trace that is open.
    fn line_of_trace(&mut self, line: &[u8]) -> bool {
        // A record is parsed once, for all of the traces.
        let mut records = None;
        for index in 0..self.traces.len() {
            let trace = &mut self.traces[index];
            let held = match &trace.view {
                View::Prefix(prefix) => prefix.len_in(line).map(Held::After),
                View::Cri(stream) => match log_record::of_cri(line) {
                    Some((at, of, is_partial)) if of == *stream => Some(Held::Text(cri_text(&line[at..], is_partial), is_partial)),
                    _ => None,
                },
                View::Json(writer) => {
                    let records = records.get_or_insert_with(|| json_of(line).map(log_record::of_json).unwrap_or_default());
                    let content = records.iter().find(|content| content.writer == *writer);
                    content.map(|content| Held::Text(&content.text, content.is_partial))
                }
            };
            let Some(held) = held else { continue };
            let inside = match &held {
                Held::After(len) => &line[*len..],
                Held::Text(text, _) => text,
            };
            if let Some(first) = trace.first.take() {
                if !goes_on(inside, trace.is_text) {
                    // The first line was text. This one may be the first of a trace.
                    trace.first = Some(first);
                    self.end(index);
                    return false;
                }
                self.used.note(&self.traces[index].view);
                let trace = &mut self.traces[index];
                match &trace.view {
                    View::Prefix(prefix) => {
                        let len = prefix.len_in(&first).unwrap_or_default();
                        add(trace, &first, &Held::After(len));
                    }
                    View::Cri(_) => {
                        let (at, _, is_partial) = log_record::of_cri(&first).unwrap_or_default();
                        add(trace, &first, &Held::Text(cri_text(&first[at..], is_partial), is_partial));
                    }
                    View::Json(writer) => {
                        let records = json_of(&first).map(log_record::of_json).unwrap_or_default();
                        if let Some(content) = records.iter().find(|content| content.writer == *writer) {
                            add(trace, &first, &Held::Text(&content.text, content.is_partial));
                        }
                    }
                }
            } else if begins_anew(inside) {
                // The end of the trace before is missing.
                self.end(index);
                return false;
            }
            let trace = &mut self.traces[index];
            trace.between = 0;
            let is_over = add(trace, line, &held);
            if index == 0 {
                self.out.append(&mut trace.out);
            }
            if is_over {
                self.end(index);
            } else {
                self.wait();
            }
            return true;
        }
        false
    }

    /// Whether the line may be the first one of a trace.
    fn first_line(&mut self, line: &[u8]) -> bool {
        let trimmed = line.trim_ascii_end();
        if let Some((at, stream, is_partial)) = log_record::of_cri(line) {
            return self.record(line, View::Cri(stream), &line[at..], is_partial);
        }
        if let Some(object) = json_of(line)
            && may_hold(object)
        {
            let mut any = false;
            for content in log_record::of_json(object) {
                any |= self.record(line, View::Json(content.writer), &content.text, content.is_partial);
            }
            return any;
        }
        match trimmed {
            [before @ .., b'{' | b'['] => {
                let name = around::text_name(trimmed);
                let before = name.map_or(before, |start| &trimmed[..start]);
                if before.trim_ascii().is_empty() {
                    return name.is_none() && self.object(line);
                }
                let Some(prefix) = Prefix::of(before) else { return false };
                self.open(View::Prefix(prefix), name.is_some(), line);
                true
            }
            _ => false,
        }
    }

    /// Whether a record holds the beginning of a trace, or a whole one.
    fn record(&mut self, line: &[u8], view: View, text: &[u8], is_partial: bool) -> bool {
        let trimmed = text.trim_ascii();
        let is_text = around::text_name(trimmed).is_some();
        if !(may_hold(text) || around::holds_opening(text)) {
            if matches!(trimmed, [.., b'{' | b'[']) && !is_partial {
                self.open(view, is_text, line);
                return true;
            }
            return false;
        }
        self.used.note(&view);
        let is_text = !trimmed.starts_with(b"{") && matches!(around::opening(trimmed), Some(Opening::Text));
        let mut trace =
            Trace { view, depth: Depth::new(is_text), is_text, out: Vec::new(), first: None, between: 0 };
        let text = if matches!(trace.view, View::Cri(_)) { cri_text(text, is_partial) } else { text };
        let is_over = add(&mut trace, line, &Held::Text(text, is_partial));
        if is_over || !trace.depth.is_open() {
            if self.traces.is_empty() {
                self.out.append(&mut trace.out);
            } else {
                self.later.append(&mut trace.out);
                self.wait();
            }
            return true;
        }
        if self.traces.is_empty() {
            self.out.append(&mut trace.out);
        }
        self.push(trace);
        true
    }

    fn open(&mut self, view: View, is_text: bool, line: &[u8]) {
        let first = Some(line.to_vec());
        self.push(Trace { view, depth: Depth::new(is_text), is_text, out: Vec::new(), first, between: 0 });
    }

    fn push(&mut self, trace: Trace) {
        if self.traces.len() == MOST_TRACES {
            let unsure = self.traces.iter().position(|trace| trace.first.is_some());
            self.end(unsure.unwrap_or(0));
        }
        self.traces.push(trace);
        self.wait();
    }

    /// Begins to keep the lines of an object that stands alone.
    fn object(&mut self, line: &[u8]) -> bool {
        if !self.traces.is_empty() {
            return false;
        }
        let mut depth = Depth::new(false);
        depth.pass(line);
        self.plain = Plain::Object(depth, line.to_vec());
        true
    }

    fn object_line(&mut self, line: &[u8]) {
        let Plain::Object(depth, lines) = &mut self.plain else { return };
        let end = pass_object(depth, line);
        let start = lines.len();
        lines.extend_from_slice(line);
        let is_trace = around::is_member(&lines[start..]);
        if end.is_none() && !is_trace && lines.len() <= MOST_LINE {
            return;
        }
        let (depth, lines) = (*depth, std::mem::take(lines));
        self.plain = Plain::No;
        if end.is_none() {
            self.out.extend_from_slice(&lines);
            self.plain = Plain::Open(depth);
            return;
        }
        let mut any = false;
        if !is_trace && may_hold(&lines) {
            for content in log_record::of_json(&lines) {
                any |= self.record(&lines, View::Json(content.writer), &content.text, content.is_partial);
            }
        }
        if !any {
            self.text(&lines);
        }
    }
}

/// Fails once, after everything that came before.
struct Failed(Option<io::Error>);

impl Read for Failed {
    fn read(&mut self, _buffer: &mut [u8]) -> io::Result<usize> {
        self.0.take().map_or(Ok(0), Err)
    }
}

/// Adds what a line holds to its trace, and returns whether the trace is over.
fn add(trace: &mut Trace, line: &[u8], held: &Held<'_>) -> bool {
    match held {
        Held::After(len) => {
            trace.out.resize(trace.out.len() + len, b' ');
            trace.out.extend_from_slice(&line[*len..]);
            ended(&mut trace.depth, &line[*len..])
        }
        Held::Text(text, is_partial) => {
            trace.out.extend_from_slice(text);
            let is_over = ended(&mut trace.depth, text);
            // Without its line break, a name or number of the text format would run into the next line.
            if !text.ends_with(b"\n") && (is_over || trace.is_text && !is_partial && !trace.depth.in_string()) {
                trace.out.push(b'\n');
            }
            is_over
        }
    }
}

/// Whether the last trace in `text` is over.
fn ended(depth: &mut Depth, text: &[u8]) -> bool {
    let mut rest = text;
    let mut is_over = false;
    while let Some(end) = depth.pass(rest) {
        is_over = true;
        rest = &rest[end..];
    }
    is_over && !depth.is_open()
}

/// Goes on with an object that is passed on, and returns where it is over. Its end is missing if another object begins
/// in the first column.
fn pass_object(depth: &mut Depth, text: &[u8]) -> Option<usize> {
    let anew = memmem::find(text, b"\n{").map(|at| at + 1);
    depth.pass(&text[..anew.unwrap_or(text.len())]).or(anew)
}

/// The line of a container without the line break that was added to a part of it.
fn cri_text(text: &[u8], is_partial: bool) -> &[u8] {
    if !is_partial {
        return text;
    }
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    text.strip_suffix(b"\r").unwrap_or(text)
}

/// The object that the line consists of, after a prefix.
fn json_of(line: &[u8]) -> Option<&[u8]> {
    let start = memmem::find(line, b"{\"").or_else(|| memmem::find(line, b"{ \""))?;
    line.trim_ascii_end().ends_with(b"}").then_some(&line[start..])
}

/// Whether a string in the object may be a trace, or a line that begins one.
fn may_hold(object: &[u8]) -> bool {
    around::holds_quoted_name(object)
        || memmem::find_iter(object, b"{\\n\"").next().is_some()
        || memmem::find_iter(object, b"{\\r\\n\"").next().is_some()
        || memmem::find_iter(object, b"[\\n\"").next().is_some()
        || memmem::find_iter(object, b"{\"").any(|at| {
            let after = object[at + 2..].trim_ascii_start();
            matches!(after, [b',' | b'}', ..])
        })
}

/// Whether a trace goes on with this line after its first one.
fn goes_on(inside: &[u8], is_text: bool) -> bool {
    let line = inside.trim_ascii();
    if is_text {
        let name = line.iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count();
        return name > 0 && matches!(line[name..].trim_ascii_start(), [b':' | b'{' | b'<', ..]) || line == b"}";
    }
    let key = line.strip_prefix(b"\"").and_then(|key| Some(&key[memchr(b'"', key)? + 1..]));
    matches!(line, [b'{' | b'[', ..])
        || key.is_some_and(|rest| rest.trim_ascii_start().starts_with(b":"))
        || around::holds_name(line)
}

/// Whether an object begins in the first column, where no member of a trace does.
fn begins_anew(inside: &[u8]) -> bool {
    inside.trim_ascii_end() == b"{"
}
