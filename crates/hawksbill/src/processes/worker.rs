//! A worker: a gateway, or a part of one, that accepts when its supervisor says so.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hawksbill_core::config::{Listen, Value};
use hawksbill_core::{Address, Body, BuildError, Connection, Peer, Registry, Scheme, Turtle, Vitals};
use hawksbill_server::Listener;
use hawksbill_supervisor::child::{Child, Orders, Reporter};
use hawksbill_supervisor::{Member, Order};
use http::Request;
use http::header::HOST;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::applications::Applications;
use super::entrance::{Entrance, Hop, Shutdown};
use super::pulse::{LOOK, Pulse};
use super::{Payload, Probe, Role, sockets};
use crate::gateway::Ready;
use crate::{Config, Gateway, log};

/// How long to wait before an application that is not ready is asked again.
const AGAIN: Duration = Duration::from_millis(200);

/// Works until the supervisor wants no more. What is inherited stands in the environment, unless it is given. Its own failures are told to the supervisor, who tells them to people.
///
/// # Errors
/// When no supervisor started this process.
pub(crate) fn work(inherited: Option<&str>, registry: &Registry) -> Result<(), String> {
    let child = inherited.map_or_else(Child::from_environment, Child::of);
    let mut child = child.map_err(|error| error.to_string())?;
    let reporter = child.reporter();
    let worked = Worker::new(&mut child, registry).and_then(Worker::run);
    if let Err(error) = worked {
        reporter.failed(error.to_string());
        // Said, but for the exit code.
        return Err(String::new());
    }
    Ok(())
}

struct Worker {
    gateway: Gateway,
    entrance: Entrance,
    /// Those that are elsewhere.
    applications: Option<Applications>,
    probe: Option<Probe>,
    reporter: Reporter,
    orders: Inbox,
}

/// What a worker is made of, by its role.
struct Parts {
    gateway: Gateway,
    entrance: Entrance,
    applications: Option<Applications>,
}

impl Worker {
    fn new(child: &mut Child, registry: &Registry) -> Result<Self, BuildError> {
        let reporter = child.reporter();
        let wrong = |error: &dyn std::fmt::Display| {
            BuildError::new(format!("what the supervisor says is not understood: {error}"))
        };
        let payload: Payload = serde_json::from_str(&child.start().payload).map_err(|error| wrong(&error))?;
        log::begin_in_worker(payload.log_level, &payload.name);
        let value = Value::carried(&payload.config).map_err(|error| wrong(&error))?;
        let config = Config::from_value(value, payload.dir, registry);
        let config = config.map_err(|error| BuildError::new(error.to_string()))?;
        let Parts { gateway, entrance, applications } = Parts::of(payload.role, config, child)?;
        let (vitals, told) = (gateway.vitals(), reporter.clone());
        vitals.on_stuck(move |stuck| told.stuck(&stuck.what, &stuck.detail));
        // Answered on the thread that reads the orders, so also while everything else hangs.
        child.answers("stacks", move || vitals.ask("stacks").into());
        let orders = child
            .orders()
            .map_err(|error| BuildError::new("cannot listen to the supervisor").caused_by(error))?;
        let orders = Inbox { orders, early: VecDeque::new() };
        Ok(Self { gateway, entrance, applications, probe: payload.ready, reporter, orders })
    }

    fn run(mut self) -> Result<(), BuildError> {
        let failed = |error: io::Error| BuildError::new("cannot start the runtime").caused_by(error);
        let loading = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let Some(gateway) = loading.block_on(self.orders.unless_ended(self.gateway.load())) else {
            return Ok(());
        };
        drop(loading);
        let gateway = gateway?;
        let Self { entrance, applications, probe, reporter, mut orders, .. } = self;
        let vitals = gateway.vitals();
        gateway.host(move |gateway| async move {
            let terminate = signal(SignalKind::terminate()).map_err(failed)?;
            let Some(ready) = orders.unless_ended(get_ready(gateway, probe)).await else { return Ok(()) };
            let ready = ready?;
            reporter.ready(entrance.info());
            let mut serving = Serving {
                ready,
                vitals,
                entrance,
                applications,
                reporter,
                open: None,
                opened: JoinSet::new(),
                shutdowns: Vec::new(),
            };
            let ended = serving.obey(&mut orders, terminate).await;
            serving.end(ended, &mut orders).await
        })?
    }
}

