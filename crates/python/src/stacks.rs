//! Where the Python code of this process stands, as text, asked for from anywhere.
//!
//! Whoever asks never waits for the interpreter itself: a thread of its own does, and is left behind where some extension
//! keeps the interpreter to itself.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use pyo3::ffi::c_str;
use pyo3::prelude::*;

use crate::embedded::Embedded;

static MODULE: Embedded = Embedded::new(c"_hawksbill_stacks", c_str!(include_str!("stacks.py")));

/// How long the interpreter is waited for.
const PATIENCE: Duration = Duration::from_secs(3);
/// The most bytes of a text; it is cut behind them.
const MOST: usize = 64 * 1024;

/// The threads that Python did not start, by what Python calls them.
static NAMES: Mutex<BTreeMap<u64, String>> = Mutex::new(BTreeMap::new());
/// Whether somebody looks already, so that one left-behind thread at most waits for the interpreter.
static BUSY: AtomicBool = AtomicBool::new(false);
/// How often it is seen whether he is done.
const AGAIN: Duration = Duration::from_millis(5);

/// As long as it lives, the stacks call this thread by its name.
pub(crate) struct Named(u64);

/// A task of an event loop, to be had when attached.
pub(crate) type Task = Box<dyn FnOnce(Python<'_>) -> Option<Py<PyAny>> + Send>;

/// Where something runs.
pub(crate) enum Place {
    /// On the thread of this [name](name_here).
    Thread(String),
    /// In a task.
    Task(Task),
}

/// Where something stood.
#[derive(Debug, Default)]
pub(crate) struct Sampled {
    /// The thread's name; empty for a task.
    pub(crate) thread: String,
    /// Its stack, or why there is none.
    pub(crate) stack: String,
    /// The innermost line that is no library's: `views.py:31 in report`.
    pub(crate) frame: String,
}

const HELD: &str = "the interpreter is not let go; an extension computes, or hangs, without releasing it";

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Stacks {
    /// Where each of the tasks waits that were asked for.
    pub(crate) tasks: Vec<String>,
    /// Where everything is.
    pub(crate) all: String,
}

/// Names the thread that this is called on.
pub(crate) fn name_here(py: Python<'_>, name: impl Into<String>) -> PyResult<Named> {
    let here = py.import("threading")?.call_method0("get_ident")?.extract()?;
    names().insert(here, name.into());
    Ok(Named(here))
}

/// Has the tasks of an event loop shown, too.
pub(crate) fn know(event_loop: &Bound<'_, PyAny>) -> PyResult<()> {
    MODULE.get(event_loop.py())?.call_method1("know", (event_loop,)).map(drop)
}

/// The stacks of all threads and tasks.
pub(crate) fn all() -> String {
    all_of(look(|py| {
        let module = MODULE.get(py)?;
        let mut text = threads(&module)?;
        text.push_str(&module.call_method0("tasks")?.extract::<String>()?);
        Ok(Stacks { tasks: Vec::new(), all: bounded(text) })
    }))
    .all
}

/// The stacks of all threads, and of these tasks.
pub(crate) fn of(tasks: Vec<Task>) -> Stacks {
    all_of(look(move |py| {
        let module = MODULE.get(py)?;
        let tasks = tasks.into_iter().map(|task| match task(py) {
            Some(task) => module.call_method1("task", (task,))?.extract(),
            None => Ok(String::new()),
        });
        Ok(Stacks { tasks: tasks.collect::<PyResult<_>>()?, all: bounded(threads(&module)?) })
    }))
}

/// Where these stand, one after the other.
pub(crate) fn sample(places: Vec<Place>) -> Vec<Sampled> {
    let count = places.len();
    let found = look(move |py| {
        let module = MODULE.get(py)?;
        places.into_iter().map(|place| sample_one(&module, place)).collect()
    });
    found.unwrap_or_else(|reason| {
        let none = || Sampled { stack: format!("no stack: {reason}"), ..Sampled::default() };
        std::iter::repeat_with(none).take(count).collect()
    })
}

fn sample_one(module: &Bound<'_, PyModule>, place: Place) -> PyResult<Sampled> {
    let (thread, found) = match place {
        Place::Thread(name) => {
            let ident = names().iter().find(|(_, known)| **known == name).map(|(ident, _)| *ident);
            let found = ident.map(|ident| module.call_method1("thread_at", (ident,))).transpose()?;
            (name, found)
        }
        Place::Task(task) => {
            let task = task(module.py());
            (String::new(), task.map(|task| module.call_method1("task_at", (task,))).transpose()?)
        }
    };
    let (stack, frame) = match found {
        Some(found) => found.extract::<(String, String)>()?,
        None => Default::default(),
    };
    let stack = if stack.is_empty() { "no stack: it runs no Python code".to_owned() } else { bounded(stack) };
    Ok(Sampled { thread, stack, frame })
}

fn all_of(found: Result<Stacks, String>) -> Stacks {
    found.unwrap_or_else(|reason| Stacks { tasks: Vec::new(), all: format!("no stacks: {reason}\n") })
}

fn look<T: Send + 'static>(
    ask: impl FnOnce(Python<'_>) -> PyResult<T> + Send + 'static,
) -> Result<T, String> {
    let began = Instant::now();
    while BUSY.swap(true, Ordering::AcqRel) {
        if began.elapsed() > PATIENCE {
            return Err(HELD.to_owned());
        }
        thread::sleep(AGAIN);
    }
    let (sender, receiver) = mpsc::sync_channel(1);
    let run = move || {
        let found = Python::try_attach(|py| ask(py).map_err(|error| error.to_string()));
        BUSY.store(false, Ordering::Release);
        let gone = || Err("the interpreter is gone".to_owned());
        let _ = sender.send(found.unwrap_or_else(gone));
    };
    if let Err(error) = thread::Builder::new().name("stacks".into()).spawn(run) {
        BUSY.store(false, Ordering::Release);
        return Err(error.to_string());
    }
    match receiver.recv_timeout(PATIENCE) {
        Ok(found) => found,
        Err(mpsc::RecvTimeoutError::Timeout) => Err(HELD.to_owned()),
        Err(mpsc::RecvTimeoutError::Disconnected) => Err("the look at them ended in a panic".to_owned()),
    }
}

fn threads(module: &Bound<'_, PyModule>) -> PyResult<String> {
    let names = names().clone();
    module.call_method1("threads", (names,))?.extract()
}

fn bounded(mut text: String) -> String {
    if text.len() > MOST {
        let end = (0..=MOST).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.push_str("\n… (cut)\n");
    }
    text
}

fn names() -> MutexGuard<'static, BTreeMap<u64, String>> {
    NAMES.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Named {
    fn drop(&mut self) {
        names().remove(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_shown_by_its_name_with_where_it_stands() {
        Python::initialize();
        let (started, has_started) = mpsc::channel();
        let (go_on, wait) = mpsc::channel::<()>();
        let stuck = thread::spawn(move || {
            Python::attach(|py| {
                let _named = name_here(py, "stubborn").unwrap();
                let wait = Mutex::new(wait);
                let wait = pyo3::types::PyCFunction::new_closure(py, None, None, move |args, _| {
                    started.send(()).unwrap();
                    args.py().detach(|| wait.lock().unwrap().recv().unwrap_err());
                });
                let code = c"def view(wait):\n    wait()\n";
                let module = PyModule::from_code(py, code, c"shop/views.py", c"views").unwrap();
                module.call_method1("view", (wait.unwrap(),)).unwrap();
            });
        });
        has_started.recv().unwrap();
        let stacks = all();
        drop(go_on);
        stuck.join().unwrap();
        assert!(stacks.contains("thread stubborn:\n  File \"shop/views.py\", line 2, in view\n"), "{stacks}");
        assert!(!all().contains("stubborn"));
    }

    #[test]
    fn a_text_is_cut_between_characters() {
        let text = bounded("ü".repeat(MOST));
        assert!(text.len() < MOST + 32);
        assert!(text.ends_with("ü\n… (cut)\n"));
    }
}
