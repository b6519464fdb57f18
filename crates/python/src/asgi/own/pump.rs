//! The task of the runtime that is the event loop: it looks after descriptors, timers, turns and calls, and lets the
//! runtime's other tasks and its sockets have theirs in between.

use std::future::Future;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pyo3::intern;
use pyo3::prelude::*;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::alarm::Alarm;
use super::handle::Handle;
use super::scheduler::Scheduler;
use super::timers::Timer;
use super::watch::Watch;
use crate::asgi::event_loop::{Bell, Loop, Remote, take_turn};

/// How often calls that calls ask for are made before the sockets are looked at again.
const GENERATIONS: usize = 4;
/// What asyncio waits at most, which its clock can count.
const LONGEST: f64 = 24.0 * 3600.0;
/// How exact timers are, in seconds.
const GRAIN: f64 = 0.001;

/// See the module.
pub(super) struct Pump {
    remote: Arc<Remote>,
    event_loop: Py<Loop>,
    scheduler: Py<Scheduler>,
    selector: Py<PyAny>,
    /// What asyncio itself, and its debug mode, put into a queue.
    foreign: Py<PyAny>,
    /// The selector's descriptor, a duplicate of our own: readable when one of asyncio's is ready.
    descriptor: Watch,
    alarm: Alarm,
    /// When the alarm is set to.
    alarm_at: Option<f64>,
    resolution: f64,
    /// Lets the runtime look at its sockets.
    pause: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Pump {
    /// Needs a runtime.
    pub(super) fn new(
        remote: Arc<Remote>,
        scheduler: &Bound<'_, Scheduler>,
        event_loop: Py<Loop>,
    ) -> PyResult<Self> {
        let selector = scheduler.getattr("_selector")?;
        let descriptor = duplicate(selector.call_method0("fileno")?.extract()?)?;
        Ok(Self {
            remote,
            event_loop,
            foreign: scheduler.getattr("_ready")?.unbind(),
            resolution: scheduler.getattr("_clock_resolution")?.extract()?,
            scheduler: scheduler.clone().unbind(),
            selector: selector.unbind(),
            descriptor: Watch::new(descriptor)?,
            alarm: Alarm::new()?,
            alarm_at: None,
            pause: None,
        })
    }

    /// Runs for ever, inside the runtime.
    pub(super) async fn run(mut self) {
        std::future::poll_fn(|cx| {
            self.remote.install(Bell::Task(cx.waker().clone()));
            self.poll(cx)
        })
        .await;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            // Nobody need call meanwhile.
            self.remote.begin_round();
            let readable = self.poll_descriptor(cx);
            if self.alarm.poll(cx).is_ready() {
                self.alarm_at = None;
            }
            let more = Python::try_attach(|py| self.round(py, readable));
            match more {
                Some(Ok(true)) => self.pause = Some(Box::pin(tokio::task::yield_now())),
                Some(Ok(false)) => return Poll::Pending,
                Some(Err(error)) => {
                    // Whoever runs the loop again calls.
                    self.remote.answer_calls();
                    Python::attach(|_| self.scheduler.get().leave(Some(error)));
                    return Poll::Pending;
                }
                None => return Poll::Ready(()),
            }
        }
    }

    /// Whether asyncio's descriptors want to be looked at. They do until nothing is there: the runtime tells of changes
    /// only, asyncio leaves in place what nobody has read.
    fn poll_descriptor(&self, cx: &mut Context<'_>) -> bool {
        while let Poll::Ready(Ok(mut ready)) = self.descriptor.poll(cx) {
            if is_readable(&self.descriptor.descriptor()) {
                return true;
            }
            ready.clear_ready();
        }
        false
    }

    /// One round of the loop. Whether there is more to do at once.
    fn round(&mut self, py: Python<'_>, readable: bool) -> PyResult<bool> {
        let this = self.scheduler.clone_ref(py);
        let scheduler = this.get();
        if scheduler.is_leaving() {
            self.remote.answer_calls();
            return Ok(false);
        }
        if readable {
            let events = self.selector.bind(py).call_method1(intern!(py, "select"), (0,))?;
            this.bind(py).call_method1(intern!(py, "_process_events"), (events,))?;
        }
        let mut more = false;
        for _ in 0..GENERATIONS {
            self.take_due(py)?;
            for turn in self.remote.take() {
                take_turn(turn, self.event_loop.bind(py));
            }
            self.call_ready(py)?;
            more = self.is_more(py)?;
            if !more || scheduler.is_leaving() {
                break;
            }
        }
        self.set_alarm(py)?;
        if (more || readable) && !scheduler.is_leaving() {
            return Ok(true);
        }
        self.remote.answer_calls();
        // Somebody may have come before he had to call.
        Ok(self.is_more(py)? && !scheduler.is_leaving())
    }

