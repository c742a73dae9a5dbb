//! Everything that a source says, in a form that can be compared: no window, no spans.

use std::path::Path;

use tap2pcap::{
    input::{Advance, Encoding, InputError, Source, SourceOptions},
    trace::{
        Connection, Event, EventKind, Finding, Findings, HttpPart, HttpSide, MessageView, Nanos, Place, TimeError,
        TraceKind,
    },
};

use crate::pieces::{InPieces, Pieces};

/// Bytes of a window that holds any input at once. The program's own is larger, and takes longer to clear than an
/// input takes to read.
pub const WINDOW: usize = 16 << 10;

/// All that came of a source.
#[derive(Debug, PartialEq, Eq)]
pub struct Reading {
    pub messages: Vec<Message>,
    pub findings: Vec<Finding>,
    pub unknown: u64,
    pub decoded: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub offset: u64,
    pub index: u64,
    pub kind: Option<TraceKind>,
    pub trace_id: u64,
    pub connection: Option<Connection>,
    pub upstream_connection: Option<Connection>,
    pub truncated: (bool, bool),
    pub cut: bool,
    pub bad_time: Option<TimeError>,
    pub bad_times: u64,
    pub events: Vec<OneEvent>,
    pub http: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OneEvent {
    pub time: Option<Nanos>,
    pub kind: EventKind,
    pub body: Body,
    pub end_stream: bool,
    pub seq_num: u64,
    pub connection: Option<Connection>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    pub bytes: Vec<u8>,
    pub truncated: bool,
    pub as_string: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    pub side: HttpSide,
    pub part: HttpPart,
    pub headers: Vec<(Vec<u8>, Vec<u8>)>,
    pub body: Body,
    pub time: Option<Nanos>,
}

impl Message {
    /// The messages of a batch one by one: how many share one depends on how many are there.
    fn all_of(view: MessageView<'_>) -> Vec<Self> {
        let message = view.message();
        let mut whole = Self::of(view);
        if message.count() == 1 {
            return vec![whole];
        }
        let events = std::mem::take(&mut whole.events);
        assert!(message.count() == events.len() as u64 && message.events.iter().all(Event::is_plain));
        let one = |(event, one)| {
            let Place { offset, message: index } = message.place_of(event);
            Self { offset, index, trace_id: message.trace_id_of(event), events: vec![one], ..whole.clone() }
        };
        events.into_iter().enumerate().map(one).collect()
    }

    fn of(view: MessageView<'_>) -> Self {
        let message = view.message();
        let body = |body: tap2pcap::trace::Body| Body {
            bytes: view.bytes(body.payload).to_owned(),
            truncated: body.truncated,
            as_string: body.as_string,
        };
        let event = |event: &Event| OneEvent {
            time: event.time,
            kind: event.kind,
            body: body(event.body),
            end_stream: event.end_stream,
            seq_num: event.seq_num,
            connection: event.connection.map(|index| message.event_connections[index as usize].clone()),
        };
        let http = message.http.iter().map(|piece| Piece {
            side: piece.side,
            part: piece.part,
            headers: view
                .headers(piece)
                .iter()
                .map(|header| (view.bytes(header.key).to_owned(), view.bytes(header.value).to_owned()))
                .collect(),
            body: body(piece.body),
            time: piece.time,
        });
        Self {
            offset: message.offset,
            index: message.index,
            kind: message.kind,
            trace_id: message.trace_id,
            connection: message.connection.clone(),
            upstream_connection: message.upstream_connection.clone(),
            truncated: (message.read_truncated, message.write_truncated),
            cut: message.cut,
            bad_time: message.bad_time,
            bad_times: message.bad_times,
            events: message.events.iter().map(event).collect(),
            http: http.collect(),
        }
    }
}

/// Reads `data` to its end.
pub fn read(data: &[u8], path: &Path, pieces: Pieces, options: SourceOptions) -> Result<Reading, InputError> {
    let mut source = Source::from_reader(path, InPieces::new(data, pieces), options)?;
    let reading = read_source(&mut source);
    assert!(source.bytes_read() <= data.len() as u64, "more bytes than there are");
    assert!(source.offset() <= data.len() as u64);
    Ok(reading)
}

/// Reads a source to its end.
pub fn read_source(source: &mut Source) -> Reading {
    let mut messages = Vec::new();
    let (mut findings, mut found) = (Vec::new(), Findings::default());
    loop {
        match source.advance(&mut found) {
            Advance::Message => messages.extend(Message::all_of(source.message())),
            Advance::NeedInput => source.fill(&mut found),
            Advance::End => break,
        }
        findings.append(&mut found.take());
    }
    findings.append(&mut found.take());
    let (unknown, decoded) = (source.unknown_fields().total(), source.decoded());
    Reading { messages, findings, unknown, decoded }
}

/// Reads `data` in pieces of several sizes: what comes of it must not depend on them.
pub fn decode(data: &[u8], encoding: Encoding) {
    let path = Path::new("path_0");
    let given = |read_size, max_message| SourceOptions {
        encoding: Some(encoding),
        read_size: Some(read_size),
        max_message,
        ..SourceOptions::default()
    };
    let Ok(whole) = read(data, path, Pieces::Whole, given(WINDOW, None)) else {
        assert!(data.is_empty(), "a source of a given encoding is refused only if it is empty");
        return;
    };
    check(&whole, data);
    for (pieces, read_size) in [(Pieces::small(data), 64), (Pieces::Mixed(data.len() as u64), 512)] {
        let other = read(data, path, pieces, given(read_size, None)).expect("it was read before");
        let difference = whole.messages.iter().zip(&other.messages).find(|(one, other)| one != other);
        assert!(difference.is_none(), "by {pieces:?}: {difference:#?}");
        assert_eq!(whole.messages.len(), other.messages.len(), "by {pieces:?}");
        assert_eq!(whole.findings, other.findings, "by {pieces:?}");
        assert_eq!((whole.unknown, whole.decoded), (other.unknown, other.decoded), "by {pieces:?}");
    }
    // Of damaged bytes, what a limit passes over is a matter of taste; it holds anyway.
    let limited = read(data, path, Pieces::Mixed(1), given(64, Some(100))).expect("it was read before");
    check(&limited, data);
}

fn check(reading: &Reading, data: &[u8]) {
    let len = data.len() as u64;
    assert!(reading.decoded == reading.messages.len() as u64);
    assert!(reading.messages.iter().all(|message| message.offset <= len));
    assert!(reading.messages.is_sorted_by(|one, next| one.offset <= next.offset && one.index < next.index));
    assert!(reading.findings.iter().all(|finding| finding.place.offset <= len), "{:?}", reading.findings);
    let payload = |message: &Message| {
        let events = message.events.iter().map(|event| event.body.bytes.len());
        events.chain(message.http.iter().map(|piece| piece.body.bytes.len())).sum::<usize>()
    };
    let payload: usize = reading.messages.iter().map(payload).sum();
    // JSON_BODY_AS_STRING and text make at most what stands there, and a byte is never read twice.
    assert!(payload <= data.len(), "{payload} bytes of {}", data.len());
}
