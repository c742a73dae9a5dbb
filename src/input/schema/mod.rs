//! The messages of a trace, each described once for all encodings.
//!
//! A message is a table of fields ([`message!`]). Each entry has the field's number, type, name, JSON name, and the
//! effect of its value on the records. The decoders of the encodings are [`Cursor`]s, which find fields and read
//! values. What a oneof, a field that comes twice, or a submessage in pieces means is decided only here.
//!
//! In protobuf, fields may come in any order and more than once. The last value of a scalar counts, as does the last
//! member of a oneof, and the pieces of a submessage are merged. So a submessage is complete only when the message
//! around it ends, and until then it is kept in [`Parts`]. In JSON, only the last value of a name counts. A null is the
//! default value; as a member of a oneof, it is ignored.

mod connection;
mod http;
mod socket;
#[cfg(test)]
mod tests;

pub(super) use self::{
    connection::{Ends, Time},
    http::{HttpBuffered, HttpStreamed},
    socket::{EventParts, SocketBuffered, SocketStreamed},
};

use self::{
    http::HttpParts,
    socket::{SegmentEvent, SocketEvents},
};
use crate::trace::{Body, Event, HttpSide, JsonType, Message, Span, TraceKind};

/// The types of fields, as far as the encodings tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Uint64,
    Int64,
    Int32,
    Uint32,
    Bool,
    Enum,
    String,
    Bytes,
    Message,
}

impl Type {
    /// Whether values of this type are length-delimited on the wire. All others are varints.
    pub(super) const fn is_delimited(self) -> bool {
        matches!(self, Self::String | Self::Bytes | Self::Message)
    }
}

/// A decoder that is positioned before the value of a field.
pub(super) trait Cursor: Sized {
    /// Why reading stopped before the end of the message.
    type Stop;

    /// Whether a value replaces an earlier value of the same field instead of being merged with it, as in JSON.
    const REPLACES: bool = false;

    fn uint64(&mut self) -> Result<u64, Self::Stop>;

    /// An `int64`, or the nearest one if the encoding has a larger number.
    fn int64(&mut self) -> Result<i64, Self::Stop>;

    /// An `int32`; the encoding may have larger numbers.
    fn int32(&mut self) -> Result<i64, Self::Stop> {
        self.int64()
    }

    fn boolean(&mut self) -> Result<bool, Self::Stop>;

    /// A `uint32`, or the largest one if the number does not fit. `None` stands for null.
    fn port(&mut self) -> Result<Option<u32>, Self::Stop>;

    /// A copy of a `string`. Bytes that are not UTF-8 become replacement characters.
    fn text(&mut self, out: &mut Message) -> Result<String, Self::Stop>;

    /// A `string` or `bytes`, in the window or, if it had to be unescaped or decoded, in the scratch space.
    fn span(&mut self, ty: Type, span: &mut Span, out: &mut Message) -> Result<(), Self::Stop>;

    /// A body's bytes. The end of the source may cut them off.
    fn payload(&mut self, ty: Type, body: &mut Body, out: &mut Message) -> Result<(), Self::Stop>;

    /// Skips the value of a field that is known but not needed. Returns false for null.
    fn ignore(&mut self, ty: Type) -> Result<bool, Self::Stop>;

    /// A message; null leaves the record alone.
    fn message<R: SchemaRecord>(&mut self, record: &mut R, out: &mut Message) -> Result<(), Self::Stop>;

    /// Messages of a repeated field: one, or a list of them.
    fn each<E: Element>(&mut self, to: E::To, out: &mut Message) -> Result<(), Self::Stop>;

    /// A `google.protobuf.Timestamp`.
    #[inline]
    fn time(&mut self, time: &mut Option<Time>, out: &mut Message) -> Result<(), Self::Stop> {
        self.message(time, out)
    }

    /// Whether the message to come has the two fields of a header field, the first of them a name such as `grpc-status`.
    /// No writer of a `Body` sets both, because they are members of a oneof.
    fn is_header_value(&self) -> bool {
        false
    }

    /// Reads an event by the fast path if it has exactly Envoy's layout. Otherwise, returns `None` and changes nothing.
    fn plain_event(&mut self, _out: &mut Message) -> Option<Event> {
        None
    }
}

/// The fields of a message.
pub(super) trait SchemaFields {
    /// The message's name without its package. Unknown fields are counted under it.
    const MESSAGE: &'static str;

    /// Whether there is a field with this number, and its type has this wire encoding.
    fn has(number: u32, is_delimited: bool) -> bool;

    /// The number of the field with this name. JSON may also use the name in lowerCamelCase.
    fn named(name: &[u8], is_json: bool) -> Option<u32>;

    /// Reads the value of the field with this number, which must exist.
    fn field<C: Cursor>(&mut self, number: u32, value: &mut C, out: &mut Message) -> Result<(), C::Stop>;
}

/// What a message is read into.
pub(super) trait SchemaRecord {
    type Fields: SchemaFields;

    fn fields(&mut self) -> &mut Self::Fields;

    /// Called when a message begins that is not null. `replaces` is [`Cursor::REPLACES`].
    fn begin(&mut self, _replaces: bool, _out: &mut Message) {}

    /// Called when reading the message ends, for whatever reason.
    fn end(&mut self, _end: MessageEnd, _out: &mut Message) {}
}

/// A message of a repeated field.
pub(super) trait Element: SchemaRecord + Default {
    /// Where [`Element::done`] adds it.
    type To: Copy;

    /// A list of them in JSON.
    const LIST: JsonType;

    /// Tries to read and add one by [`Cursor::plain_event`], and returns whether that succeeded.
    fn plain<C: Cursor>(_value: &mut C, _out: &mut Message) -> bool {
        false
    }

