//! `start_response` and `write` (PEP 3333, "The `start_response()` Callable").

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use hawksbill_core::Error;
use http::StatusCode;
use http::header::HeaderMap;
use pyo3::exceptions::{PyAssertionError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyList, PyString, PyTuple};

use crate::answer::{Answer, Head, Trouble};
use crate::block_on::block_on_poll;
use crate::convert::{self, is_hop_by_hop, quoted, to_bytes, to_latin1};
use crate::segment::Segment;
use crate::lead;

/// Why an application is asked for no further block.
#[derive(Debug)]
pub(crate) enum Halt {
    /// It raised, or sent what cannot be sent.
    Raised(PyErr),
    /// Nobody wants more: the client left, or the answer to its HEAD request is sent.
    Enough,
}

impl From<PyErr> for Halt {
    fn from(error: PyErr) -> Self {
        Self::Raised(error)
    }
}

impl From<Trouble> for Halt {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Left => Self::Enough,
            Trouble::NotStarted | Trouble::StartedTwice | Trouble::AlreadySent => {
                Self::Raised(PyAssertionError::new_err(format!("{trouble} (PEP 3333: start_response)")))
            }
            Trouble::BadLength | Trouble::Excess(_) | Trouble::Shortage(_) => {
                Self::Raised(PyValueError::new_err(trouble.to_string()))
            }
        }
    }
}

/// The callable that an application gets, and with it the answer itself.
#[pyclass(frozen, module = "hawksbill")]
pub(crate) struct StartResponse {
    /// Taken out while a thread sends, so that no lock is held across waiting.
    answer: Mutex<Option<Box<Answer>>>,
}

impl StartResponse {
    pub(crate) fn new(answer: Answer) -> Self {
        Self { answer: Mutex::new(Some(Box::new(answer))) }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Answer) -> Result<T, Halt>) -> Result<T, Halt> {
        let taken = self.take();
        let Some(mut answer) = taken else {
            let message = "the response is complete, or another thread is sending it";
            return Err(PyRuntimeError::new_err(message).into());
        };
        let result = act(&mut answer);
        *self.answer.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
        result
    }

    fn take(&self) -> Option<Box<Answer>> {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Sends one block, and waits detached until the next may be asked for.
    pub(crate) fn block(&self, py: Python<'_>, block: Bytes) -> Result<(), Halt> {
        if block.is_empty() {
            return Ok(());
        }
        self.with(|answer| {
            answer.block(block)?;
            wait_for_room(py, answer)?;
            if answer.wants_blocks() { Ok(()) } else { Err(Halt::Enough) }
        })
    }

    /// Sends all blocks of an answer that is there as a whole.
    pub(crate) fn whole(&self, py: Python<'_>, blocks: Vec<Bytes>) -> Result<(), Halt> {
        let sent = self.with(|answer| {
            if answer.is_sent() {
                return Ok(Some(blocks));
            }
            answer.last(joined(blocks))?;
            Ok(None)
        })?;
        sent.into_iter().flatten().try_for_each(|block| self.block(py, block))
    }

    /// Sends what is left of the answer out of a file, and waits detached until that is read.
    pub(crate) fn file(&self, py: Python<'_>, segment: Segment) -> Result<(), Halt> {
        self.with(|answer| {
            answer.rest(segment)?;
            Ok(wait_for_room(py, answer)?)
        })
    }

    /// The application is done: what is not sent is sent now, and the answer ends.
    pub(crate) fn finish(&self) -> Result<(), Halt> {
        self.with(|answer| if answer.is_complete() { Ok(()) } else { Ok(answer.last(Bytes::new())?) })
    }

    /// The application failed: 500 where nothing is sent, else the connection is cut.
    pub(crate) fn fail(&self, error: Error) {
        if let Some(mut answer) = self.take() {
            answer.fail(error);
        }
    }

    /// Nothing more is said to the client, whatever the application still holds.
    pub(crate) fn close(&self) {
        drop(self.take());
    }
}

