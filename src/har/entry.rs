//! One exchange as an entry of HAR 1.2. The format asks that the names of additions begin with an underscore.

use std::borrow::Cow;

use serde::Serialize;

use super::socket::WebSocketMessage;
use super::text::{Cookies, HeaderFields, Query, body, lossy, url};
use crate::{
    redact::{self, Counts, Redaction, TapSide},
    timeline::{HttpOptions, SideChoice, Track},
    trace::{Address, HttpPart, HttpSide, MessageView, Nanos, rfc3339},
};

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct HarEntry<'a> {
    pub(super) started_date_time: String,
    /// Milliseconds.
    pub(super) time: f64,
    pub(super) request: Request<'a>,
    pub(super) response: Response<'a>,
    pub(super) cache: Cache,
    pub(super) timings: Timings,
    #[serde(rename = "serverIPAddress", skip_serializing_if = "Option::is_none")]
    pub(super) server_ip_address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) connection: Option<String>,
    pub(super) comment: String,
    #[serde(rename = "_webSocketMessages", skip_serializing_if = "Option::is_none")]
    pub(super) web_socket_messages: Option<Vec<WebSocketMessage<'a>>>,
}

#[derive(Debug, Serialize)]
pub(super) struct Cache {}

#[derive(Debug, Serialize)]
pub(super) struct Timings {
    pub(super) send: f64,
    pub(super) wait: f64,
    pub(super) receive: f64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Request<'a> {
    pub(super) method: Cow<'a, str>,
    pub(super) url: String,
    pub(super) http_version: &'static str,
    pub(super) cookies: Cookies<'a>,
    pub(super) headers: HeaderFields<'a>,
    pub(super) query_string: Query<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) post_data: Option<PostData<'a>>,
    pub(super) headers_size: i64,
    pub(super) body_size: i64,
    #[serde(rename = "_trailers", skip_serializing_if = "HeaderFields::is_empty")]
    pub(super) trailers: HeaderFields<'a>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PostData<'a> {
    pub(super) mime_type: Cow<'a, str>,
    pub(super) text: Cow<'a, str>,
    /// HAR 1.2 has `encoding` for response bodies only.
    #[serde(rename = "_encoding", skip_serializing_if = "Option::is_none")]
    pub(super) encoding: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) comment: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Response<'a> {
    pub(super) status: u16,
    pub(super) status_text: &'static str,
    pub(super) http_version: &'static str,
    pub(super) cookies: Cookies<'a>,
    pub(super) headers: HeaderFields<'a>,
    pub(super) content: Content<'a>,
    #[serde(rename = "redirectURL")]
    pub(super) redirect_url: Cow<'a, str>,
    pub(super) headers_size: i64,
    pub(super) body_size: i64,
    #[serde(rename = "_trailers", skip_serializing_if = "HeaderFields::is_empty")]
    pub(super) trailers: HeaderFields<'a>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Content<'a> {
    pub(super) size: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) compression: Option<i64>,
    pub(super) mime_type: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) text: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) encoding: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) comment: Option<String>,
}

/// One side of an exchange, assembled from its parts.
#[derive(Debug, Default)]
pub(super) struct ExchangeSide<'a> {
    pseudo: Vec<(&'a [u8], &'a [u8])>,
    fields: Vec<(&'a [u8], &'a [u8])>,
    trailers: Vec<(&'a [u8], &'a [u8])>,
    body: Cow<'a, [u8]>,
    /// Where bytes of the body are missing.
    holes: Vec<usize>,
    /// Whether the body has lost its content codings.
    is_decoded: bool,
    time: Option<Nanos>,
}

impl<'a> ExchangeSide<'a> {
    /// The request and the response.
    pub(super) fn both(view: MessageView<'a>) -> [Self; 2] {
        [Self::new(view, HttpSide::Request), Self::new(view, HttpSide::Response)]
    }

    /// Whether bytes of another protocol follow the heads of a request and a response.
    pub(super) fn open_tunnel(sides: &[Self; 2]) -> bool {
        sides[0].pseudo(b":method") == b"CONNECT"
            || sides[1].pseudo(b":status") == b"101"
            || sides[0].all(b"upgrade").any(|value| value.eq_ignore_ascii_case(b"websocket"))
    }

    pub(super) fn clear_body(&mut self) {
        self.body = Cow::default();
        self.holes.clear();
    }

    /// A copy without secrets.
    pub(super) fn redacted(self, redaction: &Redaction, counts: &mut Counts) -> (TapSide, Option<Nanos>) {
        let owned = |pairs: Vec<(&[u8], &[u8])>| {
            pairs.into_iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect::<Vec<_>>()
        };
        let Self { pseudo, fields, trailers, body, holes, time, .. } = self;
        let mut side = TapSide {
            pseudo: owned(pseudo),
            fields: owned(fields),
            trailers: owned(trailers),
            body: body.into_owned(),
            holes,
            is_decoded: false,
        };
        redact::tap_side(redaction, &mut side, counts);
        (side, time)
    }

