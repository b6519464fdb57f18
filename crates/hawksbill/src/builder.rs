//! The Rust spelling of the configuration.

use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;

use hawksbill_core::config::{ConfigError, HostPattern, Listen, Origin};
use hawksbill_core::{AnyLayer, App, AppKind, BuildError, Builder, IntoTurtle, LayerKind, Registry, Turtle};
use tower::Layer;

use crate::config::{AppNode, Config, LayerNode, Route, Settings, Site, Stack, Target};
use crate::gateway::Given;
use crate::{Gateway, standard_registry};

/// Builds a [`Gateway`] in Rust. Mistakes are kept until [`GatewayBuilder::build`], so that calls can be chained.
///
/// See the [crate's example](crate).
pub struct GatewayBuilder {
    config: Config,
    registry: Registry,
    given: Vec<Given>,
    problems: Option<ConfigError>,
}

/// Builds one site of a gateway.
pub struct SiteBuilder {
    site: Site,
    registry: Arc<[&'static str]>,
    problems: Option<ConfigError>,
}

impl Gateway {
    /// Begins a gateway in Rust, with the standard kinds.
    pub fn builder() -> GatewayBuilder {
        // The standard kinds do not contradict each other; a test says so.
        GatewayBuilder::new(standard_registry().unwrap_or_default())
    }
}

impl GatewayBuilder {
    /// Begins a gateway with kinds of your own.
    pub fn new(registry: Registry) -> Self {
        let mut builder = Self { config: Config::empty("."), registry, given: Vec::new(), problems: None };
        let defaults =
            Config::from_value(hawksbill_core::config::Table::new().into(), ".", &builder.registry);
        match defaults {
            Ok(config) => builder.config = config,
            Err(error) => note(&mut builder.problems, error),
        }
        builder
    }

    /// The directory from which relative paths count; the working directory by default.
    pub fn dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.config.dir = dir.into();
        self
    }

    /// A socket to listen on, as in the configuration file: `":80"`, `"127.0.0.1:0"`, `"unix:/run/hawksbill.sock"`.
    pub fn listen(mut self, listen: &str) -> Self {
        match parse_listen(listen) {
            Ok(listen) => {
                let mut all: Vec<Listen> = std::mem::take(&mut self.config.settings.listen).into();
                all.push(listen);
                self.config.settings.listen = all.into();
            }
            Err(error) => note(&mut self.problems, error),
        }
        self
    }

    /// A listening TCP socket that this program has opened.
    pub fn listener(mut self, listener: TcpListener) -> Self {
        self.given.push(Given::Tcp(listener));
        self
    }

    /// A listening Unix socket that this program has opened.
    pub fn unix_listener(mut self, listener: UnixListener) -> Self {
        self.given.push(Given::Unix(listener));
        self
    }

    /// Sets the keys that concern the gateway as a whole.
    pub fn settings(mut self, set: impl FnOnce(&mut Settings)) -> Self {
        set(&mut self.config.settings);
        self
    }

    /// A layer over every site, applied to each route, inside the layers given before.
    pub fn layer<L>(mut self, layer: L) -> Self
    where
        L: Layer<Turtle> + Send + Sync + 'static,
        L::Service: IntoTurtle,
    {
        self.config.layers.list.push(live_layer(layer));
        self
    }

    /// A layer of a registered kind over every site, as its short key in the configuration file.
    pub fn with(mut self, kind: impl LayerKind) -> Self {
        let ranks = ranks(&self.registry);
        set_short(&mut self.config.layers, kind, &ranks);
        self
    }

    /// A named application, to which routes lead by [`SiteBuilder::to`].
    pub fn app(mut self, name: &str, kind: impl AppKind) -> Self {
        let origin = Origin::named(format!("app(\"{name}\")"));
        let node = AppNode { app: Box::new(kind), processes: None, origin };
        self.config.apps.insert(name.to_owned(), node);
        self
    }

    /// A site that answers for these hosts, separated by spaces; `"*"` answers for every host.
    pub fn site(mut self, hosts: &str, build: impl FnOnce(SiteBuilder) -> SiteBuilder) -> Self {
        let built = build(SiteBuilder::new(hosts, ranks(&self.registry)));
        if let Some(error) = built.problems {
            note(&mut self.problems, error);
        }
        self.config.sites.push(built.site);
        self
    }

    /// The configuration, checked.
    ///
    /// # Errors
    /// All mistakes in what was given.
    pub fn config(self) -> Result<Config, ConfigError> {
        Ok(self.checked()?.0)
    }

    /// The gateway, built but not started.
    ///
    /// # Errors
    /// All mistakes in what was given, and what cannot be built.
    pub fn build(self) -> Result<Gateway, BuildError> {
        let (config, given) = self.checked().map_err(|error| BuildError::new(error.to_string()))?;
        Gateway::with_listeners(config, given)
    }

    fn checked(mut self) -> Result<(Config, Vec<Given>), ConfigError> {
        for site in &self.config.sites {
            for route in &site.routes {
                let Target::Named(name) = &route.target else { continue };
                if !self.config.apps.contains_key(name) {
                    let message =
                        format!("there is no application '{name}'; add it by .app(\"{name}\", ...)");
                    note(&mut self.problems, ConfigError::new(route.origin.clone(), message));
                }
            }
        }
        match self.problems {
            Some(problems) => Err(problems),
            None => Ok((self.config, self.given)),
        }
    }
}

