//! Timelines to TCP/IP packets: headers, sequence numbers, segmentation. No clock and no randomness: the same timeline
//! gives the same packets.
//!
//! A [`Flow`] makes the packets of one connection and hands them to a [`PacketSink`]:
//!
//! ```
//! use std::io;
//! use tap2pcap::{
//!     input::{self, Source},
//!     synth::{Flow, FlowIdentity, Packet, PacketSink, SynthOptions},
//!     timeline::{self, EndpointTable, Entries, EntryKind},
//! };
//!
//! struct Count(usize);
//!
//! impl PacketSink for Count {
//!     fn packet(&mut self, packet: &Packet<'_>) -> io::Result<()> {
//!         self.0 += packet.headers.len() + packet.payload.len();
//!         Ok(())
//!     }
//! }
//!
//! // A trace of one connection.
//! let path = "testdata/envoy/1.40.0/h1_str_PROTO_BINARY_133.pb".as_ref();
//! let source = Source::open(path, input::SourceOptions::default())?;
//! let mut entries = Entries::new(source, timeline::TimelineOptions::default());
//! let (mut table, mut flow, mut count) = (EndpointTable::default(), None, Count(0));
//! while let Some(view) = entries.next_entry() {
//!     let (time, opening) = (view.entry.time, view.opening);
//!     let flow = flow.get_or_insert_with(|| {
//!         let endpoints = table.open("path_0", opening);
//!         let (trace_file, source) = ("path_0.pb", "path_0");
//!         let identity = FlowIdentity { trace_file, source, opening, endpoints: &endpoints, time, paired: &[] };
//!         Flow::new(SynthOptions::default(), &identity)
//!     });
//!     match view.entry.kind {
//!         EntryKind::Opened => flow.open(time, &mut count)?,
//!         EntryKind::Data(data) => flow.data(time, &data, &mut count)?,
//!         EntryKind::Gap { direction, bytes, certain } => flow.gap(time, direction, bytes, certain, &mut count)?,
//!         EntryKind::Closed { .. } => flow.close(time, &mut count)?,
//!         EntryKind::Abandoned => flow.abandon(time, &mut count)?,
//!     }
//! }
//! println!("{} bytes of packets", count.0);
//! # assert!(count.0 > 500);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod checksum;
mod comments;
mod flow;
mod headers;
mod multiplex;
mod seq;

use std::io;

use clap::ValueEnum;
pub use comments::SettingNames;
pub use flow::{Flow, FlowIdentity, PairedConnection};
pub use headers::max_segment;
pub use multiplex::{ExchangeStream, MAX_JOINED};
pub(crate) use seq::SeqNumber;

use crate::{timeline::Direction, trace::Nanos};

/// How much TCP to make up around the tapped bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum TcpMode {
    /// Handshake, acknowledgements, close.
    #[default]
    Full,
    /// One packet per tapped event and nothing else.
    Bare,
}

/// What to write where bytes are missing from the trace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum TruncatedMode {
    /// The captured length is below the original length, as with a snap length.
    #[default]
    #[value(help = "Captured length below original length, as with a snap length")]
    Snap,
    /// Sequence numbers are skipped.
    #[value(help = "Skip sequence numbers")]
    Gap,
    /// Zero bytes stand for the missing ones.
    #[value(help = "Fill with zero bytes")]
    Zero,
}

/// How packets are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SynthOptions {
    /// How much TCP to make up.
    pub tcp: TcpMode,
    /// What to write for missing bytes.
    pub truncated: TruncatedMode,
    /// The largest payload of a segment in bytes. `None` stands for what one IP packet holds.
    pub mss: Option<u16>,
    /// What comments call the settings.
    pub names: &'static SettingNames,
    /// How secrets were taken out of the bytes.
    pub redacted: Option<Redacted>,
}

/// How secrets were taken out of a capture's bytes, for the comments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Redacted {
    /// All bodies were taken out.
    pub bodies: bool,
    /// Bytes that are not understood were kept.
    pub keeps_unknown: bool,
    /// IP addresses were replaced.
    pub addresses: bool,
    /// Names were replaced.
    pub names: bool,
}

impl Default for SynthOptions {
    fn default() -> Self {
        Self {
            tcp: TcpMode::default(),
            truncated: TruncatedMode::default(),
            mss: None,
            names: &SettingNames::PLAIN,
            redacted: None,
        }
    }
}

/// One packet, ready for a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Nanoseconds since the Unix epoch.
    pub time: Nanos,
    /// Which way it went, as Envoy saw it.
    pub direction: Direction,
    /// Ethernet, IP and TCP headers.
    pub headers: &'a [u8],
    /// The captured payload.
    pub payload: &'a [u8],
    /// Bytes of payload on the wire, [`Packet::payload`] included.
    pub payload_len: u32,
    /// Lines for people who read the capture; empty for most packets. The sink must escape and cap it, because it may
    /// quote the trace.
    pub comment: &'a str,
}

/// Where packets go.
pub trait PacketSink {
    /// Takes one packet.
    ///
    /// # Errors
    /// The sink's own: the capture could not be written.
    fn packet(&mut self, packet: &Packet<'_>) -> io::Result<()>;
}
