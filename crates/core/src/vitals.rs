//! What a generation says of itself while it serves: how much it has to do, and what does not move any more.
//!
//! Whoever hosts something puts in a [source](Vitals::source) that is asked now and again, so that no request pays for
//! being counted. Whoever runs the generation reads [`sample`](Vitals::sample), is called when something is
//! [stuck](Vitals::on_stuck), and passes questions on ([`ask`](Vitals::ask)).
//!
//! ```
//! use hawksbill_core::{Builder, Sample};
//!
//! let builder = Builder::new("/srv/shop");
//! builder.vitals().source(|| Sample { begun: 7, running: 1, most: 3, slots: 8, waiting: 0 });
//! builder.vitals().answers("weather", || "sunny".to_owned());
//!
//! let vitals = builder.finish().vitals().clone();
//! assert_eq!(vitals.sample().begun, 7);
//! assert_eq!(vitals.ask("weather").as_deref(), Some("sunny"));
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::Readiness;
use crate::meter::{Meter, Reading};

/// See the module. One for each [`Generation`](crate::Generation).
#[derive(Default)]
pub struct Vitals {
    sources: Mutex<Vec<Source>>,
    answers: Mutex<BTreeMap<String, Answers>>,
    stuck: Mutex<Hook>,
    readiness: Readiness,
    told: Mutex<Vec<Hears>>,
    wishes: Mutex<Option<Hears>>,
    /// By site and application.
    meters: Mutex<BTreeMap<(String, String), Arc<Meter>>>,
}

type Source = Arc<dyn Fn() -> Sample + Send + Sync>;
type Answers = Arc<dyn Fn() -> String + Send + Sync>;
type Hears = Arc<dyn Fn(&str) + Send + Sync>;
type OnStuck = Arc<dyn Fn(&Stuck) + Send + Sync>;

/// What hosted applications have to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// Requests that were begun since the start.
    pub begun: u64,
    /// Requests that are being worked on.
    pub running: usize,
    /// The most that were worked on at once since this was last asked.
    pub most: usize,
    /// How many can be worked on at once; 0: nothing bounds it.
    pub slots: usize,
    /// Requests that wait until they can be worked on.
    pub waiting: usize,
}

/// Something that does not move any more, and that only another process gets moving again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stuck {
    /// What: `GET /report of application shop`.
    pub what: String,
    /// Lines that show where it stands, such as stacks.
    pub detail: String,
}

#[derive(Default)]
enum Hook {
    #[default]
    Nobody,
    /// Nobody has asked yet, and this was said.
    Kept(Stuck),
    Set(OnStuck),
}

impl Vitals {
    /// Has something asked for what it has to do, each time somebody [looks](Self::sample). It is called from any thread
    /// and must not wait.
    pub fn source(&self, source: impl Fn() -> Sample + Send + Sync + 'static) {
        lock(&self.sources).push(Arc::new(source));
    }

    /// What all sources say together. `most` counts anew from here on; where several applications are hosted it is the sum
    /// of what each had, which need not have been at the same moment. `slots` is that of those which have a bound.
    pub fn sample(&self) -> Sample {
        let sources = lock(&self.sources).clone();
        sources.iter().map(|source| source()).fold(Sample::default(), Sample::and)
    }

    /// How many requests can be worked on at once; `None` where one of the sources has no bound, or there is none.
    pub fn bound(&self) -> Option<usize> {
        let sources = lock(&self.sources).clone();
        let slots: Vec<usize> = sources.iter().map(|source| source().slots).collect();
        (!slots.is_empty() && !slots.contains(&0)).then(|| slots.iter().sum())
    }

    /// Whether it can serve.
    pub fn readiness(&self) -> &Readiness {
        &self.readiness
    }

    /// What counts the requests of a site to an application; the same one for the same names.
    pub fn meter(&self, site: impl Into<String>, application: impl Into<String>) -> Arc<Meter> {
        lock(&self.meters).entry((site.into(), application.into())).or_default().clone()
    }

    /// What each meter has counted so far, in the order of their names.
    pub fn readings(&self) -> Vec<Reading> {
        let named = |((site, application), meter): (&(String, String), &Arc<Meter>)| Reading {
            site: site.clone(),
            application: application.clone(),
            ..meter.read()
        };
        lock(&self.meters).iter().map(named).collect()
    }

    /// Answers a question of this name from now on. It is called on any thread, one that no runtime and no interpreter
    /// knows, and has to work when everything else hangs.
    pub fn answers(&self, question: impl Into<String>, answer: impl Fn() -> String + Send + Sync + 'static) {
        lock(&self.answers).insert(question.into(), Arc::new(answer));
    }

    /// The answer to a question, which may take some seconds; `None` where nobody knows the question.
    pub fn ask(&self, question: &str) -> Option<String> {
        let answer = lock(&self.answers).get(question).cloned();
        answer.map(|answer| answer())
    }

