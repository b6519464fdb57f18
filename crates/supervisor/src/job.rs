//! From one plan to the next: everything new is ready before anything old goes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::actor::Actor;
use crate::descriptors::Descriptors;
use crate::event::Event;
use crate::handle::{Applied, Apply, Command, Failure};
use crate::plan::{Kind, Plan, Pool};
use crate::pool::{Running, Warm};
use crate::process::Process;
use crate::status::State;

/// A plan that is being put into practice.
pub(crate) struct Job {
    pub(crate) plan: Plan,
    pub(crate) descriptors: Descriptors,
    pub(crate) generation: u64,
    /// The pools that get new processes before anything old goes, and how many; followers last.
    changed: Vec<(String, usize)>,
    /// Those of them that come after something that is not there yet.
    waiting: Vec<(String, usize)>,
    /// The programs that stand alone and are new or changed.
    services: Vec<String>,
    /// The pools that are looked after since the beginning of this plan.
    welcomed: BTreeSet<String>,
    /// Whether there was no plan before: then nobody waits for programs that nothing comes after.
    first: bool,
    /// Whether the plan is in practice.
    pub(crate) committed: bool,
    keep: Duration,
    probation: Duration,
    reply: oneshot::Sender<Result<Applied, Failure>>,
    /// Set once the new generation serves and is watched.
    watched: Option<Watched>,
}

/// What is needed to go back.
struct Watched {
    until: Instant,
    plan: Plan,
    removed: BTreeMap<String, Running>,
}

/// A pool that went back to a former generation, of which not all followers know yet.
pub(crate) struct Return {
    pool: String,
    generation: u64,
    reply: oneshot::Sender<Result<u64, Failure>>,
}

impl Job {
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.watched.as_ref().map(|watched| watched.until)
    }

    /// Whether the death of a new process means that the plan has failed.
    pub(crate) fn can_fail(&self) -> bool {
        !self.committed || self.watched.is_some()
    }

    fn names(&self) -> Vec<String> {
        self.changed.iter().map(|(name, _)| name).chain(&self.services).cloned().collect()
    }
}

impl Actor {
    /// Goes on with the plan at hand, or takes up the next one.
    pub(crate) fn work(&mut self, now: Instant) {
        if self.job.is_none()
            && self.trial.is_none()
            && let Some(command) = self.jobs.pop_front()
        {
            self.begin(command);
        }
        self.begin_waiting(now);
        let Some(job) = &self.job else { return };
        let ready = |(name, count): &(String, usize)| self.count_ready(name, job.generation) >= *count;
        if !job.committed
            && job.waiting.is_empty()
            && job.changed.iter().all(ready)
            && let Some(job) = self.job.take()
        {
            self.commit(job, now);
        }
        self.finish(now);
    }

    /// Starts the processes that came after something which is there now.
    fn begin_waiting(&mut self, now: Instant) {
        let Some(job) = self.job.as_mut().filter(|job| !job.waiting.is_empty()) else { return };
        let (plan, generation) = (job.plan.clone(), job.generation);
        let mut waiting = Vec::new();
        for (name, count) in std::mem::take(&mut job.waiting) {
            let Some(spec) = plan.pools.get(&name) else { continue };
            if !self.are_before(spec) {
                waiting.push((name, count));
                continue;
            }
            let spec = Arc::new(spec.clone());
            for _ in 0..count {
                if let Err(failure) = self.start(&name, &spec, generation, now) {
                    self.fail_job(failure, now);
                    return;
                }
            }
        }
        if let Some(job) = &mut self.job {
            job.waiting = waiting;
        }
    }

    /// A plan that is in practice, has been watched, of which all followers know, and whose programs have had their time,
    /// is done.
    fn finish(&mut self, now: Instant) {
        let Some(job) = self.job.as_mut().filter(|job| job.committed) else { return };
        if job.watched.as_ref().is_some_and(|watched| watched.until > now) {
            return;
        }
        if job.watched.take().is_some() {
            // The pools that are not in the plan any more had been kept until now.
            let all = self.processes.values();
            let gone: Vec<u64> =
                all.filter(|one| !self.pools.contains_key(&one.pool)).map(|one| one.id).collect();
            self.leave(gone, false, now);
            self.tidy();
        }
        let Some(job) = &self.job else { return };
        let there = job.first || job.services.iter().all(|name| self.is_there(name));
        let known = job.changed.iter().all(|(name, _)| self.is_known(name));
        if there
            && known
            && let Some(job) = self.job.take()
        {
            let failed = |name: &String| {
                let pool = self.pools.get(name).filter(|pool| pool.failed)?;
                Some((name.clone(), pool.last_death.clone().unwrap_or_default()))
            };
            let failing = job.services.iter().filter_map(failed).collect();
            let applied = Applied { generation: job.generation, pools: job.names(), failing };
            let _ = job.reply.send(Ok(applied));
        }
    }

