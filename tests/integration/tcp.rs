//! Full mode writes sessions about which Wireshark's experts have no remarks.

use std::{path::PathBuf, sync::OnceLock};

use tap2pcap::proto::tap::{Connection, TraceWrapper};

use crate::{
    conversation::{ACK, Conversation, FIN, PSH, SYN, Skips, expect_transcript, streams, transcript},
    fixture::{Dress, TIME, buffered, closed, cut, downstream, end_stream, positions, read, socket, streamed, write},
    manifest::{socket_samples, socket_samples_of},
    oracle::{self, Event, Kind, Trace},
    real_traces::{Converted, convert_samples},
    tshark::{self, Checksum, Frame},
    util::{Dir, convert, modified, on_all_cores},
};

const US: u64 = 1000;
const MS: u64 = 1_000_000;

/// All real traces as full mode shows them in pcapng, converted and read once for all tests.
pub fn all() -> &'static [Converted] {
    static ALL: OnceLock<Vec<Converted>> = OnceLock::new();
    ALL.get_or_init(|| convert_samples(&Dir::new("tcp-all"), socket_samples(), &[], "pcapng"))
}

pub fn follow(converted: &Converted, skips: Skips) -> Conversation<'_> {
    Conversation::follow(&converted.sample.name, &converted.frames, skips)
}

/// Converts messages and returns the capture's path.
pub fn capture(dir: &Dir, options: &[&str], messages: &[TraceWrapper]) -> PathBuf {
    let own = dir.fresh();
    let (input, output) = (own.join("trace_1.pb_length_delimited"), own.join("out.pcapng"));
    std::fs::write(&input, Dress::Delimited.file(messages)).unwrap();
    convert(options, &input, &output).run().expect_clean();
    output
}

pub fn frames_of(dir: &Dir, options: &[&str], messages: &[TraceWrapper]) -> Vec<Frame> {
    tshark::read(&capture(dir, options, messages))
}

#[test]
fn wireshark_has_no_doubts_in_pcapng() {
    expect_no_doubts(all());
}

#[test]
fn wireshark_has_no_doubts_in_pcap() {
    let dir = Dir::new("no-doubts");
    expect_no_doubts(&convert_samples(&dir, socket_samples(), &[], "pcap"));
}

fn expect_no_doubts(all: &[Converted]) {
    for converted in all {
        let name = &converted.sample.name;
        assert!(converted.frames.len() >= 3, "{name}");
        for frame in &converted.frames {
            frame.expect_sound(name);
            // The experts say nothing about a checksum that they did not verify.
            let whole = frame.len == frame.cap_len;
            assert_eq!(frame.checksums[1], if whole { Checksum::Good } else { Checksum::Unverified }, "{name}");
            let ip = if frame.src.unwrap().is_ipv4() { Checksum::Good } else { Checksum::Absent };
            assert_eq!(frame.checksums[0], ip, "{name}");
        }
    }
}

/// The tests above are worth something only if Wireshark complains when there is a reason.
#[test]
fn wireshark_has_doubts_when_something_is_wrong() {
    let dir = Dir::new("doubts");
    let good = ["--tcp", "bare", "--truncated", "snap"];
    let events = positions([(read(TIME, b"one"), 3), (cut(read(TIME + MS, b"two")), 3000), (read(TIME, b"three"), 5)]);
    let messages = streamed(1, downstream(), events);
    let doubts = |frames: &[Frame]| {
        let doubts = |frame: &&Frame| std::panic::catch_unwind(|| frame.expect_sound(&"")).is_err();
        frames.iter().filter(doubts).count()
    };
    assert_eq!(doubts(&frames_of(&dir, &good, &messages)), 0);
    let skipped = frames_of(&dir, &["--tcp", "bare", "--truncated", "gap"], &messages);
    assert!(skipped.iter().any(|frame| frame.analysis), "{skipped:#?}");
    assert!(skipped.iter().flat_map(|frame| &frame.expert).any(|(severity, _)| *severity >= tshark::WARNING));
    assert_eq!(doubts(&skipped), 1);
    // The changes are one bit of the first payload, and one of an IP header.
    let path = capture(&dir, &good, &messages);
    let bytes = std::fs::read(&path).unwrap();
    let payload = bytes.windows(3).position(|bytes| bytes == b"one").unwrap();
    for (place, checksum) in [(payload, 1), (payload - 20 - 20 + 8, 0)] {
        let mut wrong = bytes.clone();
        wrong[place] ^= 0x40;
        std::fs::write(&path, &wrong).unwrap();
        let frames = tshark::read(&path);
        assert_eq!(frames[0].checksums[checksum], Checksum::Bad, "{frames:#?}");
        assert_eq!(doubts(&frames), 1, "{frames:#?}");
    }
}

