//! The life of an application (ASGI "Lifespan Protocol"): it is told when it starts and when it ends.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hawksbill_core::BuildError;
use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use tokio::sync::oneshot;

use super::awaitable::Awaitable;
use super::conversation::is_done;
use super::event_loop::{Loop, Tasked, Turn};
use super::message::Message;
use super::{Application, scope};
use crate::failure::Failure;

/// How long an application gets to end after it was told to.
const SHUTDOWN: Duration = Duration::from_secs(10);

/// Whether an application is told when it starts and when it ends.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Lifespan {
    /// If it takes part; one that raises does not.
    #[default]
    Auto,
    /// It has to take part; one that raises does not start.
    On,
    /// It is never told.
    Off,
}

type Started = Result<bool, BuildError>;

/// An application from its start to its end.
pub(super) struct Life {
    application: Arc<Application>,
    mode: Lifespan,
    state: Mutex<State>,
    has_stopped: Mutex<Option<oneshot::Receiver<()>>>,
}

struct State {
    begun: bool,
    /// Whether the application is to end.
    ending: bool,
    told: Told,
    started: Option<oneshot::Sender<Started>>,
    stopped: Option<oneshot::Sender<()>>,
    receivers: Vec<Py<PyAny>>,
    task: Option<Py<PyAny>>,
    shared: Option<Py<PyDict>>,
}

/// What an application has received.
#[derive(Clone, Copy)]
enum Told {
    Nothing,
    Startup,
    Shutdown,
}

impl Life {
    /// Tells the application that it starts, and waits for its answer. `None`: it takes no part.
    pub(super) async fn start(
        application: &Arc<Application>,
        mode: Lifespan,
    ) -> Result<Option<Arc<Self>>, BuildError> {
        if mode == Lifespan::Off {
            return Ok(None);
        }
        let (started, has_started) = oneshot::channel();
        let (stopped, has_stopped) = oneshot::channel();
        let life = Arc::new(Self {
            application: application.clone(),
            mode,
            state: Mutex::new(State {
                begun: false,
                ending: false,
                told: Told::Nothing,
                started: Some(started),
                stopped: Some(stopped),
                receivers: Vec::new(),
                task: None,
                shared: None,
            }),
            has_stopped: Mutex::new(Some(has_stopped)),
        });
        application.remote().post(life.clone());
        let name = application.name();
        match has_started.await {
            Ok(Ok(true)) => Ok(Some(life)),
            Ok(Ok(false)) => Ok(None),
            Ok(Err(error)) => Err(error),
            Err(_) => {
                Err(BuildError::new(format!("application {name}: the event loop ended while it started")))
            }
        }
    }

    /// Tells the application that it ends, and waits until it has, for a while.
    pub(super) async fn stop(self: &Arc<Self>) {
        let waiting = self.has_stopped.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(has_stopped) = waiting else { return };
        self.lock().ending = true;
        if !self.application.remote().post(self.clone()) {
            return;
        }
        if tokio::time::timeout(SHUTDOWN, has_stopped).await.is_err() {
            let app = self.application.name();
            tracing::warn!(target: "hawksbill::app", app, "its lifespan did not shut down within {SHUTDOWN:?}");
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(self: &Arc<Self>, event_loop: &Bound<'_, Loop>) -> PyResult<()> {
        let py = event_loop.py();
        let Some(callable) = self.application.callable(py) else { return Ok(()) };
        let shared = PyDict::new(py);
        self.lock().shared = Some(shared.clone().unbind());
        let scope = scope::lifespan(py, &shared)?;
        let receive = Receive { life: self.clone(), event_loop: event_loop.clone().unbind() };
        let send = Send { life: self.clone(), event_loop: event_loop.clone().unbind() };
        event_loop.get().run(callable.bind(py).call1((scope, receive, send))?, self)
    }

    fn receive<'py>(&self, event_loop: &Bound<'py, Loop>) -> PyResult<Bound<'py, PyAny>> {
        let py = event_loop.py();
        let next = {
            let mut state = self.lock();
            match state.told {
                Told::Nothing => {
                    state.told = Told::Startup;
                    Some("lifespan.startup")
                }
                Told::Startup if state.ending => {
                    state.told = Told::Shutdown;
                    Some("lifespan.shutdown")
                }
                Told::Startup | Told::Shutdown => None,
            }
        };
        if let Some(kind) = next {
            return Ok(Bound::new(py, Awaitable::ready(message(py, kind)?.unbind()))?.into_any());
        }
        let future = event_loop.get().create_future(py)?;
        self.lock().receivers.push(future.clone().unbind());
        Loop::awaiting(&future)
    }

