//! From bytes to messages, without input or output of its own.
//!
//! The decoder takes all the bytes it is given and keeps only what a message under way needs, so that the caller's read
//! buffer is empty whenever the connection is quiet. Every fault is found at the first byte that shows it.

use std::str;

use bytes::{Buf, Bytes};

use crate::config::{Config, Role};
use crate::deflate::{InflateError, Inflater};
use crate::error::ProtocolError;
use crate::frame::{FrameHeader, MAX_CONTROL, MAX_HEADER, Opcode};
use crate::mask::apply_mask;
use crate::message::{CloseCode, CloseFrame, Message, Utf8Bytes};
use crate::utf8::{InvalidUtf8, Utf8Validator};

/// How many bytes of payload are believed at once: what a header announces beyond them is allocated as it arrives.
const FIRST_ALLOCATION: usize = 64 * 1024;

/// Compressed payload is unmasked in pieces of this many bytes.
const PIECE: usize = 2048;

/// Reads frames and joins them to messages.
///
/// ```
/// use hawksbill_websocket::{Config, Decoder, Message, Role};
///
/// let mut decoder = Decoder::new(Role::Server, &Config::default());
/// // "Hello" in one masked frame (RFC 6455 section 5.7), which arrives in two pieces.
/// let mut piece = &[0x81, 0x85, 0x37, 0xFA, 0x21, 0x3D, 0x7F][..];
/// assert_eq!(decoder.decode(&mut piece)?, None);
/// let mut piece = &[0x9F, 0x4D, 0x51, 0x58][..];
/// assert_eq!(decoder.decode(&mut piece)?, Some(Message::text("Hello")));
/// # Ok::<(), hawksbill_websocket::ProtocolError>(())
/// ```
pub struct Decoder {
    role: Role,
    max_message_size: usize,
    max_frame_size: usize,
    inflater: Option<Inflater>,
    header: [u8; MAX_HEADER],
    header_len: usize,
    frame: Option<Frame>,
    assembly: Option<Assembly>,
    control: Vec<u8>,
    end: Option<End>,
}

/// A frame whose payload is being read.
#[derive(Clone, Copy)]
struct Frame {
    header: FrameHeader,
    taken: u64,
}

/// A message under way.
struct Assembly {
    text: bool,
    compressed: bool,
    /// Whether the first frame is also the last: then the final size is known.
    single: bool,
    data: Vec<u8>,
    utf8: Utf8Validator,
}

/// Why nothing more is read.
#[derive(Clone, Copy)]
enum End {
    Closed,
    Failed(ProtocolError),
}

impl Decoder {
    /// A decoder for the endpoint that stands on `role`'s side: a server reads masked frames.
    pub fn new(role: Role, config: &Config) -> Self {
        let inflater = config.deflate.as_ref().map(|params| match role {
            Role::Server => Inflater::new(params.client_max_window_bits, !params.client_no_context_takeover),
            Role::Client => Inflater::new(params.server_max_window_bits, !params.server_no_context_takeover),
        });
        Self {
            role,
            max_message_size: config.max_message_size,
            max_frame_size: config.max_frame_size,
            inflater,
            header: [0; MAX_HEADER],
            header_len: 0,
            frame: None,
            assembly: None,
            control: Vec::new(),
            end: None,
        }
    }

    /// Takes bytes from `input` until a message is whole or the input is used up, which gives `None`.
    ///
    /// After a message, call again with what is left of the input. What follows a close frame is dropped.
    ///
    /// # Errors
    /// The first fault of the peer. It is final: every later call gives it again.
    pub fn decode(&mut self, input: &mut impl Buf) -> Result<Option<Message>, ProtocolError> {
        match self.end {
            Some(End::Failed(error)) => return Err(error),
            Some(End::Closed) => {
                input.advance(input.remaining());
                return Ok(None);
            }
            None => {}
        }
        let result = self.run(input);
        match &result {
            Err(error) => {
                self.end = Some(End::Failed(*error));
                self.assembly = None;
            }
            Ok(Some(Message::Close(_))) => {
                self.end = Some(End::Closed);
                self.assembly = None;
            }
            Ok(_) => {}
        }
        result
    }

    /// Whether the input may end here without cutting off a frame or a message.
    pub fn is_between_messages(&self) -> bool {
        self.header_len == 0 && self.frame.is_none() && self.assembly.is_none()
    }

