//! Why bytes do not decode as a message, as data. [`report`](crate::report) puts it into words.
//!
//! The bytes in it are quoted from the trace as they are there, and are few.

/// Where in a message its source ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CutIn {
    /// In a message whose length is known.
    Message {
        /// How many of its bytes are missing.
        missing: u64,
    },
    /// In the length before a message.
    Length,
    /// In a field outside of all messages.
    Field,
    /// In a message in protobuf's text format.
    Text,
    /// In a JSON object.
    Object,
}

/// Why bytes are not a message in the encoding of their source.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecodeFault {
    /// The source is in protobuf's binary encoding.
    Wire(WireFault),
    /// The source is in protobuf's text format.
    Text(TextFault),
    /// The source is JSON.
    Json(JsonFault),
    /// Text begins in the middle of a message, whose start is missing.
    Inside,
}

impl From<WireFault> for DecodeFault {
    fn from(fault: WireFault) -> Self {
        Self::Wire(fault)
    }
}

impl From<TextFault> for DecodeFault {
    fn from(fault: TextFault) -> Self {
        Self::Text(fault)
    }
}

impl From<JsonFault> for DecodeFault {
    fn from(fault: JsonFault) -> Self {
        Self::Json(fault)
    }
}

/// Why bytes are not a message in protobuf's binary encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WireFault {
    /// A message ends inside one of its fields.
    EndInField,
    /// A number takes more than ten bytes.
    LongVarint,
    /// A field has the number 0, or one that is too large.
    FieldNumber,
    /// A field has this wire type, which does not exist.
    WireType(u8),
    /// A field is longer than what is left of its message.
    Overlong {
        /// Its length in bytes.
        len: u64,
        /// How many bytes are left.
        available: usize,
    },
    /// A field outside of all messages is longer than protobuf allows.
    LongField {
        /// Its length in bytes.
        len: u64,
        /// The greatest length.
        limit: u64,
    },
    /// A message is longer than protobuf allows.
    LongMessage {
        /// Its length in bytes.
        len: u64,
        /// The greatest length.
        limit: u64,
    },
    /// Groups are nested too deep.
    Depth {
        /// The greatest depth.
        limit: u32,
    },
    /// A group ends that did not begin.
    StrayEndGroup,
}

/// Why text is not a message in protobuf's text format.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TextFault {
    /// Something is missing.
    Expected {
        /// What should be there.
        wanted: TextItem,
        /// How the text that is there begins.
        found: Box<[u8]>,
    },
    /// The value of a bool is this number.
    Bool(Box<[u8]>),
    /// The value of an unsigned field of 64 bits is this number.
    Unsigned(Box<[u8]>),
    /// Messages are nested too deep.
    Depth {
        /// The greatest depth.
        limit: usize,
    },
    /// A string is not closed on its line.
    OpenString,
    /// A backslash begins this, which is not an escape sequence.
    Escape(Box<[u8]>),
}

/// What protobuf's text format asks for at one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TextItem {
    /// A field's name.
    FieldName,
    /// A field's name, or the end of the message.
    FieldNameOrEnd {
        /// The end is an angle bracket, not a brace.
        angle: bool,
    },
    /// The name of an extension, in square brackets.
    ExtensionName,
    /// The brace that begins a message.
    Message,
    /// The message before a trace that begins was never closed.
    EndOfMessage,
    /// Any value.
    Value,
    /// An integer.
    Integer,
    /// A bool.
    Bool,
    /// A string.
    String,
    /// A colon.
    Colon,
    /// A colon, or the brace that begins a message.
    ColonOrMessage,
    /// A comma, or the end of a list.
    CommaOrEnd,
}

/// Why JSON text is not a message.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum JsonFault {
    /// No object begins here, but something that begins with this byte.
    NoObject(u8),
    /// An object has none of the fields of a trace.
    OtherObject,
    /// The value of a bytes field is not base64.
    Base64,
    /// The parser, `serde_json`, refuses the text. This is the beginning of what it says, without the place.
    Parser(String),
}

/// What the value of a JSON member must be. The parser names it when the value is something else.
#[derive(Clone, Copy, Debug)]
pub(crate) enum JsonType {
    /// The object of this message.
    Object(&'static str),
    /// A list of events.
    Events,
    /// A list of header fields.
    HeaderFields,
    /// A member's name.
    FieldName,
    String,
    Bool,
    /// An unsigned integer, as a number or a string.
    Unsigned,
    /// An integer, as a number or a string.
    Integer,
    /// A time as a string, a number or an object.
    Time,
    /// Bytes as a string.
    Base64,
}
