//! Per-connection timelines: which connection each event belongs to, when it happened, how many bytes it really had,
//! and which bytes are missing.
//!
//! [`Entries`] gives each entry with its connection:
//!
//! ```
//! use tap2pcap::{
//!     input::{self, Source},
//!     timeline::{Entries, EntryKind, TimelineOptions},
//! };
//!
//! let path = "testdata/envoy/1.40.0/h1_str_PROTO_BINARY_133.pb".as_ref();
//! let source = Source::open(path, input::SourceOptions::default())?;
//! let mut entries = Entries::new(source, TimelineOptions::default());
//! while let Some(view) = entries.next_entry() {
//!     match view.entry.kind {
//!         EntryKind::Opened => println!("connection {}, {}", view.opening.trace_id, view.opening.role.word()),
//!         EntryKind::Data(data) => println!("{:?}: {} bytes", data.direction, data.payload.len()),
//!         _ => {}
//!     }
//!     if let Some(summary) = view.summary {
//!         println!("{}, {} bytes read", summary.speech.protocol.name(), summary.sides[0].bytes);
//!         # assert!(summary.sides[0].bytes > 0);
//!     }
//! }
//! # assert_eq!(entries.timelines().connections(), 1);
//! # Ok::<(), input::InputError>(())
//! ```
//!
//! [`Timelines`] gives the same entries but never blocks, for callers that wait for input themselves.

mod assemble;
mod clock;
mod cursor;
mod endpoint;
mod entries;
mod entry;
mod hash;
mod hold;
mod http;
#[cfg(test)]
mod interleaved_tests;
mod mapping;
mod options;
mod protocol;
mod replayed;
mod role;
mod sockets;
mod start_time;
mod summary;
mod table;

pub use assemble::Timelines;
pub use endpoint::{AddressNote, EndpointTable, Endpoints, Other};
pub use entries::{Entries, EntryView, OwnedEntry};
pub(crate) use entry::PerConnection;
pub use entry::{ConnectionId, Data, Entry, EntryKind, JoinedEvents, Opening, Record, TrueLength};
pub use hash::AddressPair;
pub(crate) use hash::StableHasher;
pub(crate) use http::{Completeness, OpenExchanges, reason_phrase};
pub use http::{HttpOpening, HttpOptions, SideChoice, Track, VersionChoice};
#[cfg(feature = "live")]
pub(crate) use http::{OpenRequest, OpenRequests};
pub(crate) use mapping::Pseudonyms;
pub use mapping::{Mapping, Mappings, ParseMappingError};
pub use options::{HttpTaps, MAX_CONNECTIONS, TimelineOptions};
pub use protocol::{ClientHello, PREFACE, Preface, Protocol, ProxyHeader, Speech};
pub(crate) use protocol::{ProxyStart, Room, Sniffer, is_tls};
pub use role::{Role, RoleChoice};
pub use start_time::TimesFrom;
pub use summary::{DirectionTotals, Summaries, Summary};

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

    /// 0 for inbound and 1 for outbound, to index arrays with one value for each direction.
    #[inline]
    #[must_use]
    pub fn index(self) -> usize {
        self as usize
    }
}
