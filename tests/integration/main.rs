//! Judges the program from outside: real traces in, captures out, read back with the tools that people open them with.

// A test fails by a panic, so unwrap and expect are fine.
// Nothing outside of a test program uses its public items.
#![allow(unreachable_pub)]
#![allow(missing_docs, clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod archives;
mod bad_input;
mod batch;
mod changing_inputs;
mod complete_outputs;
mod connections;
mod conversation;
mod descriptors;
mod directories;
mod documentation;
mod endpoints;
mod envelopes;
mod escaping;
mod exchanges;
#[cfg(feature = "live")]
mod extcap;
#[cfg(feature = "live")]
mod fake_envoy;
mod filter;
mod fixture;
mod formats;
mod grpc_cut;
mod har;
mod http;
mod http2;
mod http_replay;
mod info;
mod inputs;
mod layers;
mod library;
mod likeness;
mod limits;
#[cfg(feature = "live")]
mod live;
mod loss;
mod manifest;
mod marks;
mod memory;
mod merge;
mod messages;
mod mixtures;
mod multiplex;
mod open;
mod oracle;
mod outputs;
mod overlap;
mod packed;
mod paths;
mod permissions;
mod pipes;
mod progress;
mod protocols;
mod reads;
mod real_traces;
mod record;
mod record_beside_tcpdump;
mod record_capture;
mod record_config;
mod record_load;
mod routes;
mod scenario;
mod signals;
mod split;
mod surroundings;
mod tap_config;
mod tap_fixtures;
mod tap_formats;
mod tcp;
mod tcp_tools;
mod timelines;
mod times;
mod tshark;
mod util;
mod validate;
mod wait;
mod wire;
mod wrappers;
