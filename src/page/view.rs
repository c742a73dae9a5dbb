//! What the templates are given: text, ready but for escaping.

use std::{borrow::Borrow, collections::BTreeMap};

use askama::Template;

use super::{
    charts::{self, Histogram, Rect},
    data,
    messages::DetailView,
    model::{Connection, Finding, Page, Request, Route},
    policy,
    rows::{self, Clock, MAX_TEXT, Status},
    timeline::{Kind, Waterfall},
    units,
};
use crate::{trace::Severity, untrusted::cap};

/// The page's own script and style: all that its policy allows.
pub(super) const SCRIPT: &str = include_str!("report.js");
pub(super) const STYLE: &str = include_str!("report.css");

/// How many connections have rows without scripts.
const MAX_PLAIN_CONNECTIONS: usize = 1000;

#[derive(Debug, Template)]
#[template(path = "page.html", config = "src/page/askama.toml")]
pub(super) struct View<'a> {
    page: &'a Page,
    policy: String,
    style: &'static str,
    script: &'static str,
    data: String,
    clock: Clock,
    range: String,
    day: String,
    cards: Vec<Card>,
    activity: Vec<Rect>,
    activity_title: String,
    activity_ends: (String, String),
    most_active: String,
    bin_width: String,
    waterfall: Waterfall,
    legend: [Kind; 5],
    routes: Vec<RouteView>,
    route_ends: Option<(String, String)>,
    origins: Vec<OriginView>,
    failures: Vec<Failure>,
    sizes: [(&'static str, Histogram); 2],
    details: Vec<Option<DetailView<'a>>>,
    findings: Vec<FindingView<'a>>,
}

/// A figure of the summary.
#[derive(Clone, Debug)]
pub(super) struct Card {
    name: &'static str,
    value: String,
    more: Vec<String>,
    class: &'static str,
}

#[derive(Clone, Debug)]
pub(super) struct RouteView {
    name: String,
    count: u64,
    failed: u64,
    failed_share: String,
    durations: [(u64, String); 4],
    sent: (u64, String),
    received: (u64, String),
    rects: Vec<Rect>,
    title: String,
}

#[derive(Clone, Debug)]
pub(super) struct OriginView {
    name: &'static str,
    count: String,
    share: String,
    width: String,
}

/// Failures that are alike.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    origin: &'static str,
    status: String,
    reason: String,
    count: u64,
    what: String,
    detail: Option<usize>,
}

#[derive(Clone, Debug)]
pub(super) struct FindingView<'a> {
    class: &'static str,
    sign: &'static str,
    severity: &'static str,
    finding: &'a Finding,
}

/// A request's row without scripts.
#[derive(Clone, Debug)]
pub(super) struct PlainRow {
    time: String,
    duration: String,
    status: Status,
    what: String,
    origin: &'static str,
    sent: String,
    received: String,
    connection: u64,
    detail: Option<usize>,
}

/// A connection's row without scripts.
#[derive(Clone, Debug)]
pub(super) struct PlainConnection<'a> {
    begin: String,
    duration: String,
    side: &'static str,
    file: &'a str,
    sent: String,
    received: String,
    connection: &'a Connection,
}

impl<'a> View<'a> {
    pub(super) fn new(page: &'a Page) -> Self {
        let clock = Clock::of(page);
        let activity = &page.activity;
        let activity_end = activity.start.saturating_add(activity.width.saturating_mul(activity.bins.len() as u64));
        Self {
            page,
            policy: policy(),
            style: STYLE,
            script: SCRIPT,
            data: data::json(page, clock),
            clock,
            range: range(page),
            day: clock.day.map(units::date).unwrap_or_default(),
            cards: cards(page),
            activity: charts::activity(activity),
            activity_title: activity_title(page),
            activity_ends: (clock.show(activity.start), clock.show(activity_end)),
            most_active: units::count(charts::most_active(activity)),
            bin_width: units::duration(activity.width),
            waterfall: Waterfall::of_first(page, clock),
            legend: Kind::ALL,
            routes: routes(page),
            route_ends: route_ends(page),
            origins: origins(page),
            failures: failures(page),
            sizes: [
                ("Requests", Histogram::of_sizes(&page.sizes.request)),
                ("Responses", Histogram::of_sizes(&page.sizes.response)),
            ],
            details: page.details.iter().map(|detail| DetailView::of(page, detail, clock)).collect(),
            findings: page.findings.iter().map(FindingView::of).collect(),
        }
    }

