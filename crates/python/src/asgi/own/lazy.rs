//! Tasks that are made when somebody looks.
//!
//! Most requests never wait, so nobody would ever see the task that they run in; making one costs more than all the
//! rest. A request's first step is therefore taken without, within the context that the task would have. A task appears
//! when the step ends in a wait, or when, before that, anybody asks which task is running: asyncio looks that up by the
//! loop in a dictionary, for which it asks the loop for its hash. What has happened by then is told to the task as if it
//! had seen it itself; from there on it is asyncio's own in everything.

use std::sync::{Mutex, PoisonError};

use pyo3::exceptions::PyStopIteration;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use super::handle::{Job, copy_context, in_context};
use super::scheduler::Scheduler;
use crate::asgi::awaitable::thrown;

/// What a request is after its first step.
pub(crate) enum Begun<'py> {
    /// It is over.
    Over(PyResult<()>),
    /// It waits.
    Waits(Bound<'py, PyAny>),
}

/// A first step that is being taken.
pub(super) struct Step {
    coroutine: Py<PyAny>,
    context: Py<PyAny>,
    made: Option<Made>,
}

struct Made {
    task: Py<PyAny>,
    rest: Py<Rest>,
    /// The task's own first step.
    step: Option<Job>,
}

/// A coroutine whose first step was taken before it had a task; to the task it is the coroutine.
#[pyclass(frozen, module = "hawksbill")]
pub(super) struct Rest {
    coroutine: Py<PyAny>,
    next: Mutex<Next>,
}

/// What the task is to see next.
enum Next {
    /// What the coroutine does when it is asked.
    Asked,
    Yielded(Py<PyAny>),
    Returned(Py<PyAny>),
    Raised(PyErr),
    /// It is thrown into the coroutine.
    Thrown(PyErr),
}

/// Takes the first step of a coroutine.
pub(super) fn begin<'py>(
    this: &Bound<'py, Scheduler>,
    coroutine: &Bound<'py, PyAny>,
) -> PyResult<Begun<'py>> {
    let py = this.py();
    let scheduler = this.get();
    let context = copy_context(py)?;
    scheduler.step_begins(Step {
        coroutine: coroutine.clone().unbind(),
        context: context.clone_ref(py),
        made: None,
    });
    let next = in_context(context.bind(py), || Ok(send_none(coroutine)));
    let made = scheduler.step_ends().and_then(|step| step.made);
    let next = next?;
    let made = match (made, next) {
        (None, Next::Returned(_)) => return Ok(Begun::Over(Ok(()))),
        (None, Next::Raised(error)) => return Ok(Begun::Over(Err(error))),
        (None, next) => make(this, coroutine, &context, next)?,
        (Some(made), next) => {
            let _ = made.rest.get().tell(next);
            enter_or_leave(this, "_leave_task", &made.task)?;
            made
        }
    };
    if let Some(step) = made.step {
        // What passes through a task is its result as well.
        if let Err(error) = in_context(context.bind(py), || step.callback.bind(py).call0()) {
            scheduler.leave(Some(error));
        }
    }
    Ok(Begun::Waits(made.task.into_bound(py)))
}

/// Makes the task of the step that is being taken.
pub(super) fn appear(this: &Bound<'_, Scheduler>) -> PyResult<()> {
    let py = this.py();
    let Some(mut step) = this.get().step_ends() else { return Ok(()) };
    let made = make(this, step.coroutine.bind(py), &step.context, Next::Asked)?;
    enter_or_leave(this, "_enter_task", &made.task)?;
    step.made = Some(made);
    this.get().step_goes_on(step);
    Ok(())
}

fn make(
    this: &Bound<'_, Scheduler>,
    coroutine: &Bound<'_, PyAny>,
    context: &Py<PyAny>,
    next: Next,
) -> PyResult<Made> {
    let py = this.py();
    let rest = Bound::new(py, Rest { coroutine: coroutine.clone().unbind(), next: Mutex::new(next) })?;
    let options = PyDict::new(py);
    options.set_item(intern!(py, "loop"), this)?;
    options.set_item(intern!(py, "context"), context)?;
    let (task, step) = this.get().make_task(py, |task| task.call((&rest,), Some(&options)))?;
    Ok(Made { task: task.unbind(), rest: rest.unbind(), step })
}

