//! Development (`hawksbill run --reload`): what was saved is loaded again at once.

mod companion;
mod notices;
mod page;
mod sources;
mod terminal;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use glob::Pattern;
use hawksbill_core::config::{Listen, ListenHost, Origin, Table, Value};
use hawksbill_supervisor::{Handle, Status};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};

use self::notices::Notices;
pub(super) use self::page::Bench;
use self::sources::{Look, Root, Seen, Sources, forget_compiled};
pub(super) use self::terminal::{Modes, is_hung_up};
use super::Reached;
use super::touch::Touched;
use crate::Config;
use crate::config::{Recycle, Workers};

/// How long nothing may change until what was saved counts as saved.
const SETTLE: Duration = Duration::from_millis(25);

/// How often is looked where the kernel tells of changes: it does not of those that another machine makes.
const SELDOM: Duration = Duration::from_secs(2);

/// How often is looked where it does not.
const OFTEN: Duration = Duration::from_millis(100);

/// At most one part in so many of a processor's time is spent on looking.
const SHARE: u32 = 20;

/// How often an application is loaded once more because an address is in use, a debugger's maybe, and how long after.
pub(super) const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(300);

/// So many changed files are named.
const NAMED: usize = 3;

/// How long an application may take to start: somebody may sit in a debugger.
const PATIENCE: Duration = Duration::from_secs(24 * 3600);

/// How long a process may take to end beyond the drain: a thread that sits in a debugger never does.
pub(super) const BEYOND_DRAIN: Duration = Duration::from_secs(2);

/// What the flag says of the gateway, over everything else: a front, which stays while the applications behind it are
/// replaced, and no long wait for what is replaced.
pub(crate) fn develop(over: &mut Table) {
    let origin = Origin::named("--reload");
    let mut set = |key, value: Value| over.insert(key, origin.clone(), value.with_origin(&origin));
    set("front", Value::from(true));
    set("drain", Value::from("1s"));
}

/// What is said at the start. `by` is the flag or the variable that has asked for development.
pub(crate) fn notice(config: &Config, by: &str) -> String {
    let is_local = |listen: &Listen| match listen {
        Listen::Tcp { host: ListenHost::All, .. } => false,
        Listen::Tcp { host: ListenHost::Address(address), .. } => address.is_loopback(),
        _ => true,
    };
    let warning = if config.sockets().iter().all(is_local) {
        ""
    } else {
        "; whoever reaches this address is shown the source where something is wrong"
    };
    format!("development ({by}), not for production: what is saved is loaded at once{warning}")
}

/// The settings of an application where somebody edits it. No request is given up, for somebody may sit in a debugger; and a
/// Django project has its static files from where they are written.
pub(super) fn settle(settings: &mut serde_json::Value) {
    if let Some(timeout) = settings.get_mut("timeout") {
        *timeout = "0".into();
    }
    if settings.get("django").is_some()
        && let Some(settings) = settings.as_object_mut()
    {
        settings.insert("finders".to_owned(), true.into());
    }
}

/// The applications whose processes have died while they started, and what is known of it.
pub(super) type Broken = BTreeMap<String, String>;

/// What a worker is told whose application is being edited.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Development {
    /// The directory of the sources.
    root: PathBuf,
    /// Why the application is not even to be started: this has ended the processes that did.
    pub(super) broken: Option<String>,
}

/// What a worker tells whose application is being edited.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Told {
    /// The files that the application has imported, packages left out.
    imported: Vec<PathBuf>,
    /// Whether it does not start because an address is in use.
    in_use: bool,
}

/// Whether an application of this generation found an address taken: by its former worker, which is gone in a moment, or by
/// somebody else. It may be tried so often.
pub(super) async fn is_in_the_way(handle: &Handle, generation: u64, tries: &mut u32) -> bool {
    if *tries == 0 {
        return false;
    }
    let pools = handle.status().await.map(|status| status.pools).unwrap_or_default();
    let new = pools.values().flat_map(|pool| &pool.processes).filter(|one| one.generation == generation);
    let mut told = new.filter_map(|one| serde_json::from_value::<Reached>(one.info.clone()).ok());
    let again = told.any(|reached| reached.told.in_use);
    if again {
        *tries -= 1;
        sleep(PAUSE).await;
    }
    again
}

impl Development {
    pub(super) fn of(config: &Config, app: &str, broken: &Broken) -> Option<Self> {
        let root = dir_of(config, &config.apps.get(app)?.app.settings());
        Some(Self { root, broken: broken.get(app).cloned() })
    }
}