impl Parts {
    fn of(role: Role, mut config: Config, child: &mut Child) -> Result<Self, BuildError> {
        match role {
            Role::Gateway => {
                let inherited = inherit(&mut config, child)?;
                let gateway = Gateway::new(config)?.inherit(inherited);
                Ok(Self { gateway, entrance: Entrance::Sockets, applications: None })
            }
            Role::Front => {
                config.name_inline();
                let inherited = inherit(&mut config, child)?;
                let applications = Applications::of(&config);
                let gateway = Gateway::before(config, applications.turtles())?.inherit(inherited);
                Ok(Self { gateway, entrance: Entrance::Sockets, applications: Some(applications) })
            }
            Role::Behind { app, dir } => {
                let drain = *config.settings.drain;
                let gateway = Gateway::inner(config)?;
                let turtle = gateway.app(&app);
                let turtle =
                    turtle.ok_or_else(|| BuildError::new(format!("there is no application '{app}'")))?;
                let path = dir.join(format!("{}.sock", child.start().process));
                let entrance = Entrance::Hop(Hop::bind(path, turtle, drain)?);
                Ok(Self { gateway, entrance, applications: None })
            }
        }
    }
}

fn inherit(config: &mut Config, child: &mut Child) -> Result<Vec<(Listen, Listener)>, BuildError> {
    let listening = config.listen_somewhere(crate::cli::DEFAULT_LISTEN);
    listening.map_err(|error| BuildError::new(error.to_string()))?;
    sockets::inherited(child, &config.sockets())
}

/// The orders, and those that came before there was anything that could obey them.
struct Inbox {
    orders: Orders,
    early: VecDeque<Order>,
}

impl Inbox {
    async fn next(&mut self) -> Order {
        match self.early.pop_front() {
            Some(order) => order,
            None => self.orders.next().await,
        }
    }

    /// Waits for a part of the start. `None`: the supervisor does not want it any more.
    async fn unless_ended<T>(&mut self, starting: impl Future<Output = T>) -> Option<T> {
        let ended = async {
            loop {
                match self.orders.next().await {
                    Order::Drain { .. } | Order::Stop | Order::Gone => return,
                    order => self.early.push_back(order),
                }
            }
        };
        tokio::select! {
            started = starting => Some(started),
            () = ended => None,
        }
    }
}

/// Starts the applications, and waits until the one that is to be asked answers well.
async fn get_ready(gateway: Gateway, probe: Option<Probe>) -> Result<Ready, BuildError> {
    let app = probe.as_ref().and_then(|probe| gateway.app(&probe.app));
    let ready = gateway.get_ready().await?;
    if let (Some(probe), Some(app)) = (&probe, app)
        && let Err(error) = is_ready(&app, probe).await
    {
        ready.applications.stop().await;
        return Err(error);
    }
    Ok(ready)
}

