//! Messages that may come in pieces.
//!
//! Protobuf lets a field stand anywhere, and more than once: of a scalar and of the members of a oneof the last one
//! counts, and the pieces of a submessage are merged. So a submessage is complete only where the message around it ends,
//! and until then its fields are kept here.

use crate::trace::{Address, Body, Connection, Event, EventKind, Message, Nanos, TimeError, nanos_from_timestamp};

/// `google.protobuf.Timestamp`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Time {
    pub(super) seconds: i64,
    pub(super) nanos: i64,
    /// The source ends inside it, so that it is no fault if it is none.
    pub(super) cut: bool,
}

impl Time {
    /// The time; `None`, with a note in `out`, where no capture can hold it.
    #[inline]
    pub(super) fn finish(self, out: &mut Message) -> Option<Nanos> {
        finish_time(nanos_from_timestamp(self.seconds, self.nanos), self.cut, out)
    }
}

#[inline]
fn finish_time(time: Result<Nanos, TimeError>, cut: bool, out: &mut Message) -> Option<Nanos> {
    match time {
        Ok(time) => Some(time),
        Err(_) if cut => None,
        Err(error) => {
            out.note_bad_time(error);
            None
        }
    }
}

/// `Connection`, by the numbers of its fields.
#[derive(Debug, Default)]
pub(super) struct Ends {
    pub(super) first: Option<Address>,
    pub(super) second: Option<Address>,
    pub(super) third: Option<Address>,
}

impl Ends {
    pub(super) fn finish(self, out: &mut Message) -> Connection {
        match (self.first, self.third) {
            // Before Envoy 1.28, and in envoy.data.tap.v2alpha: local_address = 2, remote_address = 3.
            (None, third @ Some(_)) => Connection { local: self.second, remote: third },
            (first, third) => {
                if third.is_some() {
                    out.unknown.count_number("Connection", 3);
                }
                Connection { local: first, remote: self.second }
            }
        }
    }
}

/// The fields of a `SocketAddress`, of which more may follow.
pub(super) fn socket(address: &mut Option<Address>) -> (&mut String, &mut Option<u32>) {
    if !matches!(address, Some(Address::Socket { .. })) {
        *address = None;
    }
    match address.get_or_insert_with(|| Address::Socket { address: String::new(), port: None }) {
        Address::Socket { address, port } => (address, port),
        Address::Pipe(_) | Address::Internal { .. } => unreachable!("any other kind of address was just taken away"),
    }
}

/// The path of a `Pipe`.
pub(super) fn pipe(address: &mut Option<Address>) -> &mut String {
    if !matches!(address, Some(Address::Pipe(_))) {
        *address = None;
    }
    match address.get_or_insert_with(|| Address::Pipe(String::new())) {
        Address::Pipe(path) => path,
        Address::Socket { .. } | Address::Internal { .. } => {
            unreachable!("any other kind of address was just taken away")
        }
    }
}

/// The fields of an `EnvoyInternalAddress`: listener and endpoint.
pub(super) fn internal(address: &mut Option<Address>) -> (&mut String, &mut String) {
    if !matches!(address, Some(Address::Internal { .. })) {
        *address = None;
    }
    match address.get_or_insert_with(|| Address::Internal { listener: String::new(), endpoint: String::new() }) {
        Address::Internal { listener, endpoint } => (listener, endpoint),
        Address::Socket { .. } | Address::Pipe(_) => unreachable!("any other kind of address was just taken away"),
    }
}

/// `SocketEvent`.
#[derive(Debug, Default)]
pub(super) struct EventParts {
    pub(super) event: Event,
    pub(super) time: Option<Time>,
    pub(super) connection: Option<Ends>,
}

impl EventParts {
    /// Another member of the oneof takes the place of the one before; more of the same one is merged with it.
    #[inline]
    pub(super) fn select(&mut self, kind: EventKind) {
        if self.event.kind != kind {
            self.event.kind = kind;
            self.event.body = Body::default();
            self.event.end_stream = false;
        }
    }

    /// Adds the event to the message.
    #[inline]
    pub(super) fn finish(self, out: &mut Message) {
        let Self { mut event, time, connection } = self;
        event.time = time.and_then(|time| time.finish(out));
        if let Some(ends) = connection {
            let connection = ends.finish(out);
            // An event's bytes outnumber its connections, so the index fits where the message does.
            event.connection = u32::try_from(out.event_connections.len()).ok();
            out.event_connections.push(connection);
        }
        out.events.push(event);
    }
}

/// Half of an `HttpBufferedTrace`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct HttpParts {
    pub(super) time: Option<Time>,
    /// The index of its body in [`Message::http`].
    pub(super) body: Option<usize>,
}
