//! Many connections in one file, and addresses of every kind.

use std::{collections::BTreeMap, fs, net::SocketAddr, path::PathBuf};

use prost_types::Timestamp;
use tap2pcap::proto::{
    envoy::config::core::v3::Address,
    tap::{Connection, SocketEvents, TraceWrapper, socket_streamed_trace_segment::MessagePiece, trace_wrapper::Trace},
};

use crate::{
    fixture::{self, Dress, TIME, closed, downstream, internal, pipe, read, segment, socket, streamed, write},
    formats::expect_same,
    manifest::{Sample, socket_samples_of},
    oracle::{self, Kind},
    real_traces::is_made_up,
    tshark::{self, Frame},
    util::{Dir, convert},
};

/// Converts messages in every format. The captures must be the same, so one of them is read.
fn frames_of(dir: &Dir, options: &[&str], messages: &[TraceWrapper]) -> Vec<Frame> {
    let captures = Dress::ALL.map(|dress| {
        let own = dir.fresh();
        let (input, output) = (own.join("trace_1"), own.join("out.pcapng"));
        fs::write(&input, dress.file(messages)).unwrap();
        convert(options, &input, &output).run().expect_clean();
        output
    });
    let first = fs::read(&captures[0]).unwrap();
    for (dress, capture) in Dress::ALL.iter().zip(&captures) {
        expect_same(dir, &format!("{dress:?}"), &first, &fs::read(capture).unwrap(), "pcapng");
    }
    tshark::read(&captures[0])
}

