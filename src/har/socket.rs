//! An exchange that was read out of a socket's bytes as an entry of HAR.

use std::borrow::Cow;

use flate2::{Decompress, FlushDecompress};
use serde::Serialize;

use super::{
    entry::{Cache, Content, HarEntry, MAX_DECODED, PostData, Request, Response, Timings, decoded, from},
    text::{Cookies, HeaderFields, Query, body, lossy, url},
};
use crate::{
    http::{Exchange, Fields, HttpMessage, WebSocketFrame},
    timeline::reason_phrase,
    trace::{Address, HttpSide, Nanos, rfc3339},
    words,
};

/// A WebSocket message, as Chromium exports it.
#[derive(Debug, Serialize)]
pub(super) struct WebSocketMessage<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    /// Seconds since 1970.
    time: f64,
    opcode: u8,
    /// Text, or base64 for binary messages.
    data: Cow<'a, str>,
}

fn pairs(fields: &Fields) -> HeaderFields<'_> {
    HeaderFields(fields.iter().collect())
}

fn milliseconds(nanos: Nanos) -> f64 {
    nanos as f64 / 1e6
}

/// How long the parts took. Together they are the exchange's duration: a response that began before the request had
/// ended leaves no time for waiting.
fn timings(exchange: &Exchange) -> Timings {
    let Exchange { request, response, .. } = exchange;
    let (Some(began), Some(answered)) = (request.began, response.began) else {
        return Timings { send: 0.0, wait: 0.0, receive: 0.0 };
    };
    let sent = request.ended.unwrap_or(began).clamp(began, answered.max(began));
    let ended = response.ended.unwrap_or(answered);
    Timings {
        send: milliseconds(sent.saturating_sub(began)),
        wait: milliseconds(answered.saturating_sub(sent)),
        receive: milliseconds(ended.saturating_sub(answered)),
    }
}

/// How many bytes of a body are kept, with its content codings.
fn here(message: &HttpMessage) -> u64 {
    message.coded_len.unwrap_or(message.body.len()) as u64
}

/// A body without its content codings, and whether it had some that could be taken off.
fn decoded_body(message: &HttpMessage) -> (Cow<'_, [u8]>, bool) {
    match message.coded_len {
        Some(_) => (Cow::Borrowed(&message.body), true),
        None => decoded(message.fields.all("content-encoding"), &message.body),
    }
}

/// The size of a body, and what to say if not all of it is in the trace.
fn size(message: &HttpMessage) -> (i64, Option<String>) {
    let here = here(message);
    let Some(size) = message.size() else {
        return (-1, Some(format!("{here} bytes are here; how many there were is not known")));
    };
    let comment = (here < size).then(|| format!("{here} of the {size} bytes are here"));
    (i64::try_from(size).unwrap_or(i64::MAX), comment)
}

fn join(notes: Vec<String>) -> Option<String> {
    (!notes.is_empty()).then(|| notes.join("; "))
}

/// What to say of gRPC's messages in a body.
fn grpc(exchange: &Exchange, side: HttpSide) -> Option<String> {
    let messages = exchange.grpc.as_ref()?.messages[side.index()];
    let more = if messages.uncounted { " and more" } else { "" };
    Some(format!("gRPC messages: {}{more}", messages.count))
}

fn text_of<'a>(exchange: &Exchange, bytes: Cow<'a, [u8]>) -> (Cow<'a, str>, bool) {
    // Messages have binary prefixes, even where all bytes happen to be text.
    if exchange.grpc.is_some() {
        return (Cow::Owned(base64_simd::STANDARD.encode_to_string(&bytes)), true);
    }
    body(bytes)
}

