//! What takes long is looked at while it does: where it stands, told in the log, and where it stood most often when it
//! is over.
//!
//! The [watchdog](crate::watchdog) looks; a request that is not slow is never seen here. How often a stack is taken is
//! bounded for the process as a whole ([`Round`]), and so is how many requests are looked at ([`MOST`]).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hawksbill_core::config::Duration as Span;
use http::{HeaderMap, HeaderValue};

use crate::request_id;
use crate::stacks::{Place, Sampled};

/// How many requests of an application are looked at at once; the others are slow unseen.
const MOST: usize = 100;
/// How often each is looked at: after `slow`, and each time after twice as long.
const LOOKS: u32 = 4;
/// How many stacks are taken in a second.
const MOST_A_SECOND: usize = 10;

/// What of one application is slow.
#[derive(Debug)]
pub(crate) struct Slow {
    app: String,
    /// From when on it is; never zero.
    after: Span,
    words: Words,
    state: Mutex<State>,
}

/// How it is told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Words {
    /// `no answer` for so long.
    pub(crate) missing: &'static str,
    /// `over` after so long.
    pub(crate) over: &'static str,
}

/// Those of requests.
pub(crate) const REQUEST: Words = Words { missing: "no answer", over: "over" };
/// Those of the event loop.
pub(crate) const LOOP: Words = Words { missing: "no turn", over: "it turns again" };

#[derive(Debug, Default)]
struct State {
    records: BTreeMap<u64, Record>,
}

/// A request that is slow.
#[derive(Debug)]
struct Record {
    what: What,
    /// When it began, as far as that is known: between two looks.
    began: Duration,
    next: Duration,
    looks: u32,
    last: Option<String>,
    /// How often it stood where.
    frames: BTreeMap<String, u32>,
}

/// What is slow, for a person.
#[derive(Debug)]
pub(crate) struct What {
    /// `GET /report`.
    pub(crate) text: String,
    pub(crate) request_id: Option<HeaderValue>,
}

/// One that is to be looked at.
pub(crate) struct Due {
    slow: Arc<Slow>,
    number: u64,
    place: Place,
}

/// A look at all that is watched: how many stacks may be taken yet, and whose are to be.
pub(crate) struct Round {
    pub(crate) now: Duration,
    left: usize,
    due: Vec<Due>,
}

/// How many stacks are taken in a second, and how many were.
#[derive(Debug, Default)]
pub(crate) struct Budget {
    since: Duration,
    taken: usize,
}

impl Budget {
    pub(crate) fn round(&mut self, now: Duration) -> Round {
        if now.saturating_sub(self.since) >= Duration::from_secs(1) {
            *self = Self { since: now, taken: 0 };
        }
        Round { now, left: MOST_A_SECOND.saturating_sub(self.taken), due: Vec::new() }
    }

    /// Takes the stacks of a round, and tells them.
    pub(crate) fn spend(&mut self, round: Round, take: impl FnOnce(Vec<Place>) -> Vec<Sampled>) {
        if round.due.is_empty() {
            return;
        }
        self.taken += round.due.len();
        let (whose, places): (Vec<_>, Vec<_>) =
            round.due.into_iter().map(|due| ((due.slow, due.number), due.place)).unzip();
        for ((slow, number), sampled) in whose.into_iter().zip(take(places)) {
            slow.note(number, round.now, sampled);
        }
    }
}

