//! Rules of the user, `OLD=NEW`, that rewrite addresses and ports.

use std::{
    borrow::Cow,
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use thiserror::Error;

use super::endpoint::UnpairedEnd;
use crate::trace::{Address, Owner};

/// A rule that rewrites addresses, `OLD=NEW`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// The rule as the user wrote it.
    text: String,
    old: Old,
    /// A new address or port that is `None` keeps the old one.
    pub(super) new_address: Option<IpAddr>,
    pub(super) new_port: Option<u16>,
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

/// What stands for addresses and names in packets, after the user's rules.
pub(crate) trait Pseudonyms: fmt::Debug + Send + Sync {
    /// What stands for an IP address. A made-up one stays.
    fn ip(&self, address: SocketAddr) -> SocketAddr;

    /// What stands for the path of a socket, or for another name that a trace has instead of an address.
    fn socket<'a>(&self, name: &'a str) -> Cow<'a, str>;

    /// What stands for text where a trace should have an IP address.
    fn host<'a>(&self, text: &'a str) -> Cow<'a, str>;
}

/// All [`Mapping`]s of a run, and which of them have rewritten anything so far in any input and thread.
#[derive(Clone, Debug, Default)]
pub struct Mappings {
    rules: Arc<[(Mapping, AtomicBool)]>,
    /// What replaces the addresses that the rules leave or give.
    pseudonyms: Option<Arc<dyn Pseudonyms>>,
}

impl From<Vec<Mapping>> for Mappings {
    fn from(mappings: Vec<Mapping>) -> Self {
        let rules = mappings.into_iter().map(|mapping| (mapping, AtomicBool::new(false))).collect();
        Self { rules, pseudonyms: None }
    }
}

impl Mappings {
    /// Replaces addresses and names as well, after the rules.
    #[must_use]
    pub(crate) fn with_pseudonyms(self, pseudonyms: Arc<dyn Pseudonyms>) -> Self {
        Self { pseudonyms: Some(pseudonyms), ..self }
    }

    /// What replaces addresses and names.
    pub(super) fn pseudonyms(&self) -> Option<&dyn Pseudonyms> {
        self.pseudonyms.as_deref()
    }

    /// The first mapping that fits this end of a connection.
    pub(super) fn fitting(&self, owner: Owner, address: Option<&Address>, end: &UnpairedEnd) -> Option<&Mapping> {
        let (mapping, matched) = self.rules.iter().find(|(mapping, _)| mapping.fits(owner, address, end))?;
        // No other memory access depends on this flag.
        matched.store(true, Ordering::Relaxed);
        Some(mapping)
    }

    /// The mappings that have rewritten nothing.
    pub fn unmatched(&self) -> impl Iterator<Item = &Mapping> {
        self.rules.iter().filter(|(_, matched)| !matched.load(Ordering::Relaxed)).map(|(mapping, _)| mapping)
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

fn zone_of(address: Option<&Address>) -> Option<&str> {
    match address {
        Some(Address::Socket { address, .. }) => Some(address.split_once('%')?.1),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_that_cannot_be_understood_are_refused() {
        assert_eq!("10.0.0.1".parse::<Mapping>(), Err(ParseMappingError::NoEquals));
        assert_eq!("=10.0.0.1".parse::<Mapping>(), Err(ParseMappingError::NoOld));
        let not_an_address = ParseMappingError::NotAnAddress("host".into());
        assert_eq!("10.0.0.1=host".parse::<Mapping>(), Err(not_an_address));
    }
}
