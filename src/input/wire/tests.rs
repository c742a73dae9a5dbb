//! Compares the scanner with the reference implementation, prost.

use proptest::{collection::vec, option, prelude::*};
use prost::Message as _;

use super::*;
use crate::{
    input::{
        http_tests,
        schema::{Ends, EventParts},
        scrambled,
    },
    proto::{
        envoy::config::core::v3::{self as core, address::Address as AddressKind},
        tap,
    },
    trace::{Address, Connection, EventKind, MAX_BATCH, MessageView, nanos_from_timestamp},
};

fn any_address() -> impl Strategy<Value = core::Address> {
    let socket = ("[0-9.:a-z]{0,20}", 0..100_000_u32).prop_map(|(address, port)| {
        AddressKind::SocketAddress(core::SocketAddress {
            address,
            port_specifier: Some(core::socket_address::PortSpecifier::PortValue(port)),
            resolver_name: "resolver".into(),
            ..Default::default()
        })
    });
    let pipe = "[/a-z]{0,20}".prop_map(|path| AddressKind::Pipe(core::Pipe { path, mode: 0o644 }));
    let internal = "[a-z]{0,9}".prop_map(|name| {
        AddressKind::EnvoyInternalAddress(core::EnvoyInternalAddress {
            endpoint_id: "1".into(),
            address_name_specifier: Some(core::envoy_internal_address::AddressNameSpecifier::ServerListenerName(name)),
        })
    });
    option::of(prop_oneof![socket, pipe, internal]).prop_map(|address| core::Address { address })
}

fn any_connection() -> impl Strategy<Value = tap::Connection> {
    (option::of(any_address()), option::of(any_address()))
        .prop_map(|(local_address, remote_address)| tap::Connection { local_address, remote_address })
}

fn any_body() -> impl Strategy<Value = tap::Body> {
    let bytes = vec(any::<u8>(), 0..300).prop_map(tap::body::BodyType::AsBytes);
    let string = "\\PC{0,50}".prop_map(tap::body::BodyType::AsString);
    (option::of(prop_oneof![bytes, string]), any::<bool>())
        .prop_map(|(body_type, truncated)| tap::Body { body_type, truncated })
}

fn any_event() -> impl Strategy<Value = tap::SocketEvent> {
    use tap::socket_event::{Closed, EventSelector, Read, Write};
    let selector = prop_oneof![
        option::of(any_body()).prop_map(|data| EventSelector::Read(Read { data })),
        (option::of(any_body()), any::<bool>())
            .prop_map(|(data, end_stream)| EventSelector::Write(Write { data, end_stream })),
        Just(EventSelector::Closed(Closed {})),
    ];
    let timestamp = (0..4_000_000_000_i64, 0..1_000_000_000_i32)
        .prop_map(|(seconds, nanos)| prost_types::Timestamp { seconds, nanos });
    (option::of(timestamp), option::of(selector), option::of(any_connection()), any::<u64>()).prop_map(
        |(timestamp, event_selector, connection, seq_num)| tap::SocketEvent {
            timestamp,
            event_selector,
            connection,
            seq_num,
        },
    )
}

/// Random traces.
pub(crate) fn wrapper_strategy() -> impl Strategy<Value = tap::TraceWrapper> {
    use tap::{socket_streamed_trace_segment::MessagePiece, trace_wrapper::Trace};
    let buffered = (any::<u64>(), option::of(any_connection()), vec(any_event(), 0..5), any::<bool>(), any::<bool>())
        .prop_map(|(trace_id, connection, events, read_truncated, write_truncated)| {
            Trace::SocketBufferedTrace(tap::SocketBufferedTrace {
                trace_id,
                connection,
                events,
                read_truncated,
                write_truncated,
            })
        });
    let piece = prop_oneof![
        any_connection().prop_map(MessagePiece::Connection),
        any_event().prop_map(MessagePiece::Event),
        vec(any_event(), 0..4).prop_map(|events| MessagePiece::Events(tap::SocketEvents { events })),
    ];
    let streamed = (any::<u64>(), option::of(piece)).prop_map(|(trace_id, message_piece)| {
        Trace::SocketStreamedTraceSegment(tap::SocketStreamedTraceSegment { trace_id, message_piece })
    });
    prop_oneof![2 => buffered, 2 => streamed, 1 => http_tests::any_trace(any_connection().boxed())]
        .prop_map(|trace| tap::TraceWrapper { trace: Some(trace), configured_sample_rate: None })
}

