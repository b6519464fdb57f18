//! What it costs to find the turtle for a request: among many sites, and among many routes.
//!
//! A request is built for each look-up; the group `request` shows what that alone costs.

#![expect(clippy::expect_used, reason = "a bench that cannot be set up has to stop")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use futures_util::FutureExt;
use hawksbill_core::config::HostPattern;
use hawksbill_core::{Body, Turtle};
use hawksbill_router::{Routes, Sites};
use http::{Request, Response, Uri};

fn page() -> Turtle {
    Turtle::from_fn(|_| std::future::ready(Ok(Response::new(Body::empty()))))
}

fn pattern(text: &str) -> HostPattern {
    text.parse().expect("the bench writes patterns well")
}

fn sites(count: usize) -> Sites {
    let add = |sites: hawksbill_router::SitesBuilder, number: usize| {
        let hosts =
            [pattern(&format!("shop{number}.example")), pattern(&format!("*.tenant{number}.example"))];
        sites.site(format!("site {number}"), hosts, page())
    };
    (0..count).fold(Sites::builder(), add).build().expect("no host is there twice")
}

fn request(host: &'static str, path: &Uri) -> Request<Body> {
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = path.clone();
    request.headers_mut().insert(http::header::HOST, http::HeaderValue::from_static(host));
    request
}

fn by_host(criterion: &mut Criterion) {
    let path = Uri::from_static("/");
    let mut group = criterion.benchmark_group("request");
    group.bench_function("built alone", |bench| bench.iter(|| black_box(request("shop0.example", &path))));
    group.finish();

    let mut group = criterion.benchmark_group("sites");
    for count in [1, 100, 10_000] {
        let sites = sites(count);
        for (what, host) in [
            ("exact", "shop0.example"),
            ("upper case and port", "Shop0.Example:8000"),
            ("wildcard", "a.b.tenant0.example"),
            ("miss", "a.b.elsewhere.example"),
        ] {
            group.bench_function(BenchmarkId::new(what, count), |bench| {
                bench.iter(|| black_box(sites.ask(request(host, &path)).now_or_never()));
            });
        }
    }
    group.finish();
}

fn routes(count: usize) -> Routes {
    let add = |routes: hawksbill_router::RoutesBuilder, number: usize| {
        routes.route(format!("/area{number}/part/of/it"), page()).mount(format!("/mount{number}"), page())
    };
    (0..count).fold(Routes::builder().route("/", page()), add).build().expect("no prefix is there twice")
}

fn by_path(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("routes");
    for count in [1, 100, 10_000] {
        let routes = routes(count);
        for (what, path) in [
            ("root", "/"),
            ("miss to root", "/elsewhere/a/b/c.html"),
            ("depth 4", "/area0/part/of/it/page.html"),
            ("mount", "/mount0/page.html"),
            ("escapes", "/area0/p%61rt/of/it/caf%C3%A9.html"),
            ("dot segments", "/area0/x/../part/of/it/page.html"),
        ] {
            let uri = Uri::from_static(path);
            group.bench_function(BenchmarkId::new(what, count), |bench| {
                bench.iter(|| black_box(routes.ask(request("shop0.example", &uri)).now_or_never()));
            });
        }
    }
    group.finish();
}

/// The longest paths that a server takes must not cost more than reading them.
fn hostile(criterion: &mut Criterion) {
    let routes = routes(100);
    let mut group = criterion.benchmark_group("hostile path of 60 KB");
    for (what, unit) in
        [("slashes", "/"), ("segments", "/a"), ("escapes", "/%61"), ("dots", "/a/.."), ("%2F", "/%2F")]
    {
        let uri: Uri = unit.repeat(60_000 / unit.len()).parse().expect("it is a path");
        group.bench_function(what, |bench| {
            bench.iter(|| black_box(routes.ask(request("shop0.example", &uri)).now_or_never()));
        });
    }
    group.finish();
}

criterion_group!(benches, by_host, by_path, hostile);
criterion_main!(benches);
