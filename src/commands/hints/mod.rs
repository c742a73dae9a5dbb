//! Which options make tshark and Wireshark dissect a capture.
//!
//! Wireshark tells HTTP/1, TLS and Thrift by their bytes on every port that no other dissector claims. Everything else it
//! dissects only on the protocol's own ports, and has to be told of others. HTTP's dissector shows both versions: it
//! hands a connection over to HTTP/2's at the packet that has the preface. HTTP/2's dissector shows no HTTP/1, but it also
//! shows what comes before the preface.

mod dissector;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use self::dissector::Dissector;
use crate::{
    synth::TcpMode,
    timeline::{AddressPair, Endpoints, Protocol, Summary},
};

/// The most options that one command has.
const MAX_OPTIONS: usize = 16;

/// The connections of one server port that speak the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Use {
    connections: u64,
    /// There is one that Wireshark does not dissect by itself.
    needed: bool,
}

/// What one server port carries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Port {
    /// By the dissector of each protocol. Hardly any port has more than one.
    uses: Vec<(Dissector, Use)>,
    /// There is HTTP/2 whose server speaks before the preface, which HTTP's dissector misses.
    server_first: bool,
    /// There is HTTP/2 that HTTP's dissector loses, because the packet with the preface ends inside a frame.
    split: bool,
}

impl Port {
    fn add(&mut self, dissector: Dissector, more: Use) {
        let place = self.uses.iter().position(|(other, _)| *other == dissector).unwrap_or_else(|| {
            self.uses.push((dissector, Use::default()));
            self.uses.len() - 1
        });
        let known = &mut self.uses[place].1;
        known.connections = known.connections.saturating_add(more.connections);
        known.needed |= more.needed;
    }

    fn has(&self, dissector: Dissector) -> bool {
        self.uses.iter().any(|(other, _)| *other == dissector)
    }

    /// The dissector that shows most of the connections. A port has one option.
    fn dissector(&self) -> Option<Dissector> {
        let mut counts = BTreeMap::new();
        for (dissector, known) in &self.uses {
            *counts.entry(dissector.family()).or_insert(0_u64) += known.connections;
        }
        // Of two with as many connections, the first counts.
        let most = counts.into_iter().rev().max_by_key(|(_, connections)| *connections)?.0;
        let only_http2 = !self.has(Dissector::Http) && (self.server_first || self.split);
        Some(if most == Dissector::Http && only_http2 { Dissector::Http2 } else { most })
    }

    /// Whether Wireshark has to be told which dissector to use.
    fn is_told(&self, port: u16) -> bool {
        let Some(dissector) = self.dissector() else { return false };
        let is_needed = |(other, known): &(Dissector, Use)| other.family() == dissector.family() && known.needed;
        self.uses.iter().any(is_needed) && !dissector.ports().contains(&port)
    }
}

/// Port numbers that are collected one by one, most of them several times, and read once. That is why they are sorted
/// late: to insert each of them into a tree takes longer than all else about its connection's hints.
#[derive(Clone, Debug, Default)]
struct PortSet {
    /// The first [`PortSet::sorted`] of them are sorted, each once.
    numbers: Vec<u16>,
    sorted: usize,
}

impl PortSet {
    /// How many numbers may wait to be sorted, at least.
    const WAITING: usize = 1024;

    fn insert(&mut self, number: u16) {
        self.numbers.push(number);
        // Sorting costs little for each number, because at least as many have come as are sorted.
        if self.numbers.len() >= 2 * self.sorted + Self::WAITING {
            self.numbers.sort_unstable();
            self.numbers.dedup();
            self.sorted = self.numbers.len();
        }
    }

    fn iter(&self) -> impl Iterator<Item = u16> {
        self.numbers.iter().copied()
    }
}

impl Extend<u16> for PortSet {
    fn extend<T: IntoIterator<Item = u16>>(&mut self, numbers: T) {
        numbers.into_iter().for_each(|number| self.insert(number));
    }
}

/// Which ports Wireshark has to be told about. Its size is bounded, because there are only 65,536 ports.
#[derive(Clone, Debug, Default)]
pub(super) struct Hints {
    ports: BTreeMap<u16, Port>,
    /// The client ports of each protocol. Wireshark tries them after the server's.
    clients: BTreeMap<Dissector, PortSet>,
    /// The ports of both ends of other connections, which must not go to any dissector.
    others: PortSet,
}

