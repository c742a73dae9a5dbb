//! Weighs whether protobuf bytes are a tap trace.
//!
//! Nothing in a protobuf message says what type it has. Bytes in any of its first four fields would pass for a trace in
//! `TraceWrapper`, so their contents must look like a trace: times, addresses and header fields as Envoy writes them. A
//! field that has another type than Envoy's shows that it is another message, because protobuf never changes the type
//! of a field.

use std::net::IpAddr;

use crate::{
    input::decode::{Decode, Step},
    trace::{Address, Connection, EventKind, FieldId, HttpPart, Message, MessageView, TraceKind, UnknownField},
};

/// What the messages at the start of a source say.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Evidence {
    /// How many things only a trace has.
    good: usize,
    /// How many things no trace has.
    bad: usize,
    /// The source ends inside a message.
    cut: bool,
    /// Fields that may be a newer Envoy's.
    unknown: bool,
    /// Traces, empty ones included.
    traces: usize,
    /// Messages that were looked at.
    messages: usize,
    /// The end of the first message after which more speaks for a trace than against it.
    found_at: Option<usize>,
}

impl Evidence {
    /// Looks at the messages of `head`. If `more` bytes may come, a message that is not complete says nothing yet.
    pub(super) fn of(decoder: &mut dyn Decode, head: &[u8], more: bool) -> Self {
        let mut evidence = Self::default();
        let mut at = 0;
        while evidence.found_at.is_none() {
            let mut out = Message::default();
            let window = &head[at..];
            let (start, end) = match decoder.step(window, true, &mut out) {
                Step::Message { start, end } => (start, end),
                Step::Damaged { fault, .. } if more && fault.is_cut_off() => break,
                Step::Damaged { start, end, fault } => {
                    evidence.cut |= fault.is_cut_off();
                    evidence.bad += usize::from(!fault.is_cut_off());
                    (start, end)
                }
                Step::Zeros { end, .. } => {
                    at += end;
                    continue;
                }
                Step::Skipped { .. } | Step::Switch { .. } | Step::NeedMore { .. } | Step::End => {
                    evidence.fields(&out);
                    break;
                }
            };
            evidence.messages += 1;
            evidence.message(MessageView::new(&out, &window[..end]));
            debug_assert!(start < end, "decoders make progress");
            at += end;
            if evidence.good > evidence.bad {
                evidence.found_at = Some(at);
            }
        }
        evidence
    }

    pub(super) fn found_at(&self) -> Option<usize> {
        self.found_at
    }

    /// Whether the first message alone did not tell.
    pub(super) fn is_late(&self) -> bool {
        self.messages > 1
    }

    /// Whether anything speaks against a trace.
    pub(super) fn is_contradicted(&self) -> bool {
        self.bad > 0
    }

    /// Whether the source ends inside a message, or seems to because its length is wrong.
    pub(super) fn is_cut(&self) -> bool {
        self.cut
    }

    /// Whether it may be a trace because nothing speaks against it, even if nothing speaks for it.
    pub(super) fn is_possible(&self) -> bool {
        self.traces > 0 && self.bad == 0 && !self.unknown
    }

    fn message(&mut self, view: MessageView<'_>) {
        let message = view.message();
        self.fields(message);
        self.traces += usize::from(message.kind.is_some());
        let own = message.connection.iter().chain(&message.upstream_connection);
        own.chain(&message.event_connections).for_each(|connection| self.connection(connection));
        // An empty submessage is most likely a connection without addresses.
        let is_bare = message.connection.as_ref().is_some_and(Connection::is_empty) && message.events.is_empty();
        self.good += usize::from(is_bare && message.trace_id != 0);
        let whole = |event: &&crate::trace::Event| event.time.is_some() && event.kind != EventKind::Absent;
        self.good += message.events.iter().filter(whole).count();
        self.http(view);
    }

    fn http(&mut self, view: MessageView<'_>) {
        let message = view.message();
        let (mut names, mut bad_names) = (0, 0);
        let mut has_head = false;
        for piece in &message.http {
            let mut pseudo = 0;
            let headers = view.headers(piece);
            for header in headers {
                let name = view.bytes(header.key);
                names += 1;
                bad_names += usize::from(!is_name(name));
                pseudo += usize::from(is_pseudo(name));
            }
            if piece.part == HttpPart::Headers {
                has_head = true;
                self.good += pseudo;
                self.bad += usize::from(!headers.is_empty() && pseudo == 0);
            }
        }
        // Hostile peers may send bad names, but in a trace most names are good.
        if bad_names * 2 > names {
            self.bad += bad_names;
        }
        let is_headless = message.kind == Some(TraceKind::HttpBuffered) && !message.http.is_empty() && !has_head;
        self.bad += usize::from(is_headless);
    }

    fn connection(&mut self, connection: &Connection) {
        for address in connection.local.iter().chain(&connection.remote) {
            let (text, is_good) = match address {
                Address::Socket { address, .. } => (address, address.parse::<IpAddr>().is_ok() || is_host(address)),
                Address::Pipe(path) => (path, path.starts_with(['/', '@'])),
                Address::Internal { listener, .. } => (listener, is_host(listener)),
            };
            if text.contains(|char: char| char.is_control() || char == char::REPLACEMENT_CHARACTER) {
                self.bad += 1;
            } else {
                self.good += usize::from(is_good);
            }
        }
    }

    /// Counts fields that Envoy's messages do not have, or have with another type.
    fn fields(&mut self, message: &Message) {
        for UnknownField { message, field, .. } in message.unknown.fields() {
            match field {
                FieldId::Number(number) if *number <= known_fields(message) => self.bad += 1,
                _ => self.unknown = true,
            }
        }
    }
}

/// The highest field number in Envoy's message of this name.
fn known_fields(message: &str) -> u32 {
    match message {
        "SocketStreamedTraceSegment" | "HttpBufferedTrace" | "Message" => 4,
        "TraceWrapper" | "SocketBufferedTrace" => 5,
        "SocketEvent" => 6,
        "HttpStreamedTraceSegment" | "SocketAddress" => 7,
        "HeaderMap" | "SocketEvents" | "Read" => 1,
        "HeaderValue" | "Body" | "Address" => 3,
        "Timestamp" | "Write" | "Connection" | "Pipe" | "EnvoyInternalAddress" => 2,
        _ => 0,
    }
}

/// Whether an HTTP implementation may accept these bytes as the name of a field: printable ASCII without blanks. RFC
/// 9110 allows fewer characters, but some peers send others.
fn is_name(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(u8::is_ascii_graphic)
}

/// Whether this is the name of a pseudo-header, such as `:method`.
fn is_pseudo(name: &[u8]) -> bool {
    matches!(name, [b':', rest @ ..] if !rest.is_empty() && rest.iter().all(|byte| byte.is_ascii_lowercase() || *byte == b'-'))
}

/// Whether a text may be a host's or a listener's name.
fn is_host(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:%[]/@".contains(&byte))
}
