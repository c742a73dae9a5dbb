//! Offline forensics of Envoy traffic.

pub mod capture;
pub mod cli;
pub mod commands;
pub mod input;
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod proto;
pub mod report;
pub mod synth;
pub mod timeline;
pub mod trace;
pub mod untrusted;
