//! The header of the PROXY protocol, which names a client (`doc/proxy-protocol.txt` of HAProxy, section 2).

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::Range,
};

use super::{Counts, Kind, Redaction, mask};

/// The first bytes of version 2 (section 2.2).
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The part of version 2 before the addresses.
const FIXED: usize = 16;

/// The path of a unix socket in version 2.
const PATH: usize = 108;

/// The types of version 2's additions (section 2.2.1) that say nothing about the client: the protocol above.
const ALPN: u8 = 0x01;

/// The name of a host, as TLS has it.
const AUTHORITY: u8 = 0x02;

/// What is known of the client's TLS (section 2.2.6), and what of it says nothing about the client: the version, the
/// cipher, the algorithms of the signature and of the key.
const SSL: u8 = 0x20;
const HARMLESS_SSL: [u8; 4] = [0x21, 0x23, 0x24, 0x25];

/// What an addition's parts take before its value: a type and a length; in [`SSL`], the client and the verification
/// before further additions.
const TLV: usize = 3;
const SSL_FIXED: usize = 5;

impl Redaction {
    /// Takes addresses and secrets out of a header of the PROXY protocol. Only that of version 1 changes its length.
    pub(crate) fn proxy_header(&self, header: &mut Vec<u8>, counts: &mut Counts) {
        if header.starts_with(SIGNATURE) {
            self.version_2(header, counts);
        } else {
            self.version_1(header, counts);
        }
    }

    fn version_1(&self, header: &mut Vec<u8>, counts: &mut Counts) {
        let len = header.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n')).map_or(0, |at| at + 1);
        let (line, end) = header.split_at(len);
        let mut words: Vec<Vec<u8>> = line.split(|byte| *byte == b' ').map(<[u8]>::to_vec).collect();
        let is_known = words.get(1).is_some_and(|family| [b"TCP4", b"TCP6"].iter().any(|known| family == known));
        for (index, word) in words.iter_mut().enumerate().skip(2) {
            let text = str::from_utf8(word).unwrap_or_default();
            match (index, text.parse::<IpAddr>()) {
                (2 | 3, Ok(ip)) => {
                    if let Some(addresses) = &self.addresses {
                        let new = addresses.ip(ip);
                        counts.add(Kind::Address, u64::from(new != ip));
                        *word = new.to_string().into_bytes();
                    }
                }
                (4 | 5, _) if is_known && text.parse::<u16>().is_ok() => {}
                _ if word.is_empty() => {}
                _ => {
                    mask(word);
                    counts.add(Kind::Text, 1);
                }
            }
        }
        let end = end.to_vec();
        *header = words.join(&b' ');
        header.extend(end);
    }

    fn version_2(&self, header: &mut [u8], counts: &mut Counts) {
        let family = header.get(13).copied().unwrap_or(0) >> 4;
        let addresses = match family {
            1 => 12,
            2 => 36,
            3 => 2 * PATH,
            _ => 0,
        };
        let Some(rest) = header.get_mut(FIXED..) else { return };
        let (ends, additions) = rest.split_at_mut(addresses.min(rest.len()));
        match family {
            1 => [0..4, 4..8].into_iter().for_each(|range| self.end(ends, range, counts)),
            2 => [0..16, 16..32].into_iter().for_each(|range| self.end(ends, range, counts)),
            3 => ends.chunks_mut(PATH).for_each(|path| self.socket_path(path, counts)),
            // What an unspecified family has here is not known.
            _ => {
                counts.add(Kind::Text, u64::from(!additions.is_empty()));
                mask(additions);
                return;
            }
        }
        self.additions(additions, false, counts);
    }

    /// Replaces an address, or what is there of one.
    fn end(&self, ends: &mut [u8], range: Range<usize>, counts: &mut Counts) {
        let Some(addresses) = &self.addresses else { return };
        let len = ends.len();
        let Some(bytes) = ends.get_mut(range.start.min(len)..range.end.min(len)) else { return };
        let whole = <[u8; 4]>::try_from(&*bytes).map(|ip| IpAddr::V4(Ipv4Addr::from(ip)));
        let whole = whole.or_else(|_| <[u8; 16]>::try_from(&*bytes).map(|ip| IpAddr::V6(Ipv6Addr::from(ip))));
        match whole.map(|ip| (ip, addresses.ip(ip))) {
            Ok((old, new)) => {
                match new {
                    IpAddr::V4(new) => bytes.copy_from_slice(&new.octets()),
                    IpAddr::V6(new) => bytes.copy_from_slice(&new.octets()),
                }
                counts.add(Kind::Address, u64::from(new != old));
            }
            Err(_) => {
                counts.add(Kind::Address, u64::from(!bytes.is_empty()));
                bytes.fill(0);
            }
        }
    }

    /// Replaces the path of a socket, which zeros follow.
    fn socket_path(&self, path: &mut [u8], counts: &mut Counts) {
        let (Some(addresses), true) = (&self.addresses, self.names) else { return };
        // An abstract name begins with a zero.
        let len = path.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
        if len == 0 {
            return;
        }
        let name = addresses.socket(&String::from_utf8_lossy(&path[..len]));
        path.fill(0);
        path.iter_mut().zip(name.bytes()).for_each(|(byte, new)| *byte = new);
        counts.add(Kind::Name, 1);
    }

