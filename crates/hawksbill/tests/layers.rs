//! Layers over applications: a tower-http layer in Rust, and a kind of this test's own, named in TOML.

mod support;

use std::sync::Arc;

use hawksbill::apps::Files;
use hawksbill::{Body, BuildError, Builder, Gateway, LayerKind, Turtle};
use http::{HeaderName, HeaderValue, Response};
use support::{get, serve, stop};
use tower_http::set_header::SetResponseHeaderLayer;

/// Stamps every answer.
#[derive(Clone, serde::Deserialize, serde::Serialize, schemars::JsonSchema)]
struct Stamp(String);

impl LayerKind for Stamp {
    const NAME: &'static str = "stamp";

    fn wrap(self, inner: Turtle, cx: &mut Builder) -> Result<Turtle, BuildError> {
        let value = format!("{} on {}", self.0, cx.site().map_or("-", |site| site));
        let value = HeaderValue::from_str(&value)
            .map_err(|error| BuildError::new("not a header").caused_by(error))?;
        let stamp = move |mut response: Response<Body>| {
            response.headers_mut().append("x-stamp", value.clone());
            response
        };
        Ok(inner.layer(tower::util::MapResponseLayer::new(stamp)))
    }
}

#[tokio::test]
async fn a_layer_of_ones_own_is_one_line_and_a_name_in_toml() {
    let registry = hawksbill::standard_registry().unwrap().layer::<Stamp>().unwrap();
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.txt"), "file\n").unwrap();
    let toml = r#"
        listen = "127.0.0.1:0"
        stamp = "whole"
        layers = [{ stamp = "outer" }]
        [sites."a.test"]
        "/files" = { files = ".", layers = [{ stamp = "first" }, { stamp = "second" }] }
        "/own" = { files = ".", stamp = "own" }
    "#;
    let running = serve(toml, dir.path(), &registry).await;
    let address = &running.addresses()[0];
    let stamps = async |path: &str| -> Vec<String> {
        let head = get(address, "a.test", path).await.head;
        head.lines().filter_map(|line| line.strip_prefix("x-stamp: ")).map(str::to_owned).collect()
    };
    // The innermost layer appends first.
    let expected = ["second on a.test", "first on a.test", "outer on a.test", "whole on a.test"];
    assert_eq!(stamps("/files/a.txt").await, expected);
    assert_eq!(stamps("/own/a.txt").await, ["outer on a.test", "own on a.test"]);
    // What no route takes has a stack too; with the error inside, only a response can be stamped.
    assert_eq!(get(address, "a.test", "/nothing").await.status, 404);
    assert_eq!(get(address, "a.test", "/files/a.txt").await.body, "file\n");
    stop(running).await;
}

#[tokio::test]
async fn a_tower_layer_stands_over_the_files() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.txt"), "file\n").unwrap();
    let name = HeaderName::from_static("x-tower");
    let layer = SetResponseHeaderLayer::overriding(name, HeaderValue::from_static("yes"));
    let running = Gateway::builder()
        .listen("127.0.0.1:0")
        .site("a.test", |site| site.layer(layer).app("/", Files::of(dir.path())))
        .build()
        .unwrap()
        .start()
        .await
        .unwrap();
    let answer = get(&running.addresses()[0], "a.test", "/a.txt").await;
    assert!(answer.head.contains("x-tower: yes"), "{}", answer.head);
    assert_eq!(answer.body, "file\n");
    stop(running).await;
}

#[tokio::test]
async fn the_access_log_of_the_whole_has_each_sites_name() {
    let dir = tempfile::tempdir().unwrap();
    let toml = r#"
        listen = "127.0.0.1:0"
        log = { path = "access.log", format = "json" }
        [sites."a.test"]
        "/" = { respond = "a" }
        [sites."b.test"]
        log = false
        "/" = { respond = "b" }
        "/logged" = { respond = "b", log = { path = "access.log", format = "json" } }
    "#;
    let running = serve(toml, dir.path(), &hawksbill::standard_registry().unwrap()).await;
    let address = running.addresses()[0].clone();
    for (host, path) in [("a.test", "/1"), ("b.test", "/2"), ("b.test", "/logged"), ("c.test", "/3")] {
        get(&address, host, path).await;
    }
    stop(running).await;
    let log = std::fs::read_to_string(dir.path().join("access.log")).unwrap();
    let lines: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let seen: Vec<(&str, u64)> =
        lines.iter().map(|line| (line["uri"].as_str().unwrap(), line["status"].as_u64().unwrap())).collect();
    assert_eq!(seen, [("/1", 200), ("/logged", 200), ("/3", 421)], "{log}");
    assert_eq!(lines[0]["site"], "a.test");
    assert_eq!(lines[1]["site"], "b.test");
}

#[tokio::test]
async fn a_turtle_outlives_the_builder_that_made_it() {
    let counted = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let seen = counted.clone();
    let turtle = Turtle::from_fn(move |_| {
        seen.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        async { Ok(Response::new(Body::from("x"))) }
    });
    let gateway =
        Gateway::builder().listen("127.0.0.1:0").site("*", |site| site.route("/", turtle)).build().unwrap();
    let (root, hosted) = gateway.into_turtle().await.unwrap();
    let request = http::Request::get("http://any.test/").body(Body::empty()).unwrap();
    assert_eq!(root.ask(request).await.unwrap().status(), 200);
    assert_eq!(counted.load(std::sync::atomic::Ordering::Relaxed), 1);
    hosted.stop().await;
}
