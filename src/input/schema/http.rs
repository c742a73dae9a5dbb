//! Messages of the HTTP tap.

use super::{Cursor, Element, Member, MessageEnd, Parts, SchemaRecord, Time, Type, message, single};
use crate::trace::{
    self, Header,
    HttpPart::{self, Body, Headers, Trailers},
    HttpSide::{self, Request, Response},
    JsonType, Message, Span, TraceKind,
};

pub(in crate::input) struct HttpBuffered<'a>(pub(in crate::input) &'a mut Parts);

message!("HttpBufferedTrace" for HttpBuffered<'_>, |self, number, value, out| {
    1 Message b"request" => half(Request, self.0, value, out)?,
    2 Message b"response" => half(Response, self.0, value, out)?,
    3 Message b"downstream_connection" | b"downstreamConnection" => single(&mut self.0.connection, value, out)?,
    4 Message b"upstream_connection" | b"upstreamConnection" => single(&mut self.0.upstream_connection, value, out)?,
    // The layout of Envoy 1.9, by name only: other fields have its numbers now, and none has these.
    536870908 Message b"request_headers" | b"requestHeaders" => list(Request, Headers, value, out)?,
    536870909 Message b"request_trailers" | b"requestTrailers" => list(Request, Trailers, value, out)?,
    536870910 Message b"response_headers" | b"responseHeaders" => list(Response, Headers, value, out)?,
    536870911 Message b"response_trailers" | b"responseTrailers" => list(Response, Trailers, value, out)?,
} begin |replaces| {
    self.0.begin_trace(TraceKind::HttpBuffered, replaces, out);
});

/// The request or response of an `HttpBufferedTrace`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct HttpParts {
    pub(super) time: Option<Time>,
    /// The index of its body in [`Message::http`].
    body: Option<usize>,
}

pub(super) struct HttpHalf<'a> {
    side: HttpSide,
    parts: &'a mut HttpParts,
}

fn half<C: Cursor>(side: HttpSide, parts: &mut Parts, value: &mut C, out: &mut Message) -> Result<(), C::Stop> {
    let parts = &mut parts.http[side.index()];
    if C::REPLACES {
        out.remove_http(side, None);
        *parts = HttpParts::default();
    }
    value.message(&mut HttpHalf { side, parts }, out)
}

message!("Message" for HttpHalf<'_>, |self, number, value, out| {
    1 Message b"headers" => self.headers(Headers, value, out)?,
    2 Message b"body" => {
        // The first layout, of early 2019, had no bodies, and trailers = 2.
        if value.is_header_value() {
            return self.headers(Trailers, value, out);
        }
        if C::REPLACES {
            out.remove_http(self.side, Some(Body));
            self.parts.body = None;
        }
        let Self { side, ref mut parts } = *self;
        value.message(&mut HttpBody { side, member: None, index: &mut parts.body, body: trace::Body::default() }, out)?;
    },
    3 Message b"trailers" => self.headers(Trailers, value, out)?,
    4 Message b"headers_received_time" | b"headersReceivedTime" => value.time(&mut self.parts.time, out)?,
});

impl HttpHalf<'_> {
    fn headers<C: Cursor>(&mut self, part: HttpPart, value: &mut C, out: &mut Message) -> Result<(), C::Stop> {
        list(self.side, part, value, out)
    }
}

/// Header or trailer fields of a buffered trace.
fn list<C: Cursor>(side: HttpSide, part: HttpPart, value: &mut C, out: &mut Message) -> Result<(), C::Stop> {
    if C::REPLACES {
        out.remove_http(side, Some(part));
    }
    value.each::<HeaderValue>(Some((side, part)), out)
}

/// The body of a buffered trace, or a chunk of it.
struct HttpBody<'a> {
    side: HttpSide,
    /// The segment's oneof and the number in it, if the body is a member of it.
    member: Option<(&'a mut Member, u32)>,
    /// The body's index in [`Message::http`], if an earlier piece of it is there.
    index: &'a mut Option<usize>,
    body: trace::Body,
}

