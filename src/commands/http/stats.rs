//! `--stats`: how many requests went to each route, how many failed, and how long they took.

use std::{
    collections::HashMap,
    io::{self, IsTerminal as _, Write},
};

use serde_json::{Map, Value as Json};

use super::{json, table};
use crate::{http::ExchangeRecord, report::for_terminal, timeline::StableHasher, trace::Nanos, untrusted::escape_json};

/// How many routes have rows of their own.
pub(in crate::commands) const MAX_ROUTES: usize = 2000;

/// The longest method, host and path shape that are kept.
const MAX_NAME: usize = 256;

/// How many buckets there are for each power of two: a percentile is off by less than one in 128.
const SUB_BITS: u32 = 6;

/// What the statistics need of one exchange.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::commands) struct Sample {
    pub(in crate::commands) failed: bool,
    pub(in crate::commands) duration: Option<Nanos>,
    pub(in crate::commands) sent: u64,
    pub(in crate::commands) received: u64,
    pub(in crate::commands) method: String,
    pub(in crate::commands) host: String,
    pub(in crate::commands) route: String,
}

impl Sample {
    pub(in crate::commands) fn of(record: ExchangeRecord<'_>) -> Self {
        let exchange = record.exchange;
        let grpc_failed = exchange.grpc.as_ref().and_then(|grpc| grpc.status).is_some_and(|status| status != 0);
        let text = |bytes: Option<&[u8]>| {
            let bytes = bytes.unwrap_or(b"-");
            String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_NAME)]).into_owned()
        };
        Self {
            failed: grpc_failed || exchange.code.is_none_or(|code| code >= 500),
            duration: exchange.duration(),
            sent: exchange.request.size().unwrap_or(0),
            received: exchange.response.size().unwrap_or(0),
            method: text(exchange.method.as_deref()),
            host: text(exchange.host.as_deref()),
            route: shape(&text(exchange.url_path())),
        }
    }

    /// The sample as bytes, while it waits for the end of its connection.
    pub(super) fn write(&self) -> Vec<u8> {
        let mut out = vec![u8::from(self.failed), u8::from(self.duration.is_some())];
        for number in [self.duration.unwrap_or(0), self.sent, self.received] {
            out.extend(number.to_le_bytes());
        }
        for text in [&self.method, &self.host, &self.route] {
            out.extend((text.len() as u32).to_le_bytes());
            out.extend(text.as_bytes());
        }
        out
    }

    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let (flags, mut rest) = bytes.split_first_chunk::<2>()?;
        let mut number = || {
            let (number, after) = rest.split_first_chunk()?;
            rest = after;
            Some(u64::from_le_bytes(*number))
        };
        let [duration, sent, received] = [number()?, number()?, number()?];
        let mut text = || {
            let (len, after) = rest.split_first_chunk()?;
            let (text, after) = after.split_at_checked(u32::from_le_bytes(*len) as usize)?;
            rest = after;
            String::from_utf8(text.to_vec()).ok()
        };
        let [method, host, route] = [text()?, text()?, text()?];
        let duration = (flags[1] != 0).then_some(duration);
        Some(Self { failed: flags[0] != 0, duration, sent, received, method, host, route })
    }
}

/// A path with what differs between requests to the same route replaced.
fn shape(path: &str) -> String {
    let mut shape = String::with_capacity(path.len());
    for (index, segment) in path.split('/').enumerate() {
        if index > 0 {
            shape.push('/');
        }
        // A file's name may be an id, and its suffix says what it is.
        let (stem, suffix) = match segment.rfind('.') {
            Some(at)
                if at > 0
                    && segment.len() - at <= 6
                    && segment[at + 1..].starts_with(|char: char| char.is_ascii_alphabetic()) =>
            {
                segment.split_at(at)
            }
            _ => (segment, ""),
        };
        if is_id(stem) {
            shape.push_str("{id}");
        } else if let Some((word, _)) = stem.rsplit_once(['-', '_', ':', '=']).filter(|(_, last)| is_id(last)) {
            shape.push_str(&stem[..=word.len()]);
            shape.push_str("{id}");
        } else {
            shape.push_str(stem);
        }
        shape.push_str(suffix);
    }
    shape
}

