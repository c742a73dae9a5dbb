//! Who opened a connection. A trace does not say, so its addresses and first events must tell.

use clap::ValueEnum;
use memchr::memmem;

use super::{Direction, protocol::Speaker};
use crate::trace::{Address, Connection};

/// Which side of Envoy a connection is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub enum Role {
    /// A listener was tapped: the remote side opened the connection.
    #[value(help = "The remote side")]
    Downstream,
    /// A cluster was tapped: Envoy, the local side, opened it.
    #[value(help = "Envoy")]
    Upstream,
}

impl Role {
    /// The role's name in text for people.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Downstream => "downstream",
            Self::Upstream => "upstream",
        }
    }

    /// The direction of the client's bytes.
    #[must_use]
    pub fn client_direction(self) -> Direction {
        match self {
            Self::Downstream => Direction::Inbound,
            Self::Upstream => Direction::Outbound,
        }
    }
}

/// How the role of each connection is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RoleChoice {
    /// Each connection's role follows from its trace.
    #[default]
    Auto,
    /// All connections have this role, because the user says so.
    Always(Role),
    /// All connections have this role, because their recorder knows it.
    Known(Role),
}

/// Service ports in the range of ephemeral ports: MySQL's X protocol, Keystone's admin interface, gRPC by convention,
/// and ActiveMQ's STOMP and OpenWire.
const HIGH_SERVICES: [u16; 5] = [33_060, 35_357, 50_051, 61_613, 61_616];

/// The role that the two ports suggest: the side with an ephemeral port is the client. If both ports are ephemeral or
/// neither is, a port below 1024 or of a known service is the server's.
#[must_use]
pub(super) fn role_from_ports(local: u16, remote: u16) -> Option<Role> {
    match (is_ephemeral(local), is_ephemeral(remote)) {
        (false, true) => Some(Role::Downstream),
        (true, false) => Some(Role::Upstream),
        (true, true) => server_by(HIGH_SERVICES.contains(&local), HIGH_SERVICES.contains(&remote)),
        (false, false) => server_by(local < 1024, remote < 1024),
    }
}

fn server_by(local: bool, remote: bool) -> Option<Role> {
    match (local, remote) {
        (true, false) => Some(Role::Downstream),
        (false, true) => Some(Role::Upstream),
        _ => None,
    }
}

/// The role of a connection. `shown` is the role by the addresses that its first message has, `spoken` the role by its
/// first payloads, and `first` the direction of its first event.
pub(super) fn decide(
    shown: Option<Role>,
    spoken: Option<Role>,
    connection: &Connection,
    first: Option<Direction>,
) -> Role {
    // A local address in the first message does not prove that the connection is downstream, because a cluster may bind
    // its sockets before they connect. So payloads and ports outrank it.
    let certain = shown.filter(|role| *role == Role::Upstream);
    certain.or(spoken).or_else(|| role_from_addresses(connection)).or(shown).unwrap_or(match first {
        Some(Direction::Outbound) => Role::Upstream,
        Some(Direction::Inbound) | None => Role::Downstream,
    })
}

/// The role that the `connection` segment of a streamed trace shows. Envoy writes it when it creates its transport
/// socket. A listener's socket is connected by then; a cluster's has no local address yet.
pub(super) fn role_from_first_segment(connection: &Connection) -> Option<Role> {
    match (&connection.local, &connection.remote) {
        (None, Some(_)) => Some(Role::Upstream),
        (Some(_), Some(_)) => Some(Role::Downstream),
        _ => None,
    }
}

fn role_from_addresses(connection: &Connection) -> Option<Role> {
    let port = |address: &Option<Address>| match address {
        Some(Address::Socket { port: Some(port), .. }) => u16::try_from(*port).ok(),
        _ => None,
    };
    role_from_ports(port(&connection.local)?, port(&connection.remote)?)
}

/// The role that the first payloads show: some protocols tell the client's first bytes from the server's.
pub(super) fn role_from_first_words<'a>(said: impl Iterator<Item = (Direction, &'a [u8])> + Clone) -> Option<Role> {
    let said = said.filter(|(_, payload)| !payload.is_empty());
    let role = |direction: Direction, speaker: Speaker| match (direction, speaker) {
        (Direction::Inbound, Speaker::Client) | (Direction::Outbound, Speaker::Server) => Role::Downstream,
        (Direction::Outbound, Speaker::Client) | (Direction::Inbound, Speaker::Server) => Role::Upstream,
    };
    let (first, banner) = said.clone().next()?;
    if banner.starts_with(b"SSH-") {
        // Both sides begin with a banner, in any order. The algorithms that they offer next differ (RFC 8308 section
        // 2.1, and the markers of OpenSSH's strict key exchange). If the trace lacks those, the side whose banner came
        // first is taken for the server.
        let offered = said.into_iter().find_map(|(direction, payload)| {
            let has = |signs: [&str; 2]| signs.iter().any(|sign| memmem::find(payload, sign.as_bytes()).is_some());
            let client = has(["ext-info-c", "kex-strict-c-"]).then_some(Speaker::Client);
            Some(role(direction, client.or(has(["ext-info-s", "kex-strict-s-"]).then_some(Speaker::Server))?))
        });
        return Some(offered.unwrap_or(role(first, Speaker::Server)));
    }
    [Direction::Inbound, Direction::Outbound].into_iter().find_map(|direction| {
        let (_, payload) = said.clone().find(|(other, _)| *other == direction)?;
        Some(role(direction, Speaker::of(payload)?))
    })
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
        assert_eq!(role_from_ports(50_001, 60_000), None);
        assert_eq!(role_from_ports(50_051, 40_000), Some(Role::Downstream));
        assert_eq!(role_from_ports(8080, 443), Some(Role::Upstream));
    }
}
