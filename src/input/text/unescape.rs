//! Turns string literals back into bytes: most of the work on a binary payload.

use std::hint::select_unpredictable;

const ONES: u64 = u64::from_ne_bytes([1; 8]);
const HIGHS: u64 = u64::from_ne_bytes([0x80; 8]);
/// Bytes that one round may produce.
const ROUND: usize = 8;

/// A literal that is not one.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) at: usize,
    pub(super) detail: String,
}

/// Appends the contents of a literal to `out`, from `at` behind (or somewhere behind) its opening quote. Answers where
/// the literal ends, or `None` where the window ends before it; all that can be read is in `out` then.
pub(super) fn unescape(window: &[u8], quote: u8, mut at: usize, out: &mut Vec<u8>) -> Result<Option<usize>, Fault> {
    let mut buffer = [0u8; 512];
    let mut filled = 0;
    let end = loop {
        if filled > buffer.len() - ROUND {
            out.extend_from_slice(&buffer[..filled]);
            filled = 0;
        }
        if let Some(chunk) = window.get(at..).and_then(<[u8]>::first_chunk::<ROUND>) {
            let eight = u64::from_le_bytes(*chunk);
            if is_plain(eight, quote) {
                buffer[filled..filled + ROUND].copy_from_slice(chunk);
                filled += ROUND;
                at += ROUND;
                continue;
            }
            // Two bytes of contents at a time, each a plain byte or an octal escape of three digits. In binary data
            // no branch could foresee which, so this computes both.
            let first = Item::new(eight, quote);
            let second = Item::new(eight >> (8 * first.len), quote);
            if first.simple & second.simple {
                buffer[filled] = first.value;
                buffer[filled + 1] = second.value;
                filled += 2;
                at += first.len + second.len;
                continue;
            }
        }
        // Near the end of the window, at the closing quote, and for the other escapes.
        match window.get(at) {
            None => break None,
            Some(&byte) if byte == quote => break Some(at + 1),
            Some(b'\n') => return Err(Fault { at, detail: "a string is not closed on its line".into() }),
            Some(b'\\') => match escape(window, at)? {
                None => break None,
                Some(escape) => {
                    buffer[filled..filled + 4].copy_from_slice(&escape.bytes);
                    filled += escape.len;
                    at = escape.end;
                }
            },
            Some(&byte) => {
                buffer[filled] = byte;
                filled += 1;
                at += 1;
            }
        }
    };
    out.extend_from_slice(&buffer[..filled]);
    Ok(end)
}

/// Whether none of eight bytes is the quote, a backslash or a line feed.
#[inline]
fn is_plain(eight: u64, quote: u8) -> bool {
    let zeros = |byte: u8| {
        let differ = eight ^ (ONES * u64::from(byte));
        differ.wrapping_sub(ONES) & !differ
    };
    (zeros(quote) | zeros(b'\\') | zeros(b'\n')) & HIGHS == 0
}

struct Item {
    value: u8,
    len: usize,
    /// A plain byte or a three-digit octal escape, so that the rest of this is right.
    simple: bool,
}

impl Item {
    /// Reads the lowest bytes of `bytes`, at least four.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "the low bytes are meant")]
    fn new(bytes: u64, quote: u8) -> Self {
        // Backslash, 0 to 3, 0 to 7, 0 to 7: the low bits of each digit are free.
        let octal = bytes & 0xf8f8_fcff == 0x3030_305c;
        let byte = bytes as u8;
        let digits = (((bytes >> 2) & 0o300) | ((bytes >> 13) & 0o70) | ((bytes >> 24) & 0o7)) as u8;
        let plain = (byte != quote) & (byte != b'\\') & (byte != b'\n');
        Self {
            value: select_unpredictable(octal, digits, byte),
            len: select_unpredictable(octal, 4, 1),
            simple: octal | plain,
        }
    }
}

