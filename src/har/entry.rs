//! One exchange as an entry of HAR 1.2. Names are the format's; those of our own start with an underscore, as it asks.

use std::borrow::Cow;

use super::text::{Cookies, Fields, Query, body, lossy, url};
use crate::{
    timeline::{HttpOptions, SideChoice, Track},
    trace::{Address, HttpPart, HttpSide, MessageView, Nanos, rfc3339},
};

#[derive(Debug)]
pub(super) struct Entry<'a> {
    started_date_time: String,
    /// Milliseconds.
    time: f64,
    request: Request<'a>,
    response: Response<'a>,
    /// Nothing is known of it, but the format asks for an object.
    cache: serde_json::Map<String, serde_json::Value>,
    timings: Timings,
    server_ip_address: Option<String>,
    connection: Option<String>,
    comment: String,
}

object!(Entry<'_> {
    "startedDateTime": started_date_time,
    "time": time,
    "request": request,
    "response": response,
    "cache": cache,
    "timings": timings,
    "serverIPAddress": server_ip_address unless Option::is_none,
    "connection": connection unless Option::is_none,
    "comment": comment,
});

#[derive(Debug)]
struct Timings {
    send: f64,
    wait: f64,
    receive: f64,
}

object!(Timings {
    "send": send,
    "wait": wait,
    "receive": receive,
});

#[derive(Debug)]
struct Request<'a> {
    method: Cow<'a, str>,
    url: String,
    http_version: &'static str,
    cookies: Cookies<'a>,
    headers: Fields<'a>,
    query_string: Query<'a>,
    post_data: Option<PostData<'a>>,
    headers_size: i64,
    body_size: i64,
    trailers: Fields<'a>,
}

object!(Request<'_> {
    "method": method,
    "url": url,
    "httpVersion": http_version,
    "cookies": cookies,
    "headers": headers,
    "queryString": query_string,
    "postData": post_data unless Option::is_none,
    "headersSize": headers_size,
    "bodySize": body_size,
    "_trailers": trailers unless Fields::is_empty,
});

#[derive(Debug)]
struct PostData<'a> {
    mime_type: Cow<'a, str>,
    text: Cow<'a, str>,
    /// The format has a place for this in responses only.
    encoding: Option<&'static str>,
    comment: Option<String>,
}

object!(PostData<'_> {
    "mimeType": mime_type,
    "text": text,
    "_encoding": encoding unless Option::is_none,
    "comment": comment unless Option::is_none,
});

#[derive(Debug)]
struct Response<'a> {
    status: u16,
    status_text: &'static str,
    http_version: &'static str,
    cookies: Cookies<'a>,
    headers: Fields<'a>,
    content: Content<'a>,
    redirect_url: Cow<'a, str>,
    headers_size: i64,
    body_size: i64,
    trailers: Fields<'a>,
}

object!(Response<'_> {
    "status": status,
    "statusText": status_text,
    "httpVersion": http_version,
    "cookies": cookies,
    "headers": headers,
    "content": content,
    "redirectURL": redirect_url,
    "headersSize": headers_size,
    "bodySize": body_size,
    "_trailers": trailers unless Fields::is_empty,
});

#[derive(Debug)]
struct Content<'a> {
    size: i64,
    mime_type: Cow<'a, str>,
    text: Option<Cow<'a, str>>,
    encoding: Option<&'static str>,
    comment: Option<String>,
}

object!(Content<'_> {
    "size": size,
    "mimeType": mime_type,
    "text": text unless Option::is_none,
    "encoding": encoding unless Option::is_none,
    "comment": comment unless Option::is_none,
});

/// The parts of one side, put together.
#[derive(Debug, Default)]
struct Side<'a> {
    pseudo: Vec<(&'a [u8], &'a [u8])>,
    fields: Vec<(&'a [u8], &'a [u8])>,
    trailers: Vec<(&'a [u8], &'a [u8])>,
    body: Cow<'a, [u8]>,
    time: Option<Nanos>,
}

impl<'a> Side<'a> {
    fn new(view: MessageView<'a>, side: HttpSide) -> Self {
        let mut out = Self::default();
        for piece in view.message().http.iter().filter(|piece| piece.side == side) {
            let pairs = view.headers(piece).iter().map(|field| (view.bytes(field.key), view.bytes(field.value)));
            match piece.part {
                HttpPart::Headers => {
                    // After an informational response comes another one, and that is what counts.
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

/// How many bytes a body had, as far as known, and what to say where some are missing.
fn true_size(track: &Track, bodiless: bool) -> (i64, Option<String>) {
    let announced = track.content_length().filter(|length| *length > track.body && !bodiless);
    let (size, comment) = match announced {
        Some(length) => (length, Some(format!("{} of the {length} bytes are here", track.body))),
        None if track.truncated => {
            (track.body, Some(format!("truncated: {} bytes are here, how many there were is not known", track.body)))
        }
        None => (track.body, None),
    };
    (i64::try_from(size).unwrap_or(i64::MAX), comment)
}

impl<'a> Entry<'a> {
    pub(super) fn new(
        name: &str,
        view: MessageView<'a>,
        tracks: &[Track; 2],
        options: HttpOptions,
        start_time: Nanos,
    ) -> Self {
        let [request, response] = [Side::new(view, HttpSide::Request), Side::new(view, HttpSide::Response)];
        let mut notes = vec![format!("from {name}, trace_id {}", view.message().trace_id)];
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
            request: request_of(&request, &tracks[0], version),
            response: response_of(&response, tracks, version),
            cache: serde_json::Map::new(),
            timings: Timings { send: 0.0, wait: waited, receive: 0.0 },
            server_ip_address,
            connection,
            comment: notes.join("; "),
        }
    }
}

fn request_of<'a>(side: &Side<'a>, track: &Track, version: &'static str) -> Request<'a> {
    let target = side.pseudo(b":path");
    let (body_size, missing) = true_size(track, false);
    let post_data = (!side.body.is_empty()).then(|| {
        let (text, is_base64) = body(side.body.clone());
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
        headers: Fields(side.fields.clone()),
        query_string: Query(target),
        post_data,
        headers_size: -1,
        body_size,
        trailers: Fields(side.trailers.clone()),
    }
}

fn response_of<'a>(side: &Side<'a>, tracks: &[Track; 2], version: &'static str) -> Response<'a> {
    let track = &tracks[1];
    let bodiless = tracks[0].is_head_request() || track.is_bodiless();
    let (size, comment) = true_size(track, bodiless);
    let content = if side.body.is_empty() {
        Content { size, mime_type: lossy(side.field(b"content-type")), text: None, encoding: None, comment }
    } else {
        let (text, is_base64) = body(side.body.clone());
        let encoding = is_base64.then_some("base64");
        Content { size, mime_type: lossy(side.field(b"content-type")), text: Some(text), encoding, comment }
    };
    let status = str::from_utf8(side.pseudo(b":status")).ok().and_then(|status| status.parse().ok()).unwrap_or(0);
    Response {
        status,
        status_text: crate::timeline::reason_phrase(status),
        http_version: version,
        cookies: Cookies::Response(side.all(b"set-cookie").collect()),
        headers: Fields(side.fields.clone()),
        content,
        redirect_url: lossy(side.field(b"location")),
        headers_size: -1,
        body_size: size,
        trailers: Fields(side.trailers.clone()),
    }
}

/// The server's address and the client's port, where they are recorded.
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
