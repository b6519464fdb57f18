//! Processes that are forked: for each pool and generation that wants it there is a *preloader*, which has loaded the program,
//! and from which the processes are forked, at the start and whenever one is replaced or added.
//!
//! A process that is to be forked is known from the moment in which it is wanted; its number at the system comes later.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::{Pid, Signal};
use tokio::time::Instant;

use crate::actor::Actor;
use crate::descriptors::Descriptors;
use crate::event::Event;
use crate::exit::Exit;
use crate::handle::Failure;
use crate::plan::Pool;
use crate::process::Process;
use crate::reap;
use crate::spawn::streams;
use crate::status::State;
use crate::wire::Wish;

/// The most descriptors that a process gets when it is forked: its channel and two streams.
pub(crate) const MOST_DESCRIPTORS: usize = 3;

impl Actor {
    /// Starts a process by forking it: now, or when the preloader of its generation has loaded everything.
    pub(crate) fn start_forked(
        &mut self,
        pool: &str,
        spec: &Arc<Pool>,
        generation: u64,
        now: Instant,
    ) -> Result<u64, Failure> {
        let failed = |error: io::Error| Failure::of(pool, error.to_string());
        if !self.is_subreaper {
            reap::become_subreaper().map_err(failed)?;
            self.is_subreaper = true;
        }
        if self.preloader(pool, generation).is_none() {
            self.launch(pool, spec, generation, true, now)?;
        }
        let streams = streams(spec).map_err(failed)?;
        let id = self.number();
        let mut process = Process::new(id, pool, generation, Arc::clone(spec), None, now);
        // Its time begins when it is forked; the preloader has its own.
        process.deadline = None;
        process.unborn = Some(streams.theirs);
        self.connect(&mut process, Some(streams.channel), Vec::new(), streams.stdout, streams.stderr)
            .map_err(failed)?;
        self.processes.insert(id, process);
        self.ask_for(pool, generation, now);
        Ok(id)
    }

    /// The preloader of a generation, if it is there or about to be.
    fn preloader(&self, pool: &str, generation: u64) -> Option<u64> {
        let found = self.processes.values().find(|process| {
            let mine = process.pool == pool && process.generation == generation && process.exit.is_none();
            mine && !process.killed && matches!(process.state, State::Loading | State::Preloaded)
        });
        found.map(|process| process.id)
    }

    /// Whether a process may have been forked whose number is not known yet.
    pub(crate) fn is_forking(&self) -> bool {
        self.processes.values().any(|one| one.pid.is_none() && one.unborn.is_none() && one.exit.is_none())
    }

    /// A preloader has loaded everything.
    pub(crate) fn preloaded(&mut self, id: u64, now: Instant) {
        let Some(preloader) = self.processes.get_mut(&id).filter(|one| one.state == State::Loading) else {
            return;
        };
        preloader.become_(State::Preloaded, now);
        let (pool, generation) = (preloader.pool.clone(), preloader.generation);
        self.ask_for(&pool, generation, now);
    }

    /// Asks a preloader, if it is ready, for all the processes that are wanted of it.
    fn ask_for(&mut self, pool: &str, generation: u64, now: Instant) {
        let Some(id) = self.preloader(pool, generation) else { return };
        let Some(mut preloader) = self.processes.remove(&id) else { return };
        if let (State::Preloaded, Some(forks)) = (preloader.state, &preloader.forks) {
            let unborn = self.processes.values_mut().filter(|process| {
                process.pool == pool && process.generation == generation && process.unborn.is_some()
            });
            let mut asked = Ok(());
            for process in unborn {
                let Some(descriptors) = process.unborn.take() else { continue };
                process.started = now;
                process.become_(State::Starting, now);
                process.deadline = now.checked_add(process.spec.start_timeout);
                asked = asked.and(ask(forks, process.id, &descriptors));
            }
            if let Err(error) = asked {
                // What waits for it goes with it.
                preloader.failure = Some(format!("it could not be asked for a process: {error}"));
                preloader.kill();
            }
        }
        self.processes.insert(id, preloader);
    }

