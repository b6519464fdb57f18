//! Hawksbill's listeners and connections: HTTP/1.1 and HTTP/2 (prior knowledge) over TCP, Unix sockets and inherited
//! descriptors, with drain. This is the only place where hyper's server is visible.
//!
//! A [`Server`] puts turtles behind [`Listener`]s. What reaches a turtle has passed every limit of [`Settings`], has
//! one well-formed `Host`, carries a [`Peer`](hawksbill_core::Peer) and no forwarding header that nobody vouches for.
//!
//! ```
//! use hawksbill_core::{Body, Turtle};
//! use hawksbill_server::{Listener, Server, Settings};
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let hello = Turtle::from_fn(async |_| Ok(http::Response::new(Body::from("hello"))));
//! let listener = Listener::bind(&"127.0.0.1:0".parse()?)?;
//! let running = Server::new(Settings::default()).listen(listener, hello).start()?;
//!
//! let address = running.addresses()[0].socket_addr().unwrap();
//! let mut client = tokio::net::TcpStream::connect(address).await?;
//! client.write_all(b"GET / HTTP/1.1\r\nHost: turtle\r\nConnection: close\r\n\r\n").await?;
//! let mut answer = String::new();
//! client.read_to_string(&mut answer).await?;
//! assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nhello"));
//!
//! running.shutdown().begin();
//! assert_eq!(running.wait().await.cut, 0);
//! # Ok(()) }
//! ```
//!
//! An embedder who accepts connections himself hands them to [`Connections::serve`] or [`serve_connection`].

mod accept;
mod activity;
mod body;
mod check;
mod clock;
mod connection;
mod drain;
mod forwarded;
mod http1;
mod http2;
mod io;
mod listener;
mod response;
mod server;
mod service;
mod settings;
mod supervise;
mod unread;
mod upgrade;

pub use connection::{Connections, serve_connection};
pub use drain::{Drained, Shutdown};
pub use io::Transport;
pub use listener::{BindOptions, Bound, ListenError, Listener};
pub use server::{Running, Server};
pub use settings::{ForwardedHeaders, OnRefused, Refusal, Settings};
