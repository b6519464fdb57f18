//! What `receive()` and `send()` return.
//!
//! Each is a coroutine as `collections.abc.Coroutine` has it, since applications hand them to
//! `asyncio.create_task`. One whose value is there already costs the event loop no turn.

use std::sync::{Mutex, PoisonError};

use pyo3::exceptions::PyStopIteration;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

/// Ready at once, with None. Without state, so that one object serves every `send`.
#[pyclass(frozen, module = "hawksbill")]
pub(super) struct Done;

#[pymethods]
impl Done {
    fn __await__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    #[allow(clippy::unused_self, reason = "Python passes it")]
    fn __next__(&self) -> Option<Py<PyAny>> {
        None
    }

    #[allow(clippy::unused_self, reason = "Python passes it")]
    fn send(&self, _value: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        Err(PyStopIteration::new_err(()))
    }

    #[allow(clippy::unused_self, reason = "Python passes it")]
    #[pyo3(signature = (kind, value = None, traceback = None, /))]
    fn throw(
        &self,
        kind: &Bound<'_, PyAny>,
        value: Option<&Bound<'_, PyAny>>,
        traceback: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        Err(thrown(kind, value, traceback)?)
    }

    #[allow(clippy::unused_self, reason = "Python passes it")]
    fn close(&self) {}
}

/// Ready at once with a value, or when a future is.
#[pyclass(frozen, module = "hawksbill")]
pub(super) struct Awaitable(Mutex<State>);

enum State {
    Ready(Py<PyDict>),
    /// The iterator of a future.
    Waiting(Py<PyAny>),
    Over,
}

impl Awaitable {
    /// Ready at once.
    pub(super) fn ready(value: Py<PyDict>) -> Self {
        Self(Mutex::new(State::Ready(value)))
    }

    /// Ready when the future is.
    pub(super) fn of(future: &Bound<'_, PyAny>) -> PyResult<Self> {
        let iterator = future.call_method0(intern!(future.py(), "__await__"))?;
        Ok(Self(Mutex::new(State::Waiting(iterator.unbind()))))
    }

    /// The iterator to be asked; a value that was ready is given as the end of the iteration.
    fn step(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut *state, State::Over) {
            // As the one argument, which a value that is no tuple may be as it is.
            State::Ready(value) => Err(PyStopIteration::new_err(value)),
            State::Waiting(iterator) => {
                *state = State::Waiting(iterator.clone_ref(py));
                Ok(iterator)
            }
            State::Over => Err(PyStopIteration::new_err(())),
        }
    }
}

#[pymethods]
impl Awaitable {
    fn __await__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.step(py)?.call_method0(py, intern!(py, "__next__"))
    }

    fn send(&self, value: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        let py = value.py();
        self.step(py)?.call_method1(py, intern!(py, "send"), (value,))
    }

    #[pyo3(signature = (kind, value = None, traceback = None, /))]
    fn throw<'py>(
        &self,
        kind: &Bound<'py, PyAny>,
        value: Option<&Bound<'py, PyAny>>,
        traceback: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        let py = kind.py();
        let state =
            std::mem::replace(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), State::Over);
        let State::Waiting(iterator) = state else { return Err(thrown(kind, value, traceback)?) };
        let arguments: Vec<_> = std::iter::once(kind).chain(value).chain(traceback).collect();
        let result = iterator.call_method1(py, intern!(py, "throw"), PyTuple::new(py, arguments)?)?;
        // The future went on in spite of it.
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = State::Waiting(iterator);
        Ok(result)
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let state =
            std::mem::replace(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), State::Over);
        match state {
            State::Waiting(iterator) => iterator.call_method0(py, intern!(py, "close")).map(drop),
            State::Ready(_) | State::Over => Ok(()),
        }
    }
}

/// The exception that a generator's `throw` is to raise.
pub(super) fn thrown(
    kind: &Bound<'_, PyAny>,
    value: Option<&Bound<'_, PyAny>>,
    traceback: Option<&Bound<'_, PyAny>>,
) -> PyResult<PyErr> {
    let exception = match value.filter(|value| !value.is_none()) {
        Some(value) if value.is_instance_of::<pyo3::exceptions::PyBaseException>() => value.clone(),
        Some(value) => kind.call1((value,))?,
        None if kind.is_instance_of::<pyo3::exceptions::PyBaseException>() => kind.clone(),
        None => kind.call0()?,
    };
    if let Some(traceback) = traceback.filter(|traceback| !traceback.is_none()) {
        exception.setattr(intern!(kind.py(), "__traceback__"), traceback)?;
    }
    Ok(PyErr::from_value(exception))
}
