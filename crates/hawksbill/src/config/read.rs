//! From a value tree to a [`Config`]: tables are dispatched by hand, so that every error keeps its place.

use std::path::PathBuf;

use hawksbill_core::config::{
    ConfigError, HostPattern, Listen, OneOrMany, Origin, Path, Table, Value, fields_of,
};
use hawksbill_core::{App, Registry};
use indexmap::IndexMap;
use serde::de::DeserializeOwned;

use super::{AppNode, Config, LayerNode, Placed, Processes, Route, Settings, Site, Stack, Target, unbuilt};

/// Bounds that hold where the configuration says nothing.
const DEFAULT_LIMITS: [(&str, &str); 1] = [("max_body", "1GB")];

impl Config {
    /// Reads a value tree, however it came to be. Relative paths count from `dir`.
    ///
    /// # Errors
    /// Everything that is wrong with it, each problem with its place.
    pub fn from_value(
        value: Value,
        dir: impl Into<PathBuf>,
        registry: &Registry,
    ) -> Result<Self, ConfigError> {
        Self::from_value_with(value, dir, registry, IndexMap::new())
    }

    /// As [`Config::from_value`], with applications that are objects of the running program: a name in the tree and
    /// an entry in this table beside it.
    ///
    /// # Errors
    /// As [`Config::from_value`].
    pub fn from_value_with(
        value: Value,
        dir: impl Into<PathBuf>,
        registry: &Registry,
        live: IndexMap<String, AppNode>,
    ) -> Result<Self, ConfigError> {
        let mut reader = Reader { registry, problems: None };
        #[cfg(feature = "cli")]
        let source = value.clone();
        let config = reader.top(value, dir.into(), live);
        #[cfg(feature = "cli")]
        let config = config.map(|config| Self { source: Some(source), ..config });
        match (config, reader.problems) {
            (Ok(config), None) => Ok(config),
            (Ok(_), Some(problems)) => Err(problems),
            (Err(error), None) => Err(error),
            (Err(error), Some(mut problems)) => {
                problems.extend(error);
                Err(problems)
            }
        }
    }
}

/// Reads on after a problem, so that one look at the output shows all that is wrong.
struct Reader<'r> {
    registry: &'r Registry,
    problems: Option<ConfigError>,
}

