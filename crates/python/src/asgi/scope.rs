//! Connection scopes (ASGI "HTTP Connection Scope" and "WebSocket Connection Scope").

use hawksbill_core::{Address, Scheme};
use http::request::Parts;
use http::{Version, header};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString, PyTuple};

use crate::facts::Facts;

/// The version of the HTTP and WebSocket message format that is spoken here.
const SPEC_VERSION: &str = "2.5";

/// What the two scopes share. `state` is copied, as the lifespan specification says.
pub(super) fn common<'py>(
    py: Python<'py>,
    facts: Facts<'_>,
    kind: &Bound<'py, PyString>,
    state: Option<&Bound<'py, PyDict>>,
) -> PyResult<Bound<'py, PyDict>> {
    let scope = PyDict::new(py);
    scope.set_item(intern!(py, "type"), kind)?;
    scope.set_item(intern!(py, "asgi"), asgi(py)?)?;
    scope.set_item(intern!(py, "http_version"), http_version(py, facts.parts.version))?;
    let (root_path, rest) = facts.split_path();
    let whole: Vec<u8> = [&*root_path, &*rest].concat();
    scope.set_item(intern!(py, "path"), &*String::from_utf8_lossy(&whole))?;
    scope.set_item(intern!(py, "raw_path"), PyBytes::new(py, facts.raw_path().as_bytes()))?;
    scope.set_item(intern!(py, "query_string"), PyBytes::new(py, facts.query().as_bytes()))?;
    scope.set_item(intern!(py, "root_path"), &*String::from_utf8_lossy(&root_path))?;
    scope.set_item(intern!(py, "headers"), headers(py, facts)?)?;
    scope.set_item(intern!(py, "client"), client(py, facts)?)?;
    scope.set_item(intern!(py, "server"), server(py, facts)?)?;
    if let Some(state) = state {
        scope.set_item(intern!(py, "state"), state.copy()?)?;
    }
    Ok(scope)
}

/// The scope of an HTTP request.
pub(super) fn http<'py>(
    py: Python<'py>,
    facts: Facts<'_>,
    takes_trailers: bool,
    state: Option<&Bound<'py, PyDict>>,
) -> PyResult<Bound<'py, PyDict>> {
    let scope = common(py, facts, intern!(py, "http"), state)?;
    scope.set_item(intern!(py, "method"), facts.parts.method.as_str())?;
    let scheme = match facts.scheme() {
        Scheme::Http => intern!(py, "http"),
        Scheme::Https => intern!(py, "https"),
    };
    scope.set_item(intern!(py, "scheme"), scheme)?;
    let extensions = PyDict::new(py);
    extensions.set_item(intern!(py, "http.response.pathsend"), PyDict::new(py))?;
    extensions.set_item(intern!(py, "http.response.zerocopysend"), PyDict::new(py))?;
    if takes_trailers {
        extensions.set_item(intern!(py, "http.response.trailers"), PyDict::new(py))?;
    }
    scope.set_item(intern!(py, "extensions"), extensions)?;
    Ok(scope)
}

/// Whether trailers reach the client: it must ask for them (ASGI "HTTP Trailers", RFC 9110 section 6.5.1), in a version
/// that has a place for them. Over HTTP/1.1 only those go out that the response's `Trailer` header names.
pub(super) fn takes_trailers(parts: &Parts) -> bool {
    let mut lines = parts.headers.get_all(header::TE).iter().filter_map(|line| line.to_str().ok());
    parts.version >= Version::HTTP_11
        && lines.any(|line| line.split(',').any(|coding| coding.trim().eq_ignore_ascii_case("trailers")))
}

/// The scope of a WebSocket.
pub(super) fn websocket<'py>(
    py: Python<'py>,
    facts: Facts<'_>,
    subprotocols: &[String],
    state: Option<&Bound<'py, PyDict>>,
) -> PyResult<Bound<'py, PyDict>> {
    let scope = common(py, facts, intern!(py, "websocket"), state)?;
    let scheme = match facts.scheme() {
        Scheme::Http => intern!(py, "ws"),
        Scheme::Https => intern!(py, "wss"),
    };
    scope.set_item(intern!(py, "scheme"), scheme)?;
    scope.set_item(intern!(py, "subprotocols"), subprotocols)?;
    let extensions = PyDict::new(py);
    extensions.set_item(intern!(py, "websocket.http.response"), PyDict::new(py))?;
    scope.set_item(intern!(py, "extensions"), extensions)?;
    Ok(scope)
}

/// The scope of an application's life (ASGI "Lifespan Protocol").
pub(super) fn lifespan<'py>(py: Python<'py>, state: &Bound<'py, PyDict>) -> PyResult<Bound<'py, PyDict>> {
    let scope = PyDict::new(py);
    scope.set_item("type", "lifespan")?;
    let asgi = PyDict::new(py);
    asgi.set_item("version", "3.0")?;
    asgi.set_item("spec_version", "2.0")?;
    scope.set_item("asgi", asgi)?;
    scope.set_item("state", state)?;
    Ok(scope)
}

fn asgi(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let asgi = PyDict::new(py);
    asgi.set_item(intern!(py, "version"), intern!(py, "3.0"))?;
    asgi.set_item(intern!(py, "spec_version"), intern!(py, SPEC_VERSION))?;
    Ok(asgi)
}

fn http_version(py: Python<'_>, version: Version) -> &Bound<'_, PyString> {
    match version {
        Version::HTTP_09 | Version::HTTP_10 => intern!(py, "1.0"),
        Version::HTTP_2 => intern!(py, "2"),
        Version::HTTP_3 => intern!(py, "3"),
        _ => intern!(py, "1.1"),
    }
}

/// Names are lowercase already; the host that was asked for stands first, whatever way the client said it.
fn headers<'py>(py: Python<'py>, facts: Facts<'_>) -> PyResult<Bound<'py, PyList>> {
    let list = PyList::empty(py);
    if let Some(host) = facts.host() {
        list.append((PyBytes::new(py, b"host"), PyBytes::new(py, &host)))?;
    }
    for (name, value) in &facts.parts.headers {
        if name != header::HOST {
            list.append((PyBytes::new(py, name.as_str().as_bytes()), PyBytes::new(py, value.as_bytes())))?;
        }
    }
    Ok(list)
}

fn client<'py>(py: Python<'py>, facts: Facts<'_>) -> PyResult<Option<Bound<'py, PyTuple>>> {
    facts.client().map(|client| (client.ip().to_string(), client.port()).into_pyobject(py)).transpose()
}

fn server<'py>(py: Python<'py>, facts: Facts<'_>) -> PyResult<Option<Bound<'py, PyTuple>>> {
    match facts.local() {
        Some(Address::Tcp(local)) => (local.ip().to_string(), local.port()).into_pyobject(py).map(Some),
        Some(Address::Unix(Some(path))) => (path.to_string_lossy(), py.None()).into_pyobject(py).map(Some),
        Some(Address::Unix(None)) | None => Ok(None),
    }
}
