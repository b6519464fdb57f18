//! Layers written in Rust over a real Django project: the shop of `examples/domains`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use hawksbill::core::config::{Bounded, Duration};
use hawksbill::{Body, Gateway};
use hawksbill_python::{Django, Http, Lifespan, WebSockets};
use http::{HeaderName, HeaderValue, Request};
use pyo3::prelude::*;
use tower_http::set_header::SetResponseHeaderLayer;

const HOUSE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The virtual environment of the tests, for the Python that this test is linked with.
fn venv() -> PathBuf {
    let python = output(Command::new(".ci/pythons").current_dir(HOUSE));
    let (version, path) = python.lines().next().unwrap().split_once(' ').unwrap();
    let linked = Python::attach(|py| format!("{}.{}", py.version_info().major, py.version_info().minor));
    assert_eq!(version, linked, "this test is linked with another Python than the first on PATH");
    let venv = output(Command::new(".ci/venv").args([version, path]).current_dir(HOUSE));
    Path::new(HOUSE).join(venv.trim())
}

#[tokio::test]
async fn a_tower_layer_stands_over_a_django_project() {
    Python::initialize();
    let venv = venv();
    let data = tempfile::tempdir().unwrap();
    let project = Path::new(HOUSE).join("examples/domains");
    output(
        Command::new(venv.join("bin/python"))
            .args(["manage.py", "prepare"])
            .current_dir(&project)
            .env("SHOP_DATA", data.path()),
    );
    Python::attach(|py| -> PyResult<()> {
        let path = std::fs::read_dir(venv.join("lib"))?
            .next()
            .transpose()?
            .map(|lib| lib.path().join("site-packages"));
        py.import("site")?.call_method1("addsitedir", (path,))?;
        py.import("os")?.getattr("environ")?.set_item("SHOP_DATA", data.path().to_string_lossy())
    })
    .unwrap();

    let shop = Django {
        django: "shop.settings".to_owned(),
        dir: Some(project),
        http: Http::Auto,
        finders: false,
        lifespan: Lifespan::Auto,
        websocket: WebSockets::default(),
        threads: Bounded::clamped(4),
        queue: Bounded::clamped(16),
        timeout: Duration::from_secs(30),
        slow: Duration::default(),
    };
    let layer = SetResponseHeaderLayer::overriding(
        HeaderName::from_static("x-stands-over"),
        HeaderValue::from_static("django"),
    );
    let gateway = Gateway::builder()
        .layer(layer)
        .app("shop", shop)
        .site("shop.localhost", |site| site.to("/", "shop"))
        .build()
        .unwrap();
    let (turtle, hosted) = gateway.into_turtle().await.unwrap();
    let request = Request::get("http://shop.localhost/").body(Body::empty()).unwrap();
    let response = turtle.ask(request).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["x-stands-over"], "django");
    let page = common::whole(response).await.unwrap();
    assert!(String::from_utf8_lossy(&page).contains("<title>"), "{page:?}");
    hosted.stop().await;
}
