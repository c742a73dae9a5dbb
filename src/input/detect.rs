//! Detects the encoding of a source by its first bytes. Its name only breaks ties.
//!
//! Extensions get lost in practice, and Envoy gives both JSON encodings the same one.

mod evidence;
#[cfg(test)]
mod tests;

use std::{fmt, path::Path};

use clap::ValueEnum;
use memchr::memmem;

use self::evidence::Evidence;
use super::{archive, binary::BinaryDecoder, delimited::DelimitedDecoder, discover::unpacked, wire::Scanner};
use crate::trace::{TraceKind, WireFault};

/// The encodings of a trace file. The two JSON ones differ only in the field that holds a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub enum Encoding {
    /// PROTO_BINARY.
    #[value(help = "PROTO_BINARY: messages back to back")]
    Binary,
    /// PROTO_BINARY_LENGTH_DELIMITED.
    Delimited,
    /// PROTO_TEXT.
    Text,
    /// JSON_BODY_AS_BYTES and JSON_BODY_AS_STRING.
    #[value(help = "JSON_BODY_AS_BYTES or JSON_BODY_AS_STRING")]
    Json,
}

impl Encoding {
    /// The word that people read and write.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Binary => "binary",
            Self::Delimited => "delimited",
            Self::Text => "text",
            Self::Json => "json",
        }
    }

    /// The encoding that Envoy writes under this name's suffix, without the suffix of a packed file.
    #[must_use]
    pub fn from_suffix(path: &Path) -> Option<Self> {
        match unpacked(path).extension()?.to_str()? {
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
    /// Something else.
    Other(Likeness),
}

/// What the first bytes look like if they are not those of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Likeness {
    /// A pcapng capture.
    Pcapng,
    /// A pcap capture.
    Pcap,
    /// An image.
    Image,
    /// An HTML page.
    Html,
    /// An XML document.
    Xml,
    /// gzip data within more layers than are taken off.
    Gzip,
    /// Zstandard data within more layers than are taken off.
    Zstandard,
    /// A tar archive, where only one trace is read.
    Tar,
    /// A ZIP archive, where only one trace is read.
    Zip,
    /// JSON without a tap trace. Directories of traces hold such files too.
    OtherJson,
    /// A JSON array.
    JsonArray,
    /// Only white space.
    Blank,
    /// Text of no known kind.
    Text,
    /// A protobuf message of some other type, or of any type.
    Protobuf,
    /// Nothing that is known.
    Nothing,
}

impl fmt::Display for Likeness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pcapng => "it is a pcapng capture already",
            Self::Pcap => "it is a pcap capture already",
            Self::Image => "it is an image",
            Self::Html => "it is an HTML page (an error page saved as a file?)",
            Self::Xml => "it is an XML document",
            Self::Gzip => "it is gzip data",
            Self::Zstandard => "it is Zstandard data",
            Self::Tar => "it is a tar archive",
            Self::Zip => "it is a ZIP archive",
            Self::OtherJson => "it is JSON, but holds none of a tap trace's fields",
            Self::JsonArray => "it is a JSON array; Envoy writes objects one after another",
            Self::Blank => "it holds only white space",
            Self::Text => "it is text, but neither JSON nor protobuf text",
            Self::Protobuf => "it may be a protobuf message, but it has nothing that only a tap trace has",
            Self::Nothing => "none of Envoy's five formats fits its first bytes",
        })
    }
}

/// Recognises the encoding of a source by its first bytes, which will not grow; `path` breaks ties.
#[must_use]
pub fn detect(head: &[u8], path: &Path) -> Detected {
    recognise(head, path, false).unwrap_or_else(|| Detected::Other(looks_like(head)))
}

/// Like [`detect`], but if `more` bytes may come, `None` says that they are needed.
///
/// More bytes never change an answer, so it does not depend on how the bytes arrive.
pub(super) fn recognise(head: &[u8], path: &Path, more: bool) -> Option<Detected> {
    if let Some(other) = capture(head) {
        return Some(Detected::Other(other));
    }
    if archive::Kind::of(head) == Some(archive::Kind::Tar) {
        return Some(Detected::Other(Likeness::Tar));
    }
    let is_json = starts_json(head);
    if is_json && has_key(head) {
        return Some(Detected::Trace(Encoding::Json));
    }
    if starts_text(head) && has_field(head) {
        return Some(Detected::Trace(Encoding::Text));
    }
    let binary = Evidence::of(&mut BinaryDecoder::default(), head, more);
    let delimited = Evidence::of(&mut DelimitedDecoder::default(), head, more);
    let by_name = Encoding::from_suffix(path);
    let found = match (binary.found_at(), delimited.found_at()) {
        (Some(binary), Some(delimited)) if binary == delimited && by_name == Some(Encoding::Delimited) => {
            Some(Encoding::Delimited)
        }
        (Some(binary), Some(delimited)) if delimited < binary => Some(Encoding::Delimited),
        (Some(_), _) => Some(Encoding::Binary),
        (None, Some(_)) => Some(Encoding::Delimited),
        (None, None) if more => None,
        // It may be a trace, but there is too little of it to tell it from other protobuf messages. The name decides.
        (None, None) => match by_name {
            Some(Encoding::Binary) if binary.is_possible() => by_name,
            Some(Encoding::Delimited) if delimited.is_possible() => by_name,
            _ => None,
        },
    };
    match found {
        Some(encoding) => Some(Detected::Trace(encoding)),
        None if more => None,
        None => Some(Detected::Other(if is_json { Likeness::OtherJson } else { looks_like(head) })),
    }
}

