//! Reads the lines of a text, and takes off what a log wrote around each line of a trace: a prefix, or an object in
//! which the line is a string.
//!
//! Text is passed on as it is, because the decoder skips it. Only where a trace begins are its lines looked for: those
//! with the same prefix, or in records of the same writer. Lines of other writers between them are kept until the trace
//! is over, so that it comes in one piece; if one of them begins another trace, that is put together meanwhile.
//!
//! A prefix is blanked, so that offsets stay. A record is replaced by what it holds.

#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    io::{self, Read},
};

use memchr::{memchr, memchr2, memchr2_iter, memmem};

use super::{
    Failed, Layer, Match, Rewound,
    depth::Depth,
    envelope::Envelope,
    log_record::{self, Content},
    met::Met,
    prefix::Prefix,
};
use crate::input::{
    around::{self, Opening},
    decode::BYTE_ORDER_MARK,
    outline::{Stop, wrapper},
};

/// Bytes that are read at once.
const READ: usize = 64 * 1024;

/// The longest line that is looked at.
const MOST_LINE: usize = 8 << 20;

/// The most bytes of memory that are kept from one read to the next.
const MOST_KEPT: usize = 1 << 20;

/// The most bytes that wait for traces to be over.
const MOST_HELD: usize = 8 << 20;

/// The most traces whose lines may alternate.
const MOST_TRACES: usize = 64;

/// The most strings of one record that may each be the first line of a trace.
const MOST_VIEWS: usize = 16;

/// How many lines wait for the second line of a trace, and how many bytes.
const MOST_WAITING: usize = 64;
const MOST_WAITING_BYTES: usize = 256 * 1024;

/// How many times lines are looked through.
pub(super) const STAGES: usize = 4;

/// How many bytes show that a head is text. A binary trace has a byte among them that no text has.
const ENOUGH: usize = 64;

/// Whether `head` is text, and not a trace that begins at once.
pub(super) fn matches(head: &[u8], at_end: bool) -> Match {
    let text = head.strip_prefix(BYTE_ORDER_MARK).unwrap_or(head).trim_ascii_start();
    if !around::is_text(head) || around::opening(text).is_some() {
        return Match::No;
    }
    let is_open = match text.strip_prefix(b"{") {
        Some(after) => around::begins_other_object(after, false).is_none(),
        None => text.iter().all(|byte| byte.is_ascii_lowercase() || *byte == b'_' || *byte == b' '),
    };
    if (is_open || head.len() < ENOUGH) && !at_end { Match::Unknown } else { Match::Yes { skip: 0 } }
}

/// How the lines of a trace are recognised.
#[derive(Clone, Debug, PartialEq)]
enum View {
    /// They begin with a prefix.
    Prefix(Prefix),
    /// They are strings in records of this writer. The flag says that their key is that of a line.
    Record(u64, bool),
    /// They are lines of this stream.
    Cri(u64),
}

/// Whether the line is surely a log's, and seems to begin a trace.
pub(super) fn begins_in_log(line: &[u8]) -> bool {
    let line = line.trim_ascii_end();
    if let Some((at, ..)) = log_record::of_cri(line) {
        return matches!(line[at..].trim_ascii(), [b'{', ..] | [.., b'{']) || around::holds_name(&line[at..]);
    }
    let prefix = match line {
        [.., b'{' | b'['] => prefix_of(line).map(|(prefix, _)| prefix),
        _ => around::opening_in(line).and_then(|start| Prefix::of(&line[..start])),
    };
    prefix.is_some_and(|prefix| prefix.is_of_log())
}

/// What a line holds, from some view.
enum Held<'a> {
    /// What follows this many bytes, which are to be blanked.
    After(usize),
    /// The bytes of a string, and whether the next one continues it.
    Text(&'a [u8], bool),
}

impl Held<'_> {
    /// What the line holds.
    fn inside<'a>(&'a self, line: &'a [u8]) -> &'a [u8] {
        match self {
            Self::After(len) => &line[*len..],
            Self::Text(text, _) => text,
        }
    }
}

/// The records that a line consists of, parsed when they are needed.
struct Records<'a> {
    line: &'a [u8],
    contents: Option<Vec<Content>>,
}

impl<'a> Records<'a> {
    fn new(line: &'a [u8]) -> Self {
        Self { line, contents: None }
    }

