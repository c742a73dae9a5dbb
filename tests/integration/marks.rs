//! The marks in pcapng that say what was recorded and what was made up, read block by block and with tshark.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
};

use tap2pcap::proto::tap::Connection;

use crate::{
    conversation::{SYN, streams},
    fixture::{Dress, TIME, buffered, closed, downstream, internal, pipe, read, socket, streamed, write},
    manifest::{Format, socket_samples_of},
    oracle,
    real_traces::is_made_up,
    tcp::{all, capture, frames_of},
    tshark::{self, Frame},
    util::{CAPINFOS, Dir, TCPDUMP, convert, on_all_cores, tap2pcap},
};

/// The parts of a pcapng block that the tests look at (draft-ietf-opsawg-pcapng).
#[derive(Debug, PartialEq, Eq)]
enum Block {
    Section { application: String },
    Interface { link_type: u16, snap_length: u32, name: String, resolution: u8 },
    Names(Vec<(IpAddr, String)>),
    Packet { interface: u32, options: Vec<u16> },
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap())
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// The codes and values of options, or the types and values of records. Both have the same layout, and a zero ends
/// them.
fn options(mut bytes: &[u8]) -> Vec<(u16, &[u8])> {
    let mut options = Vec::new();
    while !bytes.is_empty() && u16_at(bytes, 0) != 0 {
        let len = usize::from(u16_at(bytes, 2));
        options.push((u16_at(bytes, 0), &bytes[4..4 + len]));
        assert!(bytes[4 + len..4 + len.next_multiple_of(4)].iter().all(|padding| *padding == 0));
        bytes = &bytes[4 + len.next_multiple_of(4)..];
    }
    options
}

fn option<'a>(all: &[(u16, &'a [u8])], code: u16) -> &'a [u8] {
    let mut found = all.iter().filter(|(found, _)| *found == code);
    let value = found.next().unwrap_or_else(|| panic!("no option {code} in {all:?}")).1;
    assert_eq!(found.next(), None);
    value
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn blocks(path: &Path) -> Vec<Block> {
    let bytes = fs::read(path).unwrap();
    let mut blocks = Vec::new();
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        let len = u32_at(rest, 4) as usize;
        assert_eq!((len % 4, u32_at(rest, len - 4) as usize), (0, len));
        let body = &rest[8..len - 4];
        blocks.push(match u32_at(rest, 0) {
            0x0a0d_0d0a => {
                // The byte order's magic number, version 1.0.
                assert_eq!((u32_at(body, 0), u16_at(body, 4), u16_at(body, 6)), (0x1a2b_3c4d, 1, 0));
                Block::Section { application: text(option(&options(&body[16..]), 4)) }
            }
            1 => {
                let options = options(&body[8..]);
                let [resolution] = *option(&options, 9) else { panic!("{options:?}") };
                let name = text(option(&options, 2));
                Block::Interface { link_type: u16_at(body, 0), snap_length: u32_at(body, 4), name, resolution }
            }
            4 => Block::Names(options(body).into_iter().map(record).collect()),
            6 => {
                let captured = u32_at(body, 12) as usize;
                let options = options(&body[20 + captured.next_multiple_of(4)..]);
                Block::Packet { interface: u32_at(body, 0), options: options.iter().map(|(code, _)| *code).collect() }
            }
            other => panic!("block type {other}"),
        });
        rest = &rest[len..];
    }
    blocks
}

fn record((kind, value): (u16, &[u8])) -> (IpAddr, String) {
    let (address, name): (IpAddr, _) = match kind {
        1 => (Ipv4Addr::from(<[u8; 4]>::try_from(&value[..4]).unwrap()).into(), &value[4..]),
        2 => (Ipv6Addr::from(<[u8; 16]>::try_from(&value[..16]).unwrap()).into(), &value[16..]),
        other => panic!("record type {other}"),
    };
    let name = name.strip_suffix(&[0]).expect("names end with a zero");
    assert!(!name.contains(&0), "one name");
    (address, text(name))
}

/// The interface of a trace file.
fn interface(name: &str) -> Block {
    Block::Interface { link_type: 1, snap_length: 262_144, name: name.to_owned(), resolution: 9 }
}

