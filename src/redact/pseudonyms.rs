//! What stands for names and addresses, by what the user has asked for.

use std::{
    borrow::Cow,
    net::{IpAddr, SocketAddr},
};

use super::{Counts, Kind, Redaction};
use crate::{timeline::Pseudonyms, trace::Address};

impl Redaction {
    /// What is shown of the path of a trace.
    pub(crate) fn file<'a>(&self, path: &'a str) -> Cow<'a, str> {
        match &self.addresses {
            Some(addresses) if self.names => Cow::Owned(addresses.file(path)),
            _ => Cow::Borrowed(path),
        }
    }

    /// What is shown of a `trace_id`.
    pub(crate) fn trace_id(&self, trace_id: u64) -> u64 {
        match &self.addresses {
            Some(addresses) if self.names => addresses.trace_id(trace_id),
            _ => trace_id,
        }
    }

    /// Replaces an address of a trace.
    pub(crate) fn address(&self, address: &mut Address, counts: &mut Counts) {
        let Some(addresses) = &self.addresses else { return };
        let (new, kind) = match &*address {
            Address::Socket { address: text, port } => {
                // A zone is the name of a network interface.
                let (ip, zone) = text.split_once('%').map_or((&**text, None), |(ip, zone)| (ip, Some(zone)));
                match ip.parse::<IpAddr>() {
                    Ok(ip) => {
                        let zone = zone.filter(|_| !self.names).map(|zone| format!("%{zone}")).unwrap_or_default();
                        let new = format!("{}{zone}", addresses.ip(ip));
                        (Address::Socket { address: new, port: *port }, Kind::Address)
                    }
                    Err(_) => (Address::Socket { address: self.host_text(text).into_owned(), port: *port }, Kind::Name),
                }
            }
            named @ (Address::Pipe(_) | Address::Internal { .. }) => {
                (Address::Pipe(addresses.name(&named.to_string(), self.names).into_owned()), Kind::Name)
            }
        };
        if new.to_string() != address.to_string() {
            counts.add(kind, 1);
            *address = new;
        }
    }

    /// What stands for text where an address should be, which is a host's name or nothing that makes sense.
    fn host_text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        match &self.addresses {
            Some(addresses) if self.names => Cow::Owned(addresses.host(text.as_bytes())),
            Some(addresses) => addresses.name(text, false),
            None => Cow::Borrowed(text),
        }
    }

    /// Says that and how something was redacted, and never what was there.
    pub(crate) fn describe(&self) -> String {
        let mut words =
            String::from("redacted by tap2pcap: values of secret fields, of URLs and of forms are asterisks");
        let mut list = |before: &str, names: &std::collections::HashSet<Vec<u8>>| {
            let mut names: Vec<_> = names.iter().map(|name| String::from_utf8_lossy(name)).collect();
            names.sort_unstable();
            if !names.is_empty() {
                words += &format!("; {before} {}", names.join(", "));
            }
        };
        list("so are those of", &self.secret_fields);
        list("but not those of", &self.kept_fields);
        if self.bodies {
            words += "; so are bodies";
        }
        if self.keep_unknown {
            words += "; bytes that are not understood are kept";
        }
        if self.addresses.is_some() {
            words += "; IP addresses are replaced";
        }
        if self.addresses.is_some() && self.names {
            words += "; names of hosts, sockets and files are replaced";
        }
        words
    }
}

impl Pseudonyms for Redaction {
    fn ip(&self, ip: SocketAddr) -> SocketAddr {
        match &self.addresses {
            Some(addresses) => SocketAddr::new(addresses.ip(ip.ip()), ip.port()),
            None => ip,
        }
    }

    fn socket<'a>(&self, name: &'a str) -> Cow<'a, str> {
        self.addresses.as_ref().map_or(Cow::Borrowed(name), |addresses| addresses.name(name, self.names))
    }

    fn host<'a>(&self, text: &'a str) -> Cow<'a, str> {
        self.host_text(text)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::addresses::tests::KEY, *};
    use crate::redact::Addresses;

    #[test]
    fn addresses_of_a_trace_are_replaced() {
        let show = |address: Address, names: bool| {
            let redaction = Redaction { addresses: Addresses::new(KEY).ok(), names, ..Redaction::default() };
            let mut address = address;
            redaction.address(&mut address, &mut Counts::default());
            address.to_string()
        };
        let socket = |address: &str| Address::Socket { address: address.into(), port: Some(80) };
        let addresses = Addresses::new(KEY).unwrap();
        assert_eq!(show(socket("192.0.2.1"), false), "100.115.72.131:80");
        let v6 = "c180:5dd4:2587:3524:30ab:fa65:6ab6:f88";
        assert_eq!(show(socket("2001:db8::1%eth0"), false), format!("[{v6}%eth0]:80"));
        assert_eq!(show(socket("2001:db8::1%eth0"), true), format!("[{v6}]:80"));
        assert_eq!(show(socket("db.example"), false), "db.example:80");
        assert_eq!(show(socket("db.example"), true), addresses.host(b"db.example") + ":80");
        assert_eq!(show(Address::Pipe("/run/192.0.2.1".into()), false), "/run/100.115.72.131");
        assert_eq!(show(Address::Pipe("/run/a".into()), true), addresses.socket("/run/a"));
        let internal = Address::Internal { listener: "in".into(), endpoint: String::new() };
        assert_eq!(show(internal, true), addresses.socket("envoy:in"));
    }

    #[test]
    fn the_description_says_what_was_asked_for() {
        let secret_fields = [b"x-b".to_vec(), b"x-a".to_vec()].into_iter().collect();
        let redaction = Redaction { secret_fields, bodies: true, ..Redaction::default() };
        let expected = "redacted by tap2pcap: values of secret fields, of URLs and of forms are asterisks; \
                        so are those of x-a, x-b; so are bodies";
        assert_eq!(redaction.describe(), expected);
    }
}