    fn run(&mut self, input: &mut impl Buf) -> Result<Option<Message>, ProtocolError> {
        loop {
            let mut frame = match self.frame.take() {
                Some(frame) => frame,
                None => match self.read_header(input)? {
                    Some(header) => {
                        self.begin(&header)?;
                        Frame { header, taken: 0 }
                    }
                    None => return Ok(None),
                },
            };
            self.read_payload(&mut frame, input)?;
            if frame.taken < frame.header.len {
                self.frame = Some(frame);
                return Ok(None);
            }
            if let Some(message) = self.end_frame(&frame.header)? {
                return Ok(Some(message));
            }
        }
    }

    /// Collects a header, which may come byte by byte; `None` while it is not whole.
    fn read_header(&mut self, input: &mut impl Buf) -> Result<Option<FrameHeader>, ProtocolError> {
        let mut wanted = 2;
        loop {
            while self.header_len < wanted {
                if !input.has_remaining() {
                    return Ok(None);
                }
                self.header[self.header_len] = input.get_u8();
                self.header_len += 1;
            }
            if wanted == 2 {
                wanted = FrameHeader::encoded_len(self.header[1]);
            }
            if self.header_len == wanted {
                let header = FrameHeader::parse(&self.header[..wanted])?;
                self.header_len = 0;
                return Ok(Some(header));
            }
        }
    }

    /// Checks a header against the state of the connection, and begins a message where it is the first of one.
    fn begin(&mut self, header: &FrameHeader) -> Result<(), ProtocolError> {
        match (self.role, header.mask) {
            (Role::Server, None) => return Err(ProtocolError::UnmaskedFrame),
            (Role::Client, Some(_)) => return Err(ProtocolError::MaskedFrame),
            _ => {}
        }
        let starts_message = matches!(header.opcode, Opcode::Text | Opcode::Binary);
        if header.rsv1 && !(starts_message && self.inflater.is_some()) {
            return Err(ProtocolError::ReservedBits);
        }
        let len = usize::try_from(header.len).unwrap_or(usize::MAX);
        if header.opcode.is_control() {
            return match header {
                FrameHeader { fin: false, .. } => Err(ProtocolError::FragmentedControl),
                _ if len > MAX_CONTROL => Err(ProtocolError::ControlTooLong),
                _ => Ok(()),
            };
        }
        match (&self.assembly, starts_message) {
            (None, false) => return Err(ProtocolError::UnexpectedContinuation),
            (Some(_), true) => return Err(ProtocolError::ExpectedContinuation),
            _ => {}
        }
        if len > self.max_frame_size {
            return Err(ProtocolError::FrameTooBig { limit: self.max_frame_size });
        }
        let assembly = self.assembly.get_or_insert_with(|| Assembly {
            text: header.opcode == Opcode::Text,
            compressed: header.rsv1,
            single: header.fin,
            data: Vec::new(),
            utf8: Utf8Validator::default(),
        });
        if !assembly.compressed && assembly.data.len().saturating_add(len) > self.max_message_size {
            return Err(ProtocolError::MessageTooBig { limit: self.max_message_size });
        }
        Ok(())
    }

    /// Takes what there is of the frame's payload.
    fn read_payload(&mut self, frame: &mut Frame, input: &mut impl Buf) -> Result<(), ProtocolError> {
        while frame.taken < frame.header.len && input.has_remaining() {
            let left = usize::try_from(frame.header.len - frame.taken).unwrap_or(usize::MAX);
            let chunk = input.chunk();
            let mut take = chunk.len().min(left);
            let mask = frame.header.mask;
            match &mut self.assembly {
                Some(assembly) if !frame.header.opcode.is_control() => match &mut self.inflater {
                    Some(inflater) if assembly.compressed => {
                        take = take.min(PIECE);
                        let mut piece = [0; PIECE];
                        let piece = &mut piece[..take];
                        piece.copy_from_slice(&chunk[..take]);
                        unmask(piece, mask, frame.taken);
                        assembly.inflate(inflater, piece, self.max_message_size)?;
                    }
                    _ => assembly.append(&chunk[..take], left, mask, frame.taken, self.max_message_size)?,
                },
                _ => {
                    let start = self.control.len();
                    self.control.extend_from_slice(&chunk[..take]);
                    unmask(&mut self.control[start..], mask, frame.taken);
                }
            }
            input.advance(take);
            frame.taken += u64::try_from(take).unwrap_or(0);
        }
        Ok(())
    }

