//! `tap2pcap http` beside what tshark dissects from captures of the same traces, and beside the logs of the clients and
//! servers.

use std::{collections::BTreeMap, path::Path};

use serde_json::Value;
use tap2pcap::proto::tap::socket_streamed_trace_segment::MessagePiece;

use crate::{
    fixture::{self, Dress},
    manifest::{Format, Sample, samples, socket_samples},
    tshark,
    util::{Dir, PROGRAM, ROOT, Run, convert, on_all_cores, run_command, tap2pcap},
};

/// A request or response, from whichever source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Seen {
    /// `GET /path`, or the code.
    start: String,
    /// By lower-case names, several values joined by commas.
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Seen {
    fn header(&mut self, name: &str, value: &str) {
        let values = self.headers.entry(name.to_ascii_lowercase()).or_default();
        if !values.is_empty() {
            values.push(',');
        }
        values.push_str(value);
    }
}

fn http(options: &[&str], inputs: &[&Path]) -> Run {
    let command = tap2pcap().arg("http").args(options);
    inputs.iter().fold(command, |command, input| command.arg(input)).run().expect_no_panic()
}

fn json(path: &Path) -> Vec<Value> {
    let run = http(&["--json"], &[path]).expect_status(0);
    run.stdout_text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The two messages of a JSON line.
fn messages(line: &Value) -> [Seen; 2] {
    ["request", "response"].map(|side| {
        let half = &line[side];
        let text = |name: &str| half[name].as_str().unwrap_or_default();
        let start = match side {
            "request" => format!("{} {}", text("method"), text("path")),
            _ => half["code"].as_u64().map_or_else(String::new, |code| code.to_string()),
        };
        let headers = half["headers"].as_object().into_iter().flatten();
        Seen {
            start,
            headers: headers.map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned())).collect(),
            body: base64_simd::STANDARD.decode_to_vec(text("body")).unwrap(),
        }
    })
}

const FIELDS: [&str; 14] = [
    "http.request.method",
    "http.request.uri",
    "http.response.code",
    "http.request.line",
    "http.response.line",
    "data.data",
    "media.type",
    "http2.type",
    "http2.streamid",
    "http2.header.name",
    "http2.header.value",
    "http2.data.data",
    "http2.length",
    "tcp.srcport",
];

/// What tshark dissects: the requests and the responses, in their order.
fn dissected(capture: &Path) -> [Vec<Seen>; 2] {
    let mut args = vec!["-d", "tcp.port==1-65535,http", "-Y", "http or http2", "-T", "fields"];
    // A unit separator cannot be in a header field.
    args.extend(["-E", "occurrence=a", "-E", "aggregator=\u{1f}", "-E", "separator=/t"]);
    args.extend(FIELDS.iter().flat_map(|field| ["-e", field]));
    let mut sides = [Vec::new(), Vec::new()];
    // The bodies of HTTP/2, by stream and sender.
    let mut bodies: BTreeMap<(String, String), Vec<u8>> = BTreeMap::new();
    let mut owners = Vec::new();
    for line in tshark::lines(capture, &args) {
        let values: Vec<Vec<&str>> = line.split('\t').map(|value| value.split('\u{1f}').collect()).collect();
        let [method, uri, code, request, response, data, media, kinds, streams, names, texts, datas, lens, port] =
            &values[..]
        else {
            panic!("{line}")
        };
        if !method[0].is_empty() || !code[0].is_empty() {
            let index = usize::from(method[0].is_empty());
            let mut seen = Seen { start: format!("{} {}", method[0], uri[0]), ..Seen::default() };
            if index == 1 {
                seen.start = code[0].to_owned();
            }
            for line in [request, response][index] {
                let (name, value) = line.strip_suffix("\\r\\n").unwrap().split_once(':').unwrap();
                seen.header(name, value.trim());
            }
            seen.body = hex(if data[0].is_empty() { media[0] } else { data[0] });
            sides[index].push(seen);
        }
        let mut datas = datas.iter();
        for ((kind, stream), len) in kinds.iter().zip(streams).zip(lens) {
            let key = ((*stream).to_owned(), port[0].to_owned());
            match *kind {
                // An empty frame shows the reassembled body once more.
                "0" => {
                    let digits = 2 * len.parse::<usize>().unwrap();
                    let data = if digits == 0 { None } else { datas.find(|data| data.len() == digits) };
                    bodies.entry(key).or_default().extend(hex(data.copied().unwrap_or_default()));
                }
                "1" => {
                    let mut seen = Seen::default();
                    let mut start = BTreeMap::new();
                    for (name, text) in names.iter().zip(texts) {
                        match name.strip_prefix(':') {
                            Some(name) => drop(start.insert(name, *text)),
                            None => seen.header(name, text),
                        }
                    }
                    let index = usize::from(start.contains_key("status"));
                    seen.start = match start.get("status") {
                        Some(code) => (*code).to_owned(),
                        None => format!("{} {}", start["method"], start["path"]),
                    };
                    owners.push((index, sides[index].len(), key));
                    sides[index].push(seen);
                }
                _ => {}
            }
        }
    }
    for (index, place, key) in owners {
        sides[index][place].body = bodies.remove(&key).unwrap_or_default();
    }
    sides
}

