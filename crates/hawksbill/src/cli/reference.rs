//! The configuration reference, written from the kinds' own schemas: `docs/configuration.md` is what this prints.

use std::fmt::Write;

use hawksbill_core::Registry;
use schemars::SchemaGenerator;
use serde_json::Value;

use super::flags::resolve;
use crate::config::{Cron, Processes, Service, Settings};

const BEGINNING: &str = "\
# Configuration

One tree, spelt in TOML (`hawksbill.toml`), in Python (`hawksbill.Gateway`), in Rust (`Gateway::builder()`) or by flags.
`hawksbill check` reads it and prints the tree of turtles that it makes. This page is printed by `hawksbill reference`.

- Relative paths count from the directory of the main file.
- `include = [\"sites/*.toml\"]` takes tables of `apps`, `sites`, `services` and `cron` from other files.
- `${VAR}` and `${VAR:-default}` in a string are replaced from the environment; `$${` is a plain `${`.
- Durations are `\"30s\"`, `\"500ms\"`, `\"1m30s\"` or a number of seconds; sizes are `\"64KB\"`, `\"1GB\"` (powers of 1024) or
  a number of bytes.

## Sites and routes

```toml
[apps.shop]                              # a named application
wsgi = \"shop.wsgi\"

[sites.\"example.com www.example.com\"]    # several names a site; \"*.example.com\" and \"*\" are patterns
listen = \"127.0.0.1:9000\"                # optional: sockets of its own, and then reachable through no other
log = \"-\"                                # a short key: a layer over the whole site
\"/\"       = \"shop\"                       # the path reaches the application unchanged
\"/blog\"   = { mount = \"blog\" }           # SCRIPT_NAME / root_path is /blog
\"/static\" = { files = \"static\" }         # an application of the route's own
\"/admin\"  = { app = \"shop\", log = false, layers = [{ max_body = \"1MB\" }] }
```

The longest path prefix wins, at segment boundaries. Short keys (`log`, `max_body`) may stand at the top level, on a site
and on a route; the innermost wins. `layers = [...]` may stand there too; those of outer levels stand outside. A path that an
application would read as a path of another route than the one it was routed by (`/a/../b`, `/a%2Fb`) is refused with 400.
";

/// The whole page.
pub(super) fn page(registry: &Registry) -> String {
    let mut generator = SchemaGenerator::default();
    let mut page = BEGINNING.to_owned();
    let settings = generator.subschema_for::<Settings>();
    section(&mut page, "## Top level", settings.as_value(), &generator);
    page.push_str("\n## Layers\n");
    for layer in registry.layers() {
        let schema = layer.schema(&mut generator);
        section(&mut page, &format!("### `{}`", layer.name()), schema.as_value(), &generator);
    }
    page.push_str("\n## Applications\n");
    for app in registry.apps() {
        let schema = app.schema(&mut generator);
        section(&mut page, &format!("### `{}`", app.name()), schema.as_value(), &generator);
    }
    let processes = generator.subschema_for::<Processes>();
    section(&mut page, "### Processes", processes.as_value(), &generator);
    let service = generator.subschema_for::<Service>();
    section(&mut page, "## Services", service.as_value(), &generator);
    let cron = generator.subschema_for::<Cron>();
    section(&mut page, "## Cron", cron.as_value(), &generator);
    page
}

fn section(page: &mut String, title: &str, schema: &Value, generator: &SchemaGenerator) {
    let schema = resolve(schema, generator);
    // Writing to a string does not fail.
    let _ = write!(page, "\n{title}\n");
    if let Some(text) = schema.get("description").and_then(Value::as_str) {
        let _ = writeln!(page, "\n{}", text.trim());
    }
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return };
    page.push_str("\n| key | default | meaning |\n|---|---|---|\n");
    for (key, schema) in properties {
        let default = schema
            .get("default")
            .filter(|default| !default.is_null())
            .map_or_else(String::new, |default| format!("`{default}`"));
        let text = schema.get("description").or_else(|| resolve(schema, generator).get("description"));
        let text = text.and_then(Value::as_str).unwrap_or_default().replace('\n', " ").replace('|', "\\|");
        let _ = writeln!(page, "| `{key}` | {default} | {text} |");
    }
}
