//! Both sides of requests: which exchanges with upstreams are attempts of which requests of clients.

use std::collections::HashSet;

use super::reading;
use crate::{
    access_log::LogEntry,
    cli::ReportArgs,
    commands::{
        error::Error,
        inspect::{self, Item},
        settings,
        turns::Turns,
    },
    http::{HttpItem, Pairing},
    input::Input,
    page,
    pairing::{Certainty, ExchangeId, LoggedRequest, Pairs, Seen},
    redact::{Counts, Redaction},
    timeline::Role,
    trace::{Address, Nanos},
};

/// How many exchanges are compared.
const MAX_SEEN: usize = 4_000_000;

/// How many attempts of one request are shown.
const MAX_ATTEMPTS: usize = 100;

/// The pairs among the exchanges of all inputs.
#[derive(Debug, Default)]
pub(super) struct Sides {
    pairs: Pairs,
    has_both: bool,
}

/// What pairing needs of a line of an access log.
pub(super) fn logged(entry: &LogEntry) -> LoggedRequest {
    LoggedRequest {
        start: entry.start.map(|start| (start, entry.start_precision)),
        connection_id: entry.connection_id,
        upstream_connection_id: entry.upstream_connection_id,
        upstream_local_address: entry.upstream_local_address.clone(),
        target: entry.method.clone().zip(entry.path.clone()),
        request_id: entry.request_id.clone(),
    }
}

/// The exchange with this number in its input.
pub(super) fn id(input: usize, number: u64) -> ExchangeId {
    // There are no more, and an exchange beyond them has no pair.
    ExchangeId { input: u32::try_from(input).unwrap_or(u32::MAX), number: u32::try_from(number).unwrap_or(u32::MAX) }
}

impl Sides {
    /// Reads all inputs and finds the pairs. What is wrong with an input is left to the pass that shows it.
    pub(super) fn find(
        args: &ReportArgs,
        inputs: &[Input],
        log: &[LoggedRequest],
        is_strict: bool,
    ) -> Result<Self, Error> {
        let turns = Turns::new(Vec::new());
        let work = || {
            while let Some((index, input)) = turns.next(inputs) {
                match seen_in(args, index, input, is_strict) {
                    Ok(seen) => turns.with(|all: &mut Vec<Seen>| all.extend(seen)),
                    Err(error) => turns.fail(error),
                }
                turns.pass(index);
            }
        };
        turns.run(settings::jobs(args.jobs).min(inputs.len()).min(super::MAX_JOBS), work);
        let mut seen = turns.finish()?;
        seen.sort_by_key(|seen| seen.id);
        seen.truncate(MAX_SEEN);
        let roles: HashSet<bool> = seen.iter().map(|seen| seen.role == Role::Upstream).collect();
        if roles.len() < 2 {
            return Ok(Self::default());
        }
        Ok(Self { pairs: Pairs::find(seen, log), has_both: true })
    }

    /// Whether exchanges of both sides are in the traces.
    pub(super) fn has_both(&self) -> bool {
        self.has_both
    }

    /// What pairing tells of an exchange.
    pub(super) fn of(&self, id: ExchangeId) -> Pairing {
        self.pairs.of(id)
    }

    /// Whether an exchange with an upstream belongs to a client's request.
    pub(super) fn is_attempt(&self, id: ExchangeId) -> bool {
        self.pairs.seen(id).is_some_and(|seen| seen.role == Role::Upstream) && self.pairs.owner(id).is_some()
    }

    /// The code of a request's last attempt; `None` inside if it was not answered.
    pub(super) fn last_attempt(&self, id: ExchangeId) -> Option<Option<u16>> {
        self.pairs.attempts(id).last().map(|attempt| attempt.code)
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
        if let (Some(first), Some(last)) = (attempts.first(), attempts.last()) {
            request.parts.upstream_begin = since(first.began);
            request.parts.upstream_first_byte = since(last.response_began).or(request.parts.upstream_first_byte);
        }
        request.attempts =
            attempts.iter().take(MAX_ATTEMPTS).map(|attempt| shown(attempt, request.time, redaction)).collect();
    }
}

/// An attempt without secrets.
fn shown(seen: &Seen, request: Option<Nanos>, redaction: Option<&Redaction>) -> page::Attempt {
    let begin = |(began, request): (Nanos, Nanos)| i64::try_from(i128::from(began) - i128::from(request)).ok();
    let address = seen.upstream.as_deref().unwrap_or("-");
    page::Attempt {
        begin: seen.began.zip(request).and_then(begin),
        duration: seen.ended.zip(seen.began).and_then(|(ended, began)| ended.checked_sub(began)),
        code: seen.code,
        address: redaction.map_or_else(|| address.to_owned(), |redaction| redacted(redaction, address)),
        connection_id: redaction.map_or(seen.connection_id, |redaction| redaction.trace_id(seen.connection_id)),
        file: seen.id.input as usize,
        complete: seen.complete,
    }
}

/// What stands in the place of an address that is text already.
fn redacted(redaction: &Redaction, text: &str) -> String {
    let mut address = match text.parse::<std::net::SocketAddr>() {
        Ok(ip) => Address::Socket { address: ip.ip().to_string(), port: Some(ip.port().into()) },
        Err(_) if text == "-" => return text.to_owned(),
        Err(_) if text.parse::<std::net::IpAddr>().is_ok() => Address::Socket { address: text.to_owned(), port: None },
        Err(_) => Address::Pipe(text.to_owned()),
    };
    redaction.address(&mut address, &mut Counts::default());
    address.to_string()
}

/// What is compared of the exchanges of an input.
fn seen_in(args: &ReportArgs, index: usize, input: &Input, is_strict: bool) -> Result<Vec<Seen>, Error> {
    let (mut seen, mut number) = (Vec::new(), 0);
    let mut addresses = HashSet::new();
    let result = inspect::read(input, reading(args, is_strict)?, |item| {
        if let Item::Http(HttpItem::Exchange(exchange)) = item {
            let share = |address: String| match addresses.get(address.as_str()) {
                Some(shared) => std::sync::Arc::clone(shared),
                None => {
                    let shared: std::sync::Arc<str> = address.into();
                    addresses.insert(std::sync::Arc::clone(&shared));
                    shared
                }
            };
            if seen.len() < MAX_SEEN {
                seen.push(Seen::of(id(index, number), &exchange, share));
            }
            number += 1;
        }
        Ok(())
    });
    match result {
        Err(Error::Signal(signal)) => Err(Error::Signal(signal)),
        _ => Ok(seen),
    }
}
