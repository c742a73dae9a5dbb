//! An exchange as one line of JSON.

use std::sync::Arc;

use crate::{
    http::{Attribute, Exchange, ExchangeRecord, Fields, HttpConnection, HttpConnectionEnd, Value},
    trace::Nanos,
    untrusted::escape_json,
};

/// Writes the object, but for what only the end of the connection tells. [`end`] completes it.
pub(in crate::commands) fn begin(out: &mut Vec<u8>, record: ExchangeRecord<'_>) {
    out.push(b'{');
    members(out, record, |_| true);
}

/// Continues an object with what the attributes tell of a connection that has no exchange. [`end`] completes it.
pub(in crate::commands) fn of_connection(out: &mut Vec<u8>, connection: HttpConnection, file: &str) {
    let place = connection.place;
    let exchange = Exchange::new(Arc::new(connection), place);
    let record = ExchangeRecord { exchange: &exchange, end: None, pairing: None, file, max_body: 0 };
    members(out, record, |object| !matches!(object, "request" | "response"));
}

/// Writes the attributes of the objects that are wanted, and leaves the last object open.
fn members(out: &mut Vec<u8>, record: ExchangeRecord<'_>, is_wanted: impl Fn(&str) -> bool) {
    let mut object = "";
    for attribute in Attribute::ALL.iter().filter(|attribute| !attribute.of_end && is_wanted(attribute.parts().0)) {
        let Some(value) = attribute.of(record) else { continue };
        let (first, second) = attribute.parts();
        if first == object {
            out.push(b',');
            member(out, second, &value);
            continue;
        }
        if !object.is_empty() {
            out.push(b'}');
        }
        if !matches!(out.last(), Some(b'{' | b',')) {
            out.push(b',');
        }
        if second.is_empty() {
            member(out, first, &value);
            object = "";
            continue;
        }
        out.push(b'"');
        out.extend_from_slice(first.as_bytes());
        out.extend_from_slice(b"\":{");
        object = first;
        member(out, second, &value);
    }
}

/// Completes the object and the line.
pub(in crate::commands) fn end(out: &mut Vec<u8>, connection: &HttpConnectionEnd) {
    end_with(out, super::end_values(connection));
}

/// Completes the object and the line with these values.
pub(in crate::commands) fn end_with<'a>(out: &mut Vec<u8>, values: impl Iterator<Item = (&'static str, Value<'a>)>) {
    for (name, value) in values {
        out.push(b',');
        member(out, name, &value);
    }
    out.extend_from_slice(b"}}\n");
}

fn member(out: &mut Vec<u8>, name: &str, value: &Value<'_>) {
    if let Some((object, name)) = name.split_once('.') {
        out.push(b'"');
        out.extend_from_slice(object.as_bytes());
        out.extend_from_slice(b"\":{");
        member(out, name, value);
        out.push(b'}');
        return;
    }
    out.push(b'"');
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
    match value {
        Value::Text(bytes) => string(out, bytes),
        Value::Number(number) => digits(out, *number, 1),
        Value::Flag(flag) => out.extend_from_slice(if *flag { b"true" } else { b"false" }),
        Value::Time(time) => {
            out.push(b'"');
            time_of(out, *time);
            out.push(b'"');
        }
        Value::Duration(nanos) => {
            out.push(b'"');
            seconds(out, *nanos);
            out.extend_from_slice(b"s\"");
        }
        Value::Bytes(bytes) => {
            out.push(b'"');
            base64_simd::STANDARD.encode_append(bytes, out);
            out.push(b'"');
        }
        Value::Map(fields) => map(out, fields),
    }
}

/// A number with at least this many digits. The formatting machinery takes several times as long.
fn digits(out: &mut Vec<u8>, mut number: u64, least: usize) {
    let mut text = [b'0'; 20];
    let mut at = text.len();
    while number > 0 || text.len() - at < least {
        at -= 1;
        text[at] = b'0' + (number % 10) as u8;
        number /= 10;
    }
    out.extend_from_slice(&text[at..]);
}

/// A string. Bytes that are not UTF-8 become replacement characters.
fn string(out: &mut Vec<u8>, bytes: &[u8]) {
    let is_plain =
        bytes.iter().fold(true, |plain, byte| plain & matches!(byte, b' '..=b'~' if *byte != b'"' && *byte != b'\\'));
    if is_plain {
        out.push(b'"');
        out.extend_from_slice(bytes);
        out.push(b'"');
        return;
    }
    let text = serde_json::Value::from(String::from_utf8_lossy(bytes)).to_string();
    out.extend_from_slice(escape_json(&text).as_bytes());
}

