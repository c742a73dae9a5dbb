//! Every trace that a real Envoy wrote, compared with the logs of its clients and servers and with the trace itself.

use crate::{
    manifest::{Format, Sample, Truth, socket_samples, socket_samples_of},
    oracle::{self, Event, Kind, Trace},
    tshark::{self, Checksum, Frame},
    util::{CAPINFOS, Dir, TCPDUMP, convert, modified_like, on_all_cores},
};

/// The most payload that one packet carries: an IP packet's 65,535 bytes less the headers that count.
const MOST: [u64; 2] = [65_535 - 20 - 20, 65_535 - 20];

/// A sample, what the oracle reads of it, and the packets of its capture.
pub struct Converted {
    pub sample: Sample,
    pub trace: Trace,
    pub frames: Vec<Frame>,
}

impl Converted {
    /// Packets of one direction.
    pub fn of(&self, kind: Kind) -> Vec<&Frame> {
        self.frames.iter().filter(|frame| self.kind_of(frame) == kind).collect()
    }

    /// Whether Envoy read or wrote a packet.
    pub fn kind_of(&self, frame: &Frame) -> Kind {
        match frame.direction {
            Some(1) => return Kind::Read,
            Some(2) => return Kind::Write,
            _ => {}
        }
        let local = oracle::socket(self.trace.connection.local_address.as_ref());
        let remote = oracle::socket(self.trace.connection.remote_address.as_ref());
        let first = self.trace.data().next().map_or(Kind::Read, |event| event.kind);
        let first_src = self.frames[0].src;
        match (local, remote) {
            (Some(local), _) if frame.src == Some(local) => Kind::Write,
            (Some(_), _) => Kind::Read,
            (_, Some(remote)) if frame.src == Some(remote) => Kind::Read,
            (_, Some(_)) => Kind::Write,
            // Without any address, the first packet is that of the first event, in bare mode.
            _ if frame.src == first_src => first,
            _ if first == Kind::Read => Kind::Write,
            _ => Kind::Read,
        }
    }

    /// The true bytes of this connection, if they were logged.
    pub fn truth(&self) -> Option<&Truth> {
        truth(&self.sample, &self.trace)
    }
}

/// A scenario may have had many connections. On a listener, the client's address tells them apart.
fn truth<'a>(sample: &'a Sample, trace: &Trace) -> Option<&'a Truth> {
    match sample.truths.as_slice() {
        [] => None,
        [truth] => Some(truth),
        truths => {
            let client = oracle::socket(trace.connection.remote_address.as_ref());
            Some(truths.iter().find(|truth| truth.client == client).expect("one of the scenario's clients"))
        }
    }
}

/// Converts samples without an error, and reads their captures.
pub fn convert_samples(dir: &Dir, samples: Vec<Sample>, options: &[&str], suffix: &str) -> Vec<Converted> {
    let own = dir.fresh();
    let converted = on_all_cores(&samples, |sample| {
        let capture = own.join(format!("{}-{}.{suffix}", sample.version, sample.file_name()));
        let run = convert(options, &sample.path, &capture).run().expect_clean();
        assert!(run.stdout.is_empty(), "words on standard output{run:?}");
        (capture, oracle::trace(sample))
    });
    let captures: Vec<_> = converted.iter().map(|(capture, _)| capture.clone()).collect();
    let frames = tshark::read_many(dir, &captures);
    samples
        .into_iter()
        .zip(converted)
        .zip(frames)
        .map(|((sample, (_, trace)), frames)| Converted { sample, trace, frames })
        .collect()
}

/// The packets that bare mode must show for an event: the captured bytes and the true length of each.
fn packets_of(event: &Event, v6: bool) -> Vec<(&[u8], u64)> {
    let present = event.payload.len() as u64;
    let length = match event.true_len {
        Some(length) => length,
        // The true number is unknown, so one byte stands for all lost ones.
        None if event.truncated => present + 1,
        None => present,
    };
    let most = MOST[usize::from(v6)];
    let packets = length.div_ceil(most).max(1);
    (0..packets)
        .map(|index| {
            let (start, end) = (index * most, (index * most + most).min(length));
            (&event.payload[start.min(present) as usize..end.min(present) as usize], end - start)
        })
        .collect()
}