impl Hints {
    /// Adds a connection that is over.
    pub(super) fn add(&mut self, summary: &Summary, endpoints: &Endpoints, tcp: TcpMode) {
        let AddressPair(client, server) = endpoints.tuple(summary.opening.role);
        let ends = [client, server].map(|end: SocketAddr| end.port());
        let [client, server] = ends;
        let (protocol, preface) = (summary.speech.protocol, summary.speech.preface);
        let known = Dissector::of(protocol).filter(|dissector| {
            // Wireshark tells a proxy's header by its bytes, which an option would prevent. It is worth that only for a
            // dissector that finds the next message, and if the option is needed at all.
            summary.speech.proxy.is_none() || (dissector.resumes() && !is_found(protocol))
        });
        let Some(dissector) = known else {
            if summary.sides.iter().any(|side| side.bytes > 0) {
                self.others.extend(ends);
            }
            return;
        };
        let needed = !is_found(protocol) || ends.iter().any(|port| dissector.is_kept_from(*port));
        let port = self.ports.entry(server).or_default();
        port.add(dissector, Use { connections: 1, needed });
        if dissector == Dissector::Http2 {
            port.server_first |= preface.server_first;
            // In other modes, the preface is in a packet of its own. If it comes in pieces, HTTP/2's dissector does no
            // better.
            port.split |= tcp == TcpMode::Bare && preface.ends_inside && !preface.in_pieces;
        }
        self.clients.entry(dissector).or_default().insert(client);
    }

    /// Adds the hints of other connections.
    pub(super) fn extend(&mut self, other: &Self) {
        for (number, more) in &other.ports {
            let port = self.ports.entry(*number).or_default();
            more.uses.iter().for_each(|(dissector, more)| port.add(*dissector, *more));
            port.server_first |= more.server_first;
            port.split |= more.split;
        }
        self.others.extend(other.others.iter());
        for (dissector, more) in &other.clients {
            self.clients.entry(*dissector).or_default().extend(more.iter());
        }
    }

    /// Whether Wireshark need not be told anything.
    pub(super) fn is_empty(&self) -> bool {
        !self.reads_twice() && !self.ports.iter().any(|(number, port)| port.is_told(*number))
    }

    /// Whether tshark needs a second pass over the capture to show everything: in the first pass, it reaches what a
    /// server sends first before it has seen the preface.
    pub(super) fn reads_twice(&self) -> bool {
        self.ports.values().any(|port| port.server_first && port.dissector() == Some(Dissector::Http))
    }

    /// Options of tshark and Wireshark for a shell, each with a space before it.
    pub(super) fn options(&self) -> String {
        self.arguments().iter().map(|argument| format!(" {argument}")).collect()
    }

    /// Options of tshark and Wireshark, one word each.
    pub(super) fn arguments(&self) -> Vec<String> {
        let mut ranges: Vec<_> = Dissector::ALL.iter().map(|dissector| (*dissector, self.ranges(*dissector))).collect();
        // If there are too many, each dissector keeps some.
        while ranges.iter().map(|(_, ranges)| ranges.len()).sum::<usize>() > MAX_OPTIONS
            && let Some((_, most)) = ranges.iter_mut().max_by_key(|(_, ranges)| ranges.len())
        {
            most.pop();
        }
        let mut arguments = Vec::new();
        for (dissector, ranges) in ranges {
            for (first, last) in ranges {
                let name = dissector.name();
                let ports = if first == last { first.to_string() } else { format!("{first}-{last}") };
                arguments.extend(["-d".to_owned(), format!("tcp.port=={ports},{name}")]);
            }
        }
        arguments
    }

    /// The fewest ranges that cover all ports of this dissector and no port that must not go to it.
    fn ranges(&self, dissector: Dissector) -> Vec<(u16, u16)> {
        let is_mine = |port: &Port| port.dissector() == Some(dissector);
        let mut mine =
            self.ports.iter().filter(|(number, port)| port.is_told(**number) && is_mine(port)).map(|(n, _)| *n);
        let Some(first) = mine.next() else { return Vec::new() };
        let mut barriers: BTreeSet<u16> = self.others.iter().collect();
        barriers.extend(self.ports.iter().filter(|(_, port)| !is_mine(port)).map(|(number, _)| *number));
        for (other, clients) in &self.clients {
            if self.ports.values().any(|port| port.has(*other) && !is_mine(port)) {
                barriers.extend(clients.iter());
            }
        }
        let mut ranges = vec![(first, first)];
        for port in mine {
            match ranges.last_mut() {
                Some((_, last)) if barriers.range(*last..=port).next().is_none() => *last = port,
                _ => ranges.push((port, port)),
            }
        }
        if barriers.is_empty() && ranges.iter().any(|(first, last)| first != last) {
            ranges = vec![(1, u16::MAX)];
        }
        ranges
    }

    #[cfg(test)]
    pub(super) fn of_http2(ports: &[u16]) -> Self {
        let mut hints = Self::default();
        for number in ports {
            hints.ports.entry(*number).or_default().add(Dissector::Http2, Use { connections: 1, needed: true });
        }
        hints
    }
}

