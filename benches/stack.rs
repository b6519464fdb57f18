//! What a layer costs: erased each, as a configuration stacks them, and composed statically, as code does.

use std::hint::black_box;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use futures_util::FutureExt;
use hawksbill_core::{Body, Builder, Turtle};
use http::{Request, Response};
use tower::layer::{layer_fn, util::Stack};
use tower::{Layer, Service};

/// A layer that passes everything on.
#[derive(Clone)]
struct Same<S>(S);

impl<S: Service<Request<Body>>> Service<Request<Body>> for Same<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> S::Future {
        self.0.call(request)
    }
}

#[derive(Clone, Copy)]
struct SameLayer;

impl<S> Layer<S> for SameLayer {
    type Service = Same<S>;

    fn layer(&self, inner: S) -> Same<S> {
        Same(inner)
    }
}

fn page() -> Turtle {
    Turtle::from_fn(|_| std::future::ready(Ok(Response::new(Body::from("hello")))))
}

fn erased(layers: usize) -> Turtle {
    (0..layers).fold(page(), |turtle, _| turtle.layer(SameLayer))
}

fn five() -> impl Layer<Turtle, Service = Same<Same<Same<Same<Same<Turtle>>>>>> + Clone {
    Stack::new(SameLayer, Stack::new(SameLayer, Stack::new(SameLayer, Stack::new(SameLayer, SameLayer))))
}

fn composed(layers: usize) -> Turtle {
    match layers {
        0 => page(),
        1 => page().layer(SameLayer),
        5 => page().layer(five()),
        _ => page().layer(layer_fn(|turtle| {
            let ten = Stack::new(
                SameLayer,
                Stack::new(SameLayer, Stack::new(SameLayer, Stack::new(SameLayer, SameLayer))),
            );
            ten.layer(five().layer(turtle))
        })),
    }
}

fn stacks(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("stack");
    for layers in [0, 1, 5, 10] {
        for (what, turtle) in [("erased each", erased(layers)), ("composed", composed(layers))] {
            group.bench_function(BenchmarkId::new(what, layers), |bench| {
                bench.iter(|| black_box(turtle.ask(Request::new(Body::empty())).now_or_never()));
            });
        }
    }
    group.finish();
}

/// What it costs to be counted; one alone, and two threads at the same meter.
fn meters(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("meter");
    let builder = Builder::new("/");
    let metered = page().metered(builder.vitals().meter("example.com", "shop"));
    for (what, turtle) in [("without", page()), ("with", metered)] {
        for threads in [1, 2] {
            group.bench_function(BenchmarkId::new(what, threads), |bench| {
                bench.iter_custom(|times| ask_at_once(&turtle, threads, times));
            });
        }
    }
    group.finish();
}

fn ask_at_once(turtle: &Turtle, threads: usize, times: u64) -> Duration {
    let ask = || {
        let began = Instant::now();
        for _ in 0..times {
            let _ = black_box(turtle.ask(Request::new(Body::empty())).now_or_never());
        }
        began.elapsed()
    };
    std::thread::scope(|scope| {
        let asking: Vec<_> = (0..threads).map(|_| scope.spawn(ask)).collect();
        asking.into_iter().filter_map(|thread| thread.join().ok()).max().unwrap_or_default()
    })
}

criterion_group!(benches, stacks, meters);
criterion_main!(benches);
