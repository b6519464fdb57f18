//! What runs: as the control socket says it, and as a person reads it.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::time::Duration;

use hawksbill_supervisor::{PoolStatus, ProcessStatus, State, Status};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::figures::Figures;
use crate::cron::Shown;
use crate::processes::Upgrades;

/// A gateway. Times are seconds, sizes bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// The version of the program.
    pub(crate) hawksbill: String,
    pub(crate) pid: u32,
    pub(crate) state: Condition,
    pub(crate) uptime: f64,
    /// The configuration file, or the application and its directory.
    pub(crate) serves: String,
    pub(crate) listen: Vec<String>,
    pub(crate) pools: BTreeMap<String, Pool>,
    /// The commands that run at certain times.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) cron: BTreeMap<String, Shown>,
    /// What came of upgrades of the program.
    #[serde(default)]
    pub(crate) upgrades: Upgrades,
    /// How much there is to do, and how it goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) figures: Option<Figures>,
}

/// What a gateway does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Condition {
    #[default]
    Starting,
    Serving,
    /// It serves, and starts another generation meanwhile.
    Changing,
    Stopping,
}

/// Processes of one kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Pool {
    /// The generation that serves.
    generation: u64,
    /// How many processes it should have.
    workers: u32,
    /// How often one died unasked.
    restarts: u64,
    /// The last such end.
    last_end: Option<String>,
    /// How its process ended, where there is to be no other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    finished: Option<String>,
    /// How long the next start is put off.
    waits: Option<f64>,
    /// What `rollback` goes back to.
    warm: Option<Warm>,
    processes: Vec<Process>,
}

/// A generation that is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Warm {
    generation: u64,
    seconds: f64,
}

/// A process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Process {
    /// Its number at the supervisor, which is never given twice.
    #[serde(rename = "process")]
    number: u64,
    pid: u32,
    generation: u64,
    state: State,
    uptime: f64,
    rss: u64,
    cpu: f64,
    requests: u64,
    busy: u32,
    slots: u32,
    waiting: u32,
    /// Why it is to be replaced.
    retiring: Option<String>,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    info: Value,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    more: Value,
}

impl Condition {
    pub(super) fn of(status: &Status, listen: &[String]) -> Self {
        match (status.stopping, listen.is_empty(), status.applying) {
            (true, ..) => Self::Stopping,
            (_, true, _) => Self::Starting,
            (_, _, true) => Self::Changing,
            _ => Self::Serving,
        }
    }

    /// In a word.
    pub(crate) fn word(self) -> String {
        word(&self)
    }
}

impl Report {
    /// What a supervisor says of its processes, with what it does not know.
    pub(super) fn new(status: Status, serves: String, listen: Vec<String>, uptime: Duration) -> Self {
        let state = Condition::of(&status, &listen);
        Self {
            hawksbill: crate::VERSION.to_owned(),
            pid: status.pid,
            state,
            uptime: uptime.as_secs_f64(),
            serves,
            listen,
            pools: status.pools.into_iter().map(|(name, pool)| (name, pool.into())).collect(),
            cron: BTreeMap::new(),
            upgrades: Upgrades::default(),
            figures: None,
        }
    }

    /// Where a process belongs, for people.
    pub(crate) fn process(&self, number: u64) -> Option<(&str, u32)> {
        self.pools.iter().find_map(|(name, pool)| {
            let process = pool.processes.iter().find(|process| process.number == number)?;
            Some((name.as_str(), process.pid))
        })
    }
}

impl From<PoolStatus> for Pool {
    fn from(pool: PoolStatus) -> Self {
        let warm = pool.warm.map(|(generation, left)| Warm { generation, seconds: left.as_secs_f64() });
        Self {
            generation: pool.generation,
            workers: pool.target,
            restarts: pool.deaths,
            last_end: pool.last_death,
            finished: pool.finished,
            waits: pool.waits.map(|wait| wait.as_secs_f64()),
            warm,
            processes: pool.processes.into_iter().map(Process::from).collect(),
        }
    }
}

