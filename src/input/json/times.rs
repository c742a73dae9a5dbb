//! Times in JSON: in RFC 3339 format as protobuf writes them, and the numbers that others make of them.

use std::str::FromStr;

use prost_types::Timestamp;

use crate::input::{line::leading_digits, schema::Time};

/// Reads RFC 3339 times. prost_types computes the calendar. The last minute is cached, because the times of a trace are
/// close together.
#[derive(Debug, Default)]
pub(super) struct Times {
    /// `YYYY-MM-DDTHH:MM`, which is compared as one number.
    minute: Option<[u8; 16]>,
    /// Seconds since 1970 where `minute` begins.
    begins: i64,
}

impl Times {
    #[inline]
    pub(super) fn read(&mut self, text: &str) -> Time {
        let (seconds, nanos) = match self.read_utc(text.as_bytes()) {
            Some((seconds, nanos, [])) => (seconds, nanos),
            _ => match Timestamp::from_str(text) {
                Ok(time) => (time.seconds, i64::from(time.nanos)),
                Err(_) => return decimal(text).unwrap_or(Time::UNREADABLE),
            },
        };
        Time::new(seconds, nanos)
    }

    /// Seconds and nanoseconds of `YYYY-MM-DDTHH:MM:SSZ`, with or without a fraction, and the text after it. `None` for
    /// any other form.
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

/// A time as a number since 1970. Its size tells the unit: as seconds, what are milliseconds since 1973 would be after
/// the year 5138. A double has no digits beyond microseconds of such a time.
pub(super) fn since_1970(whole: u64, fraction: f64) -> Time {
    let (per_second, micros) = match whole {
        0..100_000_000_000 => (1, 1_000_000.0),
        100_000_000_000..100_000_000_000_000 => (1_000, 1_000.0),
        100_000_000_000_000..100_000_000_000_000_000 => (1_000_000, 1.0),
        _ => (1_000_000_000, 0.0),
    };
    let nanos = whole % per_second * (1_000_000_000 / per_second) + (fraction * micros).round() as u64 * 1_000;
    // Both fit: at most 2^64 seconds in billionths, and less than two seconds.
    Time::new((whole / per_second + nanos / 1_000_000_000).cast_signed(), (nanos % 1_000_000_000).cast_signed())
}

/// Seconds, milliseconds and so on in a string.
#[cold]
fn decimal(text: &str) -> Option<Time> {
    let (whole, digits) = text.split_once('.').unwrap_or((text, "0"));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(whole) || !is_number(digits) {
        return None;
    }
    let whole = whole.parse().ok()?;
    if whole < 100_000_000_000 {
        // All nine digits of a second.
        let nanos = nanos_of(digits.as_bytes().get(..9).unwrap_or(digits.as_bytes()))?;
        return Some(Time::new(i64::try_from(whole).ok()?, nanos));
    }
    Some(since_1970(whole, format!("0.{digits}").parse().ok()?))
}

/// Two digits of a clock, whose value must be below `limit`.
#[inline]
fn below(limit: i64, tens: u8, ones: u8) -> Option<i64> {
    let (tens, ones) = (tens.wrapping_sub(b'0'), ones.wrapping_sub(b'0'));
    let value = i64::from(tens) * 10 + i64::from(ones);
    (tens < 10 && ones < 10 && value < limit).then_some(value)
}

/// Nanoseconds of a fraction with one to nine digits, and the text after the Z that ends it.
#[inline]
fn fraction(text: &[u8]) -> Option<(i64, &[u8])> {
    const SCALE: [i64; 8] = [0, 100_000_000, 10_000_000, 1_000_000, 100_000, 10_000, 1_000, 100];
    if let Some(eight) = text.first_chunk()
        && let (number, len @ 1..8) = leading_digits(u64::from_le_bytes(*eight))
    {
        // Up to seven digits. Envoy writes six.
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
