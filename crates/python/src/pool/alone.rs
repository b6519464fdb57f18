//! Whether one thread suffices for all the calls of a pool.
//!
//! Where calls compute, threads only take turns at the interpreter; each turn costs switches and cold caches, and a
//! page of Django, which gives way at each row of its database, has many. What they do together one of them can do, and
//! lead (`lead.rs`) beside it. That it could is seen of them all: there always is one that computes, and together they
//! use no more than one processor. That it could not is seen once it is alone: it waits in its calls.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use super::attend::COMPUTING;

/// How long calls must have computed.
const WINDOW: Duration = Duration::from_millis(50);
/// How often to look whether they do.
const LOOK: Duration = Duration::from_millis(4);
/// As many processors may the process use where one thread suffices. Where it uses more, threads run beside each other, as
/// they do in libraries that let go of the interpreter.
const MOST: f64 = 1.2;
/// How long not to look again where calls were seen to wait: to look at each thread costs some microseconds.
const SELDOM: Duration = Duration::from_millis(500);
/// How long not to try again where one did not suffice. Twice as long each time, up to the second.
const PUT_OFF: Duration = Duration::from_secs(1);
const PUT_OFF_MOST: Duration = Duration::from_secs(30);

/// What is known of it.
#[derive(Debug)]
pub(super) struct Alone {
    /// Since when one thread does everything.
    since: Option<Instant>,
    window: Option<Window>,
    put_off: Duration,
    not_before: Option<Instant>,
}

/// A while in which there always was a call that computed.
#[derive(Clone, Copy, Debug)]
struct Window {
    began: Seen,
    looked: Instant,
}

/// The process at some moment.
#[derive(Clone, Copy, Debug)]
struct Seen {
    at: Instant,
    /// Its processor time.
    used: Duration,
    /// Jobs that were ever taken.
    taken: u64,
}

impl Default for Alone {
    fn default() -> Self {
        Self { since: None, window: None, put_off: PUT_OFF, not_before: None }
    }
}

impl Alone {
    /// Whether one thread is to do everything.
    pub(super) fn is_so(&self) -> bool {
        self.since.is_some()
    }

    /// Whether it is to be told next whether a call computes.
    pub(super) fn asks(&self) -> bool {
        let at = Instant::now();
        !self.is_put_off(at)
            && self.window.is_some_and(|window| !window.is_over(at) && at - window.looked >= LOOK)
    }

    /// Notes, while jobs wait, how many were ever taken, which of them has been under way for longest, and whether any of
    /// these computes, if that was [asked](Self::asks). True: one thread does everything from now on.
    pub(super) fn suffices(&mut self, taken: u64, oldest: u64, computes: Option<bool>) -> bool {
        let at = Instant::now();
        if self.is_put_off(at) {
            return false;
        }
        if computes == Some(false) {
            (self.window, self.not_before) = (None, Some(at + SELDOM));
            return false;
        }
        let seen = || Seen { at, used: used(), taken };
        let window = match &mut self.window {
            Some(window) if !window.is_over(at) => window,
            window => window.insert(Window { began: seen(), looked: at }),
        };
        if computes.is_some() {
            window.looked = at;
        }
        if at - window.began.at >= WINDOW {
            let (began, now) = (window.began, seen());
            window.began = now;
            if began.one_would_do(&now, oldest) {
                self.since = Some(at);
            }
        }
        self.is_so()
    }

    fn is_put_off(&self, at: Instant) -> bool {
        self.not_before.is_some_and(|time| at < time)
    }

    /// More threads are there.
    pub(super) fn end(&mut self) {
        (self.since, self.window) = (None, None);
    }

    /// Calls were seen to wait.
    pub(super) fn refute(&mut self) {
        if let Some(since) = self.since {
            let now = Instant::now();
            let was_long = now - since >= self.put_off;
            self.put_off = if was_long { PUT_OFF } else { PUT_OFF_MOST.min(2 * self.put_off) };
            self.not_before = Some(now + self.put_off);
        }
        self.end();
    }
}

impl Window {
    /// Where nobody looked for long nothing waited meanwhile.
    fn is_over(&self, at: Instant) -> bool {
        at - self.looked >= WINDOW
    }
}

impl Seen {
    /// Whether one thread could have done what has been done since.
    fn one_would_do(&self, now: &Self, oldest: u64) -> bool {
        let lasted = now.at - self.at;
        let calls = u32::try_from(now.taken - self.taken).unwrap_or(u32::MAX);
        let used = now.used.saturating_sub(self.used);
        // Nobody is to wait behind a call that has not ended meanwhile, nor behind calls that take long.
        used <= lasted.mul_f64(MOST) && oldest > self.taken && COMPUTING.saturating_mul(calls) >= lasted
    }
}

/// The processor time of the process so far (`clock_gettime(2)`).
fn used() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    const JUST: u64 = u64::MAX;

    #[test]
    fn one_would_do_what_uses_one_processor() {
        let at = Instant::now();
        let began = Seen { at, used: Duration::from_millis(100), taken: 10 };
        let would_do = |used: u64, taken, oldest| {
            let used = Duration::from_millis(100 + used);
            began.one_would_do(&Seen { at: at + Duration::from_millis(50), used, taken }, oldest)
        };
        assert!(would_do(50, 35, JUST));
        // The machine may be busy.
        assert!(would_do(20, 35, JUST));
        // Two run.
        assert!(!would_do(90, 35, JUST));
        // Calls of 10 ms, and one of more than 50.
        assert!(!would_do(50, 15, JUST));
        assert!(!would_do(50, 35, 10));
        assert!(would_do(50, 35, 11));
    }

    /// Looks for so long, while the calls do this.
    fn look_for(alone: &mut Alone, time: Duration, computes: impl Fn() -> bool) -> bool {
        let (began, mut taken) = (Instant::now(), 0);
        while began.elapsed() < time && !alone.is_so() {
            taken += 1;
            let seen = alone.asks().then(&computes);
            alone.suffices(taken, JUST, seen);
            std::thread::sleep(Duration::from_millis(1));
        }
        alone.is_so()
    }

    #[test]
    fn one_is_alone_where_all_looks_say_that_calls_compute() {
        let second = Duration::from_secs(1);
        assert!(look_for(&mut Alone::default(), 10 * second, || true));
        assert!(!look_for(&mut Alone::default(), second / 4, || false));
        let looks = AtomicU32::new(0);
        let every_other = || looks.fetch_add(1, Ordering::Relaxed).is_multiple_of(2);
        assert!(!look_for(&mut Alone::default(), second, every_other));
        assert!(looks.into_inner() <= 4, "what waits is seldom looked at");
    }

    #[test]
    fn what_did_not_suffice_is_put_off_for_longer_each_time() {
        let mut alone = Alone::default();
        for put_off in [2, 4, 8, 16, 30, 30] {
            alone.since = Some(Instant::now());
            alone.refute();
            assert_eq!((alone.is_so(), alone.put_off), (false, Duration::from_secs(put_off)));
        }
        assert!(!look_for(&mut alone, 3 * WINDOW, || true), "it does not even look");
        // What was known before is no trial.
        alone.not_before = None;
        alone.refute();
        assert_eq!(alone.not_before, None);
    }

    #[test]
    fn time_is_used_by_what_computes() {
        let before = used();
        while used() == before {}
        assert!(used() > before);
    }
}
