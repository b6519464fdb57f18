//! What runs, as plain data.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use rustix::process::Pid;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::wire::Beat;

/// What runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The supervisor's own process.
    pub pid: u32,
    /// Whether a new plan is being put into practice.
    pub applying: bool,
    /// Whether the supervisor is about to end.
    pub stopping: bool,
    /// The names of the descriptors that processes can inherit.
    pub descriptors: Vec<String>,
    /// The pools by name.
    pub pools: BTreeMap<String, PoolStatus>,
}

/// A pool. One without a generation is no part of the plan any more, and its processes are about to end.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PoolStatus {
    /// The generation that serves.
    pub generation: u64,
    /// Its fingerprint.
    pub fingerprint: String,
    /// How many processes it should have.
    pub target: u32,
    /// How often a process died without having been asked to end.
    pub deaths: u64,
    /// The last such end.
    pub last_death: Option<String>,
    /// How long the next start is put off, because processes kept dying.
    pub waits: Option<Duration>,
    /// The generation that [`rollback`](crate::Handle::rollback) returns to, and for how long.
    pub warm: Option<(u64, Duration)>,
    /// How its process ended, where there is to be no other.
    pub finished: Option<String>,
    /// Its processes, of all generations.
    pub processes: Vec<ProcessStatus>,
}

/// A process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProcessStatus {
    /// Its number at the supervisor.
    pub process: u64,
    /// Its number at the system.
    pub pid: u32,
    /// Its generation.
    pub generation: u64,
    /// What it does.
    pub state: State,
    /// Since its start.
    pub uptime: Duration,
    /// Resident memory, in bytes.
    pub rss: u64,
    /// Processor time used.
    pub cpu: Duration,
    /// What it said of itself last.
    pub beat: Beat,
    /// What it said when it was ready.
    pub info: Value,
    /// Why it is to be replaced.
    pub retiring: Option<String>,
}

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It is loading.
    Starting,
    /// It is loading what others will be forked from.
    Loading,
    /// It has loaded what others are forked from.
    Preloaded,
    /// It waits for the others of its generation.
    Ready,
    /// It serves.
    Serving,
    /// It is kept warm.
    Paused,
    /// Those who follow its pool are being told that it goes.
    Leaving,
    /// It finishes what is under way.
    Ending,
}

/// Resident bytes of a process; 0 if it is gone.
pub(crate) fn rss(pid: Pid) -> u64 {
    let Ok(statm) = fs::read_to_string(format!("/proc/{}/statm", pid.as_raw_pid())) else { return 0 };
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0);
    pages.saturating_mul(u64::try_from(rustix::param::page_size()).unwrap_or(4096))
}

/// Processor time that a process has used, for itself and in the kernel.
pub(crate) fn cpu(pid: Pid) -> Duration {
    let Ok(stat) = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_pid())) else {
        return Duration::ZERO;
    };
    // The second field is the program's name, in parentheses, and may hold anything.
    let after = stat.rsplit_once(") ").map_or("", |(_, after)| after);
    let ticks: u64 = after.split(' ').skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    Duration::from_millis(ticks.saturating_mul(1000) / per_second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_has_used_time() {
        let pid = rustix::process::getpid();
        assert!(rss(pid) > 100_000);
        let until = std::time::Instant::now() + Duration::from_millis(60);
        while std::time::Instant::now() < until {
            std::hint::spin_loop();
        }
        assert!(cpu(pid) >= Duration::from_millis(10));
    }
}
