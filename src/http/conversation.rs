//! One connection: finds out what it speaks, and passes its bytes on to the right parser.

use std::{borrow::Cow, sync::Arc};

use super::{
    Context, HttpItem, Loss, MAX_REPORTS, Shared,
    exchange::{HttpConnection, HttpConnectionEnd},
    h1::Http1,
    h2::{Http2, frame::FrameHead},
    sniff::{self, Guess},
    wire::WireKind,
};
use crate::{
    timeline::{Data, Direction, Entry, EntryKind, Opening, Protocol, ProxyStart, Sniffer, TrueLength},
    trace::{Findings, HttpFact, HttpSide, Nanos, Place},
};

/// How many bytes of a direction are kept until it is clear what it speaks: more than HTTP/2's preface and a line.
const MAX_UNDECIDED: usize = 64 << 10;

/// How many payloads are looked at for the beginning of a message, if a connection does not begin with one.
const MAX_LOOKS: u32 = 256;

/// What a connection speaks.
#[derive(Debug)]
enum Speech {
    /// Not known yet.
    Undecided,
    Http1(Box<Http1>),
    Http2(Box<Http2>),
    /// Not HTTP.
    Other,
}

/// The bytes of a direction before it is clear what they are.
#[derive(Debug, Default)]
struct Waiting {
    bytes: Vec<u8>,
    /// When and where they began.
    began: Option<(Nanos, Place)>,
    /// How many bytes were passed over.
    skipped: u64,
    /// Bytes are missing before those that wait.
    lost: bool,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Conversation {
    connection: Arc<HttpConnection>,
    /// The direction of the client's bytes.
    client: Direction,
    speech: Speech,
    waiting: [Waiting; 2],
    looks: u32,
    /// Whether a direction lacks an unknown number of bytes after what came last.
    open_ended: [bool; 2],
    /// True lengths of both directions.
    bytes: [u64; 2],
    last: Nanos,
    emitted: bool,
    reports: u32,
    /// Tells other protocols than HTTP.
    sniffer: Sniffer,
    /// Nothing tells the true lengths of its bytes.
    is_buffered: bool,
}

impl Conversation {
    pub(super) fn new(number: u64, opening: &Opening, time: Nanos) -> Self {
        Self {
            connection: Arc::new(HttpConnection::new(number, opening, time)),
            client: opening.role.client_direction(),
            speech: Speech::Undecided,
            waiting: Default::default(),
            looks: 0,
            open_ended: [false; 2],
            bytes: [0; 2],
            last: time,
            emitted: false,
            reports: MAX_REPORTS,
            sniffer: Sniffer::default(),
            is_buffered: opening.buffered && opening.http.is_none(),
        }
    }

    fn side(&self, direction: Direction) -> HttpSide {
        if direction == self.client { HttpSide::Request } else { HttpSide::Response }
    }

