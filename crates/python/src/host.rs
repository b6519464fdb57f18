//! From an object that is named or at hand to a turtle: loading, looking, starting, stopping.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use hawksbill_core::config::Duration;
use hawksbill_core::{BuildError, Builder, Error, Kind, Turtle, TurtleFuture};
use pyo3::prelude::*;

use crate::asgi::{AsgiApp, EventLoop, Lifespan, WebSockets};
use crate::detect::{self, Interface};
use crate::django::{self, Project};
use crate::lead::Offer;
use crate::preload;
use crate::target::Target;
use crate::thread;
use crate::watchdog::Watchdog;
use crate::wsgi::WsgiApp;
use crate::{imported, output};

/// How many threads a WSGI application has unless it says otherwise.
pub const DEFAULT_THREADS: usize = 8;
/// How many requests wait for a thread of a WSGI application unless it says otherwise.
pub const DEFAULT_QUEUE: usize = 1024;
/// How long an application may take to begin an answer unless it says otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// How an application is hosted.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its interface; `None`: found by looking at it.
    pub interface: Option<Interface>,
    /// WSGI: at most this many requests at once.
    pub threads: usize,
    /// WSGI: at most this many further requests wait; more are answered 503.
    pub queue: usize,
    /// How long it may take to begin an answer; 0: as long as it likes.
    pub timeout: Duration,
    /// From when on it is slow, and the log shows where it stands; 0: never.
    pub slow: Duration,
    /// ASGI: whether it is told when it starts and ends.
    pub lifespan: Lifespan,
    /// ASGI: limits of its WebSocket connections, and what keeps them alive.
    pub websocket: WebSockets,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            interface: None,
            threads: DEFAULT_THREADS,
            queue: DEFAULT_QUEUE,
            timeout: DEFAULT_TIMEOUT,
            slow: Duration::default(),
            lifespan: Lifespan::Auto,
            websocket: WebSockets::default(),
        }
    }
}

/// Where an application comes from.
pub(crate) enum Source {
    /// It is imported from `dir` when the generation starts.
    Named(Target, PathBuf),
    /// It exists.
    Live(Py<PyAny>),
}

/// What was imported, and what it is.
type Loaded = (Py<PyAny>, Interface);

/// What loading an application has found.
pub(crate) trait Found: Send + 'static {
    /// How it will be called.
    fn interfaces(&self) -> impl Iterator<Item = Interface>;
}

impl Found for Loaded {
    fn interfaces(&self) -> impl Iterator<Item = Interface> {
        std::iter::once(self.1)
    }
}

/// What answers once it has started.
pub(crate) enum Hosted {
    Wsgi(Arc<WsgiApp>),
    Asgi(AsgiApp),
    Django(Arc<Project>),
}

/// What is to be known of all applications of a generation, before any of them starts: where Python runs depends on it.
#[derive(Clone)]
pub(crate) struct Home {
    pub(crate) event_loop: Arc<EventLoop>,
    lead: Arc<Offer>,
    pub(crate) watchdog: Arc<Watchdog>,
}

impl Home {
    /// That of the generation that is being built.
    pub(crate) fn shared(cx: &mut Builder) -> Result<Self, BuildError> {
        let (event_loop, lead) = (EventLoop::shared(cx)?, Offer::shared(cx)?);
        Ok(Self { event_loop, lead, watchdog: Watchdog::shared(cx)? })
    }

    /// Notes what an application turned out to be.
    fn hosts(&self, interface: Interface) {
        self.event_loop.hosts(interface);
        self.lead.hosts(interface);
    }
}

/// Makes the turtle of an application. `name` is how messages call it.
pub(crate) fn host(
    cx: &mut Builder,
    name: &str,
    source: Source,
    options: Options,
) -> Result<Turtle, BuildError> {
    let home = Home::shared(cx)?;
    let (label, wanted, hosting) = (name.to_owned(), options.interface, home.clone());
    let what = match &source {
        Source::Named(target, dir) => Some(format!("{target} in {}", dir.display())),
        Source::Live(_) => None,
    };
    let load = async move { import(&label, source, wanted).await };
    let label = name.to_owned();
    let start = async move |loaded| start(&label, loaded, &options, &hosting).await;
    Ok(keep(cx, Keeping { name, what, home }, load, start))
}

