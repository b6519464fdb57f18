//! From an object that is named or at hand to a turtle: loading, looking, starting, stopping.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use hawksbill_core::{Body, BuildError, Builder, Error, Kind, Turtle};
use http::{Request, Response};
use pyo3::prelude::*;

use crate::asgi::{AsgiApp, EventLoop, Lifespan, WebSockets};
use crate::detect::{self, Interface};
use crate::django::{self, Project};
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

/// What answers once it has started.
pub(crate) enum Hosted {
    Wsgi(WsgiApp),
    Asgi(AsgiApp),
    Django(Project),
}

/// Makes the turtle of an application. `name` is how messages call it.
pub(crate) fn host(
    cx: &mut Builder,
    name: &str,
    source: Source,
    options: Options,
) -> Result<Turtle, BuildError> {
    let event_loop = match options.interface {
        Some(Interface::Wsgi) => None,
        Some(Interface::Asgi) | None => Some(EventLoop::shared(cx)?),
    };
    let label = name.to_owned();
    Ok(keep(cx, name, async move { start(&label, source, options, event_loop).await }))
}

/// The turtle of what `start` makes when the generation starts, and which is stopped with it.
pub(crate) fn keep<F>(cx: &mut Builder, name: &str, start: F) -> Turtle
where
    F: Future<Output = Result<Hosted, BuildError>> + Send + 'static,
{
    let slot: Arc<OnceLock<Hosted>> = Arc::default();
    let (starting, stopping, name): (_, _, Arc<str>) = (slot.clone(), slot.clone(), name.into());
    cx.on_start(format!("application {name}"), async move {
        let _ = starting.set(start.await?);
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
    Turtle::from_fn(move |request| ask(slot.clone(), name.clone(), request))
}

async fn ask(
    slot: Arc<OnceLock<Hosted>>,
    name: Arc<str>,
    request: Request<Body>,
) -> Result<Response<Body>, Error> {
    match slot.get() {
        Some(Hosted::Wsgi(app)) => app.call(request).await,
        Some(Hosted::Asgi(app)) => app.call(request).await,
        Some(Hosted::Django(project)) => project.call(request).await,
        None => Err(Error::new(Kind::Overloaded)
            .because(format!("application {name} has not started yet"))
            .retryable()),
    }
}

async fn start(
    name: &str,
    source: Source,
    options: Options,
    event_loop: Option<Arc<EventLoop>>,
) -> Result<Hosted, BuildError> {
    let (wanted, label) = (options.interface, name.to_owned());
    let loaded = thread::attached("import", move |py| load(py, source, wanted, &label)).await;
    let Some(loaded) = loaded else {
        return Err(BuildError::new(format!(
            "application {name}: the Python interpreter cannot be used any more"
        )));
    };
    match loaded? {
        (callable, Interface::Wsgi) => {
            tracing::debug!(target: "hawksbill::start", app = name, "WSGI, at most {} threads", options.threads);
            Ok(Hosted::Wsgi(WsgiApp::new(name, callable, options.threads, options.queue)))
        }
        (callable, Interface::Asgi) => {
            tracing::debug!(target: "hawksbill::start", app = name, "ASGI");
            let Some(event_loop) = event_loop else {
                return Err(BuildError::new(format!("application {name} is ASGI, but was to be WSGI")));
            };
            Ok(Hosted::Asgi(AsgiApp::start(name, callable, &event_loop, &options).await?))
        }
    }
}

fn load(
    py: Python<'_>,
    source: Source,
    wanted: Option<Interface>,
    name: &str,
) -> Result<(Py<PyAny>, Interface), BuildError> {
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
