//! The scheduling half of our own event loop: what `asyncio.BaseEventLoop` does with `_ready` and `_scheduled`.
//!
//! It stands before `asyncio.SelectorEventLoop` in the order of classes. Everything else is asyncio's own: transports,
//! subprocesses, signals, executors, the order of events at the start and the end. In debug mode so is this.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Poll, Waker};

use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyTuple, PyType};
use tokio::runtime::Runtime;

use super::handle::{Handle, Job, copy_context, in_context};
use super::lazy::{self, Begun, Step};
use super::timers::{Timer, Timers};
use crate::asgi::event_loop::Remote;

/// The base class.
#[pyclass(frozen, subclass, module = "hawksbill")]
pub(crate) struct Scheduler {
    runtime: Mutex<Option<Arc<Runtime>>>,
    remote: OnceLock<Arc<Remote>>,
    queues: Mutex<Queues>,
    closed: AtomicBool,
    debug: AtomicBool,
    /// Whether the application makes its tasks itself.
    has_task_factory: AtomicBool,
    /// What `run_forever` has to return for.
    leaving: Mutex<Leaving>,
    /// The first step of a task that is being made.
    first_step: Mutex<FirstStep>,
    /// A first step that is being taken.
    step: Mutex<Option<Step>>,
    /// Whether that has no task yet.
    is_unseen: AtomicBool,
    python: Imports,
}

/// What is looked up once.
struct Imports {
    /// `asyncio.SelectorEventLoop`.
    parent: Py<PyType>,
    future: Py<PyAny>,
    task: Py<PyAny>,
    /// Whether tasks can be made when somebody looks: they have to take a context, and to be looked up by the loop.
    lazy: bool,
    pub(super) monotonic: Py<PyAny>,
    timer_handle: Py<PyAny>,
    /// The type of a task's steps, once one was seen.
    step: PyOnceLock<Py<PyType>>,
}

#[derive(Default)]
pub(super) struct Queues {
    pub(super) ready: VecDeque<Py<Handle>>,
    pub(super) timers: Timers,
}

#[derive(Default)]
struct Leaving {
    /// Whether `stop()` was called.
    stop: bool,
    /// What passed through the loop.
    error: Option<PyErr>,
    waker: Option<Waker>,
}

#[derive(Default)]
enum FirstStep {
    #[default]
    NotAwaited,
    Awaited,
    Caught(Job),
}

impl Scheduler {
    /// Gives it what it runs on.
    pub(super) fn install(&self, runtime: Arc<Runtime>, remote: Arc<Remote>) {
        *self.runtime.lock().unwrap_or_else(PoisonError::into_inner) = Some(runtime);
        let _ = self.remote.set(remote);
    }

