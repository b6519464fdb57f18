//! Config values inside config structs, and their errors: what serde cannot carry by itself.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Unexpected, Visitor};

use super::{ConfigError, Origin, Table, Value};

/// Asks our deserializer for the [`Value`] itself; other deserializers take it for a newtype's name.
pub(super) const VALUE: &str = "$hawksbill::config::Value";

thread_local! {
    /// The value on its way from our deserializer to [`CaptureValue`]: serde has no way of its own to hand over
    /// a type that it does not know.
    static CAPTURED: RefCell<Option<Value>> = const { RefCell::new(None) };
    /// The error on its way from [`relay`] to our `custom`.
    static RELAYED: RefCell<Option<ConfigError>> = const { RefCell::new(None) };
}

/// Passes a [`ConfigError`] through a hand-written `Deserialize` with path and place, where the deserializer is
/// the config's; for any other deserializer it becomes a message.
///
/// ```
/// use hawksbill_core::config::{Path, Value, parse_toml, relay};
/// use serde::{Deserialize, Deserializer};
///
/// /// A count, or a table.
/// #[derive(Debug)]
/// enum Workers { Fixed(u16), Range(Range) }
///
/// #[derive(Debug, Deserialize)]
/// struct Range { min: u16, max: u16 }
///
/// impl<'de> Deserialize<'de> for Workers {
///     fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
///         let value = Value::deserialize(deserializer)?;
///         if value.as_table().is_some() {
///             value.decode(&Path::root()).map(Workers::Range).map_err(relay)
///         } else {
///             value.decode(&Path::root()).map(Workers::Fixed).map_err(relay)
///         }
///     }
/// }
///
/// let tree = parse_toml("f.toml", "workers = { min = 1, mx = 2 }")?;
/// let workers = tree.at(&["workers"]).unwrap();
/// let error = workers.decode::<Workers>(&Path::root().key("workers")).unwrap_err().to_string();
/// assert!(error.starts_with("f.toml:1:22: unknown key 'mx' in [workers]; did you mean 'max'?"));
/// # Ok::<(), hawksbill_core::config::ConfigError>(())
/// ```
pub fn relay<E: de::Error>(error: ConfigError) -> E {
    let message = error.to_string();
    RELAYED.set(Some(error));
    let relayed = E::custom(message);
    RELAYED.take();
    relayed
}

/// Hands `value` itself to a visitor that [asked](VALUE) for it.
pub(super) fn hand_over<'de, V: Visitor<'de>>(value: &Value, visitor: V) -> Result<V::Value, ConfigError> {
    CAPTURED.set(Some(value.clone()));
    visitor.visit_unit()
}

/// The error that [`relay`] is passing on, if it is.
pub(super) fn take_relayed() -> Option<ConfigError> {
    RELAYED.take()
}

/// Keeps the places when it is read from a config; from any other format (JSON) the places are unknown.
impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer
            .deserialize_newtype_struct(VALUE, CaptureValue)?
            .ok_or_else(|| de::Error::invalid_type(Unexpected::Unit, &CaptureValue))
    }
}

/// Takes the value that our deserializer hands over, or builds one from what another deserializer gives.
/// The result is nothing for a null, which the config tree does not have.
struct CaptureValue;

