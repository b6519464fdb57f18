//! One stream at one end: what came and is not read yet, what may be sent, who waits for either.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};

use bytes::{Bytes, BytesMut};
use hawksbill_core::{Error, Kind};
use http::HeaderMap;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use crate::seat::Seat;
use crate::wire::{ResponseHead, StreamId};

/// Blocks below this length are joined where they wait.
const SMALL: usize = 4 * 1024;

/// One stream. The connection and those who read and write it share it.
pub(crate) struct Stream {
    pub(crate) id: StreamId,
    inner: Mutex<Inner>,
}

/// How what the other end sends has ended.
pub(crate) enum End {
    Clean,
    Trailers(HeaderMap),
    Failed(Error),
    /// The connection was lost; `unsent` where the other end cannot have seen the request.
    Lost {
        error: Error,
        unsent: bool,
    },
}

#[expect(clippy::struct_excessive_bools, reason = "each is a fact by itself")]
pub(crate) struct Inner {
    /// A front's: the head of the answer, and whether bytes go both ways from here on.
    pub(crate) answer: Option<(ResponseHead, bool)>,
    /// A front's: there was an answer.
    pub(crate) answered: bool,
    pub(crate) chunks: VecDeque<Bytes>,
    /// Small blocks behind those, joined.
    pub(crate) tail: BytesMut,
    pub(crate) end: Option<End>,
    /// What the other end may still send.
    pub(crate) window: usize,
    /// What was read and may be sent anew, but was not credited.
    pub(crate) owed: usize,
    /// What is left of the announced length.
    pub(crate) remaining: Option<u64>,
    /// Nobody reads.
    pub(crate) deaf: bool,
    pub(crate) reader: Option<Waker>,
    /// What we may send.
    pub(crate) credit: usize,
    pub(crate) giver: Option<Waker>,
    /// It waits for room in the connection's queue.
    pub(crate) crowded: bool,
    /// The other end's direction is open.
    pub(crate) receiving: bool,
    /// Our direction is open.
    pub(crate) sending: bool,
    /// A front's: the client may switch protocols, so our direction stays open until the answer says.
    pub(crate) may_switch: bool,
    /// A front's: how many bytes this connection had sent when the request was complete.
    pub(crate) request_end: u64,
    /// A front's: its place among the requests that the worker serves.
    pub(crate) seat: Option<Seat>,
    /// A worker's: tells who took the connection over that the front's server ends.
    pub(crate) leaving: Option<oneshot::Sender<()>>,
    /// A worker's: the call under way.
    pub(crate) call: Option<AbortHandle>,
}

impl Stream {
    pub(crate) fn new(id: StreamId, window: usize, credit: usize) -> Self {
        Self {
            id,
            inner: Mutex::new(Inner {
                answer: None,
                answered: false,
                chunks: VecDeque::new(),
                tail: BytesMut::new(),
                end: None,
                window,
                owed: 0,
                remaining: None,
                deaf: false,
                reader: None,
                credit,
                giver: None,
                crowded: false,
                receiving: true,
                sending: true,
                may_switch: false,
                request_end: u64::MAX,
                seat: None,
                leaving: None,
                call: None,
            }),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a frame for a stream is refused.
pub(crate) enum Refused {
    /// The other end breaks the protocol.
    Broken(&'static str),
    /// This stream alone is wrong.
    Stream(&'static str),
}

impl Inner {
    /// Takes bytes that came.
    pub(crate) fn receive(&mut self, chunk: Bytes) -> Result<Option<Waker>, Refused> {
        if !self.receiving && !self.deaf {
            return Err(Refused::Broken("data came behind the end of a body"));
        }
        let window = self.window.checked_sub(chunk.len());
        self.window = window.ok_or(Refused::Broken("it sent more than its credit"))?;
        if let Some(remaining) = &mut self.remaining {
            let left = remaining.checked_sub(chunk.len() as u64);
            *remaining = left.ok_or(Refused::Stream("the body is longer than it was announced"))?;
        }
        if self.deaf || chunk.is_empty() {
            return Ok(None);
        }
        if chunk.len() < SMALL && !self.chunks.is_empty() {
            // Nobody reads as fast as it comes. Many small blocks would be more memory than their bytes.
            self.tail.extend_from_slice(&chunk);
            if self.tail.len() >= SMALL {
                self.chunks.push_back(self.tail.split().freeze());
            }
            return Ok(self.reader.take());
        }
        if !self.tail.is_empty() {
            self.chunks.push_back(self.tail.split().freeze());
        }
        self.chunks.push_back(chunk);
        Ok(self.reader.take())
    }

    /// Takes the end of what comes. Gives who waits for it.
    pub(crate) fn receive_end(&mut self, end: End) -> Option<Waker> {
        self.receiving = false;
        if self.end.is_none() {
            let short = matches!(end, End::Clean | End::Trailers(_)) && matches!(self.remaining, Some(1..));
            self.end = Some(if short { End::Failed(cut_short()) } else { end });
        }
        self.reader.take()
    }

    /// Takes the next bytes, and how much is to be credited for them.
    pub(crate) fn take_chunk(&mut self, window: usize) -> Option<(Bytes, u32)> {
        let chunk = match self.chunks.pop_front() {
            Some(chunk) => chunk,
            None if self.tail.is_empty() => return None,
            None => std::mem::take(&mut self.tail).freeze(),
        };
        let credit = self.repay(chunk.len(), window);
        Some((chunk, credit))
    }

    /// Counts bytes as read. Gives what is to be credited now: not every byte by itself.
    pub(crate) fn repay(&mut self, count: usize, window: usize) -> u32 {
        self.owed += count;
        if !self.receiving || self.owed < window / 2 {
            return 0;
        }
        let owed = std::mem::take(&mut self.owed);
        self.window += owed;
        u32::try_from(owed).unwrap_or(u32::MAX)
    }

    pub(crate) fn wait_to_read(&mut self, cx: &Context<'_>) {
        wait(&mut self.reader, cx);
    }

    pub(crate) fn wait_to_give(&mut self, cx: &Context<'_>) {
        wait(&mut self.giver, cx);
    }

    /// Ends our direction, if it is open.
    pub(crate) fn stop_sending(&mut self) -> Option<Waker> {
        self.sending = false;
        self.giver.take()
    }

    pub(crate) fn is_over(&self) -> bool {
        !self.receiving && !self.sending
    }
}

fn wait(place: &mut Option<Waker>, cx: &Context<'_>) {
    match place {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *place = Some(cx.waker().clone()),
    }
}

fn cut_short() -> Error {
    Error::new(Kind::BadGateway).because("the body ended before it was complete")
}

pub(crate) fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}
