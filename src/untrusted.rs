//! Text that comes out of a trace or a file name: an attacker may have written it.

use std::{borrow::Cow, fmt::Write};

use memchr::memchr;

/// Escapes what a terminal or a viewer could act on: control characters, and bidirectional and other invisible format
/// characters. Everything else, `\` included, stays as it is.
#[must_use]
pub fn escape(text: &str) -> Cow<'_, str> {
    escape_if(text, is_harmful)
}

/// [`escape`]s each line of `text`; the line feeds between them stay.
#[must_use]
pub fn escape_lines(text: &str) -> Cow<'_, str> {
    escape_if(text, |char| char != '\n' && is_harmful(char))
}

/// Escapes line feeds only, for a part of a text: the part must not add lines, because the lines of the text mean
/// something.
#[must_use]
pub fn one_line(text: &str) -> Cow<'_, str> {
    escape_if(text, |char| char == '\n')
}

fn escape_if(text: &str, escapes: impl Fn(char) -> bool) -> Cow<'_, str> {
    // Nearly every text is printable ASCII and line feeds. A fold that does not stop early checks many bytes at once.
    let printable = text.bytes().fold(true, |printable, byte| printable & matches!(byte, b' '..=b'~' | b'\n'));
    if (printable && (!escapes('\n') || memchr(b'\n', text.as_bytes()).is_none())) || !text.chars().any(&escapes) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for char in text.chars() {
        if escapes(char) {
            escaped.extend(char.escape_unicode());
        } else {
            escaped.push(char);
        }
    }
    Cow::Owned(escaped)
}

/// Escapes the same characters in JSON text, in JSON's way: a parser gets the original text back.
#[must_use]
pub fn escape_json(json: &str) -> Cow<'_, str> {
    // Most text is plain, and bytes are compared many at a time.
    let is_plain = json.bytes().fold(true, |plain, byte| plain & matches!(byte, b' '..=b'~'));
    if is_plain || !json.chars().any(is_harmful) {
        return Cow::Borrowed(json);
    }
    let mut escaped = String::with_capacity(json.len() + 16);
    for char in json.chars() {
        if is_harmful(char) {
            for unit in char.encode_utf16(&mut [0; 2]) {
                // Writing to a String cannot fail.
                let _ = write!(escaped, "\\u{unit:04x}");
            }
        } else {
            escaped.push(char);
        }
    }
    Cow::Owned(escaped)
}

/// Whether a terminal or a viewer could act on a character.
pub(crate) fn is_harmful(char: char) -> bool {
    char.is_control()
        || matches!(char,
            // Soft hyphen, Arabic letter mark, Mongolian vowel separator.
            '\u{ad}' | '\u{61c}' | '\u{180e}'
            // Zero width, and the marks, embeddings, overrides and isolates of the bidirectional algorithm.
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            // Tags: invisible copies of ASCII.
            | '\u{e0000}'..='\u{e007f}')
}

/// Cuts `text` to at most `max` bytes, between characters, and puts `…` at the end if anything was cut.
#[must_use]
pub fn cap(text: &str, max: usize) -> Cow<'_, str> {
    if text.len() <= max {
        return Cow::Borrowed(text);
    }
    let end = text.floor_char_boundary(max.saturating_sub('…'.len_utf8()));
    Cow::Owned(format!("{}…", &text[..end]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_stays() {
        assert!(matches!(escape("/run/é/日本.sock"), Cow::Borrowed(_)));
    }

    #[test]
    fn what_a_terminal_could_act_on_is_escaped() {
        assert_eq!(escape("a\x1b[2Jb\n"), "a\\u{1b}[2Jb\\u{a}");
        assert_eq!(escape("x\u{202e}fdp.exe"), "x\\u{202e}fdp.exe");
    }

    #[test]
    fn line_feeds_between_lines_stay() {
        assert_eq!(escape_lines("a\n\r\u{2028}b\n"), "a\n\\u{d}\\u{2028}b\n");
        assert_eq!(one_line("a\n\rb"), "a\\u{a}\rb");
        assert!(matches!(one_line("a\rb"), Cow::Borrowed(_)));
    }

    #[test]
    fn escaped_json_means_the_same() {
        let value = serde_json::json!({ "x\u{202e}": "a\u{9b}\u{e0041}b\n\\" });
        let text = value.to_string();
        let escaped = escape_json(&text);
        assert!(!escaped.chars().any(is_harmful), "{escaped}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&escaped).unwrap(), value);
    }

    #[test]
    fn capping_keeps_whole_characters() {
        assert_eq!(cap("日本語", 9), "日本語");
        assert_eq!(cap("日本語", 8), "日…");
        assert_eq!(cap("abc", 0), "…");
    }
}
