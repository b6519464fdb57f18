use std::sync::Mutex;

use futures_util::StreamExt;
use hawksbill_core::body::to_bytes;
use http::request::Builder as Asking;

use super::*;

/// A page, and what it has wished for.
fn page(settings: StatusPage) -> (Turtle, Builder, Arc<Mutex<Vec<String>>>) {
    let mut builder = Builder::new("/");
    let turtle = settings.build(&mut builder).unwrap();
    let wishes: Arc<Mutex<Vec<String>>> = Arc::default();
    let heard = wishes.clone();
    builder.vitals().on_wish(move |wish| heard.lock().unwrap().push(wish.to_owned()));
    (turtle, builder, wishes)
}

async fn ask(turtle: &Turtle, asking: Asking, body: &'static str) -> Result<Response<Body>, Error> {
    let asking = asking.extension(Mount::new("/status"));
    turtle.ask(asking.body(Body::from(body)).unwrap()).await
}

fn get(path: &str) -> Asking {
    Request::get(format!("/status{path}"))
}

fn reload() -> Asking {
    Request::post("/status/actions").header("content-type", "application/json").header("host", "a.example:81")
}

const RELOAD: &str = r#"{"action":"reload","application":"shop"}"#;

#[tokio::test]
async fn the_page_allows_itself_alone() {
    let (turtle, ..) = page(StatusPage::default());
    let response = ask(&turtle, get("/"), "").await.unwrap();
    let policy = response.headers()[CONTENT_SECURITY_POLICY].to_str().unwrap().to_owned();
    let text = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    let text = String::from_utf8(text.to_vec()).unwrap();
    let nonce = policy.split_once("'nonce-").unwrap().1.split_once('\'').unwrap().0;
    assert_eq!(text.matches(&format!("nonce=\"{nonce}\"")).count(), 2);
    assert!(text.contains("data-actions=\"off\"") && !text.contains("{{"), "{text}");
    for foreign in ["http://", "https://", "src=", "@import", "url("] {
        let own = text.matches("http://www.w3.org/2000/svg").count();
        let expected = if foreign == "http://" { own } else { 0 };
        assert_eq!(text.matches(foreign).count(), expected, "{foreign}");
    }
    let again = ask(&turtle, get("/"), "").await.unwrap();
    assert_ne!(again.headers()[CONTENT_SECURITY_POLICY].to_str().unwrap(), policy);
}

#[tokio::test]
async fn what_the_page_asks_for_stands_beneath_it() {
    let (turtle, ..) = page(StatusPage::default());
    let response = ask(&turtle, get(""), "").await.unwrap();
    assert_eq!(
        (response.status().as_u16(), &response.headers()[LOCATION]),
        (302, &HeaderValue::from_static("./status/"))
    );
    assert_eq!(ask(&turtle, get("/other"), "").await.unwrap_err().status(), 404);
    assert_eq!(ask(&turtle, Request::post("/status/"), "").await.unwrap_err().status(), 405);
}

#[tokio::test]
async fn those_who_watch_are_told_until_it_is_over() {
    let (turtle, builder, wishes) = page(StatusPage::default());
    let vitals = builder.vitals().clone();
    vitals.tell("{\"old\": 1}");
    assert!(wishes.lock().unwrap().is_empty());
    let response = ask(&turtle, get("/events"), "").await.unwrap();
    assert_eq!(response.headers()[CONTENT_TYPE], "text/event-stream");
    let mut body = response.into_body().into_data_stream();
    assert_eq!(body.next().await.unwrap().unwrap(), "retry: 1000\n\n");
    for told in ["{\"rate\":1}", "{\"rate\":\n2}", "3", "4"] {
        vitals.tell(told);
        let event = body.next().await.unwrap().unwrap();
        assert_eq!(event, format!("data: {}\n\n", told.replace('\n', " ")));
    }
    assert_eq!(*wishes.lock().unwrap(), [r#"{"wish":"watch"}"#; 2]);
    vitals.tell("null");
    assert!(body.next().await.is_none());
    drop(body);
    for _ in 0..9 {
        vitals.tell("5");
    }
    assert_eq!(wishes.lock().unwrap().len(), 2, "nobody watches any more");
    vitals.tell("null");
    let late = ask(&turtle, get("/events"), "").await.unwrap();
    assert_eq!(to_bytes(late.into_body(), 100).await.unwrap(), "retry: 1000\n\n");
}

#[tokio::test]
async fn watchers_are_bounded() {
    let (turtle, ..) = page(StatusPage { watchers: Bounded::clamped(2), ..StatusPage::default() });
    let watch = async || ask(&turtle, get("/events"), "").await.unwrap();
    let (first, _second) = (watch().await, watch().await);
    let refused = watch().await;
    assert_eq!(
        (refused.status().as_u16(), &refused.headers()[RETRY_AFTER]),
        (503, &HeaderValue::from_static("10"))
    );
    drop(first);
    assert_eq!(watch().await.status(), 200);
}

#[tokio::test]
async fn without_a_supervisor_there_is_nothing_to_see() {
    let turtle = StatusPage::default().build(&mut Builder::new("/")).unwrap();
    assert_eq!(ask(&turtle, get("/events"), "").await.unwrap().status(), 503);
}

#[tokio::test]
async fn actions_are_off_unless_allowed() {
    let (turtle, _builder, wishes) = page(StatusPage::default());
    let asking = reload().header("sec-fetch-site", "same-origin");
    assert_eq!(ask(&turtle, asking, RELOAD).await.unwrap_err().status(), 403);
    assert!(wishes.lock().unwrap().is_empty());
}

#[tokio::test]
async fn only_the_page_itself_may_act() {
    let (turtle, _builder, wishes) = page(StatusPage { actions: true, ..StatusPage::default() });
    let status = async |asking: Asking, body| {
        ask(&turtle, asking, body)
            .await
            .map_or_else(|error| error.status(), |response| response.status())
            .as_u16()
    };
    for refused in [
        reload(),
        reload().header("sec-fetch-site", "cross-site"),
        reload().header("sec-fetch-site", "same-site"),
        reload().header("sec-fetch-site", "none"),
        reload().header("origin", "http://evil.example"),
        reload().header("origin", "null"),
        reload().header("origin", "http://a.example"),
        reload().header("origin", "http://a.example:81").header("sec-fetch-site", "cross-site"),
    ] {
        let shown = format!("{:?}", refused.headers_ref());
        assert_eq!(status(refused, RELOAD).await, 403, "{shown}");
    }
    let own = || reload().header("sec-fetch-site", "same-origin").header("origin", "http://A.example:81");
    assert_eq!(status(own(), "{}").await, 400);
    assert_eq!(status(own(), r#"{"action":"stop","application":"shop"}"#).await, 400);
    let form = Request::post("/status/actions").header("sec-fetch-site", "same-origin");
    assert_eq!(status(form, RELOAD).await, 400);
    assert!(wishes.lock().unwrap().is_empty());
    assert_eq!(status(own(), RELOAD).await, 202);
    assert_eq!(*wishes.lock().unwrap(), [r#"{"wish":"reload","application":"shop"}"#]);
}

#[test]
fn a_page_that_is_off_is_a_mistake() {
    let off = StatusPage { status_page: false, ..StatusPage::default() };
    assert!(off.build(&mut Builder::new("/")).unwrap_err().to_string().contains("leave the route out"));
}
