//! The path `/logs`: what is in the log, record by record.

use std::convert::Infallible;

use futures_util::stream;
use hawksbill_core::Body;
use http::{HeaderValue, Response, header};
use percent_encoding::percent_decode_str;
use tokio::sync::watch;

use super::api::{SILENCE, gone};
use super::trouble::Trouble;
use crate::log::{self, Asked, Following};
use crate::processes::Facts;

/// So many records are given where nothing is said.
const LAST: usize = 100;

/// JSON lines: what was logged lately, and what is from now on where that is asked for.
pub(super) fn logs(query: &str, facts: watch::Receiver<Facts>) -> Result<Response<Body>, Trouble> {
    let (asked, follow) = read(query)?;
    let following = log::follow(asked).ok_or_else(|| Trouble::bad("this gateway keeps no log"))?;
    let coming = follow.then_some(facts);
    let mut response = Response::new(Body::from_stream(Box::pin(stream::unfold((following, coming), next))));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

fn read(query: &str) -> Result<(Asked, bool), Trouble> {
    let mut asked = Asked { name: None, last: LAST };
    let mut follow = false;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=').unwrap_or((pair, "")) {
            ("name", name) => asked.name = Some(percent_decode_str(name).decode_utf8_lossy().into_owned()),
            ("last", number) => {
                let wrong = |_| Trouble::bad(format!("last is '{number}', which is no number of records"));
                asked.last = number.parse().map_err(wrong)?;
            }
            ("follow", "true") => follow = true,
            _ => {
                let message =
                    "the query is not understood; write ?name=NAME&last=N&follow=true, or parts of it";
                return Err(Trouble::bad(message));
            }
        }
    }
    Ok((asked, follow))
}

type Reading = (Following, Option<watch::Receiver<Facts>>);

async fn next((mut following, mut coming): Reading) -> Option<(Result<String, Infallible>, Reading)> {
    let line = match (following.next_kept(), &mut coming) {
        (Some(record), _) => record.to_json(),
        (None, None) => return None,
        (None, Some(facts)) => tokio::select! {
            record = following.next_coming() => match record? {
                Ok(record) => record.to_json(),
                Err(missed) => format!("{{\"missed\":{missed}}}\n"),
            },
            () = gone(facts) => return None,
            // Whoever has left is noticed by that.
            () = tokio::time::sleep(SILENCE) => "\n".to_owned(),
        },
    };
    Some((Ok(line), (following, coming)))
}
