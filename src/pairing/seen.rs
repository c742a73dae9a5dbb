//! What is compared of an exchange: a few dozen bytes, so that those of ten thousand traces fit into memory.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::ExchangeId;
use crate::{
    http::{Exchange, Fields, HttpMessage},
    timeline::Role,
    trace::{Address, Nanos, Place},
};

/// A part of a SHA-256: nobody makes two texts with the same one by chance.
pub(super) type Mark = u64;

/// What is known of one exchange.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Which one it is.
    pub id: ExchangeId,
    /// Which side of Envoy it is on.
    pub role: Role,
    /// Whether the HTTP tap filter recorded it.
    pub is_tap: bool,
    /// The `trace_id`.
    pub connection_id: u64,
    /// Where the first message about its connection begins.
    pub connection_place: Place,
    /// The first byte of the request.
    pub began: Option<Nanos>,
    /// The first byte of the response.
    pub response_began: Option<Nanos>,
    /// The last byte of the response.
    pub ended: Option<Nanos>,
    /// When its connection was closed, if the response has no end.
    pub closed: Option<Nanos>,
    /// The status code.
    pub code: Option<u16>,
    /// gRPC's own status.
    pub(super) grpc_status: Option<u32>,
    /// Whether the response is whole.
    pub complete: bool,
    /// The address of the upstream, if this side tells.
    pub upstream: Option<Arc<Address>>,
    /// Envoy's own end of the connection with the upstream.
    pub(super) upstream_local: Option<Mark>,
    pub(super) method: Option<Mark>,
    /// The method and the path.
    pub(super) target: Option<Mark>,
    /// The method and the path before an Envoy changed it, if it tells.
    pub(super) former_target: Option<Mark>,
    /// Both ends of its connection. Two Envoys have the same ones if it is between them.
    pub(super) ends: Option<Mark>,
    /// The end of its connection that was connected to: of one with a client, Envoy's listener.
    pub(super) destination: Option<Mark>,
    /// Whether its connection with the upstream is another Envoy's connection with a client, whose traces are there.
    pub(super) leads_to_envoy: bool,
    /// The body, if it is whole.
    pub(super) request_body: Option<Mark>,
    pub(super) response_body: Option<Mark>,
    /// `x-request-id`
    pub(super) request_id: Option<Mark>,
    /// The trace of `traceparent`.
    pub(super) trace: Option<Mark>,
    /// Whether it is a copy that Envoy sends to another cluster, whose response nobody gets.
    pub(super) is_mirrored: bool,
    /// Whether the response says that an upstream has answered: `x-envoy-upstream-service-time`.
    pub(super) has_service_time: bool,
    /// Whether its connection carries several exchanges at a time.
    pub(super) is_multiplexed: bool,
}

pub(super) fn mark(parts: &[&[u8]]) -> Mark {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let digest: [u8; 32] = hash.finalize().into();
    u64::from_le_bytes([digest[0], digest[1], digest[2], digest[3], digest[4], digest[5], digest[6], digest[7]])
}

/// A request id without the digit of a UUID that Envoy changes to say whether the request is traced.
pub(super) fn id_mark(id: &[u8]) -> Option<Mark> {
    const CHANGED: usize = 14;
    let mut id = id.trim_ascii().to_ascii_lowercase();
    if id.len() == 36 && [8, 13, 18, 23].iter().all(|at| id[*at] == b'-') {
        id[CHANGED] = b'-';
    }
    (!id.is_empty()).then(|| mark(&[&id]))
}

/// The trace-id of `traceparent` (W3C Trace Context, section 3.2): Envoy may replace the parent-id after it.
fn trace_mark(fields: &Fields) -> Option<Mark> {
    let trace = fields.get("traceparent")?.split(|byte| *byte == b'-').nth(1)?;
    (trace.len() == 32 && trace.iter().any(|byte| *byte != b'0')).then(|| mark(&[trace]))
}

