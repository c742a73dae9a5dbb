use std::{collections::HashMap, sync::Arc};

use proptest::prelude::*;

use super::*;
use crate::{
    http::{Exchange, HttpConnection},
    trace::{Address, Nanos, Place},
};

const MS: Nanos = 1_000_000;

/// An exchange as a test describes it: the side, the connection, the path, the code, and the four times.
struct Given<'a> {
    side: Role,
    connection: u64,
    path: &'a str,
    code: Option<u16>,
    times: [Nanos; 4],
    fields: &'a [(&'a str, &'a str)],
    is_tap: bool,
    /// Whether the response says that it is an upstream's.
    is_served: bool,
}

fn client<'a>(connection: u64, path: &'a str, code: u16, times: [Nanos; 4]) -> Given<'a> {
    Given {
        side: Role::Downstream,
        connection,
        path,
        code: Some(code),
        times,
        fields: &[],
        is_tap: false,
        is_served: false,
    }
}

fn upstream<'a>(connection: u64, path: &'a str, code: u16, times: [Nanos; 4]) -> Given<'a> {
    Given { side: Role::Upstream, ..client(connection, path, code, times) }
}

fn seen(given: &[Given<'_>]) -> Vec<Seen> {
    let address = |port: u32| Some(Address::Socket { address: "10.0.0.1".to_owned(), port: Some(port) });
    let exchange = |(number, given): (usize, &Given<'_>)| {
        let connection = HttpConnection {
            number: given.connection,
            trace_id: given.connection,
            began: None,
            role: given.side,
            source: address(1000 + given.connection as u32),
            destination: address(80),
            http_tap: given.is_tap,
            upstream: None,
            place: Place::default(),
        };
        let mut exchange = Exchange::new(Arc::new(connection), Place::default());
        exchange.method = Some(b"GET".to_vec());
        exchange.path = Some(given.path.as_bytes().to_vec());
        exchange.code = given.code;
        let [began, ended, first, last] = given.times;
        (exchange.request.began, exchange.request.ended) = (Some(began), Some(ended));
        if given.code.is_some() {
            (exchange.response.began, exchange.response.ended) = (Some(first), Some(last));
        }
        for (message, is_there) in [(&mut exchange.request, true), (&mut exchange.response, given.code.is_some())] {
            (message.complete, message.has_head) = (is_there, is_there);
        }
        given.fields.iter().for_each(|(name, value)| exchange.request.fields.push(name.as_bytes(), value.as_bytes()));
        if given.is_served {
            exchange.response.fields.push(b"x-envoy-upstream-service-time", b"1");
        }
        let id = ExchangeId { input: 0, number: number as u32 };
        Seen::of(id, &exchange, |address| Arc::new(address.clone()))
    };
    given.iter().enumerate().map(exchange).collect()
}

/// For each exchange with an upstream, the number of the one with a client, and how sure it is.
fn owners(given: &[Given<'_>], log: &[LoggedRequest]) -> Vec<Option<(u32, Certainty)>> {
    let pairs = Pairs::find(seen(given), log);
    let numbers = (0..given.len() as u32).filter(|number| given[*number as usize].side == Role::Upstream);
    numbers
        .map(|number| {
            let id = ExchangeId { input: 0, number };
            Some((pairs.owner(id)?.id.number, pairs.of(id).certainty?))
        })
        .collect()
}

#[test]
fn an_exchange_within_another_one_of_the_same_path_is_likely_its() {
    let given = [
        client(1, "/a", 200, [0, MS, 8 * MS, 9 * MS]),
        client(2, "/b", 200, [0, MS, 8 * MS, 9 * MS]),
        upstream(3, "/a", 200, [2 * MS, 2 * MS, 6 * MS, 7 * MS]),
        // It began before any client asked for it.
        upstream(4, "/b", 200, [20 * MS, 20 * MS, 21 * MS, 21 * MS]),
    ];
    assert_eq!(owners(&given, &[]), [Some((0, Certainty::Likely)), None]);
    let pairs = Pairs::find(seen(&given), &[]);
    let told = pairs.of(ExchangeId { input: 0, number: 0 });
    assert_eq!((told.request_latency, told.response_latency), (Some(2 * MS), Some(2 * MS)));
    assert_eq!((told.upstream_connection, told.attempts), (Some(3), Some(1)));
    assert_eq!(told.upstream_address.unwrap().to_string(), "10.0.0.1:80");
    assert_eq!(pairs.of(ExchangeId { input: 0, number: 1 }), Pairing::default());
}

#[test]
fn retries_belong_to_one_request_and_the_answer_is_the_last() {
    let given = [
        client(1, "/a", 200, [0, 0, 30 * MS, 30 * MS]),
        upstream(2, "/a", 503, [MS, MS, 2 * MS, 2 * MS]),
        Given { code: None, ..upstream(3, "/a", 0, [10 * MS, 10 * MS, 0, 0]) },
        upstream(4, "/a", 200, [20 * MS, 20 * MS, 29 * MS, 29 * MS]),
    ];
    assert_eq!(owners(&given, &[]), [Some((0, Certainty::Likely)); 3]);
    let told = Pairs::find(seen(&given), &[]).of(ExchangeId { input: 0, number: 0 });
    assert_eq!((told.attempts, told.upstream_connection), (Some(3), Some(4)));
    assert_eq!((told.request_latency, told.response_latency), (Some(MS), Some(MS)));
}

#[test]
fn what_two_answers_fit_is_not_forced() {
    // Both requests went in before both went out, and the responses in the other order.
    let given = [
        client(1, "/a", 200, [0, 0, 30 * MS, 30 * MS]),
        client(2, "/a", 200, [0, 0, 30 * MS, 30 * MS]),
        upstream(3, "/a", 200, [MS, MS, 20 * MS, 20 * MS]),
        upstream(4, "/a", 200, [MS, MS, 20 * MS, 20 * MS]),
    ];
    assert_eq!(owners(&given, &[]), [None, None]);
    // The log knows.
    let log = |connection, upstream| {
        LoggedRequest {
            connection_id: Some(connection),
            upstream_connection_id: Some(upstream),
            start: Some((0, MS)),
            ..LoggedRequest::default()
        }
        .with(None, Some((b"GET", b"/a")), None)
    };
    let certain = |client| Some((client, Certainty::Certain));
    assert_eq!(owners(&given, &[log(1, 4), log(2, 3)]), [certain(1), certain(0)]);
}

#[test]
fn an_id_makes_it_certain_whatever_the_path() {
    let id = [("x-request-id", "0f5a3f0e-6d1c-4f2b-9d3e-1b2c3d4e5f60")];
    // Envoy writes into one digit whether the request is traced.
    let traced = [("X-Request-Id", "0f5a3f0e-6d1c-9f2b-9d3e-1b2c3d4e5f60")];
    let given = [
        Given { fields: &id, ..client(1, "/a", 200, [0, 0, 9 * MS, 9 * MS]) },
        Given { fields: &traced, ..upstream(2, "/rewritten", 200, [MS, MS, 8 * MS, 8 * MS]) },
        // The same id an hour later is another request's.
        Given { fields: &id, ..upstream(2, "/rewritten", 200, [3600 * MS, 3600 * MS, 3600 * MS, 3600 * MS]) },
    ];
    assert_eq!(owners(&given, &[]), [Some((0, Certainty::Certain)), None]);
}

#[test]
fn an_id_that_passes_an_envoy_twice_belongs_to_the_inner_exchange() {
    let id = [("x-request-id", "one")];
    let given = [
        Given { fields: &id, ..client(1, "/a", 200, [0, 0, 90 * MS, 90 * MS]) },
        Given { fields: &id, ..upstream(2, "/a", 200, [10 * MS, 10 * MS, 80 * MS, 80 * MS]) },
        Given { fields: &id, ..client(3, "/a", 200, [20 * MS, 20 * MS, 70 * MS, 70 * MS]) },
        Given { fields: &id, ..upstream(4, "/a", 200, [30 * MS, 30 * MS, 60 * MS, 60 * MS]) },
    ];
    assert_eq!(owners(&given, &[]), [Some((0, Certainty::Certain)), Some((2, Certainty::Certain))]);
    // Without the first exchange with an upstream, nobody knows whose the last is.
    let given = [0, 2, 3].map(|index: usize| Given { fields: &id, ..given_of(&given[index]) });
    assert_eq!(owners(&given, &[]).iter().flatten().filter(|(_, of)| *of == Certainty::Certain).count(), 0);
}

#[test]
fn two_envoys_are_told_apart_by_the_connection_between_them() {
    let id = [("x-request-id", "one")];
    // Each notes its own times: the second has read before the first has noted what it wrote, and ends later.
    let mut exchanges = seen(&[
        Given { fields: &id, ..client(1, "/a", 200, [0, 0, 90, 90]) },
        Given { fields: &id, ..upstream(2, "/a", 200, [21, 21, 70, 70]) },
        Given { fields: &id, ..client(3, "/a", 200, [20, 20, 71, 95]) },
        Given { fields: &id, ..upstream(4, "/a", 200, [30, 30, 60, 60]) },
    ]);
    let certain = |client| Some((client, Certainty::Certain));
    let owners = |exchanges: Vec<Seen>| {
        let pairs = Pairs::find(exchanges, &[]);
        [1, 3].map(|number| {
            let id = ExchangeId { input: 0, number };
            Some((pairs.owner(id)?.id.number, pairs.of(id).certainty?))
        })
    };
    assert_ne!(owners(exchanges.clone()), [certain(0), certain(2)]);
    (exchanges[2].ends, exchanges[2].destination) = (exchanges[1].ends, exchanges[1].destination);
    (exchanges[0].destination, exchanges[3].destination) = (Some(1), Some(2));
    assert_eq!(owners(exchanges), [certain(0), certain(2)]);
}

#[test]
fn a_client_that_sends_a_request_twice_with_one_id_makes_nothing_certain() {
    let id = [("x-request-id", "one")];
    let dead = Given { code: None, ..upstream(3, "/a", 0, [5, 5, 0, 0]) };
    let given = [
        Given { fields: &id, ..client(1, "/a", 200, [0, 0, 40, 40]) },
        Given { fields: &id, ..client(2, "/a", 200, [10, 10, 35, 35]) },
        Given { fields: &id, ..dead },
        Given { fields: &id, ..upstream(4, "/a", 200, [11, 11, 34, 34]) },
        // The first one's second attempt.
        Given { fields: &id, ..upstream(5, "/a", 200, [31, 31, 39, 39]) },
    ];
    let told = owners(&given, &[]);
    assert_ne!(told[2], Some((1, Certainty::Certain)));
    assert!(told[1].is_none_or(|(client, _)| client == 1));
    assert!(told[2].is_none_or(|(client, _)| client == 0));
}

#[test]
fn a_line_of_the_log_does_not_name_what_began_after_its_connection_was_closed() {
    let given = [
        Given { code: None, ..client(5, "/a", 0, [0, 0, 0, 0]) },
        // Envoy has counted connections anew since.
        upstream(7, "/other", 200, [3600 * MS, 3600 * MS, 3601 * MS, 3601 * MS]),
        upstream(7, "/a", 200, [3602 * MS, 3602 * MS, 3603 * MS, 3603 * MS]),
    ];
    let mut exchanges = seen(&given);
    exchanges[0].closed = Some(41 * MS);
    let line = logged(5, 7, "/a", (0, MS));
    let pairs = Pairs::find(exchanges, &[line]);
    assert_eq!(pairs.line(ExchangeId { input: 0, number: 0 }), Some(0));
    assert!((1..3).all(|number| pairs.owner(ExchangeId { input: 0, number }).is_none()));
    // Of another path, it is not certain either, before.
    let given = [client(5, "/a", 200, [0, 0, 9, 9]), upstream(7, "/other", 404, [1, 1, 8, 8])];
    assert_eq!(owners(&given, &[line]), [None]);
}

#[test]
fn a_copy_of_a_request_is_no_attempt() {
    let id = [("x-request-id", "one")];
    // Its host does not say that it is one, and it began in the same turn.
    let given = [
        Given { fields: &id, is_served: true, ..client(1, "/a", 200, [0, 0, 90, 90]) },
        Given { fields: &id, ..upstream(2, "/a", 200, [10, 10, 70, 70]) },
        Given { fields: &id, ..upstream(3, "/a", 200, [11, 11, 60, 60]) },
    ];
    let told = |log: &[LoggedRequest]| {
        let told = Pairs::find(seen(&given), log).of(ExchangeId { input: 0, number: 0 });
        (told.certainty, told.upstream_connection, told.attempts, told.request_latency, told.response_latency)
    };
    let certain = Some(Certainty::Certain);
    assert_eq!(told(&[]), (certain, None, None, None, None));
    assert_eq!(told(&[logged(1, 2, "/a", (0, 1))]), (certain, Some(2), None, None, Some(20)));
    // A quick copy may be answered before the request has gone out. Nobody tries again after success.
    let quick = [given_of(&given[0]), Given { times: [1, 1, 5, 5], ..given_of(&given[2]) }, given_of(&given[1])];
    let told = Pairs::find(seen(&quick), &[]).of(ExchangeId { input: 0, number: 0 });
    assert_eq!((told.certainty, told.upstream_connection, told.attempts), (certain, None, None));
    // Nobody has waited for the copy's response.
    let late = [given_of(&given[0]), given_of(&given[1]), Given { times: [11, 11, 95, 95], ..given_of(&given[2]) }];
    let told = Pairs::find(seen(&late), &[]).of(ExchangeId { input: 0, number: 0 });
    assert_eq!((told.upstream_connection, told.attempts, told.request_latency), (Some(2), Some(1), Some(10)));
}

fn given_of<'a>(given: &Given<'a>) -> Given<'a> {
    Given { fields: given.fields, ..*given }
}

