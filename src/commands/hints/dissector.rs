//! Wireshark's dissectors, and the ports on which it uses them without being told.

use crate::timeline::Protocol;

/// The ports of Wireshark's HTTP dissector, `http.tcp.port`.
const HTTP_PORTS: [u16; 10] = [80, 1900, 2710, 2869, 3128, 3132, 5985, 8080, 8088, 11_371];

/// Ranges of ports on which Wireshark 4.0 takes whatever comes for another protocol, or does not dissect it: HTTP/1, TLS
/// and Thrift on each of them were shown to it. Then those on which it does so with one of them alone.
#[rustfmt::skip]
const CLAIMED: &[(u16, u16)] = &[
    (7, 7), (13, 13), (19, 23), (25, 25), (37, 37), (42, 43), (49, 49), (53, 53), (70, 70), (79, 79), (88, 88),
    (102, 102), (110, 111), (119, 119), (123, 123), (139, 139), (161, 162), (179, 179), (210, 210), (323, 323),
    (389, 389), (427, 427), (445, 445), (464, 464), (512, 515), (524, 524), (547, 548), (554, 554), (564, 564),
    (587, 587), (639, 639), (647, 647), (705, 705), (854, 854), (862, 862), (873, 873), (925, 925), (988, 988),
    (1080, 1080), (1090, 1090), (1099, 1099), (1102, 1102), (1153, 1153), (1194, 1194), (1213, 1213), (1433, 1433),
    (1533, 1533), (1547, 1547), (1723, 1723), (1861, 1861), (1863, 1863), (1883, 1883), (1935, 1935), (2099, 2099),
    (2126, 2126), (2234, 2234), (2240, 2240), (2269, 2269), (2321, 2322), (2401, 2401), (2404, 2404), (2433, 2433),
    (2502, 2502), (2571, 2571), (2575, 2575), (2600, 2600), (2812, 2812), (2944, 2945), (3014, 3014), (3016, 3019),
    (3245, 3248), (3268, 3268), (3288, 3288), (3306, 3306), (3357, 3357), (3369, 3369), (3452, 3452), (3478, 3478),
    (3632, 3632), (3671, 3671), (3724, 3724), (3804, 3804), (3860, 3860), (3863, 3863), (3868, 3868), (3918, 3918),
    (4002, 4002), (4155, 4155), (4189, 4189), (4223, 4223), (4342, 4342), (4420, 4420), (4551, 4551), (4555, 4556),
    (4712, 4712), (4730, 4730), (4739, 4739), (4788, 4788), (4840, 4840), (4880, 4880), (5010, 5010), (5060, 5060),
    (5084, 5084), (5222, 5222), (5253, 5253), (5353, 5353), (5432, 5432), (5445, 5445), (5500, 5501), (5534, 5534),
    (5672, 5672), (5683, 5683), (5701, 5701), (5900, 5901), (5997, 5997), (6000, 6063), (6068, 6068), (6084, 6084),
    (6121, 6121), (6160, 6160), (6346, 6346), (6379, 6379), (6417, 6417), (6653, 6653), (6667, 6668), (6881, 6889),
    (7000, 7000), (7075, 7075), (7171, 7172), (7236, 7236), (7275, 7276), (7871, 7871), (7911, 7911), (8009, 8009),
    (8023, 8023), (8074, 8074), (8085, 8085), (8554, 8554), (8567, 8567), (9009, 9009), (9092, 9092), (9300, 9300),
    (9418, 9418), (9956, 9956), (10288, 10288), (11211, 11211), (13400, 13400), (14001, 14001), (15740, 15740),
    (17500, 17500), (17755, 17756), (19006, 19006), (19042, 19043), (19506, 19506), (19543, 19543), (21064, 21064),
    (24800, 24800), (29418, 29418), (34980, 34980), (44321, 44322), (44818, 44818), (48049, 48049), (48898, 48898),
    (57000, 57000),
];
#[rustfmt::skip]
const CLAIMED_FROM_HTTP: &[(u16, u16)] = &[
    (143, 143), (500, 500), (674, 674), (2123, 2123), (2152, 2152), (2345, 2345), (2501, 2501), (22222, 22222),
];
#[rustfmt::skip]
const CLAIMED_FROM_TLS: &[(u16, u16)] = &[
    (80, 80), (500, 500), (631, 631), (1344, 1344), (1900, 1900), (2123, 2123), (2152, 2152), (2345, 2345),
    (2710, 2710), (2869, 2869), (3002, 3003), (3006, 3006), (3128, 3128), (3132, 3132), (3386, 3386), (3689, 3689),
    (4222, 4222), (4249, 4250), (5000, 5000), (5094, 5094), (5985, 5985), (8080, 8080), (8088, 8088), (11371, 11371),
];
#[rustfmt::skip]
const CLAIMED_FROM_THRIFT: &[(u16, u16)] = &[
    (80, 80), (143, 143), (324, 324), (443, 443), (465, 465), (631, 631), (636, 636), (802, 802), (853, 853),
    (993, 993), (995, 995), (1300, 1300), (1344, 1344), (1755, 1755), (1900, 1900), (1998, 1998), (2221, 2221),
    (2443, 2443), (2710, 2710), (2869, 2869), (3002, 3003), (3006, 3006), (3050, 3050), (3128, 3128), (3132, 3132),
    (3249, 3252), (3496, 3496), (3567, 3567), (3689, 3689), (4222, 4222), (4249, 4250), (5000, 5000), (5061, 5061),
    (5094, 5094), (5671, 5671), (5684, 5684), (5868, 5868), (5985, 5985), (8080, 8080), (8088, 8088), (8883, 8883),
    (9955, 9955), (10000, 10000), (11207, 11207), (11371, 11371), (19999, 19999), (27017, 27017),
];

