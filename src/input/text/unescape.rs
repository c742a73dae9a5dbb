//! Turns string literals back into bytes: most of the work on a binary payload.
//!
//! In binary data, a processor cannot predict where the next escape is, so stepping from one to the next takes longer
//! than decoding them. So 64 bytes are processed at once: bit masks tell which of them start a byte of the contents,
//! and a value is computed for each byte, needed or not. The end of the literal, and escapes that Envoy does not write,
//! are left to a loop that takes one escape at a time; tests compare the masks with it.

use super::lane::{LANE, Lane};

use crate::trace::TextFault;

/// Bytes that are processed at once, one for each bit of a mask.
const BLOCK: usize = 64;
/// Items may start only in this many bytes of a block, so that even the longest one ends in the block.
const STARTS: usize = BLOCK - 3;
/// Bytes that a block is computed from. The last three are only read as later bytes of an escape.
const SEEN: usize = BLOCK + 3;
/// Bytes that a block may write, including those after its contents.
const ROOM: usize = 2 * BLOCK;
/// Bytes of contents that are collected before they are appended.
const BUFFER: usize = 512;

/// Why a literal is invalid.
#[derive(Debug)]
pub(super) struct BadLiteral {
    pub(super) at: usize,
    pub(super) fault: TextFault,
}

