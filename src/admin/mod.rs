//! The client of Envoy's admin endpoint: which taps there are, a tap for as long as a request lasts, and why it stays
//! silent.
//!
//! Envoy ends on some requests that it accepts. [`request`] and [`matching`] can express none of them.

mod counters;
mod dump;
mod endpoint;
mod error;
mod http;
mod link;
mod matching;
mod reasons;
mod request;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    io::{self, Read},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

pub(crate) use self::{
    counters::Counters,
    dump::{ConfiguredTap, TapKind},
    endpoint::Endpoint,
    error::AdminError,
    matching::MatchConfig,
    reasons::Reason,
    request::{TapRequest, TapSink},
};
use self::{
    http::{Client, Progressing},
    link::LinkError,
    request::Ending,
};

/// How long after the end of our own tap Envoy may still say that a tap is active: it notices on the next turn of its
/// event loop, or when its answer reaches a closed connection.
const OWN_TAP_ENDS: Duration = Duration::from_secs(10);

/// Envoy's admin endpoint.
#[derive(Debug)]
pub(crate) struct Admin {
    client: Client,
    /// When our own last tap ended.
    ended: Arc<Mutex<Option<Instant>>>,
}

impl Admin {
    /// Connects nowhere yet.
    #[must_use]
    pub(crate) fn new(endpoint: &Endpoint) -> Self {
        Self::with(Client::new(endpoint))
    }

    /// As [`new`](Self::new), for someone who waits for each answer: it has this time.
    pub(crate) fn within(endpoint: &Endpoint, time: Duration) -> Self {
        let mut client = Client::new(endpoint);
        client.patience = http::Patience { connect: time, head: time, whole: time };
        Self::with(client)
    }

    fn with(client: Client) -> Self {
        Self { client, ended: Arc::default() }
    }

    /// The taps that a request can use: those with an `admin_config`. They are in the order of the configuration.
    ///
    /// # Errors
    /// Nothing answers, or it is not Envoy that does.
    pub(crate) fn taps(&self) -> Result<Vec<ConfiguredTap>, AdminError> {
        let text = self.client.get("/config_dump")?;
        dump::taps(&text).map_err(|error| self.client.not_understood("/config_dump", &error))
    }

    /// The counters that tell whether there was anything to tap.
    ///
    /// # Errors
    /// As [`taps`](Self::taps).
    pub(crate) fn counters(&self) -> Result<Counters, AdminError> {
        let text = self.client.get(counters::PATH)?;
        Counters::parse(&text).map_err(|error| self.client.not_understood("/stats", &error))
    }

    /// Begins to tap. Returns when the head of Envoy's answer is there: from now on it taps.
    ///
    /// # Errors
    /// As [`taps`](Self::taps), or Envoy does not want to.
    pub(crate) fn start(&self, request: &TapRequest) -> Result<TapStream, AdminError> {
        let body = request.to_json()?;
        match self.client.tap(&body) {
            Ok(reader) => {
                if let TapSink::Buffered { timeout: Some(timeout), .. } = request.sink {
                    reader.end_after(timeout);
                }
                let ending = Ending::new(request.sink);
                Ok(TapStream { reader: Some(reader), ending, ended: Arc::clone(&self.ended) })
            }
            Err(AdminError::UnknownConfigId { endpoint, known, .. }) => {
                Err(AdminError::UnknownConfigId { endpoint, asked: request.config_id.clone(), known })
            }
            Err(AdminError::Busy { endpoint, said, .. }) => {
                let ended = *self.ended.lock().unwrap_or_else(PoisonError::into_inner);
                let after_own = ended.is_some_and(|ended| ended.elapsed() < OWN_TAP_ENDS);
                Err(AdminError::Busy { endpoint, said, after_own })
            }
            Err(error) => Err(error),
        }
    }

    /// The same error, but with the config_ids that there are, if it is for one that there is not. This asks Envoy for its
    /// whole configuration, so it is not for errors that repeat.
    pub(crate) fn with_known_ids(&self, error: AdminError) -> AdminError {
        let AdminError::UnknownConfigId { endpoint, asked, .. } = error else { return error };
        // What else there is helps, but the error stands without it.
        let known = config_ids(self.taps().unwrap_or_default());
        AdminError::UnknownConfigId { endpoint, asked, known }
    }

    /// Why nothing has come since `before` was read. Empty if there is no reason to be seen.
    ///
    /// # Errors
    /// As [`taps`](Self::taps).
    pub(crate) fn reasons(&self, request: &TapRequest, before: &Counters) -> Result<Vec<Reason>, AdminError> {
        let taps = self.taps()?;
        let text = self.client.get("/listeners?format=json")?;
        let listeners = reasons::listeners(&text).map_err(|error| self.client.not_understood("/listeners", &error))?;
        Ok(reasons::reasons(request, &taps, &listeners, before, &self.counters()?))
    }
}

/// The config_ids of these taps, sorted, each once.
pub(crate) fn config_ids(taps: Vec<ConfiguredTap>) -> Vec<String> {
    taps.into_iter().map(|tap| tap.config_id).collect::<BTreeSet<_>>().into_iter().collect()
}

/// What a tap sends, as it arrives: JSON, one object after the other. It ends when Envoy ends it, with the last trace or
/// the time that the request has, or when a signal arrives. Where the connection breaks off, an
/// error of the kind [`UnexpectedEof`](io::ErrorKind::UnexpectedEof) or another one says so.
///
/// Envoy ends the tap when this is dropped.
pub(crate) struct TapStream {
    /// `None` after the end, so that the connection is closed at once.
    reader: Option<Progressing>,
    ending: Option<Ending>,
    ended: Arc<Mutex<Option<Instant>>>,
}

impl TapStream {
    fn end(&mut self) {
        if self.reader.take().is_some() {
            *self.ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        }
    }
}

impl Read for TapStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(reader) = &mut self.reader else {
            return Ok(0);
        };
        if buffer.is_empty() {
            return Ok(0);
        }
        let result = reader.read(buffer);
        match result {
            Ok(0) => {
                self.end();
                Ok(0)
            }
            Ok(count) => {
                let Some(ending) = &mut self.ending else {
                    return Ok(count);
                };
                let wanted = ending.wanted(&buffer[..count]);
                if ending.is_over() {
                    self.end();
                }
                Ok(wanted)
            }
            Err(error) => {
                self.end();
                match LinkError::of(&error) {
                    // Only the time of the request is a deadline here.
                    Some(LinkError::Interrupted | LinkError::Late(_)) => Ok(0),
                    _ => Err(http::read_error(error)),
                }
            }
        }
    }
}

impl Drop for TapStream {
    fn drop(&mut self) {
        self.end();
    }
}
