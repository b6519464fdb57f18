//! `wsgi.input`: the request body as a file that is read while it arrives.
//!
//! Reads behave as those of [`io.BytesIO`](https://docs.python.org/3/library/io.html#io.BytesIO). A client that stops
//! in the middle of its body raises `ConnectionResetError`; it is never taken for the end of the file.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes};
use hawksbill_core::{Body, Error};
use http_body::Body as _;
use pyo3::exceptions::{PyConnectionResetError, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};
use tokio::runtime::Handle;

use super::gather::Gathered;
use crate::block_on::block_on_poll;
use crate::broken::Broken;

/// The file that an application reads.
#[pyclass(frozen, module = "hawksbill")]
pub(crate) struct Input {
    /// Taken out while a thread reads, so that no lock is held across waiting.
    reader: Mutex<Option<Box<Reader>>>,
}

struct Reader {
    body: Gathered,
    chunk: Bytes,
    broken: Broken,
    message: Option<String>,
}

impl Input {
    /// A file of this body; what it fails with is left in `broken`.
    pub(super) fn new(body: Gathered, broken: Broken) -> Self {
        let reader = Reader { body, chunk: Bytes::new(), broken, message: None };
        Self { reader: Mutex::new(Some(Box::new(reader))) }
    }

    /// The file of a request without a body.
    pub(super) fn empty() -> Self {
        let body = Gathered { blocks: VecDeque::new(), rest: None, failed: None, runtime: None };
        Self::new(body, Broken::never())
    }

    /// Lets the body go, when the response is complete: an application may keep its environ for ever.
    pub(super) fn close(&self) {
        let reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(reader);
    }

    /// Lets go what is not read yet: nobody will.
    pub(super) fn let_go(&self) {
        let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        let rest = reader.as_mut().and_then(|reader| reader.body.rest.take());
        drop(reader);
        drop(rest);
    }

    fn with<T>(&self, read: impl FnOnce(&mut Reader) -> PyResult<T>) -> PyResult<T> {
        let taken = self.reader.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut reader) = taken else {
            return Err(PyRuntimeError::new_err(
                "wsgi.input is closed, or another thread is reading it; read it before the response is complete",
            ));
        };
        let result = read(&mut reader);
        *self.reader.lock().unwrap_or_else(PoisonError::into_inner) = Some(reader);
        result
    }
}

#[pymethods]
impl Input {
    /// Reads at most `size` bytes, everything where it is negative or None.
    #[pyo3(signature = (size = None, /))]
    fn read<'py>(&self, py: Python<'py>, size: Option<isize>) -> PyResult<Bound<'py, PyBytes>> {
        self.with(|reader| {
            let mut parts = Parts::default();
            let limit = limit(size);
            while parts.len < limit && reader.fill(py)? {
                parts.push(reader.take(limit - parts.len));
            }
            parts.into_bytes(py)
        })
    }

    /// Reads up to and including the next line break, at most `size` bytes.
    #[pyo3(signature = (size = None, /))]
    fn readline<'py>(&self, py: Python<'py>, size: Option<isize>) -> PyResult<Bound<'py, PyBytes>> {
        self.with(|reader| reader.line(py, limit(size))?.into_bytes(py))
    }

    /// Reads lines until at least `hint` bytes have been read, all where it is None, zero or negative.
    #[pyo3(signature = (hint = None, /))]
    fn readlines<'py>(&self, py: Python<'py>, hint: Option<isize>) -> PyResult<Bound<'py, PyList>> {
        let hint = limit(hint.filter(|hint| *hint > 0));
        self.with(|reader| {
            let lines = PyList::empty(py);
            let mut total = 0_usize;
            while total < hint {
                let line = reader.line(py, usize::MAX)?;
                if line.len == 0 {
                    break;
                }
                total = total.saturating_add(line.len);
                lines.append(line.into_bytes(py)?)?;
            }
            Ok(lines)
        })
    }

    fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let line = self.readline(py, None)?;
        Ok(Some(line).filter(|line| !line.as_bytes().is_empty()))
    }
}

fn limit(size: Option<isize>) -> usize {
    size.and_then(|size| usize::try_from(size).ok()).unwrap_or(usize::MAX)
}

impl Reader {
    /// Makes sure that there is something in the chunk; false at the end of the body.
    fn fill(&mut self, py: Python<'_>) -> PyResult<bool> {
        while self.chunk.is_empty() {
            if let Some(message) = &self.message {
                return Err(PyConnectionResetError::new_err(message.clone()));
            }
            if let Some(block) = self.body.blocks.pop_front() {
                self.chunk = block;
                continue;
            }
            if let Some(error) = self.body.failed.take() {
                self.message = Some(error.to_string());
                self.broken.set(error);
                continue;
            }
            let Some(body) = &mut self.body.rest else { return Ok(false) };
            match next_frame(py, body, self.body.runtime.as_ref(), &self.broken) {
                Some(Ok(frame)) => self.chunk = frame.into_data().unwrap_or_default(),
                Some(Err(error)) => {
                    self.body.rest = None;
                    self.body.failed = Some(error);
                }
                None => self.body.rest = None,
            }
        }
        Ok(true)
    }

    fn take(&mut self, most: usize) -> Bytes {
        self.chunk.split_to(most.min(self.chunk.len()))
    }

    fn line(&mut self, py: Python<'_>, limit: usize) -> PyResult<Parts> {
        let mut parts = Parts::default();
        while parts.len < limit && self.fill(py)? {
            let most = self.chunk.len().min(limit - parts.len);
            match self.chunk[..most].iter().position(|byte| *byte == b'\n') {
                Some(end) => {
                    parts.push(self.take(end + 1));
                    break;
                }
                None => parts.push(self.take(most)),
            }
        }
        Ok(parts)
    }
}

/// Asks for the next frame while attached, and waits for it detached.
fn next_frame(
    py: Python<'_>,
    body: &mut Body,
    runtime: Option<&Handle>,
    broken: &Broken,
) -> Option<Result<http_body::Frame<Bytes>, Error>> {
    let _entered = runtime.map(Handle::enter);
    let mut poll = |cx: &mut Context<'_>| Pin::new(&mut *body).poll_frame(cx);
    match poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(frame) => frame,
        Poll::Pending => broken.waiting(|| py.detach(|| block_on_poll(poll))),
    }
}

/// Pieces of chunks, joined into one object by one copy.
#[derive(Default)]
struct Parts {
    pieces: Vec<Bytes>,
    len: usize,
}

impl Parts {
    fn push(&mut self, piece: Bytes) {
        self.len = self.len.saturating_add(piece.len());
        self.pieces.push(piece);
    }

    fn into_bytes(self, py: Python<'_>) -> PyResult<Bound<'_, PyBytes>> {
        if let [piece] = &*self.pieces {
            return Ok(PyBytes::new(py, piece));
        }
        PyBytes::new_with(py, self.len, |mut space| {
            for mut piece in self.pieces {
                let length = piece.len();
                piece.copy_to_slice(&mut space[..length]);
                space = &mut space[length..];
            }
            Ok(())
        })
    }
}
