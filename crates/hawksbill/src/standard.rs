//! The kinds that every gateway knows.

use hawksbill_core::{Registry, RegistryError};

/// All kinds of applications and layers that need no Python. Add your own by one line each:
///
/// ```
/// # use hawksbill::{AppKind, BuildError, Builder, LayerKind, Turtle};
/// /// Does nothing.
/// #[derive(Clone, serde::Deserialize, serde::Serialize, schemars::JsonSchema)]
/// struct Nothing(bool);
///
/// impl LayerKind for Nothing {
///     const NAME: &'static str = "nothing";
///     fn wrap(self, inner: Turtle, _: &mut Builder) -> Result<Turtle, BuildError> {
///         Ok(inner)
///     }
/// }
///
/// let registry = hawksbill::standard_registry()?.layer::<Nothing>()?;
/// assert!(registry.find_layer("nothing").is_some());
/// # Ok::<(), hawksbill::RegistryError>(())
/// ```
///
/// # Errors
/// None with the kinds of this version; the registry refuses kinds that contradict each other.
pub fn standard_registry() -> Result<Registry, RegistryError> {
    hawksbill_apps::register(hawksbill_layers::register(Registry::new())?)
}
