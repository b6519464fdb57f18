//! From a configuration to processes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::io::IsTerminal;
use std::path::Path;
use std::time::Duration;

use hawksbill_core::config::{HostPattern, Percent, Size as Bytes, Value};
use hawksbill_core::{BuildError, Error, Kind, Turtle};
use hawksbill_supervisor::{Identity, Limit, Output, Plan, Pool, Program, Recycle, Size};

use super::development::{self, Broken, Development};
use super::private::Private;
use super::venv::interpreter;
use super::{LAUNCHER, Payload, Probe, Role, WORKER};
use super::{crons, services};
use crate::config::{Limits, Processes, Target, Workers, place};
use crate::cron::Jobs;
use crate::{Config, Gateway};

/// How long a process may take to end beyond the drain: applications are told to stop, and threads end.
const BEYOND_DRAIN: Duration = Duration::from_secs(10);

/// The name of the pool where no single application gives it one.
const GATEWAY: &str = "gateway";

/// The name of the front's pool, unless an application has it.
const FRONT: &str = "front";

/// The keys of an application that mean its processes alone (`Processes`), and the place of its code.
const NOT_OF_A_FRONT: [&str; 11] = [
    "dir",
    "venv",
    "env",
    "user",
    "group",
    "limits",
    "after",
    "preload",
    "start_timeout",
    "ready",
    "recycle",
];

/// Which processes a configuration gets, and why.
#[derive(Debug)]
pub(crate) struct Hosting {
    shape: Shape,
    why: String,
    /// Those that have processes of their own.
    apps: Vec<(String, Processes)>,
    /// The programs beside them, by the names of their pools.
    programs: Vec<(String, Pool)>,
    /// The commands that run at certain times.
    jobs: Jobs,
}

/// Who has the sockets.
#[derive(Debug, PartialEq, Eq)]
enum Shape {
    /// The processes of this pool, each a whole gateway.
    Fused(String),
    /// A front, with the applications behind it.
    Front,
}

/// What surrounds a plan.
pub(super) struct Surroundings<'a> {
    /// Starts this program again.
    pub(super) program: &'a [String],
    /// The names of the descriptors to listen on.
    pub(super) sockets: BTreeSet<String>,
    /// Where the socket of an application's worker may be.
    pub(super) private: &'a mut Private,
    /// Where the applications are being edited: those that cannot even be started.
    pub(super) development: Option<&'a Broken>,
}

impl Hosting {
    /// Decides. Applications of routes that get processes get names by that.
    ///
    /// # Errors
    /// Where the configuration asks for what cannot be.
    pub(crate) fn of(config: &mut Config) -> Result<Self, BuildError> {
        config.name_inline();
        let own = config.apps.iter().filter_map(|(name, node)| Some((name.clone(), node.processes.clone()?)));
        let apps: Vec<_> = own.collect();
        for (name, processes) in &apps {
            let node = config.apps.get(name).filter(|node| node.app.shared_state());
            if let (Some(node), true) = (node, most(&processes.workers) > 1) {
                let message =
                    "it has state that its workers would have to share, and cannot; set workers = 1"
                        .to_owned();
                return Err(BuildError::new(message).within(place(&node.origin, &format!("apps.{name}"))));
            }
        }
        let gateway = || Shape::Fused(GATEWAY.to_owned());
        let (shape, why) = match apps.as_slice() {
            [] => (gateway(), "one process: nothing has processes of its own".to_owned()),
            _ if config.settings.front => (Shape::Front, "front = true".to_owned()),
            [(name, processes)] => match shares(config) {
                Some(what) if most(&processes.workers) > 1 => {
                    (Shape::Front, format!("all workers share {what}"))
                }
                _ => {
                    let why = "each worker is a whole gateway: there is one Python application";
                    (Shape::Fused(name.clone()), why.to_owned())
                }
            },
            several => (Shape::Front, format!("there are {} Python applications", several.len())),
        };
        let programs = services::pools(config)?;
        crons::pools(config, crons::any_program())?;
        let jobs = crons::jobs(config)?;
        let hosting = Self { shape, why, apps, programs, jobs };
        hosting.check_names(config)?;
        Ok(hosting)
    }

