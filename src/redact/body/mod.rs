//! Bodies, whose bytes come in pieces.

mod json;
mod multipart;
#[cfg(test)]
mod tests;
mod text;

pub(super) use self::text::{Mode, Text, is_plain};
use self::{json::Json, multipart::Multipart};
use super::{Counts, Kind, Redaction, mask};

/// How many multipart bodies may be in one another.
const MAX_NESTED: u8 = 4;

/// Takes the secrets out of one body. The pieces may be of any size. What a piece ends in is masked if it may be a secret,
/// but is not yet known to be one.
#[derive(Debug)]
pub(crate) struct Body {
    scanner: Scanner,
    /// What the first bytes tell, until it is known.
    opening: Option<Opening>,
}

/// The first bytes of a body that should be text. Some senders do not say that it is packed, or in UTF-16.
#[derive(Debug, Default)]
struct Opening {
    bytes: [u8; 4],
    length: usize,
}

/// How packed bodies begin: gzip, Zstandard, zlib, ZIP and bzip2.
const PACKED: [&[u8]; 8] =
    [b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda", b"PK\x03\x04", b"BZh"];

impl Opening {
    /// Takes the next byte. Returns whether nobody can read the body as text, once that is known.
    fn push(&mut self, byte: u8) -> Option<bool> {
        if let Some(place) = self.bytes.get_mut(self.length) {
            *place = byte;
            self.length += 1;
        }
        let bytes = self.bytes.get(..self.length).unwrap_or_default();
        // UTF-16 with a byte order mark, or with a letter of ASCII, which has a zero before or after it.
        let is_utf16 = matches!(bytes, [0] | [_, 0] | [0xff, 0xfe] | [0xfe, 0xff]);
        if is_utf16 || PACKED.contains(&bytes) {
            return Some(true);
        }
        (self.length > 1 && !PACKED.iter().any(|packed| packed.starts_with(bytes))).then_some(false)
    }
}

#[derive(Debug)]
enum Scanner {
    /// The first byte that is not blank tells whether it is JSON.
    Start {
        mode: Mode,
        strict: bool,
    },
    Json(Box<Json>),
    Text(Box<Text>),
    Multipart(Box<Multipart>),
    /// Messages of gRPC in JSON.
    Grpc(Box<Grpc>),
    /// Nothing is looked for.
    Binary,
    /// Every byte is masked.
    Masked {
        counted: bool,
    },
}

impl Body {
    /// A body of this `content-type`.
    pub(crate) fn new(redaction: &Redaction, content_type: Option<&[u8]>) -> Self {
        if redaction.bodies { Self::masked() } else { Self::nested(content_type, 0) }
    }

    fn with(scanner: Scanner) -> Self {
        Self { scanner, opening: None }
    }

    fn masked() -> Self {
        Self::with(Scanner::Masked { counted: false })
    }

    /// The value of a field that looks like JSON.
    pub(super) fn of_field() -> Self {
        Self::with(Scanner::Start { mode: Mode::Field, strict: false })
    }

    fn text() -> Self {
        Self::with(Scanner::Text(Box::new(Text::new(Mode::Text, Kind::Text))))
    }

    /// The body of a part, so deep inside of others.
    fn nested(content_type: Option<&[u8]>, depth: u8) -> Self {
        let mut body = Self::of_type(content_type.unwrap_or_default().trim_ascii(), depth);
        // Messages of gRPC begin with zeros.
        let is_grpc = content_type.is_some_and(|it| starts_with(it.trim_ascii(), b"application/grpc"));
        body.opening = match body.scanner {
            Scanner::Start { .. } | Scanner::Multipart(_) if !is_grpc => Some(Opening::default()),
            _ => None,
        };
        body
    }

    fn of_type(content_type: &[u8], depth: u8) -> Self {
        if content_type.is_empty() {
            return Self::with(Scanner::Start { mode: Mode::Untyped, strict: false });
        }
        let lower = content_type.to_ascii_lowercase();
        let essence = essence(&lower);
        let has = |part: &[u8]| memchr::memmem::find(essence, part).is_some();
        if essence.starts_with(b"multipart/") {
            return match multipart::boundary(content_type) {
                Some(boundary) if depth < MAX_NESTED => {
                    Self::with(Scanner::Multipart(Box::new(Multipart::new(&boundary, depth + 1))))
                }
                _ => Self::masked(),
            };
        }
        if essence.starts_with(b"application/grpc") && essence.ends_with(b"+json") {
            return Self::with(Scanner::Grpc(Box::default()));
        }
        // It is base64 of frames.
        if essence.starts_with(b"application/grpc-web-text") {
            return Self::masked();
        }
        if is_binary(&lower) {
            return Self::with(Scanner::Binary);
        }
        // In these, each letter has zeros around it.
        if [b"utf-16".as_slice(), b"utf16", b"utf-32", b"ucs-"]
            .iter()
            .any(|it| memchr::memmem::find(&lower, it).is_some())
        {
            return Self::masked();
        }
        let strict = has(b"json");
        let mode = if essence == b"application/x-www-form-urlencoded" {
            Mode::Form
        } else if has(b"html") || has(b"xml") {
            Mode::Markup
        } else if has(b"script") || essence == b"text/css" {
            Mode::Script
        } else {
            Mode::Text
        };
        Self::with(Scanner::Start { mode, strict })
    }

    /// Takes the next bytes, whose number stays the same.
    pub(crate) fn data(&mut self, bytes: &mut [u8], counts: &mut Counts) {
        let known = self
            .opening
            .as_mut()
            .and_then(|opening| bytes.iter().enumerate().find_map(|(at, byte)| Some((at, opening.push(*byte)?))));
        let Some((at, is_unreadable)) = known else { return self.scan(bytes, counts) };
        self.opening = None;
        if !is_unreadable {
            return self.scan(bytes, counts);
        }
        // What is before has no more than the mark of what packed it.
        let (before, rest) = bytes.split_at_mut(at);
        self.scan(before, counts);
        *self = Self::masked();
        self.scan(rest, counts);
    }

    fn scan(&mut self, bytes: &mut [u8], counts: &mut Counts) {
        match &mut self.scanner {
            Scanner::Start { mode, strict } => {
                let (mode, strict) = (*mode, *strict);
                self.start(mode, strict, bytes, counts);
            }
            Scanner::Json(json) => json.data(bytes, counts),
            Scanner::Text(text) => text.data(bytes, counts),
            Scanner::Multipart(multipart) => multipart.data(bytes, counts),
            Scanner::Grpc(grpc) => grpc.data(bytes, counts),
            Scanner::Binary => {}
            Scanner::Masked { counted } => {
                mask(bytes);
                if !bytes.is_empty() && !std::mem::replace(counted, true) {
                    counts.add(Kind::Body, 1);
                }
            }
        }
    }

    fn start(&mut self, mode: Mode, strict: bool, bytes: &mut [u8], counts: &mut Counts) {
        // Blank, or a byte order mark.
        let is_skipped = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | 0xef | 0xbb | 0xbf);
        let Some(first) = bytes.iter().position(|byte| !is_skipped(byte)) else { return };
        let is_json = match bytes[first] {
            b'{' | b'[' => true,
            b'"' | b'-' | b'0'..=b'9' | b't' | b'f' | b'n' => strict,
            _ => false,
        };
        self.scanner = if is_json {
            Scanner::Json(Box::new(Json::new(strict, mode)))
        } else {
            let kind = match mode {
                Mode::Form | Mode::Untyped => Kind::Form,
                Mode::Field => Kind::Field,
                _ => Kind::Text,
            };
            Scanner::Text(Box::new(Text::new(mode, kind)))
        };
        self.scan(&mut bytes[first..], counts);
    }

    /// Bytes are missing. What follows cannot be read any more, and is masked.
    pub(crate) fn lose(&mut self) {
        if !matches!(self.scanner, Scanner::Binary | Scanner::Masked { .. }) {
            *self = Self::masked();
        }
    }
}

