//! Addresses and names, replaced by others that are the same in every run with the same key.
//!
//! Two addresses that begin with the same bits get addresses that begin with as many equal bits, and no more: the mode
//! ipcrypt-pfx of the IETF draft draft-denis-ipcrypt. A name becomes a hash of it, which needs the key: without one, who
//! guesses a name could confirm it.

use std::{
    borrow::Cow,
    collections::HashMap,
    fmt,
    net::{IpAddr, Ipv6Addr},
    ops::Range,
    sync::{PoisonError, RwLock},
};

use ipcrypt_rs::IpcryptPfx;

use super::{
    Counts, Kind,
    key::{self, KeyError, NameHash},
    mask, scan,
};

/// How many addresses are remembered with what replaces them.
const MAX_KNOWN: usize = 1 << 16;

/// The suffixes of traces, archives and what packs them, which say nothing about what is inside.
const SUFFIXES: [&str; 17] = [
    "pb",
    "pb_length_delimited",
    "pb_text",
    "json",
    "jsonl",
    "ndjson",
    "txt",
    "log",
    "bin",
    "gz",
    "zst",
    "bz2",
    "xz",
    "tar",
    "tgz",
    "zip",
    "har",
];

/// Fields whose values are addresses or hosts, with or without ports, between commas.
const HOSTS: [&[u8]; 16] = [
    b"host",
    b":authority",
    b"x-forwarded-host",
    b"x-forwarded-server",
    b"x-original-host",
    b"x-host",
    b"x-forwarded-for",
    b"x-original-forwarded-for",
    b"x-real-ip",
    b"x-client-ip",
    b"x-cluster-client-ip",
    b"true-client-ip",
    b"cf-connecting-ip",
    b"x-envoy-external-address",
    b"x-envoy-original-dst-host",
    b"x-envoy-original-host",
];

/// Fields of Envoy and Istio whose values are made of names of hosts, services and pods.
const NAMES: [&[u8]; 5] = [
    b"x-envoy-peer-metadata-id",
    b"x-envoy-downstream-service-cluster",
    b"x-envoy-downstream-service-node",
    b"x-envoy-decorator-operation",
    b"x-envoy-upstream-service-cluster",
];

/// The field in which Istio sends addresses and names in base64 of protobuf.
const PEER_METADATA: &[u8] = b"x-envoy-peer-metadata";

/// Replaces IP addresses, prefix-preservingly, and names.
pub struct Addresses {
    cipher: IpcryptPfx,
    names: NameHash,
    known: RwLock<HashMap<IpAddr, IpAddr>>,
}

impl fmt::Debug for Addresses {
    /// Does not show the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Addresses").finish_non_exhaustive()
    }
}

/// What stands in the place of a stretch of text.
struct Edit {
    range: Range<usize>,
    new: Vec<u8>,
    kind: Kind,
}

impl Addresses {
    /// With the key that a file has: 64 hexadecimal digits, or 32 bytes.
    ///
    /// # Errors
    /// The content is no key.
    pub(crate) fn new(key_file: &[u8]) -> Result<Self, KeyError> {
        let key = key::read(key_file)?;
        Ok(Self { cipher: IpcryptPfx::new(key), names: NameHash::new(&key), known: RwLock::default() })
    }

    /// What stands in the place of an address. Addresses that this program makes up stay, and so does one that says that
    /// there is none. An IPv4 address in the form of an IPv6 address is replaced as what it is.
    pub(crate) fn ip(&self, ip: IpAddr) -> IpAddr {
        if is_kept(ip) {
            return ip;
        }
        if let IpAddr::V6(v6) = ip
            && let Some(v4) = v6.to_ipv4_mapped()
        {
            return match self.ip(IpAddr::V4(v4)) {
                IpAddr::V4(v4) => IpAddr::V6(v4.to_ipv6_mapped()),
                v6 @ IpAddr::V6(_) => v6,
            };
        }
        if let Some(known) = self.known.read().unwrap_or_else(PoisonError::into_inner).get(&ip) {
            return *known;
        }
        let new = self.cipher.encrypt_ipaddr(ip);
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        known.insert(ip, new);
        new
    }

