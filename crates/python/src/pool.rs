//! Python threads of our own, fed by one queue.
//!
//! A thread attaches to the interpreter once, keeps its thread state, and detaches only while it waits. Each takes one
//! job at a time, so that a slow job delays none that a free thread could do.
//!
//! Threads compete for the interpreter, so a second one is a loss as long as the first keeps up. Which is the case is
//! seen, not told: a job that finds a thread at work is left to it, and a [`Watch`] looks whether jobs are taken.
//! Where they are not, since calls wait for a database or sleep, further threads come, and for a while each job
//! summons one at once; where a call computes, a thread more could not help it, and comes later.
//!
//! Where the process has a [`Lead`] to give, a thread without a job drives the runtime instead of sleeping, and where
//! [one thread would do](alone) the others leave all jobs to it.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use hawksbill_core::Sample;
use pyo3::prelude::*;
use tokio::sync::Notify;

use self::alone::Alone;
use self::seats::Seats;
pub(crate) use self::seats::Trace;
use self::watch::{Look, Watch};
use crate::debugged;
use crate::later::Later;
use crate::lead::{self, Lead};
use crate::stacks;
use crate::watchdog::Marks;

mod alone;
mod attend;
mod seats;
#[cfg(test)]
mod tests;
mod watch;

/// How long jobs call threads at once after calls were seen to wait.
const EAGER: Duration = Duration::from_millis(100);

/// What the threads of a pool do.
pub(crate) trait Work: Send + Sync + 'static {
    /// One job: without Python objects, since it is made and may be dropped anywhere.
    type Job: Send;
    /// What each thread keeps for itself.
    type Local;
    /// What is kept of a job while it is done, for whoever looks whether it ends.
    type Trace: Trace;

    /// Runs first on each thread; `None` when the work is over.
    fn begin(&self, py: Python<'_>) -> Option<Self::Local>;

    /// What to keep of a job; `None`: nobody looks. Called under the pool's lock.
    fn trace(&self, job: &Self::Job) -> Option<Self::Trace>;

    /// Does one job.
    fn run(&self, py: Python<'_>, local: &mut Self::Local, job: Self::Job);
}

/// Jobs that should be over, or begun.
pub(crate) struct Overdue<W: Work> {
    /// Those that are being done, with the names of their threads. Each is given once.
    pub(crate) running: Vec<(String, W::Trace)>,
    /// Those that no thread has come for; they are not in the queue any more.
    pub(crate) waiting: Vec<W::Job>,
}

/// Threads and their queue.
pub(crate) struct Pool<W: Work> {
    inner: Arc<Inner<W>>,
}

struct Inner<W: Work> {
    name: String,
    work: W,
    most_threads: usize,
    most_jobs: usize,
    state: Mutex<State<W>>,
    ready: Condvar,
    ended: Notify,
    watch: Watch,
    /// Given by the thread that drives the runtime, if it lets others drive.
    lead: OnceLock<Arc<Lead>>,
}

struct State<W: Work> {
    jobs: VecDeque<W::Job>,
    /// Threads that wait and have not been called.
    idle: usize,
    /// Calls that no waiting thread has heard yet.
    calls: usize,
    /// Threads that were called or made and have not looked into the queue yet.
    coming: usize,
    threads: usize,
    /// Jobs that are being done.
    running: usize,
    /// The most that were, since somebody asked.
    most_running: usize,
    /// Jobs that were ever taken.
    taken: u64,
    /// Jobs that no thread came for in time.
    dropped: u64,
    /// Until then calls are known to wait more than to compute, so that each job gets a thread at once.
    eager: Option<Instant>,
    /// Whether one thread is known to suffice.
    alone: Alone,
    stopping: bool,
    handles: Vec<thread::JoinHandle<()>>,
    look: Look,
    seats: Seats<W::Trace>,
    /// How many jobs had been taken, and how many had come, at earlier looks.
    taken_then: Marks,
    come_then: Marks,
    slow_then: Marks,
}

impl<W: Work> State<W> {
    /// Takes the next job, on the thread of this seat.
    fn take(&mut self, work: &W, seat: usize) -> Option<W::Job> {
        let job = self.jobs.pop_front()?;
        self.running += 1;
        self.most_running = self.most_running.max(self.running);
        self.taken += 1;
        self.seats.begin(seat, self.taken, work.trace(&job));
        Some(job)
    }

    /// Whether a thread is to leave the jobs that wait to another one.
    fn gives_way(&self) -> bool {
        self.alone.is_so() && self.running > 0
    }

    /// Calls wait for something.
    fn be_eager(&mut self) {
        self.eager = Some(Instant::now() + EAGER);
        self.alone.refute();
    }

    fn is_eager(&mut self) -> bool {
        self.eager_for().is_some()
    }

    /// How long it is eager yet.
    fn eager_for(&mut self) -> Option<Duration> {
        let left = self.eager?.checked_duration_since(Instant::now());
        if left.is_none() {
            self.eager = None;
        }
        left
    }
}

/// Why a pool takes no job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// As many jobs wait as may.
    Full,
    /// The pool is stopped, or the system gave no thread.
    Stopped,
}

