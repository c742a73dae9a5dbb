//! Recognises application protocols by the first bytes of payloads.

mod proxy;
mod signs;
mod tls;

use memchr::memmem;

pub use self::{proxy::ProxyHeader, tls::ClientHello};
pub(crate) use self::{proxy::ProxyStart, tls::is_record as is_tls};

use super::Direction;

/// How many bytes of each direction are inspected, unless they ask for more.
const HEAD: usize = 64;

/// How many more bytes all open connections of a source may ask for.
const ROOM: usize = 4 << 20;

/// How many payloads of an HTTP/2 connection are searched for a sign of gRPC.
const GRPC_SEARCHES: u32 = 64;

/// "application/grpc" in plain text, and in HPACK's Huffman code (RFC 7541 appendix B), which nearly every encoder
/// uses.
const GRPC_PLAIN: &[u8] = b"application/grpc";
const GRPC_HUFFMAN: &[u8] = &[0x1d, 0x75, 0xd0, 0x62, 0x0d, 0x26, 0x3d, 0x4c, 0x4d, 0x65, 0x64];

/// An application protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
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
    /// HTTP/1.1 whose first response accepts WebSocket.
    WebSocket,
    /// TLS, which the tap did not decrypt.
    Tls,
    /// Redis, Valkey and others with the same protocol.
    Redis,
    /// PostgreSQL.
    Postgres,
    /// MySQL and MariaDB.
    MySql,
    /// MongoDB.
    MongoDb,
    /// Kafka.
    Kafka,
    /// Memcached, the text and the binary protocol.
    Memcached,
    /// MQTT 3.1 to 5.0.
    Mqtt,
    /// AMQP, the versions before 1.0 too.
    Amqp,
    /// Thrift: the binary and the compact protocol, and `THeader`.
    Thrift,
    /// Dubbo.
    Dubbo,
    /// `ZooKeeper`.
    ZooKeeper,
    /// SSH.
    Ssh,
    /// SMTP and LMTP.
    Smtp,
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
            Self::WebSocket => "websocket",
            Self::Tls => "tls",
            Self::Redis => "redis",
            Self::Postgres => "postgres",
            Self::MySql => "mysql",
            Self::MongoDb => "mongodb",
            Self::Kafka => "kafka",
            Self::Memcached => "memcached",
            Self::Mqtt => "mqtt",
            Self::Amqp => "amqp",
            Self::Thrift => "thrift",
            Self::Dubbo => "dubbo",
            Self::ZooKeeper => "zookeeper",
            Self::Ssh => "ssh",
            Self::Smtp => "smtp",
        }
    }

    /// Whether it is HTTP, or begins as HTTP.
    pub(crate) fn is_http(self) -> bool {
        matches!(self, Self::Http1 | Self::Http2 | Self::Grpc | Self::WebSocket)
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

/// What the first bytes of a connection tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Speech {
    /// The application protocol, after the header of a proxy if there is one.
    pub protocol: Protocol,
    /// Whether the connection goes on in TLS after it began with another protocol: PostgreSQL, MySQL or SMTP.
    pub goes_on_in_tls: bool,
    /// What the client asks for, if there is TLS and its first message is whole.
    pub hello: Option<Box<ClientHello>>,
    /// The header of a proxy that the client's bytes begin with.
    pub proxy: Option<Box<ProxyHeader>>,
    /// How the connection began, if it was HTTP/2.
    pub preface: Preface,
}

/// Room for the bytes beyond [`HEAD`] that open connections keep. A hostile trace may have many connections.
#[derive(Debug)]
pub(crate) struct Room(usize);

impl Room {
    fn take(&mut self, bytes: usize) -> bool {
        let left = self.0.checked_sub(bytes);
        self.0 = left.unwrap_or(self.0);
        left.is_some()
    }
}

impl Default for Room {
    fn default() -> Self {
        Self(ROOM)
    }
}

