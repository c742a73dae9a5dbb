//! HTTP tap traces by a script: many parts and large ones, of a few bytes. Their replay is HTTP, and their capture one
//! that other parsers read whole.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tap2pcap_fuzz::{
    capture,
    convert::{Plan, convert},
    http, script,
};

fuzz_target!(|data: &[u8]| {
    let Some((options, steps)) = data.split_first_chunk::<{ Plan::LEN }>() else { return };
    let trace = script::trace(steps);
    // The encoding is given: length-delimited.
    let mut options = [options[0], options[1] & !0x38 | 1 << 3, options[2]];
    // Segments of 1 and 7 bytes would make a million packets of such a trace; 536 bytes are the next.
    if matches!(options[1] & 7, 1 | 2) {
        options[1] |= 3;
    }
    let Some((plan, trace)) =
        Plan::split(&[&options[..], &trace].concat()).map(|(plan, trace)| (plan, trace.to_owned()))
    else {
        return;
    };
    http::replay(&plan, &trace);
    let conversion = convert(&plan, &trace, plan.pieces);
    capture::check(&plan, &conversion);
});