    /// What stands in the place of the name of a host, which is compared without regard to case.
    pub(crate) fn host(&self, host: &[u8]) -> String {
        let host = host.strip_suffix(b".").unwrap_or(host).to_ascii_lowercase();
        self.pseudonym("host", &host)
    }

    /// What stands in the place of the path of a socket, or of another name that a trace has instead of an address.
    pub(crate) fn socket(&self, name: &str) -> String {
        self.pseudonym("socket", name.as_bytes())
    }

    /// What stands in the place of the path of a trace: each part is replaced by itself, and suffixes of traces stay.
    pub(crate) fn file(&self, path: &str) -> String {
        let part = |name: &str| match name {
            "" | "-" | "." | ".." => name.to_owned(),
            _ => self.pseudonym("trace", name.as_bytes()) + suffixes(name),
        };
        path.split('/').map(part).collect::<Vec<_>>().join("/")
    }

    /// What stands in the place of a `trace_id`: 63 bits, which all programs can read.
    pub(crate) fn trace_id(&self, trace_id: u64) -> u64 {
        self.names.of("trace_id", &trace_id.to_be_bytes()) >> 1
    }

    /// The kind, and 40 bits of the hash.
    fn pseudonym(&self, kind: &str, name: &[u8]) -> String {
        format!("{kind}-{:010x}", self.names.of(kind, name) >> 24)
    }

    /// Replaces the addresses and, if `names`, the host names in the value of a field.
    pub(crate) fn field(&self, name: &[u8], value: &mut Vec<u8>, names: bool, counts: &mut Counts) {
        let is = |other: &[u8]| name.eq_ignore_ascii_case(other);
        if is(PEER_METADATA) {
            mask(value);
            counts.add(Kind::Name, u64::from(!value.is_empty()));
            return;
        }
        let mut hosts = Vec::new();
        if names {
            if HOSTS.into_iter().any(is) {
                parts(value, b",", |range| hosts.push(scan::host(value, range)));
            } else if is(b"via") {
                via(value, &mut hosts);
            } else if is(b"forwarded") {
                attributes(value, b";,", |name, range| {
                    if [b"host".as_slice(), b"for", b"by"].iter().any(|known| name.eq_ignore_ascii_case(known)) {
                        hosts.push(scan::host(value, range));
                    }
                });
            } else if is(b"set-cookie") {
                attributes(value, b";", |name, range| {
                    hosts.extend(name.eq_ignore_ascii_case(b"domain").then_some(range));
                });
            } else if NAMES.into_iter().any(is) {
                parts(value, b"~,;/= \t", |range| hosts.push(scan::host(value, range)));
            }
        }
        self.replace(value, hosts, names, counts);
    }

    /// Replaces the address or the host name of an absolute URL or of an authority in a request target, and those in its
    /// path and query.
    pub(crate) fn target(&self, target: &mut Vec<u8>, names: bool, counts: &mut Counts) {
        let is_path = matches!(target.first(), None | Some(b'/' | b'*' | b'?'));
        let is_url = memchr::memmem::find(target, b"://").is_some();
        // That of CONNECT (RFC 9112 section 3.2.3).
        let authority = (names && !is_path && !is_url).then(|| scan::host(target, 0..target.len()));
        self.replace(target, authority.into_iter().collect(), names, counts);
    }

    /// Replaces the addresses and, if `names`, the hosts of URLs in any text.
    pub(crate) fn text(&self, text: &mut Vec<u8>, names: bool, counts: &mut Counts) {
        self.replace(text, Vec::new(), names, counts);
    }

