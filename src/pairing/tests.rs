use std::sync::Arc;

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
}

fn client<'a>(connection: u64, path: &'a str, code: u16, times: [Nanos; 4]) -> Given<'a> {
    Given { side: Role::Downstream, connection, path, code: Some(code), times, fields: &[] }
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
            http_tap: false,
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
    let log = |connection, upstream| LoggedRequest {
        connection_id: Some(connection),
        upstream_connection_id: Some(upstream),
        target: Some((b"GET".to_vec(), b"/a".to_vec())),
        start: Some((0, MS)),
        ..LoggedRequest::default()
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
}
