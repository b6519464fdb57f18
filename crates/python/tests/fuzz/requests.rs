//! Environ (PEP 3333, "environ Variables") and scope (ASGI "HTTP Connection Scope") of requests at random, against a
//! description of both that is written apart from the code.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use hawksbill_core::{Address, Body, Connection, Mount, Peer, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use proptest::prelude::*;

use crate::Subject;
use crate::common::whole;

/// Answers with its environ: lengths of key and value, then these. What is no latin-1 text is a 500.
const WSGI: &str = "
import warnings
from wsgiref.validate import check_environ
warnings.simplefilter('ignore')
def app(environ, start_response):
    if environ['PATH_INFO'] != '*':
        check_environ(environ)
    out = []
    for key, value in environ.items():
        assert type(key) is str, key
        if key.startswith('wsgi.') and type(value) is not str:
            continue
        assert type(value) is str, (key, value)
        key, value = key.encode('latin-1'), value.encode('latin-1')
        out += [b'%d %d\\n' % (len(key), len(value)), key, value]
    start_response('200 OK', [])
    return out
";

/// The same of its scope; headers in their order.
const ASGI: &str = "
async def app(scope, receive, send):
    if scope['type'] != 'http':
        raise NotImplementedError
    out = []
    def tell(key, value):
        out.extend([b'%d %d\\n' % (len(key), len(value)), key, value])
    for key in ('method', 'path', 'root_path', 'scheme', 'http_version'):
        assert type(scope[key]) is str, key
        tell(key.encode(), scope[key].encode())
    for key in ('raw_path', 'query_string'):
        assert type(scope[key]) is bytes, key
        tell(key.encode(), scope[key])
    client = scope['client']
    assert client is None or (type(client[0]), type(client[1])) == (str, int)
    tell(b'client', repr(client and tuple(client)).encode())
    for name, value in scope['headers']:
        assert type(name) is type(value) is bytes and name == name.lower()
        tell(b'header ' + name, value)
    await send({'type': 'http.response.start', 'status': 200})
    await send({'type': 'http.response.body', 'body': b''.join(out)})
";

#[derive(Clone, Debug)]
struct Ask {
    method: Method,
    uri: Uri,
    /// The prefix, and the rest where the path spells it otherwise.
    mount: Option<(String, Option<String>)>,
    headers: HeaderMap,
    client: Option<SocketAddr>,
    scheme: Scheme,
}

fn header_name() -> impl Strategy<Value = HeaderName> {
    let known =
        ["cookie", "x-a", "x_a", "x-a-b", "proxy", "content-type", "content_type", "host", "accept", "_"];
    prop_oneof![
        prop::sample::select(known.to_vec()).prop_map(HeaderName::from_static),
        "[!#$%&'*+.^_`|~0-9A-Za-z-]{1,12}"
            .prop_filter("a length is another matter", |name| !name.eq_ignore_ascii_case("content-length"))
            .prop_map(|name| HeaderName::from_bytes(name.as_bytes()).unwrap()),
    ]
}

fn header_value() -> impl Strategy<Value = HeaderValue> {
    prop::collection::vec(any::<u8>(), 0..20)
        .prop_filter_map("a line break", |value| HeaderValue::from_bytes(&value).ok())
}

/// Path segments as clients may send them: anything that a URI takes, quoted or not.
fn path(most: usize) -> impl Strategy<Value = String> {
    let piece =
        prop_oneof!["[!-~&&[^?#%]]{0,6}", any::<u8>().prop_map(|byte| format!("%{byte:02x}")), "%[0-9A-Fg]?"];
    prop::collection::vec(prop::collection::vec(piece, 0..4), 0..most)
        .prop_map(|segments| segments.into_iter().fold(String::new(), |path, one| path + "/" + &one.concat()))
}

