//! TOML read into the config tree, with the place of every key and value.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::{ConfigError, Data, Origin, Source, Table, Value};

/// Reads the text of a TOML file; `name` is what messages call the file.
///
/// Syntax errors, whole numbers beyond 64 bits, and dates (which no key of a config takes) are refused at their
/// place. Keys keep the order in which they were written.
///
/// ```
/// use hawksbill_core::config::{Value, parse_toml};
///
/// let tree = parse_toml("hawksbill.toml", "[apps.shop]\nworkers = 2\n")?;
/// assert_eq!(tree.at(&["apps", "shop", "workers"]), Some(&Value::from(2)));
/// assert_eq!(tree.at(&["apps", "shop", "workers"]).unwrap().origin.to_string(), "hawksbill.toml:2:11");
///
/// let error = parse_toml("hawksbill.toml", "listen = :80\n").unwrap_err();
/// assert!(error.to_string().starts_with("hawksbill.toml:1:10: "));
/// # Ok::<(), hawksbill_core::config::ConfigError>(())
/// ```
pub fn parse_toml(name: impl Into<String>, text: impl Into<String>) -> Result<Value, ConfigError> {
    let source = Source::new(name, text);
    let (root, errors) = DeTable::parse_recoverable(source.text());
    if let Some(error) = syntax_errors(&source, &errors) {
        return Err(error);
    }
    let span = root.span();
    Ok(Value::new(table(&source, root.into_inner())?, source.origin(span)))
}

/// The parser goes on after an error: the first one of each line is told, in order, as far as a screen holds
/// them; the others on a line mostly follow from the first.
fn syntax_errors(source: &Source, errors: &[toml::de::Error]) -> Option<ConfigError> {
    const MOST: usize = 5;
    let mut places: Vec<_> = errors.iter().map(|error| (error.span().unwrap_or_default(), error)).collect();
    places.sort_by_key(|(span, _)| span.start);
    let mut located: Vec<_> =
        places.into_iter().map(|(span, error)| (source.origin(span), error.message())).collect();
    located.dedup_by_key(|(origin, _)| origin.position().map(|position| position.line));
    let problem =
        |(origin, message): (Origin, &str)| ConfigError::new(origin, format!("this is not TOML: {message}"));
    located.into_iter().take(MOST).map(problem).reduce(|mut all, next| {
        all.extend(next);
        all
    })
}

fn table(source: &Source, parsed: DeTable<'_>) -> Result<Table, ConfigError> {
    let mut entries: Vec<_> = parsed.into_iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    let mut table = Table::new();
    for (key, parsed) in entries {
        let key_span = key.span();
        // A table that only headers further in have named, as `apps` by `[apps.shop]`, has no text of its own.
        let span = if parsed.span().is_empty() { key_span.clone() } else { parsed.span() };
        let value = value(source, parsed.into_inner(), span)?;
        table.insert(key.into_inner(), source.origin(key_span), value);
    }
    Ok(table)
}

fn value(source: &Source, parsed: DeValue<'_>, span: Range<usize>) -> Result<Value, ConfigError> {
    let origin = source.origin(span);
    let data = match parsed {
        DeValue::String(text) => Data::String(text.into_owned()),
        DeValue::Integer(digits) => Data::Integer(
            i64::from_str_radix(digits.as_str(), digits.radix())
                .map_err(|_| out_of_range(&origin, digits.as_str(), "a 64-bit whole number"))?,
        ),
        DeValue::Float(digits) => Data::Float(
            (digits.as_str().parse().ok())
                .filter(|number: &f64| !number.is_infinite() || digits.as_str().contains("inf"))
                .ok_or_else(|| out_of_range(&origin, digits.as_str(), "a 64-bit floating-point number"))?,
        ),
        DeValue::Boolean(truth) => Data::Boolean(truth),
        DeValue::Datetime(datetime) => {
            let message = format!("dates and times are not supported; write it as a string: \"{datetime}\"");
            return Err(ConfigError::new(origin, message));
        }
        DeValue::Array(elements) => {
            let element = |element: toml::Spanned<DeValue<'_>>| {
                let span = element.span();
                value(source, element.into_inner(), span)
            };
            Data::Array(elements.into_iter().map(element).collect::<Result<_, _>>()?)
        }
        DeValue::Table(entries) => Data::Table(table(source, entries)?),
    };
    Ok(Value::new(data, origin))
}

