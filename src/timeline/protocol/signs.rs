//! How protocols are told by the first bytes of each direction. Each side of a connection has to fit: random bytes and
//! text must not be taken for a protocol, which would send Wireshark astray.

use memchr::{memchr, memchr_iter, memmem};

use super::{HEAD, Protocol, Speaker, tls};

/// How well the first bytes of a direction fit a side of a protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    /// This side never begins like that.
    No,
    /// They may be this protocol's, and others' as well.
    Fits,
    /// They are this protocol's if the other direction says so too.
    Likely,
    /// They are this protocol's alone.
    Tells,
}

use Fit::{Fits, Likely, No, Tells};

impl Fit {
    fn tells_if(sign: bool) -> Self {
        if sign { Tells } else { No }
    }

    fn likely_if(sign: bool) -> Self {
        if sign { Likely } else { No }
    }
}

/// How the two sides of a protocol begin. No direction here is empty.
struct Sign {
    protocol: Protocol,
    client: fn(&[u8]) -> Fit,
    server: fn(&[u8]) -> Fit,
    /// Whether the server's first message answers the client's.
    answers: fn(&[u8], &[u8]) -> bool,
}

const fn sign(protocol: Protocol, client: fn(&[u8]) -> Fit, server: fn(&[u8]) -> Fit) -> Sign {
    Sign { protocol, client, server, answers: |_, _| true }
}

/// Protocols other than HTTP and TLS. Those whose signs are the longest come first.
const SIGNS: [Sign; 13] = [
    sign(Protocol::Ssh, ssh, ssh),
    sign(Protocol::Amqp, amqp_client, amqp_server),
    sign(Protocol::Mqtt, mqtt_client, mqtt_server),
    sign(Protocol::ZooKeeper, zookeeper_client, zookeeper_server),
    Sign { answers: same_name, ..sign(Protocol::Thrift, |head| thrift(head, &[1, 4]), |head| thrift(head, &[2, 3])) },
    sign(Protocol::Dubbo, dubbo_client, dubbo_server),
    sign(Protocol::Postgres, postgres_client, postgres_server),
    sign(Protocol::MySql, mysql_client, mysql_server),
    Sign { answers: same_request, ..sign(Protocol::MongoDb, mongodb_client, mongodb_server) },
    Sign { answers: same_correlation, ..sign(Protocol::Kafka, kafka_client, kafka_server) },
    sign(Protocol::Redis, redis_client, redis_server),
    sign(Protocol::Memcached, memcached_client, memcached_server),
    sign(Protocol::Smtp, smtp_client, smtp_server),
];

/// The protocol that two directions speak, whichever of them is the client's.
pub(super) fn protocol(heads: [&[u8]; 2]) -> Protocol {
    if heads.iter().any(|head| is_http1(head)) {
        return Protocol::Http1;
    }
    if heads.iter().any(|head| tls::is_record(head)) {
        return Protocol::Tls;
    }
    let [a, b] = heads;
    let is_told = |sign: &&Sign| sign.is_told(a, b) || sign.is_told(b, a);
    SIGNS.iter().find(is_told).map_or(Protocol::Unknown, |sign| sign.protocol)
}

/// The side that must have sent these first bytes.
pub(super) fn speaker(head: &[u8]) -> Option<Speaker> {
    let head = &head[..head.len().min(HEAD)];
    SIGNS.iter().find_map(|sign| match ((sign.client)(head), (sign.server)(head)) {
        (Tells, Tells) => None,
        (Tells, _) => Some(Speaker::Client),
        (_, Tells) => Some(Speaker::Server),
        _ => None,
    })
}

/// How many of a direction's first bytes are needed, which may be more than there are.
pub(super) fn wanted(head: &[u8]) -> usize {
    /// The lines that a client of SMTP sends before `STARTTLS`, and the head of a response that accepts an upgrade.
    const MAX_TEXT: usize = 1024;
    if let Some(at) = tls_at(head) {
        // So many bytes tell whether a ClientHello begins there.
        let begins = at + 6;
        return match tls::Hello::of(&head[at.min(head.len())..]) {
            tls::Hello::Open { needed, .. } => at + needed.max(6),
            tls::Hello::Whole(_) | tls::Hello::Absent => begins.max(HEAD),
        };
    }
    let goes_on = (smtp_client(head) >= Likely && memchr(0, head).is_none())
        || (head.starts_with(ACCEPTED) && memmem::find(head, b"\r\n\r\n").is_none());
    if goes_on { (head.len() + 1).clamp(HEAD, MAX_TEXT) } else { HEAD }
}

