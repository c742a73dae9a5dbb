//! Reads a capture with parsers that others wrote and holds it against what it was made of.

use std::{borrow::Cow, fmt, net::SocketAddr};

use etherparse::{NetSlice, SlicedPacket, TcpSlice, TransportSlice};
use pcap_file::{
    DataLink, Endianness, TsResolution,
    pcap::PcapReader,
    pcapng::{
        Block, PcapNgReader,
        blocks::{enhanced_packet::EnhancedPacketOption, interface_description::InterfaceDescriptionOption},
    },
};
use tap2pcap::{
    capture::CaptureFormat,
    synth::{TcpMode, TruncatedMode, max_segment},
    timeline::Direction,
    trace::Nanos,
    untrusted,
};

use crate::convert::{Conversion, Kind, Made, Plan};

const ETHERNET: usize = 14;

/// What docs/limits.md says of comments.
const MAX_COMMENT: usize = 32 << 10;

const FIN: u8 = 1;
const SYN: u8 = 2;
const ACK: u8 = 16;

/// What both ends announce in their SYN (RFC 7323 section 2.3).
const WINDOW_SHIFT: u8 = 14;

/// A packet as it stands in the capture.
struct Packet {
    time: Nanos,
    data: Vec<u8>,
    original_len: usize,
    /// pcapng only.
    direction: Option<Direction>,
    comment: String,
}

/// What TCP says of a packet.
struct Segment {
    from: SocketAddr,
    to: SocketAddr,
    flags: u8,
    seq: u32,
    ack: u32,
    window: u16,
    captured: Vec<u8>,
    payload_len: usize,
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to, flags, seq, ack, window, captured, payload_len } = self;
        let captured = captured.len();
        write!(
            f,
            "{from} to {to}, {flags:#x}, seq {seq}, ack {ack}, window {window}, {captured} of {payload_len} bytes"
        )
    }
}

/// A connection on its way through the capture.
struct Connection {
    local: SocketAddr,
    remote: SocketAddr,
    client: Direction,
    /// Of the exchange that it is at.
    trace_id: u64,
    /// Of that exchange.
    packets: usize,
    /// The next sequence number of each direction, once one was seen.
    next: [Option<u32>; 2],
    /// Where the room ends that the other side's last packet announced for each direction.
    room: [Option<u32>; 2],
    /// What the client began with, while that may become HTTP/2's preface: it is written with the next entry.
    held: Vec<u8>,
    /// When that came.
    held_at: Vec<u64>,
}

/// The client's first bytes in HTTP/2: one packet, whatever the largest segment is.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Holds a capture against the entries that it was made of.
pub fn check(plan: &Plan, conversion: &Conversion) {
    let packets = match plan.format {
        CaptureFormat::Pcapng => read_pcapng(&conversion.capture),
        CaptureFormat::Pcap => read_pcap(&conversion.capture, TsResolution::NanoSecond),
        CaptureFormat::PcapMicros => read_pcap(&conversion.capture, TsResolution::MicroSecond),
    };
    assert_eq!(packets.len(), conversion.made.iter().map(|made| made.packets).sum::<usize>());
    let mut rest = packets.as_slice();
    let mut connections = Vec::new();
    for made in &conversion.made {
        let (packets, after) = rest.split_at(made.packets);
        rest = after;
        if let Kind::Opened { local, remote, client, trace_id } = made.kind {
            assert_eq!(made.connection, connections.len());
            connections.push(Connection {
                local,
                remote,
                client,
                trace_id,
                packets: 0,
                next: [None; 2],
                room: [None; 2],
                held: Vec::new(),
                held_at: Vec::new(),
            });
        }
        let connection = &mut connections[made.connection];
        if let Kind::Resumed { trace_id } = made.kind {
            (connection.trace_id, connection.packets) = (trace_id, 0);
        }
        check_entry(plan, connection, made, packets);
    }
}

