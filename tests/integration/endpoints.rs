//! The two ends of a connection: which addresses they have, and who is the client.

use std::{collections::BTreeSet, fs, net::SocketAddr, path::Path};

use serde_json::Value;
use tap2pcap::proto::tap::Connection;

use crate::{
    batch::numbered,
    fixture::{Dress, TIME, as_strings, buffered, closed, downstream, read, socket, streamed, write},
    manifest::{Format, socket_samples},
    oracle,
    tshark::{self, Frame},
    util::{Dir, ROOT, convert, tap2pcap},
};

fn fault(name: &str) -> std::path::PathBuf {
    Path::new(ROOT).join("testdata/faults").join(name)
}

/// Client and server of each connection, by its SYN.
fn opened(frames: &[Frame]) -> Vec<(SocketAddr, SocketAddr)> {
    let syn = |frame: &&Frame| frame.flags & 0x12 == 0x02;
    frames.iter().filter(syn).map(|frame| (frame.src.unwrap(), frame.dst.unwrap())).collect()
}

#[test]
fn info_shows_the_addresses_that_the_capture_has() {
    let dir = Dir::new("twins");
    let output = dir.join("out.pcapng");
    convert(&[], &fault("twins.pb"), &output).run().expect_clean();
    let captured: BTreeSet<_> = opened(&tshark::read(&output)).into_iter().collect();
    assert_eq!(captured.len(), 2);
    let run = tap2pcap().args(&["info", "--json"]).arg(fault("twins.pb")).run().expect_clean();
    let end = |value: &Value| -> SocketAddr {
        let (address, port) = (value["address"].as_str().unwrap(), value["port"].as_u64().unwrap());
        SocketAddr::new(address.parse().unwrap(), u16::try_from(port).unwrap())
    };
    let shown = run.stdout_text().lines().map(|line| {
        let line: Value = serde_json::from_str(line).unwrap();
        (end(&line["remote"]), end(&line["local"]))
    });
    assert_eq!(shown.collect::<BTreeSet<_>>(), captured);
}

/// No tool can follow a stream whose two directions have the same addresses.
#[test]
fn ends_with_one_address_get_two_ports() {
    let dir = Dir::new("one-address");
    let other =
        dir.create("other.pb", Dress::Binary.file(&streamed(1, downstream(), [read(TIME, b"q"), write(TIME, b"a")])));
    let map = ["--map", "192.0.2.7:50123=10.0.0.1:8080"];
    for (options, input) in [(&[][..], &fault("same.pb")), (&map, &other)] {
        let output = dir.join("out.pcapng");
        let run = convert(options, input, &output).run().expect_status(0);
        assert!(
            run.stderr.starts_with("warning: ") && run.stderr.contains("ends have the address 10.0.0.1:"),
            "{run:?}"
        );
        assert_eq!(run.stderr.contains("after --map"), !options.is_empty(), "{run:?}");
        let frames = tshark::read(&output);
        let [(client, server)] = opened(&frames)[..] else { panic!("{frames:?}") };
        assert!(client != server && client.ip() == server.ip() && client.port() >= 49_152, "{client} {server}");
        frames.iter().for_each(|frame| frame.expect_sound(&"one address"));
        assert_eq!(frames.iter().map(|frame| frame.stream).collect::<BTreeSet<_>>().len(), 1);
        let comment = &tshark::lines(&output, &["-T", "fields", "-e", "frame.comment"])[0];
        assert!(comment.contains("both ends have the address 10.0.0.1:"), "{comment}");
        let strict = convert(&[options, &["--strict"]].concat(), input, &output).run().expect_status(1);
        assert!(strict.stderr.contains("10.0.0.1:"));
    }
    let run = tap2pcap().args(&["validate", "--json"]).arg(fault("same.pb")).run().expect_status(0);
    assert!(run.stdout_text().contains("\"code\":\"same-address\""), "{run:?}");
}