/// Appends the contents of a literal to `out`, starting at `at`, which is anywhere after its opening quote. Returns
/// where the literal ends, or `None` if the window ends before it; `out` then has all that could be read.
pub(super) fn unescape(
    window: &[u8],
    quote: u8,
    mut at: usize,
    out: &mut Vec<u8>,
) -> Result<Option<usize>, BadLiteral> {
    let mut buffer = [0u8; BUFFER];
    let mut filled = 0;
    // Escapes that only other printers write often follow each other, and a block for each of them would be wasted.
    let mut one_by_one = false;
    let end = loop {
        if filled > BUFFER - ROOM {
            out.extend_from_slice(&buffer[..filled]);
            filled = 0;
        }
        if !one_by_one && let Some(seen) = window.get(at..).and_then(<[u8]>::first_chunk) {
            let block = Block::new(seen, quote);
            if let Some(room) = buffer[filled..].first_chunk_mut() {
                filled += block.write(room);
                at += block.len;
                if block.is_whole {
                    continue;
                }
            }
        }
        match window.get(at) {
            None => break None,
            Some(&byte) if byte == quote => break Some(at + 1),
            Some(b'\n') => return Err(BadLiteral { at, fault: TextFault::OpenString }),
            Some(b'\\') => match escape(window, at)? {
                None => break None,
                Some(escape) => {
                    buffer[filled..filled + 4].copy_from_slice(&escape.bytes);
                    filled += escape.len;
                    at = escape.end;
                    one_by_one = window.get(at) == Some(&b'\\');
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

/// The part of a literal at the start of 64 bytes that consists only of items: plain bytes, and the escapes that Envoy
/// writes (three octal digits, or one of [`LETTERS`]).
struct Block {
    /// For each byte that starts an item, the byte of contents that it stands for.
    values: [u8; ROOM],
    /// Which bytes start an item, from the lowest bit on.
    kept: u64,
    /// Where the next item starts.
    len: usize,
    /// Nothing but items was found, so another block can go on from there.
    is_whole: bool,
}

impl Block {
    #[inline(always)]
    fn new(seen: &[u8; SEEN], quote: u8) -> Self {
        let mut values = [0; ROOM];
        let (mut specials, mut backslashes, mut first_digits, mut digits) = (0, 0, 0, 0);
        for (at, values) in (0..).step_by(LANE).zip(values.as_chunks_mut().0).take(BLOCK / LANE) {
            let bytes = lane(seen, at);
            let backslash = bytes.equals(b'\\');
            let special = backslash.or(bytes.equals(quote)).or(bytes.equals(b'\n'));
            // The first digit is 0 to 3, and the others are 0 to 7: without their low bits, they equal `0`.
            let first_digit = bytes.masked(!0b11).equals(b'0');
            let digit = bytes.masked(!0b111).equals(b'0');
            let high = lane(seen, at + 1).masked(0b11).shifted::<6>();
            let middle = lane(seen, at + 2).masked(0b111).shifted::<3>();
            let low = lane(seen, at + 3).masked(0b111);
            *values = backslash.choose(high.or(middle).or(low), bytes).to_array();
            specials |= special.to_bits() << at;
            backslashes |= backslash.to_bits() << at;
            first_digits |= first_digit.to_bits() << at;
            digits |= digit.to_bits() << at;
        }
        let starts = (1 << STARTS) - 1;
        let escapes = specials & !escaped(specials) & starts;
        // A special byte may also be the closing quote, and digits may follow that, so it must be a backslash.
        let octals = escapes & backslashes & first_digits >> 1 & digits >> 2 & digits >> 3;
        let consumed = escapes << 1 | octals << 2 | octals << 3;
        let kept = !consumed & starts;
        let mut others = escapes & !octals;
        while others != 0 {
            let at = others.trailing_zeros() as usize;
            let letter = LETTERS[usize::from(seen[at + 1])];
            if letter == 0 || seen[at] != b'\\' {
                return Self { values, kept: kept & ((1 << at) - 1), len: at, is_whole: false };
            }
            values[at] = letter;
            others &= others - 1;
        }
        let len = STARTS + (consumed >> STARTS).trailing_ones() as usize;
        Self { values, kept, len, is_whole: true }
    }

    /// Writes the contents, maybe with other bytes after them, and returns the length of the contents.
    #[inline(always)]
    fn write(&self, out: &mut [u8; ROOM]) -> usize {
        /// With more contents than this, most bytes are in runs of plain ones, and copying run by run is faster.
        const MANY: usize = 44;
        const GROUP: usize = 8;
        let count = self.kept.count_ones() as usize;
        let mut rest = self.kept;
        if count > MANY {
            let (mut from, mut to) = (0, 0);
            while rest != 0 {
                let gap = rest.trailing_zeros();
                rest >>= gap;
                from += gap as usize;
                let run = rest.trailing_ones();
                rest >>= run;
                if let (Some(out), Some(values)) =
                    (out[to..].first_chunk_mut::<BLOCK>(), self.values[from..].first_chunk())
                {
                    *out = *values;
                }
                from += run as usize;
                to += run as usize;
            }
            return count;
        }
        // Whole groups are written, because a processor cannot predict the number of bytes either.
        for group in out.as_chunks_mut::<GROUP>().0.iter_mut().take(count.div_ceil(GROUP)) {
            for byte in group {
                *byte = self.values[(rest | 1 << 63).trailing_zeros() as usize];
                rest &= rest.wrapping_sub(1);
            }
        }
        count
    }
}

/// What the letter of an escape stands for, if Envoy writes that escape; 0 for all others.
static LETTERS: [u8; 256] = {
    let mut letters = [0; 256];
    letters[b'n' as usize] = b'\n';
    letters[b'r' as usize] = b'\r';
    letters[b't' as usize] = b'\t';
    letters[b'"' as usize] = b'"';
    letters[b'\'' as usize] = b'\'';
    letters[b'\\' as usize] = b'\\';
    letters
};

#[inline(always)]
fn lane(seen: &[u8; SEEN], at: usize) -> Lane {
    Lane::new(seen[at..].first_chunk().copied().unwrap_or_default())
}

/// Which bytes are escaped, given a mask of the special bytes. In a run of those, every second one is escaped by the
/// one before it, and after a run of odd length, so is the next byte. This holds up to the end of the literal.
///
/// In a run that starts at an even position, the escaped bytes are at odd positions, and the other way round. To tell
/// these runs apart, the start of each run at an odd position is added to the mask: the carry clears the whole run and
/// sets the bit after it. The exclusive or with the even positions then gives even positions in the runs that were
/// cleared, and odd positions in the others.
#[inline(always)]
fn escaped(mask: u64) -> u64 {
    const EVEN: u64 = 0x5555_5555_5555_5555;
    let after = mask << 1;
    let odd_starts = mask & !EVEN & !after;
    let carried = odd_starts.wrapping_add(mask);
    (EVEN ^ carried << 1) & after
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

/// Reads the escape at `at`; `None` if the window ends inside it.
fn escape(window: &[u8], at: usize) -> Result<Option<Escape>, BadLiteral> {
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

fn bad(window: &[u8], at: usize, end: usize) -> BadLiteral {
    let end = end.min(window.len());
    BadLiteral { at, fault: TextFault::Escape(window[at..end].into()) }
}

/// The value of an escape's digits, up to as many as `count` allows, and where they end. `None` if more may follow the
/// window.
fn digits(
    window: &[u8],
    at: usize,
    from: usize,
    radix: u32,
    count: std::ops::RangeInclusive<usize>,
) -> Result<Option<(u32, usize)>, BadLiteral> {
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

/// An escape that is a number: a byte, or after `\U` a character.
fn number(
    window: &[u8],
    at: usize,
    from: usize,
    radix: u32,
    count: std::ops::RangeInclusive<usize>,
) -> Result<Option<Escape>, BadLiteral> {
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
fn utf16(window: &[u8], at: usize) -> Result<Option<Escape>, BadLiteral> {
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

fn character(window: &[u8], at: usize, value: u32, end: usize) -> Result<Escape, BadLiteral> {
    let character = char::from_u32(value).ok_or_else(|| bad(window, at, end))?;
    let mut bytes = [0; 4];
    let len = character.encode_utf8(&mut bytes).len();
    Ok(Escape { bytes, len, end })
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::select};

    use super::*;

    /// Unescapes one item after another, without blocks.
    fn slowly(window: &[u8], quote: u8, mut at: usize, out: &mut Vec<u8>) -> Result<Option<usize>, BadLiteral> {
        loop {
            match window.get(at) {
                None => return Ok(None),
                Some(&byte) if byte == quote => return Ok(Some(at + 1)),
                Some(b'\n') => return Err(BadLiteral { at, fault: TextFault::OpenString }),
                Some(b'\\') => match escape(window, at)? {
                    None => return Ok(None),
                    Some(escape) => {
                        out.extend_from_slice(&escape.bytes[..escape.len]);
                        at = escape.end;
                    }
                },
                Some(&byte) => {
                    out.push(byte);
                    at += 1;
                }
            }
        }
    }

    fn assert_alike(window: &[u8], quote: u8) {
        let (mut out, mut expected) = (vec![7], vec![7]);
        let outcome = unescape(window, quote, 0, &mut out).map_err(|bad| (bad.at, bad.fault));
        let reference = slowly(window, quote, 0, &mut expected).map_err(|bad| (bad.at, bad.fault));
        assert_eq!(outcome, reference, "{}", window.escape_ascii());
        // The contents before damage are not used.
        if outcome.is_ok() {
            assert_eq!(out, expected, "{}", window.escape_ascii());
        }
    }

    fn any_piece() -> impl Strategy<Value = Vec<u8>> {
        const PIECES: &[&str] = &[
            "\\\\", "\\\\", "\\n", "\\r", "\\t", "\\\"", "\\'", "\\x1f", "\\u00e9", "\\7", "\\18", "\\400", "\\q",
            "\\", "'", "\"", "\n", "7", "00", "\\a", "]", "x",
        ];
        prop_oneof![
            8 => any::<u8>().prop_map(|byte| format!("\\{byte:03o}").into_bytes()),
            4 => vec((b' '..0x7f).prop_filter("plain", |byte| !b"\\\"'".contains(byte)), 0..90),
            1 => vec(any::<u8>(), 0..3),
            1 => select(PIECES).prop_map(|piece| piece.as_bytes().to_vec()),
            3 => select(&PIECES[..6]).prop_map(|piece| piece.as_bytes().to_vec()),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        #[test]
        fn blocks_give_what_single_steps_give(pieces in vec(any_piece(), 0..120), quote in select(&b"'\""[..]), cut in 0..200_usize) {
            let text = pieces.concat();
            assert_alike(&text, quote);
            assert_alike(&text[..text.len().saturating_sub(cut)], quote);
        }
    }

    #[test]
    fn every_escape_at_every_place_of_a_block() {
        let escapes = [
            "\\377",
            "\\n",
            "\\\\",
            "\\\\\\\\\\\\",
            "\\\\\\\"",
            "\\\\\"",
            "\"",
            "\"377",
            "\n012",
            "\n",
            "\\477",
            "\\387",
            "\\37",
            "\\z",
            "\\xff",
            "\\U0001f600",
        ];
        for escape in escapes {
            for before in 0..150 {
                for after in ["", "0", "abc", "\\000"] {
                    let text = ["x".repeat(before).as_str(), escape, after, &"y".repeat(100), "\" tail"].concat();
                    assert_alike(text.as_bytes(), b'"');
                    assert_alike(text.as_bytes(), b'\'');
                }
            }
        }
    }
}
