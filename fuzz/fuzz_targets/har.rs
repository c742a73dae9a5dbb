//! HAR out of HTTP tap traces: what is written is JSON with an entry for each exchange.

#![no_main]

use std::{fs, path::Path};

use libfuzzer_sys::fuzz_target;
use tap2pcap::{
    capture::{Destination, OutputError},
    har::{Exchanges, Har},
    input::{Advance, Source},
    timeline::Track,
    trace::{Findings, MessageView, Place},
};
use tap2pcap_fuzz::{
    convert::{Plan, output},
    pieces::InPieces,
};

fuzz_target!(|data: &[u8]| {
    let Some((plan, trace)) = Plan::split(data) else { return };
    let path = output();
    let (http, start_time) = (plan.timeline.http, plan.timeline.start_time);
    let mut har = Har::create(&Destination::File(path.clone()), http, start_time).expect("a file");
    let reader = InPieces::new(trace, plan.pieces);
    let mut source = Source::from_reader(Path::new("path_0"), reader, plan.input).expect("not empty");
    let mut exchanges = Exchanges::new(1 << 20);
    let mut entries = 0;
    let mut findings = Findings::default();
    loop {
        let mut each = |_: Place, view: MessageView<'_>, tracks: &[Track; 2]| -> Result<(), OutputError> {
            entries += 1;
            har.entry("path_0", view, tracks)
        };
        match source.advance(&mut findings) {
            Advance::Message => exchanges.message(source.message(), &mut each).expect("a file takes it"),
            Advance::NeedInput => source.fill(&mut findings),
            Advance::End => break exchanges.end(&mut each).expect("a file takes it"),
        }
    }
    assert_eq!(har.entries(), entries);
    har.finish().expect("a file takes it");
    let text = fs::read_to_string(&path).expect("HAR is UTF-8");
    let value: serde_json::Value = serde_json::from_str(&text).expect("HAR is JSON");
    assert_eq!(value["log"]["entries"].as_array().map(|entries| entries.len() as u64), Some(entries));
});
