//! The rows that the page's script shows, as JSON.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::{
    escape::json_in_html,
    model::{Connection, Page, Request, Route},
    rows::{self, Clock, MAX_TEXT},
    timeline,
};
use crate::{
    trace::Nanos,
    untrusted::{cap, escape},
};

/// Texts, each of them once. The rows have indexes into them.
#[derive(Debug, Default)]
struct Texts {
    list: Vec<String>,
    known: HashMap<String, usize>,
}

impl Texts {
    /// The index of a text as people see it.
    fn index(&mut self, text: &str) -> usize {
        let shown = escape(&cap(text, MAX_TEXT)).into_owned();
        if let Some(index) = self.known.get(&shown) {
            return *index;
        }
        self.list.push(shown.clone());
        self.known.insert(shown, self.list.len() - 1);
        self.list.len() - 1
    }
}

/// Everything that the script needs, as text for a `script` element that is no script.
///
/// Times count from `base`, which is in milliseconds: JavaScript's numbers hold 104 days of nanoseconds exactly.
pub(super) fn json(page: &Page, clock: Clock) -> String {
    let begins = page.connections.iter().filter_map(|connection| connection.begin);
    let first = page.requests.iter().filter_map(|request| request.time).chain(begins).min();
    let base = first.unwrap_or(0) / 1_000_000;
    let mut rows = Rows { base: base * 1_000_000, texts: Texts::default() };
    let requests: Vec<_> = page.requests.iter().map(|request| rows.request(request)).collect();
    let connections: Vec<_> = page.connections.iter().map(|connection| rows.connection(page, connection)).collect();
    let routes: Vec<_> = page.routes.iter().map(route).collect();
    let files: Vec<_> = page.files.iter().map(|file| escape(&cap(file, MAX_TEXT)).into_owned()).collect();
    let data = json!({
        "base": base,
        "day": clock.day.is_some(),
        "rows": timeline::ROWS,
        "start": rows.since(Some(page.activity.start)),
        "span": page.activity.width.saturating_mul(page.activity.bins.len() as u64),
        "texts": rows.texts.list,
        "files": files,
        "routes": routes,
        "requests": requests,
        "connections": connections,
        "details": page.details.iter().map(|detail| detail.request).collect::<Vec<_>>(),
    });
    json_in_html(&data.to_string()).into_owned()
}

/// Makes rows.
#[derive(Debug)]
struct Rows {
    base: Nanos,
    texts: Texts,
}

impl Rows {
    /// A time, counted from the base. It is negative where the charts begin before the first request.
    fn since(&self, time: Option<Nanos>) -> Option<i64> {
        let distance = i128::from(time?) - i128::from(self.base);
        Some(i64::try_from(distance).unwrap_or(i64::MAX))
    }

    /// The script's `REQUEST` names the members.
    fn request(&mut self, request: &Request) -> Value {
        let attempts: Vec<Value> = request
            .attempts
            .iter()
            .map(|attempt| {
                let address = self.texts.index(&attempt.address);
                let id = attempt.connection_id.to_string();
                json!([
                    attempt.begin,
                    attempt.duration,
                    attempt.code,
                    address,
                    id,
                    attempt.file,
                    attempt.complete as u8
                ])
            })
            .collect();
        let parts = request.parts;
        let moments = [parts.request_end, parts.upstream_begin, parts.upstream_first_byte, parts.response_begin];
        let moments: Vec<_> = moments.into_iter().chain([parts.response_end]).collect();
        json!([
            self.since(request.time),
            request.duration,
            self.texts.index(&request.method),
            self.texts.index(&request.host),
            self.texts.index(&request.path),
            self.texts.index(&request.protocol),
            request.code,
            request.grpc,
            u8::from(request.failed) | u8::from(request.complete) << 1,
            self.texts.index(rows::maybe_origin(request)),
            self.texts.index(&request.origin_reason),
            request.sent,
            request.received,
            self.texts.index(rows::side(request.side)),
            request.connection,
            request.file,
            request.offset,
            self.texts.index(&request.connection_id.to_string()),
            moments,
            request.request_latency,
            request.response_latency,
            self.texts.index(rows::pairing(request.pairing)),
            attempts,
            request.detail,
            request.route,
        ])
    }

    /// The script's `CONNECTION` names the members.
    fn connection(&mut self, page: &Page, connection: &Connection) -> Value {
        let duration = connection.begin.zip(connection.end).map(|(begin, end)| end.saturating_sub(begin));
        json!([
            self.since(connection.begin),
            duration,
            self.texts.index(rows::side(connection.side)),
            self.texts.index(&connection.source),
            self.texts.index(&connection.destination),
            self.texts.index(&connection.protocol),
            self.texts.index(&connection.id.to_string()),
            connection.requests,
            connection.sent,
            connection.received,
            self.texts.index(rows::file(page, connection.file)),
            self.texts.index(&connection.note),
        ])
    }
}

/// What a route is called.
fn route(route: &Route) -> String {
    let Route { method, host, route, .. } = route;
    escape(&cap(&format!("{method} {host}{route}"), MAX_TEXT)).into_owned()
}
