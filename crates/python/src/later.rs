//! Wake-ups that wait for the thread that drives the runtime.
//!
//! To wake a task of a single-threaded runtime from outside is a system call. Whoever answers several requests in a row
//! leaves the wakers here instead; the driver is called once, and wakes them all from inside.

use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};

/// The wakers that wait, and the driver's own.
#[derive(Debug, Default)]
pub(crate) struct Later {
    held: Mutex<Held>,
    /// Whether the driver knows that it has to look: it was called, or it is about to come anyway.
    called: AtomicBool,
}

#[derive(Debug, Default)]
struct Held {
    wakers: Vec<Waker>,
    driver: Option<Waker>,
}

impl Later {
    /// Has a task woken by the driver.
    pub(crate) fn wake(&self, waker: Waker) {
        self.lock().wakers.push(waker);
        self.call();
    }

    /// Has the driver look.
    pub(crate) fn call(&self) {
        if !self.called.swap(true, Ordering::AcqRel) {
            let driver = self.lock().driver.clone();
            if let Some(driver) = driver {
                driver.wake();
            }
        }
    }

    /// The driver looks: wakes what waits, and is called from now on.
    pub(crate) fn drain(&self, cx: &Context<'_>) {
        self.called.store(false, Ordering::Release);
        let mut held = self.lock();
        match &held.driver {
            Some(driver) if driver.will_wake(cx.waker()) => {}
            _ => held.driver = Some(cx.waker().clone()),
        }
        if held.wakers.is_empty() {
            return;
        }
        let mut wakers = mem::take(&mut held.wakers);
        drop(held);
        wakers.drain(..).for_each(Waker::wake);
        // The space is used again.
        let mut held = self.lock();
        if held.wakers.is_empty() {
            held.wakers = wakers;
        }
    }

    /// The driver goes, and will look when it or another one comes: it need not be called.
    pub(crate) fn leave(&self) {
        self.called.store(true, Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_batch_calls_the_driver_once_and_wakes_all() {
        let (later, driver, task) =
            (Later::default(), Arc::new(Count::default()), Arc::new(Count::default()));
        let count = |count: &Count| count.0.load(Ordering::SeqCst);
        let waker = Waker::from(driver.clone());
        let cx = Context::from_waker(&waker);
        later.drain(&cx);
        for _ in 0..3 {
            later.wake(task.clone().into());
        }
        assert_eq!((count(&driver), count(&task)), (1, 0));
        later.drain(&cx);
        assert_eq!((count(&driver), count(&task)), (1, 3));
        later.leave();
        later.wake(task.clone().into());
        assert_eq!((count(&driver), count(&task)), (1, 3));
        later.drain(&cx);
        assert_eq!(count(&task), 4);
    }
}
