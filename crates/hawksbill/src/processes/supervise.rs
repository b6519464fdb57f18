//! The supervisor's side: a configuration is put into practice, signals are obeyed, what happens is told.

use std::io::{self, Write};
use std::time::Duration;

use hawksbill_core::{Address, Registry};
use hawksbill_supervisor::systemd::{self, Notifier};
use hawksbill_supervisor::{Descriptors, Event, Handle, Of, Received, Resume, Settings, Signals, Supervisor};
use serde_json::json;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::MissedTickBehavior;

use super::development::{self, Counted, Modes};
use super::heir::Estate;
use super::pages::{self, Pages};
use super::practice::{Asking, Practice};
use super::private;
use super::ready::{self, Watch};
use super::sockets::Sockets;
use super::{CLOSING, Facts, touch};
use crate::config::LogLevel;
use crate::control::{Api, Control, Lookout, Subject};
use crate::cron::{self, Board, Past};
use crate::{Config, log};

/// How many requests of the control socket may wait.
const WAITING: usize = 16;

/// Makes the screen of the start, for the addresses that were really bound.
pub(crate) type AtStart = Box<dyn Fn(&[Address]) -> String>;

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
    /// What a person sees when the gateway serves at these addresses, if anything.
    pub(crate) screen: Option<AtStart>,
    /// Whether somebody edits the applications.
    pub(crate) development: bool,
    /// What counts as a change then.
    pub(crate) counted: Counted,
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
        let (wishes, wished) = mpsc::channel(pages::WAITING);
        let settings = Settings { lines: Some(watch.lines()), wishes: Some(wishes), ..Settings::default() };
        let mut estate = resume.as_ref().map(Estate::of).transpose()?;
        let supervisor = match resume {
            Some(resume) => Supervisor::resume(settings, resume),
            None => Supervisor::new(settings, Descriptors::new()),
        };
        let (supervisor, handle) =
            supervisor.map_err(|error| format!("cannot look after processes: {error}"))?;
        let sockets = open(estate.as_mut(), &supervisor)?;
        let mut practice = Practice::new(&how, handle.clone(), watch.clone(), sockets);
        let config = match estate {
            Some(estate) => practice.resume(estate).map(|()| None)?,
            None => Some(config),
        };
        let supervisor = tokio::spawn(supervisor.run());
        // They end with this set.
        let mut beside = JoinSet::new();
        let modes = how.development.then(Modes::of_terminal).flatten();
        beside.spawn(tell(handle.events(), modes));
        beside.spawn(ready::look(watch, seen, handle.clone()));
        let board = Board::default();
        beside.spawn(cron::keep(practice.jobs(), handle.clone(), board.clone(), Past::of(&how.subject)));
        beside.spawn(private::tidy(practice.private(), handle.clone()));
        let (touches, touched) = mpsc::channel(1);
        if how.development {
            beside.spawn(development::keep(practice.sources(), touches.clone()));
        }
        beside.spawn(touch::keep(practice.files(), touches));
        let (changes, requests) = mpsc::channel(WAITING);
        let (stops, stop) = mpsc::channel(WAITING);
        let level = watch::Sender::new(None);
        beside.spawn(keep_level(handle.clone(), level.subscribe()));
        let (serves, facts) = (how.subject.to_string(), practice.facts());
        let began = practice.began();
        let lookout = Lookout::new(handle.clone(), began, &serves, facts.clone());
        let api = Api { handle: handle.clone(), began, serves, facts, changes, stops, level, board, lookout };
        beside.spawn(Pages::of(&api).keep(wished));
        if let Some(control) = &control {
            control.serve(api.turtle()).map_err(|error| format!("cannot listen for commands: {error}"))?;
        }
        let mut gateway =
            Running { how: &how, handle, signals, stop, supervisor, notifier: Notifier::from_environment() };
        let ended = gateway.run(config, practice, requests, touched).await;
        if let Some(control) = control {
            control.end().await;
        }
        ended
    })
}

