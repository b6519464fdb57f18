//! Which side an endpoint stands on, and its limits.

use crate::extension::DeflateParams;

/// The side of the connection: a client masks what it sends, a server does not (RFC 6455 section 5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Accepted the connection.
    Server,
    /// Opened the connection.
    Client,
}

/// Limits of one connection, and what the handshake agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The most bytes that one message may have, all fragments together and after inflation. Default: 16 MB.
    pub max_message_size: usize,
    /// The most bytes of payload that one frame may have on the wire. Default: 16 MB.
    pub max_frame_size: usize,
    /// Above this many bytes that wait to be written, sending waits. One message may go beyond. Default: 64 KB.
    pub write_buffer: usize,
    /// Compression, as agreed in the handshake. Default: none.
    pub deflate: Option<DeflateParams>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_message_size: 16 * 1024 * 1024,
            max_frame_size: 16 * 1024 * 1024,
            write_buffer: 64 * 1024,
            deflate: None,
        }
    }
}
