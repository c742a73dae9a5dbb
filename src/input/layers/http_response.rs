//! The head of an HTTP response, as `curl -i` prints it before what it got.

use super::{MAX_HEAD, Match};

/// More fields than any server sends.
const MAX_FIELDS: usize = 256;

/// Whether `head` begins with a status line and header fields. How the body is framed does not matter: a chunked or
/// packed one is a layer of its own, and curl takes the chunks off while it still prints `transfer-encoding`.
pub(super) fn matches(head: &[u8]) -> Match {
    let start = Match::of_magic(head, b"HTTP/");
    if start != (Match::Yes { skip: 0 }) {
        return start;
    }
    // curl writes `HTTP/2 200` and `HTTP/3 200`, which the parser does not know. The line is HTTP/1.1 but for that.
    let mut parsed = head.to_vec();
    match head[5..] {
        [b'2' | b'3', b' ', ..] => drop(parsed.splice(5..6, *b"1.1")),
        [b'2' | b'3'] => return Match::Unknown,
        _ => {}
    }
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    match httparse::Response::new(&mut fields).parse(&parsed) {
        Ok(httparse::Status::Complete(len)) => Match::Yes { skip: len - (parsed.len() - head.len()) },
        Ok(httparse::Status::Partial) if head.len() < MAX_HEAD => Match::Unknown,
        Ok(httparse::Status::Partial) | Err(_) => Match::No,
    }
}
