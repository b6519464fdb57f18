//! When a service is ready: found from outside, and told to the supervisor.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hawksbill_core::Body;
use hawksbill_supervisor::{Event, Handle, Lines, State};
use http::Request;
use http::header::HOST;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use regex_lite::Regex;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::config::Ready;
use crate::{Config, log};

/// How long to wait before one that is not ready is asked again.
const AGAIN: Duration = Duration::from_millis(100);

/// How long one question may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// How the services are seen to be ready, by their names.
#[derive(Clone, Debug, Default)]
pub(super) struct Signs(BTreeMap<String, Sign>);

#[derive(Clone, Debug)]
enum Sign {
    Asked(Ready),
    Line(Regex),
}

impl Signs {
    pub(super) fn of(config: &Config) -> Self {
        let signs = config.services.iter().filter_map(|(name, service)| {
            let sign = match service.table.ready.clone()? {
                // That it is one was seen before.
                Ready::Line(line) => Sign::Line(Regex::new(&line).ok()?),
                Ready::Accepts(address) => Sign::Asked(Ready::Accepts(absolute(address, &config.dir))),
                other => Sign::Asked(other),
            };
            Some((name.clone(), sign))
        });
        Self(signs.collect())
    }
}

/// An address in which the path of a socket is a full one.
fn absolute(address: String, dir: &Path) -> String {
    match address.strip_prefix("unix:") {
        Some(path) => format!("unix:{}", dir.join(path).display()),
        None => address,
    }
}

/// Takes what services write, and looks when they are ready.
#[derive(Clone)]
pub(super) struct Watch {
    signs: Arc<Mutex<Signs>>,
    seen: mpsc::UnboundedSender<u64>,
}

impl Watch {
    /// The second is what [`look`] needs.
    pub(super) fn new() -> (Self, mpsc::UnboundedReceiver<u64>) {
        let (seen, receiver) = mpsc::unbounded_channel();
        (Self { signs: Arc::default(), seen }, receiver)
    }

    /// Other signs count from now on; gives the former.
    pub(super) fn replace(&self, signs: Signs) -> Signs {
        std::mem::replace(&mut *self.signs.lock().unwrap_or_else(PoisonError::into_inner), signs)
    }

    fn sign(&self, service: &str) -> Option<Sign> {
        self.signs.lock().unwrap_or_else(PoisonError::into_inner).0.get(service).cloned()
    }

    /// Puts each line that a process writes into the log.
    pub(super) fn lines(&self) -> Lines {
        let watch = self.clone();
        Arc::new(move |line| {
            if let Some(Sign::Line(sign)) = watch.sign(line.pool)
                && sign.is_match(line.text)
            {
                // Nobody looks any more at the very end.
                let _ = watch.seen.send(line.process);
            }
            log::line(line)
        })
    }
}

/// Looks at services that start, and tells the supervisor when they are ready, for ever.
pub(super) async fn look(watch: Watch, mut seen: mpsc::UnboundedReceiver<u64>, handle: Handle) {
    let mut events = handle.events();
    let mut asking: HashMap<u64, JoinHandle<()>> = HashMap::new();
    // Some may have been started before.
    let mut missed = true;
    loop {
        if std::mem::take(&mut missed) {
            for (pool, process) in starting(&handle).await {
                begin(&watch, &handle, &pool, process, &mut asking);
            }
        }
        tokio::select! {
            Some(process) = seen.recv() => handle.ready(process).await,
            event = events.recv() => match event {
                Ok(Event::Started { of, .. }) => begin(&watch, &handle, &of.pool, of.process, &mut asking),
                Ok(Event::Ended { of, .. }) => if let Some(task) = asking.remove(&of.process) {
                    task.abort();
                },
                Ok(_) => {}
                Err(RecvError::Lagged(_)) => missed = true,
                Err(RecvError::Closed) => return,
            },
        }
    }
}

async fn starting(handle: &Handle) -> Vec<(String, u64)> {
    let pools = handle.status().await.map(|status| status.pools).unwrap_or_default();
    let starting = pools.into_iter().flat_map(|(name, pool)| {
        let processes = pool.processes.into_iter().filter(|process| process.state == State::Starting);
        processes.map(move |process| (name.clone(), process.process))
    });
    starting.collect()
}

fn begin(
    watch: &Watch,
    handle: &Handle,
    pool: &str,
    process: u64,
    asking: &mut HashMap<u64, JoinHandle<()>>,
) {
    let Some(Sign::Asked(ready)) = watch.sign(pool) else { return };
    let handle = handle.clone();
    asking.entry(process).or_insert_with(|| {
        tokio::spawn(async move {
            until_ready(&ready).await;
            handle.ready(process).await;
        })
    });
}

async fn until_ready(ready: &Ready) {
    if let Ready::Time(time) = ready {
        tokio::time::sleep(**time).await;
        return;
    }
    while !tokio::time::timeout(PATIENCE, is_ready(ready)).await.unwrap_or(false) {
        tokio::time::sleep(AGAIN).await;
    }
}

async fn is_ready(ready: &Ready) -> bool {
    match ready {
        Ready::Accepts(address) => match address.strip_prefix("unix:") {
            Some(path) => UnixStream::connect(path).await.is_ok(),
            None => TcpStream::connect(address).await.is_ok(),
        },
        Ready::Http(url) => answers(url).await.is_some_and(|status| status < 400),
        Ready::Line(_) | Ready::Time(_) => false,
    }
}

/// The status that is answered at a URL.
async fn answers(url: &str) -> Option<u16> {
    let uri: http::Uri = url.parse().ok()?;
    let host = uri.host()?;
    let stream =
        TcpStream::connect((host.trim_matches(['[', ']']), uri.port_u16().unwrap_or(80))).await.ok()?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
    let connection = tokio::spawn(connection);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let authority = uri.authority()?.as_str();
    let request = Request::get(path).header(HOST, authority).body(Body::empty()).ok()?;
    let status = sender.send_request(request).await.ok().map(|response| response.status().as_u16());
    connection.abort();
    status
}
