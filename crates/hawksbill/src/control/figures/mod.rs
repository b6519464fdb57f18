//! How much there is to do, and how it goes: by site, by application, and together.
//!
//! The processes that have the clients count ([`hawksbill_core::Meter`]); they are asked while somebody looks, and only
//! then.

mod ledger;
mod prometheus;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hawksbill_core::Reading;
use hawksbill_supervisor::{Handle, PoolStatus, State, Status};
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, watch};

use self::ledger::{Ledger, Readings};
use super::report::Condition;
use crate::processes::{FIGURES, Facts, Told};

/// How often those who watch are told.
pub(crate) const OFTEN: Duration = Duration::from_secs(1);

/// How old figures may be that are handed out again: several may watch.
const FRESH: Duration = Duration::from_millis(800);

/// How long processes may take to answer. They do so on a thread that has nothing else to do.
const PATIENCE: Duration = Duration::from_millis(500);

/// How many may watch at once.
const WATCHERS: usize = 16;

/// The pools of commands that run at certain times: nothing is to be seen of them between.
const CRON: &str = "cron.";

/// The figures of a gateway at a moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Figures {
    /// Seconds since 1970.
    pub(crate) time: f64,
    /// Over how many seconds rates and percentiles are taken; `None` at the first look, when there are none yet.
    pub(crate) window: Option<f64>,
    pub(crate) gateway: Whole,
    pub(crate) total: Row,
    pub(crate) sites: Vec<Row>,
    pub(crate) applications: Vec<Row>,
    /// Each site's requests to each application.
    pub(crate) routes: Vec<Row>,
    /// The pools that are no application: services, a front.
    pub(crate) others: BTreeMap<String, Crew>,
}

/// The gateway itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Whole {
    /// The version of the program.
    pub(crate) hawksbill: String,
    pub(crate) pid: u32,
    pub(crate) state: Condition,
    pub(crate) uptime: f64,
    pub(crate) serves: String,
    pub(crate) listen: Vec<String>,
}

/// What was counted. Times are seconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Row {
    /// Empty: none of the sites was meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) site: Option<String>,
    /// Empty: no route led to one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) application: Option<String>,
    pub(crate) requests: u64,
    /// Answers a second.
    pub(crate) rate: Option<f64>,
    /// How long it took until the head of an answer was there: half of them, and 99 %.
    pub(crate) p50: Option<f64>,
    pub(crate) p99: Option<f64>,
    /// Those that are still to be answered.
    pub(crate) in_flight: u64,
    /// Those whose client went away before.
    pub(crate) aborted: u64,
    pub(crate) client_errors: u64,
    pub(crate) client_error_rate: Option<f64>,
    pub(crate) server_errors: u64,
    pub(crate) server_error_rate: Option<f64>,
    /// The processes, where it has some of its own.
    #[serde(flatten)]
    pub(crate) crew: Option<Crew>,
}

/// The processes of a pool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Crew {
    /// How many there should be, and how many serve.
    pub(crate) workers: u32,
    pub(crate) serving: u32,
    /// Resident bytes of all of them.
    pub(crate) memory: u64,
    /// How often one ended unasked, and how the last did.
    pub(crate) restarts: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last_end: Option<String>,
    pub(crate) generation: u64,
    /// What they work on, of how much they can work on at once; 0: there is no bound.
    pub(crate) busy: u32,
    pub(crate) slots: u32,
    /// What waits for them.
    pub(crate) queue: u64,
}

/// Looks, when asked to. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Lookout {
    handle: Handle,
    began: Instant,
    serves: Arc<str>,
    facts: watch::Receiver<Facts>,
    state: Arc<Mutex<Looked>>,
    seats: Arc<Semaphore>,
}

#[derive(Default)]
struct Looked {
    ledger: Ledger,
    last: Option<(Instant, Arc<Figures>, Arc<Readings>)>,
}

impl Lookout {
    pub(crate) fn new(handle: Handle, began: Instant, serves: &str, facts: watch::Receiver<Facts>) -> Self {
        let seats = Arc::new(Semaphore::new(WATCHERS));
        Self { handle, began, serves: serves.into(), facts, state: Arc::default(), seats }
    }

    /// A place for one who watches; `None`: there are enough of them.
    pub(crate) fn seat(&self) -> Option<OwnedSemaphorePermit> {
        self.seats.clone().try_acquire_owned().ok()
    }

    /// The figures of now. `None` if the supervisor has ended.
    pub(crate) async fn look(&self) -> Option<Arc<Figures>> {
        self.see().await.map(|(figures, _)| figures)
    }

    /// The same in the text format of Prometheus.
    pub(crate) async fn exposition(&self) -> Option<String> {
        let (figures, readings) = self.see().await?;
        Some(prometheus::exposition(&figures, &readings))
    }

