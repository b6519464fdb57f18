//! The config tree: values that know where they came from.

use std::fmt;

use indexmap::IndexMap;
use serde::ser::{Serialize, SerializeMap, Serializer};

use super::error::Found;
use super::{ConfigError, Origin, Path};

/// A config value and where it came from.
///
/// Two values are equal if their data are: the same content from TOML and from flags compares equal.
///
/// ```
/// use hawksbill_core::config::{Origin, Path, Value};
///
/// let listen = Value::string(":80", Origin::named("flag --listen"));
/// assert_eq!(listen, Value::from(":80"));
/// let error = listen.decode::<u16>(&Path::root().key("listen")).unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     r#"flag --listen: listen: found ":80" (a string), expected a whole number from 0 to 65535"#
/// );
/// ```
#[derive(Clone)]
pub struct Value {
    /// What the value is.
    pub data: Data,
    /// Where it came from.
    pub origin: Origin,
    untyped: bool,
}

/// The content of a [`Value`].
#[derive(Clone, PartialEq)]
pub enum Data {
    /// Text.
    String(String),
    /// A whole number.
    Integer(i64),
    /// A number with a fraction.
    Float(f64),
    /// True or false.
    Boolean(bool),
    /// Values in order.
    Array(Vec<Value>),
    /// Values by key.
    Table(Table),
}

impl Value {
    /// A value of any kind.
    pub fn new(data: impl Into<Data>, origin: Origin) -> Self {
        Self { data: data.into(), origin, untyped: false }
    }

    /// Text that is meant to be text.
    pub fn string(text: impl Into<String>, origin: Origin) -> Self {
        Self::new(Data::String(text.into()), origin)
    }

    /// Text from a place that knows no types (a flag, an environment variable, `${VAR}`): where the config wants
    /// a number or a boolean, such text is read as one.
    ///
    /// ```
    /// use hawksbill_core::config::{Origin, Path, Value};
    ///
    /// let workers = Value::untyped("4", Origin::named("environment variable HAWKSBILL_WORKERS"));
    /// assert_eq!(workers.decode::<u16>(&Path::root())?, 4);
    /// assert_eq!(workers.decode::<String>(&Path::root())?, "4");
    /// # Ok::<(), hawksbill_core::config::ConfigError>(())
    /// ```
    pub fn untyped(text: impl Into<String>, origin: Origin) -> Self {
        Self { data: Data::String(text.into()), origin, untyped: true }
    }

    /// Whether this is text from a place that knows no types; see [`Value::untyped`].
    pub fn is_untyped(&self) -> bool {
        self.untyped
    }

    /// Gives `origin` to this value, its keys and all values beneath that have no known place.
    pub fn with_origin(mut self, origin: &Origin) -> Self {
        self.fill_origin(origin);
        self
    }

    fn fill_origin(&mut self, origin: &Origin) {
        if !self.origin.is_known() {
            self.origin = origin.clone();
        }
        match &mut self.data {
            Data::Array(elements) => elements.iter_mut().for_each(|element| element.fill_origin(origin)),
            Data::Table(table) => {
                for (key_origin, value) in table.entries.values_mut() {
                    if !key_origin.is_known() {
                        *key_origin = origin.clone();
                    }
                    value.fill_origin(origin);
                }
            }
            Data::String(_) | Data::Integer(_) | Data::Float(_) | Data::Boolean(_) => {}
        }
    }

    /// The text, if this is a string.
    pub fn as_str(&self) -> Option<&str> {
        if let Data::String(text) = &self.data { Some(text) } else { None }
    }

    /// The elements, if this is an array.
    pub fn as_array(&self) -> Option<&[Value]> {
        if let Data::Array(elements) = &self.data { Some(elements) } else { None }
    }

    /// The table, if this is one.
    pub fn as_table(&self) -> Option<&Table> {
        if let Data::Table(table) = &self.data { Some(table) } else { None }
    }

    /// The table, to change it, if this is one.
    pub fn as_table_mut(&mut self) -> Option<&mut Table> {
        if let Data::Table(table) = &mut self.data { Some(table) } else { None }
    }

    /// The value that `keys` lead to, through tables.
    pub fn at(&self, keys: &[&str]) -> Option<&Value> {
        keys.iter().try_fold(self, |value, key| value.as_table()?.get(key))
    }

    /// The table, or an error that says what stands here instead.
    pub fn into_table(self) -> Result<Table, ConfigError> {
        match self.data {
            Data::Table(table) => Ok(table),
            _ => Err(self.mismatch("a table")),
        }
    }

