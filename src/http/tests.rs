//! Exchanges of traces that are made by hand, event by event.

use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;
use crate::{
    input::{Advance, Source, SourceOptions},
    timeline::{HttpTaps, TimelineOptions},
};

/// A streamed trace of a listener's connection.
#[derive(Clone)]
struct Tap {
    text: String,
    seq_num: u64,
    time: u64,
    string: bool,
    /// As Envoy up to 1.36 writes it, whose events do not say how many bytes came before them.
    is_old: bool,
}

impl Tap {
    fn new() -> Self {
        let text = r#"{"socket_streamed_trace_segment": {"trace_id": "7", "connection": {
            "local_address": {"socket_address": {"address": "10.0.0.2", "port_value": 8080}},
            "remote_address": {"socket_address": {"address": "10.0.0.1", "port_value": 50000}}}}}"#;
        Self { text: text.to_owned(), seq_num: 1, time: 0, string: false, is_old: false }
    }

    fn old() -> Self {
        Self { is_old: true, ..Self::new() }
    }

    fn event(&mut self, kind: &str, bytes: &[u8], len: Option<u64>) {
        let body = if self.string {
            format!("\"as_string\": {}", serde_json::Value::from(str::from_utf8(bytes).unwrap()))
        } else {
            format!("\"as_bytes\": \"{}\"", base64_simd::STANDARD.encode_to_string(bytes))
        };
        self.time += 1;
        let (seq_num, time) = (self.seq_num, self.time);
        let truncated = len.is_some();
        let number = if self.is_old { String::new() } else { format!(r#""seq_num": "{seq_num}","#) };
        // Writing to a String cannot fail.
        let _ = write!(
            self.text,
            r#"{{"socket_streamed_trace_segment": {{"trace_id": "7", "event": {{{number}
                "timestamp": "2026-01-31T12:00:00.{time:09}Z", "{kind}": {{"data": {{{body}, "truncated": {truncated}}}}}}}}}}}"#
        );
        self.seq_num += len.unwrap_or(bytes.len() as u64);
    }

    fn read(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.event("read", bytes.as_ref(), None);
        self
    }

    fn write(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.event("write", bytes.as_ref(), None);
        self
    }

    /// Events of which only the beginning is there.
    fn cut_read(mut self, bytes: impl AsRef<[u8]>, len: u64) -> Self {
        self.event("read", bytes.as_ref(), Some(len));
        self
    }

    fn cut_write(mut self, bytes: impl AsRef<[u8]>, len: u64) -> Self {
        self.event("write", bytes.as_ref(), Some(len));
        self
    }

    /// Whole events are missing.
    fn lost(mut self, bytes: u64) -> Self {
        self.seq_num += bytes;
        self
    }

    fn closed(mut self) -> Seen {
        let seq_num = self.seq_num + 1;
        let _ = write!(
            self.text,
            r#"{{"socket_streamed_trace_segment": {{"trace_id": "7", "event": {{"seq_num": "{seq_num}",
                "timestamp": "2026-01-31T12:00:01Z", "closed": {{}}}}}}}}"#
        );
        self.end()
    }

    /// The trace stops while the connection is open.
    fn end(self) -> Seen {
        see(self.text.into_bytes())
    }
}

/// What came out of a trace.
#[derive(Debug, Default)]
struct Seen {
    exchanges: Vec<Exchange>,
    ends: Vec<HttpConnectionEnd>,
    facts: Vec<HttpFact>,
}

impl Seen {
    /// Method, path and code of each exchange.
    fn lines(&self) -> Vec<String> {
        let text =
            |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or("-".into(), |b| String::from_utf8_lossy(b).into_owned());
        let line = |exchange: &Exchange| {
            let code = exchange.code.map_or("-".to_owned(), |code| code.to_string());
            let whole =
                [exchange.request.complete, exchange.response.complete].map(|whole| if whole { '+' } else { '!' });
            format!("{} {} {code} {}{}", text(&exchange.method), text(&exchange.path), whole[0], whole[1])
        };
        self.exchanges.iter().map(line).collect()
    }

    fn bodies(&self) -> Vec<(&str, &str)> {
        self.exchanges
            .iter()
            .map(|exchange| {
                (str::from_utf8(&exchange.request.body).unwrap(), str::from_utf8(&exchange.response.body).unwrap())
            })
            .collect()
    }

    #[track_caller]
    fn expect(self, lines: &[&str]) -> Self {
        assert_eq!(self.lines(), lines, "{:?}", self.facts);
        self
    }

    #[track_caller]
    fn expect_facts(self, facts: &[HttpFact]) -> Self {
        assert_eq!(self.facts, facts);
        self
    }
}

fn see(trace: Vec<u8>) -> Seen {
    see_with(trace, HttpStageOptions::default())
}

fn see_with(trace: Vec<u8>, options: HttpStageOptions) -> Seen {
    let source = Source::from_reader("x".as_ref(), Box::new(io_cursor(trace)), SourceOptions::default()).unwrap();
    let mut timelines =
        Timelines::new(source, TimelineOptions { http_taps: HttpTaps::Unreplayed, ..TimelineOptions::default() });
    let mut stage = HttpStage::new(options);
    let mut findings = Findings::default();
    let mut seen = Seen::default();
    loop {
        let advance = timelines.advance(&mut findings);
        match advance {
            Advance::Message => stage.begin_entry(),
            Advance::NeedInput => timelines.fill(&mut findings),
            Advance::End => stage.end(&mut findings),
        }
        while let Some(item) = stage.next_item(&timelines, &mut findings) {
            match item {
                HttpItem::Exchange(exchange) => seen.exchanges.push(*exchange),
                HttpItem::ConnectionEnd(end) => seen.ends.push(end),
                HttpItem::Request(_) => {}
            }
        }
        if advance == Advance::End {
            break;
        }
    }
    assert_eq!((stage.shared.held, stage.shared.open, stage.shared.fields), (0, 0, 0));
    for finding in findings.take() {
        if let Fact::Http { fact, .. } = finding.fact {
            seen.facts.push(fact);
        }
    }
    seen
}

fn io_cursor(bytes: Vec<u8>) -> std::io::Cursor<Vec<u8>> {
    std::io::Cursor::new(bytes)
}

use HttpSide::{Request, Response};