/// What a body is read as whose head has both types: as the first if they say the same, and never as binary.
pub(super) fn strictest(one: Vec<u8>, other: &[u8]) -> Vec<u8> {
    if one.trim_ascii().eq_ignore_ascii_case(other.trim_ascii()) {
        return one;
    }
    // Without a boundary, all of it is masked. So it is for a charset that cannot be read.
    let is_strict = |it: &[u8]| {
        let it = it.trim_ascii();
        matches!(Body::of_type(it, 0).scanner, Scanner::Multipart(_) | Scanner::Masked { .. })
    };
    if is_strict(&one) || is_strict(other) { b"multipart/mixed".to_vec() } else { Vec::new() }
}

fn starts_with(text: &[u8], prefix: &[u8]) -> bool {
    text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

fn essence(content_type: &[u8]) -> &[u8] {
    let end = memchr::memchr2(b';', b',', content_type).unwrap_or(content_type.len());
    content_type[..end].trim_ascii()
}

/// Whether nothing in a body of this type, which has lower case, can be read as text.
fn is_binary(content_type: &[u8]) -> bool {
    // Several fields may have become one (RFC 9110 section 5.3).
    content_type.split(|byte| *byte == b',').all(is_one_binary)
}

fn is_one_binary(content_type: &[u8]) -> bool {
    let essence = essence(content_type);
    let (kind, subtype) = essence.split_at(memchr::memchr(b'/', essence).map_or(0, |solidus| solidus + 1));
    if subtype.ends_with(b"xml") || subtype.ends_with(b"json") {
        return false;
    }
    match kind {
        b"image/" | b"audio/" | b"video/" | b"font/" => true,
        b"application/" => {
            subtype.ends_with(b"protobuf")
                || subtype.ends_with(b"+proto") && !subtype.starts_with(b"grpc-web")
                || subtype.ends_with(b"+zip")
                || subtype.ends_with(b"cbor")
                || subtype.ends_with(b"msgpack")
                || subtype.starts_with(b"vnd.openxmlformats")
                || matches!(
                    subtype,
                    b"octet-stream"
                        | b"grpc"
                        | b"zip"
                        | b"gzip"
                        | b"x-gzip"
                        | b"zstd"
                        | b"x-bzip2"
                        | b"x-xz"
                        | b"x-tar"
                        | b"x-7z-compressed"
                        | b"vnd.rar"
                        | b"pdf"
                        | b"wasm"
                        | b"x-thrift"
                        | b"ocsp-request"
                        | b"ocsp-response"
                        | b"dns-message"
                )
        }
        _ => false,
    }
}

/// The messages of gRPC whose encoding is JSON, each with a head of five bytes: whether it is packed, and its length.
#[derive(Debug, Default)]
struct Grpc {
    head: [u8; 5],
    have: usize,
    /// Bytes of the message that are still to come.
    left: u32,
    message: Option<Json>,
}

impl Grpc {
    fn data(&mut self, mut bytes: &mut [u8], counts: &mut Counts) {
        while !bytes.is_empty() {
            if self.left == 0 {
                let taken = (self.head.len() - self.have).min(bytes.len());
                self.head[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
                self.have += taken;
                bytes = &mut bytes[taken..];
                if self.have == self.head.len() {
                    let [flags, length @ ..] = self.head;
                    (self.have, self.left) = (0, u32::from_be_bytes(length));
                    // What is packed cannot be read. The trailers of gRPC-Web are no JSON, and become text.
                    self.message = (flags & 1 == 0).then(|| Json::new(flags == 0, Mode::Text));
                    if self.message.is_none() && self.left > 0 {
                        counts.add(Kind::Body, 1);
                    }
                }
                continue;
            }
            let taken = usize::try_from(self.left).map_or(bytes.len(), |left| left.min(bytes.len()));
            let (now, rest) = bytes.split_at_mut(taken);
            match &mut self.message {
                Some(message) => message.data(now, counts),
                None => mask(now),
            }
            self.left -= u32::try_from(taken).unwrap_or(self.left);
            bytes = rest;
        }
    }
}
