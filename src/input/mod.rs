//! Bytes to trace messages: sources, detection, framing, and one decoder per encoding.

mod binary;
mod decode;
mod delimited;
mod detect;
mod discover;
mod error;
#[cfg(all(test, feature = "record"))]
mod http_tests;
mod json;
mod line;
mod messages;
mod parts;
mod place;
mod reader;
#[cfg(test)]
mod scrambled;
mod source;
mod text;
mod wire;

pub use detect::{Detected, Encoding, detect};
pub use discover::{Discovered, Input, PassedOver, Unreadable, discover, trace_stem};
pub use error::{InputError, OTHER_JSON};
pub use place::InputPath;
pub use source::{Advance, LEAST_MAX_MESSAGE, MAX_MESSAGE, Options, Peek, Source};
