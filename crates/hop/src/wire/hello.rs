//! How a connection begins: who speaks which version, and how much each takes.

use crate::Fault;
use crate::wire::text::{Reader, put_text};

/// What every hello begins with.
pub const MAGIC: [u8; 8] = *b"hawkhop\n";
/// The oldest and the newest version of the protocol that this release speaks.
pub const VERSIONS: (u16, u16) = (1, 1);
/// The length of a hello's first part: the magic, and the length of the rest.
pub const PREFIX: usize = 10;
/// The largest length of a hello's second part.
pub const MAX_HELLO: usize = 1024;
/// The smallest length of a hello's second part.
const MIN_HELLO: usize = 24;
/// The longest name of a release that is sent.
const MAX_RELEASE: usize = 64;

/// How much one end takes from the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Streams open at a time.
    pub streams: u32,
    /// Bytes of a stream that may wait for who reads them.
    pub window: u32,
    /// The largest payload of a data frame, in bytes.
    pub data: u32,
    /// The largest payload of any other frame, in bytes: a block of headers.
    pub head: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { streams: 4096, window: 64 * 1024, data: 32 * 1024, head: 512 * 1024 }
    }
}

impl Limits {
    /// The limits, none of them beyond what the protocol can do.
    pub(crate) fn sane(self) -> Self {
        Self {
            streams: self.streams.clamp(1, 1 << 20),
            window: self.window.clamp(1024, 1 << 28),
            data: self.data.clamp(1024, 1 << 24),
            head: self.head.clamp(1024, 1 << 26),
        }
    }
}

/// What an end says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The oldest and the newest version that it speaks.
    pub versions: (u16, u16),
    /// What it takes.
    pub limits: Limits,
    /// How many requests it serves at a time.
    pub capacity: u32,
    /// Which release of Hawksbill it is.
    pub release: String,
}

impl Hello {
    /// What this release says.
    pub fn ours(limits: Limits, capacity: u32) -> Self {
        let release = env!("CARGO_PKG_VERSION").to_owned();
        Self { versions: VERSIONS, limits: limits.sane(), capacity, release }
    }

    /// The hello as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut rest = Vec::with_capacity(MIN_HELLO + MAX_RELEASE);
        rest.extend_from_slice(&self.versions.0.to_le_bytes());
        rest.extend_from_slice(&self.versions.1.to_le_bytes());
        let Limits { streams, window, data, head } = self.limits;
        for number in [streams, window, data, head, self.capacity] {
            rest.extend_from_slice(&number.to_le_bytes());
        }
        let mut release = self.release.clone();
        release.retain(|letter| letter.is_ascii_graphic());
        release.truncate(MAX_RELEASE);
        put_text(&mut rest, release.as_bytes());
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&u16::try_from(rest.len()).unwrap_or(u16::MAX).to_le_bytes());
        bytes.append(&mut rest);
        bytes
    }

    /// Reads the first part: how many bytes follow.
    ///
    /// # Errors
    /// [`Fault::Stranger`] where it is no hello.
    pub fn decode_prefix(bytes: [u8; PREFIX]) -> Result<usize, Fault> {
        let [magic @ .., low, high] = bytes;
        let length = usize::from(u16::from_le_bytes([low, high]));
        if magic == MAGIC && (MIN_HELLO..=MAX_HELLO).contains(&length) {
            Ok(length)
        } else {
            Err(Fault::Stranger)
        }
    }

    /// Reads the second part.
    ///
    /// # Errors
    /// [`Fault::Version`] where this release speaks none of the versions, [`Fault::Broken`] where a limit makes no sense.
    pub fn decode(bytes: &[u8]) -> Result<Self, Fault> {
        let mut reader = Reader::new(bytes);
        let versions = (reader.u16()?, reader.u16()?);
        let limits = Limits {
            streams: reader.u32()?,
            window: reader.u32()?,
            data: reader.u32()?,
            head: reader.u32()?,
        };
        let capacity = reader.u32()?;
        // A later version may say it elsewhere, and must still be told that it does not fit.
        let release = reader.text().unwrap_or_default();
        let release: String = release.chars().filter(char::is_ascii_graphic).take(MAX_RELEASE).collect();
        if versions.1 < VERSIONS.0 || versions.0 > VERSIONS.1 {
            return Err(Fault::Version { ours: VERSIONS, theirs: versions, release });
        }
        if limits != limits.sane() {
            return Err(Fault::broken("its hello has limits that make no sense"));
        }
        Ok(Self { versions, limits, capacity, release })
    }
}
