//! Connection scopes (ASGI "HTTP Connection Scope" and "WebSocket Connection Scope").

use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use hawksbill_core::{Address, Scheme};
use http::request::Parts;
use http::{HeaderName, Method, Version, header};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyList, PyString, PyTuple};
use rustc_hash::FxHasher;

use crate::facts::Facts;

/// The version of the HTTP and WebSocket message format that is spoken here.
const SPEC_VERSION: &str = "2.5";

/// Makes the scopes of one event loop: what is the same for many requests is made once.
pub(super) struct Scopes {
    /// What every HTTP scope has.
    http: PyOnceLock<Py<PyDict>>,
    asgi: PyOnceLock<Py<PyDict>>,
    /// Addresses as Python has them, for the connections of late.
    addresses: Mutex<Vec<Option<(SocketAddr, Py<PyTuple>)>>>,
    pairs: Mutex<Pairs>,
}

/// How many clients are remembered.
const CLIENTS: usize = 256;
/// Behind them stands our own end.
const SERVER: usize = CLIENTS;

impl Scopes {
    pub(super) fn new() -> Self {
        Self {
            http: PyOnceLock::new(),
            asgi: PyOnceLock::new(),
            addresses: Mutex::default(),
            pairs: Mutex::new(Pairs(Vec::new())),
        }
    }

    /// The scope of an HTTP request. `state` is copied, as the lifespan specification says.
    pub(super) fn http<'py>(
        &self,
        py: Python<'py>,
        facts: Facts<'_>,
        takes_trailers: bool,
        state: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let usual = self.http.get_or_try_init(py, || {
            let scope = PyDict::new(py);
            scope.set_item("type", "http")?;
            scope.set_item("scheme", "http")?;
            scope.set_item("root_path", "")?;
            // Their place; the values are each request's own.
            for key in ["asgi", "http_version", "method", "path", "raw_path", "query_string"] {
                scope.set_item(PyString::intern(py, key), py.None())?;
            }
            for key in ["headers", "client", "server", "extensions"] {
                scope.set_item(PyString::intern(py, key), py.None())?;
            }
            Ok::<_, PyErr>(scope.unbind())
        })?;
        let scope = usual.bind(py).copy()?;
        self.common(&scope, facts, state)?;
        scope.set_item(intern!(py, "method"), method(py, &facts.parts.method))?;
        if facts.scheme() == Scheme::Https {
            scope.set_item(intern!(py, "scheme"), intern!(py, "https"))?;
        }
        let extensions = PyDict::new(py);
        extensions.set_item(intern!(py, "http.response.pathsend"), PyDict::new(py))?;
        extensions.set_item(intern!(py, "http.response.zerocopysend"), PyDict::new(py))?;
        if takes_trailers {
            extensions.set_item(intern!(py, "http.response.trailers"), PyDict::new(py))?;
        }
        scope.set_item(intern!(py, "extensions"), extensions)?;
        Ok(scope)
    }

    /// The scope of a WebSocket.
    pub(super) fn websocket<'py>(
        &self,
        py: Python<'py>,
        facts: Facts<'_>,
        subprotocols: &[String],
        state: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let scope = PyDict::new(py);
        scope.set_item(intern!(py, "type"), intern!(py, "websocket"))?;
        scope.set_item(intern!(py, "root_path"), intern!(py, ""))?;
        self.common(&scope, facts, state)?;
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

    /// What the two share, but for what is the same nearly always.
    fn common<'py>(
        &self,
        scope: &Bound<'py, PyDict>,
        facts: Facts<'_>,
        state: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<()> {
        let py = scope.py();
        scope.set_item(intern!(py, "asgi"), self.asgi(py)?)?;
        scope.set_item(intern!(py, "http_version"), http_version(py, facts.parts.version))?;
        let (root_path, rest) = facts.split_path();
        if root_path.is_empty() {
            scope.set_item(intern!(py, "path"), &*String::from_utf8_lossy(&rest))?;
        } else {
            let whole: Vec<u8> = [&*root_path, &*rest].concat();
            scope.set_item(intern!(py, "path"), &*String::from_utf8_lossy(&whole))?;
            scope.set_item(intern!(py, "root_path"), &*String::from_utf8_lossy(&root_path))?;
        }
        scope.set_item(intern!(py, "raw_path"), PyBytes::new(py, facts.raw_path().as_bytes()))?;
        scope.set_item(intern!(py, "query_string"), PyBytes::new(py, facts.query().as_bytes()))?;
        scope.set_item(intern!(py, "headers"), self.headers(py, facts)?)?;
        scope.set_item(intern!(py, "client"), self.client(py, facts)?)?;
        scope.set_item(intern!(py, "server"), self.server(py, facts)?)?;
        if let Some(state) = state {
            scope.set_item(intern!(py, "state"), state.copy()?)?;
        }
        Ok(())
    }

    /// Each scope has one of its own: an application may write into it.
    fn asgi<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let asgi = self.asgi.get_or_try_init(py, || {
            let asgi = PyDict::new(py);
            asgi.set_item("version", "3.0")?;
            asgi.set_item("spec_version", SPEC_VERSION)?;
            Ok::<_, PyErr>(asgi.unbind())
        })?;
        asgi.bind(py).copy()
    }

    fn client<'py>(&self, py: Python<'py>, facts: Facts<'_>) -> PyResult<Option<Bound<'py, PyTuple>>> {
        let Some(client) = facts.client() else { return Ok(None) };
        // The ports of clients that are connected at the same time are mostly different.
        self.address(py, client, usize::from(client.port()) % CLIENTS).map(Some)
    }

    fn server<'py>(&self, py: Python<'py>, facts: Facts<'_>) -> PyResult<Option<Bound<'py, PyTuple>>> {
        match facts.local() {
            Some(Address::Tcp(local)) => self.address(py, *local, SERVER).map(Some),
            Some(Address::Unix(Some(path))) => {
                (path.to_string_lossy(), py.None()).into_pyobject(py).map(Some)
            }
            Some(Address::Unix(None)) | None => Ok(None),
        }
    }

    /// The tuple of an address, made anew where the slot has that of another.
    fn address<'py>(
        &self,
        py: Python<'py>,
        address: SocketAddr,
        slot: usize,
    ) -> PyResult<Bound<'py, PyTuple>> {
        let known = || self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Some((known, tuple))) = known().get(slot)
            && *known == address
        {
            return Ok(tuple.bind(py).clone());
        }
        let tuple = (address.ip().to_string(), address.port()).into_pyobject(py)?;
        let before = {
            let mut known = known();
            if known.is_empty() {
                known.resize_with(SERVER + 1, || None);
            }
            known.get_mut(slot).and_then(|slot| slot.replace((address, tuple.clone().unbind())))
        };
        drop(before);
        Ok(tuple)
    }
}

