//! Addresses for packets: those of the trace, rewritten as the user asked, and made-up ones where the trace has none.
//!
//! Made-up addresses come from the ranges reserved for benchmarking, 198.18.0.0/15 (RFC 2544) and 2001:2::/48
//! (RFC 5180). A server's is in the lower half and depends on its name, so that the same socket path always gets the
//! same address. A client's is in the upper half and depends on the connection.

use std::{
    collections::HashSet,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use thiserror::Error;

use super::{AddressPair, Opening, Role, stable_hash};
use crate::trace::{Address, Code, Fact, Owner};

/// The made-up port of a server without one. No dissector of Wireshark is registered for it, so heuristics decide.
const SERVER_PORT: u16 = 25_000;

/// The made-up port of a server whose HTTP is replayed. On this port Wireshark recognises both HTTP/1 and HTTP/2.
const HTTP_PORT: u16 = 80;

/// How many client ports are tried for a connection whose tuple is taken.
const PORT_ATTEMPTS: u64 = 64;

/// RFC 6335: dynamic ports begin here.
const FIRST_DYNAMIC_PORT: u16 = 49_152;

/// The two ends of a connection, as packets carry them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoints {
    /// Envoy's end.
    pub local: SocketAddr,
    /// The peer's end.
    pub remote: SocketAddr,
    /// What was made up or rewritten.
    pub notes: Vec<AddressNote>,
    /// True names of made-up addresses.
    pub names: Vec<(IpAddr, String)>,
    /// What is wrong with the addresses of the trace.
    pub faults: Vec<Fact>,
    /// Whether both addresses come from the trace or the user, so that they identify the connection.
    pub recorded: bool,
    /// Whether the client's address was replaced by a made-up one, to keep the connection apart from another one.
    pub kept_apart: bool,
}

impl Endpoints {
    /// Client and server.
    #[must_use]
    pub fn tuple(&self, role: Role) -> AddressPair {
        match role {
            Role::Downstream => AddressPair(self.remote, self.local),
            Role::Upstream => AddressPair(self.local, self.remote),
        }
    }
}

/// What was made up or rewritten in a connection's addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddressNote {
    /// The trace has no such address.
    Missing {
        /// Whose address it is.
        owner: Owner,
        /// What stands in its place.
        made_up: SocketAddr,
        /// Whether this is a cluster's connection, which was not connected when its trace began.
        unconnected: bool,
    },
    /// The trace has a name instead of an address.
    Named {
        /// Whose address it is.
        owner: Owner,
        /// The path of a socket, or the name of an internal listener.
        name: String,
        /// What stands in its place.
        made_up: SocketAddr,
    },
    /// The trace has no port.
    NoPort {
        /// Whose address it is.
        owner: Owner,
        /// What stands in its place.
        made_up: u16,
    },
    /// The trace has a port above 65535.
    BadPort {
        /// Whose address it is.
        owner: Owner,
        /// What the trace has.
        port: u32,
        /// What stands in its place.
        made_up: u16,
    },
    /// The trace has an address that is not an IP address.
    BadAddress {
        /// Whose address it is.
        owner: Owner,
        /// What the trace has.
        text: String,
        /// What stands in its place.
        made_up: IpAddr,
    },
    /// A [`Mapping`] rewrote the address.
    Rewritten {
        /// Whose address it is.
        owner: Owner,
        /// The address before.
        old: SocketAddr,
        /// The address after.
        new: SocketAddr,
    },
    /// The IPv4 side is written as an IPv4-mapped IPv6 address.
    Mapped,
    /// The client's address was made up to keep the connection apart from another one.
    KeptApart {
        /// What it was kept apart from.
        from: Other,
        /// The address before.
        old: SocketAddr,
        /// The address after.
        new: SocketAddr,
    },
}

/// What a connection had to be kept apart from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Other {
    /// Its own server: both ends have the same address.
    OwnEnd,
    /// An exchange of the same connection, to which it cannot be joined.
    Exchange,
    /// A connection with the same addresses that is open at the same time.
    Connection,
}

