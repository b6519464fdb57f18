//! The event loop on a thread of its own: asyncio's, or uvloop's where that is installed.
//!
//! For a runtime that belongs to others: whatever Python does, nothing else on that runtime waits for it.

use std::sync::Arc;

use hawksbill_core::BuildError;
use pyo3::prelude::*;
use tokio::sync::{oneshot, watch};

use super::event_loop::{Bell, Loop, Remote, end_tasks, run_until, take_turn};
use super::wakeup::Wakeup;
use crate::debugged;
use crate::failure::Failure;
use crate::stacks;

/// Starts the thread, and waits until the loop runs.
pub(super) async fn start(remote: Arc<Remote>, ended: watch::Sender<bool>) -> Result<(), BuildError> {
    let wakeup = Wakeup::new()
        .map_err(|error| BuildError::new("no descriptor for the event loop").caused_by(error))?;
    let descriptor = wakeup.descriptor();
    remote.install(Bell::Descriptor(wakeup));
    let (ready, is_ready) = oneshot::channel();
    let has_begun = ended.clone();
    let serve = move || {
        Python::try_attach(|py| {
            debugged::begin_thread(py, "asgi-loop");
            if let Err(error) = serve(py, &remote, descriptor, ready) {
                Failure::new(py, &error).log("event loop", "event loop");
            }
        });
        remote.stop();
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
            tracing::debug!(target: "hawksbill::start", "event loop: {kind}, on a thread of its own");
            Ok(())
        }
        Err(_) => Err(BuildError::new("the event loop did not start; the reason is in the log")),
    }
}

/// Runs the loop until it is stopped, then ends what is left in it.
fn serve(
    py: Python<'_>,
    remote: &Arc<Remote>,
    descriptor: std::os::fd::RawFd,
    ready: oneshot::Sender<&'static str>,
) -> PyResult<()> {
    let asyncio = py.import("asyncio")?;
    let (event_loop, kind) = match py.import("uvloop") {
        Ok(uvloop) => (uvloop.call_method0("new_event_loop")?, "uvloop"),
        Err(_) => (asyncio.call_method0("new_event_loop")?, "asyncio"),
    };
    asyncio.call_method1("set_event_loop", (&event_loop,))?;
    stacks::know(&event_loop)?;
    let _named = stacks::name_here(py, "event loop")?;
    let drain = Drain { remote: remote.clone(), event_loop: Py::new(py, Loop::new(&event_loop)?)? };
    event_loop.call_method1("add_reader", (descriptor, drain))?;
    let _ = ready.send(kind);
    run_until(&event_loop, || remote.is_stopping());
    let ended = end_tasks(&event_loop);
    event_loop.call_method1("remove_reader", (descriptor,))?;
    event_loop.call_method0("close")?;
    asyncio.call_method1("set_event_loop", (py.None(),))?;
    ended
}

/// What the loop calls when the descriptor is readable.
#[pyclass(frozen, module = "hawksbill")]
struct Drain {
    remote: Arc<Remote>,
    event_loop: Py<Loop>,
}

#[pymethods]
impl Drain {
    fn __call__(&self, py: Python<'_>) -> PyResult<()> {
        let event_loop = self.event_loop.bind(py);
        self.remote.clear_bell();
        self.remote.answer_calls();
        for turn in self.remote.take() {
            take_turn(turn, event_loop);
        }
        if self.remote.is_stopping() {
            event_loop.get().object(py).call_method0("stop")?;
        }
        Ok(())
    }
}
