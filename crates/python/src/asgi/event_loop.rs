//! The event loop that all ASGI applications of a gateway share, and how the runtime reaches it.
//!
//! It runs in one of two places. *Own*: the gateway's only thread is the loop's, and turns the runtime too. *Apart*: the
//! loop has a thread of its own beside a runtime that belongs to others. To whoever has work for it they are the same:
//! a [`Turn`] is put into a queue, and the loop is called once a batch. Nobody outside waits for the interpreter.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::Waker;
use std::time::Duration;

use hawksbill_core::config::Duration as Span;
use hawksbill_core::{BuildError, Builder};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use tokio::sync::{OnceCell, watch};

use super::apart;
use super::awaitable::{Awaitable, Done};
use super::conversation::is_done;
use super::own::{Begun, OwnLoop, Scheduler};
use super::scope::Scopes;
use super::underway::Pulse;
use super::wakeup::Wakeup;
use crate::busy_poll::BusyPoll;
use crate::detect::Interface;
use crate::failure::Failure;
use crate::watchdog::Watchdog;

/// How long tasks get to end after they were cancelled, in seconds.
const CANCEL_SECONDS: f64 = 5.0;
/// How long a stop waits for a thread altogether.
const STOP: Duration = Duration::from_secs(15);

/// Work to be done on the loop's thread.
pub(super) trait Turn: Send + Sync {
    /// Called attached, on the loop's thread, once for each time it was posted.
    fn turn(self: Arc<Self>, event_loop: &Bound<'_, Loop>);
}

/// Whom a task of the loop belongs to.
pub(super) trait Tasked: Send + Sync + 'static {
    /// Keeps the task alive: the loop has weak references only.
    fn keep(self: Arc<Self>, task: &Bound<'_, PyAny>);

    /// Called once, with what the task returned or raised.
    fn end(&self, py: Python<'_>, result: PyResult<()>);
}

/// The event loop, seen from other threads.
#[derive(Debug)]
pub(crate) struct EventLoop {
    remote: Arc<Remote>,
    /// Whether its own thread, if it has one, has ended or never began.
    ended: watch::Sender<bool>,
    started: OnceCell<()>,
}

/// What other threads need to reach the loop.
#[derive(Default)]
pub(super) struct Remote {
    turns: Mutex<Vec<Arc<dyn Turn>>>,
    /// Whether the loop knows already that something is there.
    called: AtomicBool,
    stopping: AtomicBool,
    bell: OnceLock<Bell>,
    /// Whether the loop shares its thread with the runtime.
    settled: AtomicBool,
    /// What the applications turned out to be.
    hosts_asgi: AtomicBool,
    hosts_wsgi: AtomicBool,
    pulse: Pulse,
    busy_poll: Arc<BusyPoll>,
}

/// How the loop is called.
#[derive(Debug)]
pub(super) enum Bell {
    Descriptor(Wakeup),
    Task(Waker),
}

/// The event loop, seen from its own thread: the objects that are needed for each request.
#[pyclass(frozen, module = "hawksbill")]
pub(super) struct Loop {
    object: Py<PyAny>,
    create_future: Py<PyAny>,
    create_task: Py<PyAny>,
    future: Py<PyAny>,
    /// `{"loop": ...}`
    options: Py<PyDict>,
    coroutine: Py<PyAny>,
    done: Py<Done>,
    scopes: Scopes,
    /// Set where it is our own, whose tasks can take their first step at once.
    own: Option<Py<Scheduler>>,
}

thread_local! {
    /// The loop that shares this thread with the runtime.
    static HERE: RefCell<Option<(*const Remote, Py<Loop>)>> = const { RefCell::new(None) };
}

impl EventLoop {
    /// The loop of the generation that is being built, made when it is first asked for.
    pub(crate) fn shared(cx: &mut Builder) -> Result<Arc<Self>, BuildError> {
        cx.shared("asgi event loop", |cx| {
            let remote = Arc::new(Remote::default());
            cx.offer_driver(Arc::new(OwnLoop::new(remote.clone())));
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

    /// Notes what an application turned out to be.
    pub(crate) fn hosts(&self, interface: Interface) {
        let hosts = match interface {
            Interface::Asgi => &self.remote.hosts_asgi,
            Interface::Wsgi => &self.remote.hosts_wsgi,
        };
        hosts.store(true, Ordering::Release);
    }

    /// Has it seen whether the loop goes so long without a turn.
    pub(super) fn watch(&self, watchdog: &Watchdog, timeout: Span, slow: Span) {
        if self.remote.pulse.bound(timeout, slow) {
            watchdog.watch(&self.remote);
        }
    }

    /// Starts the loop on a thread, unless it runs.
    pub(super) async fn start(&self) -> Result<(), BuildError> {
        if self.remote.is_settled() {
            return Ok(());
        }
        let start = || apart::start(self.remote.clone(), self.ended.clone());
        self.started.get_or_try_init(start).await?;
        Ok(())
    }

    pub(super) fn remote(&self) -> &Arc<Remote> {
        &self.remote
    }
}

impl Remote {
    /// Whether all that is hosted lives on the loop.
    pub(super) fn is_for_asgi_alone(&self) -> bool {
        self.hosts_asgi.load(Ordering::Acquire) && !self.hosts_wsgi.load(Ordering::Acquire)
    }

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

    /// Gives this a turn at once if the loop shares this thread, else soon. False when the loop is stopped.
    pub(super) fn run(&self, turn: Arc<dyn Turn>) -> bool {
        self.busy_poll.note_request();
        HERE.with_borrow(|here| match here {
            Some((remote, event_loop)) if std::ptr::eq(*remote, self) => {
                !self.is_stopping() && Python::try_attach(|py| take_turn(turn, event_loop.bind(py))).is_some()
            }
            _ => self.post(turn),
        })
    }

    pub(super) fn busy_poll(&self) -> &Arc<BusyPoll> {
        &self.busy_poll
    }

    pub(super) fn pulse(&self) -> &Pulse {
        &self.pulse
    }

    /// Whether the loop shares its thread with the runtime.
    pub(super) fn is_settled(&self) -> bool {
        self.settled.load(Ordering::Acquire)
    }

    /// Whether the loop ends what is still in it.
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Has the loop look at its queues.
    pub(super) fn call(&self) {
        if !self.called.swap(true, Ordering::SeqCst) {
            match self.bell.get() {
                Some(Bell::Descriptor(wakeup)) => wakeup.wake(),
                Some(Bell::Task(waker)) => waker.wake_by_ref(),
                // It looks when it begins.
                None => {}
            }
        }
    }

    /// Makes the descriptor unreadable, where the loop is called through one.
    pub(super) fn clear_bell(&self) {
        if let Some(Bell::Descriptor(wakeup)) = self.bell.get() {
            wakeup.clear();
        }
    }

    /// The loop looks at its queues until it [answers](Self::answer_calls).
    pub(super) fn begin_round(&self) {
        self.called.store(true, Ordering::SeqCst);
    }

    /// Whoever comes from here on calls again; what came before is to be looked at now.
    pub(super) fn answer_calls(&self) {
        self.called.store(false, Ordering::SeqCst);
    }

    /// Says how the loop is called, once.
    pub(super) fn install(&self, bell: Bell) {
        let _ = self.bell.set(bell);
    }

    /// Makes this thread the loop's and the runtime's.
    pub(super) fn settle_here(&self, event_loop: Py<Loop>) {
        self.settled.store(true, Ordering::Release);
        HERE.set(Some((std::ptr::from_ref(self), event_loop)));
    }

    /// Makes this thread nobody's again.
    pub(super) fn leave_here(_: Python<'_>) {
        drop(HERE.take());
    }

    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.call();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    pub(super) fn take(&self) -> Vec<Arc<dyn Turn>> {
        std::mem::take(&mut *self.turns.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remote").field("stopping", &self.stopping).finish_non_exhaustive()
    }
}

/// No panic of one turn is another's affair.
pub(super) fn take_turn(turn: Arc<dyn Turn>, event_loop: &Bound<'_, Loop>) {
    if catch_unwind(AssertUnwindSafe(|| turn.turn(event_loop))).is_err() {
        tracing::error!(target: "hawksbill::app", "a turn of the event loop ended in a panic");
    }
}

impl Loop {
    pub(super) fn new(event_loop: &Bound<'_, PyAny>) -> PyResult<Self> {
        let py = event_loop.py();
        let options = PyDict::new(py);
        options.set_item("loop", event_loop)?;
        Ok(Self {
            future: py.import("asyncio")?.getattr("Future")?.unbind(),
            options: options.unbind(),
            object: event_loop.clone().unbind(),
            create_future: event_loop.getattr("create_future")?.unbind(),
            create_task: event_loop.getattr("create_task")?.unbind(),
            coroutine: py.import("types")?.getattr("CoroutineType")?.unbind(),
            done: Py::new(py, Done)?,
            scopes: Scopes::new(),
            own: event_loop.cast::<Scheduler>().ok().map(|own| own.clone().unbind()),
        })
    }

    pub(super) fn scopes(&self) -> &Scopes {
        &self.scopes
    }

    pub(super) fn object<'py>(&self, py: Python<'py>) -> &Bound<'py, PyAny> {
        self.object.bind(py)
    }

    /// A future of this loop.
    pub(super) fn create_future<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        if self.own.is_some() {
            return self.future.bind(py).call((), Some(self.options.bind(py)));
        }
        self.create_future.bind(py).call0()
    }

    /// Runs what an application returned as a task of this loop.
    pub(super) fn run<T: Tasked>(&self, awaitable: Bound<'_, PyAny>, whose: &Arc<T>) -> PyResult<()> {
        let py = awaitable.py();
        let task = match self.begin(awaitable)? {
            Begun::Over(result) => {
                whose.end(py, result);
                return Ok(());
            }
            Begun::Waits(task) => task,
        };
        if self.own.is_some() && is_done(&task)? {
            whose.end(py, result_of(&task));
            return Ok(());
        }
        whose.clone().keep(&task);
        task.call_method1(intern!(py, "add_done_callback"), (Ended { whose: whose.clone() },))?;
        Ok(())
    }

    fn begin<'py>(&self, awaitable: Bound<'py, PyAny>) -> PyResult<Begun<'py>> {
        let py = awaitable.py();
        let asyncio = || py.import(intern!(py, "asyncio"));
        let is_usual = awaitable.get_type().is(&self.coroutine);
        if is_usual && let Some(own) = self.own.as_ref().filter(|own| own.get().makes_usual_tasks()) {
            return Scheduler::begin(own.bind(py), &awaitable);
        }
        if is_usual || asyncio()?.call_method1(intern!(py, "iscoroutine"), (&awaitable,))?.is_truthy()? {
            return self.create_task.bind(py).call1((awaitable,)).map(Begun::Waits);
        }
        asyncio()?.call_method("ensure_future", (awaitable,), Some(self.options.bind(py))).map(Begun::Waits)
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

fn result_of(task: &Bound<'_, PyAny>) -> PyResult<()> {
    task.call_method0(intern!(task.py(), "result")).map(drop)
}

/// Called with the task when that is over.
#[pyclass(frozen, module = "hawksbill")]
struct Ended {
    whose: Arc<dyn Tasked>,
}

#[pymethods]
impl Ended {
    fn __call__(&self, task: &Bound<'_, PyAny>) {
        self.whose.end(task.py(), result_of(task));
    }
}

/// How long a loop rests that something has raised through.
const AFTER_FAILURE: Duration = Duration::from_millis(10);

/// Runs the loop until `is_over` says so. `SystemExit` and `KeyboardInterrupt` pass through asyncio; they end the task they
/// come from, not the server.
pub(super) fn run_until(event_loop: &Bound<'_, PyAny>, is_over: impl Fn() -> bool) {
    while !is_over() {
        if let Err(error) = event_loop.call_method0("run_forever") {
            let py = event_loop.py();
            Failure::new(py, &error).log("event loop", "a task raised through the event loop");
            // A loop that is broken for good fails at once each time.
            py.detach(|| std::thread::sleep(AFTER_FAILURE));
        }
    }
}

/// As `asyncio.run` does at its end, but not for ever.
pub(super) fn end_tasks(event_loop: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = event_loop.py();
    let asyncio = py.import("asyncio")?;
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
