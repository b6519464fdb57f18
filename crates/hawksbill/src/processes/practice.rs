//! The configuration that is in practice, and how another one takes its place: one change after the other.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hawksbill_core::config::{Origin, Table, Value};
use hawksbill_core::{Address, BuildError};
use hawksbill_supervisor::{Applied, Apply, Failure, Handle, Kind, Plan};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use super::Hosting;
use super::heir::{self, Estate, Upgrades};
use super::plan::Surroundings;
use super::private::Private;
use super::ready::{Signs, Watch};
use super::sockets::Sockets;
use super::supervise::Supervised;
use crate::Config;
use crate::config::place;
use crate::control::Trouble;
use crate::cron::Jobs;

/// How long a new generation is watched before the former one is let go.
const PROBATION: Duration = Duration::from_secs(2);

/// What can be asked for.
pub(crate) enum Change {
    /// The configuration is read again, and these applications are loaded again; all of them, if none is named.
    Reload(BTreeSet<String>),
    Deploy(Deploy),
    /// An application gets another number of workers.
    Scale(String, u32),
    /// A pool went back to an earlier generation.
    RolledBack(String, u64),
    /// The program that is installed now takes this one's place.
    Upgrade,
}

/// An application moves to another directory.
pub(crate) struct Deploy {
    pub(crate) app: String,
    pub(crate) dir: PathBuf,
    pub(crate) venv: Option<PathBuf>,
    /// How long what served until now can be gone back to.
    pub(crate) keep: Duration,
    /// How long the new processes are watched.
    pub(crate) probation: Duration,
}

/// Changes that a signal asks for; nobody waits for them.
#[derive(Default)]
pub(super) struct Asking {
    pub(super) reload: Notify,
    pub(super) upgrade: Notify,
}

impl Asking {
    async fn next(&self) -> (Change, &'static str) {
        tokio::select! {
            () = self.reload.notified() => (Change::Reload(BTreeSet::new()), "SIGHUP"),
            () = self.upgrade.notified() => (Change::Upgrade, "SIGUSR2"),
        }
    }
}

/// A change that somebody waits for.
pub(crate) struct Request {
    pub(crate) change: Change,
    pub(crate) reply: oneshot::Sender<Result<serde_json::Value, Trouble>>,
}

/// What others may know of the configuration in practice.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(crate) struct Facts {
    /// The tree, as `hawksbill check` prints it.
    pub(crate) config: String,
    pub(crate) listen: Vec<String>,
    /// The pool of each application, and of its own name.
    pools: BTreeMap<String, String>,
    pub(crate) upgrades: Upgrades,
}

impl Facts {
    pub(crate) fn pool(&self, app: &str) -> Result<String, Trouble> {
        let known = self.pools.keys().map(String::as_str);
        self.pools.get(app).cloned().ok_or_else(|| Trouble::no_such(app, known))
    }
}

/// Where an application was deployed: lies over what the file says.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
struct Deployed {
    dir: PathBuf,
    venv: Option<PathBuf>,
}

type Deployments = BTreeMap<String, Deployed>;

/// A configuration without what was deployed.
#[derive(Clone)]
struct Base {
    tree: Value,
    dir: PathBuf,
}

/// What is known of the past, for a program that takes over.
#[derive(Serialize, Deserialize)]
pub(super) struct Practised {
    /// The tree ([`Value::carry`]) and the directory.
    base: Option<(String, PathBuf)>,
    deployed: Deployments,
    history: Vec<(String, u64, Deployments)>,
    facts: Facts,
}

pub(super) struct Practice<'a> {
    how: &'a Supervised<'a>,
    handle: Handle,
    sockets: Sockets,
    private: Private,
    watch: Watch,
    base: Option<Base>,
    deployed: Deployments,
    /// What was deployed when a pool began a generation, for the way back.
    history: BTreeMap<(String, u64), Deployments>,
    facts: watch::Sender<Facts>,
    jobs: watch::Sender<Jobs>,
    began: Instant,
    /// Whether a former program's processes are to be replaced first of all.
    is_heir: bool,
}

/// What a change asks of the supervisor.
#[derive(Default)]
struct Manner {
    /// The applications whose processes are replaced in any case; all, if none is named.
    force: BTreeSet<String>,
    /// All workers are replaced: they are those of another program.
    whole: bool,
    keep: Duration,
    probation: Duration,
}

