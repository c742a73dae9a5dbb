//! Offline forensics of Envoy traffic: trace files of Envoy's tap in, captures for Wireshark and its kin out.
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
//! HTTP tap traces hold fields and bodies instead of bytes: [`timeline`] replays them, or [`har`] writes them as they are.
//!
//! [`trace`] is the model that the stages share, [`commands`] joins them, [`cli`] holds the arguments and [`report`]
//! all that a person reads: stages state facts, and add them to a list that they are handed, [`trace::Findings`].
//!
//! Nothing of a connection is collected: a message is decoded from a bounded window, its events become packets, and
//! the window moves on. Memory is the window, the largest message, and a few hundred bytes per open connection.
//!
//! Times are nanoseconds since the Unix epoch, lengths are bytes, offsets count from the start of the source and
//! message indexes from 0.

pub mod capture;
pub mod cli;
pub mod commands;
pub mod har;
pub mod input;
pub mod interrupt;
#[cfg(feature = "record")]
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod proto;
pub mod report;
pub mod synth;
#[cfg(feature = "record")]
pub mod tap;
pub mod timeline;
pub mod trace;
pub mod untrusted;
pub mod words;
