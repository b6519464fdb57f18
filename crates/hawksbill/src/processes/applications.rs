//! The applications of a front: for each a pool of connections to its workers, which come and go.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::time::Duration;

use hawksbill_core::{Readiness, Turtle};
use hawksbill_hop::{Pool, PoolSettings, WorkerId};
use hawksbill_supervisor::Member;

use super::{Reached, hop_settings};
use crate::Config;
use crate::config::AppNode;

/// How long new workers are waited for until those that they replace are let go of all the same. Shorter than the
/// supervisor's patience with this process.
const PATIENCE: Duration = Duration::from_secs(3);

/// How many requests wait for a worker of an application that does not say.
const QUEUE: usize = 1024;

/// All of them, by name.
pub(super) struct Applications(HashMap<String, Application>);

struct Application {
    pool: Pool,
    workers: HashMap<PathBuf, WorkerId>,
}

impl Applications {
    /// Those of a configuration that have processes of their own; nobody serves them yet.
    pub(super) fn of(config: &Config) -> Self {
        let own = config.apps.iter().filter(|(_, node)| node.processes.is_some());
        Self(own.map(|(name, node)| (name.clone(), Application::new(name, node))).collect())
    }

    /// What asks them.
    pub(super) fn turtles(&self) -> HashMap<String, Turtle> {
        self.0.iter().map(|(name, application)| (name.clone(), application.pool.turtle())).collect()
    }

    /// Has each of them answer whether it has a worker that takes requests.
    pub(super) fn tell(&self, readiness: &Readiness) {
        for (name, application) in &self.0 {
            let pool = application.pool.clone();
            readiness.application(&**name, move || pool.workers().iter().any(|worker| worker.ready));
        }
    }

    /// Their pools of workers.
    pub(super) fn pools(&self) -> Vec<(String, Pool)> {
        self.0.iter().map(|(name, application)| (name.clone(), application.pool.clone())).collect()
    }

    /// Waits until each of them has such a worker.
    pub(super) fn all_serve(&self) -> impl Future<Output = ()> + Send + use<> {
        let pools: Vec<Pool> = self.0.values().map(|application| application.pool.clone()).collect();
        async move {
            for pool in pools {
                pool.any_ready().await;
            }
        }
    }

    /// Takes on the new workers of an application. What is given back waits until they are there, and lets go of those
    /// that are listed no more: then these get nothing new.
    pub(super) fn follow(
        &mut self,
        name: &str,
        members: &[Member],
    ) -> impl Future<Output = ()> + Send + use<> {
        let change = self.0.get_mut(name).map(|application| application.change(members));
        async move {
            let Some((pool, here, gone)) = change else { return };
            let all_there = async {
                for worker in here {
                    pool.ready(worker).await;
                }
            };
            // One that does not come is told of by the pool.
            let _ = tokio::time::timeout(PATIENCE, all_there).await;
            for worker in gone {
                tokio::spawn(pool.drain(worker));
            }
        }
    }
}

impl Application {
    fn new(name: &str, node: &AppNode) -> Self {
        // The kinds that have a queue call it so.
        let queue = node.app.settings().get("queue").and_then(serde_json::Value::as_u64);
        let queue = queue.and_then(|queue| usize::try_from(queue).ok()).unwrap_or(QUEUE);
        let settings = PoolSettings {
            name: format!("application {name}"),
            connection: hop_settings(),
            queue,
            ..PoolSettings::default()
        };
        Self { pool: Pool::new(settings), workers: HashMap::new() }
    }

    fn change(&mut self, members: &[Member]) -> (Pool, Vec<WorkerId>, Vec<WorkerId>) {
        let reached =
            members.iter().filter_map(|member| serde_json::from_value::<Reached>(member.info.clone()).ok());
        let listed: HashSet<PathBuf> = reached.map(|reached| reached.path).collect();
        let gone =
            self.workers.extract_if(|path, _| !listed.contains(path)).map(|(_, worker)| worker).collect();
        for path in listed {
            let pool = &self.pool;
            self.workers.entry(path).or_insert_with_key(|path| pool.add(path));
        }
        (self.pool.clone(), self.workers.values().copied().collect(), gone)
    }
}
