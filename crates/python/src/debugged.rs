//! Threads that Python did not start, made known to debuggers.

use pyo3::ffi::c_str;
use pyo3::prelude::*;

use crate::embedded::Embedded;

static MODULE: Embedded = Embedded::new(c"_hawksbill_debugged", c_str!(include_str!("debugged.py")));

/// Has a debugger stop on this thread as on one of Python's own. To be called once, where it first runs an application's code.
pub(crate) fn begin_thread(py: Python<'_>, name: &str) {
    let begun = MODULE.get(py).and_then(|module| module.call_method1("begin", (name,)));
    if let Err(error) = begun {
        // The application is served all the same.
        tracing::debug!(target: "hawksbill::app", "{name}: no debugger will stop here: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_for_new_threads_are_set_and_the_thread_is_listed() {
        Python::initialize();
        let code = c"import threading
calls = []
def trace(frame, event, arg):
    if frame.f_code.co_name == 'traced':
        calls.append((event, threading.current_thread().name))
def traced(): pass
def listed(): return [thread.name for thread in threading.enumerate()]
";
        let module =
            Python::attach(|py| PyModule::from_code(py, code, c"t.py", c"_traced").unwrap().unbind());
        let elsewhere = |name: &'static str| {
            std::thread::scope(|scope| {
                let run = || {
                    Python::attach(|py| {
                        begin_thread(py, name);
                        let module = module.bind(py);
                        module.call_method0("traced").unwrap();
                        let listed: Vec<String> = module.call_method0("listed").unwrap().extract().unwrap();
                        let calls: Vec<(String, String)> =
                            module.getattr("calls").unwrap().extract().unwrap();
                        (listed.iter().any(|other| other == name), calls)
                    })
                };
                scope.spawn(run).join().unwrap()
            })
        };
        assert_eq!(elsewhere("no debugger"), (false, Vec::new()));
        let set = |what: &str| {
            Python::attach(|py| {
                let trace = if what == "trace" {
                    module.bind(py).getattr("trace").unwrap()
                } else {
                    py.None().into_bound(py)
                };
                py.import("threading").unwrap().call_method1("settrace", (trace,)).unwrap();
            });
        };
        set("trace");
        let seen = elsewhere("debugged 1");
        set("nothing");
        assert_eq!(seen, (true, vec![("call".to_owned(), "debugged 1".to_owned())]));
    }
}
