//! What both ends of a connection have in common: the streams, what is to be written, how it ends.
//!
//! Locks are taken in this order: writer, state, one stream. Wakers are woken with none of them held.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::Fault;
use crate::outbox::Outbox;
use crate::seat::Seats;
use crate::stream::{End, Inner, Stream, wake};
use crate::wire::{END, FrameHeader, FrameKind, HEADER, Limits, Role, StreamId};

/// How long a frame may wait for others to be written with.
const AGE: Duration = Duration::from_micros(250);

/// As soon as this many bytes wait to be written, bodies wait too.
const FULL: usize = 1024 * 1024;

/// An end that lets this many bytes wait, whatever they are, does not read at all.
const STUFFED: usize = 64 * 1024 * 1024;

/// One connection.
pub(crate) struct Link {
    pub(crate) role: Role,
    /// What this end takes.
    pub(crate) ours: Limits,
    /// What the other end takes.
    pub(crate) theirs: Limits,
    pub(crate) runtime: Handle,
    /// A front's: how many requests the worker has and takes.
    pub(crate) seats: Arc<Seats>,
    state: Mutex<State>,
    writer: Mutex<Writer>,
    ended: watch::Sender<Option<Arc<Fault>>>,
}

#[expect(clippy::struct_excessive_bools, reason = "each is a fact by itself")]
pub(crate) struct State {
    pub(crate) outbox: Outbox,
    /// Bytes that wait, those among them that the writer has.
    queued: usize,
    /// Bytes that were ever queued.
    pushed: u64,
    pub(crate) slots: Vec<Slot>,
    free: Vec<u32>,
    pub(crate) live: usize,
    driver: Option<Waker>,
    /// The driver knows that there is something to write.
    scheduled: bool,
    /// When there was last nothing to write.
    turn: Instant,
    /// Streams that wait for room in the queue, each once.
    crowd: Vec<Arc<Stream>>,
    is_over: bool,
    /// Nobody will ask here any more.
    pub(crate) unwanted: bool,
    /// A front's: it has said that no request will come. A worker's: it was told so.
    pub(crate) last_request_sent: bool,
    /// A front's: streams that have begun and whose requests are not queued yet.
    opening: usize,
    /// A front's: with the last of those it is to say that no request will come.
    leave_due: bool,
    /// A worker's: it has asked for no more requests.
    pub(crate) leaving: bool,
    /// Pings under way, by number.
    pub(crate) pings: Vec<(u64, tokio::sync::oneshot::Sender<()>)>,
    pub(crate) next_ping: u64,
    /// A pong that waits for its turn.
    pub(crate) pong: Option<u64>,
}

impl State {
    /// Frees the slot of a stream, if it still has it.
    fn vacate(&mut self, stream: &Arc<Stream>, role: Role) {
        let slot = self.slots.get_mut(stream.id.slot as usize);
        let held = slot.and_then(|slot| slot.stream.take_if(|held| Arc::ptr_eq(held, stream)));
        if held.is_some() {
            self.live -= 1;
            if role == Role::Front {
                self.free.push(stream.id.slot);
            }
        }
    }

    /// Whether nothing waits to be written.
    pub(crate) fn is_written(&self) -> bool {
        self.queued == 0
    }
}

#[derive(Default)]
pub(crate) struct Slot {
    pub(crate) generation: u32,
    pub(crate) stream: Option<Arc<Stream>>,
}

pub(crate) type Sink = Pin<Box<dyn AsyncWrite + Send>>;

struct Writer {
    /// `None`: the connection has ended, and nothing is written any more.
    io: Option<Sink>,
    outbox: Outbox,
    written: u64,
}

/// Frames are written through this, so that several go out together.
pub(crate) struct Pushing<'a> {
    link: &'a Link,
    state: MutexGuard<'a, State>,
    /// With what was pushed its stream has ended.
    ended: bool,
}

impl Link {
    pub(crate) fn new(role: Role, io: Sink, ours: Limits, theirs: Limits, seats: Arc<Seats>) -> Arc<Self> {
        let state = State {
            outbox: Outbox::default(),
            queued: 0,
            pushed: 0,
            slots: Vec::new(),
            free: Vec::new(),
            live: 0,
            driver: None,
            scheduled: false,
            turn: Instant::now(),
            crowd: Vec::new(),
            is_over: false,
            unwanted: false,
            last_request_sent: false,
            opening: 0,
            leave_due: false,
            leaving: false,
            pings: Vec::new(),
            next_ping: 0,
            pong: None,
        };
        Arc::new(Self {
            role,
            ours,
            theirs,
            runtime: Handle::current(),
            seats,
            state: Mutex::new(state),
            writer: Mutex::new(Writer { io: Some(io), outbox: Outbox::default(), written: 0 }),
            ended: watch::Sender::new(None),
        })
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues frames. `None`: the connection has ended.
    pub(crate) fn push(&self) -> Option<Pushing<'_>> {
        let state = self.state();
        (!state.is_over).then(|| Pushing { link: self, state, ended: false })
    }

