//! Joins the lines of an access log with exchanges, and pairs exchanges by the connections that an access log or an HTTP
//! tap names.

use std::collections::HashMap;

use super::{
    Certainty, Pairs,
    seen::{Mark, Seen, id_mark, mark, target_mark},
    spans::Spans,
};
use crate::{timeline::Role, trace::Nanos};

/// What an access log tells of one request: as few bytes as needed to compare it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoggedRequest {
    /// `%START_TIME%`, and the unit that it was rounded down to.
    pub start: Option<(Nanos, Nanos)>,
    /// `%CONNECTION_ID%`
    pub connection_id: Option<u64>,
    /// `%UPSTREAM_CONNECTION_ID%`
    pub upstream_connection_id: Option<u64>,
    /// `%RESPONSE_CODE%`, 0 if the client got no response.
    pub code: Option<u16>,
    pub(crate) upstream_local: Option<Mark>,
    pub(crate) target: Option<Mark>,
    pub(crate) request_id: Option<Mark>,
}

impl LoggedRequest {
    /// With `%UPSTREAM_LOCAL_ADDRESS%`, the method and the path, and `%REQ(X-REQUEST-ID)%`, as far as the log has them.
    #[must_use]
    pub fn with(self, upstream_local: Option<&str>, target: Option<(&[u8], &[u8])>, request_id: Option<&[u8]>) -> Self {
        Self {
            upstream_local: upstream_local.map(|address| mark(&[address.as_bytes()])),
            target: target.map(|(method, path)| target_mark(method, path)),
            request_id: request_id.and_then(id_mark),
            ..self
        }
    }
}

/// If more exchanges than this fit a line, nobody can tell which one it is.
const MAX_CANDIDATES: usize = 64;

/// How many exchanges of a connection that a line names may have begun during a request.
const MAX_NAMED: usize = 512;

pub(super) fn pair(pairs: &mut Pairs, log: &[LoggedRequest]) {
    let index = Index::new(pairs);
    for (client, line) in joined(pairs, &index, log) {
        let logged = &log[line];
        let named = match logged.upstream_connection_id {
            Some(connection) => {
                pairs.named.insert(client as u32, connection);
                index.upstreams.get(&connection)
            }
            None => logged.upstream_local.and_then(|local| index.addresses.get(&local)),
        };
        link(pairs, client, named);
    }
    for client in 0..pairs.seen.len() {
        let seen = &pairs.seen[client];
        if let (true, Some(local)) = (seen.is_tap, seen.upstream_local) {
            link(pairs, client, index.addresses.get(&local));
        }
    }
}

/// Exchanges with their beginnings, sorted.
type ByTime = Vec<(Nanos, usize)>;

/// What the lines of a log are looked up by.
struct Index {
    /// The exchanges of sockets with clients, by connection: from the first byte of the request to that of the response.
    clients: HashMap<u64, Spans>,
    /// The exchanges of both sides by `x-request-id`.
    ids: HashMap<Mark, Vec<usize>>,
    /// The exchanges with upstreams by connection.
    upstreams: HashMap<u64, ByTime>,
    /// The same by Envoy's own end of the connection.
    addresses: HashMap<Mark, ByTime>,
}

impl Index {
    fn new(pairs: &Pairs) -> Self {
        let mut clients: HashMap<u64, Vec<(Nanos, Nanos, usize)>> = HashMap::new();
        let (mut ids, mut upstreams, mut addresses) = (HashMap::new(), HashMap::new(), HashMap::new());
        for (index, seen) in pairs.seen.iter().enumerate() {
            if let Some(id) = seen.request_id {
                let of_id: &mut Vec<usize> = ids.entry(id).or_default();
                // One more tells that there are too many.
                if of_id.len() <= MAX_CANDIDATES {
                    of_id.push(index);
                }
            }
            let Some(began) = seen.began else { continue };
            if seen.role == Role::Downstream {
                if !seen.is_tap {
                    let span = (began, seen.last_attempt_before(), index);
                    clients.entry(seen.connection_id).or_default().push(span);
                }
                continue;
            }
            let of_connection: &mut ByTime = upstreams.entry(seen.connection_id).or_default();
            of_connection.push((began, index));
            if let Some(local) = seen.upstream_local {
                let of_address: &mut ByTime = addresses.entry(local).or_default();
                of_address.push((began, index));
            }
        }
        upstreams.values_mut().chain(addresses.values_mut()).for_each(|exchanges| exchanges.sort_unstable());
        let clients = clients.into_iter().map(|(connection, spans)| (connection, Spans::new(spans))).collect();
        Self { clients, ids, upstreams, addresses }
    }

