//! Addresses and host names in text: where they are.

use std::{
    borrow::Cow,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::Range,
};

/// The longest text of an IPv6 address, with a port after it.
const MAX_IPV6: usize = 64;

/// How often a byte may be percent-encoded.
const MAX_ENCODED: usize = 4;

/// Text without its percent-encoding (RFC 3986 section 2.1), and where each byte of it was.
pub(super) struct Plain<'a> {
    pub bytes: Cow<'a, [u8]>,
    /// Where each byte was, and the length; empty if nothing is encoded.
    starts: Vec<usize>,
}

impl<'a> Plain<'a> {
    pub(super) fn new(raw: &'a [u8]) -> Self {
        if memchr::memchr(b'%', raw).is_none() {
            return Self { bytes: Cow::Borrowed(raw), starts: Vec::new() };
        }
        let (mut bytes, mut starts) = (Vec::with_capacity(raw.len()), Vec::with_capacity(raw.len() + 1));
        let mut at = 0;
        while let Some(byte) = raw.get(at) {
            starts.push(at);
            match escape(&raw[at..]) {
                Some((byte, length)) => {
                    bytes.push(byte);
                    at += length;
                }
                None => {
                    bytes.push(*byte);
                    at += 1;
                }
            }
        }
        starts.push(raw.len());
        Self { bytes: Cow::Owned(bytes), starts }
    }

    /// Where a stretch of the plain text was.
    pub(super) fn raw(&self, range: &Range<usize>) -> Range<usize> {
        let raw = |at: usize| self.starts.get(at).copied().unwrap_or(at);
        raw(range.start)..raw(range.end)
    }
}

/// The byte that text begins with in percent-encoding, and its length there. A percent sign may be encoded itself, as it
/// is in URLs inside of URLs.
fn escape(text: &[u8]) -> Option<(u8, usize)> {
    let code = |at: usize| {
        let digit = |at: usize| char::from(*text.get(at)?).to_digit(16);
        u8::try_from(digit(at)? << 4 | digit(at + 1)?).ok()
    };
    if text.first() != Some(&b'%') {
        return None;
    }
    let mut found = (code(1)?, 3);
    for _ in 1..MAX_ENCODED {
        found = match code(found.1) {
            Some(byte) if found.0 == b'%' => (byte, found.1 + 2),
            _ => break,
        };
    }
    Some(found)
}

/// The IP addresses in a text, with or without ports and brackets, in their order.
///
/// An IPv6 address ends where neither a letter nor a digit follows. Four numbers are an address wherever they are, but
/// those of a longer row, as in an object identifier, are none.
pub(super) fn addresses(text: &[u8], mut each: impl FnMut(Range<usize>, IpAddr)) {
    // Most values have none, and show it.
    if memchr::memchr2(b'.', b':', text).is_none() {
        return;
    }
    let mut at = 0;
    let mut after_word = false;
    while let Some(byte) = text.get(at) {
        if *byte == b'%' {
            at += 1 + encoded_rest(&text[at + 1..]);
            after_word = false;
        } else if is_part(*byte) {
            let len = text[at..].iter().take_while(|byte| is_part(**byte)).count();
            run(text, at..at + len, after_word, &mut each);
            at += len;
        } else {
            after_word = byte.is_ascii_alphanumeric();
            at += 1;
        }
    }
}

/// Whether a text is an address, with a port, a zone, both or neither.
pub(super) fn is_address(text: &[u8]) -> bool {
    let mut end = None;
    addresses(text, |range, _| end = end.or((range.start == 0).then_some(range.end)));
    let rest = end.and_then(|end| text.get(end..));
    rest.is_some_and(|rest| match rest {
        [] | [b'%', ..] => true,
        [b':', port @ ..] => port.iter().all(u8::is_ascii_digit),
        _ => false,
    })
}

