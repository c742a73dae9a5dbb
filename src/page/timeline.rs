//! Requests as bars over time, under their connections. The page's script draws the same again for other windows of
//! time.

use super::{
    model::{Attempt, Page, Request},
    rows::{self, Clock},
    units,
};
use crate::trace::Nanos;

/// How many requests are drawn at once, here and by the script.
pub(super) const ROWS: usize = 60;

/// What happens in a stretch of a bar. The script knows the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The request arrives.
    Arrive = 0,
    /// Envoy has it, and nobody else.
    Envoy = 1,
    /// The upstream's answer has not begun.
    Wait = 2,
    /// The response passes.
    Respond = 3,
    /// It is not known what happens.
    Other = 4,
}

impl Kind {
    pub(super) const ALL: [Self; 5] = [Self::Arrive, Self::Envoy, Self::Wait, Self::Respond, Self::Other];

    /// The class of its bar.
    pub(super) fn class(self) -> &'static str {
        match self {
            Self::Arrive => "arrive",
            Self::Envoy => "envoy",
            Self::Wait => "wait",
            Self::Respond => "respond",
            Self::Other => "other",
        }
    }

    /// What it is called in legends and titles.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Arrive => "request arriving",
            Self::Envoy => "Envoy",
            Self::Wait => "waiting for the response",
            Self::Respond => "response",
            Self::Other => "not told apart",
        }
    }
}

/// A stretch of a request's time, from the end of the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) kind: Kind,
    pub(super) end: Nanos,
}

/// How long a request took, as far as it is known.
pub(super) fn length(request: &Request) -> Nanos {
    let parts = request.parts;
    let moments =
        [parts.request_end, parts.upstream_begin, parts.upstream_first_byte, parts.response_begin, parts.response_end];
    request.duration.or_else(|| moments.into_iter().flatten().max()).unwrap_or(0)
}

/// The stretches of a request, without gaps. Moments out of order are put into it: a bar cannot go back.
pub(super) fn stretches(request: &Request) -> Vec<Stretch> {
    let parts = request.parts;
    let whole = length(request);
    let mut stretches = Vec::with_capacity(5);
    let mut at = 0;
    let mut until = |kind, moment: Option<Nanos>| {
        let end = moment.unwrap_or(0).min(whole);
        if end > at {
            stretches.push(Stretch { kind, end });
            at = end;
        }
    };
    until(Kind::Arrive, parts.request_end);
    until(Kind::Envoy, parts.upstream_begin);
    until(Kind::Wait, parts.upstream_first_byte);
    let envoy_tells = parts.upstream_first_byte.is_some();
    until(if envoy_tells { Kind::Envoy } else { Kind::Wait }, parts.response_begin);
    until(Kind::Respond, parts.response_end);
    until(Kind::Other, Some(whole));
    stretches
}

/// A rectangle, in percent of the width and in pixels of the height.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Bar {
    pub(super) class: &'static str,
    pub(super) x: String,
    pub(super) width: String,
    pub(super) y: usize,
    pub(super) height: usize,
}

/// One request.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    pub(super) what: String,
    pub(super) status: rows::Status,
    pub(super) duration: String,
    /// Says in words what the bars show.
    pub(super) title: String,
    pub(super) height: usize,
    pub(super) bars: Vec<Bar>,
}

/// The requests on one connection.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Group {
    pub(super) label: String,
    pub(super) rows: Vec<Row>,
}

/// A line over time.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tick {
    pub(super) x: String,
    pub(super) label: String,
}

/// The first requests.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Waterfall {
    pub(super) from: String,
    pub(super) until: String,
    pub(super) shown: usize,
    pub(super) ticks: Vec<Tick>,
    pub(super) groups: Vec<Group>,
}

impl Waterfall {
    /// Draws the first [`ROWS`] requests that have a time.
    pub(super) fn of_first(page: &Page, clock: Clock) -> Self {
        let timed = page.requests.iter().filter_map(|request| Some((request.time?, request)));
        let first: Vec<_> = timed.take(ROWS).collect();
        let Some(from) = first.iter().map(|(time, _)| *time).min() else { return Self::default() };
        let until = first.iter().map(|(time, request)| time.saturating_add(length(request))).max().unwrap_or(from);
        let window = Window { from, span: until - from };
        let mut groups: Vec<(Option<usize>, Group)> = Vec::new();
        for (time, request) in &first {
            let row = window.row(*time, request, clock);
            // There are at most as many groups as rows, which are few.
            if let Some((_, group)) = groups.iter_mut().find(|(connection, _)| *connection == request.connection) {
                group.rows.push(row);
            } else {
                let label = rows::connection_label(page, request.connection);
                groups.push((request.connection, Group { label, rows: vec![row] }));
            }
        }
        Self {
            from: clock.show(from),
            until: clock.show(until),
            shown: first.len(),
            ticks: window.ticks(),
            groups: groups.into_iter().map(|(_, group)| group).collect(),
        }
    }
}

