//! What asks a control socket.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use hawksbill_core::Body;
use hawksbill_core::body::to_bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HOST};
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::UnixStream;
use tokio_util::task::AbortOnDropHandle;

use super::VERSION;

/// How long it may take to connect.
const CONNECT: Duration = Duration::from_secs(5);

/// The most bytes of an answer: the stacks of many processes.
const MAX_ANSWER: usize = 64 << 20;

/// The most bytes of a line: the figures of thousands of sites.
const MAX_LINE: usize = 16 << 20;

/// Asks the gateway at a socket.
pub(crate) struct Client {
    path: PathBuf,
}

/// Why there is no good answer.
#[derive(Debug)]
pub(crate) enum Refused {
    /// The gateway refuses: the message, and what a process said.
    Refusal(String, Option<String>),
    /// Nobody answers at the socket.
    Nobody(io::Error),
    /// What answers is not understood, or ended in the middle.
    Broken(String),
}

impl Client {
    pub(crate) fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Asks for what is at a path. Bounded by `patience`, where there is one.
    pub(crate) async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        patience: Duration,
    ) -> Result<T, Refused> {
        self.ask(Method::GET, path, None, Some(patience)).await
    }

    /// Asks for a change. The gateway bounds how long that takes.
    pub(crate) async fn post<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<T, Refused> {
        self.ask(Method::POST, path, Some(body), None).await
    }

    /// Asks for lines, and hands each on as it comes; an empty one only says that the gateway is there.
    pub(crate) async fn lines(
        &self,
        path: &str,
        mut take: impl FnMut(&str) -> Result<(), Refused>,
    ) -> Result<(), Refused> {
        let broken = |error| Refused::Broken(format!("the connection failed: {error}"));
        let (_connection, response) = self.send(Method::GET, path, None).await?;
        if !response.status().is_success() {
            return Err(refusal(response.status(), &whole(response).await?));
        }
        let mut body = Body::new(response.into_body());
        let mut buffer = Vec::new();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
            buffer.extend_from_slice(&data);
            while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
                let rest = buffer.split_off(end + 1);
                let line = std::mem::replace(&mut buffer, rest);
                take(String::from_utf8_lossy(&line).trim_end())?;
            }
            if buffer.len() > MAX_LINE {
                return Err(Refused::Broken("the gateway sends a line without an end".to_owned()));
            }
        }
        Ok(())
    }

    /// Whether somebody listens.
    pub(crate) async fn is_there(&self) -> bool {
        tokio::time::timeout(CONNECT, UnixStream::connect(&self.path))
            .await
            .is_ok_and(|stream| stream.is_ok())
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        patience: Option<Duration>,
    ) -> Result<T, Refused> {
        let exchange = async {
            let (_connection, response) = self.send(method, path, body).await?;
            let status = response.status();
            Ok::<_, Refused>((status, whole(response).await?))
        };
        let answered = match patience {
            None => Ok(exchange.await),
            Some(patience) => tokio::time::timeout(patience, exchange).await,
        };
        let late = |_| Refused::Broken("the gateway does not answer in time".to_owned());
        let (status, text) = answered.map_err(late)??;
        if status.is_success() {
            serde_json::from_slice(&text).map_err(strange)
        } else {
            Err(refusal(status, &text))
        }
    }

    /// The connection lasts as long as what is given first.
    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(AbortOnDropHandle<()>, Response<Incoming>), Refused> {
        let broken =
            |error: &dyn std::fmt::Display| Refused::Broken(format!("the connection failed: {error}"));
        let connecting = tokio::time::timeout(CONNECT, UnixStream::connect(&self.path));
        let connected = connecting.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let stream = TokioIo::new(connected.map_err(Refused::Nobody)?);
        let (mut sender, connection) = http1::handshake(stream).await.map_err(|error| broken(&error))?;
        let connection = AbortOnDropHandle::new(tokio::spawn(async { drop(connection.await) }));
        let request = Request::builder()
            .method(method)
            .uri(format!("{VERSION}{path}"))
            .header(HOST, "hawksbill")
            .header(CONNECTION, "close")
            .header(CONTENT_TYPE, "application/json")
            .body(body.map_or_else(Body::empty, |body| Body::from(body.to_string())))
            .map_err(|error| broken(&error))?;
        let response = sender.send_request(request).await.map_err(|error| broken(&error))?;
        Ok((connection, response))
    }
}

async fn whole(response: Response<Incoming>) -> Result<Bytes, Refused> {
    let text = to_bytes(Body::new(response.into_body()), MAX_ANSWER).await;
    text.map_err(|error| Refused::Broken(format!("the connection failed: {error}")))
}

fn refusal(status: StatusCode, text: &[u8]) -> Refused {
    let value: Value = match serde_json::from_slice(text) {
        Ok(value) => value,
        Err(error) => return strange(error),
    };
    let field = |name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
    Refused::Refusal(field("error").unwrap_or_else(|| status.to_string()), field("details"))
}

fn strange(error: serde_json::Error) -> Refused {
    Refused::Broken(format!("what the gateway answers is not understood: {error}"))
}