impl From<ProcessStatus> for Process {
    fn from(process: ProcessStatus) -> Self {
        Self {
            number: process.process,
            pid: process.pid,
            generation: process.generation,
            state: process.state,
            uptime: process.uptime.as_secs_f64(),
            rss: process.rss,
            cpu: process.cpu.as_secs_f64(),
            requests: process.beat.requests,
            busy: process.beat.busy,
            slots: process.beat.slots,
            waiting: process.beat.waiting,
            retiring: process.retiring,
            info: process.info,
            more: process.beat.more,
        }
    }
}

const HEAD: [&str; 9] = ["POOL", "GENERATION", "STATE", "PID", "UPTIME", "RSS", "CPU", "REQUESTS", "BUSY"];

/// The table that `hawksbill status` prints.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { hawksbill, pid, serves, .. } = self;
        let (state, uptime) = (word(&self.state), age(self.uptime));
        writeln!(f, "hawksbill {hawksbill}, pid {pid}, {state}, up {uptime}: {serves}")?;
        if !self.listen.is_empty() {
            writeln!(f, "listening on {}", self.listen.join(", "))?;
        }
        let mut rows = vec![HEAD.map(str::to_owned)];
        for (name, pool) in &self.pools {
            rows.extend(pool.processes.iter().map(|process| process.row(name)));
        }
        if rows.len() > 1 {
            writeln!(f)?;
            table(f, &rows)?;
        }
        for (name, pool) in &self.pools {
            pool.remarks(f, name)?;
        }
        self.timetable(f)
    }
}

const TIMES: [&str; 6] = ["CRON", "SCHEDULE", "LAST", "TOOK", "EXIT", "NEXT"];

impl Report {
    /// The commands that run at certain times.
    fn timetable(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.cron.is_empty() {
            return Ok(());
        }
        let mut rows = vec![TIMES.map(str::to_owned)];
        for (name, command) in &self.cron {
            let last = command.last.clone();
            let (began, took, exit) = last.map_or_else(
                || ("never".to_owned(), String::new(), String::new()),
                |run| (run.began, age(run.seconds), run.exit),
            );
            let next = command.next.clone().unwrap_or_default();
            rows.push([name.clone(), command.schedule.clone(), began, took, exit, next]);
        }
        writeln!(f)?;
        table(f, &rows)?;
        for (name, command) in self.cron.iter().filter(|(_, command)| command.missed > 0) {
            let (count, why) = (command.missed, command.last_missed.as_deref().unwrap_or_default());
            writeln!(f, "{name}: runs left out: {count}, the last because {why}")?;
        }
        Ok(())
    }
}

fn table<const N: usize>(f: &mut fmt::Formatter<'_>, rows: &[[String; N]]) -> fmt::Result {
    let widths: [usize; N] = std::array::from_fn(|column| {
        rows.iter().map(|row| row.get(column).map_or(0, |cell| cell.chars().count())).max().unwrap_or(0)
    });
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            write!(line, "{cell:width$}  ")?;
        }
        writeln!(f, "{}", line.trim_end())?;
    }
    Ok(())
}

impl Process {
    fn row(&self, pool: &str) -> [String; HEAD.len()] {
        let busy = if self.slots == 0 { String::new() } else { format!("{}/{}", self.busy, self.slots) };
        let waiting = if self.waiting == 0 { String::new() } else { format!(" +{}", self.waiting) };
        [
            pool.to_owned(),
            self.generation.to_string(),
            word(&self.state),
            self.pid.to_string(),
            age(self.uptime),
            megabytes(self.rss),
            age(self.cpu),
            self.requests.to_string(),
            busy + &waiting,
        ]
    }
}

