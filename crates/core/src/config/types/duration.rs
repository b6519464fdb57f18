//! Spans of time: `"30s"`, `"1m30s"`, `"500ms"`.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;
use std::str::FromStr;
use std::time::Duration as StdDuration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::{InvalidValue, decimal, quoted, text_value};

/// A span of time.
///
/// Numbers with units, the greater unit first: `"30s"`, `"500ms"`, `"5m"`, `"1h"`, `"2d"`, `"1m30s"`. The units are
/// `d` (24 hours), `h`, `m`, `s`, `ms`, `us` and `ns`; the number before a unit may have a fraction. A bare number
/// counts seconds. At most 100 years, so that adding one to a point in time cannot overflow.
///
/// ```
/// use hawksbill_core::config::Duration;
///
/// let timeout: Duration = "90s".parse()?;
/// assert_eq!(timeout.as_secs(), 90); // it is a `std::time::Duration` by `Deref`
/// assert_eq!(timeout.to_string(), "1m30s");
/// assert_eq!("0.5".parse::<Duration>()?, Duration::from_millis(500));
/// # Ok::<(), hawksbill_core::config::InvalidValue>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duration(StdDuration);

/// Units with their length in nanoseconds, the greatest first.
const UNITS: [(&str, u128); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

impl Duration {
    /// The longest: 100 years of 365 days.
    pub const MAX: Self = Self(StdDuration::from_secs(100 * 365 * 86_400));

    /// So many seconds, at most [`Duration::MAX`].
    pub const fn from_secs(seconds: u64) -> Self {
        if seconds > Self::MAX.0.as_secs() { Self::MAX } else { Self(StdDuration::from_secs(seconds)) }
    }

    /// So many thousandths of a second, at most [`Duration::MAX`].
    pub const fn from_millis(milliseconds: u64) -> Self {
        if milliseconds / 1000 >= Self::MAX.0.as_secs() {
            Self::MAX
        } else {
            Self(StdDuration::from_millis(milliseconds))
        }
    }

    /// The span as the standard library's type.
    pub const fn get(self) -> StdDuration {
        self.0
    }
}

impl Deref for Duration {
    type Target = StdDuration;

    fn deref(&self) -> &StdDuration {
        &self.0
    }
}

impl From<Duration> for StdDuration {
    fn from(duration: Duration) -> Self {
        duration.0
    }
}

/// What is longer than [`Duration::MAX`] becomes that.
impl From<StdDuration> for Duration {
    fn from(duration: StdDuration) -> Self {
        Self(duration).min(Self::MAX)
    }
}

impl FromStr for Duration {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let nanoseconds = nanoseconds(text.trim()).ok_or_else(|| {
            InvalidValue::new(format!(
                "{} is not a duration; write numbers with d, h, m, s or ms, the greater unit first, \
                 such as \"30s\", \"500ms\" or \"1m30s\"",
                quoted(text)
            ))
        })?;
        if nanoseconds > Self::MAX.0.as_nanos() {
            return Err(InvalidValue::new(format!("{} is longer than 100 years (36500d)", quoted(text))));
        }
        let second = 1_000_000_000;
        let parts = (u64::try_from(nanoseconds / second), u32::try_from(nanoseconds % second));
        Ok(match parts {
            (Ok(seconds), Ok(nanoseconds)) => Self(StdDuration::new(seconds, nanoseconds)),
            _ => Self::MAX,
        })
    }
}

/// The whole of the text in nanoseconds; `None` if it is no duration.
fn nanoseconds(text: &str) -> Option<u128> {
    if let Some(seconds) = decimal(text, 1_000_000_000) {
        return Some(seconds);
    }
    if text.is_empty() {
        return None;
    }
    let mut rest = text;
    let mut units = UNITS.iter();
    let mut total = 0_u128;
    while !rest.is_empty() {
        let (number, after) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit() && c != '.')?);
        let (unit, after) = after.split_at(after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len()));
        // The iterator is used up as far as the unit found: the next must be smaller.
        let (_, length) = units.find(|(name, _)| *name == unit)?;
        total = total.checked_add(decimal(number, *length)?)?;
        rest = after;
    }
    Some(total)
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.as_nanos();
        if rest == 0 {
            return f.write_str("0s");
        }
        for (unit, length) in UNITS {
            let count = rest / length;
            rest %= length;
            if count > 0 {
                write!(f, "{count}{unit}")?;
            }
        }
        Ok(())
    }
}