impl<W: Work> Pool<W> {
    /// A pool without threads yet.
    pub(crate) fn new(name: &str, work: W, most_threads: usize, most_jobs: usize) -> Self {
        let state = State {
            jobs: VecDeque::new(),
            idle: 0,
            calls: 0,
            coming: 0,
            threads: 0,
            running: 0,
            most_running: 0,
            taken: 0,
            dropped: 0,
            eager: None,
            alone: Alone::default(),
            stopping: false,
            handles: Vec::new(),
            look: Look::default(),
            seats: Seats::new(),
            taken_then: Marks::default(),
            come_then: Marks::default(),
            slow_then: Marks::default(),
        };
        Self {
            inner: Arc::new(Inner {
                name: name.to_owned(),
                work,
                most_threads: most_threads.max(1),
                most_jobs: most_jobs.max(1),
                state: Mutex::new(state),
                ready: Condvar::new(),
                ended: Notify::new(),
                watch: Watch::new(name),
                lead: OnceLock::new(),
            }),
        }
    }

    /// What the threads work with.
    pub(crate) fn work(&self) -> &W {
        &self.inner.work
    }

    /// Takes the lead that is offered on this thread, if there is one, and gives what its driver is called by.
    pub(crate) fn later(&self) -> Option<&Arc<Later>> {
        if self.inner.lead.get().is_none() {
            let lead = lead::here()?;
            let crew: Weak<Inner<W>> = Arc::downgrade(&self.inner);
            if !lead.adopt(crew) {
                return None;
            }
            lead.call();
            let _ = self.inner.lead.set(lead);
        }
        self.inner.lead.get().map(|lead| lead.later())
    }

    /// Queues a job, and calls or makes a thread for it where none is free. Never waits.
    pub(crate) fn submit(&self, job: W::Job) -> Result<(), Refusal> {
        let mut state = self.inner.lock();
        if state.stopping {
            return Err(Refusal::Stopped);
        }
        if state.jobs.len() + state.running >= self.inner.most_threads.saturating_add(self.inner.most_jobs) {
            return Err(Refusal::Full);
        }
        state.jobs.push_back(job);
        if let Some(lead) = self.inner.lead.get() {
            lead.note_request();
        }
        self.inner.relieve(&mut state);
        if state.threads == 0 {
            state.jobs.pop_back();
            return Err(Refusal::Stopped);
        }
        Ok(())
    }

    /// What there is to do.
    pub(crate) fn sample(&self) -> Sample {
        let mut state = self.inner.lock();
        let running = state.running;
        let most = std::mem::replace(&mut state.most_running, running);
        Sample {
            begun: state.taken - state.dropped,
            running,
            most,
            slots: self.inner.most_threads,
            waiting: state.jobs.len(),
        }
    }

