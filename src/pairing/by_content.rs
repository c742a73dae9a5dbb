//! Pairs exchanges that carry no id, by method, path, bodies and times.
//!
//! Each exchange with an upstream has candidates: the exchanges with clients whose it may be. Nothing is guessed among
//! them. An exchange is paired if only one candidate is left, and each pair takes candidates from others: a client gets
//! one response, so that whoever has got one is no candidate for further responses. Where two exchanges would each have
//! to be the answer to the same request, neither is.

use std::collections::{HashMap, VecDeque};

use super::{Certainty, Pairs, seen::Mark, spans::Spans};
use crate::{timeline::Role, trace::Nanos};

/// If more exchanges than this fit, nobody can tell which one it is.
const MAX_CANDIDATES: usize = 32;

pub(super) fn pair(pairs: &mut Pairs) {
    for layer in [0, 1] {
        Matching::new(pairs, layer).run();
    }
}

/// The exchanges with clients that have one target.
#[derive(Debug, Default)]
struct Bucket {
    /// From when to when Envoy may have tried upstreams for each.
    clients: Spans,
    /// When there were so many that nobody can tell whose an exchange with an upstream is, sorted.
    crowds: Vec<Nanos>,
}

/// The state while exchanges of one layer are paired. All lists are by the index of an exchange.
struct Matching<'a> {
    pairs: &'a mut Pairs,
    layer: usize,
    /// The candidates of an exchange with an upstream; for one with a client, the exchanges whose response it may have
    /// got.
    others: Vec<Vec<u32>>,
    /// How many of those are left that one with a client may have got.
    left: Vec<u32>,
    /// How many responses must have gone to this client, since they have no other candidate.
    claims: Vec<u32>,
    /// For a response that fits nobody byte by byte, the only client that got the same status.
    changed: Vec<(usize, usize)>,
    /// The clients that one of too many belongs to.
    crowded: Vec<bool>,
    next: VecDeque<usize>,
}

impl<'a> Matching<'a> {
    fn new(pairs: &'a mut Pairs, layer: usize) -> Self {
        let count = pairs.seen.len();
        let mut matching = Self {
            layer,
            others: vec![Vec::new(); count],
            left: vec![0; count],
            claims: vec![0; count],
            changed: Vec::new(),
            crowded: vec![false; count],
            next: VecDeque::new(),
            pairs,
        };
        matching.find_candidates();
        matching
    }

    fn buckets(&self) -> HashMap<Mark, Bucket> {
        let mut spans: HashMap<Mark, Vec<(Nanos, Nanos, usize)>> = HashMap::new();
        for (index, seen) in self.pairs.seen.iter().enumerate() {
            let (Role::Downstream, Some(began)) = (seen.role, seen.began) else { continue };
            if super::layer(seen) != self.layer {
                continue;
            }
            for target in seen.targets() {
                spans.entry(target).or_default().push((began, seen.last_attempt_before(), index));
            }
        }
        let bucket = |(target, spans)| (target, Bucket { clients: Spans::new(spans), crowds: Vec::new() });
        spans.into_iter().map(bucket).collect()
    }

    /// Lists the candidates of each exchange with an upstream, and for those with clients the other direction.
    fn find_candidates(&mut self) {
        let mut buckets = self.buckets();
        for upstream in 0..self.pairs.seen.len() {
            let seen = &self.pairs.seen[upstream];
            if seen.role == Role::Downstream {
                continue;
            }
            let candidates = match self.owner(upstream) {
                Some(client) => vec![client],
                None => self.candidates(upstream, &mut buckets),
            };
            self.add(upstream, &candidates);
        }
        buckets.values_mut().for_each(|bucket| bucket.crowds.sort_unstable());
        for (client, seen) in self.pairs.seen.iter().enumerate() {
            let (Role::Downstream, Some(began)) = (seen.role, seen.began) else { continue };
            self.crowded[client] = seen.targets().filter_map(|target| buckets.get(&target)).any(|bucket| {
                let first = bucket.crowds.partition_point(|time| *time < began);
                bucket.crowds.get(first).is_some_and(|time| *time <= seen.last_attempt_before())
            });
        }
    }

