//! The event loop that all ASGI applications of a gateway share: asyncio's, or uvloop's where that is installed, on a
//! thread of its own.
//!
//! Whoever has work for it puts a [`Turn`] into a queue and, once a batch, makes a descriptor readable. Nobody outside
//! waits for the interpreter.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hawksbill_core::{BuildError, Builder};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use tokio::sync::{OnceCell, oneshot, watch};

use super::awaitable::{Awaitable, Done};
use super::wakeup::Wakeup;
use crate::failure::Failure;

/// How long tasks get to end after they were cancelled, in seconds.
const CANCEL_SECONDS: f64 = 5.0;
/// How long a stop waits for the thread altogether.
const STOP: Duration = Duration::from_secs(15);

/// Work to be done on the loop's thread.
pub(super) trait Turn: Send + Sync {
    /// Called attached, on the loop's thread, once for each time it was posted.
    fn turn(self: Arc<Self>, event_loop: &Bound<'_, Loop>);
}

/// The event loop, seen from other threads.
#[derive(Debug)]
pub(crate) struct EventLoop {
    remote: Arc<Remote>,
    /// Whether the thread has ended, or never began.
    ended: watch::Sender<bool>,
    started: OnceCell<()>,
}

/// What other threads need to reach the loop.
pub(super) struct Remote {
    turns: Mutex<Vec<Arc<dyn Turn>>>,
    /// Whether the loop knows already that something is there.
    called: AtomicBool,
    stopping: AtomicBool,
    wakeup: Wakeup,
}

/// The event loop, seen from its own thread: the objects that are needed for each request.
#[pyclass(frozen, module = "hawksbill")]
pub(super) struct Loop {
    object: Py<PyAny>,
    create_future: Py<PyAny>,
    create_task: Py<PyAny>,
    done: Py<Done>,
}

/// What the loop calls when the descriptor is readable.
#[pyclass(frozen, module = "hawksbill")]
struct Drain {
    remote: Arc<Remote>,
    event_loop: Py<Loop>,
}

impl EventLoop {
    /// The loop of the generation that is being built, made when it is first asked for.
    pub(crate) fn shared(cx: &mut Builder) -> Result<Arc<Self>, BuildError> {
        cx.shared("asgi event loop", |cx| {
            let failed = |error| BuildError::new("no descriptor for the event loop").caused_by(error);
            let remote = Arc::new(Remote {
                turns: Mutex::new(Vec::new()),
                called: AtomicBool::new(false),
                stopping: AtomicBool::new(false),
                wakeup: Wakeup::new().map_err(failed)?,
            });
            let (ended, mut has_ended) = watch::channel(true);
            let stopping = remote.clone();
            cx.on_stop(async move {
                stopping.stop();
                let ended = tokio::time::timeout(STOP, has_ended.wait_for(|ended| *ended)).await;
                if ended.is_err() {
                    tracing::warn!(target: "hawksbill::app", "the event loop still runs {STOP:?} after its stop");
                }
            });
            Ok(Self { remote, ended, started: OnceCell::new() })
        })
    }

    /// Starts the loop, unless it runs.
    pub(super) async fn start(&self) -> Result<(), BuildError> {
        let start = || start(self.remote.clone(), self.ended.clone());
        self.started.get_or_try_init(start).await?;
        Ok(())
    }

    pub(super) fn remote(&self) -> &Arc<Remote> {
        &self.remote
    }
}

impl Remote {
    /// Has the loop give this a turn. False when the loop is stopped.
    pub(super) fn post(&self, turn: Arc<dyn Turn>) -> bool {
        {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            // Looked at under the lock, so that nothing is left behind by the last `take`.
            if self.is_stopping() {
                return false;
            }
            turns.push(turn);
        }
        self.call();
        true
    }

    /// Whether the loop ends what is still in it.
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    fn call(&self) {
        if !self.called.swap(true, Ordering::AcqRel) {
            self.wakeup.wake();
        }
    }

    fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.call();
    }

    fn take(&self) -> Vec<Arc<dyn Turn>> {
        self.wakeup.clear();
        // Whatever comes from here on calls again; what came before is taken now.
        self.called.store(false, Ordering::Release);
        std::mem::take(&mut *self.turns.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remote").field("stopping", &self.stopping).finish_non_exhaustive()
    }
}

#[pymethods]
impl Drain {
    fn __call__(&self, py: Python<'_>) -> PyResult<()> {
        let event_loop = self.event_loop.bind(py);
        for turn in self.remote.take() {
            if catch_unwind(AssertUnwindSafe(|| turn.turn(event_loop))).is_err() {
                tracing::error!(target: "hawksbill::app", "a turn of the event loop ended in a panic");
            }
        }
        if self.remote.is_stopping() {
            event_loop.get().object.call_method0(py, "stop")?;
        }
        Ok(())
    }
}

impl Loop {
    fn new(py: Python<'_>, event_loop: &Bound<'_, PyAny>) -> PyResult<Self> {
        Ok(Self {
            object: event_loop.clone().unbind(),
            create_future: event_loop.getattr("create_future")?.unbind(),
            create_task: event_loop.getattr("create_task")?.unbind(),
            done: Py::new(py, Done)?,
        })
    }

