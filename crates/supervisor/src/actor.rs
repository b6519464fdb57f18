//! The one task that knows and decides everything.
//!
//! Whatever happens (a command, a report, a death, a deadline) changes what is known, and then [`Actor::settle`] does
//! what follows from it. Nothing else starts or ends processes.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::signal::unix::Signal;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use crate::announce::Announcement;
use crate::connection::{Connection, Note, read_lines};
use crate::descriptors::Descriptors;
use crate::event::Event;
use crate::exit::Exit;
use crate::handle::{Answers, Command, Failure};
use crate::job::{Job, Return};
use crate::plan::{Plan, Pool};
use crate::pool::Running;
use crate::process::{AT_ONCE, Process};
use crate::reap;
use crate::status::{PoolStatus, State, Status};
use crate::supervisor::{Line, Settings, Wish};
use crate::trial::Trial;
use crate::wire::{Order, Report, Start, VERSION};

/// How long the streams of a process that has ended are still listened to: its own children may hold them open.
const LINGER: Duration = Duration::from_millis(300);

/// What is said of a preloader that takes itself for a worker.
const KNOWS_NO_PRELOAD: &str = "the hawksbill in its virtual environment knows no preloading: install the same version as the supervisor's there, or remove preload";

/// How often memory and load are looked at.
const LOOK: Duration = Duration::from_secs(1);

pub(crate) struct Actor {
    pub(crate) settings: Settings,
    pub(crate) plan: Plan,
    pub(crate) pools: BTreeMap<String, Running>,
    pub(crate) processes: BTreeMap<u64, Process>,
    pub(crate) descriptors: Descriptors,
    pub(crate) announcements: Vec<Announcement>,
    pub(crate) job: Option<Job>,
    pub(crate) jobs: VecDeque<Command>,
    pub(crate) returns: Vec<Return>,
    pub(crate) stopping: Option<Vec<oneshot::Sender<()>>>,
    pub(crate) trial: Option<Trial>,
    queries: Vec<Gathering>,
    pub(crate) last_number: u64,
    pub(crate) last_generation: u64,
    pub(crate) looked: Instant,
    /// Whether this process is given those that have lost their parents, as those that are forked twice do.
    pub(crate) is_subreaper: bool,
    /// Whether something serves that others may have waited for.
    pub(crate) progress: bool,
    commands: mpsc::Receiver<Command>,
    events: broadcast::Sender<Event>,
    pub(crate) notes: mpsc::UnboundedSender<Note>,
    reports: mpsc::UnboundedReceiver<Note>,
    children: Signal,
}

struct Gathering {
    id: u64,
    waits_for: usize,
    answers: Answers,
    reply: oneshot::Sender<Answers>,
    deadline: Instant,
}

impl Actor {
    pub(crate) fn new(
        settings: Settings,
        descriptors: Descriptors,
        commands: mpsc::Receiver<Command>,
        events: broadcast::Sender<Event>,
        children: Signal,
    ) -> Self {
        let (notes, reports) = mpsc::unbounded_channel();
        Self {
            settings,
            plan: Plan::default(),
            pools: BTreeMap::new(),
            processes: BTreeMap::new(),
            descriptors,
            announcements: Vec::new(),
            job: None,
            jobs: VecDeque::new(),
            returns: Vec::new(),
            stopping: None,
            trial: None,
            queries: Vec::new(),
            last_number: 0,
            last_generation: 0,
            looked: Instant::now(),
            is_subreaper: crate::reap::is_subreaper(),
            progress: false,
            commands,
            events,
            notes,
            reports,
            children,
        }
    }

    /// Runs until everything has been stopped.
    pub(crate) async fn run(mut self) {
        let mut asked = true;
        // A program that takes over has not seen who ended meanwhile.
        self.reap();
        loop {
            let wake = self.next_deadline();
            tokio::select! {
                command = self.commands.recv(), if asked => if let Some(command) = command {
                    self.obey(command);
                } else {
                    // Nobody can ask for anything any more.
                    asked = false;
                    self.stop(false, None);
                },
                Some(note) = self.reports.recv() => {
                    self.note(note);
                    self.hear();
                }
                _ = self.children.recv() => {}
                () = sleep_until(wake) => {}
            }
            self.go_over().await;
            self.reap();
            self.settle(Instant::now());
            if self.is_done() {
                return;
            }
        }
    }

