//! From files, includes, environment and flags to one value tree, and from that to a [`Config`].

use std::path::{Path, PathBuf};

use hawksbill_core::Registry;
use hawksbill_core::config::{self, ConfigError, Origin, Table, Value};

use super::Config;

/// Tables of which an included file may hold entries.
const INCLUDABLE: [&str; 4] = ["apps", "sites", "services", "cron"];

impl Config {
    /// Reads a TOML file, the files it includes, and `${VAR}` from the environment. `over` is laid over the file: what
    /// flags and environment variables say.
    ///
    /// # Errors
    /// Everything that is wrong with the file, each problem with file, line and column.
    pub fn load(file: &Path, over: Table, registry: &Registry) -> Result<Self, ConfigError> {
        let mut value = parse_file(file)?;
        let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let dir = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
        let included = include(&mut value, &dir)?;
        value.overlay(Value::from(over));
        let config = Self::from_value(value, dir, registry)?;
        #[cfg(feature = "cli")]
        let config = Self { files: [file.to_owned()].into_iter().chain(included).collect(), ..config };
        #[cfg(not(feature = "cli"))]
        drop(included);
        Ok(config)
    }

    /// Reads TOML text. `name` is what errors call it, `dir` the directory from which relative paths count.
    ///
    /// # Errors
    /// Everything that is wrong with the text, each problem with line and column.
    pub fn parse(
        name: &str,
        toml: &str,
        dir: impl Into<PathBuf>,
        registry: &Registry,
    ) -> Result<Self, ConfigError> {
        let mut value = config::parse_toml(name, toml)?;
        expand(&mut value)?;
        let dir = dir.into();
        include(&mut value, &dir)?;
        Self::from_value(value, dir, registry)
    }
}

/// One key of the main file, whatever is wrong with the others: who controls a gateway has to find it even so.
#[cfg(feature = "cli")]
pub(crate) fn peek<T: serde::de::DeserializeOwned>(file: &Path, key: &str) -> Option<T> {
    let value = parse_file(file).ok()?;
    value.at(&[key])?.decode(&config::Path::root().key(key)).ok()
}

fn parse_file(file: &Path) -> Result<Value, ConfigError> {
    let name = file.display().to_string();
    let text = std::fs::read_to_string(file).map_err(|error| {
        let advice = match error.kind() {
            std::io::ErrorKind::NotFound => "there is no such file; name another with -c FILE".to_owned(),
            std::io::ErrorKind::InvalidData => "the file is not UTF-8 text".to_owned(),
            _ => format!("the file cannot be read: {error}"),
        };
        ConfigError::new(Origin::named(&name), advice)
    })?;
    let mut value = config::parse_toml(name, text)?;
    expand(&mut value)?;
    Ok(value)
}

fn expand(value: &mut Value) -> Result<(), ConfigError> {
    config::expand(value, &|variable| std::env::var(variable).ok())
}

/// Merges the files that `include` names into the tree, and gives their paths.
fn include(value: &mut Value, dir: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let mut files = Vec::new();
    let Some(table) = value.as_table_mut() else { return Ok(files) };
    let Some(patterns) = table.remove("include") else { return Ok(files) };
    for pattern in patterns.into_elements() {
        let Some(text) = pattern.as_str() else {
            return Err(pattern.mismatch("a path such as \"sites/*.toml\""));
        };
        let wrong = |why: String| ConfigError::new(pattern.origin.clone(), why).under("include");
        let absolute = dir.join(text);
        let paths = glob::glob(&absolute.to_string_lossy())
            .map_err(|error| wrong(format!("'{text}' is not a pattern for files: {error}")))?;
        let mut found = false;
        for path in paths {
            let path = path.map_err(|error| {
                wrong(format!("cannot read {}: {}", error.path().display(), error.error()))
            })?;
            found = true;
            merge(table, parse_file(&path)?)?;
            files.push(path);
        }
        // A pattern may match nothing (no sites yet); a plain name that does not exist is a slip.
        if !found && !text.contains(['*', '?', '[']) {
            return Err(wrong(format!("there is no file {}", absolute.display())));
        }
    }
    Ok(files)
}

fn merge(main: &mut Table, included: Value) -> Result<(), ConfigError> {
    for (section, origin, value) in included.into_table()? {
        if !INCLUDABLE.contains(&section.as_str()) {
            let message = format!(
                "'{section}' belongs into the main file; an included file holds {}",
                INCLUDABLE.join(", ")
            );
            return Err(ConfigError::new(origin, message));
        }
        let entries = value.into_table().map_err(|error| error.under(&section))?;
        if !main.contains(&section) {
            main.insert(&section, origin, Value::from(Table::new()));
        }
        let Some(known) = main.get_mut(&section).and_then(Value::as_table_mut) else { continue };
        for (name, origin, value) in entries {
            if let Some(first) = known.key_origin(&name) {
                let message = format!("'{name}' is defined twice; the first time at {first}");
                return Err(ConfigError::new(origin, message).under(&section));
            }
            known.insert(name, origin, value);
        }
    }
    Ok(())
}

/// Where a key of the table was written, as a short text for [`hawksbill_core::BuildError`].
pub(crate) fn place(origin: &Origin, what: &str) -> String {
    if origin.position().is_some() { format!("{origin}: {what}") } else { what.to_owned() }
}
