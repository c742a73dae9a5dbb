//! Reads the fields and values of JSON objects from serde_json, by the proto3 JSON mapping.
//!
//! If a name comes twice in one object, in either spelling, only the last value counts, as for nearly every reader of
//! JSON. Of the members of a oneof, the last one that is not null counts, as in protobuf's other encodings. Protobuf's
//! own JSON parsers refuse both, and so would lose the message.

use std::{borrow::Cow, fmt, marker::PhantomData};

use base64_simd::{STANDARD, forgiving_decode_to_vec};
use serde::de::{
    DeserializeSeed, Deserializer, Error, Expected, IgnoredAny, MapAccess, SeqAccess, Unexpected, Visitor,
};

use super::times::{self, Times};
use crate::{
    input::schema::{Cursor, Element, MessageEnd, SchemaFields, SchemaRecord, Time, Type},
    trace::{Body, JsonType, Message, Span, UnknownFields},
};

/// The state that the nested objects of one message share.
pub(super) struct Context<'a> {
    /// Where an error is, if this is known more exactly than serde_json tells.
    pub(super) fault_at: Option<usize>,
    /// The error is that a value is not base64.
    pub(super) bad_base64: bool,
    /// [`Message::unknown`] before the first unknown field of this object.
    pub(super) unknown_before: Option<UnknownFields>,
    /// Bodies whose bytes were read.
    pub(super) payloads: usize,
    times: &'a mut Times,
    text: &'a [u8],
    cut_payload: Option<usize>,
}

impl<'a> Context<'a> {
    /// `cut_payload` is the index of a body whose base64 may end anywhere.
    pub(super) fn new(text: &'a [u8], times: &'a mut Times, cut_payload: Option<usize>) -> Self {
        Self { fault_at: None, bad_base64: false, unknown_before: None, payloads: 0, times, text, cut_payload }
    }

    #[cold]
    fn count_unknown(&mut self, message: &'static str, name: &str, out: &mut Message) {
        if self.unknown_before.is_none() {
            self.unknown_before = Some(out.unknown.clone());
        }
        out.unknown.count_name(message, name);
    }

    /// The offset of `part` in the text; `None` if it is a copy, such as that of a string with escapes.
    fn offset_of(&self, part: &[u8]) -> Option<usize> {
        let offset = part.as_ptr().addr().checked_sub(self.text.as_ptr().addr())?;
        (offset < self.text.len()).then_some(offset)
    }
}

/// Fills a record from an object; null leaves it alone.
pub(super) struct Fill<'r, 'c, 'a, R> {
    pub(super) record: &'r mut R,
    pub(super) context: &'c mut Context<'a>,
    pub(super) out: &'r mut Message,
}

impl<'de, R: SchemaRecord> DeserializeSeed<'de> for Fill<'_, '_, '_, R> {
    type Value = ();

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, R: SchemaRecord> Visitor<'de> for Fill<'_, '_, '_, R> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        JsonType::Object(R::Fields::MESSAGE).fmt(f)
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    #[inline]
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { record, context, out } = self;
        record.begin(true, out);
        let outcome = read_fields(record.fields(), &mut map, context, out);
        record.end(if outcome.is_ok() { MessageEnd::WHOLE } else { MessageEnd::DAMAGED }, out);
        outcome
    }
}

#[inline]
fn read_fields<'de, F: SchemaFields, A: MapAccess<'de>>(
    fields: &mut F,
    map: &mut A,
    context: &mut Context<'_>,
    out: &mut Message,
) -> Result<(), A::Error> {
    while let Some(name) = map.next_key_seed(FieldName)? {
        let mut value = FieldValue { map, context, data: PhantomData };
        if let Some(number) = F::named(name.as_bytes(), true) {
            fields.field(number, &mut value, out)?;
        } else {
            // The type in a `google.protobuf.Any` is no field.
            if name != "@type" {
                value.context.count_unknown(F::MESSAGE, &name, out);
            }
            value.map.next_value::<IgnoredAny>()?;
        }
    }
    Ok(())
}

/// A field's name.
struct FieldName;

