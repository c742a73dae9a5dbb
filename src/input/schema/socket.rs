//! Messages of the socket tap, and `Body`, which both taps have.

use super::{Cursor, Element, Ends, MessageEnd, Parts, SchemaRecord, Time, Type, message, single};
use crate::trace::{Body, Event, EventKind, JsonType, Message, TraceKind};

pub(in crate::input) struct SocketBuffered<'a>(pub(in crate::input) &'a mut Parts);

message!("SocketBufferedTrace" for SocketBuffered<'_>, |self, number, value, out| {
    1 Uint64 b"trace_id" | b"traceId" => out.trace_id = value.uint64()?,
    2 Message b"connection" => single(&mut self.0.connection, value, out)?,
    3 Message b"events" => events(value, out)?,
    4 Bool b"read_truncated" | b"readTruncated" => out.read_truncated = value.boolean()?,
    5 Bool b"write_truncated" | b"writeTruncated" => out.write_truncated = value.boolean()?,
} begin |replaces| {
    self.0.begin_trace(TraceKind::SocketBuffered, replaces, out);
});

fn events<C: Cursor>(value: &mut C, out: &mut Message) -> Result<(), C::Stop> {
    if C::REPLACES {
        out.events.clear();
        out.event_connections.clear();
        out.forget_bad_times();
    }
    value.each::<EventParts>((), out)
}

pub(in crate::input) struct SocketStreamed<'a>(pub(in crate::input) &'a mut Parts);

message!("SocketStreamedTraceSegment" for SocketStreamed<'_>, |self, number, value, out| {
    1 Uint64 b"trace_id" | b"traceId" => out.trace_id = value.uint64()?,
    2 Message b"connection" => {
        value.message(&mut OneOf { parts: self.0, number, record: |parts| &mut parts.connection }, out)?;
    },
    3 Message b"event" => {
        if self.0.member.0 != Some(number)
            && let Some(event) = value.plain_event(out)
        {
            self.0.select(number, C::REPLACES, out);
            self.0.event.is_plain = true;
            out.events.push(event);
        } else {
            value.message(&mut OneOf { parts: self.0, number, record: |parts| &mut parts.event }, out)?;
        }
    },
    4 Message b"events" => {
        value.message(&mut OneOf { parts: self.0, number, record: |parts| &mut parts.events }, out)?;
    },
} begin |replaces| {
    self.0.begin_trace(TraceKind::SocketStreamed, replaces, out);
});

impl Parts {
    /// Selects a member of a segment's oneof. The last one counts, so a different one before it is forgotten.
    #[inline]
    fn select(&mut self, number: u32, replaces: bool, out: &mut Message) {
        let is_first = self.member.0.is_none();
        if !self.member.select(number, replaces, out) && !is_first {
            self.connection = None;
            self.event = SegmentEvent::default();
        }
    }
}

/// A member of a segment's oneof.
struct OneOf<'a, R> {
    parts: &'a mut Parts,
    number: u32,
    record: fn(&mut Parts) -> &mut R,
}

impl<R: SchemaRecord> SchemaRecord for OneOf<'_, R> {
    type Fields = R::Fields;

    #[inline]
    fn fields(&mut self) -> &mut R::Fields {
        (self.record)(self.parts).fields()
    }

    #[inline]
    fn begin(&mut self, replaces: bool, out: &mut Message) {
        self.parts.select(self.number, replaces, out);
        (self.record)(self.parts).begin(replaces, out);
    }

    #[inline]
    fn end(&mut self, end: MessageEnd, out: &mut Message) {
        (self.record)(self.parts).end(end, out);
    }
}

/// The event of a segment. More pieces of it may follow.
#[derive(Debug, Default)]
pub(super) struct SegmentEvent {
    /// The fast path read it, so it is in the message's events already.
    is_plain: bool,
    parts: EventParts,
    /// Enough of it was read to keep it.
    is_kept: bool,
}

impl SchemaRecord for SegmentEvent {
    type Fields = EventParts;

    #[inline]
    fn fields(&mut self) -> &mut EventParts {
        &mut self.parts
    }

    #[inline]
    fn begin(&mut self, _replaces: bool, out: &mut Message) {
        if std::mem::take(&mut self.is_plain)
            && let Some(event) = out.events.last()
        {
            self.parts = EventParts::from(*event);
            self.is_kept = true;
            out.events.clear();
        }
    }

    #[inline]
    fn end(&mut self, end: MessageEnd, _out: &mut Message) {
        self.is_kept |= end.keeps(&self.parts.event);
    }
}

