//! A fixed answer.
//!
//! ```
//! use hawksbill_apps::Respond;
//! use hawksbill_core::{AppKind, Body, Builder, body::to_bytes};
//! use http::Request;
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! let respond: Respond = serde_json::from_str(r#"{ "respond": "gone fishing", "status": 503 }"#).unwrap();
//! let turtle = respond.build(&mut Builder::new("/")).unwrap();
//! let response = turtle.ask(Request::get("/any").body(Body::empty()).unwrap()).await.unwrap();
//! assert_eq!(response.status(), 503);
//! assert_eq!(response.headers()["content-type"], "text/plain; charset=utf-8");
//! assert_eq!(to_bytes(response.into_body(), 100).await.unwrap(), "gone fishing");
//! # }
//! ```

use bytes::Bytes;
use hawksbill_core::config::Bounded;
use hawksbill_core::{AppKind, Body, BuildError, Builder, Turtle};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Method, Response, StatusCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Answers every request with the same text: `{ respond = "pong" }`.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Respond {
    /// The body of the answer; empty where the status has none (204, 205, 304).
    pub respond: String,
    /// The status, from 200 to 599.
    #[serde(default = "default_status")]
    pub status: Bounded<200, 599>,
    /// The media type of the body.
    #[serde(default = "default_type", rename = "type")]
    pub media_type: String,
}

fn default_status() -> Bounded<200, 599> {
    Bounded::clamped(200)
}

fn default_type() -> String {
    "text/plain; charset=utf-8".to_owned()
}

impl Respond {
    /// A text with status 200.
    pub fn text(text: impl Into<String>) -> Self {
        Self { respond: text.into(), status: default_status(), media_type: default_type() }
    }
}

impl AppKind for Respond {
    const NAME: &'static str = "respond";

    fn build(self, _: &mut Builder) -> Result<Turtle, BuildError> {
        let media_type = HeaderValue::try_from(&self.media_type).map_err(|_| {
            BuildError::new(format!(
                "type {:?} is no media type; write one such as \"text/html\"",
                self.media_type
            ))
        })?;
        let status = u16::try_from(self.status.get()).ok().and_then(|code| StatusCode::from_u16(code).ok());
        let status = status.unwrap_or_default();
        let bodyless =
            matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED);
        if bodyless && !self.respond.is_empty() {
            let code = status.as_u16();
            return Err(BuildError::new(format!(
                "an answer with status {code} has no body; write respond = \"\""
            )));
        }
        let text = Bytes::from(self.respond);
        Ok(Turtle::from_fn(move |request| {
            let body =
                if request.method() == Method::HEAD { Body::empty() } else { Body::from(text.clone()) };
            let mut response = Response::new(body);
            *response.status_mut() = status;
            if !bodyless {
                response.headers_mut().insert(CONTENT_TYPE, media_type.clone());
                response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(text.len()));
            }
            std::future::ready(Ok(response))
        }))
    }
}

#[cfg(test)]
mod tests {
    use hawksbill_core::body::to_bytes;
    use hawksbill_core::config::{Path, parse_toml};
    use http::Request;

    use super::*;

    fn respond(toml: &str) -> Result<Respond, String> {
        let table = parse_toml("f.toml", toml).map_err(|error| error.to_string())?;
        table.decode(&Path::root()).map_err(|error| error.to_string())
    }

    async fn ask(respond: Respond, method: Method) -> Response<Body> {
        let turtle = respond.build(&mut Builder::new("/")).unwrap();
        turtle.ask(Request::builder().method(method).body(Body::empty()).unwrap()).await.unwrap()
    }

    #[tokio::test]
    async fn head_has_the_length_but_no_body() {
        let response = ask(Respond::text("four"), Method::HEAD).await;
        assert_eq!(response.headers()[CONTENT_LENGTH], "4");
        assert!(to_bytes(response.into_body(), 10).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn type_and_status_are_as_configured() {
        let html = respond("respond = \"<p>\"\nstatus = 404\ntype = \"text/html\"").unwrap();
        let response = ask(html, Method::POST).await;
        assert_eq!(response.status(), 404);
        assert_eq!(response.headers()[CONTENT_TYPE], "text/html");
    }

    #[tokio::test]
    async fn no_content_has_neither_type_nor_length() {
        let response = ask(respond("respond = \"\"\nstatus = 204").unwrap(), Method::GET).await;
        assert!(response.headers().is_empty());
    }

    #[test]
    fn mistakes_are_found_before_serving() {
        assert!(respond("respond = \"x\"\nstatus = 99").unwrap_err().contains("f.toml:2:10"));
        assert!(respond("respond = \"x\"\nstaus = 200").unwrap_err().contains("did you mean 'status'"));
        let build = |toml| respond(toml).unwrap().build(&mut Builder::new("/")).unwrap_err().to_string();
        assert!(build("respond = \"x\"\nstatus = 304").contains("has no body"));
        assert!(build("respond = \"x\"\ntype = \"a\\nb\"").contains("is no media type"));
    }
}
