//! Flags made from the kinds' own settings: the same names, the same documentation.

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches};
use hawksbill_core::Registry;
use hawksbill_core::config::{ConfigError, Origin, Table, Value};
use schemars::SchemaGenerator;

use crate::config::{Processes, Settings};

/// The kind of application that is told apart by looking; its settings are the flags of an application.
const LOOKED_AT: &str = "callable";
/// The kinds that a flag may choose instead.
const CHOSEN: [&str; 3] = ["wsgi", "asgi", "django"];

/// One key of the configuration as a flag.
struct Flag {
    key: String,
    help: String,
    /// It may stand without a value, and means yes then.
    switch: bool,
}

/// All flags of `run` and `check`.
pub(super) struct Flags {
    settings: Vec<Flag>,
    app: Vec<Flag>,
}

impl Flags {
    pub(super) fn new(registry: &Registry) -> Self {
        let mut generator = SchemaGenerator::default();
        let mut settings = fields(generator.subschema_for::<Settings>().as_value(), &generator);
        for layer in registry.layers() {
            let schema = layer.schema(&mut generator);
            let schema = resolve(schema.as_value(), &generator);
            let (help, switch) = (description(schema), is_switch(schema));
            settings.push(Flag { key: layer.name().to_owned(), help, switch });
        }
        let mut app = Vec::new();
        if let Some(kind) = registry.find_app(LOOKED_AT) {
            let schema = kind.schema(&mut generator);
            app = fields(schema.as_value(), &generator);
            app.retain(|flag| flag.key != LOOKED_AT);
            let mut processes = fields(generator.subschema_for::<Processes>().as_value(), &generator);
            // With one application both mean the same.
            processes.retain(|flag| settings.iter().all(|other| other.key != flag.key));
            app.extend(processes);
        }
        Self { settings, app }
    }

    pub(super) fn args(&self) -> Vec<Arg> {
        let valued = |flag: &Flag, heading: &'static str| {
            let arg = Arg::new(flag.key.clone())
                .long(flag.key.replace('_', "-"))
                .env(format!("HAWKSBILL_{}", flag.key.to_uppercase()))
                .value_name("VALUE")
                .action(ArgAction::Append)
                .help(flag.help.clone())
                .help_heading(heading);
            // Its value follows after '=', for what stands behind it may be the application.
            if flag.switch {
                arg.num_args(0..=1).require_equals(true).default_missing_value("true")
            } else {
                arg
            }
        };
        let mut args: Vec<Arg> = self.settings.iter().map(|flag| valued(flag, "Gateway")).collect();
        args.extend(self.app.iter().map(|flag| valued(flag, "Application")));
        if !self.app.is_empty() {
            args.extend(CHOSEN.iter().map(|kind| {
                Arg::new(*kind)
                    .long(*kind)
                    .action(ArgAction::SetTrue)
                    .conflicts_with_all(CHOSEN.iter().filter(|other| *other != kind))
                    .requires("TARGET")
                    .help(match *kind {
                        "django" => "TARGET is the settings module of a Django project".to_owned(),
                        other => {
                            format!("The application is {}, whatever it looks like", other.to_uppercase())
                        }
                    })
                    .help_heading("Application")
            }));
        }
        args
    }

    /// What flags and environment say of the gateway.
    pub(super) fn settings(&self, matches: &ArgMatches) -> Table {
        table(&self.settings, matches)
    }

    /// The application that TARGET or a project names, and its name in the configuration: its module's first part.
    /// `kind` is what the project knows of it.
    pub(super) fn app(
        &self,
        matches: &ArgMatches,
        target: &str,
        kind: Option<&'static str>,
    ) -> Result<(String, Table), ConfigError> {
        if self.app.is_empty() {
            let message = "this build of hawksbill hosts no Python; use a configuration file, with -c FILE";
            return Err(ConfigError::new(Origin::named("TARGET"), message));
        }
        let chosen = CHOSEN.into_iter().find(|kind| matches.get_flag(kind));
        let kind = chosen.or(kind).unwrap_or(LOOKED_AT);
        let mut app = Table::new();
        app.insert(kind, Origin::named("TARGET"), Value::string(target, Origin::named("TARGET")));
        for (key, origin, value) in table(&self.app, matches) {
            app.insert(key, origin, value);
        }
        let name = target.split([':', '.']).next().filter(|name| !name.is_empty()).unwrap_or("app");
        Ok((name.to_owned(), app))
    }

    /// The place of a flag that concerns an application, if one was given on the command line.
    pub(super) fn app_flag_given(&self, matches: &ArgMatches) -> Option<Origin> {
        let given = |flag: &&Flag| matches.value_source(&flag.key) == Some(ValueSource::CommandLine);
        self.app.iter().find(given).map(|flag| origin(flag, matches))
    }
}

fn table(flags: &[Flag], matches: &ArgMatches) -> Table {
    let mut table = Table::new();
    for flag in flags {
        let Some(values) = matches.get_many::<String>(&flag.key) else { continue };
        let origin = origin(flag, matches);
        let mut values: Vec<Value> =
            values.map(|text| Value::untyped(text.clone(), origin.clone())).collect();
        let value = match values.len() {
            1 => values.remove(0),
            _ => Value::new(values, origin.clone()),
        };
        table.insert(&flag.key, origin, value);
    }
    table
}

fn origin(flag: &Flag, matches: &ArgMatches) -> Origin {
    match matches.value_source(&flag.key) {
        Some(ValueSource::EnvVariable) => {
            Origin::named(format!("environment variable HAWKSBILL_{}", flag.key.to_uppercase()))
        }
        _ => Origin::named(format!("flag --{}", flag.key.replace('_', "-"))),
    }
}

/// The fields of a schema with the first sentence of their documentation.
fn fields(schema: &serde_json::Value, generator: &SchemaGenerator) -> Vec<Flag> {
    let properties = resolve(schema, generator).get("properties").and_then(serde_json::Value::as_object);
    // A table has no spelling as a flag.
    let is_table = |schema| {
        let schema = resolve(schema, generator);
        ["properties", "additionalProperties"].iter().any(|key| schema.get(key).is_some())
    };
    let plain = properties.into_iter().flatten().filter(|(_, schema)| !is_table(schema));
    plain
        .map(|(key, schema)| Flag { key: key.clone(), help: description(schema), switch: is_switch(schema) })
        .collect()
}

fn is_switch(schema: &serde_json::Value) -> bool {
    schema.get("type").is_some_and(|kind| kind == "boolean")
}

/// Follows a reference into the generator's definitions.
pub(super) fn resolve<'a>(
    schema: &'a serde_json::Value,
    generator: &'a SchemaGenerator,
) -> &'a serde_json::Value {
    let name =
        schema.get("$ref").and_then(serde_json::Value::as_str).and_then(|path| path.rsplit('/').next());
    name.and_then(|name| generator.definitions().get(name)).unwrap_or(schema)
}

fn description(schema: &serde_json::Value) -> String {
    let text = schema.get("description").and_then(serde_json::Value::as_str).unwrap_or_default();
    let text = text.replace('\n', " ").replace('`', "");
    let end = text.find(". ").unwrap_or(text.len());
    text.get(..end).unwrap_or_default().trim_end_matches('.').to_owned()
}
