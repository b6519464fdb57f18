//! What a person sees when the gateway has started: what is served where.

use std::fmt::Write;

use hawksbill_core::Address;

use crate::Config;
use crate::config::Target;

/// The screen, known before the configuration is built.
pub(super) fn of(config: &Config) -> String {
    let mut text = format!("\nhawksbill {}\n\n", crate::VERSION);
    for site in &config.sites {
        let hosts: Vec<String> = site.hosts.iter().map(ToString::to_string).collect();
        let hosts = hosts.join(" ");
        // Writing to a string does not fail.
        let _ = writeln!(text, "  {}", if hosts == "*" { "every host" } else { &hosts });
        let width = site.routes.iter().map(|route| route.path.len()).max().unwrap_or(0);
        for route in &site.routes {
            let target = match &route.target {
                Target::Named(name) => name.clone(),
                Target::Inline(app) => app.name().to_owned(),
            };
            let _ = writeln!(text, "    {:width$}  {target}", route.path);
        }
    }
    if config.logs_nothing() {
        text.push_str("\n  Requests are not logged; --log - shows them.\n");
    }
    text.push_str("  Ctrl-C stops.\n\n");
    text
}

/// An address as something to click on.
pub(super) fn url(address: &Address) -> String {
    match address {
        Address::Tcp(address) if address.ip().is_unspecified() => {
            format!("http://localhost:{} (every address)", address.port())
        }
        Address::Tcp(address) => format!("http://{address}"),
        Address::Unix(_) => address.to_string(),
    }
}
