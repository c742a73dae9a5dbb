//! The headers of one direction of a connection: built once by etherparse, then patched from connection to connection
//! and from packet to packet.

use std::{
    net::{IpAddr, SocketAddr},
    sync::LazyLock,
};

use etherparse::{EtherType, Ethernet2Header, IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header, TcpHeader};

use super::{SeqNumber, checksum::Sum};

const ETHERNET: usize = 14;
const IPV4: usize = 20;
const IPV6: usize = 40;
const TCP: usize = 20;

/// Handshake options: MSS, window scale, SACK-permitted, padded to words.
const SYN_OPTIONS: usize = 12;

/// The longest headers: IPv6 with the options of a SYN.
pub(super) const MAX_HEADER_LEN: usize = ETHERNET + IPV6 + TCP + SYN_OPTIONS;

/// With this shift, the window of 65,535 is one GiB, far more than is sent before the next acknowledgement. 14 is the
/// largest shift that RFC 7323 section 2.3 allows.
const WINDOW_SHIFT: u8 = 14;

/// The window field of every packet.
const WINDOW: u16 = u16::MAX;

/// The window that a SYN announces, in bytes. It is never scaled (RFC 7323 section 2.2).
pub(crate) const SYN_WINDOW: u32 = WINDOW as u32;

/// The window that any other packet announces, in bytes.
pub(crate) const SCALED_WINDOW: u32 = (WINDOW as u32) << WINDOW_SHIFT;

pub(crate) const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const PSH: u8 = 0x08;
pub(crate) const ACK: u8 = 0x10;

/// The largest payload that one IP packet holds: 65,535 bytes less the headers that its length field counts. IPv6's
/// does not count the IPv6 header.
#[must_use]
pub fn max_segment(v6: bool) -> u16 {
    u16::MAX - TCP as u16 - if v6 { 0 } else { IPV4 as u16 }
}

/// The varying fields of one packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PacketFields {
    pub flags: u8,
    pub seq: SeqNumber,
    pub ack: SeqNumber,
    /// Payload on the wire, in bytes; at most [`max_segment`].
    pub payload_len: u16,
}

/// Headers from one address to another.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    bytes: [u8; MAX_HEADER_LEN],
    ip_len: usize,
    mss: u16,
    ip_id: u16,
    /// The constant part of the TCP checksum: addresses and protocol of the pseudo header (RFC 9293 section 3.1), ports
    /// and window.
    tcp_sum: Sum,
    /// The constant part of the IPv4 header's checksum: all but its length and identification.
    ip_sum: Sum,
}

impl Template {
    /// `mss` is what a SYN announces.
    pub(crate) fn new(from: SocketAddr, to: SocketAddr, mss: u16) -> Self {
        let (mut bytes, ip_len, pseudo) = match (from.ip(), to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let mut bytes = *OVER_IPV4;
                let (from, to) = (from.octets(), to.octets());
                bytes[ETHERNET + 12..][..4].copy_from_slice(&from);
                bytes[ETHERNET + 16..][..4].copy_from_slice(&to);
                (bytes, IPV4, Sum::default().add(&from).add(&to))
            }
            (from, to) => {
                let [from, to] = [from, to].map(|ip| match ip {
                    IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
                    IpAddr::V6(v6) => v6.octets(),
                });
                let mut bytes = *OVER_IPV6;
                bytes[ETHERNET + 8..][..16].copy_from_slice(&from);
                bytes[ETHERNET + 24..][..16].copy_from_slice(&to);
                (bytes, IPV6, Sum::default().add(&from).add(&to))
            }
        };
        bytes[..6].copy_from_slice(&mac(to.ip()));
        bytes[6..12].copy_from_slice(&mac(from.ip()));
        let start = ETHERNET + ip_len;
        bytes[start..][..2].copy_from_slice(&from.port().to_be_bytes());
        bytes[start + 2..][..2].copy_from_slice(&to.port().to_be_bytes());
        // Offset and flags come with each packet.
        let tcp_sum =
            pseudo.add_u16(u16::from(IpNumber::TCP.0)).add_u16(from.port()).add_u16(to.port()).add_u16(WINDOW);
        let mut ip_header = [0; IPV4];
        ip_header.copy_from_slice(&bytes[ETHERNET..ETHERNET + IPV4]);
        for varying in [2, 3, 4, 5, 10, 11] {
            ip_header[varying] = 0;
        }
        Self { bytes, ip_len, mss, ip_id: 0, tcp_sum, ip_sum: Sum::default().add(&ip_header) }
    }

    /// Patches the headers for one packet and returns them. `captured` is the payload that was captured. The checksum
    /// counts the missing bytes of `fields.payload_len` as zeros, because nobody can know their sum.
    #[inline]
    pub(crate) fn packet(&mut self, fields: &PacketFields, captured: &[u8]) -> &[u8] {
        let options = if fields.flags & SYN == 0 { 0 } else { SYN_OPTIONS };
        let tcp_start = ETHERNET + self.ip_len;
        let tcp_len = TCP + options;
        let end = tcp_start + tcp_len;
        // This fits 16 bits: a payload is at most 65,535 bytes less the headers, and a SYN has none.
        let segment_len = tcp_len as u16 + fields.payload_len;

        let offset_and_flags = [((tcp_len / 4) as u8) << 4, fields.flags];
        let mut sum = self
            .tcp_sum
            .add_u16(segment_len)
            .add_u16(u16::from_be_bytes(offset_and_flags))
            .add_u32s(fields.seq.0, fields.ack.0);
        let tcp = &mut self.bytes[tcp_start..end];
        tcp[4..8].copy_from_slice(&fields.seq.0.to_be_bytes());
        tcp[8..12].copy_from_slice(&fields.ack.0.to_be_bytes());
        tcp[12..14].copy_from_slice(&offset_and_flags);
        if options > 0 {
            let [high, low] = self.mss.to_be_bytes();
            // Kinds 2 (MSS, RFC 9293), 3 (window scale, RFC 7323), 4 (SACK-permitted, RFC 2018), 1 (no operation).
            tcp[TCP..].copy_from_slice(&[2, 4, high, low, 1, 3, 3, WINDOW_SHIFT, 1, 1, 4, 2]);
            sum = sum.add(&tcp[TCP..]);
        }
        tcp[16..18].copy_from_slice(&sum.add(captured).finish());

        let ip = &mut self.bytes[ETHERNET..tcp_start];
        if self.ip_len == IPV4 {
            let total_len = IPV4 as u16 + segment_len;
            ip[2..4].copy_from_slice(&total_len.to_be_bytes());
            ip[4..6].copy_from_slice(&self.ip_id.to_be_bytes());
            ip[10..12].copy_from_slice(&self.ip_sum.add_u16(total_len).add_u16(self.ip_id).finish());
            self.ip_id = self.ip_id.wrapping_add(1);
        } else {
            ip[4..6].copy_from_slice(&segment_len.to_be_bytes());
        }
        &self.bytes[..end]
    }
}

