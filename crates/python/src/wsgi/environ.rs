//! The `environ` dictionary (PEP 3333, "environ Variables").
//!
//! What is the same for every request of an application stands in a template, which is copied; the keys are interned,
//! and those of common headers are made once.

use std::collections::HashMap;

use http::header::{self, HeaderMap, HeaderName};
use http::{Method, Version};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyString};

use super::input::Input;
use crate::convert::latin1;
use crate::facts::{Facts, protocol};

/// The part of an application's environ that no request changes.
#[derive(Debug)]
pub(crate) struct Template(Py<PyDict>);

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
        environ.set_item("wsgi.file_wrapper", py.import("wsgiref.util")?.getattr("FileWrapper")?)?;
        environ.set_item("GATEWAY_INTERFACE", "CGI/1.1")?;
        environ.set_item("SERVER_SOFTWARE", concat!("hawksbill/", env!("CARGO_PKG_VERSION")))?;
        Ok(Self(environ.unbind()))
    }

    /// The environ of one request.
    pub(crate) fn environ<'py>(
        &self,
        facts: Facts<'_>,
        input: Bound<'py, Input>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let py = input.py();
        let environ = self.0.bind(py).copy()?;
        environ.set_item(intern!(py, "wsgi.input"), input)?;
        environ.set_item(intern!(py, "wsgi.url_scheme"), scheme(py, facts))?;
        environ.set_item(intern!(py, "REQUEST_METHOD"), method(py, &facts.parts.method))?;
        environ.set_item(intern!(py, "SERVER_PROTOCOL"), version(py, facts.parts.version))?;
        set_target(py, &environ, facts)?;
        set_addresses(py, &environ, facts)?;
        set_headers(py, &environ, facts)?;
        Ok(environ)
    }
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
    environ.set_item(intern!(py, "SCRIPT_NAME"), latin1(py, &script_name)?)?;
    environ.set_item(intern!(py, "PATH_INFO"), latin1(py, &path_info)?)?;
    environ.set_item(intern!(py, "QUERY_STRING"), latin1(py, facts.query().as_bytes())?)?;
    let target = match facts.parts.uri.path_and_query() {
        Some(target) => latin1(py, target.as_str().as_bytes())?,
        None => intern!(py, "/").clone(),
    };
    environ.set_item(intern!(py, "REQUEST_URI"), &target)?;
    environ.set_item(intern!(py, "RAW_URI"), target)
}

fn set_addresses(py: Python<'_>, environ: &Bound<'_, PyDict>, facts: Facts<'_>) -> PyResult<()> {
    let (name, port) = facts.server();
    environ.set_item(intern!(py, "SERVER_NAME"), latin1(py, &name)?)?;
    environ.set_item(intern!(py, "SERVER_PORT"), port.to_string())?;
    match facts.client() {
        Some(client) => {
            environ.set_item(intern!(py, "REMOTE_ADDR"), client.ip().to_string())?;
            if client.port() != 0 {
                environ.set_item(intern!(py, "REMOTE_PORT"), client.port().to_string())?;
            }
        }
        // RFC 3875 wants a REMOTE_ADDR; on a Unix socket there is none.
        None => environ.set_item(intern!(py, "REMOTE_ADDR"), intern!(py, ""))?,
    }
    Ok(())
}

fn set_headers(py: Python<'_>, environ: &Bound<'_, PyDict>, facts: Facts<'_>) -> PyResult<()> {
    let keys = common_keys(py)?;
    let headers = &facts.parts.headers;
    for name in headers.keys() {
        // A name with an underscore would be taken for one with a hyphen; `Proxy` for the variable (httpoxy).
        if name.as_str().contains('_') || name == "proxy" || name == header::HOST {
            continue;
        }
        let value = joined(py, headers, name)?;
        match keys.get(name) {
            Some(key) => environ.set_item(key, value)?,
            None => environ.set_item(key(name), value)?,
        }
    }
    if let Some(host) = facts.host() {
        environ.set_item(intern!(py, "HTTP_HOST"), latin1(py, &host)?)?;
    }
    Ok(())
}

/// All values of a name as one: `Cookie` by `; ` (RFC 9113 section 8.2.3), others by `, ` (RFC 9110 section 5.3).
fn joined<'py>(py: Python<'py>, headers: &HeaderMap, name: &HeaderName) -> PyResult<Bound<'py, PyString>> {
    let mut values = headers.get_all(name).iter();
    let first = values.next().map_or(&b""[..], |value| value.as_bytes());
    let Some(second) = values.next() else { return latin1(py, first) };
    let separator: &[u8] = if name == header::COOKIE { b"; " } else { b", " };
    let mut all = first.to_vec();
    for value in std::iter::once(second).chain(values) {
        all.extend_from_slice(separator);
        all.extend_from_slice(value.as_bytes());
    }
    latin1(py, &all)
}

fn key(name: &HeaderName) -> String {
    if *name == header::CONTENT_TYPE {
        return "CONTENT_TYPE".into();
    }
    if *name == header::CONTENT_LENGTH {
        return "CONTENT_LENGTH".into();
    }
    let mut key = String::with_capacity("HTTP_".len() + name.as_str().len());
    key.push_str("HTTP_");
    key.extend(name.as_str().chars().map(|c| if c == '-' { '_' } else { c.to_ascii_uppercase() }));
    key
}

fn common_keys(py: Python<'_>) -> PyResult<&HashMap<HeaderName, Py<PyString>>> {
    static KEYS: PyOnceLock<HashMap<HeaderName, Py<PyString>>> = PyOnceLock::new();
    const COMMON: [&str; 40] = [
        "accept",
        "accept-encoding",
        "accept-language",
        "access-control-request-headers",
        "access-control-request-method",
        "authorization",
        "cache-control",
        "connection",
        "content-length",
        "content-type",
        "cookie",
        "dnt",
        "expect",
        "forwarded",
        "if-match",
        "if-modified-since",
        "if-none-match",
        "if-range",
        "origin",
        "pragma",
        "priority",
        "range",
        "referer",
        "sec-ch-ua",
        "sec-ch-ua-mobile",
        "sec-ch-ua-platform",
        "sec-fetch-dest",
        "sec-fetch-mode",
        "sec-fetch-site",
        "sec-fetch-user",
        "te",
        "transfer-encoding",
        "upgrade",
        "upgrade-insecure-requests",
        "user-agent",
        "via",
        "x-csrftoken",
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-requested-with",
    ];
    KEYS.get_or_try_init(py, || {
        let interned = |name: &'static str| {
            let name = HeaderName::from_static(name);
            let key = PyString::intern(py, &key(&name)).unbind();
            (name, key)
        };
        Ok(COMMON.into_iter().map(interned).collect())
    })
}
