//! The requests of an application that are under way, and whether any of them, or the loop itself, is late.
//!
//! A request that is over after its first step is never seen here, and pays for nothing but a count.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use hawksbill_core::Sample;
use hawksbill_core::config::Duration as Span;
use pyo3::prelude::*;

use super::event_loop::{Loop, Remote, Turn};
use super::http::Exchange;
use crate::slow::{self, Round, Slow, What};
use crate::stacks::Place;
use crate::watchdog::{Late, Marks, Watched, soonest};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Underway {
    begun: AtomicU64,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    exchanges: BTreeMap<u64, Waits>,
    /// How many there ever were.
    count: u64,
    most: usize,
    /// How many there had been at earlier looks.
    then: Marks,
    slow_then: Marks,
}

#[derive(Debug)]
struct Waits {
    exchange: Weak<Exchange>,
    /// When its time began anew.
    since: Option<Duration>,
    /// Nobody looks any more whether it is late: it is known to be, or to have begun its answer.
    is_judged: bool,
    /// It has begun its answer, and cannot be slow any more.
    is_answered: bool,
}

impl Underway {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a request.
    pub(super) fn begin(&self) {
        self.begun.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes note of a request that waits, until it is [over](Self::end).
    pub(super) fn keep(&self, exchange: &Arc<Exchange>) -> u64 {
        let exchange = Arc::downgrade(exchange);
        let mut waiting = self.lock();
        waiting.count += 1;
        let number = waiting.count;
        waiting
            .exchanges
            .insert(number, Waits { exchange, since: None, is_judged: false, is_answered: false });
        waiting.most = waiting.most.max(waiting.exchanges.len());
        number
    }

    pub(super) fn end(&self, number: u64) {
        let ended = self.lock().exchanges.remove(&number);
        drop(ended);
    }

    /// What there is to do.
    pub(super) fn sample(&self) -> Sample {
        let mut waiting = self.lock();
        let running = waiting.exchanges.len();
        let most = std::mem::replace(&mut waiting.most, running);
        Sample { begun: self.begun.load(Ordering::Relaxed), running, most, slots: 0, waiting: 0 }
    }

    /// Those that have been under way for so long and have not begun their answer, by their numbers.
    pub(super) fn slow(&self, age: Duration, now: Duration) -> Vec<(u64, Arc<Exchange>)> {
        let old: Vec<_> = {
            let mut waiting = self.lock();
            let count = waiting.count;
            let old = waiting.slow_then.ago(age, now, count);
            let old = waiting.exchanges.range(..=old).filter(|(_, waits)| !waits.is_answered);
            old.map(|(number, waits)| (*number, waits.exchange.clone())).collect()
        };
        let mut slow = Vec::new();
        for (number, exchange) in old {
            let Some(exchange) = exchange.upgrade() else { continue };
            if !exchange.has_begun_answer() {
                slow.push((number, exchange));
            } else if let Some(waits) = self.lock().exchanges.get_mut(&number) {
                waits.is_answered = true;
            }
        }
        slow
    }

    /// Those that have been under way for so long and have not begun their answer. Each is given once.
    pub(super) fn late(&self, age: Duration, now: Duration) -> Vec<Arc<Exchange>> {
        let old = {
            let mut waiting = self.lock();
            let count = waiting.count;
            let old = waiting.then.ago(age, now, count);
            let is_old = |waits: &Waits| {
                !waits.is_judged && waits.since.is_none_or(|since| now.saturating_sub(since) >= age)
            };
            let old = waiting.exchanges.range(..=old).filter(|(_, waits)| is_old(waits));
            old.map(|(number, waits)| (*number, waits.exchange.clone())).collect::<Vec<_>>()
        };
        let mut late = Vec::new();
        for (number, exchange) in old {
            let Some(exchange) = exchange.upgrade() else { continue };
            let has_begun = exchange.has_begun_answer();
            let begins_anew = !has_begun && exchange.is_clients_turn();
            if let Some(waits) = self.lock().exchanges.get_mut(&number) {
                waits.since = begins_anew.then_some(now);
                waits.is_judged = !begins_anew;
            }
            if !has_begun && !begins_anew {
                late.push(exchange);
            }
        }
        late
    }
}

/// Sees whether the event loop turns.
#[derive(Debug, Default)]
pub(super) struct Pulse(Mutex<Beat>);

#[derive(Debug, Default)]
struct Beat {
    /// How long it may go without.
    bound: Option<Span>,
    /// How long it may go without before that is told.
    slow: Option<Arc<Slow>>,
    /// How often it was asked.
    count: u64,
    /// When the loop was last asked for a sign of life.
    asked: Option<Duration>,
    answered: bool,
    /// Whether it has been told that it does not turn.
    told: bool,
}

/// Asks the loop for a sign of life.
struct Ask(Arc<Remote>);

impl Turn for Ask {
    fn turn(self: Arc<Self>, _: &Bound<'_, Loop>) {
        let mut beat = self.0.pulse().lock();
        beat.answered = true;
        if std::mem::take(&mut beat.told) {
            drop(beat);
            tracing::info!(target: "hawksbill::app", "the event loop turns again");
        }
    }
}

impl Pulse {
    fn lock(&self) -> MutexGuard<'_, Beat> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets how long it may go without a turn, and how long before it is slow; 0 is no bound, the shortest counts. True: they
    /// are the first that are set.
    pub(super) fn bound(&self, timeout: Span, slow: Span) -> bool {
        let mut beat = self.lock();
        let is_first = beat.bound.is_none() && beat.slow.is_none();
        if !timeout.is_zero() {
            beat.bound = Some(beat.bound.map_or(timeout, |before| before.min(timeout)));
        }
        if beat.slow.as_ref().is_none_or(|before| slow.get() < before.after()) {
            beat.slow = Slow::new("event loop", slow, slow::LOOP).or(beat.slow.take());
        }
        is_first
    }

