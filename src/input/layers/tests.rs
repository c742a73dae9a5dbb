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
    let TakenOff { inside: mut reader, mut layers, used } =
        take_off(Box::new(Trickle(bytes.to_vec(), sizes.to_vec(), 0))).unwrap();
    let mut inside = Vec::new();
    let error = reader.read_to_end(&mut inside).err().map(|error| error.to_string());
    layers.extend(used.layers());
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
