//! Header and trailer fields.

use super::{
    Counts, Kind, Redaction,
    body::{Body, Mode, Text, is_plain},
    mask, names,
};

impl Redaction {
    /// Takes the secrets out of the value of a field, and returns whether it changed anything. The length changes only
    /// with `addresses`.
    pub(crate) fn field(&self, name: &[u8], value: &mut Vec<u8>, counts: &mut Counts) -> bool {
        // Nearly every name fits here, so that it takes no memory of its own.
        let mut lower = [0; 64];
        match lower.get_mut(..name.len()) {
            Some(lower) => {
                lower.copy_from_slice(name);
                lower.make_ascii_lowercase();
                self.field_in_lower_case(lower, value, counts)
            }
            None => self.field_in_lower_case(&name.to_ascii_lowercase(), value, counts),
        }
    }

    fn field_in_lower_case(&self, name: &[u8], value: &mut Vec<u8>, counts: &mut Counts) -> bool {
        let before = *counts;
        // Metadata of gRPC whose values are base64.
        let base = name.strip_suffix(b"-bin").unwrap_or(name);
        let is_one_of = |names: &std::collections::HashSet<Vec<u8>>| {
            !names.is_empty() && (names.contains(name) || names.contains(base))
        };
        if is_one_of(&self.kept_fields) {
            // The name of the field was given, and stands for all that its values say.
        } else if is_one_of(&self.secret_fields) || names::is_secret_field(base) {
            if value.iter().any(|byte| *byte != b'*') {
                mask(value);
                counts.add(Kind::Field, 1);
            }
            return *counts != before;
        } else if name == b":path" {
            self.target(value, counts);
            return *counts != before;
        } else {
            self.open_value(name, value, counts);
        }
        if let Some(addresses) = &self.addresses {
            addresses.field(name, value, self.names, counts);
        }
        *counts != before
    }

    /// Takes the secrets out of a value that is not secret as a whole.
    fn open_value(&self, name: &[u8], value: &mut [u8], counts: &mut Counts) {
        if name == b":authority" || name == b"host" {
            super::url::authority(value, counts);
        }
        if name == b"sec-websocket-protocol" {
            subprotocols(value, counts);
        }
        if is_plain(value) {
            return;
        }
        if memchr::memchr2(b'\r', b'\n', value).is_some() {
            // A line break inside of a value stands for a blank (RFC 9112 section 5.2), but stays where it is.
            let blanks: Vec<u8> =
                value.iter().map(|byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { *byte }).collect();
            let mut scanned = blanks.clone();
            self.open_value(name, &mut scanned, counts);
            for ((byte, old), new) in value.iter_mut().zip(blanks).zip(scanned) {
                if new != old {
                    *byte = new;
                }
            }
            return;
        }
        if matches!(value.trim_ascii_start().first(), Some(b'{' | b'[')) {
            Body::of_field().data(value, counts);
        } else {
            Text::new(Mode::Field, Kind::Field).whole(value, counts);
        }
    }
}

/// Browsers cannot send other fields with WebSocket, so that clients put their tokens among the subprotocols: after one
/// that says so, or in the name of one.
fn subprotocols(value: &mut [u8], counts: &mut Counts) {
    let mut after_secret = false;
    for protocol in value.split_mut(|byte| *byte == b',') {
        let blank = protocol.len() - protocol.trim_ascii_start().len();
        let length = protocol.trim_ascii().len();
        let Some(protocol) = protocol.get_mut(blank..blank + length) else { continue };
        let is_secret = names::is_secret(protocol);
        let start = if after_secret { Some(0) } else { value_in_subprotocol(protocol) };
        if let Some(value) = start.and_then(|start| protocol.get_mut(start..)).filter(|value| !value.is_empty()) {
            mask(value);
            counts.add(Kind::Field, 1);
        }
        after_secret = is_secret && start.is_none();
    }
}