/// Where TLS begins, if the client has asked for it or began with it. It need not be there yet.
pub(super) fn tls_at(client: &[u8]) -> Option<usize> {
    if tls::is_record(client) {
        return Some(0);
    }
    if let Some(at) = postgres_requests(client).filter(|(_, tls)| *tls).map(|(at, _)| at) {
        return Some(at);
    }
    if mysql_client(client) == Tells && client[..3] == [32, 0, 0] {
        return Some(4 + 32);
    }
    if smtp_client(client) >= Likely {
        let command = b"\r\nSTARTTLS\r\n";
        let is_command = |window: &[u8]| window.eq_ignore_ascii_case(command);
        return client.windows(command.len()).position(is_command).map(|at| at + command.len());
    }
    None
}

/// Whether a direction goes on in TLS after it began with another protocol.
pub(super) fn goes_on_in_tls(protocol: Protocol, heads: [&[u8]; 2]) -> bool {
    heads.iter().any(|head| {
        let at = match (protocol, *head) {
            // A server of PostgreSQL accepts with one byte.
            (Protocol::Postgres, [b'S', ..]) => Some(1),
            (Protocol::Postgres | Protocol::MySql | Protocol::Smtp, _) => tls_at(head).filter(|at| *at > 0),
            _ => None,
        };
        at.and_then(|at| head.get(at..)).is_some_and(tls::is_record)
    })
}

// HTTP/1 (RFC 9112)

pub(super) const METHODS: [&[u8]; 9] =
    [b"GET ", b"HEAD ", b"POST ", b"PUT ", b"DELETE ", b"CONNECT ", b"OPTIONS ", b"TRACE ", b"PATCH "];

/// A response that accepts an upgrade (RFC 9110 section 15.2.2).
const ACCEPTED: &[u8] = b"HTTP/1.1 101 ";

fn is_http1(head: &[u8]) -> bool {
    let target = METHODS.iter().find_map(|method| head.strip_prefix(*method));
    // RTSP and ICAP have the same methods, but end the line with their own version. CONNECT of NATS has an object.
    let is_request = target.is_some_and(|target| match memchr(b'\n', target) {
        Some(end) => {
            let line = target[..end].trim_ascii_end();
            line.rsplit(|byte| *byte == b' ').next().is_some_and(|version| version.starts_with(b"HTTP/1."))
        }
        None => !target.starts_with(b"{"),
    });
    is_request || head.starts_with(b"HTTP/1.")
}

/// Whether a server's first response accepts WebSocket (RFC 6455 section 4.2.2).
pub(super) fn accepts_web_socket(head: &[u8]) -> bool {
    let is_upgrade = |line: &[u8]| {
        let Some(colon) = memchr(b':', line) else { return false };
        line[..colon].eq_ignore_ascii_case(b"upgrade")
            && line[colon + 1..].trim_ascii().eq_ignore_ascii_case(b"websocket")
    };
    head.starts_with(ACCEPTED) && head.split(|byte| *byte == b'\n').any(is_upgrade)
}

// SSH (RFC 4253 section 4.2)

fn ssh(head: &[u8]) -> Fit {
    Fit::tells_if(head.starts_with(b"SSH-2.0-") || head.starts_with(b"SSH-1."))
}

// AMQP 0-9-1 (section 4.2.2), and 1.0 (part 2.2)

fn amqp_client(head: &[u8]) -> Fit {
    // 0-9-1, 0-9, 0-10 and 0-8; then 1.0, also with SASL or TLS.
    let Some(version) = head.strip_prefix(b"AMQP") else { return No };
    Fit::tells_if(matches!(
        version,
        [0, 0, 9, 1, ..] | [1, 1, 0, 9 | 10, ..] | [1, 1, 8 | 9, 0 | 1, ..] | [0 | 2 | 3, 1, 0, 0, ..]
    ))
}