text_value!(Duration, "a duration such as \"30s\", \"500ms\" or \"1m30s\", or a number of seconds");

impl JsonSchema for Duration {
    fn schema_name() -> Cow<'static, str> {
        Cow::Borrowed("Duration")
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A span of time: numbers with d, h, m, s, ms, us or ns, the greater unit first; a bare \
                            number counts seconds. At most 100 years.",
            "type": ["string", "number"],
            "pattern": r"^(?=[0-9])([0-9]+(\.[0-9]+)?d)?([0-9]+(\.[0-9]+)?h)?([0-9]+(\.[0-9]+)?m)?([0-9]+(\.[0-9]+)?s)?([0-9]+(\.[0-9]+)?ms)?([0-9]+(\.[0-9]+)?us)?([0-9]+(\.[0-9]+)?ns)?$|^[0-9]+(\.[0-9]+)?$",
            "minimum": 0,
            "examples": ["30s", "500ms", "1m30s", 30],
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn all_forms_are_read() {
        for (text, milliseconds, canonical) in [
            ("30s", 30_000, "30s"),
            ("500ms", 500, "500ms"),
            ("5m", 300_000, "5m"),
            ("1h", 3_600_000, "1h"),
            ("2d", 172_800_000, "2d"),
            ("1m30s", 90_000, "1m30s"),
            ("90", 90_000, "1m30s"),
            ("0.25", 250, "250ms"),
            ("1.5h", 5_400_000, "1h30m"),
            ("0", 0, "0s"),
            ("0ms", 0, "0s"),
            (" 1s ", 1_000, "1s"),
            ("3000us", 3, "3ms"),
        ] {
            let duration: Duration = text.parse().unwrap();
            assert_eq!(duration, Duration::from_millis(milliseconds), "{text}");
            assert_eq!(duration.to_string(), canonical);
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in [
            "", "s", "30x", "-5", "-5s", "30s1m", "1m1m", "1 m", "30S", "1e3", "inf", "1.s", "5m30", "１s",
            "30sec",
        ] {
            let error = text.parse::<Duration>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("{text:?} is not a duration; write numbers with")), "{error}");
        }
        let long = "36501d".parse::<Duration>().unwrap_err().to_string();
        assert_eq!(long, "\"36501d\" is longer than 100 years (36500d)");
        assert_eq!("36500d".parse(), Ok(Duration::MAX));
        assert_eq!(Duration::from(StdDuration::MAX), Duration::MAX);
        assert_eq!(
            (Duration::from_millis(u64::MAX), Duration::from_secs(u64::MAX)),
            (Duration::MAX, Duration::MAX)
        );
    }

    #[test]
    fn numbers_and_text_are_read_from_json() {
        let durations: Vec<Duration> = serde_json::from_str(r#"["1m30s", 90, 90.0]"#).unwrap();
        assert!(durations.iter().all(|duration| duration.as_secs() == 90));
        assert_eq!(serde_json::to_string(&durations[0]).unwrap(), r#""1m30s""#);
        let error = serde_json::from_str::<Duration>("true").unwrap_err().to_string();
        assert!(error.contains("expected a duration such as \"30s\""), "{error}");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(seconds in 0_u64..100 * 365 * 86_400, nanoseconds in 0_u32..1_000_000_000) {
            let duration = Duration::from(StdDuration::new(seconds, nanoseconds));
            prop_assert_eq!(duration.to_string().parse(), Ok(duration));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "([0-9]|\\.|[dhmsun]|.)*") {
            if let Ok(duration) = text.parse::<Duration>() {
                prop_assert_eq!(duration.to_string().parse(), Ok(duration));
            }
        }
    }
}
