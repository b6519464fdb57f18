//! What a response must be like to go over the wire. Whatever an application answers, it cannot end a process, nor
//! make the next response on the connection be misread.

use hawksbill_core::Body;
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING};
use http::{Method, Response, StatusCode};
use http_body::Body as HttpBody;

/// Makes a response fit its request: no body where none is allowed, no header that belongs to the connection. Gives
/// the bytes that its Content-Length promises and nothing else is known of.
///
/// # Errors
/// What no response can be made of, for the log.
pub(crate) fn conform(response: &mut Response<Body>, method: &Method) -> Result<Option<u64>, String> {
    let status = response.status();
    if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS {
        return Err(format!("status {} is not a final one", status.as_u16()));
    }
    let length = content_length(response.headers())?;
    hop_by_hop(response.headers_mut(), status);
    let actual = response.body().size_hint().exact();
    if matches!(status, StatusCode::SWITCHING_PROTOCOLS | StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        response.headers_mut().remove(CONTENT_LENGTH);
        *response.body_mut() = Body::empty();
        return Ok(None);
    }
    if *method == Method::HEAD {
        // The answer that GET would have got. An empty body says nothing of its length.
        if let (None, Some(actual @ 1..)) = (length, actual) {
            response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(actual));
        }
        *response.body_mut() = Body::empty();
        return Ok(None);
    }
    match (length, actual) {
        (Some(length), Some(actual)) if length != actual => {
            Err(format!("its Content-Length is {length} and its body has {actual} bytes"))
        }
        (Some(length), None) => Ok(Some(length)),
        _ => Ok(None),
    }
}

/// The one length that all Content-Length headers give.
fn content_length(headers: &HeaderMap) -> Result<Option<u64>, String> {
    // There are few headers, so that looking at each is quicker than finding one.
    let mut values = headers.iter().filter(|(name, _)| **name == CONTENT_LENGTH).map(|(_, value)| value);
    let Some(first) = values.next() else { return Ok(None) };
    let digits = first.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let length = digits.and_then(|digits| digits.parse().ok());
    match length {
        Some(length) if values.all(|value| value == first) => Ok(Some(length)),
        _ => Err("its Content-Length is not one number".to_owned()),
    }
}

/// How a message is framed and whether the connection goes on is the server's to say, except that an application may
/// close it, and name the protocol it switches to.
fn hop_by_hop(headers: &mut HeaderMap, status: StatusCode) {
    const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
    let is_of_connection = |name| [CONNECTION, TRANSFER_ENCODING, KEEP_ALIVE].contains(name);
    if !headers.keys().any(is_of_connection) {
        return;
    }
    headers.remove(TRANSFER_ENCODING);
    headers.remove(KEEP_ALIVE);
    if status != StatusCode::SWITCHING_PROTOCOLS && headers.contains_key(CONNECTION) {
        let closes = says_close(headers);
        headers.remove(CONNECTION);
        if closes {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
    }
}

fn says_close(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(CONNECTION).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|token| token.trim().eq_ignore_ascii_case("close"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(status: u16, headers: &[(&'static str, &'static str)], body: Body) -> Response<Body> {
        let response = Response::builder().status(status);
        headers
            .iter()
            .fold(response, |response, (name, value)| response.header(*name, *value))
            .body(body)
            .unwrap()
    }

    fn streamed(text: &'static str) -> Body {
        Body::from_stream(futures_util::stream::iter([Ok::<_, hawksbill_core::Error>(text)]))
    }

    #[test]
    fn lengths_must_agree() {
        let get = |mut response| conform(&mut response, &Method::GET);
        assert_eq!(get(response(200, &[("content-length", "3")], Body::from("abc"))), Ok(None));
        assert_eq!(get(response(200, &[("content-length", "3")], streamed("abc"))), Ok(Some(3)));
        assert!(get(response(200, &[("content-length", "4")], Body::from("abc"))).is_err());
        assert!(get(response(200, &[("content-length", "+3")], Body::from("abc"))).is_err());
        assert!(
            get(response(200, &[("content-length", "3"), ("content-length", "4")], streamed("abc"))).is_err()
        );
        assert!(get(response(103, &[], Body::empty())).is_err());
    }

    #[test]
    fn head_gets_the_length_alone() {
        let mut answer = response(200, &[], Body::from("abc"));
        conform(&mut answer, &Method::HEAD).unwrap();
        assert_eq!(answer.headers()[CONTENT_LENGTH], "3");
        assert!(answer.body().is_end_stream());
    }

    #[test]
    fn the_connection_is_the_servers() {
        let headers = [
            ("connection", "keep-alive, X, Close"),
            ("transfer-encoding", "gzip"),
            ("keep-alive", "timeout=9"),
        ];
        let mut answer = response(200, &headers, Body::from("abc"));
        conform(&mut answer, &Method::GET).unwrap();
        assert_eq!(answer.headers().len(), 1);
        assert_eq!(answer.headers()[CONNECTION], "close");
    }
}