/// Headers without addresses and ports.
static OVER_IPV4: LazyLock<[u8; MAX_HEADER_LEN]> = LazyLock::new(|| {
    let ip = Ipv4Header { time_to_live: 64, protocol: IpNumber::TCP, dont_fragment: true, ..Ipv4Header::default() };
    blank(EtherType::IPV4, &ip.to_bytes())
});
static OVER_IPV6: LazyLock<[u8; MAX_HEADER_LEN]> = LazyLock::new(|| {
    let ip = Ipv6Header {
        traffic_class: 0,
        flow_label: Ipv6FlowLabel::ZERO,
        payload_length: 0,
        next_header: IpNumber::TCP,
        hop_limit: 64,
        source: [0; 16],
        destination: [0; 16],
    };
    blank(EtherType::IPV6, &ip.to_bytes())
});

fn blank(ether_type: EtherType, ip: &[u8]) -> [u8; MAX_HEADER_LEN] {
    let ethernet = Ethernet2Header { source: [0; 6], destination: [0; 6], ether_type };
    let mut tcp = TcpHeader::new(0, 0, 0, WINDOW);
    tcp.ack = true;
    let headers = [&ethernet.to_bytes()[..], ip, &tcp.to_bytes()[..]].concat();
    let mut bytes = [0; MAX_HEADER_LEN];
    bytes[..headers.len()].copy_from_slice(&headers);
    bytes
}

/// A locally administered address from the last four bytes of an IP address, so that each host has its own.
fn mac(ip: IpAddr) -> [u8; 6] {
    let [a, b, c, d] = match ip {
        IpAddr::V4(v4) => v4.octets(),
        IpAddr::V6(v6) => {
            let octets = v6.octets();
            [octets[12], octets[13], octets[14], octets[15]]
        }
    };
    [0x02, 0x00, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use etherparse::SlicedPacket;
    use proptest::prelude::*;

    use super::*;

    fn check(from: &str, to: &str, fields: &PacketFields, payload: &[u8]) {
        let mut template = Template::new(from.parse().unwrap(), to.parse().unwrap(), 1460);
        let mut bytes = template.packet(fields, payload).to_vec();
        bytes.extend_from_slice(payload);
        let packet = SlicedPacket::from_ethernet(&bytes).unwrap();
        let Some(etherparse::TransportSlice::Tcp(tcp)) = packet.transport else { panic!("no TCP") };
        let header = tcp.to_header();
        let expected = match packet.net.unwrap() {
            etherparse::NetSlice::Ipv4(ip) => {
                assert_eq!(ip.header().to_header().calc_header_checksum(), ip.header().header_checksum());
                header.calc_checksum_ipv4(&ip.header().to_header(), payload).unwrap()
            }
            etherparse::NetSlice::Ipv6(ip) => header.calc_checksum_ipv6(&ip.header().to_header(), payload).unwrap(),
            other => panic!("{other:?}"),
        };
        assert_eq!(tcp.payload(), payload);
        assert_eq!(header.checksum, expected);
        assert_eq!(header.sequence_number, fields.seq.0);
        assert_eq!(header.acknowledgment_number, fields.ack.0);
    }

    proptest! {
        #[test]
        fn headers_are_those_of_the_reference(seq: u32, ack: u32, payload: Vec<u8>, syn: bool) {
            let payload = if syn { &[][..] } else { &payload };
            let fields = PacketFields {
                flags: if syn { SYN } else { PSH | ACK },
                seq: SeqNumber(seq),
                ack: SeqNumber(ack),
                payload_len: payload.len() as u16,
            };
            check("10.0.0.1:80", "192.0.2.9:50000", &fields, payload);
            check("[2001:db8::1]:80", "[2001:db8::2]:50000", &fields, payload);
        }
    }

    #[test]
    fn the_largest_segment_fits_one_ip_packet() {
        for (from, to) in [("10.0.0.1:1", "10.0.0.2:2"), ("[::1]:1", "[::2]:2")] {
            let len = max_segment(from.starts_with('['));
            let fields = PacketFields { flags: ACK, seq: SeqNumber(0), ack: SeqNumber(0), payload_len: len };
            check(from, to, &fields, &vec![7; usize::from(len)]);
        }
    }
}
