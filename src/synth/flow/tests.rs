//! Property tests: packets of random timelines, checked against a model that knows only the timelines.

use std::{fmt, io};

use etherparse::{SlicedPacket, TransportSlice};
use proptest::{collection::vec, option, prelude::*, sample::select};

use super::*;
use crate::{
    timeline::{EndpointTable, Role, TimesFrom},
    trace::{Connection, Place},
};

/// Bytes that print only their number.
#[derive(Clone, PartialEq, Eq)]
struct Bytes(Vec<u8>);

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// One packet that the flow made.
#[derive(Clone, Debug)]
struct Sent {
    time: Nanos,
    direction: Direction,
    flags: u8,
    seq: u32,
    ack: u32,
    /// The header's field, not scaled.
    window: u16,
    payload: Bytes,
    payload_len: u64,
    comment: String,
}

#[derive(Default)]
struct Recorder(Vec<Sent>);

impl PacketSink for Recorder {
    fn packet(&mut self, packet: &Packet<'_>) -> io::Result<()> {
        // The parser needs all bytes that the length fields count, so zeros replace those that were not captured.
        let mut bytes = [packet.headers, packet.payload].concat();
        bytes.resize(packet.headers.len() + packet.payload_len as usize, 0);
        let sliced = SlicedPacket::from_ethernet(&bytes).unwrap();
        let Some(TransportSlice::Tcp(tcp)) = sliced.transport else { panic!("no TCP") };
        assert_eq!(tcp.payload().len(), packet.payload_len as usize);
        assert!(packet.payload.len() as u64 <= u64::from(packet.payload_len));
        let flags = [(FIN, tcp.fin()), (SYN, tcp.syn()), (PSH, tcp.psh()), (ACK, tcp.ack())];
        assert!(!tcp.rst() && !tcp.urg());
        self.0.push(Sent {
            time: packet.time,
            direction: packet.direction,
            flags: flags.iter().filter(|(_, set)| *set).fold(0, |flags, (flag, _)| flags | flag),
            seq: tcp.sequence_number(),
            ack: tcp.acknowledgment_number(),
            window: tcp.window_size(),
            payload: Bytes(packet.payload.to_vec()),
            payload_len: u64::from(packet.payload_len),
            comment: packet.comment.to_owned(),
        });
        Ok(())
    }
}

#[derive(Clone, Debug)]
enum Lost {
    Nothing,
    Known(u64),
    Unknown,
}

#[derive(Clone, Debug)]
enum Step {
    Data { outbound: bool, present: Bytes, lost: Lost, end_stream: bool },
    Gap { outbound: bool, bytes: u64, certain: bool },
}

/// A timeline: each step with the time since the step before.
#[derive(Clone, Debug)]
struct Timeline {
    options: SynthOptions,
    v6: bool,
    role: Role,
    /// Where the sequence numbers start.
    first: [u32; 2],
    steps: Vec<(Nanos, Step)>,
    closes: bool,
}

fn sequence_number() -> impl Strategy<Value = u32> {
    prop_oneof![any::<u32>(), (0..300_000_u32).prop_map(|before| u32::MAX - before), Just(u32::MAX), Just(0)]
}

/// Few enough segments for a debug build to be quick, and for a flow to show all lost ones.
const SEGMENTS: usize = 15;