impl<'a> Practice<'a> {
    pub(super) fn new(how: &'a Supervised<'a>, handle: Handle, watch: Watch) -> Self {
        Self {
            how,
            handle,
            sockets: Sockets::default(),
            private: Private::default(),
            watch,
            base: None,
            deployed: Deployments::new(),
            history: BTreeMap::new(),
            facts: watch::Sender::new(Facts::default()),
            jobs: watch::Sender::new(Jobs::default()),
            began: Instant::now(),
            is_heir: false,
        }
    }

    /// Goes on where a former program was: its processes serve.
    pub(super) fn resume(&mut self, estate: Estate, sockets: Sockets) -> Result<(), String> {
        self.began = estate.began();
        self.is_heir = true;
        self.sockets = sockets;
        self.private = Private::take_over(estate.private);
        let Practised { base, deployed, history, facts } = estate.practised;
        let strange = |error: serde_json::Error| {
            format!("the configuration that the former program has left is not understood: {error}")
        };
        self.base = match base {
            Some((tree, dir)) => Some(Base { tree: Value::carried(&tree).map_err(strange)?, dir }),
            None => None,
        };
        self.deployed = deployed;
        self.history =
            history.into_iter().map(|(pool, generation, then)| ((pool, generation), then)).collect();
        self.facts.send_replace(facts);
        // Until the new configuration is in practice the former one's jobs and signs count.
        let former = self.base().and_then(|base| self.read(&base, over(&self.deployed)));
        let former =
            former.and_then(|config| Shown::of(config).map_err(|error| Trouble::unfit(error.to_string())));
        if let Ok(Shown { config, hosting, .. }) = former {
            self.watch.replace(Signs::of(&config));
            self.jobs.send_replace(hosting.jobs());
        }
        Ok(())
    }

    /// When the gateway began.
    pub(super) fn began(&self) -> Instant {
        self.began
    }

    /// Has the installed program take over. Comes back with a failure only.
    async fn upgrade(&mut self) -> Trouble {
        let practised = Practised {
            base: self.base.as_ref().map(|base| (base.tree.carry(), base.dir.clone())),
            deployed: self.deployed.clone(),
            history: (self.history.iter())
                .map(|((pool, generation), then)| (pool.clone(), *generation, then.clone()))
                .collect(),
            facts: self.facts.borrow().clone(),
        };
        let estate = Estate::new(self.sockets.kept(), self.private.dirs(), practised, self.began);
        let note = match serde_json::to_value(&estate) {
            Ok(note) => note,
            Err(error) => return Trouble::unfit(format!("what is known cannot be handed over: {error}")),
        };
        let program = heir::program(&self.how.again);
        let failure = self.handle.upgrade(program, note).await;
        let trouble = Trouble::failed(StatusCode::CONFLICT, failure);
        let said = trouble.text();
        tracing::error!(target: "hawksbill::server", "the program was not replaced, this one goes on: {said}");
        trouble
    }

    /// Replaces the processes of the former program.
    async fn inherit(&mut self) {
        let why = format!("hawksbill {} has taken over", crate::VERSION);
        tracing::info!(target: "hawksbill::server", "{why}: loading the configuration and starting new processes");
        let manner = Manner { whole: true, probation: PROBATION, ..Manner::default() };
        let error = told(self.reload(manner).await).err();
        let error = error.map(|trouble| trouble.text().to_owned());
        self.facts.send_modify(|facts| {
            facts.upgrades = Upgrades { count: facts.upgrades.count.saturating_add(1), error };
        });
        self.is_heir = false;
    }

    pub(super) fn facts(&self) -> watch::Receiver<Facts> {
        self.facts.subscribe()
    }

    /// The commands that run at certain times.
    pub(super) fn jobs(&self) -> watch::Receiver<Jobs> {
        self.jobs.subscribe()
    }

    pub(super) fn addresses(&self) -> Vec<Address> {
        self.sockets.addresses()
    }

    /// The first configuration.
    pub(super) async fn start(&mut self, config: Config) -> Result<(), String> {
        let base = Base::of(&config);
        let applied = self.apply(config, Manner::default()).await;
        let applied = applied.map_err(|trouble| trouble.text().to_owned())?;
        self.base = base;
        self.remember(Deployments::new(), &applied);
        Ok(())
    }