/// Compares the run at the start of `bytes`, if there is one, with prost, message by message. Comparing with the
/// general scanner would prove less, because that uses the fast path for single events.
fn check_run(framing: WireFraming, bytes: &[u8]) {
    use tap::{socket_streamed_trace_segment::MessagePiece, trace_wrapper::Trace};
    let mut fast = Message::default();
    let Some(end) = run(framing, bytes, &mut fast) else {
        assert!(fast.events.is_empty());
        return;
    };
    (fast.offset, fast.index) = (1000, 10);
    let mut at = 0;
    for (index, event) in fast.events.iter().enumerate() {
        let place = crate::trace::Place { offset: 1000 + at as u64, message: 10 + index as u64 };
        assert_eq!(fast.place_of(index), place);
        let start = at;
        let mut scan = Scanner::new(bytes, start, bytes.len(), false);
        // Both framings begin with a length, one after a tag.
        let len = match framing {
            WireFraming::Bare => scan.tag().and_then(|_| scan.varint()).unwrap(),
            WireFraming::Delimited => scan.varint().unwrap(),
        };
        at = scan.position() + len as usize;
        let message_start = if framing == WireFraming::Bare { start } else { scan.position() };
        let expected = tap::TraceWrapper::decode(&bytes[message_start..at]).unwrap();
        let Some(Trace::SocketStreamedTraceSegment(segment)) = &expected.trace else { panic!("{expected:?}") };
        let Some(MessagePiece::Event(expected)) = &segment.message_piece else { panic!("{segment:?}") };
        assert_eq!((fast.kind, fast.trace_id_of(index)), (Some(TraceKind::SocketStreamed), segment.trace_id));
        check_event(MessageView::new(&fast, bytes), event, expected);
    }
    assert_eq!((end, fast.count()), (at, fast.events.len() as u64));
    assert!(fast.is_plain());
}

fn plain_wrapper(trace_id: u64, time: (i64, i32), payload: Vec<u8>, write: bool, seq_num: u64) -> tap::TraceWrapper {
    use tap::{
        socket_event::{EventSelector, Read, Write},
        socket_streamed_trace_segment::MessagePiece,
        trace_wrapper::Trace,
    };
    let data = Some(tap::Body { body_type: Some(tap::body::BodyType::AsBytes(payload)), truncated: false });
    let selector = if write {
        EventSelector::Write(Write { data, end_stream: false })
    } else {
        EventSelector::Read(Read { data })
    };
    let (seconds, nanos) = time;
    let event = tap::SocketEvent {
        timestamp: Some(prost_types::Timestamp { seconds, nanos }),
        event_selector: Some(selector),
        connection: None,
        seq_num,
    };
    let segment = tap::SocketStreamedTraceSegment { trace_id, message_piece: Some(MessagePiece::Event(event)) };
    tap::TraceWrapper { trace: Some(Trace::SocketStreamedTraceSegment(segment)), configured_sample_rate: None }
}

fn framed(framing: WireFraming, wrapper: &tap::TraceWrapper) -> Vec<u8> {
    match framing {
        WireFraming::Bare => wrapper.encode_to_vec(),
        WireFraming::Delimited => wrapper.encode_length_delimited_to_vec(),
    }
}

/// Mostly streamed segments that can be part of a run, and occasionally another one.
fn run_wrapper() -> impl Strategy<Value = tap::TraceWrapper> {
    let seconds = prop_oneof![4 => Just(1_700_000_000_i64), 1 => 0..1_i64 << 33];
    let nanos = prop_oneof![1 => Just(0), 4 => 0..1_000_000_000_i32];
    let trace_id = prop_oneof![8 => Just(7_u64), 1 => Just(8), 1 => any::<u64>()];
    let seq_num = prop_oneof![1 => Just(0), 4 => 1..1_u64 << 50];
    let plain = (trace_id, (seconds, nanos), vec(any::<u8>(), 0..300), any::<bool>(), seq_num)
        .prop_map(|(trace_id, time, payload, write, seq_num)| plain_wrapper(trace_id, time, payload, write, seq_num));
    prop_oneof![8 => plain, 1 => wrapper_strategy()]
}

