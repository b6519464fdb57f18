//! A configuration that serves: sockets, start, signals, drain.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
#[cfg(feature = "cli")]
use std::sync::Arc;
use std::time::Duration;

use hawksbill_core::config::Listen;
use hawksbill_core::{Address, BuildError, Generation, Turtle, Vitals};
use hawksbill_server::{Listener, Server};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::assemble::{Assembly, assemble};
use crate::config::{Config, Settings};

/// A gateway, built but not started.
pub struct Gateway {
    assembly: Assembly,
    settings: Settings,
    given: Vec<Given>,
    /// The sockets of the configuration that are open already, since another process has them too.
    inherited: Vec<(Listen, Listener)>,
    /// Empty until they are opened.
    listeners: Vec<(Listener, Turtle)>,
    /// Whether it is reached through something else than sockets of its own.
    is_inner: bool,
    tree: String,
}

/// A listening socket that a program hands in.
pub(crate) enum Given {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// A gateway that serves. Dropping it stops it at once, without a drain.
pub struct Running {
    server: hawksbill_server::Running,
    applications: Hosted,
    /// How long a signal's drain waits.
    delay: Duration,
}

/// Asks a running gateway to stop. Cheap to clone; works from any thread.
#[derive(Clone, Debug)]
pub struct Shutdown(hawksbill_server::Shutdown);

impl Gateway {
    /// Builds a configuration. No socket is opened and no application imported yet.
    ///
    /// # Errors
    /// What a person has to change.
    pub fn new(config: Config) -> Result<Self, BuildError> {
        Self::with_listeners(config, Vec::new())
    }

    pub(crate) fn with_listeners(config: Config, given: Vec<Given>) -> Result<Self, BuildError> {
        Self::assembled(config, HashMap::new(), given)
    }

    /// A gateway in which these turtles stand for the named applications, which run elsewhere.
    #[cfg(feature = "cli")]
    pub(crate) fn before(config: Config, elsewhere: HashMap<String, Turtle>) -> Result<Self, BuildError> {
        Self::assembled(config, elsewhere, Vec::new())
    }

    /// A gateway without sockets: its applications are asked directly.
    #[cfg(feature = "cli")]
    pub(crate) fn inner(config: Config) -> Result<Self, BuildError> {
        Ok(Self { is_inner: true, ..Self::new(config)? })
    }

    fn assembled(
        config: Config,
        elsewhere: HashMap<String, Turtle>,
        given: Vec<Given>,
    ) -> Result<Self, BuildError> {
        let tree = config.to_string();
        let alone = config.services.keys().next().map(|name| format!("services.{name}"));
        if let Some(name) = alone.or_else(|| config.cron.keys().next().map(|name| format!("cron.{name}"))) {
            let message = "a gateway inside another program runs no services and no cron; start it with 'hawksbill run'";
            return Err(BuildError::new(message).within(name));
        }
        let settings = config.settings.clone();
        let assembly = assemble(config, elsewhere)?;
        let (inherited, listeners) = (Vec::new(), Vec::new());
        Ok(Self { assembly, settings, given, inherited, listeners, is_inner: false, tree })
    }

    /// Serves on sockets that are open already where the configuration names them.
    #[cfg(feature = "cli")]
    pub(crate) fn inherit(mut self, sockets: Vec<(Listen, Listener)>) -> Self {
        self.inherited = sockets;
        self
    }

    /// A named application, without the layers of any route. It answers once the gateway has started.
    pub fn app(&self, name: &str) -> Option<Turtle> {
        self.assembly.apps.get(name).cloned()
    }

    /// How much the applications have to do, and what is stuck.
    #[cfg(feature = "cli")]
    pub(crate) fn vitals(&self) -> Arc<Vitals> {
        self.assembly.generation.vitals().clone()
    }

    /// The tree of turtles as text: what `hawksbill check` prints.
    pub fn tree(&self) -> &str {
        &self.tree
    }

    /// Starts the applications without any socket and gives the one turtle that answers for all sites: for a program
    /// that has a server of its own. Sites with a `listen` of their own are not in it.
    ///
    /// # Errors
    /// An application that does not start.
    pub async fn into_turtle(self) -> Result<(Turtle, Hosted), BuildError> {
        let Assembly { root, mut generation, .. } = self.assembly;
        generation.start().await?;
        let tasks = generation.take_tasks().into_iter().map(tokio::spawn).collect();
        Ok((root, Hosted { generation, tasks }))
    }