/// Which end opened the connection of these messages. That is the source of the capture's first packet, the SYN.
fn client(dir: &Dir, messages: &[tap2pcap::proto::tap::TraceWrapper]) -> SocketAddr {
    let clients: BTreeSet<_> = [Dress::Binary, Dress::Text, Dress::Json]
        .iter()
        .map(|dress| {
            let (input, output) = (dir.fresh().join("trace_1"), dir.join("out.pcap"));
            fs::write(&input, dress.file(messages)).unwrap();
            convert(&[], &input, &output).run().expect_status(0);
            let capture = fs::read(&output).unwrap();
            // After the headers of the file, the record and Ethernet come IPv4 without options and TCP.
            let ip = &capture[24 + 16 + 14..];
            assert_eq!((ip[0], ip[20 + 13] & 0x3f), (0x45, 0x02));
            let address = std::net::Ipv4Addr::new(ip[12], ip[13], ip[14], ip[15]);
            SocketAddr::from((address, u16::from_be_bytes([ip[20], ip[21]])))
        })
        .collect();
    assert_eq!(clients.len(), 1, "{clients:?}");
    *clients.first().unwrap()
}

const HTTP: &[u8] = b"GET / HTTP/1.1\r\n\r\n";
const SERVER_HELLO: &[u8] = b"\x16\x03\x03\x00\x05\x02\x00\x00\x01\x00";

/// Both ports are ones that clients get, so the payload has to tell. Each of these greetings is what a server sends.
#[test]
fn the_end_that_speaks_as_a_client_opened_the_connection() {
    let dir = Dir::new("first-words");
    let (envoy, peer) = ("10.0.0.1:40001", "192.0.2.7:50123");
    let connection =
        || Connection { local_address: socket("10.0.0.1", 40_001), remote_address: socket("192.0.2.7", 50_123) };
    let from_server: [&[u8]; 6] = [
        b"220 mail.example ESMTP\r\n",
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"\x4a\0\0\0\x0a8.0.36\0",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x64",
        SERVER_HELLO,
    ];
    for greeting in from_server {
        // The server of a cluster is the peer, and that of a listener is Envoy.
        let cluster = buffered(1, connection(), [read(TIME, greeting), write(TIME + 1, b"EHLO")]);
        assert_eq!(client(&dir, &[cluster]).to_string(), envoy, "{greeting:?}");
        let listener = buffered(1, connection(), [write(TIME, greeting), read(TIME + 1, b"EHLO")]);
        assert_eq!(client(&dir, &[listener]).to_string(), peer, "{greeting:?}");
    }
    // The request counts more than the bytes before it.
    let late = [read(TIME, b"hello"), write(TIME + 1, HTTP)];
    assert_eq!(client(&dir, &[buffered(1, connection(), late)]).to_string(), envoy);
    // An SSH client may greet first, but only a client sends this offer.
    let offer = b"\0\0\x03\x04\x05\x14cookie..........\0\0\0\x20curve25519-sha256,ext-info-c";
    let eager = [read(TIME, b"SSH-2.0-OpenSSH_9.9\r\n"), write(TIME, b"SSH-2.0-x\r\n"), read(TIME, offer)];
    assert_eq!(client(&dir, &[buffered(1, connection(), eager)]).to_string(), peer);
    // It counts more than ports, too: a listener on a high port, and a client with a wide range of ports.
    let wide = Connection { local_address: socket("10.0.0.1", 50_051), remote_address: socket("192.0.2.7", 2_000) };
    assert_eq!(client(&dir, &[buffered(1, wide, [read(TIME, HTTP)])]).port(), 2_000);
    let silent = Connection { local_address: socket("10.0.0.1", 40_000), remote_address: socket("192.0.2.7", 50_051) };
    assert_eq!(client(&dir, &[buffered(1, silent, [])]).port(), 40_000);
}

/// In a cluster's trace, the first segment has no address of Envoy, whatever the ports are and whichever side speaks.
#[test]
fn a_first_segment_without_envoys_address_is_a_clusters() {
    let dir = Dir::new("first-segment");
    let remote = socket("192.0.2.7", 50_123);
    let known = Connection { local_address: socket("10.0.0.1", 40_001), remote_address: remote.clone() };
    let unconnected = Connection { local_address: None, remote_address: remote };
    for events in
        [vec![read(TIME, b"hello"), closed(TIME + 1)], vec![write(TIME, b"hello"), closed(TIME)], vec![closed(TIME)]]
    {
        let cluster = client(&dir, &streamed(1, unconnected.clone(), events.clone()));
        assert_ne!(cluster.to_string(), "192.0.2.7:50123", "{events:?}");
        // With set_connection_per_event, the address comes with the events.
        let mut per_event = events.clone();
        per_event.iter_mut().for_each(|event| event.connection = Some(known.clone()));
        assert_eq!(client(&dir, &streamed(1, unconnected.clone(), per_event)).to_string(), "10.0.0.1:40001");
        // A listener's socket is connected before its trace begins.
        assert_eq!(client(&dir, &streamed(1, known.clone(), events)).to_string(), "192.0.2.7:50123");
    }
}