#[test]
fn sections_name_the_program_and_interfaces_the_trace_files() {
    let dir = Dir::new("interfaces");
    let samples = [
        socket_samples_of("1.40.0/conns_str"),
        socket_samples_of("1.40.0/v6_str"),
        socket_samples_of("1.36.2/trunc_str_PROTO_TEXT"),
    ]
    .concat();
    let output = dir.join("merged.pcapng");
    let paths = samples.iter().fold(tap2pcap().arg("-q"), |command, sample| command.arg(&sample.path));
    paths.arg(&output).run().expect_clean();

    let blocks = blocks(&output);
    assert_eq!(blocks[0], Block::Section { application: format!("tap2pcap {}", env!("CARGO_PKG_VERSION")) });
    let interfaces: Vec<_> = blocks.iter().filter(|block| matches!(block, Block::Interface { .. })).collect();
    let mut names: Vec<_> = samples.iter().map(|sample| sample.file_name().to_owned()).collect();
    assert_eq!(interfaces.len(), names.len());
    for name in &names {
        assert!(interfaces.contains(&&interface(name)), "{name}: {interfaces:?}");
    }
    // The interface of a packet must be described before the packet.
    let mut described = 0;
    for block in &blocks {
        match block {
            Block::Interface { .. } => described += 1,
            Block::Packet { interface, options } => {
                assert!(*interface < described);
                assert!(options.contains(&2), "no epb_flags: {block:?}");
            }
            _ => {}
        }
    }

    // Each connection's packets are on the interface of its own file.
    let frames = tshark::read(&output);
    assert_eq!(streams(&frames).len(), samples.len());
    for stream in streams(&frames) {
        let name = &stream[0].interface;
        assert!(stream.iter().all(|frame| frame.interface == *name));
        assert!(stream[0].comments[0].starts_with(&format!("trace {name}, ")), "{:?}", stream[0]);
        names.retain(|other| other != name);
    }
    assert!(names.is_empty(), "{names:?}");

    // libpcap wants one link type and one snap length, and shows the times to the nanosecond.
    let path = output.to_str().unwrap();
    let listing = TCPDUMP.run(["-n", "-tt", "--time-stamp-precision=nano", "-r", path], &[]);
    let times: Vec<u64> = listing
        .stdout_text()
        .lines()
        .map(|line| line.split(' ').next().unwrap().replace('.', "").parse().unwrap())
        .collect();
    assert_eq!(times, frames.iter().map(|frame| frame.time).collect::<Vec<_>>());
    let infos = CAPINFOS.run([path], &[]);
    assert!(infos.stdout_text().contains("Time precision = nanoseconds (9)"), "{infos:?}");
    assert!(infos.stdout_text().contains(&format!("tap2pcap {}", env!("CARGO_PKG_VERSION"))), "{infos:?}");
}

#[test]
fn the_first_packet_of_a_connection_says_where_it_comes_from() {
    for converted in all() {
        let name = &converted.sample.name;
        let [comment] = converted.frames[0].comments.as_slice() else { panic!("{name}: {:?}", converted.frames[0]) };
        let lines: Vec<_> = comment.lines().collect();
        let how = if converted.sample.streaming { "streamed" } else { "buffered" };
        let role = if converted.sample.upstream { "upstream" } else { "downstream" };
        let start =
            format!("trace {}, trace_id {}, {how}, {role} (", converted.sample.file_name(), converted.trace.trace_id);
        assert!(lines[0].starts_with(&start), "{name}: '{comment}', expected '{start}'");
        let made_up = "synthesized: Ethernet, IP and TCP headers, sequence numbers, handshake, acknowledgements, close";
        assert_eq!(lines[1], made_up, "{name}");
        // The comment names every address that the trace lacks, and no other.
        let first = &converted.frames[0];
        for address in [first.src.unwrap(), first.dst.unwrap()] {
            let told = lines[2..].iter().any(|line| line.contains(&address.to_string()));
            assert_eq!(told, is_made_up(address), "{name}: {comment}");
        }
        let timeless = lines[2..].iter().any(|line| line.contains("no time"));
        assert_eq!(timeless, converted.trace.events.is_empty(), "{name}: {comment}");
        // Only the first packet, cut packets and HTTP/2's preface have comments.
        let is_preface = |frame: &&Frame| frame.payload == b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        let silent = converted.frames[1..].iter().filter(|frame| frame.len == frame.cap_len);
        for frame in silent.filter(|frame| !is_preface(frame)) {
            assert!(frame.comments.is_empty(), "{name}: {frame:?}");
        }
    }
}

