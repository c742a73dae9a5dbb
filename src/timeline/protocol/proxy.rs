//! The header that a proxy sends before the client's first bytes: the PROXY protocol of HAProxy, versions 1 and 2
//! (`doc/proxy-protocol.txt` of HAProxy, section 2).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use memchr::memmem;

/// The first bytes of version 2 (section 2.2).
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The beginnings of version 1 (section 2.1).
const LINES: [&[u8]; 3] = [b"PROXY TCP4 ", b"PROXY TCP6 ", b"PROXY UNKNOWN"];

/// The longest line of version 1, with its end.
const MAX_LINE: usize = 107;

/// The part of version 2 before the addresses, and the longest addresses of IP.
const FIXED: usize = 16;
const MAX_ADDRESSES: usize = 36;

/// What a header of the PROXY protocol says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyHeader {
    /// The version: 1 or 2.
    pub version: u8,
    /// The client that the proxy speaks for. It is absent if the proxy speaks for itself, does not know the client, or
    /// if that has no IP address.
    pub source: Option<SocketAddr>,
    /// The address that the client has connected to.
    pub destination: Option<SocketAddr>,
}

/// Whether bytes begin with a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProxyStart {
    /// They do not.
    Absent,
    /// More bytes are needed to tell, or to know what the header says.
    Open,
    /// The header has this many bytes. Those at its end may be still to come: they say nothing about addresses.
    Known(usize, ProxyHeader),
}

impl ProxyStart {
    /// What the first bytes of a direction show.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        if bytes.starts_with(SIGNATURE) {
            return version_2(bytes);
        }
        if LINES.iter().any(|sign| bytes.starts_with(sign)) {
            let line = &bytes[..bytes.len().min(MAX_LINE)];
            return match memmem::find(line, b"\r\n") {
                Some(end) => Self::Known(end + 2, version_1(&line[..end])),
                None if line.len() < MAX_LINE => Self::Open,
                None => Self::Absent,
            };
        }
        let is_part_of = |sign: &[u8]| !bytes.is_empty() && sign.starts_with(bytes);
        if is_part_of(SIGNATURE) || LINES.into_iter().any(is_part_of) { Self::Open } else { Self::Absent }
    }
}

fn version_1(line: &[u8]) -> ProxyHeader {
    let unknown = ProxyHeader { version: 1, source: None, destination: None };
    let parse = || -> Option<ProxyHeader> {
        let mut words = str::from_utf8(line).ok()?.split(' ').skip(2);
        let [source, destination] = [words.next()?, words.next()?].map(|word| word.parse::<IpAddr>().ok());
        let [source_port, destination_port] = [words.next()?, words.next()?].map(|word| word.parse::<u16>().ok());
        let end = |ip: Option<IpAddr>, port: Option<u16>| Some(SocketAddr::new(ip?, port?));
        Some(ProxyHeader {
            version: 1,
            source: end(source, source_port),
            destination: end(destination, destination_port),
        })
    };
    parse().unwrap_or(unknown)
}

fn version_2(bytes: &[u8]) -> ProxyStart {
    let Some(&[command, family, a, b]) = bytes.get(12..FIXED) else { return ProxyStart::Open };
    if command >> 4 != 2 {
        return ProxyStart::Absent;
    }
    let len = usize::from(u16::from_be_bytes([a, b]));
    let addresses = &bytes[FIXED..bytes.len().min(FIXED + len)];
    if addresses.len() < len.min(MAX_ADDRESSES) {
        return ProxyStart::Open;
    }
    // 0x20 is LOCAL: the proxy speaks for itself, and the addresses mean nothing.
    let (source, destination) = match (command, family >> 4) {
        (0x21, 1) => ends::<4>(addresses, |ip| Ipv4Addr::from(ip).into()),
        (0x21, 2) => ends::<16>(addresses, |ip| Ipv6Addr::from(ip).into()),
        _ => None,
    }
    .unzip();
    ProxyStart::Known(FIXED + len, ProxyHeader { version: 2, source, destination })
}

/// Two addresses, then two ports.
fn ends<const N: usize>(bytes: &[u8], ip: impl Fn([u8; N]) -> IpAddr) -> Option<(SocketAddr, SocketAddr)> {
    let (source, rest) = bytes.split_first_chunk::<N>()?;
    let (destination, ports) = rest.split_first_chunk::<N>()?;
    let &[a, b, c, d, ..] = ports else { return None };
    let end = |address: &[u8; N], port| SocketAddr::new(ip(*address), u16::from_be_bytes(port));
    Some((end(source, [a, b]), end(destination, [c, d])))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(bytes: &[u8]) -> (usize, ProxyHeader) {
        match ProxyStart::of(bytes) {
            ProxyStart::Known(len, header) => (len, header),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_header_names_the_client() {
        let line = b"PROXY TCP4 192.0.2.7 10.0.0.1 5555 443\r\n";
        let (len, header) = known(line);
        assert_eq!((len, header.version, header.source), (line.len(), 1, "192.0.2.7:5555".parse().ok()));
        assert_eq!(header.destination, "10.0.0.1:443".parse().ok());
        assert_eq!(known(b"PROXY UNKNOWN\r\nx").1.source, None);
        assert_eq!(known(b"PROXY TCP6 ::1 x 1 2\r\n").1.source, "[::1]:1".parse().ok());
        let v2 = [SIGNATURE, b"\x21\x11\0\x0c\xc0\0\x02\x07\x0a\0\0\x01\x15\xb3\x01\xbb"].concat();
        let (len, header) = known(&v2);
        assert_eq!((len, header.version, header.source), (28, 2, "192.0.2.7:5555".parse().ok()));
        // LOCAL, as for health checks, and a unix socket.
        assert_eq!(known(&[SIGNATURE, b"\x20\0\0\0"].concat()).1.source, None);
        assert_eq!(known(&[SIGNATURE, b"\x21\x31\0\xd8", &[b'x'; 216]].concat()), {
            (232, ProxyHeader { version: 2, source: None, destination: None })
        });
        // What comes after the addresses need not be there.
        let long = [SIGNATURE, b"\x21\x21\xff\xff", &[1; 36]].concat();
        assert_eq!(known(&long).0, 16 + 65_535);
    }

    #[test]
    fn what_is_not_whole_waits_and_what_is_no_header_does_not() {
        let v2 = [SIGNATURE, b"\x21\x11\0\x0c\xc0\0\x02\x07\x0a\0\0\x01\x15\xb3\x01\xbb"].concat();
        for header in [&b"PROXY TCP4 192.0.2.7 10.0.0.1 5555 443\r\n"[..], &v2] {
            assert!((1..header.len()).all(|len| ProxyStart::of(&header[..len]) == ProxyStart::Open));
        }
        let endless = [b"PROXY TCP4 ".as_slice(), &[b'1'; 200]].concat();
        for other in [&b""[..], b"PROXY the idea\r\n", b"\r\n\r\n\0\r\nQUIT\n\x11\x11\0\0", &endless] {
            assert_eq!(ProxyStart::of(other), ProxyStart::Absent, "{other:?}");
        }
    }
}
