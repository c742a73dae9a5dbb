//! Random traces of several connections pass through detection, a decoder and the timelines, in every encoding and in
//! any pieces. They are compared with a model that only knows what was put in.

use std::{collections::BTreeMap, fmt, io, io::Read, iter::Cycle, path::Path, vec};

use proptest::{collection::vec as vec_of, prelude::*, sample::select};
use tap2pcap::{
    input::{self, Advance, Source},
    proto::tap::{SocketEvent, SocketEvents, TraceWrapper, socket_streamed_trace_segment::MessagePiece},
    timeline::{Direction, EntryKind, TimelineOptions, Timelines, TrueLength},
    trace::{Code, Findings},
};

use crate::fixture::{Dress, TIME, buffered, closed, cut, downstream, end_stream, read, segment, socket, write};

/// Encodings that need no other program. `Dress::Text` is covered by the tests of real traces.
const DRESSES: [Dress; 5] = [Dress::Binary, Dress::Delimited, Dress::DenseText, Dress::Json, Dress::DenseJson];

/// Bytes. When they are printed, only their number is shown.
#[derive(Clone, PartialEq, Eq)]
struct Bytes(Vec<u8>);

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// A read or a write, and what Envoy did not record in it and before it.
#[derive(Clone, Debug)]
struct Step {
    outbound: bool,
    payload: Bytes,
    /// Bytes that were cut off.
    lost: u64,
    /// Bytes before it that are in no event.
    gap: u64,
    end_stream: bool,
    /// Nanoseconds since the step before it in the trace.
    delay: u64,
    /// Whether it is in one message with the event before it, if that event comes right before it.
    together: bool,
}

#[derive(Clone, Debug)]
struct Plan {
    buffered: bool,
    /// Whether it has `seq_num`s, as since Envoy 1.37. A buffered trace has none.
    positions: bool,
    steps: Vec<Step>,
    closes: bool,
}

/// Connections, and the order of their turns: each number chooses among the connections that have steps left.
#[derive(Clone, Debug)]
struct Scene {
    plans: Vec<Plan>,
    turns: Vec<usize>,
    eager: bool,
}

/// How the bytes arrive.
#[derive(Clone, Debug)]
struct Arrival {
    chunks: Vec<usize>,
    read_size: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    Opened { buffered: bool },
    Data { outbound: bool, payload: Bytes, length: TrueLength, truncated: bool, end_stream: bool, stopped: bool },
    Gap { outbound: bool, bytes: u64, certain: bool },
    Closed { recorded: bool },
    Abandoned,
}

/// An entry of a timeline: the `trace_id` of its connection, its time, and its content.
type Seen = (u64, u64, What);

fn step() -> impl Strategy<Value = Step> {
    let payload = prop_oneof![4 => vec_of(any::<u8>(), 0..40), 1 => vec_of(any::<u8>(), 1000..3000)].prop_map(Bytes);
    let lost = prop_oneof![3 => Just(0), 1 => 1..5000_u64, 1 => Just(1)];
    let gap = prop_oneof![5 => Just(0), 1 => 1..100_u64];
    (any::<bool>(), payload, lost, gap, prop::bool::weighted(0.1), 0..1_000_000_u64, any::<bool>()).prop_map(
        |(outbound, payload, lost, gap, end, delay, together)| Step {
            outbound,
            payload,
            lost,
            gap,
            end_stream: end && outbound,
            delay,
            together,
        },
    )
}

fn scene() -> impl Strategy<Value = Scene> {
    let plan = (prop::bool::weighted(0.25), any::<bool>(), vec_of(step(), 0..8), any::<bool>()).prop_map(
        |(buffered, positions, steps, closes)| Plan { buffered, positions: positions && !buffered, steps, closes },
    );
    (vec_of(plan, 1..5), vec_of(0..16_usize, 12), any::<bool>()).prop_map(|(plans, turns, eager)| Scene {
        plans,
        turns,
        eager,
    })
}

fn arrival() -> impl Strategy<Value = Arrival> {
    let chunks = prop_oneof![vec_of(1..8_usize, 1..5), vec_of(1..3000_usize, 1..5), Just(vec![usize::MAX])];
    (chunks, select(vec![64, 100, 4096, 1 << 18])).prop_map(|(chunks, read_size)| Arrival { chunks, read_size })
}

/// One thing that a trace says of one connection.
#[derive(Clone, Debug)]
enum Item {
    Connection,
    /// A step by its number, its time and its position.
    Event(usize, u64, u64),
    Closed(u64, u64),
    /// A whole buffered trace, and the times of its events.
    Whole(Vec<u64>),
}