    /// A future of this loop.
    pub(super) fn create_future<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.create_future.bind(py).call0()
    }

    /// Runs what an application returned as a task of this loop.
    pub(super) fn create_task<'py>(&self, awaitable: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = awaitable.py();
        let asyncio = py.import(pyo3::intern!(py, "asyncio"))?;
        if asyncio.call_method1(pyo3::intern!(py, "iscoroutine"), (&awaitable,))?.is_truthy()? {
            return self.create_task.bind(py).call1((awaitable,));
        }
        let options = PyDict::new(py);
        options.set_item("loop", &self.object)?;
        asyncio.call_method("ensure_future", (awaitable,), Some(&options))
    }

    /// An awaitable that is ready already, with None.
    pub(super) fn done<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        self.done.bind(py).clone().into_any()
    }

    /// An awaitable of a future of this loop.
    pub(super) fn awaiting<'py>(future: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        Ok(Bound::new(future.py(), Awaitable::of(future)?)?.into_any())
    }
}

async fn start(remote: Arc<Remote>, ended: watch::Sender<bool>) -> Result<(), BuildError> {
    let (ready, is_ready) = oneshot::channel();
    let has_begun = ended.clone();
    let serve = move || {
        Python::try_attach(|py| {
            if let Err(error) = serve(py, &remote, ready) {
                Failure::new(py, &error).log("event loop", "event loop");
            }
        });
        remote.stopping.store(true, Ordering::Release);
        // Requests that nobody will serve are answered by letting them go.
        drop(remote.take());
        ended.send_replace(true);
    };
    has_begun.send_replace(false);
    if let Err(error) = std::thread::Builder::new().name("asgi-loop".into()).spawn(serve) {
        has_begun.send_replace(true);
        return Err(BuildError::new("no thread for the event loop").caused_by(error));
    }
    match is_ready.await {
        Ok(kind) => {
            tracing::debug!(target: "hawksbill::start", "event loop: {kind}");
            Ok(())
        }
        Err(_) => Err(BuildError::new("the event loop did not start; the reason is in the log")),
    }
}

/// Runs the loop until it is stopped, then ends what is left in it.
fn serve(py: Python<'_>, remote: &Arc<Remote>, ready: oneshot::Sender<&'static str>) -> PyResult<()> {
    let asyncio = py.import("asyncio")?;
    let (event_loop, kind) = match py.import("uvloop") {
        Ok(uvloop) => (uvloop.call_method0("new_event_loop")?, "uvloop"),
        Err(_) => (asyncio.call_method0("new_event_loop")?, "asyncio"),
    };
    asyncio.call_method1("set_event_loop", (&event_loop,))?;
    let drain = Drain { remote: remote.clone(), event_loop: Py::new(py, Loop::new(py, &event_loop)?)? };
    event_loop.call_method1("add_reader", (remote.wakeup.descriptor(), drain))?;
    let _ = ready.send(kind);
    while !remote.is_stopping() {
        // SystemExit and KeyboardInterrupt pass through asyncio; they end the task they come from, not the server.
        if let Err(error) = event_loop.call_method0("run_forever") {
            Failure::new(py, &error).log("event loop", "a task raised through the event loop");
        }
    }
    let ended = end_tasks(&asyncio, &event_loop);
    event_loop.call_method1("remove_reader", (remote.wakeup.descriptor(),))?;
    event_loop.call_method0("close")?;
    asyncio.call_method1("set_event_loop", (py.None(),))?;
    ended
}

/// As `asyncio.run` does at its end, but not for ever.
fn end_tasks(asyncio: &Bound<'_, PyModule>, event_loop: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = asyncio.py();
    let tasks = PyList::empty(py);
    for task in asyncio.call_method1("all_tasks", (event_loop,))?.try_iter()? {
        let task = task?;
        task.call_method0("cancel")?;
        tasks.append(task)?;
    }
    let bound = PyDict::new(py);
    bound.set_item("timeout", CANCEL_SECONDS)?;
    if !tasks.is_empty() {
        let all = asyncio.call_method("wait", (tasks,), Some(&bound))?;
        event_loop.call_method1("run_until_complete", (all,))?;
    }
    for method in ["shutdown_asyncgens", "shutdown_default_executor"] {
        let ending = asyncio.call_method("wait_for", (event_loop.call_method0(method)?,), Some(&bound))?;
        if let Err(error) = event_loop.call_method1("run_until_complete", (ending,)) {
            Failure::new(py, &error).log("event loop", method);
        }
    }
    Ok(())
}
