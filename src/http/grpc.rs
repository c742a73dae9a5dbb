//! gRPC's messages and status, in HTTP/2 and, as gRPC-Web, in any version of HTTP.

use super::{
    exchange::{Exchange, Fields, Grpc, GrpcMessages},
    h1::fields_of,
};
use crate::trace::HttpSide;

/// The longest trailers in a body of gRPC-Web that are read.
const MAX_TRAILERS: usize = 64 << 10;

/// How gRPC's messages are in a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Native,
    /// gRPC-Web: the trailers are in the body as well.
    Web,
    /// gRPC-Web whose body is in base64.
    WebText,
}

/// Counts the messages of one exchange.
#[derive(Debug)]
pub(super) struct Reader {
    form: Form,
    sides: [Messages; 2],
}

/// The messages of one direction.
#[derive(Debug, Default)]
struct Messages {
    prefix: [u8; 5],
    have: usize,
    left: u64,
    /// The message is gRPC-Web's trailers.
    trailers: Option<Vec<u8>>,
    /// Bits of base64, and how many characters of a group of four they are.
    group: (u32, u8),
    adrift: bool,
}

fn form(content_type: &[u8]) -> Option<Form> {
    let starts = |prefix: &str| {
        content_type.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
    };
    let after = |len: usize| content_type.get(len).is_none_or(|byte| matches!(byte, b'+' | b';' | b' '));
    if starts("application/grpc-web-text") && after(25) {
        Some(Form::WebText)
    } else if starts("application/grpc-web") && after(20) {
        Some(Form::Web)
    } else if starts("application/grpc") && after(16) {
        Some(Form::Native)
    } else {
        None
    }
}

impl Reader {
    /// A reader for an exchange whose message of this side says that it is gRPC.
    pub(super) fn of(exchange: &mut Exchange, side: HttpSide) -> Option<Box<Self>> {
        let form = form(exchange.message(side).fields.get("content-type")?)?;
        exchange.grpc.get_or_insert_default();
        Some(Box::new(Self { form, sides: Default::default() }))
    }

    /// Takes bytes of a body.
    pub(super) fn data(&mut self, exchange: &mut Exchange, side: HttpSide, bytes: &[u8]) {
        let Some(grpc) = &mut exchange.grpc else { return };
        let messages = &mut self.sides[side.index()];
        if self.form == Form::WebText {
            messages.text(bytes, side, grpc);
        } else {
            messages.data(bytes, side, grpc, self.form == Form::Web);
        }
    }

    /// Bytes of a body that are not in the trace.
    pub(super) fn lose(&mut self, exchange: &mut Exchange, side: HttpSide, bytes: Option<u64>) {
        let Some(grpc) = &mut exchange.grpc else { return };
        let messages = &mut self.sides[side.index()];
        match bytes {
            Some(bytes) if self.form != Form::WebText && messages.have == 5 && bytes < messages.left => {
                messages.left -= bytes;
                messages.trailers = None;
            }
            _ => messages.go_adrift(&mut grpc.messages[side.index()]),
        }
    }

    /// The body is over.
    pub(super) fn end(&mut self, exchange: &mut Exchange, side: HttpSide) {
        let messages = &self.sides[side.index()];
        if let Some(grpc) = &mut exchange.grpc {
            grpc.messages[side.index()].uncounted |= messages.have > 0;
        }
    }

    /// The response's head is known. It has the status if nothing else follows.
    pub(super) fn response_head(&mut self, exchange: &mut Exchange) {
        if let Some(grpc) = &mut exchange.grpc {
            take_status(grpc, &exchange.response.fields);
        }
    }

    /// The response's trailers are known.
    pub(super) fn response_trailers(&mut self, exchange: &mut Exchange) {
        if let Some(grpc) = &mut exchange.grpc {
            take_status(grpc, &exchange.response.trailers);
        }
    }
}

/// Takes the status, if these fields have it.
pub(super) fn take_status(grpc: &mut Grpc, fields: &Fields) {
    if let Some(status) = fields.get("grpc-status") {
        grpc.status = str::from_utf8(status.trim_ascii()).ok().and_then(|status| status.parse().ok());
        grpc.message = fields.get("grpc-message").map(<[u8]>::to_vec);
    }
}

impl Messages {
    fn go_adrift(&mut self, counts: &mut GrpcMessages) {
        self.adrift = true;
        counts.uncounted = true;
        (self.have, self.trailers) = (0, None);
    }

