//! The whole conversion. The capture is read back with parsers that others wrote.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tap2pcap_fuzz::{
    capture,
    convert::{Plan, convert},
    pieces::Pieces,
};

fuzz_target!(|data: &[u8]| {
    let Some((plan, trace)) = Plan::split(data) else { return };
    let conversion = convert(&plan, trace, plan.pieces);
    capture::check(&plan, &conversion);
    if !plan.depends_on_pieces() {
        assert_eq!(convert(&plan, trace, Pieces::Whole).capture, conversion.capture, "by pieces: {:?}", plan.pieces);
    }
});
