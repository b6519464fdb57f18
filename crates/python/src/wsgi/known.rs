//! What an application says again and again, recognised by the very object that it says it with.
//!
//! Statuses and headers are constants of an application's code, mostly, so the same `str` comes with each response. Each
//! thread keeps what it made of the last few; a `str` never changes, and it cannot go away while it is kept here.

use std::cell::RefCell;

use http::StatusCode;
use http::header::{HeaderName, HeaderValue};
use pyo3::prelude::*;
use pyo3::types::PyString;

/// Longer values are no constants.
const LONGEST: usize = 64;

thread_local! {
    static STATUSES: RefCell<Table<StatusCode, 16>> = const { RefCell::new(Table::new()) };
    static NAMES: RefCell<Table<HeaderName, 64>> = const { RefCell::new(Table::new()) };
    static VALUES: RefCell<Table<HeaderValue, 64>> = const { RefCell::new(Table::new()) };
}

/// What `make` made, or makes now, of a status.
pub(super) fn status(
    text: &Bound<'_, PyString>,
    make: impl FnOnce() -> PyResult<StatusCode>,
) -> PyResult<StatusCode> {
    STATUSES.with_borrow_mut(|table| table.get(text, make))
}

/// What `make` made, or makes now, of a header's name.
pub(super) fn name(
    text: &Bound<'_, PyString>,
    make: impl FnOnce() -> PyResult<HeaderName>,
) -> PyResult<HeaderName> {
    NAMES.with_borrow_mut(|table| table.get(text, make))
}

/// What `make` made, or makes now, of a header's value.
pub(super) fn value(
    text: &Bound<'_, PyString>,
    make: impl FnOnce() -> PyResult<HeaderValue>,
) -> PyResult<HeaderValue> {
    if text.len()? > LONGEST {
        return make();
    }
    VALUES.with_borrow_mut(|table| table.get(text, make))
}

/// As many as there are slots; each object has its one slot.
struct Table<T, const SLOTS: usize>([Option<(Py<PyString>, T)>; SLOTS]);

impl<T: Clone, const SLOTS: usize> Table<T, SLOTS> {
    const fn new() -> Self {
        Self([const { None }; SLOTS])
    }

    /// `make` runs no Python code.
    fn get(&mut self, text: &Bound<'_, PyString>, make: impl FnOnce() -> PyResult<T>) -> PyResult<T> {
        // Objects are aligned to 16 bytes.
        let slot = &mut self.0[(text.as_ptr().addr() >> 4) % SLOTS];
        if let Some((known, made)) = slot
            && known.is(text)
        {
            return Ok(made.clone());
        }
        let made = make()?;
        // A subclass of `str` may have code that runs when it goes.
        if text.is_exact_instance_of::<PyString>() {
            *slot = Some((text.clone().unbind(), made.clone()));
        }
        Ok(made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_looked_at_once_and_another_of_the_same_text_again() {
        Python::initialize();
        Python::attach(|py| {
            let mut made = 0;
            let mut ask = |text: &Bound<'_, PyString>| {
                status(text, || {
                    made += 1;
                    Ok(StatusCode::OK)
                })
                .unwrap()
            };
            let first = PyString::new(py, "200 known");
            assert_eq!((ask(&first), ask(&first)), (StatusCode::OK, StatusCode::OK));
            assert_eq!(made, 1);
            let other = PyString::new(py, "200 known");
            assert_eq!(status(&other, || Ok(StatusCode::CREATED)).unwrap(), StatusCode::CREATED);
        });
    }
}