/// Whether a part of a path is one of many: a number, a date, a UUID, a hash, or a random token.
fn is_id(text: &str) -> bool {
    let all = |is: fn(&u8) -> bool| text.as_bytes().iter().all(is);
    let any = |is: fn(&u8) -> bool| text.as_bytes().iter().any(is);
    if !any(u8::is_ascii_digit) {
        return false;
    }
    let is_number = all(|byte| byte.is_ascii_digit() || b"-:.,+".contains(byte));
    let is_hex = text.len() >= 8 && all(|byte| byte.is_ascii_hexdigit() || *byte == b'-');
    let is_token = text.len() >= 16 && all(u8::is_ascii_alphanumeric) && any(u8::is_ascii_alphabetic);
    is_number || is_hex || is_token
}

/// How many durations there were in each range.
#[derive(Clone, Debug, Default)]
pub(in crate::commands) struct Histogram {
    /// Buckets and counts, sorted by bucket.
    buckets: Vec<(u16, u64)>,
    pub(in crate::commands) count: u64,
    least: Nanos,
    pub(in crate::commands) greatest: Nanos,
}

impl Histogram {
    fn bucket(nanos: Nanos) -> u16 {
        let exponent = 63_u32.saturating_sub(nanos.leading_zeros());
        if exponent < SUB_BITS {
            return nanos as u16;
        }
        let sub = (nanos >> (exponent - SUB_BITS)) & ((1 << SUB_BITS) - 1);
        ((exponent - SUB_BITS + 1) << SUB_BITS) as u16 + sub as u16
    }

    /// The middle of a bucket.
    fn middle(bucket: u16) -> Nanos {
        let bucket = u64::from(bucket);
        let Some(shift) = (bucket >> SUB_BITS).checked_sub(1) else { return bucket };
        let first = ((1 << SUB_BITS) | (bucket & ((1 << SUB_BITS) - 1))) << shift;
        first + ((1_u64 << shift) >> 1)
    }

    fn add(&mut self, bucket: u16, count: u64) {
        match self.buckets.binary_search_by_key(&bucket, |(bucket, _)| *bucket) {
            Ok(index) => self.buckets[index].1 += count,
            Err(index) => self.buckets.insert(index, (bucket, count)),
        }
        self.count += count;
    }

    fn record(&mut self, nanos: Nanos) {
        self.least = if self.count == 0 { nanos } else { self.least.min(nanos) };
        self.greatest = self.greatest.max(nanos);
        self.add(Self::bucket(nanos), 1);
    }

    pub(in crate::commands) fn merge(&mut self, other: &Self) {
        if other.count > 0 {
            self.least = if self.count == 0 { other.least } else { self.least.min(other.least) };
            self.greatest = self.greatest.max(other.greatest);
            other.buckets.iter().for_each(|(bucket, count)| self.add(*bucket, *count));
        }
    }

    /// The duration that this many of 100 do not exceed; `None` if there is none.
    pub(in crate::commands) fn percentile(&self, percent: u64) -> Option<Nanos> {
        let rank = u64::try_from((u128::from(self.count) * u128::from(percent)).div_ceil(100)).ok()?.max(1);
        let mut before = 0;
        let (bucket, _) = self.buckets.iter().find(|(_, count)| {
            before += count;
            before >= rank
        })?;
        Some(Self::middle(*bucket).clamp(self.least, self.greatest))
    }