    /// What [`ExchangeSide::redacted`] has returned.
    pub(super) fn of_redacted((side, time): &'a (TapSide, Option<Nanos>)) -> Self {
        let TapSide { pseudo, fields, trailers, body, is_decoded, .. } = side;
        let borrowed = |pairs: &'a [(Vec<u8>, Vec<u8>)]| {
            pairs.iter().map(|(name, value)| (name.as_slice(), value.as_slice())).collect::<Vec<_>>()
        };
        Self {
            pseudo: borrowed(pseudo),
            fields: borrowed(fields),
            trailers: borrowed(trailers),
            body: Cow::Borrowed(body),
            holes: Vec::new(),
            is_decoded: *is_decoded,
            time: *time,
        }
    }

    /// The body without its content codings, and whether it had some that could be taken off.
    fn decoded(&self) -> (Cow<'_, [u8]>, bool) {
        match self.is_decoded {
            true => (Cow::Borrowed(&self.body), true),
            false => decoded(self.all(b"content-encoding"), &self.body),
        }
    }

    fn new(view: MessageView<'a>, side: HttpSide) -> Self {
        let mut out = Self::default();
        for piece in view.message().http.iter().filter(|piece| piece.side == side) {
            let pairs = view.headers(piece).iter().map(|field| (view.bytes(field.key), view.bytes(field.value)));
            match piece.part {
                HttpPart::Headers => {
                    // The final response follows an informational one and replaces it (RFC 9110 section 15.2).
                    out.pseudo.clear();
                    out.fields.clear();
                    let (pseudo, fields): (Vec<_>, _) = pairs.partition(|(key, _)| key.starts_with(b":"));
                    (out.pseudo, out.fields) = (pseudo, fields);
                    out.time = out.time.or(piece.time);
                }
                HttpPart::Body => {
                    let bytes = view.bytes(piece.body.payload);
                    if out.body.is_empty() {
                        out.body = Cow::Borrowed(bytes);
                    } else {
                        out.body.to_mut().extend_from_slice(bytes);
                    }
                    if piece.body.truncated {
                        out.holes.push(out.body.len());
                    }
                }
                HttpPart::Trailers => out.trailers.extend(pairs),
            }
        }
        out
    }

    fn pseudo(&self, name: &[u8]) -> &'a [u8] {
        self.pseudo.iter().find(|(key, _)| *key == name).map_or(&[], |(_, value)| value)
    }

    fn all(&self, name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        self.fields.iter().filter(move |(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
    }

    fn field(&self, name: &'a [u8]) -> &'a [u8] {
        self.all(name).next().unwrap_or_default()
    }
}

/// The most bytes that a body may have without its content codings.
pub(super) const MAX_DECODED: usize = 64 << 20;

/// A body without its content codings, and whether it had some that could be taken off.
pub(super) fn decoded<'a, 'b>(codings: impl Iterator<Item = &'a [u8]>, body: &'b [u8]) -> (Cow<'b, [u8]>, bool) {
    match crate::http::decode_all(codings, body, MAX_DECODED) {
        Some(decoded) => (Cow::Owned(decoded), true),
        None => (Cow::Borrowed(body), false),
    }
}

/// The size of a body as far as it is known, and a comment if bytes are missing.
fn true_size(track: &Track, bodiless: bool) -> (i64, Option<String>) {
    let announced = track.content_length().filter(|length| *length > track.body && !bodiless);
    // A body may also be shorter than announced because its sender gave up.
    let is_cut = track.truncated || track.as_string;
    let (size, comment) = match announced {
        Some(length) => {
            let size = if is_cut { length } else { track.body };
            (size, Some(format!("{} of the {length} bytes are here", track.body)))
        }
        None if track.truncated => {
            (track.body, Some(format!("truncated: {} bytes are here; how many there were is not known", track.body)))
        }
        None => (track.body, None),
    };
    (i64::try_from(size).unwrap_or(i64::MAX), comment)
}

impl<'a> HarEntry<'a> {
    pub(super) fn new(
        name: &str,
        view: MessageView<'_>,
        [request, response]: &[ExchangeSide<'a>; 2],
        tracks: &[Track; 2],
        options: HttpOptions,
        start_time: Nanos,
    ) -> Self {
        let mut notes = vec![from(name, view.message().trace_id)];
        let date = str::from_utf8(response.field(b"date")).ok().and_then(|date| httpdate::parse_http_date(date).ok());
        let started = request.time.or(response.time).map(rfc3339).or_else(|| {
            notes.push("the trace has no time; this one is made up".to_owned());
            date.map(|date| prost_types::Timestamp::from(date).to_string())
        });
        let waited = match (request.time, response.time) {
            (Some(sent), Some(received)) => received.saturating_sub(sent) as f64 / 1e6,
            _ => 0.0,
        };
        for (side, track) in [("request", &tracks[0]), ("response", &tracks[1])] {
            if track.is_empty() {
                notes.push(format!("the trace has no {side}"));
            }
        }
        let version =
            if tracks.iter().any(|track| track.wants_http2 || track.has_trailers) { "HTTP/2" } else { "HTTP/1.1" };
        let (server_ip_address, connection) = endpoints(view, options.side);
        Self {
            started_date_time: started.unwrap_or_else(|| rfc3339(start_time)),
            time: waited,
            request: request_of(request, &tracks[0], version),
            response: response_of(response, tracks, version),
            cache: Cache {},
            timings: Timings { send: 0.0, wait: waited, receive: 0.0 },
            server_ip_address,
            connection,
            comment: notes.join("; "),
            web_socket_messages: None,
        }
    }

    /// Replaces what does not come from the exchange itself: addresses, and where it comes from.
    pub(super) fn redact(&mut self, redaction: &Redaction, name: &str, view: MessageView<'_>) {
        let trace_id = view.message().trace_id;
        let (old, new) = (from(name, trace_id), from(&redaction.file(name), redaction.trace_id(trace_id)));
        if let Some(rest) = self.comment.strip_prefix(&old) {
            self.comment = new + rest;
        }
        if let (Some(address), Some(addresses)) = (&mut self.server_ip_address, &redaction.addresses) {
            *address = address.parse().map(|ip| addresses.ip(ip).to_string()).unwrap_or_default();
        }
    }
}

/// Where an exchange comes from.
pub(super) fn from(name: &str, trace_id: u64) -> String {
    format!("from {name}, trace_id {trace_id}")
}

fn request_of<'a>(side: &ExchangeSide<'a>, track: &Track, version: &'static str) -> Request<'a> {
    let target = side.pseudo(b":path");
    let (body_size, missing) = true_size(track, false);
    let post_data = (!side.body.is_empty()).then(|| {
        let (bytes, is_decoded) = side.decoded();
        let bytes = if is_decoded { Cow::Owned(bytes.into_owned()) } else { side.body.clone() };
        let (text, is_base64) = body(bytes);
        let comment = match (is_base64, missing) {
            (true, Some(missing)) => Some(format!("base64; {missing}")),
            (true, None) => Some("base64".to_owned()),
            (false, missing) => missing,
        };
        let encoding = is_base64.then_some("base64");
        PostData { mime_type: lossy(side.field(b"content-type")), text, encoding, comment }
    });
    Request {
        method: lossy(side.pseudo(b":method")),
        url: url(side.pseudo(b":scheme"), side.pseudo(b":authority"), target),
        http_version: version,
        cookies: Cookies::Request(side.all(b"cookie").collect()),
        headers: HeaderFields(side.fields.clone()),
        query_string: Query(target),
        post_data,
        headers_size: -1,
        body_size,
        trailers: HeaderFields(side.trailers.clone()),
    }
}

fn response_of<'a>(side: &ExchangeSide<'a>, tracks: &[Track; 2], version: &'static str) -> Response<'a> {
    let track = &tracks[1];
    let bodiless = tracks[0].is_head_request() || track.is_bodiless();
    let (size, comment) = true_size(track, bodiless);
    let content = if side.body.is_empty() {
        let mime_type = lossy(side.field(b"content-type"));
        Content { size, compression: None, mime_type, text: None, encoding: None, comment }
    } else {
        let (bytes, is_decoded) = side.decoded();
        let len = i64::try_from(bytes.len()).unwrap_or(i64::MAX);
        let compression = (is_decoded && comment.is_none()).then(|| len - size);
        let (text, is_base64) = match is_decoded {
            true => body(Cow::Owned(bytes.into_owned())),
            false => body(side.body.clone()),
        };
        Content {
            size: if is_decoded { len } else { size },
            compression,
            mime_type: lossy(side.field(b"content-type")),
            text: Some(text),
            encoding: is_base64.then_some("base64"),
            comment,
        }
    };
    let status = str::from_utf8(side.pseudo(b":status")).ok().and_then(|status| status.parse().ok()).unwrap_or(0);
    Response {
        status,
        status_text: crate::timeline::reason_phrase(status),
        http_version: version,
        cookies: Cookies::Response(side.all(b"set-cookie").collect()),
        headers: HeaderFields(side.fields.clone()),
        content,
        redirect_url: lossy(side.field(b"location")),
        headers_size: -1,
        body_size: size,
        trailers: HeaderFields(side.trailers.clone()),
    }
}

/// The server's address and the client's port, if the trace has them.
fn endpoints(view: MessageView<'_>, side: SideChoice) -> (Option<String>, Option<String>) {
    let message = view.message();
    let (client, server) = match (side, &message.connection, &message.upstream_connection) {
        (SideChoice::Upstream, _, Some(connection)) | (SideChoice::Downstream, None, Some(connection)) => {
            (&connection.local, &connection.remote)
        }
        (SideChoice::Downstream, Some(connection), _) => (&connection.remote, &connection.local),
        _ => return (None, None),
    };
    let ip = |address: &Option<Address>| match address {
        Some(Address::Socket { address, .. }) => address.parse::<std::net::IpAddr>().ok().map(|ip| ip.to_string()),
        _ => None,
    };
    let port = |address: &Option<Address>| match address {
        Some(Address::Socket { port, .. }) => port.map(|port| port.to_string()),
        _ => None,
    };
    (ip(server), port(client))
}