/// Whether trailers reach the client: it must ask for them (ASGI "HTTP Trailers", RFC 9110 section 6.5.1), in a version
/// that has a place for them. Over HTTP/1.1 only those go out that the response's `Trailer` header names.
pub(super) fn takes_trailers(parts: &Parts) -> bool {
    let mut lines = parts.headers.get_all(header::TE).iter().filter_map(|line| line.to_str().ok());
    parts.version >= Version::HTTP_11
        && lines.any(|line| line.split(',').any(|coding| coding.trim().eq_ignore_ascii_case("trailers")))
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

fn http_version(py: Python<'_>, version: Version) -> &Bound<'_, PyString> {
    match version {
        Version::HTTP_09 | Version::HTTP_10 => intern!(py, "1.0"),
        Version::HTTP_2 => intern!(py, "2"),
        Version::HTTP_3 => intern!(py, "3"),
        _ => intern!(py, "1.1"),
    }
}

fn method<'py>(py: Python<'py>, method: &Method) -> Bound<'py, PyString> {
    match *method {
        Method::GET => intern!(py, "GET").clone(),
        Method::POST => intern!(py, "POST").clone(),
        _ => PyString::new(py, method.as_str()),
    }
}

/// A header of a request, as Python has it.
type Pair = Py<PyTuple>;

/// Pairs of headers that were seen of late: clients send the same ones again and again.
struct Pairs(Vec<Option<(HeaderName, Box<[u8]>, Pair)>>);

/// How many pairs are remembered.
const PAIRS: usize = 512;
/// Longer values are seldom the same twice.
const LONGEST_VALUE: usize = 200;

impl Scopes {
    /// Names are lowercase already; the host that was asked for stands first, whatever way the client said it.
    fn headers<'py>(&self, py: Python<'py>, facts: Facts<'_>) -> PyResult<Bound<'py, PyList>> {
        let mut all = Vec::with_capacity(facts.parts.headers.len() + 1);
        if let Some(host) = facts.host() {
            all.push(self.pair(py, &header::HOST, &host)?);
        }
        for (name, value) in &facts.parts.headers {
            if name != header::HOST {
                all.push(self.pair(py, name, value.as_bytes())?);
            }
        }
        PyList::new(py, all)
    }

    fn pair<'py>(&self, py: Python<'py>, name: &HeaderName, value: &[u8]) -> PyResult<Bound<'py, PyTuple>> {
        let make = || (PyBytes::new(py, name.as_str().as_bytes()), PyBytes::new(py, value)).into_pyobject(py);
        // What is confidential is kept by nobody for longer than its request.
        let confidential = [header::COOKIE, header::AUTHORIZATION, header::PROXY_AUTHORIZATION];
        if value.len() > LONGEST_VALUE || confidential.contains(name) {
            return make();
        }
        let mut hasher = FxHasher::default();
        name.hash(&mut hasher);
        hasher.write(value);
        let slot = usize::try_from(hasher.finish() % PAIRS as u64).unwrap_or_default();
        let pairs = || self.pairs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Some((known, same, pair))) = pairs().0.get(slot)
            && known == name
            && **same == *value
        {
            return Ok(pair.bind(py).clone());
        }
        let pair = make()?;
        let before = {
            let entry = (name.clone(), Box::from(value), pair.clone().unbind());
            let mut pairs = pairs();
            if pairs.0.is_empty() {
                pairs.0.resize_with(PAIRS, || None);
            }
            pairs.0.get_mut(slot).and_then(|slot| slot.replace(entry))
        };
        drop(before);
        Ok(pair)
    }
}
