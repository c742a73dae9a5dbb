//! Which options make tshark and Wireshark dissect a capture.
//!
//! Wireshark recognises HTTP/1 on every port that no other dissector claims, but HTTP/2 without TLS only on HTTP's own
//! ports. It has to be told of the others. HTTP's dissector shows both versions: it hands a connection over to HTTP/2's
//! at the packet that has the preface. HTTP/2's dissector shows no HTTP/1, but it also shows what comes before the
//! preface.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    net::SocketAddr,
};

use crate::{
    synth::TcpMode,
    timeline::{AddressPair, Endpoints, Protocol, Summary},
};

/// The most options that one command has.
const MAX_OPTIONS: usize = 16;

/// The ports of Wireshark's HTTP dissector, `http.tcp.port`.
const HTTP_PORTS: [u16; 10] = [80, 1900, 2710, 2869, 3128, 3132, 5985, 8080, 8088, 11_371];

/// Ranges of ports on which Wireshark 4.0 takes HTTP/1 for another protocol, or does not dissect it.
#[rustfmt::skip]
const CLAIMED: &[(u16, u16)] = &[
    (7, 7), (13, 13), (19, 23), (25, 25), (37, 37), (42, 43), (49, 49), (53, 53), (70, 70), (79, 79), (88, 88),
    (102, 102), (110, 111), (119, 119), (123, 123), (139, 139), (143, 143), (161, 162), (179, 179), (210, 210),
    (323, 323), (389, 389), (427, 427), (445, 445), (464, 464), (500, 500), (512, 515), (524, 524), (547, 548),
    (554, 554), (564, 564), (587, 587), (639, 639), (647, 647), (674, 674), (705, 705), (854, 854), (862, 862),
    (873, 873), (925, 925), (988, 988), (1080, 1080), (1090, 1090), (1099, 1099), (1102, 1102), (1153, 1153),
    (1194, 1194), (1213, 1213), (1433, 1433), (1533, 1533), (1547, 1547), (1723, 1723), (1861, 1861), (1863, 1863),
    (1883, 1883), (1935, 1935), (2099, 2099), (2123, 2123), (2126, 2126), (2152, 2152), (2234, 2234), (2240, 2240),
    (2269, 2269), (2321, 2322), (2345, 2345), (2401, 2401), (2404, 2404), (2433, 2433), (2501, 2502), (2571, 2571),
    (2575, 2575), (2600, 2600), (2812, 2812), (2944, 2945), (3014, 3014), (3016, 3019), (3245, 3248), (3268, 3268),
    (3288, 3288), (3306, 3306), (3357, 3357), (3369, 3369), (3452, 3452), (3478, 3478), (3632, 3632), (3671, 3671),
    (3724, 3724), (3804, 3804), (3860, 3860), (3863, 3863), (3868, 3868), (3918, 3918), (4002, 4002), (4155, 4155),
    (4189, 4189), (4223, 4223), (4342, 4342), (4420, 4420), (4551, 4551), (4555, 4556), (4712, 4712), (4730, 4730),
    (4739, 4739), (4788, 4788), (4840, 4840), (4880, 4880), (5010, 5010), (5060, 5060), (5084, 5084), (5222, 5222),
    (5253, 5253), (5353, 5353), (5432, 5432), (5445, 5445), (5500, 5501), (5534, 5534), (5672, 5672), (5683, 5683),
    (5701, 5701), (5900, 5901), (5997, 5997), (6000, 6063), (6068, 6068), (6084, 6084), (6121, 6121), (6160, 6160),
    (6346, 6346), (6379, 6379), (6417, 6417), (6653, 6653), (6667, 6668), (6881, 6889), (7000, 7000), (7075, 7075),
    (7171, 7172), (7236, 7236), (7275, 7276), (7871, 7871), (7911, 7911), (8009, 8009), (8023, 8023), (8074, 8074),
    (8085, 8085), (8554, 8554), (8567, 8567), (9009, 9009), (9092, 9092), (9300, 9300), (9418, 9418), (9956, 9956),
    (10288, 10288), (11211, 11211), (13400, 13400), (14001, 14001), (15740, 15740), (17500, 17500), (17755, 17756),
    (19006, 19006), (19042, 19043), (19506, 19506), (19543, 19543), (21064, 21064), (22222, 22222), (24800, 24800),
    (29418, 29418), (34980, 34980), (44321, 44322), (44818, 44818), (48049, 48049), (48898, 48898), (57000, 57000),
];

/// What one server port carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Port {
    http1: bool,
    /// There is HTTP/1 that Wireshark does not recognise on this port.
    claimed: bool,
    http2: bool,
    /// There is HTTP/2 whose server speaks before the preface, which HTTP's dissector misses.
    server_first: bool,
    /// There is HTTP/2 that HTTP's dissector loses, because the packet with the preface ends inside a frame.
    split: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dissector {
    Http,
    Http2,
}

impl Port {
    /// The dissector that shows most of the traffic.
    fn dissector(self) -> Dissector {
        if !self.http1 && (self.server_first || self.split) { Dissector::Http2 } else { Dissector::Http }
    }

