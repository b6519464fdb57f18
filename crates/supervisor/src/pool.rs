//! The processes of a pool are kept as many as they should be.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::actor::Actor;
use crate::event::Event;
use crate::handle::Failure;
use crate::plan::{Pool, Size};
use crate::process::Process;
use crate::status::{PoolStatus, State};
use crate::wire::Beat;

/// How long the load must be too high until there is one more process.
const PRESSED: Duration = Duration::from_secs(2);

/// The part of the slots that is in use, on average, where a pool is full: between two requests a slot is empty.
const FULL: f64 = 0.9;

/// The part of the slots of one process fewer that may be in use where that one can go. Less than what makes a pool
/// full: otherwise it would be pressed again at once.
const FITS: f64 = 0.8;

/// A pool as it runs.
pub(crate) struct Running {
    pub(crate) spec: Arc<Pool>,
    pub(crate) generation: u64,
    pub(crate) target: u32,
    /// Deaths in a row, each soon after the process began to serve.
    series: u32,
    not_before: Option<Instant>,
    /// Whether a process of this generation has died already.
    pub(crate) failed: bool,
    /// How the last process ended, where that was the end of it.
    pub(crate) finished: Option<String>,
    pub(crate) deaths: u64,
    pub(crate) last_death: Option<String>,
    pub(crate) warm: Option<Warm>,
    pressed_since: Option<Instant>,
    idle_since: Option<Instant>,
}

/// The generation before, kept ready.
pub(crate) struct Warm {
    pub(crate) spec: Arc<Pool>,
    pub(crate) generation: u64,
    pub(crate) until: Instant,
}

/// What of a pool outlives the program.
#[derive(Serialize, Deserialize)]
pub(crate) struct Kept {
    spec: Pool,
    generation: u64,
    target: u32,
    deaths: u64,
    last_death: Option<String>,
    #[serde(default)]
    finished: Option<String>,
    warm: Option<(Pool, u64, Duration)>,
}

impl Running {
    pub(crate) fn new(spec: Arc<Pool>, generation: u64) -> Self {
        Self {
            target: spec.size.min,
            spec,
            generation,
            series: 0,
            not_before: None,
            failed: false,
            finished: None,
            deaths: 0,
            last_death: None,
            warm: None,
            pressed_since: None,
            idle_since: None,
        }
    }

    pub(crate) fn keep(&self, now: Instant) -> Kept {
        let warm = self.warm.as_ref();
        Kept {
            spec: Pool::clone(&self.spec),
            generation: self.generation,
            target: self.target,
            deaths: self.deaths,
            last_death: self.last_death.clone(),
            finished: self.finished.clone(),
            warm: warm.map(|warm| {
                (Pool::clone(&warm.spec), warm.generation, warm.until.saturating_duration_since(now))
            }),
        }
    }

    pub(crate) fn revive(kept: Kept, now: Instant) -> Self {
        let mut running = Self::new(Arc::new(kept.spec), kept.generation);
        running.target = kept.target;
        running.deaths = kept.deaths;
        running.last_death = kept.last_death;
        running.finished = kept.finished;
        running.warm = kept.warm.map(|(spec, generation, left)| Warm {
            spec: Arc::new(spec),
            generation,
            until: now + left,
        });
        running
    }

    /// Another generation serves, or the same one with other bounds.
    pub(crate) fn become_(&mut self, spec: Arc<Pool>, generation: u64) {
        self.target = self.target.clamp(spec.size.min, spec.size.max.max(spec.size.min));
        self.spec = spec;
        if self.generation != generation {
            self.generation = generation;
            self.series = 0;
            self.not_before = None;
            self.failed = false;
            self.finished = None;
        }
    }

    pub(crate) fn deadlines(&self) -> impl Iterator<Item = Instant> {
        self.warm.as_ref().map(|warm| warm.until).into_iter().chain(self.not_before)
    }

    /// A process has died that nobody had asked to; gives how long the next start is put off. Not long while `others`
    /// serve well: it is not the program that fails then.
    pub(crate) fn lost(&mut self, served: Option<Duration>, others: bool, now: Instant) -> Duration {
        let restart = &self.spec.restart;
        self.deaths += 1;
        self.failed = true;
        match served {
            Some(served) if served >= restart.stable => self.series = 0,
            Some(served) if served >= restart.soon => {}
            _ => self.series = self.series.saturating_add(1),
        }
        let wait = if served.is_some_and(|served| served >= restart.soon) {
            Duration::ZERO
        } else {
            let wait = restart.wait(self.series);
            if others { wait.min(restart.first) } else { wait }
        };
        self.not_before = (!wait.is_zero()).then(|| now + wait);
        wait
    }