fn check_entry(plan: &Plan, connection: &mut Connection, made: &Made, packets: &[Packet]) {
    let full = plan.synth.tcp == TcpMode::Full;
    let segments: Vec<_> = packets.iter().map(|packet| (packet, segment(packet))).collect();
    // Both ends are the same: which way a packet goes is in the flags of pcapng only.
    let same_ends = connection.local == connection.remote;
    let mut bytes = Bytes::of(&made.kind);
    if let (Some(bytes), true, true) = (&bytes, full, packets.is_empty())
        && bytes.direction == connection.client
        && bytes.present() > 0
    {
        // Nothing but the beginning of a preface waits.
        connection.held.extend_from_slice(&bytes.payload);
        connection.held_at.push(made.time);
        assert!(PREFACE.len() > connection.held.len() && PREFACE.starts_with(&connection.held));
        assert!(matches!(made.kind, Kind::Bytes { end_stream: false, length, .. } if length == bytes.present()));
        return;
    }
    let (held, held_at) = (std::mem::take(&mut connection.held), std::mem::take(&mut connection.held_at));
    let mut released = None;
    match &mut bytes {
        Some(bytes) if bytes.direction == connection.client => bytes.begin_with(&held),
        _ if held.is_empty() => {}
        _ => released = Some(Bytes::whole(connection.client, &held)),
    }
    let mut begins = match made.kind {
        Kind::Bytes { begins: Some(trace_id), direction, .. } => Some((trace_id, direction)),
        _ => None,
    };
    let mut flags = Vec::new();
    for (packet, segment) in &segments {
        let unit = if plan.format == CaptureFormat::PcapMicros { 1000 } else { 1 };
        let at = |time: u64| packet.time == time / unit * unit;
        assert!(at(made.time) || held_at.iter().any(|time| at(*time)), "{} and {held_at:?}: {segment:?}", made.time);
        let by_address = match (segment.from, segment.to) {
            _ if same_ends => None,
            ends if ends == (connection.remote, connection.local) => Some(Direction::Inbound),
            ends if ends == (connection.local, connection.remote) => Some(Direction::Outbound),
            ends => panic!("{ends:?} is not {:?} and {:?}", connection.local, connection.remote),
        };
        assert!(packet.direction.is_none() || by_address.is_none() || packet.direction == by_address);
        connection.packets += 1;
        if plan.format == CaptureFormat::Pcapng && connection.packets == 1 {
            let start = format!("trace path_0, trace_id {}, ", connection.trace_id);
            assert!(packet.comment.starts_with(&start), "{}", packet.comment);
        }
        let segment_limit = plan.synth.mss.unwrap_or(u16::MAX).clamp(1, max_segment(connection.local.is_ipv6()));
        assert!(segment.payload_len <= usize::from(segment_limit) || segment.captured == PREFACE);
        let Some(direction) = packet.direction.or(by_address) else { continue };
        flags.push((direction, segment.flags));
        if let Some((trace_id, _)) = begins.take_if(|(_, own)| segment.payload_len > 0 && direction == *own) {
            let start = format!("trace path_0, trace_id {trace_id}, ");
            assert!(plan.format != CaptureFormat::Pcapng || packet.comment.starts_with(&start), "{}", packet.comment);
        }
        connection.number(direction, segment, full);
        if let Some(released) = released.as_mut().filter(|released| released.shown < released.length) {
            released.take(plan, direction, segment);
        } else if let Some(bytes) = &mut bytes {
            bytes.take(plan, direction, segment);
        } else {
            assert_eq!(segment.payload_len, 0, "payload without data");
        }
    }
    assert!(released.is_none_or(|released| released.shown == released.length), "what was held is missing");
    if let Some(bytes) = bytes.filter(|_| plan.format == CaptureFormat::Pcapng || !same_ends) {
        bytes.end(plan, connection);
        let explains = packets.iter().any(|packet| !packet.comment.is_empty());
        assert!(
            plan.format != CaptureFormat::Pcapng || bytes.shown == 0 || bytes.length == bytes.present() || explains
        );
    }
    if same_ends && plan.format != CaptureFormat::Pcapng {
        return;
    }
    let (client, server) = (connection.client, connection.client.reverse());
    match made.kind {
        Kind::Opened { .. } if full => assert_eq!(flags, [(client, SYN), (server, SYN | ACK), (client, ACK)]),
        Kind::Closed if full => assert!(flags.iter().all(|(_, flags)| [ACK, FIN | ACK].contains(flags))),
        Kind::Abandoned if full => assert!(flags.iter().all(|(_, flags)| *flags == ACK)),
        Kind::Opened { .. } | Kind::Resumed { .. } | Kind::Joined | Kind::Kept | Kind::Closed | Kind::Abandoned => {
            assert!(flags.is_empty());
        }
        Kind::Bytes { end_stream, .. } => {
            assert!(flags.iter().all(|(_, flags)| flags & (SYN | ACK) == ACK));
            assert!(end_stream || flags.iter().all(|(_, flags)| flags & FIN == 0));
        }
    }
}