fn amqp_server(head: &[u8]) -> Fit {
    // A header again, or `Connection.Start` on channel 0.
    let start = matches!(head, [1, 0, 0, _, _, _, _, 0, 10, 0, 10, 0, 8 | 9, ..]);
    if start { Tells } else { amqp_client(head) }
}

// MQTT 3.1, 3.1.1 (section 3.1) and 5.0

fn mqtt_client(head: &[u8]) -> Fit {
    let Some((0x10, rest)) = head.split_first() else { return No };
    let Some(len) = rest.iter().take(4).position(|byte| *byte < 0x80) else { return No };
    let is_name = match &rest[len + 1..] {
        [0, 4, b'M', b'Q', b'T', b'T', level, flags, ..] => matches!(level, 3..=5) && flags & 1 == 0,
        [0, 6, b'M', b'Q', b'I', b's', b'd', b'p', 3, flags, ..] => flags & 1 == 0,
        _ => false,
    };
    Fit::tells_if(is_name)
}

fn mqtt_server(head: &[u8]) -> Fit {
    Fit::likely_if(
        matches!(head, [0x20, len @ 2..=0x7f, 0 | 1, 0..=5 | 0x80..=0x9f, ..] if *len == 2 || head.len() > 4),
    )
}

// ZooKeeper (zookeeper.jute): ConnectRequest and ConnectResponse, of a session whose password has 16 bytes

fn zookeeper_client(head: &[u8]) -> Fit {
    match head {
        // 45 bytes since 3.4, which added `readOnly`.
        [0, 0, 0, 44 | 45, 0, 0, 0, 0, rest @ ..] => {
            let password = rest.get(8 + 4 + 8..).is_some_and(|rest| rest.starts_with(&[0, 0, 0, 16]));
            Fit::tells_if(password && rest[0] < 0x80)
        }
        // Commands of four letters, which a client sends without anything else.
        [_, _, _, _] | [_, _, _, _, b'\n'] => {
            const WORDS: [&[u8]; 13] = [
                b"ruok", b"stat", b"srvr", b"mntr", b"conf", b"cons", b"envi", b"dump", b"wchs", b"wchc", b"wchp",
                b"isro", b"dirs",
            ];
            Fit::likely_if(WORDS.contains(&&head[..4]))
        }
        _ => No,
    }
}

fn zookeeper_server(head: &[u8]) -> Fit {
    match head {
        [0, 0, 0, 36 | 37, 0, 0, 0, 0, rest @ ..] => {
            let password = rest.get(4 + 8..).is_some_and(|rest| rest.starts_with(&[0, 0, 0, 16]));
            Fit::tells_if(password && rest[0] < 0x80)
        }
        _ if [&b"imok"[..], b"ro", b"rw", b"Environment:\n", b"clientPort="].iter().any(|a| head.starts_with(a)) => {
            Likely
        }
        _ => Fit::tells_if(head.starts_with(b"Zookeeper version: ") || head.starts_with(b"zk_version\t")),
    }
}

// Thrift (thrift-binary-protocol.md, thrift-compact-protocol.md, HeaderFormat.md), with and without frames

/// A message of one of these types: 1 call, 2 reply, 3 exception, 4 oneway.
fn thrift(head: &[u8], types: &[u8]) -> Fit {
    let framed = || {
        let (len, message) = head.split_first_chunk::<4>()?;
        let len = u32::from_be_bytes(*len);
        if (8..=1 << 27).contains(&len) {
            if let [0x0f, 0xff, _, _, _, _, _, _, a, b, 0 | 2, ..] = message {
                // THeader: how many words its header has, then the protocol inside.
                let words = u32::from(u16::from_be_bytes([*a, *b]));
                return Some(words > 0 && words * 4 + 10 <= len);
            }
            return thrift_name(message, types).map(|_| true);
        }
        None
    };
    Fit::tells_if(thrift_name(head, types).is_some() || framed().unwrap_or(false))
}

