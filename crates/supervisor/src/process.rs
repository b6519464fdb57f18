//! One process as the supervisor sees it.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::connection::Connection;
use crate::descriptors::Descriptors;
use crate::event::Of;
use crate::exit::Exit;
use crate::handle::Failure;
use crate::plan::{Kind, Pool, Recycle};
use crate::status::{ProcessStatus, State, cpu, rss};
use crate::tree;
use crate::wire::{Beat, Order};

/// How many of the last lines of standard error are kept.
const LAST_LINES: usize = 30;

/// How a process is asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Others of its kind serve on.
    Replaced,
    Drain,
    AtOnce,
}

pub(crate) struct Process {
    pub(crate) id: u64,
    pub(crate) pool: String,
    pub(crate) generation: u64,
    pub(crate) spec: Arc<Pool>,
    /// None until it is forked.
    pub(crate) pid: Option<Pid>,
    /// What is handed to it when it is forked; none once that is asked for.
    pub(crate) unborn: Option<Descriptors>,
    /// Over which others are forked from it: then it is a preloader.
    pub(crate) forks: Option<OwnedFd>,
    pub(crate) state: State,
    pub(crate) started: Instant,
    /// Since when it has this state.
    pub(crate) since: Instant,
    /// When a start or an end takes too long.
    pub(crate) deadline: Option<Instant>,
    pub(crate) connection: Option<Connection>,
    /// Whether it said hello.
    pub(crate) known: bool,
    /// How many of its streams have not come to their end.
    pub(crate) open: u8,
    /// How it ended, and until when its streams are still listened to.
    pub(crate) exit: Option<(Exit, Instant)>,
    pub(crate) killed: bool,
    pub(crate) info: Value,
    pub(crate) beat: Beat,
    /// What its start waits for, by its own account.
    pub(crate) starting: Option<String>,
    pub(crate) failure: Option<String>,
    pub(crate) lines: VecDeque<String>,
    /// Its own limits, with jitter.
    pub(crate) due: Recycle,
    pub(crate) retiring: Option<(String, Instant)>,
    /// Whether it is to be paused, not ended, once it has left.
    pub(crate) keep: bool,
    /// Where its output is read, for a program that takes over: standard output, standard error.
    pub(crate) outputs: [Option<OwnedFd>; 2],
    /// Who waits for its end.
    pub(crate) awaited: Option<oneshot::Sender<Result<Exit, Failure>>>,
}

impl Process {
    /// One that has just been started.
    pub(crate) fn new(
        id: u64,
        pool: &str,
        generation: u64,
        spec: Arc<Pool>,
        pid: Option<Pid>,
        started: Instant,
    ) -> Self {
        Self {
            id,
            pool: pool.to_owned(),
            generation,
            pid,
            unborn: None,
            forks: None,
            state: State::Starting,
            started,
            since: started,
            deadline: started.checked_add(spec.start_timeout),
            connection: None,
            known: false,
            open: 0,
            exit: None,
            killed: false,
            info: Value::Null,
            beat: Beat::default(),
            starting: None,
            failure: None,
            lines: VecDeque::new(),
            due: with_jitter(&spec.recycle, id),
            retiring: None,
            keep: false,
            outputs: [None, None],
            awaited: None,
            spec,
        }
    }

    /// Its number at the system; 0 until it is forked.
    pub(crate) fn number(&self) -> u32 {
        self.pid.map_or(0, |pid| pid.as_raw_pid().unsigned_abs())
    }

    pub(crate) fn of(&self) -> Of {
        Of { pool: self.pool.clone(), process: self.id, generation: self.generation }
    }

    pub(crate) fn become_(&mut self, state: State, now: Instant) {
        self.state = state;
        self.since = now;
        self.deadline = None;
    }

    /// Whether it counts for what its generation can serve.
    pub(crate) fn is_coming(&self) -> bool {
        matches!(self.state, State::Starting | State::Ready) && self.exit.is_none()
    }

    pub(crate) fn serves(&self) -> bool {
        self.state == State::Serving && self.exit.is_none()
    }

    /// Whether it was asked to end.
    pub(crate) fn is_going(&self) -> bool {
        self.state == State::Ending || (self.state == State::Leaving && !self.keep)
    }

    pub(crate) fn say(&self, order: &Order) {
        if let Some(connection) = &self.connection
            && !connection.say(order)
        {
            tracing::warn!(target: "hawksbill::supervisor", "process {} of '{}' does not take orders", self.id, self.pool);
        }
    }

    /// Asks it to end; the deadline is set.
    pub(crate) fn end(&mut self, now: Instant, how: Ending) {
        if self.unborn.take().is_some() {
            // Nobody has been asked for it.
            self.become_(State::Ending, now);
            self.exit = Some((Exit::Unborn, now));
            return;
        }
        if self.forks.is_some() {
            // It serves nobody and has nothing to put in order: what the application registered for its end is for workers.
            self.become_(State::Ending, now);
            self.kill();
            return;
        }
        let most = self.spec.stop_timeout;
        let allowed = if how == Ending::AtOnce { most.min(AT_ONCE) } else { most };
        if self.connection.is_some() && self.known {
            self.say(&match how {
                Ending::AtOnce => Order::Stop,
                Ending::Drain | Ending::Replaced => {
                    Order::Drain { seconds: allowed.as_secs_f64(), replaced: how == Ending::Replaced }
                }
            });
        } else {
            // It does not listen yet, or never will.
            let asked = (!self.spec.speaks).then(|| Signal::from_named_raw(self.spec.stop_signal)).flatten();
            self.signal(asked.unwrap_or(Signal::TERM));
        }
        self.become_(State::Ending, now);
        self.deadline = now.checked_add(allowed);
    }

