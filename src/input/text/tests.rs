use proptest::{
    collection::vec,
    option::of,
    prelude::{Just, ProptestConfig, Strategy, any, prop_oneof, proptest},
    sample::Index,
};
use prost::Message as _;
use prost_reflect::{DynamicMessage, text_format::FormatOptions};
use prost_types::Timestamp;

use super::*;
use crate::{
    input::{
        http_tests::{self, SeenPiece},
        scrambled,
        wire::tests::check_message,
    },
    proto::{
        DESCRIPTORS,
        envoy::config::core::v3::{self as core, address::Address as AddressKind, socket_address::PortSpecifier},
        tap::{
            self, body::BodyType, socket_event::EventSelector, socket_streamed_trace_segment::MessagePiece,
            trace_wrapper::Trace,
        },
    },
    tap::TraceFormat,
    trace::{
        Address, Code, Connection, EventKind, FieldId, HttpPart, HttpSide, MessageView, Nanos, TimeError,
        nanos_from_timestamp,
    },
};

/// An event with its payload and connection in it.
#[derive(Clone, Debug, PartialEq)]
struct SeenEvent {
    time: Option<Nanos>,
    kind: EventKind,
    payload: Vec<u8>,
    truncated: bool,
    as_string: bool,
    end_stream: bool,
    seq_num: u64,
    connection: Option<Connection>,
}

/// A decoded message that outlives its window.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    start: usize,
    end: usize,
    fault: Option<(usize, Code, String)>,
    kind: Option<TraceKind>,
    trace_id: u64,
    connection: Option<Connection>,
    upstream_connection: Option<Connection>,
    http: Vec<SeenPiece>,
    events: Vec<SeenEvent>,
    read_truncated: bool,
    write_truncated: bool,
    cut: bool,
    bad_time: Option<TimeError>,
}

impl Seen {
    fn new(message: &Message, window: &[u8], start: usize, end: usize, fault: Option<(usize, Code, String)>) -> Self {
        let view = MessageView::new(message, window);
        let event = |event: &Event| SeenEvent {
            time: event.time,
            kind: event.kind,
            payload: view.bytes(event.body.payload).to_vec(),
            truncated: event.body.truncated,
            as_string: event.body.as_string,
            end_stream: event.end_stream,
            seq_num: event.seq_num,
            connection: event.connection.map(|index| message.event_connections[index as usize].clone()),
        };
        Self {
            start,
            end,
            fault,
            kind: message.kind,
            trace_id: message.trace_id,
            connection: message.connection.clone(),
            upstream_connection: message.upstream_connection.clone(),
            http: http_tests::seen(view),
            events: message.events.iter().map(event).collect(),
            read_truncated: message.read_truncated,
            write_truncated: message.write_truncated,
            cut: message.cut,
            bad_time: message.bad_time,
        }
    }

    fn fault(&self) -> (usize, Code, &str) {
        let (at, code, detail) = self.fault.as_ref().expect("a damaged message");
        (*at, *code, detail)
    }

    fn payloads(&self) -> Vec<&[u8]> {
        self.events.iter().map(|event| event.payload.as_slice()).collect()
    }
}

/// Adds text around messages, which may come in pieces, as if it were one damaged message.
fn skipped(seen: &mut Vec<Seen>, start: usize, end: usize) {
    match seen.last_mut() {
        Some(Seen { fault: Some((_, Code::TextAround, _)), end: last, .. }) if *last <= start => *last = end,
        _ => {
            let fault = Some((start, Code::TextAround, String::new()));
            seen.push(Seen { fault, ..Seen::new(&Message::default(), b"", start, end, None) });
        }
    }
}

/// Decodes `text`, and gives the decoder `feed` more bytes whenever it asks. Offsets in the result count from the start
/// of the text.
fn read_fed(text: &[u8], feed: usize) -> (Vec<Seen>, UnknownNames) {
    read_with(TextDecoder::default(), text, feed)
}

fn read_with(mut decoder: TextDecoder, text: &[u8], feed: usize) -> (Vec<Seen>, UnknownNames) {
    let mut out = Message::default();
    let (mut from, mut to) = (0, feed.min(text.len()));
    let mut seen = Vec::new();
    loop {
        out.clear();
        let window = &text[from..to];
        let mut take = |start: usize, end: usize, fault: Option<Fault>, out: &Message| {
            assert!(start < end && end <= window.len(), "no progress: {start}..{end}");
            let fault = fault.map(|fault| fault.told(from));
            seen.push(Seen::new(out, window, from + start, from + end, fault));
            end
        };
        match decoder.step(window, to == text.len(), &mut out) {
            Step::Message { start, end } => from += take(start, end, None, &out),
            Step::Damaged { start, end, fault } => from += take(start, end, Some(fault), &out),
            Step::Skipped { start, end } | Step::Zeros { start, end } => {
                assert!(start < end && end <= window.len(), "no progress: {start}..{end}");
                skipped(&mut seen, from + start, from + end);
                from += end;
            }
            Step::Switch { .. } => panic!("another encoding"),
            Step::NeedMore { skip, wanted } => {
                assert!(to < text.len(), "asked for more than there is");
                assert!(skip <= window.len() && skip + wanted > window.len(), "asked for nothing");
                from += skip;
                to = (to + feed).min(text.len());
            }
            Step::End => break,
        }
    }
    let name = |field: &crate::trace::UnknownField| (field.message, field.field.clone(), field.count);
    (seen, out.unknown.fields().iter().map(name).collect())
}

/// Decodes all of `text` with the fast path and without it.
fn assert_fast_and_general_agree(text: &[u8], feed: usize) {
    let general = read_with(TextDecoder { only_general: true, ..TextDecoder::default() }, text, feed);
    assert_eq!(read_fed(text, feed), general, "fed {feed} bytes at a time: {}", text.escape_ascii());
}

