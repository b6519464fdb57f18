//! Waking at a time. The runtime's own timers count in milliseconds, which an `asyncio.sleep(0.001)` would feel.

use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

#[cfg(target_os = "linux")]
pub(super) use self::linux::Alarm;
#[cfg(not(target_os = "linux"))]
pub(super) use self::portable::Alarm;

#[cfg(target_os = "linux")]
mod linux {
    use super::super::watch::Watch;
    use super::{Context, Duration, Poll, io};
    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    };

    /// One timer.
    pub(in super::super) struct Alarm(Watch);

    impl Alarm {
        /// Needs a runtime.
        pub(in super::super) fn new() -> io::Result<Self> {
            let timer =
                timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
            Watch::new(timer).map(Self)
        }

        /// Wakes after this time, and no more at any that was set before.
        pub(in super::super) fn set(&mut self, after: Duration) {
            // Zero would switch it off.
            let after = after.max(Duration::from_nanos(1));
            let value = Timespec {
                tv_sec: i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: after.subsec_nanos().into(),
            };
            let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
            if let Err(error) = timerfd_settime(self.0.descriptor(), TimerfdTimerFlags::empty(), &once) {
                tracing::error!(target: "hawksbill::app", "the event loop cannot set its timer: {error}");
            }
        }

        /// Ready when the time has come.
        pub(in super::super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
            let mut fired = false;
            while let Poll::Ready(Ok(mut ready)) = self.0.poll(cx) {
                // Nothing is read: setting it anew makes it unreadable.
                ready.clear_ready();
                fired = true;
            }
            if fired { Poll::Ready(()) } else { Poll::Pending }
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod portable {
    use std::pin::Pin;

    use tokio::time::{Instant, Sleep, sleep};

    use super::{Context, Duration, Poll, io};

    /// One timer.
    pub(in super::super) struct Alarm(Option<Pin<Box<Sleep>>>);

    impl Alarm {
        pub(in super::super) fn new() -> io::Result<Self> {
            Ok(Self(None))
        }

        /// Wakes after this time, and no more at any that was set before.
        pub(in super::super) fn set(&mut self, after: Duration) {
            match &mut self.0 {
                Some(sleep) => sleep.as_mut().reset(Instant::now() + after),
                None => self.0 = Some(Box::pin(sleep(after))),
            }
        }

        /// Ready when the time has come.
        pub(in super::super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
            let Some(sleep) = &mut self.0 else { return Poll::Pending };
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.0 = None;
            Poll::Ready(())
        }
    }
}