fn bare_mode(test: &str, suffix: &str) {
    let dir = Dir::new(test);
    for converted in convert_samples(&dir, socket_samples(), &["--tcp", "bare"], suffix) {
        check_bare(&converted);
    }
}

fn check_bare(converted: &Converted) {
    let Converted { sample, trace, frames, .. } = converted;
    let name = &sample.name;
    let mut rest = frames.iter();
    for event in trace.data() {
        for (payload, length) in packets_of(event, sample.kind.starts_with("v6")) {
            let frame = rest.next().unwrap_or_else(|| panic!("{name}: no packet for {event:?}"));
            assert_eq!(frame.time, event.time, "{name}: {frame:?}");
            assert_eq!(converted.kind_of(frame), event.kind, "{name}: {frame:?}");
            assert_eq!(frame.payload, payload, "{name}: {frame:?}");
            assert_eq!(u64::from(frame.tcp_len), length, "{name}: {frame:?}");
            assert_eq!(frame.len - frame.cap_len, length as u32 - payload.len() as u32, "{name}: {frame:?}");
            let checksum = if frame.len == frame.cap_len { Checksum::Good } else { Checksum::Unverified };
            assert_eq!(frame.checksums[1], checksum, "{name}: {frame:?}");
            assert_ne!(frame.checksums[0], Checksum::Bad, "{name}: {frame:?}");
        }
    }
    assert_eq!(rest.next(), None, "{name}: packets of no event");
    check_sequence(converted);
    check_addresses(converted);
    check_payload(converted);
}

/// The sequence numbers of each direction go on where they stopped, and acknowledge what the other side has sent.
fn check_sequence(converted: &Converted) {
    let mut next: [Option<u32>; 2] = [None; 2];
    for frame in &converted.frames {
        let own = usize::from(converted.kind_of(frame) == Kind::Write);
        if let Some(next) = next[own] {
            assert_eq!(frame.seq, next, "{}: {frame:?}", converted.sample.name);
        }
        if let Some(other) = next[1 - own] {
            assert_eq!(frame.ack, other, "{}: {frame:?}", converted.sample.name);
        } else {
            next[1 - own] = Some(frame.ack);
        }
        next[own] = Some(frame.seq.wrapping_add(frame.tcp_len));
    }
}

fn check_addresses(converted: &Converted) {
    let Converted { sample, trace, .. } = converted;
    let connection = &trace.connection;
    let of_event = trace.event_connection.as_ref();
    let local = connection.local_address.as_ref().or_else(|| of_event?.local_address.as_ref());
    let (local, remote) = (oracle::socket(local), oracle::socket(connection.remote_address.as_ref()));
    if let (false, Some(truth)) = (sample.upstream, converted.truth())
        && sample.listener.is_some()
    {
        assert_eq!((local, remote), (sample.listener, truth.client), "{}: the tests read it wrong", sample.name);
    }
    for frame in &converted.frames {
        let (frame_local, frame_remote) = match converted.kind_of(frame) {
            Kind::Read => (frame.dst, frame.src),
            _ => (frame.src, frame.dst),
        };
        for (what, address, expected) in [("local", frame_local, local), ("remote", frame_remote, remote)] {
            let address = address.unwrap();
            match expected {
                Some(expected) => assert_eq!(address, expected, "{}: {what} of {frame:?}", sample.name),
                None => assert!(is_made_up(address), "{}: {what} of {frame:?}", sample.name),
            }
        }
        let v6 = frame_remote.unwrap().is_ipv6();
        assert_eq!(frame_local.unwrap().is_ipv6(), v6, "{}: {frame:?}", sample.name);
        assert_eq!(frame_remote.map(|remote| remote.is_ipv6()), remote.map_or(Some(false), |r| Some(r.is_ipv6())));
    }
}

/// From 198.18.0.0/15 (RFC 2544) or 2001:2::/48 (RFC 5180).
pub fn is_made_up(address: std::net::SocketAddr) -> bool {
    match address.ip() {
        std::net::IpAddr::V4(ip) => matches!(ip.octets(), [198, 18 | 19, ..]),
        std::net::IpAddr::V6(ip) => ip.segments()[..3] == [0x2001, 2, 0],
    }
}

