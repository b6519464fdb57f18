//! Between the bytes of HTTP and the objects of Python.

use std::borrow::Cow;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyMemoryView, PyString};

use crate::lent;

/// A `str` with one character a byte: how WSGI carries bytes in text (PEP 3333, "Unicode Issues").
#[allow(unsafe_code, reason = "pyo3 has no safe way to decode latin-1 without going through UTF-8")]
pub(crate) fn latin1<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyString>> {
    let length = pyo3::ffi::Py_ssize_t::try_from(bytes.len())?;
    // SAFETY: pointer and length are those of a live slice, of which CPython makes a copy; no error handler is needed,
    // since latin-1 decodes every byte. The result is a new reference to a `str`, or null with an exception set.
    unsafe {
        let text = pyo3::ffi::PyUnicode_DecodeLatin1(bytes.as_ptr().cast(), length, std::ptr::null());
        Ok(Bound::from_owned_ptr_or_err(py, text)?.cast_into_unchecked())
    }
}

/// The bytes of a `str` that came through [`latin1`]. `what` names it in the error.
pub(crate) fn to_latin1<'a>(text: &'a Bound<'_, PyString>, what: &str) -> PyResult<Cow<'a, [u8]>> {
    let utf8 = text.to_str()?;
    if utf8.is_ascii() {
        return Ok(Cow::Borrowed(utf8.as_bytes()));
    }
    let bytes: Result<Vec<u8>, _> =
        utf8.chars().map(|character| u8::try_from(u32::from(character))).collect();
    bytes.map(Cow::Owned).map_err(|_| {
        let found = quoted(utf8.as_bytes());
        PyValueError::new_err(format!(
            "{what} {found} has characters outside latin-1; encode it, as RFC 8187 does for parameters"
        ))
    })
}

/// The contents of a bytes-like object. `what` names it in the error.
pub(crate) fn to_bytes(object: &Bound<'_, PyAny>, what: &str) -> PyResult<Bytes> {
    if let Ok(bytes) = object.cast::<PyBytes>() {
        return Ok(lent::contents(bytes));
    }
    if let Ok(bytes) = object.cast::<PyByteArray>() {
        return Ok(Bytes::from(bytes.to_vec()));
    }
    if let Ok(view) = object.cast::<PyMemoryView>() {
        let bytes = view.call_method0(pyo3::intern!(object.py(), "tobytes"))?;
        return Ok(Bytes::copy_from_slice(bytes.cast::<PyBytes>()?.as_bytes()));
    }
    let found = object.get_type().name()?;
    Err(PyTypeError::new_err(format!("{what} must be bytes, not {found}")))
}

/// Room for so many headers and a few of the server's. Applications choose the number, and a map that is made for too many
/// panics; one that grows too large is an error.
pub(crate) fn header_map(length: usize) -> HeaderMap {
    const MOST: usize = 64;
    HeaderMap::with_capacity(length.min(MOST) + 2)
}

/// A header's name and value, checked.
pub(crate) fn header(name: &[u8], value: &[u8]) -> PyResult<(HeaderName, HeaderValue)> {
    let name = header_name(name)?;
    let value = header_value(&name, value)?;
    Ok((name, value))
}

/// A header's name, which is a token (RFC 9110 section 5.1).
pub(crate) fn header_name(name: &[u8]) -> PyResult<HeaderName> {
    HeaderName::from_bytes(name)
        .map_err(|_| PyValueError::new_err(format!("{} is not a header name", quoted(name))))
}

/// The value of this header, which has no control characters (RFC 9110 section 5.5).
pub(crate) fn header_value(name: &HeaderName, value: &[u8]) -> PyResult<HeaderValue> {
    HeaderValue::from_bytes(value).map_err(|_| {
        PyValueError::new_err(format!(
            "the value {} of header {name} has a line break or another control character",
            quoted(value)
        ))
    })
}

/// Headers of one connection (RFC 9110 section 7.6.1), which are the server's affair.
pub(crate) fn is_hop_by_hop(name: &HeaderName) -> bool {
    const HOP_BY_HOP: [&str; 9] = [
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailers",
        "transfer-encoding",
        "upgrade",
    ];
    HOP_BY_HOP.contains(&name.as_str())
}

/// For messages: the beginning, with what cannot be printed escaped.
pub(crate) fn quoted(bytes: &[u8]) -> String {
    const SHOWN: usize = 80;
    let more = if bytes.len() > SHOWN { "…" } else { "" };
    format!("'{}{more}'", bytes[..bytes.len().min(SHOWN)].escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attached<T>(test: impl FnOnce(Python<'_>) -> T) -> T {
        Python::initialize();
        Python::attach(test)
    }

    #[test]
    fn latin1_tunnels_every_byte() {
        attached(|py| {
            let all: Vec<u8> = (0..=255).collect();
            let text = latin1(py, &all).unwrap();
            assert_eq!(text.len().unwrap(), 256);
            assert_eq!(&*to_latin1(&text, "value").unwrap(), &*all);
        });
    }

    #[test]
    fn what_latin1_cannot_carry_is_an_error() {
        attached(|py| {
            let error = to_latin1(&PyString::new(py, "trutkó €"), "header value").unwrap_err();
            assert!(error.to_string().contains("outside latin-1"), "{error}");
            let surrogate = py.eval(c"'\\udc80'", None, None).unwrap();
            assert!(to_latin1(surrogate.cast().unwrap(), "header value").is_err());
        });
    }

    #[test]
    fn headers_that_would_split_a_response_are_refused() {
        assert!(header(b"X-A", b"fine\tvalue").is_ok());
        for (name, value) in
            [(&b"X-A"[..], &b"a\r\nSet-Cookie: b"[..]), (b"X A", b"a"), (b"", b"a"), (b"A", b"\0")]
        {
            assert!(header(name, value).is_err(), "{name:?} {value:?}");
        }
    }

    #[test]
    fn bytes_like_objects_are_taken_and_text_is_not() {
        attached(|py| {
            for code in [c"b'ab'", c"bytearray(b'ab')", c"memoryview(b'ab')", c"memoryview(b'a-b-')[::2]"] {
                assert_eq!(to_bytes(&py.eval(code, None, None).unwrap(), "a block").unwrap(), "ab");
            }
            let error = to_bytes(&py.eval(c"'ab'", None, None).unwrap(), "a block").unwrap_err();
            assert_eq!(error.to_string(), "TypeError: a block must be bytes, not str");
        });
    }
}