    /// One that was replaced and still has clients hears that all the others end, too.
    pub(crate) fn hurry(&self, now: Instant) {
        if let (State::Ending, Some(deadline)) = (self.state, self.deadline) {
            let seconds = deadline.saturating_duration_since(now).as_secs_f64();
            self.say(&Order::Drain { seconds, replaced: false });
        }
    }

    pub(crate) fn kill(&mut self) {
        self.killed = true;
        self.deadline = None;
        match self.pid {
            Some(pid) if self.exit.is_none() => tree::kill(pid),
            _ => {}
        }
    }

    /// Sends it a signal, if it is there.
    pub(crate) fn signal(&self, signal: Signal) {
        match self.pid {
            Some(pid) if self.exit.is_none() => drop(kill_process(pid, signal)),
            _ => {}
        }
    }

    /// Keeps a line for the message of a failed start. What fails no plan has said it in the log.
    pub(crate) fn wrote(&mut self, line: String) {
        if self.spec.kind != Kind::Workers {
            return;
        }
        if self.lines.len() == LAST_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    /// Its time to start is over.
    pub(crate) fn took_too_long(&mut self) {
        let seconds = self.spec.start_timeout.as_secs_f64();
        let waits = self.starting.take().map(|what| format!(": {what}")).unwrap_or_default();
        self.failure.get_or_insert_with(|| format!("it was not ready after {seconds} s{waits}"));
    }

    /// What became of it.
    pub(crate) fn story(&self, exit: Exit) -> String {
        let doing = match self.state {
            State::Starting | State::Ready => "while it started",
            _ => "while it served",
        };
        match self.number() {
            0 => exit.to_string(),
            pid => format!("process {pid} ended {doing}: {exit}"),
        }
    }

    /// What it said of its failure, else what it wrote last.
    pub(crate) fn message(&mut self) -> Option<String> {
        let lines = std::mem::take(&mut self.lines);
        self.failure.take().or_else(|| (!lines.is_empty()).then(|| Vec::from(lines).join("\n")))
    }

    /// Why it is to be replaced although it serves.
    pub(crate) fn is_due(&self, now: Instant) -> Option<String> {
        if self.spec.speaks && self.connection.is_none() {
            return Some("it has closed its channel".to_owned());
        }
        if self.due.requests.is_some_and(|most| self.beat.requests >= most) {
            return Some(format!("it has served {} requests", self.beat.requests));
        }
        let age = now.saturating_duration_since(self.started);
        if self.due.age.is_some_and(|most| age >= most) {
            return Some(format!("it is {} seconds old", age.as_secs()));
        }
        let most = self.due.rss?;
        let resident = rss(self.pid?);
        (resident >= most).then(|| format!("it occupies {} MB", resident / 1_000_000))
    }

    pub(crate) fn status(&self, now: Instant) -> ProcessStatus {
        ProcessStatus {
            process: self.id,
            pid: self.number(),
            generation: self.generation,
            state: self.state,
            uptime: now.saturating_duration_since(self.started),
            rss: self.pid.map_or(0, rss),
            cpu: self.pid.map_or(Duration::ZERO, cpu),
            beat: self.beat.clone(),
            info: self.info.clone(),
            retiring: self.retiring.as_ref().map(|(reason, _)| reason.clone()),
        }
    }
}

/// How long a process that is to end at once may take.
pub(crate) const AT_ONCE: Duration = Duration::from_secs(2);

/// The limits of one process: lower by a part that depends on its number alone.
pub(crate) fn with_jitter(recycle: &Recycle, process: u64) -> Recycle {
    // Fibonacci hashing spreads consecutive numbers evenly.
    let spread =
        f64::from((process.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as u32) / f64::from(1_u32 << 24);
    let factor = 1.0 - recycle.jitter.clamp(0.0, 1.0) * spread;
    let lower = |most: u64| scaled(most, factor).max(1);
    Recycle {
        requests: recycle.requests.map(lower),
        age: recycle.age.map(|age| age.mul_f64(factor)),
        rss: recycle.rss.map(lower),
        jitter: recycle.jitter,
    }
}

#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn scaled(value: u64, factor: f64) -> u64 {
    (value as f64 * factor) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_lowers_by_its_part_at_most() {
        let recycle = Recycle { requests: Some(1000), jitter: 0.2, ..Recycle::default() };
        let limits: Vec<u64> = (1..50).filter_map(|id| with_jitter(&recycle, id).requests).collect();
        assert!(limits.iter().all(|limit| (800..=1000).contains(limit)), "{limits:?}");
        assert!(limits.iter().min() < Some(&830) && limits.iter().max() > Some(&970), "{limits:?}");
    }
}
