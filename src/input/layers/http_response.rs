//! The head of an HTTP response, as `curl -i` prints it before what it got.

use std::{borrow::Cow, str};

use super::{MAX_HEAD, Match, lines};
use crate::input::decode::BYTE_ORDER_MARK;

/// More fields than any server sends.
const MAX_FIELDS: usize = 256;

/// The most bytes of text before the status line, such as the command in a terminal.
const MAX_BEFORE: usize = 16 * 1024;

/// More heads than any server and its proxies send before a body.
const MAX_HEADS: usize = 32;

const START: &[u8] = b"HTTP/";

/// Whether `head` begins with a status line and header fields, or has them after some lines of text. How the body is
/// framed does not matter: a chunked or packed one is a layer of its own, and curl takes the chunks off while it still
/// prints `transfer-encoding`.
///
/// `100 Continue` and redirections are followed by another head. The answer must not depend on how the bytes arrive, so
/// any other head ends here, and one that follows it is a layer of its own. `curl -v` prints the lines of a head with
/// `< ` before them, beside its own ones with `* `, `> ` and `{ [`.
pub(super) fn matches(head: &[u8]) -> Match {
    let mut at = match start(head) {
        Ok(at) => at,
        Err(other) => return other,
    };
    let is_verbose_line = |line: &[u8]| is_note(line) || line.starts_with(b"< ");
    let mut is_verbose = head[..at].split(|byte| *byte == b'\n').any(is_verbose_line);
    for _ in 0..MAX_HEADS {
        let (len, code) = match one_head(&head[at..]) {
            Ok(found) => found,
            Err(other) => return other,
        };
        is_verbose |= head[at..at + len].split(|byte| *byte == b'\n').any(is_verbose_line);
        at += len;
        // What curl says of itself may stand between the head and the body.
        while is_verbose
            && let Some(line) = Line::first(&head[at..]).filter(|line| line.is_ended && is_note(line.bytes))
        {
            at += line.len;
        }
        let rest = &head[at..];
        let may_be_note = is_verbose && (is_note(rest) || NOTES.iter().any(|note| note.starts_with(rest)));
        let another = matches!(code, 100..=199 | 300..=399) || rest.starts_with(b"< HTTP/");
        let may_be_head = [START, b"< HTTP/"].iter().any(|start| start.starts_with(rest));
        if another && (rest.starts_with(START) || rest.starts_with(b"< HTTP/")) {
            continue;
        }
        return if (another && may_be_head) || may_be_note { Match::Unknown } else { Match::Yes { skip: at } };
    }
    Match::No
}

/// Whether heads say that the body is DEFLATE. RFC 9110, section 8.4.1.2, wants it in a zlib stream, and notes that some
/// servers leave that out.
pub(super) fn says_deflate(heads: &[u8]) -> bool {
    heads.split(|byte| *byte == b'\n').any(|line| {
        let line = line.strip_prefix(b"< ").unwrap_or(line).to_ascii_lowercase();
        let codings = line.strip_prefix(b"content-encoding:");
        codings.is_some_and(|codings| codings.trim_ascii() == b"deflate")
    })
}

/// How the lines begin that `curl -v` prints beside the heads. No JSON begins with the last two.
const NOTES: [&[u8]; 5] = [b"* ", b"> ", b"< ", b"{ [", b"} ["];

/// Whether a line is one of those, and no part of a head.
fn is_note(line: &[u8]) -> bool {
    !line.starts_with(b"< ") && NOTES.iter().any(|note| line.starts_with(note)) || line.trim_ascii() == b">"
}

/// The place of the status line.
fn start(head: &[u8]) -> Result<usize, Match> {
    let mut at = 0;
    while let Some(line) = Line::first(&head[at..]) {
        let text = line.clean();
        if text.strip_prefix(b"< ").unwrap_or(&text).starts_with(START) {
            // The response is in chunks as a whole.
            return if is_chunk_size(&head[..at]) { Err(Match::No) } else { Ok(at) };
        }
        let is_other = !is_text(line.bytes)
            || begins_trace(line.bytes, line.is_ended)
            // A live log must not wait for a status line.
            || line.is_ended && lines::begins_in_log(line.bytes);
        if at + line.len > MAX_BEFORE || is_other {
            return Err(Match::No);
        }
        if !line.is_ended {
            break;
        }
        at += line.len;
    }
    Err(Match::Unknown)
}

/// Whether a line is the first one of a chunk, and nothing else.
fn is_chunk_size(line: &[u8]) -> bool {
    let digits = line.strip_suffix(b"\r\n").unwrap_or_default();
    !digits.is_empty() && digits.iter().all(u8::is_ascii_hexdigit)
}

