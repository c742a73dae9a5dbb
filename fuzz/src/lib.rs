//! What the fuzz targets share. A target panics where a promise of the program is broken.

pub mod both;
pub mod capture;
pub mod convert;
pub mod http;
pub mod layers;
pub mod messages;
pub mod pieces;
pub mod script;

/// Which exchanges are one connection: the program joins them outside its library, and here they are to be joined as there.
#[path = "../../src/commands/connections/mod.rs"]
mod connections;
// What that file takes from its own crate.
use tap2pcap::{synth, timeline, trace};
