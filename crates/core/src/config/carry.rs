//! A tree of values as text, for another process of the same configuration: exact, unlike TOML or JSON, which have no
//! untyped text and forget where a value was written.

use serde::{Deserialize, Serialize};

use super::value::Data;
use super::{Origin, Position, Table, Value};

/// A value with its place.
#[derive(Serialize, Deserialize)]
struct Carried {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    at: Option<Place>,
    #[serde(flatten)]
    data: CarriedData,
}

#[derive(Serialize, Deserialize)]
enum CarriedData {
    Text(String),
    Untyped(String),
    Integer(i64),
    /// As Rust writes it, for JSON has no infinity.
    Float(String),
    Boolean(bool),
    Array(Vec<Carried>),
    Table(Vec<(String, Option<Place>, Carried)>),
}

/// A file or a flag, with line and column in a file.
type Place = (String, Option<(usize, usize)>);

impl Value {
    /// This tree as text that [`Value::carried`] makes the same tree of.
    ///
    /// ```
    /// use hawksbill_core::config::{Value, parse_toml};
    ///
    /// let tree = parse_toml("hawksbill.toml", "drain = '5s'\n")?;
    /// let again = Value::carried(&tree.carry()).unwrap();
    /// assert_eq!(again, tree);
    /// assert_eq!(again.at(&["drain"]).unwrap().origin.to_string(), "hawksbill.toml:1:9");
    /// # Ok::<(), hawksbill_core::config::ConfigError>(())
    /// ```
    pub fn carry(&self) -> String {
        // Neither numbers nor keys that JSON cannot write.
        serde_json::to_string(&Carried::from(self)).unwrap_or_default()
    }

    /// The tree that [`Value::carry`] has written.
    ///
    /// # Errors
    /// When it is none.
    pub fn carried(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str::<Carried>(text)?.into_value()
    }
}

fn place(origin: &Origin) -> Option<Place> {
    let position = origin.position().map(|Position { line, column }| (line, column));
    origin.name().map(|name| (name.to_owned(), position))
}

fn origin(place: Option<Place>) -> Origin {
    match place {
        Some((name, Some((line, column)))) => Origin::at(&name, Position { line, column }),
        Some((name, None)) => Origin::named(name),
        None => Origin::unknown(),
    }
}

impl From<&Value> for Carried {
    fn from(value: &Value) -> Self {
        let data = match &value.data {
            Data::String(text) if value.is_untyped() => CarriedData::Untyped(text.clone()),
            Data::String(text) => CarriedData::Text(text.clone()),
            Data::Integer(number) => CarriedData::Integer(*number),
            Data::Float(number) => CarriedData::Float(number.to_string()),
            Data::Boolean(truth) => CarriedData::Boolean(*truth),
            Data::Array(elements) => CarriedData::Array(elements.iter().map(Self::from).collect()),
            Data::Table(table) => {
                let entries = table.iter();
                let carry = |(key, at, value): (&str, &Origin, &Value)| {
                    (key.to_owned(), place(at), Self::from(value))
                };
                CarriedData::Table(entries.map(carry).collect())
            }
        };
        Self { at: place(&value.origin), data }
    }
}

impl Carried {
    fn into_value(self) -> Result<Value, serde_json::Error> {
        let at = origin(self.at);
        Ok(match self.data {
            CarriedData::Text(text) => Value::string(text, at),
            CarriedData::Untyped(text) => Value::untyped(text, at),
            CarriedData::Integer(number) => Value::new(Data::Integer(number), at),
            CarriedData::Float(text) => {
                let number = text.parse().map_err(serde::de::Error::custom)?;
                Value::new(Data::Float(number), at)
            }
            CarriedData::Boolean(truth) => Value::new(Data::Boolean(truth), at),
            CarriedData::Array(elements) => {
                let elements: Result<Vec<_>, _> = elements.into_iter().map(Self::into_value).collect();
                Value::new(Data::Array(elements?), at)
            }
            CarriedData::Table(entries) => {
                let mut table = Table::new();
                for (key, key_at, value) in entries {
                    table.insert(key, origin(key_at), value.into_value()?);
                }
                Value::new(Data::Table(table), at)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Path, parse_toml};
    use super::*;

    #[test]
    fn every_sort_of_value_arrives() {
        let text = "a = 'x'\nb = 1\nc = -inf\nd = true\ne = ['y', { f = 0.1 }]\n[g]\n'' = 2\n";
        let tree = parse_toml("f.toml", text).unwrap();
        let again = Value::carried(&tree.carry()).unwrap();
        assert_eq!(again, tree);
        let (_, key, _) = again.at(&["g"]).unwrap().as_table().unwrap().iter().next().unwrap();
        assert_eq!(key.to_string(), "f.toml:7:1");
        let untyped = Value::carried(&Value::untyped("4", Origin::named("flag --workers")).carry()).unwrap();
        assert_eq!(untyped.decode::<u16>(&Path::root()).unwrap(), 4);
        assert!(Value::carried("{}").is_err());
    }
}