/// What a configuration is where somebody edits it: one worker for each application, which nobody replaces but for a change.
pub(super) fn adapt(config: &mut Config) {
    config.name_inline();
    for processes in config.apps.values_mut().filter_map(|node| node.processes.as_mut()) {
        processes.workers = Workers::default();
        processes.recycle = Recycle::default();
        processes.start_timeout = PATIENCE.into();
    }
}

/// What else counts as a change, and what does not, as the command line says it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    extra: BTreeSet<PathBuf>,
    except: Vec<Pattern>,
}

impl Counted {
    /// Files, and directories with all below them, that count; patterns of whole paths that do not, as Python's `fnmatch`
    /// has them: `*` stands for slashes, too.
    ///
    /// # Errors
    /// A pattern that is none.
    pub(crate) fn new(
        extra: impl IntoIterator<Item = PathBuf>,
        except: impl IntoIterator<Item = String>,
    ) -> Result<Self, String> {
        let extra = extra.into_iter().map(|path| std::path::absolute(&path).unwrap_or(path)).collect();
        let pattern = |text: String| {
            let mut simple = text.clone();
            while simple.contains("**") {
                simple = simple.replace("**", "*");
            }
            Pattern::new(&simple).map_err(|error| format!("'{text}' is no pattern: {error}"))
        };
        Ok(Self { extra, except: except.into_iter().map(pattern).collect::<Result<_, _>>()? })
    }
}

/// What is looked at: the sources of each application, and the files of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    dirs: BTreeMap<PathBuf, BTreeSet<String>>,
    files: BTreeSet<PathBuf>,
    /// What else an application has imported.
    imported: BTreeMap<String, BTreeSet<PathBuf>>,
    /// When the process was started that has imported what was new at last.
    started: BTreeMap<String, SystemTime>,
    counted: Counted,
}

impl Wanted {
    /// Nothing yet but what the command line says.
    pub(super) fn counting(counted: Counted) -> Self {
        Self { counted, ..Self::default() }
    }

    /// What other modules the applications have imported `before` is remembered: one that is broken imports less.
    pub(super) fn of(config: &Config, before: &Self) -> Self {
        let mut dirs: BTreeMap<PathBuf, BTreeSet<String>> = BTreeMap::new();
        for (name, node) in config.apps.iter().filter(|(_, node)| node.processes.is_some()) {
            dirs.entry(dir_of(config, &node.app.settings())).or_default().insert(name.clone());
        }
        let counted = before.counted.clone();
        let files = config.files.iter().filter_map(|file| std::path::absolute(file).ok());
        let files = files.chain(counted.extra.iter().cloned()).collect();
        let mut imported = before.imported.clone();
        imported.retain(|name, _| config.apps.contains_key(name));
        let mut started = before.started.clone();
        started.retain(|name, _| imported.contains_key(name));
        Self { dirs, files, imported, started, counted }
    }

    /// Takes on what the workers say that they have imported. False if that is nothing new.
    pub(super) fn imported(&mut self, status: &Status) -> bool {
        let mut is_new = false;
        for (pool, status) in &status.pools {
            let own = |path: &PathBuf| {
                self.dirs.iter().any(|(dir, apps)| apps.contains(pool) && path.starts_with(dir))
            };
            for process in &status.processes {
                let Ok(reached) = serde_json::from_value::<Reached>(process.info.clone()) else { continue };
                let found: BTreeSet<PathBuf> =
                    reached.told.imported.into_iter().filter(|path| !own(path)).collect();
                let known = self.imported.get(pool);
                if found.iter().all(|path| known.is_some_and(|known| known.contains(path))) {
                    continue;
                }
                is_new = true;
                self.imported.entry(pool.clone()).or_default().extend(found);
                // By the clock of the file system, as the times of the files are.
                if let Some(started) = SystemTime::now().checked_sub(process.uptime) {
                    self.started.insert(pool.clone(), started);
                }
            }
        }
        is_new
    }

    fn roots(&self) -> impl Iterator<Item = Root> {
        let files = self.imported.values().chain([&self.files]).filter(|files| !files.is_empty());
        self.dirs.keys().cloned().map(Root::Dir).chain(files.cloned().map(Root::Files))
    }

