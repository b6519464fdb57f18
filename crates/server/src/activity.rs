//! What happens on a connection, and until when the next thing has to happen.
//!
//! One clock for all timeouts of a connection. hyper's own header timeout cannot tell an idle connection from half a
//! request, so it is off and the bytes are watched here.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

use futures_util::task::AtomicWaker;

use crate::clock;
use crate::settings::Settings;

/// The state of one connection, shared by its socket, its service and its bodies.
pub(crate) struct Activity {
    accepted: Instant,
    /// The same by the clock that is looked at from then on.
    began: Duration,
    /// Requests whose response is not finished.
    under_way: AtomicUsize,
    /// Whether any request has begun.
    served: AtomicBool,
    /// Whether a request has begun to arrive and its head is not complete.
    head: AtomicBool,
    /// Whether the last request's body may have more to come, which the connection has to take in.
    body_open: AtomicBool,
    /// Whether the request under way has its response: from then on nothing else can be written.
    answered: AtomicBool,
    /// When the state above last changed.
    since: AtomicU64,
    /// Since when the request body's reader has waited; [`NEVER`]: it does not wait.
    awaiting_body: AtomicU64,
    /// Since when the client has not taken what is to be written; [`NEVER`]: it does.
    write_blocked: AtomicU64,
    /// Whether the client closed its side or the socket failed: nothing can be told to it.
    gone: AtomicBool,
    /// Whether a head or an idle time is told by the bytes: in HTTP/1 only.
    counts_bytes: AtomicBool,
    /// Whether the server's stage may have changed since the connection's task looked at it.
    stage_changed: AtomicBool,
    /// The connection's task, which has to look at the deadline again when a body elsewhere starts to wait.
    task: AtomicWaker,
}

/// Milliseconds since `accepted`; no connection lasts that long.
const NEVER: u64 = u64::MAX;

/// Why a connection's time is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expired {
    /// A request's head began and did not end.
    Head,
    /// No request came.
    Idle,
    /// The client stopped sending a body that is awaited.
    Body,
    /// The client stopped taking the response.
    Write,
    /// Nothing is wrong: no request came for long enough that memory for the next one is better given back.
    Rest,
}

/// After how long without a request a connection gives its buffers back. A client in the middle of a page is back sooner,
/// and getting them again costs about a microsecond.
const REST_AFTER: Duration = Duration::from_millis(100);

impl Activity {
    pub(crate) fn new() -> Self {
        Self {
            accepted: Instant::now(),
            began: clock::now(),
            under_way: AtomicUsize::new(0),
            served: AtomicBool::new(false),
            head: AtomicBool::new(false),
            body_open: AtomicBool::new(false),
            answered: AtomicBool::new(false),
            since: AtomicU64::new(0),
            awaiting_body: AtomicU64::new(NEVER),
            write_blocked: AtomicU64::new(NEVER),
            gone: AtomicBool::new(false),
            counts_bytes: AtomicBool::new(true),
            stage_changed: AtomicBool::new(false),
            task: AtomicWaker::new(),
        }
    }

    /// Until when the next thing must happen and what it means if it does not. `None`: only the application is awaited.
    pub(crate) fn deadline(&self, settings: &Settings, drain: Option<Instant>) -> Option<(Instant, Expired)> {
        let blocked = self.write_blocked.load(Ordering::Relaxed);
        if blocked != NEVER {
            return Some((self.at(blocked) + settings.stall_timeout, Expired::Write));
        }
        if self.under_way.load(Ordering::Acquire) > 0 {
            return match self.awaiting_body.load(Ordering::Relaxed) {
                NEVER => None,
                since => Some((self.at(since) + settings.stall_timeout, Expired::Body)),
            };
        }
        let since = self.at(self.since.load(Ordering::Relaxed));
        if self.head.load(Ordering::Relaxed) {
            return Some((since + settings.header_timeout, Expired::Head));
        }
        let served = self.served.load(Ordering::Relaxed);
        let idle = since + if served { settings.keep_alive } else { settings.header_timeout };
        let closes = drain.map_or(idle, |drain| idle.min(since.max(drain) + settings.idle_grace));
        Some((closes, Expired::Idle))
    }

    /// When the connection goes to rest, if it stays as idle as [`deadline`](Self::deadline) has found it.
    pub(crate) fn rests_at(&self) -> Option<Instant> {
        // Before its first request it has no buffers.
        let may = self.served.load(Ordering::Relaxed) && !self.body_open.load(Ordering::Acquire);
        may.then(|| self.at(self.idle_since()) + REST_AFTER)
    }

    pub(crate) fn body_is_open(&self, open: bool) {
        self.body_open.store(open, Ordering::Release);
    }

    /// Milliseconds; another number after each request.
    pub(crate) fn idle_since(&self) -> u64 {
        self.since.load(Ordering::Relaxed)
    }

