//! One value or an array of them.

use std::borrow::Cow;
use std::ops::Deref;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};

use crate::config::{ConfigError, Path, Value, relay};

/// Values for a key that takes one or several: `listen = ":80"` is `listen = [":80"]`.
///
/// Errors keep the place of the element. The canonical spelling is the array.
///
/// ```
/// use hawksbill_core::config::{OneOrMany, Path, Size, Value};
///
/// let one = Value::from("1KB").decode::<OneOrMany<Size>>(&Path::root())?;
/// let many = Value::from(vec!["1KB"]).decode::<OneOrMany<Size>>(&Path::root())?;
/// assert_eq!(one, many);
/// assert_eq!(one[0].bytes(), 1024);
/// # Ok::<(), hawksbill_core::config::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct OneOrMany<T>(Vec<T>);

impl<T> OneOrMany<T> {
    /// The values.
    pub fn into_vec(self) -> Vec<T> {
        self.0
    }
}

impl<T> Default for OneOrMany<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Deref for OneOrMany<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T> From<Vec<T>> for OneOrMany<T> {
    fn from(values: Vec<T>) -> Self {
        Self(values)
    }
}

impl<T> From<OneOrMany<T>> for Vec<T> {
    fn from(values: OneOrMany<T>) -> Self {
        values.0
    }
}

impl<T> FromIterator<T> for OneOrMany<T> {
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Self {
        Self(values.into_iter().collect())
    }
}

impl<T> IntoIterator for OneOrMany<T> {
    type Item = T;
    type IntoIter = std::vec::IntoIter<T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a, T> IntoIterator for &'a OneOrMany<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let values: Result<Vec<T>, ConfigError> = match value.as_array() {
            Some(_) => value.decode(&Path::root()),
            None => value.decode(&Path::root()).map(|only| vec![only]),
        };
        values.map(Self).map_err(relay)
    }
}

impl<T: JsonSchema> JsonSchema for OneOrMany<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        Cow::Owned(format!("OneOrMany{}", T::schema_name()))
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<T>();
        json_schema!({ "anyOf": [one, { "type": "array", "items": one }] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Size, parse_toml};

    #[derive(Debug, Deserialize)]
    #[allow(dead_code)]
    struct Limits {
        sizes: OneOrMany<Size>,
        #[serde(default)]
        counts: OneOrMany<u8>,
    }

    #[test]
    fn errors_keep_the_place_of_the_element() {
        let read = |text: &str| {
            let tree = parse_toml("f.toml", text).unwrap();
            tree.decode::<Limits>(&Path::root()).unwrap_err().to_string()
        };
        let element = read("sizes = [\"1KB\",\n\"1XB\"]");
        assert!(element.starts_with("f.toml:2:1: sizes[1]: \"1XB\" is not a size;"), "{element}");
        let only = read("sizes = true");
        assert!(
            only.starts_with("f.toml:1:9: sizes: found true (a boolean), expected a size such as"),
            "{only}"
        );
        let count = read("sizes = 1\ncounts = [1, 256]");
        assert!(count.starts_with("f.toml:2:14: counts[1]: found 256 (a number), expected"), "{count}");
    }

    #[test]
    fn other_formats_can_be_read_too() {
        let limits: Limits = serde_json::from_str(r#"{"sizes": "1KB", "counts": [1, 2]}"#).unwrap();
        assert_eq!((limits.sizes[0].bytes(), limits.counts.into_vec()), (1024, vec![1, 2]));
        let error = serde_json::from_str::<Limits>(r#"{"sizes": "1XB"}"#).unwrap_err().to_string();
        assert!(error.contains("\"1XB\" is not a size"), "{error}");
    }
}
