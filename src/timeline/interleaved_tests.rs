//! Segments of several connections that come in turn, as in an admin stream. They share batches if they are there at
//! once, and what is told of them must not depend on that.

use std::{
    io::{self, Read},
    path::Path,
};

use proptest::{collection::vec, prelude::*};
use prost_types::Timestamp;

use super::{Entries, RoleChoice, TimelineOptions};
use crate::{
    input::{Encoding, Source, SourceOptions},
    proto::tap::{
        self, Connection, SocketEvent, SocketStreamedTraceSegment, TraceWrapper,
        body::BodyType,
        socket_event::{Closed, EventSelector, Read as ReadEvent, Write as WriteEvent},
        socket_streamed_trace_segment::MessagePiece,
        trace_wrapper::Trace,
    },
    tap::TraceFormat,
};

/// Returns one segment with each read.
struct OneByOne(Vec<Vec<u8>>);

impl Read for OneByOne {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(segment) = self.0.first_mut() else { return Ok(0) };
        let count = segment.len().min(buffer.len());
        buffer[..count].copy_from_slice(&segment[..count]);
        segment.drain(..count);
        if segment.is_empty() {
            self.0.remove(0);
        }
        Ok(count)
    }
}

/// What a segment holds, besides the usual.
#[derive(Clone, Copy, Debug)]
enum What {
    Plain,
    Truncated,
    AsString,
    WithoutTime,
    WithoutSeqNum,
    AfterLoss,
    EndStream,
    Connection,
    Closed,
}

/// A segment of one of a few connections. Some numbers share a slot of the recent ones.
fn segment() -> impl Strategy<Value = (u64, What, bool, usize)> {
    let what = prop_oneof![
        24 => Just(What::Plain),
        1 => Just(What::Truncated),
        1 => Just(What::AsString),
        1 => Just(What::WithoutTime),
        1 => Just(What::WithoutSeqNum),
        1 => Just(What::AfterLoss),
        1 => Just(What::EndStream),
        1 => Just(What::Connection),
        1 => Just(What::Closed),
    ];
    (prop_oneof![Just(0), Just(1), Just(2), Just(129), Just(257), Just(u64::MAX)], what, any::<bool>(), 0..40_usize)
}

fn encoded(segments: &[(u64, What, bool, usize)], format: TraceFormat) -> Vec<Vec<u8>> {
    let mut next = std::collections::HashMap::new();
    let mut messages = Vec::new();
    for (index, (trace_id, what, write, len)) in segments.iter().enumerate() {
        let seq_num = next.entry(*trace_id).or_insert(1_u64);
        if matches!(what, What::AfterLoss) {
            *seq_num += 7;
        }
        let truncated = matches!(what, What::Truncated);
        let payload = vec![b'a' + (index % 26) as u8; *len];
        let body_type = match what {
            What::AsString => BodyType::AsString(String::from_utf8(payload).unwrap()),
            _ => BodyType::AsBytes(payload),
        };
        let data = Some(tap::Body { body_type: Some(body_type), truncated });
        let selector = match (what, write) {
            (What::Closed, _) => EventSelector::Closed(Closed {}),
            (What::EndStream, _) => EventSelector::Write(WriteEvent { data, end_stream: true }),
            (_, true) => EventSelector::Write(WriteEvent { data, end_stream: false }),
            (_, false) => EventSelector::Read(ReadEvent { data }),
        };
        let timestamp = Timestamp { seconds: 1_700_000_000, nanos: 1000 * index as i32 };
        let event = SocketEvent {
            timestamp: (!matches!(what, What::WithoutTime)).then_some(timestamp),
            event_selector: Some(selector),
            seq_num: if matches!(what, What::WithoutSeqNum) { 0 } else { *seq_num },
            ..SocketEvent::default()
        };
        // Envoy's limit cut some bytes that the next event counts.
        *seq_num += *len as u64 + if truncated { 5 } else { 0 };
        let piece = match what {
            What::Connection => MessagePiece::Connection(Connection::default()),
            _ => MessagePiece::Event(event),
        };
        if matches!(what, What::Connection | What::Closed) {
            *seq_num = 1;
        }
        let segment = SocketStreamedTraceSegment { trace_id: *trace_id, message_piece: Some(piece) };
        let trace = Some(Trace::SocketStreamedTraceSegment(segment));
        let mut bytes = Vec::new();
        format.encode(&TraceWrapper { trace, configured_sample_rate: None }, &mut bytes);
        messages.push(bytes);
    }
    messages
}

/// All that is told of a source: its entries, the openings of their connections, their totals, and findings.
fn told(messages: Vec<Vec<u8>>, encoding: Encoding, options: TimelineOptions) -> Vec<String> {
    let source = SourceOptions { encoding: Some(encoding), ..SourceOptions::default() };
    let source = Source::from_reader(Path::new("path_0"), Box::new(OneByOne(messages)), source).unwrap();
    let mut entries = Entries::new(source, options);
    let mut told = Vec::new();
    while let Some(view) = entries.next_entry() {
        told.push(format!("{:?} {:?} {:?}", view.entry.into_owned(), view.opening, view.summary));
    }
    told.extend(entries.take_findings().iter().map(|finding| format!("{finding:?}")));
    told
}

proptest! {
    #[test]
    fn what_is_told_does_not_depend_on_batches(
        segments in vec(segment(), 1..300),
        join: bool,
        max_connections in prop_oneof![Just(None), Just(Some(2))],
    ) {
        let options = TimelineOptions { join, max_connections, role: RoleChoice::Auto, ..TimelineOptions::default() };
        for (format, encoding) in [
            (TraceFormat::ProtoBinary, Encoding::Binary),
            (TraceFormat::ProtoBinaryLengthDelimited, Encoding::Delimited),
            (TraceFormat::ProtoText, Encoding::Text),
            (TraceFormat::JsonBodyAsBytes, Encoding::Json),
        ] {
            let messages = encoded(&segments, format);
            let at_once = told(vec![messages.concat()], encoding, options);
            let one_by_one = told(messages, encoding, options);
            prop_assert_eq!(at_once.len(), one_by_one.len(), "{:?}", encoding);
            for (at_once, one_by_one) in at_once.iter().zip(&one_by_one) {
                prop_assert_eq!(at_once, one_by_one, "{:?}", encoding);
            }
        }
    }
}