    /// Adds it to the records.
    fn done(self, end: MessageEnd, to: Self::To, out: &mut Message);
}

/// How reading a message ended. A message that is neither whole nor cut is damaged.
#[derive(Clone, Copy, Debug)]
pub(super) struct MessageEnd {
    pub(super) whole: bool,
    /// The source ends inside it.
    pub(super) cut: bool,
    /// A length tells where it ends, so what was read surely belongs to it, even if it is cut or damaged.
    pub(super) framed: bool,
}

impl MessageEnd {
    pub(super) const WHOLE: Self = Self { whole: true, cut: false, framed: false };
    pub(super) const DAMAGED: Self = Self { whole: false, cut: false, framed: false };
}

/// Describes a message and the record that it is read into. Each field is `number Type name | JSON name => effect of
/// the value`. The blocks `begin` and `end` run when the message begins and ends.
macro_rules! message {
    (
        $message:literal for $record:ty, |$this:ident, $number:ident, $value:ident, $out:ident| {
            $($literal:literal $type:ident $($name:literal $(| $json:literal)?)? => $effect:expr,)*
        }
        $(begin |$replaces:ident| $begin:block)?
        $(end |$end:ident| $finish:block)?
    ) => {
        impl crate::input::schema::SchemaFields for $record {
            const MESSAGE: &'static str = $message;

            #[inline(always)]
            #[allow(unused_variables)]
            fn has(number: u32, is_delimited: bool) -> bool {
                match number {
                    $($literal => is_delimited == crate::input::schema::Type::$type.is_delimited(),)*
                    _ => false,
                }
            }

            #[inline]
            #[allow(unused_variables)]
            fn named(name: &[u8], is_json: bool) -> Option<u32> {
                match name {
                    $($($name => Some($literal), $($json if is_json => Some($literal),)?)?)*
                    _ => None,
                }
            }

            #[inline]
            #[allow(unused_variables, unreachable_code)]
            fn field<C: Cursor>(&mut $this, $number: u32, $value: &mut C, $out: &mut Message) -> Result<(), C::Stop> {
                match $number {
                    $($literal => { $effect; })*
                    _ => unreachable!("the number was found in the same table"),
                }
                Ok(())
            }
        }

        impl crate::input::schema::SchemaRecord for $record {
            type Fields = Self;

            #[inline]
            fn fields(&mut self) -> &mut Self {
                self
            }

            $(
                #[inline]
                #[allow(unused_variables)]
                fn begin(&mut $this, $replaces: bool, $out: &mut Message) {
                    $begin
                }
            )?

            $(
                #[inline]
                #[allow(unused_variables)]
                fn end(&mut $this, $end: MessageEnd, $out: &mut Message) {
                    $finish
                }
            )?
        }
    };
}
use message;

/// Reads a submessage that is not in a oneof. In JSON, null is its default value.
#[inline]
fn single<C: Cursor, R: SchemaRecord + Default>(
    record: &mut R,
    value: &mut C,
    out: &mut Message,
) -> Result<(), C::Stop> {
    if C::REPLACES {
        *record = R::default();
    }
    value.message(record, out)
}

/// The parts of a `TraceWrapper` that are complete only when it ends.
#[derive(Debug, Default)]
pub(super) struct Parts {
    connection: Option<Ends>,
    upstream_connection: Option<Ends>,
    http: [HttpParts; 2],
    member: Member,
    event: SegmentEvent,
    events: SocketEvents,
}

message!("TraceWrapper" for Parts, |self, number, value, out| {
    1 Message b"http_buffered_trace" | b"httpBufferedTrace" => value.message(&mut HttpBuffered(self), out)?,
    2 Message b"http_streamed_trace_segment" | b"httpStreamedTraceSegment" => {
        value.message(&mut HttpStreamed(self), out)?;
    },
    3 Message b"socket_buffered_trace" | b"socketBufferedTrace" => value.message(&mut SocketBuffered(self), out)?,
    4 Message b"socket_streamed_trace_segment" | b"socketStreamedTraceSegment" => {
        value.message(&mut SocketStreamed(self), out)?;
    },
    5 Message b"configured_sample_rate" | b"configuredSampleRate" => value.ignore(Type::Message)?,
});

impl Parts {
    /// Selects a member of the oneof. The last one counts, so a different one before it is forgotten.
    #[inline]
    fn begin_trace(&mut self, kind: TraceKind, replaces: bool, out: &mut Message) {
        if replaces || out.kind.is_some_and(|before| before != kind) {
            *self = Self::default();
            out.clear();
        }
        out.kind = Some(kind);
    }

    /// Completes the message, except for [`Message::order_http`].
    #[inline]
    pub(super) fn finish(self, out: &mut Message) {
        let Self { connection, upstream_connection, http, event, .. } = self;
        if let Some(ends) = connection {
            out.connection = Some(ends.finish(out));
        }
        if let Some(ends) = upstream_connection {
            out.upstream_connection = Some(ends.finish(out));
        }
        for (side, parts) in [HttpSide::Request, HttpSide::Response].into_iter().zip(http) {
            if let Some(time) = parts.time.and_then(|time| time.finish(out)) {
                out.set_http_time(side, Some(time));
            }
        }
        event.finish(out);
    }
}

/// The last member of a streamed segment's oneof, by its number.
#[derive(Debug, Default)]
struct Member(Option<u32>);

impl Member {
    /// Selects a member. The last one counts, so a different one before it is forgotten. Returns whether this is
    /// another piece of the same member.
    #[inline]
    fn select(&mut self, number: u32, replaces: bool, out: &mut Message) -> bool {
        match self.0.replace(number) {
            None => false,
            Some(before) if before == number && !replaces => true,
            Some(_) => {
                out.clear_piece();
                false
            }
        }
    }
}