    /// What a frame whose payload is whole gives: a message, or nothing where fragments are to follow.
    fn end_frame(&mut self, header: &FrameHeader) -> Result<Option<Message>, ProtocolError> {
        if header.opcode.is_control() {
            let payload = Bytes::from(std::mem::take(&mut self.control));
            return Ok(Some(match header.opcode {
                Opcode::Ping => Message::Ping(payload),
                Opcode::Pong => Message::Pong(payload),
                _ => Message::Close(parse_close(payload)?),
            }));
        }
        if !header.fin {
            return Ok(None);
        }
        let Some(mut assembly) = self.assembly.take() else { return Ok(None) };
        if let Some(inflater) = self.inflater.as_mut().filter(|_| assembly.compressed) {
            assembly.finish_inflate(inflater, self.max_message_size)?;
        }
        assembly.into_message().map(Some)
    }
}

impl Assembly {
    /// Adds plain payload: `left` is how much the frame still announces, this piece included.
    fn append(
        &mut self,
        piece: &[u8],
        left: usize,
        mask: Option<[u8; 4]>,
        offset: u64,
        limit: usize,
    ) -> Result<(), ProtocolError> {
        let start = self.data.len();
        let needed = start + piece.len();
        if needed > self.data.capacity() {
            let announced = start.saturating_add(left);
            // Doubling keeps many small fragments cheap; a message of one frame ends up with its exact size.
            let doubled =
                needed.max(self.data.capacity().saturating_mul(2)).max(announced.min(FIRST_ALLOCATION));
            let target = doubled.min(if self.single { announced } else { limit.max(needed) });
            self.data.reserve_exact(target - start);
        }
        self.data.extend_from_slice(piece);
        unmask(&mut self.data[start..], mask, offset);
        self.check_text(start)
    }

    fn inflate(&mut self, inflater: &mut Inflater, piece: &[u8], limit: usize) -> Result<(), ProtocolError> {
        let start = self.data.len();
        let result = inflater.inflate(piece, &mut self.data, limit);
        // What came out before the fault comes first, so that the verdict does not depend on how the bytes arrived.
        self.check_text(start)?;
        result.map_err(|error| inflate_error(error, limit))
    }

    fn finish_inflate(&mut self, inflater: &mut Inflater, limit: usize) -> Result<(), ProtocolError> {
        let start = self.data.len();
        let result = inflater.finish(&mut self.data, limit);
        self.check_text(start)?;
        self.data.shrink_to_fit();
        result.map_err(|error| inflate_error(error, limit))
    }

    /// Checks what was added from `start` on.
    fn check_text(&mut self, start: usize) -> Result<(), ProtocolError> {
        if self.text {
            self.utf8.feed(&self.data[start..]).map_err(|InvalidUtf8| ProtocolError::InvalidUtf8)?;
        }
        Ok(())
    }

    fn into_message(self) -> Result<Message, ProtocolError> {
        let data = Bytes::from(self.data);
        if !self.text {
            return Ok(Message::Binary(data));
        }
        self.utf8.finish().map_err(|InvalidUtf8| ProtocolError::InvalidUtf8)?;
        Ok(Message::Text(Utf8Bytes::from_checked(data)))
    }
}

fn unmask(data: &mut [u8], mask: Option<[u8; 4]>, offset: u64) {
    if let Some(mask) = mask {
        apply_mask(data, mask, offset);
    }
}

fn inflate_error(error: InflateError, limit: usize) -> ProtocolError {
    match error {
        InflateError::Corrupt => ProtocolError::InvalidDeflate,
        InflateError::TooBig => ProtocolError::MessageTooBig { limit },
    }
}

