//! Why a request body could not be read to its end.

use std::sync::{Arc, Mutex, PoisonError};

use hawksbill_core::Error;

/// The error of a request body, kept for the answer: 413 stays 413 whatever an application makes of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Broken(Arc<Mutex<Option<Error>>>);

impl Broken {
    /// Keeps the error.
    pub(crate) fn set(&self, error: Error) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }

    /// Takes the error, once.
    pub(crate) fn take(&self) -> Option<Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether there is one.
    pub(crate) fn is_set(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}
