//! The one timestamp of every AWS shape: milliseconds since the Unix epoch, rendered as each protocol wants it. It
//! never reads a clock.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A point in time with the precision AWS answers with, one millisecond. In JSON a number of epoch seconds
/// (`1732161234.123`), as the AWS JSON protocols want it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// 9999-12-30T22:00:00Z, the last moment that has a four-digit year in every time zone: what text formats can carry.
const LATEST: i64 = 253_402_207_200_000;
/// 0000-01-01T00:00:00Z, the first moment with a four-digit year.
const EARLIEST: i64 = -62_167_219_200_000;

impl Timestamp {
    /// From milliseconds since the Unix epoch, clamped to the years 0 to 9999.
    pub fn from_millis(millis: i64) -> Self {
        Self(millis.clamp(EARLIEST, LATEST))
    }

    /// Milliseconds since the Unix epoch.
    pub fn as_millis(self) -> i64 {
        self.0
    }

    /// From epoch seconds, rounded to the millisecond. `None` when not finite or outside the years 0 to 9999.
    pub fn from_seconds(seconds: f64) -> Option<Self> {
        let millis = (seconds * 1000.0).round();
        // A NaN is in no range.
        (EARLIEST as f64..=LATEST as f64).contains(&millis).then_some(Self(millis as i64))
    }

    /// Epoch seconds with a fraction.
    pub fn as_seconds(self) -> f64 {
        self.0 as f64 / 1000.0
    }

    /// `2024-11-21T03:53:54.123Z`, the `iso8601` timestamp format of the XML protocols; no fraction where it is zero.
    pub fn render_iso8601(self) -> String {
        self.instant().to_string()
    }

    /// `Thu, 21 Nov 2024 03:53:54 GMT`, the `rfc822` timestamp format of HTTP headers.
    pub fn render_http_date(self) -> String {
        jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&self.instant()).expect("years 0 to 9999 fit the format")
    }

    /// Reads an ISO 8601 text with an offset, an HTTP date, or epoch seconds written as text: what callers send in
    /// forms, headers and query strings. `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if let Ok(seconds) = text.parse::<f64>() {
            return Self::from_seconds(seconds);
        }
        let instant =
            text.parse::<jiff::Timestamp>().ok().or_else(|| jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok())?;
        let millis = instant.as_millisecond();
        (EARLIEST..=LATEST).contains(&millis).then_some(Self(millis))
    }

    fn instant(self) -> jiff::Timestamp {
        jiff::Timestamp::from_millisecond(self.0).expect("every constructor keeps to the years 0 to 9999")
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render_iso8601())
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0 % 1000 == 0 { serializer.serialize_i64(self.0 / 1000) } else { serializer.serialize_f64(self.as_seconds()) }
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Timestamp;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a timestamp")
            }

            fn visit_f64<E: de::Error>(self, seconds: f64) -> Result<Timestamp, E> {
                Timestamp::from_seconds(seconds).ok_or_else(|| E::invalid_value(de::Unexpected::Float(seconds), &self))
            }

            fn visit_i64<E: de::Error>(self, seconds: i64) -> Result<Timestamp, E> {
                self.visit_f64(seconds as f64)
            }

            fn visit_u64<E: de::Error>(self, seconds: u64) -> Result<Timestamp, E> {
                self.visit_f64(seconds as f64)
            }
        }
        // `any`, because an integer and a float are both good here.
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_epoch_seconds_with_milliseconds() {
        let json = |millis| serde_json::to_string(&Timestamp::from_millis(millis)).unwrap();
        assert_eq!(json(1_732_161_234_123), "1732161234.123");
        assert_eq!(json(1_732_161_234_000), "1732161234");
        assert_eq!(json(-1), "-0.001");
        for text in ["1732161234.123", "1732161234", "1.732161234123E9", "0"] {
            let read: Timestamp = serde_json::from_str(text).unwrap();
            let again: Timestamp = serde_json::from_str(&serde_json::to_string(&read).unwrap()).unwrap();
            assert_eq!(read, again, "{text}");
        }
        assert!(serde_json::from_str::<Timestamp>("1e300").is_err());
        assert!(serde_json::from_str::<Timestamp>("\"2024\"").is_err());
    }

    #[test]
    fn every_millisecond_of_a_second_survives_json() {
        for millis in 1_732_161_234_000..1_732_161_235_000 {
            let text = serde_json::to_string(&Timestamp::from_millis(millis)).unwrap();
            assert_eq!(serde_json::from_str::<Timestamp>(&text).unwrap().as_millis(), millis);
        }
    }

    #[test]
    fn text_formats_go_both_ways() {
        let at = Timestamp::from_millis(1_732_161_234_123);
        assert_eq!(at.render_iso8601(), "2024-11-21T03:53:54.123Z");
        assert_eq!(at.render_http_date(), "Thu, 21 Nov 2024 03:53:54 GMT");
        assert_eq!(Timestamp::parse("2024-11-21T03:53:54.123Z"), Some(at));
        assert_eq!(Timestamp::parse("2024-11-21T04:53:54.123+01:00"), Some(at));
        assert_eq!(Timestamp::parse("1732161234.123"), Some(at));
        assert_eq!(Timestamp::parse("Thu, 21 Nov 2024 03:53:54 GMT"), Some(Timestamp::from_millis(1_732_161_234_000)));
        assert_eq!(Timestamp::parse("yesterday"), None);
        assert_eq!(Timestamp::parse("NaN"), None);
    }

    #[test]
    fn extremes_are_clamped_not_wrapped() {
        assert_eq!(Timestamp::from_millis(i64::MAX).render_iso8601(), "9999-12-30T22:00:00Z");
        Timestamp::from_millis(i64::MIN).render_iso8601();
        Timestamp::from_millis(i64::MIN).render_http_date();
    }
}
