//! Both sides of requests: which exchanges with upstreams are attempts of which requests of clients.

use std::sync::Arc;

use super::attempts;
use crate::{
    page,
    pairing::{Certainty, ExchangeId, Pairs, Seen},
    redact::{Counts, Redaction},
    timeline::Role,
    trace::Nanos,
};

/// How many attempts of one request are shown.
const MAX_ATTEMPTS: usize = 100;

/// The pairs among the exchanges of all inputs.
#[derive(Debug, Default)]
pub(super) struct Sides {
    pairs: Pairs,
    has_both: bool,
}

/// The exchange with this number in its input.
pub(super) fn id(input: usize, number: u64) -> ExchangeId {
    // There are no more, and an exchange beyond them has no pair.
    ExchangeId { input: u32::try_from(input).unwrap_or(u32::MAX), number: u32::try_from(number).unwrap_or(u32::MAX) }
}

impl Sides {
    pub(super) fn new(pairs: Pairs) -> Self {
        let has_both = pairs.has(Role::Downstream) && pairs.has(Role::Upstream);
        Self { pairs, has_both }
    }

    /// The index of the access log's line about a request.
    pub(super) fn line(&self, id: ExchangeId) -> Option<usize> {
        self.pairs.line(id)
    }

    /// Whether an exchange with an upstream belongs to a client's request.
    pub(super) fn is_attempt(&self, id: ExchangeId) -> bool {
        self.pairs.seen(id).is_some_and(|seen| seen.role == Role::Upstream) && self.pairs.owner(id).is_some()
    }

    /// The requests that an exchange with an upstream belongs to: one in sockets, and one in HTTP taps.
    pub(super) fn owners(&self, id: ExchangeId) -> impl Iterator<Item = ExchangeId> {
        self.pairs.owners(id).map(|owner| owner.id)
    }

    /// All pairs.
    pub(super) fn pairs(&self) -> &Pairs {
        &self.pairs
    }

    /// The attempts that are told with their messages.
    pub(super) fn told_attempts(&self, id: ExchangeId) -> Vec<ExchangeId> {
        self.pairs.attempts(id).iter().take(attempts::MAX_TOLD).map(|attempt| attempt.id).collect()
    }

    /// Whether upstreams were tapped, and none was tried for a request.
    pub(super) fn has_no_attempt(&self, id: ExchangeId) -> bool {
        self.has_both && !self.pairs.may_have_attempts(id)
    }

    /// The code of the attempt whose response a client got or, if it got none, of the last one; `None` inside if it was
    /// not answered.
    pub(super) fn answering_code(&self, id: ExchangeId) -> Option<Option<u16>> {
        self.pairs.answering(id).map(|attempt| attempt.code)
    }

    /// Adds to a request what pairing tells of it.
    pub(super) fn complete(&self, request: &mut page::Request, id: ExchangeId, redaction: Option<&Redaction>) {
        if !self.has_both {
            return;
        }
        let pairing = self.pairs.of(id);
        request.pairing = Some(match pairing.certainty {
            Some(Certainty::Certain) => page::Pairing::Certain,
            Some(Certainty::Likely) => page::Pairing::Likely,
            None => page::Pairing::None,
        });
        (request.request_latency, request.response_latency) = (pairing.request_latency, pairing.response_latency);
        let attempts = self.pairs.attempts(id);
        let since = |time: Option<Nanos>| time?.checked_sub(request.time?);
        request.parts.upstream_begin = pairing.request_latency;
        let answering = self.pairs.answering(id).and_then(|attempt| since(attempt.response_began));
        request.parts.upstream_first_byte = answering.or(request.parts.upstream_first_byte);
        request.attempts =
            attempts.iter().take(MAX_ATTEMPTS).map(|attempt| shown(attempt, request.time, redaction)).collect();
    }
}

/// An attempt without secrets.
fn shown(seen: &Seen, request: Option<Nanos>, redaction: Option<&Redaction>) -> page::Attempt {
    let begin = |(began, request): (Nanos, Nanos)| i64::try_from(i128::from(began) - i128::from(request)).ok();
    let mut address = seen.upstream.clone();
    if let (Some(redaction), Some(address)) = (redaction, &mut address) {
        redaction.address(Arc::make_mut(address), &mut Counts::default());
    }
    let address =
        address.map_or_else(|| "-".to_owned(), |address| super::cut(address.to_string().as_bytes(), super::MAX_NAME));
    page::Attempt {
        begin: seen.began.zip(request).and_then(begin),
        duration: seen.ended.zip(seen.began).and_then(|(ended, began)| ended.checked_sub(began)),
        code: seen.code,
        address: address + if seen.is_copy() { ", a copy" } else { "" },
        connection_id: redaction.map_or(seen.connection_id, |redaction| redaction.trace_id(seen.connection_id)),
        file: seen.id.input as usize,
        complete: seen.complete,
    }
}