    /// The jobs that have been under way for so long, and those that have waited for so long, seen from look to look.
    pub(crate) fn overdue(&self, age: Duration, now: Duration) -> Overdue<W> {
        let mut state = self.inner.lock();
        let state = &mut *state;
        let (taken, come) = (state.taken, state.taken + state.jobs.len() as u64);
        let (old, waiting_long) =
            (state.taken_then.ago(age, now, taken), state.come_then.ago(age, now, come));
        let running = state.seats.overdue(old, age, now).into_iter();
        let running = running.map(|(seat, trace)| (self.inner.name_of(seat), trace)).collect();
        let mut overdue = Overdue { running, waiting: Vec::new() };
        while state.taken < waiting_long
            && let Some(job) = state.jobs.pop_front()
        {
            state.taken += 1;
            state.dropped += 1;
            overdue.waiting.push(job);
        }
        overdue
    }

    /// The jobs that have been under way for so long, seen from look to look, as what `look` makes of them: the number of each,
    /// and the name of its thread.
    pub(crate) fn slow<T>(
        &self,
        age: Duration,
        now: Duration,
        look: impl Fn(&W::Trace) -> Option<T>,
    ) -> Vec<(u64, (String, T))> {
        let mut state = self.inner.lock();
        let taken = state.taken;
        let old = state.slow_then.ago(age, now, taken);
        let running = state.seats.begun_before(old);
        let looked = running
            .filter_map(|(seat, number, trace)| Some((number, (self.inner.name_of(seat), look(trace)?))));
        looked.collect()
    }

    /// Ends the threads, each when its job is done, and waits for them at most this long. True: all have ended.
    pub(crate) async fn stop(&self, most: Duration) -> bool {
        let waiting = {
            let mut state = self.inner.lock();
            state.stopping = true;
            std::mem::take(&mut state.jobs)
        };
        drop(waiting);
        if let Some(lead) = self.inner.lead.get() {
            lead.recall();
        }
        self.inner.ready.notify_all();
        let all_ended = async {
            loop {
                let ended = self.inner.ended.notified();
                tokio::pin!(ended);
                ended.as_mut().enable();
                if self.inner.lock().threads == 0 {
                    return;
                }
                ended.await;
            }
        };
        let ended = tokio::time::timeout(most, all_ended).await.is_ok();
        if ended {
            let handles = std::mem::take(&mut self.inner.lock().handles);
            // They have nothing left to do but to return, so this waits for microseconds.
            for handle in handles {
                let _ = handle.join();
            }
        }
        ended
    }
}

impl<W: Work> Inner<W> {
    fn lock(&self) -> MutexGuard<'_, State<W>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How a thread is called where stacks are shown.
    fn name_of(&self, seat: usize) -> String {
        format!("{}-{}", self.name, seat + 1)
    }

    /// Sees to it that the jobs that wait are done: by the threads at work, if these keep up.
    fn relieve(self: &Arc<Self>, state: &mut State<W>) {
        let lead = self.lead.get();
        if let Some(lead) = lead.filter(|lead| lead.is_with_crew()) {
            // The thread that drives comes for them.
            return lead.call();
        }
        let at_work = state.running + state.coming > 0;
        if !at_work || state.is_eager() {
            self.summon(state);
        } else if lead.is_none() && !state.jobs.is_empty() && self.could_summon(state) {
            self.watch.begin(self);
        }
    }

    /// Whether there is a thread that does nothing, or may be made.
    fn could_summon(&self, state: &State<W>) -> bool {
        state.idle > 0 || state.threads < self.most_threads
    }

    /// Has one more thread come if there is work for it. One at a time: each that finds more than it takes summons the
    /// next, so that a quick job costs no wake-up while a thread is on its way.
    fn summon(self: &Arc<Self>, state: &mut State<W>) {
        if state.jobs.is_empty() || state.coming > 0 {
            return;
        }
        state.alone.end();
        if state.idle > 0 {
            self.call_one(state);
        } else if state.threads < self.most_threads {
            let inner = self.clone();
            match thread::Builder::new().name(self.name.clone()).spawn(move || inner.serve()) {
                Ok(handle) => {
                    state.threads += 1;
                    state.coming += 1;
                    state.handles.push(handle);
                }
                Err(error) => {
                    tracing::error!(target: "hawksbill::app", app = self.name, "no further thread: {error}");
                }
            }
        }
    }

