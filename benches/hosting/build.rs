//! Lets the bench find the interpreter's shared library where it was when it was linked.

fn main() {
    pyo3_build_config::add_libpython_rpath_link_args();
}
