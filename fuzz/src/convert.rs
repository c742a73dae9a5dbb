//! A conversion, stage by stage as the program joins them, and a note of what each entry was made into.

use std::{
    collections::HashMap,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use tap2pcap::{
    capture::{Capture, CaptureFormat, Destination, LATEST_PCAP_TIME},
    input::{self, Advance, Detected, Encoding, Source, detect},
    synth::{self, ExchangeStream, Flow, FlowIdentity, TcpMode, TruncatedMode},
    timeline::{
        self, Direction, Endpoints, EntryKind, HttpOptions, Role, RoleChoice, SideChoice, Summaries, Timelines,
        TrueLength, VersionChoice,
    },
    trace::{Findings, Nanos},
};
use tempfile::TempDir;

use crate::{
    connections::{Begun, Connections, Over, SharedKey},
    pieces::{InPieces, Pieces},
};

const NAME: &str = "path_0";

/// A capture is not written beyond so many packets, or bytes of an event: small segments make many of the first, and
/// zeros for lost bytes many of the second.
const MAX_PACKETS: u64 = 500;
const MAX_BYTES: u64 = 1 << 20;

/// What the first bytes of an input say of the options.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub format: CaptureFormat,
    pub synth: synth::SynthOptions,
    pub timeline: timeline::TimelineOptions,
    pub input: input::SourceOptions,
    pub map: bool,
    pub pieces: Pieces,
}

impl Plan {
    /// Bytes of an input that are options.
    pub const LEN: usize = 3;

    /// The options and the trace. `None` where the trace is empty or of no encoding.
    pub fn split(input: &[u8]) -> Option<(Self, &[u8])> {
        let (&[first, second, third], trace) = input.split_first_chunk::<{ Self::LEN }>()?;
        let pick = |byte: u8, shift: u8, bits: u8| usize::from(byte >> shift) & ((1 << bits) - 1);
        let is = |byte, shift| pick(byte, shift, 1) == 1;
        let format = match (is(first, 0), is(third, 6)) {
            (false, _) => CaptureFormat::Pcapng,
            (true, false) => CaptureFormat::Pcap,
            (true, true) => CaptureFormat::PcapMicros,
        };
        let tcp = if is(first, 1) { TcpMode::Bare } else { TcpMode::Full };
        let truncated = [TruncatedMode::Snap, TruncatedMode::Gap, TruncatedMode::Zero, TruncatedMode::Snap];
        let truncated = truncated[pick(first, 2, 2)];
        let eager = is(first, 4);
        let role = [
            RoleChoice::Auto,
            RoleChoice::Known(Role::Downstream),
            RoleChoice::Always(Role::Downstream),
            RoleChoice::Always(Role::Upstream),
        ];
        let mss = [None, Some(1), Some(7), Some(536), Some(1460), Some(9000), Some(65_495), Some(65_535)];
        let version = [VersionChoice::Auto, VersionChoice::One, VersionChoice::Two, VersionChoice::Auto];
        let given = [Encoding::Binary, Encoding::Delimited, Encoding::Text, Encoding::Json];
        let encoding = match (given.get(pick(second, 3, 3)), detect(trace, Path::new(NAME))) {
            (Some(encoding), _) if !trace.is_empty() => *encoding,
            (None, Detected::Trace(encoding)) => encoding,
            _ => return None,
        };
        let plan = Self {
            format,
            synth: synth::SynthOptions {
                tcp,
                truncated,
                mss: mss[pick(second, 0, 3)],
                ..synth::SynthOptions::default()
            },
            timeline: timeline::TimelineOptions {
                role: role[pick(first, 6, 2)],
                start_time: is(third, 1).then_some(1_700_000_000_000_000_000),
                neighbours: None,
                reread: None,
                eager,
                join: !eager && tcp == TcpMode::Full && truncated == TruncatedMode::Snap,
                latest: (format != CaptureFormat::Pcapng).then_some(LATEST_PCAP_TIME),
                max_connections: is(third, 2).then_some(2),
                http: HttpOptions {
                    version: version[pick(second, 6, 2)],
                    side: if is(third, 0) { SideChoice::Upstream } else { SideChoice::Downstream },
                },
                http_taps: timeline::HttpTaps::Replayed,
            },
            input: input::SourceOptions {
                encoding: Some(encoding),
                read_size: Some(1024),
                max_message: is(third, 3).then_some(256),
                ..input::SourceOptions::default()
            },
            map: is(first, 5),
            pieces: [Pieces::Whole, Pieces::small(trace), Pieces::Of(100), Pieces::Mixed(3)][pick(third, 4, 2)],
        };
        Some((plan, trace))
    }

