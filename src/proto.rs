//! The messages of `proto/`, compiled by `build.rs`.
//!
//! Reading a trace does not go through these types (see [`crate::input`]); they are for writing traces, for callers
//! that want whole messages, and for tests.

use std::sync::LazyLock;

use prost_reflect::DescriptorPool;

include!(concat!(env!("OUT_DIR"), "/proto.rs"));

pub use envoy::data::tap::v3 as tap;

/// Descriptors of all messages, for prost-reflect's JSON and text mappings.
pub static DESCRIPTORS: LazyLock<DescriptorPool> = LazyLock::new(|| {
    DescriptorPool::decode(include_bytes!("../proto/descriptors.binpb").as_slice())
        .expect("prost-build has read the same bytes")
});
