//! One source of trace messages: a reader, the window that slides over it, and the decoder of its encoding.

mod detection;
mod findings;
mod first;
mod limits;
mod look_ahead;
#[cfg(test)]
mod tests;
mod window;

use std::{
    fmt, fs,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicU64},
    time::SystemTime,
};

pub use self::limits::{LEAST_MAX_MESSAGE, MAX_MESSAGE};
use self::{detection::Far, findings::Watch, limits::Limits, look_ahead::LookAhead, window::Window};
use super::{
    archive::Member,
    binary::BinaryDecoder,
    decode::{Decode, Fault, Step},
    delimited::DelimitedDecoder,
    detect::Encoding,
    discover::{Content, Input},
    enveloped::EnvelopedDecoder,
    error::InputError,
    json::JsonDecoder,
    layers::{self, Inside, Layer, Layers, TakenOff},
    reader,
    text::TextDecoder,
    wire::WireFraming,
};
use crate::trace::{Code, Fact, Finding, Findings, Message, MessageView, Place, UnknownFields};
#[cfg(feature = "live")]
use crate::trace::{Connection, Nanos};

/// How a source is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourceOptions {
    /// The encoding; `None` to detect it.
    pub encoding: Option<Encoding>,
    /// The layers that are taken off first, whatever the bytes look like.
    pub layers: Layers,
    /// Bytes per read, to save memory when many sources are open at once.
    pub read_size: Option<usize>,
    /// The largest message that is read, in bytes; a larger one is passed over. At least [`LEAST_MAX_MESSAGE`];
    /// [`MAX_MESSAGE`] by default.
    pub max_message: Option<usize>,
    /// The most events per message; those beyond are dropped. [`MAX_EVENTS`](crate::trace::MAX_EVENTS) by default.
    pub max_events: Option<usize>,
    /// The most header and trailer fields per message; those beyond are dropped.
    /// [`MAX_HEADERS`](crate::trace::MAX_HEADERS) by default.
    pub max_headers: Option<usize>,
}

/// The outcome of [`Source::advance`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advance {
    /// [`Source::message`] is the next message.
    Message,
    /// The next message is not complete yet. [`Source::fill`] reads more of it, and may block.
    NeedInput,
    /// No message is left.
    End,
}

/// The outcome of [`Source::peek`].
#[derive(Debug)]
pub(crate) enum Peek<'a> {
    /// The next message; its payloads cannot be looked at yet.
    Message(&'a Message),
    /// The next message is not complete yet. [`Source::fill`] reads more of it, and may block.
    NeedInput,
    /// The source ends here, or what follows is damaged.
    Nothing,
}

/// Reads the trace messages of one file or stream, one at a time. Its buffer holds a few hundred KiB, or the largest
/// message.
///
/// A source goes on after damage whenever it can: what is wrong becomes a [`Finding`], and what is readable a message.
pub struct Source {
    path: PathBuf,
    window: Window,
    encoding: Encoding,
    decoder: Box<dyn Decode + Send>,
    limits: Limits,
    messages: LookAhead,
    watch: Watch,
    /// An error that [`Source::open`] met while it read ahead. The next [`Source::fill`] reports it.
    failed: Option<io::Error>,
    /// Bytes at the start of the window that belong to the current message. The next `advance` gives them up.
    taken: usize,
    next_index: u64,
    decoded: u64,
    layers: Vec<Layer>,
    /// What the layers meet.
    met: layers::Met,
    /// The member of an archive that it reads.
    member: Option<Arc<Member>>,
}

/// A source whose layers were taken off, before its messages are read.
pub(super) struct Begun {
    pub(super) inside: Inside,
    pub(super) layers: Vec<Layer>,
    met: layers::Met,
    count: Arc<AtomicU64>,
}

impl Begun {
    /// Takes the layers off.
    pub(super) fn new(reader: Box<dyn Read + Send>, asked: Layers) -> Result<Self, layers::Refused> {
        let count = Arc::default();
        let counted = reader::Counted { reader, count: Arc::clone(&count) };
        let TakenOff { inside, layers, met } = layers::take_off(Box::new(counted), asked, &count)?;
        Ok(Self { inside, layers, met, count })
    }
}