    fn is_done(&mut self) -> bool {
        let tries = self.trial.as_ref().is_some_and(|trial| !trial.passed);
        if self.stopping.is_none() || !self.processes.is_empty() || tries {
            return false;
        }
        for waiting in self.stopping.take().unwrap_or_default() {
            let _ = waiting.send(());
        }
        true
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    pub(crate) fn happened(&self, event: Event) {
        tracing::debug!(target: "hawksbill::supervisor", ?event);
        // Nobody need listen.
        let _ = self.events.send(event);
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Apply(..) | Command::Reload(..) => self.jobs.push_back(command),
            Command::Upgrade(program, note, reply) => self.begin_upgrade(program, note, reply),
            Command::Rollback(pool, reply) => self.roll_back(pool, reply),
            Command::Scale(pool, count, reply) => {
                let _ = reply.send(self.may_change().and_then(|()| self.scale(&pool, count)));
            }
            Command::Stop(at_once, reply) => self.stop(at_once, Some(reply)),
            Command::Status(reply) => {
                let _ = reply.send(self.status());
            }
            Command::Tell(pool, value, reply) => {
                let _ = reply.send(self.tell(&pool, &value));
            }
            Command::LogLevel(level) => {
                for process in self.processes.values() {
                    process.say(&Order::LogLevel { level: level.clone() });
                }
            }
            Command::Ready(..) | Command::Once(..) | Command::Cancel(..) => self.obey_one(command),
            Command::Query(pool, name, timeout, reply) => self.query(pool.as_deref(), &name, timeout, reply),
        }
    }

    /// What a program on trial was told of the past has to stay true.
    pub(crate) fn may_change(&self) -> Result<(), Failure> {
        match self.trial {
            Some(_) => Err(Failure::new("another program is about to take over; try again when it has")),
            None => Ok(()),
        }
    }

    fn tell(&self, pool: &str, value: &Value) -> Result<usize, Failure> {
        if !self.pools.contains_key(pool) {
            return Err(Failure::of(pool, "there is no such pool"));
        }
        let listening = self
            .processes
            .values()
            .filter(|process| process.pool == pool && process.known && process.forks.is_none());
        Ok(listening.inspect(|process| process.say(&Order::Tell { value: value.clone() })).count())
    }

    fn query(&mut self, pool: Option<&str>, name: &str, timeout: Duration, reply: oneshot::Sender<Answers>) {
        let id = self.number();
        let asked = self.processes.values().filter(|process| {
            // A preloader has no thread that could answer.
            let answers = process.known && process.exit.is_none() && process.forks.is_none();
            answers && pool.is_none_or(|pool| process.pool == pool)
        });
        let waits_for =
            asked.inspect(|process| process.say(&Order::Query { id, name: name.to_owned() })).count();
        let deadline = Instant::now() + timeout;
        self.queries.push(Gathering { id, waits_for, answers: Answers::new(), reply, deadline });
    }

    fn status(&self) -> Status {
        let now = Instant::now();
        let pools = self.pools.iter().map(|(name, pool)| {
            let processes =
                self.processes.values().filter(|process| &process.pool == name && process.pid.is_some());
            let processes = processes.map(|process| process.status(now)).collect();
            (name.clone(), PoolStatus { processes, ..pool.status(now) })
        });
        let mut pools: BTreeMap<String, PoolStatus> = pools.collect();
        // Of pools that are not in the plan any more.
        for process in self.processes.values().filter(|process| !self.pools.contains_key(&process.pool)) {
            pools.entry(process.pool.clone()).or_default().processes.push(process.status(now));
        }
        Status {
            pid: std::process::id(),
            applying: self.job.is_some(),
            stopping: self.stopping.is_some(),
            descriptors: self.descriptors.names().map(str::to_owned).collect(),
            pools,
        }
    }

    /// Starts a process; a failure is one of the plan's.
    pub(crate) fn start(
        &mut self,
        pool: &str,
        spec: &Arc<Pool>,
        generation: u64,
        now: Instant,
    ) -> Result<u64, Failure> {
        if spec.preload {
            return self.start_forked(pool, spec, generation, now);
        }
        let id = self.launch(pool, spec, generation, false, now)?;
        if !spec.speaks && !spec.told_ready {
            self.report(id, Report::Ready { info: Value::Null }, now);
        }
        Ok(id)
    }