/// Every real trace that has addresses has the role that the manifest gives.
#[test]
fn info_shows_the_role_of_a_real_trace() {
    for sample in socket_samples() {
        if sample.format == Format::JsonString && sample.streaming {
            continue;
        }
        let run = tap2pcap().args(&["info", "--json"]).arg(&sample.path).run().expect_clean();
        let line: Value = serde_json::from_str(run.stdout_text().trim()).unwrap();
        let expected = if sample.upstream { "upstream" } else { "downstream" };
        assert_eq!(line["role"], expected, "{}", sample.name);
        assert_eq!(oracle::trace(&sample).trace_id, line["trace_id"], "{}", sample.name);
    }
}

#[test]
fn a_streamed_cluster_tap_without_envoys_address_says_how_to_get_it() {
    let dir = Dir::new("no-local");
    let connection = Connection { local_address: None, remote_address: socket("192.0.2.7", 443) };
    let events = numbered(vec![write(TIME, HTTP), closed(TIME + 1)]);
    let input = dir.create("trace.pb", Dress::Binary.file(&streamed(3, connection.clone(), events.clone())));
    let run = tap2pcap().args(&["validate", "--json"]).arg(&input).run().expect_status(0);
    let finding: Value = serde_json::from_str(run.stdout_text().trim()).unwrap();
    assert_eq!((&finding["code"], &finding["severity"]), (&"missing-address".into(), &"warning".into()));
    assert!(finding["detail"].as_str().unwrap().contains("socket_tap_config.set_connection_per_event"), "{finding}");
    let output = dir.join("out.pcapng");
    convert(&[], &input, &output).run().expect_clean();
    let comment = &tshark::lines(&output, &["-T", "fields", "-e", "frame.comment"])[0];
    assert!(comment.contains("local address missing") && comment.contains("set_connection_per_event"), "{comment}");
    // The advice is not given where it would not help: for a buffered trace, and for bodies as strings without any
    // address.
    let buffered = dir.create("buffered.pb", Dress::Binary.file(&[buffered(3, connection, events.clone())]));
    let run = tap2pcap().args(&["validate", "--json"]).arg(&buffered).run().expect_status(0);
    assert!(run.stdout_text().contains("missing-address") && !run.stdout_text().contains("set_connection"), "{run:?}");
    let strings = dir.create("strings.json", Dress::Json.file(&as_strings(&streamed(3, downstream(), events))));
    let run = tap2pcap().args(&["validate", "--json"]).arg(&strings).run().expect_status(0);
    assert!(!run.stdout_text().contains("missing-address"), "{run:?}");
}

fn mapped(dir: &Dir, maps: &[&str], input: &Path) -> (String, String) {
    let options: Vec<_> = maps.iter().flat_map(|map| ["--map", map]).collect();
    let output = dir.join("mapped.pcapng");
    let run = convert(&options, input, &output).run().expect_status(0);
    let (client, server) = opened(&tshark::read(&output))[0];
    (format!("{client} {server}"), run.stderr)
}

#[test]
fn map_rewrites_ports_of_any_address_and_addresses_with_zones() {
    let dir = Dir::new("map-ports");
    let connection = Connection { local_address: socket("10.0.0.1", 443), remote_address: socket("192.0.2.7", 50_123) };
    let plain = dir.create("plain.pb", Dress::Binary.file(&streamed(1, connection, [read(TIME, b"q")])));
    let zone = fault("zone.pb");
    let cases: [(&str, &Path, &str); 9] = [
        (":443=:80", &plain, "192.0.2.7:50123 10.0.0.1:80"),
        (":443=203.0.113.1", &plain, "192.0.2.7:50123 203.0.113.1:443"),
        (":443=203.0.113.1:81", &plain, "192.0.2.7:50123 203.0.113.1:81"),
        ("10.0.0.1=:80", &plain, "192.0.2.7:50123 10.0.0.1:80"),
        ("10.0.0.1:443=:80", &plain, "192.0.2.7:50123 10.0.0.1:80"),
        ("fe80::1%eth0=2001:db8::9", &zone, "[fe80::2]:50000 [2001:db8::9]:80"),
        ("[fe80::1%eth0]:80=[2001:db8::9]:81", &zone, "[fe80::2]:50000 [2001:db8::9]:81"),
        ("fe80::1=2001:db8::9", &zone, "[fe80::2]:50000 [2001:db8::9]:80"),
        ("[fe80::2]=2001:db8::9", &zone, "[2001:db8::9]:50000 [fe80::1]:80"),
    ];
    for (map, input, expected) in cases {
        assert_eq!(mapped(&dir, &[map], input), (expected.to_owned(), String::new()), "{map}");
    }
    let other_zone = mapped(&dir, &["fe80::1%eth1=2001:db8::9"], &zone);
    assert_eq!(other_zone.0, "[fe80::2]:50000 [fe80::1]:80");
    assert!(other_zone.1.starts_with("warning: --map fe80::1%eth1=2001:db8::9: "), "{other_zone:?}");
}