    fn check_names(&self, config: &Config) -> Result<(), BuildError> {
        let own = match &self.shape {
            Shape::Fused(name) => name.clone(),
            Shape::Front => self.front(),
        };
        for (name, service) in &config.services {
            if *name == own || config.apps.contains_key(name) {
                let message = format!("there is something else called {name}; give the service another name");
                return Err(
                    BuildError::new(message).within(place(&service.origin, &format!("services.{name}")))
                );
            }
        }
        Ok(())
    }

    /// The name of the front's pool: the pools of applications have theirs, whatever those are.
    fn front(&self) -> String {
        let mut name = FRONT.to_owned();
        while self.apps.iter().any(|(app, _)| *app == name) {
            name.push('_');
        }
        name
    }

    pub(super) fn jobs(&self) -> Jobs {
        self.jobs.clone()
    }

    /// The pools that are to be replaced by a reload even where the configuration has not changed: the supervisor cannot
    /// see whether the code has. A front has none.
    pub(super) fn with_code(&self) -> BTreeSet<String> {
        match &self.shape {
            Shape::Fused(pool) => BTreeSet::from([pool.clone()]),
            Shape::Front => self.apps.iter().map(|(name, _)| name.clone()).collect(),
        }
    }

    /// Builds what the processes will build, apart where they are apart. It finds what reading cannot: missing directories,
    /// routes that contradict each other, two applications that cannot be in one process.
    ///
    /// # Errors
    /// What a person has to change.
    pub(crate) fn rehearse(&self, mut config: Config) -> Result<(), BuildError> {
        // They are the supervisor's, which has looked at them.
        config.services.clear();
        config.cron.clear();
        for (name, processes) in &self.apps {
            interpreter(&config, name, processes)?;
        }
        let mut elsewhere = HashMap::new();
        if self.shape == Shape::Front {
            for (name, _) in &self.apps {
                let Some(node) = config.apps.shift_remove(name) else { continue };
                let mut alone = Config::empty(&config.dir);
                alone.apps.insert(name.clone(), node);
                Gateway::inner(alone)?;
                let nobody = Turtle::from_fn(async |_| Err(Error::new(Kind::BadGateway)));
                elsewhere.insert(name.clone(), nobody);
            }
        }
        Gateway::before(config, elsewhere).map(drop)
    }

    /// The plan.
    ///
    /// # Errors
    /// Where there is no place for the sockets between the processes.
    pub(super) fn plan(&self, config: &Config, around: Surroundings<'_>) -> Result<Plan, BuildError> {
        let Some(source) = &config.source else {
            return Err(BuildError::new("a configuration that a program put together has no processes"));
        };
        let source = &without_programs(source);
        let drafting = Drafting { config, program: around.program, development: around.development };
        let mut pools = BTreeMap::new();
        match &self.shape {
            Shape::Fused(name) => {
                let own =
                    self.apps.iter().find(|(app, _)| app == name).map(|(_, processes)| processes.clone());
                let draft = drafting.pool(name, &own.unwrap_or_default(), Role::Gateway, source.carry())?;
                pools.insert(name.clone(), Pool { inherit: around.sockets, ..draft });
            }
            Shape::Front => {
                for (name, processes) in &self.apps {
                    let dir = around.private.dir(name, &identity(processes))?;
                    let role = Role::Behind { app: name.clone(), dir };
                    pools.insert(
                        name.clone(),
                        drafting.pool(name, processes, role, drafting.alone(name)?.carry())?,
                    );
                }
                let follows = pools.keys().cloned().collect();
                let (front, tree) = (self.front(), self.before(source).carry());
                let draft = drafting.pool(&front, &Processes::default(), Role::Front, tree)?;
                pools.insert(front, Pool { inherit: around.sockets, follows, ..draft });
            }
        }
        pools.extend(self.programs.iter().cloned());
        pools.extend(crons::pools(config, around.program.first().map_or("python3", String::as_str))?);
        Ok(Plan { pools, launcher: drafting.again(None, LAUNCHER) })
    }