impl Connection {
    /// Sequence and acknowledgement numbers go on from where they were.
    fn number(&mut self, direction: Direction, segment: &Segment, full: bool) {
        let [mine, other] = [direction.index(), direction.reverse().index()];
        assert_eq!(*self.next[mine].get_or_insert(segment.seq), segment.seq, "{segment:?}");
        if segment.flags & ACK != 0 {
            assert_eq!(*self.next[other].get_or_insert(segment.ack), segment.ack, "{segment:?}");
        } else {
            assert!(full && segment.ack == 0);
        }
        let controls = [SYN, FIN].map(|flag| u64::from(segment.flags & flag != 0)).iter().sum::<u64>();
        let taken = segment.payload_len as u64 + controls;
        if full {
            self.keep_within_window(direction, segment, taken as u32);
        }
        self.skip(direction, taken);
    }

    /// A strict receiver: no packet takes a sequence number beyond the room that the other side's last packet announced.
    /// The shift of a window counts from the first packet without SYN on (RFC 7323 section 2.2).
    fn keep_within_window(&mut self, direction: Direction, segment: &Segment, taken: u32) {
        if let (Some(end), true) = (self.room[direction.index()], taken > 0) {
            let left = end.wrapping_sub(segment.seq.wrapping_add(taken));
            assert!(left < 1 << 31, "{} bytes beyond the window: {segment:?}", left.wrapping_neg());
        }
        let shift = if segment.flags & SYN != 0 { 0 } else { WINDOW_SHIFT };
        if segment.flags & ACK != 0 {
            let end = segment.ack.wrapping_add(u32::from(segment.window) << shift);
            self.room[direction.reverse().index()] = Some(end);
        }
    }

    fn skip(&mut self, direction: Direction, bytes: u64) {
        if let Some(next) = &mut self.next[direction.index()] {
            *next = next.wrapping_add(bytes as u32);
        }
    }
}

/// The bytes of an entry, while its packets are looked at.
struct Bytes<'a> {
    direction: Direction,
    payload: Cow<'a, [u8]>,
    length: u64,
    /// On the wire so far.
    shown: u64,
    /// Of the payload.
    found: u64,
}

impl<'a> Bytes<'a> {
    fn of(kind: &'a Kind) -> Option<Self> {
        match kind {
            Kind::Bytes { direction, payload, length, .. } => Some(Self {
                direction: *direction,
                payload: payload.as_slice().into(),
                length: *length,
                shown: 0,
                found: 0,
            }),
            _ => None,
        }
    }

    fn whole(direction: Direction, payload: &'a [u8]) -> Self {
        Self { direction, payload: payload.into(), length: payload.len() as u64, shown: 0, found: 0 }
    }

    fn begin_with(&mut self, before: &[u8]) {
        self.length += before.len() as u64;
        self.payload.to_mut().splice(0..0, before.iter().copied());
    }

    fn present(&self) -> u64 {
        self.payload.len() as u64
    }

    fn take(&mut self, plan: &Plan, direction: Direction, segment: &Segment) {
        if segment.payload_len == 0 {
            return;
        }
        assert_eq!(direction, self.direction);
        let rest = usize::try_from(self.shown).ok().and_then(|shown| self.payload.get(shown..)).unwrap_or_default();
        let (payload, zeros) = segment.captured.split_at(segment.captured.len().min(rest.len()));
        assert_eq!(payload, &rest[..payload.len()]);
        assert!(zeros.iter().all(|byte| *byte == 0));
        assert!(zeros.is_empty() || plan.synth.truncated == TruncatedMode::Zero);
        let cut = segment.captured.len() < segment.payload_len;
        assert!(!cut || (plan.synth.truncated == TruncatedMode::Snap && payload.len() == rest.len()));
        self.found += payload.len() as u64;
        self.shown += segment.payload_len as u64;
    }

    fn end(&self, plan: &Plan, connection: &mut Connection) {
        let &Self { direction, length, shown, found, .. } = self;
        assert_eq!(found, self.present(), "payload is missing");
        assert!(shown <= length);
        assert!(shown == length || length > self.present());
        assert!(plan.synth.truncated != TruncatedMode::Gap || shown == self.present());
        connection.skip(direction, length - shown);
    }
}

