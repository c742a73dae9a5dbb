//! Secrets in the traces of HTTP taps.

use std::fs;

use tap2pcap::proto::tap::{
    Body, TraceWrapper, body::BodyType, http_buffered_trace::Message, http_streamed_trace_segment::MessagePiece,
};

use super::{
    expect_all, expect_none,
    finder::Finder,
    http1,
    outputs::{Found, capture, in_capture},
    secrets::Planter,
};
use crate::{
    fixture::Dress,
    http::{self, HeaderMap},
    util::Dir,
};

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

/// Bodies of HTTP taps that are cut at every byte, or of which the middle is missing.
#[test]
fn no_secret_of_a_cut_body_is_in_any_output() {
    let dir = Dir::new("redact-taps");
    let mut planter = Planter::new(41);
    let (mut cut, mut holes, mut id) = (Vec::new(), Vec::new(), 0);
    for (kind, coding, template) in [
        ("application/json", "", "{\"a\": 1, \"password\": \"‹json›\", \"list\": [{\"token\": \"‹json›\"}]}"),
        ("application/json", "gzip", "{\"a\": 1, \"password\": \"‹gzip json›\"}"),
        ("application/x-www-form-urlencoded", "", "a=b&password=‹form›&c=d&tok%65n=‹percent:form›"),
        (
            "multipart/form-data; boundary=b",
            "",
            "--b\r\nContent-Disposition: form-data; name=\"key\"\r\n\r\n‹part›\r\n--b--\r\n",
        ),
    ] {
        let text = planter.expand(template);
        let bytes = if coding.is_empty() { text.into_bytes() } else { http1::pack(coding, text.as_bytes()) };
        let coded = if coding.is_empty() { vec![] } else { vec![("content-encoding", coding)] };
        let start = [(":method", "POST"), (":path", "/1"), (":authority", "shop.example"), (":scheme", "http")];
        let request = [&start[..], &[("content-type", kind)], &coded].concat();
        let response = [&[(":status", "200"), ("content-type", kind)][..], &coded].concat();
        for byte in 0..=bytes.len() {
            let half = |fields: &[(&str, &str)]| Message {
                headers: http::headers(fields),
                body: Some(http::cut(&bytes[..byte])),
                ..Message::default()
            };
            cut.push(http::buffered(half(&request), half(&response)));
            id += 1;
            let rest = &bytes[bytes.len().min(byte + 1 + byte % 9)..];
            for piece in [
                MessagePiece::RequestHeaders(http::map(&request)),
                MessagePiece::RequestBodyChunk(http::cut(&bytes[..byte])),
                MessagePiece::RequestBodyChunk(http::body(rest)),
                MessagePiece::ResponseHeaders(http::map(&response)),
                MessagePiece::ResponseBodyChunk(http::cut(&bytes[..byte])),
                MessagePiece::ResponseBodyChunk(http::body(rest)),
            ] {
                holes.push(http::segment(id, piece));
            }
        }
    }
    planter.place("HTTP taps");
    let finder = Finder::new(&planter.secrets);
    for (what, traces) in [("cut", cut), ("holes", holes)] {
        let input = dir.create("taps_1.pb_length_delimited", Dress::Delimited.file(&traces));
        let off = Found::without_dissection(&dir, &finder, &[], &input);
        expect_all(what, &planter.secrets, 0..planter.secrets.len(), &off.pcapng);
        for version in ["1", "2"] {
            let output = dir.fresh().join("out.pcapng");
            capture(&["--redact", "--http", version], std::slice::from_ref(&input), &output);
            let found = in_capture(&finder, &fs::read(&output).unwrap());
            expect_none(&format!("{what}, HTTP/{version}"), &planter.secrets, &found);
        }
        for (output, found) in Found::without_dissection(&dir, &finder, &["--redact"], &input).each() {
            expect_none(&format!("{what}, {output}"), &planter.secrets, found);
        }
    }
}
