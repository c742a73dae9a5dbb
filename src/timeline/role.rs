//! Who opened a connection. A trace does not say; its addresses and its first event tell.

use super::Direction;

/// Which side of Envoy a connection is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// A listener was tapped: the remote side opened the connection.
    Downstream,
    /// A cluster was tapped: Envoy, the local side, opened it.
    Upstream,
}

impl Role {
    /// The word that people read.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Downstream => "downstream",
            Self::Upstream => "upstream",
        }
    }

    /// The direction of what the client sends.
    #[must_use]
    pub fn client_direction(self) -> Direction {
        match self {
            Self::Downstream => Direction::Inbound,
            Self::Upstream => Direction::Outbound,
        }
    }
}

/// One for all connections, or decided for each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RoleChoice {
    /// Decided for each connection by what its trace shows.
    #[default]
    Auto,
    /// The same for all: the user says so.
    Always(Role),
    /// The same for all: whoever recorded them says so.
    Known(Role),
}

/// The role that the two ports suggest: the side with an ephemeral port called the side with a service port.
#[must_use]
pub fn role_from_ports(local: u16, remote: u16) -> Option<Role> {
    match (is_ephemeral(local), is_ephemeral(remote)) {
        (false, true) => Some(Role::Downstream),
        (true, false) => Some(Role::Upstream),
        _ => None,
    }
}

/// RFC 6335 section 6 (49152 to 65535), or Linux's default `ip_local_port_range` (32768 to 60999).
fn is_ephemeral(port: u16) -> bool {
    port >= 32_768
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ephemeral_port_calls_a_service_port() {
        assert_eq!(role_from_ports(443, 51_000), Some(Role::Downstream));
        assert_eq!(role_from_ports(40_000, 5432), Some(Role::Upstream));
        assert_eq!(role_from_ports(8080, 8081), None);
        assert_eq!(role_from_ports(50_000, 60_000), None);
    }
}