impl<'de> Visitor<'de> for CaptureValue {
    type Value = Option<Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, a number, a boolean, an array or a table")
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(CAPTURED.take())
    }

    fn visit_none<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E: de::Error>(self, truth: bool) -> Result<Self::Value, E> {
        Ok(Some(Value::from(truth)))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Self::Value, E> {
        Ok(Some(Value::from(number)))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
        let number = i64::try_from(number);
        number.map(|number| Some(Value::from(number))).map_err(|_| E::custom("a number is beyond 64 bits"))
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Self::Value, E> {
        Ok(Some(Value::from(number)))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Some(Value::from(text)))
    }

    fn visit_string<E: de::Error>(self, text: String) -> Result<Self::Value, E> {
        Ok(Some(Value::from(text)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut elements: Vec<Value> = Vec::new();
        while let Some(element) = seq.next_element()? {
            elements.push(element);
        }
        Ok(Some(Value::from(elements)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut table = Table::new();
        while let Some(key) = map.next_key::<String>()? {
            // As in other formats that have it, a null says that the key is not given.
            if let Some(value) = map.next_value::<Option<Value>>()? {
                if table.contains(&key) {
                    return Err(de::Error::custom(format_args!("the key '{key}' is given twice")));
                }
                table.insert(key, Origin::unknown(), value);
            }
        }
        Ok(Some(Value::from(table)))
    }
}

impl<'de> Deserialize<'de> for Table {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Value::deserialize(deserializer)?.into_table().map_err(relay)
    }
}

impl JsonSchema for Value {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        Cow::Borrowed("Value")
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!(true)
    }
}

impl JsonSchema for Table {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        Cow::Borrowed("Table")
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({ "type": "object" })
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::config::{Data, Path, parse_toml};

    #[derive(Debug, Deserialize)]
    struct Route {
        app: Value,
        #[serde(default)]
        layers: Vec<Table>,
        when: Option<Table>,
    }

    #[test]
    fn values_inside_structs_keep_their_places() {
        let tree = parse_toml("f.toml", "app = { files = \"x\" }\nlayers = [{ cache = \"60s\" }]\n").unwrap();
        let route: Route = tree.decode(&Path::root()).unwrap();
        assert_eq!(route.app.at(&["files"]).unwrap().origin.to_string(), "f.toml:1:17");
        assert_eq!(route.layers[0].key_origin("cache").unwrap().to_string(), "f.toml:2:13");
        assert!(route.when.is_none());
    }

    #[test]
    fn a_table_that_is_none_is_refused_at_its_place_and_path() {
        let tree = parse_toml("f.toml", "app = 1\nlayers = [{}, 5]\n").unwrap();
        let error = tree.decode::<Route>(&Path::root().key("r")).unwrap_err().to_string();
        assert!(
            error.starts_with("f.toml:2:15: r.layers[1]: found 5 (a number), expected a table\n"),
            "{error}"
        );
    }

    #[test]
    fn untyped_text_stays_untyped() {
        let tree = Value::from(Table::from_iter([("app", Value::untyped("5", Origin::unknown()))]));
        assert!(tree.decode::<Route>(&Path::root()).unwrap().app.is_untyped());
    }

    #[test]
    fn json_is_read_and_nulls_are_absent() {
        let json = r#"{"a": [1, -2, 1.5, true, "x"], "b": {"c": null}, "d": null}"#;
        let value: Value = serde_json::from_str(json).unwrap();
        let elements = vec![1.into(), (-2).into(), 1.5.into(), true.into(), Value::from("x")];
        let expected = Table::from_iter([
            ("a", Value::from(elements)),
            ("b", Value::new(Data::Table(Table::new()), Origin::unknown())),
        ]);
        assert_eq!(value, Value::from(expected));
    }

    #[test]
    fn json_that_the_tree_cannot_hold_is_refused() {
        let refused = |json: &str| serde_json::from_str::<Value>(json).unwrap_err().to_string();
        assert!(refused("null").contains("expected a string, a number, a boolean, an array or a table"));
        assert!(refused("[null]").contains("expected a string, a number, a boolean, an array or a table"));
        assert!(refused("18446744073709551615").contains("beyond 64 bits"));
        assert!(refused(r#"{"a": 1, "a": 2}"#).contains("the key 'a' is given twice"));
    }

    #[test]
    fn a_relayed_error_is_taken_by_nobody_else() {
        let error = || ConfigError::new(Origin::named("here"), "no");
        let foreign: serde_json::Error = relay(error());
        assert_eq!(foreign.to_string(), "here: no");
        let later: ConfigError = de::Error::custom("later");
        assert_eq!(later.to_string(), "later");
        let own: ConfigError = relay(error());
        assert_eq!(own.located(&Origin::named("there")).to_string(), "here: no");
    }
}