#[test]
fn a_constant_id_of_a_client_joins_nothing_wrong() {
    let id = [("x-request-id", "0")];
    let paths: Vec<String> = (0..200).map(|number| format!("/{number}")).collect();
    let given: Vec<Given<'_>> = paths
        .iter()
        .enumerate()
        .flat_map(|(number, path)| {
            let number = number as u64;
            [
                Given { fields: &id, ..client(number, path, 200, [number, number, 90 * MS, 90 * MS]) },
                Given { fields: &id, ..upstream(1000 + number, path, 200, [MS, MS, 80 * MS, 80 * MS]) },
            ]
        })
        .collect();
    for (number, owner) in owners(&given, &[]).into_iter().enumerate() {
        assert_eq!(owner.map(|(client, _)| client), Some(2 * number as u32));
    }
}

/// The log's line of a GET.
fn logged(connection: u64, upstream: u64, path: &str, start: (Nanos, Nanos)) -> LoggedRequest {
    LoggedRequest {
        connection_id: Some(connection),
        upstream_connection_id: Some(upstream),
        start: Some(start),
        ..LoggedRequest::default()
    }
    .with(None, Some((b"GET", path.as_bytes())), None)
}

#[test]
fn of_two_identical_requests_at_the_same_time_the_nearer_one_is_no_better() {
    // Envoy kept their order, so that each is nearer to the other's exchange with an upstream (from a real trace, in us).
    let given = [
        client(1, "/a", 200, [80_893, 80_893, 81_712, 81_712]),
        client(2, "/a", 200, [81_013, 81_013, 81_687, 81_687]),
        upstream(3, "/a", 200, [81_105, 81_105, 81_618, 81_618]),
        upstream(4, "/a", 200, [81_115, 81_115, 81_474, 81_474]),
    ];
    assert_eq!(owners(&given, &[]), [None, None]);
}

