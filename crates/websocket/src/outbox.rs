//! Frames that wait to be written, many of them in one system call.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

use crate::frame::Frame;

/// Slices of one vectored write: half as many frames.
const SLICES: usize = 64;

/// Frames are copied together up to this many bytes where the transport takes only one slice, as TLS does.
const GATHER: usize = 4096;

/// How many places an empty queue keeps.
const KEPT: usize = 4;

/// The queue of one connection.
#[derive(Default)]
pub(crate) struct Outbox {
    frames: VecDeque<Frame>,
    /// How much of the first frame, header included, is already written.
    written: usize,
    queued: usize,
    unflushed: bool,
}

impl Outbox {
    pub(crate) fn push(&mut self, frame: Frame) {
        self.queued += frame.wire_len();
        self.frames.push_back(frame);
    }

    /// Bytes that wait.
    pub(crate) const fn queued(&self) -> usize {
        self.queued
    }

    /// Drops everything: the connection is lost.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Writes all that waits, and flushes the transport.
    pub(crate) fn poll_flush<S>(&mut self, io: &mut S, cx: &mut Context<'_>) -> Poll<io::Result<()>>
    where
        S: AsyncWrite + Unpin,
    {
        while !self.frames.is_empty() {
            self.unflushed = true;
            let count = ready!(self.poll_write(io, cx))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(count);
        }
        if self.unflushed {
            ready!(Pin::new(io).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write<S>(&self, io: &mut S, cx: &mut Context<'_>) -> Poll<io::Result<usize>>
    where
        S: AsyncWrite + Unpin,
    {
        if io.is_write_vectored() {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let mut count = 0;
            for (slot, slice) in slices.iter_mut().zip(self.slices()) {
                *slot = IoSlice::new(slice);
                count += 1;
            }
            return Pin::new(io).poll_write_vectored(cx, &slices[..count]);
        }
        let first = self.slices().next().unwrap_or_default();
        if first.len() >= GATHER {
            return Pin::new(io).poll_write(cx, first);
        }
        let mut gathered = [0; GATHER];
        let mut len = 0;
        for slice in self.slices() {
            let take = slice.len().min(GATHER - len);
            gathered[len..len + take].copy_from_slice(&slice[..take]);
            len += take;
            if len == GATHER {
                break;
            }
        }
        Pin::new(io).poll_write(cx, &gathered[..len])
    }

    /// What waits, in order and without empty slices.
    fn slices(&self) -> impl Iterator<Item = &[u8]> {
        let mut skip = self.written;
        let slices = self.frames.iter().flat_map(|frame| [frame.header(), frame.payload().as_ref()]);
        slices.filter_map(move |slice| {
            let cut = skip.min(slice.len());
            skip -= cut;
            Some(&slice[cut..]).filter(|slice| !slice.is_empty())
        })
    }

    fn advance(&mut self, count: usize) {
        self.queued = self.queued.saturating_sub(count);
        self.written += count;
        while let Some(frame) = self.frames.front() {
            let len = frame.wire_len();
            if self.written < len {
                return;
            }
            self.written -= len;
            self.frames.pop_front();
        }
        self.frames.shrink_to(KEPT);
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::frame::Opcode;

    /// A transport that takes a few bytes at a time, then none, in turns.
    struct Narrow {
        taken: Vec<u8>,
        step: usize,
        vectored: bool,
        open: bool,
        calls: usize,
    }

    impl AsyncWrite for Narrow {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
            self.open = !self.open;
            if !self.open {
                return Poll::Pending;
            }
            self.calls += 1;
            let count = data.len().min(self.step);
            self.taken.extend_from_slice(&data[..count]);
            Poll::Ready(Ok(count))
        }

        fn poll_write_vectored(
            self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            slices: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let all: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
            self.poll_write(cx, &all)
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

    fn write_all(sizes: &[usize], step: usize, vectored: bool) -> (Vec<u8>, Vec<u8>, usize) {
        let mut outbox = Outbox::default();
        let mut expected = Vec::new();
        for (i, size) in sizes.iter().enumerate() {
            let payload = Bytes::from(vec![u8::try_from(i % 256).unwrap(); *size]);
            let frame = Frame::new(Opcode::Binary, false, None, payload);
            expected.extend(frame.to_vec());
            outbox.push(frame);
        }
        assert_eq!(outbox.queued(), expected.len());
        let mut io = Narrow { taken: Vec::new(), step, vectored, open: false, calls: 0 };
        let mut cx = Context::from_waker(Waker::noop());
        while outbox.poll_flush(&mut io, &mut cx).is_pending() {}
        assert_eq!(outbox.queued(), 0);
        (io.taken, expected, io.calls)
    }

    #[test]
    fn eight_small_messages_leave_in_one_write() {
        for vectored in [true, false] {
            let (_, _, calls) = write_all(&[64; 8], usize::MAX, vectored);
            assert_eq!(calls, 1, "{vectored}");
        }
    }

    proptest! {
        #[test]
        fn bytes_keep_their_order(
            sizes in prop::collection::vec(prop_oneof![0..40_usize, 0..5000_usize], 0..40), step in 1000..20_000_usize, vectored: bool,
        ) {
            let (taken, expected, _) = write_all(&sizes, step, vectored);
            prop_assert!(taken == expected);
        }
    }
}
