//! Random exchanges in one connection, read frame by frame: each stream must have the frames of its exchange, and no
//! others.

use std::net::SocketAddr;

use proptest::{collection::vec, option, prelude::*, sample::select};

use super::*;
use crate::{
    synth::{Packet, SynthOptions, TcpMode, TruncatedMode},
    timeline::{Endpoints, HttpOpening, Opening, Role, TimesFrom},
    trace::{Connection, Place},
};

const MS: Nanos = 1_000_000;

/// The bytes of both directions, with zeros for bytes that were not captured.
#[derive(Default)]
struct Wire {
    bytes: [Vec<u8>; 2],
    /// The sequence number of the first byte. Without it, skipped sequence numbers take no bytes.
    first: Option<[Option<u32>; 2]>,
    comments: Vec<String>,
    last: Nanos,
}

impl PacketSink for Wire {
    fn packet(&mut self, packet: &Packet<'_>) -> io::Result<()> {
        let bytes = &mut self.bytes[packet.direction.index()];
        // Offset 38: Ethernet has 14 bytes, IPv4 has 20, and the ports have 4. The flags are at 47.
        let seq = u32::from_be_bytes(packet.headers[38..42].try_into().unwrap());
        let syn = u32::from(packet.headers[47] >> 1 & 1);
        if let Some(first) = &mut self.first {
            let first = *first[packet.direction.index()].get_or_insert(seq.wrapping_add(syn));
            if syn == 0 {
                bytes.resize(seq.wrapping_sub(first) as usize, 0);
            }
        }
        bytes.extend_from_slice(packet.payload);
        bytes.resize(bytes.len() + packet.payload_len as usize - packet.payload.len(), 0);
        if !packet.comment.is_empty() {
            self.comments.push(packet.comment.to_owned());
        }
        assert!(self.last <= packet.time);
        self.last = packet.time;
        Ok(())
    }
}

/// A frame without its stream: type, flags, payload.
type Frame = (u8, u8, Vec<u8>);

