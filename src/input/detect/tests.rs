use proptest::{collection::vec, prelude::*};
use prost::Message as _;

use super::*;
use crate::{
    input::wire::{Scanner, tests::wrapper_strategy},
    tap::TraceFormat,
};

/// What a source is recognised as if it arrives in these pieces.
fn in_pieces(bytes: &[u8], path: &Path, mut pieces: impl Iterator<Item = usize>) -> Detected {
    let mut end = 0;
    loop {
        end = bytes.len().min(end + pieces.next().unwrap_or(usize::MAX / 2));
        if let Some(detected) = recognise(&bytes[..end], path, end < bytes.len()) {
            return detected;
        }
    }
}

const TRACES: [(&[u8], Encoding); 10] = [
    (include_bytes!("../../../testdata/envoy/1.40.0/h1_str_PROTO_BINARY_133.pb"), Encoding::Binary),
    (include_bytes!("../../../testdata/envoy/1.40.0/h1_str_PROTO_TEXT_172.pb_text"), Encoding::Text),
    (include_bytes!("../../../testdata/envoy/1.40.0/trunc_buf_PROTO_TEXT_79.pb_text"), Encoding::Text),
    (
        include_bytes!("../../../testdata/envoy/1.40.0/filter_str_PROTO_TEXT_3055020197668465111.pb_text"),
        Encoding::Text,
    ),
    (include_bytes!("../../../testdata/envoy/1.40.0/h1trunc_str_JSON_BODY_AS_STRING_118.json"), Encoding::Json),
    (include_bytes!("../../../testdata/envoy/1.40.0/trunc_buf_JSON_BODY_AS_BYTES_5.json"), Encoding::Json),
    (
        include_bytes!("../../../testdata/envoy/1.40.0/filter_buf_PROTO_BINARY_14876904119277855790.pb"),
        Encoding::Binary,
    ),
    (include_bytes!("../../../testdata/tap/http2_str_PROTO_BINARY_4.pb"), Encoding::Binary),
    (include_bytes!("../../../testdata/tap/tls_buf_40.pb_length_delimited"), Encoding::Delimited),
    (include_bytes!("../../../testdata/tap/unix_cluster_str_66.pb"), Encoding::Binary),
];

#[test]
fn real_traces_are_recognised_however_they_arrive() {
    for (trace, encoding) in TRACES {
        for piece in [1, 2, 3, 7, 64, 1000, 1 << 20] {
            let detected = in_pieces(trace, Path::new("path_0"), std::iter::repeat(piece));
            assert_eq!(detected, Detected::Trace(encoding), "{piece} bytes at a time");
        }
    }
}

/// A name that is cut by the end of the head does not count yet.
#[test]
fn half_a_name_waits_for_the_other_half() {
    let path = Path::new("path_0");
    for text in ["{\"level\":\"status", "{\"http", "{\"x\":\"h", "status: yes", "s", "socket_buffered_trac", "h"] {
        assert_eq!(recognise(text.as_bytes(), path, true), None, "{text}");
        assert!(matches!(detect(text.as_bytes(), path), Detected::Other(_)), "{text}");
    }
    for text in [
        r#"{"a": "socket_buffered_trace"}"#,
        r#"{"a": "say \"socket_buffered_trace\": no"}"#,
        "note: my_socket_buffered_trace { }",
        "note: socket_buffered_trace",
    ] {
        assert!(matches!(detect(text.as_bytes(), path), Detected::Other(_)), "{text}");
    }
    let live = b"{\"http_buffered_trace\" :";
    assert_eq!(recognise(live, path, true), Some(Detected::Trace(Encoding::Json)));
    assert_eq!(recognise(b"socket_buffered_trace\n{", path, true), Some(Detected::Trace(Encoding::Text)));
}

/// The first segment of a live stream is enough.
#[test]
fn the_first_message_of_a_stream_is_enough() {
    let trace = TRACES[0].0;
    let mut scan = Scanner::new(trace, 0, trace.len(), false);
    let tag = scan.tag().unwrap();
    scan.skip(tag).unwrap();
    let first = scan.position();
    let path = Path::new("-");
    assert_eq!(recognise(&trace[..first], path, true), Some(Detected::Trace(Encoding::Binary)));
    assert_eq!(recognise(&trace[..first - 1], path, true), None);
}

fn field(number: u8, content: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2, u8::try_from(content.len()).unwrap()], content].concat()
}

/// Messages of other schemas whose first fields hold bytes.
#[test]
fn other_protobuf_is_no_trace_whatever_its_name() {
    let attribute = field(1, &[field(1, b"service.name"), field(2, &field(1, b"shop"))].concat());
    let wrapped = field(1, &field(1, &field(1, &[field(1, &field(1, b":method")), field(2, b"GET")].concat())));
    let others: [(&str, Vec<u8>); 9] = [
        ("attributes of a resource", field(1, &field(1, &attribute))),
        ("a trace in another message", wrapped),
        (
            "labels of a metric",
            field(1, &[field(1, &[field(1, b"__name__"), field(2, b"up")].concat()), field(2, &[8, 1])].concat()),
        ),
        ("a name and a number", field(1, &[field(1, b"x.proto"), field(2, b"pkg")].concat())),
        ("an id and a body", field(2, &[&[8, 7][..], &field(3, &field(1, b"name"))].concat())),
        ("a body without a head", field(1, &field(1, &field(2, &field(1, b"name"))))),
        ("bytes for an id", field(4, &[field(1, b"seven"), field(2, b"")].concat())),
        ("addresses of bytes", field(4, &field(2, &field(1, &field(1, &field(2, b"\x01\x02")))))),
        ("a string", field(3, b"hello, world")),
    ];
    for (what, bytes) in others {
        let detected = detect(&bytes, Path::new("message.bin"));
        assert!(matches!(detected, Detected::Other(_)), "{what}: {detected:?}");
    }
}

