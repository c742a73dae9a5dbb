//! TCP sequence numbers.

use std::ops::{Add, AddAssign, Sub};

/// A sequence number: arithmetic modulo 2^32 (RFC 9293 section 3.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct SeqNumber(pub u32);

impl Add<u64> for SeqNumber {
    type Output = Self;

    #[inline]
    fn add(self, bytes: u64) -> Self {
        // Truncating the count is the arithmetic modulo 2^32.
        Self(self.0.wrapping_add(bytes as u32))
    }
}

impl AddAssign<u64> for SeqNumber {
    #[inline]
    fn add_assign(&mut self, bytes: u64) {
        *self = *self + bytes;
    }
}

impl Sub for SeqNumber {
    type Output = u32;

    /// How far `self` is ahead of `other`, modulo 2^32.
    #[inline]
    fn sub(self, other: Self) -> u32 {
        self.0.wrapping_sub(other.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_wrap_at_the_end_of_their_space() {
        assert_eq!(SeqNumber(u32::MAX) + 1, SeqNumber(0));
        assert_eq!(SeqNumber(5) - SeqNumber(u32::MAX), 6);
        assert_eq!(SeqNumber(7) + (1 << 32), SeqNumber(7));
    }

    proptest! {
        #[test]
        fn the_difference_undoes_the_sum(start: u32, bytes in 0..u64::from(u32::MAX)) {
            prop_assert_eq!(u64::from((SeqNumber(start) + bytes) - SeqNumber(start)), bytes);
        }

        #[test]
        fn steps_add_up(start: u32, first: u32, second: u32) {
            let (first, second) = (u64::from(first), u64::from(second));
            prop_assert_eq!(SeqNumber(start) + first + second, SeqNumber(start) + (first + second));
        }
    }
}
