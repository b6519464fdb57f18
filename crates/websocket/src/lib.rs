//! WebSocket (RFC 6455) with compression (RFC 7692), for servers and clients, over HTTP/1.1 and beyond (RFC 8441).
//!
//! Three floors, each of use without the ones above:
//!
//! - [`handshake`], [`client`] and [`extension`] turn an HTTP request and its response into a WebSocket, on the types of
//!   the `http` crate and with any HTTP implementation;
//! - [`Decoder`] and [`Encoder`] turn bytes into messages and messages into frames, without input or output;
//! - [`WebSocket`] does both over a byte stream of tokio: it answers pings, completes the closing handshake and tells a
//!   peer what it did wrong.
//!
//! An idle connection holds no buffer. A [`SharedMessage`] is framed, and compressed, once for any number of receivers.
//!
//! # Example
//!
//! A server and a client on the two ends of a pipe:
//!
//! ```
//! use hawksbill_websocket::{Config, DeflateConfig, Message, Role, WebSocket};
//! use hawksbill_websocket::client::ClientHandshake;
//! use hawksbill_websocket::handshake::{Acceptance, OpeningHandshake};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // The headers travel by the HTTP implementation of your choice.
//! let handshake = ClientHandshake::new()?.subprotocol("chat").deflate(DeflateConfig::default());
//! let mut request = http::Request::get("/live").body(())?;
//! request.headers_mut().extend(handshake.headers());
//!
//! let opening = OpeningHandshake::from_request(&request)?;
//! let wish = DeflateConfig::default();
//! let acceptance = Acceptance { subprotocol: Some("chat"), deflate: Some(&wish), ..Acceptance::default() };
//! let (response, agreed) = opening.accept(acceptance)?;
//! assert_eq!(response.status(), 101);
//!
//! // Then both ends speak WebSocket on the same connection.
//! let (near, far) = tokio::io::duplex(4096);
//! let config = Config { deflate: agreed.deflate, ..Config::default() };
//! let mut server = WebSocket::new(near, Role::Server, &config);
//! let config = Config { deflate: handshake.verify(&response)?.deflate, ..Config::default() };
//! let mut client = WebSocket::new(far, Role::Client, &config);
//!
//! client.send(Message::text("What does the turtle stand on?")).await?;
//! assert_eq!(server.recv().await?, Message::text("What does the turtle stand on?"));
//! server.send(Message::text("It's turtles all the way down.")).await?;
//! assert_eq!(client.recv().await?, Message::text("It's turtles all the way down."));
//!
//! let (closed, last) = tokio::join!(client.close(None), server.recv());
//! assert_eq!(last?, Message::Close(None));
//! closed?;
//! # Ok(())
//! # }
//! ```

pub mod client;
mod config;
mod decode;
mod deflate;
mod encode;
mod error;
pub mod extension;
mod frame;
pub mod handshake;
mod mask;
mod message;
mod outbox;
mod split;
mod stream;
mod utf8;

pub use config::{Config, Role};
pub use decode::Decoder;
pub use encode::{Encoder, SharedMessage};
pub use error::{EncodeError, Error, ProtocolError};
pub use extension::{DeflateConfig, DeflateParams};
pub use frame::Frame;
pub use mask::apply_mask;
pub use message::{CloseCode, CloseFrame, Message, Utf8Bytes};
pub use split::{Receiver, Sender};
pub use stream::WebSocket;
