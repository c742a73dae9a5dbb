//! Bytes to trace messages: sources, detection, framing, and one decoder per encoding.
//!
//! A [`Source`] reads a file, or any other reader, in any of the five encodings, packed or not:
//!
//! ```
//! use tap2pcap::{
//!     input::{Encoding, Source, SourceOptions},
//!     trace::Findings,
//! };
//!
//! let path = "testdata/envoy/1.40.0/h1_str_PROTO_BINARY_133.pb";
//! let mut source = Source::open(path.as_ref(), SourceOptions::default())?;
//! assert_eq!(source.encoding(), Encoding::Binary);
//! let mut findings = Findings::default();
//! while let Some(view) = source.next_message(&mut findings) {
//!     let message = view.message();
//!     println!("byte {}: connection {}, {} events", message.offset, message.trace_id, message.events.len());
//! }
//! for finding in findings.take() {
//!     println!("{finding}");
//! }
//! # assert!(source.decoded() > 0);
//! # Ok::<(), tap2pcap::input::InputError>(())
//! ```

mod archive;
mod around;
#[cfg(feature = "live")]
mod arrivals;
mod binary;
mod decode;
mod delimited;
mod detect;
mod discover;
mod enveloped;
mod error;
#[cfg(test)]
#[cfg(feature = "record")]
mod http_tests;
mod inside;
mod json;
mod layers;
mod line;
mod messages;
mod outline;
mod place;
mod reader;
mod schema;
#[cfg(test)]
mod scrambled;
mod skipped;
mod source;
mod text;
mod wire;

#[cfg(feature = "live")]
pub(crate) use arrivals::Arrivals;
pub use detect::{Detected, Encoding, FieldPath, FirstBytes, Likeness, detect};
#[doc(hidden)]
pub use discover::open_all;
pub use discover::trace_stem;
pub(crate) use discover::{Discovered, Input, Unreadable, discover};
pub use error::InputError;
pub use layers::{Layer, Layers, MAX_LAYERS};
pub use place::InputPath;
pub use source::{Advance, LEAST_MAX_MESSAGE, MAX_MESSAGE, Source, SourceOptions};
pub(crate) use source::{Peek, Reopen};