impl<'a> HarEntry<'a> {
    /// The entry of an exchange.
    ///
    /// `messages` are those of a WebSocket connection, if they are not those in the exchange's bytes.
    pub(super) fn of_exchange(
        name: &str,
        exchange: &'a Exchange,
        messages: Option<WebSocketMessages>,
        start_time: Nanos,
    ) -> Self {
        let Exchange { request, response, connection, .. } = exchange;
        let mut notes = vec![from(name, connection.trace_id)];
        let date = response.fields.get("date").and_then(|date| str::from_utf8(date).ok());
        let date = date.and_then(|date| httpdate::parse_http_date(date).ok());
        let started = request.began.or(response.began).filter(|time| *time > 0).map(rfc3339).or_else(|| {
            notes.push("the trace has no time; this one is made up".to_owned());
            date.map(|date| prost_types::Timestamp::from(date).to_string())
        });
        for (side, message) in [("request", request), ("response", response)] {
            if !message.has_head {
                notes.push(format!("the trace has no {side}"));
            } else if !message.complete {
                notes.push(format!("the trace has not all of the {side}"));
            }
        }
        let version = exchange.protocol.unwrap_or("HTTP/1.1");
        let timings = timings(exchange);
        let code = exchange.code.unwrap_or(0);
        let (request_size, request_cut) = size(request);
        let (response_size, response_cut) = size(response);
        let target = exchange.path.as_deref().unwrap_or_default();
        let is_web_socket = exchange.web_socket.is_some();
        let post_data = (!request.body.is_empty() && !is_web_socket).then(|| {
            let (bytes, is_decoded) = decoded_body(request);
            let (text, is_base64) = text_of(exchange, bytes);
            let mut notes = Vec::new();
            notes.extend(is_base64.then(|| "base64".to_owned()));
            notes.extend(is_decoded.then(|| "without its content coding".to_owned()));
            notes.extend(grpc(exchange, HttpSide::Request));
            notes.extend(request_cut);
            let mime_type = lossy(request.fields.get("content-type").unwrap_or_default());
            PostData { mime_type, text, encoding: is_base64.then_some("base64"), comment: join(notes) }
        });
        let mime_type = lossy(response.fields.get("content-type").unwrap_or_default());
        let mut notes_on_body: Vec<String> = grpc(exchange, HttpSide::Response).into_iter().collect();
        notes_on_body.extend(response_cut);
        let content = if response.body.is_empty() || is_web_socket {
            let comment = join(notes_on_body);
            Content { size: response_size.max(0), compression: None, mime_type, text: None, encoding: None, comment }
        } else {
            let (bytes, is_decoded) = decoded_body(response);
            let len = i64::try_from(bytes.len()).unwrap_or(i64::MAX);
            let whole = u64::try_from(response_size).is_ok_and(|size| size == here(response));
            let (text, is_base64) = text_of(exchange, bytes);
            Content {
                size: if is_decoded { len } else { response_size.max(0) },
                compression: (is_decoded && whole).then(|| len - response_size),
                mime_type,
                text: Some(text),
                encoding: is_base64.then_some("base64"),
                comment: join(notes_on_body),
            }
        };
        notes.extend(frames(exchange));
        let messages = messages.or_else(|| web_socket_messages(exchange, |_| {}));
        let (web_socket_messages, unreadable) = messages.unzip();
        notes.extend(
            unreadable.filter(|count| *count > 0).map(|count| {
                format!("{} left out, which cannot be inflated", words::count(count, "compressed message"))
            }),
        );
        let port = |address: &Option<Address>| match address {
            Some(Address::Socket { port, .. }) => port.map(|port| port.to_string()),
            _ => None,
        };
        let ip = |address: &Option<Address>| match address {
            Some(Address::Socket { address, .. }) => address.parse::<std::net::IpAddr>().ok().map(|ip| ip.to_string()),
            _ => None,
        };
        Self {
            started_date_time: started.unwrap_or_else(|| rfc3339(start_time)),
            time: timings.send + timings.wait + timings.receive,
            request: Request {
                method: lossy(exchange.method.as_deref().unwrap_or_default()),
                url: url(
                    exchange.scheme.as_deref().unwrap_or_default(),
                    exchange.host.as_deref().unwrap_or_default(),
                    target,
                ),
                http_version: version,
                cookies: Cookies::Request(request.fields.all("cookie").collect()),
                headers: pairs(&request.fields),
                query_string: Query(target),
                post_data,
                headers_size: -1,
                body_size: request_size,
                trailers: pairs(&request.trailers),
            },
            response: Response {
                status: code,
                status_text: reason_phrase(code),
                http_version: version,
                cookies: Cookies::Response(response.fields.all("set-cookie").collect()),
                headers: pairs(&response.fields),
                content,
                redirect_url: lossy(response.fields.get("location").unwrap_or_default()),
                headers_size: -1,
                body_size: response_size,
                trailers: pairs(&response.trailers),
            },
            cache: Cache {},
            timings,
            server_ip_address: ip(&connection.destination),
            connection: port(&connection.source),
            comment: notes.join("; "),
            web_socket_messages,
        }
    }
}

/// How many WebSocket frames there were, those of control included.
fn frames(exchange: &Exchange) -> Option<String> {
    let sides = exchange.web_socket.as_deref()?.sides;
    let [sent, received] = sides.map(|side| side.frames);
    let more = if sides.iter().any(|side| side.uncounted) { ", and some that cannot be told apart" } else { "" };
    Some(format!("{} sent and {received} received{more}", words::count(sent, "WebSocket frame")))
}

