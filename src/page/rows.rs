//! What several parts of the page say of a request, a connection or a time.

use std::fmt::Write as _;

use super::{
    model::{Connection, Origin, Page, Pairing, Request, Side},
    units,
};
use crate::{trace::Nanos, untrusted::cap};

/// The longest texts of tables, in bytes. Details show more.
pub(super) const MAX_TEXT: usize = 300;

/// The status of a request: never a colour alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Status {
    /// `ok`, `warn` or `bad`.
    pub(super) class: &'static str,
    pub(super) sign: &'static str,
    pub(super) text: String,
}

impl Status {
    pub(super) fn of(request: &Request) -> Self {
        let (class, sign) = match request.code {
            _ if request.failed => ("bad", "✕"),
            Some(400..) => ("warn", "!"),
            None => ("warn", "?"),
            _ => ("ok", "✓"),
        };
        let mut text = request.code.map_or_else(|| "no response".to_owned(), |code| code.to_string());
        if let Some(grpc) = request.grpc {
            let _ = write!(text, ", grpc {grpc}");
        }
        Self { class, sign, text }
    }
}

/// Shows times, without the date if all are on one day.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    pub(super) day: Option<Nanos>,
}

impl Clock {
    pub(super) fn of(page: &Page) -> Self {
        const DAY: Nanos = 86_400_000_000_000;
        let requests = page.requests.iter().filter_map(|request| request.time);
        let times = || requests.clone().chain(page.summary.first).chain(page.summary.last);
        let first = times().min();
        let same = first.is_some() && first.map(|time| time / DAY) == times().max().map(|time| time / DAY);
        Self { day: first.filter(|_| same) }
    }

    pub(super) fn show(self, time: Nanos) -> String {
        if self.day.is_some() { units::time_of_day(time) } else { units::date_time(time) }
    }

    pub(super) fn maybe(self, time: Option<Nanos>) -> String {
        time.map_or_else(|| units::ABSENT.to_owned(), |time| self.show(time))
    }
}

/// The method, host and path of a request.
pub(super) fn what(request: &Request) -> String {
    let method = if request.method.is_empty() { "?" } else { &request.method };
    format!("{} {}{}", cap(method, 32), cap(&request.host, 100), cap(&request.path, MAX_TEXT))
}

pub(super) fn origin(origin: Origin) -> &'static str {
    match origin {
        Origin::Client => "client",
        Origin::Envoy => "Envoy",
        Origin::Upstream => "upstream",
        Origin::Unknown => "unknown",
    }
}

pub(super) fn maybe_origin(request: &Request) -> &'static str {
    request.origin.map_or("", origin)
}

pub(super) fn side(side: Option<Side>) -> &'static str {
    match side {
        Some(Side::Downstream) => "downstream",
        Some(Side::Upstream) => "upstream",
        None => "",
    }
}

pub(super) fn pairing(pairing: Option<Pairing>) -> &'static str {
    match pairing {
        Some(Pairing::Certain) => "certain",
        Some(Pairing::Likely) => "likely",
        Some(Pairing::None) => "none",
        None => "",
    }
}

/// The name of an input, or nothing if the model is wrong.
pub(super) fn file(page: &Page, index: usize) -> &str {
    page.files.get(index).map_or("", String::as_str)
}

/// What stands over the requests of a connection.
pub(super) fn connection_label(page: &Page, index: Option<usize>) -> String {
    index.and_then(|index| page.connections.get(index)).map_or_else(|| "No connection known".to_owned(), label)
}

fn label(connection: &Connection) -> String {
    let Connection { id, source, destination, protocol, .. } = connection;
    let side = side(connection.side);
    let mut label = format!("{} → {}", cap(source, 100), cap(destination, 100));
    for part in [side, &cap(protocol, 32)] {
        if !part.is_empty() {
            let _ = write!(label, " · {part}");
        }
    }
    let _ = write!(label, " · connection {id}");
    label
}
