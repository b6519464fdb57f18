//! What an application has imported from elsewhere than packages: for whoever edits it.

use pyo3::ffi::c_str;
use pyo3::prelude::*;

use crate::embedded::Embedded;

static MODULE: Embedded = Embedded::new(c"_hawksbill_imported", c_str!(include_str!("imported.py")));

/// The paths of the files, one to a line; nothing where Python refuses.
pub(crate) fn files() -> String {
    let files = Python::try_attach(|py| MODULE.get(py)?.call_method0("files")?.extract::<String>());
    files.and_then(Result::ok).unwrap_or_default()
}
