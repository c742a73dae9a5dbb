use std::io::Write;

use super::*;

const TRACE: &[u8] = b"{\n \"socket_buffered_trace\": {\"trace_id\": \"7\"}\n}\n";

/// Bytes that come as the sizes say, over and over.
pub(super) struct Trickle(pub(super) Vec<u8>, pub(super) Vec<usize>, pub(super) usize);

impl Read for Trickle {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let size = self.1[self.2 % self.1.len()];
        self.2 += 1;
        let count = size.min(buffer.len()).min(self.0.len());
        buffer[..count].copy_from_slice(&self.0[..count]);
        self.0.drain(..count);
        Ok(count)
    }
}

/// What is inside, which layers were taken off, and the error that ended it.
fn open(bytes: &[u8], sizes: &[usize]) -> (Vec<u8>, Vec<Layer>, Option<String>) {
    let reader = Box::new(Trickle(bytes.to_vec(), sizes.to_vec(), 0));
    let TakenOff { inside: mut reader, mut layers, met } =
        take_off(reader, Layers::default(), &Arc::default()).unwrap();
    let mut inside = Vec::new();
    let error = reader.read_to_end(&mut inside).err().map(|error| error.to_string());
    layers.extend(met.layers());
    (inside, layers, error)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn response(version: &str, body: &[u8]) -> Vec<u8> {
    [format!("HTTP/{version} 200 OK\r\nserver: envoy\r\n\r\n").as_bytes(), body].concat()
}

fn chunked(bytes: &[u8], size: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for chunk in bytes.chunks(size) {
        out.extend_from_slice(format!("{:x};name=value\r\n", chunk.len()).as_bytes());
        out.extend_from_slice(chunk);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"0\r\nx-trailer: yes\r\n\r\n");
    out
}

fn utf16(text: &str, big_endian: bool, mark: bool) -> Vec<u8> {
    let units = text.encode_utf16().collect::<Vec<_>>();
    let units = mark.then_some(0xfeff).into_iter().chain(units);
    units.flat_map(|unit| if big_endian { unit.to_be_bytes() } else { unit.to_le_bytes() }).collect()
}

/// Expects what a layer makes of a text, whatever pieces it arrives in.
#[track_caller]
pub(super) fn expect_rewritten<T: rewritten::Rewrite>(rewrite: impl Fn() -> T, text: &str, expected: &str) {
    for sizes in [vec![1], vec![7, 3, 50], vec![1 << 20]] {
        let mut out = Vec::new();
        let inside = Box::new(Trickle(text.as_bytes().to_vec(), sizes.clone(), 0));
        Rewritten::new(inside, rewrite()).read_to_end(&mut out).unwrap();
        assert_eq!(String::from_utf8_lossy(&out), expected, "{sizes:?}");
    }
}

#[test]
fn each_layer_and_layers_in_layers_give_what_they_hold() {
    let text = str::from_utf8(TRACE).unwrap();
    let cases = [
        (TRACE.to_vec(), vec![]),
        (gzip(TRACE), vec![Layer::Gzip]),
        ([gzip(&TRACE[..9]), gzip(&TRACE[9..])].concat(), vec![Layer::Gzip]),
        (zstd::encode_all(TRACE, 1).unwrap(), vec![Layer::Zstandard]),
        (response("1.1", TRACE), vec![Layer::HttpResponse]),
        (response("2", TRACE), vec![Layer::HttpResponse]),
        (response("1.1", &response("1.0", TRACE)), vec![Layer::HttpResponse; 2]),
        (chunked(TRACE, 7), vec![Layer::Chunked]),
        (response("1.1", &chunked(TRACE, 1000)), vec![Layer::HttpResponse, Layer::Chunked]),
        (response("1.1", &chunked(&gzip(TRACE), 5)), vec![Layer::HttpResponse, Layer::Chunked, Layer::Gzip]),
        (utf16(text, false, true), vec![Layer::Utf16]),
        (utf16(text, true, true), vec![Layer::Utf16]),
        (utf16(text, false, false), vec![Layer::Utf16]),
        (gzip(&utf16(text, true, false)), vec![Layer::Gzip, Layer::Utf16]),
        (gzip(&response("1.1", &chunked(TRACE, 3))), vec![Layer::Gzip, Layer::HttpResponse, Layer::Chunked]),
    ];
    for (bytes, layers) in cases {
        for sizes in [vec![1], vec![3, 1, 40], vec![100_000]] {
            let (inside, found, error) = open(&bytes, &sizes);
            assert_eq!((found, error), (layers.clone(), None), "{sizes:?}");
            // Of UTF-16, the mark stays as one of UTF-8 does, which the decoders know.
            assert!(inside == TRACE, "{layers:?} {sizes:?}: {}", inside.escape_ascii());
        }
    }
}

#[test]
fn what_begins_like_a_layer_and_is_none_stays_as_it_is() {
    let mut bodies: Vec<Vec<u8>> = [
        &b""[..],
        b"\x1f",
        b"{",
        b"HTTP/",
        b"HTTP/1.1 what\r\n\r\n",
        b"HTTP is a protocol",
        b"deadbeef",
        b"abc",
        b"\r\nabc",
        b"123456789\r\n",
        b"f\n",
    ]
    .map(<[u8]>::to_vec)
    .to_vec();
    // A response's head without end.
    bodies.push([b"HTTP/1.1 200 OK\r\n".to_vec(), b"a: b\r\n".repeat(20_000)].concat());
    for body in bodies {
        let (inside, layers, error) = open(&body, &[1000]);
        assert_eq!(
            (inside == body, layers, error),
            (true, vec![], None),
            "{}",
            body[..body.len().min(40)].escape_ascii()
        );
    }
}

#[test]
fn a_damaged_or_cut_chunked_body_gives_what_came_before() {
    let whole = chunked(TRACE, 20);
    for len in 0..whole.len() {
        let (inside, _, error) = open(&whole[..len], &[1000]);
        assert!(len < 15 || TRACE.starts_with(&inside), "{len}: {}", inside.escape_ascii());
        assert!(error.is_none_or(|error| error.contains("cut off")), "{len}");
    }
    let mut damaged = whole.clone();
    let second = damaged.windows(5).position(|bytes| bytes == b"\r\n14;").unwrap() + 2;
    damaged[second] = b'z';
    let (inside, _, error) = open(&damaged, &[1000]);
    assert_eq!(inside, &TRACE[..20]);
    assert!(error.unwrap().contains("the size of a chunk should stand here"));
}

#[test]
fn layers_without_end_end() {
    let mut bytes = TRACE.to_vec();
    for _ in 0..MAX_LAYERS + 2 {
        bytes = gzip(&bytes);
    }
    let (inside, layers, error) = open(&bytes, &[1000]);
    assert_eq!((layers.len(), error), (MAX_LAYERS, None));
    assert!(inside.starts_with(packed::GZIP));
}

#[test]
fn bad_utf_16_becomes_replacement_characters() {
    let mut bytes = utf16("{a\u{1f600}b", false, true);
    bytes.extend_from_slice(&[0x00, 0xd8, b'c', 0, 0x3d, 0xd8]);
    for sizes in [vec![1], vec![1000]] {
        assert_eq!(String::from_utf8(open(&bytes, &sizes).0).unwrap(), "{a\u{1f600}b\u{fffd}c\u{fffd}");
    }
    // Half a unit at the end is dropped.
    assert_eq!(open(&bytes[..bytes.len() - 5], &[2]).0, "{a\u{1f600}b".as_bytes());
}

/// What curl prints before a body, and what else stands there.
#[test]
fn heads_of_responses_are_taken_off_as_curl_prints_them() {
    let heads = [
        "HTTP/1.0 200 OK\r\n\r\n",
        "HTTP/1.1 200\r\ndate: now\r\n\r\n",
        "HTTP/2 200 \r\ncontent-type: application/json\r\nserver: envoy\r\n\r\n",
        "HTTP/3 200\r\nalt-svc: h3=\":443\"\r\n\r\n",
        "HTTP/2.0 200 OK\nserver: envoy\n\n",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nserver: envoy\r\n\r\n",
        "HTTP/1.1 302 Found\r\nlocation: /b\r\n\r\nHTTP/1.1 301 Moved\r\nlocation: /c\r\n\r\nHTTP/2 200 \r\na: b\r\n\r\n",
        // A terminal.
        "$ curl -si http://127.0.0.1:9901/tap -d @tap.json\nHTTP/1.1 200 OK\r\nserver: envoy\r\n\r\n",
        "\x1b[01;32mme@host\x1b[00m:~$ curl -i localhost\r\nHTTP/1.1 200 OK\r\n\x1b[1mserver\x1b[0m: envoy\r\n\r\n",
        "[root@envoy-0 /]# curl -i localhost:9901/tap\nHTTP/1.1 200 OK\nserver: envoy\n\n",
        "  % Total    % Received\n  0     0    0     0\nHTTP/1.1 200 OK\r\n\r\n",
        // Standard error as well.
        "*   Trying 127.0.0.1:9901...\n* Connected to localhost\n> POST /tap HTTP/1.1\r\n> Host: localhost\r\n> \r\n\
         < HTTP/1.1 200 OK\r\n< content-type: application/json\r\n< \r\n{ [5 bytes data]\n",
        "< HTTP/1.1 100 Continue\r\n< \r\n} [40 bytes data]\n* We are uploaded\n< HTTP/1.1 200 OK\r\n< a: b\r\n< \r\n",
        "> GET / HTTP/1.1\r\n>\r\n< HTTP/1.1 200 OK\r\nHTTP/1.1 200 OK\r\n< a: b\r\na: b\r\n< \r\n\r\n{ [9 bytes data]\n",
    ];
    for head in heads {
        for sizes in [vec![1], vec![7, 2], vec![100_000]] {
            let (inside, layers, error) = open(&[head.as_bytes(), TRACE].concat(), &sizes);
            assert_eq!((layers, error), (vec![Layer::HttpResponse], None), "{head:?} {sizes:?}");
            assert!(inside == TRACE, "{head:?} {sizes:?}: {}", inside.escape_ascii());
            let (inside, layers, _) = open(&[head.as_bytes(), &chunked(TRACE, 9)].concat(), &sizes);
            assert_eq!(layers, [Layer::HttpResponse, Layer::Chunked], "{head:?} {sizes:?}");
            assert!(inside == TRACE, "{head:?} {sizes:?}: {}", inside.escape_ascii());
        }
    }
    // A proxy answers for itself first.
    let tunnel = b"HTTP/1.1 200 Connection established\r\n\r\nHTTP/1.1 200 OK\r\n\r\n";
    assert_eq!(open(&[tunnel, TRACE].concat(), &[3]).1, [Layer::HttpResponse; 2]);
}

#[test]
fn several_responses_in_chunks_are_one_trace() {
    let one = [b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), chunked(TRACE, 11)].concat();
    let many = [one.repeat(3), b"$ exit\n".to_vec()].concat();
    for sizes in [vec![1], vec![100_000]] {
        let (inside, layers, error) = open(&many, &sizes);
        assert_eq!((layers, error), (vec![Layer::HttpResponse, Layer::Chunked], None));
        assert!(inside == [TRACE.repeat(3), b"$ exit\n".to_vec()].concat(), "{}", inside.escape_ascii());
    }
    // A thousand of them take no deeper stack.
    assert_eq!(open(&one.repeat(20_000), &[100_000]).0.len(), 20_000 * TRACE.len());
}

