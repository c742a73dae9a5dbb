//! Which encoding a source is in, by its first bytes; its name only breaks a tie.
//!
//! Extensions get lost in practice, and Envoy gives both JSON encodings the same one.

use std::{cmp::Ordering, path::Path};

use memchr::memmem;

use super::{
    error::OTHER_JSON,
    wire::{self, LEN, Reason, Scanner, WireError},
};
use crate::trace::{Message, TraceKind};

/// The encodings of a trace file. The two JSON ones differ only in the field that holds a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// PROTO_BINARY.
    Binary,
    /// PROTO_BINARY_LENGTH_DELIMITED.
    Delimited,
    /// PROTO_TEXT.
    Text,
    /// JSON_BODY_AS_BYTES and JSON_BODY_AS_STRING.
    Json,
}

impl Encoding {
    /// The word of `--from`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Binary => "binary",
            Self::Delimited => "delimited",
            Self::Text => "text",
            Self::Json => "json",
        }
    }

    /// The encoding that Envoy writes under this name's suffix.
    #[must_use]
    pub fn from_suffix(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "pb" => Some(Self::Binary),
            "pb_length_delimited" => Some(Self::Delimited),
            "pb_text" => Some(Self::Text),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

/// The outcome of looking at the first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detected {
    /// One of the five encodings.
    Trace(Encoding),
    /// Something else, described for people.
    Other(&'static str),
}

/// Recognises the encoding of a source by its first bytes; `path` breaks a tie between the two binary encodings.
#[must_use]
pub fn detect(head: &[u8], path: &Path) -> Detected {
    if starts_json(head) {
        return if names_trace(head) { Detected::Trace(Encoding::Json) } else { Detected::Other(OTHER_JSON) };
    }
    if starts_text(head) && names_trace(head) {
        return Detected::Trace(Encoding::Text);
    }
    let (binary, delimited) = (fits_binary(head), fits_delimited(head));
    let delimited_by_name = Encoding::from_suffix(path) == Some(Encoding::Delimited);
    match binary.cmp(&delimited) {
        Ordering::Equal if binary == Fit::No => Detected::Other(looks_like(head)),
        Ordering::Equal if delimited_by_name => Detected::Trace(Encoding::Delimited),
        Ordering::Equal | Ordering::Greater => Detected::Trace(Encoding::Binary),
        Ordering::Less => Detected::Trace(Encoding::Delimited),
    }
}

fn after_blanks(head: &[u8]) -> &[u8] {
    head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start()
}

/// Whether a field of `TraceWrapper` is named in the head. A newer Envoy may begin with another one.
fn names_trace(head: &[u8]) -> bool {
    let names = ["http_buffered_trace", "http_streamed_trace_segment", "socket_buffered_trace"]
        .into_iter()
        .chain(["socket_streamed_trace_segment", "httpBufferedTrace", "httpStreamedTraceSegment"])
        .chain(["socketBufferedTrace", "socketStreamedTraceSegment", "configured_sample_rate"]);
    names
        .map(str::as_bytes)
        .any(|name| memmem::find(head, name).is_some() || (1..name.len()).any(|length| head.ends_with(&name[..length])))
}

/// `{`, then a field name or the end of an empty object.
fn starts_json(head: &[u8]) -> bool {
    let Some(object) = after_blanks(head).strip_prefix(b"{") else { return false };
    match after_blanks(object) {
        [b'"', name @ ..] => name.first().is_none_or(|byte| byte.is_ascii_alphanumeric() || *byte == b'_'),
        [b'}', ..] => true,
        // `{` and nothing more: no binary message is that short.
        [] => true,
        _ => false,
    }
}

/// Comments, then a field name that opens a message.
fn starts_text(head: &[u8]) -> bool {
    let mut rest = after_blanks(head);
    while let Some(comment) = rest.strip_prefix(b"#") {
        let Some(line) = memchr::memchr(b'\n', comment) else { return true };
        rest = comment[line..].trim_ascii_start();
    }
    let name = rest.iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count();
    let opens = matches!(after_blanks(&rest[name..]), [b'{' | b'<' | b':', ..]);
    let cut = rest.len() == name && TraceKind::ALL.iter().any(|kind| kind.field_name().as_bytes().starts_with(rest));
    name > 0 && rest[0].is_ascii_lowercase() && (opens || cut)
}

/// How well bytes fit an encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    No,
    /// With fields that this version does not know.
    Strange,
    Good,
}

