//! Measures what each stage costs together with the stages before it: `cargo bench --bench stages [-- FILTER]`.
//!
//! The traces are 8 MiB in memory, in the four encodings, with events of 100 bytes and of 16 KiB. Rates are in bytes of
//! the trace. The cost of a stage alone is the difference between its time and that of the stage before it. In the
//! traces called `newer`, each event has one field that this version does not know. In those called `turned`, two
//! fields of each event are not in the order in which Envoy writes them.

use std::{
    fmt,
    io::{self, Cursor},
    path::Path,
    sync::{Arc, LazyLock},
};

use divan::{Bencher, black_box, counter::BytesCount};
use prost::Message as _;
use prost_types::Timestamp;
use tap2pcap::{
    capture::{self, Capture, Destination},
    input::{self, Advance, Encoding, Source},
    proto::{
        envoy::config::core::v3 as core,
        tap::{
            Body, Connection, SocketEvent, SocketStreamedTraceSegment, TraceWrapper,
            body::BodyType,
            socket_event::{Closed, EventSelector, Read, Write},
            socket_streamed_trace_segment::MessagePiece,
            trace_wrapper::Trace,
        },
    },
    synth::{self, Flow, FlowIdentity, Packet, PacketSink},
    tap::TraceFormat,
    timeline::{self, EndpointTable, EntryKind, Timelines},
    trace::Findings,
};

const TRACE: usize = 8 << 20;
const NAME: &str = "trace";

fn main() {
    divan::main();
}

/// A trace, shown in the table by its name.
#[derive(Clone, Copy)]
struct Input {
    encoding: Encoding,
    format: TraceFormat,
    event: usize,
    shape: Shape,
}

/// How the events are written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// As Envoy writes them.
    Plain,
    /// With one more field, whose number and name no Envoy has yet.
    Newer,
    /// With the last field first.
    Turned,
}

impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shape = match self.shape {
            Shape::Plain => "",
            Shape::Newer => " newer",
            Shape::Turned => " turned",
        };
        write!(f, "{} {}{shape}", self.encoding.name(), self.event)
    }
}

const fn input(encoding: Encoding, format: TraceFormat, event: usize) -> Input {
    shaped(encoding, format, event, Shape::Plain)
}

const fn shaped(encoding: Encoding, format: TraceFormat, event: usize, shape: Shape) -> Input {
    Input { encoding, format, event, shape }
}

const INPUTS: [Input; 16] = [
    input(Encoding::Binary, TraceFormat::ProtoBinary, 100),
    input(Encoding::Binary, TraceFormat::ProtoBinary, 16_384),
    input(Encoding::Delimited, TraceFormat::ProtoBinaryLengthDelimited, 100),
    input(Encoding::Delimited, TraceFormat::ProtoBinaryLengthDelimited, 16_384),
    input(Encoding::Json, TraceFormat::JsonBodyAsBytes, 100),
    input(Encoding::Json, TraceFormat::JsonBodyAsBytes, 16_384),
    input(Encoding::Text, TraceFormat::ProtoText, 100),
    input(Encoding::Text, TraceFormat::ProtoText, 16_384),
    shaped(Encoding::Binary, TraceFormat::ProtoBinary, 100, Shape::Newer),
    shaped(Encoding::Delimited, TraceFormat::ProtoBinaryLengthDelimited, 100, Shape::Newer),
    shaped(Encoding::Json, TraceFormat::JsonBodyAsBytes, 100, Shape::Newer),
    shaped(Encoding::Text, TraceFormat::ProtoText, 100, Shape::Newer),
    shaped(Encoding::Binary, TraceFormat::ProtoBinary, 100, Shape::Turned),
    shaped(Encoding::Delimited, TraceFormat::ProtoBinaryLengthDelimited, 100, Shape::Turned),
    shaped(Encoding::Json, TraceFormat::JsonBodyAsBytes, 100, Shape::Turned),
    shaped(Encoding::Text, TraceFormat::ProtoText, 100, Shape::Turned),
];

impl Input {
    fn trace(self) -> Arc<[u8]> {
        static TRACES: LazyLock<Vec<Arc<[u8]>>> = LazyLock::new(|| INPUTS.iter().map(|input| trace(*input)).collect());
        let same =
            |other: &&Input| (other.encoding, other.event, other.shape) == (self.encoding, self.event, self.shape);
        let index = INPUTS.iter().take_while(|other| !same(other)).count();
        Arc::clone(&TRACES[index])
    }