impl SegmentEvent {
    #[inline]
    pub(super) fn finish(self, out: &mut Message) {
        if self.is_kept {
            self.parts.finish(out);
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct SocketEvents;

message!("SocketEvents" for SocketEvents, |self, number, value, out| {
    1 Message b"events" => events(value, out)?,
});

/// `SocketEvent`.
#[derive(Debug, Default)]
pub(in crate::input) struct EventParts {
    event: Event,
    time: Option<Time>,
    connection: Option<Ends>,
}

message!("SocketEvent" for EventParts, |self, number, value, out| {
    1 Message b"timestamp" => value.time(&mut self.time, out)?,
    2 Message b"read" => {
        self.select(EventKind::Read, C::REPLACES);
        value.message(&mut Read(&mut self.event), out)?;
    },
    3 Message b"write" => {
        self.select(EventKind::Write, C::REPLACES);
        value.message(&mut Write(&mut self.event), out)?;
    },
    4 Message b"closed" => {
        self.select(EventKind::Closed, C::REPLACES);
        value.message(&mut Closed(&mut self.event), out)?;
    },
    5 Message b"connection" => single(&mut self.connection, value, out)?,
    6 Uint64 b"seq_num" | b"seqNum" => self.event.seq_num = value.uint64()?,
});

impl From<Event> for EventParts {
    /// The event must not have a connection of its own.
    fn from(event: Event) -> Self {
        let time = event.time.map(Time::from);
        Self { event, time, connection: None }
    }
}

impl EventParts {
    /// Selects a member of the oneof before its value is read, so that it counts even if the source ends there. In an
    /// encoding with null, only the value tells whether the member is set.
    #[inline]
    fn select(&mut self, kind: EventKind, has_null: bool) {
        if !has_null {
            select(&mut self.event, kind, false);
        }
    }

    /// Adds the event to the message.
    #[inline]
    fn finish(self, out: &mut Message) {
        let Self { mut event, time, connection } = self;
        event.time = time.and_then(|time| time.finish(out));
        if let Some(ends) = connection {
            let connection = ends.finish(out);
            // Each connection takes several bytes of the message, so the index fits for any message below 4 GiB.
            event.connection = u32::try_from(out.event_connections.len()).ok();
            out.event_connections.push(connection);
        }
        out.events.push(event);
    }
}

impl Element for EventParts {
    type To = ();

    const LIST: JsonType = JsonType::Events;

    #[inline]
    fn plain<C: Cursor>(value: &mut C, out: &mut Message) -> bool {
        value.plain_event(out).map(|event| out.events.push(event)).is_some()
    }

    #[inline]
    fn done(self, end: MessageEnd, (): (), out: &mut Message) {
        if end.keeps(&self.event) {
            self.finish(out);
        }
    }
}

impl MessageEnd {
    /// Whether to keep the event. One that the source cuts is kept if it has a payload, or if it is surely `closed`.
    #[inline]
    fn keeps(self, event: &Event) -> bool {
        let is_closed = self.framed && event.kind == EventKind::Closed;
        self.whole || (self.cut && (!event.body.payload.is_empty() || is_closed))
    }
}

#[inline]
fn select(event: &mut Event, kind: EventKind, replaces: bool) {
    if replaces || event.kind != kind {
        event.kind = kind;
        event.body = Body::default();
        event.end_stream = false;
    }
}

/// A member of the oneof of an event, like the next two records. Each replaces a different member, and is merged with
/// an earlier piece of the same one.
pub(super) struct Read<'a>(&'a mut Event);

message!("Read" for Read<'_>, |self, number, value, out| {
    1 Message b"data" => single(&mut self.0.body, value, out)?,
} begin |replaces| {
    select(self.0, EventKind::Read, replaces);
});

pub(super) struct Write<'a>(&'a mut Event);

message!("Write" for Write<'_>, |self, number, value, out| {
    1 Message b"data" => single(&mut self.0.body, value, out)?,
    2 Bool b"end_stream" | b"endStream" => self.0.end_stream = value.boolean()?,
} begin |replaces| {
    select(self.0, EventKind::Write, replaces);
});

pub(super) struct Closed<'a>(&'a mut Event);

message!("Closed" for Closed<'_>, |self, number, value, out| {
} begin |replaces| {
    select(self.0, EventKind::Closed, replaces);
});

message!("Body" for Body, |self, number, value, out| {
    1 Bytes b"as_bytes" | b"asBytes" => value.payload(Type::Bytes, self, out)?,
    2 String b"as_string" | b"asString" => value.payload(Type::String, self, out)?,
    3 Bool b"truncated" => self.truncated = value.boolean()?,
});
