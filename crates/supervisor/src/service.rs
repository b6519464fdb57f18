//! Programs that know nothing of a supervisor: those that stand alone ([`Kind::Service`]), and those that run now and then
//! ([`Kind::Task`]).

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::actor::Actor;
use crate::exit::Exit;
use crate::handle::{Command, Failure};
use crate::plan::{Kind, Plan, Pool};
use crate::pool::Running;
use crate::process::Process;
use crate::wire::Report;

impl Actor {
    /// Whether a pool need not be waited for: it serves, or it has shown that it does not.
    pub(crate) fn is_there(&self, name: &str) -> bool {
        let Some(pool) = self.pools.get(name) else { return true };
        let idle = pool.spec.kind == Kind::Task || pool.target == 0;
        let empty = idle || pool.failed || pool.finished.is_some();
        let serves = |process: &Process| {
            process.pool == name && process.generation == pool.generation && process.serves()
        };
        empty || self.processes.values().any(serves)
    }

    /// Whether everything that a pool comes after is there.
    pub(crate) fn are_before(&self, pool: &Pool) -> bool {
        pool.after.iter().all(|other| self.is_there(other))
    }

    /// Whether the pool's next process may be started, but for the time that it is put off.
    pub(crate) fn may_start(&self, name: &str, pool: &Running) -> bool {
        match pool.spec.kind {
            Kind::Workers => true,
            Kind::Task => false,
            Kind::Service => {
                // Not beside what is about to end.
                let old =
                    |process: &Process| process.pool == name && !process.is_coming() && !process.serves();
                pool.finished.is_none() && self.are_before(&pool.spec) && !self.processes.values().any(old)
            }
        }
    }

    /// The programs that are new and stand alone are looked after from the beginning of a plan on: they disturb nobody.
    /// Gives their names.
    pub(crate) fn welcome(&mut self, plan: &Plan, generation: u64) -> BTreeSet<String> {
        let mut welcomed = BTreeSet::new();
        for (name, pool) in &plan.pools {
            if pool.kind != Kind::Workers && !self.pools.contains_key(name) {
                self.pools.insert(name.clone(), Running::new(Arc::new(pool.clone()), generation));
                welcomed.insert(name.clone());
            }
        }
        welcomed
    }

    /// A pool of programs that stand alone goes over to another generation: what runs ends, then the next is started.
    pub(crate) fn succeed(&mut self, name: &str, spec: Arc<Pool>, generation: u64, now: Instant) {
        let Some(pool) = self.pools.get_mut(name) else { return };
        let is_task = spec.kind == Kind::Task;
        pool.become_(spec, generation);
        if is_task {
            return;
        }
        let old = self.processes.values();
        let old = old.filter(|process| process.pool == name && process.generation != generation);
        let old: Vec<u64> = old.map(|process| process.id).collect();
        self.leave(old, false, now);
    }

    /// A plan has failed: what it had begun to look after goes, and what it had replaced comes back.
    pub(crate) fn forget(&mut self, welcomed: &BTreeSet<String>, former: Option<&Plan>, now: Instant) {
        for name in welcomed {
            self.pools.remove(name);
            let all = self.processes.values().filter(|process| &process.pool == name);
            let ids: Vec<u64> = all.map(|process| process.id).collect();
            self.leave(ids, false, now);
        }
        for (name, pool) in former.into_iter().flat_map(|plan| &plan.pools) {
            let running = self.pools.get(name).map(|running| Arc::clone(&running.spec));
            if pool.kind != Kind::Workers && running.is_some_and(|spec| !spec.runs_the_same(pool)) {
                self.last_generation += 1;
                self.succeed(name, Arc::new(pool.clone()), self.last_generation, now);
            }
        }
    }

    /// Somebody has found that a process is ready.
    pub(crate) fn found_ready(&mut self, id: u64) {
        if self.processes.get(&id).is_some_and(|process| process.spec.told_ready) {
            self.report(id, Report::Ready { info: serde_json::Value::Null }, Instant::now());
        }
    }

    /// Starts the one process of a task.
    pub(crate) fn once(&mut self, name: &str, reply: oneshot::Sender<Result<Exit, Failure>>) {
        let refused = |reason: &str| Err(Failure::of(name, reason));
        let task = self.pools.get(name).filter(|pool| pool.spec.kind == Kind::Task);
        let Some((spec, generation)) = task.map(|pool| (Arc::clone(&pool.spec), pool.generation)) else {
            let _ = reply.send(refused("there is no such task"));
            return;
        };
        if self.stopping.is_some() {
            let _ = reply.send(refused("the supervisor is about to end"));
            return;
        }
        if self.processes.values().any(|process| process.pool == name) {
            let _ = reply.send(refused("it still runs"));
            return;
        }
        match self.start(name, &spec, generation, Instant::now()) {
            Ok(id) => {
                if let Some(process) = self.processes.get_mut(&id) {
                    process.awaited = Some(reply);
                }
            }
            Err(failure) => drop(reply.send(Err(failure))),
        }
    }

    /// Asks the process of a task to end.
    pub(crate) fn cancel(&mut self, name: &str) {
        let now = Instant::now();
        let task = |process: &&Process| process.pool == name && process.spec.kind == Kind::Task;
        let ids: Vec<u64> = self.processes.values().filter(task).map(|process| process.id).collect();
        self.leave(ids, false, now);
    }

    /// Whether a command changes nothing but a single process; obeyed at once then.
    pub(crate) fn obey_one(&mut self, command: Command) {
        match command {
            Command::Ready(id) => self.found_ready(id),
            Command::Once(pool, reply) => self.once(&pool, reply),
            Command::Cancel(pool) => self.cancel(&pool),
            _ => {}
        }
    }
}
