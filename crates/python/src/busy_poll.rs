//! A thread that drives the runtime polls its sockets for a moment, instead of sleeping, where the next request is about
//! to come.
//!
//! A client that asks again as soon as it has its answer (a proxy or another service on the same machine) waits for two
//! wake-ups most of the time, its own and the server's, and each takes longer than a small answer. Ours is saved if the
//! thread does not sleep. Hypervisors do the same for idle processors, as "halt polling".
//!
//! It takes the processor's time, so it is done only where it is seen to pay: after [`REGULAR`] requests in a row that
//! came one by one and soon after each other. It lasts for [`LONGEST`], and whenever nobody came it is put off, longer
//! each time. So whoever shares the processor with its client, which then cannot ask, hardly ever polls; nor does a
//! server with many clients, which come together or irregularly.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};

/// How long is polled. A client on the same machine has asked again after 20 µs to 40 µs.
const LONGEST: Duration = Duration::from_micros(50);
/// How long after the last one a request may come to be soon, its answer and the wake-ups included.
const SOON: Duration = Duration::from_micros(150);
/// How many requests in a row have to come soon.
const REGULAR: u32 = 16;
/// How many requests polling is put off for when nobody came: at first, and at most.
const PUT_OFF: (u32, u32) = (16, 4096);

/// Whether to poll, and how.
#[derive(Debug, Default)]
pub(crate) struct BusyPoll {
    requests: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    rhythm: Rhythm,
    /// Wakes a task that does nothing: while that is ready, the runtime does not sleep.
    awake: Option<Waker>,
}

impl BusyPoll {
    /// A single-threaded runtime that polls where it pays.
    pub(crate) fn runtime(self: &Arc<Self>) -> io::Result<Runtime> {
        let this = self.clone();
        let runtime =
            Builder::new_current_thread().enable_all().on_thread_park(move || this.idle()).build()?;
        runtime.spawn(Awake(self.clone()));
        Ok(runtime)
    }