/// The name of the method that a message without a frame has, as far as it is there.
fn thrift_name<'a>(message: &'a [u8], types: &[u8]) -> Option<&'a [u8]> {
    let (len, name) = match message {
        [0x80, 1, 0, kind, a, b, c, d, name @ ..] if types.contains(kind) => {
            (u32::from_be_bytes([*a, *b, *c, *d]) as usize, name)
        }
        [0x82, kind, rest @ ..] if kind & 0x1f == 1 && types.contains(&(kind >> 5)) => {
            // The sequence number has up to five bytes, and the name is shorter than 128.
            let id = rest.iter().take(5).position(|byte| *byte < 0x80)?;
            let (len, name) = rest[id + 1..].split_first()?;
            (usize::from(*len), name)
        }
        _ => return None,
    };
    let name = &name[..name.len().min(len)];
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"_.:-".contains(byte);
    ((1..=256).contains(&len) && !name.is_empty() && name.iter().all(is_name)).then_some(name)
}

fn same_name(call: &[u8], reply: &[u8]) -> bool {
    let name = |head, types: &[u8]| thrift_name(head, types).or_else(|| thrift_name(head.get(4..)?, types));
    match (name(call, &[1, 4]), name(reply, &[2, 3])) {
        (Some(call), Some(reply)) => call.starts_with(reply) || reply.starts_with(call),
        _ => true,
    }
}

// Dubbo (the protocol's header of 16 bytes)

fn dubbo_client(head: &[u8]) -> Fit {
    match head {
        [0xda, 0xbb, flags, 0, rest @ ..] => Fit::tells_if(flags & 0x80 != 0 && is_dubbo(*flags, rest)),
        _ => No,
    }
}

fn dubbo_server(head: &[u8]) -> Fit {
    match head {
        [0xda, 0xbb, flags, 20 | 25 | 30 | 31 | 40 | 50 | 60 | 70 | 80 | 90 | 100, rest @ ..] if flags & 0x80 == 0 => {
            Fit::tells_if(is_dubbo(*flags, rest))
        }
        // A server asks too, whether the client is still there.
        _ => {
            if dubbo_client(head) == Tells {
                Likely
            } else {
                No
            }
        }
    }
}

/// A serialization that is in use, and a length of at most 64 MiB.
fn is_dubbo(flags: u8, rest: &[u8]) -> bool {
    matches!(flags & 0x1f, 2..=12 | 16 | 21..=25) && matches!(rest, [_, _, _, _, _, _, _, _, 0..=4, _, _, _, ..])
}

// PostgreSQL (chapter 53.7 of its documentation)

const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
const GSS_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 48];

/// How many bytes the requests for encryption have that a client begins with, and whether the last is for TLS.
fn postgres_requests(head: &[u8]) -> Option<(usize, bool)> {
    let (at, first) = match head.strip_prefix(&GSS_REQUEST) {
        Some(rest) => (8, rest),
        None => (0, head),
    };
    if first.starts_with(&SSL_REQUEST) { Some((at + 8, true)) } else { (at > 0).then_some((at, false)) }
}

fn postgres_client(head: &[u8]) -> Fit {
    if postgres_requests(head).is_some() {
        return Tells;
    }
    match head {
        // CancelRequest: the key has 4 bytes, or up to 256.
        [0, 0, a, b, 4, 210, 22, 46, ..] => Fit::tells_if((16..=268).contains(&u16::from_be_bytes([*a, *b]))),
        // StartupMessage 3.0 or 3.2: names and values, which end with an empty name.
        [0, 0, a @ 0..=39, b, 0, 3, 0, 0 | 2, rest @ ..] => {
            let len = usize::from(u16::from_be_bytes([*a, *b]));
            let rest = &rest[..rest.len().min(len.saturating_sub(8))];
            let is_whole = 8 + rest.len() == len;
            let name = memchr(0, rest).map_or(rest, |end| &rest[..end]);
            let is_name = name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"_.".contains(byte));
            let ends = if is_whole { rest.ends_with(b"\0\0") } else { !rest.contains(&b'\n') };
            Fit::tells_if(!name.is_empty() && is_name && ends)
        }
        _ => No,
    }
}