    /// The tree without what concerns the processes of an application alone: that one was deployed elsewhere, or has another
    /// environment, is no reason for another front.
    fn before(&self, source: &Value) -> Value {
        let mut tree = source.clone();
        let mut apps =
            tree.as_table_mut().and_then(|tree| tree.get_mut("apps")).and_then(Value::as_table_mut);
        for (name, _) in &self.apps {
            if let Some(app) = apps.as_mut().and_then(|apps| apps.get_mut(name)?.as_table_mut()) {
                for key in NOT_OF_A_FRONT {
                    app.remove(key);
                }
            }
        }
        tree
    }
}

/// What all pools of a plan have in common.
struct Drafting<'a> {
    config: &'a Config,
    program: &'a [String],
    development: Option<&'a Broken>,
}

impl Drafting<'_> {
    /// The command that starts this program again, maybe by another interpreter.
    fn again(&self, interpreter: Option<&Path>, subcommand: &str) -> Vec<String> {
        let mut words = self.program.to_vec();
        if let (Some(first), Some(interpreter)) = (words.first_mut(), interpreter) {
            *first = interpreter.display().to_string();
        }
        words.push(subcommand.to_owned());
        words
    }

    /// The configuration of a process that has this application alone: what concerns others does not change it, nor the
    /// line that something is written in.
    fn alone(&self, name: &str) -> Result<Value, BuildError> {
        let mut settings = self.config.apps.get(name).map(|node| node.app.settings());
        if let Some(settings) = settings.as_mut().filter(|_| self.development.is_some()) {
            development::settle(settings);
        }
        let drain = serde_json::to_value(self.config.settings.drain).unwrap_or_default();
        let tree = serde_json::json!({ "drain": drain, "apps": { name: settings } });
        serde_json::from_value(tree).map_err(|error| {
            let message = format!("the settings of application {name} cannot be handed over");
            BuildError::new(message).caused_by(error)
        })
    }

    fn pool(&self, name: &str, processes: &Processes, role: Role, tree: String) -> Result<Pool, BuildError> {
        let config = self.config;
        let start_timeout = *processes.start_timeout;
        let ready = processes.ready.clone().map(|path| Probe {
            app: name.to_owned(),
            path,
            host: host_of(config, name),
        });
        let development = self.development.and_then(|broken| Development::of(config, name, broken));
        let is_edited = development.is_some();
        let payload = Payload {
            config: tree,
            dir: absolute(&config.dir),
            log_level: config.settings.log_level,
            name: name.to_owned(),
            role,
            ready,
            development,
        };
        let interpreter = interpreter(config, name, processes)?;
        let mut words = self.again(interpreter.as_deref(), WORKER).into_iter();
        let program = Program {
            path: words.next().unwrap_or_default(),
            args: words.collect(),
            env: processes.env.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
            ..Program::default()
        };
        Ok(Pool {
            program,
            identity: identity(processes),
            after: processes.after.iter().cloned().collect(),
            size: size(&processes.workers),
            preload: processes.preload,
            output: Output::Errors,
            terminal: is_edited && std::io::stdin().is_terminal(),
            payload: serde_json::to_string(&payload).unwrap_or_default(),
            start_timeout,
            stop_timeout: *config.settings.drain
                + if self.development.is_some() { development::BEYOND_DRAIN } else { BEYOND_DRAIN },
            recycle: recycle(processes),
            ..Pool::default()
        })
    }
}

/// The tree without what concerns the supervisor alone: another service is no reason for another gateway.
fn without_programs(source: &Value) -> Value {
    let mut tree = source.clone();
    if let Some(table) = tree.as_table_mut() {
        table.remove("services");
        table.remove("cron");
    }
    tree
}

/// The choice, as `hawksbill check` prints it.
impl fmt::Display for Hosting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let workers = |processes: &Processes| {
            let count = serde_json::to_string(&processes.workers).unwrap_or_default();
            if processes.preload { format!("{count}, forked from one that is preloaded") } else { count }
        };
        match &self.shape {
            Shape::Fused(name) => {
                let own =
                    self.apps.iter().find(|(app, _)| app == name).map(|(_, processes)| processes.clone());
                write!(f, "processes {name}: workers={} ({})", workers(&own.unwrap_or_default()), self.why)
            }
            Shape::Front => {
                write!(f, "processes {}: workers=1 (it has the sockets: {})", self.front(), self.why)?;
                for (name, processes) in &self.apps {
                    write!(f, "\nprocesses {name}: workers={} (behind the front)", workers(processes))?;
                }
                Ok(())
            }
        }
    }
}

