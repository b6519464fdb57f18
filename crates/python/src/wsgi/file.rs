//! `wsgi.file_wrapper` (PEP 3333, "Optional Platform-Specific File Handling").
//!
//! A regular file that an application returns in one is sent by the server, and Python is not asked for its blocks.
//! Whatever else it may hold (a pipe, a buffer in memory, a compressed file) is read block by block, as from any
//! iterable.

use std::os::fd::RawFd;

use pyo3::exceptions::PyAttributeError;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::segment::{Segment, duplicate};

/// How many objects may lie between the one that is given and the file that they read, each within another.
const DEPTH: usize = 8;

/// The class that applications find in their environ; its attributes are those of `wsgiref.util.FileWrapper`.
#[pyclass(frozen, module = "hawksbill")]
pub(crate) struct FileWrapper {
    #[pyo3(get)]
    filelike: Py<PyAny>,
    #[pyo3(get)]
    blksize: isize,
}

#[pymethods]
impl FileWrapper {
    #[new]
    #[pyo3(signature = (filelike, blksize = 8192))]
    fn new(filelike: Py<PyAny>, blksize: isize) -> Self {
        Self { filelike, blksize }
    }

    fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let block = self.filelike.bind(py).call_method1(intern!(py, "read"), (self.blksize,))?;
        Ok(if block.is_truthy()? { Some(block) } else { None })
    }

    /// `close` is there where the file has it, as PEP 3333 says; the others let a framework begin in the middle.
    fn __getattr__<'py>(&self, name: &Bound<'py, PyString>) -> PyResult<Bound<'py, PyAny>> {
        match name.to_str()? {
            "close" | "seek" | "seekable" | "tell" => self.filelike.bind(name.py()).getattr(name),
            other => {
                Err(PyAttributeError::new_err(format!("'FileWrapper' object has no attribute '{other}'")))
            }
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.filelike)
    }
}

impl FileWrapper {
    /// What is left of the file from where it stands; `None` where it has to be read by its own means.
    pub(crate) fn segment(&self, py: Python<'_>) -> Option<Segment> {
        // What fails here fails again where it is read, and is told then.
        segment(self.filelike.bind(py)).ok().flatten()
    }
}

fn segment(object: &Bound<'_, PyAny>) -> PyResult<Option<Segment>> {
    let py = object.py();
    let Some(fileno) = object.getattr_opt(intern!(py, "fileno"))? else { return Ok(None) };
    if !reads_its_descriptor(object)? {
        return Ok(None);
    }
    let descriptor: RawFd = fileno.call0()?.extract()?;
    // What was written and not flushed is not in the file yet.
    if let Some(flush) = object.getattr_opt(intern!(py, "flush"))? {
        flush.call0()?;
    }
    // An object that buffers knows better than its descriptor where it stands.
    let start = match object.getattr_opt(intern!(py, "tell"))? {
        Some(tell) => Some(tell.call0()?.extract()?),
        None => None,
    };
    Ok(Some(Segment::of(duplicate(descriptor)?, start, None)?))
}

/// Whether what an object gives to who reads it are the bytes behind its descriptor. They are not those of a text file
/// or of a compressed one, which have descriptors, too.
fn reads_its_descriptor(object: &Bound<'_, PyAny>) -> PyResult<bool> {
    let py = object.py();
    let io = py.import(intern!(py, "io"))?;
    let raw = io.getattr(intern!(py, "FileIO"))?;
    let buffered = [io.getattr(intern!(py, "BufferedReader"))?, io.getattr(intern!(py, "BufferedRandom"))?];
    let any = io.getattr(intern!(py, "IOBase"))?;
    let mut object = object.clone();
    for _ in 0..DEPTH {
        if object.is_instance(&raw)? {
            return reads_as(&object, &raw);
        }
        for class in &buffered {
            if object.is_instance(class)? && !reads_as(&object, class)? {
                return Ok(false);
            }
        }
        // What stands around a file, as Django's `File` and those of `tempfile`, calls it `file`.
        let within = if object.is_instance(&buffered[0])? || object.is_instance(&buffered[1])? {
            object.getattr_opt(intern!(py, "raw"))?
        } else if object.is_instance(&any)? {
            return Ok(false);
        } else {
            object.getattr_opt(intern!(py, "file"))?.filter(|file| !file.is_none())
        };
        match within {
            Some(within) => object = within,
            None => return Ok(true),
        }
    }
    Ok(false)
}

/// Whether an object reads as this class does: a subclass with a `read` of its own means it.
fn reads_as(object: &Bound<'_, PyAny>, class: &Bound<'_, PyAny>) -> PyResult<bool> {
    let read = intern!(object.py(), "read");
    Ok(object.get_type().getattr(read)?.is(&class.getattr(read)?))
}