    /// Takes the connection's next entry.
    pub(super) fn entry(
        &mut self,
        entry: &Entry<'_>,
        place: impl FnOnce() -> Place,
        shared: &mut Shared,
        findings: &mut Findings,
    ) {
        if let EntryKind::Data(data) = &entry.kind {
            let bytes = &mut self.bytes[data.direction.index()];
            *bytes = bytes.saturating_add(data.payload.len() as u64);
            self.last = entry.time;
            if matches!(self.speech, Speech::Undecided | Speech::Other) {
                self.sniffer.look(data.direction, data.payload, &mut shared.room);
            }
            if matches!(self.speech, Speech::Other)
                && !shared.records()
                && data.length == TrueLength::Known(data.payload.len() as u64)
            {
                return;
            }
        }
        let Self { connection, emitted, reports, .. } = self;
        let connection = Arc::clone(connection);
        let (mut had, mut left) = (*emitted, *reports);
        let mut context = Context {
            time: entry.time,
            place: place(),
            connection: &connection,
            client: self.client,
            as_string: self.is_buffered && matches!(&entry.kind, EntryKind::Data(data) if data.as_string),
            emitted: &mut had,
            reports: &mut left,
            shared,
            findings,
        };
        match entry.kind {
            EntryKind::Opened => {}
            EntryKind::Data(data) => self.data(&mut context, &data),
            EntryKind::Gap { direction, bytes, certain } => self.gap(&mut context, direction, bytes, certain),
            EntryKind::Closed { .. } => {
                self.last = entry.time;
                self.finish(&mut context, true);
            }
            EntryKind::Abandoned => self.finish(&mut context, false),
        }
        (self.emitted, self.reports) = (had, left);
        let is_last = matches!(entry.kind, EntryKind::Closed { .. } | EntryKind::Abandoned);
        if !is_last {
            return;
        }
        let protocol = std::mem::take(&mut self.sniffer).finish(&mut shared.room).protocol;
        if self.emitted || shared.options.all_connections {
            // A buffered trace does not say when.
            let closed = matches!(entry.kind, EntryKind::Closed { .. }) && !self.is_buffered;
            let closed = closed.then_some(self.last);
            let end = HttpConnectionEnd { closed, ..self.connection_end(protocol) };
            shared.done.push_back(HttpItem::ConnectionEnd(end));
        }
    }

    /// What is known at the end of the connection, of which `sniffed` is the protocol if it is not HTTP.
    fn connection_end(&self, sniffed: Protocol) -> HttpConnectionEnd {
        let protocol = match &self.speech {
            Speech::Http1(http) if http.is_web_socket() => "websocket",
            Speech::Http1(_) => "http/1.1",
            Speech::Http2(http) if http.is_grpc() => "grpc",
            Speech::Http2(_) => "http/2",
            // Without a request or a response, it is not HTTP.
            Speech::Undecided | Speech::Other if sniffed.is_http() => Protocol::Unknown.name(),
            Speech::Undecided | Speech::Other => sniffed.name(),
        };
        let [received, sent] = self.bytes;
        HttpConnectionEnd {
            connection: Arc::clone(&self.connection),
            had_exchanges: self.emitted,
            duration: self.connection.began.and_then(|began| self.last.checked_sub(began)),
            closed: None,
            protocol: Some(protocol),
            received: Some(received),
            sent: Some(sent),
        }
    }

    fn data(&mut self, context: &mut Context<'_>, data: &Data<'_>) {
        let index = data.direction.index();
        self.settle(context, data.direction);
        // What the other side sends now may answer a request whose head was cut.
        let other = data.direction.reverse();
        if matches!(&self.speech, Speech::Http1(http) if http.is_in_head(self.side(other))) {
            self.settle(context, other);
        }
        let present = data.payload.len() as u64;
        if data.as_string && !self.takes_strings(data) {
            context.report(HttpFact::Destroyed);
            self.become_other(context, data.direction, &[]);
        }
        if context.as_string && self.begins_too_early(data.direction, data.payload) {
            self.lose(context, data.direction, Loss::Unknown);
        }
        self.pass(context, data.direction, data.payload);
        match data.length {
            TrueLength::Known(length) if length > present => {
                self.bytes[index] = self.bytes[index].saturating_add(length - present);
                self.lose(context, data.direction, Loss::Exactly(length - present));
            }
            TrueLength::Known(_) => {}
            // The framing is whole; whoever writes the bytes again knows that the body is not.
            TrueLength::Unframed(_) if context.records() => {}
            TrueLength::MoreThan(_) | TrueLength::Unframed(_) => self.open_ended[index] = true,
        }
        if data.end_stream {
            let side = self.side(data.direction);
            if let Speech::Http1(http) = &mut self.speech {
                http.end_side(context, side);
            }
            if context.records() {
                self.release_held(context, data.direction);
            }
        }
    }