#[test]
fn pipelined_requests_get_their_responses_in_order() {
    let seen = Tap::new()
        .read("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.1\r\ncontent-length: 3\r\n\r\nabcGET /3?q=1 HTTP/1.0\r\n\r\n")
        .write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhiHTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
        .write("HTTP/1.0 404 Not Found\r\n\r\nuntil ")
        .write("close")
        .closed()
        .expect(&["GET /1 200 ++", "POST /2 201 ++", "GET /3?q=1 404 ++"])
        .expect_facts(&[]);
    assert_eq!(seen.bodies(), [("", "hi"), ("abc", ""), ("", "until close")]);
    let last = &seen.exchanges[2];
    assert_eq!((last.protocol, last.url_path(), last.query()), (Some("HTTP/1.0"), Some(&b"/3"[..]), Some(&b"q=1"[..])));
    assert_eq!((last.response.size(), last.response.ended), (Some(11), last.request.began.map(|time| time + 3)));
    assert_eq!(seen.exchanges[0].host.as_deref(), Some(&b"a"[..]));
    let end = &seen.ends[0];
    assert_eq!((end.protocol, end.duration), (Some("http/1.1"), Some(999_999_999)));
}

#[test]
fn a_body_until_close_is_whole_only_if_the_connection_closed() {
    let tap = Tap::new().read("GET / HTTP/1.0\r\n\r\n").write("HTTP/1.0 200 OK\r\n\r\nbody");
    tap.clone().closed().expect(&["GET / 200 ++"]);
    let seen = tap.end().expect(&["GET / 200 +!"]);
    assert_eq!((seen.exchanges[0].response.size(), seen.exchanges[0].duration()), (Some(4), None));
}

#[test]
fn chunks_and_trailers_are_taken_apart() {
    let seen = Tap::new()
        .read("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;x=\"y\"\r\nabc\r\nA\r\n0123456789\r\n0\r\nX-Sum: 1\r\n\r\n")
        .write("HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n")
        .read("GET /next HTTP/1.1\r\n\r\n")
        .closed()
        .expect(&["POST / 200 ++", "GET /next - +!"])
        .expect_facts(&[]);
    let request = &seen.exchanges[0].request;
    assert_eq!((request.body.as_slice(), request.size()), (&b"abc0123456789"[..], Some(13)));
    assert_eq!(request.trailers.get("x-sum"), Some(&b"1"[..]));
}

#[test]
fn responses_without_a_body_have_none_whatever_they_announce() {
    Tap::new()
        .read("HEAD /h HTTP/1.1\r\n\r\nGET /n HTTP/1.1\r\n\r\nGET /e HTTP/1.1\r\n\r\nPOST /c HTTP/1.1\r\n\r\n")
        .write("HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n")
        .write("HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n")
        .write("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx")
        .closed()
        .expect(&["HEAD /h 200 ++", "GET /n 204 ++", "GET /e 304 ++", "POST /c 200 ++"])
        .expect_facts(&[]);
}

