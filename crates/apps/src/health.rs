//! What a load balancer or an orchestrator asks: whether the gateway lives, and whether it is ready.
//!
//! ```
//! use hawksbill_apps::Health;
//! use hawksbill_core::{AppKind, Body, Builder};
//! use http::Request;
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! let mut builder = Builder::new("/");
//! builder.vitals().readiness().application("shop", || false);
//! let health = Health { health: true }.build(&mut builder).unwrap();
//! let ask = async |path| health.ask(Request::get(path).body(Body::empty()).unwrap()).await.unwrap().status();
//! assert_eq!(ask("/live").await, 200);
//! assert_eq!(ask("/ready").await, 503);
//! # }
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use hawksbill_core::{Body, BuildError, Builder, Error, Kind, Mount, Readiness, Routine, Turtle};
use http::header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, VARY};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use percent_encoding::percent_decode_str;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD");

/// Tells load balancers and orchestrators whether the gateway can serve: `"/-/health" = { health = true }`, or on a site
/// with a `listen` of its own.
///
/// `/live` is 200 as long as the process answers. `/ready` is 200 while every application has a worker that takes
/// requests and the gateway does not end, else 503; `/ready/NAME` is that of one application, 404 where there is none.
/// The path alone is `/ready`. Answers are a line of text, or JSON for those who accept `application/json`, and show
/// nothing but the names of applications. Access logs leave them out, unless their `health` is true.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Health {
    /// `true`.
    pub health: bool,
}

impl hawksbill_core::AppKind for Health {
    const NAME: &'static str = "health";
    const MOUNTED: bool = true;

    fn build(self, cx: &mut Builder) -> Result<Turtle, BuildError> {
        if !self.health {
            return Err(BuildError::new("health = false answers nothing; write health = true, or remove it"));
        }
        let vitals = cx.vitals().clone();
        Ok(Turtle::from_fn(move |request| std::future::ready(answer(&request, vitals.readiness()))))
    }
}

fn answer(request: &Request<Body>, readiness: &Readiness) -> Result<Response<Body>, Error> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Err(Error::new(Kind::MethodNotAllowed).header(ALLOW, METHODS));
    }
    let whole = request.uri().path();
    let path = request.extensions().get::<Mount>().map_or(whole, |mount| mount.split(whole).1);
    let finding = match path {
        "/live" => Finding::Live,
        "" | "/" | "/ready" => Finding::of_all(readiness),
        _ => {
            let name = path.strip_prefix("/ready/").map(|name| percent_decode_str(name).decode_utf8_lossy());
            let finding = name.and_then(|name| Finding::of_one(readiness, &name));
            finding.ok_or_else(|| Error::new(Kind::NotFound))?
        }
    };
    Ok(finding.respond(request))
}

/// What is found.
enum Finding {
    Live,
    /// All applications, and whether each serves.
    All {
        drains: bool,
        applications: BTreeMap<Arc<str>, bool>,
    },
    One {
        drains: bool,
        name: String,
        serves: bool,
    },
}

impl Finding {
    fn of_all(readiness: &Readiness) -> Self {
        Self::All { drains: readiness.drains(), applications: readiness.applications() }
    }

    fn of_one(readiness: &Readiness, name: &str) -> Option<Self> {
        let serves = readiness.of(name)?;
        Some(Self::One { drains: readiness.drains(), name: name.to_owned(), serves })
    }

    fn status(&self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::All { drains: true, .. } | Self::One { drains: true, .. } => "draining",
            Self::All { applications, .. } if applications.values().all(|serves| *serves) => "ready",
            Self::One { serves: true, .. } => "ready",
            Self::All { .. } | Self::One { .. } => "not ready",
        }
    }

    fn text(&self) -> String {
        let status = self.status();
        let missing: Vec<&str> = match self {
            _ if status != "not ready" => Vec::new(),
            Self::Live => Vec::new(),
            Self::All { applications, .. } => {
                applications.iter().filter(|(_, serves)| !**serves).map(|(name, _)| &**name).collect()
            }
            Self::One { name, .. } => vec![name],
        };
        match missing.as_slice() {
            [] => format!("{status}\n"),
            names => format!("{status}: no worker of {}\n", names.join(", ")),
        }
    }

    fn json(&self) -> Value {
        let status = self.status();
        match self {
            Self::Live => json!({ "status": status }),
            Self::All { applications, .. } => {
                let applications: serde_json::Map<_, _> =
                    applications.iter().map(|(name, serves)| (name.to_string(), (*serves).into())).collect();
                json!({ "status": status, "applications": applications })
            }
            Self::One { name, serves, .. } => json!({ "status": status, "applications": { (name): serves } }),
        }
    }

    fn respond(&self, request: &Request<Body>) -> Response<Body> {
        let (media_type, text) = if accepts_json(request.headers()) {
            ("application/json", format!("{}\n", self.json()))
        } else {
            ("text/plain; charset=utf-8", self.text())
        };
        let length = text.len();
        let mut response =
            Response::new(if request.method() == Method::HEAD { Body::empty() } else { Body::from(text) });
        response.extensions_mut().insert(Routine);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(VARY, HeaderValue::from_static("accept"));
        if !matches!(self.status(), "live" | "ready") {
            // The supervisor starts another worker at once, so that it is worth asking again soon.
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        }
        response
    }
}