fn hex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2);
    digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// What the clients of the scenarios asked for, with the bodies that crossed the wire: `/text?n=N` is N bytes of text, and
/// `/echo` is what was posted.
fn truths(kind: &str) -> Vec<(String, Vec<u8>, Vec<u8>)> {
    let repeated = |line: &str, len: usize| line.bytes().cycle().take(len).collect::<Vec<u8>>();
    let text = |n: usize| (format!("GET /text?n={n}"), Vec::new(), repeated(&format!("the quick brown fox {n}\n"), n));
    let echo = |n: usize| ("POST /echo".to_owned(), repeated("payload line\n", n), repeated("payload line\n", n));
    match kind {
        "h1" => vec![text(300), echo(700), text(40)],
        "h1up" => vec![text(300), echo(700)],
        "h1trunc" => vec![text(5000), echo(3000), text(90)],
        "filter" => vec![text(300), echo(700)],
        "filterrec" => vec![text(300), echo(7000)],
        _ => vec![text(300), text(9000)],
    }
}

/// Real HTTP traces whose bytes are all there.
fn whole_http_samples() -> Vec<Sample> {
    let http = |sample: &Sample| {
        ["h1", "h2"].iter().any(|kind| sample.kind.starts_with(kind))
            && !sample.limited
            // The other formats have the same bytes, and starting tshark takes a second.
            && matches!(sample.format, Format::Binary | Format::JsonBytes)
    };
    let samples: Vec<_> = socket_samples().into_iter().filter(http).collect();
    assert!(samples.len() >= 24, "{}", samples.len());
    samples
}

#[test]
fn exchanges_are_those_that_tshark_dissects() {
    let dir = Dir::new("exchanges::tshark");
    let samples = whole_http_samples();
    on_all_cores(&samples, |sample| {
        let capture = dir.fresh().join("capture.pcapng");
        convert(&[], &sample.path, &capture).run().expect_status(0);
        let lines = json(&sample.path);
        assert!(!lines.is_empty(), "{}", sample.name);
        let ours: Vec<[Seen; 2]> = lines.iter().map(messages).collect();
        let theirs = dissected(&capture);
        for side in 0..2 {
            let ours: Vec<_> = ours.iter().map(|exchange| exchange[side].clone()).collect();
            assert_eq!(ours, theirs[side], "{}", sample.name);
        }
        let whole = |line: &Value| line["request"]["complete"] == true && line["response"]["complete"] == true;
        assert!(lines.iter().all(whole), "{}", sample.name);
    });
}

#[test]
fn exchanges_are_those_that_the_clients_and_servers_had() {
    let is_http = |sample: &Sample| sample.is_http() || sample.kind.starts_with("h1") || sample.kind == "h2";
    let readable = |sample: &Sample| !(sample.kind == "h2" && sample.format == Format::JsonString);
    let (mut whole, mut cut) = (0, 0);
    for sample in samples().iter().filter(|sample| is_http(sample) && readable(sample)) {
        let truths = truths(&sample.kind);
        let lines = json(&sample.path);
        // One stream or connection of several, or several on one connection.
        let alone = sample.is_http() || sample.kind == "h2";
        // A buffered trace stops recording a direction at its limit.
        let stops = sample.limited && !sample.streaming;
        assert!(if alone { lines.len() == 1 } else { lines.len() == truths.len() || stops }, "{}", sample.name);
        for (index, line) in lines.iter().enumerate() {
            let ours = messages(line);
            let (_, request, response) = match alone {
                false => &truths[index],
                true => truths
                    .iter()
                    .find(|(start, _, body)| *start == ours[0].start && line["response"]["size"] == body.len())
                    .unwrap_or_else(|| panic!("{}: {line}", sample.name)),
            };
            assert_eq!(
                ours[0].start,
                truths.iter().find(|truth| truth.1 == *request && truth.2 == *response).unwrap().0
            );
            for (side, (name, body)) in [("request", request), ("response", response)].into_iter().enumerate() {
                if line[name]["complete"] == true {
                    assert!(ours[side].body == *body, "{} {index} {name}", sample.name);
                    whole += 1;
                } else {
                    // What is there is true, and so is the size.
                    assert!(body.starts_with(&ours[side].body), "{} {index} {name}", sample.name);
                    assert!(sample.limited || sample.is_http(), "{}", sample.name);
                    cut += 1;
                }
                let answered = side == 0 || !ours[1].start.is_empty();
                assert!(!answered || line[name]["size"] == body.len(), "{} {index} {name}: {line}", sample.name);
            }
        }
    }
    assert!(whole >= 300 && cut >= 30, "{whole} {cut}");
}

