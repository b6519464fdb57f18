//! What Python writes and logs in a worker goes to the gateway's log, with the request that it belongs to.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::ffi::c_str;
use pyo3::prelude::*;

use crate::embedded::Embedded;
use crate::request_id;

static MODULE: Embedded = Embedded::new(c"_hawksbill_output", c_str!(include_str!("output.py")));

/// Whether this process has a log that takes it.
static IS_CAPTURED: AtomicBool = AtomicBool::new(false);

/// Has what is printed in this process go to the log; it does not where a person sits at a terminal, with a debugger maybe.
/// Where only standard error is somebody else's, a debugger still has standard output.
pub(crate) fn capture(py: Python<'_>) -> PyResult<()> {
    if std::io::stderr().is_terminal() {
        return Ok(());
    }
    IS_CAPTURED.store(true, Ordering::Relaxed);
    let say = pyo3::wrap_pyfunction!(say, py)?;
    let streams = if std::io::stdin().is_terminal() { vec!["stderr"] } else { vec!["stdout", "stderr"] };
    MODULE.get(py)?.call_method1("capture", (say, streams)).map(drop)
}

/// Has what is logged go to the log as well, now that the application has said what it wants of its own.
pub(crate) fn join() {
    if !IS_CAPTURED.load(Ordering::Relaxed) {
        return;
    }
    let joined = Python::try_attach(|py| {
        let log = pyo3::wrap_pyfunction!(log, py)?;
        MODULE.get(py)?.call_method1("join", (log,)).map(drop)
    });
    if let Some(Err(error)) = joined {
        tracing::warn!(target: "hawksbill::app", "Python's logging is not joined with this log: {error}");
    }
}

/// Takes what was written to a stream.
#[pyfunction]
fn say(py: Python<'_>, stream: &str, text: &str) {
    let request_id = request_id::current(py).unwrap_or_default();
    let text = text.trim_end();
    if !text.is_empty() {
        tracing::error!(target: "hawksbill::output", stream, request_id, "{text}");
    }
}

/// Takes a record of Python's `logging`.
#[pyfunction]
fn log(py: Python<'_>, level: i64, logger: &str, text: &str) {
    let request_id = request_id::current(py).unwrap_or_default();
    // `logging` has these numbers, and whatever an application puts between them.
    let level = match level {
        40.. => "error",
        30.. => "warn",
        20.. => "info",
        _ => "debug",
    };
    tracing::error!(target: "hawksbill::output", level, logger, request_id, "{text}");
}
