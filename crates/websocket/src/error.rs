//! What can go wrong on an open connection, and the close code that each fault carries on the wire.

use std::{error, fmt, io};

use crate::message::CloseCode;

/// The peer broke the protocol or a limit; the connection cannot go on.
///
/// [`close_code`](Self::close_code) is what the peer is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProtocolError {
    /// A reserved bit is set that no negotiated extension gives a meaning (RFC 6455 section 5.2).
    ReservedBits,
    /// An opcode that RFC 6455 section 5.2 reserves.
    ReservedOpcode(u8),
    /// A client sent a frame without a mask (RFC 6455 section 5.1).
    UnmaskedFrame,
    /// A server sent a masked frame (RFC 6455 section 5.1).
    MaskedFrame,
    /// A control frame without FIN (RFC 6455 section 5.5).
    FragmentedControl,
    /// A control frame with more than 125 bytes of payload (RFC 6455 section 5.5).
    ControlTooLong,
    /// A continuation frame while no message is under way (RFC 6455 section 5.4).
    UnexpectedContinuation,
    /// A new message inside a fragmented one (RFC 6455 section 5.4).
    ExpectedContinuation,
    /// A payload length that is not written in the fewest bytes (RFC 6455 section 5.2).
    NonMinimalLength,
    /// A 64-bit payload length with its highest bit set (RFC 6455 section 5.2).
    LengthOverflow,
    /// Text, or the reason of a close, that is not UTF-8 (RFC 6455 section 8.1).
    InvalidUtf8,
    /// A close frame with a payload of one byte (RFC 6455 section 5.5.1).
    TruncatedCloseCode,
    /// A close code that must not be sent (RFC 6455 section 7.4).
    InvalidCloseCode(u16),
    /// Compressed data that cannot be inflated (RFC 7692 section 7.2.2).
    InvalidDeflate,
    /// A frame longer than this many bytes, the limit set for one frame.
    FrameTooBig {
        /// The limit in bytes.
        limit: usize,
    },
    /// A message longer than this many bytes, the limit set for one message, counted after inflation.
    MessageTooBig {
        /// The limit in bytes.
        limit: usize,
    },
}

impl ProtocolError {
    /// The code to close the connection with: 1002, 1007 or 1009 (RFC 6455 section 7.4.1).
    pub const fn close_code(self) -> CloseCode {
        match self {
            Self::InvalidUtf8 | Self::InvalidDeflate => CloseCode::INVALID_PAYLOAD,
            Self::FrameTooBig { .. } | Self::MessageTooBig { .. } => CloseCode::TOO_BIG,
            _ => CloseCode::PROTOCOL,
        }
    }

    /// A few words for the reason of the close frame: what was wrong, without numbers or content.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::ReservedBits => "reserved bit set",
            Self::ReservedOpcode(_) => "reserved opcode",
            Self::UnmaskedFrame => "frame without a mask",
            Self::MaskedFrame => "masked frame from a server",
            Self::FragmentedControl => "fragmented control frame",
            Self::ControlTooLong => "control frame too long",
            Self::UnexpectedContinuation => "continuation without a message",
            Self::ExpectedContinuation => "new message inside a fragmented one",
            Self::NonMinimalLength => "payload length not in its shortest form",
            Self::LengthOverflow => "payload length out of range",
            Self::InvalidUtf8 => "invalid UTF-8",
            Self::TruncatedCloseCode => "close code of one byte",
            Self::InvalidCloseCode(_) => "invalid close code",
            Self::InvalidDeflate => "invalid compressed data",
            Self::FrameTooBig { .. } => "frame too big",
            Self::MessageTooBig { .. } => "message too big",
        }
    }
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())?;
        match self {
            Self::ReservedOpcode(opcode) => write!(f, " (0x{opcode:X})"),
            Self::InvalidCloseCode(code) => write!(f, " ({code})"),
            Self::FrameTooBig { limit } | Self::MessageTooBig { limit } => {
                write!(f, " (limit {limit} bytes)")
            }
            _ => Ok(()),
        }
    }
}

impl error::Error for ProtocolError {}

/// A message that cannot be put on the wire: the caller's fault, the connection is unharmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EncodeError {
    /// A ping, a pong or a close (code and reason together) of more than 125 bytes; this is its length.
    ControlTooLong(usize),
    /// A close code that RFC 6455 section 7.4 keeps off the wire, such as 1005 or 1006.
    CloseCode(CloseCode),
    /// The operating system gave no random bytes for a client's mask.
    NoRandomness,
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ControlTooLong(len) => {
                write!(f, "control message of {len} bytes: at most 125 can be sent")
            }
            Self::CloseCode(code) => {
                write!(f, "close code {code} cannot be sent: use 1000-1003, 1007-1014 or 3000-4999")
            }
            Self::NoRandomness => f.write_str("no random bytes for the mask"),
        }
    }
}

impl error::Error for EncodeError {}

/// Why [`WebSocket`](crate::WebSocket) gives no further message, or took none.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// Reading or writing failed.
    Io(io::Error),
    /// The peer broke the protocol or a limit; it has been told by a close frame.
    Protocol(ProtocolError),
    /// The message given to be sent is not a valid one; nothing was sent.
    Encode(EncodeError),
    /// The peer went away without a close frame (code 1006 to an application).
    Disconnected,
    /// The closing handshake is over, or has begun and nothing more may be sent.
    Closed,
}

impl Error {
    /// The code an application is told for a connection that ended this way (RFC 6455 section 7.1.5).
    pub const fn close_code(&self) -> CloseCode {
        match self {
            Self::Protocol(error) => error.close_code(),
            Self::Encode(_) => CloseCode::INTERNAL,
            Self::Closed => CloseCode::NO_STATUS,
            Self::Io(_) | Self::Disconnected => CloseCode::ABNORMAL,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(_) => f.write_str("WebSocket connection failed"),
            Self::Protocol(_) => f.write_str("WebSocket peer broke the protocol"),
            Self::Encode(_) => f.write_str("WebSocket message cannot be sent"),
            Self::Disconnected => f.write_str("WebSocket peer went away without a close frame"),
            Self::Closed => f.write_str("WebSocket connection is closed"),
        }
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            Self::Protocol(error) => Some(error),
            Self::Encode(error) => Some(error),
            Self::Disconnected | Self::Closed => None,
        }
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<ProtocolError> for Error {
    fn from(error: ProtocolError) -> Self {
        Self::Protocol(error)
    }
}

impl From<EncodeError> for Error {
    fn from(error: EncodeError) -> Self {
        Self::Encode(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_map_to_the_codes_of_the_rfc() {
        assert_eq!(ProtocolError::ReservedBits.close_code(), CloseCode::PROTOCOL);
        assert_eq!(ProtocolError::InvalidUtf8.close_code(), CloseCode::INVALID_PAYLOAD);
        assert_eq!(ProtocolError::InvalidDeflate.close_code(), CloseCode::INVALID_PAYLOAD);
        assert_eq!(ProtocolError::MessageTooBig { limit: 1 }.close_code(), CloseCode::TOO_BIG);
        assert_eq!(Error::Disconnected.close_code(), CloseCode::ABNORMAL);
    }

    #[test]
    fn a_message_to_a_person_names_the_value_that_was_wrong() {
        assert_eq!(ProtocolError::ReservedOpcode(0xB).to_string(), "reserved opcode (0xB)");
        assert_eq!(
            ProtocolError::MessageTooBig { limit: 16 }.to_string(),
            "message too big (limit 16 bytes)"
        );
        assert!(EncodeError::CloseCode(CloseCode::ABNORMAL).to_string().contains("1006"));
    }
}
