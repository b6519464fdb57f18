//! `${VAR}` and `${VAR:-default}` in the strings and keys of a config.

use super::{ConfigError, Data, Origin, Table, Value};

/// Where variables are looked up.
type Lookup<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// Replaces variables in every string and every key of `value`.
///
/// - `${NAME}` becomes the variable's value; that it is not set is an error at the place of the string.
/// - `${NAME:-default}` becomes `default` where the variable is not set or empty, as in a shell. A default may
///   hold variables itself.
/// - `$${` becomes `${`.
///
/// A string in which something was replaced counts as [untyped](Value::untyped): `workers = "${WORKERS:-2}"`
/// fits where the config wants a number. The values of variables are not expanded again. All problems are
/// reported, not just the first.
///
/// ```
/// use hawksbill_core::config::{Origin, Path, Table, Value, expand};
///
/// let lookup = |name: &str| (name == "HOST").then(|| "example.com".to_owned());
/// let mut tree = Value::from(Table::from_iter([("url", "https://${HOST}:${PORT:-443}/$${x}")]));
/// expand(&mut tree, &lookup)?;
/// assert_eq!(tree.at(&["url"]).unwrap(), &Value::from("https://example.com:443/${x}"));
///
/// let mut value = Value::string("${WORKERS}", Origin::named("flag --workers"));
/// assert_eq!(
///     expand(&mut value, &lookup).unwrap_err().to_string(),
///     "flag --workers: the environment variable WORKERS is not set; \
///      set it, or give a default: ${WORKERS:-...}"
/// );
/// # Ok::<(), hawksbill_core::config::ConfigError>(())
/// ```
pub fn expand(value: &mut Value, lookup: &Lookup<'_>) -> Result<(), ConfigError> {
    let mut problems = Problems(None);
    expand_value(value, lookup, &mut problems);
    problems.0.map_or(Ok(()), Err)
}

/// The problems so far.
struct Problems(Option<ConfigError>);

impl Problems {
    fn add(&mut self, problem: ConfigError) {
        match &mut self.0 {
            Some(error) => error.extend(problem),
            None => self.0 = Some(problem),
        }
    }
}

fn expand_value(value: &mut Value, lookup: &Lookup<'_>, problems: &mut Problems) {
    match &mut value.data {
        Data::String(text) => match expand_text(text, lookup) {
            Ok(None) => {}
            Ok(Some(Expanded { text, replaced: true })) => {
                *value = Value::untyped(text, value.origin.clone());
            }
            Ok(Some(Expanded { text: unescaped, replaced: false })) => *text = unescaped,
            Err(message) => problems.add(ConfigError::new(value.origin.clone(), message)),
        },
        Data::Array(elements) => {
            for element in elements {
                expand_value(element, lookup, problems);
            }
        }
        Data::Table(table) => {
            let mut expanded = Table::new();
            for (key, key_origin, mut value) in std::mem::take(table) {
                expand_value(&mut value, lookup, problems);
                let key = expand_key(key, &key_origin, lookup, problems);
                if expanded.contains(&key) {
                    let message = format!("the key '{key}' stands in this table twice");
                    problems.add(ConfigError::new(key_origin, message));
                } else {
                    expanded.insert(key, key_origin, value);
                }
            }
            *table = expanded;
        }
        Data::Integer(_) | Data::Float(_) | Data::Boolean(_) => {}
    }
}

fn expand_key(key: String, origin: &Origin, lookup: &Lookup<'_>, problems: &mut Problems) -> String {
    match expand_text(&key, lookup) {
        Ok(None) => key,
        Ok(Some(expanded)) => expanded.text,
        Err(message) => {
            problems.add(ConfigError::new(origin.clone(), message));
            key
        }
    }
}

struct Expanded {
    text: String,
    /// Whether a variable was replaced, or only `$${` unescaped.
    replaced: bool,
}

/// The text with variables replaced; nothing if there is none in it.
fn expand_text(text: &str, lookup: &Lookup<'_>) -> Result<Option<Expanded>, String> {
    if !text.contains("${") {
        return Ok(None);
    }
    let mut expanded = Expanded { text: String::with_capacity(text.len()), replaced: false };
    expand_into(&mut expanded, text, lookup, 0)?;
    Ok(Some(expanded))
}

/// Defaults within defaults end here, so that no text can exhaust the stack.
const DEEPEST: usize = 16;

fn expand_into(out: &mut Expanded, text: &str, lookup: &Lookup<'_>, depth: usize) -> Result<(), String> {
    if depth > DEEPEST {
        return Err(format!("defaults stand within defaults more than {DEEPEST} deep"));
    }
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        let (before, from_dollar) = rest.split_at(dollar);
        out.text.push_str(before);
        if let Some(after) = from_dollar.strip_prefix("$${") {
            out.text.push_str("${");
            rest = after;
        } else if let Some(after) = from_dollar.strip_prefix("${") {
            let end = closing_brace(after).ok_or_else(|| unclosed(text))?;
            let (expression, after) = after.split_at(end);
            replace(out, expression, lookup, depth)?;
            rest = after.strip_prefix('}').unwrap_or(after);
        } else {
            out.text.push('$');
            rest = from_dollar.strip_prefix('$').unwrap_or(from_dollar);
        }
    }
    out.text.push_str(rest);
    Ok(())
}

