//! Compressing and inflating messages (RFC 7692 section 7.2), each connection holding no more state than was agreed.
//!
//! A compressor takes about 270 KB and an inflater about 40 KB at the widest window. Where a direction was negotiated
//! without context takeover, nothing must be remembered between its messages, so the state is borrowed from a small
//! pool of the thread for as long as one message takes. With context takeover it is made at the first message.

use std::cell::RefCell;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// What a sync flush ends with and the sender strips (RFC 7692 section 7.2.1).
const TAIL: [u8; 4] = [0x00, 0x00, 0xFF, 0xFF];

/// How many idle compressors, and inflaters, a thread keeps.
const POOLED: usize = 4;

/// The window that pooled states have: every other fits into it when inflating.
const WIDEST: u8 = 15;

thread_local! {
    static COMPRESSORS: RefCell<Vec<(u32, u8, Compress)>> = const { RefCell::new(Vec::new()) };
    static INFLATERS: RefCell<Vec<Decompress>> = const { RefCell::new(Vec::new()) };
}

/// Why a compressed message was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InflateError {
    /// Not DEFLATE data.
    Corrupt,
    /// More bytes come out than the message may have.
    TooBig,
}

/// Compresses whole messages.
pub(crate) struct Deflater {
    level: u32,
    window_bits: u8,
    context_takeover: bool,
    state: Option<Compress>,
}

impl Deflater {
    /// `level` is 0 to 9 and `window_bits` 9 to 15; values outside are brought inside.
    pub(crate) fn new(level: u32, window_bits: u8, context_takeover: bool) -> Self {
        Self { level: level.min(9), window_bits: window_bits.clamp(9, WIDEST), context_takeover, state: None }
    }

    /// The compressed payload, or `None` where compression gains nothing and the message should go out as it is.
    pub(crate) fn deflate(&mut self, input: &[u8]) -> Option<Vec<u8>> {
        let mut state = self.state.take().unwrap_or_else(|| self.borrow());
        let output = run_deflate(&mut state, input);
        let worthwhile = output.as_ref().is_some_and(|output| output.len() < input.len());
        if !self.context_takeover {
            self.give_back(state);
        } else if worthwhile {
            self.state = Some(state);
        } else {
            // The peer never sees these bytes, so nothing may refer back to them.
            state.reset();
            self.state = Some(state);
        }
        output.filter(|_| worthwhile)
    }

    /// Forgets what was sent, so that nothing later refers back beyond a message compressed elsewhere.
    pub(crate) fn forget(&mut self) {
        if let Some(state) = &mut self.state {
            state.reset();
        }
    }

    /// A deflater for messages that go to many connections alike, if this one's peer has the window for them.
    pub(crate) fn shareable(&self) -> Option<Self> {
        (self.window_bits == WIDEST).then(|| Self::new(self.level, WIDEST, false))
    }

    fn borrow(&self) -> Compress {
        let pooled = COMPRESSORS.with_borrow_mut(|pool| {
            let found =
                pool.iter().position(|(level, bits, _)| (*level, *bits) == (self.level, self.window_bits));
            found.map(|at| pool.swap_remove(at).2)
        });
        pooled.unwrap_or_else(|| {
            Compress::new_with_window_bits(Compression::new(self.level), false, self.window_bits)
        })
    }

    fn give_back(&self, mut state: Compress) {
        COMPRESSORS.with_borrow_mut(|pool| {
            if pool.len() < POOLED {
                state.reset();
                pool.push((self.level, self.window_bits, state));
            }
        });
    }
}

/// One message compressed, without its tail; `None` should the compressor refuse, which zlib never does here.
fn run_deflate(state: &mut Compress, input: &[u8]) -> Option<Vec<u8>> {
    let mut output = Vec::with_capacity(input.len() / 2 + 64);
    let start = state.total_in();
    loop {
        let taken = usize::try_from(state.total_in() - start).ok()?;
        state.compress_vec(input.get(taken..)?, &mut output, FlushCompress::Sync).ok()?;
        let taken = usize::try_from(state.total_in() - start).ok()?;
        // Room left over means that all was flushed. Little room could repeat the flush marker, hence the 64 bytes.
        if taken == input.len() && output.len() < output.capacity() {
            break;
        }
        output.reserve(output.capacity().max(64));
    }
    let len = output.len().checked_sub(TAIL.len())?;
    if output[len..] != TAIL {
        return None;
    }
    output.truncate(len);
    Some(output)
}

