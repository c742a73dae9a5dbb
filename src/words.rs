//! Numbers in sentences.

use std::fmt::Display;

/// `1 trace`, `2 traces`.
#[must_use]
pub(crate) fn count(number: u64, noun: &str) -> String {
    count_of(number, noun, &format!("{noun}s"))
}

/// `1 body`, `2 bodies`.
#[must_use]
pub(crate) fn count_of(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// `1 byte is missing`, `2 bytes are missing`.
#[must_use]
pub(crate) fn bytes_are(number: u64) -> String {
    count_of(number, "byte is", "bytes are")
}

/// `once`, `2 times`.
#[must_use]
pub(crate) fn times(number: u64) -> String {
    if number == 1 { "once".to_owned() } else { format!("{number} times") }
}

/// `a`, `a and b`, `a, b and c`.
#[must_use]
pub(crate) fn list<T: Display>(items: &[T]) -> String {
    let mut text = String::new();
    for (index, item) in items.iter().enumerate() {
        match index {
            0 => {}
            _ if index + 1 == items.len() => text.push_str(" and "),
            _ => text.push_str(", "),
        }
        text.push_str(&item.to_string());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_of_one_takes_the_singular() {
        assert_eq!(
            (count(0, "trace"), count(1, "trace"), count(2, "trace")),
            ("0 traces".into(), "1 trace".into(), "2 traces".into())
        );
        assert_eq!(
            (count_of(1, "body", "bodies"), bytes_are(1), bytes_are(7)),
            ("1 body".into(), "1 byte is".into(), "7 bytes are".into())
        );
        assert_eq!((times(1), times(0)), ("once".into(), "0 times".into()));
        assert_eq!(
            (list(&["a"]), list(&["a", "b"]), list(&["a", "b", "c"])),
            ("a".into(), "a and b".into(), "a, b and c".into())
        );
    }
}
