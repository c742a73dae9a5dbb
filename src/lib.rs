//! Offline forensics of Envoy traffic.

pub mod input;
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod proto;
pub mod trace;
