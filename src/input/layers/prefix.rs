//! What a log writes before each line: names, times and numbers of lines.
//!
//! On the lines of one trace, a prefix has the same words, but a time or the number of the line changes. Everything else
//! must stay the same, so that the lines of two pods are told apart.

use crate::input::around::is_binary;

/// The longest prefix.
const MOST: usize = 512;

/// The prefix of a trace's first line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Prefix(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    /// These bytes.
    Same(Vec<u8>),
    /// White space, at least one byte.
    Space,
    /// White space at the end of the prefix, where the trace's own may follow it: no more than this.
    LastSpace(usize),
    /// Digits, and what stands between those of a date or time.
    Time,
    /// The name of a month or a day of the week.
    Calendar,
}

const CALENDAR: [&[u8]; 19] = [
    b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec", b"Mon", b"Tue",
    b"Wed", b"Thu", b"Fri", b"Sat", b"Sun",
];

impl Prefix {
    /// The prefix that these bytes are on other lines; `None` if they are no prefix.
    pub(super) fn of(bytes: &[u8]) -> Option<Self> {
        let text = bytes.trim_ascii();
        let is_comment = text.starts_with(b"//") || text.starts_with(b"*") || text.starts_with(b"/*");
        if bytes.len() > MOST || text.is_empty() || is_comment || bytes.iter().any(|byte| is_binary(*byte)) {
            return None;
        }
        let mut parts = Vec::new();
        let mut rest = bytes;
        let mut is_first = true;
        while let Some(&byte) = rest.first() {
            if let Some(len) = escape_len(rest) {
                rest = &rest[len..];
                continue;
            }
            if byte == b' ' || byte == b'\t' {
                let len = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
                rest = &rest[len..];
                let is_last = rest.is_empty() || is_escapes(rest);
                parts.push(if is_last { Part::LastSpace(len) } else { Part::Space });
                continue;
            }
            let len = word_len(rest).max(1);
            let (word, after) = rest.split_at(name_len(rest, len));
            let after_month = matches!(parts[..], [.., Part::Calendar, Part::Space]);
            if CALENDAR.contains(&word) {
                parts.push(Part::Calendar);
            } else if is_time(word, is_first || after_month) {
                parts.push(Part::Time);
            } else if let Some(Part::Same(same)) = parts.last_mut() {
                same.extend_from_slice(word);
            } else {
                parts.push(Part::Same(word.to_vec()));
            }
            // The number of the line may follow the name of the file.
            is_first &= !byte.is_ascii_alphanumeric() || name_len(rest, len) < len;
            rest = after;
        }
        Some(Self(parts))
    }

    /// Whether it is surely what a log writes: it has a time, or ends as the name of a writer does.
    pub(super) fn is_of_log(&self) -> bool {
        let mut words = self.0.iter().rev().filter(|part| !matches!(part, Part::Space | Part::LastSpace(_)));
        self.0.contains(&Part::Time)
            || matches!(words.next(), Some(Part::Same(word)) if matches!(word.last(), Some(b'|' | b']' | b':')))
    }

    /// How many bytes of `line` are this prefix; `None` if it begins with another one.
    pub(super) fn len_in(&self, line: &[u8]) -> Option<usize> {
        let mut at = 0;
        for part in &self.0 {
            while let Some(len) = escape_len(&line[at..]) {
                at += len;
            }
            let rest = &line[at..];
            let spaces = || rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
            at += match part {
                Part::Same(bytes) => rest.starts_with(bytes).then_some(bytes.len())?,
                Part::Space => Some(spaces()).filter(|len| *len > 0)?,
                // An editor may have taken it off where nothing follows.
                Part::LastSpace(most) => spaces().min(*most),
                Part::Time => Some(time_len(rest)).filter(|len| *len > 0)?,
                Part::Calendar => rest.get(..3).filter(|name| CALENDAR.contains(name))?.len(),
            };
        }
        while let Some(len) = escape_len(&line[at..]) {
            at += len;
        }
        Some(at)
    }
}

/// The length of a terminal's escape sequence for colours and the like.
pub(super) fn escape_len(bytes: &[u8]) -> Option<usize> {
    let parameters = bytes.strip_prefix(b"\x1b[")?;
    let len = parameters.iter().take(32).take_while(|byte| matches!(byte, 0x20..=0x3f)).count();
    matches!(parameters.get(len)?, 0x40..=0x7e).then_some(len + 3)
}