fn step(segment: usize) -> impl Strategy<Value = Step> {
    let most = (200 * 1024).min(SEGMENTS * 8 * segment);
    let most_lost = (200 * 1024).min(SEGMENTS * segment) as u64;
    let len = prop_oneof![
        1 => Just(0),
        4 => 0..=most.min(100),
        2 => segment.saturating_sub(1).min(most)..=(segment + 1).min(most),
        2 => 0..=most,
    ];
    // No byte is zero, so that made-up zeros stand out. No payload begins like HTTP/2's preface: a flow holds pieces of
    // it, but this model expects every byte at its own time. `tests/integration/http2.rs` tests the preface.
    let first = (1..=255_u8).prop_map(|first| if first == b'P' - 1 { 1 } else { first });
    let present = (len, first).prop_map(|(len, first)| {
        Bytes((0..len).map(|index| (first as usize + index * 7) % 255 + 1).map(|byte| byte as u8).collect())
    });
    let lost = prop_oneof![
        4 => Just(Lost::Nothing),
        2 => (1..=most_lost).prop_map(Lost::Known),
        1 => Just(Lost::Unknown),
    ];
    prop_oneof![
        8 => (any::<bool>(), present, lost, prop::bool::weighted(0.05))
            .prop_map(|(outbound, present, lost, end_stream)| Step::Data { outbound, present, lost, end_stream }),
        1 => (any::<bool>(), 1..=most_lost, any::<bool>())
            .prop_map(|(outbound, bytes, certain)| Step::Gap { outbound, bytes, certain }),
    ]
}

fn timeline() -> impl Strategy<Value = Timeline> {
    let mss = prop_oneof![
        2 => Just(None),
        1 => Just(Some(1_u16)),
        3 => (1..=u16::MAX).prop_map(Some),
        3 => select(vec![2, 536, 1460, 65_494, 65_495, 65_515, 65_535]).prop_map(Some),
    ];
    let modes = (
        select(vec![TcpMode::Full, TcpMode::Full, TcpMode::Bare]),
        select(vec![TruncatedMode::Snap, TruncatedMode::Gap, TruncatedMode::Zero]),
    );
    (mss, modes, any::<bool>(), any::<bool>(), [sequence_number(), sequence_number()], any::<bool>()).prop_flat_map(
        |(mss, (tcp, truncated), v6, upstream, first, closes)| {
            let segment = usize::from(mss.unwrap_or(u16::MAX).min(max_segment(v6)));
            let pause = prop_oneof![3 => 0..1_000_000_u64, 1 => 0..1_000_000_000_u64];
            vec((pause, step(segment)), 0..12).prop_map(move |mut steps| {
                // After a half-close, nothing comes from that side.
                let mut ended = [false; 2];
                steps.retain(|(_, step)| match step {
                    Step::Data { outbound, end_stream, .. } => {
                        let was = ended[usize::from(*outbound)];
                        ended[usize::from(*outbound)] |= end_stream;
                        !was
                    }
                    Step::Gap { outbound, .. } => !ended[usize::from(*outbound)],
                });
                Timeline {
                    options: SynthOptions { tcp, truncated, mss, ..SynthOptions::default() },
                    v6,
                    role: if upstream { Role::Upstream } else { Role::Downstream },
                    first,
                    steps,
                    closes,
                }
            })
        },
    )
}

fn direction(outbound: bool) -> Direction {
    if outbound { Direction::Outbound } else { Direction::Inbound }
}

fn opening(role: Role) -> Opening {
    Opening {
        trace_id: 7,
        buffered: false,
        connection: Connection::default(),
        role,
        role_given: false,
        place: Place::default(),
        times: TimesFrom::Recorded,
        http: None,
    }
}

fn flow(options: SynthOptions, v6: bool, role: Role, first: [u32; 2]) -> Flow {
    let opening = opening(role);
    let mut endpoints = EndpointTable::default().open("trace", &opening);
    if v6 {
        endpoints.local = "[2001:db8::1]:443".parse().unwrap();
        endpoints.remote = "[2001:db8::2]:50000".parse().unwrap();
    }
    let identity = FlowIdentity {
        trace_file: "trace.pb",
        source: "trace",
        opening: &opening,
        endpoints: &endpoints,
        time: 0,
        paired: &[],
    };
    let mut flow = Flow::new(options, &identity);
    // All other sequence numbers are derived from these two.
    for (half, first) in flow.halves.iter_mut().zip(first) {
        half.next = SeqNumber(first);
        half.acknowledged = SeqNumber(first);
    }
    flow
}