/// How long the digits after a percent sign are. What was encoded several times has `25` before them.
fn encoded_rest(text: &[u8]) -> usize {
    let mut at = 0;
    while text[at..].starts_with(b"25") {
        at += 2;
    }
    let is_code = text.get(at..at + 2).is_some_and(|code| code.iter().all(u8::is_ascii_hexdigit));
    if is_code { at + 2 } else { at }
}

fn is_part(byte: u8) -> bool {
    byte.is_ascii_hexdigit() || matches!(byte, b'.' | b':')
}

/// Finds addresses in a row of bytes that addresses have, between others. The row may follow a letter.
fn run(text: &[u8], range: Range<usize>, after_word: bool, each: &mut impl FnMut(Range<usize>, IpAddr)) {
    if let Some((range, ip)) = ipv6(text, range.clone(), after_word) {
        each(range, IpAddr::V6(ip));
        return;
    }
    let mut at = range.start;
    for part in text[range.clone()].split(|byte| *byte == b':') {
        ipv4(text, at..at + part.len(), each);
        at += part.len() + 1;
    }
}

fn is_word(byte: Option<&u8>) -> bool {
    byte.is_some_and(u8::is_ascii_alphanumeric)
}

fn ipv6(text: &[u8], Range { mut start, mut end }: Range<usize>, after_word: bool) -> Option<(Range<usize>, Ipv6Addr)> {
    let row = &text[start..end];
    if row.len() > MAX_IPV6 || row.iter().filter(|byte| **byte == b':').count() < 2 {
        return None;
    }
    // A colon may divide the address from a word before or after it.
    let lone = |colons: usize| colons == 1 || colons == 3;
    if lone(row.iter().take_while(|byte| **byte == b':').count()) {
        start += 1;
    } else if after_word {
        return None;
    }
    end -= row.iter().rev().take_while(|byte| **byte == b'.').count();
    let row = text.get(start..end)?;
    if lone(row.iter().rev().take_while(|byte| **byte == b':').count()) {
        end -= 1;
    } else if is_word(text.get(end)) {
        return None;
    }
    let parse = |end: usize| str::from_utf8(text.get(start..end)?).ok()?.parse::<Ipv6Addr>().ok();
    if let Some(ip) = parse(end) {
        return Some((start..end, ip));
    }
    // An address without brackets, and a port.
    let colon = start + text.get(start..end)?.iter().rposition(|byte| *byte == b':')?;
    let is_port = text.get(colon + 1..end).is_some_and(|port| port.iter().all(u8::is_ascii_digit));
    parse(colon).filter(|_| is_port).map(|ip| (start..colon, ip))
}

/// Finds rows of four numbers between dots. Letters may be before and after a row.
fn ipv4(text: &[u8], range: Range<usize>, each: &mut impl FnMut(Range<usize>, IpAddr)) {
    let mut row = Row::default();
    let mut at = range.start;
    for group in text[range].split(|byte| *byte == b'.') {
        let next = at + group.len();
        let digits = |bytes: &mut dyn Iterator<Item = &u8>| bytes.take_while(|byte| byte.is_ascii_digit()).count();
        let (first, last) = (digits(&mut group.iter()), digits(&mut group.iter().rev()));
        if first > 0 {
            row.push(at, at + first, &group[..first]);
        }
        if first < group.len() || group.is_empty() {
            row.end(each);
            if last > 0 {
                row.push(next - last, next, &group[group.len() - last..]);
            }
        }
        at = next + 1;
    }
    row.end(each);
}

/// Numbers that follow each other.
#[derive(Default)]
struct Row {
    count: usize,
    range: Range<usize>,
    /// `None` if a number is too large.
    octets: [Option<u8>; 4],
}

impl Row {
    fn push(&mut self, start: usize, end: usize, digits: &[u8]) {
        if self.count == 0 {
            self.range.start = start;
        }
        self.range.end = end;
        if let Some(octet) = self.octets.get_mut(self.count) {
            // Some programs write leading zeros.
            *octet = str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
        }
        self.count += 1;
    }