fn expected_connection(connection: &tap::Connection) -> Connection {
    let address = |address: &Option<core::Address>| {
        Some(match address.as_ref()?.address.as_ref()? {
            AddressKind::SocketAddress(socket) => Address::Socket {
                address: socket.address.clone(),
                port: match socket.port_specifier {
                    Some(core::socket_address::PortSpecifier::PortValue(port)) => Some(port),
                    _ => None,
                },
            },
            AddressKind::Pipe(pipe) => Address::Pipe(pipe.path.clone()),
            AddressKind::EnvoyInternalAddress(internal) => Address::Internal {
                listener: match &internal.address_name_specifier {
                    Some(core::envoy_internal_address::AddressNameSpecifier::ServerListenerName(name)) => name.clone(),
                    None => String::new(),
                },
                endpoint: internal.endpoint_id.clone(),
            },
        })
    };
    Connection { local: address(&connection.local_address), remote: address(&connection.remote_address) }
}

fn check_event(view: MessageView<'_>, event: &Event, expected: &tap::SocketEvent) {
    use tap::socket_event::EventSelector;
    let time = expected.timestamp.as_ref().and_then(|time| nanos_from_timestamp(time.seconds, time.nanos.into()).ok());
    assert_eq!(event.time, time);
    assert_eq!(event.seq_num, expected.seq_num);
    let own = event.connection.map(|index| view.message().event_connections[index as usize].clone());
    assert_eq!(own, expected.connection.as_ref().map(expected_connection));
    let (kind, body, end_stream) = match &expected.event_selector {
        None => (EventKind::Absent, None, false),
        Some(EventSelector::Read(read)) => (EventKind::Read, read.data.as_ref(), false),
        Some(EventSelector::Write(write)) => (EventKind::Write, write.data.as_ref(), write.end_stream),
        Some(EventSelector::Closed(_)) => (EventKind::Closed, None, false),
    };
    assert_eq!((event.kind, event.end_stream), (kind, end_stream));
    let (bytes, as_string): (&[u8], bool) = match body.and_then(|body| body.body_type.as_ref()) {
        None => (&[], false),
        Some(tap::body::BodyType::AsBytes(bytes)) => (bytes, false),
        Some(tap::body::BodyType::AsString(text)) => (text.as_bytes(), true),
    };
    assert_eq!(view.bytes(event.body.payload), bytes);
    assert_eq!(event.body.as_string, as_string);
    assert_eq!(event.body.truncated, body.is_some_and(|body| body.truncated));
}

/// Compares a decoded message with the prost message that it was encoded from.
pub(crate) fn check_message(view: MessageView<'_>, expected: &tap::TraceWrapper) {
    use tap::{socket_streamed_trace_segment::MessagePiece, trace_wrapper::Trace};
    let message = view.message();
    let (kind, trace_id, connection, events) = match expected.trace.as_ref().unwrap() {
        Trace::SocketBufferedTrace(trace) => {
            assert_eq!(message.read_truncated, trace.read_truncated);
            assert_eq!(message.write_truncated, trace.write_truncated);
            (TraceKind::SocketBuffered, trace.trace_id, trace.connection.as_ref(), trace.events.as_slice())
        }
        Trace::SocketStreamedTraceSegment(segment) => {
            let (connection, events) = match &segment.message_piece {
                Some(MessagePiece::Connection(connection)) => (Some(connection), &[][..]),
                Some(MessagePiece::Event(event)) => (None, std::slice::from_ref(event)),
                Some(MessagePiece::Events(events)) => (None, events.events.as_slice()),
                None => (None, &[][..]),
            };
            (TraceKind::SocketStreamed, segment.trace_id, connection, events)
        }
        trace @ Trace::HttpBufferedTrace(http) => {
            assert_eq!(message.upstream_connection, http.upstream_connection.as_ref().map(expected_connection));
            let (kind, trace_id) = http_tests::kind_and_id(trace);
            (kind, trace_id, http.downstream_connection.as_ref(), &[][..])
        }
        trace @ Trace::HttpStreamedTraceSegment(_) => {
            let (kind, trace_id) = http_tests::kind_and_id(trace);
            (kind, trace_id, None, &[][..])
        }
    };
    assert_eq!(http_tests::seen(view), http_tests::expected(expected.trace.as_ref().unwrap()));
    assert_eq!((message.kind, message.trace_id), (Some(kind), trace_id));
    assert_eq!(message.connection, connection.map(expected_connection));
    assert_eq!(message.events.len(), events.len());
    for (event, expected) in message.events.iter().zip(events) {
        check_event(view, event, expected);
    }
    assert_eq!(message.unknown.total(), 0);
}