    /// Others serve well now, who may have been too young to count when the last one died.
    fn others_serve(&mut self, now: Instant) {
        let first = now + self.spec.restart.first;
        self.not_before = self.not_before.map(|at| at.min(first));
    }

    pub(crate) fn status(&self, now: Instant) -> PoolStatus {
        let left = |at: Instant| at.saturating_duration_since(now);
        PoolStatus {
            generation: self.generation,
            fingerprint: self.spec.fingerprint.clone(),
            target: self.target,
            deaths: self.deaths,
            last_death: self.last_death.clone(),
            waits: self.not_before.map(left).filter(|wait| !wait.is_zero()),
            warm: self.warm.as_ref().map(|warm| (warm.generation, left(warm.until))),
            finished: self.finished.clone(),
            processes: Vec::new(),
        }
    }

    /// Follows the load; gives the new number of processes if it changes.
    fn scale(&mut self, serving: &[&Process], now: Instant) -> Option<u32> {
        let Size { min, max, idle } = self.spec.size;
        let slots = serving.iter().map(|process| process.beat.slots).min().unwrap_or(0);
        let count = u32::try_from(serving.len()).unwrap_or(u32::MAX);
        if max <= min || slots == 0 || count != self.target {
            (self.pressed_since, self.idle_since) = (None, None);
            return None;
        }
        // Not the most that each had: few requests, spread over all, give each its most at another moment.
        let load = |beat: &Beat| beat.load.unwrap_or_else(|| f64::from(beat.busy));
        let load: f64 = serving.iter().map(|process| load(&process.beat)).sum();
        let waiting: u32 = serving.iter().map(|process| process.beat.waiting).sum();
        let room = |count: u32| f64::from(slots) * f64::from(count);
        let is_full = waiting > 0 || load >= FULL * room(count);
        let fits_fewer = waiting == 0 && load < FITS * room(count.saturating_sub(1));
        let since = |is: bool, since: Option<Instant>| is.then(|| since.unwrap_or(now));
        self.pressed_since = since(is_full, self.pressed_since);
        self.idle_since = since(fits_fewer || load <= 0.0, self.idle_since);
        let lasted = |since: Option<Instant>, long| since.is_some_and(|since| now >= since + long);
        let target = if lasted(self.pressed_since, PRESSED) && count < max {
            count + 1
        } else if lasted(self.idle_since, idle) && count > min {
            count - 1
        } else {
            return None;
        };
        (self.pressed_since, self.idle_since) = (None, None);
        self.target = target;
        Some(target)
    }
}

impl Actor {
    /// Gives a pool another number of processes.
    pub(crate) fn scale(&mut self, name: &str, count: u32) -> Result<(), Failure> {
        let pool = self.pools.get_mut(name).ok_or_else(|| Failure::of(name, "there is no such pool"))?;
        let mut spec = Pool::clone(&pool.spec);
        spec.size = Size { min: count, max: count, ..spec.size };
        if let Some(planned) = self.plan.pools.get_mut(name) {
            planned.size = spec.size;
        }
        pool.target = count;
        pool.spec = Arc::new(spec);
        self.happened(Event::Scaled { pool: name.to_owned(), target: count });
        Ok(())
    }

    /// Keeps all pools as they should be.
    pub(crate) fn maintain(&mut self, looks: bool, now: Instant) {
        let names: Vec<String> = self.pools.keys().cloned().collect();
        for name in names {
            self.end_warmth(&name, now);
            if looks {
                self.look_at(&name, now);
            }
            self.retire(&name, now);
            self.hasten(&name, now);
            self.fill(&name, now);
        }
    }

    /// The processes of a pool that belong to the generation which serves.
    fn current<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Process> {
        let generation = self.pools.get(name).map(|pool| pool.generation);
        self.processes
            .values()
            .filter(move |process| process.pool == name && Some(process.generation) == generation)
    }

    fn end_warmth(&mut self, name: &str, now: Instant) {
        let Some(pool) = self.pools.get_mut(name) else { return };
        if pool.warm.as_ref().is_some_and(|warm| warm.until <= now)
            && let Some(warm) = pool.warm.take()
        {
            let ids = self.of_generation(name, warm.generation);
            self.leave(ids, false, now);
            self.tidy();
        }
    }

    pub(crate) fn of_generation(&self, name: &str, generation: u64) -> Vec<u64> {
        let all = self.processes.values();
        all.filter(|process| process.pool == name && process.generation == generation)
            .map(|process| process.id)
            .collect()
    }

