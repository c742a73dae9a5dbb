//! What a stage has found in a trace, as data. [`report`](crate::report) puts it into words.

use std::net::{IpAddr, SocketAddr};

use super::{Code, CutIn, DecodeFault, HttpSide, MadeUpField, TimeError, TraceKind, UnfitFields, UnknownField};

/// The end of a connection that an address belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Owner {
    /// Envoy's own.
    Local,
    /// The peer's.
    Remote,
}

impl Owner {
    /// The name of the end's field in `Connection`, without `_address`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Remote => "remote",
        }
    }
}

/// Records whose number per message is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limited {
    /// Events of a socket trace.
    Events,
    /// Header and trailer fields of an HTTP trace.
    Headers,
    /// Parts of an HTTP exchange.
    Parts,
}

/// What is wrong or remarkable. A string in it quotes the trace or an error of the system.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fact {
    /// Bytes do not decode as a message.
    Undecodable(DecodeFault),
    /// The source ends inside a message.
    CutOff(CutIn),
    /// Bytes after the last message do not decode as one.
    TrailingBytes(DecodeFault),
    /// Zeros stand between messages or after the last one.
    Zeros {
        /// How many.
        bytes: u64,
        /// In how many places.
        runs: u64,
    },
    /// Text stands before, between or after the messages of a source.
    TextAround {
        /// Its length in bytes.
        bytes: u64,
        /// Its first line, or the beginning of that.
        first: String,
        /// A trace seems to begin in it, in quotes or in source code, say.
        names_trace: bool,
    },
    /// The source could not be read any further, because of this error of its reader.
    ReadFailed(String),
    /// A message was passed over because of its size.
    LargeMessage {
        /// Its size in bytes, or the least that it can be.
        size: usize,
        /// The largest size that is read.
        limit: usize,
        /// Its end cannot be found, so the rest of the source is passed over with it.
        with_rest: bool,
    },
    /// A message has more records than the limit; the last ones were dropped.
    ManyRecords {
        /// Which records.
        records: Limited,
        /// How many are kept.
        limit: usize,
        /// How many were dropped.
        beyond: u64,
    },
    /// An address is longer than the limit, and was shortened.
    LongAddress {
        /// Its length in bytes.
        len: usize,
    },
    /// Times of one message cannot be read.
    BadTimes {
        /// What is wrong with the first of them.
        first: TimeError,
        /// How many there are.
        times: u64,
    },
    /// A message has another kind than the source began with.
    MixedKinds(TraceKind),
    /// This version does not know a field.
    UnknownField(UnknownField),
    /// Unknown fields beyond the [number that is listed](super::UnknownFields::DISTINCT).
    UnknownFields {
        /// How often they occur.
        times: u64,
    },
    /// More connections are open at once than the limit allows.
    ManyConnections {
        /// How many may be open.
        limit: usize,
    },
    /// An event has a time that the capture's format cannot hold.
    LateTime,
    /// An event has no time.
    NoTime,
    /// An event is older than the one before it on its connection.
    TimeBackwards {
        /// How much older, in nanoseconds.
        by: u64,
    },
    /// Bytes before an event are missing, as its `seq_num` shows.
    LostBytes {
        /// How many.
        bytes: u64,
    },
    /// A connection has no address at all.
    MissingConnection {
        /// The connection's trace id.
        trace_id: u64,
        /// Whether an HTTP trace is buffered; `None` for a socket trace.
        http_buffered: Option<bool>,
    },
    /// Only one side of a connection has an address.
    MissingAddress {
        /// The connection's trace id.
        trace_id: u64,
        /// The side without an address.
        owner: Owner,
        /// It is a connection to a cluster, and was not connected yet when its trace began.
        unconnected: bool,
    },
    /// A port is above 65535.
    BadPort {
        /// The side that the port belongs to.
        owner: Owner,
        /// The port in the trace.
        port: u32,
        /// The port that replaces it.
        made_up: u16,
    },
    /// An address is not an IP address.
    BadAddress {
        /// The side that the address belongs to.
        owner: Owner,
        /// The address in the trace.
        text: String,
        /// The address that replaces it.
        made_up: IpAddr,
    },
    /// Both ends of a connection have the same address and port.
    SameAddress {
        /// That address.
        both: SocketAddr,
        /// The user had at least one of them rewritten.
        rewritten: bool,
    },
    /// Bodies of a connection were truncated.
    TruncatedBodies {
        /// The connection's trace id.
        trace_id: u64,
        /// How many bodies.
        bodies: u64,
        /// How many of their bytes are known to be missing.
        bytes: u64,
        /// Some bodies lack an unknown number of bytes on top.
        open_ended: bool,
    },
    /// A body of an exchange that is not replayed was truncated.
    TruncatedBody {
        /// The exchange's trace id.
        trace_id: u64,
    },
    /// JSON_BODY_AS_STRING replaced binary data.
    DestroyedBodies {
        /// The connection's trace id.
        trace_id: u64,
        /// How many bodies are affected.
        bodies: u64,
        /// How many bytes are missing.
        bytes: u64,
    },
    /// The trace of a connection does not show its end.
    MissingClose {
        /// The connection's trace id.
        trace_id: u64,
        /// It is an HTTP exchange, which is not complete.
        http: bool,
    },
    /// A fact about a replayed exchange.
    Exchange {
        /// The exchange's trace id.
        trace_id: u64,
        /// The fact.
        fact: ExchangeFact,
    },
    /// A fact about the HTTP that a connection's bytes hold.
    Http {
        /// The connection's trace id.
        trace_id: u64,
        /// The fact.
        fact: HttpFact,
    },
}