fn after_blanks(head: &[u8]) -> &[u8] {
    head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start()
}

/// The fields of `TraceWrapper` that hold a trace, in both spellings of JSON.
const NAMES: [&str; 8] = [
    "http_buffered_trace",
    "http_streamed_trace_segment",
    "socket_buffered_trace",
    "socket_streamed_trace_segment",
    "httpBufferedTrace",
    "httpStreamedTraceSegment",
    "socketBufferedTrace",
    "socketStreamedTraceSegment",
];

/// Whether one of the names is a key in the head: in quotes and before a colon. It need not be the first key, because a
/// newer Envoy may write others before it.
fn has_key(head: &[u8]) -> bool {
    NAMES.iter().any(|name| {
        memmem::find_iter(head, name.as_bytes()).any(|at| {
            let after = head[at + name.len()..].strip_prefix(b"\"").unwrap_or_default();
            head[..at].ends_with(b"\"") && after.trim_ascii_start().starts_with(b":")
        })
    })
}

/// Whether one of the names is a field in the head: a whole word before an opening brace.
fn has_field(head: &[u8]) -> bool {
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    TraceKind::ALL.iter().any(|kind| {
        let name = kind.field_name();
        memmem::find_iter(head, name.as_bytes()).any(|at| {
            let after = head[at + name.len()..].trim_ascii_start();
            let is_whole = !head[..at].last().is_some_and(is_word);
            is_whole && matches!(after.strip_prefix(b":").unwrap_or(after).trim_ascii_start(), [b'{' | b'<', ..])
        })
    })
}

/// `{`, then a key or the end of an empty object.
fn starts_json(head: &[u8]) -> bool {
    let Some(object) = after_blanks(head).strip_prefix(b"{") else { return false };
    match after_blanks(object) {
        [b'"', name @ ..] => {
            let word = name.first().is_none_or(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'@'));
            // A length of 123 and the tag of a streamed segment look like `{"` too, but more lengths and tags follow
            // them, and those do not look like a key.
            word && name.iter().take_while(|byte| **byte != b'"').all(|byte| *byte >= b' ')
        }
        [b'}', ..] => true,
        // `{` and nothing more is not a binary message, because none is that short.
        [] => true,
        _ => false,
    }
}

/// Comments, then a field name before a message or a value.
fn starts_text(head: &[u8]) -> bool {
    let mut rest = after_blanks(head);
    while let Some(comment) = rest.strip_prefix(b"#") {
        let Some(line) = memchr::memchr(b'\n', comment) else { return false };
        rest = comment[line..].trim_ascii_start();
    }
    let name = rest.iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count();
    name > 0 && rest[0].is_ascii_lowercase() && matches!(after_blanks(&rest[name..]), [b'{' | b'<' | b':', ..])
}

/// Recognises captures by their magic numbers. They are often in the same directory as traces.
fn capture(head: &[u8]) -> Option<Likeness> {
    let starts = |prefixes: &[&[u8]]| prefixes.iter().any(|prefix| head.starts_with(prefix));
    if starts(&[b"\x0a\x0d\x0d\x0a"]) {
        Some(Likeness::Pcapng)
    } else if starts(&[b"\xd4\xc3\xb2\xa1", b"\xa1\xb2\xc3\xd4", b"\x4d\x3c\xb2\xa1", b"\xa1\xb2\x3c\x4d"]) {
        Some(Likeness::Pcap)
    } else {
        None
    }
}

/// Whether the head consists of protobuf fields. The last one may be incomplete.
fn is_protobuf(head: &[u8]) -> bool {
    let mut scan = Scanner::new(head, 0, head.len(), false);
    while !scan.is_empty() {
        match scan.tag().and_then(|tag| scan.skip(tag)) {
            Ok(()) => {}
            Err(error) => {
                return error.at > 0 && matches!(error.reason, WireFault::EndInField | WireFault::Overlong { .. });
            }
        }
    }
    !head.is_empty()
}

/// What the first bytes look like if they are not those of a trace.
fn looks_like(head: &[u8]) -> Likeness {
    let text = after_blanks(head);
    let starts = |prefixes: &[&[u8]]| prefixes.iter().any(|prefix| head.starts_with(prefix));
    let tag = |word: &[u8]| text.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word));
    if let Some(capture) = capture(head) {
        capture
    } else if starts(&[b"\x89PNG", b"\xff\xd8\xff", b"GIF8"]) {
        Likeness::Image
    } else if tag(b"<!doctype html") || tag(b"<html") || tag(b"<head") || tag(b"<body") {
        Likeness::Html
    } else if tag(b"<?xml") {
        Likeness::Xml
    } else if starts(&[b"\x1f\x8b"]) {
        Likeness::Gzip
    } else if starts(&[b"\x28\xb5\x2f\xfd"]) {
        Likeness::Zstandard
    } else if archive::Kind::of(head) == Some(archive::Kind::Zip) {
        Likeness::Zip
    } else if text.starts_with(b"[") {
        Likeness::JsonArray
    } else if text.is_empty() {
        Likeness::Blank
    } else if head.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace()) {
        Likeness::Text
    } else if is_protobuf(head) {
        Likeness::Protobuf
    } else {
        Likeness::Nothing
    }
}