    /// Replaces these hosts, which are in their order, and what else is found.
    fn replace(&self, text: &mut Vec<u8>, hosts: Vec<Range<usize>>, names: bool, counts: &mut Counts) {
        let plain = scan::Plain::new(text);
        let mut of_urls = Vec::new();
        if names {
            scan::authorities(&plain.bytes, |range| of_urls.push(plain.raw(&scan::host(&plain.bytes, range))));
        }
        let hosts = merged(hosts, of_urls).into_iter().filter_map(|range| self.name_edit(text, range));
        let mut addresses = Vec::new();
        scan::addresses(&plain.bytes, |range, ip| addresses.extend(self.ip_edit(text, plain.raw(&range), ip)));
        let mut edits: Vec<Edit> = hosts.collect();
        edits.extend(addresses);
        // A host comes before an address at its beginning, because the sort is stable.
        edits.sort_by_key(|edit| edit.range.start);
        let mut new = Vec::new();
        let mut done = 0;
        for edit in edits {
            // An address in a host that is replaced is gone with it.
            let Some(between) = text.get(done..edit.range.start) else { continue };
            new.extend_from_slice(between);
            new.extend(edit.new);
            done = edit.range.end;
            counts.add(edit.kind, 1);
        }
        if done > 0 {
            new.extend_from_slice(text.get(done..).unwrap_or_default());
            *text = new;
        }
    }

    /// The pseudonym of a host, unless it is an address, or says nothing.
    fn name_edit(&self, text: &[u8], range: Range<usize>) -> Option<Edit> {
        let raw = text.get(range.clone())?;
        let plain = scan::Plain::new(raw);
        let host = plain.bytes.trim_ascii();
        let says_nothing = host.iter().all(|byte| !byte.is_ascii_alphanumeric() && byte.is_ascii())
            // What RFC 7239 section 6 has in place of addresses.
            || host.eq_ignore_ascii_case(b"unknown")
            || host.starts_with(b"_");
        if says_nothing || scan::is_address(host) {
            return None;
        }
        Some(Edit { range, new: self.host(host).into_bytes(), kind: Kind::Name })
    }

    fn ip_edit(&self, text: &[u8], range: Range<usize>, ip: IpAddr) -> Option<Edit> {
        let new = self.ip(ip);
        if new == ip {
            return None;
        }
        let old = text.get(range.clone()).unwrap_or_default();
        // As often as it was.
        let level = memchr::memmem::find_iter(old, b"%25")
            .next()
            .map_or(0, |at| old.get(at + 1..).unwrap_or_default().chunks(2).take_while(|code| code == b"25").count());
        let colon = format!("%{}3A", "25".repeat(level));
        let new = new.to_string();
        let new = if old.contains(&b'%') { new.replace(':', &colon) } else { new };
        Some(Edit { range, new: new.into_bytes(), kind: Kind::Address })
    }

    /// An address or a name as text, such as the text of a trace where an address should be.
    pub(crate) fn name<'a>(&self, name: &'a str, names: bool) -> Cow<'a, str> {
        if names {
            return Cow::Owned(self.socket(name));
        }
        let mut text = name.as_bytes().to_vec();
        self.text(&mut text, false, &mut Counts::default());
        String::from_utf8(text).map_or(Cow::Borrowed(name), Cow::Owned)
    }
}

/// Addresses that this program makes up, or that stand for none.
fn is_kept(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_unspecified() || matches!(v4.octets(), [198, 18 | 19, ..]),
        IpAddr::V6(v6) => v6.is_unspecified() || is_made_up_v6(v6),
    }
}

fn is_made_up_v6(ip: Ipv6Addr) -> bool {
    ip.segments().starts_with(&[0x2001, 2, 0])
}

/// The suffixes at the end of a name that are those of traces.
fn suffixes(name: &str) -> &str {
    let mut start = name.len();
    while let Some((before, suffix)) = name.get(..start).and_then(|name| name.rsplit_once('.'))
        && SUFFIXES.contains(&suffix)
    {
        start = before.len();
    }
    name.get(start..).unwrap_or_default()
}

/// Two lists of ranges as one, in order.
fn merged(mut one: Vec<Range<usize>>, other: Vec<Range<usize>>) -> Vec<Range<usize>> {
    one.extend(other);
    one.sort_by_key(|range| range.start);
    one
}

/// The parts of a value between any of these bytes, without blanks and quotation marks.
fn parts(value: &[u8], between: &[u8], mut each: impl FnMut(Range<usize>)) {
    let mut at = 0;
    for part in value.split(|byte| between.contains(byte)) {
        each(trimmed(value, at..at + part.len()));
        at += part.len() + 1;
    }
}