/// A dissector of Wireshark, in the order in which a command has their options.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Dissector {
    Http,
    Http2,
    Tls,
    Thrift,
    Redis,
    Postgres,
    MySql,
    MongoDb,
    Kafka,
    Memcached,
    Mqtt,
    Amqp,
    Ssh,
    Smtp,
}

impl Dissector {
    pub(super) const ALL: [Self; 14] = [
        Self::Http,
        Self::Http2,
        Self::Tls,
        Self::Thrift,
        Self::Redis,
        Self::Postgres,
        Self::MySql,
        Self::MongoDb,
        Self::Kafka,
        Self::Memcached,
        Self::Mqtt,
        Self::Amqp,
        Self::Ssh,
        Self::Smtp,
    ];

    /// A protocol's dissector, if Wireshark has one. What goes on in TLS is handed over by the first protocol's.
    pub(super) fn of(protocol: Protocol) -> Option<Self> {
        Some(match protocol {
            Protocol::Http1 | Protocol::WebSocket => Self::Http,
            Protocol::Http2 | Protocol::Grpc => Self::Http2,
            Protocol::Tls => Self::Tls,
            Protocol::Thrift => Self::Thrift,
            Protocol::Redis => Self::Redis,
            Protocol::Postgres => Self::Postgres,
            Protocol::MySql => Self::MySql,
            Protocol::MongoDb => Self::MongoDb,
            Protocol::Kafka => Self::Kafka,
            Protocol::Memcached => Self::Memcached,
            Protocol::Mqtt => Self::Mqtt,
            Protocol::Amqp => Self::Amqp,
            Protocol::Ssh => Self::Ssh,
            Protocol::Smtp => Self::Smtp,
            Protocol::Unknown | Protocol::Dubbo | Protocol::ZooKeeper => return None,
        })
    }

    /// The name that an option has.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Http2 => "http2",
            Self::Tls => "tls",
            Self::Thrift => "thrift",
            Self::Redis => "resp",
            Self::Postgres => "pgsql",
            Self::MySql => "mysql",
            Self::MongoDb => "mongo",
            Self::Kafka => "kafka",
            Self::Memcached => "memcache",
            Self::Mqtt => "mqtt",
            Self::Amqp => "amqp",
            Self::Ssh => "ssh",
            Self::Smtp => "smtp",
        }
    }

    /// The dissector that shows this one's connections too.
    pub(super) fn family(self) -> Self {
        if self == Self::Http2 { Self::Http } else { self }
    }

    /// The ports that Wireshark 4.0 gives to it. MongoDB's own is not among them: with MongoDB over TLS, Wireshark takes
    /// it for TLS.
    pub(super) fn ports(self) -> &'static [u16] {
        match self {
            Self::Http => &HTTP_PORTS,
            Self::Http2 | Self::Tls | Self::Thrift | Self::MongoDb => &[],
            Self::Redis => &[6379],
            Self::Postgres => &[5432],
            Self::MySql => &[3306],
            Self::Kafka => &[9092],
            Self::Memcached => &[11_211],
            Self::Mqtt => &[1883],
            Self::Amqp => &[5672],
            Self::Ssh => &[22, 29_418],
            Self::Smtp => &[25, 587],
        }
    }

    /// Whether it does not come to see a port, although it tells its protocol by the bytes, because Wireshark gives the
    /// port to another dissector.
    pub(super) fn is_kept_from(self, port: u16) -> bool {
        let by_others = match self {
            Self::Http => CLAIMED_FROM_HTTP,
            Self::Tls => CLAIMED_FROM_TLS,
            Self::Thrift => CLAIMED_FROM_THRIFT,
            _ => return false,
        };
        is_in(CLAIMED, port) || is_in(by_others, port)
    }

    /// Whether it shows what follows bytes that it cannot read, such as a proxy's header.
    pub(super) fn resumes(self) -> bool {
        match self {
            Self::Http | Self::Http2 | Self::Redis | Self::Memcached | Self::Ssh | Self::Smtp => true,
            // These show at least what the server sends.
            Self::Postgres | Self::MySql => true,
            Self::Tls | Self::Thrift | Self::MongoDb | Self::Kafka | Self::Mqtt | Self::Amqp => false,
        }
    }
}

fn is_in(ranges: &[(u16, u16)], port: u16) -> bool {
    let after = ranges.partition_point(|(first, _)| *first <= port);
    after > 0 && port <= ranges[after - 1].1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claimed_ports_are_in_order() {
        for ranges in [CLAIMED, CLAIMED_FROM_HTTP, CLAIMED_FROM_TLS, CLAIMED_FROM_THRIFT] {
            assert!(ranges.iter().all(|(first, last)| first <= last));
            assert!(ranges.windows(2).all(|pair| pair[0].1 < pair[1].0));
        }
        assert!([7, 6000, 6063, 9092].into_iter().all(|port| Dissector::Http.is_kept_from(port)));
        assert!(![1, 80, 8080, 10_000, 65_535].into_iter().any(|port| Dissector::Http.is_kept_from(port)));
    }

    #[test]
    fn every_dissector_has_its_options() {
        assert!(Dissector::ALL.is_sorted());
        assert_eq!(Dissector::ALL.last(), Some(&Dissector::Smtp));
    }
}