#[test]
fn every_connection_opens_and_every_byte_is_acknowledged() {
    for converted in all() {
        let name = &converted.sample.name;
        let conversation = follow(converted, Skips::Never);
        conversation.expect_all_acknowledged(name);
        let [syn, syn_ack, ack, ..] = conversation.frames[..] else { panic!("{name}: {:#?}", converted.frames) };
        let flags = [syn.flags, syn_ack.flags, ack.flags];
        assert_eq!(flags, [SYN, SYN | ACK, ACK], "{name}\n{}", transcript(&conversation.frames));
        assert_eq!(syn_ack.ack, syn.seq.wrapping_add(1), "{name}");
        assert_eq!([ack.seq, ack.ack], [syn.seq.wrapping_add(1), syn_ack.seq.wrapping_add(1)], "{name}");
        let time = converted.trace.events.first().map(|event| event.time);
        for frame in [syn, syn_ack, ack] {
            assert_eq!(frame.tcp_len, 0, "{name}");
            // Without any event, the only time is that of the file.
            assert_eq!(frame.time, time.unwrap_or_else(|| modified(&converted.sample.path)), "{name}");
        }
    }
}

/// The packets of one event, or of two: in `snap` mode, a cut event is joined to the whole one right before it, so that
/// a message whose head came alone is dissected.
#[derive(Clone, Debug)]
pub struct Shown {
    pub time: u64,
    pub kind: Kind,
    pub payload: Vec<u8>,
    /// Bytes on the wire. If the number of lost bytes is unknown, one stands for all.
    pub length: u64,
    /// The last of the events.
    pub event: Event,
    /// Bytes of the first one, where there are two.
    pub first: u64,
}

pub fn shown(trace: &Trace) -> Vec<Shown> {
    let mut all: Vec<Shown> = Vec::new();
    let mut last_whole = false;
    for event in trace.data() {
        let present = event.payload.len() as u64;
        let length = event.true_len.unwrap_or(present + u64::from(event.truncated));
        match all.last_mut().filter(|last| last_whole && last.kind == event.kind && event.truncated) {
            Some(last) => {
                last.first = last.length;
                last.length += length;
                last.payload.extend_from_slice(&event.payload);
                last.event = event.clone();
            }
            None => all.push(Shown {
                time: event.time,
                kind: event.kind,
                payload: event.payload.clone(),
                length,
                event: event.clone(),
                first: 0,
            }),
        }
        last_whole = length == present && present > 0;
    }
    all
}

/// The bytes of each event keep their time in full mode, too.
#[test]
fn events_keep_their_times() {
    for converted in all() {
        let name = &converted.sample.name;
        for kind in [Kind::Read, Kind::Write] {
            let mut frames = converted.of(kind).into_iter().filter(|frame| frame.tcp_len > 0);
            for event in shown(&converted.trace).iter().filter(|event| event.kind == kind) {
                let mut seen = 0;
                while seen < event.length {
                    let frame = frames.next().unwrap_or_else(|| panic!("{name}: no packet for {event:?}"));
                    assert_eq!(frame.time, event.time, "{name}: {frame:?}");
                    seen += u64::from(frame.tcp_len);
                    // PSH means that the sender has nothing more for now.
                    assert_eq!(frame.flags, if seen == event.length { PSH | ACK } else { ACK }, "{name}: {frame:?}");
                }
                assert_eq!(seen, event.length, "{name}: {event:?}");
            }
            assert_eq!(frames.next(), None, "{name}");
        }
    }
}