fn data<'a>(direction: Direction, payload: &'a [u8], lost: &Lost, end_stream: bool) -> Data<'a> {
    let present = payload.len() as u64;
    Data {
        direction,
        payload,
        length: match lost {
            Lost::Nothing => TrueLength::Known(present),
            Lost::Known(lost) => TrueLength::Known(present + lost),
            Lost::Unknown => TrueLength::MoreThan(present),
        },
        truncated: !matches!(lost, Lost::Nothing),
        as_string: false,
        end_stream,
        recording_stopped: false,
        joined: None,
        framing: 0,
        withheld: 0,
        notes: &[],
    }
}

/// Runs a timeline. The number before each packet says what it belongs to: 0 for the handshake, then 1 for the first
/// step, and so on; the last number is the end.
fn run(timeline: &Timeline) -> Vec<(usize, Sent)> {
    let mut flow = flow(timeline.options, timeline.v6, timeline.role, timeline.first);
    let mut sink = Recorder::default();
    let mut sent = Vec::new();
    let mut time = 1_000;
    flow.open(time, &mut sink).unwrap();
    sent.extend(sink.0.drain(..).map(|packet| (0, packet)));
    for (index, (pause, step)) in timeline.steps.iter().enumerate() {
        time += pause;
        match step {
            Step::Data { outbound, present, lost, end_stream } => {
                flow.data(time, &data(direction(*outbound), &present.0, lost, *end_stream), &mut sink)
            }
            Step::Gap { outbound, bytes, certain } => flow.gap(time, direction(*outbound), *bytes, *certain, &mut sink),
        }
        .unwrap();
        assert!(sink.0.iter().all(|packet| packet.time == time));
        sent.extend(sink.0.drain(..).map(|packet| (index + 1, packet)));
    }
    if timeline.closes { flow.close(time, &mut sink) } else { flow.abandon(time, &mut sink) }.unwrap();
    sent.extend(sink.0.drain(..).map(|packet| (timeline.steps.len() + 1, packet)));
    sent
}

/// The bytes that one direction must have, `None` for each lost one.
fn truth(timeline: &Timeline, outbound: bool) -> Vec<Option<u8>> {
    let mut truth = Vec::new();
    for (_, step) in &timeline.steps {
        match step {
            Step::Data { outbound: way, present, lost, .. } if *way == outbound => {
                truth.extend(present.0.iter().copied().map(Some));
                let lost = match lost {
                    Lost::Nothing => 0,
                    Lost::Known(lost) => *lost,
                    Lost::Unknown => 1,
                };
                truth.resize(truth.len() + lost as usize, None);
            }
            Step::Gap { outbound: way, bytes, .. } if *way == outbound => {
                truth.resize(truth.len() + *bytes as usize, None);
            }
            _ => {}
        }
    }
    truth
}

/// What the packets show for one sequence number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Skipped,
    Lost,
    Captured(u8),
}

/// What the packets have shown of one direction so far.
#[derive(Default)]
struct Model {
    /// How many sequence numbers were used.
    used: u64,
    acknowledged: u64,
    bytes: Vec<Seen>,
    syn: bool,
    fin: bool,
}