    /// The questions that [`ask`](Self::ask) answers, in order.
    pub fn questions(&self) -> Vec<String> {
        lock(&self.answers).keys().cloned().collect()
    }

    /// Has this called with whatever the one who runs the generation tells it.
    pub fn on_told(&self, ear: impl Fn(&str) + Send + Sync + 'static) {
        lock(&self.told).push(Arc::new(ear));
    }

    /// Tells something to those in the generation who listen.
    pub fn tell(&self, text: &str) {
        let ears = lock(&self.told).clone();
        for ear in ears {
            ear(text);
        }
    }

    /// Has this called with whatever somebody in the generation wishes of the one who runs it. The last one that is set
    /// counts.
    pub fn on_wish(&self, ear: impl Fn(&str) + Send + Sync + 'static) {
        *lock(&self.wishes) = Some(Arc::new(ear));
    }

    /// Wishes for something; `false`: nobody hears it.
    pub fn wish(&self, wish: &str) -> bool {
        let ear = lock(&self.wishes).clone();
        ear.map(|ear| ear(wish)).is_some()
    }

    /// Has this called when something is stuck, on the thread that sees it; also for what was seen first before anybody
    /// asked. The last one that is set counts.
    pub fn on_stuck(&self, hook: impl Fn(&Stuck) + Send + Sync + 'static) {
        let hook: OnStuck = Arc::new(hook);
        let before = std::mem::replace(&mut *lock(&self.stuck), Hook::Set(hook.clone()));
        if let Hook::Kept(stuck) = before {
            hook(&stuck);
        }
    }

    /// Says that something does not move any more.
    pub fn stuck(&self, what: impl Into<String>, detail: impl Into<String>) {
        let stuck = Stuck { what: what.into(), detail: detail.into() };
        let hook = {
            let mut hook = lock(&self.stuck);
            match &mut *hook {
                Hook::Set(hook) => hook.clone(),
                Hook::Kept(_) => return,
                nobody @ Hook::Nobody => {
                    *nobody = Hook::Kept(stuck);
                    return;
                }
            }
        };
        hook(&stuck);
    }
}

impl Sample {
    fn and(self, other: Self) -> Self {
        Self {
            begun: self.begun.saturating_add(other.begun),
            running: self.running.saturating_add(other.running),
            most: self.most.saturating_add(other.most),
            slots: self.slots.saturating_add(other.slots),
            waiting: self.waiting.saturating_add(other.waiting),
        }
    }
}

impl fmt::Debug for Vitals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vitals").field("questions", &self.questions()).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_the_sum_of_the_sources() {
        let vitals = Vitals::default();
        assert_eq!(vitals.sample(), Sample::default());
        vitals.source(|| Sample { begun: 10, running: 2, most: 3, slots: 8, waiting: 1 });
        vitals.source(|| Sample { begun: 5, running: 1, most: 1, slots: 0, waiting: 0 });
        assert_eq!(vitals.sample(), Sample { begun: 15, running: 3, most: 4, slots: 8, waiting: 1 });
    }

    #[test]
    fn what_was_stuck_before_anybody_asked_is_told_once() {
        let vitals = Vitals::default();
        let heard: Arc<Mutex<Vec<String>>> = Arc::default();
        let hears = |heard: &Arc<Mutex<Vec<String>>>| {
            let heard = heard.clone();
            move |stuck: &Stuck| lock(&heard).push(stuck.what.clone())
        };
        vitals.stuck("first", "its stack");
        vitals.stuck("second", "");
        vitals.on_stuck(hears(&heard));
        vitals.stuck("third", "");
        vitals.on_stuck(hears(&heard));
        assert_eq!(*lock(&heard), ["first", "third"]);
    }

    #[test]
    fn wishes_are_heard_by_one_and_news_by_all() {
        let vitals = Vitals::default();
        assert!(!vitals.wish("rain"));
        let heard: Arc<Mutex<Vec<String>>> = Arc::default();
        for name in ["one", "other"] {
            let (told, wished) = (heard.clone(), heard.clone());
            vitals.on_told(move |text| lock(&told).push(format!("{name} is told {text}")));
            vitals.on_wish(move |wish| lock(&wished).push(format!("{name} hears {wish}")));
        }
        assert!(vitals.wish("rain"));
        vitals.tell("sun");
        assert_eq!(*lock(&heard), ["other hears rain", "one is told sun", "other is told sun"]);
    }

    #[test]
    fn a_source_may_look_at_the_vitals() {
        let vitals = Arc::new(Vitals::default());
        let inner = Arc::downgrade(&vitals);
        vitals.answers("questions", move || {
            inner.upgrade().map_or_else(String::new, |vitals| vitals.questions().join(" "))
        });
        assert_eq!(vitals.ask("questions").as_deref(), Some("questions"));
        assert_eq!(vitals.ask("weather"), None);
    }
}
