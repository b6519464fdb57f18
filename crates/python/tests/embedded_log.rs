//! A gateway inside a Rust program: what its Python applications raise is among the program's events.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code outside of test functions")]

use std::fmt::Debug;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hawksbill::{Gateway, GatewayBuilder, Running};
use hawksbill_python::Callable;
use pyo3::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

const PATIENCE: Duration = Duration::from_secs(20);

const SHOP: &str = "
def wsgi(environ, start_response):
    raise ValueError('nothing on the shelf of ' + environ['PATH_INFO'])

async def asgi(scope, receive, send):
    assert scope['type'] == 'http', 'no lifespan'
    raise LookupError('nobody at the till of ' + scope['path'])

def halfway(environ, start_response):
    start_response('200 OK', [])
    def blocks():
        yield b'one'
        raise RuntimeError('the shelf fell at ' + environ['PATH_INFO'])
    return blocks()
";

/// Keeps what this program is told.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<Line>>>);

#[derive(Clone, Debug, Default)]
struct Line {
    is_error: bool,
    target: String,
    app: String,
    request_id: String,
    message: String,
}

impl<S: Subscriber> Layer<S> for Told {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let is_error = *metadata.level() == Level::ERROR;
        let mut line = Line { is_error, target: metadata.target().to_owned(), ..Line::default() };
        event.record(&mut line);
        self.0.lock().unwrap().push(line);
    }
}

impl Line {
    fn set(&mut self, field: &Field, value: String) {
        match field.name() {
            "message" => self.message = value,
            "app" => self.app = value,
            "request_id" => self.request_id = value,
            _ => {}
        }
    }
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field, value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.set(field, format!("{value:?}"));
    }
}

impl Told {
    /// What speaks of this, and nothing else that is told twice.
    async fn once(&self, word: &str) -> Line {
        let tells = |line: &&Line| line.message.contains("Traceback") && line.message.contains(word);
        let wait = async {
            while !self.0.lock().unwrap().iter().any(|line| tells(&line)) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let in_time = tokio::time::timeout(PATIENCE, wait).await;
        let lines = self.0.lock().unwrap().clone();
        assert!(in_time.is_ok(), "nothing of {word:?} in {lines:#?}");
        let found: Vec<_> = lines.iter().filter(tells).collect();
        assert_eq!(found.len(), 1, "{lines:#?}");
        found[0].clone()
    }
}

async fn start(dir: &std::path::Path) -> Running {
    let callable = |name: &str| {
        let path = dir.display().to_string();
        let value = serde_json::json!({ "callable": format!("embedded_shop:{name}"), "dir": path });
        serde_json::from_value::<Callable>(value).unwrap()
    };
    let registry = hawksbill::standard_registry().and_then(hawksbill_python::register).unwrap();
    let gateway: Gateway = GatewayBuilder::new(registry)
        .listen("127.0.0.1:0")
        .app("shop", callable("wsgi"))
        .app("till", callable("asgi"))
        .app("half", callable("halfway"))
        .site("*", |site| site.to("/", "shop").to("/till", "till").to("/half", "half"))
        .build()
        .unwrap();
    gateway.start().await.unwrap()
}

async fn get(running: &Running, path: &str) -> String {
    let mut stream = TcpStream::connect(running.addresses()[0].to_string()).await.unwrap();
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: a\r\nX-Request-ID: id-of-{path}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

/// Asks what raises under WSGI, under ASGI and within a response.
const ASKED: [(&str, &str, &str); 3] = [
    ("/a", "shop", "ValueError: nothing on the shelf of /a"),
    ("/till/b", "till", "LookupError: nobody at the till of /till/b"),
    ("/half/c", "half", "RuntimeError: the shelf fell at /half/c"),
];

#[tokio::test(flavor = "multi_thread")]
async fn what_applications_raise_is_told_once_with_its_traceback() {
    Python::initialize();
    let told = Told::default();
    tracing_subscriber::registry().with(told.clone()).init();
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("embedded_shop.py"), SHOP).unwrap();
    let running = start(dir.path()).await;
    for (path, app, word) in ASKED {
        let answer = get(&running, path).await;
        if app == "half" {
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        } else {
            assert!(
                answer.starts_with("HTTP/1.1 500 ") && answer.contains("The cause is in its log."),
                "{answer}"
            );
            assert!(!answer.contains("Traceback") && !answer.contains(word), "{answer}");
        }
        let line = told.once(word).await;
        assert!(line.is_error && line.target == "hawksbill::app", "{line:?}");
        assert_eq!((&*line.app, &line.request_id), (app, &format!("id-of-{path}")));
        assert!(line.message.starts_with(&format!("GET {path}: ")), "{line:?}");
        assert!(line.message.contains("embedded_shop.py\", line "), "{line:?}");
    }
    running.shutdown().begin();
    running.wait().await;
}

/// Set where the test below runs as the program that it looks at.
const PROGRAM: &str = "HAWKSBILL_TEST_PROGRAM";

#[tokio::test(flavor = "multi_thread")]
async fn in_a_program_that_takes_no_events_it_is_on_standard_error_once() {
    if std::env::var_os(PROGRAM).is_some() {
        return ask_all().await;
    }
    let own = "in_a_program_that_takes_no_events_it_is_on_standard_error_once";
    let mut program = Command::new(std::env::current_exe().unwrap());
    let ended = program.args(["--exact", own, "--nocapture"]).env(PROGRAM, "1").output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{said}");
    assert_eq!(said.matches("Traceback").count(), ASKED.len(), "{said}");
    for (path, app, word) in ASKED {
        let first =
            format!("hawksbill: application {app}: GET {path}: {word}\nTraceback (most recent call last):\n");
        assert_eq!(said.matches(&first).count(), 1, "{first}{said}");
    }
}

async fn ask_all() {
    Python::initialize();
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("embedded_shop.py"), SHOP).unwrap();
    let running = start(dir.path()).await;
    for (path, ..) in ASKED {
        get(&running, path).await;
    }
    running.shutdown().begin();
    running.wait().await;
}
