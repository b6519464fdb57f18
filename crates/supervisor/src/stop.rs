//! How processes end: one that died, and all in their order.

use std::collections::BTreeSet;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::actor::Actor;
use crate::event::Event;
use crate::exit::Exit;
use crate::handle::{Command, Failure};
use crate::plan::Kind;
use crate::process::{Ending, Process};
use crate::status::State;

impl Actor {
    /// A process is gone, and all that it said has been heard.
    pub(crate) fn bury(&mut self, id: u64, exit: Exit, now: Instant) {
        let Some(mut process) = self.processes.remove(&id) else { return };
        if process.forks.is_some() {
            self.bury_preloader(process, exit, now);
            return;
        }
        let is_task = process.spec.kind == Kind::Task;
        if let Some(awaited) = process.awaited.take() {
            let _ = awaited.send(Ok(exit));
        }
        let expected = is_task || process.is_going() || self.stopping.is_some();
        let said_so = process.failure.is_some();
        let message = process.message();
        let (of, served) = (process.of(), now.saturating_duration_since(process.since));
        let was = process.state;
        let fails_plan = !expected
            && process.spec.kind == Kind::Workers
            && self.job.as_ref().is_some_and(|job| job.can_fail() && job.generation == process.generation);
        self.happened(Event::Ended {
            of,
            exit: exit.to_string(),
            expected,
            message: message.clone(),
            answered: fails_plan,
        });
        self.confirmed(id, None, now);
        if matches!(was, State::Serving | State::Leaving) {
            self.announce(&process.pool, BTreeSet::new(), now);
        }
        if expected {
            return;
        }
        let reason = process.story(exit);
        if fails_plan {
            self.fail_job(Failure { pool: Some(process.pool), reason, message, said_so }, now);
            return;
        }
        let others = self.processes.values().any(|other| {
            let served = now.saturating_duration_since(other.since);
            other.pool == process.pool && other.serves() && served >= other.spec.restart.soon
        });
        let Some(pool) = self.pools.get_mut(&process.pool) else { return };
        if pool.generation != process.generation {
            return;
        }
        if !pool.spec.restart.when.restarts(exit) {
            pool.finished = Some(exit.to_string());
            self.happened(Event::Finished { pool: process.pool, exit: exit.to_string() });
            return;
        }
        pool.last_death = Some(reason);
        let wait = pool.lost(matches!(was, State::Serving | State::Leaving).then_some(served), others, now);
        if !wait.is_zero() {
            self.happened(Event::PutOff { pool: process.pool, seconds: wait.as_secs_f64() });
        }
    }

    /// Begins to end everything.
    pub(crate) fn stop(&mut self, at_once: bool, reply: Option<oneshot::Sender<()>>) {
        let now = Instant::now();
        self.stopping.get_or_insert_default().extend(reply);
        let ends = || Failure::new("the supervisor was told to end");
        self.fail_job(ends(), now);
        if let Some(trial) = &mut self.trial {
            trial.cancel(ends());
        }
        for command in std::mem::take(&mut self.jobs) {
            if let Command::Apply(_, reply) | Command::Reload(_, _, reply) = command {
                let _ = reply.send(Err(ends()));
            }
        }
        for process in self.processes.values_mut() {
            if at_once {
                process.end(now, Ending::AtOnce);
            } else {
                process.hurry(now);
            }
        }
    }

    /// Ends the processes that nobody follows any more, and nobody comes after.
    pub(crate) fn stop_in_order(&mut self, now: Instant) {
        let needs = |process: &Process| {
            let (follows, after) = (&process.spec.follows, &process.spec.after);
            follows.iter().chain(after).cloned().collect::<Vec<_>>()
        };
        let followed: BTreeSet<String> = self.processes.values().flat_map(needs).collect();
        let mut drained = Vec::new();
        for process in self.processes.values_mut() {
            if process.state != State::Ending && !followed.contains(&process.pool) {
                let at_once = process.is_coming() && process.spec.kind == Kind::Workers;
                process.end(now, if at_once { Ending::AtOnce } else { Ending::Drain });
                drained.push(process.of());
            }
        }
        for of in drained {
            self.happened(Event::Draining { of });
        }
    }
}