    /// Makes the changes that are asked for, and reloads when told to, for ever. `around` is told when a change begins and
    /// when it is over.
    pub(super) async fn obey(
        &mut self,
        mut requests: mpsc::Receiver<Request>,
        signals: &Asking,
        around: impl Fn(bool),
    ) {
        if self.is_heir {
            around(true);
            self.inherit().await;
            around(false);
        }
        loop {
            tokio::select! {
                Some(Request { change, reply }) = requests.recv() => {
                    around(true);
                    let answer = self.make(change, "asked to").await;
                    around(false);
                    // Who asked may have left.
                    let _ = reply.send(answer);
                }
                (change, why) = signals.next() => {
                    around(true);
                    // A failure is in the log.
                    let _ = self.make(change, why).await;
                    around(false);
                }
            }
        }
    }

    async fn make(&mut self, change: Change, why: &str) -> Result<serde_json::Value, Trouble> {
        match change {
            Change::Reload(apps) => {
                let names = apps.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
                let what = if names.is_empty() { "the applications" } else { &names };
                tracing::info!(target: "hawksbill::server", "{why}: loading the configuration and {what} again");
                let manner = Manner { force: apps, probation: PROBATION, ..Manner::default() };
                let applied = self.reload(manner).await;
                told(applied)
            }
            Change::Deploy(deploy) => {
                let (app, dir) = (&deploy.app, deploy.dir.display());
                tracing::info!(target: "hawksbill::server", "{why}: {app} moves to {dir}");
                let applied = self.deploy(deploy).await;
                told(applied)
            }
            Change::Scale(app, workers) => {
                self.scale(&app, workers).await.map(|()| json!({ "workers": workers }))
            }
            Change::RolledBack(pool, generation) => {
                self.rolled_back(&pool, generation);
                tracing::info!(target: "hawksbill::server", "{pool}: back to generation {generation}");
                Ok(json!({ "generation": generation, "pools": [pool] }))
            }
            Change::Upgrade => {
                tracing::info!(target: "hawksbill::server", "{why}: the installed program takes over");
                Err(self.upgrade().await)
            }
        }
    }

    async fn reload(&mut self, manner: Manner) -> Result<Applied, Trouble> {
        let mut config = (self.how.read)().map_err(Trouble::unfit)?;
        let base = Base::of(&config);
        let mut deployed = self.deployed.clone();
        deployed.retain(|app, _| config.apps.contains_key(app));
        if let Some(base) = base.as_ref().filter(|_| !deployed.is_empty()) {
            config = self.read(base, over(&deployed))?;
        }
        let applied = self.apply(config, manner).await?;
        self.base = base;
        self.remember(deployed, &applied);
        Ok(applied)
    }

    async fn deploy(&mut self, deploy: Deploy) -> Result<Applied, Trouble> {
        let Deploy { app, dir, venv, keep, probation } = deploy;
        for path in venv.iter().chain([&dir]) {
            if !path.is_dir() {
                return Err(Trouble::unfit(format!("there is no directory {}", path.display())));
            }
        }
        let base = self.base()?;
        let mut deployed = self.deployed.clone();
        let venv = venv.or_else(|| deployed.get(&app)?.venv.clone());
        self.is_python(&base, &app)?;
        deployed.insert(app.clone(), Deployed { dir, venv });
        let config = self.read(&base, over(&deployed))?;
        let manner = Manner { force: BTreeSet::from([app]), whole: false, keep, probation };
        let applied = self.apply(config, manner).await?;
        self.remember(deployed, &applied);
        Ok(applied)
    }

    /// The configuration has to allow it; but it does not change: the next one says again how many there are.
    async fn scale(&mut self, app: &str, workers: u32) -> Result<(), Trouble> {
        let base = self.base()?;
        self.is_python(&base, app)?;
        let mut all = over(&self.deployed);
        set(&mut all, app, "workers", Value::from(workers).with_origin(&Origin::named("scale")));
        let mut config = self.read(&base, all)?;
        Hosting::of(&mut config).map_err(|error| Trouble::unfit(error.to_string()))?;
        let failed = |failure| Trouble::failed(StatusCode::CONFLICT, failure);
        self.handle.scale(app, workers).await.map_err(failed)
    }

