//! The kinds that a configuration may name. Adding one is one line.

use std::fmt;

use indexmap::IndexMap;
use schemars::{Schema, SchemaGenerator};

use crate::config::{ConfigError, Path, Value, fields_of};
use crate::{AnyLayer, App, AppKind, LayerKind};

/// All kinds of applications and layers that a configuration may name.
///
/// See [`AppKind`] for an example.
#[derive(Default)]
pub struct Registry {
    apps: IndexMap<&'static str, AppEntry>,
    layers: IndexMap<&'static str, LayerEntry>,
}

/// A registered application kind.
pub struct AppEntry {
    name: &'static str,
    fields: Vec<String>,
    mounted: bool,
    has_processes: bool,
    schema: fn(&mut SchemaGenerator) -> Schema,
    parse: fn(&Value, &Path) -> Result<Box<dyn App>, ConfigError>,
}

/// A registered layer kind.
pub struct LayerEntry {
    name: &'static str,
    schema: fn(&mut SchemaGenerator) -> Schema,
    parse: fn(&Value, &Path) -> Result<Box<dyn AnyLayer>, ConfigError>,
}

/// Two kinds that cannot stand in one registry, or a kind that could not be named. A mistake in a program, found when
/// the registry is made.
#[derive(Debug)]
pub struct RegistryError(String);

impl Registry {
    /// A registry without kinds.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an application kind.
    ///
    /// # Errors
    /// When the name is taken, the settings have no field of that name, or a field is named like a layer.
    pub fn app<K: AppKind>(mut self) -> Result<Self, RegistryError> {
        let fields = fields_of::<K>();
        if !fields.iter().any(|field| field == K::NAME) {
            return Err(RegistryError(format!("application kind '{}' has no field of its name", K::NAME)));
        }
        if let Some(field) = fields.iter().find(|field| self.layers.contains_key(field.as_str())) {
            return Err(shadowed(field, K::NAME));
        }
        let entry = AppEntry {
            name: K::NAME,
            fields,
            mounted: K::MOUNTED,
            has_processes: K::HAS_PROCESSES,
            schema: SchemaGenerator::subschema_for::<K>,
            parse: |value, path| value.decode::<K>(path).map(|kind| Box::new(kind) as Box<dyn App>),
        };
        match self.apps.insert(K::NAME, entry) {
            Some(_) => Err(RegistryError(format!("application kind '{}' is registered twice", K::NAME))),
            None => Ok(self),
        }
    }

    /// Adds a layer kind.
    ///
    /// # Errors
    /// When the name is taken, or an application kind has a field of that name: the short key would be ambiguous.
    pub fn layer<K: LayerKind>(mut self) -> Result<Self, RegistryError> {
        if let Some(app) = self.apps.values().find(|app| app.fields.iter().any(|field| field == K::NAME)) {
            return Err(shadowed(K::NAME, app.name));
        }
        let entry = LayerEntry {
            name: K::NAME,
            schema: SchemaGenerator::subschema_for::<K>,
            parse: |value, path| value.decode::<K>(path).map(|kind| Box::new(kind) as Box<dyn AnyLayer>),
        };
        match self.layers.insert(K::NAME, entry) {
            Some(_) => Err(RegistryError(format!("layer kind '{}' is registered twice", K::NAME))),
            None => Ok(self),
        }
    }

    /// The application kinds, in the order of their registration.
    pub fn apps(&self) -> impl Iterator<Item = &AppEntry> {
        self.apps.values()
    }

    /// The layer kinds, in the order of their registration: of the short keys, the first stands outermost.
    pub fn layers(&self) -> impl Iterator<Item = &LayerEntry> {
        self.layers.values()
    }

    /// An application kind by its name.
    pub fn find_app(&self, name: &str) -> Option<&AppEntry> {
        self.apps.get(name)
    }

    /// A layer kind by its name.
    pub fn find_layer(&self, name: &str) -> Option<&LayerEntry> {
        self.layers.get(name)
    }
}

fn shadowed(layer: &str, app: &str) -> RegistryError {
    RegistryError(format!(
        "layer '{layer}' is named like a field of application kind '{app}'; rename one of them"
    ))
}

impl AppEntry {
    /// The key that names this kind.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The keys that this kind takes.
    pub fn fields(&self) -> &[String] {
        &self.fields
    }

    /// [`AppKind::MOUNTED`].
    pub fn mounted(&self) -> bool {
        self.mounted
    }

    /// [`AppKind::HAS_PROCESSES`].
    pub fn has_processes(&self) -> bool {
        self.has_processes
    }

    /// The JSON schema of its table.
    pub fn schema(&self, generator: &mut SchemaGenerator) -> Schema {
        (self.schema)(generator)
    }

    /// Reads its settings from the table that stands at `path` in the tree.
    ///
    /// # Errors
    /// What is wrong, with its place.
    pub fn parse(&self, table: &Value, path: &Path) -> Result<Box<dyn App>, ConfigError> {
        (self.parse)(table, path)
    }
}

impl LayerEntry {
    /// The key that names this kind.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The JSON schema of its value.
    pub fn schema(&self, generator: &mut SchemaGenerator) -> Schema {
        (self.schema)(generator)
    }

    /// Reads its settings from the value that stands at `path` in the tree.
    ///
    /// # Errors
    /// What is wrong, with its place.
    pub fn parse(&self, value: &Value, path: &Path) -> Result<Box<dyn AnyLayer>, ConfigError> {
        (self.parse)(value, path)
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry")
            .field("apps", &self.apps.keys().collect::<Vec<_>>())
            .field("layers", &self.layers.keys().collect::<Vec<_>>())
            .finish()
    }
}

impl fmt::Display for RegistryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for RegistryError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BuildError, Builder, Turtle};

    #[derive(Clone, serde::Deserialize, serde::Serialize, schemars::JsonSchema)]
    #[allow(dead_code, reason = "only the schema counts here")]
    struct Kind {
        named: String,
        index: Option<String>,
    }

    impl AppKind for Kind {
        const NAME: &'static str = "named";
        fn build(self, _: &mut Builder) -> Result<Turtle, BuildError> {
            Err(BuildError::new("never built"))
        }
    }

    #[derive(Clone, serde::Deserialize, serde::Serialize, schemars::JsonSchema)]
    struct Index(bool);

    impl LayerKind for Index {
        const NAME: &'static str = "index";
        fn wrap(self, inner: Turtle, _: &mut Builder) -> Result<Turtle, BuildError> {
            Ok(inner)
        }
    }

    #[test]
    fn a_layer_named_like_a_field_is_refused_in_either_order() {
        let app_first = Registry::new().app::<Kind>().unwrap().layer::<Index>().unwrap_err();
        let layer_first = Registry::new().layer::<Index>().unwrap().app::<Kind>().unwrap_err();
        assert_eq!(app_first.to_string(), layer_first.to_string());
        assert!(app_first.to_string().contains("layer 'index'"));
    }

    #[test]
    fn twice_is_refused() {
        assert!(Registry::new().app::<Kind>().unwrap().app::<Kind>().is_err());
    }
}
