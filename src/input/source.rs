//! One source of trace messages: a reader, the window that slides over it, and the decoder of its encoding.

mod findings;
mod limits;
mod look_ahead;
#[cfg(test)]
mod tests;
mod window;

use std::{
    fmt,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

pub use self::limits::{LEAST_MAX_MESSAGE, MAX_MESSAGE};
use self::{findings::Watch, limits::Limits, look_ahead::LookAhead, window::Window};
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
use crate::trace::{Code, Fact, Finding, Findings, Message, MessageView, Place, UnknownFields};

/// Bytes that detection looks at. More are never needed: the first message of a trace shows its shape early.
const HEAD: usize = 64 * 1024;

/// How a source is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourceOptions {
    /// The encoding, where it is not to be detected.
    pub encoding: Option<Encoding>,
    /// Bytes that one read asks for, where many sources are open at once.
    pub read_size: Option<usize>,
    /// Bytes of the largest message that is read; a larger one is passed over. At least [`LEAST_MAX_MESSAGE`].
    pub max_message: Option<usize>,
    /// Events of one message; those beyond are passed over. [`MAX_EVENTS`] by default.
    pub max_events: Option<usize>,
    /// Header and trailer fields of one message, likewise. [`MAX_HEADERS`] by default.
    pub max_headers: Option<usize>,
}

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
    window: Window,
    encoding: Encoding,
    decoder: Box<dyn Decode + Send>,
    limits: Limits,
    messages: LookAhead,
    watch: Watch,
    /// Reading on failed before anybody asked for it.
    failed: Option<io::Error>,
    /// Bytes at the start of the window that belong to the current message; they are given up by the next `advance`.
    taken: usize,
    next_index: u64,
    decoded: u64,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source")
            .field("path", &self.path)
            .field("encoding", &self.encoding)
            .field("offset", &self.window.offset())
            .finish_non_exhaustive()
    }
}

impl Source {
    /// Opens what an input of the command line stands for.
    ///
    /// # Errors
    /// As [`Source::open`].
    pub(crate) fn of(input: &Input, options: SourceOptions) -> Result<Self, InputError> {
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
    pub fn open(path: &Path, options: SourceOptions) -> Result<Self, InputError> {
        let reader = reader::open(path).map_err(|source| InputError::Read { path: path.to_owned(), source })?;
        let mut source = Self::unpack(path, reader, options)?;
        // Among many, a small one is done with its file, and with the memory that unpacking it takes.
        if options.read_size.is_some() && path.is_file() {
            while !source.window.holds_a_read() && source.failed.is_none() {
                source.failed = source.window.read().err();
            }
        }
        Ok(source)
    }

    fn unpack(path: &Path, reader: Box<dyn Read + Send>, options: SourceOptions) -> Result<Self, InputError> {
        let failed = |source| InputError::Read { path: path.to_owned(), source };
        let count = Arc::default();
        let counted = reader::Counted { reader, count: Arc::clone(&count) };
        let reader = reader::unpack(Box::new(counted)).map_err(failed)?;
        let mut source = Self::from_reader(path, reader, options)?;
        source.window.count_packed(count);
        Ok(source)
    }

    /// Reads a trace from `reader`; `path` names it in messages and breaks ties of detection.
    ///
    /// # Errors
    /// As [`Source::open`].
    pub fn from_reader(path: &Path, reader: Box<dyn Read + Send>, options: SourceOptions) -> Result<Self, InputError> {
        let limits = Limits::new(&options);
        let mut source = Self {
            path: path.to_owned(),
            window: Window::new(reader, options.read_size, limits.max_message()),
            encoding: Encoding::Binary,
            decoder: Box::new(BinaryDecoder::default()),
            messages: LookAhead::new([(); 2].map(|()| limits.message())),
            limits,
            watch: Watch::default(),
            failed: None,
            taken: 0,
            next_index: 0,
            decoded: 0,
        };
        source.encoding = source.detect(options.encoding)?;
        source.limits.set_encoding(source.encoding);
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
            self.window.read().map_err(|source| failed(&self.path, source))?;
            let bytes = self.window.bytes();
            if bytes.is_empty() {
                return Err(InputError::Empty { path: self.path.clone() });
            }
            if let Some(given) = given {
                return Ok(given);
            }
            // However much one read brings: the answer must not depend on it.
            let head = &bytes[..bytes.len().min(HEAD)];
            match recognise(head, &self.path, !self.window.at_end() && head.len() < HEAD) {
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

    /// Offset in the source of the byte after the current message.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.window.offset() + self.taken as u64
    }

    /// Bytes that were read, decoded or not; of a packed file, as they lie there.
    #[must_use]
    pub fn bytes_read(&self) -> u64 {
        self.window.bytes_read()
    }

    /// Unknown fields so far.
    #[must_use]
    pub fn unknown_fields(&self) -> &UnknownFields {
        self.messages.unknown_fields()
    }

    /// The message that the last [`Source::advance`] decoded, without its bytes.
    #[inline]
    #[must_use]
    pub fn records(&self) -> &Message {
        self.messages.current()
    }

    /// The message that the last [`Source::advance`] decoded.
    #[inline]
    #[must_use]
    pub fn message(&self) -> MessageView<'_> {
        MessageView::new(self.messages.current(), self.window.bytes())
    }

    /// Decodes the next message from the bytes that are there, as a batch with those after it that may share it. Never
    /// blocks. What is wrong with it is added to `findings`.
    pub fn advance(&mut self, findings: &mut Findings) -> Advance {
        let advance = self.advance_one(findings);
        if advance == Advance::Message {
            self.extend_batch();
        }
        advance
    }

    fn advance_one(&mut self, findings: &mut Findings) -> Advance {
        self.consume_taken();
        if let Some(step) = self.messages.advance()
            && let Some(advance) = self.accept(step, findings)
        {
            return advance;
        }
        loop {
            self.consume_taken();
            self.limits.discard_from(&mut self.window);
            if self.limits.is_too_large() {
                self.pass_over(findings);
                continue;
            }
            self.messages.current_mut().clear();
            if self.limits.needs_input(&self.window, 0) {
                return Advance::NeedInput;
            }
            let (bytes, at_end) = self.limits.view(&self.window, 0);
            let step = self.decoder.step(bytes, at_end, self.messages.current_mut());
            if let Some(advance) = self.accept(step, findings) {
                return advance;
            }
        }
    }

    /// Adds the messages that follow the current one and may share its batch, as far as the bytes of them are there.
    #[inline]
    fn extend_batch(&mut self) {
        while self.messages.current().has_room() && self.look_ahead() {
            let before = (self.messages.current().offset - self.window.offset()) as usize;
            let count = self.messages.current().count();
            let Some(end) = self.messages.append(self.taken, before) else { return };
            self.take(end, self.messages.current().count() - count);
        }
    }

    #[inline]
    fn consume_taken(&mut self) {
        self.window.consume(self.taken);
        self.taken = 0;
    }

    /// Takes what the decoder came to. `None` where the next step is to be taken.
    fn accept(&mut self, step: Step, findings: &mut Findings) -> Option<Advance> {
        match step {
            Step::Message { start, end } => {
                self.begin_message(start, end, findings);
                Some(Advance::Message)
            }
            Step::Damaged { start, end, fault } => {
                self.begin_message(start, end, findings);
                let finding = self.finding(fault);
                let message = self.messages.current();
                let readable = message.connection.is_some() || !message.events.is_empty() || !message.http.is_empty();
                if message.kind.is_none() && finding.code() == Code::Undecodable {
                    self.watch.suspect(finding);
                } else {
                    findings.push(finding);
                }
                if !readable {
                    self.decoded -= 1;
                }
                readable.then_some(Advance::Message)
            }
            Step::NeedMore { skip, wanted } => {
                self.window.consume(skip);
                self.limits.want(&self.window, &mut *self.decoder, 0, (skip, wanted));
                None
            }
            Step::End => {
                self.watch.end(self.decoded > 0, findings);
                Some(Advance::End)
            }
        }
    }

    /// Decodes the message after the current one, which stays as it is. Never blocks.
    pub(crate) fn peek(&mut self) -> Peek<'_> {
        if !self.look_ahead() && !self.limits.passes_over() {
            return Peek::NeedInput;
        }
        self.messages.next().map_or(Peek::Nothing, Peek::Message)
    }

