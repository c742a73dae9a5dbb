//! Addresses as a trace spells them; `timeline::endpoint` turns them into IP addresses and ports.

use std::fmt;

/// `envoy.config.core.v3.Address`, unchecked: whatever the trace holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// `socket_address`. `port` is `None` where the trace names a port by name or not at all; it is not yet known to
    /// fit 16 bits.
    Socket {
        /// Dotted, colon-separated, or (damaged or hand-made traces) any text.
        address: String,
        /// `port_value`.
        port: Option<u32>,
    },
    /// `pipe`: a unix domain socket, by path. An abstract one starts with `@`.
    Pipe(String),
    /// `envoy_internal_address`: a listener inside Envoy.
    Internal {
        /// `server_listener_name`.
        listener: String,
        /// `endpoint_id`, empty where absent.
        endpoint: String,
    },
}

impl Address {
    /// The address's strings. A trace may make them of any length.
    pub(super) fn names_mut(&mut self) -> impl Iterator<Item = &mut String> {
        let (name, more) = match self {
            Self::Socket { address: name, .. } | Self::Pipe(name) => (name, None),
            Self::Internal { listener, endpoint } => (listener, Some(endpoint)),
        };
        [Some(name), more].into_iter().flatten()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket { address, port: Some(port) } if address.contains(':') => write!(f, "[{address}]:{port}"),
            Self::Socket { address, port: Some(port) } => write!(f, "{address}:{port}"),
            Self::Socket { address, port: None } => f.write_str(address),
            Self::Pipe(path) => f.write_str(path),
            Self::Internal { listener, endpoint } if endpoint.is_empty() => write!(f, "envoy:{listener}"),
            Self::Internal { listener, endpoint } => write!(f, "envoy:{listener}/{endpoint}"),
        }
    }
}

/// `envoy.data.tap.v3.Connection`: the two ends of a tapped socket, seen from Envoy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Connection {
    /// Envoy's end. Missing in the first segment of a streamed upstream trace: the socket is not connected yet.
    pub local: Option<Address>,
    /// The peer's end.
    pub remote: Option<Address>,
}

impl Connection {
    /// Whether neither end is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.local.is_none() && self.remote.is_none()
    }
}
