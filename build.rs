//! Refuses to build from messages that were not made from the descriptor set beside them.
//!
//! The Rust types in `proto/messages.rs` are kept in the repository, so that prost-build and all that it needs are
//! compiled for the tests alone. A merge of two changes can keep the types of one and the descriptor set of the other;
//! what reads a trace by reflection would then disagree with what writes it.

use std::{env, error::Error, fs};

const DESCRIPTORS: &str = "proto/descriptors.binpb";
const MESSAGES: &str = "proto/messages.rs";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={DESCRIPTORS}");
    println!("cargo::rerun-if-changed={MESSAGES}");
    println!("cargo::rerun-if-env-changed=UPDATE_GOLDEN");
    // With UPDATE_GOLDEN, a test is about to make both anew.
    if env::var_os("UPDATE_GOLDEN").is_some() {
        return Ok(());
    }
    let made_from = first_line(&fs::read(DESCRIPTORS)?);
    if fs::read_to_string(MESSAGES)?.lines().next() != Some(&made_from) {
        let mend = "UPDATE_GOLDEN=1 cargo test descriptor_set";
        return Err(format!("{MESSAGES} was not made from {DESCRIPTORS}: run `{mend}`").into());
    }
    Ok(())
}

/// The first line of the messages that are made from a descriptor set. It has the 64-bit FNV-1a hash of the set: enough
/// to tell one change from another.
pub fn first_line(descriptors: &[u8]) -> String {
    let hash = descriptors
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3));
    format!("// Made by prost-build from descriptors.binpb with the hash {hash:016x}.")
}
