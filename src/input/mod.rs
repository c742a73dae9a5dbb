//! Bytes to trace messages: sources, detection, framing, and one decoder per encoding.

mod decode;
mod json;
mod wire;
