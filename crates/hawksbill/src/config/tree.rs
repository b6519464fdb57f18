//! The tree of turtles as text: what `hawksbill check` prints.

use std::fmt::{self, Write as _};

use serde::Serialize;

use super::{Config, LayerNode, Route, Site, Stack, Target};

/// The tree, the same text for the same content, however the configuration was spelt.
///
/// Each route is one line: the layers over it, outermost first, then what answers.
impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settings = serde_json::to_value(&self.settings).unwrap_or_default();
        for (key, value) in settings.as_object().into_iter().flatten() {
            writeln!(f, "{key} = {value}")?;
        }
        for (name, node) in &self.apps {
            let settings = Settings(node.app.settings());
            writeln!(f, "app {name}: {}{settings}", node.app.name())?;
        }
        for site in &self.sites {
            self.fmt_site(site, f)?;
        }
        for (name, service) in &self.services {
            writeln!(f, "service {name}{}", shown(&service.table))?;
        }
        for (name, cron) in &self.cron {
            writeln!(f, "cron {name}{}", shown(&cron.table))?;
        }
        Ok(())
    }
}

impl Config {
    fn fmt_site(&self, site: &Site, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hosts: Vec<String> = site.hosts.iter().map(ToString::to_string).collect();
        write!(f, "site {}", hosts.join(" "))?;
        if !site.listen.is_empty() {
            let own: Vec<String> = site.listen.iter().map(ToString::to_string).collect();
            write!(f, " (only through {})", own.join(", "))?;
        }
        writeln!(f)?;
        let width = site.routes.iter().map(|route| route.path.len()).max().unwrap_or(0);
        for route in &site.routes {
            writeln!(f, "  {:width$}  {}", route.path, self.line(site, route))?;
        }
        Ok(())
    }

    fn line(&self, site: &Site, route: &Route) -> String {
        let levels = [&self.layers, &site.layers, &route.layers];
        let mut line = String::new();
        let lists = levels.iter().flat_map(|level| &level.list);
        for node in Stack::effective(&levels).into_iter().chain(lists) {
            // Writing to a string does not fail.
            let _ = write!(line, "{} > ", Layer(node));
        }
        if route.mount {
            let _ = write!(line, "mount > ");
        }
        let _ = match &route.target {
            Target::Named(name) => write!(line, "{name}"),
            Target::Inline(app) => write!(line, "{}{}", app.name(), Settings(app.settings())),
        };
        line
    }
}

fn shown(table: &impl Serialize) -> Settings {
    let mut table = serde_json::to_value(table).unwrap_or_default();
    // Variables may hold secrets, and so may an address before its '@'.
    if let Some(fields) = table.as_object_mut() {
        fields.remove("env");
        if let Some(serde_json::Value::String(lock)) = fields.get_mut("lock")
            && let (Some((scheme, _)), Some((_, place))) = (lock.split_once("://"), lock.rsplit_once('@'))
        {
            *lock = format!("{scheme}://***@{place}");
        }
    }
    Settings(table)
}

struct Layer<'a>(&'a LayerNode);

impl fmt::Display for Layer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.0.layer.name(), Settings(self.0.layer.settings()))
    }
}

/// Settings in parentheses: `(path="-", format="combined")`; what is not set is left out.
struct Settings(serde_json::Value);

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            serde_json::Value::Object(fields) => {
                let fields = fields.iter().filter(|(_, value)| !value.is_null());
                let fields: Vec<String> = fields.map(|(key, value)| format!("{key}={value}")).collect();
                write!(f, "({})", fields.join(", "))
            }
            serde_json::Value::Null => Ok(()),
            scalar => write!(f, "({scalar})"),
        }
    }
}