/// The headers, after checking that lengths and checksums are those of the packet as it was on the wire. Bytes that
/// are missing count as zeros.
fn segment(packet: &Packet) -> Segment {
    assert!(packet.data.len() <= packet.original_len);
    let mut whole = packet.data.clone();
    whole.resize(packet.original_len, 0);
    let sliced = SlicedPacket::from_ethernet(&whole).expect("a packet");
    let Some(TransportSlice::Tcp(tcp)) = &sliced.transport else { panic!("not TCP") };
    let (from, to, checksum) = match sliced.net.as_ref().expect("an IP packet") {
        NetSlice::Ipv4(ip) => {
            let header = ip.header().to_header();
            assert_eq!(usize::from(header.total_len), packet.original_len - ETHERNET);
            assert_eq!(header.calc_header_checksum(), header.header_checksum);
            let checksum = tcp.calc_checksum_ipv4(header.source, header.destination).expect("a short payload");
            (header.source.into(), header.destination.into(), checksum)
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header().to_header();
            assert_eq!(usize::from(header.payload_length) + 40, packet.original_len - ETHERNET);
            let checksum = tcp.calc_checksum_ipv6(header.source, header.destination).expect("a short payload");
            (header.source.into(), header.destination.into(), checksum)
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(tcp.checksum(), checksum);
    let headers = packet.original_len - tcp.payload().len();
    assert!(packet.data.len() >= headers, "no packet is cut in its headers");
    Segment {
        from: SocketAddr::new(from, tcp.source_port()),
        to: SocketAddr::new(to, tcp.destination_port()),
        flags: flags(tcp),
        seq: tcp.sequence_number(),
        ack: tcp.acknowledgment_number(),
        window: tcp.window_size(),
        captured: packet.data[headers..].to_owned(),
        payload_len: tcp.payload().len(),
    }
}

/// SYN, FIN and ACK; PSH says nothing that must hold.
fn flags(tcp: &TcpSlice<'_>) -> u8 {
    assert!(!tcp.rst() && !tcp.urg());
    [(tcp.fin(), FIN), (tcp.syn(), SYN), (tcp.ack(), ACK)].iter().filter(|(set, _)| *set).map(|(_, bit)| bit).sum()
}

fn read_pcap(capture: &[u8], resolution: TsResolution) -> Vec<Packet> {
    let mut reader = PcapReader::new(capture).expect("a file header");
    let header = reader.header();
    assert_eq!(header.endianness, Endianness::Little);
    assert_eq!(header.ts_resolution, resolution);
    assert_eq!(header.datalink, DataLink::ETHERNET);
    let mut packets = Vec::new();
    while let Some(packet) = reader.next_packet() {
        let packet = packet.expect("a packet");
        packets.push(Packet {
            time: nanos(packet.timestamp),
            original_len: packet.orig_len as usize,
            data: packet.data.into_owned(),
            direction: None,
            comment: String::new(),
        });
    }
    packets
}

fn read_pcapng(capture: &[u8]) -> Vec<Packet> {
    check_blocks(capture);
    let mut reader = PcapNgReader::new(capture).expect("a section header");
    let mut interfaces = 0;
    let mut packets = Vec::new();
    while let Some(block) = reader.next_block() {
        match block.expect("a block") {
            Block::InterfaceDescription(interface) => {
                interfaces += 1;
                assert_eq!(interface.linktype, DataLink::ETHERNET);
                assert!(interface.options.contains(&InterfaceDescriptionOption::IfTsResol(9)));
                let name = InterfaceDescriptionOption::IfName(Cow::Borrowed("path_0"));
                assert!(interface.options.contains(&name));
            }
            Block::NameResolution(_) => {}
            Block::EnhancedPacket(block) => {
                assert!(block.interface_id < interfaces);
                let mut packet = Packet {
                    time: nanos(block.timestamp),
                    original_len: block.original_len as usize,
                    data: block.data.into_owned(),
                    direction: None,
                    comment: String::new(),
                };
                for option in block.options {
                    match option {
                        EnhancedPacketOption::Comment(comment) => packet.comment = comment.into_owned(),
                        EnhancedPacketOption::Flags(1) => packet.direction = Some(Direction::Inbound),
                        EnhancedPacketOption::Flags(2) => packet.direction = Some(Direction::Outbound),
                        other => panic!("{other:?}"),
                    }
                }
                assert!(packet.direction.is_some());
                assert!(packet.comment.len() <= MAX_COMMENT, "a comment of {} bytes", packet.comment.len());
                let harmless = |line: &str| matches!(untrusted::escape(line), Cow::Borrowed(_));
                assert!(packet.comment.lines().all(harmless), "{:?}", packet.comment);
                packets.push(packet);
            }
            other => panic!("{other:?}"),
        }
    }
    packets
}

/// Every block is as long as it says at both ends, in words of 32 bits.
fn check_blocks(mut rest: &[u8]) {
    let word = |bytes: &[u8]| u32::from_le_bytes(bytes[..4].try_into().expect("four bytes")) as usize;
    while !rest.is_empty() {
        let len = word(&rest[4..]);
        assert!(len >= 12 && len % 4 == 0);
        assert_eq!(word(&rest[len - 4..]), len);
        rest = &rest[len..];
    }
}

fn nanos(time: std::time::Duration) -> Nanos {
    Nanos::try_from(time.as_nanos()).expect("it was written as one")
}