    /// The elements of an array, or this value as the only one: for keys that take one value or several.
    pub fn into_elements(self) -> Vec<Value> {
        match self.data {
            Data::Array(elements) => elements,
            _ => vec![self],
        }
    }

    /// The error that this value is not what it should be: `found ..., expected ...`, at its place.
    pub fn mismatch(&self, expected: impl Into<String>) -> ConfigError {
        ConfigError::mismatch(self.origin.clone(), self, expected)
    }

    /// Fills a config struct from this value, which stands at `path` in the tree.
    pub fn decode<T: serde::de::DeserializeOwned>(&self, path: &Path) -> Result<T, ConfigError> {
        T::deserialize(self).map_err(|error| error.within(path))
    }

    /// Lays `over` over this value: tables are merged key by key, anything else is replaced. So flags win over
    /// the environment, and the environment over the file.
    pub fn overlay(&mut self, over: Value) {
        match (&mut self.data, over) {
            (Data::Table(under), Value { data: Data::Table(over), .. }) => {
                for (key, key_origin, value) in over {
                    match under.get_mut(&key) {
                        Some(below) => below.overlay(value),
                        None => {
                            under.insert(key, key_origin, value);
                        }
                    }
                }
            }
            (_, over) => *self = over,
        }
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        self.data == other.data
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.data.fmt(f)
    }
}

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::String(text) => text.fmt(f),
            Self::Integer(number) => number.fmt(f),
            Self::Float(number) => number.fmt(f),
            Self::Boolean(truth) => truth.fmt(f),
            Self::Array(elements) => elements.fmt(f),
            Self::Table(table) => table.fmt(f),
        }
    }
}

/// What stands here, as error messages call it: `"many" (a string)`, `an array`.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Found::from(self).fmt(f)
    }
}

/// A table of the config: values by key, in the order they were written, each key with its own origin.
///
/// ```
/// use hawksbill_core::config::{Origin, Table, Value};
///
/// let mut table = Table::new();
/// table.insert("b", Origin::unknown(), Value::from(1));
/// table.insert("a", Origin::unknown(), Value::from("x"));
/// assert_eq!(table.keys().collect::<Vec<_>>(), ["b", "a"]);
/// assert_eq!(table.remove("b"), Some(Value::from(1)));
/// assert!(!table.contains("b"));
/// ```
#[derive(Clone, Default)]
pub struct Table {
    entries: IndexMap<String, (Origin, Value)>,
}

impl Table {
    /// A table without entries.
    pub fn new() -> Self {
        Self::default()
    }

    /// The value under `key`.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.entries.get(key).map(|(_, value)| value)
    }

    /// The value under `key`, to change it.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut Value> {
        self.entries.get_mut(key).map(|(_, value)| value)
    }

    /// Where the key itself was written.
    pub fn key_origin(&self, key: &str) -> Option<&Origin> {
        self.entries.get(key).map(|(origin, _)| origin)
    }

    /// Takes the value under `key` out; the order of the others stays.
    pub fn remove(&mut self, key: &str) -> Option<Value> {
        self.remove_entry(key).map(|(_, value)| value)
    }

    /// Takes the value under `key` out, with the key's origin; the order of the others stays.
    pub fn remove_entry(&mut self, key: &str) -> Option<(Origin, Value)> {
        self.entries.shift_remove(key)
    }

    /// Whether there is a value under `key`.
    pub fn contains(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// The keys, in order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Keys, their origins, and values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Origin, &Value)> {
        self.entries.iter().map(|(key, (origin, value))| (key.as_str(), origin, value))
    }

    /// The entry at `position`, from 0.
    pub(super) fn entry(&self, position: usize) -> Option<(&str, &Origin, &Value)> {
        self.entries.get_index(position).map(|(key, (origin, value))| (key.as_str(), origin, value))
    }

    /// Puts a value under `key`; gives back the one it replaces.
    pub fn insert(&mut self, key: impl Into<String>, origin: Origin, value: Value) -> Option<Value> {
        self.entries.insert(key.into(), (origin, value)).map(|(_, old)| old)
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// Tables are equal if they have the same keys with equal values, in any order.
impl PartialEq for Table {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().all(|(key, _, value)| other.get(key) == Some(value))
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter().map(|(key, _, value)| (key, value))).finish()
    }
}

/// Entries of a table given away: key, the key's origin, value.
pub struct IntoIter(indexmap::map::IntoIter<String, (Origin, Value)>);

impl Iterator for IntoIter {
    type Item = (String, Origin, Value);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|(key, (origin, value))| (key, origin, value))
    }
}