#[test]
fn the_comment_says_what_was_not_made_up() {
    let dir = Dir::new("comment");
    let events = || [write(TIME, b"w"), closed(TIME + 1)];
    let first_comment = |options: &[&str], connection: Connection| {
        let mut frames = frames_of(&dir, options, &streamed(0xffff_ffff_ffff_fffe, connection, events()));
        assert!(frames[1..].iter().all(|frame| frame.comments.is_empty()));
        frames.remove(0).comments.remove(0)
    };
    let start = "trace trace_1.pb_length_delimited, trace_id 18446744073709551614, streamed, ";
    let full = first_comment(&[], downstream());
    let downstream_words = "downstream (the remote side opened the connection)";
    let headers = "\nsynthesized: Ethernet, IP and TCP headers, sequence numbers";
    let session = ", handshake, acknowledgements, close";
    assert_eq!(full, format!("{start}{downstream_words}{headers}{session}"));
    // Bare mode makes up less.
    assert_eq!(first_comment(&["--tcp", "bare"], downstream()), format!("{start}{downstream_words}{headers}"));
    // A role that the user gave is marked as such.
    let given = first_comment(&["--role", "upstream"], downstream());
    assert_eq!(given, format!("{start}upstream (--role: Envoy opened the connection){headers}{session}"));
    let mapped = first_comment(&["--map", "10.0.0.1=203.0.113.1"], downstream());
    assert!(mapped.contains("\nlocal address rewritten with --map: 10.0.0.1:8080 to 203.0.113.1:8080"), "{mapped}");
    let missing = Connection { local_address: None, ..downstream() };
    assert!(first_comment(&[], missing).contains("\nlocal address missing in the trace, made up: 198.1"));
    let path = Connection { local_address: pipe("/run/app.sock"), remote_address: pipe("/run/app.sock") };
    let path = first_comment(&[], path);
    assert!(path.contains("\nlocal address is /run/app.sock, made up for it: 198.1"), "{path}");
    assert!(path.contains("\nremote address is /run/app.sock, made up for it: 198.1"), "{path}");

    let frames = frames_of(&dir, &[], &[buffered(3, downstream(), [read(TIME, b"r")])]);
    assert!(frames[0].comments[0].contains(", trace_id 3, buffered, downstream ("), "{:?}", frames[0]);
}

/// The flags of a packet say which way Envoy saw it go: inbound if Envoy read it, outbound if it wrote it. A capture of
/// the loopback interface shows this in no other way.
#[test]
fn directions_are_those_that_envoy_saw() {
    let mut told = 0;
    for converted in all() {
        let name = &converted.sample.name;
        assert!(converted.frames.iter().all(|frame| matches!(frame.direction, Some(1 | 2))), "{name}");
        let connection = &converted.trace.connection;
        let local = oracle::socket(connection.local_address.as_ref());
        let remote = oracle::socket(connection.remote_address.as_ref());
        for frame in &converted.frames {
            // The packet comes from the remote side, or not from the local one.
            let expected = match (local, remote) {
                (_, Some(remote)) => 1 + u32::from(frame.src != Some(remote)),
                (Some(local), None) => 1 + u32::from(frame.src == Some(local)),
                _ => continue,
            };
            assert_eq!(frame.direction, Some(expected), "{name}: {frame:?}");
            told += 1;
        }
        // If the trace has no address, the bytes tell.
        for (kind, direction) in [(oracle::Kind::Read, 1), (oracle::Kind::Write, 2)] {
            let frames = converted.frames.iter().filter(|frame| frame.direction == Some(direction));
            let bytes: Vec<u8> = frames.flat_map(|frame| frame.payload.clone()).collect();
            assert_eq!(bytes, converted.trace.bytes(kind), "{name}");
        }
    }
    assert!(told > 1000);
}

#[test]
fn name_resolution_blocks_hold_the_true_names() {
    let dir = Dir::new("names");
    let connections = [
        Connection { local_address: pipe("/run/app.sock"), remote_address: pipe("/run/app.sock") },
        Connection { local_address: internal("inner", "one"), remote_address: internal("outer", "") },
        Connection { local_address: pipe("@abstract"), remote_address: socket("2001:db8::2", 443) },
        downstream(),
    ];
    let names =
        [vec!["/run/app.sock", "/run/app.sock"], vec!["envoy:inner/one", "envoy:outer"], vec!["@abstract"], vec![]];
    for (connection, names) in connections.into_iter().zip(names) {
        let output = capture(&dir, &[], &streamed(1, connection, [read(TIME, b"r"), closed(TIME)]));
        let blocks = blocks(&output);
        let found: Vec<_> = blocks
            .iter()
            .filter_map(|block| if let Block::Names(names) = block { Some(names) } else { None })
            .collect();
        let first_packet = blocks.iter().position(|block| matches!(block, Block::Packet { .. })).unwrap();
        let last_names = blocks.iter().rposition(|block| matches!(block, Block::Names(_)));
        assert!(last_names.is_none_or(|at| at < first_packet), "a reader needs the names before the packets");
        let found: Vec<_> = found.into_iter().flatten().collect();
        let found_names: Vec<_> = found.iter().map(|(_, name)| name.as_str()).collect();
        assert_eq!(found_names, names);
        let frames = tshark::read(&output);
        for (address, _) in &found {
            assert!(frames.iter().any(|frame| frame.src.unwrap().ip() == *address), "{address}");
        }
        // And tshark shows them.
        let hosts = ["ip.src_host", "ip.dst_host", "ipv6.src_host", "ipv6.dst_host"];
        let args = ["-N", "n", "-T", "fields"].into_iter().chain(hosts.iter().flat_map(|field| ["-e", field]));
        let line = tshark::lines(&output, &args.collect::<Vec<_>>()).remove(0);
        for name in names {
            assert!(line.contains(name), "{name} in {line}");
        }
    }
    let mut count = 0;
    for converted in all().iter().filter(|converted| converted.sample.kind.starts_with("uds")) {
        let output = dir.fresh().join("out.pcapng");
        convert(&[], &converted.sample.path, &output).run().expect_clean();
        let json = format!("{:?}", converted.trace.connection);
        for block in blocks(&output) {
            let Block::Names(names) = block else { continue };
            for (address, name) in names {
                assert!(is_made_up((address, 0).into()) && json.contains(&format!("\"{name}\"")), "{name}: {json}");
                count += 1;
            }
        }
    }
    assert!(count >= 8, "{count}");
}