    /// When the process was started that has loaded what is new among these files. `None`: they are known by other means, and
    /// nobody loads them before the first look.
    fn started(&self, root: &Root) -> Option<SystemTime> {
        let Root::Files(files) = root else { return None };
        let with = self.imported.iter().filter(|(_, imported)| *imported == files);
        with.filter_map(|(name, _)| self.started.get(name).copied()).min()
    }

    /// What is to be loaded again when these files of a root have changed. The whole has all applications in it.
    fn apps(&self, root: &Root) -> BTreeSet<String> {
        match root {
            Root::Dir(dir) => self.dirs.get(dir).cloned().unwrap_or_default(),
            Root::Files(files) if *files == self.files => BTreeSet::new(),
            Root::Files(files) => {
                let with = self.imported.iter().filter(|(_, imported)| *imported == files);
                with.map(|(name, _)| name.clone()).collect()
            }
        }
    }
}

/// The directory that an application is imported from.
fn dir_of(config: &Config, settings: &serde_json::Value) -> PathBuf {
    let own = settings.get("dir").and_then(serde_json::Value::as_str);
    let dir = own.map_or_else(|| config.dir.clone(), |own| config.dir.join(own));
    std::path::absolute(&dir).unwrap_or(dir)
}

/// Looks at the sources of the configuration in practice, for ever.
pub(super) async fn keep(mut wanted: watch::Receiver<Wanted>, asks: mpsc::Sender<Touched>) {
    let mut notices = Notices::new();
    let mut all: Vec<Sources> = Vec::new();
    loop {
        let now = wanted.borrow_and_update().clone();
        // Those that stay remember what they saw.
        let (kept, gone): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|sources| now.roots().any(|root| root == sources.root));
        all = kept;
        let before: Look = gone.into_iter().flat_map(Sources::into_known).collect();
        let new: Vec<Root> =
            now.roots().filter(|root| all.iter().all(|sources| sources.root != *root)).collect();
        // While one reload is under way, one more may wait: it will find all that was saved until then.
        let Ok(asking) = asks.reserve().await else { return };
        let began = Instant::now();
        let except = now.counted.except.clone();
        let new: Vec<_> = new.into_iter().map(|root| (now.started(&root), root)).collect();
        // A network's file system may take its time, and the supervisor has other things to do.
        let looked = tokio::task::spawn_blocking(move || {
            let seen: Vec<Seen> = all.iter_mut().map(Sources::look).collect();
            let old = all.len();
            let new = new
                .into_iter()
                .map(|(started, root)| Sources::at(root, except.clone()).after(&before, started));
            all.extend(new);
            (all, seen, old)
        });
        let Ok((now_all, seen, old)) = looked.await else { return };
        all = now_all;
        let moves = seen.contains(&Seen::Moves) || all.iter().skip(old).any(Sources::is_behind);
        if let Some(touched) = told(&now, all.iter().take(old).zip(seen)) {
            asking.send(touched);
        }
        let dirs = all.iter().flat_map(|sources| &sources.dirs).cloned().collect();
        let told = notices.watch(dirs, all.iter().flat_map(Sources::named).collect());
        let pace = began.elapsed() * SHARE;
        let wait = match (moves, told) {
            (true, _) => SETTLE,
            (false, true) => pace.max(SELDOM),
            (false, false) => pace.max(OFTEN),
        };
        tokio::select! {
            changed = wanted.changed() => if changed.is_err() { return },
            () = notices.any() => sleep(SETTLE).await,
            () = sleep(wait) => {}
        }
    }
}

fn told<'a>(wanted: &Wanted, looks: impl Iterator<Item = (&'a Sources, Seen)>) -> Option<Touched> {
    let (mut paths, mut apps, mut is_whole) = (BTreeSet::new(), BTreeSet::new(), false);
    for (sources, seen) in looks {
        let Seen::Changed(changed) = seen else { continue };
        forget_compiled(&changed);
        let own = wanted.apps(&sources.root);
        is_whole |= own.is_empty();
        apps.extend(own);
        paths.extend(changed);
    }
    if is_whole {
        apps.clear();
    }
    (!paths.is_empty()).then(|| Touched { apps, what: what(&paths) })
}

/// What changed, for people.
fn what(paths: &BTreeSet<PathBuf>) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    let short = |path: &PathBuf| path.strip_prefix(&here).unwrap_or(path).display().to_string();
    let names: Vec<String> = paths.iter().take(NAMED).map(short).collect();
    match paths.len().saturating_sub(NAMED) {
        0 => format!("{} changed", names.join(", ")),
        more => format!("{} and {more} more changed", names.join(", ")),
    }
}
