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
type Key = [u64; 3];

fn key(trace_id: u64, Place { offset, message }: Place) -> Key {
    [trace_id, offset, message]
}

/// How many exchanges of HTTP taps may be over before their lines are there: several times as many as may be open.
const MAX_TAPS: usize = 1 << 16;

/// An exchange of an HTTP tap that is over.
#[derive(Debug)]
struct Tap {
    is_grpc: bool,
    /// Whether its connection is wanted.
    is_kept: bool,
    /// How many were over before.
    number: u64,
}

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
    /// Exchanges of HTTP taps that are over, and whose lines are still to come or wait.
    taps: HashMap<Key, Tap>,
    /// How many were over so far.
    number: u64,
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
            number: 0,
            late: Backlog::default(),
        }
    }

    /// From now on, only connections are wanted that [`ConnectionLines::keep`] names.
    pub(in crate::commands) fn select(&mut self) {
        self.selects = true;
    }

    /// Selects a connection, before its end is taken.
    pub(in crate::commands) fn keep(&mut self, connection: &HttpConnection) {
        if self.selects {
            self.kept.insert(key(connection.trace_id, connection.place));
        }
    }

    /// Takes the end of a connection. Lines that have waited may be passed on.
    pub(in crate::commands) fn end(
        &mut self,
        end: HttpConnectionEnd,
        each: impl FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if !end.connection.http_tap {
            self.end = Some(end);
            return Ok(());
        }
        let key = key(end.connection.trace_id, end.connection.place);
        let is_kept = !self.selects || self.kept.remove(&key);
        self.taps.insert(key, Tap { is_grpc: end.protocol.is_some(), is_kept, number: self.number });
        self.number += 1;
        if self.taps.len() <= MAX_TAPS {
            return Ok(());
        }
        self.settle(false, each)?;
        // A hostile trace may have exchanges that no connection is made of.
        let latest = self.number.saturating_sub(MAX_TAPS as u64 / 2);
        self.taps.retain(|_, tap| tap.number >= latest);
        Ok(())
    }

    /// The line of a connection; empty if it is not wanted, or must wait.
    pub(in crate::commands) fn connection(
        &mut self,
        summary: &Summary,
        endpoints: &Endpoints,
        timelines: &Timelines,
    ) -> io::Result<Vec<u8>> {
        let end = self.end.take();
        let key = key(summary.opening.trace_id, summary.opening.place);
        if summary.opening.http.is_none() {
            if self.selects && !self.kept.remove(&key) {
                return Ok(Vec::new());
            }
            let mut line = self.begin(summary, endpoints, timelines);
            match &end {
                Some(end) => json::end(&mut line, end),
                None => json::end_with(&mut line, std::iter::empty()),
            }
            return Ok(line);
        }
        match self.taps.remove(&key) {
            Some(Tap { is_kept: false, .. }) => Ok(Vec::new()),
            Some(tap) => {
                let mut line = self.begin(summary, endpoints, timelines);
                end_tap(&mut line, tap.is_grpc);
                Ok(line)
            }
            None => {
                let text = self.begin(summary, endpoints, timelines);
                let key = key.map(u64::to_be_bytes).concat();
                self.late.push(0, &Line { key, text, kept: Vec::new() })?;
                Ok(Vec::new())
            }
        }
    }

    /// Passes on the lines that have waited, at the end of the source.
    pub(in crate::commands) fn rest(&mut self, each: impl FnMut(&[u8]) -> Result<(), Error>) -> Result<(), Error> {
        self.settle(true, each)
    }

    /// Passes on the lines that have waited and whose exchanges are over or, at the end, all of them.
    fn settle(&mut self, is_end: bool, mut each: impl FnMut(&[u8]) -> Result<(), Error>) -> Result<(), Error> {
        let mut late = std::mem::take(&mut self.late);
        late.take(0, |mut line| {
            let mut words = line.key.chunks_exact(8).map(|word| word.try_into().map_or(0, u64::from_be_bytes));
            let key = [(); 3].map(|()| words.next().unwrap_or_default());
            let (is_grpc, is_kept) = match self.taps.remove(&key) {
                Some(tap) => (tap.is_grpc, tap.is_kept),
                None if is_end => (false, !self.selects),
                None => return Ok(self.late.push(0, &line)?),
            };
            if !is_kept {
                return Ok(());
            }
            end_tap(&mut line.text, is_grpc);
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