/// Inflates messages piece by piece.
pub(crate) struct Inflater {
    window_bits: u8,
    context_takeover: bool,
    state: Option<Decompress>,
    /// Whether this message held a final block: its stream ended, and what follows is a new one.
    ended: bool,
}

impl Inflater {
    /// `window_bits` is 8 to 15: the widest window that the peer compresses with.
    pub(crate) fn new(window_bits: u8, context_takeover: bool) -> Self {
        Self { window_bits: window_bits.clamp(9, WIDEST), context_takeover, state: None, ended: false }
    }

    /// Inflates the next piece of a message to the end of `output`, which never grows beyond `limit` and one byte.
    pub(crate) fn inflate(
        &mut self,
        mut input: &[u8],
        output: &mut Vec<u8>,
        limit: usize,
    ) -> Result<(), InflateError> {
        let Self { window_bits, context_takeover, .. } = *self;
        let state = self.state.get_or_insert_with(|| {
            let pooled = if context_takeover { None } else { INFLATERS.with_borrow_mut(Vec::pop) };
            let bits = if context_takeover { window_bits } else { WIDEST };
            pooled.unwrap_or_else(|| Decompress::new_with_window_bits(false, bits))
        });
        loop {
            if output.len() == output.capacity() {
                grow(output, input.len(), limit)?;
            }
            let before = state.total_in();
            let status = state
                .decompress_vec(input, output, FlushDecompress::Sync)
                .map_err(|_| InflateError::Corrupt)?;
            let taken = usize::try_from(state.total_in() - before).map_err(|_| InflateError::Corrupt)?;
            input = &input[taken.min(input.len())..];
            if output.len() > limit {
                return Err(InflateError::TooBig);
            }
            if status == Status::StreamEnd {
                // RFC 7692 section 7.2.3.4 lets a message have a final block; another stream may follow it.
                state.reset(false);
                self.ended = true;
                if input.is_empty() {
                    return Ok(());
                }
            } else if output.len() < output.capacity() {
                // Room is left, so all that could come out has; what was not taken now never will be.
                return if input.is_empty() { Ok(()) } else { Err(InflateError::Corrupt) };
            }
        }
    }

    /// Ends a message: puts back the tail that the sender stripped, and lets go of what need not be kept.
    pub(crate) fn finish(&mut self, output: &mut Vec<u8>, limit: usize) -> Result<(), InflateError> {
        self.inflate(&TAIL, output, limit)?;
        if self.ended {
            self.ended = false;
            if let Some(state) = &mut self.state {
                state.reset(false);
            }
        }
        if !self.context_takeover
            && let Some(mut state) = self.state.take()
        {
            INFLATERS.with_borrow_mut(|pool| {
                if pool.len() < POOLED {
                    state.reset(false);
                    pool.push(state);
                }
            });
        }
        Ok(())
    }
}

