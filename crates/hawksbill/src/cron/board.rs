//! What is known of each command: its next run, its last, what was left out.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hawksbill_supervisor::Exit;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Job;

/// What `hawksbill status` shows of a command. Times are of its zone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Shown {
    pub(crate) schedule: String,
    pub(crate) timezone: Option<String>,
    /// When it is due next.
    pub(crate) next: Option<String>,
    /// The last run that has ended here.
    pub(crate) last: Option<Run>,
    /// How many runs were left out.
    pub(crate) missed: usize,
    /// Why the last of them was.
    pub(crate) last_missed: Option<String>,
}

/// A run that has ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Run {
    /// When it began.
    pub(crate) began: String,
    /// How long it took.
    pub(crate) seconds: f64,
    /// How it ended, in words.
    pub(crate) exit: String,
}

/// All commands by their names. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Board(Arc<Mutex<BTreeMap<String, Shown>>>);

impl Board {
    pub(crate) fn shown(&self) -> BTreeMap<String, Shown> {
        self.all().clone()
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Shown>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, job: &Job, change: impl FnOnce(&mut Shown)) {
        // Nothing is remembered of what is no longer configured.
        if let Some(shown) = self.all().get_mut(&job.name) {
            change(shown);
        }
    }

    pub(super) fn retain(&self, wanted: impl Fn(&str) -> bool) {
        self.all().retain(|name, _| wanted(name));
    }

    pub(super) fn begin(&self, job: &Job) {
        let mut all = self.all();
        let shown = all.entry(job.name.clone()).or_default();
        shown.schedule.clone_from(&job.table.schedule);
        shown.timezone.clone_from(&job.table.timezone);
    }

    pub(super) fn next(&self, job: &Job, due: Timestamp) {
        self.change(job, |shown| shown.next = Some(job.schedule.shown(due)));
    }

    pub(super) fn runs(job: &Job, due: Timestamp) -> Timestamp {
        let (name, due) = (&job.name, job.schedule.shown(due));
        tracing::info!(target: "hawksbill::cron", "{name}: the run of {due} begins");
        Timestamp::now()
    }

    pub(super) fn ended(&self, job: &Job, began: Timestamp, exit: Exit) {
        let took = Duration::try_from(Timestamp::now().duration_since(began)).unwrap_or_default();
        let (name, seconds) = (&job.name, took.as_secs_f64());
        if exit.is_clean() {
            tracing::info!(target: "hawksbill::cron", "{name}: it ended with {exit} after {seconds:.1} s");
        } else {
            tracing::error!(target: "hawksbill::cron", "{name}: it ended with {exit} after {seconds:.1} s");
        }
        let last = Run { began: job.schedule.shown(began), seconds, exit: exit.to_string() };
        self.change(job, |shown| shown.last = Some(last));
    }

    pub(super) fn missed(&self, job: &Job, count: usize, why: &str) {
        tracing::warn!(target: "hawksbill::cron", "{}: a run is left out: {why}", job.name);
        self.change(job, |shown| {
            shown.missed += count;
            shown.last_missed = Some(why.to_owned());
        });
    }
}
