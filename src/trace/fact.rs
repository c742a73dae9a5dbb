//! What a stage has found in a trace, without a word of what it means for people: [`report`](crate::report) has those.

use std::net::{IpAddr, SocketAddr};

use super::{Code, HttpSide, TimeError, TraceKind, UnknownField};

/// Whose address of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Owner {
    /// Envoy's own.
    Local,
    /// The peer's.
    Remote,
}

impl Owner {
    /// The name of the field of `Connection`, without its suffix.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Remote => "remote",
        }
    }
}

/// Records of which one message may have only so many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limited {
    /// Events of a socket trace.
    Events,
    /// Header and trailer fields of an HTTP trace.
    Headers,
    /// Parts of an HTTP exchange.
    Parts,
}

/// What is wrong or remarkable. A text in it quotes the trace or an error of the system, or is a decoder's.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fact {
    /// Bytes that are not the message they should be; what the decoder says of them.
    Undecodable(String),
    /// The source ends inside a message; what the decoder says of it.
    CutOff(String),
    /// Bytes after the last message are no message; what the decoder says of them.
    TrailingBytes(String),
    /// The source cannot be read on, for this reason of the system's.
    ReadFailed(String),
    /// A message was passed over.
    LargeMessage {
        /// It has so many bytes or more.
        size: usize,
        /// It may have so many.
        limit: usize,
        /// Nobody can tell where it ends, so the rest of the source is passed over with it.
        with_rest: bool,
    },
    /// The last records of a message were passed over.
    ManyRecords {
        /// Which records.
        records: Limited,
        /// There may be so many.
        limit: usize,
        /// So many were passed over.
        beyond: u64,
    },
    /// An address is longer than what is kept of one.
    LongAddress {
        /// In bytes.
        len: usize,
    },
    /// Times of one message cannot be read.
    BadTimes {
        /// What is wrong with the first one.
        first: TimeError,
        /// How many there are.
        times: u64,
    },
    /// A message of another kind than the source began with.
    MixedKinds(TraceKind),
    /// A field that this version does not know.
    UnknownField(UnknownField),
    /// More such fields than are told apart.
    UnknownFields {
        /// How many.
        times: u64,
    },
    /// A socket trace where an HTTP trace is needed.
    SocketTrace(TraceKind),
    /// So many connections may be open at once, and the trace has more.
    ManyConnections {
        /// How many.
        limit: usize,
    },
    /// An event has a time that the capture's format cannot hold.
    LateTime,
    /// An event has no time.
    NoTime,
    /// An event is older than the one before it on its connection.
    TimeBackwards {
        /// In nanoseconds.
        by: u64,
    },
    /// By their positions, bytes before an event are missing.
    LostBytes {
        /// How many.
        bytes: u64,
    },
    /// A connection has no address at all.
    MissingConnection {
        /// The connection's.
        trace_id: u64,
        /// It is an HTTP trace, buffered or not.
        http_buffered: Option<bool>,
    },
    /// A connection has the address of one side alone.
    MissingAddress {
        /// The connection's.
        trace_id: u64,
        /// Whose is missing.
        owner: Owner,
        /// It is a cluster's connection, which was not connected when its trace began.
        unconnected: bool,
    },
    /// A port above 65535.
    BadPort {
        /// Whose.
        owner: Owner,
        /// In the trace.
        port: u32,
        /// In its place.
        made_up: u16,
    },
    /// An address that is no IP address.
    BadAddress {
        /// Whose.
        owner: Owner,
        /// In the trace.
        text: String,
        /// In its place.
        made_up: IpAddr,
    },
    /// Both ends of a connection have this address.
    SameAddress {
        /// The address.
        both: SocketAddr,
        /// The user had one of them rewritten.
        rewritten: bool,
    },
    /// Bodies of a connection were cut.
    TruncatedBodies {
        /// The connection's.
        trace_id: u64,
        /// How many.
        bodies: u64,
        /// Bytes of them that are known to be missing.
        bytes: u64,
        /// Of some, nobody knows how many bytes are missing.
        open_ended: bool,
    },
    /// A body of an exchange that is not replayed was cut.
    TruncatedBody {
        /// The exchange's.
        trace_id: u64,
    },
    /// JSON_BODY_AS_STRING replaced binary data.
    DestroyedBodies {
        /// The connection's.
        trace_id: u64,
        /// In how many bodies.
        bodies: u64,
        /// Bytes that are missing.
        bytes: u64,
    },
    /// A connection has no end.
    MissingClose {
        /// The connection's.
        trace_id: u64,
        /// It is an HTTP exchange, which is not complete.
        http: bool,
    },
    /// Something about a replayed exchange.
    Exchange {
        /// The exchange's.
        trace_id: u64,
        /// What.
        fact: ExchangeFact,
    },
}