/// The sockets that are open already: a former program's, or else what a service manager passes. Of that one a former program
/// has taken its part.
fn open(estate: Option<&mut Estate>, supervisor: &Supervisor) -> Result<Sockets, String> {
    let Some(estate) = estate else {
        let passed = systemd::sockets().map_err(|error| error.to_string());
        let sockets = passed.and_then(Sockets::passed);
        return sockets.map_err(|error| format!("cannot use what the service manager passes: {error}"));
    };
    let (kept, passed) = (std::mem::take(&mut estate.sockets), std::mem::take(&mut estate.passed));
    let sockets = Sockets::resume(kept, passed, |name| supervisor.descriptor(name));
    sockets.map_err(|error| format!("cannot take over: {error}"))
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
        touched: mpsc::Receiver<touch::Touched>,
    ) -> Result<(), String> {
        if let Some(config) = config {
            let started = tokio::select! {
                started = practice.start(config) => started,
                name = self.ending() => Err(format!("{name} before the applications had started")),
            };
            if let Err(error) = started {
                self.notifier.stopping();
                self.handle.stop(false).await;
                return Err(error);
            }
            self.say_ready(&practice.addresses());
        }
        let asking = Asking::default();
        let notifier = std::mem::take(&mut self.notifier);
        let facts = practice.facts();
        let around = |begins: bool| if begins { notifier.reloading() } else { notifier.ready("serving") };
        tokio::select! {
            () = practice.obey(requests, touched, &asking, around) => {}
            () = stay_alive(self.handle.clone(), &notifier) => {}
            () = self.until_ended(&asking, &notifier, facts) => {}
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
        if let Some(screen) = &self.how.screen {
            let mut stderr = io::stderr();
            for address in addresses {
                let _ = writeln!(stderr, "hawksbill: listening on {}", crate::cli::url(address));
            }
            let _ = stderr.write_all(screen(addresses).as_bytes());
        }
        self.notifier.ready("serving");
    }

    async fn until_ended(&mut self, asking: &Asking, notifier: &Notifier, facts: watch::Receiver<Facts>) {
        let mut ending = false;
        loop {
            let handle = self.handle.clone();
            tokio::select! {
                biased;
                _ = &mut self.supervisor => return,
                word = word(&mut self.signals, &mut self.stop) => match word {
                    Word::End(name, drain) => {
                        if !ending {
                            notifier.stopping();
                        }
                        let again = if ending { " again" } else { "" };
                        let how = (drain && !ending).then(|| facts.borrow().drain_delay);
                        end(handle, format!("{name}{again}"), how);
                        ending = true;
                    }
                    // There are no hangups of a terminal that is there.
                    Word::Reload if self.how.development && development::is_hung_up() => {
                        end(handle, "the terminal was closed".to_owned(), None);
                        ending = true;
                    }
                    Word::Reload => asking.reload.notify_one(),
                    Word::Upgrade => asking.upgrade.notify_one(),
                },
            }
        }
    }
}

/// Tells the service manager that the supervisor answers, as often as it wants to hear it; for ever.
async fn stay_alive(handle: Handle, notifier: &Notifier) {
    if let Some(often) = notifier.watchdog() {
        let mut next = tokio::time::interval(often);
        next.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            next.tick().await;
            if handle.status().await.is_none() {
                break;
            }
            notifier.alive();
        }
    }
    std::future::pending::<()>().await;
}

/// Ends everything, at once or after this time in which it goes on accepting, by a drain.
fn end(handle: Handle, name: String, drain: Option<Duration>) {
    tokio::spawn(async move {
        let Some(delay) = drain else {
            tracing::warn!(target: "hawksbill::server", "{name}: connections are cut now");
            return handle.stop(false).await;
        };
        if !delay.is_zero() {
            tracing::info!(target: "hawksbill::server", "{name}: not ready any more, new connections for another {delay:?}");
            let pools = handle.status().await.map(|status| status.pools).unwrap_or_default();
            for pool in pools.into_keys() {
                // One that is gone by now need not know.
                let _ = handle.tell(pool, json!(CLOSING)).await;
            }
            tokio::time::sleep(delay).await;
        }
        tracing::info!(target: "hawksbill::server", "{name}: no new connections, finishing the requests under way");
        handle.stop(true).await;
    });
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
async fn tell(mut events: broadcast::Receiver<Event>, modes: Option<Modes>) {
    loop {
        match events.recv().await {
            Ok(event) => {
                if let (Event::Ended { .. }, Some(modes)) = (&event, &modes) {
                    modes.restore();
                }
                tell_one(&event);
            }
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}

fn tell_one(event: &Event) {
    let process = |of: &Of| format!("{}: process {}", of.pool, of.process);
    match event {
        Event::Ended { of, exit, expected: false, answered: false, message } => {
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
