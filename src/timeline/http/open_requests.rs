//! Requests that are under way on tapped sockets, so that an HTTP tap's segments get the addresses of the socket that
//! carried them.

use std::{
    borrow::Cow,
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::head::{MessageHead, Pseudo};
use crate::trace::{Connection, HttpPart, HttpSide, MessageView, TraceKind};

/// How many requests may be under way. With more, nothing is certain any more until there are fewer.
const MAX_OPEN: usize = 4096;

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
    /// What its owner knows it by.
    pub key: (u64, u64),
    pub ends: Connection,
    pub method: Vec<u8>,
    pub host: Option<Vec<u8>>,
    pub path: Vec<u8>,
    /// Names and values.
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
}

/// The requests that are under way. Who reads the sockets adds and removes them, and the timelines look for them.
#[derive(Clone, Debug, Default)]
pub(crate) struct OpenRequests(Arc<Mutex<VecDeque<OpenRequest>>>);

impl OpenRequests {
    fn lock(&self) -> MutexGuard<'_, VecDeque<OpenRequest>> {
        // A panic cannot leave the list half changed, so a poisoned lock is as good as any.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a request.
    pub(crate) fn begin(&self, request: OpenRequest) {
        let mut open = self.lock();
        if open.len() > MAX_OPEN {
            open.pop_front();
        }
        open.push_back(request);
    }

    /// A request is over.
    pub(crate) fn end(&self, key: (u64, u64)) {
        let mut open = self.lock();
        if let Some(index) = open.iter().position(|request| request.key == key) {
            open.remove(index);
        }
    }

    /// The ends of the socket that carries the request whose head is in this message of a streamed HTTP trace. `None`
    /// unless it is certain: exactly one request that is under way has the same method, path, host and fields.
    pub(in crate::timeline) fn take(&self, view: MessageView<'_>) -> Option<Connection> {
        let message = view.message();
        if message.kind != Some(TraceKind::HttpStreamed)
            || message.connection.is_some()
            || message.upstream_connection.is_some()
        {
            return None;
        }
        let piece =
            message.http.iter().find(|piece| (piece.side, piece.part) == (HttpSide::Request, HttpPart::Headers))?;
        let head = MessageHead::read(view, piece);
        let mut open = self.lock();
        if open.len() > MAX_OPEN {
            return None;
        }
        let mut alike = open.iter().enumerate().filter(|(_, request)| is_of(request, &head));
        let (index, _) = alike.next()?;
        if alike.next().is_some() {
            return None;
        }
        open.remove(index).map(|request| request.ends)
    }
}

/// Whether the head of an HTTP trace is that of a socket's request.
fn is_of(request: &OpenRequest, head: &MessageHead<'_>) -> bool {
    let same_host = match (&request.host, head.pseudo(Pseudo::Authority)) {
        (Some(host), Some(authority)) => host.eq_ignore_ascii_case(authority),
        _ => false,
    };
    same_host
        && head.method() == Some(&request.method)
        && head.pseudo(Pseudo::Path) == Some(&request.path)
        && request.fields.iter().all(|(name, value)| {
            let name = match name.iter().any(u8::is_ascii_uppercase) {
                true => Cow::Owned(name.to_ascii_lowercase()),
                false => Cow::Borrowed(name),
            };
            is_changed(&name)
                || head.fields.iter().map(|field| head.field(field)).any(|(key, recorded)| {
                    // Envoy joins the values of some fields that came more than once.
                    key == *name && (recorded == value || recorded.split(|byte| *byte == b',').any(|one| one == value))
                })
        })
}

fn is_changed(name: &[u8]) -> bool {
    name.starts_with(b":")
        || name.starts_with(b"x-envoy-")
        || name.starts_with(b"x-forwarded-")
        || CHANGED.iter().any(|changed| changed.as_bytes() == name)
}
