//! Text in a HAR file: URLs, queries, cookies, bodies.

use std::{borrow::Cow, fmt::Write as _};

use serde::{Serialize, Serializer};

/// A name and a value.
#[derive(Debug)]
struct Pair<'a> {
    name: Cow<'a, str>,
    value: Cow<'a, str>,
}

object!(Pair<'_> {
    "name": name,
    "value": value,
});

impl<'a> Pair<'a> {
    fn new((name, value): (&'a [u8], &'a [u8])) -> Self {
        Self { name: lossy(name), value: lossy(value) }
    }
}

/// Header or trailer fields.
#[derive(Debug)]
pub(super) struct Fields<'a>(pub(super) Vec<(&'a [u8], &'a [u8])>);

impl Fields<'_> {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Fields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().copied().map(Pair::new))
    }
}

/// The parameters of a request target, which may hold millions: they are taken apart while they are written.
#[derive(Debug)]
pub(super) struct Query<'a>(pub(super) &'a [u8]);

impl Serialize for Query<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(query(self.0))
    }
}

/// Cookies by the header fields that hold them, taken apart like a query.
#[derive(Debug)]
pub(super) enum Cookies<'a> {
    Request(Vec<&'a [u8]>),
    Response(Vec<&'a [u8]>),
}

impl Serialize for Cookies<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Request(fields) => serializer.collect_seq(fields.iter().copied().flat_map(Cookie::of_request)),
            Self::Response(fields) => serializer.collect_seq(fields.iter().copied().map(Cookie::of_response)),
        }
    }
}

/// A cookie of a request or response.
#[derive(Debug)]
struct Cookie<'a> {
    name: Cow<'a, str>,
    value: Cow<'a, str>,
    path: Option<Cow<'a, str>>,
    domain: Option<Cow<'a, str>>,
    expires: Option<String>,
    http_only: Option<bool>,
    secure: Option<bool>,
}

object!(Cookie<'_> {
    "name": name,
    "value": value,
    "path": path unless Option::is_none,
    "domain": domain unless Option::is_none,
    "expires": expires unless Option::is_none,
    "httpOnly": http_only unless Option::is_none,
    "secure": secure unless Option::is_none,
});

/// Headers hold bytes; what is not UTF-8 becomes replacement characters.
pub(super) fn lossy(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

/// A URL from parts that may hold anything: what RFC 3986 does not allow is percent-encoded.
pub(super) fn url(scheme: &[u8], authority: &[u8], target: &[u8]) -> String {
    let mut url = String::new();
    let valid = scheme.first().is_some_and(u8::is_ascii_alphabetic)
        && scheme.iter().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte));
    url.push_str(if valid { str::from_utf8(scheme).unwrap_or("http") } else { "http" });
    url.push_str("://");
    encode(&mut url, if authority.is_empty() { b"unknown.invalid" } else { authority }, b"[]:@");
    // RFC 9112 section 3.2: `*` is a target that is no path.
    if !target.starts_with(b"/") {
        url.push('/');
    }
    encode(&mut url, target, b"/?:@");
    url
}

