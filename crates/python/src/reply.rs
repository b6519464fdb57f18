//! The way of one answer back to whoever asked, from any thread.
//!
//! It is a one-shot channel, but for one thing: the waker of the asking task may be left with the thread that drives the
//! runtime (see [`Later`]), so that a batch of answers costs one wake-up.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use hawksbill_core::{Body, Error};
use http::Response;

use crate::later::Later;

/// What is answered.
pub(crate) type Answered = Result<Response<Body>, Error>;

/// The application's end. Dropped without an answer, it leaves the asking end with none.
#[derive(Debug)]
pub(crate) struct Reply(Arc<Slot>);

/// The answer from a third side: that of one who sees that it does not come.
#[derive(Debug)]
pub(crate) struct Late(Arc<Slot>);

/// What has become of a question whose answer is late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is answered now.
    Told,
    /// Nobody asks any more.
    Left,
    /// It was answered already.
    Answered,
}

/// The asking end: the answer, or `None` where the other end was dropped.
#[derive(Debug)]
pub(crate) struct Asked(Arc<Slot>);

#[derive(Debug)]
struct Slot {
    state: Mutex<State>,
    later: Option<Arc<Later>>,
}

#[derive(Debug, Default)]
struct State {
    answer: Option<Answered>,
    /// Nothing more comes from the application's end.
    over: bool,
    /// Nobody asks any more.
    left: bool,
    asker: Option<Waker>,
    replier: Option<Waker>,
}

/// Both ends. With `later`, the asking task is woken by whoever drives the runtime.
pub(crate) fn channel(later: Option<Arc<Later>>) -> (Reply, Asked) {
    let slot = Arc::new(Slot { state: Mutex::default(), later });
    (Reply(slot.clone()), Asked(slot))
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, mut state: MutexGuard<'_, State>, answer: Option<Answered>) {
        state.over = true;
        state.answer = answer;
        let asker = state.asker.take();
        drop(state);
        match (asker, &self.later) {
            (Some(asker), Some(later)) => later.wake(asker),
            (Some(asker), None) => asker.wake(),
            (None, _) => {}
        }
    }
}

impl Reply {
    /// Answers. False: nobody waits for the answer any more.
    pub(crate) fn send(self, answer: Answered) -> bool {
        let state = self.0.lock();
        if state.left || state.over {
            return false;
        }
        self.0.end(state, Some(answer));
        true
    }

    /// For whoever sees to it that there is an answer in time.
    pub(crate) fn late(&self) -> Late {
        Late(self.0.clone())
    }

    /// Whether nobody waits for the answer any more.
    pub(crate) fn is_closed(&self) -> bool {
        let state = self.0.lock();
        state.left || state.over
    }

    /// Ready when nobody waits for the answer any more.
    pub(crate) fn poll_closed(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.0.lock();
        if state.left || state.over {
            return Poll::Ready(());
        }
        keep(&mut state.replier, cx);
        Poll::Pending
    }
}

impl Late {
    /// Whether somebody still waits for the answer.
    pub(crate) fn is_awaited(&self) -> bool {
        let state = self.0.lock();
        !state.left && !state.over
    }

    /// Answers in the application's stead, if it has not.
    pub(crate) fn answer(&self, answer: impl FnOnce() -> Error) -> Fate {
        let mut state = self.0.lock();
        // Whoever asked leaves with his answer, too.
        if state.over {
            return Fate::Answered;
        }
        if state.left {
            return Fate::Left;
        }
        let replier = state.replier.take();
        self.0.end(state, Some(Err(answer())));
        if let Some(replier) = replier {
            replier.wake();
        }
        Fate::Told
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        let state = self.0.lock();
        if !state.over {
            self.0.end(state, None);
        }
    }
}

impl Future for Asked {
    type Output = Option<Answered>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.0.lock();
        if state.over {
            return Poll::Ready(state.answer.take());
        }
        keep(&mut state.asker, cx);
        Poll::Pending
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.left = true;
        let (answer, replier) = (state.answer.take(), state.replier.take());
        drop(state);
        drop(answer);
        if let Some(replier) = replier {
            replier.wake();
        }
    }
}

fn keep(slot: &mut Option<Waker>, cx: &Context<'_>) {
    match slot {
        Some(waker) if waker.will_wake(cx.waker()) => {}
        _ => *slot = Some(cx.waker().clone()),
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use hawksbill_core::Kind;

    use super::*;

    #[tokio::test]
    async fn an_answer_arrives() {
        let (reply, asked) = channel(None);
        let asking = tokio::spawn(asked);
        tokio::task::yield_now().await;
        assert!(reply.send(Ok(Response::new(Body::from("turtle")))));
        assert_eq!(asking.await.unwrap().unwrap().unwrap().status(), 200);
    }

    #[tokio::test]
    async fn both_ends_hear_of_the_other_leaving() {
        let (reply, asked) = channel(None);
        drop(reply);
        assert!(asked.await.is_none());

        let (reply, asked) = channel(None);
        assert!(!reply.is_closed());
        let leaving = tokio::spawn(async move {
            tokio::task::yield_now().await;
            drop(asked);
        });
        poll_fn(|cx| reply.poll_closed(cx)).await;
        leaving.await.unwrap();
        assert_eq!(reply.late().answer(|| Error::new(Kind::GatewayTimeout)), Fate::Left);
        assert!(!reply.send(Ok(Response::default())));
    }

    #[tokio::test]
    async fn an_answer_that_is_late_is_given_by_another() {
        let (reply, asked) = channel(None);
        let late = reply.late();
        let asking = tokio::spawn(asked);
        tokio::task::yield_now().await;
        assert_eq!(late.answer(|| Error::new(Kind::GatewayTimeout)), Fate::Told);
        assert!(reply.is_closed());
        assert!(!reply.send(Ok(Response::default())));
        assert_eq!(asking.await.unwrap().unwrap().unwrap_err().status(), 504);

        let (reply, asked) = channel(None);
        let late = reply.late();
        assert!(reply.send(Ok(Response::default())));
        assert!(asked.await.is_some());
        assert_eq!(late.answer(|| Error::new(Kind::GatewayTimeout)), Fate::Answered);
    }
}