    /// No more bytes come in this direction, so that those which wait for more are written now.
    fn release_held(&mut self, context: &mut Context<'_>, direction: Direction) {
        let side = self.side(direction);
        match &mut self.speech {
            Speech::Http1(http) => http.drop_held(context, side),
            Speech::Http2(http) => http.drop_held(context, side),
            Speech::Undecided => {
                let waiting = &mut self.waiting[direction.index()];
                context.record_unknown(side, &waiting.bytes);
                (waiting.skipped, waiting.lost) = (waiting.skipped + waiting.bytes.len() as u64, true);
                waiting.bytes.clear();
            }
            Speech::Other => {}
        }
    }

    /// Whether a message begins where bytes of a body should come. JSON_BODY_AS_STRING makes a binary body shorter than its
    /// head says.
    fn begins_too_early(&self, direction: Direction, bytes: &[u8]) -> bool {
        let side = self.side(direction);
        matches!(&self.speech, Speech::Http1(http) if http.is_in_body(side)) && sniff::begins(side, bytes)
    }

    /// Whether bytes from JSON_BODY_AS_STRING can be read: HTTP/1's heads are text, but HTTP/2 is binary.
    fn takes_strings(&self, data: &Data<'_>) -> bool {
        match self.speech {
            Speech::Http2(_) => false,
            Speech::Undecided => !data.payload.starts_with(b"PRI * HTTP/2.0"),
            Speech::Http1(_) | Speech::Other => true,
        }
    }

    /// An event before had an unknown number of bytes more, and nothing tells how many.
    fn settle(&mut self, context: &mut Context<'_>, direction: Direction) {
        if std::mem::take(&mut self.open_ended[direction.index()]) {
            self.lose(context, direction, Loss::Unknown);
        }
    }

    fn gap(&mut self, context: &mut Context<'_>, direction: Direction, bytes: u64, certain: bool) {
        let index = direction.index();
        if certain {
            // One lost byte stood for those of the event before, whose number was not known then.
            let stood_in = u64::from(std::mem::take(&mut self.open_ended[index]));
            let bytes = bytes.saturating_add(stood_in);
            self.bytes[index] = self.bytes[index].saturating_add(bytes);
            self.lose(context, direction, Loss::Exactly(bytes));
            return;
        }
        self.bytes[index] = self.bytes[index].saturating_add(bytes);
        // They may have gone in either direction.
        for direction in [direction, direction.reverse()] {
            self.open_ended[direction.index()] = false;
            self.lose(context, direction, Loss::Unknown);
        }
    }

    fn lose(&mut self, context: &mut Context<'_>, direction: Direction, loss: Loss) {
        let side = self.side(direction);
        let (is_in_body, adrift) = match &self.speech {
            Speech::Http1(http) => (http.is_in_body(side), false),
            Speech::Http2(http) => (http.is_in_body(side), http.would_go_adrift(side, loss)),
            Speech::Undecided | Speech::Other => (false, false),
        };
        // What a parser held came before the missing bytes, but what ends with them comes after them.
        let lost = WireKind::Lost { bytes: loss.exactly().unwrap_or_default(), adrift };
        if is_in_body {
            context.record(side, lost.clone(), &[]);
        }
        self.lose_in(context, direction, side, loss);
        if !is_in_body {
            context.record(side, lost, &[]);
        }
    }

    fn lose_in(&mut self, context: &mut Context<'_>, direction: Direction, side: HttpSide, loss: Loss) {
        self.sniffer.lose(direction);
        match &mut self.speech {
            Speech::Http1(http) => http.lose(context, side, loss),
            Speech::Http2(http) => http.lose(context, side, loss),
            Speech::Undecided => {
                let waiting = &mut self.waiting[direction.index()];
                context.record_unknown(side, &waiting.bytes);
                waiting.skipped += waiting.bytes.len() as u64;
                waiting.bytes.clear();
                waiting.lost = true;
            }
            Speech::Other => {}
        }
    }