proptest! {
    #[test]
    fn what_prost_encodes_is_read(expected in wrapper_strategy()) {
        let bytes = expected.encode_to_vec();
        let mut message = Message::default();
        wrapper(Scanner::new(&bytes, 0, bytes.len(), false), &mut message).unwrap();
        check_message(MessageView::new(&message, &bytes), &expected);
    }

    /// The scanner and prost read the same from fields in any order, more than once and in pieces.
    #[test]
    fn fields_in_any_order_and_in_pieces_mean_what_prost_reads(
        fields in scrambled::wrapper(vec(proptest::sample::select(&TraceKind::ALL[..]), 1..4)),
    ) {
        let mut bytes = Vec::new();
        scrambled::encode(&fields, &mut bytes);
        let expected = tap::TraceWrapper::decode(bytes.as_slice()).unwrap();
        // The fast path needs some bytes after the message.
        let end = bytes.len();
        bytes.extend([0; 64]);
        let mut message = Message::default();
        wrapper(Scanner::new(&bytes, 0, end, false), &mut message).unwrap();
        check_message(MessageView::new(&message, &bytes), &expected);
    }

    /// The fast path reads what the general scanner reads, or nothing.
    #[test]
    fn the_fast_path_and_the_general_decoder_agree(expected in any_event(), flip in any::<proptest::sample::Index>(), to: u8, tail: [u8; 8]) {
        let mut bytes = expected.encode_to_vec();
        let end = bytes.len();
        bytes.extend(tail);
        for flipped in [false, true] {
            if flipped && end > 0 {
                bytes[flip.index(end)] = to;
            }
            if let Some(event) = fast::event(&bytes, 0, end, &mut Message::default()) {
                let mut message = Message::default();
                let mut general = EventParts::default();
                let (result, whole) = Scanner::new(&bytes, 0, end, false).record(&mut general, &mut message);
                result.unwrap();
                general.done(whole, (), &mut message);
                prop_assert_eq!(message.events, [event]);
            }
        }
    }

    /// A cut message gives its complete events, and the bytes that are left of an incomplete payload.
    #[test]
    fn a_cut_message_gives_what_came_before(expected in wrapper_strategy(), cut in any::<proptest::sample::Index>()) {
        let bytes = expected.encode_to_vec();
        let cut = cut.index(bytes.len() + 1);
        let mut whole = Message::default();
        wrapper(Scanner::new(&bytes, 0, bytes.len(), false), &mut whole).unwrap();
        let mut part = Message::default();
        let _ = wrapper(Scanner::new(&bytes, 0, cut, true), &mut part);
        prop_assert!(part.events.len() <= whole.events.len());
        let (part_view, whole_view) = (MessageView::new(&part, &bytes), MessageView::new(&whole, &bytes));
        for (index, (event, complete)) in part.events.iter().zip(&whole.events).enumerate() {
            let (present, all) = (part_view.bytes(event.body.payload), whole_view.bytes(complete.body.payload));
            prop_assert!(all.starts_with(present));
            let last = index + 1 == part.events.len();
            prop_assert!(present.len() == all.len() || (last && event.body.truncated));
        }
        http_tests::check_cut(&http_tests::seen(part_view), &http_tests::seen(whole_view));
    }

    #[test]
    fn varints_are_those_of_prost(number: u64, few in 0..16_384_u64, shift in 0..64_u32, rest: Vec<u8>) {
        for number in [number, few, number >> shift] {
            let mut bytes = Vec::new();
            prost::encoding::encode_varint(number, &mut bytes);
            let len = bytes.len();
            bytes.extend(&rest);
            let mut scan = Scanner::new(&bytes, 0, bytes.len(), false);
            prop_assert_eq!(scan.varint().unwrap(), number);
            prop_assert_eq!(scan.position(), len);
            for cut in 0..len {
                prop_assert_eq!(Scanner::new(&bytes, 0, cut, false).varint().unwrap_err().reason, WireFault::EndInField);
            }
        }
    }

    #[test]
    fn any_bytes_give_payloads_within_the_message(bytes: Vec<u8>, lax: bool) {
        let mut message = Message::default();
        let _ = wrapper(Scanner::new(&bytes, 0, bytes.len(), lax), &mut message);
        for event in &message.events {
            let _ = MessageView::new(&message, &bytes).bytes(event.body.payload);
        }
        let _ = http_tests::seen(MessageView::new(&message, &bytes));
    }

    #[test]
    fn a_changed_byte_gives_payloads_within_the_message(expected in wrapper_strategy(), at in any::<proptest::sample::Index>(), to: u8) {
        let mut bytes = expected.encode_to_vec();
        if !bytes.is_empty() {
            let at = at.index(bytes.len());
            bytes[at] = to;
        }
        let mut message = Message::default();
        let _ = wrapper(Scanner::new(&bytes, 0, bytes.len(), false), &mut message);
        for event in &message.events {
            let _ = MessageView::new(&message, &bytes).bytes(event.body.payload);
        }
        let _ = http_tests::seen(MessageView::new(&message, &bytes));
    }
}