    fn count_ready(&self, name: &str, generation: u64) -> usize {
        let mine = |process: &&Process| process.pool == name && process.generation == generation;
        let ready = |process: &&Process| process.state == State::Ready && process.exit.is_none();
        self.processes.values().filter(mine).filter(ready).count()
    }

    fn begin(&mut self, command: Command) {
        let (apply, reply) = match command {
            Command::Apply(apply, reply) => (*apply, reply),
            Command::Reload(pools, probation, reply) => {
                let force = if pools.is_empty() { self.pools.keys().cloned().collect() } else { pools };
                (Apply { plan: self.plan.clone(), force, probation, ..Apply::default() }, reply)
            }
            _ => return,
        };
        if let Err(failure) = self.check(&apply) {
            self.refuse(reply, failure);
            return;
        }
        let first = self.pools.is_empty();
        let (changed, services) = self.changed(&apply);
        self.last_generation += 1;
        let generation = self.last_generation;
        let Apply { plan, descriptors, keep, probation, .. } = apply;
        let welcomed = self.welcome(&plan, generation);
        self.job = Some(Job {
            plan,
            descriptors,
            generation,
            waiting: changed.clone(),
            changed,
            services,
            welcomed,
            first,
            committed: false,
            keep,
            probation,
            reply,
            watched: None,
        });
    }

    /// Whether a plan can be put into practice at all.
    fn check(&self, apply: &Apply) -> Result<(), Failure> {
        if self.stopping.is_some() {
            return Err(Failure::new("the supervisor is about to end"));
        }
        let pools = &apply.plan.pools;
        if let Some(unknown) = apply.force.iter().find(|name| !pools.contains_key(*name)) {
            return Err(Failure::of(unknown, "there is no such pool"));
        }
        if let Some(known) = apply.descriptors.names().find(|name| self.descriptors.get(name).is_some()) {
            return Err(Failure::new(format!("there is a descriptor named '{known}' already")));
        }
        for (name, pool) in pools {
            if let Some(unknown) = pool.follows.iter().find(|other| !pools.contains_key(*other)) {
                return Err(Failure::of(name, format!("it follows '{unknown}', which is no pool")));
            }
            // What is followed and follows itself could never be stopped in order.
            if pool.follows.iter().any(|other| pools.get(other).is_some_and(|pool| !pool.follows.is_empty()))
            {
                return Err(Failure::of(name, "it follows a pool that follows another"));
            }
            let service = |other: &&String| pools.get(*other).is_some_and(|pool| pool.kind == Kind::Service);
            if let Some(wrong) = pool.after.iter().find(|other| !service(other)) {
                return Err(Failure::of(name, format!("it comes after '{wrong}', which is no service")));
            }
            if pool.preload && !(pool.kind == Kind::Workers && pool.speaks && pool.follows.is_empty()) {
                let reason = "only workers that speak and follow nobody can be forked from a preloader";
                return Err(Failure::of(name, reason));
            }
            if comes_after(pools, name, name) {
                return Err(Failure::of(name, "it comes after itself"));
            }
            let there =
                |name: &str| apply.descriptors.get(name).or_else(|| self.descriptors.get(name)).is_some();
            if let Some(missing) = pool.inherit.iter().find(|name| !there(name)) {
                return Err(Failure::of(name, format!("there is no descriptor named '{missing}'")));
            }
        }
        Ok(())
    }

    /// The pools of workers that get new processes, and how many; and the other pools that are new or changed.
    fn changed(&self, apply: &Apply) -> (Vec<(String, usize)>, Vec<String>) {
        let mut changed: Vec<(String, usize)> = Vec::new();
        let mut services = Vec::new();
        for (name, pool) in &apply.plan.pools {
            let running = self.pools.get(name);
            if !apply.force.contains(name) && running.is_some_and(|running| running.spec.runs_the_same(pool))
            {
                continue;
            }
            if pool.kind != Kind::Workers {
                services.push(name.clone());
                continue;
            }
            let bounds = (pool.size.min, pool.size.max.max(pool.size.min));
            let count = running.map_or(pool.size.min, |running| running.target.clamp(bounds.0, bounds.1));
            changed.push((name.clone(), usize::try_from(count).unwrap_or(0)));
        }
        changed
            .sort_by_key(|(name, _)| apply.plan.pools.get(name).is_some_and(|pool| !pool.follows.is_empty()));
        (changed, services)
    }

