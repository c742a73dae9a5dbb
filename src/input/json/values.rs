//! The scalars of the proto3 JSON mapping. JSON's null is the default value everywhere.

use std::{borrow::Cow, fmt, str::FromStr};

use base64_simd::{STANDARD, forgiving_decode_to_vec};
use prost_types::Timestamp;
use serde::de::{DeserializeSeed, Deserializer, Error, Unexpected, Visitor};

use crate::{
    input::line::leading_digits,
    trace::{Message, Nanos, Span, TimeError, UnknownFields, nanos_from_timestamp},
};

/// What the visitors of one object share.
pub(super) struct Context<'a> {
    pub(super) out: &'a mut Message,
    /// Where an error is, if known better than by serde_json.
    pub(super) fault_at: Option<usize>,
    /// `out.unknown` before the first unknown field of this object.
    pub(super) unknown_before: Option<UnknownFields>,
    times: &'a mut Times,
    text: &'a [u8],
    cut_body: Option<usize>,
}

impl<'a> Context<'a> {
    /// `cut_body` says that the body behind so many events and parts may end anywhere.
    pub(super) fn new(text: &'a [u8], out: &'a mut Message, times: &'a mut Times, cut_body: Option<usize>) -> Self {
        Self { out, fault_at: None, unknown_before: None, times, text, cut_body }
    }

    pub(super) fn count_unknown(&mut self, message: &'static str, name: &str) {
        if self.unknown_before.is_none() {
            self.unknown_before = Some(self.out.unknown.clone());
        }
        self.out.unknown.count_name(message, name);
    }

    /// The offset of a part of the text; None where it is a copy, as of a string with escapes.
    fn offset_of(&self, part: &[u8]) -> Option<usize> {
        let offset = part.as_ptr().addr().checked_sub(self.text.as_ptr().addr())?;
        (offset < self.text.len()).then_some(offset)
    }
}

/// A field's name.
pub(super) struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Cow<'de, str>;

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field name")
    }

    #[inline]
    fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(name))
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(name.to_owned()))
    }
}

/// Lets JSON's own types decide which `visit_` method of a seed is called.
macro_rules! deserialize_any {
    ($seed:ty => $value:ty) => {
        impl<'de> DeserializeSeed<'de> for $seed {
            type Value = $value;

            #[inline]
            fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<$value, D::Error> {
                deserializer.deserialize_any(self)
            }
        }
    };
}

/// `bool`.
pub(super) struct Flag;

deserialize_any!(Flag => bool);

impl Visitor<'_> for Flag {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("true or false")
    }

    #[inline]
    fn visit_bool<E>(self, flag: bool) -> Result<bool, E> {
        Ok(flag)
    }

    fn visit_unit<E>(self) -> Result<bool, E> {
        Ok(false)
    }
}

/// An unsigned number, as JSON's number or in a string. None stands for null.
pub(super) struct Number {
    /// Whether a number that is too large becomes the largest.
    pub(super) saturate: bool,
}

deserialize_any!(Number => Option<u64>);

impl Number {
    /// JSON may write a whole number with a fraction or an exponent.
    fn whole(&self, number: f64) -> Option<u64> {
        // 2^64: a double cannot hold the largest u64 itself.
        const LIMIT: f64 = 18_446_744_073_709_551_616.0;
        if number >= 0.0 && number.fract() == 0.0 && (number < LIMIT || self.saturate) {
            Some(number as u64)
        } else {
            None
        }
    }
}

impl Visitor<'_> for Number {
    type Value = Option<u64>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number that is not negative")
    }

    #[inline]
    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(Some(number))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Self::Value, E> {
        let whole = self.whole(number);
        whole.map(Some).ok_or_else(|| E::invalid_value(Unexpected::Float(number), &self))
    }

    #[inline]
    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        if let Ok(number) = text.parse() {
            return Ok(Some(number));
        }
        let whole = text.parse().ok().and_then(|number| self.whole(number));
        whole.map(Some).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}

/// `string`. None stands for null.
pub(super) struct Text;

deserialize_any!(Text => Option<String>);

impl Visitor<'_> for Text {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Some(text.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}

/// `string`, into the message's scratch space. None stands for null.
pub(super) struct TextPayload<'c, 'a>(pub(super) &'c mut Context<'a>);

deserialize_any!(TextPayload<'_, '_> => Option<Span>);

impl Visitor<'_> for TextPayload<'_, '_> {
    type Value = Option<Span>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    #[inline]
    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        let scratch = self.0.out.scratch();
        let start = scratch.len();
        scratch.extend_from_slice(text.as_bytes());
        Ok(Some(self.0.out.scratch_span(start)))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}

/// `bytes`: base64, into the message's scratch space. None stands for null.
pub(super) struct Payload<'c, 'a>(pub(super) &'c mut Context<'a>);

impl<'de> DeserializeSeed<'de> for Payload<'_, '_> {
    type Value = Option<Span>;

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for Payload<'_, '_> {
    type Value = Option<Span>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a base64 string")
    }