/// Messages, and how many are left out because they cannot be inflated.
pub(super) type WebSocketMessages = (Vec<WebSocketMessage<'static>>, u64);

/// The messages of a WebSocket connection, as far as their bytes are kept. `each` may change their bytes.
pub(super) fn web_socket_messages(exchange: &Exchange, mut each: impl FnMut(&mut [u8])) -> Option<WebSocketMessages> {
    let web_socket = exchange.web_socket.as_deref()?;
    let mut rest = [exchange.request.body.as_slice(), exchange.response.body.as_slice()];
    let mut begun: [Begun; 2] = Default::default();
    let mut inflaters = [Inflater::default(), Inflater::default()];
    let (mut messages, mut unreadable) = (Vec::new(), 0);
    for frame in &web_socket.frames {
        let index = frame.side.index();
        let is_compressed = rest[index].first().is_some_and(|first| first & RSV1 != 0);
        let Some(payload) = payload(&mut rest[index], frame) else {
            rest[index] = &[];
            continue;
        };
        // Control frames may come between the frames of a message (RFC 6455 section 5.5).
        if frame.opcode >= 8 {
            continue;
        }
        let message = &mut begun[index];
        if frame.opcode != 0 {
            *message = Begun { opcode: frame.opcode, is_compressed, bytes: Vec::new() };
        }
        message.bytes.extend(payload);
        if frame.last {
            let Begun { opcode, is_compressed, mut bytes } = std::mem::take(message);
            if is_compressed {
                let Some(inflated) = inflaters[index].message(bytes) else {
                    unreadable += 1;
                    continue;
                };
                bytes = inflated;
            }
            each(&mut bytes);
            let data = match (opcode, String::from_utf8(bytes)) {
                (1, Ok(text)) => text,
                (_, bytes) => {
                    let bytes = bytes.map_or_else(std::string::FromUtf8Error::into_bytes, String::into_bytes);
                    base64_simd::STANDARD.encode_to_string(bytes)
                }
            };
            let kind = if frame.side == HttpSide::Request { "send" } else { "receive" };
            let time = frame.time as f64 / 1e9;
            messages.push(WebSocketMessage { kind, time, opcode, data: Cow::Owned(data) });
        }
    }
    Some((messages, unreadable))
}

/// The bit of a message's first frame that says that permessage-deflate has compressed it (RFC 7692 section 6).
const RSV1: u8 = 0x40;

/// A message whose last frame has not come.
#[derive(Default)]
struct Begun {
    opcode: u8,
    is_compressed: bool,
    bytes: Vec<u8>,
}

/// Inflates the messages of one direction. Each may refer to those before it (RFC 7692 section 7.2.2); one that does not
/// is inflated in the same way.
struct Inflater {
    state: Decompress,
    /// How many bytes may still come.
    room: usize,
    /// What follows may refer to what could not be inflated.
    failed: bool,
}

impl Default for Inflater {
    fn default() -> Self {
        Self { state: Decompress::new(false), room: MAX_DECODED, failed: false }
    }
}

impl Inflater {
    fn message(&mut self, mut compressed: Vec<u8>) -> Option<Vec<u8>> {
        // The sender leaves these out.
        compressed.extend([0, 0, 0xff, 0xff]);
        let start = self.state.total_in();
        let mut out = Vec::new();
        while !self.failed {
            let used = usize::try_from(self.state.total_in() - start).unwrap_or(compressed.len());
            out.reserve(compressed.len().clamp(1 << 10, 1 << 20));
            let before = (self.state.total_in(), out.len());
            let rest = compressed.get(used..).unwrap_or_default();
            let inflated = self.state.decompress_vec(rest, &mut out, FlushDecompress::Sync);
            let has_room = out.len() < out.capacity();
            let is_stuck = before == (self.state.total_in(), out.len());
            self.failed = inflated.is_err() || out.len() > self.room;
            if !self.failed && has_room && (is_stuck || self.state.total_in() - start == compressed.len() as u64) {
                self.room -= out.len();
                return Some(out);
            }
        }
        None
    }
}

/// The payload of a side's next frame (RFC 6455 section 5.2), unmasked; `None` if its bytes are not all here.
fn payload(rest: &mut &[u8], frame: &WebSocketFrame) -> Option<Vec<u8>> {
    let [_, second, after @ ..] = *rest else { return None };
    let extended = match second & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let after = after.get(extended..)?;
    let (mask, after) = if second & 0x80 != 0 { after.split_first_chunk::<4>()? } else { (&[0; 4], after) };
    let (payload, after) = after.split_at_checked(usize::try_from(frame.bytes).ok()?)?;
    *rest = after;
    Some(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect())
}
