//! One pass that reads HTTP taps as they are and replayed, against two passes that do one of both.

use std::path::Path;

use tap2pcap::{
    http::{HttpItem, HttpStage, HttpStageOptions},
    input::{Advance, Source},
    timeline::{HttpTaps, TimelineOptions, Timelines},
    trace::Findings,
};

use crate::{convert::Plan, pieces::InPieces};

/// What came out of a trace.
struct Reading {
    entries: Vec<String>,
    items: Vec<HttpItem>,
    /// Findings of the timelines, and of the HTTP in them.
    findings: [Vec<String>; 2],
}

fn read(plan: &Plan, trace: &[u8], http_taps: HttpTaps) -> Reading {
    let source = Source::from_reader(Path::new("path_0"), InPieces::new(trace, plan.pieces), plan.input);
    let options = TimelineOptions { http_taps, ..plan.timeline };
    let mut timelines = Timelines::new(source.expect("not empty, of a given encoding"), options);
    let mut stage = HttpStage::new(HttpStageOptions { all_connections: true, ..HttpStageOptions::default() });
    let mut findings = [Findings::default(), Findings::default()];
    let (mut entries, mut items) = (Vec::new(), Vec::new());
    loop {
        let advance = timelines.advance(&mut findings[0]);
        match advance {
            Advance::Message => stage.begin_entry(),
            Advance::NeedInput => timelines.fill(&mut findings[0]),
            Advance::End => stage.end(&mut findings[1]),
        }
        if advance == Advance::Message {
            entries.extend(timelines.entry().map(|entry| format!("{entry:?}")));
        }
        while let Some(item) = stage.next_item(&timelines, &mut findings[1]) {
            items.push(item);
        }
        if advance == Advance::End {
            break;
        }
    }
    let findings = findings.map(|mut list| list.take().iter().map(|finding| format!("{finding:?}")).collect());
    Reading { entries, items, findings }
}

/// Reads `trace` in all three ways.
pub fn check(plan: &Plan, trace: &[u8]) {
    let [replayed, unreplayed, both] =
        [HttpTaps::Replayed, HttpTaps::Unreplayed, HttpTaps::Both].map(|taps| read(plan, trace, taps));
    assert_eq!(both.entries, replayed.entries);
    assert_eq!(both.findings[0], replayed.findings[0]);
    assert_eq!(both.items, unreplayed.items);
    assert_eq!(both.findings[1], unreplayed.findings[1]);
}