impl Scene {
    /// The items of the trace in its order, each with its connection.
    fn items(&self) -> Vec<(usize, Item)> {
        let mut items = Vec::new();
        let mut time = TIME;
        let mut done = vec![0; self.plans.len()];
        let mut next = vec![1_u64; self.plans.len()];
        let length = |plan: &Plan| if plan.buffered { 1 } else { 1 + plan.steps.len() + usize::from(plan.closes) };
        let mut turns = self.turns.iter().cycle();
        loop {
            let open: Vec<_> =
                (0..self.plans.len()).filter(|index| done[*index] < length(&self.plans[*index])).collect();
            let (Some(turn), false) = (turns.next(), open.is_empty()) else { return items };
            let index = open[turn % open.len()];
            let plan = &self.plans[index];
            let number = done[index];
            done[index] += 1;
            let positioned = |position: u64| if plan.positions { position } else { 0 };
            items.push((
                index,
                match number.checked_sub(1) {
                    None if plan.buffered => Item::Whole(
                        plan.steps
                            .iter()
                            .map(|step| {
                                time += step.delay;
                                time
                            })
                            .collect(),
                    ),
                    None => Item::Connection,
                    Some(number) => match plan.steps.get(number) {
                        Some(step) => {
                            time += step.delay;
                            let position = next[index] + step.gap;
                            next[index] = position + step.payload.0.len() as u64 + step.lost;
                            Item::Event(number, time, positioned(position))
                        }
                        // Envoy counts one more before it numbers `closed`.
                        None => Item::Closed(time, positioned(next[index] + 1)),
                    },
                },
            ));
        }
    }

    fn messages(&self) -> Vec<TraceWrapper> {
        let mut messages: Vec<TraceWrapper> = Vec::new();
        let mut last: Option<(usize, Vec<SocketEvent>)> = None;
        let flush = |messages: &mut Vec<TraceWrapper>, last: &mut Option<(usize, Vec<SocketEvent>)>| {
            let Some((index, mut events)) = last.take() else { return };
            let piece = match events.len() {
                1 => MessagePiece::Event(events.remove(0)),
                _ => MessagePiece::Events(SocketEvents { events }),
            };
            messages.push(segment(index as u64 + 1, piece));
        };
        for (index, item) in self.items() {
            let (plan, id) = (&self.plans[index], index as u64 + 1);
            if !self.joins(&last.as_ref().map(|(index, _)| *index), index, &item) {
                flush(&mut messages, &mut last);
            }
            match item {
                Item::Connection => messages.push(segment(id, MessagePiece::Connection(connection(index)))),
                Item::Whole(times) => {
                    let events = plan.steps.iter().zip(times).map(|(step, time)| step.event(time, 0));
                    messages.push(buffered(id, connection(index), events));
                }
                Item::Event(number, time, position) => {
                    let event = plan.steps[number].event(time, position);
                    last.get_or_insert_with(|| (index, Vec::new())).1.push(event);
                }
                Item::Closed(time, position) => {
                    let event = SocketEvent { seq_num: position, ..closed(time) };
                    messages.push(segment(id, MessagePiece::Event(event)));
                }
            }
        }
        flush(&mut messages, &mut last);
        messages
    }

    /// Whether an item is in one message with the event before it, which belongs to the connection `last`.
    fn joins(&self, last: &Option<usize>, index: usize, item: &Item) -> bool {
        matches!(item, Item::Event(number, ..) if self.plans[index].steps[*number].together) && *last == Some(index)
    }