pub(super) fn target_mark(method: &[u8], path: &[u8]) -> Mark {
    // A fragment never leaves a browser, and Envoy takes it off.
    let end = path.iter().position(|byte| *byte == b'#').unwrap_or(path.len());
    mark(&[method, &path[..end]])
}

/// The path before Envoy followed a redirect by itself (`x-envoy-original-url`) or changed it as a route says.
fn former_path(fields: &Fields) -> Option<&[u8]> {
    let path_of_url = |url: &'_ [u8]| {
        let scheme = url.windows(3).position(|bytes| bytes == b"://")?;
        url[scheme + 3..].iter().position(|byte| *byte == b'/').map(|host| scheme + 3 + host)
    };
    let url = fields.get("x-envoy-original-url");
    let of_url = url.and_then(|url| path_of_url(url).map(|path| &url[path..]));
    of_url.or_else(|| fields.get("x-envoy-original-path"))
}

fn body_mark(message: &HttpMessage) -> Option<Mark> {
    (message.complete && message.size() == Some(message.body.len() as u64)).then(|| mark(&[&message.body]))
}

impl Seen {
    /// What is compared of an exchange. `share` keeps one copy of each address.
    #[must_use]
    pub fn of(id: ExchangeId, exchange: &Exchange, mut share: impl FnMut(&Address) -> Arc<Address>) -> Self {
        let connection = &exchange.connection;
        let (local, remote) = match (&connection.upstream, connection.role) {
            (Some(ends), _) => (ends.local.as_ref(), ends.remote.as_ref()),
            (None, Role::Upstream) => (connection.source.as_ref(), connection.destination.as_ref()),
            (None, Role::Downstream) => (None, None),
        };
        let fields = &exchange.request.fields;
        // The filter stands before the router: it records what the client has sent.
        let role = if connection.http_tap { Role::Downstream } else { connection.role };
        let is_tap = connection.http_tap;
        let method = exchange.method.as_deref();
        // Envoy makes an id for a client that sends none, and may tell it in the response.
        let told = exchange.response.fields.get("x-request-id").filter(|_| role == Role::Downstream);
        let request_id = fields.get("x-request-id").or(told);
        let path = exchange.path.as_deref();
        let target_of = |path: Option<&[u8]>| method.zip(path).map(|(method, path)| target_mark(method, path));
        let between = |(source, destination): (&Address, &Address)| {
            mark(&[source.to_string().as_bytes(), destination.to_string().as_bytes()])
        };
        Self {
            id,
            role,
            is_tap,
            connection_id: connection.trace_id,
            connection_place: connection.place,
            began: exchange.request.began,
            response_began: exchange.response.began,
            ended: exchange.response.ended,
            closed: None,
            code: exchange.code,
            grpc_status: exchange.grpc.as_ref().and_then(|grpc| grpc.status),
            complete: exchange.response.complete,
            upstream: remote.map(&mut share),
            upstream_local: local.map(|address| mark(&[address.to_string().as_bytes()])),
            method: method.map(|method| mark(&[method])),
            target: target_of(path),
            former_target: target_of(former_path(fields)),
            ends: connection.source.as_ref().zip(connection.destination.as_ref()).map(between),
            destination: connection.destination.as_ref().map(|address| mark(&[address.to_string().as_bytes()])),
            leads_to_envoy: false,
            request_body: body_mark(&exchange.request),
            response_body: body_mark(&exchange.response),
            request_id: request_id.and_then(id_mark),
            trace: trace_mark(fields),
            is_mirrored: role == Role::Upstream
                && exchange.host.as_deref().is_some_and(|host| {
                    let host = host.split(|byte| *byte == b':').next().unwrap_or_default();
                    host.ends_with(b"-shadow")
                }),
            has_service_time: exchange.response.fields.get("x-envoy-upstream-service-time").is_some(),
            is_multiplexed: !exchange.protocol.is_some_and(|protocol| protocol.starts_with("HTTP/1")),
        }
    }

