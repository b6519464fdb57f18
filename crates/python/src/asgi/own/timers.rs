//! What is to happen later, the earliest first.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use pyo3::prelude::*;

use super::handle::Handle;

/// asyncio's own numbers: a heap this long, of which this part is cancelled, is swept.
const FEWEST_TO_SWEEP: usize = 100;

/// A timer of ours, or, in debug mode, one of asyncio's.
pub(super) enum Timer {
    Ours(Py<Handle>),
    Foreign(Py<PyAny>),
}

#[derive(Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Entry>,
    next: u64,
    cancelled: usize,
}

struct Entry {
    when: f64,
    /// Those of the same time happen in the order in which they were asked for.
    order: u64,
    timer: Timer,
}

impl Timers {
    pub(super) fn push(&mut self, when: f64, timer: Timer) {
        // What is no time has no place among times; asyncio calls it when it meets it.
        let when = if when.is_nan() { f64::NEG_INFINITY } else { when };
        self.heap.push(Entry { when, order: self.next, timer });
        self.next += 1;
    }

    /// When the earliest is due.
    pub(super) fn next(&self) -> Option<f64> {
        self.heap.peek().map(|entry| entry.when)
    }

    /// Takes the earliest if it is due, or nobody waits for it any more.
    pub(super) fn take(&mut self, now: f64) -> Option<Timer> {
        let earliest = self.heap.peek()?;
        if earliest.timer.is_cancelled() {
            self.cancelled = self.cancelled.saturating_sub(1);
        } else if earliest.when >= now {
            return None;
        }
        self.heap.pop().map(|entry| entry.timer)
    }

    /// Takes note that one of ours is cancelled, and gives back those that are when they have become too many.
    pub(super) fn cancelled(&mut self) -> Vec<Timer> {
        self.cancelled += 1;
        if self.heap.len() < FEWEST_TO_SWEEP || self.cancelled * 2 < self.heap.len() {
            return Vec::new();
        }
        self.cancelled = 0;
        let (gone, kept): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.heap).into_iter().partition(|entry| entry.timer.is_cancelled());
        self.heap = BinaryHeap::from(kept);
        gone.into_iter().map(|entry| entry.timer).collect()
    }

    pub(super) fn take_all(&mut self) -> Vec<Timer> {
        std::mem::take(&mut self.heap).into_iter().map(|entry| entry.timer).collect()
    }
}

impl Timer {
    fn is_cancelled(&self) -> bool {
        match self {
            Self::Ours(handle) => handle.get().is_cancelled(),
            // Asking would run Python; they go when they are due.
            Self::Foreign(_) => false,
        }
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    /// The earliest is the greatest: that one a heap gives first.
    fn cmp(&self, other: &Self) -> Ordering {
        other.when.total_cmp(&self.when).then(other.order.cmp(&self.order))
    }
}