#[test]
fn the_log_tells_identical_requests_of_one_connection_apart() {
    // %START_TIME% is some microseconds after the first byte.
    let given: Vec<Given<'_>> = (0..50)
        .flat_map(|number| {
            let began = number * 200_000;
            let (client_times, times) = ([0, 0, 90, 95], [20, 20, 80, 85]);
            [
                client(1, "/a", 200, client_times.map(|time| began + time * 1000)),
                upstream(2 + number % 2, "/a", 200, times.map(|time| began + time * 1000)),
            ]
        })
        .collect();
    let log: Vec<LoggedRequest> =
        (0..50).map(|number| logged(1, 2 + number % 2, "/a", (number * 200_000 + 7_000, 1000))).collect();
    for (number, owner) in owners(&given, &log).into_iter().enumerate() {
        assert_eq!(owner, Some((2 * number as u32, Certainty::Certain)));
    }
    let pairs = Pairs::find(seen(&given), &log);
    let lines = (0..100).map(|number| pairs.line(ExchangeId { input: 0, number }));
    assert!(lines.eq((0..100).map(|number| Some(number / 2))));
    // Whose time is so coarse tells nothing of two within its unit.
    let coarse = [logged(1, 2, "/a", (0, MS)), logged(1, 3, "/a", (0, MS))];
    assert_eq!(Pairs::find(seen(&given[..4]), &coarse).line(ExchangeId { input: 0, number: 0 }), None);
}