impl Slow {
    /// `None`: nothing is.
    pub(crate) fn new(app: &str, after: Span, words: Words) -> Option<Arc<Self>> {
        let slow = Self { app: app.to_owned(), after, words, state: Mutex::default() };
        (!after.is_zero()).then(|| Arc::new(slow))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From when on something is slow.
    pub(crate) fn after(&self) -> Duration {
        self.after.get()
    }

    /// Takes note of all that are slow now, by their numbers, and chooses whom to look at. What is known and not among
    /// them is over.
    pub(crate) fn look<T>(
        self: &Arc<Self>,
        round: &mut Round,
        running: impl IntoIterator<Item = (u64, T)>,
        what: impl Fn(&T) -> What,
        place: impl Fn(T) -> Place,
    ) {
        let mut state = self.lock();
        let mut known = std::mem::take(&mut state.records);
        for (number, running) in running {
            let record = known.remove(&number);
            let is_due = record.as_ref().is_none_or(|record| record.is_due(round.now));
            let is_looked_at = is_due && round.left > 0;
            let record = match record {
                Some(record) => record,
                None if is_looked_at && state.records.len() + known.len() < MOST => {
                    Record::new(what(&running), round.now, self.after())
                }
                None => continue,
            };
            state.records.insert(number, record);
            if is_looked_at {
                round.left -= 1;
                round.due.push(Due { slow: self.clone(), number, place: place(running) });
            }
        }
        drop(state);
        for record in known.into_values() {
            self.close(&record, round.now);
        }
    }

    /// Tells where one stands.
    fn note(&self, number: u64, now: Duration, sampled: Sampled) {
        let mut state = self.lock();
        let Some(record) = state.records.get_mut(&number) else { return };
        record.looks += 1;
        record.next = now.saturating_add(now.saturating_sub(record.began));
        let so_long = shown(now.saturating_sub(record.began));
        let is_same = record.last.as_ref() == Some(&sampled.stack);
        let on =
            if sampled.thread.is_empty() { String::new() } else { format!(", on thread {}", sampled.thread) };
        let stack = if is_same {
            ", where it was at the last look".to_owned()
        } else {
            format!(":\n{}", sampled.stack.trim_end())
        };
        let message = format!("{}: {} for {so_long}{on}{stack}", record.what.text, self.words.missing);
        let request_id = request_id::shown(record.what.request_id.as_ref()).to_owned();
        if !sampled.frame.is_empty() {
            *record.frames.entry(sampled.frame).or_default() += 1;
        }
        record.last = Some(sampled.stack);
        drop(state);
        tracing::warn!(target: "hawksbill::slow", app = self.app, request_id, "{message}");
    }

    /// Tells what became of one.
    fn close(&self, record: &Record, now: Duration) {
        let so_long = shown(now.saturating_sub(record.began));
        let most = record.frames.iter().max_by_key(|(_, count)| **count);
        let most = most.map(|(frame, count)| match record.looks {
            1 => format!("; it was in {frame}"),
            looks => format!("; at {count} of {looks} looks it was in {frame}"),
        });
        let request_id = request_id::shown(record.what.request_id.as_ref());
        tracing::warn!(
            target: "hawksbill::slow",
            app = self.app,
            request_id,
            "{}: {} after {so_long}{}",
            record.what.text,
            self.words.over,
            most.unwrap_or_default()
        );
    }
}

impl Record {
    fn new(what: What, now: Duration, age: Duration) -> Self {
        let began = now.saturating_sub(age);
        Self { what, began, next: now, looks: 0, last: None, frames: BTreeMap::new() }
    }

    fn is_due(&self, now: Duration) -> bool {
        self.looks < LOOKS && self.next <= now
    }
}

impl What {
    pub(crate) fn new(text: String, request_id: Option<HeaderValue>) -> Self {
        Self { text, request_id }
    }
}

/// The header that says which request it is, for those who may be slow.
pub(crate) fn id_of(headers: &HeaderMap) -> Option<HeaderValue> {
    headers.get(&request_id::HEADER).cloned()
}

/// To a tenth of a second: it is known to a look.
fn shown(duration: Duration) -> String {
    format!("{:.1}s", duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(slow: &Arc<Slow>, budget: &mut Budget, now: u64, numbers: &[u64]) -> usize {
        let mut round = budget.round(Duration::from_secs(now));
        let running = numbers.iter().map(|number| (*number, ()));
        let what = |(): &()| What::new("GET /".to_owned(), None);
        slow.look(&mut round, running, what, |()| Place::Thread(String::new()));
        let count = round.due.len();
        let sampled =
            || Sampled { thread: String::new(), stack: "there".to_owned(), frame: "view".to_owned() };
        budget.spend(round, |places| places.iter().map(|_| sampled()).collect());
        count
    }

    #[test]
    fn one_is_looked_at_ever_more_seldom_and_not_for_ever() {
        let slow = Slow::new("shop", Span::from_secs(2), REQUEST).unwrap();
        let mut budget = Budget::default();
        // It began at 8.
        let looked: Vec<u64> = (10..100).filter(|now| look(&slow, &mut budget, *now, &[1]) > 0).collect();
        assert_eq!(looked, [10, 12, 16, 24]);
        assert_eq!(slow.lock().records[&1].frames["view"], 4);
        assert_eq!(look(&slow, &mut budget, 100, &[]), 0);
        assert!(slow.lock().records.is_empty());
    }

    #[test]
    fn many_at_once_are_looked_at_in_turn_and_the_rest_never() {
        let slow = Slow::new("shop", Span::from_secs(2), REQUEST).unwrap();
        let mut budget = Budget::default();
        let all: Vec<u64> = (0..1000).collect();
        let counts: Vec<usize> = (10..14).map(|now| look(&slow, &mut budget, now, &all)).collect();
        assert_eq!(counts, [10; 4]);
        assert_eq!(look(&slow, &mut budget, 13, &all), 0);
        for now in 14..200 {
            assert!(look(&slow, &mut budget, now, &all) <= MOST_A_SECOND);
        }
        assert_eq!(slow.lock().records.len(), MOST);
    }

    #[test]
    fn nothing_is_slow_where_nobody_says_when() {
        assert!(Slow::new("shop", Span::default(), REQUEST).is_none());
    }
}