/// The bytes of each direction are the logged ones, if the trace holds all of them.
fn check_payload(converted: &Converted) {
    let Converted { sample, trace, .. } = converted;
    for kind in [Kind::Read, Kind::Write] {
        let bytes: Vec<u8> = converted.of(kind).into_iter().flat_map(|frame| frame.payload.clone()).collect();
        assert_eq!(bytes, trace.bytes(kind), "{}: {kind:?}", sample.name);
        let Some(truth) = converted.truth() else { continue };
        let truth = if kind == Kind::Read { &truth.read } else { &truth.write };
        if sample.limited {
            check_cut(converted, kind, truth.bytes.as_deref().expect("logged in full"));
        } else {
            assert!(truth.are(&bytes), "{}: {kind:?} {} bytes, {} logged", sample.name, bytes.len(), truth.len);
        }
    }
}

/// In a truncated trace with positions, every byte stands at its true place. Without positions, the bytes are in their
/// true order.
fn check_cut(converted: &Converted, kind: Kind, truth: &[u8]) {
    let name = &converted.sample.name;
    let frames = converted.of(kind);
    let Some(first) = frames.first().map(|frame| frame.seq) else { return };
    let mut found = 0;
    for frame in &frames {
        let place = frame.seq.wrapping_sub(first) as usize;
        if converted.sample.streaming && converted.sample.version != "1.36.2" {
            assert_eq!(truth[place..place + frame.payload.len()], frame.payload, "{name}: {frame:?}");
            found = place + frame.tcp_len as usize;
        } else {
            // Without positions, only the order of the bytes is known.
            let at = truth[found..].windows(frame.payload.len()).position(|bytes| bytes == frame.payload);
            let at = found + at.unwrap_or_else(|| panic!("{name}: not in the truth: {frame:?}"));
            found = at + frame.payload.len();
            if frame.tcp_len as usize != frame.payload.len() && !converted.sample.streaming {
                break;
            }
        }
    }
    if converted.sample.streaming && converted.sample.version != "1.36.2" {
        assert_eq!(found, truth.len(), "{name}: {kind:?}");
    }
}

#[test]
fn bare_mode_shows_each_event_in_pcap() {
    bare_mode("bare-pcap", "pcap");
}

#[test]
fn bare_mode_shows_each_event_in_pcapng() {
    bare_mode("bare-pcapng", "pcapng");
}

/// Full mode adds packets, and changes nothing about the bytes. The `tcp` tests check the packets.
#[test]
fn full_mode_keeps_every_byte() {
    let dir = Dir::new("full-payload");
    for suffix in ["pcap", "pcapng"] {
        let samples =
            socket_samples().into_iter().filter(|sample| suffix == "pcapng" || sample.format != Format::JsonString);
        for converted in convert_samples(&dir, samples.collect(), &[], suffix) {
            check_addresses(&converted);
            for kind in [Kind::Read, Kind::Write] {
                let bytes: Vec<u8> = converted.of(kind).into_iter().flat_map(|frame| frame.payload.clone()).collect();
                assert_eq!(bytes, converted.trace.bytes(kind), "{}: {kind:?}", converted.sample.name);
                if let (false, Some(truth)) = (converted.sample.limited, converted.truth()) {
                    let truth = if kind == Kind::Read { &truth.read } else { &truth.write };
                    assert!(truth.are(&bytes), "{}: {kind:?}", converted.sample.name);
                }
            }
        }
    }
}