/// The stretch of time that is drawn.
#[derive(Clone, Copy, Debug)]
struct Window {
    from: Nanos,
    span: Nanos,
}

impl Window {
    fn ticks(self) -> Vec<Tick> {
        let tick = |at| Tick { x: units::percent(at, self.span), label: units::duration(at) };
        units::ticks(self.span).into_iter().map(tick).collect()
    }

    fn bar(self, class: &'static str, (begin, end): (Nanos, Nanos), (y, height): (usize, usize)) -> Bar {
        let x = units::percent(begin.saturating_sub(self.from), self.span);
        let width = units::percent(end.saturating_sub(begin), self.span);
        Bar { class, x, width, y, height }
    }

    fn row(self, time: Nanos, request: &Request, clock: Clock) -> Row {
        let status = rows::Status::of(request);
        let mut bars = Vec::new();
        let mut begin = time;
        for stretch in stretches(request) {
            let end = time.saturating_add(stretch.end);
            bars.push(self.bar(stretch.kind.class(), (begin, end), (3, 12)));
            begin = end;
        }
        for (index, attempt) in request.attempts.iter().take(MAX_ATTEMPTS).enumerate() {
            let Some(offset) = attempt.begin else { continue };
            let begin = time.saturating_add_signed(offset).max(self.from);
            let end = begin.saturating_add(attempt.duration.unwrap_or(0));
            bars.push(self.bar(attempt_class(attempt), (begin, end), (17 + 6 * index, 4)));
        }
        Row {
            what: rows::what(request),
            duration: units::maybe_duration(request.duration),
            title: title(request, &status, &clock.show(time)),
            height: 18 + 6 * request.attempts.len().min(MAX_ATTEMPTS),
            status,
            bars,
        }
    }
}

/// How many attempts are drawn of one request.
const MAX_ATTEMPTS: usize = 8;

/// The class of an attempt's bar.
fn attempt_class(attempt: &Attempt) -> &'static str {
    if attempt.code.is_none_or(|code| code >= 500) { "attempt bad" } else { "attempt" }
}

/// What the bars of a request show, in words.
fn title(request: &Request, status: &rows::Status, time: &str) -> String {
    let mut title = format!("{} at {time}: {}", rows::what(request), status.text);
    let mut begin = 0;
    for stretch in stretches(request) {
        title.push_str(&format!(", {} {}", stretch.kind.word(), units::duration(stretch.end - begin)));
        begin = stretch.end;
    }
    for (index, attempt) in request.attempts.iter().enumerate().take(MAX_ATTEMPTS) {
        let code = attempt.code.map_or_else(|| "no response".to_owned(), |code| code.to_string());
        title.push_str(&format!("; attempt {}: {code}, {}", index + 1, units::maybe_duration(attempt.duration)));
    }
    title
}

#[cfg(test)]
mod tests {
    use super::{super::model::Parts, *};

    fn kinds(parts: Parts, duration: Option<Nanos>) -> Vec<(Kind, Nanos)> {
        let request = Request { parts, duration, ..Request::default() };
        stretches(&request).into_iter().map(|stretch| (stretch.kind, stretch.end)).collect()
    }

    #[test]
    fn a_paired_request_has_all_stretches() {
        let parts = Parts {
            request_end: Some(10),
            upstream_begin: Some(20),
            upstream_first_byte: Some(70),
            response_begin: Some(75),
            response_end: Some(100),
        };
        let all = [(Kind::Arrive, 10), (Kind::Envoy, 20), (Kind::Wait, 70), (Kind::Envoy, 75), (Kind::Respond, 100)];
        assert_eq!(kinds(parts, Some(100)), all);
    }

    #[test]
    fn without_the_upstream_the_wait_is_whole() {
        let parts =
            Parts { request_end: Some(10), response_begin: Some(75), response_end: Some(100), ..Parts::default() };
        assert_eq!(kinds(parts, Some(100)), [(Kind::Arrive, 10), (Kind::Wait, 75), (Kind::Respond, 100)]);
    }

    #[test]
    fn what_is_unknown_is_not_told_apart() {
        assert_eq!(kinds(Parts::default(), Some(9)), [(Kind::Other, 9)]);
        assert_eq!(kinds(Parts::default(), None), []);
    }

    #[test]
    fn moments_out_of_order_do_not_go_back() {
        let parts = Parts {
            request_end: Some(50),
            upstream_begin: Some(20),
            upstream_first_byte: Some(u64::MAX),
            response_begin: Some(5),
            response_end: Some(60),
        };
        assert_eq!(kinds(parts, Some(60)), [(Kind::Arrive, 50), (Kind::Wait, 60)]);
    }
}
