//! Traces inside other messages: JSON arrays and objects, protobuf messages, gRPC frames, padding.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};
use tap2pcap::proto::tap::TraceWrapper;

use crate::{
    fixture::{self, Dress, TIME, closed, downstream, read, write},
    tshark,
    util::{Dir, ROOT, TSHARK, convert, tap2pcap},
    wire::{append_field, append_varint},
};

fn testdata(name: &str) -> PathBuf {
    Path::new(ROOT).join("testdata").join(name)
}

const REQUEST: &[u8] = b"GET /a HTTP/1.1\r\nhost: web.example.com\r\n\r\n";
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n\x00\xff";

/// A streamed trace, and a buffered one.
fn traces() -> [Vec<TraceWrapper>; 2] {
    let events = [read(TIME, REQUEST), write(TIME + 1_000_000, RESPONSE)];
    let streamed = events.clone().into_iter().chain([closed(TIME + 2_000_000)]);
    [fixture::streamed(7, downstream(), streamed), vec![fixture::buffered(8, downstream(), events)]]
}

/// The capture of an input that must be without any flaw.
#[track_caller]
fn capture(dir: &Dir, name: &str, bytes: &[u8]) -> Vec<u8> {
    let own = dir.fresh();
    let (input, output) = (own.join(name), own.join("out.pcap"));
    fs::write(&input, bytes).unwrap();
    convert(&[], &input, &output).run().expect_clean();
    fs::read(&output).unwrap()
}

/// Expects that the envelope has the same packets as the trace in it.
#[track_caller]
fn expect_same(dir: &Dir, what: &str, envelope: &[u8], messages: &[TraceWrapper]) {
    let plain = capture(dir, "trace.pb", &Dress::Binary.file(messages));
    let wrapped = capture(dir, "trace", envelope);
    assert!(wrapped == plain, "{what}: other packets");
    let options = ["validate", "--strict", "-"];
    tap2pcap().args(&options).stdin(envelope).run().expect_status(0);
}

fn field(number: u64, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    append_field(&mut out, number, content);
    out
}

fn number(number: u64, value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    append_varint(&mut out, number << 3);
    append_varint(&mut out, value);
    out
}

fn delimited(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    append_varint(&mut out, message.len() as u64);
    [out, message.to_vec()].concat()
}

