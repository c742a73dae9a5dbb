//! Exchanges as HAR 1.2, the format of browsers' network panels: one JSON object for all exchanges, written
//! entry by entry as exchanges end.
//!
//! [`Exchanges`] collects the request and the response of an exchange, [`Har`] writes them:
//!
//! ```
//! use tap2pcap::{
//!     capture::Destination,
//!     har::{Exchanges, Har},
//!     input::{MAX_MESSAGE, Source, SourceOptions},
//!     timeline::HttpOptions,
//!     trace::Findings,
//! };
//!
//! # let dir = tempfile::tempdir()?;
//! # let path = dir.path().join("exchange.har");
//! let trace: &[u8] = br#"{"http_buffered_trace": {
//!     "request": {"headers": [{"key": ":method", "value": "GET"}, {"key": ":path", "value": "/"}]},
//!     "response": {"headers": [{"key": ":status", "value": "200"}]}
//! }}"#;
//! let mut source = Source::from_reader("in memory".as_ref(), Box::new(trace), SourceOptions::default())?;
//! let mut har = Har::create(&Destination::File(path.clone()), HttpOptions::default(), None)?;
//! let mut exchanges = Exchanges::new(MAX_MESSAGE);
//! let mut findings = Findings::default();
//! while let Some(view) = source.next_message(&mut findings) {
//!     exchanges.message(view, |_, view, tracks| har.entry("in memory", view, tracks))?;
//! }
//! exchanges.end(|_, view, tracks| har.entry("in memory", view, tracks))?;
//! assert_eq!(har.entries(), 1);
//! har.finish()?;
//! # assert!(path.exists());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod entry;
mod exchanges;
mod socket;
mod text;

pub use exchanges::Exchanges;

use std::{
    io::{self, Write as _},
    sync::Arc,
};

use self::entry::{ExchangeSide, HarEntry};
use crate::{
    capture::{Destination, Output, OutputError, OutputOptions, PacketBuffer},
    http::Exchange,
    redact::{self, Counts, Redaction},
    timeline::{HttpOptions, Track},
    trace::MessageView,
};

/// How many bytes are buffered before they are written to the destination.
const CHUNK: usize = 256 * 1024;

/// A HAR file being written.
#[derive(Debug)]
pub struct Har {
    output: Output,
    buffer: PacketBuffer,
    options: HttpOptions,
    start_time: u64,
    entries: u64,
    /// What is taken out of the entries.
    redaction: Option<Arc<Redaction>>,
}

/// Writes an entry in parts while it is serialized, so that a large one is never in memory as a whole.
struct Chunks<'a> {
    har: &'a mut Har,
    failed: Option<OutputError>,
}

