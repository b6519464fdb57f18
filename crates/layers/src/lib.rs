//! Hawksbill's layers: one file each.
//!
//! | layer | key | does |
//! |---|---|---|
//! | [`AccessLog`] | `log` | writes a line for each request |
//! | [`MaxBody`] | `max_body` | refuses request bodies that are too large |
//!
//! A layer's settings wrap a turtle and give a turtle:
//!
//! ```
//! use hawksbill_core::{Body, Builder, LayerKind, Turtle, config::Size};
//! use hawksbill_layers::MaxBody;
//! use http::{Request, Response};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! let upload = Turtle::from_fn(async |_| Ok(Response::new(Body::from("thanks"))));
//! let upload = MaxBody(Size::megabytes(1)).wrap(upload, &mut Builder::new("/")).unwrap();
//! assert!(upload.ask(Request::post("/").body(Body::from("small")).unwrap()).await.is_ok());
//! # }
//! ```

mod access_log;
mod max_body;
mod request_id;

use hawksbill_core::{Registry, RegistryError};

pub use access_log::{AccessLog, LogFormat, LogSettings};
pub use max_body::MaxBody;
pub use request_id::RequestId;

/// Adds all layers of this crate. Their order is that of the short keys: the ids stand outermost, and the log beneath, so
/// that it names them and sees what the others refuse.
///
/// ```
/// use hawksbill_core::Registry;
///
/// let registry = hawksbill_layers::register(Registry::new()).unwrap();
/// assert_eq!(registry.layers().map(|layer| layer.name()).collect::<Vec<_>>(), ["request_id", "log", "max_body"]);
/// ```
///
/// # Errors
/// When the registry has a layer of the same name already, or an application kind with a field of that name.
pub fn register(registry: Registry) -> Result<Registry, RegistryError> {
    registry.layer::<RequestId>()?.layer::<AccessLog>()?.layer::<MaxBody>()
}
