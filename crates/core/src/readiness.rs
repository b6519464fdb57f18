//! Whether a generation can serve: each of its applications, and the server that it is reached through.
//!
//! ```
//! use hawksbill_core::Builder;
//!
//! let builder = Builder::new("/srv/shop");
//! let readiness = builder.vitals().readiness();
//! readiness.application("shop", || true);
//! readiness.application("blog", || false);
//! assert_eq!(readiness.of("blog"), Some(false));
//! assert!(!readiness.drains());
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

type Question = Arc<dyn Fn() -> bool + Send + Sync>;

/// In the extensions of a response: what a machine asks again and again, and gets a line in no access log that does not
/// want it.
#[derive(Clone, Copy, Debug)]
pub struct Routine;

/// See the module. Part of the [`Vitals`](crate::Vitals).
#[derive(Default)]
pub struct Readiness {
    applications: Mutex<BTreeMap<Arc<str>, Question>>,
    drains: Mutex<Option<Question>>,
    is_closing: AtomicBool,
}

impl Readiness {
    /// Has somebody asked whether the named application has a worker that takes requests. It is called from any thread
    /// and must not wait.
    pub fn application(&self, name: impl Into<Arc<str>>, serves: impl Fn() -> bool + Send + Sync + 'static) {
        lock(&self.applications).insert(name.into(), Arc::new(serves));
    }

    /// Has somebody asked whether the server drains and nobody takes its place. The last one that is set counts; it must not wait.
    pub fn drains_when(&self, drains: impl Fn() -> bool + Send + Sync + 'static) {
        *lock(&self.drains) = Some(Arc::new(drains));
    }

    /// Says that the server will drain soon: clients should go elsewhere from now on.
    pub fn close(&self) {
        self.is_closing.store(true, Ordering::Relaxed);
    }

    /// Whether the server drains, or will soon, and nobody takes its place; one that nobody told of does not.
    pub fn drains(&self) -> bool {
        if self.is_closing.load(Ordering::Relaxed) {
            return true;
        }
        let drains = lock(&self.drains).clone();
        drains.is_some_and(|drains| drains())
    }

    /// Whether the named application serves; `None`: there is none.
    pub fn of(&self, name: &str) -> Option<bool> {
        let serves = lock(&self.applications).get(name).cloned();
        serves.map(|serves| serves())
    }

    /// Each application, by name, and whether it serves.
    pub fn applications(&self) -> BTreeMap<Arc<str>, bool> {
        let applications = lock(&self.applications).clone();
        applications.into_iter().map(|(name, serves)| (name, serves())).collect()
    }
}

impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readiness").finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
