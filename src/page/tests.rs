//! The page of extreme and of hostile data.

use super::{view::SCRIPT, view::STYLE, *};

const HOSTILE: &str = "</script><!--<script>alert(1)</script>\"'\u{202e}\0<img src=x onerror=alert(1)>";

fn html(page: &Page) -> String {
    let mut out = Vec::new();
    write(page, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn an_empty_page_is_whole() {
    let html = html(&Page::default());
    assert!(html.starts_with("<!doctype html>") && html.trim_end().ends_with("</html>"));
    assert!(html.contains("No request has a time."));
}

#[test]
fn a_request_of_which_nothing_is_known_has_a_row() {
    let request = Request { connection: Some(7), route: Some(9), detail: Some(3), ..Request::default() };
    let page = Page {
        requests: vec![request.clone(), Request { time: Some(u64::MAX), duration: Some(u64::MAX), ..request }],
        details: vec![Detail::default(), Detail { request: 99, ..Detail::default() }],
        routes: vec![Route { histogram: vec![0, 1], ..Route::default() }],
        activity: Activity { start: u64::MAX, width: u64::MAX, bins: vec![ActivityBin::default(); 2] },
        ..Page::default()
    };
    assert!(html(&page).contains("no response"));
}

#[test]
fn hostile_text_stays_text() {
    let text = || HOSTILE.to_owned();
    let request = Request { method: text(), host: text(), path: text(), origin_reason: text(), ..Request::default() };
    let request = Request { failed: true, detail: Some(0), time: Some(1), connection: Some(0), ..request };
    let bytes = || HOSTILE.as_bytes().to_vec();
    let message = Message { line: bytes(), fields: vec![(bytes(), bytes())], ..Message::default() };
    let message = Message { body: Body { shown: bytes(), size: Some(1), note: text() }, ..message };
    let exchange = Exchange { request: Some(message.clone()), response: Some(message) };
    let page = Page {
        title: text(),
        filter: Some(text()),
        redacted: Some(text()),
        files: vec![text()],
        requests: vec![request],
        connections: vec![Connection { source: text(), note: text(), ..Connection::default() }],
        routes: vec![Route { method: text(), host: text(), route: text(), ..Route::default() }],
        details: vec![Detail {
            exchange,
            commands: vec![Command { label: text(), text: text() }],
            ..Detail::default()
        }],
        findings: vec![Finding {
            severity: crate::trace::Severity::Error,
            code: text(),
            file: text(),
            place: text(),
            text: text(),
            count: 1,
        }],
        list_command: text(),
        ..Page::default()
    };
    let html = html(&page);
    // The page's own two script elements are all there are.
    assert_eq!((html.matches("<script").count(), html.matches("</script").count()), (2, 2));
    assert!(!html.contains("<img") && !html.contains("<!--") && !html.contains('\u{202e}') && !html.contains('\0'));
}

#[test]
fn script_and_style_do_not_end_their_elements() {
    assert!(!SCRIPT.contains("</") && !SCRIPT.contains("<!--") && !SCRIPT.contains("innerHTML"));
    assert!(!STYLE.contains("</") && !STYLE.contains("@import"));
}

#[test]
fn the_same_data_give_the_same_page() {
    let page = Page { requests: vec![Request::default(); 3], ..Page::default() };
    assert_eq!(html(&page), html(&page));
}

/// A page of many requests, hostile ones among them.
fn sample(requests: u64) -> Page {
    const MILLI: u64 = 1_000_000;
    let start = 1_767_268_800_123_456_789;
    let paths = ["/api/orders", "/api/orders/81724/items", "/assets/app.js", "/login", "/search?q=kettle&page=2"];
    let request = |index: u64| {
        let wait = (index * 7919 % 97 + 3) * MILLI / 2 * if index % 41 == 5 { 12 } else { 1 };
        let failed = index % 17 == 3;
        let duration = wait + 6 * MILLI;
        let attempt = |begin: u64, code| Attempt {
            begin: Some(begin as i64),
            duration: Some(wait / 2),
            code,
            address: "10.2.0.7:8080".to_owned(),
            connection_id: 900 + index % 4,
            complete: code.is_some(),
            ..Attempt::default()
        };
        Request {
            time: Some(start + index * 9 * MILLI),
            duration: Some(duration),
            method: if index % 3 == 0 { "POST" } else { "GET" }.to_owned(),
            host: "shop.example".to_owned(),
            path: if index % 29 == 7 {
                format!("/{HOSTILE}?{index}")
            } else {
                format!("{}#{index}", paths[index as usize % 5])
            },
            protocol: "http/1.1".to_owned(),
            code: if failed {
                [Some(503), Some(504), None][index as usize % 3]
            } else {
                Some([200, 304, 404][(index % 19 / 9) as usize])
            },
            failed,
            origin: failed
                .then(|| [Origin::Client, Origin::Envoy, Origin::Upstream, Origin::Unknown][index as usize % 4]),
            origin_reason: if failed { "the upstream answered with this status".to_owned() } else { String::new() },
            complete: index % 13 != 0,
            sent: Some(index * 31 % 4096),
            received: Some(index * 7919 % 200_000),
            side: Some(Side::Downstream),
            connection: Some((index / 12 % 40) as usize),
            offset: index * 512,
            connection_id: index / 12 % 40,
            parts: Parts {
                request_end: Some(MILLI),
                upstream_begin: Some(2 * MILLI),
                upstream_first_byte: Some(2 * MILLI + wait),
                response_begin: Some(3 * MILLI + wait),
                response_end: Some(duration),
            },
            request_latency: Some(2 * MILLI),
            response_latency: Some(MILLI),
            pairing: Some([Pairing::Certain, Pairing::Likely][(index % 9 / 8) as usize]),
            attempts: if failed {
                vec![attempt(2 * MILLI, None), attempt(2 * MILLI + wait / 2, Some(503))]
            } else {
                vec![attempt(2 * MILLI, Some(200))]
            },
            detail: (failed && index < 400).then_some((index / 17) as usize),
            route: Some(index as usize % 5),
            ..Request::default()
        }
    };
    let rows: Vec<_> = (0..requests).map(request).collect();
    let failed = rows.iter().filter(|row| row.failed).count() as u64;
    let message = |line: &str, body: Vec<u8>| Message {
        line: line.as_bytes().to_vec(),
        fields: vec![(b"content-type".to_vec(), b"text/html".to_vec()), (b"x-hostile".to_vec(), HOSTILE.into())],
        body: Body { size: Some(body.len() as u64), shown: body, note: String::new() },
        ..Message::default()
    };
    let details = rows.iter().enumerate().filter(|(_, row)| row.detail.is_some()).map(|(index, row)| Detail {
        request: index,
        slow: row.duration > Some(200 * MILLI),
        failed: true,
        exchange: Exchange {
            request: Some(message("POST /api/orders HTTP/1.1", b"{\"item\": 7}\n".to_vec())),
            response: Some(message(
                "HTTP/1.1 503 Service Unavailable",
                if index % 2 == 0 { HOSTILE.into() } else { (0..=255).collect() },
            )),
        },
        commands: vec![Command {
            label: "Open the connection in Wireshark".to_owned(),
            text: "tap2pcap open --where 'connection.id == 4u && request.path == \"/api/orders\"' traces/".to_owned(),
        }],
        ..Detail::default()
    });
    let connection = |id: u64| Connection {
        id,
        side: Some(Side::Downstream),
        source: format!("10.1.0.{id}:50{id:03}"),
        destination: "10.0.0.1:443".to_owned(),
        protocol: "http/1.1".to_owned(),
        begin: Some(start + id * MILLI),
        end: Some(start + 5000 * MILLI),
        sent: 4096 * id,
        received: 99_999 * id,
        requests: 12,
        ..Connection::default()
    };
    let route = |index: usize| Route {
        method: "GET".to_owned(),
        host: "shop.example".to_owned(),
        route: paths[index].to_owned(),
        count: requests / 5,
        failed: failed / 5,
        p50: Some(25 * MILLI),
        p95: Some(60 * MILLI),
        p99: Some((200 + index as u64) * MILLI),
        max: Some(600 * MILLI),
        sent: 99_999,
        received: 12_345_678,
        histogram: (0..21)
            .map(|bin| if (4..18).contains(&bin) { (bin * 37 + index as u64 * 11) % 40 } else { 0 })
            .collect(),
    };
    let bin = |index: u64| ActivityBin {
        ok: index * 7 % 13 + 4,
        client_error: index % 3,
        failed: u64::from(index % 7 == 2) * 2,
    };
    Page {
        title: "traces of shop.example".to_owned(),
        version: "tap2pcap 0.1.0".to_owned(),
        summary: Summary {
            inputs: 2,
            damaged_inputs: 1,
            requests,
            failed,
            connections: 40,
            first: Some(start),
            last: Some(start + requests * 9 * MILLI),
            bytes_sent: 613_000,
            bytes_received: 30_000_000,
            p50: Some(31 * MILLI),
            p95: Some(290 * MILLI),
            p99: Some(500 * MILLI),
            max: Some(606 * MILLI),
            paired: Some(PairCounts { certain: requests * 8 / 9, likely: requests / 9, none: 0 }),
            origins: vec![
                (Origin::Client, 2),
                (Origin::Envoy, 5),
                (Origin::Upstream, failed.saturating_sub(8)),
                (Origin::Unknown, 1),
            ],
        },
        files: vec!["traces/downstream.pb".to_owned(), HOSTILE.to_owned()],
        requests_total: requests,
        connections: (0..40).map(connection).collect(),
        connections_total: 40,
        routes: (0..5).map(route).collect(),
        routes_total: 5,
        duration_edges: (0..20).map(|bin| MILLI << bin >> 3).collect(),
        activity: Activity { start, width: requests * 9 * MILLI / 60 + 10 * MILLI, bins: (0..60).map(bin).collect() },
        sizes: Sizes {
            request: vec![20, 0, 3, 7, 30, 60, 20, 3],
            response: (0..18).map(|bin| bin * 13 % 31).collect(),
        },
        details: details.collect(),
        findings: vec![Finding {
            severity: crate::trace::Severity::Error,
            code: "cut-off".to_owned(),
            file: HOSTILE.to_owned(),
            place: "offset 1234, message 5".to_owned(),
            text: "the file ends inside a message".to_owned(),
            count: 3,
        }],
        findings_total: 1,
        list_command: "tap2pcap http traces/".to_owned(),
        requests: rows,
        ..Page::default()
    }
}

#[test]
fn ten_thousand_requests_are_less_than_10_mib() {
    let html = html(&sample(10_000));
    assert!(html.len() < 10 << 20, "{} bytes", html.len());
}

/// For scripts/test-page: pages to look at, in the directory that the variable names.
#[test]
fn sample_pages_are_written_where_the_judges_want_them() {
    if let Some(place) = std::env::var_os("TAP2PCAP_SAMPLE_PAGES") {
        for (name, page) in [("sample", sample(300)), ("large", sample(10_000)), ("empty", Page::default())] {
            std::fs::write(std::path::Path::new(&place).join(format!("{name}.html")), html(&page)).unwrap();
        }
    }
}
