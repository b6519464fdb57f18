//! The supervisor's side: a configuration is put into practice, signals are obeyed, what happens is told.

use std::io::{self, Write};
use std::time::Duration;

use hawksbill_core::{Address, Registry};
use hawksbill_supervisor::systemd::Notifier;
use hawksbill_supervisor::{Descriptors, Event, Handle, Of, Received, Resume, Settings, Signals, Supervisor};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinHandle;

use super::heir::Estate;
use super::practice::{Asking, Practice};
use super::ready::{self, Watch};
use super::sockets::Sockets;
use crate::config::LogLevel;
use crate::control::{Api, Control, Subject};
use crate::cron::{self, Board};
use crate::{Config, log};

/// How many requests of the control socket may wait.
const WAITING: usize = 16;

/// What the command line gives.
pub(crate) struct Supervised<'a> {
    /// How this program is started again, without arguments.
    pub(crate) program: Vec<String>,
    /// How it was started.
    pub(crate) again: Vec<String>,
    /// What is served, for the name of the control socket.
    pub(crate) subject: Subject,
    pub(crate) registry: &'a Registry,
    /// Reads the configuration again, for a reload.
    pub(crate) read: &'a dyn Fn() -> Result<Config, String>,
    /// What a person sees when the gateway serves at these addresses.
    pub(crate) screen: Box<dyn Fn(&[Address]) -> String>,
}

/// Runs a configuration in processes of its own until a signal ends it.
///
/// # Errors
/// When it does not start.
pub(crate) fn supervise(config: Config, how: Supervised<'_>, resume: Option<Resume>) -> Result<(), String> {
    let failed = |error: io::Error| format!("cannot start the runtime: {error}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    runtime.block_on(async {
        let signals = Signals::new().map_err(|error| format!("cannot receive signals: {error}"))?;
        let control = Control::open(&config.settings.control, &how.subject, &config.dir)?;
        let (watch, seen) = Watch::new();
        let settings = Settings { lines: Some(watch.lines()), ..Settings::default() };
        let estate = resume.as_ref().map(Estate::of).transpose()?;
        let supervisor = match resume {
            Some(resume) => Supervisor::resume(settings, resume),
            None => Supervisor::new(settings, Descriptors::new()),
        };
        let (supervisor, handle) =
            supervisor.map_err(|error| format!("cannot look after processes: {error}"))?;
        let mut practice = Practice::new(&how, handle.clone(), watch.clone());
        let config = match estate {
            Some(mut estate) => {
                let kept = std::mem::take(&mut estate.sockets);
                let sockets = Sockets::resume(kept, |name| supervisor.descriptor(name));
                let sockets = sockets.map_err(|error| format!("cannot take over: {error}"))?;
                practice.resume(estate, sockets)?;
                None
            }
            None => Some(config),
        };
        let supervisor = tokio::spawn(supervisor.run());
        let telling = tokio::spawn(tell(handle.events()));
        let looking = tokio::spawn(ready::look(watch, seen, handle.clone()));
        let board = Board::default();
        let timing = tokio::spawn(cron::keep(practice.jobs(), handle.clone(), board.clone()));
        let (changes, requests) = mpsc::channel(WAITING);
        let (stops, stop) = mpsc::channel(WAITING);
        let level = watch::Sender::new(None);
        let keeping = tokio::spawn(keep_level(handle.clone(), level.subscribe()));
        if let Some(control) = &control {
            let (serves, facts) = (how.subject.to_string(), practice.facts());
            let api = Api {
                handle: handle.clone(),
                began: practice.began(),
                serves,
                facts,
                changes,
                stops,
                level,
                board,
            };
            control.serve(api.turtle()).map_err(|error| format!("cannot listen for commands: {error}"))?;
        }
        let mut gateway =
            Running { how: &how, handle, signals, stop, supervisor, notifier: Notifier::from_environment() };
        let ended = gateway.run(config, practice, requests).await;
        if let Some(control) = control {
            control.end().await;
        }
        telling.abort();
        keeping.abort();
        looking.abort();
        timing.abort();
        ended
    })
}

struct Running<'a> {
    how: &'a Supervised<'a>,
    handle: Handle,
    signals: Signals,
    /// Asks for an end: whether to drain.
    stop: mpsc::Receiver<bool>,
    supervisor: JoinHandle<()>,
    notifier: Notifier,
}

