//! The event loop and the runtime on one thread.
//!
//! An answer then crosses no thread: a request's first step is taken where its bytes were read, and what Python wakes in
//! the runtime is on the same thread. The runtime is turned from within asyncio's `run_forever`; the loop is a task of
//! the runtime ([`pump`]), and its queues are our own ([`scheduler`]).

mod alarm;
mod handle;
mod lazy;
mod pump;
mod scheduler;
mod timers;
mod watch;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hawksbill_core::{BuildError, Driver};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use tokio::runtime::Runtime;

pub(super) use self::lazy::Begun;
use self::pump::Pump;
pub(super) use self::scheduler::Scheduler;
use super::event_loop::{Loop, Remote, end_tasks, run_until};
use crate::debugged;
use crate::failure::Failure;
use crate::stacks;

/// The gateway at work.
type Serving = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Runs a gateway in whose process nothing but ASGI applications is Python.
pub(super) struct OwnLoop {
    remote: Arc<Remote>,
}

impl OwnLoop {
    pub(super) fn new(remote: Arc<Remote>) -> Self {
        Self { remote }
    }
}

impl Driver for OwnLoop {
    fn wants(&self) -> bool {
        self.remote.is_for_asgi_alone()
    }

    fn drive(&self, serving: Serving) -> Result<(), BuildError> {
        let failed = |error| BuildError::new("cannot start the runtime").caused_by(error);
        let runtime = self.remote.busy_poll().runtime().map_err(failed)?;
        let driven = Python::try_attach(|py| {
            debugged::begin_thread(py, "asgi-loop");
            drive(py, &self.remote, runtime, serving).map_err(|error| Failure::new(py, &error))
        });
        match driven {
            Some(Ok(())) => Ok(()),
            Some(Err(failure)) => {
                let message = format!("the event loop does not run: {}", failure.summary);
                Err(BuildError::new(message).details(failure.traceback))
            }
            None => Err(BuildError::new("the Python interpreter cannot be used any more")),
        }
    }
}

fn drive(py: Python<'_>, remote: &Arc<Remote>, runtime: Runtime, serving: Serving) -> PyResult<()> {
    let runtime = Arc::new(runtime);
    let asyncio = py.import("asyncio")?;
    let event_loop = event_loop(py, &asyncio)?;
    let scheduler = event_loop.cast::<Scheduler>()?;
    scheduler.get().install(runtime.clone(), remote.clone());
    let shared = Py::new(py, Loop::new(&event_loop)?)?;
    asyncio.call_method1("set_event_loop", (&event_loop,))?;
    stacks::know(&event_loop)?;
    let _named = stacks::name_here(py, "event loop")?;
    {
        let _entered = runtime.enter();
        runtime.spawn(Pump::new(remote.clone(), scheduler, shared.clone_ref(py))?.run());
    }
    remote.settle_here(shared);
    let over = Arc::new(AtomicBool::new(false));
    let ending = Over { over: over.clone(), scheduler: scheduler.clone().unbind() };
    runtime.spawn(async move {
        let _ending = ending;
        serving.await;
    });
    tracing::debug!(target: "hawksbill::start", "event loop: our own, on the runtime's thread");
    run_until(&event_loop, || over.load(Ordering::Acquire));
    remote.stop();
    let ended = end_tasks(&event_loop);
    Remote::leave_here(py);
    // Requests that nobody will serve are answered by letting them go.
    drop(remote.take());
    // Before the loop closes descriptors that the runtime watches.
    drop(scheduler.get().uninstall());
    if let Some(runtime) = Arc::into_inner(runtime) {
        runtime.shutdown_background();
    }
    event_loop.call_method0("close")?;
    asyncio.call_method1("set_event_loop", (py.None(),))?;
    ended
}

/// Our scheduling over asyncio's everything else.
fn event_loop<'py>(py: Python<'py>, asyncio: &Bound<'py, PyModule>) -> PyResult<Bound<'py, PyAny>> {
    let bases = (py.get_type::<Scheduler>(), asyncio.getattr("SelectorEventLoop")?);
    let members = PyDict::new(py);
    members.set_item("__module__", "hawksbill")?;
    py.get_type::<pyo3::types::PyType>().call1(("EventLoop", bases, members))?.call0()
}

/// Ends the loop when the gateway has served, however that ends.
struct Over {
    over: Arc<AtomicBool>,
    scheduler: Py<Scheduler>,
}

impl Drop for Over {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        self.scheduler.get().leave(None);
    }
}
