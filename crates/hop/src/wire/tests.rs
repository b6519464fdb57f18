//! What is written is read again; what nobody wrote is refused, and costs nothing.

use bytes::Bytes;
use hawksbill_core::{Address, Connection, Error, Forwarded, Kind, Mount, Peer, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use proptest::prelude::*;

use super::*;
use crate::Fault;

fn address() -> impl Strategy<Value = Address> {
    prop_oneof![
        any::<std::net::SocketAddr>().prop_map(Address::Tcp),
        any::<std::path::PathBuf>().prop_map(|path| Address::Unix(Some(path))),
        Just(Address::Unix(None)),
    ]
}

fn scheme() -> impl Strategy<Value = Scheme> {
    prop_oneof![Just(Scheme::Http), Just(Scheme::Https)]
}

prop_compose! {
    fn connection()(remote in address(), local in address(), scheme in scheme()) -> Connection {
        Connection { remote, local, scheme }
    }
}

prop_compose! {
    fn told()(
        client in proptest::option::of(address()),
        scheme in proptest::option::of(scheme()),
        host in proptest::option::of(".*"),
    ) -> Forwarded {
        Forwarded { client, scheme, host }
    }
}

fn header_map() -> impl Strategy<Value = HeaderMap> {
    let value = proptest::collection::vec(0x20_u8..0x7f, 0..40);
    proptest::collection::vec(("[a-z][a-z0-9-]{0,20}", value), 0..20).prop_map(|headers| {
        let header = |(name, value): (String, Vec<u8>)| {
            (HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_bytes(&value).unwrap())
        };
        let mut map = HeaderMap::new();
        for (name, value) in headers.into_iter().map(header) {
            map.append(name, value);
        }
        map
    })
}

fn encoded(parts: &http::request::Parts, length: Option<u64>) -> Bytes {
    let (peer, mount) = (parts.extensions.get::<Peer>(), parts.extensions.get::<Mount>());
    let mut out = Vec::new();
    RequestHead::encode(parts, &Facts { peer, mount, length }, &mut out);
    out.into()
}

proptest! {
    #[test]
    fn requests(
        headers in header_map(),
        connection in connection(),
        told in proptest::option::of(told()),
        target in "/[a-z%0-9/]{0,30}(\\?[a-z=&]{0,9})?",
        length in proptest::option::of(0..u64::MAX),
        rest in proptest::option::of("/[a-z]{0,9}"),
    ) {
        let mut request = Request::new(());
        *request.method_mut() = Method::from_bytes(b"PROPFIND").unwrap();
        *request.uri_mut() = target.parse().unwrap();
        *request.headers_mut() = headers.clone();
        let peer = forwarded_of(Peer::new(connection.clone()), told.clone());
        let number = peer.number();
        let mount = Mount::new("/at");
        let mount = match rest { Some(rest) => mount.with_rest(rest), None => mount };
        request.extensions_mut().insert(peer);
        request.extensions_mut().insert(mount.clone());
        let head = RequestHead::decode(&encoded(&request.into_parts().0, length)).unwrap();
        prop_assert_eq!(head.method.as_str(), "PROPFIND");
        prop_assert_eq!(head.target.to_string(), target);
        prop_assert_eq!(head.headers, headers);
        prop_assert_eq!(head.length, length);
        prop_assert_eq!(head.mount, Some(mount));
        prop_assert_eq!(head.forwarded, told);
        let (there, facts) = head.connection.unwrap();
        prop_assert_eq!(there, number);
        prop_assert_eq!(connection_of(&facts).unwrap(), connection);
    }

    #[test]
    fn responses_and_trailers(headers in header_map(), status in 100_u16..1000, length in proptest::option::of(0..u64::MAX)) {
        let mut response = Response::new(());
        *response.status_mut() = http::StatusCode::from_u16(status).unwrap();
        *response.headers_mut() = headers.clone();
        let mut out = Vec::new();
        ResponseHead::encode(&response.into_parts().0, length, &mut out);
        let head = ResponseHead::decode(&out.into()).unwrap();
        prop_assert_eq!((head.status.as_u16(), head.length, &head.headers), (status, length, &headers));
        let mut out = Vec::new();
        encode_trailers(&headers, &mut out);
        prop_assert_eq!(decode_trailers(&out.into()).unwrap(), headers);
    }

    #[test]
    fn failures(kind in proptest::sample::select(&Kind::ALL[..]), reason in ".*", retryable: bool, headers in header_map()) {
        let mut error = Error::new(kind).because(reason.clone());
        if retryable {
            error = error.retryable();
        }
        for (name, value) in &headers {
            error = error.header(name.clone(), value.clone());
        }
        let mut out = Vec::new();
        Failure(error).encode(&mut out);
        let error = Failure::decode(&out.into()).unwrap().0;
        prop_assert_eq!((error.kind(), error.is_retryable(), error.headers()), (kind, retryable, &headers));
        prop_assert!(reason.starts_with(error.reason()));
    }

    #[test]
    fn frame_headers(bytes: [u8; HEADER], role in prop_oneof![Just(Role::Front), Just(Role::Worker)]) {
        let limits = Limits::default();
        if let Ok(header) = FrameHeader::decode(bytes, role, &limits) {
            prop_assert!(header.length <= limits.head as usize);
            prop_assert_eq!(header.encode(), bytes);
        }
    }

    #[test]
    fn anything_else_is_refused_or_understood(payload in proptest::collection::vec(any::<u8>(), 0..300)) {
        let payload = Bytes::from(payload);
        RequestHead::decode(&payload).ok();
        ResponseHead::decode(&payload).ok();
        Failure::decode(&payload).ok();
        decode_trailers(&payload).ok();
        connection_of(&payload).ok();
        Hello::decode(&payload).ok();
    }

    #[test]
    fn a_request_with_other_bytes_in_it(place in 0_usize..200, byte: u8, cut in 0_usize..200) {
        let mut request = Request::new(());
        request.headers_mut().insert("host", HeaderValue::from_static("a"));
        request.extensions_mut().insert(Mount::new("/at"));
        let mut bytes = encoded(&request.into_parts().0, None).to_vec();
        if let Some(there) = bytes.get_mut(place) {
            *there = byte;
        }
        bytes.truncate(cut);
        RequestHead::decode(&bytes.into()).ok();
    }
}

#[test]
fn a_count_of_headers_reserves_nothing_that_did_not_come() {
    let payload = Bytes::from(u32::MAX.to_le_bytes().to_vec());
    assert!(decode_trailers(&payload).is_err());
}

#[test]
fn targets_are_as_they_came() {
    for target in ["/", "*", "/a//b/../c?x=%2F", "http://example.com/a", "http://example.com:80/?q"] {
        let parts = Request::get(target).body(()).unwrap().into_parts().0;
        let head = RequestHead::decode(&encoded(&parts, None)).unwrap();
        assert_eq!(head.target, parts.uri, "{target}");
    }
}

#[test]
fn who_speaks_no_common_version_is_told_both() {
    let theirs = Hello { versions: (7, 9), ..Hello::ours(Limits::default(), 3) };
    let bytes = theirs.encode();
    let (prefix, rest) = bytes.split_first_chunk::<PREFIX>().unwrap();
    assert_eq!(Hello::decode_prefix(*prefix).unwrap(), rest.len());
    let error = Hello::decode(rest).unwrap_err();
    assert!(matches!(error, Fault::Version { ours: (1, 1), theirs: (7, 9), .. }));
    assert!(
        error.to_string().contains("in versions 1 to 1") && error.to_string().contains("in versions 7 to 9")
    );
}

#[test]
fn a_hello_may_be_longer_than_this_release_knows() {
    let ours = Hello::ours(Limits::default(), 3);
    let mut bytes = ours.encode().split_off(PREFIX);
    bytes.extend_from_slice(b"what a later version adds");
    assert_eq!(Hello::decode(&bytes).unwrap(), ours);
}