/// Replaces one expression, what stands between `${` and `}`.
fn replace(out: &mut Expanded, expression: &str, lookup: &Lookup<'_>, depth: usize) -> Result<(), String> {
    let name_end =
        expression.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(expression.len());
    let (name, rest) = expression.split_at(name_end);
    let default = rest.strip_prefix(":-");
    let named = name.starts_with(|c: char| !c.is_ascii_digit());
    if !named || (default.is_none() && !rest.is_empty()) {
        return Err(format!(
            "'${{{expression}}}' is no variable; write ${{NAME}}, ${{NAME:-default}}, \
             or $${{ for the characters themselves"
        ));
    }
    out.replaced = true;
    match (lookup(name), default) {
        (Some(value), None) => out.text.push_str(&value),
        (Some(value), Some(_)) if !value.is_empty() => out.text.push_str(&value),
        (_, Some(default)) => expand_into(out, default, lookup, depth + 1)?,
        (None, None) => {
            return Err(format!(
                "the environment variable {name} is not set; set it, or give a default: ${{{name}:-...}}"
            ));
        }
    }
    Ok(())
}

/// Where the brace closes that was opened before `text`.
fn closing_brace(text: &str) -> Option<usize> {
    let mut open = 0_usize;
    let mut previous = char::default();
    for (position, character) in text.char_indices() {
        match character {
            '{' if previous == '$' => open += 1,
            '}' if open == 0 => return Some(position),
            '}' => open -= 1,
            _ => {}
        }
        previous = character;
    }
    None
}

fn unclosed(text: &str) -> String {
    format!("'${{' in {text:?} has no closing brace; write $${{ for the characters themselves")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::{Path, parse_toml};

    fn lookup(name: &str) -> Option<String> {
        match name {
            "HOST" => Some("example.com".to_owned()),
            "EMPTY" => Some(String::new()),
            "PRICE" => Some("${HOST}".to_owned()),
            _ => None,
        }
    }

    fn text(text: &str) -> Result<String, String> {
        let mut value = Value::from(text);
        expand(&mut value, &lookup).map_err(|error| error.to_string())?;
        Ok(value.as_str().unwrap().to_owned())
    }

    #[test]
    fn variables_defaults_and_escapes() {
        for (written, meant) in [
            ("plain $5 {x} $", "plain $5 {x} $"),
            ("${HOST}", "example.com"),
            ("a${HOST}b${HOST}c", "aexample.combexample.comc"),
            ("${NO:-x}", "x"),
            ("${NO:-}", ""),
            ("${EMPTY}", ""),
            ("${EMPTY:-x}", "x"),
            ("${NO:-${HOST}}/${NO:-${NO:-y}}", "example.com/y"),
            ("$${HOST}", "${HOST}"),
            ("$$${HOST}", "$${HOST}"),
            ("${PRICE}", "${HOST}"),
            ("${NO:-a:-b}", "a:-b"),
        ] {
            assert_eq!(text(written).unwrap(), meant, "{written}");
        }
    }

    #[test]
    fn what_is_no_variable_is_refused() {
        for (written, complaint) in [
            ("${}", "'${}' is no variable"),
            ("${1A}", "'${1A}' is no variable"),
            ("${A-b}", "'${A-b}' is no variable"),
            ("${A B}", "'${A B}' is no variable"),
            ("${HOST", "has no closing brace"),
            ("${NO:-${HOST}", "has no closing brace"),
            ("${NO}", "the environment variable NO is not set"),
        ] {
            let problem = text(written).unwrap_err();
            assert!(problem.contains(complaint), "{written}: {problem}");
        }
    }

    #[test]
    fn depth_is_bounded() {
        let deep = format!("{}x{}", "${A:-".repeat(10_000), "}".repeat(10_000));
        assert!(text(&deep).unwrap_err().contains("more than 16 deep"));
    }

    #[test]
    fn all_unset_variables_are_reported_each_at_its_place() {
        let file = "a = \"${ONE}\"\n[sites.\"${TWO}\"]\nb = [1, \"x${THREE}\"]\n";
        let mut tree = parse_toml("f.toml", file).unwrap();
        let error = expand(&mut tree, &lookup).unwrap_err();
        let places: Vec<String> = error.problems().iter().map(|p| p.origin().to_string()).collect();
        assert_eq!(places, ["f.toml:1:5", "f.toml:3:9", "f.toml:2:8"]);
    }

    #[test]
    fn keys_are_expanded_and_must_stay_apart() {
        let mut tree = parse_toml("f.toml", "[\"${HOST}\"]\na = 1\n[\"example.com\"]\na = 2\n").unwrap();
        let error = expand(&mut tree, &lookup).unwrap_err().to_string();
        assert!(error.starts_with("f.toml:3:2: the key 'example.com' stands in this table twice"), "{error}");
    }

    #[test]
    fn expanded_text_fits_where_numbers_and_booleans_are_wanted() {
        let mut tree =
            parse_toml("f.toml", "n = \"${N:-12}\"\nb = \"${B:-true}\"\nplain = \"12\"\n").unwrap();
        expand(&mut tree, &lookup).unwrap();
        let root = Path::root();
        assert_eq!(tree.at(&["n"]).unwrap().decode::<u8>(&root).unwrap(), 12);
        assert!(tree.at(&["b"]).unwrap().decode::<bool>(&root).unwrap());
        assert!(tree.at(&["plain"]).unwrap().decode::<u8>(&root).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_expanded_or_refused(written in "(\\$|\\{|\\}|:-|[A-Z]|.)*") {
            let _ = text(&written);
        }

        #[test]
        fn text_without_variables_is_left_alone(written in "[^$]*") {
            prop_assert_eq!(text(&written).unwrap(), written);
        }
    }
}
