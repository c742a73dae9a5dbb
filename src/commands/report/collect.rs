//! What the page tells, collected from one input or from all. Its memory has a bound, and the order of the inputs'
//! parts does not matter.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, HashMap},
};

use crate::{
    commands::http::stats::{Histogram, Row as RouteRow, Sample, Stats},
    page::{self, Activity, ActivityBin, Origin, Sizes, Summary},
    pairing::ExchangeId,
    trace::{Code, Nanos, Place, Severity},
};

/// How many requests have rows.
const MAX_ROWS: usize = 10_000;

/// How many of the slowest requests, and of the failed ones, have details.
const MAX_SLOW: usize = 50;
const MAX_FAILED: usize = 100;

/// How many details may wait until it is known which ones are shown.
const MAX_DETAILS: usize = 1000;

const MAX_CONNECTIONS: usize = 5_000;
const MAX_FINDINGS: usize = 500;

/// How many findings of one kind are listed for an input.
const MAX_ALIKE: u64 = 20;

/// How many bins of time are kept, and how many are shown.
const MAX_BINS: usize = 4096;
const SHOWN_BINS: u64 = 120;

/// The edges of the histograms: 1, 2 and 5 times each power of ten, from 100 µs to 50 s.
fn edges() -> Vec<Nanos> {
    (5..=10).flat_map(|power| [1, 2, 5].map(|digit| digit * 10u64.pow(power))).collect()
}

/// What tells a connection apart among all inputs.
pub(super) type ConnectionKey = (usize, u64, Place);

/// One request that is shown.
#[derive(Clone, Debug)]
pub(super) struct Row {
    /// The index of its input, and its number in it.
    pub order: (usize, u64),
    pub request: page::Request,
    pub connection: ConnectionKey,
    /// The method, host and shape of the path.
    pub route: [String; 3],
    pub detail: Option<Box<page::Detail>>,
    /// The attempts that are told with the details.
    pub attempts: Vec<ExchangeId>,
}

/// A connection that is shown.
#[derive(Clone, Debug)]
pub(super) struct ConnectionRow {
    pub key: ConnectionKey,
    pub connection: page::Connection,
}

/// A finding with its place among all.
#[derive(Clone, Debug)]
struct FindingRow {
    severity: Severity,
    order: (usize, u64),
    finding: page::Finding,
}

/// What is told of one input or of all.
#[derive(Debug, Default)]
pub(super) struct Collected {
    stats: Stats,
    rows: Vec<Row>,
    details: usize,
    failed: u64,
    /// The greatest durations, the least of them first.
    slowest: BinaryHeap<Reverse<Nanos>>,
    bins: Bins,
    sizes: Sizes,
    summary: Summary,
    origins: BTreeMap<Origin, u64>,
    connections: Vec<ConnectionRow>,
    findings: Vec<FindingRow>,
    findings_total: u64,
    /// Where the last finding of a kind is that is listed, and how many were.
    alike: HashMap<(Option<Code>, usize), (u64, usize)>,
}

impl Collected {
    /// Whether the next request may need details.
    pub(super) fn wants_detail(&self, failed: bool, duration: Option<Nanos>) -> bool {
        let is_slow = |duration| {
            self.slowest.len() < MAX_SLOW || self.slowest.peek().is_some_and(|Reverse(least)| duration > *least)
        };
        failed && self.failed < MAX_FAILED as u64 || duration.is_some_and(is_slow)
    }

    /// Adds a request.
    pub(super) fn request(&mut self, row: Row, sample: &Sample) {
        self.stats.add(sample);
        let request = &row.request;
        let summary = &mut self.summary;
        summary.requests += 1;
        summary.failed += u64::from(request.failed);
        summary.bytes_sent = summary.bytes_sent.saturating_add(request.sent.unwrap_or(0));
        summary.bytes_received = summary.bytes_received.saturating_add(request.received.unwrap_or(0));
        if let Some(time) = request.time {
            summary.first = Some(summary.first.map_or(time, |first| first.min(time)));
            summary.last = summary.last.max(Some(time.saturating_add(request.duration.unwrap_or(0))));
            self.bins.add(time, request);
        }
        if let Some(pairing) = request.pairing.filter(|_| request.side != Some(page::Side::Upstream)) {
            count_pair(summary.paired.get_or_insert_default(), pairing);
        }
        if let Some(origin) = request.origin {
            *self.origins.entry(origin).or_default() += 1;
        }
        for (sizes, size) in [(&mut self.sizes.request, request.sent), (&mut self.sizes.response, request.received)] {
            if let Some(size) = size {
                count(sizes, (u64::BITS - size.leading_zeros()) as usize, 1);
            }
        }
        self.failed += u64::from(request.failed);
        if let Some(duration) = request.duration {
            self.slowest.push(Reverse(duration));
            if self.slowest.len() > MAX_SLOW {
                self.slowest.pop();
            }
        }
        self.details += usize::from(row.detail.is_some());
        self.rows.push(row);
        if self.rows.len() > 2 * MAX_ROWS || self.details > MAX_DETAILS {
            self.prune();
        }
    }

