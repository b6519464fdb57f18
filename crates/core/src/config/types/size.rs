//! Amounts of data: `"1GB"`, `"64KB"`.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::{InvalidValue, decimal, quoted, text_value};

/// An amount of data in bytes.
///
/// A number with a unit: `"1GB"`, `"400MB"`, `"64KB"`, `"16MiB"`, `"512B"`; the number may have a fraction. A bare
/// number counts bytes. All units are powers of 1024, with and without `i` and with one letter alone, in either
/// case: a `client_max_body_size 8m` of nginx or an `upload_max_filesize = 8M` of PHP means the same here.
///
/// ```
/// use hawksbill_core::config::Size;
///
/// assert_eq!("64KB".parse::<Size>()?.bytes(), 65_536);
/// assert_eq!("8m".parse::<Size>()?, "8MiB".parse()?);
/// assert_eq!(Size::new(1_572_864).to_string(), "1536KB");
/// # Ok::<(), hawksbill_core::config::InvalidValue>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(u64);

/// Units as they are written, with their binary exponent, the greatest first.
const UNITS: [(&str, u32); 5] = [("TB", 40), ("GB", 30), ("MB", 20), ("KB", 10), ("B", 0)];

impl Size {
    /// So many bytes.
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// So many times 1024 bytes.
    pub const fn kilobytes(count: u64) -> Self {
        Self(count.saturating_mul(1 << 10))
    }

    /// So many times 1024² bytes.
    pub const fn megabytes(count: u64) -> Self {
        Self(count.saturating_mul(1 << 20))
    }

    /// So many times 1024³ bytes.
    pub const fn gigabytes(count: u64) -> Self {
        Self(count.saturating_mul(1 << 30))
    }

    /// The number of bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// The number of bytes as a length in memory; what no memory can hold becomes `usize::MAX`.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl From<Size> for u64 {
    fn from(size: Size) -> Self {
        size.0
    }
}

impl FromStr for Size {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let trimmed = text.trim();
        let number_end = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
        let (number, unit) = trimmed.split_at(number_end);
        let bytes = exponent(unit.trim_start()).and_then(|exponent| decimal(number, 1 << exponent));
        let bytes = bytes.ok_or_else(|| {
            InvalidValue::new(format!(
                "{} is not a size; write a number with B, KB, MB, GB or TB (powers of 1024), such as \"64KB\"",
                quoted(text)
            ))
        })?;
        let size = u64::try_from(bytes).map(Self);
        size.map_err(|_| InvalidValue::new(format!("{} is more than 64 bits can count", quoted(text))))
    }
}

/// The power of two that a unit stands for.
fn exponent(unit: &str) -> Option<u32> {
    match unit.to_ascii_uppercase().as_str() {
        "" | "B" => Some(0),
        "K" | "KB" | "KIB" => Some(10),
        "M" | "MB" | "MIB" => Some(20),
        "G" | "GB" | "GIB" => Some(30),
        "T" | "TB" | "TIB" => Some(40),
        _ => None,
    }
}

/// The greatest unit of which the size is a whole number.
impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = |(_, exponent): &&(&str, u32)| self.0 != 0 && self.0.trailing_zeros() >= *exponent;
        let (unit, exponent) = UNITS.iter().find(whole).copied().unwrap_or(("B", 0));
        write!(f, "{}{unit}", self.0 >> exponent)
    }
}

text_value!(Size, "a size such as \"1GB\", \"64KB\" or a number of bytes");

impl JsonSchema for Size {
    fn schema_name() -> Cow<'static, str> {
        Cow::Borrowed("Size")
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "An amount of data: a number with B, KB, MB, GB or TB, all powers of 1024; a bare number \
                            counts bytes.",
            "type": ["string", "integer"],
            "pattern": r"^[0-9]+(\.[0-9]+)? ?([KkMmGgTt][Ii]?)?[Bb]?$",
            "minimum": 0,
            "examples": ["1GB", "400MB", "64KB", 1024],
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn all_forms_are_read() {
        for (text, bytes, canonical) in [
            ("1GB", 1 << 30, "1GB"),
            ("400MB", 400 << 20, "400MB"),
            ("64KB", 64 << 10, "64KB"),
            ("16MiB", 16 << 20, "16MB"),
            ("8m", 8 << 20, "8MB"),
            ("1k", 1 << 10, "1KB"),
            ("512 B", 512, "512B"),
            ("1000", 1000, "1000B"),
            ("1.5GB", 3 << 29, "1536MB"),
            ("2t", 2 << 40, "2TB"),
            ("0", 0, "0B"),
        ] {
            let size: Size = text.parse().unwrap();
            assert_eq!((size.bytes(), size.to_string().as_str()), (bytes, canonical), "{text}");
        }
        assert_eq!((Size::kilobytes(64), Size::megabytes(1)), (Size::new(65_536), Size::new(1_048_576)));
        assert_eq!(
            (Size::gigabytes(u64::MAX), Size::gigabytes(1)),
            (Size::new(u64::MAX), Size::new(1 << 30))
        );
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in ["", "GB", "-1", "1 parsec", "1e3", "1,5GB", "１KB", "NaN", "1KBB", "0x10"] {
            let error = text.parse::<Size>().unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("{text:?} is not a size; write a number with B, KB")),
                "{error}"
            );
        }
        let error = "16777216TB".parse::<Size>().unwrap_err().to_string();
        assert_eq!(error, "\"16777216TB\" is more than 64 bits can count");
    }

    #[test]
    fn numbers_and_text_are_read_from_json() {
        assert_eq!(serde_json::from_str::<Vec<Size>>(r#"["1KB", 1024]"#).unwrap(), [Size::new(1024); 2]);
        assert_eq!(serde_json::to_string(&Size::new(1024)).unwrap(), r#""1KB""#);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(bytes in any::<u64>(), zeros in 0_u32..64) {
            let size = Size::new(bytes >> zeros << zeros);
            prop_assert_eq!(size.to_string().parse(), Ok(size));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "([0-9]|\\.|[KMGTiB]|.)*") {
            if let Ok(size) = text.parse::<Size>() {
                prop_assert_eq!(size.to_string().parse(), Ok(size));
            }
        }
    }
}