    fn plain_rows(&self) -> impl Iterator<Item = PlainRow> {
        self.page.requests.iter().map(|request| PlainRow {
            time: self.clock.maybe(request.time),
            duration: units::maybe_duration(request.duration),
            status: Status::of(request),
            what: rows::what(request),
            origin: rows::maybe_origin(request),
            sent: units::maybe_bytes(request.sent),
            received: units::maybe_bytes(request.received),
            connection: request.connection_id,
            detail: request.detail,
        })
    }

    fn plain_connections(&self) -> impl Iterator<Item = PlainConnection<'a>> {
        self.page.connections.iter().take(MAX_PLAIN_CONNECTIONS).map(|connection| PlainConnection {
            begin: self.clock.maybe(connection.begin),
            duration: units::maybe_duration(
                connection.begin.zip(connection.end).map(|(begin, end)| end.saturating_sub(begin)),
            ),
            side: rows::side(connection.side),
            file: rows::file(self.page, connection.file),
            sent: units::bytes(connection.sent),
            received: units::bytes(connection.received),
            connection,
        })
    }

    /// How many of a list are in the page.
    fn of_all(&self, shown: impl Borrow<usize>, total: impl Borrow<u64>, noun: &str) -> String {
        let (shown, total) = (*shown.borrow() as u64, *total.borrow());
        if shown >= total {
            return units::counted(total, noun);
        }
        format!("{} of {}", units::count(shown), units::counted(total, noun))
    }

    /// Whether there are more requests than in the page.
    fn is_cut(&self) -> bool {
        (self.page.requests.len() as u64) < self.page.requests_total
    }

    fn count(&self, number: impl Borrow<u64>) -> String {
        units::count(*number.borrow())
    }
}

fn range(page: &Page) -> String {
    match (page.summary.first, page.summary.last) {
        (Some(first), Some(last)) => format!(
            "{} to {} UTC, {}",
            units::date_time(first),
            if units::date(first) == units::date(last) { units::time_of_day(last) } else { units::date_time(last) },
            units::duration(last.saturating_sub(first))
        ),
        _ => "No times in the traces".to_owned(),
    }
}

fn cards(page: &Page) -> Vec<Card> {
    let summary = &page.summary;
    let mut cards = Vec::new();
    let mut add = |name, value, more, class| cards.push(Card { name, value, more, class });
    let failed = format!("{} of requests", units::share(summary.failed, summary.requests));
    add("Requests", units::count(summary.requests), vec![units::counted(summary.connections, "connection")], "");
    add("Failed", units::count(summary.failed), vec![failed], if summary.failed > 0 { "bad" } else { "" });
    let durations = [("p95", summary.p95), ("p99", summary.p99), ("max", summary.max)];
    let durations = durations.map(|(name, value)| format!("{name} {}", units::maybe_duration(value)));
    add("Duration, median", units::maybe_duration(summary.p50), durations.to_vec(), "");
    let total = summary.bytes_sent.saturating_add(summary.bytes_received);
    let ways = [("requests", summary.bytes_sent), ("responses", summary.bytes_received)];
    add("Bodies", units::bytes(total), ways.map(|(name, size)| format!("{name} {}", units::bytes(size))).to_vec(), "");
    if let Some(paired) = summary.paired {
        let more = [("likely", paired.likely), ("without a pair", paired.none)];
        let more = more.map(|(name, count)| format!("{} {name}", units::count(count)));
        add("Paired for certain", units::count(paired.certain), more.to_vec(), "");
    }
    let damaged = match summary.damaged_inputs {
        0 => "none damaged".to_owned(),
        damaged => format!("{} damaged", units::count(damaged)),
    };
    let class = if summary.damaged_inputs > 0 { "warn" } else { "" };
    add("Inputs", units::count(summary.inputs), vec![damaged, units::counted(page.findings_total, "finding")], class);
    cards
}