    /// How many durations are below the first of these edges, between each two of them, and not below the last.
    #[cfg(feature = "report")]
    pub(in crate::commands) fn between(&self, edges: &[Nanos]) -> Vec<u64> {
        let mut counts = vec![0; edges.len() + 1];
        for (bucket, count) in &self.buckets {
            counts[edges.partition_point(|edge| *edge <= Self::middle(*bucket))] += count;
        }
        counts
    }
}

/// What is known of one route.
#[derive(Clone, Debug, Default)]
pub(in crate::commands) struct Row {
    pub(in crate::commands) method: String,
    pub(in crate::commands) host: String,
    pub(in crate::commands) route: String,
    pub(in crate::commands) count: u64,
    pub(in crate::commands) failed: u64,
    pub(in crate::commands) sent: u64,
    pub(in crate::commands) received: u64,
    pub(in crate::commands) durations: Histogram,
}

impl Row {
    fn add(&mut self, sample: &Sample) {
        self.count += 1;
        self.failed += u64::from(sample.failed);
        self.sent = self.sent.saturating_add(sample.sent);
        self.received = self.received.saturating_add(sample.received);
        if let Some(duration) = sample.duration {
            self.durations.record(duration);
        }
    }

    fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.failed += other.failed;
        self.sent = self.sent.saturating_add(other.sent);
        self.received = self.received.saturating_add(other.received);
        self.durations.merge(&other.durations);
    }
}

/// The statistics of all routes. If there are too many, those with the least hashes keep their rows, so that the result
/// does not depend on the order in which they come.
#[derive(Debug, Default)]
pub(in crate::commands) struct Stats {
    rows: HashMap<Box<str>, (u64, Row)>,
    others: Row,
    /// Routes whose hash is not below this one have no rows.
    limit: Option<u64>,
    key: String,
}

impl Stats {
    pub(in crate::commands) fn add(&mut self, sample: &Sample) {
        self.key.clear();
        self.key.extend([&sample.method, " ", &sample.host, " ", &sample.route]);
        if let Some((_, row)) = self.rows.get_mut(self.key.as_str()) {
            return row.add(sample);
        }
        let hash = hash(&self.key);
        if self.limit.is_some_and(|limit| hash >= limit) {
            return self.others.add(sample);
        }
        let Sample { method, host, route, .. } = sample.clone();
        let mut row = Row { method, host, route, ..Row::default() };
        row.add(sample);
        let key = self.key.as_str().into();
        self.insert(key, hash, row);
    }

    fn insert(&mut self, key: Box<str>, hash: u64, row: Row) {
        self.rows.insert(key, (hash, row));
        if self.rows.len() > MAX_ROUTES
            && let Some((greatest, limit)) =
                self.rows.iter().max_by_key(|(_, (hash, _))| *hash).map(|(key, (hash, _))| (key.clone(), *hash))
        {
            self.limit = Some(limit);
            if let Some((_, row)) = self.rows.remove(&greatest) {
                self.others.merge(&row);
            }
        }
    }

    /// Adds other statistics.
    pub(in crate::commands) fn merge(&mut self, other: Self) {
        self.others.merge(&other.others);
        let limit = [self.limit, other.limit].into_iter().flatten().min();
        self.limit = limit;
        if let Some(limit) = limit {
            let others = &mut self.others;
            self.rows.retain(|_, (hash, row)| {
                let stays = *hash < limit;
                if !stays {
                    others.merge(row);
                }
                stays
            });
        }
        for (key, (hash, row)) in other.rows {
            match self.rows.get_mut(&key) {
                Some((_, before)) => before.merge(&row),
                None if self.limit.is_some_and(|limit| hash >= limit) => self.others.merge(&row),
                None => self.insert(key, hash, row),
            }
        }
    }

