//! The five formats of a trace file, byte for byte as Envoy 1.40 writes them.
//!
//! Envoy leaves the formats to the C++ protobuf library. Its JSON and text printers have habits that no Rust crate
//! shares: which characters they escape, and which defaults they spell out. So both are printed here, by one walk over
//! the messages ([`walk`]) and two small printers.

mod json;
mod text;
mod walk;

use std::fmt;

use clap::ValueEnum;
use prost::Message;

use crate::proto::tap::TraceWrapper;

/// `envoy.config.tap.v3.OutputSink.Format`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, ValueEnum)]
pub enum TraceFormat {
    /// Messages back to back.
    #[value(name = "binary", alias = "PROTO_BINARY", help = "PROTO_BINARY: messages back to back")]
    ProtoBinary,
    /// A varint length before each message.
    #[value(name = "delimited", alias = "PROTO_BINARY_LENGTH_DELIMITED", help = "PROTO_BINARY_LENGTH_DELIMITED")]
    ProtoBinaryLengthDelimited,
    /// Protobuf's text format.
    #[value(name = "text", alias = "PROTO_TEXT", help = "PROTO_TEXT")]
    ProtoText,
    /// JSON with bodies in base64. The default of Envoy's configuration.
    #[default]
    #[value(name = "json", alias = "JSON_BODY_AS_BYTES", help = "JSON_BODY_AS_BYTES")]
    JsonBodyAsBytes,
    /// JSON with bodies as strings: bytes that are not UTF-8 are lost.
    ///
    /// This differs from Envoy in one point, on purpose: in this format, Envoy overwrites the `connection` segment of a
    /// streamed trace with an empty event, so the trace has no addresses. Here the segment is kept.
    #[value(name = "json-string", alias = "JSON_BODY_AS_STRING", help = "JSON_BODY_AS_STRING: binary data is lost")]
    JsonBodyAsString,
}

impl TraceFormat {
    /// All formats, by their number in Envoy's configuration.
    pub const ALL: [Self; 5] = [
        Self::JsonBodyAsBytes,
        Self::JsonBodyAsString,
        Self::ProtoBinary,
        Self::ProtoBinaryLengthDelimited,
        Self::ProtoText,
    ];

    /// The name in Envoy's configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::JsonBodyAsBytes => "JSON_BODY_AS_BYTES",
            Self::JsonBodyAsString => "JSON_BODY_AS_STRING",
            Self::ProtoBinary => "PROTO_BINARY",
            Self::ProtoBinaryLengthDelimited => "PROTO_BINARY_LENGTH_DELIMITED",
            Self::ProtoText => "PROTO_TEXT",
        }
    }

    /// What follows the last dot of a trace file's name.
    #[must_use]
    pub fn suffix(self) -> &'static str {
        match self {
            Self::JsonBodyAsBytes | Self::JsonBodyAsString => "json",
            Self::ProtoBinary => "pb",
            Self::ProtoBinaryLengthDelimited => "pb_length_delimited",
            Self::ProtoText => "pb_text",
        }
    }

    /// Appends one message to `out`.
    pub fn encode(self, trace: &TraceWrapper, out: &mut Vec<u8>) {
        /// prost returns a result because other buffers may be full.
        const ROOM: &str = "a Vec grows as needed";
        match self {
            Self::JsonBodyAsBytes => json::print(out, |printer| walk::trace(printer, trace, walk::Bodies::AsTheyAre)),
            Self::JsonBodyAsString => json::print(out, |printer| walk::trace(printer, trace, walk::Bodies::AsString)),
            Self::ProtoBinary => trace.encode(out).expect(ROOM),
            Self::ProtoBinaryLengthDelimited => trace.encode_length_delimited(out).expect(ROOM),
            Self::ProtoText => text::print(out, |printer| walk::trace(printer, trace, walk::Bodies::AsTheyAre)),
        }
    }
}

impl fmt::Display for TraceFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
