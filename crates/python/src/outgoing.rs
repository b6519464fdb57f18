//! A response body on its way out: Python pushes blocks at one end, the connection takes them at the other.
//!
//! What is queued is bounded in bytes. A body ends cleanly only when its sender says so: one that is dropped for any
//! other reason is an error, so that a client never takes half an answer for a whole one.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use hawksbill_core::{Error, Kind};
use http::HeaderMap;
use http_body::{Frame, SizeHint};

use crate::segment::Segment;

/// How many bytes may wait for the client before the application has to. They are written together, and the more at once
/// the better: where TCP paces what it sends (BBR), each write may set a timer, which costs more than the write.
const ROOM: usize = 256 * 1024;

/// The client has left: nobody takes the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gone;

/// What waits for the client.
enum Block {
    Bytes(Bytes),
    File(Box<Segment>),
}

impl Block {
    /// What it takes of the room: a file all of it, so that its sender waits until it is read.
    fn weight(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::File(_) => ROOM,
        }
    }
}

#[derive(Default)]
struct State {
    blocks: VecDeque<Block>,
    queued: usize,
    /// What is left of a promised length, for the size hint.
    remaining: Option<u64>,
    trailers: Option<Box<HeaderMap>>,
    end: Option<Result<(), Error>>,
    gone: bool,
    taker: Option<Waker>,
    giver: Option<Waker>,
}

/// The application's end.
pub(crate) struct Sender {
    state: Arc<Mutex<State>>,
}

/// The connection's end: an HTTP body.
pub(crate) struct Outgoing {
    state: Arc<Mutex<State>>,
}

/// A body whose length is promised to be `length`, where that is known.
pub(crate) fn channel(length: Option<u64>) -> (Sender, Outgoing) {
    let state = Arc::new(Mutex::new(State { remaining: length, ..State::default() }));
    (Sender { state: state.clone() }, Outgoing { state })
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl State {
    /// The next block that is queued; `None` where there is none.
    fn poll_block(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        let Some(block) = self.blocks.pop_front() else { return Poll::Ready(None) };
        let weight = block.weight();
        let bytes = match block {
            Block::Bytes(bytes) => bytes,
            Block::File(mut segment) => match segment.poll_block(cx) {
                Poll::Ready(Some(Ok(bytes))) if segment.len() == 0 => bytes,
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(self.fail(error)))),
                polled => {
                    self.blocks.push_front(Block::File(segment));
                    let Poll::Ready(Some(Ok(bytes))) = polled else { return Poll::Pending };
                    self.count(&bytes);
                    return Poll::Ready(Some(Ok(bytes)));
                }
            },
        };
        self.queued -= weight;
        self.count(&bytes);
        Poll::Ready(Some(Ok(bytes)))
    }

    fn count(&mut self, bytes: &Bytes) {
        self.remaining = self.remaining.map(|left| left.saturating_sub(bytes.len() as u64));
    }

    /// Nothing follows a file that could not be read; the sender finds nobody to send to.
    fn fail(&mut self, error: std::io::Error) -> Error {
        self.blocks.clear();
        self.queued = 0;
        self.gone = true;
        self.end = Some(Ok(()));
        self.trailers = None;
        Error::new(Kind::Internal).because("a file could not be read to its end").caused_by(error)
    }
}

impl Sender {
    /// Queues a block, whether there is room or not; [`poll_room`](Self::poll_room) tells when to give the next.
    pub(crate) fn push(&self, block: Bytes) -> Result<(), Gone> {
        self.queue((!block.is_empty()).then_some(Block::Bytes(block)))
    }

    /// Queues a part of a file; there is room again when it is read.
    pub(crate) fn push_file(&self, segment: Segment) -> Result<(), Gone> {
        self.queue((segment.len() > 0).then(|| Block::File(Box::new(segment))))
    }

    fn queue(&self, block: Option<Block>) -> Result<(), Gone> {
        let mut state = lock(&self.state);
        if state.gone {
            return Err(Gone);
        }
        if let Some(block) = block {
            state.queued += block.weight();
            state.blocks.push_back(block);
            let taker = state.taker.take();
            drop(state);
            wake(taker);
        }
        Ok(())
    }

