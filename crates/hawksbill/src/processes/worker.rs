//! A worker: a gateway, or a part of one, that accepts when its supervisor says so.

use std::collections::VecDeque;
use std::io;
use std::pin::{Pin, pin};
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
use super::development::Bench;
use super::entrance::{Entrance, Hop, Shutdown};
use super::figures::{FIGURES, Told};
use super::pulse::{LOOK, Lull, Pulse, Room};
use super::{CLOSING, Payload, Probe, Role, private, sockets};
use crate::cli::Preloading;
use crate::gateway::Ready;
use crate::{Config, Gateway, log};

/// How long to wait before an application that is not ready is asked again.
const AGAIN: Duration = Duration::from_millis(200);

/// When one that has not answered is said not to.
const PATIENCE: Duration = Duration::from_secs(1);

/// What it is at before anything else, where that takes too long.
pub(super) const IMPORTS: &str = "it is still importing the application";

/// How long a front that is to serve waits for the first workers: they are told of right behind the order to serve, and who
/// asks meanwhile should not hear that there are none.
const INTRODUCTION: Duration = Duration::from_secs(2);

/// Works until the supervisor wants no more. What is inherited stands in the environment, unless it is given. Its own
/// failures are told to the supervisor, who tells them to people.
///
/// # Errors
/// When no supervisor started this process.
pub(crate) fn work(
    inherited: Option<&str>,
    registry: &Registry,
    give_back: fn(),
    preloading: Option<Preloading>,
) -> Result<(), String> {
    let child = inherited.map_or_else(Child::from_environment, Child::of);
    let mut child = child.map_err(|error| error.to_string())?;
    if child.is_preloader() {
        child = super::preload::preload(child, registry, preloading)?;
    }
    let reporter = child.reporter();
    let worked = Worker::new(&mut child, registry).and_then(|worker| worker.run(give_back));
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
    vitals: Arc<Vitals>,
    bench: Option<Bench>,
    /// Why the application is not to be started.
    broken: Option<String>,
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
        let Parts { gateway, mut entrance, applications } = Parts::of(payload.role, config, child)?;
        let (vitals, told) = (gateway.vitals(), reporter.clone());
        let kept = vitals.clone();
        vitals.on_stuck(move |stuck| told.stuck(&stuck.what, &stuck.detail));
        let wishing = reporter.clone();
        vitals.on_wish(move |wish| {
            if let Ok(wish) = serde_json::from_str(wish) {
                wishing.wish(wish);
            }
        });
        // Answered on the thread that reads the orders, so also while everything else hangs.
        let (counted, pools) = (vitals.clone(), applications.as_ref().map(Applications::pools));
        let pools = pools.unwrap_or_default();
        child.answers(FIGURES, move || serde_json::to_value(Told::now(&counted, &pools)).unwrap_or_default());
        child.answers("stacks", move || vitals.ask("stacks").into());
        let orders = child
            .orders()
            .map_err(|error| BuildError::new("cannot listen to the supervisor").caused_by(error))?;
        let orders = Inbox { orders, early: VecDeque::new() };
        let Payload { ready: probe, development, name, .. } = payload;
        let bench = development.as_ref().map(|development| Bench::new(&name, development));
        if let Some(bench) = &bench {
            bench.accompany(&mut entrance);
        }
        let broken = development.and_then(|development| development.broken);
        Ok(Self { gateway, entrance, applications, probe, bench, broken, vitals: kept, reporter, orders })
    }

    fn run(mut self, give_back: fn()) -> Result<(), BuildError> {
        let failed = |error: io::Error| BuildError::new("cannot start the runtime").caused_by(error);
        let loading = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        self.reporter.starting(IMPORTS);
        if let (Some(bench), Some(broken)) = (&self.bench, self.broken.take()) {
            self.gateway = bench.answer(broken, &mut self.entrance)?;
        }
        let Some(gateway) = loading.block_on(self.orders.unless_ended(self.gateway.load())) else {
            return Ok(());
        };
        drop(loading);
        let gateway = match (gateway, &self.bench) {
            (Err(error), Some(bench)) => bench.complain(&error, &mut self.entrance)?,
            (gateway, _) => gateway?,
        };
        let Self { mut entrance, applications, probe, bench, vitals, reporter, mut orders, .. } = self;
        gateway.host(move |gateway| async move {
            let terminate = signal(SignalKind::terminate()).map_err(failed)?;
            let Some(ready) = orders.unless_ended(get_ready(gateway, probe, &reporter)).await else {
                return Ok(());
            };
            let ready = match (ready, &bench) {
                (Err(error), Some(bench)) => bench.complain(&error, &mut entrance)?.get_ready().await?,
                (ready, _) => ready?,
            };
            let told = bench.as_ref().map(|bench| bench.told(&vitals)).unwrap_or_default();
            reporter.ready(entrance.info(told));
            let mut serving = Serving {
                ready,
                room: Room::of(&vitals),
                vitals,
                lull: Lull::before(give_back),
                entrance,
                applications,
                reporter,
                bench,
                is_forsaken: false,
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
                applications.tell(gateway.vitals().readiness());
                Ok(Self { gateway, entrance: Entrance::Sockets, applications: Some(applications) })
            }
            Role::Behind { app, dir } => {
                let drain = *config.settings.drain;
                let gateway = Gateway::inner(config)?;
                let turtle = gateway.app(&app);
                let turtle =
                    turtle.ok_or_else(|| BuildError::new(format!("there is no application '{app}'")))?;
                let path = private::socket(&dir, child.start().process);
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
                    // Nobody can look at it yet.
                    Order::Tell { .. } => {}
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
async fn get_ready(gateway: Gateway, probe: Option<Probe>, reporter: &Reporter) -> Result<Ready, BuildError> {
    let app = probe.as_ref().and_then(|probe| gateway.app(&probe.app));
    reporter.starting("the application is imported, its startup has not ended");
    let ready = gateway.get_ready().await?;
    if let (Some(probe), Some(app)) = (&probe, app)
        && let Err(error) = is_ready(&app, probe, reporter).await
    {
        ready.applications.stop().await;
        return Err(error);
    }
    Ok(ready)
}

/// Asks an application until it answers well. How long that may take is the supervisor's to see, which tells what was
/// answered last.
async fn is_ready(app: &Turtle, probe: &Probe, reporter: &Reporter) -> Result<(), BuildError> {
    loop {
        let mut request =
            Request::get(&probe.path).header(HOST, &probe.host).body(Body::empty()).map_err(|error| {
                BuildError::new(format!("the readiness path {:?} is no path", probe.path)).caused_by(error)
            })?;
        let facts =
            Connection { remote: Address::Unix(None), local: Address::Unix(None), scheme: Scheme::Http };
        request.extensions_mut().insert(Peer::new(facts));
        let mut asking = pin!(app.clone().infallible().ask(request));
        let asked = tokio::time::timeout(PATIENCE, &mut asking).await;
        if asked.is_err() {
            reporter.starting(format!("{} of application {} does not answer", probe.path, probe.app));
        }
        let Ok(response) = match asked {
            Ok(response) => response,
            Err(_) => asking.await,
        };
        if response.status().as_u16() < 400 {
            return Ok(());
        }
        let status = response.status();
        reporter.starting(format!("{} of application {} answers {status}", probe.path, probe.app));
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
    room: Option<Room>,
    lull: Lull,
    entrance: Entrance,
    applications: Option<Applications>,
    reporter: Reporter,
    /// In development what holds a connection hears at once that there is something newer.
    bench: Option<Bench>,
    /// Whether the supervisor is gone.
    is_forsaken: bool,
    /// Whoever accepts now.
    open: Option<Shutdown>,
    /// All that have accepted, until their last connection is gone.
    opened: JoinSet<()>,
    shutdowns: Vec<Shutdown>,
}

impl Serving {
    async fn obey(&mut self, orders: &mut Inbox, mut terminate: Signal) -> Result<End, BuildError> {
        let mut pulse = Pulse::default();
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut introduced: Option<Pin<Box<dyn Future<Output = ()> + Send>>> = None;
        loop {
            tokio::select! {
                order = orders.next() => match order {
                    Order::Serve if self.open.is_none() => introduced = Some(self.introduction()),
                    Order::Pause => {
                        introduced = None;
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
                    Order::Tell { value } if value == CLOSING => self.vitals.readiness().close(),
                    Order::Tell { value } => self.vitals.tell(&value.to_string()),
                    Order::Query { id, .. } => self.reporter.answer(id, serde_json::Value::Null),
                    order => if let Some(end) = End::by(&order) {
                        self.is_forsaken = order == Order::Gone;
                        return Ok(end);
                    }
                },
                () = async { if let Some(introduced) = &mut introduced { introduced.await } },
                    if introduced.is_some() => {
                    introduced = None;
                    self.serve()?;
                }
                _ = terminate.recv() => return Ok(End::Drain),
                _ = look.tick() => {
                    self.lull.look(self.open.as_ref().map_or(0, Shutdown::rests));
                    let sample = self.vitals.sample();
                    if let Some(beat) = pulse.look(&sample) {
                        self.reporter.beat(beat);
                    }
                    let room = self.room.as_mut().and_then(|room| room.look(&sample, Instant::now()));
                    if let (Some(room), Some(open)) = (room, &self.open) {
                        open.make_room(room);
                    }
                }
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

    /// What to wait for before it serves.
    fn introduction(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        match &self.applications {
            Some(applications) => {
                let all = tokio::time::timeout(INTRODUCTION, applications.all_serve());
                Box::pin(async move { drop(all.await) })
            }
            None => Box::pin(std::future::ready(())),
        }
    }

    fn serve(&mut self) -> Result<(), BuildError> {
        let open = self.entrance.open(&self.ready, self.room.as_mut().map(Room::begin))?;
        let shutdown = open.shutdown();
        self.shutdowns.retain(Shutdown::has_connections);
        self.shutdowns.push(shutdown.clone());
        self.open = Some(shutdown);
        self.opened.spawn(open.wait());
        Ok(())
    }

    async fn end(mut self, ended: Result<End, BuildError>, orders: &mut Inbox) -> Result<(), BuildError> {
        let mut end = *ended.as_ref().unwrap_or(&End::Now);
        if let Some(bench) = &self.bench {
            bench.leave();
            end = if end == End::Leave { End::Drain } else { end };
        }
        // The supervisor has the sockets. If it is gone, its successor can open them as soon as nobody has them.
        self.ready.listeners.clear();
        // Whoever is told something for as long as the process serves asks another one now.
        self.vitals.tell("null");
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
                        self.is_forsaken = true;
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
        if self.is_forsaken {
            self.entrance.tear_down();
        }
        ended.map(drop)
    }
}
