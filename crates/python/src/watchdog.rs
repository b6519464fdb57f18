//! Sees what does not end in time.
//!
//! A thread looks now and again at what is under way, so that no request pays for a timer or asks for the time. How old
//! something is, is known from how many there were at earlier looks ([`Marks`]). Its clock counts at most two looks' time
//! between two looks: a process that was stopped, or a machine that slept, makes nothing late.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use hawksbill_core::{BuildError, Builder, Vitals};

use crate::slow::{Budget, Round};
use crate::stacks::{self, Task};

/// How often it looks: so often within the shortest time that is allowed, between these bounds.
const LOOKS: u32 = 16;
const OFTEN: Duration = Duration::from_millis(10);
const SELDOM: Duration = Duration::from_secs(1);
/// So many requests of one look are told with their own stacks.
const MOST_TOLD: usize = 10;

/// What to do about a request that is late.
pub(crate) const ADVICE: &str = "if it is to take so long, give the application a longer 'timeout'";

/// Whose requests may be late.
pub(crate) trait Watched: Send + Sync {
    /// The shortest time after which there is something to see: how often to look follows from it.
    fn soonest(&self) -> Duration;

    /// Answers what is late, and notes it. Must not wait for the interpreter.
    fn look(self: Arc<Self>, now: Duration, late: &mut Vec<Late>);

    /// Chooses what is slow and should be looked at. Must not wait for the interpreter.
    fn look_slow(self: Arc<Self>, round: &mut Round);
}

/// The shortest of some times, of which zero is none.
pub(crate) fn soonest(times: impl IntoIterator<Item = Duration>) -> Duration {
    times.into_iter().filter(|time| !time.is_zero()).min().unwrap_or(Duration::MAX)
}

/// Something that was seen to be late.
pub(crate) struct Late {
    /// The application's name.
    pub(crate) app: String,
    /// `GET /report: ...`, in words for a person.
    pub(crate) message: String,
    /// What is to be told beyond the log: it does not end, and holds a place for ever.
    pub(crate) stuck: Option<String>,
    /// The task that it runs in.
    pub(crate) task: Option<Task>,
    /// What is done about it, once its stack is known.
    pub(crate) then: Option<Box<dyn FnOnce() + Send>>,
}

/// That of a generation.
pub(crate) struct Watchdog {
    vitals: Arc<Vitals>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    ends: Condvar,
}

#[derive(Default)]
struct State {
    watched: Vec<Weak<dyn Watched>>,
    over: bool,
}

impl Watchdog {
    /// That of the generation that is being built. It begins to look when everything has started: what an application does
    /// until then may take its time.
    pub(crate) fn shared(cx: &mut Builder) -> Result<Arc<Self>, BuildError> {
        cx.shared("watchdog", |cx| {
            let vitals = cx.vitals().clone();
            vitals.answers("stacks", stacks::all);
            let shared: Arc<Shared> = Arc::default();
            let (starting, ending, told) = (shared.clone(), shared.clone(), vitals.clone());
            cx.spawn(async move { starting.start(told) });
            cx.on_stop(async move {
                ending.lock().over = true;
                ending.ends.notify_all();
            });
            Ok(Self { vitals, shared })
        })
    }

    /// Looks at it from now on, as long as it is there.
    pub(crate) fn watch(&self, watched: &Arc<impl Watched + 'static>) {
        let watched: Arc<dyn Watched> = watched.clone();
        self.shared.lock().watched.push(Arc::downgrade(&watched));
    }

