//! The header of each frame, and the rules that it is held to.

use crate::Fault;
use crate::wire::Limits;

/// The length of a frame's header in bytes.
pub const HEADER: usize = 16;
/// Flag: the direction ends with this frame.
pub const END: u8 = 1;
/// Flag: the protocol may be switched, or is.
pub const UPGRADE: u8 = 2;
/// Flag: no data is to be sent until there is credit.
pub const HELD: u8 = 4;

/// Which end of a connection one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Asks.
    Front,
    /// Answers.
    Worker,
}

/// What a frame is. See the table of the [module](crate::wire).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the table of the module says it")]
pub enum FrameKind {
    Request = 1,
    Response,
    Data,
    Trailers,
    Fail,
    Stop,
    Reset,
    Credit,
    Room,
    Leave,
    Ping,
    Pong,
}

impl FrameKind {
    const ALL: [Self; 12] = [
        Self::Request,
        Self::Response,
        Self::Data,
        Self::Trailers,
        Self::Fail,
        Self::Stop,
        Self::Reset,
        Self::Credit,
        Self::Room,
        Self::Leave,
        Self::Ping,
        Self::Pong,
    ];

    fn of(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code).wrapping_sub(1)).copied()
    }

    /// The flags that it may have.
    fn flags(self) -> u8 {
        match self {
            Self::Request => END | UPGRADE | HELD,
            Self::Response => END | UPGRADE,
            Self::Data => END,
            _ => 0,
        }
    }

    /// The length that its payload always has.
    fn fixed(self) -> Option<usize> {
        match self {
            Self::Stop | Self::Reset | Self::Leave => Some(0),
            Self::Credit | Self::Room => Some(4),
            Self::Ping | Self::Pong => Some(8),
            Self::Request | Self::Response | Self::Data | Self::Trailers | Self::Fail => None,
        }
    }

    fn comes_from(self, role: Role) -> bool {
        match self {
            Self::Request | Self::Reset => role == Role::Front,
            Self::Response | Self::Room => role == Role::Worker,
            _ => true,
        }
    }

    /// Whether it may be about a stream, whether it may be about the connection.
    fn is_about(self, connection: bool) -> bool {
        match self {
            Self::Leave => true,
            Self::Room | Self::Ping | Self::Pong => connection,
            _ => !connection,
        }
    }
}

/// One stream among all that a connection ever has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StreamId {
    /// Its place.
    pub slot: u32,
    /// The how many-th stream it is in that place.
    pub generation: u32,
}

impl StreamId {
    /// No stream: the connection itself.
    pub const CONNECTION: Self = Self { slot: u32::MAX, generation: 0 };
}

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// How many bytes follow.
    pub length: usize,
    /// What they are.
    pub kind: FrameKind,
    /// [`END`], [`UPGRADE`], [`HELD`].
    pub flags: u8,
    /// What they are about.
    pub stream: StreamId,
}

impl FrameHeader {
    /// The header as bytes.
    pub fn encode(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..4].copy_from_slice(&u32::try_from(self.length).unwrap_or(u32::MAX).to_le_bytes());
        bytes[4] = self.kind as u8;
        bytes[5] = self.flags;
        bytes[8..12].copy_from_slice(&self.stream.slot.to_le_bytes());
        bytes[12..].copy_from_slice(&self.stream.generation.to_le_bytes());
        bytes
    }

    /// Reads a header that the end of this role has sent to one with these limits.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub fn decode(bytes: [u8; HEADER], from: Role, limits: &Limits) -> Result<Self, Fault> {
        let number = |at: usize| bytes[at..].first_chunk().map_or(0, |four| u32::from_le_bytes(*four));
        let (kind, flags, zeros) = (bytes[4], bytes[5], [bytes[6], bytes[7]]);
        let kind = FrameKind::of(kind).ok_or_else(|| Fault::broken(format!("no frame is of kind {kind}")))?;
        let length = usize::try_from(number(0)).unwrap_or(usize::MAX);
        let stream = StreamId { slot: number(8), generation: number(12) };
        let connection = stream == StreamId::CONNECTION;
        let most = if kind == FrameKind::Data { limits.data } else { limits.head };
        if kind.fixed().is_some_and(|fixed| fixed != length) || length > most as usize {
            return Err(Fault::broken(format!("a frame {kind:?} has {length} bytes")));
        }
        if flags & !kind.flags() != 0 || zeros != [0, 0] {
            return Err(Fault::broken(format!("a frame {kind:?} has unknown flags")));
        }
        if !kind.comes_from(from) {
            return Err(Fault::broken(format!("a frame {kind:?} came from the {from:?}")));
        }
        if !kind.is_about(connection) || !connection && stream.slot >= limits.streams {
            return Err(Fault::broken(format!("a frame {kind:?} is about stream {}", stream.slot)));
        }
        if kind == FrameKind::Leave && !connection && from == Role::Worker {
            return Err(Fault::broken("a worker ends no streams of the front"));
        }
        Ok(Self { length, kind, flags, stream })
    }

    /// Whether it has this flag.
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}