    /// Decodes the message after the current one, if that was not done. Says false where it is passed over or not
    /// complete.
    #[inline]
    fn look_ahead(&mut self) -> bool {
        while !self.messages.is_ahead() {
            if self.limits.passes_over() || self.limits.needs_input(&self.window, self.taken) {
                return false;
            }
            let (bytes, at_end) = self.limits.view(&self.window, self.taken);
            if let Some((skip, wanted)) = self.messages.decode(|next| self.decoder.step(bytes, at_end, next)) {
                // Given up with the current message.
                self.taken += skip;
                self.limits.want(&self.window, &mut *self.decoder, self.taken, (skip, wanted));
            }
        }
        true
    }

    /// Gives up a message that is too large, and goes on after it.
    fn pass_over(&mut self, findings: &mut Findings) {
        let place = Place { offset: self.window.offset(), message: self.next_index };
        findings.push(Finding::new(place, self.limits.pass_over(&mut *self.decoder)));
        self.next_index += 1;
    }

    /// The current message is what the decoder found in so many bytes.
    fn begin_message(&mut self, start: usize, end: usize, findings: &mut Findings) {
        self.watch.release_suspect(findings);
        let message = self.messages.current_mut();
        message.offset = self.window.offset() + start as u64;
        message.index = self.next_index;
        self.watch.look_at(message, findings);
        let count = message.count();
        self.take(end, count);
    }

    /// The current batch goes on for so many bytes, and for so many messages.
    #[inline]
    fn take(&mut self, len: usize, count: u64) {
        self.taken += len;
        self.next_index += count;
        self.decoded += count;
        self.limits.begin_next();
    }

    fn finding(&self, fault: Fault) -> Finding {
        let Fault { at, code, detail } = fault;
        let place = Place { offset: self.window.offset() + at as u64, message: self.messages.current().index };
        let fact = if code == Code::CutOff { Fact::CutOff(detail) } else { Fact::Undecodable(detail) };
        Finding::new(place, fact)
    }

    /// Reads on after [`Advance::NeedInput`]; may block. A source that cannot be read on ends there, with a finding.
    pub fn fill(&mut self, findings: &mut Findings) {
        let wanted = self.taken + self.limits.wanted();
        while !self.window.at_end() && self.window.len() < wanted {
            if let Err(error) = self.failed.take().map_or_else(|| self.window.read(), Err) {
                self.window.end_here();
                let place = Place { offset: self.window.offset() + self.window.len() as u64, message: self.next_index };
                findings.push(Finding::new(place, Fact::ReadFailed(error.to_string())));
            }
        }
    }
}
