//! What it costs to pass a body through layers: one that is bytes, one that is a boxed stream.

#![expect(clippy::expect_used, reason = "a bench that cannot be set up has to stop")]

use std::convert::Infallible;
use std::hint::black_box;

use bytes::Bytes;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use futures_util::{FutureExt, stream};
use hawksbill_core::{Body, Turtle};
use http::{Request, Response};
use http_body_util::BodyExt;
use tower::util::MapResponseLayer;

const FRAME: usize = 16 * 1024;
const FRAMES: usize = 64;

fn bytes() -> Body {
    static ONE: [u8; FRAME] = [b'x'; FRAME];
    Body::from(Bytes::from_static(&ONE))
}

fn streamed() -> Body {
    let frame = Bytes::from(vec![b'x'; FRAME]);
    Body::from_stream(stream::iter((0..FRAMES).map(move |_| Ok::<_, Infallible>(frame.clone()))))
}

/// Gives each request's body back.
fn echo() -> Turtle {
    Turtle::from_fn(|request: Request<Body>| std::future::ready(Ok(Response::new(request.into_body()))))
}

/// Layers that leave the body as it is.
fn passing(layers: usize) -> Turtle {
    (0..layers)
        .fold(echo(), |turtle, _| turtle.layer(MapResponseLayer::new(|response: Response<Body>| response)))
}

/// Layers that put a body of their own around it, as compression or a byte counter does.
fn wrapping(layers: usize) -> Turtle {
    let wrap = |response: Response<Body>| response.map(|body| body.map_frame(|frame| frame));
    (0..layers).fold(echo(), |turtle, _| turtle.layer(MapResponseLayer::new(wrap)))
}

/// Sends a body through and reads what comes back; gives its length.
fn drain(turtle: &Turtle, body: Body) -> usize {
    let all = async {
        let mut body = turtle.ask(Request::new(body)).await?.into_body();
        let mut length = 0;
        while let Some(frame) = body.frame().await {
            length += frame?.data_ref().map_or(0, Bytes::len);
        }
        Ok::<_, hawksbill_core::Error>(length)
    };
    all.now_or_never().expect("nothing waits").expect("nothing fails")
}

fn bodies(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("body");
    for (form, make, length) in
        [("bytes", bytes as fn() -> Body, FRAME), ("stream", streamed as fn() -> Body, FRAME * FRAMES)]
    {
        group.throughput(Throughput::Bytes(length as u64));
        for (what, turtle) in
            [("0 layers", passing(0)), ("5 passing", passing(5)), ("5 wrapping", wrapping(5))]
        {
            assert_eq!(drain(&turtle, make()), length);
            group.bench_function(BenchmarkId::new(form, what), |bench| {
                bench.iter_batched(make, |body| black_box(drain(&turtle, body)), BatchSize::SmallInput);
            });
        }
    }
    group.finish();
}

criterion_group!(benches, bodies);
criterion_main!(benches);