fn enter_or_leave(this: &Bound<'_, Scheduler>, which: &str, task: &Py<PyAny>) -> PyResult<()> {
    this.py().import("asyncio.tasks")?.call_method1(which, (this, task)).map(drop)
}

/// Asks a coroutine for what comes next.
#[allow(unsafe_code, reason = "pyo3 has no safe function for it")]
fn send_none(coroutine: &Bound<'_, PyAny>) -> Next {
    use pyo3::ffi::{Py_None, PyIter_Send, PySendResult};
    let py = coroutine.py();
    let mut result = std::ptr::null_mut();
    // SAFETY: attached, with a live coroutine. But for an error, the result is a new reference.
    unsafe {
        match PyIter_Send(coroutine.as_ptr(), Py_None(), &raw mut result) {
            PySendResult::PYGEN_NEXT => Next::Yielded(Bound::from_owned_ptr(py, result).unbind()),
            PySendResult::PYGEN_RETURN => Next::Returned(Bound::from_owned_ptr(py, result).unbind()),
            PySendResult::PYGEN_ERROR => Next::Raised(PyErr::fetch(py)),
        }
    }
}

impl Rest {
    fn tell(&self, next: Next) -> Next {
        std::mem::replace(&mut *self.next.lock().unwrap_or_else(PoisonError::into_inner), next)
    }

    fn step(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        match self.tell(Next::Asked) {
            Next::Asked => match send_none(self.coroutine.bind(py)) {
                Next::Yielded(value) => Ok(value),
                Next::Returned(value) => Err(PyStopIteration::new_err((value,))),
                Next::Raised(error) => Err(error),
                Next::Asked | Next::Thrown(_) => Ok(py.None()),
            },
            Next::Thrown(error) => {
                self.coroutine.call_method1(py, intern!(py, "throw"), (error.into_value(py),))
            }
            Next::Yielded(value) => Ok(value),
            Next::Returned(value) => Err(PyStopIteration::new_err((value,))),
            Next::Raised(error) => Err(error),
        }
    }
}

#[pymethods]
impl Rest {
    fn __await__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.step(py)
    }

    fn send(&self, value: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        let py = value.py();
        if value.is_none() { self.step(py) } else { self.coroutine.call_method1(py, "send", (value,)) }
    }

    /// A task throws what it was cancelled with. If that happened in the first step, which is over, it is dealt with as
    /// the task does when a step ends.
    #[pyo3(signature = (kind, value = None, traceback = None, /))]
    fn throw<'py>(
        &self,
        kind: &Bound<'py, PyAny>,
        value: Option<&Bound<'py, PyAny>>,
        traceback: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        let py = kind.py();
        match self.tell(Next::Asked) {
            Next::Yielded(future) if !future.is_none(py) => {
                future.call_method0(py, intern!(py, "cancel"))?;
                Ok(future)
            }
            Next::Yielded(nothing) => {
                self.tell(Next::Thrown(thrown(kind, value, traceback)?));
                Ok(nothing)
            }
            Next::Returned(_) => Err(thrown(kind, value, traceback)?),
            Next::Raised(error) => Err(error),
            Next::Asked | Next::Thrown(_) => {
                let arguments: Vec<_> = std::iter::once(kind).chain(value).chain(traceback).collect();
                self.coroutine.call_method1(py, intern!(py, "throw"), PyTuple::new(py, arguments)?)
            }
        }
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.coroutine.call_method0(py, intern!(py, "close")).map(drop)
    }

    /// Its name, its frame, its code.
    fn __getattr__(&self, py: Python<'_>, name: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        self.coroutine.bind(py).getattr(name.cast::<pyo3::types::PyString>()?).map(Bound::unbind)
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(self.coroutine.bind(py).repr()?.to_string())
    }
}
