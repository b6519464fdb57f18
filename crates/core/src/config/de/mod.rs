//! serde's view of the config tree: fills structs from a [`Value`] and keeps the place of what does not fit.
//!
//! Errors gain their path and place on the way out: whoever raises one knows neither, each level that it passes
//! adds its key, and the innermost level with a known origin gives the place. Keys that a struct does not have
//! are refused all at once, whether or not the struct says `deny_unknown_fields`.
//!
//! What serde buffers (`untagged`, `flatten`, internally tagged enums) loses the places inside; errors then point
//! to the value around it. Types that want better take a [`Value`] as a field, or capture one in their
//! `Deserialize`, and hand its errors on with [`relay`](super::relay).

mod access;

use serde::de::{Deserializer, IntoDeserializer, Visitor};

use self::access::{Elements, Entries, Variant};
use super::capture::{VALUE, hand_over};
use super::{ConfigError, Data, Table, Value};

/// Numbers and booleans: text that came from a place without types is read as one if it can be.
macro_rules! scalars {
    ($($method:ident => $read:ident, $visit:ident;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
            match self.untyped_text().and_then($read) {
                Some(scalar) => visitor.$visit(scalar).map_err(|error: ConfigError| error.located(&self.origin)),
                None => self.deserialize_any(visitor),
            }
        }
    )*};
}

fn read_unsigned(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

fn read_signed(text: &str) -> Option<i64> {
    text.trim().parse().ok()
}

fn read_float(text: &str) -> Option<f64> {
    text.trim().parse().ok()
}

fn read_boolean(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Some(true),
        "false" | "no" | "off" | "0" => Some(false),
        _ => None,
    }
}

impl Value {
    fn untyped_text(&self) -> Option<&str> {
        if self.is_untyped() { self.as_str() } else { None }
    }

    fn visit<'de, V: Visitor<'de>>(&self, visitor: V) -> Result<V::Value, ConfigError> {
        match &self.data {
            Data::String(text) => visitor.visit_str(text),
            Data::Integer(number) => match u64::try_from(*number) {
                Ok(number) => visitor.visit_u64(number),
                Err(_) => visitor.visit_i64(*number),
            },
            Data::Float(number) => visitor.visit_f64(*number),
            Data::Boolean(truth) => visitor.visit_bool(*truth),
            Data::Array(elements) => visitor.visit_seq(Elements::new(elements)),
            Data::Table(table) => visitor.visit_map(Entries::new(table)),
        }
    }
}

impl<'de> Deserializer<'de> for &Value {
    type Error = ConfigError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        self.visit(visitor).map_err(|error| error.located(&self.origin))
    }

    scalars! {
        deserialize_bool => read_boolean, visit_bool;
        deserialize_i8 => read_signed, visit_i64;
        deserialize_i16 => read_signed, visit_i64;
        deserialize_i32 => read_signed, visit_i64;
        deserialize_i64 => read_signed, visit_i64;
        deserialize_i128 => read_signed, visit_i64;
        deserialize_u8 => read_unsigned, visit_u64;
        deserialize_u16 => read_unsigned, visit_u64;
        deserialize_u32 => read_unsigned, visit_u64;
        deserialize_u64 => read_unsigned, visit_u64;
        deserialize_u128 => read_unsigned, visit_u64;
        deserialize_f32 => read_float, visit_f64;
        deserialize_f64 => read_float, visit_f64;
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        visitor.visit_some(self).map_err(|error| error.located(&self.origin))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, ConfigError> {
        if name == VALUE {
            return hand_over(self, visitor);
        }
        visitor.visit_newtype_struct(self).map_err(|error| error.located(&self.origin))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ConfigError> {
        match &self.data {
            Data::Table(table) => refuse_unknown_keys(table, fields)?,
            // Derived structs can be filled by position; in a config that is a mistake.
            Data::Array(_) => return Err(self.mismatch("a table")),
            Data::String(_) | Data::Integer(_) | Data::Float(_) | Data::Boolean(_) => {}
        }
        self.deserialize_any(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ConfigError> {
        let chosen = match &self.data {
            Data::String(name) => Variant { name, origin: &self.origin, content: None },
            Data::Table(table) if table.len() == 1 => match table.iter().next() {
                Some((name, origin, content)) => Variant { name, origin, content: Some(content) },
                None => return Err(self.mismatch(one_variant(variants))),
            },
            _ => return Err(self.mismatch(one_variant(variants))),
        };
        visitor.visit_enum(chosen).map_err(|error| error.located(&self.origin))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map identifier
    }
}

fn refuse_unknown_keys(table: &Table, fields: &'static [&'static str]) -> Result<(), ConfigError> {
    let unknown = table.iter().filter(|(key, ..)| !fields.contains(key));
    let errors =
        unknown.map(|(key, origin, _)| ConfigError::unknown_key(origin.clone(), key, fields.iter().copied()));
    let all = errors.reduce(|mut all, error| {
        all.extend(error);
        all
    });
    all.map_or(Ok(()), Err)
}

fn one_variant(variants: &[&str]) -> String {
    format!("one of {}, as a word or as the only key of a table", variants.join(", "))
}

/// An owned value is read as a borrowed one is.
macro_rules! by_reference {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
            (&self).$method(visitor)
        }
    )*};
}

