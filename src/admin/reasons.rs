//! Why a tap may stay silent.

use std::{collections::BTreeMap, fmt};

use serde::Deserialize;

use super::{ConfiguredTap, Counters, TapKind, TapRequest, TapSink, dump::Owner, error::quote};
use crate::words;

/// More would help nobody.
const MAX_REASONS: usize = 10;

/// A reason that nothing has come. Its text is for people, and escaped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// It was there before.
    TapGone { config_id: String },
    /// Only Envoy's own connections to servers are tapped.
    OnlyUpstream { places: Vec<String> },
    /// Its configuration is not in use, because it waits for something or its address is taken.
    NotListening { place: String },
    /// Nobody connected. So many connections are older than the tap, which does not see them.
    NoConnection { place: String, open: u64 },
    /// Nobody sent a request.
    NoRequest { place: String },
    /// A socket has no HTTP headers for a match to look at.
    MatchNeedsHttp,
    /// There was something, and the match did not want it.
    MatchExcludes { place: String, requests: u64 },
    /// A whole trace is sent after the end of its connection.
    NotOver { place: String, open: u64 },
    /// Only some is tapped.
    Sampling { place: String },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TapGone { config_id } => {
                write!(f, "the configuration has no tap with the config_id {} any more", quote(config_id))
            }
            Self::OnlyUpstream { places } => {
                let places: Vec<String> = places.iter().map(|place| quote(place)).collect();
                write!(
                    f,
                    "no listener is tapped, only {}: a tap there sees connections that Envoy opens after the tap has begun",
                    words::list(&places)
                )
            }
            Self::NotListening { place } => {
                write!(f, "{}: Envoy does not listen there; /listeners does not have it", quote(place))
            }
            Self::NoConnection { place, open: 0 } => write!(f, "{}: no connection since the tap began", quote(place)),
            Self::NoConnection { place, open } => write!(
                f,
                "{}: no new connection since the tap began; {} open, and a tap sees only newer ones",
                quote(place),
                words::count_of(*open, "older one is", "older ones are")
            ),
            Self::NoRequest { place } => write!(f, "{}: no request since the tap began", quote(place)),
            Self::MatchNeedsHttp => f.write_str(
                "the match asks for HTTP headers or bodies, but only sockets are tapped with this config_id, and a \
                 socket's tap never sees them: leave the match out, or tap with the HTTP filter",
            ),
            Self::MatchExcludes { place, requests } => write!(
                f,
                "{}: the match excluded {} since the tap began, or they are not complete",
                quote(place),
                words::count(*requests, "request")
            ),
            Self::NotOver { place, open } => write!(
                f,
                "{}: {} open, and Envoy sends a whole trace after the end of its connection",
                quote(place),
                words::count_of(*open, "connection is", "connections are")
            ),
            Self::Sampling { place } => {
                write!(f, "{}: only a part is tapped, because `tap_enabled` is configured", quote(place))
            }
        }
    }
}

/// The names and addresses of the listeners that listen.
#[derive(Debug, Default)]
pub(super) struct Listeners(BTreeMap<String, Vec<String>>);

#[derive(Deserialize)]
struct Statuses {
    #[serde(default)]
    listener_statuses: Vec<Status>,
}

#[derive(Deserialize)]
struct Status {
    #[serde(default)]
    name: String,
    local_address: Option<Address>,
    #[serde(default)]
    additional_local_addresses: Vec<Address>,
}

#[derive(Deserialize)]
struct Address {
    socket_address: Option<SocketAddress>,
    pipe: Option<Pipe>,
}

#[derive(Deserialize)]
struct SocketAddress {
    address: String,
    #[serde(default)]
    port_value: u64,
}

#[derive(Deserialize)]
struct Pipe {
    path: String,
}

impl Address {
    /// As it is in the names of counters.
    fn stat_name(&self) -> Option<String> {
        match (&self.socket_address, &self.pipe) {
            (Some(SocketAddress { address, port_value }), _) if address.contains(':') => {
                Some(format!("[{address}]_{port_value}"))
            }
            (Some(SocketAddress { address, port_value }), _) => Some(format!("{address}_{port_value}")),
            (None, Some(pipe)) => Some(pipe.path.clone()),
            (None, None) => None,
        }
    }
}

