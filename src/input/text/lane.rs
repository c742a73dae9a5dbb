//! Sixteen bytes in one register.
//!
//! On x86-64, safe_arch offers the few instructions that are needed. On other processors, wide chooses them. It has every
//! type and operation, so compiling it takes ten times as long.

/// Bytes of a lane.
pub(super) const LANE: usize = 16;

pub(super) use register::Lane;

#[cfg(target_arch = "x86_64")]
mod register {
    use safe_arch::{bitandnot_m128i, bitor_m128i, cmp_eq_mask_i8_m128i, m128i, move_mask_i8_m128i, shl_imm_u16_m128i};

    use super::LANE;

    #[derive(Clone, Copy)]
    pub(in crate::input::text) struct Lane(m128i);

    impl Lane {
        #[inline(always)]
        pub(in crate::input::text) fn new(bytes: [u8; LANE]) -> Self {
            Self(bytes.into())
        }

        #[inline(always)]
        pub(in crate::input::text) fn to_array(self) -> [u8; LANE] {
            self.0.into()
        }

        /// Sets all bits of each byte that equals `byte`, and clears the others.
        #[inline(always)]
        pub(in crate::input::text) fn equals(self, byte: u8) -> Self {
            Self(cmp_eq_mask_i8_m128i(self.0, [byte; LANE].into()))
        }

        /// Clears all but these bits in each byte.
        #[inline(always)]
        pub(in crate::input::text) fn masked(self, bits: u8) -> Self {
            Self(self.0 & [bits; LANE].into())
        }

        #[inline(always)]
        pub(in crate::input::text) fn or(self, other: Self) -> Self {
            Self(bitor_m128i(self.0, other.0))
        }

        /// Shifts each byte to the left. No bit may leave its byte.
        #[inline(always)]
        pub(in crate::input::text) fn shifted<const BITS: i32>(self) -> Self {
            Self(shl_imm_u16_m128i::<BITS>(self.0))
        }

        /// Takes the bytes of `yes` where this lane has all bits, and those of `no` where it has none.
        #[inline(always)]
        pub(in crate::input::text) fn choose(self, yes: Self, no: Self) -> Self {
            Self((self.0 & yes.0) | bitandnot_m128i(self.0, no.0))
        }

        /// The highest bit of each byte; the first byte gives the lowest bit.
        #[inline(always)]
        pub(in crate::input::text) fn to_bits(self) -> u64 {
            u64::from(move_mask_i8_m128i(self.0) as u32)
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod register {
    use wide::u8x16;

    use super::LANE;

    #[derive(Clone, Copy)]
    pub(in crate::input::text) struct Lane(u8x16);

    impl Lane {
        #[inline(always)]
        pub(in crate::input::text) fn new(bytes: [u8; LANE]) -> Self {
            Self(u8x16::new(bytes))
        }

        #[inline(always)]
        pub(in crate::input::text) fn to_array(self) -> [u8; LANE] {
            self.0.to_array()
        }

        #[inline(always)]
        pub(in crate::input::text) fn equals(self, byte: u8) -> Self {
            Self(self.0.simd_eq(u8x16::splat(byte)))
        }

        #[inline(always)]
        pub(in crate::input::text) fn masked(self, bits: u8) -> Self {
            Self(self.0 & u8x16::splat(bits))
        }

        #[inline(always)]
        pub(in crate::input::text) fn or(self, other: Self) -> Self {
            Self(self.0 | other.0)
        }

        #[inline(always)]
        pub(in crate::input::text) fn shifted<const BITS: i32>(self) -> Self {
            Self(self.0 << BITS as u32)
        }

        #[inline(always)]
        pub(in crate::input::text) fn choose(self, yes: Self, no: Self) -> Self {
            Self(self.0.bitselect(yes.0, no.0))
        }

        #[inline(always)]
        pub(in crate::input::text) fn to_bits(self) -> u64 {
            u64::from(self.0.to_bitmask())
        }
    }
}