    fn rolled_back(&mut self, pool: &str, generation: u64) {
        let Some(former) = self.history.get(&(pool.to_owned(), generation)).cloned() else { return };
        // What is left behind is none of those that the next way back may lead to.
        self.history.retain(|(name, known), _| name != pool || *known <= generation);
        let of_pool = |app: &str| self.facts.borrow().pools.get(app).is_some_and(|found| found == pool);
        let mut deployed = self.deployed.clone();
        deployed.retain(|app, _| !of_pool(app));
        deployed.extend(former.into_iter().filter(|(app, _)| of_pool(app)));
        self.deployed = deployed;
        let read = self.base().and_then(|base| self.read(&base, over(&self.deployed)));
        let shown =
            read.and_then(|config| Shown::of(config).map_err(|error| Trouble::unfit(error.to_string())));
        match shown {
            Ok(shown) => self.facts.send_modify(|facts| facts.config = shown.text),
            // It was read before, so this does not happen but where files are gone.
            Err(trouble) => tracing::warn!(target: "hawksbill::server", "{}", trouble.text()),
        }
    }

    fn base(&self) -> Result<Base, Trouble> {
        self.base
            .clone()
            .ok_or_else(|| Trouble::unfit("this gateway has no configuration that can be changed"))
    }

    fn is_python(&self, base: &Base, app: &str) -> Result<(), Trouble> {
        let config = self.read(base, Table::new())?;
        match config.apps.get(app) {
            Some(node) if node.processes.is_some() => Ok(()),
            Some(node) => {
                let kind = node.app.name();
                Err(Trouble::unfit(format!(
                    "application {app} is of the kind '{kind}' and has no processes of its own"
                )))
            }
            None => Err(Trouble::no_such(app, config.apps.keys().map(String::as_str))),
        }
    }

    /// The configuration with something laid over it.
    fn read(&self, base: &Base, over: Table) -> Result<Config, Trouble> {
        let mut tree = base.tree.clone();
        tree.overlay(Value::from(over));
        let config = Config::from_value(tree, &base.dir, self.how.registry).and_then(|mut config| {
            config.listen_somewhere(crate::cli::DEFAULT_LISTEN)?;
            Ok(config)
        });
        config.map_err(|error| Trouble::unfit(error.to_string()))
    }

    /// Puts a configuration into practice, beside the one that serves.
    async fn apply(&mut self, config: Config, manner: Manner) -> Result<Applied, Trouble> {
        let failed = |error: BuildError| Trouble::unfit(error.to_string());
        let Shown { config, hosting, text } = Shown::of(config).map_err(failed)?;
        let next = self.sockets.next(config.sockets()).map_err(failed)?;
        let (opened, descriptors, names) = next.split();
        let around = Surroundings { program: &self.how.program, sockets: names, private: &mut self.private };
        let plan = hosting.plan(&config, around).map_err(failed)?;
        let pools = pools(&plan, &config);
        let Manner { force, whole, keep, probation } = manner;
        // The supervisor cannot see whether the code has changed.
        let force = if whole {
            let workers = plan.pools.iter().filter(|(_, pool)| pool.kind == Kind::Workers);
            workers.map(|(name, _)| name.clone()).collect()
        } else if force.is_empty() {
            hosting.with_code()
        } else {
            let known = || pools.keys().map(String::as_str);
            let pool = |app: &String| pools.get(app).cloned().ok_or_else(|| Trouble::no_such(app, known()));
            force.iter().map(pool).collect::<Result<_, _>>()?
        };
        let apply = Apply { plan, descriptors, force, keep, probation };
        let failed =
            |failure| Trouble::failed(StatusCode::UNPROCESSABLE_ENTITY, with_place(failure, &config));
        let former = self.watch.replace(Signs::of(&config));
        let applied = self.handle.apply(apply).await.map_err(|failure| {
            self.watch.replace(former);
            failed(failure)
        })?;
        self.sockets.take_over(opened);
        self.jobs.send_replace(hosting.jobs());
        let listen = self.sockets.addresses().iter().map(crate::cli::url).collect();
        let upgrades = self.facts.borrow().upgrades.clone();
        self.facts.send_replace(Facts { config: text, listen, pools, upgrades });
        Ok(applied)
    }

    fn remember(&mut self, deployed: Deployments, applied: &Applied) {
        /// Who goes back goes to the generation before.
        const GENERATIONS: usize = 2;
        for pool in &applied.pools {
            self.history.insert((pool.clone(), applied.generation), deployed.clone());
            let known: Vec<_> = self.history.keys().filter(|(name, _)| name == pool).cloned().collect();
            for old in known.iter().rev().skip(GENERATIONS) {
                self.history.remove(old);
            }
        }
        self.deployed = deployed;
    }
}

