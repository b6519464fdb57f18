//! The format on the wire, without any I/O: what a frame is, and what each kind carries.
//!
//! Numbers are little-endian. A *text* or *bytes* is its length as a `u32`, then as many bytes.
//!
//! # Hello
//!
//! Each end begins by sending one, and sends nothing else until it has read the other's.
//!
//! | bytes | what |
//! |---|---|
//! | 8 | [`MAGIC`] |
//! | 2 | the length of what follows, from 24 to [`MAX_HELLO`] bytes |
//! | 2, 2 | oldest and newest version of the protocol that this end speaks |
//! | 4 | how many streams may be open at a time (what a worker takes) |
//! | 4 | window: how many bytes of a stream may be sent before the first credit |
//! | 4 | the largest payload of a data frame |
//! | 4 | the largest payload of any other frame |
//! | 4 | how many requests this worker serves at a time; 0 from a front |
//! | text | which release of Hawksbill this is |
//!
//! The newest version that both speak is spoken; where there is none, both ends close. What a later version adds to
//! a hello stands at its end, and an older one skips it.
//!
//! # Frames
//!
//! | bytes | what |
//! |---|---|
//! | 4 | the length of the payload |
//! | 1 | kind |
//! | 1 | flags: 1 *end*, 2 *upgrade*, 4 *held* |
//! | 2 | zero |
//! | 4, 4 | stream: slot and generation; slot `u32::MAX` is the connection itself |
//!
//! A slot is taken by the front, and again with the next generation as soon as its stream has ended in both
//! directions; frames of an earlier generation are late and are skipped.
//!
//! | kind | from | payload | meaning |
//! |---|---|---|---|
//! | 1 request | front | [`RequestHead`] | a stream begins. *end*: no body. *upgrade*: the client may switch protocols. *held*: no body until there is credit |
//! | 2 response | worker | [`ResponseHead`] | *end*: no body. *upgrade*: from now on bytes go both ways |
//! | 3 data | both | bytes of a body, or of what speaks another protocol | *end*: they are the last |
//! | 4 trailers | both | headers | they end a body |
//! | 5 fail | both | [`Failure`] | the sender's direction ends with an error: an upload broke off, a call failed |
//! | 6 stop | both | none | the sender will not read the rest of what comes to it |
//! | 7 reset | front | none | nobody wants the answer: the call is to be dropped |
//! | 8 credit | both | `u32` | so many more bytes of data may be sent on this stream |
//! | 9 room | worker | `u32` | how many requests it serves at a time from now on |
//! | 10 leave | both | none | on the connection, from a worker: send no new request; from the front: none will come. On a stream, from the front: the server ends, so say goodbye |
//! | 11 ping, 12 pong | both | `u64` | a pong repeats the number of its ping |

mod frame;
mod head;
mod hello;
#[cfg(test)]
mod tests;
mod text;

pub use frame::{END, FrameHeader, FrameKind, HEADER, HELD, Role, StreamId, UPGRADE};
pub(crate) use head::{Facts, connection_of, forwarded_of};
pub use head::{Failure, RequestHead, ResponseHead, decode_trailers, encode_trailers};
pub use hello::{Hello, Limits, MAGIC, MAX_HELLO, PREFIX, VERSIONS};
