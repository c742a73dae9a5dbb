//! One source of trace messages: a reader, the window that slides over it, and the decoder of its encoding.

#[cfg(test)]
mod tests;

use std::{
    fmt,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{
    binary::BinaryDecoder,
    decode::{Decode, Fault, Step},
    delimited::DelimitedDecoder,
    detect::{Detected, Encoding, recognise},
    discover::Input,
    error::InputError,
    json::JsonDecoder,
    reader,
    text::TextDecoder,
};
use crate::trace::{
    Code, Fact, Finding, Findings, MAX_EVENTS, MAX_HEADERS, Message, MessageView, Place, TraceKind, UnknownFields,
};

/// Bytes that one read asks for: what a pipe holds several times over, and what fits a core's cache.
const READ: usize = 256 * 1024;

/// Bytes that detection looks at. More are never needed: the first message of a trace shows its shape early.
const HEAD: usize = 64 * 1024;

/// How a source is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The encoding, where it is not to be detected.
    pub encoding: Option<Encoding>,
    /// Bytes that one read asks for, where many sources are open at once.
    pub piece: Option<usize>,
    /// Bytes of the largest message that is read; a larger one is passed over. At least [`LEAST_MAX_MESSAGE`].
    pub max_message: Option<usize>,
    /// Events of one message; those beyond are passed over. [`MAX_EVENTS`] by default.
    pub max_events: Option<usize>,
    /// Header and trailer fields of one message, likewise. [`MAX_HEADERS`] by default.
    pub max_headers: Option<usize>,
}

/// The largest message unless [`Options::max_message`] says otherwise: far more than a tap with sensible limits writes,
/// and little enough that two of them fit the memory of any machine that such a trace is opened on.
pub const MAX_MESSAGE: usize = 512 << 20;

/// The least that [`Options::max_message`] may be: less would not hold what stands around a message's bytes.
pub const LEAST_MAX_MESSAGE: usize = 64;

/// What [`Source::advance`] came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advance {
    /// [`Source::message`] is the next message.
    Message,
    /// The next message is not complete: [`Source::fill`] reads on, and may block.
    NeedInput,
    /// No message is left.
    End,
}

/// What [`Source::peek`] came to.
#[derive(Debug)]
pub(crate) enum Peek<'a> {
    /// The next message; its payloads cannot be looked at yet.
    Message(&'a Message),
    /// It is not complete: [`Source::fill`] reads on, and may block.
    NeedInput,
    /// The source ends here, or what follows is damaged.
    Nothing,
}

/// Trace messages of one file or stream, one at a time, from a buffer of a few hundred KiB or of the largest message.
///
/// Damage never stops a source before it must: what is wrong becomes a [`Finding`], what is readable a message.
pub struct Source {
    path: PathBuf,
    reader: Box<dyn Read + Send>,
    /// Bytes that were read of the file itself.
    packed: Option<Arc<AtomicU64>>,
    at_end: bool,
    buffer: Vec<u8>,
    /// The unread bytes are `buffer[start..end]`.
    start: usize,
    end: usize,
    /// Offset in the source of `buffer[start]`.
    offset: u64,
    encoding: Encoding,
    decoder: Box<dyn Decode + Send>,
    /// The current message, and the next one where it was decoded ahead of its turn.
    messages: [Message; 2],
    current: usize,
    /// What decoding ahead came to; never [`Step::NeedMore`].
    ahead: Option<Step>,
    /// Bytes at `start` that belong to the current message; they are given up by the next `advance`.
    taken: usize,
    next_index: u64,
    wanted: usize,
    decoded: u64,
    /// Reading on failed before anybody asked for it.
    failed: Option<io::Error>,
    /// Bytes that are no message: what comes next tells whether they are the last ones.
    suspect: Option<Finding>,
    kinds: [bool; TraceKind::ALL.len()],
    /// Bytes that one read asks for.
    piece: usize,
    max_message: usize,
    /// Bytes to pass over.
    discard: usize,
    /// The decoder was told that nothing follows the window, or that the window does not grow.
    told_all: bool,
    /// The message at the start of the window is larger than it may be.
    too_large: bool,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source")
            .field("path", &self.path)
            .field("encoding", &self.encoding)
            .field("offset", &self.offset)
            .finish_non_exhaustive()
    }
}

impl Source {
    /// Opens what an input of the command line stands for.
    ///
    /// # Errors
    /// As [`Source::open`].
    pub(crate) fn of(input: &Input, options: Options) -> Result<Self, InputError> {
        if input.is_stdin() {
            Self::unpack(input.path(), reader::stdin(), options)
        } else {
            Self::open(input.path(), options)
        }
    }

