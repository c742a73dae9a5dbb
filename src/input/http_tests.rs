//! Random HTTP tap traces and what they mean, for the tests of every decoder.

use proptest::{collection::vec, option, prelude::*};

use crate::{
    proto::{
        envoy::config::core::v3 as core,
        tap::{
            self, body::BodyType, http_buffered_trace, http_streamed_trace_segment::MessagePiece, trace_wrapper::Trace,
        },
    },
    trace::{HttpPart, HttpSide, MessageView, Nanos, TraceKind, nanos_from_timestamp},
};

/// A part of an exchange that outlives its window.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct SeenPiece {
    pub(super) side: HttpSide,
    pub(super) part: HttpPart,
    pub(super) headers: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) payload: Vec<u8>,
    pub(super) truncated: bool,
    pub(super) as_string: bool,
    pub(super) time: Option<Nanos>,
}

/// The parts of a decoded message.
pub(super) fn seen(view: MessageView<'_>) -> Vec<SeenPiece> {
    let bytes = |span| view.bytes(span).to_vec();
    view.message()
        .http
        .iter()
        .map(|piece| SeenPiece {
            side: piece.side,
            part: piece.part,
            headers: view.headers(piece).iter().map(|header| (bytes(header.key), bytes(header.value))).collect(),
            payload: bytes(piece.body.payload),
            truncated: piece.body.truncated,
            as_string: piece.body.as_string,
            time: piece.time,
        })
        .collect()
}

/// The parts that a trace decodes to; none for a socket trace.
pub(super) fn expected(trace: &Trace) -> Vec<SeenPiece> {
    match trace {
        Trace::HttpBufferedTrace(trace) => [(HttpSide::Request, &trace.request), (HttpSide::Response, &trace.response)]
            .into_iter()
            .flat_map(|(side, message)| message.iter().flat_map(move |message| expected_message(side, message)))
            .collect(),
        Trace::HttpStreamedTraceSegment(segment) => segment.message_piece.iter().map(expected_piece).collect(),
        Trace::SocketBufferedTrace(_) | Trace::SocketStreamedTraceSegment(_) => Vec::new(),
    }
}

/// The kind and id that a trace decodes to.
pub(super) fn kind_and_id(trace: &Trace) -> (TraceKind, u64) {
    match trace {
        Trace::HttpBufferedTrace(_) => (TraceKind::HttpBuffered, 0),
        Trace::HttpStreamedTraceSegment(segment) => (TraceKind::HttpStreamed, segment.trace_id),
        Trace::SocketBufferedTrace(trace) => (TraceKind::SocketBuffered, trace.trace_id),
        Trace::SocketStreamedTraceSegment(segment) => (TraceKind::SocketStreamed, segment.trace_id),
    }
}

fn expected_message(side: HttpSide, message: &http_buffered_trace::Message) -> Vec<SeenPiece> {
    let mut pieces = Vec::new();
    if !message.headers.is_empty() {
        pieces.push(fields(side, HttpPart::Headers, &message.headers));
    }
    pieces.extend(message.body.as_ref().map(|body| chunk(side, body)));
    if !message.trailers.is_empty() {
        pieces.push(fields(side, HttpPart::Trailers, &message.trailers));
    }
    let time = message.headers_received_time.as_ref();
    // A time that cannot be read does not make a headers part.
    if let Some(time) = time.and_then(|time| nanos_from_timestamp(time.seconds, time.nanos.into()).ok()) {
        if message.headers.is_empty() {
            pieces.insert(0, fields(side, HttpPart::Headers, &[]));
        }
        let headers = pieces.iter_mut().find(|piece| piece.part == HttpPart::Headers).unwrap();
        headers.time = Some(time);
    }
    pieces
}

fn expected_piece(piece: &MessagePiece) -> SeenPiece {
    use HttpSide::{Request, Response};
    match piece {
        MessagePiece::RequestHeaders(map) => fields(Request, HttpPart::Headers, &map.headers),
        MessagePiece::RequestBodyChunk(body) => chunk(Request, body),
        MessagePiece::RequestTrailers(map) => fields(Request, HttpPart::Trailers, &map.headers),
        MessagePiece::ResponseHeaders(map) => fields(Response, HttpPart::Headers, &map.headers),
        MessagePiece::ResponseBodyChunk(body) => chunk(Response, body),
        MessagePiece::ResponseTrailers(map) => fields(Response, HttpPart::Trailers, &map.headers),
    }
}

