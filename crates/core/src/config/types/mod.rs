//! Typed values: what a config says in one word, each with its forms, its bounds and one canonical spelling.
//!
//! Every type reads its forms by `FromStr` and serde, writes the canonical one by `Display` and serde, and
//! describes itself by JSON schema. What is refused is refused with the allowed forms and an example.

use std::fmt;

mod bounded;
mod cidr;
mod duration;
mod host;
mod listen;
mod one_or_many;
mod percent;
mod size;

pub use self::bounded::Bounded;
pub use self::cidr::{Cidr, CidrEntry, CidrSet};
pub use self::duration::Duration;
pub use self::host::{HostName, HostPattern};
pub use self::listen::{Listen, ListenHost};
pub use self::one_or_many::OneOrMany;
pub use self::percent::Percent;
pub use self::size::Size;

/// Text that is no value of a type: `Display` says why, what is allowed, and gives an example.
///
/// ```
/// use hawksbill_core::config::Size;
///
/// let error = "1 parsec".parse::<Size>().unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     r#""1 parsec" is not a size; write a number with B, KB, MB, GB or TB (powers of 1024), such as "64KB""#
/// );
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidValue(String);

impl InvalidValue {
    fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl fmt::Display for InvalidValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for InvalidValue {}

/// serde for a type that is text in a config: reads through `FromStr`, writes through `Display`. Numbers are read
/// as the text that writes them, so that each type's `FromStr` alone decides what a bare number means.
macro_rules! text_value {
    ($type:ty, $expecting:literal) => {
        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any($crate::config::types::TextVisitor::new($expecting))
            }
        }

        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    };
}
use text_value;

/// Reads a `FromStr` type from text or a number.
struct TextVisitor<T> {
    expecting: &'static str,
    value: std::marker::PhantomData<T>,
}

impl<T> TextVisitor<T> {
    fn new(expecting: &'static str) -> Self {
        Self { expecting, value: std::marker::PhantomData }
    }
}

impl<T: std::str::FromStr<Err = InvalidValue>> serde::de::Visitor<'_> for TextVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expecting)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }
}

/// A decimal number without sign or exponent as a whole number of `1 / scale`; digits beyond that resolution are
/// dropped, `None` is no number or one too large.
fn decimal(text: &str, scale: u128) -> Option<u128> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return None;
    }
    // 18 digits are finer than any scale here, and leave room for the multiplication.
    let fraction = fraction.get(..18).unwrap_or(fraction);
    let denominator = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let parts = fraction.parse::<u128>().ok()?.checked_mul(scale)? / denominator;
    whole.parse::<u128>().ok()?.checked_mul(scale)?.checked_add(parts)
}

/// Text for messages: quoted, and cut where it is long.
fn quoted(text: &str) -> String {
    const LONGEST: usize = 60;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{:?}", format!("{}...", text.get(..end).unwrap_or_default())),
        None => format!("{text:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_read_exactly() {
        for (text, thousandths) in [
            ("0", Some(0)),
            ("1", Some(1000)),
            ("1.5", Some(1500)),
            ("0.0019", Some(1)),
            ("12.345", Some(12345)),
            ("", None),
            (".", None),
            (".5", None),
            ("1.", None),
            ("-1", None),
            ("1e3", None),
            ("NaN", None),
            ("１", None),
            ("0.9999999999999999999999999", Some(999)),
            ("340282366920938463463374607431768211455", None),
        ] {
            assert_eq!(decimal(text, 1000), thousandths, "{text}");
        }
    }
}