    /// The new processes are all ready: they serve, then the old ones go.
    fn commit(&mut self, mut job: Job, now: Instant) {
        let former = std::mem::replace(&mut self.plan, job.plan.clone());
        self.descriptors.extend(std::mem::take(&mut job.descriptors));
        let watched = !job.probation.is_zero() && !job.first;
        let keep = if watched { job.keep.max(job.probation) } else { job.keep };
        for (name, _) in &job.changed {
            self.switch(name, job.generation, keep, now);
        }
        for name in job.services.iter().filter(|name| !job.welcomed.contains(*name)) {
            if let Some(spec) = job.plan.pools.get(name) {
                self.succeed(name, Arc::new(spec.clone()), job.generation, now);
            }
        }
        let plan = &self.plan;
        let gone: Vec<String> =
            self.pools.keys().filter(|name| !plan.pools.contains_key(*name)).cloned().collect();
        let mut removed = BTreeMap::new();
        for name in gone {
            let all = self.processes.values().filter(|process| process.pool == name);
            let ids: Vec<u64> = all.map(|process| process.id).collect();
            self.leave(ids, watched, now);
            removed.extend(self.pools.remove_entry(&name));
        }
        self.adjust();
        self.happened(Event::Applied { generation: job.generation, pools: job.names() });
        job.committed = true;
        if watched {
            job.watched = Some(Watched { until: now + job.probation, plan: former, removed });
            self.job = Some(job);
        } else {
            self.job = Some(job);
            self.tidy();
        }
    }

    /// One pool goes over to a new generation.
    fn switch(&mut self, name: &str, generation: u64, keep: Duration, now: Instant) {
        let Some(spec) = self.plan.pools.get(name).cloned().map(Arc::new) else { return };
        let old: Vec<u64> =
            self.processes.values().filter(|process| process.pool == name).map(|p| p.id).collect();
        let new: BTreeSet<u64> = self.of_generation(name, generation).into_iter().collect();
        let old = old.into_iter().filter(|id| !new.contains(id));
        self.serve(new.iter().copied(), now);
        let (mut warm, mut gone) = (Vec::new(), Vec::new());
        let former = self.pools.get(name).map(|pool| pool.generation);
        for id in old {
            let is_former = self.processes.get(&id).is_some_and(|process| Some(process.generation) == former);
            if is_former && !keep.is_zero() { warm.push(id) } else { gone.push(id) }
        }
        match self.pools.get_mut(name) {
            Some(pool) => {
                let (old_spec, old_generation) = (Arc::clone(&pool.spec), pool.generation);
                pool.warm = (!keep.is_zero()).then(|| Warm {
                    spec: old_spec,
                    generation: old_generation,
                    until: now + keep,
                });
                pool.become_(spec, generation);
            }
            None => {
                self.pools.insert(name.to_owned(), Running::new(spec, generation));
            }
        }
        self.announce(name, BTreeSet::new(), now);
        self.leave(gone, false, now);
        self.leave(warm, true, now);
    }

    /// What changed without the need of new processes: sizes, times.
    fn adjust(&mut self) {
        for (name, pool) in &mut self.pools {
            let Some(planned) = self.plan.pools.get(name) else { continue };
            if *pool.spec == *planned {
                continue;
            }
            let spec = Arc::new(planned.clone());
            let resized = pool.spec.size != spec.size;
            let generation = pool.generation;
            pool.become_(Arc::clone(&spec), generation);
            if resized && spec.size.min == spec.size.max {
                pool.target = spec.size.min;
            }
            let current = self.processes.values_mut();
            for process in current.filter(|one| &one.pool == name && one.generation == generation) {
                process.due = crate::process::with_jitter(&spec.recycle, process.id);
                process.spec = Arc::clone(&spec);
            }
        }
    }

    /// A new process did not start, or died on probation: everything is as it was.
    pub(crate) fn fail_job(&mut self, failure: Failure, now: Instant) {
        let Some(mut job) = self.job.take() else { return };
        if !job.can_fail() {
            self.refuse(job.reply, failure);
            return;
        }
        let former = job.watched.as_ref().map(|watched| watched.plan.clone());
        if let Some(watched) = job.watched.take() {
            self.plan = watched.plan;
            self.pools.extend(watched.removed);
            let all: Vec<String> = self.pools.keys().cloned().collect();
            for name in all {
                if self.plan.pools.contains_key(&name) {
                    self.go_back(&name, job.generation, now);
                } else {
                    self.pools.remove(&name);
                }
            }
            self.adjust();
            self.tidy();
        }
        let new: Vec<u64> = self
            .processes
            .values()
            .filter(|process| process.generation == job.generation)
            .map(|process| process.id)
            .collect();
        self.leave(new, false, now);
        self.forget(&job.welcomed, former.as_ref(), now);
        self.refuse(job.reply, failure);
    }

