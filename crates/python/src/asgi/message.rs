//! Reading the messages that applications send.

use bytes::Bytes;
use http::StatusCode;
use http::header::HeaderMap;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString, PyTuple};

use crate::answer::Head;
use crate::convert::{self, is_hop_by_hop, to_bytes};

/// A message: a dictionary with a `type`.
pub(super) struct Message<'a, 'py>(&'a Bound<'py, PyDict>);

impl<'a, 'py> Message<'a, 'py> {
    pub(super) fn new(message: &'a Bound<'py, PyAny>) -> PyResult<Self> {
        if let Ok(message) = message.cast::<PyDict>() {
            return Ok(Self(message));
        }
        let found = message.get_type().name()?;
        Err(PyTypeError::new_err(format!("a message must be a dict, not {found}")))
    }

    pub(super) fn py(&self) -> Python<'py> {
        self.0.py()
    }

    /// The `type`.
    pub(super) fn kind(&self) -> PyResult<Bound<'py, PyString>> {
        let kind = self.0.get_item(intern!(self.0.py(), "type"))?;
        kind.and_then(|kind| kind.cast_into::<PyString>().ok())
            .ok_or_else(|| PyValueError::new_err("a message needs a 'type', which is a str"))
    }

    /// A value that is there and not None.
    pub(super) fn get(&self, key: &Bound<'py, PyString>) -> PyResult<Option<Bound<'py, PyAny>>> {
        Ok(self.0.get_item(key)?.filter(|value| !value.is_none()))
    }

    /// Status and headers of a response. Without a `headers` key there are none.
    pub(super) fn head(&self) -> PyResult<Head> {
        let py = self.0.py();
        let Some(status) = self.get(intern!(py, "status"))? else {
            return Err(PyValueError::new_err("a response start needs a 'status'"));
        };
        let code: u16 = status.extract().map_err(|_| bad_status(&status))?;
        let status = match StatusCode::from_u16(code) {
            Ok(code) if !code.is_informational() => code,
            _ => return Err(bad_status(&status)),
        };
        Ok(Head { status, headers: self.headers()? })
    }

    /// The `headers`. Those of the connection are left out: they are the server's.
    pub(super) fn headers(&self) -> PyResult<HeaderMap> {
        let Some(headers) = self.get(intern!(self.0.py(), "headers"))? else { return Ok(HeaderMap::new()) };
        let mut map = convert::header_map(headers.len().unwrap_or_default());
        for pair in headers.try_iter()? {
            let (name, value) = split(pair?)?;
            let header = with_bytes(&name, "a header name", |name| {
                with_bytes(&value, "a header value", |value| convert::header(name, value))?
            });
            let (name, value) = header??;
            if !is_hop_by_hop(&name) {
                map.try_append(name, value).map_err(|error| PyValueError::new_err(error.to_string()))?;
            }
        }
        Ok(map)
    }

    /// The `body`, and whether more of it comes.
    pub(super) fn body(&self) -> PyResult<(Bytes, bool)> {
        let py = self.0.py();
        let body = match self.get(intern!(py, "body"))? {
            Some(body) => to_bytes(&body, "a body")?,
            None => Bytes::new(),
        };
        Ok((body, self.flag(intern!(py, "more_body"))?))
    }

    /// Whether a value is there and true.
    pub(super) fn flag(&self, key: &Bound<'py, PyString>) -> PyResult<bool> {
        self.0.get_item(key)?.map_or(Ok(false), |value| value.is_truthy())
    }
}

/// A header's two halves.
fn split(pair: Bound<'_, PyAny>) -> PyResult<(Bound<'_, PyAny>, Bound<'_, PyAny>)> {
    if let Ok(pair) = pair.cast::<PyTuple>()
        && pair.len() == 2
    {
        return Ok((pair.get_item(0)?, pair.get_item(1)?));
    }
    if pair.len().unwrap_or_default() != 2 {
        return Err(PyTypeError::new_err("a header must be a pair of bytes, name and value"));
    }
    Ok((pair.get_item(0)?, pair.get_item(1)?))
}

/// Does something with the bytes of a bytes-like object, of which no copy is made where they cannot change.
fn with_bytes<T>(object: &Bound<'_, PyAny>, what: &str, act: impl FnOnce(&[u8]) -> T) -> PyResult<T> {
    if let Ok(bytes) = object.cast::<PyBytes>() {
        return Ok(act(bytes.as_bytes()));
    }
    Ok(act(&to_bytes(object, what)?))
}

fn bad_status(status: &Bound<'_, PyAny>) -> PyErr {
    PyValueError::new_err(format!("{status} is not a status; give an int from 200 to 999"))
}
