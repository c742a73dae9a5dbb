//! Converts the trace files of Envoy's tap into captures for Wireshark, tshark and tcpdump.
//!
//! Data flows one way, and each stage knows only those before it:
//!
//! ```text
//!   trace file, stdin          bytes of one of five encodings
//!         |
//!      [input]                 source, detection, framing, one decoder per encoding
//!         |                    -> trace::Message: records and spans, nothing copied
//!      [timeline]              which connection, who opened it, when, how many bytes there really were
//!         |                    -> timeline::Entry: opened, data, gap, closed
//!      [synth]                 Ethernet, IP and TCP around the bytes
//!         |                    -> synth::Packet: headers, payload, comment
//!      [capture]               pcap or pcapng, into a file that is complete or absent, or into a pipe
//!         |
//!   capture file, stdout
//! ```
//!
//! HTTP tap traces hold header fields and bodies, not the bytes of a connection: [`timeline`] replays them, or [`har`]
//! writes them as they are. With the feature `record`, [`tap`] records traces without Envoy, and [`proto`] has the
//! protobuf messages of traces. Without the feature `where`, there is no [`http::Filter`]: the type has no values.
//!
//! [`pairing`] joins the two exchanges that Envoy has for one request: the client's and the upstream's.
//!
//! [`trace`] is the model that the stages share. A stage states what it finds as facts, and adds them to a list that
//! the caller passes in, [`trace::Findings`].
//!
//! # From a trace to a capture
//!
//! ```
//! # let dir = tempfile::tempdir()?;
//! # let output = dir.path().join("path_0.pcapng");
//! # let input = "testdata/envoy/1.40.0/h1_str_PROTO_BINARY_133.pb";
//! let options = tap2pcap::ConvertOptions::default();
//! let done = tap2pcap::convert(input, &output, &options)?;
//! println!("{} connections, {} packets", done.connections, done.packets);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The stages one by one
//!
//! [`Source::next_message`](input::Source::next_message) returns the messages of a trace, and
//! [`Entries`](timeline::Entries) tells what happened on its connections:
//!
//! ```
//! use tap2pcap::{
//!     input::{self, Source},
//!     timeline::{self, Entries, EntryKind},
//! };
//!
//! let trace = "testdata/envoy/1.40.0/h1_str_PROTO_BINARY_133.pb";
//! let source = Source::open(trace.as_ref(), input::SourceOptions::default())?;
//! let mut entries = Entries::new(source, timeline::TimelineOptions::default());
//! let mut bytes = 0;
//! while let Some(view) = entries.next_entry() {
//!     if let EntryKind::Data(data) = view.entry.kind {
//!         bytes += data.payload.len();
//!     }
//! }
//! assert!(bytes > 0 && entries.take_findings().is_empty());
//! # Ok::<(), input::InputError>(())
//! ```
//!
//! # What holds everywhere
//!
//! No connection is held in memory: a message is decoded from a bounded window, its events become packets, and the
//! window moves on. Memory is the window, the largest message, and a few hundred bytes per open connection.
//!
//! Times are nanoseconds since the Unix epoch, lengths are bytes, offsets count from the start of the source and
//! message indexes from 0.

mod access_log;
#[cfg(feature = "live")]
mod admin;
pub mod capture;
mod cli;
mod commands;
pub mod har;
pub mod http;
pub mod input;
mod interrupt;
#[cfg(feature = "report")]
mod page;
pub mod pairing;
#[doc(hidden)]
pub mod program;
#[cfg(feature = "record")]
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod proto;
// Public for a fuzz target.
#[doc(hidden)]
pub mod redact;
mod report;
mod spool;
pub mod synth;
#[cfg(feature = "record")]
pub mod tap;
pub mod timeline;
pub mod trace;
// Public for the fuzz targets, which check captures with it.
#[doc(hidden)]
pub mod untrusted;
mod words;

pub use commands::{Conversion, ConvertError, ConvertOptions, convert};
pub use report::detail as describe;
