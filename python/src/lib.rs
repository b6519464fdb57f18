//! The extension module `hawksbill._core`: what [`hawksbill_python`] offers, under the name that Python imports.

#[global_allocator]
static ALLOCATOR: hawksbill_python::allocator::Allocator = hawksbill_python::allocator::Allocator;

#[pyo3::pymodule]
mod _core {
    #[pymodule_export]
    use hawksbill_python::surface::{
        ClientDisconnected, ConfigError, Running, StartError, main, request_id, start, tree,
    };

    /// The package's version.
    #[pymodule_init]
    fn init(module: &pyo3::Bound<'_, pyo3::types::PyModule>) -> pyo3::PyResult<()> {
        use pyo3::types::PyModuleMethods;
        module.add("__version__", hawksbill_python::surface::VERSION)
    }
}
