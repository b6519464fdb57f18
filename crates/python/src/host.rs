//! From an object that is named or at hand to a turtle: loading, looking, starting, stopping.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use hawksbill_core::{BuildError, Builder, Error, Kind, Turtle, TurtleFuture};
use pyo3::prelude::*;

use crate::asgi::{AsgiApp, EventLoop, Lifespan, WebSockets};
use crate::detect::{self, Interface};
use crate::lead::Offer;
use crate::target::Target;
use crate::thread;
use crate::wsgi::WsgiApp;

/// How many threads a WSGI application has unless it says otherwise.
pub const DEFAULT_THREADS: usize = 8;
/// How many requests wait for a thread of a WSGI application unless it says otherwise.
pub const DEFAULT_QUEUE: usize = 1024;

/// How an application is hosted.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its interface; `None`: found by looking at it.
    pub interface: Option<Interface>,
    /// WSGI: at most this many requests at once.
    pub threads: usize,
    /// WSGI: at most this many further requests wait; more are answered 503.
    pub queue: usize,
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

enum Hosted {
    Wsgi(Arc<WsgiApp>),
    Asgi(AsgiApp),
}

/// Makes the turtle of an application. `name` is how messages call it.
pub(crate) fn host(
    cx: &mut Builder,
    name: &str,
    source: Source,
    options: Options,
) -> Result<Turtle, BuildError> {
    let slot: Arc<OnceLock<Hosted>> = Arc::default();
    let (event_loop, lead) = (EventLoop::shared(cx)?, Offer::shared(cx)?);
    let loaded: Arc<Mutex<Option<Loaded>>> = Arc::default();
    let (starting, stopping, name): (_, _, Arc<str>) = (slot.clone(), slot.clone(), name.into());
    let (wanted, label, found, hosting) =
        (options.interface, name.clone(), loaded.clone(), event_loop.clone());
    cx.on_load(format!("import of application {name}"), async move {
        let application = import(&label, source, wanted).await?;
        hosting.hosts(application.1);
        lead.hosts(application.1);
        *found.lock().unwrap_or_else(PoisonError::into_inner) = Some(application);
        Ok(())
    });
    let starting_name = name.clone();
    cx.on_start(format!("application {name}"), async move {
        let loaded = loaded.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(loaded) = loaded {
            let _ = starting.set(start(&starting_name, loaded, &options, &event_loop).await?);
        }
        Ok(())
    });
    cx.on_stop(async move {
        match stopping.get() {
            Some(Hosted::Wsgi(app)) => app.stop().await,
            Some(Hosted::Asgi(app)) => app.stop().await,
            None => {}
        }
    });
    Ok(Turtle::from_ask(move |request| match slot.get() {
        Some(Hosted::Wsgi(app)) => app.ask(request),
        Some(Hosted::Asgi(app)) => app.ask(request),
        None => TurtleFuture::refused(
            Error::new(Kind::Overloaded)
                .because(format!("application {name} has not started yet"))
                .retryable(),
        ),
    }))
}

async fn import(name: &str, source: Source, wanted: Option<Interface>) -> Result<Loaded, BuildError> {
    let label = name.to_owned();
    let loaded = thread::attached("import", move |py| load(py, source, wanted, &label)).await;
    loaded.unwrap_or_else(|| {
        Err(BuildError::new(format!("application {name}: the Python interpreter cannot be used any more")))
    })
}

async fn start(
    name: &str,
    loaded: Loaded,
    options: &Options,
    event_loop: &EventLoop,
) -> Result<Hosted, BuildError> {
    match loaded {
        (callable, Interface::Wsgi) => {
            tracing::debug!(target: "hawksbill::start", app = name, "WSGI, at most {} threads", options.threads);
            Ok(Hosted::Wsgi(WsgiApp::new(name, callable, options.threads, options.queue)))
        }
        (callable, Interface::Asgi) => {
            tracing::debug!(target: "hawksbill::start", app = name, "ASGI");
            Ok(Hosted::Asgi(AsgiApp::start(name, callable, event_loop, options).await?))
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
    Ok((application.unbind(), interface))
}
