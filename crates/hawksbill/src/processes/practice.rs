//! The configuration that is in practice, and how another one takes its place: one change after the other.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use hawksbill_core::config::{Origin, Table, Value};
use hawksbill_core::{Address, BuildError};
use hawksbill_supervisor::{Applied, Apply, Failure, Handle, Kind};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use super::Hosting;
use super::deployed::{Deploy, Deployed, Deployments, over, set};
use super::development::{self, Broken, Wanted};
use super::heir::{self, Estate, Upgrades};
use super::plan::{Surroundings, pools};
use super::private::{Dirs, Private};
use super::ready::{Signs, Watch};
use super::sockets::Sockets;
use super::supervise::Supervised;
use super::touch::{Files, Touched};
use super::venv::with_place;
use crate::Config;
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

impl Change {
    /// Whether a configuration is loaded for it. A program that takes over does that itself.
    fn loads(&self) -> bool {
        matches!(self, Self::Reload(_) | Self::Deploy(_))
    }
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
    /// How long it accepts after it was asked to stop.
    #[serde(default)]
    pub(super) drain_delay: Duration,
    /// The pool of each application, and of its own name.
    pools: BTreeMap<String, String>,
    pub(crate) upgrades: Upgrades,
    /// Whether a status page may have something done.
    #[serde(default)]
    pub(crate) page_acts: bool,
}

impl Facts {
    pub(crate) fn pool(&self, app: &str) -> Result<String, Trouble> {
        let known = self.pools.keys().map(String::as_str);
        self.pools.get(app).cloned().ok_or_else(|| Trouble::no_such(app, known))
    }
}

/// A configuration without what was deployed.
#[derive(Clone)]
struct Base {
    tree: Value,
    dir: PathBuf,
    files: Vec<PathBuf>,
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
    files: watch::Sender<Files>,
    sources: watch::Sender<Wanted>,
    /// In development.
    broken: Broken,
    /// Whether what failed may be tried again: one more application is known to be broken.
    is_again: bool,
    began: Instant,
    /// Whether a former program's processes are to be replaced first of all.
    is_heir: bool,
}

/// What a change asks of the supervisor.
#[derive(Clone, Default)]
struct Manner {
    /// The applications whose processes are replaced in any case; all, if none is named.
    force: BTreeSet<String>,
    /// All workers are replaced: they are those of another program.
    whole: bool,
    keep: Duration,
    probation: Duration,
}

impl<'a> Practice<'a> {
    pub(super) fn new(how: &'a Supervised<'a>, handle: Handle, watch: Watch, sockets: Sockets) -> Self {
        Self {
            how,
            handle,
            sockets,
            private: Private::default(),
            watch,
            base: None,
            deployed: Deployments::new(),
            history: BTreeMap::new(),
            facts: watch::Sender::new(Facts::default()),
            jobs: watch::Sender::new(Jobs::default()),
            files: watch::Sender::new(Files::default()),
            sources: watch::Sender::new(Wanted::counting(how.counted.clone())),
            broken: Broken::new(),
            is_again: false,
            began: Instant::now(),
            is_heir: false,
        }
    }

