//! Traces in layers and archives: unchanged, they give the messages that they give alone; changed, nothing panics.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tap2pcap_fuzz::layers::{Plan, check};

fuzz_target!(|data: &[u8]| {
    if let Some(plan) = Plan::split(data) {
        check(&plan);
    }
});
