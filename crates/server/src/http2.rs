//! HTTP/2 with prior knowledge on one connection (RFC 9113 section 3.3).

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::sync::watch;

use crate::activity::Expired;
use crate::connection::Shared;
use crate::drain::Stage;
use crate::io::{Transport, Watched};
use crate::service::Service;
use crate::settings::Settings;
use crate::supervise::{Stop, Work, supervise};

struct Http2<S: Transport> {
    connection: Pin<Box<http2::Connection<TokioIo<Watched<S>>, Service, TokioExecutor>>>,
    shared: Arc<Shared>,
    leaving: bool,
}

impl<S: Transport> Work for Http2<S> {
    type Output = hyper::Result<()>;

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.connection.as_mut().poll(cx)
    }

    /// A GOAWAY names the last stream that is answered, so no request is lost unseen.
    fn drain(&mut self) {
        self.leaving = true;
        self.connection.as_mut().graceful_shutdown();
    }

    fn expired(&mut self, why: Expired) -> bool {
        if why != Expired::Idle || self.leaving {
            return true;
        }
        self.drain();
        self.shared.activity.idle_again();
        false
    }
}

/// Serves a connection to its end.
pub(crate) async fn serve<S: Transport>(
    io: Watched<S>,
    service: Service,
    shared: &Arc<Shared>,
    stages: &mut watch::Receiver<Stage>,
) {
    shared.activity.count_streams_only();
    let connection = Box::pin(builder(&shared.settings).serve_connection(TokioIo::new(io), service));
    let mut work = Http2 { connection, shared: shared.clone(), leaving: false };
    let client = shared.peer.remote();
    match supervise(&mut work, shared.watch(), stages).await {
        Ok(Err(error)) => tracing::debug!(target: "hawksbill::connection", "{client}: {error}"),
        Err(Stop::Expired(why)) => {
            tracing::debug!(target: "hawksbill::connection", "{client}: {why:?} too long");
        }
        Ok(Ok(())) | Err(Stop::Cut) => {}
    }
}

fn builder(settings: &Settings) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        // WebSockets come as streams (RFC 8441).
        .enable_connect_protocol()
        .max_concurrent_streams(settings.max_concurrent_streams)
        .max_header_list_size(u32::try_from(settings.max_header_size).unwrap_or(u32::MAX))
        // A client that is gone without a word is found out by asking it.
        .keep_alive_interval(settings.stall_timeout);
    builder
}
