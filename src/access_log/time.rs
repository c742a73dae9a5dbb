//! Times as logs write them.

use chrono::format::{Parsed, StrftimeItems, parse};
use regex::Regex;

use crate::trace::{Nanos, nanos_from_timestamp};

const SECOND: Nanos = 1_000_000_000;

/// A time, and how exact it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Time {
    pub(super) nanos: Nanos,
    /// What its last digit stands for.
    pub(super) precision: Nanos,
}

/// How `%START_TIME%` is written.
#[derive(Clone, Debug)]
pub(super) enum TimeFormat {
    /// RFC 3339, or a number since 1970.
    Usual,
    /// Seconds since 1970, with or without digits of a fraction, and other text: the groups `s` and `f`.
    Seconds(Regex),
    /// With chrono's specifiers, and how exact it is.
    Calendar(String, Nanos),
}

impl TimeFormat {
    /// The format in the parentheses of `%START_TIME(…)%`. `None` if times in it cannot be read.
    pub(super) fn new(text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self::Usual);
        }
        let (mut precision, mut calendar, mut regex) = (SECOND, String::new(), "^".to_owned());
        let (mut only_seconds, mut chars) = (true, text.chars());
        let mut has_seconds = false;
        while let Some(char) = chars.next() {
            if char != '%' {
                calendar.push(char);
                regex.push_str(&regex::escape(char.encode_utf8(&mut [0; 4])));
                continue;
            }
            let specifier = chars.next()?;
            match specifier {
                'f' | '1'..='9' => {
                    let digits = if specifier == 'f' { 9 } else { specifier.to_digit(10)? };
                    if specifier != 'f' && chars.next()? != 'f' {
                        return None;
                    }
                    precision = 10u64.pow(9 - digits);
                    // The others are read as seconds alone.
                    only_seconds |= !matches!(digits, 3 | 6 | 9);
                    calendar.push_str(&format!("%{digits}f"));
                    regex.push_str(&format!("(?<f>[0-9]{{{digits}}})"));
                }
                's' => {
                    has_seconds = true;
                    calendar.push_str("%s");
                    regex.push_str("(?<s>[0-9]+)");
                }
                'E' => return None,
                other => {
                    only_seconds = false;
                    calendar.extend(['%', other]);
                }
            }
        }
        regex.push('$');
        if only_seconds {
            // With two of a kind, the expression is none.
            return has_seconds.then(|| Regex::new(&regex).ok().map(Self::Seconds)).flatten();
        }
        let is_known = StrftimeItems::new(&calendar).all(|item| item != chrono::format::Item::Error);
        is_known.then_some(Self::Calendar(calendar, precision))
    }

    /// Reads a time in this format.
    pub(super) fn read(&self, text: &[u8]) -> Option<Time> {
        let text = std::str::from_utf8(text).ok()?;
        match self {
            Self::Usual => usual(text),
            Self::Seconds(regex) => {
                let groups = regex.captures(text)?;
                let fraction = groups.name("f").map_or("", |group| group.as_str());
                seconds(groups.name("s")?.as_str().parse().ok()?, fraction)
            }
            Self::Calendar(format, precision) => {
                let mut parsed = Parsed::new();
                parse(&mut parsed, text, StrftimeItems::new(format)).ok()?;
                // Without an offset, `%START_TIME%` is in UTC.
                let time = match parsed.to_datetime() {
                    Ok(time) => time.naive_utc(),
                    Err(_) => parsed.to_naive_datetime_with_offset(0).ok()?,
                }
                .and_utc();
                let nanos = nanos_from_timestamp(time.timestamp(), i64::from(time.timestamp_subsec_nanos())).ok()?;
                Some(Time { nanos, precision: *precision })
            }
        }
    }
}

/// RFC 3339, or a number since 1970 whose size tells the unit.
pub(super) fn usual(text: &str) -> Option<Time> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !whole.is_empty() && is_number(whole) && is_number(fraction) {
        return since_1970(whole.parse().ok()?, fraction);
    }
    let time: prost_types::Timestamp = text.parse().ok()?;
    let nanos = nanos_from_timestamp(time.seconds, i64::from(time.nanos)).ok()?;
    let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
    Some(Time { nanos, precision: precision(digits) })
}

/// A number since 1970. As seconds, what are milliseconds since 1973 would be after the year 5138.
fn since_1970(whole: u64, fraction: &str) -> Option<Time> {
    let unit = match whole {
        0..100_000_000_000 => return seconds(whole, fraction),
        100_000_000_000..100_000_000_000_000 => 1_000_000,
        100_000_000_000_000..100_000_000_000_000_000 => 1_000,
        _ => 1,
    };
    Some(Time { nanos: whole.checked_mul(unit)?, precision: unit })
}

fn seconds(whole: u64, fraction: &str) -> Option<Time> {
    let digits = &fraction[..fraction.len().min(9)];
    let below: u64 = format!("{digits:0<9}").parse().ok()?;
    Some(Time { nanos: whole.checked_mul(SECOND)?.checked_add(below)?, precision: precision(digits.len()) })
}

/// What the last of so many digits after the point stands for.
fn precision(digits: usize) -> Nanos {
    10u64.pow(9 - digits.min(9) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(format: &str, text: &str) -> Option<(Nanos, Nanos)> {
        TimeFormat::new(format)?.read(text.as_bytes()).map(|time| (time.nanos, time.precision))
    }

    #[test]
    fn times_are_read_with_what_their_last_digit_stands_for() {
        const AT: Nanos = 1_527_590_590_528_000_000;
        for (format, text, precision) in [
            ("", "2018-05-29T10:43:10.528Z", 1_000_000),
            ("", "2018-05-29T12:43:10.528000+02:00", 1_000),
            ("", "1527590590.528", 1_000_000),
            ("", "1527590590528", 1_000_000),
            ("", "1527590590528000", 1_000),
            ("", "1527590590528000000", 1),
            ("%s.%3f", "1527590590.528", 1_000_000),
            ("%s%3f", "1527590590528", 1_000_000),
            ("%s.%6f", "1527590590.528000", 1_000),
            ("%s.%f", "1527590590.528000000", 1),
            ("at %s.%4f!", "at 1527590590.5280!", 100_000),
            ("%Y/%m/%dT%H:%M:%S.%3f%z", "2018/05/29T12:43:10.528+0200", 1_000_000),
            ("%Y-%m-%dT%H:%M:%S.%6fZ", "2018-05-29T10:43:10.528000Z", 1_000),
            ("%d/%b/%Y:%T.%9f", "29/May/2018:10:43:10.528000000", 1),
        ] {
            assert_eq!(read(format, text), Some((AT, precision)), "{format} {text}");
        }
        assert_eq!(read("%d/%b/%Y:%H:%M:%S %z", "29/May/2018:12:43:10 +0200"), Some((AT - 528_000_000, SECOND)));
        assert_eq!(
            read("%Y/%m/%dT%H:%M:%S%z %s", "2018/05/29T10:43:10+0000 1527590590"),
            Some((AT - 528_000_000, SECOND))
        );
    }

    #[test]
    fn what_is_no_time_is_none() {
        for (format, text) in [
            ("", "-"),
            ("", ""),
            ("", "yesterday"),
            ("", "99999999999999999999999"),
            ("%s", "99999999999999999999999"),
            ("%s", "1.5"),
            ("%Y", "2018"),
            ("%f", "000000000"),
            ("%s.%s", "1.1"),
            ("%", "%"),
            ("%3", "1"),
            ("%E4S", "1"),
            ("%!", "!"),
        ] {
            assert_eq!(read(format, text), None, "{format} {text}");
        }
    }
}