#[test]
fn chunks_whose_carriage_returns_were_lost_are_told_by_their_sizes() {
    let text = String::from_utf8(chunked(TRACE, 20)).unwrap().replace("\r\n", "\n").replace(";name=value", "");
    assert_eq!(open(text.as_bytes(), &[1]).0, TRACE);
    assert_eq!(open(text.replacen("14\n", "13\n", 1).as_bytes(), &[1]).1, []);
}

/// A live trace must be decoded when it arrives. None of these heads asks for more.
#[test]
fn the_head_of_a_plain_trace_is_told_at_once() {
    let heads: [&[u8]; 10] = [
        b"{\n \"soc",
        b"{\"http_buffered_trace\":",
        b"socket_streamed_trace_segment {\n",
        b"# comment\nhttp_buffered_trace: {",
        b"\x1a\x2c\x08\x07\x12",
        b"\x0a\x45\x0a\x43\x12",
        b"\x45\x0a\x43\x12",
        b"b\n\x60\x0a\x12",
        b"\xef\xbb\xbf{\n",
        b"[\n{",
    ];
    for head in heads {
        for layer in Layer::ALL.into_iter().filter(|layer| *layer != Layer::JsonEnvelope) {
            assert_eq!(layer.matches(head), Match::No, "{layer} of {}", head.escape_ascii());
        }
    }
    // In JSON, the first key tells.
    for head in [&b"{\n \"socket_streamed_trace_segment\":"[..], b"\xef\xbb\xbf{\"httpBufferedTrace\":"] {
        assert_eq!(Layer::JsonEnvelope.matches(head), Match::No, "{}", head.escape_ascii());
    }
}

