//! Who drives the runtime of a process that has one application to serve.
//!
//! A request that crosses to a Python thread and back costs two switches between threads, which is more than all the rest
//! of its way. So a Python thread drives the (single-threaded) runtime itself: it reads until requests are there, lets
//! go, serves them one after the other, and drives on, which sends what was answered meanwhile.
//!
//! That is right as long as calls are short, or compute: while they do no other could. While a Python thread serves a
//! call, nobody drives; the main thread looks every [`TICK`] whether it has been away for that long, and more seldom
//! where it computes. If a call waits, or computes for long, the main thread drives, requests go to the threads of the
//! pool through their queue, and a slow call delays none of the others. When no call has been seen to wait for a while,
//! and no request waits or one thread would do, a Python thread leads again.
//!
//! Where all threads are at work and more requests wait than there are threads, nobody could serve a request that the
//! main thread reads, and to read it takes the processor from a call, and its caches. So the main thread drives in
//! [rounds](ROUND) then, as network cards put off their interrupts: it sends and reads what has come together.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Context, Poll};
use std::thread::{self, Thread};
use std::time::Duration;

use hawksbill_core::{BuildError, Builder, Driver};
use tokio::runtime::Runtime;
use tokio::time::{Instant, Sleep, sleep};

use crate::busy_poll::BusyPoll;
use crate::detect::Interface;
use crate::later::Later;

/// How often the main thread looks whether somebody drives.
pub(crate) const TICK: Duration = Duration::from_millis(1);
/// How long the main thread pauses between two rounds, which is how long what needs no thread waits for it at most. Also
/// how often it looks at a thread that leads and computes.
const ROUND: Duration = Duration::from_millis(4);
/// How often to look at the crew where it is not expected to change soon.
pub(crate) const SELDOM: Duration = Duration::from_millis(10);

/// Threads that serve requests, seen by whoever drives.
pub(crate) trait Crew: Send + Sync {
    /// Whether requests wait.
    fn has_work(&self) -> bool;

    /// Calls a thread that does nothing to drive. False: there is none, or it is not the time.
    fn send_leader(self: Arc<Self>) -> bool;

    /// Whether the thread that led waits for something in its call.
    fn waits(&self) -> bool;

    /// A thread that led is away for too long, since its call waits for something or computes.
    fn is_held_up(self: Arc<Self>, waits: bool);

    /// Sees to it that the requests that wait are served.
    fn look(self: Arc<Self>) -> View;

    /// Calls a thread for the requests that wait while the leader waits for something itself.
    fn stand_in(self: Arc<Self>);
}

/// What the main thread, driving, sees of the crew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum View {
    /// Nothing speaks against a leader from it.
    Free,
    /// All are at work, and requests wait for one of them.
    Crowded,
    /// It has to be looked at again after so long.
    Busy(Duration),
}

/// The lead: the right to drive the runtime.
pub(crate) struct Lead {
    /// Weak, since what is held by a runtime's tasks must not hold the runtime.
    runtime: Weak<Runtime>,
    busy_poll: Arc<BusyPoll>,
    later: Arc<Later>,
    holder: AtomicU8,
    crew: OnceLock<Weak<dyn Crew>>,
    /// How often a thread of the crew let go.
    let_go: AtomicU64,
    main: Thread,
    /// Set where the main thread sees that nobody drives; a whole tick later it does so itself.
    overdue: AtomicBool,
    /// Whether the main thread has to be called when the lead is let go.
    main_rests: AtomicBool,
    /// Whether the main thread pauses between rounds.
    pauses: AtomicBool,
    /// How often threads of the crew streamed, or waited for the runtime, since the main thread last looked.
    waits: AtomicU64,
    /// The main thread drives from now on to the end.
    recalled: AtomicBool,
}

const MAIN: u8 = 0;
const NOBODY: u8 = 1;
const CREW: u8 = 2;

thread_local! {
    static HERE: RefCell<Option<Arc<Lead>>> = const { RefCell::new(None) };
}

/// The lead on offer: what gateways are driven by whose process has one Python application to serve, and that by WSGI.
pub(crate) struct Offer(Arc<Hosts>);

#[derive(Default)]
struct Hosts {
    wsgi: AtomicUsize,
    others: AtomicUsize,
}