#[test]
fn a_changed_path_is_known_by_the_one_before() {
    let before = [("x-envoy-original-path", "/a")];
    let redirected = [("x-envoy-original-url", "http://example.com/a")];
    let given = [
        client(1, "/a", 200, [0, 0, 30 * MS, 30 * MS]),
        client(2, "/b", 200, [0, 0, 30 * MS, 30 * MS]),
        Given { fields: &before, ..upstream(3, "/b", 302, [MS, MS, 2 * MS, 2 * MS]) },
        Given { fields: &redirected, ..upstream(4, "/c", 200, [3 * MS, 3 * MS, 20 * MS, 20 * MS]) },
    ];
    assert_eq!(owners(&given, &[]), [Some((0, Certainty::Likely)); 2]);
    let told = Pairs::find(seen(&given), &[]).of(ExchangeId { input: 0, number: 0 });
    assert_eq!((told.attempts, told.upstream_connection), (Some(2), Some(4)));
    // A buffered trace of the HTTP tap filter has the changed path itself.
    let tap = Given { fields: &before, is_tap: true, ..client(1, "/b", 302, [0, 0, 30 * MS, 30 * MS]) };
    assert_eq!(owners(&[tap, given_of(&given[2])], &[]), [Some((0, Certainty::Likely))]);
    // A client that says so to a listener has not sent it there.
    let spoofed = Given { fields: &before, ..client(1, "/b", 302, [0, 0, 30 * MS, 30 * MS]) };
    assert_eq!(owners(&[spoofed, given_of(&given[2])], &[]), [Some((0, Certainty::Likely))]);
}

