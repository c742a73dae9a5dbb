//! Pairs exchanges by the connections that an access log or an HTTP tap names.

use std::collections::HashMap;

use super::{
    Certainty, Pairs,
    seen::{Mark, Seen, id_mark, mark, target_mark},
};
use crate::{timeline::Role, trace::Nanos};

/// What an access log tells of one request.
#[derive(Clone, Debug, Default)]
pub struct LoggedRequest {
    /// `%START_TIME%`, and the unit that it was rounded down to.
    pub start: Option<(Nanos, Nanos)>,
    /// `%CONNECTION_ID%`
    pub connection_id: Option<u64>,
    /// `%UPSTREAM_CONNECTION_ID%`
    pub upstream_connection_id: Option<u64>,
    /// `%UPSTREAM_LOCAL_ADDRESS%`
    pub upstream_local_address: Option<String>,
    /// The method and the path.
    pub target: Option<(Vec<u8>, Vec<u8>)>,
    /// `%REQ(X-REQUEST-ID)%`
    pub request_id: Option<Vec<u8>>,
}

/// How much later than its first byte a request may begin for Envoy: once its head is whole.
const HEAD: Nanos = 1_000_000_000;

/// The exchanges of a connection, in their order.
type OfConnection = HashMap<(Role, u64), Vec<usize>>;

pub(super) fn pair(pairs: &mut Pairs, log: &[LoggedRequest]) {
    let mut connections = OfConnection::new();
    let mut addresses: HashMap<Mark, Vec<usize>> = HashMap::new();
    for (index, seen) in pairs.seen.iter().enumerate() {
        if !seen.is_tap {
            connections.entry((seen.role, seen.connection_id)).or_default().push(index);
        }
        if let (Role::Upstream, Some(local)) = (seen.role, seen.upstream_local) {
            addresses.entry(local).or_default().push(index);
        }
    }
    for logged in log {
        let Some(client) = client(pairs, &connections, logged) else { continue };
        let local = logged.upstream_local_address.as_ref().map(|address| mark(&[address.as_bytes()]));
        let named = match logged.upstream_connection_id {
            Some(connection) => connections.get(&(Role::Upstream, connection)),
            None => local.and_then(|local| addresses.get(&local)),
        };
        link(pairs, client, named);
    }
    for client in 0..pairs.seen.len() {
        let seen = &pairs.seen[client];
        if let (true, Some(local)) = (seen.is_tap, seen.upstream_local) {
            link(pairs, client, addresses.get(&local));
        }
    }
}

/// Pairs the exchange with a client and the only one of these that fits.
fn link(pairs: &mut Pairs, client: usize, named: Option<&Vec<usize>>) {
    let own = &pairs.seen[client];
    let fits = |upstream: &&usize| {
        let upstream = &pairs.seen[**upstream];
        let same_method = own.method.is_none() || upstream.method.is_none() || own.method == upstream.method;
        let same_id = match (own.request_id, upstream.request_id) {
            // The filter sees the id that Envoy passes on.
            (Some(own_id), Some(other)) if own.is_tap => own_id == other,
            _ => true,
        };
        same_method && same_id && upstream.began.is_some_and(|began| own.spans(began))
    };
    let fitting: Vec<usize> = named.into_iter().flatten().filter(fits).copied().collect();
    // HTTP/2 carries other requests at the same time.
    let same_target: Vec<usize> =
        fitting.iter().filter(|upstream| pairs.seen[**upstream].target == own.target).copied().collect();
    let upstream = match (&same_target[..], &fitting[..]) {
        ([upstream], _) | ([], [upstream]) => *upstream,
        _ => return,
    };
    pairs.set(upstream, client, Certainty::Certain);
}

/// The exchange with a client that the log has this line about.
fn client(pairs: &Pairs, connections: &OfConnection, logged: &LoggedRequest) -> Option<usize> {
    let named = connections.get(&(Role::Downstream, logged.connection_id?))?;
    let target = logged.target.as_ref().map(|(method, path)| target_mark(method, path));
    let id = logged.request_id.as_deref().and_then(id_mark);
    let begins = |seen: &Seen| match (logged.start, seen.began) {
        (Some((start, unit)), Some(began)) => began < start.saturating_add(unit) && start <= began.saturating_add(HEAD),
        _ => true,
    };
    let fits = |index: &&usize| {
        let seen = &pairs.seen[**index];
        let same_target = target.is_none() || seen.target.is_none() || seen.target == target;
        let same_id = id.is_none() || seen.request_id.is_none() || seen.request_id == id;
        same_target && same_id && begins(seen)
    };
    let mut fitting = named.iter().filter(fits).copied();
    let first = fitting.next()?;
    match fitting.next() {
        None => Some(first),
        // Of several, the one whose time is the log's.
        Some(_) => {
            let (start, unit) = logged.start?;
            let near = |index: &&usize| {
                pairs.seen[**index].began.is_some_and(|began| start.abs_diff(began / unit.max(1) * unit.max(1)) == 0)
            };
            let mut nearest = named.iter().filter(fits).filter(near).copied();
            nearest.next().filter(|_| nearest.next().is_none())
        }
    }
}