/// A rule that rewrites addresses, `OLD=NEW`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// The rule as the user wrote it.
    text: String,
    old: Old,
    /// A new address or port that is `None` keeps the old one.
    new_address: Option<IpAddr>,
    new_port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Old {
    /// An address, with one port or any, and with one zone or any.
    Address {
        ip: IpAddr,
        zone: Option<String>,
        port: Option<u16>,
    },
    /// A port on any address.
    Port(u16),
    /// The path of a unix socket, or any other name that a trace has instead of an address.
    Name(String),
    /// The local or remote address, if the trace has none.
    MissingLocal,
    MissingRemote,
}

/// Why a [`Mapping`] cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ParseMappingError {
    /// There is no `=`.
    #[error("expected OLD=NEW, such as 10.0.0.7=192.0.2.1, 127.0.0.1:8080=192.0.2.1:80 or :8080=:80")]
    NoEquals,
    /// The right side is neither an address nor address:port nor :port.
    #[error("'{0}' is neither an address nor address:port nor :port")]
    NotAnAddress(String),
    /// The right side has a zone.
    #[error("'{0}': a packet has no place for a zone; leave it out")]
    NewZone(String),
    /// No trace can have what is on the left side.
    #[error("'{0}' can match nothing: it is neither an address, address:port or :port nor the name of a socket")]
    CannotMatch(String),
    /// The left side is empty.
    #[error("nothing stands before the '='")]
    NoOld,
}

impl FromStr for Mapping {
    type Err = ParseMappingError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // The last '=' separates the sides, because a socket path may contain one and the new address cannot.
        let (old, new) = text.rsplit_once('=').ok_or(ParseMappingError::NoEquals)?;
        let (new_address, new_port) = parse_new(new)?;
        Ok(Self { text: text.to_owned(), old: parse_old(old)?, new_address, new_port })
    }
}

impl fmt::Display for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn parse_old(text: &str) -> Result<Old, ParseMappingError> {
    if let Some(port) = parse_port(text) {
        return Ok(Old::Port(port));
    }
    match (text, parse_address(text)) {
        ("", _) => Err(ParseMappingError::NoOld),
        ("local", _) => Ok(Old::MissingLocal),
        ("remote", _) => Ok(Old::MissingRemote),
        (_, Some((ip, zone, port))) => Ok(Old::Address { ip, zone: zone.map(str::to_owned), port }),
        (name, None) if may_be_name(name) => Ok(Old::Name(name.to_owned())),
        (text, None) => Err(ParseMappingError::CannotMatch(text.to_owned())),
    }
}

fn parse_new(text: &str) -> Result<(Option<IpAddr>, Option<u16>), ParseMappingError> {
    if let Some(port) = parse_port(text) {
        return Ok((None, Some(port)));
    }
    match parse_address(text) {
        Some((ip, None, port)) => Ok((Some(ip), port)),
        Some((_, Some(_), _)) => Err(ParseMappingError::NewZone(text.to_owned())),
        None => Err(ParseMappingError::NotAnAddress(text.to_owned())),
    }
}

/// Parses a port such as `:443`.
fn parse_port(text: &str) -> Option<u16> {
    let digits = text.strip_prefix(':')?;
    // Rust's parser for numbers accepts a sign.
    if digits.bytes().all(|byte| byte.is_ascii_digit()) { digits.parse().ok() } else { None }
}

/// Parses an address with an optional zone (RFC 4007 section 11) and port: `10.0.0.1`, `10.0.0.1:443`, `fe80::1%eth0`,
/// `[fe80::1%eth0]:443`.
fn parse_address(text: &str) -> Option<(IpAddr, Option<&str>, Option<u16>)> {
    let (address, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            (address, if port.is_empty() { None } else { Some(parse_port(port)?) })
        }
        // A single colon precedes a port; several make an IPv6 address.
        None => match text.split_once(':') {
            Some((address, port)) if !port.contains(':') => (address, Some(parse_port(&text[address.len()..])?)),
            _ => (text, None),
        },
    };
    match address.split_once('%') {
        Some((address, zone)) => {
            let ip = IpAddr::V6(address.parse().ok()?);
            (!zone.is_empty()).then_some((ip, Some(zone), port))
        }
        None => Some((address.parse().ok()?, None, port)),
    }
}