/// What is wrong or remarkable about a replayed exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExchangeFact {
    /// A body or trailers without headers.
    Headless,
    /// There is no request.
    NoRequest,
    /// There is no response.
    NoResponse,
    /// A body ends before its content-length.
    ShortBody,
    /// Segments are not in the order in which HTTP sends them.
    SegmentsOutOfOrder,
    /// So many trailers come after a body of known length.
    MisplacedTrailers(usize),
    /// A part has a time that the capture's format cannot hold.
    LateTime,
    /// A content-length that is no number, or several that differ.
    BadLength,
    /// The body is longer than its content-length.
    LongBody,
    /// There is more body than the headers allow.
    ExtraBody(HttpSide),
    /// What HTTP demands is missing and was made up: the line that the capture's comments have as well.
    MadeUp(String),
    /// Fields were escaped or left out: the line that the capture's comments have as well.
    Escaped(String),
}

impl Fact {
    /// Its kind.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Undecodable(_) => Code::Undecodable,
            Self::CutOff(_) => Code::CutOff,
            Self::TrailingBytes(_) => Code::TrailingBytes,
            Self::ReadFailed(_) => Code::ReadFailed,
            Self::LargeMessage { .. } | Self::ManyRecords { .. } | Self::LongAddress { .. } => Code::TooLarge,
            Self::BadTimes { .. } | Self::LateTime | Self::NoTime => Code::BadTime,
            Self::MixedKinds(_) => Code::MixedKinds,
            Self::UnknownField(_) | Self::UnknownFields { .. } => Code::UnknownField,
            Self::SocketTrace(_) => Code::SocketTrace,
            Self::ManyConnections { .. } => Code::TooManyConnections,
            Self::TimeBackwards { .. } => Code::TimeBackwards,
            Self::LostBytes { .. } => Code::LostBytes,
            Self::MissingConnection { .. } => Code::MissingConnection,
            Self::MissingAddress { .. } => Code::MissingAddress,
            Self::BadPort { .. } => Code::BadPort,
            Self::BadAddress { .. } => Code::BadAddress,
            Self::SameAddress { .. } => Code::SameAddress,
            Self::TruncatedBodies { .. } | Self::TruncatedBody { .. } => Code::TruncatedBody,
            Self::DestroyedBodies { .. } => Code::BinaryDestroyed,
            Self::MissingClose { .. } => Code::MissingClose,
            Self::Exchange { fact, .. } => fact.code(),
        }
    }
}

impl ExchangeFact {
    fn code(&self) -> Code {
        match self {
            Self::Headless | Self::MadeUp(_) => Code::MissingHeader,
            Self::NoRequest | Self::NoResponse | Self::ShortBody => Code::IncompleteExchange,
            Self::SegmentsOutOfOrder | Self::MisplacedTrailers(_) => Code::OutOfOrder,
            Self::LateTime => Code::BadTime,
            Self::BadLength | Self::LongBody | Self::ExtraBody(_) => Code::LengthMismatch,
            Self::Escaped(_) => Code::EscapedHeader,
        }
    }
}