    /// The entries that the timelines must give, by connection.
    fn expected(&self) -> BTreeMap<u64, Vec<Seen>> {
        let items = self.items();
        let mut seen: BTreeMap<u64, Vec<Seen>> = BTreeMap::new();
        // The next position, and the direction of the event before it if the length of that event is not certain.
        let mut state = vec![(1_u64, None::<bool>); self.plans.len()];
        let mut times: Vec<Option<u64>> = vec![None; self.plans.len()];
        let mut latest = None;
        for (at, (index, item)) in items.iter().enumerate() {
            let (plan, id) = (&self.plans[*index], *index as u64 + 1);
            let entries = seen.entry(id).or_default();
            let mut begin = |entries: &mut Vec<Seen>, time: u64, position: u64, outbound: bool| {
                if entries.is_empty() {
                    entries.push((id, time, What::Opened { buffered: plan.buffered }));
                }
                let (expected, unsure) = state[*index];
                if position > expected {
                    let (outbound, certain) = (unsure.unwrap_or(outbound), unsure.is_some());
                    entries.push((id, time, What::Gap { outbound, bytes: position - expected, certain }));
                }
                (times[*index], latest) = (Some(time), Some(time));
            };
            match item {
                Item::Connection => {}
                Item::Whole(event_times) => {
                    for (step, time) in plan.steps.iter().zip(event_times) {
                        begin(entries, *time, 0, step.outbound);
                        entries.push((id, *time, step.data(step.unsure_length(), true)));
                    }
                    let time = times[*index].or(latest).unwrap_or(0);
                    if entries.is_empty() {
                        entries.push((id, time, What::Opened { buffered: true }));
                    }
                    entries.push((id, time, What::Closed { recorded: false }));
                }
                Item::Event(number, time, position) => {
                    let step = &plan.steps[*number];
                    begin(entries, *time, *position, step.outbound);
                    let following = items.get(at + 1).filter(|(next, _)| next == index).map(|(_, item)| item);
                    let waits = !self.eager || following.is_some_and(|next| self.joins(&Some(*index), *index, next));
                    let next = following.filter(|_| waits && plan.positions && step.lost > 0).and_then(Item::position);
                    let length = next.map_or(step.unsure_length(), |next| TrueLength::Known(next - position));
                    entries.push((id, *time, step.data(length, false)));
                    let counted = match length {
                        TrueLength::Known(length) => length,
                        TrueLength::MoreThan(length) => length + 1,
                        TrueLength::Unframed(_) => unreachable!("these are no HTTP traces"),
                    };
                    state[*index] = (position + counted, (step.lost > 0).then_some(step.outbound));
                }
                Item::Closed(time, position) => {
                    begin(entries, *time, position.saturating_sub(1), true);
                    entries.push((id, *time, What::Closed { recorded: true }));
                }
            }
        }
        for (index, plan) in self.plans.iter().enumerate().filter(|(_, plan)| !plan.closes && !plan.buffered) {
            let id = index as u64 + 1;
            let time = times[index].max(latest).unwrap_or(0);
            let entries = seen.entry(id).or_default();
            if entries.is_empty() {
                entries.push((id, time, What::Opened { buffered: plan.buffered }));
            }
            entries.push((id, time, What::Abandoned));
        }
        seen
    }
}

impl Item {
    /// The position up to which bytes came before this entry.
    fn position(&self) -> Option<u64> {
        match self {
            Self::Event(_, _, position) => Some(*position),
            Self::Closed(_, position) => Some(position - 1),
            _ => None,
        }
    }
}

impl Step {
    fn event(&self, time: u64, position: u64) -> SocketEvent {
        let event = if self.outbound { write(time, &self.payload.0) } else { read(time, &self.payload.0) };
        let event = if self.lost > 0 { cut(event) } else { event };
        let event = if self.end_stream { end_stream(event) } else { event };
        SocketEvent { seq_num: position, ..event }
    }

    /// The length, if no position tells more.
    fn unsure_length(&self) -> TrueLength {
        let len = self.payload.0.len() as u64;
        if self.lost > 0 { TrueLength::MoreThan(len) } else { TrueLength::Known(len) }
    }

    fn data(&self, length: TrueLength, buffered: bool) -> What {
        What::Data {
            outbound: self.outbound,
            payload: self.payload.clone(),
            length,
            truncated: self.lost > 0,
            end_stream: self.end_stream,
            stopped: buffered && self.lost > 0,
        }
    }
}

/// Each connection has addresses of its own.
fn connection(index: usize) -> tap2pcap::proto::tap::Connection {
    let remote_address = socket("192.0.2.7", 50_000 + index as u32);
    tap2pcap::proto::tap::Connection { remote_address, ..downstream() }
}

/// A reader that returns at most a given number of bytes at a time.
struct Trickle {
    bytes: io::Cursor<Vec<u8>>,
    chunks: Cycle<vec::IntoIter<usize>>,
}

impl Read for Trickle {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = self.chunks.next().unwrap().min(buffer.len());
        self.bytes.read(&mut buffer[..most])
    }
}