    /// Whether Wireshark has to be told which dissector to use.
    fn is_told(self, port: u16) -> bool {
        let own = HTTP_PORTS.contains(&port) && self.dissector() == Dissector::Http;
        (self.http2 || self.claimed) && !own
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
    /// The client ports of HTTP/1, and those of HTTP/2. Wireshark tries them after the server's.
    clients: [PortSet; 2],
    /// The ports of both ends of other connections, which must not be taken for HTTP.
    others: PortSet,
}

impl Hints {
    /// Adds a connection that is over.
    pub(super) fn add(&mut self, summary: &Summary, endpoints: &Endpoints, tcp: TcpMode) {
        let AddressPair(client, server) = endpoints.tuple(summary.opening.role);
        let ends = [client, server].map(|end: SocketAddr| end.port());
        let [client, server] = ends;
        match summary.protocol {
            Protocol::Http1 => {
                let port = self.ports.entry(server).or_default();
                port.http1 = true;
                port.claimed |= ends.iter().any(|port| is_claimed(*port));
                self.clients[0].insert(client);
            }
            Protocol::Http2 | Protocol::Grpc => {
                let preface = summary.preface;
                let port = self.ports.entry(server).or_default();
                port.http2 = true;
                port.server_first |= preface.server_first;
                // In other modes, the preface is in a packet of its own. If it comes in pieces, HTTP/2's dissector does
                // no better.
                port.split |= tcp == TcpMode::Bare && preface.ends_inside && !preface.in_pieces;
                self.clients[1].insert(client);
            }
            _ if summary.sides.iter().any(|side| side.bytes > 0) => self.others.extend(ends),
            _ => {}
        }
    }

    /// Adds the hints of other connections.
    pub(super) fn extend(&mut self, other: &Self) {
        for (number, more) in &other.ports {
            let port = self.ports.entry(*number).or_default();
            port.http1 |= more.http1;
            port.claimed |= more.claimed;
            port.http2 |= more.http2;
            port.server_first |= more.server_first;
            port.split |= more.split;
        }
        self.others.extend(other.others.iter());
        for (clients, more) in self.clients.iter_mut().zip(&other.clients) {
            clients.extend(more.iter());
        }
    }

    /// Whether Wireshark need not be told anything.
    pub(super) fn is_empty(&self) -> bool {
        !self.reads_twice() && !self.ports.iter().any(|(number, port)| port.is_told(*number))
    }

    /// Whether tshark needs a second pass over the capture to show everything: in the first pass, it reaches what a
    /// server sends first before it has seen the preface.
    pub(super) fn reads_twice(&self) -> bool {
        self.ports.values().any(|port| port.server_first && port.dissector() == Dissector::Http)
    }

    /// Options of tshark and Wireshark, each with a space before it.
    pub(super) fn options(&self) -> String {
        let mut ranges: Vec<_> = [(Dissector::Http, "http"), (Dissector::Http2, "http2")]
            .into_iter()
            .flat_map(|(dissector, name)| self.ranges(dissector).into_iter().map(move |range| (range, name)))
            .collect();
        ranges.truncate(MAX_OPTIONS);
        let mut options = String::new();
        for ((first, last), name) in ranges {
            // Writing to a String cannot fail.
            let _ = match first == last {
                true => write!(options, " -d tcp.port=={first},{name}"),
                false => write!(options, " -d tcp.port=={first}-{last},{name}"),
            };
        }
        options
    }

    /// The fewest ranges that cover all ports of this dissector and no port that must not go to it.
    fn ranges(&self, dissector: Dissector) -> Vec<(u16, u16)> {
        let is_mine = |port: &Port| port.dissector() == dissector;
        let mut mine =
            self.ports.iter().filter(|(number, port)| port.is_told(**number) && is_mine(port)).map(|(n, _)| *n);
        let mut barriers: BTreeSet<u16> = self.others.iter().collect();
        barriers.extend(self.ports.iter().filter(|(_, port)| !is_mine(port)).map(|(number, _)| *number));
        if dissector == Dissector::Http2 {
            barriers.extend(self.clients[0].iter());
        }
        if self.ports.values().any(|port| !is_mine(port)) {
            barriers.extend(self.clients[1].iter());
        }
        let Some(first) = mine.next() else { return Vec::new() };
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
        let port = Port { http2: true, ..Port::default() };
        Self { ports: ports.iter().map(|number| (*number, port)).collect(), ..Self::default() }
    }
}

fn is_claimed(port: u16) -> bool {
    let after = CLAIMED.partition_point(|(first, _)| *first <= port);
    after > 0 && port <= CLAIMED[after - 1].1
}

#[cfg(test)]
mod tests {
    use super::*;

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
        mixed.ports.insert(20_000, Port { http2: true, server_first: true, ..Port::default() });
        mixed.clients[1].insert(40_000);
        assert_eq!(mixed.options(), " -d tcp.port==10000-10005,http -d tcp.port==50051,http -d tcp.port==20000,http2");
        assert!(!mixed.reads_twice());
        mixed.ports.insert(20_000, Port { http1: true, http2: true, server_first: true, ..Port::default() });
        assert_eq!(mixed.options(), " -d tcp.port==1-65535,http");
        assert!(mixed.reads_twice());
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

    #[test]
    fn claimed_ports_are_in_order() {
        assert!(CLAIMED.iter().all(|(first, last)| first <= last));
        assert!(CLAIMED.windows(2).all(|pair| pair[0].1 < pair[1].0));
        assert!([7, 6000, 6063, 9092].into_iter().all(is_claimed));
        assert!(![1, 80, 8080, 10_000, 65_535].into_iter().any(is_claimed));
    }
}
