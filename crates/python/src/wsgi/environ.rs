//! The `environ` dictionary (PEP 3333, "environ Variables").
//!
//! What is the same for every request of an application stands in a template, which is copied. What is the same for
//! many requests (the keys of headers, addresses, hosts) is made once a thread and kept, up to a bound.

use std::hash::Hash;
use std::net::IpAddr;

use http::header::{self, HeaderName, HeaderValue};
use http::{Method, Version};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use rustc_hash::FxHashMap;

use super::file::FileWrapper;
use super::input::Input;
use super::recent::{Known, Last, Recent};
use crate::convert::latin1;
use crate::facts::{Facts, protocol};

/// How many strings of each sort a thread keeps. Clients choose them, so beyond it the thread begins anew.
const KEPT: usize = 256;

/// The part of an application's environ that no request changes, and what a thread keeps of the rest.
#[derive(Debug)]
pub(crate) struct Template {
    environ: Py<PyDict>,
    /// `None` for a header that applications do not get.
    keys: Kept<HeaderName, Option<Py<PyString>>>,
    addresses: Kept<IpAddr, Py<PyString>>,
    hosts: Kept<Box<[u8]>, Host>,
    recent: Recent,
}

/// What a `Host` header stands for in an environ.
#[derive(Debug)]
struct Host {
    whole: Py<PyString>,
    name: Py<PyString>,
    port: Py<PyString>,
}

/// A map that forgets everything when it is full.
#[derive(Debug)]
struct Kept<K, V>(FxHashMap<K, V>);

impl<K: Eq + Hash, V> Kept<K, V> {
    fn new() -> Self {
        Self(FxHashMap::default())
    }

    fn insert(&mut self, key: K, value: V) {
        if self.0.len() >= KEPT {
            self.0.clear();
        }
        self.0.insert(key, value);
    }
}

impl Template {
    /// Made while attached, once a thread or an application.
    pub(crate) fn new(py: Python<'_>) -> PyResult<Self> {
        let environ = PyDict::new(py);
        environ.set_item("wsgi.version", (1, 0))?;
        environ.set_item("wsgi.errors", py.import("sys")?.getattr("stderr")?)?;
        environ.set_item("wsgi.multithread", true)?;
        environ.set_item("wsgi.multiprocess", false)?;
        environ.set_item("wsgi.run_once", false)?;
        environ.set_item("wsgi.input_terminated", true)?;
        environ.set_item("wsgi.file_wrapper", py.get_type::<FileWrapper>())?;
        environ.set_item("GATEWAY_INTERFACE", "CGI/1.1")?;
        environ.set_item("SERVER_SOFTWARE", concat!("hawksbill/", env!("CARGO_PKG_VERSION")))?;
        reserve(&environ)?;
        Ok(Self {
            environ: environ.unbind(),
            keys: Kept::new(),
            addresses: Kept::new(),
            hosts: Kept::new(),
            recent: Recent::default(),
        })
    }

