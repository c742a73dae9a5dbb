//! Pairs exchanges that carry no id, by method, path, bodies and times.

use std::collections::HashMap;

use super::{
    Certainty, Pairs,
    seen::{Mark, Seen},
};
use crate::{timeline::Role, trace::Nanos};

/// If more exchanges than this fit, or so many would have to be looked at, nobody can tell which one it is.
const MAX_CANDIDATES: usize = 64;
const MAX_LOOKED_AT: usize = 512;

pub(super) fn pair(pairs: &mut Pairs) {
    for layer in [0, 1] {
        pair_layer(pairs, layer);
    }
}

/// The exchanges with clients that have one target, by time.
#[derive(Debug, Default)]
struct Bucket {
    /// Each with its beginning, and the latest end of those up to it.
    clients: Vec<(Nanos, usize, Nanos)>,
}

impl Bucket {
    fn sort(&mut self, pairs: &Pairs) {
        self.clients.sort_unstable();
        let mut latest = 0;
        for (_, client, end) in &mut self.clients {
            latest = latest.max(pairs.seen[*client].end());
            *end = latest;
        }
    }

    /// The exchanges that may have caused one that began at this time, the latest first; `None` if there are too many.
    fn spanning(&self, pairs: &Pairs, began: Nanos) -> Option<Vec<usize>> {
        let after = self.clients.partition_point(|(own, ..)| *own <= began);
        let mut found = Vec::new();
        for (looked_at, (_, client, latest)) in self.clients[..after].iter().rev().enumerate() {
            if *latest < began {
                break;
            }
            if looked_at == MAX_LOOKED_AT || found.len() == MAX_CANDIDATES {
                return None;
            }
            if pairs.seen[*client].spans(began) {
                found.push(*client);
            }
        }
        Some(found)
    }
}

/// What an exchange with an upstream may belong to.
#[derive(Debug)]
struct Open {
    upstream: usize,
    candidates: Vec<usize>,
}

fn pair_layer(pairs: &mut Pairs, layer: usize) {
    let mut buckets: HashMap<Mark, Bucket> = HashMap::new();
    for (index, seen) in pairs.seen.iter().enumerate() {
        if let (Role::Downstream, Some(target), Some(began)) = (seen.role, seen.target, seen.began)
            && super::layer(seen) == layer
        {
            buckets.entry(target).or_default().clients.push((began, index, 0));
        }
    }
    buckets.values_mut().for_each(|bucket| bucket.sort(pairs));
    let mut taken = taken(pairs, layer);
    let (mut answers, mut given_up) = (Vec::new(), Vec::new());
    for (upstream, seen) in pairs.seen.iter().enumerate() {
        let (Role::Upstream, None) = (seen.role, pairs.owners[upstream][layer]) else { continue };
        let (Some(target), Some(began)) = (seen.target, seen.began) else { continue };
        let Some(candidates) = buckets.get(&target).and_then(|bucket| bucket.spanning(pairs, began)) else { continue };
        let candidates: Vec<usize> =
            candidates.into_iter().filter(|client| may_belong(&pairs.seen[*client], seen)).collect();
        let answered = candidates.iter().filter(|client| seen.passed_on_by(&pairs.seen[**client])).copied().collect();
        answers.push(Open { upstream, candidates: answered });
        if seen.may_be_given_up() {
            given_up.push(Open { upstream, candidates });
        }
    }
    pair_answers(pairs, layer, answers, &mut taken);
    for Open { upstream, candidates } in given_up {
        if pairs.owners[upstream][layer].is_some() {
            continue;
        }
        match fitting(pairs, &candidates, upstream, &taken)[..] {
            [client] => pairs.set(upstream, client, Certainty::Likely),
            ref several => pairs.ambiguous.extend(several.iter().map(|client| *client as u32)),
        }
    }
}

/// The exchanges with clients whose responses are known to be those of an upstream, and when that one began.
fn taken(pairs: &Pairs, layer: usize) -> HashMap<usize, Nanos> {
    let mut taken = HashMap::new();
    for (upstream, owners) in pairs.owners.iter().enumerate() {
        if let (Some((client, _)), Some(began)) = (owners[layer], pairs.seen[upstream].began)
            && pairs.seen[upstream].passed_on_by(&pairs.seen[client as usize])
        {
            taken.insert(client as usize, began);
        }
    }
    taken
}

/// Whether nothing speaks against it.
fn may_belong(client: &Seen, upstream: &Seen) -> bool {
    let same_body = match (client.request_body, upstream.request_body) {
        (Some(own), Some(other)) => own == other,
        _ => true,
    };
    // Of two ids, Envoy may have replaced the first at the edge of a mesh, but the client's own trace goes on.
    let same_trace = match (client.trace, upstream.trace) {
        (Some(own), Some(other)) => own == other,
        _ => true,
    };
    same_body && same_trace
}