impl SchemaRecord for HttpBody<'_> {
    type Fields = trace::Body;

    fn fields(&mut self) -> &mut trace::Body {
        &mut self.body
    }

    fn begin(&mut self, replaces: bool, out: &mut Message) {
        if let Some((member, number)) = &mut self.member {
            member.select(*number, replaces, out);
            *self.index = (!out.http.is_empty()).then_some(0);
        }
        let before = self.index.and_then(|index| out.http.get(index));
        self.body = before.map(|piece| piece.body).unwrap_or_default();
    }

    fn end(&mut self, end: MessageEnd, out: &mut Message) {
        // An incomplete body is kept if it has a payload.
        let is_kept = end.whole || ((end.cut || end.framed) && !self.body.payload.is_empty());
        match self.index.and_then(|index| out.http.get_mut(index)) {
            Some(piece) => piece.body = self.body,
            None if is_kept => {
                let before = out.http.len();
                out.push_http(self.side, Body).body = self.body;
                *self.index = (out.http.len() > before).then_some(before);
            }
            None => {}
        }
    }
}

pub(in crate::input) struct HttpStreamed<'a>(pub(in crate::input) &'a mut Parts);

message!("HttpStreamedTraceSegment" for HttpStreamed<'_>, |self, number, value, out| {
    1 Uint64 b"trace_id" | b"traceId" => out.trace_id = value.uint64()?,
    2 Message b"request_headers" | b"requestHeaders" => self.part(Request, Headers, number, value, out)?,
    3 Message b"request_body_chunk" | b"requestBodyChunk" => self.part(Request, Body, number, value, out)?,
    4 Message b"request_trailers" | b"requestTrailers" => self.part(Request, Trailers, number, value, out)?,
    5 Message b"response_headers" | b"responseHeaders" => self.part(Response, Headers, number, value, out)?,
    6 Message b"response_body_chunk" | b"responseBodyChunk" => self.part(Response, Body, number, value, out)?,
    7 Message b"response_trailers" | b"responseTrailers" => self.part(Response, Trailers, number, value, out)?,
} begin |replaces| {
    self.0.begin_trace(TraceKind::HttpStreamed, replaces, out);
});

impl HttpStreamed<'_> {
    fn part<C: Cursor>(
        &mut self,
        side: HttpSide,
        part: HttpPart,
        number: u32,
        value: &mut C,
        out: &mut Message,
    ) -> Result<(), C::Stop> {
        let member = &mut self.0.member;
        if part == Body {
            let body = trace::Body::default();
            value.message(&mut HttpBody { side, member: Some((member, number)), index: &mut None, body }, out)
        } else {
            value.message(&mut HeaderMap { side, part, member, number }, out)
        }
    }
}

pub(super) struct HeaderMap<'a> {
    side: HttpSide,
    part: HttpPart,
    member: &'a mut Member,
    number: u32,
}

message!("HeaderMap" for HeaderMap<'_>, |self, number, value, out| {
    1 Message b"headers" => {
        if C::REPLACES {
            out.clear_piece();
            out.push_http(self.side, self.part);
        }
        value.each::<HeaderValue>(None, out)?;
    },
} begin |replaces| {
    self.member.select(self.number, replaces, out);
    // In JSON, each list starts the part anew.
    if !replaces && out.http.is_empty() {
        out.push_http(self.side, self.part);
    }
} end |end| {
    if end.whole && out.http.is_empty() {
        out.push_http(self.side, self.part);
    }
});

#[derive(Debug, Default)]
pub(super) struct HeaderValue {
    header: Header,
    raw_value: Span,
}

message!("HeaderValue" for HeaderValue, |self, number, value, out| {
    1 String b"key" => value.span(Type::String, &mut self.header.key, out)?,
    2 String b"value" => value.span(Type::String, &mut self.header.value, out)?,
    3 Bytes b"raw_value" | b"rawValue" => value.span(Type::Bytes, &mut self.raw_value, out)?,
});

impl Element for HeaderValue {
    /// The part of a buffered trace. `None` in a streamed one, where a message has only one part.
    type To = Option<(HttpSide, HttpPart)>;

    const LIST: JsonType = JsonType::HeaderFields;

    #[inline]
    fn done(self, end: MessageEnd, to: Self::To, out: &mut Message) {
        // Half a name or value would be misleading.
        if !end.whole {
            return;
        }
        let Self { mut header, raw_value } = self;
        if header.value.is_empty() {
            header.value = raw_value;
        }
        match to {
            Some((side, part)) => out.push_header_of(side, part, header),
            None => out.push_header(header),
        }
    }
}