fn run(bytes: Vec<u8>, dress: Dress, arrival: &Arrival, options: TimelineOptions) -> Vec<Seen> {
    let reader = Trickle { bytes: io::Cursor::new(bytes), chunks: arrival.chunks.clone().into_iter().cycle() };
    let name = format!("trace.{}", dress.suffix());
    let input = input::SourceOptions { read_size: Some(arrival.read_size), ..input::SourceOptions::default() };
    let source = Source::from_reader(Path::new(&name), Box::new(reader), input).unwrap();
    let mut timelines = Timelines::new(source, options);
    let mut seen = Vec::new();
    let mut findings = Findings::default();
    loop {
        match timelines.advance(&mut findings) {
            Advance::Message => {}
            Advance::NeedInput => {
                timelines.fill(&mut findings);
                continue;
            }
            Advance::End => break,
        }
        let entry = timelines.entry().unwrap();
        let opening = timelines.opening(entry.connection).unwrap();
        let what = match entry.kind {
            EntryKind::Opened => {
                let expected = connection(opening.trace_id as usize - 1);
                let port = crate::oracle::socket(expected.remote_address.as_ref()).unwrap().to_string();
                assert_eq!(opening.connection.remote.as_ref().unwrap().to_string(), port);
                What::Opened { buffered: opening.buffered }
            }
            EntryKind::Data(data) => What::Data {
                outbound: data.direction == Direction::Outbound,
                payload: Bytes(data.payload.to_vec()),
                length: data.length,
                truncated: data.truncated,
                end_stream: data.end_stream,
                stopped: data.recording_stopped,
            },
            EntryKind::Gap { direction, bytes, certain } => {
                What::Gap { outbound: direction == Direction::Outbound, bytes, certain }
            }
            EntryKind::Closed { recorded } => What::Closed { recorded },
            EntryKind::Abandoned => What::Abandoned,
        };
        seen.push((opening.trace_id, entry.time, what));
    }
    // The only finding is that one source holds buffered and streamed traces.
    let findings = findings.take();
    assert!(findings.iter().all(|finding| finding.code() == Code::MixedKinds), "{findings:?}");
    seen
}

fn by_connection(seen: &[Seen]) -> BTreeMap<u64, Vec<Seen>> {
    let mut connections: BTreeMap<u64, Vec<Seen>> = BTreeMap::new();
    seen.iter().for_each(|entry| connections.entry(entry.0).or_default().push(entry.clone()));
    connections
}

/// The recorded bytes of each direction, and the true number of all bytes.
fn totals(entries: &[Seen]) -> ([Vec<u8>; 2], u64) {
    let (mut bytes, mut total) = (<[Vec<u8>; 2]>::default(), 0);
    for (_, _, what) in entries {
        match what {
            What::Data { outbound, payload, length, .. } => {
                bytes[usize::from(*outbound)].extend(&payload.0);
                total += match length {
                    TrueLength::Known(length) => *length,
                    TrueLength::MoreThan(length) => length + 1,
                    TrueLength::Unframed(_) => unreachable!("these are no HTTP traces"),
                };
            }
            What::Gap { bytes, .. } => total += bytes,
            _ => {}
        }
    }
    (bytes, total)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_encoding_gives_what_was_put_in(scene in scene(), arrivals in vec_of(arrival(), DRESSES.len())) {
        let messages = scene.messages();
        let options = TimelineOptions { eager: scene.eager, ..TimelineOptions::default() };
        let expected = scene.expected();
        let mut first: Option<Vec<Seen>> = None;
        for (dress, arrival) in DRESSES.into_iter().zip(&arrivals) {
            let seen = run(dress.file(&messages), dress, arrival, options);
            prop_assert_eq!(by_connection(&seen), expected.clone(), "{:?}", dress);
            // The order of entries of different connections is the same in every encoding as well.
            let reference = first.get_or_insert_with(|| seen.clone());
            prop_assert_eq!(&seen, &*reference, "{:?}", dress);
        }
    }

    /// No byte is lost or added when entries are held back or joined, and positions add up.
    #[test]
    fn joined_events_lose_nothing(scene in scene(), arrival in arrival(), dress in select(DRESSES.to_vec())) {
        let options = TimelineOptions { join: true, ..TimelineOptions::default() };
        let seen = by_connection(&run(dress.file(&scene.messages()), dress, &arrival, options));
        for (index, plan) in scene.plans.iter().enumerate() {
            let (bytes, total) = totals(&seen[&(index as u64 + 1)]);
            for outbound in [false, true] {
                let steps = plan.steps.iter().filter(|step| step.outbound == outbound);
                let sent: Vec<u8> = steps.flat_map(|step| step.payload.0.clone()).collect();
                prop_assert_eq!(Bytes(bytes[usize::from(outbound)].clone()), Bytes(sent));
            }
            if plan.positions && plan.closes {
                let sent = |step: &Step| step.gap + step.payload.0.len() as u64 + step.lost;
                prop_assert_eq!(total, plan.steps.iter().map(sent).sum::<u64>());
            }
        }
    }
}