/// Whether Wireshark tells a protocol by its bytes, on ports that no other dissector claims.
fn is_found(protocol: Protocol) -> bool {
    matches!(protocol, Protocol::Http1 | Protocol::WebSocket | Protocol::Tls | Protocol::Thrift)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEEDED: Use = Use { connections: 1, needed: true };

    /// A port with HTTP/2 whose server speaks first.
    fn server_first() -> Port {
        let mut port = Port { server_first: true, ..Port::default() };
        port.add(Dissector::Http2, NEEDED);
        port
    }

    #[test]
    fn options_are_few_and_none_names_the_port_of_another_protocol() {
        let several = Hints::of_http2(&[10_000, 10_005, 50_051]);
        assert_eq!(several.options(), " -d tcp.port==1-65535,http");
        let beside = |others: &[u16]| {
            let mut beside = several.clone();
            beside.others.extend(others.iter().copied());
            beside.options()
        };
        assert_eq!(beside(&[5432, 60_000]), " -d tcp.port==10000-50051,http");
        assert_eq!(beside(&[5432, 40_000]), " -d tcp.port==10000-10005,http -d tcp.port==50051,http");
        // The server speaks first on one of them, which has nothing but HTTP/2.
        let mut mixed = several.clone();
        mixed.ports.insert(20_000, server_first());
        mixed.clients.entry(Dissector::Http2).or_default().insert(40_000);
        assert_eq!(mixed.options(), " -d tcp.port==10000-10005,http -d tcp.port==50051,http -d tcp.port==20000,http2");
        assert!(!mixed.reads_twice());
        mixed.ports.get_mut(&20_000).unwrap().add(Dissector::Http, Use::default());
        assert_eq!(mixed.options(), " -d tcp.port==1-65535,http");
        assert!(mixed.reads_twice());
    }

    #[test]
    fn each_protocol_has_ranges_of_its_own() {
        let mut hints = Hints::of_http2(&[10_000, 10_005]);
        for (port, dissector) in [(7001, Dissector::Kafka), (7002, Dissector::Kafka), (10_002, Dissector::Redis)] {
            hints.ports.entry(port).or_default().add(dissector, NEEDED);
        }
        let http = " -d tcp.port==10000,http -d tcp.port==10005,http";
        assert_eq!(hints.options(), format!("{http} -d tcp.port==10002,resp -d tcp.port==7001-7002,kafka"));
        // A client of Redis has a port between those of Kafka; one of Kafka may have any.
        hints.clients.entry(Dissector::Kafka).or_default().extend([7001, 7002]);
        assert!(hints.options().ends_with("7001-7002,kafka"), "{}", hints.options());
        hints.clients.entry(Dissector::Redis).or_default().insert(7002);
        assert!(hints.options().ends_with(" -d tcp.port==7001,kafka -d tcp.port==7002,kafka"), "{}", hints.options());
        // A port has the dissector of most of its connections, and none if that one is Wireshark's own choice.
        let port = hints.ports.get_mut(&7001).unwrap();
        port.add(Dissector::Tls, Use { connections: 2, needed: false });
        assert_eq!((port.dissector(), port.is_told(7001)), (Some(Dissector::Tls), false));
        let redis = |number: u16| Hints { ports: [(number, hints.ports[&10_002].clone())].into(), ..Hints::default() };
        assert_eq!((redis(6379).is_empty(), redis(6380).is_empty()), (true, false));
    }

    #[test]
    fn if_there_are_too_many_options_each_protocol_keeps_some() {
        let mut hints = Hints::of_http2(&(0..100).map(|number| 10_000 + 10 * number).collect::<Vec<u16>>());
        for number in 0..100 {
            hints.ports.entry(10_005 + 10 * number).or_default().add(Dissector::Redis, NEEDED);
        }
        hints.ports.entry(7000).or_default().add(Dissector::Kafka, NEEDED);
        let options = hints.options();
        let count = |name: &str| options.split(" -d ").filter(|option| option.ends_with(name)).count();
        assert_eq!((options.matches("-d").count(), count(",kafka")), (MAX_OPTIONS, 1), "{options}");
        assert!(count(",http") >= 7 && count(",resp") >= 7, "{options}");
    }

    #[test]
    fn ports_that_come_again_and_again_are_kept_a_few_times() {
        let mut ports = PortSet::default();
        for number in (0..300_000_u32).map(|number| (number * 7 % 65_537) as u16) {
            ports.insert(number);
        }
        assert!(ports.numbers.len() < 2 * 65_536 + PortSet::WAITING, "{}", ports.numbers.len());
        assert_eq!(ports.iter().collect::<BTreeSet<_>>().len(), 65_536);
    }
}