    async fn see(&self) -> Option<(Arc<Figures>, Arc<Readings>)> {
        let mut state = self.state.lock().await;
        let last = state.last.as_ref().filter(|(then, ..)| then.elapsed() < FRESH);
        if let Some((_, figures, readings)) = last {
            return Some((figures.clone(), readings.clone()));
        }
        let (status, answers) =
            tokio::join!(self.handle.status(), self.handle.query(None, FIGURES, PATIENCE));
        let status = status?;
        let mut queues: BTreeMap<String, u64> = BTreeMap::new();
        let mut told = BTreeMap::new();
        for (process, answer) in answers {
            // One of another version may have nothing to say.
            let Ok(Told { readings, queues: own }) = serde_json::from_value(answer) else { continue };
            told.insert(process, readings);
            for (name, waiting) in own {
                let queue = queues.entry(name).or_default();
                *queue = queue.saturating_add(waiting);
            }
        }
        let processes = status.pools.values().flat_map(|pool| &pool.processes);
        let alive: BTreeSet<u64> = processes.map(|process| process.process).collect();
        let now = Instant::now();
        let seen = state.ledger.take(told, &alive, now);
        let readings = Arc::new(seen.totals);
        let figures = Figures::of(&readings, seen.earlier.as_ref(), &crews(&status, &queues));
        let figures = Arc::new(Figures { gateway: self.whole(&status), ..figures });
        state.last = Some((now, figures.clone(), readings.clone()));
        Some((figures, readings))
    }
}

impl Lookout {
    fn whole(&self, status: &Status) -> Whole {
        let listen = self.facts.borrow().listen.clone();
        Whole {
            hawksbill: crate::VERSION.to_owned(),
            pid: status.pid,
            state: Condition::of(status, &listen),
            uptime: self.began.elapsed().as_secs_f64(),
            serves: self.serves.to_string(),
            listen,
        }
    }
}

fn crews(status: &Status, queues: &BTreeMap<String, u64>) -> BTreeMap<String, Crew> {
    let lasting = status.pools.iter().filter(|(name, _)| !name.starts_with(CRON));
    let crew = |name: &str, pool: &PoolStatus| Crew::of(pool, queues.get(name).copied().unwrap_or_default());
    lasting.map(|(name, pool)| (name.clone(), crew(name, pool))).collect()
}

impl Crew {
    fn of(pool: &PoolStatus, queue: u64) -> Self {
        let serving = || pool.processes.iter().filter(|process| process.state == State::Serving);
        let sum = |of: fn(&hawksbill_supervisor::Beat) -> u32| {
            serving().map(|process| of(&process.beat)).fold(0, u32::saturating_add)
        };
        Self {
            workers: pool.target,
            serving: u32::try_from(serving().count()).unwrap_or(u32::MAX),
            memory: pool.processes.iter().map(|process| process.rss).fold(0, u64::saturating_add),
            restarts: pool.deaths,
            last_end: pool.last_death.as_deref().and_then(|end| end.lines().next()).map(str::to_owned),
            generation: pool.generation,
            busy: sum(|beat| beat.busy),
            slots: sum(|beat| beat.slots),
            queue: queue.saturating_add(sum(|beat| beat.waiting).into()),
        }
    }

    fn and(self, other: &Self) -> Self {
        Self {
            workers: self.workers.saturating_add(other.workers),
            serving: self.serving.saturating_add(other.serving),
            memory: self.memory.saturating_add(other.memory),
            restarts: self.restarts.saturating_add(other.restarts),
            last_end: None,
            generation: self.generation.max(other.generation),
            busy: self.busy.saturating_add(other.busy),
            slots: self.slots.saturating_add(other.slots),
            queue: self.queue.saturating_add(other.queue),
        }
    }
}

type Key<'a> = (Option<&'a str>, Option<&'a str>);

impl Figures {
    fn of(totals: &Readings, earlier: Option<&(Duration, Readings)>, crews: &BTreeMap<String, Crew>) -> Self {
        let window = earlier.map(|(window, _)| window.as_secs_f64()).filter(|window| *window > 0.0);
        let rows = |key: fn(&Reading) -> Key<'_>| {
            let then = earlier.map(|(_, readings)| gathered(readings, key)).unwrap_or_default();
            let now = gathered(totals, key);
            let rows = now.into_iter().map(|(key, now)| {
                let earlier = then.get(&key).cloned().unwrap_or_default();
                Row::of(key, &now, window.map(|window| (window, now.since(&earlier))))
            });
            rows.collect::<Vec<Row>>()
        };
        let mut others = crews.clone();
        let mut applications = rows(|reading| (None, Some(&reading.application)));
        for row in &mut applications {
            row.crew = row.application.as_ref().and_then(|name| others.remove(name));
        }
        let mut total = rows(|_| (None, None)).pop().unwrap_or_default();
        total.crew = Some(crews.values().fold(Crew::default(), Crew::and));
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            time: since_1970.as_secs_f64(),
            window,
            gateway: Whole::default(),
            total,
            sites: rows(|reading| (Some(&reading.site), None)),
            applications,
            routes: rows(|reading| (Some(&reading.site), Some(&reading.application))),
            others,
        }
    }
}

