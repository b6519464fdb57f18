//! Modules of our own that are written in Python.

use std::ffi::CStr;

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

/// A module that is made of code carried in the program, when it is first asked for.
///
/// `sys.modules` would not do: it shows a module while its code still runs, and another thread would find half of it.
pub(crate) struct Embedded {
    name: &'static CStr,
    code: &'static CStr,
    made: PyOnceLock<Py<PyModule>>,
}

impl Embedded {
    pub(crate) const fn new(name: &'static CStr, code: &'static CStr) -> Self {
        Self { name, code, made: PyOnceLock::new() }
    }

    /// The module; others who ask meanwhile wait until its code has run.
    pub(crate) fn get<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyModule>> {
        let make = || PyModule::from_code(py, self.code, self.name, self.name).map(Bound::unbind);
        Ok(self.made.get_or_try_init(py, make)?.bind(py).clone())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::thread;

    use super::*;

    #[test]
    fn nobody_finds_half_a_module() {
        static SLOW: Embedded =
            Embedded::new(c"_hawksbill_slow", c"import time\ntime.sleep(0.2)\nwhole = True\n");
        Python::initialize();
        let together = Barrier::new(4);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    together.wait();
                    Python::attach(|py| assert!(SLOW.get(py).unwrap().hasattr("whole").unwrap()));
                });
            }
        });
    }
}