/// How the messages are framed, and the path to the traces in them.
type Envelope = Option<(Encoding, &'static [u32])>;

/// A message of another type that holds a trace.
#[test]
fn envelopes_are_recognised_however_they_arrive() {
    let connection = field(2, &field(2, &field(1, &field(2, b"10.0.0.1"))));
    let segment = field(4, &[&[8, 7][..], &connection].concat());
    let taps = [field(1, &field(2, b"tap-1")), vec![0x10, 9], field(3, &segment)].concat();
    let delimited = [&[taps.len() as u8][..], &taps].concat();
    let deep = field(3, &field(1, &field(7, &field(2, &segment))));
    // Detection finds only the first four messages deep.
    let deeper = field(9, &deep);
    let cases: [(&str, Vec<u8>, Envelope); 7] = [
        ("StreamTapsRequest", taps.clone(), Some((Encoding::Binary, &[3]))),
        ("a delimited one", delimited, Some((Encoding::Delimited, &[3]))),
        ("depth 4", deep, Some((Encoding::Binary, &[3, 1, 7, 2]))),
        ("depth 5", deeper, None),
        ("a list", field(5, &[field(1, &segment), field(1, &segment)].concat()), Some((Encoding::Binary, &[5, 1]))),
        ("traces after it", [field(3, &segment), segment.repeat(9)].concat(), Some((Encoding::Binary, &[3]))),
        ("zeros before it", [vec![0; 9], taps].concat(), Some((Encoding::Binary, &[3]))),
    ];
    for (what, bytes, expected) in cases {
        let whole = detect(&bytes, Path::new("message.bin"));
        let found = match &whole {
            Detected::Enveloped { encoding, path } => Some((*encoding, path.numbers())),
            _ => None,
        };
        assert_eq!(found, expected, "{what}: {whole:?}");
        for piece in [1, 2, 3, 7, 1000] {
            assert_eq!(in_pieces(&bytes, Path::new("message.bin"), std::iter::repeat(piece)), whole, "{what}, {piece}");
        }
    }
}

#[test]
fn minimal_traces_are_traces() {
    let head = field(1, &field(1, b":path"));
    let traces = [
        ("headers alone", field(1, &field(1, &head)), "x"),
        ("a connection without addresses", field(4, &[&[8, 7][..], &field(2, b"")].concat()), "x"),
        ("an upstream tap's", field(4, &field(2, &field(2, &field(1, &field(2, b"10.0.0.1"))))), "x"),
        ("a host's name", field(4, &field(2, &field(2, &field(1, &field(2, b"db.internal"))))), "x"),
        ("nothing but its id", field(3, &[8, 7]), "x.pb"),
        ("an empty one", field(1, b""), "x.pb.gz"),
    ];
    for (what, bytes, name) in traces {
        assert_eq!(detect(&bytes, Path::new(name)), Detected::Trace(Encoding::Binary), "{what}");
    }
}

/// The length of the first message is the byte `{`, and the tag of a segment is the byte `"`.
#[test]
fn a_delimited_trace_may_begin_like_json() {
    let connection = field(2, &field(2, &field(1, &field(2, b"10.0.0.1"))));
    let mut segment = connection;
    segment.extend(field(9, &vec![b'x'; 123 - 4 - segment.len()]));
    let bytes = [&[123_u8][..], &field(4, &segment)].concat();
    assert!(bytes.starts_with(b"{\"y") && bytes.len() == 124);
    assert_eq!(detect(&bytes, Path::new("path_0")), Detected::Trace(Encoding::Delimited));
}

proptest! {
    /// Whatever the bytes are, the pieces they arrive in make no difference.
    #[test]
    fn detection_does_not_depend_on_the_reads(
        wrappers in vec(wrapper_strategy(), 1..4),
        encoding in 0..4_usize,
        flip in proptest::option::of((any::<proptest::sample::Index>(), any::<u8>())),
        start in proptest::sample::select(&["", " \n", "\u{feff}", "{\"a\":\"", "s", "# s\n"][..]),
        pieces in vec(1..50_usize, 1..8),
    ) {
        let format = [TraceFormat::ProtoBinary, TraceFormat::ProtoBinaryLengthDelimited, TraceFormat::ProtoText, TraceFormat::JsonBodyAsBytes][encoding];
        let mut bytes = start.as_bytes().to_vec();
        wrappers.iter().for_each(|wrapper| format.encode(wrapper, &mut bytes));
        if let (Some((at, to)), false) = (flip, bytes.is_empty()) {
            let at = at.index(bytes.len());
            bytes[at] = to;
        }
        for name in ["path_0", "path_0.pb_length_delimited"] {
            let whole = detect(&bytes, Path::new(name));
            prop_assert_eq!(in_pieces(&bytes, Path::new(name), pieces.iter().copied().cycle()), whole);
        }
    }

    #[test]
    fn any_bytes_are_detected_or_refused(bytes: Vec<u8>, more: bool) {
        let _ = recognise(&bytes, Path::new("path_0"), more);
    }
}

/// prost reads any message with only unknown fields as an empty `TraceWrapper`.
#[test]
fn what_prost_reads_as_an_empty_wrapper_is_no_trace() {
    let unknown = field(9, b"x");
    assert!(crate::proto::tap::TraceWrapper::decode(unknown.as_slice()).is_ok());
    assert!(matches!(detect(&unknown, Path::new("x.pb")), Detected::Other(_)));
}
