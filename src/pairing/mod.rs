//! Which exchanges with upstreams belong to which exchange with a client.
//!
//! Envoy's two taps record a request twice: as the client sent it, and as Envoy passed it on. Nothing in the traces joins
//! both, so this module compares what both have. Each exchange with an upstream gets at most one exchange with a client;
//! an exchange with a client may have several with upstreams, because Envoy retries. Where more than one answer fits,
//! there is none.
//!
//! - [`Certainty::Certain`]: an access log or an HTTP tap names both connections, or both exchanges carry the same id
//!   (`x-request-id`, or the trace of `traceparent`) and no other exchange fits.
//! - [`Certainty::Likely`]: method, path, bodies and times fit, and those of no other exchange do so well.

mod by_content;
mod by_id;
mod by_log;
mod seen;
mod spans;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};

pub use self::{by_log::LoggedRequest, seen::Seen};
use crate::{http::Pairing, timeline::Role, trace::Nanos};

/// How sure it is that two exchanges are of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Certainty {
    /// Nothing else fits as well.
    Likely,
    /// Both carry the same id, or something else names both.
    Certain,
}

impl Certainty {
    /// Its word in outputs.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Likely => "likely",
            Self::Certain => "certain",
        }
    }
}

/// One exchange: the index of its input, and its number in the order in which the input's exchanges come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExchangeId {
    /// The index of the input.
    pub input: u32,
    /// The number, from 0.
    pub number: u32,
}

/// The pairs that were found.
#[derive(Debug, Default)]
pub struct Pairs {
    /// All exchanges, sorted by their ids.
    seen: Vec<Seen>,
    /// For each exchange with an upstream, those with clients: one in sockets, one in HTTP taps.
    owners: Vec<[Option<(u32, Certainty)>; 2]>,
    /// For each exchange with a client, those with upstreams, in the order in which they began.
    attempts: Vec<Vec<u32>>,
    /// For each exchange with a client, the one whose response it got or, when all are paired and it got none, the last
    /// one; `None` if that is not known.
    answers: Vec<Option<u32>>,
    /// For each exchange with a client, the first one with an upstream.
    first: Vec<Option<u32>>,
    /// The exchanges with clients that may have had further attempts, which cannot be told from those of others, and when
    /// the first of those began.
    ambiguous: HashMap<u32, Nanos>,
    /// The exchanges with clients whose id Envoy passes on.
    keeps_id: HashSet<u32>,
    /// For exchanges with clients, the connection with an upstream that the access log names.
    named: HashMap<u32, u64>,
    /// For each exchange, the line of the access log about its request.
    lines: Vec<Option<u32>>,
}

/// In which of a pair's two lists the exchanges with clients of this kind are.
fn layer(seen: &Seen) -> usize {
    usize::from(seen.is_tap)
}

impl Pairs {
    /// Finds the pairs among exchanges.
    #[must_use]
    pub fn find(mut seen: Vec<Seen>, log: &[LoggedRequest]) -> Self {
        seen.sort_by_key(|seen| seen.id);
        note_envoys(&mut seen);
        note_redirects(&mut seen);
        let count = seen.len();
        let mut pairs = Self {
            seen,
            owners: vec![[None; 2]; count],
            attempts: vec![Vec::new(); count],
            answers: vec![None; count],
            first: vec![None; count],
            lines: vec![None; count],
            ..Self::default()
        };
        by_log::pair(&mut pairs, log);
        by_id::pair(&mut pairs);
        by_content::pair(&mut pairs);
        for (upstream, owners) in pairs.owners.iter().enumerate() {
            for (owner, _) in owners.iter().flatten() {
                pairs.attempts[*owner as usize].push(upstream as u32);
            }
        }
        let seen = &pairs.seen;
        for attempts in &mut pairs.attempts {
            attempts.sort_by_key(|attempt| (seen[*attempt as usize].began, seen[*attempt as usize].id));
        }
        pairs.note_copies();
        for client in 0..count {
            pairs.answers[client] = pairs.find_answer(client).map(|answer| answer as u32);
            let first = pairs.own_attempts(client).next();
            pairs.first[client] = first.map(|first| first as u32);
        }
        pairs
    }

    /// Notes which exchanges with upstreams are copies for another cluster whose hosts do not say so
    /// (`disable_shadow_host_suffix_append`): those that were answered after the client was. Of two attempts with the
    /// client's answer, both at the same time or both successful, nothing says which one is the copy.
    fn note_copies(&mut self) {
        for client in 0..self.seen.len() {
            let answered = self.seen[client].response_began;
            for attempt in &self.attempts[client] {
                let seen = &mut self.seen[*attempt as usize];
                let is_late = answered.is_some() && seen.response_began > answered;
                seen.is_mirrored |= is_late;
            }
            let mut latest = None;
            // They are in the order in which they began.
            let is_copied = self.own_attempts(client).any(|attempt| {
                let seen = &self.seen[attempt];
                let is_answer = seen.complete && seen.passed_on_by(&self.seen[client]);
                let overlaps = is_answer && seen.began < latest;
                let until = if seen.may_be_given_up() { seen.response_began } else { Some(Nanos::MAX) };
                latest = latest.max(until.filter(|_| is_answer));
                overlaps
            });
            let first = self.own_attempts(client).next().and_then(|first| self.seen[first].began);
            if let (true, Some(first)) = (is_copied, first) {
                self.ambiguous.insert(client as u32, first);
            }
        }
    }