/// Whether a trace can have this instead of an address: the path of a unix socket, an abstract socket, an internal
/// listener, or a host name with a dot or a port. A malformed IP address is not a name.
fn may_be_name(text: &str) -> bool {
    if ["/", "./", "../", "@", "envoy:"].iter().any(|prefix| text.starts_with(prefix)) {
        return true;
    }
    if let Some((before, _)) = text.split_once('/') {
        // A network such as 10.0.0.0/8 is not a path.
        return parse_address(before).is_none();
    }
    let host = match text.split_once(':') {
        Some((host, _)) if parse_port(&text[host.len()..]).is_some() => host,
        None if text.contains('.') => text,
        Some(_) | None => return false,
    };
    host.chars().all(|char| char.is_alphanumeric() || "-_.".contains(char)) && host.chars().any(char::is_alphabetic)
}

/// All [`Mapping`]s of a run, and which of them have rewritten anything so far in any input and thread.
#[derive(Clone, Debug, Default)]
pub struct Mappings(Arc<[(Mapping, AtomicBool)]>);

impl From<Vec<Mapping>> for Mappings {
    fn from(mappings: Vec<Mapping>) -> Self {
        Self(mappings.into_iter().map(|mapping| (mapping, AtomicBool::new(false))).collect())
    }
}

impl Mappings {
    /// The first mapping that fits this end of a connection.
    fn fitting(&self, owner: Owner, address: Option<&Address>, end: &UnpairedEnd) -> Option<&Mapping> {
        let (mapping, matched) = self.0.iter().find(|(mapping, _)| mapping.fits(owner, address, end))?;
        // No other memory access depends on this flag.
        matched.store(true, Ordering::Relaxed);
        Some(mapping)
    }

    /// The mappings that have rewritten nothing.
    pub fn unmatched(&self) -> impl Iterator<Item = &Mapping> {
        self.0.iter().filter(|(_, matched)| !matched.load(Ordering::Relaxed)).map(|(mapping, _)| mapping)
    }
}

/// One end of a connection, before both ends get the same address family.
struct UnpairedEnd {
    address: SocketAddr,
    made_up: bool,
    /// Whether a [`Mapping`] rewrote the address.
    rewritten: bool,
}

/// Gives connections their endpoints, and keeps apart connections that are open at the same time.
#[derive(Debug, Default)]
pub struct EndpointTable {
    mappings: Mappings,
    /// Tuples of connections that are open now, the lower address first.
    open: HashSet<AddressPair>,
}

impl EndpointTable {
    /// Creates a table that rewrites addresses with the first of `mappings` that fits.
    #[must_use]
    pub fn new(mappings: impl Into<Mappings>) -> Self {
        Self { mappings: mappings.into(), open: HashSet::new() }
    }

    /// Gives endpoints to a connection of the source named `source`, until [`EndpointTable::close`].
    pub fn open(&mut self, source: &str, opening: &Opening) -> Endpoints {
        let endpoints = self.assign(source, opening);
        self.reserve(source, opening, endpoints)
    }

    /// Gives a connection its [assigned](EndpointTable::assign) endpoints, or others if these are taken, until
    /// [`EndpointTable::close`].
    pub fn reserve(&mut self, source: &str, opening: &Opening, mut endpoints: Endpoints) -> Endpoints {
        self.keep_apart(source, opening, &mut endpoints);
        endpoints
    }

    /// Releases the endpoints of a connection that is over.
    pub fn close(&mut self, endpoints: &Endpoints) {
        self.open.remove(&ordered(endpoints));
    }