    fn candidates(&self, upstream: usize, buckets: &mut HashMap<Mark, Bucket>) -> Vec<usize> {
        let seen = &self.pairs.seen[upstream];
        let (Some(began), Some(target)) = (seen.began, seen.client_target()) else { return Vec::new() };
        let Some(bucket) = buckets.get_mut(&target) else { return Vec::new() };
        let Some(mut found) = bucket.clients.holding(began, began, MAX_CANDIDATES) else {
            bucket.crowds.push(began);
            return Vec::new();
        };
        found.retain(|client| self.may_belong(upstream, *client));
        found
    }

    /// Whether nothing speaks against it.
    fn may_belong(&self, upstream: usize, client: usize) -> bool {
        let (own, other) = (&self.pairs.seen[upstream], &self.pairs.seen[client]);
        let differ = |one: Option<Mark>, other: Option<Mark>| one.is_some() && other.is_some() && one != other;
        // Of two ids, Envoy may have replaced the first at the edge of a mesh, but the client's own trace goes on.
        let keeps_id = self.pairs.keeps_id.contains(&(client as u32));
        let same_id = !keeps_id || own.request_id == other.request_id;
        other.has_target_of(own)
            && !other.is_behind(own)
            && same_id
            && !differ(own.request_body, other.request_body)
            && !differ(own.trace, other.trace)
    }

    fn add(&mut self, upstream: usize, candidates: &[usize]) {
        let seen = &self.pairs.seen;
        let answers = |client: &&usize| self.pairs.may_be_answer(upstream, **client);
        let answered: Vec<u32> = candidates.iter().filter(answers).map(|client| *client as u32).collect();
        if answered.is_empty() && !seen[upstream].may_be_given_up() {
            let same_code = |client: &&usize| {
                seen[upstream].code == seen[**client].code && seen[upstream].is_before(&seen[**client])
            };
            let mut changed = candidates.iter().filter(same_code);
            if let (Some(client), None) = (changed.next(), changed.next()) {
                self.changed.push((upstream, *client));
            }
        }
        for client in &answered {
            self.others[*client as usize].push(upstream as u32);
            self.left[*client as usize] += 1;
        }
        self.others[upstream] = if seen[upstream].may_be_given_up() {
            candidates.iter().map(|client| *client as u32).collect()
        } else {
            answered
        };
    }

    fn owner(&self, upstream: usize) -> Option<usize> {
        self.pairs.owners[upstream][self.layer].map(|(client, _)| client as usize)
    }

    /// The client whose answer this exchange with an upstream must be: it is somebody's, and no other one is left.
    fn claim(&self, upstream: usize) -> Option<usize> {
        let [client] = self.others[upstream][..] else { return None };
        let is_answer = !self.pairs.seen[upstream].may_be_given_up();
        (is_answer && self.owner(upstream).is_none_or(|owner| owner == client as usize)).then_some(client as usize)
    }

    fn run(mut self) {
        for index in 0..self.pairs.seen.len() {
            if let Some(client) = self.claim(index) {
                self.claims[client] += 1;
            }
            self.next.push_back(index);
        }
        while let Some(index) = self.next.pop_front() {
            match self.pairs.seen[index].role {
                Role::Upstream => self.upstream(index),
                Role::Downstream => self.client(index),
            }
        }
        self.pair_changed();
        self.mark_ambiguous();
    }

    /// Pairs an exchange with an upstream that has one candidate.
    fn upstream(&mut self, upstream: usize) {
        let [client] = self.others[upstream][..] else { return };
        let client = client as usize;
        if let Some(claimed) = self.claim(upstream) {
            if self.claims[claimed] == 1 && self.pairs.answers[claimed].is_none() {
                self.own(upstream, claimed);
                self.answer(upstream, claimed);
            }
        } else if self.owner(upstream).is_none() && self.pairs.seen[upstream].may_be_given_up() {
            self.own(upstream, client);
        }
    }