    /// The exchange of a socket with a client that a line is about.
    fn of_connection(&self, pairs: &Pairs, logged: &LoggedRequest, connection: u64) -> Option<usize> {
        // Envoy takes the time of the start after that of the first byte, and before that of its answer.
        let (earliest, latest) = logged.start.map_or((0, Nanos::MAX), span_of);
        let mut fitting = self.clients.get(&connection)?.holding(latest, earliest, MAX_CANDIDATES)?;
        fitting.retain(|index| fits(&pairs.seen[*index], logged));
        match fitting[..] {
            [] => None,
            [only] => Some(only),
            [last, before, ..] => {
                // On a connection that carries several at a time, Envoy starts each one before it reads the next one. That
                // does not tell if the time is so coarse that two began within its unit.
                let (seen, before) = (&pairs.seen[last], &pairs.seen[before]);
                let is_one = fitting.iter().all(|index| {
                    let other = &pairs.seen[*index];
                    (other.id.input, other.connection_place) == (seen.id.input, seen.connection_place)
                        && other.is_multiplexed
                });
                (is_one && seen.began <= Some(earliest) && before.began < seen.began).then_some(last)
            }
        }
    }

    /// The exchanges that carry the id of a line.
    fn of_id(&self, logged: &LoggedRequest) -> &[usize] {
        let of_id = logged.request_id.and_then(|id| self.ids.get(&id));
        of_id.filter(|of_id| of_id.len() <= MAX_CANDIDATES).map(Vec::as_slice).unwrap_or_default()
    }

    /// The only exchange with a client that carries the id of a line, of sockets or of HTTP taps.
    fn client_of_id(&self, pairs: &Pairs, logged: &LoggedRequest, is_tap: bool) -> Option<usize> {
        let is_client = |index: &&usize| {
            let seen = &pairs.seen[**index];
            let in_time = match (logged.start.map(span_of), seen.began) {
                (Some((earliest, latest)), Some(began)) => began <= latest && earliest <= seen.last_attempt_before(),
                _ => true,
            };
            seen.role == Role::Downstream && seen.is_tap == is_tap && in_time && fits(seen, logged)
        };
        let mut fitting = self.of_id(logged).iter().filter(is_client);
        fitting.next().filter(|_| fitting.next().is_none()).copied()
    }

    /// The exchanges with upstreams that carry the id of a line.
    fn upstreams_of_id<'a>(&'a self, pairs: &'a Pairs, logged: &'a LoggedRequest) -> impl Iterator<Item = usize> + 'a {
        let is_attempt = |index: &usize| {
            let seen = &pairs.seen[*index];
            let in_time = match (logged.start, seen.began) {
                (Some((start, _)), Some(began)) => start <= began,
                _ => true,
            };
            seen.role == Role::Upstream && in_time
        };
        self.of_id(logged).iter().copied().filter(is_attempt)
    }
}

/// The first and the last moment that a time of the log may be.
fn span_of((start, unit): (Nanos, Nanos)) -> (Nanos, Nanos) {
    (start, start.saturating_add(unit.saturating_sub(1)))
}

