//! How often and how fast something answers.
//!
//! ```
//! use hawksbill_core::{Body, Builder, Turtle};
//! use http::{Request, Response};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! let builder = Builder::new("/srv/shop");
//! let hello = Turtle::from_fn(async |_| Ok(Response::new(Body::from("hello"))));
//! let hello = hello.metered(builder.vitals().meter("example.com", "shop"));
//! drop(hello.ask(Request::get("/").body(Body::empty()).unwrap()).await);
//!
//! let [reading] = builder.vitals().readings().try_into().unwrap();
//! assert_eq!((reading.site.as_str(), reading.begun, reading.latency.total()), ("example.com", 1, 1));
//! # }
//! ```

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::histogram::{Histogram, Latencies};

/// Counts requests, and the time from each to the head of its answer. Any thread may, and none waits.
#[derive(Default)]
pub struct Meter {
    begun: AtomicU64,
    aborted: AtomicU64,
    client_errors: AtomicU64,
    server_errors: AtomicU64,
    latency: Histogram,
}

/// What a [`Meter`] has counted since its process started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reading {
    /// The site, by its first name; empty: none of the sites was meant.
    pub site: String,
    /// The application; empty: no route led to one.
    pub application: String,
    /// Requests that came.
    pub begun: u64,
    /// Those whose client went away before there was an answer.
    pub aborted: u64,
    /// Those that were answered with a status from 400 to 499.
    pub client_errors: u64,
    /// Those that were answered with a status from 500 on.
    pub server_errors: u64,
    /// Those that were answered: how long it took until the head of the answer was there.
    pub latency: Latencies,
}

impl Meter {
    pub(crate) fn read(&self) -> Reading {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        // What has ended is read before what has begun, so that never more has ended.
        let (latency, aborted) = (self.latency.read(), count(&self.aborted));
        let (client_errors, server_errors) = (count(&self.client_errors), count(&self.server_errors));
        let begun = count(&self.begun);
        Reading { begun, aborted, client_errors, server_errors, latency, ..Reading::default() }
    }

    fn answered(&self, status: StatusCode, since: Instant) {
        self.latency.record(since.elapsed());
        let errors = match status.as_u16() {
            400..=499 => &self.client_errors,
            500.. => &self.server_errors,
            _ => return,
        };
        errors.fetch_add(1, Ordering::Relaxed);
    }
}

impl Reading {
    /// How many are still to be answered.
    pub fn in_flight(&self) -> u64 {
        self.begun.saturating_sub(self.aborted).saturating_sub(self.latency.total())
    }

    /// Adds what another one has counted.
    pub fn add(&mut self, other: &Self) {
        let pairs = [
            (&mut self.begun, other.begun),
            (&mut self.aborted, other.aborted),
            (&mut self.client_errors, other.client_errors),
            (&mut self.server_errors, other.server_errors),
        ];
        for (sum, more) in pairs {
            *sum = sum.saturating_add(more);
        }
        self.latency.add(&other.latency);
    }

    /// What was counted since another moment.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            site: self.site.clone(),
            application: self.application.clone(),
            begun: self.begun.saturating_sub(earlier.begun),
            aborted: self.aborted.saturating_sub(earlier.aborted),
            client_errors: self.client_errors.saturating_sub(earlier.client_errors),
            server_errors: self.server_errors.saturating_sub(earlier.server_errors),
            latency: self.latency.since(&earlier.latency),
        }
    }
}

impl fmt::Debug for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Meter").field(&self.read()).finish()
    }
}

/// A request that a meter counts. One that is dropped before it is answered was given up.
pub(crate) struct Timing {
    meter: Option<Arc<Meter>>,
    began: Instant,
}

impl Timing {
    pub(crate) fn begin(meter: Arc<Meter>) -> Self {
        meter.begun.fetch_add(1, Ordering::Relaxed);
        Self { meter: Some(meter), began: Instant::now() }
    }

    pub(crate) fn answered(mut self, status: StatusCode) {
        if let Some(meter) = self.meter.take() {
            meter.answered(status, self.began);
        }
    }
}

impl Drop for Timing {
    fn drop(&mut self) {
        if let Some(meter) = self.meter.take() {
            meter.aborted.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{Request, Response};

    use crate::{Body, Builder, Error, Kind, Turtle};

    #[tokio::test]
    async fn answers_failures_and_those_who_leave_are_told_apart() {
        let builder = Builder::new("/");
        let turtle = Turtle::from_fn(async |request: Request<Body>| match request.uri().path() {
            "/fail" => Err(Error::new(Kind::BadGateway)),
            "/wait" => std::future::pending().await,
            path => {
                let mut response = Response::new(Body::empty());
                *response.status_mut() = path[1..].parse().unwrap();
                Ok(response)
            }
        });
        let turtle = turtle.metered(builder.vitals().meter("a.example", "shop"));
        let ask = |path: &str| turtle.ask(Request::get(path).body(Body::empty()).unwrap());
        for path in ["/200", "/304", "/404", "/499", "/500", "/fail"] {
            drop(ask(path).await);
        }
        let waiting = ask("/wait");
        let reading = || builder.vitals().readings().remove(0);
        assert_eq!((reading().begun, reading().in_flight(), reading().aborted), (7, 1, 0));
        drop(waiting);
        let read = reading();
        assert_eq!((read.in_flight(), read.aborted, read.latency.total()), (0, 1, 6));
        assert_eq!((read.client_errors, read.server_errors), (2, 2));
    }

    #[tokio::test]
    async fn one_meter_may_stand_over_another() {
        let builder = Builder::new("/");
        let turtle = Turtle::from_fn(async |_| Ok(Response::new(Body::empty())));
        let turtle = turtle.metered(builder.vitals().meter("a.example", "inner"));
        let turtle = turtle.metered(builder.vitals().meter("a.example", "outer"));
        drop(turtle.ask(Request::new(Body::empty())).await);
        let counts =
            builder.vitals().readings().into_iter().map(|read| (read.application, read.latency.total()));
        assert_eq!(counts.collect::<Vec<_>>(), [("inner".to_owned(), 1), ("outer".to_owned(), 1)]);
    }
}