#[test]
fn an_http_tap_gives_only_what_it_recorded() {
    for sample in samples().iter().filter(|sample| sample.is_http()) {
        let [line] = &json(&sample.path)[..] else { panic!("{}", sample.name) };
        assert_eq!(messages(line)[1].start, "200", "{}", sample.name);
        // No times in a streamed trace, and no sizes of the connection.
        assert_eq!(line["request"].get("time").is_some(), sample.kind == "filterrec" && !sample.streaming, "{line}");
        assert!(line["connection"].get("received_bytes").is_none() && line["request"].get("protocol").is_none());
    }
}

#[test]
fn lines_come_in_the_same_order_whatever_the_number_of_jobs() {
    let dir = Path::new(ROOT).join("testdata/envoy/1.40.0");
    let one = http(&["--json", "-j1"], &[&dir]);
    assert!(one.stdout_text().lines().count() > 100);
    assert_eq!(http(&["--json", "-j4"], &[&dir]).stdout, one.stdout);
    let table = http(&["-j1"], &[&dir]);
    assert_eq!(http(&["-j4"], &[&dir]).stdout, table.stdout);
    assert_eq!(table.stdout_text().lines().count(), one.stdout_text().lines().count() + 1);
    let times: Vec<_> = table.stdout_text().lines().skip(1).map(|line| line[..23].to_owned()).collect();
    assert!(times.is_sorted());
}

#[test]
fn sorting_puts_the_greatest_last_and_top_keeps_the_last() {
    let dir = Path::new(ROOT).join("testdata/envoy/1.40.0");
    let sizes = |options: &[&str]| {
        let run = http(&[&["--json"], options].concat(), &[&dir]);
        let lines = run.stdout_text().lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.map(|line| line["response"]["size"].as_u64()).collect::<Vec<_>>()
    };
    let all = sizes(&["--sort", "response.size"]);
    assert!(all.is_sorted() && all[0].is_none());
    assert_eq!(sizes(&["--sort", "response.size", "--top", "3"]), all[all.len() - 3..]);
    let reversed = sizes(&["--sort=-response.size"]);
    assert!(reversed.iter().rev().is_sorted());
    let run = http(&["--sort", "response.status"], &[&dir]).expect_status(2);
    run.expect_stderr("response.code");
}

