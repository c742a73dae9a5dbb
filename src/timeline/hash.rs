//! Two hashes. One is the same on every machine and in every version: made-up addresses and initial sequence numbers
//! come from it, and a capture must not change from run to run. The other is for tables of connections.

use std::{
    hash::{Hash, Hasher},
    net::{IpAddr, SocketAddr, SocketAddrV4},
};

/// Two ends of a connection, as a key of tables. A pair is hashed in one step instead of the standard library's eight,
/// because a capture looks it up several times for each HTTP exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressPair(pub SocketAddr, pub SocketAddr);

impl Hash for AddressPair {
    fn hash<H: Hasher>(&self, state: &mut H) {
        if let Self(SocketAddr::V4(one), SocketAddr::V4(other)) = self {
            let bits = |end: &SocketAddrV4| u128::from(end.ip().to_bits()) << 16 | u128::from(end.port());
            state.write_u128(bits(one) << 64 | bits(other));
            return;
        }
        let mut bytes = [0; 36];
        for (end, to) in [self.0, self.1].iter().zip(bytes.chunks_exact_mut(18)) {
            // Equal addresses have equal hashes. Addresses that differ only in their zone collide, and `Eq` tells them
            // apart; so do an IPv4 address and the IPv6 address that it is mapped to.
            let ip = match end.ip() {
                IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                IpAddr::V6(ip) => ip,
            };
            to[..16].copy_from_slice(&ip.octets());
            to[16..].copy_from_slice(&end.port().to_be_bytes());
        }
        state.write(&bytes);
    }
}

/// FNV-1a over parts. Each part is followed by its length, so that `["ab", "c"]` and `["a", "bc"]` differ. The result is
/// mixed, so that every bit depends on every byte.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub(crate) struct StableHasher(u64);

impl Default for StableHasher {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl StableHasher {
    /// Adds a part.
    pub(crate) fn part(self, part: &[u8]) -> Self {
        let mut hash = self.0;
        for byte in part.iter().copied().chain((part.len() as u64).to_le_bytes()) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        Self(hash)
    }

    /// The hash of the parts so far.
    #[must_use]
    pub(crate) fn finish(self) -> u64 {
        let hash = (self.0 ^ (self.0 >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        hash ^ (hash >> 33)
    }
}

/// The hash of `parts`.
#[must_use]
pub(super) fn stable_hash(parts: &[&[u8]]) -> u64 {
    parts.iter().fold(StableHasher::default(), |hasher, part| hasher.part(part)).finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_never_changes() {
        // Changing this value changes every capture with a made-up address in it.
        assert_eq!(stable_hash(&[b"/run/app.sock"]), 0x7f23_3ad7_17fc_da52);
        assert_ne!(stable_hash(&[b"ab", b"c"]), stable_hash(&[b"a", b"bc"]));
    }
}