#[test]
fn zeros_after_gzip_are_nothing_and_other_bytes_are_damage() {
    let (inside, _, error) = open(&[gzip(TRACE), vec![0; 1000], gzip(TRACE), vec![0; 9]].concat(), &[100]);
    assert_eq!((inside, error), (TRACE.repeat(2), None));
    let (inside, _, error) = open(&[gzip(TRACE), b"$ ".to_vec()].concat(), &[100]);
    assert_eq!((inside, error.as_deref()), (TRACE.to_vec(), Some("what follows the gzip data is not gzip")));
}

#[test]
fn utf_16_is_told_by_its_first_characters() {
    for text in ["{\n", "socket_buffered_trace {", "[{}]", "PS C:\\> curl", "# a"] {
        for big_endian in [false, true] {
            let (inside, layers, _) = open(&utf16(text, big_endian, false), &[1]);
            assert_eq!((inside, layers), (text.as_bytes().to_vec(), vec![Layer::Utf16]));
        }
    }
    for bytes in [&b"\x0a\x00\x12\x00"[..], b"\x00\x00\x00\x00", b"a\0\0\0", b"\x1a\0b\0"] {
        assert_eq!(open(bytes, &[1]).1, [], "{}", bytes.escape_ascii());
    }
}

#[test]
fn layers_that_are_asked_for_must_fit() {
    let ask = |bytes: &[u8], layers: &[Layer]| {
        let reader = Box::new(Trickle(bytes.to_vec(), vec![3], 0));
        take_off(reader, Layers::new(layers).unwrap(), &Arc::default()).map(|off| off.layers)
    };
    let bytes = gzip(&chunked(&gzip(TRACE), 9));
    let all = [Layer::Gzip, Layer::Chunked, Layer::Gzip];
    for len in 0..=3 {
        assert_eq!(ask(&bytes, &all[..len]).unwrap(), all, "those that were not asked for are recognised");
    }
    match ask(&bytes, &[Layer::Gzip, Layer::Zstandard]) {
        Err(Refused::Unfit { layer, within }) => assert_eq!((layer, within), (Layer::Zstandard, vec![Layer::Gzip])),
        other => panic!("{other:?}"),
    }
    assert_eq!(ask(b"\xe4\0 \0", &[Layer::Utf16]).unwrap(), [Layer::Utf16]);
    assert!(Layers::new(&[Layer::Gzip; MAX_LAYERS + 1]).is_none());
    assert!(matches!(ask(b"", &[Layer::Gzip]), Err(Refused::Unfit { .. })));
}

#[test]
fn a_bomb_ends() {
    struct Zeros(u64);
    impl Read for Zeros {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0 += buffer.len() as u64;
            buffer.fill(b' ');
            Ok(buffer.len())
        }
    }
    let packed = Arc::new(AtomicU64::new(1000));
    let mut bounded = Bounded { inside: Box::new(Zeros(0)), packed, unpacked: 0 };
    let mut buffer = vec![0; 1 << 20];
    let read = std::iter::from_fn(|| bounded.read(&mut buffer).ok()).map(|count| count as u64).sum::<u64>();
    assert_eq!(read, ROOM);
}