    /// Goes on where a former program was: its processes serve.
    pub(super) fn resume(&mut self, estate: Estate) -> Result<(), String> {
        self.began = estate.began();
        self.is_heir = true;
        self.private = Private::take_over(estate.private);
        let Practised { base, deployed, history, facts } = estate.practised;
        let strange = |error: serde_json::Error| {
            format!("the configuration that the former program has left is not understood: {error}")
        };
        self.base = match base {
            Some((tree, dir)) => {
                Some(Base { tree: Value::carried(&tree).map_err(strange)?, dir, files: Vec::new() })
            }
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
            self.files.send_replace(Files::of(&config));
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
        let estate = Estate::new(&self.sockets, self.private.dirs(), practised, self.began);
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
        let manner = Manner { whole: true, probation: self.probation(), ..Manner::default() };
        let error = told(self.reload(manner).await, Instant::now()).err();
        let error = error.map(|trouble| trouble.text().to_owned());
        self.facts.send_modify(|facts| {
            facts.upgrades = Upgrades { count: facts.upgrades.count.saturating_add(1), error };
        });
        self.is_heir = false;
    }

    /// Who edits an application wants to see the change, and mends what is wrong with it.
    fn probation(&self) -> Duration {
        if self.how.development { Duration::ZERO } else { PROBATION }
    }

    pub(super) fn facts(&self) -> watch::Receiver<Facts> {
        self.facts.subscribe()
    }

    /// The commands that run at certain times.
    pub(super) fn jobs(&self) -> watch::Receiver<Jobs> {
        self.jobs.subscribe()
    }

    /// What is touched to ask for a reload.
    pub(super) fn files(&self) -> watch::Receiver<Files> {
        self.files.subscribe()
    }

    /// What is edited, in development.
    pub(super) fn sources(&self) -> watch::Receiver<Wanted> {
        self.sources.subscribe()
    }

    /// Where the sockets between the front and the applications are.
    pub(super) fn private(&self) -> watch::Receiver<Dirs> {
        self.private.watch()
    }

    pub(super) fn addresses(&self) -> Vec<Address> {
        self.sockets.addresses()
    }

    /// The first configuration.
    pub(super) async fn start(&mut self, config: Config) -> Result<(), String> {
        let mut base = Base::of(&config);
        let mut applied = self.apply(config, Manner::default()).await;
        while applied.is_err() && std::mem::take(&mut self.is_again) {
            let config = (self.how.read)()?;
            base = Base::of(&config);
            applied = self.apply(config, Manner::default()).await;
        }
        let applied = applied.map_err(|trouble| trouble.text().to_owned())?;
        self.base = base;
        self.remember(Deployments::new(), &applied);
        Ok(())
    }

    /// Makes the changes that are asked for, and reloads when told to, for ever. `around` is told when a configuration
    /// begins to be loaded and when that is over.
    pub(super) async fn obey(
        &mut self,
        mut requests: mpsc::Receiver<Request>,
        mut touches: mpsc::Receiver<Touched>,
        signals: &Asking,
        around: impl Fn(bool),
    ) {
        if self.is_heir {
            around(true);
            self.inherit().await;
            around(false);
        }
        loop {
            let (change, why, reply) = tokio::select! {
                Some(Request { change, reply }) = requests.recv() => (change, Cow::Borrowed("asked to"), Some(reply)),
                Some(Touched { apps, what }) = touches.recv() => (Change::Reload(apps), Cow::Owned(what), None),
                (change, why) = signals.next() => (change, Cow::Borrowed(why), None),
            };
            let loads = change.loads();
            if loads {
                around(true);
            }
            let answer = self.make(change, &why).await;
            if loads {
                around(false);
            }
            // Who asked may have left. A failure is in the log.
            if let Some(reply) = reply {
                let _ = reply.send(answer);
            }
        }
    }

    async fn make(&mut self, change: Change, why: &str) -> Result<serde_json::Value, Trouble> {
        let began = Instant::now();
        match change {
            Change::Reload(apps) => {
                let names = apps.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
                let what = if names.is_empty() { "the applications" } else { &names };
                tracing::info!(target: "hawksbill::server", "{why}: loading the configuration and {what} again");
                let manner = Manner { force: apps, probation: self.probation(), ..Manner::default() };
                // What has changed may be mended.
                self.broken.retain(|app, _| !manner.force.is_empty() && !manner.force.contains(app));
                let applied = self.reload_until_known(manner).await;
                told(applied, began)
            }
            Change::Deploy(deploy) => {
                let (app, dir) = (&deploy.app, deploy.dir.display());
                tracing::info!(target: "hawksbill::server", "{why}: {app} moves to {dir}");
                let applied = self.deploy(deploy).await;
                told(applied, began)
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

    /// Reloads. In development once more where it is known by now that an application cannot be started, and where its
    /// former worker was in its way.
    async fn reload_until_known(&mut self, manner: Manner) -> Result<Applied, Trouble> {
        let mut tries = if self.how.development { development::TRIES } else { 0 };
        loop {
            let applied = self.reload(manner.clone()).await;
            let again = match &applied {
                Ok(done) => development::is_in_the_way(&self.handle, done.generation, &mut tries).await,
                Err(_) => std::mem::take(&mut self.is_again),
            };
            if !again {
                return applied;
            }
        }
    }

    async fn reload(&mut self, manner: Manner) -> Result<Applied, Trouble> {
        let mut config = match ((self.how.read)(), &self.base) {
            // What is being written may not even look like an application for the moment.
            (Err(error), Some(base)) if self.how.development && !manner.force.is_empty() => {
                tracing::warn!(target: "hawksbill::server", "the configuration before is kept: {error}");
                self.read(base, Table::new())?
            }
            (config, _) => config.map_err(Trouble::unfit)?,
        };
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
            config.files.clone_from(&base.files);
            Ok(config)
        });
        config.map_err(|error| Trouble::unfit(error.to_string()))
    }

    /// Puts a configuration into practice, beside the one that serves.
    async fn apply(&mut self, config: Config, manner: Manner) -> Result<Applied, Trouble> {
        let failed = |error: BuildError| Trouble::unfit(error.to_string());
        let mut config = config;
        let development = self.how.development;
        if development {
            development::adapt(&mut config);
            self.sources.send_modify(|wanted| *wanted = Wanted::of(&config, wanted));
        }
        let Shown { config, hosting, text } = Shown::of(config).map_err(failed)?;
        let next = self.sockets.next(config.sockets()).map_err(failed)?;
        let (opened, descriptors, names) = next.split();
        let around = Surroundings {
            program: &self.how.program,
            sockets: names,
            private: &mut self.private,
            development: development.then_some(&self.broken),
        };
        let plan = hosting.plan(&config, around).map_err(failed)?;
        let (pools, drain_delay) = (pools(&plan, &config), *config.settings.drain_delay);
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
        // What is touched from now on is not in what is loaded now.
        let files = Files::of(&config);
        let former = self.watch.replace(Signs::of(&config));
        let applied = self.handle.apply(apply).await.map_err(|failure| {
            self.watch.replace(former);
            if development {
                self.is_again = self.note_broken(&failure, &config);
            }
            failed(failure)
        })?;
        if development && let Some(status) = self.handle.status().await {
            self.sources.send_if_modified(|wanted| wanted.imported(&status));
        }
        self.sockets.take_over(opened);
        self.jobs.send_replace(hosting.jobs());
        self.files.send_replace(files);
        let listen = self.sockets.addresses().iter().map(crate::cli::url).collect();
        let upgrades = self.facts.borrow().upgrades.clone();
        let page_acts = super::pages::may_act(&config);
        self.facts.send_replace(Facts { config: text, listen, drain_delay, pools, upgrades, page_acts });
        Ok(applied)
    }

    /// Keeps in mind that the processes of an application die when it is started. False if that is nothing new.
    fn note_broken(&mut self, failure: &Failure, config: &Config) -> bool {
        let app = failure.pool.as_ref().filter(|pool| config.apps.contains_key(*pool));
        let Some(app) = app.filter(|app| !self.broken.contains_key(*app)) else { return false };
        tracing::error!(target: "hawksbill::server", "{app} does not start; that is answered until it is mended: {}", failure.reason);
        self.broken.insert(app.clone(), failure.to_string());
        true
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

impl Base {
    fn of(config: &Config) -> Option<Self> {
        let absolute = std::path::absolute(&config.dir).unwrap_or_else(|_| config.dir.clone());
        Some(Self { tree: config.source.clone()?, dir: absolute, files: config.files.clone() })
    }
}

/// Tells in the log how a change went.
fn told(applied: Result<Applied, Trouble>, began: Instant) -> Result<serde_json::Value, Trouble> {
    match applied {
        Ok(Applied { generation, pools, failing }) => {
            let after = began.elapsed().as_millis();
            tracing::info!(target: "hawksbill::server", "the new generation serves, {after} ms after it was asked for");
            Ok(json!({ "generation": generation, "pools": pools, "failing": failing }))
        }
        Err(trouble) => {
            let said = trouble.text();
            tracing::error!(target: "hawksbill::server", "the old generation goes on, since the new one failed: {said}");
            Err(trouble)
        }
    }
}
