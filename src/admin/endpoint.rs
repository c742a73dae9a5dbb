//! Where the admin endpoint is.

use std::{fmt, path::PathBuf, str::FromStr};

use crate::untrusted;

/// The address of an admin endpoint, as Envoy's bootstrap has it under `admin`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// `http://HOST:PORT`. The host of an IPv6 address has no brackets here.
    Tcp {
        /// A name or an address.
        host: String,
        /// Never 0.
        port: u16,
    },
    /// `unix:PATH`, or `unix:@NAME` for an abstract name on Linux.
    Unix(PathBuf),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "http://[{}]:{port}", untrusted::escape(host)),
            Self::Tcp { host, port } => write!(f, "http://{}:{port}", untrusted::escape(host)),
            Self::Unix(path) => write!(f, "unix:{}", untrusted::escape(&path.to_string_lossy())),
        }
    }
}

/// What an endpoint looks like, for error messages.
const EXPECTED: &str = "expected http://HOST:PORT, such as http://127.0.0.1:9901, or unix:PATH";

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            // `unix://` is how other programs write it: what follows is the path all the same.
            let path = path.strip_prefix("//").unwrap_or(path);
            return match path {
                "" | "@" => Err(format!("the path of the socket is missing; {EXPECTED}")),
                path if path.contains('\0') => Err("the path of the socket has a NUL byte in it".into()),
                path => Ok(Self::Unix(path.into())),
            };
        }
        let (scheme, rest) = text.split_once("://").ok_or_else(|| EXPECTED.to_owned())?;
        if scheme.eq_ignore_ascii_case("https") {
            return Err("Envoy's admin endpoint speaks no TLS: write http://".into());
        }
        if !scheme.eq_ignore_ascii_case("http") {
            return Err(EXPECTED.into());
        }
        let (authority, path) = rest.find(['/', '?', '#']).map_or((rest, ""), |at| rest.split_at(at));
        if !matches!(path, "" | "/") {
            return Err(format!(
                "leave out the path {}: tap2pcap knows those of the admin endpoint",
                untrusted::escape(path)
            ));
        }
        if authority.contains('@') {
            return Err("Envoy's admin endpoint knows no user names and passwords".into());
        }
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => {
                let (host, port) =
                    rest.split_once(']').ok_or_else(|| format!("the bracket is not closed; {EXPECTED}"))?;
                // A zone, such as %eth0, may follow the address.
                let address = host.split_once('%').map_or(host, |(address, _)| address);
                if address.parse::<std::net::Ipv6Addr>().is_err() {
                    return Err(format!("there is no IPv6 address between the brackets; {EXPECTED}"));
                }
                (host, port.strip_prefix(':'))
            }
            None => match authority.split_once(':') {
                Some((_, port)) if port.contains(':') => {
                    return Err("write an IPv6 address in brackets, such as http://[::1]:9901".into());
                }
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            },
        };
        let is_name = |char: char| char.is_ascii_alphanumeric() || matches!(char, '.' | '-' | '_' | ':' | '%');
        if host.is_empty() || !host.chars().all(is_name) {
            return Err(format!("there is no host in it; {EXPECTED}"));
        }
        let port_text = port.ok_or_else(|| format!("the port is missing; {EXPECTED}"))?;
        match port_text.parse() {
            Ok(port @ 1..) if port_text.bytes().all(|byte| byte.is_ascii_digit()) => {
                Ok(Self::Tcp { host: host.to_owned(), port })
            }
            _ => Err(format!("the port is no number from 1 to 65535; {EXPECTED}")),
        }
    }
}