/// Asks an application until it answers well.
async fn is_ready(app: &Turtle, probe: &Probe) -> Result<(), BuildError> {
    let most = Duration::try_from_secs_f64(probe.seconds).unwrap_or(Duration::MAX);
    let began = Instant::now();
    loop {
        let mut request =
            Request::get(&probe.path).header(HOST, &probe.host).body(Body::empty()).map_err(|error| {
                BuildError::new(format!("the readiness path {:?} is no path", probe.path)).caused_by(error)
            })?;
        let facts =
            Connection { remote: Address::Unix(None), local: Address::Unix(None), scheme: Scheme::Http };
        request.extensions_mut().insert(Peer::new(facts));
        let left = most.saturating_sub(began.elapsed());
        let said = match tokio::time::timeout(left, app.clone().infallible().ask(request)).await {
            Ok(Ok(response)) if response.status().as_u16() < 400 => return Ok(()),
            Ok(Ok(response)) => format!("answers {}", response.status()),
            Ok(Err(never)) => match never {},
            Err(_) => "does not answer".to_owned(),
        };
        if began.elapsed() + AGAIN >= most {
            return Err(BuildError::new(format!(
                "application {} is not ready after {} s: {} {said}",
                probe.app, probe.seconds, probe.path
            )));
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// How it comes to the end.
#[derive(Clone, Copy, PartialEq)]
enum End {
    /// Others serve on at the same sockets.
    Leave,
    Drain,
    Now,
}

impl End {
    /// The end that an order means, if any.
    fn by(order: &Order) -> Option<Self> {
        match order {
            Order::Drain { replaced: true, .. } => Some(Self::Leave),
            Order::Drain { .. } | Order::Gone => Some(Self::Drain),
            Order::Stop => Some(Self::Now),
            _ => None,
        }
    }

    fn tell(self, shutdown: &Shutdown) {
        match self {
            Self::Leave => shutdown.leave(),
            Self::Drain => shutdown.begin(),
            Self::Now => shutdown.cut(),
        }
    }
}

struct Serving {
    ready: Ready,
    vitals: Arc<Vitals>,
    entrance: Entrance,
    applications: Option<Applications>,
    reporter: Reporter,
    /// Whoever accepts now.
    open: Option<Shutdown>,
    /// All that have accepted, until their last connection is gone.
    opened: JoinSet<()>,
    shutdowns: Vec<Shutdown>,
}

impl Serving {
    async fn obey(&mut self, orders: &mut Inbox, mut terminate: Signal) -> Result<End, BuildError> {
        let mut pulse = Pulse::new(self.vitals.clone());
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                order = orders.next() => match order {
                    Order::Serve if self.open.is_none() => self.serve()?,
                    Order::Pause => {
                        if let Some(server) = self.open.take() {
                            server.leave();
                        }
                    }
                    Order::LogLevel { level } => {
                        if let Ok(level) = level.parse() {
                            log::set_level(level);
                        }
                    }
                    Order::Members { id, pool, members } => self.follow(id, &pool, &members),
                    Order::Query { id, .. } => self.reporter.answer(id, serde_json::Value::Null),
                    order => if let Some(end) = End::by(&order) {
                        return Ok(end);
                    }
                },
                _ = terminate.recv() => return Ok(End::Drain),
                _ = look.tick() => if let Some(beat) = pulse.look() {
                    self.reporter.beat(beat);
                },
                Some(_) = self.opened.join_next() => {}
            }
        }
    }

    /// Who serves an application has changed. Said to be done when nothing new goes to anybody else.
    fn follow(&mut self, id: u64, pool: &str, members: &[Member]) {
        let followed = self.applications.as_mut().map(|applications| applications.follow(pool, members));
        let reporter = self.reporter.clone();
        tokio::spawn(async move {
            if let Some(followed) = followed {
                followed.await;
            }
            reporter.answer(id, serde_json::Value::Null);
        });
    }

    fn serve(&mut self) -> Result<(), BuildError> {
        let open = self.entrance.open(&self.ready)?;
        let shutdown = open.shutdown();
        self.shutdowns.retain(Shutdown::has_connections);
        self.shutdowns.push(shutdown.clone());
        self.open = Some(shutdown);
        self.opened.spawn(open.wait());
        Ok(())
    }

    async fn end(mut self, ended: Result<End, BuildError>, orders: &mut Inbox) -> Result<(), BuildError> {
        let mut end = *ended.as_ref().unwrap_or(&End::Now);
        self.shutdowns.iter().for_each(|shutdown| end.tell(shutdown));
        loop {
            tokio::select! {
                gone = self.opened.join_next() => if gone.is_none() {
                    break;
                },
                // The last order is repeated for ever; what was heard is not listened for again.
                order = orders.next(), if end == End::Leave || end == End::Drain => match End::by(&order) {
                    Some(End::Now) => end = End::Now,
                    Some(End::Drain) if end == End::Leave => end = End::Drain,
                    Some(_) if order == Order::Gone => {
                        while self.opened.join_next().await.is_some() {}
                        break;
                    }
                    _ => {
                        if let Order::Members { id, pool, members } = order {
                            self.follow(id, &pool, &members);
                        }
                        continue;
                    }
                },
            }
            self.shutdowns.iter().for_each(|shutdown| end.tell(shutdown));
        }
        self.ready.applications.stop().await;
        ended.map(drop)
    }
}