    /// Whether how the trace arrives may make a difference.
    pub fn depends_on_pieces(&self) -> bool {
        self.timeline.eager || self.input.max_message.is_some()
    }
}

/// What a connection's entry holds.
#[derive(Clone, Debug)]
pub enum Kind {
    Opened {
        local: SocketAddr,
        remote: SocketAddr,
        client: Direction,
        trace_id: u64,
    },
    /// Another exchange goes on on the connection.
    Resumed {
        trace_id: u64,
    },
    /// An exchange becomes another stream of the connection.
    Joined,
    /// An exchange ends, and its connection stays open.
    Kept,
    /// `length` is what the packets account for, one byte where nobody knows how many. `begins` is the `trace_id` of an
    /// exchange that joined and has its first bytes here.
    Bytes {
        direction: Direction,
        payload: Vec<u8>,
        length: u64,
        end_stream: bool,
        begins: Option<u64>,
    },
    Closed,
    Abandoned,
}

/// An entry and the number of packets that it became.
#[derive(Clone, Debug)]
pub struct Made {
    pub connection: usize,
    pub time: Nanos,
    pub kind: Kind,
    pub packets: usize,
}

/// A conversion and its capture.
pub struct Conversion {
    pub made: Vec<Made>,
    pub capture: Vec<u8>,
}

/// What is written of a connection.
enum Writer {
    Own(Flow),
    Shared(SharedKey, ExchangeStream, Option<Joined>),
}

/// What the bytes of an exchange that joined must become, by other code than the program's.
struct Joined {
    trace_id: u64,
    client: Direction,
    id: Option<u32>,
}

impl Joined {
    /// Frames of the stream with its number, without what is the connection's; `given` are the numbers given so far.
    fn bytes(&mut self, direction: Direction, payload: &[u8], given: &mut u32) -> (Vec<u8>, Option<u64>) {
        const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        let mut at = if direction == self.client && payload.starts_with(PREFACE) { PREFACE.len() } else { 0 };
        let mut out = Vec::new();
        let mut begins = None;
        while at < payload.len() {
            let len = usize::from(payload[at]) << 16 | usize::from(payload[at + 1]) << 8 | usize::from(payload[at + 2]);
            let end = (at + 9 + len).min(payload.len());
            if payload[at + 5..at + 9] == [0, 0, 0, 1] {
                let id = *self.id.get_or_insert_with(|| {
                    *given += 2;
                    begins = Some(self.trace_id);
                    *given
                });
                out.extend_from_slice(&payload[at..at + 5]);
                out.extend_from_slice(&id.to_be_bytes());
                out.extend_from_slice(&payload[at + 9..end]);
            }
            at = end;
        }
        (out, begins)
    }
}