    /// Opens the sockets, then loads the applications; nothing is started yet.
    ///
    /// Sockets come first, so that one in use is told before an application is imported; until all applications have
    /// started, connections wait in the sockets' queues.
    ///
    /// # Errors
    /// A socket that cannot be opened, an application that cannot be loaded.
    pub async fn load(mut self) -> Result<Self, BuildError> {
        self.open()?;
        self.assembly.generation.load().await?;
        Ok(self)
    }

    fn open(&mut self) -> Result<(), BuildError> {
        for (listen, root) in std::mem::take(&mut self.assembly.roots) {
            let listener = match self.inherited.iter().position(|(named, _)| *named == listen) {
                Some(index) => self.inherited.swap_remove(index).1,
                None => Listener::bind(&listen)
                    .map_err(|error| BuildError::new(error.to_string()).within("listen"))?,
            };
            self.listeners.push((listener, root));
        }
        for given in std::mem::take(&mut self.given) {
            let listener = match given {
                Given::Tcp(listener) => Listener::from_tcp(listener),
                Given::Unix(listener) => Listener::from_unix(listener),
            };
            let listener = listener.map_err(|error| BuildError::new(error.to_string()).within("listener"))?;
            self.listeners.push((listener, self.assembly.root.clone()));
        }
        if self.listeners.is_empty() && !self.is_inner {
            return Err(BuildError::new(
                "there is no socket to listen on; say where, as in listen = \"127.0.0.1:8000\"",
            ));
        }
        Ok(())
    }

    /// Runs what `serve` makes of the gateway to its end, on this thread and a runtime that suits what has been
    /// [loaded](Self::load): one that uses all cores, unless an application is better off when it shares its thread
    /// with the runtime. Not to be called under a runtime.
    ///
    /// # Errors
    /// When there is no runtime to be had.
    pub fn host<T, F>(self, serve: impl FnOnce(Self) -> F) -> Result<T, BuildError>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let Some(driver) = self.assembly.generation.driver() else {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .thread_name("hawksbill")
                .build()
                .map_err(|error| BuildError::new("cannot start the runtime").caused_by(error))?;
            let served = runtime.block_on(serve(self));
            // Nothing is left that anybody waits for: what was under way has been cut.
            runtime.shutdown_background();
            return Ok(served);
        };
        let (sender, mut served) = oneshot::channel();
        let serving = serve(self);
        driver.drive(Box::pin(async move {
            let _ = sender.send(serving.await);
        }))?;
        served.try_recv().map_err(|_| BuildError::new("the runtime ended while it served"))
    }

    /// Opens the sockets, starts the applications, then serves. Needs a tokio runtime.
    ///
    /// # Errors
    /// A socket that cannot be opened, an application that does not start. Nothing is left running then.
    pub async fn start(self) -> Result<Running, BuildError> {
        let Ready { applications, settings, listeners } = self.get_ready().await?;
        match serve(&settings, listeners, applications.generation.vitals()) {
            Ok(server) => Ok(Running { server, applications, delay: *settings.drain_delay }),
            Err(error) => {
                applications.stop().await;
                Err(error)
            }
        }
    }

    /// Opens the sockets and starts the applications; nothing is accepted yet.
    pub(crate) async fn get_ready(mut self) -> Result<Ready, BuildError> {
        if self.listeners.is_empty() {
            self.open()?;
        }
        let Self { assembly: Assembly { mut generation, .. }, settings, listeners, .. } = self;
        generation.start().await?;
        let tasks = generation.take_tasks().into_iter().map(tokio::spawn).collect();
        Ok(Ready { applications: Hosted { generation, tasks }, settings, listeners })
    }

    /// Serves until SIGTERM or SIGINT, then drains.
    ///
    /// # Errors
    /// As [`Gateway::start`].
    pub async fn run(self) -> Result<(), BuildError> {
        let signals =
            Signals::new().map_err(|error| BuildError::new("cannot receive signals").caused_by(error))?;
        self.start().await?.until(signals).await;
        Ok(())
    }
}

/// What has started and does not accept yet.
pub(crate) struct Ready {
    pub(crate) applications: Hosted,
    pub(crate) settings: Settings,
    pub(crate) listeners: Vec<(Listener, Turtle)>,
}

