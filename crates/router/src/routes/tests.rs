//! Unit tests of the table of routes, and its comparison with a naive one.

use hawksbill_core::body::to_bytes;
use proptest::prelude::*;

use super::*;

/// Answers with its name and what it sees.
fn named(name: &'static str) -> Turtle {
    Turtle::from_fn(move |request: Request<Body>| {
        let path = request.uri().path();
        let seen = match request.extensions().get::<Mount>() {
            Some(mount) => format!("{name} {:?}", mount.split(path)),
            None => format!("{name} {path}"),
        };
        std::future::ready(Ok(Response::new(Body::from(seen))))
    })
}

async fn answer(routes: &Routes, request: http::request::Builder) -> String {
    match routes.ask(request.body(Body::empty()).unwrap()).await {
        Ok(response) => {
            String::from_utf8(to_bytes(response.into_body(), 4096).await.unwrap().to_vec()).unwrap()
        }
        Err(error) => error.to_string(),
    }
}

async fn check(routes: &Routes, expected: &[(&str, &str)]) {
    for (path, seen) in expected {
        assert_eq!(answer(routes, Request::get(*path)).await, *seen, "{path}");
    }
}

const TWO_ROUTES: &str = "400 Bad Request: dot segments or an escaped slash make the path lead to two routes";

#[tokio::test]
async fn the_longest_prefix_at_a_segment_boundary() {
    let routes = Routes::builder()
        .route("/", named("root"))
        .route("/static", named("static"))
        .route("/static/admin/", named("admin"))
        .route("/café", named("café"))
        .build()
        .unwrap();
    check(
        &routes,
        &[
            ("/", "root /"),
            ("/static", "static /static"),
            ("/static/", "static /static/"),
            ("/static/a.css", "static /static/a.css"),
            ("/static2", "root /static2"),
            ("/Static/a.css", "root /Static/a.css"),
            ("/static/admin", "admin /static/admin"),
            ("/static/administrator", "static /static/administrator"),
            ("/caf%c3%a9/menu", "café /caf%c3%a9/menu"),
            ("/static/a.css?x=/../..", "static /static/a.css"),
        ],
    )
    .await;
}

#[tokio::test]
async fn applications_get_the_path_as_it_came() {
    let routes =
        Routes::builder().route("/", named("root")).route("/static", named("static")).build().unwrap();
    check(
        &routes,
        &[
            ("//static//a.css", "static //static//a.css"),
            ("/%73tatic/%61.css", "static /%73tatic/%61.css"),
            ("/static/./a/../b", "static /static/./a/../b"),
            ("/static/a%2Fb", "static /static/a%2Fb"),
            ("/a/b%2F../c", "root /a/b%2F../c"),
        ],
    )
    .await;
}

#[tokio::test]
async fn no_spelling_leads_into_one_route_and_out_of_another() {
    let routes =
        Routes::builder().route("/", named("root")).route("/internal", named("internal")).build().unwrap();
    for path in [
        "/internal/../x",
        "/internal/%2e%2E/x",
        "/internal%2Fsecret",
        "/internal%2fsecret/..%2fx",
        "/internal%2F..%2Fx",
        "/internal/..%2Fx",
        "/x/../internal/secret",
        "/x%2F../internal",
        "/./internal",
        "/internal/x/../../y",
    ] {
        let seen = answer(&routes, Request::get(path)).await;
        assert!(seen.starts_with(TWO_ROUTES), "{path}: {seen}");
    }
    check(
        &routes,
        &[
            ("/..", "400 Bad Request: the path climbs above the root: '/..'"),
            ("/internal/../..", "400 Bad Request: the path climbs above the root: '/internal/../..'"),
            ("/a%2F..%2F..%2Fb", "400 Bad Request: the path climbs above the root: '/a%2F..%2F..%2Fb'"),
            ("/%zz", "400 Bad Request: a percent sign is not followed by two hexadecimal digits: '/%zz'"),
            ("/internal%00", "400 Bad Request: the path has a NUL: '/internal%00'"),
        ],
    )
    .await;
}