    fn pass(&mut self, context: &mut Context<'_>, direction: Direction, bytes: &[u8]) {
        let side = self.side(direction);
        match &mut self.speech {
            Speech::Http1(http) => {
                if let Some(switch) = http.data(context, side, bytes) {
                    let mut http = Http2::after_upgrade(switch.exchange);
                    http.data(context, HttpSide::Request, &switch.early);
                    http.data(context, side, &bytes[switch.read..]);
                    self.speech = Speech::Http2(Box::new(http));
                }
            }
            Speech::Http2(http) => http.data(context, side, bytes),
            Speech::Undecided => self.decide(context, direction, bytes),
            Speech::Other => context.record_unknown(side, bytes),
        }
    }

    /// The connection is not HTTP. `bytes` are those of `direction` that do not wait.
    fn become_other(&mut self, context: &mut Context<'_>, direction: Direction, bytes: &[u8]) {
        self.speech = Speech::Other;
        for (direction, waiting) in
            [Direction::Inbound, Direction::Outbound].into_iter().zip(std::mem::take(&mut self.waiting))
        {
            context.record_unknown(self.side(direction), &waiting.bytes);
        }
        context.record_unknown(self.side(direction), bytes);
    }

    /// Says that the client's bytes go in this direction.
    fn set_client(&mut self, context: &mut Context<'_>, client: Direction) {
        self.client = client;
        context.client = client;
    }

    /// Looks at the bytes of a connection that has shown no protocol yet.
    fn decide(&mut self, context: &mut Context<'_>, direction: Direction, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let index = direction.index();
        let waiting = &mut self.waiting[index];
        let is_beginning = self.bytes[index] == (waiting.bytes.len() + bytes.len()) as u64 && !waiting.lost;
        if is_beginning {
            let mut all = Cow::Borrowed(bytes);
            if !waiting.bytes.is_empty() {
                all = Cow::Owned([waiting.bytes.as_slice(), bytes].concat());
            }
            match ProxyStart::of(&all) {
                ProxyStart::Known(len, _) if len <= all.len() => {
                    *waiting = Waiting::default();
                    self.set_client(context, direction);
                    context.record(HttpSide::Request, WireKind::Proxy, &all[..len]);
                    return self.decide(context, direction, &all[len..]);
                }
                ProxyStart::Open | ProxyStart::Known(..) => {
                    waiting.began.get_or_insert((context.time, context.place));
                    waiting.bytes = all.into_owned();
                    return;
                }
                ProxyStart::Absent => {}
            }
        }
        let told = self.sniffer.protocol();
        if told != Protocol::Unknown && !told.is_http() {
            return self.become_other(context, direction, bytes);
        }
        let fresh = waiting.bytes.is_empty();
        let guess = if fresh {
            sniff::first_bytes(bytes)
        } else {
            waiting.bytes.extend_from_slice(bytes);
            sniff::first_bytes(&waiting.bytes)
        };
        match guess {
            Guess::Http1(side, _) => {
                // The bytes know better than the addresses who the client is.
                self.set_client(context, if side == HttpSide::Request { direction } else { direction.reverse() });
                self.become_http1(context, direction, fresh.then_some(bytes));
                return;
            }
            Guess::Preface => {
                self.set_client(context, direction);
                self.become_http2(context, direction, fresh.then_some(bytes), false);
                return;
            }
            Guess::Frames => {
                // Only a server's first frames come without a preface: SETTINGS.
                let settings = bytes.get(3) == Some(&4) && !self.waiting[index].lost;
                if settings {
                    self.set_client(context, direction.reverse());
                }
                self.become_http2(context, direction, fresh.then_some(bytes), !settings);
                return;
            }
            Guess::Other => {
                return self.become_other(context, direction, if fresh { bytes } else { &[] });
            }
            Guess::Open => {}
        }
        // The beginning may be missing, so a later message may be in the middle.
        let kept = if fresh { bytes } else { &self.waiting[index].bytes };
        let sides = [self.side(direction), self.side(direction.reverse())];
        let found = sides.into_iter().find_map(|side| Some((side, sniff::find(side, kept)?)));
        if let Some((side, at)) = found {
            self.set_client(context, if side == HttpSide::Request { direction } else { direction.reverse() });
            let waiting = &mut self.waiting[index];
            context.record_unknown(side, if fresh { &bytes[..at] } else { &waiting.bytes[..at] });
            waiting.skipped += at as u64;
            waiting.bytes.drain(..if fresh { 0 } else { at });
            self.become_http1(context, direction, fresh.then(|| &bytes[at..]));
            return;
        }
        self.looks += 1;
        if self.looks > MAX_LOOKS {
            return self.become_other(context, direction, if fresh { bytes } else { &[] });
        }
        let waiting = &mut self.waiting[index];
        let kept = if fresh { bytes } else { &waiting.bytes };
        // A start line may go on in the next payload, and so may the preface.
        let may_go_on = kept.len() <= MAX_UNDECIDED
            && (sides.iter().any(|side| sniff::may_begin(*side, kept))
                || crate::timeline::PREFACE.starts_with(kept)
                || FrameHead::may_be_settings(kept));
        match (may_go_on, fresh) {
            (true, true) => {
                waiting.began = Some((context.time, context.place));
                waiting.bytes = bytes.to_vec();
            }
            (true, false) => {}
            (false, _) => {
                context.record_unknown(sides[0], kept);
                waiting.skipped += kept.len() as u64;
                waiting.bytes = Vec::new();
            }
        }
    }