    /// Queues one frame that carries nothing.
    pub(crate) fn push_plain(&self, kind: FrameKind, flags: u8, stream: StreamId) {
        if let Some(mut pushing) = self.push() {
            pushing.frame(kind, flags, stream, |_| ());
            pushing.done();
        }
    }

    /// Ends a direction of a stream, or both, and tells the other end, all under one lock: a slot must not be taken again
    /// before the other end can know that it is free. Gives whether there was anything to end, which `change` says.
    pub(crate) fn conclude(
        &self,
        stream: &Arc<Stream>,
        change: impl FnOnce(&mut Inner) -> bool,
        tell: impl FnOnce(&mut Pushing<'_>),
    ) -> bool {
        let pushing = self.push();
        let ends = change(&mut stream.lock());
        if let Some(mut pushing) = pushing
            && ends
        {
            tell(&mut pushing);
            pushing.vacate(stream);
            pushing.done();
        }
        self.release(stream);
        ends
    }

    pub(crate) fn credit(&self, stream: &Stream, count: u32) {
        if count == 0 {
            return;
        }
        if let Some(mut pushing) = self.push() {
            pushing.frame(FrameKind::Credit, 0, stream.id, |out| out.extend_from_slice(&count.to_le_bytes()));
            pushing.done();
        }
    }

    /// The stream that a frame is about. `None`: it is late.
    pub(crate) fn stream(&self, id: StreamId) -> Result<Option<Arc<Stream>>, Fault> {
        let state = self.state();
        let slot = state.slots.get(id.slot as usize);
        let slot = slot.ok_or_else(|| Fault::broken("a frame is about a stream that never was"))?;
        match slot.generation.wrapping_sub(id.generation) {
            0 => Ok(slot.stream.clone()),
            1..0x8000_0000 => Ok(None),
            _ => Err(Fault::broken("a frame is about a stream that is not yet")),
        }
    }

    /// Lets go of a stream that has ended in both directions.
    pub(crate) fn release(&self, stream: &Arc<Stream>) {
        let (seat, wakers) = {
            let mut inner = stream.lock();
            if !inner.is_over() {
                return;
            }
            (inner.seat.take(), [inner.giver.take(), inner.reader.take()])
        };
        let driver = {
            let mut state = self.state();
            state.vacate(stream, self.role);
            let idle = state.live == 0 && (state.unwanted || state.leaving);
            if idle { state.driver.clone() } else { None }
        };
        drop(seat);
        wakers.into_iter().for_each(wake);
        wake(driver);
    }

    /// Takes back a stream of which the other end was told nothing.
    pub(crate) fn forget(&self, stream: &Arc<Stream>) {
        {
            let mut inner = stream.lock();
            inner.receiving = false;
            inner.sending = false;
        }
        self.release(stream);
    }

    /// A front's: nobody will ask any more. Gives whom to wake.
    pub(crate) fn retire(&self) -> Option<Waker> {
        let mut state = self.state();
        state.unwanted = true;
        state.driver.clone()
    }

    /// A worker's: asks for no more requests.
    pub(crate) fn leave(&self) {
        if let Some(mut pushing) = self.push()
            && !std::mem::replace(&mut pushing.state().leaving, true)
        {
            pushing.frame(FrameKind::Leave, 0, StreamId::CONNECTION, |_| ());
            pushing.done();
        }
    }

    /// Ends the connection: every stream fails at once.
    pub(crate) fn end(&self, fault: Fault) {
        let fault = Arc::new(fault);
        let (streams, crowd, driver, written) = {
            // Nothing is written from here on: what was not, the other end cannot have seen.
            let mut writer = self.writer();
            let mut state = self.state();
            if std::mem::replace(&mut state.is_over, true) {
                return;
            }
            writer.io = None;
            writer.outbox = Outbox::default();
            state.outbox = Outbox::default();
            state.queued = 0;
            state.pings.clear();
            state.live = 0;
            let streams: Vec<_> = state.slots.iter_mut().filter_map(|slot| slot.stream.take()).collect();
            (streams, std::mem::take(&mut state.crowd), state.driver.take(), writer.written)
        };
        self.ended.send_replace(Some(fault.clone()));
        self.seats.close();
        for stream in streams {
            let (wakers, call, seat) = {
                let mut inner = stream.lock();
                let unsent = inner.request_end > written;
                let lost = End::Lost { error: fault.failure(), unsent };
                let reader = inner.receive_end(lost);
                ([reader, inner.stop_sending()], inner.call.take(), inner.seat.take())
            };
            if let Some(call) = call {
                call.abort();
            }
            drop(seat);
            wakers.into_iter().for_each(wake);
        }
        drop(crowd);
        wake(driver);
    }

    /// Why it has ended, if it has.
    pub(crate) fn fault(&self) -> Option<Arc<Fault>> {
        self.ended.borrow().clone()
    }

    /// Why it has ended, once it has.
    pub(crate) async fn ended(&self) -> Arc<Fault> {
        let mut ended = self.ended.subscribe();
        let ended = ended.wait_for(Option::is_some).await.ok().and_then(|fault| fault.clone());
        ended.unwrap_or_else(|| Arc::new(Fault::Closed))
    }

    /// The driver's part: notes whom to wake.
    pub(crate) fn drive(&self, cx: &Context<'_>) {
        let mut state = self.state();
        match &mut state.driver {
            Some(waker) => waker.clone_from(cx.waker()),
            None => state.driver = Some(cx.waker().clone()),
        }
        if state.queued == 0 {
            state.turn = Instant::now();
        }
    }

    /// Whether something is to be written, and whether it has waited long enough.
    pub(crate) fn waiting(&self) -> Option<bool> {
        let mut state = self.state();
        if state.queued == 0 {
            state.scheduled = false;
            return None;
        }
        Some(state.turn.elapsed() >= AGE)
    }

    /// Writes what waits. Pending: the socket takes no more now.
    pub(crate) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.state().scheduled = false;
        self.write(&mut self.writer(), cx)
    }