    /// Looks at memory, age and load.
    fn look_at(&mut self, name: &str, now: Instant) {
        let serving: Vec<&Process> = self.current(name).filter(|process| process.serves()).collect();
        let calm = serving.iter().all(|process| process.retiring.is_none())
            && !self.current(name).any(Process::is_coming);
        if !calm {
            return;
        }
        let due = serving.iter().find_map(|process| Some((process.id, process.is_due(now)?)));
        if let Some((id, reason)) = due {
            let of = self.processes.get_mut(&id).map(|process| {
                process.retiring = Some((reason.clone(), now));
                process.of()
            });
            if let Some(of) = of {
                self.happened(Event::Retiring { of, reason });
            }
            return;
        }
        let generation = self.pools.get(name).map(|pool| pool.generation);
        let serving: Vec<&Process> = self
            .processes
            .values()
            .filter(|process| {
                process.pool == name && Some(process.generation) == generation && process.serves()
            })
            .collect();
        let scaled = self.pools.get_mut(name).and_then(|pool| pool.scale(&serving, now));
        if let Some(target) = scaled {
            self.happened(Event::Scaled { pool: name.to_owned(), target });
        }
    }

    /// Those that are to be replaced go when their replacements serve; a stuck one does not wait for ever.
    fn retire(&mut self, name: &str, now: Instant) {
        let Some(pool) = self.pools.get(name) else { return };
        let (target, patience) = (pool.target, pool.spec.start_timeout);
        // Replacements serve as soon as they are ready. Those of a plan wait for each other, and are not yet the current.
        let ready = |process: &&Process| process.state == State::Ready && process.exit.is_none();
        let ready: Vec<u64> = self.current(name).filter(ready).map(|process| process.id).collect();
        if !ready.is_empty() {
            self.serve(ready, now);
            self.announce(name, BTreeSet::new(), now);
        }
        let serving = self.current(name).filter(|process| process.serves());
        let (old, good): (Vec<&Process>, Vec<&Process>) =
            serving.partition(|process| process.retiring.is_some());
        let count = u32::try_from(good.len()).unwrap_or(u32::MAX);
        let mut go: Vec<u64> = Vec::new();
        for process in old {
            let waited = process.retiring.as_ref().is_some_and(|(_, since)| now >= *since + patience);
            if count >= target || waited {
                go.push(process.id);
            }
        }
        let surplus = usize::try_from(count.saturating_sub(target)).unwrap_or(0);
        let mut good = good;
        good.sort_by_key(|process| (process.beat.busy, std::cmp::Reverse(process.id)));
        go.extend(good.into_iter().take(surplus).map(|process| process.id));
        if !go.is_empty() {
            self.leave(go, false, now);
        }
    }

    /// Shortens the wait for the next start where others of the pool serve well meanwhile.
    fn hasten(&mut self, name: &str, now: Instant) {
        let Some(pool) = self.pools.get(name).filter(|pool| pool.not_before.is_some_and(|at| at > now))
        else {
            return;
        };
        let soon = pool.spec.restart.soon;
        let serves_well =
            |process: &Process| process.serves() && now.saturating_duration_since(process.since) >= soon;
        let others = self.current(name).any(serves_well);
        if let (true, Some(pool)) = (others, self.pools.get_mut(name)) {
            pool.others_serve(now);
        }
    }

    /// Starts what is missing.
    fn fill(&mut self, name: &str, now: Instant) {
        let Some(pool) = self.pools.get(name) else { return };
        if pool.not_before.is_some_and(|at| at > now) || !self.may_start(name, pool) {
            return;
        }
        let (spec, generation, target) = (Arc::clone(&pool.spec), pool.generation, pool.target);
        let there = self
            .current(name)
            .filter(|process| process.is_coming() || (process.serves() && process.retiring.is_none()));
        let there = u32::try_from(there.count()).unwrap_or(u32::MAX);
        for _ in there..target {
            if let Err(failure) = self.start(name, &spec, generation, now) {
                tracing::error!(target: "hawksbill::supervisor", "{failure}");
                if let Some(pool) = self.pools.get_mut(name) {
                    pool.last_death = Some(failure.reason);
                    pool.lost(None, false, now);
                }
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_ends_early_once_others_serve_well() {
        let now = Instant::now();
        let mut pool = Running::new(Arc::new(Pool::default()), 1);
        let restart = pool.spec.restart;
        // All die young, one after the other.
        for _ in 0..8 {
            pool.lost(Some(Duration::ZERO), false, now);
        }
        assert_eq!(pool.not_before, Some(now + restart.wait(8)));
        assert!(restart.wait(8) > restart.first);
        pool.others_serve(now);
        assert_eq!(pool.not_before, Some(now + restart.first));
        // Looking again does not put it off, and where nothing waits nothing is to be put off.
        pool.others_serve(now + restart.first);
        assert_eq!(pool.not_before, Some(now + restart.first));
        pool.not_before = None;
        pool.others_serve(now);
        assert_eq!(pool.not_before, None);
    }
}