    /// Calls a thread that does nothing.
    fn call_one(&self, state: &mut State<W>) {
        state.idle -= 1;
        state.calls += 1;
        state.coming += 1;
        self.ready.notify_one();
    }

    fn serve(self: Arc<Self>) {
        if let Some(lead) = self.lead.get() {
            lead.clone().stand_here();
        }
        let seat = self.lock().seats.sit();
        // An interpreter that is being finalised is not attached to any more.
        let began = Python::try_attach(|py| {
            let _named = stacks::name_here(py, self.name_of(seat));
            debugged::begin_thread(py, &self.name_of(seat));
            let Some(mut local) = self.work.begin(py) else { return false };
            let mut arrival = Arrival::Called;
            while let Some(job) = self.next(py, arrival, seat) {
                arrival = Arrival::Done;
                let run = || self.work.run(py, &mut local, job);
                if catch_unwind(AssertUnwindSafe(run)).is_err() {
                    tracing::error!(target: "hawksbill::app", app = self.name, "a request ended in a panic");
                }
            }
            true
        });
        let mut state = self.lock();
        let trace = state.seats.leave(seat);
        state.threads -= 1;
        if began != Some(true) {
            state.coming -= 1;
        }
        // The last one leaves no job behind that would wait for ever.
        let left = if state.threads == 0 { std::mem::take(&mut state.jobs) } else { VecDeque::new() };
        drop(state);
        drop((left, trace));
        self.ended.notify_waiters();
    }

    /// The next job. It is taken attached, so that none waits in the hands of a thread that waits for the interpreter.
    /// Whoever holds the lock never waits for the interpreter, so taking the lock attached is safe.
    fn next(self: &Arc<Self>, py: Python<'_>, arrival: Arrival, seat: usize) -> Option<W::Job> {
        let lead = self.lead.get();
        // Let go without the lock.
        let mut done = None;
        let mut state = self.lock();
        match arrival {
            Arrival::Called => state.coming -= 1,
            Arrival::Done => {
                state.running -= 1;
                done = state.seats.end(seat);
            }
        }
        loop {
            if state.stopping {
                return None;
            }
            if !state.gives_way() {
                // Answers that were given are sent before many more are made.
                if !state.jobs.is_empty() && lead.is_some_and(|lead| lead.is_overdue()) {
                    drop(state);
                    drop(done.take());
                    state = self.drive(py).0;
                }
                if let Some(job) = state.take(&self.work, seat) {
                    if !state.jobs.is_empty() {
                        self.relieve(&mut state);
                    }
                    return Some(job);
                }
                drop(state);
                drop(done.take());
                let drove;
                (state, drove) = self.drive(py);
                if drove || !state.jobs.is_empty() {
                    continue;
                }
            }
            state.idle += 1;
            drop(state);
            drop(done.take());
            let called = py.detach(|| self.wait());
            state = self.lock();
            state.coming -= usize::from(called);
        }
    }

    /// Drives the runtime, if that is this thread's to do: whether it was. The lock is taken after it.
    fn drive(&self, py: Python<'_>) -> (MutexGuard<'_, State<W>>, bool) {
        let drove = self.lead.get().is_some_and(|lead| py.detach(|| lead.drive()));
        (self.lock(), drove)
    }

    /// Waits to be called, or stopped. True: this thread was called.
    fn wait(&self) -> bool {
        let mut state = self.lock();
        while state.calls == 0 && !state.stopping {
            state = self.ready.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let called = state.calls > 0;
        state.calls -= usize::from(called);
        called
    }
}

/// How a thread comes to look for a job.
#[derive(Clone, Copy)]
enum Arrival {
    /// It was made for one.
    Called,
    /// It has done one.
    Done,
}

impl<W: Work> Drop for Pool<W> {
    fn drop(&mut self) {
        self.inner.lock().stopping = true;
        self.inner.ready.notify_all();
    }
}