    /// The endpoints of a connection, without regard to other connections that are open.
    #[must_use]
    pub fn assign(&self, source: &str, opening: &Opening) -> Endpoints {
        let mut endpoints = Endpoints {
            local: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
            remote: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
            notes: Vec::new(),
            names: Vec::new(),
            faults: Vec::new(),
            recorded: false,
            kept_apart: false,
        };
        let connection = &opening.connection;
        let local_ip = known_ip(connection.local.as_ref());
        let remote_ip = known_ip(connection.remote.as_ref());
        let connection_hash =
            stable_hash(&[source.as_bytes(), &opening.trace_id.to_le_bytes(), &opening.place.message.to_le_bytes()]);
        let unconnected = opening.is_unconnected_cluster();
        let mut end = |owner: Owner, address: Option<&Address>, other: Option<IpAddr>, is_client: bool| {
            let v6 = other.is_some_and(|ip| ip.is_ipv6());
            let server_port = if opening.http.is_some() { HTTP_PORT } else { SERVER_PORT };
            let made_up = MadeUp { is_client, v6, connection_hash, server_port };
            self.end(owner, address, &made_up, unconnected, &mut endpoints)
        };
        let upstream = opening.role == Role::Upstream;
        let local = end(Owner::Local, connection.local.as_ref(), remote_ip, upstream);
        let remote = end(Owner::Remote, connection.remote.as_ref(), local_ip, !upstream);
        (endpoints.local, endpoints.remote) = (local.address, remote.address);
        endpoints.recorded = !local.made_up && !remote.made_up;
        let local_ip = local.address.ip().to_canonical();
        let remote_ip = remote.address.ip().to_canonical();
        if local_ip.is_ipv4() == remote_ip.is_ipv4() {
            endpoints.local.set_ip(local_ip);
            endpoints.remote.set_ip(remote_ip);
        } else {
            endpoints.local.set_ip(mapped(local_ip));
            endpoints.remote.set_ip(mapped(remote_ip));
            endpoints.notes.push(AddressNote::Mapped);
        }
        if endpoints.local == endpoints.remote {
            let (both, rewritten) = (endpoints.local, local.rewritten || remote.rewritten);
            endpoints.faults.push(Fact::SameAddress { both, rewritten });
        }
        endpoints
    }

    fn end(
        &self,
        owner: Owner,
        address: Option<&Address>,
        made_up: &MadeUp,
        unconnected: bool,
        out: &mut Endpoints,
    ) -> UnpairedEnd {
        let faults = out.faults.len();
        let mut end = match address {
            None => {
                let address = made_up.endpoint("");
                out.notes.push(AddressNote::Missing { owner, made_up: address, unconnected });
                UnpairedEnd { address, made_up: true, rewritten: false }
            }
            Some(Address::Socket { address: text, port }) => made_up.socket(owner, text, *port, out),
            Some(named @ (Address::Pipe(_) | Address::Internal { .. })) => {
                let name = named.to_string();
                let address = made_up.endpoint(&name);
                out.notes.push(AddressNote::Named { owner, name: name.clone(), made_up: address });
                out.names.push((address.ip(), name));
                UnpairedEnd { address, made_up: true, rewritten: false }
            }
        };
        if let Some(mapping) = self.mappings.fitting(owner, address, &end) {
            let old = end.address;
            let (ip, port) = (mapping.new_address.unwrap_or(old.ip()), mapping.new_port.unwrap_or(old.port()));
            end.address = SocketAddr::new(ip, port);
            end.rewritten = true;
            if mapping.new_address.is_some() {
                end.made_up = false;
                out.names.retain(|(ip, _)| *ip != old.ip());
            }
            // A fault of the trace no longer counts where the user's mapping replaces the faulty part.
            let replaced = |fault: &Fact| match fault.code() {
                Code::BadAddress => mapping.new_address.is_some(),
                Code::BadPort => mapping.new_port.is_some(),
                _ => false,
            };
            let kept = out.faults.drain(faults..).filter(|fault| !replaced(fault)).collect::<Vec<_>>();
            out.faults.extend(kept);
            out.notes.push(AddressNote::Rewritten { owner, old, new: end.address });
        }
        end
    }

