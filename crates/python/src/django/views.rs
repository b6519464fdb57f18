//! Which requests of a project are for asynchronous views.
//!
//! Most are known not to be by how their path begins. The others are looked up as Django itself would, on a thread of their
//! own; where a path always leads to the same view, what was found is remembered.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::request::Parts;
use pyo3::prelude::*;
use tokio::sync::oneshot;

use crate::facts::Facts;
use crate::failure::Failure;
use crate::pool::{Pool, Work};
use crate::thread;

/// The most paths that are remembered.
const MOST_PATHS: usize = 4096;
/// How long a stop waits for a lookup.
const STOP: Duration = Duration::from_secs(1);

/// What the project says of its asynchronous views.
pub(super) struct Asked {
    /// Called with a path, it says whether its view is asynchronous.
    pub(super) is_asynchronous: Py<PyAny>,
    /// Each asynchronous view's path begins with one of these.
    pub(super) prefixes: Vec<String>,
    /// Whether a path always leads to the same view.
    pub(super) steady: bool,
}

/// The asynchronous views of a project.
pub(super) struct Views {
    prefixes: Vec<String>,
    known: Option<Mutex<HashMap<String, bool>>>,
    lookups: Pool<Lookups>,
}

struct Lookups {
    name: String,
    /// Empty once the project is stopped.
    is_asynchronous: Mutex<Option<Py<PyAny>>>,
}

struct Lookup {
    path: String,
    found: oneshot::Sender<bool>,
}

impl Views {
    pub(super) fn new(name: &str, asked: Asked, most_waiting: usize) -> Self {
        let lookups =
            Lookups { name: name.to_owned(), is_asynchronous: Mutex::new(Some(asked.is_asynchronous)) };
        Self {
            prefixes: asked.prefixes,
            known: asked.steady.then(Mutex::default),
            lookups: Pool::new(&format!("urls-{name}"), lookups, 1, most_waiting),
        }
    }

    /// Whether the view of a request is asynchronous. One that cannot be looked up is not: WSGI serves every view.
    pub(super) async fn is_asynchronous(&self, request: &Parts) -> bool {
        let Some(path) = self.candidate(request) else { return false };
        if let Some(known) = self.known(&path) {
            return known;
        }
        let (found, is_found) = oneshot::channel();
        if self.lookups.submit(Lookup { path: path.clone(), found }).is_err() {
            return false;
        }
        let Ok(found) = is_found.await else { return false };
        self.remember(path, found);
        found
    }

    /// The path of a request as Django sees it, if its view may be asynchronous.
    fn candidate(&self, request: &Parts) -> Option<String> {
        let (_, path) = Facts::new(request).split_path();
        let path = String::from_utf8_lossy(&path);
        self.prefixes.iter().any(|prefix| path.starts_with(&**prefix)).then(|| path.into_owned())
    }

    fn known(&self, path: &str) -> Option<bool> {
        let known = self.known.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(path).copied()
    }

    fn remember(&self, path: String, found: bool) {
        let Some(known) = &self.known else { return };
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST_PATHS {
            known.clear();
        }
        known.insert(path, found);
    }

    pub(super) async fn stop(&self) {
        self.lookups.stop(STOP).await;
        let asked = self.lookups.work().is_asynchronous.lock().unwrap_or_else(PoisonError::into_inner).take();
        thread::release(asked).await;
    }
}

impl Work for Lookups {
    type Job = Lookup;
    type Local = Py<PyAny>;
    type Trace = ();

    fn begin(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        let asked = self.is_asynchronous.lock().unwrap_or_else(PoisonError::into_inner);
        asked.as_ref().map(|asked| asked.clone_ref(py))
    }

    fn trace(&self, _: &Lookup) -> Option<()> {
        None
    }

    fn run(&self, py: Python<'_>, asked: &mut Py<PyAny>, job: Lookup) {
        let found = asked.bind(py).call1((&job.path,)).and_then(|found| found.is_truthy());
        let found = found.unwrap_or_else(|error| {
            Failure::new(py, &error).log(&self.name, &job.path);
            false
        });
        let _ = job.found.send(found);
    }
}