/// What is wrong or remarkable about the HTTP that a connection's bytes hold.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HttpFact {
    /// Bytes were passed over until a message or frame could be recognised.
    Skipped {
        /// Who sent them.
        side: HttpSide,
        /// How many.
        bytes: u64,
    },
    /// Bytes where a message should begin are none.
    NoMessage(HttpSide),
    /// A head or trailer section is not HTTP.
    BadHead(HttpSide),
    /// A head or header block is not whole in the trace.
    CutHead(HttpSide),
    /// A head or header block is longer than is read.
    LongHead {
        /// Who sent it.
        side: HttpSide,
        /// How many bytes are read.
        limit: usize,
    },
    /// A header block stands for more than is kept.
    LongList {
        /// Who sent it.
        side: HttpSide,
        /// How many bytes are kept.
        limit: usize,
    },
    /// A header block has too many frames.
    ManyContinuations {
        /// Who sent it.
        side: HttpSide,
        /// How many frames are read.
        limit: u32,
    },
    /// A message has both a content-length and the coding `chunked`.
    BothLengths(HttpSide),
    /// A content-length is not a number, or there are several that differ.
    BadLength(HttpSide),
    /// A transfer-encoding that does not tell where the body ends.
    BadCoding(HttpSide),
    /// A chunk's size is not a number below 2^64, or the chunk does not end where it should.
    BadChunk(HttpSide),
    /// A frame that HTTP/2 does not allow.
    BadFrame(HttpSide),
    /// A header block does not decode.
    BadBlock(HttpSide),
    /// Header fields refer to others that are missing from the trace.
    UnknownFields {
        /// Who sent them.
        side: HttpSide,
        /// How many.
        fields: u64,
    },
    /// More exchanges are open than are kept; the oldest was given up.
    ManyOpen {
        /// How many are kept.
        limit: usize,
    },
    /// JSON_BODY_AS_STRING has destroyed HTTP/2.
    Destroyed,
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
    /// This many trailers come after a body of known length.
    MisplacedTrailers(usize),
    /// A part has a time that the capture's format cannot hold.
    LateTime,
    /// A content-length is not a number, or there are several that differ.
    BadLength,
    /// The body is longer than its content-length.
    LongBody,
    /// There is more body than the headers allow.
    ExtraBody(HttpSide),
    /// Something that HTTP requires is missing and was made up. A comment in the capture says so too.
    MadeUp(MadeUpField),
    /// Fields could not be written as they are. A comment in the capture says so too.
    Unfit(UnfitFields),
}

impl Fact {
    /// Its kind.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Undecodable(_) => Code::Undecodable,
            Self::CutOff(_) => Code::CutOff,
            Self::TrailingBytes(_) => Code::TrailingBytes,
            Self::Zeros { .. } => Code::ZeroPadding,
            Self::TextAround { .. } => Code::TextAround,
            Self::ReadFailed(_) => Code::ReadFailed,
            Self::LargeMessage { .. } | Self::ManyRecords { .. } | Self::LongAddress { .. } => Code::TooLarge,
            Self::BadTimes { .. } | Self::LateTime | Self::NoTime => Code::BadTime,
            Self::MixedKinds(_) => Code::MixedKinds,
            Self::UnknownField(_) | Self::UnknownFields { .. } => Code::UnknownField,
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
            Self::Http { fact, .. } => fact.code(),
        }
    }
}

impl HttpFact {
    fn code(&self) -> Code {
        match self {
            Self::Skipped { .. } => Code::HttpSkipped,
            Self::NoMessage(_) | Self::BadHead(_) | Self::BadChunk(_) | Self::BadFrame(_) | Self::BadBlock(_) => {
                Code::HttpInvalid
            }
            Self::CutHead(_) | Self::UnknownFields { .. } | Self::Destroyed => Code::HttpIncomplete,
            Self::LongHead { .. } | Self::LongList { .. } | Self::ManyContinuations { .. } | Self::ManyOpen { .. } => {
                Code::HttpTooLarge
            }
            Self::BothLengths(_) | Self::BadLength(_) | Self::BadCoding(_) => Code::HttpAmbiguous,
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
            Self::Unfit(_) => Code::EscapedHeader,
        }
    }
}