fn check(timeline: &Timeline) -> Result<(), TestCaseError> {
    let sent = run(timeline);
    let SynthOptions { tcp, truncated, .. } = timeline.options;
    let full = tcp == TcpMode::Full;
    let segment = u64::from(timeline.options.mss.unwrap_or(u16::MAX).min(max_segment(timeline.v6)));
    let mut halves = [Model::default(), Model::default()];
    let mut time = 0;
    for (index, (_, packet)) in sent.iter().enumerate() {
        prop_assert!(packet.time >= time, "time goes back: {packet:?}");
        time = packet.time;
        prop_assert!(packet.payload_len <= segment);
        // The connection's comment is on its first packet.
        prop_assert_eq!(packet.comment.starts_with("trace trace.pb, "), index == 0);
        let [inbound, outbound] = &mut halves;
        let (own, other, own_first, other_first) = match packet.direction {
            Direction::Inbound => (inbound, outbound, timeline.first[0], timeline.first[1]),
            Direction::Outbound => (outbound, inbound, timeline.first[1], timeline.first[0]),
        };
        // Sequence numbers wrap, so they are compared relative to the first one.
        let ahead = packet.seq.wrapping_sub(own_first.wrapping_add(own.used as u32));
        let may_skip = truncated == TruncatedMode::Gap || !full;
        prop_assert!(ahead == 0 || may_skip && ahead < 1 << 31, "off by {}: {packet:?}", ahead as i32);
        own.bytes.resize(own.bytes.len() + ahead as usize, Seen::Skipped);
        own.used += u64::from(ahead);
        own.bytes.extend(packet.payload.0.iter().copied().map(Seen::Captured));
        let lost = packet.payload_len as usize - packet.payload.0.len();
        own.bytes.resize(own.bytes.len() + lost, Seen::Lost);
        prop_assert!(truncated == TruncatedMode::Snap || lost == 0, "{packet:?}");
        own.used += packet.payload_len;
        if packet.flags & SYN != 0 {
            prop_assert!(full && !own.syn && own.used == 0 && packet.payload_len == 0);
            own.syn = true;
            own.used += 1;
        }
        if packet.flags & FIN != 0 {
            prop_assert!(full && !own.fin && packet.payload_len == 0);
            own.fin = true;
            own.used += 1;
        }
        prop_assert_eq!(packet.flags & ACK == 0, full && index == 0);
        if packet.flags & ACK != 0 {
            let ack = packet.ack.wrapping_sub(other_first.wrapping_add(other.acknowledged as u32));
            prop_assert!(ack < 1 << 31, "acknowledges less than before: {packet:?}");
            other.acknowledged += u64::from(ack);
            if may_skip && other.acknowledged > other.used {
                let skipped = (other.acknowledged - other.used) as usize;
                other.bytes.resize(other.bytes.len() + skipped, Seen::Skipped);
                other.used = other.acknowledged;
            }
            prop_assert!(other.acknowledged <= other.used, "never sent: {packet:?}");
        }
    }
    check_control_packets(timeline, &sent)?;
    if full {
        check_windows(sent.iter().map(|(_, packet)| packet))?;
    }
    for (half, outbound) in halves.iter_mut().zip([false, true]) {
        let truth = truth(timeline, outbound);
        // Numbers that are skipped at the very end do not show, because nothing follows them.
        if truncated == TruncatedMode::Gap || !full {
            prop_assert!(half.bytes.len() <= truth.len());
            half.bytes.resize(truth.len(), Seen::Skipped);
        }
        prop_assert_eq!(half.bytes.len(), truth.len());
        for (place, (seen, truth)) in half.bytes.iter().zip(&truth).enumerate() {
            let right = match (seen, truth) {
                (Seen::Captured(seen), Some(truth)) => seen == truth,
                (Seen::Captured(0), None) => truncated == TruncatedMode::Zero,
                (Seen::Lost, None) => truncated == TruncatedMode::Snap,
                (Seen::Skipped, None) => truncated == TruncatedMode::Gap || !full,
                _ => false,
            };
            prop_assert!(right, "{seen:?} for {truth:?} at {place} of {}, outbound: {outbound}", half.bytes.len());
        }
        if full {
            prop_assert!(half.syn);
            prop_assert_eq!(half.acknowledged, half.used, "the end acknowledges everything");
            let half_closed = timeline.steps.iter().any(
                |(_, step)| matches!(step, Step::Data { outbound: way, end_stream: true, .. } if *way == outbound),
            );
            prop_assert_eq!(half.fin, timeline.closes || half_closed);
        }
    }
    Ok(())
}