    pub(crate) fn vitals(&self) -> &Vitals {
        &self.vitals
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start(self: Arc<Self>, vitals: Arc<Vitals>) {
        if self.lock().watched.is_empty() {
            return;
        }
        let run = move || self.run(&vitals);
        if let Err(error) = thread::Builder::new().name("watchdog".into()).spawn(run) {
            tracing::error!(target: "hawksbill::app", "no thread that sees to timeouts: {error}");
        }
    }

    fn run(&self, vitals: &Vitals) {
        let mut now = Duration::ZERO;
        let mut before = Instant::now();
        let mut budget = Budget::default();
        loop {
            let Some(tick) = self.rest() else { return };
            now = now.saturating_add(before.elapsed().min(tick * 2));
            before = Instant::now();
            let watched: Vec<_> = self.lock().watched.iter().filter_map(Weak::upgrade).collect();
            let (mut late, mut round) = (Vec::new(), budget.round(now));
            for watched in watched {
                // First what is slow: what is late as well is answered then, and over.
                watched.clone().look_slow(&mut round);
                watched.look(now, &mut late);
            }
            budget.spend(round, stacks::sample);
            if !late.is_empty() {
                tell(late, vitals);
            }
        }
    }

    /// Waits until it is time to look, and says how long that is. `None`: there is nothing to look at any more.
    fn rest(&self) -> Option<Duration> {
        let mut state = self.lock();
        state.watched.retain(|watched| watched.strong_count() > 0);
        let shortest =
            state.watched.iter().filter_map(Weak::upgrade).map(|watched| watched.soonest()).min()?;
        let tick = (shortest / LOOKS).clamp(OFTEN, SELDOM);
        let rested = self.ends.wait_timeout_while(state, tick, |state| !state.over);
        let (state, _) = rested.unwrap_or_else(PoisonError::into_inner);
        (!state.over).then_some(tick)
    }
}

/// Tells what is late, with the stacks, and has done what is to be done about it.
fn tell(mut late: Vec<Late>, vitals: &Vitals) {
    let tasks =
        late.iter_mut().take(MOST_TOLD).map(|late| late.task.take().unwrap_or_else(|| Box::new(|_| None)));
    let found = stacks::of(tasks.collect());
    let mut all = Some(format!("\n{}", found.all.trim_end()));
    for (at, late) in late.into_iter().enumerate() {
        let own = found.tasks.get(at).filter(|own| !own.is_empty());
        let own = own.map(|own| format!("\nits task:\n{}", own.trim_end())).unwrap_or_default();
        // Those of the same look have the same threads.
        let threads = all.take().unwrap_or_else(|| " (threads: above)".to_owned());
        tracing::error!(target: "hawksbill::app", app = late.app, "{}{own}{threads}", late.message);
        if let Some(then) = late.then {
            then();
        }
        if let Some(stuck) = late.stuck {
            vitals.stuck(stuck, &*found.all);
        }
    }
}

/// How many of something there were at earlier looks.
#[derive(Debug, Default)]
pub(crate) struct Marks(VecDeque<(Duration, u64)>);

impl Marks {
    /// Notes how many there have been until now, and gives how many there had been so long ago.
    pub(crate) fn ago(&mut self, age: Duration, now: Duration, count: u64) -> u64 {
        if self.0.back().is_none_or(|(_, last)| *last != count) {
            self.0.push_back((now, count));
        }
        let is_old =
            |mark: Option<&(Duration, u64)>| mark.is_some_and(|(at, _)| now.saturating_sub(*at) >= age);
        while is_old(self.0.get(1)) {
            self.0.pop_front();
        }
        self.0.front().filter(|mark| is_old(Some(mark))).map_or(0, |(_, count)| *count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_know_the_count_of_then() {
        let seconds = Duration::from_secs;
        let mut marks = Marks::default();
        let mut ago = |now, count| marks.ago(seconds(3), seconds(now), count);
        assert_eq!(ago(1, 10), 0);
        assert_eq!(ago(2, 10), 0);
        assert_eq!(ago(3, 25), 0);
        assert_eq!(ago(4, 26), 10);
        assert_eq!(ago(5, 26), 10);
        assert_eq!(ago(6, 26), 25);
        assert_eq!(ago(60, 26), 26);
        assert!(marks.0.len() <= 2);
    }
}