impl io::Write for Chunks<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Har { buffer, output, .. } = &mut *self.har;
        let taken = &bytes[..bytes.len().min(CHUNK)];
        buffer.append(taken);
        if buffer.len() >= CHUNK
            && let Err(error) = output.write(buffer)
        {
            self.failed = Some(error);
            return Err(io::ErrorKind::Other.into());
        }
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Har {
    /// Begins a file at `destination`. An exchange without any time gets `start_time`, in nanoseconds since 1970.
    ///
    /// # Errors
    /// [`OutputError`] if the destination cannot be created.
    pub fn create(
        destination: &Destination,
        options: HttpOptions,
        start_time: Option<u64>,
    ) -> Result<Self, OutputError> {
        Self::create_with(destination, options, start_time, OutputOptions::default())
    }

    /// Does what [`Har::create`] does, and creates the destination as `output` says.
    ///
    /// # Errors
    /// [`OutputError`] if the destination cannot be created.
    pub fn create_with(
        destination: &Destination,
        options: HttpOptions,
        start_time: Option<u64>,
        output: OutputOptions,
    ) -> Result<Self, OutputError> {
        let output = Output::create(destination, output)?;
        let mut buffer = PacketBuffer::default();
        let opening = concat!(
            "{\"log\":{\"version\":\"1.2\",\"creator\":{\"name\":\"tap2pcap\",\"version\":\"",
            env!("CARGO_PKG_VERSION"),
            "\"},\"entries\":["
        );
        buffer.append(opening.as_bytes());
        Ok(Self { output, buffer, options, start_time: start_time.unwrap_or(0), entries: 0, redaction: None })
    }

    /// Takes secrets out of all entries.
    #[must_use]
    pub(crate) fn redacting(self, redaction: Option<Arc<Redaction>>) -> Self {
        Self { redaction, ..self }
    }

    /// What is taken out of the entries.
    pub(crate) fn redaction(&self) -> Option<Arc<Redaction>> {
        self.redaction.clone()
    }

    /// The number of entries written so far.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// Adds an exchange of the trace file called `name`.
    ///
    /// # Errors
    /// [`OutputError`] if the destination cannot be written.
    pub fn entry(&mut self, name: &str, view: MessageView<'_>, tracks: &[Track; 2]) -> Result<(), OutputError> {
        self.counted_entry(name, view, tracks, &mut Counts::default())
    }

    /// Does what [`Har::entry`] does, and counts what is taken out.
    pub(crate) fn counted_entry(
        &mut self,
        name: &str,
        view: MessageView<'_>,
        tracks: &[Track; 2],
        counts: &mut Counts,
    ) -> Result<(), OutputError> {
        let Some(redaction) = self.redaction.clone() else {
            let sides = ExchangeSide::both(view);
            return self.write(&HarEntry::new(name, view, &sides, tracks, self.options, self.start_time));
        };
        let mut sides = ExchangeSide::both(view);
        if !redaction.keep_unknown && ExchangeSide::open_tunnel(&sides) {
            // Nobody says what the bytes of another protocol are.
            sides.iter_mut().for_each(ExchangeSide::clear_body);
        }
        let redacted = sides.map(|side| side.redacted(&redaction, counts));
        let sides = [0, 1].map(|index: usize| ExchangeSide::of_redacted(&redacted[index]));
        let mut entry = HarEntry::new(name, view, &sides, tracks, self.options, self.start_time);
        entry.redact(&redaction, name, view);
        self.write(&entry)
    }

    /// Adds an exchange that was read out of the bytes of a socket, of the trace file called `name`.
    ///
    /// # Errors
    /// [`OutputError`] if the destination cannot be written.
    pub fn exchange(&mut self, name: &str, exchange: &Exchange) -> Result<(), OutputError> {
        match self.redaction {
            Some(_) => self.counted_exchange(name, &mut exchange.clone(), &mut Counts::default()),
            None => self.write(&HarEntry::of_exchange(name, exchange, None, self.start_time)),
        }
    }

    /// Does what [`Har::exchange`] does, and counts what is taken out of the exchange.
    pub(crate) fn counted_exchange(
        &mut self,
        name: &str,
        exchange: &mut Exchange,
        counts: &mut Counts,
    ) -> Result<(), OutputError> {
        let Some(redaction) = self.redaction.clone() else { return self.exchange(name, exchange) };
        // They are counted where they are in the exchange's bytes.
        let mut twice = Counts::default();
        let messages = socket::web_socket_messages(exchange, |bytes| {
            redact::web_socket_message(&redaction, bytes, &mut twice);
        });
        redact::exchange(&redaction, exchange, counts);
        self.write(&HarEntry::of_exchange(&redaction.file(name), exchange, messages, self.start_time))
    }

    fn write(&mut self, entry: &HarEntry<'_>) -> Result<(), OutputError> {
        let mut chunks = Chunks { har: self, failed: None };
        let separator: &[u8] = if chunks.har.entries == 0 { b"\n" } else { b",\n" };
        let written = chunks.write_all(separator).is_ok() && serde_json::to_writer(&mut chunks, entry).is_ok();
        match (chunks.failed, written) {
            (Some(error), _) => Err(error),
            (None, written) => {
                assert!(written, "only the destination can fail: all keys are strings");
                self.entries += 1;
                Ok(())
            }
        }
    }

    /// Writes out what is buffered, so that the reader of a live stream sees it.
    ///
    /// # Errors
    /// [`OutputError`] if the destination cannot be written.
    pub fn flush(&mut self) -> Result<(), OutputError> {
        // A trace without exchanges leaves no file, so nothing is written before the first entry.
        if self.entries > 0 && !self.buffer.is_empty() {
            self.output.write(&mut self.buffer)?;
        }
        self.output.flush()
    }

    /// Completes the file, which gets its name only now.
    ///
    /// # Errors
    /// [`OutputError`] if the destination cannot be written.
    pub fn finish(mut self) -> Result<(), OutputError> {
        self.buffer.append(b"\n]");
        if let Some(redaction) = &self.redaction {
            let comment = serde_json::Value::from(redaction.describe()).to_string();
            self.buffer.append(format!(",\"comment\":{comment}").as_bytes());
        }
        self.buffer.append(b"}}\n");
        self.output.finish(&self.buffer)
    }
}
