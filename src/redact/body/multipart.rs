//! Secrets in multipart bodies (RFC 2046 section 5.1, RFC 7578).
//!
//! A part whose name says secret is masked but for the ends of its lines. Bytes that a delimiter begins with are given
//! back as they are, since no more than the boundary's own bytes can be told from them.

use super::{
    Body,
    text::{Mode, Text},
};
use crate::redact::{Counts, Kind, names};

/// A head that is longer is not read, and its part is masked.
const MAX_HEAD: usize = 16 << 10;

/// How many fields of a head are read.
const MAX_FIELDS: usize = 32;

#[derive(Debug)]
enum State {
    /// In the head of a part. What was read of it, and whether nothing is on its last line so far.
    Head { head: Vec<u8>, blank: bool, fields: Box<Text> },
    /// In what is around or in a part.
    Content(Content),
    /// After the boundary in a delimiter, up to the end of the line.
    Delimiter { dashes: u8 },
}

#[derive(Debug)]
enum Content {
    Masked { counted: bool },
    Body(Box<Body>),
}

/// Takes the secrets out of a multipart body.
#[derive(Debug)]
pub(super) struct Multipart {
    /// Two dashes and the boundary.
    delimiter: Vec<u8>,
    depth: u8,
    state: State,
    /// How much of a delimiter is there on this line. `None` if it has begun with something else.
    matched: Option<usize>,
}

/// The boundary in a content type.
pub(super) fn boundary(content_type: &[u8]) -> Option<Vec<u8>> {
    // RFC 2046 allows 70 bytes.
    parameter(content_type, b"boundary").filter(|boundary| !boundary.is_empty() && boundary.len() <= 256)
}

impl Multipart {
    pub(super) fn new(boundary: &[u8], depth: u8) -> Self {
        Self { delimiter: [b"--", boundary].concat(), depth, state: State::Content(around()), matched: Some(0) }
    }

    pub(super) fn data(&mut self, mut bytes: &mut [u8], counts: &mut Counts) {
        while !bytes.is_empty() {
            let taken = match &self.state {
                State::Content(_) => self.content(bytes, counts),
                State::Delimiter { .. } => self.delimiter(bytes),
                State::Head { .. } => self.head(bytes, counts),
            };
            bytes = bytes.get_mut(taken..).unwrap_or_default();
        }
    }

    fn content(&mut self, bytes: &mut [u8], counts: &mut Counts) -> usize {
        if let Some(matched) = self.matched {
            let expected = &self.delimiter[matched..];
            let same = bytes.iter().zip(expected).take_while(|(byte, expected)| byte == expected).count();
            if same == expected.len() {
                self.state = State::Delimiter { dashes: 0 };
                self.matched = None;
                return same;
            }
            if same == bytes.len() {
                self.matched = Some(matched + same);
                return same;
            }
            self.matched = None;
            if matched + same > 0 {
                // What looked like a delimiter is content.
                self.pass(&mut self.delimiter[..matched + same].to_vec(), counts);
                return same;
            }
        }
        let end = match memchr::memchr(b'\n', bytes) {
            Some(end) => {
                self.matched = Some(0);
                end + 1
            }
            None => bytes.len(),
        };
        self.pass(&mut bytes[..end], counts);
        end
    }

    fn pass(&mut self, bytes: &mut [u8], counts: &mut Counts) {
        match &mut self.state {
            State::Content(Content::Body(body)) => body.data(bytes, counts),
            State::Content(Content::Masked { counted }) => {
                for byte in bytes {
                    if !matches!(byte, b'\r' | b'\n') {
                        *byte = b'*';
                        if !std::mem::replace(counted, true) {
                            counts.add(Kind::Part, 1);
                        }
                    }
                }
            }
            State::Head { .. } | State::Delimiter { .. } => {}
        }
    }

    fn delimiter(&mut self, bytes: &mut [u8]) -> usize {
        let State::Delimiter { dashes } = &mut self.state else { return 0 };
        for (index, byte) in bytes.iter().enumerate() {
            match byte {
                b'\n' => {
                    let is_last = *dashes >= 2;
                    self.state = if is_last {
                        State::Content(around())
                    } else {
                        let fields = Box::new(Text::new(Mode::Text, Kind::Text));
                        State::Head { head: Vec::new(), blank: true, fields }
                    };
                    self.matched = is_last.then_some(0);
                    return index + 1;
                }
                b'-' if *dashes < 2 => *dashes += 1,
                b' ' | b'\t' | b'\r' => {}
                _ => {
                    // Another boundary begins with this one, or this is none. The part before is over for a reader that
                    // is less strict, and goes on for others.
                    self.state = State::Content(Content::Masked { counted: false });
                    return index;
                }
            }
        }
        bytes.len()
    }

