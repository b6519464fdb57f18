//! The framing of RFC 6455 section 5.2: headers parsed and written, without regard to the state of a connection.

use bytes::Bytes;

use crate::error::ProtocolError;

/// The longest header: two bytes, a 64-bit length, a mask.
pub(crate) const MAX_HEADER: usize = 14;

/// The longest payload of a control frame in bytes (RFC 6455 section 5.5).
pub(crate) const MAX_CONTROL: usize = 125;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opcode {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

impl Opcode {
    const fn parse(bits: u8) -> Result<Self, ProtocolError> {
        Ok(match bits {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xA => Self::Pong,
            _ => return Err(ProtocolError::ReservedOpcode(bits)),
        })
    }

    const fn bits(self) -> u8 {
        match self {
            Self::Continuation => 0x0,
            Self::Text => 0x1,
            Self::Binary => 0x2,
            Self::Close => 0x8,
            Self::Ping => 0x9,
            Self::Pong => 0xA,
        }
    }

    pub(crate) const fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// A header as it was read or is to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) fin: bool,
    /// Compressed, where permessage-deflate was negotiated (RFC 7692 section 6).
    pub(crate) rsv1: bool,
    pub(crate) opcode: Opcode,
    pub(crate) mask: Option<[u8; 4]>,
    /// Bytes of payload; below 2⁶³.
    pub(crate) len: u64,
}

impl FrameHeader {
    /// How long the whole header is, told by its second byte.
    pub(crate) const fn encoded_len(second: u8) -> usize {
        let length = match second & 0x7F {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        2 + length + if second & 0x80 == 0 { 0 } else { 4 }
    }

    /// Parses a whole header of [`encoded_len`](Self::encoded_len) bytes.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, ProtocolError> {
        let (first, second, rest) = match bytes {
            [first, second, rest @ ..] => (*first, *second, rest),
            _ => return Err(ProtocolError::LengthOverflow),
        };
        if first & 0x30 != 0 {
            return Err(ProtocolError::ReservedBits);
        }
        let opcode = Opcode::parse(first & 0x0F)?;
        let (len, rest) = parse_length(second & 0x7F, rest)?;
        let mask = if second & 0x80 == 0 { None } else { rest.first_chunk().copied() };
        Ok(Self { fin: first & 0x80 != 0, rsv1: first & 0x40 != 0, opcode, mask, len })
    }

    /// The header's bytes.
    pub(crate) fn encode(&self) -> HeaderBytes {
        let mut out = HeaderBytes::default();
        let flags = if self.fin { 0x80 } else { 0 } | if self.rsv1 { 0x40 } else { 0 };
        let masked: u8 = if self.mask.is_some() { 0x80 } else { 0 };
        out.push(&[flags | self.opcode.bits()]);
        match (u8::try_from(self.len), u16::try_from(self.len)) {
            (Ok(len), _) if len < 126 => out.push(&[masked + len]),
            (_, Ok(len)) => {
                out.push(&[masked + 126]);
                out.push(&len.to_be_bytes());
            }
            _ => {
                out.push(&[masked + 127]);
                out.push(&self.len.to_be_bytes());
            }
        }
        if let Some(mask) = self.mask {
            out.push(&mask);
        }
        out
    }
}

/// The payload length, and what follows it: 7 bits, or 16 or 64 where the value needs them.
fn parse_length(short: u8, rest: &[u8]) -> Result<(u64, &[u8]), ProtocolError> {
    match short {
        126 => {
            let (bytes, rest) = rest.split_first_chunk().ok_or(ProtocolError::LengthOverflow)?;
            let len = u16::from_be_bytes(*bytes);
            if len < 126 { Err(ProtocolError::NonMinimalLength) } else { Ok((u64::from(len), rest)) }
        }
        127 => {
            let (bytes, rest) = rest.split_first_chunk().ok_or(ProtocolError::LengthOverflow)?;
            match u64::from_be_bytes(*bytes) {
                0..=0xFFFF => Err(ProtocolError::NonMinimalLength),
                len if len >> 63 != 0 => Err(ProtocolError::LengthOverflow),
                len => Ok((len, rest)),
            }
        }
        len => Ok((u64::from(len), rest)),
    }
}

/// An encoded header, held in place.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct HeaderBytes {
    bytes: [u8; MAX_HEADER],
    len: u8,
}

