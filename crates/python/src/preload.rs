//! What is loaded before a process is forked, found again in the new one; and whether it outlives that.

use std::any::Any;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use hawksbill::cli::Preloading;
use pyo3::exceptions::PyOSError;
use pyo3::ffi::c_str;
use pyo3::prelude::*;

use crate::embedded::Embedded;
use crate::failure::Failure;

static MODULE: Embedded = Embedded::new(c"_hawksbill_preload", c_str!(include_str!("preload.py")));

/// What the command line needs of Python for preloading.
pub(crate) const PRELOADING: Preloading = Preloading { begin, settle, check, fork };

static STORE: Mutex<Store> = Mutex::new(Store { keeps: false, kept: BTreeMap::new() });

struct Store {
    /// Whether what is loaded is for processes that will be forked.
    keeps: bool,
    /// What was loaded, by what it is.
    kept: BTreeMap<String, Box<dyn Any + Send>>,
}

fn store() -> MutexGuard<'static, Store> {
    STORE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What was loaded for this before the process was forked.
pub(crate) fn take<T: Send + 'static>(what: &str) -> Option<T> {
    let found = store().kept.remove(what)?;
    // One name, one type.
    found.downcast().ok().map(|found| *found)
}

/// Keeps what was loaded for those that are forked; gives it back where nobody is.
pub(crate) fn keep<T: Send + 'static>(what: Option<String>, found: T) -> Option<T> {
    let mut store = store();
    match what.filter(|_| store.keeps) {
        Some(what) => drop(store.kept.insert(what, Box::new(found))),
        None => return Some(found),
    }
    None
}

fn begin() -> Result<(), String> {
    store().keeps = true;
    ask("begin").map(drop)
}

fn settle() -> Result<(), String> {
    refused(ask("settle"))
}

fn check() -> Result<(), String> {
    refused(ask("check"))
}

/// Calls a function of the module that says what is wrong, if anything is.
fn ask(name: &str) -> Result<Option<String>, String> {
    let asked = Python::try_attach(|py| -> PyResult<Option<String>> {
        MODULE.get(py)?.call_method0(name)?.extract()
    });
    match asked {
        Some(Ok(said)) => Ok(said),
        Some(Err(error)) => Err(Python::attach(|py| Failure::new(py, &error).traceback)),
        None => Err("the Python interpreter cannot be used any more".to_owned()),
    }
}

fn refused(asked: Result<Option<String>, String>) -> Result<(), String> {
    asked?.map_or(Ok(()), Err)
}

/// Forks as Python does: its locks, its random numbers and whatever the application has registered
/// (`os.register_at_fork`) are put in order.
fn fork() -> io::Result<i32> {
    let forked =
        Python::try_attach(|py| -> PyResult<i32> { py.import("os")?.call_method0("fork")?.extract() });
    match forked {
        Some(Ok(pid)) => {
            // What the new process loads is for itself.
            store().keeps = pid != 0;
            Ok(pid)
        }
        Some(Err(error)) => Err(Python::attach(|py| {
            let number = error.is_instance_of::<PyOSError>(py);
            let number =
                number.then(|| error.value(py).getattr("errno").and_then(|number| number.extract()).ok());
            number.flatten().map_or_else(|| io::Error::other(error.to_string()), io::Error::from_raw_os_error)
        })),
        None => Err(io::Error::other("the Python interpreter cannot be used any more")),
    }
}
