//! The options of redaction: what they refuse, and what they change in the table, in JSON, in HAR and in captures.

use std::{collections::BTreeSet, fs, io::Write as _, net::IpAddr, path::Path};

use serde_json::Value;
use tap2pcap::proto::{envoy::config::core::v3::Address, tap::http_buffered_trace::Message};

use crate::{
    fixture::{Dress, TIME, buffered, closed, downstream, pipe, read, socket, write},
    http,
    manifest::samples,
    util::{Dir, Run, TSHARK, convert, on_all_cores, tap2pcap},
};

const KEY: &str = "0123456789abcdeffedcba98765432101032547698badcfeefcdab8967452301\n";
const OTHER_KEY: &str = "2b7e151628aed2a6abf7158809cf4f3ca9f5ba40db214c3798f2e1c23456789a\n";

const CLIENTS: [&str; 2] = ["10.1.2.3", "10.1.2.200"];
const SERVER: &str = "192.0.2.1";

/// What [`SERVER`] becomes with [`KEY`], by the draft.
const NEW_SERVER: &str = "100.115.72.131";

/// A request of each client to the server, and one through a unix socket, in a file each.
fn traces(dir: &Dir) -> std::path::PathBuf {
    let request = format!(
        "GET /a?from={}&to=http%3A%2F%2Fshop.example%2F HTTP/1.1\r\nHost: shop.example:8080\r\nUser-Agent: planted\r\n\
         X-Forwarded-For: {}, {}\r\nForwarded: for={};host=shop.example\r\nVia: 1.1 proxy.example\r\n\r\n",
        CLIENTS[0], CLIENTS[0], CLIENTS[1], CLIENTS[1]
    );
    let response = format!("HTTP/1.1 302 Found\r\nLocation: http://{SERVER}:8080/b\r\nContent-Length: 0\r\n\r\n");
    let trace = |id: u64, local: Option<Address>, remote: Option<Address>| {
        let connection = tap2pcap::proto::tap::Connection { local_address: local, remote_address: remote };
        let events =
            [read(TIME, request.as_bytes()), write(TIME + 1_000_000, response.as_bytes()), closed(TIME + 2_000_000)];
        Dress::Binary.file(&[buffered(id, connection, events)])
    };
    let folder = dir.join("customer");
    fs::create_dir(&folder).unwrap();
    for (index, client) in CLIENTS.iter().enumerate() {
        let bytes = trace(4_242_424_242 + index as u64, socket(SERVER, 8080), socket(client, 50_000));
        fs::write(folder.join(format!("acme_{index}.pb")), bytes).unwrap();
    }
    fs::write(folder.join("acme_2.pb"), trace(4_242_424_299, pipe("/run/acme.sock"), None)).unwrap();
    folder
}

fn listed(options: &[&str], input: &Path) -> Run {
    tap2pcap().args(&["http", "-q"]).args(options).arg(input).run().expect_no_panic()
}