fn activity_title(page: &Page) -> String {
    let bins = page.activity.bins.len() as u64;
    let total = |of: fn(&super::model::ActivityBin) -> u64| {
        units::count(page.activity.bins.iter().map(of).fold(0, u64::saturating_add))
    };
    format!(
        "Requests over time in {} of {}: {} ok, {} client errors, {} failed; at most {} in one",
        units::counted(bins, "bin"),
        units::duration(page.activity.width),
        total(|bin| bin.ok),
        total(|bin| bin.client_error),
        total(|bin| bin.failed),
        units::count(charts::most_active(&page.activity)),
    )
}

fn routes(page: &Page) -> Vec<RouteView> {
    let used = charts::used(&page.routes);
    let shown = |time: Option<u64>| (time.unwrap_or(0), units::maybe_duration(time));
    let view = |route: &Route| RouteView {
        name: cap(&format!("{} {}{}", route.method, route.host, route.route), MAX_TEXT).into_owned(),
        count: route.count,
        failed: route.failed,
        failed_share: units::share(route.failed, route.count),
        durations: [route.p50, route.p95, route.p99, route.max].map(shown),
        sent: (route.sent, units::bytes(route.sent)),
        received: (route.received, units::bytes(route.received)),
        rects: charts::bars(route.histogram.get(used.clone()).unwrap_or_default(), charts::SMALL),
        title: charts::durations(route, page),
    };
    page.routes.iter().map(view).collect()
}

/// The durations at both ends of the charts of routes.
fn route_ends(page: &Page) -> Option<(String, String)> {
    let used = charts::used(&page.routes);
    let last = page.duration_edges.len();
    if used.is_empty() || last == 0 {
        return None;
    }
    let begin = used.start.checked_sub(1).map_or(0, |edge| page.duration_edges[edge.min(last - 1)]);
    Some((units::duration(begin), units::duration(page.duration_edges[(used.end - 1).min(last - 1)])))
}

fn origins(page: &Page) -> Vec<OriginView> {
    let counts = &page.summary.origins;
    let total = counts.iter().map(|(_, count)| *count).fold(0, u64::saturating_add);
    let view = |(origin, count): &(super::model::Origin, u64)| OriginView {
        name: rows::origin(*origin),
        count: units::count(*count),
        share: units::share(*count, total),
        width: units::percent(*count, total),
    };
    counts.iter().map(view).collect()
}

/// How many kinds of failures are listed.
const MAX_FAILURES: usize = 100;

/// The failures among the requests of the page by where they came from, with the most frequent ones first.
fn failures(page: &Page) -> Vec<Failure> {
    let mut kinds: BTreeMap<_, (u64, &Request)> = BTreeMap::new();
    for request in page.requests.iter().filter(|request| request.failed) {
        let key = (request.origin, request.code, request.grpc, request.origin_reason.as_str());
        let kind = kinds.entry(key).or_insert((0, request));
        kind.0 += 1;
        if kind.1.detail.is_none() {
            kind.1 = request;
        }
    }
    let mut kinds: Vec<_> = kinds.into_values().collect();
    kinds.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
    let failure = |(count, request): (u64, &Request)| Failure {
        origin: rows::maybe_origin(request),
        status: Status::of(request).text,
        reason: cap(&request.origin_reason, MAX_TEXT).into_owned(),
        count,
        what: rows::what(request),
        detail: request.detail,
    };
    kinds.into_iter().take(MAX_FAILURES).map(failure).collect()
}

impl<'a> FindingView<'a> {
    fn of(finding: &'a Finding) -> Self {
        let (class, sign) = match finding.severity {
            Severity::Error => ("bad", "✕"),
            Severity::Warning => ("warn", "!"),
            Severity::Note => ("note", "i"),
        };
        Self { class, sign, severity: finding.severity.word(), finding }
    }
}
