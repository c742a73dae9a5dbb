//! Whole exchanges, as `http` and HAR show them.

use std::sync::Arc;

use super::{
    Body, Counts, Kind, Redaction,
    head::is_method,
    mask,
    message::{BodyFields, Message},
};
use crate::http::{Exchange, Fields, HttpMessage, WebSocketFrame};

/// Takes the secrets out of an exchange. Bodies lose their content codings, because what is in them cannot be taken out
/// otherwise.
pub(crate) fn exchange(redaction: &Redaction, exchange: &mut Exchange, counts: &mut Counts) {
    // Most of it is also a field, which is counted.
    let mut repeated = Counts::default();
    let has_host = exchange.request.fields.get("host").is_some();
    if let Some(host) = &mut exchange.host {
        redaction.field(b":authority", host, if has_host { &mut repeated } else { &mut *counts });
    }
    if let Some(method) = exchange.method.as_mut().filter(|method| !is_method(method)) {
        counts.add(Kind::UnknownByte, method.len() as u64);
        mask(method);
    }
    if let Some(scheme) = &mut exchange.scheme {
        redaction.field(b":scheme", scheme, counts);
    }
    if let Some(path) = &mut exchange.path {
        redaction.target(path, counts);
    }
    if let Some(message) = exchange.grpc.as_mut().and_then(|grpc| grpc.message.as_mut()) {
        redaction.field(b"grpc-message", message, &mut repeated);
    }
    if exchange.web_socket.is_some() {
        web_socket(redaction, exchange, counts);
    }
    let is_web_socket = exchange.web_socket.is_some();
    if !is_web_socket && may_be_tunnel(exchange) && !redaction.keep_unknown {
        for message in [&mut exchange.request, &mut exchange.response] {
            counts.add(Kind::UnknownByte, message.body.len() as u64);
            message.body.clear();
        }
    }
    let is_doubtful = [false, exchange.is_doubtful];
    for (message, is_doubtful) in [&mut exchange.request, &mut exchange.response].into_iter().zip(is_doubtful) {
        if !is_web_socket {
            body_of(redaction, message, is_doubtful, counts);
        }
        message.fields = fields(redaction, &message.fields, counts);
        message.trailers = fields(redaction, &message.trailers, counts);
    }
    if redaction.addresses.is_some() {
        let connection = Arc::make_mut(&mut exchange.connection);
        // The ends belong to the connection, and are not counted for each of its exchanges.
        for end in [&mut connection.source, &mut connection.destination].into_iter().flatten() {
            redaction.address(end, &mut repeated);
        }
        connection.trace_id = redaction.trace_id(connection.trace_id);
    }
}

/// Whether a body may have more than its own bytes in it: JSON_BODY_AS_STRING shortens what is not text.
fn has_swallowed(message: &HttpMessage) -> bool {
    if !message.as_string {
        return false;
    }
    let mut fields = BodyFields::default();
    message.fields.iter().for_each(|(name, value)| fields.look(name, value));
    !fields.is_text()
}

/// Whether what follows the heads may be bytes of another protocol.
fn may_be_tunnel(exchange: &Exchange) -> bool {
    let is_success = exchange.code.is_none_or(|code| (200..300).contains(&code));
    match (exchange.method.as_deref(), exchange.code) {
        (_, Some(101)) => true,
        (Some(b"CONNECT"), _) => is_success,
        (Some(_), _) => false,
        // Without the request, nobody knows, unless the response says what it is.
        (None, _) => is_success && exchange.response.fields.get("content-type").is_none(),
    }
}

fn fields(redaction: &Redaction, fields: &Fields, counts: &mut Counts) -> Fields {
    let mut redacted = Fields::with_capacity(fields.len(), usize::try_from(fields.size()).unwrap_or(0));
    let mut new = Vec::new();
    for (name, value) in fields.iter() {
        new.clear();
        new.extend_from_slice(value);
        redaction.field(name, &mut new, counts);
        redacted.push(name, &new);
    }
    redacted
}

/// Takes the secrets out of a body, and its content codings off before.
fn body_of(redaction: &Redaction, message: &mut HttpMessage, is_doubtful: bool, counts: &mut Counts) {
    if !message.body.is_empty() {
        let len = message.body.len();
        // A field that is not known may say what the body is.
        let has_head = message.has_head && !message.is_partial_head && !is_doubtful && !has_swallowed(message);
        let fields = has_head.then(|| message.fields.iter());
        let is_decoded = body(redaction, &mut message.body, &[], fields, counts);
        let is_coded = message.fields.get("content-encoding").is_some();
        message.coded_len = (is_decoded && is_coded).then_some(len);
    }
}

