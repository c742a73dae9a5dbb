//! What a client of TLS says in plain text: the ClientHello.

/// The longest ClientHello that is read, with the heads of its records. The largest in use have a few KiB.
const MAX_HELLO: usize = 16 << 10;

/// The most records that one ClientHello comes in.
const MAX_RECORDS: usize = 16;

/// A record's head: type, version, length (RFC 8446 section 5.1).
const RECORD: usize = 5;

/// What is kept of a server's name (a DNS name has at most 253 bytes), and of all protocols together.
const MAX_NAME: usize = 255;
const MAX_ALPN: usize = 128;

/// Extensions: `server_name` (RFC 6066 section 3) and `application_layer_protocol_negotiation` (RFC 7301 section 3.1).
const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;

/// What a client asks for in its ClientHello. Both come from the trace unchecked: they must be escaped for a terminal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// The name of the server (SNI).
    pub server_name: Option<String>,
    /// The protocols that the client offers (ALPN), the one that it prefers first.
    pub alpn: Vec<String>,
    /// The trace does not have all of the message, so that there may be more.
    pub is_cut: bool,
}

/// Whether these are the first bytes of a TLS record (RFC 8446 section 5.1, RFC 5246 section 6.2).
pub(crate) fn is_record(bytes: &[u8]) -> bool {
    match bytes {
        [20..=23, 3, 0..=4, a, b, ..] => (1..=(1 << 14) + 2048).contains(&u16::from_be_bytes([*a, *b])),
        _ => false,
    }
}

/// How much of a ClientHello there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Hello {
    /// None begins here, or it is not sound, or too long.
    Absent,
    /// At least so many bytes are needed.
    Open { needed: usize, message: Vec<u8> },
    /// All of it.
    Whole(ClientHello),
}

impl Hello {
    pub(super) fn of(bytes: &[u8]) -> Self {
        let mut message = Vec::new();
        let mut at = 0;
        for _ in 0..MAX_RECORDS {
            let Some(&[kind, major, minor, a, b]) = bytes.get(at..).and_then(|rest| rest.first_chunk()) else {
                return Self::open(at + RECORD, message);
            };
            let len = u16::from_be_bytes([a, b]);
            if (kind, major) != (22, 3) || minor > 4 || len == 0 {
                return Self::Absent;
            }
            let record = at + RECORD;
            at = record + usize::from(len);
            message.extend_from_slice(&bytes[record..bytes.len().min(at)]);
            // A handshake message: its type, here 1, and its length (RFC 8446 section 4).
            if message.first().is_some_and(|kind| *kind != 1) {
                return Self::Absent;
            }
            if bytes.len() < at {
                return Self::open(at, message);
            }
            if let [_, 0, a, b, body @ ..] = message.as_slice()
                && let Some(body) = body.get(..usize::from(u16::from_be_bytes([*a, *b])))
            {
                return client_hello(body, false).map_or(Self::Absent, Self::Whole);
            }
        }
        Self::Absent
    }

    fn open(needed: usize, message: Vec<u8>) -> Self {
        if needed <= MAX_HELLO { Self::Open { needed, message } } else { Self::Absent }
    }

    /// What there is of it, if no more comes: its end is not in the trace.
    pub(super) fn into_what_is_here(self) -> Option<ClientHello> {
        match self {
            Self::Absent => None,
            Self::Open { message, .. } => {
                let hello = client_hello(message.get(4..)?, true)?;
                (hello.server_name.is_some() || !hello.alpn.is_empty()).then_some(hello)
            }
            Self::Whole(hello) => Some(hello),
        }
    }
}

/// Takes a vector with its length in `N` bytes before it (RFC 8446 section 3.4).
fn vector<'a, const N: usize>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (len, rest) = bytes.split_first_chunk::<N>()?;
    let len = len.iter().fold(0, |len, byte| len << 8 | usize::from(*byte));
    let (vector, rest) = rest.split_at_checked(len)?;
    *bytes = rest;
    Some(vector)
}