proptest! {
    // Enough cases to change each byte of the common shape often.
    #![proptest_config(ProptestConfig::with_cases(4096))]

    /// A run gives the same messages and places as prost, or stops before a message that does not fit.
    #[test]
    fn runs_are_the_messages_of_prost(
        expected in vec(run_wrapper(), 0..12),
        bare: bool,
        flip in option::of((any::<proptest::sample::Index>(), 0..48_usize, 1_u8..5)),
        cut in option::of(any::<proptest::sample::Index>()),
    ) {
        let framing = if bare { WireFraming::Bare } else { WireFraming::Delimited };
        let (mut bytes, mut starts) = (Vec::new(), Vec::new());
        for wrapper in &expected {
            starts.push(bytes.len());
            match framing {
                WireFraming::Bare => wrapper.encode(&mut bytes).unwrap(),
                WireFraming::Delimited => wrapper.encode_length_delimited(&mut bytes).unwrap(),
            }
        }
        // Change a byte where tags and lengths are.
        if let (Some((message, at, by)), false) = (flip, starts.is_empty())
            && let Some(byte) = bytes.get_mut(starts[message.index(starts.len())] + at)
        {
            *byte = byte.wrapping_add(by).wrapping_sub(2);
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len() + 1));
        }
        // The fast path needs some bytes after the last event.
        bytes.extend([0; 64]);

        check_run(framing, &bytes);
    }
}

#[test]
fn the_layout_before_1_28_is_told_by_field_3_without_field_1() {
    // socket_address { address: "a" } after field 2, { address: "b" } after field 3.
    let bytes = [0x12, 5, 0x0a, 3, 0x12, 1, b'a', 0x1a, 5, 0x0a, 3, 0x12, 1, b'b'];
    let mut message = Message::default();
    let old = connection_of(&bytes, &mut message);
    let named = |name: &str| Some(Address::Socket { address: name.into(), port: None });
    assert_eq!(old, Connection { local: named("a"), remote: named("b") });
    assert_eq!(message.unknown.total(), 0);

    // Field 2 alone is today's remote address: the first segment of an upstream tap.
    let new = connection_of(&bytes[..7], &mut message);
    assert_eq!(new, Connection { local: None, remote: named("a") });
}