type UnknownNames = Vec<(&'static str, FieldId, u64)>;

/// Decodes `text` in pieces of several sizes, which must not matter.
fn read_counting(text: impl AsRef<[u8]>) -> (Vec<Seen>, UnknownNames) {
    let text = text.as_ref();
    let whole = read_fed(text, text.len().max(1));
    for feed in [1, 7] {
        assert_eq!(read_fed(text, feed), whole, "fed {feed} bytes at a time: {}", text.escape_ascii());
    }
    whole
}

fn read(text: impl AsRef<[u8]>) -> Vec<Seen> {
    read_counting(text).0
}

fn only(text: impl AsRef<[u8]>) -> Seen {
    let text = text.as_ref();
    let mut seen = read(text);
    assert_eq!(seen.len(), 1, "{}", text.escape_ascii());
    seen.remove(0)
}

/// The one event of a segment with these fields.
fn event(fields: &str) -> SeenEvent {
    let seen = only(format!("socket_streamed_trace_segment {{ event {{ {fields} }} }}"));
    assert_eq!(seen.fault, None, "{fields}");
    assert_eq!(seen.events.len(), 1, "{fields}");
    seen.events[0].clone()
}

/// The bytes that one or more literals stand for.
fn payload(literals: &str) -> Vec<u8> {
    event(&format!("read {{ data {{ as_bytes: {literals} }} }}")).payload
}

/// The fault in a segment of one event with these fields: its offset from the start of the fields, and its detail.
fn fault(fields: &str) -> (usize, String) {
    let before = "socket_streamed_trace_segment { event { ";
    let text = format!("{before}{fields} }} }}\nsocket_streamed_trace_segment {{ trace_id: 9 }}");
    let seen = read(&text);
    assert_eq!(seen.len(), 2, "{fields}: {seen:?}");
    assert_eq!((seen[1].fault.as_ref(), seen[1].trace_id), (None, 9), "{fields}");
    let (at, code, detail) = seen[0].fault();
    assert_eq!(code, Code::Undecodable);
    (at - before.len(), detail.into())
}

fn connection_of(fields: &str) -> Connection {
    let seen = only(format!("socket_buffered_trace {{ connection {{ {fields} }} }}"));
    assert_eq!(seen.fault, None, "{fields}");
    seen.connection.expect("a connection")
}

fn socket(address: &str, port: Option<u32>) -> Option<Address> {
    Some(Address::Socket { address: address.into(), port })
}

const STREAMED: &[u8] = include_bytes!("../../../testdata/envoy/1.40.0/h1_str_PROTO_TEXT_172.pb_text");
const BUFFERED: &[u8] = include_bytes!("../../../testdata/envoy/1.40.0/trunc_buf_PROTO_TEXT_79.pb_text");
const HTTP: &[u8] = include_bytes!("../../../testdata/envoy/1.40.0/filter_str_PROTO_TEXT_3055020197668465111.pb_text");

#[test]
fn reads_a_streamed_trace() {
    let (seen, unknown) = read_counting(STREAMED);
    assert_eq!(unknown, []);
    assert!(seen.iter().all(|seen| seen.fault.is_none() && seen.trace_id == 172));
    assert!(seen.iter().all(|seen| seen.kind == Some(TraceKind::SocketStreamed)));
    let connection = Connection { local: socket("127.0.0.1", Some(21098)), remote: socket("127.0.0.1", Some(46960)) };
    assert_eq!(seen[0].connection.as_ref(), Some(&connection));
    assert_eq!(seen[0].events, []);
    assert_eq!(
        seen[1].events,
        [SeenEvent {
            time: Some(1_795_374_952_002_610_000),
            kind: EventKind::Read,
            payload: b"GET /text?n=300 HTTP/1.1\r\nHost: 127.0.0.1:21098\r\nAccept-Encoding: identity\r\n\r\n".to_vec(),
            truncated: false,
            as_string: false,
            end_stream: false,
            seq_num: 1,
            connection: None,
        }]
    );
    let events: Vec<_> = seen.iter().flat_map(|seen| &seen.events).collect();
    let (closed, data) = events.split_last().expect("events");
    assert_eq!((closed.kind, closed.seq_num), (EventKind::Closed, 2488));
    for pair in data.windows(2) {
        assert_eq!(pair[0].payload.len() as u64, pair[1].seq_num - pair[0].seq_num);
    }
}

#[test]
fn reads_a_buffered_trace() {
    let seen = only(BUFFERED);
    assert_eq!((seen.fault, seen.kind, seen.trace_id), (None, Some(TraceKind::SocketBuffered), 79));
    assert!(seen.read_truncated && seen.write_truncated);
    let lengths: Vec<_> = seen.events.iter().map(|event| (event.kind, event.payload.len(), event.truncated)).collect();
    assert_eq!(lengths, [(EventKind::Read, 100, true), (EventKind::Write, 200, true)]);
    assert!(seen.events[0].payload.starts_with(b"\0\0\x027\0\0\x02\xe2\xe6\xbf\x9dH"));
}

#[test]
fn reads_a_streamed_http_trace() {
    let (seen, unknown) = read_counting(HTTP);
    assert_eq!(unknown, []);
    assert!(seen.iter().all(|seen| seen.kind == Some(TraceKind::HttpStreamed) && seen.fault.is_none()));
    assert_eq!(seen.len(), HTTP.windows(6).filter(|six| six == b"\nhttp_").count() + 1);
    assert!(seen.iter().all(|seen| seen.http.len() == 1 && seen.trace_id != 0));
    assert_eq!(seen[0].http[0].headers[1], (b":path".to_vec(), b"/echo".to_vec()));
    assert!(seen[1].http[0].payload.starts_with(b"payload line\n"));
}

/// The fast path reads the first piece of the event. A second piece must not become another event.
#[test]
fn an_event_in_two_pieces_is_one() {
    let at = STREAMED.windows(9).position(|part| part == b"  event {").unwrap();
    let start = STREAMED[..at].iter().rposition(|byte| *byte == b's').unwrap();
    let start = STREAMED[..=start].windows(8).rposition(|part| part == b"\nsocket_").unwrap() + 1;
    let segment = &STREAMED[start..];
    let end = segment.windows(3).position(|part| part == b"\n}\n").unwrap() + 1;
    let first = only(&segment[..end + 1]);
    let more = b"  event { write { } timestamp { nanos: 9 } }\n}";
    let both = only([&segment[..end], more].concat());
    let time = first.events[0].time.unwrap();
    let event = SeenEvent {
        kind: EventKind::Write,
        time: Some(time - time % 1_000_000_000 + 9),
        payload: Vec::new(),
        ..first.events[0].clone()
    };
    assert_eq!(both.events, [event]);
}

#[test]
fn header_lists_and_raw_values_of_http_are_read() {
    for list in [
        "headers { key: 'a' value: '' raw_value: '\\000\\xff' } headers < key: \"b\" value: 'c' raw_value: 'd' >",
        "headers [{ key: 'a' raw_value: '\\0\\377' }, { raw_value: 'd' key: 'b' value: 'c' }]",
    ] {
        for text in [
            format!("http_streamed_trace_segment {{ response_trailers {{ {list} }} }}"),
            format!("http_buffered_trace {{ response {{ {} }} }}", list.replace("headers", "trailers")),
        ] {
            let seen = only(&text);
            assert_eq!((seen.fault, seen.http.len()), (None, 1), "{text}");
            let piece = &seen.http[0];
            assert_eq!((piece.side, piece.part), (HttpSide::Response, HttpPart::Trailers));
            let pair = |key: &[u8], value: &[u8]| (key.to_vec(), value.to_vec());
            assert_eq!(piece.headers, [pair(b"a", b"\0\xff"), pair(b"b", b"c")], "{text}");
        }
    }
}

#[test]
fn damage_in_an_http_trace_keeps_what_came_before() {
    let seen = read("http_buffered_trace { request { body { as_bytes: \"\\q\" } } } http_buffered_trace {}");
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[0].fault(), (50, Code::Undecodable, "\"\\\\q\" is not an escape sequence"));
    assert_eq!((seen[0].kind, seen[1].kind), (Some(TraceKind::HttpBuffered), Some(TraceKind::HttpBuffered)));
    let cut = only("http_buffered_trace { request { headers { key: 'a' value: 'b' } headers { key: 'c' value: 'd");
    assert_eq!((cut.http.len(), cut.http[0].headers.len(), cut.cut), (1, 1, true));
    let cut = only("http_streamed_trace_segment { request_body_chunk { as_bytes: 'abc");
    assert_eq!((cut.http[0].payload.as_slice(), cut.http[0].truncated), (&b"abc"[..], true));
    assert_eq!(only("http_streamed_trace_segment { request_body_chunk { as_bytes: '").http, []);
}

#[test]
fn blanks_and_comments_give_no_message() {
    for text in ["", " \n\t\r\x0b\x0c", "# only this", "#\n# and this\n", "  # no line feed {"] {
        assert_eq!(read(text), [], "{text:?}");
    }
    let mut decoder = TextDecoder::default();
    let step = decoder.step(b"  # a comment that", false, &mut Message::default());
    assert_eq!(step, Step::NeedMore { skip: 18, wanted: 1 });
    let step = decoder.step(b" goes on {\n\n", false, &mut Message::default());
    assert_eq!(step, Step::NeedMore { skip: 12, wanted: 1 });
}

#[test]
fn each_oneof_field_is_a_message_and_others_are_skipped() {
    let text = "socket_streamed_trace_segment{trace_id:1}configured_sample_rate{numerator:100 denominator:MILLION};\n\
                later: 1, latest { socket_buffered_trace {} } socket_streamed_trace_segment{trace_id:2};\
                socket_buffered_trace{trace_id:3} later: 'a' # the end";
    let (seen, unknown) = read_counting(text);
    let parts: Vec<_> = seen.iter().map(|seen| (&text[seen.start..seen.end], seen.trace_id)).collect();
    assert_eq!(
        parts,
        [
            ("socket_streamed_trace_segment{trace_id:1}", 1),
            ("socket_streamed_trace_segment{trace_id:2}", 2),
            ("socket_buffered_trace{trace_id:3}", 3),
        ]
    );
    assert!(seen.iter().all(|seen| seen.fault.is_none()), "{seen:?}");
    let name = |name: &str, count| ("TraceWrapper", FieldId::Name(name.into()), count);
    assert_eq!(unknown, [name("later", 2), name("latest", 1)]);
}