    /// Gives a connection another client port while one with the same addresses and ports is open: two Envoys may have
    /// tapped one connection from both ends, and the two recordings are not one TCP stream. A connection whose two ends
    /// are the same gets another port as well, because no tool could tell its directions apart.
    fn keep_apart(&mut self, source: &str, opening: &Opening, endpoints: &mut Endpoints) {
        let old = endpoints.tuple(opening.role).0;
        let mut attempt = 0_u64;
        let same = endpoints.local == endpoints.remote;
        while endpoints.local == endpoints.remote || !self.open.insert(ordered(endpoints)) {
            // Buffered traces share one trace_id. Without the message's index, each would try the ports of all earlier
            // ones.
            let hash = stable_hash(&[
                source.as_bytes(),
                &opening.trace_id.to_le_bytes(),
                &opening.place.message.to_le_bytes(),
                &attempt.to_le_bytes(),
            ]);
            let client = match opening.role {
                Role::Downstream => &mut endpoints.remote,
                Role::Upstream => &mut endpoints.local,
            };
            client.set_port(dynamic_port(hash));
            // If most ports are taken by connections that never end, the client gets another address as well.
            if attempt >= PORT_ATTEMPTS {
                let made_up =
                    MadeUp { is_client: true, v6: client.is_ipv6(), connection_hash: hash, server_port: SERVER_PORT };
                client.set_ip(made_up.ip(""));
            }
            attempt += 1;
        }
        endpoints.kept_apart = attempt > 0;
        if attempt > 0 {
            let new = endpoints.tuple(opening.role).0;
            let from = if same && new.ip() == old.ip() {
                Other::OwnEnd
            } else if new.ip() == old.ip() && opening.http.is_some() && endpoints.recorded {
                Other::Exchange
            } else {
                Other::Connection
            };
            endpoints.notes.push(AddressNote::KeptApart { from, old, new });
        }
    }
}

impl Mapping {
    fn fits(&self, owner: Owner, address: Option<&Address>, end: &UnpairedEnd) -> bool {
        match &self.old {
            Old::Address { ip, zone, port } => {
                end.address.ip().to_canonical() == ip.to_canonical()
                    && port.is_none_or(|port| port == end.address.port())
                    && (zone.is_none() || zone.as_deref() == zone_of(address))
            }
            Old::Port(port) => end.address.port() == *port,
            Old::Name(old) => {
                let without_port =
                    |address: &Address| matches!(address, Address::Socket { address, .. } if address == old);
                end.made_up && address.is_some_and(|address| without_port(address) || address.to_string() == *old)
            }
            Old::MissingLocal => owner == Owner::Local && address.is_none(),
            Old::MissingRemote => owner == Owner::Remote && address.is_none(),
        }
    }
}

/// Makes up the address for one end of a connection.
struct MadeUp {
    is_client: bool,
    v6: bool,
    connection_hash: u64,
    server_port: u16,
}

impl MadeUp {
    fn hash(&self, name: &str) -> u64 {
        if self.is_client { self.connection_hash } else { stable_hash(&[name.as_bytes()]) }
    }

    fn endpoint(&self, name: &str) -> SocketAddr {
        SocketAddr::new(self.ip(name), self.port())
    }

    fn ip(&self, name: &str) -> IpAddr {
        let hash = self.hash(name);
        let half = u8::from(self.is_client);
        if self.v6 {
            let [a, b, c, d] = [48, 32, 16, 0].map(|shift| (hash >> shift) as u16);
            IpAddr::V6(Ipv6Addr::new(0x2001, 2, 0, u16::from(half), a, b, c, d))
        } else {
            // The last byte is not 0 or 255, which people take for a network or a broadcast address.
            let [third, fourth] = [(hash >> 8) as u8, (hash % 254) as u8 + 1];
            IpAddr::V4(Ipv4Addr::new(198, 18 + half, third, fourth))
        }
    }

    fn port(&self) -> u16 {
        if self.is_client { dynamic_port(self.connection_hash >> 32) } else { self.server_port }
    }