fn connection_of(bytes: &[u8], out: &mut Message) -> Connection {
    let mut ends = Ends::default();
    Scanner::new(bytes, 0, bytes.len(), false).fields(&mut ends, out).unwrap();
    ends.finish(out)
}

/// The fast path reads the first piece of the event. A second piece must not become another event.
#[test]
fn an_event_in_two_pieces_is_one() {
    let first = plain_wrapper(7, (1_700_000_000, 5_000), vec![1; 10], false, 1);
    let bytes = first.encode_to_vec();
    let mut scan = Scanner::new(&bytes, 0, bytes.len(), false);
    scan.tag().unwrap();
    let segment = scan.delimited(&mut Message::default()).unwrap();
    // The second piece: an empty write, and other nanoseconds of its time.
    let more = [&bytes[segment.at..segment.end], &[0x1a, 6, 0x0a, 2, 0x10, 9, 0x1a, 0], &[0; 64]].concat();
    let mut message = Message::default();
    trace(TraceKind::SocketStreamed, Scanner::new(&more, 0, more.len() - 64, false), &mut message).unwrap();
    let event = Event { kind: EventKind::Write, time: Some(1_700_000_000_000_000_009), seq_num: 1, ..Event::default() };
    assert_eq!(message.events, [event]);
}

/// The source may end after the tag of a closed event, because the tag alone says everything.
#[test]
fn an_event_is_closed_by_the_tag_alone() {
    // event { timestamp { seconds: 7 } closed }, which lacks a byte.
    let bytes = [0x1a, 6, 0x0a, 2, 0x08, 7, 0x22];
    let mut message = Message::default();
    let scan = Scanner::new(&bytes, 0, bytes.len(), true);
    assert_eq!(trace(TraceKind::SocketStreamed, scan, &mut message).unwrap_err().reason, WireFault::EndInField);
    let event = Event { kind: EventKind::Closed, time: Some(7_000_000_000), ..Event::default() };
    assert_eq!(message.events, [event]);
}

#[test]
fn unknown_fields_are_skipped_and_counted() {
    // trace_id, then field 9 as varint, 32 bit, 64 bit, bytes, and a group that holds a field.
    let bytes = [8, 1, 0x48, 1, 0x4d, 1, 2, 3, 4, 0x49, 1, 2, 3, 4, 5, 6, 7, 8, 0x4a, 1, 0, 0x4b, 8, 1, 0x4c];
    let mut message = Message::default();
    trace(TraceKind::SocketStreamed, Scanner::new(&bytes, 0, bytes.len(), false), &mut message).unwrap();
    assert_eq!(message.trace_id, 1);
    assert_eq!(message.unknown.total(), 5);
}

/// The fast path must read the common shape, and not silently leave it to the general scanner.
#[test]
fn the_common_event_is_read_fast() {
    use tap::socket_event::{EventSelector, Read, Write};
    for (len, nanos, seq_num, write) in [(100, 5_000, 1, false), (16_384, 0, 1 << 40, true), (1 << 20, 1, 0, false)] {
        let data = Some(tap::Body { body_type: Some(tap::body::BodyType::AsBytes(vec![7; len])), truncated: false });
        let selector = if write {
            EventSelector::Write(Write { data, end_stream: false })
        } else {
            EventSelector::Read(Read { data })
        };
        let event = tap::SocketEvent {
            timestamp: Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos }),
            event_selector: Some(selector),
            connection: None,
            seq_num,
        };
        let mut bytes = event.encode_to_vec();
        let end = bytes.len();
        // The fast path needs some bytes after the event.
        bytes.extend([0; 8]);
        let fast = fast::event(&bytes, 0, end, &mut Message::default()).unwrap();
        assert_eq!((fast.body.payload.len(), fast.seq_num), (len, seq_num));
    }
}