#[test]
fn fields_outside_the_oneof_give_no_message() {
    let text = "configured_sample_rate { numerator: 1 } socket_buffered_trace { trace_id: 4 }";
    let seen = only(text);
    assert_eq!((&text[seen.start..], seen.trace_id, seen.fault), ("socket_buffered_trace { trace_id: 4 }", 4, None));
    assert_eq!(read("configured_sample_rate { numerator: 1 }"), []);
    assert_eq!(read("configured_sample_rate { numerator: 1 },"), []);
    for text in ["later: 1", "later: 'a' \"b\"", "later [{ a: 1 }, <>]"] {
        let (seen, unknown) = read_counting(text);
        assert_eq!((seen, unknown.len()), (Vec::new(), 1), "{text}");
    }
    let seen = read("socket_buffered_trace { trace_id: 4 };; socket_buffered_trace { trace_id: 5 }");
    assert_eq!(seen.iter().map(|seen| seen.trace_id).collect::<Vec<_>>(), [4, 0, 5]);
    assert_eq!(seen[1].fault(), (38, Code::TextAround, ""));
}

#[test]
fn a_message_is_over_with_its_closing_brace() {
    let text = b"socket_buffered_trace { } configured_sample_rate { } socket_buffered_trace { }";
    let (mut decoder, mut out) = (TextDecoder::default(), Message::default());
    for end in 1..=24 {
        let step = decoder.step(&text[..end], false, &mut out);
        assert_eq!(step, Step::NeedMore { skip: 0, wanted: end + 1 });
    }
    assert_eq!(decoder.step(&text[..25], false, &mut out), Step::Message { start: 0, end: 25 });
    // The sample rate is skipped as it arrives, and the next message is complete at its last byte.
    let (mut from, mut messages) = (25, Vec::new());
    for end in 25..=text.len() {
        out.clear();
        match decoder.step(&text[from..end], false, &mut out) {
            Step::NeedMore { skip, .. } => from += skip,
            step => messages.push((from, end, step)),
        }
    }
    assert_eq!(messages, [(53, 78, Step::Message { start: 0, end: 25 })]);
}

#[test]
fn fields_between_messages_are_not_collected() {
    let (mut decoder, mut out) = (TextDecoder::default(), Message::default());
    let text = b"later: [1, 2], ".repeat(10_000);
    let (mut from, mut longest) = (0, 0);
    for end in (0..=text.len()).step_by(100) {
        longest = longest.max(end - from);
        match decoder.step(&text[from..end], end == text.len(), &mut out) {
            Step::NeedMore { skip, .. } => from += skip,
            step => assert_eq!((step, end), (Step::End, text.len())),
        }
    }
    assert!(longest < 300, "{longest} bytes waited for");
    assert_eq!(out.unknown.total(), 10_000);
}

#[test]
fn a_name_as_a_value_starts_no_message() {
    let text = "later: socket_buffered_trace\n".repeat(50) + "x: [\nhttp_buffered_trace,\nhttp_buffered_trace]";
    let (seen, unknown) = read_counting(&text);
    assert_eq!(seen, []);
    assert_eq!(unknown.iter().map(|(.., count)| count).sum::<u64>(), 51);
}

#[test]
fn every_way_to_write_a_message_is_read() {
    for text in [
        "read { data { as_bytes: 'x' } }",
        "read: { data: { as_bytes: 'x' } }",
        "read < data < as_bytes: 'x' > >",
        "read:<data:{as_bytes:'x'}>",
        "read { data { as_bytes: 'x'; truncated: false, }; },",
        "read\n{ # } \"\ndata# '\n{as_bytes #\n:\t'x'\r\n}\x0b}\x0c",
    ] {
        let event = event(text);
        assert_eq!((event.kind, event.payload), (EventKind::Read, b"x".to_vec()), "{text}");
    }
}

#[test]
fn lists_of_messages_are_read() {
    for events in [
        "events { seq_num: 1 } events { seq_num: 2 }",
        "events: [ { seq_num: 1 }, < seq_num: 2 > ]",
        "events [{seq_num:1},{seq_num:2}]",
        "events: [], events: [ {seq_num: 1} ]; events: {seq_num: 2}",
    ] {
        for text in [
            format!("socket_buffered_trace {{ {events} }}"),
            format!("socket_streamed_trace_segment {{ events {{ {events} }} }}"),
        ] {
            let seen = only(&text);
            assert_eq!(seen.fault, None, "{text}");
            assert_eq!(seen.events.iter().map(|event| event.seq_num).collect::<Vec<_>>(), [1, 2], "{text}");
        }
    }
    for (text, at, detail) in [
        ("socket_buffered_trace { events: [{},] }", 36, "expected a value, found \"]\""),
        ("socket_buffered_trace { events: [{} {}] }", 36, "expected ',' or ']', found \"{\""),
        ("socket_buffered_trace { events: [1] }", 33, "expected '{', found \"1\""),
        ("socket_buffered_trace { connection: [{}] }", 36, "expected '{', found \"[\""),
    ] {
        assert_eq!(only(text).fault(), (at, Code::Undecodable, detail), "{text}");
    }
}

