//! Heads and trailer sections of HTTP/1, whose values are replaced where they stand.

use std::ops::Range;

use super::{Counts, Kind, Redaction, message::BodyFields};
use crate::{http::HeadSpans, trace::HttpSide};

/// Replacements in a head, in their order.
#[derive(Debug, Default)]
pub(super) struct Edits(Vec<(Range<usize>, Vec<u8>)>);

impl Edits {
    fn replace(&mut self, place: Range<usize>, with: Vec<u8>) {
        self.0.push((place, with));
    }

    /// Appends the head with its replacements.
    pub(super) fn apply(&self, head: &[u8], out: &mut Vec<u8>) {
        let mut at = 0;
        for (place, with) in &self.0 {
            out.extend_from_slice(head.get(at..place.start).unwrap_or_default());
            out.extend_from_slice(with);
            at = place.end;
        }
        out.extend_from_slice(head.get(at..).unwrap_or_default());
    }
}

/// How the framing of a body changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reframing {
    /// It stays.
    Same,
    /// It stays, but the content coding is gone.
    Decoded,
    /// It has another length and no content coding.
    Length(u64),
    /// It comes in chunks and has no content coding.
    Chunked,
    /// The bytes have not the coding that the head has.
    Masked,
}

/// A field, and where it stands in its head.
struct FieldPlace<'a> {
    name: &'a [u8],
    value: &'a [u8],
    name_span: Range<usize>,
    value_span: Range<usize>,
}

/// A head that was taken apart.
#[derive(Debug)]
pub(super) struct Head<'a> {
    bytes: &'a [u8],
    spans: HeadSpans,
}

impl<'a> Head<'a> {
    /// `None` if it is no head.
    pub(super) fn new(side: HttpSide, bytes: &'a [u8]) -> Option<Self> {
        Some(Self { bytes, spans: HeadSpans::of_head(side, bytes)? })
    }

    /// A trailer section.
    pub(super) fn of_trailers(bytes: &'a [u8]) -> Option<Self> {
        Some(Self { bytes, spans: HeadSpans::of_trailers(bytes)? })
    }

    pub(super) fn is_http10(&self) -> bool {
        self.spans.is_http10
    }

    fn fields(&self) -> impl Iterator<Item = FieldPlace<'a>> {
        let bytes = self.bytes;
        self.spans.fields.iter().map(move |(name_span, value_span)| {
            let part = |span: &Range<usize>| bytes.get(span.clone()).unwrap_or_default();
            FieldPlace {
                name: part(name_span),
                value: part(value_span),
                name_span: name_span.clone(),
                value_span: value_span.clone(),
            }
        })
    }

    /// What it says about the body.
    pub(super) fn body_fields(&self) -> BodyFields {
        let mut fields = BodyFields::default();
        self.fields().for_each(|field| fields.look(field.name, field.value));
        fields
    }

    /// Whether the length can be replaced by chunks: there is one field that says it.
    pub(super) fn has_one_length(&self) -> bool {
        self.fields().filter(|field| field.name.eq_ignore_ascii_case(b"content-length")).count() == 1
    }

    /// The head without its secrets.
    pub(super) fn edits(&self, redaction: &Redaction, reframing: Reframing, counts: &mut Counts) -> Edits {
        let mut edits = Edits::default();
        if let Some(span) = &self.spans.method {
            let method = self.bytes.get(span.clone()).unwrap_or_default();
            if !is_method(method) {
                counts.add(Kind::UnknownByte, method.len() as u64);
                edits.replace(span.clone(), vec![b'*'; method.len()]);
            }
        }
        if let Some(span) = &self.spans.target {
            let target = self.bytes.get(span.clone()).unwrap_or_default();
            let mut changed = target.to_vec();
            redaction.target(&mut changed, counts);
            if changed != target {
                edits.replace(span.clone(), changed);
            }
        }
        if let Some(span) = &self.spans.reason {
            let reason = self.bytes.get(span.clone()).unwrap_or_default();
            let mut changed = reason.to_vec();
            redaction.field(b"", &mut changed, counts);
            if changed != reason {
                edits.replace(span.clone(), changed);
            }
        }
        for FieldPlace { name, value, name_span, value_span } in self.fields() {
            if value.is_empty() {
                continue;
            }
            if name.eq_ignore_ascii_case(b"content-encoding") {
                match reframing {
                    Reframing::Same => {}
                    Reframing::Masked | Reframing::Decoded | Reframing::Length(_) | Reframing::Chunked => {
                        edits.replace(value_span, b"identity".to_vec());
                    }
                }
                continue;
            }
            if name.eq_ignore_ascii_case(b"content-length") {
                match reframing {
                    Reframing::Length(length) => edits.replace(value_span, length.to_string().into_bytes()),
                    Reframing::Chunked => {
                        edits.replace(name_span, b"Transfer-Encoding".to_vec());
                        edits.replace(value_span, b"chunked".to_vec());
                    }
                    Reframing::Same | Reframing::Decoded | Reframing::Masked => {}
                }
                continue;
            }
            let mut changed = value.to_vec();
            redaction.field(name, &mut changed, counts);
            if changed != value {
                edits.replace(value_span, changed);
            }
        }
        edits
    }

    pub(super) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }
}

/// The methods that are registered with IANA, and those of caches and of UPnP. Anything else may be the end of something
/// whose beginning is not in the trace.
const METHODS: [&str; 47] = [
    "ACL",
    "BAN",
    "BASELINE-CONTROL",
    "BIND",
    "CHECKIN",
    "CHECKOUT",
    "CONNECT",
    "COPY",
    "DELETE",
    "GET",
    "HEAD",
    "LABEL",
    "LINK",
    "LOCK",
    "M-SEARCH",
    "MERGE",
    "MKACTIVITY",
    "MKCALENDAR",
    "MKCOL",
    "MKREDIRECTREF",
    "MKWORKSPACE",
    "MOVE",
    "NOTIFY",
    "OPTIONS",
    "ORDERPATCH",
    "PATCH",
    "POST",
    "PRI",
    "PROPFIND",
    "PROPPATCH",
    "PURGE",
    "PUT",
    "QUERY",
    "REBIND",
    "REPORT",
    "SEARCH",
    "SOURCE",
    "SUBSCRIBE",
    "TRACE",
    "UNBIND",
    "UNCHECKOUT",
    "UNLINK",
    "UNLOCK",
    "UNSUBSCRIBE",
    "UPDATE",
    "UPDATEREDIRECTREF",
    "VERSION-CONTROL",
];

/// Whether a method is one that is known.
pub(super) fn is_method(method: &[u8]) -> bool {
    METHODS.iter().any(|known| known.as_bytes() == method)
}

/// The line before a chunk, whose extensions become asterisks: nobody says what they are.
pub(super) fn chunk_line(line: &[u8], out: &mut Vec<u8>) -> bool {
    let start = out.len();
    out.extend_from_slice(line);
    let end = line.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n')).map_or(0, |last| last + 1);
    match line.iter().position(|byte| *byte == b';') {
        Some(extension) if extension + 1 < end => {
            out[start + extension + 1..start + end].fill(b'*');
            true
        }
        _ => false,
    }
}