/// The sums of those that have the same key.
fn gathered(readings: &Readings, key: fn(&Reading) -> Key<'_>) -> BTreeMap<Key<'_>, Reading> {
    let mut sums: BTreeMap<Key<'_>, Reading> = BTreeMap::new();
    for reading in readings.values() {
        sums.entry(key(reading)).or_default().add(reading);
    }
    sums
}

impl Row {
    fn of((site, application): Key<'_>, now: &Reading, lately: Option<(f64, Reading)>) -> Self {
        let rate = |of: fn(&Reading) -> u64| {
            lately.as_ref().map(|(window, lately)| rounded(number(of(lately)) / window))
        };
        let part = |part: f64| {
            let (_, lately) = lately.as_ref()?;
            Some(lately.latency.quantile(part)?.as_secs_f64())
        };
        Self {
            site: site.map(str::to_owned),
            application: application.map(str::to_owned),
            requests: now.begun,
            rate: rate(|reading| reading.latency.total()),
            p50: part(0.5),
            p99: part(0.99),
            in_flight: now.in_flight(),
            aborted: now.aborted,
            client_errors: now.client_errors,
            client_error_rate: rate(|reading| reading.client_errors),
            server_errors: now.server_errors,
            server_error_rate: rate(|reading| reading.server_errors),
            crew: None,
        }
    }
}

fn rounded(rate: f64) -> f64 {
    (rate * 1000.0).round() / 1000.0
}

#[allow(clippy::cast_precision_loss, reason = "what is shown of it has three digits")]
fn number(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(site: &str, application: &str, answered: u64) -> ((String, String), Reading) {
        let key = (site.to_owned(), application.to_owned());
        let mut reading = Reading {
            site: site.to_owned(),
            application: application.to_owned(),
            begun: answered + 1,
            server_errors: answered / 10,
            ..Reading::default()
        };
        reading.latency.count(Duration::from_millis(4), answered);
        (key, reading)
    }

    #[test]
    fn the_same_requests_are_counted_by_site_and_by_application() {
        let totals: Readings =
            [reading("a", "shop", 30), reading("b", "shop", 20), reading("b", "files", 10)].into();
        let earlier: Readings = [reading("a", "shop", 10), reading("b", "shop", 20)].into();
        let crews = [
            ("shop".to_owned(), Crew { memory: 50, workers: 2, ..Crew::default() }),
            ("front".to_owned(), Crew { memory: 7, workers: 1, ..Crew::default() }),
        ];
        let figures = Figures::of(&totals, Some(&(Duration::from_secs(4), earlier)), &crews.into());
        let rates = |rows: &[Row]| rows.iter().map(|row| (row.rate, row.in_flight)).collect::<Vec<_>>();
        assert_eq!(rates(&figures.sites), [(Some(5.0), 1), (Some(2.5), 2)]);
        assert_eq!(rates(&figures.applications), [(Some(2.5), 1), (Some(5.0), 2)]);
        assert_eq!(rates(std::slice::from_ref(&figures.total)), [(Some(7.5), 3)]);
        assert_eq!(figures.routes.len(), 3);
        assert_eq!(figures.total.server_error_rate, Some(0.75));
        let p99 = figures.sites[0].p99.unwrap();
        assert!((0.0035..0.0046).contains(&p99), "{p99}");
        assert_eq!(figures.total.crew.as_ref().map(|crew| crew.memory), Some(57));
        assert_eq!(figures.applications[1].crew.as_ref().map(|crew| crew.workers), Some(2));
        assert_eq!(figures.others.keys().collect::<Vec<_>>(), ["front"]);
        // Not every time survives its text to the last bit.
        let figures = Figures { time: 1.5, ..figures };
        let text = serde_json::to_string(&figures).unwrap();
        assert_eq!(serde_json::from_str::<Figures>(&text).unwrap(), figures);
    }

    #[test]
    fn the_first_look_has_no_rates() {
        let totals: Readings = [reading("a", "shop", 30)].into();
        let figures = Figures::of(&totals, None, &BTreeMap::new());
        assert_eq!((figures.window, figures.total.rate, figures.total.p50), (None, None, None));
        assert_eq!(figures.total.requests, 31);
    }
}
