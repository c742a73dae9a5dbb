//! HTTP tap traces replayed as HTTP/1.1 and HTTP/2.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tap2pcap_fuzz::{both, convert::Plan, http};

fuzz_target!(|data: &[u8]| {
    let Some((plan, trace)) = Plan::split(data) else { return };
    http::replay(&plan, trace);
    both::check(&plan, trace);
});
