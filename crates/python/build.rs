//! Lets the tests of this crate find the interpreter's shared library where it was when they were linked.

fn main() {
    pyo3_build_config::add_libpython_rpath_link_args();
}
