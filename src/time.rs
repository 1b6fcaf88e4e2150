//! Points in time: by Redis' clock and in definitions, and how they are formatted.

use chrono::{DateTime, Datelike, NaiveDateTime, SecondsFormat, Utc};
use serde::{Serialize, Serializer};

/// Milliseconds since 1970, formatted as RFC 3339 in UTC with milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, utoipa::ToSchema)]
#[schema(value_type = String, format = DateTime, example = "2026-11-21T10:00:00.000Z")]
pub struct UnixMillis(pub i64);

/// The violation of a time that can't be stored.
pub const MUST_BE_STORABLE: &str = "must be from 1970 to 9999, with a second from 0 to 59";

/// Whether a `DATETIME` column and a year of four digits can represent the time. A leap second can
/// not be stored.
pub fn is_storable(time: DateTime<Utc>) -> bool {
    (1970..=9999).contains(&time.year()) && time.timestamp_subsec_nanos() < 1_000_000_000
}

/// A time for a `DATETIME` column. The driver sends a `DateTime<Utc>` as a `TIMESTAMP`, and a
/// server whose timestamps end in 2038 stores later times as NULL.
pub fn datetime(time: DateTime<Utc>) -> NaiveDateTime {
    time.naive_utc()
}

impl From<DateTime<Utc>> for UnixMillis {
    fn from(time: DateTime<Utc>) -> Self {
        Self(time.timestamp_millis())
    }
}

impl Serialize for UnixMillis {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let time = DateTime::from_timestamp_millis(self.0).unwrap_or_default();
        to.serialize_str(&time.to_rfc3339_opts(SecondsFormat::Millis, true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn years_from_1970_to_9999_are_storable() {
        let time = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
        for good in ["1970-01-01T00:00:00Z", "2038-01-20T00:00:00Z", "9999-12-31T23:59:59Z"] {
            assert!(is_storable(time(good)), "{good}");
        }
        for bad in [
            "1969-12-31T23:59:59Z",
            "0001-01-01T00:00:00Z",
            "2016-12-31T23:59:60Z",
            "+10000-01-01T00:00:00Z",
        ] {
            assert!(!is_storable(time(bad)), "{bad}");
        }
    }

    #[test]
    fn times_have_three_digits_of_milliseconds() {
        assert_eq!(
            serde_json::to_string(&UnixMillis(1_500)).unwrap(),
            "\"1970-01-01T00:00:01.500Z\""
        );
    }
}