/// Whether a line does not contradict an exchange, but for times.
fn fits(seen: &Seen, logged: &LoggedRequest) -> bool {
    let (id, target) = (logged.request_id, logged.target);
    let same_target = target.is_none() || seen.target.is_none() || seen.targets().any(|own| Some(own) == target);
    let same_id = id.is_none() || seen.request_id.is_none() || seen.request_id == id;
    let same_code = match (logged.code, seen.code) {
        (Some(logged), Some(code)) => logged == code,
        (Some(logged), None) => logged == 0 || seen.role == Role::Upstream,
        (None, _) => true,
    };
    same_target && same_id && same_code
}

/// The lines with the exchanges with clients that they are about. Each exchange has at most one.
fn joined(pairs: &mut Pairs, index: &Index, log: &[LoggedRequest]) -> Vec<(usize, usize)> {
    // A log may be given twice, but two different lines are of two requests.
    let mut contested = vec![false; pairs.seen.len()];
    for (line, logged) in log.iter().enumerate() {
        let of_socket = match logged.connection_id {
            Some(connection) => index.of_connection(pairs, logged, connection),
            None => index.client_of_id(pairs, logged, false),
        };
        let of_tap = index.client_of_id(pairs, logged, true);
        let exchanges: Vec<usize> =
            of_socket.into_iter().chain(of_tap).chain(index.upstreams_of_id(pairs, logged)).collect();
        for exchange in exchanges {
            match pairs.lines[exchange] {
                None => pairs.lines[exchange] = Some(line as u32),
                Some(other) => contested[exchange] |= log[other as usize] != *logged,
            }
        }
    }
    let mut joined = Vec::new();
    for (exchange, is_contested) in contested.into_iter().enumerate() {
        if is_contested {
            pairs.lines[exchange] = None;
        }
        if let (Some(line), Role::Downstream) = (pairs.lines[exchange], pairs.seen[exchange].role) {
            joined.push((exchange, line as usize));
        }
    }
    joined
}

/// Pairs the exchange with a client and the only one of these that fits.
fn link(pairs: &mut Pairs, client: usize, named: Option<&ByTime>) {
    let own = &pairs.seen[client];
    let (Some(named), Some(began)) = (named, own.began) else { return };
    let fits = |upstream: usize| {
        let upstream = &pairs.seen[upstream];
        let same_method = own.method.is_none() || upstream.method.is_none() || own.method == upstream.method;
        let same_id = match (own.request_id, upstream.request_id) {
            // The filter sees the id that Envoy passes on.
            (Some(own_id), Some(other)) if own.is_tap => own_id == other,
            _ => true,
        };
        same_method && same_id && !own.is_behind(upstream)
    };
    let first = named.partition_point(|(time, _)| *time < began);
    let last = named.partition_point(|(time, _)| *time <= own.last_attempt_before());
    let within = named.get(first..last).unwrap_or_default();
    if within.len() > MAX_NAMED {
        return;
    }
    // HTTP/2 carries other requests at the same time, and HTTP/1 may carry several attempts one after the other.
    let fitting: Vec<usize> = within.iter().map(|(_, upstream)| *upstream).filter(|upstream| fits(*upstream)).collect();
    let narrow = |candidates: &[usize], keep: &dyn Fn(&Seen) -> bool| -> Vec<usize> {
        let kept: Vec<usize> = candidates.iter().copied().filter(|upstream| keep(&pairs.seen[*upstream])).collect();
        if kept.is_empty() { candidates.to_vec() } else { kept }
    };
    let of_target = narrow(&fitting, &|upstream| own.has_target_of(upstream));
    // A filter may have changed the path without saying so.
    let is_changed = of_target.first().is_some_and(|upstream| !own.has_target_of(&pairs.seen[*upstream]));
    let answered = match own.is_passed_on() {
        true => narrow(&of_target, &|upstream| upstream.passed_on_by(own)),
        false => of_target,
    };
    let [upstream] = answered[..] else { return };
    let is_answer = pairs.seen[upstream].passed_on_by(own);
    if is_changed && !is_answer {
        return;
    }
    pairs.set(upstream, client, if is_changed { Certainty::Likely } else { Certainty::Certain });
    if is_answer {
        pairs.answers[client].get_or_insert(upstream as u32);
    }
}