fn postgres_server(head: &[u8]) -> Fit {
    match head {
        // The answer to a request for encryption: yes to GSSAPI or TLS, or no.
        [b'G' | b'S' | b'N'] => Fits,
        [b'G', ..] => Fits,
        [b'S', rest @ ..] if tls::is_record(rest) => Likely,
        [b'N', b'N' | b'S' | b'R' | b'E', ..] => postgres_server(&head[1..]),
        // Authentication requests: AuthenticationOk, a password in plain text, MD5, GSSAPI, SSPI, SASL.
        [b'R', 0, 0, 0, 8, 0, 0, 0, 0 | 2 | 3 | 7 | 9, ..] | [b'R', 0, 0, 0, 12, 0, 0, 0, 5, ..] => Tells,
        [b'R', 0, 0, 0, 9..=255, 0, 0, 0, 10, first, ..] => Fit::tells_if(first.is_ascii_uppercase()),
        // ErrorResponse, whose first field is the severity.
        [b'E', 0, 0, _, _, b'S', severity @ ..] => {
            let is_severity = severity.iter().take(5).all(|byte| *byte >= 0x20 && *byte != 0x7f);
            Fit::tells_if(severity.len() >= 5 && is_severity)
        }
        // NegotiateProtocolVersion.
        [b'v', 0, 0, _, _, ..] => Fits,
        _ => No,
    }
}

// MySQL and MariaDB (the documentation of MySQL's source code, "Client/Server Protocol")

fn mysql_client(head: &[u8]) -> Fit {
    /// `CLIENT_PROTOCOL_41` and `CLIENT_SSL`.
    const PROTOCOL_41: u32 = 0x200;
    const SSL: u32 = 0x800;
    // HandshakeResponse41 or SSLRequest: capabilities, the longest packet, a character set, 23 bytes of which MariaDB uses
    // the last four.
    let Some((&[a, b, c, 1], packet)) = head.split_first_chunk() else { return No };
    let len = u32::from_le_bytes([a, b, c, 0]);
    let Some((capabilities, rest)) = packet.split_first_chunk::<4>() else { return No };
    let capabilities = u32::from_le_bytes(*capabilities);
    let is_zero = rest.get(5..5 + 19).is_some_and(|filler| filler.iter().all(|byte| *byte == 0));
    let is_len = if capabilities & SSL == 0 { len > 32 } else { len >= 32 };
    Fit::tells_if(is_zero && is_len && len < 1 << 16 && capabilities & PROTOCOL_41 != 0)
}

fn mysql_server(head: &[u8]) -> Fit {
    match head {
        // Protocol::HandshakeV10: the server's version as text, a number, 8 random bytes that are not zero, a zero.
        [len, high, 0, 0, 10, version @ ..] => {
            let len = usize::from(u16::from_le_bytes([*len, *high]));
            let end = memchr(0, version).unwrap_or(version.len());
            let text = &version[..end];
            let is_version = text.first().is_some_and(u8::is_ascii_digit)
                && text.contains(&b'.')
                && text.iter().all(u8::is_ascii_graphic);
            let after = &version[end..];
            let is_scramble = after.get(13).is_none_or(|filler| *filler == 0);
            Fit::tells_if(is_version && is_scramble && len > text.len() + 14)
        }
        // ERR_Packet instead of a greeting: too many connections, or a host that is not allowed.
        [len, 0..=3, 0, 0, 0xff, a, b, text @ ..] if *len > 8 => {
            let code = u16::from_le_bytes([*a, *b]);
            let is_text = text.len() >= 8 && text.iter().all(|byte| matches!(byte, b' '..=b'~'));
            Fit::tells_if(is_text && matches!(code, 1000..=1999 | 3000..=4999))
        }
        _ => No,
    }
}

// MongoDB (MongoDB Wire Protocol)

/// Length, request, the request that is answered, opcode; all of them little-endian.
fn mongodb(head: &[u8]) -> Option<([u32; 4], &[u8])> {
    let (header, rest) = head.split_first_chunk::<16>()?;
    let [len, request, answered, opcode] =
        [0, 4, 8, 12].map(|at| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]));
    // At most 48,000,000 bytes.
    (21..=48_000_000).contains(&len).then_some(([len, request, answered, opcode], rest))
}

fn mongodb_client(head: &[u8]) -> Fit {
    match mongodb(head) {
        Some(([len, _, 0, 2004], [_, _, 0, 0, name @ ..])) => {
            // OP_QUERY: flags, then a collection.
            let end = memchr(0, name).unwrap_or(name.len());
            let name = &name[..end];
            Fit::tells_if(len > 29 && name.contains(&b'.') && name.iter().all(u8::is_ascii_graphic))
        }
        Some(([len, _, 0, opcode], rest)) => Fit::tells_if(is_mongodb_body(len, opcode, rest)),
        _ => No,
    }
}

