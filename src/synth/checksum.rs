//! The Internet checksum (RFC 1071). It sums four 64-bit lanes at a time, because it is the only work per payload byte
//! besides copying it into the capture.
//!
//! A one's complement sum does not depend on the byte order it is computed in, so everything here is in the machine's
//! byte order. A property test compares it with etherparse.

/// A sum in progress. Every part but the last must have an even length.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sum(u64);

impl Sum {
    #[inline]
    pub(crate) fn add(self, bytes: &[u8]) -> Self {
        let mut lanes = [self.0, 0, 0, 0];
        let (blocks, rest) = bytes.as_chunks::<32>();
        for block in blocks {
            for (lane, word) in lanes.iter_mut().zip(block.as_chunks::<8>().0) {
                *lane = add_with_carry(*lane, u64::from_ne_bytes(*word));
            }
        }
        let [first, second, third, fourth] = lanes;
        let mut sum = add_with_carry(add_with_carry(first, second), add_with_carry(third, fourth));
        let (words, tail) = rest.as_chunks::<8>();
        for word in words {
            sum = add_with_carry(sum, u64::from_ne_bytes(*word));
        }
        // At most seven bytes are left, which need neither a loop nor a call.
        let (fours, tail) = tail.as_chunks::<4>();
        if let [four] = fours {
            sum = add_with_carry(sum, u64::from(u32::from_ne_bytes(*four)));
        }
        let (twos, tail) = tail.as_chunks::<2>();
        if let [two] = twos {
            sum = add_with_carry(sum, u64::from(u16::from_ne_bytes(*two)));
        }
        if let [one] = tail {
            sum = add_with_carry(sum, u64::from(u16::from_ne_bytes([*one, 0])));
        }
        Self(sum)
    }

    /// Adds two 32-bit fields in network order.
    #[inline]
    pub(crate) fn add_u32s(self, first: u32, second: u32) -> Self {
        let sum = u64::from(first.to_be()) + u64::from(second.to_be());
        Self(add_with_carry(self.0, sum))
    }

    /// Adds a 16-bit field in network order.
    #[inline]
    pub(crate) fn add_u16(self, value: u16) -> Self {
        Self(add_with_carry(self.0, u64::from(value.to_be())))
    }

    /// The checksum field's two bytes.
    #[inline]
    pub(crate) fn finish(self) -> [u8; 2] {
        let (sum, carry) = ((self.0 >> 32) as u32).overflowing_add(self.0 as u32);
        let sum = sum + u32::from(carry);
        let (sum, carry) = ((sum >> 16) as u16).overflowing_add(sum as u16);
        (!(sum + u16::from(carry))).to_ne_bytes()
    }
}

#[inline]
fn add_with_carry(a: u64, b: u64) -> u64 {
    let (sum, carry) = a.overflowing_add(b);
    sum + u64::from(carry)
}

#[cfg(test)]
mod tests {
    use etherparse::checksum::Sum16BitWords;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn fields_count_as_their_bytes(first: u32, second: u32, third: u16) {
            let fields = Sum::default().add_u32s(first, second).add_u16(third);
            let bytes = [&first.to_be_bytes()[..], &second.to_be_bytes(), &third.to_be_bytes()].concat();
            prop_assert_eq!(fields.finish(), Sum::default().add(&bytes).finish());
        }

        #[test]
        fn a_sum_equals_that_of_the_reference(head in proptest::collection::vec(any::<u8>(), 0..100), tail: Vec<u8>, field: u16) {
            let head = &head[..head.len() & !1];
            let slow = Sum16BitWords::new().add_slice(head).add_slice(&tail).add_2bytes(field.to_be_bytes());
            let fast = Sum::default().add(head).add(&tail).add_u16(field);
            prop_assert_eq!(fast.finish(), slow.ones_complement().to_be().to_be_bytes());
        }
    }

    #[test]
    fn a_sum_of_all_ones_carries() {
        let ones = [0xff; 1 << 16];
        assert_eq!(Sum::default().add(&ones).finish(), [0, 0]);
    }
}
