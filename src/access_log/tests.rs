//! Lines as Envoy, Istio and what collects their logs write them.

use std::io::Write as _;

use flate2::{Compression, write::GzEncoder};
use proptest::prelude::*;

use super::*;

const LINE: &str = r#"[2016-04-15T20:17:00.310Z] "POST /api/v1/locations?a=b HTTP/2" 503 UF,URX 154 0 226 - "10.0.35.28" "nsq2 http" "cc21d9b0-cf5c" "locations" "10.0.2.1:80""#;

const START: u64 = 1_460_751_420_310_000_000;

fn log(text: &str, format: Option<&str>) -> AccessLog {
    let format = format.map(|format| Format::parse(format).unwrap());
    read_lines(text.as_bytes(), format.as_ref(), &mut Room::default()).unwrap()
}

fn one(text: &str, format: Option<&str>) -> LogEntry {
    let mut log = log(text, format);
    assert_eq!((log.entries.len(), log.unread_lines), (1, 0), "{text}");
    log.entries.remove(0)
}

fn envoy() -> LogEntry {
    LogEntry {
        line: 1,
        start: Some(START),
        start_precision: 1_000_000,
        method: Some(b"POST".to_vec()),
        path: Some(b"/api/v1/locations?a=b".to_vec()),
        authority: Some(b"locations".to_vec()),
        request_id: Some(b"cc21d9b0-cf5c".to_vec()),
        code: Some(503),
        flags: Some("UF,URX".into()),
        duration: Some(226_000_000),
        upstream_host: Some("10.0.2.1:80".into()),
        ..LogEntry::default()
    }
}

#[test]
fn envoys_own_lines_are_read_after_whatever_stands_before_them() {
    for before in ["", "envoy-1  | ", "[pod/a-7d4/envoy] ", "2024-05-01T10:00:00.5Z stdout F "] {
        assert_eq!(one(&format!("{before}{LINE}\n"), None), envoy(), "{before}");
    }
    let docker = serde_json::json!({ "log": format!("{LINE}\n"), "stream": "stdout", "time": "2024-05-01T10:00:00Z" });
    assert_eq!(one(&docker.to_string(), None), envoy());
}

#[test]
fn istios_lines_are_read() {
    let line = r#"[2020-11-25T21:26:18.409Z] "GET /status/418 HTTP/1.1" 418 - via_upstream - "-" 0 135 3 1 "-" "curl/7" "84961386-6d84" "httpbin:8000" "[::1]:80" outbound|8000||httpbin 127.0.0.1:41854 10.44.1.27:80 10.44.1.23:37652 outbound_.8000_._.httpbin default"#;
    let entry = one(line, None);
    assert_eq!((entry.code, entry.flags, entry.details.as_deref()), (Some(418), None, Some("via_upstream")));
    assert_eq!(entry.upstream_host.as_deref(), Some("[::1]:80"));
    assert_eq!(entry.upstream_local_address.as_deref(), Some("127.0.0.1:41854"));
    assert_eq!(entry.downstream_local_address.as_deref(), Some("10.44.1.27:80"));
    assert_eq!(entry.downstream_remote_address.as_deref(), Some("10.44.1.23:37652"));
    let old = line.replace("via_upstream - \"-\"", "\"-\" \"-\"");
    assert_eq!(one(&old, None), LogEntry { details: None, ..one(line, None) });
}

#[test]
fn objects_are_read_whatever_their_keys_look_like() {
    let expected = LogEntry {
        connection_id: Some(7),
        upstream_connection_id: Some(8),
        request_duration: Some(1_000_000),
        response_duration: Some(2_000_000),
        attempts: Some(3),
        ..envoy()
    };
    let flat = serde_json::json!({
        "start_time": "2016-04-15T20:17:00.310Z", "time": "2024-01-01T00:00:00Z", "method": "POST", "path": "/rewritten",
        "x-envoy-original-path": "/api/v1/locations?a=b", "Authority": "locations", "X-Request-ID": "cc21d9b0-cf5c",
        "response_code": 503, "response_flags": "UF,URX", "duration": 226, "upstream_host": "10.0.2.1:80",
        "connectionId": 7, "upstream_connection_id": "8", "request_duration": "1", "responseDuration": 2.0,
        "upstream_request_attempt_count": 3, "downstream_remote_address": null, "traceparent": "-", "extra": [1, {}],
    });
    assert_eq!(one(&flat.to_string(), None), expected);
    assert_eq!(one(&format!("pod-1 {flat}"), None), expected);
    let nested = serde_json::json!({
        "@timestamp": "2016-04-15T20:17:00.310Z",
        "request": { "method": "POST", "path": "/api/v1/locations?a=b", "host": "locations", "id": "cc21d9b0-cf5c",
            "duration": 1 },
        "response": { "code": 503, "flags": "UF,URX", "duration": 2 },
        "connection": { "id": 7 }, "upstream": { "connection_id": 8, "host": "10.0.2.1:80" },
        "duration": 226, "attempts": 3,
    });
    assert_eq!(one(&nested.to_string(), None), expected);
}