/// Reads the answer to `/listeners?format=json`.
pub(super) fn listeners(json: &[u8]) -> Result<Listeners, String> {
    let statuses: Statuses = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    let named = statuses.listener_statuses.into_iter().map(|status| {
        let addresses = status.local_address.iter().chain(&status.additional_local_addresses);
        let names = addresses.filter_map(Address::stat_name).collect();
        (super::dump::name(&status.name), names)
    });
    Ok(Listeners(named.collect()))
}

pub(super) fn reasons(
    request: &TapRequest,
    taps: &[ConfiguredTap],
    listeners: &Listeners,
    before: &Counters,
    now: &Counters,
) -> Vec<Reason> {
    let taps: Vec<&ConfiguredTap> = taps.iter().filter(|tap| tap.config_id == request.config_id).collect();
    if taps.is_empty() {
        return vec![Reason::TapGone { config_id: request.config_id.clone() }];
    }
    let mut reasons = Vec::new();
    if taps.iter().all(|tap| tap.kind == TapKind::Upstream) {
        let places = taps.iter().take(MAX_REASONS).map(|tap| tap.place.clone()).collect();
        reasons.push(Reason::OnlyUpstream { places });
    }
    if taps.iter().all(|tap| tap.kind != TapKind::HttpFilter) && !request.matching.can_hold_on_sockets() {
        reasons.push(Reason::MatchNeedsHttp);
    }
    for tap in taps {
        reasons.extend(of_tap(request, tap, listeners, before, now));
    }
    reasons.dedup();
    reasons.truncate(MAX_REASONS);
    reasons
}

fn of_tap(
    request: &TapRequest,
    tap: &ConfiguredTap,
    listeners: &Listeners,
    before: &Counters,
    now: &Counters,
) -> Vec<Reason> {
    let place = tap.place.clone();
    // How the names of the owner's counters may begin.
    let prefixes: Vec<String> = match &tap.owner {
        Owner::Listener { name, stat_prefix } => {
            let Some(addresses) = listeners.0.get(name) else {
                return vec![Reason::NotListening { place }];
            };
            match stat_prefix {
                Some(prefix) if !prefix.is_empty() => vec![format!("listener.{prefix}.")],
                _ => addresses.iter().map(|address| format!("listener.{address}.")).collect(),
            }
        }
        Owner::Cluster { name, stat_name } => match stat_name {
            Some(stat_name) if !stat_name.is_empty() => vec![format!("cluster.{stat_name}.")],
            _ => vec![format!("cluster.{name}.")],
        },
        Owner::Extension { .. } | Owner::Unknown => Vec::new(),
    };
    let side = if matches!(tap.owner, Owner::Cluster { .. }) { "upstream" } else { "downstream" };
    let sum = |what: &str, value: &dyn Fn(&str) -> Option<u64>| {
        let known: Vec<u64> = prefixes.iter().filter_map(|prefix| value(&format!("{prefix}{side}_{what}"))).collect();
        (!known.is_empty()).then(|| known.iter().sum::<u64>())
    };
    let mut reasons = Vec::new();
    if tap.is_sampling {
        reasons.push(Reason::Sampling { place: place.clone() });
    }
    if tap.kind == TapKind::HttpFilter {
        let name = tap.stat_prefix.as_ref().map(|prefix| format!("http.{prefix}.downstream_rq_total"));
        let requests = match name {
            Some(name) => now.since(before, &name),
            None => sum("rq_total", &|name| now.since(before, name)),
        };
        match requests {
            Some(0) => reasons.push(Reason::NoRequest { place }),
            Some(requests) if !request.matching.is_any() => reasons.push(Reason::MatchExcludes { place, requests }),
            _ => {}
        }
        return reasons;
    }
    let open = sum("cx_active", &|name| now.get(name)).unwrap_or(0);
    match sum("cx_total", &|name| now.since(before, name)) {
        Some(0) => reasons.push(Reason::NoConnection { place, open }),
        Some(_) if open > 0 && matches!(request.sink, TapSink::Buffered { .. }) => {
            reasons.push(Reason::NotOver { place, open });
        }
        _ => {}
    }
    reasons
}