/// Whether JSON is asked for by name. Who takes anything, as most probers do, reads a line more easily.
fn accepts_json(headers: &HeaderMap) -> bool {
    let values = headers.get_all(ACCEPT).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|range| {
        let mut parts = range.split(';').map(str::trim);
        parts.next().is_some_and(|range| range.eq_ignore_ascii_case("application/json"))
            && !parts.any(is_weight_of_zero)
    })
}

/// A weight by which something is not accepted (RFC 9110 section 12.4.2).
fn is_weight_of_zero(parameter: &str) -> bool {
    let weight = parameter.strip_prefix("q=").or_else(|| parameter.strip_prefix("Q="));
    weight.and_then(|weight| weight.parse::<f32>().ok()) == Some(0.0)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use hawksbill_core::AppKind;
    use hawksbill_core::body::to_bytes;

    use super::*;

    async fn ask_for(turtle: &Turtle, path: &str, accept: &'static str) -> (u16, String) {
        let request = Request::get(format!("/up{path}")).header(ACCEPT, accept).extension(Mount::new("/up"));
        let response = turtle.ask(request.body(Body::empty()).unwrap()).await.unwrap();
        let status = response.status().as_u16();
        assert_eq!(response.headers()[CACHE_CONTROL], "no-store");
        assert_eq!(response.headers().contains_key(RETRY_AFTER), status == 503);
        assert!(response.extensions().get::<Routine>().is_some());
        let body = to_bytes(response.into_body(), 1000).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    async fn ask(turtle: &Turtle, path: &str) -> (u16, String) {
        ask_for(turtle, path, "*/*").await
    }

    #[tokio::test]
    async fn one_application_without_workers_is_told_from_the_others() {
        let mut cx = Builder::new("/");
        let readiness = cx.vitals().clone();
        readiness.readiness().application("shop", || true);
        readiness.readiness().application("my blog", || false);
        let turtle = Health { health: true }.build(&mut cx).unwrap();
        let missing = (503, "not ready: no worker of my blog\n".to_owned());
        assert_eq!(ask(&turtle, "/live").await, (200, "live\n".to_owned()));
        assert_eq!(ask(&turtle, "/ready").await, missing);
        assert_eq!(ask(&turtle, "").await, missing);
        assert_eq!(ask(&turtle, "/ready/shop").await, (200, "ready\n".to_owned()));
        assert_eq!(ask(&turtle, "/ready/my%20blog").await, missing);
        for path in ["/ready/nobody", "/ready/", "/readyshop", "/other"] {
            let error = turtle.ask(Request::get(path).body(Body::empty()).unwrap()).await.unwrap_err();
            assert_eq!(error.status(), 404, "{path}");
        }
        let error = turtle.ask(Request::post("/live").body(Body::empty()).unwrap()).await.unwrap_err();
        assert_eq!(error.status(), 405);
        let head = Request::head("/ready").body(Body::empty()).unwrap();
        let head = turtle.ask(head).await.unwrap();
        assert_eq!((head.status().as_u16(), &head.headers()[CONTENT_LENGTH]), (503, &"32".parse().unwrap()));
        assert!(to_bytes(head.into_body(), 1).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn json_is_for_those_who_name_it() {
        let mut cx = Builder::new("/");
        cx.vitals().readiness().application("shop", || true);
        cx.vitals().readiness().application("blog", || false);
        let turtle = Health { health: true }.build(&mut cx).unwrap();
        let json = "text/html;q=0.3, Application/JSON;q=0.9";
        let all = r#"{"applications":{"blog":false,"shop":true},"status":"not ready"}"#;
        assert_eq!(ask_for(&turtle, "/ready", json).await, (503, format!("{all}\n")));
        let one = r#"{"applications":{"shop":true},"status":"ready"}"#;
        assert_eq!(ask_for(&turtle, "/ready/shop", json).await, (200, format!("{one}\n")));
        assert_eq!(ask_for(&turtle, "/live", json).await, (200, "{\"status\":\"live\"}\n".to_owned()));
        for accept in
            ["*/*", "text/plain", "", "application/*", "application/json; q=0.0", "application/jsonx"]
        {
            assert_eq!(ask_for(&turtle, "/live", accept).await.1, "live\n", "{accept}");
        }
    }

    #[tokio::test]
    async fn a_gateway_that_drains_lives_and_is_not_ready() {
        let mut cx = Builder::new("/");
        let drains = Arc::new(AtomicBool::new(false));
        let asked = drains.clone();
        cx.vitals().readiness().drains_when(move || asked.load(Ordering::SeqCst));
        cx.vitals().readiness().application("shop", || true);
        let turtle = Health { health: true }.build(&mut cx).unwrap();
        assert_eq!(ask(&turtle, "/ready").await.0, 200);
        drains.store(true, Ordering::SeqCst);
        assert_eq!(ask(&turtle, "/live").await.0, 200);
        assert_eq!(ask(&turtle, "/ready").await, (503, "draining\n".to_owned()));
        assert_eq!(ask(&turtle, "/ready/shop").await.0, 503);
        drains.store(false, Ordering::SeqCst);
        cx.vitals().readiness().close();
        assert_eq!(ask(&turtle, "/ready").await, (503, "draining\n".to_owned()));
    }

    #[test]
    fn false_is_a_mistake() {
        let error = Health { health: false }.build(&mut Builder::new("/")).unwrap_err();
        assert!(error.to_string().contains("write health = true"), "{error}");
    }
}
