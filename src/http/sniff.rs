//! What a payload begins with: HTTP/1, HTTP/2 or neither. Ports have no say in it.

use memchr::{memchr, memchr_iter, memmem};

use super::h2::frame::FrameHead;
use crate::trace::HttpSide;

/// The longest method that is taken for one (registered ones have up to 17 letters).
const MAX_METHOD: usize = 32;

/// The methods that are taken for HTTP before the whole request line is there.
const METHODS: [&[u8]; 9] =
    [b"GET ", b"HEAD ", b"POST ", b"PUT ", b"DELETE ", b"CONNECT ", b"OPTIONS ", b"TRACE ", b"PATCH "];

/// `tchar` of RFC 9110 section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Whether these bytes begin like a message of HTTP/1, as far as they go.
pub(super) fn may_begin(side: HttpSide, bytes: &[u8]) -> bool {
    match side {
        HttpSide::Response => {
            let version = b"HTTP/1.";
            let len = bytes.len().min(version.len());
            bytes[..len] == version[..len]
        }
        HttpSide::Request => {
            let Some(line) = memchr(b'\n', bytes) else {
                let head = &bytes[..bytes.len().min(MAX_METHOD + 1)];
                let method = head.iter().position(|byte| !is_token(*byte)).unwrap_or(head.len());
                return match head.get(method) {
                    None => method <= MAX_METHOD,
                    Some(b' ') => method > 0 && bytes.get(method + 1).is_none_or(|byte| *byte > b' '),
                    Some(_) => false,
                };
            };
            is_request_line(&bytes[..line])
        }
    }
}

/// Whether these bytes certainly begin a message of HTTP/1: the start line is whole, or begins as most do.
pub(super) fn begins(side: HttpSide, bytes: &[u8]) -> bool {
    match side {
        HttpSide::Response => is_status_line(bytes),
        HttpSide::Request => match memchr(b'\n', bytes) {
            Some(line) => is_request_line(&bytes[..line]),
            None => METHODS.iter().any(|method| {
                bytes.starts_with(method) && bytes.get(method.len()).is_some_and(|byte| byte.is_ascii_graphic())
            }),
        },
    }
}

/// `HTTP/1.1 200`, and then a space or the line's end.
fn is_status_line(bytes: &[u8]) -> bool {
    match bytes {
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'0' | b'1', b' ', code @ ..] => {
            code.len() >= 3
                && code[..3].iter().all(u8::is_ascii_digit)
                && code.get(3).is_none_or(|byte| matches!(byte, b' ' | b'\r' | b'\n'))
        }
        _ => false,
    }
}

/// A method, a target and the version, without the line's end.
fn is_request_line(line: &[u8]) -> bool {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let Some(start) = line.strip_suffix(b" HTTP/1.1").or_else(|| line.strip_suffix(b" HTTP/1.0")) else { return false };
    let Some(method) = memchr(b' ', start) else { return false };
    let target = &start[method + 1..];
    (1..=MAX_METHOD).contains(&method)
        && start[..method].iter().copied().all(is_token)
        && !target.is_empty()
        && target.iter().all(|byte| *byte > b' ' && *byte != 0x7f)
}

/// Where the head ends that these bytes begin with: after the first empty line (RFC 9112 section 2.1; a line may end in a
/// bare LF, section 2.2). `from` is where a search that found nothing has stopped.
pub(super) fn head_end(bytes: &[u8], from: usize) -> Option<usize> {
    memchr_iter(b'\n', &bytes[from..]).find_map(|line| {
        let after = from + line + 1;
        match bytes.get(after..)? {
            [b'\n', ..] => Some(after + 1),
            [b'\r', b'\n', ..] => Some(after + 2),
            _ => None,
        }
    })
}