/// Where the value begins in a subprotocol that has a secret's name and the secret.
fn value_in_subprotocol(protocol: &[u8]) -> Option<usize> {
    const KUBERNETES: &[u8] = b"base64url.bearer.authorization.k8s.io.";
    if protocol.starts_with(KUBERNETES) {
        return Some(KUBERNETES.len());
    }
    let is_separator = |byte: &u8| !byte.is_ascii_alphanumeric() && *byte != b'_' && byte.is_ascii();
    let is_secret = |end: &usize| protocol.get(..*end).is_some_and(names::is_secret);
    let mut ends = protocol.iter().enumerate().filter(|(_, byte)| is_separator(byte)).map(|(end, _)| end);
    // More are in no name, and would take long.
    ends.by_ref().take(16).find(is_secret).map(|end| end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redacted(name: &str, value: &str) -> String {
        let mut bytes = value.as_bytes().to_vec();
        let mut counts = Counts::default();
        let changed = Redaction::default().field(name.as_bytes(), &mut bytes, &mut counts);
        assert_eq!(changed, bytes != value.as_bytes(), "{name}: {value}");
        assert_eq!(bytes.len(), value.len());
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn secret_fields_are_masked_as_a_whole() {
        for name in
            ["Authorization", "COOKIE", "set-cookie", "x-api-key", "x-auth-token-bin", "x-forwarded-client-cert"]
        {
            assert_eq!(redacted(name, "Basic dXNlcjp; a"), "*".repeat(16), "{name}");
            assert_eq!(redacted(name, ""), "");
        }
    }

    #[test]
    fn a_line_break_is_a_blank() {
        for (value, expected) in
            [("a, token=\r\n abc", "a, token=\r\n ***"), ("Bearer\r\n abc", "Bearer\r\n ***"), ("a\r\n b", "a\r\n b")]
        {
            assert_eq!(redacted("x-a", value), expected);
        }
    }

    #[test]
    fn options_win() {
        let redaction = Redaction {
            secret_fields: [b"x-mine".to_vec(), b"cookie".to_vec()].into(),
            kept_fields: [b"cookie".to_vec(), b"referer".to_vec()].into(),
            ..Redaction::default()
        };
        let mut counts = Counts::default();
        for (name, kept) in [("X-Mine", false), ("x-mine-bin", false), ("Cookie", true), ("Referer", true)] {
            let mut value = b"http://h/?token=abc".to_vec();
            assert_eq!(redaction.field(name.as_bytes(), &mut value, &mut counts), !kept, "{name}");
            assert_eq!(value == b"http://h/?token=abc", kept, "{name}");
        }
        assert_eq!(counts.of(Kind::Field), 2);
    }

    #[test]
    fn secrets_inside_of_values() {
        for (value, expected) in [
            ("https://h/?token=abc&page=2", "https://h/?token=***&page=2"),
            ("https://h/?tok%65n=abc#x", "https://h/?tok%65n=***#x"),
            ("https://h/#access_token=abc&state=1", "https://h/#access_token=***&state=1"),
            ("https://user:pass@h/a?b=c", "https://*********@h/a?b=c"),
            ("https://token@h:80/", "https://*****@h:80/"),
            ("https://h:8080/x", "https://h:8080/x"),
            ("<//u:S@h/a>; rel=next, <//h/b@c>", "<//***@h/a>; rel=next, <//h/b@c>"),
            ("//u:S@h/", "//***@h/"),
            ("//S@h/", "//*@h/"),
            ("/x?next=//u:S@h/", "/x?next=//***@h/"),
            ("a//u:S@h/", "a//u:S@h/"),
            ("https://user:pass", "https://user:****"),
            ("https://[2001:db8::1]:8080/x", "https://[2001:db8::1]:8080/x"),
            (
                "https://h/?redirect=https%3A%2F%2Fh%2F%3Ftoken%3Dabc%26page%3D2&a=b",
                "https://h/?redirect=https%3A%2F%2Fh%2F%3Ftoken%3D***%26page%3D2&a=b",
            ),
            (
                "/?r=https%253A%252F%252Fh%252F%253Ftoken%253Dabc%2526page%253D2&a=b",
                "/?r=https%253A%252F%252Fh%252F%253Ftoken%253D***%2526page%253D2&a=b",
            ),
            ("/?r=https%3A%2F%2Fu%3Ap%40h%2F", "/?r=https%3A%2F%2F*****%40h%2F"),
            ("/?token=a%26b%3Dc&d=e", "/?token=*********&d=e"),
            ("<https://h/?sig=abc>; rel=\"next\"", "<https://h/?sig=***>; rel=\"next\""),
            ("5; url=https://h/?pwd=x", "5; url=https://h/?pwd=*"),
            ("form-data; name=\"a\"; token=\"a \\\" b\"; x=y", "form-data; name=\"a\"; token=\"******\"; x=y"),
            ("for=1.2.3.4;secret=abc;proto=http", "for=1.2.3.4;secret=***;proto=http"),
            ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln", "eyJhbGciOiJIUzI1NiJ9.********************"),
            ("a, Bearer abc.def=, b", "a, Bearer ********, b"),
            ("Basic dXNlcjpwYXNz", "Basic ************"),
            ("Bearer abc", "Bearer ***"),
            ("Bearer realm=\"x\", error=\"invalid_token\"", "Bearer realm=\"x\", error=\"invalid_token\""),
            ("Basic realm=x", "Basic realm=x"),
            ("{\"password\":\"abc\",\"a\":1}", "{\"password\":\"***\",\"a\":1}"),
            (
                "/?v=%7B%22password%22%3A%22abc%22%2C%22a%22%3A1%7D",
                "/?v=%7B%22password%22%3A%22***%22%2C%22a%22%3A1%7D",
            ),
            ("authorization=Bearer abc", "authorization=**********"),
            ("Mozilla/5.0 (X11; Linux x86_64; rv:1) Gecko", "Mozilla/5.0 (X11; Linux x86_64; rv:1) Gecko"),
            ("text/html; charset=utf-8", "text/html; charset=utf-8"),
            ("Thu, 01 Jan 1970 00:00:00 GMT", "Thu, 01 Jan 1970 00:00:00 GMT"),
            ("%", "%"),
            ("?token=%", "?token=*"),
            ("?token=%4", "?token=**"),
            ("?token=", "?token="),
        ] {
            assert_eq!(redacted("x-any", value), expected);
        }
    }

    #[test]
    fn no_secret_survives_a_cut() {
        let secret = "QzX7SeCrEtVaLue9";
        for form in [
            "https://h/?a=b&token=SECRET&c=d",
            "https://h/#access_token=SECRET",
            "https://user:SECRET@h/x",
            "https://h/?r=https%3A%2F%2Fh%2F%3Fpwd%3DSECRET%26a%3Db",
            "/?r=https%3A%2F%2Fu%3ASECRET%40h%2F",
            "/?r=https%253A%252F%252Fh%252F%253Ftoken%253DSECRET",
            "Bearer SECRET",
            "//user:SECRET@h/x",
            "<//user:SECRET@h/x>",
            "x Basic SECRET, y",
            "a; sig=\"SECRET\"; b",
            "a;pin=SECRET;b",
            "{\"a\":[{\"otp\":\"SECRET\"}]}",
            "{\"a\":\"{\\\"otp\\\":\\\"SECRET\\\"}\"}",
            "eyJhbGciOiJub25lIn0.SECRET.x",
            "/?v=%7B%22password%22%3A%22SECRET%22%7D",
            "{token=SECRET}",
            "[x] token=SECRET",
        ] {
            let value = form.replace("SECRET", secret);
            for cut in 1..=value.len() {
                let out = redacted("x-any", &value[..cut]);
                assert!(!out.contains(secret), "{out}");
                let mut target = value.as_bytes()[..cut].to_vec();
                Redaction::default().target(&mut target, &mut Counts::default());
                let target = String::from_utf8(target).unwrap();
                assert!(
                    !target.contains(secret) || value.contains("pin=") || value.starts_with(['{', '[']),
                    "{target}"
                );
            }
        }
    }

    #[test]
    fn subprotocols_with_tokens() {
        for (value, expected) in [
            ("chat, superchat", "chat, superchat"),
            ("access_token, abc, chat", "access_token, ***, chat"),
            ("bearer, abc", "bearer, ***"),
            ("bearer,abc,chat", "bearer,***,chat"),
            ("v1.chat, bearer-abc, v4", "v1.chat, bearer-***, v4"),
            ("Bearer.a.b.c", "Bearer.*****"),
            ("x-api-key-abc, chat", "x-api-key-***, chat"),
            ("auth_token.abc", "auth_token.***"),
            ("base64url.bearer.authorization.k8s.io.abc, v4", "base64url.bearer.authorization.k8s.io.***, v4"),
        ] {
            assert_eq!(redacted("Sec-WebSocket-Protocol", value), expected);
        }
    }
}