/// The candidates of an exchange with an upstream that Envoy has given up: each must have been answered later, or by Envoy.
fn fitting(pairs: &Pairs, candidates: &[usize], upstream: usize, taken: &HashMap<usize, Nanos>) -> Vec<usize> {
    let own = &pairs.seen[upstream];
    let fits = |client: &&usize| {
        let seen = &pairs.seen[**client];
        match (taken.get(*client), own.began) {
            (Some(later), Some(began)) => {
                own.is_mirrored || (began <= *later && own.ended.is_none_or(|ended| ended <= *later))
            }
            _ => seen.code.is_none_or(|code| code >= 400),
        }
    };
    candidates.iter().filter(fits).copied().collect()
}

/// Pairs the exchanges with upstreams whose responses went to clients. Each client got one response, so that whoever has
/// got one is no candidate for others.
fn pair_answers(pairs: &mut Pairs, layer: usize, mut open: Vec<Open>, taken: &mut HashMap<usize, Nanos>) {
    loop {
        let before = open.len();
        let mut found: Vec<(usize, usize)> = Vec::new();
        open.iter_mut().for_each(|open| open.candidates.retain(|client| !taken.contains_key(client)));
        open.retain(|open| !open.candidates.is_empty());
        let latest = latest_of_each(pairs, &open);
        for one in &open {
            if let [client] = one.candidates[..]
                && may_be_answer(pairs, one.upstream, latest.get(&client))
            {
                found.push((client, one.upstream));
            }
        }
        if found.is_empty() {
            found = nearest(pairs, &open);
        }
        found.sort_unstable();
        // If two have the same single candidate, one of them is another request's.
        let is_single = |at: usize| {
            let same = |other: Option<&(usize, usize)>| other.is_some_and(|other| other.0 == found[at].0);
            !same(at.checked_sub(1).and_then(|at| found.get(at))) && !same(found.get(at + 1))
        };
        let single: Vec<(usize, usize)> = (0..found.len()).filter(|at| is_single(*at)).map(|at| found[at]).collect();
        for (client, upstream) in &single {
            pairs.set(*upstream, *client, Certainty::Likely);
            taken.insert(*client, pairs.seen[*upstream].began.unwrap_or_default());
        }
        open.retain(|open| pairs.owners[open.upstream][layer].is_none());
        if single.is_empty() || open.len() == before {
            return;
        }
    }
}

/// When the last of the exchanges began that each client may have got its response from.
fn latest_of_each(pairs: &Pairs, open: &[Open]) -> HashMap<usize, Nanos> {
    let mut latest = HashMap::new();
    for one in open {
        let began = pairs.seen[one.upstream].began.unwrap_or_default();
        for client in &one.candidates {
            let of_client: &mut Nanos = latest.entry(*client).or_default();
            *of_client = began.max(*of_client);
        }
    }
    latest
}

/// Whether Envoy has not tried again after this response. It may have, after a failure, as long as later ones fit too.
fn may_be_answer(pairs: &Pairs, upstream: usize, latest: Option<&Nanos>) -> bool {
    let own = &pairs.seen[upstream];
    !own.may_be_given_up() || latest.is_none_or(|latest| own.began.is_some_and(|began| *latest <= began))
}

/// Pairs that are nearest to each other, both when the request went in and out and when the response did. Envoy does both
/// in one turn of its event loop, so that the same request is seldom between the two of another one on both ways.
fn nearest(pairs: &Pairs, open: &[Open]) -> Vec<(usize, usize)> {
    let seen = |index: usize| &pairs.seen[index];
    let request_gap = |upstream: usize, client: usize| {
        super::between(seen(client).request_ended.or(seen(client).began), seen(upstream).began)
    };
    let response_gap =
        |upstream: usize, client: usize| super::between(seen(upstream).response_began, seen(client).response_began);
    let best = |one: &Open, gap: &dyn Fn(usize, usize) -> Option<Nanos>| {
        let mut gaps: Vec<(Nanos, usize)> =
            one.candidates.iter().filter_map(|client| Some((gap(one.upstream, *client)?, *client))).collect();
        gaps.sort_unstable();
        match gaps[..] {
            [(least, client)] => Some((least, client)),
            [(least, client), (next, _), ..] if least < next => Some((least, client)),
            _ => None,
        }
    };
    let mut by_client: HashMap<usize, Vec<&Open>> = HashMap::new();
    for one in open {
        one.candidates.iter().for_each(|client| by_client.entry(*client).or_default().push(one));
    }
    let is_best_for = |client: usize, upstream: usize, gap: &dyn Fn(usize, usize) -> Option<Nanos>| {
        let own = gap(upstream, client);
        let others = by_client.get(&client).into_iter().flatten().filter(|other| other.upstream != upstream);
        own.is_some() && others.into_iter().all(|other| gap(other.upstream, client).is_none_or(|gap| Some(gap) > own))
    };
    let mut found = Vec::new();
    for one in open {
        let (Some((_, by_request)), Some((_, by_response))) = (best(one, &request_gap), best(one, &response_gap))
        else {
            continue;
        };
        if by_request == by_response
            && is_best_for(by_request, one.upstream, &request_gap)
            && is_best_for(by_request, one.upstream, &response_gap)
        {
            found.push((by_request, one.upstream));
        }
    }
    found
}