    fn refuse(&self, reply: oneshot::Sender<Result<Applied, Failure>>, failure: Failure) {
        self.happened(Event::Refused { message: failure.to_string() });
        let _ = reply.send(Err(failure));
    }

    /// A pool goes back from this generation to the one before; gives that one's number.
    fn go_back(&mut self, name: &str, from: u64, now: Instant) -> Option<u64> {
        let pool = self.pools.get_mut(name)?;
        if pool.generation == from {
            let warm = pool.warm.take()?;
            pool.become_(warm.spec, warm.generation);
        }
        let generation = pool.generation;
        let kept = |process: &&Process| {
            process.pool == name
                && process.generation == generation
                && process.exit.is_none()
                && (process.state == State::Paused || (process.state == State::Leaving && process.keep))
        };
        let kept: Vec<u64> = self.processes.values().filter(kept).map(|process| process.id).collect();
        if kept.is_empty() {
            return Some(generation);
        }
        for id in &kept {
            if let Some(process) = self.processes.get_mut(id) {
                process.keep = false;
            }
        }
        self.serve(kept, now);
        self.announce(name, BTreeSet::new(), now);
        self.happened(Event::RolledBack { pool: name.to_owned(), generation });
        Some(generation)
    }

    /// Goes back by hand, and says so when all followers know.
    pub(crate) fn roll_back(&mut self, pool: String, reply: oneshot::Sender<Result<u64, Failure>>) {
        match self.may_change().and_then(|()| self.return_to_former(&pool)) {
            Ok(generation) => self.returns.push(Return { pool, generation, reply }),
            Err(failure) => {
                let _ = reply.send(Err(failure));
            }
        }
    }

    /// Answers those whose pools nobody sends to the generation that was left.
    pub(crate) fn answer_returns(&mut self) {
        for back in std::mem::take(&mut self.returns) {
            if self.is_known(&back.pool) {
                let _ = back.reply.send(Ok(back.generation));
            } else {
                self.returns.push(back);
            }
        }
    }

    fn return_to_former(&mut self, name: &str) -> Result<u64, Failure> {
        let now = Instant::now();
        let pool = self.pools.get(name).ok_or_else(|| Failure::of(name, "there is no such pool"))?;
        let (from, warm) = (pool.generation, pool.warm.as_ref());
        let none = || Failure::of(name, "no former generation is kept; deploy it again");
        let (to, spec) = warm.map(|warm| (warm.generation, Arc::clone(&warm.spec))).ok_or_else(none)?;
        if self.job.as_ref().is_some_and(|job| job.watched.is_some() && job.generation == from) {
            self.fail_job(Failure::of(name, "it was rolled back"), now);
            return Ok(to);
        }
        let alive = self.processes.values().any(|process| {
            process.pool == name && process.generation == to && process.exit.is_none() && !process.is_going()
        });
        if !alive {
            return Err(Failure::of(
                name,
                "the processes of the former generation have died; deploy it again",
            ));
        }
        self.plan.pools.insert(name.to_owned(), Pool::clone(&spec));
        self.go_back(name, from, now);
        let new = self.of_generation(name, from);
        self.leave(new, false, now);
        self.tidy();
        Ok(to)
    }

    /// Closes the descriptors that nothing needs any more.
    pub(crate) fn tidy(&mut self) {
        let mut wanted: BTreeSet<&str> = BTreeSet::new();
        let warm = self.pools.values().filter_map(|pool| pool.warm.as_ref());
        let specs = self.pools.values().map(|pool| &pool.spec).chain(warm.map(|warm| &warm.spec));
        let job = self.job.iter();
        let former = job.clone().filter_map(|job| job.watched.as_ref()).map(|watched| &watched.plan);
        let planned = job.map(|job| &job.plan).chain(former).flat_map(|plan| plan.pools.values());
        for spec in specs.map(AsRef::as_ref).chain(planned) {
            wanted.extend(spec.inherit.iter().map(String::as_str));
        }
        self.descriptors.retain(|name| wanted.contains(name));
    }
}

/// Whether a pool comes after another, directly or not.
fn comes_after(pools: &BTreeMap<String, Pool>, name: &str, other: &str) -> bool {
    let (mut seen, mut next) = (BTreeSet::new(), vec![name]);
    while let Some(name) = next.pop() {
        let Some(pool) = pools.get(name) else { continue };
        if pool.after.contains(other) {
            return true;
        }
        next.extend(pool.after.iter().map(String::as_str).filter(|name| seen.insert(*name)));
    }
    false
}
