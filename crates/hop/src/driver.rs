//! The task of a connection: reads frames and hands them out, writes what the others have queued.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use hawksbill_core::{Error, Kind};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::Fault;
use crate::link::Link;
use crate::stream::{End, Inner, Refused, Stream, wake};
use crate::wire::{END, Failure, FrameHeader, FrameKind, HEADER, Role, decode_trailers};

/// How much is read at a time.
const READ: usize = 64 * 1024;

/// Payloads from this length on stay in the buffer they were read into: it is never more than four times their size.
const LARGE: usize = READ / 4;

/// How many reads before others get their turn.
const ROUNDS: usize = 8;

/// The reading half of a connection.
pub(crate) type Source = Pin<Box<dyn AsyncRead + Send>>;

/// What only one of the two ends does.
pub(crate) trait Receiver: Unpin {
    /// Takes a frame of a kind that only the other role sends.
    fn frame(&mut self, link: &Arc<Link>, header: &FrameHeader, payload: Bytes) -> Result<(), Fault>;
}

/// The future that keeps a connection going. It ends with the connection, which ends where it is dropped.
pub(crate) struct Driver<R> {
    link: Arc<Link>,
    io: Source,
    buffer: BytesMut,
    /// What is queued waits for the others of this turn of the reactor.
    waits: bool,
    receiver: R,
}

impl<R: Receiver> Driver<R> {
    pub(crate) fn new(link: Arc<Link>, io: Source, receiver: R) -> Self {
        Self { link, io, buffer: BytesMut::new(), waits: false, receiver }
    }

