//! The model of a trace: messages, events and addresses as Envoy recorded them, whatever the encoding they came in.
//!
//! A [`Message`] is one `TraceWrapper`. It is a buffer that a decoder fills again and again: events are plain records
//! and payloads are spans of the bytes they were read from, so that reading a trace allocates nothing per event.

mod address;
mod finding;
mod message;
mod records;
mod time;
mod unknown;

pub use address::{Address, Connection};
pub use finding::{Code, Finding, Findings, Severity};
pub use message::{
    Body, Event, EventKind, Header, HttpPart, HttpPiece, HttpSide, MAX_BATCH, MAX_EVENTS, MAX_HEADERS, Message,
    MessageView, Span, TraceKind,
};
pub use records::Records;
pub use time::{Nanos, TimeError, nanos_from_timestamp, rfc3339};
pub use unknown::{FieldId, UnknownField, UnknownFields};
