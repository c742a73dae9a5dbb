//! Valid messages that no printer writes, for the tests of the decoders: fields in any order and more than once,
//! several members of a oneof, submessages in pieces.

use proptest::{collection::vec, prelude::*};
use prost::encoding::encode_varint;
use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};

use crate::{proto::DESCRIPTORS, trace::TraceKind};

/// A field and its value.
#[derive(Clone, Debug)]
pub(super) struct ScrambledField {
    descriptor: FieldDescriptor,
    value: ScrambledValue,
}

#[derive(Clone, Debug)]
enum ScrambledValue {
    Number(i64),
    Bytes(Vec<u8>),
    Message(Vec<ScrambledField>),
}

/// Fields of `TraceWrapper`, all of them members of its oneof, of one kind or of several.
pub(super) fn wrapper(kinds: impl Strategy<Value = Vec<TraceKind>>) -> impl Strategy<Value = Vec<ScrambledField>> {
    (kinds, vec(any::<u8>(), 0..400)).prop_map(|(kinds, bytes)| {
        let wrapper = DESCRIPTORS.get_message_by_name("envoy.data.tap.v3.TraceWrapper").unwrap();
        let mut choices = bytes.into_iter();
        let field = |kind: TraceKind| {
            let descriptor = wrapper.get_field_by_name(kind.field_name()).unwrap();
            field(descriptor, &mut choices)
        };
        kinds.into_iter().map(field).collect()
    })
}

/// Every random choice takes a byte. When none are left, the message ends.
fn message(descriptor: &MessageDescriptor, choices: &mut impl Iterator<Item = u8>) -> Vec<ScrambledField> {
    let all: Vec<_> = descriptor.fields().collect();
    let mut fields = Vec::new();
    while let Some(choice) = choices.next()
        && choice < 200
        && !all.is_empty()
    {
        fields.push(field(all[usize::from(choice) % all.len()].clone(), choices));
    }
    fields
}

fn field(descriptor: FieldDescriptor, choices: &mut impl Iterator<Item = u8>) -> ScrambledField {
    let value = match descriptor.kind() {
        Kind::Message(of) => ScrambledValue::Message(message(&of, choices)),
        Kind::String => ScrambledValue::Bytes(vec![b'a' + choices.next().unwrap_or(0) % 26; 3]),
        Kind::Bytes => ScrambledValue::Bytes(choices.by_ref().take(3).collect()),
        Kind::Bool => ScrambledValue::Number(i64::from(choices.next().unwrap_or(0) & 1)),
        Kind::Enum(_) => ScrambledValue::Number(0),
        Kind::Uint32 => ScrambledValue::Number(i64::from(choices.next().unwrap_or(0))),
        _ => ScrambledValue::Number(i64::from(choices.next().unwrap_or(0)) - 3),
    };
    ScrambledField { descriptor, value }
}

pub(super) fn encode(fields: &[ScrambledField], out: &mut Vec<u8>) {
    for ScrambledField { descriptor, value } in fields {
        let tag = |wire_type: u32| u64::from(descriptor.number() << 3 | wire_type);
        match value {
            ScrambledValue::Number(number) => {
                encode_varint(tag(0), out);
                encode_varint(number.cast_unsigned(), out);
            }
            ScrambledValue::Bytes(bytes) => {
                encode_varint(tag(2), out);
                encode_varint(bytes.len() as u64, out);
                out.extend(bytes);
            }
            ScrambledValue::Message(fields) => {
                let mut inner = Vec::new();
                encode(fields, &mut inner);
                encode_varint(tag(2), out);
                encode_varint(inner.len() as u64, out);
                out.extend(inner);
            }
        }
    }
}

pub(super) fn print(fields: &[ScrambledField], out: &mut String) {
    for ScrambledField { descriptor, value } in fields {
        out.push_str(descriptor.name());
        match (value, descriptor.kind()) {
            (ScrambledValue::Number(number), Kind::Bool) => {
                out.push_str(if *number == 1 { ": true\n" } else { ": false\n" })
            }
            // The wire format reads a negative number as a large one.
            (ScrambledValue::Number(number), Kind::Uint64) => out.push_str(&format!(": {}\n", number.cast_unsigned())),
            (ScrambledValue::Number(number), _) => out.push_str(&format!(": {number}\n")),
            (ScrambledValue::Bytes(bytes), _) => {
                out.push_str(": \"");
                bytes.iter().for_each(|byte| out.push_str(&format!("\\{byte:03o}")));
                out.push_str("\"\n");
            }
            (ScrambledValue::Message(fields), _) => {
                out.push_str(" { ");
                print(fields, out);
                out.push_str(" }\n");
            }
        }
    }
}