#[test]
fn string_literals_are_unescaped() {
    assert_eq!(payload("''"), b"");
    assert_eq!(payload("\"it's\""), b"it's");
    assert_eq!(payload("'say \"so\"'"), b"say \"so\"");
    assert_eq!(payload(r#""\a\b\f\n\r\t\v\?\\\'\"""#), b"\x07\x08\x0c\n\r\t\x0b?\\'\"");
    assert_eq!(payload(r#""\0\00\0000\18\1234\377""#), b"\0\0\x000\x018S4\xff");
    assert_eq!(payload(r#""\x0\xaB\x414\X7e""#), b"\0\xabA4~");
    assert_eq!(payload(r#""\u00e9\u20aC\U0001F600\ud83d\ude00""#), "\u{e9}\u{20ac}\u{1f600}\u{1f600}".as_bytes());
    assert_eq!(payload("'a' \"b\"'c'\n# and\n'\\x64'"), b"abcd");
    assert_eq!(payload("'a\\n' 'b' ''"), b"a\nb");
    assert_eq!(payload("'{ } # < > [ ]'"), b"{ } # < > [ ]");
    let raw = b"socket_buffered_trace{events{read{data{as_bytes:'\x80\xff\0\t\r'}}}}";
    assert_eq!(only(raw).payloads(), [b"\x80\xff\0\t\r"]);
}

#[test]
fn long_strings_of_any_mixture_of_escapes_are_unescaped() {
    for period in 1..20 {
        for escape in [r"\n", r"\007", r#"\""#, r"\xff", r"\7", r"\u00e9"] {
            let (mut text, mut bytes) = (String::new(), Vec::new());
            for index in 0..1500 {
                if index % period == 0 {
                    text.push_str(escape);
                    bytes.extend(payload(&format!("'{escape}'")));
                } else {
                    text.push('x');
                    bytes.push(b'x');
                }
            }
            let text = format!("socket_buffered_trace{{events{{read{{data{{as_bytes:\"{text}\"}}}}}}}}");
            assert_eq!(read_fed(text.as_bytes(), 1000).0[0].payloads(), [bytes], "{escape} every {period}");
        }
    }
}

#[test]
fn a_payload_without_escapes_is_not_copied() {
    let text = b"\n socket_buffered_trace{events{read{data{as_bytes:'abc'}}}}";
    let mut out = Message::default();
    assert_eq!(TextDecoder::default().step(text, true, &mut out), Step::Message { start: 2, end: text.len() });
    assert_eq!(out.events[0].body.payload, Span::in_window(51, 3));
}

#[test]
fn a_bad_escape_is_shown_at_its_byte() {
    for (literal, at, detail) in [
        (r"'\q'", 1, r#""\\q" is not an escape sequence"#),
        (r"'\400'", 1, r#""\\400" is not an escape sequence"#),
        (r"'\xg'", 1, r#""\\x" is not an escape sequence"#),
        (r"'\u123'", 1, r#""\\u123" is not an escape sequence"#),
        (r"'\ud800'", 1, r#""\\ud800" is not an escape sequence"#),
        (r"'\ud800\u0041'", 1, r#""\\ud800\\u0041" is not an escape sequence"#),
        (r"'\udc00'", 1, r#""\\udc00" is not an escape sequence"#),
        (r"'\U00110000'", 1, r#""\\U00110000" is not an escape sequence"#),
        ("'a\n'", 2, "a string is not closed on its line"),
        ("'\\n\n'", 3, "a string is not closed on its line"),
        ("'\\\n'", 1, r#""\\\n" is not an escape sequence"#),
        ("abc", 0, "expected a string, found \"abc\""),
        ("['a']", 0, "expected a string, found \"[\""),
    ] {
        let before = "read { data { as_bytes: ";
        let expected = (before.len() + at, detail.to_string());
        assert_eq!(fault(&format!("{before}{literal} }} }}")), expected, "{literal}");
    }
}

#[test]
fn integers_of_every_base_are_read_within_their_range() {
    for (text, value) in [
        ("0", 0),
        ("-0", 0),
        ("42", 42),
        ("052", 42),
        ("0x2a", 42),
        ("0X2A", 42),
        ("18446744073709551615", u64::MAX),
        ("0xffffffffffffffff", u64::MAX),
        ("01777777777777777777777", u64::MAX),
    ] {
        assert_eq!(event(&format!("seq_num: {text}")).seq_num, value, "{text}");
    }
    for (text, detail) in [
        ("08", "expected an integer, found \"08\""),
        ("0x", "expected an integer, found \"0x\""),
        ("1a", "expected an integer, found \"1a\""),
        ("1.0", "expected an integer, found \"1\""),
        ("1e3", "expected an integer, found \"1e3\""),
        ("\"1\"", "expected an integer, found \"\\\"\""),
        ("abcdefghijklmnopqrstuvwxyz", "expected an integer, found \"abcdefghijklmnopqrst\""),
        ("-1", "-1 does not fit an unsigned 64-bit field"),
        ("18446744073709551616", "18446744073709551616 does not fit an unsigned 64-bit field"),
        ("{}", "expected an integer, found \"{\""),
    ] {
        assert_eq!(fault(&format!("seq_num: {text}")), (9, detail.into()), "{text}");
    }
    assert_eq!(fault("seq_num 1"), (8, "expected ':', found \"1\"".into()));
}

#[test]
fn bools_are_read_in_every_spelling() {
    for (text, value) in [
        ("true", true),
        ("True", true),
        ("t", true),
        ("1", true),
        ("0x1", true),
        ("false", false),
        ("False", false),
        ("f", false),
        ("0", false),
    ] {
        assert_eq!(event(&format!("write {{ end_stream: {text} }}")).end_stream, value, "{text}");
    }
    assert_eq!(fault("write { end_stream: TRUE }"), (20, "expected a bool, found \"TRUE\"".into()));
    assert_eq!(fault("write { end_stream: 2 }"), (20, "expected a bool, found 2".into()));
}

#[test]
fn times_are_read_and_bad_ones_reported() {
    assert_eq!(event("timestamp { seconds: 1 nanos: 2 }").time, Some(1_000_000_002));
    assert_eq!(event("timestamp { }").time, Some(0));
    assert_eq!(event("").time, None);
    let bad = |fields: &str| {
        let text = format!(
            "socket_buffered_trace {{ events {{ timestamp {{ {fields} }} }} events {{ timestamp {{ nanos: -7 }} }} }}"
        );
        let seen = only(text);
        assert_eq!(seen.fault, None);
        assert_eq!((seen.events[0].time, seen.events[1].time), (None, None));
        seen.bad_time
    };
    assert_eq!(bad("seconds: -1"), Some(TimeError::OutOfRange(-1)));
    assert_eq!(bad("nanos: 1000000000"), Some(TimeError::BadNanos(1_000_000_000)));
    assert_eq!(bad("seconds: 99999999999999999999"), Some(TimeError::OutOfRange(i64::MAX)));
    assert_eq!(bad("seconds: -99999999999999999999"), Some(TimeError::OutOfRange(i64::MIN)));
}

#[test]
fn every_field_of_an_event_is_read() {
    let text = event(
        "timestamp { seconds: 1 } write { data { as_string: 'a' truncated: true } end_stream: true } \
         connection { remote_address { pipe { path: '/x' } } } seq_num: 3",
    );
    assert_eq!(
        text,
        SeenEvent {
            time: Some(1_000_000_000),
            kind: EventKind::Write,
            payload: b"a".to_vec(),
            truncated: true,
            as_string: true,
            end_stream: true,
            seq_num: 3,
            connection: Some(Connection { local: None, remote: Some(Address::Pipe("/x".into())) }),
        }
    );
    assert_eq!(event("closed {}").kind, EventKind::Closed);
    assert_eq!(event("").kind, EventKind::Absent);
}

#[test]
fn the_last_of_a_oneof_counts() {
    let last =
        event("write { data { as_bytes: 'a' } end_stream: true } read { data { as_string: 'b' as_bytes: 'c' } }");
    assert_eq!(
        (last.kind, last.payload, last.as_string, last.end_stream),
        (EventKind::Read, b"c".to_vec(), false, false)
    );
    assert_eq!(event("read { data { as_bytes: 'a' } } closed {}").payload, b"");
    let twice = event("connection { } connection { local_address { pipe { path: 'p' } } }");
    assert_eq!(twice.connection.and_then(|connection| connection.local), Some(Address::Pipe("p".into())));
    assert_eq!(
        connection_of("local_address { pipe { path: 'p' } socket_address { port_value: 1 named_port: 'x' } }").local,
        socket("", None)
    );
}

#[test]
fn every_kind_of_address_is_read() {
    let connection = connection_of(
        "local_address { socket_address { protocol: UDP address: '::1' port_value: 443 resolver_name: 'r' \
         ipv4_compat: true network_namespace_filepath: '/n' } } \
         remote_address { envoy_internal_address { server_listener_name: 'l' endpoint_id: '\\145' } }",
    );
    assert_eq!(connection.local, socket("::1", Some(443)));
    assert_eq!(connection.remote, Some(Address::Internal { listener: "l".into(), endpoint: "e".into() }));
    assert_eq!(
        connection_of("local_address { pipe { path: '@a' mode: 0644 } }").local,
        Some(Address::Pipe("@a".into()))
    );
    assert_eq!(connection_of("local_address { }"), Connection::default());
    assert_eq!(connection_of("local_address { socket_address { named_port: 'http' } }").local, socket("", None));
    assert_eq!(connection_of("local_address { pipe { path: '\\377' } }").local, Some(Address::Pipe("\u{fffd}".into())));
}

#[test]
fn ports_keep_what_32_bits_hold() {
    for (text, port) in
        [("0", 0), ("70000", 70000), ("4294967295", u32::MAX), ("4294967296", u32::MAX), ("-1", u32::MAX)]
    {
        let connection = connection_of(&format!("local_address {{ socket_address {{ port_value: {text} }} }}"));
        assert_eq!(connection.local, socket("", Some(port)), "{text}");
    }
}

#[test]
fn unknown_fields_are_skipped_and_counted() {
    for value in [
        ": 1",
        ": - 1",
        ": -1.5e-3f",
        ": .5",
        ": 1.",
        ": 10F",
        ": 0x1F",
        ": 017",
        ": inf",
        ": -nan",
        ": WORD_2",
        ": 'a' \"b\\n\"",
        ": [1, 2.5, x]",
        ": []",
        " []",
        ": ['a' 'b', 'c']",
        " { a: 1 b { c: 'x}' } }",
        ": { }",
        " < a < > >",
        " [{ a: 1 }, <>]",
        ": [{ [x.y]: 1, 7: 2; }]",
    ] {
        for name in ["later", "[type.googleapis.com/a.b-c]", "_x9"] {
            let text = format!("socket_buffered_trace {{ {name}{value} events {{ {name}{value}; seq_num: 5 }} }}");
            let (seen, unknown) = read_counting(&text);
            assert_eq!(seen[0].fault, None, "{text}");
            assert_eq!(seen[0].events[0].seq_num, 5, "{text}");
            let name = |message| (message, FieldId::Name(name.into()), 1);
            assert_eq!(unknown, [name("SocketBufferedTrace"), name("SocketEvent")], "{text}");
        }
    }
    for (value, detail) in [
        (" 1", "expected ':' or '{', found \"1\""),
        (" [1]", "expected ':' or '{', found \"1\""),
        (": 1x", "expected a value, found \"1x\""),
        (": 08", "expected a value, found \"08\""),
        (": 01.5", "expected a value, found \"01\""),
        (": 1e", "expected a value, found \"1e\""),
        (": .", "expected a value, found \".\""),
        (": - 'a'", "expected a value, found \"\\'\""),
        (": ,", "expected a value, found \",\""),
        (": [1,]", "expected a value, found \"]\""),
        (": '\\q'", "\"\\\\q\" is not an escape sequence"),
    ] {
        assert_eq!(fault(&format!("later{value}")).1, detail, "{value}");
    }
}

#[test]
fn unknown_fields_are_counted_with_the_message_that_holds_them() {
    let text = "z: 0 socket_buffered_trace { z: 0 connection { z: 0 local_address { z: 0 socket_address { z: 0 } \
                pipe { z: 0 } envoy_internal_address { z: 0 } } } events { z: 0 timestamp { z: 0 } \
                read { z: 0 data { z: 0 } } write { z: 0 } closed { z: 0 } 77: 0 } } \
                socket_streamed_trace_segment { z: 0 events { z: 0 } }";
    let (seen, unknown) = read_counting(text);
    assert!(seen.iter().all(|seen| seen.fault.is_none()));
    let mut names: Vec<_> = unknown.iter().map(|(message, ..)| *message).collect();
    let number = unknown.iter().filter(|unknown| **unknown == ("SocketEvent", FieldId::Number(77), 1)).count();
    assert_eq!(number, 1);
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 15, "{names:?}");
    assert!(unknown.iter().all(|(.., count)| *count == 1), "{unknown:?}");
}

#[test]
fn a_bad_field_name_is_shown_at_its_byte() {
    assert_eq!(fault(": 1"), (0, "expected a field name or '}', found \":\"".into()));
    assert_eq!(fault("7a: 1"), (0, "expected a field name, found \"7a\"".into()));
    assert_eq!(fault(", closed {}"), (0, "expected a field name or '}', found \",\"".into()));
    assert_eq!(fault("closed {},, "), (10, "expected a field name or '}', found \",\"".into()));
    assert_eq!(fault("[] { }"), (1, "expected the name of an extension, found \"]\"".into()));
    assert_eq!(fault("[a{}] { }"), (2, "expected the name of an extension, found \"{\"".into()));
    assert_eq!(fault("closed < }"), (9, "expected a field name or '>', found \"}\"".into()));
    assert_eq!(fault("\u{e9}: 1"), (0, "expected a field name or '}', found \"\\xc3\"".into()));
}

#[test]
fn nesting_is_limited_to_a_hundred_messages() {
    let deep = |depth: usize| {
        format!(
            "socket_buffered_trace {{ {}{} }} socket_buffered_trace {{ trace_id: 8 }}",
            "x{".repeat(depth),
            "}".repeat(depth)
        )
    };
    assert_eq!(read(deep(99))[0].fault, None);
    for depth in [100, 10_000] {
        let text = deep(depth);
        let (seen, _) = read_fed(text.as_bytes(), text.len());
        assert_eq!(seen, read_fed(text.as_bytes(), 4096).0);
        assert_eq!(seen[0].fault(), (223, Code::Undecodable, "messages are nested more than 100 deep"));
        assert_eq!((seen.len(), seen[1].trace_id), (2, 8));
    }
    let (seen, _) = read_fed(format!("0: 0 {}", "1: [".repeat(10_000)).as_bytes(), 4096);
    assert_eq!(seen[0].fault(), (10, Code::Undecodable, "expected ',' or ']', found \":\""));
    let (seen, _) = read_fed("1 [<".repeat(10_000).as_bytes(), 4096);
    assert_eq!(seen[0].fault(), (403, Code::Undecodable, "messages are nested more than 100 deep"));
}

#[test]
fn damage_ends_at_the_next_message() {
    let good = "socket_buffered_trace { trace_id: 8 }";
    for bad in [
        "socket_buffered_trace { events { seq_num: 1 } events { ! } }",
        "socket_buffered_trace { events { seq_num: 1 } events { seq_num: 'x } \"y' } }",
        "socket_buffered_trace { events { seq_num: 1 } events { later: 'x\n } }",
        "socket_buffered_trace { events { seq_num: 1 } > \n # '\n",
    ] {
        let text = format!("{bad} {good}");
        let seen = read(&text);
        assert_eq!(seen.len(), 2, "{text}");
        assert!(seen[0].fault.is_some() && !seen[0].cut, "{text}");
        assert_eq!(seen[0].end, seen[1].start, "{text}");
        assert_eq!(seen[0].events.iter().map(|event| event.seq_num).collect::<Vec<_>>(), [1], "{text}");
        assert_eq!((seen[1].trace_id, &seen[1].fault), (8, &None), "{text}");
        assert_eq!(only(bad).end, bad.len());
    }
    let whole = "socket_buffered_trace { events { seq_num: 1 } }";
    for bad in ["}", "configured_sample_rate { numerator: }", "noise from a log, with an apostrophe: it's this\n"] {
        let text = format!("{whole} {bad} {good}");
        let seen = read(&text);
        assert_eq!(seen.len(), 3, "{text}");
        assert_eq!((seen[0].events.len(), &seen[0].fault, seen[0].end), (1, &None, whole.len()), "{text}");
        assert!(seen[1].fault.is_some() && !seen[1].cut && seen[1].kind.is_none(), "{text}");
        assert_eq!((seen[1].start, seen[1].end), (whole.len() + 1, seen[2].start), "{text}");
        assert_eq!((seen[2].trace_id, &seen[2].fault), (8, &None), "{text}");
    }
    for noise in ["}", "{", "\"", "!", "\0", "1socket_buffered_trace", "socket_buffered_trace"] {
        let text = format!("{noise}\n{good}");
        let seen = read(&text);
        let last = seen.last().expect("a message");
        assert_eq!((last.trace_id, &last.fault), (8, &None), "{text}");
    }
}

#[test]
fn a_message_that_is_never_closed_does_not_swallow_the_next() {
    let bad = "socket_streamed_trace_segment {\n  event {\n    seq_num: 1\n  }\n  later {\n    x: 1\n";
    for bad in [bad, &format!("{bad}  }}\n"), &format!("{bad}    ! {{\n")] {
        let text = format!("{bad}socket_streamed_trace_segment {{\n  trace_id: 2\n}}\n");
        let seen = read(&text);
        assert_eq!(seen.len(), 2, "{text}");
        assert_eq!((seen[0].events.len(), seen[0].end), (1, bad.len()));
        assert_eq!((seen[1].trace_id, &seen[1].fault), (2, &None));
    }
    let text = format!("{bad}socket_streamed_trace_segment {{}}");
    let detail = "expected the end of the previous message, found \"socket_streamed_trac\"";
    assert_eq!(read(text)[0].fault(), (bad.len(), Code::Undecodable, detail));
}

#[test]
fn a_cut_keeps_what_was_readable() {
    let cut = |fields: &str| {
        let text = format!("socket_buffered_trace {{ events {{ seq_num: 1 }} events {{ {fields}");
        let mut seen = only(&text);
        assert_eq!(seen.fault(), (text.len(), Code::CutOff, "the text ends inside a message"), "{text}");
        assert!(seen.cut);
        assert_eq!(seen.end, text.len());
        assert_eq!(seen.events.remove(0).seq_num, 1);
        seen.events
    };
    let half = |fields: &str| {
        let mut events = cut(fields);
        assert_eq!(events.len(), 1, "{fields}");
        let event = events.remove(0);
        (event.payload, event.truncated, event.seq_num)
    };
    assert_eq!(cut(""), []);
    assert_eq!(cut("seq_num: 12"), []);
    assert_eq!(cut("connection { } seq_num: 12 "), []);
    assert_eq!(cut("read { data { as_bytes: "), []);
    assert_eq!(cut("read { data { as_bytes: '"), []);
    assert_eq!(half("read { data { as_bytes: 'abc"), (b"abc".to_vec(), true, 0));
    assert_eq!(half("seq_num: 7 read { data { as_bytes: 'a\\n"), (b"a\n".to_vec(), true, 7));
    for escape in [r"\", r"\0", r"\01", r"\x", r"\x1", r"\u012", r"\ud83d", r"\ud83d\", r"\ud83d\ude0", r"\U0001F60"] {
        assert_eq!(
            half(&format!("read {{ data {{ as_bytes: 'a\\001{escape}")),
            (b"a\x01".to_vec(), true, 0),
            "{escape}"
        );
    }
    assert_eq!(half("read { data { as_bytes: 'a' 'b"), (b"ab".to_vec(), true, 0));
    assert_eq!(half("read { data { as_bytes: 'a'"), (b"a".to_vec(), false, 0));
    assert_eq!(half("read { data { as_bytes: 'a' truncated: tru"), (b"a".to_vec(), false, 0));
    assert_eq!(half("read { data { as_bytes: 'a' } } seq_num: 12"), (b"a".to_vec(), false, 0));
    assert_eq!(half("read { data { as_bytes: 'a' } } seq_num: 12 "), (b"a".to_vec(), false, 12));
    assert_eq!(half("read { data { as_bytes: 'a' } } timestamp { seconds: 1 "), (b"a".to_vec(), false, 0));
}

#[test]
fn a_cut_in_the_next_name_is_not_in_this_message() {
    let seen = read("socket_buffered_trace { trace_id: 8 } socket_stre");
    assert_eq!(seen.len(), 2);
    assert_eq!((seen[0].trace_id, &seen[0].fault, seen[0].end), (8, &None, 37));
    assert_eq!((seen[1].start, seen[1].kind, seen[1].cut), (38, None, true));
    let seen = read("socket_buffered_trace { trace_id: 8 } configured_sam");
    assert_eq!((seen.len(), seen[0].trace_id, &seen[0].fault), (2, 8, &None));
    assert_eq!((seen[1].start, seen[1].kind, seen[1].cut, seen[1].fault().1), (38, None, true, Code::CutOff));
    assert_eq!(read("socket_buffered_trace { } # and then").len(), 1);
}

#[test]
fn truncation_at_every_byte_keeps_the_events_before_it() {
    for text in [STREAMED, BUFFERED, HTTP] {
        let whole = read_fed(text, text.len()).0;
        let all: Vec<_> = whole.iter().flat_map(|seen| &seen.events).collect();
        // An event is complete after its closing brace, which is indented by two columns.
        let is_buffered = whole[0].kind == Some(TraceKind::SocketBuffered);
        let closed = |end: usize| {
            let lines = str::from_utf8(&text[..end]).expect("these traces are ASCII").split('\n');
            let mut open = false;
            let mut count = 0;
            for line in lines {
                open |= line == "  event {" || line == "  events {";
                if open && line == "  }" {
                    (open, count) = (false, count + 1);
                }
            }
            count
        };
        for end in 0..text.len() {
            let seen = read_fed(&text[..end], 4096).0;
            let events: Vec<_> = seen.iter().flat_map(|seen| &seen.events).collect();
            let complete = closed(end);
            assert!(events.len() == complete || events.len() == complete + 1, "cut at {end}");
            assert!(events.iter().zip(&all).take(complete).all(|(event, whole)| event == whole), "cut at {end}");
            if let Some(half) = events.get(complete) {
                assert!(all[complete].payload.starts_with(&half.payload), "cut at {end}");
                assert!(half.truncated || half.payload == all[complete].payload, "cut at {end}");
            }
            let (last, before) = seen.split_last().map_or((None, &seen[..]), |(last, before)| (Some(last), before));
            assert!(before.iter().all(|seen| seen.fault.is_none()), "cut at {end}");
            let at_brace = text[..end].trim_ascii_end().ends_with(b"\n}");
            assert_eq!(last.is_some_and(|last| last.cut), end > 0 && !at_brace, "cut at {end}");
            assert!(!is_buffered || seen.len() <= 1);
        }
    }
}

#[test]
fn the_fast_path_reads_what_envoy_writes() {
    let traces: [&[u8]; 4] = [
        STREAMED,
        BUFFERED,
        include_bytes!("../../../testdata/envoy/1.40.0/trunc_str_PROTO_TEXT_170.pb_text"),
        include_bytes!("../../../testdata/envoy/1.36.2/h2_str_PROTO_TEXT_177.pb_text"),
    ];
    for trace in traces {
        for feed in [1, 100, trace.len()] {
            assert_fast_and_general_agree(trace, feed);
        }
        let mut out = Message::default();
        let is_read = |event: &SeenEvent| matches!(event.kind, EventKind::Read | EventKind::Write);
        let payloads = read(trace).iter().map(|seen| seen.events.iter().filter(|event| is_read(event)).count()).sum();
        let mut found = 0;
        for start in memchr::memmem::find_iter(trace, b"socket_streamed") {
            found += usize::from(matches!(fast::segment(trace, start, &mut out), FastText::Read(..)));
            out.clear();
        }
        for start in memchr::memmem::find_iter(trace, b"\n  events {") {
            found += usize::from(matches!(fast::event(trace, start + 11, &mut out), FastText::Read(..)));
        }
        assert_eq!((found, found > 0), (payloads, true));
    }
}

#[test]
fn the_fast_path_leaves_damage_to_the_parser() {
    let before = "socket_streamed_trace_segment {\n  trace_id: 1\n  event {\n    timestamp {\n      seconds: 1\n      \
        nanos: 5\n    }\n    write {\n      data {\n        as_bytes: ";
    let after = "\n      }\n      end_stream: true\n    }\n    seq_num: 7\n  }\n}\n".repeat(2);
    for literal in [
        "\"abc\"",
        "\"a\\377\"",
        "\"a\\\"",
        "\"a\\477\"",
        "\"a\"b\"",
        "\"a\\n\"\"b\"",
        "\"a",
        "'a\"",
        "\"a\\q\"",
        "\"\" # \"",
    ] {
        let text = format!("{before}{literal}{after}");
        for feed in 1..text.len() {
            assert_fast_and_general_agree(text.as_bytes(), feed);
            assert_fast_and_general_agree(&text.as_bytes()[..feed], feed);
        }
    }
}

#[test]
fn the_fast_path_counts_the_fields_of_a_newer_envoy() {
    let segment = |more: &str| {
        format!(
            "socket_streamed_trace_segment {{\n  trace_id: 1\n  event {{\n    timestamp {{\n      seconds: 1\n    }}\n    \
             read {{\n      data {{\n        as_bytes: \"abc\"\n      }}\n    }}\n    seq_num: 7{more}\n  }}\n}}\n"
        )
    };
    let more = "\n    later: 1\n    kind: LATER\n    name: \"a b\"";
    let is_fast = |text: &str| {
        let outcome = fast::segment(text.as_bytes(), 0, &mut Message::default());
        matches!(outcome, FastText::Read((), end, Some(_)) if end == text.len() - 1)
    };
    assert!(is_fast(&segment(more)));
    let (seen, unknown) = read_counting(segment(more).repeat(3));
    assert_eq!((seen.len(), unknown.iter().map(|(_, _, count)| *count).collect::<Vec<_>>()), (3, vec![3, 3, 3]));
    // The fast path leaves known fields and other kinds of values to the parser.
    for other in ["\n    seq_num: 8", "\n    later: 1.5", "\n    later: 'a'", "\n    later { }", "\n    7: 1"] {
        assert!(!is_fast(&segment(other)), "{other}");
        let text = [segment(more), segment(other), segment(more)].concat();
        for feed in 1..text.len() {
            assert_fast_and_general_agree(text.as_bytes(), feed);
        }
    }
    let text = segment(more);
    for at in 0..more.len() {
        for to in *b"\0\n\"\\ :a1.{}[]#'-" {
            let mut changed = [text.as_str(), &text].concat().into_bytes();
            let begin = text.find("\n    later").unwrap();
            changed[begin + at] = to;
            assert_fast_and_general_agree(&changed, changed.len());
        }
    }
}

#[test]
fn the_parser_goes_on_after_an_event_of_the_fast_path() {
    let event = "  events {\n    timestamp {\n      seconds: 1\n    }\n    read {\n      data {\n        as_bytes: \"a\"\n      }\n    }\n  }";
    for after in [
        "\n}",
        " q }\n} socket_buffered_trace { trace_id: 9 } \"",
        ", read_truncated: true\n}",
        "; }",
        ",, }",
        "\n}\n}\n",
        " q",
        " events {}",
        "\n  trace_id: x\n}",
    ] {
        let next = "\nsocket_buffered_trace {\n  trace_id: 8\n}\n";
        let text = format!("socket_buffered_trace {{\n{event}\n{event}{after}{next}");
        for feed in [1, 50, text.len()] {
            assert_fast_and_general_agree(text.as_bytes(), feed);
        }
        // Without the next message, the source ends here, at whatever depth `after` leaves open.
        assert_fast_and_general_agree(&text.as_bytes()[..text.len() - next.len()], 1000);
    }
}

/// Text as Envoy writes it, with many of the events that the fast path knows.
fn any_envoy_text() -> impl Strategy<Value = Vec<u8>> {
    use tap::socket_event::{Read, Write};
    let body = || {
        (vec(any::<u8>(), 0..100), any::<bool>())
            .prop_map(|(bytes, truncated)| Some(tap::Body { body_type: Some(BodyType::AsBytes(bytes)), truncated }))
    };
    let selector = prop_oneof![
        body().prop_map(|data| EventSelector::Read(Read { data })),
        (body(), any::<bool>()).prop_map(|(data, end_stream)| EventSelector::Write(Write { data, end_stream })),
    ];
    let number = || prop_oneof![0..200_000_u64, any::<u64>()];
    let known = (1..18_000_000_000i64, 0..1_000_000_000i32, selector, number()).prop_map(
        |(seconds, nanos, selector, seq_num)| {
            let timestamp = Some(Timestamp { seconds, nanos });
            tap::SocketEvent { timestamp, event_selector: Some(selector), connection: None, seq_num }
        },
    );
    let event = prop_oneof![9 => known, 1 => any_event()].boxed();
    let streamed = (number(), event.clone()).prop_map(|(trace_id, event)| {
        let message_piece = Some(MessagePiece::Event(event));
        Trace::SocketStreamedTraceSegment(tap::SocketStreamedTraceSegment { trace_id, message_piece })
    });
    let buffered = (number(), vec(event, 0..4)).prop_map(|(trace_id, events)| {
        Trace::SocketBufferedTrace(tap::SocketBufferedTrace { trace_id, events, ..Default::default() })
    });
    vec(prop_oneof![3 => streamed, 1 => buffered], 1..5).prop_map(|traces| {
        let mut text = Vec::new();
        for trace in traces {
            let wrapper = tap::TraceWrapper { trace: Some(trace), configured_sample_rate: None };
            TraceFormat::ProtoText.encode(&wrapper, &mut text);
        }
        text
    })
}

fn trace_text(trace: Trace, options: &FormatOptions) -> String {
    let wrapper = tap::TraceWrapper { trace: Some(trace), configured_sample_rate: None };
    let descriptor = DESCRIPTORS.get_message_by_name("envoy.data.tap.v3.TraceWrapper").expect("it is in proto/");
    let message = DynamicMessage::decode(descriptor, wrapper.encode_to_vec().as_slice()).expect("just encoded");
    message.to_text_format_with_options(options)
}

fn any_address() -> impl Strategy<Value = core::Address> {
    let port =
        prop_oneof![any::<u32>().prop_map(PortSpecifier::PortValue), "[a-z]{0,3}".prop_map(PortSpecifier::NamedPort),];
    let kind = prop_oneof![
        (0..3i32, any::<String>(), of(port), any::<bool>()).prop_map(|(protocol, address, port, ipv4_compat)| {
            let port_specifier = port;
            AddressKind::SocketAddress(core::SocketAddress {
                protocol,
                address,
                port_specifier,
                ipv4_compat,
                ..Default::default()
            })
        }),
        (any::<String>(), any::<u32>()).prop_map(|(path, mode)| AddressKind::Pipe(core::Pipe { path, mode })),
        (any::<String>(), any::<String>()).prop_map(|(listener, endpoint_id)| {
            use core::envoy_internal_address::AddressNameSpecifier::ServerListenerName;
            let address_name_specifier = Some(ServerListenerName(listener));
            AddressKind::EnvoyInternalAddress(core::EnvoyInternalAddress { address_name_specifier, endpoint_id })
        }),
    ];
    of(kind).prop_map(|address| core::Address { address })
}

fn any_connection() -> impl Strategy<Value = tap::Connection> {
    (of(any_address()), of(any_address()))
        .prop_map(|(local_address, remote_address)| tap::Connection { local_address, remote_address })
}

fn any_body() -> impl Strategy<Value = tap::Body> {
    let kind =
        prop_oneof![vec(any::<u8>(), 0..40).prop_map(BodyType::AsBytes), any::<String>().prop_map(BodyType::AsString),];
    (of(kind), any::<bool>()).prop_map(|(body_type, truncated)| tap::Body { body_type, truncated })
}

fn any_event() -> impl Strategy<Value = tap::SocketEvent> {
    use tap::socket_event::{Closed, Read, Write};
    let selector = prop_oneof![
        of(any_body()).prop_map(|data| EventSelector::Read(Read { data })),
        (of(any_body()), any::<bool>()).prop_map(|(data, end_stream)| EventSelector::Write(Write { data, end_stream })),
        Just(EventSelector::Closed(Closed {})),
    ];
    let time = prop_oneof![(0..18_000_000_000i64, 0..1_000_000_000i32), (any::<i64>(), any::<i32>())];
    let timestamp = of(time.prop_map(|(seconds, nanos)| Timestamp { seconds, nanos }));
    (timestamp, of(selector), of(any_connection()), any::<u64>()).prop_map(
        |(timestamp, event_selector, connection, seq_num)| tap::SocketEvent {
            timestamp,
            event_selector,
            connection,
            seq_num,
        },
    )
}

fn any_trace() -> impl Strategy<Value = Trace> {
    let piece = prop_oneof![
        any_connection().prop_map(MessagePiece::Connection),
        any_event().prop_map(MessagePiece::Event),
        vec(any_event(), 0..4).prop_map(|events| MessagePiece::Events(tap::SocketEvents { events })),
    ];
    let streamed = (any::<u64>(), of(piece)).prop_map(|(trace_id, message_piece)| {
        Trace::SocketStreamedTraceSegment(tap::SocketStreamedTraceSegment { trace_id, message_piece })
    });
    let buffered = (any::<u64>(), of(any_connection()), vec(any_event(), 0..4), any::<bool>(), any::<bool>()).prop_map(
        |(trace_id, connection, events, read_truncated, write_truncated)| {
            Trace::SocketBufferedTrace(tap::SocketBufferedTrace {
                trace_id,
                connection,
                events,
                read_truncated,
                write_truncated,
            })
        },
    );
    prop_oneof![2 => streamed, 2 => buffered, 1 => http_tests::any_trace(any_connection().boxed())]
}

fn expected_address(address: Option<&core::Address>) -> Option<Address> {
    Some(match address?.address.as_ref()? {
        AddressKind::SocketAddress(socket) => Address::Socket {
            address: socket.address.clone(),
            port: match socket.port_specifier {
                Some(PortSpecifier::PortValue(port)) => Some(port),
                _ => None,
            },
        },
        AddressKind::Pipe(pipe) => Address::Pipe(pipe.path.clone()),
        AddressKind::EnvoyInternalAddress(internal) => {
            use core::envoy_internal_address::AddressNameSpecifier::ServerListenerName;
            let Some(ServerListenerName(listener)) = &internal.address_name_specifier else {
                return Some(Address::Internal { listener: String::new(), endpoint: internal.endpoint_id.clone() });
            };
            Address::Internal { listener: listener.clone(), endpoint: internal.endpoint_id.clone() }
        }
    })
}

fn expected_connection(connection: &tap::Connection) -> Connection {
    Connection {
        local: expected_address(connection.local_address.as_ref()),
        remote: expected_address(connection.remote_address.as_ref()),
    }
}

fn expected_event(event: &tap::SocketEvent) -> SeenEvent {
    let (kind, data, end_stream) = match &event.event_selector {
        None => (EventKind::Absent, None, false),
        Some(EventSelector::Read(read)) => (EventKind::Read, read.data.as_ref(), false),
        Some(EventSelector::Write(write)) => (EventKind::Write, write.data.as_ref(), write.end_stream),
        Some(EventSelector::Closed(_)) => (EventKind::Closed, None, false),
    };
    let (payload, as_string) = match data.and_then(|data| data.body_type.as_ref()) {
        None => (Vec::new(), false),
        Some(BodyType::AsBytes(bytes)) => (bytes.clone(), false),
        Some(BodyType::AsString(text)) => (text.clone().into_bytes(), true),
    };
    SeenEvent {
        time: event.timestamp.and_then(|time| nanos_from_timestamp(time.seconds, time.nanos.into()).ok()),
        kind,
        payload,
        truncated: data.is_some_and(|data| data.truncated),
        as_string,
        end_stream,
        seq_num: event.seq_num,
        connection: event.connection.as_ref().map(expected_connection),
    }
}

/// What a trace decodes to, at a place taken from `seen`.
fn expected(trace: &Trace, seen: &Seen) -> Seen {
    let mut expected = Seen {
        start: seen.start,
        end: seen.end,
        fault: None,
        kind: None,
        trace_id: 0,
        connection: None,
        upstream_connection: None,
        http: http_tests::expected(trace),
        events: Vec::new(),
        read_truncated: false,
        write_truncated: false,
        cut: false,
        bad_time: None,
    };
    let mut events: &[tap::SocketEvent] = &[];
    match trace {
        Trace::SocketBufferedTrace(trace) => {
            expected.kind = Some(TraceKind::SocketBuffered);
            expected.trace_id = trace.trace_id;
            expected.connection = trace.connection.as_ref().map(expected_connection);
            events = &trace.events;
            expected.read_truncated = trace.read_truncated;
            expected.write_truncated = trace.write_truncated;
        }
        Trace::SocketStreamedTraceSegment(segment) => {
            expected.kind = Some(TraceKind::SocketStreamed);
            expected.trace_id = segment.trace_id;
            match &segment.message_piece {
                None => {}
                Some(MessagePiece::Connection(connection)) => {
                    expected.connection = Some(expected_connection(connection));
                }
                Some(MessagePiece::Event(event)) => events = std::slice::from_ref(event),
                Some(MessagePiece::Events(list)) => events = &list.events,
            }
        }
        Trace::HttpBufferedTrace(trace) => {
            expected.kind = Some(TraceKind::HttpBuffered);
            expected.connection = trace.downstream_connection.as_ref().map(expected_connection);
            expected.upstream_connection = trace.upstream_connection.as_ref().map(expected_connection);
        }
        Trace::HttpStreamedTraceSegment(segment) => {
            expected.kind = Some(TraceKind::HttpStreamed);
            expected.trace_id = segment.trace_id;
        }
    }
    expected.events = events.iter().map(expected_event).collect();
    let mut times = events.iter().filter_map(|event| event.timestamp);
    expected.bad_time = times.find_map(|time| nanos_from_timestamp(time.seconds, time.nanos.into()).err());
    expected
}

/// A piece of text to insert anywhere.
fn any_junk() -> impl Strategy<Value = Vec<u8>> {
    let words: Vec<&[u8]> = vec![
        b"",
        b"{",
        b"}",
        b"<",
        b">",
        b"[",
        b"]",
        b"\"",
        b"'",
        b"\\",
        b"#",
        b"\n",
        b":",
        b",",
        b";",
        b"-",
        b"0x",
        b"socket_buffered_trace",
        b"\nsocket_streamed_trace_segment {",
        b" http_buffered_trace",
        b"events: [",
        b"x",
        b"configured_sample_rate { ",
        b"\\u",
        b"\xff",
    ];
    prop_oneof![proptest::sample::select(words).prop_map(<[u8]>::to_vec), vec(any::<u8>(), 0..4)]
}

proptest! {
    /// The tests of the binary encoding compare with prost in the same way.
    #[test]
    fn fields_in_any_order_and_in_pieces_mean_what_prost_reads(
        fields in scrambled::wrapper(proptest::sample::select(&TraceKind::ALL[..]).prop_map(|kind| vec![kind])),
        fed in 1..40_usize,
    ) {
        let (mut bytes, mut text) = (Vec::new(), String::new());
        scrambled::encode(&fields, &mut bytes);
        scrambled::print(&fields, &mut text);
        let expected = tap::TraceWrapper::decode(bytes.as_slice()).unwrap();
        let mut message = Message::default();
        let step = TextDecoder::default().step(text.as_bytes(), true, &mut message);
        assert!(matches!(step, Step::Message { .. }), "{step:?} in {text}");
        check_message(MessageView::new(&message, text.as_bytes()), &expected);
        assert_eq!(read_fed(text.as_bytes(), fed), read_fed(text.as_bytes(), text.len()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn reads_what_another_printer_writes(traces in vec(any_trace(), 1..5), pretty in any::<bool>(), spelled in any::<bool>()) {
        let options = FormatOptions::new().pretty(pretty).skip_default_fields(!spelled);
        let texts: Vec<_> = traces.iter().map(|trace| trace_text(trace.clone(), &options)).collect();
        let (seen, unknown) = read_counting(texts.join(if pretty { "\n" } else { "" }));
        assert_eq!(unknown, []);
        assert_eq!(seen.len(), traces.len());
        for (seen, trace) in seen.iter().zip(&traces) {
            assert_eq!(*seen, expected(trace, seen));
        }
    }

    #[test]
    fn damage_is_the_same_however_it_arrives(
        traces in vec(any_trace(), 1..4),
        pretty in any::<bool>(),
        changes in vec((any::<Index>(), 0..6usize, any_junk()), 1..5),
    ) {
        let options = FormatOptions::new().pretty(pretty);
        let texts: Vec<_> = traces.iter().map(|trace| trace_text(trace.clone(), &options)).collect();
        let mut text = texts.join("\n").into_bytes();
        for (at, removed, junk) in changes {
            let at = at.index(text.len() + 1);
            let end = (at + removed).min(text.len());
            text.splice(at..end, junk);
        }
        read_counting(text);
    }

    #[test]
    fn the_fast_path_reads_what_the_parser_reads(text in any_envoy_text(), feed in 1..500usize) {
        assert_fast_and_general_agree(&text, feed);
        assert_fast_and_general_agree(&text, text.len());
    }

    #[test]
    fn the_fast_path_and_the_parser_see_the_same_damage(
        mut text in any_envoy_text(),
        changes in vec((any::<Index>(), 0..6usize, any_junk()), 1..4),
        feed in 1..500usize,
    ) {
        for (at, removed, junk) in changes {
            let at = at.index(text.len() + 1);
            let end = (at + removed).min(text.len());
            text.splice(at..end, junk);
        }
        assert_fast_and_general_agree(&text, feed);
        assert_fast_and_general_agree(&text, text.len().max(1));
    }

    #[test]
    fn any_bytes_make_progress(junk in vec(any_junk(), 0..40)) {
        read_counting(junk.concat());
    }

    #[test]
    fn damage_in_one_message_leaves_the_next_alone(at in any::<Index>(), removed in 0..9usize, junk in any_junk()) {
        // Without the names themselves, which would start messages of their own.
        let junk = if junk.len() > 9 { Vec::new() } else { junk };
        let good = "\nsocket_buffered_trace {\n  trace_id: 8\n}\n";
        let mut text = BUFFERED.trim_ascii_end().to_vec();
        let at = at.index(text.len());
        let end = (at + removed).min(text.len());
        text.splice(at..end, junk);
        text.extend_from_slice(good.as_bytes());
        let (seen, _) = read_fed(&text, 4096);
        let last = seen.last().expect("a message");
        assert_eq!((last.trace_id, last.fault.as_ref()), (8, None));
    }
}