#[test]
fn a_request_that_envoy_begins_anew_is_two_of_the_http_tap() {
    let id = [("x-request-id", "one")];
    let redirected = [("x-request-id", "one"), ("x-envoy-original-url", "http://example.com/a")];
    let given = [
        Given { fields: &id, is_tap: true, code: None, ..client(1, "/a", 0, [0, 0, 0, 0]) },
        Given { fields: &redirected, is_tap: true, ..client(2, "/b", 200, [30, 30, 90, 90]) },
        Given { fields: &id, ..upstream(3, "/a", 302, [10, 10, 20, 20]) },
        Given { fields: &redirected, ..upstream(3, "/b", 200, [40, 40, 80, 80]) },
    ];
    let certain = |client| Some((client, Certainty::Certain));
    assert_eq!(owners(&given, &[]), [certain(0), certain(1)]);
}

#[test]
fn a_failed_attempt_of_one_of_two_requests_is_no_answer_of_the_other() {
    let given = [
        client(1, "/a", 503, [0, 0, 100 * MS, 100 * MS]),
        client(2, "/a", 200, [5 * MS, 5 * MS, 200 * MS, 200 * MS]),
        upstream(3, "/a", 503, [MS, MS, 99 * MS, 99 * MS]),
        // The second request's, which was tried again.
        upstream(4, "/a", 503, [6 * MS, 6 * MS, 60 * MS, 60 * MS]),
        upstream(5, "/a", 200, [70 * MS, 70 * MS, 199 * MS, 199 * MS]),
    ];
    let likely = |client| Some((client, Certainty::Likely));
    assert_eq!(owners(&given, &[]), [likely(0), None, likely(1)]);
    let pairs = Pairs::find(seen(&given), &[]);
    // The one whose response the first client got is not known, and neither is the number of either one's attempts.
    let first = pairs.of(ExchangeId { input: 0, number: 0 });
    assert_eq!((first.upstream_connection, first.attempts), (None, None));
    let second = pairs.of(ExchangeId { input: 0, number: 1 });
    assert_eq!((second.upstream_connection, second.attempts, second.request_latency), (Some(5), None, None));
}

#[test]
fn one_of_too_few_or_too_many_is_not_picked() {
    let both = [client(1, "/a", 200, [0, 0, 9 * MS, 9 * MS]), client(2, "/a", 200, [0, 0, 9 * MS, 9 * MS])];
    let answer = |connection| upstream(connection, "/a", 200, [MS, MS, 8 * MS, 8 * MS]);
    // The tap of one upstream is missing.
    assert_eq!(owners(&[given_of(&both[0]), given_of(&both[1]), answer(3)], &[]), [None]);
    // A mirrored copy whose host does not say so (disable_shadow_host_suffix_append), or another client's request.
    assert_eq!(owners(&[given_of(&both[0]), answer(3), answer(4)], &[]), [None, None]);
}

