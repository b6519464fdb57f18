//! Why something that was asked for is not done.

use hawksbill_core::Body;
use hawksbill_supervisor::Failure;
use http::{HeaderValue, Response, StatusCode, header};
use serde::Serialize;
use serde_json::json;

/// A refusal, as it is answered.
#[derive(Debug)]
pub(crate) struct Trouble {
    status: StatusCode,
    error: String,
    /// What a process said, a traceback, or the last that it wrote.
    details: Option<String>,
    /// Whether the details are in the log already.
    is_logged: bool,
}

impl Trouble {
    pub(crate) fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self { status, error: error.into(), details: None, is_logged: false }
    }

    /// What was asked is understood and cannot be done.
    pub(crate) fn unfit(error: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, error)
    }

    /// The request is no good.
    pub(crate) fn bad(error: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error)
    }

    /// There is no application of this name.
    pub(crate) fn no_such<'a>(name: &str, known: impl Iterator<Item = &'a str> + Clone) -> Self {
        let near = hawksbill_core::config::did_you_mean(name, known.clone());
        let hint = match near {
            Some(near) => format!("; did you mean '{near}'?"),
            None => format!("; there is {}", known.collect::<Vec<_>>().join(", ")),
        };
        Self::new(StatusCode::NOT_FOUND, format!("there is no application '{name}'{hint}"))
    }

    /// The gateway is about to end, and does nothing more.
    pub(crate) fn ending() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "the gateway is ending")
    }

    /// What the supervisor says of a failure.
    pub(crate) fn failed(status: StatusCode, failure: Failure) -> Self {
        let error = match &failure.pool {
            Some(pool) => format!("{pool}: {}", failure.reason),
            None => failure.reason,
        };
        Self { status, error, is_logged: !failure.said_so, details: failure.message }
    }

    /// All of it, for a log. What a process said stands for itself.
    pub(crate) fn text(&self) -> &str {
        self.details.as_deref().filter(|_| !self.is_logged).unwrap_or(&self.error)
    }

    pub(super) fn into_response(self) -> Response<Body> {
        let mut body = json!({ "error": self.error });
        if let (Some(details), Some(fields)) = (self.details, body.as_object_mut()) {
            fields.insert("details".to_owned(), details.into());
        }
        answer(self.status, &body)
    }
}

/// A JSON answer.
pub(super) fn answer(status: StatusCode, value: &impl Serialize) -> Response<Body> {
    let mut text = serde_json::to_string(value).unwrap_or_default();
    text.push('\n');
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
