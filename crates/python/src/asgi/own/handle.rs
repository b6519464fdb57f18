//! What `call_soon`, `call_later` and `call_at` of our own event loop return, as `asyncio.Handle` and
//! `asyncio.TimerHandle` document it.

use std::fmt::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use pyo3::exceptions::{PyKeyboardInterrupt, PySystemExit};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use super::scheduler::Scheduler;

/// A call that is to happen. When it has, it holds nothing any more, so that whoever keeps it keeps nothing alive.
#[pyclass(frozen, module = "hawksbill")]
pub(super) struct Handle {
    job: Mutex<Option<Job>>,
    cancelled: AtomicBool,
    when: Option<f64>,
    event_loop: Py<Scheduler>,
}

pub(super) struct Job {
    pub(super) callback: Py<PyAny>,
    pub(super) arguments: Py<PyTuple>,
    pub(super) context: Py<PyAny>,
}

impl Handle {
    pub(super) fn new(event_loop: Py<Scheduler>, job: Job, when: Option<f64>) -> Self {
        Self { job: Mutex::new(Some(job)), cancelled: AtomicBool::new(false), when, event_loop }
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }

    fn take(&self) -> Option<Job> {
        self.job.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Makes the call, unless it was cancelled.
    ///
    /// # Errors
    /// `SystemExit` and `KeyboardInterrupt`; everything else goes to the loop's exception handler.
    pub(super) fn call(this: &Bound<'_, Self>) -> PyResult<()> {
        let py = this.py();
        let Some(job) = this.get().take() else { return Ok(()) };
        let (callback, arguments) = (job.callback.bind(py), job.arguments.bind(py));
        match in_context(job.context.bind(py), || callback.call1(arguments)) {
            Ok(_) => Ok(()),
            Err(error) if passes_through(py, &error) => Err(error),
            Err(error) => this.get().report(this, &error, callback, arguments),
        }
    }

    fn report(
        &self,
        this: &Bound<'_, Self>,
        error: &PyErr,
        callback: &Bound<'_, PyAny>,
        arguments: &Bound<'_, PyTuple>,
    ) -> PyResult<()> {
        let py = this.py();
        let context = PyDict::new(py);
        let shown = describe(callback, arguments)?;
        context.set_item("message", format!("Exception in callback {shown}"))?;
        context.set_item("exception", error.value(py))?;
        context.set_item("handle", this)?;
        self.event_loop.bind(py).call_method1("call_exception_handler", (context,))?;
        Ok(())
    }
}

fn describe(callback: &Bound<'_, PyAny>, arguments: &Bound<'_, PyTuple>) -> PyResult<String> {
    let helpers = callback.py().import("asyncio.format_helpers")?;
    helpers.call_method1("_format_callback_source", (callback, arguments))?.extract()
}

/// Whether an exception ends the loop, as asyncio has it.
fn passes_through(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance_of::<PySystemExit>(py) || error.is_instance_of::<PyKeyboardInterrupt>(py)
}

/// Calls within a context of `contextvars`.
#[allow(unsafe_code, reason = "Context.run() costs as much as what is called in it")]
pub(super) fn in_context<T>(context: &Bound<'_, PyAny>, call: impl FnOnce() -> PyResult<T>) -> PyResult<T> {
    struct Entered<'a, 'py>(&'a Bound<'py, PyAny>);

    impl Drop for Entered<'_, '_> {
        fn drop(&mut self) {
            // SAFETY: attached, and the context is the one that was entered last: whatever `call` entered it has left.
            let left = unsafe { pyo3::ffi::PyContext_Exit(self.0.as_ptr()) };
            if left != 0 {
                PyErr::fetch(self.0.py()).write_unraisable(self.0.py(), Some(self.0));
            }
        }
    }

    // SAFETY: attached; for what is no context, or has been entered already, CPython sets an exception.
    if unsafe { pyo3::ffi::PyContext_Enter(context.as_ptr()) } != 0 {
        return Err(PyErr::fetch(context.py()));
    }
    let entered = Entered(context);
    let result = call();
    drop(entered);
    result
}

/// A copy of the current context.
#[allow(unsafe_code, reason = "pyo3 has no safe function for it")]
pub(super) fn copy_context(py: Python<'_>) -> PyResult<Py<PyAny>> {
    // SAFETY: attached; the result is a new reference, or null with an exception set.
    unsafe { Bound::from_owned_ptr_or_err(py, pyo3::ffi::PyContext_CopyCurrent()).map(Bound::unbind) }
}

#[pymethods]
impl Handle {
    fn cancel(&self, py: Python<'_>) {
        if self.cancelled.swap(true, Ordering::AcqRel) {
            return;
        }
        let held = self.take();
        // One that has run already is in no queue.
        if held.is_some() && self.when.is_some() {
            self.event_loop.bind(py).get().timer_cancelled();
        }
    }

    fn cancelled(&self) -> bool {
        self.is_cancelled()
    }

    #[getter]
    fn _cancelled(&self) -> bool {
        self.is_cancelled()
    }

    /// When it is to happen, by the loop's clock.
    fn when(&self) -> PyResult<f64> {
        self.when.ok_or_else(|| {
            pyo3::exceptions::PyAttributeError::new_err("'Handle' object has no attribute 'when'")
        })
    }

    fn get_context(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        let job = self.job.lock().unwrap_or_else(PoisonError::into_inner);
        job.as_ref().map(|job| job.context.clone_ref(py))
    }

    fn _run(this: &Bound<'_, Self>) -> PyResult<()> {
        Self::call(this)
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let held = {
            let job = self.job.lock().unwrap_or_else(PoisonError::into_inner);
            job.as_ref().map(|job| (job.callback.clone_ref(py), job.arguments.clone_ref(py)))
        };
        let mut text = String::from(if self.when.is_some() { "<TimerHandle" } else { "<Handle" });
        if self.is_cancelled() {
            text.push_str(" cancelled");
        }
        if let Some(when) = self.when {
            let _ = write!(text, " when={when}");
        }
        if let Some((callback, arguments)) = held {
            text.push(' ');
            text.push_str(&describe(callback.bind(py), arguments.bind(py))?);
        }
        text.push('>');
        Ok(text)
    }
}
