//! Finds secrets in bytes, in every form that they may have there.

use std::{
    collections::{BTreeSet, HashMap},
    io::Read as _,
    ops::Range,
};

use super::secrets::Secret;

/// Words of so many bytes are looked for: any longer piece has one.
const WORD: usize = 6;

/// Those of base64 are longer, because so few bytes of it would be found by chance, as would digits.
const LONG_WORD: usize = 8;

/// A place where a secret was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hit {
    pub secret: usize,
    pub bytes: Range<usize>,
}

/// Words of one length, with the secrets that have them.
struct Words {
    len: usize,
    /// Which hashes there are.
    filter: Vec<u64>,
    secrets: HashMap<u64, usize>,
}

const FILTER_BITS: u32 = 22;

fn hash(word: u64) -> usize {
    usize::try_from(word.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - FILTER_BITS)).unwrap()
}

impl Words {
    fn new(len: usize) -> Self {
        Self { len, filter: vec![0; 1 << (FILTER_BITS - 6)], secrets: HashMap::new() }
    }

    fn mask(&self) -> u64 {
        u64::MAX >> (64 - 8 * self.len)
    }

    fn add(&mut self, bytes: &[u8], secret: usize) {
        for window in bytes.windows(self.len) {
            let word = window.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
            let hash = hash(word);
            self.filter[hash >> 6] |= 1 << (hash & 63);
            self.secrets.insert(word, secret);
        }
    }

    fn search(&self, bytes: impl Iterator<Item = u8>, mut found: impl FnMut(usize, usize)) {
        let (mut word, mask) = (0, self.mask());
        for (index, byte) in bytes.enumerate() {
            word = (word << 8 | u64::from(byte)) & mask;
            let hash = hash(word);
            if self.filter[hash >> 6] >> (hash & 63) & 1 == 1
                && index + 1 >= self.len
                && let Some(secret) = self.secrets.get(&word)
            {
                found(*secret, index + 1);
            }
        }
    }
}

pub struct Finder {
    /// As they are, and coded by HPACK's Huffman code at any bit, also after base64.
    words: Words,
    /// In base64 at any byte, and digits.
    long_words: Words,
    /// Each byte with the fourth after it: masked by any key of WebSocket.
    masked: Words,
}

impl Finder {
    pub fn new(secrets: &[Secret]) -> Self {
        let mut words = Words::new(WORD);
        let mut long_words = Words::new(LONG_WORD);
        let mut masked = Words::new(WORD);
        for (index, secret) in secrets.iter().enumerate() {
            let bytes = secret.text.as_bytes();
            if bytes.iter().all(u8::is_ascii_digit) {
                long_words.add(bytes, index);
                continue;
            }
            words.add(bytes, index);
            huffman(bytes, |coded| words.add(coded, index));
            base64(bytes, |coded| {
                long_words.add(coded, index);
                huffman(coded, |coded| words.add(coded, index));
            });
            masked.add(&differences(bytes).collect::<Vec<_>>(), index);
        }
        Self { words, long_words, masked }
    }

    /// Where secrets are in these bytes, as they are or coded.
    pub fn hits(&self, bytes: &[u8]) -> Vec<Hit> {
        let mut hits = Vec::new();
        for words in [&self.words, &self.long_words] {
            words.search(bytes.iter().copied(), |secret, end| hits.push(Hit { secret, bytes: end - words.len..end }));
        }
        self.masked.search(differences(bytes), |secret, end| hits.push(Hit { secret, bytes: end - WORD..end + 4 }));
        hits
    }

    /// Which secrets are in these bytes, besides also in what they decode to.
    pub fn search(&self, bytes: &[u8], found: &mut BTreeSet<usize>) {
        found.extend(self.hits(bytes).iter().map(|hit| hit.secret));
        if let Some(decoded) = unescaped(bytes) {
            found.extend(self.hits(&decoded).iter().map(|hit| hit.secret));
        }
    }