#[test]
fn a_long_chain_of_overlapping_identical_requests_is_told_apart() {
    // Each response goes in before the next request ends, and only the first one has one candidate.
    let count = 20_000;
    let times =
        |number: u64, begin, end| [10 * number + begin, 10 * number + begin, 10 * number + end, 10 * number + end];
    let clients = (0..count).map(|number| client(number, "/a", 200, times(number, 0, 19)));
    // Each but the first begins while two requests are open.
    let upstreams = (0..count).map(|number| match number {
        0 => upstream(count, "/a", 200, [1, 1, 18, 18]),
        _ => upstream(count + number, "/a", 200, times(number, 1, 8)),
    });
    let given: Vec<Given<'_>> = clients.chain(upstreams).collect();
    let told = owners(&given, &[]);
    assert!(told.iter().enumerate().all(|(number, owner)| *owner == Some((number as u32, Certainty::Likely))));
}

/// What happened to a request, as a model of Envoy makes it up.
#[derive(Clone, Debug)]
struct Story {
    began: Nanos,
    path: usize,
    /// How long after the one before each attempt begins, how long it takes, and what becomes of it.
    attempts: Vec<(Nanos, Nanos, Fate)>,
    /// How long Envoy takes to pass on the answer.
    passes_on_after: Nanos,
    has_id: bool,
    is_logged: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Envoy tries again or, after the last attempt, passes it on.
    Fails,
    Succeeds,
    /// It is not answered. After the last attempt, Envoy answers by itself.
    Dies,
    /// Envoy begins the next attempt without waiting for this one, which succeeds.
    Hedged,
}

fn stories() -> impl Strategy<Value = Vec<Story>> {
    let fate =
        prop_oneof![3 => Just(Fate::Succeeds), 3 => Just(Fate::Fails), 1 => Just(Fate::Dies), 1 => Just(Fate::Hedged)];
    let attempts = proptest::collection::vec((0..6_u64, 0..20_u64, fate), 0..4);
    let story =
        (0..80_u64, 0..2_usize, attempts, 0..5_u64, proptest::bool::weighted(0.2), proptest::bool::weighted(0.3));
    let story = story.prop_map(|(began, path, attempts, passes_on_after, has_id, is_logged)| Story {
        began,
        path,
        attempts,
        passes_on_after,
        has_id,
        is_logged,
    });
    proptest::collection::vec(story, 1..14)
}

/// What the taps record of a request, and which exchange with an upstream the client got its response of.
struct Played<'a> {
    client: Given<'a>,
    upstreams: Vec<Given<'a>>,
    answer: Option<usize>,
}

fn played<'a>(number: u64, story: &Story, fields: &'a [(&'a str, &'a str)], shared: u64) -> Played<'a> {
    let path = ["/a", "/b"][story.path];
    let connection = |attempt: usize| 1000 + (10 * number + attempt as u64) % shared;
    let (mut upstreams, mut answer, mut now): (Vec<Given<'a>>, Option<(Nanos, usize)>, Nanos) =
        (Vec::new(), None, story.began);
    for (attempt, (wait, takes, fate)) in story.attempts.iter().enumerate() {
        let began = now + wait;
        if answer.is_some_and(|(at, _)| at <= began) {
            break;
        }
        let ended = began + takes;
        let code = [None, Some(503), Some(200)]
            [usize::from(*fate != Fate::Dies) + usize::from(matches!(fate, Fate::Succeeds | Fate::Hedged))];
        let given = upstream(connection(attempt), path, 0, [began, began, ended, ended]);
        upstreams.push(Given { code, fields, ..given });
        match fate {
            Fate::Hedged => {
                answer = answer.min(Some((ended, attempt))).or(Some((ended, attempt)));
                now = began;
            }
            Fate::Succeeds => {
                answer = answer.min(Some((ended, attempt))).or(Some((ended, attempt)));
                break;
            }
            Fate::Fails | Fate::Dies => now = ended,
        }
    }
    // Envoy resets whatever is not answered when the client's answer is known.
    if let Some((at, winner)) = answer {
        for (attempt, upstream) in upstreams.iter_mut().enumerate() {
            if attempt != winner && upstream.times[2] >= at {
                upstream.code = None;
            }
        }
    }
    let last = upstreams.len().checked_sub(1);
    let answer = answer.map(|(_, attempt)| attempt).or(last.filter(|last| upstreams[*last].code.is_some()));
    let code = answer.map_or(503, |answer| upstreams[answer].code.unwrap_or(503));
    let answered = answer.map_or(now, |answer| upstreams[answer].times[2]) + story.passes_on_after;
    let client = Given {
        fields,
        is_served: answer.is_some(),
        ..client(number, path, code, [story.began, story.began, answered, answered])
    };
    Played { client, upstreams, answer }
}