fn out_of_range(origin: &Origin, digits: &str, limit: &str) -> ConfigError {
    ConfigError::new(origin.clone(), format!("{digits} is beyond the range of {limit}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refused(text: &str) -> String {
        parse_toml("f.toml", text).unwrap_err().to_string()
    }

    #[test]
    fn every_key_and_value_knows_its_place() {
        let tree =
            parse_toml("f.toml", "listen = [\":80\", \":443\"]\n\n[apps.shop]\n  env = { A = \"x\" }\n");
        let tree = tree.unwrap();
        let apps = tree.at(&["apps"]).unwrap().as_table().unwrap();
        let shop = tree.at(&["apps", "shop"]).unwrap().as_table().unwrap();
        let env = tree.at(&["apps", "shop", "env"]).unwrap();
        let places = [
            tree.as_table().unwrap().key_origin("listen").unwrap(),
            &tree.at(&["listen"]).unwrap().as_array().unwrap()[1].origin,
            &tree.at(&["apps"]).unwrap().origin,
            apps.key_origin("shop").unwrap(),
            &apps.get("shop").unwrap().origin,
            shop.key_origin("env").unwrap(),
            &env.origin,
            env.as_table().unwrap().key_origin("A").unwrap(),
        ]
        .map(ToString::to_string);
        let expected = ["1:1", "1:18", "3:2", "3:7", "3:1", "4:3", "4:9", "4:11"];
        assert_eq!(places, expected.map(|place| format!("f.toml:{place}")));
    }

    #[test]
    fn order_is_kept() {
        let tree = parse_toml("f.toml", "z = 1\na.c = 1\nm = 2\na.b = 1\n[k]\n[b]\n").unwrap();
        assert_eq!(tree.as_table().unwrap().keys().collect::<Vec<_>>(), ["z", "a", "m", "k", "b"]);
        assert_eq!(tree.at(&["a"]).unwrap().as_table().unwrap().keys().collect::<Vec<_>>(), ["c", "b"]);
    }

    #[test]
    fn all_kinds_of_values_are_read() {
        let tree =
            parse_toml("f.toml", "a = 0x10\nb = 1_000.5\nc = true\nd = '''x'''\ne = inf\nf = -1_0").unwrap();
        assert_eq!(tree.at(&["a"]), Some(&Value::from(16)));
        assert_eq!(tree.at(&["b"]), Some(&Value::from(1000.5)));
        assert_eq!(tree.at(&["c"]), Some(&Value::from(true)));
        assert_eq!(tree.at(&["d"]), Some(&Value::from("x")));
        assert_eq!(tree.at(&["e"]), Some(&Value::from(f64::INFINITY)));
        assert_eq!(tree.at(&["f"]), Some(&Value::from(-10)));
    }

    #[test]
    fn syntax_errors_have_their_place_and_line() {
        assert_eq!(
            refused("[apps.shop]\nworkers = \n"),
            "f.toml:2:11: this is not TOML: string values must be quoted, expected literal string\n  \
               |\n\
             2 | workers = \n  \
               |           ^"
        );
        let twice = refused("a = 1\na = 2\n");
        assert!(twice.starts_with("f.toml:2:1: this is not TOML: duplicate key"), "{twice}");
    }

    #[test]
    fn each_broken_line_is_told_once_and_in_order() {
        let error = parse_toml("f.toml", "a = 'x'\nb = [1 2 3]\nc = yes\n").unwrap_err();
        let lines: Vec<_> = error.problems().iter().map(|p| p.origin().position().unwrap().line).collect();
        assert_eq!(lines, [2, 3]);
        let many = parse_toml("f.toml", "a = yes\nb = yes\n".repeat(100)).unwrap_err();
        assert_eq!(many.problems().len(), 5);
    }

    #[test]
    fn dates_and_numbers_out_of_range_are_refused() {
        let date = refused("since = 2026-11-21\n");
        assert!(
            date.starts_with("f.toml:1:9: dates and times are not supported; write it as a string"),
            "{date}"
        );
        let huge = refused("n = 9223372036854775808\n");
        assert!(huge.starts_with("f.toml:1:5: 9223372036854775808 is beyond the range"), "{huge}");
        assert!(refused("n = 1e999").contains("is beyond the range"));
    }

    #[test]
    fn depth_is_bounded() {
        let deep = format!("a = {}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(parse_toml("f.toml", deep).is_err());
    }

    fn values() -> impl Strategy<Value = Value> {
        let scalars = prop_oneof![
            ".*".prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_filter("NaN equals nothing", |number| !number.is_nan()).prop_map(Value::from),
            any::<bool>().prop_map(Value::from),
        ];
        scalars.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                tables(inner).prop_map(Value::from)
            ]
        })
    }

    fn tables(values: impl Strategy<Value = Value>) -> impl Strategy<Value = Table> {
        proptest::collection::vec((".*", values), 0..4).prop_map(Table::from_iter)
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(table in tables(values())) {
            let text = toml::to_string(&table).unwrap();
            prop_assert_eq!(parse_toml("f.toml", text).unwrap(), Value::from(table));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "(\\[|\\]|\\{|\\}|=|\"|'|\n|[a-z0-9.]|.)*") {
            if let Err(error) = parse_toml("f.toml", text) {
                prop_assert!(error.to_string().starts_with("f.toml:"));
            }
        }
    }
}
