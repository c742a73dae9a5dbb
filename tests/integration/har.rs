//! HAR of socket traces, beside `tap2pcap http --json`.

use std::{collections::BTreeMap, io::Write as _, path::Path};

use serde_json::Value;

use crate::{
    fixture::{self, Dress, closed, read, streamed, write},
    manifest::socket_samples,
    util::{Dir, convert, on_all_cores, tap2pcap},
};

fn entries(path: &Path) -> Vec<Value> {
    let har: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    har["log"]["entries"].as_array().unwrap().clone()
}

fn listed(trace: &Path, options: &[&str]) -> Vec<Value> {
    let run = tap2pcap().args(&["http", "-q", "--json"]).args(options).arg(trace).run();
    run.stdout_text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Header fields by lower-case names, several values joined by commas.
fn fields(list: &Value) -> BTreeMap<String, String> {
    let mut fields: BTreeMap<String, String> = BTreeMap::new();
    for field in list.as_array().unwrap() {
        let (name, value) = (field["name"].as_str().unwrap(), field["value"].as_str().unwrap());
        let values = fields.entry(name.to_ascii_lowercase()).or_default();
        if !values.is_empty() {
            values.push(',');
        }
        values.push_str(value);
    }
    fields
}

fn seconds(duration: &Value) -> Option<f64> {
    duration.as_str().map(|text| text.trim_end_matches('s').parse().unwrap())
}

#[test]
fn har_and_the_json_of_http_agree() {
    let dir = Dir::new("har-json");
    let counts = on_all_cores(&socket_samples(), |sample| {
        let output = dir.fresh().join("out.har");
        let run = convert(&["-q"], &sample.path, &output).run().expect_no_panic();
        let lines = listed(&sample.path, &["--max-body", "16777216"]);
        if lines.is_empty() {
            assert_eq!(run.status.code(), Some(2), "{run:?}");
            return 0;
        }
        let entries = entries(&output);
        assert_eq!(entries.len(), lines.len(), "{}", sample.name);
        for (entry, line) in entries.iter().zip(&lines) {
            let (request, response) = (&entry["request"], &entry["response"]);
            assert_eq!(request["method"], line["request"]["method"]);
            let path = line["request"]["path"].as_str().unwrap();
            assert!(request["url"].as_str().unwrap().ends_with(path));
            assert_eq!(response["status"].as_u64().unwrap(), line["response"]["code"].as_u64().unwrap_or(0));
            for (half, other) in [(request, &line["request"]), (response, &line["response"])] {
                assert_eq!(half["bodySize"].as_i64().unwrap(), other["size"].as_i64().unwrap_or(-1), "{}", sample.name);
                let expected: BTreeMap<String, String> =
                    serde_json::from_value(other["headers"].clone()).unwrap_or_default();
                assert_eq!(fields(&half["headers"]), expected, "{}", sample.name);
            }
            let content = &response["content"];
            let text = content["text"].as_str().unwrap_or_default();
            let bytes = match content["encoding"].as_str() {
                Some("base64") => base64_simd::STANDARD.decode_to_vec(text).unwrap(),
                _ => text.as_bytes().to_vec(),
            };
            let body = line["response"]["body"].as_str().unwrap_or_default();
            assert_eq!(bytes, base64_simd::STANDARD.decode_to_vec(body).unwrap(), "{}", sample.name);
            if let Some(duration) = seconds(&line["request"]["duration"]) {
                assert!((entry["time"].as_f64().unwrap() - duration * 1e3).abs() < 1e-6, "{entry}");
            }
            let times = ["send", "wait", "receive"].map(|name| entry["timings"][name].as_f64().unwrap());
            assert!((times.iter().sum::<f64>() - entry["time"].as_f64().unwrap()).abs() < 1e-6);
            if let Some(wait) = seconds(&line["response"]["time_to_first_byte"]) {
                assert!((times[1] - wait * 1e3).abs() < 1e-6, "{entry}");
            }
        }
        entries.len()
    });
    assert!(counts.iter().sum::<usize>() > 50, "{counts:?}");
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn trace(dir: &Dir, events: Vec<tap2pcap::proto::tap::SocketEvent>) -> std::path::PathBuf {
    dir.create("trace.pb_length_delimited", Dress::Delimited.file(&streamed(1, fixture::downstream(), events)))
}

#[test]
fn bodies_are_without_their_content_coding() {
    let dir = Dir::new("har-coding");
    let text = "the same words again and again, ".repeat(40);
    // Brotli of "hello hello hello hello", made with Google's encoder.
    let brotli = [
        0x1b, 0x16, 0x00, 0xf8, 0x8d, 0x94, 0x6e, 0xde, 0x44, 0x55, 0x86, 0x96, 0x6c, 0x20, 0x6f, 0x21, 0x4f, 0x1c,
        0xe0, 0x38,
    ];
    let respond = |coding: &str, body: &[u8]| {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-encoding: {coding}\r\ncontent-length: {}\r\n\r\n", body.len());
        [head.as_bytes(), body].concat()
    };
    let request = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    let packed = gzip(text.as_bytes());
    let trace = trace(
        &dir,
        vec![
            read(1000, request),
            write(2000, &respond("gzip", &packed)),
            read(3000, request),
            write(4000, &respond("br", &brotli)),
            read(5000, request),
            write(6000, &respond("unheard-of", b"as it is")),
            closed(7000),
        ],
    );
    let output = dir.join("out.har");
    convert(&[], &trace, &output).run().expect_status(0);
    let entries = entries(&output);
    let content = |index: usize| &entries[index]["response"]["content"];
    assert_eq!(content(0)["text"], text);
    assert_eq!(content(0)["size"], text.len());
    assert_eq!(content(0)["compression"], text.len() - packed.len());
    assert_eq!(entries[0]["response"]["bodySize"], packed.len());
    assert_eq!(content(1)["text"], "hello hello hello hello");
    assert_eq!((&content(2)["text"], content(2).get("compression")), (&"as it is".into(), None));
}

#[test]
fn web_socket_messages_are_as_chromium_exports_them() {
    let dir = Dir::new("har-websocket");
    let request = b"GET /chat HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
        sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n";
    let response = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
        sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    // RFC 6455 section 5.7: "Hello" masked; in two frames with a ping between; and binary.
    let masked = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    let (first, ping, last) = (b"\x01\x03Hel", b"\x89\x00", b"\x80\x02lo");
    let trace = trace(
        &dir,
        vec![
            read(1_000_000_000, request),
            write(2_000_000_000, response),
            read(3_000_000_000, &masked),
            write(4_000_000_000, first),
            write(4_100_000_000, ping),
            write(5_000_000_000, last),
            write(6_000_000_000, b"\x82\x02\x00\xff"),
            // RFC 7692 section 7.2.3.2: "Hello" compressed, and again, as a reference to the first. The third is damaged.
            write(7_000_000_000, b"\xc1\x07\xf2\x48\xcd\xc9\xc9\x07\x00"),
            write(8_000_000_000, b"\xc1\x05\xf2\x00\x11\x00\x00"),
            write(9_000_000_000, b"\xc1\x02\xff\xff"),
            closed(9_500_000_000),
        ],
    );
    let output = dir.join("out.har");
    convert(&[], &trace, &output).run().expect_status(0);
    let messages = entries(&output)[0]["_webSocketMessages"].clone();
    let expected = serde_json::json!([
        { "type": "send", "time": 3.0, "opcode": 1, "data": "Hello" },
        { "type": "receive", "time": 5.0, "opcode": 1, "data": "Hello" },
        { "type": "receive", "time": 6.0, "opcode": 2, "data": "AP8=" },
        { "type": "receive", "time": 7.0, "opcode": 1, "data": "Hello" },
        { "type": "receive", "time": 8.0, "opcode": 1, "data": "Hello" },
    ]);
    assert_eq!(messages, expected);
    let comment = entries(&output)[0]["comment"].as_str().unwrap().to_owned();
    assert!(comment.contains("1 WebSocket frame sent and 7 received"), "{comment}");
    assert!(comment.contains("1 compressed message left out, which cannot be inflated"), "{comment}");
}

#[test]
fn har_keeps_the_exchanges_that_match() {
    let dir = Dir::new("har-where");
    let request = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n").into_bytes();
    let respond = |code: u32| format!("HTTP/1.1 {code} X\r\ncontent-length: 0\r\n\r\n").into_bytes();
    let trace = trace(
        &dir,
        vec![
            read(1000, &request("/a")),
            write(2000, &respond(200)),
            read(3000, &request("/b")),
            write(4000, &respond(500)),
            closed(5000),
        ],
    );
    let output = dir.join("out.har");
    for expression in ["response.code == 500", "response.code == 500 && connection.sent_bytes > 0"] {
        convert(&["--where", expression], &trace, &output).run().expect_status(0).expect_stderr("1 of 2 exchanges");
        let entries = entries(&output);
        assert_eq!((entries.len(), entries[0]["request"]["url"].as_str()), (1, Some("http://a/b")), "{expression}");
    }
}

#[test]
fn a_trace_without_http_is_no_har() {
    let dir = Dir::new("har-none");
    let trace = trace(&dir, vec![read(1000, b"\x00\x01\x02binary"), closed(2000)]);
    let output = dir.join("out.har");
    convert(&[], &trace, &output).run().expect_status(2).expect_stderr("HAR is for HTTP");
    assert!(!output.exists());
}

#[test]
fn the_body_of_an_http_tap_has_the_announced_size_only_where_the_tap_cut_it() {
    let dir = Dir::new("har-announced");
    for (is_cut, size) in [(false, 9), (true, 100)] {
        let trace = serde_json::json!({"http_buffered_trace": {
            "request": {"headers": [{"key": ":method", "value": "GET"}, {"key": ":path", "value": "/"}]},
            "response": {
                "headers": [{"key": ":status", "value": "200"}, {"key": "content-length", "value": "100"}],
                "body": {"as_bytes": "b25seSB0aGlz", "truncated": is_cut},
            },
        }});
        let trace = dir.create("trace.json", trace.to_string());
        let output = dir.fresh().join("out.har");
        convert(&["-q"], &trace, &output).run().expect_no_panic();
        let [entry] = &entries(&output)[..] else { panic!("not one entry") };
        assert_eq!(entry["response"]["bodySize"], size);
        assert_eq!(entry["response"]["content"]["comment"], "9 of the 100 bytes are here");
        let [line] = &listed(&trace, &[])[..] else { panic!("not one line") };
        assert_eq!(line["response"]["size"], size);
        assert_eq!(line["response"]["complete"], false);
    }
}