    fn send(&self, message: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = message.py();
        let message = Message::new(message)?;
        let kind = message.kind()?;
        let reason = match message.get(intern!(py, "message"))? {
            Some(reason) => reason.str()?.to_string_lossy().into_owned(),
            None => String::new(),
        };
        match kind.to_str()? {
            "lifespan.startup.complete" => {
                let (started, shared) = {
                    let mut state = self.lock();
                    (state.started.take(), state.shared.take())
                };
                if let Some(shared) = shared {
                    self.application.set_state(shared);
                }
                tell(started, Ok(true));
            }
            "lifespan.startup.failed" => {
                // Many applications raise as well; the message has said it all.
                let (started, stopped) = {
                    let mut state = self.lock();
                    (state.started.take(), state.stopped.take())
                };
                drop(stopped);
                tell(started, Err(self.failed(&reason)));
            }
            "lifespan.shutdown.complete" => drop(self.lock().stopped.take()),
            "lifespan.shutdown.failed" => {
                Failure::message(format!("its shutdown failed: {reason}"))
                    .log(self.application.name(), "lifespan");
                drop(self.lock().stopped.take());
            }
            other => return Err(PyValueError::new_err(format!("lifespan has no message of type '{other}'"))),
        }
        Ok(())
    }

    fn failed(&self, reason: &str) -> BuildError {
        let name = self.application.name();
        // Frameworks put a whole traceback into the message.
        match reason.trim().lines().last() {
            None => BuildError::new(format!("application {name} failed to start, and said no reason")),
            Some(line) if line.len() == reason.trim().len() => {
                BuildError::new(format!("application {name} failed to start: {line}"))
            }
            Some(last) => {
                BuildError::new(format!("application {name} failed to start: {last}")).details(reason)
            }
        }
    }
}

impl Tasked for Life {
    fn keep(self: Arc<Self>, task: &Bound<'_, PyAny>) {
        self.lock().task = Some(task.clone().unbind());
    }

    fn end(&self, py: Python<'_>, result: PyResult<()>) {
        let (started, stopped, held) = {
            let mut state = self.lock();
            let held = (std::mem::take(&mut state.receivers), state.task.take(), state.shared.take());
            (state.started.take(), state.stopped.take(), held)
        };
        drop(held);
        let name = self.application.name();
        let failure = result.err().map(|error| Failure::new(py, &error));
        match (started, failure) {
            (Some(started), failure) => {
                let reason = failure.as_ref().map_or("it returned", |failure| &failure.summary);
                if self.mode == Lifespan::On {
                    let error =
                        BuildError::new(format!("application {name} takes no part in lifespan: {reason}"));
                    let details = failure.map(|failure| failure.traceback).unwrap_or_default();
                    tell(Some(started), Err(error.details(details)));
                } else {
                    tracing::info!(target: "hawksbill::start", app = name, "takes no part in lifespan: {reason}");
                    tell(Some(started), Ok(false));
                }
            }
            (None, Some(failure)) if stopped.is_some() => failure.log(name, "lifespan"),
            (None, _) => {}
        }
        drop(stopped);
    }
}

impl Turn for Life {
    fn turn(self: Arc<Self>, event_loop: &Bound<'_, Loop>) {
        let py = event_loop.py();
        let begun = std::mem::replace(&mut self.lock().begun, true);
        if !begun {
            if let Err(error) = self.begin(event_loop) {
                self.end(py, Err(error));
            }
            return;
        }
        if let Err(error) = self.tell_shutdown(py) {
            Failure::new(py, &error).log(self.application.name(), "lifespan");
        }
    }
}

impl Life {
    fn tell_shutdown(&self, py: Python<'_>) -> PyResult<()> {
        loop {
            let Some(future) = self.lock().receivers.pop() else { return Ok(()) };
            if !is_done(future.bind(py))? {
                self.lock().told = Told::Shutdown;
                future.call_method1(py, intern!(py, "set_result"), (message(py, "lifespan.shutdown")?,))?;
                return Ok(());
            }
        }
    }
}

fn tell(started: Option<oneshot::Sender<Started>>, what: Started) {
    if let Some(started) = started {
        let _ = started.send(what);
    }
}

fn message<'py>(py: Python<'py>, kind: &str) -> PyResult<Bound<'py, PyDict>> {
    let message = PyDict::new(py);
    message.set_item("type", kind)?;
    Ok(message)
}

#[pyclass(frozen, module = "hawksbill")]
struct Receive {
    life: Arc<Life>,
    event_loop: Py<Loop>,
}

#[pymethods]
impl Receive {
    fn __call__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.life.receive(self.event_loop.bind(py))
    }
}

#[pyclass(frozen, module = "hawksbill")]
struct Send {
    life: Arc<Life>,
    event_loop: Py<Loop>,
}

#[pymethods]
impl Send {
    fn __call__<'py>(&self, message: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        self.life.send(message)?;
        Ok(self.event_loop.get().done(message.py()))
    }
}