    fn socket(&self, owner: Owner, text: &str, port: Option<u32>, out: &mut Endpoints) -> UnpairedEnd {
        let valid_port = port.and_then(|port| u16::try_from(port).ok());
        let port_number = valid_port.unwrap_or_else(|| self.port());
        match (port, valid_port) {
            (_, Some(_)) => {}
            (Some(port), None) => {
                out.faults.push(Fact::BadPort { owner, port, made_up: port_number });
                out.notes.push(AddressNote::BadPort { owner, port, made_up: port_number });
            }
            (None, None) => out.notes.push(AddressNote::NoPort { owner, made_up: port_number }),
        }
        if let Some(ip) = parse_ip(text) {
            return UnpairedEnd { address: SocketAddr::new(ip, port_number), made_up: false, rewritten: false };
        }
        let ip = self.ip(text);
        out.faults.push(Fact::BadAddress { owner, text: text.to_owned(), made_up: ip });
        out.notes.push(AddressNote::BadAddress { owner, text: text.to_owned(), made_up: ip });
        out.names.push((ip, text.to_owned()));
        UnpairedEnd { address: SocketAddr::new(ip, port_number), made_up: true, rewritten: false }
    }
}

fn dynamic_port(hash: u64) -> u16 {
    FIRST_DYNAMIC_PORT + (hash % u64::from(u16::MAX - FIRST_DYNAMIC_PORT)) as u16
}

/// Parses an address of a trace. An IPv4-mapped IPv6 address becomes the IPv4 address that is on the wire. The zone is
/// dropped, because packets carry none.
fn parse_ip(text: &str) -> Option<IpAddr> {
    let text = text.split_once('%').map_or(text, |(address, _zone)| address);
    text.parse::<IpAddr>().ok().map(|ip| ip.to_canonical())
}

fn zone_of(address: Option<&Address>) -> Option<&str> {
    match address {
        Some(Address::Socket { address, .. }) => Some(address.split_once('%')?.1),
        _ => None,
    }
}

fn known_ip(address: Option<&Address>) -> Option<IpAddr> {
    match address {
        Some(Address::Socket { address, .. }) => parse_ip(address),
        _ => None,
    }
}

fn mapped(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(v4) => IpAddr::V6(v4.to_ipv6_mapped()),
        v6 @ IpAddr::V6(_) => v6,
    }
}