    /// Takes that back.
    pub(super) fn uninstall(&self) -> Option<Arc<Runtime>> {
        self.runtime.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(super) fn queues(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leaving(&self) -> MutexGuard<'_, Leaving> {
        self.leaving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn first_step(&self) -> MutexGuard<'_, FirstStep> {
        self.first_step.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the pump look at the queues, soon.
    fn call(&self) {
        if let Some(remote) = self.remote.get() {
            remote.call();
        }
    }

    pub(super) fn is_debug(&self) -> bool {
        self.debug.load(Ordering::Relaxed)
    }

    /// Whether `run_forever` is about to return, so that nothing is to be run any more.
    pub(super) fn is_leaving(&self) -> bool {
        let leaving = self.leaving();
        leaving.stop || leaving.error.is_some()
    }

    /// Has `run_forever` return, or raise.
    pub(super) fn leave(&self, error: Option<PyErr>) {
        let (waker, before) = {
            let mut leaving = self.leaving();
            let before = match error {
                None => {
                    leaving.stop = true;
                    None
                }
                Some(error) => leaving.error.replace(error),
            };
            (leaving.waker.take(), before)
        };
        drop(before);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Forgets a timer that was cancelled, when there are many.
    pub(super) fn timer_cancelled(&self) {
        let gone = self.queues().timers.cancelled();
        drop(gone);
    }

    pub(super) fn now(&self, py: Python<'_>) -> PyResult<f64> {
        self.python.monotonic.bind(py).call0()?.extract()
    }

    /// Whether tasks are made as asyncio makes them, so that their first step can be taken at once.
    pub(crate) fn makes_usual_tasks(&self) -> bool {
        !self.is_debug() && !self.has_task_factory.load(Ordering::Relaxed)
    }

    /// Takes the first step of a coroutine at once.
    ///
    /// # Errors
    /// What keeps it from being taken; what comes of it is its own result.
    pub(crate) fn begin<'py>(this: &Bound<'py, Self>, coroutine: &Bound<'py, PyAny>) -> PyResult<Begun<'py>> {
        let scheduler = this.get();
        if scheduler.python.lazy {
            return lazy::begin(this, coroutine);
        }
        let options = PyDict::new(this.py());
        options.set_item(intern!(this.py(), "loop"), this)?;
        let (task, step) = scheduler.make_task(this.py(), |task| task.call((coroutine,), Some(&options)))?;
        if let Some(job) = step {
            let py = this.py();
            // What passes through a task is its result as well.
            if let Err(error) = in_context(job.context.bind(py), || job.callback.bind(py).call0()) {
                scheduler.leave(Some(error));
            }
        }
        Ok(Begun::Waits(task))
    }

    /// Makes a task, and gives its first step, which nobody else will take.
    pub(super) fn make_task<'py>(
        &self,
        py: Python<'py>,
        make: impl FnOnce(&Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>>,
    ) -> PyResult<(Bound<'py, PyAny>, Option<Job>)> {
        *self.first_step() = FirstStep::Awaited;
        let task = make(self.python.task.bind(py));
        let step = match std::mem::take(&mut *self.first_step()) {
            FirstStep::Caught(job) => Some(job),
            FirstStep::Awaited | FirstStep::NotAwaited => None,
        };
        Ok((task?, step))
    }

    fn step(&self) -> MutexGuard<'_, Option<Step>> {
        self.step.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From here on, whoever looks makes a task of this step.
    pub(super) fn step_begins(&self, step: Step) {
        *self.step() = Some(step);
        self.is_unseen.store(true, Ordering::Release);
    }

    /// The step has its task, and goes on.
    pub(super) fn step_goes_on(&self, step: Step) {
        *self.step() = Some(step);
    }

    /// From here on, nobody makes a task of it.
    pub(super) fn step_ends(&self) -> Option<Step> {
        self.is_unseen.store(false, Ordering::Release);
        self.step().take()
    }

    /// Keeps the first step of a task from the queue.
    fn catch(&self, job: Job, py: Python<'_>) -> Result<(), Job> {
        let is_awaited = matches!(*self.first_step(), FirstStep::Awaited);
        if !is_awaited || !self.is_step(&job, py) {
            return Err(job);
        }
        *self.first_step() = FirstStep::Caught(job);
        Ok(())
    }

    /// Whether a callback is a task's own: anything may ask for a call while a task is made, if only by a finalizer.
    fn is_step(&self, job: &Job, py: Python<'_>) -> bool {
        let kind = job.callback.bind(py).get_type();
        if let Some(step) = self.python.step.get(py) {
            return kind.is(step);
        }
        let is_step = kind.name().is_ok_and(|name| name == "TaskStepMethWrapper");
        if is_step {
            let _ = self.python.step.set(py, kind.unbind());
        }
        is_step
    }

    fn check_open(&self) -> PyResult<()> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(PyRuntimeError::new_err("Event loop is closed"));
        }
        Ok(())
    }

    /// asyncio's own method of this name.
    fn parent<'py>(
        this: &Bound<'py, Self>,
        method: &str,
        callback: &Bound<'py, PyAny>,
        arguments: &Bound<'py, PyTuple>,
        context: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = this.py();
        let mut positional = vec![this.clone().into_any(), callback.clone()];
        positional.extend(arguments.iter());
        let named = PyDict::new(py);
        named.set_item("context", context)?;
        let method = this.get().python.parent.bind(py).getattr(method)?;
        method.call(PyTuple::new(py, positional)?, Some(&named))
    }
}