impl<'de> DeserializeSeed<'de> for FieldName {
    type Value = Cow<'de, str>;

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for FieldName {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        JsonType::FieldName.fmt(f)
    }

    #[inline]
    fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(name))
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(name.to_owned()))
    }
}

/// A list of messages; null is an empty one.
struct List<'c, 'a, 'm, E: Element> {
    to: E::To,
    context: &'c mut Context<'a>,
    out: &'m mut Message,
}

impl<'de, E: Element> DeserializeSeed<'de> for List<'_, '_, '_, E> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, T: Element> Visitor<'de> for List<'_, '_, '_, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        T::LIST.fmt(f)
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Self { to, context, out } = self;
        loop {
            let mut element = T::default();
            if seq.next_element_seed(Fill { record: &mut element, context, out })?.is_none() {
                return Ok(());
            }
            element.done(MessageEnd::WHOLE, to, out);
        }
    }
}

/// The value of a field.
struct FieldValue<'v, 'a, 'de, A> {
    map: &'v mut A,
    context: &'v mut Context<'a>,
    data: PhantomData<&'de ()>,
}

impl<'de, A: MapAccess<'de>> FieldValue<'_, '_, 'de, A> {
    #[inline]
    fn scalar<T>(
        &mut self,
        expected: &'static JsonType,
        read: impl FnOnce(Scalar<'_>, &mut Context<'_>) -> Result<T, Wrong>,
    ) -> Result<T, A::Error> {
        let context = &mut *self.context;
        self.map.next_value_seed(Seed { expected, read: |scalar: Scalar<'_>| read(scalar, context) })
    }

    /// A `string`, copied into the scratch space. `None` stands for null.
    #[inline]
    fn string(&mut self, out: &mut Message) -> Result<Option<Span>, A::Error> {
        self.scalar(&JsonType::String, |scalar, _| match scalar {
            Scalar::Null => Ok(None),
            Scalar::Text(text) => {
                let scratch = out.scratch();
                let start = scratch.len();
                scratch.extend_from_slice(text.as_bytes());
                Ok(Some(out.scratch_span(start)))
            }
            _ => Err(Wrong::Type),
        })
    }
}

impl<'de, A: MapAccess<'de>> Cursor for FieldValue<'_, '_, 'de, A> {
    type Stop = A::Error;

    const REPLACES: bool = true;

    #[inline]
    fn uint64(&mut self) -> Result<u64, A::Error> {
        self.scalar(&JsonType::Unsigned, |scalar, _| scalar.whole(false).map(Option::unwrap_or_default))
    }

    /// Only a `Timestamp` has such fields. Protobuf's own JSON writes that as a string, others as an object.
    fn int64(&mut self) -> Result<i64, A::Error> {
        self.scalar(&JsonType::Integer, |scalar, _| match scalar {
            Scalar::Null => Ok(0),
            Scalar::Signed(number) => Ok(number),
            Scalar::Text(text) if text.starts_with('-') => text.parse().map_err(|_| Wrong::Value),
            other => other.whole(true).map(|number| i64::try_from(number.unwrap_or_default()).unwrap_or(i64::MAX)),
        })
    }

    #[inline]
    fn boolean(&mut self) -> Result<bool, A::Error> {
        self.scalar(&JsonType::Bool, |scalar, _| match scalar {
            Scalar::Null => Ok(false),
            Scalar::Bool(flag) => Ok(flag),
            _ => Err(Wrong::Type),
        })
    }

    fn port(&mut self) -> Result<Option<u32>, A::Error> {
        let port = self.scalar(&JsonType::Unsigned, |scalar, _| scalar.whole(true))?;
        Ok(port.map(|port| u32::try_from(port).unwrap_or(u32::MAX)))
    }

    fn text(&mut self, _out: &mut Message) -> Result<String, A::Error> {
        self.scalar(&JsonType::String, |scalar, _| match scalar {
            Scalar::Null => Ok(String::new()),
            Scalar::Text(text) => Ok(text.to_owned()),
            _ => Err(Wrong::Type),
        })
    }

    fn span(&mut self, ty: Type, span: &mut Span, out: &mut Message) -> Result<(), A::Error> {
        let value = match ty {
            Type::Bytes => self.map.next_value_seed(Base64 { is_cut: false, context: self.context, out })?,
            _ => self.string(out)?,
        };
        *span = value.unwrap_or_default();
        Ok(())
    }

    #[inline]
    fn payload(&mut self, ty: Type, body: &mut Body, out: &mut Message) -> Result<(), A::Error> {
        let is_cut = self.context.cut_payload == Some(self.context.payloads);
        let payload = match ty {
            Type::Bytes => self.map.next_value_seed(Base64 { is_cut, context: self.context, out })?,
            _ => self.string(out)?,
        };
        if let Some(payload) = payload {
            body.payload = payload;
            body.as_string = ty == Type::String;
            body.truncated |= is_cut;
            self.context.payloads += 1;
        }
        Ok(())
    }

    fn ignore(&mut self, _ty: Type) -> Result<bool, A::Error> {
        Ok(self.map.next_value::<Option<IgnoredAny>>()?.is_some())
    }

    #[inline]
    fn message<R: SchemaRecord>(&mut self, record: &mut R, out: &mut Message) -> Result<(), A::Error> {
        self.map.next_value_seed(Fill { record, context: self.context, out })
    }

    fn each<E: Element>(&mut self, to: E::To, out: &mut Message) -> Result<(), A::Error> {
        self.map.next_value_seed(List::<E> { to, context: self.context, out })
    }

    #[inline]
    fn time(&mut self, time: &mut Option<Time>, out: &mut Message) -> Result<(), A::Error> {
        *time = self.map.next_value_seed(TimeSeed { context: self.context, out })?;
        Ok(())
    }
}

