//! The decoder of one encoding.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tap2pcap::input::Encoding;
use tap2pcap_fuzz::messages;

fuzz_target!(|data: &[u8]| messages::decode(data, Encoding::Binary));
