//! The supervisor's side: a configuration is put into practice, signals are obeyed, what happens is told.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::time::Duration;

use hawksbill_core::{Address, BuildError};
use hawksbill_supervisor::systemd::Notifier;
use hawksbill_supervisor::{
    Apply, Descriptors, Event, Failure, Handle, Of, Received, Settings, Signals, Supervisor,
};
use tokio::sync::broadcast;

use super::Hosting;
use super::sockets::Sockets;
use crate::Config;

/// How long a new generation is watched before the former one is let go.
const PROBATION: Duration = Duration::from_secs(2);

/// What the command line gives.
pub(crate) struct Supervised<'a> {
    /// How this program is started again.
    pub(crate) program: Vec<String>,
    pub(crate) log_level: String,
    /// Reads the configuration again, for a reload.
    pub(crate) read: &'a dyn Fn() -> Result<Config, String>,
    /// What a person sees when the gateway serves at these addresses.
    pub(crate) screen: Box<dyn Fn(&[Address]) -> String>,
}

/// Runs a configuration in processes of its own until a signal ends it.
///
/// # Errors
/// When it does not start.
pub(crate) fn supervise(config: &Config, how: Supervised<'_>) -> Result<(), String> {
    let failed = |error: io::Error| format!("cannot start the runtime: {error}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    runtime.block_on(async {
        let signals = Signals::new().map_err(|error| format!("cannot receive signals: {error}"))?;
        let supervisor = Supervisor::new(Settings::default(), Descriptors::new());
        let (supervisor, handle) =
            supervisor.map_err(|error| format!("cannot look after processes: {error}"))?;
        let running = tokio::spawn(supervisor.run());
        let telling = tokio::spawn(tell(handle.events()));
        let mut gateway =
            Running { how, handle, sockets: Sockets::default(), notifier: Notifier::from_environment() };
        let ended = gateway.run(config, signals, running).await;
        telling.abort();
        ended
    })
}

struct Running<'a> {
    how: Supervised<'a>,
    handle: Handle,
    sockets: Sockets,
    notifier: Notifier,
}

impl Running<'_> {
    async fn run(
        &mut self,
        config: &Config,
        mut signals: Signals,
        running: tokio::task::JoinHandle<()>,
    ) -> Result<(), String> {
        let handle = self.handle.clone();
        let started = tokio::select! {
            applied = self.apply(config, Duration::ZERO) => applied,
            signal = ending(&mut signals) => Err(format!("{} before the applications had started", signal.name())),
        };
        if let Err(error) = started {
            handle.stop(false).await;
            return Err(error);
        }
        self.say_ready();
        self.until_ended(signals, running).await;
        Ok(())
    }

    /// Puts a configuration into practice, beside the one that serves. A new generation is watched for `probation`: if one
    /// of its processes ends in that time, the former one goes on.
    async fn apply(&mut self, config: &Config, probation: Duration) -> Result<(), String> {
        let failed = |error: BuildError| error.to_string();
        let hosting = Hosting::of(config).map_err(failed)?;
        let next = self.sockets.next(config.sockets()).map_err(failed)?;
        let (opened, descriptors, names) = next.split();
        let plan = hosting.plan(config, &self.how.program, names, &self.how.log_level).map_err(failed)?;
        // The supervisor cannot see whether the code has changed.
        let force: BTreeSet<String> = plan.pools.keys().cloned().collect();
        let apply = Apply { descriptors, force, probation, ..Apply::new(plan) };
        self.handle.apply(apply).await.map_err(|failure| explain(&failure))?;
        self.sockets.take_over(opened);
        Ok(())
    }

    fn say_ready(&self) {
        let addresses = self.sockets.addresses();
        let mut stderr = io::stderr();
        for address in &addresses {
            let _ = writeln!(stderr, "hawksbill: listening on {}", crate::cli::url(address));
        }
        let _ = stderr.write_all((self.how.screen)(&addresses).as_bytes());
        self.notifier.ready("serving");
    }

    async fn until_ended(&mut self, mut signals: Signals, mut running: tokio::task::JoinHandle<()>) {
        let mut ending = false;
        let watchdog = self.notifier.watchdog();
        let mut alive = tokio::time::interval(watchdog.unwrap_or(Duration::from_secs(3600)));
        loop {
            tokio::select! {
                _ = &mut running => return,
                _ = alive.tick() => {
                    if self.handle.status().await.is_some() {
                        self.notifier.alive();
                    }
                }
                signal = signals.next() => match signal {
                    Received::Terminate | Received::Interrupt => {
                        self.end(signal, !ending);
                        ending = true;
                    }
                    Received::Reload => self.reload().await,
                    Received::User1 | Received::User2 => {}
                },
            }
        }
    }

    fn end(&self, signal: Received, drain: bool) {
        let name = signal.name();
        if drain {
            self.notifier.stopping();
            tracing::info!(target: "hawksbill::server", "{name}: no new connections, finishing the requests under way");
        } else {
            tracing::warn!(target: "hawksbill::server", "{name} again: connections are cut now");
        }
        let handle = self.handle.clone();
        tokio::spawn(async move { handle.stop(drain).await });
    }

    /// A new generation of everything, with the configuration as it is now.
    async fn reload(&mut self) {
        self.notifier.reloading();
        tracing::info!(target: "hawksbill::server", "SIGHUP: loading the configuration and the applications again");
        let applied = match (self.how.read)() {
            Ok(config) => self.apply(&config, PROBATION).await,
            Err(error) => Err(error),
        };
        match applied {
            Ok(()) => tracing::info!(target: "hawksbill::server", "the new generation serves"),
            Err(error) => {
                tracing::error!(target: "hawksbill::server", "the old generation goes on, since the new one failed: {error}");
            }
        }
        self.notifier.ready("serving");
    }
}

/// Waits for a signal that ends the program.
async fn ending(signals: &mut Signals) -> Received {
    loop {
        let signal = signals.next().await;
        if matches!(signal, Received::Terminate | Received::Interrupt) {
            return signal;
        }
    }
}

/// What a worker said of its failure stands for itself.
fn explain(failure: &Failure) -> String {
    failure.message.clone().unwrap_or_else(|| failure.to_string())
}

/// Tells people what happens to processes.
async fn tell(mut events: broadcast::Receiver<Event>) {
    loop {
        match events.recv().await {
            Ok(event) => tell_one(&event),
            Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}

fn tell_one(event: &Event) {
    let process = |of: &Of| format!("{}: process {}", of.pool, of.process);
    match event {
        Event::Ended { of, exit, expected: false, message } => {
            let message = message.as_deref().map(|message| format!(": {message}")).unwrap_or_default();
            tracing::error!(target: "hawksbill::supervisor", "{} ended unasked, {exit}{message}", process(of));
        }
        // The worker has logged where it hangs.
        Event::Stuck { of, what, .. } => {
            tracing::error!(target: "hawksbill::supervisor", "{} hangs and is replaced: {what}", process(of));
        }
        Event::Retiring { of, reason } => {
            tracing::info!(target: "hawksbill::supervisor", "{} is replaced: {reason}", process(of));
        }
        Event::Killed { of } => {
            tracing::warn!(target: "hawksbill::supervisor", "{} did not end in time and was killed", process(of));
        }
        Event::PutOff { pool, seconds } => {
            tracing::warn!(target: "hawksbill::supervisor", "{pool}: its processes keep ending; the next one starts in {seconds} s");
        }
        Event::Scaled { pool, target } => {
            tracing::info!(target: "hawksbill::supervisor", "{pool}: {target} processes from now on");
        }
        _ => {}
    }
}