/// Reads a time: a string, a number since 1970, or the fields of `google.protobuf.Timestamp`. `None` stands for null.
struct TimeSeed<'c, 'a, 'm> {
    context: &'c mut Context<'a>,
    out: &'m mut Message,
}

impl<'de> DeserializeSeed<'de> for TimeSeed<'_, '_, '_> {
    type Value = Option<Time>;

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for TimeSeed<'_, '_, '_> {
    type Value = Option<Time>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        JsonType::Time.fmt(f)
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    #[inline]
    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Some(self.context.times.read(text)))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
        Ok(Some(times::since_1970(number, 0.0)))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
        Ok(Some(Time::new(number, 0)))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Self::Value, E> {
        // A capture holds neither times before 1970 nor numbers beyond 2^64.
        Ok(Some(match number.trunc() {
            whole if (0.0..1.8e19).contains(&whole) => times::since_1970(whole as u64, number - whole),
            whole => Time::new(whole as i64, 0),
        }))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut time = Time::default();
        read_fields(&mut time, &mut map, self.context, self.out)?;
        Ok(Some(time))
    }
}

/// A value that is neither an object nor a list.
#[derive(Clone, Copy)]
enum Scalar<'s> {
    Null,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text(&'s str),
}

/// Why a scalar is not what it should be.
enum Wrong {
    Type,
    Value,
}

impl Scalar<'_> {
    /// An unsigned number, written as a number or as a string; `None` stands for null. With `saturate`, a number that
    /// is too large becomes the largest one.
    #[inline]
    fn whole(self, saturate: bool) -> Result<Option<u64>, Wrong> {
        // 2^64: a double cannot hold the largest u64 itself.
        const LIMIT: f64 = 18_446_744_073_709_551_616.0;
        let float = match self {
            Self::Null => return Ok(None),
            Self::Unsigned(number) => return Ok(Some(number)),
            Self::Text(text) => match text.parse() {
                Ok(number) => return Ok(Some(number)),
                Err(_) => text.parse().map_err(|_| Wrong::Value)?,
            },
            Self::Float(number) => number,
            Self::Bool(_) | Self::Signed(_) => return Err(Wrong::Type),
        };
        // JSON may write a whole number with a fraction or an exponent.
        let is_whole = float >= 0.0 && float.fract() == 0.0 && (float < LIMIT || saturate);
        if is_whole { Ok(Some(float as u64)) } else { Err(Wrong::Value) }
    }

    fn unexpected(&self) -> Unexpected<'_> {
        match *self {
            Self::Null => Unexpected::Unit,
            Self::Bool(flag) => Unexpected::Bool(flag),
            Self::Unsigned(number) => Unexpected::Unsigned(number),
            Self::Signed(number) => Unexpected::Signed(number),
            Self::Float(number) => Unexpected::Float(number),
            Self::Text(text) => Unexpected::Str(text),
        }
    }
}