impl Pool {
    fn remarks(&self, f: &mut fmt::Formatter<'_>, name: &str) -> fmt::Result {
        if self.restarts > 0 {
            let times = if self.restarts == 1 { "once" } else { "times" };
            let often =
                if self.restarts == 1 { times.to_owned() } else { format!("{} {times}", self.restarts) };
            let last = self.last_end.as_deref().and_then(|end| end.lines().next()).unwrap_or("unknown");
            writeln!(f, "{name}: a process ended unasked {often}, the last with: {last}")?;
        }
        if let Some(exit) = &self.finished {
            writeln!(
                f,
                "{name}: it ended with {exit} and is not started again; to do so: hawksbill reload {name}"
            )?;
        }
        if let Some(waits) = self.waits {
            writeln!(f, "{name}: its processes keep ending; the next one starts in {}", age(waits))?;
        }
        if let Some(Warm { generation, seconds }) = &self.warm {
            let left = age(*seconds);
            writeln!(
                f,
                "{name}: generation {generation} is kept for {left}; back to it: hawksbill rollback {name}"
            )?;
        }
        for process in &self.processes {
            if let Some(reason) = &process.retiring {
                writeln!(f, "{name}: process {} is to be replaced: {reason}", process.pid)?;
            }
        }
        Ok(())
    }
}

/// A value that is one word.
fn word(value: &impl Serialize) -> String {
    let value = serde_json::to_value(value).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
}

fn megabytes(bytes: u64) -> String {
    let tenths = bytes.saturating_mul(10) / (1 << 20);
    format!("{}.{} MB", tenths / 10, tenths % 10)
}

/// A time as people say it: the two largest units.
pub(crate) fn age(seconds: f64) -> String {
    let span = Duration::try_from_secs_f64(seconds).unwrap_or_default();
    let whole = span.as_secs();
    match (whole / 86_400, whole / 3600 % 24, whole / 60 % 60, whole % 60) {
        (0, 0, 0, _) => format!("{}.{}s", whole, span.subsec_millis() / 100),
        (0, 0, minutes, seconds) => format!("{minutes}m{seconds:02}s"),
        (0, hours, minutes, _) => format!("{hours}h{minutes:02}m"),
        (days, hours, ..) => format!("{days}d{hours:02}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: u32, state: State) -> Process {
        Process {
            number: u64::from(pid),
            pid,
            generation: 3,
            state,
            uptime: 192.4,
            rss: 47_500_000,
            cpu: 1.25,
            requests: 1234,
            busy: 2,
            slots: 8,
            waiting: 0,
            retiring: None,
            info: Value::Null,
            more: Value::Null,
        }
    }

    fn report() -> Report {
        let pool = Pool {
            generation: 3,
            workers: 2,
            restarts: 2,
            last_end: Some("SIGKILL (by hand, or memory ran out)\nmore".into()),
            finished: None,
            waits: None,
            warm: Some(Warm { generation: 2, seconds: 570.0 }),
            processes: vec![
                process(41, State::Serving),
                Process { slots: 0, waiting: 0, ..process(1042, State::Paused) },
            ],
        };
        Report {
            hawksbill: "0.1.0".into(),
            pid: 40,
            state: Condition::Serving,
            uptime: 3700.0,
            serves: "/srv/shop/hawksbill.toml".into(),
            listen: vec!["http://127.0.0.1:8000".into()],
            pools: [("shop".to_owned(), pool)].into(),
            cron: BTreeMap::new(),
            upgrades: Upgrades::default(),
            figures: None,
        }
    }

    #[test]
    fn a_person_reads_a_table() {
        let expected = "\
hawksbill 0.1.0, pid 40, serving, up 1h01m: /srv/shop/hawksbill.toml
listening on http://127.0.0.1:8000

POOL  GENERATION  STATE    PID   UPTIME  RSS      CPU   REQUESTS  BUSY
shop  3           serving  41    3m12s   45.2 MB  1.2s  1234      2/8
shop  3           paused   1042  3m12s   45.2 MB  1.2s  1234
shop: a process ended unasked 2 times, the last with: SIGKILL (by hand, or memory ran out)
shop: generation 2 is kept for 9m30s; back to it: hawksbill rollback shop
";
        assert_eq!(report().to_string(), expected);
    }

    #[test]
    fn it_survives_its_text() {
        let text = serde_json::to_string(&report()).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report());
        assert_eq!(report().process(1042), Some(("shop", 1042)));
    }

    #[test]
    fn ages_are_short() {
        let ages = [0.04, 59.96, 60.0, 3661.0, 90_000.0, f64::NAN].map(age);
        assert_eq!(ages, ["0.0s", "59.9s", "1m00s", "1h01m", "1d01h", "0.0s"]);
    }
}