    fn set(&mut self, upstream: usize, client: usize, certainty: Certainty) {
        let layer = layer(&self.seen[client]);
        self.owners[upstream][layer].get_or_insert((client as u32, certainty));
    }

    /// Whether the client may have got the response of this exchange with an upstream.
    fn may_be_answer(&self, upstream: usize, client: usize) -> bool {
        let seen = &self.seen[upstream];
        let named = self.named.get(&(client as u32));
        named.is_none_or(|named| *named == seen.connection_id) && seen.passed_on_by(&self.seen[client])
    }

    /// The index of the access log's line about the request that an exchange is of.
    #[must_use]
    pub fn line(&self, id: ExchangeId) -> Option<usize> {
        let index = self.index(id)?;
        let owner = self.owners[index].into_iter().flatten().find_map(|(owner, _)| self.lines[owner as usize]);
        self.lines[index].or(owner).map(|line| line as usize)
    }

    /// Whether there are exchanges of this side.
    #[cfg(feature = "report")]
    #[must_use]
    pub(crate) fn has(&self, role: Role) -> bool {
        self.seen.iter().any(|seen| seen.role == role)
    }

    fn index(&self, id: ExchangeId) -> Option<usize> {
        self.seen.binary_search_by_key(&id, |seen| seen.id).ok()
    }

    /// What is known of an exchange.
    #[must_use]
    pub fn seen(&self, id: ExchangeId) -> Option<&Seen> {
        Some(&self.seen[self.index(id)?])
    }

    /// The exchanges with upstreams that belong to this exchange with a client, in the order in which they began.
    #[must_use]
    pub fn attempts(&self, id: ExchangeId) -> Vec<&Seen> {
        let attempts = self.index(id).map(|index| self.attempts[index].as_slice()).unwrap_or_default();
        attempts.iter().map(|attempt| &self.seen[*attempt as usize]).collect()
    }

    /// Whether an exchange with a client has, or may have, attempts.
    #[must_use]
    pub fn may_have_attempts(&self, id: ExchangeId) -> bool {
        let index = self.index(id);
        index.is_some_and(|index| !self.attempts[index].is_empty() || self.ambiguous.contains_key(&(index as u32)))
    }

    /// The one of [`Pairs::attempts`] whose response the client got or, if it got none, the last one. `None` if that is
    /// not known.
    #[must_use]
    pub fn answering(&self, id: ExchangeId) -> Option<&Seen> {
        Some(&self.seen[self.answer(self.index(id)?)?])
    }

    /// The exchanges with clients that this exchange with an upstream belongs to, in sockets and in HTTP taps.
    pub fn owners(&self, id: ExchangeId) -> impl Iterator<Item = &Seen> {
        let owners = self.index(id).map(|index| self.owners[index]).into_iter().flatten().flatten();
        owners.map(|(owner, _)| &self.seen[owner as usize])
    }

    /// The exchange with a client that this exchange with an upstream belongs to: that of a socket before that of an HTTP
    /// tap.
    #[must_use]
    pub fn owner(&self, id: ExchangeId) -> Option<&Seen> {
        self.owners(id).next()
    }

    /// Every pair: the exchange with the client, that with the upstream, and how sure it is.
    pub fn iter(&self) -> impl Iterator<Item = (&Seen, &Seen, Certainty)> {
        let of_upstream = |(upstream, owners): (usize, &[Option<(u32, Certainty)>; 2])| {
            owners.map(|owner| owner.map(|(client, certainty)| (client, upstream, certainty)))
        };
        self.owners
            .iter()
            .enumerate()
            .flat_map(of_upstream)
            .flatten()
            .map(|(client, upstream, certainty)| (&self.seen[client as usize], &self.seen[upstream], certainty))
    }

    /// What pairing tells of an exchange.
    #[must_use]
    pub fn of(&self, id: ExchangeId) -> Pairing {
        let Some(index) = self.index(id) else { return Pairing::default() };
        match self.seen[index].role {
            Role::Downstream => self.of_client(index),
            Role::Upstream => self.of_upstream(index),
        }
    }