impl SiteBuilder {
    fn new(hosts: &str, registry: Arc<[&'static str]>) -> Self {
        let origin = Origin::named(format!("site({hosts:?})"));
        let mut problems = None;
        let mut patterns = Vec::new();
        for word in hosts.split_whitespace() {
            match word.parse::<HostPattern>() {
                Ok(pattern) => patterns.push(pattern),
                Err(error) => note(&mut problems, ConfigError::new(origin.clone(), error.to_string())),
            }
        }
        if patterns.is_empty() && problems.is_none() {
            let message = "a site needs the name of a host; \"*\" answers for every host";
            note(&mut problems, ConfigError::new(origin.clone(), message));
        }
        let name = hosts.split_whitespace().next().unwrap_or("-").to_owned();
        let site = Site {
            name,
            hosts: patterns,
            listen: Vec::new(),
            layers: Stack::default(),
            routes: Vec::new(),
            origin,
        };
        Self { site, registry, problems }
    }

    /// A socket of this site's own: it is then reached through no other.
    pub fn listen(mut self, listen: &str) -> Self {
        match parse_listen(listen) {
            Ok(listen) => self.site.listen.push(listen),
            Err(error) => note(&mut self.problems, error),
        }
        self
    }

    /// Leads a path prefix to any HTTP service: a turtle, a tower stack, an axum router. It gets the path unchanged.
    pub fn route(self, path: &str, service: impl IntoTurtle) -> Self {
        let live = Box::new(LiveApp(Turtle::new(service)));
        self.push(path, Target::Inline(live), false)
    }

    /// As [`SiteBuilder::route`], with the prefix as the application's root (core's `Mount`).
    pub fn mount(self, path: &str, service: impl IntoTurtle) -> Self {
        let live = Box::new(LiveApp(Turtle::new(service)));
        self.push(path, Target::Inline(live), true)
    }

    /// Leads a path prefix to a named application ([`GatewayBuilder::app`]).
    pub fn to(self, path: &str, name: &str) -> Self {
        self.push(path, Target::Named(name.to_owned()), false)
    }

    /// Leads a path prefix to an application of a registered kind, such as [`Files`](crate::apps::Files).
    pub fn app<K: AppKind>(self, path: &str, kind: K) -> Self {
        self.push(path, Target::Inline(Box::new(kind)), K::MOUNTED)
    }

    /// A tower layer over this site, applied to each route, inside the layers given before.
    pub fn layer<L>(mut self, layer: L) -> Self
    where
        L: Layer<Turtle> + Send + Sync + 'static,
        L::Service: IntoTurtle,
    {
        self.site.layers.list.push(live_layer(layer));
        self
    }

    /// A layer of a registered kind over this site, as its short key in the configuration file.
    pub fn with(mut self, kind: impl LayerKind) -> Self {
        set_short(&mut self.site.layers, kind, &self.registry);
        self
    }

    fn push(mut self, path: &str, target: Target, mount: bool) -> Self {
        let origin = Origin::named(format!("route({path:?})"));
        let layers = Stack::default();
        self.site.routes.push(Route { path: path.to_owned(), target, mount, layers, origin });
        self
    }
}

/// A turtle of the running program as a node of the configuration.
struct LiveApp(Turtle);

impl App for LiveApp {
    fn name(&self) -> &'static str {
        "live"
    }

    fn shared_state(&self) -> bool {
        true
    }

    fn mounted(&self) -> bool {
        false
    }

    fn has_processes(&self) -> bool {
        false
    }

    fn settings(&self) -> serde_json::Value {
        serde_json::Value::Null
    }

    fn build(self: Box<Self>, _: &mut Builder) -> Result<Turtle, BuildError> {
        Ok(self.0)
    }
}

/// A tower layer of the running program as a node of the configuration.
struct LiveLayer<F>(F);

impl<F: Fn(Turtle) -> Turtle + Send + Sync> AnyLayer for LiveLayer<F> {
    fn name(&self) -> &'static str {
        "live"
    }

    fn shared_state(&self) -> bool {
        true
    }

    fn settings(&self) -> serde_json::Value {
        serde_json::Value::Null
    }

    fn wrap(&self, inner: Turtle, _: &mut Builder) -> Result<Turtle, BuildError> {
        Ok((self.0)(inner))
    }
}

fn live_layer<L>(layer: L) -> LayerNode
where
    L: Layer<Turtle> + Send + Sync + 'static,
    L::Service: IntoTurtle,
{
    let wrap = move |inner: Turtle| Turtle::new(layer.layer(inner));
    LayerNode { layer: Box::new(LiveLayer(wrap)), origin: Origin::named("layer(...)"), rank: 0 }
}

fn ranks(registry: &Registry) -> Arc<[&'static str]> {
    registry.layers().map(hawksbill_core::LayerEntry::name).collect()
}

fn set_short<K: LayerKind>(stack: &mut Stack, kind: K, ranks: &[&'static str]) {
    let rank = ranks.iter().position(|name| *name == K::NAME).unwrap_or(ranks.len());
    stack.short.retain(|node| node.layer.name() != K::NAME);
    let origin = Origin::named(format!("with({})", K::NAME));
    stack.short.push(LayerNode { layer: Box::new(kind), origin, rank });
}

fn parse_listen(text: &str) -> Result<Listen, ConfigError> {
    let origin = || Origin::named(format!("listen({text:?})"));
    text.parse()
        .map_err(|error: hawksbill_core::config::InvalidValue| ConfigError::new(origin(), error.to_string()))
}

fn note(problems: &mut Option<ConfigError>, error: ConfigError) {
    match problems {
        Some(problems) => problems.extend(error),
        None => *problems = Some(error),
    }
}
