//! Connections as lines of JSON.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    io,
    net::SocketAddr,
    path::Path,
    sync::Arc,
};

use serde_json::{Value, json};

use super::pipe_command;
use crate::{
    commands::{
        error::Error,
        hints::Hints,
        http::{
            backlog::{Backlog, Line},
            json::{self, of_connection},
        },
    },
    http::{HttpConnection, HttpConnectionEnd, HttpStage, HttpStageOptions},
    input::Input,
    redact::{Counts, Redaction},
    synth::TcpMode,
    timeline::{
        ClientHello, DirectionTotals, Endpoints, Opening, Protocol, ProxyHeader, Pseudonyms as _, Summary, Timelines,
    },
    trace::{Address, Connection, Place, rfc3339},
    untrusted::escape_json,
};

/// What tells a connection apart in its source: its `trace_id`, and where the first message about it begins.
type Key = (u64, Place);

/// The connections of one source as lines.
///
/// What only HTTP tells of a connection comes from an [`HttpStage`]. It is there before the connection of a socket is
/// over. An exchange of an HTTP tap may be over later than the connection that it is replayed on; its line waits then.
#[derive(Debug)]
pub(in crate::commands) struct ConnectionLines {
    file: String,
    redaction: Option<Arc<Redaction>>,
    /// Whether only connections are wanted that [`ConnectionLines::keep`] has named.
    selects: bool,
    kept: HashSet<Key>,
    /// The end of the socket's connection whose line comes next.
    end: Option<HttpConnectionEnd>,
    /// Exchanges of HTTP taps that are over, and whether they are gRPC. Their lines are still to come, but for those of
    /// exchanges that the replay gave up early.
    taps: HashMap<Key, bool>,
    /// Lines that wait for the ends of their exchanges, which come at the latest at the end of the source.
    late: Backlog,
}

impl ConnectionLines {
    /// The stage that tells the HTTP of connections, if exchanges are of no interest.
    pub(in crate::commands) fn http_stage() -> HttpStage {
        HttpStage::new(HttpStageOptions { all_connections: true, max_body: 0, ..HttpStageOptions::default() })
    }

    pub(in crate::commands) fn new(input: &Input, redaction: Option<&Arc<Redaction>>) -> Self {
        Self {
            file: input.path().display().to_string(),
            redaction: redaction.cloned(),
            selects: false,
            kept: HashSet::new(),
            end: None,
            taps: HashMap::new(),
            late: Backlog::default(),
        }
    }

    /// From now on, only connections are wanted that [`ConnectionLines::keep`] names.
    pub(in crate::commands) fn select(&mut self) {
        self.selects = true;
    }

    /// Selects a connection.
    pub(in crate::commands) fn keep(&mut self, connection: &HttpConnection) {
        if self.selects {
            self.kept.insert((connection.trace_id, connection.place));
        }
    }

    /// Takes the end of a connection.
    pub(in crate::commands) fn end(&mut self, end: HttpConnectionEnd) {
        if end.connection.http_tap {
            self.taps.insert((end.connection.trace_id, end.connection.place), end.protocol.is_some());
        } else {
            self.end = Some(end);
        }
    }

    /// The line of a connection; empty if it is not wanted, or must wait.
    pub(in crate::commands) fn connection(
        &mut self,
        summary: &Summary,
        endpoints: &Endpoints,
        timelines: &Timelines,
    ) -> io::Result<Vec<u8>> {
        let end = self.end.take();
        let opening = &summary.opening;
        let key = (opening.trace_id, opening.place);
        let is_tap = opening.http.is_some();
        let is_kept = !self.selects || self.kept.remove(&key);
        if !is_kept && !is_tap {
            return Ok(Vec::new());
        }
        let tap = if is_tap { self.taps.remove(&key) } else { None };
        if !is_kept && tap.is_some() {
            return Ok(Vec::new());
        }
        let mut line = self.begin(summary, endpoints, timelines);
        match (is_tap, tap, end) {
            (true, Some(is_grpc), _) => end_tap(&mut line, is_grpc),
            (true, None, _) => {
                let kept = vec![u8::from(is_kept)];
                self.late.push(0, &Line { key: bytes_of(key), text: line, kept })?;
                line = Vec::new();
            }
            (false, _, Some(end)) => json::end(&mut line, &end),
            (false, _, None) => json::end_with(&mut line, std::iter::empty()),
        }
        Ok(line)
    }

    /// Passes on the lines that have waited, at the end of the source.
    pub(in crate::commands) fn rest(&mut self, mut each: impl FnMut(&[u8]) -> Result<(), Error>) -> Result<(), Error> {
        let Self { late, taps, kept, selects, .. } = self;
        let taps: HashMap<_, _> = taps.drain().map(|(key, is_grpc)| (bytes_of(key), is_grpc)).collect();
        let kept: HashSet<_> = kept.drain().map(bytes_of).collect();
        late.take(0, |mut line| {
            if *selects && line.kept == [0] && !kept.contains(&line.key) {
                return Ok(());
            }
            end_tap(&mut line.text, taps.get(&line.key).is_some_and(|is_grpc| *is_grpc));
            each(&line.text)
        })
    }

