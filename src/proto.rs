//! The messages of `proto/`, as prost-build has made them from its descriptor set.
//!
//! Reading a trace does not go through these types (see [`crate::input`]); they are for writing traces, for callers
//! that want whole messages, and for tests.
//!
//! ```
//! use prost::Message as _;
//! use tap2pcap::{
//!     input::{Encoding, Source, SourceOptions},
//!     proto::tap::{SocketBufferedTrace, TraceWrapper, trace_wrapper::Trace},
//!     trace::Findings,
//! };
//!
//! let trace = SocketBufferedTrace { trace_id: 7, ..SocketBufferedTrace::default() };
//! let message = TraceWrapper { trace: Some(Trace::SocketBufferedTrace(trace)), ..TraceWrapper::default() };
//! let bytes = std::io::Cursor::new(message.encode_to_vec());
//!
//! let options = SourceOptions { encoding: Some(Encoding::Binary), ..SourceOptions::default() };
//! let mut source = Source::from_reader("in memory".as_ref(), Box::new(bytes), options)?;
//! let mut findings = Findings::default();
//! assert_eq!(source.next_message(&mut findings).map(|view| view.message().trace_id), Some(7));
//! # Ok::<(), tap2pcap::input::InputError>(())
//! ```

use std::sync::LazyLock;

use prost_reflect::DescriptorPool;

include!("../proto/messages.rs");

pub use envoy::data::tap::v3 as tap;

/// Descriptors of all messages, for prost-reflect's JSON and text mappings.
pub static DESCRIPTORS: LazyLock<DescriptorPool> = LazyLock::new(|| {
    DescriptorPool::decode(include_bytes!("../proto/descriptors.binpb").as_slice())
        .expect("a test makes this set and decodes it")
});