    /// Notes that a request has come.
    pub(crate) fn note_request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Called when the runtime has nothing to do.
    fn idle(&self) {
        let requests = self.requests.load(Ordering::Relaxed);
        let mut state = self.lock();
        if state.rhythm.polls(requests, Instant::now)
            && let Some(awake) = &state.awake
        {
            awake.wake_by_ref();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The task that does nothing. It ends with the runtime, which its waker would keep otherwise.
struct Awake(Arc<BusyPoll>);

impl Future for Awake {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.lock().awake.get_or_insert_with(|| cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        let waker = self.0.lock().awake.take();
        drop(waker);
    }
}

/// In what rhythm requests come.
#[derive(Debug, Default)]
struct Rhythm {
    /// How many had come so far.
    requests: u64,
    /// When the last one had been answered, if it came alone.
    answered: Option<Instant>,
    /// How many came soon, in a row.
    regular: u32,
    polls_until: Option<Instant>,
    /// For how many more requests not to poll.
    put_off: u32,
    /// For how many it was put off last.
    last_put_off: u32,
}

impl Rhythm {
    /// Whether to poll, now that there is nothing to do and so many requests have come.
    fn polls(&mut self, requests: u64, now: impl FnOnce() -> Instant) -> bool {
        let came = requests.wrapping_sub(self.requests);
        self.requests = requests;
        match came {
            0 => self.goes_on(now),
            1 => self.begins(now()),
            _ => {
                (self.answered, self.regular, self.polls_until) = (None, 0, None);
                false
            }
        }
    }

    /// Whether to begin, after one request.
    fn begins(&mut self, now: Instant) -> bool {
        if self.polls_until.take().is_some() {
            self.last_put_off /= 2;
        }
        let last = self.answered.replace(now);
        let came_soon = last.is_some_and(|last| now.saturating_duration_since(last) <= SOON);
        self.regular = if came_soon { self.regular.saturating_add(1) } else { 0 };
        if self.put_off > 0 {
            self.put_off -= 1;
        } else if self.regular >= REGULAR {
            self.polls_until = Some(now + LONGEST);
        }
        self.polls_until.is_some()
    }

    /// Whether to go on while nobody comes.
    fn goes_on(&mut self, now: impl FnOnce() -> Instant) -> bool {
        let Some(until) = self.polls_until else { return false };
        if now() < until {
            return true;
        }
        let (least, most) = PUT_OFF;
        self.last_put_off = self.last_put_off.saturating_mul(2).clamp(least, most);
        self.put_off = self.last_put_off;
        (self.polls_until, self.regular) = (None, 0);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn micros(count: u64) -> Duration {
        Duration::from_micros(count)
    }

    /// Requests that come after so long each, and how many of them were polled for.
    struct Client {
        rhythm: Rhythm,
        now: Instant,
        requests: u64,
    }

    impl Client {
        fn new() -> Self {
            Self { rhythm: Rhythm::default(), now: Instant::now(), requests: 0 }
        }

        /// The thread is idle now.
        fn polls(&mut self) -> bool {
            let now = self.now;
            self.rhythm.polls(self.requests, || now)
        }

        fn asks(&mut self, count: u64, after: Duration) -> usize {
            let polled = |_| {
                self.requests += 1;
                self.now += after;
                self.polls()
            };
            (0..count).map(polled).filter(|polls| *polls).count()
        }

        /// For how many requests polling is put off after one that did not come.
        fn disappoints(&mut self) -> usize {
            while self.rhythm.polls_until.is_none() {
                self.asks(1, micros(20));
            }
            self.now += LONGEST;
            assert!(!self.polls());
            let mut count = 0;
            while self.asks(1, micros(20)) == 0 {
                count += 1;
            }
            count
        }
    }

    #[test]
    fn it_begins_when_requests_come_one_by_one_and_soon() {
        let mut client = Client::new();
        assert_eq!(client.asks(17, micros(90)), 1);
        assert_eq!(client.asks(100, micros(20)), 100);
        assert_eq!(client.asks(1, micros(200)), 0);
        assert_eq!(client.asks(16, micros(90)), 1);
    }

    #[test]
    fn what_comes_together_or_seldom_is_not_polled_for() {
        let mut client = Client::new();
        for _ in 0..100 {
            client.requests += 1;
            assert_eq!(client.asks(1, micros(10)), 0);
        }
        assert_eq!(client.asks(1000, micros(160)), 0);
    }

    #[test]
    fn it_ends_after_a_moment_in_which_nobody_came() {
        let mut client = Client::new();
        assert_eq!(client.asks(17, micros(90)), 1);
        let until = client.now + LONGEST;
        while client.now < until {
            assert!(client.polls());
            client.now += micros(10);
        }
        assert!(!client.polls());
        // Something else than a request wakes the thread.
        client.now += micros(500);
        assert!(!client.polls());
    }

    #[test]
    fn it_is_put_off_for_longer_each_time_that_nobody_came() {
        let mut client = Client::new();
        let put_off: Vec<_> = (0..12).map(|_| client.disappoints()).collect();
        assert!(put_off.is_sorted() && put_off[0] < 40, "{put_off:?}");
        assert!(*put_off.last().unwrap() >= 4096, "{put_off:?}");
        client.asks(10_000, micros(20));
        assert!(client.disappoints() < 40);
    }

    #[test]
    fn a_runtime_that_polls_does_not_sleep_and_has_time_for_all_else() {
        let busy_poll = Arc::new(BusyPoll::default());
        let runtime = busy_poll.runtime().unwrap();
        let slept = || {
            let before = runtime.metrics().worker_park_count(0);
            runtime.block_on(async { tokio::time::sleep(Duration::from_millis(20)).await });
            runtime.metrics().worker_park_count(0) - before
        };
        assert!(slept() > 0);
        let for_long = Instant::now() + Duration::from_secs(3600);
        busy_poll.lock().rhythm.polls_until = Some(for_long);
        assert_eq!(slept(), 0);
        busy_poll.lock().rhythm.polls_until = Some(Instant::now());
        assert!(slept() > 0);
        // Nothing of the runtime outlives it.
        runtime.shutdown_background();
        assert_eq!(Arc::strong_count(&busy_poll), 1);
    }
}