/// The length and the status code of the head that `bytes` begin with.
fn one_head(bytes: &[u8]) -> Result<(usize, u16), Match> {
    let mut is_verbose = bytes.starts_with(b"< ");
    let (mut at, mut clean) = (0, Vec::new());
    loop {
        let Some(line) = Line::first(&bytes[at..]).filter(|line| line.is_ended) else {
            return Err(if bytes.len() < MAX_HEAD { Match::Unknown } else { Match::No });
        };
        at += line.len;
        let text = line.clean();
        let field = match (is_verbose, text.strip_prefix(b"<")) {
            (true, Some(field)) => field.strip_prefix(b" ").unwrap_or(field),
            // The same head without the signs, because of `-i`.
            (true, None) if text.starts_with(START) => {
                is_verbose = false;
                clean.clear();
                &text
            }
            (true, None) if is_note(line.bytes) => continue,
            (true, None) => return Err(Match::No),
            (false, Some(_)) => continue,
            (false, None) if is_note(line.bytes) => continue,
            (false, None) => &text,
        };
        if clean.is_empty() {
            // curl writes `HTTP/2 200` and `HTTP/3 200`, which the parser does not know. The line is HTTP/1.1 but for
            // that.
            let version = field.get(START.len()..).unwrap_or_default();
            let after = match version {
                [b'2' | b'3', b' ', ..] => &version[1..],
                [b'2' | b'3', b'.', b'0', b' ', ..] => &version[3..],
                _ => version,
            };
            clean.extend_from_slice(if after.len() < version.len() { b"HTTP/1.1" } else { START });
            clean.extend_from_slice(after);
        } else {
            clean.extend_from_slice(field);
        }
        clean.extend_from_slice(b"\r\n");
        if field.is_empty() {
            break;
        }
    }
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut fields);
    match response.parse(&clean) {
        Ok(httparse::Status::Complete(_)) => Ok((at, response.code.unwrap_or_default())),
        Ok(httparse::Status::Partial) | Err(_) => Err(Match::No),
    }
}

/// A line of text.
struct Line<'a> {
    /// Without what ends it.
    bytes: &'a [u8],
    /// With what ends it.
    len: usize,
    is_ended: bool,
}

impl<'a> Line<'a> {
    fn first(bytes: &'a [u8]) -> Option<Self> {
        if bytes.is_empty() {
            return None;
        }
        let end = memchr::memchr(b'\n', bytes);
        let line = &bytes[..end.unwrap_or(bytes.len())];
        let len = line.len() + usize::from(end.is_some());
        Some(Self { bytes: line.strip_suffix(b"\r").unwrap_or(line), len, is_ended: end.is_some() })
    }

    /// Without the sequences that make parts of it bold or coloured, as curl does on a terminal.
    fn clean(&self) -> Cow<'a, [u8]> {
        if !self.bytes.contains(&0x1b) {
            return Cow::Borrowed(self.bytes);
        }
        let (mut clean, mut rest) = (Vec::new(), self.bytes);
        while let Some(at) = memchr::memmem::find(rest, b"\x1b[") {
            clean.extend_from_slice(&rest[..at]);
            let parameters = rest[at + 2..].iter().take_while(|byte| matches!(byte, b'0'..=b'9' | b';')).count();
            rest = rest.get(at + 2 + parameters + 1..).unwrap_or_default();
        }
        clean.extend_from_slice(rest);
        Cow::Owned(clean)
    }
}

/// Whether a line is text, or the beginning of one.
fn is_text(line: &[u8]) -> bool {
    let is_utf_8 = str::from_utf8(line).map_or_else(|error| error.error_len().is_none(), |_| true);
    is_utf_8 && line.iter().all(|byte| matches!(byte, b'\t' | b'\r' | 0x07 | 0x1b | b' '..=b'~' | 0x80..))
}

/// Whether a trace begins with this line: an object or an array of JSON, or a message in protobuf text.
pub(in crate::input) fn begins_trace(line: &[u8], is_ended: bool) -> bool {
    let text = line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line).trim_ascii_start();
    match text {
        [b'{', b' ', b'[', ..] => false,
        [b'{', b' '] | [b'{'] => is_ended,
        [b'{', ..] => true,
        [b'[', rest @ ..] => matches!(rest.trim_ascii_start(), [b'{' | b'"', ..]) || (rest.is_empty() && is_ended),
        _ => {
            let name = text.iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count();
            let after = text[name..].trim_ascii_start();
            let after = after.strip_prefix(b":").unwrap_or(after).trim_ascii_start();
            name > 0 && matches!(after, [b'{' | b'<', ..])
        }
    }
}