/// The payload of a close frame (RFC 6455 section 5.5.1).
fn parse_close(payload: Bytes) -> Result<Option<CloseFrame>, ProtocolError> {
    let code = match payload.as_ref() {
        [] => return Ok(None),
        [_] => return Err(ProtocolError::TruncatedCloseCode),
        [high, low, ..] => CloseCode(u16::from_be_bytes([*high, *low])),
    };
    if !code.is_sendable() {
        return Err(ProtocolError::InvalidCloseCode(code.0));
    }
    let reason =
        Utf8Bytes::try_from(payload.slice(2..)).map_err(|_: str::Utf8Error| ProtocolError::InvalidUtf8)?;
    Ok(Some(CloseFrame { code, reason }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::extension::DeflateParams;

    fn client() -> Decoder {
        Decoder::new(Role::Client, &Config::default())
    }

    fn all(decoder: &mut Decoder, mut input: &[u8]) -> Result<Vec<Message>, ProtocolError> {
        let mut messages = Vec::new();
        while let Some(message) = decoder.decode(&mut input)? {
            messages.push(message);
        }
        assert!(input.is_empty());
        Ok(messages)
    }

    fn fails(input: &[u8]) -> ProtocolError {
        all(&mut client(), input).unwrap_err()
    }

    /// The examples of RFC 6455 section 5.7.
    #[test]
    fn examples_of_the_rfc() {
        let hello = Message::text("Hello");
        let hello = std::slice::from_ref(&hello);
        assert_eq!(all(&mut client(), b"\x81\x05Hello").unwrap(), hello);
        let masked = [0x81, 0x85, 0x37, 0xFA, 0x21, 0x3D, 0x7F, 0x9F, 0x4D, 0x51, 0x58];
        assert_eq!(all(&mut Decoder::new(Role::Server, &Config::default()), &masked).unwrap(), hello);
        assert_eq!(all(&mut client(), b"\x01\x03Hel\x80\x02lo").unwrap(), hello);
        assert_eq!(all(&mut client(), b"\x89\x05Hello").unwrap(), [Message::Ping("Hello".into())]);
        let pong = [0x8A, 0x85, 0x37, 0xFA, 0x21, 0x3D, 0x7F, 0x9F, 0x4D, 0x51, 0x58];
        assert_eq!(
            all(&mut Decoder::new(Role::Server, &Config::default()), &pong).unwrap(),
            [Message::Pong("Hello".into())]
        );
        let short = [&[0x82, 0x7E, 0x01, 0x00][..], &[7; 256]].concat();
        assert_eq!(all(&mut client(), &short).unwrap(), [Message::binary(vec![7; 256])]);
        let long = [&[0x82, 0x7F, 0, 0, 0, 0, 0, 1, 0, 0][..], &vec![7; 65536]].concat();
        assert_eq!(all(&mut client(), &long).unwrap(), [Message::binary(vec![7; 65536])]);
    }

    #[test]
    fn control_frames_come_between_fragments() {
        let messages = all(&mut client(), b"\x01\x01a\x89\x01p\x00\x01b\x8A\x00\x80\x01c").unwrap();
        assert_eq!(messages, [Message::Ping("p".into()), Message::Pong(Bytes::new()), Message::text("abc")]);
    }

    #[test]
    fn breaches_of_the_framing() {
        assert_eq!(fails(b"\xC1\x01a"), ProtocolError::ReservedBits);
        assert_eq!(fails(b"\x83\x00"), ProtocolError::ReservedOpcode(3));
        assert_eq!(fails(b"\x81\x81abcdx"), ProtocolError::MaskedFrame);
        assert_eq!(fails(b"\x09\x00"), ProtocolError::FragmentedControl);
        assert_eq!(fails(b"\x89\x7E\x00\x7E"), ProtocolError::ControlTooLong);
        assert_eq!(fails(b"\x80\x00"), ProtocolError::UnexpectedContinuation);
        assert_eq!(fails(b"\x01\x00\x81\x00"), ProtocolError::ExpectedContinuation);
        assert_eq!(fails(b"\x82\x7E\x00\x7D"), ProtocolError::NonMinimalLength);
        let mut server = Decoder::new(Role::Server, &Config::default());
        assert_eq!(all(&mut server, b"\x81\x01a"), Err(ProtocolError::UnmaskedFrame));
        // A fault is final.
        assert_eq!(all(&mut server, b"\x81\x81\0\0\0\0a"), Err(ProtocolError::UnmaskedFrame));
    }

    #[test]
    fn text_fails_at_its_first_wrong_byte() {
        // The frame announces a hundred bytes, and more fragments would follow.
        let mut decoder = client();
        assert_eq!(decoder.decode(&mut &b"\x01\x64ab\xE2\x82"[..]), Ok(None));
        assert_eq!(decoder.decode(&mut &b"\x20"[..]), Err(ProtocolError::InvalidUtf8));
        // A sequence may be cut by a fragment, not by the end.
        assert_eq!(all(&mut client(), b"\x01\x02\xE2\x82\x80\x01\xAC").unwrap(), [Message::text("€")]);
        assert_eq!(fails(b"\x01\x02\xE2\x82\x80\x00"), ProtocolError::InvalidUtf8);
        assert_eq!(all(&mut client(), b"\x82\x01\xFF").unwrap(), [Message::binary(&b"\xFF"[..])]);
    }

    #[test]
    fn close_frames() {
        assert_eq!(all(&mut client(), b"\x88\x00").unwrap(), [Message::Close(None)]);
        assert_eq!(all(&mut client(), b"\x88\x05\x03\xE8bye").unwrap(), [Message::close(1000, "bye")]);
        assert_eq!(fails(b"\x88\x01\x03"), ProtocolError::TruncatedCloseCode);
        assert_eq!(fails(b"\x88\x02\x03\xED"), ProtocolError::InvalidCloseCode(1005));
        assert_eq!(fails(b"\x88\x03\x03\xE8\xFF"), ProtocolError::InvalidUtf8);
        // What follows is dropped, even if it is wrong.
        assert_eq!(all(&mut client(), b"\x88\x00\xFF\xFF").unwrap(), [Message::Close(None)]);
    }

    #[test]
    fn limits_hold_before_anything_is_allocated() {
        let config = Config { max_message_size: 10, max_frame_size: 8, ..Config::default() };
        let decoder = || Decoder::new(Role::Client, &config);
        assert_eq!(all(&mut decoder(), b"\x82\x09"), Err(ProtocolError::FrameTooBig { limit: 8 }));
        let too_big = Err(ProtocolError::MessageTooBig { limit: 10 });
        assert_eq!(all(&mut decoder(), b"\x02\x08aaaaaaaa\x80\x03"), too_big);
        assert!(all(&mut decoder(), b"\x02\x08aaaaaaaa\x80\x02bb").is_ok());
        // Sixteen megabytes announced, one byte sent.
        let mut decoder = client();
        decoder.decode(&mut &b"\x82\x7F\0\0\0\0\x01\0\0\0a"[..]).unwrap();
        assert_eq!(decoder.assembly.unwrap().data.capacity(), FIRST_ALLOCATION);
    }

    #[test]
    fn a_message_of_one_frame_is_allocated_once_and_exactly() {
        let mut decoder = client();
        decoder.decode(&mut &b"\x82\x7E\x01\x00abc"[..]).unwrap();
        assert_eq!(decoder.assembly.as_ref().unwrap().data.capacity(), 256);
        assert!(!decoder.is_between_messages());
        let message = decoder.decode(&mut &[b'x'; 253][..]).unwrap();
        assert!(matches!(message, Some(Message::Binary(data)) if data.len() == 256));
        assert!(decoder.is_between_messages());
    }

    proptest! {
        /// Whatever headers announce and compression promises, no more is allocated than the limits allow.
        #[test]
        fn no_input_allocates_more_than_the_limit(
            frames in prop::collection::vec((0..4_usize, any::<u64>(), any::<Vec<u8>>()), 1..8), limit in 0..3000_usize,
        ) {
            let params = DeflateParams {
                server_no_context_takeover: true,
                client_no_context_takeover: true,
                server_max_window_bits: 15,
                client_max_window_bits: 15,
                level: 6,
                threshold: 0,
            };
            let config = Config { max_message_size: limit, deflate: Some(params), ..Config::default() };
            let mut decoder = Decoder::new(Role::Client, &config);
            for (kind, len, payload) in frames {
                let mut input = vec![[0x02, 0x42, 0x00, 0x89][kind]];
                // A header that announces anything, or one that keeps its promise.
                if len % 4 == 0 {
                    input.push(127);
                    input.extend(len.to_be_bytes());
                } else {
                    input.push(u8::try_from(payload.len()).unwrap_or(125).min(125));
                }
                input.extend(payload.iter().take(125));
                let result = decoder.decode(&mut input.as_slice());
                let held = decoder.assembly.as_ref().map_or(0, |assembly| assembly.data.capacity());
                prop_assert!(held <= limit + 1, "{held} bytes held with a limit of {limit}");
                prop_assert!(decoder.control.capacity() <= MAX_CONTROL);
                if result.is_err() {
                    break;
                }
            }
        }
    }

    #[test]
    fn an_idle_decoder_is_small() {
        assert!(size_of::<Decoder>() <= 320, "{}", size_of::<Decoder>());
    }
}