fn mongodb_server(head: &[u8]) -> Fit {
    match mongodb(head) {
        Some((_, [])) => No,
        // OP_REPLY: flags, a cursor, the first document's number, and how many there are.
        Some(([len, _, 1..=u32::MAX, 1], [0..=15, 0, 0, 0, rest @ ..])) => {
            Fit::tells_if(len >= 36 && rest.get(8..12).is_some_and(|first| first == [0; 4]))
        }
        Some(([len, _, 1..=u32::MAX, opcode], rest)) => Fit::tells_if(is_mongodb_body(len, opcode, rest)),
        _ => No,
    }
}

fn is_mongodb_body(len: u32, opcode: u32, body: &[u8]) -> bool {
    let number = |at: usize| body.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes));
    match opcode {
        // OP_MSG: flags, of which 0, 1 and 16 are defined; then a section with a document of BSON, or with several.
        2013 => {
            let Some(flags) = number(0) else { return false };
            let Some(kind) = body.get(4) else { return false };
            let fits = number(5).is_some_and(|document| (5..=len - 16).contains(&document));
            let is_element = body.get(9).is_some_and(|kind| matches!(kind, 0..=0x13 | 0x7f | 0xff));
            flags & !0x1_0003 == 0 && *kind <= 1 && fits && (*kind == 1 || is_element)
        }
        // OP_COMPRESSED: the opcode inside, its length, and one of four compressors.
        2012 => {
            let inside = number(0).is_some_and(|opcode| matches!(opcode, 1 | 2004 | 2013));
            inside && number(4).is_some_and(|len| len <= 48_000_000) && body.get(8).is_some_and(|kind| *kind <= 3)
        }
        _ => false,
    }
}

fn same_request(request: &[u8], answer: &[u8]) -> bool {
    match (mongodb(request), mongodb(answer)) {
        (Some(([_, request, ..], _)), Some(([_, _, answered, _], _))) => request == answered,
        _ => true,
    }
}

// Kafka (KIP-482 and "Protocol guide": request header versions 1 and 2)

fn kafka_client(head: &[u8]) -> Fit {
    /// More than there are, of requests and of their versions.
    const MAX_KEY: u16 = 120;
    const MAX_VERSION: u16 = 25;
    /// `socket.request.max.bytes` by default.
    const MAX_LEN: u32 = 100 << 20;
    const API_VERSIONS: u16 = 18;
    let Some((&[l0, l1, l2, l3, k0, k1, v0, v1, c0, _, _, _, n0, n1], rest)) = head.split_first_chunk() else {
        return No;
    };
    let len = u32::from_be_bytes([l0, l1, l2, l3]);
    let [key, version, client] = [[k0, k1], [v0, v1], [n0, n1]].map(u16::from_be_bytes);
    if !(10..=MAX_LEN).contains(&len) || key > MAX_KEY || version > MAX_VERSION || c0 >= 0x80 {
        return No;
    }
    match client {
        // The client does not name itself.
        u16::MAX => {
            if key == API_VERSIONS && (version > 2 || len == 10) {
                Tells
            } else {
                Fits
            }
        }
        1..=255 if u32::from(client) + 10 <= len => {
            let name = &rest[..rest.len().min(usize::from(client))];
            Fit::tells_if(!name.is_empty() && name.iter().all(|byte| matches!(byte, b' '..=b'~')))
        }
        _ => No,
    }
}

fn kafka_server(head: &[u8]) -> Fit {
    match head {
        [a, b, c, d, id, _, _, _, ..]
            if *id < 0x80 && (4..=1 << 30).contains(&u32::from_be_bytes([*a, *b, *c, *d])) =>
        {
            Fits
        }
        _ => No,
    }
}

fn same_correlation(request: &[u8], response: &[u8]) -> bool {
    request.get(8..12) == response.get(4..8)
}

// Redis (RESP 2 and 3), Valkey and others that speak it

/// A number in the line that these bytes begin with, and what follows the line.
fn number_line(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let end = line_end(bytes).filter(|end| *end <= 20)?;
    Some((str::from_utf8(&bytes[..end]).ok()?.parse().ok()?, &bytes[end + 2..]))
}