/// A decoder of this encoding.
fn decoder(encoding: Encoding) -> Box<dyn Decode + Send> {
    match encoding {
        Encoding::Binary => Box::new(BinaryDecoder::default()),
        Encoding::Delimited => Box::new(DelimitedDecoder::default()),
        Encoding::Text => Box::new(TextDecoder::default()),
        Encoding::Json => Box::new(JsonDecoder::default()),
    }
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

/// Opens the bytes of a source again.
#[derive(Clone, Debug)]
pub(crate) struct Reopen {
    path: PathBuf,
    member: Option<Arc<Member>>,
}

impl Reopen {
    /// Opens them.
    ///
    /// # Errors
    /// As [`Source::open`].
    pub(crate) fn open(&self, options: SourceOptions) -> Result<Source, InputError> {
        match &self.member {
            Some(member) => Source::of_member(member, &self.path, options),
            None => Source::open(&self.path, options),
        }
    }

    /// When they were modified.
    pub(crate) fn modified(&self) -> Option<SystemTime> {
        match &self.member {
            Some(member) => member.modified(),
            None => fs::metadata(&self.path).ok()?.modified().ok(),
        }
    }
}

impl Source {
    /// Opens an input of the command line.
    ///
    /// # Errors
    /// As [`Source::open`].
    pub(crate) fn of(input: &Input, options: SourceOptions) -> Result<Self, InputError> {
        match &input.content {
            Content::File if input.place.file().is_none() => Self::unpack(input.path(), reader::stdin(), options),
            Content::File => Self::open(input.path(), options),
            Content::Copy(copy) => {
                let failed = |source| InputError::Read { path: input.path().to_owned(), source };
                Self::unpack(input.path(), reader::open(copy).map_err(failed)?, options)
            }
            Content::Member(member) => Self::of_member(member, input.path(), options),
            Content::Begun(begun) => match begun.take() {
                Some(begun) => Self::begun(input.path(), begun.map_err(|refused| refused.of(input.path()))?, options),
                // It can be read only once.
                None => Err(InputError::Empty { path: input.path().to_owned() }),
            },
        }
    }

    /// Opens a trace file, and takes off what is around the trace. Unless `options` names the encoding, it is detected.
    ///
    /// # Errors
    /// [`InputError`] if the file cannot be read, is empty, or is not a trace.
    pub fn open(path: &Path, options: SourceOptions) -> Result<Self, InputError> {
        let reader = reader::open(path).map_err(|source| InputError::Read { path: path.to_owned(), source })?;
        let mut source = Self::unpack(path, reader, options)?;
        if options.read_size.is_some() && path.is_file() {
            source.read_small();
        }
        Ok(source)
    }

    /// Checks that the first bytes of a file are those of a trace, or of text with a trace in it. The error says why
    /// they are not.
    pub(super) fn look_into(path: &Path, options: SourceOptions) -> Result<(), InputError> {
        let reader = reader::open(path).map_err(|source| InputError::Read { path: path.to_owned(), source })?;
        let begun = Begun::new(reader, options.layers).map_err(|refused| refused.of(path))?;
        Self::begun_within(path, begun, options, Far::InTheHead).map(drop)
    }

    fn of_member(member: &Arc<Member>, path: &Path, options: SourceOptions) -> Result<Self, InputError> {
        // The layers that were asked for are those of the archive.
        let options = SourceOptions { layers: Layers::default(), ..options };
        let mut source = Self::unpack(path, member.open(), options)?;
        source.member = Some(Arc::clone(member));
        if options.read_size.is_some() {
            source.read_small();
        }
        Ok(source)
    }

    /// Among many sources, a small one is read to its end now. That frees its file, and the memory for unpacking it.
    fn read_small(&mut self) {
        while !self.window.holds_a_read() && self.failed.is_none() {
            self.failed = self.window.read().err();
        }
    }

    /// Reads a trace from `reader` after what stands around it is taken off; `path` names it in messages.
    ///
    /// # Errors
    /// As [`Source::open`].
    pub fn unpack(path: &Path, reader: Box<dyn Read + Send>, options: SourceOptions) -> Result<Self, InputError> {
        let begun = Begun::new(reader, options.layers).map_err(|refused| refused.of(path))?;
        Self::begun(path, begun, options)
    }

    pub(super) fn begun(path: &Path, begun: Begun, options: SourceOptions) -> Result<Self, InputError> {
        Self::begun_within(path, begun, options, Far::ToTheEnd)
    }

    fn begun_within(path: &Path, begun: Begun, options: SourceOptions, far: Far) -> Result<Self, InputError> {
        let Begun { inside, layers, met, count } = begun;
        // The layer has seen a trace, however far into the source that is.
        let is_json = layers.last() == Some(&Layer::JsonEnvelope);
        let encoding = options.encoding.or(is_json.then_some(Encoding::Json));
        let mut source = Self::searched(path, inside, met, SourceOptions { encoding, ..options }, far)?;
        source.layers.splice(0..0, layers.into_iter().chain(source.met.layers()));
        source.window.count_packed(count);
        Ok(source)
    }

    /// Whether it is a member of an archive, which can be opened again.
    pub(crate) fn is_member(&self) -> bool {
        self.member.is_some()
    }

    /// Opens the same bytes again.
    pub(crate) fn reopen(&self) -> Reopen {
        Reopen { path: self.path.clone(), member: self.member.clone() }
    }

    /// Reads a trace from `reader`, which holds nothing else; `path` names it in messages and breaks ties in detection.
    ///
    /// # Errors
    /// As [`Source::open`].
    pub fn from_reader(path: &Path, reader: Box<dyn Read + Send>, options: SourceOptions) -> Result<Self, InputError> {
        Self::searched(path, reader, layers::Met::default(), options, Far::ToTheEnd)
    }

    fn searched(
        path: &Path,
        reader: Box<dyn Read + Send>,
        met: layers::Met,
        options: SourceOptions,
        far: Far,
    ) -> Result<Self, InputError> {
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
            layers: Vec::new(),
            met,
            member: None,
        };
        let path;
        (source.encoding, path) = source.detect(options.encoding, far)?;
        source.limits.set_encoding(source.encoding);
        source.decoder = match (source.encoding, path) {
            (Encoding::Delimited, Some(path)) => Box::new(EnvelopedDecoder::new(WireFraming::Delimited, path)),
            (_, Some(path)) => Box::new(EnvelopedDecoder::new(WireFraming::Bare, path)),
            (Encoding::Text, None) if options.encoding.is_some() => Box::new(TextDecoder::given()),
            (Encoding::Json, None) if options.encoding.is_some() => Box::new(JsonDecoder::given()),
            (_, None) => decoder(source.encoding),
        };
        source.layers.extend(path.map(|_| Layer::ProtobufEnvelope));
        Ok(source)
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

    /// What stood around the trace, the outermost layer first.
    #[must_use]
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// Messages decoded so far, including damaged ones that were partly readable.
    #[must_use]
    pub fn decoded(&self) -> u64 {
        self.decoded
    }

    /// Offset in the source of the byte after the current message.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.window.offset() + self.taken as u64
    }

    /// Bytes read so far, decoded or not. For a packed file, they are counted before unpacking.
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

    /// Gives the current message of an HTTP trace the ends of the socket that carries the exchange.
    #[cfg(feature = "live")]
    pub(crate) fn set_connection(&mut self, ends: Connection) {
        let message = self.messages.current_mut();
        (message.connection, message.connection_of_socket) = (Some(ends), true);
    }

    /// Gives the parts of an HTTP exchange in the current message this time, unless one of them has a time.
    #[cfg(feature = "live")]
    pub(crate) fn set_time_of_arrival(&mut self, time: Nanos) {
        let message = self.messages.current_mut();
        if message.http.iter().all(|piece| piece.time.is_none()) {
            message.arrived = !message.http.is_empty();
            message.http.iter_mut().for_each(|piece| piece.time = Some(time));
        }
    }

    /// The message that the last [`Source::advance`] decoded.
    #[inline]
    #[must_use]
    pub fn message(&self) -> MessageView<'_> {
        MessageView::new(self.messages.current(), self.window.bytes())
    }

    /// Decodes the next message from the window, and adds the messages after it that may share its batch. Never blocks.
    /// Anything wrong with them is added to `findings`.
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

    /// Adds the messages after the current one to its batch, while they may share it and are complete in the window.
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

    /// Handles the outcome of a decoder's step. `None` asks for another step.
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
            Step::Zeros { start, end } => {
                let offset = self.window.offset() + start as u64;
                self.watch.zeros(Place { offset, message: self.next_index }, (end - start) as u64);
                self.taken += end;
                self.limits.begin_next();
                None
            }
            Step::Skipped { start, end } => {
                let place = Place { offset: self.window.offset() + start as u64, message: self.next_index };
                self.watch.release_suspect(findings);
                self.watch.skipped(place, &self.window.bytes()[start..end]);
                self.taken += end;
                self.limits.begin_next();
                None
            }
            Step::Switch { start, encoding } => {
                self.taken += start;
                self.decoder = decoder(encoding);
                self.limits.begin_next();
                None
            }
            Step::End => {
                self.watch.skipped_before(self.met.take_skipped());
                self.watch.end(self.decoded > 0, self.encoding, findings);
                Some(Advance::End)
            }
        }
    }

    /// Decodes the message after the current one, and leaves the current one unchanged. Never blocks.
    pub(crate) fn peek(&mut self) -> Peek<'_> {
        if !self.look_ahead() && !self.limits.passes_over() {
            return Peek::NeedInput;
        }
        self.messages.next().map_or(Peek::Nothing, Peek::Message)
    }

    /// Decodes the message after the current one, unless that is done already. Returns false if that message is passed
    /// over or is not complete yet.
    #[inline]
    fn look_ahead(&mut self) -> bool {
        while !self.messages.is_ahead() {
            if self.limits.passes_over() || self.limits.needs_input(&self.window, self.taken) {
                return false;
            }
            let (bytes, at_end) = self.limits.view(&self.window, self.taken);
            if let Some((skip, wanted)) = self.messages.decode(|next| self.decoder.step(bytes, at_end, next)) {
                // The next `advance` gives up these bytes together with the current message.
                self.taken += skip;
                self.limits.want(&self.window, &mut *self.decoder, self.taken, (skip, wanted));
            }
        }
        true
    }

    /// Reports a message that is too large, and passes over it.
    fn pass_over(&mut self, findings: &mut Findings) {
        let place = Place { offset: self.window.offset(), message: self.next_index };
        findings.push(Finding::new(place, self.limits.pass_over(&mut *self.decoder)));
        self.next_index += 1;
    }

    /// Gives the current message its place, which the decoder found in `start..end` of the window, and checks it.
    fn begin_message(&mut self, start: usize, end: usize, findings: &mut Findings) {
        self.watch.release_suspect(findings);
        let message = self.messages.current_mut();
        message.offset = self.window.offset() + start as u64;
        message.index = self.next_index;
        self.watch.look_at(message, findings);
        let count = message.count();
        self.take(end, count);
    }

    /// Extends the current batch by `len` bytes and `count` messages.
    #[inline]
    fn take(&mut self, len: usize, count: u64) {
        self.taken += len;
        self.next_index += count;
        self.decoded += count;
        self.limits.begin_next();
    }

    fn finding(&self, fault: Fault) -> Finding {
        let place = Place { offset: self.window.offset() + fault.at as u64, message: self.messages.current().index };
        Finding::new(place, fault.into_fact())
    }

    /// Reads more after [`Advance::NeedInput`]; may block. If reading fails, the source ends there, with a finding.
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