/// A part without blanks and quotation marks around it.
fn trimmed(value: &[u8], range: Range<usize>) -> Range<usize> {
    let part = value.get(range.clone()).unwrap_or_default();
    let is_around = |byte: &&u8| matches!(**byte, b' ' | b'\t' | b'"');
    let before = part.iter().take_while(is_around).count();
    let after = part.iter().skip(before).rev().take_while(is_around).count();
    range.start + before..range.end - after
}

/// The attributes `name=value` of a value.
fn attributes(value: &[u8], between: &[u8], mut each: impl FnMut(&[u8], Range<usize>)) {
    parts(value, between, |range| {
        let Some(attribute) = value.get(range.clone()) else { return };
        let Some(equals) = memchr::memchr(b'=', attribute) else { return };
        each(attribute[..equals].trim_ascii(), trimmed(value, range.start + equals + 1..range.end));
    });
}

/// The hosts in `via` (RFC 9110 section 7.6.3): the second word of each part.
fn via(value: &[u8], hosts: &mut Vec<Range<usize>>) {
    parts(value, b",", |range| {
        let part = value.get(range.clone()).unwrap_or_default();
        let Some(blank) = part.iter().position(u8::is_ascii_whitespace) else { return };
        let blanks = part[blank..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        let start = range.start + blank + blanks;
        let len = part[blank + blanks..].iter().take_while(|byte| !byte.is_ascii_whitespace()).count();
        hosts.push(scan::host(value, start..start + len));
    });
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(in crate::redact) const KEY: &[u8] = b"0123456789abcdeffedcba98765432101032547698badcfeefcdab8967452301\n";

    /// Of the draft's appendix "Test Vectors", those of prefix preservation.
    const OTHER_KEY: &[u8] = b"2b7e151628aed2a6abf7158809cf4f3ca9f5ba40db214c3798f2e1c23456789a";

    fn addresses() -> Addresses {
        Addresses::new(KEY).unwrap()
    }

    fn field(name: &str, value: &str, names: bool) -> String {
        let mut value = value.as_bytes().to_vec();
        addresses().field(name.as_bytes(), &mut value, names, &mut Counts::default());
        String::from_utf8(value).unwrap()
    }

    fn target(target: &str, names: bool) -> String {
        let mut target = target.as_bytes().to_vec();
        addresses().target(&mut target, names, &mut Counts::default());
        String::from_utf8(target).unwrap()
    }

    #[test]
    fn addresses_are_those_of_the_drafts_vectors() {
        for (key, ip, expected) in [
            (KEY, "255.255.255.255", "94.185.169.89"),
            (KEY, "192.0.2.1", "100.115.72.131"),
            (KEY, "2001:db8::1", "c180:5dd4:2587:3524:30ab:fa65:6ab6:f88"),
            (OTHER_KEY, "10.0.0.47", "19.214.210.244"),
            (OTHER_KEY, "10.0.0.129", "19.214.210.80"),
            (OTHER_KEY, "10.0.0.234", "19.214.210.30"),
            (OTHER_KEY, "172.16.5.193", "210.78.229.136"),
            (OTHER_KEY, "172.16.97.42", "210.78.179.241"),
            (OTHER_KEY, "2001:db8::a5c9:4e2f:bb91:5a7d", "7cec:702c:1243:f70:1956:125:b9bd:1aba"),
            (OTHER_KEY, "2001:db8:9f27::b4e2:7a3d:5f91:c8e6", "7cec:702c:a504:b74e:194a:3d90:b047:2d1a"),
        ] {
            let addresses = Addresses::new(key).unwrap();
            let (ip, expected): (IpAddr, IpAddr) = (ip.parse().unwrap(), expected.parse().unwrap());
            assert_eq!([addresses.ip(ip), addresses.ip(ip)], [expected; 2]);
        }
    }

    #[test]
    fn made_up_addresses_and_none_stay() {
        for ip in ["0.0.0.0", "::", "198.18.0.1", "198.19.255.254", "2001:2::1", "2001:2:0:1::9", "::ffff:198.18.0.1"] {
            let ip: IpAddr = ip.parse().unwrap();
            assert_eq!(addresses().ip(ip), ip);
        }
        let mapped: IpAddr = "::ffff:192.0.2.1".parse().unwrap();
        assert_eq!(addresses().ip(mapped).to_string(), "::ffff:100.115.72.131");
    }

    #[test]
    fn the_key_is_not_shown() {
        assert_eq!(format!("{:?}", addresses()), "Addresses { .. }");
    }

    #[test]
    fn addresses_in_fields_are_replaced() {
        for (name, value, expected) in [
            ("x-forwarded-for", "192.0.2.1, 2001:db8::1", "100.115.72.131, c180:5dd4:2587:3524:30ab:fa65:6ab6:f88"),
            ("x-anything", "a=192.0.2.1:80;b", "a=100.115.72.131:80;b"),
            ("Forwarded", "for=192.0.2.1;host=h:1", "for=100.115.72.131;host=h:1"),
            (
                "forwarded",
                "for=\"[2001:db8::1]:443\";by=_x",
                "for=\"[c180:5dd4:2587:3524:30ab:fa65:6ab6:f88]:443\";by=_x",
            ),
            ("via", "1.1 192.0.2.1:80 (x)", "1.1 100.115.72.131:80 (x)"),
            ("host", "[2001:db8::1]:80", "[c180:5dd4:2587:3524:30ab:fa65:6ab6:f88]:80"),
            ("location", "http://192.0.2.1/?r=192.0.2.1", "http://100.115.72.131/?r=100.115.72.131"),
            ("x-envoy-peer-metadata", "CgsKBWhvc3Q=", "************"),
            ("user-agent", "curl/8.5.0", "curl/8.5.0"),
            ("x-any", "ip192.0.2.1, 192.0.2.1ms", "ip100.115.72.131, 100.115.72.131ms"),
            (
                "x-any",
                "u=%5B2001%3Adb8%3A%3A1%5D&v=2001%253Adb8%253A%253A1",
                "u=%5Bc180%3A5dd4%3A2587%3A3524%3A30ab%3Afa65%3A6ab6%3Af88%5D\
                 &v=c180%253A5dd4%253A2587%253A3524%253A30ab%253Afa65%253A6ab6%253Af88",
            ),
        ] {
            assert_eq!(field(name, value, false), expected, "{name}");
        }
    }

    #[test]
    fn host_names_are_replaced_wherever_they_are() {
        let host = addresses().host(b"Shop.Example.");
        assert_eq!(host, addresses().host(b"shop.example"));
        assert!(host.starts_with("host-") && host.len() == 15);
        for (name, value, expected) in [
            ("host", "shop.example:8080", "HOST:8080"),
            (":authority", "SHOP.example", "HOST"),
            ("x-forwarded-host", "shop.example, shop.example:1", "HOST, HOST:1"),
            ("x-forwarded-for", "unknown, 192.0.2.1, shop.example", "unknown, 100.115.72.131, HOST"),
            ("x-real-ip", "2001:2::1", "2001:2::1"),
            ("x-real-ip", "2001:2:0:0:0:0:0:1:443", "2001:2:0:0:0:0:0:1:443"),
            ("x-real-ip", "2001:2::1%eth0", "2001:2::1%eth0"),
            ("host", "198.18.0.1:80", "198.18.0.1:80"),
            ("host", "[2001:2::1]:80", "[2001:2::1]:80"),
            ("origin", "https://shop.example", "https://HOST"),
            ("origin", "null", "null"),
            (
                "referer",
                "http://u:p@shop.example:80/p?u=http%3A%2F%2Fshop%2Eexample%2F",
                "http://u:p@HOST:80/p?u=http%3A%2F%2FHOST%2F",
            ),
            ("location", "/path", "/path"),
            ("referer", "//shop.example/x//y", "//HOST/x//y"),
            ("link", "<//shop.example/x>; rel=next", "<//HOST/x>; rel=next"),
            ("referer", "/x?u=http%253A%252F%252Fshop.example%252F", "/x?u=http%253A%252F%252FHOST%252F"),
            (
                "forwarded",
                "for=_h;Host=\"shop.example:80\", for=192.0.2.1",
                "for=_h;Host=\"HOST:80\", for=100.115.72.131",
            ),
            ("via", "1.1 shop.example:80 (x y), 2 shop.example", "1.1 HOST:80 (x y), 2 HOST"),
            ("set-cookie", "a=b; Domain=shop.example; Path=/", "a=b; Domain=HOST; Path=/"),
            ("x-envoy-peer-metadata-id", "shop.example~192.0.2.1", "HOST~100.115.72.131"),
            ("x-envoy-decorator-operation", "shop.example:80/*", "HOST:80/*"),
            ("accept", "text/html", "text/html"),
        ] {
            assert_eq!(field(name, value, true), expected.replace("HOST", &host), "{name}: {value}");
        }
    }

    #[test]
    fn targets_are_replaced() {
        let host = addresses().host(b"shop.example");
        for (text, expected) in [
            ("/a?ip=192.0.2.1", "/a?ip=100.115.72.131"),
            ("*", "*"),
            ("http://192.0.2.1:80/", "http://100.115.72.131:80/"),
            ("192.0.2.1:443", "100.115.72.131:443"),
            ("shop.example:443", "HOST:443"),
            ("http://shop.example/a/b", "http://HOST/a/b"),
            ("/?to=https%3a%2f%2fshop.example%2fx", "/?to=https%3a%2f%2fHOST%2fx"),
            ("/?ip=2001%3Adb8%3A%3A1", "/?ip=c180%3A5dd4%3A2587%3A3524%3A30ab%3Afa65%3A6ab6%3Af88"),
        ] {
            assert_eq!(target(text, true), expected.replace("HOST", &host), "{text}");
        }
        assert_eq!(target("shop.example:443", false), "shop.example:443");
    }

    #[test]
    fn names_of_files_keep_the_suffixes_of_traces() {
        let addresses = addresses();
        let file = addresses.file("path_0.pb_text.gz");
        assert!(file.starts_with("trace-") && file.ends_with(".pb_text.gz") && file.len() == 16 + 11, "{file}");
        assert_eq!(addresses.file("../path_0.pb_text.gz"), format!("../{file}"));
        assert_eq!(addresses.file("-"), "-");
        assert_eq!(addresses.file("trace.customer").len(), 16);
        let id = addresses.trace_id(7);
        assert!(id != 7 && id < 1 << 63 && id != addresses.trace_id(8));
    }

    #[test]
    fn what_is_replaced_is_counted() {
        let mut counts = Counts::default();
        let mut value = b"http://192.0.2.1/ http://shop.example/ 198.18.0.1".to_vec();
        addresses().field(b"x", &mut value, true, &mut counts);
        assert_eq!((counts.of(Kind::Address), counts.of(Kind::Name)), (1, 1));
    }

    proptest! {
        #[test]
        fn common_prefixes_stay_and_are_no_longer(one: u32, other: u32, len in 0..33_u32) {
            let rest = u32::MAX.checked_shr(len).unwrap_or(0);
            let other = one & !rest | other & rest;
            let ip = |bits: u32| IpAddr::from(bits.to_be_bytes());
            prop_assume!(![one, other].map(ip).into_iter().any(is_kept));
            let bits = |bits: u32| match addresses().ip(ip(bits)) {
                IpAddr::V4(ip) => ip.to_bits(),
                IpAddr::V6(_) => panic!("another family"),
            };
            prop_assert_eq!((bits(one) ^ bits(other)).leading_zeros(), (one ^ other).leading_zeros());
        }

        #[test]
        fn no_value_makes_it_panic(
            name in prop::sample::select(vec!["host", "via", "forwarded", "set-cookie", "x-envoy-peer-metadata-id", "x"]),
            value in prop::collection::vec(prop::sample::select(b"1.:%3A/[]@=;,\"~ \xffax".as_slice()), 0..60),
            names: bool,
        ) {
            let addresses = addresses();
            let (mut field, mut target) = (value.clone(), value);
            addresses.field(name.as_bytes(), &mut field, names, &mut Counts::default());
            addresses.target(&mut target, names, &mut Counts::default());
        }
    }
}