fn is_escapes(mut bytes: &[u8]) -> bool {
    while let Some(len) = escape_len(bytes) {
        bytes = &bytes[len..];
    }
    bytes.is_empty()
}

fn word_len(bytes: &[u8]) -> usize {
    let digit_after = |at: usize| bytes.get(at + 1).is_some_and(u8::is_ascii_digit);
    let is_word = |(at, byte): (usize, &u8)| {
        byte.is_ascii_alphanumeric()
            || matches!(byte, b':' | b'.' | b'/' | b'-' | b'+' | b'_' | b'@')
            || *byte == b',' && digit_after(at)
            || !byte.is_ascii()
    };
    bytes.iter().enumerate().take_while(|pair| is_word(*pair)).count()
}

/// The length of the name of a file before the number of a line, as grep writes them at the end of a prefix; otherwise
/// that of the whole word, which is `len`.
fn name_len(rest: &[u8], len: usize) -> usize {
    let [number @ .., b':' | b'-'] = rest else { return len };
    let digits = number.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    match &number[..number.len() - digits] {
        [name @ .., b':' | b'-'] if len == rest.len() && digits > 0 && !name.is_empty() => name.len(),
        _ => len,
    }
}

/// Whether `word` is a date or a time, or a number that counts lines.
fn is_time(word: &[u8], may_be_number: bool) -> bool {
    if !word.iter().all(|byte| is_time_byte(*byte)) {
        return false;
    }
    let groups = word.split(|byte| !byte.is_ascii_digit()).filter(|group| !group.is_empty()).count();
    let is_address = groups == 4 && word.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.');
    groups > 1 && !is_address || groups == 1 && may_be_number
}

fn is_time_byte(byte: u8) -> bool {
    byte.is_ascii_digit() || matches!(byte, b':' | b'.' | b'/' | b'-' | b'+' | b',' | b'T' | b'Z')
}

fn time_len(bytes: &[u8]) -> usize {
    let len = bytes.iter().take_while(|byte| is_time_byte(**byte)).count();
    if bytes[..len].iter().any(u8::is_ascii_digit) { len } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_times_and_numbers_of_lines_may_change() {
        for (first, same, others) in [
            ("envoy-1  | ", &["envoy-1  | ", "envoy-1 |"][..], &["envoy-2  | ", "app  | ", "", "envoy-1"][..]),
            ("[pod/a-7d4/x] ", &["[pod/a-7d4/x] "], &["[pod/a-9c1/x] ", "[pod/a-7d4/y] "]),
            ("2024-05-01T10:00:00.5Z ", &["2024-05-01T10:00:01Z ", "2024-05-02T10:00:00.123456789Z "], &["x", "Z "]),
            (
                "Nov 26 10:00:00 h e[1]: ",
                &["Dec  1 09:59:59 h e[1]: "],
                &["Nov 26 10:00:00 h e[2]: ", "Foo 26 10:00:00 h e[1]: "],
            ),
            (
                "<34>1 2024-11-26T10:00:00Z 10.0.0.7 e 12 - ",
                &["<34>1 2024-11-26T10:00:01.5Z 10.0.0.7 e 12 - "],
                &["<34>1 2024-11-26T10:00:01Z 10.0.0.8 e 12 - ", "<34>1 2024-11-26T10:00:01Z 10.0.0.7 e 13 - "],
            ),
            ("9:", &["10:", "11-"], &["x:", ":"]),
            ("a.json:9:", &["a.json:10:", "a.json-10-"], &["b.json:9:"]),
            ("\x1b[36ma | \x1b[0m", &["\x1b[36ma | \x1b[0m", "a | "], &["\x1b[36mb | \x1b[0m"]),
            ("> ", &["> ", ">"], &["", "x"]),
        ] {
            let prefix = Prefix::of(first.as_bytes()).unwrap();
            for same in same {
                assert_eq!(prefix.len_in(format!("{same}x").as_bytes()), Some(same.len()), "{first} {same}");
            }
            for other in others {
                assert_eq!(prefix.len_in(other.as_bytes()), None, "{first} {other}");
            }
        }
    }

    #[test]
    fn white_space_and_comments_are_no_prefix() {
        let long = "x".repeat(MOST + 1);
        for bytes in ["", "  ", "\t", "// ", "//! ", " * ", "/* ", "a\0b ", &long] {
            assert_eq!(Prefix::of(bytes.as_bytes()), None, "{bytes}");
        }
    }
}