    /// A preloader says that it has forked a process.
    pub(crate) fn forked(&mut self, preloader: u64, id: u64, number: i32) {
        let Some((pool, generation)) = self.who_forks(preloader) else { return };
        let pid = Pid::from_raw(number).filter(|_| number > 0);
        // It is the application that says so. No signal may reach anybody else.
        let known = |pid: Pid| self.processes.values().any(|process| process.pid == Some(pid));
        let owner = self.processes.get(&preloader).and_then(|preloader| owner(preloader.pid?));
        let pid = pid.filter(|&pid| reap::is_child(pid) && !known(pid) && self::owner(pid) == owner);
        let Some(pid) = pid else {
            if let Some(preloader) = self.processes.get_mut(&preloader) {
                preloader.failure =
                    Some(format!("it says that it has forked {number}, which is no such process"));
                preloader.kill();
            }
            return;
        };
        let expected = |process: &&mut Process| {
            process.pid.is_none()
                && process.unborn.is_none()
                && process.exit.is_none()
                && process.pool == pool
                && process.generation == generation
        };
        let Some(process) = self.processes.get_mut(&id).filter(expected) else {
            // Nobody waits for it any more, and its channel is closed.
            let _ = rustix::process::kill_process(pid, Signal::KILL);
            return;
        };
        process.pid = Some(pid);
        if process.killed {
            process.kill();
        } else if process.state == State::Ending {
            process.signal(Signal::TERM);
        }
        let (of, pid) = (process.of(), process.number());
        self.happened(Event::Started { of, pid });
    }

    /// A preloader says that it cannot fork.
    pub(crate) fn not_forked(&mut self, preloader: u64, id: u64, message: String, now: Instant) {
        let Some((pool, generation)) = self.who_forks(preloader) else { return };
        let expected = |process: &&mut Process| {
            process.pid.is_none() && process.pool == pool && process.generation == generation
        };
        if let Some(process) = self.processes.get_mut(&id).filter(expected) {
            process.failure = Some(message);
            process.exit = Some((Exit::Unborn, now));
        }
        // It will not be able to the next time either; another one has another chance.
        self.end_preloader(&pool, generation);
    }

    fn who_forks(&self, id: u64) -> Option<(String, u64)> {
        let preloader = self.processes.get(&id).filter(|process| process.forks.is_some())?;
        Some((preloader.pool.clone(), preloader.generation))
    }

    /// Ends the preloader of a generation; the next process that is wanted makes another.
    pub(crate) fn end_preloader(&mut self, pool: &str, generation: u64) {
        let id = self.preloader(pool, generation);
        if let Some(preloader) = id.and_then(|id| self.processes.get_mut(&id)) {
            preloader.kill();
        }
    }

    /// A preloader is gone, and with it whatever was wanted of it. The processes that it has forked do not notice.
    pub(crate) fn bury_preloader(&mut self, mut preloader: Process, exit: Exit, now: Instant) {
        let expected = preloader.is_going() || self.stopping.is_some();
        let of = preloader.of();
        let orphaned = |process: &Process| {
            process.pid.is_none() && process.pool == of.pool && process.generation == of.generation
        };
        let wanted = self.processes.values().any(|process| orphaned(process) && process.exit.is_none());
        self.processes.retain(|_, process| !orphaned(process));
        let said_so = preloader.failure.is_some();
        let message = preloader.message();
        let fails_plan =
            self.job.as_ref().is_some_and(|job| !job.committed && job.generation == of.generation);
        let answered = fails_plan && !expected;
        let happened = Event::Ended {
            of: of.clone(),
            exit: exit.to_string(),
            expected,
            message: message.clone(),
            answered,
        };
        self.happened(happened);
        if expected {
            return;
        }
        let reason = format!("the preloader, process {}, ended: {exit}", preloader.number());
        if fails_plan {
            self.fail_job(Failure { pool: Some(of.pool), reason, message, said_so }, now);
            return;
        }
        tracing::warn!(
            target: "hawksbill::supervisor",
            "{}: the process that its workers are forked from has ended; they serve on, and the next one that is needed is forked from a new one, which loads the code that is there then",
            of.pool
        );
        let others = self.processes.values().any(|process| process.pool == of.pool && process.serves());
        let Some(pool) = self.pools.get_mut(&of.pool).filter(|pool| pool.generation == of.generation) else {
            return;
        };
        pool.last_death = Some(reason);
        if wanted {
            let wait = pool.lost(None, others, now);
            if !wait.is_zero() {
                self.happened(Event::PutOff { pool: of.pool, seconds: wait.as_secs_f64() });
            }
        }
    }
}

/// Asks for a process, without waiting.
fn ask(forks: &OwnedFd, process: u64, descriptors: &Descriptors) -> io::Result<()> {
    let wish = Wish { process, descriptors: descriptors.names().map(str::to_owned).collect() };
    let text = serde_json::to_vec(&wish)?;
    let rights: Vec<BorrowedFd<'_>> = descriptors.all().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&rights)) {
        return Err(io::Error::other("too many descriptors"));
    }
    // Neither may it hold up the supervisor, nor may its end be a signal.
    sendmsg(forks, &[IoSlice::new(&text)], &mut control, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Whose process this is.
fn owner(pid: Pid) -> Option<u32> {
    Some(std::fs::metadata(format!("/proc/{}", pid.as_raw_pid())).ok()?.uid())
}