impl Offer {
    /// That of the generation that is being built.
    pub(crate) fn shared(cx: &mut Builder) -> Result<Arc<Self>, BuildError> {
        cx.shared("lead", |cx| {
            let hosts: Arc<Hosts> = Arc::default();
            cx.offer_driver(hosts.clone());
            Ok(Self(hosts))
        })
    }

    /// Notes what an application turned out to be.
    pub(crate) fn hosts(&self, interface: Interface) {
        let count = if interface == Interface::Wsgi { &self.0.wsgi } else { &self.0.others };
        count.fetch_add(1, Ordering::AcqRel);
    }
}

impl Driver for Hosts {
    fn wants(&self) -> bool {
        self.wsgi.load(Ordering::Acquire) == 1 && self.others.load(Ordering::Acquire) == 0
    }

    fn drive(&self, serving: Pin<Box<dyn Future<Output = ()> + Send>>) -> Result<(), BuildError> {
        let failed = |error| BuildError::new("cannot start the runtime").caused_by(error);
        let busy_poll: Arc<BusyPoll> = Arc::default();
        let runtime = Arc::new(busy_poll.runtime().map_err(failed)?);
        let served = run(&runtime, busy_poll, serving);
        // Nothing is left that anybody waits for: what was under way has been cut.
        if let Some(runtime) = Arc::into_inner(runtime) {
            runtime.shutdown_background();
        }
        served.ok_or_else(|| BuildError::new("the gateway ended in a panic, of which the log tells more"))
    }
}

/// Does `work` on this runtime, to its end. The calling thread is the main thread; it must not be attached.
fn run<F>(runtime: &Arc<Runtime>, busy_poll: Arc<BusyPoll>, work: F) -> Option<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let lead = Arc::new(Lead {
        runtime: Arc::downgrade(runtime),
        busy_poll,
        later: Arc::default(),
        holder: AtomicU8::new(MAIN),
        crew: OnceLock::new(),
        let_go: AtomicU64::new(0),
        main: thread::current(),
        overdue: AtomicBool::new(false),
        main_rests: AtomicBool::new(false),
        pauses: AtomicBool::new(false),
        waits: AtomicU64::new(0),
        recalled: AtomicBool::new(false),
    });
    lead.clone().stand_here();
    let told = lead.clone();
    let mut work = runtime.spawn(async move {
        let output = work.await;
        told.recall();
        output
    });
    let output = loop {
        let outcome = runtime.block_on(async {
            let mut tick = pin!(sleep(TICK));
            poll_fn(|cx| lead.poll_as_main(cx, &mut work, tick.as_mut())).await
        });
        match outcome {
            Turn::Over(output) => break output,
            Turn::Rounds => lead.make_rounds(runtime),
            Turn::HandOver => lead.rest(),
        }
    };
    HERE.with_borrow_mut(Option::take);
    output
}

enum Turn<T> {
    Over(Option<T>),
    Rounds,
    HandOver,
}

/// The lead of the thread that this is called on, if it drives or belongs to the crew.
pub(crate) fn here() -> Option<Arc<Lead>> {
    HERE.with_borrow(Clone::clone)
}

impl Lead {
    /// Makes it known to what runs on this thread.
    pub(crate) fn stand_here(self: Arc<Self>) {
        HERE.set(Some(self));
    }

    pub(crate) fn later(&self) -> &Arc<Later> {
        &self.later
    }

    /// Lets threads of this crew drive; the first crew that comes is the one. False: there is one already.
    pub(crate) fn adopt(&self, crew: Weak<dyn Crew>) -> bool {
        self.crew.set(crew).is_ok()
    }

    /// Whether a thread of the crew drives.
    pub(crate) fn is_with_crew(&self) -> bool {
        self.holder.load(Ordering::Acquire) == CREW
    }