    /// The line but for what only the end of the connection tells.
    fn begin(&self, summary: &Summary, endpoints: &Endpoints, timelines: &Timelines) -> Vec<u8> {
        let shown = Shown::of(self.redaction.as_deref(), &self.file, summary);
        let mut http = HttpConnection::new(0, &shown.opening, summary.first);
        if http.http_tap {
            // An exchange has times, but its connection has none.
            http.began = None;
        }
        let object = object(&shown, summary, endpoints, timelines).to_string();
        let mut line = escape_json(&object).into_owned().into_bytes();
        line.pop();
        line.push(b',');
        of_connection(&mut line, http, &shown.file);
        line
    }
}

fn bytes_of((trace_id, Place { offset, message }): Key) -> Vec<u8> {
    [trace_id, offset, message].map(u64::to_be_bytes).concat()
}

fn end_tap(line: &mut Vec<u8>, is_grpc: bool) {
    let protocol = is_grpc.then(|| ("protocol", crate::http::Value::Text(b"grpc".as_slice().into())));
    json::end_with(line, protocol.into_iter());
}

/// What is shown of a connection, after secrets were taken out.
struct Shown<'a> {
    file: Cow<'a, str>,
    is_file_replaced: bool,
    opening: Cow<'a, Opening>,
    /// What a client of TLS has said, if it has.
    hello: Option<Cow<'a, ClientHello>>,
    proxy: Option<ProxyHeader>,
}

impl<'a> Shown<'a> {
    fn of(redaction: Option<&Redaction>, file: &'a str, summary: &'a Summary) -> Self {
        let Summary { opening, speech, .. } = summary;
        let is_tls = speech.protocol == Protocol::Tls || speech.goes_on_in_tls;
        let hello = || speech.hello.as_deref().map_or_else(|| Cow::Owned(ClientHello::default()), Cow::Borrowed);
        let mut shown = Self {
            file: Cow::Borrowed(file),
            is_file_replaced: false,
            opening: Cow::Borrowed(opening),
            hello: is_tls.then(hello),
            proxy: speech.proxy.as_deref().cloned(),
        };
        let Some(redaction) = redaction else { return shown };
        shown.file = redaction.file(file);
        shown.is_file_replaced = redaction.names;
        if redaction.addresses.is_some() {
            let opening = shown.opening.to_mut();
            opening.trace_id = redaction.trace_id(opening.trace_id);
            let Connection { local, remote } = &mut opening.connection;
            [local, remote].into_iter().flatten().for_each(|end| redaction.address(end, &mut Counts::default()));
            if let Some(ProxyHeader { source, destination, .. }) = &mut shown.proxy {
                [source, destination].into_iter().flatten().for_each(|end| *end = redaction.ip(*end));
            }
        }
        // A capture has nothing of it either, unless bytes are kept that are not understood.
        shown.hello = shown.hello.filter(|_| redaction.keep_unknown);
        if let Some(name) = shown.hello.as_mut().and_then(|hello| hello.to_mut().server_name.as_mut()) {
            *name = redaction.host(name).into_owned();
        }
        shown
    }
}

/// Everything but the attributes.
fn object(shown: &Shown<'_>, summary: &Summary, endpoints: &Endpoints, timelines: &Timelines) -> Value {
    let source = timelines.source();
    let (opening, speech) = (&*shown.opening, &summary.speech);
    let side = |side: DirectionTotals| json!({ "events": side.events, "bytes": side.bytes, "lost": side.lost, "open_ended": side.open_ended });
    let end = |address: SocketAddr, name: Option<&Address>| json!({ "address": address.ip().to_string(), "port": address.port(), "trace": name.map(Address::to_string) });
    // The path itself may have bytes that are no text.
    let path = if shown.is_file_replaced { Path::new(&*shown.file) } else { source.path() };
    let [read, write] = summary.sides;
    let mut hints = Hints::default();
    hints.add(summary, endpoints, TcpMode::Full);
    let layers: Vec<_> = source.layers().iter().map(|layer| layer.name()).collect();
    let mode = if opening.buffered { "buffered" } else { "streamed" };
    let mut object = json!({
        "path": shown.file, "format": source.encoding().name(), "layers": layers, "mode": mode, "role": opening.role.word(), "trace_id": opening.trace_id,
        "local": end(endpoints.local, opening.connection.local.as_ref()),
        "remote": end(endpoints.remote, opening.connection.remote.as_ref()),
        "first": rfc3339(summary.first), "last": rfc3339(summary.last), "read": side(read), "write": side(write),
        "closed": summary.closed, "protocol": speech.protocol.name(),
        "open": pipe_command(path, &hints),
    });
    if let Some(hello) = &shown.hello {
        object["tls"] = tls(hello);
    }
    if let Some(proxy) = &shown.proxy {
        let end = |address: Option<SocketAddr>| {
            address.map(|address| json!({ "address": address.ip().to_string(), "port": address.port() }))
        };
        object["proxy"] =
            json!({ "version": proxy.version, "source": end(proxy.source), "destination": end(proxy.destination) });
    }
    object
}

/// What a client of TLS asks for.
fn tls(hello: &ClientHello) -> Value {
    let mut tls = json!({ "alpn": hello.alpn });
    if let Some(name) = &hello.server_name {
        tls["server_name"] = name.as_str().into();
    }
    if hello.is_cut {
        tls["cut"] = true.into();
    }
    tls
}