    /// The rows, those with the most requests last, at most `top`.
    pub(in crate::commands) fn into_rows(self, top: Option<usize>) -> Vec<Row> {
        let mut rows: Vec<Row> = self.rows.into_values().map(|(_, row)| row).collect();
        rows.sort_by(|left, right| {
            let names = |row: &Row| (row.host.clone(), row.route.clone(), row.method.clone());
            left.count.cmp(&right.count).then_with(|| names(right).cmp(&names(left)))
        });
        if self.others.count > 0 {
            rows.insert(0, Row { method: "-".to_owned(), host: "(other)".to_owned(), ..self.others });
        }
        let skipped = rows.len().saturating_sub(top.unwrap_or(usize::MAX));
        rows.split_off(skipped)
    }

    /// Writes a line for each route.
    pub(super) fn write(self, out: &mut impl Write, as_json: bool, top: Option<usize>) -> io::Result<()> {
        let rows = self.into_rows(top);
        if as_json { rows.iter().try_for_each(|row| write_json(out, row)) } else { write_table(out, &rows) }
    }
}

fn hash(text: &str) -> u64 {
    StableHasher::default().part(text.as_bytes()).finish()
}

fn write_json(out: &mut impl Write, row: &Row) -> io::Result<()> {
    let mut object = Map::new();
    let mut member = |name: &str, value: Json| object.insert(name.to_owned(), value);
    member("host", row.host.as_str().into());
    member("method", row.method.as_str().into());
    member("route", row.route.as_str().into());
    member("count", row.count.into());
    member("errors", row.failed.into());
    for (name, percent) in [("p50", 50), ("p95", 95), ("p99", 99)] {
        if let Some(duration) = row.durations.percentile(percent) {
            member(name, json::duration(duration).into());
        }
    }
    if row.durations.count > 0 {
        member("max", json::duration(row.durations.greatest).into());
    }
    member("sent", row.sent.into());
    member("received", row.received.into());
    writeln!(out, "{}", escape_json(&Json::from(object).to_string()))
}

const TITLES: [&str; 10] =
    ["COUNT", "ERRORS", "P50", "P95", "P99", "MAX", "SENT", "RECEIVED", "METHOD", "HOST AND ROUTE"];

/// The columns that are aligned to the right are those before this one.
const METHOD: usize = 8;