#[test]
fn a_format_string_says_what_is_what() {
    let format = r"%START_TIME(%s.%6f)%|%REQ(:METHOD):8%|%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%|%RESP(SERVER)%|%CONNECTION_ID%|%UPSTREAM_REMOTE_ADDRESS%|%CEL(request.id)%|100%%|%UPSTREAM_REQUEST_ATTEMPT_COUNT%\n";
    let entry = one("1460751420.310000|GET|/a b|en|voy|12|@/run/x|id|100%|2", Some(format));
    let expected = LogEntry {
        line: 1,
        start: Some(START),
        start_precision: 1_000,
        method: Some(b"GET".to_vec()),
        path: Some(b"/a b".to_vec()),
        request_id: Some(b"id".to_vec()),
        connection_id: Some(12),
        upstream_host: Some("@/run/x".into()),
        attempts: Some(2),
        ..LogEntry::default()
    };
    assert_eq!(entry, expected);
    let json = r#"{ "a": { "when": "%START_TIME(%s.%6f)%", "m": "%REQ(:METHOD)% %REQ(:PATH)%" }, "c": "%CONNECTION_ID%", "n": 1 }"#;
    let entry = one(r#"x: {"a":{"when":"1460751420.310000","m":"GET /a"},"c":12,"n":1}"#, Some(json));
    assert_eq!((entry.start, entry.path.as_deref(), entry.connection_id), (Some(START), Some(&b"/a"[..]), Some(12)));
}

#[test]
fn a_format_that_cannot_be_read_is_an_error() {
    for (format, why) in [
        ("%REQ(:METHOD)% %", "byte 15: expected an operator"),
        ("%REQ(:METHOD", "byte 0: expected"),
        ("%lower%", "byte 0: expected"),
        ("plain", "none of its operators"),
        ("%PROTOCOL%", "none of its operators"),
        ("{}", "none of its operators"),
        ("{\"a\"}", "not a json_format"),
        (r#"{"a":{"b":"%"}}"#, "a.b: byte 0: expected"),
        ("%START_TIME(%E4S)% %CONNECTION_ID%", "%START_TIME(%E4S)%: times in this format"),
        ("%REQ(:METHOD)%\n%REQ(:PATH)%", "one line"),
    ] {
        let error = Format::parse(format).unwrap_err();
        assert!(error.contains(why), "{format}: {error}");
    }
}

#[test]
fn what_is_no_entry_is_counted() {
    let deep = "{\"a\":".repeat(10_000) + "1" + &"}".repeat(10_000);
    let long = format!("{{\"path\":\"/{}\"}}", "x".repeat(MAX_LINE));
    let text = format!("starting\n\n{LINE}\n{deep}\n{long}\n{{\"level\":\"info\"}}\n{{\n{LINE}");
    let read = log(&text, None);
    assert_eq!(read.entries.iter().map(|entry| entry.line).collect::<Vec<_>>(), [3, 8]);
    assert_eq!((read.unread_lines, read.first_unread), (5, vec![1, 4, 5, 6, 7]));
    let invalid = b"\xff\xfe \"GET\n{\"method\":\"\xff\",\"code\":99999}\n";
    let read = read_lines(&invalid[..], None, &mut Room::default()).unwrap();
    assert_eq!((read.entries.len(), read.unread_lines, read.entries[0].code), (1, 1, None));
}

#[test]
fn a_file_may_be_packed_and_an_error_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access.log.gz");
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(LINE.as_bytes()).unwrap();
    std::fs::write(&path, packed.finish().unwrap()).unwrap();
    assert_eq!(read(&path, None, &mut Room::default()).unwrap().entries, [envoy()]);
    let error = read(&dir.path().join("absent"), None, &mut Room::default()).unwrap_err();
    assert!(error.to_string().ends_with("absent: cannot read the access log"), "{error}");
    assert!(read(Path::new("-"), None, &mut Room::default()).is_err());
}

/// What Envoy writes for a value that may be absent.
fn or_dash<T: ToString>(value: Option<&T>) -> String {
    value.map_or_else(|| "-".to_owned(), T::to_string)
}

prop_compose! {
    fn entries()(
        start in 0..4_000_000_000_000u64, method in "[A-Z]{1,8}", path in "/[!-~]{0,40}",
        authority in proptest::option::of("[a-z.:0-9]{1,20}"), id in proptest::option::of("[0-9a-f-]{2,36}"),
        code in 0..600u16, flags in proptest::option::of("[A-Z]{2}(,[A-Z]{2})?"), duration in 0..100_000u64,
        host in proptest::option::of("[0-9.]{1,12}:[0-9]{1,5}"),
    ) -> LogEntry {
        let bytes = |text: String| text.into_bytes();
        LogEntry {
            line: 1,
            start: Some(start * 1_000_000),
            start_precision: 1_000_000,
            method: Some(bytes(method)),
            path: Some(bytes(path)),
            authority: authority.map(bytes),
            request_id: id.map(bytes),
            code: Some(code),
            flags,
            duration: Some(duration * 1_000_000),
            upstream_host: host,
            ..LogEntry::default()
        }
    }
}

fn start_of(entry: &LogEntry) -> String {
    let millis = entry.start.unwrap() / 1_000_000;
    let seconds = crate::trace::rfc3339(millis / 1000 * 1_000_000_000);
    format!("{}.{:03}Z", seconds.trim_end_matches('Z'), millis % 1000)
}

proptest! {
    #[test]
    fn what_envoy_writes_is_read_back(entry in entries()) {
        let text = |bytes: &Option<Vec<u8>>| bytes.clone().map(|bytes| String::from_utf8(bytes).unwrap());
        let millis = entry.duration.map(|nanos| nanos / 1_000_000);
        let line = format!(
            r#"[{}] "{} {} HTTP/1.1" {} {} 0 17 {} - "-" "agent" "{}" "{}" "{}""#,
            start_of(&entry), or_dash(text(&entry.method).as_ref()), or_dash(text(&entry.path).as_ref()),
            or_dash(entry.code.as_ref()), or_dash(entry.flags.as_ref()), or_dash(millis.as_ref()),
            or_dash(text(&entry.request_id).as_ref()), or_dash(text(&entry.authority).as_ref()),
            or_dash(entry.upstream_host.as_ref()),
        );
        prop_assert_eq!(one(&line, None), entry.clone());
        let json = serde_json::json!({
            "start_time": start_of(&entry), "method": text(&entry.method), "path": text(&entry.path),
            "response_code": entry.code, "response_flags": entry.flags, "duration": millis,
            "request_id": text(&entry.request_id), "authority": text(&entry.authority),
            "upstream_host": entry.upstream_host, "user_agent": null,
        });
        prop_assert_eq!(one(&json.to_string(), None), entry);
    }

    #[test]
    fn no_line_and_no_format_makes_it_panic(line in proptest::collection::vec(any::<u8>(), 0..200), format in "[%A-Z_(){}\":?0-9a-z]{0,40}") {
        let _ = entry_of(&line, None);
        if let Ok(format) = Format::parse(&format) {
            let _ = entry_of(&line, Some(&format));
        }
    }
}

#[test]
fn all_logs_together_have_a_bound() {
    let mut room = Room { entries: 3, text: 1 << 20 };
    let log = "{\"request_id\":\"a\"}\n".repeat(2);
    let kept = |room: &mut Room| {
        let log = read_lines(log.as_bytes(), None, room).unwrap();
        (log.entries.len(), log.beyond)
    };
    assert_eq!([kept(&mut room), kept(&mut room)], [(2, 0), (1, 1)]);
    assert_eq!(kept(&mut Room { entries: 9, text: 1 }), (1, 1));
}
