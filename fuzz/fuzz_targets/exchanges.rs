//! Bytes of a connection to exchanges. The input is a list of events: a byte that says which way they went and what is
//! missing, a length, and the bytes.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use prost::Message as _;
use tap2pcap::{
    http::{Attribute, ExchangeRecord, HttpItem, HttpStage, HttpStageOptions, Value},
    input::{Advance, Source, SourceOptions},
    proto::tap::{
        Body, SocketEvent, SocketStreamedTraceSegment, TraceWrapper,
        body::BodyType,
        socket_event::{EventSelector, Read, Write},
        socket_streamed_trace_segment::MessagePiece,
        trace_wrapper::Trace,
    },
    timeline::{HttpTaps, TimelineOptions, Timelines},
    trace::Findings,
};

const MAX_BODY: usize = 1000;

/// A trace in length-delimited encoding, and how many bytes of payload it has.
fn trace(mut data: &[u8]) -> (Vec<u8>, usize) {
    let (mut out, mut total, mut seq_num) = (Vec::new(), 0, 1_u64);
    while let [control, len, rest @ ..] = data {
        let len = usize::from(*len) << if control & 0x80 == 0 { 0 } else { 4 };
        let (bytes, after) = rest.split_at(len.min(rest.len()));
        data = after;
        total += bytes.len();
        let (is_write, truncated, lost, string, numbered) =
            (control & 1 != 0, control & 2 != 0, control & 4 != 0, control & 8 != 0, control & 16 == 0);
        if lost {
            seq_num += u64::from(control >> 5) * 37 + 1;
        }
        let body_type = match std::str::from_utf8(bytes) {
            Ok(text) if string => BodyType::AsString(text.to_owned()),
            _ => BodyType::AsBytes(bytes.to_vec()),
        };
        let data = Some(Body { truncated, body_type: Some(body_type) });
        let selector = match is_write {
            true => EventSelector::Write(Write { data, end_stream: false }),
            false => EventSelector::Read(Read { data }),
        };
        let event = SocketEvent {
            event_selector: Some(selector),
            seq_num: if numbered { seq_num } else { 0 },
            ..SocketEvent::default()
        };
        seq_num += bytes.len() as u64 + if truncated { u64::from(control >> 5) * 41 } else { 0 };
        let segment = SocketStreamedTraceSegment { trace_id: 7, message_piece: Some(MessagePiece::Event(event)) };
        let wrapper =
            TraceWrapper { trace: Some(Trace::SocketStreamedTraceSegment(segment)), ..TraceWrapper::default() };
        wrapper.encode_length_delimited(&mut out).expect("a Vec grows");
    }
    (out, total)
}

fuzz_target!(|data: &[u8]| {
    let (trace, total) = trace(data);
    if trace.is_empty() {
        return;
    }
    let options = SourceOptions { encoding: Some(tap2pcap::input::Encoding::Delimited), ..SourceOptions::default() };
    let reader = Box::new(std::io::Cursor::new(trace));
    let source = Source::from_reader(Path::new("path_0"), reader, options).expect("not empty");
    let mut timelines =
        Timelines::new(source, TimelineOptions { http_taps: HttpTaps::Unreplayed, ..TimelineOptions::default() });
    let mut stage = HttpStage::new(HttpStageOptions { max_body: MAX_BODY, ..HttpStageOptions::default() });
    let mut findings = Findings::default();
    let (mut kept, mut open, mut exchanges) = (0, 0, 0);
    loop {
        let advance = timelines.advance(&mut findings);
        match advance {
            Advance::Message => stage.begin_entry(),
            Advance::NeedInput => timelines.fill(&mut findings),
            Advance::End => stage.end(&mut findings),
        }
        while let Some(item) = stage.next_item(&timelines, &mut findings) {
            let HttpItem::Exchange(exchange) = item else {
                open = 0;
                continue;
            };
            open += 1;
            exchanges += 1;
            let record = ExchangeRecord { exchange: &exchange, end: None, pairing: None, file: "path_0", max_body: MAX_BODY };
            for attribute in Attribute::ALL {
                if let Some(Value::Bytes(bytes)) = attribute.of(record) {
                    assert!(bytes.len() <= MAX_BODY);
                }
            }
            for message in [&exchange.request, &exchange.response] {
                kept += message.body.len();
                assert!(message.body.len() <= MAX_BODY);
                assert!(!message.complete || message.has_head, "{message:?}");
                if let Some(size) = message.size() {
                    assert!(size >= message.body.len() as u64, "{message:?}");
                    assert!(message.total_size().is_some_and(|total| total >= size));
                }
            }
        }
        if advance == Advance::End {
            break;
        }
    }
    // No byte of a body is made up, no exchange has no bytes, and each connection tells its end.
    assert!(kept <= total && exchanges <= total, "{kept} {exchanges} {total}");
    assert_eq!(open, 0);
});