fn redis_client(head: &[u8]) -> Fit {
    let command = || {
        let (count, rest) = number_line(head.strip_prefix(b"*")?)?;
        let (len, name) = number_line(rest.strip_prefix(b"$")?)?;
        let is_sized = (1..=1 << 20).contains(&count) && (1..=32).contains(&len);
        let name = &name[..name.len().min(usize::try_from(len).ok()?)];
        let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"._|-".contains(byte);
        (is_sized && name.first()?.is_ascii_alphabetic() && name.iter().all(is_name)).then_some(())
    };
    match head {
        [b'*', ..] => Fit::tells_if(command().is_some()),
        // A command as a line of text.
        [b'A'..=b'Z' | b'a'..=b'z', ..] => {
            let line = line_end(head).map_or(head, |end| &head[..end]);
            if line.iter().all(|byte| matches!(byte, b' '..=b'~')) { Fits } else { No }
        }
        _ => No,
    }
}

fn redis_server(head: &[u8]) -> Fit {
    let Some((kind, rest)) = head.split_first() else { return No };
    match kind {
        b'+' if rest.starts_with(b"PONG\r\n") => Tells,
        b'-' => {
            const CODES: [&[u8]; 8] =
                [b"ERR ", b"WRONGTYPE ", b"NOAUTH ", b"MOVED ", b"ASK ", b"LOADING ", b"DENIED ", b"WRONGPASS "];
            let is_code = CODES.iter().any(|code| rest.starts_with(code));
            if is_code { Tells } else { Fits }
        }
        b'+' => {
            if rest.iter().take_while(|byte| **byte != b'\r').all(|byte| matches!(byte, b' '..=b'~')) {
                Fits
            } else {
                No
            }
        }
        b':' | b'$' | b'*' | b'%' | b'~' | b'>' | b'=' | b'!' => {
            if number_line(rest).is_some_and(|(number, _)| *kind == b':' || number >= -1) { Fits } else { No }
        }
        b'_' | b'#' | b',' | b'(' => Fits,
        _ => No,
    }
}

// Memcached (protocol.txt, and the older binary protocol)

/// Where the first line ends. The bytes are few, for which a search of `memmem` takes longer to prepare than to make.
fn line_end(bytes: &[u8]) -> Option<usize> {
    memchr_iter(b'\n', bytes).find_map(|at| at.checked_sub(1).filter(|before| bytes[*before] == b'\r'))
}

/// The words of the line that these bytes begin with, if all of it is here.
fn words(head: &[u8]) -> Option<Vec<&[u8]>> {
    let line = &head[..line_end(head)?];
    let is_text = line.iter().all(|byte| matches!(byte, b' '..=b'~'));
    is_text.then(|| line.split(|byte| *byte == b' ').collect())
}

fn is_number(word: &[u8]) -> bool {
    let digits = word.strip_prefix(b"-").unwrap_or(word);
    !digits.is_empty() && digits.len() <= 20 && digits.iter().all(u8::is_ascii_digit)
}

fn memcached_client(head: &[u8]) -> Fit {
    if head.first() == Some(&0x80) {
        return Fit::tells_if(is_memcached_packet(head));
    }
    let Some(words) = words(head) else {
        // The keys of a request may be longer than what is here.
        let gets = [&b"get "[..], b"gets ", b"mg "].iter().any(|verb| head.starts_with(verb));
        return Fit::likely_if(gets && head.iter().all(|byte| matches!(byte, b' '..=b'~')));
    };
    let numbers = |words: &[&[u8]]| words.iter().all(|word| is_number(word));
    match words.as_slice() {
        [b"set" | b"add" | b"replace" | b"append" | b"prepend", key, rest @ ..]
            if matches!(rest.len(), 3..=4) && !key.is_empty() =>
        {
            Fit::tells_if(numbers(&rest[..3]) && rest.get(3).is_none_or(|word| *word == b"noreply"))
        }
        [b"cas", _, rest @ ..] if matches!(rest.len(), 4..=5) => Fit::tells_if(numbers(&rest[..4])),
        [b"incr" | b"decr" | b"touch", _, by, ..] => Fit::likely_if(is_number(by)),
        [b"gat" | b"gats", until, _, ..] => Fit::likely_if(is_number(until)),
        [b"get" | b"gets" | b"delete" | b"mg" | b"md" | b"ma" | b"me", key, ..] => Fit::likely_if(!key.is_empty()),
        [b"ms", _, len, ..] => Fit::likely_if(is_number(len)),
        [b"stats" | b"version" | b"flush_all" | b"mn" | b"verbosity", ..] => Likely,
        _ => No,
    }
}