#[test]
fn a_tunnel_carries_anything_until_the_end() {
    let seen = Tap::new()
        .read("CONNECT db:5432 HTTP/1.1\r\nHost: db:5432\r\n\r\n")
        .write("HTTP/1.1 200 OK\r\n\r\nGET ")
        .read(b"\0\x01HTTP/1.1 200 OK\r\n\r\n")
        .closed()
        .expect(&["CONNECT - 200 ++"]);
    let exchange = &seen.exchanges[0];
    assert_eq!((exchange.request.size(), exchange.response.size()), (Some(21), Some(4)));
    assert_eq!(exchange.host.as_deref(), Some(&b"db:5432"[..]));
    // One that is refused carries HTTP.
    Tap::new()
        .read("CONNECT db:5432 HTTP/1.1\r\n\r\n")
        .write("HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno")
        .read("GET / HTTP/1.1\r\n\r\n")
        .write("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        .closed()
        .expect(&["CONNECT - 403 ++", "GET / 200 ++"]);
}

#[test]
fn web_socket_frames_are_counted() {
    let seen = Tap::new()
        .read("GET /chat HTTP/1.1\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n")
        .write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x02hi")
        .read([0x81, 0x83, 1, 2, 3, 4, 0, 0, 0, 0x88, 0x80, 1, 2, 3, 4])
        .closed()
        .expect(&["GET /chat 101 ++"]);
    let exchange = &seen.exchanges[0];
    let frames = exchange.web_socket.as_ref().unwrap();
    assert_eq!(frames.sides.map(|side| (side.frames, side.messages, side.bytes)), [(2, 1, 3), (1, 1, 2)]);
    assert_eq!((exchange.request.size(), exchange.response.size()), (Some(15), Some(4)));
    assert_eq!(seen.ends[0].protocol, Some("websocket"));
}

#[test]
fn a_refused_upgrade_goes_on_as_http_1() {
    Tap::new()
        .read("GET /1 HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n")
        .write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        .read("GET /2 HTTP/1.1\r\n\r\n")
        .write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        .closed()
        .expect(&["GET /1 200 ++", "GET /2 200 ++"]);
}

#[test]
fn a_target_may_be_absolute() {
    let seen = Tap::new().read("GET HTTP://shop.example?x=1 HTTP/1.1\r\nHost: other\r\n\r\n").closed();
    let exchange = &seen.exchanges[0];
    let text = |bytes: &Option<Vec<u8>>| String::from_utf8(bytes.clone().unwrap()).unwrap();
    assert_eq!(text(&exchange.scheme), "http");
    assert_eq!((text(&exchange.host), text(&exchange.path)), ("shop.example".into(), "/?x=1".into()));
}

#[test]
fn a_connection_whose_beginning_is_missing_is_read_from_its_next_message() {
    let seen = Tap::new()
        .write("rest of a body")
        .read("more of one")
        .read("GET /1 HTTP/1.1\r\n\r\n")
        .write("still the bodyHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        .closed()
        .expect(&["GET /1 200 ++"]);
    let skipped = |side, bytes| HttpFact::Skipped { side, bytes };
    assert_eq!(seen.facts, [skipped(Request, 11), skipped(Response, 14), skipped(Response, 14)]);
}

#[test]
fn a_response_whose_request_is_missing_is_an_exchange_without_one() {
    let seen = Tap::new().write("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 1\r\n\r\nx").closed();
    let seen = seen.expect(&["- - 503 !+"]);
    assert_eq!((seen.exchanges[0].request.size(), seen.exchanges[0].duration()), (None, None));
}

#[test]
fn a_cut_body_has_its_true_size_and_the_next_message_is_read() {
    let seen = Tap::new()
        .read("GET /1 HTTP/1.1\r\n\r\n")
        .cut_write("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n0123456789", 40 + 100)
        .read("GET /2 HTTP/1.1\r\n\r\n")
        .write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        .closed()
        .expect(&["GET /1 200 +!", "GET /2 200 ++"])
        .expect_facts(&[]);
    let response = &seen.exchanges[0].response;
    assert_eq!((response.size(), response.body.len(), response.ended.is_some()), (Some(100), 10, true));
    assert_eq!(seen.ends[0].sent, Some(140 + 40));
}

#[test]
fn requests_wait_for_their_responses_after_a_cut_body() {
    let requests = "GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\nGET /3 HTTP/1.1\r\n\r\n";
    let ok = |code: u32| format!("HTTP/1.1 {code} X\r\ncontent-length: 2\r\n\r\nok");
    Tap::new()
        .read(requests)
        .cut_write("HTTP/1.1 201 X\r\ncontent-length: 50\r\n\r\n0123456789", 38 + 50)
        .write([ok(202), ok(203)].concat())
        .closed()
        .expect(&["GET /1 201 +!", "GET /2 202 ++", "GET /3 203 ++"]);
    // Of the chunks, nobody can tell what else is missing.
    Tap::new()
        .read(requests)
        .cut_write("HTTP/1.1 201 X\r\ntransfer-encoding: chunked\r\n\r\n32\r\n0123456789", 50 + 50)
        .write(["\r\n0\r\n\r\n".to_owned(), ok(202), ok(203)].concat())
        .closed()
        .expect(&["GET /1 201 +!", "GET /2 202 ++", "GET /3 203 ++"]);
}

#[test]
fn a_cut_informational_head_is_no_response() {
    Tap::new()
        .read("POST / HTTP/1.1\r\ncontent-length: 0\r\n\r\n")
        .write("HTTP/1.1 100 Continue\r\nx: y\r\n")
        .end()
        .expect(&["POST / - +!"]);
}

#[test]
fn a_cut_chunk_has_its_true_size() {
    let seen = Tap::new()
        .read("GET /1 HTTP/1.1\r\n\r\n")
        .cut_write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n64\r\n0123", 47 + 4 + 100)
        .write("\r\n0\r\n\r\n")
        .closed()
        .expect(&["GET /1 200 +!"])
        .expect_facts(&[]);
    assert_eq!(seen.exchanges[0].response.size(), Some(100));
}

#[test]
fn a_cut_head_tells_what_is_in_its_whole_lines() {
    let seen = Tap::new()
        .cut_read("GET /long HTTP/1.1\r\nHost: a\r\nCookie: very lo", 4000)
        .write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        .cut_read("POST /a-very-long-pa", 3000)
        .write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        .read("GET /3 HTTP/1.1\r\n\r\n")
        .write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        .closed()
        .expect(&["GET /long 200 !+", "POST - 200 !+", "GET /3 200 ++"])
        .expect_facts(&[HttpFact::CutHead(Request), HttpFact::CutHead(Request)]);
    let request = &seen.exchanges[0].request;
    assert_eq!((request.fields.get("host"), request.fields.len(), request.size()), (Some(&b"a"[..]), 1, None));
}

#[test]
fn responses_answer_requests_whose_heads_were_cut_in_traces_of_older_envoys() {
    let ok = |code: u32| format!("HTTP/1.1 {code} X\r\ncontent-length: 2\r\n\r\nok");
    Tap::old()
        .cut_read("GET /cart HTTP/1.1\r\nCookie: very lo", 4000)
        .write(ok(503))
        .read("GET /health HTTP/1.1\r\n\r\n")
        .write(ok(200))
        .cut_read("GET /user HTTP/1.1\r\nCookie: very lo", 4000)
        .write(ok(201))
        .end()
        .expect(&["GET /cart 503 !+", "GET /health 200 ++", "GET /user 201 !+"]);
    // So do responses whose own heads were cut.
    Tap::old()
        .read("GET /1 HTTP/1.1\r\n\r\n")
        .cut_write("HTTP/1.1 500 X\r\nSet-Cookie: very lo", 4000)
        .read("GET /2 HTTP/1.1\r\n\r\n")
        .write(ok(202))
        .end()
        .expect(&["GET /1 500 +!", "GET /2 202 ++"]);
}

#[test]
fn a_response_whose_head_was_cut_answers_the_request_that_has_waited_longest() {
    Tap::new()
        .read("GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\n")
        .cut_write("HTTP/1.1 500 X\r\nSet-Cookie: very lo", 4000)
        .write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        .closed()
        .expect(&["GET /1 500 +!", "GET /2 200 ++"]);
}

#[test]
fn lost_events_end_what_they_may_have_ended() {
    // The response to the first request is lost, with the head of the next one.
    Tap::new()
        .read("GET /1 HTTP/1.1\r\n\r\n")
        .lost(500)
        .read("GET /3 HTTP/1.1\r\n\r\n")
        .write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        .closed()
        .expect(&["GET /1 - +!", "GET /3 200 ++"]);
    // A body goes on after the loss, but nobody can say where.
    let seen = Tap::new()
        .read("GET /1 HTTP/1.1\r\n\r\n")
        .write("HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n0123456789")
        .lost(700)
        .write("the rest of it")
        .read("GET /2 HTTP/1.1\r\n\r\n")
        .write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        .closed()
        .expect(&["GET /1 200 +!", "GET /2 200 ++"]);
    let response = &seen.exchanges[0].response;
    assert_eq!((response.size(), response.body.as_slice()), (Some(1000), &b"0123456789"[..]));
}

#[test]
fn a_buffered_trace_that_stopped_recording_gives_what_it_has() {
    let body = |text: &str, truncated: bool| {
        let bytes = base64_simd::STANDARD.encode_to_string(text);
        format!(r#"{{"data": {{"as_bytes": "{bytes}", "truncated": {truncated}}}}}"#)
    };
    let trace = format!(
        r#"{{"socket_buffered_trace": {{"trace_id": "7", "write_truncated": true, "events": [{{"read": {}}}, {{"write": {}}}, {{"read": {}}}]}}}}"#,
        body("POST /1 HTTP/1.1\r\ncontent-length: 2\r\n\r\nok", false),
        body("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n01234", true),
        body("GET /2 HTTP/1.1\r\n\r\n", false)
    );
    let seen = see(trace.into_bytes()).expect(&["POST /1 200 +!", "GET /2 - +!"]);
    let response = &seen.exchanges[0].response;
    assert_eq!((response.size(), response.body.as_slice(), response.ended), (Some(100), &b"01234"[..], None));
}

#[test]
fn bodies_beyond_the_limit_are_counted_but_not_kept() {
    let tap = Tap::new()
        .read("POST / HTTP/1.1\r\ncontent-length: 10\r\n\r\n0123456789")
        .write("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n0123456789");
    let options = |max_body, max_held| HttpStageOptions { max_body, max_held, ..HttpStageOptions::default() };
    let seen = see_with(tap.text.clone().into_bytes(), options(4, 1000)).expect(&["POST / 200 ++"]);
    assert_eq!(seen.bodies(), [("0123", "0123")]);
    let seen = see_with(tap.text.into_bytes(), options(100, 15)).expect(&["POST / 200 ++"]);
    assert_eq!(seen.bodies(), [("0123456789", "01234")]);
    assert_eq!(seen.exchanges[0].response.size(), Some(10));
}

#[test]
fn other_protocols_are_not_http() {
    for (client, server) in [
        (&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03GET / HTTP/1.1\r\n\r\n"[..], &b"\x16\x03\x03\0\x02\x02\0"[..]),
        (b"*1\r\n$4\r\nPING\r\n", b"+PONG\r\n"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", b"SSH-2.0-OpenSSH_9.6\r\n"),
        (b"", b"\x4a\0\0\0\x0a8.0.36\0\x08\0\0\0"),
    ] {
        let seen = Tap::new().read(client).write(server).closed();
        assert!(seen.exchanges.is_empty() && seen.ends.is_empty() && seen.facts.is_empty(), "{:?}", seen.facts);
    }
}

// Hostile HTTP/1.

#[test]
fn both_lengths_are_reported_and_the_chunks_count() {
    Tap::new()
        .read("POST / HTTP/1.1\r\ncontent-length: 6\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n")
        .closed()
        .expect(&["POST / - +!", "GET /smuggled - +!"])
        .expect_facts(&[HttpFact::BothLengths(Request)]);
}

#[test]
fn lengths_that_nobody_can_tell_are_reported() {
    for lengths in
        ["content-length: 5\r\ncontent-length: 6", "content-length: 18446744073709551616", "content-length: -1"]
    {
        Tap::new()
            .read(format!("POST / HTTP/1.1\r\n{lengths}\r\n\r\nhello"))
            .read("GET /2 HTTP/1.1\r\n\r\n")
            .closed()
            .expect(&["POST / - !!", "GET /2 - +!"])
            .expect_facts(&[HttpFact::BadLength(Request)]);
    }
    Tap::new()
        .read("POST / HTTP/1.1\r\ntransfer-encoding: chunked, gzip\r\n\r\nhello")
        .closed()
        .expect(&["POST / - !!"])
        .expect_facts(&[HttpFact::BadCoding(Request)]);
}

#[test]
fn chunk_sizes_are_bounded() {
    for size in ["10000000000000000", "-1", "0x10", "", "zz", &"1".repeat(5000)] {
        let seen = Tap::new()
            .read(format!("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n{size}\r\nhello"))
            .read("GET /2 HTTP/1.1\r\n\r\n")
            .closed()
            .expect(&["POST / - !!", "GET /2 - +!"])
            .expect_facts(&[HttpFact::BadChunk(Request)]);
        assert_eq!(seen.exchanges[0].request.size(), None);
    }
    // The largest size that there is.
    let seen = Tap::new()
        .read("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff\r\nhello")
        .closed()
        .expect(&["POST / - !!"]);
    assert_eq!(seen.exchanges[0].request.size(), Some(5));
}

#[test]
fn a_head_of_any_size_is_bounded() {
    let mut tap = Tap::new().read("GET /1 HTTP/1.1\r\nhost: a\r\n");
    for _ in 0..100 {
        tap = tap.read("x: y\r\n".repeat(5000));
    }
    let seen = tap.read("\r\n").read("GET /2 HTTP/1.1\r\n\r\n").closed();
    let limit = h1::MAX_HEAD;
    assert_eq!(seen.lines(), ["GET /1 - !!", "GET /2 - +!"]);
    assert_eq!(seen.facts[..2], [HttpFact::LongHead { side: Request, limit }, HttpFact::CutHead(Request)]);
    assert!(seen.exchanges[0].request.fields.size() < limit as u64);
}

#[test]
fn a_head_that_is_none_is_reported_and_the_next_one_is_read() {
    let seen = Tap::new()
        .read("GET /1 HTTP/1.1\r\nno colon\r\n\r\n")
        .write("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
        .read("GET /2 HTTP/1.1\r\n\r\n")
        .write("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        .closed();
    seen.expect(&["GET /1 400 !+", "GET /2 200 ++"]).expect_facts(&[HttpFact::BadHead(Request)]);
}

// HTTP/2.

fn frame(kind: u8, flags: u8, stream: u32, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    let len = (payload.len() as u32).to_be_bytes();
    [&len[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

fn preface() -> Vec<u8> {
    [crate::timeline::PREFACE, &frame(4, 0, 0, [])].concat()
}

/// Header blocks without compression, so that their bytes are plain to see.
fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let text = |text: &str| [&[text.len() as u8], text.as_bytes()].concat();
    fields.iter().flat_map(|(name, value)| [vec![0], text(name), text(value)].concat()).collect()
}

fn request(path: &str) -> Vec<u8> {
    block(&[(":method", "GET"), (":scheme", "https"), (":authority", "a"), (":path", path), ("x-b", "c")])
}

const OK: &[u8] = &[0x88];

#[test]
fn streams_may_be_interleaved() {
    let seen = Tap::new()
        .read(preface())
        .write(frame(4, 0, 0, [0, 3, 0, 0, 0, 100]))
        .read([frame(1, 4, 1, request("/1")), frame(1, 5, 3, request("/3"))].concat())
        .write([frame(1, 4, 3, OK), frame(1, 4, 1, OK), frame(0, 0, 3, "three"), frame(0, 0, 1, "one")].concat())
        .read([frame(0, 0, 1, "up"), frame(8, 0, 0, [0, 0, 1, 0]), frame(0, 1, 1, "load")].concat())
        .write([frame(0, 1, 1, "!"), frame(1, 5, 3, block(&[("x-sum", "9")]))].concat())
        .closed()
        .expect(&["GET /1 200 ++", "GET /3 200 ++"])
        .expect_facts(&[]);
    assert_eq!(seen.bodies(), [("upload", "one!"), ("", "three")]);
    let three = &seen.exchanges[1];
    assert_eq!(three.response.trailers.get("x-sum"), Some(&b"9"[..]));
    assert_eq!((three.protocol, three.request.fields.get("x-b")), (Some("HTTP/2"), Some(&b"c"[..])));
    assert_eq!((three.request.fields.len(), seen.ends[0].protocol), (1, Some("http/2")));
}

#[test]
fn header_blocks_may_be_padded_prioritised_and_continued() {
    let whole = request("/1");
    let (first, second) = whole.split_at(7);
    let head = [&[3, 0x80, 0, 0, 1, 200][..], first, &[0, 0, 0]].concat();
    let data = [&[2][..], b"body", &[0, 0]].concat();
    let seen = Tap::new()
        .read(
            [
                preface(),
                frame(2, 0, 1, [0, 0, 0, 0, 9]),
                frame(1, 0x28, 1, head),
                frame(9, 0, 1, []),
                frame(9, 4, 1, second),
            ]
            .concat(),
        )
        .read(frame(0, 9, 1, data))
        .write([frame(1, 4, 1, block(&[(":status", "103")])), frame(1, 5, 1, OK)].concat())
        .closed()
        .expect(&["GET /1 200 ++"])
        .expect_facts(&[]);
    assert_eq!(seen.bodies(), [("body", "")]);
}

#[test]
fn resets_and_goaway_end_streams() {
    let seen = Tap::new()
        .read(
            [preface(), frame(1, 4, 1, request("/1")), frame(1, 5, 3, request("/3")), frame(1, 5, 5, request("/5"))]
                .concat(),
        )
        .write([frame(1, 5, 1, OK), frame(3, 0, 1, [0, 0, 0, 0]), frame(1, 4, 3, OK)].concat())
        .write([frame(7, 0, 0, [0, 0, 0, 3, 0, 0, 0, 0]), frame(0, 1, 3, "x"), frame(1, 5, 1, OK)].concat())
        .closed();
    seen.expect(&["GET /1 200 !+", "GET /5 - +!", "GET /3 200 ++"]).expect_facts(&[]);
}

#[test]
fn a_push_is_an_exchange_of_its_own() {
    let promise = [&[0, 0, 0, 2][..], &request("/pushed")].concat();
    let seen = Tap::new()
        .read([preface(), frame(1, 5, 1, request("/1"))].concat())
        .write([frame(5, 4, 1, promise), frame(1, 5, 1, OK), frame(1, 4, 2, OK), frame(0, 1, 2, "css")].concat())
        .closed()
        .expect(&["GET /1 200 ++", "GET /pushed 200 ++"]);
    assert_eq!(seen.exchanges.iter().map(|exchange| exchange.pushed).collect::<Vec<_>>(), [false, true]);
}

#[test]
fn h2c_goes_on_as_http_2_on_stream_1() {
    let seen = Tap::new()
        .read("GET /1 HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n")
        .write([&b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"[..], &frame(4, 0, 0, [])].concat())
        .read([preface(), frame(1, 5, 3, request("/3"))].concat())
        .write([frame(1, 4, 1, OK), frame(0, 1, 1, "one"), frame(1, 5, 3, OK)].concat())
        .closed()
        .expect(&["GET /1 200 ++", "GET /3 200 ++"])
        .expect_facts(&[]);
    assert_eq!((seen.bodies()[0], seen.ends[0].protocol), (("", "one"), Some("http/2")));
}

#[test]
fn what_a_client_sends_before_an_upgrade_is_answered_is_not_dropped() {
    let upgrade = b"GET /1 HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n";
    let switching = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";
    // The preface and a request come early.
    Tap::new()
        .read([&upgrade[..], &preface(), &frame(1, 5, 3, request("/3"))].concat())
        .write([&switching[..], &frame(4, 0, 0, []), &frame(1, 5, 1, OK), &frame(1, 5, 3, OK)].concat())
        .closed()
        .expect(&["GET /1 200 ++", "GET /3 200 ++"])
        .expect_facts(&[]);
    // A second request in HTTP/1 has no response.
    Tap::new()
        .read([&upgrade[..], b"GET /second HTTP/1.1\r\n\r\n"].concat())
        .write([&switching[..], &frame(4, 0, 0, []), &frame(1, 5, 1, OK)].concat())
        .closed()
        .expect(&["GET /second - +!", "GET /1 200 ++"]);
}

#[test]
fn lost_data_counts_and_the_stream_goes_on() {
    let seen = Tap::new()
        .read([preface(), frame(1, 5, 1, request("/1"))].concat())
        .cut_write([frame(1, 4, 1, OK), frame(0, 0, 1, [b'x'; 100])[..20].to_vec()].concat(), 10 + 109)
        .write(frame(0, 1, 1, "end"))
        .closed()
        .expect(&["GET /1 200 +!"])
        .expect_facts(&[]);
    assert_eq!((seen.exchanges[0].response.size(), seen.exchanges[0].response.body.len()), (Some(103), 11));
}

#[test]
fn after_a_loss_frames_are_found_again_and_fields_that_refer_to_lost_ones_are_left_out() {
    let indexed = |name: &str, value: &str| {
        [&[0x40, name.len() as u8], name.as_bytes(), &[value.len() as u8], value.as_bytes()].concat()
    };
    // x-a is in the table before the loss, x-c comes after it.
    let first = [request("/1"), indexed("x-a", "1")].concat();
    let later = [request("/7"), indexed("x-c", "3"), vec![0xbe, 0xbf]].concat();
    let seen = Tap::new()
        .read([preface(), frame(1, 5, 1, first)].concat())
        .write(frame(1, 5, 1, OK))
        .read(frame(6, 0, 0, [0; 8]))
        .lost(300)
        .read([b"half a frame of something".to_vec(), frame(1, 5, 7, later), frame(6, 0, 0, [0; 8])].concat())
        .write(frame(1, 5, 7, OK))
        .closed()
        .expect(&["GET /1 200 ++", "GET /7 200 !+"]);
    let fields: Vec<_> = seen.exchanges[1].request.fields.iter().map(|(name, value)| [name, value].concat()).collect();
    assert_eq!(fields, [b"x-bc".to_vec(), b"x-c3".to_vec(), b"x-c3".to_vec()]);
    assert_eq!(seen.exchanges[1].request.unknown_fields, 1);
    let skipped = HttpFact::Skipped { side: Request, bytes: 25 };
    assert_eq!(seen.facts, [skipped, HttpFact::UnknownFields { side: Request, fields: 1 }]);
}

#[test]
fn http_2_is_recognised_in_the_middle_of_a_connection() {
    let seen = Tap::new()
        .read([frame(0, 1, 5, "rest"), frame(1, 5, 7, request("/7"))].concat())
        .write([frame(1, 4, 5, OK), frame(0, 1, 5, "five"), frame(1, 5, 7, OK)].concat())
        .closed()
        .expect(&["GET /7 200 ++", "- - 200 !+"]);
    assert_eq!(seen.ends[0].protocol, Some("http/2"));
}

#[test]
fn http_2_from_strings_is_reported_and_not_read() {
    let mut tap = Tap::new();
    tap.string = true;
    let seen = tap.read("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n \0\0\0\0 ").write("\0\0 ").closed();
    seen.expect(&[]).expect_facts(&[HttpFact::Destroyed]);
}

#[test]
fn ten_thousand_streams_may_be_open_at_once() {
    let ids = || (0..10_000_u32).map(|index| 2 * index + 1);
    let requests: Vec<u8> = ids().flat_map(|id| frame(1, 5, id, request(&format!("/{id}")))).collect();
    let responses: Vec<u8> =
        ids().rev().flat_map(|id| [frame(1, 4, id, OK), frame(0, 1, id, id.to_string())].concat()).collect();
    let seen = Tap::new().read(preface()).read(requests).write(responses).closed().expect_facts(&[]);
    assert_eq!(seen.exchanges.len(), 10_000);
    for exchange in &seen.exchanges {
        let path = exchange.path.as_ref().unwrap();
        assert!(exchange.response.complete && exchange.response.body == path[1..]);
    }
}

#[test]
fn grpc_has_messages_and_a_status() {
    let head = block(&[(":method", "POST"), (":path", "/a.B/C"), ("content-type", "application/grpc")]);
    let response = [OK, &block(&[("content-type", "application/grpc")])].concat();
    let trailers = block(&[("grpc-status", "14"), ("grpc-message", "gone%20away")]);
    let only = [response.clone(), trailers.clone()].concat();
    let seen = Tap::new()
        .read(
            [preface(), frame(1, 4, 1, &head), frame(0, 0, 1, b"\0\0\0\0\x02a"), frame(0, 1, 1, b"b\0\0\0\0\0")]
                .concat(),
        )
        .write([frame(1, 4, 1, response), frame(0, 0, 1, b"\0\0\0\0\x01x"), frame(1, 5, 1, trailers)].concat())
        .read(frame(1, 5, 3, &head))
        .write(frame(1, 5, 3, only))
        .closed()
        .expect(&["POST /a.B/C 200 ++", "POST /a.B/C 200 ++"]);
    let grpc: Vec<_> = seen.exchanges.iter().map(|exchange| exchange.grpc.clone().unwrap()).collect();
    assert_eq!(grpc[0].messages.map(|side| (side.count, side.bytes)), [(2, 2), (1, 1)]);
    assert_eq!(grpc.iter().map(|grpc| grpc.status).collect::<Vec<_>>(), [Some(14), Some(14)]);
    assert_eq!(grpc[1].message.as_deref(), Some(&b"gone%20away"[..]));
    assert_eq!(seen.ends[0].protocol, Some("grpc"));
}

// Hostile HTTP/2.

#[test]
fn an_hpack_bomb_is_bounded() {
    // A field of 4000 bytes in the table, and references to it of one byte each: a list of 104 MB.
    let mut bomb = vec![0x40, 1, b'x', 0x7f, 0xa1, 0x1e];
    bomb.extend([b'y'; 4000]);
    bomb.extend([0xbe; 12_000]);
    let head = frame(1, 1, 1, [request("/1"), bomb].concat());
    let more = frame(9, 4, 1, [0xbe; 14_000]);
    let seen = Tap::new().read([preface(), head, more, frame(1, 5, 3, request("/3"))].concat()).closed();
    let seen = seen.expect(&["GET /1 - !!", "GET /3 - +!"]);
    assert_eq!(seen.facts, [HttpFact::LongList { side: Request, limit: 256 << 10 }]);
    assert!(seen.exchanges[0].request.fields.size() <= 256 << 10);
}

#[test]
fn long_paths_count_as_fields_do() {
    // One path of 60,000 bytes in the table, and a reference to it on each of 1,000 streams: 60 MB.
    let path = [&[0x44, 0x7f, 0xe1, 0xd3, 3][..], &vec![b'/'; 60_000]].concat();
    let settings = frame(4, 0, 0, [0, 1, 0, 1, 0, 0]);
    // The table may have 64 KiB.
    let head = frame(1, 1, 1, [&[0x3f, 0xe1, 0xff, 3, 0x82][..], &path[..16_000]].concat());
    let mut tap = Tap::new().write(&settings).read([preface(), head].concat());
    for piece in path[16_000..].chunks(16_000) {
        tap = tap.read(frame(9, if piece.len() < 16_000 { 4 } else { 0 }, 1, piece));
    }
    let many: Vec<u8> = (1..1000_u32).flat_map(|index| frame(1, 5, 2 * index + 1, [0x82, 0xbe])).collect();
    let seen = tap.read(many).closed();
    let held: usize = seen.exchanges.iter().filter_map(|exchange| exchange.path.as_ref()).map(Vec::len).sum();
    assert_eq!(seen.exchanges.len(), 1000);
    assert!((1 << 20..=2 * MAX_FIELDS).contains(&held), "{held}");
    assert!(seen.facts.contains(&HttpFact::LongList { side: Request, limit: 2 * MAX_FIELDS }), "{:?}", seen.facts);
}

#[test]
fn a_flood_of_continuations_is_bounded() {
    let flood: Vec<u8> = (0..5000).flat_map(|_| frame(9, 0, 1, [])).collect();
    let seen = Tap::new()
        .read(
            [preface(), frame(1, 0, 1, request("/1")), flood, frame(9, 4, 1, []), frame(1, 5, 3, request("/3"))]
                .concat(),
        )
        .closed();
    assert_eq!(seen.facts[0], HttpFact::ManyContinuations { side: Request, limit: 1024 });
    assert!(seen.lines().contains(&"GET /3 - +!".to_owned()), "{:?}", seen.lines());
    // The same with 10 MB of fields.
    let large: Vec<u8> = (0..64).flat_map(|_| frame(9, 0, 1, vec![0; 16_000])).collect();
    let mut tap = Tap::new().read([preface(), frame(1, 0, 1, request("/1"))].concat());
    for _ in 0..10 {
        tap = tap.read(&large);
    }
    let seen = tap.read([frame(9, 4, 1, []), frame(1, 5, 3, request("/3"))].concat()).closed();
    assert_eq!(seen.facts[0], HttpFact::LongHead { side: Request, limit: 256 << 10 });
    assert!(seen.lines().contains(&"GET /3 - +!".to_owned()), "{:?}", seen.lines());
}

#[test]
fn strange_streams_and_tables_are_bounded() {
    let last = u32::MAX >> 1;
    Tap::new()
        .read([preface(), frame(1, 5, last, request("/last")), frame(1, 5, u32::MAX, request("/again"))].concat())
        .write(frame(1, 5, last, OK))
        .closed()
        .expect(&["GET /last 200 ++"]);
    // A table of 4 GiB is not kept, so the block is not read.
    let huge = [&[0x3f, 0xe0, 0xff, 0xff, 0xff, 0x0f][..], &request("/1")].concat();
    Tap::new()
        .read([preface(), frame(1, 5, 1, huge), frame(1, 5, 3, request("/3"))].concat())
        .closed()
        .expect(&["- - - !!", "GET /3 - +!"])
        .expect_facts(&[HttpFact::BadBlock(Request)]);
    // More streams than are kept.
    let many: Vec<u8> = (0..20_000_u32).flat_map(|index| frame(1, 5, 2 * index + 1, request("/"))).collect();
    let seen = Tap::new().read(preface()).read(many).closed();
    assert_eq!(seen.exchanges.len(), 20_000);
    assert_eq!(seen.facts[0], HttpFact::ManyOpen { limit: 16_384 });
}

#[test]
fn frames_that_http_2_does_not_allow_are_reported() {
    for bad in [frame(1, 5, 0, request("/")), frame(4, 0, 0, [0; 5]), frame(9, 4, 1, [0]), frame(5, 4, 1, [0; 3])] {
        let seen = Tap::new().read([preface(), bad.clone(), frame(1, 5, 1, request("/1"))].concat()).closed();
        assert_eq!(seen.lines(), ["GET /1 - +!"]);
        assert_eq!(seen.facts[0], HttpFact::BadFrame(Request), "{bad:?}");
    }
}

/// Bytes that look like the beginnings of messages again and again take no more time than any others.
#[test]
fn a_search_takes_linear_time() {
    for hint in ["GET / HTTP/1.1\r\n", "HTTP/1.1 200 ", "HTTP/1.", " HTTP/1.1\r\n", "\0\0\0\0\0\0\0\0\x01"] {
        let mut tap = Tap::new().read("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n");
        tap = tap.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n");
        let many = hint.repeat((1 << 20) / hint.len());
        let started = std::time::Instant::now();
        tap.read(&many).write(&many).closed();
        assert!(started.elapsed().as_secs() < 20, "{hint:?}: {:?}", started.elapsed());
    }
}

/// Conversations that hold nearly everything.
fn conversations() -> Vec<[Vec<u8>; 2]> {
    let h1 = [
        b"POST /1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n\r\nHEAD /2 HTTP/1.1\r\n\r\nGET /ws HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x80\0\0\0\0".to_vec(),
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nHTTP/1.1 101 Switching Protocols\r\n\r\n\x81\x02hi\x88\0".to_vec(),
    ];
    let grpc = block(&[(":method", "POST"), (":path", "/a.B/C"), ("content-type", "application/grpc")]);
    let padded = [&[3][..], &request("/3"), &[0; 3]].concat();
    let h2 = [
        [
            preface(),
            frame(1, 4, 1, grpc),
            frame(0, 9, 1, b"\x02\0\0\0\0\x02ab\0\0"),
            frame(1, 9, 3, padded),
            frame(9, 4, 3, block(&[("x", "y")])),
        ]
        .concat(),
        [
            frame(4, 0, 0, []),
            frame(1, 4, 1, OK),
            frame(0, 0, 1, b"\0\0\0\0\x01x"),
            frame(1, 5, 1, block(&[("grpc-status", "0")])),
            frame(1, 4, 3, OK),
            frame(0, 1, 3, "three"),
        ]
        .concat(),
    ];
    vec![h1, h2]
}

/// The exchanges without what depends on the events: their times.
fn timeless(seen: Seen) -> (Vec<Exchange>, Vec<HttpFact>) {
    let mut exchanges = seen.exchanges;
    for exchange in &mut exchanges {
        for side in [Request, Response] {
            let message = exchange.message_mut(side);
            message.began = message.began.map(|_| 0);
            message.ended = message.ended.map(|_| 0);
        }
        exchange.place = Place::default();
        if let Some(web_socket) = &mut exchange.web_socket {
            web_socket.frames.iter_mut().for_each(|frame| frame.time = 0);
        }
        let connection = HttpConnection { began: None, ..(*exchange.connection).clone() };
        exchange.connection = Arc::new(connection);
    }
    (exchanges, seen.facts)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn exchanges_do_not_depend_on_how_their_bytes_are_cut(
        which in 0..2_usize,
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..40),
    ) {
        let [client, server] = &conversations()[which];
        let whole = timeless(Tap::new().read(client).write(server).closed());
        prop_assert!(whole.0.len() >= 2 && whole.1.is_empty(), "{:?}", whole.1);
        let pieces = |bytes: &[u8]| {
            let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            at.extend([0, bytes.len()]);
            at.sort_unstable();
            at.windows(2).map(|pair| bytes[pair[0]..pair[1]].to_vec()).collect::<Vec<_>>()
        };
        let tap = pieces(client).iter().fold(Tap::new(), |tap, piece| tap.read(piece));
        let tap = pieces(server).iter().fold(tap, |tap, piece| tap.write(piece));
        prop_assert_eq!(timeless(tap.closed()), whole);
    }

    #[test]
    fn no_bytes_make_it_panic(
        which in 0..2_usize,
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), any::<bool>()), 1..6),
        cut in any::<prop::sample::Index>(),
        more in 0..400_u64,
        lost in 0..400_u64,
    ) {
        let [mut client, mut server] = conversations().swap_remove(which);
        for (at, byte, is_client) in changes {
            let bytes = if is_client { &mut client } else { &mut server };
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let at = cut.index(client.len());
        let tap = Tap::new().cut_read(&client[..at], at as u64 + more).read(&client[at..]).lost(lost);
        tap.cut_write(&server, server.len() as u64 + more).read(&client).write(&server).end();
    }
}

#[test]
fn a_proxys_header_comes_before_the_request() {
    let v1 = b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n".as_slice();
    let v2 =
        [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c".as_slice(), &[192, 0, 2, 1, 198, 51, 100, 1, 1, 2, 3, 4]].concat();
    let request = b"GET /a HTTP/1.1\r\nhost: a\r\n\r\n".as_slice();
    let response = b"HTTP/1.1 204 No Content\r\n\r\n";
    for header in [v1, &v2, b"PROXY UNKNOWN\r\n"] {
        // In one event, in two, and cut anywhere.
        let bytes = [header, request].concat();
        for cut in 0..header.len() + 3 {
            let seen = Tap::new().read(&bytes[..cut]).read(&bytes[cut..]).write(response).closed();
            assert_eq!(seen.lines(), ["GET /a 204 ++"], "{cut}");
            assert!(seen.facts.is_empty(), "{:?}", seen.facts);
            assert_eq!(seen.ends[0].received, Some(bytes.len() as u64));
        }
        let exchange = &Tap::new().read(&bytes).write(response).closed().exchanges[0];
        let plain = &Tap::new().read(request).write(response).closed().exchanges[0];
        assert_eq!(exchange.request.total_size(), plain.request.total_size());
    }
    // What only begins like one is no header.
    for bytes in ["PROXY things\r\n", "PROXYING / HTTP/1.1\r\n\r\n"] {
        let _ = Tap::new().read(bytes).read(request).write(response).closed();
    }
    let long = format!("PROXY TCP4 {}", "1".repeat(200));
    assert!(Tap::new().read(&long).closed().exchanges.is_empty());
}

#[test]
fn http2_follows_a_proxys_header_too() {
    let preface =
        [b"PROXY TCP6 ::1 ::1 1 2\r\n".as_slice(), crate::timeline::PREFACE, &[0, 0, 0, 4, 0, 0, 0, 0, 0]].concat();
    // :method GET, :scheme https, :path /
    let headers = [0, 0, 3, 1, 5, 0, 0, 0, 1, 0x82, 0x87, 0x84];
    let response = [0, 0, 1, 1, 5, 0, 0, 0, 1, 0x89];
    let seen = Tap::new().read(preface).read(headers).write([0, 0, 0, 4, 0, 0, 0, 0, 0]).write(response).closed();
    assert_eq!(seen.lines(), ["GET / 204 ++"]);
}

/// A message of an HTTP tap.
fn http_segment(piece: &str) -> String {
    format!(r#"{{"http_streamed_trace_segment": {{"trace_id": "7", {piece}}}}}"#)
}

fn header_list(fields: &[(&str, &str)]) -> String {
    let one = |(key, value): &(&str, &str)| serde_json::json!({"key": key, "value": value}).to_string();
    fields.iter().map(one).collect::<Vec<_>>().join(",")
}

#[test]
fn the_body_of_an_http_tap_has_the_announced_size_only_where_the_tap_cut_it() {
    let get = header_list(&[(":method", "GET"), (":path", "/"), (":authority", "a")]);
    let ok = header_list(&[(":status", "200"), ("content-length", "100")]);
    for (is_cut, size) in [(false, 9), (true, 100)] {
        let body = format!(r#"{{"as_bytes": "b25seSB0aGlz", "truncated": {is_cut}}}"#);
        let buffered = format!(
            r#"{{"http_buffered_trace": {{"request": {{"headers": [{get}]}}, "response": {{"headers": [{ok}], "body": {body}}}}}}}"#
        );
        let streamed = [
            format!(r#""request_headers": {{"headers": [{get}]}}"#),
            format!(r#""response_headers": {{"headers": [{ok}]}}"#),
            format!(r#""response_body_chunk": {body}"#),
        ];
        let streamed = streamed.iter().map(|piece| http_segment(piece)).collect::<String>();
        for trace in [buffered, streamed] {
            let seen = see(trace.into_bytes()).expect(&["GET / 200 +!"]);
            assert_eq!(seen.exchanges[0].response.size(), Some(size), "{is_cut}");
        }
    }
}

#[test]
fn strings_of_an_http_tap_are_whole_if_all_their_pieces_are_as_long_as_announced() {
    for (second, is_whole) in [("and more", true), (" ", false)] {
        let pieces = [
            format!(r#""request_headers": {{"headers": [{}]}}"#, header_list(&[(":method", "GET"), (":path", "/")])),
            format!(
                r#""response_headers": {{"headers": [{}]}}"#,
                header_list(&[(":status", "200"), ("content-length", "13")])
            ),
            r#""response_body_chunk": {"as_string": "text "}"#.to_owned(),
            format!(r#""response_body_chunk": {{"as_string": "{second}"}}"#),
        ];
        let seen = see(pieces.iter().map(|piece| http_segment(piece)).collect::<String>().into_bytes());
        let response = &seen.exchanges[0].response;
        assert_eq!((response.complete, response.size()), (is_whole, Some(13)));
        assert_eq!(response.body, format!("text {second}").as_bytes());
    }
}

#[test]
fn http_1_counts_its_fields_as_envoy_does() {
    let seen = Tap::new()
        .read("POST /a HTTP/1.1\r\nHost: host\r\ntransfer-encoding: chunked\r\nx: y\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
        .write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nx: y\r\n\r\n2\r\nok\r\n0\r\nz: 1\r\n\r\n")
        .closed();
    let size = |fields: &[&str]| fields.iter().map(|text| text.len() as u64).sum::<u64>();
    let [exchange] = &seen.exchanges[..] else { panic!("{:?}", seen.lines()) };
    // Envoy counts the host as a pseudo-header, and takes the transfer coding off.
    let request = size(&[":method", "POST", ":path", "/a", ":authority", "host", "x", "y"]);
    assert_eq!(exchange.request.total_size(), Some(request + 3));
    assert_eq!(exchange.response.total_size(), Some(size(&[":status", "200", "x", "y", "z", "1"]) + 2));
}