#[test]
fn the_handshake_carries_the_options_of_a_real_one() {
    let dir = Dir::new("syn-options");
    let v6 = Connection { local_address: socket("2001:db8::1", 443), remote_address: socket("2001:db8::2", 50_000) };
    for (connection, mss, expected) in [
        (downstream(), None, 65_495),
        (downstream(), Some("1460"), 1460),
        (downstream(), Some("1"), 1),
        (downstream(), Some("65535"), 65_495),
        (v6.clone(), None, 65_515),
        (v6, Some("65535"), 65_515),
    ] {
        let options: Vec<_> = mss.into_iter().flat_map(|mss| ["--mss", mss]).collect();
        let path = capture(&dir, &options, &streamed(1, connection, [read(TIME, b"x"), closed(TIME)]));
        let fields = "-T fields -e tcp.flags -e tcp.options.mss_val -e tcp.options.wscale.shift -e \
                      tcp.options.sack_perm -e tcp.window_size -e tcp.options";
        let lines = tshark::lines(&path, &fields.split_whitespace().collect::<Vec<_>>());
        for (line, flags) in lines.iter().zip(["0x0002", "0x0012"]) {
            let [found, mss, shift, sack, ..] = line.split('\t').collect::<Vec<_>>()[..] else { panic!("{line}") };
            assert_eq!((found, mss), (flags, &*expected.to_string()), "{line}");
            // RFC 7323 allows 14 at most. A window below 1 GiB fills up in a long one-way transfer.
            assert_eq!(shift, "14", "{line}");
            assert!(!sack.is_empty(), "{line}");
        }
        for line in &lines[2..] {
            let [_, mss, shift, sack, window, options] = line.split('\t').collect::<Vec<_>>()[..] else { panic!() };
            assert_eq!([mss, shift, sack, options], [""; 4], "{line}");
            assert_eq!(window, (65_535_u64 << 14).to_string(), "{line}");
        }
    }
}

#[test]
fn acknowledgements_ride_on_data_where_the_other_side_speaks_next() {
    let dir = Dir::new("piggy-backed");
    let events = [
        read(TIME, &[b'a'; 100]),
        write(TIME + 10 * US, &[b'b'; 200]),
        read(TIME + 20 * US, &[b'c'; 50]),
        read(TIME + 30 * US, &[b'd'; 50]),
        write(TIME + 40 * US, &[b'e'; 10]),
        closed(TIME + 50 * US),
    ];
    expect_transcript(
        &frames_of(&dir, &[], &streamed(1, downstream(), events)),
        "0 > SYN 0+0
        0 < SYN ACK 0+0 ack 1
        0 > ACK 1+0 ack 1
        0 > PSH ACK 1+100 ack 1
        10 < PSH ACK 1+200 ack 101
        20 > PSH ACK 101+50 ack 201
        30 > PSH ACK 151+50 ack 201
        40 < PSH ACK 201+10 ack 201
        50 > FIN ACK 201+0 ack 211
        50 < FIN ACK 211+0 ack 202
        50 > ACK 202+0 ack 212",
    );
}

/// RFC 5681 section 4.2 wants an acknowledgement for at least every second full-sized segment, and RFC 1122 section
/// 4.2.3.2 within half a second.
#[test]
fn one_way_transfers_are_acknowledged_on_the_way() {
    let dir = Dir::new("pure-acks");
    let events = [read(TIME, &[b'a'; 5000]), read(TIME + 600 * MS, b"later"), closed(TIME + 700 * MS)];
    let messages = streamed(1, downstream(), events);
    expect_transcript(
        &frames_of(&dir, &["--mss", "1000"], &messages),
        "0 > SYN 0+0
        0 < SYN ACK 0+0 ack 1
        0 > ACK 1+0 ack 1
        0 > ACK 1+1000 ack 1
        0 > ACK 1001+1000 ack 1
        0 < ACK 1+0 ack 2001
        0 > ACK 2001+1000 ack 1
        0 > ACK 3001+1000 ack 1
        0 < ACK 1+0 ack 4001
        0 > PSH ACK 4001+1000 ack 1
        600000 < ACK 1+0 ack 5001
        600000 > PSH ACK 5001+5 ack 1
        700000 > FIN ACK 5006+0 ack 1
        700000 < FIN ACK 1+0 ack 5007
        700000 > ACK 5007+0 ack 2",
    );
    let limits = [("1", 2), ("536", 1072), ("1460", 2920), ("65535", 2 * 65_495)];
    let captures = limits.map(|(mss, _)| capture(&dir, &["--mss", mss], &messages));
    for ((mss, most), frames) in limits.into_iter().zip(tshark::read_many(&dir, &captures)) {
        let (mut sent, mut acknowledged) = (0, 0);
        for frame in &frames[3..] {
            if frame.dst.unwrap().port() == 8080 {
                sent += u64::from(frame.tcp_len);
            } else {
                acknowledged = sent;
            }
            assert!(sent - acknowledged <= most, "--mss {mss}: {}", transcript(&frames.iter().collect::<Vec<_>>()));
        }
    }
}

