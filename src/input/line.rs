//! Building blocks of the fast paths for JSON and text.
//!
//! Envoy prints each kind of message in one way: the same names in the same order, with the same white space. In a
//! trace of small events, nearly all bytes are this frame around the payloads. The fast paths therefore compare it in
//! long pieces instead of splitting it into tokens. If anything differs, they leave the text to the general decoders.

/// The rest of a text that is being compared with an expected one.
#[derive(Clone, Copy)]
pub(super) struct Line<'a> {
    pub(super) rest: &'a [u8],
}

impl<'a> Line<'a> {
    /// Steps over text that must come next.
    #[inline(always)]
    pub(super) fn expect<const N: usize>(&mut self, expected: &[u8; N]) -> Option<()> {
        self.has(expected).then_some(())
    }

    /// Steps over text that may come next, and returns whether it does.
    #[inline(always)]
    pub(super) fn has<const N: usize>(&mut self, expected: &[u8; N]) -> bool {
        match self.rest.split_first_chunk::<N>() {
            Some((found, rest)) if found == expected => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    /// A decimal number of 1 to 15 digits. A leading zero is refused, because it makes a number octal in the text
    /// format. Digits are read eight bytes at a time, so more bytes must follow the number.
    #[inline(always)]
    pub(super) fn number(&mut self) -> Option<u64> {
        let first = u64::from_le_bytes(*self.rest.first_chunk()?);
        let (high, len) = leading_digits(first);
        if len < 8 {
            self.rest = self.rest.get(len..)?;
            return (len > 0 && (len == 1 || first as u8 != b'0')).then_some(high);
        }
        let rest = self.rest.get(8..)?;
        let (low, len) = leading_digits(u64::from_le_bytes(*rest.first_chunk()?));
        const SCALE: [u64; 8] = [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000];
        let scale = SCALE.get(len)?;
        self.rest = rest.get(len..)?;
        (first as u8 != b'0').then_some(high * scale + low)
    }
}

/// The decimal digits at the start of eight bytes: their value, and how many they are.
#[inline(always)]
pub(super) fn leading_digits(eight: u64) -> (u64, usize) {
    let values = eight ^ 0x3030_3030_3030_3030;
    // The high bit of each byte that is not 0 to 9. A carry out of such a byte only spoils the bytes after it.
    let others = (values.wrapping_add(0x7676_7676_7676_7676) | values) & 0x8080_8080_8080_8080;
    let len = (others.trailing_zeros() / 8) as usize;
    if len == 0 {
        return (0, 0);
    }
    // The shift puts zeros before the digits, so that there are always eight. Neighbours are then joined into numbers
    // of two, four and eight digits.
    let ones = values << (64 - 8 * len);
    let twos = ones.wrapping_mul(0x0a01) >> 8 & 0x00ff_00ff_00ff_00ff;
    let fours = twos.wrapping_mul(0x0064_0001) >> 16 & 0x0000_ffff_0000_ffff;
    (fours.wrapping_mul(0x2710_0000_0001) >> 32, len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn number(text: &[u8]) -> Option<(u64, usize)> {
        let mut line = Line { rest: text };
        line.number().map(|number| (number, text.len() - line.rest.len()))
    }

    #[test]
    fn only_plain_numbers_are_numbers() {
        assert_eq!(number(b"0\"      "), Some((0, 1)));
        assert_eq!(number(b"00\"     "), None);
        assert_eq!(number(b"01234567890\"     "), None);
        assert_eq!(number(b"\"       "), None);
        assert_eq!(number(b"-1       "), None);
        assert_eq!(number(b"1234567890123456\"       "), None);
    }

    proptest! {
        #[test]
        fn numbers_are_what_the_library_prints(printed in 0..1_000_000_000_000_000_u64, after in any::<[u8; 9]>()) {
            prop_assume!(!after[0].is_ascii_digit());
            let digits = printed.to_string();
            let text = [digits.as_bytes(), &after].concat();
            prop_assert_eq!(number(&text), Some((printed, digits.len())));
        }
    }
}
