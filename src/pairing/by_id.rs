//! Pairs exchanges by ids that both carry.

use std::collections::HashMap;

use super::{
    Certainty, Pairs,
    seen::{Mark, Seen},
};
use crate::{timeline::Role, trace::Nanos};

/// An id that more exchanges have is no id of one request.
const MAX_GROUP: usize = 256;

/// How many times a request may pass an Envoy.
const MAX_DEPTH: usize = 8;

/// The exchanges that carry an id.
#[derive(Debug, Default)]
struct Group {
    clients: Vec<usize>,
    upstreams: Vec<usize>,
}

pub(super) fn pair(pairs: &mut Pairs) {
    pair_by(pairs, true, |seen| seen.request_id);
    pair_by(pairs, false, |seen| seen.trace);
}

fn pair_by(pairs: &mut Pairs, is_request_id: bool, id: impl Fn(&Seen) -> Option<Mark>) {
    let mut groups: HashMap<Mark, Group> = HashMap::new();
    for (index, seen) in pairs.seen.iter().enumerate() {
        let Some(id) = id(seen) else { continue };
        let group = groups.entry(id).or_default();
        match seen.role {
            Role::Downstream => group.clients.push(index),
            Role::Upstream => group.upstreams.push(index),
        }
    }
    for group in groups.into_values() {
        if group.clients.len() + group.upstreams.len() <= MAX_GROUP {
            pair_group(pairs, is_request_id, &group);
        }
    }
}

fn pair_group(pairs: &mut Pairs, is_request_id: bool, group: &Group) {
    for upstream in &group.upstreams {
        for layer in [0, 1] {
            if pairs.owners[*upstream][layer].is_some() {
                continue;
            }
            if let Some((client, certainty)) = owner(pairs, group, *upstream, layer) {
                pairs.set(*upstream, client, certainty);
                pairs.keeps_id.extend(is_request_id.then_some(client as u32));
            }
        }
    }
}

/// The exchange with a client that an exchange with an upstream belongs to.
fn owner(pairs: &Pairs, group: &Group, upstream: usize, layer: usize) -> Option<(usize, Certainty)> {
    let own = &pairs.seen[upstream];
    let fits = |client: &&usize| {
        let client = &pairs.seen[**client];
        let same_method = client.method.is_none() || own.method.is_none() || client.method == own.method;
        super::layer(client) == layer && same_method && may_span(client, own) && !client.is_behind(own)
    };
    let fitting: Vec<usize> = group.clients.iter().filter(fits).copied().collect();
    let same_target: Vec<usize> =
        fitting.iter().filter(|client| pairs.seen[**client].has_target_of(own)).copied().collect();
    let candidates = if same_target.is_empty() { fitting } else { same_target };
    match candidates[..] {
        [] => None,
        [client] => Some((client, Certainty::Certain)),
        _ => innermost(pairs, group, &candidates, upstream),
    }
}

/// Whether the times allow that the one belongs to the other. Streamed HTTP taps have none.
fn may_span(client: &Seen, upstream: &Seen) -> bool {
    match (client.began, upstream.began) {
        (Some(own), Some(began)) => own <= began && began <= client.last_attempt_before(),
        (None, Some(began)) => began <= client.end(),
        _ => true,
    }
}

/// A request that passes several Envoys, or one several times, one time within the other, has the same id everywhere. Then
/// the innermost exchange is the right one, if each that is around it has an exchange with an upstream of its own that the
/// next one came from.
fn innermost(pairs: &Pairs, group: &Group, candidates: &[usize], upstream: usize) -> Option<(usize, Certainty)> {
    let seen = |index: usize| &pairs.seen[index];
    let own = seen(upstream);
    // A copy begins in the same turn as the exchange that led to the inner one.
    if own.is_mirrored || candidates.len() > MAX_DEPTH {
        return None;
    }
    let mut sorted: Vec<(Nanos, usize)> =
        candidates.iter().map(|client| Some((seen(*client).began?, *client))).collect::<Option<_>>()?;
    sorted.sort_unstable();
    for pair in sorted.windows(2) {
        let (outer, inner) = (seen(pair[0].1), seen(pair[1].1));
        let leads_to_inner = |other: &&usize| {
            let other_index = **other;
            let other = seen(other_index);
            other_index != upstream
                && other.began.is_some_and(|began| outer.spans(began))
                && leads_to(other, inner, outer)
        };
        if !group.upstreams.iter().any(|other| leads_to_inner(&other)) {
            return None;
        }
    }
    let (_, innermost) = sorted.pop()?;
    let is_others_answer = sorted.iter().any(|(_, client)| own.passed_on_by(seen(*client)));
    let is_answer = own.passed_on_by(seen(innermost));
    (is_answer || !is_others_answer).then_some((innermost, Certainty::Certain))
}

/// Whether an exchange with an upstream, which belongs to `outer`, is the other side of the exchange with a client `inner`.
fn leads_to(other: &Seen, inner: &Seen, outer: &Seen) -> bool {
    if other.is_same_connection(inner) {
        // Each Envoy has its own clock. If the inner one has not answered, the outer one may have tried others meanwhile.
        return inner.response_began.is_some();
    }
    let is_around = outer.end() >= inner.end() && other.ended.is_some_and(|ended| ended >= inner.end());
    // What began at the same time may be of a copy of the same trace.
    is_around && outer.began < inner.began && other.began < inner.began
}