impl Reader<'_> {
    fn note(&mut self, error: ConfigError) {
        match &mut self.problems {
            Some(problems) => problems.extend(error),
            None => self.problems = Some(error),
        }
    }

    /// Notes a problem and goes on without the value.
    fn keep<T>(&mut self, result: Result<T, ConfigError>) -> Option<T> {
        result.map_err(|error| self.note(error)).ok()
    }

    fn top(
        &mut self,
        value: Value,
        dir: PathBuf,
        live: IndexMap<String, AppNode>,
    ) -> Result<Config, ConfigError> {
        let root = Path::root();
        let origin = value.origin.clone();
        let mut table = value.into_table()?;
        let apps = table.remove("apps");
        let sites = table.remove("sites");
        let programs = (table.remove("services"), table.remove("cron"));
        for (key, value) in DEFAULT_LIMITS {
            if self.registry.find_layer(key).is_some() && !table.contains(key) {
                table.insert(key, Origin::named("default"), Value::from(value));
            }
        }
        let layers = self.stack(&mut table, &root);
        let settings_keys = fields_of::<Settings>();
        let allowed = settings_keys
            .iter()
            .map(String::as_str)
            .chain(["include", "apps", "sites", "services", "cron", "layers"]);
        let names: Vec<&str> = self.layer_names().collect();
        let allowed: Vec<&str> = allowed.chain(names.iter().copied()).collect();
        self.refuse_unknown(&mut table, &root, &allowed, &settings_keys, &[unbuilt::TOP, unbuilt::LAYER]);
        let settings = self.keep(Value::new(table, origin).decode::<Settings>(&root)).unwrap_or_default();

        let mut config = Config { dir, settings, layers, apps: live, ..Config::empty("") };
        config.services = self.placed(programs.0, "services");
        config.cron = self.placed(programs.1, "cron");
        if let Some(apps) = apps {
            for (name, key, value) in apps.into_table().map_err(|error| error.under("apps"))? {
                let path = root.key("apps").key(&name);
                if let Some((app, processes)) = self.app(value, &path) {
                    config.apps.insert(name, AppNode { app, processes, origin: key });
                }
            }
        }
        if let Some(sites) = sites {
            for (name, key, value) in sites.into_table().map_err(|error| error.under("sites"))? {
                let path = root.key("sites").key(&name);
                if let Some(site) = self.site(&name, key, value, &path, &config.apps) {
                    config.sites.push(site);
                }
            }
        }
        Ok(config)
    }

    /// Tables of one kind by their names.
    fn placed<T: DeserializeOwned>(
        &mut self,
        tables: Option<Value>,
        key: &str,
    ) -> IndexMap<String, Placed<T>> {
        let tables = tables.map(|tables| tables.into_table().map_err(|error| error.under(key)));
        let tables = tables.and_then(|tables| self.keep(tables));
        let mut placed = IndexMap::new();
        for (name, origin, value) in tables.into_iter().flatten() {
            let table = value.decode::<T>(&Path::root().key(key).key(&name));
            if let Some(table) = self.keep(table) {
                placed.insert(name, Placed { table, origin });
            }
        }
        placed
    }

    fn layer_names(&self) -> impl Iterator<Item = &'static str> + use<> {
        let names: Vec<_> = self.registry.layers().map(hawksbill_core::LayerEntry::name).collect();
        names.into_iter()
    }

    /// Takes the keys that nobody knows out of the table, each with an error.
    fn refuse_unknown(
        &mut self,
        table: &mut Table,
        path: &Path,
        allowed: &[&str],
        known: &[String],
        unbuilt: &[&[&str]],
    ) {
        let unknown: Vec<String> =
            table.keys().filter(|key| !known.iter().any(|name| name == key)).map(str::to_owned).collect();
        for key in unknown {
            let Some((origin, _)) = table.remove_entry(&key) else { continue };
            let error = if unbuilt.iter().any(|names| names.contains(&key.as_str())) {
                ConfigError::not_built(origin, &key, None)
            } else {
                ConfigError::unknown_key(origin, &key, allowed.iter().copied())
            };
            self.note(error.within(path));
        }
    }

    /// Takes `layers` and the short keys out of a table.
    fn stack(&mut self, table: &mut Table, path: &Path) -> Stack {
        let mut stack = Stack::default();
        for (rank, entry) in self.registry.layers().enumerate() {
            let Some((origin, value)) = table.remove_entry(entry.name()) else { continue };
            if let Some(layer) = self.keep(entry.parse(&value, &path.key(entry.name()))) {
                stack.short.push(LayerNode { layer, origin, rank });
            }
        }
        if let Some(list) = table.remove("layers") {
            let path = path.key("layers");
            match list.as_array() {
                Some(items) => {
                    for (index, item) in items.iter().enumerate() {
                        let layer = self.layer(item, &path.index(index));
                        stack.list.extend(self.keep(layer));
                    }
                }
                None => self.note(list.mismatch("an array of layers such as { log = \"-\" }").within(&path)),
            }
        }
        stack
    }

    /// One item of `layers`: a table whose one key names the layer.
    fn layer(&self, item: &Value, path: &Path) -> Result<LayerNode, ConfigError> {
        let single = item.as_table().filter(|table| table.len() == 1).and_then(|table| table.iter().next());
        let Some((name, origin, value)) = single else {
            return Err(item
                .mismatch("a table with one key, the layer's name, such as { log = \"-\" }")
                .within(path));
        };
        match self.registry.find_layer(name) {
            Some(entry) => {
                let layer = entry.parse(value, &path.key(name))?;
                Ok(LayerNode { layer, origin: origin.clone(), rank: 0 })
            }
            None if unbuilt::LAYER.contains(&name) => {
                Err(ConfigError::not_built(origin.clone(), name, None).within(path))
            }
            None => Err(ConfigError::unknown_key(origin.clone(), name, self.layer_names()).within(path)),
        }
    }

    fn app(&mut self, value: Value, path: &Path) -> Option<(Box<dyn App>, Option<Processes>)> {
        let origin = value.origin.clone();
        let mut table = self.keep(value.into_table().map_err(|error| error.within(path)))?;
        let has_processes =
            self.registry.apps().any(|kind| kind.has_processes() && table.contains(kind.name()));
        if !has_processes {
            return self.kind(&mut table, origin, path, unbuilt::APP, &[]).map(|app| (app, None));
        }
        let keys = fields_of::<Processes>();
        let mut own = Table::new();
        for key in &keys {
            if let Some((at, value)) = table.remove_entry(key) {
                own.insert(key, at, value);
            }
        }
        let processes = self.keep(Value::new(own, origin.clone()).decode::<Processes>(path));
        let others: Vec<&str> = keys.iter().map(String::as_str).collect();
        let app = self.kind(&mut table, origin, path, unbuilt::APP, &others)?;
        Some((app, Some(processes?)))
    }

    /// An application of the kind that one of the table's keys names.
    fn kind(
        &mut self,
        table: &mut Table,
        origin: Origin,
        path: &Path,
        unbuilt: &[&str],
        others: &[&str],
    ) -> Option<Box<dyn App>> {
        let mut named = self.registry.apps().filter(|entry| table.contains(entry.name()));
        let (Some(entry), second) = (named.next(), named.next()) else {
            let error = self.no_kind(table, origin, unbuilt, others);
            self.note(error.within(path));
            return None;
        };
        if let Some(second) = second {
            let message = format!(
                "'{}' and '{}' are two kinds of application; keep one of them",
                entry.name(),
                second.name()
            );
            let place = table.key_origin(second.name()).cloned().unwrap_or(origin);
            self.note(ConfigError::new(place, message).within(path));
            return None;
        }
        let allowed: Vec<&str> =
            entry.fields().iter().map(String::as_str).chain(others.iter().copied()).collect();
        self.refuse_unknown(table, path, &allowed, entry.fields(), &[unbuilt]);
        let value = Value::new(std::mem::take(table), origin);
        self.keep(entry.parse(&value, path))
    }

    fn no_kind(&self, table: &Table, origin: Origin, unbuilt: &[&str], others: &[&str]) -> ConfigError {
        let kinds: Vec<&str> = self.registry.apps().map(hawksbill_core::AppEntry::name).collect();
        let candidates = || kinds.iter().copied().chain(others.iter().copied());
        match table.iter().next() {
            Some((key, place, _)) if unbuilt.contains(&key) => {
                ConfigError::not_built(place.clone(), key, None)
            }
            Some((key, place, _)) if !candidates().any(|name| name == key) => {
                ConfigError::unknown_key(place.clone(), key, candidates())
            }
            _ => ConfigError::new(
                origin,
                format!("it is not said what answers here; add one of {}", kinds.join(", ")),
            ),
        }
    }

    fn site(
        &mut self,
        name: &str,
        origin: Origin,
        value: Value,
        path: &Path,
        apps: &IndexMap<String, AppNode>,
    ) -> Option<Site> {
        let mut table = self.keep(value.into_table().map_err(|error| error.within(path)))?;
        let mut hosts = Vec::new();
        for word in name.split_whitespace() {
            let host = Value::string(word, origin.clone()).decode::<HostPattern>(&Path::root().key("sites"));
            hosts.extend(self.keep(host));
        }
        if hosts.is_empty() && name.split_whitespace().next().is_none() {
            let message = "a site needs the name of a host; \"*\" answers for every host";
            self.note(ConfigError::new(origin.clone(), message).within(path));
        }
        let layers = self.stack(&mut table, path);
        let listen =
            table.remove("listen").map(|value| value.decode::<OneOrMany<Listen>>(&path.key("listen")));
        let listen = listen.and_then(|listen| self.keep(listen)).map(Vec::from).unwrap_or_default();

        let mut routes = Vec::new();
        let prefixes: Vec<String> =
            table.keys().filter(|key| key.starts_with('/')).map(str::to_owned).collect();
        for prefix in prefixes {
            let Some((key, value)) = table.remove_entry(&prefix) else { continue };
            let at = path.key(&prefix);
            routes.extend(self.route(prefix, key, value, &at, apps));
        }
        let allowed: Vec<&str> =
            ["listen", "layers"].into_iter().chain(self.layer_names()).chain(["\"/path\""]).collect();
        self.refuse_unknown(&mut table, path, &allowed, &[], &[unbuilt::SITE, unbuilt::LAYER]);
        Some(Site {
            name: name.split_whitespace().next().unwrap_or("-").to_owned(),
            hosts,
            listen,
            layers,
            routes,
            origin,
        })
    }

    fn route(
        &mut self,
        prefix: String,
        origin: Origin,
        value: Value,
        path: &Path,
        apps: &IndexMap<String, AppNode>,
    ) -> Option<Route> {
        let known = |name: &Value| -> Result<Target, ConfigError> {
            match name.as_str() {
                Some(text) if apps.contains_key(text) => Ok(Target::Named(text.to_owned())),
                Some(text) => {
                    let names = apps.keys().map(String::as_str);
                    let near = hawksbill_core::config::did_you_mean(text, names);
                    let hint = near.map_or_else(
                        || format!("; add [apps.{text}]"),
                        |near| format!("; did you mean '{near}'?"),
                    );
                    let message = format!("there is no application '{text}'{hint}");
                    Err(ConfigError::new(name.origin.clone(), message).within(path))
                }
                None => Err(name.mismatch("the name of an application, or a table").within(path)),
            }
        };
        if value.as_array().is_some() {
            let error = ConfigError::not_built(
                value.origin,
                "when / split",
                Some("A route leads to one application."),
            );
            self.note(error.within(path));
            return None;
        }
        if value.as_table().is_none() {
            let target = known(&value);
            return self.keep(target).map(|target| Route {
                path: prefix,
                target,
                mount: false,
                layers: Stack::default(),
                origin,
            });
        }
        let table_origin = value.origin.clone();
        let mut table = self.keep(value.into_table())?;
        let layers = self.stack(&mut table, path);
        let (target, mount) = match (table.remove("app"), table.remove("mount")) {
            (Some(_), Some(mount)) => {
                let message = "'app' and 'mount' both name an application; keep one of them: 'mount' also sets SCRIPT_NAME / root_path";
                self.note(ConfigError::new(mount.origin, message).within(path));
                return None;
            }
            (Some(name), None) => (self.keep(known(&name))?, false),
            (None, Some(name)) => (self.keep(known(&name))?, true),
            (None, None) => {
                let others: Vec<&str> =
                    ["app", "mount", "layers"].into_iter().chain(self.layer_names()).collect();
                let app = self.kind(&mut table, table_origin, path, &unbuilt_in_route(), &others)?;
                let mount = app.mounted();
                (Target::Inline(app), mount)
            }
        };
        let allowed: Vec<&str> = ["app", "mount", "layers"].into_iter().chain(self.layer_names()).collect();
        self.refuse_unknown(&mut table, path, &allowed, &[], &[unbuilt::ROUTE, unbuilt::LAYER]);
        Some(Route { path: prefix, target, mount, layers, origin })
    }
}

fn unbuilt_in_route() -> Vec<&'static str> {
    [unbuilt::ROUTE, unbuilt::APP, unbuilt::LAYER].concat()
}