    /// Opens a trace file, unpacking gzip and Zstandard. Without `encoding`, its first bytes decide.
    ///
    /// # Errors
    /// [`InputError`] where the file cannot be read, is empty, or is no trace.
    pub fn open(path: &Path, options: Options) -> Result<Self, InputError> {
        let reader = reader::open(path).map_err(|source| InputError::Read { path: path.to_owned(), source })?;
        let mut source = Self::unpack(path, reader, options)?;
        // Among many, a small one is done with its file, and with the memory that unpacking it takes.
        if options.piece.is_some() && path.is_file() {
            while !source.at_end && source.end < source.piece && source.failed.is_none() {
                source.failed = source.read().err();
            }
        }
        Ok(source)
    }

    fn unpack(path: &Path, reader: Box<dyn Read + Send>, options: Options) -> Result<Self, InputError> {
        let failed = |source| InputError::Read { path: path.to_owned(), source };
        let count = Arc::default();
        let counted = reader::Counted { reader, count: Arc::clone(&count) };
        let reader = reader::unpack(Box::new(counted)).map_err(failed)?;
        let mut source = Self::from_reader(path, reader, options)?;
        source.packed = Some(count);
        Ok(source)
    }

    /// Reads a trace from `reader`; `path` names it in messages and breaks ties of detection.
    ///
    /// # Errors
    /// As [`Source::open`].
    pub fn from_reader(path: &Path, reader: Box<dyn Read + Send>, options: Options) -> Result<Self, InputError> {
        let mut source = Self {
            path: path.to_owned(),
            reader,
            packed: None,
            at_end: false,
            buffer: Vec::new(),
            start: 0,
            end: 0,
            offset: 0,
            encoding: Encoding::Binary,
            decoder: Box::new(BinaryDecoder::default()),
            messages: [(); 2].map(|()| {
                let events = options.max_events.unwrap_or(MAX_EVENTS);
                Message::with_limits(events, options.max_headers.unwrap_or(MAX_HEADERS))
            }),
            current: 0,
            ahead: None,
            taken: 0,
            next_index: 0,
            wanted: 1,
            decoded: 0,
            failed: None,
            suspect: None,
            kinds: [false; TraceKind::ALL.len()],
            // Less would leave no room for a read.
            piece: options.piece.unwrap_or(READ).max(64),
            max_message: options.max_message.unwrap_or(MAX_MESSAGE).max(LEAST_MAX_MESSAGE),
            discard: 0,
            told_all: false,
            too_large: false,
        };
        source.encoding = source.detect(options.encoding)?;
        source.decoder = match source.encoding {
            Encoding::Binary => Box::new(BinaryDecoder::default()),
            Encoding::Delimited => Box::new(DelimitedDecoder::default()),
            Encoding::Text => Box::new(TextDecoder::default()),
            Encoding::Json => Box::new(JsonDecoder::default()),
        };
        Ok(source)
    }

    /// Looks at the first bytes without consuming them. On a live stream it waits for no more than it needs.
    fn detect(&mut self, given: Option<Encoding>) -> Result<Encoding, InputError> {
        let failed = |path: &Path, source| InputError::Read { path: path.to_owned(), source };
        loop {
            self.read().map_err(|source| failed(&self.path, source))?;
            if self.end == 0 {
                return Err(InputError::Empty { path: self.path.clone() });
            }
            if let Some(given) = given {
                return Ok(given);
            }
            // However much one read brings: the answer must not depend on it.
            let head = &self.buffer[..self.end.min(HEAD)];
            match recognise(head, &self.path, !self.at_end && head.len() < HEAD) {
                Some(Detected::Trace(encoding)) => return Ok(encoding),
                Some(Detected::Other(looks_like)) => {
                    return Err(InputError::Unrecognised { path: self.path.clone(), looks_like });
                }
                None => {}
            }
        }
    }

    /// The name the source was opened under.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The encoding that was given or detected.
    #[must_use]
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// Messages decoded so far, damaged ones of which something was readable included.
    #[must_use]
    pub fn decoded(&self) -> u64 {
        self.decoded
    }

