//! The loop that every connection runs in: its protocol, its clock, and the server's end.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use pin_project_lite::pin_project;
use tokio::sync::watch;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::activity::{Activity, Expired};
use crate::drain::{Control, Stage};
use crate::settings::Settings;

/// What a connection does at some time of its life.
pub(crate) trait Work {
    type Output;

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Self::Output>;

    /// The server drains. May be called more than once.
    fn drain(&mut self) {}

    /// The connection's time is up. `true`: there is nothing more to wait for.
    fn expired(&mut self, _why: Expired) -> bool {
        true
    }
}

/// Why work was stopped before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    Expired(Expired),
    Cut,
}

/// What the loop looks at beside the work.
pub(crate) struct Watch<'a> {
    pub(crate) activity: &'a Arc<Activity>,
    pub(crate) settings: &'a Settings,
    pub(crate) control: &'a Control,
    /// Whether the work is told of a time for [rest](Expired::Rest).
    pub(crate) rests: bool,
}

impl Watch<'_> {
    fn deadline(&self) -> Option<(Instant, Expired)> {
        let (at, why) = self.activity.deadline(self.settings, self.control.drains())?;
        let rest = self.activity.rests_at().filter(|rest| self.rests && why == Expired::Idle && *rest < at);
        let (at, why) = rest.map_or((at, why), |rest| (rest, Expired::Rest));
        Some((Instant::from_std(at), why))
    }
}

/// Does the work until it is done, its time is up, or the server ends.
pub(crate) async fn supervise<W: Work>(
    work: &mut W,
    watch: Watch<'_>,
    stages: &mut watch::Receiver<Stage>,
) -> Result<W::Output, Stop> {
    let mut clock = pin!(Clock::new());
    // The server's end is looked at when it is told, not each time that bytes arrive.
    let told = Waker::from(watch.activity.clone());
    loop {
        match *stages.borrow_and_update() {
            Stage::Serving => {}
            Stage::Leaving | Stage::Draining => work.drain(),
            Stage::Cut => return Err(Stop::Cut),
        }
        let mut changed = pin!(stages.changed());
        watch.activity.look_at_stage();
        let outcome = poll_fn(|cx| {
            if let Poll::Ready(output) = work.poll(cx) {
                return Poll::Ready(Outcome::Done(output));
            }
            // Registered before anything is looked at, so that a change in between is not missed.
            watch.activity.register(cx.waker());
            if watch.activity.is_to_look_at_stage()
                && changed.as_mut().poll(&mut Context::from_waker(&told)).is_ready()
            {
                return Poll::Ready(Outcome::NextStage);
            }
            clock.as_mut().poll(&watch, cx).map(Outcome::Expired)
        });
        match outcome.await {
            Outcome::Done(output) => return Ok(output),
            Outcome::Expired(why) if work.expired(why) => return Err(Stop::Expired(why)),
            Outcome::Expired(_) | Outcome::NextStage => {}
        }
    }
}

enum Outcome<T> {
    Done(T),
    Expired(Expired),
    NextStage,
}

pin_project! {
    /// One timer for all deadlines of a connection.
    struct Clock {
        #[pin]
        timer: Sleep,
        // A timer that was never polled is not registered anywhere, so its first deadline does not count.
        armed: Option<Instant>,
    }
}

impl Clock {
    fn new() -> Self {
        Self { timer: sleep_until(Instant::now()), armed: None }
    }

    /// Ready when a deadline has passed.
    fn poll(self: Pin<&mut Self>, watch: &Watch<'_>, cx: &mut Context<'_>) -> Poll<Expired> {
        let mut this = self.project();
        loop {
            let Some((at, why)) = watch.deadline() else { return Poll::Pending };
            // A timer that is too early is left alone: it costs one look, while moving it costs one each request.
            if this.armed.is_none_or(|armed| at < armed || this.timer.is_elapsed()) {
                this.timer.as_mut().reset(at);
                *this.armed = Some(at);
            }
            if this.timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if at <= Instant::now() {
                return Poll::Ready(why);
            }
        }
    }
}