fn target() -> impl Strategy<Value = (Uri, Option<(String, Option<String>)>)> {
    let query = prop::option::of("[!-~&&[^#]]{0,12}");
    let authority = prop::option::of("(http|https)://([a-z]{1,3}@)?[a-z]{1,5}(:[0-9]{1,4})?");
    let mount = prop_oneof![
        Just(None),
        path(3).prop_map(|prefix| Some((prefix.trim_end_matches('/').to_owned(), None))),
        (path(3), path(3))
            .prop_map(|(prefix, rest)| Some((prefix.trim_end_matches('/').to_owned(), Some(rest)))),
    ];
    (path(4), query, authority, mount).prop_filter_map("no URI", |(path, query, authority, mount)| {
        // An application is asked for what stands beneath its mount alone.
        let prefix = match &mount {
            Some((prefix, None)) => prefix.as_str(),
            _ => "",
        };
        let path = format!("{prefix}{path}");
        let path = if path.is_empty() && authority.is_none() { "*".to_owned() } else { path };
        let query = query.filter(|_| path != "*").map_or(String::new(), |query| format!("?{query}"));
        let uri: Uri = format!("{}{path}{query}", authority.unwrap_or_default()).parse().ok()?;
        // `Uri` has a path of its own for what has none.
        (uri.path() == path).then_some((uri, mount.filter(|_| path != "*")))
    })
}

fn ask() -> impl Strategy<Value = Ask> {
    let method = prop_oneof![
        prop::sample::select(vec![Method::GET, Method::POST, Method::HEAD, Method::OPTIONS]),
        "[A-Z]{1,8}".prop_map(|name| Method::from_bytes(name.as_bytes()).unwrap()),
    ]
    .prop_filter("no tunnels, and a body to compare", |method| {
        !matches!(*method, Method::CONNECT | Method::HEAD)
    });
    let headers = prop::collection::vec((header_name(), header_value()), 0..12);
    let client = prop::option::of(any::<SocketAddr>());
    let scheme = prop_oneof![Just(Scheme::Http), Just(Scheme::Https)];
    (method, target(), headers, client, scheme).prop_map(|(method, (uri, mount), headers, client, scheme)| {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name, value);
        }
        Ask { method, uri, mount, headers: map, client, scheme }
    })
}

impl Ask {
    fn request(&self) -> http::request::Builder {
        let connection = Connection {
            remote: self.client.map_or(Address::Unix(None), Address::Tcp),
            local: Address::Unix(None),
            scheme: self.scheme,
        };
        let mut request = Request::builder().method(self.method.clone()).uri(self.uri.clone());
        request = request.extension(Peer::new(connection));
        if let Some((prefix, rest)) = &self.mount {
            let mount = Mount::new(prefix.as_str());
            request = request.extension(match rest {
                Some(rest) => mount.with_rest(rest.as_str()),
                None => mount,
            });
        }
        *request.headers_mut().unwrap() = self.headers.clone();
        request
    }

    /// Mount and what is asked for beneath it, unquoted.
    fn split(&self) -> (Vec<u8>, Vec<u8>) {
        let path = self.uri.path();
        match &self.mount {
            None => (Vec::new(), unquoted(path)),
            Some((prefix, Some(rest))) => (unquoted(prefix), unquoted(rest)),
            Some((prefix, None)) => (unquoted(prefix), unquoted(&path[prefix.len()..])),
        }
    }

    fn host(&self) -> Option<Vec<u8>> {
        let authority = self.uri.authority().map(|authority| {
            let text = authority.as_str();
            text.rsplit('@').next().unwrap_or(text).as_bytes().to_vec()
        });
        authority.or_else(|| Some(self.headers.get("host")?.as_bytes().to_vec()))
    }

    fn scheme(&self) -> Vec<u8> {
        self.scheme.as_str().as_bytes().to_vec()
    }
}

fn unquoted(path: &str) -> Vec<u8> {
    let bytes = path.as_bytes();
    let digit = |at: usize| bytes.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    let (mut out, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        if let (b'%', Some(high), Some(low)) = (bytes[at], digit(at + 1), digit(at + 2)) {
            out.push(u8::try_from(high * 16 + low).unwrap());
            at += 3;
        } else {
            out.push(bytes[at]);
            at += 1;
        }
    }
    out
}

/// What the applications wrote.
fn told(mut text: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut pairs = Vec::new();
    while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
        let line = std::str::from_utf8(&text[..end]).unwrap();
        let (key, value) = line.split_once(' ').unwrap();
        let (key, value): (usize, usize) = (key.parse().unwrap(), value.parse().unwrap());
        text = &text[end + 1..];
        pairs.push((text[..key].to_vec(), text[key..key + value].to_vec()));
        text = &text[key + value..];
    }
    pairs
}

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