/// A configuration, its processes, and both as text.
struct Shown {
    config: Config,
    hosting: Hosting,
    text: String,
}

impl Shown {
    fn of(mut config: Config) -> Result<Self, BuildError> {
        let tree = config.to_string();
        let hosting = Hosting::of(&mut config)?;
        let text = format!("{tree}{hosting}\n");
        Ok(Self { config, hosting, text })
    }
}

/// A worker that hosts one application does not know where that is configured; what it says of it gets its place here.
fn with_place(mut failure: Failure, config: &Config) -> Failure {
    let placed = failure.pool.as_ref().zip(failure.message.as_ref()).and_then(|(pool, message)| {
        let (key, node) = (format!("apps.{pool}"), config.apps.get(pool)?);
        let rest = message.strip_prefix(&key)?;
        Some(place(&node.origin, &key) + rest)
    });
    failure.message = placed.or(failure.message);
    failure
}

impl Base {
    fn of(config: &Config) -> Option<Self> {
        let absolute = std::path::absolute(&config.dir).unwrap_or_else(|_| config.dir.clone());
        Some(Self { tree: config.source.clone()?, dir: absolute })
    }
}

/// Tells in the log how a change went.
fn told(applied: Result<Applied, Trouble>) -> Result<serde_json::Value, Trouble> {
    match applied {
        Ok(Applied { generation, pools, failing }) => {
            tracing::info!(target: "hawksbill::server", "the new generation serves");
            Ok(json!({ "generation": generation, "pools": pools, "failing": failing }))
        }
        Err(trouble) => {
            let said = trouble.text();
            tracing::error!(target: "hawksbill::server", "the old generation goes on, since the new one failed: {said}");
            Err(trouble)
        }
    }
}

/// What was deployed, as a tree.
fn over(deployed: &Deployments) -> Table {
    let mut tree = Table::new();
    let path = |path: &Path| Value::string(path.display().to_string(), Origin::named("deploy"));
    for (app, Deployed { dir, venv }) in deployed {
        set(&mut tree, app, "dir", path(dir));
        if let Some(venv) = venv {
            set(&mut tree, app, "venv", path(venv));
        }
    }
    tree
}

/// Sets a key of an application.
fn set(tree: &mut Table, app: &str, key: &str, value: Value) {
    let mut under = Value::from(std::mem::take(tree));
    let origin = value.origin.clone();
    let entry = Table::from_iter([(key, value)]);
    let apps = Table::from_iter([(app, Value::from(entry))]);
    under.overlay(Value::from(Table::from_iter([("apps", Value::from(apps))])).with_origin(&origin));
    *tree = under.into_table().unwrap_or_default();
}

/// In which pool each application is: the one of its name, or the one of all that have none.
fn pools(plan: &Plan, config: &Config) -> BTreeMap<String, String> {
    let own = |pool: &&String| {
        let program = plan.pools.get(*pool).is_some_and(|pool| pool.kind != Kind::Workers);
        program || config.apps.contains_key(*pool)
    };
    let shared = plan.pools.keys().find(|pool| !own(pool)).or_else(|| plan.pools.keys().next());
    let pool = |app: &String| plan.pools.get_key_value(app).map(|(pool, _)| pool).or(shared).cloned();
    let apps = config.apps.keys().chain(plan.pools.keys());
    apps.filter_map(|app| Some((app.clone(), pool(app)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_deployed_lies_over_the_rest() {
        let at = |dir: &str, venv: Option<&str>| Deployed { dir: dir.into(), venv: venv.map(PathBuf::from) };
        let deployed = Deployments::from([("a".into(), at("/x", None)), ("b".into(), at("/y", Some("/v")))]);
        let mut tree = over(&deployed);
        set(&mut tree, "a", "workers", Value::from(3));
        let tree = Value::from(tree);
        assert_eq!(tree.at(&["apps", "a", "dir"]), Some(&Value::from("/x")));
        assert_eq!(tree.at(&["apps", "a", "workers"]), Some(&Value::from(3)));
        assert_eq!(tree.at(&["apps", "a", "venv"]), None);
        assert_eq!(tree.at(&["apps", "b", "venv"]), Some(&Value::from("/v")));
    }
}
