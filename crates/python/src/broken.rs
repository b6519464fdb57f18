//! Why a request body could not be read to its end.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use hawksbill_core::Error;

/// The error of a request body, kept for the answer: 413 stays 413 whatever an application makes of it. Also whether the
/// body is waited for, which is the client's time.
#[derive(Clone, Debug)]
pub(crate) struct Broken(Option<Arc<Fate>>);

#[derive(Debug, Default)]
struct Fate {
    error: Mutex<Option<Error>>,
    waits: AtomicU8,
}

const NEVER: u8 = 0;
const WAITED: u8 = 1;
const WAITS: u8 = 2;

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
        if let Some(fate) = &self.0 {
            *fate.error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        }
    }

    /// Takes the error, once.
    pub(crate) fn take(&self) -> Option<Error> {
        self.0.as_ref()?.error.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether there is one.
    pub(crate) fn is_set(&self) -> bool {
        let is_some = |fate: &Arc<Fate>| fate.error.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        self.0.as_ref().is_some_and(is_some)
    }

    /// Waits for more of the body.
    pub(crate) fn waiting<T>(&self, wait: impl FnOnce() -> T) -> T {
        let set = |waits| self.0.as_ref().map(|fate| fate.waits.store(waits, Ordering::Relaxed));
        set(WAITS);
        let waited = wait();
        set(WAITED);
        waited
    }

    /// Whether the body is waited for, or was since this was last asked.
    pub(crate) fn has_waited(&self) -> bool {
        let Some(fate) = &self.0 else { return false };
        let before = fate.waits.compare_exchange(WAITED, NEVER, Ordering::Relaxed, Ordering::Relaxed);
        before.is_ok() || before == Err(WAITS)
    }
}
