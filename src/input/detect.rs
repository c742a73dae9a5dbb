//! Detects the encoding of a source by its first bytes. Its name only breaks ties.
//!
//! Extensions get lost in practice, and Envoy gives both JSON encodings the same one.

mod enveloped;
mod evidence;
mod likeness;
#[cfg(test)]
mod tests;

use std::path::Path;

use clap::ValueEnum;
use memchr::memmem;

pub use self::enveloped::FieldPath;
pub(super) use self::enveloped::holds_trace;
use self::evidence::Evidence;
pub use self::likeness::{FirstBytes, Likeness};
use super::{
    archive,
    binary::BinaryDecoder,
    decode::BYTE_ORDER_MARK,
    delimited::DelimitedDecoder,
    discover::unpacked,
    outline::{InString, Outline, wrapper_key},
    wire::WireFraming,
};
use crate::trace::TraceKind;

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
    /// Protobuf messages that hold traces.
    Enveloped {
        /// How those messages are framed: [`Encoding::Binary`] or [`Encoding::Delimited`].
        encoding: Encoding,
        /// Where the traces are in them.
        path: FieldPath,
    },
    /// Something else.
    Other(Likeness),
}

/// Recognises the encoding of a source by its first bytes, which will not grow; `path` breaks ties.
#[must_use]
pub fn detect(head: &[u8], path: &Path) -> Detected {
    recognise(head, path, false).unwrap_or_else(|| Detected::Other(likeness::of(head)))
}

/// Like [`detect`], but if `more` bytes may come, `None` says that they are needed.
///
/// More bytes never change an answer, so it does not depend on how the bytes arrive.
pub(super) fn recognise(head: &[u8], path: &Path, more: bool) -> Option<Detected> {
    if let Some(other) = likeness::capture(head) {
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
    if let Some(damage) = damage(head, binary, delimited) {
        return Some(Detected::Other(damage));
    }
    // An envelope that ends before that is what it would be if nothing had followed it yet.
    let first =
        [binary, delimited].iter().filter_map(|evidence| Some((evidence.found_at()?, evidence.is_late()))).min();
    let envelope = match first {
        None => enveloped(head, more),
        Some((at, true)) => enveloped(&head[..at - 1], true),
        Some((_, false)) => None,
    };
    if envelope.is_some() {
        return envelope;
    }
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
        None => Some(Detected::Other(match likeness::of(head) {
            // It is JSON with a fault, or in another character set.
            Likeness::Text(_) | Likeness::Nothing(_) if is_json => Likeness::OtherJson,
            other => other,
        })),
    }
}

/// What was done to a binary trace that can still be recognised, but not read.
fn damage(head: &[u8], binary: Evidence, delimited: Evidence) -> Option<Likeness> {
    let evidence = [binary, delimited].into_iter().filter(|evidence| evidence.is_contradicted() || evidence.is_cut());
    let seen = &head[..evidence.filter_map(|evidence| evidence.found_at()).min()?];
    if likeness::is_terminal_damage(seen) {
        Some(Likeness::TerminalDamage)
    } else if likeness::is_utf8_damage(seen) {
        Some(Likeness::Utf8Damage)
    } else {
        None
    }
}

/// Protobuf messages that hold traces, framed as `TraceWrapper` is in either encoding.
fn enveloped(head: &[u8], more: bool) -> Option<Detected> {
    let bare = enveloped::find(WireFraming::Bare, head, more);
    let delimited = enveloped::find(WireFraming::Delimited, head, more);
    match (bare, delimited) {
        (Some(bare), Some(delimited)) if delimited.at < bare.at => Some((Encoding::Delimited, delimited)),
        (Some(bare), _) => Some((Encoding::Binary, bare)),
        (None, delimited) => delimited.map(|found| (Encoding::Delimited, found)),
    }
    .map(|(encoding, found)| Detected::Enveloped { encoding, path: found.path })
}

/// What the bytes are if they are a binary trace or hold one, and nothing speaks against it.
fn binary_trace(bytes: &[u8]) -> Option<Detected> {
    let binary = Evidence::of(&mut BinaryDecoder::default(), bytes, false);
    let delimited = Evidence::of(&mut DelimitedDecoder::default(), bytes, false);
    let is_sound = |evidence: &Evidence| evidence.found_at().is_some() && !evidence.is_contradicted();
    if is_sound(&binary) {
        Some(Detected::Trace(Encoding::Binary))
    } else if is_sound(&delimited) {
        Some(Detected::Trace(Encoding::Delimited))
    } else {
        enveloped(bytes, false)
    }
}

fn after_blanks(head: &[u8]) -> &[u8] {
    head.strip_prefix(BYTE_ORDER_MARK).unwrap_or(head).trim_ascii_start()
}

/// Whether an object of the head has a key of `TraceWrapper`, directly in it and before a colon. It need not be the
/// first key, because a newer Envoy may write others before it.
fn has_key(head: &[u8]) -> bool {
    let mut outline = Outline::default();
    let mut at = 0;
    while let Some(byte) = head.get(at) {
        at += 1;
        if *byte != b'"' {
            outline.byte(*byte);
            continue;
        }
        if outline.depth() == 1 && outline.at_key() && wrapper_key(&head[at - 1..]).is_ok() {
            return true;
        }
        outline.string();
        let Some(len) = InString::default().end(&head[at..]) else { return false };
        at += len;
    }
    false
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

/// Comments, then a field name before a message or a value. In YAML a line may end with what says that its value is on
/// the next ones.
fn starts_text(head: &[u8]) -> bool {
    let mut rest = after_blanks(head);
    while let Some(comment) = rest.strip_prefix(b"#") {
        let Some(line) = memchr::memchr(b'\n', comment) else { return false };
        rest = comment[line..].trim_ascii_start();
    }
    let name = rest.iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count();
    let begins =
        name > 0 && rest[0].is_ascii_lowercase() && matches!(after_blanks(&rest[name..]), [b'{' | b'<' | b':', ..]);
    begins && !is_yaml_key(rest)
}

/// Whether the text begins with lines of YAML, up to one whose value is on the next ones: `key:` or `key: |2-`.
fn is_yaml_key(text: &[u8]) -> bool {
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let is_whole = line.ends_with(b"\n");
        let line = line.trim_ascii_end();
        let signs = line.iter().rev().take_while(|byte| byte.is_ascii_digit() || matches!(byte, b'+' | b'-')).count();
        match line[..line.len() - signs] {
            [.., b':'] if signs == 0 && is_whole => return true,
            [.., b':', b' ', b'|' | b'>'] => return true,
            [.., b'{' | b'<'] => return false,
            _ => {}
        }
    }
    false
}