fn frame(out: &mut Vec<u8>, stream: u32, (kind, flags, payload): &Frame) {
    let [_, length @ ..] = (payload.len() as u32).to_be_bytes();
    out.extend_from_slice(&length);
    out.extend_from_slice(&[*kind, *flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// The frames of a direction, each with its stream.
fn frames(mut bytes: &[u8]) -> Vec<(u32, Frame)> {
    let mut out = Vec::new();
    bytes = bytes.strip_prefix(PREFACE).unwrap_or(bytes);
    while !bytes.is_empty() {
        let (head, rest) = bytes.split_at(FRAME_HEAD);
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let (payload, rest) = rest.split_at(length);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        out.push((stream, (head[3], head[4], payload.to_vec())));
        bytes = rest;
    }
    out
}

fn opening(role: Role) -> Opening {
    Opening {
        trace_id: 7,
        buffered: true,
        connection: Connection::default(),
        role,
        role_given: false,
        place: Place::default(),
        times: TimesFrom::Recorded,
        http: Some(HttpOpening { of_socket: false, version: 2, end_assumed: false, last: false, notes: Vec::new() }),
    }
}

fn endpoints() -> Endpoints {
    let address = |text: &str| text.parse::<SocketAddr>().unwrap();
    Endpoints {
        local: address("10.0.0.1:80"),
        remote: address("192.0.2.7:50001"),
        notes: Vec::new(),
        names: Vec::new(),
        faults: Vec::new(),
        recorded: true,
        kept_apart: false,
    }
}

fn data(direction: Direction, payload: &[u8], length: TrueLength) -> Data<'_> {
    let (truncated, framing) = (length != TrueLength::Known(payload.len() as u64), payload.len() as u64);
    Data {
        direction,
        payload,
        length,
        truncated,
        as_string: false,
        end_stream: false,
        recording_stopped: false,
        joined: None,
        framing,
        withheld: 0,
        notes: &[],
    }
}

/// The greeting of both sides, in the entries that a replay has for it.
fn greeting(client: Direction) -> Vec<(Direction, Vec<u8>)> {
    let [mut first, mut answer, mut ack] = [PREFACE.to_vec(), Vec::new(), Vec::new()];
    for out in [&mut first, &mut answer] {
        frame(out, 0, &(4, 0, vec![0, 4, 0x7f, 0xff, 0xff, 0xff]));
        frame(out, 0, &(8, 0, vec![0x7f, 0xff, 0, 0]));
    }
    frame(&mut answer, 0, &(4, 1, Vec::new()));
    frame(&mut ack, 0, &(4, 1, Vec::new()));
    vec![(client, first), (client.reverse(), answer), (client, ack)]
}

/// An entry of an exchange.
#[derive(Clone, Debug)]
struct Step {
    by_client: bool,
    frames: Vec<Frame>,
    /// An update of the connection's window precedes the frames.
    update: bool,
    /// How many payload bytes of the last frame are there; `None` for all of them.
    present: Option<usize>,
    /// How many milliseconds after its recorded time it is written.
    late: u64,
}

fn step() -> impl Strategy<Value = Step> {
    let size = prop_oneof![0..40_usize, Just(16_384), Just(0)];
    let one = (select(vec![0_u8, 1, 8, 9]), 0..6_u8, size, any::<u8>())
        .prop_map(|(kind, flags, size, byte)| (kind, flags, vec![byte; size]));
    (any::<bool>(), vec(one, 0..5), any::<bool>(), option::weighted(0.2, 0..50_usize), 0..3_u64)
        .prop_map(|(by_client, frames, update, present, late)| Step { by_client, frames, update, present, late })
}

proptest! {
    #[test]
    fn each_stream_has_the_frames_of_its_exchange(
        steps in vec((0..5_usize, step()), 1..60),
        upstream: bool,
        mss in option::of(40..3000_u16),
        bare: bool,
        truncated in select(vec![TruncatedMode::Snap, TruncatedMode::Zero]),
    ) {
        let role = if upstream { Role::Upstream } else { Role::Downstream };
        let client = role.client_direction();
        let (opening, endpoints) = (opening(role), endpoints());
        let identity =
            FlowIdentity { trace_file: "t.pb", source: "t", opening: &opening, endpoints: &endpoints, time: MS, paired: &[] };
        let tcp = if bare { TcpMode::Bare } else { TcpMode::Full };
        let mut flow = Flow::new(SynthOptions { tcp, truncated, mss, ..SynthOptions::default() }, &identity);
        let mut wire = Wire { first: Some([None; 2]), ..Wire::default() };
        flow.open(MS, &mut wire).unwrap();
        let mut streams: Vec<Option<ExchangeStream>> = (0..5).map(|_| None).collect();
        // Exchanges get stream numbers in the order in which they send their first frame.
        let mut order: Vec<usize> = Vec::new();
        let mut expected: Vec<[Vec<Frame>; 2]> = vec![Default::default(); 5];
        let mut first_exchange = None;
        for (number, (exchange, step)) in steps.iter().enumerate() {
            let time = (number as u64 + 10) * MS;
            let stream = streams[*exchange].get_or_insert_with(|| {
                let first = first_exchange.is_none();
                let mut stream =
                    if first { ExchangeStream::first() } else { ExchangeStream::joining(&flow, &identity) };
                first_exchange.get_or_insert(*exchange);
                if first {
                    order.push(*exchange);
                }
                for (direction, bytes) in greeting(client) {
                    let data = data(direction, &bytes, TrueLength::Known(bytes.len() as u64));
                    stream.data(&mut flow, time, time, &data, &mut wire).unwrap();
                }
                stream
            });
            let direction = if step.by_client { client } else { client.reverse() };
            let mut bytes = Vec::new();
            if step.update {
                frame(&mut bytes, 0, &(8, 0, vec![0, 0, 1, 0]));
            }
            let mut present = bytes.len();
            for (index, one) in step.frames.iter().enumerate() {
                frame(&mut bytes, 1, one);
                let mut one = one.clone();
                let is_last = index + 1 == step.frames.len();
                let kept = step.present.filter(|_| is_last).map_or(one.2.len(), |kept| kept.min(one.2.len()));
                present += FRAME_HEAD + kept;
                one.2[kept..].fill(0);
                expected[*exchange][direction.index()].push(one);
            }
            if !step.frames.is_empty() && !order.contains(exchange) {
                order.push(*exchange);
            }
            let data = data(direction, &bytes[..present], TrueLength::Known(bytes.len() as u64));
            stream.data(&mut flow, time, time - step.late * MS, &data, &mut wire).unwrap();
        }
        // The sequence number of a last frame shows how many bytes before it have no packet.
        for direction in [Direction::Inbound, Direction::Outbound] {
            let bytes = b"\0\0\0\x06\0\0\0\0\0";
            flow.data(Nanos::MAX, &data(direction, bytes, TrueLength::Known(9)), &mut wire).unwrap();
        }
        let found = wire.bytes.each_ref().map(|bytes| frames(bytes));
        for (position, exchange) in order.iter().enumerate() {
            let id = 1 + 2 * position as u32;
            for (found, expected) in found.iter().zip(&expected[*exchange]) {
                let own: Vec<_> = found.iter().filter(|(stream, _)| *stream == id).map(|(_, frame)| frame).collect();
                prop_assert!(own.iter().copied().eq(expected), "stream {id}");
            }
        }
        // The connection's greeting came once. Of later window updates, only those of the first exchange came.
        let most = 2 * order.len() as u32 - 1;
        prop_assert!(found.iter().flatten().all(|(stream, _)| *stream <= most));
        let settings = found.iter().flatten().filter(|(_, (kind, ..))| *kind == 4).count();
        prop_assert_eq!(settings, 4);
        let of_first = steps.iter().filter(|(exchange, step)| Some(*exchange) == first_exchange && step.update);
        let updates = found.iter().flatten().filter(|(stream, (kind, ..))| (*stream, *kind) == (0, 8)).count();
        prop_assert_eq!(updates, 2 + of_first.count());
        // Every exchange but the first says once which stream it is.
        let said = wire.comments.iter().map(|comment| comment.matches("this exchange is stream ").count());
        prop_assert_eq!(said.sum::<usize>(), order.len() - 1);
    }
}

/// RFC 9113 section 6.9.1: the sender stays within the window, which never passes 2^31-1.
#[test]
fn the_window_is_opened_again_for_all_streams_together() {
    let (opening, endpoints) = (opening(Role::Downstream), endpoints());
    let identity = FlowIdentity {
        trace_file: "t.pb",
        source: "t",
        opening: &opening,
        endpoints: &endpoints,
        time: MS,
        paired: &[],
    };
    let options = SynthOptions { truncated: TruncatedMode::Gap, ..SynthOptions::default() };
    let mut flow = Flow::new(options, &identity);
    let mut wire = Wire::default();
    flow.open(MS, &mut wire).unwrap();
    let mut sent: u64 = 0;
    for _ in 0..300 {
        let mut stream = ExchangeStream::joining(&flow, &identity);
        let len: u32 = 0xff_ffff;
        let head = [0xff, 0xff, 0xff, DATA, 0, 0, 0, 0, 1];
        let length = TrueLength::Known(u64::from(len) + 9);
        stream.data(&mut flow, MS, MS, &data(Direction::Outbound, &head, length), &mut wire).unwrap();
        sent += u64::from(len);
        let credits = frames(&wire.bytes[Direction::Inbound.index()]);
        let credit: u64 = credits
            .iter()
            .map(|(stream, (kind, _, payload))| {
                assert_eq!((*stream, *kind), (0, WINDOW_UPDATE));
                u64::from(u32::from_be_bytes(payload.as_slice().try_into().unwrap()))
            })
            .sum();
        assert!(credit <= sent && sent - credit <= UPDATE_AFTER, "{credit} of {sent}");
    }
    let ids =
        wire.bytes[Direction::Outbound.index()].chunks(9).map(|head| u32::from_be_bytes(head[5..].try_into().unwrap()));
    assert!(ids.eq((1..=300).map(|number| 1 + 2 * number)));
}
