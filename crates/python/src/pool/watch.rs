//! Looks whether the jobs of a pool are taken, while any of them wait behind a thread at work.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::Pid;

use super::{Inner, Work};

/// How often it looks. A job that a sleeping call holds up waits about this long for another thread.
const TICK: Duration = Duration::from_millis(1);
/// How often a watch with nothing to see looks whether its pool is still there.
const IDLE: Duration = Duration::from_secs(5);

/// A thread that is only alive, and only looks, as long as jobs wait.
pub(super) struct Watch {
    name: String,
    shared: Arc<Shared>,
}

/// What was seen of the jobs so far.
#[derive(Debug, Default)]
pub(super) struct Look(Option<(u64, Instant)>);

pub(super) enum Seen {
    /// Jobs were taken since the last look, or this is the first.
    Moving,
    /// None was taken for so long.
    Still(Duration),
}

impl Look {
    /// Looks at how many jobs were ever taken.
    pub(super) fn at(&mut self, taken: u64) -> Seen {
        match self.0 {
            Some((before, since)) if before == taken => Seen::Still(since.elapsed()),
            _ => {
                self.0 = Some((taken, Instant::now()));
                Seen::Moving
            }
        }
    }
}

struct Shared {
    /// Whether jobs wait. Set before and cleared under the pool's lock.
    active: AtomicBool,
    started: Mutex<bool>,
    begun: Condvar,
}

impl Watch {
    pub(super) fn new(name: &str) -> Self {
        let shared =
            Shared { active: AtomicBool::new(false), started: Mutex::new(false), begun: Condvar::new() };
        Self { name: name.to_owned(), shared: Arc::new(shared) }
    }

    /// Has it look until no job waits. Called under the pool's lock, so that it sees the job that is there.
    pub(super) fn begin<W: Work>(&self, pool: &Arc<Inner<W>>) {
        if self.shared.active.load(Ordering::Acquire) {
            return;
        }
        let mut started = self.shared.started.lock().unwrap_or_else(PoisonError::into_inner);
        self.shared.active.store(true, Ordering::Release);
        if *started {
            self.shared.begun.notify_one();
            return;
        }
        let (shared, pool) = (self.shared.clone(), Arc::downgrade(pool));
        let watch = move || shared.watch(&pool);
        // Without a watch, a job waits for the thread at work, which is slow and not wrong.
        *started = thread::Builder::new().name(format!("{}-watch", self.name)).spawn(watch).is_ok();
    }
}

impl Shared {
    fn watch<W: Work>(&self, pool: &Weak<Inner<W>>) {
        loop {
            if !self.look(pool) {
                return;
            }
            let mut started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
            while !self.active.load(Ordering::Acquire) {
                if pool.strong_count() == 0 {
                    return;
                }
                started = self.begun.wait_timeout(started, IDLE).unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }

    /// Looks until no job waits, or no thread could be summoned for it. False when the pool is gone.
    fn look<W: Work>(&self, pool: &Weak<Inner<W>>) -> bool {
        loop {
            thread::sleep(TICK);
            let Some(pool) = pool.upgrade() else { return false };
            let (mut state, is_served) = pool.attend(pool.lock());
            if state.stopping {
                return false;
            }
            if is_served {
                state.look = Look::default();
                self.active.store(false, Ordering::Release);
                return true;
            }
        }
    }
}

/// Whether one of these threads runs, or would if it had a processor (proc(5), `/proc/pid/task/tid/stat`). One that
/// waits for the interpreter sleeps, but then another one runs.
pub(super) fn any_runs(threads: impl IntoIterator<Item = Pid>) -> bool {
    threads.into_iter().any(runs)
}

fn runs(id: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/self/task/{}/stat", id.as_raw_nonzero()));
    // The name of the thread stands in parentheses and may hold anything.
    stat.is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('R')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_runs_is_told_from_one_that_sleeps() {
        assert!(runs(rustix::thread::gettid()));
        let (tell, told) = std::sync::mpsc::channel();
        let (end, wait) = std::sync::mpsc::channel::<()>();
        let sleeper = thread::spawn(move || {
            tell.send(rustix::thread::gettid()).unwrap();
            wait.recv().unwrap_err();
        });
        let id = told.recv().unwrap();
        // It has said so just before it sleeps.
        while runs(id) {
            thread::yield_now();
        }
        drop(end);
        sleeper.join().unwrap();
    }
}