    /// Whether the loop has given the last sign of life that could be expected of it.
    pub(super) fn is_there(&self, now: Duration) -> bool {
        let beat = self.lock();
        beat.answered || beat.asked.is_none_or(|asked| asked == now)
    }
}

impl Watched for Remote {
    fn soonest(&self) -> Duration {
        let beat = self.pulse().lock();
        let slow = beat.slow.as_ref().map(|slow| slow.after());
        soonest(beat.bound.map(Span::get).into_iter().chain(slow))
    }

    fn look_slow(self: Arc<Self>, round: &mut Round) {
        let (slow, still) = {
            let beat = self.pulse().lock();
            let Some(slow) = beat.slow.clone() else { return };
            let since = beat.asked.filter(|_| !beat.answered && !self.is_stopping());
            let is_slow = since.is_some_and(|since| round.now.saturating_sub(since) >= slow.after());
            (slow, is_slow.then_some((beat.count, ())))
        };
        let what = |(): &()| What::new("the event loop".to_owned(), None);
        slow.look(round, still, what, |()| Place::Thread("event loop".to_owned()));
    }

    fn look(self: Arc<Self>, now: Duration, late: &mut Vec<Late>) {
        let mut beat = self.pulse().lock();
        let bound = beat.bound.unwrap_or(Span::MAX);
        if beat.answered || beat.asked.is_none() {
            beat.asked = Some(now);
            beat.count += 1;
            beat.answered = false;
            drop(beat);
            if !self.post(Arc::new(Ask(self.clone()))) {
                // It is stopped, and may take its time.
                self.pulse().lock().answered = true;
            }
            return;
        }
        let since = beat.asked.unwrap_or(now);
        if beat.told || self.is_stopping() || now.saturating_sub(since) < bound.get() {
            return;
        }
        beat.told = true;
        drop(beat);
        let waits = "everything that it serves waits, which its thread shows the reason for";
        late.push(Late {
            app: "event loop".to_owned(),
            message: format!("the event loop has not turned for {bound}: {waits}"),
            stuck: Some("the event loop".to_owned()),
            task: None,
            then: None,
        });
    }
}