/// What ends or changes a gateway.
enum Word {
    End(&'static str, bool),
    Reload,
    Upgrade,
}

impl Running<'_> {
    async fn run(
        &mut self,
        config: Option<Config>,
        mut practice: Practice<'_>,
        requests: mpsc::Receiver<super::Request>,
    ) -> Result<(), String> {
        if let Some(config) = config {
            let started = tokio::select! {
                started = practice.start(config) => started,
                name = self.ending() => Err(format!("{name} before the applications had started")),
            };
            if let Err(error) = started {
                self.handle.stop(false).await;
                return Err(error);
            }
            self.say_ready(&practice.addresses());
        }
        let asking = Asking::default();
        let notifier = std::mem::take(&mut self.notifier);
        let around = |begins: bool| if begins { notifier.reloading() } else { notifier.ready("serving") };
        tokio::select! {
            () = practice.obey(requests, &asking, around) => {}
            () = self.until_ended(&asking, &notifier) => {}
        }
        Ok(())
    }

    /// Waits for what ends the program.
    async fn ending(&mut self) -> &'static str {
        loop {
            if let Word::End(name, _) = word(&mut self.signals, &mut self.stop).await {
                return name;
            }
        }
    }

    fn say_ready(&self, addresses: &[Address]) {
        let mut stderr = io::stderr();
        for address in addresses {
            let _ = writeln!(stderr, "hawksbill: listening on {}", crate::cli::url(address));
        }
        let _ = stderr.write_all((self.how.screen)(addresses).as_bytes());
        self.notifier.ready("serving");
    }

    async fn until_ended(&mut self, asking: &Asking, notifier: &Notifier) {
        let mut ending = false;
        let watchdog = notifier.watchdog();
        let mut alive = tokio::time::interval(watchdog.unwrap_or(Duration::from_secs(3600)));
        loop {
            let handle = self.handle.clone();
            tokio::select! {
                biased;
                _ = &mut self.supervisor => return,
                _ = alive.tick() => {
                    if handle.status().await.is_some() {
                        notifier.alive();
                    }
                }
                word = word(&mut self.signals, &mut self.stop) => match word {
                    Word::End(name, drain) => {
                        if !ending {
                            notifier.stopping();
                        }
                        let again = if ending { " again" } else { "" };
                        end(handle, &format!("{name}{again}"), drain && !ending);
                        ending = true;
                    }
                    Word::Reload => asking.reload.notify_one(),
                    Word::Upgrade => asking.upgrade.notify_one(),
                },
            }
        }
    }
}

fn end(handle: Handle, name: &str, drain: bool) {
    if drain {
        tracing::info!(target: "hawksbill::server", "{name}: no new connections, finishing the requests under way");
    } else {
        tracing::warn!(target: "hawksbill::server", "{name}: connections are cut now");
    }
    tokio::spawn(async move { handle.stop(drain).await });
}

/// What ends or changes the gateway next.
async fn word(signals: &mut Signals, stop: &mut mpsc::Receiver<bool>) -> Word {
    loop {
        tokio::select! {
            signal = signals.next() => match signal {
                Received::Terminate | Received::Interrupt => return Word::End(signal.name(), true),
                Received::Reload => return Word::Reload,
                Received::User2 => return Word::Upgrade,
                Received::User1 => {}
            },
            Some(drain) = stop.recv() => return Word::End("hawksbill stop", drain),
        }
    }
}

/// Processes that start later are told too how much to log.
async fn keep_level(handle: Handle, mut level: watch::Receiver<Option<LogLevel>>) {
    let mut events = handle.events();
    loop {
        tokio::select! {
            changed = level.changed() => if changed.is_err() { return },
            event = events.recv() => match event {
                Ok(Event::Ready { .. }) | Err(RecvError::Lagged(_)) => {}
                Ok(_) => continue,
                Err(RecvError::Closed) => return,
            },
        }
        let wanted = *level.borrow_and_update();
        if let Some(wanted) = wanted {
            log::set_level(wanted);
            handle.log_level(wanted.to_string()).await;
        }
    }
}

/// Tells people what happens to processes.
async fn tell(mut events: broadcast::Receiver<Event>) {
    loop {
        match events.recv().await {
            Ok(event) => tell_one(&event),
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
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
        Event::Finished { pool, exit } => {
            tracing::info!(target: "hawksbill::supervisor", "{pool}: it ended with {exit} and is not started again");
        }
        Event::Scaled { pool, target } => {
            tracing::info!(target: "hawksbill::supervisor", "{pool}: {target} processes from now on");
        }
        _ => {}
    }
}