/// Reads a scalar.
struct Seed<F> {
    expected: &'static JsonType,
    read: F,
}

impl<T, F: FnOnce(Scalar<'_>) -> Result<T, Wrong>> Seed<F> {
    #[inline]
    fn take<E: Error>(self, scalar: Scalar<'_>) -> Result<T, E> {
        (self.read)(scalar).map_err(|wrong| match wrong {
            Wrong::Type => E::invalid_type(scalar.unexpected(), self.expected),
            Wrong::Value => E::invalid_value(scalar.unexpected(), self.expected),
        })
    }
}

impl<'de, T, F: FnOnce(Scalar<'_>) -> Result<T, Wrong>> DeserializeSeed<'de> for Seed<F> {
    type Value = T;

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<T, F: FnOnce(Scalar<'_>) -> Result<T, Wrong>> Visitor<'_> for Seed<F> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.expected.fmt(f)
    }

    fn visit_unit<E: Error>(self) -> Result<T, E> {
        self.take(Scalar::Null)
    }

    #[inline]
    fn visit_bool<E: Error>(self, flag: bool) -> Result<T, E> {
        self.take(Scalar::Bool(flag))
    }

    #[inline]
    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        self.take(Scalar::Unsigned(number))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        self.take(Scalar::Signed(number))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<T, E> {
        self.take(Scalar::Float(number))
    }

    #[inline]
    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        self.take(Scalar::Text(text))
    }
}

/// Decodes `bytes` from base64 into the message's scratch space. `None` stands for null.
struct Base64<'c, 'a, 'm> {
    /// It may end anywhere.
    is_cut: bool,
    context: &'c mut Context<'a>,
    out: &'m mut Message,
}

impl<'de> DeserializeSeed<'de> for Base64<'_, '_, '_> {
    type Value = Option<Span>;

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for Base64<'_, '_, '_> {
    type Value = Option<Span>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        JsonType::Base64.fmt(f)
    }

    fn visit_none<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    /// Reads bytes, so that serde_json only looks for the end of the string, and the base64 decoder checks it.
    #[inline]
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_bytes(self)
    }

    #[inline]
    fn visit_bytes<E: Error>(self, base64: &[u8]) -> Result<Self::Value, E> {
        let Self { is_cut, context, out } = self;
        let base64 = if is_cut { &base64[..base64.len() - base64.len() % 4] } else { base64 };
        let scratch = out.scratch();
        let start = scratch.len();
        // By itself, the base64 decoder grows the space by exactly what it needs, and so would copy all of it for every
        // event.
        scratch.reserve(STANDARD.estimated_decoded_length(base64.len()));
        if STANDARD.decode_append(base64, scratch).is_err() {
            match decode_leniently(base64) {
                Ok(bytes) => scratch.extend_from_slice(&bytes),
                Err(bad) => {
                    context.fault_at = context.offset_of(base64).map(|offset| offset + bad);
                    // Nobody reads the message of this error.
                    context.bad_base64 = true;
                    return Err(E::custom(""));
                }
            }
        }
        Ok(Some(out.scratch_span(start)))
    }
}

/// Decodes base64 of either alphabet, padded or not, or says which byte is wrong.
fn decode_leniently(base64: &[u8]) -> Result<Vec<u8>, usize> {
    let padding = base64.iter().rev().take(2).take_while(|byte| **byte == b'=').count();
    let mut digits = base64[..base64.len() - padding].to_vec();
    for (at, digit) in digits.iter_mut().enumerate() {
        match digit {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'+' | b'/' => {}
            b'-' => *digit = b'+',
            b'_' => *digit = b'/',
            _ => return Err(at),
        }
    }
    forgiving_decode_to_vec(&digits).map_err(|_| digits.len())
}
