//! The model of a trace: messages, events and addresses as Envoy recorded them, whatever the encoding they came in.
//!
//! A [`Message`] holds one `TraceWrapper`, or a batch of several. Decoders fill the same message again and again. Its
//! events are plain records, and its payloads are spans of the bytes they were read from, so reading a trace allocates
//! nothing per event. A [`MessageView`] is a message together with those bytes:
//!
//! ```
//! use tap2pcap::{
//!     input::{Source, SourceOptions},
//!     trace::{EventKind, Findings, TraceKind},
//! };
//!
//! let trace: &[u8] = br#"{"socket_buffered_trace": {"trace_id": "7", "events": [
//!     {"timestamp": "2026-01-31T12:00:00Z", "read": {"data": {"as_bytes": "aGVsbG8="}}}
//! ]}}"#;
//! let mut source = Source::from_reader("in memory".as_ref(), Box::new(trace), SourceOptions::default())?;
//! let mut findings = Findings::default();
//! let view = source.next_message(&mut findings).ok_or("it has one")?;
//! let message = view.message();
//! assert_eq!((message.kind, message.trace_id), (Some(TraceKind::SocketBuffered), 7));
//! for event in &message.events {
//!     assert_eq!((event.kind, event.time), (EventKind::Read, Some(1_769_860_800_000_000_000)));
//!     assert_eq!(view.bytes(event.body.payload), b"hello");
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod address;
mod fact;
mod fault;
mod finding;
mod message;
mod note;
mod place;
mod records;
mod time;
mod unknown;

pub use address::{Address, Connection};
pub use fact::{ExchangeFact, Fact, HttpFact, Limited, Owner};
pub(crate) use fault::JsonType;
pub use fault::{CutIn, DecodeFault, JsonFault, TextFault, TextItem, WireFault};
pub use finding::{Code, Finding, Findings, Severity};
pub use message::{
    Body, Event, EventKind, Header, HttpPart, HttpPiece, HttpSide, MAX_BATCH, MAX_EVENTS, MAX_HEADERS, Message,
    MessageView, Span, TraceKind,
};
pub use note::{FieldNames, MadeUpField, Quote, ReplayNote, UnfitFields};
pub use place::Place;
pub use records::Records;
pub use time::{Nanos, TimeError, nanos_from_timestamp, rfc3339};
pub use unknown::{FieldId, UnknownField, UnknownFields};
