//! Per-connection timelines: which connection each event belongs to, when it happened, how many bytes there really
//! were, and what is missing.

mod assemble;
mod clock;
mod cursor;
mod endpoint;
mod entries;
mod entry;
mod hash;
mod hold;
mod http;
mod options;
mod protocol;
mod replayed;
mod role;
mod sockets;
mod start;
mod summary;
mod table;

pub use assemble::Timelines;
pub use endpoint::{Endpoints, Mapping, Mappings, ParseMappingError, Resolver};
pub use entries::{Entries, EntryView, OwnedEntry};
pub use entry::{ConnectionId, Data, Entry, EntryKind, Joined, Opening, PerConnection, Record, TrueLength};
pub use hash::stable_hash;
pub use http::{
    Completeness, HttpOpening, HttpOptions, SideChoice, Streams, TimesFrom, Track, VersionChoice, reason_phrase,
};
pub use options::{MAX_CONNECTIONS, Options};
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