/// A mapping counts as used if it rewrites an address of any input, in any capture and thread.
#[test]
fn a_mapping_that_rewrites_nothing_is_a_warning() {
    let dir = Dir::new("map-nothing");
    let traces = dir.fresh();
    for number in 0..40_u32 {
        let connection =
            Connection { remote_address: socket(&format!("192.0.2.{}", number + 1), 50_123), ..downstream() };
        let file = Dress::Binary.file(&streamed(u64::from(number), connection, [read(TIME, b"q")]));
        fs::write(traces.join(format!("tap_{number}.pb")), file).unwrap();
    }
    let maps = ["--map", "192.0.2.1=203.0.113.1", "--map", "192.0.2.40=203.0.113.2", "--map", "192.0.2.41=203.0.113.3"];
    for output in [dir.join("all.pcapng"), dir.fresh()] {
        let run = convert(&maps, &traces, &output).run().expect_status(0);
        let warnings: Vec<_> = run.stderr.lines().filter(|line| line.starts_with("warning: ")).collect();
        assert_eq!(warnings.len(), 1, "{run:?}");
        assert!(warnings[0].contains("--map 192.0.2.41=203.0.113.3"), "{run:?}");
        convert(&[&maps[..], &["--strict"]].concat(), &traces, &output).run().expect_status(1);
        let quiet = convert(&[&maps[..], &["-q"]].concat(), &traces, &output).run().expect_status(0);
        assert_eq!(quiet.stderr, "");
        convert(&[&maps[..4], &["--strict"]].concat(), &traces, &output).run().expect_status(1).expect_stderr("closed");
    }
}

#[test]
fn a_mapping_that_can_match_nothing_is_refused() {
    let dir = Dir::new("map-never");
    let input = fault("zone.pb");
    for map in [
        "10.0.0.256=192.0.2.1",
        "10.0.0=192.0.2.1",
        "10.0.0.0/8=192.0.2.1",
        "10.0.0.1:99999=192.0.2.1",
        ":99999=:80",
        ":=:80",
        "fe80::zz=192.0.2.1",
        "[fe80::1=192.0.2.1",
        "10.0.0.1%eth0=192.0.2.1",
        "fe80::1%=192.0.2.1",
        "a b=192.0.2.1",
        ":80=:99999",
        ":80=fe80::1%eth0",
        "+=192.0.2.1",
        "host=192.0.2.1",
    ] {
        let run = convert(&["--map", map], &input, &dir.join("out.pcap")).run().expect_status(2);
        assert!(run.stderr.contains("--map"), "{map}: {run:?}");
    }
    for map in ["/run/a.sock=192.0.2.1", "@abstract=192.0.2.1", "envoy:inner/1=192.0.2.1", "db.example:5432=192.0.2.1"]
    {
        convert(&["--map", map], &input, &dir.join("out.pcap")).run().expect_status(0).expect_stderr("rewrote nothing");
    }
}

#[test]
fn a_mapped_host_name_is_no_error() {
    let dir = Dir::new("mapped-host");
    let connection = Connection { local_address: socket("db.example", 5432), ..downstream() };
    let input = dir.create("path_0.pb", Dress::Binary.file(&streamed(1, connection, [read(TIME, b"x"), closed(TIME)])));
    let output = dir.join("out.pcapng");
    for map in ["db.example=192.0.2.1", "db.example:5432=192.0.2.1"] {
        convert(&["--map", map], &input, &output).run().expect_clean();
        assert_eq!(tshark::read(&output)[0].dst, Some("192.0.2.1:5432".parse().unwrap()), "{map}");
    }
}
