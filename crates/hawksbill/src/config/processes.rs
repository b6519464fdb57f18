//! The keys of an application that has processes of its own.

use std::path::PathBuf;

use hawksbill_core::config::{Bounded, Duration, OneOrMany, Path, Percent, Size, Value, relay};
use indexmap::IndexMap;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

type Count = Bounded<1, 1024>;

/// The processes of an application: the keys that stand beside those of its kind, in `[apps.NAME]`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Processes {
    /// How many processes the application has: a number, or `{ min = 2, max = 8, idle = "30s" }`: as many as its load
    /// needs, one fewer when a process has not been needed for `idle`.
    pub workers: Workers,
    /// The virtual environment whose Python runs it, with a hawksbill of its own. Default: the one that runs the gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub venv: Option<PathBuf>,
    /// Variables that are set in its environment.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub env: IndexMap<String, String>,
    /// The user who owns its processes, by name or number, with the groups that this user is in. Needs root.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The group of its processes, by name or number. Needs root.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// What each process may use at most (`setrlimit`): `files` (open descriptors), `processes`, `memory`, `cpu` (seconds),
    /// `core` (bytes of a core dump). `memory` is address space (`RLIMIT_AS`): mapped files, stacks of threads and what is
    /// reserved and never used count, so that it lies far above what is resident, and a process that meets it is refused
    /// memory. To replace one that has grown, use `recycle.rss`.
    #[serde(skip_serializing_if = "Limits::is_empty")]
    pub limits: Limits,
    /// The services that are ready before its processes are started, and end after them.
    #[serde(skip_serializing_if = "super::services::is_empty")]
    pub after: OneOrMany<String>,
    /// Whether the application is imported once, in a process without threads from which its workers are forked, so that
    /// they share what the import has made as long as nobody writes to it. An application is refused that has, once it is
    /// imported, a thread, an event loop or an open connection: none of them survives a fork.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub preload: bool,
    /// How long it may take to be imported, started and ready.
    pub start_timeout: Duration,
    /// A path that has to answer with a status below 400 before a new generation takes over, such as `"/healthz"`. It is
    /// asked once the application has started, again and again until it does or `start_timeout` is over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready: Option<String>,
    /// One or several files that are touched to have this application loaded again, and what else has changed in the
    /// configuration: as the gateway's `touch_reload`. From the configuration file's directory, as `venv` is.
    #[serde(skip_serializing_if = "super::settings::no_files")]
    pub touch_reload: OneOrMany<PathBuf>,
    /// When a healthy process is replaced, its replacement ready before it goes: after so many `requests`, at this `age`,
    /// when it holds so much memory (`rss`); `jitter` is the part by which each process's own limits lie lower at most,
    /// so that they are not all replaced at once.
    #[serde(skip_serializing_if = "Recycle::is_empty")]
    pub recycle: Recycle,
}

impl Default for Processes {
    fn default() -> Self {
        Self {
            workers: Workers::default(),
            venv: None,
            env: IndexMap::new(),
            user: None,
            group: None,
            limits: Limits::default(),
            after: OneOrMany::default(),
            preload: false,
            start_timeout: Duration::from_secs(60),
            ready: None,
            touch_reload: OneOrMany::default(),
            recycle: Recycle::default(),
        }
    }
}

/// How many processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workers {
    /// Always so many.
    Fixed(Count),
    /// As the load needs.
    Range(Range),
}

/// Bounds for a number of processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Range {
    /// At least.
    pub min: Count,
    /// At most.
    pub max: Count,
    /// After how long without need a process goes.
    #[serde(default = "half_a_minute")]
    pub idle: Duration,
}

fn half_a_minute() -> Duration {
    Duration::from_secs(30)
}

impl Default for Workers {
    fn default() -> Self {
        Self::Fixed(Count::clamped(1))
    }
}

impl<'de> Deserialize<'de> for Workers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        if value.as_table().is_none() {
            return value.decode(&Path::root()).map(Self::Fixed).map_err(relay);
        }
        let range: Range = value.decode(&Path::root()).map_err(relay)?;
        if range.min > range.max {
            return Err(relay(value.mismatch("a min that is not above max")));
        }
        Ok(Self::Range(range))
    }
}

impl Serialize for Workers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Fixed(count) => count.serialize(serializer),
            Self::Range(range) => range.serialize(serializer),
        }
    }
}

impl JsonSchema for Workers {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Workers".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let (count, range) = (generator.subschema_for::<Count>(), generator.subschema_for::<Range>());
        json_schema!({ "anyOf": [count, range] })
    }
}

/// What each process may use at most.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Open descriptors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<u64>,
    /// Processes and threads of the user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub processes: Option<u64>,
    /// Address space (`RLIMIT_AS`), not resident memory: for that there is `recycle.rss`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Size>,
    /// Seconds of processor time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<u64>,
    /// A core dump.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub core: Option<Size>,
}

impl Limits {
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// When a healthy process is replaced.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Recycle {
    /// After so many requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests: Option<Bounded<1, 1_000_000_000_000>>,
    /// At this age.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age: Option<Duration>,
    /// When so much memory is resident.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rss: Option<Size>,
    /// By which part each process's own limits lie lower at most, such as `"10%"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jitter: Option<Percent>,
}

impl Recycle {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use hawksbill_core::config::parse_toml;

    use super::*;

    fn read(text: &str) -> Result<Processes, String> {
        let tree = parse_toml("f.toml", text).unwrap();
        tree.decode(&Path::root()).map_err(|error| error.to_string())
    }

    #[test]
    fn workers_are_a_number_or_a_range() {
        assert_eq!(read("").unwrap().workers, Workers::Fixed(Count::clamped(1)));
        assert_eq!(read("workers = 3").unwrap().workers, Workers::Fixed(Count::clamped(3)));
        let Workers::Range(range) = read("workers = { min = 2, max = 8 }").unwrap().workers else { panic!() };
        assert_eq!(
            (range.min.get(), range.max.get(), *range.idle),
            (2, 8, std::time::Duration::from_secs(30))
        );
        assert!(read("workers = 0").unwrap_err().contains("from 1 to 1024"));
        assert!(read("workers = { min = 3, max = 2 }").unwrap_err().contains("min that is not above max"));
        assert!(read("workers = { min = 3, maxx = 2 }").unwrap_err().contains("did you mean 'max'"));
    }

    #[test]
    fn the_rest_is_read() {
        let text =
            "recycle = { rss = '400MB', jitter = '10%' }\nlimits = { files = 1000 }\nenv = { A = 'b' }";
        let processes = read(text).unwrap();
        assert_eq!(processes.env["A"], "b");
        assert_eq!(processes.limits.files, Some(1000));
        assert!(read("recycle = { request = 1 }").unwrap_err().contains("did you mean 'requests'"));
    }
}