/// A strict receiver: no packet may use a sequence number beyond the window in the other side's last packet. Windows
/// are scaled in packets without SYN only (RFC 7323 section 2.2).
fn check_windows<'a>(sent: impl IntoIterator<Item = &'a Sent>) -> Result<(), TestCaseError> {
    const SHIFT: u8 = 14;
    // The end of each direction's window, once the other direction has announced it.
    let mut ends: [Option<u32>; 2] = [None; 2];
    for packet in sent {
        let syn = packet.flags & SYN != 0;
        let controls = u32::from(syn) + u32::from(packet.flags & FIN != 0);
        let taken = packet.payload_len as u32 + controls;
        if let (Some(end), true) = (ends[packet.direction.index()], taken > 0) {
            let left = end.wrapping_sub(packet.seq.wrapping_add(taken));
            prop_assert!(left < 1 << 31, "{} bytes beyond the window: {packet:?}", left.wrapping_neg());
        }
        let window = if syn { u32::from(packet.window) } else { u32::from(packet.window) << SHIFT };
        if packet.flags & ACK != 0 {
            ends[packet.direction.reverse().index()] = Some(packet.ack.wrapping_add(window));
        }
    }
    Ok(())
}

/// Checks the handshake, the order of the close, PSH flags and comments.
fn check_control_packets(timeline: &Timeline, sent: &[(usize, Sent)]) -> Result<(), TestCaseError> {
    let full = timeline.options.tcp == TcpMode::Full;
    let client = timeline.role.client_direction();
    let of_step = |step: usize| sent.iter().filter(move |(of, _)| *of == step).map(|(_, packet)| packet);
    let opening: Vec<_> = of_step(0).map(|packet| (packet.direction, packet.flags)).collect();
    if full {
        prop_assert_eq!(opening, [(client, SYN), (client.reverse(), SYN | ACK), (client, ACK)]);
    } else {
        prop_assert!(opening.is_empty());
        prop_assert!(sent.iter().all(|(_, packet)| packet.flags == PSH | ACK || packet.flags == ACK));
    }
    for (index, (_, step)) in timeline.steps.iter().enumerate() {
        let (way, length, incomplete, shown) = match step {
            Step::Data { outbound, present, lost: Lost::Nothing, .. } => {
                (direction(*outbound), present.0.len() as u64, false, true)
            }
            Step::Data { outbound, present, lost, .. } => {
                let lost = if let Lost::Known(lost) = lost { *lost } else { 1 };
                let hidden = timeline.options.truncated == TruncatedMode::Gap && present.0.is_empty();
                (direction(*outbound), present.0.len() as u64 + lost, true, !hidden)
            }
            Step::Gap { outbound, bytes, .. } => {
                (direction(*outbound), *bytes, true, full && timeline.options.truncated != TruncatedMode::Gap)
            }
        };
        let packets: Vec<_> = of_step(index + 1).collect();
        let data: Vec<_> = packets.iter().filter(|packet| packet.payload_len > 0).collect();
        prop_assert!(data.iter().all(|packet| packet.direction == way));
        // An incomplete step has one comment, if there is a packet for it. A whole step has none.
        let comments = packets.iter().filter(|packet| packet.comment.contains(" here")).count();
        prop_assert_eq!(comments, usize::from(incomplete && shown), "{:?}", packets);
        // Only the last segment of an event sets PSH.
        if full {
            let pushes = data.iter().filter(|packet| packet.flags & PSH != 0).count();
            prop_assert_eq!(pushes, usize::from(length > 0 && !data.is_empty()), "{:?}", packets);
            prop_assert!(data.last().is_none_or(|packet| packet.flags == PSH | ACK));
        }
    }
    // The end has FINs, if any, each after an acknowledgement if the window has no room for the FIN. Only the remaining
    // acknowledgements follow.
    let end: Vec<_> = of_step(timeline.steps.len() + 1).map(|packet| packet.flags).collect();
    let mut rest = end.as_slice();
    const FIN_ACK: u8 = FIN | ACK;
    while let [ACK, FIN_ACK, after @ ..] | [FIN_ACK, after @ ..] = rest {
        rest = after;
    }
    prop_assert!(full || end.is_empty());
    prop_assert!(rest.iter().all(|flags| *flags == ACK) && rest.len() <= 2, "{end:?}");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn packets_carry_the_entries_of_the_timeline(timeline in timeline()) {
        check(&timeline)?;
    }

    /// Packets for lost bytes are bounded, and what follows has the right sequence number.
    #[test]
    fn any_number_of_lost_bytes_moves_the_sequence_numbers(
        lost in prop_oneof![any::<u64>(), 0..10_000_000_u64, Just(u64::MAX)],
        gap in option::of(any::<u64>()),
        mss in select(vec![None, Some(100), Some(1460)]),
        truncated in select(vec![TruncatedMode::Snap, TruncatedMode::Gap, TruncatedMode::Zero]),
        tcp in select(vec![TcpMode::Full, TcpMode::Bare]),
        first in sequence_number(),
    ) {
        let options = SynthOptions { tcp, truncated, mss, ..SynthOptions::default() };
        let mut flow = flow(options, false, Role::Downstream, [first, 0]);
        let mut sink = Recorder::default();
        flow.open(0, &mut sink).unwrap();
        let begin = flow.halves[0].next.0;
        flow.data(0, &data(Direction::Inbound, b"x", &Lost::Known(lost.saturating_sub(1)), false), &mut sink).unwrap();
        if let Some(gap) = gap {
            flow.gap(1, Direction::Inbound, gap, false, &mut sink).unwrap();
        }
        flow.data(2, &data(Direction::Inbound, b"y", &Lost::Nothing, false), &mut sink).unwrap();
        flow.close(3, &mut sink).unwrap();
        let end = sink.0.iter().find(|packet| packet.payload.0 == b"y").unwrap();
        let length = 1_u64.wrapping_add(lost.saturating_sub(1)).wrapping_add(gap.unwrap_or(0));
        prop_assert_eq!(end.seq, begin.wrapping_add(length as u32));
        if tcp == TcpMode::Full {
            check_windows(&sink.0)?;
        }
        // There are at most 768 KiB of zeros in segments of 100 bytes, and an acknowledgement for every second one.
        prop_assert!(sink.0.len() < 12_000, "{}", sink.0.len());
        prop_assert!(sink.0.iter().map(|packet| packet.payload.0.len()).sum::<usize>() < 2 << 20);
    }
}

