//! The embedded tap writes what Envoy 1.40 wrote: a real trace that is read and written again is the same file.

use std::{
    fs,
    path::{Path, PathBuf},
};

use prost::Message;
use prost_reflect::{DynamicMessage, MessageDescriptor};
use tap2pcap::{
    proto::{
        DESCRIPTORS,
        tap::{
            Body, SocketBufferedTrace, SocketEvent, TraceWrapper,
            body::BodyType,
            socket_event::{EventSelector, Read},
            trace_wrapper::Trace,
        },
    },
    tap::TraceFormat,
};

fn wrapper() -> MessageDescriptor {
    DESCRIPTORS.get_message_by_name("envoy.data.tap.v3.TraceWrapper").expect("proto/ holds it")
}

/// All traces of the real server in testdata that have this suffix.
fn real_traces(suffix: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/envoy/1.40.0");
    let mut paths: Vec<_> = fs::read_dir(folder)
        .expect("testdata/envoy/1.40.0 is there")
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == suffix))
        .filter(|path| path.file_name().is_some_and(|name| name != "manifest.json"))
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "no *.{suffix}");
    paths.into_iter().map(|path| (path.clone(), fs::read(path).expect("readable"))).collect()
}

fn check(path: &Path, original: &[u8], format: TraceFormat, traces: &[TraceWrapper]) {
    let mut written = Vec::new();
    for trace in traces {
        format.encode(trace, &mut written);
    }
    if written != original {
        let at = written.iter().zip(original).take_while(|(ours, theirs)| ours == theirs).count();
        let near = |bytes: &[u8]| {
            String::from_utf8_lossy(&bytes[at.saturating_sub(60)..bytes.len().min(at + 60)]).into_owned()
        };
        panic!("{}: differs at byte {at}\nours:  {}\nEnvoy: {}", path.display(), near(&written), near(original));
    }
}

#[test]
fn length_delimited_traces_are_written_as_envoy_writes_them() {
    for (path, bytes) in real_traces("pb_length_delimited") {
        let mut rest = bytes.as_slice();
        let mut traces = Vec::new();
        while !rest.is_empty() {
            traces.push(TraceWrapper::decode_length_delimited(&mut rest).expect("a message"));
        }
        check(&path, &bytes, TraceFormat::ProtoBinaryLengthDelimited, &traces);
    }
}

/// The messages of a back-to-back file: each starts with a field of `TraceWrapper.trace`, all of which are
/// length-delimited and have one-byte tags.
fn back_to_back(bytes: &[u8]) -> Vec<TraceWrapper> {
    const SAMPLE_RATE: u8 = 5 << 3 | 2;
    let mut messages: Vec<Vec<u8>> = Vec::new();
    let mut rest = bytes;
    while let Some((&tag, mut after)) = rest.split_first() {
        let len = prost::decode_length_delimiter(&mut after).expect("a length");
        let field = &rest[..rest.len() - after.len() + len];
        rest = &rest[field.len()..];
        match messages.last_mut() {
            Some(last) if tag == SAMPLE_RATE => last.extend_from_slice(field),
            _ => messages.push(field.to_vec()),
        }
    }
    messages.iter().map(|message| TraceWrapper::decode(message.as_slice()).expect("a message")).collect()
}

#[test]
fn binary_traces_are_written_as_envoy_writes_them() {
    for (path, bytes) in real_traces("pb") {
        check(&path, &bytes, TraceFormat::ProtoBinary, &back_to_back(&bytes));
    }
}

#[test]
fn text_traces_are_written_as_envoy_writes_them() {
    for (path, bytes) in real_traces("pb_text") {
        let text = String::from_utf8(bytes.clone()).expect("Envoy escapes everything else");
        let mut traces: Vec<TraceWrapper> = Vec::new();
        for message in text.split_inclusive("\n}\n") {
            let message = DynamicMessage::parse_text_format(wrapper(), message).expect("a message");
            let trace: TraceWrapper = message.transcode_to().expect("the same message");
            match traces.last_mut() {
                Some(last) if trace.trace.is_none() => last.configured_sample_rate = trace.configured_sample_rate,
                _ => traces.push(trace),
            }
        }
        check(&path, &bytes, TraceFormat::ProtoText, &traces);
    }
}

#[test]
fn json_traces_are_written_as_envoy_writes_them() {
    for (path, bytes) in real_traces("json") {
        let traces: Vec<TraceWrapper> = serde_json::Deserializer::from_slice(&bytes)
            .into_iter::<serde_json::Value>()
            .map(|value| DynamicMessage::deserialize(wrapper(), value.expect("an object")).expect("a message"))
            .map(|message| message.transcode_to().expect("the same message"))
            .collect();
        check(&path, &bytes, TraceFormat::JsonBodyAsBytes, &traces);
    }
}

/// JSON_BODY_AS_STRING of bytes that are not UTF-8, and of text that has to be escaped: `strings.bin` was sent through
/// Envoy 1.40.0, and `strings.json` is what its tap wrote.
#[test]
fn bodies_as_strings_are_escaped_as_envoy_escapes_them() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/envoy/1.40.0-strings");
    let body = fs::read(folder.join("strings.bin")).expect("readable");
    let original = fs::read(folder.join("strings.json")).expect("readable");
    let trace = TraceWrapper {
        trace: Some(Trace::SocketBufferedTrace(SocketBufferedTrace {
            events: vec![SocketEvent {
                event_selector: Some(EventSelector::Read(Read {
                    data: Some(Body { body_type: Some(BodyType::AsBytes(body)), truncated: false }),
                })),
                ..SocketEvent::default()
            }],
            ..SocketBufferedTrace::default()
        })),
        configured_sample_rate: None,
    };
    let mut written = Vec::new();
    TraceFormat::JsonBodyAsString.encode(&trace, &mut written);
    let line = |json: &[u8]| {
        let mut lines = json.split(|byte| *byte == b'\n').map(<[u8]>::to_vec);
        lines.find(|line| line.trim_ascii_start().starts_with(b"\"as_string\"")).expect("a body")
    };
    assert_eq!(line(&written).escape_ascii().to_string(), line(&original).escape_ascii().to_string());
}