    /// The environ of one request.
    pub(crate) fn environ<'py>(
        &mut self,
        facts: Facts<'_>,
        input: &Bound<'py, Input>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let mut recent = std::mem::take(&mut self.recent);
        let known = match facts.connection() {
            Some(connection) => recent.of(connection, facts.parts),
            None => Known::Nothing,
        };
        let environ = match known {
            Known::Nothing => self.whole(facts, input),
            Known::Keep(slot) => self.whole(facts, input).and_then(|environ| {
                *slot = Last::of(&environ, facts.parts)?;
                Ok(environ)
            }),
            Known::Alike(last) => self.differing(last, facts, input),
        };
        self.recent = recent;
        environ
    }

    fn whole<'py>(&mut self, facts: Facts<'_>, input: &Bound<'py, Input>) -> PyResult<Bound<'py, PyDict>> {
        let py = input.py();
        let environ = self.environ.bind(py).copy()?;
        environ.set_item(intern!(py, "wsgi.input"), input)?;
        environ.set_item(intern!(py, "wsgi.url_scheme"), scheme(py, facts))?;
        environ.set_item(intern!(py, "REQUEST_METHOD"), method(py, &facts.parts.method))?;
        environ.set_item(intern!(py, "SERVER_PROTOCOL"), version(py, facts.parts.version))?;
        set_target(py, &environ, facts)?;
        self.set_client(py, &environ, facts)?;
        self.set_server(py, &environ, facts)?;
        self.set_headers(py, &environ, facts)?;
        Ok(environ)
    }

    /// The environ of a request that is like another one of its connection.
    fn differing<'py>(
        &mut self,
        last: &Last,
        facts: Facts<'_>,
        input: &Bound<'py, Input>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let py = input.py();
        let environ = last.environ.bind(py).copy()?;
        environ.set_item(intern!(py, "wsgi.input"), input)?;
        if last.method != facts.parts.method {
            environ.set_item(intern!(py, "REQUEST_METHOD"), method(py, &facts.parts.method))?;
        }
        if last.version != facts.parts.version {
            environ.set_item(intern!(py, "SERVER_PROTOCOL"), version(py, facts.parts.version))?;
        }
        if last.target != facts.target() || facts.is_mounted() {
            set_target(py, &environ, facts)?;
        }
        for (name, value) in last.differing(facts.parts) {
            if *name == header::HOST {
                self.set_server(py, &environ, facts)?;
            } else if let Some(key) = self.key(py, name) {
                environ.set_item(key, latin1(py, value)?)?;
            }
        }
        Ok(environ)
    }

    fn set_client(&mut self, py: Python<'_>, environ: &Bound<'_, PyDict>, facts: Facts<'_>) -> PyResult<()> {
        let key = intern!(py, "REMOTE_ADDR");
        // RFC 3875 wants a REMOTE_ADDR; on a Unix socket there is none.
        let Some(client) = facts.client() else { return environ.set_item(key, intern!(py, "")) };
        if let Some(known) = self.addresses.0.get(&client.ip()) {
            environ.set_item(key, known)?;
        } else {
            let address = PyString::new(py, &client.ip().to_string());
            environ.set_item(key, &address)?;
            self.addresses.insert(client.ip(), address.unbind());
        }
        if client.port() != 0 {
            environ.set_item(intern!(py, "REMOTE_PORT"), decimal(py, client.port()))?;
        }
        Ok(())
    }

    fn set_server(&mut self, py: Python<'_>, environ: &Bound<'_, PyDict>, facts: Facts<'_>) -> PyResult<()> {
        let asked = facts.host();
        // The scheme decides on the port that is not named, and it is the same for nearly all requests of a host.
        let known = asked.as_deref().filter(|_| facts.scheme() == hawksbill_core::Scheme::Http);
        if let Some(known) = known.and_then(|host| self.hosts.0.get(host)) {
            return known.set(py, environ);
        }
        let (name, port) = facts.server();
        let (name, port) = (latin1(py, &name)?, decimal(py, port));
        let Some(host) = asked else {
            environ.set_item(intern!(py, "SERVER_NAME"), name)?;
            return environ.set_item(intern!(py, "SERVER_PORT"), port);
        };
        let whole = latin1(py, &host)?.unbind();
        let made = Host { whole, name: name.unbind(), port: port.unbind() };
        made.set(py, environ)?;
        // A host without a name stands for the socket, of which there may be several.
        let named = host.first().is_some_and(|byte| *byte != b':');
        if named && facts.scheme() == hawksbill_core::Scheme::Http {
            self.hosts.insert(host.into(), made);
        }
        Ok(())
    }

    fn set_headers(&mut self, py: Python<'_>, environ: &Bound<'_, PyDict>, facts: Facts<'_>) -> PyResult<()> {
        // The values of a name follow each other.
        let mut headers = facts.parts.headers.iter().peekable();
        while let Some((name, value)) = headers.next() {
            let mut joined: Option<Vec<u8>> = None;
            while let Some((_, further)) = headers.next_if(|(next, _)| *next == name) {
                join(joined.get_or_insert_with(|| value.as_bytes().to_vec()), name, further);
            }
            let value = joined.as_deref().unwrap_or(value.as_bytes());
            if let Some(key) = self.key(py, name) {
                environ.set_item(key, latin1(py, value)?)?;
            }
        }
        Ok(())
    }

    fn key(&mut self, py: Python<'_>, name: &HeaderName) -> Option<&Py<PyString>> {
        if *name == header::HOST {
            return None;
        }
        // Looked up twice only when it is made.
        if !self.keys.0.contains_key(name) {
            self.keys.insert(name.clone(), key(name).map(|key| PyString::intern(py, &key).unbind()));
        }
        self.keys.0.get(name)?.as_ref()
    }
}

/// Gives a template every key that each environ has, and room for more: a copy has the size of its original, so that
/// nothing has to grow while a request's environ is made.
fn reserve(environ: &Bound<'_, PyDict>) -> PyResult<()> {
    const ALWAYS: [&str; 13] = [
        "wsgi.input",
        "wsgi.url_scheme",
        "REQUEST_METHOD",
        "SERVER_PROTOCOL",
        "SCRIPT_NAME",
        "PATH_INFO",
        "QUERY_STRING",
        "REQUEST_URI",
        "RAW_URI",
        "REMOTE_ADDR",
        "SERVER_NAME",
        "SERVER_PORT",
        // With this one CPython makes room for 42.
        "hawksbill.room",
    ];
    for key in ALWAYS {
        environ.set_item(PyString::intern(environ.py(), key), environ.py().None())?;
    }
    environ.del_item("hawksbill.room")
}