    /// Starts a program: a process of the pool, or its preloader.
    pub(crate) fn launch(
        &mut self,
        pool: &str,
        spec: &Arc<Pool>,
        generation: u64,
        is_preloader: bool,
        now: Instant,
    ) -> Result<u64, Failure> {
        let id = self.number();
        // What the plan at hand brings along is for its own processes.
        let job = self.job.as_ref().filter(|job| job.generation == generation);
        let launcher = job.map_or(&self.plan.launcher, |job| &job.plan.launcher);
        let find = |name: &str| -> Option<OwnedFd> {
            let given = job.and_then(|job| job.descriptors.get(name));
            given.or_else(|| self.descriptors.get(name))?.try_clone().ok()
        };
        let failed = |error: std::io::Error| Failure::of(pool, error.to_string());
        let spawned = crate::spawn::spawn(spec, launcher, is_preloader, find).map_err(failed)?;
        let mut process = Process::new(id, pool, generation, Arc::clone(spec), Some(spawned.pid), now);
        if is_preloader {
            (process.forks, process.state) = (spawned.forks, State::Loading);
        }
        let connected =
            self.connect(&mut process, spawned.channel, Vec::new(), spawned.stdout, spawned.stderr);
        if let Err(error) = connected {
            process.kill();
            tracing::error!(target: "hawksbill::supervisor", "{pool}: cannot listen to process {id}: {error}");
        }
        let of = process.of();
        self.happened(Event::Started { of, pid: process.number() });
        self.processes.insert(id, process);
        Ok(id)
    }

    pub(crate) fn connect(
        &self,
        process: &mut Process,
        channel: Option<std::os::unix::net::UnixStream>,
        unread: Vec<u8>,
        stdout: Option<OwnedFd>,
        stderr: Option<OwnedFd>,
    ) -> std::io::Result<()> {
        for (is_stderr, output) in [(false, stdout), (true, stderr)] {
            if let Some(output) = output {
                if let Some(kept) = process.outputs.get_mut(usize::from(is_stderr)) {
                    *kept = Some(output.try_clone()?);
                }
                read_lines(process.id, is_stderr, output, self.notes.clone())?;
                process.open += 1;
            }
        }
        if let Some(channel) = channel {
            process.connection = Some(Connection::open(process.id, channel, unread, self.notes.clone())?);
            process.open += 1;
        }
        Ok(())
    }

    /// Takes in all that was heard.
    pub(crate) fn hear(&mut self) {
        while let Ok(note) = self.reports.try_recv() {
            self.note(note);
        }
    }

    fn note(&mut self, note: Note) {
        match note {
            Note::Tried(outcome) => self.tried(outcome),
            Note::Report(id, report) => self.report(id, report, Instant::now()),
            Note::Line(id, is_stderr, line) => {
                let Some(process) = self.processes.get_mut(&id) else { return };
                let pid = process.number();
                let speaks = process.spec.speaks;
                let told = Line { pool: &process.pool, process: id, pid, speaks, is_stderr, text: &line };
                let is_kept = self.settings.lines.as_ref().is_none_or(|sink| sink(&told));
                if is_stderr && is_kept {
                    process.wrote(line);
                }
            }
            Note::Closed(id, is_channel) => {
                let Some(process) = self.processes.get_mut(&id) else { return };
                process.open = process.open.saturating_sub(1);
                if is_channel {
                    // It is about to end. If it does not, it is replaced when somebody looks.
                    process.connection = None;
                }
            }
        }
    }