#[test]
fn the_table_escapes_what_a_trace_says() {
    let dir = Dir::new("exchanges::escaped");
    let events = [
        fixture::read(1, b"GET /\x1b]0;owned\x07\xe2\x80\xae HTTP/1.1\r\nHost: a\r\n\r\n"),
        fixture::write(2, b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
        fixture::read(3, "GET /\u{202e}x HTTP/1.1\r\nHost: \u{9b}a\r\n\r\n".as_bytes()),
    ];
    let trace = fixture::buffered(7, fixture::downstream(), events);
    let path = dir.create("trace.pb", Dress::Binary.file(&[trace]));
    for options in [&[][..], &["--json"]] {
        let run = http(options, &[&path]);
        let harmful = |char: char| (char.is_control() && char != '\n') || char == '\u{202e}';
        assert!(!run.stdout_text().contains(harmful), "{run:?}");
        assert!(!run.stdout.is_empty(), "{run:?}");
    }
}

#[test]
fn http_ends_with_the_status_that_says_how_it_went() {
    let dir = Dir::new("exchanges::status");
    let whole = Path::new(ROOT).join("testdata/envoy/1.40.0/h1_str_PROTO_BINARY_133.pb");
    let cut = Path::new(ROOT).join("testdata/envoy/1.40.0/h1trunc_str_PROTO_BINARY_137.pb");
    let garbage = dir.create("garbage.pb", b"\xff\xff\xff");
    http(&[], &[&whole]).expect_status(0);
    http(&[], &[&whole, &garbage]).expect_status(1);
    http(&[], &[&garbage]).expect_status(2);
    http(&[], &[&cut]).expect_status(0);
    http(&["--strict"], &[&cut]).expect_status(1);
    // No HTTP is no fault.
    let tcp = Path::new(ROOT).join("testdata/envoy/1.40.0/tcp_str_PROTO_BINARY_127.pb");
    let run = http(&[], &[&tcp]).expect_status(0);
    assert!(run.stdout.is_empty());
    // A reader that stops early is no fault either.
    let mut command = std::process::Command::new("bash");
    let script = format!("set -o pipefail; {PROGRAM} http --json {ROOT}/testdata/envoy | head -c 100 >/dev/null");
    command.args(["-c", &script]);
    run_command(command).expect_status(0);
}

#[test]
fn the_body_is_kept_up_to_its_limit_and_without_its_coding() {
    use std::io::Write as _;
    let dir = Dir::new("exchanges::bodies");
    let text = b"hello ".repeat(2000);
    let packed = |coding: &str| match coding {
        "gzip" => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(&text).unwrap();
            encoder.finish().unwrap()
        }
        "deflate" => {
            let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(&text).unwrap();
            encoder.finish().unwrap()
        }
        "zstd" => zstd::encode_all(text.as_slice(), 3).unwrap(),
        _ => text.clone(),
    };
    for coding in ["gzip", "deflate", "zstd", "identity"] {
        let body = packed(coding);
        let head = format!("HTTP/1.1 200 OK\r\ncontent-encoding: {coding}\r\ncontent-length: {}\r\n\r\n", body.len());
        let events = [
            fixture::read(1, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
            fixture::write(2, &[head.as_bytes(), &body].concat()),
        ];
        let trace = fixture::buffered(7, fixture::downstream(), events);
        let path = dir.create(&format!("{coding}.pb"), Dress::Binary.file(&[trace]));
        let [line] = &json(&path)[..] else { panic!("{coding}") };
        assert!(messages(line)[1].body == text, "{coding}");
        assert_eq!(line["response"]["size"], body.len(), "{coding}");
        let run = http(&["--json", "--max-body", "10"], &[&path]);
        let line: Value = serde_json::from_str(run.stdout_text()).unwrap();
        assert!(messages(&line)[1].body.len() <= 10, "{coding}");
    }
}

#[test]
fn exchanges_of_one_large_event_do_not_pile_up() {
    let responses = b"HTTP/1.1 204 \r\n\r\n".repeat(300_000);
    let events = [fixture::read(1, b"GET / HTTP/1.1\r\n\r\n"), fixture::write(2, &responses), fixture::closed(3)];
    let trace = Dress::Delimited.file(&fixture::streamed(7, fixture::downstream(), events));
    // The exchanges take about 700 bytes each: 210 MB together.
    let run = tap2pcap().args(&["http", "--json", "--stats", "-"]).stdin(trace).run_within(130).expect_status(0);
    assert!(run.stdout_text().contains("\"count\":"), "{}", run.stdout_text());
}

#[test]
fn a_long_connection_takes_little_memory() {
    let ok = |len: usize| format!("HTTP/1.1 200 OK\r\ncontent-length: {len}\r\n\r\n").into_bytes();
    let get = fixture::read(1, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let event = |event| Dress::Delimited.file(&[fixture::segment(7, MessagePiece::Event(event))]);
    const PIECES: usize = 1600;
    let piece = vec![b'x'; 64 << 10];
    // One body of 100 MiB, then 2,000 exchanges whose lines together are 50 MB and wait for the connection's end.
    let large = [event(get.clone()), event(fixture::write(2, &ok(PIECES * piece.len())))].concat();
    let small = [event(get), event(fixture::write(3, &[ok(20_000), piece[..20_000].to_vec()].concat()))].concat();
    let trace = [
        Dress::Delimited.file(&fixture::streamed(7, fixture::downstream(), [])),
        large,
        event(fixture::write(2, &piece)).repeat(PIECES),
        small.repeat(2000),
    ]
    .concat();
    let run = tap2pcap().args(&["http", "--json", "-"]).stdin(trace).run_within(128).expect_status(0);
    let sizes: Vec<Value> = run
        .stdout_text()
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["response"]["size"].clone())
        .collect();
    assert_eq!((sizes.len(), &sizes[0], &sizes[2000]), (2001, &(PIECES * piece.len()).into(), &20_000.into()));
}

#[test]
fn bytes_are_counted_up_to_the_greatest_number() {
    let event = |seq_num: u64| {
        format!(
            "{{\"socket_streamed_trace_segment\": {{\"trace_id\": \"1\", \"event\": {{\"timestamp\": \
             \"2026-11-26T10:00:00Z\", \"seq_num\": \"{seq_num}\", \"read\": {{\"data\": {{\"as_bytes\": \"eA==\"}}}}}}}}}}\n"
        )
    };
    let connection = "{\"socket_streamed_trace_segment\": {\"trace_id\": \"1\", \"connection\": {}}}\n";
    let dir = Dir::new("greatest_number");
    let trace = dir.create("trace.json", connection.to_owned() + &event(u64::MAX) + &event(1 << 63) + &event(1));
    http(&["--json"], &[&trace]);
    tap2pcap().args(&["info", "--json", "--where", "true"]).arg(&trace).run().expect_no_panic();
}
