//! Times, durations, sizes and counts for people. The page's script has the same functions.

use crate::trace::{Nanos, rfc3339};

/// What stands for an absent value.
pub(super) const ABSENT: &str = "–";

/// Three digits of a value, cut and not rounded: `1.23`, `12.3`, `123`.
fn three_digits(value: u64, unit: u64) -> String {
    let whole = value / unit;
    // 128 bits, because a value may be near the largest one.
    let hundredths = u128::from(value % unit) * 100 / u128::from(unit);
    match whole {
        0..10 => format!("{whole}.{hundredths:02}"),
        10..100 => format!("{whole}.{}", hundredths / 10),
        _ => whole.to_string(),
    }
}

/// `850 ns`, `12.3 µs`, `1.23 ms`, `45.6 s`, `2 min 3 s`, `4 h 5 min`, `6 d 7 h`.
pub(super) fn duration(nanos: Nanos) -> String {
    let seconds = nanos / 1_000_000_000;
    match nanos {
        0 => "0".to_owned(),
        1..1_000 => format!("{nanos} ns"),
        1_000..1_000_000 => format!("{} µs", three_digits(nanos, 1_000)),
        1_000_000..1_000_000_000 => format!("{} ms", three_digits(nanos, 1_000_000)),
        _ if seconds < 60 => format!("{} s", three_digits(nanos, 1_000_000_000)),
        _ if seconds < 3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ if seconds < 86_400 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

/// [`duration`], or a dash.
pub(super) fn maybe_duration(nanos: Option<Nanos>) -> String {
    nanos.map_or_else(|| ABSENT.to_owned(), duration)
}

/// `12 B`, `1.23 KiB`, `45.6 MiB`.
pub(super) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let power = (bytes.ilog2() / 10).min(UNITS.len() as u32);
    format!("{} {}", three_digits(bytes, 1 << (10 * power)), UNITS[power as usize - 1])
}

/// [`bytes`], or a dash.
pub(super) fn maybe_bytes(size: Option<u64>) -> String {
    size.map_or_else(|| ABSENT.to_owned(), bytes)
}

/// `1,234,567`.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1,234 requests`, `1 request`.
pub(super) fn counted(number: u64, noun: &str) -> String {
    format!("{} {noun}{}", count(number), if number == 1 { "" } else { "s" })
}

/// A share of a whole as people read it, `0.4 %`. Something is never nothing, and nothing but all is all.
pub(super) fn share(part: u64, whole: u64) -> String {
    let tenths = u128::from(part) * 1000 / u128::from(whole.max(1));
    match tenths {
        0 if part > 0 => "< 0.1 %".to_owned(),
        _ => format!("{}.{} %", tenths / 10, tenths % 10),
    }
}

/// `2026-01-31`.
pub(super) fn date(time: Nanos) -> String {
    rfc3339(time).chars().take(10).collect()
}

/// `12:34:56.789`.
pub(super) fn time_of_day(time: Nanos) -> String {
    let second: String = rfc3339(time).chars().skip(11).take(8).collect();
    format!("{second}.{:03}", time / 1_000_000 % 1000)
}

/// `2026-01-31 12:34:56.789`, in UTC.
pub(super) fn date_time(time: Nanos) -> String {
    format!("{} {}", date(time), time_of_day(time))
}

/// Part of a whole as a length in SVG.
pub(super) fn percent(part: u64, whole: u64) -> String {
    // Only nearness matters on a screen.
    let percent = part as f64 * 100.0 / whole.max(1) as f64;
    format!("{:.3}%", percent.min(100.0))
}

/// Moments within `span` at which lines are drawn: at most seven, round, and of one distance.
pub(super) fn ticks(span: Nanos) -> Vec<Nanos> {
    let steps = (0..20).flat_map(|power| [1, 2, 5].map(|factor| 10u64.pow(power).saturating_mul(factor)));
    let step = steps.into_iter().find(|step| span / step <= 6).unwrap_or(u64::MAX);
    (0..=span / step).map(|index| index * step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_three_digits() {
        let shown: Vec<_> = [0, 850, 1_000, 12_345, 1_234_567, 999_999_999, 1_230_000_000, 59_990_000_000]
            .into_iter()
            .map(duration)
            .collect();
        assert_eq!(shown, ["0", "850 ns", "1.00 µs", "12.3 µs", "1.23 ms", "999 ms", "1.23 s", "59.9 s"]);
        let shown: Vec<_> =
            [123, 14_700, 543_600].into_iter().map(|seconds| duration(seconds * 1_000_000_000)).collect();
        assert_eq!(shown, ["2 min 3 s", "4 h 5 min", "6 d 7 h"]);
        assert_eq!(duration(u64::MAX), "213503 d 23 h");
    }

    #[test]
    fn sizes_have_three_digits() {
        let shown: Vec<_> = [0, 1023, 1024, 1_300_000, u64::MAX].into_iter().map(bytes).collect();
        assert_eq!(shown, ["0 B", "1023 B", "1.00 KiB", "1.23 MiB", "16383 PiB"]);
    }

    #[test]
    fn counts_and_shares() {
        assert_eq!((count(999), count(1_000), count(1_234_567)), ("999".into(), "1,000".into(), "1,234,567".into()));
        assert_eq!((share(0, 0), share(1, 10_000), share(1, 3)), ("0.0 %".into(), "< 0.1 %".into(), "33.3 %".into()));
    }

    #[test]
    fn times_are_utc_with_milliseconds() {
        assert_eq!(date_time(1_525_207_293_216_737_962), "2018-05-01 20:41:33.216");
        assert_eq!(date_time(u64::MAX), "2554-07-21 23:34:33.709");
        assert_eq!(date_time(0), "1970-01-01 00:00:00.000");
    }

    #[test]
    fn ticks_are_round_and_few() {
        assert_eq!(ticks(10), [0, 2, 4, 6, 8, 10]);
        assert_eq!(ticks(1_234), [0, 200, 400, 600, 800, 1_000, 1_200]);
        assert_eq!((ticks(0), ticks(6)), (vec![0], vec![0, 1, 2, 3, 4, 5, 6]));
        for span in [1, 7, 99, 12_345, 1 << 40, u64::MAX] {
            assert!(ticks(span).len() <= 7, "{span}");
        }
    }
}
