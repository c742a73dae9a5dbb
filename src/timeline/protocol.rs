//! Recognises application protocols by the first bytes of payloads.

use memchr::memmem;

use super::Direction;

/// How many bytes of each direction are inspected.
const HEAD: usize = 32;

/// How many payloads of an HTTP/2 connection are searched for a sign of gRPC.
const GRPC_SEARCHES: u32 = 64;

/// "application/grpc" in plain text, and in HPACK's Huffman code (RFC 7541 appendix B), which nearly every encoder
/// uses.
const GRPC_PLAIN: &[u8] = b"application/grpc";
const GRPC_HUFFMAN: &[u8] = &[0x1d, 0x75, 0xd0, 0x62, 0x0d, 0x26, 0x3d, 0x4c, 0x4d, 0x65, 0x64];

/// An application protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// A protocol that is not recognised.
    #[default]
    Unknown,
    /// HTTP/1.0 or HTTP/1.1.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// gRPC over HTTP/2.
    Grpc,
    /// TLS, which the tap did not decrypt.
    Tls,
}

impl Protocol {
    /// The name that people and machines read.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Http1 => "http1",
            Self::Http2 => "http2",
            Self::Grpc => "grpc",
            Self::Tls => "tls",
        }
    }
}

/// The client preface of HTTP/2 (RFC 9113 section 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How an HTTP/2 connection begins, in ways that matter to a dissector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Preface {
    /// The server sent bytes before the preface.
    pub server_first: bool,
    /// The preface came in several payloads.
    pub in_pieces: bool,
    /// The payload with the preface's last byte ends inside a frame.
    pub ends_inside: bool,
}

/// Inspects the payloads of one connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sniffer {
    preface: Preface,
    heads: [Vec<u8>; 2],
    searches: u32,
    grpc: bool,
    seen_enough: bool,
}

impl Sniffer {
    /// Inspects one payload.
    #[inline]
    pub(crate) fn look(&mut self, direction: Direction, payload: &[u8]) {
        if !self.seen_enough {
            self.look_closer(direction, payload);
        }
    }

    fn look_closer(&mut self, direction: Direction, payload: &[u8]) {
        let server_first = !self.heads[direction.reverse().index()].is_empty();
        let head = &mut self.heads[direction.index()];
        if head.len() < HEAD {
            let before = head.len();
            head.extend_from_slice(&payload[..payload.len().min(HEAD - head.len())]);
            if before < PREFACE.len() && head.starts_with(PREFACE) {
                let ends_inside = ends_inside_frame(&payload[PREFACE.len() - before..]);
                self.preface = Preface { server_first, in_pieces: before > 0, ends_inside };
            }
        }
        let heads_full = self.heads.iter().all(|head| head.len() == HEAD);
        if self.is_http2() {
            self.searches += 1;
            self.grpc |= [GRPC_PLAIN, GRPC_HUFFMAN].iter().any(|sign| memmem::find(payload, sign).is_some());
            self.seen_enough = heads_full && (self.grpc || self.searches == GRPC_SEARCHES);
        } else {
            self.seen_enough = heads_full;
        }
    }

    /// How HTTP/2 began, if it did.
    #[must_use]
    pub(crate) fn preface(&self) -> Preface {
        self.preface
    }

    /// The connection's protocol.
    #[must_use]
    pub(crate) fn protocol(&self) -> Protocol {
        if self.is_http2() {
            if self.grpc { Protocol::Grpc } else { Protocol::Http2 }
        } else if self.heads.iter().any(|head| is_http1(head)) {
            Protocol::Http1
        } else if self.heads.iter().any(|head| is_tls(head)) {
            Protocol::Tls
        } else {
            Protocol::Unknown
        }
    }

    /// Whether one side began with the client preface (RFC 9113 section 3.4).
    fn is_http2(&self) -> bool {
        self.heads.iter().any(|head| head.starts_with(b"PRI * HTTP/2.0\r\n"))
    }
}

/// Whether these are the first bytes of a TLS record (RFC 8446 section 5.1).
pub(crate) fn is_tls(head: &[u8]) -> bool {
    matches!(head, [20..=23, 3, 0..=4, ..])
}

/// Whether the last of these frames is incomplete (RFC 9113 section 4.1).
fn ends_inside_frame(mut frames: &[u8]) -> bool {
    while let [a, b, c, _, _, _, _, _, _, rest @ ..] = frames {
        let len = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        let Some(after) = rest.get(len..) else { return true };
        frames = after;
    }
    !frames.is_empty()
}