    /// Ready when the next block may be given, or nobody wants it any more.
    pub(crate) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        let mut state = lock(&self.state);
        if state.gone {
            return Poll::Ready(Err(Gone));
        }
        if state.queued < ROOM {
            return Poll::Ready(Ok(()));
        }
        register(&mut state.giver, cx);
        Poll::Pending
    }

    /// Ready when the client has left.
    pub(crate) fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = lock(&self.state);
        if state.gone {
            return Poll::Ready(());
        }
        register(&mut state.giver, cx);
        Poll::Pending
    }

    /// The body is complete.
    pub(crate) fn finish(self) {
        self.end(Ok(()));
    }

    /// The body is complete, and these fields follow it (RFC 9110 section 6.5).
    pub(crate) fn finish_with(self, trailers: HeaderMap) {
        if !trailers.is_empty() {
            lock(&self.state).trailers = Some(Box::new(trailers));
        }
        self.end(Ok(()));
    }

    /// The body will never be complete: the connection is cut, so that the client sees it.
    pub(crate) fn fail(self, error: Error) {
        self.end(Err(error));
    }

    fn end(&self, end: Result<(), Error>) {
        let mut state = lock(&self.state);
        state.giver = None;
        if state.end.is_none() {
            state.end = Some(end);
            let taker = state.taker.take();
            drop(state);
            wake(taker);
        }
    }
}

fn register(slot: &mut Option<Waker>, cx: &Context<'_>) {
    match slot {
        Some(waker) if waker.will_wake(cx.waker()) => {}
        _ => *slot = Some(cx.waker().clone()),
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.end(Err(
            Error::new(Kind::Internal).because("the application ended in the middle of its response")
        ));
    }
}

impl http_body::Body for Outgoing {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let mut state = lock(&self.state);
        if let Some(block) = ready!(state.poll_block(cx)) {
            let giver = if state.queued < ROOM { state.giver.take() } else { None };
            drop(state);
            wake(giver);
            return Poll::Ready(Some(block.map(Frame::data)));
        }
        match state.end.take() {
            Some(Ok(())) => {
                state.end = Some(Ok(()));
                Poll::Ready(state.trailers.take().map(|trailers| Ok(Frame::trailers(*trailers))))
            }
            Some(Err(error)) => {
                state.end = Some(Ok(()));
                Poll::Ready(Some(Err(error)))
            }
            None => {
                register(&mut state.taker, cx);
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let state = lock(&self.state);
        state.blocks.is_empty() && state.trailers.is_none() && matches!(state.end, Some(Ok(())))
    }

    fn size_hint(&self) -> SizeHint {
        lock(&self.state).remaining.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        let mut state = lock(&self.state);
        state.gone = true;
        let blocks = std::mem::take(&mut state.blocks);
        let giver = state.giver.take();
        drop(state);
        drop(blocks);
        wake(giver);
    }
}

impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outgoing").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use http_body_util::BodyExt;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[tokio::test]
    async fn blocks_come_out_in_order_and_end() {
        let (sender, body) = channel(Some(6));
        assert_eq!(http_body::Body::size_hint(&body).exact(), Some(6));
        sender.push(Bytes::from_static(b"tur")).unwrap();
        sender.push(Bytes::from_static(b"tle")).unwrap();
        sender.finish();
        assert_eq!(body.collect().await.unwrap().to_bytes(), "turtle");
    }

    #[tokio::test]
    async fn a_sender_that_is_dropped_is_no_clean_end() {
        let (sender, mut body) = channel(None);
        sender.push(Bytes::from_static(b"half")).unwrap();
        drop(sender);
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "half");
        assert!(body.frame().await.unwrap().is_err());
    }

    #[tokio::test]
    async fn a_full_queue_holds_the_sender_until_a_block_is_taken() {
        let count = Arc::new(Count::default());
        let waker = Waker::from(count.clone());
        let mut cx = Context::from_waker(&waker);
        let (sender, mut body) = channel(None);
        assert!(sender.poll_room(&mut cx).is_ready());
        sender.push(Bytes::from(vec![0; ROOM])).unwrap();
        assert!(sender.poll_room(&mut cx).is_pending());
        body.frame().await.unwrap().unwrap();
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
        assert_eq!(sender.poll_room(&mut cx), Poll::Ready(Ok(())));
        sender.finish();
    }

    #[tokio::test]
    async fn the_sender_hears_that_the_client_left() {
        let count = Arc::new(Count::default());
        let waker = Waker::from(count.clone());
        let mut cx = Context::from_waker(&waker);
        let (sender, body) = channel(None);
        assert!(sender.poll_gone(&mut cx).is_pending());
        drop(body);
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
        assert_eq!(sender.push(Bytes::from_static(b"x")), Err(Gone));
    }
}