    /// The same for text with hexadecimal digits.
    pub fn search_hex(&self, text: &[u8], found: &mut BTreeSet<usize>) {
        let mut bytes = Vec::new();
        let mut rest = text;
        while let Some((_, after)) = rest.split_first() {
            if let Some((byte, after)) = hex_byte(rest) {
                bytes.push(byte);
                // Bytes may have colons or spaces between them.
                rest = after.strip_prefix(b":").or_else(|| after.strip_prefix(b" ")).unwrap_or(after);
            } else {
                if bytes.len() >= WORD {
                    self.search(&bytes, found);
                }
                bytes.clear();
                rest = after;
            }
        }
        self.search(&bytes, found);
    }

    /// The same for the bytes that one side of a connection sent: bodies put together and unpacked, messages of
    /// WebSocket read.
    pub fn search_stream(&self, bytes: &[u8], found: &mut BTreeSet<usize>) {
        self.search(bytes, found);
        let mut parts = vec![bytes.to_vec()];
        parts.extend(chunked_bodies(bytes));
        parts.extend(data_of_streams(bytes));
        for part in &parts {
            self.search(part, found);
            for unpacked in unpacked(part) {
                self.search(&unpacked, found);
            }
        }
        for message in deflated_messages(bytes) {
            self.search(&message, found);
        }
    }
}

fn differences(bytes: &[u8]) -> impl Iterator<Item = u8> {
    bytes.iter().zip(bytes.iter().skip(4)).map(|(byte, later)| byte ^ later)
}

/// The code of each rest of a secret, at each of the eight bits of a byte.
fn huffman(bytes: &[u8], mut each: impl FnMut(&[u8])) {
    // 0 has five bits: so many of them before, and those of a whole byte away, give any shift.
    for zeros in 0..8 {
        let mut padded = vec![b'0'; zeros];
        padded.extend(bytes);
        let mut coded = Vec::new();
        httlib_huffman_encode(&padded, &mut coded);
        // Bits of zeros may be in the first of the bytes, and those of the padding in the last.
        let first = (5 * zeros).div_ceil(8);
        each(&coded[first..coded.len() - 1]);
    }
}

/// The string as HPACK has it in a literal, without its length.
fn httlib_huffman_encode(bytes: &[u8], out: &mut Vec<u8>) {
    let flags = httlib_hpack::Encoder::HUFFMAN_VALUE;
    let mut block = Vec::new();
    let field = (b"a".to_vec(), bytes.to_vec(), flags);
    httlib_hpack::Encoder::default().encode(field, &mut block).unwrap();
    // Literal without indexing, a name of one byte, and a length below 127.
    assert!(block[..3] == [0, 1, b'a'] && block[3] & 0x7f < 127);
    out.extend(&block[4..]);
}

/// What is the same wherever the secret is in longer text.
fn base64(bytes: &[u8], mut each: impl FnMut(&[u8])) {
    for before in 0..3 {
        let mut padded = vec![0; before];
        padded.extend(bytes);
        padded.truncate(padded.len() / 3 * 3);
        let standard = base64_simd::STANDARD.encode_to_string(&padded);
        let first = (before * 8).div_ceil(6);
        each(&standard.as_bytes()[first..]);
    }
}

fn hex_byte(text: &[u8]) -> Option<(u8, &[u8])> {
    let ([high, low], rest) = text.split_first_chunk::<2>()?;
    let digit = |digit: u8| char::from(digit).to_digit(16);
    Some((u8::try_from(digit(*high)? << 4 | digit(*low)?).unwrap(), rest))
}

/// The bytes without percent-encoding and the escapes of JSON, if there are any.
fn unescaped(bytes: &[u8]) -> Option<Vec<u8>> {
    if !bytes.iter().any(|byte| matches!(byte, b'%' | b'\\')) {
        return None;
    }
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((byte, mut after)) = rest.split_first() {
        let digits = [b"%".as_slice(), b"\\u00", b"\\x"].into_iter().find_map(|start| rest.strip_prefix(start));
        match digits.and_then(hex_byte) {
            Some((byte, behind)) => {
                out.push(byte);
                after = behind;
            }
            None => out.push(*byte),
        }
        rest = after;
    }
    Some(out)
}

