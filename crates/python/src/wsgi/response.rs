//! `start_response` and `write` (PEP 3333, "The `start_response()` Callable").

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use hawksbill_core::Error;
use http::StatusCode;
use http::header::{HeaderMap, HeaderName};
use pyo3::exceptions::{PyAssertionError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyList, PyString, PyTuple};

use super::known;
use crate::answer::{Answer, Head, Trouble};
use crate::block_on::block_on_poll;
use crate::convert::{self, is_hop_by_hop, quoted, to_bytes, to_latin1};
use crate::lead;
use crate::segment::Segment;

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
    given: Mutex<Option<Given>>,
}

/// What was given of an answer.
struct Given {
    answer: Answer,
    /// When what had been given was seen on its way.
    sent: Option<Instant>,
}

impl StartResponse {
    pub(crate) fn new(answer: Answer) -> Self {
        Self { given: Mutex::new(Some(Given { answer, sent: None })) }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Given) -> Result<T, Halt>) -> Result<T, Halt> {
        let mut given = self.take().ok_or_else(unavailable)?;
        let result = act(&mut given);
        *self.lock() = Some(given);
        result
    }

    /// As [`with`](Self::with), for what never waits.
    fn at_once<T>(&self, act: impl FnOnce(&mut Answer) -> Result<T, Trouble>) -> Result<T, Halt> {
        let mut given = self.lock();
        Ok(act(&mut given.as_mut().ok_or_else(unavailable)?.answer)?)
    }

    fn take(&self) -> Option<Given> {
        self.lock().take()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Given>> {
        self.given.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends one block, and waits detached until the next may be asked for.
    pub(crate) fn block(&self, py: Python<'_>, block: Bytes) -> Result<(), Halt> {
        if block.is_empty() {
            return Ok(());
        }
        self.with(|given| {
            given.answer.block(block)?;
            given.wait_for_room(py)?;
            if given.answer.wants_blocks() { Ok(()) } else { Err(Halt::Enough) }
        })
    }

    /// Sends an answer that is there as a whole; gives it back where a part was sent before.
    pub(crate) fn whole(&self, block: Bytes) -> Result<Option<Bytes>, Halt> {
        self.at_once(|answer| {
            if answer.is_sent() {
                return Ok(Some(block));
            }
            answer.last(block)?;
            Ok(None)
        })
    }

    /// Sends what is left of the answer out of a file, and waits detached until that is read.
    pub(crate) fn file(&self, py: Python<'_>, segment: Segment) -> Result<(), Halt> {
        self.with(|given| {
            given.answer.rest(segment)?;
            Ok(given.wait_for_room(py)?)
        })
    }

    /// The application is done: what is not sent is sent now, and the answer ends.
    pub(crate) fn finish(&self) -> Result<(), Halt> {
        self.at_once(|answer| if answer.is_complete() { Ok(()) } else { answer.last(Bytes::new()) })
    }

    /// The application failed: 500 where nothing is sent, else the connection is cut.
    pub(crate) fn fail(&self, error: Error) {
        if let Some(mut given) = self.take() {
            given.answer.fail(error);
        }
    }

    /// Nothing more is said to the client, whatever the application still holds.
    pub(crate) fn close(&self) {
        drop(self.take());
    }
}

#[pymethods]
impl StartResponse {
    /// `start_response(status, headers, exc_info=None)`. The `write` callable that it returns is this object, too, called
    /// with a block: few applications want it, and none need another object for it.
    #[pyo3(signature = (status, headers = None, exc_info = None, /))]
    fn __call__<'py>(
        this: &Bound<'py, Self>,
        status: &Bound<'py, PyAny>,
        headers: Option<&Bound<'py, PyAny>>,
        exc_info: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, Self>>> {
        let Some(headers) = headers else {
            return this.get().write(status).map(|()| None);
        };
        let head = Head { status: parse_status(status)?, headers: parse_headers(headers)? };
        match this.get().at_once(|answer| answer.start(head, exc_info.is_some())) {
            // An application need not know that nobody listens any more.
            Ok(()) | Err(Halt::Enough) => Ok(Some(this.clone())),
            Err(Halt::Raised(error)) => Err(exc_info.map_or(Ok(error), raised)?),
        }
    }
}

impl StartResponse {
    fn write(&self, block: &Bound<'_, PyAny>) -> PyResult<()> {
        if block.is_instance_of::<PyString>() {
            return Err(PyTypeError::new_err(
                "start_response takes a status and headers, and what it returns takes bytes",
            ));
        }
        match self.block(block.py(), to_bytes(block, "what is written")?) {
            Ok(()) | Err(Halt::Enough) => Ok(()),
            Err(Halt::Raised(error)) => Err(error),
        }
    }
}

fn unavailable() -> PyErr {
    PyRuntimeError::new_err("the response is complete, or another thread is sending it")
}

/// The exception of an `exc_info` tuple, with its traceback.
fn raised(exc_info: &Bound<'_, PyAny>) -> PyResult<PyErr> {
    let value = exc_info.get_item(1)?;
    if value.is_none() {
        return Ok(PyAssertionError::new_err("start_response got an exc_info without an exception"));
    }
    Ok(PyErr::from_value(value))
}

impl Given {
    /// Sees to it that the block is on its way (PEP 3333, "Buffering and Streaming"), and that there is room for the next.
    fn wait_for_room(&mut self, py: Python<'_>) -> Result<(), Trouble> {
        if let Some(lead) = lead::here() {
            // What follows at once is sent together with what follows it. If nothing does, the main thread sends it.
            if self.sent.is_none_or(|sent| sent.elapsed() >= lead::TICK) {
                py.detach(|| lead.pass());
                self.sent = Some(Instant::now());
            }
        }
        let mut now = std::task::Context::from_waker(std::task::Waker::noop());
        match self.answer.poll_room(&mut now) {
            std::task::Poll::Ready(room) => room,
            std::task::Poll::Pending => {
                let room = py.detach(|| block_on_poll(|cx| self.answer.poll_room(cx)));
                self.sent = Some(Instant::now());
                room
            }
        }
    }
}

fn parse_status(status: &Bound<'_, PyAny>) -> PyResult<StatusCode> {
    let Ok(status) = status.cast::<PyString>() else {
        let found = status.get_type().name()?;
        return Err(PyTypeError::new_err(format!("status must be a str such as '200 OK', not {found}")));
    };
    known::status(status, || {
        let text = to_latin1(status, "status")?;
        let code = match text.get(..3) {
            Some(code) if matches!(text.get(3), None | Some(b' ')) => StatusCode::from_bytes(code).ok(),
            _ => None,
        };
        let printable = !text.iter().any(u8::is_ascii_control);
        code.filter(|code| printable && code.as_u16() >= 200).ok_or_else(|| {
            PyValueError::new_err(format!("{} is not a status; write one such as '200 OK'", quoted(&text)))
        })
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
        let name = known::name(&name, || parse_name(&name))?;
        let value =
            known::value(&value, || convert::header_value(&name, &to_latin1(&value, "header value")?))?;
        map.try_append(name, value).map_err(|error| PyValueError::new_err(error.to_string()))?;
    }
    Ok(map)
}

fn parse_name(name: &Bound<'_, PyString>) -> PyResult<HeaderName> {
    let name = convert::header_name(&to_latin1(name, "header name")?)?;
    if is_hop_by_hop(&name) {
        let message = format!("header {name} belongs to the server: PEP 3333 forbids hop-by-hop headers");
        return Err(PyAssertionError::new_err(message));
    }
    Ok(name)
}

fn pair<'py>(item: &Bound<'py, PyAny>) -> Option<(Bound<'py, PyString>, Bound<'py, PyString>)> {
    let tuple = item.cast::<PyTuple>().ok().filter(|tuple| tuple.len() == 2)?;
    let name = tuple.get_item(0).ok()?.cast_into::<PyString>().ok()?;
    let value = tuple.get_item(1).ok()?.cast_into::<PyString>().ok()?;
    Some((name, value))
}
