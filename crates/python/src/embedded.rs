//! Modules of our own that are written in Python.

use std::ffi::CStr;

use pyo3::prelude::*;

/// The module of this name, made of this code when it is first asked for.
pub(crate) fn module<'py>(py: Python<'py>, code: &CStr, name: &CStr) -> PyResult<Bound<'py, PyModule>> {
    let loaded = py.import("sys")?.getattr("modules")?;
    if let Ok(module) = loaded.get_item(name) {
        return Ok(module.cast_into::<PyModule>()?);
    }
    PyModule::from_code(py, code, name, name)
}