#[pymethods]
impl StartResponse {
    #[pyo3(signature = (status, headers, exc_info = None, /))]
    fn __call__<'py>(
        this: &Bound<'py, Self>,
        status: &Bound<'py, PyAny>,
        headers: &Bound<'py, PyAny>,
        exc_info: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let head = Head { status: parse_status(status)?, headers: parse_headers(headers)? };
        match this.get().with(|answer| Ok(answer.start(head, exc_info.is_some())?)) {
            // An application need not know that nobody listens any more.
            Ok(()) | Err(Halt::Enough) => this.getattr(pyo3::intern!(this.py(), "write")),
            Err(Halt::Raised(error)) => Err(exc_info.map_or(Ok(error), raised)?),
        }
    }

    /// The `write` callable of PEP 3333, for old applications.
    fn write(&self, py: Python<'_>, block: &Bound<'_, PyAny>) -> PyResult<()> {
        match self.block(py, to_bytes(block, "what is written")?) {
            Ok(()) | Err(Halt::Enough) => Ok(()),
            Err(Halt::Raised(error)) => Err(error),
        }
    }
}

/// The exception of an `exc_info` tuple, with its traceback.
fn raised(exc_info: &Bound<'_, PyAny>) -> PyResult<PyErr> {
    let value = exc_info.get_item(1)?;
    if value.is_none() {
        return Ok(PyAssertionError::new_err("start_response got an exc_info without an exception"));
    }
    Ok(PyErr::from_value(value))
}

/// Sees to it that the block is on its way (PEP 3333, "Buffering and Streaming"), and that there is room for the next.
fn wait_for_room(py: Python<'_>, answer: &Answer) -> Result<(), Trouble> {
    if let Some(lead) = lead::here() {
        py.detach(|| lead.pass());
    }
    let mut now = std::task::Context::from_waker(std::task::Waker::noop());
    match answer.poll_room(&mut now) {
        std::task::Poll::Ready(room) => room,
        std::task::Poll::Pending => py.detach(|| block_on_poll(|cx| answer.poll_room(cx))),
    }
}

fn joined(mut blocks: Vec<Bytes>) -> Bytes {
    match blocks.len() {
        0 => Bytes::new(),
        1 => blocks.swap_remove(0),
        _ => Bytes::from(blocks.concat()),
    }
}

fn parse_status(status: &Bound<'_, PyAny>) -> PyResult<StatusCode> {
    let Ok(text) = status.cast::<PyString>() else {
        let found = status.get_type().name()?;
        return Err(PyTypeError::new_err(format!("status must be a str such as '200 OK', not {found}")));
    };
    let text = to_latin1(text, "status")?;
    let code = match text.get(..3) {
        Some(code) if matches!(text.get(3), None | Some(b' ')) => StatusCode::from_bytes(code).ok(),
        _ => None,
    };
    let printable = !text.iter().any(u8::is_ascii_control);
    code.filter(|code| printable && code.as_u16() >= 200).ok_or_else(|| {
        PyValueError::new_err(format!("{} is not a status; write one such as '200 OK'", quoted(&text)))
    })
}

fn parse_headers(headers: &Bound<'_, PyAny>) -> PyResult<HeaderMap> {
    let Ok(list) = headers.cast::<PyList>() else {
        let found = headers.get_type().name()?;
        return Err(PyTypeError::new_err(format!("headers must be a list of tuples, not {found}")));
    };
    let mut map = convert::header_map(list.len());
    for item in list {
        let Some((name, value)) = pair(&item) else {
            return Err(PyTypeError::new_err("a header must be a tuple of two str, name and value"));
        };
        let (name, value) =
            convert::header(&to_latin1(&name, "header name")?, &to_latin1(&value, "header value")?)?;
        if is_hop_by_hop(&name) {
            let message = format!("header {name} belongs to the server: PEP 3333 forbids hop-by-hop headers");
            return Err(PyAssertionError::new_err(message));
        }
        map.try_append(name, value).map_err(|error| PyValueError::new_err(error.to_string()))?;
    }
    Ok(map)
}

fn pair<'py>(item: &Bound<'py, PyAny>) -> Option<(Bound<'py, PyString>, Bound<'py, PyString>)> {
    let tuple = item.cast::<PyTuple>().ok().filter(|tuple| tuple.len() == 2)?;
    let name = tuple.get_item(0).ok()?.cast_into::<PyString>().ok()?;
    let value = tuple.get_item(1).ok()?.cast_into::<PyString>().ok()?;
    Some((name, value))
}