/// The window of a SYN is not scaled (RFC 7323 section 2.2), so the client may send no more than 65,535 bytes until the
/// server's next packet.
#[test]
fn an_upload_before_the_server_speaks_stays_within_the_window() {
    let dir = Dir::new("first-window");
    let events = [read(TIME, &[b'a'; 60_000]), read(TIME + MS, &[b'b'; 40_000]), write(TIME + 2 * MS, b"thanks")];
    let messages = streamed(1, downstream(), [&events[..], &[closed(TIME + 3 * MS)]].concat());
    let frames = frames_of(&dir, &[], &messages);
    expect_transcript(
        &frames,
        "0 > SYN 0+0
        0 < SYN ACK 0+0 ack 1
        0 > ACK 1+0 ack 1
        0 > PSH ACK 1+60000 ack 1
        1000 < ACK 1+0 ack 60001
        1000 > PSH ACK 60001+40000 ack 1
        2000 < PSH ACK 1+6 ack 100001
        3000 > FIN ACK 100001+0 ack 7
        3000 < FIN ACK 7+0 ack 100002
        3000 > ACK 100002+0 ack 8",
    );
    Conversation::follow("an upload", &frames, Skips::Never);
    // Lost bytes take room in the window, and so does a FIN.
    let events = positions([(cut(read(TIME, b"cut")), 65_534), (closed(TIME + MS), 0)]);
    for mode in ["snap", "gap", "zero"] {
        let frames = frames_of(&dir, &["--truncated", mode], &streamed(1, downstream(), events.clone()));
        let conversation = Conversation::follow(mode, &frames, Skips::Allowed);
        conversation.expect_all_acknowledged(mode);
    }
}

/// Ten gibibytes are read and nothing is written, and most bytes are lost, so sequence numbers wrap more than twice. A
/// window without scaling would be full, and a byte that is not counted would show as unseen.
#[test]
fn sequence_numbers_wrap_in_ten_gibibytes_one_way() {
    const TOTAL: u64 = 10 << 30;
    let dir = Dir::new("ten-gibibytes");
    let mut events = Vec::new();
    let mut sent = 0;
    let mut time = TIME;
    while sent < TOTAL {
        // Some events are cut, some are whole, and some are missing.
        let length = [8_000_000, 5, 65_495, 1 << 20, 7_000_001][events.len() % 5].min(TOTAL - sent);
        let event = if length <= 5 { read(time, &[1; 5]) } else { cut(read(time, b"cut")) };
        events.push((event, length));
        sent += length;
        time += 20 * MS;
    }
    events.push((write(time, b"thanks"), 6));
    events.push((closed(time + MS), 0));
    let messages = streamed(1, downstream(), positions(events));
    let there = |(index, _): &(usize, &TraceWrapper)| index % 7 != 3 || index + 4 > messages.len();
    let messages: Vec<_> = messages.iter().enumerate().filter(there).map(|(_, message)| message.clone()).collect();
    let path = capture(&dir, &[], &messages);
    let fields = "-T fields -e tcp.srcport -e tcp.len -e tcp.seq_raw -e tcp.ack_raw -e tcp.flags -e \
                  tcp.analysis.flags -e _ws.expert.severity";
    let mut next: [Option<u32>; 2] = [None; 2];
    let (mut total, mut wraps) = (0, 0);
    let lines = tshark::lines(&path, &fields.split_whitespace().collect::<Vec<_>>());
    for line in &lines {
        let values: Vec<_> = line.split('\t').collect();
        let [port, len, seq, ack, flags, analysis, severities] = values[..] else { panic!("{line}") };
        let (len, seq, ack): (u32, u32, u32) = (len.parse().unwrap(), seq.parse().unwrap(), ack.parse().unwrap());
        let side = usize::from(port == "8080");
        assert_eq!(seq, next[side].unwrap_or(seq), "{line}");
        let flags = u16::from_str_radix(flags.trim_start_matches("0x"), 16).unwrap();
        next[side] = Some(seq.wrapping_add(len).wrapping_add(u32::from(flags & (SYN | FIN) != 0)));
        if let Some(other) = next[1 - side] {
            assert_eq!(ack, other, "{line}");
        }
        if side == 0 {
            total += u64::from(len);
            wraps += u32::from(seq.wrapping_add(len) < seq);
        }
        assert_eq!(analysis, "", "{line}");
        let worst =
            severities.split(',').filter(|text| !text.is_empty()).map(|text| text.parse::<u32>().unwrap()).max();
        assert!(worst < Some(tshark::WARNING), "{line}");
    }
    assert!(wraps >= 2, "{wraps}");
    assert_eq!(total, TOTAL);
}

