//! What a configuration may name: kinds of applications and kinds of layers.
//!
//! A kind is a struct with its settings, whose field docs are the manual, whose serde derive is the parser and whose
//! schemars derive is the JSON schema; it knows how to become a [`Turtle`]. The derive should deny unknown fields, so
//! that a misspelt key is an error with a suggestion.
//!
//! An application is named in a table by its kind, so the struct has a field of that name: `{ respond = "hello" }`.
//!
//! ```
//! use hawksbill_core::{AppKind, Body, BuildError, Builder, Turtle};
//! use http::Response;
//!
//! /// Answers with a text.
//! #[derive(serde::Deserialize, serde::Serialize, schemars::JsonSchema)]
//! #[serde(deny_unknown_fields)]
//! struct Respond {
//!     /// The text of every answer.
//!     respond: String,
//! }
//!
//! impl AppKind for Respond {
//!     const NAME: &'static str = "respond";
//!
//!     fn build(self, _: &mut Builder) -> Result<Turtle, BuildError> {
//!         Ok(Turtle::from_fn(move |_| {
//!             let text = self.respond.clone();
//!             async move { Ok(Response::new(Body::from(text))) }
//!         }))
//!     }
//! }
//! # fn main() {
//! let registry = hawksbill_core::Registry::new().app::<Respond>().unwrap();
//! assert_eq!(registry.apps().map(|app| app.name()).collect::<Vec<_>>(), ["respond"]);
//! # }
//! ```

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{BuildError, Builder, Turtle};

/// An application kind: settings that become a turtle which answers by itself.
pub trait AppKind: DeserializeOwned + Serialize + JsonSchema + Send + 'static {
    /// The key that names this kind in a table, and the name of one of its fields.
    const NAME: &'static str;

    /// Whether all requests must meet in one process for it to be right (a cache, a counter, a group).
    const SHARED_STATE: bool = false;

    /// Whether a route to it is always a mount: the route's prefix is not part of the path it answers for, as a
    /// directory of files knows nothing of the URL it is served under.
    const MOUNTED: bool = false;

    /// Whether it runs code of somebody else's, which has processes of its own: how many, and as whose, is configured
    /// beside its settings.
    const HAS_PROCESSES: bool = false;

    /// Makes the turtle. What has to be asynchronous goes into [`Builder::on_start`].
    ///
    /// # Errors
    /// What a person has to change before this can serve.
    fn build(self, cx: &mut Builder) -> Result<Turtle, BuildError>;
}

/// A layer kind: settings that wrap a turtle.
///
/// Its value is what stands behind its key: `{ log = { path = "-" } }` gives it the table.
pub trait LayerKind: DeserializeOwned + Serialize + JsonSchema + Clone + Send + Sync + 'static {
    /// The key of this layer in `layers = [...]`, and its short key on the whole, a site and a route.
    const NAME: &'static str;

    /// As in [`AppKind::SHARED_STATE`].
    const SHARED_STATE: bool = false;

    /// Wraps `inner`. A layer whose settings switch it off gives `inner` back.
    ///
    /// # Errors
    /// What a person has to change before this can serve.
    fn wrap(self, inner: Turtle, cx: &mut Builder) -> Result<Turtle, BuildError>;
}

/// An [`AppKind`] with its settings, whose type is erased: one node of a configuration.
pub trait App: Send {
    /// [`AppKind::NAME`].
    fn name(&self) -> &'static str;
    /// [`AppKind::SHARED_STATE`].
    fn shared_state(&self) -> bool;
    /// [`AppKind::MOUNTED`].
    fn mounted(&self) -> bool;
    /// [`AppKind::HAS_PROCESSES`].
    fn has_processes(&self) -> bool;
    /// The settings, with the defaults filled in.
    fn settings(&self) -> serde_json::Value;
    /// [`AppKind::build`].
    ///
    /// # Errors
    /// As [`AppKind::build`].
    fn build(self: Box<Self>, cx: &mut Builder) -> Result<Turtle, BuildError>;
}

impl<K: AppKind> App for K {
    fn name(&self) -> &'static str {
        K::NAME
    }

    fn shared_state(&self) -> bool {
        K::SHARED_STATE
    }

    fn mounted(&self) -> bool {
        K::MOUNTED
    }

    fn has_processes(&self) -> bool {
        K::HAS_PROCESSES
    }

    fn settings(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or_default()
    }

    fn build(self: Box<Self>, cx: &mut Builder) -> Result<Turtle, BuildError> {
        AppKind::build(*self, cx)
    }
}

/// A [`LayerKind`] with its settings, whose type is erased.
///
/// A short key set once is applied to every route beneath it, so wrapping leaves the settings where they are.
pub trait AnyLayer: Send + Sync {
    /// [`LayerKind::NAME`].
    fn name(&self) -> &'static str;
    /// [`LayerKind::SHARED_STATE`].
    fn shared_state(&self) -> bool;
    /// The settings, with the defaults filled in.
    fn settings(&self) -> serde_json::Value;
    /// [`LayerKind::wrap`].
    ///
    /// # Errors
    /// As [`LayerKind::wrap`].
    fn wrap(&self, inner: Turtle, cx: &mut Builder) -> Result<Turtle, BuildError>;
}

impl<K: LayerKind> AnyLayer for K {
    fn name(&self) -> &'static str {
        K::NAME
    }

    fn shared_state(&self) -> bool {
        K::SHARED_STATE
    }

    fn settings(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or_default()
    }

    fn wrap(&self, inner: Turtle, cx: &mut Builder) -> Result<Turtle, BuildError> {
        LayerKind::wrap(self.clone(), inner, cx)
    }
}
