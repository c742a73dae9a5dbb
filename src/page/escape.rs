//! Text of a trace in HTML and in JSON: whoever wrote it, it stays text.

use std::{
    borrow::Cow,
    fmt::{self, Write},
};

use crate::untrusted;

/// Escapes what HTML could act on, in text and in quoted attributes, and shows characters that nobody sees: controls,
/// and those that turn the direction of text around. The templates use it for all that they are given.
#[derive(Clone, Copy, Debug)]
pub(super) struct Visible;

impl askama::filters::Escaper for Visible {
    fn write_escaped_str<W: Write>(&self, mut dest: W, text: &str) -> fmt::Result {
        let text = untrusted::escape(text);
        let mut rest = text.as_ref();
        while let Some(at) = rest.find(['<', '>', '&', '"', '\'']) {
            dest.write_str(&rest[..at])?;
            dest.write_str(match rest.as_bytes()[at] {
                b'<' => "&lt;",
                b'>' => "&gt;",
                b'&' => "&amp;",
                b'"' => "&quot;",
                _ => "&#39;",
            })?;
            rest = &rest[at + 1..];
        }
        dest.write_str(rest)
    }
}

/// Escapes what ends a script element, or what HTML could read in one, as JSON allows inside of strings: nothing of it
/// has a meaning outside of them.
pub(super) fn json_in_html(json: &str) -> Cow<'_, str> {
    if !json.contains(['<', '>', '&', '\u{2028}', '\u{2029}']) {
        return Cow::Borrowed(json);
    }
    let mut escaped = String::with_capacity(json.len() + json.len() / 16);
    for char in json.chars() {
        match char {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                // Writing to a String cannot fail.
                let _ = write!(escaped, "\\u{:04x}", char as u32);
            }
            _ => escaped.push(char),
        }
    }
    Cow::Owned(escaped)
}

#[cfg(test)]
mod tests {
    use askama::filters::Escaper as _;

    use super::*;

    fn html(text: &str) -> String {
        let mut out = String::new();
        Visible.write_escaped_str(&mut out, text).unwrap();
        out
    }

    #[test]
    fn html_is_text() {
        assert_eq!(html("plain /日本?q=1"), "plain /日本?q=1");
        assert_eq!(html("</script><img src=x onerror='a'>"), "&lt;/script&gt;&lt;img src=x onerror=&#39;a&#39;&gt;");
        assert_eq!(html("\"&amp;\""), "&quot;&amp;amp;&quot;");
    }

    #[test]
    fn what_nobody_sees_is_shown() {
        assert_eq!(html("a\0b\u{202e}c\nd\u{2066}"), "a\\u{0}b\\u{202e}c\\u{a}d\\u{2066}");
    }

    #[test]
    fn json_holds_nothing_that_html_reads() {
        let value = serde_json::json!(["</script><!--", "&amp;\u{2028}\u{2029}", "<script>"]);
        let text = value.to_string();
        let escaped = json_in_html(&text);
        assert!(!escaped.contains(['<', '>', '&', '\u{2028}', '\u{2029}']), "{escaped}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&escaped).unwrap(), value);
    }
}
