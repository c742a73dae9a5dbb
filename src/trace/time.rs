//! Times of a trace: nanoseconds since the Unix epoch.

use std::error::Error;

/// Nanoseconds since the Unix epoch, as pcapng counts them with an `if_tsresol` of 9. Reaches the year 2554.
pub type Nanos = u64;

/// A `google.protobuf.Timestamp` that no capture can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeError {
    /// Before 1970 or after the year 2554.
    OutOfRange(i64),
    /// The protobuf rule is 0 to 999,999,999.
    BadNanos(i64),
    /// JSON writes a time as a string, and this one is not in RFC 3339 format.
    Unreadable,
}

impl Error for TimeError {}

/// Turns the two fields of a `google.protobuf.Timestamp` into [`Nanos`].
///
/// # Errors
/// [`TimeError`] if the pair is not a time between 1970 and 2554.
#[inline]
pub fn nanos_from_timestamp(seconds: i64, nanos: i64) -> Result<Nanos, TimeError> {
    if !(0..1_000_000_000).contains(&nanos) {
        return Err(TimeError::BadNanos(nanos));
    }
    u64::try_from(seconds)
        .ok()
        .and_then(|seconds| seconds.checked_mul(1_000_000_000))
        .and_then(|whole| whole.checked_add(nanos.unsigned_abs()))
        .ok_or(TimeError::OutOfRange(seconds))
}

/// A time in RFC 3339 format, in UTC, with as many fractional digits as it needs.
#[must_use]
pub fn rfc3339(time: Nanos) -> String {
    // Both parts fit: a u64 of nanoseconds reaches the year 2554.
    let (seconds, nanos) = ((time / 1_000_000_000).cast_signed(), (time % 1_000_000_000) as i32);
    prost_types::Timestamp { seconds, nanos }.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_shown_as_rfc3339() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(1_525_207_293_216_737_962), "2018-05-01T20:41:33.216737962Z");
        assert_eq!(rfc3339(u64::MAX), "2554-07-21T23:34:33.709551615Z");
    }

    #[test]
    fn a_time_keeps_every_nanosecond() {
        assert_eq!(nanos_from_timestamp(1_525_207_293, 216_737_962), Ok(1_525_207_293_216_737_962));
    }

    #[test]
    fn a_time_that_no_capture_holds_is_refused() {
        assert_eq!(nanos_from_timestamp(-1, 0), Err(TimeError::OutOfRange(-1)));
        assert_eq!(nanos_from_timestamp(i64::MAX, 0), Err(TimeError::OutOfRange(i64::MAX)));
        assert_eq!(nanos_from_timestamp(0, 1_000_000_000), Err(TimeError::BadNanos(1_000_000_000)));
        assert_eq!(nanos_from_timestamp(0, -1), Err(TimeError::BadNanos(-1)));
    }
}