/// The same timeline with other initial sequence numbers gives the same packets but for these numbers.
#[test]
fn packets_do_not_depend_on_where_numbers_start() {
    let steps = vec![
        (0, Step::Data { outbound: false, present: Bytes(vec![1; 3000]), lost: Lost::Nothing, end_stream: false }),
        (5, Step::Data { outbound: true, present: Bytes(vec![2; 10]), lost: Lost::Known(5000), end_stream: true }),
        (5, Step::Data { outbound: false, present: Bytes(vec![3; 10]), lost: Lost::Unknown, end_stream: false }),
    ];
    let options = SynthOptions { mss: Some(1000), ..SynthOptions::default() };
    let at = |first| {
        let timeline =
            Timeline { options, v6: false, role: Role::Downstream, first, steps: steps.clone(), closes: true };
        let key = |(_, packet): &(usize, Sent)| {
            let [own, other] = match packet.direction {
                Direction::Inbound => [first[0], first[1]],
                Direction::Outbound => [first[1], first[0]],
            };
            let ack = if packet.flags & ACK == 0 { 0 } else { packet.ack.wrapping_sub(other) };
            (packet.direction, packet.flags, packet.seq.wrapping_sub(own), ack, packet.payload_len)
        };
        run(&timeline).iter().map(key).collect::<Vec<_>>()
    };
    assert_eq!(at([0, 0]), at([u32::MAX - 1, u32::MAX - 4000]));
    assert_eq!(at([0, 0]), at([u32::MAX, u32::MAX]));
}