impl HeaderBytes {
    fn push(&mut self, bytes: &[u8]) {
        for (slot, byte) in self.bytes.iter_mut().skip(usize::from(self.len)).zip(bytes) {
            *slot = *byte;
            self.len += 1;
        }
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// One frame ready to be written: first [`header`](Self::header), then [`payload`](Self::payload).
///
/// The payload is shared, so that a frame encoded once can be queued for many connections.
#[derive(Clone, Debug)]
pub struct Frame {
    header: HeaderBytes,
    payload: Bytes,
}

impl Frame {
    pub(crate) fn new(opcode: Opcode, compressed: bool, mask: Option<[u8; 4]>, payload: Bytes) -> Self {
        let len = u64::try_from(payload.len()).unwrap_or(u64::MAX);
        let header = FrameHeader { fin: true, rsv1: compressed, opcode, mask, len };
        Self { header: header.encode(), payload }
    }

    /// The header: 2 to 14 bytes.
    pub fn header(&self) -> &[u8] {
        self.header.as_slice()
    }

    /// The payload as it goes on the wire: masked and compressed where that is due.
    pub fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// Bytes on the wire.
    pub fn wire_len(&self) -> usize {
        self.header().len() + self.payload.len()
    }

    /// Header and payload copied into one buffer, for a writer that wants contiguous bytes.
    pub fn to_vec(&self) -> Vec<u8> {
        [self.header(), &self.payload].concat()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header(len: u64, mask: Option<[u8; 4]>) -> FrameHeader {
        FrameHeader { fin: true, rsv1: false, opcode: Opcode::Binary, mask, len }
    }

    #[test]
    fn lengths_take_the_fewest_bytes() {
        for (len, bytes) in [(0, 2), (125, 2), (126, 4), (65_535, 4), (65_536, 10), (1 << 40, 10)] {
            assert_eq!(header(len, None).encode().as_slice().len(), bytes, "{len}");
            assert_eq!(header(len, Some([0; 4])).encode().as_slice().len(), bytes + 4, "{len}");
        }
    }

    #[test]
    fn other_lengths_are_refused() {
        assert_eq!(FrameHeader::parse(&[0x82, 126, 0, 125]), Err(ProtocolError::NonMinimalLength));
        assert_eq!(
            FrameHeader::parse(&[0x82, 127, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF]),
            Err(ProtocolError::NonMinimalLength)
        );
        assert_eq!(
            FrameHeader::parse(&[0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0]),
            Err(ProtocolError::LengthOverflow)
        );
    }

    #[test]
    fn reserved_bits_and_opcodes_are_refused() {
        assert_eq!(FrameHeader::parse(&[0xA2, 0]), Err(ProtocolError::ReservedBits));
        assert_eq!(FrameHeader::parse(&[0x92, 0]), Err(ProtocolError::ReservedBits));
        for opcode in [3, 4, 5, 6, 7, 0xB, 0xC, 0xD, 0xE, 0xF] {
            assert_eq!(FrameHeader::parse(&[0x80 | opcode, 0]), Err(ProtocolError::ReservedOpcode(opcode)));
        }
    }

    proptest! {
        #[test]
        fn headers_round_trip(fin: bool, rsv1: bool, opcode in 0..6_usize, mask: Option<[u8; 4]>, len in 0..1_u64 << 63) {
            use Opcode::{Binary, Close, Continuation, Ping, Pong, Text};
            let opcode = [Continuation, Text, Binary, Close, Ping, Pong][opcode];
            let header = FrameHeader { fin, rsv1, opcode, mask, len };
            let bytes = header.encode();
            prop_assert_eq!(FrameHeader::encoded_len(bytes.as_slice()[1]), bytes.as_slice().len());
            prop_assert_eq!(FrameHeader::parse(bytes.as_slice()), Ok(header));
        }
    }
}