    /// Whether it is a copy that Envoy has sent to another cluster (`request_mirror_policies`), whose response nobody gets.
    #[must_use]
    pub fn is_copy(&self) -> bool {
        self.is_mirrored
    }

    /// When the exchange with a client was over, as far as is known.
    pub(super) fn end(&self) -> Nanos {
        // Without either, the exchange may have lasted until the trace ends.
        self.ended.or(self.closed).unwrap_or(Nanos::MAX)
    }

    /// Whether an exchange with an upstream that began at `began` lies within this exchange with a client.
    pub(super) fn spans(&self, began: Nanos) -> bool {
        self.began.is_some_and(|own| own <= began) && began <= self.end()
    }

    /// When Envoy can have tried an upstream for the last time: it tries no other one once it has begun to answer.
    pub(super) fn last_attempt_before(&self) -> Nanos {
        self.response_began.unwrap_or(Nanos::MAX).min(self.end())
    }

    /// The targets that an exchange with an upstream may have which belongs to this one with a client.
    pub(super) fn targets(&self) -> impl Iterator<Item = Mark> + use<> {
        [self.target, self.former_target].into_iter().flatten()
    }

    /// The target of the client, as far as this exchange with an upstream tells.
    pub(super) fn client_target(&self) -> Option<Mark> {
        self.former_target.or(self.target)
    }

    /// Whether the target of an exchange with an upstream may come from this exchange with a client. Where a route changes
    /// the path, Envoy tells the upstream the one before, and the filter in a buffered trace, which it writes when the
    /// request ends. An Envoy behind it passes that on with the changed path.
    pub(super) fn has_target_of(&self, upstream: &Self) -> bool {
        match upstream.former_target {
            Some(former) if self.target == Some(former) => true,
            Some(former) => self.former_target == Some(former) && self.target == upstream.target,
            None => self.target.is_some() && self.target == upstream.target,
        }
    }

    /// Whether this exchange with a client is on the far side of an exchange with an upstream: where two Envoys are
    /// traced, on the connection between both or another one of the same listener. No Envoy sends a request to the
    /// listener that it came from.
    pub(super) fn is_behind(&self, upstream: &Self) -> bool {
        upstream.leads_to_envoy && upstream.destination.is_some() && self.destination == upstream.destination
    }

    /// Whether both are of one connection between two Envoys.
    pub(super) fn is_same_connection(&self, other: &Self) -> bool {
        self.ends.is_some() && self.ends == other.ends
    }

    /// Whether the upstream's response began before the client's.
    pub(super) fn is_before(&self, client: &Self) -> bool {
        match (self.response_began, client.response_began) {
            (Some(from), Some(to)) => from <= to,
            _ => true,
        }
    }

    /// Whether the client got this response of an upstream.
    pub(super) fn passed_on_by(&self, client: &Self) -> bool {
        let same_body = match (self.response_body, client.response_body) {
            (Some(own), Some(other)) => own == other,
            _ => true,
        };
        let same_grpc = match (self.grpc_status, client.grpc_status) {
            (Some(own), Some(other)) => own == other,
            _ => true,
        };
        self.code.is_some()
            && self.code == client.code
            && same_grpc
            && self.is_before(client)
            && same_body
            && !self.is_mirrored
    }

    /// Whether this response to a client is an upstream's. Envoy may have made an error by itself.
    pub(super) fn is_passed_on(&self) -> bool {
        self.code.is_some_and(|code| code < 400) || self.has_service_time
    }

    /// Whether Envoy may have given up on this exchange with an upstream, and tried another one, followed a redirect, or
    /// answered by itself. Routes say which responses are tried again, but success is not.
    pub(super) fn may_be_given_up(&self) -> bool {
        let is_success = matches!(self.code, Some(200..300 | 304)) && self.grpc_status.is_none_or(|status| status == 0);
        self.is_mirrored || !self.complete || !is_success
    }
}