/// Unreserved characters, sub-delimiters and `also` stay (RFC 3986 section 2), and what is encoded already.
fn encode(out: &mut String, text: &[u8], also: &[u8]) {
    for (index, byte) in text.iter().enumerate() {
        let escape = || text.get(index + 1..index + 3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit));
        let plain = byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(byte) || also.contains(byte);
        if plain || (*byte == b'%' && escape()) {
            out.push(char::from(*byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

/// The parameters of a target's query.
fn query(target: &[u8]) -> impl Iterator<Item = Pair<'_>> {
    let query = memchr::memchr(b'?', target).map_or(&[][..], |at| &target[at + 1..]);
    let parameters = query.split(|byte| *byte == b'&').filter(|parameter| !parameter.is_empty());
    parameters.map(|parameter| Pair::new(split(parameter, b'=')))
}

fn split(text: &[u8], at: u8) -> (&[u8], &[u8]) {
    memchr::memchr(at, text).map_or((text, &[]), |index| (&text[..index], &text[index + 1..]))
}

impl<'a> Cookie<'a> {
    /// The cookies of a `cookie` header (RFC 6265 section 4.2).
    fn of_request(header: &'a [u8]) -> impl Iterator<Item = Self> {
        header.split(|byte| *byte == b';').map(<[u8]>::trim_ascii).filter(|pair| !pair.is_empty()).map(Self::pair)
    }

    /// The cookie of a `set-cookie` header (RFC 6265 section 4.1).
    fn of_response(header: &'a [u8]) -> Self {
        let mut parts = header.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        let mut cookie = Self::pair(parts.next().unwrap_or_default());
        for attribute in parts {
            let (name, value) = split(attribute, b'=');
            if name.eq_ignore_ascii_case(b"path") {
                cookie.path = Some(lossy(value));
            } else if name.eq_ignore_ascii_case(b"domain") {
                cookie.domain = Some(lossy(value));
            } else if name.eq_ignore_ascii_case(b"httponly") {
                cookie.http_only = Some(true);
            } else if name.eq_ignore_ascii_case(b"secure") {
                cookie.secure = Some(true);
            } else if name.eq_ignore_ascii_case(b"expires") {
                let date = str::from_utf8(value).ok().and_then(|date| httpdate::parse_http_date(date).ok());
                cookie.expires = date.map(|date| prost_types::Timestamp::from(date).to_string());
            }
        }
        cookie
    }

    fn pair(pair: &'a [u8]) -> Self {
        let (name, value) = split(pair, b'=');
        let (name, value) = (lossy(name), lossy(value));
        Self { name, value, path: None, domain: None, expires: None, http_only: None, secure: None }
    }
}

/// A body as text, or in base64 if it is none. The flag says that it is base64.
pub(super) fn body(bytes: Cow<'_, [u8]>) -> (Cow<'_, str>, bool) {
    let is_text = |text: &str| text.bytes().all(|byte| byte >= b' ' || matches!(byte, b'\t' | b'\n' | b'\r'));
    match bytes {
        Cow::Borrowed(bytes) => match str::from_utf8(bytes) {
            Ok(text) if is_text(text) => (Cow::Borrowed(text), false),
            _ => (Cow::Owned(base64_simd::STANDARD.encode_to_string(bytes)), true),
        },
        Cow::Owned(bytes) => match String::from_utf8(bytes) {
            Ok(text) if is_text(&text) => (Cow::Owned(text), false),
            Ok(text) => (Cow::Owned(base64_simd::STANDARD.encode_to_string(text)), true),
            Err(error) => (Cow::Owned(base64_simd::STANDARD.encode_to_string(error.as_bytes())), true),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_hold_only_what_urls_may() {
        assert_eq!(url(b"https", b"example.com:8443", b"/a?b=c%20d"), "https://example.com:8443/a?b=c%20d");
        assert_eq!(url(b"", b"", b""), "http://unknown.invalid/");
        assert_eq!(url(b"http", b"[::1]:80", b"*"), "http://[::1]:80/*");
        assert_eq!(url(b"x y", b"a b", b"/\xff%zz<\r\n"), "http://a%20b/%FF%25zz%3C%0D%0A");
    }

    #[test]
    fn bodies_are_text_or_base64() {
        let of = |bytes: &[u8]| {
            let borrowed = body(Cow::Borrowed(bytes));
            assert_eq!(borrowed, body(Cow::Owned(bytes.to_vec())));
            (borrowed.0.into_owned(), borrowed.1)
        };
        assert_eq!(of(b"{\"a\":\r\n\t1}"), ("{\"a\":\r\n\t1}".into(), false));
        assert_eq!(of("für".as_bytes()), ("für".into(), false));
        assert_eq!(of(b"\0\xff"), ("AP8=".into(), true));
        assert_eq!(of(b"a\0"), ("YQA=".into(), true));
    }

    #[test]
    fn cookies_and_queries() {
        let cookies: Vec<_> = Cookie::of_request(b"a=b; c=d=e;; f").collect();
        let names: Vec<_> = cookies.iter().map(|cookie| (&*cookie.name, &*cookie.value)).collect();
        assert_eq!(names, [("a", "b"), ("c", "d=e"), ("f", "")]);
        let cookie =
            Cookie::of_response(b"id=1; Path=/; Secure; HttpOnly; Expires=Sun, 22 Nov 2026 19:15:49 GMT; Domain=x");
        assert_eq!((cookie.path.as_deref(), cookie.domain.as_deref()), (Some("/"), Some("x")));
        assert_eq!((cookie.secure, cookie.http_only), (Some(true), Some(true)));
        assert_eq!(cookie.expires.as_deref(), Some("2026-11-22T19:15:49Z"));
        let pairs: Vec<_> = query(b"/p?a=b&&c=%20&d").collect();
        assert_eq!(
            pairs.iter().map(|pair| (&*pair.name, &*pair.value)).collect::<Vec<_>>(),
            [("a", "b"), ("c", "%20"), ("d", "")]
        );
    }
}