    fn source(self, trace: &Arc<[u8]>) -> Source {
        let options = input::SourceOptions { encoding: Some(self.encoding), ..input::SourceOptions::default() };
        Source::from_reader(Path::new(NAME), Box::new(Cursor::new(Arc::clone(trace))), options).expect("it is a trace")
    }
}

impl Shape {
    /// Gives a plainly encoded segment this shape. A segment without a payload stays as it is.
    fn of(self, encoding: Encoding, segment: Vec<u8>) -> Vec<u8> {
        let (seq_num, end): (&str, &str) = match (self, encoding) {
            (Self::Plain, _) => return segment,
            (_, Encoding::Binary | Encoding::Delimited) => return self.of_wire(encoding, segment),
            (_, Encoding::Json) => ("\n   \"seq_num\": \"", "\n  }\n }\n}"),
            (_, Encoding::Text) => ("\n    seq_num: ", "\n  }\n}"),
        };
        let text = String::from_utf8(segment).expect("it is ASCII");
        let is_json = encoding == Encoding::Json;
        let (Some(from), Some(to), true) = (text.find(seq_num), text.find(end), text.contains("as_bytes")) else {
            return text.into_bytes();
        };
        let field = &text[from..to];
        match self {
            Self::Newer if is_json => format!("{},\n   \"newer\": 1{}", &text[..to], &text[to..]),
            Self::Newer => format!("{}\n    newer: 1{}", &text[..to], &text[to..]),
            // The field moves before the timestamp, which is the first field.
            _ if is_json => {
                let text = text.replacen(&format!(",{field}"), "", 1);
                text.replacen("\n   \"timestamp\"", &format!("{field},\n   \"timestamp\""), 1)
            }
            _ => text.replacen(field, "", 1).replacen("\n    timestamp", &format!("{field}\n    timestamp"), 1),
        }
        .into_bytes()
    }

    fn of_wire(self, encoding: Encoding, segment: Vec<u8>) -> Vec<u8> {
        let is_framed = encoding == Encoding::Delimited;
        let wrapper = if is_framed {
            TraceWrapper::decode_length_delimited(segment.as_slice())
        } else {
            TraceWrapper::decode(segment.as_slice())
        };
        let Some(Trace::SocketStreamedTraceSegment(SocketStreamedTraceSegment {
            trace_id,
            message_piece: Some(MessagePiece::Event(mut event)),
        })) = wrapper.expect("it was just encoded").trace
        else {
            return segment;
        };
        let event = match self {
            Self::Turned => {
                let seq_num = SocketEvent { seq_num: event.seq_num, ..SocketEvent::default() };
                event.seq_num = 0;
                [seq_num.encode_to_vec(), event.encode_to_vec()].concat()
            }
            // The new field has the number 15, and is a varint.
            _ => [event.encode_to_vec().as_slice(), b"\x78\x01"].concat(),
        };
        let field = |tag: &[u8], bytes: &[u8]| {
            let mut out = tag.to_vec();
            prost::encoding::encode_varint(bytes.len() as u64, &mut out);
            [&out, bytes].concat()
        };
        let id = SocketStreamedTraceSegment { trace_id, message_piece: None }.encode_to_vec();
        let wrapper = field(b"\x22", &[id, field(b"\x1a", &event)].concat());
        if is_framed { field(b"", &wrapper) } else { wrapper }
    }
}

/// One connection with events of random bytes: two reads, then a write, and so on.
fn trace(input: Input) -> Arc<[u8]> {
    let Input { format, event, .. } = input;
    let address = |address: &str, port| {
        let port_specifier = Some(core::socket_address::PortSpecifier::PortValue(port));
        let socket = core::SocketAddress { address: address.into(), port_specifier, ..Default::default() };
        Some(core::Address { address: Some(core::address::Address::SocketAddress(socket)) })
    };
    let mut out = Vec::with_capacity(TRACE + 65_536);
    let mut write = |piece| {
        let segment = SocketStreamedTraceSegment { trace_id: 1, message_piece: Some(piece) };
        let before = out.len();
        let trace = Some(Trace::SocketStreamedTraceSegment(segment));
        format.encode(&TraceWrapper { trace, configured_sample_rate: None }, &mut out);
        let encoded = out.split_off(before);
        out.extend(input.shape.of(input.encoding, encoded));
        out.len()
    };
    let (local_address, remote_address) = (address("10.0.0.1", 8443), address("10.1.0.1", 40_001));
    write(MessagePiece::Connection(Connection { local_address, remote_address }));
    let mut random = 1_u64;
    let mut seq_num = 1;
    for index in 0.. {
        let payload = (0..event).map(|_| {
            // xorshift
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random as u8
        });
        let data = Some(Body { body_type: Some(BodyType::AsBytes(payload.collect())), truncated: false });
        let selector = match index % 3 {
            2 => EventSelector::Write(Write { data, end_stream: false }),
            _ => EventSelector::Read(Read { data }),
        };
        let nanos = (index % 100_000) as i32 * 10_000;
        let at = |event_selector, seq_num| SocketEvent {
            timestamp: Some(Timestamp { seconds: 1_700_000_000 + index / 100_000, nanos }),
            event_selector: Some(event_selector),
            connection: None,
            seq_num,
        };
        let len = write(MessagePiece::Event(at(selector, seq_num)));
        seq_num += event as u64;
        if len >= TRACE {
            write(MessagePiece::Event(at(EventSelector::Closed(Closed {}), seq_num)));
            break;
        }
    }
    out.into()
}

