//! Per-connection timelines: which connection each event belongs to, when it happened, how many bytes there really
//! were, and what is missing.

mod assemble;
mod endpoint;
mod hash;
mod http;
mod protocol;
mod role;
mod start;
mod summary;

pub use assemble::{Data, Entry, EntryKind, Joined, MAX_CONNECTIONS, Opening, Options, Timelines, TrueLength};
pub use endpoint::{Endpoints, Mapping, Mappings, ParseMappingError, Resolver};
pub use hash::stable_hash;
pub use http::{
    Completeness, HttpOpening, HttpOptions, SideChoice, Streams, TimesFrom, Track, VersionChoice, reason_phrase,
};
pub use protocol::{PREFACE, Preface, Protocol, Sniffer};
pub use role::{Role, RoleChoice, role_from_ports};
pub use summary::{Side, Summaries, Summary};

/// Which way bytes went, as Envoy saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Envoy read: from the remote to the local address.
    Inbound,
    /// Envoy wrote: from the local to the remote address.
    Outbound,
}

impl Direction {
    /// The other way.
    #[must_use]
    pub fn reverse(self) -> Self {
        match self {
            Self::Inbound => Self::Outbound,
            Self::Outbound => Self::Inbound,
        }
    }

    /// 0 for inbound, 1 for outbound: for arrays of one thing per direction.
    #[inline]
    #[must_use]
    pub fn index(self) -> usize {
        self as usize
    }
}