    /// The protocol is HTTP/2: idle means no streams, whatever frames arrive.
    pub(crate) fn count_streams_only(&self) {
        self.counts_bytes.store(false, Ordering::Relaxed);
        self.head.store(false, Ordering::Relaxed);
    }

    pub(crate) fn bytes_read(&self) {
        if self.under_way.load(Ordering::Relaxed) == 0
            && self.counts_bytes.load(Ordering::Relaxed)
            && !self.body_open.load(Ordering::Relaxed)
            && !self.head.swap(true, Ordering::Relaxed)
        {
            self.since.store(self.now(), Ordering::Relaxed);
        }
    }

    pub(crate) fn request_begins(&self) {
        self.head.store(false, Ordering::Relaxed);
        self.served.store(true, Ordering::Relaxed);
        self.answered.store(false, Ordering::Relaxed);
        self.under_way.fetch_add(1, Ordering::AcqRel);
    }

    /// A part of the request under way outlives the rest of it.
    pub(crate) fn request_goes_on(&self) {
        self.under_way.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn request_ends(&self) {
        self.awaiting_body.store(NEVER, Ordering::Relaxed);
        self.since.store(self.now(), Ordering::Relaxed);
        self.under_way.fetch_sub(1, Ordering::AcqRel);
        if !self.counts_bytes.load(Ordering::Relaxed) {
            // An HTTP/2 stream ends in a task of its own.
            self.task.wake();
        }
    }

    pub(crate) fn response_begins(&self) {
        self.answered.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_answered(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
    }

    /// Starts an idle time anew, as when a GOAWAY gives the client some time to leave.
    pub(crate) fn idle_again(&self) {
        self.since.store(self.now(), Ordering::Relaxed);
    }

    pub(crate) fn body_awaited(&self, awaited: bool) {
        if self.mark(&self.awaiting_body, awaited) && awaited {
            self.task.wake();
        }
    }

    pub(crate) fn write_blocks(&self, blocks: bool) {
        self.mark(&self.write_blocked, blocks);
    }

    /// Names the connection's task.
    pub(crate) fn register(&self, waker: &Waker) {
        self.task.register(waker);
    }

    /// Wakes the connection's task.
    pub(crate) fn wake(&self) {
        self.task.wake();
    }

    /// Has the connection's task look at the server's stage when it looks at anything.
    pub(crate) fn look_at_stage(&self) {
        self.stage_changed.store(true, Ordering::Release);
    }

    pub(crate) fn is_to_look_at_stage(&self) -> bool {
        self.stage_changed.load(Ordering::Relaxed) && self.stage_changed.swap(false, Ordering::AcqRel)
    }

    pub(crate) fn client_gone(&self) {
        self.gone.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_client_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }

    /// Whether that is news.
    fn mark(&self, mark: &AtomicU64, waits: bool) -> bool {
        let waited = mark.load(Ordering::Relaxed) != NEVER;
        if waits != waited {
            mark.store(if waits { self.now() } else { NEVER }, Ordering::Relaxed);
        }
        waits != waited
    }

    fn now(&self) -> u64 {
        u64::try_from(clock::now().saturating_sub(self.began).as_millis()).unwrap_or(NEVER - 1)
    }

    fn at(&self, milliseconds: u64) -> Instant {
        self.accepted + Duration::from_millis(milliseconds)
    }
}

/// Woken by a change of the server's stage.
impl Wake for Activity {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.look_at_stage();
        self.task.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expires(activity: &Activity, drain: Option<Instant>) -> Option<(u64, Expired)> {
        let (at, why) = activity.deadline(&Settings::default(), drain)?;
        // Whole seconds, rounded: the test itself takes some milliseconds.
        let after = at.duration_since(activity.accepted) + Duration::from_millis(500);
        Some((after.as_secs(), why))
    }

    #[test]
    fn the_life_of_a_connection() {
        let activity = Activity::new();
        assert_eq!(expires(&activity, None), Some((10, Expired::Idle)));
        activity.bytes_read();
        assert_eq!(expires(&activity, None), Some((10, Expired::Head)));
        activity.request_begins();
        assert_eq!(expires(&activity, None), None);
        activity.body_awaited(true);
        assert_eq!(expires(&activity, None), Some((60, Expired::Body)));
        activity.body_awaited(false);
        activity.write_blocks(true);
        assert_eq!(expires(&activity, None), Some((60, Expired::Write)));
        activity.write_blocks(false);
        activity.request_ends();
        assert_eq!(expires(&activity, None), Some((75, Expired::Idle)));
        activity.bytes_read();
        assert_eq!(expires(&activity, None), Some((10, Expired::Head)));
    }

    #[test]
    fn a_drain_shortens_idleness_alone() {
        let activity = Activity::new();
        let drain = Some(Instant::now());
        assert_eq!(expires(&activity, drain), Some((1, Expired::Idle)));
        activity.bytes_read();
        assert_eq!(expires(&activity, drain), Some((10, Expired::Head)));
        activity.request_begins();
        assert_eq!(expires(&activity, drain), None);
    }
}