impl Host {
    fn set(&self, py: Python<'_>, environ: &Bound<'_, PyDict>) -> PyResult<()> {
        environ.set_item(intern!(py, "SERVER_NAME"), &self.name)?;
        environ.set_item(intern!(py, "SERVER_PORT"), &self.port)?;
        environ.set_item(intern!(py, "HTTP_HOST"), &self.whole)
    }
}

fn decimal(py: Python<'_>, number: u16) -> Bound<'_, PyString> {
    let mut digits = [0; 5];
    let mut start = digits.len();
    let mut left = number;
    loop {
        start -= 1;
        digits[start] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    PyString::new(py, std::str::from_utf8(&digits[start..]).unwrap_or("0"))
}

fn scheme<'py>(py: Python<'py>, facts: Facts<'_>) -> &'py Bound<'py, PyString> {
    match facts.scheme() {
        hawksbill_core::Scheme::Http => intern!(py, "http"),
        hawksbill_core::Scheme::Https => intern!(py, "https"),
    }
}

fn method<'py>(py: Python<'py>, method: &Method) -> Bound<'py, PyString> {
    match *method {
        Method::GET => intern!(py, "GET").clone(),
        Method::POST => intern!(py, "POST").clone(),
        Method::HEAD => intern!(py, "HEAD").clone(),
        _ => PyString::new(py, method.as_str()),
    }
}

fn version(py: Python<'_>, version: Version) -> Bound<'_, PyString> {
    match version {
        Version::HTTP_11 => intern!(py, "HTTP/1.1").clone(),
        Version::HTTP_2 => intern!(py, "HTTP/2").clone(),
        other => PyString::new(py, protocol(other)),
    }
}

fn set_target(py: Python<'_>, environ: &Bound<'_, PyDict>, facts: Facts<'_>) -> PyResult<()> {
    let (script_name, path_info) = facts.split_path();
    let target = text(py, facts.target().as_bytes())?;
    // The usual target is a path that was not quoted, and nothing else.
    let path = if *path_info == *facts.target().as_bytes() { target.clone() } else { text(py, &path_info)? };
    environ.set_item(intern!(py, "SCRIPT_NAME"), text(py, &script_name)?)?;
    environ.set_item(intern!(py, "PATH_INFO"), path)?;
    environ.set_item(intern!(py, "QUERY_STRING"), text(py, facts.query().as_bytes())?)?;
    environ.set_item(intern!(py, "REQUEST_URI"), &target)?;
    environ.set_item(intern!(py, "RAW_URI"), target)
}

/// As [`latin1`], without making the shortest anew.
fn text<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyString>> {
    match bytes {
        b"" => Ok(intern!(py, "").clone()),
        b"/" => Ok(intern!(py, "/").clone()),
        _ => latin1(py, bytes),
    }
}

/// Another value of the same name: `Cookie` by `; ` (RFC 9113 section 8.2.3), others by `, ` (RFC 9110 section 5.3).
fn join(joined: &mut Vec<u8>, name: &HeaderName, value: &HeaderValue) {
    joined.extend_from_slice(if *name == header::COOKIE { b"; " } else { b", " });
    joined.extend_from_slice(value.as_bytes());
}

/// The key of a header; `None` for one that is left out. A name with an underscore would be taken for one with a
/// hyphen, `Proxy` for the variable (httpoxy); `Host` is set from what was asked for.
fn key(name: &HeaderName) -> Option<String> {
    if name.as_str().contains('_') || name == "proxy" || name == header::HOST {
        return None;
    }
    if *name == header::CONTENT_TYPE {
        return Some("CONTENT_TYPE".into());
    }
    if *name == header::CONTENT_LENGTH {
        return Some("CONTENT_LENGTH".into());
    }
    let mut key = String::with_capacity("HTTP_".len() + name.as_str().len());
    key.push_str("HTTP_");
    key.extend(name.as_str().chars().map(|c| if c == '-' { '_' } else { c.to_ascii_uppercase() }));
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_in_decimal() {
        Python::initialize();
        Python::attach(|py| {
            for port in [0, 7, 80, 443, 8000, 65535] {
                assert_eq!(decimal(py, port).to_str().unwrap(), port.to_string());
            }
        });
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut kept = Kept::new();
        for number in 0..10_000 {
            kept.insert(number, ());
            assert!(kept.0.len() <= KEPT);
        }
        assert!(kept.0.contains_key(&9_999));
    }
}
