//! The address that a socket listens on or connects to.

use std::{
    fmt,
    net::{SocketAddr, ToSocketAddrs},
    str::FromStr,
};

use thiserror::Error;

use crate::proto::envoy::config::core::v3::{Address, Pipe, SocketAddress, address, socket_address::PortSpecifier};

/// A TCP address or the path of a unix domain socket.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// TCP.
    Tcp(SocketAddr),
    /// A unix domain socket; one in the abstract namespace starts with `@`.
    Unix(String),
}

/// A text that is not an [`Endpoint`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{text:?} is neither host:port nor the path of a unix socket (/path, unix:path or @abstract): {reason}")]
pub struct EndpointError {
    text: String,
    reason: String,
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    /// Resolves a host name, once: later changes in DNS are not seen.
    fn from_str(text: &str) -> Result<Self, EndpointError> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Self::Unix(path.to_owned()));
        }
        if text.starts_with(['/', '@']) {
            return Ok(Self::Unix(text.to_owned()));
        }
        let error = |reason: String| EndpointError { text: text.to_owned(), reason };
        let mut addresses = text.to_socket_addrs().map_err(|cause| error(cause.to_string()))?;
        addresses.next().map(Self::Tcp).ok_or_else(|| error("the name has no address".to_owned()))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => f.write_str(path),
        }
    }
}

impl From<&Endpoint> for Address {
    fn from(endpoint: &Endpoint) -> Self {
        let address = match endpoint {
            Endpoint::Tcp(tcp) => address::Address::SocketAddress(SocketAddress {
                address: tcp.ip().to_string(),
                port_specifier: Some(PortSpecifier::PortValue(tcp.port().into())),
                ..SocketAddress::default()
            }),
            Endpoint::Unix(path) => address::Address::Pipe(Pipe { path: path.clone(), mode: 0 }),
        };
        Self { address: Some(address) }
    }
}
