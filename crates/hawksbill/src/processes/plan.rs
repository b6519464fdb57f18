//! From a configuration to processes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::time::Duration;

use hawksbill_core::BuildError;
use hawksbill_core::config::{HostPattern, Percent, Size as Bytes};
use hawksbill_supervisor::{Identity, Limit, Plan, Pool, Program, Recycle, Size};

use super::{LAUNCHER, Payload, Probe, WORKER};
use crate::Config;
use crate::config::{AppNode, Limits, Processes, Target, Workers};

/// How long a process may take to end beyond the drain: applications are told to stop, and threads end.
const BEYOND_DRAIN: Duration = Duration::from_secs(10);

/// The name of the pool where no single application gives it one.
const GATEWAY: &str = "gateway";

/// Which processes a configuration gets, and why.
#[derive(Debug)]
pub(crate) struct Hosting {
    /// The pool's name.
    pool: String,
    processes: Processes,
    why: String,
}

impl Hosting {
    /// Decides.
    ///
    /// # Errors
    /// Where the configuration asks for what this version cannot do.
    pub(crate) fn of(config: &Config) -> Result<Self, BuildError> {
        let mut own = config.apps.iter().filter_map(|(name, node)| Some((name, node.processes.as_ref()?)));
        let inline = config
            .sites
            .iter()
            .flat_map(|site| &site.routes)
            .any(|route| matches!(&route.target, Target::Inline(app) if app.has_processes()));
        let (first, second) = (own.next(), own.next());
        match (first, second) {
            (Some((name, processes)), None) if !inline => {
                let shared = shares(config);
                if let (Some(what), true) = (&shared, most(&processes.workers) > 1) {
                    let message = format!(
                        "application {name} cannot have several workers: {what} would be another one in each; \
                         set workers = 1"
                    );
                    return Err(BuildError::new(message));
                }
                let why = "each worker is a whole gateway: there is one Python application";
                Ok(Self { pool: name.clone(), processes: processes.clone(), why: why.to_owned() })
            }
            (None, None) => Ok(Self {
                pool: GATEWAY.to_owned(),
                processes: Processes::default(),
                why: "one process: nothing has processes of its own".to_owned(),
            }),
            _ => Self::together(config),
        }
    }

    /// Several applications in one process, which have to agree on what kind of process that is.
    fn together(config: &Config) -> Result<Self, BuildError> {
        let plain = serde_json::to_value(Processes::default()).unwrap_or_default();
        let differs = |node: &&AppNode| {
            let asked = node.processes.as_ref().map(|one| serde_json::to_value(one).unwrap_or_default());
            asked.is_some_and(|asked| asked != plain)
        };
        if let Some((name, node)) = config.apps.iter().find(|(_, node)| differs(node)) {
            let message = format!(
                "application {name} asks for processes of its own kind, which this version gives to the only \
                 Python application of a gateway alone; leave its process keys out, or serve it by a gateway of its own"
            );
            let place = crate::config::place(&node.origin, &format!("apps.{name}"));
            return Err(BuildError::new(message).within(place));
        }
        let why = "one process: all applications share it";
        Ok(Self { pool: GATEWAY.to_owned(), processes: Processes::default(), why: why.to_owned() })
    }

    /// The plan. `program` starts this program again; `sockets` are the names of the descriptors to listen on.
    pub(crate) fn plan(
        &self,
        config: &Config,
        program: &[String],
        sockets: BTreeSet<String>,
        log_level: &str,
    ) -> Result<Plan, BuildError> {
        let Some(source) = &config.source else {
            return Err(BuildError::new("a configuration that a program put together has no processes"));
        };
        let processes = &self.processes;
        let start_timeout = *processes.start_timeout;
        let ready = processes.ready.clone().map(|path| Probe {
            app: self.pool.clone(),
            path,
            host: host_of(config, &self.pool),
            seconds: start_timeout.as_secs_f64(),
        });
        let payload = Payload {
            config: source.carry(),
            dir: absolute(&config.dir),
            log_level: log_level.to_owned(),
            ready,
        };
        let again = |interpreter: Option<&Path>, subcommand: &str| -> Vec<String> {
            let mut words = program.to_vec();
            if let (Some(first), Some(interpreter)) = (words.first_mut(), interpreter) {
                *first = interpreter.display().to_string();
            }
            words.push(subcommand.to_owned());
            words
        };
        let interpreter = processes.venv.as_ref().map(|venv| config.dir.join(venv).join("bin/python"));
        let mut words = again(interpreter.as_deref(), WORKER).into_iter();
        let program = Program {
            path: words.next().unwrap_or_default(),
            args: words.collect(),
            env: processes.env.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
            ..Program::default()
        };
        let pool = Pool {
            program,
            identity: identity(processes),
            size: size(&processes.workers),
            inherit: sockets,
            payload: serde_json::to_string(&payload).unwrap_or_default(),
            start_timeout,
            stop_timeout: *config.settings.drain + BEYOND_DRAIN,
            recycle: recycle(processes),
            ..Pool::default()
        };
        let launcher = again(None, LAUNCHER);
        Ok(Plan { pools: BTreeMap::from([(self.pool.clone(), pool)]), launcher })
    }
}

/// The choice, as `hawksbill check` prints it.
impl fmt::Display for Hosting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let workers = serde_json::to_string(&self.processes.workers).unwrap_or_default();
        write!(f, "processes {}: workers={workers} ({})", self.pool, self.why)
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
    let Limits { files, processes: tasks, memory, cpu, core } = &processes.limits;
    let limits = [
        (Limit::Files, *files),
        (Limit::Processes, *tasks),
        (Limit::AddressSpace, memory.map(Bytes::bytes)),
        (Limit::Cpu, *cpu),
        (Limit::Core, core.map(Bytes::bytes)),
    ];
    Identity {
        user: processes.user.clone(),
        group: processes.group.clone(),
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

fn absolute(dir: &Path) -> String {
    std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned()).display().to_string()
}
