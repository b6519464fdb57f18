//! Which request something in Python belongs to, by the header `X-Request-ID`: a variable of `contextvars`, so that tasks and
//! threads which take the context along know it too.

use http::{HeaderMap, HeaderName, HeaderValue};
use pyo3::ffi::c_str;
use pyo3::prelude::*;

use crate::embedded::Embedded;

pub(crate) static HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// The most characters of one that counts.
const MOST: usize = 128;

static MODULE: Embedded = Embedded::new(
    c"_hawksbill_request_id",
    c_str!(
        "from contextvars import ContextVar\nVARIABLE = ContextVar('hawksbill.request_id', default=None)\n"
    ),
);

fn variable(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    MODULE.get(py)?.getattr("VARIABLE")
}

/// That of the request that is under way here.
pub(crate) fn current(py: Python<'_>) -> Option<String> {
    variable(py).and_then(|variable| variable.call_method0("get")?.extract()).ok().flatten()
}

/// Sets the variable until what is given is dropped.
pub(crate) fn note<'py>(py: Python<'py>, headers: &HeaderMap) -> Option<Noted<'py>> {
    let id = Some(shown(headers.get(&HEADER))).filter(|id| !id.is_empty())?;
    let noted = variable(py).and_then(|variable| {
        let token = variable.call_method1("set", (id,))?;
        Ok(Noted { variable, token })
    });
    noted.ok()
}

/// One as it counts; empty where it does not.
pub(crate) fn shown(id: Option<&HeaderValue>) -> &str {
    id.and_then(|id| id.to_str().ok()).filter(|id| id.len() <= MOST).unwrap_or_default()
}

/// See [`note`].
pub(crate) struct Noted<'py> {
    variable: Bound<'py, PyAny>,
    token: Bound<'py, PyAny>,
}

impl Drop for Noted<'_> {
    fn drop(&mut self) {
        // It fails only in another context, which ends by itself.
        let _ = self.variable.call_method1("reset", (&self.token,));
    }
}
