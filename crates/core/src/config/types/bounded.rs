//! Whole numbers with bounds.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{InvalidValue, quoted};

/// A whole number from `MIN` to `MAX`, both included.
///
/// ```
/// use hawksbill_core::config::{Bounded, Path, parse_toml};
///
/// let tree = parse_toml("hawksbill.toml", "threads = \"many\"")?;
/// let threads = tree.at(&["threads"]).unwrap();
/// let error = threads.decode::<Bounded<1, 1024>>(&Path::root().key("threads")).unwrap_err();
/// assert!(error.to_string().starts_with(
///     r#"hawksbill.toml:1:11: threads: found "many" (a string), expected a number from 1 to 1024"#
/// ));
/// # Ok::<(), hawksbill_core::config::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bounded<const MIN: u64, const MAX: u64>(u64);

impl<const MIN: u64, const MAX: u64> Bounded<MIN, MAX> {
    /// The number if it is within the bounds.
    pub const fn new(number: u64) -> Option<Self> {
        if MIN <= number && number <= MAX { Some(Self(number)) } else { None }
    }

    /// The number, or the bound that it is beyond: for defaults that the machine gives.
    pub const fn clamped(number: u64) -> Self {
        const { assert!(MIN <= MAX, "the lower bound is above the upper") };
        if number < MIN {
            Self(MIN)
        } else if number > MAX {
            Self(MAX)
        } else {
            Self(number)
        }
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The number as a length in memory.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl<const MIN: u64, const MAX: u64> From<Bounded<MIN, MAX>> for u64 {
    fn from(number: Bounded<MIN, MAX>) -> Self {
        number.0
    }
}

impl<const MIN: u64, const MAX: u64> TryFrom<u64> for Bounded<MIN, MAX> {
    type Error = InvalidValue;

    fn try_from(number: u64) -> Result<Self, InvalidValue> {
        Self::new(number)
            .ok_or_else(|| InvalidValue::new(format!("{number} is not a number from {MIN} to {MAX}")))
    }
}

impl<const MIN: u64, const MAX: u64> FromStr for Bounded<MIN, MAX> {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let number = text.trim().parse().ok().and_then(Self::new);
        number
            .ok_or_else(|| InvalidValue::new(format!("{} is not a number from {MIN} to {MAX}", quoted(text))))
    }
}

impl<const MIN: u64, const MAX: u64> fmt::Display for Bounded<MIN, MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de, const MIN: u64, const MAX: u64> Deserialize<'de> for Bounded<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_u64(BoundedVisitor)
    }
}

struct BoundedVisitor<const MIN: u64, const MAX: u64>;

impl<const MIN: u64, const MAX: u64> Visitor<'_> for BoundedVisitor<MIN, MAX> {
    type Value = Bounded<MIN, MAX>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a number from {MIN} to {MAX}")
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
        Bounded::new(number).ok_or_else(|| E::invalid_value(Unexpected::Unsigned(number), &self))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Self::Value, E> {
        let inside = u64::try_from(number).ok().and_then(Bounded::new);
        inside.ok_or_else(|| E::invalid_value(Unexpected::Signed(number), &self))
    }
}

impl<const MIN: u64, const MAX: u64> Serialize for Bounded<MIN, MAX> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

impl<const MIN: u64, const MAX: u64> JsonSchema for Bounded<MIN, MAX> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        Cow::Owned(format!("From{MIN}To{MAX}"))
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": MIN, "maximum": MAX })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::{Origin, Path, Value};

    type Threads = Bounded<1, 1024>;

    #[test]
    fn bounds_are_kept() {
        let read = |value: Value| {
            value.decode::<Threads>(&Path::root()).map(Threads::get).map_err(|e| e.to_string())
        };
        assert_eq!((read(Value::from(1)), read(Value::from(1024))), (Ok(1), Ok(1024)));
        assert_eq!(read(Value::untyped("8", Origin::unknown())), Ok(8));
        let expected = "expected a number from 1 to 1024";
        assert_eq!(read(Value::from(0)), Err(format!("found 0 (a number), {expected}")));
        assert_eq!(read(Value::from(1025)), Err(format!("found 1025 (a number), {expected}")));
        assert_eq!(read(Value::from(-1)), Err(format!("found -1 (a number), {expected}")));
        assert_eq!(read(Value::from(1.5)), Err(format!("found 1.5 (a number), {expected}")));
        assert_eq!((Threads::clamped(0).get(), Threads::clamped(5000).get()), (1, 1024));
        assert_eq!(
            "9999".parse::<Threads>().unwrap_err().to_string(),
            "\"9999\" is not a number from 1 to 1024"
        );
        assert!(Threads::try_from(0).is_err());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(number in 1_u64..=1024) {
            let number = Threads::new(number).unwrap();
            prop_assert_eq!(number.to_string().parse(), Ok(number));
        }
    }
}
