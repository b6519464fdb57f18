//! What an HTTP request and a WebSocket have in common: `receive()` and `send()` that may have to wait.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use pyo3::exceptions::{PyOSError, PyRuntimeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::awaitable::Awaitable;
use super::event_loop::Loop;
use crate::answer::Trouble;

/// One connection scope. It is the waker of everything that it waits for; woken, it has itself given a turn on the
/// event loop, in which it calls [`resume`](Self::resume).
pub(super) trait Conversation: Wake + Send + Sync + Sized + 'static {
    /// What `receive()` gives.
    type Event: Event;

    /// The futures that wait.
    fn waiting(&self) -> &Waiting;

    /// The next event, once.
    fn poll_event(&self, cx: &mut Context<'_>) -> Poll<Self::Event>;

    /// Whether the next message may be sent.
    fn poll_room(&self, cx: &mut Context<'_>) -> Poll<Result<(), Trouble>>;

    /// `receive()`.
    fn receive<'py>(self: &Arc<Self>, event_loop: &Bound<'py, Loop>) -> PyResult<Bound<'py, PyAny>> {
        let py = event_loop.py();
        // Those who asked before are served before.
        if self.waiting().lock().receivers.is_empty() {
            let waker = Waker::from(self.clone());
            if let Poll::Ready(event) = self.poll_event(&mut Context::from_waker(&waker)) {
                let event = event.into_dict(py)?.unbind();
                return Ok(Bound::new(py, Awaitable::ready(event))?.into_any());
            }
        }
        let future = event_loop.get().create_future(py)?;
        self.waiting().lock().receivers.push_back(future.clone().unbind());
        Loop::awaiting(&future)
    }

    /// The end of a `send()` after which there may be no room.
    fn sent<'py>(self: &Arc<Self>, event_loop: &Bound<'py, Loop>) -> PyResult<Bound<'py, PyAny>> {
        let py = event_loop.py();
        let waker = Waker::from(self.clone());
        match self.poll_room(&mut Context::from_waker(&waker)) {
            // What was just sent was taken; if nobody is left for more, the next `send()` says so.
            Poll::Ready(_) => Ok(event_loop.get().done(py)),
            Poll::Pending => {
                let future = event_loop.get().create_future(py)?;
                self.waiting().lock().senders.push(future.clone().unbind());
                Loop::awaiting(&future)
            }
        }
    }

    /// Resolves the futures whose time has come.
    fn resume(self: &Arc<Self>, py: Python<'_>) -> PyResult<()> {
        self.resume_receivers(py)?;
        self.resume_senders(py)
    }

    /// Resolves the futures of `receive()` whose time has come.
    fn resume_receivers(self: &Arc<Self>, py: Python<'_>) -> PyResult<()> {
        let waker = Waker::from(self.clone());
        loop {
            let Some(future) = self.waiting().lock().receivers.pop_front() else { return Ok(()) };
            // One that was cancelled must not swallow an event.
            if is_done(future.bind(py))? {
                continue;
            }
            match self.poll_event(&mut Context::from_waker(&waker)) {
                Poll::Ready(event) => {
                    future.call_method1(py, intern!(py, "set_result"), (event.into_dict(py)?,))?;
                }
                Poll::Pending => {
                    self.waiting().lock().receivers.push_front(future);
                    return Ok(());
                }
            }
        }
    }

    /// Resolves the futures of `send()` whose time has come.
    fn resume_senders(self: &Arc<Self>, py: Python<'_>) -> PyResult<()> {
        if self.waiting().lock().senders.is_empty() {
            return Ok(());
        }
        let waker = Waker::from(self.clone());
        let Poll::Ready(room) = self.poll_room(&mut Context::from_waker(&waker)) else { return Ok(()) };
        let senders = std::mem::take(&mut self.waiting().lock().senders);
        for future in senders {
            let future = future.bind(py);
            if is_done(future)? {
                continue;
            }
            match room {
                Ok(()) => future.call_method1(intern!(py, "set_result"), (py.None(),))?,
                Err(trouble) => {
                    future.call_method1(intern!(py, "set_exception"), (raise(trouble).into_value(py),))?
                }
            };
        }
        Ok(())
    }
}

/// What `receive()` gives.
pub(super) trait Event {
    /// As the dictionary that the specification describes.
    fn into_dict(self, py: Python<'_>) -> PyResult<Bound<'_, PyDict>>;
}

/// The Python objects that a conversation holds while it lasts.
#[derive(Default)]
pub(super) struct Waiting(Mutex<Held>);

#[derive(Default)]
pub(super) struct Held {
    /// Futures of `receive()`, the oldest first.
    receivers: VecDeque<Py<PyAny>>,
    /// Futures of `send()`.
    senders: Vec<Py<PyAny>>,
    /// The event loop keeps weak references to its tasks only.
    task: Option<Py<PyAny>>,
}

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the task alive.
    pub(super) fn keep(&self, task: &Bound<'_, PyAny>) {
        self.lock().task = Some(task.clone().unbind());
    }

    /// The task, while it is not over.
    pub(super) fn task(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.lock().task.as_ref().map(|task| task.clone_ref(py))
    }

    /// Whether some `receive()` waits.
    pub(super) fn receives(&self) -> bool {
        !self.lock().receivers.is_empty()
    }

    /// Lets all go, attached, when the task is over.
    pub(super) fn release(&self, _: Python<'_>) {
        let held = std::mem::take(&mut *self.lock());
        drop(held);
    }
}

pyo3::create_exception!(
    hawksbill,
    ClientDisconnected,
    PyOSError,
    "Nothing can be sent any more: the connection is closed."
);

/// A client that left is an `OSError` of our own, as the specification says since 2.4.
pub(super) fn raise(trouble: Trouble) -> PyErr {
    match trouble {
        Trouble::Left => ClientDisconnected::new_err(trouble.to_string()),
        Trouble::BadLength => PyValueError::new_err(trouble.to_string()),
        _ => PyRuntimeError::new_err(trouble.to_string()),
    }
}

/// Whether a future is resolved or cancelled.
pub(super) fn is_done(future: &Bound<'_, PyAny>) -> PyResult<bool> {
    future.call_method0(intern!(future.py(), "done"))?.is_truthy()
}