    pub(crate) fn report(&mut self, id: u64, report: Report, now: Instant) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        match report {
            Report::Hello { version } => self.greet(id, version),
            Report::Preloaded => self.preloaded(id, now),
            Report::Forked { process, pid } => self.forked(id, process, pid),
            Report::NotForked { process, message } => self.not_forked(id, process, message, now),
            Report::Ready { .. } if process.forks.is_some() => {
                process.failure = Some(KNOWS_NO_PRELOAD.to_owned());
                process.kill();
            }
            Report::Ready { info } => {
                if process.state == State::Starting {
                    process.become_(State::Ready, now);
                    self.progress = true;
                    process.info = info.clone();
                    let of = process.of();
                    self.happened(Event::Ready { of, info });
                }
            }
            Report::Starting { what } => process.starting = Some(what),
            Report::Failed { message } => {
                process.failure = Some(message);
                if process.is_coming() || process.state == State::Loading {
                    // It ends by itself, or is made to.
                    process.deadline = Some(now + AT_ONCE);
                }
            }
            Report::Beat(beat) => process.beat = beat,
            Report::Stuck { what, detail } => {
                let of = process.of();
                if process.retiring.is_none() {
                    process.retiring = Some((format!("it is stuck: {what}"), now));
                }
                self.happened(Event::Stuck { of, what, detail });
            }
            Report::Answer { id: answer, value } => {
                self.confirmed(id, Some(answer), now);
                if let Some(query) = self.queries.iter_mut().find(|query| query.id == answer) {
                    query.answers.insert(id, value);
                }
            }
            Report::Wish { value } => {
                if let Some(wishes) = &self.settings.wishes {
                    let _ = wishes.try_send(Wish { of: process.of(), value });
                }
            }
            Report::Unknown => {}
        }
    }

    fn greet(&mut self, id: u64, version: u32) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        if version != VERSION {
            process.failure = Some(format!(
                "it speaks version {version} of the protocol between processes, the supervisor version {VERSION}: install the same version of hawksbill in its virtual environment"
            ));
            process.kill();
            return;
        }
        process.known = true;
        process.say(&Order::Start(Start {
            pool: process.pool.clone(),
            process: id,
            generation: process.generation,
            payload: process.spec.payload.clone(),
            stop_seconds: process.spec.stop_timeout.as_secs_f64(),
            preloader: process.forks.is_some(),
        }));
        if let Some(process) = self.processes.get(&id) {
            self.introduce(process);
        }
    }

    /// Looks who has ended.
    fn reap(&mut self) {
        let linger = Instant::now() + LINGER;
        for process in self.processes.values_mut().filter(|process| process.exit.is_none()) {
            let (Some(pid), leaves_others) = (process.pid, process.spec.speaks) else { continue };
            process.exit = reap::ended(pid, leaves_others).map(|exit| (exit, linger));
        }
        // What ends before it is known by its number is no stranger, and who tries a program out waits for its end: orphans can
        // wait for that.
        let is_busy = self.is_forking() || self.trial.as_ref().is_some_and(|trial| !trial.passed);
        while (self.settings.reap_all || self.is_subreaper) && !is_busy {
            let Some((pid, exit)) = reap::any() else { break };
            // One of ours, that ended after it was looked at.
            let ours = self.processes.values_mut().find(|one| one.pid == Some(pid) && one.exit.is_none());
            if let Some(process) = ours {
                process.exit = Some((exit, linger));
            }
        }
    }

    /// Does what follows from what is known.
    fn settle(&mut self, now: Instant) {
        let over = |process: &Process| {
            let (exit, linger) = process.exit?;
            (process.open == 0 || linger <= now).then_some((process.id, exit))
        };
        let dead: Vec<(u64, Exit)> = self.processes.values().filter_map(over).collect();
        for (id, exit) in dead {
            self.bury(id, exit, now);
        }
        self.check_deadlines(now);
        self.let_go(now);
        self.answer_returns();
        self.work(now);
        let looks = self.looks(now);
        if self.stopping.is_some() {
            self.stop_in_order(now);
        } else {
            self.maintain(looks, now);
            while std::mem::take(&mut self.progress) {
                self.work(now);
                self.maintain(false, now);
            }
        }
        self.gather(now);
    }

    fn check_deadlines(&mut self, now: Instant) {
        let (mut killed, mut silent) = (Vec::new(), Vec::new());
        for process in self.processes.values_mut() {
            if process.deadline.is_none_or(|deadline| deadline > now) || process.exit.is_some() {
                continue;
            }
            if matches!(process.state, State::Starting | State::Loading) {
                process.took_too_long();
            }
            process.kill();
            if process.pid.is_none() {
                process.exit = Some((Exit::Unborn, now));
                silent.push((process.pool.clone(), process.generation));
            }
            killed.push(process.of());
        }
        for of in killed {
            self.happened(Event::Killed { of });
        }
        // Who does not fork when it is asked to is no use.
        for (pool, generation) in silent {
            self.end_preloader(&pool, generation);
        }
    }

    fn gather(&mut self, now: Instant) {
        let all = std::mem::take(&mut self.queries);
        for query in all {
            if query.answers.len() >= query.waits_for || query.deadline <= now {
                let _ = query.reply.send(query.answers);
            } else {
                self.queries.push(query);
            }
        }
    }

    /// When there is something to do even if nothing happens.
    fn next_deadline(&self) -> Instant {
        let now = Instant::now();
        let processes = self.processes.values();
        let ends = processes.clone().filter_map(|process| process.exit.map(|(_, linger)| linger));
        let deadlines =
            processes.filter(|process| process.exit.is_none()).filter_map(|process| process.deadline);
        let pools = self.pools.values().flat_map(Running::deadlines).filter(|&at| at > now);
        let told = self.announcements.iter().map(|told| told.deadline);
        let asked = self.queries.iter().map(|query| query.deadline);
        let job = self.job.iter().filter_map(Job::deadline);
        let all = ends.chain(deadlines).chain(pools).chain(told).chain(asked).chain(job);
        all.chain([self.looked + LOOK]).min().unwrap_or(now + LOOK)
    }

    /// Whether it is time to look at memory and load again.
    fn looks(&mut self, now: Instant) -> bool {
        let due = now >= self.looked + LOOK;
        if due {
            self.looked = now;
        }
        due
    }
}
