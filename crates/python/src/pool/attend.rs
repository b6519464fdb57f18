//! Sees to it that the jobs of a pool are done: what its [`Watch`](super::watch::Watch), or the main thread where it drives
//! (`lead.rs`), does about what it sees of the threads.
//!
//! A thread is looked at without the pool's lock: with that in hand it would be seen to wait for it. What has changed
//! meanwhile is seen by the next look.

use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use super::watch::{self, Look, Seen};
use super::{Inner, State, Work};
use crate::lead::{Crew, SELDOM, View};

/// How long jobs are left to threads that compute: CPython's switch interval, after which they give way to others.
pub(super) const COMPUTING: Duration = Duration::from_millis(5);
/// After how long without a job that ends the threads are not expected to be done with theirs soon.
pub(super) const STUCK: Duration = Duration::from_millis(50);

/// What an attendant holds between two looks.
type Held<'a, W> = MutexGuard<'a, State<W>>;

impl<W: Work> State<W> {
    /// Whether there are jobs that wait for threads which do others.
    fn is_behind(&mut self) -> bool {
        !self.jobs.is_empty() && !self.stopping && !self.is_eager()
    }
}

impl<W: Work> Inner<W> {
    /// Looks, now and again, whether the jobs are taken, and has a thread come where they are not. True: no job waits, or
    /// nobody could be summoned for it.
    pub(super) fn attend<'a>(self: &'a Arc<Self>, mut state: Held<'a, W>) -> (Held<'a, W>, bool) {
        if state.jobs.is_empty() || !self.could_summon(&state) {
            return (state, true);
        }
        let taken = state.taken;
        let Seen::Still(since) = state.look.at(taken) else { return (state, false) };
        if state.coming > 0 {
            return (state, false);
        }
        let computes;
        (state, computes) = self.computes(state);
        let is_unchanged = state.taken == taken && !state.stopping;
        if is_unchanged && !computes {
            state.be_eager();
            self.summon(&mut state);
        } else if is_unchanged && since >= COMPUTING {
            self.summon(&mut state);
            state.look = Look::default();
        }
        (state, false)
    }

    /// Whether one thread is to do all the jobs from now on.
    fn leaves_all_to_one<'a>(&'a self, mut state: Held<'a, W>) -> (Held<'a, W>, bool) {
        if !state.is_behind() {
            return (state, false);
        }
        let mut computes = None;
        if state.alone.asks() {
            let seen;
            (state, seen) = self.computes(state);
            computes = Some(seen);
        }
        let (taken, oldest) = (state.taken, state.seats.oldest());
        let suffices = state.is_behind() && state.alone.suffices(taken, oldest, computes);
        (state, suffices)
    }

    /// Whether one of the threads at work computes. The lock is let go meanwhile.
    fn computes<'a>(&'a self, state: Held<'a, W>) -> (Held<'a, W>, bool) {
        let at_work: Vec<_> = state.seats.at_work().collect();
        drop(state);
        let computes = watch::any_runs(at_work);
        (self.lock(), computes)
    }
}

impl<W: Work> Crew for Inner<W> {
    fn has_work(&self) -> bool {
        let state = self.lock();
        state.stopping || !state.jobs.is_empty()
    }

    fn send_leader(self: Arc<Self>) -> bool {
        let mut state = self.lock();
        // Who does everything leads as well.
        if state.gives_way() {
            return true;
        }
        let is_free = state.jobs.is_empty() && state.coming == 0 && state.idle > 0;
        if is_free && !state.stopping {
            self.call_one(&mut state);
        }
        is_free
    }

    fn waits(&self) -> bool {
        let at_work: Vec<_> = self.lock().seats.at_work().collect();
        !at_work.is_empty() && !watch::any_runs(at_work)
    }

    fn is_held_up(self: Arc<Self>, waits: bool) {
        let mut state = self.lock();
        state.look = Look::default();
        if waits {
            state.be_eager();
            self.summon(&mut state);
        }
        state.alone.end();
    }

    fn look(self: Arc<Self>) -> View {
        let (mut state, is_enough) = self.leaves_all_to_one(self.lock());
        if is_enough {
            return View::Free;
        }
        // Nobody could be summoned, nor be free to lead, before one of them is done.
        if !state.jobs.is_empty() && state.running >= self.most_threads && !state.stopping {
            let taken = state.taken;
            return match state.look.at(taken) {
                Seen::Still(since) if since >= STUCK => View::Busy(SELDOM),
                Seen::Still(_) | Seen::Moving => View::Crowded,
            };
        }
        let is_served;
        (state, is_served) = self.attend(state);
        if state.stopping || !is_served {
            return View::Busy(Duration::ZERO);
        }
        // While each job gets a thread at once there is nothing to see.
        if let Some(left) = state.eager_for() {
            return View::Busy(left.min(SELDOM));
        }
        if state.idle > 0 { View::Free } else { View::Busy(Duration::ZERO) }
    }

    fn stand_in(self: Arc<Self>) {
        self.summon(&mut self.lock());
    }
}