const METHODS: [&[u8]; 9] =
    [b"GET ", b"HEAD ", b"POST ", b"PUT ", b"DELETE ", b"CONNECT ", b"OPTIONS ", b"TRACE ", b"PATCH "];

fn is_http1(head: &[u8]) -> bool {
    head.starts_with(b"HTTP/1.") || METHODS.iter().any(|method| head.starts_with(method))
}

/// Who sends a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speaker {
    Client,
    Server,
}

impl Speaker {
    /// The side that must have sent this first payload, if it is of a protocol that tells.
    pub(super) fn of(payload: &[u8]) -> Option<Self> {
        /// HTTP/2 (RFC 9113 section 3.4), AMQP 0-9-1 and 1.0, the PROXY protocol in both versions.
        const CLIENT: [&[u8]; 4] = [b"PRI * HTTP/2.0\r\n", b"AMQP", b"PROXY ", b"\r\n\r\n\0\r\nQUIT\n"];
        /// HTTP/1; the greetings of SMTP and FTP, POP3, IMAP, VNC and NATS.
        const SERVER: [&[u8]; 8] =
            [b"HTTP/1.", b"220 ", b"220-", b"+OK ", b"* OK ", b"* PREAUTH ", b"RFB 003.", b"INFO {"];
        let starts = |signs: &[&[u8]]| signs.iter().any(|sign| payload.starts_with(sign));
        if starts(&METHODS) || starts(&CLIENT) {
            return Some(Self::Client);
        }
        if starts(&SERVER) {
            return Some(Self::Server);
        }
        match payload {
            // TLS: ClientHello and ServerHello (RFC 8446 section 4).
            [22, 3, 0..=4, _, _, 1, ..] => Some(Self::Client),
            [22, 3, 0..=4, _, _, 2, ..] => Some(Self::Server),
            // HTTP/2: SETTINGS without a preface (RFC 9113 section 6.5).
            [0, _, len, 4, 0, 0, 0, 0, 0, ..] if len % 6 == 0 => Some(Self::Server),
            // MySQL: packet 0, protocol version 10, the server's version as text.
            [_, _, 0, 0, 10, b'0'..=b'9', ..] => Some(Self::Server),
            // PostgreSQL: a length, then version 3.0 or a request for TLS.
            [0, 0, _, _, 0, 3, 0, 0, ..] | [0, 0, 0, 8, 4, 210, 22, 47] => Some(Self::Client),
            // MQTT: CONNECT with the protocol's name.
            [0x10, _, 0, 4, b'M', b'Q', b'T', b'T', ..] => Some(Self::Client),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sniff(inbound: &[&[u8]], outbound: &[&[u8]]) -> Protocol {
        let mut sniffer = Sniffer::default();
        inbound.iter().for_each(|payload| sniffer.look(Direction::Inbound, payload));
        outbound.iter().for_each(|payload| sniffer.look(Direction::Outbound, payload));
        sniffer.protocol()
    }

    #[test]
    fn a_protocol_is_told_by_its_first_bytes() {
        assert_eq!(sniff(&[b"GET / HTTP/1.1\r\n"], &[]), Protocol::Http1);
        assert_eq!(sniff(&[], &[b"HTTP/1.1 200 OK\r\n"]), Protocol::Http1);
        assert_eq!(sniff(&[b"PRI * HT", b"TP/2.0\r\n\r\nSM\r\n\r\n"], &[]), Protocol::Http2);
        assert_eq!(sniff(&[b"\x16\x03\x01\x02\x00\x01"], &[]), Protocol::Tls);
        assert_eq!(sniff(&[b"SSH-2.0-x"], &[b"SSH-2.0-y"]), Protocol::Unknown);
        assert_eq!(sniff(&[], &[]), Protocol::Unknown);
    }

    #[test]
    fn grpc_is_told_by_its_content_type() {
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        assert_eq!(sniff(&[preface, &[&[0x5f, 0x8b], GRPC_HUFFMAN].concat()], &[]), Protocol::Grpc);
        assert_eq!(sniff(&[preface], &[b"application/grpc+proto"]), Protocol::Grpc);
        assert_eq!(sniff(&[b"application/grpc"], &[]), Protocol::Unknown);
    }
}