/// Segments must share a batch, and not silently become messages of their own.
#[test]
fn segments_that_follow_each_other_are_one_batch() {
    for framing in [WireFraming::Bare, WireFraming::Delimited] {
        let segment = |index: u64| {
            framed(
                framing,
                &plain_wrapper(1 + index % 3, (1_700_000_000, 1 + index as i32), vec![1; 100], false, 1 + 100 * index),
            )
        };
        let bytes = (0..200).flat_map(segment).collect::<Vec<_>>();
        let mut message = Message::default();
        run(framing, &bytes, &mut message).unwrap();
        assert_eq!(message.count(), MAX_BATCH as u64);
        assert!((0..MAX_BATCH).all(|event| message.trace_id_of(event) == 1 + event as u64 % 3));
    }
}

/// Whatever a byte of the shape is changed to, the fast path reads what prost reads, or nothing.
#[test]
fn no_byte_of_the_fast_shape_is_overlooked() {
    for framing in [WireFraming::Bare, WireFraming::Delimited] {
        for len in [3, 200] {
            let one = |seq_num| framed(framing, &plain_wrapper(7, (1_700_000_000, 5_000), vec![1; len], true, seq_num));
            let (first, second) = (one(900), one(900 + len as u64));
            let bytes = [first.as_slice(), &second, &[0; 64]].concat();
            for at in first.len()..first.len() + second.len() {
                for to in 0..=u8::MAX {
                    let mut changed = bytes.clone();
                    changed[at] = to;
                    check_run(framing, &changed);
                }
            }
        }
    }
}

/// A streamed segment whose event has these bytes after the fields that this version knows.
fn with_more(framing: WireFraming, wrapper: &tap::TraceWrapper, more: &[u8]) -> Vec<u8> {
    use tap::{socket_streamed_trace_segment::MessagePiece, trace_wrapper::Trace};
    let Some(Trace::SocketStreamedTraceSegment(segment)) = &wrapper.trace else { panic!("{wrapper:?}") };
    let Some(MessagePiece::Event(event)) = &segment.message_piece else { panic!("{segment:?}") };
    let field = |tag: u8, bytes: &[u8]| {
        let mut out = vec![tag];
        prost::encoding::encode_varint(bytes.len() as u64, &mut out);
        [&out, bytes].concat()
    };
    let event = field(0x1a, &[event.encode_to_vec().as_slice(), more].concat());
    let mut trace_id = vec![0x08];
    prost::encoding::encode_varint(segment.trace_id, &mut trace_id);
    let wrapper = field(0x22, &[trace_id, event].concat());
    match framing {
        WireFraming::Bare => wrapper,
        WireFraming::Delimited => field(0, &wrapper)[1..].to_vec(),
    }
}

#[test]
fn fields_of_a_newer_envoy_are_counted_and_leave_a_batch_whole() {
    // A number, bytes, four and eight bytes, and a group.
    let more = b"\x78\x01\x82\x01\x02ab\x8d\x01abcd\x91\x01abcdefgh\x9b\x01\x08\x01\x9c\x01";
    for framing in [WireFraming::Bare, WireFraming::Delimited] {
        for seq_num in [0, 900] {
            let plain = plain_wrapper(7, (1_700_000_000, 5_000), vec![1; 100], true, seq_num);
            let bytes = [with_more(framing, &plain, more), with_more(framing, &plain, &[]), vec![0; 64]].concat();
            check_run(framing, &bytes);
            let mut message = Message::default();
            run(framing, &bytes, &mut message).unwrap();
            assert_eq!((message.count(), message.unknown.total()), (2, 5));
            // A known field in the wrong place, or a malformed one, is left to the general scanner.
            for other in [b"\x30\x07\x30\x07".as_slice(), b"\x78", b"\x7f\x01", b"\x0a\x00", b"\x82\x01\x09ab"] {
                let bytes = [with_more(framing, &plain, other), vec![0; 64]].concat();
                let mut message = Message::default();
                assert_eq!(run(framing, &bytes, &mut message), None, "{other:x?}");
                assert_eq!(message.unknown.total(), 0, "{other:x?}");
            }
        }
    }
}

#[test]
fn nesting_is_bounded() {
    let bytes = vec![0x4b; 10_000];
    let mut message = Message::default();
    let error =
        trace(TraceKind::SocketStreamed, Scanner::new(&bytes, 0, bytes.len(), false), &mut message).unwrap_err();
    assert_eq!(error.reason, WireFault::Depth { limit: MAX_DEPTH });
}