fn bench(bencher: Bencher<'_, '_>, input: Input, run: impl Fn(Source)) {
    let trace = input.trace();
    bencher.counter(BytesCount::new(trace.len())).with_inputs(|| input.source(&trace)).bench_local_values(run);
}

/// Decodes bytes to messages.
#[divan::bench(args = INPUTS, sample_count = 30, sample_size = 1)]
fn decode(bencher: Bencher<'_, '_>, input: Input) {
    bench(bencher, input, |mut source| {
        let mut findings = Findings::default();
        loop {
            match source.advance(&mut findings) {
                Advance::Message => {
                    black_box(source.message());
                }
                Advance::NeedInput => source.fill(&mut findings),
                Advance::End => break,
            }
        }
        assert!(findings.is_empty(), "{:?}", findings.take());
    });
}

/// Assembles messages to entries of connections.
#[divan::bench(args = INPUTS, sample_count = 30, sample_size = 1)]
fn timeline(bencher: Bencher<'_, '_>, input: Input) {
    bench(bencher, input, |source| {
        for_each_entry(source, |timelines| {
            black_box(timelines.entry());
        });
    });
}

/// Makes packets of entries, and counts their bytes.
#[divan::bench(args = INPUTS, sample_count = 30, sample_size = 1)]
fn synth(bencher: Bencher<'_, '_>, input: Input) {
    #[derive(Default)]
    struct Count(u64);

    impl PacketSink for Count {
        fn packet(&mut self, packet: &Packet<'_>) -> io::Result<()> {
            self.0 += black_box(packet).payload.len() as u64;
            Ok(())
        }
    }

    bench(bencher, input, |source| {
        let mut count = Count::default();
        to_packets(source, &mut count);
        assert!(count.0 > 0);
    });
}

/// Writes packets to a capture that is not kept.
#[divan::bench(args = INPUTS, sample_count = 30, sample_size = 1)]
fn capture(bencher: Bencher<'_, '_>, input: Input) {
    bench(bencher, input, |source| {
        let destination = Destination::File("/dev/null".into());
        let mut capture = Capture::create(&destination, capture::CaptureFormat::Pcapng).expect("it takes everything");
        let interface = capture.add_interface(NAME);
        to_packets(source, &mut capture.interface(interface));
        capture.finish().expect("it takes everything");
    });
}

fn for_each_entry(source: Source, mut each: impl FnMut(&Timelines)) {
    let mut timelines = Timelines::new(source, timeline::TimelineOptions::default());
    let mut findings = Findings::default();
    loop {
        match timelines.advance(&mut findings) {
            Advance::Message => each(&timelines),
            Advance::NeedInput => timelines.fill(&mut findings),
            Advance::End => break,
        }
    }
    assert!(findings.is_empty());
}

/// Makes packets of the trace's only connection.
fn to_packets(source: Source, sink: &mut impl PacketSink) {
    let mut flow = None;
    for_each_entry(source, |timelines| {
        let Some(entry) = timelines.entry() else { return };
        let time = entry.time;
        let written = match (&mut flow, entry.kind) {
            (None, _) => {
                let opening = timelines.opening(entry.connection).expect("it is open");
                let endpoints = EndpointTable::default().open(NAME, opening);
                let identity =
                    FlowIdentity { trace_file: NAME, source: NAME, opening, endpoints: &endpoints, time, paired: &[] };
                flow.insert(Flow::new(synth::SynthOptions::default(), &identity)).open(time, sink)
            }
            (Some(flow), EntryKind::Data(data)) => flow.data(time, &data, sink),
            (Some(flow), EntryKind::Closed { .. }) => flow.close(time, sink),
            (Some(_), other) => unreachable!("the trace has no {other:?}"),
        };
        written.expect("it takes everything");
    });
}
