//! Requests that are under way on tapped sockets, so that an HTTP tap's segments get the addresses of the socket that
//! carried them.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{
    super::hash::stable_hash,
    head::{MessageHead, Pseudo},
};
use crate::trace::{Address, Connection, HttpPart, HttpSide, MessageView, Nanos, TraceKind};

/// How many requests may be under way. With more, nothing is certain until none is under way.
const MAX_OPEN: usize = 4096;

/// How many of them may have the same method, path and host. With more, nothing is certain of these.
const MAX_ALIKE: usize = 64;

/// How long before its HTTP segment a request may have come from the socket, in nanoseconds. One that came earlier is
/// held up by a filter before the tap, or ended there.
const MAX_DELAY: Nanos = 1_000_000_000;

/// Fields that Envoy adds, removes or changes between a client's socket and the HTTP filters, besides those that begin
/// with `x-envoy-` or `x-forwarded-`.
const CHANGED: [&str; 19] = [
    "b3",
    "connection",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "traceparent",
    "tracestate",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-b3-sampled",
    "x-b3-spanid",
    "x-b3-traceid",
    "x-request-id",
];

/// A request that is under way on a tapped socket of a client.
#[derive(Clone, Debug)]
pub(crate) struct OpenRequest {
    /// Its connection and its exchange, as its owner knows them. Pipelined requests may have the same.
    pub key: (u64, u64),
    pub ends: Connection,
    pub method: Vec<u8>,
    pub host: Option<Vec<u8>>,
    pub path: Vec<u8>,
    /// Names and values.
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
    /// When it arrived, in nanoseconds since the Unix epoch.
    pub arrived: Nanos,
}

#[derive(Debug, Default)]
struct Open {
    /// By method, path and host.
    alike: HashMap<u64, VecDeque<OpenRequest>>,
    count: usize,
    /// Requests were left out.
    full: bool,
}

/// The requests that are under way. Who reads the sockets adds and removes them, and the timelines look for them.
#[derive(Clone, Debug, Default)]
pub(crate) struct OpenRequests(Arc<Mutex<Open>>);

impl OpenRequests {
    fn lock(&self) -> MutexGuard<'_, Open> {
        // A panic cannot leave the list half changed, so a poisoned lock is as good as any.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a request.
    pub(crate) fn begin(&self, request: OpenRequest) {
        let mut open = self.lock();
        if open.count == 0 {
            open.full = false;
        }
        if open.count >= MAX_OPEN {
            open.full = true;
            return;
        }
        let Some(hash) = hash(&request.method, request.host.as_deref(), &request.path) else { return };
        open.count += 1;
        open.alike.entry(hash).or_default().push_back(request);
    }

    /// The request with this key, method, host and path is over.
    pub(crate) fn end(&self, key: (u64, u64), method: &[u8], host: Option<&[u8]>, path: &[u8]) {
        let mut open = self.lock();
        let Some(hash) = hash(method, host, path) else { return };
        open.remove(hash, |request| request.key == key);
    }

    /// The ends of the socket that carries the request whose head is in this message of a streamed HTTP trace, which
    /// arrived at `now`. `None` unless it is certain: of the requests that are under way, exactly one has the same
    /// method, path, host and fields, it has just come, and Envoy names no other client.
    pub(in crate::timeline) fn take(&self, view: MessageView<'_>, now: Nanos) -> Option<Connection> {
        let message = view.message();
        if message.kind != Some(TraceKind::HttpStreamed)
            || message.connection.is_some()
            || message.upstream_connection.is_some()
        {
            return None;
        }
        let piece =
            message.http.iter().find(|piece| (piece.side, piece.part) == (HttpSide::Request, HttpPart::Headers))?;
        let mut open = self.lock();
        if open.full || open.count == 0 {
            return None;
        }
        let head = MessageHead::read(view, piece);
        let hash = hash(head.method()?, head.pseudo(Pseudo::Authority), head.pseudo(Pseudo::Path)?)?;
        let requests = open.alike.get(&hash).filter(|requests| requests.len() <= MAX_ALIKE)?;
        let mut alike = requests.iter().filter(|request| is_of(request, &head));
        let found = alike.next()?;
        if alike.next().is_some() || now.saturating_sub(found.arrived) > MAX_DELAY {
            return None;
        }
        let (key, ends) = (found.key, found.ends.clone());
        open.remove(hash, |request| request.key == key);
        Some(ends)
    }
}

impl Open {
    fn remove(&mut self, hash: u64, is_it: impl Fn(&OpenRequest) -> bool) {
        let Some(requests) = self.alike.get_mut(&hash) else { return };
        if let Some(index) = requests.iter().position(is_it) {
            requests.remove(index);
            self.count -= 1;
        }
        if requests.is_empty() {
            self.alike.remove(&hash);
        }
    }
}

/// A hash of what never differs between a socket and an HTTP tap. `None` if there is no host.
fn hash(method: &[u8], host: Option<&[u8]>, path: &[u8]) -> Option<u64> {
    let host = host?.to_ascii_lowercase();
    Some(stable_hash(&[method, &host, path]))
}

/// Whether the head of an HTTP trace is that of a socket's request: each has the fields of the other, but for those that
/// Envoy changes, and Envoy names no other client.
fn is_of(request: &OpenRequest, head: &MessageHead<'_>) -> bool {
    let same_host = match (&request.host, head.pseudo(Pseudo::Authority)) {
        (Some(host), Some(authority)) => host.eq_ignore_ascii_case(authority),
        _ => false,
    };
    let sent = |name: &[u8], is_it: &dyn Fn(&[u8]) -> bool| {
        request.fields.iter().any(|(own, value)| own.eq_ignore_ascii_case(name) && is_it(value))
    };
    let recorded = || head.fields.iter().map(|field| head.field(field));
    same_host
        && head.method() == Some(&request.method)
        && head.pseudo(Pseudo::Path) == Some(&request.path)
        && request.fields.iter().all(|(name, value)| {
            is_changed(name) || recorded().any(|(key, recorded)| key.eq_ignore_ascii_case(name) && has(recorded, value))
        })
        && recorded().all(|(key, recorded)| {
            if key.eq_ignore_ascii_case(b"x-forwarded-for") {
                return sent(key, &|value| value == recorded) || names_client(recorded, &request.ends);
            }
            is_changed(key) || sent(key, &|value| has(recorded, value))
        })
}

/// Whether a recorded value has the sent one. Envoy joins the values of some fields that came more than once.
fn has(recorded: &[u8], sent: &[u8]) -> bool {
    recorded == sent || recorded.split(|byte| *byte == b',').any(|one| one.trim_ascii() == sent.trim_ascii())
}

/// Whether the last address in `x-forwarded-for`, which Envoy adds, is that of the socket's client.
fn names_client(forwarded_for: &[u8], ends: &Connection) -> bool {
    let last = forwarded_for.rsplit(|byte| *byte == b',').next().unwrap_or_default().trim_ascii();
    let ip = |text: &[u8]| std::str::from_utf8(text).ok()?.parse::<std::net::IpAddr>().ok();
    match &ends.remote {
        Some(Address::Socket { address, .. }) => ip(last).is_some() && ip(last) == ip(address.as_bytes()),
        _ => true,
    }
}

fn is_changed(name: &[u8]) -> bool {
    let begins = |prefix: &[u8]| name.get(..prefix.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(prefix));
    begins(b":")
        || begins(b"x-envoy-")
        || begins(b"x-forwarded-")
        || CHANGED.iter().any(|changed| name.eq_ignore_ascii_case(changed.as_bytes()))
}
