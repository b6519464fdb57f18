//! The tables `[services.NAME]` and `[cron.NAME]`: programs beside the applications.

use std::borrow::Cow;
use std::path::PathBuf;

use hawksbill_core::config::{Duration, OneOrMany, Origin, Path, Value, relay};
use indexmap::IndexMap;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Limits;

/// A table with its place.
pub struct Placed<T> {
    /// What it says.
    pub table: T,
    /// Where it is written.
    pub origin: Origin,
}

/// A program that runs beside the applications, in `[services.NAME]`: a Celery worker, a Redis. It is started with the
/// gateway, started again when it ends, and ended with the gateway; what it writes is in the gateway's log, with its name.
///
/// A reload leaves a service alone whose table has not changed; one whose table has is ended, then started. One that
/// fails is tried again, with ever longer waits, and never takes the gateway down; `hawksbill status` shows it, and
/// `hawksbill reload NAME` starts it anew.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// What is run: a string that is split at blanks, with quotes as in a shell but without one (no variables, no pipes),
    /// or a list of words. A name without a slash is looked up in `PATH`.
    pub command: Command,
    /// Its working directory. Default: where the configuration file is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dir: Option<PathBuf>,
    /// A virtual environment, whose programs come first in `PATH`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub venv: Option<PathBuf>,
    /// Variables that are set in its environment.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub env: IndexMap<String, String>,
    /// The user who owns it, by name or number, with the groups that this user is in. Needs root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Its group, by name or number. Needs root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// What it may use at most, as for an application.
    #[serde(default, skip_serializing_if = "Limits::is_empty")]
    pub limits: Limits,
    /// When it is started again: `always`, `on-failure` (unless its exit code was 0) or `never`. The first time at once; if it
    /// ends again within ten seconds after 250 ms, then each time after twice as long, at most 30 s.
    #[serde(default)]
    pub restart: Restart,
    /// The services that are ready before this one is started, and end after it. One that fails to start is waited for no
    /// longer. An application has the same key.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub after: OneOrMany<String>,
    /// When it is ready: `"127.0.0.1:6379"` or `"unix:/run/redis.sock"` (when a connection is accepted there), an `http://` URL
    /// (when the answer's status is below 400), `{ line = "..." }` (when it has written a line that this regular expression
    /// is found in), `{ time = "2s" }` (when it has run for so long). Default: as soon as it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<Ready>,
    /// How long it may take to be ready; then it is killed, and started again.
    #[serde(default = "one_minute")]
    pub start_timeout: Duration,
    /// The signal that asks it to end: `"TERM"`, `"INT"`, `"QUIT"`, `"HUP"`, `"USR1"`, `"USR2"`, `"WINCH"` or `"KILL"`.
    #[serde(default)]
    pub stop_signal: StopSignal,
    /// How long it may take to end; then it is killed, with all that it has started.
    #[serde(default = "thirty_seconds")]
    pub stop_timeout: Duration,
}

fn one_minute() -> Duration {
    Duration::from_secs(60)
}

fn thirty_seconds() -> Duration {
    Duration::from_secs(30)
}

pub(super) fn is_empty(names: &OneOrMany<String>) -> bool {
    names.is_empty()
}

/// What is run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Command {
    /// To be split.
    Line(String),
    /// Words.
    Words(Vec<String>),
}

impl JsonSchema for Command {
    fn schema_name() -> Cow<'static, str> {
        "Command".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "array"], "items": { "type": "string" } })
    }
}

/// When a service is started again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// Each time that it ends.
    #[default]
    Always,
    /// Unless its exit code was 0.
    OnFailure,
    /// Never.
    Never,
}

/// The signal that asks for an end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum StopSignal {
    /// SIGTERM.
    #[default]
    #[serde(alias = "SIGTERM")]
    Term,
    /// SIGINT.
    #[serde(alias = "SIGINT")]
    Int,
    /// SIGQUIT.
    #[serde(alias = "SIGQUIT")]
    Quit,
    /// SIGHUP.
    #[serde(alias = "SIGHUP")]
    Hup,
    /// SIGUSR1.
    #[serde(alias = "SIGUSR1")]
    Usr1,
    /// SIGUSR2.
    #[serde(alias = "SIGUSR2")]
    Usr2,
    /// SIGWINCH.
    #[serde(alias = "SIGWINCH")]
    Winch,
    /// SIGKILL.
    #[serde(alias = "SIGKILL")]
    Kill,
}

/// When a service is ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ready {
    /// A connection is accepted at this address.
    Accepts(String),
    /// A good answer comes from this URL.
    Http(String),
    /// A line matches.
    Line(String),
    /// Some time is over.
    Time(Duration),
}

/// The spelling of those that are not a string.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "lowercase")]
enum Table {
    Line(String),
    Time(Duration),
}