impl Ready {
    /// Accepts, from duplicates of the sockets: more than once, one time after the other.
    #[cfg(feature = "cli")]
    pub(crate) fn serve(&self) -> Result<hawksbill_server::Running, BuildError> {
        let duplicate = |(listener, root): &(Listener, Turtle)| {
            let listener = listener.duplicate().map_err(|error| BuildError::new(error.to_string()))?;
            Ok((listener, root.clone()))
        };
        let listeners = self.listeners.iter().map(duplicate).collect::<Result<_, BuildError>>()?;
        serve(&self.settings, listeners, self.applications.generation.vitals())
    }
}

fn serve(
    settings: &Settings,
    listeners: Vec<(Listener, Turtle)>,
    vitals: &Vitals,
) -> Result<hawksbill_server::Running, BuildError> {
    let mut server = Server::new(server_settings(settings));
    for (listener, root) in listeners {
        server = server.listen(listener, root);
    }
    let running = server.start().map_err(|error| BuildError::new(error.to_string()).within("listen"))?;
    let shutdown = running.shutdown();
    vitals.readiness().drains_when(move || shutdown.turns_away());
    Ok(running)
}

/// Tells how many connections did not end by themselves.
pub(crate) fn tell_cut(drained: hawksbill_server::Drained) {
    if drained.cut > 0 {
        tracing::warn!(target: "hawksbill::server", "{} connections were cut at the end of the drain time", drained.cut);
    }
}

fn server_settings(settings: &Settings) -> hawksbill_server::Settings {
    hawksbill_server::Settings {
        header_timeout: *settings.header_timeout,
        keep_alive: *settings.keep_alive,
        stall_timeout: *settings.stall_timeout,
        max_header_size: settings.max_header.as_usize(),
        max_headers: usize::from(settings.max_headers),
        max_target: settings.max_target.as_usize(),
        trusted_proxies: settings.trusted_proxies.clone(),
        trust_unix: settings.trust_unix,
        drain_timeout: *settings.drain,
        ..hawksbill_server::Settings::default()
    }
}

impl Running {
    /// The addresses really bound, in the order of the configuration: where it said port 0, the port that was chosen.
    pub fn addresses(&self) -> Vec<Address> {
        self.server.addresses().iter().map(|bound| bound.address().clone()).collect()
    }

    /// A handle that stops this gateway from anywhere.
    pub fn shutdown(&self) -> Shutdown {
        Shutdown(self.server.shutdown())
    }

    /// Waits until somebody asks the gateway to stop and it has drained; then stops the applications.
    pub async fn wait(self) {
        let Self { server, applications, .. } = self;
        tell_cut(server.wait().await);
        applications.stop().await;
    }

    /// Serves until SIGTERM or SIGINT, then drains. A second signal ends the drain at once.
    pub(crate) async fn until(self, mut signals: Signals) {
        let (shutdown, vitals, delay) =
            (self.shutdown(), self.applications.generation.vitals().clone(), self.delay);
        let watcher = tokio::spawn(async move {
            let name = signals.next().await;
            vitals.readiness().close();
            if !delay.is_zero() {
                tracing::info!(target: "hawksbill::server", "{name}: not ready any more, new connections for another {delay:?}");
                let _ = tokio::time::timeout(delay, signals.next()).await;
            }
            tracing::info!(target: "hawksbill::server", "{name}: no new connections, finishing the requests under way");
            shutdown.begin();
            let name = signals.next().await;
            tracing::warn!(target: "hawksbill::server", "{name} again: connections are cut now");
            shutdown.0.cut();
        });
        self.wait().await;
        watcher.abort();
    }
}

/// SIGTERM and SIGINT, received from the moment that this is made.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for one and gives its name.
    pub(crate) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

impl Shutdown {
    /// No new connections; requests under way finish within the drain time. Returns at once.
    pub fn begin(&self) {
        self.0.begin();
    }
}

/// The applications behind a turtle that another server asks. See [`Gateway::into_turtle`].
pub struct Hosted {
    generation: Generation,
    tasks: Vec<JoinHandle<()>>,
}

impl Hosted {
    /// Stops the applications, when nobody asks the turtle any more.
    pub async fn stop(self) {
        self.generation.stop().await;
        for task in self.tasks {
            task.abort();
        }
    }
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway").field("tree", &self.tree).finish_non_exhaustive()
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").field("addresses", &self.addresses()).finish_non_exhaustive()
    }
}