/// When addresses and ports are used again, sequence numbers start elsewhere. The same trace always starts with the
/// same numbers, in any directory and however it is packed.
#[test]
fn sequence_numbers_start_where_source_and_trace_id_say() {
    let dir = Dir::new("isn");
    let events = || [read(TIME, b"x"), closed(TIME + 1)];
    let firsts = |name: &str, trace_id: u64| {
        let own = dir.fresh();
        let (input, output) = (own.join(name), own.join("out.pcap"));
        std::fs::write(&input, Dress::Delimited.file(&streamed(trace_id, downstream(), events()))).unwrap();
        convert(&[], &input, &output).run().expect_clean();
        let frames = tshark::read(&output);
        [frames[0].seq, frames[1].seq]
    };
    let one = firsts("trace_1.pb", 1);
    assert_ne!(one[0], one[1]);
    assert_eq!(firsts("trace_1.pb", 1), one);
    assert_eq!(firsts("trace_1.pb_length_delimited", 1), one);
    let others = [firsts("trace_2.pb", 1), firsts("trace_1.pb", 2)];
    for (other, which) in others.iter().zip(["source", "trace_id"]) {
        assert!(one[0] != other[0] && one[1] != other[1], "{which}: {one:?} {others:?}");
    }
    // Two connections follow each other in one source, with one id.
    let mut messages = streamed(7, downstream(), events());
    messages.extend(streamed(7, downstream(), [read(TIME + MS, b"y"), closed(TIME + MS)]));
    let frames = frames_of(&dir, &[], &messages);
    let starts: Vec<_> = frames.iter().filter(|frame| frame.flags == SYN).collect();
    assert_eq!(starts.len(), 2);
    assert_ne!(starts[0].seq, starts[1].seq);
    assert_ne!(starts[0].stream, starts[1].stream);
    // Wireshark's only remark is that the ports are used again, which is true.
    for frame in frames.iter().filter(|frame| !std::ptr::eq(*frame, starts[1])) {
        frame.expect_sound(&"ports used again");
    }
    assert!(starts[1].expert.iter().all(|(severity, _)| *severity < tshark::WARNING), "{:?}", starts[1]);
}

#[test]
fn a_closed_connection_and_a_buffered_one_end_with_both_fins() {
    for converted in all() {
        let name = &converted.sample.name;
        let conversation = follow(converted, Skips::Never);
        let ends = converted.trace.events.last().is_some_and(|event| event.kind == Kind::Closed);
        assert!(ends || !converted.sample.streaming, "{name}: every recorded connection was closed");
        let [.., first, second, last] = conversation.frames[..] else { panic!("{name}") };
        // Both FINs are at the time of the end, and only their acknowledgement follows.
        let flags = [first.flags, second.flags, last.flags];
        let lines = transcript(&conversation.frames);
        assert_eq!(flags, [FIN | ACK, FIN | ACK, ACK], "{name}\n{lines}");
        assert!(first.src == last.src && first.src == second.dst, "{name}\n{lines}");
        assert!(conversation.halves.iter().all(|half| half.fin), "{name}\n{lines}");
        let time = converted.trace.events.last().map_or_else(|| modified(&converted.sample.path), |event| event.time);
        assert_eq!(last.time, time, "{name}\n{lines}");
    }
}