fn fields(side: HttpSide, part: HttpPart, headers: &[core::HeaderValue]) -> SeenPiece {
    let pair = |header: &core::HeaderValue| {
        let value = if header.value.is_empty() { header.raw_value.clone() } else { header.value.clone().into_bytes() };
        (header.key.clone().into_bytes(), value)
    };
    SeenPiece {
        side,
        part,
        headers: headers.iter().map(pair).collect(),
        payload: Vec::new(),
        truncated: false,
        as_string: false,
        time: None,
    }
}

fn chunk(side: HttpSide, body: &tap::Body) -> SeenPiece {
    let (payload, as_string) = match &body.body_type {
        None => (Vec::new(), false),
        Some(BodyType::AsBytes(bytes)) => (bytes.clone(), false),
        Some(BodyType::AsString(text)) => (text.clone().into_bytes(), true),
    };
    SeenPiece { payload, truncated: body.truncated, as_string, ..fields(side, HttpPart::Body, &[]) }
}

fn any_fields() -> BoxedStrategy<Vec<core::HeaderValue>> {
    let value = (any::<String>(), prop_oneof![Just(String::new()), any::<String>()], vec(any::<u8>(), 0..9));
    let field = value.prop_map(|(key, value, raw_value)| core::HeaderValue { key, value, raw_value });
    vec(field, 0..5).boxed()
}

fn any_body() -> BoxedStrategy<tap::Body> {
    let kind =
        prop_oneof![vec(any::<u8>(), 0..80).prop_map(BodyType::AsBytes), any::<String>().prop_map(BodyType::AsString)];
    (option::of(kind), any::<bool>()).prop_map(|(body_type, truncated)| tap::Body { body_type, truncated }).boxed()
}

/// Random HTTP traces, with the connections that the caller generates.
pub(super) fn any_trace(connection: BoxedStrategy<tap::Connection>) -> BoxedStrategy<Trace> {
    let time = (0..4_000_000_000_i64, 0..1_000_000_000_i32)
        .prop_map(|(seconds, nanos)| prost_types::Timestamp { seconds, nanos });
    let message = (any_fields(), option::of(any_body()), any_fields(), option::of(time)).prop_map(
        |(headers, body, trailers, headers_received_time)| http_buffered_trace::Message {
            headers,
            body,
            trailers,
            headers_received_time,
        },
    );
    let message = option::of(message.boxed());
    let buffered = (message.clone(), message, option::of(connection.clone()), option::of(connection)).prop_map(
        |(request, response, downstream_connection, upstream_connection)| {
            Trace::HttpBufferedTrace(tap::HttpBufferedTrace {
                request,
                response,
                downstream_connection,
                upstream_connection,
            })
        },
    );
    let map = || any_fields().prop_map(|headers| core::HeaderMap { headers });
    let piece = prop_oneof![
        map().prop_map(MessagePiece::RequestHeaders),
        any_body().prop_map(MessagePiece::RequestBodyChunk),
        map().prop_map(MessagePiece::RequestTrailers),
        map().prop_map(MessagePiece::ResponseHeaders),
        any_body().prop_map(MessagePiece::ResponseBodyChunk),
        map().prop_map(MessagePiece::ResponseTrailers),
    ];
    let streamed = (any::<u64>(), option::of(piece)).prop_map(|(trace_id, message_piece)| {
        Trace::HttpStreamedTraceSegment(tap::HttpStreamedTraceSegment { trace_id, message_piece })
    });
    prop_oneof![buffered, streamed].boxed()
}

/// Compares a cut message with the whole one: it must have the complete parts and fields, and the bytes that are left
/// of an incomplete body.
pub(super) fn check_cut(left: &[SeenPiece], whole: &[SeenPiece]) {
    assert!(left.len() <= whole.len());
    for left_piece in left {
        let is_same = |piece: &&SeenPiece| (piece.side, piece.part) == (left_piece.side, left_piece.part);
        let whole_piece = whole.iter().find(is_same).unwrap();
        assert!(whole_piece.headers.starts_with(&left_piece.headers), "{left:?} of {whole:?}");
        let (payload, all) = (&left_piece.payload, &whole_piece.payload);
        assert!(all.starts_with(payload), "{left:?} of {whole:?}");
        assert!(payload == all || left_piece.truncated, "{left:?} of {whole:?}");
    }
}