fn job(
    callback: Bound<'_, PyAny>,
    arguments: Bound<'_, PyTuple>,
    context: Option<Bound<'_, PyAny>>,
) -> PyResult<Job> {
    let context = match context {
        Some(context) if !context.is_none() => context.unbind(),
        _ => copy_context(callback.py())?,
    };
    Ok(Job { callback: callback.unbind(), arguments: arguments.unbind(), context })
}

#[pymethods]
impl Scheduler {
    #[new]
    fn new(py: Python<'_>) -> PyResult<Self> {
        let asyncio = py.import("asyncio")?;
        Ok(Self {
            runtime: Mutex::default(),
            remote: OnceLock::new(),
            queues: Mutex::default(),
            closed: AtomicBool::new(false),
            debug: AtomicBool::new(false),
            has_task_factory: AtomicBool::new(false),
            leaving: Mutex::default(),
            first_step: Mutex::default(),
            step: Mutex::default(),
            is_unseen: AtomicBool::new(false),
            python: Imports {
                parent: asyncio.getattr("SelectorEventLoop")?.cast_into::<PyType>()?.unbind(),
                future: asyncio.getattr("Future")?.unbind(),
                task: asyncio.getattr("Task")?.unbind(),
                lazy: py.version_info() >= (3, 11) && py.version_info() < (3, 14),
                monotonic: py.import("time")?.getattr("monotonic")?.unbind(),
                timer_handle: asyncio.getattr("TimerHandle")?.unbind(),
                step: PyOnceLock::new(),
            },
        })
    }