/// The server sends its FIN with its last bytes. The client goes on, and ends the connection.
#[test]
fn a_half_close_comes_where_envoy_half_closed() {
    let dir = Dir::new("half-close");
    let events = [
        read(TIME, b"hello"),
        end_stream(write(TIME + 10, b"bye")),
        read(TIME + 20 * US, b"more"),
        read(TIME + 30 * US, b"and more"),
        closed(TIME + 40 * US),
    ];
    let lines = "0 > SYN 0+0
        0 < SYN ACK 0+0 ack 1
        0 > ACK 1+0 ack 1
        0 > PSH ACK 1+5 ack 1
        0 < PSH ACK 1+3 ack 6
        0 < FIN ACK 4+0 ack 6
        20 > PSH ACK 6+4 ack 5
        30 > PSH ACK 10+8 ack 5
        40 > FIN ACK 18+0 ack 5
        40 < ACK 5+0 ack 19";
    let frames = frames_of(&dir, &[], &streamed(1, downstream(), events.clone()));
    expect_transcript(&frames, lines);
    frames.iter().for_each(|frame| frame.expect_sound(&"half-close"));
    let frames = frames_of(&dir, &[], &[buffered(1, downstream(), events[..4].iter().cloned())]);
    expect_transcript(&frames, &lines.replace("40 >", "30 >").replace("40 <", "30 <"));

    // Envoy is the client, and half-closes without bytes. There is one FIN, and no empty packet.
    let upstream = Connection { local_address: socket("10.0.0.1", 50_123), remote_address: socket("192.0.2.7", 5432) };
    let events = [
        write(TIME, b"hello"),
        end_stream(write(TIME + 10 * US, b"")),
        read(TIME + 20 * US, b"answer"),
        closed(TIME + 30 * US),
    ];
    let frames = frames_of(&dir, &[], &streamed(1, upstream, events));
    expect_transcript(
        &frames,
        "0 > SYN 0+0
        0 < SYN ACK 0+0 ack 1
        0 > ACK 1+0 ack 1
        0 > PSH ACK 1+5 ack 1
        10 > FIN ACK 6+0 ack 1
        20 < PSH ACK 1+6 ack 7
        30 < FIN ACK 7+0 ack 7
        30 > ACK 7+0 ack 8",
    );
    frames.iter().for_each(|frame| frame.expect_sound(&"half-close by the client"));
}

/// A peer's half-close leaves no event, and Envoy half-closed none of the recorded connections itself. So both FINs
/// come at the end.
#[test]
fn no_half_close_is_made_up() {
    for converted in all() {
        let messages = oracle::messages(&converted.sample.bytes(), converted.sample.format);
        assert!(!format!("{messages:?}").contains("end_stream: true"), "{}", converted.sample.name);
        let end = converted.frames.last().unwrap().time;
        let fins = converted.frames.iter().filter(|frame| frame.flags & FIN != 0);
        assert!(fins.clone().all(|fin| fin.time == end) && fins.count() == 2, "{}", converted.sample.name);
    }
}

/// Nothing tells whether or how the connection was closed.
#[test]
fn a_streamed_trace_that_just_stops_has_no_fin() {
    let dir = Dir::new("stops");
    let events = [read(TIME, b"hello"), write(TIME + 10 * US, b"one"), write(TIME + 20 * US, b"two")];
    let frames = frames_of(&dir, &[], &streamed(1, downstream(), events));
    expect_transcript(
        &frames,
        "0 > SYN 0+0
        0 < SYN ACK 0+0 ack 1
        0 > ACK 1+0 ack 1
        0 > PSH ACK 1+5 ack 1
        10 < PSH ACK 1+3 ack 6
        20 < PSH ACK 4+3 ack 6
        20 > ACK 6+0 ack 7",
    );
    // Real traces without their last messages.
    for sample in socket_samples_of("1.40.0/conns_str") {
        let messages = oracle::messages(&sample.bytes(), sample.format);
        let frames = frames_of(&dir, &[], &messages[..messages.len() - 1]);
        assert!(frames.iter().all(|frame| frame.flags & FIN == 0), "{}", sample.name);
        Conversation::follow(&sample.name, &frames, Skips::Never).expect_all_acknowledged(&sample.name);
        frames.iter().for_each(|frame| frame.expect_sound(&sample.name));
    }
}

#[test]
fn a_connection_without_traffic_opens_and_closes() {
    let dir = Dir::new("no-traffic");
    let lines = "0 > SYN 0+0
        0 < SYN ACK 0+0 ack 1
        0 > ACK 1+0 ack 1
        0 > FIN ACK 1+0 ack 1
        0 < FIN ACK 1+0 ack 2
        0 > ACK 2+0 ack 2";
    let frames = frames_of(&dir, &[], &streamed(1, downstream(), [closed(TIME)]));
    expect_transcript(&frames, lines);
    assert!(frames.iter().all(|frame| frame.time == TIME), "{frames:#?}");
    expect_transcript(&frames_of(&dir, &[], &[buffered(1, downstream(), [])]), lines);
}

