//! `Connection`, addresses, and `google.protobuf.Timestamp`.

use std::mem::take;

use super::{Cursor, MessageEnd, SchemaRecord, Type, message, single};
use crate::trace::{Address, Connection, Message, Nanos, TimeError, nanos_from_timestamp};

/// `google.protobuf.Timestamp`.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::input) struct Time {
    seconds: i64,
    nanos: i64,
    /// It was written as a string that is not a time.
    unreadable: bool,
    /// The source ends inside it, so it may be wrong without being a fault.
    cut: bool,
}

message!("Timestamp" for Time, |self, number, value, out| {
    1 Int64 b"seconds" => self.seconds = value.int64()?,
    2 Int32 b"nanos" => self.nanos = value.int32()?,
});

impl Time {
    /// A string that is not a time.
    pub(in crate::input) const UNREADABLE: Self = Self { unreadable: true, ..Self::new(0, 0) };

    #[inline]
    pub(in crate::input) const fn new(seconds: i64, nanos: i64) -> Self {
        Self { seconds, nanos, unreadable: false, cut: false }
    }

    /// The time, or `None` if no capture can hold it. Unless the source cuts it, `out` notes such a time.
    #[inline]
    pub(in crate::input) fn finish(self, out: &mut Message) -> Option<Nanos> {
        let time =
            if self.unreadable { Err(TimeError::Unreadable) } else { nanos_from_timestamp(self.seconds, self.nanos) };
        match time {
            Ok(time) => Some(time),
            Err(_) if self.cut => None,
            Err(error) => {
                out.note_bad_time(error);
                None
            }
        }
    }
}

impl From<Nanos> for Time {
    fn from(time: Nanos) -> Self {
        // Both parts fit: a u64 of nanoseconds reaches the year 2554.
        let (seconds, nanos) = (time / 1_000_000_000, time % 1_000_000_000);
        Self::new(seconds.cast_signed(), nanos.cast_signed())
    }
}

impl SchemaRecord for Option<Time> {
    type Fields = Time;

    #[inline]
    fn fields(&mut self) -> &mut Time {
        self.get_or_insert_default()
    }

    #[inline]
    fn end(&mut self, end: MessageEnd, _out: &mut Message) {
        if !(end.whole || end.framed) {
            *self = None;
        } else if let Some(time) = self {
            time.cut |= end.cut;
        }
    }
}

/// `Connection`, with its addresses by field number.
#[derive(Debug, Default)]
pub(in crate::input) struct Ends {
    first: Option<Address>,
    second: Option<Address>,
    third: Option<Address>,
}

message!("Connection" for Ends, |self, number, value, out| {
    1 Message b"local_address" | b"localAddress" => single(&mut self.first, value, out)?,
    2 Message b"remote_address" | b"remoteAddress" => single(&mut self.second, value, out)?,
    3 Message => single(&mut self.third, value, out)?,
});

impl Ends {
    pub(in crate::input) fn finish(self, out: &mut Message) -> Connection {
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

impl SchemaRecord for Option<Ends> {
    type Fields = Ends;

    fn fields(&mut self) -> &mut Ends {
        self.get_or_insert_default()
    }

    fn end(&mut self, end: MessageEnd, _out: &mut Message) {
        if !(end.whole || end.framed) {
            *self = None;
        }
    }
}

message!("Address" for Option<Address>, |self, number, value, out| {
    1 Message b"socket_address" | b"socketAddress" => {
        value.message(&mut SocketAddress { to: self, address: String::new(), port: None }, out)?;
    },
    2 Message b"pipe" => value.message(&mut PipeMessage { to: self, path: String::new() }, out)?,
    3 Message b"envoy_internal_address" | b"envoyInternalAddress" => {
        let (listener, endpoint) = Default::default();
        value.message(&mut EnvoyInternalAddress { to: self, listener, endpoint }, out)?;
    },
});

/// A member of the oneof of `Address`, like the next two records. Each replaces a different member, and is merged with
/// an earlier piece of the same one.
pub(super) struct SocketAddress<'a> {
    to: &'a mut Option<Address>,
    address: String,
    port: Option<u32>,
}

message!("SocketAddress" for SocketAddress<'_>, |self, number, value, out| {
    1 Enum b"protocol" => value.ignore(Type::Enum)?,
    2 String b"address" => self.address = value.text(out)?,
    3 Uint32 b"port_value" | b"portValue" => self.port = value.port()?.or(self.port),
    // `named_port` is in a oneof with `port_value`, and so replaces it.
    4 String b"named_port" | b"namedPort" => {
        let name = value.ignore(Type::String);
        if !matches!(name, Ok(false)) {
            self.port = None;
        }
        name?;
    },
    5 String b"resolver_name" | b"resolverName" => value.ignore(Type::String)?,
    6 Bool b"ipv4_compat" | b"ipv4Compat" => value.ignore(Type::Bool)?,
    7 String b"network_namespace_filepath" | b"networkNamespaceFilepath" => value.ignore(Type::String)?,
} begin |replaces| {
    if let Some(Address::Socket { address, port }) = self.to.take().filter(|_| !replaces) {
        (self.address, self.port) = (address, port);
    }
} end |end| {
    *self.to = Some(Address::Socket { address: take(&mut self.address), port: self.port });
});

pub(super) struct PipeMessage<'a> {
    to: &'a mut Option<Address>,
    path: String,
}

message!("Pipe" for PipeMessage<'_>, |self, number, value, out| {
    1 String b"path" => self.path = value.text(out)?,
    2 Uint32 b"mode" => value.ignore(Type::Uint32)?,
} begin |replaces| {
    if let Some(Address::Pipe(path)) = self.to.take().filter(|_| !replaces) {
        self.path = path;
    }
} end |end| {
    *self.to = Some(Address::Pipe(take(&mut self.path)));
});

pub(super) struct EnvoyInternalAddress<'a> {
    to: &'a mut Option<Address>,
    listener: String,
    endpoint: String,
}

message!("EnvoyInternalAddress" for EnvoyInternalAddress<'_>, |self, number, value, out| {
    1 String b"server_listener_name" | b"serverListenerName" => self.listener = value.text(out)?,
    2 String b"endpoint_id" | b"endpointId" => self.endpoint = value.text(out)?,
} begin |replaces| {
    if let Some(Address::Internal { listener, endpoint }) = self.to.take().filter(|_| !replaces) {
        (self.listener, self.endpoint) = (listener, endpoint);
    }
} end |end| {
    *self.to = Some(Address::Internal { listener: take(&mut self.listener), endpoint: take(&mut self.endpoint) });
});
