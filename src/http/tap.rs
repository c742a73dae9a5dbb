//! The exchanges of HTTP tap traces, as they were recorded. Nothing of them is replayed, so nothing made up is counted.

use std::sync::Arc;

use super::{
    Context, HttpItem, MAX_REPORTS, Shared,
    exchange::{Exchange, Fields, HttpConnection, HttpConnectionEnd},
    grpc,
};
use crate::{
    timeline::{OpenExchanges, Role, Track},
    trace::{
        Connection, ExchangeFact, Fact, Finding, Findings, HttpPart, HttpPiece, HttpSide, MessageView, Place, TraceKind,
    },
};

/// How many exchanges may be open. Nothing marks the end of a streamed exchange, so one more ends the exchange that has
/// been silent for longest.
const MAX_OPEN: usize = 8192;

/// How many exchanges that look complete are kept open, because trailers may follow even a body of known length.
const MAX_COMPLETE: usize = 64;

/// An exchange that is not over.
#[derive(Debug)]
struct TapExchange {
    exchange: Box<Exchange>,
    connection: Arc<HttpConnection>,
    grpc: Option<Box<grpc::Reader>>,
}

/// The exchanges of one source.
#[derive(Debug, Default)]
pub(super) struct TapExchanges {
    open: OpenExchanges<Option<TapExchange>>,
}

impl TapExchanges {
    /// Takes a message.
    pub(super) fn message(&mut self, view: MessageView<'_>, shared: &mut Shared, findings: &mut Findings) {
        let message = view.message();
        match message.kind {
            Some(TraceKind::HttpBuffered) => {
                let mut tracks = <[Track; 2]>::default();
                message.http.iter().for_each(|piece| tracks[piece.side.index()].add(view, piece));
                let mut exchange = TapExchange::new(view, message.place(), shared);
                exchange.add(view, shared, findings);
                exchange.end(&tracks, message.cut, shared, findings);
            }
            Some(TraceKind::HttpStreamed) if !message.http.is_empty() => {
                let index = self.open.of(view);
                let stream = self.open.get(index);
                message.http.iter().for_each(|piece| stream.tracks[piece.side.index()].add(view, piece));
                let origin = stream.origin;
                let exchange = stream.state.get_or_insert_with(|| TapExchange::new(view, origin, shared));
                exchange.add(view, shared, findings);
                let [request, response] = &stream.tracks;
                let to_head = request.is_head_request();
                let whole = request.has_head && response.has_head && !response.announces_body();
                let is_end = (HttpSide::Response, HttpPart::Trailers);
                if message.http.iter().any(|piece| (piece.side, piece.part) == is_end) {
                    self.end_one(index, shared, findings);
                } else if whole && (response.has_known_end() || to_head) {
                    self.open.note_complete(index);
                }
                while let Some(index) = self.open.next_to_end(MAX_OPEN, MAX_COMPLETE) {
                    self.end_one(index, shared, findings);
                }
            }
            _ => {}
        }
    }

    /// Ends every exchange, because the source has ended.
    pub(super) fn end(&mut self, shared: &mut Shared, findings: &mut Findings) {
        self.open.in_order().into_iter().for_each(|index| self.end_one(index, shared, findings));
    }

    fn end_one(&mut self, index: usize, shared: &mut Shared, findings: &mut Findings) {
        let Some(stream) = self.open.remove(index) else { return };
        self.open.release(index);
        if let Some(exchange) = stream.state {
            exchange.end(&stream.tracks, false, shared, findings);
        }
    }
}

impl TapExchange {
    fn new(view: MessageView<'_>, place: Place, shared: &mut Shared) -> Self {
        let message = view.message();
        let (ends, role) = match (&message.connection, &message.upstream_connection) {
            (None, Some(upstream)) => (upstream.clone(), Role::Upstream),
            (Some(downstream), _) => (downstream.clone(), Role::Downstream),
            (None, None) => (Connection::default(), Role::Downstream),
        };
        let (source, destination) = match role {
            Role::Downstream => (ends.remote, ends.local),
            Role::Upstream => (ends.local, ends.remote),
        };
        let number = shared.connections;
        shared.connections += 1;
        let trace_id = message.trace_id;
        let upstream = message.upstream_connection.clone().map(Box::new);
        let connection = HttpConnection {
            number,
            trace_id,
            began: None,
            role,
            source,
            destination,
            http_tap: true,
            upstream,
            place,
        };
        let connection = Arc::new(connection);
        shared.opened();
        Self { exchange: Box::new(Exchange::new(connection.clone(), place)), connection, grpc: None }
    }

