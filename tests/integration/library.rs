//! The library as programs use it.

use std::{collections::BTreeMap, fs, path::Path};

use tap2pcap::{
    ConvertError, ConvertOptions,
    capture::CaptureFormat,
    convert,
    input::{self, InputError, Source},
    synth::{self, SettingNames, TcpMode},
    timeline::{self, Entries, EntryKind, HttpOptions, Role, RoleChoice, VersionChoice},
    trace::{Code, Findings, Severity},
};

use crate::util::{self, Dir};

/// Traces of each kind and in every encoding, and one with a flaw.
const TRACES: [&str; 6] = [
    WHOLE,
    "testdata/envoy/1.36.2/uds_str_250.pb_length_delimited",
    "testdata/envoy/1.36.2/udsup_buf_191.json",
    "testdata/http/grpc_streaming.pb_text",
    "testdata/http/grpc_unary_streamed.json",
    "testdata/faults/firstbad.pb",
];

const WHOLE: &str = "testdata/envoy/1.40.0/h1_str_PROTO_BINARY_133.pb";

/// The names that the program gives its settings in comments.
static NAMES: SettingNames = SettingNames { role: "--role", start_time: "--start-time", mss: "--mss", map: "--map" };

#[test]
fn the_library_writes_the_bytes_that_the_program_writes() {
    let dir = Dir::new("library-bytes");
    let changed = ConvertOptions {
        timeline: timeline::TimelineOptions {
            role: RoleChoice::Always(Role::Upstream),
            http: HttpOptions { version: VersionChoice::Two, ..HttpOptions::default() },
            ..timeline::TimelineOptions::default()
        },
        synth: synth::SynthOptions {
            tcp: TcpMode::Bare,
            mss: Some(100),
            names: &NAMES,
            ..synth::SynthOptions::default()
        },
        map: vec!["local=192.0.2.1:999".parse().unwrap()],
        ..ConvertOptions::default()
    };
    let args = ["--role", "upstream", "--http", "2", "--tcp", "bare", "--mss", "100", "--map", "local=192.0.2.1:999"];
    for trace in TRACES.map(Path::new) {
        for (suffix, format) in
            [("pcapng", None), ("pcap", None), ("pcap.gz", None), ("x", Some(CaptureFormat::PcapMicros))]
        {
            for (options, args) in [(&ConvertOptions::default(), &[][..]), (&changed, &args[..])] {
                let options = ConvertOptions { format, ..options.clone() };
                let mut args = args.to_vec();
                if format.is_some() {
                    args.extend(["-F", "pcap", "--precision", "us"]);
                }
                let (ours, theirs) = (dir.join(format!("library.{suffix}")), dir.join(format!("program.{suffix}")));
                let done = convert(trace, &ours, &options).unwrap();
                util::convert(&args, trace, &theirs).run().expect_status(i32::from(done.errors > 0));
                assert!(done.connections > 0 && done.packets > 0, "{trace:?}: {done:?}");
                assert!(fs::read(&ours).unwrap() == fs::read(&theirs).unwrap(), "{trace:?} {args:?} {suffix}");
            }
        }
    }
}

#[test]
fn a_damaged_trace_is_converted_and_its_findings_are_handed_over() {
    let dir = Dir::new("library-damaged");
    let whole = fs::read(WHOLE).unwrap();
    let trace = dir.create("cut.pb", &whole[..whole.len() - 10]);
    let done = convert(&trace, dir.join("cut.pcapng"), &ConvertOptions::default()).unwrap();
    let errors = done.findings.iter().filter(|finding| finding.code().severity() == Severity::Error).count();
    assert_eq!((done.errors, errors), (1, 1), "{done:?}");
    assert!(done.findings.iter().any(|finding| finding.code() == Code::CutOff), "{done:?}");
    assert!(dir.join("cut.pcapng").is_file());
}

#[test]
fn what_is_not_converted_says_why_and_leaves_no_file() {
    let dir = Dir::new("library-refused");
    let trace = dir.create("trace.pb", fs::read(WHOLE).unwrap());
    let other = dir.create("other.pb", b"GIF89a and so on, which is no trace".repeat(9));
    let convert = |input: &Path, output: &str| convert(input, dir.join(output), &ConvertOptions::default());
    let no_trace = convert(&other, "other.pcapng").unwrap_err();
    assert!(matches!(no_trace, ConvertError::Input(InputError::Unrecognised { .. })), "{no_trace:?}");
    let missing = convert(&dir.join("none.pb"), "none.pcapng").unwrap_err();
    assert!(matches!(missing, ConvertError::Input(InputError::Read { .. })), "{missing:?}");
    let unknown = convert(&trace, "trace.xyz").unwrap_err();
    assert!(matches!(unknown, ConvertError::UnknownFormat(_)), "{unknown:?}");
    let har = convert(&trace, "trace.har").unwrap_err();
    assert!(matches!(har, ConvertError::UnknownFormat(_)), "{har:?}");
    let same = convert(&trace, "trace.pb").unwrap_err();
    assert!(matches!(same, ConvertError::SameFile(_)), "{same:?}");
    let no_directory = convert(&trace, "none/trace.pcapng").unwrap_err();
    assert!(matches!(no_directory, ConvertError::Output(_)), "{no_directory:?}");
    assert_eq!(dir.names(), ["other.pb", "trace.pb"]);
}

#[test]
fn messages_come_one_after_the_other_to_the_end_of_the_source() {
    for trace in TRACES {
        let mut source = Source::open(trace.as_ref(), input::SourceOptions::default()).unwrap();
        let (mut messages, mut last) = (0, None);
        while let Some(view) = source.next_message(&mut Findings::default()) {
            messages += view.message().count();
            assert!(last < Some(view.message().index), "{trace}");
            last = Some(view.message().index);
        }
        assert!(messages > 0 && messages == source.decoded(), "{trace}");
        assert!(source.next_message(&mut Findings::default()).is_none());
    }
}

#[test]
fn entries_come_with_their_connection_and_copies_of_them_have_the_same_bytes() {
    for trace in TRACES {
        let entries = || {
            let source = Source::open(trace.as_ref(), input::SourceOptions::default()).unwrap();
            Entries::new(source, timeline::TimelineOptions::default())
        };
        let copies: Vec<_> = entries().owned().collect();
        let mut bytes = BTreeMap::new();
        let mut index = 0;
        let mut entries = entries();
        while let Some(view) = entries.next_entry() {
            assert_eq!(view.entry.into_owned(), copies[index], "{trace}");
            index += 1;
            if let EntryKind::Data(data) = view.entry.kind {
                let sides: &mut [u64; 2] = bytes.entry(view.entry.connection).or_default();
                sides[data.direction.index()] += data.payload.len() as u64;
            }
            let is_last = matches!(view.entry.kind, EntryKind::Closed { .. } | EntryKind::Abandoned);
            assert_eq!(view.summary.is_some(), is_last, "{trace}");
            if let Some(summary) = view.summary {
                assert_eq!(summary.opening.trace_id, view.opening.trace_id, "{trace}");
                let counted = bytes.remove(&view.entry.connection).unwrap_or_default();
                assert_eq!(summary.sides.map(|side| side.bytes), counted, "{trace}");
            }
        }
        assert!(index > 0 && index == copies.len() && bytes.is_empty(), "{trace}");
    }
}