    fn head(&mut self, bytes: &mut [u8], counts: &mut Counts) -> usize {
        let State::Head { head, blank, fields } = &mut self.state else { return 0 };
        let end = memchr::memchr(b'\n', bytes).map_or(bytes.len(), |end| end + 1);
        let line = &mut bytes[..end];
        let room = (MAX_HEAD + 1).saturating_sub(head.len());
        head.extend_from_slice(&line[..line.len().min(room)]);
        *blank &= line.iter().all(|byte| matches!(byte, b'\r' | b'\n'));
        let is_complete = line.ends_with(b"\n");
        fields.data(line, counts);
        if is_complete {
            if *blank {
                let content = content_of(head, self.depth);
                self.state = State::Content(content);
                self.matched = Some(0);
            } else {
                *blank = true;
            }
        }
        end
    }
}

/// What is before the first part, and after the last.
fn around() -> Content {
    Content::Body(Box::new(Body::text()))
}

fn content_of(head: &[u8], depth: u8) -> Content {
    let masked = Content::Masked { counted: false };
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let fields = match httparse::parse_headers(head, &mut fields) {
        Ok(httparse::Status::Complete((_, fields))) if head.len() <= MAX_HEAD => fields,
        _ => return masked,
    };
    let values = |name: &'static str| {
        fields.iter().filter(move |field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
    };
    let content_type = values("content-type").fold(None, |before: Option<Vec<u8>>, value| {
        Some(before.map_or_else(|| value.to_vec(), |before| super::strictest(before, value)))
    });
    // RFC 9110 section 8.4 is for whole messages, but some senders pack parts.
    let is_coded = values("content-encoding").next().is_some()
        || values("content-transfer-encoding").any(|it| it.trim_ascii().eq_ignore_ascii_case(b"base64"));
    if values("content-disposition").any(has_secret_name) || is_coded && !is_binary(content_type.as_deref()) {
        return masked;
    }
    Content::Body(Box::new(Body::nested(content_type.as_deref(), depth)))
}

/// Whether any of the names in a `content-disposition` is secret, or cannot be read.
fn has_secret_name(disposition: &[u8]) -> bool {
    parameters(disposition).any(|(name, value)| {
        let lower = name.to_ascii_lowercase();
        match lower.strip_prefix(b"name") {
            Some(b"") => {
                let value = unquoted(value);
                // An encoded word (RFC 2047 section 2).
                memchr::memmem::find(&value, b"=?").is_some() || names::is_secret_parameter(&value)
            }
            Some(b"*") => {
                // Its charset and language are before it (RFC 8187 section 3.2).
                let value = percent_decoded(&unquoted(value));
                let name = value.rsplit(|byte| *byte == b'\'').next().unwrap_or_default();
                names::is_secret_parameter(&value) || names::is_secret_parameter(name)
            }
            // A part of a name (RFC 2231 section 3).
            Some([b'*', ..]) => true,
            _ => false,
        }
    })
}

fn is_binary(content_type: Option<&[u8]>) -> bool {
    content_type.is_some_and(super::is_binary)
}

fn percent_decoded(name: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((first, after)) = rest.split_first() {
        let digit = |index: usize| after.get(index).and_then(|byte| (*byte as char).to_digit(16));
        let byte = match (first, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => u8::try_from(high << 4 | low).ok(),
            _ => None,
        };
        decoded.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { after.get(2..).unwrap_or_default() } else { after };
    }
    decoded
}

/// A parameter of a field's value, without quotation marks (RFC 9110 section 5.6.6).
fn parameter(value: &[u8], name: &[u8]) -> Option<Vec<u8>> {
    parameters(value).find(|(it, _)| it.eq_ignore_ascii_case(name)).map(|(_, value)| unquoted(value))
}

/// The parameters of a field's value.
fn parameters(value: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut rest = Some(value);
    std::iter::from_fn(move || {
        let value = rest?;
        let (item, after) = value.split_at(end_of_item(value));
        rest = after.get(1..);
        Some(item)
    })
    .filter_map(|item| {
        let equals = memchr::memchr(b'=', item)?;
        Some((item.get(..equals)?.trim_ascii(), item.get(equals + 1..)?.trim_ascii()))
    })
}

/// Where the next semicolon is that is not quoted.
fn end_of_item(value: &[u8]) -> usize {
    let (mut quoted, mut escaped) = (false, false);
    value
        .iter()
        .position(|byte| {
            match byte {
                _ if escaped => escaped = false,
                b'\\' if quoted => escaped = true,
                b'"' => quoted = !quoted,
                b';' if !quoted => return true,
                _ => {}
            }
            false
        })
        .unwrap_or(value.len())
}

fn unquoted(value: &[u8]) -> Vec<u8> {
    let Some(inner) = value.strip_prefix(b"\"") else { return value.to_vec() };
    let mut out = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => break,
            b'\\' => out.extend(bytes.next()),
            _ => out.push(*byte),
        }
    }
    out
}