    /// Drives until the crew has work, if nobody else does. True: it was driven. A thread of the crew; not attached.
    pub(crate) fn drive(&self) -> bool {
        if self.hurry() {
            return false;
        }
        let Some(crew) = self.crew() else { return false };
        let mut first = true;
        self.drive_until(|cx| {
            let has_work = crew.has_work();
            // What waits to be sent and read comes first.
            if has_work && std::mem::take(&mut first) {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            first = false;
            if has_work { Poll::Ready(()) } else { Poll::Pending }
        })
    }

    /// Drives for one round, if nobody else does: what is there is sent and read.
    pub(crate) fn pass(&self) {
        self.waits.fetch_add(1, Ordering::Relaxed);
        self.hurry();
        let mut first = true;
        self.drive_until(|cx| {
            if std::mem::take(&mut first) {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Poll::Ready(())
        });
    }

    /// Waits for something that the runtime delivers, and drives it meanwhile, if nobody else does. `None`: somebody
    /// else does, or has to.
    pub(crate) fn wait<T>(&self, mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Option<T> {
        let crew = self.crew()?;
        self.waits.fetch_add(1, Ordering::Relaxed);
        self.hurry();
        let mut result = None;
        self.drive_until(|cx| {
            if let Poll::Ready(value) = poll(cx) {
                result = Some(value);
                return Poll::Ready(());
            }
            if crew.has_work() {
                crew.clone().stand_in();
            }
            Poll::Pending
        });
        result
    }

    /// Whether nobody has driven for so long that what waits to be sent comes before further work.
    pub(crate) fn is_overdue(&self) -> bool {
        self.overdue.load(Ordering::Relaxed) && self.holder.load(Ordering::Acquire) == NOBODY
    }

    /// Has the main thread drive without pauses, if it makes any: whether it did.
    fn hurry(&self) -> bool {
        let paused = self.pauses.load(Ordering::Relaxed) && self.pauses.swap(false, Ordering::AcqRel);
        if paused {
            self.main.unpark();
        }
        paused
    }

    /// Has the main thread drive from now on.
    pub(crate) fn recall(&self) {
        self.recalled.store(true, Ordering::SeqCst);
        self.later.call();
        self.main.unpark();
    }

    /// Notes that a request has come for the crew.
    pub(crate) fn note_request(&self) {
        self.busy_poll.note_request();
    }

    /// Has whoever drives look for work.
    pub(crate) fn call(&self) {
        self.later.call();
    }

    fn crew(&self) -> Option<Arc<dyn Crew>> {
        self.crew.get().and_then(Weak::upgrade)
    }

    fn is_recalled(&self) -> bool {
        self.recalled.load(Ordering::SeqCst)
    }

    fn drive_until(&self, mut poll: impl FnMut(&mut Context<'_>) -> Poll<()>) -> bool {
        let taken = self.holder.compare_exchange(NOBODY, CREW, Ordering::SeqCst, Ordering::SeqCst);
        if taken.is_err() || self.is_recalled() {
            if taken.is_ok() {
                self.let_go();
            }
            return false;
        }
        self.overdue.store(false, Ordering::Relaxed);
        let runtime = self.runtime.upgrade();
        if let Some(runtime) = &runtime {
            runtime.block_on(poll_fn(|cx| {
                self.later.drain(cx);
                if self.is_with_crew() && !self.is_recalled() { poll(cx) } else { Poll::Ready(()) }
            }));
        }
        self.let_go();
        runtime.is_some()
    }

    fn let_go(&self) {
        self.later.leave();
        let _ = self.holder.compare_exchange(CREW, NOBODY, Ordering::SeqCst, Ordering::SeqCst);
        self.let_go.fetch_add(1, Ordering::SeqCst);
        if self.main_rests.load(Ordering::SeqCst) {
            self.main.unpark();
        }
    }

    /// The main thread's turn at the runtime.
    fn poll_as_main<T>(
        &self,
        cx: &mut Context<'_>,
        work: &mut tokio::task::JoinHandle<T>,
        mut tick: Pin<&mut Sleep>,
    ) -> Poll<Turn<T>> {
        self.later.drain(cx);
        if let Poll::Ready(output) = Pin::new(work).poll(cx) {
            return Poll::Ready(Turn::Over(output.ok()));
        }
        let Some(crew) = self.crew().filter(|_| !self.is_recalled()) else { return Poll::Pending };
        while tick.as_mut().poll(cx).is_ready() {
            let again = match crew.clone().look() {
                View::Free => return Poll::Ready(Turn::HandOver),
                View::Busy(again) => again,
                // Whoever streams is served sooner without pauses.
                View::Crowded if self.waits.swap(0, Ordering::Relaxed) > 0 => SELDOM,
                View::Crowded => return Poll::Ready(Turn::Rounds),
            };
            tick.as_mut().reset(Instant::now() + again.max(TICK));
        }
        Poll::Pending
    }

    /// Drives in rounds, until the crew can do with more.
    fn make_rounds(&self, runtime: &Runtime) {
        self.later.leave();
        self.pauses.store(true, Ordering::Release);
        while self.pauses.load(Ordering::Acquire) && !self.is_recalled() {
            thread::park_timeout(ROUND);
            // What the first turn finds to be read is read in the second.
            let mut turns = 2;
            runtime.block_on(poll_fn(|cx| {
                self.later.drain(cx);
                if turns == 0 {
                    return Poll::Ready(());
                }
                turns -= 1;
                cx.waker().wake_by_ref();
                Poll::Pending
            }));
            self.later.leave();
            if self.crew().is_none_or(|crew| crew.look() != View::Crowded) {
                break;
            }
        }
        self.pauses.store(false, Ordering::Release);
        self.later.call();
    }

    /// Leaves the driving to the crew until one of them is away for too long.
    fn rest(&self) {
        self.later.leave();
        self.holder.store(NOBODY, Ordering::SeqCst);
        let sent = self.crew().is_some_and(Crew::send_leader);
        if sent {
            self.watch();
        }
        self.holder.store(MAIN, Ordering::SeqCst);
        // Whoever drives now has to let go.
        self.later.call();
    }

    /// Looks at the threads that lead, until none does although it should.
    fn watch(&self) {
        let mut seen = None;
        let mut pace = TICK;
        let mut calls = Calls::default();
        while !self.is_recalled() {
            let now = self.turn();
            let unchanged = seen.replace(now) == Some(now);
            if unchanged && now.1 == CREW {
                self.rest_while_it_drives(now.0);
                continue;
            }
            if now.1 == NOBODY {
                let looks = unchanged || pace > TICK;
                // It may have come to its end meanwhile, and wait for requests.
                let waits = looks && self.crew().is_some_and(|crew| crew.waits()) && self.turn() == now;
                // What computes has a round, and what waits now and then is not what computes.
                let is_held_up = (unchanged && (waits || pace > TICK)) | calls.note(waits);
                if is_held_up && self.take_over(waits) {
                    return;
                }
                if looks {
                    pace = if waits { TICK } else { ROUND };
                }
                self.overdue.store(true, Ordering::Relaxed);
            }
            thread::sleep(pace);
        }
    }

    /// How often threads of the crew let go so far, and who drives.
    fn turn(&self) -> (u64, u8) {
        (self.let_go.load(Ordering::SeqCst), self.holder.load(Ordering::SeqCst))
    }

    /// Rests until the thread that drives lets go, as it has done so often before.
    fn rest_while_it_drives(&self, let_go: u64) {
        self.main_rests.store(true, Ordering::SeqCst);
        if self.let_go.load(Ordering::SeqCst) == let_go && !self.is_recalled() {
            thread::park();
        }
        self.main_rests.store(false, Ordering::SeqCst);
    }

    /// Drives instead of a thread that is held up. False: another one drives already.
    fn take_over(&self, waits: bool) -> bool {
        let taken = self.holder.compare_exchange(NOBODY, MAIN, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        if let Some(crew) = self.crew().filter(|_| taken) {
            crew.is_held_up(waits);
        }
        taken
    }
}

/// What the last looks at calls saw, the last one in the lowest bit: whether they waited.
#[derive(Debug, Default)]
struct Calls(u16);

impl Calls {
    /// Notes what a look saw. True: these calls wait so much that others could be served meanwhile.
    fn note(&mut self, waits: bool) -> bool {
        self.0 = self.0 << 1 | u16::from(waits);
        waits && self.0.count_ones() >= 3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_wait_if_one_look_in_five_says_so() {
        let mut calls = Calls::default();
        let mut note = |waits: &str| waits.chars().map(|c| calls.note(c == 'w')).collect::<Vec<_>>();
        assert_eq!(note("..w....w......."), [false; 15]);
        assert_eq!(note("w"), [true]);
        assert_eq!(note("................"), [false; 16]);
        assert_eq!(note("w.w.w"), [false, false, false, false, true]);
    }
}
