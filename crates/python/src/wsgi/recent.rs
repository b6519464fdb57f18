//! What a connection asked before, so that its next environ is a copy with the differences.
//!
//! A browser sends the same dozen of headers with each request of a connection. Made anew, their strings are most of an
//! environ's cost; compared byte by byte with those of the last request, next to nothing. A thread keeps this for some
//! connections, from their second request on.

use http::header::{HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Version};
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// How many connections a thread keeps this for. Their numbers follow each other, so the latest have a slot each.
const CONNECTIONS: usize = 256;
/// Heads with more than so many bytes in their values are not kept.
const LARGEST: usize = 4 * 1024;

/// The connections of a thread.
#[derive(Debug, Default)]
pub(super) struct Recent(Vec<Slot>);

#[derive(Debug, Default)]
struct Slot {
    connection: u64,
    last: Option<Last>,
}

/// A request and its environ.
#[derive(Debug)]
pub(super) struct Last {
    pub(super) environ: Py<PyDict>,
    pub(super) method: Method,
    pub(super) version: Version,
    pub(super) target: String,
    names: Vec<HeaderName>,
    /// The values, one after the other. What the server read is not held: its buffers are larger.
    values: Vec<u8>,
    ends: Vec<usize>,
}

/// What is known of a connection.
pub(super) enum Known<'a> {
    /// Nothing, and it is not worth while yet.
    Nothing,
    /// It is worth while to keep this request.
    Keep(&'a mut Option<Last>),
    /// A request with headers of the same names in the same order.
    Alike(&'a Last),
}

impl Recent {
    /// What is known of the connection with this number.
    pub(super) fn of(&mut self, connection: u64, parts: &Parts) -> Known<'_> {
        if self.0.is_empty() {
            self.0.resize_with(CONNECTIONS, Slot::default);
        }
        // Less than the length, which is a usize.
        let index = usize::try_from(connection % CONNECTIONS as u64).unwrap_or_default();
        let slot = &mut self.0[index];
        if slot.connection != connection {
            *slot = Slot { connection, last: None };
            return Known::Nothing;
        }
        if slot.last.as_ref().is_some_and(|last| last.has_names(parts)) {
            return slot.last.as_ref().map_or(Known::Nothing, Known::Alike);
        }
        Known::Keep(&mut slot.last)
    }
}

impl Last {
    /// Keeps a copy of an environ, unless its request is an unusual one.
    pub(super) fn of(environ: &Bound<'_, PyDict>, parts: &Parts) -> PyResult<Option<Self>> {
        let headers = &parts.headers;
        let length: usize = headers.values().map(HeaderValue::len).sum();
        // Values of one name are joined in an environ.
        if headers.keys_len() != headers.len() || length > LARGEST {
            return Ok(None);
        }
        let target = parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        let mut values = Vec::with_capacity(length);
        let ends = headers
            .values()
            .map(|value| {
                values.extend_from_slice(value.as_bytes());
                values.len()
            })
            .collect();
        Ok(Some(Self {
            environ: environ.copy()?.unbind(),
            method: parts.method.clone(),
            version: parts.version,
            target: target.to_owned(),
            names: headers.keys().cloned().collect(),
            values,
            ends,
        }))
    }

    fn has_names(&self, parts: &Parts) -> bool {
        self.names.len() == parts.headers.len() && self.names.iter().eq(parts.headers.keys())
    }

    /// The headers of a request with the same names that have other values now.
    pub(super) fn differing<'a>(&self, parts: &'a Parts) -> impl Iterator<Item = (&'a HeaderName, &'a [u8])> {
        let mut start = 0;
        parts.headers.iter().zip(&self.ends).filter_map(move |((name, value), end)| {
            let before = &self.values[start..*end];
            start = *end;
            (before != value.as_bytes()).then_some((name, value.as_bytes()))
        })
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn parts(headers: &[(&str, &str)]) -> Parts {
        let request = Request::get("/a?b");
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn the_third_request_is_compared_with_the_second() {
        Python::initialize();
        Python::attach(|py| {
            let mut recent = Recent::default();
            let request = parts(&[("host", "a"), ("cookie", "x=1"), ("accept", "*/*")]);
            assert!(matches!(recent.of(7, &request), Known::Nothing));
            let Known::Keep(slot) = recent.of(7, &request) else { panic!("it is the second request") };
            *slot = Last::of(&PyDict::new(py), &request).unwrap();
            let Known::Alike(last) = recent.of(7, &request) else { panic!("it is the same request") };
            assert_eq!(last.differing(&request).count(), 0);
            let other = parts(&[("host", "a"), ("cookie", "x=22"), ("accept", "*/*")]);
            let Known::Alike(last) = recent.of(7, &other) else { panic!("it has the same names") };
            let differing: Vec<_> = last.differing(&other).collect();
            assert_eq!(differing, [(&http::header::COOKIE, &b"x=22"[..])]);
            for others in
                [parts(&[("host", "a"), ("accept", "*/*"), ("cookie", "x")]), parts(&[("host", "a")])]
            {
                assert!(matches!(recent.of(7, &others), Known::Keep(_)));
            }
            // Another connection in the same slot.
            assert!(matches!(recent.of(7 + CONNECTIONS as u64, &request), Known::Nothing));
            assert!(matches!(recent.of(7, &request), Known::Nothing));
        });
    }

    #[test]
    fn unusual_requests_are_not_kept() {
        Python::initialize();
        Python::attach(|py| {
            let large = "x".repeat(LARGEST + 1);
            for request in [parts(&[("cookie", "a"), ("cookie", "b")]), parts(&[("cookie", &large)])] {
                assert!(Last::of(&PyDict::new(py), &request).unwrap().is_none());
            }
        });
    }
}