/// pcap has no place for marks, but its packets are the same.
#[test]
fn pcap_holds_the_same_packets() {
    let dir = Dir::new("same-packets");
    let samples: Vec<_> = ["1.40.0/h1_str", "1.40.0/trunc", "1.36.2/tcp_buf", "1.40.0/uds", "1.40.0/v6"]
        .into_iter()
        .flat_map(socket_samples_of)
        .filter(|sample| sample.format != Format::JsonString || sample.streaming)
        .collect();
    let captures = on_all_cores(&samples, |sample| {
        let own = dir.fresh();
        let outputs = ["out.pcap", "out.pcapng"].map(|name| own.join(name));
        outputs.iter().for_each(|output| drop(convert(&[], &sample.path, output).run().expect_clean()));
        outputs
    });
    let (pcap, pcapng): (Vec<_>, Vec<_>) = captures.into_iter().map(|[pcap, pcapng]| (pcap, pcapng)).unzip();
    let (pcap, pcapng) = (tshark::read_many(&dir, &pcap), tshark::read_many(&dir, &pcapng));
    for ((sample, pcap), pcapng) in samples.iter().zip(pcap).zip(pcapng) {
        let key = |frame: &tshark::Frame| {
            let ends = (frame.src, frame.dst, frame.seq, frame.ack, frame.flags);
            (frame.time, frame.len, frame.cap_len, ends, frame.payload.clone())
        };
        let [pcap, pcapng] = [pcap, pcapng].map(|frames| frames.iter().map(key).collect::<Vec<_>>());
        assert!(pcap == pcapng, "{}", sample.name);
    }
}

/// The content of a trace may come from an attacker. It must not reach a terminal or another tool unescaped, nor
/// outgrow its option.
#[test]
fn names_are_escaped_and_bounded() {
    let dir = Dir::new("hostile-names");
    let long = format!("/run/\u{1b}[31m\u{202e}\n{}", "x".repeat(100_000));
    let connection = Connection { local_address: pipe(&long), remote_address: pipe(&long) };
    let own = dir.fresh();
    let (input, output) = (own.join("evil\u{1b}[2J.pb"), own.join("out.pcapng"));
    fs::write(&input, Dress::Binary.file(&streamed(1, connection, [read(TIME, b"r"), closed(TIME)]))).unwrap();
    // No real path of a socket is so long or has such characters.
    convert(&["--from", "binary"], &input, &output).run().expect_status(1).expect_stderr("an address of 1000");
    let blocks = blocks(&output);
    for block in &blocks {
        let texts: Vec<&String> = match block {
            Block::Names(names) => names.iter().map(|(_, name)| name).collect(),
            Block::Interface { name, .. } => vec![name],
            _ => continue,
        };
        for text in texts {
            assert!(text.len() <= 8192 && !text.contains(['\u{1b}', '\u{202e}', '\n']), "{text}");
        }
    }
    let frames = tshark::read(&output);
    assert_eq!(frames[0].flags, SYN);
    assert!(!frames[0].comments[0].contains(['\u{1b}', '\u{202e}']), "{:?}", frames[0].comments);
    assert!(frames[0].comments[0].len() < 20_000);
}

/// Readers refuse a whole capture for a name resolution record without a name.
#[test]
fn an_empty_address_has_no_name_record() {
    let dir = Dir::new("empty-name");
    let connection = Connection { local_address: socket("", 80), ..downstream() };
    let input = dir.create("path_0.pb", Dress::Binary.file(&streamed(1, connection, [read(TIME, b"hello")])));
    let output = dir.join("out.pcapng");
    convert(&[], &input, &output).run().expect_status(1);
    assert!(tshark::read(&output).iter().any(|frame| frame.payload == b"hello"));
    let blocks = fs::read(&output).unwrap();
    let mut reader = pcap_file::pcapng::PcapNgReader::new(blocks.as_slice()).unwrap();
    while let Some(block) = reader.next_block() {
        block.unwrap();
    }
}
