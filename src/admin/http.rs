//! Requests to the admin endpoint, and what its answers mean. HTTP itself is ureq's.

use std::{
    io::{self, Read},
    os::fd::BorrowedFd,
    time::Duration,
};

use ureq::{
    Agent, Body, BodyReader,
    http::{Response, StatusCode, header},
};

use super::{
    AdminError, Endpoint,
    error::quote,
    link::{Bounds, LinkError, Links, NoResolver},
};
use crate::interrupt;

/// Bytes of the head of an answer.
pub(crate) const MAX_HEAD: usize = 64 * 1024;
/// Bytes of a whole answer. The largest configurations have some ten megabytes.
const MAX_ANSWER: u64 = 64 << 20;
/// Bytes of an answer that tell why something was refused.
const MAX_REASON: u64 = 4096;

/// Longer than anyone waits, and within what times can express.
const LONGEST: Duration = Duration::from_hours(24 * 365);

/// How long the other side has time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    pub(crate) connect: Duration,
    pub(crate) head: Duration,
    pub(crate) whole: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { connect: Duration::from_secs(5), head: Duration::from_secs(10), whole: Duration::from_secs(30) }
    }
}

/// Sends requests, each over a connection of its own.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    endpoint: Endpoint,
    /// Becomes readable when a signal arrives.
    pub(crate) wake: Option<BorrowedFd<'static>>,
    pub(crate) patience: Patience,
}

impl Client {
    pub(crate) fn new(endpoint: &Endpoint) -> Self {
        Self { endpoint: endpoint.clone(), wake: interrupt::wake(), patience: Patience::default() }
    }

    /// The whole answer to a GET.
    pub(crate) fn get(&self, path: &str) -> Result<Vec<u8>, AdminError> {
        let (response, bounds) = self.send(path, None)?;
        bounds.set_deadline(self.patience.whole, "no whole answer");
        let response = self.expect_ok(response, path)?;
        let mut answer = Vec::new();
        let reader = Progressing { reader: response.into_body().into_reader(), bounds };
        reader.take(MAX_ANSWER + 1).read_to_end(&mut answer).map_err(|error| self.broken(error))?;
        if answer.len() as u64 > MAX_ANSWER {
            return Err(self.too_large(format!("more than {} MiB", MAX_ANSWER >> 20)));
        }
        Ok(answer)
    }

    /// The body of the answer to POST /tap.
    pub(crate) fn tap(&self, body: &str) -> Result<Progressing, AdminError> {
        let (response, bounds) = self.send("/tap", Some(body))?;
        bounds.set_deadline(self.patience.head, "no whole answer");
        let response = self.expect_ok(response, "/tap")?;
        // Nothing may happen for as long as it takes.
        bounds.clear_deadline();
        Ok(Progressing { reader: response.into_body().into_reader(), bounds })
    }