#[test]
fn mss_cuts_payload_and_nothing_else() {
    let dir = Dir::new("mss");
    let samples = [socket_samples_of("1.40.0/h1_str_PROTO_BINARY_1"), socket_samples_of("1.40.0/v6_str")].concat();
    for (mss, most) in [("1", 1), ("536", 536), ("1460", 1460), ("65535", 65_515)] {
        for converted in convert_samples(&dir, samples.clone(), &["--mss", mss], "pcapng") {
            let name = format!("{} --mss {mss}", converted.sample.name);
            let conversation = follow(&converted, Skips::Never);
            conversation.expect_all_acknowledged(&name);
            for frame in &converted.frames {
                assert!(frame.tcp_len <= most, "{name}: {frame:?}");
                frame.expect_sound(&name);
            }
            for kind in [Kind::Read, Kind::Write] {
                let bytes: Vec<u8> = converted.of(kind).into_iter().flat_map(|frame| frame.payload.clone()).collect();
                assert_eq!(bytes, converted.trace.bytes(kind), "{name}: {kind:?}");
                let events = converted.trace.data().filter(|event| event.kind == kind);
                let segments = events.map(|event| event.payload.len().div_ceil(most as usize)).sum::<usize>();
                let data = converted.of(kind).into_iter().filter(|frame| frame.tcp_len > 0);
                assert_eq!(data.count(), segments, "{name}: no segment is smaller than it must be");
                // The last segment of each event has PSH, and no other.
                let pushes = converted.of(kind).into_iter().filter(|frame| frame.flags & PSH != 0).count();
                let events = converted.trace.data().filter(|event| event.kind == kind && !event.payload.is_empty());
                assert_eq!(pushes, events.count(), "{name}");
            }
        }
    }
    let input = dir.create("trace", Dress::Delimited.file(&streamed(1, downstream(), [read(TIME, b"x")])));
    for mss in ["0", "65536", "many"] {
        convert(&["--mss", mss], &input, &dir.join("out.pcap")).run().expect_status(2).expect_stderr("--mss");
    }
}

#[test]
fn the_client_is_the_end_that_opened_the_connection() {
    let reads_first = [read(TIME, b"r"), write(TIME + 1, b"w"), closed(TIME + 2)];
    let writes_first = [write(TIME, b"w"), read(TIME + 1, b"r"), closed(TIME + 2)];
    let at = |port| socket("10.0.0.1", port);
    let peer = |port| socket("192.0.2.7", port);
    // The sender of the SYN: `l` for the local side, `r` for the remote one.
    let mut cases: Vec<(String, char, Vec<&str>, Vec<TraceWrapper>)> = Vec::new();
    for (what, local, remote, reading, writing) in [
        // When an upstream trace begins, Envoy's own socket is not yet connected, whichever side speaks and whatever
        // the port is.
        ("no local address", None, peer(5432), 'l', 'l'),
        ("no local address, a dynamic port", None, peer(50_000), 'l', 'l'),
        ("service port here, dynamic port there", at(443), peer(49_152), 'r', 'r'),
        ("dynamic port here, service port there", at(65_535), peer(443), 'l', 'l'),
        // Linux's own range begins below that of RFC 6335.
        ("Linux's range there", at(8080), peer(32_768), 'r', 'r'),
        ("Linux's range here", at(40_000), peer(8080), 'l', 'l'),
        ("just below Linux's range", at(32_767), peer(32_768), 'r', 'r'),
        // These ports tell nothing, so the side that speaks first does.
        ("service ports on both sides", at(8080), peer(9090), 'r', 'l'),
        ("dynamic ports on both sides", at(40_000), peer(50_000), 'r', 'l'),
        ("no address at all", None, None, 'r', 'l'),
    ] {
        for (events, expected) in [(&reads_first, reading), (&writes_first, writing)] {
            let connection = Connection { local_address: local.clone(), remote_address: remote.clone() };
            let stream = streamed(1, connection.clone(), events.to_vec());
            let buffer = vec![buffered(1, connection, events[..2].to_vec())];
            let mut case = |how: &str, expected, options: &[&'static str], messages: &[TraceWrapper]| {
                cases.push((format!("{what}, {how}, {options:?}"), expected, options.to_vec(), messages.to_vec()));
            };
            // If the ports tell nothing, an address of Envoy from the start means a listener. A cluster's tap has none
            // at that time.
            let listener = local.is_some() && what.ends_with("on both sides");
            case("streamed", if listener { 'r' } else { expected }, &[], &stream);
            case("buffered", expected, &[], &buffer);
            case("streamed", 'r', &["--role", "downstream"], &stream);
            case("buffered", 'l', &["--role", "upstream"], &buffer);
        }
    }
    // If neither side sends anything, the trace is taken for a listener's.
    let silent = Connection { local_address: at(8080), remote_address: peer(9090) };
    cases.push(("silent".to_owned(), 'r', vec![], streamed(1, silent, [closed(TIME)])));

    let dir = Dir::new("roles");
    let captures = on_all_cores(&cases, |(_, _, options, messages)| capture(&dir, options, messages));
    for ((what, expected, ..), frames) in cases.iter().zip(tshark::read_many(&dir, &captures)) {
        let (client, server) = (&frames[0], &frames[1]);
        assert_eq!((client.flags, server.flags), (SYN, SYN | ACK), "{what}");
        // epb_flags give the direction as Envoy saw it: 1 is inbound, from the remote side.
        let expected = if *expected == 'r' { (Some(1), Some(2)) } else { (Some(2), Some(1)) };
        assert_eq!((client.direction, server.direction), expected, "{what}");
        let local = if expected.0 == Some(1) { server.src } else { client.src };
        if !what.starts_with("no ") {
            assert_eq!(local.unwrap().ip().to_string(), "10.0.0.1", "{what}");
        }
    }
}

