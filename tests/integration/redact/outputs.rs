//! What the program makes of a trace, and the secrets in it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use etherparse::{LaxNetSlice, LaxSlicedPacket, TransportSlice};
use serde_json::Value;

use super::finder::Finder;
use crate::util::{Dir, Run, TSHARK, convert, tap2pcap};

/// Taken out besides the usual.
pub const REDACT: [&str; 3] = ["--redact", "--redact-header", "x-customer"];

/// Runs a conversion, and expects that it made a capture. What it says about damage is no matter here.
#[track_caller]
pub fn capture(options: &[&str], inputs: &[PathBuf], output: &Path) -> Run {
    let command = tap2pcap().arg("-q").args(options);
    let command = inputs.iter().fold(command, |command, input| command.arg(input));
    let run = command.arg(output).run().expect_no_panic();
    assert!(run.status.code() != Some(2) && output.exists(), "no output{run:?}");
    run
}

/// The bytes that each side of each connection of a capture sent.
pub fn streams(capture: &[u8]) -> Vec<Vec<u8>> {
    let mut streams: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    let mut packet = |bytes: &[u8]| {
        let sliced = LaxSlicedPacket::from_ethernet(bytes).expect("an Ethernet header");
        let Some(TransportSlice::Tcp(tcp)) = &sliced.transport else { return };
        let addresses = match &sliced.net {
            Some(LaxNetSlice::Ipv4(ip)) => [ip.header().source(), ip.header().destination()].concat(),
            Some(LaxNetSlice::Ipv6(ip)) => [ip.header().source(), ip.header().destination()].concat(),
            _ => return,
        };
        let ports = [tcp.source_port(), tcp.destination_port()].map(u16::to_be_bytes).concat();
        let key = [addresses, ports].concat();
        streams.entry(key).or_default().extend(tcp.payload());
    };
    if capture.starts_with(&[0x0a, 0x0d, 0x0d, 0x0a]) {
        let mut reader = pcap_file::pcapng::PcapNgReader::new(capture).unwrap();
        while let Some(block) = reader.next_block() {
            if let Some(block) = block.unwrap().into_enhanced_packet() {
                packet(&block.data);
            }
        }
    } else {
        let mut reader = pcap_file::pcap::PcapReader::new(capture).unwrap();
        while let Some(record) = reader.next_packet() {
            packet(&record.unwrap().data);
        }
    }
    streams.into_values().collect()
}

/// The secrets in a capture.
pub fn in_capture(finder: &Finder, bytes: &[u8]) -> BTreeSet<usize> {
    let mut found = BTreeSet::new();
    finder.search(bytes, &mut found);
    for stream in streams(bytes) {
        finder.search_stream(&stream, &mut found);
    }
    found
}

/// The secrets in all that tshark says about a capture.
pub fn in_dissection(finder: &Finder, capture: &Path) -> BTreeSet<usize> {
    let mut found = BTreeSet::new();
    let decode = ["-d", "tcp.port==8080,http"];
    let args = ["-r", capture.to_str().unwrap(), "-V", "-x"];
    let run = TSHARK.run(args.iter().chain(&decode), &[]);
    finder.search(&run.stdout, &mut found);
    let mut bytes = Vec::new();
    for line in run.stdout.split(|byte| *byte == b'\n') {
        // `0010  48 54 54 50 ...   HTTP...`: a dump goes on over lines. Others may have digits without spaces.
        match dumped(line) {
            Some(more) => bytes.extend(more),
            None => {
                finder.search(&std::mem::take(&mut bytes), &mut found);
                if line.len() > 20 {
                    finder.search_hex(line, &mut found);
                }
            }
        }
    }
    finder.search(&bytes, &mut found);
    found
}

fn dumped(line: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(line.get(..54)?).ok()?;
    let (offset, rest) = text.split_once("  ")?;
    u32::from_str_radix(offset, 16).ok().filter(|_| offset.len() == 4)?;
    Some(rest.split(' ').map_while(|digits| u8::from_str_radix(digits, 16).ok()).collect())
}