    /// Shuts the socket down for writing.
    pub(crate) fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.writer().io {
            Some(io) => io.as_mut().poll_shutdown(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    fn write(&self, writer: &mut Writer, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let Writer { io: Some(io), outbox, written } = &mut *writer else {
                return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
            };
            if outbox.is_empty() {
                let mut state = self.state();
                if state.outbox.is_empty() {
                    state.turn = Instant::now();
                    return io.as_mut().poll_flush(cx);
                }
                outbox.take_from(&mut state.outbox);
                state.pong = None;
            }
            let before = outbox.queued();
            let outcome = outbox.poll_write(io.as_mut(), cx, written);
            self.wrote(before - writer.outbox.queued());
            match outcome {
                Poll::Ready(Ok(())) => {}
                other => return other,
            }
        }
    }

    fn wrote(&self, count: usize) {
        let mut state = self.state();
        state.queued -= count;
        let crowd = if state.queued < FULL / 2 { std::mem::take(&mut state.crowd) } else { Vec::new() };
        drop(state);
        for stream in crowd {
            let giver = {
                let mut inner = stream.lock();
                inner.crowded = false;
                inner.giver.take()
            };
            wake(giver);
        }
    }

    /// Writes from outside of the driver, so that nothing waits for one who takes long.
    fn write_now(&self, driver: &Waker) {
        let Ok(mut writer) = self.writer.try_lock() else { return driver.wake_by_ref() };
        // What fails or blocks here does so for the driver too, who will see to it.
        if !matches!(self.write(&mut writer, &mut Context::from_waker(driver)), Poll::Ready(Ok(()))) {
            drop(writer);
            driver.wake_by_ref();
        }
    }
}

impl Pushing<'_> {
    pub(crate) fn state(&mut self) -> &mut State {
        &mut self.state
    }

    /// Whether bodies may be sent now; else who gives to the stream is woken when they may.
    pub(crate) fn has_room(&mut self, stream: &Arc<Stream>, inner: &mut Inner) -> bool {
        if self.state.queued < FULL {
            return true;
        }
        if !std::mem::replace(&mut inner.crowded, true) {
            self.state.crowd.push(stream.clone());
        }
        false
    }