    fn contents(&mut self) -> &[Content] {
        let line = self.line;
        self.contents.get_or_insert_with(|| match json_of(line).map(log_record::of_json) {
            Some(contents) if !contents.is_empty() => contents,
            _ => log_record::of_fields(line).unwrap_or_default(),
        })
    }
}

impl View {
    fn layer(&self) -> Layer {
        match self {
            Self::Prefix(_) => Layer::LinePrefix,
            Self::Record(..) | Self::Cri(_) => Layer::LogRecords,
        }
    }

    /// What the line holds, if it is one of this view.
    fn held<'a>(&self, line: &'a [u8], records: &'a mut Records<'_>) -> Option<Held<'a>> {
        match self {
            Self::Prefix(prefix) => prefix.len_in(line).map(Held::After),
            Self::Cri(stream) => {
                let (at, of, is_partial) = log_record::of_cri(line)?;
                (of == *stream).then_some(Held::Text(cri_text(&line[at..], is_partial), is_partial))
            }
            Self::Record(writer, _) => {
                let content = records.contents().iter().find(|content| content.writer == *writer)?;
                Some(Held::Text(&content.text, content.is_partial))
            }
        }
    }
}

/// A trace whose lines are looked for.
#[derive(Debug)]
struct Trace {
    view: View,
    depth: Depth,
    is_text: bool,
    /// What comes next continues a line that the log has split.
    in_line: bool,
    /// Nothing else is around its lines, as a prefix may be in records. The first line tells.
    is_plain: Option<bool>,
    /// What was taken off its lines, unless that is passed on at once.
    out: Vec<u8>,
}

impl Trace {
    fn new(view: View, is_text: bool) -> Self {
        Self { view, depth: Depth::new(is_text), is_text, in_line: false, is_plain: None, out: Vec::new() }
    }
}

/// A line that waits.
#[derive(Debug)]
struct Waiting {
    line: Vec<u8>,
    /// It may be the first one of a trace, which the second one will show.
    views: Vec<(View, bool)>,
}

/// A trace that nothing is taken off from, or text.
#[derive(Debug)]
enum Plain {
    /// Lines are looked at.
    No,
    /// A trace or another object is passed on until it is over. The flag says that a line begins here.
    Open(Depth, bool),
    /// An object whose lines are kept, because one of its strings may be a trace.
    Object(Depth, Vec<u8>),
    /// A row of CSV with a column of several lines. The number counts those after the first one.
    Column(Vec<u8>, usize),
    /// A line that is too long is passed on.
    Line,
    /// A line of an open trace that is too long is left out. What is left of the trace is damaged, and must end.
    Dropped,
    /// This is no text, and all of it is passed on.
    Binary,
}

pub(super) struct Lines {
    inside: Box<dyn Read + Send>,
    met: Met,
    /// Room for a read, cleared once: the layer below may give a few bytes at a time.
    room: Box<[u8]>,
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
    /// Lines that may be the first one of a trace, and those after them.
    waiting: VecDeque<Waiting>,
    waiting_bytes: usize,
    /// There was a trace, or a record.
    any: bool,
    /// Where lines are that are records too. All of those are taken out, for the next look.
    nested: Vec<View>,
    /// What follows the first trace.
    later: Vec<u8>,
}

impl Read for Lines {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.out_at == self.out.len() && !self.ended {
            self.out.clear();
            // Only a long line takes more.
            self.out.shrink_to(MOST_KEPT);
            self.out_at = 0;
            self.fill()?;
        }
        let count = (&self.out[self.out_at..]).read(buffer)?;
        self.out_at += count;
        Ok(count)
    }
}