/// Takes the secrets out of a body with these header fields, or all of one without a head. Bytes are missing at `holes`,
/// which rise. Returns whether it lacks its content codings from now on.
fn body<'a>(
    redaction: &Redaction,
    bytes: &mut Vec<u8>,
    holes: &[usize],
    fields: Option<impl Iterator<Item = (&'a [u8], &'a [u8])>>,
    counts: &mut Counts,
) -> bool {
    let mut message = match fields {
        Some(fields) => {
            let mut known = BodyFields::default();
            fields.for_each(|(name, value)| known.look(name, value));
            Message::new(redaction, &known, Some(Arc::new(())))
        }
        None => Message::without_head(),
    };
    let is_decoded = message.is_decoded() || message.hides_coding();
    let mut new = Vec::with_capacity(bytes.len());
    let mut at = 0;
    for hole in holes.iter().map(|hole| (*hole).min(bytes.len())) {
        message.data(bytes.get(at..hole).unwrap_or_default(), counts, &mut new);
        message.lose();
        at = hole;
    }
    message.data(bytes.get(at..).unwrap_or_default(), counts, &mut new);
    message.end(counts, &mut new);
    *bytes = new;
    is_decoded
}

/// One side of an exchange of an HTTP tap, as it was recorded.
#[derive(Debug, Default)]
pub(crate) struct TapSide {
    pub pseudo: Vec<(Vec<u8>, Vec<u8>)>,
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
    pub trailers: Vec<(Vec<u8>, Vec<u8>)>,
    pub body: Vec<u8>,
    /// Where bytes of the body are missing.
    pub holes: Vec<usize>,
    /// Whether the body has lost its content codings.
    pub is_decoded: bool,
}

/// Takes the secrets out of one side of an exchange of an HTTP tap.
pub(crate) fn tap_side(redaction: &Redaction, side: &mut TapSide, counts: &mut Counts) {
    let TapSide { pseudo, fields, trailers, body: bytes, holes, is_decoded } = side;
    if !bytes.is_empty() {
        let has_head = !pseudo.is_empty() || !fields.is_empty();
        let is_coded = fields.iter().any(|(name, _)| name.eq_ignore_ascii_case(b"content-encoding"));
        let fields = has_head.then(|| fields.iter().map(|(name, value)| (name.as_slice(), value.as_slice())));
        *is_decoded = body(redaction, bytes, holes, fields, counts) && is_coded;
    }
    for (name, value) in pseudo {
        match name.as_slice() {
            b":path" => redaction.target(value, counts),
            name => _ = redaction.field(name, value, counts),
        }
    }
    for (name, value) in fields.iter_mut().chain(trailers) {
        redaction.field(name, value, counts);
    }
}

/// Takes the secrets out of the messages of a WebSocket connection where they are in its bytes. What cannot be read is
/// taken out: a compressed message, and what follows a frame that is not whole.
fn web_socket(redaction: &Redaction, exchange: &mut Exchange, counts: &mut Counts) {
    let Some(web_socket) = exchange.web_socket.as_deref() else { return };
    let mut rest = [exchange.request.body.as_mut_slice(), exchange.response.body.as_mut_slice()];
    let mut begun: [BegunMessage; 2] = Default::default();
    for frame in &web_socket.frames {
        let index = frame.side.index();
        let all = std::mem::take(&mut rest[index]);
        let message = &mut begun[index];
        match split_frame(all, frame) {
            Ok((is_compressed, mask_key, payload, after)) => {
                message.frame(redaction, frame, is_compressed, mask_key, payload, counts);
                rest[index] = after;
            }
            Err(all) => rest[index] = all,
        }
    }
    for rest in rest {
        if !rest.is_empty() {
            counts.add(Kind::Body, 1);
        }
        mask(rest);
    }
}

/// A message whose last frame has not come.
#[derive(Debug, Default)]
struct BegunMessage {
    body: Option<Body>,
    is_compressed: bool,
}

impl BegunMessage {
    fn frame(
        &mut self,
        redaction: &Redaction,
        frame: &WebSocketFrame,
        is_compressed: bool,
        key: Option<[u8; 4]>,
        payload: &mut [u8],
        counts: &mut Counts,
    ) {
        // The same again takes it off (RFC 6455 section 5.3).
        let toggle = |payload: &mut [u8]| {
            let key = key.unwrap_or_default();
            payload.iter_mut().zip(key.iter().cycle()).for_each(|(byte, key)| *byte ^= key);
        };
        toggle(payload);
        if frame.opcode >= 8 {
            // A control frame may come between the frames of a message, and is a message of its own.
            Body::new(redaction, None).data(payload, counts);
        } else {
            if frame.opcode != 0 {
                *self = Self { body: Some(Body::new(redaction, None)), is_compressed };
            }
            match &mut self.body {
                Some(body) if !self.is_compressed => body.data(payload, counts),
                _ => {
                    counts.add(Kind::Body, u64::from(!payload.is_empty()));
                    mask(payload);
                }
            }
        }
        toggle(payload);
    }
}

/// Whether a frame's message is compressed, its masking key, its payload, and what follows the frame.
type SplitFrame<'a> = (bool, Option<[u8; 4]>, &'a mut [u8], &'a mut [u8]);

/// The bit of a message's first frame that says that permessage-deflate has compressed it (RFC 7692 section 6).
const RSV1: u8 = 0x40;