impl<'de> Deserializer<'de> for Value {
    type Error = ConfigError;

    by_reference! {
        deserialize_any deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64
        deserialize_i128 deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128
        deserialize_f32 deserialize_f64 deserialize_option deserialize_ignored_any
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, ConfigError> {
        (&self).deserialize_newtype_struct(name, visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ConfigError> {
        (&self).deserialize_struct(name, fields, visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ConfigError> {
        (&self).deserialize_enum(name, variants, visitor)
    }

    serde::forward_to_deserialize_any! {
        char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map identifier
    }
}

impl IntoDeserializer<'_, ConfigError> for Value {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;
    use crate::config::{Bounded, Duration, HostPattern, Origin, Path, parse_toml};

    #[derive(Debug, Default, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    #[allow(dead_code)]
    struct App {
        dir: Option<String>,
        env: BTreeMap<String, String>,
        workers: u16,
        threads: Option<Bounded<1, 1024>>,
        timeout: Duration,
        errors: BTreeMap<u16, String>,
        hosts: BTreeMap<HostPattern, bool>,
        log: Option<Log>,
        format: Option<Format>,
        recycle: Option<Recycle>,
        either: Option<Either>,
        pair: Option<(u8, String)>,
        upstreams: Vec<Upstream>,
        jitter: f32,
        on: bool,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "lowercase")]
    #[allow(dead_code)]
    enum Log {
        Off,
        File(String),
        Both(String, String),
        Syslog { address: String },
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(rename_all = "lowercase")]
    enum Format {
        Combined,
        Json,
    }

    /// Without `deny_unknown_fields`: keys are refused all the same.
    #[derive(Debug, Deserialize)]
    #[allow(dead_code)]
    struct Recycle {
        requests: u64,
        rss: Option<u64>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(untagged)]
    #[allow(dead_code)]
    enum Either {
        Word(String),
        Count(u32),
        Full(Recycle),
    }

    #[derive(Debug, Deserialize)]
    #[serde(transparent)]
    #[allow(dead_code)]
    struct Upstream(String);

    fn shop() -> Path {
        Path::root().key("apps").key("shop")
    }

    fn read(text: &str) -> Result<App, String> {
        let tree = parse_toml("f.toml", text).map_err(|error| error.to_string())?;
        tree.decode(&shop()).map_err(|error| error.to_string())
    }

    /// The messages without the lines of the file.
    fn refused(text: &str) -> String {
        let tree = parse_toml("f.toml", text).unwrap();
        let error = tree.decode::<App>(&shop()).unwrap_err();
        let message =
            |problem: &crate::config::Problem| format!("{}: {}", problem.origin(), problem.message());
        error.problems().iter().map(message).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn what_fits_is_read() {
        let app = read(
            r#"
            dir = "/srv"
            env = { A = "1" }
            workers = 2
            threads = 8
            timeout = 30
            errors = { 404 = "/404.html" }
            hosts = { "*.Example.com" = true }
            log = { syslog = { address = "x" } }
            format = "json"
            recycle = { requests = 10 }
            either = { requests = 1 }
            pair = [1, "x"]
            upstreams = ["a", "b"]
            jitter = 1
            on = true
            "#,
        )
        .unwrap();
        assert_eq!((app.workers, app.threads.unwrap().get(), app.timeout.as_secs()), (2, 8, 30));
        assert_eq!((app.errors[&404].as_str(), app.env["A"].as_str()), ("/404.html", "1"));
        assert!(app.hosts[&"*.example.com".parse().unwrap()]);
        assert!(matches!(app.log, Some(Log::Syslog { .. })));
        assert_eq!(app.format, Some(Format::Json));
        assert!(matches!(app.either, Some(Either::Full(_))));
        assert!(matches!(read("log = \"off\"").unwrap().log, Some(Log::Off)));
        assert!(matches!(read("log = { file = \"x\" }").unwrap().log, Some(Log::File(_))));
        assert!(matches!(read("log = { both = [\"x\", \"y\"] }").unwrap().log, Some(Log::Both(..))));
        assert!(matches!(read("format = { combined = {} }").unwrap().format, Some(Format::Combined)));
        assert!(matches!(read("either = 3").unwrap().either, Some(Either::Count(3))));
    }

    #[test]
    fn a_message_shows_the_line() {
        assert_eq!(
            read("dir = \"/srv\"\n  threads = \"many\" # all of them\n").unwrap_err(),
            r#"f.toml:2:13: apps.shop.threads: found "many" (a string), expected a number from 1 to 1024
  |
2 |   threads = "many" # all of them
  |             ^^^^^^"#
        );
    }

    #[test]
    fn all_unknown_keys_are_refused_each_at_its_place() {
        const ALLOWED: &str = "dir, env, workers, threads, timeout, errors, hosts, log, format, recycle, either, \
                               pair, upstreams, jitter, on";
        assert_eq!(
            refused("worker = 2\ndir = 5\nx.y = 1"),
            format!(
                "f.toml:1:1: unknown key 'worker' in [apps.shop]; did you mean 'workers'? Allowed here: {ALLOWED}\n\
                 f.toml:3:1: unknown key 'x' in [apps.shop]. Allowed here: {ALLOWED}"
            )
        );
        assert_eq!(
            refused("recycle = { requests = 1, RSS = 2 }"),
            "f.toml:1:27: unknown key 'RSS' in [apps.shop.recycle]; did you mean 'rss'? Allowed here: requests, rss"
        );
        assert_eq!(
            refused("log = { syslog = { adress = \"x\" } }"),
            "f.toml:1:20: unknown key 'adress' in [apps.shop.log.syslog]; did you mean 'address'? Allowed here: address"
        );
    }

    #[test]
    fn what_does_not_fit_is_refused_with_path_and_place() {
        for (text, message) in [
            (
                "workers = -1",
                "1:11: apps.shop.workers: found -1 (a number), expected a whole number from 0 to 65535",
            ),
            (
                "workers = 1.5",
                "1:11: apps.shop.workers: found 1.5 (a number), expected a whole number from 0 to 65535",
            ),
            ("dir = 5", "1:7: apps.shop.dir: found 5 (a number), expected a string"),
            ("dir = []", "1:7: apps.shop.dir: found an array, expected a string"),
            ("on = \"true\"", "1:6: apps.shop.on: found \"true\" (a string), expected true or false"),
            ("on = 1", "1:6: apps.shop.on: found 1 (a number), expected true or false"),
            ("env = \"A=1\"", "1:7: apps.shop.env: found \"A=1\" (a string), expected a table"),
            ("env = { A = 1 }", "1:13: apps.shop.env.A: found 1 (a number), expected a string"),
            ("env.\"a b\" = true", "1:13: apps.shop.env.\"a b\": found true (a boolean), expected a string"),
            ("upstreams = [\"a\",\n7]", "2:1: apps.shop.upstreams[1]: found 7 (a number), expected a string"),
            ("upstreams = {}", "1:13: apps.shop.upstreams: found a table, expected an array"),
            ("recycle = {}", "1:11: the key 'requests' is missing in [apps.shop.recycle]"),
            ("recycle = [1, 2]", "1:11: apps.shop.recycle: found an array, expected a table"),
            ("recycle = 1", "1:11: apps.shop.recycle: found 1 (a number), expected a table"),
            ("pair = [1]", "1:8: apps.shop.pair: found an array of 1, expected an array of 2"),
            (
                "errors = { x = \"\" }",
                "1:12: apps.shop.errors: found \"x\" (a string), expected a whole number from 0 to 65535",
            ),
            ("either = []", "1:10: apps.shop.either: this fits none of the forms that are allowed here"),
        ] {
            assert_eq!(refused(text), format!("f.toml:{message}"));
        }
        let host = refused("hosts = { \"a:80\" = true }");
        assert!(host.starts_with("f.toml:1:11: apps.shop.hosts: \"a:80\" has a port"), "{host}");
        let timeout = refused("timeout = \"30x\"");
        assert!(
            timeout.starts_with("f.toml:1:11: apps.shop.timeout: \"30x\" is not a duration;"),
            "{timeout}"
        );
    }

    #[test]
    fn enums_say_which_words_there_are() {
        let expected = "one of off, file, both, syslog";
        for (text, message) in [
            (
                "format = \"combind\"",
                "1:10: apps.shop.format: found \"combind\" (a string), expected 'combined' or 'json'; \
                 did you mean 'combined'?"
                    .to_owned(),
            ),
            (
                "format = 5",
                "1:10: apps.shop.format: found 5 (a number), expected one of combined, json, as a word or as the \
                 only key of a table"
                    .to_owned(),
            ),
            (
                "log = { fil = \"x\" }",
                format!("1:9: apps.shop.log: found \"fil\" (a string), expected {expected}; did you mean 'file'?"),
            ),
            (
                "log = { file = \"x\", off = {} }",
                format!("1:7: apps.shop.log: found a table, expected {expected}, as a word or as the only key of a table"),
            ),
            ("log = \"file\"", "1:7: apps.shop.log: 'file' needs a value: write { file = ... }".to_owned()),
            (
                "log = { off = 1 }",
                "1:15: apps.shop.log.off: found 1 (a number), expected nothing: write \"off\" alone".to_owned(),
            ),
            ("log = { file = 1 }", "1:16: apps.shop.log.file: found 1 (a number), expected a string".to_owned()),
            (
                "log = { syslog = {} }",
                "1:18: the key 'address' is missing in [apps.shop.log.syslog]".to_owned(),
            ),
        ] {
            assert_eq!(refused(text), format!("f.toml:{message}"));
        }
    }

    #[test]
    fn text_without_types_is_read_as_the_config_wants_it() {
        #[derive(Deserialize)]
        struct All {
            count: Option<i8>,
            share: f64,
            on: bool,
            text: String,
            timeout: Duration,
        }
        let entries = [("count", "-5"), ("share", "0.5"), ("on", "yes"), ("text", "1"), ("timeout", "1.5")];
        let table: Table =
            entries.into_iter().map(|(key, text)| (key, Value::untyped(text, Origin::unknown()))).collect();
        let all: All = Value::from(table).decode(&Path::root()).unwrap();
        assert_eq!((all.count, all.text.as_str(), all.timeout.as_millis()), (Some(-5), "1", 1500));
        assert!(all.on && all.share > 0.4);

        let flag = Value::untyped("many", Origin::named("flag --workers"));
        let error = flag.decode::<u16>(&Path::root().key("workers")).unwrap_err().to_string();
        let expected = "found \"many\" (a string), expected a whole number from 0 to 65535";
        assert_eq!(error, format!("flag --workers: workers: {expected}"));
    }

    #[test]
    fn what_serde_buffers_keeps_the_place_of_the_value_around_it() {
        #[derive(Debug, Deserialize)]
        #[allow(dead_code)]
        struct Outer {
            name: String,
            #[serde(flatten)]
            recycle: Recycle,
        }
        let tree = parse_toml("f.toml", "[inner]\nname = \"x\"\nrequests = \"y\"\n").unwrap();
        let error = tree.at(&["inner"]).unwrap().decode::<Outer>(&Path::root().key("inner")).unwrap_err();
        let expected = "f.toml:1:1: inner: found \"y\" (a string), expected a whole number from 0 up";
        assert!(error.to_string().starts_with(expected), "{error}");
    }

    #[test]
    fn an_owned_value_is_read_like_a_borrowed_one() {
        let tree = || parse_toml("f.toml", "requests = 5").unwrap();
        assert_eq!(Recycle::deserialize(tree()).unwrap().requests, 5);
        assert_eq!(Option::<Recycle>::deserialize(tree().into_deserializer()).unwrap().unwrap().requests, 5);
        assert!(matches!(
            Either::deserialize(Value::untyped("5", Origin::unknown())).unwrap(),
            Either::Word(_)
        ));
        assert!(
            Log::deserialize(Value::from("of")).unwrap_err().to_string().ends_with("did you mean 'off'?")
        );
    }

    /// Values of any shape under the keys of [`App`] and others.
    fn values() -> impl Strategy<Value = Value> {
        let keys = prop_oneof![
            "dir|env|workers|threads|timeout|errors|hosts|log|format|recycle",
            "either|pair|on|.*"
        ];
        let scalars = prop_oneof![
            "off|file|json|[0-9]{1,4}s?|.*".prop_map(Value::from),
            "[0-9]*|.*".prop_map(|text| Value::untyped(text, Origin::unknown())),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<bool>().prop_map(Value::from),
        ];
        scalars.prop_recursive(3, 32, 4, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::vec((keys.clone(), inner), 0..4)
                    .prop_map(|entries| Value::from(Table::from_iter(entries)))
            ]
        })
    }

    proptest! {
        #[test]
        fn any_value_is_read_or_refused_at_its_place(value in values()) {
            let value = value.with_origin(&Origin::named("flag"));
            if let Err(error) = value.decode::<App>(&Path::root()) {
                prop_assert!(!error.problems().is_empty());
                prop_assert!(error.problems().iter().all(|problem| problem.origin().is_known()));
            }
        }
    }
}
