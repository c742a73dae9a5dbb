//! Whether Envoy can compile a regular expression.
//!
//! Envoy takes RE2's syntax, and ends if RE2 refuses an expression that comes through `/tap`. The crate `regex` has nearly
//! the same syntax. What is allowed here is what both understand alike, and small for both.

use ::regex::bytes::RegexBuilder;

/// Bytes of an expression. Of one with hundreds of thousands, Envoy 1.40 did not finish compiling.
const MAX_BYTES: usize = 1024;
/// Bytes of the compiled expression.
const MAX_COMPILED: usize = 512 * 1024;
/// Instructions of RE2 for an expression. Envoy allows 100 unless its runtime says otherwise, and some are always there.
const MAX_SIZE: u64 = 92;
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

/// A group that is open, or the whole expression.
struct Group {
    /// The largest product of counted repetitions in it.
    repeats: u32,
    /// Instructions of RE2, at most.
    size: u64,
}

/// What a repetition would repeat.
#[derive(Clone, Copy)]
struct Piece {
    repeats: u32,
    size: u64,
}

/// RE2's instructions for an escape: one for each range of bytes.
fn escape_size(escaped: u8) -> u64 {
    match escaped {
        b'D' => 2,
        b's' => 3,
        b'S' | b'w' => 4,
        b'W' => 5,
        _ => 1,
    }
}

/// Looks for what the two kinds of syntax disagree on, and counts RE2's instructions.
fn syntax(text: &[u8]) -> Result<(), (usize, &'static str)> {
    let mut groups = vec![Group { repeats: 1, size: 0 }];
    // `None` where there is nothing to repeat.
    let mut last: Option<Piece> = None;
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        let start = at;
        // What this adds to the group, and whether it can be repeated.
        let (size, is_piece) = match byte {
            b'\\' => {
                let Some(&escaped) = text.get(at + 1) else {
                    return Err((at, "nothing follows the backslash"));
                };
                at += 2;
                match escaped {
                    b'd' | b'D' | b'w' | b'W' | b's' | b'S' | b'n' | b'r' | b't' => (escape_size(escaped), true),
                    // Positions cannot be repeated.
                    b'b' | b'B' => (1, false),
                    _ if escaped.is_ascii_punctuation() && !b"<>".contains(&escaped) => (1, true),
                    _ => return Err((start, "this escape is not allowed")),
                }
            }
            b'[' => {
                let (size, end) = class(text, at)?;
                at = end;
                (size, true)
            }
            b'(' => {
                if text.get(at + 1) == Some(&b'?') {
                    if text.get(at + 2) != Some(&b':') {
                        return Err((at, "of groups with a question mark, only (?: is allowed"));
                    }
                    at += 2;
                }
                at += 1;
                groups.push(Group { repeats: 1, size: 0 });
                if groups.len() > 20 {
                    return Err((start, "there are too many groups within each other"));
                }
                (0, false)
            }
            b')' => {
                let inner = groups.pop().filter(|_| !groups.is_empty());
                let Some(inner) = inner else {
                    return Err((at, "this group was not opened"));
                };
                at += 1;
                // Where it begins and where it ends, and one if it is empty.
                let piece = Piece { repeats: inner.repeats, size: inner.size + 3 };
                if let Some(group) = groups.last_mut() {
                    group.size = group.size.saturating_add(piece.size);
                    group.repeats = group.repeats.max(piece.repeats);
                }
                last = Some(piece);
                continue;
            }
            b'|' => {
                at += 1;
                (2, false)
            }
            b'^' | b'$' => {
                at += 1;
                (1, false)
            }
            b'*' | b'+' | b'?' | b'{' => {
                let Some(inner) = last.take() else {
                    return Err((at, "there is nothing to repeat, or it is repeated twice"));
                };
                let times = if byte == b'{' {
                    let (times, after) = repetition(text, at)?;
                    at = after;
                    times.max(1)
                } else {
                    at += 1;
                    1
                };
                let repeats = inner.repeats.saturating_mul(times);
                if repeats > MAX_REPEAT {
                    return Err((start, "it repeats more than 1000 times"));
                }
                if let Some(group) = groups.last_mut() {
                    group.repeats = group.repeats.max(repeats);
                }
                // The lazy variant.
                if text.get(at) == Some(&b'?') {
                    at += 1;
                }
                // Each copy has a branch, and the last one may have another.
                ((inner.size + 2).saturating_mul(times.into()) - inner.size + 2, false)
            }
            b'}' | b']' => return Err((at, "write a backslash before it")),
            b'.' => {
                at += 1;
                (2, true)
            }
            _ => {
                at += 1;
                (1, true)
            }
        };
        if let Some(group) = groups.last_mut() {
            group.size = group.size.saturating_add(size);
        }
        last = is_piece.then_some(Piece { repeats: 1, size });
    }
    match groups.as_slice() {
        [whole] if whole.size <= MAX_SIZE => Ok(()),
        [_] => Err((
            text.len(),
            "it is too long for Envoy, which allows 100 instructions of RE2, one for each character or so",
        )),
        _ => Err((text.len(), "a group is not closed")),
    }
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

/// `[...]`, with characters, ranges of letters and digits, and escapes: RE2's instructions, and where it ends.
fn class(text: &[u8], start: usize) -> Result<(u64, usize), (usize, &'static str)> {
    let mut at = start + 1;
    if text.get(at) == Some(&b'^') {
        at += 1;
    }
    let mut is_empty = true;
    // What is not in a list of ranges is one range more.
    let mut size = 1;
    loop {
        match text.get(at) {
            None => return Err((start, "the bracket is not closed")),
            Some(b']') if is_empty => return Err((at, "the brackets are empty; write a backslash before ]")),
            Some(b']') => return Ok((size, at + 1)),
            Some(b'\\') => {
                match text.get(at + 1) {
                    Some(escaped @ (b'd' | b'D' | b'w' | b'W' | b's' | b'S' | b'n' | b'r' | b't')) => {
                        size += escape_size(*escaped);
                    }
                    Some(escaped) if escaped.is_ascii_punctuation() && !b"<>".contains(escaped) => size += 1,
                    _ => return Err((at, "this escape is not allowed in brackets")),
                }
                at += 2;
            }
            Some(byte) if byte.is_ascii_alphanumeric() => {
                size += 1;
                if text.get(at + 1) == Some(&b'-') && text.get(at + 2) != Some(&b']') {
                    match text.get(at + 2) {
                        Some(end) if end.is_ascii_alphanumeric() && end >= byte => at += 3,
                        _ => return Err((at, "a range goes from one letter or digit to a later one")),
                    }
                } else {
                    at += 1;
                }
            }
            Some(b'-') if is_empty || text.get(at + 1) == Some(&b']') => {
                size += 1;
                at += 1;
            }
            // Doubled, some of these are operators of the crate `regex`.
            Some(b'[' | b'&' | b'~' | b'-' | b'^') => return Err((at, "write a backslash before it")),
            Some(_) => {
                size += 1;
                at += 1;
            }
        }
        is_empty = false;
    }
}