/// What of a configuration must not exist several times.
fn shares(config: &Config) -> Option<String> {
    let app = config.apps.values().find(|node| node.app.shared_state());
    let routes = || config.sites.iter().flat_map(|site| &site.routes);
    let stacks = std::iter::once(&config.layers)
        .chain(config.sites.iter().map(|site| &site.layers))
        .chain(routes().map(|route| &route.layers));
    let mut layers = stacks.flat_map(|stack| stack.list.iter().chain(&stack.short));
    let layer = layers.find(|node| node.layer.shared_state());
    let inline = routes().find_map(|route| match &route.target {
        Target::Inline(app) if app.shared_state() => Some(app.name()),
        _ => None,
    });
    let named = app.map(|node| node.app.name()).or(inline).or(layer.map(|node| node.layer.name()));
    named.map(|name| format!("the state of '{name}'"))
}

fn most(workers: &Workers) -> u64 {
    match workers {
        Workers::Fixed(count) => count.get(),
        Workers::Range(range) => range.max.get(),
    }
}

fn size(workers: &Workers) -> Size {
    let count = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    match workers {
        Workers::Fixed(number) => Size::fixed(count(number.get())),
        Workers::Range(range) => {
            Size { min: count(range.min.get()), max: count(range.max.get()), idle: *range.idle }
        }
    }
}

fn identity(processes: &Processes) -> Identity {
    let Processes { user, group, limits, .. } = processes;
    identity_of(user.as_ref(), group.as_ref(), limits)
}

pub(super) fn identity_of(user: Option<&String>, group: Option<&String>, limits: &Limits) -> Identity {
    let Limits { files, processes: tasks, memory, cpu, core } = limits;
    let limits = [
        (Limit::Files, *files),
        (Limit::Processes, *tasks),
        (Limit::AddressSpace, memory.map(Bytes::bytes)),
        (Limit::Cpu, *cpu),
        (Limit::Core, core.map(Bytes::bytes)),
    ];
    Identity {
        user: user.cloned(),
        group: group.cloned(),
        limits: limits.into_iter().filter_map(|(limit, value)| Some((limit, value?))).collect(),
        ..Identity::default()
    }
}

fn recycle(processes: &Processes) -> Recycle {
    let asked = &processes.recycle;
    Recycle {
        requests: asked.requests.map(hawksbill_core::config::Bounded::get),
        age: asked.age.map(|age| *age),
        rss: asked.rss.map(Bytes::bytes),
        jitter: asked.jitter.map_or(0.0, Percent::fraction),
    }
}

/// A host that an application is asked by: one that its first site answers for.
fn host_of(config: &Config, app: &str) -> String {
    let leads = |target: &Target| matches!(target, Target::Named(name) if name == app);
    let site = config.sites.iter().find(|site| site.routes.iter().any(|route| leads(&route.target)));
    let exact = site.and_then(|site| {
        site.hosts.iter().find_map(|host| match host {
            HostPattern::Exact(host) => Some(host.to_string()),
            _ => None,
        })
    });
    exact.unwrap_or_else(|| "localhost".to_owned())
}

pub(super) fn absolute(dir: &Path) -> String {
    std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned()).display().to_string()
}

/// In which pool each application is: the one of its name, or the one of all that have none.
pub(super) fn pools(plan: &Plan, config: &Config) -> BTreeMap<String, String> {
    let own = |pool: &&String| {
        let program =
            plan.pools.get(*pool).is_some_and(|pool| pool.kind != hawksbill_supervisor::Kind::Workers);
        program || config.apps.contains_key(*pool)
    };
    let shared = plan.pools.keys().find(|pool| !own(pool)).or_else(|| plan.pools.keys().next());
    let pool = |app: &String| plan.pools.get_key_value(app).map(|(pool, _)| pool).or(shared).cloned();
    let apps = config.apps.keys().chain(plan.pools.keys());
    apps.filter_map(|app| Some((app.clone(), pool(app)?))).collect()
}