/// Makes room for more output: twice as much as there is, at least in proportion to the input, up to `limit` + 1.
fn grow(output: &mut Vec<u8>, input: usize, limit: usize) -> Result<(), InflateError> {
    let wanted = output.capacity().saturating_mul(2).max(input.saturating_mul(3)).max(128);
    let target = wanted.min(limit.saturating_add(1));
    match target.checked_sub(output.len()) {
        None | Some(0) => Err(InflateError::TooBig),
        Some(more) => {
            output.reserve_exact(more);
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn inflate(inflater: &mut Inflater, pieces: &[&[u8]], limit: usize) -> Result<Vec<u8>, InflateError> {
        let mut output = Vec::new();
        for piece in pieces {
            inflater.inflate(piece, &mut output, limit)?;
        }
        inflater.finish(&mut output, limit)?;
        Ok(output)
    }

    /// The examples of RFC 7692 section 7.2.3.
    #[test]
    fn examples_of_the_rfc() {
        let hello = b"Hello".to_vec();
        let mut inflater = Inflater::new(15, true);
        // 7.2.3.1 and 7.2.3.2: one block; then the same message again out of the window.
        let first = [0xF2, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00];
        assert_eq!(inflate(&mut inflater, &[&first], 5), Ok(hello.clone()));
        assert_eq!(inflate(&mut inflater, &[&[0xF2, 0x00, 0x11, 0x00, 0x00]], 5), Ok(hello.clone()));
        // 7.2.3.3: a stored block.
        let stored = [0x00, 0x05, 0x00, 0xFA, 0xFF, 0x48, 0x65, 0x6C, 0x6C, 0x6F, 0x00];
        assert_eq!(inflate(&mut inflater, &[&stored], 5), Ok(hello.clone()));
        // 7.2.3.4: a final block.
        let last = [0xF3, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00, 0x00];
        assert_eq!(inflate(&mut inflater, &[&last], 5), Ok(hello.clone()));
        assert_eq!(inflate(&mut inflater, &[&first], 5), Ok(hello.clone()));
        // 7.2.3.5: two blocks.
        let two = [0xF2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xFF, 0xFF, 0xCA, 0xC9, 0xC9, 0x07, 0x00];
        assert_eq!(inflate(&mut inflater, &[&two], 5), Ok(hello));
        // 7.2.3.6: nothing.
        assert_eq!(inflate(&mut inflater, &[&[0x00]], 5), Ok(Vec::new()));
    }

    #[test]
    fn without_takeover_the_window_is_forgotten() {
        let mut inflater = Inflater::new(15, false);
        let first = [0xF2, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00];
        assert!(inflate(&mut inflater, &[&first], 5).is_ok());
        assert_eq!(inflate(&mut inflater, &[&[0xF2, 0x00, 0x11, 0x00, 0x00]], 5), Err(InflateError::Corrupt));
    }

    #[test]
    fn a_bomb_stops_at_the_limit() {
        let bomb = Deflater::new(9, 15, false).deflate(&vec![0; 10_000_000]).unwrap();
        assert!(bomb.len() < 20_000);
        let mut output = Vec::new();
        let error = Inflater::new(15, false).inflate(&bomb, &mut output, 1000).unwrap_err();
        assert_eq!(error, InflateError::TooBig);
        assert!(output.capacity() <= 1001, "{}", output.capacity());
        // One below, and exactly at, what comes out.
        let payload = Deflater::new(9, 15, false).deflate(&[7; 1000]).unwrap();
        assert_eq!(inflate(&mut Inflater::new(15, false), &[&payload], 999), Err(InflateError::TooBig));
        assert_eq!(inflate(&mut Inflater::new(15, false), &[&payload], 1000), Ok(vec![7; 1000]));
    }

    #[test]
    fn a_context_makes_repetition_cheap_and_may_be_forgotten() {
        let text = b"it's turtles all the way down, said the old lady";
        let mut deflater = Deflater::new(6, 15, true);
        let mut inflater = Inflater::new(15, true);
        let first = deflater.deflate(text).unwrap();
        let second = deflater.deflate(text).unwrap();
        assert!(second.len() < first.len() / 2, "{} {}", first.len(), second.len());
        deflater.forget();
        let third = deflater.deflate(text).unwrap();
        assert_eq!(first, third);
        for payload in [first, second, third] {
            assert_eq!(inflate(&mut inflater, &[&payload], 100).unwrap(), text);
        }
    }

    #[test]
    fn what_does_not_shrink_is_left_alone() {
        let noise: Vec<u8> = (0..100_u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        let text = b"turtles turtles turtles turtles turtles";
        let mut deflater = Deflater::new(6, 15, true);
        let mut inflater = Inflater::new(15, true);
        for payload in [deflater.deflate(text), deflater.deflate(text)] {
            assert_eq!(inflate(&mut inflater, &[&payload.unwrap()], 100).unwrap(), text);
        }
        assert_eq!(deflater.deflate(&noise), None);
        assert_eq!(inflate(&mut inflater, &[&deflater.deflate(text).unwrap()], 100).unwrap(), text);
    }

    proptest! {
        #[test]
        fn round_trips(
            messages in prop::collection::vec(prop::collection::vec(0..4_u8, 20..5000), 1..6),
            level in 0..=9_u32, bits in 9..=15_u8, takeover: bool, piece in 1..700_usize,
        ) {
            let mut deflater = Deflater::new(level, bits, takeover);
            let mut inflater = Inflater::new(bits, takeover);
            for message in messages {
                if let Some(payload) = deflater.deflate(&message) {
                    let pieces: Vec<_> = payload.chunks(piece).collect();
                    prop_assert_eq!(inflate(&mut inflater, &pieces, message.len()), Ok(message));
                }
            }
        }

        #[test]
        fn arbitrary_bytes_neither_panic_nor_outgrow_the_limit(input: Vec<u8>, limit in 0..2000_usize, takeover: bool) {
            let mut inflater = Inflater::new(15, takeover);
            let mut output = Vec::new();
            let _ = inflater.inflate(&input, &mut output, limit).and_then(|()| inflater.finish(&mut output, limit));
            prop_assert!(output.capacity() <= limit + 1);
        }
    }
}
