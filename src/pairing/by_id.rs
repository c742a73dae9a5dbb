//! Pairs exchanges by ids that both carry.

use std::collections::HashMap;

use super::{
    Certainty, Pairs,
    seen::{Mark, Seen},
};
use crate::{timeline::Role, trace::Nanos};

/// An id that more exchanges have is no id of one request.
const MAX_GROUP: usize = 256;

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
        super::layer(client) == layer && same_method && may_span(client, own)
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
        (Some(_), Some(began)) => client.spans(began),
        (None, Some(began)) => began <= client.end(),
        _ => true,
    }
}

/// A request that passes an Envoy several times, one time within the other, has the same id everywhere. Then the
/// innermost exchange is the right one, if each that is around it has an exchange with an upstream of its own that the
/// next one came from.
fn innermost(pairs: &Pairs, group: &Group, candidates: &[usize], upstream: usize) -> Option<(usize, Certainty)> {
    let seen = |index: usize| &pairs.seen[index];
    let mut sorted: Vec<(Nanos, usize)> =
        candidates.iter().map(|client| Some((seen(*client).began?, *client))).collect::<Option<_>>()?;
    sorted.sort_unstable();
    for pair in sorted.windows(2) {
        let (outer, (inner_began, inner)) = (pair[0].1, pair[1]);
        if seen(outer).end() < seen(inner).end() {
            // They overlap: two requests have the same id.
            return None;
        }
        let comes_between = |other: &&usize| {
            **other != upstream
                && seen(**other).began.is_some_and(|began| seen(outer).spans(began) && began <= inner_began)
                && seen(**other).ended.is_none_or(|ended| ended >= seen(inner).end())
        };
        if !group.upstreams.iter().any(|other| comes_between(&other)) {
            return None;
        }
    }
    sorted.last().map(|(_, client)| (*client, Certainty::Certain))
}
