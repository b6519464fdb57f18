//! Why a request body could not be read to its end.

use std::sync::{Arc, Mutex, PoisonError};

use hawksbill_core::Error;

/// The error of a request body, kept for the answer: 413 stays 413 whatever an application makes of it.
#[derive(Clone, Debug)]
pub(crate) struct Broken(Option<Arc<Mutex<Option<Error>>>>);

impl Default for Broken {
    fn default() -> Self {
        Self::new()
    }
}

impl Broken {
    /// No error yet.
    pub(crate) fn new() -> Self {
        Self(Some(Arc::default()))
    }

    /// There is no body, so there will be no error of it.
    pub(crate) fn never() -> Self {
        Self(None)
    }

    /// Keeps the error.
    pub(crate) fn set(&self, error: Error) {
        if let Some(slot) = &self.0 {
            *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        }
    }

    /// Takes the error, once.
    pub(crate) fn take(&self) -> Option<Error> {
        self.0.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether there is one.
    pub(crate) fn is_set(&self) -> bool {
        let is_some =
            |slot: &Arc<Mutex<Option<Error>>>| slot.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        self.0.as_ref().is_some_and(is_some)
    }
}