/// An application to be loaded.
pub(crate) struct Keeping<'a> {
    /// How messages call it.
    pub(crate) name: &'a str,
    /// What it is by its contents: what was loaded for this before a fork will do. `None`: for nobody else.
    pub(crate) what: Option<String>,
    pub(crate) home: Home,
}

/// The turtle of what `start` makes of what `load` found; it is stopped with the generation. In a process that was forked
/// after loading, nothing is loaded again.
pub(crate) fn keep<L, T, S, F>(cx: &mut Builder, keeping: Keeping<'_>, load: L, start: S) -> Turtle
where
    L: Future<Output = Result<T, BuildError>> + Send + 'static,
    T: Found,
    S: FnOnce(T) -> F + Send + 'static,
    F: Future<Output = Result<Hosted, BuildError>> + Send + 'static,
{
    let slot: Arc<OnceLock<Hosted>> = Arc::default();
    let loaded: Arc<Mutex<Option<T>>> = Arc::default();
    let Keeping { name, what, home } = keeping;
    let (starting, stopping, found, name): (_, _, _, Arc<str>) =
        (slot.clone(), slot.clone(), loaded.clone(), name.into());
    cx.vitals().answers("imported", imported::files);
    cx.on_load(format!("import of application {name}"), async move {
        let found_now = match what.as_deref().and_then(preload::take) {
            Some(before) => before,
            None => load.await?,
        };
        output::join();
        let Some(found_now) = preload::keep(what, found_now) else { return Ok(()) };
        found_now.interfaces().for_each(|interface| home.hosts(interface));
        *found.lock().unwrap_or_else(PoisonError::into_inner) = Some(found_now);
        Ok(())
    });
    cx.on_start(format!("application {name}"), async move {
        let loaded = loaded.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(loaded) = loaded {
            let _ = starting.set(start(loaded).await?);
        }
        Ok(())
    });
    cx.on_stop(async move {
        match stopping.get() {
            Some(Hosted::Wsgi(app)) => app.stop().await,
            Some(Hosted::Asgi(app)) => app.stop().await,
            Some(Hosted::Django(project)) => project.stop().await,
            None => {}
        }
    });
    Turtle::from_ask(move |request| match slot.get() {
        Some(Hosted::Wsgi(app)) => app.ask(request),
        Some(Hosted::Asgi(app)) => app.ask(request),
        Some(Hosted::Django(project)) => project.ask(request),
        None => TurtleFuture::refused(
            Error::new(Kind::Overloaded)
                .because(format!("application {name} has not started yet"))
                .retryable(),
        ),
    })
}

async fn import(name: &str, source: Source, wanted: Option<Interface>) -> Result<Loaded, BuildError> {
    let label = name.to_owned();
    let loaded = thread::attached("import", move |py| load(py, source, wanted, &label)).await;
    loaded.unwrap_or_else(|| {
        Err(BuildError::new(format!("application {name}: the Python interpreter cannot be used any more")))
    })
}

async fn start(name: &str, loaded: Loaded, options: &Options, home: &Home) -> Result<Hosted, BuildError> {
    match loaded {
        (callable, Interface::Wsgi) => {
            tracing::debug!(target: "hawksbill::start", app = name, "WSGI, at most {} threads", options.threads);
            Ok(Hosted::Wsgi(WsgiApp::new(name, callable, home, options)))
        }
        (callable, Interface::Asgi) => {
            tracing::debug!(target: "hawksbill::start", app = name, "ASGI");
            Ok(Hosted::Asgi(AsgiApp::start(name, callable, home, options).await?))
        }
    }
}

fn load(py: Python<'_>, source: Source, wanted: Option<Interface>, name: &str) -> Result<Loaded, BuildError> {
    let (object, factory, name) = match source {
        Source::Named(target, dir) => {
            let found = target.find(py, &dir)?;
            (found.object, found.factory, target.to_string())
        }
        Source::Live(object) => (object.into_bound(py), false, name.to_owned()),
    };
    let (application, interface) = detect::resolve(object, factory, wanted, &name)?;
    if interface == Interface::Asgi {
        django::ease(py, &name, &application);
    }
    Ok((application.unbind(), interface))
}
