//! The key `control`.

use std::borrow::Cow;
use std::path::PathBuf;

use hawksbill_core::config::{Data, Value, relay};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Where the control socket is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Control {
    /// Where the commands look for it.
    #[default]
    Usual,
    /// There is none.
    Off,
    /// At this path.
    At(PathBuf),
}

impl Control {
    pub(super) fn is_usual(&self) -> bool {
        *self == Self::Usual
    }

    fn of(value: &Value) -> Option<Self> {
        match &value.data {
            Data::Boolean(wanted) => Some(if *wanted { Self::Usual } else { Self::Off }),
            Data::String(word) if value.is_untyped() && word == "false" => Some(Self::Off),
            Data::String(word) if value.is_untyped() && word == "true" => Some(Self::Usual),
            Data::String(path) if !path.is_empty() => Some(Self::At(path.into())),
            _ => None,
        }
    }
}

impl<'de> Deserialize<'de> for Control {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let wrong = || relay(value.mismatch("a path such as \"/run/hawksbill/shop.sock\", or false"));
        Self::of(&value).ok_or_else(wrong)
    }
}

impl Serialize for Control {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Usual => true.serialize(serializer),
            Self::Off => false.serialize(serializer),
            Self::At(path) => path.serialize(serializer),
        }
    }
}

impl JsonSchema for Control {
    fn schema_name() -> Cow<'static, str> {
        "Control".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["boolean", "string"] })
    }
}

#[cfg(test)]
mod tests {
    use hawksbill_core::config::{Origin, Path};

    use super::*;

    fn read(value: &Value) -> Result<Control, String> {
        value.decode(&Path::root().key("control")).map_err(|error| error.to_string())
    }

    #[test]
    fn a_path_or_a_truth() {
        assert_eq!(read(&Value::from("s")).unwrap(), Control::At("s".into()));
        assert_eq!(read(&Value::from(false)).unwrap(), Control::Off);
        assert_eq!(read(&Value::from(true)).unwrap(), Control::Usual);
        assert_eq!(read(&Value::untyped("false", Origin::named("flag --control"))).unwrap(), Control::Off);
        assert!(read(&Value::from(1)).unwrap_err().contains("a path such as"));
        assert!(read(&Value::from("")).is_err());
    }
}