/// Where the next message begins in the bytes that follow a loss. A beginning in the middle must be that of a whole head,
/// because a body may quote HTTP.
pub(super) fn find(side: HttpSide, bytes: &[u8]) -> Option<usize> {
    if begins(side, bytes) {
        return Some(0);
    }
    for at in memmem::find_iter(bytes, b"HTTP/1.") {
        let start = match side {
            HttpSide::Response if is_status_line(&bytes[at..]) => at,
            HttpSide::Request
                if matches!(bytes[at + 7..], [b'0' | b'1', b'\n', ..] | [b'0' | b'1', b'\r', b'\n', ..]) =>
            {
                match request_line_before(&bytes[..at]) {
                    Some(start) if is_request_line(&bytes[start..at + 8]) => start,
                    _ => continue,
                }
            }
            _ => continue,
        };
        // Without an empty line, no head ends here at all.
        return head_end(bytes, at).map(|_| start);
    }
    None
}

/// Where a request line begins that ends with the version: letters of a method, a space, a target, a space. It may follow
/// a body that does not end with its line.
fn request_line_before(bytes: &[u8]) -> Option<usize> {
    /// No longer than Envoy's own limit of a head.
    const MAX_TARGET: usize = 64 << 10;
    let before = bytes.strip_suffix(b" ")?;
    let recent = before.len() - before.len().min(MAX_TARGET);
    let target = recent + memchr::memrchr(b' ', &before[recent..])?;
    let letters = bytes[..target].iter().rev().take(MAX_METHOD).take_while(|byte| byte.is_ascii_uppercase()).count();
    (letters >= 3).then_some(target - letters)
}

/// What a connection speaks, as far as a payload shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Guess {
    /// HTTP/1; the payload is from this side, and the message begins at this byte.
    Http1(HttpSide, usize),
    /// HTTP/2 from its client's preface on.
    Preface,
    /// HTTP/2 whose frames begin with this payload.
    Frames,
    /// It may yet become one of these.
    Open,
    /// It speaks something else.
    Other,
}

/// What the first bytes of a direction show.
pub(super) fn first_bytes(bytes: &[u8]) -> Guess {
    let preface = crate::timeline::PREFACE;
    let len = bytes.len().min(preface.len());
    if bytes[..len] == preface[..len] {
        return if len < preface.len() { Guess::Open } else { Guess::Preface };
    }
    for side in [HttpSide::Request, HttpSide::Response] {
        if begins(side, bytes) {
            return Guess::Http1(side, 0);
        }
    }
    if crate::timeline::is_tls(bytes) {
        return Guess::Other;
    }
    if FrameHead::are_frames(bytes) {
        return Guess::Frames;
    }
    Guess::Open
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_line_is_told_from_other_text() {
        assert!(begins(HttpSide::Request, b"PROPFIND /x HTTP/1.1\r\n"));
        assert!(begins(HttpSide::Request, b"GET /half-a-line"));
        assert!(!begins(HttpSide::Request, b"hello world\r\n"));
        assert!(!begins(HttpSide::Request, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"));
        assert!(begins(HttpSide::Response, b"HTTP/1.1 200 OK\r\n"));
        assert!(begins(HttpSide::Response, b"HTTP/1.0 404\r\n"));
        assert!(!begins(HttpSide::Response, b"HTTP/1.1 2000"));
        assert!(may_begin(HttpSide::Request, b"PRO") && !may_begin(HttpSide::Request, b"P\0"));
    }

    #[test]
    fn the_next_message_is_found_in_the_middle() {
        let body = b"{\"a\":1}POST /x HTTP/1.1\r\nhost: a\r\n\r\n";
        assert_eq!(find(HttpSide::Request, body), Some(7));
        assert_eq!(find(HttpSide::Request, &body[..body.len() - 2]), None);
        assert_eq!(find(HttpSide::Response, b"xyzHTTP/1.1 204 No Content\r\n\r\n"), Some(3));
        assert_eq!(find(HttpSide::Response, b"see HTTP/1.1 for details\r\n\r\n"), None);
    }

    #[test]
    fn a_head_ends_with_an_empty_line() {
        assert_eq!(head_end(b"a\r\nb\r\n\r\nc", 0), Some(8));
        assert_eq!(head_end(b"a\n\nc", 0), Some(3));
        assert_eq!(head_end(b"a\r\nb\r\n\r", 0), None);
    }
}