fn grpc(flag: u8, message: &[u8]) -> Vec<u8> {
    [&[flag][..], &(message.len() as u32).to_be_bytes(), message].concat()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// `envoy.service.tap.v3.StreamTapsRequest`s: identifier = 1 in the first one, trace_id = 2, trace = 3.
fn stream_taps(wrappers: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let locality = field(4, &[field(1, b"eu"), field(2, b"a")].concat());
    let node = field(1, &[field(1, b"envoy-1"), field(2, b"scp"), locality].concat());
    let identifier = field(1, &[node, field(2, b"tap-1")].concat());
    let each = wrappers.iter().enumerate().map(|(index, wrapper)| {
        let identifier = if index == 0 { &identifier[..] } else { &[] };
        [identifier, &number(2, 9), &field(3, wrapper)].concat()
    });
    each.collect()
}

#[test]
fn traces_in_protobuf_messages_give_the_same_packets() {
    const TYPE: &[u8] = b"type.googleapis.com/envoy.data.tap.v3.TraceWrapper";
    let dir = Dir::new("protobuf-envelopes");
    for messages in traces() {
        let wrappers: Vec<_> =
            messages.iter().map(|message| Dress::Binary.file(std::slice::from_ref(message))).collect();
        let taps = stream_taps(&wrappers);
        let each = |wrap: &dyn Fn(&[u8]) -> Vec<u8>| wrappers.iter().flat_map(|wrapper| wrap(wrapper)).collect();
        let taps_each = |wrap: &dyn Fn(&[u8]) -> Vec<u8>| taps.iter().flat_map(|message| wrap(message)).collect();
        let any = |wrapper: &[u8]| [field(1, TYPE), field(2, wrapper)].concat();
        let envelopes: [(&str, Vec<u8>); 17] = [
            ("a field", each(&|wrapper| field(1, wrapper))),
            ("another field", each(&|wrapper| field(15, wrapper))),
            ("StreamTapsRequests", taps.concat()),
            ("delimited StreamTapsRequests", taps_each(&delimited)),
            ("StreamTapsRequests over gRPC", taps_each(&|message| grpc(0, message))),
            ("packed StreamTapsRequests over gRPC", taps_each(&|message| grpc(1, &gzip(message)))),
            ("bare traces over gRPC", each(&|wrapper| grpc(0, wrapper))),
            ("packed traces over gRPC", each(&|wrapper| grpc(1, &gzip(wrapper)))),
            ("gRPC-Web", [taps_each(&|message| grpc(0, message)), grpc(0x80, b"grpc-status:0\r\n")].concat()),
            ("gzip around gRPC", gzip(&taps_each(&|message| grpc(0, message)))),
            ("Any", any(&wrappers.concat())),
            ("a delimited list of Any", each(&|wrapper| delimited(&any(wrapper)))),
            ("a list in a field", field(5, &each(&|wrapper| field(1, wrapper)))),
            ("depth 4", each(&|wrapper| field(3, &field(1, &field(7, &field(2, wrapper)))))),
            ("a whole file as bytes", [number(1, 7), field(2, b"topic"), field(4, &wrappers.concat())].concat()),
            (
                "fields of other types",
                each(&|wrapper| {
                    [&[0x0d, 1, 2, 3, 4, 0x11, 1, 2, 3, 4, 5, 6, 7, 8][..], &field(6, wrapper), &number(7, 1)].concat()
                }),
            ),
            ("a field of a megabyte before", [field(9, &vec![b'x'; 1 << 20]), taps.concat()].concat()),
        ];
        for (what, bytes) in envelopes {
            // A head without a trace in it says nothing.
            if what == "a field of a megabyte before" {
                let input = dir.create("late", bytes);
                convert(&[], &input, &dir.join("late.pcap")).run().expect_status(2);
            } else {
                expect_same(&dir, what, &bytes, &messages);
            }
        }
    }
}

/// More than the head that detection looks at, with messages of all sizes around each of them.
#[test]
fn long_envelopes_are_read_to_their_end() {
    let dir = Dir::new("long-envelopes");
    let messages: Vec<_> =
        (0..3000).map(|id| fixture::buffered(id, downstream(), [read(TIME + id, REQUEST)])).collect();
    let wrappers: Vec<_> = messages.iter().map(|message| Dress::Binary.file(std::slice::from_ref(message))).collect();
    let list: Vec<u8> = wrappers.iter().flat_map(|wrapper| field(1, &field(2, wrapper))).collect();
    expect_same(&dir, "one message", &field(4, &list), &messages);
    expect_same(&dir, "one gRPC message", &grpc(0, &list), &messages);
    let padded = wrappers.iter().enumerate();
    let padded: Vec<u8> =
        padded.flat_map(|(at, wrapper)| [field(3, wrapper), field(9, &vec![7; at * 37 % 5000])].concat()).collect();
    expect_same(&dir, "fields between", &padded, &messages);
    let array = Dress::Json.file(&messages);
    let array = String::from_utf8(array).unwrap().replace("\n}\n{\n", "\n},\n\n{\n");
    expect_same(&dir, "an array", format!("[{array}]").as_bytes(), &messages);
}

#[test]
fn a_cut_envelope_gives_what_came_before() {
    let dir = Dir::new("cut-envelopes");
    let [messages, _] = traces();
    let wrappers: Vec<_> = messages.iter().map(|message| Dress::Binary.file(std::slice::from_ref(message))).collect();
    let taps = stream_taps(&wrappers);
    let json = String::from_utf8(Dress::DenseJson.file(&messages)).unwrap().replace("}{", "},{");
    let framed: Vec<u8> = taps.iter().flat_map(|message| grpc(0, message)).collect();
    for (what, whole) in
        [("taps", taps.concat()), ("gRPC", framed), ("JSON", format!("{{\"traces\": [{json}]}}").into_bytes())]
    {
        for len in (1..whole.len()).step_by(7) {
            let input = dir.create("cut", &whole[..len]);
            let run = convert(&[], &input, &dir.join("cut.pcap")).run().expect_no_panic();
            let output = fs::read(dir.join("cut.pcap")).unwrap_or_default();
            match run.status.code() {
                // Between two messages of a list without an end.
                Some(0) => assert!(what != "JSON" && output.len() > 24, "{what} {len}{run:?}"),
                Some(1) => {
                    assert!(run.stderr.contains("cut off") || run.stderr.contains("ends inside"), "{what} {len}{run:?}")
                }
                _ => assert!(len < whole.len() / 2, "{what} {len}{run:?}"),
            }
        }
    }
}

/// What is damaged in one message costs that message.
#[test]
fn damage_in_an_envelope_is_an_error_at_its_place() {
    let dir = Dir::new("damaged-envelopes");
    let messages: Vec<_> = (0..3).map(|id| fixture::buffered(id, downstream(), [read(TIME + id, REQUEST)])).collect();
    let wrappers: Vec<_> = messages.iter().map(|message| Dress::Binary.file(std::slice::from_ref(message))).collect();
    let mut taps = stream_taps(&wrappers);
    // The trace's own length goes beyond the message around it.
    let at = taps[1].len() - wrappers[1].len() + 1;
    taps[1][at] += 3;
    let place = taps[0].len() + at - 1;
    let bytes = taps.concat();
    let output = dir.join("out.pcap");
    let run = convert(&[], &dir.create("taps", &bytes), &output).run().expect_status(1);
    run.expect_stderr(&format!("byte {place}, message 1: a field of"));
    assert_eq!(payloads(&output), 2);

    // JSON keeps its offsets, whatever is around.
    let json = String::from_utf8(Dress::Json.file(&messages)).unwrap().replace("\n}\n{\n", "\n},\n{\n");
    let json = format!("{{\"note\": \"{}\", \"traces\": [{json}]}}", "é".repeat(1000));
    let second = json.match_indices("as_bytes").nth(1).unwrap().0;
    let broken = format!("{}\"!!\"{}", &json[..second + 11], &json[second + 15..]);
    let run = convert(&[], &dir.create("json", broken), &output).run().expect_status(1);
    run.expect_stderr(&format!("byte {}, message 1: invalid base64", second + 12));
    assert_eq!(payloads(&output), 2);
}

/// How many packets have a payload.
fn payloads(capture: &Path) -> usize {
    tshark::read(capture).iter().filter(|frame| !frame.payload.is_empty()).count()
}

#[test]
fn zeros_are_passed_over_with_one_warning() {
    let dir = Dir::new("zeros");
    let [messages, _] = traces();
    let plain = capture(&dir, "trace.pb", &Dress::Binary.file(&messages));
    let wrappers: Vec<_> = messages.iter().map(|message| Dress::Binary.file(std::slice::from_ref(message))).collect();
    let padded = |len: usize| -> Vec<u8> {
        let pad = |wrapper: &Vec<u8>| [wrapper.clone(), vec![0; len - wrapper.len()]].concat();
        wrappers.iter().flat_map(pad).collect()
    };
    let binary = wrappers.concat();
    let taps = stream_taps(&wrappers).concat();
    let delimited: Vec<u8> = Dress::Delimited.file(&messages);
    let end = |bytes: &[u8], zeros: usize| [bytes, &vec![0; zeros]].concat();
    let datagrams = padded(1472);
    let zeros = datagrams.len() - binary.len();
    let at =
        |offset: usize, bytes: usize, places: &str| format!("byte {offset}, message 0: {bytes} zero bytes") + places;
    let cases = [
        (
            "a preallocated file",
            end(&binary, 1 << 20),
            format!(": {} zero bytes between or after messages, in 1 place;", 1 << 20),
        ),
        ("one zero", end(&binary, 1), ": 1 zero bytes between or after messages, in 1 place;".into()),
        ("datagrams", datagrams, format!(": {zeros} zero bytes between or after messages, in 4 places;")),
        (
            "a hole before",
            [vec![0; 5000], binary.clone()].concat(),
            at(0, 5000, " between or after messages, in 1 place;"),
        ),
        ("delimited", end(&delimited, 4096), ": 4096 zero bytes between or after messages, in 1 place;".into()),
        ("an envelope", end(&taps, 300), ": 300 zero bytes between or after messages, in 1 place;".into()),
    ];
    for (what, bytes, words) in cases {
        let input = dir.create("trace", &bytes);
        let output = dir.join("out.pcap");
        convert(&[], &input, &output).run().expect_clean();
        assert!(fs::read(&output).unwrap() == plain, "{what}: other packets");
        let run = tap2pcap().arg("validate").arg(&input).run().expect_status(0);
        let text = run.stdout_text();
        assert_eq!(text.matches("zero-padding").count(), 1, "{what}{run:?}");
        assert!(text.contains("warning") && text.contains(&words), "{what}: {words}{run:?}");
        tap2pcap().args(&["validate", "--strict"]).arg(&input).run().expect_status(1);
    }
    // What follows the zeros is still looked at.
    let input = dir.create("garbage", [&end(&binary, 9)[..], b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"].concat());
    convert(&[], &input, &dir.join("out.pcap"))
        .run()
        .expect_status(1)
        .expect_stderr("the bytes after the last message are not a message");
}

fn objects(messages: &[TraceWrapper], dress: Dress) -> Vec<Value> {
    let text = dress.file(messages);
    serde_json::Deserializer::from_slice(&text).into_iter().map(Result::unwrap).collect()
}

#[test]
fn traces_in_json_give_the_same_packets() {
    let dir = Dir::new("json-envelopes");
    for messages in traces() {
        for dress in [Dress::Json, Dress::DenseJson] {
            let traces = objects(&messages, dress);
            let each = |wrap: &dyn Fn(&Value) -> Value| -> String {
                traces.iter().map(|trace| wrap(trace).to_string() + "\n").collect()
            };
            let wrapped = |wrap: &dyn Fn(&Value) -> Value| Value::from(traces.iter().map(wrap).collect::<Vec<_>>());
            let decoy = "say \"{\\\"http_buffered_trace\\\": {\\\"request\\\": {}}}\", or {\"trace_id\": 1";
            let source = |trace: &Value| json!({"_id": "1", "_score": null, "_source": {"trace": trace}});
            let any = |trace: &Value| {
                let mut any = json!({"@type": "type.googleapis.com/envoy.data.tap.v3.TraceWrapper"});
                any.as_object_mut().unwrap().extend(trace.as_object().unwrap().clone());
                any
            };
            let (all, bare) = (Value::from(traces.clone()), |trace: &Value| {
                trace.as_object().unwrap().values().next().unwrap().clone()
            });
            let envelopes = [
                ("an array", all.to_string()),
                ("a pretty array", serde_json::to_string_pretty(&all).unwrap()),
                ("CR LF", serde_json::to_string_pretty(&all).unwrap().replace('\n', "\r\n")),
                ("a byte order mark", format!("\u{feff}{all}")),
                ("an object with an array", json!({"count": 2, "traces": all}).to_string()),
                ("an array of arrays", json!([[all]]).to_string()),
                ("depth 4", json!({"@timestamp": "x", "a": {"b": {"c": {"d": all}}}, "z": 1.5e3}).to_string()),
                ("what a search engine answers", json!({"took": 1, "hits": {"hits": wrapped(&source)}}).to_string()),
                ("a name in a string", json!({"a": decoy, "trace": all, "z": [decoy, {decoy: decoy}]}).to_string()),
                ("one a line", each(&|trace| json!({"ts": 1, "ok": true, "msg": decoy, "trace": trace, "z": null}))),
                (
                    "StreamTapsRequests",
                    each(&|trace| json!({"identifier": {"node": {"id": "n"}}, "trace_id": "9", "trace": trace})),
                ),
                ("Any", each(&any)),
                ("Any in an envelope", each(&|trace| json!({"payload": any(trace)}))),
                ("Any with a value", each(&|trace| json!({"trace": {"@type": "x", "value": trace}}))),
                ("without TraceWrapper", each(&|trace| json!({"trace": bare(trace)}))),
                ("an array without TraceWrapper", wrapped(&bare).to_string()),
                ("without anything", each(&bare)),
                ("a string of a megabyte before", json!({"blob": "x\"".repeat(1 << 17), "trace": all}).to_string()),
                ("objects before", json!([vec![json!({"k": {"v": [1, 2.5, "t"]}}); 9000], all]).to_string()),
                (
                    "deep before",
                    format!(
                        "{{\"x\":{}{},\"t\":{all}}}",
                        "{\"a\":1,\"b\":".repeat(40),
                        "1".to_owned() + &"}".repeat(40)
                    ),
                ),
                ("Python's numbers", format!("[NaN, Infinity, -Infinity, -1.5E-7, {all}]")),
            ];
            for (what, text) in envelopes {
                expect_same(&dir, what, text.as_bytes(), &messages);
            }
        }
    }
}

#[test]
fn what_is_no_trace_in_json_becomes_none() {
    let dir = Dir::new("json-decoys");
    let trace = json!({"headers": [{"key": ":method", "value": "GET"}]});
    let decoys = [
        json!({"a": json!({"http_buffered_trace": trace}).to_string()}),
        json!(["http_buffered_trace", trace]),
        json!({"definitions": {"TraceWrapper": {"properties": {"http_buffered_trace": {"$ref": "#/x"}}}}}),
        json!({"x": {"http_buffered_trace": {}, "socket_buffered_trace": null}}),
        json!({"x": {"http_buffered_trace": [trace]}}),
        json!({"x": {"http_buffered_traces": trace["headers"]}}),
        json!({"log": {"entries": [{"request": {"method": "GET", "headers": [{"name": ":method", "value": "GET"}]}}]}}),
        json!({"request": {"headers": [{"key": "Host", "value": "x"}]}}),
        json!({"connection": {"local_address": "10.0.0.1:80"}, "events": [{"timestamp": 1, "message": "read"}]}),
        json!({"event": {"read": true, "closed": 1}}),
    ];
    for decoy in decoys {
        for text in [decoy.to_string(), json!([decoy]).to_string(), serde_json::to_string_pretty(&decoy).unwrap()] {
            let input = dir.create("decoy.json", &text);
            let run = convert(&[], &input, &dir.join("out.pcap")).run().expect_status(2);
            run.expect_stderr("not an Envoy tap trace: it ");
            for command in ["validate", "info"] {
                tap2pcap().arg(command).arg(&input).run().expect_status(2);
            }
        }
    }
}

#[test]
fn times_in_json_may_be_numbers_or_objects() {
    let dir = Dir::new("json-times");
    let seconds = TIME / 1_000_000_000;
    let micros = TIME / 1000 * 1000;
    let cases = [
        (json!(seconds), seconds * 1_000_000_000),
        (serde_json::from_str(&format!("{seconds}.123456")).unwrap(), micros),
        (json!(TIME / 1_000_000), TIME / 1_000_000 * 1_000_000),
        (json!(TIME / 1000), micros),
        (json!(TIME), TIME),
        (json!({"seconds": seconds, "nanos": 123_456_789}), TIME),
        (json!({"seconds": seconds.to_string(), "nanos": 123_456_789}), TIME),
        (json!({"nanos": 0, "seconds": seconds}), seconds * 1_000_000_000),
        (json!(format!("{seconds}.123456789")), TIME),
        (json!(seconds.to_string()), seconds * 1_000_000_000),
        (json!("2026-01-31T13:00:00.123456789+01:00"), TIME),
    ];
    for (time, expected) in cases {
        for [name, inside] in [["timestamp", "seq_num"], ["timestamp", "seqNum"]] {
            let trace =
                json!({"trace_id": 7, "events": [{name: time, inside: "1", "read": {"data": {"as_bytes": "eA=="}}}]});
            let input = dir.create("t.json", json!({"socket_buffered_trace": trace}).to_string());
            let output = dir.join("out.pcap");
            convert(&["--tcp", "bare"], &input, &output).run().expect_clean();
            assert_eq!(tshark::read(&output)[0].time, expected, "{time}");
        }
    }
    // The other time field.
    let head = json!([{"key": ":method", "value": "GET"}, {"key": ":path", "value": "/"}]);
    for name in ["headers_received_time", "headersReceivedTime"] {
        let trace =
            json!({"http_buffered_trace": {"request": {"headers": head, name: {"seconds": seconds, "nanos": 5}}}});
        let input = dir.create("h.json", trace.to_string());
        convert(&["--tcp", "bare"], &input, &dir.join("out.pcap")).run().expect_status(0);
        assert_eq!(tshark::read(&dir.join("out.pcap"))[0].time, seconds * 1_000_000_000 + 5);
    }
    for (time, words) in [
        (json!(-5), "a time of -5 seconds"),
        (json!(1e30), "does not fit a capture"),
        (json!("soon"), "not in RFC 3339 format"),
        (json!({"seconds": seconds, "nanos": 1_000_000_000}), "must be 0 to 999999999"),
        (json!({"seconds": "x"}), "expected a whole number"),
        (json!([1]), "expected a time"),
        (json!(true), "expected a time"),
    ] {
        let trace = json!({"events": [{"timestamp": time, "read": {"data": {"as_bytes": "eA=="}}}]});
        let input = dir.create("bad.json", json!({"socket_buffered_trace": trace}).to_string());
        let run = convert(&[], &input, &dir.join("out.pcap")).run().expect_no_panic().expect_stderr(words);
        assert_ne!(run.status.code(), Some(0), "{time}");
    }
}

/// The layouts of early 2019: no bodies, and trailers with the number that bodies have today.
#[test]
fn http_traces_of_2019_are_read() {
    let dir = Dir::new("http-2019");
    let header = |name: &str, value: &str| [field(1, name.as_bytes()), field(2, value.as_bytes())].concat();
    let list = |number: u64, fields: &[(&str, &str)]| -> Vec<u8> {
        fields.iter().flat_map(|(name, value)| field(number, &header(name, value))).collect()
    };
    let head =
        [(":method", "POST"), (":path", "/a.B/C"), (":authority", "x.example"), ("content-type", "application/grpc")];
    let response =
        [list(1, &[(":status", "200")]), list(2, &[("grpc-status", "5"), ("grpc-message", "none")])].concat();
    let trace = field(1, &[field(1, &list(1, &head)), field(2, &response)].concat());
    let output = dir.join("out.pcapng");
    convert(&[], &dir.create("first.pb", trace), &output).run().expect_status(0);
    let args = [
        "-r",
        output.to_str().unwrap(),
        "-d",
        "tcp.port==80,http2",
        "-T",
        "fields",
        "-e",
        "http2.header.value",
        "-Y",
        "http2",
    ];
    let run = TSHARK.run(args, &[]);
    assert!(run.stdout_text().contains("/a.B/C") && run.stdout_text().contains("none"), "{run:?}");
    let json = |fields: &[(&str, &str)]| -> Value {
        fields.iter().map(|(name, value)| json!({"key": name, "value": value})).collect()
    };
    let head = [(":method", "GET"), (":path", "/a"), (":authority", "x.example")];
    let flat = json!({"http_buffered_trace": {"request_headers": json(&head), "response_headers": json(&[(":status", "204")])}});
    convert(&[], &dir.create("flat.json", flat.to_string()), &output).run().expect_clean();
    assert_eq!(exchanges(&output), (1, 1));
}

/// How many HTTP requests and responses Wireshark dissects.
fn exchanges(capture: &Path) -> (usize, usize) {
    let count = |filter: &str| {
        let args = ["-r", capture.to_str().unwrap(), "-Y", filter, "-T", "fields", "-e", "frame.number"];
        TSHARK.run(args, &[]).stdout_text().lines().count()
    };
    (count("http.request"), count("http.response"))
}

#[test]
fn inputs_as_people_have_them_are_read() {
    let dir = Dir::new("envelope-inputs");
    for (name, expected) in [
        ("alert_envelope.json", (1, 1)),
        ("array.json", (2, 2)),
        ("object_of_array.json", (2, 2)),
        ("tap_request.bin", (1, 1)),
        ("tap_request_204.bin", (1, 1)),
        ("stream_taps_request.bin", (1, 1)),
        ("stream_taps_grpc_framed.bin", (1, 1)),
        ("zero_padded.pb", (1, 1)),
        ("datagrams_padded.pb", (1, 1)),
        ("time_epoch_number.json", (1, 0)),
    ] {
        let output = dir.join("out.pcapng");
        convert(&[], &testdata("inputs").join(name), &output).run().expect_clean();
        assert_eq!(exchanges(&output), expected, "{name}");
    }
}

/// A message of a stream is converted before the next one is there.
#[test]
fn a_live_stream_of_envelopes_waits_for_no_more_than_it_needs() {
    let [messages, _] = traces();
    let wrappers: Vec<_> = messages.iter().map(|message| Dress::Binary.file(std::slice::from_ref(message))).collect();
    let first = stream_taps(&wrappers)[0].clone();
    let run = tap2pcap().args(&["validate", "-"]).stdin(first).run();
    assert!(run.stdout_text().contains("missing-close"), "{run:?}");
}