    /// Adds a connection.
    pub(super) fn connection(&mut self, row: ConnectionRow) {
        self.summary.connections += 1;
        self.connections.push(row);
        if self.connections.len() > 2 * MAX_CONNECTIONS {
            self.prune_connections();
        }
    }

    /// Adds a finding of an input.
    pub(super) fn finding(&mut self, input: usize, code: Option<Code>, finding: page::Finding) {
        self.findings_total += finding.count;
        let (listed, last) = self.alike.entry((code, input)).or_default();
        if *listed == MAX_ALIKE {
            self.findings[*last].finding.count += finding.count;
            return;
        }
        (*listed, *last) = (*listed + 1, self.findings.len());
        let order = (input, self.findings.len() as u64);
        self.findings.push(FindingRow { severity: finding.severity, order, finding });
    }

    /// Counts an input.
    pub(super) fn input(&mut self, damaged: bool) {
        self.summary.inputs += 1;
        self.summary.damaged_inputs += u64::from(damaged);
    }

    /// Adds what was collected from another input.
    pub(super) fn merge(&mut self, other: Self) {
        self.stats.merge(other.stats);
        self.rows.extend(other.rows);
        self.failed += other.failed;
        self.bins.merge(other.bins);
        for (sizes, others) in
            [(&mut self.sizes.request, other.sizes.request), (&mut self.sizes.response, other.sizes.response)]
        {
            others.into_iter().enumerate().for_each(|(bin, number)| count(sizes, bin, number));
        }
        let (summary, added) = (&mut self.summary, other.summary);
        summary.inputs += added.inputs;
        summary.damaged_inputs += added.damaged_inputs;
        summary.requests += added.requests;
        summary.failed += added.failed;
        summary.connections += added.connections;
        summary.bytes_sent = summary.bytes_sent.saturating_add(added.bytes_sent);
        summary.bytes_received = summary.bytes_received.saturating_add(added.bytes_received);
        summary.first = [summary.first, added.first].into_iter().flatten().min();
        summary.last = summary.last.max(added.last);
        if let Some(added) = added.paired {
            let paired = summary.paired.get_or_insert_default();
            paired.certain += added.certain;
            paired.likely += added.likely;
            paired.none += added.none;
        }
        for (origin, number) in other.origins {
            *self.origins.entry(origin).or_default() += number;
        }
        self.connections.extend(other.connections);
        self.findings.extend(other.findings);
        self.findings_total += other.findings_total;
        // The places of findings change.
        self.alike.clear();
        if self.findings.len() > MAX_FINDINGS {
            self.findings.sort_by_key(|row| (Reverse(row.severity), row.order));
            self.findings.truncate(MAX_FINDINGS);
        }
        self.details += other.details;
        if self.rows.len() > 2 * MAX_ROWS || self.details > MAX_DETAILS {
            self.prune();
        }
        if self.connections.len() > 2 * MAX_CONNECTIONS {
            self.prune_connections();
        }
    }