/// Joined captures show little about a single file, so capinfos and tcpdump, which is libpcap, read each one alone.
#[test]
fn tcpdump_and_capinfos_read_every_capture() {
    let dir = Dir::new("tcpdump");
    let samples = socket_samples();
    for (tcp, suffix) in [("bare", "pcap"), ("bare", "pcapng"), ("full", "pcap"), ("full", "pcapng")] {
        let own = dir.fresh();
        let read = on_all_cores(&samples, |sample| {
            let capture = own.join(format!("{}-{}.{suffix}", sample.version, sample.file_name()));
            convert(&["--tcp", tcp], &sample.path, &capture).run().expect_clean();
            let args = ["-n", "-S", "--time-stamp-precision=nano", "-tt", "-r", capture.to_str().unwrap()];
            let run = TCPDUMP.run(args, &[]);
            // One line, "reading from file", unless something is wrong.
            assert_eq!(run.stderr.lines().count(), 1, "{}{run:?}", sample.name);
            assert!(run.stderr.contains("link-type EN10MB (Ethernet)"), "{}{run:?}", sample.name);
            let trace = oracle::trace(sample);
            let packets = run.stdout_text().lines().count();
            if tcp == "bare" {
                let v6 = sample.kind.starts_with("v6");
                let expected: Vec<_> =
                    trace.data().flat_map(|e| packets_of(e, v6).into_iter().map(|_| e.time)).collect();
                let times = run.stdout_text().lines().map(|line| line.split(' ').next().unwrap());
                let times: Vec<u64> = times.map(|time| time.replace('.', "").parse().unwrap()).collect();
                assert_eq!(times, expected, "{}{run:?}", sample.name);
            } else {
                assert!(packets >= 3 + trace.data().count(), "{}{run:?}", sample.name);
            }
            (capture, packets)
        });
        let captures = read.iter().map(|(capture, _)| capture.as_os_str());
        let table =
            CAPINFOS.run(["-T", "-m", "-Q", "-t", "-E", "-c"].map(AsRef::as_ref).into_iter().chain(captures), &[]);
        let rows: Vec<&str> = table.stdout_text().lines().skip(1).collect();
        assert_eq!(rows.len(), samples.len(), "{table:?}");
        for (row, (capture, packets)) in rows.iter().zip(&read) {
            let kind = if suffix == "pcap" { "nsecpcap" } else { "pcapng" };
            let expected = format!("\"{}\",\"{kind}\",\"ether\",\"{packets}\"", capture.display());
            assert_eq!(row.trim(), expected);
        }
    }
}

/// A file may lose its suffix, so its content must be enough. Sequence numbers depend on the stem of the name.
#[test]
fn a_lost_suffix_changes_nothing() {
    let dir = Dir::new("lost-suffix");
    let samples = socket_samples();
    on_all_cores(&samples, |sample| {
        let own = dir.fresh();
        let [lost, first, second] = [sample.stem(), "first.pcap", "second.pcap"].map(|name| own.join(name));
        std::fs::copy(&sample.path, &lost).unwrap();
        modified_like(&lost, &sample.path);
        convert(&[], &sample.path, &first).run().expect_clean();
        convert(&[], &lost, &second).run().expect_clean();
        assert!(std::fs::read(first).unwrap() == std::fs::read(second).unwrap(), "{}", sample.name);
    });
}

/// The suffix of the name is that of another format.
#[test]
fn a_wrong_suffix_does_not_mislead() {
    let dir = Dir::new("wrong-suffix");
    let samples = socket_samples();
    on_all_cores(&samples, |sample| {
        for suffix in ["pb", "pb_length_delimited", "pb_text", "json"] {
            let own = dir.fresh();
            let name = format!("{}.{suffix}", sample.stem());
            let [wrong, first, second] = [&name, "first.pcap", "second.pcap"].map(|name| own.join(name));
            std::fs::copy(&sample.path, &wrong).unwrap();
            modified_like(&wrong, &sample.path);
            convert(&[], &sample.path, &first).run().expect_clean();
            convert(&[], &wrong, &second).run().expect_clean();
            assert!(std::fs::read(first).unwrap() == std::fs::read(second).unwrap(), "{} as {name}", sample.name);
        }
    });
}

/// Standard input cannot be read twice, so detection must leave it as it was.
#[test]
fn standard_input_and_output_work() {
    let dir = Dir::new("stdin");
    let samples = socket_samples_of("1.40.0/h1");
    let captures = on_all_cores(&samples, |sample| {
        let run = crate::util::tap2pcap().args(&["--tcp", "bare", "-", "-"]).stdin(sample.bytes()).run().expect_clean();
        let path = dir.fresh().join("out.pcapng");
        std::fs::write(&path, &run.stdout).unwrap();
        path
    });
    for (sample, frames) in samples.iter().zip(tshark::read_many(&dir, &captures)) {
        let events: Vec<_> = oracle::trace(sample).data().map(|event| (event.time, event.payload.clone())).collect();
        let found: Vec<_> = frames.into_iter().map(|frame| (frame.time, frame.payload)).collect();
        assert_eq!(found, events, "{}", sample.name);
    }
}
