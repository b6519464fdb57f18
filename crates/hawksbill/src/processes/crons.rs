//! The commands that run at certain times: from their tables to tasks of the supervisor.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hawksbill_core::BuildError;
use hawksbill_supervisor::{Identity, Kind, Output, Pool};

use super::plan::identity_of;
use super::programs::{Surrounded, words};
use super::services::wrong;
use crate::Config;
use crate::config::{AppNode, Command, Cron, Processes};
use crate::cron::{Job, Jobs};

/// How long a command that is to end may take to do so.
const STOP: Duration = Duration::from_secs(10);

/// The variable that names a Django project's settings.
const SETTINGS: &str = "DJANGO_SETTINGS_MODULE";

/// The times of a configuration's commands.
///
/// # Errors
/// Where they are none.
pub(super) fn jobs(config: &Config) -> Result<Jobs, BuildError> {
    let jobs = config.cron.iter().map(|(name, cron)| {
        let job = Job::new(name, &cron.table);
        job.map(Arc::new).map_err(|error| wrong(&error, &cron.origin, &format!("cron.{name}")))
    });
    jobs.collect()
}

/// The pools of a configuration's commands. `python` runs those of Django where the application names no virtual
/// environment.
///
/// # Errors
/// Where one cannot be run.
pub(super) fn pools(config: &Config, python: &str) -> Result<Vec<(String, Pool)>, BuildError> {
    let pools = config.cron.iter().map(|(name, cron)| {
        let drafted = draft(config, &cron.table, python);
        let pool = drafted.map_err(|error| wrong(&error, &cron.origin, &format!("cron.{name}")))?;
        Ok((Job::pool(name), pool))
    });
    pools.collect()
}

fn draft(config: &Config, cron: &Cron, python: &str) -> Result<Pool, String> {
    let node = cron.app.as_ref().map(|name| app(config, name)).transpose()?;
    let processes = node.and_then(|node| node.processes.clone()).unwrap_or_default();
    let settings = node.map(|node| node.app.settings()).unwrap_or_default();
    let setting = |key: &str| settings.get(key).and_then(|value| value.as_str());
    let mut env = processes.env.clone();
    env.extend(cron.env.clone());
    let dir = cron.dir.clone().or_else(|| setting("dir").map(PathBuf::from));
    let venv = cron.venv.clone().or_else(|| processes.venv.clone());
    let command = match (&cron.command, &cron.manage) {
        (Some(command), None) => command.clone(),
        (None, Some(manage)) => {
            let Some(module) = setting("django") else {
                return Err("manage: say which Django project it is for, with app = \"NAME\" of an application of the kind 'django'".to_owned());
            };
            env.insert(SETTINGS.to_owned(), module.to_owned());
            let python = venv.as_ref().map_or_else(|| python.to_owned(), |_| "python".to_owned());
            let begin = [python, "-m".to_owned(), "django".to_owned()];
            Command::Words(begin.into_iter().chain(words(manage)?).collect())
        }
        _ => return Err("write either 'command' or 'manage'".to_owned()),
    };
    let surrounded = Surrounded { base: &config.dir, dir: dir.as_deref(), venv: venv.as_deref(), env };
    Ok(Pool {
        kind: Kind::Task,
        program: surrounded.program(&command)?,
        identity: identity(cron, &processes),
        speaks: false,
        stop_timeout: STOP,
        output: Output::Lines,
        ..Pool::default()
    })
}

fn app<'a>(config: &'a Config, name: &str) -> Result<&'a AppNode, String> {
    config.apps.get(name).ok_or_else(|| {
        let near = hawksbill_core::config::did_you_mean(name, config.apps.keys().map(String::as_str));
        let hint =
            near.map_or_else(|| format!("; add [apps.{name}]"), |near| format!("; did you mean '{near}'?"));
        format!("app: there is no application '{name}'{hint}")
    })
}

/// The application's, and what the table says on top of it.
fn identity(cron: &Cron, processes: &Processes) -> Identity {
    let user = cron.user.as_ref().or(processes.user.as_ref());
    let group = cron.group.as_ref().or(processes.group.as_ref());
    let limits =
        if cron.limits == crate::config::Limits::default() { &processes.limits } else { &cron.limits };
    identity_of(user, group, limits)
}

/// Stands for a Python that is not known: where a configuration is only looked at.
pub(super) fn any_program() -> &'static str {
    const SELF: &str = "/proc/self/exe";
    if Path::new(SELF).exists() { SELF } else { "/bin/sh" }
}