/// Fields by their names.
fn map(out: &mut Vec<u8>, fields: &Fields) {
    out.push(b'{');
    for (index, (name, value)) in fields.merged().iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        string(out, name);
        out.push(b':');
        string(out, value);
    }
    out.push(b'}');
}

/// RFC 3339 with all nine digits, so that times of different lines compare as text.
fn time_of(out: &mut Vec<u8>, time: Nanos) {
    let (seconds, nanos) = (time / 1_000_000_000, time % 1_000_000_000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Days since 1 March of year 0, in eras of 400 years, which all have the same number of days.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // From March on, months of 31 and 30 days alternate in a pattern of five months.
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let parts = [(year, 4, b'-'), (month, 2, b'-'), (day, 2, b'T')];
    let clock = [(second / 3600, 2, b':'), (second / 60 % 60, 2, b':'), (second % 60, 2, b'.'), (nanos, 9, b'Z')];
    for (number, width, after) in parts.into_iter().chain(clock) {
        digits(out, number, width);
        out.push(after);
    }
}

/// A time as text.
pub(super) fn rfc3339_nanos(time: Nanos) -> String {
    let mut text = Vec::with_capacity(30);
    time_of(&mut text, time);
    String::from_utf8(text).unwrap_or_default()
}

/// Seconds with 0, 3, 6 or 9 digits after the point, as protobuf's JSON mapping writes durations.
fn seconds(out: &mut Vec<u8>, nanos: Nanos) {
    digits(out, nanos / 1_000_000_000, 1);
    let rest = nanos % 1_000_000_000;
    let (unit, width) = match rest {
        0 => return,
        _ if rest.is_multiple_of(1_000_000) => (1_000_000, 3),
        _ if rest.is_multiple_of(1_000) => (1_000, 6),
        _ => (1, 9),
    };
    out.push(b'.');
    digits(out, rest / unit, width);
}

/// A duration as protobuf's JSON has it.
pub(super) fn duration(nanos: Nanos) -> String {
    let mut text = Vec::with_capacity(16);
    seconds(&mut text, nanos);
    text.push(b's');
    String::from_utf8(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::rfc3339;

    #[test]
    fn times_and_durations_are_those_of_protobufs_json() {
        assert_eq!(rfc3339_nanos(1_769_860_800_000_000_001), "2026-01-31T12:00:00.000000001Z");
        assert_eq!(rfc3339_nanos(0), "1970-01-01T00:00:00.000000000Z");
        for day in 0..213_503 {
            // Every day that there is, by another implementation.
            let time = day * 86_400_000_000_000 + day * 397_000_000_000 % 86_400_000_000_000;
            assert_eq!(rfc3339_nanos(time), rfc3339(time).replace('Z', ".000000000Z"));
        }
        let written = [0, 1_000_000, 1_500_001_000, 3_000_000_000, 1].map(|nanos| {
            let mut out = Vec::new();
            seconds(&mut out, nanos);
            String::from_utf8(out).unwrap()
        });
        assert_eq!(written, ["0", "0.001", "1.500001", "3", "0.000000001"]);
    }

    #[test]
    fn several_values_of_a_field_are_joined() {
        let write = |count: usize| {
            let mut fields = Fields::default();
            fields.push(b"Set-Cookie", b"a=\"1\"");
            (0..count).for_each(|index| fields.push(format!("x-{index}").as_bytes(), b""));
            fields.push(b"set-cookie", b"b\x1b");
            let mut out = Vec::new();
            map(&mut out, &fields);
            serde_json::from_slice::<serde_json::Value>(&out).unwrap()["set-cookie"].clone()
        };
        assert_eq!(write(0), "a=\"1\",b\u{1b}");
        assert_eq!(write(100), write(0));
    }

    #[test]
    fn strings_are_escaped_and_mean_the_same() {
        for text in ["plain", "quote\" and \\", "\x1b[2J\u{202e}", "日本"] {
            let mut out = Vec::new();
            string(&mut out, text.as_bytes());
            assert!(!out.iter().any(|byte| byte.is_ascii_control()));
            assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }
        let mut out = Vec::new();
        string(&mut out, b"a\xff");
        assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), "a\u{fffd}");
    }
}
