//! Configuration: one tree however it is spelt, and errors that name their place.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::path::Path;

use hawksbill::apps::{Files, Redirect, Respond};
use hawksbill::core::config::{ConfigError, Size};
use hawksbill::layers::{AccessLog, MaxBody};
use hawksbill::{Config, Gateway, standard_registry};

fn parse(toml: &str) -> Result<Config, ConfigError> {
    Config::parse("hawksbill.toml", toml, ".", &standard_registry().unwrap())
}

/// Compares with a file beside this test; `UPDATE_GOLDEN=1` writes it.
fn golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let expected =
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(text, expected, "differs from {}", path.display());
}

#[test]
fn toml_and_rust_make_the_same_tree() {
    let toml = parse(&std::fs::read_to_string("tests/golden/sites.toml").unwrap()).unwrap();
    let rust = Gateway::builder()
        .listen("127.0.0.1:8000")
        .listen("unix:/run/hawksbill.sock")
        .with(AccessLog::to("-"))
        .app("public", Files::of("public"))
        .site("example.com www.example.com", |site| {
            site.with(MaxBody(Size::megabytes(10)))
                .to("/", "public")
                .app("/hello", Respond::text("hello"))
                .app("/static", Files::of("static"))
        })
        .site("*.example.com", |site| {
            site.listen("[::1]:9000").app("/", Redirect::to("https://example.com{uri}"))
        })
        .config()
        .unwrap();
    assert_eq!(rust.to_string(), toml.to_string());
    golden("sites.tree", &toml.to_string());
}

#[test]
fn each_mistake_is_told_with_its_place() {
    let file = std::fs::read_to_string("tests/golden/mistakes.toml").unwrap();
    let mut told = String::new();
    for case in file.split("#---\n") {
        let message = match parse(case).and_then(|config| {
            Gateway::new(config).map(drop).map_err(|error| {
                ConfigError::new(hawksbill::core::config::Origin::unknown(), error.to_string())
            })
        }) {
            Ok(()) => "no mistake\n".to_owned(),
            Err(error) => format!("{error}\n"),
        };
        told.push_str(&message);
        told.push_str("---\n");
    }
    assert!(!told.contains("no mistake"), "{told}");
    golden("mistakes.txt", &told);
}

#[test]
fn files_are_included_and_variables_expanded() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    std::fs::create_dir(dir.path().join("sites")).unwrap();
    write("hawksbill.toml", "include = ['sites/*.toml']\nlisten = '127.0.0.1:${HAWKSBILL_TEST_UNSET:-0}'\n");
    write("sites/a.toml", "[sites.'a.test']\n'/' = { respond = 'a' }\n");
    write("sites/b.toml", "[apps.b]\nrespond = 'b'\n[sites.'b.test']\n'/' = 'b'\n");
    let load = || {
        Config::load(
            &dir.path().join("hawksbill.toml"),
            hawksbill::core::config::Table::new(),
            &standard_registry().unwrap(),
        )
    };
    let config = load().unwrap();
    let names: Vec<&str> = config.sites.iter().map(|site| site.name.as_str()).collect();
    assert_eq!(names, ["a.test", "b.test"]);
    assert_eq!(config.settings.listen[0].to_string(), "127.0.0.1:0");

    write("sites/c.toml", "\n[sites.'a.test']\n'/' = { respond = 'again' }\n");
    let twice = load().err().unwrap().to_string();
    assert!(
        twice.contains("c.toml:2:8") && twice.contains("defined twice") && twice.contains("a.toml:1:8"),
        "{twice}"
    );
    write("sites/c.toml", "listen = ':80'\n");
    let top = load().err().unwrap().to_string();
    assert!(top.contains("c.toml:1:1") && top.contains("main file"), "{top}");
}

#[tokio::test]
async fn a_socket_in_use_is_told_before_anything_starts() {
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = held.local_addr().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("first.sock");
    let toml = format!(
        "listen = ['unix:{}', '{address}']\n[sites.'*']\n'/' = {{ respond = 'x' }}\n",
        socket.display()
    );
    let error = Gateway::new(parse(&toml).unwrap()).unwrap().start().await.err().unwrap().to_string();
    assert!(error.contains(&address.to_string()) && error.contains("in use"), "{error}");
    assert!(!socket.exists(), "half-started: the first socket's file is still there");
}

#[tokio::test]
async fn sockets_can_be_handed_in() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let gateway =
        Gateway::builder().listener(listener).site("*", |site| site.app("/", Respond::text("given")));
    let running = gateway.build().unwrap().start().await.unwrap();
    assert_eq!(running.addresses()[0].to_string(), address.to_string());
    assert_eq!(support::get(address, "any", "/").await.body, "given");
    support::stop(running).await;
}

#[test]
fn what_needs_a_supervisor_is_refused_in_another_program() {
    let rest = "[sites.'*']\n'/' = { respond = 'x' }\n";
    for (table, name) in [
        ("[services.redis]\ncommand = 'redis-server'\n", "services.redis"),
        ("[cron.tidy]\nschedule = '@daily'\ncommand = 'true'\n", "cron.tidy"),
    ] {
        let error = Gateway::new(parse(&format!("{table}{rest}")).unwrap()).err().unwrap().to_string();
        assert!(error.contains(name) && error.contains("hawksbill run"), "{error}");
    }
}