fn memcached_server(head: &[u8]) -> Fit {
    if head.first() == Some(&0x81) {
        return Fit::tells_if(is_memcached_packet(head));
    }
    let Some(words) = words(head) else { return if head.starts_with(b"VALUE ") { Likely } else { No } };
    match words.as_slice() {
        [b"VALUE", _, rest @ ..] if matches!(rest.len(), 2..=3) => {
            Fit::tells_if(rest.iter().all(|word| is_number(word)))
        }
        [b"VERSION" | b"STAT" | b"CLIENT_ERROR" | b"SERVER_ERROR", _, ..] => Likely,
        [
            b"END" | b"STORED" | b"NOT_STORED" | b"EXISTS" | b"NOT_FOUND" | b"DELETED" | b"TOUCHED" | b"OK" | b"ERROR"
            | b"HD" | b"NS" | b"EX" | b"NF" | b"EN" | b"MN" | b"VA",
            ..,
        ] => Likely,
        [number] => Fit::likely_if(is_number(number)),
        _ => No,
    }
}

/// A header of 24 bytes: opcode, lengths of the key and of extras, no data type, a status in answers, and the length of
/// all that follows.
fn is_memcached_packet(head: &[u8]) -> bool {
    let Some(&[magic, opcode, k0, k1, extras, 0, s0, s1, b0, b1, b2, b3, ..]) = head.first_chunk::<24>() else {
        return false;
    };
    let [key, status] = [[k0, k1], [s0, s1]].map(u16::from_be_bytes);
    let body = u32::from_be_bytes([b0, b1, b2, b3]);
    let is_status = magic == 0x80 || matches!(status, 0..=9 | 0x20..=0x24 | 0x81..=0x86);
    let is_opcode = matches!(opcode, 0..=0x24 | 0x30..=0x3c);
    is_opcode
        && is_status
        && key <= 250
        && extras <= 24
        && body < 1 << 27
        && u32::from(key) + u32::from(extras) <= body
        && (opcode != 0 || magic != 0x80 || key > 0)
}

// SMTP (RFC 5321 section 4.1.1.1, RFC 3207) and LMTP (RFC 2033)

fn smtp_client(head: &[u8]) -> Fit {
    let verb = head.get(..5).unwrap_or_default();
    if !head.iter().take(HEAD).take_while(|byte| **byte != b'\r').all(|byte| matches!(byte, b' '..=b'~')) {
        return No;
    }
    let has_name = head.get(5).is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'[');
    match verb.to_ascii_uppercase().as_slice() {
        b"EHLO " => Fit::tells_if(has_name),
        b"HELO " | b"LHLO " => Fit::likely_if(has_name),
        _ => No,
    }
}

fn smtp_server(head: &[u8]) -> Fit {
    // FTP greets with the same code.
    match head {
        [b'2', b'2', b'0', b' ' | b'-', text @ ..] => {
            let line = memchr(b'\n', text).map_or(text, |end| &text[..end]);
            let is_named = memmem::find(line, b"SMTP").or_else(|| memmem::find(line, b"LMTP")).is_some();
            if is_named { Tells } else { Likely }
        }
        // It refuses, for good or for now.
        [b'5', b'5', b'4', b' ' | b'-', ..] | [b'4', b'2', b'1', b' ' | b'-', ..] => Fits,
        _ => No,
    }
}

impl Sign {
    fn is_told(&self, client: &[u8], server: &[u8]) -> bool {
        let fit = |side: fn(&[u8]) -> Fit, head: &[u8]| if head.is_empty() { Fits } else { side(head) };
        let fits = [fit(self.client, client), fit(self.server, server)];
        let certain = fits.contains(&Tells) || fits == [Likely, Likely];
        certain && !fits.contains(&No) && (client.is_empty() || server.is_empty() || (self.answers)(client, server))
    }
}
