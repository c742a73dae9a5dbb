//! The words of what decoders find: why bytes are not a message, and where a source ends too early.

use std::fmt;

use serde::de::Expected;

use crate::trace::{CutIn, DecodeFault, JsonFault, JsonType, TextFault, TextItem, TimeError, WireFault};

pub(super) fn cut_off(place: CutIn) -> String {
    match place {
        CutIn::Message { missing } => format!("cut off: {missing} more bytes of the message should follow"),
        CutIn::Length => "cut off in the length of a message".to_owned(),
        CutIn::Field => "cut off in the middle of a field".to_owned(),
        CutIn::Text => "the text ends inside a message".to_owned(),
        CutIn::Object => "the source ends inside a JSON object".to_owned(),
    }
}

pub(super) fn undecodable(fault: &DecodeFault) -> String {
    match fault {
        DecodeFault::Wire(fault) => wire(*fault),
        DecodeFault::Text(fault) => text(fault),
        DecodeFault::Json(fault) => json(fault),
        DecodeFault::Inside => "the text begins inside a message, whose start is missing".to_owned(),
    }
}

fn wire(fault: WireFault) -> String {
    match fault {
        WireFault::EndInField => "the message ends inside a field".to_owned(),
        WireFault::LongVarint => "a number of more than ten bytes".to_owned(),
        WireFault::FieldNumber => "a field number that protobuf does not allow".to_owned(),
        WireFault::WireType(number) => format!("wire type {number} does not exist"),
        WireFault::Overlong { len, available } => format!("a field of {len} bytes where {available} are left"),
        WireFault::LongField { len, limit } => format!("a field of {len} bytes; protobuf allows {limit}"),
        WireFault::LongMessage { len, limit } => format!("a message of {len} bytes; protobuf allows {limit}"),
        WireFault::Depth { limit } => format!("groups nested deeper than {limit}"),
        WireFault::StrayEndGroup => "the end of a group that did not begin".to_owned(),
    }
}

fn text(fault: &TextFault) -> String {
    match fault {
        TextFault::Expected { wanted, found } => {
            format!("expected {}, found \"{}\"", text_item(*wanted), found.escape_ascii())
        }
        TextFault::Bool(number) => format!("expected a bool, found {}", number.escape_ascii()),
        TextFault::Unsigned(number) => format!("{} does not fit an unsigned 64-bit field", number.escape_ascii()),
        TextFault::Depth { limit } => format!("messages are nested more than {limit} deep"),
        TextFault::OpenString => "a string is not closed on its line".to_owned(),
        TextFault::Escape(sequence) => format!("\"{}\" is not an escape sequence", sequence.escape_ascii()),
    }
}

fn text_item(item: TextItem) -> &'static str {
    match item {
        TextItem::FieldName => "a field name",
        TextItem::FieldNameOrEnd { angle: false } => "a field name or '}'",
        TextItem::FieldNameOrEnd { angle: true } => "a field name or '>'",
        TextItem::ExtensionName => "the name of an extension",
        TextItem::Message => "'{'",
        TextItem::EndOfMessage => "the end of the previous message",
        TextItem::Value => "a value",
        TextItem::Integer => "an integer",
        TextItem::Bool => "a bool",
        TextItem::String => "a string",
        TextItem::Colon => "':'",
        TextItem::ColonOrMessage => "':' or '{'",
        TextItem::CommaOrEnd => "',' or ']'",
    }
}

fn json(fault: &JsonFault) -> String {
    match fault {
        JsonFault::NoObject(byte) if byte.is_ascii_graphic() => {
            format!("expected an object, found `{}`", char::from(*byte))
        }
        JsonFault::NoObject(byte) => format!("expected an object, found byte 0x{byte:02x}"),
        JsonFault::OtherObject => "an object with none of a tap trace's fields".to_owned(),
        JsonFault::Base64 => "invalid base64".to_owned(),
        JsonFault::Parser(message) => message.clone(),
    }
}

/// The parser's messages end with these words, after "expected".
impl Expected for JsonType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Object(message) => return write!(f, "an object ({message})"),
            Self::Events => "a list of events",
            Self::HeaderFields => "a list of header fields",
            Self::FieldName => "a field name",
            Self::String => "a string",
            Self::Bool => "true or false",
            Self::Unsigned => "a whole number that is not negative",
            Self::Integer => "a whole number",
            Self::Time => "a time",
            Self::Base64 => "a base64 string",
        })
    }
}

impl fmt::Display for TimeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfRange(seconds) => write!(f, "a time of {seconds} seconds since 1970 does not fit a capture"),
            Self::BadNanos(nanos) => write!(f, "a time with {nanos} nanoseconds, which must be 0 to 999999999"),
            Self::Unreadable => f.write_str("a time that is not in RFC 3339 format"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_of_the_wire_format_has_its_numbers() {
        let limit = (1 << 31) - 1;
        for (fault, words) in [
            (WireFault::EndInField, "the message ends inside a field"),
            (WireFault::LongVarint, "a number of more than ten bytes"),
            (WireFault::FieldNumber, "a field number that protobuf does not allow"),
            (WireFault::WireType(7), "wire type 7 does not exist"),
            (WireFault::Overlong { len: 9, available: 8 }, "a field of 9 bytes where 8 are left"),
            (WireFault::LongField { len: 1 << 31, limit }, "a field of 2147483648 bytes; protobuf allows 2147483647"),
            (
                WireFault::LongMessage { len: 1 << 31, limit },
                "a message of 2147483648 bytes; protobuf allows 2147483647",
            ),
            (WireFault::Depth { limit: 100 }, "groups nested deeper than 100"),
            (WireFault::StrayEndGroup, "the end of a group that did not begin"),
        ] {
            assert_eq!(undecodable(&fault.into()), words);
        }
    }

    #[test]
    fn a_source_that_ends_too_early_says_where() {
        let place = CutIn::Message { missing: 7 };
        assert_eq!(cut_off(place), "cut off: 7 more bytes of the message should follow");
        assert_eq!(cut_off(CutIn::Length), "cut off in the length of a message");
        assert_eq!(cut_off(CutIn::Field), "cut off in the middle of a field");
        assert_eq!(cut_off(CutIn::Text), "the text ends inside a message");
        assert_eq!(cut_off(CutIn::Object), "the source ends inside a JSON object");
    }

    #[test]
    fn a_quotation_from_the_trace_is_escaped() {
        let quoted: &[u8] = b"\"\x1b\xff";
        let expected = TextFault::Expected { wanted: TextItem::Value, found: quoted.into() };
        assert_eq!(undecodable(&expected.into()), r#"expected a value, found "\"\x1b\xff""#);
        let escape = TextFault::Escape(b"\\\x1b".as_slice().into());
        assert_eq!(undecodable(&escape.into()), r#""\\\x1b" is not an escape sequence"#);
        assert_eq!(undecodable(&JsonFault::NoObject(b'`').into()), "expected an object, found ```");
        assert_eq!(undecodable(&JsonFault::NoObject(0x1b).into()), "expected an object, found byte 0x1b");
    }

    #[test]
    fn the_parser_is_told_what_json_must_hold() {
        let words = |json: JsonType| (&json as &dyn Expected).to_string();
        assert_eq!(words(JsonType::Object("Read")), "an object (Read)");
        assert_eq!(words(JsonType::Unsigned), "a whole number that is not negative");
    }
}