fn fits_binary(head: &[u8]) -> Fit {
    let mut scan = Scanner::new(head, 0, head.len(), false);
    let Ok(tag) = scan.tag() else { return Fit::No };
    let Some(kind) = TraceKind::from_field_number(tag.field).filter(|_| tag.wire_type == LEN) else { return Fit::No };
    let Ok(len) = scan.varint() else { return Fit::No };
    fit(head, scan.position(), len, |scan, out| wire::trace(kind, scan, out))
}

fn fits_delimited(head: &[u8]) -> Fit {
    let mut scan = Scanner::new(head, 0, head.len(), false);
    let Ok(len) = scan.varint() else { return Fit::No };
    fit(head, scan.position(), len, wire::wrapper)
}

/// Decodes the message of `len` bytes at `start`, as far as it is there. A length beyond all measure is no reason to
/// say that this is not a trace: the decoder then says what is wrong with it.
fn fit(
    head: &[u8],
    start: usize,
    len: u64,
    decode: impl FnOnce(Scanner<'_>, &mut Message) -> Result<(), Box<WireError>>,
) -> Fit {
    let whole = usize::try_from(len).ok().and_then(|len| start.checked_add(len)).filter(|end| *end <= head.len());
    let mut out = Message::default();
    let decoded = decode(Scanner::new(head, start, whole.unwrap_or(head.len()), whole.is_none()), &mut out);
    let readable = match decoded {
        Ok(()) => true,
        // The head may end in the middle of a number.
        Err(error) => whole.is_none() && error.reason == Reason::EndInField,
    };
    let socket = out.trace_id != 0 || out.connection.is_some() || !out.events.is_empty();
    let meaningful = socket || !out.http.is_empty();
    // A few bytes of the start of a message fit nearly anything, so they must say something.
    match (readable && out.kind.is_some(), out.unknown.total()) {
        (true, 0) if meaningful || whole.is_some() => Fit::Good,
        (true, _) if meaningful => Fit::Strange,
        _ => Fit::No,
    }
}

/// What the first bytes look like, for the message that refuses them.
fn looks_like(head: &[u8]) -> &'static str {
    let text = after_blanks(head);
    let starts = |prefixes: &[&[u8]]| prefixes.iter().any(|prefix| head.starts_with(prefix));
    let tag = |word: &[u8]| text.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word));
    if starts(&[b"\x0a\x0d\x0d\x0a"]) {
        "it is a pcapng capture already"
    } else if starts(&[b"\xd4\xc3\xb2\xa1", b"\xa1\xb2\xc3\xd4", b"\x4d\x3c\xb2\xa1", b"\xa1\xb2\x3c\x4d"]) {
        "it is a pcap capture already"
    } else if starts(&[b"\x89PNG", b"\xff\xd8\xff", b"GIF8"]) {
        "it is an image"
    } else if tag(b"<!doctype html") || tag(b"<html") || tag(b"<head") || tag(b"<body") {
        "it is an HTML page (an error page saved as a file?)"
    } else if tag(b"<?xml") {
        "it is an XML document"
    } else if starts(&[b"\x1f\x8b"]) {
        "it is gzip data"
    } else if starts(&[b"\x28\xb5\x2f\xfd"]) {
        "it is Zstandard data"
    } else if starts(&[b"PK\x03\x04"]) {
        "it is a ZIP archive"
    } else if text.starts_with(b"[") {
        "it is a JSON array; Envoy writes objects one after another"
    } else if text.is_empty() {
        "it holds only white space"
    } else if head.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace()) {
        "it is text, but neither JSON nor protobuf text"
    } else {
        "none of Envoy's five formats fits its first bytes"
    }
}