proptest! {
    #[test]
    fn pairs_nest_in_time_and_agree_in_both_directions(
        times in proptest::collection::vec((0..50_u64, 0..50_u64, 0..3_usize, any::<bool>(), 0..3_usize), 0..60),
    ) {
        let paths = ["/a", "/b", "/c"];
        let ids: [&[(&str, &str)]; 3] = [&[], &[("x-request-id", "one")], &[("x-request-id", "two")]];
        let given: Vec<Given<'_>> = times
            .iter()
            .enumerate()
            .map(|(number, (began, length, path, is_client, id))| {
                let times = [*began, *began, began + length, began + length];
                let side = if *is_client { Role::Downstream } else { Role::Upstream };
                Given { side, fields: ids[*id], ..client(number as u64, paths[*path], 200, times) }
            })
            .collect();
        let pairs = Pairs::find(seen(&given), &[]);
        let mut attempts = 0;
        for (number, given) in given.iter().enumerate() {
            let id = ExchangeId { input: 0, number: number as u32 };
            if given.side == Role::Upstream && let Some(owner) = pairs.owner(id) {
                prop_assert!(owner.spans(given.times[0]));
                prop_assert!(pairs.attempts(owner.id).iter().any(|attempt| attempt.id == id));
            }
            attempts += pairs.attempts(id).len();
        }
        prop_assert!(attempts <= given.iter().filter(|given| given.side == Role::Upstream).count());
    }

    #[test]
    fn nothing_wrong_is_told_of_what_envoy_may_do(
        stories in stories(),
        (shared, unit, clients) in (1..60_u64, 1..8_u64, 1..20_u64),
    ) {
        let ids: Vec<String> = (0..stories.len()).map(|number| format!("id-{number}")).collect();
        let fields: Vec<Vec<(&str, &str)>> = stories
            .iter()
            .zip(&ids)
            .map(|(story, id)| if story.has_id { vec![("x-request-id", id.as_str())] } else { vec![] })
            .collect();
        let (mut given, mut owner_of, mut log, mut truths) = (Vec::new(), HashMap::new(), Vec::new(), Vec::new());
        for (number, story) in stories.iter().enumerate() {
            let mut played = played(number as u64, story, &fields[number], shared);
            played.client.connection = number as u64 % clients;
            let client = given.len() as u32;
            for (attempt, _) in played.upstreams.iter().enumerate() {
                owner_of.insert(client + 1 + attempt as u32, client);
            }
            let named = played.answer.or(played.upstreams.len().checked_sub(1)).map(|attempt| played.upstreams[attempt].connection);
            if story.is_logged {
                let start = (story.began / unit * unit, unit);
                let of_upstream = logged(played.client.connection, 0, played.client.path, start);
                log.push(LoggedRequest { upstream_connection_id: named, ..of_upstream });
            }
            let began = played.upstreams.iter().map(|upstream| upstream.times[0]).min();
            truths.push((client, named, began.map(|began| began - story.began), played.upstreams.len() as u64));
            given.push(played.client);
            given.extend(played.upstreams);
        }
        let pairs = Pairs::find(seen(&given), &log);
        for (upstream, owner) in &owner_of {
            if let Some(told) = pairs.owner(ExchangeId { input: 0, number: *upstream }) {
                prop_assert_eq!(told.id.number, *owner, "of exchange {} among {:?}", upstream, stories);
            }
        }
        for (client, named, latency, attempts) in truths {
            let told = pairs.of(ExchangeId { input: 0, number: client });
            prop_assert!(told.upstream_connection.is_none() || told.upstream_connection == named, "answer of {}", client);
            prop_assert!(told.request_latency.is_none() || told.request_latency == latency, "latency of {}", client);
            prop_assert!(told.attempts.is_none() || told.attempts == Some(attempts), "attempts of {}", client);
        }
    }
}