    /// Bytes of the source after which the next message starts.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset + self.taken as u64
    }

    /// Bytes that were read, decoded or not; of a packed file, as they lie there.
    #[must_use]
    pub fn bytes_read(&self) -> u64 {
        let unpacked = || self.offset + (self.end - self.start) as u64;
        self.packed.as_ref().map_or_else(unpacked, |count| count.load(Ordering::Relaxed))
    }

    /// Unknown fields so far.
    #[must_use]
    pub fn unknown_fields(&self) -> &UnknownFields {
        &self.messages[self.current ^ usize::from(self.ahead.is_some())].unknown
    }

    /// A finding about the current message.
    fn found(&self, fact: Fact) -> Finding {
        Finding::new(self.messages[self.current].place(), fact)
    }

    /// The message that the last [`Source::advance`] decoded, without its bytes.
    #[inline]
    #[must_use]
    pub fn records(&self) -> &Message {
        &self.messages[self.current]
    }

    /// The message that the last [`Source::advance`] decoded.
    #[inline]
    #[must_use]
    pub fn message(&self) -> MessageView<'_> {
        MessageView::new(&self.messages[self.current], &self.buffer[self.start..self.end])
    }

    /// Decodes the next message from the bytes that are there, and adds what is wrong with it. Never blocks.
    pub fn advance(&mut self, findings: &mut Findings) -> Advance {
        self.give_up(self.taken);
        self.taken = 0;
        if let Some(step) = self.ahead.take() {
            self.current ^= 1;
            if let Some(advance) = self.accept(step, findings) {
                return advance;
            }
        }
        loop {
            self.give_up(self.taken);
            self.taken = 0;
            if self.discard > 0 {
                let count = self.discard.min(self.end - self.start);
                self.give_up(count);
                self.discard -= count;
            }
            if self.too_large {
                self.pass_over(findings);
                continue;
            }
            let message = &mut self.messages[self.current];
            message.clear();
            if self.end - self.start < self.wanted && !self.at_end {
                return Advance::NeedInput;
            }
            let (until, at_end) = self.window_end(0);
            let window = &self.buffer[self.start..until];
            let message = &mut self.messages[self.current];
            let step = self.decoder.step(window, at_end, message);
            if let Some(advance) = self.accept(step, findings) {
                return advance;
            }
        }
    }

    /// Where the window of the message after `taken` bytes ends, and whether the source does. A decoder sees no more than
    /// one message may have, so that the limit holds wherever the reads' edges fall. For the same reason, one that knows
    /// a message's length tells it before it learns that the source ends earlier.
    #[inline]
    fn window_end(&self, taken: usize) -> (usize, bool) {
        let until = self.end.min((self.start + taken).saturating_add(self.max_message));
        (until, self.at_end && until == self.end && (self.told_all || !self.is_framed()))
    }

    /// Takes what the decoder came to. `None`: there is nothing for the caller in it.
    fn accept(&mut self, step: Step, findings: &mut Findings) -> Option<Advance> {
        match step {
            Step::Message { start, end } => {
                findings.extend(self.suspect.take());
                self.take(start, end, findings);
                Some(Advance::Message)
            }
            Step::Damaged { start, end, fault } => {
                findings.extend(self.suspect.take());
                self.take(start, end, findings);
                let finding = self.finding(fault);
                let message = &self.messages[self.current];
                let readable = message.connection.is_some() || !message.events.is_empty() || !message.http.is_empty();
                if message.kind.is_none() && finding.code() == Code::Undecodable {
                    self.suspect = Some(finding);
                } else {
                    findings.push(finding);
                }
                if !readable {
                    self.decoded -= 1;
                }
                readable.then_some(Advance::Message)
            }
            Step::NeedMore { skip, wanted } => {
                self.give_up(skip);
                self.want(0, skip, wanted);
                None
            }
            Step::End => {
                if self.decoded > 0
                    && let Some(Finding { fact, .. }) = &mut self.suspect
                    && let Fact::Undecodable(detail) = fact
                {
                    *fact = Fact::TrailingBytes(std::mem::take(detail));
                }
                findings.extend(self.suspect.take());
                Some(Advance::End)
            }
        }
    }

    /// Decodes the message after the current one, which stays as it is. Never blocks.
    pub(crate) fn peek(&mut self) -> Peek<'_> {
        while self.ahead.is_none() {
            if self.discard > 0 || self.too_large {
                return Peek::Nothing;
            }
            if self.end - self.start - self.taken < self.wanted && !self.at_end {
                return Peek::NeedInput;
            }
            let (until, at_end) = self.window_end(self.taken);
            let window = &self.buffer[self.start + self.taken..until];
            let next = self.current ^ 1;
            self.messages[next].clear();
            // The count goes on in the message that is being decoded.
            self.messages[next].unknown = std::mem::take(&mut self.messages[self.current].unknown);
            match self.decoder.step(window, at_end, &mut self.messages[next]) {
                Step::NeedMore { skip, wanted } => {
                    self.messages[self.current].unknown = std::mem::take(&mut self.messages[next].unknown);
                    // Given up with the current message.
                    self.taken += skip;
                    self.want(self.taken, skip, wanted);
                }
                step => self.ahead = Some(step),
            }
        }
        match self.ahead {
            Some(Step::Message { .. }) => Peek::Message(&self.messages[self.current ^ 1]),
            _ => Peek::Nothing,
        }
    }

    /// Notes how much the message that begins after `taken` bytes needs, after `skip` bytes of none.
    fn want(&mut self, taken: usize, skip: usize, wanted: usize) {
        let (until, _) = self.window_end(taken);
        self.wanted = wanted.max(1);
        if self.is_framed() {
            self.too_large = self.wanted > self.max_message;
            self.told_all = self.at_end;
        } else if skip > 0 || until - self.start - taken < self.max_message {
            // Where no length is written before a message, what it wants is only a guess.
            self.wanted = self.wanted.min(self.max_message);
            self.told_all = false;
        } else if !self.told_all {
            self.decoder.look_again();
            self.told_all = true;
            self.wanted = 1;
        } else {
            // One byte more tells a message that goes on from one that the source cuts.
            self.too_large = until < self.end;
            self.wanted = self.max_message + 1;
        }
    }

    /// Whether the encoding writes a message's length before it.
    fn is_framed(&self) -> bool {
        matches!(self.encoding, Encoding::Binary | Encoding::Delimited)
    }

    /// Gives up a message that is too large, and goes on after it.
    fn pass_over(&mut self, findings: &mut Findings) {
        let (size, limit) = (self.wanted, self.max_message);
        self.discard = match (self.decoder.pass_over(), self.is_framed()) {
            (true, true) => self.wanted,
            (true, false) => 0,
            (false, _) => usize::MAX,
        };
        let place = Place { offset: self.offset, message: self.next_index };
        let with_rest = self.discard == usize::MAX;
        findings.push(Finding::new(place, Fact::LargeMessage { size, limit, with_rest }));
        self.next_index += 1;
        self.wanted = 1;
        self.too_large = false;
        self.told_all = false;
    }

    fn take(&mut self, start: usize, end: usize, findings: &mut Findings) {
        let message = &mut self.messages[self.current];
        message.offset = self.offset + start as u64;
        message.index = self.next_index;
        let (bad_times, kind, count) = (message.unreadable_times(), message.kind, message.count());
        self.next_index += count;
        self.decoded += count;
        self.taken = end;
        self.wanted = 1;
        self.told_all = false;
        if let Some(fact) = bad_times {
            findings.push(self.found(fact));
        }
        self.hold_to_limits(findings);
        if let Some(kind) = kind {
            let new = !std::mem::replace(&mut self.kinds[kind as usize], true);
            if new && self.kinds.iter().filter(|seen| **seen).count() > 1 {
                findings.push(self.found(Fact::MixedKinds(kind)));
            }
        }
    }

    /// Reports what of the current message was beyond a limit.
    fn hold_to_limits(&mut self, findings: &mut Findings) {
        let message = &mut self.messages[self.current];
        if let Some(fact) = message.beyond_limits() {
            findings.push(self.found(fact));
        }
        if let Some(len) = self.messages[self.current].cap_names() {
            findings.push(self.found(Fact::LongAddress { len }));
        }
    }

    fn finding(&self, fault: Fault) -> Finding {
        let Fault { at, code, detail } = fault;
        let place = Place { offset: self.offset + at as u64, message: self.messages[self.current].index };
        let fact = if code == Code::CutOff { Fact::CutOff(detail) } else { Fact::Undecodable(detail) };
        Finding::new(place, fact)
    }

    #[inline]
    fn give_up(&mut self, count: usize) {
        self.start += count;
        self.offset += count as u64;
    }

    /// Reads on after [`Advance::NeedInput`]; may block. A source that cannot be read any further ends there, with a
    /// finding.
    pub fn fill(&mut self, findings: &mut Findings) {
        let wanted = self.taken + self.wanted;
        while !self.at_end && self.end - self.start < wanted {
            self.read_or_end(findings);
        }
    }

    fn read_or_end(&mut self, findings: &mut Findings) {
        if let Err(error) = self.read() {
            self.at_end = true;
            let place = Place { offset: self.offset + (self.end - self.start) as u64, message: self.next_index };
            findings.push(Finding::new(place, Fact::ReadFailed(error.to_string())));
        }
    }

    /// One read after the bytes that are there, after making room for it.
    fn read(&mut self) -> io::Result<()> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        // Growing with what really arrived, not with what a message claims: a length is only a claim.
        if self.buffer.len() - self.end < self.piece / 2 {
            let most = self.max_message.saturating_add(self.piece);
            self.buffer.resize((self.end * 2).min(most).max(self.end + self.piece), 0);
        }
        // No more than one piece, however much room there is: what is in the window may all be damage.
        let room = self.buffer.len().min(self.end + self.piece);
        loop {
            match self.reader.read(&mut self.buffer[self.end..room]) {
                Ok(0) => {
                    self.at_end = true;
                    self.reader = Box::new(io::empty());
                }
                Ok(count) => self.end += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            return Ok(());
        }
    }
}