    fn data(&mut self, mut bytes: &[u8], side: HttpSide, grpc: &mut Grpc, web: bool) {
        while !self.adrift && !bytes.is_empty() {
            if self.have < 5 {
                let taken = bytes.len().min(5 - self.have);
                self.prefix[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
                self.have += taken;
                bytes = &bytes[taken..];
                if self.have < 5 {
                    return;
                }
                let [flags, length @ ..] = self.prefix;
                let is_trailers = web && flags & 0x80 != 0;
                if flags & !1 != 0 && !is_trailers {
                    self.go_adrift(&mut grpc.messages[side.index()]);
                    return;
                }
                self.left = u64::from(u32::from_be_bytes(length));
                self.trailers = (is_trailers && self.left <= MAX_TRAILERS as u64).then(Vec::new);
            }
            let taken = usize::try_from(self.left).map_or(bytes.len(), |left| left.min(bytes.len()));
            if let Some(trailers) = &mut self.trailers {
                trailers.extend_from_slice(&bytes[..taken]);
            }
            bytes = &bytes[taken..];
            self.left -= taken as u64;
            if self.left == 0 {
                self.end_message(side, grpc, web);
            }
        }
    }

    fn end_message(&mut self, side: HttpSide, grpc: &mut Grpc, web: bool) {
        self.have = 0;
        if web && self.prefix[0] & 0x80 != 0 {
            if let Some(mut trailers) = self.trailers.take() {
                trailers.extend_from_slice(b"\r\n\r\n");
                if let Some(fields) = fields_of(&trailers) {
                    take_status(grpc, &fields);
                }
            }
            return;
        }
        let [_, length @ ..] = self.prefix;
        let counts = &mut grpc.messages[side.index()];
        counts.count += 1;
        counts.bytes = counts.bytes.saturating_add(u64::from(u32::from_be_bytes(length)));
    }

    /// Takes base64. Each message may be padded by itself.
    fn text(&mut self, bytes: &[u8], side: HttpSide, grpc: &mut Grpc) {
        let mut decoded = Vec::with_capacity(bytes.len() / 4 * 3 + 3);
        for byte in bytes {
            let (bits, count) = self.group;
            let value = match byte {
                b'A'..=b'Z' => byte - b'A',
                b'a'..=b'z' => byte - b'a' + 26,
                b'0'..=b'9' => byte - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                b'=' => {
                    match count {
                        2 => decoded.push((bits >> 4) as u8),
                        3 => decoded.extend_from_slice(&((bits >> 2) as u16).to_be_bytes()),
                        _ => {}
                    }
                    self.group = (0, 0);
                    continue;
                }
                b'\r' | b'\n' => continue,
                _ => {
                    self.go_adrift(&mut grpc.messages[side.index()]);
                    break;
                }
            };
            self.group = (bits << 6 | u32::from(value), count + 1);
            if count == 3 {
                decoded.extend_from_slice(&self.group.0.to_be_bytes()[1..]);
                self.group = (0, 0);
            }
        }
        self.data(&decoded, side, grpc, true);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{http::exchange::HttpConnection, timeline::Role, trace::Place};

    fn exchange(content_type: &str) -> Exchange {
        let connection = HttpConnection {
            number: 0,
            trace_id: 0,
            began: None,
            role: Role::Downstream,
            source: None,
            destination: None,
            http_tap: false,
            upstream: None,
            place: crate::trace::Place::default(),
        };
        let mut exchange = Exchange::new(Arc::new(connection), Place::default());
        exchange.response.fields.push(b"content-type", content_type.as_bytes());
        exchange
    }

    fn read(content_type: &str, body: &[u8], size: usize) -> Grpc {
        let mut exchange = exchange(content_type);
        let mut reader = Reader::of(&mut exchange, HttpSide::Response).unwrap();
        body.chunks(size).for_each(|piece| reader.data(&mut exchange, HttpSide::Response, piece));
        reader.end(&mut exchange, HttpSide::Response);
        *exchange.grpc.unwrap()
    }

    const BODY: &[u8] = b"\0\0\0\0\x03abc\x01\0\0\0\0\x80\0\0\0\x0fgrpc-status: 5\r\n";

    #[test]
    fn messages_are_counted_with_their_sizes() {
        for size in [1, 4, 100] {
            let native = read("application/grpc+proto", b"\0\0\0\0\x03abc\x01\0\0\0\0", size);
            let counts = native.messages[1];
            assert_eq!((counts.count, counts.bytes, counts.uncounted), (2, 3, false));
        }
        assert!(read("application/grpc", b"\0\0\0\0\x03ab", 9).messages[1].uncounted);
        assert!(read("application/grpc", b"<html>", 9).messages[1].uncounted);
    }

    #[test]
    fn grpc_web_has_its_status_in_the_body() {
        let trailers = b"grpc-status: 5\r\n".len();
        let mut body = BODY.to_vec();
        body[17] = trailers as u8;
        let text = base64_simd::STANDARD.encode_to_string(&body).into_bytes();
        for size in [1, 3, 100] {
            let binary = read("application/grpc-web+proto", &body, size);
            assert_eq!((binary.messages[1].count, binary.status), (2, Some(5)), "{size}");
            assert_eq!(read("application/grpc-web-text", &text, size), binary);
        }
        let padded =
            [base64_simd::STANDARD.encode_to_string(&body[..8]), base64_simd::STANDARD.encode_to_string(&body[8..])];
        assert_eq!(read("application/grpc-web-text", padded.concat().as_bytes(), 5).status, Some(5));
    }

    #[test]
    fn only_grpcs_own_content_types_are_grpc() {
        assert!(form(b"application/grpc").is_some() && form(b"application/grpc;charset=x").is_some());
        assert!(form(b"application/grpcx").is_none() && form(b"application/json").is_none());
    }
}