fn write_table(out: &mut impl Write, rows: &[Row]) -> io::Result<()> {
    let duration = |duration: Option<Nanos>| duration.map_or_else(|| "-".to_owned(), table::duration);
    let cells: Vec<[String; 10]> = rows
        .iter()
        .map(|row| {
            let [p50, p95, p99] = [50, 95, 99].map(|percent| duration(row.durations.percentile(percent)));
            [
                row.count.to_string(),
                row.failed.to_string(),
                p50,
                p95,
                p99,
                duration((row.durations.count > 0).then_some(row.durations.greatest)),
                row.sent.to_string(),
                row.received.to_string(),
                for_terminal(&row.method),
                for_terminal(&format!("{}{}", row.host, row.route)),
            ]
        })
        .collect();
    if cells.is_empty() {
        return Ok(());
    }
    let titles = TITLES.map(str::to_owned);
    let mut widths = [0; 10];
    for row in cells.iter().chain([&titles]) {
        widths.iter_mut().zip(row).for_each(|(width, cell)| *width = (*width).max(cell.chars().count()));
    }
    let terminal = io::stdout().is_terminal().then(table::columns);
    let others: usize = widths[..9].iter().sum::<usize>() + 2 * 9;
    for row in [&titles].into_iter().chain(&cells) {
        let mut line = String::new();
        for (index, (cell, width)) in row.iter().zip(widths).enumerate() {
            let padding = " ".repeat(width - cell.chars().count());
            match (index, terminal) {
                (9, Some(columns)) => line.push_str(&table::shorten(cell, columns.saturating_sub(others).max(20))),
                (9, None) => line.push_str(cell),
                (METHOD, _) => line.extend([cell, padding.as_str(), "  "]),
                _ => line.extend([padding.as_str(), cell, "  "]),
            }
        }
        writeln!(out, "{line}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_in_paths_are_folded() {
        for (path, expected) in [
            ("/", "/"),
            ("/users/42/orders/2026-01-31", "/users/{id}/orders/{id}"),
            ("/a/123e4567-e89b-12d3-a456-426614174000/b", "/a/{id}/b"),
            ("/git/da39a3ee5e6b4b0d3255bfef95601890afd80709", "/git/{id}"),
            ("/o/01ARZ3NDEKTSV4RRFFQ69G5FAV", "/o/{id}"),
            ("/c/cus_9s6XKzkNRiz8i3Aa", "/c/cus_{id}"),
            ("/order-1234/items", "/order-{id}/items"),
            ("/img/1234.png", "/img/{id}.png"),
            ("/v1/users", "/v1/users"),
            ("/static/app.js", "/static/app.js"),
            ("/echo.Echo/Say", "/echo.Echo/Say"),
            ("/deadbeef/facade", "/deadbeef/facade"),
            ("*", "*"),
        ] {
            assert_eq!(shape(path), expected);
        }
    }

    #[test]
    fn percentiles_are_close_to_the_true_ones() {
        let mut histogram = Histogram::default();
        let mut durations: Vec<u64> = (0..10_000_u64).map(|number| (number * 7919 % 10_007).pow(2) * 13 + 1).collect();
        durations.iter().for_each(|duration| histogram.record(*duration));
        durations.sort_unstable();
        for percent in [1, 50, 95, 99, 100] {
            let truth = durations[(durations.len() * percent as usize).div_ceil(100) - 1] as f64;
            let found = histogram.percentile(percent).unwrap() as f64;
            assert!((found - truth).abs() <= truth / 128.0 + 1.0, "{percent}: {found} {truth}");
        }
        assert!(histogram.buckets.len() < 2000);
        for nanos in [0, 1, 63, 64, 65, 1_000_000_007, u64::MAX] {
            let mut one = Histogram::default();
            one.record(nanos);
            assert_eq!(one.percentile(50), Some(nanos));
        }
    }

    fn sample(number: u64) -> Sample {
        let route = format!("/r{}", char::from_u32(0x4e00 + number as u32).unwrap());
        Sample {
            duration: Some(number),
            sent: 1,
            host: "a".to_owned(),
            method: "GET".to_owned(),
            route,
            ..Sample::default()
        }
    }

    #[test]
    fn the_rows_do_not_depend_on_the_order_or_the_workers() {
        let numbers: Vec<u64> = (0..3 * MAX_ROUTES as u64).chain(0..100).collect();
        let render = |parts: Vec<Vec<u64>>| {
            let mut all = Stats::default();
            for part in parts {
                let mut stats = Stats::default();
                part.into_iter().for_each(|number| stats.add(&sample(number)));
                all.merge(stats);
            }
            assert!(all.rows.len() <= MAX_ROUTES);
            let mut out = Vec::new();
            all.write(&mut out, true, None).unwrap();
            String::from_utf8(out).unwrap()
        };
        let whole = render(vec![numbers.clone()]);
        assert_eq!(whole.lines().count(), MAX_ROUTES + 1);
        assert!(whole.lines().next().unwrap().contains("(other)"));
        let counted: u64 =
            whole.lines().map(|line| serde_json::from_str::<Json>(line).unwrap()["count"].as_u64().unwrap()).sum();
        assert_eq!(counted, numbers.len() as u64);
        let reversed = numbers.iter().rev().copied().collect();
        assert!(render(vec![reversed]) == whole);
        assert!(render(numbers.chunks(777).map(<[u64]>::to_vec).collect()) == whole);
    }

    #[test]
    fn a_sample_that_waits_is_the_same_afterwards() {
        for sample in [sample(7), Sample { failed: true, ..Sample::default() }] {
            assert_eq!(Sample::read(&sample.write()), Some(sample));
        }
    }
}
