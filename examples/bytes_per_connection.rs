//! Uses the library as your own program would: it opens traces, walks through what happened on their connections, and
//! prints for every connection the bytes in each direction and how many of them are missing.
//!
//! `cargo run --example bytes_per_connection -- TRACE...`

use std::{env, error::Error, path::Path};

use tap2pcap::{
    input::{self, Source, trace_stem},
    timeline::{self, Direction, DirectionTotals, EndpointTable, Entries},
};

fn main() -> Result<(), Box<dyn Error>> {
    for path in env::args_os().skip(1) {
        print_connections(Path::new(&path))?;
    }
    Ok(())
}

fn print_connections(path: &Path) -> Result<(), Box<dyn Error>> {
    let source = Source::open(path, input::SourceOptions::default())?;
    let mut entries = Entries::new(source, timeline::TimelineOptions::default());
    // The table turns the addresses in the trace (sockets, pipes, or none at all) into IP addresses and ports.
    let mut table = EndpointTable::default();
    // An entry of the kind `Data` has the bytes themselves. They are borrowed until the next call.
    while let Some(view) = entries.next_entry() {
        if let Some(summary) = view.summary {
            let endpoints = table.open(&trace_stem(path), &summary.opening);
            table.close(&endpoints);
            let timeline::AddressPair(client, server) = endpoints.tuple(summary.opening.role);
            let [read, wrote] = [Direction::Inbound, Direction::Outbound].map(|way| summary.sides[way.index()]);
            println!("{client} -> {server}: Envoy read {}, wrote {}", bytes(read), bytes(wrote));
        }
    }
    for finding in entries.take_findings() {
        eprintln!("{}: {finding}", path.display());
    }
    Ok(())
}

fn bytes(side: DirectionTotals) -> String {
    let present = side.bytes;
    match (side.lost, side.open_ended) {
        (0, 0) => format!("{present} bytes"),
        (lost, 0) => format!("{present} of {} bytes", present + lost),
        (lost, _) => format!("{present} of more than {} bytes", present + lost),
    }
}