    #[pyo3(signature = (callback, *args, context = None))]
    fn call_soon<'py>(
        this: &Bound<'py, Self>,
        callback: Bound<'py, PyAny>,
        args: Bound<'py, PyTuple>,
        context: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let scheduler = this.get();
        if scheduler.is_debug() {
            let handle = Self::parent(this, "call_soon", &callback, &args, context.as_ref())?;
            scheduler.call();
            return Ok(handle);
        }
        scheduler.check_open()?;
        let job = match scheduler.catch(job(callback, args, context)?, this.py()) {
            Ok(()) => return Ok(this.py().None().into_bound(this.py())),
            Err(job) => job,
        };
        let handle = Bound::new(this.py(), Handle::new(this.clone().unbind(), job, None))?;
        scheduler.queues().ready.push_back(handle.clone().unbind());
        scheduler.call();
        Ok(handle.into_any())
    }

    #[pyo3(signature = (callback, *args, context = None))]
    fn call_soon_threadsafe<'py>(
        this: &Bound<'py, Self>,
        callback: Bound<'py, PyAny>,
        args: Bound<'py, PyTuple>,
        context: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let scheduler = this.get();
        if scheduler.is_debug() {
            let handle = Self::parent(this, "call_soon_threadsafe", &callback, &args, context.as_ref())?;
            scheduler.call();
            return Ok(handle);
        }
        scheduler.check_open()?;
        let handle = Handle::new(this.clone().unbind(), job(callback, args, context)?, None);
        let handle = Bound::new(this.py(), handle)?;
        scheduler.queues().ready.push_back(handle.clone().unbind());
        scheduler.call();
        Ok(handle.into_any())
    }

    #[pyo3(signature = (delay, callback, *args, context = None))]
    fn call_later<'py>(
        this: &Bound<'py, Self>,
        delay: &Bound<'py, PyAny>,
        callback: Bound<'py, PyAny>,
        args: Bound<'py, PyTuple>,
        context: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        if delay.is_none() {
            return Err(PyTypeError::new_err("delay must not be None"));
        }
        let when = this.get().now(this.py())? + delay.extract::<f64>()?;
        Self::at(this, when, callback, args, context)
    }

    #[pyo3(signature = (when, callback, *args, context = None))]
    fn call_at<'py>(
        this: &Bound<'py, Self>,
        when: &Bound<'py, PyAny>,
        callback: Bound<'py, PyAny>,
        args: Bound<'py, PyTuple>,
        context: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        if when.is_none() {
            return Err(PyTypeError::new_err("when cannot be None"));
        }
        Self::at(this, when.extract()?, callback, args, context)
    }

    fn create_future<'py>(this: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let py = this.py();
        let named = PyDict::new(py);
        named.set_item(intern!(py, "loop"), this)?;
        this.get().python.future.bind(py).call((), Some(&named))
    }

    /// Asked for by whoever looks up the running task.
    fn __hash__(this: &Bound<'_, Self>) -> PyResult<isize> {
        if this.get().is_unseen.load(Ordering::Acquire) {
            lazy::appear(this)?;
        }
        // Objects are aligned: the lowest bits say nothing.
        Ok(this.as_ptr().addr().rotate_right(4).cast_signed())
    }

    fn get_debug(&self) -> bool {
        self.is_debug()
    }

    fn set_debug(this: &Bound<'_, Self>, enabled: &Bound<'_, PyAny>) -> PyResult<()> {
        this.get().debug.store(enabled.is_truthy()?, Ordering::Relaxed);
        let parent = this.get().python.parent.bind(this.py());
        parent.call_method1("set_debug", (this, enabled)).map(drop)
    }

    fn set_task_factory(this: &Bound<'_, Self>, factory: &Bound<'_, PyAny>) -> PyResult<()> {
        let parent = this.get().python.parent.bind(this.py());
        parent.call_method1("set_task_factory", (this, factory))?;
        this.get().has_task_factory.store(!factory.is_none(), Ordering::Relaxed);
        Ok(())
    }

    fn stop(this: &Bound<'_, Self>) -> PyResult<()> {
        this.setattr(intern!(this.py(), "_stopping"), true)?;
        this.get().leave(None);
        Ok(())
    }

    fn close(this: &Bound<'_, Self>) -> PyResult<()> {
        let parent = this.get().python.parent.bind(this.py());
        parent.call_method1("close", (this,))?;
        this.get().closed.store(true, Ordering::Relaxed);
        let (ready, timers) = {
            let mut queues = this.get().queues();
            (std::mem::take(&mut queues.ready), queues.timers.take_all())
        };
        drop((ready, timers));
        Ok(())
    }

    /// asyncio calls it until the loop is stopped; ours returns when it is. All of Python then runs under the runtime,
    /// so that what it wakes there is on this thread already.
    fn _run_once(this: &Bound<'_, Self>) -> PyResult<()> {
        let scheduler = this.get();
        let runtime = scheduler.runtime.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(runtime) = runtime else {
            return Err(PyRuntimeError::new_err("this event loop belongs to a gateway, which runs it"));
        };
        if tokio::runtime::Handle::try_current().is_ok() {
            return Err(PyRuntimeError::new_err("this event loop is already running; it cannot be nested"));
        }
        scheduler.call();
        this.py().detach(|| {
            runtime.block_on(poll_fn(|cx| {
                let mut leaving = scheduler.leaving();
                if leaving.stop || leaving.error.is_some() {
                    return Poll::Ready(());
                }
                leaving.waker = Some(cx.waker().clone());
                Poll::Pending
            }));
        });
        let (stop, error) = {
            let mut leaving = scheduler.leaving();
            (std::mem::take(&mut leaving.stop), leaving.error.take())
        };
        if stop {
            this.setattr(intern!(this.py(), "_stopping"), true)?;
        }
        error.map_or(Ok(()), Err)
    }
}

impl Scheduler {
    fn at<'py>(
        this: &Bound<'py, Self>,
        when: f64,
        callback: Bound<'py, PyAny>,
        args: Bound<'py, PyTuple>,
        context: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = this.py();
        let scheduler = this.get();
        scheduler.check_open()?;
        let (handle, timer) = if scheduler.is_debug() {
            this.call_method0(intern!(py, "_check_thread"))?;
            this.call_method1("_check_callback", (&callback, "call_at"))?;
            let handle =
                scheduler.python.timer_handle.bind(py).call1((when, callback, args, this, context))?;
            (handle.clone(), Timer::Foreign(handle.unbind()))
        } else {
            let handle = Handle::new(this.clone().unbind(), job(callback, args, context)?, Some(when));
            let handle = Bound::new(py, handle)?;
            (handle.clone().into_any(), Timer::Ours(handle.unbind()))
        };
        let earliest = {
            let mut queues = scheduler.queues();
            let earliest = queues.timers.next().is_none_or(|next| when < next);
            queues.timers.push(when, timer);
            earliest
        };
        if earliest {
            scheduler.call();
        }
        Ok(handle)
    }
}
