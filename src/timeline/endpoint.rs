//! Addresses for packets: those of the trace, rewritten as the user asked, and made-up ones where the trace has none.
//!
//! Made-up addresses come from the ranges reserved for benchmarking, 198.18.0.0/15 (RFC 2544) and 2001:2::/48
//! (RFC 5180). A server's is in the lower half and depends on its name, so that the same socket path always gets the
//! same address. A client's is in the upper half and depends on the connection.

use std::{
    borrow::Cow,
    collections::HashSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use super::{AddressPair, Mappings, Opening, Role, hash::stable_hash};
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
    /// A [`Mapping`](super::Mapping) rewrote the address.
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
    /// The tapped socket that carried the exchange of an HTTP tap.
    Socket,
    /// A connection with the same addresses that is open at the same time.
    Connection,
}

/// One end of a connection, before both ends get the same address family.
pub(super) struct UnpairedEnd {
    pub(super) address: SocketAddr,
    pub(super) made_up: bool,
    /// Whether a [`Mapping`](super::Mapping) rewrote the address.
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
        let connection_hash = &|| {
            stable_hash(&[source.as_bytes(), &opening.trace_id.to_le_bytes(), &opening.place.message.to_le_bytes()])
        };
        let unconnected = opening.is_unconnected_cluster();
        let mut end = |owner: Owner, address: Option<&Address>, [ip, other]: [Option<IpAddr>; 2], is_client: bool| {
            let v6 = other.is_some_and(|ip| ip.is_ipv6());
            let server_port = if opening.http.is_some() { HTTP_PORT } else { SERVER_PORT };
            let made_up = MadeUp { is_client, v6, connection_hash, server_port };
            self.end(owner, (address, ip), &made_up, unconnected, &mut endpoints)
        };
        let upstream = opening.role == Role::Upstream;
        let local = end(Owner::Local, connection.local.as_ref(), [local_ip, remote_ip], upstream);
        let remote = end(Owner::Remote, connection.remote.as_ref(), [remote_ip, local_ip], !upstream);
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
        (address, ip): (Option<&Address>, Option<IpAddr>),
        made_up: &MadeUp<'_>,
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
            Some(Address::Socket { address: text, port }) => {
                let shown = match self.mappings.pseudonyms() {
                    Some(pseudonyms) if ip.is_none() => pseudonyms.host(text),
                    _ => Cow::Borrowed(text.as_str()),
                };
                made_up.socket(owner, (&shown, ip), *port, out)
            }
            Some(named @ (Address::Pipe(_) | Address::Internal { .. })) => {
                let name = named.to_string();
                // Who guesses the name must not be able to confirm it by the address.
                let name = self.mappings.pseudonyms().map_or(name.clone(), |other| other.socket(&name).into_owned());
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
            let shown = |address| self.mappings.pseudonyms().map_or(address, |pseudonyms| pseudonyms.ip(address));
            out.notes.push(AddressNote::Rewritten { owner, old: shown(old), new: shown(end.address) });
        }
        if let Some(pseudonyms) = self.mappings.pseudonyms() {
            end.address = pseudonyms.ip(end.address);
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
        // The socket is in the capture, or was until just now.
        let of_socket = opening.http.as_ref().is_some_and(|http| http.of_socket);
        while attempt == 0 && of_socket || endpoints.local == endpoints.remote || !self.open.insert(ordered(endpoints))
        {
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
                let (v6, connection_hash) = (client.is_ipv6(), &|| hash);
                let made_up = MadeUp { is_client: true, v6, connection_hash, server_port: SERVER_PORT };
                client.set_ip(made_up.ip(""));
            }
            attempt += 1;
        }
        endpoints.kept_apart = attempt > 0;
        if attempt > 0 {
            let new = endpoints.tuple(opening.role).0;
            let from = if same && new.ip() == old.ip() {
                Other::OwnEnd
            } else if of_socket && new.ip() == old.ip() {
                Other::Socket
            } else if new.ip() == old.ip() && opening.http.is_some() && endpoints.recorded {
                Other::Exchange
            } else {
                Other::Connection
            };
            endpoints.notes.push(AddressNote::KeptApart { from, old, new });
        }
    }
}

/// Makes up the address for one end of a connection.
struct MadeUp<'a> {
    is_client: bool,
    v6: bool,
    /// A function, because most connections need no made-up address.
    connection_hash: &'a dyn Fn() -> u64,
    server_port: u16,
}

impl MadeUp<'_> {
    fn hash(&self, name: &str) -> u64 {
        if self.is_client { (self.connection_hash)() } else { stable_hash(&[name.as_bytes()]) }
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
        if self.is_client { dynamic_port((self.connection_hash)() >> 32) } else { self.server_port }
    }

    fn socket(
        &self,
        owner: Owner,
        (text, ip): (&str, Option<IpAddr>),
        port: Option<u32>,
        out: &mut Endpoints,
    ) -> UnpairedEnd {
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
        if let Some(ip) = ip {
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
    let parse = |text: &str| text.parse::<IpAddr>().ok();
    let ip = parse(text).or_else(|| text.split_once('%').and_then(|(address, _zone)| parse(address)))?;
    Some(ip.to_canonical())
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