    fn become_http1(&mut self, context: &mut Context<'_>, direction: Direction, bytes: Option<&[u8]>) {
        self.speech = Speech::Http1(Box::default());
        self.release(context, direction, bytes);
    }

    fn become_http2(
        &mut self,
        context: &mut Context<'_>,
        direction: Direction,
        bytes: Option<&[u8]>,
        in_the_middle: bool,
    ) {
        self.speech = Speech::Http2(Box::new(if in_the_middle { Http2::in_the_middle() } else { Http2::default() }));
        self.release(context, direction, bytes);
    }

    /// Passes on what waited. `bytes` are those of `direction`, if they did not wait.
    fn release(&mut self, context: &mut Context<'_>, direction: Direction, bytes: Option<&[u8]>) {
        let now = (context.time, context.place);
        let waiting = std::mem::take(&mut self.waiting);
        for (index, mut waiting) in waiting.into_iter().enumerate() {
            let waited = if index == Direction::Inbound.index() { Direction::Inbound } else { Direction::Outbound };
            let side = self.side(waited);
            if matches!(self.speech, Speech::Http1(_)) && !sniff::may_begin(side, &waiting.bytes) {
                context.record_unknown(side, &waiting.bytes);
                waiting.skipped += waiting.bytes.len() as u64;
                waiting.bytes.clear();
            }
            if waiting.skipped > 0 {
                context.report(HttpFact::Skipped { side, bytes: waiting.skipped });
            }
            if waiting.lost || waiting.skipped > 0 {
                self.lose(context, waited, Loss::Unknown);
            }
            if !waiting.bytes.is_empty() {
                // What waits began earlier than the payload that decided.
                (context.time, context.place) = waiting.began.unwrap_or(now);
                self.pass(context, waited, &waiting.bytes);
                (context.time, context.place) = now;
            }
        }
        if let Some(bytes) = bytes {
            self.pass(context, direction, bytes);
        }
    }

    fn finish(&mut self, context: &mut Context<'_>, closed: bool) {
        for direction in [Direction::Inbound, Direction::Outbound] {
            self.settle(context, direction);
        }
        match &mut self.speech {
            Speech::Http1(http) => http.finish(context, closed),
            Speech::Http2(http) => http.finish(context, closed),
            Speech::Undecided | Speech::Other => self.become_other(context, self.client, &[]),
        }
    }
}
