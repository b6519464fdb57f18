//! Shares of a whole: `"10%"`.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::{InvalidValue, decimal, quoted, text_value};

/// A share from `"0%"` to `"100%"`, exact to a ten-thousandth of a percent.
///
/// The sign is required: whether a bare `0.1` meant a tenth or a thousandth could only be guessed.
///
/// ```
/// use hawksbill_core::config::Percent;
///
/// let split: Percent = "12.5%".parse()?;
/// assert_eq!((split.per_million(), split.fraction()), (125_000, 0.125));
/// assert_eq!(
///     "10".parse::<Percent>().unwrap_err().to_string(),
///     r#""10" has no percent sign; write a share from "0%" to "100%", such as "10%""#
/// );
/// # Ok::<(), hawksbill_core::config::InvalidValue>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Percent {
    per_million: u32,
}

/// Millionths in one percent.
const ONE: u32 = 10_000;

impl Percent {
    /// So many whole percent; more than 100 is 100.
    pub const fn new(percent: u8) -> Self {
        let percent = if percent > 100 { 100 } else { percent };
        Self { per_million: percent as u32 * ONE }
    }

    /// The share in millionths, from 0 to 1,000,000.
    pub const fn per_million(self) -> u32 {
        self.per_million
    }

    /// The share of one, from 0.0 to 1.0.
    pub fn fraction(self) -> f64 {
        f64::from(self.per_million) / 1_000_000.0
    }
}

impl FromStr for Percent {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let refused = |reason: &str| {
            let allowed = "write a share from \"0%\" to \"100%\", such as \"10%\"";
            InvalidValue::new(format!("{} {reason}; {allowed}", quoted(text)))
        };
        let number = text.trim().strip_suffix('%').ok_or_else(|| refused("has no percent sign"))?;
        let share = decimal(number.trim_end(), u128::from(ONE)).ok_or_else(|| refused("is not a share"))?;
        match u32::try_from(share) {
            Ok(per_million) if per_million <= 100 * ONE => Ok(Self { per_million }),
            _ => Err(refused("is more than the whole")),
        }
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fraction = format!("{:04}", self.per_million % ONE);
        let fraction = fraction.trim_end_matches('0');
        let point = if fraction.is_empty() { "" } else { "." };
        write!(f, "{}{point}{fraction}%", self.per_million / ONE)
    }
}

text_value!(Percent, "a share such as \"10%\"");

impl JsonSchema for Percent {
    fn schema_name() -> Cow<'static, str> {
        Cow::Borrowed("Percent")
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A share from 0% to 100%, with the percent sign.",
            "type": "string",
            "pattern": r"^[0-9]+(\.[0-9]+)? ?%$",
            "examples": ["10%", "0.5%"],
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn shares_are_read_and_written() {
        for (text, per_million, canonical) in [
            ("10%", 100_000, "10%"),
            ("0.5%", 5_000, "0.5%"),
            ("33.3333%", 333_333, "33.3333%"),
            ("0.00009%", 0, "0%"),
            ("100.0 %", 1_000_000, "100%"),
            ("1.05%", 10_500, "1.05%"),
        ] {
            let share: Percent = text.parse().unwrap();
            assert_eq!((share.per_million(), share.to_string().as_str()), (per_million, canonical), "{text}");
        }
        assert_eq!(Percent::new(250), Percent::new(100));
    }

    #[test]
    fn what_is_no_share_is_refused() {
        for (text, reason) in [
            ("100.1%", "is more than the whole"),
            ("99999999999999999999%", "is more than the whole"),
            ("-1%", "is not a share"),
            ("%", "is not a share"),
            ("ten%", "is not a share"),
            ("0.1", "has no percent sign"),
        ] {
            let error = text.parse::<Percent>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("{text:?} {reason}; write a share from")), "{error}");
        }
        let error = serde_json::from_str::<Percent>("10").unwrap_err().to_string();
        assert!(error.starts_with("\"10\" has no percent sign"), "{error}");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(per_million in 0_u32..=1_000_000) {
            let share = Percent { per_million };
            prop_assert_eq!(share.to_string().parse(), Ok(share));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "([0-9]|\\.|%|.)*") {
            let _ = text.parse::<Percent>();
        }
    }
}
