//! WSGI and ASGI hosting for Hawksbill. The only crate that knows pyo3.
//!
//! A Python application becomes a [`Turtle`](hawksbill_core::Turtle). WSGI applications (PEP 3333) run on threads fed by
//! a queue, ASGI 3 applications on one event loop. Under a runtime that is somebody else's that has a thread of its own,
//! so that nothing of the runtime ever waits for the interpreter; where it can be, it is the runtime's own thread.
//!
//! ```
//! use hawksbill_core::{Body, Builder, body::to_bytes};
//! use hawksbill_python::{Options, live_app};
//! use pyo3::prelude::*;
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! # Python::initialize();
//! let hello = Python::attach(|py| {
//!     let code = c"def hello(environ, start_response):
//!         start_response('200 OK', [('Content-Type', 'text/plain')])
//!         return [b'hello, ' + environ['PATH_INFO'].encode('latin-1')]";
//!     let module = PyModule::from_code(py, code, c"hello.py", c"hello").unwrap();
//!     module.getattr("hello").unwrap().unbind()
//! });
//! let mut builder = Builder::new("/");
//! let turtle = live_app("hello", hello, Options::default()).build(&mut builder).unwrap();
//! let mut generation = builder.finish();
//! generation.start().await.unwrap();
//!
//! let response = turtle.ask(http::Request::get("/you").body(Body::empty()).unwrap()).await.unwrap();
//! assert_eq!(to_bytes(response.into_body(), 1024).await.unwrap(), "hello, /you");
//! generation.stop().await;
//! # }
//! ```
//!
//! Whoever starts or stops a generation must not be attached to the interpreter while it waits: the threads that do the
//! work need it.

pub mod allocator;
mod answer;
mod asgi;
mod block_on;
mod broken;
mod busy_poll;
mod convert;
mod debugged;
mod detect;
mod django;
mod embedded;
mod facts;
mod failure;
mod host;
mod imported;
mod kinds;
mod later;
mod lead;
mod lent;
mod logging;
mod outgoing;
mod output;
mod pool;
mod preload;
mod reply;
mod request_id;
mod segment;
mod slow;
mod stacks;
pub mod surface;
mod tally;
mod target;
mod thread;
mod watchdog;
mod wsgi;

use hawksbill_core::{Registry, RegistryError};

pub use self::asgi::{Lifespan, WebSockets};
pub use self::detect::Interface;
pub use self::django::{Django, Http};
pub use self::host::{DEFAULT_QUEUE, DEFAULT_THREADS, DEFAULT_TIMEOUT, Options};
pub use self::kinds::{Asgi, Callable, Wsgi, live_app};

/// Adds the kinds `wsgi`, `asgi`, `django` and `callable` to a registry.
///
/// # Errors
/// When one of these names is taken already.
pub fn register(registry: Registry) -> Result<Registry, RegistryError> {
    registry.app::<Wsgi>()?.app::<Asgi>()?.app::<Django>()?.app::<Callable>()
}
