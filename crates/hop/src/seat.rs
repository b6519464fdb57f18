//! Places among the requests that a worker serves at a time.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

/// How many requests a worker has and takes. One for each connection.
#[derive(Default)]
pub(crate) struct Seats {
    taken: AtomicUsize,
    capacity: AtomicUsize,
    /// Nobody may sit down any more.
    closed: AtomicBool,
    /// Called when there may be room where there was none, or none will come.
    on_change: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl Seats {
    pub(crate) fn new(capacity: usize) -> Arc<Self> {
        Arc::new(Self { capacity: AtomicUsize::new(capacity), ..Self::default() })
    }

    /// Only the first listener counts.
    pub(crate) fn on_change(&self, listener: impl Fn() + Send + Sync + 'static) {
        self.on_change.set(Box::new(listener)).ok();
    }

    pub(crate) fn changed(&self) {
        if let Some(listener) = self.on_change.get() {
            listener();
        }
    }

    pub(crate) fn taken(&self) -> usize {
        self.taken.load(Ordering::SeqCst)
    }

    pub(crate) fn capacity(&self) -> usize {
        self.capacity.load(Ordering::SeqCst)
    }

    pub(crate) fn set_capacity(&self, capacity: usize) {
        self.capacity.store(capacity, Ordering::SeqCst);
        self.changed();
    }

    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.changed();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// A place, if there is one.
    pub(crate) fn take(self: &Arc<Self>) -> Option<Seat> {
        if self.is_closed() {
            return None;
        }
        let capacity = self.capacity();
        let room = |taken: usize| (taken < capacity).then_some(taken + 1);
        let taken = self.taken.fetch_update(Ordering::SeqCst, Ordering::SeqCst, room);
        taken.is_ok().then(|| Seat(self.clone()))
    }

    /// A place, though there may be none: for who asks a worker directly.
    pub(crate) fn squeeze(self: &Arc<Self>) -> Option<Seat> {
        if self.is_closed() {
            return None;
        }
        self.taken.fetch_add(1, Ordering::SeqCst);
        Some(Seat(self.clone()))
    }
}

/// One place. It is free again when this is dropped.
pub(crate) struct Seat(Arc<Seats>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::SeqCst);
        self.0.changed();
    }
}

impl fmt::Debug for Seats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seats").field("taken", &self.taken()).field("capacity", &self.capacity()).finish()
    }
}