    /// Reads and hands out what is there.
    fn read(&mut self, cx: &mut Context<'_>) -> Result<(), Fault> {
        for _ in 0..ROUNDS {
            let needed = self.hand_out()?;
            if self.buffer.is_empty() && self.buffer.capacity() > 4 * READ {
                self.buffer = BytesMut::new();
            }
            if self.buffer.capacity() - self.buffer.len() < needed.max(READ / 4) {
                self.buffer.reserve(needed.max(READ - self.buffer.len().min(READ / 2)));
            }
            match pin!(self.io.read_buf(&mut self.buffer)).poll(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(0)) => return Err(Fault::Ended),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Err(error.into()),
            }
        }
        self.hand_out()?;
        cx.waker().wake_by_ref();
        Ok(())
    }

    /// Hands out each frame that is complete. Gives how many bytes the next one lacks, where that is known.
    fn hand_out(&mut self) -> Result<usize, Fault> {
        let from = match self.link.role {
            Role::Front => Role::Worker,
            Role::Worker => Role::Front,
        };
        while let Some(header) = self.buffer.first_chunk::<HEADER>() {
            let header = FrameHeader::decode(*header, from, &self.link.ours)?;
            let whole = HEADER + header.length;
            if self.buffer.len() < whole {
                return Ok(whole - self.buffer.len());
            }
            self.buffer.advance(HEADER);
            let payload = if header.length >= LARGE {
                self.buffer.split_to(header.length).freeze()
            } else {
                // Small ones must not hold a whole buffer, however long they are kept.
                let payload = Bytes::copy_from_slice(&self.buffer[..header.length]);
                self.buffer.advance(header.length);
                payload
            };
            self.frame(&header, payload)?;
        }
        Ok(0)
    }

    fn frame(&mut self, header: &FrameHeader, payload: Bytes) -> Result<(), Fault> {
        match header.kind {
            FrameKind::Ping => self.ping(&payload),
            FrameKind::Pong => self.pong(&payload),
            FrameKind::Data | FrameKind::Trailers | FrameKind::Fail | FrameKind::Stop | FrameKind::Credit => {
                let Some(stream) = self.link.stream(header.stream)? else { return Ok(()) };
                self.stream_frame(header, payload, &stream)
            }
            _ => self.receiver.frame(&self.link, header, payload),
        }
    }

    fn ping(&self, payload: &[u8]) -> Result<(), Fault> {
        let number = number(payload)?;
        if let Some(mut pushing) = self.link.push() {
            // Who sends pings and does not read gets the answer to the last one alone.
            if pushing.state().pong.replace(number).is_none() {
                pushing.frame(FrameKind::Pong, 0, crate::wire::StreamId::CONNECTION, |out| {
                    out.extend_from_slice(&number.to_le_bytes());
                });
            }
            pushing.done();
        }
        Ok(())
    }

    fn pong(&self, payload: &[u8]) -> Result<(), Fault> {
        let number = number(payload)?;
        let answered: Vec<_> = self.link.state().pings.extract_if(.., |ping| ping.0 <= number).collect();
        for (_, ping) in answered {
            ping.send(()).ok();
        }
        Ok(())
    }

    fn stream_frame(&self, header: &FrameHeader, payload: Bytes, stream: &Arc<Stream>) -> Result<(), Fault> {
        let ends = match header.kind {
            FrameKind::Data => return self.data(header, payload, stream),
            FrameKind::Credit => return credit(&payload, stream),
            FrameKind::Stop => {
                let giver = stream.lock().stop_sending();
                wake(giver);
                self.link.release(stream);
                return Ok(());
            }
            FrameKind::Trailers => End::Trailers(decode_trailers(&payload)?),
            _ => End::Failed(Failure::decode(&payload)?.0),
        };
        let reader = stream.lock().receive_end(ends);
        self.link.release(stream);
        wake(reader);
        Ok(())
    }

    fn data(&self, header: &FrameHeader, payload: Bytes, stream: &Arc<Stream>) -> Result<(), Fault> {
        let mut inner = stream.lock();
        let reader = match inner.receive(payload) {
            Ok(reader) if header.has(END) => {
                let at_end = inner.receive_end(End::Clean);
                reader.or(at_end)
            }
            Ok(reader) => reader,
            Err(Refused::Broken(rule)) => return Err(Fault::broken(rule)),
            Err(Refused::Stream(why)) => {
                drop(inner);
                self.refuse(stream, why);
                return Ok(());
            }
        };
        let over = inner.is_over();
        drop(inner);
        if over {
            self.link.release(stream);
        }
        wake(reader);
        Ok(())
    }

    /// Takes no more of a stream that is wrong by itself.
    fn refuse(&self, stream: &Arc<Stream>, why: &'static str) {
        let mut reader = None;
        let change = |inner: &mut Inner| {
            inner.deaf = true;
            let error = Error::new(Kind::BadGateway).because(why);
            reader = inner.receive_end(End::Failed(error));
            true
        };
        self.link.conclude(stream, change, |pushing| {
            pushing.frame(FrameKind::Stop, 0, stream.id, |_| ());
        });
        wake(reader);
    }

    /// Writes what waits, together with what others queue in this turn of the reactor.
    fn write(&mut self, cx: &mut Context<'_>) -> Result<(), Fault> {
        let Some(late) = self.link.waiting() else {
            self.waits = false;
            return Ok(());
        };
        if !late && !self.waits {
            self.waits = true;
            // Wakes this task once the reactor was asked, or the others have had their turn.
            if pin!(tokio::task::yield_now()).poll(cx).is_pending() {
                return Ok(());
            }
        }
        self.waits = false;
        match self.link.poll_flush(cx) {
            Poll::Ready(written) => written.map_err(Fault::from),
            Poll::Pending => Ok(()),
        }
    }

    /// A worker that has said that it leaves, and has finished, is not lost.
    fn seen_in_order(&self, fault: Fault) -> Fault {
        let state = self.link.state();
        let left = state.last_request_sent && state.live == 0;
        if left && matches!(fault, Fault::Ended) { Fault::Closed } else { fault }
    }

    /// Whether the connection ends in good order: nobody needs it, and all is said.
    fn is_done(&self) -> bool {
        let state = self.link.state();
        let wanted = match self.link.role {
            Role::Front => !state.unwanted,
            Role::Worker => !state.leaving || !state.last_request_sent,
        };
        !wanted && state.live == 0 && state.is_written()
    }
}

impl<R: Receiver> Future for Driver<R> {
    type Output = Arc<Fault>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Arc<Fault>> {
        self.link.drive(cx);
        let this = &mut *self;
        if let Err(fault) = this.read(cx).and_then(|()| this.write(cx)) {
            this.link.end(this.seen_in_order(fault));
        } else if this.is_done() {
            ready!(this.link.poll_shutdown(cx)).ok();
            this.link.end(Fault::Closed);
        }
        match this.link.fault() {
            Some(fault) => Poll::Ready(fault),
            None => Poll::Pending,
        }
    }
}

impl<R> Drop for Driver<R> {
    fn drop(&mut self) {
        self.link.end(Fault::Closed);
    }
}

fn credit(payload: &[u8], stream: &Stream) -> Result<(), Fault> {
    let count = payload.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
    let giver = {
        let mut inner = stream.lock();
        let credit = inner.credit.checked_add(count as usize).filter(|credit| *credit <= 1 << 30);
        inner.credit = credit.ok_or_else(|| Fault::broken("it gave more credit than there can be"))?;
        inner.giver.take()
    };
    wake(giver);
    Ok(())
}

fn number(payload: &[u8]) -> Result<u64, Fault> {
    let bytes = payload.first_chunk().ok_or_else(|| Fault::broken("a ping has no number"))?;
    Ok(u64::from_le_bytes(*bytes))
}