/// Converts `trace` into a file and reads the file.
pub fn convert(plan: &Plan, trace: &[u8], pieces: Pieces) -> Conversion {
    let reader = InPieces::new(trace, pieces);
    let source = Source::from_reader(Path::new(NAME), reader, plan.input).expect("not empty, of a given encoding");
    let mut timelines = Timelines::new(source, plan.timeline);
    let mut summaries = Summaries::default();
    let mut findings = Findings::default();
    let mappings = ["local=192.0.2.1:999", "10.0.0.1=[2001:db8::1]"].map(|text| text.parse().expect("a mapping"));
    let mappings = if plan.map { mappings.to_vec() } else { Vec::new() };
    let mut connections = Connections::<(Flow, usize)>::new(mappings.into());
    let path = output();
    let mut capture = Capture::create(&Destination::File(path.clone()), plan.format).expect("a file");
    let interface = capture.add_interface(NAME);
    let mut flows: Vec<Option<(Writer, Endpoints, usize)>> = Vec::new();
    // By connection, the highest number of its streams.
    let mut numbers: HashMap<usize, u32> = HashMap::new();
    let mut made = Vec::new();
    let mut opened = 0;
    let mut begun = 0;
    let mut bytes_left = MAX_BYTES;
    let mut ended = false;
    while capture.packets() < MAX_PACKETS && bytes_left > 0 {
        match timelines.advance(&mut findings) {
            Advance::Message => {}
            Advance::NeedInput => {
                timelines.fill(&mut findings);
                continue;
            }
            Advance::End => {
                ended = true;
                break;
            }
        }
        let entry = timelines.entry().expect("there is one after Message");
        let (id, slot, time) = (entry.connection, entry.connection.index(), entry.time);
        assert_eq!(timelines.time(), Some(time));
        let summary = summaries.entry(&timelines, &entry, &mut findings);
        let mut before = capture.packets();
        let sink = &mut capture.interface(interface);
        if flows.len() <= slot {
            flows.resize_with(slot + 1, || None);
        }
        let bytes = |direction, payload: &[u8], length, end_stream| Kind::Bytes {
            direction,
            payload: payload.to_owned(),
            length,
            end_stream,
            begins: None,
        };
        let ends = matches!(entry.kind, EntryKind::Closed { .. } | EntryKind::Abandoned);
        assert_eq!(summary.is_some(), ends, "a summary comes with the last entry");
        if ends {
            let complete = !matches!(entry.kind, EntryKind::Abandoned);
            let opening = timelines.opening(id).expect("the current entry is its");
            let (writer, endpoints, connection) = flows[slot].take().expect("opened before");
            let flow = match writer {
                Writer::Own(flow) => flow,
                Writer::Shared(key, ..) => {
                    let ((flow, _), at) = connections.shared(key, time).expect("it is open");
                    if !complete {
                        flow.abandon(at, sink).expect("a file takes it");
                    }
                    let packets = (capture.packets() - before) as usize;
                    let kind = if complete { Kind::Kept } else { Kind::Abandoned };
                    made.push(Made { connection, time: at, kind, packets });
                    let mut close = |over: Over<(Flow, usize)>| {
                        made.push(close(over, &mut capture, interface));
                        Ok(())
                    };
                    connections.end_shared(key, complete, &mut close).expect("a file takes it");
                    continue;
                }
            };
            let mut kept = true;
            let flow = (flow, connection);
            let mut close = |over: Over<(Flow, usize)>| {
                kept &= over.flow.1 != connection;
                made.push(close(over, &mut capture, interface));
                Ok(())
            };
            connections.end(flow, endpoints, opening, time, complete, &mut close).expect("a file takes it");
            if kept {
                made.push(Made { connection, time, kind: Kind::Kept, packets: 0 });
            }
            continue;
        }
        let mut made_at = time;
        let kind = match (&mut flows[slot], entry.kind) {
            (place @ None, EntryKind::Opened) => {
                let opening = timelines.opening(id).expect("the current entry is its");
                let trace_id = opening.trace_id;
                let identity = |endpoints| FlowIdentity { trace_file: NAME, source: NAME, opening, endpoints, time, paired: &[] };
                begun += 1;
                let mut over = Vec::new();
                let begun_now = connections.begin(NAME, opening, time, &mut |ended| {
                    over.push(ended);
                    Ok(())
                });
                made.extend(over.into_iter().map(|over| close(over, &mut capture, interface)));
                before = capture.packets();
                let sink = &mut capture.interface(interface);
                let (writer, endpoints, connection, kind) = match begun_now.expect("nothing is written") {
                    Begun::New(endpoints, key) => {
                        let mut flow = Flow::new(plan.synth, &identity(&endpoints));
                        flow.open(time, sink).expect("a file takes it");
                        opened += 1;
                        let (local, remote, client) =
                            (endpoints.local, endpoints.remote, opening.role.client_direction());
                        let kind = Kind::Opened { local, remote, client, trace_id };
                        let writer = match key {
                            Some(key) => {
                                connections.share(key, (flow, opened - 1), endpoints.clone(), opening.role, time);
                                Writer::Shared(key, ExchangeStream::first(), None)
                            }
                            None => Writer::Own(flow),
                        };
                        (writer, endpoints, opened - 1, kind)
                    }
                    Begun::Resumed((mut flow, connection), endpoints) => {
                        flow.resume(&identity(&endpoints));
                        (Writer::Own(flow), endpoints, connection, Kind::Resumed { trace_id })
                    }
                    Begun::Joined(key, endpoints) => {
                        let ((flow, connection), _) = connections.shared(key, time).expect("it is open");
                        let joined = Joined { trace_id, client: opening.role.client_direction(), id: None };
                        let stream = ExchangeStream::joining(flow, &identity(&endpoints));
                        (Writer::Shared(key, stream, Some(joined)), endpoints, *connection, Kind::Joined)
                    }
                };
                *place = Some((writer, endpoints.clone(), connection));
                capture.add_names(&endpoints.names);
                timelines.report_faults(id, &endpoints.faults, &mut findings);
                kind
            }
            (Some((writer, _, connection)), EntryKind::Data(data)) => {
                let present = data.payload.len() as u64;
                let length = match data.length {
                    TrueLength::Known(length) => length.max(present),
                    TrueLength::MoreThan(_) => present + 1,
                    TrueLength::Unframed(_) => present,
                };
                let mut kind = bytes(data.direction, data.payload, length, data.end_stream);
                match writer {
                    Writer::Own(flow) => flow.data(time, &data, sink).expect("a file takes it"),
                    Writer::Shared(key, stream, joined) => {
                        if let (Some(joined), Kind::Bytes { payload, length, begins, .. }) = (joined, &mut kind) {
                            let given = numbers.entry(*connection).or_insert(1);
                            let (rewritten, first) = joined.bytes(data.direction, payload, given);
                            *length -= (payload.len() - rewritten.len()) as u64;
                            (*payload, *begins) = (rewritten, first);
                        }
                        let ((flow, _), at) = connections.shared(*key, time).expect("it is open");
                        assert!(at >= time);
                        made_at = at;
                        stream.data(flow, at, time, &data, sink).expect("a file takes it");
                    }
                }
                kind
            }
            (Some((Writer::Own(flow), ..)), EntryKind::Gap { direction, bytes: lost, certain }) => {
                flow.gap(time, direction, lost, certain, sink).expect("a file takes it");
                bytes(direction, &[], lost, false)
            }
            (flow, kind) => panic!("{kind:?} of a connection that is open: {}", flow.is_some()),
        };
        let connection = flows[slot].as_ref().map(|(_, _, connection)| *connection).expect("opened above");
        if let Kind::Bytes { length, .. } = kind {
            bytes_left = bytes_left.saturating_sub(length);
        }
        made.push(Made { connection, time: made_at, kind, packets: (capture.packets() - before) as usize });
    }
    if ended {
        assert!(flows.iter().all(Option::is_none), "every connection ends");
        assert_eq!(timelines.connections(), begun);
    }
    let mut close_all = |over| {
        made.push(close(over, &mut capture, interface));
        Ok(())
    };
    connections.end_all(&mut close_all).expect("a file takes it");
    capture.finish().expect("a file takes it");
    Conversion { made, capture: fs::read(&path).expect("it was just written") }
}

/// Writes the last packets of a connection.
fn close(over: Over<(Flow, usize)>, capture: &mut Capture, interface: u32) -> Made {
    let Over { flow: (mut flow, connection), time, complete } = over;
    let before = capture.packets();
    let sink = &mut capture.interface(interface);
    let (kind, written) =
        if complete { (Kind::Closed, flow.close(time, sink)) } else { (Kind::Abandoned, flow.abandon(time, sink)) };
    written.expect("a file takes it");
    Made { connection, time, kind, packets: (capture.packets() - before) as usize }
}

/// A file that every conversion of this process replaces.
pub fn output() -> PathBuf {
    static DIRECTORY: OnceLock<TempDir> = OnceLock::new();
    DIRECTORY.get_or_init(|| tempfile::tempdir().expect("a directory for temporary files")).path().join("output")
}