#[tokio::test]
async fn a_mount_splits_the_path() {
    let routes = Routes::builder()
        .mount("/", named("root"))
        .mount("/blog/", named("blog"))
        .mount("/two words", named("two"))
        .build()
        .unwrap();
    check(
        &routes,
        &[
            ("/a//b", "root /a//b"),
            ("/a/./b", r#"root ("", "/a/b")"#),
            ("/blog", r#"blog ("/blog", "")"#),
            ("/blog/", r#"blog ("/blog", "/")"#),
            ("/blog//2026/%7Ex", r#"blog ("/blog", "//2026/%7Ex")"#),
            ("//blog/x", r#"blog ("/blog", "/x")"#),
            ("/%62log/x", r#"blog ("/blog", "/x")"#),
            ("/x/../blog/a/./b/", r#"blog ("/blog", "/a/b/")"#),
            ("/blog/a/../../blog", r#"blog ("/blog", "")"#),
            ("/blog/../x", r#"root ("", "/x")"#),
            ("/two%20words/x", r#"two ("/two%20words", "/x")"#),
            ("/blog/a%2Fb", r#"blog ("/blog", "/a%2Fb")"#),
            ("/blogs", "root /blogs"),
        ],
    )
    .await;
    let seen = answer(&routes, Request::get("/blog%2Fx")).await;
    assert!(seen.starts_with(TWO_ROUTES), "{seen}");
}

#[tokio::test]
async fn tables_stand_in_tables() {
    let inner = Routes::builder().route("/", named("index")).mount("/wiki", named("wiki")).build().unwrap();
    let routes = Routes::builder().mount("/docs", inner).build().unwrap();
    check(
        &routes,
        &[
            ("/docs", r#"index ("/docs", "")"#),
            ("/docs/x", r#"index ("/docs", "/x")"#),
            ("/docs/wiki//x", r#"wiki ("/docs/wiki", "//x")"#),
            ("//docs/%77iki/x", r#"wiki ("/docs/wiki", "/x")"#),
            ("/a/../docs/./wiki/x", r#"wiki ("/docs/wiki", "/x")"#),
            ("/docs/../wiki", "404 Not Found: no route takes '/docs/../wiki'"),
        ],
    )
    .await;
}

#[tokio::test]
async fn what_no_route_takes() {
    let bare = Routes::builder().route("/a", named("a")).build().unwrap();
    check(&bare, &[("/b\u{e9}", "404 Not Found: no route takes '/bé'")]).await;
    let long = format!("/{}", "x".repeat(9000));
    assert!(answer(&bare, Request::get(long)).await.len() < 200);
    let with_page = Routes::builder().not_found(named("page")).build().unwrap();
    check(&with_page, &[("/b", "page /b"), ("/b%2F..", "page /b%2F..")]).await;
}

#[tokio::test]
async fn targets_without_a_path() {
    let rooted = Routes::builder().mount("/", named("root")).build().unwrap();
    let bare = Routes::builder().route("/a", named("a")).build().unwrap();
    assert_eq!(answer(&rooted, Request::options("*")).await, "root *");
    assert_eq!(answer(&bare, Request::options("*")).await, "404 Not Found: no route takes '*'");
    let get = answer(&rooted, Request::get("*")).await;
    assert_eq!(get, "400 Bad Request: the target '*' is for OPTIONS alone");

    let tunnel = Request::connect("example.com:443").body(Body::empty()).unwrap();
    let refused = rooted.ask(tunnel).await.unwrap_err().into_response();
    assert_eq!(
        (refused.status().as_u16(), &refused.headers()["allow"]),
        (405, &HeaderValue::from_static(""))
    );
    let websocket = Request::connect("https://example.com/chat");
    assert_eq!(answer(&rooted, websocket).await, "root /chat");
    assert_eq!(
        answer(&rooted, Request::get("example.com:443")).await,
        "400 Bad Request: the request target has no path"
    );
}

#[test]
fn errors_say_what_to_do() {
    let error = |first: &str, second: &str| {
        Routes::builder().route(first, named("1")).mount(second, named("2")).build().unwrap_err().to_string()
    };
    assert_eq!(error("/a", "/a"), "route \"/a\" is there twice; keep one of them");
    assert_eq!(error("/a/b", "/%61//b/"), "route \"/%61//b/\" is the same as \"/a/b\"; keep one of them");
    assert_eq!(error("static", "/"), "route \"static\" does not begin with '/'; write it as \"/static\"");
}

/// The whole of routing once more, by text and linear search.
mod naive {
    /// Escapes decoded, `%2F` as NUL (which no path has); `None`: malformed.
    pub(super) fn decoded(raw: &str) -> Option<Vec<u8>> {
        let mut bytes = raw.bytes();
        let mut decoded = Vec::new();
        while let Some(byte) = bytes.next() {
            if byte != b'%' {
                decoded.push(byte);
                continue;
            }
            let digits = [bytes.next()?, bytes.next()?];
            if !digits.iter().all(u8::is_ascii_hexdigit) {
                return None;
            }
            match u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()? {
                0 => return None,
                b'/' => decoded.push(0),
                byte => decoded.push(byte),
            }
        }
        Some(decoded)
    }

    /// `a/b` of `//a/./x/../b/`; `None`: above the root.
    pub(super) fn normal(path: &[u8]) -> Option<Vec<u8>> {
        let mut kept: Vec<&[u8]> = Vec::new();
        for segment in path.split(|byte| *byte == b'/') {
            match segment {
                b"" | b"." => {}
                b".." => drop(kept.pop()?),
                segment => kept.push(segment),
            }
        }
        Some(kept.join(&b'/'))
    }

    /// Without resolving dot segments.
    pub(super) fn merged(path: &[u8]) -> Vec<u8> {
        let segments: Vec<_> =
            path.split(|byte| *byte == b'/').filter(|segment| !segment.is_empty()).collect();
        segments.join(&b'/')
    }

    pub(super) fn slashed(path: &[u8]) -> Vec<u8> {
        path.iter().map(|byte| if *byte == 0 { b'/' } else { *byte }).collect()
    }

    /// The longest of `prefixes` (normal, without a slash at either end) that `path` is under.
    pub(super) fn longest(prefixes: &[Vec<u8>], path: &[u8]) -> Option<usize> {
        let under = |prefix: &[u8]| {
            prefix.is_empty()
                || path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
        };
        (0..prefixes.len())
            .filter(|index| under(&prefixes[*index]))
            .max_by_key(|index| prefixes[*index].len())
    }
}

fn prefix() -> impl Strategy<Value = (String, Manner)> {
    let text = proptest::collection::vec("(a|b|é|%61|%25|aa)", 0..3)
        .prop_map(|parts| format!("/{}", parts.join("/")));
    (text, prop_oneof![Just(Manner::Pass), Just(Manner::Mount)])
}

fn path() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        20 => "/a|/b|/aa|/%61|/%25|/%C3%A9|/x",
        10 => "/\\.\\.|/%2e\\.|/\\.|%2F\\.\\.",
        10 => "%2Fa|%2fb|/|a|é",
        1 => "%00|%|%2|/%\\.",
    ];
    proptest::collection::vec(part, 0..8).prop_map(|parts| format!("/{}", parts.concat()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn chooses_as_the_naive_table_and_lets_nothing_escape(
        written in proptest::collection::vec(prefix(), 0..6),
        raw in path(),
    ) {
        let mut builder = Routes::builder();
        let mut prefixes = Vec::new();
        let mut manners = Vec::new();
        for (text, manner) in written {
            let normal = naive::normal(&naive::decoded(&text).unwrap()).unwrap();
            if !prefixes.contains(&normal) {
                builder = builder.add(text, manner, named("any"));
                prefixes.push(normal);
                manners.push(manner);
            }
        }
        let routes = builder.build().unwrap();
        let index_of = |route: &Route| {
            let normal = naive::normal(&naive::decoded(&route.prefix).unwrap()).unwrap();
            prefixes.iter().position(|prefix| *prefix == normal).unwrap()
        };
        let chosen = routes.0.by_path(&raw).map(|found| found.map(|(route, rest)| (index_of(route), rest)));

        let decoded = naive::decoded(&raw);
        let Some(normal) = decoded.as_deref().and_then(naive::normal) else {
            prop_assert!(matches!(chosen, Err(Refusal::Malformed(_))));
            return Ok(());
        };
        let decoded = decoded.unwrap();
        let expected = naive::longest(&prefixes, &normal);
        // What the application sees: all of it, or, behind a mount, the prefix and the rest.
        let seen = match expected.map(|index| manners[index]) {
            None => {
                prop_assert_eq!(chosen, Ok(None));
                return Ok(());
            }
            Some(Manner::Pass) => naive::slashed(&decoded),
            Some(Manner::Mount) => naive::slashed(&normal),
        };
        let literally = naive::longest(&prefixes, &naive::merged(&seen));
        let resolved = naive::normal(&seen);
        let resolved_leads = resolved.as_deref().map(|path| naive::longest(&prefixes, path));
        match chosen {
            Ok(found) => {
                let (index, rest) = found.unwrap();
                prop_assert_eq!((Some(index), literally, resolved_leads), (expected, expected, Some(expected)));
                let below = naive::merged(&naive::decoded(&rest).unwrap());
                let kept = normal[prefixes[index].len()..].to_vec();
                prop_assert_eq!(naive::normal(&below).unwrap(), naive::merged(&kept));
            }
            Err(Refusal::Ambiguous) => prop_assert!(literally != expected || resolved_leads != Some(expected)),
            Err(Refusal::Malformed(why)) => prop_assert!(why == PathError::AboveRoot && resolved.is_none()),
        }
    }

    #[test]
    fn any_path_is_answered(raw in "/(\\PC|%|/|\\.){0,30}") {
        let routes = Routes::builder().mount("/a", named("a")).route("/", named("root")).build().unwrap();
        let _ = routes.0.by_path(&raw);
    }
}
