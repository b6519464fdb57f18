//! Services: from their tables to pools of the supervisor.

use std::time::Duration;

use hawksbill_core::BuildError;
use hawksbill_core::config::{Origin, did_you_mean};
use hawksbill_supervisor as supervisor;
use hawksbill_supervisor::{Kind, Output, Pool};

use super::plan::identity_of;
use super::programs::Surrounded;
use crate::Config;
use crate::config::{Ready, Restart, Service, StopSignal, place};

/// A service that ends sooner than this after its start is started again with a wait.
const SOON: Duration = Duration::from_secs(10);

/// The pools of a configuration's services.
///
/// # Errors
/// Where one cannot be run: its command is not there, or it comes after what is none.
pub(super) fn pools(config: &Config) -> Result<Vec<(String, Pool)>, BuildError> {
    let apps = config.apps.iter().filter_map(|(name, node)| {
        Some((format!("apps.{name}"), &node.origin, &node.processes.as_ref()?.after))
    });
    let services = config.services.iter();
    let services = services.map(|(name, one)| (format!("services.{name}"), &one.origin, &one.table.after));
    for (key, origin, after) in apps.chain(services) {
        if let Some(other) = after.iter().find(|other| !config.services.contains_key(*other)) {
            return Err(wrong(&no_such(config, other), origin, &key));
        }
    }
    let mut pools = Vec::new();
    for (name, service) in &config.services {
        let key = format!("services.{name}");
        if comes_after_itself(config, name) {
            return Err(wrong("after: it comes after itself, by way of others", &service.origin, &key));
        }
        let drafted = pool(config, &service.table);
        pools.push((name.clone(), drafted.map_err(|error| wrong(&error, &service.origin, &key))?));
    }
    Ok(pools)
}

/// An error with its place.
pub(super) fn wrong(message: &str, origin: &Origin, key: &str) -> BuildError {
    BuildError::new(message.to_owned()).within(place(origin, key))
}

fn no_such(config: &Config, other: &str) -> String {
    let hint = match did_you_mean(other, config.services.keys().map(String::as_str)) {
        Some(near) => format!("; did you mean '{near}'?"),
        None => format!("; add [services.{other}]"),
    };
    format!("after: there is no service '{other}'{hint}")
}

fn comes_after_itself(config: &Config, name: &str) -> bool {
    let (mut seen, mut next) = (Vec::new(), vec![name]);
    while let Some(service) = next.pop().and_then(|name| config.services.get(name)) {
        for other in service.table.after.iter().map(String::as_str) {
            if other == name {
                return true;
            }
            if !seen.contains(&other) {
                seen.push(other);
                next.push(other);
            }
        }
    }
    false
}

fn pool(config: &Config, service: &Service) -> Result<Pool, String> {
    if let Some(Ready::Line(line)) = &service.ready {
        regex_lite::Regex::new(line).map_err(|error| format!("ready: {error}"))?;
    }
    let surrounded = Surrounded {
        base: &config.dir,
        dir: service.dir.as_deref(),
        venv: service.venv.as_deref(),
        env: service.env.clone(),
    };
    let when = match service.restart {
        Restart::Always => supervisor::When::Always,
        Restart::OnFailure => supervisor::When::Failure,
        Restart::Never => supervisor::When::Never,
    };
    // A change of any of its keys is to be seen.
    let fingerprint = serde_json::to_string(service).unwrap_or_default();
    Ok(Pool {
        kind: Kind::Service,
        program: surrounded.program(&service.command)?,
        identity: identity_of(service.user.as_ref(), service.group.as_ref(), &service.limits),
        after: service.after.iter().cloned().collect(),
        speaks: false,
        told_ready: service.ready.is_some(),
        stop_signal: number(service.stop_signal),
        payload: fingerprint,
        start_timeout: *service.start_timeout,
        stop_timeout: *service.stop_timeout,
        restart: supervisor::Restart { when, soon: SOON, ..supervisor::Restart::default() },
        output: Output::Lines,
        ..Pool::default()
    })
}

fn number(signal: StopSignal) -> i32 {
    use rustix::process::Signal;
    let signal = match signal {
        StopSignal::Term => Signal::TERM,
        StopSignal::Int => Signal::INT,
        StopSignal::Quit => Signal::QUIT,
        StopSignal::Hup => Signal::HUP,
        StopSignal::Usr1 => Signal::USR1,
        StopSignal::Usr2 => Signal::USR2,
        StopSignal::Winch => Signal::WINCH,
        StopSignal::Kill => Signal::KILL,
    };
    signal.as_raw()
}