impl IntoIterator for Table {
    type Item = (String, Origin, Value);
    type IntoIter = IntoIter;

    fn into_iter(self) -> IntoIter {
        IntoIter(self.entries.into_iter())
    }
}

impl<K: Into<String>, V: Into<Value>> FromIterator<(K, V)> for Table {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut table = Self::new();
        for (key, value) in entries {
            table.insert(key, Origin::unknown(), value.into());
        }
        table
    }
}

impl<T: Into<Data>> From<T> for Value {
    fn from(data: T) -> Self {
        Self::new(data, Origin::unknown())
    }
}

macro_rules! data_from {
    ($($from:ty => $variant:ident),* $(,)?) => {$(
        impl From<$from> for Data {
            fn from(value: $from) -> Self {
                Self::$variant(value.into())
            }
        }
    )*};
}

data_from! {
    &str => String, String => String,
    i64 => Integer, i32 => Integer, u32 => Integer, u16 => Integer, u8 => Integer,
    f64 => Float, bool => Boolean, Table => Table,
}

impl<T: Into<Value>> From<Vec<T>> for Data {
    fn from(elements: Vec<T>) -> Self {
        Self::Array(elements.into_iter().map(Into::into).collect())
    }
}

/// Serializes the data; origins are not written.
impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.data {
            Data::String(text) => serializer.serialize_str(text),
            Data::Integer(number) => serializer.serialize_i64(*number),
            Data::Float(number) => serializer.serialize_f64(*number),
            Data::Boolean(truth) => serializer.serialize_bool(*truth),
            Data::Array(elements) => elements.serialize(serializer),
            Data::Table(table) => table.serialize(serializer),
        }
    }
}

impl Serialize for Table {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.len()))?;
        for (key, _, value) in self.iter() {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(entries: &[(&str, Value)]) -> Value {
        Value::from(entries.iter().cloned().collect::<Table>())
    }

    #[test]
    fn an_overlay_merges_tables_and_replaces_the_rest() {
        let mut file = table(&[
            ("listen", Value::from(vec![":80", ":443"])),
            ("apps", table(&[("shop", table(&[("workers", Value::from(2)), ("dir", Value::from("/srv"))]))])),
        ]);
        file.overlay(table(&[
            ("listen", Value::from(vec![":8000"])),
            ("apps", table(&[("shop", table(&[("workers", Value::from(4))])), ("blog", table(&[]))])),
        ]));
        let expected = table(&[
            ("listen", Value::from(vec![":8000"])),
            (
                "apps",
                table(&[
                    ("shop", table(&[("workers", Value::from(4)), ("dir", Value::from("/srv"))])),
                    ("blog", table(&[])),
                ]),
            ),
        ]);
        assert_eq!(file, expected);
    }

    #[test]
    fn an_origin_is_given_to_what_has_none() {
        let mut inner = table(&[("a", Value::from(1))]);
        inner.as_table_mut().unwrap().insert("b", Origin::named("b's"), Value::new(2, Origin::named("2's")));
        let value = Value::from(vec![inner]).with_origin(&Origin::named("control socket"));
        let table = value.as_array().unwrap()[0].as_table().unwrap();
        assert_eq!(table.key_origin("a").unwrap().to_string(), "control socket");
        assert_eq!(table.get("a").unwrap().origin.to_string(), "control socket");
        assert_eq!(table.key_origin("b").unwrap().to_string(), "b's");
        assert_eq!(table.get("b").unwrap().origin.to_string(), "2's");
    }

    #[test]
    fn equality_looks_at_content_and_not_at_order() {
        let ab = table(&[("a", Value::from(1)), ("b", Value::from(true))]);
        let ba = table(&[("b", Value::from(true)), ("a", Value::from(1))]);
        assert_eq!(ab, ba);
        assert_ne!(ab, table(&[("a", Value::from(1)), ("b", Value::from(false))]));
        assert_ne!(ab, table(&[("a", Value::from(1))]));
    }

    #[test]
    fn a_value_that_should_be_a_table_says_what_it_is() {
        let error = Value::from(vec![1, 2]).into_table().unwrap_err();
        assert_eq!(error.to_string(), "found an array, expected a table");
    }

    #[test]
    fn serialization_writes_the_data_alone() {
        let value = table(&[("a", Value::from(vec![1.5])), ("b", Value::from("x"))]);
        assert_eq!(serde_json::to_string(&value).unwrap(), r#"{"a":[1.5],"b":"x"}"#);
    }
}