    fn visit_none<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    /// As bytes, so that serde_json looks for the end of the string only and leaves its check to the base64 decoder.
    #[inline]
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_bytes(self)
    }

    #[inline]
    fn visit_bytes<E: Error>(self, base64: &[u8]) -> Result<Self::Value, E> {
        let Self(context) = self;
        let in_cut_body = context.cut_body == Some(context.out.events.len() + context.out.http.len());
        let base64 = if in_cut_body { &base64[..base64.len() - base64.len() % 4] } else { base64 };
        let scratch = context.out.scratch();
        let start = scratch.len();
        // The decoder grows the space by exactly what it needs, which would copy all of it for every event.
        scratch.reserve(STANDARD.estimated_decoded_length(base64.len()));
        if STANDARD.decode_append(base64, scratch).is_err() {
            match decode_leniently(base64) {
                Ok(bytes) => scratch.extend_from_slice(&bytes),
                Err(bad) => {
                    context.fault_at = context.offset_of(base64).map(|offset| offset + bad);
                    return Err(E::custom("invalid base64"));
                }
            }
        }
        Ok(Some(context.out.scratch_span(start)))
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

/// `google.protobuf.Timestamp`. None stands for null.
pub(super) struct Time<'c, 'a>(pub(super) &'c mut Context<'a>);

deserialize_any!(Time<'_, '_> => Option<Result<Nanos, TimeError>>);

impl Visitor<'_> for Time<'_, '_> {
    type Value = Option<Result<Nanos, TimeError>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a time")
    }

    #[inline]
    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Some(self.0.times.read(text)))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}

/// Reads RFC 3339 times. The calendar is prost_types' business; a minute that was seen in the last time is not computed
/// again, since the times of a trace lie close together.
#[derive(Debug, Default)]
pub(super) struct Times {
    /// `YYYY-MM-DDTHH:MM`, which is compared as one number.
    minute: Option<[u8; 16]>,
    /// Seconds since 1970 where `minute` begins.
    begins: i64,
}

impl Times {
    #[inline]
    pub(super) fn read(&mut self, text: &str) -> Result<Nanos, TimeError> {
        let (seconds, nanos) = match self.read_utc(text.as_bytes()) {
            Some((seconds, nanos, [])) => (seconds, nanos),
            _ => {
                let time = Timestamp::from_str(text).map_err(|_| TimeError::Unreadable)?;
                (time.seconds, i64::from(time.nanos))
            }
        };
        nanos_from_timestamp(seconds, nanos)
    }

    /// Seconds and nanoseconds of `YYYY-MM-DDTHH:MM:SSZ`, with or without a fraction, and what stands behind. None for
    /// anything else.
    #[inline]
    pub(super) fn read_utc<'a>(&mut self, text: &'a [u8]) -> Option<(i64, i64, &'a [u8])> {
        let (minute, rest) = text.split_first_chunk::<16>()?;
        let ([b':', s1, s2, mark], rest) = rest.split_first_chunk::<4>()? else { return None };
        let second = below(60, *s1, *s2)?;
        let (nanos, rest) = match mark {
            b'Z' => (0, rest),
            b'.' => fraction(rest)?,
            _ => return None,
        };
        if self.minute.map(u128::from_ne_bytes) != Some(u128::from_ne_bytes(*minute)) {
            self.begins = begin_of(minute)?;
            self.minute = Some(*minute);
        }
        Some((self.begins + second, nanos, rest))
    }
}

/// Two digits of a clock.
#[inline]
fn below(limit: i64, tens: u8, ones: u8) -> Option<i64> {
    let (tens, ones) = (tens.wrapping_sub(b'0'), ones.wrapping_sub(b'0'));
    let value = i64::from(tens) * 10 + i64::from(ones);
    (tens < 10 && ones < 10 && value < limit).then_some(value)
}

/// Nanoseconds of a fraction's one to nine digits, and what stands behind the Z that ends it.
#[inline]
fn fraction(text: &[u8]) -> Option<(i64, &[u8])> {
    const SCALE: [i64; 8] = [0, 100_000_000, 10_000_000, 1_000_000, 100_000, 10_000, 1_000, 100];
    if let Some(eight) = text.first_chunk()
        && let (number, len @ 1..8) = leading_digits(u64::from_le_bytes(*eight))
    {
        // Envoy's six digits.
        return (text[len] == b'Z').then(|| (number.cast_signed() * SCALE[len], &text[len + 1..]));
    }
    let len = text.iter().take(10).position(|byte| *byte == b'Z')?;
    Some((nanos_of(&text[..len])?, &text[len + 1..]))
}

/// Nanoseconds of one to nine digits.
fn nanos_of(digits: &[u8]) -> Option<i64> {
    if digits.is_empty() {
        return None;
    }
    let mut nanos = 0;
    for at in 0..9 {
        let digit = digits.get(at).map_or(0, |digit| digit.wrapping_sub(b'0'));
        if digit > 9 {
            return None;
        }
        nanos = nanos * 10 + i64::from(digit);
    }
    Some(nanos)
}

/// Seconds since 1970 where a minute begins.
#[cold]
fn begin_of(minute: &[u8; 16]) -> Option<i64> {
    let (date, clock) = minute.split_first_chunk::<10>()?;
    let [b'T', h1, h2, b':', m1, m2] = *clock else { return None };
    let (hour, minute) = (below(24, h1, h2)?, below(60, m1, m2)?);
    let date = std::str::from_utf8(date).ok()?;
    let midnight = Timestamp::from_str(&format!("{date}T00:00:00Z")).ok()?.seconds;
    Some(midnight + hour * 3600 + minute * 60)
}
