//! Hosting of ASGI 3 applications: HTTP, WebSocket and lifespan.
//!
//! All of them share one event loop. Where the gateway hosts nothing else that is Python, the loop and the runtime share
//! one thread (`own`); elsewhere the loop has a thread of its own (`apart`), to which the runtime posts work, and neither
//! waits for the other.

mod apart;
mod awaitable;
mod conversation;
mod event_loop;
mod file;
mod http;
mod lane;
mod lifespan;
mod message;
mod own;
mod scope;
mod settings;
mod underway;
mod wakeup;
mod websocket;
mod wire;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ::http::{Method, Request, Response};
use hawksbill_core::config::Duration as Span;
use hawksbill_core::{Body, BuildError, Draining, Error, Kind, TurtleFuture, Upgrade};
use hawksbill_websocket::handshake::{OpeningHandshake, is_upgrade};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use tokio::runtime::Handle;

pub use self::conversation::ClientDisconnected;
pub(crate) use self::event_loop::EventLoop;
use self::event_loop::Remote;
use self::http::Exchange;
use self::lifespan::Life;
pub use self::lifespan::Lifespan;
pub use self::settings::WebSockets;
use self::underway::Underway;
use self::websocket::Socket;
use crate::host::{Home, Options};
use crate::slow::{self, Round, Slow, What};
use crate::watchdog::{Late, Watched, soonest};
use crate::{reply, thread};

/// An ASGI application with its life.
pub(crate) struct AsgiApp {
    application: Arc<Application>,
    life: Option<Arc<Life>>,
}

/// What each connection of an application needs of it.
#[derive(Debug)]
struct Application {
    name: String,
    remote: Arc<Remote>,
    websockets: WebSockets,
    /// How long a request may take to begin its answer; 0: as long as it likes.
    timeout: Span,
    /// Those that take long, if anybody wants to know.
    slow: Option<Arc<Slow>>,
    underway: Underway,
    /// Where files are opened.
    runtime: Handle,
    /// Empty once the application is stopped.
    objects: Mutex<Option<Objects>>,
}

#[derive(Debug)]
struct Objects {
    callable: Py<PyAny>,
    /// What the application left in `scope["state"]` while it started; copied for each connection.
    state: Option<Py<PyDict>>,
}

impl AsgiApp {
    /// Hosts a callable on the loop, and waits until it has started.
    ///
    /// # Errors
    /// What the application gave as the reason why it cannot start.
    pub(crate) async fn start(
        name: &str,
        callable: Py<PyAny>,
        home: &Home,
        options: &Options,
    ) -> Result<Self, BuildError> {
        let event_loop = &home.event_loop;
        event_loop.start().await?;
        let application = Arc::new(Application {
            name: name.to_owned(),
            remote: event_loop.remote().clone(),
            websockets: options.websocket,
            timeout: options.timeout,
            slow: Slow::new(name, options.slow, slow::REQUEST),
            underway: Underway::default(),
            runtime: Handle::current(),
            objects: Mutex::new(Some(Objects { callable, state: None })),
        });
        let life = Life::start(&application, options.lifespan).await?;
        let asked = Arc::downgrade(&application);
        let sample = move || asked.upgrade().map(|app| app.underway.sample()).unwrap_or_default();
        home.watchdog.vitals().source(sample);
        if !options.timeout.is_zero() || !options.slow.is_zero() {
            home.watchdog.watch(&application);
            event_loop.watch(&home.watchdog, options.timeout, options.slow);
        }
        Ok(Self { application, life })
    }

    /// Asks the application.
    pub(crate) fn ask(&self, request: Request<Body>) -> TurtleFuture {
        let application = self.application.clone();
        let asks = is_upgrade(request.headers()) || request.method() == Method::CONNECT;
        let upgrade = if asks { request.extensions().get::<Upgrade>().cloned() } else { None };
        if let Some(upgrade) = upgrade {
            return TurtleFuture::new(open(application, request, upgrade));
        }
        let (parts, body) = request.into_parts();
        let (reply, asked) = reply::channel(None);
        if !Exchange::new(application.clone(), parts, body, reply).begin() {
            return TurtleFuture::refused(application.stopped());
        }
        TurtleFuture::new(async move { asked.await.unwrap_or_else(|| Err(application.stopped())) })
    }

    /// Tells the application that it is over, and lets it go.
    pub(crate) async fn stop(&self) {
        if let Some(life) = &self.life {
            life.stop().await;
        }
        let objects = self.application.objects.lock().unwrap_or_else(PoisonError::into_inner).take();
        thread::release(objects).await;
    }
}

/// Asks an application for a WebSocket.
async fn open(
    application: Arc<Application>,
    request: Request<Body>,
    upgrade: Upgrade,
) -> Result<Response<Body>, Error> {
    let opening = match *request.method() {
        // Servers let no CONNECT for anything else through with an upgrade.
        Method::CONNECT => OpeningHandshake::from_extended_connect(&request, "websocket"),
        _ => OpeningHandshake::from_request(&request),
    };
    let opening = opening.map_err(|error| websocket::malformed(&error))?;
    let draining = Draining::of(&request);
    let (parts, _) = request.into_parts();
    let (reply, asked) = reply::channel(None);
    let request = websocket::Request { parts, opening, upgrade, draining, runtime: Handle::current() };
    if !Socket::new(application.clone(), request, reply).begin() {
        return Err(application.stopped());
    }
    asked.await.unwrap_or_else(|| Err(application.stopped()))
}

impl Watched for Application {
    fn soonest(&self) -> Duration {
        soonest([self.timeout.get(), self.slow.as_ref().map_or(Duration::ZERO, |slow| slow.after())])
    }

    fn look_slow(self: Arc<Self>, round: &mut Round) {
        let Some(slow) = &self.slow else { return };
        let running = self.underway.slow(slow.after(), round.now);
        slow.look(
            round,
            running,
            |exchange| What::new(exchange.description(), exchange.request_id.clone()),
            Exchange::place,
        );
    }

    fn look(self: Arc<Self>, now: Duration, late: &mut Vec<Late>) {
        if self.timeout.is_zero() {
            return;
        }
        // What waits for a loop on the runtime's own thread is told nothing before that goes on.
        if self.remote.is_settled() && !self.remote.pulse().is_there(now) {
            return;
        }
        for exchange in self.underway.late(self.timeout.get(), now) {
            late.extend(exchange.late(self.timeout));
        }
    }
}

impl Application {
    fn underway(&self) -> &Underway {
        &self.underway
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn tells_slow(&self) -> bool {
        self.slow.is_some()
    }

    fn remote(&self) -> &Remote {
        &self.remote
    }

    fn runtime(&self) -> &Handle {
        &self.runtime
    }

    fn callable(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        let objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        objects.as_ref().map(|objects| objects.callable.clone_ref(py))
    }

    fn state<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyDict>> {
        let objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        Some(objects.as_ref()?.state.as_ref()?.bind(py).clone())
    }

    fn set_state(&self, state: Py<PyDict>) {
        if let Some(objects) = &mut *self.objects.lock().unwrap_or_else(PoisonError::into_inner) {
            objects.state = Some(state);
        }
    }

    fn stopped(&self) -> Error {
        Error::new(Kind::Overloaded).because(format!("application {} is stopped", self.name)).retryable()
    }
}