/// The manifest says which side of a real trace was tapped.
#[test]
fn the_client_of_a_real_trace_is_that_of_its_manifest() {
    let mut upstream = 0;
    for converted in all() {
        let name = &converted.sample.name;
        let client = converted.kind_of(&converted.frames[0]);
        // A streamed JSON_BODY_AS_STRING trace has no addresses, and a unix socket has no ports. In these samples
        // clients speak first, so upstream, Envoy writes first.
        assert_eq!(client, if converted.sample.upstream { Kind::Write } else { Kind::Read }, "{name}");
        upstream += u32::from(converted.sample.upstream);
    }
    assert!(upstream > 20);
}

/// The handshake waits for an event's own connection, which may be the only one to know the local address.
#[test]
fn the_handshake_has_the_addresses_of_the_first_event() {
    let mut found = 0;
    for converted in all().iter().filter(|converted| converted.sample.kind == "perevent") {
        let of_event = converted.trace.event_connection.as_ref().unwrap();
        let local = oracle::socket(of_event.local_address.as_ref()).unwrap();
        let syn = &converted.frames[0];
        let ends = [syn.src.unwrap(), syn.dst.unwrap()];
        assert!(ends.contains(&local), "{}: {local} in {syn:?}", converted.sample.name);
        found += 1;
    }
    assert_eq!(found, 2);
}

/// Each of several interleaved connections begins in the middle of another. Time never goes back, because a handshake
/// has the time of its first event, and not an earlier one.
#[test]
fn handshakes_do_not_go_back_in_time() {
    let dir = Dir::new("back-in-time");
    let traces: Vec<_> = (0..5)
        .map(|id| {
            let connection = Connection { remote_address: socket("192.0.2.7", 50_000 + id), ..downstream() };
            let time = |step: u64| TIME + (u64::from(id) + step) * US;
            let events = [read(time(1), b"r"), write(time(1), b"w"), closed(time(2))];
            streamed(u64::from(id), connection, events)
        })
        .collect();
    let messages: Vec<_> = (0..8)
        .flat_map(|turn| traces.iter().enumerate().filter_map(move |(id, t)| t.get(turn - id.min(turn))).cloned())
        .collect();
    let frames = frames_of(&dir, &[], &messages);
    assert_eq!(streams(&frames).len(), 5);
    let times: Vec<_> = frames.iter().map(|frame| frame.time).collect();
    assert!(times.is_sorted(), "{times:?}");
    for stream in streams(&frames) {
        Conversation::follow("interleaved", stream, Skips::Never).expect_all_acknowledged("interleaved");
    }
}

/// The acknowledgement is made up when the source ends, after packets of other connections, so it must not have the
/// time of the event that it acknowledges.
#[test]
fn the_acknowledgement_of_an_unclosed_connection_keeps_the_order_of_time() {
    let dir = Dir::new("abandoned");
    let mut messages = streamed(1, downstream(), [read(TIME, b"first")]);
    let other = Connection { remote_address: socket("192.0.2.8", 50_124), ..downstream() };
    messages.extend(streamed(2, other, [read(TIME + 5, b"later"), closed(TIME + 6)]));
    let output = dir.join("out.pcapng");
    convert(&[], &dir.create("path_0.pb", Dress::Binary.file(&messages)), &output).run().expect_status(0);
    assert!(tshark::read(&output).is_sorted_by_key(|frame| frame.time));
}
