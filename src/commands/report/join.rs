//! Which line of an access log belongs to a request.

use std::collections::HashMap;

use crate::{access_log::LogEntry, http::Exchange};

/// Lines may be rounded, and requests begin before Envoy has read their heads.
const TOLERANCE: u64 = 5_000_000;

/// The lines of all access logs.
#[derive(Debug, Default)]
pub(super) struct Logs {
    entries: Vec<LogEntry>,
    by_request_id: HashMap<Vec<u8>, Vec<usize>>,
    by_connection: HashMap<u64, Vec<usize>>,
}

impl Logs {
    pub(super) fn new(entries: Vec<LogEntry>) -> Self {
        let mut logs = Self { entries, ..Self::default() };
        for (index, entry) in logs.entries.iter().enumerate() {
            if let Some(id) = &entry.request_id {
                logs.by_request_id.entry(id.clone()).or_default().push(index);
            }
            if let Some(connection) = entry.connection_id {
                logs.by_connection.entry(connection).or_default().push(index);
            }
        }
        logs
    }

    /// The only line that can be the exchange's; `None` if there are several.
    pub(super) fn entry(&self, exchange: &Exchange) -> Option<&LogEntry> {
        let id = exchange.request.fields.get("x-request-id");
        let of_id = id.and_then(|id| self.by_request_id.get(id));
        let candidates = of_id.or_else(|| self.by_connection.get(&exchange.connection.trace_id))?;
        // A hostile log may have one id in all of its lines.
        let mut fitting =
            candidates.iter().take(1000).map(|index| &self.entries[*index]).filter(|entry| fits(entry, exchange));
        let first = fitting.next()?;
        fitting.next().is_none().then_some(first)
    }
}

/// Whether a line does not contradict an exchange.
fn fits(entry: &LogEntry, exchange: &Exchange) -> bool {
    let same = |logged: &Option<Vec<u8>>, traced: &Option<Vec<u8>>| match (logged, traced) {
        (Some(logged), Some(traced)) => logged == traced,
        _ => true,
    };
    let near = match (entry.start, exchange.request.began) {
        (Some(start), Some(began)) => start.abs_diff(began) <= TOLERANCE + entry.start_precision,
        _ => true,
    };
    let code = match (entry.code, exchange.code) {
        (Some(logged), Some(traced)) => logged == traced,
        (Some(logged), None) => logged == 0,
        _ => true,
    };
    near && code && same(&entry.method, &exchange.method) && same(&entry.path, &exchange.path)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{http::HttpConnection, timeline::Role, trace::Place};

    fn exchange(id: &str, path: &str, began: u64) -> Exchange {
        let place = Place::default();
        let connection = HttpConnection {
            number: 0,
            trace_id: 7,
            began: None,
            role: Role::Downstream,
            source: None,
            destination: None,
            upstream: None,
            http_tap: false,
            place,
        };
        let mut exchange = Exchange::new(Arc::new(connection), place);
        exchange.path = Some(path.as_bytes().to_vec());
        exchange.code = Some(503);
        exchange.request.fields.push(b"X-Request-Id", id.as_bytes());
        exchange.request.began = Some(began);
        exchange
    }

    #[test]
    fn a_line_is_joined_only_if_no_other_may_be_the_one() {
        const SECOND: u64 = 1_000_000_000;
        let entry = |line, id: Option<&str>, path: &str, start: u64| LogEntry {
            line,
            request_id: id.map(|id| id.as_bytes().to_vec()),
            path: Some(path.as_bytes().to_vec()),
            start: Some(start),
            start_precision: 1_000_000,
            code: Some(503),
            connection_id: Some(7),
            ..LogEntry::default()
        };
        let entries = vec![
            entry(1, Some("a"), "/a", SECOND),
            entry(2, None, "/b", SECOND),
            entry(3, None, "/b", 2 * SECOND),
            entry(4, None, "/c", SECOND),
            entry(5, None, "/c", SECOND),
        ];
        let logs = Logs::new(entries);
        let line = |id: &str, path: &str, began| logs.entry(&exchange(id, path, began)).map(|entry| entry.line);
        assert_eq!(line("a", "/a", SECOND + 900_000), Some(1));
        assert_eq!(line("a", "/a", 3 * SECOND), None);
        assert_eq!(line("x", "/b", 2 * SECOND), Some(3));
        assert_eq!(line("x", "/c", SECOND), None);
        assert_eq!(line("x", "/d", SECOND), None);
    }
}
