//! Files that an application has sent by the server (ASGI "Path Send" and "Zero Copy Send").

use std::io;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};

use pyo3::exceptions::{PyOSError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;

use super::message::Message;
use crate::segment::{Segment, duplicate};

/// The `path` of a `http.response.pathsend`.
pub(super) fn path(message: &Message<'_, '_>) -> PyResult<PathBuf> {
    let py = message.py();
    let Some(path) = message.get(intern!(py, "path"))? else {
        return Err(PyValueError::new_err("'http.response.pathsend' needs a 'path'"));
    };
    path.extract().map_err(|_| PyTypeError::new_err("'path' must be a str or an os.PathLike"))
}

/// The part of an open file that a `http.response.zerocopysend` names. Without an offset it begins at the file's
/// position, which moves to its end. The application may close the file when `send` returns.
pub(super) fn segment(message: &Message<'_, '_>) -> PyResult<Segment> {
    let py = message.py();
    let Some(object) = message.get(intern!(py, "file"))? else {
        return Err(PyValueError::new_err("'http.response.zerocopysend' needs a 'file'"));
    };
    let offset = number(message, "offset")?;
    let count = number(message, "count")?;
    let file = duplicate(descriptor(&object)?)?;
    // An object that buffers knows better than its descriptor where it stands.
    let tells = offset.is_none() && object.hasattr(intern!(py, "tell"))?;
    let start = if tells { Some(object.call_method0(intern!(py, "tell"))?.extract()?) } else { offset };
    let segment = Segment::of(file, start, count)?;
    if tells {
        object.call_method1(intern!(py, "seek"), (segment.end(),))?;
    } else if offset.is_none() {
        segment.seek(segment.end())?;
    }
    Ok(segment)
}

/// `OSError` of the kind that its number stands for, with the file's name.
pub(super) fn raise(py: Python<'_>, error: &io::Error, path: &Path) -> PyErr {
    let Some(number) = error.raw_os_error() else {
        return PyOSError::new_err(format!("{}: {error}", path.display()));
    };
    let text = py.import("os").and_then(|os| os.call_method1("strerror", (number,)));
    match text {
        Ok(text) => PyOSError::new_err((number, text.unbind(), path.as_os_str().to_owned())),
        Err(error) => error,
    }
}

fn number(message: &Message<'_, '_>, key: &str) -> PyResult<Option<u64>> {
    let Some(value) = message.get(&pyo3::types::PyString::new(message.py(), key))? else { return Ok(None) };
    let wrong = |_| PyValueError::new_err(format!("'{key}' must be a whole number of bytes, not {value}"));
    value.extract().map(Some).map_err(wrong)
}

/// A file object's descriptor, or one that is given as a number.
fn descriptor(object: &Bound<'_, PyAny>) -> PyResult<RawFd> {
    if let Ok(number) = object.extract::<RawFd>() {
        return Ok(number);
    }
    if !object.hasattr(intern!(object.py(), "fileno"))? {
        let found = object.get_type().name()?;
        return Err(PyTypeError::new_err(format!(
            "'file' must have a file descriptor, and {found} has none"
        )));
    }
    object.call_method0(intern!(object.py(), "fileno"))?.extract()
}