fn json(options: &[&str], input: &Path) -> Vec<Value> {
    let run = listed(&[&["--json"], options].concat(), input);
    run.stdout_text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn har(options: &[&str], input: &Path, output: &Path) -> Value {
    convert(&[&["-q"], options].concat(), input, output).run().expect_no_panic();
    serde_json::from_slice(&fs::read(output).unwrap()).unwrap()
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// All text in a value.
fn strings(value: &Value, out: &mut Vec<String>) {
    match value {
        Value::String(text) => out.push(text.clone()),
        Value::Array(values) => values.iter().for_each(|value| strings(value, out)),
        Value::Object(members) => members.values().for_each(|value| strings(value, out)),
        _ => {}
    }
}

#[test]
fn contradictions_are_refused() {
    let dir = Dir::new("redact-usage");
    let folder = traces(&dir);
    let key = text(&dir.create("key", KEY));
    for (options, why) in [
        (&["--keep-header", "x-a"][..], "--keep-header needs --redact"),
        (&["--redact", "--redact-names"], "--redact-names needs --redact-addresses KEYFILE: without a secret key"),
        (&["--redact-header", "x y"], "expected the name of a header field"),
        (&["--redact-report", "-"], "expected the name of a file"),
        (&["--redact-report", "/"], "is a directory"),
        (&["--redact-report", "/nowhere/report"], "/nowhere/report: cannot write the report"),
        (&["--redact-addresses", "/nowhere/key"], "/nowhere/key: "),
        (&["--redact-addresses", &key, "--redact-report", &key], "is both the key and the report"),
    ] {
        listed(options, &folder).expect_status(2).expect_stderr(why);
        convert(options, &folder, &dir.join("x.har")).run().expect_status(2).expect_stderr(why);
    }
    let input = text(&folder.join("acme_0.pb"));
    let before = fs::read(&input).unwrap();
    listed(&["--redact-report", &input], &folder).expect_status(2).expect_stderr("is both input and output");
    let same = text(&dir.join("x.har"));
    let run = convert(&["--redact-report", &same], &folder, Path::new(&same)).run();
    run.expect_status(2).expect_stderr("is both the output and the report");
    assert_eq!(fs::read(&input).unwrap(), before);
    assert_eq!(fs::read_to_string(&key).unwrap(), KEY);
    assert!(!dir.join("x.har").exists());
}

#[test]
fn commands_without_outputs_of_traffic_have_no_redaction() {
    for command in ["validate", "info", "tap-config"] {
        tap2pcap().arg(command).arg("--redact").run().expect_status(2).expect_stderr("unexpected argument '--redact'");
    }
    let run = tap2pcap().args(&["record", "--listen", "127.0.0.1:0", "--to", "127.0.0.1:1", "--path-prefix", "x"]);
    run.arg("--redact").run().expect_status(2).expect_stderr("--redact is for the capture of --pcapng");
}

#[test]
fn a_file_that_has_no_key_is_refused_without_showing_it() {
    let dir = Dir::new("redact-key");
    let folder = traces(&dir);
    for (content, why) in [
        ("", "expected a key: 32 bytes as 64 hexadecimal digits"),
        ("secret words", "such as `openssl rand -hex 32` prints"),
        (&KEY[32..], "32 hexadecimal digits are half a key"),
        (&"ab".repeat(32), "the two halves of the key are the same"),
        (&"5".repeat(1 << 20), "expected a key"),
    ] {
        let key = dir.create("key", content);
        let run = listed(&["--redact-addresses", &text(&key)], &folder).expect_status(2).expect_stderr(why);
        assert!(!run.stderr.contains("secret") && run.stdout.is_empty(), "{run:?}");
    }
    // Digits with blanks around them, and bytes, are a key.
    let bytes: Vec<u8> = (0..32).map(|index| u8::from_str_radix(&KEY[2 * index..2 * index + 2], 16).unwrap()).collect();
    for content in [format!("  {}\r\n", KEY.trim().to_uppercase()).into_bytes(), bytes] {
        let key = text(&dir.create("key", content));
        assert_eq!(json(&["--redact-addresses", &key], &folder)[0]["destination"]["address"], "100.115.72.131:8080");
    }
}

#[test]
fn what_is_not_secret_is_untouched() {
    let dir = Dir::new("redact-rest");
    let options = ["--redact", "--redact-header", "User-Agent"];
    let mask = |value: &mut Value| {
        if let Some(text) = value.as_str() {
            *value = "*".repeat(text.len()).into();
        }
    };
    let masked: usize = on_all_cores(&samples(), |sample| {
        let mut plain = json(&[], &sample.path);
        let mut masked = 0;
        for line in &mut plain {
            let fields = line["request"]["headers"].as_object_mut();
            if let Some(agent) = fields.and_then(|fields| fields.get_mut("user-agent")) {
                mask(agent);
                mask(&mut line["request"]["useragent"]);
                masked += 1;
            }
        }
        assert_eq!(json(&options, &sample.path), plain, "{}", sample.name);
        if plain.is_empty() {
            return 0;
        }
        let folder = dir.fresh();
        let mut plain = har(&[], &sample.path, &folder.join("plain.har"));
        for entry in plain["log"]["entries"].as_array_mut().unwrap() {
            for field in entry["request"]["headers"].as_array_mut().unwrap() {
                if field["name"].as_str().unwrap().eq_ignore_ascii_case("user-agent") {
                    mask(&mut field["value"]);
                }
            }
        }
        let mut redacted = har(&options, &sample.path, &folder.join("redacted.har"));
        let comment = redacted["log"].as_object_mut().unwrap().remove("comment").unwrap();
        assert!(comment.as_str().unwrap().starts_with("redacted by tap2pcap"), "{comment}");
        assert_eq!(redacted, plain, "{}", sample.name);
        masked
    })
    .into_iter()
    .sum();
    assert!(masked > 10, "{masked}");
}

/// How many bits are the same at the beginnings of addresses.
fn common(one: &str, other: &str) -> u32 {
    let bits = |text: &str| match text.parse().unwrap() {
        IpAddr::V4(ip) => ip.to_bits(),
        IpAddr::V6(_) => panic!("another family"),
    };
    (bits(one) ^ bits(other)).leading_zeros()
}

#[test]
fn an_address_is_the_same_one_everywhere_and_prefixes_stay() {
    let dir = Dir::new("redact-addresses");
    let folder = traces(&dir);
    let key = text(&dir.create("key", KEY));
    let options = ["--redact-addresses", &key];
    let lines = json(&options, &folder);
    let address =
        |line: &Value, end: &str| line[end]["address"].as_str().unwrap().rsplit_once(':').unwrap().0.to_owned();
    let clients: Vec<String> = lines.iter().take(2).map(|line| address(line, "source")).collect();
    assert_eq!(address(&lines[0], "destination"), NEW_SERVER);
    assert_eq!(common(&clients[0], &clients[1]), common(CLIENTS[0], CLIENTS[1]));
    let fields = &lines[0]["request"]["headers"];
    assert_eq!(fields["x-forwarded-for"], clients.join(", "));
    assert_eq!(fields["forwarded"], format!("for={};host=shop.example", clients[1]));
    assert_eq!(lines[0]["response"]["headers"]["location"], format!("http://{NEW_SERVER}:8080/b"));
    let path = format!("/a?from={}&to=http%3A%2F%2Fshop.example%2F", clients[0]);
    assert_eq!(lines[0]["request"]["path"], path);
    // The trace has no address of this one, only a socket.
    assert_eq!(lines[2]["destination"]["address"], "/run/acme.sock");

    let table = listed(&options, &folder).expect_status(0);
    assert!(clients.iter().all(|client| table.stdout_text().contains(&format!("{client}:50000"))), "{table:?}");
    let har = har(&options, &folder, &dir.join("out.har"));
    let entry = &har["log"]["entries"][0];
    assert_eq!(entry["serverIPAddress"], NEW_SERVER);
    assert_eq!(entry["request"]["url"], format!("http://shop.example:8080{path}"));
    assert_eq!(entry["request"]["queryString"][0]["value"], clients[0]);
    assert_eq!(entry["response"]["redirectURL"], format!("http://{NEW_SERVER}:8080/b"));

    let capture = dir.join("out.pcapng");
    convert(&["-q", "--redact-addresses", &key], &folder, &capture).run().expect_status(0);
    let shown = TSHARK
        .run([Path::new("-r"), &capture, "-T".as_ref(), "fields".as_ref(), "-e".as_ref(), "ip.addr".as_ref()], b"");
    let seen: BTreeSet<&str> = shown.stdout_text().lines().flat_map(|line| line.split(',')).collect();
    assert!(seen.contains(NEW_SERVER) && clients.iter().all(|client| seen.contains(client.as_str())), "{seen:?}");
    // Two more were made up, and stay.
    assert_eq!(seen.iter().filter(|ip| ip.starts_with("198.1")).count(), 2, "{seen:?}");
    let everything = [table.stdout.clone(), fs::read(&capture).unwrap(), har.to_string().into_bytes()].concat();
    for old in [CLIENTS[0], CLIENTS[1], SERVER] {
        assert!(!everything.windows(old.len()).any(|part| part == old.as_bytes()), "{old}");
    }
}

#[test]
fn rewritten_addresses_are_replaced_as_well() {
    let dir = Dir::new("redact-map");
    let folder = traces(&dir);
    let key = text(&dir.create("key", KEY));
    let capture = dir.join("out.pcapng");
    let map = format!("{}={SERVER}", CLIENTS[0]);
    convert(&["-q", "--redact-addresses", &key, "--map", &map], &folder.join("acme_0.pb"), &capture)
        .run()
        .expect_status(0);
    let shown = TSHARK.run(
        [Path::new("-r"), &capture, "-T".as_ref(), "fields".as_ref(), "-e".as_ref(), "frame.comment".as_ref()],
        b"",
    );
    let comments = shown.stdout_text();
    assert!(comments.contains(&format!("to {NEW_SERVER}:50000")) && !comments.contains(CLIENTS[0]), "{comments}");
}

#[test]
fn names_are_replaced_by_what_the_key_makes_of_them() {
    let dir = Dir::new("redact-names");
    let folder = traces(&dir);
    let keys = [text(&dir.create("key", KEY)), text(&dir.create("other", OTHER_KEY))];
    let of = |key: &str, name: &str| {
        let options = ["--redact-addresses", key, "--redact-names"];
        let table = listed(&options, &folder).expect_status(0).stdout;
        let (json, har) = (json(&options, &folder), har(&options, &folder, &dir.join(name)));
        (table, json, har)
    };
    let (table, lines, har) = of(&keys[0], "one.har");
    let host = lines[0]["request"]["host"].as_str().unwrap();
    let name = host.strip_suffix(":8080").unwrap();
    assert!(name.starts_with("host-") && name.len() == 15, "{host}");
    let fields = &lines[0]["request"]["headers"];
    assert!(fields["forwarded"].as_str().unwrap().ends_with(&format!("host={name}")));
    assert!(lines[0]["request"]["path"].as_str().unwrap().ends_with(&format!("&to=http%3A%2F%2F{name}%2F")));
    let socket = lines[2]["destination"]["address"].as_str().unwrap();
    assert!(socket.starts_with("socket-") && socket.len() == 17, "{socket}");
    let file = lines[0]["trace"]["file"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
    assert!(file.starts_with("trace-") && file.ends_with(".pb"), "{file}");
    let (trace_id, entry) = (lines[0]["connection"]["id"].as_u64().unwrap(), &har["log"]["entries"][0]);
    assert_eq!(entry["comment"], format!("from {file}, trace_id {trace_id}"));
    assert!(entry["request"]["url"].as_str().unwrap().starts_with(&format!("http://{host}/a?")), "{entry}");
    assert!(String::from_utf8(table.clone()).unwrap().contains(&file));

    let mut all = vec![String::from_utf8(table).unwrap()];
    lines.iter().chain([&har]).for_each(|value| strings(value, &mut all));
    for old in ["shop.example", "proxy.example", "acme", "customer", "42424242", CLIENTS[0]] {
        assert!(!all.iter().any(|text| text.contains(old)), "{old}: {all:?}");
    }
    let capture = dir.join("out.pcapng");
    convert(&["-q", "--redact-addresses", &keys[0], "--redact-names"], &folder, &capture).run().expect_status(0);
    let capture = fs::read(&capture).unwrap();
    for new in [file.as_str(), &format!("trace_id {trace_id}"), socket, host] {
        assert!(has(&capture, new), "{new}");
    }
    for old in ["shop.example", "proxy.example", "acme", "customer", "42424242", CLIENTS[0]] {
        assert!(!has(&capture, old), "{old}");
    }

    let (_, again, _) = of(&keys[0], "again.har");
    assert_eq!(again, lines);
    let (_, others, _) = of(&keys[1], "other.har");
    assert_ne!(others[0]["request"]["host"], host);
    assert_ne!(others[0]["connection"]["id"], trace_id);
}

/// All text of the outputs of a trace with `--redact`: JSON with its bodies, and HAR.
fn outputs(dir: &Dir, trace: &Path) -> (Vec<Value>, Value, Vec<u8>) {
    let lines = json(&["--redact"], trace);
    let har = har(&["--redact"], trace, &dir.fresh().join("out.har"));
    let mut all = har.to_string().into_bytes();
    all.extend(lines.iter().flat_map(|line| line.to_string().into_bytes()));
    for body in lines.iter().flat_map(|line| [&line["request"]["body"], &line["response"]["body"]]) {
        all.extend(base64_simd::STANDARD.decode_to_vec(body.as_str().unwrap_or_default()).unwrap());
    }
    (lines, har, all)
}

fn has(bytes: &[u8], part: &str) -> bool {
    bytes.windows(part.len()).any(|window| window == part.as_bytes())
}

#[test]
fn packed_bodies_are_shown_without_their_secrets() {
    let dir = Dir::new("redact-gzip");
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(br#"{"user":"bob","password":"planted"}"#).unwrap();
    let packed = gzip.finish().unwrap();
    let shown = r#"{"user":"bob","password":"*******"}"#;
    let fields = [(":status", "200"), ("content-type", "application/json"), ("content-encoding", "gzip")];
    let of_tap = http::buffered(
        Message {
            headers: http::headers(&[(":method", "GET"), (":path", "/?token=planted&n=1")]),
            ..Message::default()
        },
        Message { headers: http::headers(&fields), body: Some(http::body(&packed)), ..Message::default() },
    );
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n",
        packed.len()
    );
    let of_socket = buffered(
        7,
        downstream(),
        [
            read(TIME, b"GET /?token=planted&n=1 HTTP/1.1\r\nHost: a\r\n\r\n"),
            write(TIME + 1, &[head.as_bytes(), &packed].concat()),
        ],
    );
    for trace in [of_tap, of_socket] {
        let path = dir.create("trace.pb", Dress::Binary.file(&[trace]));
        let (lines, har, all) = outputs(&dir, &path);
        let response = &lines[0]["response"];
        let body = base64_simd::STANDARD.decode_to_vec(response["body"].as_str().unwrap()).unwrap();
        assert_eq!(String::from_utf8_lossy(&body), shown);
        assert_eq!(response["size"], packed.len());
        let entry = &har["log"]["entries"][0];
        assert_eq!(entry["response"]["content"]["text"], shown);
        assert_eq!(entry["response"]["bodySize"], packed.len());
        assert_eq!(entry["request"]["queryString"][0]["value"], "*******");
        assert!(entry["request"]["url"].as_str().unwrap().ends_with("/?token=*******&n=1"));
        assert!(!has(&all, "planted"));
    }
}

#[test]
fn a_body_without_a_head_is_taken_out() {
    let dir = Dir::new("redact-headless");
    let response = Message { body: Some(http::body("planted")), ..Message::default() };
    let trace = http::buffered(Message::default(), response);
    let (_, har, all) = outputs(&dir, &dir.create("trace.json", Dress::Json.file(&[trace])));
    assert_eq!(har["log"]["entries"][0]["response"]["content"]["text"], "*******");
    assert!(!has(&all, "planted"));
}

#[test]
fn messages_of_web_sockets_are_shown_without_their_secrets() {
    let dir = Dir::new("redact-web-socket");
    let message = br#"{"token":"planted","n":1}"#;
    let key = [1, 2, 3, 4];
    let toggled: Vec<u8> = message.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key).collect();
    let sent = [&[0x81, 0x80 | message.len() as u8], key.as_slice(), &toggled].concat();
    let mut deflate = flate2::Compress::new(flate2::Compression::default(), false);
    let mut packed = Vec::with_capacity(100);
    deflate.compress_vec(message, &mut packed, flate2::FlushCompress::Sync).unwrap();
    packed.truncate(packed.len() - 4);
    let received = [&[0xc1, packed.len() as u8], packed.as_slice()].concat();
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
    let request = format!("GET /chat HTTP/1.1\r\nHost: a\r\n{upgrade}Sec-WebSocket-Key: AAAA\r\n\r\n");
    let response = format!("HTTP/1.1 101 Switching Protocols\r\n{upgrade}Sec-WebSocket-Accept: x\r\n\r\n");
    let events = [
        read(TIME, request.as_bytes()),
        write(TIME + 1, response.as_bytes()),
        read(TIME + 2, &sent),
        write(TIME + 3, &received),
    ];
    let trace = dir.create("trace.pb", Dress::Binary.file(&[buffered(7, downstream(), events)]));
    let plain = har(&[], &trace, &dir.join("plain.har"));
    let mut expected = plain["log"]["entries"][0]["_webSocketMessages"].clone();
    for message in expected.as_array_mut().unwrap() {
        assert_eq!(message["data"], r#"{"token":"planted","n":1}"#);
        message["data"] = r#"{"token":"*******","n":1}"#.into();
    }
    let (_, har, all) = outputs(&dir, &trace);
    assert_eq!(har["log"]["entries"][0]["_webSocketMessages"], expected);
    assert!(!has(&all, "planted") && !all.windows(packed.len()).any(|window| window == packed));
}

#[test]
fn the_report_has_a_line_for_each_connection_in_the_order_of_the_inputs() {
    let dir = Dir::new("redact-report");
    let folder = traces(&dir);
    let key = text(&dir.create("key", KEY));
    let mut reports = Vec::new();
    for (name, jobs) in [("one", "1"), ("four", "4"), ("har", "0")] {
        let report = dir.join(name);
        let options =
            ["--redact-header", "user-agent", "--redact-addresses", &key, "--redact-report", report.to_str().unwrap()];
        if jobs == "0" {
            har(&options, &folder, &dir.join("out.har"));
        } else {
            listed(&[&["--json", "--jobs", jobs], options.as_slice()].concat(), &folder).expect_status(0);
        }
        reports.push(fs::read_to_string(&report).unwrap());
    }
    assert_eq!(reports[0], reports[1]);
    assert_eq!(reports[0], reports[2]);
    let lines: Vec<Value> = reports[0].lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 4);
    for (index, line) in lines.iter().take(3).enumerate() {
        assert_eq!(line["trace"], text(&folder.join(format!("acme_{index}.pb"))));
        assert_eq!((&line["connection"], &line["redacted"]["header_values"]), (&1.into(), &1.into()), "{line}");
        let addresses = line["redacted"]["addresses"].as_u64().unwrap();
        assert_eq!(line["redacted"]["total"], addresses + 1);
    }
    assert_eq!(lines[3]["connections"], 3);
    assert_eq!(lines[3]["redacted"]["header_values"], 3);
    assert!(lines[3].get("trace").is_none());
    assert!(!reports[0].contains("planted") && !reports[0].contains(CLIENTS[0]));
}

#[test]
fn the_report_is_complete_or_absent() {
    let dir = Dir::new("redact-report-absent");
    let nothing = dir.create("nothing.pb", "no trace at all");
    let report = dir.join("report");
    listed(&["--redact-report", &text(&report)], &nothing).expect_status(2);
    convert(&["--redact-report", &text(&report)], &nothing, &dir.join("x.har")).run().expect_status(2);
    assert_eq!(dir.names(), ["nothing.pb"]);
}

#[test]
fn the_same_bytes_come_from_any_number_of_workers() {
    let dir = Dir::new("redact-jobs");
    let folder = traces(&dir);
    let key = text(&dir.create("key", KEY));
    let run = |jobs: &str| {
        let options = ["--redact-addresses", &key, "--redact-names", "--jobs", jobs];
        let output = dir.fresh();
        convert(&[&["-q"], options.as_slice()].concat(), &folder, &output.join("out.har")).run().expect_status(0);
        let outputs = [["--json"].as_slice(), &[], &["--stats"]];
        let shown = outputs.map(|more| listed(&[options.as_slice(), more].concat(), &folder).expect_status(0).stdout);
        (shown, fs::read(output.join("out.har")).unwrap())
    };
    assert_eq!(run("1"), run("4"));
}
