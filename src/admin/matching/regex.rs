//! Whether Envoy can compile a regular expression.
//!
//! Envoy takes RE2's syntax, and ends if RE2 refuses an expression that comes through `/tap`. The crate `regex` has nearly
//! the same syntax. What is allowed here is what both understand alike, and small for both.

use ::regex::bytes::RegexBuilder;

/// Bytes of an expression. Of one with hundreds of thousands, Envoy 1.40 did not finish compiling.
const MAX_BYTES: usize = 1024;
/// Bytes of the compiled expression. RE2 has 8 MiB, and takes less for the same.
const MAX_COMPILED: usize = 512 * 1024;
/// RE2's limit of a counted repetition, which holds for the product of those within each other.
const MAX_REPEAT: u32 = 1000;

/// # Errors
/// Why Envoy may not be able to compile it.
pub(super) fn check(expression: &str) -> Result<(), String> {
    if expression.len() > MAX_BYTES {
        return Err(format!("is an expression of {} bytes; it may have {MAX_BYTES}", expression.len()));
    }
    if !expression.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return Err("may have printable ASCII characters only".into());
    }
    syntax(expression.as_bytes())
        .map_err(|(at, why)| format!("is no expression that Envoy surely understands: {why}, at byte {at}"))?;
    RegexBuilder::new(expression)
        .unicode(false)
        .size_limit(MAX_COMPILED)
        .build()
        .map(|_| ())
        .map_err(|error| format!("is no regular expression: {}", error.to_string().lines().last().unwrap_or_default()))
}

/// Looks for what the two kinds of syntax disagree on.
fn syntax(text: &[u8]) -> Result<(), (usize, &'static str)> {
    // The largest product of counted repetitions in each open group.
    let mut groups: Vec<u32> = vec![1];
    // What the repetition of the last piece counts to, or `None` where there is no piece to repeat.
    let mut last: Option<u32> = None;
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        match byte {
            b'\\' => {
                let Some(&escaped) = text.get(at + 1) else {
                    return Err((at, "nothing follows the backslash"));
                };
                match escaped {
                    b'd' | b'D' | b'w' | b'W' | b's' | b'S' | b'n' | b'r' | b't' => last = Some(1),
                    // Positions cannot be repeated.
                    b'b' | b'B' => last = None,
                    _ if escaped.is_ascii_punctuation() && escaped != b'<' && escaped != b'>' => last = Some(1),
                    _ => return Err((at, "this escape is not allowed")),
                }
                at += 2;
            }
            b'[' => {
                at = class(text, at)?;
                last = Some(1);
            }
            b'(' => {
                if text.get(at + 1) == Some(&b'?') {
                    if text.get(at + 2) != Some(&b':') {
                        return Err((at, "of groups with a question mark, only (?: is allowed"));
                    }
                    at += 2;
                }
                at += 1;
                groups.push(1);
                if groups.len() > 20 {
                    return Err((at, "there are too many groups within each other"));
                }
                last = None;
            }
            b')' => {
                let inner = groups.pop().unwrap_or(1);
                if groups.is_empty() {
                    return Err((at, "this group was not opened"));
                }
                last = Some(inner);
                at += 1;
            }
            b'|' => {
                last = None;
                at += 1;
            }
            b'^' | b'$' => {
                last = None;
                at += 1;
            }
            b'*' | b'+' | b'?' | b'{' => {
                let Some(inner) = last.take() else {
                    return Err((at, "there is nothing to repeat, or it is repeated twice"));
                };
                let start = at;
                let times = if byte == b'{' {
                    let (times, after) = repetition(text, at)?;
                    at = after;
                    times.max(1)
                } else {
                    at += 1;
                    1
                };
                let product = inner.saturating_mul(times);
                if product > MAX_REPEAT {
                    return Err((start, "it repeats more than 1000 times"));
                }
                if let Some(group) = groups.last_mut() {
                    *group = product.max(*group);
                }
                // The lazy variant.
                if text.get(at) == Some(&b'?') {
                    at += 1;
                }
            }
            b'}' | b']' => return Err((at, "write a backslash before it")),
            _ => {
                last = Some(1);
                at += 1;
            }
        }
    }
    if groups.len() == 1 { Ok(()) } else { Err((text.len(), "a group is not closed")) }
}

/// `{n}`, `{n,}` or `{n,m}`: the larger number, and where it ends.
fn repetition(text: &[u8], at: usize) -> Result<(u32, usize), (usize, &'static str)> {
    const WRONG: &str = "this is no repetition such as {1,3}";
    let end = text[at..].iter().position(|byte| *byte == b'}').ok_or((at, WRONG))? + at;
    let inner = std::str::from_utf8(&text[at + 1..end]).map_err(|_| (at, WRONG))?;
    let number = |digits: &str| match digits {
        digits if !digits.is_empty() && digits.len() <= 4 && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            digits.parse::<u32>().map_err(|_| (at, WRONG))
        }
        _ => Err((at, WRONG)),
    };
    let (least, most) = match inner.split_once(',') {
        None => (number(inner)?, number(inner)?),
        Some((least, "")) => (number(least)?, number(least)?),
        Some((least, most)) => (number(least)?, number(most)?),
    };
    if least > most {
        return Err((at, "the smaller number comes first"));
    }
    Ok((most, end + 1))
}

/// `[...]`, with characters, ranges of letters and digits, and escapes: where it ends.
fn class(text: &[u8], start: usize) -> Result<usize, (usize, &'static str)> {
    let mut at = start + 1;
    if text.get(at) == Some(&b'^') {
        at += 1;
    }
    let mut is_empty = true;
    loop {
        match text.get(at) {
            None => return Err((start, "the bracket is not closed")),
            Some(b']') if is_empty => return Err((at, "the brackets are empty; write a backslash before ]")),
            Some(b']') => return Ok(at + 1),
            Some(b'\\') => {
                match text.get(at + 1) {
                    Some(b'd' | b'D' | b'w' | b'W' | b's' | b'S' | b'n' | b'r' | b't') => {}
                    Some(escaped) if escaped.is_ascii_punctuation() && !b"<>".contains(escaped) => {}
                    _ => return Err((at, "this escape is not allowed in brackets")),
                }
                at += 2;
            }
            Some(byte) if byte.is_ascii_alphanumeric() => {
                if text.get(at + 1) == Some(&b'-') && text.get(at + 2) != Some(&b']') {
                    match text.get(at + 2) {
                        Some(end) if end.is_ascii_alphanumeric() && end >= byte => at += 3,
                        _ => return Err((at, "a range goes from one letter or digit to a later one")),
                    }
                } else {
                    at += 1;
                }
            }
            Some(b'-') if is_empty || text.get(at + 1) == Some(&b']') => at += 1,
            // Doubled, some of these are operators of the crate `regex`.
            Some(b'[' | b'&' | b'~' | b'-' | b'^') => return Err((at, "write a backslash before it")),
            Some(_) => at += 1,
        }
        is_empty = false;
    }
}
