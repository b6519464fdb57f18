//! Hawksbill's application kinds that need no Python: one file each.
//!
//! | kind | answers with |
//! |---|---|
//! | [`Files`] | files of a directory |
//! | [`Respond`] | a fixed text |
//! | [`Redirect`] | another address |
//! | [`Health`] | whether the gateway can serve |
//! | [`StatusPage`] | how the gateway does, live |
//!
//! A kind is its settings; [`register`] makes all of them known to a configuration, and each can be built alone:
//!
//! ```
//! use hawksbill_apps::Respond;
//! use hawksbill_core::{AppKind, Body, Builder};
//! use http::Request;
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! let turtle = Respond::text("pong").build(&mut Builder::new("/")).unwrap();
//! let response = turtle.ask(Request::get("/ping").body(Body::empty()).unwrap()).await.unwrap();
//! assert_eq!(response.status(), 200);
//! # }
//! ```

mod files;
mod health;
mod redirect;
mod respond;
mod status_page;

use hawksbill_core::{Registry, RegistryError};

pub use files::{Files, Symlinks};
pub use health::Health;
pub use redirect::{Redirect, RedirectStatus};
pub use respond::Respond;
pub use status_page::StatusPage;

/// Adds all kinds of this crate.
///
/// ```
/// use hawksbill_core::Registry;
///
/// let registry = hawksbill_apps::register(Registry::new()).unwrap();
/// assert!(registry.find_app("files").is_some());
/// ```
///
/// # Errors
/// When the registry has a kind of the same name already.
pub fn register(registry: Registry) -> Result<Registry, RegistryError> {
    let registry = registry.app::<Files>()?.app::<Respond>()?.app::<Redirect>()?;
    registry.app::<Health>()?.app::<StatusPage>()
}