    /// Keeps the rows that may be shown, and the details of those that may have some. What it takes away would be taken
    /// away later as well, whatever comes in between.
    fn prune(&mut self) {
        self.rows.sort_by_key(|row| row.order);
        let mut slow: Vec<usize> =
            (0..self.rows.len()).filter(|index| self.rows[*index].request.duration.is_some()).collect();
        slow.sort_by_key(|index| (Reverse(self.rows[*index].request.duration), self.rows[*index].order));
        slow.truncate(MAX_SLOW);
        slow.sort_unstable();
        let is_slow = |index: usize| slow.binary_search(&index).is_ok();
        let (mut index, mut failed) = (0, 0);
        let all_failed = self.rows.iter().filter(|row| row.request.failed).count();
        let mut room = MAX_ROWS.saturating_sub(all_failed + slow.len());
        self.rows.retain_mut(|row| {
            let slow = is_slow(index);
            index += 1;
            let keeps_detail = slow || row.request.failed && failed < MAX_FAILED;
            if !keeps_detail {
                (row.detail, row.attempts) = (None, Vec::new());
            }
            if let Some(detail) = &mut row.detail {
                (detail.slow, detail.failed) = (slow, row.request.failed);
            }
            if row.request.failed {
                failed += 1;
                return slow || failed <= MAX_ROWS;
            }
            let has_room = slow || room > 0;
            room = room.saturating_sub(usize::from(!slow));
            has_room
        });
        self.details = self.rows.iter().filter(|row| row.detail.is_some()).count();
    }

    fn prune_connections(&mut self) {
        self.connections.sort_by_key(|row| row.key);
        self.connections.truncate(MAX_CONNECTIONS);
    }

    /// The page, but for what the arguments say, and for the details of attempts, which are given for each detail.
    pub(super) fn into_page(mut self) -> (page::Page, Vec<Vec<ExchangeId>>) {
        self.prune();
        self.prune_connections();
        self.findings.sort_by_key(|row| (Reverse(row.severity), row.order));
        self.findings.truncate(MAX_FINDINGS);
        let edges = edges();
        let rows = self.stats.into_rows(None);
        let mut durations = Histogram::default();
        rows.iter().for_each(|row| durations.merge(&row.durations));
        let mut summary = self.summary;
        [summary.p50, summary.p95, summary.p99] = [50, 95, 99].map(|percent| durations.percentile(percent));
        summary.max = (durations.count > 0).then_some(durations.greatest);
        summary.origins = self.origins.into_iter().collect();
        let routes: Vec<page::Route> = rows.into_iter().rev().map(|row| route(row, &edges)).collect();
        let by_name: HashMap<[&str; 3], usize> = routes
            .iter()
            .enumerate()
            .map(|(index, route)| ([&*route.method, &*route.host, &*route.route], index))
            .collect();

        self.connections.sort_by_key(|row| (row.connection.begin.is_none(), row.connection.begin, row.key));
        let places: HashMap<ConnectionKey, usize> =
            self.connections.iter().enumerate().map(|(index, row)| (row.key, index)).collect();
        self.rows.sort_by_key(|row| (row.request.time.is_none(), row.request.time, row.order));
        let (mut requests, mut details) = (Vec::with_capacity(self.rows.len()), Vec::new());
        for (index, row) in self.rows.into_iter().enumerate() {
            let mut request = row.request;
            request.connection = places.get(&row.connection).copied();
            request.route = by_name.get(&row.route.each_ref().map(String::as_str)).copied();
            if let Some(detail) = row.detail {
                let importance = (!detail.failed, Reverse(request.duration), index);
                details.push((importance, page::Detail { request: index, ..*detail }, row.attempts));
            }
            requests.push(request);
        }
        details.sort_by_key(|(importance, ..)| *importance);
        let attempts = details.iter_mut().map(|(.., attempts)| std::mem::take(attempts)).collect();
        for (place, (_, detail, _)) in details.iter().enumerate() {
            requests[detail.request].detail = Some(place);
        }
        let page = page::Page {
            requests_total: summary.requests,
            connections_total: summary.connections,
            routes_total: routes.len() as u64,
            summary,
            requests,
            connections: self.connections.into_iter().map(|row| row.connection).collect(),
            routes,
            duration_edges: edges,
            activity: self.bins.into_activity(),
            sizes: self.sizes,
            details: details.into_iter().map(|(_, detail, _)| detail).collect(),
            findings: self.findings.into_iter().map(|row| row.finding).collect(),
            findings_total: self.findings_total,
            ..page::Page::default()
        };
        (page, attempts)
    }
}

fn route(row: RouteRow, edges: &[Nanos]) -> page::Route {
    let [p50, p95, p99] = [50, 95, 99].map(|percent| row.durations.percentile(percent));
    page::Route {
        p50,
        p95,
        p99,
        max: (row.durations.count > 0).then_some(row.durations.greatest),
        histogram: row.durations.between(edges),
        method: row.method,
        host: row.host,
        route: row.route,
        count: row.count,
        failed: row.failed,
        sent: row.sent,
        received: row.received,
    }
}