    fn of_client(&self, index: usize) -> Pairing {
        let seen = &self.seen[index];
        let attempts: Vec<usize> = self.own_attempts(index).collect();
        let Some(first) = attempts.first() else {
            // The HTTP tap filter records the upstream's address itself.
            return Pairing { upstream_address: seen.upstream.clone(), ..Pairing::default() };
        };
        let certainty = |attempt: &usize| {
            self.owners[*attempt].iter().flatten().find(|(owner, _)| *owner as usize == index).map(|(_, of)| *of)
        };
        let answer = self.answer(index).map(|answer| &self.seen[answer]);
        let is_ambiguous = self.ambiguous.contains_key(&(index as u32));
        let named = self.named.get(&(index as u32)).copied();
        Pairing {
            certainty: attempts.iter().filter_map(certainty).min(),
            upstream_address: answer.and_then(|answer| answer.upstream.clone()),
            upstream_connection: answer.map(|answer| answer.connection_id).or(named),
            attempts: Some(attempts.len() as u64).filter(|_| !is_ambiguous),
            request_latency: between(seen.began, self.seen[*first].began).filter(|_| self.is_first(*first, index)),
            // The answer to the client may be Envoy's own, after no upstream has answered.
            response_latency: answer
                .filter(|answer| answer.passed_on_by(seen))
                .and_then(|answer| between(answer.response_began, seen.response_began)),
        }
    }

    /// Whether no other exchange with an upstream may have been the first one.
    fn is_first(&self, first: usize, client: usize) -> bool {
        self.ambiguous.get(&(client as u32)).is_none_or(|other| self.seen[first].began.is_some_and(|own| own < *other))
    }

    /// The exchanges with upstreams for this one, but for copies whose responses nobody gets.
    fn own_attempts(&self, client: usize) -> impl DoubleEndedIterator<Item = usize> {
        let attempts = self.attempts[client].iter().map(|attempt| *attempt as usize);
        attempts.filter(|attempt| !self.seen[*attempt].is_mirrored)
    }

    /// The one whose response the client got or, if it got none, the last one. `None` if that is not known.
    fn answer(&self, client: usize) -> Option<usize> {
        self.answers[client].map(|answer| answer as usize)
    }

    fn find_answer(&self, client: usize) -> Option<usize> {
        if let Some(answer) = self.answer(client) {
            return Some(answer);
        }
        if self.ambiguous.contains_key(&(client as u32)) {
            return None;
        }
        let last = self.own_attempts(client).next_back()?;
        // Envoy has let go of a response after which it has tried again. Hedged attempts begin before.
        let is_answer = |attempt: &usize| {
            let seen = &self.seen[*attempt];
            let is_last =
                *attempt == last || seen.response_began.is_none() || self.seen[last].began < seen.response_began;
            is_last && seen.passed_on_by(&self.seen[client])
        };
        self.own_attempts(client).rev().find(is_answer).or(Some(last))
    }

    fn of_upstream(&self, index: usize) -> Pairing {
        let seen = &self.seen[index];
        let own = Pairing {
            upstream_address: seen.upstream.clone(),
            upstream_connection: Some(seen.connection_id),
            ..Pairing::default()
        };
        let Some((owner, certainty)) = self.owners[index].into_iter().flatten().next() else { return own };
        let client = &self.seen[owner as usize];
        let is_first = self.first[owner as usize] == Some(index as u32) && self.is_first(index, owner as usize);
        let is_answer = self.answer(owner as usize) == Some(index);
        Pairing {
            certainty: Some(certainty),
            request_latency: between(client.began, seen.began).filter(|_| is_first),
            response_latency: between(seen.response_began, client.response_began)
                .filter(|_| is_answer && seen.passed_on_by(client)),
            ..own
        }
    }
}

/// Notes which exchanges with upstreams are on connections with other Envoys whose traces are there.
fn note_envoys(seen: &mut [Seen]) {
    let of_clients = |seen: &Seen| seen.ends.filter(|_| seen.role == Role::Downstream);
    let connections: HashSet<_> = seen.iter().filter_map(of_clients).collect();
    for upstream in seen.iter_mut().filter(|seen| seen.role == Role::Upstream) {
        upstream.leads_to_envoy = upstream.ends.is_some_and(|ends| connections.contains(&ends));
    }
}

/// Notes when exchanges of the HTTP tap filter were over that Envoy has begun anew to follow a redirect: the filter
/// records each of them as one of its own, and the former ones without a response.
fn note_redirects(seen: &mut [Seen]) {
    let of_taps = |(index, seen): (usize, &Seen)| Some((seen.request_id?, seen.began?, index)).filter(|_| seen.is_tap);
    let mut taps: Vec<(seen::Mark, Nanos, usize)> = seen.iter().enumerate().filter_map(of_taps).collect();
    taps.sort_unstable();
    for pair in taps.windows(2) {
        let ((id, _, former), (next_id, next_began, _)) = (pair[0], pair[1]);
        if id == next_id && seen[former].code.is_none() && seen[former].ended.is_none() {
            seen[former].closed.get_or_insert(next_began);
        }
    }
}

fn between(from: Option<Nanos>, to: Option<Nanos>) -> Option<Nanos> {
    to?.checked_sub(from?)
}
