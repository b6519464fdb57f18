//! The page that an application answers itself where a view fails, such as Django's with the traceback: it comes back by itself as
//! our own does, by the same script, which is put behind it.

use futures_util::{StreamExt, stream};
use hawksbill_core::{Body, Error, Kind, Turtle};
use http::header::{ACCEPT, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use tokio::sync::watch;

use super::page::{AT_A_TIME, BROKEN, WAIT, comeback, number};

/// The application, with that.
pub(super) fn over(app: Turtle, leaves: watch::Receiver<bool>) -> Turtle {
    let number = number();
    Turtle::from_fn(move |request: Request<Body>| {
        let (app, number, leaves) = (app.clone(), number.clone(), leaves.clone());
        async move {
            if says(request.headers(), &WAIT, |text| text == number) {
                return Ok(waited(&number, leaves).await);
            }
            let is_page = request.method() == Method::GET
                && says(request.headers(), &ACCEPT, |text| text.contains("text/html"));
            let response = match app.ask(request).await {
                // Where it has not even a page for that, ours comes back.
                Err(error) if is_page && error.kind() == Kind::Internal => error.into_response(),
                answered => answered?,
            };
            Ok(if is_page && tells_of_failure(&response) { with_script(response, &number) } else { response })
        }
    })
}

fn says(headers: &HeaderMap, name: &HeaderName, what: impl Fn(&str) -> bool) -> bool {
    headers.get(name).and_then(|value| value.to_str().ok()).is_some_and(what)
}

/// Answers when others serve, or after a while.
async fn waited(number: &str, mut leaves: watch::Receiver<bool>) -> Response<Body> {
    let _ = tokio::time::timeout(AT_A_TIME, leaves.wait_for(|leaves| *leaves)).await;
    let mut response = Response::new(Body::empty());
    mark(&mut response, number);
    response
}

/// Whether this is a page to read, as it is, of something that failed.
fn tells_of_failure(response: &Response<Body>) -> bool {
    response.status() == StatusCode::INTERNAL_SERVER_ERROR
        && says(response.headers(), &CONTENT_TYPE, |text| text.starts_with("text/html"))
        && !response.headers().contains_key(CONTENT_ENCODING)
}

fn with_script(response: Response<Body>, number: &str) -> Response<Body> {
    let script = format!("<script>\n{}</script>\n", comeback(number, true));
    let (head, body) = response.into_parts();
    let more = stream::once(async move { Ok::<_, Error>(script.into()) });
    let mut response = Response::from_parts(head, Body::from_stream(body.into_data_stream().chain(more)));
    response.headers_mut().remove(CONTENT_LENGTH);
    response.headers_mut().remove(ETAG);
    mark(&mut response, number);
    response
}

fn mark(response: &mut Response<Body>, number: &str) {
    if let Ok(number) = HeaderValue::from_str(number) {
        response.headers_mut().insert(BROKEN, number);
    }
}

#[cfg(test)]
mod tests {
    use hawksbill_core::body::to_bytes;

    use super::*;

    async fn answer(status: u16, kind: &'static str, accept: &str) -> (bool, String) {
        let app = Turtle::from_fn(move |_| async move {
            let response = Response::builder().status(status).header(CONTENT_TYPE, kind);
            Ok(response.header(CONTENT_LENGTH, "4").body(Body::from("page")).unwrap())
        });
        let (_leaves, watched) = watch::channel(false);
        let request = Request::get("/").header(ACCEPT, accept).body(Body::empty()).unwrap();
        let response = over(app, watched).ask(request).await.unwrap();
        let has_length = response.headers().contains_key(CONTENT_LENGTH);
        let text = to_bytes(response.into_body(), 1 << 16).await.unwrap();
        (has_length, String::from_utf8_lossy(&text).into_owned())
    }

    #[tokio::test]
    async fn a_page_of_a_failure_gets_the_script_and_nothing_else_does() {
        let html = "text/html; charset=utf-8";
        let (has_length, text) = answer(500, html, "text/html,*/*").await;
        assert!(
            !has_length && text.starts_with("page<script>") && text.contains("location.reload"),
            "{text}"
        );
        for (status, kind, accept) in [
            (200, html, "text/html"),
            (404, html, "text/html"),
            (500, "application/json", "text/html"),
            (500, html, "*/*"),
        ] {
            assert_eq!(
                answer(status, kind, accept).await,
                (true, "page".to_owned()),
                "{status} {kind} {accept}"
            );
        }
    }

    #[tokio::test]
    async fn an_application_without_a_page_has_ours() {
        let app = Turtle::from_fn(async |_| Err(Error::new(Kind::Internal)));
        let (_leaves, watched) = watch::channel(false);
        let request = Request::get("/").header(ACCEPT, "text/html").body(Body::empty()).unwrap();
        let response = over(app, watched).ask(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert!(response.headers().contains_key(BROKEN));
    }

    #[tokio::test]
    async fn whoever_waits_hears_when_others_serve() {
        let app = Turtle::from_fn(async |_| {
            let response = Response::builder().status(500).header(CONTENT_TYPE, "text/html");
            Ok(response.body(Body::empty()).unwrap())
        });
        let (leaves, watched) = watch::channel(false);
        let turtle = over(app, watched);
        let first = Request::get("/").header(ACCEPT, "text/html").body(Body::empty()).unwrap();
        let number = turtle.ask(first).await.unwrap().headers()[BROKEN].clone();
        let request = Request::get("/").header(WAIT, number.clone()).body(Body::empty()).unwrap();
        leaves.send_replace(true);
        let response = turtle.ask(request).await.unwrap();
        assert_eq!((response.status(), &response.headers()[BROKEN]), (StatusCode::OK, &number));
    }
}
