//! The same messages in every encoding: what `record` writes is read back, and read as the same.

#![no_main]

use std::path::Path;

use libfuzzer_sys::{Corpus, fuzz_target};
use prost::Message as _;
use prost_types::Timestamp;
use tap2pcap::{
    input::{Detected, Encoding, SourceOptions, detect},
    proto::tap::{SocketEvent, TraceWrapper, socket_streamed_trace_segment::MessagePiece, trace_wrapper::Trace},
    tap::TraceFormat,
    trace::Severity,
};
use tap2pcap_fuzz::{
    messages::{Message, WINDOW, read},
    pieces::Pieces,
};

/// The latest time of RFC 3339, in seconds since 1970; a capture holds none after 2554.
const LATEST: i64 = 18_446_744_073;

fuzz_target!(|data: &[u8]| -> Corpus {
    let mut rest = data;
    let mut traces = Vec::new();
    while let Ok(trace) = TraceWrapper::decode_length_delimited(&mut rest)
        && trace.trace.is_some()
    {
        if times(&trace).any(|time| !(0..LATEST).contains(&time.seconds) || !(0..1_000_000_000).contains(&time.nanos)) {
            return Corpus::Reject;
        }
        traces.push(trace);
    }
    if traces.is_empty() {
        return Corpus::Reject;
    }
    let formats = [
        (TraceFormat::ProtoBinary, Encoding::Binary),
        (TraceFormat::ProtoBinaryLengthDelimited, Encoding::Delimited),
        (TraceFormat::ProtoText, Encoding::Text),
        (TraceFormat::JsonBodyAsBytes, Encoding::Json),
    ];
    let mut first = None;
    for (format, encoding) in formats {
        let mut written = Vec::new();
        traces.iter().for_each(|trace| format.encode(trace, &mut written));
        let path = Path::new("path_0");
        if matches!(encoding, Encoding::Text | Encoding::Json) {
            assert_eq!(detect(&written, path), Detected::Trace(encoding));
        }
        let options = SourceOptions { encoding: Some(encoding), read_size: Some(WINDOW), ..SourceOptions::default() };
        let reading = read(&written, path, Pieces::Whole, options).expect("it was just written");
        let error = reading.findings.iter().find(|finding| finding.code().severity() == Severity::Error);
        assert!(error.is_none(), "{encoding:?}: {error:?} in {}", written.escape_ascii());
        assert_eq!(reading.messages.len(), traces.len(), "{encoding:?}");
        let messages: Vec<_> = reading.messages.into_iter().map(|message| Message { offset: 0, ..message }).collect();
        match &first {
            None => first = Some(messages),
            Some(first) => {
                let difference = first.iter().zip(&messages).find(|(one, other)| one != other);
                assert!(difference.is_none(), "{encoding:?}: {difference:#?}");
            }
        }
    }
    Corpus::Keep
});

/// Every time in a trace.
fn times(trace: &TraceWrapper) -> impl Iterator<Item = Timestamp> {
    let of_events = |events: &[SocketEvent]| events.iter().filter_map(|event| event.timestamp).collect::<Vec<_>>();
    match &trace.trace {
        Some(Trace::SocketBufferedTrace(trace)) => of_events(&trace.events),
        Some(Trace::SocketStreamedTraceSegment(segment)) => match &segment.message_piece {
            Some(MessagePiece::Event(event)) => of_events(std::slice::from_ref(event)),
            Some(MessagePiece::Events(events)) => of_events(&events.events),
            _ => Vec::new(),
        },
        Some(Trace::HttpBufferedTrace(trace)) => [&trace.request, &trace.response]
            .into_iter()
            .flatten()
            .filter_map(|part| part.headers_received_time)
            .collect(),
        _ => Vec::new(),
    }
    .into_iter()
}
