//! `http --stats`: requests counted by route.

use serde_json::Value;

use crate::{
    fixture::{self, Dress, closed, read, streamed, write},
    manifest::{samples, socket_samples},
    util::{Dir, tap2pcap},
};

#[test]
fn routes_have_counts_errors_and_percentiles() {
    let dir = Dir::new("routes");
    let mut events = Vec::new();
    for number in 0..100_u64 {
        let start = 1_000_000_000 * (number + 1);
        let request = format!("GET /users/{number}/orders?page={number} HTTP/1.1\r\nhost: shop.example\r\n\r\n");
        events.push(read(start, request.as_bytes()));
        let code = if number % 10 == 0 { 503 } else { 200 };
        let response = format!("HTTP/1.1 {code} X\r\ncontent-length: 4\r\n\r\nbody");
        // 1 ms to 100 ms.
        events.push(write(start + (number + 1) * 1_000_000, response.as_bytes()));
    }
    events.push(closed(1_000_000_000_000));
    let trace = dir.create("a.pb_length_delimited", Dress::Delimited.file(&streamed(1, fixture::downstream(), events)));
    let stats = |options: &[&str]| {
        let run = tap2pcap().args(&["http", "--stats"]).args(options).arg(&trace).run().expect_status(0);
        run.stdout_text().to_owned()
    };
    let lines: Vec<Value> = stats(&["--json"]).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [route] = lines.as_slice() else { panic!("{lines:?}") };
    assert_eq!((route["host"].as_str(), route["route"].as_str()), (Some("shop.example"), Some("/users/{id}/orders")));
    assert_eq!((route["count"].as_u64(), route["errors"].as_u64()), (Some(100), Some(10)));
    assert_eq!((route["sent"].as_u64(), route["received"].as_u64()), (Some(0), Some(400)));
    for (name, truth) in [("p50", 0.050), ("p95", 0.095), ("p99", 0.099), ("max", 0.100)] {
        let seconds: f64 = route[name].as_str().unwrap().trim_end_matches('s').parse().unwrap();
        assert!((seconds - truth).abs() < truth / 100.0, "{name}: {seconds}");
    }
    assert!(stats(&[]).contains("shop.example/users/{id}/orders"), "{}", stats(&[]));
    // Only what matches is counted, also where the end of the connection decides.
    for filter in ["response.code >= 500", "response.code >= 500 && connection.sent_bytes > 0"] {
        let line: Value = serde_json::from_str(&stats(&["--json", "--where", filter])).unwrap();
        assert_eq!((line["count"].as_u64(), line["errors"].as_u64()), (Some(10), Some(10)), "{filter}");
    }
    assert_eq!(stats(&["--json", "--where", "response.code == 404"]), "");
    tap2pcap().args(&["http", "--stats", "--sort", "request.path"]).arg(&trace).run().expect_status(2);
}

#[test]
fn the_statistics_are_those_of_the_listed_exchanges_whatever_the_jobs() {
    let all = [samples(), socket_samples()].concat();
    let run = |options: &[&str]| {
        let command = tap2pcap().args(&["http", "-q", "--json"]).args(options);
        all.iter().fold(command, |command, sample| command.arg(&sample.path)).run().stdout
    };
    let one = run(&["--stats", "-j", "1"]);
    assert_eq!(one, run(&["--stats", "-j", "4"]));
    let lines = |bytes: &[u8]| -> Vec<Value> {
        String::from_utf8_lossy(bytes).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let (routes, exchanges) = (lines(&one), lines(&run(&[])));
    assert!(routes.is_sorted_by_key(|route| route["count"].as_u64()));
    let sum = |name: &str| routes.iter().map(|route| route[name].as_u64().unwrap()).sum::<u64>();
    assert_eq!(sum("count"), exchanges.len() as u64);
    let size = |exchange: &Value| exchange["response"]["size"].as_u64().unwrap_or(0);
    assert_eq!(sum("received"), exchanges.iter().map(size).sum::<u64>());
}
