//! Request targets and URLs.

use super::{
    Counts, Kind, Redaction,
    body::{Mode, Text, is_plain},
    mask,
};

impl Redaction {
    /// Takes the secrets out of a request target, or of `:path`. Its length changes only with `addresses`.
    pub(crate) fn target(&self, target: &mut Vec<u8>, counts: &mut Counts) {
        if memchr::memchr(b'@', target).is_some() && !target.starts_with(b"/") {
            authority(target, counts);
        }
        if !is_plain(target) {
            Text::new(Mode::Target, Kind::Url).whole(target, counts);
        }
        if let Some(addresses) = &self.addresses {
            addresses.target(target, self.names, counts);
        }
    }
}

/// Masks the user and the password of `user:password@host:port`, as CONNECT has it, or `:authority`. Whatever else it
/// begins with, such as a scheme, ends before the first solidus.
pub(super) fn authority(target: &mut [u8], counts: &mut Counts) {
    let end = target.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#')).unwrap_or(target.len());
    if let Some(at) = memchr::memrchr(b'@', &target[..end]).filter(|at| *at > 0) {
        mask(&mut target[..at]);
        counts.add(Kind::Url, 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redacted(target: &str) -> String {
        let mut bytes = target.as_bytes().to_vec();
        Redaction::default().target(&mut bytes, &mut Counts::default());
        assert_eq!(bytes.len(), target.len());
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn targets() {
        for (target, expected) in [
            ("/", "/"),
            ("*", "*"),
            ("/a/b?page=2&next_page=3", "/a/b?page=2&next_page=3"),
            ("/a?token=abc&page=2", "/a?token=***&page=2"),
            ("/a?key=abc&code=def&zip_code=1", "/a?key=***&code=***&zip_code=1"),
            ("/a?KEY=abc", "/a?KEY=***"),
            ("/a?user%5Bpassword%5D=abc+d,e;f'g&x", "/a?user%5Bpassword%5D=***********&x"),
            ("/a?my%20(weird)%20token!=abc", "/a?my%20(weird)%20token!=***"),
            ("/a;jsessionid=abc?x=1", "/a;jsessionid=***?x=1"),
            ("/v1/tokens:generate?x=1", "/v1/tokens:generate?x=1"),
            ("/a?x=1;token=abc", "/a?x=1;token=***"),
            ("http://u:p@h:80/a?sig=abc", "http://***@h:80/a?sig=***"),
            ("h:443", "h:443"),
            ("u:p@h:443", "***@h:443"),
            ("/@user/a:b", "/@user/a:b"),
            ("//u:S@h/", "//***@h/"),
            ("//S@h/", "//*@h/"),
            ("/a?u=//u:S@h/", "/a?u=//***@h/"),
            ("/a//u:b@c", "/a//u:b@c"),
            ("/a?q=Bearer+abc&r=Bearer%20abc", "/a?q=Bearer+***&r=Bearer%20***"),
            ("/a?q=eyJa.eyJb.c&r=1", "/a?q=eyJa.******&r=1"),
            ("/a?q={\"pin\":1234,\"x\":2}&token=a", "/a?q={\"pin\":****,\"x\":2}&token=*"),
            ("/a?email=a@b&url=https://h&c=d@e", "/a?email=a@b&url=https://h&c=d@e"),
            ("/a?token=abc#frag", "/a?token=***#frag"),
            ("/a?token", "/a?token"),
            ("/a?&&=&token==&", "/a?&&=&token=*&"),
        ] {
            assert_eq!(redacted(target), expected);
        }
    }
}