    /// Masks the values of additions, but for those of harmless types. `of_tls` says that they are in [`SSL`].
    fn additions(&self, mut rest: &mut [u8], of_tls: bool, counts: &mut Counts) {
        while let Some(&[kind, a, b]) = rest.first_chunk::<TLV>() {
            let (_, values) = rest.split_at_mut(TLV);
            let len = usize::from(u16::from_be_bytes([a, b])).min(values.len());
            let (value, after) = values.split_at_mut(len);
            let is_harmless = match of_tls {
                true => HARMLESS_SSL.contains(&kind),
                false => kind == ALPN || (kind == AUTHORITY && !self.names),
            };
            if let (SSL, false, Some((_, inner))) = (kind, of_tls, value.split_at_mut_checked(SSL_FIXED)) {
                self.additions(inner, true, counts);
            } else if !is_harmless && !value.is_empty() {
                mask(value);
                counts.add(Kind::Text, 1);
            }
            rest = after;
        }
        mask(rest);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::addresses::tests::KEY, *};
    use crate::redact::Addresses;

    fn redaction(names: bool) -> Redaction {
        Redaction { addresses: Some(Addresses::new(KEY).unwrap()), names, ..Redaction::default() }
    }

    fn redacted(header: &[u8], names: bool) -> Vec<u8> {
        let mut header = header.to_vec();
        redaction(names).proxy_header(&mut header, &mut Counts::default());
        header
    }

    #[test]
    fn a_line_gets_other_addresses() {
        for (line, expected) in [
            ("PROXY TCP4 192.0.2.1 255.255.255.255 5 443\r\n", "PROXY TCP4 100.115.72.131 94.185.169.89 5 443\r\n"),
            ("PROXY TCP6 2001:db8::1 :: 1 2\r\n", "PROXY TCP6 c180:5dd4:2587:3524:30ab:fa65:6ab6:f88 :: 1 2\r\n"),
            ("PROXY UNKNOWN\r\n", "PROXY UNKNOWN\r\n"),
            ("PROXY UNKNOWN 192.0.2.1 x 1 2\r\n", "PROXY UNKNOWN 100.115.72.131 * * *\r\n"),
            ("PROXY TCP4 192.0.2.1 10.0.0.x 70000 1", "PROXY TCP4 100.115.72.131 ******** ***** 1"),
        ] {
            assert_eq!(String::from_utf8_lossy(&redacted(line.as_bytes(), false)), expected);
        }
    }

    #[test]
    fn a_binary_header_gets_other_addresses_and_no_unknown_additions() {
        let tls = b"\x20\0\x10\x01\0\0\0\0\x21\0\x02v3\x22\0\x03bob";
        let additions = [b"\x01\0\x02h2\x03\0\x04crc3\x05\0\x02id".as_slice(), tls, b"\x02\0\x04host"].concat();
        let header = [SIGNATURE, b"\x21\x11\0\x3f\xc0\0\x02\x01\xff\xff\xff\xff\0\x05\x01\xbb", &additions].concat();
        let masked = additions.clone();
        let masked =
            String::from_utf8(masked).unwrap().replace("crc3", "****").replace("id", "**").replace("bob", "***");
        let expected =
            [SIGNATURE, b"\x21\x11\0\x3f\x64\x73\x48\x83\x5e\xb9\xa9\x59\0\x05\x01\xbb", masked.as_bytes()].concat();
        assert_eq!(redacted(&header, false), expected);
        assert!(redacted(&header, true).ends_with(b"\x02\0\x04****"));
        let unspecified = [SIGNATURE, b"\x20\0\0\x03abc"].concat();
        assert!(redacted(&unspecified, false).ends_with(b"\x03***"));
        let v6 =
            [SIGNATURE, b"\x21\x21\0\x24", &Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).octets(), &[1; 5]].concat();
        let redacted_v6 = redacted(&v6, false);
        assert_eq!(redacted_v6[16..20], [0xc1, 0x80, 0x5d, 0xd4]);
        assert_eq!(redacted_v6[32..], [0; 5]);
    }

    #[test]
    fn paths_of_sockets_become_names() {
        let mut path = b"/run/app.sock".to_vec();
        path.resize(PATH, 0);
        let header = [SIGNATURE, b"\x21\x31\0\xd8", &path, &[0; PATH]].concat();
        let redacted = redacted(&header, true);
        assert_eq!(redacted.len(), header.len());
        let name = redaction(true).addresses.unwrap().socket("/run/app.sock");
        assert!(
            redacted[16..].starts_with(name.as_bytes()) && redacted[16 + name.len()..].iter().all(|byte| *byte == 0)
        );
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(tail in prop::collection::vec(any::<u8>(), 0..300), names: bool, v2: bool) {
            let start: &[u8] = if v2 { SIGNATURE } else { b"PROXY TCP4 " };
            let header = [start, &tail].concat();
            let after = redacted(&header, names);
            prop_assert!(!v2 || after.len() == header.len());
        }
    }
}