/// Source, destination, payload of each packet.
fn seen(frames: &[Frame]) -> Vec<(SocketAddr, SocketAddr, &[u8])> {
    frames.iter().map(|frame| (frame.src.unwrap(), frame.dst.unwrap(), frame.payload.as_slice())).collect()
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Bytes by source and destination.
fn streams(frames: &[Frame]) -> BTreeMap<(SocketAddr, SocketAddr), Vec<u8>> {
    let mut streams: BTreeMap<_, Vec<u8>> = BTreeMap::new();
    for frame in frames.iter().filter(|frame| !frame.payload.is_empty()) {
        streams.entry((frame.src.unwrap(), frame.dst.unwrap())).or_default().extend_from_slice(&frame.payload);
    }
    streams
}

fn messages_of(samples: &[Sample]) -> Vec<Vec<TraceWrapper>> {
    samples.iter().map(|sample| oracle::messages(&sample.bytes(), sample.format)).collect()
}

/// What the clients and servers of these samples logged, checked against what the packets hold.
fn expect_truth(samples: &[Sample], frames: &[Frame]) {
    let streams = streams(frames);
    assert_eq!(streams.len(), samples.len() * 2);
    for sample in samples {
        let trace = oracle::trace(sample);
        let client = oracle::socket(trace.connection.remote_address.as_ref()).unwrap();
        let truth = sample.truths.iter().find(|truth| truth.client == Some(client)).unwrap();
        let listener = sample.listener.unwrap();
        assert!(truth.read.are(&streams[&(client, listener)]), "{}", sample.name);
        assert!(truth.write.are(&streams[&(listener, client)]), "{}", sample.name);
        assert_eq!(streams[&(client, listener)], trace.bytes(Kind::Read), "{}", sample.name);
    }
}

#[test]
fn each_buffered_trace_of_a_file_is_a_connection() {
    let samples = socket_samples_of("1.40.0/conns_buf");
    assert_eq!(samples.len(), 5);
    let dir = Dir::new("several-buffered");
    for tcp in ["bare", "full"] {
        expect_truth(&samples, &frames_of(&dir, &["--tcp", tcp], &messages_of(&samples).concat()));
    }
}

/// The admin endpoint streams a segment of each connection in turn.
#[test]
fn interleaved_segments_are_told_apart() {
    let samples = socket_samples_of("1.40.0/conns_str");
    assert_eq!(samples.len(), 5);
    let dir = Dir::new("interleaved");
    let traces = messages_of(&samples);
    let longest = traces.iter().map(Vec::len).max().unwrap();
    let turn = |index| traces.iter().filter_map(move |trace| trace.get(index).cloned());
    let interleaved: Vec<_> = (0..longest).flat_map(turn).collect();
    assert!(interleaved.len() > 30);
    for tcp in ["bare", "full"] {
        let frames = frames_of(&dir, &["--tcp", tcp], &interleaved);
        expect_truth(&samples, &frames);
        if tcp == "full" {
            frames.iter().for_each(|frame| frame.expect_sound(&"interleaved"));
        }
    }
}

#[test]
fn buffered_and_streamed_traces_of_a_file_are_told_apart() {
    let samples = [socket_samples_of("1.40.0/conns_buf"), socket_samples_of("1.40.0/conns_str")].concat();
    let dir = Dir::new("buffered-and-streamed");
    let [buffered, streamed] = [&samples[..5], &samples[5..]].map(|half| messages_of(half).concat());
    let mixed: Vec<_> = streamed[..3].iter().chain(&buffered).chain(&streamed[3..]).cloned().collect();
    expect_truth(&samples, &frames_of(&dir, &["--tcp", "bare"], &mixed));
}

/// An id is valid only until `closed`, and another Envoy process counts from the start again.
#[test]
fn a_trace_id_that_is_used_again_is_another_connection() {
    let dir = Dir::new("id-again");
    let connection = |port| Connection { remote_address: socket("192.0.2.7", port), ..downstream() };
    let mut messages = streamed(5, connection(1001), [read(TIME, b"one"), closed(TIME + 1)]);
    messages.extend(streamed(5, connection(1002), [read(TIME + 2, b"two"), closed(TIME + 3)]));
    // Even without `closed`, a connection segment starts a new connection.
    messages.extend(streamed(6, connection(1003), [read(TIME + 4, b"three")]));
    messages.extend(streamed(6, connection(1004), [read(TIME + 5, b"four")]));
    let frames = frames_of(&dir, &["--tcp", "bare"], &messages);
    let ports: Vec<_> = seen(&frames).iter().map(|(src, _, payload)| (src.port(), payload.to_vec())).collect();
    let expected = [(1001, "one"), (1002, "two"), (1003, "three"), (1004, "four")];
    assert_eq!(ports, expected.map(|(port, payload)| (port, payload.as_bytes().to_vec())));
}

/// With `min_streamed_sent_bytes`, a segment holds several events; here, of two connections.
#[test]
fn packed_events_keep_their_order_and_times() {
    let dir = Dir::new("packed");
    let connection = |port| Connection { remote_address: socket("192.0.2.7", port), ..downstream() };
    let events = |events| MessagePiece::Events(SocketEvents { events });
    let messages = [
        segment(1, MessagePiece::Connection(connection(1001))),
        segment(2, MessagePiece::Connection(connection(1002))),
        segment(2, events(vec![read(TIME + 1, b"a"), write(TIME + 2, b"b")])),
        segment(1, events(vec![read(TIME + 3, b"c"), read(TIME + 3, b"d"), write(TIME + 5, b"e")])),
        segment(2, events(vec![read(TIME + 6, b"f"), closed(TIME + 7)])),
        segment(1, events(vec![closed(TIME + 8)])),
    ];
    let frames = frames_of(&dir, &["--tcp", "bare"], &messages);
    let found: String =
        frames.iter().map(|frame| format!("{}{} ", frame.time - TIME, frame.payload[0] as char)).collect();
    assert_eq!(found, "1a 2b 3c 3d 5e 6f ");
}

/// A connection with one byte each way, from a listener's or a cluster's point of view.
fn one_byte_each_way(local: Option<Address>, remote: Option<Address>) -> Vec<TraceWrapper> {
    let connection = Connection { local_address: local, remote_address: remote };
    streamed(4, connection, [read(TIME, b"r"), write(TIME + 1, b"w"), closed(TIME + 2)])
}

fn ends(dir: &Dir, options: &[&str], local: Option<Address>, remote: Option<Address>) -> (SocketAddr, SocketAddr) {
    let frames = frames_of(dir, &[options, &["--tcp", "bare"]].concat(), &one_byte_each_way(local, remote));
    let [(remote, local, b"r"), (src, dst, b"w")] = seen(&frames)[..] else { panic!("{frames:#?}") };
    assert_eq!((src, dst), (local, remote));
    (local, remote)
}

#[test]
fn every_kind_of_address_is_kept_or_stood_in_for() {
    let dir = Dir::new("addresses");
    let real = |local: &str, remote: &str| (address(local), address(remote));
    let ends = |local, remote| ends(&dir, &[], local, remote);

    let found = ends(socket("10.1.2.3", 80), socket("192.0.2.9", 40_000));
    assert_eq!(found, real("10.1.2.3:80", "192.0.2.9:40000"));
    let found = ends(socket("2001:db8::1", 443), socket("2001:db8::2", 40_000));
    assert_eq!(found, real("[2001:db8::1]:443", "[2001:db8::2]:40000"));
    // A dual-stack socket sends IPv4 for such an address.
    let found = ends(socket("::ffff:10.1.2.3", 443), socket("::ffff:192.0.2.9", 40_000));
    assert_eq!(found, real("10.1.2.3:443", "192.0.2.9:40000"));

    // An unknown address is made up in full, of the other side's family.
    let (local, remote) = ends(None, socket("192.0.2.9", 5432));
    assert!(is_made_up(local) && local.is_ipv4() && remote == address("192.0.2.9:5432"), "{local}");
    let (local, remote) = ends(None, socket("2001:db8::2", 5432));
    assert!(is_made_up(local) && local.is_ipv6() && remote == address("[2001:db8::2]:5432"), "{local}");
    let (local, remote) = ends(None, socket("::ffff:192.0.2.9", 5432));
    assert!(is_made_up(local) && local.is_ipv4() && remote == address("192.0.2.9:5432"), "{local} {remote}");
    // A packet has one address family, so the only way to keep both addresses is IPv4 within IPv6.
    let found = ends(socket("10.1.2.3", 80), socket("2001:db8::2", 40_000));
    assert_eq!(found, real("[::ffff:10.1.2.3]:80", "[2001:db8::2]:40000"));
    let (local, remote) = ends(None, None);
    assert!(is_made_up(local) && is_made_up(remote) && local.ip() != remote.ip(), "{local} {remote}");

    // A socket path or listener name always gives the same address, and different names give different addresses.
    let server = |name: Option<Address>| {
        let (local, remote) = ends(name.clone(), name);
        assert!(is_made_up(local) && is_made_up(remote) && local.ip() != remote.ip(), "{local} {remote}");
        local
    };
    let named =
        [pipe("/run/a.sock"), pipe("/run/b.sock"), pipe("@abstract"), internal("inner", ""), internal("inner", "x")];
    let servers = named.clone().map(server);
    for (index, name) in named.into_iter().enumerate() {
        assert_eq!(server(name), servers[index]);
        assert_eq!(servers.iter().filter(|other| other.ip() == servers[index].ip()).count(), 1, "{servers:?}");
    }
}

/// Each connection has its own client, and all share the server that has the path.
#[test]
fn clients_of_one_socket_path_get_addresses_of_their_own() {
    let dir = Dir::new("socket-path");
    let connection = Connection { local_address: pipe("/run/a.sock"), remote_address: pipe("/run/a.sock") };
    let messages: Vec<_> =
        (1..=50).map(|id| fixture::buffered(id, connection.clone(), [read(TIME + id, &[id as u8])])).collect();
    let frames = frames_of(&dir, &["--tcp", "bare"], &messages);
    let servers: std::collections::BTreeSet<_> = frames.iter().map(|frame| frame.dst).collect();
    let clients: std::collections::BTreeSet<_> = frames.iter().map(|frame| frame.src).collect();
    assert_eq!((servers.len(), clients.len()), (1, 50));
    // Ports alone and addresses alone would tell nearly all of them apart: a few of many may be equal by chance.
    let ips: std::collections::BTreeSet<_> = clients.iter().map(|client| client.unwrap().ip()).collect();
    let ports: std::collections::BTreeSet<_> = clients.iter().map(|client| client.unwrap().port()).collect();
    assert!(ips.len() > 45 && ports.len() > 45, "{clients:?}");
}

#[test]
fn map_rewrites_addresses() {
    let dir = Dir::new("map");
    let (local, remote) = (socket("10.1.2.3", 80), socket("192.0.2.9", 40_000));
    let ends = |maps: &[&str], local: &Option<Address>, remote: &Option<Address>| {
        let options: Vec<_> = maps.iter().flat_map(|map| ["--map", map]).collect();
        let (local, remote) = ends(&dir, &options, local.clone(), remote.clone());
        format!("{local} {remote}")
    };
    assert_eq!(ends(&["10.1.2.3=203.0.113.1"], &local, &remote), "203.0.113.1:80 192.0.2.9:40000");
    assert_eq!(ends(&["10.1.2.3:80=203.0.113.1:8080"], &local, &remote), "203.0.113.1:8080 192.0.2.9:40000");
    let both = ["10.1.2.3:81=203.0.113.1:8080", "192.0.2.9:40000=192.0.2.9:40001"];
    assert!(ends(&both[1..], &local, &remote).starts_with("10.1.2.3:80 "));
    let both = ["192.0.2.9=203.0.113.2", "10.1.2.3=203.0.113.1:1"];
    assert_eq!(ends(&both, &local, &remote), "203.0.113.1:1 203.0.113.2:40000");
    let both = ["10.1.2.3=2001:db8::1", "192.0.2.9=[2001:db8::2]:7"];
    assert_eq!(ends(&both, &local, &remote), "[2001:db8::1]:80 [2001:db8::2]:7");
    let both = ["local=203.0.113.1:80", "remote=203.0.113.2:40000"];
    assert_eq!(ends(&both, &None, &None), "203.0.113.1:80 203.0.113.2:40000");
    assert_eq!(ends(&both[1..], &local, &None), "10.1.2.3:80 203.0.113.2:40000");
    let path = pipe("/run/a=b.sock");
    assert!(ends(&["/run/a=b.sock=203.0.113.1"], &path, &remote).starts_with("203.0.113.1:"));
}

#[test]
fn a_map_that_makes_no_sense_is_refused() {
    let dir = Dir::new("bad-map");
    let input = dir.create("trace", Dress::Delimited.file(&one_byte_each_way(None, None)));
    for map in ["10.0.0.1", "=10.0.0.1", "10.0.0.1=host", "10.0.0.1=", "10.0.0.1=10.0.0.2:65536"] {
        let run = convert(&["--map", map], &input, &dir.join("out.pcap")).run().expect_status(2);
        assert!(run.stderr.contains("--map"), "{run:?}");
    }
    assert_eq!(dir.names(), ["trace"]);
}

/// An event without a time takes that of the event before it. If no event has a time, `--start-time` gives it.
#[test]
fn start_time_is_for_traces_without_times() {
    let dir = Dir::new("start-time");
    let mut messages = streamed(4, downstream(), [read(TIME, b"r"), write(TIME, b"w")]);
    for message in &mut messages {
        if let Some(Trace::SocketStreamedTraceSegment(segment)) = &mut message.trace
            && let Some(MessagePiece::Event(event)) = &mut segment.message_piece
        {
            event.timestamp = None::<Timestamp>;
        }
    }
    let input: PathBuf = dir.create("trace", Dress::Delimited.file(&messages));
    let output = dir.join("out.pcapng");
    let modified = fs::metadata(&input).unwrap().modified().unwrap().duration_since(std::time::UNIX_EPOCH).unwrap();
    for (options, time) in
        [(&[][..], modified.as_nanos() as u64), (&["--start-time", "2026-01-31T13:00:00.123456789+01:00"], TIME)]
    {
        convert(&[options, &["--tcp", "bare"]].concat(), &input, &output).run().expect_status(1);
        assert_eq!(tshark::read(&output).iter().map(|frame| frame.time).collect::<Vec<_>>(), [time; 2]);
    }
}
