//! Secrets in the traces of HTTP taps.

use tap2pcap::proto::tap::{
    Body, TraceWrapper, body::BodyType, http_buffered_trace::Message, http_streamed_trace_segment::MessagePiece,
};

use super::{http1, secrets::Planter};
use crate::http::{self, HeaderMap};

fn as_string(text: &str) -> Body {
    Body { body_type: Some(BodyType::AsString(text.to_owned())), truncated: false }
}

struct Half {
    head: Vec<(&'static str, String)>,
    body: Body,
    trailers: Vec<(&'static str, String)>,
}

impl Half {
    fn message(&self) -> Message {
        let map = |pairs| headers(pairs).headers;
        Message {
            headers: map(&self.head),
            body: Some(self.body.clone()),
            trailers: map(&self.trailers),
            ..Message::default()
        }
    }
}

fn headers(pairs: &[(&'static str, String)]) -> HeaderMap {
    http::map(&pairs.iter().map(|(name, value)| (*name, value.as_str())).collect::<Vec<_>>())
}

/// An exchange with new secrets. `text` says that bodies are strings, as in JSON_BODY_AS_STRING.
fn exchange(planter: &mut Planter, text: bool) -> [Half; 2] {
    let mut of = |template: &str| planter.expand(template);
    let body = |value: String| if text { as_string(&value) } else { http::body(value) };
    let request = Half {
        head: vec![
            (":method", "POST".into()),
            (":path", of("/1?token=‹tap query›")),
            (":authority", "shop.example".into()),
            (":scheme", "http".into()),
            ("authorization", of("Bearer ‹tap authorization›")),
            ("cookie", of("a=‹tap cookie›; b=‹tap cookie›")),
            ("x-customer", of("‹tap added header›")),
            ("referer", of("http://a/?api_key=‹tap referer›")),
            ("content-type", "application/json".into()),
        ],
        body: body(of("{\"user\": \"anna\", \"password\": \"‹tap json›\"}")),
        trailers: vec![("x-auth-token", of("‹tap request trailer›"))],
    };
    let response = Half {
        head: vec![
            (":status", "200".into()),
            ("set-cookie", of("a=‹tap set-cookie›")),
            ("x-api-key", of("‹tap response header›")),
            ("content-type", "application/x-www-form-urlencoded".into()),
        ],
        body: body(of("a=b&secret=‹tap form›")),
        trailers: vec![("x-auth-token", of("‹tap response trailer›"))],
    };
    [request, response]
}

pub fn plant(planter: &mut Planter) -> Vec<TraceWrapper> {
    let mut out = Vec::new();
    for text in [false, true] {
        let [request, response] = exchange(planter, text);
        out.push(http::buffered(request.message(), response.message()));
    }
    for (id, text) in [(901, false), (902, true)] {
        let [request, response] = exchange(planter, text);
        let halves = |body: &Body| {
            let cut = |bytes: &[u8]| match text {
                true => as_string(std::str::from_utf8(bytes).unwrap()),
                false => http::body(bytes),
            };
            let bytes = match body.body_type.as_ref().unwrap() {
                BodyType::AsBytes(bytes) => bytes.as_slice(),
                BodyType::AsString(text) => text.as_bytes(),
            };
            // Through the secret.
            let (first, second) = bytes.split_at(bytes.len() - 14);
            [cut(first), cut(second)]
        };
        let mut push = |piece| out.push(http::segment(id, piece));
        push(MessagePiece::RequestHeaders(headers(&request.head)));
        halves(&request.body).into_iter().for_each(|part| push(MessagePiece::RequestBodyChunk(part)));
        push(MessagePiece::RequestTrailers(headers(&request.trailers)));
        push(MessagePiece::ResponseHeaders(headers(&response.head)));
        halves(&response.body).into_iter().for_each(|part| push(MessagePiece::ResponseBodyChunk(part)));
        push(MessagePiece::ResponseTrailers(headers(&response.trailers)));
    }
    // A packed body.
    let packed = http1::pack("gzip", planter.expand("{\"password\": \"‹tap gzip›\", \"a\": 1}").as_bytes());
    let request = [(":method", "POST"), (":path", "/2"), (":authority", "shop.example"), (":scheme", "http")];
    let coded = [("content-type", "application/json"), ("content-encoding", "gzip")];
    let request = Message {
        headers: http::headers(&[&request[..], &coded].concat()),
        body: Some(http::body(packed)),
        ..Message::default()
    };
    let response = Message { headers: http::headers(&[(":status", "204")]), ..Message::default() };
    out.push(http::buffered(request, response));
    // gRPC.
    let bearer = planter.expand("Bearer ‹tap grpc metadata›");
    let request = Message {
        headers: http::headers(&[&http::GRPC_REQUEST[..], &[("authorization", &bearer)]].concat()),
        body: Some(http::body(http::grpc_message(b"\x0a\x02hi"))),
        ..Message::default()
    };
    let trailer = planter.expand("bad%20token=‹tap grpc-message›");
    let response = Message {
        headers: http::headers(&http::GRPC_RESPONSE),
        body: Some(http::body(http::grpc_message(b"\x0a\x02hi"))),
        trailers: http::headers(&[("grpc-status", "7"), ("grpc-message", &trailer)]),
        ..Message::default()
    };
    out.push(http::buffered(request, response));
    out
}