struct Escape {
    bytes: [u8; 4],
    len: usize,
    end: usize,
}

impl Escape {
    fn byte(value: u8, end: usize) -> Self {
        Self { bytes: [value, 0, 0, 0], len: 1, end }
    }
}

/// Reads the escape at `at`; `None` where the window ends inside it.
fn escape(window: &[u8], at: usize) -> Result<Option<Escape>, Fault> {
    let Some(&letter) = window.get(at + 1) else { return Ok(None) };
    let value = match letter {
        b'a' => 0x07,
        b'b' => 0x08,
        b'f' => 0x0c,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'v' => 0x0b,
        b'?' | b'\\' | b'\'' | b'"' => letter,
        b'0'..=b'7' => return number(window, at, at + 1, 8, 1..=3),
        b'x' | b'X' => return number(window, at, at + 2, 16, 1..=2),
        b'u' => return utf16(window, at),
        b'U' => return number(window, at, at + 2, 16, 8..=8),
        _ => return Err(bad(window, at, at + 2)),
    };
    Ok(Some(Escape::byte(value, at + 2)))
}

fn bad(window: &[u8], at: usize, end: usize) -> Fault {
    let end = end.min(window.len());
    Fault { at, detail: format!("\"{}\" is no escape sequence", window[at..end].escape_ascii()) }
}

/// The digits of an escape, as many as `count` allows, and their value. `None` where more might follow the window.
fn digits(
    window: &[u8],
    at: usize,
    from: usize,
    radix: u32,
    count: std::ops::RangeInclusive<usize>,
) -> Result<Option<(u32, usize)>, Fault> {
    let mut value = 0;
    let mut end = from;
    while end - from < *count.end() {
        let Some(&byte) = window.get(end) else { return Ok(None) };
        let Some(digit) = char::from(byte).to_digit(radix) else { break };
        value = value * radix + digit;
        end += 1;
    }
    if count.contains(&(end - from)) { Ok(Some((value, end))) } else { Err(bad(window, at, end)) }
}

/// An escape that is a number: a byte, or behind `\U` a character.
fn number(
    window: &[u8],
    at: usize,
    from: usize,
    radix: u32,
    count: std::ops::RangeInclusive<usize>,
) -> Result<Option<Escape>, Fault> {
    let is_character = *count.start() == 8;
    let Some((value, end)) = digits(window, at, from, radix, count)? else { return Ok(None) };
    if is_character {
        return character(window, at, value, end).map(Some);
    }
    match u8::try_from(value) {
        Ok(value) => Ok(Some(Escape::byte(value, end))),
        Err(_) => Err(bad(window, at, end)),
    }
}

/// `\u`: a UTF-16 unit, so a character beyond the first 65,536 takes two.
fn utf16(window: &[u8], at: usize) -> Result<Option<Escape>, Fault> {
    let Some((high, end)) = digits(window, at, at + 2, 16, 4..=4)? else { return Ok(None) };
    if !(0xd800..0xdc00).contains(&high) {
        return character(window, at, high, end).map(Some);
    }
    let rest = &window[end..];
    if !rest.starts_with(b"\\u") {
        return if b"\\u".starts_with(rest) { Ok(None) } else { Err(bad(window, at, end)) };
    }
    let Some((low, pair_end)) = digits(window, at, end + 2, 16, 4..=4)? else { return Ok(None) };
    if !(0xdc00..0xe000).contains(&low) {
        return Err(bad(window, at, pair_end));
    }
    character(window, at, 0x1_0000 + (((high - 0xd800) << 10) | (low - 0xdc00)), pair_end).map(Some)
}

fn character(window: &[u8], at: usize, value: u32, end: usize) -> Result<Escape, Fault> {
    let character = char::from_u32(value).ok_or_else(|| bad(window, at, end))?;
    let mut bytes = [0; 4];
    let len = character.encode_utf8(&mut bytes).len();
    Ok(Escape { bytes, len, end })
}