/// The first bytes of one direction.
#[derive(Clone, Debug, Default)]
struct Side {
    head: Vec<u8>,
    /// How many bytes are wanted, as far as those that are here tell.
    wanted: usize,
    /// How many bytes of a proxy's header are still to come.
    skip: usize,
    /// The direction has shown that it does not begin with a proxy's header, or is beyond it.
    past_proxy: bool,
    /// Nothing may be added to the bytes that are here: there are enough, or those that follow are missing.
    is_over: bool,
}

impl Side {
    /// Takes what is wanted of the next payload, and returns how many bytes of it were taken or passed over. If that is
    /// less than all of it, the side has enough.
    fn take(&mut self, payload: &[u8], room: &mut Room, proxy: &mut Option<Box<ProxyHeader>>) -> usize {
        /// The longest beginning of a proxy's header that has to be there before it can be read.
        const PROXY: usize = 107;
        let mut at = 0;
        loop {
            let mut limit = None;
            if !self.past_proxy && !self.head.is_empty() {
                match ProxyStart::of(&self.head) {
                    ProxyStart::Open => limit = Some(PROXY),
                    ProxyStart::Absent => self.past_proxy = true,
                    ProxyStart::Known(len, header) => {
                        *proxy = Some(Box::new(header));
                        self.past_proxy = true;
                        self.skip = len.saturating_sub(self.head.len());
                        room.0 += self.beyond_head();
                        self.head.drain(..len.min(self.head.len()));
                        // A header of version 1 is shorter than what was kept, so that this finds room.
                        room.0 -= self.beyond_head();
                    }
                }
            }
            let skipped = self.skip.min(payload.len() - at);
            self.skip -= skipped;
            at += skipped;
            if self.head.len() >= self.wanted {
                self.wanted = signs::wanted(&self.head);
            }
            let missing = limit.unwrap_or(self.wanted).saturating_sub(self.head.len());
            let taken = if self.is_over { 0 } else { missing.min(payload.len() - at) };
            let beyond = (self.head.len() + taken).saturating_sub(HEAD) - self.beyond_head();
            if taken == 0 || !room.take(beyond) {
                return at;
            }
            self.head.extend_from_slice(&payload[at..at + taken]);
            at += taken;
        }
    }

    /// How many bytes are kept beyond what every connection may keep.
    fn beyond_head(&self) -> usize {
        self.head.len().saturating_sub(HEAD)
    }

    /// Reads what the client asks for in TLS, and drops all bytes but the first, which tell the protocol.
    fn finish(&mut self, room: &mut Room) -> Option<ClientHello> {
        let at = signs::tls_at(&self.head);
        let hello = at.and_then(|at| self.head.get(at..)).map(tls::Hello::of);
        room.0 += self.beyond_head();
        self.head.truncate(HEAD);
        self.is_over = true;
        hello?.into_what_is_here()
    }
}

/// Inspects the payloads of one connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sniffer {
    preface: Option<Preface>,
    sides: [Side; 2],
    searches: u32,
    grpc: bool,
    proxy: Option<Box<ProxyHeader>>,
    hello: Option<Box<ClientHello>>,
    goes_on_in_tls: bool,
    web_socket: bool,
    seen_enough: [bool; 2],
}

impl Sniffer {
    /// Inspects one payload.
    #[inline]
    pub(crate) fn look(&mut self, direction: Direction, payload: &[u8], room: &mut Room) {
        if !self.seen_enough[direction.index()] {
            self.look_closer(direction, payload, room);
        }
    }