/// The secrets in JSON: its text, its strings, and what strings hold in base64.
pub fn in_json(finder: &Finder, text: &[u8]) -> BTreeSet<usize> {
    let mut found = BTreeSet::new();
    finder.search(text, &mut found);
    for value in serde_json::Deserializer::from_slice(text).into_iter::<Value>() {
        in_value(finder, &value.expect("JSON"), &mut found);
    }
    found
}

fn in_value(finder: &Finder, value: &Value, found: &mut BTreeSet<usize>) {
    match value {
        Value::Object(members) => members.values().for_each(|value| in_value(finder, value, found)),
        Value::Array(items) => items.iter().for_each(|value| in_value(finder, value, found)),
        Value::String(text) => {
            finder.search(text.as_bytes(), found);
            if let Ok(bytes) = base64_simd::STANDARD.decode_to_vec(text) {
                finder.search_stream(&bytes, found);
            }
        }
        _ => {}
    }
}

/// The secrets in each output of these traces, by the output's name. `options` are those of redaction.
pub struct Found {
    pub pcapng: BTreeSet<usize>,
    pub pcap: BTreeSet<usize>,
    pub dissection: BTreeSet<usize>,
    pub har: BTreeSet<usize>,
    pub json: BTreeSet<usize>,
    pub table: BTreeSet<usize>,
    pub tables: BTreeSet<usize>,
}

impl Found {
    #[track_caller]
    pub fn in_all(dir: &Dir, finder: &Finder, options: &[&str], input: &Path) -> Self {
        let pcapng = dir.fresh().join("out.pcapng");
        capture(options, &[input.to_owned()], &pcapng);
        let dissection = in_dissection(finder, &pcapng);
        Self { dissection, ..Self::without_dissection(dir, finder, options, input) }
    }

    #[track_caller]
    pub fn without_dissection(dir: &Dir, finder: &Finder, options: &[&str], input: &Path) -> Self {
        let inputs = [input.to_owned()];
        let fresh = dir.fresh();
        let [pcapng, pcap, har] = ["pcapng", "pcap", "har"].map(|suffix| {
            let output = fresh.join(format!("out.{suffix}"));
            capture(options, &inputs, &output);
            output
        });
        let http = |more: &[&str]| tap2pcap().arg("http").args(options).args(more).arg(input).run().expect_no_panic();
        let (json, table) = (http(&["--json"]), http(&[]));
        let tables = tap2pcap().arg("tables").args(options).arg(input).arg("-").run().expect_no_panic();
        let mut in_table = BTreeSet::new();
        finder.search(&table.stdout, &mut in_table);
        // What is said is output as well.
        for said in [&json.stderr, &table.stderr] {
            finder.search(said.as_bytes(), &mut in_table);
        }
        Self {
            pcapng: in_capture(finder, &fs::read(&pcapng).unwrap()),
            pcap: in_capture(finder, &fs::read(&pcap).unwrap()),
            dissection: BTreeSet::new(),
            har: in_json(finder, &fs::read(&har).unwrap()),
            json: in_json(finder, &json.stdout),
            table: in_table,
            tables: in_json(finder, &tables.stdout),
        }
    }

    pub fn each(&self) -> [(&'static str, &BTreeSet<usize>); 7] {
        [
            ("pcapng", &self.pcapng),
            ("pcap", &self.pcap),
            ("tshark -V -x", &self.dissection),
            ("HAR", &self.har),
            ("http --json", &self.json),
            ("http", &self.table),
            ("tables", &self.tables),
        ]
    }
}

/// Converts a trace with all that a conversion says, for tests of single traces.
#[track_caller]
pub fn redacted(dir: &Dir, options: &[&str], trace: &[u8]) -> Vec<u8> {
    let fresh = dir.fresh();
    let (input, output) = (fresh.join("trace_1.pb_length_delimited"), fresh.join("out.pcapng"));
    fs::write(&input, trace).unwrap();
    let run = convert(options, &input, &output).run().expect_no_panic();
    fs::read(&output).unwrap_or_else(|error| panic!("{error}{run:?}"))
}