    fn end(&mut self, each: &mut impl FnMut(Range<usize>, IpAddr)) {
        if let ([Some(a), Some(b), Some(c), Some(d)], 4) = (self.octets, self.count) {
            each(self.range.clone(), IpAddr::V4(Ipv4Addr::new(a, b, c, d)));
        }
        *self = Self::default();
    }
}

/// The authorities (RFC 3986 section 3.2) of the URLs in a text, and of its references without a scheme.
pub(super) fn authorities(text: &[u8], mut each: impl FnMut(Range<usize>)) {
    let ends = |byte: &u8| !byte.is_ascii_graphic() || b"/?#\"'<>,;()\\|`{}&".contains(byte);
    let mut done = 0;
    for at in memchr::memmem::find_iter(text, b"//") {
        let begins = match at.checked_sub(1).and_then(|before| text.get(before)) {
            None => true,
            Some(before) => *before == b':' || *before == b' ' || b"<\"'=,;(".contains(before),
        };
        let start = at + 2;
        if begins && at >= done {
            let len = text[start..].iter().position(ends).unwrap_or(text.len() - start);
            done = start + len;
            each(start..done);
        }
    }
}

/// The host of an authority, without user, password and port.
pub(super) fn host(text: &[u8], Range { mut start, mut end }: Range<usize>) -> Range<usize> {
    let authority = text.get(start..end).unwrap_or_default();
    start += authority.iter().rposition(|byte| *byte == b'@').map_or(0, |at| at + 1);
    let rest = text.get(start..end).unwrap_or_default();
    if let Some(inner) = rest.strip_prefix(b"[") {
        start += 1;
        end = start + inner.iter().position(|byte| *byte == b']').unwrap_or(inner.len());
    } else if let Some(colon) = memchr::memchr(b':', rest)
        // Several colons make an IPv6 address.
        && rest.iter().skip(colon + 1).all(u8::is_ascii_digit)
    {
        end = start + colon;
    }
    start..end
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(text: &str) -> Vec<String> {
        let mut all = Vec::new();
        addresses(text.as_bytes(), |range, ip| {
            all.push(text[range].to_owned());
            assert_eq!(all.last().unwrap().trim_start_matches('0').is_empty(), ip.is_unspecified() && ip.is_ipv4());
        });
        all
    }

    #[test]
    fn addresses_are_found_between_other_text() {
        for (text, expected) in [
            ("10.0.0.1", &["10.0.0.1"][..]),
            ("10.0.0.1, 192.0.2.7:80,2001:db8::1", &["10.0.0.1", "192.0.2.7", "2001:db8::1"]),
            ("for=\"[2001:db8::1]:443\";by=010.000.000.001", &["2001:db8::1", "010.000.000.001"]),
            ("sidecar~10.0.0.1~pod_10.0.0.2-x", &["10.0.0.1", "10.0.0.2"]),
            ("from 10.0.0.1. And ::1.", &["10.0.0.1", "::1"]),
            ("ip:10.0.0.1:8080", &["10.0.0.1"]),
            ("face:10.0.0.1", &["10.0.0.1"]),
            ("ip:2001:db8::1 x:::1", &["2001:db8::1", "::1"]),
            ("fe80::1%eth0", &["fe80::1"]),
            ("::ffff:10.0.0.1", &["::ffff:10.0.0.1"]),
            ("2001:db8:0:0:0:0:0:1:443", &["2001:db8:0:0:0:0:0:1"]),
            ("10.0.0.1/24 10.0.0.1-10.0.0.9 10.0.0.1..10.0.0.2", &["10.0.0.1"; 3][..]),
            ("10.0.0.1.nip.io 10.0.0.1.example.com", &["10.0.0.1"; 2]),
            ("%2F10.0.0.1 %252525ab10.0.0.1%zz10.0.0.1x", &["10.0.0.1"; 3]),
            ("ip10.0.0.1 10.0.0.1ms a10.0.0.1b x10.0.0.1:80", &["10.0.0.1"; 4]),
            ("10.0.0.1e10.0.0.1", &["10.0.0.1"; 2]),
        ] {
            let found = found(text);
            let expected: Vec<String> = match text {
                "10.0.0.1/24 10.0.0.1-10.0.0.9 10.0.0.1..10.0.0.2" => {
                    ["10.0.0.1", "10.0.0.1", "10.0.0.9", "10.0.0.1", "10.0.0.2"].map(str::to_owned).to_vec()
                }
                _ => expected.iter().map(|text| (*text).to_owned()).collect(),
            };
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn other_numbers_and_names_are_none() {
        for text in [
            "",
            "1.2.3",
            "1.2.3.4.5",
            "1.3.6.1.4.1.311",
            "256.1.1.1",
            "a1.2.3b.4",
            "12:30:45",
            "2026-01-31T12:00:00.000Z",
            "00:11:22:33:44:55",
            "std::vec",
            "Foo::Bad",
            "text/html; charset=utf-8",
            "1...2",
        ] {
            assert_eq!(found(text), Vec::<String>::new(), "{text}");
        }
    }

    #[test]
    fn encoded_text_is_found_where_it_was() {
        let raw = b"/?u=http%3A%2F%2F10.0.0.1%3a80&v=%5B2001%3Adb8%3A%3A1%5D&w=2001%253Adb8%25253A%253A2";
        let plain = Plain::new(raw);
        let mut all = Vec::new();
        addresses(&plain.bytes, |range, _| all.push(&raw[plain.raw(&range)]));
        assert_eq!(all, [&b"10.0.0.1"[..], b"2001%3Adb8%3A%3A1", b"2001%253Adb8%25253A%253A2"]);
    }

    #[test]
    fn hosts_are_found_in_authorities() {
        let of = |text: &str| text[host(text.as_bytes(), 0..text.len())].to_owned();
        for (authority, expected) in [
            ("example.com", "example.com"),
            ("example.com:80", "example.com"),
            ("u:p@example.com:", "example.com"),
            ("[::1]:80", "::1"),
            ("[::1", "::1"),
            ("a:b", "a:b"),
            ("2001:db8::1", "2001:db8::1"),
            ("", ""),
        ] {
            assert_eq!(of(authority), expected, "{authority}");
        }
        let mut all = Vec::new();
        let text = "<https://a.example/x>; rel=next, http://b.example:80";
        authorities(text.as_bytes(), |range| all.push(&text[range]));
        assert_eq!(all, ["a.example", "b.example:80"]);
        let mut all = Vec::new();
        let text = "//a.example/x//y, <//b.example>; a//c u=//d:80 http:////e ///f";
        authorities(text.as_bytes(), |range| all.push(&text[range]));
        assert_eq!(all, ["a.example", "b.example", "d:80", "", ""]);
    }

    proptest! {
        #[test]
        fn any_address_is_found_in_any_text(ip: IpAddr, before in "[^a-zA-Z0-9.:%]{0,4}", after in "[^a-zA-Z0-9.:%]{0,4}") {
            let mut all = Vec::new();
            addresses(format!("{before}{ip}{after}").as_bytes(), |_, ip| all.push(ip));
            prop_assert_eq!(all, [ip]);
        }

        #[test]
        fn nothing_makes_it_panic(text in prop::collection::vec(prop::sample::select(b"0129af:.%25[]@/x".as_slice()), 0..80)) {
            let plain = Plain::new(&text);
            let mut last = 0;
            addresses(&plain.bytes, |range, _| {
                let range = plain.raw(&range);
                assert!(range.start >= last && range.end <= text.len() && range.start < range.end);
                last = range.end;
            });
            authorities(&text, |range| drop(text[host(&text, range)].to_vec()));
        }
    }
}