    /// Sends a request, and returns when the head of the answer is there.
    fn send(&self, path: &str, body: Option<&str>) -> Result<(Response<Body>, Bounds), AdminError> {
        let bounds = Bounds::default();
        bounds.set_deadline(self.patience.connect, "no connection");
        let links = Links {
            endpoint: self.endpoint.clone(),
            wake: self.wake,
            bounds: bounds.clone(),
            head: self.patience.head,
        };
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .user_agent(concat!("tap2pcap/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("")
            .max_response_header_size(MAX_HEAD)
            .max_idle_connections(0)
            .build();
        let agent = Agent::with_parts(config, links, NoResolver);
        let uri = self.uri(path);
        let result = match body {
            None => agent.get(uri).call(),
            Some(body) => agent.post(uri).content_type("application/json").send(body),
        };
        Ok((result.map_err(|error| self.failed(error))?, bounds))
    }

    fn uri(&self, path: &str) -> String {
        match &self.endpoint {
            // A zone is for this machine alone, and has no place in a URI.
            Endpoint::Tcp { host, .. } if host.contains('%') => format!("http://localhost{path}"),
            Endpoint::Tcp { host, port } if host.contains(':') => format!("http://[{host}]:{port}{path}"),
            Endpoint::Tcp { host, port } => format!("http://{host}:{port}{path}"),
            Endpoint::Unix(_) => format!("http://localhost{path}"),
        }
    }

    /// Everything but a success is an error, and says why.
    fn expect_ok(&self, response: Response<Body>, path: &str) -> Result<Response<Body>, AdminError> {
        let status = response.status();
        let of =
            |name| response.headers().get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        if status == StatusCode::OK {
            return match of(header::CONTENT_ENCODING) {
                Some(coding) if !coding.eq_ignore_ascii_case("identity") => Err(self
                    .not_understood(path, &format!("it is compressed ({}), which was not asked for", quote(&coding)))),
                _ => Ok(response),
            };
        }
        if status.is_redirection() {
            let location = of(header::LOCATION).map_or_else(|| "nowhere".into(), |location| quote(&location));
            return Err(AdminError::Redirect { endpoint: self.name(), status: status.as_u16(), location });
        }
        let mut said = Vec::new();
        let read = response.into_body().into_reader().take(MAX_REASON).read_to_end(&mut said);
        if let Err(error) = read
            && said.is_empty()
        {
            return Err(self.broken(error));
        }
        Err(self.refused(path, status.as_u16(), String::from_utf8_lossy(&said).into_owned()))
    }

    /// An answer without success. The words are Envoy's (`source/server/admin/admin.cc`,
    /// `source/extensions/common/tap/admin.cc`).
    fn refused(&self, path: &str, status: u16, said: String) -> AdminError {
        let endpoint = self.name();
        match status {
            404 if path == "/tap" && said.starts_with("invalid path") => AdminError::NoTap { endpoint },
            400 if said.contains("already exists") => AdminError::Busy { endpoint, said, after_own: false },
            400 if said.starts_with("Unknown config id") => {
                AdminError::UnknownConfigId { endpoint, asked: String::new(), known: Vec::new() }
            }
            400 | 429 | 500..=599 => AdminError::Status { endpoint, status, said },
            _ => {
                let first = said.lines().next().unwrap_or_default();
                let why = format!("it answers {path} with status {status}");
                let why = if first.is_empty() { why } else { format!("{why}: {}", quote(first)) };
                AdminError::NotEnvoy { endpoint, why }
            }
        }
    }

    pub(crate) fn not_understood(&self, path: &str, why: &str) -> AdminError {
        AdminError::NotUnderstood { endpoint: self.name(), path: path.to_owned(), why: why.to_owned() }
    }

    fn too_large(&self, what: String) -> AdminError {
        AdminError::TooLarge { endpoint: self.name(), what }
    }

    fn name(&self) -> String {
        self.endpoint.to_string()
    }

    /// Why there is no head of an answer.
    fn failed(&self, error: ureq::Error) -> AdminError {
        match error {
            ureq::Error::Io(error) => self.broken(error),
            ureq::Error::LargeResponseHeader(..) => {
                self.too_large(format!("its head has more than {} KiB", MAX_HEAD >> 10))
            }
            ureq::Error::Protocol(error) => AdminError::NotEnvoy {
                endpoint: self.name(),
                why: format!("what it answers is not HTTP/1.1 ({error})"),
            },
            other => AdminError::NotEnvoy { endpoint: self.name(), why: quote(&other.to_string()) },
        }
    }

    /// Why the rest of an answer, or all of it, is missing.
    fn broken(&self, error: io::Error) -> AdminError {
        let endpoint = self.name();
        match error.downcast::<LinkError>() {
            Ok(LinkError::Interrupted) => AdminError::Interrupted,
            Ok(LinkError::Endless) => self.too_large("a part of it does not end".into()),
            Ok(LinkError::Late(what)) => AdminError::Timeout { endpoint, what },
            Ok(LinkError::Connect(why)) => AdminError::Connect { endpoint, why },
            Err(error) => match error.downcast::<ureq::Error>() {
                Ok(error) => self.failed(error),
                Err(error) => AdminError::Broken { endpoint, why: read_error(error) },
            },
        }
    }
}

/// The body of an answer.
pub(crate) struct Progressing {
    reader: BodyReader<'static>,
    bounds: Bounds,
}

impl Progressing {
    /// Reads give up after this time.
    pub(crate) fn end_after(&self, time: Duration) {
        self.bounds.set_deadline(time.min(LONGEST), "the tap");
    }
}

impl Read for Progressing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.bounds.progress();
        self.reader.read(buffer)
    }
}

/// An error of a read in words that name no part of the program.
pub(crate) fn read_error(error: io::Error) -> io::Error {
    match error.downcast::<ureq::Error>() {
        Ok(ureq::Error::Protocol(error)) => {
            io::Error::new(io::ErrorKind::InvalidData, format!("its transfer coding is broken ({error})"))
        }
        // ureq says so where the connection ends within the size of a chunk.
        Ok(ureq::Error::BodyStalled) => closed(),
        Ok(other) => io::Error::new(io::ErrorKind::InvalidData, other.to_string()),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => closed(),
        Err(error) => error,
    }
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "it was closed before the end of the answer")
}