/// What gzip, zlib and Zstandard streams hold, wherever they begin.
fn unpacked(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    // A damaged stream gives what comes before the damage.
    let mut read = |reader: &mut dyn std::io::Read| {
        let mut unpacked = Vec::new();
        let mut buffer = [0; 16];
        while let Ok(len @ 1..) = reader.read(&mut buffer) {
            unpacked.extend(&buffer[..len]);
        }
        out.push(unpacked);
    };
    for start in 0..bytes.len() {
        let rest = &bytes[start..];
        match rest {
            [0x1f, 0x8b, 8, ..] => read(&mut flate2::read::GzDecoder::new(rest)),
            [0x78, 1 | 0x5e | 0x9c | 0xda, ..] => read(&mut flate2::read::ZlibDecoder::new(rest)),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => {
                if let Ok(mut decoder) = zstd::Decoder::new(rest) {
                    read(&mut decoder);
                }
            }
            _ => {}
        }
    }
    out
}

/// The bodies that follow heads and are chunked, without extensions.
fn chunked_bodies(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    for (start, _) in bytes.windows(4).enumerate().filter(|(_, end)| *end == b"\r\n\r\n") {
        let mut rest = &bytes[start + 4..];
        let mut body = Vec::new();
        while let Some(end) = rest.windows(2).position(|end| end == b"\r\n") {
            let size = std::str::from_utf8(&rest[..end]).unwrap_or_default().split(';').next().unwrap_or_default();
            let Ok(size) = usize::from_str_radix(size, 16) else { break };
            let chunk = &rest[end + 2..];
            let size = size.min(chunk.len());
            body.extend(&chunk[..size]);
            rest = chunk[size..].strip_prefix(b"\r\n").unwrap_or_default();
            if size == 0 {
                break;
            }
        }
        if !body.is_empty() {
            out.push(body);
        }
    }
    out
}

/// The DATA of each stream of HTTP/2.
fn data_of_streams(bytes: &[u8]) -> Vec<Vec<u8>> {
    // The preface of a client, or the settings of a server.
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let start = bytes.windows(preface.len()).position(|window| window == preface).map(|start| start + preface.len());
    let Some(mut rest) =
        start.map(|start| &bytes[start..]).or_else(|| bytes.starts_with(&[0, 0, 6, 4]).then_some(bytes))
    else {
        return Vec::new();
    };
    let mut streams: HashMap<[u8; 4], Vec<u8>> = HashMap::new();
    while let Some(([a, b, c, kind, flags, stream @ ..], after)) = rest.split_first_chunk::<9>() {
        let len = usize::try_from(u32::from_be_bytes([0, *a, *b, *c])).unwrap().min(after.len());
        let (mut payload, after) = after.split_at(len);
        rest = after;
        if *kind != super::http2::DATA {
            continue;
        }
        if flags & 8 != 0
            && let Some((pad, padded)) = payload.split_first()
        {
            payload = &padded[..padded.len().saturating_sub(usize::from(*pad))];
        }
        streams.entry(*stream).or_default().extend(payload);
    }
    streams.into_values().collect()
}

/// The compressed messages of WebSocket after a head, each in one frame.
fn deflated_messages(bytes: &[u8]) -> Vec<Vec<u8>> {
    let lower = String::from_utf8_lossy(bytes).to_ascii_lowercase();
    let Some(end) =
        bytes.windows(4).position(|end| end == b"\r\n\r\n").filter(|_| lower.contains("permessage-deflate"))
    else {
        return Vec::new();
    };
    let mut rest = &bytes[end + 4..];
    let mut out = Vec::new();
    while let Some(([first, second], after)) = rest.split_first_chunk::<2>() {
        let (key, after) = match second & 0x80 {
            0 => ([0; 4], after),
            _ => after.split_first_chunk().map_or(([0; 4], [].as_slice()), |(key, after)| (*key, after)),
        };
        let (payload, after) = after.split_at(usize::from(second & 0x7f).min(after.len()));
        rest = after;
        let mut payload: Vec<u8> = payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key).collect();
        if first & 0x40 != 0 {
            payload.extend([0, 0, 0xff, 0xff]);
            let mut message = Vec::new();
            let _ = flate2::read::DeflateDecoder::new(payload.as_slice()).read_to_end(&mut message);
            out.push(message);
        }
    }
    out
}