impl Lines {
    pub(super) fn new(inside: Box<dyn Read + Send>, met: Met) -> Self {
        Self {
            inside,
            met,
            room: vec![0; READ].into_boxed_slice(),
            raw: Vec::new(),
            at: 0,
            looked: 0,
            ended: false,
            out: Vec::new(),
            out_at: 0,
            plain: Plain::No,
            traces: Vec::new(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            any: false,
            nested: Vec::new(),
            later: Vec::new(),
        }
    }

    fn fill(&mut self) -> io::Result<()> {
        // What is left is moved only if it is the smaller part, so that each byte moves once.
        if self.at * 2 >= self.raw.len() {
            self.raw.drain(..self.at);
            self.at = 0;
        }
        let count = match self.inside.read(&mut self.room) {
            Ok(count) => count,
            Err(error) => {
                if error.kind() == io::ErrorKind::Interrupted {
                    return Ok(());
                }
                // What came before the error is passed on first.
                if self.at < self.raw.len() || !self.traces.is_empty() || !self.waiting.is_empty() {
                    self.inside = Box::new(Failed(Some(error)));
                    self.finish();
                    return Ok(());
                }
                return Err(error);
            }
        };
        self.raw.extend_from_slice(&self.room[..count]);
        let raw = std::mem::take(&mut self.raw);
        self.lines(&raw);
        self.raw = raw;
        if count == 0 {
            self.finish();
            self.ended = true;
        } else if self.raw.len() - self.at > MOST_LINE {
            let is_of_trace = !self.traces.is_empty();
            self.give_up();
            // The line is long, so that it is handed on without a copy.
            let mut line = std::mem::take(&mut self.raw);
            line.drain(..self.at);
            if self.out.is_empty() {
                self.out = line;
            } else {
                self.out.append(&mut line);
            }
            (self.at, self.looked) = (0, 0);
            self.plain = if is_of_trace { Plain::Dropped } else { Plain::Line };
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
                Plain::Open(depth, at_line) => {
                    let end = if *at_line && rest[0] == b'{' { Some(0) } else { pass_object(depth, rest) };
                    *at_line = rest.ends_with(b"\n");
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
                Plain::Dropped => {
                    let end = memchr(b'\n', rest);
                    if end.is_some() {
                        self.plain = Plain::No;
                    }
                    self.at += end.map_or(rest.len(), |at| at + 1);
                    continue;
                }
                Plain::Binary => {
                    self.out.extend_from_slice(rest);
                    self.at = raw.len();
                    return;
                }
                Plain::No | Plain::Object(..) | Plain::Column(..) => {}
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
        // A blank line is looked at by itself: were the lines after it passed over here, many of them would take the
        // square of their number.
        let blanks = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        if matches!(rest.get(blanks), None | Some(b'\r' | b'\n')) {
            return false;
        }
        let is_text = match around::opening(&rest[blanks..]) {
            Some(Opening::Json) => false,
            Some(Opening::Text) => true,
            None => return false,
        };
        self.stop_waiting();
        self.looked = 0;
        self.any = true;
        self.plain = Plain::Open(Depth::new(is_text), false);
        true
    }

    /// Handles a line, with its line break if it has one.
    fn line(&mut self, line: &[u8]) {
        match self.plain {
            Plain::Object(..) => return self.object_line(line),
            Plain::Column(..) => return self.column_line(line),
            _ => {}
        }
        if !self.any && self.traces.is_empty() && !around::is_text(line) {
            // A binary trace after text must stay what it is.
            self.stop_waiting();
            self.out.extend_from_slice(line);
            self.plain = Plain::Binary;
            return;
        }
        // A record is parsed once, for all that look at it.
        let mut records = Records::new(line);
        if self.line_of_trace(line, &mut records) || self.second_line(line, &mut records) {
            return;
        }
        if self.traces.is_empty() && self.goes_on_plainly(line) {
            return;
        }
        if memchr2(b'{', b'[', line).is_some() && self.first_line(line, &mut records) {
            return;
        }
        self.wait(line, Vec::new());
    }

    /// Keeps a line until those before it are known to be text, or passes it on.
    fn wait(&mut self, line: &[u8], views: Vec<(View, bool)>) {
        if self.waiting.is_empty() && views.is_empty() {
            return self.text(line);
        }
        self.waiting.push_back(Waiting { line: line.to_vec(), views });
        self.waiting_bytes += line.len();
        if self.waiting.len() > MOST_WAITING || self.waiting_bytes > MOST_WAITING_BYTES {
            self.pass_on_first();
        }
        self.pass_on_text();
    }

    /// Passes on the lines that wait for nothing.
    fn pass_on_text(&mut self) {
        while self.waiting.front().is_some_and(|first| first.views.is_empty()) {
            self.pass_on_first();
        }
    }

    fn pass_on_first(&mut self) {
        if let Some(first) = self.waiting.pop_front() {
            self.waiting_bytes -= first.line.len();
            self.text(&first.line);
        }
    }

    fn stop_waiting(&mut self) {
        while !self.waiting.is_empty() {
            self.pass_on_first();
        }
    }

    /// Passes on text. It does not come into the middle of a trace.
    fn text(&mut self, text: &[u8]) {
        if self.traces.is_empty() {
            self.out.extend_from_slice(text);
        } else {
            self.later.extend_from_slice(text);
            self.limit();
        }
    }

    /// Gives up the traces if too much waits for their ends.
    fn limit(&mut self) {
        let held: usize = self.traces.iter().map(|trace| trace.out.len()).sum();
        if held + self.later.len() > MOST_HELD {
            while !self.traces.is_empty() {
                self.end(0);
            }
        }
    }

    /// Passes on everything that waits.
    fn give_up(&mut self) {
        if let Plain::Object(_, lines) | Plain::Column(lines, _) = &mut self.plain {
            let lines = std::mem::take(lines);
            self.plain = Plain::No;
            self.text(&lines);
        }
        while !self.traces.is_empty() {
            self.end(0);
        }
        self.stop_waiting();
    }

    /// Ends the trace at `index`, whether it is whole or not.
    fn end(&mut self, index: usize) {
        let mut trace = self.traces.remove(index);
        if index > 0 {
            self.later.append(&mut trace.out);
            return self.limit();
        }
        self.out.append(&mut trace.out);
        self.out.append(&mut self.later);
        // The next one is passed on line by line from now on.
        if let Some(next) = self.traces.first_mut() {
            self.out.append(&mut next.out);
        }
    }

    /// Whether the line belongs to a trace that is open.
    fn line_of_trace(&mut self, line: &[u8], records: &mut Records<'_>) -> bool {
        for index in 0..self.traces.len() {
            let trace = &mut self.traces[index];
            let Some(held) = trace.view.held(line, records) else { continue };
            let inside = held.inside(line);
            if begins_anew(inside) {
                // The end of the trace before is missing.
                self.end(index);
                return false;
            }
            if trace.is_plain == Some(true)
                && !trace.in_line
                && !trace.depth.in_string()
                && !may_go_on(inside, trace.is_text)
            {
                // The writer has written something else in between.
                return false;
            }
            self.add(index, line, &held);
            return true;
        }
        false
    }

    /// Adds a line to a trace, and ends it if it is over.
    fn add(&mut self, index: usize, line: &[u8], held: &Held<'_>) {
        let trace = &mut self.traces[index];
        let is_over = add(trace, line, held);
        if index == 0 {
            self.out.append(&mut trace.out);
        }
        if is_over {
            self.end(index);
        } else {
            self.limit();
        }
    }

    /// Whether the line is the second one of a trace.
    fn second_line(&mut self, line: &[u8], records: &mut Records<'_>) -> bool {
        for index in 0..self.waiting.len() {
            let first = &mut self.waiting[index];
            for view in 0..first.views.len() {
                let (view_of, is_text) = &first.views[view];
                let Some(held) = view_of.held(line, records) else { continue };
                if !may_go_on(held.inside(line), *is_text) && !around::holds_name(held.inside(line)) {
                    // The writer has written something else in between.
                    continue;
                }
                let mut first_records = Records::new(&first.line);
                let Some(begins) = view_of.held(&first.line, &mut first_records) else { continue };
                let may_be_part = !matches!(view_of, View::Prefix(_));
                let (begins, held) = (begins.inside(&first.line), held.inside(line));
                let is_weak = matches!(view_of, View::Record(_, false)) && !*is_text && !around::holds_name(held);
                if is_weak || !goes_on(begins, held, *is_text, may_be_part) {
                    // The first line was text. This one may be the first of a trace.
                    first.views.remove(view);
                    self.pass_on_text();
                    return false;
                }
                self.met.line(view_of.layer());
                let is_text = *is_text;
                let (view, _) = first.views.swap_remove(view);
                // Text before the trace stays there.
                if self.traces.is_empty() {
                    for _ in 0..index {
                        self.pass_on_first();
                    }
                }
                let at = if self.traces.is_empty() { 0 } else { index };
                let Some(first) = self.waiting.remove(at) else { return false };
                self.waiting_bytes -= first.line.len();
                let mut trace = Trace::new(view, is_text);
                let mut records = Records::new(&first.line);
                if let Some(held) = trace.view.held(&first.line, &mut records) {
                    add(&mut trace, &first.line, &held);
                }
                self.push(trace);
                self.pass_on_text();
                return self.line_of_trace(line, &mut Records::new(line));
            }
        }
        false
    }

    /// Whether the line goes on with a trace that begins after other text on the line before.
    fn goes_on_plainly(&mut self, line: &[u8]) -> bool {
        let Some(last) = self.waiting.back().filter(|last| !last.views.is_empty()) else { return false };
        let trimmed = last.line.trim_ascii_end();
        let is_text = around::text_name(trimmed).is_some();
        let goes_on = match trimmed {
            [.., b'{'] if is_text => matches!(line, [b' ' | b'\t', ..]) && goes_on(b"{", line, true, false),
            [.., b'{'] => around::is_member(line),
            _ => false,
        };
        let depth = match around::opening_in(&last.line) {
            Some(start) => {
                let mut depth = Depth::new(last.line[start] != b'{');
                depth.pass(&last.line[start..]);
                depth
            }
            None if goes_on => {
                let mut depth = Depth::new(is_text);
                depth.pass(b"{");
                depth
            }
            None => return false,
        };
        self.stop_waiting();
        let mut depth = depth;
        if depth.is_open() && pass_object(&mut depth, line).is_none() {
            self.plain = Plain::Open(depth, line.ends_with(b"\n"));
        }
        self.out.extend_from_slice(line);
        true
    }

    /// Whether the line may be the first one of a trace.
    fn first_line(&mut self, line: &[u8], records: &mut Records<'_>) -> bool {
        if let Some((at, stream, is_partial)) = log_record::of_cri(line) {
            let text = cri_text(&line[at..], is_partial);
            return self.record(line, [(View::Cri(stream), text, is_partial)].into_iter());
        }
        if json_of(line).is_some_and(|json| self.has_nested() || may_hold(json)) && self.json_record(line, records) {
            return true;
        }
        if may_hold_in_fields(line) && self.json_record(line, records) {
            return true;
        }
        if self.traces.is_empty() && log_record::opens_column(line) {
            self.plain = Plain::Column(line.to_vec(), 0);
            return true;
        }
        if self.traces.is_empty() && self.envelope(line) {
            return true;
        }
        if let Some(start) = around::opening_in(line).filter(|start| line[..*start].trim_ascii() != b"") {
            return self.one_line(line, start);
        }
        let trimmed = line.trim_ascii_end();
        if opens_json(trimmed) {
            return self.object(line);
        }
        let Some((prefix, is_text)) = prefix_of(line) else { return false };
        self.wait(line, vec![(View::Prefix(prefix), is_text)]);
        true
    }

    /// Whether an object that holds a trace somewhere is at the end of the line, after other text.
    fn envelope(&mut self, line: &[u8]) -> bool {
        let Some(object) = json_of(line).filter(|object| object.starts_with(b"{") && around::holds_name(object)) else {
            return false;
        };
        let start = line.trim_ascii_end().len() - object.len();
        if around::opening(object).is_some() || Prefix::of(&line[..start]).is_none_or(|prefix| !prefix.is_of_log()) {
            return false;
        }
        // If there is no trace, the line is text as a whole.
        let mut envelope = Envelope::new(Rewound::new(object.to_vec(), Box::new(io::empty())), Met::default());
        let mut inside = Vec::new();
        if envelope.read_to_end(&mut inside).is_err() || inside.trim_ascii().is_empty() {
            return false;
        }
        self.any = true;
        self.met.line(Layer::LogRecords);
        self.stop_waiting();
        let mut blanked = vec![b' '; start];
        blanked.append(&mut inside);
        blanked.extend_from_slice(&line[start + object.len()..]);
        self.text(&blanked);
        true
    }

    /// Whether a trace begins on the line after other text. That is blanked if it is surely a prefix, not a prompt.
    fn one_line(&mut self, line: &[u8], start: usize) -> bool {
        let (before, inside) = line.split_at(start);
        let is_text = inside.first() != Some(&b'{');
        let Some(prefix) = Prefix::of(before) else { return false };
        let is_of_log = prefix.is_of_log();
        let mut trace = Trace::new(View::Prefix(prefix), is_text);
        let is_over = add(&mut trace, line, &Held::After(start));
        if is_over && !is_of_log {
            return false;
        }
        if is_over {
            self.met.line(trace.view.layer());
            self.stop_waiting();
            self.text(&trace.out);
        } else {
            self.wait(line, vec![(trace.view, is_text)]);
        }
        true
    }

    fn has_nested(&self) -> bool {
        self.nested.iter().any(|view| matches!(view, View::Record(..)))
    }

    /// Whether a record in JSON holds the beginning of a trace, or a whole one.
    fn json_record(&mut self, line: &[u8], records: &mut Records<'_>) -> bool {
        let contents = records.contents().iter();
        let contents = contents.map(|it| (View::Record(it.writer, it.is_known), it.text.as_slice(), it.is_partial));
        self.record(line, contents)
    }

    /// Whether records hold the beginning of a trace, or a whole one.
    fn record<'a>(&mut self, line: &[u8], contents: impl Iterator<Item = (View, &'a [u8], bool)>) -> bool {
        let mut views = Vec::new();
        let mut any = false;
        for (view, text, is_partial) in contents {
            let trimmed = text.trim_ascii();
            let is_json = matches!(trimmed, [b'{' | b'[' | b'"', ..]);
            let is_nested = is_json && self.nested.contains(&view);
            if !is_nested && matches!(view, View::Record(_, false)) && !begins_trace(text) {
                continue;
            }
            let is_record = may_hold(text);
            if !is_nested && !is_record && around::opening_in(text).is_none() {
                if matches!(trimmed, [.., b'{' | b'[']) && !is_partial && views.len() < MOST_VIEWS {
                    views.push((view, around::text_name(trimmed).is_some()));
                }
                continue;
            }
            any = true;
            if is_record && is_json && !is_nested && self.nested.len() < MOST_VIEWS {
                self.nested.push(view.clone());
            }
            self.any = true;
            self.met.line(view.layer());
            self.stop_waiting();
            let mut trace = Trace::new(view, matches!(around::opening(trimmed), Some(Opening::Text)));
            let is_over = add(&mut trace, line, &Held::Text(text, is_partial));
            if is_over || !trace.depth.is_open() {
                self.text(&trace.out);
            } else {
                let index = self.push(trace);
                if index == 0 {
                    self.out.append(&mut self.traces[0].out);
                }
            }
        }
        if !any && !views.is_empty() {
            // What looks like the columns of a row may be a prefix.
            if views.iter().any(|(view, _)| matches!(view, View::Record(..))) {
                views.extend(prefix_of(line).map(|(prefix, is_text)| (View::Prefix(prefix), is_text)));
            }
            self.wait(line, views);
            any = true;
        }
        any
    }

    /// Looks for the lines of one more trace.
    fn push(&mut self, trace: Trace) -> usize {
        if self.traces.len() == MOST_TRACES {
            self.end(0);
        }
        self.any = true;
        self.traces.push(trace);
        self.traces.len() - 1
    }

    /// Begins to keep the lines of JSON that stands alone. While a trace is open, only a record may go on with it.
    fn object(&mut self, line: &[u8]) -> bool {
        if !self.traces.is_empty() && !self.traces.iter().any(|trace| matches!(trace.view, View::Record(..))) {
            return false;
        }
        let mut depth = Depth::new(false);
        depth.pass(line);
        self.plain = Plain::Object(depth, line.to_vec());
        true
    }

    /// Goes on with a row of CSV.
    fn column_line(&mut self, line: &[u8]) {
        let Plain::Column(lines, count) = &mut self.plain else { return };
        let is_over = log_record::goes_on_column(line)
            .filter(|is_over| *count > 0 || *is_over || has_doubled_quote(line) || matches!(line, [b' ' | b'\t', ..]));
        lines.extend_from_slice(line);
        *count += 1;
        if is_over == Some(false) && lines.len() <= MOST_LINE {
            return;
        }
        let lines = std::mem::take(lines);
        self.plain = Plain::No;
        let mut records = Records::new(&lines);
        if is_over == Some(true) && self.json_record(&lines, &mut records) {
            return;
        }
        // It was something else, whose lines may begin a trace.
        if is_over.is_none() && lines.len() <= MOST_WAITING_BYTES {
            for (index, line) in lines.split_inclusive(|byte| *byte == b'\n').enumerate() {
                if index == 0 { self.wait(line, Vec::new()) } else { self.line(line) }
            }
        } else {
            self.text(&lines);
        }
    }

    fn object_line(&mut self, line: &[u8]) {
        let Plain::Object(depth, lines) = &mut self.plain else { return };
        // Nothing in an object indents less than this, so its end is missing.
        if line.starts_with(b"{") && lines.starts_with(b"{") {
            let lines = std::mem::take(lines);
            self.plain = Plain::No;
            self.wait(&lines, Vec::new());
            return self.line(line);
        }
        let end = pass_object(depth, line);
        let start = lines.len();
        lines.extend_from_slice(line);
        let is_trace = self.traces.is_empty() && around::is_member(&lines[start..]);
        if end.is_none() && !is_trace && lines.len() <= MOST_LINE {
            return;
        }
        let (depth, lines) = (*depth, std::mem::take(lines));
        self.plain = Plain::No;
        if end.is_none() && self.traces.is_empty() {
            self.stop_waiting();
            self.out.extend_from_slice(&lines);
            self.plain = Plain::Open(depth, lines.ends_with(b"\n"));
            return;
        }
        let mut records = Records::new(&lines);
        let is_record = !is_trace
            && end.is_some()
            && (self.line_of_trace(&lines, &mut records)
                || self.second_line(&lines, &mut records)
                || (self.has_nested() || may_hold(&lines)) && self.json_record(&lines, &mut records));
        if !is_record {
            self.wait(&lines, Vec::new());
        }
    }
}

/// The prefix of a line that may be the first one of a trace, and whether that is in the text format.
fn prefix_of(line: &[u8]) -> Option<(Prefix, bool)> {
    let trimmed = line.trim_ascii_end();
    let (b'{' | b'[', before) = trimmed.split_last()? else { return None };
    let name = around::text_name(trimmed);
    let before = name.map_or(before, |start| &trimmed[..start]);
    Some((Prefix::of(before)?, name.is_some()))
}

/// Adds what a line holds to its trace, and returns whether the trace is over.
fn add(trace: &mut Trace, line: &[u8], held: &Held<'_>) -> bool {
    trace.is_plain.get_or_insert_with(|| match held.inside(line).trim_ascii() {
        [b'{', ..] => true,
        [b'[', rest @ ..] => may_be_array(rest),
        inside => around::text_name(inside) == Some(0),
    });
    match held {
        Held::After(len) => {
            trace.out.resize(trace.out.len() + len, b' ');
            trace.out.extend_from_slice(&line[*len..]);
            ended(&mut trace.depth, &line[*len..])
        }
        Held::Text(text, is_partial) => {
            trace.in_line = *is_partial;
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

/// The JSON that the line consists of, or the object after a prefix.
fn json_of(line: &[u8]) -> Option<&[u8]> {
    let text = line.trim_ascii();
    if matches!(text, [b'{', .., b'}'] | [b'[', .., b']'] | [b'"', .., b'"']) {
        return Some(text);
    }
    let start = memmem::find(text, b"{\"").or_else(|| memmem::find(text, b"{ \""))?;
    text.ends_with(b"}").then_some(&text[start..])
}

/// Whether a line of fields may hold a trace, or a line that begins one.
fn may_hold_in_fields(line: &[u8]) -> bool {
    let brace = |at: usize| {
        let after = line[at + 1..].strip_prefix(b"\"").unwrap_or(&line[at + 1..]);
        at > 0
            && matches!(line[at - 1], b'=' | b',' | b';' | b'\t' | b'"')
            && matches!(after, [] | [b' ' | b'\r' | b'\n' | b',' | b';' | b'\t', ..])
    };
    may_hold(line) || memchr2_iter(b'{', b'[', line).any(brace) || has_doubled_quote(line) && around::holds_name(line)
}

fn has_doubled_quote(line: &[u8]) -> bool {
    memmem::find(line, b"\"\"").is_some()
}

/// Whether JSON that is no trace begins with this line, and goes on.
fn opens_json(line: &[u8]) -> bool {
    let text = line.trim_ascii_start();
    let braces = text.iter().take_while(|byte| matches!(byte, b'{' | b'[' | b' ')).count();
    let is_json = matches!(text, [b'{' | b'[', ..]) && matches!(&text[braces..], [] | [b'"', ..]);
    if !is_json || around::opening(text).is_some() {
        return false;
    }
    let mut depth = Depth::new(false);
    depth.pass(text).is_none() && depth.is_open() && !depth.in_string()
}

/// Whether a string whose key says nothing begins with a trace, or with its first line, or is JSON that may hold one.
fn begins_trace(text: &[u8]) -> bool {
    let trimmed = text.trim_ascii();
    trimmed == b"{"
        || matches!(trimmed, [b'{' | b'[' | b'"', ..]) && may_hold(trimmed)
        || around::text_name(trimmed) == Some(0)
        || around::opening_in(text).is_some_and(|start| {
            let line = memchr::memrchr(b'\n', &text[..start]).map_or(0, |at| at + 1);
            let begins = text[start..].strip_prefix(b"{").is_none_or(|after| wrapper(after) != Err(Stop::Other));
            begins && text[line..start].trim_ascii().is_empty()
        })
}

/// Whether a string in JSON may be a trace, or a line that begins one, however often it is quoted.
pub(super) fn may_hold(json: &[u8]) -> bool {
    around::holds_quoted_name(json)
        || memchr2_iter(b'{', b'[', json).any(|at| ends_string(&json[at + 1..]))
        || memmem::find(json, b"\"MESSAGE\"").is_some_and(|at| {
            let after = json[at..].iter().skip(9).find(|byte| !matches!(byte, b' ' | b':'));
            after == Some(&b'[')
        })
}

/// Whether a string ends here, perhaps after line breaks. It may be in the string of another one.
fn ends_string(rest: &[u8]) -> bool {
    let backslashes = |rest: &[u8]| rest.iter().take_while(|byte| **byte == b'\\').count();
    let mut rest = rest;
    loop {
        let len = backslashes(rest);
        match &rest[len..] {
            [b'n' | b'r', after @ ..] if len > 0 => rest = after,
            [b'"', after @ ..] => {
                let after = after.trim_ascii_start();
                let after = &after[backslashes(after)..];
                return matches!(after, [] | [b',' | b'}' | b']' | b'"', ..]);
            }
            _ => return false,
        }
    }
}

/// Whether a trace goes on with this line after `first`. Of a record, it `may_be_part` of a line.
fn goes_on(first: &[u8], inside: &[u8], is_text: bool, may_be_part: bool) -> bool {
    let (first, line) = (first.trim_ascii(), inside.trim_ascii());
    if is_text {
        let name = line.iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count();
        return name > 0 && matches!(line[name..].trim_ascii_start(), [b':' | b'{' | b'<', ..]) || line == b"}";
    }
    // What stands before the brace may be another prefix.
    if around::holds_name(line) || first.len() > 1 {
        return around::holds_name(line);
    }
    let key = line.strip_prefix(b"\"").and_then(|key| Some(&key[memchr(b'"', key)? + 1..]));
    match first {
        b"[" => matches!(line, [b'{' | b'[', ..]),
        _ => match key.map(<[u8]>::trim_ascii_start) {
            Some([b':', ..]) => true,
            // The line ends in the key.
            Some([]) => may_be_part,
            None => may_be_part && line.starts_with(b"\""),
            Some(_) => false,
        },
    }
}

/// Whether a line, or what a pipeline has made of one, may be in the middle of a trace.
fn may_go_on(inside: &[u8], is_text: bool) -> bool {
    let line = inside.trim_ascii();
    let word = line.iter().take_while(|byte| byte.is_ascii_alphanumeric() || b"_+-.".contains(byte)).count();
    let after = line[word..].trim_ascii_start();
    match line {
        [] | [b'"' | b'}' | b']', ..] => true,
        [b'\'' | b'#' | b'>', ..] if is_text => true,
        _ if is_text => {
            let is_name = |word: &[u8]| word[0].is_ascii_lowercase() && !word.iter().any(|byte| b"+-.".contains(byte));
            word > 0 && is_name(&line[..word]) && matches!(after, [b':' | b'{' | b'<' | b'[', ..])
        }
        [b'{', ..] => !is_whole_object(inside),
        [b':' | b',', ..] => true,
        [b'[', rest @ ..] => may_be_array(rest),
        // A number or a literal, whose line ends with a comma at most.
        _ => word > 0 && matches!(after, [] | [b',' | b'}' | b']', ..]),
    }
}

/// Whether what follows a bracket may be in an array of a trace. Dates and names of a log may be in brackets too.
fn may_be_array(rest: &[u8]) -> bool {
    matches!(rest.trim_ascii_start(), [] | [b'"' | b'{' | b'[' | b']', ..])
}

/// Whether a line is an object of its own, in the first column, where no member of a trace is.
fn is_whole_object(line: &[u8]) -> bool {
    let mut depth = Depth::new(false);
    line.starts_with(b"{\"") && depth.pass(line).is_some()
}

/// Whether an object begins in the first column, where no member of a trace does.
fn begins_anew(inside: &[u8]) -> bool {
    inside.trim_ascii_end() == b"{"
}
