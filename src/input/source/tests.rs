//! What is read from a source must not depend on how its bytes arrive.

use std::io;

use proptest::{collection::vec, prelude::*};
use prost_types::Timestamp;

use super::*;
use crate::{
    proto::tap::{
        self, SocketEvent, SocketEvents, SocketStreamedTraceSegment, TraceWrapper,
        body::BodyType,
        socket_event::{EventSelector, Read as ReadEvent},
        socket_streamed_trace_segment::MessagePiece,
        trace_wrapper::Trace,
    },
    tap::TraceFormat,
    trace::MAX_BATCH,
};

/// A reader that returns as many bytes at a time as `pieces` says, in turn.
struct Trickle {
    bytes: Vec<u8>,
    at: usize,
    pieces: Vec<usize>,
    turn: usize,
}

impl Read for Trickle {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let piece = self.pieces[self.turn % self.pieces.len()];
        self.turn += 1;
        let count = piece.min(buffer.len()).min(self.bytes.len() - self.at);
        buffer[..count].copy_from_slice(&self.bytes[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

/// All that is read from a source: the place and the payload's length of each event, and the findings.
type Said = (Vec<(u64, u64, usize)>, Vec<Finding>);

fn read(bytes: &[u8], options: SourceOptions, pieces: &[usize], peeks: bool) -> Said {
    let reader = Trickle { bytes: bytes.to_vec(), at: 0, pieces: pieces.to_vec(), turn: 0 };
    let mut source = Source::from_reader(Path::new("path_0"), Box::new(reader), options).unwrap();
    let (mut events, mut findings, mut found) = (Vec::new(), Vec::new(), Findings::default());
    // Every message takes a few bytes and a few steps, so a source that takes more steps makes no progress.
    for _ in 0..100 * (bytes.len() + 10) {
        let advance = source.advance(&mut found);
        findings.extend(found.take());
        match advance {
            Advance::Message => {
                let message = source.records();
                for (index, event) in message.events.iter().enumerate() {
                    let Place { offset, message: number } = message.place_of(index);
                    events.push((offset, number, event.body.payload.len()));
                }
                if peeks && matches!(source.peek(), Peek::NeedInput) {
                    source.fill(&mut found);
                    let _ = source.peek();
                }
            }
            Advance::NeedInput => source.fill(&mut found),
            Advance::End => return (events, findings),
        }
    }
    panic!("no end of {} bytes", bytes.len());
}

fn wrapper(trace_id: u64, payload: usize, alone: bool) -> TraceWrapper {
    let data = Some(tap::Body { body_type: Some(BodyType::AsBytes(vec![b'"'; payload])), truncated: false });
    let event = SocketEvent {
        timestamp: Some(Timestamp { seconds: 1_700_000_000, nanos: 5 }),
        event_selector: Some(EventSelector::Read(ReadEvent { data })),
        ..SocketEvent::default()
    };
    let piece =
        if alone { MessagePiece::Event(event) } else { MessagePiece::Events(SocketEvents { events: vec![event] }) };
    let segment = SocketStreamedTraceSegment { trace_id, message_piece: Some(piece) };
    TraceWrapper { trace: Some(Trace::SocketStreamedTraceSegment(segment)), configured_sample_rate: None }
}

const FORMATS: [(TraceFormat, Encoding); 4] = [
    (TraceFormat::ProtoBinary, Encoding::Binary),
    (TraceFormat::ProtoBinaryLengthDelimited, Encoding::Delimited),
    (TraceFormat::ProtoText, Encoding::Text),
    (TraceFormat::JsonBodyAsBytes, Encoding::Json),
];

proptest! {
    /// Exactly the messages over the limit are passed over, wherever reads end.
    #[test]
    fn the_limit_holds_for_every_message_however_the_bytes_arrive(
        messages in vec((0..300_usize, any::<bool>()), 1..12),
        limit in 64..600_usize,
        exact in proptest::option::of(any::<proptest::sample::Index>()),
        pieces in vec(1..400_usize, 1..5),
        read_size in proptest::option::of(64..2000_usize),
        cut in proptest::option::of(1..60_usize),
        peeks: bool,
    ) {
        for (format, encoding) in FORMATS {
            let (mut bytes, mut sizes) = (Vec::new(), Vec::new());
            for (payload, alone) in &messages {
                let before = bytes.len();
                format.encode(&wrapper(7, *payload, *alone), &mut bytes);
                sizes.push(bytes[before..].trim_ascii_end().len());
            }
            // The limit is exactly the size of one of the messages.
            let limit = exact.map_or(limit, |exact| exact.get(&sizes).max(&64).to_owned());
            let options =
                SourceOptions { encoding: Some(encoding), max_message: Some(limit), read_size, ..SourceOptions::default() };
            let whole = read(&bytes, SourceOptions { read_size: None, ..options }, &[usize::MAX], false);
            let (fits, large): (Vec<_>, Vec<_>) =
                (0..).zip(&messages).zip(&sizes).partition(|(_, size)| **size <= limit);
            let of_events: Vec<_> = whole.0.iter().map(|event| (event.1, event.2)).collect();
            let expected: Vec<_> = fits.iter().map(|((index, (payload, _)), _)| (*index, *payload)).collect();
            prop_assert_eq!(&of_events, &expected, "{:?}", encoding);
            let too_large: Vec<_> = whole.1.iter().map(|finding| (finding.code(), finding.place.message)).collect();
            let expected: Vec<_> = large.iter().map(|((index, _), _)| (Code::TooLarge, *index)).collect();
            prop_assert_eq!(&too_large, &expected, "{:?}", encoding);
            prop_assert_eq!(&read(&bytes, options, &pieces, peeks), &whole, "{:?}", encoding);
            // The same holds if the source is cut.
            if let Some(cut) = cut {
                bytes.truncate(bytes.len().saturating_sub(cut).max(1));
                let whole = read(&bytes, SourceOptions { read_size: None, ..options }, &[usize::MAX], false);
                prop_assert_eq!(&read(&bytes, options, &pieces, peeks), &whole, "{:?}, cut", encoding);
            }
        }
    }
}

/// A trace of streamed segments with one plain event each, for these connections; and where each segment begins.
fn segments(format: TraceFormat, connections: &[u64], payload: usize) -> (Vec<u8>, Vec<u64>) {
    let (mut bytes, mut begins) = (Vec::new(), Vec::new());
    for connection in connections {
        begins.push(bytes.len() as u64);
        format.encode(&wrapper(*connection, payload, true), &mut bytes);
    }
    (bytes, begins)
}

/// The `trace_id` of each event of each batch of a trace.
fn batches(bytes: &[u8], encoding: Encoding, pieces: &[usize]) -> Vec<Vec<u64>> {
    let options = SourceOptions { encoding: Some(encoding), ..SourceOptions::default() };
    let reader = Trickle { bytes: bytes.to_vec(), at: 0, pieces: pieces.to_vec(), turn: 0 };
    let mut source = Source::from_reader(Path::new("path_0"), Box::new(reader), options).unwrap();
    let mut batches = Vec::new();
    loop {
        match source.advance(&mut Findings::default()) {
            Advance::Message => {
                let message = source.records();
                batches.push((0..message.events.len()).map(|event| message.trace_id_of(event)).collect());
            }
            Advance::NeedInput => source.fill(&mut Findings::default()),
            Advance::End => return batches,
        }
    }
}

#[test]
fn each_event_of_a_batch_has_its_place_and_its_connection() {
    let connections = [[7; 5].as_slice(), &[8; 3], &[7], &[9; 900]].concat();
    for (format, encoding) in FORMATS {
        let (bytes, begins) = segments(format, &connections, 100);
        let options = SourceOptions { encoding: Some(encoding), ..SourceOptions::default() };
        let (events, findings) = read(&bytes, options, &[usize::MAX], false);
        let expected: Vec<_> = begins.into_iter().zip(0..).map(|(begin, index)| (begin, index, 100)).collect();
        assert_eq!((events, findings), (expected, Vec::new()), "{encoding:?}");
        let batches = batches(&bytes, encoding, &[usize::MAX]);
        assert_eq!(batches.concat(), connections, "{encoding:?}");
        assert_eq!(batches.iter().map(Vec::len).max(), Some(MAX_BATCH), "{encoding:?}");
        // A batch also ends where a read has ended, and the first reads are small.
        assert!(batches.len() <= connections.len().div_ceil(MAX_BATCH) + 4, "{encoding:?}: {}", batches.len());
    }
}

/// A batch does not wait for events that have not arrived.
#[test]
fn a_batch_ends_where_the_input_that_is_there_ends() {
    for (format, encoding) in FORMATS {
        let (bytes, begins) = segments(format, &[7; 10], 100);
        // The first read ends inside the third segment.
        let (first, rest) = (begins[3] as usize - 2, bytes.len());
        let sizes: Vec<_> = batches(&bytes, encoding, &[first, rest]).iter().map(Vec::len).collect();
        assert_eq!(sizes, [2, 8], "{encoding:?}");
    }
}

#[test]
fn a_payload_that_is_long_to_copy_is_not_copied_into_a_batch() {
    for (format, encoding) in FORMATS {
        let (bytes, _) = segments(format, &[7; 3], 2_000);
        let sizes: Vec<_> = batches(&bytes, encoding, &[usize::MAX]).iter().map(Vec::len).collect();
        // In the binary encodings, payloads stay in the window.
        let is_wire = matches!(encoding, Encoding::Binary | Encoding::Delimited);
        assert_eq!(sizes, if is_wire { vec![3] } else { vec![1; 3] }, "{encoding:?}");
    }
}

/// No message fits a limit of 0 bytes, but a library user may ask for it.
#[test]
fn no_limit_is_too_small_to_get_on() {
    for (format, encoding) in FORMATS {
        let mut bytes = Vec::new();
        (0..5).for_each(|_| format.encode(&wrapper(7, 100, true), &mut bytes));
        for least in 0..3 {
            let options = SourceOptions {
                encoding: Some(encoding),
                layers: Layers::default(),
                max_message: Some(least),
                max_events: Some(least),
                max_headers: Some(least),
                read_size: Some(least),
            };
            let (events, findings) = read(&bytes, options, &[1000], true);
            assert_eq!((events.len(), findings.len()), (0, 5), "{encoding:?}");
        }
    }
}
