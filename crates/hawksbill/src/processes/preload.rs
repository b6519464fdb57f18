//! What a preloader does: it imports the application once, and comes back in each worker that is forked from it.
//!
//! Nothing else of a worker is made before the fork, neither a gateway nor a runtime: a worker makes these itself, and finds
//! its application imported.

use std::io;

use hawksbill_core::config::Value;
use hawksbill_core::{BuildError, Registry};
use hawksbill_supervisor::Order;
use hawksbill_supervisor::child::Child;
use hawksbill_supervisor::preloader::{self, Forker};

use super::worker::IMPORTS;
use super::{Payload, Role};
use crate::cli::Preloading;
use crate::config::place;
use crate::{Config, Gateway, log};

/// Imports, then forks whenever the supervisor wants a worker; comes back in the workers alone.
///
/// # Errors
/// Why there will be none, which the supervisor has been told.
pub(super) fn preload(
    child: Child,
    registry: &Registry,
    preloading: Option<Preloading>,
) -> Result<Child, String> {
    let reporter = child.reporter();
    let loaded = load(&child, registry, preloading);
    match loaded.map(|mut loaded| preloader::fork_workers(child, &mut loaded)) {
        Ok(Ok(worker)) => Ok(worker),
        // A worker that the supervisor does not speak to: nobody is told.
        Ok(Err(error)) => Err(format!("this process was forked and cannot begin: {error}")),
        Err(error) => {
            reporter.failed(error.to_string());
            Err(String::new())
        }
    }
}

/// A process that has loaded an application.
struct Loaded(Preloading);

impl Forker for Loaded {
    fn check(&mut self) -> Result<(), String> {
        (self.0.check)()
    }

    fn fork(&mut self) -> io::Result<i32> {
        (self.0.fork)()
    }

    fn told(&mut self, order: Order) {
        if let Order::LogLevel { level } = order
            && let Ok(level) = level.parse()
        {
            log::set_level(level);
        }
    }
}

fn load(child: &Child, registry: &Registry, preloading: Option<Preloading>) -> Result<Loaded, BuildError> {
    let wrong = |error: &dyn std::fmt::Display| {
        BuildError::new(format!("what the supervisor says is not understood: {error}"))
    };
    let payload: Payload = serde_json::from_str(&child.start().payload).map_err(|error| wrong(&error))?;
    log::begin_in_worker(payload.log_level, &payload.name);
    preloader::end_with_supervisor().map_err(|error| BuildError::new(error.to_string()))?;
    let preloading = preloading
        .ok_or_else(|| BuildError::new("this program cannot fork what it has loaded; remove preload"))?;
    let value = Value::carried(&payload.config).map_err(|error| wrong(&error))?;
    let config = Config::from_value(value, payload.dir, registry);
    let mut config = config.map_err(|error| BuildError::new(error.to_string()))?;
    config.name_inline();
    let app = match payload.role {
        Role::Behind { app, .. } => app,
        // The pool is called as its one application.
        Role::Gateway | Role::Front => payload.name,
    };
    let node = config.apps.shift_remove(&app);
    let node = node.ok_or_else(|| BuildError::new(format!("there is no application '{app}'")))?;
    let place = place(&node.origin, &format!("apps.{app}"));
    let refused = |error: String| BuildError::new(error).within(&*place);
    let mut alone = Config::empty(&config.dir);
    alone.apps.insert(app, node);
    child.reporter().starting(IMPORTS);
    (preloading.begin)().map_err(refused)?;
    import(alone)?;
    (preloading.settle)().map_err(refused)?;
    Ok(Loaded(preloading))
}

/// Loads the application of this configuration, and starts nothing.
fn import(alone: Config) -> Result<(), BuildError> {
    let failed = |error: io::Error| BuildError::new("cannot wait for the import").caused_by(error);
    // It has no driver of sockets, so it opens nothing, and no thread: it waits for the one that imports.
    let waiting = tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(failed)?;
    let gateway = Gateway::inner(alone)?;
    waiting.block_on(gateway.load()).map(drop)
}
