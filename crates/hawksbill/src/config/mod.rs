//! The configuration: one tree of structs behind TOML, Python, Rust, the command line and the control socket.
//!
//! ```
//! use hawksbill::{Config, standard_registry};
//!
//! let registry = standard_registry()?;
//! let toml = r#"
//!     listen = "127.0.0.1:8000"
//!     [sites."example.com www.example.com"]
//!     "/" = { respond = "hello" }
//! "#;
//! let config = Config::parse("hawksbill.toml", toml, "/srv", &registry)?;
//! assert_eq!(config.sites[0].hosts.len(), 2);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod control;
mod load;
mod logging;
mod processes;
mod read;
mod services;
mod settings;
mod tree;
mod unbuilt;

use std::path::PathBuf;

use hawksbill_core::config::{ConfigError, HostPattern, Listen, Origin, Path, Value};
use hawksbill_core::{AnyLayer, App};
use indexmap::IndexMap;

pub use self::control::Control;
#[cfg(feature = "cli")]
pub(crate) use self::load::peek;
pub(crate) use self::load::place;
pub use self::logging::{LogFormat, LogLevel};
pub use self::processes::{Limits, Processes, Range, Recycle, Workers};
pub use self::services::{Command, Cron, Placed, Ready, Restart, Service, StopSignal};
pub use self::settings::Settings;

/// A whole configuration, read and checked, not yet built.
pub struct Config {
    /// The directory from which relative paths count: the main file's, else the working directory.
    pub dir: PathBuf,
    /// What concerns the gateway as a whole.
    pub settings: Settings,
    /// The layers over all sites.
    pub layers: Stack,
    /// The named applications.
    pub apps: IndexMap<String, AppNode>,
    /// The sites.
    pub sites: Vec<Site>,
    /// The programs beside the applications.
    pub services: IndexMap<String, Placed<Service>>,
    /// The commands that run at certain times.
    pub cron: IndexMap<String, Placed<Cron>>,
    /// The files that this was read from.
    #[cfg(feature = "cli")]
    pub(crate) files: Vec<PathBuf>,
    /// The tree that this was read from, which other processes read again. `None` where it was put together by a program.
    #[cfg(feature = "cli")]
    pub(crate) source: Option<Value>,
}

/// A named application.
pub struct AppNode {
    /// Its kind and settings.
    pub app: Box<dyn App>,
    /// Its processes, where it has some of its own.
    pub processes: Option<Processes>,
    /// Where it is configured.
    pub origin: Origin,
}

/// A site: some hosts and what answers for them.
pub struct Site {
    /// Its name in logs: the first of its hosts.
    pub name: String,
    /// The hosts it answers for.
    pub hosts: Vec<HostPattern>,
    /// The sockets of its own; where there are none, it is reached through the gateway's.
    pub listen: Vec<Listen>,
    /// The layers over its routes.
    pub layers: Stack,
    /// Its routes.
    pub routes: Vec<Route>,
    /// Where it is configured.
    pub origin: Origin,
}

/// A path prefix and what answers beneath it.
pub struct Route {
    /// The prefix.
    pub path: String,
    /// What answers.
    pub target: Target,
    /// Whether the prefix is the application's root (`SCRIPT_NAME`, `root_path`).
    pub mount: bool,
    /// The layers over the target.
    pub layers: Stack,
    /// Where it is configured.
    pub origin: Origin,
}

/// What a route leads to.
pub enum Target {
    /// An application of [`Config::apps`].
    Named(String),
    /// An application of its own.
    Inline(Box<dyn App>),
}

/// The layers of one level.
#[derive(Default)]
pub struct Stack {
    /// `layers = [...]`, outermost first. They add to those of the outer levels.
    pub list: Vec<LayerNode>,
    /// The short keys. Each replaces the same key of the outer levels.
    pub short: Vec<LayerNode>,
}

/// A layer with its settings.
pub struct LayerNode {
    /// Its kind and settings.
    pub layer: Box<dyn AnyLayer>,
    /// Where it is configured.
    pub origin: Origin,
    /// Its place among the short keys; the smallest stands outermost.
    pub rank: usize,
}

impl Stack {
    /// The short keys that count inside `levels` (outermost first): the innermost setting of each, in their one order.
    pub(crate) fn effective<'a>(levels: &[&'a Stack]) -> Vec<&'a LayerNode> {
        let mut effective: Vec<&LayerNode> = Vec::new();
        for node in levels.iter().flat_map(|level| &level.short) {
            match effective.iter_mut().find(|outer| outer.layer.name() == node.layer.name()) {
                Some(outer) => *outer = node,
                None => effective.push(node),
            }
        }
        effective.sort_by_key(|node| node.rank);
        effective
    }
}

impl Config {
    /// A configuration that serves nothing.
    pub fn empty(dir: impl Into<PathBuf>) -> Self {
        let settings = Settings::default();
        let (layers, apps, sites) = (Stack::default(), IndexMap::new(), Vec::new());
        Self {
            dir: dir.into(),
            settings,
            layers,
            apps,
            sites,
            services: IndexMap::new(),
            cron: IndexMap::new(),
            #[cfg(feature = "cli")]
            files: Vec::new(),
            #[cfg(feature = "cli")]
            source: None,
        }
    }

    /// Listens on `default` where nothing says where.
    ///
    /// # Errors
    /// When `default` is not the name of a socket.
    pub fn listen_somewhere(&mut self, default: &str) -> Result<(), ConfigError> {
        let unreachable =
            self.settings.listen.is_empty() && self.sites.iter().any(|site| site.listen.is_empty());
        if unreachable {
            let value = Value::string(default, Origin::named("default"));
            self.settings.listen = value.decode(&Path::root().key("listen"))?;
        }
        Ok(())
    }

    /// The sockets to listen on, each once: those of the gateway, then those of sites.
    pub(crate) fn sockets(&self) -> Vec<Listen> {
        let shared: Vec<Listen> = self.settings.listen.clone().into();
        let own = self.sites.iter().flat_map(|site| site.listen.iter().cloned());
        let mut sockets: Vec<Listen> = Vec::new();
        for listen in shared.into_iter().chain(own) {
            if !sockets.contains(&listen) {
                sockets.push(listen);
            }
        }
        sockets
    }

    /// Gives the applications of routes that have processes of their own a name, after site and route.
    #[cfg(feature = "cli")]
    pub(crate) fn name_inline(&mut self) {
        let Self { apps, sites, .. } = self;
        let routes = sites.iter_mut().flat_map(|site| {
            let name = site.name.clone();
            site.routes.iter_mut().map(move |route| (format!("{name}{}", route.path), route))
        });
        for (mut name, route) in routes {
            if !matches!(&route.target, Target::Inline(app) if app.has_processes()) {
                continue;
            }
            // Two sites may have the same first host.
            while apps.contains_key(&name) {
                name.push('\'');
            }
            if let Target::Inline(app) = std::mem::replace(&mut route.target, Target::Named(name.clone())) {
                let (processes, origin) = (Some(Processes::default()), route.origin.clone());
                apps.insert(name, AppNode { app, processes, origin });
            }
        }
    }

    /// Whether no site writes an access log.
    #[cfg(feature = "cli")]
    pub(crate) fn logs_nothing(&self) -> bool {
        let logs =
            |stack: &Stack| stack.short.iter().chain(&stack.list).any(|node| node.layer.name() == "log");
        !logs(&self.layers)
            && !self
                .sites
                .iter()
                .any(|site| logs(&site.layers) || site.routes.iter().any(|route| logs(&route.layers)))
    }
}
