//! A queue between the runtime and the event loop, bounded in bytes, in which neither side ever blocks.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// How many bytes may wait before the giver has to. One item may go beyond.
const ROOM: usize = 128 * 1024;
/// What an item weighs beside its content.
const OVERHEAD: usize = 64;

/// One direction of a WebSocket.
pub(super) struct Lane<T>(Mutex<State<T>>);

struct State<T> {
    items: VecDeque<(T, usize)>,
    weight: usize,
    closed: bool,
    giver: Option<Waker>,
    taker: Option<Waker>,
}

/// Nothing goes through any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Closed;

impl<T> Lane<T> {
    pub(super) fn new() -> Self {
        Self(Mutex::new(State { items: VecDeque::new(), weight: 0, closed: false, giver: None, taker: None }))
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives an item with this many bytes in it, whether there is room or not.
    pub(super) fn push(&self, item: T, bytes: usize) -> Result<(), Closed> {
        let mut state = self.lock();
        if state.closed {
            return Err(Closed);
        }
        let weight = bytes.saturating_add(OVERHEAD);
        state.weight = state.weight.saturating_add(weight);
        state.items.push_back((item, weight));
        let taker = state.taker.take();
        drop(state);
        wake(taker);
        Ok(())
    }

    /// Ready when the next item may be given.
    pub(super) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<Result<(), Closed>> {
        let mut state = self.lock();
        if state.closed {
            return Poll::Ready(Err(Closed));
        }
        if state.weight < ROOM {
            return Poll::Ready(Ok(()));
        }
        state.giver = Some(cx.waker().clone());
        Poll::Pending
    }

    /// The next item; `None` when the lane is closed and empty.
    pub(super) fn poll_take(&self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let mut state = self.lock();
        if let Some((item, weight)) = state.items.pop_front() {
            state.weight -= weight;
            let giver = if state.weight < ROOM { state.giver.take() } else { None };
            drop(state);
            wake(giver);
            return Poll::Ready(Some(item));
        }
        if state.closed {
            return Poll::Ready(None);
        }
        state.taker = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Takes no further items; those in it can still be taken.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let (giver, taker) = (state.giver.take(), state.taker.take());
        drop(state);
        wake(giver);
        wake(taker);
    }

    /// Takes no further items, and forgets those in it.
    pub(super) fn clear(&self) {
        let items = std::mem::take(&mut self.lock().items);
        self.close();
        drop(items);
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test]
    async fn what_is_in_it_is_bounded_and_outlives_its_end() {
        let lane = Lane::new();
        let mut noop = Context::from_waker(Waker::noop());
        assert!(lane.poll_room(&mut noop).is_ready());
        lane.push("big", ROOM).unwrap();
        assert!(lane.poll_room(&mut noop).is_pending());
        lane.push("last", 0).unwrap();
        lane.close();
        assert_eq!(lane.push("late", 0), Err(Closed));
        assert_eq!(poll_fn(|cx| lane.poll_take(cx)).await, Some("big"));
        assert_eq!(poll_fn(|cx| lane.poll_take(cx)).await, Some("last"));
        assert_eq!(poll_fn(|cx| lane.poll_take(cx)).await, None);
    }
}
