//! What is to run: plain data, without a word about requests.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::exit::Exit;

/// Everything that a supervisor is to run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The pools by name.
    pub pools: BTreeMap<String, Pool>,
    /// The program, and its first arguments, that calls [`launch`](crate::launch): it takes on a pool's user and limits
    /// before anything of the pool's runs. Needed where a pool has an [`Identity`].
    #[serde(default)]
    pub launcher: Vec<String>,
}

/// Processes of one kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact by itself")]
pub struct Pool {
    /// How its processes come and go.
    pub kind: Kind,
    /// What each process runs.
    pub program: Program,
    /// Whose process it is, and what it may use.
    pub identity: Identity,
    /// How many.
    pub size: Size,
    /// The names of the supervisor's descriptors that each process inherits.
    pub inherit: BTreeSet<String>,
    /// The pools whose members are told to the processes of this one, each time they change.
    pub follows: BTreeSet<String>,
    /// The pools that are given time to be ready before processes of this one are started, and that end after it. One that
    /// fails is waited for no longer.
    pub after: BTreeSet<String>,
    /// Whether the program speaks over the [channel](crate::child). One that does not is asked to end by
    /// [`stop_signal`](Self::stop_signal).
    pub speaks: bool,
    /// Whether a program that does not speak is ready only when [`Handle::ready`](crate::Handle::ready) says so; otherwise
    /// it is as soon as it runs.
    pub told_ready: bool,
    /// What ends a program that does not speak, by its number at the system.
    pub stop_signal: i32,
    /// Whether one process, the *preloader*, loads the program, and those of the pool are forked from it: they share its
    /// memory as long as nobody writes to it. The program has to know ([`Child::is_preloader`](crate::child::Child::is_preloader)).
    /// From the first such pool on the supervisor takes the status of every child that ends, as with
    /// [`reap_all`](crate::Settings::reap_all).
    pub preload: bool,
    /// Handed to each process at its start. Not looked into; another payload is another generation.
    pub payload: String,
    /// What else makes this a changed pool: a version, a digest of the code.
    pub fingerprint: String,
    /// How long a process may take until it is ready.
    pub start_timeout: Duration,
    /// How long it may take to end before it is killed.
    pub stop_timeout: Duration,
    /// When a healthy process is replaced.
    pub recycle: Recycle,
    /// What follows when processes die.
    pub restart: Restart,
    /// What becomes of standard output and standard error.
    pub output: Output,
    /// Whether a person at the supervisor's terminal may talk to it: its standard input and its process group are the
    /// supervisor's. Interrupts from the keyboard are for the supervisor alone even so.
    pub terminal: bool,
}

impl Default for Pool {
    fn default() -> Self {
        Self {
            kind: Kind::default(),
            program: Program::default(),
            identity: Identity::default(),
            size: Size::default(),
            inherit: BTreeSet::new(),
            follows: BTreeSet::new(),
            after: BTreeSet::new(),
            speaks: true,
            told_ready: false,
            stop_signal: 15,
            preload: false,
            payload: String::new(),
            fingerprint: String::new(),
            start_timeout: Duration::from_secs(60),
            stop_timeout: Duration::from_secs(30),
            recycle: Recycle::default(),
            restart: Restart::default(),
            output: Output::Inherit,
            terminal: false,
        }
    }
}

impl Pool {
    /// Whether processes of this pool will do for the other: then a new plan replaces none.
    pub(crate) fn runs_the_same(&self, other: &Self) -> bool {
        self.kind == other.kind
            && self.program == other.program
            && self.identity == other.identity
            && self.inherit == other.inherit
            && self.follows == other.follows
            && self.speaks == other.speaks
            && self.told_ready == other.told_ready
            && self.preload == other.preload
            && self.payload == other.payload
            && self.fingerprint == other.fingerprint
            && self.output == other.output
            && self.terminal == other.terminal
    }
}

/// How the processes of a pool come and go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// They can stand beside each other: those of a new generation are ready before the old ones go, and a plan fails with
    /// them.
    #[default]
    Workers,
    /// A program that stands alone: what it holds (a port, a lock) another of its kind cannot. A new generation starts when
    /// the old one has ended, once the rest of the plan is in practice; and no plan fails with it.
    Service,
    /// A program that runs when [`Handle::once`](crate::Handle::once) says so, and ends by itself. A new plan leaves one that runs
    /// alone, unless it has no such pool any more.
    Task,
}

/// A program and what surrounds it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Program {
    /// Its path, or a name that is looked up in `PATH`.
    pub path: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// What is set in its environment.
    pub env: BTreeMap<String, String>,
    /// Whether it gets nothing of the supervisor's own environment.
    pub clear_env: bool,
    /// Its working directory. Without it: the supervisor's.
    pub dir: Option<PathBuf>,
}

