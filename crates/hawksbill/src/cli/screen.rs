//! What a person sees when the gateway has started: what is served where.

use std::fmt::Write;

use hawksbill_core::Address;
use hawksbill_core::config::{HostPattern, Listen};

use crate::Config;
use crate::config::{Site, Target};

/// The most sites that are listed; whoever has more knows them from the file.
const MOST_SITES: usize = 24;

/// What is served, known before the configuration is built and told after.
pub(super) struct Screen {
    sites: Vec<Line>,
    more: usize,
    logged: bool,
}

struct Line {
    /// A host that a browser can ask for; `None` for a pattern.
    host: Option<String>,
    /// The site as it is written.
    name: String,
    /// Sockets of its own.
    own: Vec<Listen>,
    routes: String,
}

impl Screen {
    pub(super) fn of(config: &Config) -> Self {
        Self {
            sites: config.sites.iter().take(MOST_SITES).map(Line::of).collect(),
            more: config.sites.len().saturating_sub(MOST_SITES),
            logged: !config.logs_nothing(),
        }
    }

    /// Says of the first site what is served there besides its routes.
    pub(super) fn and(mut self, route: Option<String>) -> Self {
        if let (Some(line), Some(route)) = (self.sites.first_mut(), route) {
            line.routes.push_str(", ");
            line.routes.push_str(&route);
        }
        self
    }

    /// The screen, for the addresses that were really bound.
    pub(super) fn with(&self, addresses: &[Address]) -> String {
        let port = addresses.iter().find_map(Address::port);
        let mut text = String::new();
        for line in &self.sites {
            // Writing to a string does not fail.
            let _ = writeln!(text, "  {:32} {}", line.place(port), line.routes);
        }
        if self.more > 0 {
            let _ = writeln!(text, "  and {} sites more", self.more);
        }
        if !self.logged {
            text.push_str("  Requests are not logged; --log - shows them.\n");
        }
        text
    }
}

impl Line {
    fn of(site: &Site) -> Self {
        let host = site.hosts.iter().find_map(|host| match host {
            HostPattern::Exact(host) => Some(host.to_string()),
            _ => None,
        });
        let hosts: Vec<String> = site.hosts.iter().map(ToString::to_string).collect();
        let routes = site.routes.iter().map(|route| match &route.target {
            Target::Named(name) => format!("{} {name}", route.path),
            Target::Inline(app) => format!("{} {}", route.path, app.name()),
        });
        let name = hosts.join(" ");
        let name = if name == "*" { "every host".to_owned() } else { name };
        Self { host, name, own: site.listen.clone(), routes: routes.collect::<Vec<_>>().join(", ") }
    }

    fn place(&self, port: Option<u16>) -> String {
        match (&self.host, port) {
            _ if !self.own.is_empty() => {
                let own: Vec<String> = self.own.iter().map(ToString::to_string).collect();
                format!("{} on {}", self.name, own.join(", "))
            }
            (Some(host), Some(80)) => format!("http://{host}/"),
            (Some(host), Some(port)) => format!("http://{host}:{port}/"),
            _ => self.name.clone(),
        }
    }
}

/// An address as something to click on.
pub(crate) fn url(address: &Address) -> String {
    match address {
        Address::Tcp(address) if address.ip().is_unspecified() => {
            format!("http://localhost:{} (every address)", address.port())
        }
        Address::Tcp(address) => format!("http://{address}"),
        Address::Unix(_) => address.to_string(),
    }
}