    /// A frame whose payload is written here. `false`: it is longer than the other end takes, and is not sent.
    pub(crate) fn frame(
        &mut self,
        kind: FrameKind,
        flags: u8,
        stream: StreamId,
        put: impl FnOnce(&mut Vec<u8>),
    ) -> bool {
        let most = self.link.theirs.head as usize;
        let before = self.state.outbox.queued();
        let fits = self.state.outbox.join(|joined| {
            let start = joined.len();
            joined.extend_from_slice(&[0; HEADER]);
            put(joined);
            let length = joined.len() - start - HEADER;
            if length > most {
                joined.truncate(start);
                return false;
            }
            let header = FrameHeader { length, kind, flags, stream }.encode();
            joined[start..start + HEADER].copy_from_slice(&header);
            true
        });
        let count = self.state.outbox.queued() - before;
        self.count(count);
        fits
    }

    /// Bytes of a body, no more than the other end takes at a time.
    pub(crate) fn data(&mut self, stream: StreamId, payload: Bytes, end: bool) {
        let flags = if end { END } else { 0 };
        let header = FrameHeader { length: payload.len(), kind: FrameKind::Data, flags, stream }.encode();
        let count = HEADER + payload.len();
        self.state.outbox.join(|joined| joined.extend_from_slice(&header));
        self.state.outbox.push(payload);
        self.count(count);
    }

    /// So many bytes of somebody else's buffers.
    pub(crate) fn copied(&mut self, stream: StreamId, payload: &[IoSlice<'_>], count: usize) {
        let header = FrameHeader { length: count, kind: FrameKind::Data, flags: 0, stream }.encode();
        self.state.outbox.join(|joined| {
            joined.extend_from_slice(&header);
            let mut left = count;
            for slice in payload {
                let part = slice.len().min(left);
                joined.extend_from_slice(&slice[..part]);
                left -= part;
            }
        });
        self.count(HEADER + count);
    }

    fn count(&mut self, count: usize) {
        self.state.queued += count;
        self.state.pushed += count as u64;
    }

    /// How many bytes were ever queued.
    pub(crate) fn position(&self) -> u64 {
        self.state.pushed
    }

    /// A place for a new stream. `None`: there is none.
    pub(crate) fn begin(&mut self, window: usize, credit: usize) -> Option<Arc<Stream>> {
        let state = &mut *self.state;
        if state.unwanted || state.last_request_sent {
            return None;
        }
        let index = match state.free.pop() {
            Some(slot) => slot,
            None => u32::try_from(state.slots.len()).ok().filter(|slot| *slot < self.link.theirs.streams)?,
        };
        if state.slots.len() <= index as usize {
            state.slots.push(Slot::default());
        }
        let slot = state.slots.get_mut(index as usize)?;
        slot.generation = slot.generation.wrapping_add(1);
        let id = StreamId { slot: index, generation: slot.generation };
        let stream = Arc::new(Stream::new(id, window, credit));
        slot.stream = Some(stream.clone());
        state.live += 1;
        state.opening += 1;
        Some(stream)
    }

    /// Frees the slot of a stream that has ended in both directions: with the frame that ends it, since the other end may
    /// take the slot as soon as it has that.
    pub(crate) fn vacate(&mut self, stream: &Arc<Stream>) {
        if stream.lock().is_over() {
            self.state.vacate(stream, self.link.role);
            self.ended = true;
        }
    }

    /// The request of a stream that has begun is queued, or never will be.
    pub(crate) fn opened(&mut self) {
        self.state.opening = self.state.opening.saturating_sub(1);
        if self.state.opening == 0 && std::mem::take(&mut self.state.leave_due) {
            self.frame(FrameKind::Leave, 0, StreamId::CONNECTION, |_| ());
        }
    }

    /// A front's: no request will come behind those that have begun.
    pub(crate) fn last_request(&mut self) {
        if std::mem::replace(&mut self.state.last_request_sent, true) {
            return;
        }
        self.state.leave_due = true;
        self.state.opening += 1;
        self.opened();
    }

    /// Has it written: together with what others push in this turn of the reactor, and at once where that takes long.
    pub(crate) fn done(self) {
        let Self { link, mut state, ended } = self;
        if state.queued > STUFFED {
            drop(state);
            return link.end(Fault::broken("it does not read"));
        }
        let Some(driver) = state.driver.clone() else { return };
        // Where this stream is all there is, nobody else will come.
        let others = state.live - usize::from(!ended && state.live > 0);
        if others == 0 || state.turn.elapsed() >= AGE {
            state.turn = Instant::now();
            drop(state);
            return link.write_now(&driver);
        }
        let known = std::mem::replace(&mut state.scheduled, true);
        drop(state);
        if !known {
            driver.wake();
        }
    }
}
