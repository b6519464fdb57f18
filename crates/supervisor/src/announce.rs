//! Who serves, told to those who follow; and processes leaving only when nobody sends them anything new.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use crate::actor::Actor;
use crate::event::Event;
use crate::plan::Kind;
use crate::process::{Ending, Process};
use crate::status::State;
use crate::wire::{Member, Order};

/// How long a follower may take to let go of a process that leaves.
const PATIENCE: Duration = Duration::from_secs(5);

/// Something that followers were told and have not all confirmed.
#[derive(Debug)]
pub(crate) struct Announcement {
    id: u64,
    pool: String,
    waits_for: BTreeSet<u64>,
    leaving: BTreeSet<u64>,
    pub(crate) deadline: Instant,
}

impl Actor {
    /// Tells the followers of a pool who serves in it.
    pub(crate) fn announce(&mut self, pool: &str, leaving: BTreeSet<u64>, now: Instant) {
        let id = self.number();
        let order = Order::Members { id, pool: pool.to_owned(), members: self.members(pool) };
        let mut waits_for = BTreeSet::new();
        let followers = self
            .processes
            .values()
            .filter(|process| process.known && process.exit.is_none() && process.spec.follows.contains(pool));
        for follower in followers {
            follower.say(&order);
            // One that does not serve yet sends nothing anywhere.
            if !follower.is_coming() {
                waits_for.insert(follower.id);
            }
        }
        if leaving.is_empty() {
            return;
        }
        let deadline = now + PATIENCE;
        self.announcements.push(Announcement { id, pool: pool.to_owned(), waits_for, leaving, deadline });
        self.let_go(now);
    }

    /// What a process that has just said hello needs to know of the pools that its pool follows.
    pub(crate) fn introduce(&self, process: &Process) {
        for pool in &process.spec.follows {
            process.say(&Order::Members { id: 0, pool: pool.clone(), members: self.members(pool) });
        }
    }

    fn members(&self, pool: &str) -> Vec<Member> {
        let members = self.processes.values().filter(|process| process.pool == pool && process.serves());
        members
            .map(|process| Member {
                process: process.id,
                generation: process.generation,
                info: process.info.clone(),
            })
            .collect()
    }

    /// A follower has confirmed an announcement, or has ended.
    pub(crate) fn confirmed(&mut self, follower: u64, announcement: Option<u64>, now: Instant) {
        for told in &mut self.announcements {
            if announcement.is_none_or(|id| id == told.id) {
                told.waits_for.remove(&follower);
            }
        }
        self.let_go(now);
    }

    /// Whether all who follow a pool know who serves in it, so that they send nothing to those who leave.
    pub(crate) fn is_known(&self, pool: &str) -> bool {
        self.announcements.iter().all(|told| told.pool != pool)
    }

    /// Processes of which everybody has let go are paused or drained.
    pub(crate) fn let_go(&mut self, now: Instant) {
        let all = std::mem::take(&mut self.announcements);
        let (free, wait): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|told| told.waits_for.is_empty() || told.deadline <= now);
        self.announcements = wait;
        for id in free.into_iter().flat_map(|told| told.leaving) {
            let Some(process) = self.processes.get_mut(&id) else { continue };
            if process.state != State::Leaving {
                continue;
            }
            if process.keep {
                process.say(&Order::Pause);
                process.become_(State::Paused, now);
            } else {
                process.end(now, Ending::Replaced);
                let of = process.of();
                self.happened(Event::Draining { of });
            }
        }
    }

    /// These processes are to go: to be kept warm, or to be drained. They are still sent requests until the followers
    /// of their pools know.
    pub(crate) fn leave(&mut self, ids: impl IntoIterator<Item = u64>, keep: bool, now: Instant) {
        let mut pools: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
        for id in ids {
            let Some(process) = self.processes.get_mut(&id) else { continue };
            match process.state {
                // It is for the replacements of those that are kept.
                State::Preloaded if keep => {}
                State::Ending => {}
                State::Serving | State::Leaving => {
                    process.keep = keep;
                    process.become_(State::Leaving, now);
                    pools.entry(process.pool.clone()).or_default().insert(id);
                }
                // What knows nothing of plans has no less to put in order because it is not ready.
                State::Starting | State::Ready if process.spec.kind != Kind::Workers => {
                    process.end(now, Ending::Replaced);
                }
                State::Starting | State::Ready | State::Loading | State::Preloaded => {
                    process.end(now, Ending::AtOnce);
                }
                State::Paused => process.end(now, Ending::Replaced),
            }
        }
        for (pool, leaving) in pools {
            self.announce(&pool, leaving, now);
        }
    }

    /// Ready or paused processes serve from now on.
    pub(crate) fn serve(&mut self, ids: impl IntoIterator<Item = u64>, now: Instant) {
        for id in ids {
            // A preloader never serves.
            let process = self.processes.get_mut(&id).filter(|process| process.forks.is_none());
            let Some(process) = process else { continue };
            process.become_(State::Serving, now);
            self.progress = true;
            process.say(&Order::Serve);
            let of = process.of();
            self.happened(Event::Serving { of });
        }
    }
}