    fn is_more(&self, py: Python<'_>) -> PyResult<bool> {
        let none = self.remote.is_empty()
            && self.scheduler.get().queues().ready.is_empty()
            && self.foreign.bind(py).is_empty()?;
        Ok(!none)
    }

    /// Timers whose time has come are called with what is ready.
    fn take_due(&mut self, py: Python<'_>) -> PyResult<()> {
        let scheduler = self.scheduler.get();
        if scheduler.queues().timers.next().is_none() {
            return Ok(());
        }
        let now = scheduler.now(py)? + self.resolution;
        loop {
            let due = scheduler.queues().timers.take(now);
            match due {
                Some(Timer::Ours(handle)) => {
                    if !handle.get().is_cancelled() {
                        scheduler.queues().ready.push_back(handle);
                    }
                }
                Some(Timer::Foreign(handle)) => {
                    self.foreign.bind(py).call_method1(intern!(py, "append"), (handle,))?;
                }
                None => return Ok(()),
            }
        }
    }

    /// Makes the calls that are asked for by now; those that they ask for come next time.
    fn call_ready(&self, py: Python<'_>) -> PyResult<()> {
        let scheduler = self.scheduler.get();
        let count = scheduler.queues().ready.len();
        for _ in 0..count {
            let Some(handle) = scheduler.queues().ready.pop_front() else { break };
            Handle::call(handle.bind(py))?;
        }
        let foreign = self.foreign.bind(py);
        for _ in 0..foreign.len()? {
            let handle = foreign.call_method0(intern!(py, "popleft"))?;
            self.call_foreign(&handle)?;
        }
        Ok(())
    }

    /// As asyncio's `_run_once` does, with what its debug mode says of slow calls.
    fn call_foreign(&self, handle: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = handle.py();
        if handle.getattr(intern!(py, "_cancelled"))?.is_truthy()? {
            return Ok(());
        }
        let scheduler = self.scheduler.bind(py);
        if !scheduler.get().is_debug() {
            return handle.call_method0(intern!(py, "_run")).map(drop);
        }
        scheduler.setattr("_current_handle", handle)?;
        let before = scheduler.get().now(py)?;
        let ran = handle.call_method0("_run");
        let took = scheduler.get().now(py)? - before;
        scheduler.setattr("_current_handle", py.None())?;
        if took >= scheduler.getattr("slow_callback_duration")?.extract()? {
            let shown = py.import("asyncio.base_events")?.call_method1("_format_handle", (handle,))?;
            let logger = py.import("asyncio.log")?.getattr("logger")?;
            logger.call_method1("warning", ("Executing %s took %.3f seconds", shown, took))?;
        }
        ran.map(drop)
    }

    fn set_alarm(&mut self, py: Python<'_>) -> PyResult<()> {
        let scheduler = self.scheduler.get();
        let Some(next) = scheduler.queues().timers.next() else { return Ok(()) };
        // Those of the same millisecond are waited for together, as every loop over epoll has it.
        let at = (next / GRAIN).ceil() * GRAIN;
        if self.alarm_at.is_some_and(|set| set <= at) {
            return Ok(());
        }
        let after = (at - scheduler.now(py)?).clamp(0.0, LONGEST);
        // What is no number is due at once, and never stands here for long.
        self.alarm.set(Duration::try_from_secs_f64(after).unwrap_or_default());
        self.alarm_at = Some(at);
        Ok(())
    }
}

#[allow(unsafe_code, reason = "Python gives descriptors as numbers")]
fn duplicate(descriptor: std::os::fd::RawFd) -> std::io::Result<OwnedFd> {
    // SAFETY: it is the selector's, which is open: its `fileno()` has just been asked.
    unsafe { BorrowedFd::borrow_raw(descriptor) }.try_clone_to_owned()
}

/// Asks the system, which is cheaper than to ask the selector.
fn is_readable(descriptor: &impl AsFd) -> bool {
    let mut asked = [PollFd::new(descriptor, PollFlags::IN)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut asked, Some(&at_once)).is_ok_and(|count| count > 0)
}
