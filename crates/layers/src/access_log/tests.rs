use std::path::Path as FilePath;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt, stream};
use hawksbill_core::body::to_bytes;
use hawksbill_core::config::{Origin, parse_toml};
use hawksbill_core::{Address, Connection, Forwarded, Generation, Kind, Peer, Scheme};
use http::Method;

use super::*;

/// A turtle beneath a JSON log of the site `example.com`.
struct Logged {
    dir: tempfile::TempDir,
    turtle: Turtle,
    generation: Generation,
}

async fn logged(app: Turtle) -> Logged {
    let dir = tempfile::tempdir().unwrap();
    let mut builder = Builder::new(dir.path());
    let log = AccessLog::to("access.log").format(LogFormat::Json);
    let turtle = builder.in_site("example.com", |cx| log.wrap(app, cx)).unwrap();
    let mut generation = builder.finish();
    generation.start().await.unwrap();
    Logged { dir, turtle, generation }
}

impl Logged {
    /// Ends the generation and reads what was written.
    async fn lines(self) -> Vec<serde_json::Value> {
        self.generation.stop().await;
        let text = std::fs::read_to_string(self.dir.path().join("access.log")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    async fn line(self) -> serde_json::Value {
        let lines = self.lines().await;
        assert_eq!(lines.len(), 1, "{lines:?}");
        lines.into_iter().next().unwrap()
    }
}

fn parts() -> Turtle {
    Turtle::from_fn(async |_| {
        let parts = stream::iter(["tur", "tle"]).map(Ok::<_, Error>);
        Ok(Response::new(Body::from_stream(parts)))
    })
}

fn get() -> Request<Body> {
    Request::get("/a?b=c").header("host", "Example.com:8000").body(Body::empty()).unwrap()
}

async fn read(path: &FilePath, enough: impl Fn(&str) -> bool) -> String {
    for _ in 0..100 {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        if enough(&text) {
            return text;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{} never had what was waited for", path.display());
}

#[tokio::test]
async fn a_request_is_logged_when_its_body_ends() {
    let logged = logged(parts()).await;
    let mut request = get();
    let remote = Address::Tcp("10.0.0.1:4711".parse().unwrap());
    let peer = Peer::new(Connection { remote: remote.clone(), local: remote, scheme: Scheme::Http });
    let client = Some("[2001:db8::1]:99".parse().unwrap());
    request.extensions_mut().insert(peer.forwarded(Forwarded { client, scheme: None, host: None }));
    let response = logged.turtle.ask(request).await.unwrap();
    tokio::time::sleep(Duration::from_millis(30)).await;
    assert_eq!(to_bytes(response.into_body(), 100).await.unwrap(), "turtle");
    let line = logged.line().await;
    assert_eq!(line["client"], "2001:db8::1");
    assert_eq!(line["port"], 99);
    assert_eq!((&line["method"], &line["uri"]), (&"GET".into(), &"/a?b=c".into()));
    assert_eq!((&line["host"], &line["site"]), (&"Example.com:8000".into(), &"example.com".into()));
    assert_eq!((&line["status"], &line["bytes"]), (&200.into(), &6.into()));
    assert!(line["duration"].as_f64().unwrap() >= 0.03);
    assert!(line.get("aborted").is_none() && line.get("error").is_none());
}

#[tokio::test]
async fn a_body_that_is_dropped_was_aborted() {
    let logged = logged(parts()).await;
    let mut body = logged.turtle.ask(get()).await.unwrap().into_body().into_data_stream();
    assert_eq!(body.next().await.unwrap().unwrap(), "tur");
    drop(body);
    let line = logged.line().await;
    assert_eq!((&line["status"], &line["bytes"]), (&200.into(), &3.into()));
    assert_eq!(line["aborted"], true);
}

#[tokio::test]
async fn a_server_that_reads_no_further_than_the_length_aborts_nothing() {
    let logged = logged(Turtle::from_fn(async |_| Ok(Response::new(Body::from("turtle"))))).await;
    let mut body = logged.turtle.ask(get()).await.unwrap().into_body().into_data_stream();
    assert_eq!(body.next().await.unwrap().unwrap(), "turtle");
    drop(body);
    let head = Request::builder().method(Method::HEAD).body(Body::empty()).unwrap();
    drop(logged.turtle.ask(head).await.unwrap());
    let lines = logged.lines().await;
    assert_eq!(lines.iter().map(|line| line["bytes"].as_u64().unwrap()).collect::<Vec<_>>(), [6, 0]);
    assert!(lines.iter().all(|line| line.get("aborted").is_none()), "{lines:?}");
}

#[tokio::test]
async fn a_call_that_is_dropped_is_499() {
    let logged = logged(Turtle::from_fn(|_| std::future::pending())).await;
    assert!(logged.turtle.ask(get()).now_or_never().is_none());
    let line = logged.line().await;
    assert_eq!((&line["status"], &line["aborted"]), (&499.into(), &true.into()));
}

#[tokio::test]
async fn an_error_is_logged_and_passed_on() {
    let app = Turtle::from_fn(async |_| Err(Error::new(Kind::BadGateway).because("app shop died")));
    let logged = logged(app).await;
    assert_eq!(logged.turtle.ask(get()).await.unwrap_err().kind(), Kind::BadGateway);
    let line = logged.line().await;
    assert_eq!((&line["status"], &line["error"]), (&502.into(), &"502 Bad Gateway: app shop died".into()));
}

#[tokio::test]
async fn a_body_that_fails_is_logged_with_its_error() {
    let app = Turtle::from_fn(async |_| {
        let parts = stream::iter([Ok("tur"), Err(Error::new(Kind::Internal).because("generator raised"))]);
        Ok(Response::new(Body::from_stream(parts)))
    });
    let logged = logged(app).await;
    let response = logged.turtle.ask(get()).await.unwrap();
    assert!(to_bytes(response.into_body(), 100).await.is_err());
    let line = logged.line().await;
    assert_eq!((&line["status"], &line["bytes"]), (&200.into(), &3.into()));
    assert!(line["error"].as_str().unwrap().ends_with("generator raised"));
}

#[tokio::test]
async fn an_upgrade_is_logged_when_it_is_answered() {
    let app = Turtle::from_fn(async |_| {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        Ok(response)
    });
    let logged = logged(app).await;
    let _response = logged.turtle.ask(get()).await.unwrap();
    assert_eq!(logged.line().await["status"], 101);
}

#[tokio::test]
async fn lines_are_there_at_once_and_whole() {
    let logged = logged(parts()).await;
    for _ in 0..5000 {
        drop(logged.turtle.ask(get()).await.unwrap());
    }
    let path = logged.dir.path().join("access.log");
    let text = read(&path, |text| text.lines().count() == 5000).await;
    assert!(text.lines().all(|line| line.starts_with('{') && line.ends_with('}')));
}

#[tokio::test]
async fn a_file_that_was_moved_gets_a_successor() {
    let logged = logged(parts()).await;
    let (path, moved) = (logged.dir.path().join("access.log"), logged.dir.path().join("access.log.1"));
    drop(logged.turtle.ask(get()).await.unwrap());
    read(&path, |text| text.ends_with('\n')).await;
    std::fs::rename(&path, &moved).unwrap();
    drop(logged.turtle.ask(get()).await.unwrap());
    read(&path, |text| text.lines().count() == 1).await;
    assert_eq!(std::fs::read_to_string(&moved).unwrap().lines().count(), 1);
}

#[tokio::test]
async fn one_file_has_one_writer_and_keeps_what_it_had() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("access.log"), "before\n").unwrap();
    let mut builder = Builder::new(dir.path());
    let first = AccessLog::to("access.log").wrap(parts(), &mut builder).unwrap();
    let second = AccessLog::to(dir.path().join("access.log")).wrap(parts(), &mut builder).unwrap();
    let mut generation = builder.finish();
    generation.start().await.unwrap();
    drop(first.ask(get()).await.unwrap());
    drop(second.ask(get()).await.unwrap());
    generation.stop().await;
    let text = std::fs::read_to_string(dir.path().join("access.log")).unwrap();
    assert_eq!(text.lines().count(), 3);
    assert!(text.starts_with("before\n- - - ["));
}

#[tokio::test]
async fn off_is_absent() {
    let mut builder = Builder::new("/nowhere");
    let turtle = AccessLog::Off.wrap(parts(), &mut builder).unwrap();
    assert!(builder.finish().start().await.is_ok());
    drop(turtle.ask(get()).await.unwrap());
}

#[tokio::test]
async fn a_log_that_cannot_be_written_keeps_from_starting() {
    let dir = tempfile::tempdir().unwrap();
    let missing = AccessLog::to("none/access.log").wrap(parts(), &mut Builder::new(dir.path())).unwrap_err();
    assert!(missing.to_string().ends_with("/none does not exist; create it"), "{missing}");
    let mut builder = Builder::new(dir.path());
    std::fs::create_dir(dir.path().join("access.log")).unwrap();
    AccessLog::to("access.log").wrap(parts(), &mut builder).unwrap();
    let error = builder.finish().start().await.unwrap_err().to_string();
    assert!(error.contains("cannot write to") && error.contains("Is a directory"), "{error}");
}

#[test]
fn settings_are_read_in_all_spellings() {
    let read = |toml: &str| {
        let tree = parse_toml("f.toml", toml).unwrap();
        tree.at(&["log"])
            .unwrap()
            .decode::<AccessLog>(&Path::root().key("log"))
            .map_err(|error| error.to_string())
    };
    assert_eq!(read("log = true"), Ok(AccessLog::to("-")));
    assert_eq!(read("log = false"), Ok(AccessLog::Off));
    assert_eq!(read("log = \"/x.log\""), Ok(AccessLog::to("/x.log")));
    assert_eq!(read("log = { format = \"json\" }"), Ok(AccessLog::to("-").format(LogFormat::Json)));
    for (toml, reason) in [
        ("log = { pth = \"-\" }", "f.toml:1:9: unknown key 'pth' in [log]; did you mean 'path'?"),
        ("log = { format = \"jsn\" }", "f.toml:1:18: log.format:"),
        ("log = 3", "f.toml:1:7: log: found 3 (a number), expected a path"),
        ("log = \"\"", "f.toml:1:7: log: found \"\" (a string), expected a path"),
    ] {
        let error = read(toml).unwrap_err();
        assert!(error.starts_with(reason), "{error}");
    }
    let flag = Value::untyped("false", Origin::named("flag --log"));
    assert_eq!(flag.decode::<AccessLog>(&Path::root()).unwrap(), AccessLog::Off);
}

#[test]
fn settings_have_one_canonical_spelling() {
    let json = |log: AccessLog| serde_json::to_string(&log).unwrap();
    assert_eq!(json(AccessLog::to("-")), r#"{"path":"-","format":"combined"}"#);
    assert_eq!(json(AccessLog::Off), "false");
}
