//! Bytes of Python that go out without a copy.

use std::slice;

use bytes::Bytes;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// Shorter ones are copied faster than they are lent.
const SHORTEST: usize = 4 * 1024;
/// A lent object is freed when Python next runs, so what may wait for that is bounded.
const LONGEST: usize = 128 * 1024;

/// A `bytes` object that somebody reads who is not attached.
struct Lent {
    start: *const u8,
    length: usize,
    /// Keeps the memory in its place.
    _object: Py<PyBytes>,
}

#[allow(unsafe_code, reason = "the pointer is to memory that never changes and that the object keeps")]
// SAFETY: a `bytes` object is immutable and its memory stays where it is as long as there is a reference to it, which
// `_object` is; reading it needs no interpreter. `Py` may be dropped on any thread: pyo3 then gives the reference back
// where it is next attached.
unsafe impl Send for Lent {}

impl AsRef<[u8]> for Lent {
    #[allow(unsafe_code, reason = "as above")]
    fn as_ref(&self) -> &[u8] {
        // SAFETY: see above; `start` and `length` are those of the object's memory.
        unsafe { slice::from_raw_parts(self.start, self.length) }
    }
}

/// The contents of a `bytes` object: lent where that pays, copied where it does not.
pub(crate) fn contents(object: &Bound<'_, PyBytes>) -> Bytes {
    let bytes = object.as_bytes();
    if !(SHORTEST..=LONGEST).contains(&bytes.len()) {
        return Bytes::copy_from_slice(bytes);
    }
    Bytes::from_owner(Lent { start: bytes.as_ptr(), length: bytes.len(), _object: object.clone().unbind() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn references(object: &Bound<'_, PyAny>) -> usize {
        let sys = object.py().import("sys").unwrap();
        sys.call_method1("getrefcount", (object,)).unwrap().extract().unwrap()
    }

    #[test]
    fn what_is_lent_outlives_its_object_and_is_given_back() {
        Python::initialize();
        let (lent, (object, before)) = Python::attach(|py| {
            let object = PyBytes::new(py, &vec![7; SHORTEST]);
            let before = references(object.as_any());
            let lent = contents(&object);
            assert_eq!(references(object.as_any()), before + 1);
            assert_eq!(lent.as_ptr(), object.as_bytes().as_ptr());
            let copied = contents(&PyBytes::new(py, b"short"));
            assert_eq!(copied, "short");
            (lent, (object.unbind(), before))
        });
        assert!(lent.iter().all(|byte| *byte == 7));
        // Here nobody is attached.
        std::thread::spawn(move || drop(lent)).join().unwrap();
        Python::attach(|py| assert_eq!(references(object.bind(py).as_any()), before));
    }
}