fn ordered(endpoints: &Endpoints) -> AddressPair {
    AddressPair(endpoints.local.min(endpoints.remote), endpoints.local.max(endpoints.remote))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::Connection;

    fn socket(address: &str, port: u32) -> Option<Address> {
        Some(Address::Socket { address: address.into(), port: Some(port) })
    }

    fn opening(local: Option<Address>, remote: Option<Address>, role: Role) -> Opening {
        Opening {
            trace_id: 7,
            buffered: false,
            connection: Connection { local, remote },
            role,
            role_given: false,
            place: crate::trace::Place::default(),
            times: crate::timeline::TimesFrom::Recorded,
            http: None,
        }
    }

    fn open(local: Option<Address>, remote: Option<Address>, role: Role) -> Endpoints {
        EndpointTable::default().open("path_7", &opening(local, remote, role))
    }

    #[test]
    fn real_addresses_stay() {
        let endpoints = open(socket("10.0.0.1", 443), socket("192.0.2.9", 50_123), Role::Downstream);
        assert_eq!(endpoints.local, "10.0.0.1:443".parse().unwrap());
        assert_eq!(endpoints.remote, "192.0.2.9:50123".parse().unwrap());
        assert!(endpoints.notes.is_empty() && endpoints.names.is_empty() && endpoints.faults.is_empty());
    }

    #[test]
    fn a_mapped_address_is_the_ipv4_that_was_on_the_wire() {
        let endpoints = open(socket("::ffff:10.0.0.1", 443), socket("::ffff:192.0.2.9", 1), Role::Downstream);
        assert_eq!(endpoints.local, "10.0.0.1:443".parse().unwrap());
        let endpoints = open(socket("::ffff:10.0.0.1", 443), socket("2001:db8::1%eth0", 1), Role::Downstream);
        assert_eq!(endpoints.local, "[::ffff:10.0.0.1]:443".parse().unwrap());
        assert_eq!(endpoints.remote, "[2001:db8::1]:1".parse().unwrap());
    }

    #[test]
    fn a_missing_address_is_of_the_other_sides_family() {
        let v4 = open(None, socket("192.0.2.9", 80), Role::Upstream).local;
        assert!(matches!(v4.ip(), IpAddr::V4(ip) if ip.octets()[..2] == [198, 19]), "{v4}");
        assert!(v4.port() >= FIRST_DYNAMIC_PORT);
        let v6 = open(None, socket("2001:db8::9", 80), Role::Upstream).local;
        assert!(matches!(v6.ip(), IpAddr::V6(ip) if ip.segments()[..4] == [0x2001, 2, 0, 1]), "{v6}");
    }

    #[test]
    fn the_same_socket_path_always_gets_the_same_address() {
        let pipe = || Some(Address::Pipe("/run/app.sock".into()));
        let first = open(pipe(), pipe(), Role::Downstream);
        let second = EndpointTable::default().open("other_9", &opening(None, pipe(), Role::Upstream));
        assert_eq!(first.local, second.remote);
        assert_ne!(first.remote.ip(), first.local.ip());
        assert!(first.names.contains(&(first.local.ip(), "/run/app.sock".into())));
    }

    #[test]
    fn bad_addresses_are_faults_and_get_made_up_ones() {
        let endpoints = open(socket("db.example", 5432), socket("192.0.2.9", 70_000), Role::Downstream);
        let codes: Vec<_> = endpoints.faults.iter().map(Fact::code).collect();
        assert_eq!(codes, [Code::BadAddress, Code::BadPort]);
        assert_eq!(endpoints.local.port(), 5432);
        assert_eq!(endpoints.names, [(endpoints.local.ip(), "db.example".to_owned())]);
    }

    #[test]
    fn mappings_rewrite_addresses_ports_names_and_missing_ones() {
        let map = |text: &str| EndpointTable::new(vec![text.parse().unwrap()]);
        let both = || opening(socket("10.0.0.1", 443), socket("10.0.0.2", 5000), Role::Downstream);
        assert_eq!(map("10.0.0.1=192.0.2.1").open("s", &both()).local, "192.0.2.1:443".parse().unwrap());
        assert_eq!(map("10.0.0.1:443=192.0.2.1:80").open("s", &both()).local, "192.0.2.1:80".parse().unwrap());
        assert_eq!(map("10.0.0.1:444=192.0.2.1:80").open("s", &both()).local, "10.0.0.1:443".parse().unwrap());
        let pipe = opening(None, Some(Address::Pipe("/a=b".into())), Role::Upstream);
        assert_eq!(map("/a=b=192.0.2.1:80").open("s", &pipe).remote, "192.0.2.1:80".parse().unwrap());
        assert_eq!(map("local=192.0.2.1:999").open("s", &pipe).local, "192.0.2.1:999".parse().unwrap());
        let v6 = map("10.0.0.1=[2001:db8::1]").open("s", &both());
        assert_eq!((v6.local.port(), v6.remote), (443, "[::ffff:10.0.0.2]:5000".parse().unwrap()));
    }

    #[test]
    fn mappings_that_cannot_be_understood_are_refused() {
        assert_eq!("10.0.0.1".parse::<Mapping>(), Err(ParseMappingError::NoEquals));
        assert_eq!("=10.0.0.1".parse::<Mapping>(), Err(ParseMappingError::NoOld));
        let not_an_address = ParseMappingError::NotAnAddress("host".into());
        assert_eq!("10.0.0.1=host".parse::<Mapping>(), Err(not_an_address));
    }

    #[test]
    fn connections_with_the_same_addresses_are_kept_apart_while_both_are_open() {
        let mut table = EndpointTable::default();
        let first = table.open("a", &opening(socket("10.0.0.1", 80), socket("10.0.0.2", 5000), Role::Downstream));
        // The other end's Envoy: local and remote swapped.
        let second = table.open("b", &opening(socket("10.0.0.2", 5000), socket("10.0.0.1", 80), Role::Upstream));
        assert_ne!(second.local.port(), 5000);
        assert_eq!(second.remote, first.local);
        assert_eq!(second.notes.len(), 1);
        table.close(&first);
        table.close(&second);
        let third = table.open("c", &opening(socket("10.0.0.1", 80), socket("10.0.0.2", 5000), Role::Downstream));
        assert_eq!((third.local, third.remote), (first.local, first.remote));
    }
}