fn count_pair(paired: &mut page::PairCounts, pairing: page::Pairing) {
    match pairing {
        page::Pairing::Certain => paired.certain += 1,
        page::Pairing::Likely => paired.likely += 1,
        page::Pairing::None => paired.none += 1,
    }
}

fn count(counts: &mut Vec<u64>, bin: usize, number: u64) {
    if counts.len() <= bin {
        counts.resize(bin + 1, 0);
    }
    counts[bin] += number;
}

/// Requests over time. The width of a bin is doubled when there are too many.
#[derive(Debug)]
struct Bins {
    width: Nanos,
    bins: BTreeMap<u64, ActivityBin>,
}

impl Default for Bins {
    fn default() -> Self {
        Self { width: 1_000_000, bins: BTreeMap::new() }
    }
}

impl Bins {
    fn add(&mut self, time: Nanos, request: &page::Request) {
        let bin = self.bins.entry(time / self.width).or_default();
        match request.code {
            _ if request.failed => bin.failed += 1,
            Some(400..500) => bin.client_error += 1,
            _ => bin.ok += 1,
        }
        while self.bins.len() > MAX_BINS {
            self.widen();
        }
    }

    fn widen(&mut self) {
        self.width *= 2;
        for (index, bin) in std::mem::take(&mut self.bins) {
            self.put(index / 2, bin);
        }
    }

    fn put(&mut self, index: u64, bin: ActivityBin) {
        let sum = self.bins.entry(index).or_default();
        sum.ok += bin.ok;
        sum.client_error += bin.client_error;
        sum.failed += bin.failed;
    }

    fn merge(&mut self, mut other: Self) {
        while self.width < other.width {
            self.widen();
        }
        while other.width < self.width {
            other.widen();
        }
        other.bins.into_iter().for_each(|(index, bin)| self.put(index, bin));
        while self.bins.len() > MAX_BINS {
            self.widen();
        }
    }

    fn into_activity(mut self) -> Activity {
        let span = |bins: &Self| {
            let (first, last) = (bins.bins.first_key_value()?.0, bins.bins.last_key_value()?.0);
            Some((*first, last - first + 1))
        };
        while span(&self).is_some_and(|(_, count)| count > SHOWN_BINS) {
            self.widen();
        }
        let Some((first, count)) = span(&self) else { return Activity::default() };
        let bins = (first..first + count).map(|index| self.bins.get(&index).copied().unwrap_or_default()).collect();
        Activity { start: first.saturating_mul(self.width), width: self.width, bins }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Adds one of many requests: a few of them have failed, and none is as slow as another.
    fn add(collected: &mut Collected, number: u64) {
        let duration = 1 + number * 7_919 % 100_003;
        let failed = number.is_multiple_of(97);
        let request = page::Request {
            time: Some(number.wrapping_mul(31) % 1_000_000),
            duration: Some(duration),
            failed,
            ..page::Request::default()
        };
        let sample = Sample { failed, duration: Some(duration), ..Sample::default() };
        let detail = collected.wants_detail(failed, Some(duration)).then(Box::default);
        let connection = (0, number, Place::default());
        let row =
            Row { order: (0, number), request, connection, route: Default::default(), detail, attempts: Vec::new() };
        collected.request(row, &sample);
        let connection = page::Connection { id: number, ..page::Connection::default() };
        collected.connection(ConnectionRow { key: (0, number, Place::default()), connection });
    }

    #[test]
    fn many_small_parts_are_kept_as_one_large_part_is() {
        let requests = 3 * MAX_ROWS as u64;
        let mut whole = Collected::default();
        (0..requests).for_each(|number| add(&mut whole, number));
        let mut parts = Collected::default();
        for first in (0..requests).step_by(100) {
            let mut part = Collected::default();
            (first..first + 100).for_each(|number| add(&mut part, number));
            parts.merge(part);
            assert!(parts.rows.len() <= 2 * MAX_ROWS + 100 && parts.details <= MAX_DETAILS + 100);
            assert!(parts.connections.len() <= 2 * MAX_CONNECTIONS + 100);
        }
        let (page, _) = parts.into_page();
        assert!(page == whole.into_page().0);
        assert_eq!((page.requests_total, page.requests.len()), (requests, MAX_ROWS));
        assert!(page.details.iter().filter(|detail| detail.slow).count() == MAX_SLOW);
        assert!(page.details.iter().filter(|detail| detail.failed).count() >= MAX_FAILED);
    }
}