/// Whose process it is, and what it may use. Everything that is absent stays as the supervisor has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Identity {
    /// A user's name or number. Brings the user's groups along, unless they are given.
    pub user: Option<String>,
    /// A group's name or number.
    pub group: Option<String>,
    /// The supplementary groups: names or numbers.
    pub groups: Option<Vec<String>>,
    /// The file mode creation mask.
    pub umask: Option<u32>,
    /// Soft and hard limits.
    pub limits: BTreeMap<Limit, u64>,
}

impl Identity {
    /// Whether it asks for nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A resource that can be limited (`setrlimit(2)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// Open descriptors.
    Files,
    /// Processes and threads of the user.
    Processes,
    /// Bytes of address space.
    AddressSpace,
    /// Bytes of data: what is really allocated.
    Data,
    /// Seconds of processor time.
    Cpu,
    /// Bytes of a core dump.
    Core,
    /// Bytes of a file written.
    FileSize,
    /// Bytes of locked memory.
    LockedMemory,
}

/// How many processes a pool has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// At least, and at the start.
    pub min: u32,
    /// At most.
    pub max: u32,
    /// After how long without need a process more than `min` goes.
    pub idle: Duration,
}

impl Size {
    /// Always so many.
    pub const fn fixed(count: u32) -> Self {
        Self { min: count, max: count, idle: Duration::from_secs(30) }
    }
}

impl Default for Size {
    fn default() -> Self {
        Self::fixed(1)
    }
}

/// When a healthy process is replaced. The replacement is ready before the process is drained, and of a pool one is
/// replaced at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Recycle {
    /// After so many requests.
    pub requests: Option<u64>,
    /// At this age.
    pub age: Option<Duration>,
    /// When so many bytes are resident.
    pub rss: Option<u64>,
    /// By which part at most, from 0 to 1, each process's own limits lie lower, so that they do not all fall due at
    /// once.
    pub jitter: f64,
}

/// What follows when a process dies. The first replacement comes at once; where processes keep dying soon after they
/// began to serve, each wait is twice the one before. While others of the pool serve on, no wait is longer than the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Restart {
    /// After which deaths there is a replacement at all.
    pub when: When,
    /// What counts as soon.
    pub soon: Duration,
    /// The first wait.
    pub first: Duration,
    /// The longest wait.
    pub longest: Duration,
    /// A process that served so long ends the series.
    pub stable: Duration,
}

/// After which deaths a process is replaced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// After every one.
    #[default]
    Always,
    /// Unless it ended with the exit code 0.
    Failure,
    /// After none.
    Never,
}

impl When {
    pub(crate) fn restarts(self, exit: Exit) -> bool {
        match self {
            Self::Always => true,
            Self::Failure => !exit.is_clean(),
            Self::Never => false,
        }
    }
}

impl Default for Restart {
    fn default() -> Self {
        Self {
            when: When::Always,
            soon: Duration::from_millis(500),
            first: Duration::from_millis(250),
            longest: Duration::from_secs(30),
            stable: Duration::from_secs(10),
        }
    }
}

impl Restart {
    /// How long to wait after this many deaths in a row.
    pub(crate) fn wait(&self, deaths: u32) -> Duration {
        match deaths {
            0 | 1 => Duration::ZERO,
            more => {
                let doubled = self.first.saturating_mul(1_u32 << (more - 2).min(20));
                doubled.min(self.longest)
            }
        }
    }
}

/// What becomes of standard output and standard error of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Output {
    /// They are the supervisor's.
    #[default]
    Inherit,
    /// Standard error is read as with `Lines`; standard output is the supervisor's.
    Errors,
    /// They are read line by line, handed to the supervisor's [sink](crate::Settings::lines), and the last ones are
    /// part of the message when a start fails.
    Lines,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_replacement_comes_at_once_and_waits_are_bounded() {
        let restart = Restart::default();
        let waits: Vec<_> = (0..6).map(|deaths| restart.wait(deaths).as_millis()).collect();
        assert_eq!(waits, [0, 0, 250, 500, 1000, 2000]);
        assert_eq!(restart.wait(u32::MAX), restart.longest);
    }

    #[test]
    fn who_is_replaced_is_a_matter_of_the_end() {
        let ends = [Exit::Code(0), Exit::Code(3), Exit::Signal(9)];
        let replaced = |when: When| ends.map(|exit| when.restarts(exit));
        assert_eq!(replaced(When::Always), [true, true, true]);
        assert_eq!(replaced(When::Failure), [false, true, true]);
        assert_eq!(replaced(When::Never), [false, false, false]);
    }

    #[test]
    fn another_size_needs_no_other_processes() {
        let pool = Pool::default();
        assert!(pool.runs_the_same(&Pool { size: Size::fixed(7), ..Pool::default() }));
        assert!(!pool.runs_the_same(&Pool { payload: "new".into(), ..Pool::default() }));
    }

    #[test]
    fn a_plan_survives_its_text() {
        let mut plan = Plan::default();
        plan.pools.insert("shop".into(), Pool { size: Size::fixed(3), ..Pool::default() });
        let text = serde_json::to_string(&plan).unwrap();
        assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
    }
}