    fn look_closer(&mut self, direction: Direction, payload: &[u8], room: &mut Room) {
        let index = direction.index();
        let server_first = !self.sides[direction.reverse().index()].head.is_empty();
        let side = &mut self.sides[index];
        let taken = side.take(payload, room, &mut self.proxy);
        let is_full = taken < payload.len();
        if self.preface.is_none() && side.head.starts_with(PREFACE) {
            // The head's last byte is the last one that was taken.
            let after = (taken + PREFACE.len()).saturating_sub(side.head.len());
            let in_pieces = side.head.len() > taken;
            let ends_inside = ends_inside_frame(&payload[after..]);
            self.preface = Some(Preface { server_first, in_pieces, ends_inside });
            // The other side may have sent enough already, but not been searched for gRPC.
            self.seen_enough = [false; 2];
        }
        if is_full {
            self.finish_side(index, room);
        }
        let mut is_searched = true;
        if self.is_http2() {
            self.searches += 1;
            self.grpc |= [GRPC_PLAIN, GRPC_HUFFMAN].iter().any(|sign| memmem::find(payload, sign).is_some());
            is_searched = self.grpc || self.searches >= GRPC_SEARCHES;
        }
        self.seen_enough[index] = is_full && is_searched;
    }

    /// Bytes are missing from a direction. What comes after them must not be read as if it followed what came before.
    #[cold]
    pub(crate) fn lose(&mut self, direction: Direction) {
        let side = &mut self.sides[direction.index()];
        side.is_over |= !side.head.is_empty() || side.skip > 0;
    }

    fn finish_side(&mut self, index: usize, room: &mut Room) {
        self.goes_on_in_tls |= signs::goes_on_in_tls(self.protocol(), self.heads());
        self.web_socket |= signs::accepts_web_socket(&self.sides[index].head);
        let hello = self.sides[index].finish(room);
        self.hello = self.hello.take().or(hello.map(Box::new));
    }

    /// Ends the connection, and gives back its room.
    pub(crate) fn finish(mut self, room: &mut Room) -> Speech {
        for index in [0, 1] {
            self.finish_side(index, room);
        }
        Speech {
            protocol: self.protocol(),
            goes_on_in_tls: self.goes_on_in_tls,
            hello: self.hello,
            proxy: self.proxy,
            preface: self.preface.unwrap_or_default(),
        }
    }

    /// The connection's protocol, as far as its bytes tell.
    #[must_use]
    pub(crate) fn protocol(&self) -> Protocol {
        if self.is_http2() {
            if self.grpc { Protocol::Grpc } else { Protocol::Http2 }
        } else {
            match signs::protocol(self.heads()) {
                Protocol::Http1 if self.web_socket => Protocol::WebSocket,
                protocol => protocol,
            }
        }
    }

    fn heads(&self) -> [&[u8]; 2] {
        self.sides.each_ref().map(|side| side.head.as_slice())
    }

    /// Whether one side began with the client preface (RFC 9113 section 3.4).
    fn is_http2(&self) -> bool {
        self.sides.iter().any(|side| side.head.starts_with(b"PRI * HTTP/2.0\r\n"))
    }
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

/// Who sends a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speaker {
    Client,
    Server,
}

impl Speaker {
    /// The side that must have sent this first payload, if it is of a protocol that tells.
    pub(super) fn of(payload: &[u8]) -> Option<Self> {
        /// HTTP/2 (RFC 9113 section 3.4), AMQP (whose servers may answer the same), the PROXY protocol.
        const CLIENT: [&[u8]; 4] = [b"PRI * HTTP/2.0\r\n", b"AMQP", b"PROXY ", b"\r\n\r\n\0\r\nQUIT\n"];
        /// HTTP/1; the greetings of SMTP and FTP, POP3, IMAP, VNC and NATS.
        const SERVER: [&[u8]; 8] =
            [b"HTTP/1.", b"220 ", b"220-", b"+OK ", b"* OK ", b"* PREAUTH ", b"RFB 003.", b"INFO {"];
        let starts = |signs: &[&[u8]]| signs.iter().any(|sign| payload.starts_with(sign));
        if starts(&signs::METHODS) || starts(&CLIENT) {
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
            _ => signs::speaker(payload),
        }
    }
}

#[cfg(test)]
mod tests;