fn answer(
    runtime: &tokio::runtime::Runtime,
    app: &crate::common::App,
    ask: &Ask,
) -> Result<Pairs, TestCaseError> {
    runtime.block_on(async {
        let answer = app.ask(ask.request(), Body::empty()).await;
        let response = answer.map_err(|error| TestCaseError::fail(error.to_string()))?;
        Ok(told(&whole(response).await.unwrap()))
    })
}

#[test]
fn every_request_makes_an_environ_that_is_right() {
    Subject::new(WSGI, 1500).check(&ask(), |runtime, app, ask| {
        let pairs = answer(runtime, app, &ask)?;
        let mut seen: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        for (key, value) in pairs {
            let key = String::from_utf8(key).unwrap();
            prop_assert!(seen.insert(key.clone(), value).is_none(), "{key} twice");
        }
        for (key, at_least) in
            [("SERVER_NAME", 1), ("SERVER_PORT", 1), ("GATEWAY_INTERFACE", 7), ("SERVER_SOFTWARE", 9)]
        {
            prop_assert!(seen.remove(key).is_some_and(|value| value.len() >= at_least), "{key}");
        }
        let (script_name, path_info) = ask.split();
        let target = ask.uri.path_and_query().map_or("/", |target| target.as_str()).as_bytes().to_vec();
        let mut expected: BTreeMap<String, Vec<u8>> = [
            ("REQUEST_METHOD", ask.method.as_str().as_bytes().to_vec()),
            ("SERVER_PROTOCOL", b"HTTP/1.1".to_vec()),
            ("SCRIPT_NAME", script_name),
            ("PATH_INFO", path_info),
            ("QUERY_STRING", ask.uri.query().unwrap_or_default().as_bytes().to_vec()),
            ("REQUEST_URI", target.clone()),
            ("RAW_URI", target),
            ("REMOTE_ADDR", ask.client.map_or(String::new(), |client| client.ip().to_string()).into_bytes()),
            ("wsgi.url_scheme", ask.scheme()),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into();
        if let Some(client) = ask.client.filter(|client| client.port() != 0) {
            expected.insert("REMOTE_PORT".into(), client.port().to_string().into_bytes());
        }
        if let Some(host) = ask.host() {
            expected.insert("HTTP_HOST".into(), host);
        }
        for name in ask.headers.keys() {
            if name.as_str().contains('_') || ["proxy", "host"].contains(&name.as_str()) {
                continue;
            }
            let values: Vec<_> = ask.headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
            let key = match name.as_str() {
                "content-type" => "CONTENT_TYPE".to_owned(),
                other => format!("HTTP_{}", other.to_ascii_uppercase().replace('-', "_")),
            };
            let between: &[u8] = if name == "cookie" { b"; " } else { b", " };
            prop_assert!(
                expected.insert(key.clone(), values.join(between)).is_none(),
                "{key} from two names"
            );
        }
        prop_assert_eq!(seen, expected);
        Ok(())
    });
}

#[test]
fn every_request_makes_a_scope_that_is_right() {
    Subject::new(ASGI, 1000).check(&ask(), |runtime, app, ask| {
        let seen = answer(runtime, app, &ask)?;
        let (root_path, rest) = ask.split();
        let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned().into_bytes();
        let path = match ask.uri.path() {
            "" => "/",
            path => path,
        };
        let client = match ask.client {
            Some(client) => format!("('{}', {})", client.ip(), client.port()),
            None => "None".into(),
        };
        let mut expected: Pairs = [
            ("method", ask.method.as_str().as_bytes().to_vec()),
            ("path", lossy(&[&*root_path, &*rest].concat())),
            ("root_path", lossy(&root_path)),
            ("scheme", ask.scheme()),
            ("http_version", b"1.1".to_vec()),
            ("raw_path", path.as_bytes().to_vec()),
            ("query_string", ask.uri.query().unwrap_or_default().as_bytes().to_vec()),
            ("client", client.into_bytes()),
        ]
        .map(|(key, value)| (key.as_bytes().to_vec(), value))
        .into();
        let header = |name: &[u8]| [b"header ", name].concat();
        expected.extend(ask.host().map(|host| (header(b"host"), host)));
        for (name, value) in ask.headers.iter().filter(|(name, _)| *name != "host") {
            expected.push((header(name.as_str().as_bytes()), value.as_bytes().to_vec()));
        }
        prop_assert_eq!(seen, expected);
        Ok(())
    });
}