/// The payload of a frame (RFC 6455 section 5.2), and what follows it. An error is all bytes, if not all of the frame is
/// here.
fn split_frame<'a>(bytes: &'a mut [u8], frame: &WebSocketFrame) -> Result<SplitFrame<'a>, &'a mut [u8]> {
    let &mut [first, second, ..] = bytes else { return Err(bytes) };
    let extended = match second & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let key_at = 2 + extended;
    let is_masked = second & 0x80 != 0;
    let start = if is_masked { key_at + 4 } else { key_at };
    let key = bytes.get(key_at..start).and_then(|key| <[u8; 4]>::try_from(key).ok());
    let end = usize::try_from(frame.bytes).ok().and_then(|len| start.checked_add(len));
    let Some(end) = end.filter(|end| *end <= bytes.len()) else { return Err(bytes) };
    let (whole, after) = bytes.split_at_mut(end);
    // What stands in the place of a compressed payload is not compressed.
    if let Some(first) = whole.first_mut() {
        *first &= !RSV1;
    }
    Ok((first & RSV1 != 0, key, &mut whole[start..], after))
}

/// Takes the secrets out of a WebSocket message that is shown by itself, once it is inflated.
pub(crate) fn web_socket_message(redaction: &Redaction, bytes: &mut [u8], counts: &mut Counts) {
    Body::new(redaction, None).data(bytes, counts);
}

#[cfg(test)]
mod tests {
    use super::{super::addresses::tests::KEY, *};
    use crate::{
        http::{HttpConnection, WebSocket},
        redact::Addresses,
        timeline::Role,
        trace::{Address, HttpSide, Place},
    };

    fn sample() -> Exchange {
        let socket = |address: &str| Some(Address::Socket { address: address.into(), port: Some(80) });
        let connection = HttpConnection {
            number: 0,
            trace_id: 7,
            began: None,
            role: Role::Downstream,
            source: socket("192.0.2.1"),
            destination: Some(Address::Pipe("/run/app.sock".into())),
            http_tap: false,
            upstream: None,
            place: Place::default(),
        };
        Exchange::new(Arc::new(connection), Place::default())
    }

    fn frame(side: HttpSide, opcode: u8, bytes: u64) -> WebSocketFrame {
        WebSocketFrame { side, time: 0, opcode, last: true, bytes }
    }

    #[test]
    fn the_connection_of_an_exchange_is_told_with_other_names() {
        let names = true;
        let redaction = Redaction { addresses: Addresses::new(KEY).ok(), names, ..Redaction::default() };
        let mut redacted = sample();
        let shared = Arc::clone(&redacted.connection);
        exchange(&redaction, &mut redacted, &mut Counts::default());
        let addresses = redaction.addresses.as_ref().unwrap();
        let connection = &redacted.connection;
        assert_eq!(connection.source.as_ref().unwrap().to_string(), "100.115.72.131:80");
        assert_eq!(connection.destination.as_ref().unwrap().to_string(), addresses.socket("/run/app.sock"));
        assert_eq!(connection.trace_id, addresses.trace_id(7));
        assert_eq!(shared.trace_id, 7);
    }

    #[test]
    fn what_cannot_be_read_of_a_web_socket_is_taken_out() {
        let mut redacted = sample();
        let frames = vec![frame(HttpSide::Request, 1, 3), frame(HttpSide::Response, 1, 200)];
        redacted.web_socket = Some(Box::new(WebSocket { frames, ..WebSocket::default() }));
        // A compressed message, masked with a key, and a frame whose end is missing.
        redacted.request.body = [b"\xc1\x83\x01\x02\x03\x04".as_slice(), b"abc", b"rest"].concat();
        redacted.response.body = b"\x81\x7e\0\xc8secret".to_vec();
        let mut counts = Counts::default();
        exchange(&Redaction::default(), &mut redacted, &mut counts);
        let masked = [b"\x81\x83\x01\x02\x03\x04".as_slice(), &[b'*' ^ 1, b'*' ^ 2, b'*' ^ 3], b"****"].concat();
        assert_eq!(redacted.request.body, masked);
        assert_eq!(redacted.response.body, [b'*'; 10]);
        assert_eq!(counts.of(Kind::Body), 3);
    }

    #[test]
    fn a_frame_ends_where_its_length_says() {
        let mut bytes = b"\x81\x85\x01\x02\x03\x04helloafter".to_vec();
        let (is_compressed, key, payload, after) =
            split_frame(&mut bytes, &frame(HttpSide::Request, 1, 5)).ok().unwrap();
        assert!(!is_compressed);
        assert_eq!((key, &*payload, &*after), (Some([1, 2, 3, 4]), &b"hello"[..], &b"after"[..]));
        for (bytes, len) in
            [(&b""[..], 0), (b"\x81", 0), (b"\x81\x85\x01", 0), (b"\x81\x05abc", 5), (b"\x81\xff", u64::MAX)]
        {
            assert!(split_frame(&mut bytes.to_vec(), &frame(HttpSide::Request, 1, len)).is_err(), "{bytes:?}");
        }
    }
}
