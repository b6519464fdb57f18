//! Frames on their way out: small ones joined in one buffer, large payloads as they are, all in few system calls.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::AsyncWrite;

/// Payloads from this length on are written from where they are.
const LARGE: usize = 4 * 1024;

/// Slices of one vectored write.
const SLICES: usize = 64;

/// What an empty buffer keeps of its memory.
const KEPT: usize = 64 * 1024;

/// A part of what is to be written.
enum Piece {
    /// So many of the joined bytes.
    Joined(usize),
    Large(Bytes),
}

/// A queue of bytes.
#[derive(Default)]
pub(crate) struct Outbox {
    joined: Vec<u8>,
    /// Where in `joined` the first piece begins.
    start: usize,
    pieces: VecDeque<Piece>,
    /// How much of a large first piece is written.
    written: usize,
    queued: usize,
}

impl Outbox {
    pub(crate) fn is_empty(&self) -> bool {
        self.queued == 0
    }

    /// Bytes that wait.
    pub(crate) fn queued(&self) -> usize {
        self.queued
    }

    /// Joins what a function writes, and says how long it is.
    pub(crate) fn join<T>(&mut self, put: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        let before = self.joined.len();
        let done = put(&mut self.joined);
        self.account(before);
        done
    }

    /// Notes what was joined, or taken back, since the buffer was that long.
    fn account(&mut self, before: usize) {
        let count = self.joined.len().saturating_sub(before);
        if count == 0 {
            return;
        }
        self.queued += count;
        match self.pieces.back_mut() {
            Some(Piece::Joined(length)) => *length += count,
            _ => self.pieces.push_back(Piece::Joined(count)),
        }
    }

    /// Bytes that are copied where they are few.
    pub(crate) fn push(&mut self, payload: Bytes) {
        if payload.len() < LARGE {
            self.join(|joined| joined.extend_from_slice(&payload));
        } else {
            self.queued += payload.len();
            self.pieces.push_back(Piece::Large(payload));
        }
    }

    /// Takes everything from another one, whose memory is used on.
    pub(crate) fn take_from(&mut self, other: &mut Self) {
        debug_assert!(self.is_empty(), "what is half written stays first");
        std::mem::swap(self, other);
        other.clear();
    }

    fn clear(&mut self) {
        self.joined.clear();
        self.joined.shrink_to(KEPT);
        self.start = 0;
        self.pieces.clear();
        self.written = 0;
        self.queued = 0;
    }

    /// Writes until all is written or the socket takes no more; adds up how much that was.
    pub(crate) fn poll_write<W>(
        &mut self,
        mut io: Pin<&mut W>,
        cx: &mut Context<'_>,
        total: &mut u64,
    ) -> Poll<io::Result<()>>
    where
        W: AsyncWrite + ?Sized,
    {
        while !self.is_empty() {
            let count = ready!(self.poll_write_some(io.as_mut(), cx))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            *total += count as u64;
            self.advance(count);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write_some<W>(&self, io: Pin<&mut W>, cx: &mut Context<'_>) -> Poll<io::Result<usize>>
    where
        W: AsyncWrite + ?Sized,
    {
        if self.pieces.len() == 1 || !io.is_write_vectored() {
            return io.poll_write(cx, self.slices().next().unwrap_or_default());
        }
        let mut slices = [IoSlice::new(&[]); SLICES];
        let mut count = 0;
        for (place, slice) in slices.iter_mut().zip(self.slices()) {
            *place = IoSlice::new(slice);
            count += 1;
        }
        io.poll_write_vectored(cx, &slices[..count])
    }

    fn slices(&self) -> impl Iterator<Item = &[u8]> {
        let mut start = self.start;
        let mut written = self.written;
        self.pieces.iter().map(move |piece| match piece {
            Piece::Joined(length) => {
                let slice = &self.joined[start..start + length];
                start += length;
                slice
            }
            Piece::Large(bytes) => &bytes[std::mem::take(&mut written)..],
        })
    }

    fn advance(&mut self, mut count: usize) {
        self.queued -= count;
        if self.queued == 0 {
            return self.clear();
        }
        while count > 0 {
            let left = match self.pieces.front_mut() {
                Some(Piece::Joined(length)) if *length > count => {
                    *length -= count;
                    self.start += count;
                    return;
                }
                Some(Piece::Large(bytes)) if bytes.len() - self.written > count => {
                    self.written += count;
                    return;
                }
                Some(Piece::Joined(length)) => {
                    self.start += *length;
                    *length
                }
                Some(Piece::Large(bytes)) => bytes.len() - std::mem::take(&mut self.written),
                None => return,
            };
            count -= left;
            self.pieces.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::task::Waker;

    /// Takes a few bytes at a time.
    struct Narrow {
        taken: Vec<u8>,
        width: usize,
        vectored: bool,
    }

    impl AsyncWrite for Narrow {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            let count = buf.len().min(self.width);
            self.taken.extend_from_slice(&buf[..count]);
            Poll::Ready(Ok(count))
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bufs: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let mut left = self.width;
            for buf in bufs {
                let count = buf.len().min(left);
                self.taken.extend_from_slice(&buf[..count]);
                left -= count;
            }
            let count = self.width - left;
            Poll::Ready(Ok(count))
        }

        fn is_write_vectored(&self) -> bool {
            self.vectored
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out(lengths in proptest::collection::vec(1_usize..9000, 0..40), width in 1_usize..20_000, vectored: bool) {
            let mut io = Narrow { taken: Vec::new(), width, vectored };
            let (mut front, mut back) = (Outbox::default(), Outbox::default());
            let mut expected = Vec::new();
            for (number, length) in lengths.iter().enumerate() {
                let payload = vec![u8::try_from(number).unwrap(); *length];
                expected.extend_from_slice(&payload);
                back.push(payload.into());
            }
            prop_assert_eq!(back.queued(), expected.len());
            front.take_from(&mut back);
            let mut total = 0;
            let written = front.poll_write(Pin::new(&mut io), &mut Context::from_waker(Waker::noop()), &mut total);
            prop_assert!(matches!(written, Poll::Ready(Ok(()))));
            prop_assert_eq!(total, expected.len() as u64);
            prop_assert_eq!(&io.taken, &expected);
            prop_assert!(front.is_empty() && back.is_empty());
        }
    }
}
