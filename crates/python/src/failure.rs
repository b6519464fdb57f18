//! What an application raised, as text: a sentence for the error, a traceback for the log.

use std::io::Write;

use hawksbill_core::{Error, Kind};
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTraceback};
use tracing::subscriber::NoSubscriber;

use crate::request_id;

/// An exception that left an application, without any Python object in it.
#[derive(Debug)]
pub(crate) struct Failure {
    /// `ValueError: what was wrong`.
    pub(crate) summary: String,
    /// What Python would print.
    pub(crate) traceback: String,
    /// That of the request that it happened in, where it has one.
    request_id: String,
}

impl Failure {
    /// Describes an exception.
    pub(crate) fn new(py: Python<'_>, error: &PyErr) -> Self {
        let summary = error.to_string();
        let traceback = format(py, error).unwrap_or_else(|_| summary.clone());
        Self { summary, traceback, request_id: request_id::current(py).unwrap_or_default() }
    }

    /// A failure that is no exception.
    pub(crate) fn message(summary: impl Into<String>) -> Self {
        let summary = summary.into();
        Self { traceback: String::new(), summary, request_id: String::new() }
    }

    /// Writes it to the log, with the request it happened in. In a program that takes no events (`tracing`) it goes to
    /// standard error, where Python's own servers write it and where PEP 3333 (`wsgi.errors`) has it: it is never lost.
    pub(crate) fn log(&self, app: &str, request: &str) {
        let Self { summary, traceback, request_id } = self;
        let before = if traceback.is_empty() { "" } else { "\n" };
        let traceback = traceback.trim_end();
        if tracing::dispatcher::get_default(tracing::Dispatch::is::<NoSubscriber>) {
            let text = format!("hawksbill: application {app}: {request}: {summary}{before}{traceback}\n");
            // Nobody can be told that this fails.
            let _ = std::io::stderr().write_all(text.as_bytes());
            return;
        }
        tracing::error!(target: "hawksbill::app", app, request_id, "{request}: {summary}{before}{traceback}");
    }

    /// What it means to the client: 500.
    pub(crate) fn into_error(self, app: &str) -> Error {
        Error::new(Kind::Internal).because(format!("application {app}: {}", self.summary))
    }
}

fn format(py: Python<'_>, error: &PyErr) -> PyResult<String> {
    let traceback: Option<Bound<'_, PyTraceback>> = error.traceback(py);
    let lines = py
        .import("traceback")?
        .call_method1("format_exception", (error.get_type(py), error.value(py), traceback))?;
    let lines = lines.cast_into::<PyList>()?;
    let mut text = String::new();
    for line in lines {
        text.push_str(&line.extract::<String>()?);
    }
    Ok(text)
}