impl<'de> Deserialize<'de> for Ready {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let Some(text) = value.as_str() else {
            return match value.decode(&Path::root()).map_err(relay)? {
                Table::Line(line) => Ok(Self::Line(line)),
                Table::Time(time) => Ok(Self::Time(time)),
            };
        };
        if text.starts_with("http://") {
            return Ok(Self::Http(text.to_owned()));
        }
        let port = text.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
        if text.strip_prefix("unix:").is_some_and(|path| !path.is_empty())
            || port.is_some_and(|(host, port)| !host.is_empty() && port != 0)
        {
            return Ok(Self::Accepts(text.to_owned()));
        }
        Err(relay(value.mismatch(
            "an address such as \"127.0.0.1:6379\" or \"unix:/run/redis.sock\", an http:// URL, { line = \"...\" } or { time = \"2s\" }",
        )))
    }
}

impl Serialize for Ready {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Accepts(text) | Self::Http(text) => text.serialize(serializer),
            Self::Line(line) => Table::Line(line.clone()).serialize(serializer),
            Self::Time(time) => Table::Time(*time).serialize(serializer),
        }
    }
}

impl JsonSchema for Ready {
    fn schema_name() -> Cow<'static, str> {
        "Ready".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "object"] })
    }
}

/// A command that runs at certain times, in `[cron.NAME]`. One run at a time: when a run is due while the one before is
/// under way, it is left out, and the log says so. What it writes, and how it ended, is in the gateway's log; `hawksbill
/// status` shows the last run and the next.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cron {
    /// The times: the five fields of crontab (minute, hour, day of month, month, day of week; names, lists, ranges and
    /// steps as usual; a sixth one in front is the second), or `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`. Where clocks go forward, what is due at a
    /// certain time that does not exist runs right after the gap; where they go back, it runs once; what has `*` or a step
    /// for its minute or hour follows the hours as they pass.
    pub schedule: String,
    /// The time zone of the times, such as `"Europe/Berlin"`. Default: the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
    /// What is run, as a service's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Command>,
    /// Instead of `command`: a Django management command, such as `"clearsessions"`, of the project that `app` names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manage: Option<Command>,
    /// The application whose directory, virtual environment, variables, user and limits it has; what stands here comes on top.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<String>,
    /// Its working directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dir: Option<PathBuf>,
    /// A virtual environment, whose programs come first in `PATH`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub venv: Option<PathBuf>,
    /// Variables that are set in its environment.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub env: IndexMap<String, String>,
    /// The user who owns it. Needs root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Its group. Needs root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// What it may use at most, as for an application.
    #[serde(default, skip_serializing_if = "Limits::is_empty")]
    pub limits: Limits,
    /// A Redis, such as `"redis://127.0.0.1/0"`, that several gateways with the same table share: one of them runs it. Each due
    /// time is claimed by one gateway, and a lock is held while it runs. While that Redis does not answer nothing runs,
    /// and the log says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock: Option<String>,
    /// How long it may run; then it is asked to end (SIGTERM), and killed ten seconds later. Default: as long as it likes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
}

#[cfg(test)]
mod tests {
    use hawksbill_core::config::parse_toml;

    use super::*;

    fn read(text: &str) -> Result<Service, String> {
        let tree = parse_toml("f.toml", text).unwrap();
        tree.decode(&Path::root()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_service_needs_its_command_alone() {
        let service = read("command = 'redis-server --port 0'").unwrap();
        assert_eq!(service.command, Command::Line("redis-server --port 0".into()));
        assert_eq!((service.restart, service.stop_signal), (Restart::Always, StopSignal::Term));
        assert!(read("dir = '/srv'").unwrap_err().contains("command"));
        assert!(
            read("command = ['a', 'b c']\nrestrat = 'never'").unwrap_err().contains("did you mean 'restart'")
        );
    }

    #[test]
    fn ways_to_be_ready() {
        let ready = |text: &str| {
            read(&format!("command = 'a'\nready = {text}")).map(|service| service.ready.unwrap())
        };
        let good = [
            ("'127.0.0.1:6379'", Ready::Accepts("127.0.0.1:6379".into())),
            ("'[::1]:6379'", Ready::Accepts("[::1]:6379".into())),
            ("'unix:/run/r.sock'", Ready::Accepts("unix:/run/r.sock".into())),
            ("'http://localhost:8080/ok'", Ready::Http("http://localhost:8080/ok".into())),
            ("{ line = 'ready.$' }", Ready::Line("ready.$".into())),
            ("{ time = '2s' }", Ready::Time(Duration::from_secs(2))),
        ];
        for (text, expected) in good {
            assert_eq!(ready(text).unwrap(), expected, "{text}");
        }
        for wrong in ["'6379'", "'unix:'", "':80'", "'host:0'", "3", "{ lin = 'x' }"] {
            assert!(ready(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn signals_have_two_names() {
        let signal =
            |name: &str| read(&format!("command = 'a'\nstop_signal = '{name}'")).map(|one| one.stop_signal);
        assert_eq!(signal("INT"), Ok(StopSignal::Int));
        assert_eq!(signal("SIGQUIT"), Ok(StopSignal::Quit));
        assert!(signal("STOP").is_err());
    }
}