    /// Pairs an exchange with a client whose response only one upstream has sent.
    fn client(&mut self, client: usize) {
        if !self.pairs.seen[client].is_passed_on() || !self.wants_one(client) {
            return;
        }
        let may_be_answer = |upstream: &&u32| {
            let upstream = **upstream as usize;
            self.owner(upstream).is_none_or(|owner| owner == client) && self.others[upstream].contains(&(client as u32))
        };
        let Some(upstream) = self.others[client].iter().find(may_be_answer) else { return };
        let upstream = *upstream as usize;
        let rivals = self.others[upstream].iter().map(|rival| *rival as usize);
        let has_rival =
            |rival: usize| rival != client && self.wants_one(rival) && self.pairs.may_be_answer(upstream, rival);
        if self.owner(upstream).is_none() && rivals.into_iter().any(has_rival) {
            return;
        }
        self.own(upstream, client);
        self.answer(upstream, client);
    }

    /// Whether a client has got a response that only one of the exchanges with upstreams can have.
    fn wants_one(&self, client: usize) -> bool {
        self.left[client] == 1 && self.pairs.answers[client].is_none() && !self.crowded[client]
    }

    /// Pairs both. Other clients did not get the response.
    fn own(&mut self, upstream: usize, client: usize) {
        if self.owner(upstream).is_some() {
            return;
        }
        self.pairs.set(upstream, client, Certainty::Likely);
        for other in std::mem::replace(&mut self.others[upstream], vec![client as u32]) {
            if other as usize != client {
                self.take(upstream, other as usize);
            }
        }
    }

    /// One response less that a client may have got.
    fn take(&mut self, upstream: usize, client: usize) {
        if self.pairs.may_be_answer(upstream, client) {
            self.left[client] -= 1;
            if self.left[client] == 1 {
                self.next.push_back(client);
            }
        }
    }

    /// A client got this response. It is no candidate for others.
    fn answer(&mut self, upstream: usize, client: usize) {
        self.pairs.answers[client] = Some(upstream as u32);
        for other in std::mem::take(&mut self.others[client]) {
            let other = other as usize;
            let is_open = other != upstream && self.owner(other).is_none();
            if !is_open || self.pairs.seen[other].may_be_given_up() {
                continue;
            }
            let had_claim = self.claim(other);
            self.others[other].retain(|one| *one as usize != client);
            if had_claim.is_none()
                && let Some(claimed) = self.claim(other)
            {
                self.claims[claimed] += 1;
                self.next.push_back(other);
            }
        }
    }

    /// Pairs responses that Envoy has changed, as a compressor does.
    fn pair_changed(&mut self) {
        let mut count: HashMap<usize, u32> = HashMap::new();
        self.changed.iter().for_each(|(_, client)| *count.entry(*client).or_default() += 1);
        for (upstream, client) in std::mem::take(&mut self.changed) {
            let is_free = self.pairs.answers[client].is_none() && self.owner(upstream).is_none();
            if is_free && count.get(&client) == Some(&1) && self.left[client] == 0 && !self.crowded[client] {
                self.pairs.set(upstream, client, Certainty::Likely);
                self.pairs.answers[client] = Some(upstream as u32);
            }
        }
    }

    /// Notes who may have had further attempts.
    fn mark_ambiguous(&mut self) {
        for (index, seen) in self.pairs.seen.iter().enumerate() {
            let began = seen.began.unwrap_or_default();
            if seen.role == Role::Upstream && self.owner(index).is_none() && !seen.is_mirrored {
                for client in &self.others[index] {
                    let earliest = self.pairs.ambiguous.entry(*client).or_insert(began);
                    *earliest = began.min(*earliest);
                }
            }
            if self.crowded[index] {
                self.pairs.ambiguous.insert(index as u32, 0);
            }
        }
    }
}