    fn add(&mut self, view: MessageView<'_>, shared: &mut Shared, findings: &mut Findings) {
        let connection = Arc::clone(&self.connection);
        let (mut emitted, mut reports) = (false, MAX_REPORTS);
        let mut context = Context {
            time: 0,
            place: self.exchange.place,
            connection: &connection,
            client: connection.role.client_direction(),
            as_string: false,
            emitted: &mut emitted,
            reports: &mut reports,
            shared,
            findings,
        };
        for piece in &view.message().http {
            self.piece(view, piece, &mut context);
        }
    }

    fn piece(&mut self, view: MessageView<'_>, piece: &HttpPiece, context: &mut Context<'_>) {
        let Self { exchange, grpc, .. } = self;
        let side = piece.side;
        match piece.part {
            HttpPart::Headers => {
                let mut fields = Fields::default();
                let mut pseudo_size = 0;
                let mut status = None;
                for field in view.headers(piece) {
                    let (name, value) = (view.bytes(field.key), view.bytes(field.value));
                    if !name.starts_with(b":") {
                        fields.push(name, value);
                        continue;
                    }
                    pseudo_size += (name.len() + value.len()) as u64;
                    match name {
                        b":method" => exchange.method = Some(value.to_vec()),
                        b":scheme" => exchange.scheme = Some(value.to_vec()),
                        b":authority" => exchange.host = Some(value.to_vec()),
                        b":path" => exchange.path = Some(value.to_vec()),
                        b":status" => status = str::from_utf8(value).ok().and_then(|status| status.parse().ok()),
                        _ => {}
                    }
                }
                if side == HttpSide::Response && matches!(status, Some(100 | 102..=199)) {
                    return;
                }
                let message = exchange.message_mut(side);
                message.began = message.began.or(piece.time);
                message.has_head = true;
                message.pseudo_size = pseudo_size;
                message.fields = fields;
                let length = message.fields.get("content-length").and_then(|value| str::from_utf8(value).ok());
                message.content_length = length.and_then(|length| length.parse().ok());
                if side == HttpSide::Response {
                    exchange.code = status;
                }
                if grpc.is_none() {
                    *grpc = grpc::Reader::of(exchange, side);
                }
                if let (Some(reader), HttpSide::Response) = (grpc, side) {
                    reader.response_head(exchange);
                }
            }
            HttpPart::Body => {
                let bytes = view.bytes(piece.body.payload);
                if let Some(reader) = grpc {
                    reader.data(exchange, side, bytes);
                    if piece.body.truncated || piece.body.as_string {
                        reader.lose(exchange, side, None);
                    }
                }
                let message = exchange.message_mut(side);
                context.add_body(message, bytes);
                if piece.body.truncated {
                    message.lose_body(None);
                }
            }
            HttpPart::Trailers => {
                for field in view.headers(piece) {
                    exchange.message_mut(side).trailers.push(view.bytes(field.key), view.bytes(field.value));
                }
                if let (Some(reader), HttpSide::Response) = (grpc, side) {
                    reader.response_trailers(exchange);
                }
            }
        }
    }

    fn end(mut self, tracks: &[Track; 2], cut: bool, shared: &mut Shared, findings: &mut Findings) {
        let trace_id = self.connection.trace_id;
        let bodiless = [false, tracks[0].is_head_request() || tracks[1].is_bodiless()];
        for ((side, bodiless), track) in [HttpSide::Request, HttpSide::Response].into_iter().zip(bodiless).zip(tracks) {
            if let Some(reader) = &mut self.grpc {
                reader.end(&mut self.exchange, side);
            }
            let message = self.exchange.message_mut(side);
            let differs = |length| length != message.body_size;
            // JSON_BODY_AS_STRING replaces binary data, and does not say so. Only all pieces together tell.
            if track.as_string && message.content_length.is_some_and(differs) {
                message.lose_body(None);
            }
            // A body may also be shorter than announced because its sender gave up.
            let short = !bodiless && message.content_length.is_some_and(|length| length > message.body_size);
            message.size_unknown |= short && cut;
            message.complete = message.has_head && !message.damaged && !short && !cut;
        }
        let mut report = |fact| findings.push(Finding::new(self.exchange.place, fact));
        if tracks.iter().any(|track| track.truncated) {
            report(Fact::TruncatedBody { trace_id });
        }
        if !cut {
            for (track, fact) in tracks.iter().zip([ExchangeFact::NoRequest, ExchangeFact::NoResponse]) {
                if track.is_empty() {
                    report(Fact::Exchange { trace_id, fact });
                }
            }
        }
        let is_grpc = self.exchange.grpc.is_some();
        shared.closed();
        shared.done.push_back(HttpItem::Exchange(self.exchange));
        shared.done.push_back(HttpItem::ConnectionEnd(HttpConnectionEnd {
            connection: self.connection,
            had_exchanges: true,
            closed: None,
            duration: None,
            protocol: is_grpc.then_some("grpc"),
            received: None,
            sent: None,
        }));
    }
}
