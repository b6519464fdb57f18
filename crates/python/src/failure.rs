//! What an application raised, as text: a sentence for the error, a traceback for the log.

use hawksbill_core::{Error, Kind};
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTraceback};

/// An exception that left an application, without any Python object in it.
#[derive(Debug)]
pub(crate) struct Failure {
    /// `ValueError: what was wrong`.
    pub(crate) summary: String,
    /// What Python would print.
    pub(crate) traceback: String,
}

impl Failure {
    /// Describes an exception.
    pub(crate) fn new(py: Python<'_>, error: &PyErr) -> Self {
        let summary = error.to_string();
        let traceback = format(py, error).unwrap_or_else(|_| summary.clone());
        Self { summary, traceback }
    }

    /// A failure that is no exception.
    pub(crate) fn message(summary: impl Into<String>) -> Self {
        let summary = summary.into();
        Self { traceback: String::new(), summary }
    }

    /// Writes it to the log, with the request it happened in.
    pub(crate) fn log(&self, app: &str, request: &str) {
        let (summary, traceback) = (&self.summary, self.traceback.trim_end());
        if traceback.is_empty() {
            tracing::error!(target: "hawksbill::app", app, "{request}: {summary}");
        } else {
            tracing::error!(target: "hawksbill::app", app, "{request}: {summary}\n{traceback}");
        }
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
