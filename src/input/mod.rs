//! Bytes to trace messages: sources, detection, framing, and one decoder per encoding.

mod binary;
mod decode;
mod delimited;
mod detect;
mod error;
mod json;
mod source;
mod text;
mod wire;

pub use detect::{Detected, Encoding, detect};
pub use error::InputError;
pub use source::{Advance, Source};
