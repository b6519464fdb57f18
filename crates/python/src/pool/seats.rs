//! The threads of a pool, and which job each of them does.

use std::time::Duration;

use rustix::thread::{Pid, gettid};

/// What is kept of a job while it is done.
pub(crate) trait Trace: Send {
    /// Whether it has waited for its client since this was last asked, so that its time begins anew.
    fn has_waited(&self) -> bool;
}

impl Trace for () {
    fn has_waited(&self) -> bool {
        false
    }
}

/// The number of no job.
const NONE: u64 = u64::MAX;

/// One place for each thread; those that have ended leave theirs empty.
pub(super) struct Seats<T>(Vec<Option<Seat<T>>>);

/// A thread and what it does.
struct Seat<T> {
    /// What the system calls it.
    id: Pid,
    /// Its job, until somebody has found that overdue.
    trace: Option<T>,
    /// Which job it does, in the order in which they were taken.
    number: u64,
    /// When its time began anew.
    since: Option<Duration>,
}

impl<T: Trace> Seats<T> {
    pub(super) fn new() -> Self {
        Self(Vec::new())
    }

    /// Finds a place for the thread that this is called on.
    pub(super) fn sit(&mut self) -> usize {
        let seat = Some(Seat { id: gettid(), trace: None, number: NONE, since: None });
        if let Some((at, free)) = self.0.iter_mut().enumerate().find(|(_, seat)| seat.is_none()) {
            *free = seat;
            return at;
        }
        self.0.push(seat);
        self.0.len() - 1
    }

    /// The thread ends. What is given is to be dropped without any lock.
    #[must_use]
    pub(super) fn leave(&mut self, at: usize) -> Option<T> {
        self.0.get_mut(at).and_then(Option::take)?.trace
    }

    /// The thread begins a job.
    pub(super) fn begin(&mut self, at: usize, number: u64, trace: Option<T>) {
        if let Some(Some(seat)) = self.0.get_mut(at) {
            seat.number = number;
            seat.since = None;
            seat.trace = trace;
        }
    }

    /// The thread has done its job. What is given is to be dropped without any lock.
    #[must_use]
    pub(super) fn end(&mut self, at: usize) -> Option<T> {
        let seat = self.0.get_mut(at)?.as_mut()?;
        seat.number = NONE;
        seat.trace.take()
    }

    /// The first `old` jobs that are still done, and that nobody has found overdue: with the places of their threads and their
    /// numbers.
    pub(super) fn begun_before(&self, old: u64) -> impl Iterator<Item = (usize, u64, &T)> {
        let seats = self.0.iter().enumerate().filter_map(|(at, seat)| Some((at, seat.as_ref()?)));
        let old = seats.filter(move |(_, seat)| seat.number <= old);
        old.filter_map(|(at, seat)| Some((at, seat.number, seat.trace.as_ref()?)))
    }

    /// What the system calls the threads that do a job.
    pub(super) fn at_work(&self) -> impl Iterator<Item = Pid> {
        self.0.iter().flatten().filter(|seat| seat.number != NONE).map(|seat| seat.id)
    }

    /// The number of the job that has been done for longest; those of later jobs are greater.
    pub(super) fn oldest(&self) -> u64 {
        self.0.iter().flatten().map(|seat| seat.number).min().unwrap_or(NONE)
    }

    /// The jobs that should be over, each once, with the places of their threads: those of the first `old`, and those
    /// whose time began anew so long ago.
    pub(super) fn overdue(&mut self, old: u64, age: Duration, now: Duration) -> Vec<(usize, T)> {
        let seats = self.0.iter_mut().enumerate();
        seats.filter_map(|(at, seat)| Some((at, seat.as_mut()?.overdue(old, age, now)?))).collect()
    }
}

impl<T: Trace> Seat<T> {
    fn overdue(&mut self, old: u64, age: Duration, now: Duration) -> Option<T> {
        let is_old = match self.since {
            Some(since) => now.saturating_sub(since) >= age,
            None => self.number <= old,
        };
        if !is_old {
            return None;
        }
        if self.trace.as_ref()?.has_waited() {
            self.since = Some(now);
            return None;
        }
        self.trace.take()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    struct Upload(Cell<bool>);

    impl Trace for Upload {
        fn has_waited(&self) -> bool {
            self.0.take()
        }
    }

    #[test]
    fn who_waited_for_a_client_has_all_the_time_again() {
        let mut seats = Seats::new();
        let at = seats.sit();
        seats.begin(at, 1, Some(Upload(Cell::new(true))));
        let mut overdue = |now| seats.overdue(1, Duration::from_secs(10), Duration::from_secs(now)).len();
        assert_eq!(overdue(10), 0);
        assert_eq!(overdue(19), 0);
        assert_eq!(overdue(20), 1);
        assert_eq!(overdue(40), 0);
    }

    #[test]
    fn a_place_is_taken_again() {
        let mut seats = Seats::<()>::new();
        assert_eq!((seats.sit(), seats.sit()), (0, 1));
        assert_eq!(seats.leave(0), None);
        assert_eq!((seats.sit(), seats.sit()), (0, 2));
    }

    #[test]
    fn who_is_at_work_is_known_with_the_job() {
        let mut seats = Seats::<()>::new();
        let (one, other) = (seats.sit(), seats.sit());
        assert_eq!((seats.at_work().count(), seats.oldest()), (0, NONE));
        seats.begin(one, 7, None);
        seats.begin(other, 8, None);
        assert_eq!((seats.at_work().count(), seats.oldest()), (2, 7));
        assert_eq!(seats.end(one), None);
        assert_eq!((seats.at_work().count(), seats.oldest()), (1, 8));
        assert_eq!(seats.leave(other), None);
        assert_eq!(seats.at_work().count(), 0);
    }
}
