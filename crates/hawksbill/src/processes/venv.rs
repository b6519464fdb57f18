//! The virtual environments of applications, and what is said where one of them is not as it should be.

use std::path::PathBuf;

use hawksbill_core::BuildError;
use hawksbill_supervisor::Failure;

use super::plan::absolute;
use crate::Config;
use crate::config::{Processes, place};

/// The Python of an application's virtual environment, where it has one.
///
/// # Errors
/// Where it is not there.
pub(super) fn interpreter(
    config: &Config,
    app: &str,
    processes: &Processes,
) -> Result<Option<PathBuf>, BuildError> {
    let Some(venv) = &processes.venv else { return Ok(None) };
    let dir = config.dir.join(venv);
    let python = dir.join("bin/python");
    // Whether it can be started is found when it is: by another user, maybe.
    if python.try_exists().unwrap_or(true) {
        return Ok(Some(python));
    }
    let found = if dir.is_dir() { "no bin/python in" } else { "no virtual environment" };
    let dir = absolute(&dir);
    let message = format!(
        "there is {found} {dir}; make it with 'python3 -m venv {dir}', install hawksbill and what the application needs with \
         '{dir}/bin/pip install', or name the one that has them"
    );
    Err(BuildError::new(message).within(key(config, app)))
}

/// The key that names it, with its place.
fn key(config: &Config, app: &str) -> String {
    let key = format!("apps.{app}.venv");
    let value = config.source.as_ref().and_then(|tree| tree.at(&["apps", app, "venv"]));
    value.map_or_else(|| key.clone(), |value| place(&value.origin, &key))
}

/// A worker that hosts one application does not know where that is configured; what it says of it gets its place here. And
/// one that did not come as far as that is told of by the key that is to blame.
pub(super) fn with_place(mut failure: Failure, config: &Config) -> Failure {
    let Some((app, node)) = failure.pool.as_deref().and_then(|pool| config.apps.get_key_value(pool)) else {
        return failure;
    };
    let venv = node.processes.as_ref().and_then(|processes| processes.venv.as_ref());
    let (said, name) = (failure.message.as_deref().unwrap_or_default(), format!("apps.{app}"));
    if let Some(rest) = said.strip_prefix(&name) {
        failure.message = Some(place(&node.origin, &name) + rest);
    } else if let Some(venv) = venv {
        let dir = absolute(&config.dir.join(venv));
        let why = if !failure.said_so && said.contains("No module named hawksbill") {
            format!("there is no hawksbill in {dir}; install it with '{dir}/bin/pip install hawksbill'")
        } else if failure.reason.starts_with("cannot start") {
            format!("{}; make the virtual environment anew, or name another one", failure.reason)
        } else {
            return failure;
        };
        (failure.message, failure.said_so) = (Some(format!("{}: {why}", key(config, app))), true);
    }
    failure
}