/// Reads a ClientHello (RFC 8446 section 4.1.2; the older versions have the same layout). If its end is missing, what comes
/// before is read.
fn client_hello(body: &[u8], is_cut: bool) -> Option<ClientHello> {
    // legacy_version and random.
    let mut rest = body.get(2 + 32..)?;
    let (_session, _suites) = (vector::<1>(&mut rest)?, vector::<2>(&mut rest)?);
    let _compression = vector::<1>(&mut rest)?;
    let mut hello = ClientHello { is_cut, ..ClientHello::default() };
    // Without any extensions, the message ends here.
    let mut extensions = match rest {
        [] => rest,
        _ if is_cut => rest.get(2..)?,
        _ => vector::<2>(&mut rest)?,
    };
    while let Some((kind, mut after)) = extensions.split_first_chunk() {
        let mut data = match vector::<2>(&mut after) {
            None if is_cut => break,
            data => data?,
        };
        extensions = after;
        match u16::from_be_bytes(*kind) {
            SERVER_NAME => {
                let mut names = vector::<2>(&mut data)?;
                // Each has a type; 0, host_name, is the only one.
                while let Some((kind, mut after)) = names.split_first() {
                    let name = vector::<2>(&mut after)?;
                    names = after;
                    if *kind == 0 && hello.server_name.is_none() {
                        let name = &name[..name.len().min(MAX_NAME)];
                        hello.server_name = Some(String::from_utf8_lossy(name).into_owned());
                    }
                }
            }
            ALPN => {
                let mut protocols = vector::<2>(&mut data)?;
                let mut room = MAX_ALPN;
                while !protocols.is_empty() {
                    let protocol = vector::<1>(&mut protocols)?;
                    // The rest of a list that is too long is left out. A short name takes memory too.
                    let Some(left) = room.checked_sub(protocol.len() + 8) else { break };
                    room = left;
                    hello.alpn.push(String::from_utf8_lossy(protocol).into_owned());
                }
            }
            _ => {}
        }
    }
    Some(hello)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn with_len<const N: usize>(bytes: &[u8]) -> Vec<u8> {
        [&(bytes.len() as u64).to_be_bytes()[8 - N..], bytes].concat()
    }

    fn record(bytes: &[u8]) -> Vec<u8> {
        [b"\x16\x03\x01".as_slice(), &with_len::<2>(bytes)].concat()
    }

    /// A ClientHello with these extensions, without its record.
    fn message(extensions: &[(u16, Vec<u8>)]) -> Vec<u8> {
        let extensions: Vec<u8> = extensions
            .iter()
            .flat_map(|(kind, data)| [kind.to_be_bytes().to_vec(), with_len::<2>(data)].concat())
            .collect();
        let body = [
            b"\x03\x03".as_slice(),
            &[7; 32],
            &with_len::<1>(&[9; 32]),
            &with_len::<2>(&[0x13, 1]),
            &with_len::<1>(&[0]),
            &with_len::<2>(&extensions),
        ];
        [b"\x01".as_slice(), &with_len::<3>(&body.concat())].concat()
    }

    fn server_name(name: &[u8]) -> (u16, Vec<u8>) {
        (SERVER_NAME, with_len::<2>(&[b"\0".as_slice(), &with_len::<2>(name)].concat()))
    }

    fn alpn(protocols: &[&[u8]]) -> (u16, Vec<u8>) {
        (ALPN, with_len::<2>(&protocols.iter().flat_map(|name| with_len::<1>(name)).collect::<Vec<u8>>()))
    }

    pub(crate) fn hello(name: &[u8]) -> Vec<u8> {
        record(&message(&[(10, vec![0; 400]), server_name(name), alpn(&[b"h2", b"http/1.1"])]))
    }

    #[test]
    fn a_client_hello_names_the_server_and_protocols() {
        let Hello::Whole(hello) = Hello::of(&hello(b"shop.example")) else { panic!() };
        assert_eq!(hello.server_name.as_deref(), Some("shop.example"));
        assert_eq!(hello.alpn, ["h2", "http/1.1"]);
        assert_eq!(Hello::of(&record(&message(&[]))), Hello::Whole(ClientHello::default()));
    }

    #[test]
    fn a_client_hello_may_come_in_several_records_and_pieces() {
        let message = message(&[server_name(b"shop.example")]);
        let split: Vec<u8> = message.chunks(20).flat_map(record).collect();
        for bytes in [&hello(b"shop.example"), &split] {
            for len in 0..bytes.len() {
                // What is asked for is more than there is, and never more than all.
                let Hello::Open { needed, .. } = Hello::of(&bytes[..len]) else { panic!("{len}") };
                assert!(len < needed && needed <= bytes.len(), "{needed} of {} at {len}", bytes.len());
            }
            assert!(matches!(Hello::of(bytes), Hello::Whole(hello) if hello.server_name.is_some()));
        }
    }

    #[test]
    fn what_comes_before_missing_bytes_is_read() {
        let message = message(&[server_name(b"shop.example"), alpn(&[b"h2"]), (21, vec![0; 300])]);
        let bytes = record(&message);
        let cut = |len: usize| Hello::of(&bytes[..len]).into_what_is_here();
        let both = cut(bytes.len() - 1).unwrap();
        assert_eq!((both.server_name.as_deref(), both.alpn.len(), both.is_cut), (Some("shop.example"), 1, true));
        let alpn_at = bytes.windows(2).rposition(|pair| pair == b"h2").unwrap();
        let name = cut(alpn_at).unwrap();
        assert_eq!((name.server_name.as_deref(), name.alpn.len(), name.is_cut), (Some("shop.example"), 0, true));
        assert!((0..60).all(|len| cut(len).is_none()));
        assert!(!cut(bytes.len()).unwrap().is_cut);
    }

    #[test]
    fn what_no_client_sends_is_not_read() {
        let sound = hello(b"shop.example");
        let mut server = sound.clone();
        server[5] = 2;
        let mut short = sound.clone();
        // The extensions claim to have more bytes than the message.
        short[5 + 4 + 2 + 32 + 33 + 4 + 2] = 0xff;
        let huge = record(b"\x01\x01\0\0");
        let endless = [b"\x16\x03\x01\xff\xff\x01".as_slice(), &[0; 100]].concat();
        let crumbs: Vec<u8> = sound[5..].chunks(1).flat_map(record).collect();
        for bytes in [server, short, huge.repeat(17), endless, crumbs, b"\x16\x03\x01\0\0".to_vec()] {
            assert_eq!(Hello::of(&bytes), Hello::Absent, "{bytes:?}");
        }
    }

    #[test]
    fn what_is_kept_of_names_has_a_bound() {
        let names = [b"x".repeat(100).as_slice(), &b"y".repeat(100)].concat();
        let extensions = [server_name(&b"a".repeat(3000)), alpn(&[&names[..100], &names[100..]])];
        let Hello::Whole(hello) = Hello::of(&record(&message(&extensions))) else { panic!() };
        assert_eq!((hello.server_name.map(|name| name.len()), hello.alpn.len()), (Some(MAX_NAME), 1));
        let Hello::Whole(hello) = Hello::of(&record(&message(&[alpn(&[&b""[..]; 500])]))) else { panic!() };
        assert_eq!(hello.alpn.len(), MAX_ALPN / 8);
    }
}
