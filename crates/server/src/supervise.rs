//! The loop that every connection runs in: its protocol, its clock, and the server's end.

use std::future::poll_fn;
use std::task::{Context, Poll};

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

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
    pub(crate) activity: &'a Activity,
    pub(crate) settings: &'a Settings,
    pub(crate) control: &'a Control,
}

/// Does the work until it is done, its time is up, or the server ends.
pub(crate) async fn supervise<W: Work>(
    work: &mut W,
    watch: Watch<'_>,
    stages: &mut watch::Receiver<Stage>,
) -> Result<W::Output, Stop> {
    let timer = sleep_until(Instant::now());
    tokio::pin!(timer);
    // A timer that was never polled is not registered anywhere, so its first deadline must not count.
    let mut armed: Option<Instant> = None;
    loop {
        let stage = *stages.borrow_and_update();
        match stage {
            Stage::Serving => {}
            Stage::Draining => work.drain(),
            Stage::Cut => return Err(Stop::Cut),
        }
        let done = poll_fn(|cx| {
            if let Poll::Ready(output) = work.poll(cx) {
                return Poll::Ready(Ok(output));
            }
            // Registered before the deadline is computed, so that a change in between is not missed.
            watch.activity.register(cx.waker());
            loop {
                let Some((at, why)) = watch.activity.deadline(watch.settings, watch.control.began()) else {
                    return Poll::Pending;
                };
                let at = Instant::from_std(at);
                // A timer that is too early is left alone: it costs one look, while moving it costs one each request.
                if armed.is_none_or(|armed| at < armed || timer.is_elapsed()) {
                    timer.as_mut().reset(at);
                    armed = Some(at);
                }
                if timer.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                if at <= Instant::now() {
                    return Poll::Ready(Err(why));
                }
            }
        });
        tokio::select! {
            biased;
            outcome = done => match outcome {
                Ok(output) => return Ok(output),
                Err(why) if work.expired(why) => return Err(Stop::Expired(why)),
                Err(_) => {}
            },
            _ = stages.changed() => {}
        }
    }
}
